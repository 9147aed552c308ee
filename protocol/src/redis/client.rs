//! The client's direction: commands are found, asked about, sent, answered or dropped.

use crate::{
    Class, Command as AnyCommand, Fault, FaultKind, Limits, Operation, Outbox, Parameters, Resumed, Side, Step, Text,
    Ticket, Verb,
};

use super::arguments::Arguments;
use super::command::Command;
use super::inline;
use super::machine::{Decision, Goodbye, Passing, RedisMachine, Settled, SignedIn, Words, fault};
use super::opening::{HTTP, is_http};
use super::queue::{Channel, Kind};
use super::refusal;
use super::resp::{self, write_command};
use super::scan::{Bounds, Broken, Scan, Scanned};
use super::table::{CommandTable, Found, NAME_MAX, Special};

/// A table that no server has added to.
static BUILTIN_ONLY: std::sync::LazyLock<CommandTable> = std::sync::LazyLock::new(CommandTable::default);

/// Where the client's front command stands.
#[derive(Debug)]
pub(super) enum Turn {
    /// Not looked at, or asked about.
    Fresh,
    /// To be sent, by more than passing its bytes.
    Allowed(Ticket),
    /// Its outcome was noted; the bytes are to pass, no reply is expected.
    Silent,
    /// The same, and something was sent in its place.
    Replaced,
    /// Not to be sent: the client gets this in its place.
    Answered(Box<[u8]>),
}

/// The command that is being asked about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Front {
    /// Bytes of it that are decided about at once, possibly more than there are.
    len: u64,
    /// Arguments that follow these bytes.
    left: u32,
    special: Special,
    /// Its arguments are in `RedisMachine::line`.
    is_inline: bool,
    pub(super) is_authentication: bool,
    /// Its name is one that cannot be looked up: never forwarded.
    is_nameless: bool,
    /// Its last argument is not in its bytes, or not all arguments are.
    is_cut: bool,
}

/// CLIENT REPLY, as the server models it (`networking.c`, `clientReplyCommand`, and `resetClient`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replies {
    off: bool,
    /// The next command is not answered.
    skip: bool,
}

/// A command of which everything is said to the client by us.
struct Ours {
    code: &'static str,
    message: &'static str,
    reply: Vec<u8>,
}

impl Ours {
    fn error(code: &'static str, message: &'static str) -> Ours {
        let mut reply = Vec::new();
        refusal::error(code, &[message.as_bytes()], &mut reply);
        Ours { code, message, reply }
    }

    fn unserved(name: &str, limits: Limits) -> Ours {
        let mut reply = Vec::new();
        if limits.teleport_compat {
            refusal::error("ERR", &[b"Teleport: not supported by Teleport"], &mut reply);
            return Ours { code: "ERR", message: "not supported through the gateway", reply };
        }
        let text = [&b"ringgate: command '"[..], name.as_bytes(), b"' is not supported through the gateway"];
        refusal::error("ERR", &text, &mut reply);
        Ours { code: "ERR", message: "not supported through the gateway", reply }
    }
}

/// What follows an allowed command.
enum Plan {
    /// Its bytes pass, and this is owed.
    Pass(Kind, u32),
    /// These bytes are sent in its place, and this is owed.
    Instead(Vec<u8>, Kind),
    Ours(Ours),
    Reset,
    Quit,
}

impl RedisMachine {
    #[inline]
    pub(super) fn decide_client(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        if let Turn::Fresh = self.turn
            && self.passing.is_none()
            && self.ready_noted
            && self.broken.is_none()
            && self.goodbye == Goodbye::Unsaid
            && self.endless.is_none()
        {
            return self.find(input);
        }
        self.decide_rare(input, out)
    }

    fn decide_rare(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        if !self.ready_noted {
            self.ready_noted = true;
            return Ok(Decision::Ready);
        }
        if let Some(broken) = self.broken {
            return self.break_off(broken);
        }
        if self.endless.is_some() {
            return self.decide_endless(input);
        }
        if self.goodbye == Goodbye::Said && matches!(self.turn, Turn::Fresh) {
            // The server reads nothing behind QUIT.
            return Ok(Decision::Discard(input.len() as u64));
        }
        if let Some(passing) = self.passing {
            return self.pass_on(passing, input);
        }
        match std::mem::replace(&mut self.turn, Turn::Fresh) {
            Turn::Fresh => self.find(input),
            Turn::Allowed(ticket) => Ok(self.carry_out(ticket, input, out)),
            Turn::Silent => Ok(self.send(out)),
            Turn::Replaced => Ok(self.drop_front()),
            Turn::Answered(text) => {
                let suppressed = self.replies.next();
                self.answer(text, suppressed, out);
                Ok(self.drop_front())
            }
        }
    }

    /// What broke the protocol is told behind the replies to what came before, as the server does.
    fn break_off(&mut self, broken: Broken) -> Result<Decision, Fault> {
        self.broken = Some(broken);
        self.endless = None;
        let is_waiting = self.passing.is_none() && !self.is_quiet() && !self.is_monitor;
        if is_waiting {
            return Ok(Decision::Hold);
        }
        Err(fault(Side::Client, FaultKind::Malformed, broken.text()))
    }

    fn broken(&mut self, broken: Broken, input: &[u8]) -> Result<Decision, Fault> {
        if let Broken::Endless { multibulk, first } = broken {
            let at = if self.passing.is_some() { 0 } else { self.scan.at };
            self.endless = Some((multibulk, first, 0));
            return match at {
                0 => self.decide_endless(input),
                at => Ok(Decision::Discard(at as u64)),
            };
        }
        self.break_off(broken)
    }

    fn decide_endless(&mut self, input: &[u8]) -> Result<Decision, Fault> {
        let Some((multibulk, first, seen)) = self.endless else { return Ok(Decision::Hold) };
        match Scan::endless(multibulk, first, seen, input) {
            Some(broken) => self.break_off(broken),
            None => {
                self.endless = Some((multibulk, first, seen + input.len()));
                Ok(Decision::Discard(input.len() as u64))
            }
        }
    }

    /// The rest of a command that was ruled on.
    fn pass_on(&mut self, passing: Passing, input: &[u8]) -> Result<Decision, Fault> {
        let mut left = passing.left;
        match Scan::rest(&mut left, input, self.limits.frame_bytes_max) {
            Ok(None) => Ok(Decision::Need(input.len() + 1)),
            Ok(Some(len)) => {
                self.passing = (left > 0).then_some(Passing { left, ..passing });
                Ok(if passing.forward { Decision::Forward(len) } else { Decision::Discard(len) })
            }
            Err(broken) => self.broken(broken, input),
        }
    }

    /// Finds the front command.
    #[inline]
    fn find(&mut self, input: &[u8]) -> Result<Decision, Fault> {
        if self.queue.is_full() {
            return Ok(Decision::Hold);
        }
        let table = self.table.as_deref().unwrap_or(&BUILTIN_ONLY);
        let bounds =
            Bounds { bulk_max: self.limits.frame_bytes_max, is_unauthenticated: self.signed_in == SignedIn::No };
        let scanned = self.scan.command(input, bounds, |scan| tail_is_no_key(table, scan, input));
        let (len, left, is_cut) = match scanned {
            Ok(Scanned::Whole) => (self.scan.at as u64, 0, false),
            Ok(Scanned::Cut(end)) => {
                // The argument at hand is part of what passes, unless not even its head was read.
                let taken = u32::from(end > self.scan.at as u64);
                (end, self.scan.count - self.scan.whole - taken, true)
            }
            Ok(Scanned::Need(need)) => return Ok(Decision::Need(need)),
            Ok(Scanned::Empty(len)) => {
                self.scan = Scan::default();
                return Ok(Decision::Discard(len as u64));
            }
            Ok(Scanned::Inline) => return self.find_line(input),
            Err(broken) => return self.broken(broken, input),
        };
        self.front = Front { len, left, is_cut, ..Front::default() };
        self.refuse_http(input)?;
        Ok(Decision::Ask)
    }

    /// The front is a line.
    fn find_line(&mut self, input: &[u8]) -> Result<Decision, Fault> {
        if !self.limits.inline_commands {
            return self.break_off(Broken::InlineOff);
        }
        let len = match self.scan.line(input) {
            Ok(Some(len)) => len,
            Ok(None) => return Ok(Decision::Need(input.len() + 1)),
            Err(broken) => return self.break_off(broken),
        };
        let line = input.get(..len - 1).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&0) {
            // The server looks for the end of a C string, and waits.
            return self.break_off(Broken::BigInline);
        }
        self.line.clear();
        let Ok(count) = inline::split(line, &mut self.line) else { return self.break_off(Broken::UnbalancedQuotes) };
        if count == 0 {
            self.scan = Scan::default();
            return Ok(Decision::Discard(len as u64));
        }
        let words = Arguments::new(&self.line, count);
        let bytes = words.skip(1).map(|word| word.len() as u64).sum();
        self.scan = Scan { count, whole: count, bytes, ..Scan::default() };
        self.front = Front { len: len as u64, is_inline: true, ..Front::default() };
        self.refuse_http(input)?;
        Ok(Decision::Ask)
    }

    /// A browser was made to send this (threat-model R1).
    #[inline]
    fn refuse_http(&self, input: &[u8]) -> Result<(), Fault> {
        let is_http = self.words(input).next().is_some_and(is_http);
        if is_http { Err(HTTP) } else { Ok(()) }
    }

    /// The words of the front command.
    fn words<'a>(&'a self, input: &'a [u8]) -> Arguments<'a> {
        let from = if self.front.is_inline { &self.line[..] } else { input.get(self.scan.first..).unwrap_or_default() };
        Arguments::new(from, self.scan.whole)
    }

    /// The question about the front command.
    #[inline]
    pub(super) fn ask<'a>(&'a mut self, input: &'a [u8]) -> Step<'a> {
        let RedisMachine { table, front, scan, line, name: buffer, .. } = self;
        let from = if front.is_inline { &line[..] } else { input.get(scan.first..).unwrap_or_default() };
        let arguments = Arguments::new(from, scan.whole);
        let mut words = arguments;
        let first = words.next();
        let sub = words.next();
        let table = table.as_deref().unwrap_or(&BUILTIN_ONLY);
        let name = first.unwrap_or_default();
        let (found, known, with_sub) = if name.len() > NAME_MAX || sub.is_some_and(|sub| sub.len() > NAME_MAX) {
            table.find(name.get(..NAME_MAX.min(name.len())).unwrap_or_default(), sub.map(|_| &b"\0"[..]))
        } else {
            table.find(name, sub)
        };
        let (found, known) = if name.len() > NAME_MAX { (Found::UNKNOWN, None) } else { (found, known) };
        let mut operation = OPERATION;
        let name: &str = match known {
            Some(known) => known,
            None => {
                canonical(buffer, name, sub.filter(|_| with_sub));
                front.is_nameless = buffer.is_empty();
                buffer.as_str()
            }
        };
        front.special = found.special;
        match found.special {
            Special::Auth => match (scan.count, sub, words.next()) {
                (2, Some(_), _) => operation.user = b"default",
                (3, Some(user), Some(_)) => operation.user = user,
                _ => {}
            },
            Special::Hello => {
                if let Some(hello) = Hello::read(arguments, scan.count) {
                    operation.user = hello.user.unwrap_or_default();
                    operation.verb = if hello.user.is_some() { Verb::Authenticate } else { Verb::Command };
                }
            }
            Special::Select if scan.count == 2 => operation.database = sub.unwrap_or_default(),
            _ => {}
        }
        if found.special == Special::Auth && !operation.user.is_empty() {
            operation.verb = Verb::Authenticate;
        }
        front.is_authentication = operation.verb == Verb::Authenticate;
        operation.frame_bytes = front.len;
        operation.command = AnyCommand::Redis(Command {
            name,
            found,
            arguments,
            count: scan.count,
            bytes: scan.bytes + scan.cut_bytes,
        });
        Step::Ask(operation)
    }

    /// The command may be sent.
    #[inline]
    pub(super) fn allow(&mut self, ticket: Ticket) -> Resumed {
        let front = self.front;
        let is_ordinary = matches!(
            front.special,
            Special::None
                | Special::Select
                | Special::Sort
                | Special::Migrate
                | Special::AclSetuser
                | Special::ConfigSet
                | Special::SentinelSet
                | Special::ModuleLoad
        );
        if is_ordinary && self.replies.are_on() && !front.is_inline && !front.is_nameless {
            self.queue.push_plain(ticket);
            self.scan = Scan::default();
            if front.left > 0 {
                self.passing = Some(Passing { left: front.left, forward: true });
            }
            return Resumed::Forward { len: front.len };
        }
        self.turn = Turn::Allowed(ticket);
        Resumed::Again
    }

    /// An allowed command that is more than its bytes.
    fn carry_out(&mut self, ticket: Ticket, input: &[u8], out: &mut Outbox) -> Decision {
        let plan = self.plan(input);
        // CLIENT REPLY decides itself whether it is answered.
        let is_reply_command = self.front.special == Special::ClientReply && !matches!(plan, Plan::Ours(_));
        match plan {
            Plan::Ours(ours) => {
                let success = ours.reply.starts_with(b"+");
                self.turn = Turn::Answered(ours.reply.into_boxed_slice());
                let (code, message) = (Words::Own(ours.code), Words::Own(ours.message));
                Decision::Outcome(Settled { ticket, success, skipped: !success, code, message })
            }
            Plan::Quit if self.goodbye == Goodbye::Unsaid => {
                self.goodbye = Goodbye::Noted;
                self.turn = Turn::Allowed(ticket);
                Decision::Goodbye
            }
            Plan::Quit => {
                self.goodbye = Goodbye::Said;
                self.expect(Kind::Quit, ticket, 1, out)
            }
            Plan::Reset => {
                // It ends every mode, that of the replies too, before it is answered.
                self.replies = Replies::default();
                self.in_transaction = false;
                write_command(&[b"RESET"], &mut out.backend);
                self.queue.push(Kind::Reset, ticket, 1);
                for _ in 0..self.identity.write(&mut out.backend) {
                    self.queue.push(Kind::Own, ticket, 1);
                }
                self.drop_front()
            }
            Plan::Instead(command, kind) => {
                out.backend.extend_from_slice(&command);
                if self.replies.next() {
                    self.turn = Turn::Replaced;
                    return silent(ticket);
                }
                self.queue.push(kind, ticket, 1);
                self.drop_front()
            }
            Plan::Pass(kind, count) if is_reply_command => self.reply_mode(kind, count, ticket, input, out),
            Plan::Pass(kind, count) => self.expect(kind, ticket, count, out),
        }
    }

    /// Sends the front command and queues what is owed for it.
    fn expect(&mut self, kind: Kind, ticket: Ticket, count: u32, out: &mut Outbox) -> Decision {
        if self.replies.next() {
            self.turn = Turn::Silent;
            return silent(ticket);
        }
        let is_authentication = self.front.is_authentication && self.identity.is_passthrough();
        if is_authentication && self.signed_in == SignedIn::No {
            self.signed_in = SignedIn::Asked;
        }
        match kind {
            Kind::Plain => self.queue.push_plain(ticket),
            kind => self.queue.push(kind, ticket, count),
        }
        self.send(out)
    }

    /// Passes the bytes of the front command, or the array that an inline command is.
    fn send(&mut self, out: &mut Outbox) -> Decision {
        let Front { len, left, is_inline, .. } = self.front;
        if is_inline {
            out.backend.push(b'*');
            resp::number(u64::from(self.scan.count), &mut out.backend);
            out.backend.extend_from_slice(&self.line);
            return self.drop_front();
        }
        self.scan = Scan::default();
        self.passing = (left > 0).then_some(Passing { left, forward: true });
        Decision::Forward(len)
    }

    /// Drops the front command and what follows of it.
    fn drop_front(&mut self) -> Decision {
        let Front { len, left, .. } = self.front;
        self.scan = Scan::default();
        self.passing = (left > 0).then_some(Passing { left, forward: false });
        Decision::Discard(len)
    }

    /// CLIENT REPLY ON, OFF or SKIP.
    fn reply_mode(&mut self, kind: Kind, count: u32, ticket: Ticket, input: &[u8], out: &mut Outbox) -> Decision {
        let mode = self.words(input).get(2).filter(|_| self.scan.count == 3).unwrap_or_default();
        if mode.eq_ignore_ascii_case(b"ON") {
            self.replies = Replies::default();
            return self.expect(kind, ticket, count, out);
        }
        if mode.eq_ignore_ascii_case(b"OFF") {
            self.replies = Replies { off: true, skip: false };
            self.turn = Turn::Silent;
            return silent(ticket);
        }
        if mode.eq_ignore_ascii_case(b"SKIP") {
            self.replies.skip = !self.replies.off;
            self.turn = Turn::Silent;
            return silent(ticket);
        }
        // Not understood: answered with an error where anything is answered.
        self.expect(kind, ticket, count, out)
    }

    /// What an allowed command comes to.
    fn plan(&mut self, input: &[u8]) -> Plan {
        let words = self.words(input);
        let count = self.scan.count;
        let argument = |index: usize| words.get(index).unwrap_or_default();
        let is = |index: usize, word: &[u8]| argument(index).eq_ignore_ascii_case(word);
        if self.front.is_nameless {
            return Plan::Ours(Ours::error("ERR", "unknown command"));
        }
        let special = self.front.special;
        let changes_mode = !matches!(
            special,
            Special::None
                | Special::Multi
                | Special::Exec
                | Special::Discard
                | Special::Reset
                | Special::Quit
                | Special::Select
                | Special::Debug
                | Special::Sort
                | Special::Migrate
                | Special::AclSetuser
                | Special::ConfigSet
                | Special::SentinelSet
                | Special::ModuleLoad
        );
        let mut plan = match special {
            // Their replies would stand inside that of EXEC, or change how it is read.
            _ if changes_mode && self.in_transaction => {
                Plan::Ours(Ours::error("ERR", "ringgate: command not supported inside a transaction"))
            }
            // Its words have to be seen.
            _ if changes_mode && self.front.is_cut => Plan::Ours(Ours::error("ERR", "ringgate: command too long")),
            Special::Unserved => Plan::Ours(Ours::unserved(&printable(argument(0)), self.limits)),
            Special::Debug if count > 1 && is(1, b"PROTOCOL") => {
                Plan::Ours(Ours::unserved("DEBUG PROTOCOL", self.limits))
            }
            Special::ClientTracking if words.skip(2).any(|word| word.eq_ignore_ascii_case(b"REDIRECT")) => {
                Plan::Ours(Ours::unserved("CLIENT TRACKING REDIRECT", self.limits))
            }
            Special::Auth => self.plan_auth(words),
            Special::Hello => self.plan_hello(words),
            Special::Reset if count == 1 => Plan::Reset,
            Special::Quit => Plan::Quit,
            Special::Monitor if count == 1 => Plan::Pass(Kind::Monitor, 1),
            Special::Subscribe if count > 1 => Plan::Pass(Kind::Subscribe(Channel::Plain), count - 1),
            Special::Psubscribe if count > 1 => Plan::Pass(Kind::Subscribe(Channel::Pattern), count - 1),
            Special::Ssubscribe if count > 1 => Plan::Pass(Kind::Subscribe(Channel::Shard), count - 1),
            Special::Unsubscribe => Plan::Pass(Kind::Unsubscribe(Channel::Plain), count - 1),
            Special::Punsubscribe => Plan::Pass(Kind::Unsubscribe(Channel::Pattern), count - 1),
            Special::Sunsubscribe => Plan::Pass(Kind::Unsubscribe(Channel::Shard), count - 1),
            Special::Multi if count == 1 && !self.in_transaction => Plan::Pass(Kind::Multi, 1),
            Special::Discard if count == 1 && self.in_transaction => Plan::Pass(Kind::Discard, 1),
            _ => Plan::Pass(Kind::Plain, 1),
        };
        let is_subscription = matches!(plan, Plan::Pass(Kind::Subscribe(_) | Kind::Unsubscribe(_), _));
        if is_subscription && !self.replies.are_on() {
            // Which confirmations come then depends on the server's version.
            return Plan::Ours(Ours::error("ERR", "ringgate: subscriptions need CLIENT REPLY ON"));
        }
        match plan {
            Plan::Pass(Kind::Multi, ref mut generation) => {
                self.in_transaction = true;
                self.transactions = self.transactions.wrapping_add(1);
                *generation = self.transactions;
            }
            Plan::Pass(Kind::Discard, ref mut generation) => {
                self.in_transaction = false;
                *generation = self.transactions;
            }
            Plan::Pass(Kind::Plain, _) if special == Special::Exec && count == 1 => self.in_transaction = false,
            _ => {}
        }
        plan
    }

    fn plan_auth(&self, words: Arguments<'_>) -> Plan {
        match self.scan.count {
            2 | 3 if self.identity.is_passthrough() => Plan::Pass(Kind::Auth, 1),
            2 if !self.is_user(b"default") => {
                Plan::Ours(Ours::error("ERR", "ringgate: this session has a user name: AUTH <user> <password>"))
            }
            2 => Plan::Ours(accepted()),
            3 if self.is_user(words.get(1).unwrap_or_default()) => Plan::Ours(accepted()),
            3 => Plan::Ours(Ours::error("WRONGPASS", "invalid username-password pair or user is disabled.")),
            0 | 1 => Plan::Ours(Ours::error("ERR", "wrong number of arguments for 'auth' command")),
            _ => Plan::Ours(Ours::error("ERR", "syntax error")),
        }
    }

    fn plan_hello(&self, words: Arguments<'_>) -> Plan {
        let Some(hello) = Hello::read(words, self.scan.count) else {
            // The server says what is wrong with it, and no AUTH in it counts.
            return Plan::Ours(Ours::error("ERR", "Syntax error in HELLO"));
        };
        if self.limits.teleport_compat && hello.version == b"3" {
            return Plan::Ours(Ours::error("ERR", refusal::UNKNOWN_HELLO));
        }
        let Some(user) = hello.user else { return Plan::Pass(Kind::Hello, 1) };
        if self.identity.is_passthrough() {
            return Plan::Pass(Kind::Hello, 1);
        }
        if !self.is_user(user) {
            return Plan::Ours(Ours::error("WRONGPASS", "invalid username-password pair or user is disabled."));
        }
        let mut command = Vec::new();
        match hello.name {
            Some(name) => write_command(&[b"HELLO", hello.version, b"SETNAME", name], &mut command),
            None => write_command(&[b"HELLO", hello.version], &mut command),
        }
        Plan::Instead(command, Kind::Hello)
    }

    fn is_user(&self, user: &[u8]) -> bool {
        let own = self.identity.user.as_bytes();
        user == own || (own.is_empty() && user == b"default")
    }
}

/// Nothing will be heard of a command: that is its outcome.
const fn silent(ticket: Ticket) -> Decision {
    let (code, message) = (Words::Own(""), Words::Own(""));
    Decision::Outcome(Settled { ticket, success: true, skipped: false, code, message })
}

fn accepted() -> Ours {
    Ours { code: "", message: "", reply: b"+OK\r\n".to_vec() }
}

impl Replies {
    /// Every command is answered, the next one too.
    #[inline]
    fn are_on(self) -> bool {
        !self.off && !self.skip
    }

    /// Whether the command that is sent now goes unanswered.
    fn next(&mut self) -> bool {
        std::mem::take(&mut self.skip) || self.off
    }
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`.
struct Hello<'a> {
    version: &'a [u8],
    user: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    /// `None` where the server would find a syntax error, or an argument is not at hand.
    fn read(mut words: Arguments<'a>, count: u32) -> Option<Hello<'a>> {
        if words.len() != count as usize {
            return None;
        }
        words.next();
        let mut hello = Hello { version: words.next().unwrap_or_default(), user: None, name: None };
        while let Some(option) = words.next() {
            if option.eq_ignore_ascii_case(b"AUTH") {
                if hello.user.is_some() {
                    // Servers differ in which of them counts.
                    return None;
                }
                hello.user = Some(words.next()?);
                words.next()?;
            } else if option.eq_ignore_ascii_case(b"SETNAME") {
                hello.name = Some(words.next()?);
            } else {
                return None;
            }
        }
        Some(hello)
    }
}

/// What is asked unless the command says otherwise.
const OPERATION: Operation<'static> = Operation {
    verb: Verb::Command,
    class: Class::Query,
    text: Text { head: b"", full_bytes: 0, streams_from: None, sha256: None },
    statement: b"",
    portal: b"",
    parameters: Parameters::None,
    function_oid: 0,
    command: AnyCommand::None,
    user: b"",
    database: b"",
    has_outcome: true,
    frame_bytes: 0,
};

/// Writes an unknown name in upper case to `buffer`; nothing where it is longer than names are or not printable.
fn canonical(buffer: &mut String, name: &[u8], sub: Option<&[u8]>) {
    buffer.clear();
    let is_word = |word: &[u8]| (1..=NAME_MAX).contains(&word.len()) && word.iter().all(u8::is_ascii_graphic);
    if !is_word(name) || sub.is_some_and(|sub| !is_word(sub)) {
        return;
    }
    buffer.extend(name.iter().map(|byte| char::from(byte.to_ascii_uppercase())));
    if let Some(sub) = sub {
        buffer.push('|');
        buffer.extend(sub.iter().map(|byte| char::from(byte.to_ascii_uppercase())));
    }
}

fn printable(word: &[u8]) -> String {
    word.iter().take(NAME_MAX).filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect()
}

/// Whether the argument at the end of what was read cannot be a key, so that nobody has to wait for it.
fn tail_is_no_key(table: &CommandTable, scan: &Scan, input: &[u8]) -> bool {
    let mut words = Arguments::new(input.get(scan.first..).unwrap_or_default(), scan.whole);
    let Some(name) = words.next().filter(|name| name.len() <= NAME_MAX) else { return false };
    let (found, ..) = table.find(name, words.next().filter(|sub| sub.len() <= NAME_MAX));
    found.known
        && found.special == Special::None
        && !is_http(name)
        && found.keys.iter().all(|spec| spec.ends_before(scan.whole))
}
