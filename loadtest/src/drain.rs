//! One large result, as fast as it comes.

use std::time::Instant;

use crate::client::{Connector, Endpoint};

/// Arguments of `drain`.
#[derive(clap::Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    endpoint: Endpoint,
    /// The query.
    #[arg(long)]
    sql: String,
}

impl Drain {
    /// Bytes and seconds, login not counted.
    pub(crate) fn run(self) -> anyhow::Result<serde_json::Value> {
        let mut connection = Connector::new(self.endpoint)?.connect()?;
        let start = Instant::now();
        let bytes = connection.drain(&self.sql)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(serde_json::json!({
            "bytes": bytes, "seconds": seconds, "mebibytes_per_second": bytes as f64 / seconds / 1_048_576.0,
        }))
    }
}
