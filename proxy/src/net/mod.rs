//! The edge to the runtime: the only module that names monoio or io_uring, and the only one of this crate
//! with `unsafe`.
//!
//! It knows buffers, sockets, timers and doorbells, and no protocol word. Published monoio has traps;
//! each is kept out here: session futures are caught when they panic ([`spawn`]), nothing wakes itself to
//! yield ([`Yield`]), no operation of a session's sockets is in flight that could be dropped half-way ([`stream`]),
//! no waker crosses a thread (other threads ring a [`doorbell::Doorbell`]), and every descriptor is
//! close-on-exec and non-blocking.
#![allow(unsafe_code)]

#[cfg(test)]
pub mod allocations;
pub mod buffer;
pub mod doorbell;
pub mod driver;
pub mod stream;
mod watch;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Runs `future` as a task of this worker. A panic in it ends that task only and is handed to `panicked`.
pub fn spawn(future: impl Future<Output = ()> + 'static, panicked: impl FnOnce() + 'static) {
    monoio::spawn(Guarded { future: Box::pin(future), panicked: Some(panicked) });
}

/// A task whose panic is its own.
struct Guarded<F, P> {
    future: Pin<Box<F>>,
    panicked: Option<P>,
}

impl<F: Future<Output = ()>, P: FnOnce()> Future for Guarded<F, P> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is a box of its own and is never moved out; `panicked` is not pinned.
        let this = unsafe { self.as_mut().get_unchecked_mut() };
        // A future that panicked is not polled again: the task ends here.
        match catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                if let Some(panicked) = this.panicked.take() {
                    panicked();
                }
                Poll::Ready(())
            }
        }
    }
}

/// Sleeps on this worker's timer wheel (1 ms ticks).
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// `future` or `None` after `limit`. Only for futures that may be dropped without losing data: readiness
/// polls and whole phases whose connection is closed afterwards.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(limit, future).await.ok()
}

/// Gives way to the other tasks of this worker once.
///
/// Waking oneself would put the task at the front of monoio 0.2.4's queue and starve the rest; a freshly
/// spawned task goes to the back, and its end wakes us there.
#[derive(Default)]
pub struct Yield {
    turn: Option<monoio::task::JoinHandle<()>>,
}

impl Yield {
    /// Ready once every task that was runnable has had its turn since the first call.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.get_or_insert_with(|| monoio::spawn(async {}));
        let poll = Pin::new(turn).poll(cx);
        if poll.is_ready() {
            self.turn = None;
        }
        poll
    }
}
