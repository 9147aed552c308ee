//! What an idle connection costs the process behind it.

use std::{fs, time::Instant};

use anyhow::Context;

use crate::client::{Connection, Connector, Endpoint};

/// Arguments of `idle`.
#[derive(clap::Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Connections to hold.
    #[arg(long, default_value_t = 5000)]
    count: usize,
    /// Connections opened and closed before the first look, so that pools and caches are warm.
    #[arg(long, default_value_t = 200)]
    warm: usize,
    /// Process to look at.
    #[arg(long)]
    pid: u32,
}

impl Idle {
    /// Memory before and with all connections, bytes, and the difference for each.
    pub(crate) fn run(self) -> anyhow::Result<serde_json::Value> {
        let connector = Connector::new(self.endpoint)?;
        let open = |count: usize| (0..count).map(|_| connector.connect()).collect::<anyhow::Result<Vec<Connection>>>();
        drop(open(self.warm)?);
        let before = Memory::of(self.pid)?;
        let start = Instant::now();
        let held = open(self.count)?;
        let seconds = start.elapsed().as_secs_f64();
        let with = Memory::of(self.pid)?;
        let each = |a: u64, b: u64| (b as f64 - a as f64) / held.len().max(1) as f64;
        Ok(serde_json::json!({
            "connections": held.len(),
            "logins_per_second": held.len() as f64 / seconds,
            "resident_before": before.resident,
            "resident_with": with.resident,
            "resident_bytes_each": each(before.resident, with.resident),
            "anonymous_bytes_each": each(before.anonymous, with.anonymous),
        }))
    }
}

struct Memory {
    resident: u64,
    anonymous: u64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process to look at")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).context("field of /proc/PID/status")?;
            let kibibytes: u64 = line.split_whitespace().next().context("a number")?.parse()?;
            anyhow::Ok(kibibytes * 1024)
        };
        Ok(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
    }
}
