//! A session, as one straight line:
//!
//! `accept -> secure -> identify -> authorize -> connect -> pump -> close`, with `audit` beside every step.
//!
//! Each step is a type that consumes the one before, so that a step cannot be skipped: the next method does not
//! exist. A backend connection takes a `Permit` by value, and only policy makes one.

pub mod authorize;
pub mod cancel;
mod close;
mod commands;
mod connect;
mod identify;
mod lane;
pub mod link;
mod mysql;
mod parameters;
pub mod port;
pub mod pump;
pub mod rule;
mod secure;
mod statement;
#[cfg(test)]
mod tests;
mod trail;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ringgate_protocol::mysql::Mysql;
use ringgate_protocol::postgres::Postgres;
use ringgate_protocol::redis::Redis;
use ringgate_protocol::{Limits, Protocol};

pub use close::{End, Ended};
pub use commands::CommandBits;
use connect::Running;
use link::Link;
use trail::Trail;

use crate::metrics::{Reject, Served, Traffic};
use crate::net;
use crate::net::stream::Stream;
use crate::plane::{Listener, Peer};
use crate::worker::{Control, Core};

/// A session that has come as far as `S`.
pub struct Session<S> {
    core: Rc<Core>,
    client: Link,
    trail: Trail,
    /// Given back when the session is over, however it ends.
    place: Place,
    listener: Arc<Listener>,
    peer: Peer,
    state: S,
}

/// Accepted: a socket and an address, nothing believed.
pub struct Accepted;

/// A connection counted at its worker.
struct Place {
    core: Rc<Core>,
    entered: Option<Rc<Control>>,
    pre_auth: bool,
}

impl Place {
    fn new(core: &Rc<Core>) -> Place {
        core.plane.begin_pre_auth();
        Place { core: core.clone(), entered: None, pre_auth: true }
    }

    /// The client is authorised: it no longer counts among those that are not.
    fn authorized(&mut self) {
        if std::mem::take(&mut self.pre_auth) {
            self.core.plane.end_pre_auth();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.authorized();
        if let Some(control) = &self.entered {
            self.core.leave(control);
        }
        self.core.plane.gate(self.core.id).release();
    }
}

/// Begins a session on a connection that was handed to this worker.
pub fn start(core: Rc<Core>, stream: Stream, peer: Peer, listener: Arc<Listener>) {
    core.counters.of(listener.served).connections_total.fetch_add(1, Relaxed);
    match listener.served {
        Served::Postgres => spawn::<Postgres>(core, stream, peer, listener),
        Served::Redis => spawn::<Redis>(core, stream, peer, listener),
        Served::Mysql => spawn::<Mysql>(core, stream, peer, listener),
    }
}

fn spawn<P: Protocol>(core: Rc<Core>, stream: Stream, peer: Peer, listener: Arc<Listener>) {
    let place = Place::new(&core);
    let deadline = Instant::now() + core.plane.settings.handshake_timeout;
    let session = Session {
        client: Link::new(stream, &core.pool, deadline),
        trail: Trail::new(P::NAME, peer.to_string()),
        core: core.clone(),
        place,
        listener,
        peer,
        state: Accepted,
    };
    // Boxed here, so that the task does not keep room for what only its first steps need.
    let session = Box::new(session);
    net::spawn(run::<P>(session), move || {
        core.counters.panics.fetch_add(1, Relaxed);
        core.counters.of(Served::named(P::NAME)).ended[End::Panic as usize].fetch_add(1, Relaxed);
    });
}

async fn run<P: Protocol>(session: Box<Session<Accepted>>) {
    let ended = match drive::<P>(session).await {
        Ok(ended) | Err(ended) => ended,
    };
    Box::pin(ended.close()).await;
}

/// The line. The cold steps are boxed as one: an idle session is its pump and nothing else.
async fn drive<P: Protocol>(session: Box<Session<Accepted>>) -> Result<Box<Ended>, Box<Ended>> {
    let running = Box::pin(admit::<P>(*session)).await?;
    Ok(running.pump().await)
}

/// The cold steps.
async fn admit<P: Protocol>(session: Session<Accepted>) -> Result<Running<P>, Box<Ended>> {
    let session = session.secure::<P>().await?;
    let session = session.identify()?;
    let session = session.authorize().await?;
    let session = session.connect().await?;
    Ok(session.run())
}

impl<S> Session<S> {
    fn step<T>(self, next: impl FnOnce(S) -> T) -> Session<T> {
        let Session { core, client, trail, place, listener, peer, state } = self;
        Session { core, client, trail, place, listener, peer, state: next(state) }
    }

    fn count_reject(&self, why: Reject) {
        self.traffic().rejected[why as usize].fetch_add(1, Relaxed);
    }

    /// The bounds of the session's machine.
    fn limits(&self) -> Limits {
        let settings = &self.core.plane.settings;
        Limits {
            frame_bytes_max: match self.listener.served {
                Served::Postgres => settings.postgres_frame_bytes_max,
                Served::Redis => settings.redis_frame_bytes_max,
                Served::Mysql => settings.mysql_frame_bytes_max,
            },
            text_bytes_max: settings.query_text_bytes_max,
            inline_commands: self.listener.inline_commands,
            teleport_compat: self.listener.teleport_compat,
        }
    }

    /// The figures of the session's protocol.
    fn traffic(&self) -> &Traffic {
        self.core.counters.of(self.trail.served)
    }
}

/// A session as the sessions list shows it. No statement text.
pub fn describe(control: &Control, core: &Core) -> serde_json::Value {
    let about = &control.about;
    serde_json::json!({
        "sid": control.sid.to_string(),
        "worker": core.id,
        "user": about.identity.user,
        "database": about.service,
        "db_user": about.db_user,
        "db_name": about.db_name,
        "addr_remote": about.peer,
        "statements": control.statements.get(),
        "idle_ms": core.now_ms().saturating_sub(control.active_ms.get()),
    })
}
