//! Who can receive and who can send: one edge-triggered epoll instance for all sockets of a worker.
//!
//! A socket is registered once, for its life. What has happened since the last look is taken in one call for all
//! sockets together, and the worker's runtime waits for the instance as for one socket: so a wait for the next
//! bytes of a session costs a flag, and neither a submission nor a completion of its own.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::event::{Timespec, epoll};

/// Events taken in one call.
const BATCH: usize = 256;

thread_local! {
    static WATCH: RefCell<Option<Rc<Watch>>> = const { RefCell::new(None) };
}

/// The sockets of this thread.
pub(super) struct Watch {
    epoll: OwnedFd,
    sockets: RefCell<Vec<Option<Rc<Ready>>>>,
    vacant: RefCell<Vec<usize>>,
}

/// What is known of one socket. A flag that is set may be wrong, and the next call then finds nothing to do; one that
/// is not set is right, because whatever changes sets it.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) receive: Side,
    pub(super) send: Side,
    /// The peer has ended, or the socket is broken: there is no further edge to wait for.
    pub(super) ended: Cell<bool>,
}

/// One direction of a socket.
#[derive(Default)]
pub(super) struct Side {
    ready: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Side {
    /// Ready when the socket is; else the task of `cx` is woken when it is.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.ready.get() {
            return Poll::Ready(());
        }
        let known = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
        self.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
        Poll::Pending
    }

    /// The last call has found nothing more to do.
    pub(super) fn exhausted(&self) {
        self.ready.set(false);
    }

    fn set(&self) {
        self.ready.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A socket's place among those that are watched; given back by [`Place::leave`].
pub(super) struct Place {
    watch: Rc<Watch>,
    at: usize,
    ready: Rc<Ready>,
}

impl Place {
    /// What is known of the socket.
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Takes the socket out. Before it is closed.
    pub(super) fn leave(&self, socket: BorrowedFd<'_>) {
        // A descriptor that is gone from the instance already is gone as wished.
        let _ = epoll::delete(&self.watch.epoll, socket);
        if let Some(place) = self.watch.sockets.borrow_mut().get_mut(self.at) {
            *place = None;
        }
        self.watch.vacant.borrow_mut().push(self.at);
    }
}

/// Begins to watch `socket`. Only on a worker's thread, within [`super::driver::run`].
pub(super) fn enter(socket: BorrowedFd<'_>) -> io::Result<Place> {
    let watch = WATCH.with_borrow(Clone::clone).ok_or(io::ErrorKind::Unsupported)?;
    let ready = Rc::new(Ready::default());
    let at = watch.vacant.borrow_mut().pop();
    let at = {
        let mut sockets = watch.sockets.borrow_mut();
        let at = at.unwrap_or(sockets.len());
        if at == sockets.len() {
            sockets.push(None);
        }
        sockets[at] = Some(ready.clone());
        at
    };
    let place = Place { watch: watch.clone(), at, ready };
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    if let Err(error) = epoll::add(&watch.epoll, socket, epoll::EventData::new_u64(at as u64), flags) {
        place.leave(socket);
        return Err(error.into());
    }
    Ok(place)
}

/// Sets up this thread's watch and the task that looks at it. Within a runtime.
pub(super) fn install() -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let signal = std::os::unix::net::UnixStream::from(epoll.try_clone()?);
    // Any descriptor that can be polled does: it is waited for, and nothing is read from it.
    let signal = monoio::net::UnixStream::from_std(signal)?;
    let watch = Rc::new(Watch { epoll, sockets: RefCell::default(), vacant: RefCell::default() });
    WATCH.set(Some(watch.clone()));
    super::spawn(
        async move {
            let mut events = Vec::with_capacity(BATCH);
            loop {
                // An error ends the wait as an event does: the look shows what there is.
                let _ = signal.readable(false).await;
                watch.look(&mut events);
            }
        },
        // A worker that hears of no socket serves nobody.
        || std::process::abort(),
    );
    Ok(())
}

impl Watch {
    fn look(&self, events: &mut Vec<epoll::Event>) {
        loop {
            events.clear();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // Interrupted or failed: what is ready is still ready at the next look.
            if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&now)).is_err() {
                return;
            }
            for event in &*events {
                let flags = event.flags;
                let at = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                // A socket that has left since is not there any more.
                let Some(ready) = self.sockets.borrow().get(at).cloned().flatten() else { continue };
                let broken = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
                if broken || flags.contains(epoll::EventFlags::RDHUP) {
                    ready.ended.set(true);
                }
                if broken || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
                    ready.receive.set();
                }
                if broken || flags.contains(epoll::EventFlags::OUT) {
                    ready.send.set();
                }
            }
            if events.len() < BATCH {
                return;
            }
        }
    }
}
