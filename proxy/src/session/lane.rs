//! One direction of a session: the bytes that wait for a decision, and those that were decided and wait for a record.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use aws_lc_rs::digest;
use ringgate_audit::Position;
use ringgate_protocol::Ticket;

use crate::net::buffer::Buf;
use crate::worker::Core;

/// Hashes of long statements kept until their outcome. Those of statements whose outcome came first go unused.
const HASHES_MAX: usize = 64;

/// One direction. INVARIANT: of `data`, everything before its filled part has been passed on or dropped.
#[derive(Default)]
pub(super) struct Lane {
    /// Received and not decided.
    pub(super) data: Option<Buf>,
    /// Bytes decided to be passed on that have not arrived yet.
    pub(super) forward: u64,
    /// Bytes decided to be dropped that have not arrived yet.
    pub(super) discard: u64,
    /// The machine wants this many bytes before it decides.
    pub(super) need: usize,
    /// The machine waits for the other side.
    pub(super) held: bool,
    /// The audit has no room, or a record is not on disk yet.
    pub(super) waits: Wait,
    /// Bytes to be passed on once the records of their statements are on disk.
    pub(super) parked: Option<Buf>,
    /// The statements in `parked`.
    pub(super) parked_tickets: Vec<Ticket>,
    /// The hash of a statement that is passing.
    hashing: Option<Box<Hashing>>,
    /// Answers of the machine to the side this lane leads to, to go between frames.
    pub(super) answers: Vec<u8>,
}

/// What a lane waits for before it moves.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    No,
    /// Room in the ring: the machine's question stands.
    Room,
    /// Room in the ring for the start of the session.
    Start,
    /// This record, the newest of those in `parked`.
    Disk(Position),
}

struct Hashing {
    context: digest::Context,
    ei: u32,
    skip: u64,
    left: u64,
}

impl Lane {
    /// A lane that begins with what the cold phases left.
    pub(super) fn new(data: Option<Buf>) -> Lane {
        Lane { data, ..Lane::default() }
    }

    /// Nothing of it is ruled on now.
    pub(super) fn is_paused(&self) -> bool {
        self.held || self.waits != Wait::No
    }

    /// There is something to be ruled on.
    pub(super) fn has_news(&self) -> bool {
        self.data.as_ref().is_some_and(|d| d.len() >= self.need.max(1))
    }

    /// Answers may go: no frame is half sent in this direction.
    pub(super) fn owes_answers(&self) -> bool {
        !self.answers.is_empty() && self.forward == 0 && self.parked.is_none()
    }

    /// Nothing is left that could be decided without more bytes.
    pub(super) fn is_drained(&self) -> bool {
        self.parked.is_none() && self.data.as_ref().is_none_or(|d| d.len() < self.need)
    }

    /// More bytes are of use.
    pub(super) fn wants_more(&self) -> bool {
        !self.is_paused() && self.data.as_ref().is_none_or(|d| d.len() < self.need)
    }

    /// Nothing is on its way.
    pub(super) fn is_still(&self) -> bool {
        self.data.is_none() && self.answers.is_empty() && self.parked.is_none() && self.waits == Wait::No
    }

    /// Hashes the text of statement `ei`, `full_bytes` long, as it passes; `from` is where it begins in its frame.
    pub(super) fn hash(&mut self, ei: u32, from: usize, full_bytes: u64) {
        let context = digest::Context::new(&digest::SHA256);
        self.hashing = Some(Box::new(Hashing { context, ei, skip: from as u64, left: full_bytes }));
    }

    /// Feeds bytes that pass to the hash of their statement; its end goes into `hashes`.
    pub(super) fn feed_hash(&mut self, bytes: &[u8], hashes: &mut Hashes) {
        if self.hashing.as_mut().is_some_and(|hashing| hashing.feed(bytes))
            && let Some(hashing) = self.hashing.take()
        {
            hashes.keep(hashing.ei, hashing.finish());
        }
    }
}

impl Hashing {
    /// Takes bytes of the frame; `true` when the text is complete.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        let skip = usize::try_from(self.skip).unwrap_or(bytes.len()).min(bytes.len());
        self.skip -= skip as u64;
        let text = &bytes[skip..];
        let take = usize::try_from(self.left).unwrap_or(text.len()).min(text.len());
        self.context.update(&text[..take]);
        self.left -= take as u64;
        self.left == 0
    }

    fn finish(self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.context.finish().as_ref());
        hash
    }
}

/// Hashes of long statements that have passed, by index of their record.
#[derive(Default)]
pub(super) struct Hashes(VecDeque<(u32, [u8; 32])>);

impl Hashes {
    fn keep(&mut self, ei: u32, hash: [u8; 32]) {
        if self.0.len() >= HASHES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((ei, hash));
    }

    /// The hash of statement `ei`, if there is one.
    pub(super) fn take(&mut self, ei: u32) -> Option<[u8; 32]> {
        let at = self.0.iter().position(|(of, _)| *of == ei)?;
        self.0.remove(at).map(|(_, hash)| hash)
    }
}

/// Adds bytes that no longer lie in one piece with what goes out: `run` is the piece decided so far.
pub(super) fn spill(out: &mut Option<Buf>, core: &Core, run: &[u8], bytes: &[u8]) {
    append(out, core, run);
    append(out, core, bytes);
}

/// Adds bytes to what goes out, by a copy.
pub(super) fn append(out: &mut Option<Buf>, core: &Core, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    core.counters.copied_bytes.fetch_add(bytes.len() as u64, Relaxed);
    let buf = out.get_or_insert_with(|| core.pool.at_least(bytes.len()));
    if buf.room() < bytes.len() {
        let mut larger = core.pool.at_least((buf.len() + bytes.len()).next_power_of_two());
        larger.append(buf.filled());
        *buf = larger;
    }
    buf.append(bytes);
}

/// The undecided rest of a buffer that is being sent, in a buffer of its own.
pub(super) fn tail(core: &Core, rest: &[u8], need: usize) -> Buf {
    core.counters.copied_bytes.fetch_add(rest.len() as u64, Relaxed);
    let mut buf = core.pool.at_least(need.max(core.plane.settings.buffer_large_bytes));
    buf.append(rest);
    buf
}
