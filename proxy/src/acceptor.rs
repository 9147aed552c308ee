//! Accept: one thread takes connections from every listener and hands each to the worker with the fewest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::metrics::{Counters, Reject};
use crate::plane::{Listener, Peer, Plane};

/// How long a stop may go unnoticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How long accepting pauses when there is no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Addresses whose rate is remembered. Beyond that the oldest are forgotten: an attacker with that many addresses
/// is not held by a rate for each.
const ADDRESSES_MAX: usize = 16 * 1024;

/// A bound socket and what it is for.
pub struct Bound {
    socket: Socket,
    listener: Arc<Listener>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Binds a TCP address and gives the one that was taken (port 0 takes a free one).
    pub fn tcp(addr: SocketAddr, listener: Arc<Listener>) -> io::Result<(Bound, SocketAddr)> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from(socket);
        let taken = socket.local_addr()?;
        Ok((Bound { socket: Socket::Tcp(socket), listener }, taken))
    }

    /// Binds a Unix socket, readable for its owner alone. A socket file that nobody serves is replaced.
    pub fn unix(path: &Path, listener: Listener) -> io::Result<Bound> {
        if std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path)?;
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        Ok(Bound { socket: Socket::Unix(socket), listener: Arc::new(listener) })
    }

    fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        // Both set close-on-exec; non-blocking is set by the worker's stream.
        match &self.socket {
            Socket::Tcp(socket) => socket.accept().map(|(s, addr)| (s.into(), Peer::Tcp(addr))),
            Socket::Unix(socket) => socket.accept().map(|(s, _)| (s.into(), Peer::Unix)),
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Accepts until the plane drains; then the listeners close and clients are refused by the kernel.
pub fn run(plane: &Plane, bound: Vec<Bound>, counters: &Counters) {
    let mut rates = Rates::new(plane.settings.login_rate_per_second, plane.settings.login_burst);
    while !plane.is_draining() {
        let mut fds: Vec<_> = bound.iter().map(|b| PollFd::new(b, PollFlags::IN)).collect();
        if !matches!(poll(&mut fds, Some(&TICK)), Ok(n) if n > 0) {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (bound, _) in bound.iter().zip(ready).filter(|(_, ready)| *ready) {
            if !accept_some(plane, bound, &mut rates, counters) {
                std::thread::park_timeout(PAUSE);
            }
        }
    }
}

/// Takes a few connections from one listener. `false` when there is no descriptor left for more.
fn accept_some(plane: &Plane, bound: &Bound, rates: &mut Rates, counters: &Counters) -> bool {
    let traffic = counters.of(bound.listener.served);
    let reject = |why: Reject| traffic.rejected[why as usize].fetch_add(1, Relaxed);
    for _ in 0..64 {
        let (fd, peer) = match bound.accept() {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            Err(e) if out_of_descriptors(&e) => {
                tracing::warn!(err = %e, "cannot accept, pausing");
                reject(Reject::Limit);
                return false;
            }
            // The client left between the handshake and our accept.
            Err(_) => continue,
        };
        // A refused connection is closed by dropping it: nothing was read, so nothing native can be said.
        if plane.connections() >= plane.settings.connections_max || plane.pre_auth() >= plane.settings.pre_auth_max {
            reject(Reject::Limit);
        } else if let Peer::Tcp(addr) = &peer
            && !rates.admit(addr.ip(), Instant::now())
        {
            reject(Reject::Rate);
        } else {
            plane.least_loaded().accept(fd, peer, bound.listener.clone());
        }
    }
    true
}

fn out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|e| code == Some(e.raw_os_error()))
}

/// A token bucket for each address.
struct Rates {
    per_second: f64,
    burst: f64,
    buckets: HashMap<IpAddr, (f64, Instant)>,
}

impl Rates {
    fn new(per_second: u32, burst: u32) -> Rates {
        Rates { per_second: per_second.into(), burst: burst.max(1).into(), buckets: HashMap::new() }
    }

    fn admit(&mut self, ip: IpAddr, now: Instant) -> bool {
        if self.per_second == 0.0 {
            return true;
        }
        if self.buckets.len() >= ADDRESSES_MAX {
            let full_after = Duration::from_secs_f64(self.burst / self.per_second);
            self.buckets.retain(|_, (_, at)| now.duration_since(*at) < full_after);
            if self.buckets.len() >= ADDRESSES_MAX {
                self.buckets.clear();
            }
        }
        let (tokens, at) = self.buckets.entry(ip).or_insert((self.burst, now));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() * self.per_second).min(self.burst);
        *at = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let mut rates = Rates::new(10, 3);
        let ip = IpAddr::from([127, 0, 0, 1]);
        let start = Instant::now();
        assert!((0..3).all(|_| rates.admit(ip, start)));
        assert!(!rates.admit(ip, start));
        assert!(rates.admit(ip, start + Duration::from_millis(101)));
        assert!(rates.admit(IpAddr::from([127, 0, 0, 2]), start));
    }

    #[test]
    fn the_memory_for_addresses_is_bounded() {
        let mut rates = Rates::new(1, 1);
        let now = Instant::now();
        for n in 0..(ADDRESSES_MAX as u32 + 100) {
            rates.admit(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(rates.buckets.len() <= ADDRESSES_MAX);
    }
}
