//! A connected socket, TCP or Unix, whose receives and sends own their buffers.

use std::cell::{RefCell, UnsafeCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{AsyncWriteRent, CancelableAsyncReadRent, Canceller};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::buffer::Buf;
use super::slot::{Done, Slot};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(addr) => addr.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connected socket. Clones are the same socket; it closes when the last clone and the last operation is gone.
#[derive(Clone)]
pub struct Stream {
    inner: Rc<Inner>,
}

struct Inner {
    socket: Kind,
    /// Cancels the receive in flight, and nothing else: sends are never cancelled.
    canceller: RefCell<Canceller>,
}

/// The cell is for the methods of monoio's stream traits, which ask for `&mut` although they only read the
/// descriptor and clone its count.
enum Kind {
    Tcp(UnsafeCell<monoio::net::TcpStream>),
    Unix(UnsafeCell<monoio::net::UnixStream>),
}

impl Stream {
    /// Takes an accepted or connected socket. It must be non-blocking: on epoll a send on a blocking socket
    /// would stop the whole worker.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Stream> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        if socket.domain()? == Domain::UNIX {
            let stream = monoio::net::UnixStream::from_std(OwnedFd::from(socket).into())?;
            return Ok(Stream::wrap(Kind::Unix(UnsafeCell::new(stream))));
        }
        socket.set_tcp_nodelay(true)?;
        let probes = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
        socket.set_tcp_keepalive(&probes.with_retries(6))?;
        let stream = monoio::net::TcpStream::from_std(OwnedFd::from(socket).into())?;
        Ok(Stream::wrap(Kind::Tcp(UnsafeCell::new(stream))))
    }

    /// Connects within `limit`.
    ///
    /// The connect itself is started on a non-blocking socket and awaited by readiness, since a dropped connect
    /// operation of monoio 0.2.4 may leak its descriptor; a dropped readiness poll leaks nothing.
    pub async fn connect(address: &Address, limit: Duration) -> io::Result<Stream> {
        let (domain, protocol, target) = match address {
            Address::Tcp(addr) => (Domain::for_address(*addr), Some(Protocol::TCP), SockAddr::from(*addr)),
            Address::Unix(path) => (Domain::UNIX, None, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), protocol)?;
        let pending = match socket.connect(&target) {
            Ok(()) => false,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => true,
            Err(e) => return Err(e),
        };
        let stream = Stream::from_fd(socket.into())?;
        if pending {
            match super::within(limit, stream.writable()).await {
                Some(ready) => ready?,
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
            if let Err(error) = rustix::net::sockopt::socket_error(stream.as_fd())? {
                return Err(error.into());
            }
        }
        Ok(stream)
    }

    fn wrap(socket: Kind) -> Stream {
        Stream { inner: Rc::new(Inner { socket, canceller: RefCell::default() }) }
    }

    /// Receives into the spare part of `buf`; 0 is the end of the stream. Ends with `ECANCELED` after
    /// [`Stream::cancel_recv`], or with data that came first: nothing is lost.
    pub async fn recv(&self, buf: Buf) -> Done {
        let handle = self.inner.canceller.borrow().handle();
        match &self.inner.socket {
            // SAFETY: this task's thread is the only one with this stream, and monoio's receive reads the
            // descriptor and clones its count before it first suspends; it keeps no reference into the stream
            // that a concurrent send could see changed.
            Kind::Tcp(cell) => unsafe { &mut *cell.get() }.cancelable_read(buf, handle).await,
            // SAFETY: as for TCP.
            Kind::Unix(cell) => unsafe { &mut *cell.get() }.cancelable_read(buf, handle).await,
        }
    }

    /// Sends the filled part of `buf`, or the front of it, and says how much went.
    pub async fn send(&self, buf: Buf) -> Done {
        match &self.inner.socket {
            // SAFETY: as in `recv`; the send operation owns `buf` and its own count of the descriptor.
            Kind::Tcp(cell) => unsafe { &mut *cell.get() }.write(buf).await,
            // SAFETY: as for TCP.
            Kind::Unix(cell) => unsafe { &mut *cell.get() }.write(buf).await,
        }
    }

    /// Receives what is there right now into the spare part of `buf`, and says how much that was; 0 is the end of the
    /// stream, `WouldBlock` that there is nothing yet. Only with room in `buf`.
    pub fn recv_now(&self, buf: &mut Buf) -> io::Result<usize> {
        use rustix::net::RecvFlags;
        let received = loop {
            match rustix::net::recv(self, buf.spare_mut(), RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        let (_, received) = received?;
        buf.advance(received);
        Ok(received)
    }

    /// Sends what fits into the socket's buffer right now, and says how much that was; 0 when nothing fits.
    ///
    /// A send that fits is cheaper as a system call of its own than through the ring: it needs no completion, and
    /// its task is not polled once more for it.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::net::SendFlags;
        match rustix::net::send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends all of `buf`.
    pub async fn send_all(&self, mut buf: Buf) -> io::Result<()> {
        while !buf.is_empty() {
            let (sent, back) = self.send(buf).await;
            buf = back;
            match sent? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => buf.consume(n),
            }
        }
        Ok(())
    }

    /// Asks the receive in flight to end at once. It still ends by itself, with its buffer.
    pub fn cancel_recv(&self) {
        let old = self.inner.canceller.take();
        *self.inner.canceller.borrow_mut() = old.cancel();
    }

    /// Waits until there is something to receive, without holding a buffer.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.inner.socket {
            // SAFETY: a shared borrow for a method that takes `&self`; see `recv` for the exclusive ones, none of
            // which lives across a suspension.
            Kind::Tcp(cell) => unsafe { &*cell.get() }.readable(false).await,
            // SAFETY: as for TCP.
            Kind::Unix(cell) => unsafe { &*cell.get() }.readable(false).await,
        }
    }

    /// Waits until there is room to send, or an error.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.inner.socket {
            // SAFETY: as in `readable`.
            Kind::Tcp(cell) => unsafe { &*cell.get() }.writable(false).await,
            // SAFETY: as for TCP.
            Kind::Unix(cell) => unsafe { &*cell.get() }.writable(false).await,
        }
    }

    /// A slot for this socket's receives. With `poll_first` semantics of the caller's choosing: the buffer is
    /// only held from `arm` on.
    pub fn recv_slot(&self) -> Slot {
        let stream = self.clone();
        Slot::new(move |buf| {
            let stream = stream.clone();
            async move { stream.recv(buf).await }
        })
    }

    /// A slot for this socket's sends.
    pub fn send_slot(&self) -> Slot {
        let stream = self.clone();
        Slot::new(move |buf| {
            let stream = stream.clone();
            async move { stream.send(buf).await }
        })
    }

    /// A boxed wait for readiness, for a session that has given its buffers back.
    pub fn readable_boxed(&self) -> std::pin::Pin<Box<dyn Future<Output = io::Result<()>>>> {
        let stream = self.clone();
        Box::pin(async move { stream.readable().await })
    }

    /// The port of our own end; none for a Unix socket.
    pub fn local_port(&self) -> Option<u16> {
        socket2::SockRef::from(self).local_addr().ok()?.as_socket().map(|address| address.port())
    }

    /// Ends our receiving: what has arrived can still be read, and the end of the stream follows it.
    pub fn shutdown_read(&self) {
        // As for the other direction.
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Read);
    }

    /// Tells the peer that nothing more will be sent.
    pub fn shutdown_write(&self) {
        // The peer may be gone already; there is nothing left to do about that.
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let raw = match &self.inner.socket {
            // SAFETY: a shared borrow for `as_raw_fd`, which copies an integer.
            Kind::Tcp(cell) => unsafe { &*cell.get() }.as_raw_fd(),
            // SAFETY: as for TCP.
            Kind::Unix(cell) => unsafe { &*cell.get() }.as_raw_fd(),
        };
        // SAFETY: the descriptor stays open as long as `inner` does, which `self` holds for the borrow's life.
        unsafe { BorrowedFd::borrow_raw(raw) }
    }
}
