//! Reading, keeping and printing documents; the documents that users of the known system already have.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{read_database, read_role, role};
use crate::{
    AuthMethod, Database, DatabaseDocument, DatabaseProtocol, Document, Identity, Kind, SecretRef, SessionMfa,
    Snapshot, Source, TlsMode,
};

const KNOWN: [&str; 4] = [
    include_str!("../../testdata/auto-db-users.yaml"),
    include_str!("../../testdata/db-access.yaml"),
    include_str!("../../testdata/role-reference.yaml"),
    include_str!("../../testdata/access-requests.yaml"),
];

#[test]
fn loads_every_known_document_with_at_most_one_warning_for_unserved_fields() {
    let mut roles = Vec::new();
    for text in KNOWN {
        for (document, warnings) in Document::parse_all(text).unwrap() {
            let unserved = warnings.iter().filter(|warning| warning.message.starts_with("kept but not served")).count();
            assert!(unserved <= 1, "{warnings:?}");
            if let Document::Role(role) = document {
                assert!(Snapshot::compile(&Source { roles: vec![role.clone()], ..Source::default() }, 1).is_ok());
                roles.push(role.name().to_owned());
            }
        }
    }
    assert_eq!(
        roles,
        [
            "auto-db-users",
            "db-access",
            "example-role",
            "admin",
            "developer",
            "auditor",
            "own-sessions",
            "contractor",
            "dba",
            "approver",
            "employee"
        ]
    );
}

#[test]
fn warns_once_about_everything_that_is_kept_but_not_served() {
    let (_, warnings) = Document::parse_all(KNOWN[2]).unwrap().remove(0);
    let text = warnings[0].to_string();
    assert!(text.starts_with("role/example-role: kept but not served by this gateway: "), "{text}");
    for field in ["allow.logins", "allow.node_labels_expression", "deny.logins", "options.forward_agent"] {
        assert!(text.contains(field), "{field} in {text}");
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn understands_the_options_of_the_known_developer_role() {
    let developer = Document::parse_all(KNOWN[2]).unwrap().remove(2).0;
    let Document::Role(developer) = developer else { panic!("not a role") };
    let snapshot = Snapshot::compile(&Source { roles: vec![developer], ..Source::default() }, 1).unwrap();
    let roles = ["developer".to_owned()];
    let who = Identity { user: "alice", roles: &roles, traits: &Default::default() };
    let principal = snapshot.principal(&who).unwrap();
    assert_eq!(principal.max_session_ttl(), Duration::from_secs(8 * 3600));
    assert_eq!(principal.options().require_session_mfa, SessionMfa::Yes);
}

#[test]
fn prints_what_it_was_given_in_yaml_and_json() {
    for text in KNOWN {
        let documents = Document::parse_all(text).unwrap();
        let mut all = Vec::new();
        for (document, _) in documents {
            let value = document.to_json();
            let again = Document::parse_all(&document.to_yaml()).unwrap().remove(0).0;
            assert_eq!(again.to_json(), value);
            assert_eq!(again.to_yaml(), document.to_yaml());
            let from_json = Document::from_json(value.clone()).unwrap();
            assert_eq!((from_json.kind(), from_json.name()), (document.kind(), document.name()));
            assert_eq!(serde_json::to_value(&document).unwrap(), value);
            all.push(value);
        }
        let array = serde_json::to_string(&all).unwrap();
        let read: Vec<Value> = Document::parse_all(&array).unwrap().iter().map(|(d, _)| d.to_json()).collect();
        assert_eq!(read, all);
    }
}

#[test]
fn keeps_text_that_yaml_would_guess_wrong() {
    let yaml = role("a", "{allow: {db_users: ['yes', '1', 'null', '1e3', '~', 'true', '']}}");
    let document = Document::parse_all(&yaml).unwrap().remove(0).0;
    let again = Document::parse_all(&document.to_yaml()).unwrap().remove(0).0;
    assert_eq!(again.to_json(), document.to_json());
}

#[test]
fn carries_the_revision_through() {
    let mut document = Document::parse_all(&role("a", "{}")).unwrap().remove(0).0;
    assert_eq!(document.revision(), None);
    document.set_revision(Some("7".to_owned()));
    let again = Document::from_json(document.to_json()).unwrap();
    assert_eq!(again.revision(), Some("7"));
    document.set_revision(None);
    assert_eq!(document.to_json().pointer("/metadata/revision"), None);
    let number = json!({ "kind": "role", "version": "v8", "metadata": { "name": "a", "revision": 7 }, "spec": {} });
    assert_eq!(Document::from_json(number).unwrap().revision(), Some("7"));
}

#[test]
fn reads_users_with_roles_and_traits() {
    let yaml = "kind: user\nversion: v2\nmetadata: {name: alice}\nspec:\n  roles: [access, dev, access]\n  traits: {db_users: [a, b], team: x, none: null}\n";
    let Document::User(user) = Document::parse_all(yaml).unwrap().remove(0).0 else { panic!("not a user") };
    assert_eq!(user.roles(), ["access", "dev"]);
    assert_eq!(user.traits()["db_users"], ["a", "b"]);
    assert_eq!(user.traits()["team"], ["x"]);
    assert!(!format!("{user:?}").contains("access"));
}

#[test]
fn reads_every_field_of_a_database() {
    let yaml = "
kind: db
version: v3
metadata: {name: orders, description: Orders, labels: {env: prod}}
spec:
  protocol: postgres
  uri: pg.internal
  tls: {mode: verify-ca, server_name: pg, ca_cert_file: /etc/ca.pem, trust_system_cert_pool: true}
  auth: {method: scram, secrets: {app: 'file:///run/app', '*': 'env:PW'}}
  limits: {max_sessions: 5, connect_timeout: 2s}
  admin_user: {name: admin}
";
    let document = read_database(yaml).unwrap();
    let database = Database::from_document(&document);
    assert_eq!((database.name.as_str(), database.description.as_str()), ("orders", "Orders"));
    assert_eq!((database.protocol, database.uri.as_str()), (DatabaseProtocol::Postgres, "pg.internal:5432"));
    assert_eq!((database.tls.mode, database.tls.trust_system_cert_pool), (TlsMode::VerifyCa, true));
    assert_eq!(database.auth.method, AuthMethod::Scram);
    assert_eq!(database.auth.secret("app"), Some(&SecretRef::File("/run/app".into())));
    assert_eq!(database.auth.secret("other"), Some(&SecretRef::Env("PW".to_owned())));
    assert_eq!((database.limits.max_sessions, database.limits.connect_timeout.as_secs()), (5, 2));
    let short = "{kind: db, version: v3, metadata: {name: d}, spec: {protocol: mariadb, uri: h, auth: none}}";
    let short = Database::from_document(&read_database(short).unwrap());
    assert_eq!((short.protocol, short.uri.as_str()), (DatabaseProtocol::Mysql, "h:3306"));
    assert_eq!((short.auth.method, short.tls.mode), (AuthMethod::None, TlsMode::VerifyFull));
}

#[test]
fn refuses_a_literal_secret_without_showing_it() {
    for spec in [
        "{protocol: postgres, uri: h, auth: {method: scram, secrets: {app: hunter2}}}",
        "{protocol: postgres, uri: h, auth: {method: scram, secrets: {app: [hunter2]}}}",
        "{protocol: postgres, uri: 'postgres://app:hunter2@h:5432'}",
        "{protocol: redis, uri: 'redis://:hunter2@h:6379'}",
    ] {
        let error =
            read_database(&format!("{{kind: db, version: v3, metadata: {{name: d}}, spec: {spec}}}")).unwrap_err();
        assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn refuses_databases_that_could_not_be_reached_or_routed() {
    for (name, spec, path) in [
        ("d", "{uri: h}", "spec.protocol: missing"),
        ("d", "{protocol: postgres}", "spec.uri: missing"),
        ("d", "{protocol: postgres, uri: ''}", "spec.uri: empty"),
        ("d", "{protocol: postgre, uri: h}", "did you mean `postgres`?"),
        ("a_b", "{protocol: postgres, uri: h}", "metadata.name: "),
        ("-a", "{protocol: postgres, uri: h}", "metadata.name: "),
        ("d", "{protocol: postgres, uri: h, auth: scram}", "spec.auth: "),
        ("d", "{protocol: postgres, uri: h, auth: passthrough}", "spec.auth: "),
        ("d", "{protocol: redis, uri: h, auth: {method: scram, secrets: {'*': 'env:A'}}}", "spec.auth: "),
        ("d", "{protocol: postgres, uri: h, mode: cluster}", "spec.mode: "),
        ("d", "{protocol: redis, uri: 'h?mode=cluster', mode: standalone}", "spec.mode: "),
        ("d", "{protocol: redis, uri: 'unix:///s', mode: cluster}", "spec.mode: "),
        ("d", "{protocol: redis, uri: 'rediss://h', tls: {mode: 'off'}}", "spec.uri: "),
        ("d", "{protocol: postgres, uri: h, tls: {mode: verify}}", "spec.tls.mode: "),
        ("d", "{protocol: postgres, uri: h, tls: {ca_cert: x}}", "spec.tls.ca_cert: "),
        ("d", "{protocol: postgres, uri: h, limits: {max_sesions: 1}}", "did you mean `max_sessions`?"),
    ] {
        let text = format!("{{kind: db, version: v3, metadata: {{name: {name}}}, spec: {spec}}}");
        let error = read_database(&text).unwrap_err().to_string();
        assert!(error.contains(path), "{spec} gave: {error}");
    }
}

#[test]
fn warns_about_clear_text_to_another_host_only() {
    let warnings = |uri: &str| {
        let yaml = format!(
            "{{kind: db, version: v3, metadata: {{name: d}}, spec: {{protocol: postgres, uri: '{uri}', tls: {{mode: off}}}}}}"
        );
        Document::parse_all(&yaml).unwrap().remove(0).1.len()
    };
    assert_eq!(warnings("pg.internal:5432"), 1);
    for local in ["localhost:5432", "127.0.0.1:5432", "[::1]:5432", "/run/pg/.s.PGSQL.5432"] {
        assert_eq!(warnings(local), 0, "{local}");
    }
}

#[test]
fn reads_databases_of_the_configuration_file() {
    let entry = json!({
        "name": "my-postgres", "description": "Production PostgreSQL", "protocol": "postgres",
        "uri": "postgres.internal.example.com:5432", "static_labels": { "env": "production" },
        "tls": { "mode": "verify-full", "server_name": "", "ca": "file:///etc/ringgate/db-ca.pem" },
        "dynamic_labels": [], "pool": "auto",
    });
    let document = DatabaseDocument::from_config(&entry).unwrap();
    let database = document.database();
    assert_eq!(database.labels.get("env"), Some("production"));
    assert_eq!(database.tls.ca_cert_file.as_deref(), Some(std::path::Path::new("/etc/ringgate/db-ca.pem")));
    assert_eq!(database.tls.server_name, None);
    let error = DatabaseDocument::from_config(&json!({ "name": "d", "protocl": "postgres", "uri": "h" })).unwrap_err();
    assert!(error.to_string().contains("spec.protocl: unknown field; did you mean `protocol`?"), "{error}");
}

#[test]
fn reads_kinds_in_singular_and_plural() {
    for (word, kind) in [
        ("role", Kind::Role),
        ("roles", Kind::Role),
        ("users", Kind::User),
        ("db", Kind::Database),
        ("dbs", Kind::Database),
    ] {
        assert_eq!(word.parse(), Ok(kind));
    }
    assert_eq!("rol".parse::<Kind>().unwrap_err().to_string(), "unknown kind `rol`; did you mean `role`?");
}

#[test]
fn bounds_size_depth_and_alias_expansion() {
    let long = format!("# {}", "x".repeat(crate::DOCUMENT_BYTES_MAX));
    assert!(Document::parse_all(&long).unwrap_err().to_string().contains("more than"));
    let deep = format!("kind: {}role", "[".repeat(1000));
    assert!(Document::parse_all(&deep).is_err());
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let previous = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![previous; 10].join(", ")));
    }
    assert!(Document::parse_all(&bomb).is_err());
    for text in ["", "---\n---\n", "# nothing\n", "[]"] {
        assert!(Document::parse_all(text).unwrap().is_empty(), "{text:?}");
    }
    for text in
        ["just text", "- 1", "!tag {kind: role}", "{kind: [role]}", "{1: 2}", "kind: role", "\u{0}", "{\"kind\":"]
    {
        assert!(Document::parse_all(text).is_err(), "{text:?}");
    }
    assert!(read_role(&role("a", "null")).is_ok());
}

/// Text that is nearly a document: known words, punctuation and noise in any order.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "kind: role",
        "version: v8",
        "metadata:",
        "name: a",
        "spec:",
        "allow:",
        "deny:",
        "db_labels:",
        "'*': '*'",
        "options:",
        "db_users: ['{{internal.db_users}}']",
        "db_labels_expression: 'labels.a == \"b\"'",
        "request:",
        "thresholds:",
        "- ",
        "  ",
        "\n",
        "\n  ",
        "\n    ",
        "\n      ",
        "\t",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "|",
        ">",
        "!x",
        "---",
        "...",
        "\"",
        "'",
        ":",
        "#",
        "0x1f",
        ".inf",
        "~",
        "kind: db",
        "kind: user",
        "uri: h:1",
        "protocol: postgres",
        "^($",
        "{{",
        "}}",
        "?",
        "<<: *a",
        "\u{feff}",
    ]);
    let piece = prop_oneof![8 => word.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_any_text_without_a_panic_and_prints_back_what_it_accepts(text in nearly_yaml()) {
        match Document::parse_all(&text) {
            Ok(documents) => for (document, _) in documents {
                let again = Document::parse_all(&document.to_yaml()).unwrap().remove(0).0;
                prop_assert_eq!(again.to_json(), document.to_json());
            },
            Err(errors) => prop_assert!(!errors.0.is_empty() && !errors.to_string().is_empty()),
        }
    }

    #[test]
    fn reads_any_expression_template_and_pattern_without_a_panic(text in "[a-z.\\[\\]\"`(){}|&!=$^*\\\\ dQE0-9:-]{0,60}") {
        let _ = crate::expression::check_predicate(&text);
        let _ = crate::expression::LabelExpression::parse(&text);
        let _ = crate::template::Template::parse(&text);
        let _ = crate::principals::NameEntry::parse(&text);
        let _ = crate::parse_duration(&text);
        if let Ok(pattern) = crate::pattern::Pattern::glob_or_regex(&text) {
            pattern.matches("alice");
        }
    }

    #[test]
    fn matches_globs_as_the_regex_they_stand_for(glob in "[ab*\n.]{0,8}", value in "[ab\n.]{0,8}") {
        let regex = regex::Regex::new(&format!("^{}$", regex::escape(&glob).replace(r"\*", ".*"))).unwrap();
        let compiled = crate::pattern::Pattern::glob(&glob).unwrap();
        prop_assert_eq!(compiled.matches(&value), regex.is_match(&value));
    }
}
