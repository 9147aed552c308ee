//! One core's world: its runtime, sessions, buffers, policy reader and audit ring. Nothing here crosses threads
//! but what [`crate::plane`] hands in through the inbox.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use ringgate_audit::Producer;
use ringgate_control::identity::CertIdentity;
use ringgate_policy::{CommandRules, OnAccessChange, Snapshot, SnapshotReader};
use ringgate_protocol::SessionKey;
use uuid::Uuid;

use crate::backend::cluster;
use crate::backend::prepare::{PrepareError, Prepared};
use crate::metrics::{Counters, Served};
use crate::net::buffer::Pool;
use crate::net::doorbell::Ear;
use crate::net::driver::{self, Driver, RingSize};
use crate::net::stream::Stream;
use crate::net::{self};
use crate::plane::{Command, Plane};
use crate::session;

/// How often a worker looks at its clocks: idle and expiry limits, policy changes, its own heartbeat. Every
/// promise of "within one second" is kept by this.
const SWEEP: Duration = Duration::from_millis(100);

/// What a worker owns. Shared by its sessions through an `Rc`.
pub struct Core {
    /// Index among the workers.
    pub id: usize,
    /// What all threads share.
    pub plane: Arc<Plane>,
    /// Receive and send buffers.
    pub pool: Rc<Pool>,
    /// The policy snapshot this worker has adopted.
    pub policy: RefCell<SnapshotReader>,
    /// This worker's audit ring.
    pub audit: RefCell<Producer>,
    /// Figures that the metrics endpoint reads.
    pub counters: Arc<Counters>,
    /// The commands that each set of rules permits, for sessions with equal rules.
    pub permitted: RefCell<HashMap<CommandRules, session::CommandBits>>,
    /// The clusters that sessions of this worker have seen.
    pub clusters: cluster::Known,
    sessions: RefCell<HashMap<u32, Rc<Control>>>,
    waiting: RefCell<Vec<Rc<Control>>>,
    prepared: RefCell<HashMap<u64, PreparedSlot>>,
    next_prepared: Cell<u64>,
    origin: Instant,
    /// Wall clock at the worker's microsecond 0, set anew by every sweep: one clock read gives both times.
    origin_unix_us: Cell<u64>,
    handshakes: Cell<usize>,
}

#[derive(Default)]
struct PreparedSlot {
    waker: Option<Waker>,
    result: Option<Result<Prepared, PrepareError>>,
}

/// A wait for the prepare thread: over, however it ends.
struct PreparedPlace<'a> {
    core: &'a Core,
    ticket: u64,
}

impl Drop for PreparedPlace<'_> {
    fn drop(&mut self) {
        self.core.prepared.borrow_mut().remove(&self.ticket);
    }
}

/// What the rest of the worker may say to a running session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing happened for the role's idle time.
    Idle,
    /// The certificate has expired and a role says that this ends sessions.
    Expired,
    /// The right to this session was lost (`auth.on_access_change: end`).
    AccessLost,
    /// The server is shutting down and the session is between statements.
    Drain,
    /// The server is shutting down and waits no longer.
    Abort,
    /// A peer has not taken our bytes for `limits.write_stall_timeout`.
    Stalled,
}

/// The handle of a session inside its worker.
pub struct Control {
    /// Session id of the audit.
    pub sid: Uuid,
    /// The cancel key shown to the client.
    pub key: SessionKey,
    /// How much of the key's secret the client was given.
    pub secret_len: Cell<usize>,
    /// Who and what, for re-authorisation and the sessions list.
    pub about: About,
    /// Worker milliseconds of the last byte in either direction.
    pub active_ms: Cell<u64>,
    /// Worker milliseconds since when a send has made no progress; 0 when none is in flight.
    pub sending_since_ms: Cell<u64>,
    /// The database's own cancel key and where it counts.
    pub backend: RefCell<Option<session::cancel::BackendKey>>,
    /// Statements forwarded, for the sessions list.
    pub statements: Cell<u64>,
    /// The database user that the session has become, where it is another than it began as.
    pub acting_as: RefCell<Option<String>>,
    order: Cell<Option<Order>>,
    /// The policy snapshot that the session was last judged by.
    judged_by: Cell<u64>,
    /// Among those to be woken when the audit moves.
    awaits_audit: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What a session is about.
pub struct About {
    /// The protocol.
    pub served: Served,
    /// The certificate's content.
    pub identity: Rc<CertIdentity>,
    /// Registered name of the database.
    pub service: String,
    /// Database user.
    pub db_user: String,
    /// Database name.
    pub db_name: String,
    /// The policy snapshot that let it in.
    pub policy_version: u64,
    /// Client address.
    pub peer: String,
    /// Effective idle limit.
    pub idle_limit: Option<Duration>,
    /// Whether expiry of the certificate ends the session.
    pub ends_on_expiry: bool,
}

impl Order {
    fn urgency(self) -> u8 {
        match self {
            Order::Drain => 0,
            Order::Idle => 1,
            Order::Expired | Order::AccessLost => 2,
            Order::Abort => 3,
            Order::Stalled => 4,
        }
    }
}

impl Control {
    /// A handle for a session that is about to begin.
    pub fn new(sid: Uuid, key: SessionKey, about: About, now_ms: u64) -> Rc<Control> {
        Rc::new(Control {
            sid,
            key,
            secret_len: Cell::new(key.secret.len()),
            judged_by: Cell::new(about.policy_version),
            about,
            active_ms: Cell::new(now_ms),
            sending_since_ms: Cell::new(0),
            backend: RefCell::default(),
            statements: Cell::new(0),
            acting_as: RefCell::default(),
            order: Cell::new(None),
            awaits_audit: Cell::new(false),
            waker: RefCell::default(),
        })
    }

    /// Gives an order. The first one counts, but one that cannot wait overrides one that can.
    pub fn order(&self, order: Order) {
        if self.order.get().is_none_or(|given| given.urgency() < order.urgency()) {
            self.order.set(Some(order));
            self.wake();
        }
    }

    /// Takes back an order to end for idleness: a statement is running, and idleness begins anew after `now_ms`.
    pub fn is_not_idle(&self, now_ms: u64) {
        self.active_ms.set(now_ms);
        if self.order.get() == Some(Order::Idle) {
            self.order.set(None);
        }
    }

    /// The order given, if any. It stands until the session ends.
    pub fn ordered(&self) -> Option<Order> {
        self.order.get()
    }

    /// Remembers whom to wake.
    pub fn park(&self, waker: &Waker) {
        let mut parked = self.waker.borrow_mut();
        if !parked.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
    }

    /// Has the session polled again.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Core {
    /// The world of worker `id`.
    pub fn new(id: usize, plane: Arc<Plane>, audit: Producer, counters: Arc<Counters>) -> Rc<Core> {
        let settings = &plane.settings;
        Rc::new(Core {
            id,
            pool: Pool::new(settings.buffer_small_bytes, settings.buffer_large_bytes),
            policy: RefCell::new(plane.policy.reader()),
            audit: RefCell::new(audit),
            counters,
            plane,
            permitted: RefCell::default(),
            clusters: cluster::Known::default(),
            sessions: RefCell::default(),
            waiting: RefCell::default(),
            prepared: RefCell::default(),
            next_prepared: Cell::new(0),
            origin: Instant::now(),
            origin_unix_us: Cell::new(unix_us()),
            handshakes: Cell::new(0),
        })
    }

    /// Milliseconds of this worker's monotonic clock, never 0.
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1000 + 1
    }

    /// Microseconds of this worker's monotonic clock.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Wall clock, microseconds since 1970 UTC, at `now_us` of the worker's clock.
    pub fn unix_us_at(&self, now_us: u64) -> u64 {
        self.origin_unix_us.get() + now_us
    }

    /// Enters a session into the table.
    pub fn enter(&self, control: &Rc<Control>) {
        self.sessions.borrow_mut().insert(control.key.pid, control.clone());
        self.counters.of(control.about.served).sessions_active.fetch_add(1, Relaxed);
    }

    /// Takes a session out of the table.
    pub fn leave(&self, control: &Control) {
        if self.sessions.borrow_mut().remove(&control.key.pid).is_some() {
            self.counters.of(control.about.served).sessions_active.fetch_sub(1, Relaxed);
        }
    }

    /// A cancel key that no session of this worker has. The pid names the worker, so that a cancel that arrives
    /// elsewhere finds it; the secret is what protects it.
    pub fn new_key(&self) -> Option<SessionKey> {
        let sessions = self.sessions.borrow();
        for _ in 0..64 {
            let mut bytes = [0u8; 36];
            aws_lc_rs::rand::fill(&mut bytes).ok()?;
            let (pid, secret) = bytes.split_first_chunk::<4>()?;
            let pid = session::cancel::pid_of(self.id, u32::from_be_bytes(*pid));
            if !sessions.contains_key(&pid) {
                return Some(SessionKey { pid, secret: secret.try_into().ok()? });
            }
        }
        None
    }

    /// The session that has this pid.
    pub fn session(&self, pid: u32) -> Option<Rc<Control>> {
        self.sessions.borrow().get(&pid).cloned()
    }

    /// Wakes `control` when the audit ring has room again or a record has reached the disk.
    pub fn wait_for_audit(&self, control: &Rc<Control>) {
        if !control.awaits_audit.replace(true) {
            self.waiting.borrow_mut().push(control.clone());
        }
    }

    /// Waits for this connection's turn to compute one step of a TLS handshake (150 to 300 us each).
    ///
    /// After `tls.handshakes_per_worker` steps in a row the others wait a millisecond, in which established
    /// sessions are served: a storm of reconnects costs them a few milliseconds and not all of its own length.
    /// No place is held while a client dawdles, so slow clients keep nobody out.
    pub async fn handshake_turn(&self) {
        let mut steps = self.handshakes.get();
        while steps >= self.plane.settings.handshakes_per_worker.max(1) {
            net::sleep(Duration::from_millis(1)).await;
            self.handshakes.set(0);
            steps = 0;
        }
        self.handshakes.set(steps + 1);
    }

    /// Asks the prepare thread for everything a backend connection needs, and waits for it. `node` is `host:port` of a
    /// node of a cluster. The wait may be given up
    /// by dropping it.
    pub async fn prepare(
        &self,
        database: Arc<ringgate_policy::Database>,
        db_user: &str,
        node: Option<String>,
    ) -> Result<Prepared, PrepareError> {
        let ticket = self.next_prepared.get();
        self.next_prepared.set(ticket + 1);
        self.prepared.borrow_mut().insert(ticket, PreparedSlot::default());
        let _place = PreparedPlace { core: self, ticket };
        self.plane.prepare(self.id, ticket, database, db_user, node)?;
        std::future::poll_fn(|cx| {
            let mut slots = self.prepared.borrow_mut();
            let slot = slots.entry(ticket).or_default();
            if let Some(result) = slot.result.take() {
                return std::task::Poll::Ready(result);
            }
            slot.waker = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Accept { fd, peer, listener } => match Stream::from_fd(fd) {
                Ok(stream) => session::start(self.clone(), stream, peer, listener),
                Err(_) => self.plane.gate(self.id).release(),
            },
            Command::Prepared { ticket, result } => {
                if let Some(slot) = self.prepared.borrow_mut().get_mut(&ticket) {
                    slot.result = Some(result);
                    if let Some(waker) = slot.waker.take() {
                        waker.wake();
                    }
                }
            }
            Command::Cancel(request) => session::cancel::serve(self, request),
            Command::Drain => self.order_all(Order::Drain),
            Command::Abort => self.order_all(Order::Abort),
            Command::ListSessions(reply) => {
                let rows = self.sessions.borrow().values().map(|c| session::describe(c, self)).collect();
                // The asker may have given up waiting.
                let _ = reply.send(rows);
            }
        }
    }

    fn order_all(&self, order: Order) {
        let all: Vec<_> = self.sessions.borrow().values().cloned().collect();
        all.iter().for_each(|control| control.order(order));
    }

    /// The policy as it is published now. Who is let in is decided by this, so that a change holds for every
    /// connection authorised after it.
    pub(crate) fn newest_policy(&self) -> Arc<Snapshot> {
        let mut reader = self.policy.borrow_mut();
        reader.adopt();
        reader.current().clone()
    }

    /// Looks at every clock and every session once.
    pub(crate) fn sweep(&self) {
        self.plane.gate(self.id).beat();
        self.counters.buffer_bytes.store(self.pool.live_bytes() as u64, Relaxed);
        let snapshot = self.newest_policy();
        self.counters.policy_generation.store(snapshot.version(), Relaxed);
        let reauthorizes = snapshot.cluster().on_access_change == OnAccessChange::End;
        let now_us = self.now_us();
        let now_ms = now_us / 1000 + 1;
        self.origin_unix_us.set(unix_us().saturating_sub(now_us));
        let now_unix = unix_us() / 1_000_000;
        let settings = &self.plane.settings;
        let draining = self.plane.is_draining();
        let all: Vec<_> = self.sessions.borrow().values().cloned().collect();
        for control in all {
            let idle = Duration::from_millis(now_ms.saturating_sub(control.active_ms.get()));
            let about = &control.about;
            // A session that was still connecting when the policy changed was let in by the one before.
            let reauthorize = reauthorizes && control.judged_by.replace(snapshot.version()) != snapshot.version();
            if about.ends_on_expiry && i64::try_from(now_unix).is_ok_and(|now| now >= about.identity.not_after_unix) {
                control.order(Order::Expired);
            } else if reauthorize && !session::authorize::still_allowed(&control, &snapshot) {
                control.order(Order::AccessLost);
            } else if about.idle_limit.is_some_and(|limit| idle >= limit) {
                control.order(Order::Idle);
            } else if draining {
                control.order(Order::Drain);
            }
            let since = control.sending_since_ms.get();
            if since != 0 && now_ms.saturating_sub(since) > settings.write_stall_timeout.as_millis() as u64 {
                control.order(Order::Stalled);
            }
            // Who waits for the audit looks at its own deadline.
            if control.ordered() == Some(Order::Drain) || control.awaits_audit.get() {
                control.wake();
            }
        }
    }

    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for control in waiting {
            control.awaits_audit.set(false);
            control.wake();
        }
    }
}

/// Wall clock, microseconds since 1970 UTC.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(0))
}

/// What a worker thread is given.
pub struct Start {
    /// Index among the workers.
    pub id: usize,
    /// What all threads share.
    pub plane: Arc<Plane>,
    /// The driver found at start.
    pub driver: Driver,
    /// Ring sizes.
    pub ring: RingSize,
    /// Processor to run on.
    pub cpu: Option<usize>,
    /// The inbox.
    pub inbox: mpsc::Receiver<Command>,
    /// Says that there is something in the inbox, or that audit or policy moved.
    pub ear: Ear,
    /// This worker's audit ring.
    pub audit: Producer,
    /// This worker's figures.
    pub counters: Arc<Counters>,
}

/// Runs a worker on this thread, for ever.
pub fn run(start: Start) -> std::io::Result<()> {
    if let Some(cpu) = start.cpu {
        driver::pin(cpu)?;
    }
    let Start { id, plane, driver, ring, inbox, ear, audit, counters, .. } = start;
    driver::run(driver, ring, || async move {
        let core = Core::new(id, plane, audit, counters);
        let sweeper = core.clone();
        net::spawn(
            async move {
                loop {
                    sweeper.sweep();
                    net::sleep(SWEEP).await;
                }
            },
            // Without its sweep a worker keeps no time limit: better none than such a one.
            || std::process::abort(),
        );
        ear.listen(|| {
            core.wake_waiting();
            while let Ok(command) = inbox.try_recv() {
                core.obey(command);
            }
        })
        .await
    })?
}
