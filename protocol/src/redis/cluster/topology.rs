//! Which node serves which slot, as `CLUSTER SLOTS` tells it.

use super::reply::{BrokenReply, Value, Values};
use super::slot::{SLOTS, Slot};

/// Masters believed in one cluster; its own limit is 1,000 nodes.
pub const MASTERS_MAX: usize = super::cursor::PLACES_MAX;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name or IP address, without brackets. Empty: that of the node which told us.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Address {
    /// Reads `host:port`; the host may be empty, an IPv6 address, or in brackets.
    pub fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        if host.len() > 255 || host.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return None;
        }
        let port = port.split('@').next()?.parse().ok().filter(|&port| port != 0)?;
        Some(Address { host: host.to_owned(), port })
    }

    /// This address, seen from the node at `told_by`, which leaves its own host out.
    pub fn seen_from(mut self, told_by: &Address) -> Address {
        if self.host.is_empty() || self.host == "?" {
            self.host.clone_from(&told_by.host);
        }
        self
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why an answer to `CLUSTER SLOTS` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// It is no such answer.
    #[error(transparent)]
    Broken(#[from] BrokenReply),
    /// The node refused.
    #[error("the node does not tell its slots: {0}")]
    Refused(String),
    /// A slot or port beyond its bounds, or more than [`MASTERS_MAX`] masters.
    #[error("slots, ports or masters out of bounds")]
    OutOfBounds,
    /// No slot has an owner.
    #[error("no node owns any slot")]
    Empty,
}

/// The masters of a cluster and their slots.
///
/// Masters stand in the order of their first slots. A replica that takes over takes the slots too, and so keeps the
/// place: cursors of SCAN stay good across a failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    masters: Vec<Address>,
    owners: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

impl Topology {
    /// Reads the whole answer to `CLUSTER SLOTS` of the node at `told_by`.
    pub fn from_slots(reply: &[u8], told_by: &Address) -> Result<Topology, TopologyError> {
        let mut values = Values::new(reply);
        let ranges = match values.take()? {
            Value::Aggregate(ranges) => ranges,
            Value::Error(text) => {
                return Err(TopologyError::Refused(String::from_utf8_lossy(&text[..text.len().min(256)]).into_owned()));
            }
            _ => return Err(BrokenReply("another type than expected").into()),
        };
        let mut topology = Topology { masters: Vec::new(), owners: vec![NOBODY; usize::from(SLOTS)].into() };
        for _ in 0..ranges {
            let parts = values.aggregate()?;
            let (first, last) = (slot(values.number()?)?, slot(values.number()?)?);
            let mut left = parts.checked_sub(2).ok_or(BrokenReply("a range without its slots"))?;
            // A range without nodes has no owner.
            if left > 0 && first <= last {
                let address = node(&mut values)?.seen_from(told_by);
                left -= 1;
                let master = topology.place_of(address)?;
                topology.owners[usize::from(first.number())..=usize::from(last.number())].fill(master);
            }
            values.skip(left)?;
        }
        if topology.masters.is_empty() {
            return Err(TopologyError::Empty);
        }
        topology.order();
        Ok(topology)
    }

    /// Of a cluster that does not tell its slots yet: the node at `seed`, which owns none.
    pub fn unknown(seed: Address) -> Topology {
        Topology { masters: vec![seed], owners: vec![NOBODY; usize::from(SLOTS)].into() }
    }

    /// Whether any slot has an owner.
    pub fn is_known(&self) -> bool {
        self.owners.iter().any(|&owner| owner != NOBODY)
    }

    /// Who serves `slot`, if anybody.
    pub fn owner(&self, slot: Slot) -> Option<&Address> {
        self.masters.get(usize::from(self.owners[usize::from(slot.number())]))
    }

    /// The masters that own slots, in the order of their first slots.
    pub fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// Notes that `slot` has moved to `to`, until the whole is read again. A host that is no master yet becomes the
    /// last one.
    pub fn moved(&mut self, slot: Slot, to: Address) {
        if let Ok(place) = self.place_of(to) {
            self.owners[usize::from(slot.number())] = place;
        }
    }

    fn place_of(&mut self, address: Address) -> Result<u16, TopologyError> {
        let place = match self.masters.iter().position(|known| *known == address) {
            Some(place) => place,
            None if self.masters.len() >= MASTERS_MAX => return Err(TopologyError::OutOfBounds),
            None => {
                self.masters.push(address);
                self.masters.len() - 1
            }
        };
        u16::try_from(place).map_err(|_| TopologyError::OutOfBounds)
    }

    /// Brings the masters into the order of their first slots.
    fn order(&mut self) {
        let mut places = vec![NOBODY; self.masters.len()];
        let mut ordered = Vec::with_capacity(self.masters.len());
        for owner in &mut self.owners {
            let Some(place) = places.get_mut(usize::from(*owner)) else { continue };
            if *place == NOBODY {
                *place = ordered.len() as u16;
                ordered.push(self.masters[usize::from(*owner)].clone());
            }
            *owner = *place;
        }
        self.masters = ordered;
    }
}

fn slot(number: i64) -> Result<Slot, TopologyError> {
    u16::try_from(number).ok().and_then(Slot::new).ok_or(TopologyError::OutOfBounds)
}

/// `[host, port, id, ...]`
fn node(values: &mut Values<'_>) -> Result<Address, TopologyError> {
    let parts = values.aggregate()?;
    let rest = parts.checked_sub(2).ok_or(BrokenReply("a node without its port"))?;
    let host = match values.take()? {
        Value::Text(host) if host.len() <= 255 => String::from_utf8_lossy(host).into_owned(),
        Value::Null => String::new(),
        _ => return Err(BrokenReply("another type than expected").into()),
    };
    let port = u16::try_from(values.number()?).ok().filter(|&port| port != 0).ok_or(TopologyError::OutOfBounds)?;
    values.skip(rest)?;
    Ok(Address { host, port })
}
