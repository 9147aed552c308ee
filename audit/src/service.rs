//! Opening a log and keeping it running.
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::checkpoint::SigningKey;
use crate::facts::{self, FactsFile};
use crate::options::{Mode, Options, StartError};
use crate::producer::{Producer, SharedProducer};
use crate::recover;
use crate::ring::{self, Map, RingConsumer};
use crate::state::State;
use crate::writer::{self, Old, Ring, Writer};

/// Worker number of the control plane's ring.
pub(crate) const NO_WORKER: u32 = u32::MAX;

/// How long a directory that is in use may take to become free.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// Upper bounds of the sync-time histogram, microseconds; the last bucket has none.
pub const SYNC_BUCKETS_US: [u64; 8] = [100, 500, 1_000, 5_000, 20_000, 100_000, 500_000, 2_000_000];

/// Counters of a running log.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Lines on disk, without batch and header lines. A line may hold several records.
    pub events: u64,
    /// Records on disk: what producers recorded since start. A line holds one or more of them.
    pub records: u64,
    /// Records that could not be kept, since start.
    pub dropped: u64,
    /// Records a ring held that could not be read (power cut, changed file), since start.
    pub damaged: u64,
    /// Group commits.
    pub batches: u64,
    /// Bytes on disk, written since start.
    pub bytes: u64,
    /// Failed attempts to write or sync.
    pub failures: u64,
    /// Text of the last failure, empty when none.
    pub last_failure: String,
    /// Whether the last attempt succeeded.
    pub sink_ok: bool,
    /// Time spent writing and syncing, microseconds.
    pub sync_us_sum: u64,
    /// Commits per bound of [`SYNC_BUCKETS_US`], and above.
    pub sync_us_buckets: [u64; 9],
    /// Fill of each ring: workers in order, the control plane last.
    pub rings: Vec<RingDepth>,
    /// Number of the last event on disk.
    pub last_seq: u64,
    /// Base64 hash of the last batch line: what a later reading of the log must still show.
    pub last_seal: String,
    /// Free bytes on the log's file system, as of the last second.
    pub disk_free: u64,
}

/// Fill of one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingDepth {
    /// Bytes not yet on disk.
    pub used: u64,
    /// Bytes it can hold.
    pub capacity: u64,
}

/// What writer and producers share beside the rings.
pub(crate) struct Shared {
    pub(crate) mode: Mode,
    sink_ok: AtomicBool,
    idle: AtomicBool,
    pub(crate) stop: AtomicBool,
    pub(crate) stats: Mutex<Stats>,
    pub(crate) progress: (Mutex<u64>, Condvar),
    writer: OnceLock<Thread>,
    #[cfg(test)]
    pub(crate) failing_syncs: std::sync::atomic::AtomicU32,
}

impl Shared {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            sink_ok: AtomicBool::new(true),
            idle: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stats: Mutex::new(Stats { sink_ok: true, ..Stats::default() }),
            progress: (Mutex::new(0), Condvar::new()),
            writer: OnceLock::new(),
            #[cfg(test)]
            failing_syncs: std::sync::atomic::AtomicU32::new(0),
        }
    }

    pub(crate) fn sink_ok(&self) -> bool {
        self.sink_ok.load(Ordering::Relaxed)
    }
    /// Returns whether this is a change.
    pub(crate) fn set_sink(&self, ok: bool) -> bool {
        self.sink_ok.swap(ok, Ordering::Release) != ok
    }
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }
    /// Wakes the writer. Cheap when it is awake already.
    #[cold]
    pub(crate) fn doorbell(&self) {
        self.set_idle(false);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Tells those who wait in `flush` to look again.
    pub(crate) fn progressed(&self) {
        *self.progress.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.progress.1.notify_all();
    }
}

/// A running log. Dropping it is [`Handle::shutdown`].
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    maps: Vec<Arc<Map>>,
    writer: Option<JoinHandle<()>>,
    _lock: File,
}

impl Handle {
    /// Counters as of now.
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.stats().clone();
        stats.sink_ok = self.shared.sink_ok();
        stats.dropped = self.maps.iter().map(|m| m.lost()).sum();
        stats.rings = self.maps.iter().map(|m| RingDepth { used: m.used(), capacity: m.capacity() }).collect();
        stats
    }

    /// Whether the log can be written, as of the last attempt.
    pub fn sink_ok(&self) -> bool {
        self.shared.sink_ok()
    }

    /// Waits until everything recorded before the call is on disk. `false`: the log could not be written.
    pub fn flush(&self) -> bool {
        let goals: Vec<u64> = self.maps.iter().map(|m| m.tail()).collect();
        let (lock, changed) = &self.shared.progress;
        let mut seen = lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.maps.iter().zip(&goals).any(|(m, goal)| m.head() < *goal) {
            if !self.shared.sink_ok() {
                return false;
            }
            self.shared.doorbell();
            let wait = std::time::Duration::from_millis(20);
            seen = changed.wait_timeout(seen, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes what is in the rings, a last checkpoint and the `state`, and seals the segment. What a broken sink does not
    /// take stays in the rings for the next start.
    pub fn shutdown(self) {}
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.doorbell();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has left its records in the rings; the next start drains them.
            let _ = writer.join();
        }
    }
}

/// Opens or creates the log, repairs what a crash left, and starts the writer thread.
///
/// `producers` is the number of workers; `wake[i]` is called on the writer's thread when worker `i` should look again:
/// there is room after pressure, records became durable (in durable mode, once per commit), the sink's health changed.
pub fn start(
    options: Options,
    producers: usize,
    wake: Vec<Box<dyn Fn() + Send>>,
) -> Result<(Vec<Producer>, SharedProducer, Handle), StartError> {
    check(&options, producers)?;
    let dir = options.dir.clone();
    for sub in ["", "keys", "rings", "torn"] {
        let path = dir.join(sub);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(StartError::io("create", &path))?;
    }
    let lock = lock(&dir)?;
    let key = SigningKey::load_or_create(&dir, &format!("ringgate/{}/{}", options.cluster_name, options.server_id))?;
    let note = std::fs::read_to_string(dir.join("state")).ok();
    let state = note.as_ref().and_then(|n| State::parse(n, &key.public));
    let state_broken = note.is_some() && state.is_none();
    let found = recover::recover(&dir, state, state_broken).map_err(StartError::io("recover", &dir))?;
    let boot = boot_id();
    let rings_dir = dir.join("rings");
    let old = former_rings(&rings_dir, &found.end.rings).map_err(StartError::io("read", &rings_dir))?;

    let shared = Arc::new(Shared::new(options.mode));
    let mut rings = Vec::with_capacity(producers + 1);
    let mut ends = Vec::with_capacity(producers + 1);
    let mut wakes = wake.into_iter();
    for i in 0..=producers {
        let worker = if i == producers { NO_WORKER } else { u32::try_from(i).unwrap_or(NO_WORKER - 1) };
        let id = uuid::Uuid::new_v4().as_u128() as u64 >> 16;
        let path = rings_dir.join(format!("{id:012x}.ring"));
        let map = Map::create(&path, id, options.ring_bytes, worker, boot).map_err(StartError::io("create", &path))?;
        let facts_path = path.with_extension("facts");
        let facts = FactsFile::create(&facts_path).map_err(StartError::io("create", &facts_path))?;
        ends.push(Producer::new(ring::producer(&map), shared.clone()));
        let wake = if i < producers { wakes.next() } else { None };
        rings.push(Ring::new(RingConsumer::new(&map, 0), &options, facts::Sessions::default(), facts, wake));
    }
    let maps = rings.iter().map(|r| r.ring.map().clone()).collect();
    let mut former = Vec::with_capacity(old.len());
    for (path, map, from) in old {
        let facts_path = path.with_extension("facts");
        let (sessions, bytes) = facts::restore(&facts_path);
        let facts = FactsFile::continue_at(&facts_path, bytes).map_err(StartError::io("open", &facts_path))?;
        let ring = Ring::new(RingConsumer::new(&map, from), &options, sessions, facts, None);
        former.push(Old { path, boot: map.boot(), ring });
    }
    let writer = Writer::new(options, key, found, rings, former, boot, shared.clone());
    writer.begin();
    let thread = std::thread::Builder::new()
        .name("audit-writer".to_owned())
        .spawn(move || writer::run(writer))
        .map_err(StartError::io("start the writer of", &dir))?;
    // Set once, here: the cell is fresh.
    let _ = shared.writer.set(thread.thread().clone());
    let control = SharedProducer::new(ends.remove(producers));
    Ok((ends, control, Handle { shared, maps, writer: Some(thread), _lock: lock }))
}

fn check(options: &Options, producers: usize) -> Result<(), StartError> {
    if !options.ring_bytes.is_power_of_two() || !(64 << 10..=1 << 30).contains(&options.ring_bytes) {
        return Err(StartError::Option("ring_bytes"));
    }
    if !(1024..=64 << 20).contains(&options.batch_bytes) {
        return Err(StartError::Option("batch_bytes"));
    }
    if options.segment_bytes < 4096 {
        return Err(StartError::Option("segment_bytes"));
    }
    if producers > 4096 {
        return Err(StartError::Option("producers"));
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StartError> {
    use rustix::fs::{FlockOperation, flock};
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StartError::io("open", &path))?;
    let began = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // A holder that has just ended may still have a child between fork and exec, which shares the lock.
            Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_WAIT / 50),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StartError::Locked(dir.to_path_buf())),
            Err(e) => return Err(StartError::io("lock", &path)(e.into())),
        }
    }
}

type FormerRing = (std::path::PathBuf, Arc<Map>, u64);

/// Rings that a former process left, with the position the chain consumed them to.
fn former_rings(dir: &Path, consumed: &[(u64, u64)]) -> std::io::Result<Vec<FormerRing>> {
    let mut rings = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "ring") {
            continue;
        }
        match Map::open(&path)? {
            Some(map) => {
                let from = consumed.iter().find(|(id, _)| *id == map.id()).map_or(0, |(_, at)| *at);
                rings.push((path, map, from));
            }
            // A start that did not get far: nothing was ever recorded in it.
            None => std::fs::remove_file(&path)?,
        }
    }
    rings.sort_by_key(|(_, map, _)| map.worker());
    Ok(rings)
}

fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    uuid::Uuid::parse_str(text.trim()).map_or(0, |id| id.as_u128())
}
