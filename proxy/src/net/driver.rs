//! Which driver a worker runs on, and how its ring is set up.

use std::future::Future;
use std::io;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// The driver taken, for `version`, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with these set-up flags.
    IoUring(RingMode),
    /// epoll, because io_uring is forbidden here or epoll was asked for.
    Epoll,
}

/// Set-up flags of the ring (performance-notes 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMode {
    /// SINGLE_ISSUER, COOP_TASKRUN, TASKRUN_FLAG.
    Coop,
    /// SINGLE_ISSUER, DEFER_TASKRUN.
    Defer,
    /// No flags: kernels below 5.19.
    Plain,
}

impl Driver {
    /// The word of metrics, logs and `version`.
    pub const fn word(self) -> &'static str {
        match self {
            Driver::IoUring(RingMode::Coop) => "io_uring",
            Driver::IoUring(RingMode::Defer) => "io_uring (defer)",
            Driver::IoUring(RingMode::Plain) => "io_uring (plain)",
            Driver::Epoll => "epoll",
        }
    }
}

/// What configuration wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or fail.
    IoUring,
    /// epoll.
    Epoll,
}

/// Sizes of the ring.
#[derive(Clone, Copy, Debug)]
pub struct RingSize {
    /// Submission entries (at least 256).
    pub entries: u32,
    /// Completion entries. A completion queue that cannot overflow is the cure for the loop's swallowed
    /// park errors: at least twice the sessions of a worker.
    pub cq: u32,
}

fn builder(mode: RingMode, size: RingSize) -> io_uring::Builder {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_cqsize(size.cq).setup_clamp().dontfork();
    match mode {
        RingMode::Coop => ring.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().setup_submit_all(),
        RingMode::Defer => ring.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
        RingMode::Plain => &mut ring,
    };
    ring
}

/// Finds the driver by trying: io_uring may be forbidden by a seccomp profile or a sysctl, and an older kernel
/// knows fewer flags. `mode` is the first to try.
///
/// Errors: only when `wish` is io_uring and no ring can be had.
pub fn choose(wish: Wish, mode: RingMode, size: RingSize) -> io::Result<Driver> {
    if wish == Wish::Epoll || (wish == Wish::Auto && std::env::var_os("MONOIO_FORCE_LEGACY_DRIVER").is_some()) {
        return Ok(Driver::Epoll);
    }
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    let ladder = [mode, RingMode::Coop, RingMode::Plain];
    let first_new = |i: usize| !ladder[..i].contains(&ladder[i]);
    for mode in (0..ladder.len()).filter(|i| first_new(*i)).map(|i| ladder[i]) {
        match builder(mode, size).build(size.entries) {
            Ok(_) => return Ok(Driver::IoUring(mode)),
            Err(error) => last = error,
        }
    }
    if wish == Wish::IoUring { Err(last) } else { Ok(Driver::Epoll) }
}

/// Builds the runtime on this thread and runs `main` to its end on it.
///
/// The runtime is leaked afterwards on purpose: dropping it with operations in flight would free buffers that
/// the kernel still writes to. The process exits soon after.
pub fn run<F: Future>(driver: Driver, size: RingSize, main: impl FnOnce() -> F) -> io::Result<F::Output> {
    match driver {
        Driver::IoUring(mode) => {
            let runtime = RuntimeBuilder::<IoUringDriver>::new()
                .with_entries(size.entries)
                .uring_builder(builder(mode, size))
                .enable_timer()
                .build()?;
            let mut runtime = std::mem::ManuallyDrop::new(runtime);
            runtime.block_on(watched(main))
        }
        Driver::Epoll => {
            let runtime = RuntimeBuilder::<LegacyDriver>::new().with_entries(size.entries).enable_timer().build()?;
            let mut runtime = std::mem::ManuallyDrop::new(runtime);
            runtime.block_on(watched(main))
        }
    }
}

/// Within the runtime: first the sockets' watch, then `main`.
async fn watched<F: Future>(main: impl FnOnce() -> F) -> io::Result<F::Output> {
    super::watch::install()?;
    Ok(main().await)
}

/// Binds this thread to one processor.
pub fn pin(cpu: usize) -> io::Result<()> {
    monoio::utils::bind_to_cpu_set([cpu]).map_err(|e| io::Error::other(e.to_string()))
}
