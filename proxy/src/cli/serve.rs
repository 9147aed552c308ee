//! `server`: the gateway of a configuration file, in the foreground.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output;
use crate::config::{Config, LogFormat};
use crate::server::ReadyInfo;

const DEFAULT_FILE: &str = "/etc/ringgate/ringgate.yaml";

pub(super) fn run(context: &Context) -> Result<i32, Failure> {
    let path = context.config_file().map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_path_buf);
    let config = Config::load(&path).map_err(|e| super::config::failure(e, Exit::Refused))?;
    start_log(&config);
    let mut printed = Ok(());
    let quiet = context.quiet();
    let code = crate::server::run(config, |info| {
        output::note(quiet, &summary(info));
        printed = output::write(&ready_line(info));
    });
    printed.and(code.map_err(refused))
}

/// Why a server did not start, or ended.
pub(super) fn refused(error: anyhow::Error) -> Failure {
    let what = error.to_string();
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors already end with the words of their cause.
        if !what.ends_with(&cause) && !causes.last().is_some_and(|last| last.ends_with(&cause)) {
            causes.push(cause);
        }
    }
    let failure = Failure::new(Exit::Refused, what);
    if causes.is_empty() { failure } else { failure.why(causes.join("\n")) }
}

/// The one line on stdout that scripts wait for.
pub(super) fn ready_line(info: &ReadyInfo) -> String {
    let count = info.listeners.len() + usize::from(info.diag.is_some());
    format!("ready    {count} listener{}\n", if count == 1 { "" } else { "s" })
}

/// Driver and listeners, for people.
pub(super) fn summary(info: &ReadyInfo) -> String {
    let workers = if info.workers == 1 { "worker" } else { "workers" };
    let mut listeners: Vec<String> = info.listeners.iter().map(|(name, addr)| format!("{name} {addr}")).collect();
    listeners.extend(info.diag.map(|addr| format!("diag {addr}")));
    format!("driver   {} · {} {workers}\nlisten   {}", info.driver, info.workers, listeners.join(" · "))
}

/// Logs to stderr as the configuration says; `RINGGATE_LOG` wins.
pub(super) fn start_log(config: &Config) {
    let directives = std::env::var("RINGGATE_LOG").unwrap_or_else(|_| config.log.level.clone());
    let filter = tracing_subscriber::EnvFilter::new(directives);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // A second start in one process keeps the first subscriber.
    let _ = match config.log.format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => log.try_init(),
    };
}
