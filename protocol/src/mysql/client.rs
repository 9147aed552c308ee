//! Commands the client sends, read just as far as policy and audit want to see them.
//!
//! A command longer than what is held back is read from its prefix: what is visible is checked, every
//! inner length against the packet, and the rest is left to the server. Of a command that goes on in more
//! packets, only the first is read.

use crate::wire::Reader;
use crate::{Class, Fault, FaultKind, Side, Verb};

use super::capability::{self, Flags};
use super::error::{fault, malformed};
use super::head::{HEAD, Head, lenenc, u16_le, u32_le};
use super::parameters::{self, Layout};
use super::verb::MysqlVerb;

/// The longest packet of a command that holds names and nothing else: four-byte letters, twice over.
const NAMES_MAX: usize = 4 * 1024;
/// The longest COM_CHANGE_USER. Connect attributes are the most of it.
const CHANGE_USER_MAX: usize = 16 * 1024;
/// The longest command of a replica: GTID sets of a fresh one.
const REPLICATION_MAX: usize = 64 * 1024;
/// The first of our connection ids.
pub(super) const OUR_IDS: u32 = 1 << 31;

/// A piece of the packet at the front of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: usize,
    len: usize,
}

impl Span {
    pub(super) const fn new(start: usize, len: usize) -> Span {
        Span { start, len }
    }

    /// Its bytes. Empty when `packet` ends before it, which a caller that keeps to the contract never sees.
    pub(super) fn of(self, packet: &[u8]) -> &[u8] {
        packet.get(self.start..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }

    /// What stands before it and behind it.
    pub(super) fn around(self, packet: &[u8]) -> (&[u8], &[u8]) {
        let end = self.start + self.len;
        (packet.get(..self.start).unwrap_or_default(), packet.get(end..).unwrap_or_default())
    }

    /// At most its first `max` bytes.
    pub(super) fn capped(self, max: usize) -> Span {
        Span { start: self.start, len: self.len.min(max) }
    }
}

/// How the database answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Not at all.
    None,
    /// OK, EOF or ERR.
    Done,
    /// Results, with rows in text form.
    Text,
    /// Results, with rows in binary form.
    Binary,
    /// What a prepare is answered with.
    Prepared,
    /// Binary rows and their end.
    Fetched,
    /// Column definitions and their end.
    Fields,
    /// One packet of text.
    Statistics,
    /// Events until the end of the connection.
    Events,
}

/// What is special about a command, beside its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Quit,
    ChangeUser,
    ResetConnection,
    Prepare,
    Execute,
    BulkExecute,
    SendLongData,
    Close,
    Reset,
    /// A KILL that may have to name another id; the span holds the digits, or the binary id.
    Kill(Span),
    Unknown,
}

/// A command, as offsets into its first packet, so that it is read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) reply: Reply,
    /// `None` for what is not asked about.
    pub(super) verb: Option<Verb>,
    pub(super) class: Class,
    pub(super) head: Head,
    /// The text, as far as it is visible.
    pub(super) text: Span,
    /// Bytes of the text in the first packet.
    pub(super) text_full: u64,
    /// COM_CHANGE_USER: the user.
    pub(super) user: Span,
    /// The database that the session moves to.
    pub(super) database: Span,
    /// Statement id of a command on a prepared statement.
    pub(super) statement: u32,
    /// COM_STMT_SEND_LONG_DATA: the parameter.
    pub(super) parameter: u16,
    /// COM_STMT_EXECUTE and COM_STMT_BULK_EXECUTE: flags and what follows them.
    pub(super) flags: u16,
    pub(super) body: Span,
    /// The text asks the server to ask for a file.
    pub(super) loads_file: bool,
}

impl Frame {
    fn new(head: Head, kind: Kind, reply: Reply, verb: Option<Verb>) -> Frame {
        let class = match verb {
            Some(Verb::Mysql(verb)) => verb.class(),
            _ => Class::Query,
        };
        Frame {
            kind,
            reply,
            verb,
            class,
            head,
            text: Span::default(),
            text_full: 0,
            user: Span::default(),
            database: Span::default(),
            statement: 0,
            parameter: 0,
            flags: 0,
            body: Span::default(),
            loads_file: false,
        }
    }

    fn named(self, text: Span) -> Frame {
        Frame { text, text_full: text.len as u64, ..self }
    }

    /// What is done once it is allowed hangs on nothing but what was read of it.
    pub(super) const fn needs_no_input(&self) -> bool {
        !matches!(self.kind, Kind::Unknown | Kind::ChangeUser | Kind::Kill(_) | Kind::Prepare)
    }

    /// Where the text begins when it is longer than the `shown` bytes of it.
    pub(super) fn streams_from(&self, shown: usize) -> Option<usize> {
        (self.text_full > shown as u64).then_some(self.text.start)
    }
}

pub(super) mod code {
    //! Command codes.
    pub(in super::super) const QUIT: u8 = 0x01;
    pub(in super::super) const INIT_DB: u8 = 0x02;
    pub(in super::super) const QUERY: u8 = 0x03;
    pub(in super::super) const FIELD_LIST: u8 = 0x04;
    pub(in super::super) const CREATE_DB: u8 = 0x05;
    pub(in super::super) const DROP_DB: u8 = 0x06;
    pub(in super::super) const REFRESH: u8 = 0x07;
    pub(in super::super) const SHUTDOWN: u8 = 0x08;
    pub(in super::super) const STATISTICS: u8 = 0x09;
    pub(in super::super) const PROCESS_INFO: u8 = 0x0a;
    pub(in super::super) const PROCESS_KILL: u8 = 0x0c;
    pub(in super::super) const DEBUG: u8 = 0x0d;
    pub(in super::super) const PING: u8 = 0x0e;
    pub(in super::super) const CHANGE_USER: u8 = 0x11;
    pub(in super::super) const BINLOG_DUMP: u8 = 0x12;
    pub(in super::super) const REGISTER_SLAVE: u8 = 0x15;
    pub(in super::super) const STMT_PREPARE: u8 = 0x16;
    pub(in super::super) const STMT_EXECUTE: u8 = 0x17;
    pub(in super::super) const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub(in super::super) const STMT_CLOSE: u8 = 0x19;
    pub(in super::super) const STMT_RESET: u8 = 0x1a;
    pub(in super::super) const SET_OPTION: u8 = 0x1b;
    pub(in super::super) const STMT_FETCH: u8 = 0x1c;
    pub(in super::super) const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub(in super::super) const RESET_CONNECTION: u8 = 0x1f;
    pub(in super::super) const STMT_BULK_EXECUTE: u8 = 0xfa;
}

/// How much of a command's first packet is held back to be looked at, at most `window` for those with text.
/// Errors: `Malformed` for a body shorter or longer than its command allows, `TooLarge` beyond a bound.
pub(super) fn window(code: u8, head: Head, agreed: Flags, window: usize) -> Result<usize, Fault> {
    let (least, most) = match code {
        code::QUIT | code::STATISTICS | code::PROCESS_INFO | code::DEBUG | code::PING | code::RESET_CONNECTION => {
            (1, 1)
        }
        code::REFRESH => (2, 2),
        code::SHUTDOWN => (1, 2),
        code::SET_OPTION => (3, 3),
        code::PROCESS_KILL | code::STMT_CLOSE | code::STMT_RESET => (5, 5),
        code::STMT_FETCH => (9, 9),
        code::INIT_DB | code::FIELD_LIST | code::CREATE_DB | code::DROP_DB => (1, NAMES_MAX),
        code::CHANGE_USER => (4, CHANGE_USER_MAX),
        code::BINLOG_DUMP | code::BINLOG_DUMP_GTID | code::REGISTER_SLAVE => (11, REPLICATION_MAX),
        code::STMT_SEND_LONG_DATA => return least(head, 7, HEAD + 7),
        code::STMT_EXECUTE => return least(head, 10, window),
        code::STMT_BULK_EXECUTE if agreed & capability::BULK != 0 => return least(head, 7, window),
        code::QUERY | code::STMT_PREPARE => return least(head, 1, window),
        // Refused by its code alone.
        _ => return Ok(HEAD + 1),
    };
    if head.body < least {
        return Err(malformed("command shorter than its type allows"));
    }
    if head.body > most {
        let kind = if most < NAMES_MAX { FaultKind::Malformed } else { FaultKind::TooLarge };
        return Err(fault(Side::Client, kind, "command longer than its type allows"));
    }
    Ok(head.packet())
}

fn least(head: Head, least: usize, window: usize) -> Result<usize, Fault> {
    if head.body < least {
        return Err(malformed("command shorter than its type allows"));
    }
    Ok(head.packet().min(window))
}

/// Reads a command. `visible` is its first packet, or what [`window`] says of it.
pub(super) fn frame(head: Head, visible: &[u8], agreed: Flags) -> Result<Frame, Fault> {
    let Some(&code) = visible.get(HEAD) else { return Err(malformed("empty command")) };
    let plain = |reply, verb: Option<MysqlVerb>| Frame::new(head, Kind::Plain, reply, verb.map(Verb::Mysql));
    let special = |kind, reply, verb: MysqlVerb| Frame::new(head, kind, reply, Some(Verb::Mysql(verb)));
    let mut reader = Reader::new(&visible[HEAD + 1..]);
    let rest = Span::new(HEAD + 1, visible.len() - HEAD - 1);
    let short = malformed("command shorter than its type allows");
    Ok(match code {
        code::QUIT => Frame::new(head, Kind::Quit, Reply::None, None),
        code::PING | code::SET_OPTION => plain(Reply::Done, None),
        code::RESET_CONNECTION => Frame::new(head, Kind::ResetConnection, Reply::Done, None),
        code::STATISTICS => plain(Reply::Statistics, Some(MysqlVerb::Statistics)),
        code::PROCESS_INFO => plain(Reply::Text, Some(MysqlVerb::ProcessInfo)),
        code::DEBUG => plain(Reply::Done, Some(MysqlVerb::Debug)),
        code::SHUTDOWN => plain(Reply::Done, Some(MysqlVerb::Shutdown)),
        code::REFRESH => plain(Reply::Done, Some(MysqlVerb::Refresh { what: reader.u8().ok_or(short)? })),
        code::PROCESS_KILL => {
            let process = u32_le(&mut reader).ok_or(short)?;
            let kind = if process >= OUR_IDS { Kind::Kill(rest) } else { Kind::Plain };
            special(kind, Reply::Done, MysqlVerb::ProcessKill { process })
        }
        code::INIT_DB => {
            let name = whole_name(rest, visible)?;
            Frame { database: name, ..plain(Reply::Done, Some(MysqlVerb::InitDb)).named(name) }
        }
        code::CREATE_DB => plain(Reply::Done, Some(MysqlVerb::CreateDb)).named(whole_name(rest, visible)?),
        code::DROP_DB => plain(Reply::Done, Some(MysqlVerb::DropDb)).named(whole_name(rest, visible)?),
        code::FIELD_LIST => {
            let table = reader.cstr().ok_or(malformed("table name without end"))?;
            plain(Reply::Fields, Some(MysqlVerb::FieldList)).named(rest.capped(table.len()))
        }
        code::CHANGE_USER => {
            let change = super::startup::change_user(agreed, rest.of(visible))?;
            let user = rest.capped(change.user.len());
            // The database stands behind user and response; it is read again when it is allowed.
            let database = within(visible, change.database.as_bytes());
            Frame { user, database, ..Frame::new(head, Kind::ChangeUser, Reply::Done, Some(Verb::Authenticate)) }
        }
        code::BINLOG_DUMP | code::BINLOG_DUMP_GTID => plain(Reply::Events, Some(MysqlVerb::BinlogDump)),
        code::REGISTER_SLAVE => plain(Reply::Done, Some(MysqlVerb::RegisterReplica)),
        code::QUERY => query(head, visible, agreed)?,
        code::STMT_PREPARE => text(special(Kind::Prepare, Reply::Prepared, MysqlVerb::Prepare), visible, HEAD + 1),
        code::STMT_EXECUTE => {
            let statement = u32_le(&mut reader).ok_or(short)?;
            let flags = u16::from(reader.u8().ok_or(short)?);
            if u32_le(&mut reader) != Some(1) {
                return Err(malformed("statement to be executed other than once"));
            }
            let verb = MysqlVerb::Execute { statement };
            let body = Span::new(HEAD + 10, visible.len().saturating_sub(HEAD + 10));
            Frame { statement, flags, body, ..special(Kind::Execute, Reply::Binary, verb) }
        }
        code::STMT_BULK_EXECUTE if agreed & capability::BULK != 0 => {
            let statement = u32_le(&mut reader).ok_or(short)?;
            let flags = u16_le(&mut reader).ok_or(short)?;
            let verb = MysqlVerb::BulkExecute { statement };
            let body = Span::new(HEAD + 7, visible.len().saturating_sub(HEAD + 7));
            Frame { statement, flags, body, ..special(Kind::BulkExecute, Reply::Binary, verb) }
        }
        code::STMT_SEND_LONG_DATA => {
            let statement = u32_le(&mut reader).ok_or(short)?;
            let parameter = u16_le(&mut reader).ok_or(short)?;
            let verb = MysqlVerb::SendLongData { statement, parameter, bytes: head.body as u64 - 7 };
            Frame { statement, parameter, ..special(Kind::SendLongData, Reply::None, verb) }
        }
        code::STMT_CLOSE => {
            let statement = u32_le(&mut reader).ok_or(short)?;
            Frame { statement, ..special(Kind::Close, Reply::None, MysqlVerb::Close { statement }) }
        }
        code::STMT_RESET => {
            let statement = u32_le(&mut reader).ok_or(short)?;
            Frame { statement, ..special(Kind::Reset, Reply::Done, MysqlVerb::Reset { statement }) }
        }
        code::STMT_FETCH => {
            let statement = u32_le(&mut reader).ok_or(short)?;
            let rows = u32_le(&mut reader).ok_or(short)?;
            Frame { statement, ..plain(Reply::Fetched, Some(MysqlVerb::Fetch { statement, rows })) }
        }
        code => special(Kind::Unknown, Reply::Done, MysqlVerb::Unknown { code }),
    })
}

/// Where `part` lies in `packet`, of which it is a piece. Otherwise nothing.
fn within(packet: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(packet.as_ptr().addr());
    if start <= packet.len() && part.len() <= packet.len() - start {
        Span { start, len: part.len() }
    } else {
        Span::default()
    }
}

/// A name that fills its packet. A zero byte would end it early for one reader and not for another.
fn whole_name(rest: Span, visible: &[u8]) -> Result<Span, Fault> {
    if memchr::memchr(0, rest.of(visible)).is_some() {
        return Err(malformed("zero byte inside a name"));
    }
    Ok(rest)
}

/// A frame whose text goes from `start` to the end of its packet.
fn text(frame: Frame, visible: &[u8], start: usize) -> Frame {
    let text = Span::new(start, visible.len().saturating_sub(start));
    Frame { text, text_full: frame.head.packet().saturating_sub(start) as u64, ..frame }
}

/// Spec: "COM_QUERY". With CLIENT_QUERY_ATTRIBUTES the attributes stand before the text; unless they are
/// passed over exactly, the text that is seen is not the text that is run.
fn query(head: Head, visible: &[u8], agreed: Flags) -> Result<Frame, Fault> {
    let frame = Frame::new(head, Kind::Plain, Reply::Text, Some(Verb::Query));
    let mut start = HEAD + 1;
    if agreed & capability::QUERY_ATTRIBUTES != 0 {
        let mut reader = Reader::new(&visible[HEAD + 1..]);
        let Some(()) = attributes(&mut reader) else {
            return Err(if visible.len() < head.packet() {
                fault(Side::Client, FaultKind::TooLarge, "query attributes too long to be looked at")
            } else {
                malformed("query attributes cannot be read")
            });
        };
        start = visible.len() - reader.rest().len();
    }
    let mut frame = text(frame, visible, start);
    let shown = frame.text.of(visible);
    if agreed & capability::LOCAL_FILES != 0 {
        frame.loads_file = loads_file(shown);
    }
    if visible.len() == head.packet()
        && let Some((process, digits)) = kill(shown)
        && process >= OUR_IDS
    {
        frame.kind = Kind::Kill(Span::new(start + digits.0, digits.1));
        frame.verb = Some(Verb::Mysql(MysqlVerb::KillText { process }));
    }
    Ok(frame)
}

/// Passes over query attributes. `None` when they do not end within what is visible.
fn attributes(reader: &mut Reader<'_>) -> Option<()> {
    let count = usize::try_from(lenenc(reader)?).ok()?;
    if lenenc(reader)? != 1 {
        return None;
    }
    if count == 0 {
        return Some(());
    }
    let nulls = reader.take(count.div_ceil(8))?;
    if reader.u8()? != 1 {
        return None;
    }
    let mut types = *reader;
    parameters::skip_types(reader, count, Layout::Named)?;
    for index in 0..count {
        let kind = parameters::next_type(&mut types, Layout::Named)?;
        if !parameters::is_null(nulls, index) {
            parameters::take_value(reader, kind)?;
        }
    }
    Some(())
}

/// The id and the place of its digits, where `text` is `KILL [HARD|SOFT] [QUERY|CONNECTION] [ID] id`.
fn kill(text: &[u8]) -> Option<(u32, (usize, usize))> {
    const LONGEST: usize = 128;
    if text.len() > LONGEST || !text.trim_ascii_start().get(..4)?.eq_ignore_ascii_case(b"kill") {
        return None;
    }
    let mut words = text
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty() && *word != b";")
        .skip(1)
        .skip_while(|word| {
            [&b"hard"[..], b"soft", b"query", b"connection", b"id"].iter().any(|known| word.eq_ignore_ascii_case(known))
        });
    let word = words.next()?;
    let digits = word.strip_suffix(b";").unwrap_or(word);
    if words.next().is_some() || digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let process = digits.iter().try_fold(0_u32, |sum, digit| {
        digit.is_ascii_digit().then_some(())?;
        sum.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
    })?;
    let span = within(text, digits);
    Some((process, (span.start, span.len)))
}

/// Whether a text asks the server to ask the client for a file: `LOAD DATA|XML ... LOCAL` somewhere in it.
/// A server that asks without having been asked is refused, so this may say yes too often, never too rarely.
fn loads_file(text: &[u8]) -> bool {
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    has(b"load") && has(b"local") && has(b"infile")
}
