//! Subscriptions: on connections of their own, whose frames go to the client whenever no reply is half written.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use ringgate_protocol::redis::cluster::handling::{Subscription, SubscriptionKind};
use ringgate_protocol::redis::cluster::{Request, Slot, Token, Value, Values, Walk, token};

use super::entry::Entry;
use super::node::{Lost, Node};
use super::router::Router;

/// The longest acknowledgement: the name of a channel is in it.
const ACK_BYTES_MAX: usize = 16 << 20;
/// The longest word that says what a frame is.
const WORD_BYTES_MAX: u64 = 32;

/// One connection being listened to.
type Relaying<'a> = Pin<Box<dyn Future<Output = Result<(), Lost>> + 'a>>;

/// The connections that a session's subscriptions are on.
#[derive(Default)]
pub(super) struct Subscriptions {
    all: RefCell<Vec<Rc<Subscribed>>>,
    /// Not yet listened to.
    fresh: RefCell<Vec<Rc<Subscribed>>>,
    /// All that is listened to is to be forgotten.
    over: Cell<bool>,
}

/// One connection.
pub(super) struct Subscribed {
    node: Rc<Node>,
    shard: bool,
    /// Acknowledgements that the last command still brings.
    awaited: Cell<u64>,
    channels: Cell<u64>,
    patterns: Cell<u64>,
}

impl Subscribed {
    fn is_active(&self) -> bool {
        self.channels.get() + self.patterns.get() > 0
    }

    fn count(&self, kind: SubscriptionKind) -> u64 {
        match kind {
            SubscriptionKind::Channel | SubscriptionKind::Shard => self.channels.get(),
            SubscriptionKind::Pattern => self.patterns.get(),
        }
    }

    /// An acknowledgement says how many subscriptions there are now.
    fn acknowledge(&self, word: &[u8], count: u64) {
        match word {
            b"psubscribe" | b"punsubscribe" => self.patterns.set(count.saturating_sub(self.channels.get())),
            _ => self.channels.set(count.saturating_sub(self.patterns.get())),
        }
        self.awaited.set(self.awaited.get().saturating_sub(1));
    }
}

impl Subscriptions {
    /// Forgets all of them.
    pub(super) fn end(&self) {
        self.all.borrow_mut().clear();
        self.fresh.borrow_mut().clear();
        self.over.set(true);
    }

    /// Whether there is any.
    pub(super) fn is_active(&self) -> bool {
        self.all.borrow().iter().any(|one| one.is_active())
    }
}

impl Router {
    /// The client may only subscribe, unsubscribe and ping.
    pub(super) fn subscribed_in_resp2(&self) -> bool {
        !self.gateway.borrow().resp3 && self.subscriptions.is_active()
    }

    /// PING of a client that has subscribed in RESP2: its answer looks like a message.
    pub(super) async fn ping_subscribed(&self, command: &[u8]) -> Result<(), Lost> {
        let active = self.subscriptions.all.borrow().iter().find(|one| one.is_active()).cloned();
        match active {
            Some(one) => self.ask(&one, command, 1).await,
            None => Ok(()),
        }
    }

    pub(super) async fn subscribe(
        &self,
        subscription: Subscription,
        request: &Request<'_>,
        command: &[u8],
    ) -> Result<(), Lost> {
        let names = request.count() as u64 - 1;
        let Subscription { kind, begins } = subscription;
        if kind != SubscriptionKind::Shard {
            let found = self.subscribed_to_any().await;
            return self.ask_found(found, kind, names, command).await;
        }
        if names > 0 || begins {
            if !request.is_of_one_slot(1) {
                self.owe(Entry::Text(b"-CROSSSLOT Keys in request don't hash to the same slot\r\n".to_vec()));
                return Ok(());
            }
            let slot = request.argument(1).map(Slot::of);
            let owner = slot.and_then(|slot| self.topology.borrow().owner(slot).cloned());
            let found = match owner {
                Some(address) => self.subscribed_on(true, &[address]).await,
                None => None,
            };
            return self.ask_found(found, kind, names, command).await;
        }
        let active: Vec<_> =
            self.subscriptions.all.borrow().iter().filter(|s| s.shard && s.is_active()).cloned().collect();
        if active.is_empty() {
            let answer: &[u8] = match self.gateway.borrow().resp3 {
                true => b">3\r\n$12\r\nsunsubscribe\r\n_\r\n:0\r\n",
                false => b"*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n",
            };
            self.owe(Entry::Text(answer.to_vec()));
        }
        for one in active {
            self.ask_found(Some(one), kind, 0, command).await?;
        }
        Ok(())
    }

    /// HELLO and its kin, after they were done on the other connections: a connection without subscriptions is opened
    /// anew when it is needed.
    pub(super) fn forget_idle_subscriptions(&self) {
        self.subscriptions.all.borrow_mut().retain(|one| one.is_active());
    }

    async fn subscribed_to_any(&self) -> Option<Rc<Subscribed>> {
        let masters = self.topology.borrow().masters().to_vec();
        self.subscribed_on(false, &masters).await
    }

    /// The connection for subscriptions to the first of `addresses` that has one, or that can be reached.
    async fn subscribed_on(
        &self,
        shard: bool,
        addresses: &[ringgate_protocol::redis::cluster::Address],
    ) -> Option<Rc<Subscribed>> {
        let known = self
            .subscriptions
            .all
            .borrow()
            .iter()
            .find(|one| one.shard == shard && !one.node.is_lost() && addresses.contains(&one.node.address))
            .cloned();
        if known.is_some() {
            return known;
        }
        for address in addresses {
            if let Ok(node) = self.open(address).await {
                let one = Rc::new(Subscribed {
                    node,
                    shard,
                    awaited: Cell::new(0),
                    channels: Cell::new(0),
                    patterns: Cell::new(0),
                });
                self.subscriptions.all.borrow_mut().retain(|one| !one.node.is_lost());
                self.subscriptions.all.borrow_mut().push(one.clone());
                self.subscriptions.fresh.borrow_mut().push(one.clone());
                self.bell.ring();
                return Some(one);
            }
        }
        None
    }

    async fn ask_found(
        &self,
        found: Option<Rc<Subscribed>>,
        kind: SubscriptionKind,
        names: u64,
        command: &[u8],
    ) -> Result<(), Lost> {
        match found {
            Some(one) => {
                let acknowledgements = if names > 0 { names } else { one.count(kind).max(1) };
                self.ask(&one, command, acknowledgements).await
            }
            None => {
                self.stale.set(true);
                self.owe(Entry::Text(b"-CLUSTERDOWN ringgate: no node can be reached\r\n".to_vec()));
                Ok(())
            }
        }
    }

    /// Sends a command and waits until the client has its acknowledgements: nothing may overtake them.
    async fn ask(&self, one: &Rc<Subscribed>, command: &[u8], acknowledgements: u64) -> Result<(), Lost> {
        one.awaited.set(acknowledgements);
        one.node.write(command);
        one.node.flush().await;
        self.bell.until(|| (one.awaited.get() == 0 || one.node.is_lost()).then_some(())).await;
        if one.node.is_lost() {
            self.owe(Entry::Text(b"-ERR ringgate: the connection to the node was lost\r\n".to_vec()));
        }
        Ok(())
    }

    /// Passes on what the subscriptions bring. Ends when one is lost: the client has to subscribe again, as it would
    /// have to with a server.
    pub(super) async fn relay(&self) {
        let mut running: Vec<Relaying<'_>> = Vec::new();
        poll_fn(|cx| {
            if self.subscriptions.over.take() {
                running.clear();
            }
            for one in self.subscriptions.fresh.take() {
                running.push(Box::pin(self.relay_one(one)));
            }
            let mut lost = false;
            running.retain_mut(|one| match one.as_mut().poll(cx) {
                Poll::Ready(ended) => {
                    lost |= ended.is_err();
                    false
                }
                Poll::Pending => true,
            });
            if lost { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn relay_one(&self, one: Rc<Subscribed>) -> Result<(), Lost> {
        let ended = self.relay_frames(&one).await;
        self.bell.ring();
        // Nothing is missed on a connection that had no subscription.
        if one.is_active() { ended } else { Ok(()) }
    }

    async fn relay_frames(&self, one: &Subscribed) -> Result<(), Lost> {
        let node = &one.node;
        loop {
            let word = loop {
                if let Some(word) = node.look(word)? {
                    break word;
                }
                if !node.try_fill()? {
                    self.front.flush(&self.bell).await?;
                    node.fill().await?;
                }
            };
            match word.as_slice() {
                b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => {
                    let frame = whole_frame(node).await?;
                    let count = count_in(&frame).ok_or(Lost)?;
                    self.say(&frame).await;
                    one.acknowledge(&word, count);
                    self.bell.ring();
                }
                b"message" | b"pmessage" | b"smessage" => self.copy(node, Walk::over(1)).await?,
                _ => {
                    // PONG, or an error in the place of all acknowledgements.
                    self.copy(node, Walk::over(1)).await?;
                    one.awaited.set(0);
                    self.bell.ring();
                }
            }
        }
    }
}

/// The word that says what the frame at the front is; empty for one that is no array.
fn word(bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
    let Some((first, len)) = token(bytes)? else { return Ok(None) };
    let Token::Aggregate { values: 1.., .. } = first else { return Ok(Some(Vec::new())) };
    let Some((second, head)) = token(&bytes[len..])? else { return Ok(None) };
    match second {
        Token::Bulk { len: body @ ..=WORD_BYTES_MAX, .. } => {
            let from = len + head;
            Ok(bytes.get(from..from + body as usize).map(<[u8]>::to_vec))
        }
        _ => Ok(Some(Vec::new())),
    }
}

/// The number at the end of an acknowledgement.
fn count_in(frame: &[u8]) -> Option<u64> {
    let mut values = Values::new(frame);
    let Ok(Value::Aggregate(3)) = values.take() else { return None };
    values.skip(2).ok()?;
    u64::try_from(values.number().ok()?).ok()
}

async fn whole_frame(node: &Node) -> Result<Vec<u8>, Lost> {
    let mut frame = Vec::new();
    let mut walk = Walk::over(1);
    loop {
        node.pass(&mut walk, |bytes| frame.extend_from_slice(bytes))?;
        if walk.is_done() {
            return Ok(frame);
        }
        if frame.len() > ACK_BYTES_MAX {
            return Err(Lost);
        }
        node.fill().await?;
    }
}
