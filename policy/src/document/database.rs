//! The `db` document (access-model 3.1).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::envelope::{Metadata, version};
use super::fields::Fields;
use super::{DocumentError, DocumentErrors, document};
use crate::database::{
    AdminUser, AuthMethod, Database, DatabaseAuth, DatabaseLimits, DatabaseMode, DatabaseProtocol, DatabaseTls,
    PROTOCOLS, TlsMode,
};
use crate::document::Document;
use crate::secret::SecretRef;

const SPEC: &[&str] = &["protocol", "uri", "auth", "admin_user", "tls", "limits", "mode"];
const SPEC_KEPT: &[&str] = &["dynamic_labels", "mysql", "pool", "aws", "gcp", "azure", "ad", "oracle", "mongo_atlas"];
const SOCKET_PATH_BYTES_MAX: usize = 107;

const AUTH_METHODS: &[(&str, AuthMethod)] = &[
    ("mtls", AuthMethod::Mtls),
    ("password", AuthMethod::Password),
    ("scram", AuthMethod::Scram),
    ("passthrough", AuthMethod::Passthrough),
    ("none", AuthMethod::None),
];
const MODES: &[(&str, DatabaseMode)] = &[("standalone", DatabaseMode::Standalone), ("cluster", DatabaseMode::Cluster)];
const TLS_MODES: &[(&str, TlsMode)] = &[
    ("verify-full", TlsMode::VerifyFull),
    ("verify-ca", TlsMode::VerifyCa),
    ("insecure", TlsMode::Insecure),
    ("off", TlsMode::Off),
    // A bare `off` stays text in our YAML; other tools write the boolean.
    ("false", TlsMode::Off),
];

/// What a `db` document says.
pub(crate) struct DatabaseSpec {
    pub(crate) metadata: Metadata,
    pub(crate) database: Arc<Database>,
}

document! {
    /// A database resource: kind `db`, version v3.
    DatabaseDocument, DatabaseSpec
}

impl DatabaseDocument {
    /// Reads an entry of the configuration's `databases:` list (user-experience 5): `name`, `description`,
    /// `static_labels`, `tls.ca`, and otherwise the fields of `spec`.
    pub fn from_config(entry: &Value) -> Result<Self, DocumentErrors> {
        let mut spec = entry.as_object().cloned().unwrap_or_default();
        let mut metadata = Map::new();
        for (from, to) in [("name", "name"), ("description", "description"), ("static_labels", "labels")] {
            if let Some(value) = spec.shift_remove(from) {
                metadata.insert(to.to_owned(), value);
            }
        }
        if let Some(tls) = spec.get_mut("tls").and_then(Value::as_object_mut)
            && let Some(ca) = tls.shift_remove("ca")
        {
            let path = ca.as_str().and_then(|text| text.strip_prefix("file://")).map(str::to_owned);
            tls.insert("ca_cert_file".to_owned(), path.map_or(ca, Value::String));
        }
        let value = json!({ "kind": "db", "version": "v3", "metadata": metadata, "spec": spec });
        match Document::from_json(value)? {
            Document::Database(document) => Ok(document),
            other => {
                let message = format!("expected a db, found a {}", other.kind());
                Err(DocumentErrors::one(DocumentError::text(message)))
            }
        }
    }

    /// The database that this document describes.
    pub fn database(&self) -> &Arc<Database> {
        &self.spec().database
    }
}

pub(super) fn read(root: &Fields<'_>) -> Option<DatabaseSpec> {
    let metadata = Metadata::read(root);
    version(root, &[("v3", 3)]);
    if !is_dns_label(&metadata.name) && !metadata.name.is_empty() {
        root.error("metadata.name", "a database name is 1 to 63 letters, digits and hyphens, no hyphen at an end");
    }
    let spec = root.map("spec");
    spec.allow_only(SPEC, SPEC_KEPT);
    let protocol = spec.choice("protocol", PROTOCOLS);
    if !spec.is_present("protocol") {
        spec.error("protocol", "missing");
    }
    let place = match (protocol, spec.text("uri")) {
        (Some(protocol), Some(text)) => place(protocol, text).map_err(|why| spec.error("uri", why)).ok(),
        _ => None,
    };
    if !spec.is_present("uri") {
        spec.error("uri", "missing");
    }
    let tls = tls(&spec);
    let auth = auth(&spec);
    let limits = limits(&spec);
    let admin_user = admin_user(&spec);
    let (protocol, place) = (protocol?, place?);
    let mode = mode(&spec, protocol, &place);
    if place.is_tls && tls.mode == TlsMode::Off {
        spec.error("uri", "asks for TLS (`rediss://`), and spec.tls.mode is `off`");
    }
    if auth.method == AuthMethod::Passthrough && protocol != DatabaseProtocol::Redis {
        spec.error("auth", "the method `passthrough` is for protocol `redis` alone");
    }
    if auth.method == AuthMethod::Scram && protocol == DatabaseProtocol::Redis {
        spec.error("auth", "Redis knows no SCRAM; the method is `password`");
    }
    let uri = place.address;
    if tls.mode == TlsMode::Off && !is_local(&uri) {
        spec.complaints.warn("spec.tls.mode: `off` sends everything in clear text to a host that is not this one");
    }
    if tls.mode == TlsMode::Insecure {
        spec.complaints.warn("spec.tls.mode: `insecure` does not verify the database server");
    }
    let database = Arc::new(Database {
        name: metadata.name.clone(),
        description: metadata.description.clone(),
        protocol,
        uri,
        mode,
        labels: metadata.labels.clone().into_iter().collect(),
        tls,
        auth,
        limits,
        admin_user,
    });
    Some(DatabaseSpec { metadata, database })
}

/// Where a database is, as its `uri` says.
struct Place {
    address: String,
    /// The scheme asks for TLS.
    is_tls: bool,
    /// `?mode=` of the URI.
    mode: Option<DatabaseMode>,
}

fn place(protocol: DatabaseProtocol, text: &str) -> Result<Place, String> {
    let (text, mode) = match text.split_once('?') {
        Some((text, query)) if protocol == DatabaseProtocol::Redis => (text, mode_of(query)?),
        _ => (text, None),
    };
    Ok(Place { address: backend_address(protocol, text)?, is_tls: text.starts_with("rediss://"), mode })
}

fn mode_of(query: &str) -> Result<Option<DatabaseMode>, String> {
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let mode = pair.strip_prefix("mode=").and_then(|word| MODES.iter().find(|(known, _)| *known == word));
        let (_, mode) = mode.ok_or("the only parameter is mode=standalone or mode=cluster")?;
        found = Some(*mode);
    }
    Ok(found)
}

fn mode(spec: &Fields<'_>, protocol: DatabaseProtocol, place: &Place) -> DatabaseMode {
    let field = spec.choice("mode", MODES);
    if field.is_some() && protocol != DatabaseProtocol::Redis {
        spec.error("mode", "is for protocol `redis` alone");
    }
    if let (Some(field), Some(uri)) = (field, place.mode)
        && field != uri
    {
        spec.error("mode", "differs from the mode of spec.uri");
    }
    let mode = field.or(place.mode).unwrap_or_default();
    if mode == DatabaseMode::Cluster && place.address.starts_with('/') {
        spec.error("mode", "the nodes of a cluster have TCP addresses, not a Unix socket");
    }
    mode
}

fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn tls(spec: &Fields<'_>) -> DatabaseTls {
    let fields = spec.map("tls");
    fields.allow_only(&["mode", "ca_cert", "ca_cert_file", "server_name", "trust_system_cert_pool"], &[]);
    let text = |name| fields.text(name).filter(|text: &&str| !text.is_empty()).map(str::to_owned);
    let ca_cert = text("ca_cert");
    if ca_cert.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----") || pem.contains("PRIVATE KEY")) {
        fields.error("ca_cert", "expected certificates in PEM form");
    }
    let ca_cert_file = text("ca_cert_file").map(PathBuf::from);
    if ca_cert_file.as_ref().is_some_and(|path| !path.is_absolute()) {
        fields.error("ca_cert_file", "expected an absolute path");
    }
    DatabaseTls {
        mode: fields.choice("mode", TLS_MODES).unwrap_or(TlsMode::VerifyFull),
        ca_cert,
        ca_cert_file,
        server_name: text("server_name"),
        trust_system_cert_pool: fields.flag("trust_system_cert_pool").unwrap_or(false),
    }
}

fn auth(spec: &Fields<'_>) -> DatabaseAuth {
    if spec.value("auth").is_some_and(Value::is_string) {
        let method = spec.choice("auth", AUTH_METHODS).unwrap_or(AuthMethod::Mtls);
        if matches!(method, AuthMethod::Password | AuthMethod::Scram) {
            spec.error("auth", "this method needs `secrets`");
        }
        return DatabaseAuth { method, secrets: BTreeMap::new() };
    }
    let fields = spec.map("auth");
    fields.allow_only(&["method", "secrets"], &[]);
    let method = fields.choice("method", AUTH_METHODS).unwrap_or(AuthMethod::Mtls);
    let references = fields.map("secrets");
    let mut secrets = BTreeMap::new();
    for (user, value) in references.entries() {
        // The complaint never shows the value: where it is no reference, it is the secret.
        match value.as_str().map(SecretRef::parse) {
            Some(Ok(reference)) => drop(secrets.insert(user.clone(), reference)),
            Some(Err(error)) => references.error(user, error),
            None => references.error(user, "expected a secret reference as text"),
        }
    }
    if matches!(method, AuthMethod::Password | AuthMethod::Scram) && secrets.is_empty() && !fields.is_present("secrets")
    {
        fields.error("secrets", "this method needs a secret for at least one user");
    }
    DatabaseAuth { method, secrets }
}

fn limits(spec: &Fields<'_>) -> DatabaseLimits {
    let fields = spec.map("limits");
    fields.allow_only(&["max_sessions", "connect_timeout"], &[]);
    let default = DatabaseLimits::default();
    DatabaseLimits {
        max_sessions: fields.count("max_sessions").unwrap_or(default.max_sessions),
        connect_timeout: fields
            .duration("connect_timeout")
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or(default.connect_timeout),
    }
}

fn admin_user(spec: &Fields<'_>) -> Option<AdminUser> {
    let fields = spec.map("admin_user");
    fields.allow_only(&["name", "default_database"], &[]);
    let name = fields.text("name").filter(|name| !name.is_empty())?.to_owned();
    Some(AdminUser { name, default_database: fields.text("default_database").map(str::to_owned) })
}

/// The address to connect to; the complaint never shows the text, which may hold a password.
fn backend_address(protocol: DatabaseProtocol, text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty".to_owned());
    }
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("has a space or control character".to_owned());
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.contains('@') {
        return Err(
            "holds credentials; the database user comes from the client, secrets go to spec.auth.secrets".into()
        );
    }
    if protocol == DatabaseProtocol::Mongodb && scheme.is_some_and(|s| s != "unix") {
        let known = scheme.is_some_and(|scheme| matches!(scheme, "mongodb" | "mongodb+srv"));
        return match known && !authority.is_empty() {
            true => Ok(text.to_owned()),
            false => Err("expected host:port or mongodb:// or mongodb+srv://host".to_owned()),
        };
    }
    let socket = match scheme {
        Some("unix") => Some(rest),
        None if text.starts_with('/') => Some(text),
        _ => None,
    };
    if let Some(path) = socket {
        return match path.starts_with('/') && path.len() > 1 && path.len() <= SOCKET_PATH_BYTES_MAX {
            true => Ok(path.to_owned()),
            false => Err(format!("a Unix socket is an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes")),
        };
    }
    let scheme_fits = match (protocol, scheme) {
        (_, None) => true,
        (DatabaseProtocol::Postgres, Some(scheme)) => matches!(scheme, "postgres" | "postgresql"),
        (DatabaseProtocol::Redis, Some(scheme)) => matches!(scheme, "redis" | "rediss"),
        (_, Some(scheme)) => PROTOCOLS.iter().any(|(word, known)| *word == scheme && *known == protocol),
    };
    if !scheme_fits {
        return Err(format!("the scheme does not fit protocol `{protocol}`"));
    }
    if !matches!(rest.strip_prefix(authority), Some("" | "/")) {
        return Err("expected host:port alone; database and options come from the client".to_owned());
    }
    host_and_port(authority, protocol.default_port())
}

fn host_and_port(authority: &str, default_port: Option<u16>) -> Result<String, String> {
    const SHAPE: &str = "expected host:port, with an IPv6 address in brackets";
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, tail) = rest.split_once(']').ok_or(SHAPE)?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(SHAPE.to_owned());
            }
            let port = match tail {
                "" => None,
                _ => Some(tail.strip_prefix(':').ok_or(SHAPE)?),
            };
            (format!("[{address}]"), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if host.is_empty() || host.len() > 255 || !(host.starts_with('[') || named) {
        return Err(SHAPE.to_owned());
    }
    let port = match port {
        Some(text) => {
            text.parse::<u16>().ok().filter(|port| *port != 0).ok_or("the port is a number from 1 to 65535")?
        }
        None => default_port.ok_or("the port is missing")?,
    };
    Ok(format!("{host}:{port}"))
}

fn is_local(uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    uri.starts_with('/')
        || host == "localhost"
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        backend_address(DatabaseProtocol::Postgres, text)
    }

    #[test]
    fn reads_the_forms_of_an_address() {
        assert_eq!(address("pg.internal:5432").unwrap(), "pg.internal:5432");
        assert_eq!(address("pg.internal").unwrap(), "pg.internal:5432");
        assert_eq!(address("postgres://pg:6000/").unwrap(), "pg:6000");
        assert_eq!(address("[::1]:5433").unwrap(), "[::1]:5433");
        assert_eq!(address("unix:///run/pg/.s.PGSQL.5432").unwrap(), "/run/pg/.s.PGSQL.5432");
        assert_eq!(address("/run/pg/.s.PGSQL.5432").unwrap(), "/run/pg/.s.PGSQL.5432");
    }

    #[test]
    fn a_redis_uri_says_where_and_in_which_mode() {
        let table = [
            ("redis://r", "r:6379 false None"),
            ("rediss://r:7000/?mode=cluster", "r:7000 true Some(Cluster)"),
            ("r:6380?mode=standalone", "r:6380 false Some(Standalone)"),
            ("unix:///run/redis.sock", "/run/redis.sock false None"),
        ];
        for (text, expected) in table {
            let place = place(DatabaseProtocol::Redis, text).unwrap();
            assert_eq!(format!("{} {} {:?}", place.address, place.is_tls, place.mode), expected, "{text}");
        }
        for bad in ["redis://r?mode=sentinel", "redis://r?db=1", "redis://r/1", "mysql://r", "redis://:hunter2@r:1"] {
            let error = place(DatabaseProtocol::Redis, bad).err().unwrap();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn refuses_other_addresses_and_never_repeats_a_password() {
        for bad in
            ["", "a b:1", "h:0", "h:70000", "h:x", "[::1", "::1", "mysql://h:1", "postgres://h/db", "h:1?x", ":5"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
        let error = address("postgres://u:hunter2@h:5432").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
