//! Roles and databases compiled to one immutable value.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::database::Database;
use crate::document::{DatabaseDocument, Kind, RoleDocument};
use crate::options::ClusterSettings;
use crate::principal::Principal;
use crate::role::CompiledRole;
use crate::template::Facts;

/// What a snapshot is compiled from. Expired documents are left out by whoever fills it: no clock runs here.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// All roles; no name twice.
    pub roles: Vec<RoleDocument>,
    /// All databases; no name twice.
    pub databases: Vec<DatabaseDocument>,
    /// Cluster settings.
    pub cluster: ClusterSettings,
}

/// Everything that decides, at one version. It never changes; a change is another snapshot.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    cluster: ClusterSettings,
    roles: HashMap<String, CompiledRole>,
    databases: BTreeMap<String, Arc<Database>>,
    offers_local_files: bool,
}

/// Who asks: the verified content of a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// User name.
    pub user: &'a str,
    /// Role names.
    pub roles: &'a [String],
    /// Traits, frozen at login.
    pub traits: &'a BTreeMap<String, Vec<String>>,
}

/// A role named in an identity that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role {0:?} not found")]
pub struct UnknownRole(pub String);

/// One thing that keeps a source from compiling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}/{name}: {message}")]
pub struct CompileError {
    /// Kind of the document.
    pub kind: Kind,
    /// Name of the document.
    pub name: String,
    /// What is wrong.
    pub message: &'static str,
}

/// Everything that keeps a source from compiling; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileErrors(pub Vec<CompileError>);

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let between = if at > 0 { "\n" } else { "" };
            write!(f, "{between}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}

impl Snapshot {
    /// Compiles `source`. Errors: all at once; a name that stands for two documents of a kind.
    pub fn compile(source: &Source, version: u64) -> Result<Self, CompileErrors> {
        let mut errors = Vec::new();
        let mut twice = |kind, name: &str| {
            errors.push(CompileError { kind, name: name.to_owned(), message: "the name is given twice" });
        };
        let mut roles = HashMap::with_capacity(source.roles.len());
        for role in &source.roles {
            if roles.insert(role.name().to_owned(), CompiledRole::new(role.spec())).is_some() {
                twice(Kind::Role, role.name());
            }
        }
        let mut databases = BTreeMap::new();
        for document in &source.databases {
            if databases.insert(document.name().to_owned(), Database::from_document(document)).is_some() {
                twice(Kind::Database, document.name());
            }
        }
        match errors.is_empty() {
            true => {
                let offers_local_files = roles.values().any(CompiledRole::grants_local_files);
                Ok(Self { version, cluster: source.cluster.clone(), roles, databases, offers_local_files })
            }
            false => Err(CompileErrors(errors)),
        }
    }

    /// The version given to [`Self::compile`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster settings.
    pub fn cluster(&self) -> &ClusterSettings {
        &self.cluster
    }

    /// The database of that name. Whether the asking principal may know of it is [`Principal::can_see`]'s answer.
    pub fn database(&self, name: &str) -> Option<&Arc<Database>> {
        self.databases.get(name)
    }

    /// All databases by name.
    pub fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.databases.values()
    }

    /// Whether some role lets databases ask clients for files (`@local_infile`): a greeting offers that before it is
    /// known who greets back.
    pub fn offers_local_files(&self) -> bool {
        self.offers_local_files
    }

    /// Makes the identity's roles ready to decide, templates expanded. Errors: a role that does not exist, so that
    /// an identity with a deleted role gets nothing, not less.
    pub fn principal(&self, who: &Identity<'_>) -> Result<Principal, UnknownRole> {
        let facts = Facts { user: who.user, traits: who.traits };
        let mut roles = Vec::with_capacity(who.roles.len());
        for name in who.roles {
            let role = self.roles.get(name).ok_or_else(|| UnknownRole(name.clone()))?;
            roles.push(role.ready(facts));
        }
        Ok(Principal::new(self, facts, roles))
    }
}
