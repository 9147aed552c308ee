//! Results that lie in the same part of a ring as their statements: found in one walk ahead of the formatting.
//!
//! A session's results come in the order of its statements. So each session has a queue, a statement looks at its front
//! only, and what is out of order is simply not joined: it gets a line of its own.
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::encode::{self, NO_SESSION, kind};
use crate::facts::SlotHasher;
use crate::outcome::Outcome;
use crate::ring::{Damaged, RingConsumer};

/// End of a queue: no place in a list.
const NONE: usize = usize::MAX;

/// One result record ahead, for the statements `first..end`.
struct Ahead {
    position: u64,
    first: u64,
    end: u64,
    /// The part of `first..end` that was joined.
    joined: std::ops::Range<u64>,
    /// The session's next one in `Results::ahead`.
    next: usize,
}

/// The results of one part of one ring.
#[derive(Default)]
pub(crate) struct Results {
    ahead: Vec<Ahead>,
    /// First and last of each session in `ahead`.
    queues: HashMap<u32, (usize, usize), BuildHasherDefault<SlotHasher>>,
    /// Those before were passed: they have their lines.
    passed: usize,
}

impl Results {
    /// Walks over whole records of `bytes` at most, but at least one, and answers the position behind them.
    pub(crate) fn scan(&mut self, ring: &RingConsumer, tail: u64, bytes: u64) -> Result<u64, Damaged> {
        self.ahead.clear();
        self.queues.clear();
        self.passed = 0;
        let from = ring.read();
        let mut at = from;
        loop {
            let (record, after) = match ring.at(at, tail) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(at),
                Err(Damaged) if at > from => return Ok(at),
                Err(Damaged) => return Err(Damaged),
            };
            if after - from > bytes && at > from {
                return Ok(at);
            }
            if matches!(encode::kind_at(record), kind::RESULT | kind::RESULTS) {
                self.note(record, at);
            }
            at = after;
        }
    }

    fn note(&mut self, record: &[u8], position: u64) {
        let Some((head, body)) = encode::read(record) else { return };
        let Some(outcome) = Outcome::read(&head, body).filter(|_| head.session != NO_SESSION) else { return };
        let first = u64::from(outcome.first);
        let end = first + u64::from(outcome.count);
        let index = self.ahead.len();
        self.ahead.push(Ahead { position, first, end, joined: first..first, next: NONE });
        let queue = self.queues.entry(head.session).or_insert((index, index));
        if let Some(last) = self.ahead.get_mut(queue.1).filter(|_| queue.1 != index) {
            last.next = index;
            queue.1 = index;
        }
    }

    /// The position of the result of a session's statement, when it lies ahead. It counts as joined from now on.
    pub(crate) fn take(&mut self, session: u32, ei: u32) -> Option<u64> {
        let ei = u64::from(ei);
        let queue = self.queues.get_mut(&session)?;
        loop {
            let ahead = self.ahead.get_mut(queue.0)?;
            if queue.0 < self.passed || ahead.end <= ei {
                queue.0 = ahead.next;
                continue;
            }
            if ei < ahead.first || (!ahead.joined.is_empty() && ahead.joined.end != ei) {
                return None;
            }
            if ahead.joined.is_empty() {
                ahead.joined = ei..ei;
            }
            ahead.joined.end += 1;
            return Some(ahead.position);
        }
    }

    /// Undoes the last `take` for a session: its statement got no line.
    pub(crate) fn give_back(&mut self, session: u32) {
        let front = self.queues.get(&session).map(|queue| queue.0);
        if let Some(ahead) = front.and_then(|front| self.ahead.get_mut(front)) {
            ahead.joined.end = ahead.joined.end.saturating_sub(1).max(ahead.joined.start);
        }
    }

    /// Steps past the result at `position`: the statements that it was joined to, none when it was to none.
    pub(crate) fn pass(&mut self, position: u64) -> std::ops::Range<u64> {
        match self.ahead.get(self.passed) {
            Some(ahead) if ahead.position == position => {
                self.passed += 1;
                ahead.joined.clone()
            }
            _ => 0..0,
        }
    }
}
