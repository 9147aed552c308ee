//! `databases:` entries: the short form of a `db` resource, checked here so that each problem has its place.

use std::cell::RefCell;
use std::time::Duration;

use ringgate_policy::{DatabaseDocument, SecretRef};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::scalar;
use super::section::Section;
use super::tree::{Kind, Node};

/// Longest name of a database (access-model 3.1).
const NAME_BYTES_MAX: usize = 63;

/// Reads every entry; two of the same name are a problem at the second.
pub(super) fn list(file: &Section<'_>) -> Vec<DatabaseDocument> {
    let mut names: Vec<String> = Vec::new();
    let mut documents = Vec::new();
    for (index, node) in file.list("databases").unwrap_or_default().iter().enumerate() {
        let problems = RefCell::default();
        let document = entry(&format!("databases[{index}]"), node, &problems, &mut names);
        let found = problems.into_inner();
        let sound = found.is_empty();
        found.into_iter().for_each(|p| file.problem(p));
        // The resource reader is asked only when its words would not repeat ours.
        if sound {
            match DatabaseDocument::from_config(&document) {
                Ok(document) => documents.push(document),
                Err(why) => file.problem(Problem::new(node.mark.clone(), format!("`databases[{index}]`: {why}"))),
            }
        }
    }
    documents
}

fn entry(path: &str, node: &Node, problems: &RefCell<Vec<Problem>>, names: &mut Vec<String>) -> Value {
    let s = Section::new(path, node, problems);
    let name = s.read("name", |t| {
        let name = name(t)?;
        if names.contains(&name) {
            return Err(format!("a database `{t}` is listed already"));
        }
        names.push(name.clone());
        Ok(name)
    });
    if name.is_none() && s.get("name").is_none() {
        s.missing("name", "name: my-postgres");
    }
    let protocol =
        s.choice("protocol", &[("postgres", "postgres"), ("redis", "redis"), ("mysql", "mysql"), ("mariadb", "mysql")]);
    if protocol.is_none() && s.get("protocol").is_none() {
        s.missing("protocol", "protocol: postgres");
    }
    let protocol = protocol.unwrap_or("postgres");
    let uri = uri(&s, protocol);
    let mut short = Map::new();
    short.insert("name".to_owned(), json!(name.unwrap_or_default()));
    short.insert("description".to_owned(), json!(s.text("description").unwrap_or_default()));
    short.insert("protocol".to_owned(), json!(protocol));
    short.insert("uri".to_owned(), json!(uri.unwrap_or_default()));
    short.insert("static_labels".to_owned(), Value::Object(labels(&s)));
    if let Some(tls) = s.section("tls") {
        short.insert("tls".to_owned(), tls_of(tls));
    }
    if protocol == "redis" {
        if let Some(mode) = s.choice("mode", &[("standalone", "standalone"), ("cluster", "cluster")]) {
            short.insert("mode".to_owned(), json!(mode));
        }
    } else {
        s.not_served(&["mode"]);
    }
    if let Some(auth) = auth(&s, protocol) {
        short.insert("auth".to_owned(), auth);
    }
    s.choice("pool", &[("auto", ()), ("none", ())]);
    if let Some(limits) = s.section("limits") {
        short.insert("limits".to_owned(), limits_of(limits));
    }
    s.not_served(&["dynamic_labels", "admin_user", "mysql"]);
    s.finish();
    Value::Object(short)
}

fn name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(good) || !edges {
        return Err(format!("`{text}` is not a name of 1 to {NAME_BYTES_MAX} letters, digits and inner `-`"));
    }
    Ok(text.to_owned())
}

fn uri(s: &Section<'_>, protocol: &str) -> Option<String> {
    let Some(node) = s.get("uri") else {
        s.missing("uri", &format!("uri: {protocol}.internal.example.com:PORT"));
        return None;
    };
    let text = s.scalar("uri", node)?;
    if text.contains('@') {
        s.problem(
            Problem::new(node.mark.clone(), format!("`{}` holds a user or a password", s.name("uri")))
                .suggest("uri: HOST:PORT, and auth: { method: password, secrets: { USER: file:///path } }")
                .secret(),
        );
        return None;
    }
    let schemes: &[&str] = match protocol {
        "redis" => &["redis://", "rediss://"],
        "mysql" => &["mysql://", "mariadb://"],
        _ => &["postgres://", "postgresql://"],
    };
    let address = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    // The resource reader knows the parameters of a Redis URI, and answers for them.
    let address = match protocol {
        "redis" => address.split_once('?').map_or(address, |(address, _)| address).trim_end_matches('/'),
        _ => address,
    };
    if address.strip_prefix("unix://").is_some_and(|path| path.starts_with('/')) {
        return Some(text.to_owned());
    }
    let good = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '?', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    if !good {
        s.problem(
            Problem::new(node.mark.clone(), format!("`{}`: `{text}` is not an address of a database", s.name("uri")))
                .suggest(match protocol {
                    "redis" => "uri: HOST:PORT or unix:///path/redis.sock",
                    "mysql" => "uri: HOST:PORT or unix:///path/mysqld.sock",
                    _ => "uri: HOST:PORT or unix:///path/.s.PGSQL.5432",
                }),
        );
        return None;
    }
    Some(text.to_owned())
}

fn tls_of(s: Section<'_>) -> Value {
    let mut tls = Map::new();
    let modes = [("verify-full", "verify-full"), ("verify-ca", "verify-ca"), ("insecure", "insecure"), ("off", "off")];
    if let Some(mode) = s.choice("mode", &modes) {
        tls.insert("mode".to_owned(), json!(mode));
    }
    if let Some(name) = s.text("server_name").filter(|n| !n.is_empty()) {
        tls.insert("server_name".to_owned(), json!(name));
    }
    let file = s.read("ca", |t| match t.strip_prefix("file://").unwrap_or(t) {
        path if !path.starts_with('/') => Err(format!("`{t}` is not an absolute path (write file:///path/ca.pem)")),
        path if !std::path::Path::new(path).is_file() => Err(format!("file `{path}` does not exist")),
        path => Ok(path.to_owned()),
    });
    if let Some(file) = file {
        tls.insert("ca".to_owned(), json!(format!("file://{file}")));
    }
    if let Some(trust) = s.read("trust_system_cert_pool", scalar::switch) {
        tls.insert("trust_system_cert_pool".to_owned(), json!(trust));
    }
    s.finish();
    Value::Object(tls)
}

fn auth(s: &Section<'_>, protocol: &str) -> Option<Value> {
    let own = if protocol == "redis" { "passthrough" } else { "scram" };
    let methods = [("mtls", "mtls"), ("password", "password"), (own, own), ("none", "none")];
    let node = s.get("auth")?;
    if matches!(node.kind, Kind::Scalar(_)) {
        return s.choice("auth", &methods).map(|method| json!({ "method": method }));
    }
    let auth = s.section("auth")?;
    let method = auth.choice("method", &methods);
    let mut secrets = Map::new();
    if let Some(section) = auth.section("secrets") {
        for entry in section.entries() {
            if let Some(reference) = secret(&section, &entry.key, &entry.value) {
                secrets.insert(entry.key.clone(), json!(reference));
            }
        }
        // Not finished: its keys are free, they are database users.
    }
    if matches!(method, Some("password" | "scram")) && auth.get("secrets").is_none() {
        auth.missing("secrets", "secrets: { USER: file:///path }");
    }
    auth.finish();
    let mut value = Map::new();
    value.insert("method".to_owned(), json!(method.unwrap_or("mtls")));
    if !secrets.is_empty() {
        value.insert("secrets".to_owned(), Value::Object(secrets));
    }
    Some(Value::Object(value))
}

fn secret(s: &Section<'_>, user: &str, node: &Node) -> Option<String> {
    let place = s.name(user);
    let literal = |why: &str| {
        Problem::new(node.mark.clone(), format!("`{place}`: {why}"))
            .suggest(format!("{user}: file:///path, env:NAME, command:/path args or systemd-credential:NAME"))
            .secret()
    };
    let Kind::Scalar(text) = &node.kind else {
        s.problem(literal("a secret must be a reference"));
        return None;
    };
    match SecretRef::parse(text) {
        Ok(SecretRef::File(path)) if !path.is_file() => {
            s.problem(Problem::new(node.mark.clone(), format!("`{place}`: file `{}` does not exist", path.display())));
            None
        }
        Ok(_) => Some(text.clone()),
        Err(_) => {
            s.problem(literal("the secret itself must not stand here"));
            None
        }
    }
}

fn limits_of(s: Section<'_>) -> Value {
    let mut limits = Map::new();
    if let Some(sessions) = s.read("max_sessions", |t| scalar::number(t, 0, 1_000_000)) {
        limits.insert("max_sessions".to_owned(), json!(sessions));
    }
    let timeout = s.read("connect_timeout", |t| match scalar::duration(t)? {
        Duration::ZERO => Err(format!("`{t}` must be longer than zero")),
        _ => Ok(t.to_owned()),
    });
    if let Some(timeout) = timeout {
        limits.insert("connect_timeout".to_owned(), json!(timeout));
    }
    s.finish();
    Value::Object(limits)
}

fn labels(s: &Section<'_>) -> Map<String, Value> {
    let mut labels = Map::new();
    if let Some(section) = s.section("static_labels") {
        for entry in section.entries() {
            if let Some(text) = section.scalar(&entry.key, &entry.value) {
                labels.insert(entry.key.clone(), json!(text));
            }
        }
    }
    labels
}
