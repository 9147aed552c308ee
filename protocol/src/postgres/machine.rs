//! The session machine: what both directions share. The client's side is in `asking`, the database's in
//! `answering`.

use crate::{Fault, Limits, Machine, Outbox, Refusal, Resumed, Ruling, SessionKey, Side, Step, Ticket};

use super::PostgresOpening;
use super::client::Frame;
use super::error;
use super::head::HEAD;
use super::prepared::{Portals, Statements};
use super::queue::{Expect, Queue};
use super::startup::{VERSION_3_0, VERSION_3_2};

/// The least that is held back of a long frame, whatever the audit keeps of it: names must fit.
const WINDOW_MIN: usize = 1024;
/// Text shown is bounded by this, whatever configuration says.
const TEXT_MAX: usize = 64 * 1024;

/// Rules the frames of one PostgreSQL session.
pub struct PostgresMachine {
    pub(super) limits: Limits,
    pub(super) key: SessionKey,
    version: u32,
    options: Vec<String>,
    /// Statements are replication commands.
    pub(super) replication: bool,
    fault: Option<Fault>,
    /// A FATAL or PANIC of the database has passed.
    pub(super) parted: bool,

    pub(super) turn: Turn,
    /// The front frame that the turn is about.
    pub(super) frame: Frame,
    pub(super) goodbye: Goodbye,
    /// A message was refused: everything up to Sync is dropped, as the database would.
    pub(super) dropping: bool,
    /// Counts Syncs and Queries, which end what a client may build upon unanswered.
    pub(super) cycle: u32,
    /// Messages were sent since the last Sync.
    pub(super) cycle_open: bool,
    /// The last message ruled on in this cycle.
    pub(super) last_ticket: Option<Ticket>,
    /// Bytes of CopyData since the last CopyDone.
    pub(super) copy_sent: u64,

    pub(super) queue: Queue,
    /// Refusals for the entries of the queue that stand for refused messages, in order.
    pub(super) refusals: std::collections::VecDeque<Box<[u8]>>,
    /// How far the answer to the queue's front has come.
    pub(super) flow: Flow,
    /// An error was answered: the database skips up to Sync.
    pub(super) skipping: bool,
    pub(super) progress: Progress,
    pub(super) due: Option<Due>,
    pub(super) transaction: u8,

    pub(super) statements: Statements,
    pub(super) portals: Portals,
}

impl std::fmt::Debug for PostgresMachine {
    /// Shows where the session stands, and neither payload nor key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresMachine")
            .field("flow", &self.flow)
            .field("skipping", &self.skipping)
            .field("dropping", &self.dropping)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// Where the client's front frame stands.
#[derive(Debug)]
pub(super) enum Turn {
    /// Not looked at.
    Fresh,
    /// Shown to the caller.
    Asked,
    /// To be sent.
    Allowed(Ticket),
    /// Not to be sent; the ErrorResponse that the client gets in its place.
    Refused(Box<[u8]>),
}

/// Terminate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    Unsaid,
    Noted,
    Said,
}

/// How far the answer to the oldest message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Fresh,
    /// RowDescription or a DataRow was seen.
    Rows,
    CopyIn,
    CopyOut,
    CopyOutDone,
    CopyBoth,
    CopyBothDone,
    /// ParameterDescription, FunctionCallResponse.
    Answered,
    Failed,
}

/// What the next call does with the frame that the last one noted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Pass(u64),
    ReplaceKey(u64),
}

/// What was counted of the oldest message's answer.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) rows: Option<u64>,
    /// DataRows since the last result.
    pub(super) counted: u64,
    pub(super) copied: u64,
    tag: [u8; 64],
    tag_len: usize,
}

impl Progress {
    const fn new() -> Self {
        Progress { rows: None, counted: 0, copied: 0, tag: [0; 64], tag_len: 0 }
    }

    /// For the next message. The tag stays until it was handed out.
    pub(super) fn reset(&mut self) {
        self.rows = None;
        self.counted = 0;
        self.copied = 0;
    }

    pub(super) fn tag(&self) -> &[u8] {
        &self.tag[..self.tag_len]
    }

    pub(super) fn keep_tag(&mut self, tag: &[u8]) {
        self.tag_len = tag.len().min(self.tag.len());
        self.tag[..self.tag_len].copy_from_slice(&tag[..self.tag_len]);
    }
}

impl PostgresMachine {
    pub(super) fn new(opening: &PostgresOpening, key: SessionKey, limits: Limits) -> Self {
        let asked = opening.asked();
        let mut queue = Queue::default();
        queue.push(Expect::Startup);
        PostgresMachine {
            limits: Limits { text_bytes_max: limits.text_bytes_max.min(TEXT_MAX), ..limits },
            key,
            version: asked.version,
            options: asked.options.clone(),
            replication: asked.replication,
            fault: None,
            parted: false,
            turn: Turn::Fresh,
            frame: Frame::NONE,
            goodbye: Goodbye::Unsaid,
            dropping: false,
            cycle: 0,
            cycle_open: false,
            last_ticket: None,
            copy_sent: 0,
            queue,
            refusals: std::collections::VecDeque::new(),
            flow: Flow::Fresh,
            skipping: false,
            progress: Progress::new(),
            due: None,
            transaction: b'I',
            statements: Statements::new(),
            portals: Portals::new(),
        }
    }

    /// How much of a frame of `len` bytes is held back to be looked at.
    pub(super) fn window(&self, len: u64) -> usize {
        let window = HEAD + self.limits.text_bytes_max.max(WINDOW_MIN);
        usize::try_from(len).map_or(window, |len| len.min(window))
    }

    /// The secret as this client knows it: its length is what 3.2 changed.
    pub(super) fn secret(&self) -> &[u8] {
        if self.version >= VERSION_3_2 { &self.key.secret } else { &self.key.secret[..4] }
    }

    /// Spec: "Message Formats", NegotiateProtocolVersion. Its integer is the whole version code.
    fn negotiate_version(&self, out: &mut Vec<u8>) {
        if self.version <= VERSION_3_2 && self.options.is_empty() {
            return;
        }
        let start = out.len();
        out.extend_from_slice(b"v\0\0\0\0");
        out.extend_from_slice(&self.version.clamp(VERSION_3_0, VERSION_3_2).to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.options.len()).unwrap_or(u32::MAX).to_be_bytes());
        for option in &self.options {
            out.extend_from_slice(option.as_bytes());
            out.push(0);
        }
        error::finish(out, start);
    }
}

impl Machine for PostgresMachine {
    fn start(&mut self, out: &mut Outbox) {
        self.negotiate_version(&mut out.client);
        out.client.extend_from_slice(b"R\0\0\0\x08\0\0\0\0");
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
        if !matches!(self.turn, Turn::Asked) {
            return Resumed::Again;
        }
        self.turn = match ruling {
            Ruling::Allow(ticket) | Ruling::AllowKill(ticket, _) => Turn::Allowed(ticket),
            Ruling::Refuse(refusal) => {
                let mut response = Vec::new();
                error::error(&refusal, &mut response);
                Turn::Refused(response.into_boxed_slice())
            }
        };
        Resumed::Again
    }

    fn refuse(&mut self, refusal: &Refusal<'_>, out: &mut Outbox) {
        error::fatal(refusal, &mut out.client);
    }

    fn is_idle(&self) -> bool {
        self.transaction == b'I'
            && !self.cycle_open
            && !self.dropping
            && matches!(self.turn, Turn::Fresh)
            && self.queue.is_settled()
    }

    fn secret_len(&self) -> usize {
        self.secret().len()
    }

    fn has_parted(&self) -> bool {
        self.parted
    }

    fn outstanding(&self) -> usize {
        self.queue.unanswered()
    }

    fn take_unanswered(&mut self) -> Option<Ticket> {
        while let Some(entry) = self.queue.pop() {
            if let Some(ticket) = entry.unanswered() {
                return Some(ticket);
            }
        }
        None
    }
}
