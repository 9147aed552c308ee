//! What the parts of a router share: the client's side, the nodes, the queue of replies owed.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use ringgate_policy::Database;
use ringgate_protocol::redis::CommandTable;
use ringgate_protocol::redis::cluster::{Address, Gateway, Slot, Topology};
use zeroize::Zeroizing;

use super::entry::Entry;
use super::front::Front;
use super::join::Bell;
use super::node::{Lost, Node};
use super::subscribe::Subscriptions;
use super::transaction::Transaction;
use crate::session::link::Link;
use crate::worker::Core;

/// Bytes of commands sent and not answered that a session may have: they are kept to be sent again when a slot has
/// moved. The client is not read beyond.
const RETAINED_BYTES_MAX: usize = 1 << 20;
/// What a command costs beside its bytes.
const ENTRY_BYTES: usize = 256;
/// The longest answer to `CLUSTER SLOTS` that is read.
pub(super) const TOPOLOGY_BYTES_MAX: usize = 4 << 20;
/// The longest answer to a command that sets a connection up.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a node that could not be reached is not tried again, in milliseconds.
const DOWN_MS: u64 = 250;

/// Opens a signed-in connection to a node.
pub(super) type Opener = Box<dyn Fn(Address) -> Pin<Box<dyn Future<Output = Option<Link>>>>>;

/// What came of a look for a node: itself, or the error for the client.
pub(super) type Found = Result<Rc<Node>, Vec<u8>>;

/// The router of one session.
pub(super) struct Router {
    pub(super) core: Rc<Core>,
    pub(super) front: Front,
    pub(super) bell: Bell,
    pub(super) table: Arc<CommandTable>,
    pub(super) gateway: RefCell<Gateway>,
    pub(super) topology: RefCell<Topology>,
    pub(super) queue: RefCell<VecDeque<Entry>>,
    /// An answer is being written.
    pub(super) answering: Cell<bool>,
    /// A node said that a slot had moved, or was lost.
    pub(super) stale: Cell<bool>,
    pub(super) transaction: RefCell<Transaction>,
    pub(super) subscriptions: Subscriptions,
    pub(super) last_written: RefCell<Option<Rc<Node>>>,
    retained: Cell<usize>,
    database: Arc<Database>,
    opener: Opener,
    /// Where the cluster was reached first.
    seed: Address,
    nodes: RefCell<HashMap<Address, Rc<Node>>>,
    /// For commands that are sent again: what is asked on the others comes in an order of its own.
    sides: RefCell<HashMap<Address, Rc<Node>>>,
    control: RefCell<Option<Rc<Node>>>,
    down: RefCell<HashMap<Address, u64>>,
    /// What set the connections up, by the command's name: for those opened later. May hold a client's password.
    setup: RefCell<Vec<(String, Zeroizing<Vec<u8>>)>>,
}

impl Router {
    pub(super) fn new(
        core: Rc<Core>,
        database: Arc<Database>,
        front: Front,
        table: Arc<CommandTable>,
        gateway: Gateway,
        (seed, topology): (Address, Topology),
        opener: Opener,
    ) -> Router {
        Router {
            core,
            front,
            bell: Bell::default(),
            table,
            gateway: RefCell::new(gateway),
            topology: RefCell::new(topology),
            queue: RefCell::default(),
            answering: Cell::new(false),
            stale: Cell::new(false),
            transaction: RefCell::default(),
            subscriptions: Subscriptions::default(),
            last_written: RefCell::default(),
            retained: Cell::new(0),
            database,
            opener,
            seed,
            nodes: RefCell::default(),
            sides: RefCell::default(),
            control: RefCell::default(),
            down: RefCell::default(),
            setup: RefCell::default(),
        }
    }

    /// Takes over a connection that is there already.
    pub(super) fn adopt(&self, node: Rc<Node>) {
        self.nodes.borrow_mut().insert(node.address.clone(), node);
    }

    /// Owes the client `entry`, after all others.
    pub(super) fn owe(&self, entry: Entry) {
        self.retained.set(self.retained.get() + entry.bytes() + ENTRY_BYTES);
        self.queue.borrow_mut().push_back(entry);
        self.bell.ring();
    }

    /// An entry has been answered.
    pub(super) fn settle(&self, bytes: usize) {
        self.retained.set(self.retained.get().saturating_sub(bytes + ENTRY_BYTES));
        self.bell.ring();
    }

    /// Whether no more may be owed for now.
    pub(super) fn owes_much(&self) -> bool {
        self.retained.get() >= RETAINED_BYTES_MAX
    }

    /// Whether everything was answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.borrow().is_empty() && !self.answering.get()
    }

    /// Sends what was written for the nodes.
    pub(super) async fn flush_nodes(&self) {
        let waiting: Vec<_> = self.nodes.borrow().values().filter(|node| node.waiting() > 0).cloned().collect();
        for node in waiting {
            node.flush().await;
        }
    }

    /// The connection to the owner of `slot`.
    pub(super) async fn owner(&self, slot: Slot) -> Found {
        if !self.topology.borrow().is_known() {
            // The client has not authenticated: any node tells it so.
            return self.any().await;
        }
        for _ in 0..2 {
            let Some(address) = self.topology.borrow().owner(slot).cloned() else {
                return Err(b"-CLUSTERDOWN Hash slot not served\r\n".to_vec());
            };
            if let Ok(node) = self.node(&address).await {
                return Ok(node);
            }
            self.refresh().await;
            if self.topology.borrow().owner(slot) == Some(&address) {
                break;
            }
        }
        Err(b"-CLUSTERDOWN ringgate: the node that serves this slot cannot be reached\r\n".to_vec())
    }

    /// A connection to any master: one that is open, if there is one.
    pub(super) async fn any(&self) -> Found {
        let masters = self.topology.borrow().masters().to_vec();
        for address in &masters {
            let open = self.nodes.borrow().get(address).cloned();
            if let Some(node) = open.filter(|node| node.still_stands()) {
                return Ok(node);
            }
        }
        for address in &masters {
            if let Ok(node) = self.node(address).await {
                return Ok(node);
            }
        }
        self.refresh().await;
        Err(b"-CLUSTERDOWN ringgate: no node can be reached\r\n".to_vec())
    }

    /// Connections to all masters, in their order.
    pub(super) async fn all(&self) -> Result<Vec<Rc<Node>>, Vec<u8>> {
        for attempt in 0..2 {
            let masters = self.topology.borrow().masters().to_vec();
            let mut nodes = Vec::new();
            for address in &masters {
                match self.node(address).await {
                    Ok(node) => nodes.push(node),
                    Err(Lost) => break,
                }
            }
            if nodes.len() == masters.len() {
                return Ok(nodes);
            }
            if attempt == 0 {
                self.refresh().await;
            }
        }
        Err(b"-CLUSTERDOWN ringgate: not every node can be reached\r\n".to_vec())
    }

    /// The connection to the node at `address`, opened where there is none.
    pub(super) async fn node(&self, address: &Address) -> Result<Rc<Node>, Lost> {
        let open = self.nodes.borrow().get(address).cloned();
        if let Some(node) = open.filter(|node| node.still_stands()) {
            return Ok(node);
        }
        // Whoever waits for replies gets them while this takes its time.
        self.flush_nodes().await;
        let node = self.open(address).await?;
        self.adopt(node.clone());
        Ok(node)
    }

    /// The connection for commands that are sent again.
    pub(super) async fn side(&self, address: &Address) -> Result<Rc<Node>, Lost> {
        let open = self.sides.borrow().get(address).cloned();
        if let Some(node) = open.filter(|node| node.still_stands()) {
            return Ok(node);
        }
        let node = self.open(address).await?;
        self.sides.borrow_mut().insert(address.clone(), node.clone());
        Ok(node)
    }

    /// A fresh connection, set up as the client's others.
    pub(super) async fn open(&self, address: &Address) -> Result<Rc<Node>, Lost> {
        if self.down.borrow().get(address).is_some_and(|&until| self.core.now_ms() < until) {
            return Err(Lost);
        }
        let opened = self.open_and_set_up(address).await;
        if opened.is_err() {
            let mut down = self.down.borrow_mut();
            let now = self.core.now_ms();
            down.retain(|_, until| now < *until);
            down.insert(address.clone(), now + DOWN_MS);
        }
        opened
    }

    async fn open_and_set_up(&self, address: &Address) -> Result<Rc<Node>, Lost> {
        let link = (self.opener)(address.clone()).await.ok_or(Lost)?;
        let stall = self.core.plane.settings.write_stall_timeout;
        let node = Node::new(address.clone(), link, &self.core.pool, stall);
        let setup = self.setup.borrow().clone();
        for (_, command) in &setup {
            node.command(command);
        }
        node.flush().await;
        for _ in &setup {
            if self.collect_soon(&node, ANSWER_BYTES_MAX).await?.starts_with(b"-") {
                return Err(Lost);
            }
        }
        Ok(node)
    }

    /// A reply that a node in good order gives at once.
    async fn collect_soon(&self, node: &Node, max: usize) -> Result<Vec<u8>, Lost> {
        crate::net::within(self.database.limits.connect_timeout, node.collect(max)).await.ok_or(Lost)?
    }

    /// Remembers what sets a connection up, in the place of an earlier command of that name.
    pub(super) fn remember(&self, name: &str, command: Vec<u8>) {
        let mut setup = self.setup.borrow_mut();
        let command = Zeroizing::new(command);
        match setup.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = command,
            None => setup.push((name.to_owned(), command)),
        }
    }

    /// The connections that commands go over now.
    pub(super) fn open_nodes(&self) -> Vec<Rc<Node>> {
        self.nodes.borrow().values().filter(|node| !node.is_lost()).cloned().collect()
    }

    /// Drops the connections that are not for commands; they are opened anew when they are needed.
    pub(super) fn drop_sides(&self) {
        self.sides.borrow_mut().clear();
        *self.control.borrow_mut() = None;
    }

    /// Drops every connection and what set them up.
    pub(super) fn reset(&self) {
        self.drop_sides();
        self.nodes.borrow_mut().clear();
        self.setup.borrow_mut().clear();
        *self.last_written.borrow_mut() = None;
        *self.transaction.borrow_mut() = Transaction::default();
        self.subscriptions.end();
        self.gateway.borrow_mut().resp3 = false;
    }

    /// Reads the topology anew, from whichever node answers first. The old one stays when none does.
    pub(super) async fn refresh(&self) {
        self.stale.set(false);
        let control = self.control.borrow_mut().take().filter(|node| node.still_stands());
        if let Some(node) = control
            && self.refresh_from(node).await.is_ok()
        {
            return;
        }
        let mut candidates = self.topology.borrow().masters().to_vec();
        candidates.push(self.seed.clone());
        for address in candidates {
            if let Ok(node) = self.open(&address).await
                && self.refresh_from(node).await.is_ok()
            {
                return;
            }
        }
    }

    async fn refresh_from(&self, node: Rc<Node>) -> Result<(), Lost> {
        node.command(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
        node.flush().await;
        let reply = self.collect_soon(&node, TOPOLOGY_BYTES_MAX).await?;
        let topology = Topology::from_slots(&reply, &node.address).map_err(|_| Lost)?;
        self.core.clusters.keep(&self.database, topology.masters().to_vec());
        *self.topology.borrow_mut() = topology;
        *self.control.borrow_mut() = Some(node);
        Ok(())
    }
}
