//! Connection facts as `ringgate db config --format json` gives them, and clients that use them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{places, process, process::Said};

/// How to reach one database through Ringgate: a copy of its own, so that a later login changes nothing here.
#[derive(Clone, Debug)]
pub struct DbConfig {
    /// `postgres`, `redis` or `mysql`.
    pub protocol: String,
    /// Host of the gateway, as its certificate names it.
    pub host: String,
    /// Port of the protocol's listener.
    pub port: u16,
    /// Database user.
    pub user: String,
    /// Database name; empty for Redis.
    pub database: String,
    /// File with the CA of the gateway's certificate.
    pub ca: PathBuf,
    /// Client certificate.
    pub cert: PathBuf,
    /// Key of the client certificate, mode 0600.
    pub key: PathBuf,
    /// When the certificate ends, as printed.
    pub expires: String,
    /// The URI that native clients take.
    pub uri: String,
    directory: Arc<TempDir>,
}

impl DbConfig {
    /// Reads the JSON document and copies the files it names. Panics when a promised key is missing.
    pub fn parse(json: &str) -> DbConfig {
        let document: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
        let text = |key: &str| match &document[key] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => panic!("key {key} is {other} in {json}"),
        };
        let protocol = text("protocol");
        assert!(matches!(protocol.as_str(), "postgres" | "redis" | "mysql"), "protocol {protocol}");
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let copy = |key: &str| {
            let from = PathBuf::from(text(key));
            let to = directory.path().join(key);
            fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("permissions");
            to
        };
        DbConfig {
            host: text("host"),
            port: text("port").parse().expect("a port"),
            user: text("user"),
            database: if protocol == "redis" { String::new() } else { text("database") },
            protocol,
            ca: copy("ca"),
            cert: copy("cert"),
            key: copy("key"),
            expires: text("expires"),
            uri: text("uri"),
            directory,
        }
    }

    /// The same with other client certificate and key, PEM.
    pub fn with_certificate(&self, certificate: &str, key: &str) -> DbConfig {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("write certificate");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            path
        };
        DbConfig {
            cert: write("other.crt", certificate),
            key: write("other.key", key),
            ca: self.ca.clone(),
            directory: directory.clone(),
            protocol: self.protocol.clone(),
            host: self.host.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            expires: self.expires.clone(),
            uri: self.uri.clone(),
            port: self.port,
        }
        .keeping(&self.directory)
    }

    /// The same through another port, for instance of a [`crate::chopper::Chopper`].
    pub fn through_port(&self, port: u16) -> DbConfig {
        DbConfig { port, ..self.clone() }
    }

    /// The same asking for another database user and name, with the same certificate.
    pub fn asking_for(&self, user: &str, database: &str) -> DbConfig {
        DbConfig { user: user.into(), database: database.into(), ..self.clone() }
    }

    fn keeping(self, other: &Arc<TempDir>) -> DbConfig {
        // The CA file lives in the first directory: it has to stay as long as the files of the second.
        fs::copy(other.path().join("ca"), self.directory.path().join("ca")).expect("copy CA");
        let ca = self.directory.path().join("ca");
        DbConfig { ca, ..self }
    }

    /// Sets what libpq reads from its environment.
    pub fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.user)
            .env("PGDATABASE", &self.database)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &self.ca)
            .env("PGSSLCERT", &self.cert)
            .env("PGSSLKEY", &self.key)
    }

    /// A client of PostgreSQL's package, set up by environment.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(places::postgres_client(program));
        self.environment(&mut command);
        command
    }

    /// `psql -XAtq -v ON_ERROR_STOP=1 -c SQL` through Ringgate.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> Said {
        process::run(self.client("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Runs `tests/drivers/NAME` with Python and the connection facts in its environment; gives what it printed.
    #[track_caller]
    pub fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(places::python());
        self.environment(&mut command);
        command.arg(places::repository().join("tests/drivers").join(script)).args(arguments);
        process::run(&mut command).ok()
    }

    /// `redis-cli` through Ringgate, without color and without reading anybody's settings.
    pub fn redis_cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(places::redis_tool("redis-cli"));
        self.redis_tls(&mut command);
        command.env("HOME", self.directory.path()).env_remove("REDISCLI_AUTH").args(arguments);
        command
    }

    /// `redis-benchmark` through Ringgate.
    pub fn redis_benchmark(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(places::redis_tool("redis-benchmark"));
        self.redis_tls(&mut command);
        command.args(arguments);
        command
    }

    fn redis_tls(&self, command: &mut Command) {
        command.args(["-h", &self.host, "-p", &self.port.to_string(), "--tls", "--cacert"]).arg(&self.ca);
        command.arg("--cert").arg(&self.cert).arg("--key").arg(&self.key);
    }

    /// Runs `redis-cli ARGUMENTS` through Ringgate to its end.
    #[track_caller]
    pub fn redis(&self, arguments: &[&str]) -> Said {
        process::run(&mut self.redis_cli(arguments))
    }

    /// Runs `tests/drivers/redis_py_driver.py` with the connection facts in its environment; gives what it printed.
    #[track_caller]
    pub fn redis_py(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(places::python());
        command
            .env("REDIS_HOST", &self.host)
            .env("REDIS_PORT", self.port.to_string())
            .env("REDIS_CA", &self.ca)
            .env("REDIS_CERT", &self.cert)
            .env("REDIS_KEY", &self.key)
            .arg(places::repository().join("tests/drivers/redis_py_driver.py"))
            .args(arguments);
        process::run(&mut command).ok()
    }

    /// File names and their text of the client's three files.
    pub fn pem(&self, path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}
