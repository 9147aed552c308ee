//! The session machine: what both directions share. The client's side is in `client`, the server's in `server`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{
    Fault, FaultKind, Limits, Machine, Outbox, Outcome, Refusal, RefusalKind, Resumed, Ruling, Side, Step, Ticket,
};

use super::client::{Front, Replies, Turn};
use super::login::{Identity, RedisLogin};
use super::queue::{Kind, Queue};
use super::refusal;
use super::reply::Progress;
use super::scan::{Broken, Scan};
use super::server::Subscriptions;
use super::table::CommandTable;

/// Rules the commands and replies of one Redis session.
pub struct RedisMachine {
    pub(super) limits: Limits,
    pub(super) identity: Identity,
    pub(super) table: Option<Arc<CommandTable>>,
    pub(super) fault: Option<Fault>,
    /// What broke the client's direction. It is told when everything before it was answered.
    pub(super) broken: Option<Broken>,
    pub(super) ready_noted: bool,

    // The client's direction.
    pub(super) scan: Scan,
    pub(super) front: Front,
    pub(super) turn: Turn,
    /// The words of an inline command, as bulk strings.
    pub(super) line: Vec<u8>,
    /// An unknown name in upper case.
    pub(super) name: String,
    /// Arguments that are still to pass, of a command that was ruled on.
    pub(super) passing: Option<Passing>,
    /// Bytes seen of a head without an end.
    pub(super) endless: Option<(bool, u8, usize)>,
    pub(super) replies: Replies,
    /// Commands are being queued, as far as the client's side can know.
    pub(super) in_transaction: bool,
    /// How many transactions the client has begun.
    pub(super) transactions: u32,
    pub(super) goodbye: Goodbye,
    pub(super) signed_in: SignedIn,

    // The server's direction.
    pub(super) queue: Queue,
    /// What the client gets in the place of the replies to commands that stand in for others, in order.
    pub(super) answers: VecDeque<Box<[u8]>>,
    pub(super) progress: Progress,
    /// The reply at hand.
    pub(super) item: Item,
    /// Bytes at the front that are read and settled, and have still to be passed.
    pub(super) decided: u64,
    pub(super) is_resp3: bool,
    pub(super) is_monitor: bool,
    pub(super) subscriptions: Subscriptions,
    /// The server has said that the connection ends.
    pub(super) parted: bool,
}

/// Arguments that follow without being looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    pub(super) left: u32,
    pub(super) forward: bool,
}

/// Whether the server takes the client for somebody. Only a client that brings its own credential begins without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignedIn {
    No,
    /// It has asked; what it sends behind that is read by the server when it has been answered.
    Asked,
    Yes,
}

impl SignedIn {
    /// At the beginning, and after RESET.
    pub(super) fn first(identity: &Identity) -> SignedIn {
        let is_default = identity.user.is_empty() || &*identity.user == "default";
        if identity.is_passthrough() && !is_default { SignedIn::No } else { SignedIn::Yes }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    Unsaid,
    Noted,
    Said,
}

/// What a reply that is being read is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Item {
    /// The oldest command; with the first byte of the reply.
    #[default]
    Reply,
    Map,
    /// What an attribute says of the reply behind it.
    Attribute,
    /// The same, but its outcome is out already.
    Noted,
    /// Nothing: a push, or a line of MONITOR.
    Push,
}

/// An outcome without its borrows; spans are of the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) ticket: Ticket,
    pub(super) success: bool,
    pub(super) skipped: bool,
    pub(super) code: Words,
    pub(super) message: Words,
}

/// Text of an outcome.
#[derive(Clone, Copy, Debug)]
pub(super) enum Words {
    At(usize, usize),
    Own(&'static str),
}

impl Words {
    fn of<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match *self {
            Words::At(from, to) => input.get(from..to).unwrap_or_default(),
            Words::Own(text) => text.as_bytes(),
        }
    }
}

/// One decision without its borrows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    Need(usize),
    Forward(u64),
    Discard(u64),
    Hold,
    Successes(Ticket, u32),
    Outcome(Settled),
    Ready,
    Goodbye,
    /// Only of the client's direction.
    Ask,
}

impl Decision {
    fn step<'a>(self, input: &'a [u8]) -> Step<'a> {
        match self {
            Decision::Need(need) => Step::Need { need },
            Decision::Forward(len) => Step::Forward { len },
            Decision::Discard(len) => Step::Discard { len },
            Decision::Hold | Decision::Ask => Step::Hold,
            Decision::Successes(first, count) => Step::Note(crate::Note::Successes { first, count }),
            Decision::Outcome(settled) => Step::Note(crate::Note::Outcome(Outcome {
                ticket: settled.ticket,
                rows: None,
                success: settled.success,
                code: settled.code.of(input),
                message: settled.message.of(input),
                tag: b"",
                copy_bytes: 0,
                skipped: settled.skipped,
                warnings: 0,
            })),
            Decision::Ready => Step::Note(crate::Note::Ready),
            Decision::Goodbye => Step::Note(crate::Note::Goodbye),
        }
    }
}

pub(super) const fn fault(side: Side, kind: FaultKind, what: &'static str) -> Fault {
    Fault { side, kind, what }
}

impl std::fmt::Debug for RedisMachine {
    /// Shows where the session stands, and neither payload nor secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisMachine")
            .field("front", &self.front)
            .field("replies", &self.replies)
            .field("in_transaction", &self.in_transaction)
            .field("outstanding", &self.queue.unanswered())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl RedisMachine {
    pub(super) fn new(login: RedisLogin, limits: Limits) -> Self {
        let table = login.table();
        let signed_in = SignedIn::first(&login.identity);
        RedisMachine {
            limits,
            identity: login.identity,
            table,
            fault: None,
            broken: None,
            ready_noted: false,
            scan: Scan::default(),
            front: Front::default(),
            turn: Turn::Fresh,
            line: Vec::new(),
            name: String::new(),
            passing: None,
            endless: None,
            replies: Replies::default(),
            in_transaction: false,
            transactions: 0,
            goodbye: Goodbye::Unsaid,
            signed_in,
            queue: Queue::default(),
            answers: VecDeque::new(),
            progress: Progress::default(),
            item: Item::default(),
            decided: 0,
            is_resp3: false,
            is_monitor: false,
            subscriptions: Subscriptions::default(),
            parted: false,
        }
    }

    /// No reply is owed or half read: what is said to the client now stands in its place.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.progress.left == 0 && self.decided == 0
    }
}

impl Machine for RedisMachine {
    fn start(&mut self, _out: &mut Outbox) {}

    #[inline]
    fn handle<'a>(&'a mut self, from: Side, input: &'a [u8], out: &mut Outbox) -> Result<Step<'a>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let decided = match from {
            Side::Client => self.decide_client(input, out),
            Side::Backend => self.decide_server(input, out),
        };
        match decided {
            Ok(Decision::Ask) => Ok(self.ask(input)),
            Ok(decision) => Ok(decision.step(input)),
            Err(fault) => {
                self.fault = Some(fault);
                Err(fault)
            }
        }
    }

    #[inline]
    fn resume(&mut self, ruling: Ruling<'_>) -> Resumed {
        match ruling {
            Ruling::Allow(ticket) | Ruling::AllowKill(ticket, _) => self.allow(ticket),
            Ruling::Refuse(refusal) => {
                let mut text = Vec::new();
                refusal::command(&refusal, self.front.is_authentication, &mut text);
                self.turn = Turn::Answered(text.into_boxed_slice());
                Resumed::Again
            }
        }
    }

    fn refuse(&mut self, refusal: &Refusal<'_>, out: &mut Outbox) {
        match self.broken {
            Some(broken) if refusal.kind == RefusalKind::ProtocolViolation => {
                out.client.extend_from_slice(b"-ERR ");
                broken.write(&mut out.client);
                out.client.extend_from_slice(b"\r\n");
            }
            _ => refusal::ending(refusal, &mut out.client),
        }
    }

    fn is_idle(&self) -> bool {
        self.is_quiet()
            && !self.in_transaction
            && matches!(self.turn, Turn::Fresh)
            && self.passing.is_none()
            && self.scan.at == 0
    }

    fn is_listening(&self) -> bool {
        self.is_monitor || self.subscriptions.are_any()
    }

    /// Redis has no cancel requests: no secret is that of this session.
    fn secret_len(&self) -> usize {
        32
    }

    fn has_parted(&self) -> bool {
        self.parted
    }

    fn outstanding(&self) -> usize {
        self.queue.unanswered()
    }

    fn take_unanswered(&mut self) -> Option<Ticket> {
        self.queue.take_unanswered()
    }
}

/// What stands in for a command that the client is answered by us: no server knows it, so it is answered with an
/// error wherever it stands, and makes EXEC fail where it was queued.
pub(super) const STAND_IN: &[u8] = b"*1\r\n$16\r\nringgate:refused\r\n";

impl RedisMachine {
    /// Answers a command in the place of the server.
    pub(super) fn answer(&mut self, text: Box<[u8]>, suppressed: bool, out: &mut Outbox) {
        if suppressed {
            // The server counts commands too, to know which it does not answer.
            out.backend.extend_from_slice(STAND_IN);
        } else if self.is_quiet() && !self.in_transaction {
            out.client.extend_from_slice(&text);
        } else {
            out.backend.extend_from_slice(STAND_IN);
            self.answers.push_back(text);
            self.queue.push(Kind::StandIn, Ticket::default(), 1);
        }
    }
}
