//! The configuration we run: read once, checked as a whole, turned into types that cannot be wrong.
//!
//! `tree` gives YAML with positions, `section` walks it and notes every problem, `raw` knows the keys of
//! user-experience section 5, `environment` lays `RINGGATE__SECTION__KEY` over the file. Nothing else sees the file.

mod database;
mod environment;
mod listeners;
mod problem;
mod raw;
mod scalar;
mod section;
mod show;
mod tree;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use problem::Problems;
pub(crate) use scalar::{Listen, Rate};
pub(crate) use scalar::{duration as parse_duration, listen as parse_listen, resolve};
pub(crate) use words::{
    AuditMode, Driver, KeyExchange, LogFormat, OnAccessChange, ParameterPolicy, Pin, QueryText, RedisArguments,
    RingMode, TlsVersion,
};

mod words;

/// Longest path of the admin socket, bytes: the kernel takes 107, and it is bound under a longer name first.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file it came from, for a reload.
    pub(crate) file: PathBuf,
    /// Name, folders, cluster.
    pub node: Node,
    /// Threads and rings. Changes need a restart.
    pub runtime: Runtime,
    /// Where clients, operators and probes connect.
    pub listeners: Listeners,
    /// The client side of TLS.
    pub tls: Tls,
    /// Lifetimes of the certificates we sign.
    pub ca: Ca,
    /// Cluster-wide rules of access.
    pub auth: Auth,
    /// Databases of the file. Those made by `create` come on top; a static one of the same name wins.
    pub databases: Vec<ringgate_policy::DatabaseDocument>,
    /// Bounds on what peers can cost.
    pub limits: Limits,
    /// The audit log.
    pub audit: Audit,
    /// Operational logs.
    pub log: Log,
}

/// Who this process is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Name in records and logs; the host name unless given.
    pub name: String,
    /// Everything the process keeps, absolute.
    pub data_dir: PathBuf,
    /// Fixed after the first start.
    pub cluster_name: String,
}

/// Threads, rings and buffers.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// io_uring, epoll, or the first that works.
    pub driver: Driver,
    /// Worker threads; `None` means one per CPU allowed by affinity and quota.
    pub workers: Option<usize>,
    /// Which CPUs the workers are bound to.
    pub pin: Pin,
    /// Threads of the control plane, 1 to 16.
    pub control_threads: usize,
    /// Shape of each worker's ring.
    pub ring: Ring,
    /// Client connections of the whole process.
    pub max_connections: usize,
    /// How long busy sessions may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Sizes of pooled buffers.
    pub buffers: Buffers,
    /// After this long without traffic a session gives its buffers back.
    pub idle_release: Duration,
}

/// Shape of an io_uring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    /// Set-up flags.
    pub mode: RingMode,
    /// Submission entries, a power of two.
    pub entries: u32,
    /// Completion entries, a power of two, at least twice `entries`.
    pub cq: u32,
}

/// Sizes of pooled buffers, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffers {
    /// For requests and short replies.
    pub small: usize,
    /// For bulk; at least `small`.
    pub large: usize,
}

/// Where we listen.
#[derive(Clone, Debug)]
pub(crate) struct Listeners {
    /// PostgreSQL clients; `None` switches the protocol off.
    pub postgres: Option<PostgresListener>,
    /// Redis clients; `None` switches the protocol off.
    pub redis: Option<RedisListener>,
    /// MySQL and MariaDB clients; `None` switches the protocol off.
    pub mysql: Option<MysqlListener>,
    /// Health and metrics.
    pub diag: Option<SocketAddr>,
    /// The admin API's Unix socket, absolute, at most [`SOCKET_PATH_BYTES_MAX`] bytes.
    pub admin_socket: PathBuf,
    /// Listeners without TLS and with a fixed identity, loopback or Unix socket only, for tests.
    pub danger_plain: Vec<PlainListener>,
    /// Listeners that get a free port when another process has theirs: those of a quickstart that nobody chose.
    pub movable: Vec<&'static str>,
}

/// The PostgreSQL listener.
#[derive(Clone, Debug)]
pub(crate) struct PostgresListener {
    /// Port 0 takes a free one.
    pub addr: SocketAddr,
    /// Take a cancel request without TLS when its key is right (what `psql` sends on Ctrl-C).
    pub cleartext_cancel: bool,
}

/// The Redis listener.
#[derive(Clone, Debug)]
pub(crate) struct RedisListener {
    /// Port 0 takes a free one.
    pub addr: SocketAddr,
    /// Commands as plain lines of text are taken too.
    pub inline: bool,
    /// Old texts for what is not supported, and no RESP3 (`compat: teleport`).
    pub teleport_compat: bool,
}

impl Default for RedisListener {
    fn default() -> Self {
        RedisListener { addr: ([127, 0, 0, 1], 6379).into(), inline: true, teleport_compat: false }
    }
}

/// The MySQL listener.
#[derive(Clone, Debug)]
pub(crate) struct MysqlListener {
    /// Port 0 takes a free one.
    pub addr: SocketAddr,
    /// The version that clients are told; `None` (`auto`): that of the databases.
    pub server_version: Option<String>,
}

impl Default for MysqlListener {
    fn default() -> Self {
        MysqlListener { addr: ([127, 0, 0, 1], 3306).into(), server_version: None }
    }
}

/// A listener without TLS.
#[derive(Clone, Debug)]
pub(crate) struct PlainListener {
    /// `postgres`, `redis` or `mysql`.
    pub protocol: String,
    /// Loopback or a Unix socket.
    pub addr: Listen,
    /// Registered database.
    pub database: String,
    /// Product user.
    pub(crate) user: String,
    /// Database user.
    pub db_user: String,
    /// Database name.
    pub db_name: String,
}

/// The client side of TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Names and addresses clients reach us by; in the server certificate next to `localhost`.
    pub public_names: Vec<String>,
    /// Oldest version spoken.
    pub min_version: TlsVersion,
    /// Handshakes a worker runs at once.
    pub handshakes_per_worker: usize,
    /// Life of a resumption ticket; zero switches resumption off.
    pub ticket_lifetime: Duration,
    /// Key exchange groups, most preferred first.
    pub kx: Vec<KeyExchange>,
}

/// Lifetimes of certificates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ca {
    /// Login certificates, at most 30 h.
    pub(crate) user_cert_ttl: Duration,
    /// Route certificates, never beyond the login certificate.
    pub db_cert_ttl: Duration,
}

/// Cluster-wide rules of access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Auth {
    /// What becomes of live sessions when a role changes.
    pub on_access_change: OnAccessChange,
    /// End sessions when the client's certificate expires.
    pub disconnect_expired_cert: bool,
}

/// Bounds on what peers can cost.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// From TCP accept to authenticated.
    pub handshake_timeout: Duration,
    /// Connections one address may open.
    pub login_rate: LoginRate,
    /// Connections that have not authenticated yet, whole process.
    pub max_pre_auth_connections: usize,
    /// Longest PostgreSQL message, bytes.
    pub max_frame_postgres: usize,
    /// Longest Redis value, bytes.
    pub max_frame_redis: usize,
    /// Longest MySQL command or row, bytes.
    pub max_frame_mysql: usize,
    /// Bytes held for one direction of one session.
    pub buffer_per_direction: usize,
    /// End a session after this long without a request; zero means only what roles say.
    pub client_idle_timeout: Duration,
    /// End a session whose peer takes no bytes for this long.
    pub write_stall_timeout: Duration,
}

/// How often one address may connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginRate {
    /// Sustained.
    pub per_ip: Rate,
    /// At once.
    pub burst: u32,
}

/// The audit log.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    /// Folder of the segments, absolute.
    pub dir: PathBuf,
    /// What happens when records cannot be kept.
    pub mode: AuditMode,
    /// Longest wait before a group commit.
    pub flush_interval: Duration,
    /// A segment is closed at this size, bytes.
    pub segment_size: usize,
    /// How statements are kept.
    pub query_text: QueryText,
    /// Longest statement kept whole, bytes.
    pub query_text_max: usize,
    /// How bound values are kept.
    pub parameters: ParameterPolicy,
    /// How much of a Redis command's arguments is kept.
    pub redis_arguments: RedisArguments,
    /// Time between signed checkpoints.
    pub checkpoint_interval: Duration,
    /// Bytes of each worker's ring, a power of two.
    pub ring_size: usize,
    /// Largest group commit, bytes.
    pub batch: usize,
}

/// Operational logs, on stderr.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Filter directives, `info` or `info,ringgate::session=debug`.
    pub level: String,
}

impl Config {
    /// Reads, overlays the environment and checks a file.
    ///
    /// Errors: every problem of the file, or the one reason it could not be read.
    pub(crate) fn load(path: &Path) -> Result<Config, LoadError> {
        let text = read_bounded(path)?;
        let base = path.canonicalize().ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
        let parsed = Config::parse(&path.display().to_string(), &text, &base, std::env::vars_os());
        // The server may change its working directory; the file stays where it was.
        let file = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        parsed.map(|config| Config { file, ..config }).map_err(LoadError::Invalid)
    }

    /// Checks a text. `base` is what relative folders are relative to; `file` is what problems call it.
    pub(crate) fn parse(
        file: &str,
        text: &str,
        base: &Path,
        variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Config, Problems> {
        let mut found = Vec::new();
        let root = tree::parse(text, &mut found);
        let overlaid = root.map(|node| environment::overlay(node, variables, &mut found));
        let problems = RefCell::new(found);
        let config = overlaid.and_then(|node| raw::read(&node, base, &problems));
        let list = problems.into_inner();
        match config {
            Some(config) if list.is_empty() => Ok(config),
            _ => Err(Problems::new(file, text, list)),
        }
    }

    /// The effective configuration as YAML, secrets only as the references they are.
    pub(crate) fn to_yaml(&self) -> String {
        show::yaml(self)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is wrong; each problem has its place.
    #[error("the configuration has {} problem(s)", .0.count())]
    Invalid(Problems),
}

fn read_bounded(path: &Path) -> Result<String, LoadError> {
    use std::io::Read as _;
    let unreadable = |source| LoadError::Unreadable { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte beyond the limit is enough for the parser to say that the file is too long.
    file.take(tree::FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
