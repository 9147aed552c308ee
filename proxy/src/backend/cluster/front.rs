//! The router's end of the socket pair: commands in, replies out in their order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringgate_protocol::redis::cluster::Walk;

use super::join::Bell;
use super::node::Lost;
use crate::net::buffer::{Buf, Pool};
use crate::net::stream::Stream;

/// Replies are sent when so many bytes stand, or when there is nothing else to do.
const FLUSH_BYTES: usize = 32 * 1024;

/// The session's side.
pub(super) struct Front {
    stream: Stream,
    inbox: RefCell<Option<Buf>>,
    outbox: RefCell<Vec<u8>>,
    flushing: Cell<bool>,
    /// A reply is half written: nobody else may write.
    taken: Cell<bool>,
    pool: Rc<Pool>,
}

impl Front {
    pub(super) fn new(stream: Stream, pool: &Rc<Pool>) -> Front {
        Front {
            stream,
            inbox: RefCell::default(),
            outbox: RefCell::default(),
            flushing: Cell::new(false),
            taken: Cell::new(false),
            pool: pool.clone(),
        }
    }

    /// The bytes received and not consumed.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(self.inbox.borrow().as_ref().map_or(&[], Buf::filled))
    }

    /// Drops the first `len` bytes received.
    pub(super) fn consume(&self, len: usize) {
        let mut inbox = self.inbox.borrow_mut();
        if let Some(buf) = inbox.as_mut() {
            buf.consume(len);
            if buf.is_empty() {
                *inbox = None;
            }
        }
    }

    /// Receives what is there, without waiting; says whether that was anything.
    pub(super) fn try_fill(&self) -> Result<bool, Lost> {
        let mut inbox = self.inbox.borrow_mut();
        let mut buf = inbox.take().unwrap_or_else(|| self.pool.large());
        if buf.room() == 0 {
            buf.compact();
        }
        if buf.room() == 0 {
            buf.reserve(buf.len());
        }
        let received = self.stream.recv_now(&mut buf);
        *inbox = Some(buf).filter(|b| !b.is_empty());
        match received {
            Ok(0) => Err(Lost),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Lost),
        }
    }

    /// Receives more, waiting for it.
    pub(super) async fn fill(&self) -> Result<(), Lost> {
        while !self.try_fill()? {
            self.stream.readable().await;
        }
        Ok(())
    }

    /// Takes the client's stream for one frame; [`Front::give_back`] ends that.
    pub(super) async fn take(&self, bell: &Bell) {
        bell.until(|| (!self.taken.get()).then_some(())).await;
        self.taken.set(true);
    }

    /// The frame is whole.
    pub(super) fn give_back(&self, bell: &Bell) {
        self.taken.set(false);
        bell.ring();
    }

    /// Adds to what is to be sent.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.outbox.borrow_mut().extend_from_slice(bytes);
    }

    /// Whether enough stands to be sent.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.borrow().len() >= FLUSH_BYTES
    }

    /// Sends what was written, in its order whoever asks.
    pub(super) async fn flush(&self, bell: &Bell) -> Result<(), Lost> {
        if self.outbox.borrow().is_empty() {
            return Ok(());
        }
        bell.until(|| (!self.flushing.get()).then_some(())).await;
        self.flushing.set(true);
        let sent = self.send().await;
        self.flushing.set(false);
        bell.ring();
        sent
    }

    async fn send(&self) -> Result<(), Lost> {
        loop {
            let bytes = std::mem::take(&mut *self.outbox.borrow_mut());
            if bytes.is_empty() {
                return Ok(());
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                match self.stream.send_now(rest).map_err(|_| Lost)? {
                    0 => self.stream.writable().await,
                    sent => rest = &rest[sent..],
                }
            }
        }
    }

    /// Moves as much of the command that `walk` goes over as has arrived to `take`.
    pub(super) fn pass(&self, walk: &mut Walk, take: impl FnOnce(&[u8])) -> Result<usize, Lost> {
        let mut inbox = self.inbox.borrow_mut();
        let Some(buf) = inbox.as_mut() else { return Ok(0) };
        let len = walk.advance(buf.filled())?;
        take(&buf.filled()[..len]);
        buf.consume(len);
        if buf.is_empty() {
            *inbox = None;
        }
        Ok(len)
    }

    /// Ends the session: the other side reads what was sent, and then the end.
    pub(super) fn close(&self) {
        self.stream.shutdown_write();
        self.stream.shutdown_read();
    }
}
