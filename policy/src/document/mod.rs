//! The resource documents: `role`, `user` and `db` in YAML or JSON.
//!
//! A document keeps the value it was read from, so what `get` prints is what `create` was given, fields of resource
//! types that we do not serve included. Reading collects every complaint before it gives up.

mod database;
mod envelope;
mod fields;
mod preset;
mod problem;
mod request;
mod role;
mod text;
mod user;

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::Value;

pub use database::DatabaseDocument;
pub use preset::preset_roles;
pub use problem::{DocumentError, DocumentErrors, Warning};
pub use role::RoleDocument;
pub(crate) use role::{Conditions, LabelSelector, RoleSpec, StoredExpression};
pub use user::UserDocument;

use fields::{Complaints, Fields, Reading, nearest};

/// Largest text that [`Document::parse_all`] takes, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The kinds of resource that this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `role`.
    Role,
    /// `user`.
    User,
    /// `db`.
    Database,
}

const KINDS: &[(&str, Kind)] = &[
    ("role", Kind::Role),
    ("roles", Kind::Role),
    ("user", Kind::User),
    ("users", Kind::User),
    ("db", Kind::Database),
    ("dbs", Kind::Database),
    ("database", Kind::Database),
    ("databases", Kind::Database),
];

impl Kind {
    /// The word that stands in `kind:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::User => "user",
            Self::Database => "db",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind `{word}`{}", nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
pub struct UnknownKind {
    /// The word given.
    pub word: String,
    /// The known word most like it.
    pub nearest: Option<&'static str>,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        KINDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind).ok_or_else(|| UnknownKind {
            word: word.to_owned(),
            nearest: nearest(word, KINDS.iter().map(|(known, _)| known)),
        })
    }
}

/// One resource document.
#[derive(Debug, Clone)]
pub enum Document {
    /// What holders may do.
    Role(RoleDocument),
    /// A person or a service.
    User(UserDocument),
    /// A database behind the gateway.
    Database(DatabaseDocument),
}

impl Document {
    /// Reads every document of a YAML stream (or JSON, an array standing for its elements), strictly.
    ///
    /// Bounds: [`DOCUMENT_BYTES_MAX`]. Errors: all of them at once, unknown fields with path and nearest known name.
    pub fn parse_all(yaml: &str) -> Result<Vec<(Self, Vec<Warning>)>, DocumentErrors> {
        let mut documents = Vec::new();
        let mut errors = Vec::new();
        for (at, value) in text::read_all(yaml)?.into_iter().enumerate() {
            match Self::read(value, &format!("document {}", at + 1), Reading::Write) {
                Ok(read) => documents.push(read),
                Err(found) => errors.extend(found),
            }
        }
        match errors.is_empty() {
            true => Ok(documents),
            false => Err(DocumentErrors(errors)),
        }
    }

    /// Reads one document from a JSON value, as strictly as [`Self::parse_all`]; warnings are left out.
    pub fn from_json(value: Value) -> Result<Self, DocumentErrors> {
        Self::read(value, "document", Reading::Write).map(|(document, _)| document).map_err(DocumentErrors)
    }

    /// Reads one document that was accepted once and stored since, perhaps by a newer version.
    ///
    /// Unknown fields are kept, and an expression that no longer reads is never true in `allow`, always true in `deny`.
    pub fn from_stored(value: Value) -> Result<(Self, Vec<Warning>), DocumentErrors> {
        Self::read(value, "document", Reading::Stored).map_err(DocumentErrors)
    }

    fn read(value: Value, place: &str, reading: Reading) -> Result<(Self, Vec<Warning>), Vec<DocumentError>> {
        let word = value.get("kind").and_then(Value::as_str);
        let kind = word.map(str::parse::<Kind>);
        let name = value.pointer("/metadata/name").and_then(Value::as_str).filter(|name| name.len() <= 255);
        let document = match (&kind, name) {
            (Some(Ok(kind)), Some(name)) => format!("{kind}/{}", name.escape_debug()),
            _ => place.to_owned(),
        };
        let complaints = Complaints::new(document, reading);
        let kind = match kind {
            Some(Ok(kind)) => kind,
            Some(Err(unknown)) => {
                complaints.error("kind", unknown);
                return complaints.settle(None);
            }
            None if value.is_object() => {
                complaints.error("kind", "missing");
                return complaints.settle(None);
            }
            None => {
                complaints.error("", "a document is a map with kind, version, metadata and spec");
                return complaints.settle(None);
            }
        };
        let root = Fields::root(&value, &complaints);
        let document = match kind {
            Kind::Role => role::read(&root).map(|spec| Self::Role(RoleDocument::new(spec, value.clone()))),
            Kind::User => user::read(&root).map(|spec| Self::User(UserDocument::new(spec, value.clone()))),
            Kind::Database => {
                database::read(&root).map(|spec| Self::Database(DatabaseDocument::new(spec, value.clone())))
            }
        };
        drop(root);
        complaints.settle(document)
    }

    /// The kind of the document.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Role(_) => Kind::Role,
            Self::User(_) => Kind::User,
            Self::Database(_) => Kind::Database,
        }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        match self {
            Self::Role(role) => role.name(),
            Self::User(user) => user.name(),
            Self::Database(database) => database.name(),
        }
    }

    /// `metadata.revision`, which an update must repeat.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Role(role) => role.revision(),
            Self::User(user) => user.revision(),
            Self::Database(database) => database.revision(),
        }
    }

    /// Sets `metadata.revision`; `None` takes it away.
    pub fn set_revision(&mut self, revision: Option<String>) {
        let raw = match self {
            Self::Role(role) => role.revise(revision.clone()),
            Self::User(user) => user.revise(revision.clone()),
            Self::Database(database) => database.revise(revision.clone()),
        };
        if let Some(metadata) = raw.get_mut("metadata").and_then(Value::as_object_mut) {
            match revision {
                Some(revision) => metadata.insert("revision".to_owned(), Value::String(revision)),
                None => metadata.shift_remove("revision"),
            };
        }
    }

    /// The document as it was written.
    pub fn to_json(&self) -> Value {
        self.raw().clone()
    }

    /// The document as YAML text that [`Self::parse_all`] takes.
    pub fn to_yaml(&self) -> String {
        // A JSON value always has a YAML form; the JSON form is YAML too.
        serde_yaml::to_string(self.raw()).unwrap_or_else(|_| self.raw().to_string())
    }

    fn raw(&self) -> &Value {
        match self {
            Self::Role(role) => role.raw(),
            Self::User(user) => user.raw(),
            Self::Database(database) => database.raw(),
        }
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(serializer)
    }
}

/// Gives a document type its envelope: the value it was read from beside what was understood of it.
macro_rules! document {
    ($(#[$doc:meta])* $name:ident, $spec:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            spec: std::sync::Arc<$spec>,
            raw: serde_json::Value,
            revision: Option<String>,
        }

        impl $name {
            pub(super) fn new(spec: $spec, mut raw: serde_json::Value) -> Self {
                // The value's own form of a revision may be a number; ours is text.
                let revision = spec.metadata.revision.clone();
                if let (Some(text), Some(place)) = (&revision, raw.pointer_mut("/metadata/revision")) {
                    *place = serde_json::Value::String(text.clone());
                }
                Self { spec: std::sync::Arc::new(spec), raw, revision }
            }

            /// `metadata.name`.
            pub fn name(&self) -> &str {
                &self.spec.metadata.name
            }

            /// `metadata.description`, or the empty text.
            pub fn description(&self) -> &str {
                &self.spec.metadata.description
            }

            /// `metadata.revision`, which an update must repeat.
            pub fn revision(&self) -> Option<&str> {
                self.revision.as_deref()
            }

            /// `metadata.expires`: from then on the document counts as deleted. The store enforces it; no clock here.
            pub fn expires(&self) -> Option<jiff::Timestamp> {
                self.spec.metadata.expires
            }

            pub(crate) fn spec(&self) -> &std::sync::Arc<$spec> {
                &self.spec
            }

            pub(super) fn raw(&self) -> &serde_json::Value {
                &self.raw
            }

            pub(super) fn revise(&mut self, revision: Option<String>) -> &mut serde_json::Value {
                self.revision = revision;
                &mut self.raw
            }
        }

        // The name alone: what is kept of a user may be a credential.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.name()).finish()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.raw.serialize(serializer)
            }
        }
    };
}
pub(crate) use document;
