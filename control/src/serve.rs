//! Running the control plane: the admin socket, the diagnostic listener, and the signals of the process.
//!
//! | Signal | Effect |
//! |---|---|
//! | SIGTERM, SIGINT | drain: the plane stops accepting, `/readyz` turns 503, sessions get until the grace ends |
//! | a second one | ends the wait at once |
//! | SIGHUP | the plane reads its configuration again; the outcome is audited and logged |
//!
//! SIGPIPE is ignored by every Rust program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::actor::{Actor, record};
use crate::{Authority, ControlError, api, diag, listen};

/// How often the end of a drain is looked for.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// How often resources past their `metadata.expires` are removed.
const EXPIRY_SWEEP: Duration = Duration::from_secs(1);

/// The data plane, as the control plane sees it. Every method may be called from any thread; those that answer
/// probes (`healthy`, `ready`, `metrics`, `version`, `sessions`) return at once.
pub trait Plane: Send + Sync {
    /// Whether every worker's heartbeat is fresh; the error names the one that is not.
    fn healthy(&self) -> Result<(), String>;
    /// Readiness by check, e.g. `("listeners", Ok(()))`. The control plane adds `store` and `draining`.
    fn ready(&self) -> Vec<(&'static str, Result<(), String>)>;
    /// The metrics page, Prometheus text.
    fn metrics(&self) -> String;
    /// What `version` shows, an object.
    fn version(&self) -> Value;
    /// Stop accepting, close idle sessions, let busy ones finish.
    fn drain(&self);
    /// Whether no session is left.
    fn drained(&self) -> bool;
    /// End every session now.
    fn abort(&self);
    /// Read the configuration again. An object that says what changed, or why nothing did. May block.
    fn reload(&self) -> Result<Value, String>;
    /// The live sessions, an array.
    fn sessions(&self) -> Value;
}

/// How to run.
pub struct ServeOptions {
    /// Path of the admin socket; at most 100 bytes.
    pub admin_socket: PathBuf,
    /// Its mode, `0o600` or `0o660`.
    pub admin_mode: u32,
    /// The diagnostic listener; `None` for none. Port 0 takes a free one.
    pub diag_addr: Option<SocketAddr>,
    /// The data plane.
    pub plane: Arc<dyn Plane>,
    /// How long busy sessions get after the first signal.
    pub shutdown_grace: Duration,
}

/// Where the control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The diagnostic listener, with its real port.
    pub diag_addr: Option<SocketAddr>,
}

/// How a run ended. All are an orderly end, exit status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// No session was left.
    Drained,
    /// The grace ended first; the rest was aborted.
    GraceElapsed,
    /// A second signal ended the wait.
    Interrupted,
}

/// What the handlers of both listeners share.
pub(crate) struct Shared {
    pub(crate) authority: Authority,
    pub(crate) plane: Arc<dyn Plane>,
    draining: AtomicBool,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Reads the configuration again and records how that went. Blocks.
    pub(crate) fn reload(&self, who: &Actor) -> Result<Value, String> {
        let outcome = self.plane.reload();
        let fields = match &outcome {
            Ok(changes) => json!({"success": true, "changes": changes}),
            Err(e) => json!({"success": false, "error": e}),
        };
        record(self.authority.audit(), "config.reload", "TSV00I", who, fields);
        outcome
    }
}

/// Serves on the calling thread until the process is told to stop and the plane has drained. `started` is called
/// once, when every listener is bound and signals are handled.
pub fn run(authority: Authority, options: ServeOptions, started: impl FnOnce(Bound)) -> Result<Exit, ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ControlError::io("cannot start the control runtime"))?;
    let exit = runtime.block_on(serve(authority, options, started));
    // A blocking store call finishes; a stuck one does not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    exit
}

/// The two signals that end a server.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(authority: Authority, options: ServeOptions, started: impl FnOnce(Bound)) -> Result<Exit, ControlError> {
    let unhandled = || "cannot handle signals";
    let mut stop = Stop::listen().map_err(ControlError::io(unhandled()))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(ControlError::io(unhandled()))?;
    let shared = Arc::new(Shared { authority, plane: options.plane, draining: AtomicBool::new(false) });
    let admin = listen::admin(&options.admin_socket, options.admin_mode)?;
    let mut tasks = tokio::task::JoinSet::new();
    let mut bound = Bound { diag_addr: None };
    if let Some(addr) = options.diag_addr {
        let (listener, addr) = listen::diag(addr).await?;
        bound.diag_addr = Some(addr);
        tasks.spawn(listen::serve_tcp(listener, diag::router(shared.clone())));
    }
    tasks.spawn(listen::serve_unix(admin, api::router(shared.clone())));
    started(bound);

    let mut expiry = interval(EXPIRY_SWEEP);
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.asked() => break,
            _ = hang_up.recv() => reload_on_signal(shared.clone()).await,
            _ = expiry.tick() => remove_expired(shared.authority.clone()).await,
        }
    }
    shared.draining.store(true, Ordering::Release);
    shared.plane.drain();
    let exit = wait_for_drain(&shared, &mut stop, options.shutdown_grace).await;
    tasks.abort_all();
    // A socket file that is gone already is as good.
    let _ = std::fs::remove_file(&options.admin_socket);
    Ok(exit)
}

async fn wait_for_drain(shared: &Shared, stop: &mut Stop, grace: Duration) -> Exit {
    let deadline = Instant::now() + grace;
    let mut tick = interval(DRAIN_POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.asked() => {
                shared.plane.abort();
                return Exit::Interrupted;
            }
            _ = tick.tick() => {
                if shared.plane.drained() {
                    return Exit::Drained;
                }
                if Instant::now() >= deadline {
                    shared.plane.abort();
                    return Exit::GraceElapsed;
                }
            }
        }
    }
}

async fn reload_on_signal(shared: Arc<Shared>) {
    let outcome = tokio::task::spawn_blocking(move || shared.reload(&Actor::System)).await;
    match outcome {
        Ok(Ok(changes)) => tracing::info!(%changes, "configuration reloaded"),
        Ok(Err(e)) => tracing::error!(err = %e, "configuration not reloaded, the former one stays"),
        Err(e) => tracing::error!(err = %e, "configuration not reloaded, the former one stays"),
    }
}

async fn remove_expired(authority: Authority) {
    let swept = tokio::task::spawn_blocking(move || authority.remove_expired()).await;
    if let Ok(Err(e)) = swept {
        tracing::error!(err = %e, "expired resources not removed");
    }
}
