//! One connection, two threads: plain bytes one side, TLS the other.
//!
//! The TLS state is shared. `out` orders what is sent: it is taken before the state, and held while the socket takes
//! the bytes. The state itself is never held while a socket blocks, so that a gateway which waits for us to read
//! cannot stop us from reading.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustls::ClientConnection;

use super::Client;

const BUFFER_BYTES: usize = 16 * 1024;

struct Link {
    socket: TcpStream,
    tls: Mutex<ClientConnection>,
    out: Mutex<()>,
}

/// Sends `first`, then carries bytes both ways until both sides are done.
pub(super) fn carry(client: Client, socket: TcpStream, tls: ClientConnection, first: &[u8]) -> io::Result<()> {
    let link = Link { socket, tls: Mutex::new(tls), out: Mutex::new(()) };
    link.send(first)?;
    let upstream = client.try_clone()?;
    std::thread::scope(|scope| {
        let up = scope.spawn(|| link.upward(upstream));
        let down = link.downward(client);
        let up = up.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the connection ended badly")));
        down.and(up)
    })
}

impl Link {
    /// Client to gateway. The client's end is passed on, so that the gateway can still answer what came before.
    fn upward(&self, mut client: Client) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let ended = loop {
            match client.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    if let Err(e) = self.send(&buffer[..count]) {
                        break Err(e);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        self.tls().send_close_notify();
        let flushed = self.flush();
        // The gateway may be gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
        ended.and(flushed)
    }

    /// Gateway to client.
    fn downward(&self, mut client: Client) -> io::Result<()> {
        let ended = self.receive(&mut client);
        // Wakes the other thread, which may be waiting for a client that has nothing more to say.
        let _ = client.shutdown(Shutdown::Both);
        let _ = self.socket.shutdown(Shutdown::Both);
        ended
    }

    fn receive(&self, client: &mut Client) -> io::Result<()> {
        let mut cipher = vec![0; BUFFER_BYTES];
        let mut plain = Vec::with_capacity(BUFFER_BYTES);
        let mut over = self.decrypt(&[], &mut plain)?;
        loop {
            if !plain.is_empty() {
                client.write_all(&plain)?;
                plain.clear();
            }
            if over {
                return Ok(());
            }
            match (&self.socket).read(&mut cipher) {
                Ok(0) => return Ok(()),
                Ok(count) => over = self.decrypt(&cipher[..count], &mut plain)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.answer()?;
        }
    }

    /// Decrypts into `plain`; true when the gateway has said that no more comes.
    fn decrypt(&self, mut cipher: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
        let mut tls = self.tls();
        loop {
            if !cipher.is_empty() {
                tls.read_tls(&mut cipher)?;
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let length = plain.len();
            plain.resize(length + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[length..])?;
            if cipher.is_empty() {
                return Ok(state.peer_has_closed());
            }
        }
    }

    /// Sends what TLS itself has to say (key updates). When the other thread is sending, it does so.
    fn answer(&self) -> io::Result<()> {
        match self.out.try_lock() {
            Ok(_held) => self.write_out(),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Poisoned(_)) => Err(io::Error::other("a thread of the connection ended badly")),
        }
    }

    fn send(&self, plain: &[u8]) -> io::Result<()> {
        let _held = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.tls().writer().write_all(plain)?;
        self.write_out()
    }

    fn flush(&self) -> io::Result<()> {
        let _held = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_out()
    }

    /// With `out` held: moves everything from TLS to the socket.
    fn write_out(&self) -> io::Result<()> {
        let mut cipher = Vec::new();
        loop {
            {
                let mut tls = self.tls();
                if !tls.wants_write() {
                    return Ok(());
                }
                while tls.wants_write() {
                    tls.write_tls(&mut cipher)?;
                }
            }
            (&self.socket).write_all(&cipher)?;
            cipher.clear();
        }
    }

    fn tls(&self) -> MutexGuard<'_, ClientConnection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
