//! Reaches a cluster by one of its nodes and puts a router between it and the session.

use std::any::Any;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringgate_protocol::Protocol;
use ringgate_protocol::redis::CommandTable;
use ringgate_protocol::redis::cluster::{Address, Gateway, Topology, TopologyError};

use super::front::Front;
use super::node::Node;
use super::router::{Opener, Router, TOPOLOGY_BYTES_MAX};
use crate::backend::connect::{ConnectError, Endpoint, Reached, Target, reach};
use crate::backend::prepare::PrepareError;
use crate::net;
use crate::net::stream::Stream;
use crate::session::link::Link;
use crate::worker::Core;

/// Why a server is not used as a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its topology cannot be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The registered address is no `host:port`.
    #[error("the address is not that of a node")]
    NoNode,
    /// The connection ended, or did not answer in time.
    #[error("the connection to the node was lost")]
    Lost,
    /// No socket pair.
    #[error("no socket pair: {0}")]
    Pair(std::io::Error),
}

/// Signs in to a node and starts a router over it: the session's end of it, with what the login learned. The router
/// ends with the session.
///
/// Where the registered node cannot be reached, the masters that earlier sessions saw are tried.
pub(in crate::backend) async fn connect<P: Protocol>(
    core: &Rc<Core>,
    opening: &P::Opening,
    target: Target,
    endpoint: Endpoint,
) -> Result<Reached<P>, ConnectError> {
    let database = &target.database;
    let mut seed = Address::parse(&database.uri).ok_or(ClusterError::NoNode)?;
    let mut reached = reach::<P>(core, opening, &target, None).await;
    if reached.is_err() {
        for address in core.clusters.of(database) {
            if address != seed
                && let Ok(other) = reach::<P>(core, opening, &target, Some(address.to_string())).await
            {
                reached = Ok(other);
                seed = address;
                break;
            }
        }
    }
    let (login, first, route) = reached?;
    let deadline = first.deadline;
    let stall = core.plane.settings.write_stall_timeout;
    let node = Node::new(seed.clone(), first, &core.pool, stall);
    let topology = topology(&node, deadline).await?;
    if topology.is_known() {
        core.clusters.keep(database, topology.masters().to_vec());
    }
    let (near, far) = UnixStream::pair().map_err(ClusterError::Pair)?;
    let stream = |end: UnixStream| Stream::from_fd(end.into()).map_err(ClusterError::Pair);
    let link = Link::new(stream(near)?, &core.pool, deadline);
    let learned = P::learned(&login).map(|learned| -> Arc<dyn Any + Send + Sync> { learned });
    let table = learned.and_then(|learned| learned.downcast::<CommandTable>().ok()).unwrap_or_default();
    let gateway = Gateway {
        id: node_id(&database.name),
        // Clients read this as the host that they asked, under whatever name they know us.
        host: String::new(),
        port: endpoint.port,
        tls: endpoint.tls,
        resp3: false,
    };
    let front = Front::new(stream(far)?, &core.pool);
    let opener = opener::<P>(core, &target);
    let router = Router::new(core.clone(), target.database, front, table, gateway, (seed, topology), opener);
    router.adopt(node);
    // A router that panics drops its end of the pair, which ends the session.
    net::spawn(super::run(router), || ());
    Ok((login, link, route))
}

/// Asks a node for the topology.
async fn topology(node: &Node, deadline: Instant) -> Result<Topology, ClusterError> {
    node.command(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    node.flush().await;
    let left = deadline.saturating_duration_since(Instant::now());
    let reply = net::within(left, node.collect(TOPOLOGY_BYTES_MAX)).await.and_then(Result::ok);
    match Topology::from_slots(&reply.ok_or(ClusterError::Lost)?, &node.address) {
        // The client's own password is still to come (`auth: passthrough`).
        Err(TopologyError::Refused(why)) if why.starts_with("NOAUTH") => Ok(Topology::unknown(node.address.clone())),
        topology => Ok(topology?),
    }
}

/// Opens connections to nodes as the first one was opened: same user, same secret, each node's certificate checked.
fn opener<P: Protocol>(core: &Rc<Core>, target: &Target) -> Opener {
    let (core, target) = (core.clone(), target.clone());
    Box::new(move |address| {
        let (core, target) = (core.clone(), target.clone());
        Box::pin(async move {
            let opened = open::<P>(&core, &target, &address).await;
            if let Err(error) = &opened {
                tracing::warn!(database = %target.database.name, node = %address, err = %error, "node not reached");
            }
            opened.ok()
        })
    })
}

async fn open<P: Protocol>(core: &Rc<Core>, target: &Target, address: &Address) -> Result<Link, ConnectError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| PrepareError::Tls("no randomness".into()))?;
    let opening = P::opening(&[], seed);
    let (_, link, _) = reach::<P>(core, &opening, target, Some(address.to_string())).await?;
    Ok(link)
}

/// The node id of the gateway as the cluster of `database`: 40 hexadecimal digits, always the same.
fn node_id(database: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, database.as_bytes());
    digest.as_ref().iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}
