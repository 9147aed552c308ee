//! Figures of the workers: written by one thread each with plain stores, read by the metrics endpoint.

pub mod page;

use std::sync::atomic::AtomicU64;

/// The protocols served, as figures are kept apart by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Served {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// MySQL and MariaDB.
    Mysql,
}

impl Served {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them, in order.
    pub const ALL: [Served; Self::COUNT] = [Served::Postgres, Served::Redis, Served::Mysql];

    /// The metric label.
    pub const fn word(self) -> &'static str {
        match self {
            Served::Postgres => "postgres",
            Served::Redis => "redis",
            Served::Mysql => "mysql",
        }
    }

    /// The protocol called `word`. Listeners are opened only for those that are here.
    pub fn named(word: &str) -> Served {
        Served::ALL.into_iter().find(|served| served.word() == word).unwrap_or(Served::Postgres)
    }
}

/// One worker's figures.
#[derive(Default)]
pub struct Counters {
    traffic: [Traffic; Served::COUNT],
    /// Bytes copied in user space on the plain path, TLS aside.
    pub copied_bytes: AtomicU64,
    /// Buffer bytes handed out.
    pub buffer_bytes: AtomicU64,
    /// Cancel requests that found their session.
    pub cancels_matched: AtomicU64,
    /// Cancel requests that did not.
    pub cancels_unmatched: AtomicU64,
    /// Panics caught in sessions.
    pub panics: AtomicU64,
    /// Version of the policy snapshot adopted.
    pub policy_generation: AtomicU64,
}

impl Counters {
    /// The figures of one protocol.
    pub fn of(&self, served: Served) -> &Traffic {
        &self.traffic[served as usize]
    }
}

/// One worker's figures of one protocol.
#[derive(Default)]
#[repr(align(128))]
pub struct Traffic {
    /// Sessions in the pump.
    pub sessions_active: AtomicU64,
    /// Sessions that reached the pump.
    pub sessions_total: AtomicU64,
    /// Connections handed to this worker.
    pub connections_total: AtomicU64,
    /// Connections refused, by [`Reject`].
    pub rejected: [AtomicU64; Reject::COUNT],
    /// Sessions ended, by [`crate::session::End`].
    pub ended: [AtomicU64; crate::session::End::COUNT],
    /// Statements forwarded.
    pub statements: AtomicU64,
    /// Statements refused.
    pub statements_refused: AtomicU64,
    /// Statements that the database answered with an error.
    pub statement_errors: AtomicU64,
    /// Sum of statement durations, microseconds.
    pub statement_us: AtomicU64,
    /// Bytes from clients.
    pub client_in: AtomicU64,
    /// Bytes to clients.
    pub client_out: AtomicU64,
    /// Bytes from databases.
    pub server_in: AtomicU64,
    /// Bytes to databases.
    pub server_out: AtomicU64,
    /// Protocol violations of clients.
    pub violations_client: AtomicU64,
    /// Protocol violations of databases.
    pub violations_server: AtomicU64,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reject {
    /// A connection limit.
    Limit,
    /// Too many per second from one address.
    Rate,
    /// TLS did not come about.
    Tls,
    /// The protocol was broken.
    Protocol,
    /// The certificate's content was not good.
    Auth,
    /// A role said no.
    Policy,
    /// The server is shutting down.
    Drain,
    /// The database could not be reached or refused us.
    Backend,
}

impl Reject {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them, in order.
    pub const ALL: [Reject; Self::COUNT] = [
        Reject::Limit,
        Reject::Rate,
        Reject::Tls,
        Reject::Protocol,
        Reject::Auth,
        Reject::Policy,
        Reject::Drain,
        Reject::Backend,
    ];

    /// The metric label.
    pub const fn word(self) -> &'static str {
        match self {
            Reject::Limit => "limit",
            Reject::Rate => "rate",
            Reject::Tls => "tls",
            Reject::Protocol => "protocol",
            Reject::Auth => "auth",
            Reject::Policy => "policy",
            Reject::Drain => "drain",
            Reject::Backend => "backend",
        }
    }
}
