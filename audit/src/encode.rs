//! The binary form of a record in a ring: written once by the producer, read once by the writer.
//!
//! ```text
//! | length u32 | kind u8 | flags u8 | tag u16 | time u64 | slot u32 | ei u32 | body |      little endian
//! ```
//! Text is a u32 length and its bytes. Parameters are a kind byte and a value each, ended by [`parameter::END`].
use crate::event::{Event, MysqlCommand, Parameter, Parameters, SessionFacts, Stamp, Statement};

/// Bytes before the body.
pub(crate) const HEAD_BYTES: usize = 24;
/// The slot of a record of no session.
pub(crate) const NO_SESSION: u32 = u32::MAX;

pub(crate) mod kind {
    pub(crate) const OPEN: u8 = 1;
    pub(crate) const CLOSE_SESSION: u8 = 2;
    pub(crate) const START: u8 = 3;
    pub(crate) const END: u8 = 4;
    pub(crate) const QUERY: u8 = 5;
    pub(crate) const PARSE: u8 = 6;
    pub(crate) const BIND: u8 = 7;
    pub(crate) const EXECUTE: u8 = 8;
    pub(crate) const CLOSE: u8 = 9;
    pub(crate) const FUNCTION: u8 = 10;
    pub(crate) const RESULT: u8 = 11;
    pub(crate) const MALFORMED: u8 = 12;
    pub(crate) const CANCEL: u8 = 13;
    pub(crate) const TERMINATED: u8 = 14;
    pub(crate) const DISCONNECT: u8 = 15;
    pub(crate) const REJECTED: u8 = 16;
    pub(crate) const AUTH: u8 = 17;
    pub(crate) const OTHER: u8 = 18;
    pub(crate) const COMMAND: u8 = 19;
    pub(crate) const RESULTS: u8 = 20;
    pub(crate) const MYSQL: u8 = 21;
}

pub(crate) mod parameter {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const INT: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const BOOL: u8 = 5;
    pub(crate) const TYPE: u8 = 6;
    pub(crate) const CUT: u8 = 7;
    pub(crate) const END: u8 = 255;
}

/// Where encoded bytes go: counted first, then copied, by the same code.
trait Sink {
    fn raw(&mut self, bytes: &[u8]);

    fn u8(&mut self, v: u8) {
        self.raw(&[v]);
    }
    fn u32(&mut self, v: u32) {
        self.raw(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.raw(&v.to_le_bytes());
    }
    fn bytes(&mut self, v: &[u8]) {
        self.u32(u32::try_from(v.len()).unwrap_or(u32::MAX));
        self.raw(v);
    }
    fn text(&mut self, v: &str) {
        self.bytes(v.as_bytes());
    }
    fn flag(&mut self, v: bool) {
        self.u8(u8::from(v));
    }
    fn hash(&mut self, v: Option<&[u8; 32]>) {
        self.flag(v.is_some());
        if let Some(v) = v {
            self.raw(v);
        }
    }
}

struct Count(usize);
impl Sink for Count {
    #[inline(always)]
    fn raw(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }
}

/// Copies into a slot of exactly the counted size. A walk that yields more the second time is cut, not written outside.
struct Copy<'a>(&'a mut [u8]);
impl Sink for Copy<'_> {
    #[inline(always)]
    fn raw(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.0.len());
        let (now, rest) = std::mem::take(&mut self.0).split_at_mut(n);
        now.copy_from_slice(&bytes[..n]);
        self.0 = rest;
    }
}

/// Copies as long as there is room, and notes when there is not.
struct Fit<'a> {
    left: &'a mut [u8],
    fits: bool,
}
impl Sink for Fit<'_> {
    #[inline(always)]
    fn raw(&mut self, bytes: &[u8]) {
        match std::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            Some((now, rest)) => {
                now.copy_from_slice(bytes);
                self.left = rest;
            }
            None => self.fits = false,
        }
    }
}

/// Fills the front of `room` with a record and answers its size. `None`: there is too little room.
#[inline]
pub(crate) fn fit(stamp: Stamp, event: &Event<'_>, room: &mut [u8]) -> Option<usize> {
    let all = room.len();
    let session = stamp.session.map_or(NO_SESSION, |s| s.0);
    let mut sink = Fit { left: room, fits: true };
    sink.raw(&head(kind_of(event), stamp.time_us, session, stamp.ei));
    body(event, &mut sink);
    sink.fits.then(|| all - sink.left.len())
}

/// Bytes of the whole record.
pub(crate) fn size(event: &Event<'_>) -> usize {
    let mut count = Count(HEAD_BYTES);
    body(event, &mut count);
    count.0
}

/// Fills a record of exactly [`size`] bytes. Length and tag are the ring's.
pub(crate) fn write(stamp: Stamp, event: &Event<'_>, slot: &mut [u8]) {
    let session = stamp.session.map_or(NO_SESSION, |s| s.0);
    let mut sink = Copy(slot);
    sink.raw(&head(kind_of(event), stamp.time_us, session, stamp.ei));
    body(event, &mut sink);
    // A walk that yielded less the second time leaves no bytes of an older record behind.
    sink.0.fill(parameter::END);
}

/// Length, flags and tag are left zero.
#[inline]
fn head(kind: u8, time_us: u64, session: u32, ei: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[4] = kind;
    head[8..16].copy_from_slice(&time_us.to_le_bytes());
    head[16..20].copy_from_slice(&session.to_le_bytes());
    head[20..24].copy_from_slice(&ei.to_le_bytes());
    head
}

/// Bytes of the record that opens a session.
pub(crate) fn open_size(facts: &SessionFacts<'_>) -> usize {
    let mut count = Count(HEAD_BYTES);
    open_body(facts, &mut count);
    count.0
}

/// Fills a record of exactly [`open_size`] bytes.
pub(crate) fn write_open(session: u32, facts: &SessionFacts<'_>, slot: &mut [u8]) {
    let mut sink = Copy(slot);
    sink.raw(&head(kind::OPEN, 0, session, 0));
    open_body(facts, &mut sink);
}

/// Fills a record of [`HEAD_BYTES`] that closes a session.
pub(crate) fn write_close(session: u32, slot: &mut [u8]) {
    Copy(slot).raw(&head(kind::CLOSE_SESSION, 0, session, 0));
}

fn open_body(f: &SessionFacts<'_>, s: &mut impl Sink) {
    s.raw(f.sid.as_bytes());
    for text in
        [f.user, f.user_kind, f.cert_serial, f.addr_remote, f.db_service, f.db_protocol, f.db_uri, f.db_user, f.db_name]
    {
        s.text(text);
    }
    for list in [f.roles, f.access_requests] {
        s.u32(u32::try_from(list.len()).unwrap_or(u32::MAX));
        list.iter().for_each(|item| s.text(item));
    }
}

fn kind_of(event: &Event<'_>) -> u8 {
    match event {
        Event::SessionStart { .. } => kind::START,
        Event::SessionEnd { .. } => kind::END,
        Event::Query { .. } => kind::QUERY,
        Event::Parse { .. } => kind::PARSE,
        Event::Bind { .. } => kind::BIND,
        Event::Execute { .. } => kind::EXECUTE,
        Event::Close { .. } => kind::CLOSE,
        Event::FunctionCall { .. } => kind::FUNCTION,
        Event::Command { .. } => kind::COMMAND,
        Event::Results { .. } => kind::RESULTS,
        Event::Mysql { .. } => kind::MYSQL,
        Event::Result { .. } => kind::RESULT,
        Event::Malformed { .. } => kind::MALFORMED,
        Event::Cancel { .. } => kind::CANCEL,
        Event::Terminated { .. } => kind::TERMINATED,
        Event::ClientDisconnect { .. } => kind::DISCONNECT,
        Event::SessionRejected { .. } => kind::REJECTED,
        Event::AuthFailed { .. } => kind::AUTH,
        Event::Other { .. } => kind::OTHER,
    }
}

/// Whether the event lets something reach a database, so that it may be refused; what ends or explains is not.
pub(crate) fn admits(event: &Event<'_>) -> bool {
    match event {
        Event::SessionStart { error, .. }
        | Event::Query { error, .. }
        | Event::Command { error, .. }
        | Event::FunctionCall { error, .. } => error.is_empty(),
        Event::Parse { .. } | Event::Bind { .. } | Event::Execute { .. } | Event::Mysql { .. } => true,
        _ => false,
    }
}

/// The number after `TMY`, the statement's id, another number, and bytes of data.
fn mysql_parts(command: MysqlCommand) -> (u8, u32, u32, u64) {
    match command {
        MysqlCommand::Prepare => (0, 0, 0, 0),
        MysqlCommand::Execute { statement } => (1, statement, 0, 0),
        MysqlCommand::SendLongData { statement, parameter, bytes } => (2, statement, u32::from(parameter), bytes),
        MysqlCommand::Close { statement } => (3, statement, 0, 0),
        MysqlCommand::Reset { statement } => (4, statement, 0, 0),
        MysqlCommand::Fetch { statement, rows } => (5, statement, rows, 0),
        MysqlCommand::BulkExecute { statement } => (6, statement, 0, 0),
        MysqlCommand::InitDb => (7, 0, 0, 0),
        MysqlCommand::CreateDb => (8, 0, 0, 0),
        MysqlCommand::DropDb => (9, 0, 0, 0),
        MysqlCommand::ShutDown => (10, 0, 0, 0),
        MysqlCommand::ProcessKill { process } => (11, 0, process, 0),
        MysqlCommand::Debug => (12, 0, 0, 0),
        MysqlCommand::Refresh { what } => (13, 0, u32::from(what), 0),
        MysqlCommand::ChangeUser => (14, 0, 0, 0),
        MysqlCommand::Replication => (20, 0, 0, 0),
        MysqlCommand::LocalInfile => (21, 0, 0, 0),
    }
}

fn statement(st: &Statement<'_>, s: &mut impl Sink) {
    s.u64(st.full_bytes);
    s.hash(st.sha256.as_ref());
    s.text(st.query_type);
    s.bytes(st.text);
}

fn parameters(list: &dyn Parameters, s: &mut impl Sink) {
    list.walk(&mut |p| match p {
        Parameter::Null => s.u8(parameter::NULL),
        Parameter::Text(v) => {
            s.u8(parameter::TEXT);
            s.bytes(v);
        }
        Parameter::Binary(v) => {
            s.u8(parameter::BINARY);
            s.bytes(v);
        }
        Parameter::Int(v) => {
            s.u8(parameter::INT);
            s.u64(v as u64);
        }
        Parameter::Float(v) => {
            s.u8(parameter::FLOAT);
            s.u64(v.to_bits());
        }
        Parameter::Bool(v) => {
            s.u8(parameter::BOOL);
            s.flag(v);
        }
        Parameter::TypeOnly(v) => {
            s.u8(parameter::TYPE);
            s.u32(v);
        }
        Parameter::Cut(v) => {
            s.u8(parameter::CUT);
            s.u64(v);
        }
    });
    s.u8(parameter::END);
}

#[inline]
fn body(event: &Event<'_>, s: &mut impl Sink) {
    match event {
        Event::SessionStart { error, message, user_agent, backend_pid, parameters } => {
            s.text(error);
            s.text(message);
            s.text(user_agent);
            s.u32(*backend_pid);
            s.u32(u32::try_from(parameters.len()).unwrap_or(u32::MAX));
            for (name, value) in *parameters {
                s.text(name);
                s.text(value);
            }
        }
        Event::SessionEnd { reason, start_us, statements, bytes_in, bytes_out } => {
            for n in [start_us, statements, bytes_in, bytes_out] {
                s.u64(*n);
            }
            s.text(reason);
        }
        Event::Query { statement: st, parameters: list, error } => {
            s.text(error);
            statement(st, s);
            parameters(*list, s);
        }
        Event::Parse { name, statement: st } => {
            s.bytes(name);
            statement(st, s);
        }
        Event::Bind { name, portal, parameters: list } => {
            s.bytes(name);
            s.bytes(portal);
            parameters(*list, s);
        }
        Event::Execute { portal, statement: st, parameters: list } => {
            s.bytes(portal);
            statement(st, s);
            parameters(*list, s);
        }
        Event::Close { is_portal, name } => {
            s.flag(*is_portal);
            s.bytes(name);
        }
        Event::FunctionCall { oid, arguments, error } => {
            s.u32(*oid);
            s.text(error);
            parameters(*arguments, s);
        }
        Event::Command { name, keys, arguments, argument_bytes, values, error } => {
            s.text(error);
            s.bytes(name);
            s.u32(*arguments);
            s.u64(*argument_bytes);
            parameters(*keys, s);
            parameters(*values, s);
        }
        Event::Results { first_ei, count, duration_us } => {
            s.u32(*first_ei);
            s.u32(*count);
            s.u64(*duration_us);
        }
        Event::Mysql { command, statement: st, parameters: list } => {
            let (which, statement_id, number, bytes) = mysql_parts(*command);
            s.u8(which);
            s.u32(statement_id);
            s.u32(number);
            s.u64(bytes);
            statement(st, s);
            parameters(*list, s);
        }
        Event::Result {
            query_ei,
            success,
            rows,
            duration_us,
            code,
            error,
            copy_bytes,
            query_sha256,
            skipped,
            warnings,
        } => {
            s.u32(*query_ei);
            s.flag(*success);
            s.flag(*skipped);
            s.flag(rows.is_some());
            s.u64(rows.unwrap_or(0));
            s.u64(*duration_us);
            s.u64(*copy_bytes);
            s.bytes(code);
            s.bytes(error);
            s.hash(query_sha256.as_ref());
            s.u32(u32::from(*warnings));
        }
        Event::Malformed { side, rule, payload } => {
            s.text(side);
            s.text(rule);
            s.bytes(&payload[..payload.len().min(64)]);
        }
        Event::Cancel { addr, matched } => {
            s.flag(*matched);
            s.text(addr);
        }
        Event::Terminated { actor, reason } => {
            s.text(actor);
            s.text(reason);
        }
        Event::ClientDisconnect { reason } => s.text(reason),
        Event::SessionRejected { reason, maximum } => {
            s.u64(*maximum);
            s.text(reason);
        }
        Event::AuthFailed { addr, protocol, error } => {
            s.text(addr);
            s.text(protocol);
            s.text(error);
        }
        Event::Other { event, code, members } => {
            s.text(event);
            s.text(code);
            s.text(members);
        }
    }
}

/// Reads a record. Every step is bounds-checked, because a ring file may be what a power cut left.
#[derive(Clone)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    pub(crate) fn raw(&mut self, n: usize) -> Option<&'a [u8]> {
        let (now, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(now)
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.raw(1)?[0])
    }
    pub(crate) fn flag(&mut self) -> Option<bool> {
        Some(self.u8()? != 0)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.raw(4)?.try_into().ok()?))
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.raw(8)?.try_into().ok()?))
    }
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        self.raw(n)
    }
    /// All that is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
    pub(crate) fn hash(&mut self) -> Option<Option<&'a [u8]>> {
        if self.flag()? { Some(Some(self.raw(32)?)) } else { Some(None) }
    }
}

/// The fixed part of a record.
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) time_us: u64,
    pub(crate) session: u32,
    pub(crate) ei: u32,
}

/// The kind of a record, 0 when it is too short for one.
pub(crate) fn kind_at(record: &[u8]) -> u8 {
    record.get(4).copied().unwrap_or(0)
}

/// Splits a record into its head and its body.
pub(crate) fn read(record: &[u8]) -> Option<(Head, Cursor<'_>)> {
    let mut c = Cursor::new(record);
    c.raw(4)?;
    let kind = c.u8()?;
    c.raw(3)?;
    Some((Head { kind, time_us: c.u64()?, session: c.u32()?, ei: c.u32()? }, c))
}
