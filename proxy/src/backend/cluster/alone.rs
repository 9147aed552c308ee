//! Commands that are served when nothing else is owed: those for every node, for every connection, and those that
//! the gateway answers for the cluster.

use std::rc::Rc;

use ringgate_protocol::redis::cluster::handling::{Cluster, Handling};
use ringgate_protocol::redis::cluster::{Merge, Part, Request, Slot, Value, Values, Walk};

use super::dispatch::unsupported;
use super::entry::Entry;
use super::node::{Head, Lost, Node};
use super::router::Router;

/// The longest reply of one node that is put together with others' in memory. KEYS is not among them.
const PART_BYTES_MAX: usize = 8 << 20;

const LOST: &[u8] = b"-ERR ringgate: the connection to a node was lost, other nodes may have run the command\r\n";

impl Router {
    pub(super) async fn serve_alone(&self, request: &Request<'_>, command: &[u8]) -> Result<(), Lost> {
        match request.handling {
            Handling::Everywhere(Merge::Concat) => self.concat(command).await,
            Handling::Everywhere(merge) => {
                let answer = self.everywhere(merge, command).await;
                self.owe(Entry::Text(answer));
                Ok(())
            }
            Handling::RandomKey => {
                let answer = self.random_key(command).await;
                self.owe(Entry::Text(answer));
                Ok(())
            }
            Handling::Connections => self.set_up(request, command).await,
            Handling::Reset => {
                self.reset();
                self.owe(Entry::Text(b"+RESET\r\n".to_vec()));
                Ok(())
            }
            Handling::Quit => {
                self.say(b"+OK\r\n").await;
                self.front.flush(&self.bell).await?;
                Err(Lost)
            }
            Handling::Cluster(about) => self.cluster(about, request, command).await,
            Handling::Subscription(subscription) => self.subscribe(subscription, request, command).await,
            _ => {
                self.owe(Entry::Text(unsupported(request)));
                Ok(())
            }
        }
    }

    /// Sends `command` to all of `nodes` at once.
    async fn send_to(&self, nodes: &[Rc<Node>], command: &[u8]) {
        for node in nodes {
            node.command(command);
        }
        for node in nodes {
            node.flush().await;
        }
    }

    async fn everywhere(&self, merge: Merge, command: &[u8]) -> Vec<u8> {
        let nodes = match self.all().await {
            Ok(nodes) => nodes,
            Err(text) => return text,
        };
        self.send_to(&nodes, command).await;
        let mut replies = Vec::with_capacity(nodes.len());
        for node in &nodes {
            replies.push(node.collect(PART_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec()));
        }
        let parts: Vec<_> = replies.iter().enumerate().map(|(place, reply)| Part { place, reply }).collect();
        let mut out = Vec::new();
        if merge.apply(&parts, self.gateway.borrow().resp3, &mut out).is_err() {
            out = b"-ERR ringgate: the nodes' replies do not go together\r\n".to_vec();
        }
        out
    }

    /// KEYS and its like: the values of all nodes as they arrive, behind one head.
    async fn concat(&self, command: &[u8]) -> Result<(), Lost> {
        let nodes = match self.all().await {
            Ok(nodes) => nodes,
            Err(text) => {
                self.owe(Entry::Text(text));
                return Ok(());
            }
        };
        self.send_to(&nodes, command).await;
        let (mut total, mut counts, mut failed) = (0u64, Vec::new(), None);
        for node in &nodes {
            match wait_for_head(node).await {
                Ok(Head::Aggregate(values, len)) => {
                    node.consume(len);
                    total = total.saturating_add(values);
                    counts.push(Some(values));
                }
                Ok(_) => {
                    let reply = node.collect(PART_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec());
                    failed = failed.or(Some(reply));
                    counts.push(None);
                }
                Err(Lost) => {
                    failed = failed.or(Some(LOST.to_vec()));
                    counts.push(None);
                }
            }
        }
        match failed {
            None => {
                self.front.take(&self.bell).await;
                self.front.write(format!("*{total}\r\n").as_bytes());
                for (node, values) in nodes.iter().zip(counts) {
                    self.copy_behind(node, Walk::over(values.unwrap_or(0))).await?;
                    node.answered();
                }
                self.front.give_back(&self.bell);
                self.front.flush(&self.bell).await
            }
            Some(error) => {
                for (node, values) in nodes.iter().zip(counts) {
                    if let Some(values) = values {
                        let mut walk = Walk::over(values);
                        // A node that is lost here is noticed when it is asked again.
                        while !walk.is_done() && node.pass(&mut walk, |_| ()).is_ok() {
                            if !walk.is_done() && node.fill().await.is_err() {
                                break;
                            }
                        }
                        node.answered();
                    }
                }
                self.owe(Entry::Text(error));
                Ok(())
            }
        }
    }

    /// A key of any node: they are asked one after the other, from a random one on.
    async fn random_key(&self, command: &[u8]) -> Vec<u8> {
        let nodes = match self.all().await {
            Ok(nodes) => nodes,
            Err(text) => return text,
        };
        let mut random = [0u8; 2];
        // Without randomness the first node is as good as any.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let first = usize::from(u16::from_ne_bytes(random)) % nodes.len().max(1);
        let mut answer = b"$-1\r\n".to_vec();
        for node in nodes[first..].iter().chain(&nodes[..first]) {
            self.send_to(std::slice::from_ref(node), command).await;
            answer = node.collect(PART_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec());
            if Values::new(&answer).take() != Ok(Value::Null) {
                break;
            }
        }
        answer
    }

    /// HELLO, AUTH, CLIENT SETNAME: for every connection, those opened later included.
    async fn set_up(&self, request: &Request<'_>, command: &[u8]) -> Result<(), Lost> {
        if request.name() == "HELLO" && self.subscriptions.is_active() {
            self.owe(Entry::Text(b"-ERR ringgate: HELLO is not possible while subscribed\r\n".to_vec()));
            return Ok(());
        }
        let first = match self.any().await {
            Ok(node) => node,
            Err(text) => {
                self.owe(Entry::Text(text));
                return Ok(());
            }
        };
        self.send_to(std::slice::from_ref(&first), command).await;
        let reply = first.collect(PART_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec());
        if !reply.starts_with(b"-") && request.count() > 1 {
            if request.name() == "HELLO" {
                self.gateway.borrow_mut().resp3 = request.argument(1) == Some(b"3");
            }
            // CLIENT SETINFO has two things to set.
            let what = if request.name() == "CLIENT|SETINFO" { request.argument(2) } else { None };
            let what = String::from_utf8_lossy(what.unwrap_or_default()).to_ascii_uppercase();
            self.remember(&format!("{} {what}", request.name()), command.to_vec());
            if !self.topology.borrow().is_known() {
                self.stale.set(true);
            }
            self.drop_sides();
            let others: Vec<_> = self.open_nodes().into_iter().filter(|node| !Rc::ptr_eq(node, &first)).collect();
            self.send_to(&others, command).await;
            for node in others {
                // One that does not follow is opened anew, and set up by what is remembered.
                if !node.collect(PART_BYTES_MAX).await.is_ok_and(|reply| !reply.starts_with(b"-")) {
                    node.give_up();
                }
            }
            self.forget_idle_subscriptions();
        }
        self.owe(Entry::Text(reply));
        Ok(())
    }

    async fn cluster(&self, about: Cluster, request: &Request<'_>, command: &[u8]) -> Result<(), Lost> {
        let mut out = Vec::new();
        match about {
            Cluster::Slots => self.gateway.borrow().slots(&mut out),
            Cluster::Shards => self.gateway.borrow().shards(&mut out),
            Cluster::Nodes => self.gateway.borrow().nodes(&mut out),
            Cluster::MyId => self.gateway.borrow().my_id(&mut out),
            Cluster::NoReplicas => out.extend_from_slice(b"*0\r\n"),
            Cluster::KeySlot => match request.argument(1 + 1) {
                Some(key) if request.count() == 3 => {
                    out.extend_from_slice(format!(":{}\r\n", Slot::of(key).number()).as_bytes());
                }
                _ => out.extend_from_slice(b"-ERR wrong number of arguments for 'cluster|keyslot' command\r\n"),
            },
            Cluster::Info => {
                let reply = match self.any().await {
                    Ok(node) => {
                        self.send_to(std::slice::from_ref(&node), command).await;
                        node.collect(PART_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec())
                    }
                    Err(text) => text,
                };
                match Values::new(&reply).take() {
                    Ok(Value::Text(text)) => self.gateway.borrow().info(text, &mut out),
                    _ => out = reply,
                }
            }
            Cluster::OfSlot => {
                let found = match request.argument(2).and_then(Slot::parse) {
                    Some(slot) => self.owner(slot).await,
                    // A node says best what is wrong with it.
                    None => self.any().await,
                };
                match found {
                    Ok(node) => {
                        self.send_to(std::slice::from_ref(&node), command).await;
                        out = node.collect(PART_BYTES_MAX).await.unwrap_or_else(|Lost| LOST.to_vec());
                    }
                    Err(text) => out = text,
                }
            }
        }
        self.owe(Entry::Text(out));
        Ok(())
    }
}

/// The head of the next reply; pushes in front of it are none here.
async fn wait_for_head(node: &Node) -> Result<Head, Lost> {
    loop {
        match node.peek()? {
            Some(head) => return Ok(head),
            None => node.fill().await?,
        }
    }
}
