//! A place for one operation in flight, reused for the life of a session: no allocation per operation, and the
//! operation is never dropped to make room for another.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::buffer::Buf;

/// What an operation gives back: its result and the buffer it owned.
pub type Done = (io::Result<usize>, Buf);

/// A slot for one kind of operation on one socket.
pub struct Slot {
    inner: Pin<Box<dyn Armed>>,
    armed: bool,
}

trait Armed {
    fn arm(self: Pin<&mut Self>, buf: Buf);
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done>;
}

struct Place<F, M> {
    future: Option<F>,
    make: M,
}

impl<F: Future<Output = Done>, M: Fn(Buf) -> F> Armed for Place<F, M> {
    fn arm(self: Pin<&mut Self>, buf: Buf) {
        // SAFETY: `future` is structurally pinned: it is replaced in place (dropping the finished one) and never
        // moved out. `make` is not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        this.future = Some((this.make)(buf));
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        // SAFETY: as above; the projection hands out a pin of the field and nothing else.
        let this = unsafe { self.get_unchecked_mut() };
        let Some(future) = this.future.as_mut() else { return Poll::Pending };
        // SAFETY: `future` lives inside the pinned box and stays there until it is replaced or cleared in place.
        let poll = unsafe { Pin::new_unchecked(future) }.poll(cx);
        if poll.is_ready() {
            this.future = None;
        }
        poll
    }
}

impl Slot {
    /// A slot whose operations are made by `make`.
    pub(super) fn new<F: Future<Output = Done> + 'static>(make: impl Fn(Buf) -> F + 'static) -> Slot {
        Slot { inner: Box::pin(Place { future: None, make }), armed: false }
    }

    /// Starts an operation on `buf` and submits it with the next poll.
    ///
    /// # Panics
    /// When one is in flight already: that would lose its data.
    pub fn arm(&mut self, buf: Buf) {
        assert!(!self.armed, "one operation at a time");
        self.armed = true;
        self.inner.as_mut().arm(buf);
    }

    /// Whether an operation is in flight.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// The operation's end; pending for ever when none is in flight.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if !self.armed {
            return Poll::Pending;
        }
        let poll = self.inner.as_mut().poll(cx);
        if poll.is_ready() {
            self.armed = false;
        }
        poll
    }
}
