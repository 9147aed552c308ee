//! The client's direction: what is asked about, sent, held back or dropped.

use crate::{
    Class, Command, Fault, FaultKind, Note, Operation, Outbox, Outcome, Parameters, Side, Step, Text, Ticket, Verb,
};

use super::answering::OutcomeParts;
use super::capability;
use super::client::{self, Frame, Kind, Reply, Span};
use super::error::{self, fault, malformed};
use super::head::{HEAD, Head, begin, finish, head};
use super::machine::{Answer, Change, ChangeStep, MysqlMachine, Opened, Phase, Turn, WHOLE_MAX, has_outcome};
use super::parameters::{self, Bound, Parts};
use super::prepared;
use super::verb::MysqlVerb;

/// The most statements whose long data may be refused before the session ends.
const SPOILED_MAX: usize = 16;

/// One decision without its borrows.
#[derive(Debug)]
pub(super) enum Decision {
    Need(usize),
    Forward(u64),
    Discard(u64),
    Hold,
    Ask,
    Outcome(OutcomeParts),
    BackendKey,
    Ready,
    Goodbye,
}

const OUT_OF_ORDER: Fault = fault(Side::Client, FaultKind::OutOfOrder, "packet out of order");

impl MysqlMachine {
    /// Turns a decision about `input` into a step.
    pub(super) fn step<'a>(&'a self, decision: Decision, input: &'a [u8]) -> Step<'a> {
        match decision {
            Decision::Need(need) => Step::Need { need },
            Decision::Forward(len) => Step::Forward { len },
            Decision::Discard(len) => Step::Discard { len },
            Decision::Hold => Step::Hold,
            Decision::BackendKey => Step::Note(Note::BackendKey { pid: self.connection, secret: &[] }),
            Decision::Ready => Step::Note(Note::Ready),
            Decision::Goodbye => Step::Note(Note::Goodbye),
            Decision::Outcome(parts) => Step::Note(Note::Outcome(Outcome {
                ticket: parts.ticket,
                rows: parts.rows,
                success: parts.success,
                code: if parts.success { &[] } else { self.answer.code() },
                message: parts.message.of(input),
                tag: &[],
                copy_bytes: parts.copied,
                skipped: parts.refused,
                warnings: parts.warnings,
            })),
            Decision::Ask => match &self.turn {
                Turn::Asked(frame) => Step::Ask(self.operation(frame, input)),
                Turn::FileAsked(len, name) => Step::Ask(file_operation(*len, name.of(input))),
                _ => Step::Hold,
            },
        }
    }

    fn operation<'a>(&'a self, frame: &Frame, input: &'a [u8]) -> Operation<'a> {
        let head = frame.text.capped(self.limits.text_bytes_max).of(input);
        let own =
            Text { head, full_bytes: frame.text_full, streams_from: frame.streams_from(head.len()), sha256: None };
        let (text, parameters) = match frame.kind {
            Kind::Execute | Kind::BulkExecute => self.statements.get(frame.statement).map_or_else(
                || (Text::default(), Parameters::None),
                |statement| (text(statement), Parameters::Mysql(self.bound(frame, statement, input))),
            ),
            Kind::SendLongData | Kind::Close | Kind::Reset => {
                (self.statements.get(frame.statement).map(text).unwrap_or_default(), Parameters::None)
            }
            _ => (own, Parameters::None),
        };
        let verb = frame.verb.unwrap_or(Verb::Query);
        Operation {
            verb,
            class: frame.class,
            text,
            user: frame.user.of(input),
            database: frame.database.of(input),
            parameters,
            has_outcome: has_outcome(verb),
            frame_bytes: frame.head.packet() as u64,
            ..nothing(verb)
        }
    }

    fn bound<'a>(&'a self, frame: &Frame, statement: &'a prepared::Statement, input: &'a [u8]) -> Bound<'a> {
        let Some(parts) = self.parts(frame, statement, input) else {
            return Bound { count: statement.parameters, cut: true, ..Bound::default() };
        };
        Bound {
            count: parts.count,
            types: if parts.types.is_some() { &self.types } else { &statement.types },
            nulls: parts.nulls,
            values: parts.values,
            long: &statement.long,
            bulk: frame.kind == Kind::BulkExecute,
            cut: input.len() < frame.head.packet() || self.window() < frame.head.packet() || frame.head.goes_on(),
        }
    }

    fn parts<'a>(&self, frame: &Frame, statement: &prepared::Statement, input: &'a [u8]) -> Option<Parts<'a>> {
        let body = frame.body.of(input);
        if frame.kind == Kind::BulkExecute {
            parameters::bulk(body, frame.flags, statement.parameters)
        } else {
            parameters::execute(body, frame.flags, statement.parameters, self.has(capability::QUERY_ATTRIBUTES))
        }
    }

    pub(super) fn decide_client(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        match std::mem::replace(&mut self.turn, Turn::Fresh) {
            Turn::Fresh => {}
            turn @ Turn::Asked(_) => {
                self.turn = turn;
                return Ok(Decision::Ask);
            }
            Turn::Allowed(frame, ticket, process) => return self.allow(&frame, ticket, process, input, out),
            Turn::Refused(frame, packet) => return self.turn_down(&frame, packet, out),
            turn @ (Turn::FileAsked(..) | Turn::FileAllowed(..) | Turn::FileRefused(..)) => {
                self.turn = turn;
                return Ok(Decision::Hold);
            }
        }
        match self.phase {
            Phase::Answering | Phase::Changing | Phase::NoFile => Ok(Decision::Hold),
            Phase::Left => Err(fault(Side::Client, FaultKind::OutOfOrder, "command after COM_QUIT")),
            Phase::Idle => self.command(input, out),
            Phase::Switching => self.switching(input, out),
            Phase::Sending | Phase::Dropping | Phase::Uploading { .. } => {
                let Some(front) = head(input) else { return Ok(Decision::Need(HEAD)) };
                if front.sequence != self.sequence {
                    return Err(OUT_OF_ORDER);
                }
                self.sequence = self.sequence.wrapping_add(1);
                self.go_on(front, out)
            }
        }
    }

    /// A packet that is not the first of its command.
    fn go_on(&mut self, front: Head, out: &mut Outbox) -> Result<Decision, Fault> {
        let packet = front.packet() as u64;
        if let Phase::Uploading { goes_on } = self.phase {
            self.answer.copied = self.answer.copied.saturating_add(front.body as u64);
            self.phase = if front.body == 0 && !goes_on {
                self.after_sending()
            } else {
                Phase::Uploading { goes_on: front.goes_on() }
            };
            return Ok(Decision::Forward(packet));
        }
        self.sent = self.sent.saturating_add(packet);
        if self.sent > self.limits.frame_bytes_max {
            return Err(fault(Side::Client, FaultKind::TooLarge, "command longer than allowed"));
        }
        if self.phase == Phase::Dropping {
            if !front.goes_on() {
                self.answer_refusal(out);
            }
            return Ok(Decision::Discard(packet));
        }
        if !front.goes_on() {
            self.phase = self.after_sending();
        }
        Ok(Decision::Forward(packet))
    }

    /// Whose turn it is when a command has been sent whole.
    fn after_sending(&self) -> Phase {
        if self.answer.reply == Reply::None { Phase::Idle } else { Phase::Answering }
    }

    fn switching(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        let Some(front) = head(input) else { return Ok(Decision::Need(HEAD)) };
        if front.sequence != self.sequence {
            return Err(OUT_OF_ORDER);
        }
        if front.packet() > WHOLE_MAX {
            return Err(fault(Side::Client, FaultKind::TooLarge, "authentication answer too long"));
        }
        let Some(packet) = input.get(..front.packet()) else { return Ok(Decision::Need(front.packet())) };
        self.sequence = self.sequence.wrapping_add(1);
        self.switched(&packet[HEAD..], &mut out.client);
        Ok(Decision::Discard(front.packet() as u64))
    }

    fn command(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        match self.opened {
            Opened::Not => {
                self.opened = Opened::Named;
                return Ok(Decision::BackendKey);
            }
            Opened::Named => {
                self.opened = Opened::Ready;
                return Ok(Decision::Ready);
            }
            Opened::Ready | Opened::Goodbye => {}
        }
        let Some(front) = head(input) else { return Ok(Decision::Need(HEAD + 1)) };
        if front.sequence != 0 {
            return Err(OUT_OF_ORDER);
        }
        if front.body == 0 {
            return Err(malformed("empty command"));
        }
        if front.packet() as u64 > self.limits.frame_bytes_max {
            return Err(fault(Side::Client, FaultKind::TooLarge, "command longer than allowed"));
        }
        let Some(&code) = input.get(HEAD) else { return Ok(Decision::Need(HEAD + 1)) };
        let window = client::window(code, front, self.agreed, self.window())?;
        let Some(visible) = input.get(..window) else { return Ok(Decision::Need(window)) };
        let frame = client::frame(front, visible, self.agreed)?;
        match frame.kind {
            Kind::Quit if self.opened == Opened::Ready => {
                self.opened = Opened::Goodbye;
                return Ok(Decision::Goodbye);
            }
            Kind::Quit => self.phase = Phase::Left,
            Kind::Execute | Kind::BulkExecute if self.spoiled.contains(&frame.statement) => {
                let mut packet = Vec::new();
                let text = "long data of this statement was refused";
                error::packet(0, error::DENIED, &[text], &mut packet);
                return self.turn_down(&frame, packet.into_boxed_slice(), out);
            }
            Kind::Execute | Kind::BulkExecute => self.keep_types(&frame, visible),
            _ => {}
        }
        if frame.verb.is_none() {
            self.send(&frame, None);
            if frame.kind == Kind::Quit {
                self.phase = Phase::Left;
            }
            return Ok(Decision::Forward(front.packet() as u64));
        }
        self.turn = Turn::Asked(frame);
        Ok(Decision::Ask)
    }

    /// The types that an execute brings, without the names between them.
    fn keep_types(&mut self, frame: &Frame, visible: &[u8]) {
        let mut types = std::mem::take(&mut self.types);
        types.clear();
        if let Some(statement) = self.statements.get(frame.statement)
            && let Some(Parts { types: Some((mut reader, layout)), count, .. }) = self.parts(frame, statement, visible)
        {
            for _ in 0..count {
                let Some(kind) = parameters::next_type(&mut reader, layout) else { break };
                types.extend_from_slice(&kind.to_le_bytes());
            }
        }
        self.types = types;
    }

    /// The command goes to the database: what it will answer, and whose turn it is then.
    fn send(&mut self, frame: &Frame, ticket: Option<Ticket>) {
        self.answer = Answer::to(frame, ticket);
        self.sequence = 1;
        self.sent = frame.head.packet() as u64;
        self.phase = if frame.head.goes_on() { Phase::Sending } else { self.after_sending() };
    }

    fn allow(
        &mut self,
        frame: &Frame,
        ticket: Ticket,
        process: Option<u32>,
        input: &[u8],
        out: &mut Outbox,
    ) -> Result<Decision, Fault> {
        match frame.kind {
            Kind::Unknown => {
                let mut packet = Vec::new();
                error::packet(0, error::UNKNOWN_COMMAND, &["unknown command"], &mut packet);
                return self.turn_down(frame, packet.into_boxed_slice(), out);
            }
            Kind::ChangeUser => return self.change_user(frame, ticket, input, out),
            Kind::Kill(place) => {
                if let Some(process) = process {
                    self.send(frame, Some(ticket));
                    rename(frame, place, process, input, &mut out.backend);
                    return Ok(Decision::Discard(frame.head.packet() as u64));
                }
            }
            Kind::Prepare => {
                let head = frame.text.capped(self.limits.text_bytes_max).of(input);
                self.preparing = Some(self.statements.begin(head, frame.text_full));
            }
            _ => {}
        }
        self.send_allowed(frame, ticket);
        Ok(Decision::Forward(frame.head.packet() as u64))
    }

    /// The command is allowed as it is: what it changes in what we remember, and its way to the database.
    pub(super) fn send_allowed(&mut self, frame: &Frame, ticket: Ticket) {
        match frame.kind {
            Kind::Execute | Kind::BulkExecute => {
                if !self.types.is_empty() {
                    self.statements.set_types(frame.statement, &self.types);
                }
                if let Some(statement) = self.statements.use_mut(frame.statement) {
                    statement.long.clear();
                }
            }
            Kind::SendLongData => {
                if let Some(statement) = self.statements.use_mut(frame.statement) {
                    statement.sent_ahead(frame.parameter);
                }
            }
            Kind::Close => {
                self.statements.remove(frame.statement);
                self.spoiled.retain(|id| *id != frame.statement);
            }
            Kind::Reset => {
                if let Some(statement) = self.statements.use_mut(frame.statement) {
                    statement.long.clear();
                }
                self.spoiled.retain(|id| *id != frame.statement);
            }
            _ => {}
        }
        self.send(frame, Some(ticket));
    }

    /// The command does not go to the database; the client is answered in its place.
    fn turn_down(&mut self, frame: &Frame, packet: Box<[u8]>, out: &mut Outbox) -> Result<Decision, Fault> {
        self.sequence = 1;
        self.sent = frame.head.packet() as u64;
        if frame.kind == Kind::SendLongData && !self.spoiled.contains(&frame.statement) {
            if self.spoiled.len() == SPOILED_MAX {
                return Err(fault(Side::Client, FaultKind::Denied, "long data refused too often"));
            }
            self.spoiled.push(frame.statement);
        }
        // What has no answer has no refusal either.
        self.refusal = (frame.reply != Reply::None).then_some(packet);
        if frame.head.goes_on() {
            self.phase = Phase::Dropping;
        } else {
            self.answer_refusal(out);
        }
        Ok(Decision::Discard(frame.head.packet() as u64))
    }

    fn answer_refusal(&mut self, out: &mut Outbox) {
        if let Some(mut packet) = self.refusal.take() {
            if let Some(sequence) = packet.get_mut(3) {
                *sequence = self.sequence;
            }
            out.client.extend_from_slice(&packet);
        }
        self.phase = Phase::Idle;
    }

    /// A COM_CHANGE_USER that was authorised. The certificate has proved who the client is, and it may be no
    /// one else: the session is reset at the database and keeps its user.
    fn change_user(
        &mut self,
        frame: &Frame,
        ticket: Ticket,
        input: &[u8],
        out: &mut Outbox,
    ) -> Result<Decision, Fault> {
        let body = input.get(HEAD + 1..frame.head.packet()).unwrap_or_default();
        let asked = super::startup::change_user(self.agreed, body)?;
        if asked.user != self.user {
            let mut packet = Vec::new();
            let text = "access denied: a session cannot change to another user";
            error::packet(0, error::ACCESS_DENIED, &[text], &mut packet);
            return self.turn_down(frame, packet.into_boxed_slice(), out);
        }
        let change = Change {
            step: ChangeStep::Reset,
            database: asked.database.as_bytes().to_vec(),
            collation: asked.collation,
            proof: asked.proof,
            sequence: 1,
        };
        self.change = Some(Box::new(change));
        self.send(frame, Some(ticket));
        self.phase = Phase::Changing;
        out.backend.extend_from_slice(&[1, 0, 0, 0, client::code::RESET_CONNECTION]);
        Ok(Decision::Discard(frame.head.packet() as u64))
    }
}

/// Sends a KILL with the database's id in place of ours.
fn rename(frame: &Frame, place: Span, process: u32, input: &[u8], out: &mut Vec<u8>) {
    let packet = input.get(..frame.head.packet()).unwrap_or_default();
    let (before, after) = place.around(packet);
    let start = begin(out, 0);
    out.extend_from_slice(before.get(HEAD..).unwrap_or_default());
    match frame.verb {
        Some(Verb::Mysql(MysqlVerb::ProcessKill { .. })) => out.extend_from_slice(&process.to_le_bytes()),
        _ => out.extend_from_slice(process.to_string().as_bytes()),
    }
    out.extend_from_slice(after);
    finish(out, start);
}

fn text(statement: &prepared::Statement) -> Text<'_> {
    Text { head: &statement.head, full_bytes: statement.full_bytes, streams_from: None, sha256: None }
}

/// An operation with everything but `verb` left out.
fn nothing<'a>(verb: Verb) -> Operation<'a> {
    Operation {
        verb,
        class: Class::Query,
        text: Text::default(),
        statement: &[],
        portal: &[],
        parameters: Parameters::None,
        function_oid: 0,
        command: Command::None,
        user: &[],
        database: &[],
        has_outcome: false,
        frame_bytes: 0,
    }
}

fn file_operation(len: usize, name: &[u8]) -> Operation<'_> {
    let verb = Verb::Mysql(MysqlVerb::LocalInfile);
    let text = Text { head: name, full_bytes: name.len() as u64, streams_from: None, sha256: None };
    Operation { class: MysqlVerb::LocalInfile.class(), text, frame_bytes: len as u64, ..nothing(verb) }
}
