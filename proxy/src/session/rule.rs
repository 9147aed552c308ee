//! What happens when the machine asks: policy first, then the record, then the byte.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use aws_lc_rs::digest;
use ringgate_audit::event::{Event, NoParameters, Statement};
use ringgate_audit::{Position, Refused};
use ringgate_policy::{AuditedStatements, CommandSet};
use ringgate_protocol::{
    Class, Command, Fault, FaultKind, Operation, Outcome, Refusal, RefusalKind, Side, Ticket, Verb, redis,
};

use super::commands::{self, Commands, Denied, KeyList, ValueList};
use super::parameters::Bound;
use super::trail::Trail;
use super::{End, mysql, statement};
use crate::metrics::Served;
use crate::plane::{Told, ToldPlace};
use crate::session::cancel::BackendKey;
use crate::settings::{ArgumentDetail, ParameterDetail, QueryText};
use crate::worker::{Control, Core};

/// Everything a session's statements are judged and recorded by.
pub struct Rules {
    /// The audit of the session.
    pub trail: Trail,
    /// The command classes its roles permit.
    pub commands: CommandSet,
    /// Which statements are recorded.
    pub statements: AuditedStatements,
    /// How much of parameters is recorded.
    pub parameters: ParameterDetail,
    /// Where a cancel for this session goes.
    pub cancel: super::cancel::Route,
    /// The databases that a session names in its course are judged (`enforce_db_names`).
    pub enforces_names: bool,
    /// The id that the client was told before its connection to the database had one.
    pub told_id: Option<u32>,
    /// What commands are judged by, where the protocol has commands.
    pub redis: Option<Box<Commands>>,
    /// The client has said goodbye.
    pub goodbye: bool,
    now_us: u64,
    unix_us: u64,
    backend_pid: u32,
    told: Option<ToldPlace>,
}

/// What the pump does with an operation.
pub enum Answer {
    /// Forward it.
    Allow {
        /// Comes back with the outcome.
        ticket: Ticket,
        /// `audit.mode: durable`: first wait until this is on disk.
        position: Option<Position>,
        /// The rest of the text has to be hashed as it passes.
        hash: bool,
        /// The id of the database's that a KILL is to name in place of ours.
        killed: Option<u32>,
    },
    /// Refuse it; the session goes on.
    Refuse {
        /// The class of the refusal.
        kind: RefusalKind,
        /// What happened.
        message: Cow<'static, str>,
        /// Why.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
    /// The audit ring has no room: nothing moves until it has.
    Wait,
}

impl Answer {
    fn of(refusal: Refusal<'static>) -> Answer {
        let Refusal { kind, message, detail, hint } = refusal;
        Answer::Refuse { kind, message: message.into(), detail: detail.to_owned(), hint }
    }
}

/// The name of a command as its record has it.
fn shown<'a>(command: &redis::Command<'a>) -> &'a [u8] {
    if command.name().is_empty() { b"(not a name)" } else { command.name().as_bytes() }
}

impl Rules {
    /// Rules for a session that is about to enter the pump.
    pub fn new(
        trail: Trail,
        commands: CommandSet,
        statements: AuditedStatements,
        parameters: ParameterDetail,
        cancel: super::cancel::Route,
    ) -> Rules {
        Rules {
            trail,
            commands,
            statements,
            parameters,
            cancel,
            enforces_names: false,
            told_id: None,
            redis: None,
            goodbye: false,
            now_us: 0,
            unix_us: 0,
            backend_pid: 0,
            told: None,
        }
    }

    /// The trail, when the session is over.
    pub fn into_trail(self) -> Trail {
        self.trail
    }

    /// Reads the clocks, once for all that happens in this turn.
    pub fn new_turn(&mut self, core: &Core) {
        self.now_us = core.now_us();
        self.unix_us = core.unix_us_at(self.now_us);
    }

    /// The turn's time on the worker's clock.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000 + 1
    }

    /// Rules on one operation, and records it before anything of it is forwarded.
    pub fn ask(&mut self, core: &Core, control: &Rc<Control>, operation: &Operation<'_>) -> Answer {
        if let Command::Redis(command) = operation.command {
            return self.ask_command(core, control, operation, command);
        }
        if !self.commands.allows(operation.class as u8) {
            return self.denied(core, operation);
        }
        let is_mysql = self.trail.served == Served::Mysql;
        if is_mysql && let Err(refused) = mysql::check(core, control, operation, self.enforces_names) {
            return self.refused(core, operation, refused);
        }
        let ei = self.trail.next_ei();
        let ticket = Ticket { ei, at_us: self.now_us };
        let text = &operation.text;
        let detail = core.plane.settings.query_text;
        let streams = text.streams_from.is_some();
        let mut shown = statement_of(operation);
        // The hash goes into the outcome: without one there is nowhere to put it.
        let needs_hash = streams && detail != QueryText::Off && operation.has_outcome;
        if detail != QueryText::Full {
            shown.sha256 = (detail == QueryText::Hashed && !streams).then(|| sha256(text.head));
            shown.text = b"";
        } else if !streams && text.full_bytes > text.head.len() as u64 {
            shown.sha256 = text.sha256;
        }
        let killed = if is_mysql { mysql::killed(core, control, operation.verb) } else { None };
        if !self.is_recorded(operation, shown.query_type) {
            let ticket = Ticket { ei: Ticket::UNRECORDED, ..ticket };
            return Answer::Allow { ticket, position: None, hash: false, killed };
        }
        let bound = Bound { parameters: operation.parameters, detail: self.parameters };
        let event = event_of(operation, shown, &bound);
        match self.trail.record_at(core, self.unix_us, &event) {
            Ok(position) => {
                if operation.has_outcome {
                    self.trail.statements += 1;
                    control.statements.set(self.trail.statements);
                    core.counters.of(self.trail.served).statements.fetch_add(1, Relaxed);
                }
                let position = core.plane.settings.durable.then_some(position);
                Answer::Allow { ticket, position, hash: needs_hash, killed }
            }
            Err(Refused::Full) => Answer::Wait,
            Err(_) => Answer::of(unrecorded(core, self.trail.served)),
        }
    }

    /// Rules on one command, and records it before anything of it is forwarded.
    fn ask_command(
        &mut self,
        core: &Core,
        control: &Control,
        operation: &Operation<'_>,
        command: redis::Command<'_>,
    ) -> Answer {
        let ticket = Ticket { ei: self.trail.next_ei(), at_us: self.now_us };
        let Some(rules) = self.redis.as_mut() else {
            let why = Denied {
                message: "this session knows no commands".into(),
                detail: String::new(),
                kind: RefusalKind::Denied,
            };
            return self.denied_command(core, command, why);
        };
        if let Err(denied) = rules.allows(core, control, operation, &command, ticket.ei) {
            return self.denied_command(core, command, denied);
        }
        let is_authentication = operation.verb == Verb::Authenticate;
        // Who the session becomes is on record whatever the role says, and its outcome is waited for by that record.
        let changes_user = is_authentication || rules.awaits(ticket.ei);
        let is_recorded = match self.statements {
            _ if changes_user => true,
            AuditedStatements::All => true,
            AuditedStatements::DdlDml => commands::may_change(&command),
            AuditedStatements::None => false,
        };
        if !is_recorded {
            self.count_statement(core, control);
            let ticket = Ticket { ei: Ticket::UNRECORDED, ..ticket };
            return Answer::Allow { ticket, position: None, hash: false, killed: None };
        }
        let detail = rules.detail;
        let (keys, values) = (KeyList(command), ValueList(command));
        let event = Event::Command {
            name: shown(&command),
            keys: if detail == ArgumentDetail::Names { &NoParameters } else { &keys },
            arguments: command.arguments(),
            argument_bytes: command.argument_bytes(),
            // Of an AUTH the user counts, and the password is masked; of a SELECT the number.
            values: if detail == ArgumentDetail::Full || is_authentication || !operation.database.is_empty() {
                &values
            } else {
                &NoParameters
            },
            error: "",
        };
        match self.trail.record_at(core, self.unix_us, &event) {
            Ok(position) => {
                self.count_statement(core, control);
                if let Some(mode) = self.redis.as_mut().and_then(|rules| rules.enters(&command)) {
                    self.record_mode(core, mode);
                }
                let position = core.plane.settings.durable.then_some(position);
                Answer::Allow { ticket, position, hash: false, killed: None }
            }
            Err(refused) => {
                if let Some(rules) = self.redis.as_mut() {
                    rules.forget(ticket.ei);
                }
                match refused {
                    Refused::Full => Answer::Wait,
                    _ => Answer::of(unrecorded(core, self.trail.served)),
                }
            }
        }
    }

    fn count_statement(&mut self, core: &Core, control: &Control) {
        self.trail.statements += 1;
        control.statements.set(self.trail.statements);
        core.counters.of(self.trail.served).statements.fetch_add(1, Relaxed);
    }

    /// Records that the session becomes a stream of messages.
    fn record_mode(&mut self, core: &Core, mode: &str) {
        let members = format!(r#""mode":"{mode}""#);
        let event = Event::Other { event: "db.session.redis.mode", code: "TRD00I", members: &members };
        // The command itself is on record.
        let _ = self.trail.record_at(core, self.unix_us, &event);
    }

    #[cold]
    fn denied_command(&mut self, core: &Core, command: redis::Command<'_>, denied: Denied) -> Answer {
        core.counters.of(self.trail.served).statements_refused.fetch_add(1, Relaxed);
        let Denied { message, detail, kind } = denied;
        let is_about_user = kind == RefusalKind::NotAuthorized;
        let level = self.redis.as_ref().map_or(ArgumentDetail::Names, |rules| rules.detail);
        let (keys, values) = (KeyList(command), ValueList(command));
        let event = Event::Command {
            name: shown(&command),
            keys: if level == ArgumentDetail::Names { &NoParameters } else { &keys },
            arguments: command.arguments(),
            argument_bytes: command.argument_bytes(),
            values: if level == ArgumentDetail::Full || is_about_user { &values } else { &NoParameters },
            error: &detail,
        };
        // Nothing is forwarded, recorded or not.
        let _ = self.trail.record_at(core, self.unix_us, &event);
        Answer::Refuse { kind, message: message.into(), detail, hint: "ask for a role that allows it" }
    }

    /// An AUTH that changed the user takes effect with its answer.
    fn settle(&mut self, core: &Core, control: &Control, first: u32, count: u32, success: bool) {
        let became = self.redis.as_mut().and_then(|rules| rules.settled(first, count, success).map(str::to_owned));
        if let Some(user) = became {
            self.trail.acts_as(core, &user);
            *control.acting_as.borrow_mut() = Some(user);
        }
    }

    /// Whether a lane that waits for room in the ring may try again.
    pub fn has_room(&self, core: &Core) -> bool {
        let audit = core.audit.borrow();
        !audit.pressure() || !audit.sink_ok()
    }

    /// Whether a record is on disk; `None` while that is not known. `false`: the log cannot be written.
    pub fn is_on_disk(&self, core: &Core, position: Position) -> Option<bool> {
        let audit = core.audit.borrow();
        if audit.is_durable(position) { Some(true) } else { (!audit.sink_ok()).then_some(false) }
    }

    /// Records that a statement that is on record was not forwarded after all.
    pub fn not_forwarded(&mut self, core: &Core, ticket: Ticket) {
        self.without_outcome(core, ticket, b"not forwarded", true);
    }

    /// Records what came of a statement.
    pub fn outcome(&mut self, core: &Core, control: &Control, outcome: &Outcome<'_>, sha256: Option<[u8; 32]>) {
        let duration_us = self.now_us.saturating_sub(outcome.ticket.at_us);
        core.counters.of(self.trail.served).statement_us.fetch_add(duration_us, Relaxed);
        if !outcome.success {
            core.counters.of(self.trail.served).statement_errors.fetch_add(1, Relaxed);
        }
        if outcome.ticket.ei == u32::MAX {
            return;
        }
        self.result(
            core,
            &Event::Result {
                query_ei: outcome.ticket.ei,
                success: outcome.success,
                rows: outcome.rows,
                duration_us,
                code: outcome.code,
                error: outcome.message,
                copy_bytes: outcome.copy_bytes,
                query_sha256: sha256,
                skipped: outcome.skipped,
                warnings: outcome.warnings,
            },
        );
        self.settle(core, control, outcome.ticket.ei, 1, outcome.success);
    }

    /// Records that `count` statements from `first` on succeeded.
    pub fn successes(&mut self, core: &Core, control: &Control, first: Ticket, count: u32) {
        let duration_us = self.now_us.saturating_sub(first.at_us);
        let all = duration_us.saturating_mul(u64::from(count));
        core.counters.of(self.trail.served).statement_us.fetch_add(all, Relaxed);
        if first.ei == Ticket::UNRECORDED {
            return;
        }
        self.result(core, &Event::Results { first_ei: first.ei, count, duration_us });
        self.settle(core, control, first.ei, count, true);
    }

    /// Records that a statement's outcome will never be known.
    pub fn unanswered(&mut self, core: &Core, ticket: Ticket, message: &[u8]) {
        self.without_outcome(core, ticket, message, false);
    }

    fn without_outcome(&mut self, core: &Core, ticket: Ticket, message: &[u8], skipped: bool) {
        if ticket.ei == u32::MAX {
            return;
        }
        self.new_turn(core);
        self.result(
            core,
            &Event::Result {
                query_ei: ticket.ei,
                success: false,
                rows: None,
                duration_us: self.now_us.saturating_sub(ticket.at_us),
                code: b"",
                error: message,
                copy_bytes: 0,
                query_sha256: None,
                skipped,
                warnings: 0,
            },
        );
    }

    fn result(&mut self, core: &Core, event: &Event<'_>) {
        // The ring keeps a reserve for outcomes, and the statement itself is on record already.
        let _ = self.trail.record_at(core, self.unix_us, event);
    }

    /// Keeps the database's own cancel key.
    pub fn backend_key(&mut self, core: &Core, control: &Control, pid: u32, secret: &[u8]) {
        self.backend_pid = pid;
        if let (Some(id), None) = (self.told_id, &self.told) {
            let about = &control.about;
            let told = Told { user: about.identity.user.clone(), service: about.service.clone(), connection: pid };
            self.told = Some(core.plane.tell(id, told));
        }
        *control.backend.borrow_mut() = Some(BackendKey { pid, secret: secret.into(), route: self.cancel.clone() });
    }

    /// Records the start of the session: the database has let us in. Errors: [`Refused::Full`] passes.
    pub fn ready(&mut self, core: &Core) -> Result<(), Refused> {
        if self.trail.has_started() {
            return Ok(());
        }
        self.trail.started(core, self.unix_us, self.backend_pid)?;
        core.counters.of(self.trail.served).sessions_total.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Records bytes that break the protocol, and says how the session ends.
    pub fn violation(&mut self, core: &Core, fault: &Fault, bytes: &[u8]) -> End {
        let counter = match fault.side {
            Side::Client => &core.counters.of(self.trail.served).violations_client,
            Side::Backend => &core.counters.of(self.trail.served).violations_server,
        };
        counter.fetch_add(1, Relaxed);
        let payload = &bytes[..bytes.len().min(64)];
        let event = Event::Malformed { side: super::pump::side_word(fault), rule: fault.what, payload };
        // The session ends whether or not this could be recorded.
        let _ = self.trail.record_at(core, self.unix_us, &event);
        End::Protocol
    }

    #[cold]
    fn refused(&mut self, core: &Core, operation: &Operation<'_>, refused: mysql::Refused) -> Answer {
        core.counters.of(self.trail.served).statements_refused.fetch_add(1, Relaxed);
        let mysql::Refused { kind, message, detail } = refused;
        let shown = denied_statement(operation);
        let bound = Bound { parameters: operation.parameters, detail: self.parameters };
        // Nothing is forwarded, recorded or not.
        let event = Event::Query { statement: shown, parameters: &bound, error: &detail };
        let _ = self.trail.record_at(core, self.unix_us, &event);
        Answer::Refuse { kind, message: message.into(), detail: String::new(), hint: "" }
    }

    fn denied(&mut self, core: &Core, operation: &Operation<'_>) -> Answer {
        core.counters.of(self.trail.served).statements_refused.fetch_add(1, Relaxed);
        let detail =
            format!("the command class {} is not permitted by any role of this session", operation.class.word());
        let shown = denied_statement(operation);
        let bound = Bound { parameters: operation.parameters, detail: self.parameters };
        let event = match operation.verb {
            Verb::FunctionCall => {
                Event::FunctionCall { oid: operation.function_oid, arguments: &bound, error: &detail }
            }
            _ => Event::Query { statement: shown, parameters: &bound, error: &detail },
        };
        // Nothing is forwarded, recorded or not.
        let _ = self.trail.record_at(core, self.unix_us, &event);
        let message = match operation.class {
            Class::Query => "permission denied: statements are not permitted",
            Class::FunctionCall => "permission denied: function calls by protocol message are not permitted",
            Class::Replication => "permission denied: replication is not permitted",
            Class::Prepared => "permission denied: prepared statements are not permitted",
            Class::Admin => "permission denied: administrative commands are not permitted",
            Class::LocalInfile => "permission denied: reading files of the client is not permitted",
        };
        let hint = "ask for a role whose db_commands hold this class";
        Answer::Refuse { kind: RefusalKind::Denied, message: message.into(), detail, hint }
    }

    fn is_recorded(&self, operation: &Operation<'_>, query_type: &str) -> bool {
        if let Verb::Mysql(verb) = operation.verb
            && !mysql::is_recorded(verb)
        {
            return false;
        }
        match self.statements {
            AuditedStatements::All => true,
            _ if operation.verb == Verb::Authenticate => true,
            AuditedStatements::DdlDml if matches!(operation.verb, Verb::Mysql(v) if mysql::is_housekeeping(v)) => false,
            AuditedStatements::DdlDml => operation.verb == Verb::FunctionCall || statement::is_ddl_or_dml(query_type),
            AuditedStatements::None => false,
        }
    }
}

/// The refusal of a statement that the audit cannot take.
pub fn unrecorded(core: &Core, served: Served) -> Refusal<'static> {
    core.counters.of(served).statements_refused.fetch_add(1, Relaxed);
    Refusal {
        kind: RefusalKind::AuditUnavailable,
        message: "the audit log cannot take this statement",
        detail: "nothing is forwarded that is not recorded (audit.mode)",
        hint: "tell the operator of the gateway; it goes on by itself when the audit log works again",
    }
}

fn statement_of<'a>(operation: &Operation<'a>) -> Statement<'a> {
    let text = &operation.text;
    Statement {
        text: text.head,
        full_bytes: text.full_bytes,
        sha256: None,
        query_type: statement::query_type(text.head),
    }
}

/// The statement of a refusal: a command without a text has its name there.
fn denied_statement<'a>(operation: &Operation<'a>) -> Statement<'a> {
    let mut shown = statement_of(operation);
    if shown.text.is_empty() {
        shown.text = match operation.verb {
            Verb::Authenticate => b"COM_CHANGE_USER",
            verb => mysql::name_of(verb),
        };
        shown.full_bytes = shown.text.len() as u64;
    }
    shown
}

fn event_of<'a>(operation: &Operation<'a>, statement: Statement<'a>, bound: &'a Bound<'a>) -> Event<'a> {
    let Operation { statement: name, portal, .. } = *operation;
    match operation.verb {
        Verb::Query => Event::Query { statement, parameters: bound, error: "" },
        Verb::Parse => Event::Parse { name, statement },
        Verb::Bind => Event::Bind { name, portal, parameters: bound },
        Verb::Execute => Event::Execute { portal, statement, parameters: bound },
        Verb::CloseStatement => Event::Close { is_portal: false, name },
        Verb::ClosePortal => Event::Close { is_portal: true, name: portal },
        Verb::FunctionCall => Event::FunctionCall { oid: operation.function_oid, arguments: bound, error: "" },
        Verb::Mysql(verb) => mysql::event(verb, statement, bound),
        Verb::Authenticate => mysql::change_user(operation, bound),
        Verb::Command => Event::Query { statement, parameters: bound, error: "" },
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The refusal that a fault becomes.
pub fn refusal_of(fault: &Fault) -> RefusalKind {
    match fault.kind {
        FaultKind::Malformed | FaultKind::OutOfOrder => RefusalKind::ProtocolViolation,
        FaultKind::TooLarge => RefusalKind::TooLarge,
        FaultKind::Unsupported => RefusalKind::Unsupported,
        FaultKind::Denied => RefusalKind::NotAuthorized,
        FaultKind::Unavailable | FaultKind::Gone => RefusalKind::Unreachable,
        FaultKind::TimedOut => RefusalKind::CannotConnectNow,
        FaultKind::Internal => RefusalKind::Internal,
    }
}
