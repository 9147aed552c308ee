//! A single-producer, single-consumer byte ring in a mapped file.
//!
//! ```text
//! 0        4096                                            4096 + capacity
//! | header | record | record | wrap |      free      | record |
//!                                   ^ tail           ^ head        positions grow for ever; index = position mod capacity
//! ```
//! A record is its length (u32, head included), kind (u8), flags (u8), tag (u16, from its position), then its body,
//! padded to 8 bytes. `tail` is stored with release after the body, so a process killed at any instruction leaves whole
//! records in the page cache. `head` moves only when what lies before it is on disk.
//!
//! INVARIANT: head <= tail <= head + capacity; both are multiples of 8.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

const HEADER_BYTES: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"RGRING01");
const WRAP: u32 = u32::MAX;
/// Length of the part of a record that the ring itself reads.
pub(crate) const RECORD_HEAD_BYTES: usize = 8;

const AT_MAGIC: usize = 0;
const AT_ID: usize = 8;
const AT_CAPACITY: usize = 16;
const AT_WORKER: usize = 24;
const AT_BOOT: usize = 32;
const AT_TAIL: usize = 128;
const AT_HEAD: usize = 256;
const AT_LOST: usize = 384;
const AT_LOST_REPORTED: usize = 448;
const AT_WAITING: usize = 512;

/// The mapped file. Shared by the two ends and by whoever reads its depth.
pub(crate) struct Map {
    raw: MmapRaw,
    capacity: u64,
}

impl Map {
    /// Makes the file with all its blocks allocated, so that no later store can meet a full disk.
    pub(crate) fn create(path: &Path, id: u64, capacity: usize, worker: u32, boot: u128) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let bytes = HEADER_BYTES + capacity;
        allocate(&file, bytes as u64)?;
        let raw = MmapOptions::new().len(bytes).populate().map_raw(&file)?;
        let map = Self { raw, capacity: capacity as u64 };
        map.word(AT_ID).store(id, Ordering::Relaxed);
        map.word(AT_CAPACITY).store(capacity as u64, Ordering::Relaxed);
        map.word(AT_WORKER).store(u64::from(worker), Ordering::Relaxed);
        map.word(AT_BOOT).store(boot as u64, Ordering::Relaxed);
        map.word(AT_BOOT + 8).store((boot >> 64) as u64, Ordering::Relaxed);
        map.word(AT_MAGIC).store(MAGIC, Ordering::Release);
        Ok(Arc::new(map))
    }

    /// Maps the ring of a former process. `None` when the file is no ring or was never finished.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Arc<Self>>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = file.metadata()?.len();
        if bytes <= HEADER_BYTES as u64 || bytes > (2 << 30) {
            return Ok(None);
        }
        let raw = MmapOptions::new().len(bytes as usize).map_raw(&file)?;
        let map = Self { raw, capacity: bytes - HEADER_BYTES as u64 };
        let whole = map.word(AT_MAGIC).load(Ordering::Acquire) == MAGIC
            && map.word(AT_CAPACITY).load(Ordering::Relaxed) == map.capacity
            && map.capacity.is_power_of_two();
        Ok(whole.then(|| Arc::new(map)))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at + 8 <= HEADER_BYTES && at.is_multiple_of(8));
        // SAFETY: `at` is one of the AT_ constants, a multiple of 8 inside the header page; the mapping is page-aligned,
        // at least a header long and lives as long as `self`; header words are only ever reached through this function,
        // hence only as atomics.
        unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(at).cast::<u64>()) }
    }

    fn waiting(&self) -> &AtomicU32 {
        // SAFETY: as in `word`; the four bytes at AT_WAITING are reached through this function alone.
        unsafe { AtomicU32::from_ptr(self.raw.as_mut_ptr().add(AT_WAITING).cast::<u32>()) }
    }

    fn data(&self, index: usize) -> *mut u8 {
        // SAFETY: callers pass an index inside the capacity, so the pointer stays inside the mapping.
        unsafe { self.raw.as_mut_ptr().add(HEADER_BYTES + index) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.word(AT_ID).load(Ordering::Relaxed)
    }
    pub(crate) fn worker(&self) -> u32 {
        self.word(AT_WORKER).load(Ordering::Relaxed) as u32
    }
    pub(crate) fn boot(&self) -> u128 {
        let low = self.word(AT_BOOT).load(Ordering::Relaxed);
        let high = self.word(AT_BOOT + 8).load(Ordering::Relaxed);
        u128::from(low) | (u128::from(high) << 64)
    }
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }
    /// Where the next record goes.
    pub(crate) fn tail(&self) -> u64 {
        self.word(AT_TAIL).load(Ordering::Acquire)
    }
    /// Everything before this is on disk.
    pub(crate) fn head(&self) -> u64 {
        self.word(AT_HEAD).load(Ordering::Acquire)
    }
    pub(crate) fn used(&self) -> u64 {
        let head = self.head();
        self.tail().saturating_sub(head)
    }
    /// Records the producer could not place, since the ring was made.
    pub(crate) fn lost(&self) -> u64 {
        self.word(AT_LOST).load(Ordering::Relaxed)
    }
    pub(crate) fn add_lost(&self) {
        self.word(AT_LOST).fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn lost_reported(&self) -> u64 {
        self.word(AT_LOST_REPORTED).load(Ordering::Relaxed)
    }
    pub(crate) fn set_lost_reported(&self, n: u64) {
        self.word(AT_LOST_REPORTED).store(n, Ordering::Relaxed);
    }
    /// The producer asks to be woken when there is room.
    pub(crate) fn ask_room(&self) {
        self.waiting().store(1, Ordering::SeqCst);
    }
    pub(crate) fn wants_room(&self) -> bool {
        self.waiting().load(Ordering::SeqCst) != 0
    }
    pub(crate) fn room_given(&self) {
        self.waiting().store(0, Ordering::SeqCst);
    }
}

/// Reserves the blocks; a file system without that ability is written with zeros.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(e) if e == rustix::io::Errno::OPNOTSUPP || e == rustix::io::Errno::NOSYS => {
            let zeros = [0u8; 1 << 16];
            let mut at = 0u64;
            while at < bytes {
                let n = (bytes - at).min(zeros.len() as u64);
                std::os::unix::fs::FileExt::write_all_at(file, &zeros[..n as usize], at)?;
                at += n;
            }
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(8)
}

fn tag(position: u64) -> u16 {
    (position >> 3) as u16 ^ 0x5a17
}

/// The writing end. One per ring: made by [`producer`] together with the map.
pub(crate) struct RingProducer {
    map: Arc<Map>,
    tail: u64,
    head_seen: u64,
}

/// The writing end of a fresh map. Takes the only reference, so that there is one producer.
pub(crate) fn producer(map: &Arc<Map>) -> RingProducer {
    RingProducer { tail: map.tail(), head_seen: map.head(), map: map.clone() }
}

impl RingProducer {
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes in use, from the head as last seen; exact enough to say that there is room.
    pub(crate) fn used_at_most(&self) -> u64 {
        self.tail - self.head_seen
    }

    /// Looks at the head again.
    pub(crate) fn look(&mut self) {
        self.head_seen = self.map.head();
    }

    /// Places one record whose size nobody has counted: `fill` is given the free bytes that lie together, up to `limit` in
    /// use and a quarter of the ring, and answers how many it filled. `None`: there are too few of them, or `fill` found so.
    #[inline]
    pub(crate) fn append(&mut self, limit: u64, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<u64> {
        let capacity = self.map.capacity;
        let index = self.tail & (capacity - 1);
        let used = self.tail - self.head_seen;
        let free = limit.min(capacity).saturating_sub(used);
        let room = free.min(capacity - index).min(capacity / 4) & !7;
        // SAFETY: `index + room <= capacity`; the range [tail, tail + room) is past the published tail and at most
        // `capacity` past a head that only grows, so the consumer looks at none of it before the release store below;
        // `&mut self` is the only producer of this map.
        let free = unsafe { std::slice::from_raw_parts_mut(self.map.data(index as usize), room as usize) };
        let bytes = fill(free)?;
        let slot = free.get_mut(..bytes).filter(|slot| slot.len() >= RECORD_HEAD_BYTES)?;
        slot[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        slot[6..8].copy_from_slice(&tag(self.tail).to_le_bytes());
        self.tail += padded(bytes);
        self.map.word(AT_TAIL).store(self.tail, Ordering::Release);
        Some(self.tail)
    }

    /// Places one record of `bytes` (its head included), filled by `fill`, unless the ring would then hold more than
    /// `limit` bytes. Returns the position after it.
    #[inline]
    pub(crate) fn write(&mut self, bytes: usize, limit: u64, fill: impl FnOnce(&mut [u8])) -> Option<u64> {
        let capacity = self.map.capacity;
        let need = padded(bytes);
        let index = self.tail & (capacity - 1);
        let skip = if index + need > capacity { capacity - index } else { 0 };
        let limit = limit.min(capacity);
        if self.tail + skip + need - self.head_seen > limit {
            self.head_seen = self.map.head();
            if self.tail + skip + need - self.head_seen > limit {
                return None;
            }
        }
        let mut at = index as usize;
        if skip > 0 {
            // SAFETY: `index` is a multiple of 8 below the capacity, so 4 bytes fit; the range [tail, tail + skip) is
            // free by the check above and the consumer does not read past `tail`, which is stored below.
            unsafe { self.map.data(at).cast::<u32>().write(WRAP) };
            at = 0;
        }
        // SAFETY: `at + need <= capacity`; the range [tail, tail + skip + need) is past the published tail and at most
        // `capacity` past the head, so the consumer looks at none of it before the release store below; `&mut self`
        // is the only producer of this map.
        let slot = unsafe { std::slice::from_raw_parts_mut(self.map.data(at), bytes) };
        fill(slot);
        let position = self.tail + skip;
        slot[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        slot[6..8].copy_from_slice(&tag(position).to_le_bytes());
        self.tail = position + need;
        self.map.word(AT_TAIL).store(self.tail, Ordering::Release);
        Some(self.tail)
    }
}

/// The reading end.
pub(crate) struct RingConsumer {
    map: Arc<Map>,
    read: u64,
}

/// A record does not look like one. Only seen after a power cut, or when the file was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl RingConsumer {
    /// Reads from `from`, or from the head when that is further.
    pub(crate) fn new(map: &Arc<Map>, from: u64) -> Self {
        Self { read: from.max(map.head()), map: map.clone() }
    }
    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.map
    }
    /// Position before the next record to read.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// The next record and the position after it, or `None` when there is none yet. Does not advance.
    #[cfg(test)]
    pub(crate) fn peek(&self, tail: u64) -> Result<Option<(&[u8], u64)>, Damaged> {
        self.at(self.read, tail)
    }

    /// The record at `position` and the position after it, or `None` when that is `tail`. `position` must be one that
    /// this answered, or [`RingConsumer::read`].
    pub(crate) fn at(&self, mut position: u64, tail: u64) -> Result<Option<(&[u8], u64)>, Damaged> {
        let capacity = self.map.capacity;
        if position >= tail {
            return if position == tail { Ok(None) } else { Err(Damaged) };
        }
        // No producer gets that far: it is what a power cut left. Below, sums cannot overflow.
        if tail > 1 << 60 {
            return Err(Damaged);
        }
        if position < self.read
            || tail - self.map.head() > capacity
            || !position.is_multiple_of(8)
            || !tail.is_multiple_of(8)
        {
            return Err(Damaged);
        }
        let mut index = position & (capacity - 1);
        // SAFETY: `index` is a multiple of 8 below the capacity; [read, tail) was published by the producer's release
        // store, which `tail` was loaded from with acquire.
        let mut length = unsafe { self.map.data(index as usize).cast::<u32>().read() };
        if length == WRAP {
            position += capacity - index;
            index = 0;
            if position >= tail {
                return Err(Damaged);
            }
            // SAFETY: as above, at index 0.
            length = unsafe { self.map.data(0).cast::<u32>().read() };
        }
        let bytes = length as usize;
        if bytes < RECORD_HEAD_BYTES || position + padded(bytes) > tail || index + padded(bytes) > capacity {
            return Err(Damaged);
        }
        // SAFETY: the range lies inside the mapping and inside [head, tail). The producer writes there again only after
        // `release` moved the head past it, which needs `&mut self` while this slice borrows `self`.
        let record = unsafe { std::slice::from_raw_parts(self.map.data(index as usize), bytes) };
        if u16::from_le_bytes([record[6], record[7]]) != tag(position) {
            return Err(Damaged);
        }
        Ok(Some((record, position + padded(bytes))))
    }

    /// Steps past records that [`RingConsumer::at`] answered.
    pub(crate) fn advance(&mut self, to: u64) {
        self.read = to;
    }

    /// Gives the space before `position` back: it is on disk. What stood there is wiped first: records hold
    /// statements as they were sent, before passwords in them are masked.
    pub(crate) fn release(&mut self, position: u64) {
        let capacity = self.map.capacity;
        let mut at = self.map.head();
        while at < position {
            let index = at & (capacity - 1);
            let bytes = (position - at).min(capacity - index);
            // SAFETY: the range lies inside the capacity and inside [head, position), which the producer writes to
            // only after the store below; slices of it borrow `self`, so none is alive here.
            unsafe { self.map.data(index as usize).write_bytes(0, bytes as usize) };
            at += bytes;
        }
        self.map.word(AT_HEAD).store(position, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn ring(capacity: usize) -> (tempfile::TempDir, RingProducer, RingConsumer) {
        let dir = tempfile::tempdir().unwrap();
        let map = Map::create(&dir.path().join("r"), 7, capacity, 0, 1).unwrap();
        let consumer = RingConsumer::new(&map, 0);
        (dir, producer(&map), consumer)
    }

    fn put(p: &mut RingProducer, body: &[u8], limit: u64) -> Option<u64> {
        p.write(8 + body.len(), limit, |slot| {
            slot[4..6].fill(0);
            slot[8..].copy_from_slice(body);
        })
    }

    #[test]
    fn returns_records_in_order_across_many_wraps_with_a_concurrent_consumer() {
        let (_dir, mut p, mut c) = ring(1 << 12);
        let total = 60_000u32;
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let reader = std::thread::spawn(move || {
            let mut next = 0u32;
            while next < total {
                let tail = c.map().tail();
                let mut to = None;
                while let Some((record, after)) = c.peek(tail).unwrap() {
                    let body = &record[8..];
                    assert_eq!(u32::from_le_bytes(body[..4].try_into().unwrap()), next);
                    assert_eq!(body.len(), 4 + (next as usize * 7) % 301);
                    assert!(body[4..].iter().all(|b| *b == next as u8));
                    next += 1;
                    c.advance(after);
                    to = Some(after);
                }
                if let Some(to) = to {
                    c.release(to);
                } else {
                    std::thread::yield_now();
                }
            }
            seen.store(true, Ordering::Release);
        });
        for n in 0..total {
            let mut body = n.to_le_bytes().to_vec();
            body.resize(4 + (n as usize * 7) % 301, n as u8);
            while put(&mut p, &body, u64::MAX).is_none() {
                std::thread::yield_now();
            }
        }
        reader.join().unwrap();
        assert!(done.load(Ordering::Acquire));
    }

    #[test]
    fn refuses_what_exceeds_the_limit_and_takes_it_again_after_release() {
        let (_dir, mut p, mut c) = ring(1 << 12);
        let mut n = 0;
        while put(&mut p, &[1; 56], 3 << 10).is_some() {
            n += 1;
        }
        assert_eq!(n, (3 << 10) / 64);
        while put(&mut p, &[2; 56], u64::MAX).is_some() {
            n += 1;
        }
        assert_eq!(n, (4 << 10) / 64);
        let (_, after) = c.peek(p.tail()).unwrap().unwrap();
        c.advance(after);
        assert!(put(&mut p, &[2; 56], u64::MAX).is_none(), "read but not released");
        c.release(after);
        assert!(put(&mut p, &[2; 56], u64::MAX).is_some());
    }

    #[test]
    fn names_a_changed_record_damaged() {
        let (_dir, mut p, c) = ring(1 << 12);
        put(&mut p, b"hello", u64::MAX).unwrap();
        p.write(16, u64::MAX, |s| s.fill(0)).unwrap();
        assert!(c.peek(p.tail()).unwrap().is_some());
        // SAFETY: offset 0 is inside the ring, nobody else touches it in this test.
        unsafe { p.map.data(0).cast::<u32>().write(4000) };
        assert_eq!(c.peek(p.tail()), Err(Damaged));
    }

    #[test]
    fn a_former_ring_is_opened_with_its_records_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let map = Map::create(&path, 9, 1 << 12, 3, 42).unwrap();
        put(&mut producer(&map), b"left behind", u64::MAX).unwrap();
        drop(map);
        let map = Map::open(&path).unwrap().unwrap();
        assert_eq!((map.id(), map.worker(), map.boot()), (9, 3, 42));
        let c = RingConsumer::new(&map, 0);
        assert_eq!(&c.peek(map.tail()).unwrap().unwrap().0[8..], b"left behind");
        std::fs::write(&path, vec![0u8; 9000]).unwrap();
        assert!(Map::open(&path).unwrap().is_none());
    }
}
