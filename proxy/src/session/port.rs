//! One socket of a session in the pump: its receive and its send in flight, its TLS, its rest.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::link::Link;
use crate::net::buffer::{Buf, Pool};
use crate::net::slot::Slot;
use crate::net::stream::Stream;
use crate::tls::{Tls, whole_record};

/// One peer's socket. At most one receive and one send are in flight, each owning its buffer.
pub struct Port {
    stream: Stream,
    recv: Slot,
    send: Slot,
    tls: Option<Tls>,
    /// TLS records received and not yet decrypted.
    cipher: Option<Buf>,
    /// Waits for readiness while the session rests without buffers.
    rest: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
    /// Plain bytes that did not fit into the last TLS send, to go next.
    backlog: Option<Buf>,
    pool: Rc<Pool>,
    /// The peer will send nothing more.
    pub at_end: bool,
    /// The peer takes nothing more: what is sent is dropped.
    pub gone: bool,
    /// Milliseconds of the worker's clock since when a send has made no progress; 0 when none is in flight.
    pub sending_since_ms: u64,
    /// Plain bytes received and sent.
    pub bytes_in: u64,
    /// Plain bytes handed to the socket.
    pub bytes_out: u64,
}

/// What a port's polls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// A receive ended.
    pub received: bool,
    /// A send ended.
    pub sent: bool,
}

impl Moved {
    /// Whether anything did.
    pub fn any(self) -> bool {
        self.received || self.sent
    }
}

impl Port {
    /// A port over a link that has finished its cold phases, and the plain bytes that the link had left.
    pub fn new(link: Link, pool: &Rc<Pool>) -> (Port, Option<Buf>) {
        let Link { stream, tls, plain, cipher, .. } = link;
        let (recv, send) = (stream.recv_slot(), stream.send_slot());
        let cipher = cipher.filter(|c| !c.is_empty());
        let port = Port {
            stream,
            recv,
            send,
            tls,
            cipher,
            rest: None,
            backlog: None,
            pool: pool.clone(),
            at_end: false,
            gone: false,
            sending_since_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
        };
        (port, Some(plain).filter(|p| !p.is_empty()))
    }

    /// Polls what is in flight. Received bytes land in `lane` (plain) or wait as records for [`Port::decrypt`].
    pub fn poll(&mut self, cx: &mut Context<'_>, lane: &mut Option<Buf>) -> Moved {
        let mut moved = Moved::default();
        if let Poll::Ready((sent, mut buf)) = self.send.poll(cx) {
            moved.sent = true;
            self.sending_since_ms = 0;
            match sent {
                Ok(n) if n > 0 => {
                    buf.consume(n);
                    if !buf.is_empty() {
                        self.send.arm(buf);
                    }
                }
                _ => self.takes_no_more(),
            }
        }
        if let Some(rest) = self.rest.as_mut()
            && rest.as_mut().poll(cx).is_ready()
        {
            self.rest = None;
            moved.received = true;
        }
        if let Poll::Ready((received, buf)) = self.recv.poll(cx) {
            moved.received = true;
            match received {
                Ok(0) => self.at_end = true,
                Ok(_) => {}
                // Our own wish to rest, not a sign of life.
                Err(e) if e.raw_os_error() == Some(CANCELED) => moved.received = false,
                Err(_) => (self.at_end, self.gone) = (true, true),
            }
            if self.tls.is_some() {
                self.cipher = Some(buf).filter(|b| !b.is_empty());
            } else if !buf.is_empty() {
                *lane = Some(buf);
            }
        }
        moved
    }

    /// Decrypts records into `lane`, as far as its buffer has room. Answers the bytes gained.
    ///
    /// `need` is what the lane's machine wants to see whole: the buffer grows for that and for nothing else.
    pub fn decrypt(&mut self, lane: &mut Option<Buf>, need: usize) -> Result<usize, rustls::Error> {
        let (Some(tls), Some(cipher)) = (self.tls.as_mut(), self.cipher.as_mut()) else { return Ok(0) };
        let mut gained = 0;
        if let Some(record) = whole_record(cipher.filled()) {
            let plain = lane.get_or_insert_with(|| self.pool.large());
            if plain.room() < record {
                plain.compact();
                if plain.room() < record && plain.len() < need {
                    *plain = grown(&self.pool, plain, need.max(plain.len()) + record);
                }
            }
            let before = plain.len();
            let read = tls.read(cipher, plain);
            gained = plain.len() - before;
            if plain.is_empty() {
                *lane = None;
            }
            read?;
        }
        if cipher.is_empty() {
            self.cipher = None;
        }
        if tls.peer_closed() {
            self.at_end = true;
            self.cipher = None;
        }
        Ok(gained)
    }

    /// Starts a receive unless one is in flight, the peer is done, or whole records still wait. `lane` is what the
    /// lane has not decided: a plain receive goes behind it.
    pub fn arm(&mut self, lane: &mut Option<Buf>, need: usize) {
        if self.at_end || self.recv.is_armed() || self.rest.is_some() {
            return;
        }
        if self.tls.is_some() {
            if self.cipher.as_ref().is_some_and(|c| whole_record(c.filled()).is_some()) {
                return;
            }
            let mut cipher = self.cipher.take().unwrap_or_else(|| self.pool.large());
            cipher.compact();
            self.recv.arm(cipher);
        } else {
            let buf = match lane.take() {
                Some(buf) if buf.room() > 0 && buf.len() + buf.room() >= need => buf,
                Some(mut buf) if buf.capacity() >= need && buf.len() < buf.capacity() => {
                    buf.compact();
                    buf
                }
                Some(buf) => grown(&self.pool, &buf, need),
                None => self.pool.large(),
            };
            self.recv.arm(buf);
        }
    }

    /// Whether a send is in flight or owed, or the peer takes nothing more: nothing may be handed over.
    pub fn is_busy(&self) -> bool {
        self.send.is_armed() || self.backlog.is_some() || self.gone
    }

    /// Whether everything that the peer sent has been handed to its lane, and nothing more will come.
    pub fn is_done(&self) -> bool {
        self.at_end && self.cipher.as_ref().is_none_or(|c| whole_record(c.filled()).is_none())
    }

    /// Notes since when the send in flight has stood still, and says so; 0 when none is in flight.
    pub fn watch_stall(&mut self, now_ms: u64) -> u64 {
        self.sending_since_ms = match (self.send.is_armed(), self.sending_since_ms) {
            (false, _) => 0,
            (true, 0) => now_ms,
            (true, since) => since,
        };
        self.sending_since_ms
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self) -> bool {
        self.send.is_armed()
    }

    /// Sends `buf`. Only when not [`Port::is_busy`].
    pub fn send(&mut self, mut buf: Buf) -> Result<(), rustls::Error> {
        self.bytes_out += buf.len() as u64;
        if self.gone {
            return Ok(());
        }
        let Some(tls) = self.tls.as_mut() else {
            self.transmit(buf);
            return Ok(());
        };
        let mut out = self.pool.large();
        let taken = tls.write(buf.filled(), &mut out)?;
        buf.consume(taken);
        if !buf.is_empty() {
            self.backlog = Some(buf);
        }
        self.transmit(out);
        Ok(())
    }

    /// Sends at once what fits; the ring takes the rest.
    fn transmit(&mut self, mut buf: Buf) {
        match self.stream.send_now(buf.filled()) {
            Ok(sent) => buf.consume(sent),
            Err(_) => return self.takes_no_more(),
        }
        if !buf.is_empty() {
            self.send.arm(buf);
        }
    }

    /// The peer takes nothing more. What it has said before can still be read, and then comes an end.
    fn takes_no_more(&mut self) {
        self.gone = true;
        self.backlog = None;
        self.stream.shutdown_read();
    }

    /// Sends what an earlier send left over, and TLS' own records, when the socket is free.
    pub fn flush(&mut self) -> Result<bool, rustls::Error> {
        if self.send.is_armed() || self.gone {
            return Ok(false);
        }
        if let Some(buf) = self.backlog.take() {
            self.bytes_out -= buf.len() as u64;
            self.send(buf)?;
            return Ok(true);
        }
        match self.tls.as_mut() {
            Some(tls) if tls.has_control() => {
                let control = tls.take_control();
                let mut out = self.pool.at_least(control.len());
                out.append(&control);
                self.transmit(out);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Adds the close_notify record to what [`Port::flush`] sends.
    pub fn say_goodbye(&mut self) {
        if let Some(tls) = self.tls.as_mut() {
            tls.close();
        }
    }

    /// Gives the receive buffer back: the receive in flight is cancelled, and the next one waits for readiness.
    pub fn rest(&mut self) {
        if self.recv.is_armed() && self.cipher.is_none() {
            self.stream.cancel_recv();
        }
    }

    /// After a cancelled receive: waits for readiness without a buffer.
    pub fn wait_readable(&mut self) {
        if !self.at_end && !self.recv.is_armed() && self.rest.is_none() {
            self.rest = Some(self.stream.readable_boxed());
        }
    }

    /// Drops records that nobody will read any more.
    pub fn forget_records(&mut self) {
        self.cipher = None;
        self.rest = None;
    }

    /// Whether a receive is in flight.
    pub fn is_receiving(&self) -> bool {
        self.recv.is_armed()
    }

    /// Whether nothing is held: no buffer, no record.
    pub fn holds_nothing(&self) -> bool {
        !self.send.is_armed() && self.backlog.is_none() && self.cipher.is_none()
    }

    /// The socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}

/// Linux' ECANCELED.
const CANCELED: i32 = 125;

fn grown(pool: &Rc<Pool>, buf: &Buf, need: usize) -> Buf {
    let mut larger = pool.at_least(need.max(buf.len() + 1));
    larger.append(buf.filled());
    larger
}
