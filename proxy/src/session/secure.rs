//! Secure: TLS, and the first message. Gives what the client asks for; nothing of it is believed yet.

use std::sync::atomic::Ordering::Relaxed;

use ringgate_audit::event::{Event, Stamp};
use ringgate_protocol::{DirectTls, Opened, Opening, Protocol, Refusal, RefusalKind};

use super::link::LinkError;
use super::rule::refusal_of;
use super::{Accepted, End, Ended, Session, cancel};
use crate::metrics::Reject;
use crate::tls::Tls;
use crate::worker::unix_us;

/// TLS is up where the listener asks for it, and the first message was read.
pub struct Secured<P: Protocol> {
    /// The opening machine, for refusals and for what comes after it.
    pub opening: P::Opening,
    /// What the client asks for.
    pub startup: Startup,
}

/// Owned form of the protocol's startup.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Database user asked for, or empty.
    pub user: String,
    /// Database name asked for, or empty.
    pub database: String,
    /// A replication session is asked for.
    pub replication: bool,
    /// What the client calls itself.
    pub user_agent: String,
    /// Other parameters.
    pub parameters: Vec<(String, String)>,
}

impl Session<Accepted> {
    /// Reads the client until it is known what it wants. Everything before that is bounded in time and bytes.
    pub(super) async fn secure<P: Protocol>(mut self) -> Result<Session<Secured<P>>, Box<Ended>> {
        let mut seed = [0; 32];
        if aws_lc_rs::rand::fill(&mut seed).is_err() {
            return Err(self.closed(End::Error));
        }
        let mut opening = P::opening(&self.core.plane.learned.all::<P>(), seed);
        if self.listener.plain.is_some() {
            opening.offer_no_tls();
        }
        if self.core.policy.borrow().current().offers_local_files() {
            opening.offer_local_files();
        }
        if let Some(version) = &self.listener.server_version {
            opening.greet_as(version);
        }
        let mut out = Vec::new();
        opening.start(&mut out);
        loop {
            if !out.is_empty() {
                if let Err(error) = self.client.send(&out).await {
                    return Err(self.failed(&error));
                }
                out.clear();
            }
            let tls = self.client.tls.is_some();
            let opened = if self.client.plain.is_empty() {
                Ok(Opened::Need { need: 1 })
            } else {
                opening.handle(self.client.plain.filled(), tls, &mut out)
            };
            match opened {
                Ok(Opened::Need { need }) => {
                    if let Err(error) = self.client.fill(need).await {
                        return Err(self.failed(&error));
                    }
                }
                Ok(Opened::Answered { len }) => self.client.plain.consume(len),
                Ok(Opened::StartTls { len }) => {
                    // Bytes behind the request were sent in the clear by whoever stands in the middle, unless they
                    // are the first record: TLS itself finds out.
                    if self.client.plain.len() > len && !P::TLS_FOLLOWS_AT_ONCE {
                        return Err(self.violated("bytes stuffed behind the TLS request"));
                    }
                    self.client.plain.consume(len);
                    if let Err(error) = self.client.send(&std::mem::take(&mut out)).await {
                        return Err(self.failed(&error));
                    }
                    self = self.shake_hands().await?;
                }
                Ok(Opened::DirectTls) => {
                    self = self.shake_hands().await?;
                    let alpn = self.client.tls.as_ref().and_then(Tls::alpn);
                    if let DirectTls::WithAlpn(name) = P::DIRECT_TLS
                        && alpn != Some(name)
                    {
                        return Err(self.violated("direct TLS without the protocol's ALPN name"));
                    }
                }
                Ok(Opened::Startup { len, startup }) => {
                    let startup = Startup {
                        user: startup.user.to_owned(),
                        database: startup.database.to_owned(),
                        replication: startup.replication,
                        user_agent: startup.user_agent.to_owned(),
                        parameters: startup
                            .parameters
                            .iter()
                            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                            .collect(),
                    };
                    self.client.plain.consume(len);
                    self.trail.facts.user_agent.clone_from(&startup.user_agent);
                    self.trail.facts.parameters.clone_from(&startup.parameters);
                    return Ok(self.step(|Accepted| Secured { opening, startup }));
                }
                Ok(Opened::Cancel { pid, secret, .. }) => {
                    if tls || self.listener.cleartext_cancel || self.listener.plain.is_some() {
                        cancel::route(&self.core, pid, secret, &self.peer);
                    }
                    return Err(self.closed(End::Cancel));
                }
                Err(fault) => {
                    let refusal = Refusal { kind: refusal_of(&fault), message: fault.what, detail: "", hint: "" };
                    P::refuse(&mut opening, &refusal, &mut out);
                    let mut ended = self.violated(fault.what);
                    ended.last_words = out;
                    return Err(ended);
                }
            }
        }
    }

    async fn shake_hands(mut self) -> Result<Self, Box<Ended>> {
        let tls = match Tls::server(self.core.plane.tls.load().of(self.listener.served).clone()) {
            Ok(tls) => tls,
            Err(error) => return Err(self.failed(&LinkError::Tls(error))),
        };
        match self.client.start_tls(tls, Some(&self.core)).await {
            Ok(()) => Ok(self),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The client left, dawdled, or failed TLS. Recorded when it was TLS: that may be somebody trying.
    fn failed(self, error: &LinkError) -> Box<Ended> {
        if let LinkError::Tls(error) = error {
            self.count_reject(Reject::Tls);
            self.record_failure(&error.to_string());
        }
        let end = if matches!(error, LinkError::TimedOut) { End::Limit } else { End::Client };
        self.closed(end)
    }

    fn violated(self, rule: &'static str) -> Box<Ended> {
        self.count_reject(Reject::Protocol);
        self.traffic().violations_client.fetch_add(1, Relaxed);
        let payload = &self.client.plain.filled()[..self.client.plain.len().min(64)];
        let event = Event::Malformed { side: "client", rule, payload };
        let stamp = Stamp { session: None, ei: 0, time_us: unix_us() };
        // Nothing was let through, so nothing is lost with a sink that cannot take this.
        let _ = self.core.audit.borrow_mut().record(stamp, &event);
        self.closed(End::Protocol)
    }

    fn record_failure(&self, error: &str) {
        let addr = self.peer.to_string();
        let event = Event::AuthFailed { addr: &addr, protocol: self.listener.served.word(), error };
        let stamp = Stamp { session: None, ei: 0, time_us: unix_us() };
        // As above.
        let _ = self.core.audit.borrow_mut().record(stamp, &event);
    }
}

impl<P: Protocol> Session<Secured<P>> {
    /// Refuses the session: `why` is for the audit, `message` and `hint` for the client.
    pub(super) fn refuse(
        mut self,
        kind: RefusalKind,
        reject: Reject,
        why: &str,
        message: &str,
        hint: &str,
    ) -> Box<Ended> {
        self.count_reject(reject);
        self.trail.refused(&self.core, why, message);
        let mut last_words = Vec::new();
        let refusal = Refusal { kind, message, detail: "", hint };
        P::refuse(&mut self.state.opening, &refusal, &mut last_words);
        let afterword = P::afterword(&refusal, self.limits());
        let mut ended = self.closed(End::Refused);
        ended.afterword = afterword;
        ended.last_words = last_words;
        ended
    }
}
