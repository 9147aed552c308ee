//! One connection to one node: commands out, replies in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringgate_protocol::redis::cluster::{Address, BrokenReply, Token, Walk, token};

use crate::net::buffer::{Buf, Pool};
use crate::net::stream::Stream;
use crate::net::within;
use crate::session::link::Link;
use crate::tls::{Tls, whole_record};

/// A signed-in connection. Only one future reads it and only one writes it at a time.
pub(super) struct Node {
    /// Where it leads.
    pub(super) address: Address,
    stream: Stream,
    tls: RefCell<Option<Tls>>,
    plain: RefCell<Option<Buf>>,
    cipher: RefCell<Option<Buf>>,
    out: RefCell<Vec<u8>>,
    lost: Cell<bool>,
    /// Commands whose replies have not been read.
    pub(super) in_flight: Cell<u64>,
    stall: Duration,
    pool: Rc<Pool>,
}

/// The connection is gone, or of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl From<BrokenReply> for Lost {
    fn from(_: BrokenReply) -> Lost {
        Lost
    }
}

/// The head of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// An error: the line behind `-`.
    Error(Vec<u8>),
    /// An array, set or map of so many values, and the bytes of its head.
    Aggregate(u64, usize),
    /// A bulk string of so many bytes, and the bytes of its head.
    Bulk(u64, usize),
    /// A line with its type.
    Line(Vec<u8>),
    /// Nothing.
    Null,
    /// A push.
    Push,
}

/// Room for commands that is kept for the next ones, in bytes.
const KEEP_OUT_BYTES: usize = 64 * 1024;

impl Node {
    /// Over a link that has signed in.
    pub(super) fn new(address: Address, link: Link, pool: &Rc<Pool>, stall: Duration) -> Rc<Node> {
        let Link { stream, tls, plain, cipher, .. } = link;
        Rc::new(Node {
            address,
            stream,
            tls: RefCell::new(tls),
            plain: RefCell::new(Some(plain).filter(|p| !p.is_empty())),
            cipher: RefCell::new(cipher.filter(|c| !c.is_empty())),
            out: RefCell::default(),
            lost: Cell::new(false),
            in_flight: Cell::new(0),
            stall,
            pool: pool.clone(),
        })
    }

    /// Whether it is of no more use.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Makes it of no more use.
    pub(super) fn give_up(&self) {
        self.lost.set(true);
    }

    /// Whether it still stands: a node that closed while nobody asked it anything is noticed here.
    pub(super) fn still_stands(&self) -> bool {
        !self.is_lost() && (self.in_flight.get() > 0 || self.try_fill().is_ok())
    }

    /// Adds to what is to be sent.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.out.borrow_mut().extend_from_slice(bytes);
    }

    /// Adds a command to what is to be sent; one reply will come.
    pub(super) fn command(&self, bytes: &[u8]) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.write(bytes);
    }

    /// Bytes to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.out.borrow().len()
    }

    /// Sends what was written. A lost node takes everything and sends nothing.
    pub(super) async fn flush(&self) {
        let mut bytes = std::mem::take(&mut *self.out.borrow_mut());
        if bytes.is_empty() || self.is_lost() {
            return;
        }
        if self.send(&bytes).await.is_err() {
            self.lost.set(true);
        }
        bytes.clear();
        let mut out = self.out.borrow_mut();
        if out.is_empty() && bytes.capacity() <= KEEP_OUT_BYTES {
            *out = bytes;
        }
    }

    async fn send(&self, mut bytes: &[u8]) -> Result<(), Lost> {
        if self.tls.borrow().is_none() {
            return self.send_raw(bytes).await;
        }
        while !bytes.is_empty() {
            let mut records = self.pool.large();
            let taken = match self.tls.borrow_mut().as_mut() {
                Some(tls) => tls.write(bytes, &mut records).map_err(|_| Lost)?,
                None => 0,
            };
            if taken == 0 {
                return Err(Lost);
            }
            bytes = &bytes[taken..];
            self.send_raw(records.filled()).await?;
        }
        Ok(())
    }

    async fn send_raw(&self, mut bytes: &[u8]) -> Result<(), Lost> {
        while !bytes.is_empty() {
            match self.stream.send_now(bytes).map_err(|_| Lost)? {
                0 => within(self.stall, self.stream.writable()).await.ok_or(Lost)?,
                sent => bytes = &bytes[sent..],
            }
        }
        Ok(())
    }

    /// Takes what has arrived, without waiting. Says whether that was anything.
    pub(super) fn try_fill(&self) -> Result<bool, Lost> {
        let filled = self.receive();
        if filled.is_err() {
            self.lost.set(true);
        }
        filled
    }

    fn receive(&self) -> Result<bool, Lost> {
        if self.is_lost() {
            return Err(Lost);
        }
        let mut plain = self.plain.borrow_mut().take().unwrap_or_else(|| self.pool.large());
        let mut tls = self.tls.borrow_mut();
        let before = plain.len();
        let received = match tls.as_mut() {
            None => {
                make_room(&mut plain);
                self.receive_into(&mut plain)
            }
            Some(tls) => {
                let mut cipher = self.cipher.borrow_mut().take().unwrap_or_else(|| self.pool.large());
                cipher.compact();
                let mut received = Ok(());
                if whole_record(cipher.filled()).is_none() {
                    received = self.receive_into(&mut cipher);
                }
                plain.reserve(whole_record(cipher.filled()).unwrap_or(0));
                let read = tls.read(&mut cipher, &mut plain);
                *self.cipher.borrow_mut() = Some(cipher).filter(|c| !c.is_empty());
                if read.is_err() || (tls.peer_closed() && plain.len() == before) { Err(Lost) } else { received }
            }
        };
        let gained = plain.len() > before;
        *self.plain.borrow_mut() = Some(plain).filter(|p| !p.is_empty());
        // What came before the end still counts.
        if gained { Ok(true) } else { received.map(|()| false) }
    }

    fn receive_into(&self, buf: &mut Buf) -> Result<(), Lost> {
        match self.stream.recv_now(buf) {
            Ok(0) => Err(Lost),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Lost),
        }
    }

    /// Waits until more has arrived.
    pub(super) async fn fill(&self) -> Result<(), Lost> {
        while !self.try_fill()? {
            self.stream.readable().await;
        }
        Ok(())
    }

    /// The head of the next value, if it has arrived whole. Nothing is consumed. A push's is not looked into.
    pub(super) fn peek(&self) -> Result<Option<Head>, Lost> {
        let plain = self.plain.borrow();
        let Some(plain) = plain.as_ref() else { return Ok(None) };
        let read = token(plain.filled());
        if read.is_err() {
            self.lost.set(true);
        }
        let Some((token, len)) = read? else { return Ok(None) };
        Ok(Some(match token {
            Token::Line { kind: b'-', text } => Head::Error(text.to_vec()),
            Token::Line { .. } => Head::Line(plain.filled()[..len - 2].to_vec()),
            Token::Bulk { len: body, .. } => Head::Bulk(body, len),
            Token::Null => Head::Null,
            Token::Aggregate { kind: b'>', .. } => Head::Push,
            Token::Aggregate { values, .. } => Head::Aggregate(values, len),
            // Attributes are hints that a router of many nodes does not carry.
            Token::Attributes { .. } => return Err(self.broke()),
        }))
    }

    fn broke(&self) -> Lost {
        self.lost.set(true);
        Lost
    }

    /// Moves as much of the values that `walk` goes over as has arrived to `take`. Says how much that was.
    pub(super) fn pass(&self, walk: &mut Walk, take: impl FnOnce(&[u8])) -> Result<usize, Lost> {
        let mut plain = self.plain.borrow_mut();
        let Some(buf) = plain.as_mut() else { return Ok(0) };
        let len = walk.advance(buf.filled()).map_err(|_| self.broke())?;
        take(&buf.filled()[..len]);
        buf.consume(len);
        if buf.is_empty() {
            *plain = None;
        }
        Ok(len)
    }

    /// Drops the next `len` bytes, which have arrived.
    pub(super) fn consume(&self, len: usize) {
        let mut plain = self.plain.borrow_mut();
        if let Some(buf) = plain.as_mut() {
            buf.consume(len);
            if buf.is_empty() {
                *plain = None;
            }
        }
    }

    /// The bytes that have arrived.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(self.plain.borrow().as_ref().map_or(&[], Buf::filled))
    }

    /// One reply has been read to its end.
    pub(super) fn answered(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// Reads one whole reply of at most `max` bytes; pushes in front of it are dropped.
    pub(super) async fn collect(&self, max: usize) -> Result<Vec<u8>, Lost> {
        loop {
            let mut reply = Vec::new();
            let is_push = loop {
                match self.peek()? {
                    Some(head) => break head == Head::Push,
                    None => self.fill().await?,
                }
            };
            let mut walk = Walk::over(1);
            while !walk.is_done() {
                if self.pass(&mut walk, |bytes| reply.extend_from_slice(bytes))? == 0 && !walk.is_done() {
                    self.fill().await?;
                }
                if reply.len() > max {
                    return Err(self.broke());
                }
            }
            if !is_push {
                self.answered();
                return Ok(reply);
            }
        }
    }
}

/// Room for more behind what is filled: the buffer grows where a head is cut, which has a bound of its own.
fn make_room(buf: &mut Buf) {
    if buf.room() == 0 {
        buf.compact();
    }
    if buf.room() == 0 {
        buf.reserve(buf.len());
    }
}
