//! Redis Cluster behind one connection (protocol-notes 3.4, mode `single`).
//!
//! The session sees a server: its end of a socket pair. At the other end a router on the same worker takes its
//! commands, which were judged and recorded before, sends each to the node that owns its keys, and puts the replies
//! back into the order of the commands. The router knows topology and nothing of identity or policy.
//!
//! ```text
//!              +-- dispatch: commands ----> nodes (one connection each, opened when it is needed)
//! socket pair -+-- emit: replies <--------- nodes, in the order of the commands
//!              +-- relay: messages <------- connections for subscriptions
//! ```
//!
//! Replies whose turn has not come stay in their node's socket: memory is bounded, and a node is slowed by nobody but
//! its own reader. What a command in flight may need again is kept, up to a bound.
//!
//! Between nodes there is no order: of two commands for different nodes the second may be run first. For one slot the
//! order holds, while it moves too. A command in pieces (MGET, MSET, DEL, UNLINK, EXISTS, TOUCH over several slots) is
//! not atomic.

mod alone;
mod connect;
mod dispatch;
mod emit;
mod entry;
mod front;
mod join;
mod known;
mod node;
mod router;
mod subscribe;
mod transaction;

use std::pin::pin;

pub use connect::ClusterError;
pub(super) use connect::connect;
pub use known::Known;
use router::Router;

/// Serves one session to its end.
async fn run(router: Router) {
    let mut dispatch = pin!(router.dispatch());
    let mut emit = pin!(router.emit());
    let mut relay = pin!(router.relay());
    router.bell.first_of(&mut [dispatch.as_mut(), emit.as_mut(), relay.as_mut()]).await;
    router.front.close();
}
