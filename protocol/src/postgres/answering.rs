//! The database's direction: which answer is whose, and what came of it.

use crate::{Fault, FaultKind, Outbox, Side, Ticket};

use super::asking::Decision;
use super::backend;
use super::client::Span;
use super::error::{ErrorFields, fault};
use super::head::{HEAD, Head, head};
use super::machine::{Due, Flow, PostgresMachine};
use super::prepared::Answer;
use super::queue::{Entry, Expect};

/// How much of an ErrorResponse is looked at: its code and message are at the front.
const ERROR_WINDOW: usize = 16 * 1024;
/// The most of an error's message that is handed out.
const MESSAGE_MAX: usize = 8 * 1024;

/// An outcome as offsets into the frame it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutcomeParts {
    pub(super) ticket: Ticket,
    pub(super) rows: Option<u64>,
    pub(super) success: bool,
    pub(super) code: Span,
    pub(super) message: Span,
    pub(super) tag: Tag,
    pub(super) copy_bytes: u64,
    pub(super) skipped: bool,
}

impl OutcomeParts {
    fn new(ticket: Ticket, success: bool) -> Self {
        let none = Span::default();
        OutcomeParts {
            ticket,
            rows: None,
            success,
            code: none,
            message: none,
            tag: Tag::None,
            copy_bytes: 0,
            skipped: false,
        }
    }
}

/// Where a command tag is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tag {
    None,
    At(Span),
    /// With the machine, from an earlier frame.
    Kept,
}

/// What became of the front frame.
enum Verdict {
    /// Nothing to say: so many bytes pass.
    Pass(u64),
    /// So many bytes are wanted.
    Need(usize),
    /// It needs a call of its own, and frames before it pass first.
    Stop,
    /// A step.
    Decided(Decision),
}

const OUT_OF_ORDER: Fault = fault(Side::Backend, FaultKind::OutOfOrder, "database answered what was not asked");

impl PostgresMachine {
    pub(super) fn decide_backend(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        if let Some(decision) = self.take_due(out) {
            return Ok(decision);
        }
        let mut passed = 0_u64;
        loop {
            let Some(rest) =
                usize::try_from(passed).ok().and_then(|at| input.get(at..)).filter(|rest| !rest.is_empty())
            else {
                return Ok(Decision::Forward(passed));
            };
            match self.answer(rest, passed == 0, out) {
                Ok(Verdict::Pass(len)) => passed += len,
                Ok(Verdict::Need(need)) if passed == 0 => return Ok(Decision::Need(need)),
                Ok(Verdict::Decided(decision)) if passed == 0 => return Ok(decision),
                Err(fault) if passed == 0 => return Err(fault),
                // What was good goes first; the next call says the same again.
                _ => return Ok(Decision::Forward(passed)),
            }
        }
    }

    /// Rules the frame at the front of `rest`. Unless it is `first` in its call, it is left alone when it
    /// wants more than to be passed.
    fn answer(&mut self, rest: &[u8], first: bool, out: &mut Outbox) -> Result<Verdict, Fault> {
        let Some(front) = head(Side::Backend, rest, &self.limits)? else { return Ok(Verdict::Need(HEAD)) };
        match front.tag {
            b'N' | b'A' | b'S' => return Ok(Verdict::Pass(front.frame)),
            b'D' if self.flow == Flow::Rows => return Ok(Verdict::Pass(self.run(front, rest))),
            b'd' if matches!(self.flow, Flow::CopyOut | Flow::CopyBoth) => {
                return Ok(Verdict::Pass(self.run(front, rest)));
            }
            _ if first => {}
            b'C' | b'E' | b'I' | b's' | b'Z' | b'K' => return Ok(Verdict::Stop),
            _ if self.skipping || self.queue.front().is_some_and(Entry::may_go_unanswered) => {
                return Ok(Verdict::Stop);
            }
            _ => {}
        }
        if let Some(skipped) = self.drop_skipped(front.tag) {
            return Ok(Verdict::Decided(Decision::Outcome(skipped)));
        }
        if front.tag == b'E' {
            return self.failed(front, rest, out);
        }
        let Some(&entry) = self.queue.front() else { return Err(OUT_OF_ORDER) };
        match entry.expect {
            Expect::Startup => self.starting(front, rest),
            Expect::Query(ticket) => self.query(ticket, front, rest),
            Expect::Execute(ticket) => self.execute(ticket, front, rest),
            Expect::FunctionCall(ticket) => match (self.flow, front.tag) {
                (Flow::Fresh, b'V') => Ok(self.to(Flow::Answered, front)),
                (Flow::Answered | Flow::Failed, b'Z') => self.query_ready(ticket, front, rest),
                _ => Err(OUT_OF_ORDER),
            },
            Expect::Parse(_, change) | Expect::CloseStatement(_, change) => {
                let tag = if matches!(entry.expect, Expect::Parse(..)) { b'1' } else { b'3' };
                self.expect(front, tag)?;
                self.statements.settle(change, Answer::Done);
                Ok(self.answered(front))
            }
            Expect::Bind(_, change) | Expect::ClosePortal(_, change) => {
                let tag = if matches!(entry.expect, Expect::Bind(..)) { b'2' } else { b'3' };
                self.expect(front, tag)?;
                self.portals.settle(change, Answer::Done, &mut self.statements);
                Ok(self.answered(front))
            }
            Expect::DescribeStatement(_) => match (self.flow, front.tag) {
                (Flow::Fresh, b't') => Ok(self.to(Flow::Answered, front)),
                (Flow::Answered, b'T' | b'n') => Ok(self.answered(front)),
                _ => Err(OUT_OF_ORDER),
            },
            Expect::DescribePortal(_) => match front.tag {
                b'T' | b'n' => Ok(self.answered(front)),
                _ => Err(OUT_OF_ORDER),
            },
            Expect::Sync { maybe } => {
                self.expect(front, b'Z')?;
                let Some(frame) = whole(front, rest) else { return Ok(need(front)) };
                self.ready(frame)?;
                self.skipping = false;
                let verdict = self.answered(front);
                if maybe {
                    self.queue.pass_doubt_on();
                }
                Ok(verdict)
            }
            Expect::RefusedQuery => {
                // A stand-in that did not fail would be a hole: the session ends.
                if self.flow != Flow::Failed {
                    return Err(OUT_OF_ORDER);
                }
                self.expect(front, b'Z')?;
                let Some(frame) = whole(front, rest) else { return Ok(need(front)) };
                self.ready(frame)?;
                Ok(self.answered(front))
            }
            Expect::RefusedParse | Expect::CopyEnd(_) | Expect::Swallowed => Err(OUT_OF_ORDER),
        }
    }

    /// Takes entries off the front that the database skips, up to one whose outcome is owed, or to the
    /// one that `tag` may answer.
    pub(super) fn drop_skipped(&mut self, tag: u8) -> Option<OutcomeParts> {
        loop {
            let front = self.queue.front()?;
            let skipped = match front.expect {
                Expect::CopyEnd(_) | Expect::Swallowed => true,
                Expect::Sync { maybe } => maybe && tag != b'Z',
                Expect::Startup => false,
                _ => front.skip || (self.skipping && self.flow == Flow::Fresh),
            };
            if !skipped {
                return None;
            }
            let entry = self.queue.pop()?;
            self.give_up(&entry, Answer::Skipped);
            if let Some(ticket) = entry.unanswered() {
                return Some(OutcomeParts { skipped: true, ..OutcomeParts::new(ticket, false) });
            }
        }
    }

    /// Undoes what an entry that was not carried out would have changed.
    fn give_up(&mut self, entry: &Entry, answer: Answer) {
        match entry.expect {
            Expect::Parse(_, change) | Expect::CloseStatement(_, change) => self.statements.settle(change, answer),
            Expect::Bind(_, change) | Expect::ClosePortal(_, change) => {
                self.portals.settle(change, answer, &mut self.statements);
            }
            Expect::RefusedQuery | Expect::RefusedParse if answer == Answer::Skipped => {
                self.refusals.pop_front();
            }
            _ => {}
        }
    }

    /// The frame at the front and all of its kind that stand behind it.
    fn run(&mut self, front: Head, rest: &[u8]) -> u64 {
        let mut passed = front.frame;
        let mut frames = 1_u64;
        while let Some(next) = usize::try_from(passed).ok().and_then(|at| rest.get(at..))
            && next.first() == Some(&front.tag)
            && let Ok(Some(next)) = head(Side::Backend, next, &self.limits)
        {
            passed += next.frame;
            frames += 1;
        }
        if front.tag == b'D' {
            self.progress.counted = self.progress.counted.saturating_add(frames);
        } else {
            let bytes = passed - frames * HEAD as u64;
            self.progress.copied = self.progress.copied.saturating_add(bytes);
        }
        passed
    }

    fn expect(&self, front: Head, tag: u8) -> Result<(), Fault> {
        if front.tag == tag && (self.flow == Flow::Fresh || tag == b'Z') { Ok(()) } else { Err(OUT_OF_ORDER) }
    }

    fn to(&mut self, flow: Flow, front: Head) -> Verdict {
        self.flow = flow;
        Verdict::Pass(front.frame)
    }

    /// The front entry is settled.
    fn answered(&mut self, front: Head) -> Verdict {
        self.queue.pop();
        self.flow = Flow::Fresh;
        self.progress.reset();
        Verdict::Pass(front.frame)
    }

    /// Reads a ReadyForQuery.
    fn ready(&mut self, frame: &[u8]) -> Result<(), Fault> {
        self.transaction = backend::transaction_state(frame)?;
        if self.transaction == b'I' {
            self.portals.forget_answered(&mut self.statements);
        }
        Ok(())
    }

    fn starting(&mut self, front: Head, rest: &[u8]) -> Result<Verdict, Fault> {
        // Before any length is believed: only these two are short enough to be looked at whole.
        if !matches!(front.tag, b'K' | b'Z') {
            return Err(OUT_OF_ORDER);
        }
        let Some(frame) = whole(front, rest) else { return Ok(need(front)) };
        match front.tag {
            b'K' if self.flow == Flow::Fresh => {
                let (pid, secret) = backend::key_data(frame)?;
                self.flow = Flow::Answered;
                self.due = Some(Due::ReplaceKey(front.frame));
                Ok(Verdict::Decided(Decision::BackendKey(pid, secret)))
            }
            b'Z' if self.flow != Flow::Failed => {
                self.ready(frame)?;
                self.answered(front);
                self.due = Some(Due::Pass(front.frame));
                Ok(Verdict::Decided(Decision::Ready))
            }
            _ => Err(OUT_OF_ORDER),
        }
    }

    fn query(&mut self, ticket: Ticket, front: Head, rest: &[u8]) -> Result<Verdict, Fault> {
        match (self.flow, front.tag) {
            (Flow::Fresh, b'T') => Ok(self.to(Flow::Rows, front)),
            // Rewrite rules may add results of their own under the one tag.
            (Flow::Rows, b'T') => Ok(Verdict::Pass(front.frame)),
            // So may a replication command, and files after them.
            (Flow::CopyOutDone | Flow::CopyBothDone, b'T') if self.replication => Ok(self.to(Flow::Rows, front)),
            (Flow::CopyOutDone, b'H') if self.replication => Ok(self.to(Flow::CopyOut, front)),
            (Flow::Fresh | Flow::Failed, b'Z') => self.query_ready(ticket, front, rest),
            (Flow::Fresh, b'I') => Ok(Verdict::Pass(front.frame)),
            (
                Flow::Rows | Flow::Fresh | Flow::CopyIn | Flow::CopyOutDone | Flow::CopyBoth | Flow::CopyBothDone,
                b'C',
            ) => {
                let Some(frame) = whole(front, rest) else { return Ok(need(front)) };
                let tag = backend::command_tag(frame)?.of(frame);
                self.completed(tag);
                if let Some(rows) = backend::rows(tag) {
                    self.progress.rows = Some(self.progress.rows.unwrap_or(0).saturating_add(rows));
                }
                self.progress.keep_tag(tag);
                Ok(self.to(Flow::Fresh, front))
            }
            _ => self.copy(front),
        }
    }

    /// ReadyForQuery behind a Query or FunctionCall: its outcome, unless an error was that already.
    fn query_ready(&mut self, ticket: Ticket, front: Head, rest: &[u8]) -> Result<Verdict, Fault> {
        let Some(frame) = whole(front, rest) else { return Ok(need(front)) };
        self.ready(frame)?;
        let noted = self.queue.front().is_some_and(|entry| entry.noted);
        let rows = self.progress.rows;
        let copy_bytes = self.progress.copied;
        self.answered(front);
        if noted {
            self.progress.keep_tag(&[]);
            return Ok(Verdict::Pass(front.frame));
        }
        self.due = Some(Due::Pass(front.frame));
        let parts = OutcomeParts { rows, copy_bytes, tag: Tag::Kept, ..OutcomeParts::new(ticket, true) };
        Ok(Verdict::Decided(Decision::Outcome(parts)))
    }

    fn execute(&mut self, ticket: Ticket, front: Head, rest: &[u8]) -> Result<Verdict, Fault> {
        match (self.flow, front.tag) {
            (Flow::Fresh, b'D') => {
                self.flow = Flow::Rows;
                Ok(Verdict::Pass(self.run(front, rest)))
            }
            (Flow::Rows | Flow::Fresh | Flow::CopyIn | Flow::CopyOutDone, b'C') => {
                let Some(frame) = whole(front, rest) else { return Ok(need(front)) };
                let span = backend::command_tag(frame)?;
                let tag = span.of(frame);
                self.completed(tag);
                let rows = backend::rows(tag);
                Ok(self.executed(front, OutcomeParts { rows, tag: Tag::At(span), ..OutcomeParts::new(ticket, true) }))
            }
            (Flow::Fresh, b'I') => Ok(self.executed(front, OutcomeParts::new(ticket, true))),
            (Flow::Rows | Flow::Fresh, b's') => {
                let rows = Some(self.progress.counted);
                Ok(self.executed(front, OutcomeParts { rows, ..OutcomeParts::new(ticket, true) }))
            }
            _ => self.copy(front),
        }
    }

    fn executed(&mut self, front: Head, parts: OutcomeParts) -> Verdict {
        let copy_bytes = self.progress.copied;
        self.answered(front);
        self.due = Some(Due::Pass(front.frame));
        Verdict::Decided(Decision::Outcome(OutcomeParts { copy_bytes, ..parts }))
    }

    /// A command of the front entry came to its end.
    fn completed(&mut self, tag: &[u8]) {
        if matches!(self.flow, Flow::CopyIn | Flow::CopyBoth | Flow::CopyBothDone) {
            let sent = self.queue.end_copy().unwrap_or_else(|| std::mem::take(&mut self.copy_sent));
            self.progress.copied = self.progress.copied.saturating_add(sent);
        }
        self.progress.counted = 0;
        if tag.starts_with(b"DEALLOCATE") || tag.starts_with(b"DISCARD ALL") || tag.starts_with(b"PREPARE") {
            self.statements.forget_committed();
        } else if tag.starts_with(b"DECLARE") || tag.starts_with(b"CLOSE") {
            self.portals.forget_answered(&mut self.statements);
        }
    }

    /// The COPY messages, in a Query and an Execute alike.
    fn copy(&mut self, front: Head) -> Result<Verdict, Fault> {
        match (self.flow, front.tag) {
            (Flow::Fresh, b'G') => Ok(self.to(Flow::CopyIn, front)),
            (Flow::Fresh, b'H') => Ok(self.to(Flow::CopyOut, front)),
            (Flow::Fresh, b'W') if self.replication => Ok(self.to(Flow::CopyBoth, front)),
            (Flow::CopyOut, b'c') => Ok(self.to(Flow::CopyOutDone, front)),
            // The server may send a last keepalive, and its CopyDone again, after its CopyDone.
            (Flow::CopyBothDone, b'd' | b'c') => Ok(Verdict::Pass(front.frame)),
            (Flow::CopyBoth, b'c') => Ok(self.to(Flow::CopyBothDone, front)),
            _ => Err(OUT_OF_ORDER),
        }
    }

    /// An ErrorResponse, which may answer any message.
    fn failed(&mut self, front: Head, rest: &[u8], out: &mut Outbox) -> Result<Verdict, Fault> {
        let window = usize::try_from(front.frame).map_or(ERROR_WINDOW, |frame| frame.min(ERROR_WINDOW));
        let Some(visible) = rest.get(..window) else { return Ok(Verdict::Need(window)) };
        let fields = ErrorFields::read(&visible[HEAD..]);
        self.parted |= fields.ends_connection();
        let Some(&entry) = self.queue.front() else {
            // Nothing was asked: only the announcement that the connection ends can stand here.
            return if fields.ends_connection() { Ok(Verdict::Pass(front.frame)) } else { Err(OUT_OF_ORDER) };
        };
        if self.flow == Flow::Failed && !fields.ends_connection() {
            return Err(OUT_OF_ORDER);
        }
        if matches!(self.flow, Flow::CopyIn | Flow::CopyBoth) {
            let sent = self.queue.copy_sent().unwrap_or(self.copy_sent);
            self.progress.copied = self.progress.copied.saturating_add(sent);
            if fields.code == b"08P01" { self.queue.copy_interrupted() } else { self.queue.copy_failed() }
        }
        let parts = entry.blamed().filter(|_| !entry.noted).map(|ticket| OutcomeParts {
            code: Span::within(visible, fields.code).capped(MESSAGE_MAX),
            message: Span::within(visible, fields.message).capped(MESSAGE_MAX),
            copy_bytes: self.progress.copied,
            ..OutcomeParts::new(ticket, false)
        });
        let replaced = matches!(entry.expect, Expect::RefusedQuery | Expect::RefusedParse)
            && !fields.ends_connection()
            && self.flow == Flow::Fresh;
        match entry.expect {
            Expect::Startup | Expect::Sync { .. } => self.flow = Flow::Failed,
            Expect::Query(_) | Expect::FunctionCall(_) | Expect::RefusedQuery => {
                self.queue.note_front();
                self.flow = Flow::Failed;
            }
            _ => {
                self.give_up(&entry, Answer::Failed);
                self.skipping = true;
                self.answered(front);
            }
        }
        if replaced {
            if let Some(response) = self.refusals.pop_front() {
                out.client.extend_from_slice(&response);
            }
            return Ok(Verdict::Decided(Decision::Discard(front.frame)));
        }
        match parts {
            None => Ok(Verdict::Pass(front.frame)),
            Some(parts) => {
                self.due = Some(Due::Pass(front.frame));
                Ok(Verdict::Decided(Decision::Outcome(parts)))
            }
        }
    }
}

fn whole(front: Head, rest: &[u8]) -> Option<&[u8]> {
    usize::try_from(front.frame).ok().and_then(|len| rest.get(..len))
}

fn need(front: Head) -> Verdict {
    Verdict::Need(usize::try_from(front.frame).unwrap_or(usize::MAX))
}
