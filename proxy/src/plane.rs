//! What the threads of the data plane share, and how they speak to one another: an inbox and a doorbell for each
//! worker. Only data crosses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringgate_control::Authority;
use ringgate_policy::{Database, Publisher};
use rustls::ServerConfig;

use crate::backend::learned::Learned;
use crate::backend::prepare::{Job, PrepareError, Prepared};
use crate::metrics::Served;
use crate::net::doorbell::Doorbell;
use crate::session::cancel::CancelRequest;
use crate::settings::Settings;

/// What all threads of the data plane share.
pub struct Plane {
    /// Limits and switches.
    pub settings: Settings,
    /// Publishes policy snapshots.
    pub policy: Arc<Publisher>,
    /// The authority, for facts that do not change while running.
    pub authority: Authority,
    /// TLS of the database listeners; replaced on reload.
    pub tls: ArcSwap<ListenerTls>,
    /// What logins have found out about databases.
    pub learned: Learned,
    gates: Vec<Gate>,
    jobs: mpsc::Sender<Job>,
    /// Sessions of each user and of each database.
    counts: Mutex<HashMap<Counted, u32>>,
    /// Connections by the id that their clients were told.
    told: Mutex<HashMap<u32, Told>>,
    pre_auth: AtomicUsize,
    draining: AtomicBool,
    origin: Instant,
}

/// The way in to one worker.
pub struct Gate {
    inbox: mpsc::Sender<Command>,
    bell: Doorbell,
    /// Connections handed to it and not yet closed.
    load: AtomicUsize,
    /// Milliseconds of the plane's clock at the worker's last sweep.
    beat_ms: AtomicU64,
    origin: Instant,
}

/// What a worker can be told.
pub enum Command {
    /// Serve this connection.
    Accept {
        /// The socket.
        fd: OwnedFd,
        /// Its address.
        peer: Peer,
        /// Where it came in.
        listener: Arc<Listener>,
    },
    /// A backend connection can be made.
    Prepared {
        /// Names the session that waits.
        ticket: u64,
        /// What it waits for.
        result: Result<Prepared, PrepareError>,
    },
    /// A cancel request for a session of this worker.
    Cancel(CancelRequest),
    /// Close sessions as soon as they are between statements.
    Drain,
    /// Close sessions now.
    Abort,
    /// Describe the sessions.
    ListSessions(mpsc::Sender<Vec<serde_json::Value>>),
}

/// Address of a client.
#[derive(Clone, Debug)]
pub enum Peer {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// TLS of each protocol's listener.
pub struct ListenerTls {
    /// With the ALPN name `postgresql`.
    pub postgres: Arc<ServerConfig>,
    /// With the ALPN name `redis`, which its clients do not have to offer.
    pub redis: Arc<ServerConfig>,
    /// With the ALPN name `mysql`, which its clients do not have to offer.
    pub mysql: Arc<ServerConfig>,
}

impl ListenerTls {
    /// That of one protocol.
    pub fn of(&self, served: Served) -> &Arc<ServerConfig> {
        match served {
            Served::Postgres => &self.postgres,
            Served::Redis => &self.redis,
            Served::Mysql => &self.mysql,
        }
    }
}

/// A place where clients come in.
pub struct Listener {
    /// What they speak.
    pub served: Served,
    /// Commands as plain lines of text are taken, where the protocol has them (`listeners.redis.inline`).
    pub inline_commands: bool,
    /// The version that clients are told; `None`: what the databases say (`listeners.mysql.server_version`).
    pub server_version: Option<String>,
    /// What is not supported is said in Teleport's words (`listeners.redis.compat: teleport`).
    pub teleport_compat: bool,
    /// Whether a cancel request in the clear is served when its key is right.
    pub cleartext_cancel: bool,
    /// A listener without TLS: everybody who comes in is this identity (`listeners.danger_plain`).
    pub plain: Option<PlainRoute>,
}

impl Listener {
    /// One with TLS and the protocol's defaults.
    pub fn new(served: Served) -> Listener {
        Listener {
            served,
            inline_commands: true,
            server_version: None,
            teleport_compat: false,
            cleartext_cancel: true,
            plain: None,
        }
    }
}

/// The fixed identity and route of a plain listener.
#[derive(Clone, Debug)]
pub struct PlainRoute {
    /// Product user.
    pub user: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its traits.
    pub traits: std::collections::BTreeMap<String, Vec<String>>,
    /// Registered name of the database.
    pub service: String,
    /// Database user.
    pub db_user: String,
    /// Database name.
    pub db_name: String,
}

impl Plane {
    /// A plane whose workers are reached through `ways`.
    pub fn new(
        settings: Settings,
        authority: Authority,
        tls: ListenerTls,
        ways: Vec<(mpsc::Sender<Command>, Doorbell)>,
        jobs: mpsc::Sender<Job>,
    ) -> Plane {
        let origin = Instant::now();
        let gate = |(inbox, bell)| Gate { inbox, bell, load: AtomicUsize::new(0), beat_ms: AtomicU64::new(0), origin };
        Plane {
            settings,
            policy: authority.publisher(),
            authority,
            tls: ArcSwap::from_pointee(tls),
            learned: Learned::default(),
            gates: ways.into_iter().map(gate).collect(),
            jobs,
            counts: Mutex::default(),
            told: Mutex::default(),
            pre_auth: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            origin,
        }
    }

    /// The gates of all workers, by index.
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// The gate of worker `id`.
    ///
    /// # Panics
    /// When there is no such worker: ids come from this plane alone.
    pub fn gate(&self, id: usize) -> &Gate {
        &self.gates[id]
    }

    /// The worker with the fewest connections. Database connections are few and long-lived: chance would put
    /// them on one core.
    pub fn least_loaded(&self) -> &Gate {
        let mut best = &self.gates[0];
        for gate in &self.gates {
            if gate.load.load(Relaxed) < best.load.load(Relaxed) {
                best = gate;
            }
        }
        best
    }

    /// Connections of all workers.
    pub fn connections(&self) -> usize {
        self.gates.iter().map(|gate| gate.load.load(Relaxed)).sum()
    }

    /// Connections of all workers that have not been authorised yet.
    pub fn pre_auth(&self) -> usize {
        self.pre_auth.load(Relaxed)
    }

    /// A connection begins.
    pub fn begin_pre_auth(&self) {
        self.pre_auth.fetch_add(1, Relaxed);
    }

    /// A connection is authorised or gone.
    pub fn end_pre_auth(&self) {
        self.pre_auth.fetch_sub(1, Relaxed);
    }

    /// Hands a job to the prepare thread.
    pub fn prepare(
        &self,
        worker: usize,
        ticket: u64,
        database: Arc<Database>,
        db_user: &str,
        node: Option<String>,
    ) -> Result<(), PrepareError> {
        let job = Job { worker, ticket, database, db_user: db_user.to_owned(), node };
        self.jobs.send(job).map_err(|_| PrepareError::Stopped)
    }

    /// Counts a session of `whom`; `None` when it has `max` already (0 = unlimited). Dropping gives it back.
    pub fn count(self: &Arc<Self>, whom: Counted, max: u32) -> Option<SessionPlace> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(whom.clone()).or_default();
        if max != 0 && *count >= max {
            return None;
        }
        *count += 1;
        Some(SessionPlace { plane: self.clone(), whom })
    }

    /// Remembers which connection of a database stands behind an id that a client was told. Dropping forgets it.
    pub fn tell(self: &Arc<Self>, id: u32, told: Told) -> ToldPlace {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(id, told);
        ToldPlace { plane: self.clone(), id }
    }

    /// The database's id of a connection that was told to a client as `id`, if it is one of the same user's to the
    /// same database.
    pub fn connection_of(&self, id: u32, user: &str, service: &str) -> Option<u32> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&id).filter(|told| told.user == user && told.service == service).map(|told| told.connection)
    }

    /// Starts the drain: every worker closes sessions that are between statements.
    pub fn drain(&self) {
        self.draining.store(true, Release);
        self.gates.iter().for_each(|gate| gate.tell(Command::Drain));
    }

    /// Ends every session now.
    pub fn abort(&self) {
        self.draining.store(true, Release);
        self.gates.iter().for_each(|gate| gate.tell(Command::Abort));
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Acquire)
    }

    /// The first worker that has not looked at its clock for `limit`.
    pub fn silent_worker(&self, limit: Duration) -> Option<usize> {
        let now = self.now_ms();
        let limit = limit.as_millis() as u64;
        self.gates.iter().position(|gate| now.saturating_sub(gate.beat_ms.load(Relaxed)) > limit)
    }

    fn now_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }
}

impl Gate {
    /// Puts `command` into the worker's inbox and rings. A worker that is gone hears nothing; the plane's
    /// health check reports it.
    pub fn tell(&self, command: Command) {
        if self.inbox.send(command).is_ok() {
            self.bell.ring();
        }
    }

    /// Hands over a connection.
    pub fn accept(&self, fd: OwnedFd, peer: Peer, listener: Arc<Listener>) {
        self.load.fetch_add(1, Relaxed);
        self.tell(Command::Accept { fd, peer, listener });
    }

    /// A connection of this worker has closed.
    pub fn release(&self) {
        self.load.fetch_sub(1, AcqRel);
    }

    /// Connections of this worker.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// The worker is alive.
    pub fn beat(&self) {
        self.beat_ms.store(self.origin.elapsed().as_millis() as u64 + 1, Relaxed);
    }

    /// Whether the worker has swept at least once.
    pub fn has_beaten(&self) -> bool {
        self.beat_ms.load(Relaxed) != 0
    }

    /// Seconds since the worker's last sign of life.
    pub fn silence(&self) -> Duration {
        let now = self.origin.elapsed().as_millis() as u64;
        Duration::from_millis(now.saturating_sub(self.beat_ms.load(Relaxed)))
    }
}

/// Whose sessions are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A product user (`max_connections` of its roles).
    User(String),
    /// A registered database (`limits.max_sessions`).
    Database(String),
}

/// A connection whose client was told an id that is not the database's.
#[derive(Clone, Debug)]
pub struct Told {
    /// The product user.
    pub user: String,
    /// Registered name of the database.
    pub service: String,
    /// The database's own id.
    pub connection: u32,
}

/// An entry of [`Plane::tell`].
pub struct ToldPlace {
    plane: Arc<Plane>,
    id: u32,
}

impl Drop for ToldPlace {
    fn drop(&mut self) {
        self.plane.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// One counted session.
pub struct SessionPlace {
    plane: Arc<Plane>,
    whom: Counted,
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let mut counts = self.plane.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.whom) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.whom);
            }
        }
    }
}
