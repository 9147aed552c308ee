//! `proxy db --tunnel`: plain clients on this machine, carried to the gateway over TLS with a route certificate.
//!
//! ```text
//! plain client ── SSLRequest ──> 'N'            ┌── TLS, ALPN postgresql ──> gateway
//!              ── startup ───────> connection ──┤
//!              ── CancelRequest ─> connection ──┘  (of its own, closed after the request)
//! ```
//! A Redis client says nothing about encryption: its bytes are carried from the first one on. A MySQL client waits for
//! a greeting: see `greeting`.
//!
//! A developer's tool: two threads per connection. The key stays in memory. Certificates are exchanged before they
//! expire; connections that are open keep the one they began with.

mod credential;
mod greeting;
mod link;
mod startup;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) use credential::{Credential, Renew};

use crate::config::Listen;

/// Most connections at once; more are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// A client must say what it wants within this time.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What to carry, where to, and as whom.
pub(crate) struct TunnelOptions {
    /// The plain side.
    pub(crate) listen: Listen,
    /// What its clients speak.
    pub(crate) speech: Speech,
    /// The gateway.
    pub(crate) gateway: SocketAddr,
    /// The name its certificate is checked against.
    pub(crate) server_name: String,
    /// What it is checked with, PEM.
    pub(crate) ca_pem: String,
    /// The route certificate and key to begin with.
    pub(crate) credential: Credential,
    /// Gets the next certificate; called from a thread of its own.
    pub(crate) renew: Renew,
}

/// How a client begins, and how it is told that there is no gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Asks for encryption first, and sends cancel requests on connections of their own.
    Postgres,
    /// Begins with a command.
    Redis,
    /// Waits for the server's greeting.
    Mysql,
}

impl Speech {
    /// The ALPN names offered to the gateway.
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Speech::Postgres => vec![b"postgresql".to_vec()],
            Speech::Redis | Speech::Mysql => Vec::new(),
        }
    }

    /// What the client came for.
    fn first(self, client: &mut Client) -> io::Result<startup::First> {
        match self {
            Speech::Postgres => startup::read(client),
            Speech::Redis | Speech::Mysql => Ok(startup::First::Startup(Vec::new())),
        }
    }

    /// Tells the client, in its own words, why it is not served.
    fn refuse(self, client: &mut Client, why: &str) -> io::Result<()> {
        match self {
            Speech::Postgres => startup::refuse(client, why),
            Speech::Redis => {
                // A line break would end the error early.
                let why = why.replace(['\r', '\n'], " ");
                io::Write::write_all(client, format!("-ERR ringgate: {why}\r\n").as_bytes())
            }
            Speech::Mysql => greeting::refuse(client, why),
        }
    }
}

/// Why the tunnel is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The plain side cannot listen.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: Listen,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate, key or CA cannot be used.
    #[error("cannot use the certificate: {0}")]
    Credential(String),
}

/// Serves until the process ends. `ready` learns the real address.
pub(crate) fn run(options: TunnelOptions, ready: impl FnOnce(&Listen)) -> Result<(), TunnelError> {
    let tls = credential::client(&options)?;
    let gateway = Arc::new(Gateway {
        address: options.gateway,
        server_name: tls.server_name,
        config: tls.config,
        speech: options.speech,
    });
    let (listener, bound) = Listener::bind(&options.listen)?;
    credential::keep_fresh(options.credential, tls.current, options.renew);
    ready(&bound);
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok(client) => client,
            Err(e) => {
                tracing::warn!(err = %e, "cannot accept a connection");
                // Descriptors ran out, mostly; without a pause this loop would burn a core until one is free.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (gateway, slot) = (gateway.clone(), Slot(open.clone()));
        let started = std::thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
            let _slot = slot;
            if let Err(e) = serve(client, &gateway) {
                tracing::info!(err = %e, "connection ended");
            }
        });
        if let Err(e) = started {
            tracing::warn!(err = %e, "cannot serve a connection");
        }
    }
}

struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The TLS side.
pub(super) struct Gateway {
    address: SocketAddr,
    server_name: rustls::pki_types::ServerName<'static>,
    config: Arc<rustls::ClientConfig>,
    speech: Speech,
}

impl Gateway {
    /// Connects and completes the handshake, so that a refusal is known before bytes are sent.
    fn connect(&self) -> io::Result<(TcpStream, rustls::ClientConnection, Option<greeting::Greeting>)> {
        let mut socket = TcpStream::connect_timeout(&self.address, STARTUP_TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STARTUP_TIMEOUT))?;
        let greeted = match self.speech {
            Speech::Mysql => Some(greeting::ask_for_tls(&mut socket)?),
            Speech::Postgres | Speech::Redis => None,
        };
        let mut tls =
            rustls::ClientConnection::new(self.config.clone(), self.server_name.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        socket.set_read_timeout(None)?;
        Ok((socket, tls, greeted))
    }
}

fn serve(mut client: Client, gateway: &Gateway) -> io::Result<()> {
    client.set_read_timeout(Some(STARTUP_TIMEOUT))?;
    let first = gateway.speech.first(&mut client)?;
    client.set_read_timeout(None)?;
    let connected = gateway.connect();
    match (first, connected) {
        (startup::First::Cancel(message), connected) => {
            let (mut socket, mut tls, _) = connected?;
            io::Write::write_all(&mut tls.writer(), &message)?;
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            // The server closes once it has dealt with the cancel; libpq waits for that.
            io::copy(&mut socket, &mut io::sink()).map(drop)
        }
        (startup::First::Startup(_), Err(e)) => {
            let why = format!("the gateway at {} cannot be reached: {e}", gateway.address);
            gateway.speech.refuse(&mut client, &why)?;
            Err(e)
        }
        (startup::First::Startup(message), Ok((mut socket, mut tls, greeted))) => {
            if let Some(greeted) = greeted {
                client.set_read_timeout(Some(STARTUP_TIMEOUT))?;
                greeted.sign_in(&mut client, &mut rustls::Stream::new(&mut tls, &mut socket))?;
                client.set_read_timeout(None)?;
            }
            link::carry(client, socket, tls, &message)
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(listen: &Listen) -> Result<(Listener, Listen), TunnelError> {
        let failed = |source| TunnelError::Listen { listen: listen.clone(), source };
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok((Listener::Tcp(listener), Listen::Tcp(bound)))
            }
            Listen::Unix(path) => {
                let listener = bind_private(path).map_err(failed)?;
                Ok((Listener::Unix(listener), Listen::Unix(path.clone())))
            }
        }
    }

    fn accept(&self) -> io::Result<Client> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, _) = listener.accept()?;
                socket.set_nodelay(true)?;
                Ok(Client::Tcp(socket))
            }
            Listener::Unix(listener) => listener.accept().map(|(socket, _)| Client::Unix(socket)),
        }
    }
}

/// Binds a 0600 socket. A socket left by a process that is gone is replaced; any other file is not.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    // Bound under another name and moved once its mode is set: nobody meets it with the wrong one.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&fresh, path))?;
    Ok(listener)
}

/// A plain client.
pub(super) enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Client::Tcp(socket) => socket.set_read_timeout(timeout),
            Client::Unix(socket) => socket.set_read_timeout(timeout),
        }
    }

    fn try_clone(&self) -> io::Result<Client> {
        match self {
            Client::Tcp(socket) => socket.try_clone().map(Client::Tcp),
            Client::Unix(socket) => socket.try_clone().map(Client::Unix),
        }
    }

    fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        match self {
            Client::Tcp(socket) => socket.shutdown(how),
            Client::Unix(socket) => socket.shutdown(how),
        }
    }
}

impl io::Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Client::Tcp(socket) => socket.read(buffer),
            Client::Unix(socket) => socket.read(buffer),
        }
    }
}

impl io::Write for Client {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Client::Tcp(socket) => socket.write(buffer),
            Client::Unix(socket) => socket.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
