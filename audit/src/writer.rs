//! The writer thread: rings in, lines and batches out.
//!
//! One batch is in the making at a time. Its records stay in their rings until it is on disk, and its lines in `lines`,
//! so a failed write or sync is repeated with the same numbers in a place that is known to be good.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chain::{Hash, sha256};
use crate::checkpoint::SigningKey;
use crate::drain::{Tally, drain};
use crate::facts::{FactsFile, Sessions};
use crate::join::Results;
use crate::json;
use crate::line::{self, Lines, Own};
use crate::options::{Mode, Options};
use crate::recover::Recovered;
use crate::ring::{Map, RingConsumer};
use crate::segment::{BATCH_START, Failed, Header, Segment};
use crate::service::{NO_WORKER, SYNC_BUCKETS_US, Shared};
use crate::state::State;

/// Quiet for this long: sleep until the doorbell, or for `IDLE_POLL`.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// Also the longest sleep in durable mode, where the doorbell wakes at once.
const IDLE_POLL: Duration = Duration::from_millis(10);
/// Between attempts while the log cannot be written.
const RETRY: Duration = Duration::from_millis(100);
/// Between gap records of one ring.
const GAP_INTERVAL: Duration = Duration::from_millis(100);

/// One ring as the writer sees it.
pub(crate) struct Ring {
    pub(crate) ring: RingConsumer,
    pub(crate) origin: Vec<u8>,
    pub(crate) sessions: Sessions,
    pub(crate) facts: FactsFile,
    wake: Option<Box<dyn Fn() + Send>>,
    lost_noted: u64,
    pub(crate) damaged: bool,
}

impl Ring {
    pub(crate) fn new(
        ring: RingConsumer,
        options: &Options,
        sessions: Sessions,
        facts: FactsFile,
        wake: Option<Box<dyn Fn() + Send>>,
    ) -> Self {
        let worker = Some(ring.map().worker()).filter(|w| *w != NO_WORKER);
        let origin = line::origin(&options.cluster_name, &options.server_id, worker);
        let lost_noted = ring.map().lost_reported();
        Self { ring, origin, sessions, facts, wake, lost_noted, damaged: false }
    }

    fn map(&self) -> &Arc<Map> {
        self.ring.map()
    }
    fn drained(&self) -> bool {
        self.ring.read() >= self.map().tail()
    }
}

/// A ring of a former process, deleted once its records are on disk.
pub(crate) struct Old {
    pub(crate) path: PathBuf,
    pub(crate) boot: u128,
    pub(crate) ring: Ring,
}

/// What the writer owns.
pub(crate) struct Writer {
    options: Options,
    key: SigningKey,
    shared: Arc<Shared>,
    rings: Vec<Ring>,
    old: Vec<Old>,
    /// Lines of the log's own have no worker.
    origin: Vec<u8>,
    format: Lines,
    /// Lines of the batch in the making.
    lines: Vec<u8>,
    first_seq: u64,
    /// Records that they stand for.
    records: u64,
    results: Results,
    end: State,
    segment: Option<Segment>,
    failed_sync: bool,
    /// The last attempt failed then.
    failed_at: Option<Instant>,
    recovery: Option<Recovery>,
    lost_to_sink: bool,
    gap_at: Instant,
    /// Batches on disk that hold more than checkpoints, since the last checkpoint.
    unsigned: u64,
    only_checkpoint: bool,
    signed_at: Instant,
    turn: usize,
    disk_at: Instant,
}

/// What `audit.recover` will say once the former rings are drained.
struct Recovery {
    segment: u64,
    cut_bytes: u64,
    crashed: bool,
    records: u64,
    /// The event is among `lines`.
    told: bool,
}

pub(crate) fn run(mut writer: Writer) {
    // Weight, not priority: the writer yields to the workers when both want the core. Refusal changes nothing else.
    let _ = rustix::process::setpriority_process(None, 5);
    let mut quiet = Instant::now();
    loop {
        let looked = Instant::now();
        let stop = writer.shared.stop.load(Ordering::Acquire);
        let moved = writer.gather();
        let full = writer.lines.len() >= writer.options.batch_bytes;
        writer.own_lines(stop);
        if writer.due(stop) {
            writer.commit(false);
        }
        writer.give_room(false);
        if stop && (writer.finished() || writer.failed_at.is_some()) {
            writer.finish();
            return;
        }
        writer.look_at_disk();
        if moved {
            quiet = looked;
        }
        if stop || (full && writer.failed_at.is_none()) {
            continue;
        }
        writer.sleep(looked, quiet);
    }
}

impl Writer {
    pub(crate) fn new(
        options: Options,
        key: SigningKey,
        found: Recovered,
        rings: Vec<Ring>,
        old: Vec<Old>,
        boot: u128,
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        let origin = line::origin(&options.cluster_name, &options.server_id, None);
        let mut writer = Self {
            format: Lines::new(found.end.seq + 1),
            lines: Vec::with_capacity(options.batch_bytes + (64 << 10)),
            first_seq: found.end.seq + 1,
            records: 0,
            results: Results::default(),
            segment: None,
            failed_sync: false,
            failed_at: None,
            recovery: None,
            lost_to_sink: false,
            gap_at: now,
            unsigned: 0,
            only_checkpoint: true,
            signed_at: now,
            turn: 0,
            disk_at: now,
            end: found.end,
            options,
            key,
            shared,
            rings,
            old,
            origin,
        };
        writer.disk_free();
        if let Some(damage) = found.damage {
            let mut members = b"\"success\":false,\"error\":".to_vec();
            json::string(&mut members, damage);
            writer.own("audit.verify", "TAU05W", &members);
        }
        let undrained = writer.old.iter().any(|o| !o.ring.drained());
        if found.crashed || found.cut_bytes > 0 || undrained {
            let segment = writer.end.segment;
            writer.recovery =
                Some(Recovery { segment, cut_bytes: found.cut_bytes, crashed: found.crashed, records: 0, told: false });
            if writer.old.iter().any(|o| o.boot != boot) {
                // What the page cache held is gone: how much, nobody knows.
                writer.own("audit.gap", "TAU02W", b"\"reason\":\"power_loss\",\"lost\":null");
            }
        }
        writer
    }

    /// A state file exists from the first start on: later its absence means something.
    pub(crate) fn begin(&self) {
        if self.end.tree.size() == 0 {
            let _ = self.end.write(&self.options.dir, &self.key);
        }
    }

    /// Sleeps until the next look: one flush interval after the last, since every look commits what it finds. Sooner when
    /// a producer rings, because its ring fills up or somebody waits for the disk.
    fn sleep(&self, looked: Instant, quiet: Instant) {
        let interval = self.options.flush_interval;
        if self.failed_at.is_some() {
            return std::thread::park_timeout(RETRY / 4);
        }
        let durable = self.options.mode == Mode::Durable;
        // A doorbell for each first record is a system call of a worker: only where it shortens the wait.
        if durable || (interval < IDLE_POLL && quiet.elapsed() >= IDLE_AFTER) {
            self.shared.set_idle(true);
            if self.rings.iter().all(Ring::drained) {
                std::thread::park_timeout(IDLE_POLL);
            }
            self.shared.set_idle(false);
        } else {
            std::thread::park_timeout(interval.saturating_sub(looked.elapsed()));
        }
    }

    /// Formats what the rings hold, until the batch is full.
    fn gather(&mut self) -> bool {
        let Self { format, results, lines, .. } = self;
        let full = self.options.batch_bytes;
        let before = lines.len();
        let mut total = Tally::default();
        let mut add = |tally: Tally| {
            total.moved |= tally.moved;
            total.records += tally.records;
            total.damaged += tally.damaged;
            tally.records
        };
        for old in &mut self.old {
            let records = add(drain(&mut old.ring, format, results, lines, full));
            if let Some(recovery) = &mut self.recovery {
                recovery.records += records;
            }
        }
        // Who comes first changes, so that a busy ring does not starve the others when a batch fills up.
        let n = self.rings.len();
        self.turn = (self.turn + 1) % n.max(1);
        for i in 0..n {
            add(drain(&mut self.rings[(self.turn + i) % n], format, results, lines, full));
        }
        if lines.len() > before {
            self.only_checkpoint = false;
        }
        self.records += total.records;
        if total.damaged > 0 {
            self.shared.stats().damaged += total.damaged;
        }
        total.moved
    }

    fn own(&mut self, event: &str, code: &str, members: &[u8]) {
        let own = Own { event, code, time_us: now_us(), members };
        self.format.own(&mut self.lines, &self.origin, &own);
        if event != "audit.checkpoint" {
            self.only_checkpoint = false;
        }
    }

    /// Adds what the log itself has to say: gaps, the recovery, checkpoints.
    fn own_lines(&mut self, stop: bool) {
        if self.failed_at.is_some() {
            return;
        }
        for i in 0..self.old.len() + self.rings.len() {
            let (ring, worker) = self.ring_mut(i);
            if std::mem::take(&mut ring.damaged) {
                let members = format!("\"reason\":\"ring_damaged\",\"lost\":null{worker}");
                self.own("audit.gap", "TAU02W", members.as_bytes());
            }
        }
        if stop || self.gap_at.elapsed() >= GAP_INTERVAL {
            let reason = if self.lost_to_sink { "sink_broken" } else { "ring_full" };
            for i in 0..self.old.len() + self.rings.len() {
                let (ring, worker) = self.ring_mut(i);
                let lost = ring.map().lost();
                if lost > ring.lost_noted {
                    let members = format!("\"reason\":\"{reason}\",\"lost\":{}{worker}", lost - ring.lost_noted);
                    ring.lost_noted = lost;
                    self.gap_at = Instant::now();
                    self.own("audit.gap", "TAU02W", members.as_bytes());
                }
            }
            self.lost_to_sink = false;
        }
        let drained = self.old.iter().all(|o| o.ring.drained());
        if let Some(recovery) = &mut self.recovery
            && drained
            && !recovery.told
        {
            recovery.told = true;
            let members = format!(
                "\"segment\":{},\"cut_bytes\":{},\"crashed\":{},\"records\":{}",
                recovery.segment, recovery.cut_bytes, recovery.crashed, recovery.records
            );
            self.own("audit.recover", "TAU03I", members.as_bytes());
        }
    }

    fn ring_mut(&mut self, i: usize) -> (&mut Ring, String) {
        let n = self.old.len();
        let ring = if i < n { &mut self.old[i].ring } else { &mut self.rings[i - n] };
        let worker = ring.map().worker();
        let worker = if worker == NO_WORKER { String::new() } else { format!(",\"worker\":{worker}") };
        (ring, worker)
    }

    fn due(&self, stop: bool) -> bool {
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY && !stop) {
            return false;
        }
        // Openings and closings of sessions make no line; their room is given back all the same.
        !self.lines.is_empty()
            || self.rings.iter().any(|r| r.ring.read() > r.map().head())
            || self.old.iter().any(|o| o.ring.ring.read() > o.ring.map().head() || o.ring.drained())
    }

    /// Writes the batch and gives its room back, or notes that it could not.
    fn commit(&mut self, last_resort: bool) {
        let began = Instant::now();
        match self.try_commit(last_resort) {
            Ok(()) => self.committed(began),
            Err(failed) => self.failed(&failed),
        }
    }

    fn try_commit(&mut self, last_resort: bool) -> Result<(), Failed> {
        let plain = |error| Failed { error, void: false };
        for ring in self.old.iter_mut().map(|o| &mut o.ring).chain(&mut self.rings) {
            ring.facts.write().map_err(plain)?;
        }
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => Segment::create(&self.options.dir, self.end.segment + 1).map_err(plain)?,
        };
        let header = if segment.bytes == 0 { self.header(segment.number) } else { Vec::new() };
        let (batch, rings) = self.batch_line(&header);
        let events = self.lines.len();
        self.lines.extend_from_slice(&batch);
        let bytes = header.len() + self.lines.len();
        let written = segment.append(&[&header, &self.lines], last_resort);
        self.lines.truncate(events);
        #[cfg(test)]
        let written = written.and_then(|()| injected(&self.shared, &mut segment, bytes));
        if let Err(failed) = written {
            if !failed.void {
                self.segment = Some(segment);
                return Err(failed);
            }
            // Best effort: a later reader ignores what stands behind the good bytes anyway.
            let _ = segment.cut();
            if segment.bytes == 0 {
                segment.remove();
            } else {
                self.failed_sync = true;
            }
            return Err(failed);
        }
        self.failed_sync = false;
        let leaf = sha256(&[&batch]);
        self.end.tree.push(&leaf);
        self.end.prev = leaf;
        self.end.seq = self.format.seq - 1;
        self.end.rings = rings;
        (self.end.segment, self.end.bytes) = (segment.number, segment.bytes);
        self.segment = Some(segment);
        self.note_batch(bytes as u64);
        Ok(())
    }

    fn header(&mut self, number: u64) -> Vec<u8> {
        let time = *self.format.time(now_us());
        let key_id = self.key.public.id_text();
        let header = Header {
            number,
            key_id: &key_id,
            prev: &self.end.prev,
            prev_bytes: self.end.bytes,
            failed_sync: self.failed_sync,
            time: &time,
        };
        header.line()
    }

    fn batch_line(&mut self, header: &[u8]) -> (Vec<u8>, Vec<(u64, u64)>) {
        let hash: Hash = sha256(&[header, &self.lines]);
        let (first, last) = (self.first_seq, self.format.seq - 1);
        let mut line = BATCH_START.to_vec();
        line.extend_from_slice(b"\"code\":\"TAU00I\",\"first\":");
        json::number(&mut line, first);
        line.extend_from_slice(b",\"last\":");
        json::number(&mut line, last);
        line.extend_from_slice(b",\"count\":");
        json::number(&mut line, last + 1 - first);
        line.extend_from_slice(b",\"sha256\":\"");
        json::base64(&mut line, &hash);
        line.extend_from_slice(b"\",\"prev\":\"");
        json::base64(&mut line, &self.end.prev);
        line.extend_from_slice(b"\",\"time\":\"");
        let time = *self.format.time(now_us());
        line.extend_from_slice(&time);
        line.extend_from_slice(b"\",\"rings\":[");
        let rings: Vec<(u64, u64)> =
            self.old.iter().map(|o| &o.ring).chain(&self.rings).map(|r| (r.map().id(), r.ring.read())).collect();
        for (i, (id, at)) in rings.iter().enumerate() {
            line.extend_from_slice(if i == 0 { b"[" } else { b",[" });
            json::number(&mut line, *id);
            line.push(b',');
            json::number(&mut line, *at);
            line.push(b']');
        }
        line.extend_from_slice(b"]}\n");
        (line, rings)
    }

    fn note_batch(&mut self, bytes: u64) {
        let mut stats = self.shared.stats();
        stats.events += self.format.seq - self.first_seq;
        stats.records += std::mem::take(&mut self.records);
        stats.batches += 1;
        stats.bytes += bytes;
        stats.last_seq = self.end.seq;
        stats.last_seal = STANDARD.encode(self.end.prev);
    }

    fn committed(&mut self, began: Instant) {
        let had_lines = !self.lines.is_empty();
        for ring in self.old.iter_mut().map(|o| &mut o.ring).chain(&mut self.rings) {
            ring.ring.release(ring.ring.read());
            if had_lines {
                ring.map().set_lost_reported(ring.lost_noted);
            }
            ring.facts.compact(&ring.sessions);
        }
        self.lines.clear();
        self.first_seq = self.format.seq;
        self.failed_at = None;
        self.remove_old();
        if had_lines {
            let us = began.elapsed().as_micros() as u64;
            let mut stats = self.shared.stats();
            stats.sync_us_sum += us;
            stats.sync_us_buckets[SYNC_BUCKETS_US.partition_point(|bound| *bound < us)] += 1;
            drop(stats);
            if !std::mem::replace(&mut self.only_checkpoint, true) {
                self.unsigned += 1;
            }
            self.sign(false);
            if self.segment.as_ref().is_some_and(|s| s.bytes >= self.options.segment_bytes)
                && let Some(segment) = self.segment.take()
            {
                // Sealing protects against accidents; the chain protects against the rest.
                let _ = segment.seal();
            }
        }
        let healed = self.shared.set_sink(true);
        self.give_room(healed || (had_lines && self.options.mode == Mode::Durable));
        self.shared.progressed();
    }

    /// Every so often: `state` now, and the checkpoint's line in the next batch.
    fn sign(&mut self, now: bool) {
        if self.unsigned == 0 || !(now || self.signed_at.elapsed() >= self.options.checkpoint_interval) {
            return;
        }
        self.unsigned = 0;
        self.signed_at = Instant::now();
        let note = self.key.checkpoint(self.end.tree.size(), &self.end.tree.root(), "");
        let mut members = b"\"checkpoint\":".to_vec();
        json::string(&mut members, &note);
        // Without it the next one, in a short while, says the same and more.
        let _ = self.end.write(&self.options.dir, &self.key);
        self.own("audit.checkpoint", "TAU01I", &members);
    }

    fn failed(&mut self, failed: &Failed) {
        self.failed_at = Some(Instant::now());
        self.lost_to_sink = true;
        {
            let mut stats = self.shared.stats();
            stats.failures += 1;
            stats.last_failure = failed.error.to_string();
        }
        if self.shared.set_sink(false) {
            self.give_room(true);
        }
        self.shared.progressed();
    }

    /// Wakes the workers that wait for room and have it now; with `all`, every worker.
    fn give_room(&mut self, all: bool) {
        // The heads were stored before; the producers' requests are read after.
        std::sync::atomic::fence(Ordering::SeqCst);
        for ring in &self.rings {
            let map = ring.map();
            let room = map.wants_room() && map.used() <= map.capacity() / 4;
            if room {
                map.room_given();
            }
            if (room || all)
                && let Some(wake) = &ring.wake
            {
                wake();
            }
        }
    }

    fn remove_old(&mut self) {
        if self.old.is_empty() || !self.old.iter().all(|o| o.ring.drained()) {
            return;
        }
        if self.recovery.as_ref().is_some_and(|r| !r.told) {
            return;
        }
        self.recovery = None;
        for old in self.old.drain(..) {
            // What cannot be removed is found drained by the next start.
            let _ = std::fs::remove_file(&old.path);
            let _ = std::fs::remove_file(old.path.with_extension("facts"));
        }
    }

    fn finished(&self) -> bool {
        self.lines.is_empty() && self.rings.iter().all(Ring::drained) && self.old.iter().all(|o| o.ring.drained())
    }

    fn finish(&mut self) {
        if self.failed_at.is_some() {
            self.commit(true);
        }
        if self.failed_at.is_some() {
            return;
        }
        self.sign(true);
        if !self.lines.is_empty() {
            self.commit(true);
        }
        if self.failed_at.is_none() {
            self.end.clean = true;
            let _ = self.end.write(&self.options.dir, &self.key);
        }
        if let Some(segment) = self.segment.take() {
            let _ = segment.seal();
        }
    }

    fn look_at_disk(&mut self) {
        if self.disk_at.elapsed() >= Duration::from_secs(1) {
            self.disk_at = Instant::now();
            self.disk_free();
        }
    }

    fn disk_free(&self) {
        if let Ok(disk) = rustix::fs::statvfs(&self.options.dir) {
            self.shared.stats().disk_free = disk.f_bavail.saturating_mul(disk.f_frsize);
        }
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// A sync that fails after the bytes were written, as often as a test asked for.
#[cfg(test)]
fn injected(shared: &Shared, segment: &mut Segment, bytes: usize) -> Result<(), Failed> {
    let left = shared.failing_syncs.load(Ordering::Relaxed);
    if left == 0 {
        return Ok(());
    }
    shared.failing_syncs.store(left - 1, Ordering::Relaxed);
    segment.bytes -= bytes as u64;
    Err(Failed { error: std::io::Error::other("injected"), void: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::event::{Event, NoParameters, Stamp, Statement};
    use crate::verify::{Verdict, verify};

    #[test]
    fn after_a_failed_sync_the_batch_is_written_again_in_a_new_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (mut producers, _control, handle) = crate::start(Options::new(dir.path()), 1, Vec::new()).unwrap();
        let mut put = |n: u64| {
            let text = format!("select {n}");
            let statement = Statement { text: text.as_bytes(), full_bytes: text.len() as u64, ..Default::default() };
            let event = Event::Query { statement, parameters: &NoParameters, error: "" };
            producers[0].record(Stamp { session: None, ei: n as u32, time_us: 1 }, &event)
        };
        put(0).unwrap();
        assert!(handle.flush());
        handle.shared.failing_syncs.store(3, Ordering::Relaxed);
        put(1).unwrap();
        let limit = Instant::now() + Duration::from_secs(20);
        while handle.stats().failures < 3 || !handle.flush() {
            assert!(Instant::now() < limit, "does not heal");
            std::thread::yield_now();
        }
        put(2).unwrap();
        handle.shutdown();
        let segments = crate::segment::list(dir.path()).unwrap();
        assert_eq!(segments.len(), 2);
        let text: String = segments.iter().map(|(_, p)| std::fs::read_to_string(p).unwrap()).collect();
        for n in 0..3 {
            assert_eq!(text.matches(&format!("\"select {n}\"")).count(), 1, "{n}");
        }
        assert!(text.contains("\"failed_sync\":true"));
        let report = verify(dir.path(), None, None, &mut |_| {}).unwrap();
        assert_eq!((report.verdict, report.events), (Verdict::Ok, 4));
    }
    #[test]
    fn after_a_power_cut_what_can_be_read_is_kept_and_the_gap_is_marked() {
        let dir = tempfile::tempdir().unwrap();
        let rings = dir.path().join("rings");
        std::fs::create_dir(&rings).unwrap();
        let map = Map::create(&rings.join("a.ring"), 5, 64 << 10, 1, 42).unwrap();
        let mut ring = crate::ring::producer(&map);
        let statement = Statement { text: b"select 'kept'", full_bytes: 13, ..Default::default() };
        let event = Event::Query { statement, parameters: &NoParameters, error: "" };
        let stamp = Stamp { session: None, ei: 0, time_us: 1 };
        ring.write(encode::size(&event), u64::MAX, |at| encode::write(stamp, &event, at)).unwrap();
        let end = ring.write(64, u64::MAX, |at| at.fill(0)).unwrap();
        drop((ring, map));
        // The page with the second record never reached the disk.
        let file = std::fs::OpenOptions::new().write(true).open(rings.join("a.ring")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 64], 4096 + end - 64).unwrap();
        let (_p, _c, handle) = crate::start(Options::new(dir.path()), 1, Vec::new()).unwrap();
        handle.shutdown();
        let text = std::fs::read_to_string(crate::segment::path(dir.path(), 1)).unwrap();
        for part in [
            "select 'kept'",
            "\"reason\":\"power_loss\",\"lost\":null",
            "\"reason\":\"ring_damaged\",\"lost\":null,\"worker\":1",
            "\"event\":\"audit.recover\"",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
        }
        assert!(!rings.join("a.ring").exists());
        assert_eq!(verify(dir.path(), None, None, &mut |_| {}).unwrap().verdict, Verdict::Ok);
    }
}
