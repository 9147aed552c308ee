//! How the log is run, and why it may refuse.
use std::path::PathBuf;
use std::time::Duration;

/// What happens when a record cannot be kept (`audit.mode`, access-model section 11.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A full ring holds clients back, a broken sink refuses statements.
    Strict,
    /// As strict, and a statement is forwarded only after [`crate::Producer::is_durable`].
    Durable,
    /// A full ring or a broken sink drops; `audit.gap` says how many.
    BestEffort,
}

/// Settings of one log. Made with [`Options::new`], then changed field by field.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's directory, created 0700.
    pub dir: PathBuf,
    /// What happens when a record cannot be kept.
    pub mode: Mode,
    /// Longest a record waits for its group commit: the writer's time between looks. In durable mode it looks at once.
    /// Default 2 ms.
    pub flush_interval: Duration,
    /// Bytes of lines that close a group commit early. Default 1 MiB.
    pub batch_bytes: usize,
    /// Bytes after which a segment is sealed. Default 256 MiB.
    pub segment_bytes: u64,
    /// Time between signed checkpoints while events flow. Default 10 s.
    pub checkpoint_interval: Duration,
    /// Bytes of each producer's ring, a power of two, 64 KiB to 1 GiB. Default 4 MiB.
    pub ring_bytes: usize,
    /// `cluster_name` of every line.
    pub cluster_name: String,
    /// `server_id` of every line.
    pub server_id: String,
}

impl Options {
    /// The defaults for a log in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            mode: Mode::Strict,
            flush_interval: Duration::from_millis(2),
            batch_bytes: 1 << 20,
            segment_bytes: 256 << 20,
            checkpoint_interval: Duration::from_secs(10),
            ring_bytes: 4 << 20,
            cluster_name: String::new(),
            server_id: String::new(),
        }
    }
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No room in the ring: hold clients back and try again when woken.
    #[error("audit ring is full")]
    Full,
    /// The log cannot be written: refuse the statement.
    #[error("audit log cannot be written")]
    SinkBroken,
    /// The record is larger than a quarter of the ring.
    #[error("audit record is too large")]
    TooLarge,
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process holds the directory.
    #[error("audit directory {0} is in use by another process")]
    Locked(PathBuf),
    /// An option is out of its bounds.
    #[error("audit option {0} is out of bounds")]
    Option(&'static str),
    /// The signing key cannot be read or made.
    #[error("audit checkpoint key {0} is not usable")]
    Key(PathBuf),
    /// A file could not be read, written or mapped.
    #[error("audit {what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl StartError {
    pub(crate) fn io<'a>(
        what: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> StartError + use<'a> {
        move |source| StartError::Io { what, path: path.to_path_buf(), source }
    }
}
