//! Roles as a team would write them, one database, and an identity that holds all of the roles.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use ringgate_policy::{Database, Document, Identity, Principal, Request, Snapshot, Source};

/// How the roles select databases and users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By names alone: ready once, for everybody.
    Names,
    /// The user list holds `{{internal.db_users}}`: made ready for each identity.
    Templates,
    /// Labels by glob and by regular expression.
    Patterns,
}

/// A compiled snapshot and who asks it.
pub struct World {
    snapshot: Snapshot,
    roles: Vec<String>,
    traits: BTreeMap<String, Vec<String>>,
}

impl World {
    /// `roles` of them, at most 100: each for one team's databases, with two lists and a deny. The first is for the
    /// team whose database is asked for; the others are looked at and do not match.
    pub fn new(roles: usize, form: Form) -> World {
        let mut yaml = String::from(
            "kind: db\nversion: v3\nmetadata: {name: orders, labels: {env: staging, region: eu-west-1, team: team-00}}\n\
             spec: {protocol: postgres, uri: 'db.internal:5432'}\n",
        );
        for at in 0..roles {
            let (env, team, users) = match form {
                Form::Names => ("staging", format!("team-{at:02}"), "reader, writer"),
                Form::Templates => ("staging", format!("team-{at:02}"), "reader, '{{internal.db_users}}'"),
                Form::Patterns => ("'^(staging|dev)$'", format!("'team-{at:02}*'"), "reader, 'glob:writ*'"),
            };
            write!(
                yaml,
                "---\nkind: role\nversion: v8\nmetadata: {{name: role-{at:02}}}\nspec:\n  allow:\n    \
                 db_labels: {{env: {env}, team: {team}}}\n    db_users: [{users}]\n    db_names: [app, reporting]\n  \
                 deny: {{db_users: [postgres], db_names: [template1]}}\n",
            )
            .expect("a string takes it");
        }
        let mut source = Source::default();
        for (document, _) in Document::parse_all(&yaml).expect("the documents above") {
            match document {
                Document::Role(role) => source.roles.push(role),
                Document::Database(database) => source.databases.push(database),
                Document::User(_) => {}
            }
        }
        let names = source.roles.iter().map(|role| role.name().to_owned()).collect();
        let traits = BTreeMap::from([("db_users".to_owned(), vec!["writer".to_owned()])]);
        World { snapshot: Snapshot::compile(&source, 1).expect("no name twice"), roles: names, traits }
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The identity made ready, as at the start of a session.
    pub fn principal(&self) -> Principal {
        let who = Identity { user: "alice", roles: &self.roles, traits: &self.traits };
        self.snapshot.principal(&who).expect("roles of this snapshot")
    }

    /// Asks for the database as `db_user`: `writer` is allowed, `postgres` denied by a list, others by no role allowed.
    pub fn request<'a>(&'a self, db_user: &'a str) -> Request<'a> {
        Request { database: self.database(), db_user, db_name: "app", mfa_verified: false, device_trusted: false }
    }

    fn database(&self) -> &Arc<Database> {
        self.snapshot.database("orders").expect("the document above")
    }
}

#[cfg(test)]
mod tests {
    use ringgate_policy::{Because, Effect};

    use super::*;

    #[test]
    fn each_user_gets_the_decision_that_is_measured() {
        for form in [Form::Names, Form::Templates, Form::Patterns] {
            for roles in [1, 3, 20] {
                let world = World::new(roles, form);
                let principal = world.principal();
                let because = |user| principal.decide(&world.request(user)).because;
                assert_eq!(principal.role_names().count(), roles);
                assert_eq!(principal.decide(&world.request("writer")).effect, Effect::Allow, "{form:?}");
                assert!(matches!(because("postgres"), Because::DeniedBy { .. }));
                assert!(matches!(because("stranger"), Because::NotAllowed { .. }));
            }
        }
    }
}
