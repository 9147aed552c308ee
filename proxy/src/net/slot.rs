//! A place for one wait for readiness, reused for the life of a session: no allocation per wait, and no buffer held
//! while nothing is there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A slot for one kind of wait on one socket. A wait that is dropped half-way loses nothing: it moves no byte.
pub struct Slot {
    inner: Pin<Box<dyn Armed>>,
    armed: bool,
}

trait Armed {
    fn arm(self: Pin<&mut Self>);
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}

struct Place<F, M> {
    future: Option<F>,
    make: M,
}

impl<F: Future<Output = io::Result<()>>, M: Fn() -> F> Armed for Place<F, M> {
    fn arm(self: Pin<&mut Self>) {
        // SAFETY: `future` is structurally pinned: it is replaced in place (dropping the finished one) and never
        // moved out. `make` is not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        this.future = Some((this.make)());
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: as above; the projection hands out a pin of the field and nothing else.
        let this = unsafe { self.get_unchecked_mut() };
        let Some(future) = this.future.as_mut() else { return Poll::Pending };
        // SAFETY: `future` lives inside the pinned box and stays there until it is replaced or cleared in place.
        let poll = unsafe { Pin::new_unchecked(future) }.poll(cx);
        if poll.is_ready() {
            this.future = None;
        }
        // A wait that failed ends too: the system call that follows it meets the same error and names it.
        poll.map(drop)
    }
}

impl Slot {
    /// A slot whose waits are made by `make`.
    pub(super) fn new<F: Future<Output = io::Result<()>> + 'static>(make: impl Fn() -> F + 'static) -> Slot {
        Slot { inner: Box::pin(Place { future: None, make }), armed: false }
    }

    /// Begins to wait unless one is waiting; the next poll submits it.
    pub fn arm(&mut self) {
        if !self.armed {
            self.armed = true;
            self.inner.as_mut().arm();
        }
    }

    /// Whether somebody waits.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// The end of the wait; pending for ever when none has begun.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
