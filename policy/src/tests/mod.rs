//! Tests of the crate as a whole: the specification's vectors, the documents, and decisions end to end.

mod decisions;
mod documents;
mod validation;

use std::collections::BTreeMap;

use crate::{
    ClusterSettings, DatabaseDocument, Decision, Document, DocumentErrors, Identity, Principal, Request, RoleDocument,
    Snapshot, Source,
};

type Traits = BTreeMap<String, Vec<String>>;

/// A world of roles and databases written as YAML, and one principal who holds all of the roles.
struct World {
    snapshot: Snapshot,
    roles: Vec<String>,
    user: String,
    traits: Traits,
}

impl World {
    fn new(yaml: &str) -> Self {
        Self::with_cluster(yaml, ClusterSettings::default())
    }

    fn with_cluster(yaml: &str, cluster: ClusterSettings) -> Self {
        let mut source = Source { cluster, ..Source::default() };
        for (document, _) in Document::parse_all(yaml).unwrap() {
            match document {
                Document::Role(role) => source.roles.push(role),
                Document::Database(database) => source.databases.push(database),
                Document::User(_) => {}
            }
        }
        let roles = source.roles.iter().map(|role| role.name().to_owned()).collect();
        let snapshot = Snapshot::compile(&source, 1).unwrap();
        Self { snapshot, roles, user: "alice".to_owned(), traits: Traits::new() }
    }

    fn principal(&self) -> Principal {
        let who = Identity { user: &self.user, roles: &self.roles, traits: &self.traits };
        self.snapshot.principal(&who).unwrap()
    }

    fn request<'a>(&'a self, database: &str, db_user: &'a str, db_name: &'a str) -> Request<'a> {
        let database = self.snapshot.database(database).unwrap();
        Request { database, db_user, db_name, mfa_verified: false, device_trusted: false }
    }

    fn decide(&self, database: &str, db_user: &str, db_name: &str) -> Decision {
        self.principal().decide(&self.request(database, db_user, db_name))
    }

    fn allows(&self, database: &str, db_user: &str, db_name: &str) -> bool {
        self.decide(database, db_user, db_name).effect == crate::Effect::Allow
    }
}

/// A role of version v8 with the given `spec`.
fn role(name: &str, spec: &str) -> String {
    versioned("v8", name, spec)
}

fn versioned(version: &str, name: &str, spec: &str) -> String {
    format!("---\nkind: role\nversion: {version}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn database(name: &str, protocol: &str, labels: &str) -> String {
    format!(
        "---\nkind: db\nversion: v3\nmetadata: {{name: {name}, labels: {labels}}}\nspec: {{protocol: {protocol}, uri: 'localhost:1'}}\n"
    )
}

fn read_role(yaml: &str) -> Result<RoleDocument, DocumentErrors> {
    match Document::parse_all(yaml)?.remove(0).0 {
        Document::Role(role) => Ok(role),
        other => panic!("read a {}", other.kind()),
    }
}

fn read_database(yaml: &str) -> Result<DatabaseDocument, DocumentErrors> {
    match Document::parse_all(yaml)?.remove(0).0 {
        Document::Database(database) => Ok(database),
        other => panic!("read a {}", other.kind()),
    }
}
