//! A connection during its cold phases: byte-oriented, with a deadline, in the clear or through TLS. The pump
//! takes it apart into ports.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::net::buffer::{Buf, Pool};
use crate::net::stream::Stream;
use crate::net::within;
use crate::tls::Tls;
use crate::worker::Core;

/// A connection that is not yet, or no longer, in the pump.
pub struct Link {
    /// The socket.
    pub stream: Stream,
    /// TLS, once started.
    pub tls: Option<Tls>,
    /// Plain bytes received and not consumed.
    pub plain: Buf,
    /// TLS records received and not decrypted.
    pub cipher: Option<Buf>,
    /// When the phase ends.
    pub deadline: Instant,
    pool: Rc<Pool>,
}

/// Why a link failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The deadline passed.
    #[error("timed out")]
    TimedOut,
    /// TLS was broken or refused.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer closed.
    #[error("connection closed")]
    Gone,
}

impl Link {
    /// A link over `stream`, in the clear.
    pub fn new(stream: Stream, pool: &Rc<Pool>, deadline: Instant) -> Link {
        Link { stream, tls: None, plain: pool.small(), cipher: None, deadline, pool: pool.clone() }
    }

    /// Receives more plain bytes, until at least `need` stand in `plain`.
    pub async fn fill(&mut self, need: usize) -> Result<(), LinkError> {
        self.make_room(need);
        while self.plain.len() < need {
            let before = self.plain.len();
            match self.tls {
                None => self.receive_plain().await?,
                Some(_) => self.receive_records().await?,
            }
            if self.plain.len() == before {
                return Err(LinkError::Gone);
            }
        }
        Ok(())
    }

    fn make_room(&mut self, need: usize) {
        if self.plain.capacity() < need {
            let mut larger = self.pool.exactly(need);
            larger.append(self.plain.filled());
            self.plain = larger;
        }
        self.plain.compact();
    }

    async fn receive_plain(&mut self) -> Result<(), LinkError> {
        receive(&self.stream, &mut self.plain, self.deadline).await
    }

    async fn receive_records(&mut self) -> Result<(), LinkError> {
        let before = self.plain.len();
        loop {
            let tls = self.tls.as_mut().ok_or(LinkError::Gone)?;
            let cipher = self.cipher.get_or_insert_with(|| self.pool.small());
            let record = crate::tls::whole_record(cipher.filled()).unwrap_or(0);
            if self.plain.room() < record {
                let mut larger = self.pool.exactly(self.plain.len() + record);
                larger.append(self.plain.filled());
                self.plain = larger;
            }
            let read = tls.read(cipher, &mut self.plain);
            let control = tls.take_control();
            if !control.is_empty() {
                self.send_raw(&control).await?;
            }
            read?;
            let tls = self.tls.as_ref().ok_or(LinkError::Gone)?;
            if self.plain.len() > before || tls.peer_closed() {
                break;
            }
            if !self.receive_cipher().await? {
                break;
            }
        }
        if self.cipher.as_ref().is_some_and(Buf::is_empty) {
            self.cipher = None;
        }
        Ok(())
    }

    /// More records; `false` at the end of the stream.
    async fn receive_cipher(&mut self) -> Result<bool, LinkError> {
        let cipher = self.cipher.get_or_insert_with(|| self.pool.small());
        cipher.compact();
        // No larger than the record at the front: who is not known yet gets no memory on credit.
        let wanted = crate::tls::record(cipher.filled()).unwrap_or(0).max(cipher.len() + 1);
        if cipher.capacity() < wanted {
            let mut larger = self.pool.exactly(wanted);
            larger.append(cipher.filled());
            *cipher = larger;
        }
        let before = cipher.len();
        receive(&self.stream, cipher, self.deadline).await?;
        Ok(cipher.len() > before)
    }

    /// Sends `bytes`, through TLS where it is up.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let Some(tls) = self.tls.as_mut() else { return self.send_raw(bytes).await };
        let mut rest = bytes;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let mut out = self.pool.large();
            let taken = tls.write(rest, &mut out)?;
            if taken == 0 {
                return Err(LinkError::Gone);
            }
            rest = &rest[taken..];
            records.push(out);
        }
        for out in records {
            self.send_raw(out.filled()).await?;
        }
        Ok(())
    }

    async fn send_raw(&self, bytes: &[u8]) -> Result<(), LinkError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        within(left, self.stream.send_all(bytes)).await.ok_or(LinkError::TimedOut)?.map_err(LinkError::Io)
    }

    /// Shakes hands. What stands in `plain` are the first records. `turns` rations the steps among the connections
    /// of a worker.
    pub async fn start_tls(&mut self, tls: Tls, turns: Option<&Core>) -> Result<(), LinkError> {
        let mut cipher = self.pool.exactly(self.plain.len());
        cipher.append(self.plain.filled());
        self.plain.consume(self.plain.len());
        self.cipher = Some(cipher);
        self.tls = Some(tls);
        loop {
            if let Some(core) = turns
                && self.cipher.as_ref().is_some_and(|c| crate::tls::whole_record(c.filled()).is_some())
            {
                core.handshake_turn().await;
            }
            let (read, control, done) = {
                let (Some(tls), Some(cipher)) = (self.tls.as_mut(), self.cipher.as_mut()) else {
                    return Err(LinkError::Gone);
                };
                let read = tls.read(cipher, &mut self.plain);
                (read, tls.take_control(), tls.is_established())
            };
            if !control.is_empty() {
                self.send_raw(&control).await?;
            }
            read?;
            if done {
                return Ok(());
            }
            if !self.receive_cipher().await? {
                return Err(LinkError::Gone);
            }
        }
    }

    /// Says goodbye and closes our direction. Best effort: the peer may be gone.
    pub async fn close(mut self, last: &[u8]) {
        if !last.is_empty() && self.send(last).await.is_err() {
            return;
        }
        if let Some(tls) = self.tls.as_mut() {
            tls.close();
            let control = tls.take_control();
            let _ = self.send_raw(&control).await;
        }
        self.stream.shutdown_write();
        self.linger().await;
    }

    /// Takes what the peer still had on the way. Closing with unread bytes would make the kernel send a reset,
    /// which may overtake our last words.
    async fn linger(&mut self) {
        let until = Instant::now() + std::time::Duration::from_millis(500);
        for _ in 0..64 {
            let mut buf = self.pool.small();
            let received = receive(&self.stream, &mut buf, until.min(self.deadline.max(Instant::now()))).await;
            if received.is_err() || buf.is_empty() {
                return;
            }
        }
    }
}

async fn receive(stream: &Stream, buf: &mut Buf, deadline: Instant) -> Result<(), LinkError> {
    let left = deadline.saturating_duration_since(Instant::now());
    within(left, stream.recv(buf)).await.ok_or(LinkError::TimedOut)??;
    Ok(())
}
