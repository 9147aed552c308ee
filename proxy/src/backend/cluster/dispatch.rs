//! Reads the client's commands and sends each where it belongs.
//!
//! Commands of one node or of pieces go out at once, however many; their answers are owed in the queue. All others
//! wait until nothing is owed, and are then served from end to end.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ringgate_protocol::redis::cluster::handling::Handling;
use ringgate_protocol::redis::cluster::{Cursor, Request, Scan, Slot, Split, Walk, split};

use super::entry::{Entry, Sent};
use super::node::Lost;
use super::router::{Found, Router};

/// A command up to this length is kept until it is answered; a longer one is passed on as it arrives.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// The longest command that is looked at whole: to be cut, or because its keys stand behind its other arguments.
const WHOLE_BYTES_MAX: usize = 16 << 20;
/// Bytes for one node that are sent without waiting for more commands.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the last commands of a client that has closed may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What stands at the front.
enum Next {
    /// A whole command.
    Whole(Vec<u8>, Scan),
    /// The front of a long one.
    Long(Scan),
}

/// What a command is, without its bytes.
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    pub(super) handling: Handling,
    /// Its first key's; an error where keys cannot be told.
    pub(super) slot: Result<Option<Slot>, Vec<u8>>,
    only_reads: bool,
    writes: bool,
    blocks: bool,
}

impl<'a> Facts<'a> {
    fn of(request: &Request<'a>) -> Facts<'a> {
        let untold =
            |name: String| format!("-ERR ringgate: the keys of command '{name}' cannot be told on a cluster\r\n");
        Facts {
            name: request.name(),
            handling: request.handling,
            slot: request.slot().map_err(|_| untold(request.shown()).into_bytes()),
            only_reads: request.only_reads(),
            writes: request.writes(),
            blocks: request.blocks(),
        }
    }
}

impl Router {
    /// Serves the client's commands until it is gone.
    pub(super) async fn dispatch(&self) {
        while let Ok(next) = self.next().await {
            let served = match next {
                Next::Whole(command, scan) => self.serve(command, scan).await,
                Next::Long(scan) => self.stream(scan).await,
            };
            if served.is_err() {
                return;
            }
        }
        self.flush_nodes().await;
        // Whoever does not wait for its replies has no right to them.
        let _ = crate::net::within(LAST_WORDS, self.bell.until(|| self.is_quiet().then_some(()))).await;
    }

    /// The next command.
    async fn next(&self) -> Result<Next, Lost> {
        if self.stale.get() {
            // What is on its way for a slot that moves comes first.
            self.quiet().await?;
            self.refresh().await;
        }
        if self.owes_much() {
            self.flush_nodes().await;
            self.bell.until(|| (!self.owes_much()).then_some(())).await;
        }
        let mut scan = Scan::default();
        loop {
            if let Some(len) = self.front.look(|input| scan.advance(input))? {
                let command = self.front.look(|input| input[..len].to_vec());
                self.front.consume(len);
                return Ok(Next::Whole(command, scan));
            }
            let limit = self.front.look(|input| match input.len() {
                0..KEPT_BYTES_MAX => WHOLE_BYTES_MAX,
                _ => match scan.request(input, &self.table) {
                    Some(request) if request.handling == Handling::Keyed && request.slot().is_ok() => KEPT_BYTES_MAX,
                    _ => WHOLE_BYTES_MAX,
                },
            });
            if self.front.look(<[u8]>::len) >= limit {
                return Ok(Next::Long(scan));
            }
            if !self.front.try_fill()? {
                self.flush_nodes().await;
                self.front.fill().await?;
            }
        }
    }

    /// Waits until nothing is owed. An error: the client is gone.
    pub(super) async fn quiet(&self) -> Result<(), Lost> {
        self.flush_nodes().await;
        let mut done = pin!(self.bell.until(|| self.is_quiet().then_some(())));
        while self.front.look(<[u8]>::len) < KEPT_BYTES_MAX {
            let mut more = pin!(self.front.fill());
            let filled = std::future::poll_fn(|cx| {
                if done.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                more.as_mut().poll(cx).map(Some)
            });
            match filled.await {
                None => return Ok(()),
                Some(filled) => filled?,
            }
        }
        done.await;
        Ok(())
    }

    async fn serve(&self, command: Vec<u8>, scan: Scan) -> Result<(), Lost> {
        let request = scan.request(&command, &self.table).ok_or(Lost)?;
        let facts = Facts::of(&request);
        if self.in_transaction() || matches!(facts.handling, Handling::Transaction(_)) {
            return self.transact(&request, &facts, &command).await;
        }
        if facts.name == "PING" && self.subscribed_in_resp2() {
            self.quiet().await?;
            return self.ping_subscribed(&command).await;
        }
        match facts.handling {
            Handling::Keyed | Handling::Channel => {
                let only_reads = facts.only_reads;
                let (writes, blocks) = (facts.writes, facts.blocks);
                let found = self.place(&facts).await;
                self.send(found, command, only_reads, writes).await;
                if blocks {
                    // The client's next commands are for the time behind it.
                    self.quiet().await?;
                }
            }
            Handling::Split(how) => match request.pieces(how) {
                None => {
                    let (only_reads, writes) = (facts.only_reads, facts.writes);
                    let found = self.place(&facts).await;
                    self.send(found, command, only_reads, writes).await;
                }
                Some(pieces) => self.send_pieces(how, pieces, facts.only_reads).await,
            },
            Handling::Scan => self.send_scan(&request, &command).await,
            Handling::LastWritten => {
                let last = self.last_written.borrow().clone().filter(|node| !node.is_lost());
                let found = match last {
                    Some(node) => Ok(node),
                    None => self.any().await,
                };
                self.send(found, command, false, false).await;
                self.quiet().await?;
            }
            Handling::Nothing => self.owe(Entry::Text(b"+OK\r\n".to_vec())),
            Handling::Select => {
                let answer: &[u8] = match request.argument(1) {
                    Some(b"0") => b"+OK\r\n",
                    _ => b"-ERR SELECT is not allowed in cluster mode\r\n",
                };
                self.owe(Entry::Text(answer.to_vec()));
            }
            Handling::Refused => self.owe(Entry::Text(unsupported(&request))),
            _ => {
                self.quiet().await?;
                return self.serve_alone(&request, &command).await;
            }
        }
        Ok(())
    }

    /// Where a command belongs.
    pub(super) async fn place(&self, facts: &Facts<'_>) -> Found {
        match &facts.slot {
            Ok(Some(slot)) => self.owner(*slot).await,
            Ok(None) => self.any().await,
            Err(text) => Err(text.clone()),
        }
    }

    async fn send(&self, found: Found, command: Vec<u8>, only_reads: bool, writes: bool) {
        match found {
            Err(text) => self.owe(Entry::Text(text)),
            Ok(node) => {
                node.command(&command);
                if writes {
                    *self.last_written.borrow_mut() = Some(node.clone());
                }
                let full = node.waiting() >= BATCH_BYTES;
                self.owe(Entry::Reply(Sent { node: node.clone(), command: Some(command), only_reads }));
                if full {
                    node.flush().await;
                }
            }
        }
    }

    async fn send_pieces(&self, how: Split, pieces: Vec<split::Piece>, only_reads: bool) {
        // Before the first piece goes out all their nodes must be at hand.
        let mut nodes = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            match self.owner(piece.slot).await {
                Ok(node) => nodes.push(node),
                Err(text) => return self.owe(Entry::Text(text)),
            }
        }
        let mut sent = Vec::with_capacity(pieces.len());
        for (piece, node) in pieces.into_iter().zip(nodes) {
            node.command(&piece.command);
            if !only_reads {
                *self.last_written.borrow_mut() = Some(node.clone());
            }
            sent.push((Sent { node, command: Some(piece.command), only_reads }, piece.keys));
        }
        self.owe(match how {
            Split::Values => Entry::Values(sent),
            Split::Count => Entry::Sum(sent.into_iter().map(|(sent, _)| sent).collect()),
            Split::Pairs => Entry::Same(sent.into_iter().map(|(sent, _)| sent).collect()),
        });
        // The sum of the pieces is as large as the command was.
        self.flush_nodes().await;
    }

    async fn send_scan(&self, request: &Request<'_>, command: &[u8]) {
        let masters = self.topology.borrow().masters().to_vec();
        let Some(cursor) = request.argument(1).and_then(Cursor::parse) else {
            let found = self.any().await;
            return self.send(found, command.to_vec(), true, false).await;
        };
        let Some(address) = masters.get(cursor.place) else {
            return self.owe(Entry::Text(b"*2\r\n$1\r\n0\r\n*0\r\n".to_vec()));
        };
        let Ok(node) = self.node(address).await else {
            self.stale.set(true);
            return self.owe(Entry::Text(b"-CLUSTERDOWN ringgate: not every node can be reached\r\n".to_vec()));
        };
        let mut out = Vec::new();
        split::write_head(&mut out, request.count());
        for index in 0..request.count() {
            match index {
                1 => split::write_argument(&mut out, cursor.inner.to_string().as_bytes()),
                _ => split::write_argument(&mut out, request.argument(index).unwrap_or_default()),
            }
        }
        node.command(&out);
        // Another node than this one has other keys: a reply that is lost is not asked for elsewhere.
        let sent = Sent { node, command: Some(out), only_reads: true };
        self.owe(Entry::Scan(sent, cursor.place, masters.len()));
    }

    /// A long command: its front says where it belongs, the rest passes as it arrives. It is not kept: when its slot
    /// has moved the client has to send it again.
    async fn stream(&self, scan: Scan) -> Result<(), Lost> {
        let found = self.front.look(|input| {
            let request = scan.request(input, &self.table)?;
            let facts = Facts::of(&request);
            Some(match facts.handling {
                Handling::Keyed | Handling::Channel | Handling::Split(_) => (facts.slot, facts.writes),
                _ => (Err(b"-ERR ringgate: the command is too long for a cluster\r\n".to_vec()), false),
            })
        });
        // A name alone is never so long.
        let (slot, writes) = found.ok_or(Lost)?;
        let found = if self.in_transaction() {
            self.place_in_transaction(slot).await
        } else {
            match slot {
                Ok(Some(slot)) => self.owner(slot).await,
                Ok(None) => self.any().await,
                Err(text) => Err(text),
            }
        };
        match &found {
            Ok(node) => {
                node.command(b"");
                if writes {
                    *self.last_written.borrow_mut() = Some(node.clone());
                }
                self.owe(if self.in_transaction() {
                    Entry::Bound(node.clone())
                } else {
                    Entry::Reply(Sent { node: node.clone(), command: None, only_reads: false })
                });
            }
            Err(text) => self.owe(Entry::Text(text.clone())),
        }
        self.flush_nodes().await;
        let mut walk = Walk::over(1);
        while !walk.is_done() {
            let passed = self.front.pass(&mut walk, |bytes| {
                if let Ok(node) = &found {
                    node.write(bytes);
                }
            })?;
            if let Ok(node) = &found {
                node.flush().await;
            }
            if passed == 0 || !walk.is_done() {
                self.front.fill().await?;
            }
        }
        Ok(())
    }
}

/// The answer to what cannot work.
pub(super) fn unsupported(request: &Request<'_>) -> Vec<u8> {
    format!("-ERR ringgate: command '{}' is not supported through the gateway\r\n", request.shown()).into_bytes()
}
