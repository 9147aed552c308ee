//! Reading and changing roles, users and databases.
//!
//! A change is parsed, compared with the stored revisions, compiled as part of the whole policy, stored and
//! published, in this order and under one lock. What does not compile is never stored.

use std::collections::BTreeMap;

use ringgate_policy::{ClusterSettings, DatabaseDocument, Document, Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::actor::{Actor, record};
use crate::authority::{by_name, put};
use crate::store::Write;
use crate::{Authority, ControlError};

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Kind as in documents: `role`, `user`, `db`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What was done.
    pub action: Action,
    /// The revision now stored.
    pub revision: u64,
    /// What the writer should know although the document was accepted.
    pub warnings: Vec<String>,
}

/// What was done with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Created,
    /// It replaced the former one.
    Updated,
    /// It says what was stored already.
    Unchanged,
}

/// A resource that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Kind as in documents.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// For a role: the users whose documents still name it. Their next connection fails until it is taken from
    /// them.
    pub still_held_by: Vec<String>,
}

impl Authority {
    /// Creates or, with `force`, updates the documents of a YAML stream, all or none. A document whose
    /// `metadata.revision` is not the stored one is a conflict; without `force` an existing name is an error.
    pub fn apply(&self, who: &Actor, yaml: &str, force: bool) -> Result<Vec<Applied>, ControlError> {
        let parsed = Document::parse_all(yaml).map_err(|errors| ControlError::Invalid {
            what: "the text".into(),
            problems: errors.0.iter().map(ToString::to_string).collect(),
        })?;
        for (document, _) in &parsed {
            self.permit(who, document.kind().as_str(), if force { "update" } else { "create" })?;
        }
        let mut state = self.state();
        let mut documents = state.documents.clone();
        let next = state.version.saturating_add(1);
        let mut writes = Vec::new();
        let mut applied: Vec<Applied> = Vec::new();
        for (mut document, warnings) in parsed {
            let (kind, name) = (document.kind(), document.name().to_owned());
            if applied.iter().any(|a| a.kind == kind.as_str() && a.name == name) {
                let problem = format!("{kind}/{name} is there twice");
                return Err(ControlError::Invalid { what: "the text".into(), problems: vec![problem] });
            }
            let key = (kind, name.clone());
            let (action, stored_revision) = judge(documents.get(&key), &mut document, force)?;
            if action == Action::Created && force {
                self.permit(who, kind.as_str(), "create")?;
            }
            let mut warnings: Vec<String> = warnings.into_iter().map(|w| w.message).collect();
            if kind == Kind::Database && state.static_databases.contains_key(&name) {
                warnings.push(format!("the configuration file defines {name:?} too, and wins"));
            }
            let revision = if action == Action::Unchanged { stored_revision } else { next };
            if action != Action::Unchanged {
                writes.push(put(&document));
                document.set_revision(Some(next.to_string()));
                documents.insert(key, document);
            }
            applied.push(Applied { kind: kind.as_str().into(), name, action, revision, warnings });
        }
        warn_of_unknown_roles(&documents, &mut applied);
        if !writes.is_empty() {
            state.commit(&self.inner().publisher, &writes, documents)?;
        }
        drop(state);
        for change in applied.iter().filter(|a| a.action != Action::Unchanged) {
            let (event, code) = event_of(&change.kind, change.action == Action::Created);
            let fields = json!({"name": change.name, "revision": change.revision});
            record(self.audit(), event, code, who, fields);
        }
        Ok(applied)
    }

    /// The documents of a kind, or the one named. Stored ones carry `metadata.revision`; those of the
    /// configuration file have none.
    pub fn get(&self, kind: Kind, name: Option<&str>) -> Result<Vec<Value>, ControlError> {
        let state = self.state();
        let mut found: BTreeMap<&str, Value> = state
            .documents
            .iter()
            .filter(|((k, n), _)| *k == kind && name.is_none_or(|name| name == n))
            .map(|((_, n), document)| (n.as_str(), document.to_json()))
            .collect();
        if kind == Kind::Database {
            for (n, db) in state.static_databases.iter().filter(|(n, _)| name.is_none_or(|name| name == *n)) {
                found.insert(n, Document::Database(db.clone()).to_json());
            }
        }
        match name {
            Some(name) if found.is_empty() => {
                Err(ControlError::NotFound { kind: kind.as_str().into(), name: name.into() })
            }
            _ => Ok(found.into_values().collect()),
        }
    }

    /// Removes a stored resource. Removing a role succeeds while users still name it; the answer lists them.
    pub fn remove(&self, who: &Actor, kind: Kind, name: &str) -> Result<Removed, ControlError> {
        self.permit(who, kind.as_str(), "delete")?;
        let mut state = self.state();
        let key = (kind, name.to_owned());
        if !state.documents.contains_key(&key) {
            let (kind, name) = (kind.as_str().to_owned(), name.to_owned());
            return Err(if kind == Kind::Database.as_str() && state.static_databases.contains_key(&name) {
                ControlError::Static { kind, name }
            } else {
                ControlError::NotFound { kind, name }
            });
        }
        let mut documents = state.documents.clone();
        documents.remove(&key);
        let still_held_by = if kind == Kind::Role { holders_in(&documents, name) } else { Vec::new() };
        let writes = [Write::Remove { kind: kind.as_str(), name: name.to_owned() }];
        state.commit(&self.inner().publisher, &writes, documents)?;
        let revision = state.version;
        drop(state);
        let (event, code) = removal_event_of(kind);
        record(self.audit(), event, code, who, json!({"name": name, "revision": revision}));
        Ok(Removed { kind: kind.as_str().into(), name: name.into(), still_held_by })
    }

    /// The users whose documents name this role.
    pub fn holders(&self, role: &str) -> Vec<String> {
        holders_in(&self.state().documents, role)
    }

    /// Takes up the configuration file's databases and cluster values anew, and publishes the result. On an
    /// error the former ones stay.
    pub fn replace_static(
        &self,
        databases: Vec<DatabaseDocument>,
        cluster: ClusterSettings,
    ) -> Result<(), ControlError> {
        let mut state = self.state();
        let former = std::mem::replace(&mut state.static_databases, by_name(databases));
        let former_cluster = std::mem::replace(&mut state.cluster, cluster);
        let published = state.published.saturating_add(1);
        match state.compile(&state.documents, published) {
            Ok(snapshot) => {
                state.published = published;
                self.inner().publisher.publish(snapshot);
                Ok(())
            }
            Err(e) => {
                state.static_databases = former;
                state.cluster = former_cluster;
                Err(e)
            }
        }
    }

    /// Removes what is past its `metadata.expires`. The server calls it every second.
    pub fn remove_expired(&self) -> Result<(), ControlError> {
        let now = jiff::Timestamp::now();
        let mut state = self.state();
        let expired: Vec<(Kind, String)> = state
            .documents
            .iter()
            .filter(|(_, document)| expires(document).is_some_and(|t| t <= now))
            .map(|(key, _)| key.clone())
            .collect();
        if expired.is_empty() {
            return Ok(());
        }
        let mut documents = state.documents.clone();
        let mut writes = Vec::new();
        for (kind, name) in &expired {
            documents.remove(&(*kind, name.clone()));
            writes.push(Write::Remove { kind: kind.as_str(), name: name.clone() });
        }
        state.commit(&self.inner().publisher, &writes, documents)?;
        drop(state);
        for (kind, name) in &expired {
            let (event, code) = removal_event_of(*kind);
            record(self.audit(), event, code, &Actor::System, json!({"name": name, "reason": "expired"}));
        }
        Ok(())
    }

    /// Whether `who` may do `verb` to resources of `kind`; the refusal is recorded.
    pub fn permit(&self, who: &Actor, kind: &str, verb: &str) -> Result<(), ControlError> {
        let Actor::User(identity) = who else { return Ok(()) };
        let principal = self.principal(identity)?;
        if principal.allows_rule(kind, verb) {
            return Ok(());
        }
        let what = format!("{verb} on {kind}");
        let why = format!("no role of {:?} has a rule that allows {what}", identity.user);
        record(self.audit(), "auth", "T3007W", who, json!({"success": false, "error": why}));
        Err(ControlError::Denied { what, why })
    }
}

/// Compares a document with the stored one and says what is to be done; the second value is the stored revision.
fn judge(stored: Option<&Document>, document: &mut Document, force: bool) -> Result<(Action, u64), ControlError> {
    let given = document.revision().map(str::to_owned);
    document.set_revision(None);
    let (kind, name) = (document.kind().as_str().to_owned(), document.name().to_owned());
    let Some(stored) = stored else {
        return match given {
            // Somebody removed what the writer had read: creating it again would undo that unseen.
            Some(given) => Err(ControlError::Conflict { kind, name, given, current: 0 }),
            None => Ok((Action::Created, 0)),
        };
    };
    if !force {
        return Err(ControlError::Exists { kind, name });
    }
    let current = stored.revision().and_then(|r| r.parse().ok()).unwrap_or(0);
    if let Some(given) = given
        && given.parse() != Ok(current)
    {
        return Err(ControlError::Conflict { kind, name, given, current });
    }
    let mut bare = stored.clone();
    bare.set_revision(None);
    let action = if bare.to_json() == document.to_json() { Action::Unchanged } else { Action::Updated };
    Ok((action, current))
}

fn warn_of_unknown_roles(documents: &BTreeMap<(Kind, String), Document>, applied: &mut [Applied]) {
    for change in applied.iter_mut().filter(|a| a.kind == Kind::User.as_str()) {
        let Some(Document::User(user)) = documents.get(&(Kind::User, change.name.clone())) else { continue };
        for role in user.roles().iter().filter(|r| !documents.contains_key(&(Kind::Role, (*r).clone()))) {
            change.warnings.push(format!("role {role:?} does not exist: this user cannot log in"));
        }
    }
}

fn holders_in(documents: &BTreeMap<(Kind, String), Document>, role: &str) -> Vec<String> {
    documents
        .values()
        .filter_map(|document| match document {
            Document::User(user) if user.roles().iter().any(|r| r == role) => Some(user.name().to_owned()),
            _ => None,
        })
        .collect()
}

fn expires(document: &Document) -> Option<jiff::Timestamp> {
    match document {
        Document::Role(role) => role.expires(),
        Document::User(user) => user.expires(),
        Document::Database(db) => db.expires(),
    }
}

fn event_of(kind: &str, created: bool) -> (&'static str, &'static str) {
    match (kind, created) {
        ("role", true) => ("role.created", "T9000I"),
        ("role", false) => ("role.updated", "T9002I"),
        ("user", true) => ("user.create", "T1002I"),
        ("user", false) => ("user.update", "T1003I"),
        (_, true) => ("db.create", "TDB03I"),
        (_, false) => ("db.update", "TDB04I"),
    }
}

fn removal_event_of(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Role => ("role.deleted", "T9001I"),
        Kind::User => ("user.delete", "T1004I"),
        Kind::Database => ("db.delete", "TDB05I"),
    }
}
