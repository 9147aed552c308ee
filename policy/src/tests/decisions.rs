//! The conformance vectors of access-model 15 that concern PostgreSQL, and the reasons people read.

use super::{World, database, role, versioned};
use crate::{Because, ClusterSettings, CommandSet, CreateDbUserMode, Effect, Identity, SessionMfa, Snapshot, Source};

const ALL: &str = "{allow: {db_labels: {'*': '*'}, db_users: ['*'], db_names: ['*']}}";

#[test]
fn matches_label_maps_as_the_vectors_say() {
    let table = [
        ("L1", "{}", "{env: prod}", false),
        ("L2", "{'*': '*'}", "{}", true),
        ("L3", "{env: prod}", "{env: prod, team: a}", true),
        ("L4", "{env: prod, team: b}", "{env: prod, team: a}", false),
        ("L5", "{region: [us-east-1, eu-west-1]}", "{region: eu-west-1}", true),
        ("L6", "{env: '*'}", "{team: a}", false),
        ("L7", "{env: 'prod-*'}", "{env: prod-eu}", true),
        ("L8", "{env: '^prod-(eu|us)$'}", "{env: prod-eu}", true),
        ("L9", "{env: 'prod?'}", "{env: prod1}", false),
        ("L10", "{env: '^a|b$'}", "{env: xb}", true),
        ("L12", "{env: '{{external.none}}'}", "{env: prod}", false),
        ("empty value", "{env: '{{external.none}}'}", "{env: ''}", true),
        ("any value, the empty one included", "{env: '*'}", "{env: ''}", true),
        ("template key", "{'{{external.key}}': x}", "{k: x}", true),
        ("keys differ in case", "{Env: prod}", "{env: prod}", false),
    ];
    for (vector, selector, labels, expected) in table {
        let spec = format!("{{allow: {{db_labels: {selector}, db_users: ['*'], db_names: ['*']}}}}");
        let mut world = World::new(&(role("a", &spec) + &database("d", "postgres", labels)));
        world.traits.insert("key".to_owned(), vec!["k".to_owned()]);
        assert_eq!(world.allows("d", "u", "n"), expected, "{vector}");
    }
}

#[test]
fn decides_as_the_vectors_say() {
    let prod = |users: &str, names: &str| {
        format!("{{allow: {{db_labels: {{env: prod}}, db_users: {users}, db_names: {names}}}}}")
    };
    let a = |spec: &str| role("a", spec);
    let b = |spec: &str| role("b", spec);
    let table = [
        ("D1", a(&prod("[alice]", "[app]")), "pg", "alice", "app", true),
        ("D2", a(&prod("[alice]", "[x]")) + &b(&prod("[bob]", "[app]")), "pg", "alice", "app", false),
        ("D3", a(ALL) + &b("{deny: {db_users: [root]}}"), "pg", "root", "app", false),
        ("D3 others", a(ALL) + &b("{deny: {db_users: [root]}}"), "pg", "alice", "app", true),
        ("D4", a(ALL) + &b("{deny: {db_labels: {env: prod}}}"), "pg", "any", "any", false),
        ("D4 elsewhere", a(ALL) + &b("{deny: {db_labels: {env: prod}}}"), "dev", "any", "any", true),
        ("D5", versioned("v3", "a", "{allow: {db_users: ['*'], db_names: ['*']}}"), "pg", "u", "n", true),
        ("D6", versioned("v4", "a", "{allow: {db_users: ['*'], db_names: ['*']}}"), "pg", "u", "n", false),
        ("D7", a("{allow: {db_labels: {'*': '*'}, db_users: [alice], db_names: []}}"), "my", "alice", "app", true),
        ("D8", a(&prod("[alice]", "[app]")), "pg", "alice", "", false),
        ("D8 own name", a(&prod("[alice]", "[alice]")), "pg", "alice", "", true),
        ("D11", a(&prod("['ali*']", "['*']")), "pg", "alice", "app", false),
        ("deny name", a(ALL) + &b("{deny: {db_names: [app]}}"), "pg", "alice", "app", false),
        ("deny name where names are not checked", a(ALL) + &b("{deny: {db_names: [app]}}"), "my", "alice", "app", true),
        (
            "names checked on demand",
            a(ALL) + &b("{deny: {db_names: [app]}, options: {enforce_db_names: true}}"),
            "my",
            "alice",
            "app",
            false,
        ),
        ("no roles", String::new(), "pg", "alice", "app", false),
    ];
    for (vector, roles, target, user, name, expected) in table {
        let databases = database("pg", "postgres", "{env: prod}")
            + &database("dev", "postgres", "{env: dev}")
            + &database("my", "mysql", "{}");
        let world = World::new(&(roles + &databases));
        assert_eq!(world.allows(target, user, name), expected, "{vector}");
    }
}

#[test]
fn takes_the_strictest_demand_of_the_matching_roles() {
    let options =
        |spec: &str, options: &str| format!("{}, options: {options}}}", spec.trim_end_matches('}').to_owned() + "}");
    let with_mfa = options(ALL, "{require_session_mfa: 'yes'}");
    let target = database("d", "postgres", "{}");

    let both = World::new(&(role("a", &with_mfa) + &role("b", ALL) + &target));
    assert_eq!(both.decide("d", "u", "n").because, Because::MfaRequired { role: Some("a".into()) }, "D9");
    let request = crate::Request { mfa_verified: true, ..both.request("d", "u", "n") };
    assert_eq!(both.principal().decide(&request).effect, Effect::Allow);

    let other = "{allow: {db_labels: {env: x}, db_users: ['*'], db_names: ['*']}, options: {require_session_mfa: yes}}";
    assert!(World::new(&(role("a", other) + &role("b", ALL) + &target)).allows("d", "u", "n"), "D10");

    let only = World::new(&(role("a", other) + &target));
    assert_eq!(only.decide("d", "u", "n").because, Because::MfaRequired { role: None });

    let cluster = ClusterSettings { require_session_mfa: SessionMfa::Yes, ..ClusterSettings::default() };
    let everybody = World::with_cluster(&(role("a", ALL) + &target), cluster);
    assert_eq!(everybody.decide("d", "u", "n").because, Because::MfaRequired { role: None });

    let device = World::new(&(role("a", &options(ALL, "{device_trust_mode: required}")) + &role("b", ALL) + &target));
    assert_eq!(device.decide("d", "u", "n").because, Because::DeviceRequired { role: "a".into() });
    let request = crate::Request { device_trusted: true, ..device.request("d", "u", "n") };
    assert_eq!(device.principal().decide(&request).effect, Effect::Allow);
}

#[test]
fn limits_to_the_databases_of_a_resource_request() {
    let world = World::new(&(role("a", ALL) + &database("db1", "postgres", "{}") + &database("db2", "postgres", "{}")));
    let limited = world.principal().limited_to(["db1".to_owned()]);
    assert_eq!(limited.decide(&world.request("db1", "u", "n")).effect, Effect::Allow);
    assert_eq!(limited.decide(&world.request("db2", "u", "n")).because, Because::NotInRequestedResources, "D12");
    assert!(!limited.can_see(world.snapshot.database("db2").unwrap()));
}

#[test]
fn takes_the_highest_provisioning_mode_of_the_matching_roles() {
    let spec = |label: &str, mode: &str| {
        format!(
            "{{allow: {{db_labels: {{env: {label}}}, db_roles: [{mode}-role]}}, options: {{create_db_user_mode: {mode}}}}}"
        )
    };
    let target = database("d", "postgres", "{env: prod}");
    let mode = |roles: String| {
        let world = World::new(&(roles + &target));
        let database = world.snapshot.database("d").unwrap();
        (world.principal().create_db_user_mode(database), world.principal().db_roles(database))
    };
    let d13 = mode(role("a", &spec("prod", "keep")) + &role("b", &spec("prod", "off")));
    assert_eq!(d13, (CreateDbUserMode::Keep, vec!["keep-role".to_owned()]), "D13");
    let d14 = mode(role("a", &spec("dev", "best_effort_drop")) + &role("b", &spec("prod", "keep")));
    assert_eq!(d14, (CreateDbUserMode::Keep, vec!["keep-role".to_owned()]), "D14");
    let denied = mode(role("a", &spec("prod", "keep")) + &role("b", "{deny: {db_roles: ['*']}}"));
    assert_eq!(denied, (CreateDbUserMode::Keep, Vec::new()));
}

#[test]
fn combines_map_and_expression_by_side() {
    let target = database("d", "postgres", "{env: prod}");
    let allow = |labels: &str, expression: &str| {
        let spec =
            format!("{{allow: {{{labels} db_labels_expression: '{expression}', db_users: ['*'], db_names: ['*']}}}}");
        World::new(&(role("a", &spec) + &target)).allows("d", "u", "n")
    };
    assert!(allow("", r#"labels["env"] == "prod""#));
    assert!(allow("db_labels: {env: prod},", r#"labels["env"] == "prod""#));
    assert!(!allow("db_labels: {env: dev},", r#"labels["env"] == "prod""#));
    assert!(!allow("db_labels: {env: prod},", "false"));

    let deny = |block: &str| {
        let roles = role("a", ALL) + &role("b", &format!("{{deny: {{{block}}}}}"));
        !World::new(&(roles + &target)).allows("d", "u", "n")
    };
    assert!(deny("db_labels: {env: dev}, db_labels_expression: 'true'"));
    assert!(deny("db_labels: {env: prod}, db_labels_expression: 'false'"));
    assert!(!deny("db_labels: {env: dev}, db_labels_expression: 'false'"));
}

#[test]
fn fails_closed_where_an_expression_or_expansion_fails() {
    let failing = r#"contains(email.local(user.spec.traits["email"]), "x")"#;
    let target = database("d", "postgres", "{env: prod}");
    let world = |roles: String| {
        let mut world = World::new(&(roles + &target));
        world.traits.insert("email".to_owned(), vec!["no address".to_owned()]);
        world
    };
    let spec = format!("{{allow: {{db_labels_expression: '{failing}', db_users: ['*'], db_names: ['*']}}}}");
    assert!(!world(role("a", &spec)).allows("d", "u", "n"));
    let deny = |block: String| role("a", ALL) + &role("b", &format!("{{deny: {{{block}}}}}"));
    assert!(!world(deny(format!("db_labels_expression: '{failing}'"))).allows("d", "u", "n"));
    assert!(!world(deny("db_labels: {env: '{{email.local(external.email)}}'}".to_owned())).allows("d", "u", "n"));
    assert!(!world(deny("db_users: ['{{email.local(external.email)}}']".to_owned())).allows("d", "u", "n"));
    assert!(world(deny("db_users: ['{{external.none}}']".to_owned())).allows("d", "u", "n"));
    let spec = "{allow: {db_labels: {env: '{{email.local(external.email)}}'}, db_users: ['*'], db_names: ['*']}}";
    assert!(!world(role("a", spec)).allows("d", "u", "n"));
}

#[test]
fn denies_names_that_the_server_would_cut() {
    let world = World::new(&(role("a", ALL) + &database("d", "postgres", "{}") + &database("m", "mysql", "{}")));
    let (fits, long) = ("a".repeat(63), "a".repeat(64));
    assert!(world.allows("d", &fits, &fits));
    assert!(!world.allows("d", &long, "n") && !world.allows("d", "u", &long));
    assert!(world.allows("m", &long, "n"));
}

#[test]
fn fails_closed_on_a_role_that_does_not_exist() {
    let world = World::new(&(role("a", ALL) + &database("d", "postgres", "{}")));
    let roles = ["a".to_owned(), "gone".to_owned()];
    let error =
        world.snapshot.principal(&Identity { user: "alice", roles: &roles, traits: &world.traits }).unwrap_err();
    assert_eq!(error.to_string(), "role \"gone\" not found");
}

#[test]
fn says_which_role_and_clause_decided_and_hides_it_from_the_client() {
    let developer = "{allow: {db_labels: {env: staging}, db_users: [dev], db_names: [app]}}";
    let databases = database("orders-prod", "postgres", "{env: production}")
        + &database("orders", "postgres", "{env: staging}")
        + &database("bare", "postgres", "{}");
    let world = World::new(&(role("developer", developer) + &databases));
    let why = |database: &str, user: &str, name: &str| world.decide(database, user, name).because.to_string();
    assert_eq!(
        why("orders-prod", "dev", "app"),
        r#"role "developer" allows db_labels env=staging; "orders-prod" has env=production"#
    );
    assert_eq!(why("bare", "dev", "app"), r#"role "developer" allows db_labels env=staging; "bare" has no env"#);
    assert_eq!(why("orders", "root", "app"), r#"role "developer" allows db_users dev; the user asked for is "root""#);
    assert_eq!(why("orders", "dev", "x"), r#"role "developer" allows db_names app; the name asked for is "x""#);
    assert_eq!(why("orders", "dev", "app"), r#"role "developer" allows db_labels env=staging"#);

    let denied = world.principal().authorize(&world.request("orders", "root", "app")).unwrap_err();
    assert_eq!(
        denied.to_string(),
        r#"access to database "orders" denied: check the database user and the database name"#
    );
    assert_eq!(denied.because.role(), Some("developer"));

    let both = World::new(&(role("a", ALL) + &role("b", "{deny: {db_users: [root]}}") + &databases));
    assert_eq!(both.decide("bare", "root", "x").because.to_string(), r#"role "b" denies db_users "root""#);
    let none = World::new(&(role("a", "{allow: {db_users: ['*']}}") + &databases));
    assert_eq!(none.decide("bare", "u", "x").because, Because::NothingAllowed);
}

#[test]
fn gives_a_permit_with_everything_a_session_needs() {
    let a = "{allow: {db_labels: {'*': '*'}, db_users: ['{{internal.db_users}}'], db_names: ['*'], db_commands: ['@query']}, options: {max_connections: 3, client_idle_timeout: 10m, db_audit: {statements: ddl_dml}}}";
    let b = "{allow: {db_labels: {env: prod}, db_users: [app], db_names: [app], db_commands: ['@replication']}, deny: {db_commands: ['@function_call']}}";
    let yaml = role("a", a) + &role("b", b) + &database("d", "postgres", "{env: prod}");
    let mut world = World::new(&yaml);
    world.traits.insert("db_users".to_owned(), vec!["app".to_owned(), "ro".to_owned()]);
    let principal = world.principal();
    let permit = principal.authorize(&world.request("d", "app", "")).unwrap();
    assert_eq!((permit.db_user(), permit.db_name(), permit.version()), ("app", "app", 1));
    assert_eq!(permit.rules().iter().map(|rule| &**rule).collect::<Vec<_>>(), ["a", "b"]);
    assert!(permit.commands().allows(CommandSet::QUERY) && permit.commands().allows(CommandSet::REPLICATION));
    assert!(!permit.commands().allows(CommandSet::FUNCTION_CALL));
    assert_eq!(permit.options().max_connections, 3);
    assert_eq!(permit.database().name, "d");

    let permit = principal.authorize(&world.request("d", "ro", "other")).unwrap();
    assert_eq!(permit.rules().len(), 1);
    assert!(!permit.commands().allows(CommandSet::REPLICATION));

    let database = world.snapshot.database("d").unwrap();
    assert_eq!(principal.allowed_users(database), ["app", "ro"]);
    assert_eq!(principal.allowed_names(database), ["*", "app"]);
}

#[test]
fn hides_databases_and_users_that_are_denied() {
    let roles = role("a", "{allow: {db_labels: {'*': '*'}, db_users: [app, root, 'glob:svc-*'], db_names: ['*']}}")
        + &role("b", "{deny: {db_users: [root], db_labels: {env: prod}}}");
    let databases = database("p", "postgres", "{env: prod}") + &database("d", "postgres", "{}");
    let world = World::new(&(roles + &databases));
    let principal = world.principal();
    let visible = |name: &str| principal.can_see(world.snapshot.database(name).unwrap());
    assert!(visible("d") && !visible("p"));
    assert_eq!(principal.allowed_users(world.snapshot.database("d").unwrap()), ["app", "glob:svc-*"]);
    assert!(principal.allowed_users(world.snapshot.database("p").unwrap()).is_empty());
}

#[test]
fn judges_rules_with_deny_first_and_where_failing_closed() {
    let world = World::new(
        &(role(
            "a",
            "{allow: {rules: [{resources: [role, user], verbs: [list, read]}, {resources: [session], verbs: [read], where: 'contains(session.participants, user.metadata.name)'}]}}",
        ) + &role(
            "b",
            "{allow: {rules: [{resources: [token], verbs: ['*']}]}, deny: {rules: [{resources: [user], verbs: [read]}, {resources: [token], verbs: [delete], where: 'equals(resource.metadata.name, \"x\")'}]}}",
        )),
    );
    let principal = world.principal();
    for (kind, verb, expected) in [
        ("role", "read", true),
        ("role", "delete", false),
        ("user", "list", true),
        ("user", "read", false),
        ("session", "read", false),
        ("token", "create", true),
        ("token", "delete", false),
        ("lock", "list", false),
    ] {
        assert_eq!(principal.allows_rule(kind, verb), expected, "{verb} {kind}");
    }
    let presets = Source { roles: crate::preset_roles(), ..Source::default() };
    let snapshot = Snapshot::compile(&presets, 1).unwrap();
    let holder = |role: &str, kind: &str, verb: &str| {
        let roles = [role.to_owned()];
        let who = Identity { user: "alice", roles: &roles, traits: &world.traits };
        snapshot.principal(&who).unwrap().allows_rule(kind, verb)
    };
    assert!(holder("editor", "role", "delete") && holder("auditor", "event", "list"));
    assert!(!holder("auditor", "role", "read") && !holder("access", "role", "read"));
}

#[test]
fn reaches_every_database_of_the_traits_with_the_preset_access_role() {
    let target = crate::Document::parse_all(&database("d", "postgres", "{}")).unwrap().remove(0).0;
    let crate::Document::Database(target) = target else { panic!("not a database") };
    let source = Source { roles: crate::preset_roles(), databases: vec![target], ..Source::default() };
    let snapshot = Snapshot::compile(&source, 1).unwrap();
    let traits = super::Traits::from([
        ("db_users".to_owned(), vec!["app".to_owned()]),
        ("db_names".to_owned(), vec!["*".to_owned()]),
    ]);
    let roles = ["access".to_owned()];
    let principal = snapshot.principal(&Identity { user: "alice", roles: &roles, traits: &traits }).unwrap();
    let database = snapshot.database("d").unwrap();
    let ask =
        |db_user| crate::Request { database, db_user, db_name: "any", mfa_verified: false, device_trusted: false };
    assert_eq!(principal.decide(&ask("app")).effect, Effect::Allow);
    assert_eq!(principal.decide(&ask("root")).effect, Effect::Deny);
}

#[test]
fn refuses_to_compile_a_name_that_stands_for_two_documents() {
    let read = |yaml: &str| super::read_role(yaml).unwrap();
    let source = Source { roles: vec![read(&role("a", ALL)), read(&role("a", "{}"))], ..Source::default() };
    assert_eq!(Snapshot::compile(&source, 1).unwrap_err().to_string(), "role/a: the name is given twice");
}

#[test]
fn judges_another_name_and_user_of_a_redis_session_by_the_roles_that_then_match() {
    let roles = role(
        "a",
        "{allow: {db_labels: {'*': '*'}, db_users: [default], db_names: ['0'], db_keys: ['user:*']}, options: {enforce_db_names: true}}",
    ) + &role(
        "b",
        "{allow: {db_labels: {'*': '*'}, db_users: [default, app], db_names: ['1'], db_commands: ['@read']}}",
    );
    let world = World::new(&(roles + &database("r", "redis", "{}")));
    let principal = world.principal();
    let permit = principal.authorize(&world.request("r", "default", "")).unwrap();
    let set = crate::CommandFacts { classes: &["write"], ..crate::CommandFacts::named("SET") };
    let get = crate::CommandFacts { classes: &["read"], ..crate::CommandFacts::named("GET") };
    assert!(permit.checks_names() && permit.db_name() == "0");
    assert!(permit.command_rules().judge(&set).allowed && permit.command_rules().is_unrestricted());
    assert!(permit.key_rules().is_some_and(|keys| keys.allows(b"user:1") && !keys.allows(b"x")));

    let other = principal.reauthorize(&permit, "default", "1").unwrap();
    assert!(other.command_rules().judge(&get).allowed && !other.command_rules().judge(&set).allowed);
    assert!(other.key_rules().is_none());
    assert!(principal.reauthorize(&permit, "default", "2").is_err());
    assert!(principal.reauthorize(&permit, "app", "1").is_ok() && principal.reauthorize(&permit, "app", "0").is_err());
}

#[test]
fn leaves_names_of_redis_and_mysql_alone_where_no_role_enforces_them() {
    let roles = role("a", "{allow: {db_labels: {'*': '*'}, db_users: [app]}}");
    let world = World::new(&(roles + &database("r", "redis", "{}") + &database("m", "mysql", "{}")));
    for target in ["r", "m"] {
        let permit = world.principal().authorize(&world.request(target, "app", "7")).unwrap();
        assert!(!permit.checks_names());
    }
}
