//! The client's direction: what is asked about, sent, held back or dropped.

use crate::{
    Class, Command, Fault, FaultKind, Note, Operation, Outbox, Outcome, Parameters, Side, Step, Text, Ticket, Verb,
};

use super::answering::{OutcomeParts, Tag};
use super::client::{self, Frame};
use super::error::{fault, finish};
use super::head::{HEAD, Head, head};
use super::machine::{Due, Goodbye, PostgresMachine, Turn};
use super::prepared::{self, Found};
use super::queue::Expect;

/// The text that stands in for a refused one. No SQL parser takes a `:` there, so it fails wherever the
/// refused message would have been looked at, and is skipped wherever that would have been skipped.
///
/// The client can do nothing about it: unlike a portal or a statement with a reserved name, a syntax
/// error cannot be created beforehand.
const REFUSED_TEXT: &[u8] = b"ringgate: refused\0";
/// The name under which a refused Parse would be kept. It never is, since its text fails.
const REFUSED_NAME: &[u8] = b"ringgate refused\0";

/// One decision without its borrows.
#[derive(Debug)]
pub(super) enum Decision {
    Need(usize),
    Forward(u64),
    Discard(u64),
    Hold,
    Ask,
    Outcome(OutcomeParts),
    BackendKey(u32, client::Span),
    Ready,
    Goodbye,
}

impl PostgresMachine {
    /// Turns a decision about `input` into a step.
    pub(super) fn step<'a>(&'a self, decision: Decision, input: &'a [u8]) -> Step<'a> {
        match decision {
            Decision::Need(need) => Step::Need { need },
            Decision::Forward(len) => Step::Forward { len },
            Decision::Discard(len) => Step::Discard { len },
            Decision::Hold => Step::Hold,
            Decision::Ready => Step::Note(Note::Ready),
            Decision::Goodbye => Step::Note(Note::Goodbye),
            Decision::BackendKey(pid, secret) => Step::Note(Note::BackendKey { pid, secret: secret.of(input) }),
            Decision::Outcome(parts) => Step::Note(Note::Outcome(Outcome {
                ticket: parts.ticket,
                rows: parts.rows,
                success: parts.success,
                code: parts.code.of(input),
                message: parts.message.of(input),
                tag: match parts.tag {
                    Tag::None => &[],
                    Tag::At(span) => span.of(input),
                    Tag::Kept => self.progress.tag(),
                },
                copy_bytes: parts.copy_bytes,
                skipped: parts.skipped,
                warnings: 0,
            })),
            Decision::Ask => Step::Ask(self.operation(&self.frame, input)),
        }
    }

    fn operation<'a>(&'a self, frame: &Frame, input: &'a [u8]) -> Operation<'a> {
        let parameters = Parameters::Postgres { body: frame.parameters.of(input), types: &[], cut: frame.cut };
        let (text, parameters) = match frame.verb {
            Verb::Query | Verb::Parse => {
                let head = frame.text.capped(self.limits.text_bytes_max).of(input);
                let streams_from = frame.streams_from(head.len());
                (Text { head, full_bytes: frame.text_full, streams_from, sha256: None }, Parameters::None)
            }
            Verb::Bind => {
                let statement = self.statements.peek(frame.statement.of(input));
                let types = statement.map_or(&[][..], |statement| &statement.types);
                let parameters = Parameters::Postgres { body: frame.parameters.of(input), types, cut: frame.cut };
                (statement.map(text).unwrap_or_default(), parameters)
            }
            Verb::Execute => match self.portals.find(frame.portal.of(input), self.cycle) {
                Found::Known(portal) => {
                    let statement = portal.statement.as_deref();
                    let types = statement.map_or(&[][..], |statement| &statement.types);
                    let parameters = Parameters::Postgres { body: &portal.parameters, types, cut: portal.cut };
                    (statement.map(text).unwrap_or_default(), parameters)
                }
                Found::Wait | Found::Unknown => (Text::default(), Parameters::None),
            },
            Verb::CloseStatement => {
                (self.statements.peek(frame.statement.of(input)).map(text).unwrap_or_default(), Parameters::None)
            }
            // Commands are not PostgreSQL's.
            Verb::ClosePortal | Verb::Command | Verb::Authenticate | Verb::Mysql(_) => {
                (Text::default(), Parameters::None)
            }
            Verb::FunctionCall => (Text::default(), parameters),
        };
        Operation {
            verb: frame.verb,
            class: match frame.verb {
                _ if self.replication => Class::Replication,
                Verb::FunctionCall => Class::FunctionCall,
                _ => Class::Query,
            },
            text,
            statement: frame.statement.of(input),
            portal: frame.portal.of(input),
            parameters,
            function_oid: frame.function_oid,
            command: Command::None,
            user: b"",
            database: b"",
            has_outcome: matches!(frame.verb, Verb::Query | Verb::Execute | Verb::FunctionCall),
            frame_bytes: frame.len,
        }
    }

    pub(super) fn decide_client(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        match &mut self.turn {
            Turn::Fresh => {}
            // The caller could not rule yet: the question stands.
            Turn::Asked => return Ok(Decision::Ask),
            Turn::Allowed(ticket) => {
                let (frame, ticket) = (self.frame, *ticket);
                self.turn = Turn::Fresh;
                self.allow(&frame, ticket, input);
                return Ok(Decision::Forward(frame.len));
            }
            Turn::Refused(response) => {
                let (frame, response) = (self.frame, std::mem::take(response));
                self.turn = Turn::Fresh;
                self.stand_in(&frame, response, &mut out.backend);
                return Ok(Decision::Discard(frame.len));
            }
        }
        if self.goodbye == Goodbye::Said {
            return Err(fault(Side::Client, FaultKind::OutOfOrder, "message after Terminate"));
        }
        let Some(front) = head(Side::Client, input, &self.limits)? else { return Ok(Decision::Need(HEAD)) };
        if self.dropping && !matches!(front.tag, b'S' | b'X') {
            return Ok(Decision::Discard(front.frame));
        }
        match front.tag {
            b'd' => Ok(Decision::Forward(self.copy_data(front, input))),
            b'H' => Ok(Decision::Forward(front.frame)),
            b'X' if self.goodbye == Goodbye::Unsaid => {
                self.goodbye = Goodbye::Noted;
                Ok(Decision::Goodbye)
            }
            b'X' => {
                self.goodbye = Goodbye::Said;
                Ok(Decision::Forward(front.frame))
            }
            tag => match self.room() {
                Some(decision) => Ok(decision),
                None => self.queued(front, tag, input),
            },
        }
    }

    /// Rules a message that the database answers or that ends a COPY.
    fn queued(&mut self, front: Head, tag: u8, input: &[u8]) -> Result<Decision, Fault> {
        match tag {
            b'S' => {
                self.queue.push(Expect::Sync { maybe: false });
                self.end_cycle();
                self.dropping = false;
                Ok(Decision::Forward(front.frame))
            }
            b'c' => {
                self.end_copy();
                Ok(Decision::Forward(front.frame))
            }
            b'f' => {
                let Some(visible) = whole(front, input) else { return Ok(need(front)) };
                client::copy_fail(front, visible)?;
                self.end_copy();
                Ok(Decision::Forward(front.frame))
            }
            b'D' => {
                let Some(visible) = whole(front, input) else { return Ok(need(front)) };
                let ticket = self.last_ticket;
                let is_statement = client::describe(front, visible)?;
                self.queue.push(if is_statement {
                    Expect::DescribeStatement(ticket)
                } else {
                    Expect::DescribePortal(ticket)
                });
                self.cycle_open = true;
                Ok(Decision::Forward(front.frame))
            }
            _ => self.ask(front, input),
        }
    }

    fn ask(&mut self, front: Head, input: &[u8]) -> Result<Decision, Fault> {
        let window = match front.tag {
            b'E' | b'C' => usize::try_from(front.frame).unwrap_or(usize::MAX),
            _ => self.window(front.frame),
        };
        let Some(visible) = input.get(..window) else { return Ok(Decision::Need(window)) };
        self.frame = client::frame(front, visible)?;
        if self.must_wait(visible) {
            // The change it hangs on may be one that the database skips without a word.
            if self.skipping
                && let Some(skipped) = self.drop_skipped(b'Z')
            {
                return Ok(Decision::Outcome(skipped));
            }
            if self.must_wait(visible) {
                return Ok(Decision::Hold);
            }
        }
        self.turn = Turn::Asked;
        Ok(Decision::Ask)
    }

    /// Whether a name in it stands for what only the database's next answers can tell.
    fn must_wait(&mut self, visible: &[u8]) -> bool {
        let frame = &self.frame;
        match frame.verb {
            Verb::Bind => self.statements.must_wait(frame.statement.of(visible), self.cycle),
            Verb::Execute => matches!(self.portals.find(frame.portal.of(visible), self.cycle), Found::Wait),
            _ => false,
        }
    }

    /// What must happen before another message can be owed an answer. Messages that the database skips
    /// are owed none and make room; otherwise answers must come first.
    fn room(&mut self) -> Option<Decision> {
        if !self.queue.is_full() {
            return None;
        }
        if self.skipping
            && let Some(skipped) = self.drop_skipped(b'Z')
        {
            return Some(Decision::Outcome(skipped));
        }
        self.queue.is_full().then_some(Decision::Hold)
    }

    /// Passes the CopyData at the front, and all that stands behind it.
    fn copy_data(&mut self, front: Head, input: &[u8]) -> u64 {
        let mut passed = front.frame;
        self.copy_sent = self.copy_sent.saturating_add(front.body());
        while let Some(rest) = usize::try_from(passed).ok().and_then(|at| input.get(at..))
            && rest.first() == Some(&b'd')
            && let Ok(Some(next)) = head(Side::Client, rest, &self.limits)
        {
            passed += next.frame;
            self.copy_sent = self.copy_sent.saturating_add(next.body());
        }
        passed
    }

    fn end_copy(&mut self) {
        let sent = std::mem::take(&mut self.copy_sent);
        if !self.queue.is_empty() {
            self.queue.push(Expect::CopyEnd(sent));
        }
    }

    fn end_cycle(&mut self) {
        self.cycle = self.cycle.wrapping_add(1);
        self.cycle_open = false;
        self.last_ticket = None;
    }

    fn allow(&mut self, frame: &Frame, ticket: Ticket, input: &[u8]) {
        let statement = frame.statement.of(input);
        let portal = frame.portal.of(input);
        self.cycle_open = true;
        self.last_ticket = Some(ticket);
        let expect = match frame.verb {
            Verb::Query => {
                self.statements.forget_unnamed();
                self.portals.forget_unnamed(&mut self.statements);
                self.foresee(frame.text.of(input));
                Expect::Query(ticket)
            }
            Verb::FunctionCall => Expect::FunctionCall(ticket),
            // Not PostgreSQL's.
            Verb::Command | Verb::Authenticate | Verb::Mysql(_) => return,
            Verb::Parse => {
                let text = prepared::Text {
                    head: frame.text.capped(self.limits.text_bytes_max).of(input),
                    full_bytes: frame.text_full,
                    types: frame.types.of(input),
                };
                Expect::Parse(ticket, self.statements.change(statement, Some(text), self.cycle))
            }
            Verb::Bind => {
                let known = self.statements.share(statement);
                let parameters = frame.parameters.of(input);
                let change = self.portals.bind(portal, known, parameters, frame.cut, self.cycle, &mut self.statements);
                Expect::Bind(ticket, change)
            }
            Verb::Execute => {
                if let Found::Known(portal) = self.portals.find(portal, self.cycle)
                    && let Some(statement) = portal.statement.clone()
                {
                    self.foresee(&statement.head);
                    self.statements.recycle(Some(statement));
                }
                Expect::Execute(ticket)
            }
            Verb::CloseStatement => Expect::CloseStatement(ticket, self.statements.change(statement, None, self.cycle)),
            Verb::ClosePortal => {
                Expect::ClosePortal(ticket, self.portals.close(portal, self.cycle, &mut self.statements))
            }
        };
        self.queue.push(expect);
        if matches!(frame.verb, Verb::Query | Verb::FunctionCall) {
            self.end_cycle();
        }
    }

    /// A text that changes names by itself: what they stood for is unknown from here on.
    fn foresee(&mut self, text: &[u8]) {
        let text = text.trim_ascii_start();
        let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|front| front.eq_ignore_ascii_case(word));
        if begins(b"deallocate") || begins(b"discard") || begins(b"prepare") {
            self.statements.forget_all();
        } else if begins(b"declare") || begins(b"close") {
            self.portals.forget_answered(&mut self.statements);
        }
    }

    /// Sends what must fail in place of a refused message, so that transaction, pipeline and COPY end up
    /// exactly as after an error of the database's own. `response` takes the place of its error.
    fn stand_in(&mut self, frame: &Frame, response: Box<[u8]>, out: &mut Vec<u8>) {
        let start = out.len();
        self.refusals.push_back(response);
        if matches!(frame.verb, Verb::Query | Verb::FunctionCall) {
            out.extend_from_slice(b"Q\0\0\0\0");
            out.extend_from_slice(REFUSED_TEXT);
            self.queue.push(Expect::RefusedQuery);
            self.statements.forget_unnamed();
            self.portals.forget_unnamed(&mut self.statements);
            self.end_cycle();
        } else {
            out.extend_from_slice(b"P\0\0\0\0");
            out.extend_from_slice(REFUSED_NAME);
            out.extend_from_slice(REFUSED_TEXT);
            out.extend_from_slice(&[0, 0]);
            self.queue.push(Expect::RefusedParse);
            self.cycle_open = true;
            self.dropping = true;
        }
        finish(out, start);
    }

    /// The step that follows a note about the database's front frame.
    pub(super) fn take_due(&mut self, out: &mut Outbox) -> Option<Decision> {
        let due = self.due.take()?;
        self.progress.keep_tag(&[]);
        match due {
            Due::Pass(len) => Some(Decision::Forward(len)),
            Due::ReplaceKey(len) => {
                let start = out.client.len();
                out.client.extend_from_slice(b"K\0\0\0\0");
                out.client.extend_from_slice(&self.key.pid.to_be_bytes());
                out.client.extend_from_slice(self.secret());
                finish(&mut out.client, start);
                Some(Decision::Discard(len))
            }
        }
    }
}

fn text(statement: &prepared::Statement) -> Text<'_> {
    Text { head: &statement.head, full_bytes: statement.full_bytes, streams_from: None, sha256: None }
}

/// The frame, when all of it is buffered.
fn whole(front: Head, input: &[u8]) -> Option<&[u8]> {
    usize::try_from(front.frame).ok().and_then(|len| input.get(..len))
}

fn need(front: Head) -> Decision {
    Decision::Need(usize::try_from(front.frame).unwrap_or(usize::MAX))
}
