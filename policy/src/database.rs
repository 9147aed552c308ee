//! A database behind the gateway, as sessions use it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::document::DatabaseDocument;
use crate::labels::Labels;
use crate::secret::SecretRef;

/// The wire protocol of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the product's own name")]
pub enum DatabaseProtocol {
    Postgres,
    Mysql,
    Mongodb,
    Redis,
    Cockroachdb,
    Sqlserver,
    Cassandra,
    Clickhouse,
    ClickhouseHttp,
    Elasticsearch,
    Opensearch,
    Oracle,
    Snowflake,
    Dynamodb,
    Spanner,
}

pub(crate) const PROTOCOLS: &[(&str, DatabaseProtocol)] = &[
    ("postgres", DatabaseProtocol::Postgres),
    ("mysql", DatabaseProtocol::Mysql),
    ("mariadb", DatabaseProtocol::Mysql),
    ("mongodb", DatabaseProtocol::Mongodb),
    ("redis", DatabaseProtocol::Redis),
    ("cockroachdb", DatabaseProtocol::Cockroachdb),
    ("sqlserver", DatabaseProtocol::Sqlserver),
    ("cassandra", DatabaseProtocol::Cassandra),
    ("clickhouse", DatabaseProtocol::Clickhouse),
    ("clickhouse-http", DatabaseProtocol::ClickhouseHttp),
    ("elasticsearch", DatabaseProtocol::Elasticsearch),
    ("opensearch", DatabaseProtocol::Opensearch),
    ("oracle", DatabaseProtocol::Oracle),
    ("snowflake", DatabaseProtocol::Snowflake),
    ("dynamodb", DatabaseProtocol::Dynamodb),
    ("spanner", DatabaseProtocol::Spanner),
];

impl DatabaseProtocol {
    /// The word that stands in `spec.protocol`.
    pub fn as_str(self) -> &'static str {
        PROTOCOLS.iter().find(|(_, protocol)| *protocol == self).map_or("unknown", |(word, _)| word)
    }

    /// The port of a URI that names none.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Postgres => Some(5432),
            Self::Mysql => Some(3306),
            Self::Mongodb => Some(27017),
            Self::Redis => Some(6379),
            _ => None,
        }
    }

    /// Most bytes of a user or database name that the server keeps; it cuts longer ones to another principal.
    pub(crate) fn name_bytes_max(self) -> Option<usize> {
        // PostgreSQL: NAMEDATALEN - 1.
        (self == Self::Postgres).then_some(63)
    }

    /// Whether `db_names` is checked whatever the roles say (access-model 5.4).
    pub(crate) fn enforces_names(self) -> bool {
        matches!(self, Self::Postgres | Self::Mongodb | Self::Spanner)
    }

    /// Whether the role option `enforce_db_names` makes `db_names` checked.
    pub(crate) fn may_enforce_names(self) -> bool {
        matches!(self, Self::Mysql | Self::Redis)
    }
}

impl fmt::Display for DatabaseProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the backend's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Chain and host name.
    VerifyFull,
    /// Chain alone.
    VerifyCa,
    /// Encrypted, not verified.
    Insecure,
    /// No TLS.
    Off,
}

/// TLS towards the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseTls {
    /// Verification.
    pub mode: TlsMode,
    /// PEM certificates to trust instead of the `db` CA.
    pub ca_cert: Option<String>,
    /// File of PEM certificates to trust instead of the `db` CA.
    pub ca_cert_file: Option<PathBuf>,
    /// Name to send and to check, when not the host of the URI.
    pub server_name: Option<String>,
    /// Whether the system's certificates are trusted too.
    pub trust_system_cert_pool: bool,
}

/// How we log in to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// A client certificate whose CN is the database user.
    Mtls,
    /// Whatever the server asks for, with a secret; clear text only inside verified TLS.
    Password,
    /// SCRAM, nothing weaker.
    Scram,
    /// The client's own credential goes through.
    Passthrough,
    /// No secret.
    None,
}

/// Login method and where its secrets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseAuth {
    /// The method.
    pub method: AuthMethod,
    /// Database user to secret; the key `*` serves every other user.
    pub secrets: BTreeMap<String, SecretRef>,
}

impl DatabaseAuth {
    /// The secret of `user`, or the one for every user.
    pub fn secret(&self, user: &str) -> Option<&SecretRef> {
        self.secrets.get(user).or_else(|| self.secrets.get("*"))
    }
}

/// Limits of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseLimits {
    /// Most sessions at once; 0 is unlimited.
    pub max_sessions: u32,
    /// Longest wait for the backend to accept a connection.
    pub connect_timeout: Duration,
}

impl Default for DatabaseLimits {
    fn default() -> Self {
        Self { max_sessions: 0, connect_timeout: Duration::from_secs(5) }
    }
}

/// The account that provisioning would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUser {
    /// Name of the account.
    pub name: String,
    /// Database it connects to; the session's when absent.
    pub default_database: Option<String>,
}

/// How the servers behind one address divide the data (Redis).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DatabaseMode {
    /// One server, or a primary with replicas that hold the same.
    #[default]
    Standalone,
    /// Redis Cluster: the address is that of any node.
    Cluster,
}

/// A database as compiled into a [`Snapshot`](crate::Snapshot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Service name in routes.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// Wire protocol.
    pub protocol: DatabaseProtocol,
    /// `host:port` (IPv6 in brackets) or the path of a Unix socket; MongoDB keeps its whole URI.
    pub uri: String,
    /// Always [`DatabaseMode::Standalone`] for protocols other than Redis.
    pub mode: DatabaseMode,
    /// What selectors are matched against.
    pub labels: Labels,
    /// TLS towards the backend.
    pub tls: DatabaseTls,
    /// Login to the backend.
    pub auth: DatabaseAuth,
    /// Limits.
    pub limits: DatabaseLimits,
    /// The account for provisioning; absent means that provisioning is off.
    pub admin_user: Option<AdminUser>,
}

impl Database {
    /// The database that a document describes.
    pub fn from_document(document: &DatabaseDocument) -> Arc<Self> {
        Arc::clone(&document.spec().database)
    }

    /// Whether `uri` is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.uri.starts_with('/')
    }
}
