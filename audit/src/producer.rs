//! The recording end: one [`Producer`] per worker, one [`SharedProducer`] for the control plane.
use std::cell::Cell;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::encode;
use crate::event::{Event, SessionFacts, SessionSlot, Stamp};
use crate::options::{Mode, Refused};
use crate::ring::{Map, RingProducer};
use crate::service::Shared;

/// Place of a record in its ring. Grows with every record; compare with [`Producer::is_durable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

/// The recording end of one worker's ring. Not `Sync`: one worker owns it.
pub struct Producer {
    ring: RingProducer,
    shared: Arc<Shared>,
    next_session: u32,
    /// Ring bytes that admitting events may fill; the rest is kept for what ends and explains.
    admit_limit: u64,
    pressed: Cell<bool>,
    /// Tail when the doorbell was last rung for room.
    rung_at: u64,
    /// Head last seen by `is_durable` and `pressure`.
    head: Cell<u64>,
}

impl Producer {
    pub(crate) fn new(ring: RingProducer, shared: Arc<Shared>) -> Self {
        let capacity = ring.map().capacity();
        Self {
            head: Cell::new(ring.map().head()),
            ring,
            shared,
            next_session: 0,
            admit_limit: capacity / 4 * 3,
            pressed: Cell::new(false),
            rung_at: 0,
        }
    }

    /// Records what is known of a session. Every later line of the slot repeats it.
    ///
    /// Errors: as [`Producer::record`] for a statement.
    pub fn open_session(&mut self, facts: &SessionFacts<'_>) -> Result<SessionSlot, Refused> {
        let slot = self.next_session;
        let bytes = encode::open_size(facts);
        // Facts may use the reserve: without them what is refused next could not say whom it refused.
        self.place(bytes, u64::MAX, |at| encode::write_open(slot, facts, at))?;
        self.next_session = if slot + 1 == encode::NO_SESSION { 0 } else { slot + 1 };
        Ok(SessionSlot(slot))
    }

    /// Forgets a session. Its slot is not used again before 2^32 - 1 others were.
    pub fn close_session(&mut self, slot: SessionSlot) {
        // A full ring leaves the facts in the writer's memory until the next start; nothing recorded depends on it.
        let _ = self.ring.write(encode::HEAD_BYTES, u64::MAX, |at| encode::write_close(slot.0, at));
    }

    /// Copies one event into the ring. When this returns, a kill of the process does not lose it.
    ///
    /// Events that let something reach a database (a start, statements) leave a quarter of the ring free for the others.
    /// Errors: [`Refused::SinkBroken`] for those while the log cannot be written, [`Refused::Full`],
    /// [`Refused::TooLarge`] above a quarter of the ring. In best-effort mode all three are counted and `Ok` is returned.
    #[inline]
    pub fn record(&mut self, stamp: Stamp, event: &Event<'_>) -> Result<Position, Refused> {
        let mut limit = u64::MAX;
        if encode::admits(event) {
            limit = self.admit_limit;
            if !self.shared.sink_ok() {
                return self.refuse(Refused::SinkBroken, true);
            }
        }
        // In one pass where the free part of the ring lies together, as it does but once a lap.
        if let Some(position) = self.ring.append(limit, |room| encode::fit(stamp, event, room)) {
            return Ok(self.placed(position));
        }
        self.place(encode::size(event), limit, |at| encode::write(stamp, event, at))
    }

    #[inline]
    fn placed(&mut self, position: u64) -> Position {
        if self.shared.mode == Mode::Durable {
            // Either the writer sees this record before it sleeps, or its sleep is seen here.
            fence(Ordering::SeqCst);
        }
        let capacity = self.ring.map().capacity();
        if self.ring.used_at_most() > capacity / 4 {
            self.fills_up(capacity);
        }
        if self.shared.is_idle() {
            self.shared.doorbell();
        }
        Position(position)
    }

    #[cold]
    fn place(&mut self, bytes: usize, limit: u64, fill: impl FnOnce(&mut [u8])) -> Result<Position, Refused> {
        let admits = limit != u64::MAX;
        if bytes as u64 > self.ring.map().capacity() / 4 {
            return self.refuse(Refused::TooLarge, admits);
        }
        match self.ring.write(bytes, limit, fill) {
            Some(position) => Ok(self.placed(position)),
            None => {
                self.ring.map().ask_room();
                self.shared.doorbell();
                self.refuse(Refused::Full, admits)
            }
        }
    }

    /// Rings for the writer above a quarter, well before pressure, and again only after a sixteenth of the ring: never per
    /// record.
    #[cold]
    fn fills_up(&mut self, capacity: u64) {
        self.ring.look();
        if self.ring.used_at_most() > capacity / 4 && self.ring.tail() - self.rung_at >= capacity / 16 {
            self.rung_at = self.ring.tail();
            self.shared.doorbell();
        }
    }

    #[cold]
    fn refuse(&self, why: Refused, admits: bool) -> Result<Position, Refused> {
        // A refused statement is not missing: it was not forwarded. Anything else refused is, and the gap says so.
        if self.shared.mode == Mode::BestEffort {
            self.ring.map().add_lost();
            return Ok(Position(self.ring.tail()));
        }
        if !admits {
            self.ring.map().add_lost();
        }
        Err(why)
    }

    /// Whether the ring is more than half full (until it is below a quarter): stop reading clients. After `true` the
    /// worker's wake function is called once there is room. Always `false` in best-effort mode.
    pub fn pressure(&self) -> bool {
        if self.shared.mode == Mode::BestEffort {
            return false;
        }
        let capacity = self.ring.map().capacity();
        let mark = if self.pressed.get() { capacity / 4 } else { capacity / 2 };
        if self.ring.tail() - self.head.get() > mark {
            if self.pressed.get() {
                self.ring.map().ask_room();
            }
            self.head.set(self.ring.map().head());
            let high = self.ring.tail() - self.head.get() > mark;
            if high && !self.pressed.replace(true) {
                self.ring.map().ask_room();
                self.shared.doorbell();
                // The writer may have made room between the look and the asking.
                self.head.set(self.ring.map().head());
                self.pressed.set(self.ring.tail() - self.head.get() > capacity / 4);
            } else {
                self.pressed.set(high);
            }
        } else {
            self.pressed.set(false);
        }
        self.pressed.get()
    }

    /// Whether everything up to `position` is on disk.
    pub fn is_durable(&self, position: Position) -> bool {
        if self.head.get() < position.0 {
            self.head.set(self.ring.map().head());
        }
        self.head.get() >= position.0
    }

    /// Whether the log can be written, as of the last attempt.
    pub fn sink_ok(&self) -> bool {
        self.shared.sink_ok()
    }

    pub(crate) fn map(&self) -> &Map {
        self.ring.map()
    }
}

/// The recording end of the control plane, with a ring of its own behind a lock. Clones share it.
#[derive(Clone)]
pub struct SharedProducer(Arc<Mutex<Producer>>);

impl SharedProducer {
    pub(crate) fn new(producer: Producer) -> Self {
        Self(Arc::new(Mutex::new(producer)))
    }

    /// Records an event of no session, now. What does not fit is counted and reported by `audit.gap`.
    pub fn record(&self, event: &Event<'_>) {
        let time_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let mut producer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp { session: None, ei: 0, time_us };
        if producer.record(stamp, event).is_err() && encode::admits(event) {
            producer.map().add_lost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{NoParameters, Statement};
    use crate::ring::{self, RingConsumer};

    const RING: usize = 64 << 10;

    fn producer(mode: Mode) -> (tempfile::TempDir, Producer, RingConsumer, Arc<Shared>) {
        let dir = tempfile::tempdir().unwrap();
        let map = Map::create(&dir.path().join("r"), 1, RING, 0, 1).unwrap();
        let shared = Arc::new(Shared::new(mode));
        (dir, Producer::new(ring::producer(&map), shared.clone()), RingConsumer::new(&map, 0), shared)
    }

    fn query(text: &[u8]) -> Event<'_> {
        let statement = Statement { text, full_bytes: text.len() as u64, ..Statement::default() };
        Event::Query { statement, parameters: &NoParameters, error: "" }
    }

    const END: Event<'_> =
        Event::SessionEnd { reason: "client", start_us: 0, statements: 0, bytes_in: 0, bytes_out: 0 };
    const STAMP: Stamp = Stamp { session: None, ei: 0, time_us: 1 };

    fn release(c: &mut RingConsumer, to: Position) {
        c.advance(to.0);
        c.release(to.0);
    }

    #[test]
    fn presses_above_half_and_lets_go_below_a_quarter() {
        let (_dir, mut p, mut c, _) = producer(Mode::Strict);
        let mut marks = Vec::new();
        while !p.pressure() {
            marks.push(p.record(STAMP, &query(&[b'x'; 1000])).unwrap());
        }
        let used = marks.last().unwrap().0;
        assert!(used > RING as u64 / 2 && used < RING as u64 / 2 + 2048, "{used}");
        let quarter = marks.iter().position(|m| used - m.0 <= RING as u64 / 4).unwrap();
        release(&mut c, marks[quarter - 1]);
        assert!(p.pressure(), "between the marks it stays as it was");
        assert!(c.map().wants_room());
        release(&mut c, marks[quarter]);
        assert!(!p.pressure());
    }

    #[test]
    fn keeps_a_quarter_for_what_ends_and_explains() {
        let (_dir, mut p, mut c, _) = producer(Mode::Strict);
        let mut last = Position(0);
        let refused = loop {
            match p.record(STAMP, &query(&[b'x'; 500])) {
                Ok(position) => last = position,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Refused::Full);
        assert!(last.0 <= RING as u64 / 4 * 3 && last.0 > RING as u64 / 4 * 3 - 1024);
        let mut ends = 0;
        while p.record(STAMP, &END).is_ok() {
            ends += 1;
        }
        assert!(ends > 150, "{ends}");
        assert_eq!(c.map().lost(), 1, "an end that did not fit is counted, a refused statement is not");
        release(&mut c, last);
        assert!(p.record(STAMP, &query(b"select 1")).is_ok());
    }

    #[test]
    fn a_broken_sink_refuses_statements_and_takes_their_refusals() {
        let (_dir, mut p, _c, shared) = producer(Mode::Durable);
        shared.set_sink(false);
        assert!(!p.sink_ok());
        assert_eq!(p.record(STAMP, &query(b"select 1")), Err(Refused::SinkBroken));
        let failed = Event::Query { statement: Statement::default(), parameters: &NoParameters, error: "audit" };
        assert!(p.record(STAMP, &failed).is_ok());
        assert!(p.record(STAMP, &END).is_ok());
    }

    #[test]
    fn best_effort_counts_and_never_refuses() {
        let (_dir, mut p, c, shared) = producer(Mode::BestEffort);
        shared.set_sink(false);
        assert!(p.record(STAMP, &query(b"select 1")).is_ok());
        shared.set_sink(true);
        assert!(p.record(STAMP, &query(&vec![b'x'; RING / 4])).is_ok());
        assert_eq!(c.map().lost(), 2);
        while c.map().lost() == 2 {
            p.record(STAMP, &query(&[b'x'; 1000])).unwrap();
        }
        assert!(!p.pressure());
    }

    #[test]
    fn too_large_is_named_and_durable_follows_the_head() {
        let (_dir, mut p, mut c, _) = producer(Mode::Durable);
        assert_eq!(p.record(STAMP, &query(&vec![b'x'; RING / 4])), Err(Refused::TooLarge));
        let first = p.record(STAMP, &query(b"1")).unwrap();
        let second = p.record(STAMP, &query(b"2")).unwrap();
        assert!(!p.is_durable(first));
        release(&mut c, first);
        assert!(p.is_durable(first) && !p.is_durable(second));
    }
}
