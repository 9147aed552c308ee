//! Redis Cluster, as far as bytes go: whose slot a key is, who serves it, how commands are cut and replies put
//! together, and what clients are told (protocol-notes 3.4, mode `single`: the gateway is the one node).
//!
//! No socket, no clock. The router that owns the connections to the nodes is in the proxy.

pub mod answers;
pub mod cursor;
pub mod handling;
pub mod merge;
pub mod redirect;
pub mod reply;
pub mod request;
pub mod slot;
pub mod split;
#[cfg(test)]
mod tests;
pub mod topology;

pub use answers::Gateway;
pub use cursor::Cursor;
pub use handling::Handling;
pub use merge::{Merge, Part};
pub use redirect::Redirect;
pub use reply::{BrokenReply, Token, Value, Values, Walk, token};
pub use request::{Request, Scan};
pub use slot::{SLOTS, Slot};
pub use split::{Piece, Split};
pub use topology::{Address, Topology, TopologyError};
