//! Close: the only exit. Says the last words, records the end, gives everything back.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ringgate_audit::event::Event;
use ringgate_protocol::{Afterword, Heard};

use super::link::Link;
use super::trail::Trail;
use super::{Place, Session};
use crate::worker::Core;

/// How a session ended: the label of `ringgate_session_ended_total` and the `reason` of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum End {
    /// The client left.
    Client,
    /// The database left.
    Server,
    /// Nothing happened for too long.
    Idle,
    /// The certificate expired.
    Expired,
    /// The right was lost.
    Access,
    /// The gateway shuts down.
    Drain,
    /// A peer broke the protocol.
    Protocol,
    /// A peer did not take our bytes.
    Stalled,
    /// The session was never let in.
    Refused,
    /// A limit or a deadline before the session began.
    Limit,
    /// A cancel request: a connection of its own.
    Cancel,
    /// A mistake of ours, caught.
    Panic,
    /// TLS or the audit failed in the middle.
    Error,
}

impl End {
    /// How many there are.
    pub const COUNT: usize = 13;
    /// All of them, in order.
    pub const ALL: [End; Self::COUNT] = [
        End::Client,
        End::Server,
        End::Idle,
        End::Expired,
        End::Access,
        End::Drain,
        End::Protocol,
        End::Stalled,
        End::Refused,
        End::Limit,
        End::Cancel,
        End::Panic,
        End::Error,
    ];

    /// The word of metrics and audit.
    pub const fn word(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Server => "server",
            End::Idle => "idle",
            End::Expired => "expired",
            End::Access => "access",
            End::Drain => "drain",
            End::Protocol => "protocol",
            End::Stalled => "stalled",
            End::Refused => "refused",
            End::Limit => "limit",
            End::Cancel => "cancel",
            End::Panic => "panic",
            End::Error => "error",
        }
    }

    /// TLS failed on the lane that begins at `side`.
    pub fn tls(side: ringgate_protocol::Side) -> End {
        match side {
            ringgate_protocol::Side::Client => End::Client,
            ringgate_protocol::Side::Backend => End::Server,
        }
    }
}

/// How long a client that was refused is told so.
const TELLING: Duration = Duration::from_secs(1);

/// A session that is over, with what is still owed.
#[must_use]
pub struct Ended {
    core: Rc<Core>,
    trail: Trail,
    end: End,
    client: Option<Link>,
    /// For the client, before the close.
    pub last_words: Vec<u8>,
    /// Goes on with them for a client that would not see them otherwise; where it has, they are not said again.
    pub afterword: Option<Box<dyn Afterword>>,
    _place: Place,
}

impl<S> Session<S> {
    /// Ends a session that has not reached the pump.
    pub(super) fn closed(self, end: End) -> Box<Ended> {
        let Session { core, client, trail, place, .. } = self;
        Box::new(Ended {
            core,
            trail,
            end,
            client: Some(client),
            last_words: Vec::new(),
            afterword: None,
            _place: place,
        })
    }
}

impl Ended {
    /// Ends a session whose sockets the pump has closed.
    pub(super) fn pumped(core: Rc<Core>, trail: Trail, end: End, place: Place) -> Box<Ended> {
        Box::new(Ended { core, trail, end, client: None, last_words: Vec::new(), afterword: None, _place: place })
    }

    /// Records the end and says goodbye.
    pub async fn close(mut self) {
        self.core.counters.of(self.trail.served).ended[self.end as usize].fetch_add(1, Relaxed);
        if self.trail.has_started() && matches!(self.end, End::Idle | End::Expired | End::Access) {
            // The ring keeps a reserve for endings; the end itself follows.
            let _ = self.trail.record(&self.core, &Event::ClientDisconnect { reason: self.end.word() });
        }
        let reason = match self.end {
            End::Panic | End::Stalled => "error",
            end => end.word(),
        };
        self.trail.ended(&self.core, reason);
        if let Some(mut client) = self.client.take() {
            if let Some(afterword) = self.afterword.take()
                && tell(&mut client, afterword).await
            {
                self.last_words.clear();
            }
            // A client that does not take its last words does not hold its place for long.
            client.deadline = Instant::now() + Duration::from_secs(2);
            client.close(&self.last_words).await;
        }
    }
}

/// Goes on telling a client that it was refused. Answers whether it was told at all.
async fn tell(client: &mut Link, mut afterword: Box<dyn Afterword>) -> bool {
    client.deadline = Instant::now() + TELLING;
    let mut told = false;
    loop {
        let mut out = Vec::new();
        let need = loop {
            match afterword.handle(client.plain.filled(), &mut out) {
                Heard::Need { need } => break Some(need),
                Heard::Read { len } => client.plain.consume(len),
                Heard::Done => break None,
            }
        };
        if !out.is_empty() {
            told = true;
            if client.send(&out).await.is_err() {
                return told;
            }
        }
        let Some(need) = need else { return told };
        if client.fill(need).await.is_err() {
            return told;
        }
    }
}
