//! A session's audit: its facts, its event index, and what it did.

use std::sync::atomic::Ordering::Relaxed;

use ringgate_audit::event::{Event, SessionFacts, SessionSlot, Stamp};
use ringgate_audit::{Position, Refused};
use uuid::Uuid;

use crate::metrics::Served;
use crate::worker::{Core, unix_us};

/// The audit side of one session. Borrowed at every step, skipped at none.
pub struct Trail {
    /// Session id.
    pub sid: Uuid,
    /// When the connection was accepted, microseconds since 1970.
    pub start_us: u64,
    /// The protocol, for its figures.
    pub served: Served,
    /// Statements forwarded.
    pub statements: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// The facts, as far as known.
    pub facts: Facts,
    slot: Option<SessionSlot>,
    next_ei: u32,
    started: bool,
}

/// Owned form of the audit's session facts.
#[derive(Default)]
pub struct Facts {
    /// Product user.
    pub user: String,
    /// `human` or `bot`.
    pub user_kind: &'static str,
    /// Roles of the certificate.
    pub roles: Vec<String>,
    /// Active access requests.
    pub access_requests: Vec<String>,
    /// Serial of the certificate.
    pub cert_serial: String,
    /// Client address.
    pub addr_remote: String,
    /// Registered name of the database.
    pub db_service: String,
    /// Protocol word.
    pub db_protocol: &'static str,
    /// Address of the database.
    pub db_uri: String,
    /// Database user.
    pub db_user: String,
    /// Database name.
    pub db_name: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// Other startup parameters.
    pub parameters: Vec<(String, String)>,
}

impl Trail {
    /// A trail for a connection that was just accepted.
    pub fn new(protocol: &'static str, addr_remote: String) -> Trail {
        Trail {
            sid: Uuid::now_v7(),
            start_us: unix_us(),
            served: Served::named(protocol),
            statements: 0,
            bytes_in: 0,
            bytes_out: 0,
            facts: Facts { addr_remote, db_protocol: protocol, ..Facts::default() },
            slot: None,
            next_ei: 0,
            started: false,
        }
    }

    /// The session goes on as another database user: what is recorded from now on says so.
    pub fn acts_as(&mut self, core: &Core, db_user: &str) {
        self.facts.db_user = db_user.to_owned();
        // The facts of a slot are fixed; the next record opens another one.
        if let Some(slot) = self.slot.take() {
            core.audit.borrow_mut().close_session(slot);
        }
    }

    /// Whether the session start was recorded as a success.
    pub fn has_started(&self) -> bool {
        self.started
    }

    /// The index that the next event will have.
    pub fn next_ei(&self) -> u32 {
        self.next_ei
    }

    /// Records `event` as the session's next one.
    pub fn record(&mut self, core: &Core, event: &Event<'_>) -> Result<Position, Refused> {
        self.record_at(core, unix_us(), event)
    }

    /// As [`Trail::record`], with a clock that was read before.
    pub fn record_at(&mut self, core: &Core, time_us: u64, event: &Event<'_>) -> Result<Position, Refused> {
        let slot = self.slot(core)?;
        let stamp = Stamp { session: Some(slot), ei: self.next_ei, time_us };
        let position = core.audit.borrow_mut().record(stamp, event)?;
        self.next_ei += 1;
        Ok(position)
    }

    /// Records that the session began, by the clock that its first records go by.
    pub fn started(&mut self, core: &Core, time_us: u64, backend_pid: u32) -> Result<Position, Refused> {
        let position = self.start_event(core, time_us, "", "", backend_pid)?;
        self.started = true;
        Ok(position)
    }

    /// Records that the session was refused: `error` for the audit, `message` as the client was told.
    pub fn refused(&mut self, core: &Core, error: &str, message: &str) {
        // A refusal lets no byte through; a sink that cannot take it has said so to the operator already.
        let _ = self.start_event(core, unix_us(), error, message, 0);
    }

    fn start_event(
        &mut self,
        core: &Core,
        time_us: u64,
        error: &str,
        message: &str,
        backend_pid: u32,
    ) -> Result<Position, Refused> {
        let user_agent = std::mem::take(&mut self.facts.user_agent);
        let parameters = std::mem::take(&mut self.facts.parameters);
        let pairs: Vec<(&str, &str)> = parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let event = Event::SessionStart { error, message, user_agent: &user_agent, backend_pid, parameters: &pairs };
        let position = self.record_at(core, time_us, &event);
        (self.facts.user_agent, self.facts.parameters) = (user_agent, parameters);
        position
    }

    /// Records the end and gives the ring's slot back.
    pub fn ended(&mut self, core: &Core, reason: &str) {
        if self.started {
            let event = Event::SessionEnd {
                reason,
                start_us: self.start_us,
                statements: self.statements,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
            };
            // The ring keeps a reserve for endings; a broken sink is the audit's own alarm.
            let _ = self.record(core, &event);
        }
        if let Some(slot) = self.slot.take() {
            core.audit.borrow_mut().close_session(slot);
        }
        core.counters.of(self.served).client_in.fetch_add(self.bytes_in, Relaxed);
        core.counters.of(self.served).client_out.fetch_add(self.bytes_out, Relaxed);
    }

    fn slot(&mut self, core: &Core) -> Result<SessionSlot, Refused> {
        if let Some(slot) = self.slot {
            return Ok(slot);
        }
        let facts = &self.facts;
        let slot = core.audit.borrow_mut().open_session(&SessionFacts {
            sid: self.sid,
            user: &facts.user,
            user_kind: facts.user_kind,
            roles: &facts.roles,
            access_requests: &facts.access_requests,
            cert_serial: &facts.cert_serial,
            addr_remote: &facts.addr_remote,
            db_service: &facts.db_service,
            db_protocol: facts.db_protocol,
            db_uri: &facts.db_uri,
            db_user: &facts.db_user,
            db_name: &facts.db_name,
        })?;
        self.slot = Some(slot);
        Ok(slot)
    }
}
