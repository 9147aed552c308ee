//! Creating, updating, reading and removing resources.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test program.

mod cluster;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use cluster::{Cluster, PEOPLE, Recorder, options};
use ringgate_control::{Action, Actor, Authority, ControlError};
use ringgate_policy::{DatabaseDocument, Document, Kind};
use serde_json::{Value, json};

const ROLE: &str = "kind: role\nversion: v8\nmetadata: {name: developer}\nspec: {allow: {db_users: [app]}}\n";

fn yaml_of(value: &Value) -> String {
    Document::from_json(value.clone()).unwrap().to_yaml()
}

#[test]
fn a_new_cluster_has_the_preset_roles() {
    let c = Cluster::new();
    let names: Vec<String> = c
        .authority
        .get(Kind::Role, None)
        .unwrap()
        .iter()
        .map(|d| d.pointer("/metadata/name").unwrap().as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["access", "auditor", "editor"]);
}

#[test]
fn what_is_created_is_read_back_and_creating_that_changes_nothing() {
    let c = Cluster::new();
    c.apply(PEOPLE);
    let version = c.authority.publisher().load().version();
    for kind in [Kind::Role, Kind::User, Kind::Database] {
        for document in c.authority.get(kind, None).unwrap() {
            let applied = c.authority.apply(&Actor::System, &yaml_of(&document), true).unwrap();
            assert_eq!(applied[0].action, Action::Unchanged, "{document}");
        }
    }
    assert_eq!(c.authority.publisher().load().version(), version, "nothing was published");
}

#[test]
fn creating_what_exists_needs_force() {
    let c = Cluster::new();
    let first = c.authority.apply(&Actor::System, ROLE, false).unwrap();
    assert_eq!((first[0].action, first[0].name.as_str()), (Action::Created, "developer"));
    let again = c.authority.apply(&Actor::System, ROLE, false).unwrap_err();
    assert!(matches!(again, ControlError::Exists { .. }), "{again}");
    assert_eq!(again.code(), 6);
    let changed = ROLE.replace("app", "reader");
    assert_eq!(c.authority.apply(&Actor::System, &changed, true).unwrap()[0].action, Action::Updated);
}

#[test]
fn a_stale_revision_is_a_conflict_also_after_removal() {
    let c = Cluster::new();
    c.apply(ROLE);
    let read = c.authority.get(Kind::Role, Some("developer")).unwrap().remove(0);
    let mine = yaml_of(&read).replace("app", "mine");
    let theirs = yaml_of(&read).replace("app", "theirs");
    c.apply(&theirs);
    let refused = c.authority.apply(&Actor::System, &mine, true).unwrap_err();
    assert!(matches!(refused, ControlError::Conflict { .. }), "{refused}");
    assert_eq!(refused.code(), 6);

    c.authority.remove(&Actor::System, Kind::Role, "developer").unwrap();
    let refused = c.authority.apply(&Actor::System, &mine, true).unwrap_err();
    assert!(matches!(refused, ControlError::Conflict { current: 0, .. }), "{refused}");
    c.apply(ROLE);
    let refused = c.authority.apply(&Actor::System, &mine, true).unwrap_err();
    assert!(matches!(refused, ControlError::Conflict { .. }), "a revision is never used again: {refused}");
}

#[test]
fn of_two_writers_with_one_revision_exactly_one_wins() {
    let c = Cluster::new();
    c.apply(ROLE);
    for round in 0..10 {
        let read = c.authority.get(Kind::Role, Some("developer")).unwrap().remove(0);
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let authority = c.authority.clone();
                    let mut mine = read.clone();
                    *mine.pointer_mut("/spec/allow/db_users").unwrap() = json!([format!("w{round}x{writer}")]);
                    let yaml = yaml_of(&mine);
                    scope.spawn(move || authority.apply(&Actor::System, &yaml, true).is_ok())
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1, "round {round}: {outcomes:?}");
    }
}

#[test]
fn changes_of_several_documents_are_all_or_none() {
    let c = Cluster::new();
    c.apply(ROLE);
    let version = c.authority.publisher().load().version();
    let other = ROLE.replace("developer", "other");
    for yaml in [
        format!("{other}---\n{ROLE}"),
        format!("{other}---\n{other}"),
        format!("{other}---\nkind: role\nversion: v8\nmetadata: {{name: bad}}\nspec: {{alow: {{}}}}\n"),
        format!("{other}---\nkind: spaceship\nversion: v1\nmetadata: {{name: x}}\n"),
    ] {
        assert!(c.authority.apply(&Actor::System, &yaml, false).is_err(), "{yaml}");
        assert!(c.authority.get(Kind::Role, Some("other")).is_err(), "{yaml}");
    }
    assert_eq!(c.authority.publisher().load().version(), version);
}

#[test]
fn every_problem_of_a_text_is_named() {
    let c = Cluster::new();
    let yaml = "kind: role\nversion: v8\nmetadata: {name: a}\nspec: {alow: {}}\n---\nkind: role\nversion: v99\nmetadata: {name: b}\nspec: {}\n";
    let ControlError::Invalid { problems, .. } = c.authority.apply(&Actor::System, yaml, true).unwrap_err() else {
        panic!("it must be invalid");
    };
    assert!(problems.iter().any(|p| p.contains("alow")) && problems.iter().any(|p| p.contains("v99")), "{problems:?}");
}

#[test]
fn a_change_is_published_at_once_and_survives_a_restart() {
    let c = Cluster::new();
    let before = c.authority.publisher().load().version();
    c.apply(PEOPLE);
    let snapshot = c.authority.publisher().load();
    assert!(snapshot.version() > before && snapshot.database("orders").is_some());
    let (dir, audit) = (c.dir, c.audit);
    drop(c.authority);
    let again = Authority::open(options(dir.path(), audit)).unwrap();
    assert!(again.publisher().load().database("orders").is_some());
    again.remove(&Actor::System, Kind::Database, "orders").unwrap();
    assert!(again.publisher().load().database("orders").is_none());
}

#[test]
fn removing_a_role_lists_who_still_holds_it_and_removing_twice_is_not_found() {
    let c = Cluster::new();
    c.apply(PEOPLE);
    assert_eq!(c.authority.holders("access"), ["bob", "dora"]);
    let removed = c.authority.remove(&Actor::System, Kind::Role, "access").unwrap();
    assert_eq!(removed.still_held_by, ["bob", "dora"]);
    let refused = c.authority.remove(&Actor::System, Kind::Role, "access").unwrap_err();
    assert_eq!(refused.code(), 5);
}

#[test]
fn a_user_with_a_missing_role_is_stored_with_a_warning() {
    let c = Cluster::new();
    let user = "kind: user\nversion: v2\nmetadata: {name: eve}\nspec: {roles: [ghost]}\n";
    let applied = c.authority.apply(&Actor::System, user, true).unwrap();
    assert!(applied[0].warnings.iter().any(|w| w.contains("ghost")), "{applied:?}");
}

#[test]
fn every_change_is_audited_with_its_code_and_actor() {
    let c = Cluster::new();
    c.apply(PEOPLE);
    let operator = Actor::Operator { uid: 7 };
    c.authority.apply(&operator, &ROLE.replace("app", "x"), true).unwrap();
    for (kind, name) in [(Kind::Role, "developer"), (Kind::User, "alice"), (Kind::Database, "orders")] {
        c.authority.remove(&operator, kind, name).unwrap();
    }
    for (event, code, count) in [
        ("role.created", "T9000I", 2),
        ("role.updated", "T9002I", 1),
        ("role.deleted", "T9001I", 1),
        ("user.create", "T1002I", 4),
        ("user.delete", "T1004I", 1),
        ("db.create", "TDB03I", 2),
        ("db.delete", "TDB05I", 1),
    ] {
        let found = c.audit.of(event);
        assert_eq!(found.len(), count, "{event}");
        assert!(found.iter().all(|(c, _)| c == code), "{event}: {found:?}");
    }
    let (_, members) = &c.audit.of("role.updated")[0];
    assert_eq!(
        (&members["actor"], &members["uid"], &members["name"]),
        (&json!("operator"), &json!(7), &json!("developer"))
    );
}

#[test]
fn users_change_only_what_their_rules_allow() {
    let c = Cluster::new();
    c.apply(PEOPLE);
    let other = ROLE.replace("developer", "other");
    let refused = c.authority.apply(&c.actor("alice"), &other, true).unwrap_err();
    assert_eq!(refused.code(), 4, "{refused}");
    assert!(c.authority.remove(&c.actor("bob"), Kind::Role, "developer").is_err());
    assert_eq!(c.audit.of("auth").len(), 2, "refusals are audited");
    assert!(c.authority.apply(&c.actor("dora"), &other, true).is_ok());
    let (_, members) = &c.audit.of("role.created").pop().unwrap();
    assert_eq!(members["user"], "dora");
}

#[test]
fn databases_of_the_configuration_file_win_and_are_not_changed_here() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"name": "orders", "protocol": "postgres", "uri": "10.0.0.1:5432"});
    let mut opts = options(dir.path(), Arc::new(Recorder::default()));
    opts.static_databases = vec![DatabaseDocument::from_config(&config).unwrap()];
    let authority = Authority::open(opts).unwrap();
    let stored = "kind: db\nversion: v3\nmetadata: {name: orders}\nspec: {protocol: postgres, uri: '10.0.0.2:5432'}\n";
    let applied = authority.apply(&Actor::System, stored, true).unwrap();
    assert!(applied[0].warnings.iter().any(|w| w.contains("configuration file")), "{applied:?}");
    let uri = || authority.publisher().load().database("orders").unwrap().uri.clone();
    assert!(uri().contains("10.0.0.1"), "{}", uri());
    assert_eq!(authority.get(Kind::Database, None).unwrap().len(), 1);

    authority.remove(&Actor::System, Kind::Database, "orders").unwrap();
    let refused = authority.remove(&Actor::System, Kind::Database, "orders").unwrap_err();
    assert!(matches!(refused, ControlError::Static { .. }), "{refused}");
    authority.replace_static(Vec::new(), Default::default()).unwrap();
    assert!(authority.publisher().load().database("orders").is_none());
}

#[test]
fn a_resource_past_its_expiry_is_removed_and_audited() {
    let c = Cluster::new();
    let expired = ROLE.replace("name: developer", "name: gone, expires: '2020-01-01T00:00:00Z'");
    let kept = ROLE.replace("name: developer", "name: kept, expires: '2999-01-01T00:00:00Z'");
    c.apply(&format!("{expired}---\n{kept}"));
    c.authority.remove_expired().unwrap();
    assert!(c.authority.get(Kind::Role, Some("gone")).is_err());
    assert!(c.authority.get(Kind::Role, Some("kept")).is_ok());
    assert_eq!(c.audit.of("role.deleted")[0].1["reason"], "expired");
}

#[test]
fn the_store_is_private_and_locked_to_one_server_and_one_cluster() {
    let c = Cluster::new();
    for file in ["state.db", "state.db-wal"] {
        let mode = std::fs::metadata(c.dir.path().join("data").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let second = Authority::open(options(c.dir.path(), c.audit.clone())).unwrap_err();
    assert_eq!(second.code(), 78, "{second}");
    let (dir, audit) = (c.dir, c.audit);
    drop(c.authority);
    let mut renamed = options(dir.path(), audit.clone());
    renamed.cluster_name = "other".into();
    assert_eq!(Authority::open(renamed).unwrap_err().code(), 78);
    let store = dir.path().join("data/state.db");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Authority::open(options(dir.path(), audit)).unwrap_err().code(), 78);
}

#[test]
fn a_store_of_a_later_schema_is_refused() {
    let c = Cluster::new();
    let (dir, audit) = (c.dir, c.audit);
    drop(c.authority);
    let store = rusqlite::Connection::open(dir.path().join("data/state.db")).unwrap();
    store.execute("INSERT INTO schema_migrations VALUES (99, 'later')", []).unwrap();
    drop(store);
    let refused = Authority::open(options(dir.path(), audit)).unwrap_err();
    assert!(refused.to_string().contains("schema 99"), "{refused}");
}
