//! Cancel: a connection of its own, never signed in, never answered. The key it carries is ours; the database's
//! own key is kept here and shown to nobody (protocol-notes 1.4).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ringgate_audit::event::{Event, Stamp};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use subtle::ConstantTimeEq;

use super::link::Link;
use crate::net::stream::{Address, Stream};
use crate::net::{self};
use crate::plane::{Command, Peer};
use crate::tls::Tls;
use crate::worker::{Core, unix_us};

/// How long the database may take to accept a cancel.
const LIMIT: Duration = Duration::from_secs(5);

/// Bits of the pid that name the worker. The sign bit stays clear: clients read a signed integer.
const WORKER_BITS: u32 = 8;

/// The most workers that pids can name.
pub const WORKERS_MAX: usize = 1 << WORKER_BITS;

/// The pid for `worker` made of `random` bits. Never 0.
pub fn pid_of(worker: usize, random: u32) -> u32 {
    let low = (random >> (WORKER_BITS + 1)).max(1);
    ((worker as u32) << (31 - WORKER_BITS)) | low
}

fn worker_of(pid: u32) -> usize {
    (pid >> (31 - WORKER_BITS)) as usize
}

/// A cancel request on its way to the worker that has the session.
pub struct CancelRequest {
    /// Process id as we handed it out.
    pub pid: u32,
    /// Secret as the client sent it.
    pub secret: Vec<u8>,
    /// Where it came from.
    pub from: Peer,
}

/// How to reach the database process of a session.
#[derive(Clone)]
pub struct Route {
    /// Where the session's connection went.
    pub address: Address,
    /// TLS towards it, if it has any.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Writes the protocol's cancel request; see [`ringgate_protocol::Protocol::cancel`].
    pub write: fn(u32, &[u8], &mut Vec<u8>),
    /// Writes the request for TLS that goes before it.
    pub tls_request: &'static [u8],
}

/// The database's own key of a session.
pub struct BackendKey {
    /// Process id at the database.
    pub pid: u32,
    /// Secret at the database.
    pub secret: Box<[u8]>,
    /// Where it counts.
    pub route: Route,
}

/// Brings a cancel request to the worker its pid names.
pub fn route(core: &Rc<Core>, pid: u32, secret: &[u8], from: &Peer) {
    let request = CancelRequest { pid, secret: secret.to_vec(), from: from.clone() };
    let worker = worker_of(pid);
    if worker == core.id {
        serve(core, request);
    } else if worker < core.plane.gates().len() {
        core.plane.gate(worker).tell(Command::Cancel(request));
    } else {
        record(core, &request, false);
    }
}

/// Cancels at the database what the session with this key is running. Silent when there is none.
pub fn serve(core: &Rc<Core>, request: CancelRequest) {
    let control = core.session(request.pid).filter(|control| {
        // Slices of different length are unequal; the length is no secret.
        let shown = control.key.secret.get(..control.secret_len.get());
        shown.is_some_and(|shown| shown.ct_eq(&request.secret).into())
    });
    record(core, &request, control.is_some());
    let Some(control) = control else {
        core.counters.cancels_unmatched.fetch_add(1, Relaxed);
        return;
    };
    core.counters.cancels_matched.fetch_add(1, Relaxed);
    let mut frame = Vec::new();
    let route = match control.backend.borrow().as_ref() {
        Some(key) => {
            (key.route.write)(key.pid, &key.secret, &mut frame);
            key.route.clone()
        }
        None => return,
    };
    let (core, sid) = (core.clone(), control.sid);
    net::spawn(
        async move {
            if let Err(error) = send(&core, &route, &frame).await {
                tracing::warn!(%sid, err = %error, "cancel not delivered");
            }
        },
        || {},
    );
}

async fn send(core: &Rc<Core>, route: &Route, frame: &[u8]) -> Result<(), super::link::LinkError> {
    let stream = Stream::connect(&route.address, LIMIT).await?;
    let mut link = Link::new(stream, &core.pool, Instant::now() + LIMIT);
    if let Some((config, name)) = &route.tls {
        link.send(route.tls_request).await?;
        link.fill(1).await?;
        if link.plain.filled() != b"S" {
            return Err(super::link::LinkError::Gone);
        }
        link.plain.consume(1);
        link.start_tls(Tls::client(config.clone(), name.clone())?, None).await?;
    }
    link.close(frame).await;
    Ok(())
}

fn record(core: &Core, request: &CancelRequest, matched: bool) {
    let addr = request.from.to_string();
    let stamp = Stamp { session: None, ei: 0, time_us: unix_us() };
    // A cancel forwards no statement: it is served whether or not the log can take this.
    let _ = core.audit.borrow_mut().record(stamp, &Event::Cancel { addr: &addr, matched });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_names_its_worker_and_is_positive() {
        for worker in [0, 1, 7, WORKERS_MAX - 1] {
            for random in [0, 1, 0x8000_0000, u32::MAX] {
                let pid = pid_of(worker, random);
                assert_eq!(worker_of(pid), worker);
                assert!(pid > 0 && i32::try_from(pid).is_ok());
            }
        }
    }
}
