//! The session machine: what both directions share. The client's side is in `asking`, the database's in
//! `answering`.
//!
//! One command is with the database at a time: what a client sends ahead waits at the front of its
//! direction. So there is no queue, a refusal is always next in order, and no byte of a later command can
//! be taken for a part of an earlier one (file data, an authentication answer).

use crate::{Fault, Limits, Machine, Outbox, Refusal, RefusalKind, Resumed, Ruling, Side, Step, Ticket, Verb};

use super::auth::MysqlLogin;
use super::backend;
use super::capability::{self, Flags};
use super::client::{Frame, Reply, Span};
use super::error::{self, Dialect};
use super::greeting::NONCE;
use super::head::{HEAD, begin, finish};
use super::prepared::{Statement, Statements};
use super::startup::{MysqlOpening, Proof};
use super::verb::MysqlVerb;

/// The least that is held back of a long command, whatever the audit keeps of it.
const WINDOW_MIN: usize = 1024;
/// Text shown is bounded by this, whatever configuration says.
const TEXT_MAX: usize = 64 * 1024;

/// Rules the packets of one MySQL session.
pub struct MysqlMachine {
    pub(super) limits: Limits,
    pub(super) agreed: Flags,
    pub(super) user: String,
    dialect: Dialect,
    pub(super) proof: Proof,
    plugin: &'static str,
    nonce: [u8; NONCE],
    /// The database's id of the connection.
    pub(super) connection: u32,
    fault: Option<Fault>,
    /// The database has said that the connection ends.
    pub(super) parted: bool,

    pub(super) opened: Opened,
    pub(super) turn: Turn,
    pub(super) phase: Phase,
    /// The sequence id of the packet that comes next, whoever sends it.
    pub(super) sequence: u8,
    /// Bytes of the client's command so far, when it goes on in more packets.
    pub(super) sent: u64,
    /// What the client gets at the end of a command that is being dropped.
    pub(super) refusal: Option<Box<[u8]>>,

    pub(super) answer: Answer,
    pub(super) due: Option<Due>,
    pub(super) status: u16,
    pub(super) change: Option<Box<Change>>,

    pub(super) statements: Statements,
    pub(super) preparing: Option<Statement>,
    /// The types that the execute at the front brings, two bytes each.
    pub(super) types: Vec<u8>,
    /// Statements whose long data was refused: an execute would run without it.
    pub(super) spoiled: Vec<u32>,
}

impl std::fmt::Debug for MysqlMachine {
    /// Shows where the session stands, and no payload.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MysqlMachine")
            .field("phase", &self.phase)
            .field("sequence", &self.sequence)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// Which of the first notes were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Not,
    Named,
    Ready,
    Goodbye,
}

/// Where a packet stands that the caller rules on.
#[derive(Debug)]
pub(super) enum Turn {
    /// Not looked at.
    Fresh,
    /// Shown to the caller.
    Asked(Frame),
    /// To be sent; to a KILL, the id that it is to name.
    Allowed(Frame, Ticket, Option<u32>),
    /// Not to be sent; the ERR packet that the client gets in its place, its sequence id not yet set.
    Refused(Frame, Box<[u8]>),
    /// The database's request for a file: bytes of the packet, and the name in it.
    FileAsked(usize, Span),
    FileAllowed(usize),
    FileRefused(usize, Box<[u8]>),
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client's: it changes to another authentication plugin.
    Switching,
    /// The client's: its next command.
    Idle,
    /// The client's: the rest of a command that is passed.
    Sending,
    /// The client's: the rest of a command that is not.
    Dropping,
    /// The database's.
    Answering,
    /// The client's: a file. The packet before goes on in the next.
    Uploading { goes_on: bool },
    /// The database's, which was given an empty file in place of a refused one.
    NoFile,
    /// The database's, which carries out a COM_CHANGE_USER in steps.
    Changing,
    /// The client has left.
    Left,
}

/// How far the answer to the command under way has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) stage: Stage,
    pub(super) ticket: Option<Ticket>,
    /// An outcome is owed whatever the database says; otherwise only for an error.
    pub(super) owed: bool,
    pub(super) resets: bool,
    pub(super) loads_file: bool,
    pub(super) rows: Option<u64>,
    pub(super) copied: u64,
    /// The last packet goes on in the next.
    pub(super) goes_on: bool,
    /// Bytes of such a chain so far.
    pub(super) chained: u64,
    /// The database's error code in digits.
    code: [u8; 5],
    code_len: u8,
}

impl Answer {
    const NONE: Answer = Answer {
        reply: Reply::None,
        stage: Stage::First,
        ticket: None,
        owed: false,
        resets: false,
        loads_file: false,
        rows: None,
        copied: 0,
        goes_on: false,
        chained: 0,
        code: [0; 5],
        code_len: 0,
    };

    pub(super) fn to(frame: &Frame, ticket: Option<Ticket>) -> Answer {
        let stage = match frame.reply {
            Reply::Fetched => Stage::Rows,
            _ => Stage::First,
        };
        Answer {
            reply: frame.reply,
            stage,
            ticket,
            owed: frame.verb.is_some_and(has_outcome),
            resets: frame.kind == super::client::Kind::ResetConnection,
            loads_file: frame.loads_file,
            ..Answer::NONE
        }
    }

    pub(super) fn code(&self) -> &[u8] {
        self.code.get(..usize::from(self.code_len)).unwrap_or_default()
    }

    pub(super) fn keep_code(&mut self, code: u16) {
        let mut digits = [0; 5];
        let mut at = 5;
        let mut left = code;
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.code[..5 - at].copy_from_slice(&digits[at..]);
        self.code_len = u8::try_from(5 - at).unwrap_or(0);
    }

    pub(super) fn add_rows(&mut self, rows: u64) {
        self.rows = Some(self.rows.unwrap_or(0).saturating_add(rows));
    }
}

/// Whether exactly one outcome follows.
pub(super) fn has_outcome(verb: Verb) -> bool {
    match verb {
        Verb::Query | Verb::Authenticate => true,
        Verb::Mysql(verb) => !matches!(
            verb,
            MysqlVerb::Prepare
                | MysqlVerb::SendLongData { .. }
                | MysqlVerb::Close { .. }
                | MysqlVerb::Reset { .. }
                | MysqlVerb::FieldList
                | MysqlVerb::ProcessInfo
                | MysqlVerb::Statistics
                | MysqlVerb::LocalInfile
                | MysqlVerb::Unknown { .. }
        ),
        _ => false,
    }
}

/// What is expected next of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    First,
    /// Column or parameter definitions, `left` more of them.
    Definitions {
        left: u32,
        then: Then,
    },
    /// The EOF packet behind definitions.
    DefinitionsEnd(Then),
    Rows,
}

/// What follows a block of definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Rows,
    /// The columns of a prepared statement, so many of them, with definitions or without.
    Columns(u16, bool),
    Nothing,
}

/// What the next call does with the packet that the last one noted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Pass(usize),
    Drop(usize),
}

/// A COM_CHANGE_USER under way.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) step: ChangeStep,
    pub(super) database: Vec<u8>,
    pub(super) collation: Option<u16>,
    pub(super) proof: Proof,
    /// The sequence id of what the client is told.
    pub(super) sequence: u8,
}

/// What the database was last asked on behalf of a COM_CHANGE_USER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeStep {
    Reset,
    Collation,
    Database,
}

impl MysqlMachine {
    pub(super) fn new(opening: &MysqlOpening, login: &MysqlLogin, limits: Limits) -> Self {
        let asked = opening.asked();
        MysqlMachine {
            limits: Limits { text_bytes_max: limits.text_bytes_max.min(TEXT_MAX), ..limits },
            agreed: login.agreed(),
            user: asked.user.clone(),
            dialect: asked.dialect,
            proof: asked.proof,
            plugin: opening.plugin(),
            nonce: *opening.nonce(),
            connection: login.connection(),
            fault: None,
            parted: false,
            opened: Opened::Not,
            turn: Turn::Fresh,
            phase: Phase::Switching,
            sequence: opening.sequence(),
            sent: 0,
            refusal: None,
            answer: Answer::NONE,
            due: None,
            status: login.status(),
            change: None,
            statements: Statements::default(),
            preparing: None,
            types: Vec::new(),
            spoiled: Vec::new(),
        }
    }

    /// How much of a command's first packet is held back to be looked at.
    pub(super) fn window(&self) -> usize {
        HEAD + 11 + self.limits.text_bytes_max.max(WINDOW_MIN)
    }

    pub(super) const fn has(&self, flag: Flags) -> bool {
        self.agreed & flag != 0
    }

    /// Tells the client that it is signed in, or to change its plugin before that.
    pub(super) fn welcome(&mut self, out: &mut Vec<u8>) {
        if self.proof == Proof::WantsSwitch {
            let start = begin(out, self.sequence);
            out.push(0xfe);
            out.extend_from_slice(self.plugin.as_bytes());
            out.push(0);
            out.extend_from_slice(&self.nonce);
            out.push(0);
            finish(out, start);
            self.sequence = self.sequence.wrapping_add(1);
            self.phase = Phase::Switching;
            return;
        }
        if self.proof == Proof::WantsFastOk {
            out.extend_from_slice(&[2, 0, 0, self.sequence, 1, 3]);
            self.sequence = self.sequence.wrapping_add(1);
        }
        let [low, high] = self.status.to_le_bytes();
        out.extend_from_slice(&[7, 0, 0, self.sequence, 0, 0, 0, low, high, 0, 0]);
        self.phase = Phase::Idle;
    }

    /// What the plugin is left waiting for that the client was asked to change to.
    pub(super) fn switched(&mut self, response: &[u8], out: &mut Vec<u8>) {
        self.proof = Proof::of(self.plugin.as_bytes(), response);
        self.welcome(out);
    }

    /// The outcome that the command under way still owes.
    fn owed(&self) -> Option<Ticket> {
        self.answer.ticket.filter(|_| self.answer.owed)
    }
}

/// The ERR packet of a refused command; its sequence id is set when it is sent.
fn refused(frame: &Frame, refusal: &Refusal<'_>, dialect: Dialect) -> Box<[u8]> {
    let code = match (frame.verb, refusal.kind) {
        (Some(Verb::Mysql(MysqlVerb::Unknown { .. })), _) => error::UNKNOWN_COMMAND,
        (Some(Verb::Mysql(MysqlVerb::InitDb)), RefusalKind::Denied) => error::DATABASE_DENIED,
        (Some(Verb::Authenticate), RefusalKind::Denied) => error::ACCESS_DENIED,
        (Some(Verb::Mysql(verb)), RefusalKind::Denied) if verb.class() == crate::Class::Admin => {
            error::PRIVILEGE_MISSING
        }
        (_, kind) => error::code(kind, dialect),
    };
    let mut packet = Vec::new();
    error::refusal(0, code, refusal, &mut packet);
    packet.into_boxed_slice()
}

impl Machine for MysqlMachine {
    fn start(&mut self, out: &mut Outbox) {
        self.welcome(&mut out.client);
    }

    fn handle<'a>(&'a mut self, from: Side, input: &'a [u8], out: &mut Outbox) -> Result<Step<'a>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let decided = match from {
            Side::Client => self.decide_client(input, out),
            Side::Backend => self.decide_backend(input, out),
        };
        match decided {
            Ok(decision) => Ok(self.step(decision, input)),
            Err(fault) => {
                self.fault = Some(fault);
                Err(fault)
            }
        }
    }

    fn resume(&mut self, ruling: Ruling<'_>) -> Resumed {
        let (ticket, process) = match &ruling {
            Ruling::Allow(ticket) => (Some(*ticket), None),
            Ruling::AllowKill(ticket, process) => (Some(*ticket), Some(*process)),
            Ruling::Refuse(_) => (None, None),
        };
        self.turn = match (std::mem::replace(&mut self.turn, Turn::Fresh), ticket, ruling) {
            (Turn::Asked(frame), Some(ticket), _) => {
                if frame.needs_no_input() {
                    let len = frame.head.packet() as u64;
                    self.send_allowed(&frame, ticket);
                    return Resumed::Forward { len };
                }
                Turn::Allowed(frame, ticket, process)
            }
            (Turn::Asked(frame), None, Ruling::Refuse(refusal)) => {
                let packet = refused(&frame, &refusal, self.dialect);
                Turn::Refused(frame, packet)
            }
            (Turn::FileAsked(len, _), Some(_), _) => Turn::FileAllowed(len),
            (Turn::FileAsked(len, _), None, Ruling::Refuse(refusal)) => {
                let mut packet = Vec::new();
                error::refusal(0, error::code(refusal.kind, self.dialect), &refusal, &mut packet);
                Turn::FileRefused(len, packet.into_boxed_slice())
            }
            (turn, ..) => turn,
        };
        Resumed::Again
    }

    fn refuse(&mut self, refusal: &Refusal<'_>, out: &mut Outbox) {
        // Between commands it is what the client reads behind its next one.
        let sequence = if self.phase == Phase::Idle { 1 } else { self.sequence };
        error::refusal(sequence, error::code(refusal.kind, self.dialect), refusal, &mut out.client);
    }

    fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
            && matches!(self.turn, Turn::Fresh)
            && self.due.is_none()
            && self.status & backend::IN_TRANSACTION == 0
    }

    /// There is no key: a statement is stopped by KILL, over a connection of its own.
    fn secret_len(&self) -> usize {
        0
    }

    fn has_parted(&self) -> bool {
        self.parted
    }

    fn outstanding(&self) -> usize {
        usize::from(self.owed().is_some())
    }

    fn take_unanswered(&mut self) -> Option<Ticket> {
        let owed = self.owed();
        self.answer.ticket = None;
        owed
    }
}

impl MysqlMachine {
    /// Ends of rows come as OK packets.
    pub(super) const fn ok_for_eof(&self) -> bool {
        self.has(capability::DEPRECATE_EOF)
    }

    /// A last byte of a prepare's answer says whether definitions follow.
    pub(super) const fn prepare_is_flagged(&self) -> bool {
        self.has(capability::OPTIONAL_METADATA)
    }

    /// A last byte of a column count says whether definitions follow.
    pub(super) const fn count_is_flagged(&self) -> bool {
        self.has(capability::OPTIONAL_METADATA) || self.has(capability::CACHE_METADATA)
    }
}

/// The longest answer of a client to AuthSwitchRequest, and the longest packet of a database that is
/// looked at whole.
pub(super) const WHOLE_MAX: usize = 16 * 1024;
