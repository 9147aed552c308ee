//! Several futures in one task, and a bell by which they hear of one another.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What one of the futures rings when it changed something that another may wait for.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
}

impl Bell {
    /// Has every future of the task looked at again before the task rests.
    pub(super) fn ring(&self) {
        self.rung.set(true);
    }

    /// Waits until `look` finds something. It is asked whenever the task runs.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|_| look().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Runs `futures` until the first of them ends.
    ///
    /// Nothing here wakes the task itself: as long as the bell rings all are polled again at once.
    pub(super) async fn first_of(&self, futures: &mut [Pin<&mut dyn Future<Output = ()>>]) {
        poll_fn(|cx| self.poll_all(cx, futures)).await;
    }

    fn poll_all(&self, cx: &mut Context<'_>, futures: &mut [Pin<&mut dyn Future<Output = ()>>]) -> Poll<()> {
        loop {
            self.rung.set(false);
            for future in futures.iter_mut() {
                if future.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            if !self.rung.get() {
                return Poll::Pending;
            }
        }
    }
}
