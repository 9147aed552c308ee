//! One socket of a session in the pump: what it waits for, what it has not taken yet, and its TLS.

use std::io;
use std::rc::Rc;
use std::task::Context;

use super::link::Link;
use crate::net::buffer::{Buf, Pool};
use crate::net::stream::Stream;
use crate::tls::{Tls, whole_record};

/// One peer's socket. It holds a buffer only for bytes that are there.
pub struct Port {
    stream: Stream,
    /// The session's task is woken when there is something to receive.
    waiting: bool,
    tls: Option<Tls>,
    /// TLS records received and not yet decrypted.
    cipher: Option<Buf>,
    /// What the socket has not taken yet of the last send.
    unsent: Option<Buf>,
    /// Plain bytes that did not fit into the last TLS send, to go next.
    backlog: Option<Buf>,
    pool: Rc<Pool>,
    /// The last receive filled its buffer: there is more for certain, or nearly so.
    more: bool,
    /// The peer will send nothing more.
    pub at_end: bool,
    /// The peer takes nothing more: what is sent is dropped.
    pub gone: bool,
    /// Milliseconds of the worker's clock since when a send has made no progress; 0 when none is waiting.
    pub sending_since_ms: u64,
    /// Plain bytes received and sent.
    pub bytes_in: u64,
    /// Plain bytes handed to the socket.
    pub bytes_out: u64,
}

/// What a port's polls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Something was received, or the end of the stream.
    pub received: bool,
    /// The socket took something.
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
        // The cold phases' buffers are as large as a record; here one must have room behind it.
        let cipher = cipher.filter(|c| !c.is_empty()).map(|c| {
            let mut larger = pool.large();
            larger.append(c.filled());
            larger
        });
        let port = Port {
            stream,
            waiting: false,
            tls,
            cipher,
            unsent: None,
            backlog: None,
            pool: pool.clone(),
            more: false,
            at_end: false,
            gone: false,
            sending_since_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
        };
        (port, Some(plain).filter(|p| !p.is_empty()))
    }

    /// Polls what is waited for. Received bytes land in `lane` (plain) or wait as records for [`Port::decrypt`];
    /// `need` is what the lane's machine wants to see whole.
    pub fn poll(&mut self, cx: &mut Context<'_>, lane: &mut Option<Buf>, need: usize) -> Moved {
        let sent = self.unsent.is_some() && self.poll_send(cx);
        let received = self.waiting && self.stream.poll_readable(cx).is_ready() && self.receive(lane, need);
        Moved { received, sent }
    }

    /// Receives what is there. Answers whether that was anything, the end included.
    fn receive(&mut self, lane: &mut Option<Buf>, need: usize) -> bool {
        let mut buf = if self.tls.is_some() {
            let mut cipher = self.cipher.take().unwrap_or_else(|| self.pool.large());
            cipher.compact();
            cipher
        } else {
            match lane.take() {
                Some(buf) if buf.room() > 0 && buf.len() + buf.room() >= need => buf,
                Some(mut buf) if buf.capacity() >= need && buf.len() < buf.capacity() => {
                    buf.compact();
                    buf
                }
                Some(buf) => grown(&self.pool, &buf, need),
                None => self.pool.large(),
            }
        };
        let received = self.stream.recv_now(&mut buf);
        self.waiting = false;
        self.more = buf.room() == 0;
        let into = if self.tls.is_some() { &mut self.cipher } else { lane };
        *into = Some(buf).filter(|b| !b.is_empty());
        match received {
            Ok(0) => self.at_end = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => (self.at_end, self.gone) = (true, true),
        }
        true
    }

    /// Offers the socket again what it has not taken, once it says that it has room. Answers whether it took some.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(buf) = self.unsent.as_mut() {
            if self.stream.poll_writable(cx).is_pending() {
                break;
            }
            match self.stream.send_now(buf.filled()) {
                Ok(sent) => {
                    buf.consume(sent);
                    moved |= sent > 0;
                }
                Err(_) => {
                    self.takes_no_more();
                    return true;
                }
            }
            if buf.is_empty() {
                self.unsent = None;
            }
        }
        if moved {
            self.sending_since_ms = 0;
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

    /// Asks for more bytes: receives at once what is likely to be there, else begins to wait. Answers whether
    /// something came. `lane` is what the lane has not decided: a plain receive goes behind it.
    pub fn want(&mut self, cx: &mut Context<'_>, lane: &mut Option<Buf>, need: usize) -> bool {
        if self.at_end || self.cipher.as_ref().is_some_and(|c| whole_record(c.filled()).is_some()) {
            return false;
        }
        if std::mem::take(&mut self.more) && self.receive(lane, need) {
            return true;
        }
        while self.stream.poll_readable(cx).is_ready() {
            if self.receive(lane, need) {
                return true;
            }
        }
        self.waiting = true;
        false
    }

    /// Whether the port waits for bytes and nothing else: it owes nothing and holds nothing.
    pub fn is_at_rest(&self) -> bool {
        self.waiting && self.holds_nothing() && !self.gone && !self.at_end && !self.owes_control()
    }

    fn owes_control(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::has_control)
    }

    /// Whether a send is owed, or the peer takes nothing more: nothing may be handed over.
    pub fn is_busy(&self) -> bool {
        self.unsent.is_some() || self.backlog.is_some() || self.gone
    }

    /// Whether everything that the peer sent has been handed to its lane, and nothing more will come.
    pub fn is_done(&self) -> bool {
        self.at_end && self.cipher.as_ref().is_none_or(|c| whole_record(c.filled()).is_none())
    }

    /// Notes since when the waiting send has stood still, and says so; 0 when none waits.
    pub fn watch_stall(&mut self, now_ms: u64) -> u64 {
        self.sending_since_ms = match (self.unsent.is_some(), self.sending_since_ms) {
            (false, _) => 0,
            (true, 0) => now_ms,
            (true, since) => since,
        };
        self.sending_since_ms
    }

    /// Whether the socket has not taken all of the last send.
    pub fn is_sending(&self) -> bool {
        self.unsent.is_some()
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

    /// Sends at once what fits; the next polls send the rest.
    fn transmit(&mut self, mut buf: Buf) {
        match self.stream.send_now(buf.filled()) {
            Ok(sent) => buf.consume(sent),
            Err(_) => return self.takes_no_more(),
        }
        self.unsent = Some(buf).filter(|b| !b.is_empty());
    }

    /// The peer takes nothing more. What it has said before can still be read, and then comes an end.
    fn takes_no_more(&mut self) {
        self.gone = true;
        self.unsent = None;
        self.backlog = None;
        self.stream.shutdown_read();
    }

    /// Sends what an earlier send left over, and TLS' own records, when the socket is free.
    pub fn flush(&mut self) -> Result<bool, rustls::Error> {
        if self.unsent.is_some() || self.gone {
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

    /// Drops records that nobody will read any more.
    pub fn forget_records(&mut self) {
        self.cipher = None;
    }

    /// Whether nothing is held: no buffer, no record.
    pub fn holds_nothing(&self) -> bool {
        self.unsent.is_none() && self.backlog.is_none() && self.cipher.is_none()
    }

    /// The socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}

fn grown(pool: &Rc<Pool>, buf: &Buf, need: usize) -> Buf {
    let mut larger = pool.at_least(need.max(buf.len() + 1));
    larger.append(buf.filled());
    larger
}
