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
mod dispatch;
mod emit;
mod entry;
mod front;
mod join;
mod node;
mod router;
mod subscribe;
mod transaction;

use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_protocol::redis::CommandTable;
use ringgate_protocol::redis::cluster::{Address, Gateway, Topology, TopologyError};

use crate::net;
use crate::net::stream::Stream;
use crate::session::link::Link;
use crate::worker::Core;
use front::Front;
use node::Node;
pub(crate) use router::Opener;
use router::Router;

/// The longest answer to `CLUSTER SLOTS`, in bytes.
const TOPOLOGY_BYTES_MAX: usize = 4 << 20;

/// Why a server is not used as a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its topology cannot be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The registered address names no node, or its login learnt no commands.
    #[error("the address is not that of a node")]
    NoNode,
    /// The connection ended.
    #[error("the connection to the node was lost")]
    Lost,
    /// No socket pair.
    #[error("no socket pair: {0}")]
    Pair(std::io::Error),
}

/// The node id of the gateway as the cluster of `database`: 40 hexadecimal digits, always the same.
pub(super) fn node_id(database: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, database.as_bytes());
    digest.as_ref().iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a router over `first`, a signed-in connection to the node at `seed`, and gives the session's end of it.
/// The router ends with the session.
/// Each node may take `patience` to answer what sets a connection up.
pub(crate) async fn start(
    core: &Rc<Core>,
    (seed, first): (Address, Link),
    table: Arc<CommandTable>,
    gateway: Gateway,
    opener: Opener,
    (patience, deadline): (Duration, Instant),
) -> Result<Link, ClusterError> {
    let stall = core.plane.settings.write_stall_timeout;
    let node = Node::new(seed.clone(), first, &core.pool, stall);
    node.command(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    node.flush().await;
    let left = deadline.saturating_duration_since(Instant::now());
    let reply = net::within(left, node.collect(TOPOLOGY_BYTES_MAX)).await.and_then(Result::ok);
    let topology = match Topology::from_slots(&reply.ok_or(ClusterError::Lost)?, &seed) {
        // The client's own password is still to come (`auth: passthrough`).
        Err(TopologyError::Refused(why)) if why.starts_with("NOAUTH") => Topology::unknown(seed.clone()),
        topology => topology?,
    };
    let (near, far) = UnixStream::pair().map_err(ClusterError::Pair)?;
    let stream = |end: UnixStream| Stream::from_fd(end.into()).map_err(ClusterError::Pair);
    let link = Link::new(stream(near)?, &core.pool, deadline);
    let front = Front::new(stream(far)?, &core.pool);
    let router = Router::new(core.clone(), front, table, gateway, (seed, topology), opener, patience);
    router.adopt(node);
    // A router that panics drops its end of the pair, which ends the session.
    net::spawn(run(router), || ());
    Ok(link)
}

async fn run(router: Router) {
    let mut dispatch = pin!(router.dispatch());
    let mut emit = pin!(router.emit());
    let mut relay = pin!(router.relay());
    router.bell.first_of(&mut [dispatch.as_mut(), emit.as_mut(), relay.as_mut()]).await;
    router.front.close();
}
