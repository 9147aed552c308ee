//! What is owed to the client, in the order of its commands.

use std::rc::Rc;

use super::node::Node;

/// One answer owed.
pub(super) enum Entry {
    /// Bytes of our own.
    Text(Vec<u8>),
    /// The reply of a node as it is. Redirects are followed.
    Reply(Sent),
    /// The reply of a node within a transaction: a redirect ends it.
    Bound(Rc<Node>),
    /// A reply that the client does not see.
    Hidden(Rc<Node>),
    /// MGET in pieces.
    Values(Vec<(Sent, u64)>),
    /// Numbers in pieces, to be added up.
    Sum(Vec<Sent>),
    /// Pieces that all say OK.
    Same(Vec<Sent>),
    /// SCAN on the master at this place, of so many.
    Scan(Sent, usize, usize),
}

/// A command on its way.
pub(super) struct Sent {
    /// To whom.
    pub(super) node: Rc<Node>,
    /// The command, to be sent again; none when it was too long to be kept.
    pub(super) command: Option<Vec<u8>>,
    /// It changes nothing and can be sent again when its reply is lost.
    pub(super) only_reads: bool,
}

impl Sent {
    fn bytes(&self) -> usize {
        self.command.as_ref().map_or(0, Vec::len)
    }
}

impl Entry {
    /// Bytes kept for it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Entry::Text(text) => text.len(),
            Entry::Reply(sent) | Entry::Scan(sent, ..) => sent.bytes(),
            Entry::Bound(_) | Entry::Hidden(_) => 0,
            Entry::Values(pieces) => pieces.iter().map(|(sent, _)| sent.bytes()).sum(),
            Entry::Sum(pieces) | Entry::Same(pieces) => pieces.iter().map(Sent::bytes).sum(),
        }
    }
}
