//! The data plane's entry point.

use std::net::SocketAddr;

use crate::config::Config;

/// What a server that is up knows of itself.
pub struct ReadyInfo {
    /// Name and real address of every listener for clients.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The I/O driver in use and the kernel it runs on.
    pub driver: String,
    /// Worker threads.
    pub workers: usize,
    /// The diagnostic listener.
    pub diag: Option<SocketAddr>,
}

/// Serves until the process is told to stop; the result is the exit code.
pub fn run(_config: Config, _ready: impl FnOnce(&ReadyInfo)) -> anyhow::Result<i32> {
    anyhow::bail!("this build has no data plane")
}
