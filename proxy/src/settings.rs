//! The limits and switches the data plane runs with, taken from the configuration once.

use std::time::Duration;

/// See `tuning.md` for the meaning, unit and cost of each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `runtime.buffers.small`, bytes.
    pub buffer_small_bytes: usize,
    /// `runtime.buffers.large`, bytes; at least 20 KiB, so that a TLS record fits.
    pub buffer_large_bytes: usize,
    /// `runtime.max_connections`.
    pub connections_max: usize,
    /// `limits.handshake_timeout`: TCP accept to authorised.
    pub handshake_timeout: Duration,
    /// `limits.write_stall_timeout`.
    pub write_stall_timeout: Duration,
    /// `limits.max_frame.postgres`, bytes.
    pub postgres_frame_bytes_max: u64,
    /// `limits.max_frame.redis`, bytes.
    pub redis_frame_bytes_max: u64,
    /// `limits.max_frame.mysql`, bytes.
    pub mysql_frame_bytes_max: u64,
    /// `limits.max_pre_auth_connections`.
    pub pre_auth_max: usize,
    /// `limits.login_rate.per_ip`, per second; 0 = unlimited.
    pub login_rate_per_second: u32,
    /// `limits.login_rate.burst`.
    pub login_burst: u32,
    /// `tls.handshakes_per_worker`.
    pub handshakes_per_worker: usize,
    /// `audit.mode: durable`.
    pub durable: bool,
    /// `audit.query_text`.
    pub query_text: QueryText,
    /// `audit.query_text_max`, bytes, at most 64 KiB.
    pub query_text_bytes_max: usize,
    /// `audit.parameters`.
    pub parameters: ParameterDetail,
    /// `audit.redis_arguments`.
    pub arguments: ArgumentDetail,
}

/// `audit.query_text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryText {
    /// The text, capped.
    Full,
    /// Length and hash.
    Hashed,
    /// Length alone.
    Off,
}

/// `audit.redis_arguments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArgumentDetail {
    /// Name, count and size.
    Names,
    /// Keys too.
    Keys,
    /// Values too.
    Full,
}

/// `audit.parameters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterDetail {
    /// Values.
    Full,
    /// Types.
    Types,
    /// Nothing.
    None,
}
