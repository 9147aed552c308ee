//! MULTI to EXEC, and WATCH: all on one node, which is known with the first key.

use std::rc::Rc;

use ringgate_protocol::redis::cluster::handling::{Handling, Transaction as Step};
use ringgate_protocol::redis::cluster::{Request, Slot};

use super::dispatch::Facts;
use super::entry::Entry;
use super::node::{Lost, Node};
use super::router::{Found, Router};

/// Commands without keys that wait for the first key, in bytes.
const WAITING_BYTES_MAX: usize = 64 * 1024;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
const CROSSSLOT: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

/// Where the session stands between WATCH, MULTI and EXEC.
#[derive(Default)]
pub(super) struct Transaction {
    /// The node of the watched keys.
    watched: Option<Rc<Node>>,
    open: Option<Open>,
}

/// Behind MULTI.
#[derive(Default)]
struct Open {
    /// The node that was sent MULTI.
    node: Option<Rc<Node>>,
    /// The slot of the first key.
    slot: Option<Slot>,
    /// Commands without keys, answered and not sent.
    waiting: Vec<u8>,
    waiting_count: usize,
    /// A command was refused: EXEC is too.
    failed: bool,
}

impl Router {
    /// Whether MULTI was said.
    pub(super) fn in_transaction(&self) -> bool {
        self.transaction.borrow().open.is_some()
    }

    pub(super) async fn transact(&self, request: &Request<'_>, facts: &Facts<'_>, command: &[u8]) -> Result<(), Lost> {
        let open = self.in_transaction();
        match facts.handling {
            Handling::Transaction(Step::Multi) if open => {
                self.fail_with(b"-ERR MULTI calls can not be nested\r\n", false);
            }
            Handling::Transaction(Step::Multi) => {
                self.transaction.borrow_mut().open = Some(Open::default());
                self.tell(b"+OK\r\n");
            }
            Handling::Transaction(Step::Exec) if !open => self.tell(b"-ERR EXEC without MULTI\r\n"),
            Handling::Transaction(Step::Discard) if !open => self.tell(b"-ERR DISCARD without MULTI\r\n"),
            Handling::Transaction(Step::Exec) => self.exec(command).await,
            Handling::Transaction(Step::Discard) => self.discard(command),
            Handling::Transaction(Step::Watch) if open => {
                self.fail_with(b"-ERR WATCH inside MULTI is not allowed\r\n", false);
            }
            Handling::Transaction(Step::Watch) => self.watch(request, facts, command).await,
            Handling::Transaction(Step::Unwatch) if !open => {
                let watched = self.transaction.borrow_mut().watched.take();
                match watched {
                    Some(node) => self.send_bound(&node, command),
                    None => self.tell(b"+OK\r\n"),
                }
            }
            handling if !handling.fits_transaction() => {
                let text = format!(
                    "-ERR ringgate: command '{}' is not supported in a transaction on a cluster\r\n",
                    request.name()
                );
                self.fail_with(text.as_bytes(), true);
            }
            _ => self.queue_command(facts, command).await,
        }
        Ok(())
    }

    async fn queue_command(&self, facts: &Facts<'_>, command: &[u8]) {
        let unbound = self.transaction.borrow().open.as_ref().is_some_and(|open| open.node.is_none());
        if matches!(facts.slot, Ok(None)) && unbound {
            // A node is not known yet, and a client may wait for the answer before it names a key. The node still
            // judges the command before EXEC.
            let kept = {
                let mut transaction = self.transaction.borrow_mut();
                match transaction.open.as_mut() {
                    Some(open) if open.waiting.len() + command.len() <= WAITING_BYTES_MAX => {
                        open.waiting.extend_from_slice(command);
                        open.waiting_count += 1;
                        true
                    }
                    _ => false,
                }
            };
            if kept {
                return self.tell(b"+QUEUED\r\n");
            }
        }
        match self.place_in_transaction(facts.slot.clone()).await {
            Ok(node) => self.send_bound(&node, command),
            Err(text) => self.tell(&text),
        }
    }

    /// Where a command of the open transaction belongs. An error calls the transaction off.
    pub(super) async fn place_in_transaction(&self, slot: Result<Option<Slot>, Vec<u8>>) -> Found {
        let placed = match slot {
            Ok(slot) => self.bind(slot).await,
            Err(text) => Err(text),
        };
        if placed.is_err()
            && let Some(open) = self.transaction.borrow_mut().open.as_mut()
        {
            open.failed = true;
        }
        placed
    }

    /// The node of the open transaction. The first key decides; others must be of its slot.
    async fn bind(&self, slot: Option<Slot>) -> Found {
        let (bound, first, watched) = {
            let transaction = self.transaction.borrow();
            let open = transaction.open.as_ref();
            (open.and_then(|o| o.node.clone()), open.and_then(|o| o.slot), transaction.watched.clone())
        };
        if let (Some(first), Some(slot)) = (first, slot)
            && first != slot
        {
            return Err(CROSSSLOT.to_vec());
        }
        let node = match (&bound, slot) {
            (Some(node), None) => return Ok(node.clone()),
            (None, None) => match &watched {
                Some(node) => node.clone(),
                None => self.any().await?,
            },
            (Some(_), Some(slot)) | (None, Some(slot)) => self.owner(slot).await?,
        };
        if let Some(slot) = slot
            && let Some(open) = self.transaction.borrow_mut().open.as_mut()
        {
            open.slot = Some(slot);
        }
        match bound {
            Some(bound) if Rc::ptr_eq(&bound, &node) => return Ok(bound),
            Some(_) => return Err(CROSSSLOT.to_vec()),
            None if watched.is_some_and(|watched| !Rc::ptr_eq(&watched, &node)) => return Err(CROSSSLOT.to_vec()),
            None => {}
        }
        let mut transaction = self.transaction.borrow_mut();
        let Some(open) = transaction.open.as_mut() else { return Err(EXECABORT.to_vec()) };
        open.node = Some(node.clone());
        node.command(MULTI);
        self.owe(Entry::Hidden(node.clone()));
        node.write(&std::mem::take(&mut open.waiting));
        for _ in 0..std::mem::take(&mut open.waiting_count) {
            node.command(b"");
            self.owe(Entry::Hidden(node.clone()));
        }
        Ok(node)
    }

    async fn exec(&self, command: &[u8]) {
        let failed = self.transaction.borrow().open.as_ref().is_some_and(|open| open.failed);
        if failed {
            self.call_off();
            return self.tell(EXECABORT);
        }
        let bound = self.bind(None).await;
        *self.transaction.borrow_mut() = Transaction::default();
        match bound {
            Ok(node) => self.send_bound(&node, command),
            Err(text) => self.tell(&text),
        }
    }

    fn discard(&self, command: &[u8]) {
        let node = self.transaction.borrow().open.as_ref().and_then(|open| open.node.clone());
        match node {
            Some(node) => {
                *self.transaction.borrow_mut() = Transaction::default();
                self.send_bound(&node, command);
            }
            None => {
                self.call_off();
                self.tell(b"+OK\r\n");
            }
        }
    }

    /// Ends the transaction on the node that knows of it, unseen.
    fn call_off(&self) {
        let Transaction { watched, open } = std::mem::take(&mut *self.transaction.borrow_mut());
        let (node, command) = match (open.and_then(|open| open.node), watched) {
            (Some(node), _) => (node, DISCARD),
            (None, Some(node)) => (node, UNWATCH),
            (None, None) => return,
        };
        node.command(command);
        self.owe(Entry::Hidden(node));
    }

    async fn watch(&self, request: &Request<'_>, facts: &Facts<'_>, command: &[u8]) {
        if !request.is_of_one_slot(1) {
            return self.tell(CROSSSLOT);
        }
        match self.place(facts).await {
            Err(text) => self.tell(&text),
            Ok(node) => {
                let watched = self.transaction.borrow().watched.clone();
                if watched.is_some_and(|watched| !Rc::ptr_eq(&watched, &node)) {
                    return self.tell(CROSSSLOT);
                }
                self.transaction.borrow_mut().watched = Some(node.clone());
                self.send_bound(&node, command);
            }
        }
    }

    fn send_bound(&self, node: &Rc<Node>, command: &[u8]) {
        node.command(command);
        self.owe(Entry::Bound(node.clone()));
    }

    fn tell(&self, text: &[u8]) {
        self.owe(Entry::Text(text.to_vec()));
    }

    /// An error in the place of an answer; one that the server counts calls the transaction off.
    fn fail_with(&self, text: &[u8], counts: bool) {
        if counts && let Some(open) = self.transaction.borrow_mut().open.as_mut() {
            open.failed = true;
        }
        self.tell(text);
    }
}
