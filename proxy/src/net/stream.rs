//! A connected socket, TCP or Unix. Bytes move by system calls that never block; [`super::watch`]
//! says when they can. So no operation in flight owns a buffer, nothing needs to be cancelled, and a socket on which nothing happens
//! holds no memory for its next bytes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::buffer::Buf;
use super::watch::{self, Place, Ready};

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

/// A connected socket. Clones are the same socket; it closes with the last of them.
#[derive(Clone)]
pub struct Stream {
    inner: Rc<Inner>,
}

struct Inner {
    socket: Socket,
    place: Place,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.place.leave(self.socket.as_fd());
    }
}

impl Stream {
    /// Takes an accepted or connected socket, on a worker's thread.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Stream> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        if socket.domain()? != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
            let probes = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
            socket.set_tcp_keepalive(&probes.with_retries(6))?;
        }
        let place = watch::enter(socket.as_fd())?;
        Ok(Stream { inner: Rc::new(Inner { socket, place }) })
    }

    /// Connects within `limit`.
    ///
    /// The connect itself is started on a non-blocking socket and awaited by readiness, since a dropped connect
    /// operation of monoio 0.2.4 may leak its descriptor; a dropped wait leaks nothing.
    pub async fn connect(address: &Address, limit: Duration) -> io::Result<Stream> {
        let (domain, protocol, target) = match address {
            Address::Tcp(addr) => (Domain::for_address(*addr), Some(Protocol::TCP), SockAddr::from(*addr)),
            Address::Unix(path) => (Domain::UNIX, None, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), protocol)?;
        let pending = match socket.connect(&target) {
            Ok(()) => false,
            Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => true,
            Err(e) => return Err(e),
        };
        let stream = Stream::from_fd(socket.into())?;
        if pending {
            if super::within(limit, stream.writable()).await.is_none() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if let Err(error) = rustix::net::sockopt::socket_error(stream.as_fd())? {
                return Err(error.into());
            }
        }
        Ok(stream)
    }

    /// Ready when there is something to receive, most likely: bytes, the end of the stream, or an error.
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        self.ready().receive.poll(cx)
    }

    /// Ready when there is room to send, most likely, or an error.
    pub fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        self.ready().send.poll(cx)
    }

    /// Receives what is there right now into the spare part of `buf`, and says how much that was; 0 is the end of the
    /// stream, `WouldBlock` that there is nothing yet. Only with room in `buf`.
    pub fn recv_now(&self, buf: &mut Buf) -> io::Result<usize> {
        let received = loop {
            match rustix::net::recv(self, buf.spare_mut(), RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let ready = self.ready();
        match received {
            Ok((received, _)) => {
                buf.advance(received);
                // The kernel had no more: an edge tells of the next bytes. Behind an end there is no edge.
                if buf.room() > 0 && !ready.ended.get() {
                    ready.receive.exhausted();
                }
                Ok(received)
            }
            Err(error) => {
                if error == Errno::AGAIN {
                    ready.receive.exhausted();
                }
                Err(error.into())
            }
        }
    }

    /// Receives into the spare part of `buf`, waiting until there is something; 0 is the end of the stream.
    pub async fn recv(&self, buf: &mut Buf) -> io::Result<usize> {
        loop {
            std::future::poll_fn(|cx| self.poll_readable(cx)).await;
            match self.recv_now(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Sends what fits into the socket's buffer right now, and says how much that was; 0 when nothing fits.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let sent = match rustix::net::send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::INTR) => return Ok(0),
            Err(Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        if sent < bytes.len() {
            self.ready().send.exhausted();
        }
        Ok(sent)
    }

    /// Sends all of `bytes`, waiting for room.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.send_now(bytes)? {
                0 => self.writable().await,
                sent => bytes = &bytes[sent..],
            }
        }
        Ok(())
    }

    async fn writable(&self) {
        std::future::poll_fn(|cx| self.poll_writable(cx)).await;
    }

    fn ready(&self) -> &Ready {
        self.inner.place.ready()
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
        self.inner.socket.as_fd()
    }
}
