//! The database's direction: where each reply ends, and what came of it.

use crate::{Fault, FaultKind, Outbox, Side, Ticket};

use super::asking::Decision;
use super::backend::{self, Done};
use super::capability;
use super::client::{Reply, Span, code};
use super::error::{ErrorParts, fault};
use super::head::{HEAD, Head, begin, finish, head};
use super::machine::{Answer, ChangeStep, Due, MysqlMachine, Phase, Stage, Then, Turn, WHOLE_MAX};

/// How much of an ERR packet is looked at.
const ERROR_WINDOW: usize = 8 * 1024;
/// The code under which MariaDB reports progress.
const PROGRESS_CODE: u16 = 0xffff;

/// An outcome as offsets into the packet it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutcomeParts {
    pub(super) ticket: Ticket,
    pub(super) rows: Option<u64>,
    pub(super) success: bool,
    pub(super) message: Span,
    pub(super) copied: u64,
    pub(super) warnings: u16,
    pub(super) refused: bool,
}

/// What became of the front packet.
enum Verdict {
    /// Nothing to say: so many bytes pass.
    Pass(u64),
    /// So many bytes are wanted.
    Need(usize),
    /// It needs a call of its own, and packets before it pass first.
    Stop,
    /// A step.
    Decided(Decision),
}

const OUT_OF_ORDER: Fault = fault(Side::Backend, FaultKind::OutOfOrder, "database answered what was not asked");
const MALFORMED: Fault = fault(Side::Backend, FaultKind::Malformed, "answer of the database cannot be read");

impl MysqlMachine {
    pub(super) fn decide_backend(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        match self.due.take() {
            Some(Due::Pass(len)) => return Ok(Decision::Forward(len as u64)),
            Some(Due::Drop(len)) => return Ok(Decision::Discard(len as u64)),
            None => {}
        }
        match std::mem::replace(&mut self.turn, Turn::Fresh) {
            turn @ Turn::FileAsked(..) => {
                self.turn = turn;
                return Ok(Decision::Ask);
            }
            Turn::FileAllowed(len) => {
                self.sequence = self.sequence.wrapping_add(1);
                self.phase = Phase::Uploading { goes_on: false };
                return Ok(Decision::Forward(len as u64));
            }
            Turn::FileRefused(len, packet) => return Ok(self.refuse_file(len, packet, out)),
            turn => self.turn = turn,
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

    /// Rules the packet at the front of `rest`. Unless it is `first` in its call, it is left alone when it
    /// wants more than to be passed.
    fn answer(&mut self, rest: &[u8], first: bool, out: &mut Outbox) -> Result<Verdict, Fault> {
        let Some(front) = head(rest) else { return Ok(Verdict::Need(HEAD)) };
        if self.answer.goes_on {
            return self.chained(front);
        }
        match self.phase {
            Phase::Answering | Phase::NoFile | Phase::Changing => {
                if front.sequence != self.sequence {
                    return Err(fault(Side::Backend, FaultKind::OutOfOrder, "packet of the database out of order"));
                }
            }
            // An ERR may come at any time: that the server goes, or will not read on.
            _ => {
                if front.body > 0 && rest.get(HEAD).is_some_and(|mark| *mark != 0xff) {
                    return Err(OUT_OF_ORDER);
                }
            }
        }
        if front.body == 0 {
            return Err(MALFORMED);
        }
        let Some(&mark) = rest.get(HEAD) else { return Ok(Verdict::Need(HEAD + 1)) };
        match self.phase {
            Phase::Answering => {}
            Phase::NoFile | Phase::Changing if !first => return Ok(Verdict::Stop),
            Phase::NoFile => return self.without_file(front, rest, out),
            Phase::Changing => return self.changing(front, rest, out),
            _ => return self.unasked(front, rest, first),
        }
        if mark == 0xff {
            return self.failed(front, rest, first);
        }
        match (self.answer.stage, self.answer.reply) {
            (Stage::First, Reply::Done) => match mark {
                0x00 => self.done(front, rest, first),
                0xfe => self.ended(front, rest, first),
                _ => Err(OUT_OF_ORDER),
            },
            (Stage::First, Reply::Text | Reply::Binary) => match mark {
                0x00 => self.done(front, rest, first),
                0xfb if self.answer.reply == Reply::Text => self.asks_for_file(front, rest, first),
                _ => self.columns(front, rest),
            },
            (Stage::First, Reply::Prepared) => match mark {
                0x00 => self.prepared(front, rest, first),
                _ => Err(OUT_OF_ORDER),
            },
            (Stage::First, Reply::Fields) => match mark {
                0xfe if front.body < 0xff => self.ended(front, rest, first),
                0xfe | 0x00 => Err(OUT_OF_ORDER),
                _ => Ok(self.pass(front)),
            },
            (Stage::First, Reply::Statistics) => Ok(self.finish(front, None, first)),
            (Stage::First, Reply::Events) => match mark {
                0x00 => Ok(self.pass(front)),
                0xfe => self.ended(front, rest, first),
                _ => Err(OUT_OF_ORDER),
            },
            (Stage::Definitions { left, then }, _) => {
                if mark == 0xfe || mark == 0x00 || front.goes_on() {
                    return Err(OUT_OF_ORDER);
                }
                let next = match left {
                    0 | 1 => self.behind_definitions(then),
                    _ => Some(Stage::Definitions { left: left - 1, then }),
                };
                Ok(self.advance(next, front, None, first))
            }
            (Stage::DefinitionsEnd(then), reply) => {
                if mark != 0xfe {
                    return Err(OUT_OF_ORDER);
                }
                let Some(packet) = rest.get(..front.packet().min(HEAD + 5)) else {
                    return Ok(Verdict::Need(front.packet().min(HEAD + 5)));
                };
                let done = backend::end(front, packet, false).ok_or(MALFORMED)?;
                if then == Then::Rows && reply == Reply::Binary && done.status & backend::CURSOR_EXISTS != 0 {
                    // The rows wait at the server for COM_STMT_FETCH.
                    return Ok(self.result_ended(front, done, first));
                }
                let next = self.next_block(then);
                Ok(self.advance(next, front, Some(done), first))
            }
            (Stage::Rows, reply) => match mark {
                // A row that begins so is longer than one packet.
                0xfe if !front.goes_on() => self.ended(front, rest, first),
                0x00 => Ok(Verdict::Pass(self.rows(rest)?)),
                _ if reply == Reply::Text => Ok(Verdict::Pass(self.rows(rest)?)),
                _ => Err(OUT_OF_ORDER),
            },
            (Stage::First, Reply::None | Reply::Fetched) => Err(OUT_OF_ORDER),
        }
    }

    /// The packet passes, and the reply is where it was.
    fn pass(&mut self, front: Head) -> Verdict {
        self.sequence = front.sequence.wrapping_add(1);
        self.answer.goes_on = front.goes_on();
        self.answer.chained = front.packet() as u64;
        Verdict::Pass(front.packet() as u64)
    }

    /// A packet that goes on with the body of the one before.
    fn chained(&mut self, front: Head) -> Result<Verdict, Fault> {
        if front.sequence != self.sequence {
            return Err(fault(Side::Backend, FaultKind::OutOfOrder, "packet of the database out of order"));
        }
        let chained = self.answer.chained.saturating_add(front.packet() as u64);
        if chained > self.limits.frame_bytes_max {
            return Err(fault(Side::Backend, FaultKind::TooLarge, "answer longer than allowed"));
        }
        let verdict = self.pass(front);
        self.answer.chained = chained;
        Ok(verdict)
    }

    /// The row at the front and all that stand whole behind it; the last may be cut.
    fn rows(&mut self, rest: &[u8]) -> Result<u64, Fault> {
        let mut passed = 0_usize;
        let mut count = 0_u64;
        let is_text = self.answer.reply == Reply::Text;
        while let Some(row) = rest.get(passed..)
            && let Some(front) = head(row)
            && let Some(&mark) = row.get(HEAD)
            && front.sequence == self.sequence
            && front.body > 0
            && (mark == 0x00 || is_text && mark != 0xff && (mark != 0xfe || front.goes_on()))
        {
            if front.packet() as u64 > self.limits.frame_bytes_max {
                if count > 0 {
                    break;
                }
                return Err(fault(Side::Backend, FaultKind::TooLarge, "answer longer than allowed"));
            }
            count += 1;
            passed += front.packet();
            self.pass(front);
            if front.goes_on() {
                break;
            }
        }
        self.answer.add_rows(count);
        Ok(passed as u64)
    }

    /// The stage behind a block of definitions: its end, unless that is left out.
    fn behind_definitions(&self, then: Then) -> Option<Stage> {
        if self.ok_for_eof() { self.next_block(then) } else { Some(Stage::DefinitionsEnd(then)) }
    }

    /// The stage behind a block and its end. `None` where the reply ends.
    fn next_block(&self, then: Then) -> Option<Stage> {
        match then {
            Then::Rows => Some(Stage::Rows),
            Then::Nothing | Then::Columns(0, _) => None,
            Then::Columns(count, described) => self.block(u32::from(count), described, Then::Nothing),
        }
    }

    /// A block of `count` definitions, which are left out unless `described`.
    fn block(&self, count: u32, described: bool, then: Then) -> Option<Stage> {
        if described && count > 0 {
            Some(Stage::Definitions { left: count, then })
        } else {
            self.behind_definitions(then)
        }
    }

    /// Goes on to `next`; without one the reply has ended well.
    fn advance(&mut self, next: Option<Stage>, front: Head, done: Option<Done>, first: bool) -> Verdict {
        match next {
            Some(stage) => {
                self.answer.stage = stage;
                self.pass(front)
            }
            None => self.finish(front, done, first),
        }
    }

    fn columns(&mut self, front: Head, rest: &[u8]) -> Result<Verdict, Fault> {
        // A length-encoded number and a byte.
        if front.body > 10 {
            return Err(MALFORMED);
        }
        let Some(packet) = rest.get(..front.packet()) else { return Ok(Verdict::Need(front.packet())) };
        let (count, described) = backend::column_count(packet, self.count_is_flagged()).ok_or(MALFORMED)?;
        let count = u32::try_from(count).map_err(|_| MALFORMED)?;
        let next = self.block(count, described, Then::Rows);
        Ok(self.advance(next, front, None, true))
    }

    fn prepared(&mut self, front: Head, rest: &[u8], first: bool) -> Result<Verdict, Fault> {
        if front.packet() > backend::PREPARED_WINDOW {
            return Err(MALFORMED);
        }
        let Some(packet) = rest.get(..front.packet()) else { return Ok(Verdict::Need(front.packet())) };
        let made = backend::prepared(packet, self.prepare_is_flagged()).ok_or(MALFORMED)?;
        let columns = Then::Columns(made.columns, made.described);
        let next = if made.parameters == 0 {
            self.next_block(columns)
        } else {
            self.block(u32::from(made.parameters), made.described, columns)
        };
        if next.is_none() && self.must_be_first(first) {
            return Ok(Verdict::Stop);
        }
        if let Some(statement) = self.preparing.take() {
            self.statements.insert(made.id, made.parameters, statement);
        }
        Ok(self.advance(next, front, None, first))
    }

    /// An OK packet at the front of a result.
    fn done(&mut self, front: Head, rest: &[u8], first: bool) -> Result<Verdict, Fault> {
        let window = backend::ok_window(front);
        let Some(packet) = rest.get(..window) else { return Ok(Verdict::Need(window)) };
        let done = backend::ok(packet).ok_or(MALFORMED)?;
        Ok(self.result_ended(front, done, first))
    }

    /// The end of rows or definitions, as EOF or OK.
    fn ended(&mut self, front: Head, rest: &[u8], first: bool) -> Result<Verdict, Fault> {
        let window = backend::ok_window(front);
        let Some(packet) = rest.get(..window) else { return Ok(Verdict::Need(window)) };
        let done = backend::end(front, packet, self.ok_for_eof()).ok_or(MALFORMED)?;
        Ok(self.result_ended(front, done, first))
    }

    /// A result has ended; another may follow.
    fn result_ended(&mut self, front: Head, done: Done, first: bool) -> Verdict {
        if front.goes_on() {
            return Verdict::Decided(Decision::Hold);
        }
        let many = matches!(self.answer.reply, Reply::Text | Reply::Binary);
        if many && done.status & backend::MORE_RESULTS != 0 {
            self.answer.stage = Stage::First;
            self.answer.add_rows(done.affected);
            self.status = done.status;
            return self.pass(front);
        }
        self.finish(front, Some(done), first)
    }

    fn must_be_first(&self, first: bool) -> bool {
        !first && self.answer.owed && self.answer.ticket.is_some()
    }

    /// The reply ends well with the front packet.
    fn finish(&mut self, front: Head, done: Option<Done>, first: bool) -> Verdict {
        if self.must_be_first(first) {
            return Verdict::Stop;
        }
        if let Some(done) = done {
            self.status = done.status;
            self.answer.add_rows(done.affected);
        }
        if self.answer.resets {
            self.statements.clear();
            self.spoiled.clear();
        }
        self.phase = Phase::Idle;
        match self.answer.ticket.take().filter(|_| self.answer.owed) {
            None => Verdict::Pass(front.packet() as u64),
            Some(ticket) => {
                self.due = Some(Due::Pass(front.packet()));
                let warnings = done.map_or(0, |done| done.warnings);
                Verdict::Decided(Decision::Outcome(self.outcome(ticket, true, Span::default(), warnings)))
            }
        }
    }

    fn outcome(&self, ticket: Ticket, success: bool, message: Span, warnings: u16) -> OutcomeParts {
        let Answer { rows, copied, .. } = self.answer;
        OutcomeParts { ticket, rows, success, message, copied, warnings, refused: false }
    }

    /// An ERR packet, which ends any reply, or a report of progress.
    fn failed(&mut self, front: Head, rest: &[u8], first: bool) -> Result<Verdict, Fault> {
        let window = front.packet().min(ERROR_WINDOW);
        let Some(visible) = rest.get(..window) else { return Ok(Verdict::Need(window)) };
        let parts = ErrorParts::read(visible).ok_or(MALFORMED)?;
        if front.goes_on() {
            return Err(MALFORMED);
        }
        if parts.code == PROGRESS_CODE {
            return if self.has(capability::PROGRESS) { Ok(self.pass(front)) } else { Err(OUT_OF_ORDER) };
        }
        if !first && self.answer.ticket.is_some() {
            return Ok(Verdict::Stop);
        }
        self.end_with_error(parts.code);
        self.phase = Phase::Idle;
        let message = Span::new(window - parts.message.len(), parts.message.len());
        Ok(match self.answer.ticket.take() {
            None => Verdict::Pass(front.packet() as u64),
            Some(ticket) => {
                self.due = Some(Due::Pass(front.packet()));
                Verdict::Decided(Decision::Outcome(self.outcome(ticket, false, message, 0)))
            }
        })
    }

    fn end_with_error(&mut self, code: u16) {
        self.answer.keep_code(code);
        if let Some(statement) = self.preparing.take() {
            self.statements.give_up(statement);
        }
    }

    /// An ERR that nothing was asked for, or that comes before the command was sent to its end.
    fn unasked(&mut self, front: Head, rest: &[u8], first: bool) -> Result<Verdict, Fault> {
        let window = front.packet().min(ERROR_WINDOW);
        let Some(visible) = rest.get(..window) else { return Ok(Verdict::Need(window)) };
        let parts = ErrorParts::read(visible).ok_or(MALFORMED)?;
        if front.goes_on() || parts.code == PROGRESS_CODE {
            return Err(OUT_OF_ORDER);
        }
        if !matches!(self.phase, Phase::Sending | Phase::Uploading { .. }) {
            self.parted = true;
            return Ok(Verdict::Pass(front.packet() as u64));
        }
        if !first && self.answer.ticket.is_some() {
            return Ok(Verdict::Stop);
        }
        self.end_with_error(parts.code);
        // The rest of the command is still to pass; no other answer follows.
        self.answer.reply = Reply::None;
        let message = Span::new(window - parts.message.len(), parts.message.len());
        Ok(match self.answer.ticket.take() {
            None => Verdict::Pass(front.packet() as u64),
            Some(ticket) => {
                self.due = Some(Due::Pass(front.packet()));
                Verdict::Decided(Decision::Outcome(self.outcome(ticket, false, message, 0)))
            }
        })
    }

    /// LOAD DATA LOCAL: the database asks for a file.
    fn asks_for_file(&mut self, front: Head, rest: &[u8], first: bool) -> Result<Verdict, Fault> {
        if !self.has(capability::LOCAL_FILES) || !self.answer.loads_file {
            return Err(fault(Side::Backend, FaultKind::Denied, "database asks for a file that was not offered"));
        }
        if front.packet() > ERROR_WINDOW {
            return Err(fault(Side::Backend, FaultKind::TooLarge, "file name too long"));
        }
        if !first {
            return Ok(Verdict::Stop);
        }
        if rest.len() < front.packet() {
            return Ok(Verdict::Need(front.packet()));
        }
        self.turn = Turn::FileAsked(front.packet(), Span::new(HEAD + 1, front.body - 1));
        Ok(Verdict::Decided(Decision::Ask))
    }

    /// The database gets an empty file, and what it makes of that never reaches the client.
    fn refuse_file(&mut self, len: usize, mut packet: Box<[u8]>, out: &mut Outbox) -> Decision {
        if let Some(sequence) = packet.get_mut(3) {
            *sequence = self.sequence;
        }
        self.refusal = Some(packet);
        out.backend.extend_from_slice(&[0, 0, 0, self.sequence.wrapping_add(1)]);
        self.sequence = self.sequence.wrapping_add(2);
        self.phase = Phase::NoFile;
        Decision::Discard(len as u64)
    }

    fn without_file(&mut self, front: Head, rest: &[u8], out: &mut Outbox) -> Result<Verdict, Fault> {
        let packet = match self.whole(front, rest)? {
            Ok(packet) => packet,
            Err(need) => return Ok(need),
        };
        match packet.get(HEAD) {
            Some(0xff) => {}
            Some(0x00) => {
                let done = backend::ok(packet).ok_or(MALFORMED)?;
                self.status = done.status;
                if done.status & backend::MORE_RESULTS != 0 {
                    // What follows has no place behind the error that the client gets.
                    return Err(fault(Side::Backend, FaultKind::Denied, "file refused in the middle of statements"));
                }
            }
            _ => return Err(OUT_OF_ORDER),
        }
        if let Some(refusal) = self.refusal.take() {
            let code = refusal.get(HEAD + 1..).and_then(|code| code.first_chunk::<2>());
            self.answer.keep_code(code.map_or(0, |code| u16::from_le_bytes(*code)));
            out.client.extend_from_slice(&refusal);
        }
        self.phase = Phase::Idle;
        self.due = Some(Due::Drop(front.packet()));
        let ticket = self.answer.ticket.take();
        Ok(match ticket {
            Some(ticket) => {
                let parts = OutcomeParts { refused: true, ..self.outcome(ticket, false, Span::default(), 0) };
                Verdict::Decided(Decision::Outcome(parts))
            }
            None => {
                self.due = None;
                Verdict::Decided(Decision::Discard(front.packet() as u64))
            }
        })
    }

    /// A step of a COM_CHANGE_USER has been answered.
    fn changing(&mut self, front: Head, rest: &[u8], out: &mut Outbox) -> Result<Verdict, Fault> {
        let packet = match self.whole(front, rest)? {
            Ok(packet) => packet,
            Err(need) => return Ok(need),
        };
        let Some(mut change) = self.change.take() else { return Err(OUT_OF_ORDER) };
        self.sequence = 1;
        match packet.get(HEAD) {
            Some(0x00) => {
                self.status = backend::ok(packet).ok_or(MALFORMED)?.status;
                if change.step == ChangeStep::Reset {
                    self.statements.clear();
                    self.spoiled.clear();
                }
                if next_step(&mut change, &mut out.backend) {
                    self.change = Some(change);
                    return Ok(Verdict::Decided(Decision::Discard(front.packet() as u64)));
                }
                self.sequence = change.sequence;
                self.proof = change.proof;
                self.welcome(&mut out.client);
                Ok(self.changed(front, true, Span::default()))
            }
            Some(0xff) => {
                let parts = ErrorParts::read(packet).ok_or(MALFORMED)?;
                self.answer.keep_code(parts.code);
                let start = begin(&mut out.client, change.sequence);
                out.client.extend_from_slice(&packet[HEAD..]);
                finish(&mut out.client, start);
                self.phase = Phase::Idle;
                let message = Span::new(packet.len() - parts.message.len(), parts.message.len());
                Ok(self.changed(front, false, message))
            }
            _ => Err(OUT_OF_ORDER),
        }
    }

    fn changed(&mut self, front: Head, success: bool, message: Span) -> Verdict {
        match self.answer.ticket.take() {
            None => Verdict::Decided(Decision::Discard(front.packet() as u64)),
            Some(ticket) => {
                self.due = Some(Due::Drop(front.packet()));
                Verdict::Decided(Decision::Outcome(self.outcome(ticket, success, message, 0)))
            }
        }
    }

    /// A packet that is looked at whole.
    fn whole<'a>(&self, front: Head, rest: &'a [u8]) -> Result<Result<&'a [u8], Verdict>, Fault> {
        if front.packet() > WHOLE_MAX {
            return Err(fault(Side::Backend, FaultKind::TooLarge, "answer too long to be looked at"));
        }
        Ok(rest.get(..front.packet()).ok_or(Verdict::Need(front.packet())))
    }
}

/// Asks the database for the next step of a COM_CHANGE_USER. Says whether there is one.
///
/// A reset leaves the server's own character set behind, so the one that came with the command is set as
/// the server would have: by the number of its collation, which both servers take for its name.
fn next_step(change: &mut super::machine::Change, out: &mut Vec<u8>) -> bool {
    if change.step == ChangeStep::Reset
        && let Some(id) = change.collation.take().filter(|id| *id != 0)
    {
        change.step = ChangeStep::Collation;
        let text = format!("SET character_set_client={id},character_set_results={id},collation_connection={id}");
        command(code::QUERY, text.as_bytes(), out);
        return true;
    }
    if change.step != ChangeStep::Database && !change.database.is_empty() {
        change.step = ChangeStep::Database;
        command(code::INIT_DB, &change.database, out);
        return true;
    }
    false
}

fn command(code: u8, body: &[u8], out: &mut Vec<u8>) {
    let start = begin(out, 0);
    out.push(code);
    out.extend_from_slice(body);
    finish(out, start);
}
