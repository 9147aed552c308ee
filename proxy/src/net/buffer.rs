//! Pooled receive and send buffers: owned by whoever fills or drains them, and by nobody else.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Bytes a large buffer holds beyond its nominal size, so that one large buffer of plain text becomes one
/// large buffer of TLS records (5 bytes of head, 17 of tag and type for each 16 KiB).
pub const RECORD_SLACK: usize = 512;

/// Buffers of one worker, by size class. Memory goes back to the allocator when a class holds more than it keeps.
pub struct Pool {
    small_bytes: usize,
    large_bytes: usize,
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    live_bytes: Cell<usize>,
}

/// Buffers a class keeps for the next turn; more than a worker has in flight at once is waste.
const KEPT: usize = 256;

impl Pool {
    /// A pool whose classes hold `small_bytes` and `large_bytes` (plus [`RECORD_SLACK`]).
    pub fn new(small_bytes: usize, large_bytes: usize) -> Rc<Pool> {
        Rc::new(Pool {
            small_bytes,
            large_bytes: large_bytes + RECORD_SLACK,
            small: RefCell::default(),
            large: RefCell::default(),
            live_bytes: Cell::new(0),
        })
    }

    /// A buffer of the small class.
    pub fn small(self: &Rc<Self>) -> Buf {
        let data = self.small.borrow_mut().pop();
        self.hand_out(data.unwrap_or_else(|| vec![0; self.small_bytes].into_boxed_slice()))
    }

    /// A buffer of the large class.
    pub fn large(self: &Rc<Self>) -> Buf {
        let data = self.large.borrow_mut().pop();
        self.hand_out(data.unwrap_or_else(|| vec![0; self.large_bytes].into_boxed_slice()))
    }

    /// A buffer that holds at least `bytes`: of a class where one is large enough, else of its own size.
    pub fn at_least(self: &Rc<Self>, bytes: usize) -> Buf {
        if bytes <= self.small_bytes {
            self.small()
        } else if bytes <= self.large_bytes {
            self.large()
        } else {
            self.hand_out(vec![0; bytes].into_boxed_slice())
        }
    }

    /// A buffer of `bytes` that is of no class, for connections that may come in numbers and are not trusted yet.
    pub fn exactly(self: &Rc<Self>, bytes: usize) -> Buf {
        if bytes <= self.small_bytes { self.small() } else { self.hand_out(vec![0; bytes].into_boxed_slice()) }
    }

    /// Bytes handed out and not yet returned.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes.get()
    }

    fn hand_out(self: &Rc<Self>, data: Box<[u8]>) -> Buf {
        self.live_bytes.set(self.live_bytes.get() + data.len());
        Buf { data, start: 0, end: 0, pool: self.clone() }
    }

    fn take_back(&self, data: Box<[u8]>) {
        self.live_bytes.set(self.live_bytes.get() - data.len());
        let class = match data.len() {
            n if n == self.small_bytes => &self.small,
            n if n == self.large_bytes => &self.large,
            _ => return,
        };
        let mut class = class.borrow_mut();
        if class.len() < KEPT {
            class.push(data);
        }
    }
}

/// A buffer with a filled part. INVARIANT: `start <= end <= data.len()`; only `start..end` is ever read, so
/// what an earlier owner left behind is never sent.
pub struct Buf {
    data: Box<[u8]>,
    start: usize,
    end: usize,
    pool: Rc<Pool>,
}

impl Buf {
    /// The filled part.
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The filled part, to be decrypted in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Bytes filled.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes the whole buffer can hold.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.data.len() - self.end
    }

    /// Drops `n` filled bytes from the front. More than are filled empties the buffer.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Keeps only the first `n` filled bytes.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    /// Appends as much of `bytes` as there is room for, and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.data[self.end..self.end + n].copy_from_slice(&bytes[..n]);
        self.end += n;
        n
    }

    /// The unfilled part; follow with [`Buf::advance`].
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    /// Declares the first `n` spare bytes filled.
    pub fn advance(&mut self, n: usize) {
        self.end = (self.end + n).min(self.data.len());
    }

    /// Makes room for at least `n` more bytes, in a larger buffer when moving the filled part does not do it.
    pub fn reserve(&mut self, n: usize) {
        if self.room() < n {
            self.compact();
        }
        if self.room() < n {
            let mut larger = self.pool.at_least(self.len() + n);
            larger.append(self.filled());
            *self = larger;
        }
    }

    /// Moves the filled part to the front, so that the room behind it is one piece.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.pool.take_back(std::mem::take(&mut self.data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_shows_nothing_of_its_former_owner() {
        let pool = Pool::new(64, 128);
        let mut first = pool.small();
        first.append(b"secret");
        drop(first);
        let second = pool.small();
        assert!(second.filled().is_empty());
        assert_eq!(pool.live_bytes(), 64);
        drop(second);
        assert_eq!(pool.live_bytes(), 0);
    }

    #[test]
    fn consuming_everything_gives_the_whole_room_back() {
        let pool = Pool::new(16, 32);
        let mut buf = pool.small();
        assert_eq!(buf.append(&[7; 20]), 16);
        assert_eq!(buf.room(), 0);
        buf.consume(10);
        assert_eq!(buf.filled(), &[7; 6]);
        buf.compact();
        assert_eq!(buf.room(), 10);
        buf.consume(6);
        assert_eq!(buf.room(), 16);
    }

    #[test]
    fn a_wish_beyond_the_classes_gets_its_own_size_and_is_not_kept() {
        let pool = Pool::new(16, 32);
        let buf = pool.at_least(100_000);
        assert_eq!(buf.capacity(), 100_000);
        drop(buf);
        assert_eq!(pool.live_bytes(), 0);
        assert_eq!(pool.large.borrow().len(), 0);
    }
}
