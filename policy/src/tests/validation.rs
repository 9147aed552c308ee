//! The table of access-model 4.4: what is refused when a document is written, and what happens to it from storage.

use serde_json::{Value, json};

use super::{World, database, read_role, role, versioned};
use crate::{Document, DocumentErrors, SESSION_TTL_MAX};

fn errors(yaml: &str) -> String {
    read_role(yaml)
        .map(|role| format!("accepted {}", role.name()))
        .map_err(|errors| errors.to_string())
        .unwrap_or_else(|e| e)
}

#[test]
fn refuses_each_condition_of_the_table_with_its_path() {
    let thresholds = "{deny: {request: {thresholds: [{approve: 1, deny: 1}]}}}";
    let no_counts = "{allow: {request: {thresholds: [{approve: 0, deny: 0}]}}}";
    for (spec, path) in [
        ("{allow: {db_lables: {}}}", "spec.allow.db_lables"),
        ("{allow: {db_labels: {'*': x}}}", "spec.allow.db_labels.*"),
        ("{allow: {db_labels: {'*': ['*', x]}}}", "spec.allow.db_labels.*"),
        ("{deny: {db_labels: {'*': x}}}", "spec.deny.db_labels.*"),
        ("{allow: {db_labels: {env: '{{a'}}}", "spec.allow.db_labels.env"),
        ("{allow: {db_labels: {'{{a': env}}}", "spec.allow.db_labels.{{a"),
        ("{allow: {db_users: [ok, '{{internal.none}}']}}", "spec.allow.db_users[1]"),
        ("{allow: {logins: ['{{internal.none}}']}}", "spec.allow.logins[0]"),
        ("{allow: {db_roles: ['*']}}", "spec.allow.db_roles[0]"),
        ("{allow: {db_roles: ['a}}']}}", "spec.allow.db_roles[0]"),
        (
            "{allow: {db_permissions: [{match: {a: b}, permissions: ['*']}]}}",
            "spec.allow.db_permissions[0].permissions[0]",
        ),
        (
            "{allow: {db_permissions: [{match: {a: b}, permissions: ['']}]}}",
            "spec.allow.db_permissions[0].permissions[0]",
        ),
        ("{allow: {db_permissions: [{match: {}, permissions: [SELECT]}]}}", "spec.allow.db_permissions[0].match"),
        (thresholds, "spec.deny.request.thresholds"),
        (no_counts, "spec.allow.request.thresholds[0]"),
        ("{options: {lock: sometimes}}", "spec.options.lock"),
        ("{options: {max_connections: -1}}", "spec.options.max_connections"),
        ("{options: {max_sessions: -1}}", "spec.options.max_sessions"),
        ("{options: {max_connections: 4294967296}}", "spec.options.max_connections"),
        ("{allow: {rules: [{resources: [role], verbs: [read], where: 'contains('}]}}", "spec.allow.rules[0].where"),
        ("{allow: {rules: [{resources: [], verbs: [read]}]}}", "spec.allow.rules[0].resources"),
        ("{allow: {db_labels_expression: 'labels.env'}}", "spec.allow.db_labels_expression"),
        ("{allow: {node_labels_expression: 'frob()'}}", "spec.allow.node_labels_expression"),
        ("{allow: {request: {thresholds: [{filter: 'a ||', approve: 1}]}}}", "spec.allow.request.thresholds[0].filter"),
        ("{allow: {db_labels: {env: '^($'}}}", "spec.allow.db_labels.env"),
        ("{allow: {db_users: ['regex:(']}}", "spec.allow.db_users[0]"),
        ("{allow: {request: {roles: ['^($']}}}", "spec.allow.request.roles[0]"),
        ("{allow: {db_users: [1]}}", "spec.allow.db_users[0]"),
        ("{allow: {db_users: {a: b}}}", "spec.allow.db_users"),
        ("{allow: []}", "spec.allow"),
        ("{deny: {db_keys: ['a*']}}", "spec.deny.db_keys"),
        ("{allow: {db_commands: ['@']}}", "spec.allow.db_commands[0]"),
        ("{allow: {db_commands: [GET, 'CONFIG|']}}", "spec.allow.db_commands[1]"),
        ("{deny: {db_commands: ['FLUSH*']}}", "spec.deny.db_commands[0]"),
        ("{deny: {db_commands: ['@dangerus']}}", "spec.deny.db_commands[0]"),
        ("{allow: {db_keys: ['[a-é]*']}}", "spec.allow.db_keys[0]"),
        ("{allow: {db_keys: [1]}}", "spec.allow.db_keys[0]"),
        ("{options: {max_session_ttl: soon}}", "spec.options.max_session_ttl"),
        ("{options: {require_session_mfa: maybe}}", "spec.options.require_session_mfa"),
        ("{options: {record_session: {default: never}}}", "spec.options.record_session.default"),
        ("{options: {db_audit: {statements: some}}}", "spec.options.db_audit.statements"),
        ("{allow: {request: {max_duration: 5}}}", "spec.allow.request.max_duration"),
    ] {
        let text = errors(&role("a", spec));
        assert!(text.starts_with(&format!("role/a: {path}: ")), "{spec} gave: {text}");
    }
}

#[test]
fn refuses_versions_and_names_outside_of_the_rules() {
    for version in ["v2", "v9", "8", "V8"] {
        assert!(errors(&versioned(version, "a", "{}")).contains("version: "), "{version}");
    }
    assert!(errors("{kind: role, metadata: {name: a}, spec: {}}").contains("version: missing"));
    for version in ["v3", "v4", "v5", "v6", "v7", "v8"] {
        assert_eq!(errors(&versioned(version, "a", "{}")), "accepted a");
    }
    for name in ["default-implicit-role", "system", "ringgate:agent", "'a b'", "a/b", "''"] {
        assert!(errors(&role(name, "{}")).contains("metadata.name: "), "{name}");
    }
}

#[test]
fn names_the_nearest_known_field_and_value() {
    let text = errors(&role("a", "{allow: {db_lables: {}}, options: {lock: strickt}}"));
    assert_eq!(
        text,
        "role/a: spec.allow.db_lables: unknown field; did you mean `db_labels`?\n\
         role/a: spec.options.lock: `strickt` is none of best_effort, strict; did you mean `strict`?"
    );
    let far = errors(&role("a", "{allow: {zzzzzzzz: {}}}"));
    assert_eq!(far, "role/a: spec.allow.zzzzzzzz: unknown field");
    assert!(errors("{kind: rolle, version: v8, metadata: {name: a}}").contains("did you mean `role`?"));
}

#[test]
fn gives_line_and_column_where_the_parser_knows_them() {
    let error = Document::parse_all("kind: role\nversion: v8\nmetadata: {name: a, name: b}\n").unwrap_err();
    assert_eq!(error.0[0].location.map(|(line, _)| line), Some(3), "{error}");
    assert!(error.to_string().contains("`name` is given twice"), "{error}");
    let error = Document::parse_all("kind: role\n  bad: [\n").unwrap_err();
    assert!(error.0[0].location.is_some(), "{error}");
}

#[test]
fn reports_every_problem_of_every_document_at_once() {
    let yaml = role("a", "{alow: {}, options: {lock: x}}") + &role("b", "{deny: {db_user: []}}");
    let DocumentErrors(errors) = Document::parse_all(&yaml).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.document.as_str(), error.path.as_str())).collect();
    assert_eq!(places, [("role/a", "spec.alow"), ("role/a", "spec.options.lock"), ("role/b", "spec.deny.db_user")]);
}

#[test]
fn normalises_a_session_ttl_of_zero_or_less() {
    for (ttl, seconds) in [
        ("0s", SESSION_TTL_MAX.as_secs()),
        ("-5m", SESSION_TTL_MAX.as_secs()),
        ("8h", 28800),
        ("40h", SESSION_TTL_MAX.as_secs()),
    ] {
        let world = World::new(&role("a", &format!("{{options: {{max_session_ttl: {ttl}}}}}")));
        assert_eq!(world.principal().max_session_ttl().as_secs(), seconds, "{ttl}");
    }
}

/// A role as an older or newer version stored it.
fn stored(spec: Value) -> Value {
    json!({ "kind": "role", "version": "v8", "metadata": { "name": "a" }, "spec": spec })
}

#[test]
fn keeps_a_stored_document_of_a_newer_version_and_fails_its_expressions_closed() {
    let value = stored(
        json!({ "allow": { "new_field": 1, "db_labels_expression": "new_function(1)", "db_users": ["*"], "db_names": ["*"] } }),
    );
    assert!(Document::from_json(value.clone()).is_err());
    let (document, warnings) = Document::from_stored(value.clone()).unwrap();
    assert_eq!(document.to_json(), value);
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    let decide = |allow: Value, deny: Value| {
        let world = World::new(&database("d", "postgres", "{env: prod}"));
        let target = super::read_database(&database("d", "postgres", "{env: prod}")).unwrap();
        let Document::Role(role) = Document::from_stored(stored(json!({ "allow": allow, "deny": deny }))).unwrap().0
        else {
            panic!("not a role")
        };
        let source = crate::Source { roles: vec![role], databases: vec![target], ..crate::Source::default() };
        let snapshot = crate::Snapshot::compile(&source, 1).unwrap();
        let roles = ["a".to_owned()];
        let who = crate::Identity { user: "alice", roles: &roles, traits: &world.traits };
        snapshot.principal(&who).unwrap().decide(&world.request("d", "u", "n")).effect == crate::Effect::Allow
    };
    let all = json!({ "db_labels": { "*": "*" }, "db_users": ["*"], "db_names": ["*"] });
    let mut broken = all.clone();
    broken["db_labels_expression"] = json!("new_function(1)");
    assert!(decide(all.clone(), json!({})));
    assert!(!decide(broken, json!({})));
    assert!(!decide(all, json!({ "db_labels_expression": "new_function(1)" })));
}

#[test]
fn names_the_nearest_class_and_takes_an_unknown_one_from_storage_with_a_warning() {
    let yaml = role("a", "{deny: {db_commands: ['@Dangerus']}}");
    assert!(errors(&yaml).contains("no protocol has this class; did you mean `dangerous`?"), "{}", errors(&yaml));
    let stored = json!({
        "kind": "role", "version": "v8", "metadata": {"name": "a"}, "spec": {"deny": {"db_commands": ["@newer"]}},
    });
    let (_, warnings) = Document::from_stored(stored).unwrap();
    assert_eq!(warnings[0].message, "spec.deny.db_commands[0]: no protocol has this class");
}
