//! The recording end: one [`Producer`] per worker, one [`SharedProducer`] for the control plane.
use std::cell::Cell;
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
        self.place(encode::size(event), limit, |at| encode::write(stamp, event, at))
    }

    #[inline]
    fn place(&mut self, bytes: usize, limit: u64, fill: impl FnOnce(&mut [u8])) -> Result<Position, Refused> {
        let admits = limit != u64::MAX;
        let capacity = self.ring.map().capacity();
        if bytes as u64 > capacity / 4 {
            return self.refuse(Refused::TooLarge, admits);
        }
        match self.ring.write(bytes, limit, fill) {
            Some(position) => {
                if self.ring.used_at_most() > capacity / 2 || self.shared.is_idle() {
                    self.shared.doorbell();
                }
                Ok(Position(position))
            }
            None => {
                self.ring.map().ask_room();
                self.shared.doorbell();
                self.refuse(Refused::Full, admits)
            }
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
