//! The slow, obvious evaluator: access-model 5.1 to 5.6 read aloud over the documents' own values, compared with the
//! compiled one on generated roles and requests. It shares no code with it but the documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::{
    CommandFacts, DatabaseDocument, Document, Effect, Identity, Permit, Request, RoleDocument, Snapshot, Source,
};

type Labels = BTreeMap<String, String>;
type Traits = BTreeMap<String, Vec<String>>;

/// What one request asks.
#[derive(Debug, Clone)]
struct Asked {
    user: String,
    name: String,
    mfa: bool,
    device: bool,
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// `prefix{{space.trait}}suffix` or a literal; the generator writes nothing else.
fn expand(text: &str, traits: &Traits) -> Vec<String> {
    let Some((prefix, rest)) = text.split_once("{{") else { return vec![text.to_owned()] };
    let (variable, suffix) = rest.split_once("}}").unwrap();
    let name = variable.trim().split_once('.').unwrap().1;
    let values = traits.get(name).cloned().unwrap_or_default();
    values.into_iter().filter(|v| !v.is_empty()).map(|v| format!("{prefix}{v}{suffix}")).collect()
}

/// 5.2.
fn glob_or_regex(pattern: &str, value: &str) -> bool {
    let regex = if pattern.starts_with('^') && pattern.ends_with('$') {
        pattern.to_owned()
    } else {
        format!("^{}$", regex::escape(pattern).replace(r"\*", ".*"))
    };
    regex::Regex::new(&regex).unwrap().is_match(value)
}

/// 5.1.
fn labels_match(selector: &Value, target: &Labels, traits: &Traits) -> bool {
    let Some(selector) = selector.as_object().filter(|map| !map.is_empty()) else { return false };
    if selector.len() == 1 && selector.get("*").map(texts) == Some(vec!["*".to_owned()]) {
        return true;
    }
    selector.iter().all(|(key, values)| {
        let Some(found) = target.get(key) else { return false };
        texts(values).iter().any(|value| {
            let mut expanded = expand(value, traits);
            if expanded.is_empty() {
                expanded.push(String::new());
            }
            expanded.iter().any(|value| value == "*" || glob_or_regex(value, found))
        })
    })
}

/// 5.4.
fn listed(list: &Value, traits: &Traits, name: &str) -> bool {
    texts(list).iter().any(|entry| match entry.strip_prefix("glob:") {
        Some(glob) => {
            regex::Regex::new(&format!("^{}$", regex::escape(glob).replace(r"\*", ".*"))).unwrap().is_match(name)
        }
        None => expand(entry, traits).iter().any(|value| value == name || value == "*"),
    })
}

fn wants_mfa(role: &Value) -> bool {
    role["spec"]["options"]["require_session_mfa"] == "yes"
}

fn wants_device(role: &Value) -> bool {
    role["spec"]["options"]["device_trust_mode"] == "required"
}

fn allow_labels(role: &Value, labels: &Labels, traits: &Traits) -> bool {
    let selector = &role["spec"]["allow"]["db_labels"];
    (role["version"] == "v3" && selector.is_null()) || labels_match(selector, labels, traits)
}

fn allow_lists(role: &Value, traits: &Traits, names_count: bool, asked: &Asked) -> bool {
    let allow = &role["spec"]["allow"];
    listed(&allow["db_users"], traits, &asked.user) && (!names_count || listed(&allow["db_names"], traits, &asked.name))
}

/// 5.4, where `db_names` is enforced.
fn names_count(roles: &[Value], protocol: &str) -> bool {
    let enforced = roles.iter().any(|role| role["spec"]["options"]["enforce_db_names"] == true);
    matches!(protocol, "postgres" | "mongodb") || (enforced && matches!(protocol, "mysql" | "redis"))
}

fn with_default_name(protocol: &str, asked: &Asked) -> Asked {
    let name = match (protocol, asked.name.as_str()) {
        ("postgres", "") => asked.user.clone(),
        ("redis", "") => "0".to_owned(),
        (_, name) => name.to_owned(),
    };
    Asked { name, ..asked.clone() }
}

/// 5.5, steps 2 to 5.
fn decide(roles: &[Value], traits: &Traits, labels: &Labels, protocol: &str, asked: &Asked) -> bool {
    let names_count = names_count(roles, protocol);
    let asked = with_default_name(protocol, asked);
    if protocol == "postgres" && (asked.user.len() > 63 || asked.name.len() > 63) {
        return false;
    }
    if !roles.is_empty() && roles.iter().all(wants_mfa) && !asked.mfa {
        return false;
    }
    for role in roles {
        let deny = &role["spec"]["deny"];
        if labels_match(&deny["db_labels"], labels, traits)
            || listed(&deny["db_users"], traits, &asked.user)
            || (names_count && listed(&deny["db_names"], traits, &asked.name))
        {
            return false;
        }
    }
    let mut allowed = false;
    for role in roles {
        if !allow_labels(role, labels, traits) || !allow_lists(role, traits, names_count, &asked) {
            continue;
        }
        if asked.mfa && asked.device {
            return true;
        }
        if (wants_mfa(role) && !asked.mfa) || (wants_device(role) && !asked.device) {
            return false;
        }
        allowed = true;
    }
    allowed
}

/// What may be asked of 5.8: full name, classes, known, right.
type Command = (&'static str, &'static [&'static str], bool, Option<&'static str>);

const COMMANDS: [Command; 9] = [
    ("GET", &["read", "fast"], true, None),
    ("SET", &["write", "slow"], true, None),
    ("CONFIG|GET", &["admin", "slow"], true, None),
    ("CONFIG|SET", &["admin", "slow"], true, None),
    ("CONFIG", &["slow"], true, None),
    ("MONITOR", &["admin"], true, Some("monitor")),
    ("CONFIG|MIGRATE", &["admin", "write"], true, Some("outbound")),
    ("shutdown", &["admin"], true, Some("admin")),
    ("NOSUCH", &[], false, None),
];
/// PostgreSQL's by bit: `@query`, `@function_call`, `@replication`.
const CLASSES: [Command; 3] = [
    ("", &["query"], true, None),
    ("", &["function_call"], true, None),
    ("", &["replication"], true, Some("replication")),
];

/// Whether an entry of `db_commands` speaks of the command, by name, as its container, by class or by right.
fn speaks_of(entry: &str, (name, classes, _, right): Command) -> bool {
    let (entry, name) = (entry.to_lowercase(), name.to_lowercase());
    let of_class = |class: &&str| entry == format!("@{class}");
    entry == "*"
        || entry == name
        || name.starts_with(&format!("{entry}|"))
        || classes.iter().chain(&right).any(of_class)
}

/// 5.8: what the matching roles allow, minus what any role denies.
fn permitted(roles: &[Value], matching: &[&Value], command: Command) -> bool {
    let (name, _, known, right) = command;
    let denied = roles.iter().flat_map(|role| texts(&role["spec"]["deny"]["db_commands"]));
    let granted = |role: &&Value| {
        let field = &role["spec"]["allow"]["db_commands"];
        let entries = texts(field);
        match (known, right) {
            (false, _) => entries.iter().any(|entry| entry == "*"),
            (true, Some(right)) => {
                let itself = |entry: &String| !name.is_empty() && entry.eq_ignore_ascii_case(name);
                entries.iter().any(|entry| entry.eq_ignore_ascii_case(&format!("@{right}")) || itself(entry))
            }
            (true, None) => field.is_null() || entries.iter().any(|entry| speaks_of(entry, command)),
        }
    };
    matching.iter().any(granted) && !denied.into_iter().any(|entry| speaks_of(&entry, command))
}

/// 5.8: one glob of one matching role, or a matching role without globs. The generator writes no class or escape.
fn key_permitted(matching: &[&Value], key: &str) -> bool {
    matching.iter().any(|role| {
        let field = &role["spec"]["allow"]["db_keys"];
        field.is_null()
            || texts(field).iter().any(|glob| {
                let regex = regex::escape(glob).replace(r"\*", ".*").replace(r"\?", ".");
                regex::Regex::new(&format!("^{regex}$")).unwrap().is_match(key)
            })
    })
}

fn pick(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

fn selector() -> impl Strategy<Value = Value> {
    let value = pick(&["prod", "staging", "pro*", "*", "^pro|ing$", "{{external.team}}", "{{external.none}}", ""]);
    let values = prop::collection::vec(value, 0..3).prop_map(|values| json!(values));
    let keyed = prop::collection::btree_map(pick(&["env", "team", "tier"]), values, 0..3).prop_map(|map| json!(map));
    prop_oneof![3 => keyed, 2 => Just(json!({ "*": "*" })), 1 => Just(Value::Null)]
}

fn names() -> impl Strategy<Value = Value> {
    let entry =
        pick(&["alice", "bob", "app", "*", "ali*", "0", "glob:a*", "{{internal.db_users}}", "x{{external.team}}"]);
    let entries = prop::collection::vec(entry, 0..4).prop_map(|entries| json!(entries));
    prop_oneof![6 => entries, 1 => Just(Value::Null)]
}

/// Deny lists are mostly empty, or hardly anything would be allowed.
fn seldom<S: Strategy<Value = Value> + 'static>(strategy: S) -> impl Strategy<Value = Value> {
    prop_oneof![7 => Just(Value::Null), 1 => strategy]
}

fn command_names() -> impl Strategy<Value = Value> {
    let name = pick(&[
        "*",
        "*",
        "get",
        "SET",
        "CONFIG",
        "Config|Set",
        "CONFIG|MIGRATE",
        "MONITOR",
        "@read",
        "@WRITE",
        "@admin",
        "@slow",
        "@monitor",
        "@outbound",
        "@query",
        "@function_call",
        "@replication",
    ]);
    let names = prop::collection::vec(name, 0..4).prop_map(|names| json!(names));
    prop_oneof![1 => Just(Value::Null), 2 => names]
}

fn key_globs() -> impl Strategy<Value = Value> {
    let globs = prop::collection::vec(pick(&["*", "user:*", "user:?", "*:1", "x"]), 0..3);
    prop_oneof![1 => Just(Value::Null), 2 => globs.prop_map(|globs| json!(globs))]
}

fn role() -> impl Strategy<Value = Value> {
    let allow = (selector(), names(), names(), command_names(), key_globs()).prop_map(
        |(labels, users, names, commands, keys)| {
            json!({
                "db_labels": labels,
                "db_users": users,
                "db_names": names,
                "db_commands": commands,
                "db_keys": keys,
            })
        },
    );
    let deny = (seldom(selector()), seldom(names()), seldom(names()), seldom(command_names())).prop_map(
        |(labels, users, names, commands)| {
            json!({ "db_labels": labels, "db_users": users, "db_names": names, "db_commands": commands })
        },
    );
    let options = (pick(&["no", "no", "yes"]), pick(&["off", "off", "required"]), prop::bool::weighted(0.2)).prop_map(
        |(mfa, device, enforce)| {
            json!({ "require_session_mfa": mfa, "device_trust_mode": device, "enforce_db_names": enforce })
        },
    );
    (pick(&["v3", "v4", "v7", "v8"]), allow, deny, options).prop_map(|(version, allow, deny, options)| {
        json!({
            "kind": "role",
            "version": version,
            "metadata": { "name": "unnamed" },
            "spec": { "allow": allow, "deny": deny, "options": options },
        })
    })
}

fn roles() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(role(), 0..4).prop_map(|mut roles| {
        for (at, role) in roles.iter_mut().enumerate() {
            role["metadata"]["name"] = json!(format!("role-{at}"));
        }
        roles
    })
}

fn traits() -> impl Strategy<Value = Traits> {
    let values = prop::collection::vec(pick(&["alice", "prod", "*", "", "glob:*"]), 0..3);
    prop::collection::btree_map(pick(&["db_users", "team"]), values, 0..3)
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = pick(&["prod", "staging", "", "alice", "x\ny"]);
    prop::collection::btree_map(pick(&["env", "team", "tier", "*"]), value, 0..4)
}

fn asked() -> impl Strategy<Value = Asked> {
    let long = Just("a".repeat(64));
    let user = prop_oneof![9 => pick(&["alice", "bob", "xprod", "glob:*", "*"]), 1 => long];
    let name = prop_oneof![4 => pick(&["app", "alice", "bob", "", "0"]), 1 => pick(&["other", "ab"])];
    (user, name, any::<bool>(), any::<bool>()).prop_map(|(user, name, mfa, device)| Asked { user, name, mfa, device })
}

fn database(protocol: &str, labels: &Labels) -> DatabaseDocument {
    let value = json!({
        "kind": "db",
        "version": "v3",
        "metadata": { "name": "target", "labels": labels },
        "spec": { "protocol": protocol, "uri": "localhost:1" },
    });
    match Document::from_json(value).unwrap() {
        Document::Database(database) => database,
        other => panic!("read a {}", other.kind()),
    }
}

fn document(value: &Value) -> RoleDocument {
    match Document::from_json(value.clone()).unwrap() {
        Document::Role(role) => role,
        other => panic!("read a {}", other.kind()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 15_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_naive_evaluator_in_any_role_order(
        roles in roles(),
        traits in traits(),
        labels in labels(),
        asked in asked(),
        protocol in pick(&["postgres", "postgres", "redis", "redis", "mysql", "mongodb", "cassandra"]),
        asked_again in asked(),
        turn in 0_usize..4,
    ) {
        let expected = decide(&roles, &traits, &labels, &protocol, &asked);
        let source = Source {
            roles: roles.iter().map(document).collect(),
            databases: vec![database(&protocol, &labels)],
            ..Source::default()
        };
        let snapshot = Snapshot::compile(&source, 7).unwrap();
        let target = Arc::clone(snapshot.database("target").unwrap());
        let request = Request {
            database: &target,
            db_user: &asked.user,
            db_name: &asked.name,
            mfa_verified: asked.mfa,
            device_trusted: asked.device,
        };
        let mut names: Vec<String> = source.roles.iter().map(|role| role.name().to_owned()).collect();
        let principal = snapshot.principal(&Identity { user: "alice", roles: &names, traits: &traits }).unwrap();
        let decision = principal.decide(&request);
        prop_assert_eq!(decision.effect == Effect::Allow, expected, "{}", decision.because);
        prop_assert_eq!(decision.version, 7);

        if !names.is_empty() {
            let by = turn % names.len();
            names.rotate_left(by);
        }
        let turned = snapshot.principal(&Identity { user: "alice", roles: &names, traits: &traits }).unwrap();
        prop_assert_eq!(&turned.decide(&request), &decision);

        let permit = match principal.authorize(&request) {
            Ok(permit) => permit,
            Err(denied) => {
                prop_assert!(!expected);
                prop_assert_eq!(&denied.because, &decision.because);
                return Ok(());
            }
        };
        prop_assert!(expected && principal.can_see(&target));
        prop_assert_eq!(permit.checks_names(), names_count(&roles, &protocol));
        check_rules(&permit, &roles, &traits, &labels, &protocol, &asked)?;

        let again = Asked { user: asked_again.user, name: asked_again.name, ..asked.clone() };
        let expected = decide(&roles, &traits, &labels, &protocol, &again);
        match principal.reauthorize(&permit, &again.user, &again.name) {
            Ok(permit) => {
                prop_assert!(expected);
                check_rules(&permit, &roles, &traits, &labels, &protocol, &again)?;
            }
            Err(_) => prop_assert!(!expected),
        }
    }
}

/// Compares what a permit says of roles, commands and keys.
fn check_rules(
    permit: &Permit,
    roles: &[Value],
    traits: &Traits,
    labels: &Labels,
    protocol: &str,
    asked: &Asked,
) -> Result<(), TestCaseError> {
    let asked = with_default_name(protocol, asked);
    prop_assert_eq!(permit.db_name(), &asked.name);
    let names_count = names_count(roles, protocol);
    let matches = |role: &&Value| allow_labels(role, labels, traits) && allow_lists(role, traits, names_count, &asked);
    let matching: Vec<&Value> = roles.iter().filter(matches).collect();
    let names: Vec<&str> = matching.iter().filter_map(|role| role["metadata"]["name"].as_str()).collect();
    prop_assert_eq!(permit.rules().iter().map(|rule| &**rule).collect::<Vec<_>>(), names);
    let rules = permit.command_rules();
    for command in COMMANDS {
        let (name, classes, known, right) = command;
        let facts = CommandFacts { classes, known, right, ..CommandFacts::named(name) };
        let verdict = rules.judge(&facts);
        prop_assert_eq!(verdict.allowed, permitted(roles, &matching, command), "{} {}", name, verdict.clause);
        if rules.is_unrestricted() && known {
            prop_assert_eq!(verdict.allowed, right.is_none());
        }
    }
    for (bit, class) in CLASSES.into_iter().enumerate() {
        prop_assert_eq!(permit.commands().allows(bit as u8), permitted(roles, &matching, class));
    }
    for key in ["user:1", "user:10", "a:1", "x", "xx"] {
        let allowed = permit.key_rules().is_none_or(|keys| keys.allows(key.as_bytes()));
        prop_assert_eq!(allowed, key_permitted(&matching, key), "{}", key);
    }
    Ok(())
}
