//! Writes the answers in the order of the commands: replies are passed on as they arrive, those of the nodes whose
//! turn has not come stay with them.

use std::rc::Rc;
use std::time::Duration;

use ringgate_protocol::redis::cluster::{Cursor, Merge, Part, Redirect, Walk};

use super::entry::{Entry, Sent};
use super::node::{Head, Lost, Node};
use super::router::Router;

/// How often one command is sent again because its slot has moved, and how often of that without a pause: while a slot
/// moves its nodes may send a client to and fro.
const REDIRECTS_MAX: usize = 50;
const REDIRECTS_AT_ONCE: usize = 4;
/// How often, and how far apart, while the keys of its slot are on their way.
const TRIES_MAX: usize = 50;
const TRY_AFTER: Duration = Duration::from_millis(20);
/// Values of a cut MGET that are held back until all have come, so that an error can still be the whole reply.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// The longest reply to a piece that is a number or OK.
const SHORT_BYTES_MAX: usize = 64 * 1024;

const LOST: &[u8] = b"-ERR ringgate: the connection to the node was lost, the command may have been run\r\n";
const MOVED: &[u8] = b"-TRYAGAIN ringgate: the slot of this command is moving to another node\r\n";

impl Router {
    /// Answers what is owed, for ever. Ends when the client is gone, or when a reply stopped in its middle.
    pub(super) async fn emit(&self) {
        loop {
            let entry = self.queue.borrow_mut().pop_front();
            let Some(entry) = entry else {
                self.answering.set(false);
                self.bell.ring();
                if self.front.flush(&self.bell).await.is_err() {
                    return;
                }
                self.bell.until(|| (!self.queue.borrow().is_empty()).then_some(())).await;
                continue;
            };
            self.answering.set(true);
            let bytes = entry.bytes();
            if self.answer(entry).await.is_err() {
                return;
            }
            self.settle(bytes);
            if self.front.is_full() && self.front.flush(&self.bell).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, entry: Entry) -> Result<(), Lost> {
        match entry {
            Entry::Text(text) => self.say(&text).await,
            Entry::Reply(sent) => match self.reach(&sent).await {
                Ok(node) => return self.copy_reply(&node).await,
                Err(text) => self.say(&text).await,
            },
            Entry::Bound(node) => return self.bound(&node).await,
            Entry::Hidden(node) => {
                // Whether it is lost shows with the next reply that counts.
                if self.await_head(&node).await.is_ok() {
                    let _ = self.drop_reply(&node).await;
                }
            }
            Entry::Values(pieces) => return self.values(pieces).await,
            Entry::Sum(pieces) => self.short(pieces, Merge::Sum).await,
            Entry::Same(pieces) => self.short(pieces, Merge::Same).await,
            Entry::Scan(sent, place, places) => return self.scan(&sent, place, places).await,
        }
        Ok(())
    }

    /// Writes a reply of our own.
    pub(super) async fn say(&self, text: &[u8]) {
        self.front.take(&self.bell).await;
        self.front.write(text);
        self.front.give_back(&self.bell);
    }

    /// Waits for more from `node`; the client gets what stands meanwhile.
    async fn more(&self, node: &Node) -> Result<(), Lost> {
        if !node.try_fill()? {
            // Whether the client is gone shows when its commands are read.
            let _ = self.front.flush(&self.bell).await;
            node.fill().await?;
        }
        Ok(())
    }

    /// Waits until the head of the next reply has arrived. Pushes in front of it go to the client.
    async fn await_head(&self, node: &Node) -> Result<Head, Lost> {
        loop {
            match node.peek()? {
                None => self.more(node).await?,
                Some(Head::Push) => self.copy(node, Walk::over(1)).await?,
                Some(head) => return Ok(head),
            }
        }
    }

    /// Waits for the reply to `sent` and follows it through the cluster. The node whose next reply it is, or the error
    /// for the client.
    async fn reach(&self, sent: &Sent) -> Result<Rc<Node>, Vec<u8>> {
        let mut node = sent.node.clone();
        let (mut redirects, mut tries, mut again) = (0, 0, sent.only_reads);
        loop {
            let error = match self.await_head(&node).await {
                Ok(Head::Error(error)) => error,
                Ok(_) => return Ok(node),
                Err(Lost) => {
                    self.stale.set(true);
                    match &sent.command {
                        Some(command) if std::mem::take(&mut again) => {
                            node = self.resend(&node.address.clone(), command, false).await?;
                            continue;
                        }
                        _ => return Err(LOST.to_vec()),
                    }
                }
            };
            let Some(redirect) = Redirect::parse(&error) else { return Ok(node) };
            if matches!(redirect, Redirect::TryAgain | Redirect::Down)
                && (sent.command.is_none()
                    || redirect == Redirect::Down
                    || tries >= TRIES_MAX
                    // What was sent behind it may be for the same keys and would overtake it.
                    || !self.queue.borrow().is_empty())
            {
                if redirect == Redirect::Down {
                    self.stale.set(true);
                }
                return Ok(node);
            }
            if self.drop_reply(&node).await.is_err() {
                return Err(LOST.to_vec());
            }
            let (to, asking) = match redirect {
                Redirect::Moved { slot, to } => {
                    let to = to.seen_from(&node.address);
                    self.topology.borrow_mut().moved(slot, to.clone());
                    self.stale.set(true);
                    (to, false)
                }
                Redirect::Ask { to } => (to.seen_from(&node.address), true),
                Redirect::TryAgain | Redirect::Down => {
                    tries += 1;
                    crate::net::sleep(TRY_AFTER).await;
                    (sent.node.address.clone(), false)
                }
            };
            redirects += 1;
            if redirects > REDIRECTS_AT_ONCE + 2 * tries {
                crate::net::sleep(TRY_AFTER).await;
            }
            let Some(command) = sent.command.as_ref().filter(|_| redirects <= REDIRECTS_MAX + 2 * tries) else {
                return Err(MOVED.to_vec());
            };
            node = self.resend(&to, command, asking).await?;
        }
    }

    /// Sends a command again, over a connection on which nothing else is owed.
    async fn resend(
        &self,
        to: &ringgate_protocol::redis::cluster::Address,
        command: &[u8],
        asking: bool,
    ) -> Result<Rc<Node>, Vec<u8>> {
        let Ok(node) = self.side(to).await else { return Err(LOST.to_vec()) };
        if asking {
            node.command(b"*1\r\n$6\r\nASKING\r\n");
        }
        node.command(command);
        node.flush().await;
        if asking && (self.await_head(&node).await.is_err() || self.drop_reply(&node).await.is_err()) {
            return Err(LOST.to_vec());
        }
        Ok(node)
    }

    /// The reply within a transaction. Where the slot is elsewhere the node has called the transaction off; the
    /// client is told in words that name no address.
    async fn bound(&self, node: &Node) -> Result<(), Lost> {
        match self.await_head(node).await {
            Ok(Head::Error(error)) => match Redirect::parse(&error) {
                Some(Redirect::Moved { .. } | Redirect::Ask { .. }) => {
                    self.stale.set(true);
                    self.drop_reply(node).await?;
                    self.say(MOVED).await;
                    Ok(())
                }
                _ => self.copy_reply(node).await,
            },
            Ok(_) => self.copy_reply(node).await,
            Err(Lost) => {
                self.stale.set(true);
                self.say(LOST).await;
                Ok(())
            }
        }
    }

    /// Passes the next reply on.
    async fn copy_reply(&self, node: &Node) -> Result<(), Lost> {
        self.copy(node, Walk::over(1)).await?;
        node.answered();
        Ok(())
    }

    /// Passes on what `walk` goes over. An error ends the session: the client has the front of it already.
    pub(super) async fn copy(&self, node: &Node, walk: Walk) -> Result<(), Lost> {
        self.front.take(&self.bell).await;
        self.copy_behind(node, walk).await?;
        self.front.give_back(&self.bell);
        Ok(())
    }

    /// As [`Router::copy`], for one who has taken the client's stream.
    pub(super) async fn copy_behind(&self, node: &Node, mut walk: Walk) -> Result<(), Lost> {
        loop {
            node.pass(&mut walk, |bytes| self.front.write(bytes))?;
            if walk.is_done() {
                return Ok(());
            }
            if self.front.is_full() {
                self.front.flush(&self.bell).await?;
            }
            self.more(node).await?;
        }
    }

    /// Reads the next reply and drops it.
    pub(super) async fn drop_reply(&self, node: &Node) -> Result<(), Lost> {
        self.drop_values(node, 1).await?;
        node.answered();
        Ok(())
    }

    async fn drop_values(&self, node: &Node, values: u64) -> Result<(), Lost> {
        let mut walk = Walk::over(values);
        loop {
            node.pass(&mut walk, |_| ())?;
            if walk.is_done() {
                return Ok(());
            }
            self.more(node).await?;
        }
    }

    /// Pieces with short replies.
    async fn short(&self, pieces: Vec<Sent>, merge: Merge) {
        let mut replies = Vec::with_capacity(pieces.len());
        for sent in &pieces {
            let reply = match self.reach(sent).await {
                Ok(node) => node.collect(SHORT_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec()),
                Err(text) => text,
            };
            replies.push(reply);
        }
        let parts: Vec<_> = replies.iter().enumerate().map(|(place, reply)| Part { place, reply }).collect();
        let mut out = Vec::new();
        if merge.apply(&parts, false, &mut out).is_err() {
            out = b"-ERR ringgate: a node broke the protocol\r\n".to_vec();
        }
        self.say(&out).await;
    }

    /// MGET in pieces: the values in the order of the keys, as they arrive. The first of them are held back, so that
    /// an error is the whole reply; one that comes later stands in the place of its values.
    async fn values(&self, pieces: Vec<(Sent, u64)>) -> Result<(), Lost> {
        let total: u64 = pieces.iter().map(|(_, keys)| keys).sum();
        let mut held = Some(format!("*{total}\r\n").into_bytes());
        let mut failed: Option<Vec<u8>> = None;
        for (sent, keys) in &pieces {
            let error = match self.reach(sent).await {
                Err(text) => Some(text),
                Ok(node) => match node.peek() {
                    Ok(Some(Head::Aggregate(values, len))) if values == *keys => {
                        node.consume(len);
                        let done = match failed {
                            Some(_) => self.drop_values(&node, values).await,
                            None => self.pass_values(&node, values, &mut held).await,
                        };
                        if held.is_none() {
                            // A half reply cannot be mended.
                            done?;
                        }
                        node.answered();
                        done.err().map(|Lost| LOST.to_vec())
                    }
                    _ => Some(node.collect(SHORT_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec())),
                },
            };
            match error {
                Some(error) if held.is_some() => failed = failed.or(Some(error)),
                Some(error) => (0..*keys).for_each(|_| self.front.write(&error)),
                None => {}
            }
        }
        match (held, failed) {
            (_, Some(error)) => self.say(&error).await,
            (Some(held), None) => self.say(&held).await,
            (None, None) => self.front.give_back(&self.bell),
        }
        Ok(())
    }

    /// Holds values back as long as they are few, and passes them on from there.
    async fn pass_values(&self, node: &Node, values: u64, held: &mut Option<Vec<u8>>) -> Result<(), Lost> {
        let before = held.as_ref().map_or(0, Vec::len);
        let mut walk = Walk::over(values);
        while let Some(holding) = held {
            let passed = node.pass(&mut walk, |bytes| holding.extend_from_slice(bytes));
            if passed.is_ok() && walk.is_done() {
                return Ok(());
            }
            if holding.len() > HELD_BYTES_MAX {
                self.front.take(&self.bell).await;
                self.front.write(holding);
                *held = None;
                break;
            }
            if passed.is_err() || self.more(node).await.is_err() {
                holding.truncate(before);
                return Err(Lost);
            }
        }
        self.copy_behind(node, walk).await
    }

    /// SCAN: the node's cursor becomes ours.
    async fn scan(&self, sent: &Sent, place: usize, places: usize) -> Result<(), Lost> {
        let node = match self.reach(sent).await {
            Ok(node) => node,
            Err(text) => {
                self.say(&text).await;
                return Ok(());
            }
        };
        let Ok(Some(Head::Aggregate(2, len))) = node.peek() else { return self.copy_reply(&node).await };
        node.consume(len);
        let inner = self.cursor(&node).await?;
        let Some(packed) = Cursor::next(place, inner, places) else {
            self.drop_values(&node, 1).await?;
            node.answered();
            self.say(b"-ERR ringgate: the node's cursor is too large\r\n").await;
            return Ok(());
        };
        let packed = packed.to_string();
        self.front.take(&self.bell).await;
        self.front.write(format!("*2\r\n${}\r\n{packed}\r\n", packed.len()).as_bytes());
        self.copy_behind(&node, Walk::over(1)).await?;
        self.front.give_back(&self.bell);
        node.answered();
        Ok(())
    }

    async fn cursor(&self, node: &Node) -> Result<u64, Lost> {
        let Head::Bulk(body @ 1..=20, head) = self.await_head(node).await? else { return Err(Lost) };
        let end = head + body as usize;
        loop {
            let cursor = node.look(|bytes| {
                bytes.get(..end + 2)?;
                Some(std::str::from_utf8(&bytes[head..end]).ok().and_then(|text| text.parse().ok()))
            });
            match cursor {
                Some(cursor) => {
                    node.consume(end + 2);
                    return cursor.ok_or(Lost);
                }
                None => self.more(node).await?,
            }
        }
    }
}
