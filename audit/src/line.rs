//! From a record to its line: the envelope of user-experience section 15.1, then the event's fields.
use crate::encode::{Cursor, Head, kind, parameter};
use crate::facts::{Session, Sessions};
use crate::fields::{Fields, key};
use crate::json;
use crate::mask;
use crate::mysql;
use crate::outcome::Outcome;
use crate::steps::Steps;
use crate::text::Text;

/// What all lines of this process share.
pub(crate) struct Lines {
    clock: json::Clock,
    uid_low: u64,
    /// Number of the next line.
    pub(crate) seq: u64,
}

/// What all lines of one ring share: `"cluster_name":…,"server_id":…` and, for a worker, `,"worker":N`.
pub(crate) fn origin(cluster: &str, server: &str, worker: Option<u32>) -> Vec<u8> {
    let mut out = b"\"cluster_name\":".to_vec();
    json::string(&mut out, cluster);
    out.extend_from_slice(b",\"server_id\":");
    json::string(&mut out, server);
    if let Some(worker) = worker {
        out.extend_from_slice(b",\"worker\":");
        json::number(&mut out, u64::from(worker));
    }
    out
}

/// Name and code of a line that carries no record of a ring.
pub(crate) struct Own<'a> {
    pub(crate) event: &'a str,
    pub(crate) code: &'a str,
    pub(crate) time_us: u64,
    pub(crate) members: &'a [u8],
}

/// What else is said in a statement's line, instead of in lines of its own.
#[derive(Default)]
pub(crate) struct Joined<'a> {
    /// Of an Execute: the steps before it.
    pub(crate) steps: Option<Steps<'a>>,
    /// What came of the statement.
    pub(crate) result: Option<Outcome<'a>>,
}

/// Name and code of an event as they stand in a line, between its `uid` and its `ei`.
pub(crate) enum Naming<'a> {
    Fixed(&'static str),
    Given { event: &'a str, code: &'a str },
}

macro_rules! fixed {
    ($event:literal, $code:literal) => {
        Naming::Fixed(concat!("\",\"event\":\"", $event, "\",\"code\":\"", $code, "\",\"ei\":"))
    };
}
pub(crate) use fixed;

impl Lines {
    pub(crate) fn new(seq: u64) -> Self {
        let random = uuid::Uuid::new_v4().as_u128() as u64;
        Self { clock: json::Clock::new(), uid_low: random, seq }
    }

    pub(crate) fn time(&mut self, us: u64) -> &[u8; 24] {
        self.clock.format(us)
    }

    /// The envelope up to the origin, without the session's part. Takes the next number.
    fn envelope(&mut self, out: &mut Vec<u8>, naming: &Naming<'_>, ei: u32, time_us: u64, origin: &[u8]) {
        out.extend_from_slice(b"{\"v\":1,\"seq\":");
        json::number(out, self.seq);
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(self.clock.format(time_us));
        out.extend_from_slice(b"\",\"uid\":\"");
        self.uid(out, time_us);
        match naming {
            Naming::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Naming::Given { event, code } => {
                out.extend_from_slice(b"\",\"event\":");
                json::string(out, event);
                out.extend_from_slice(b",\"code\":");
                json::string(out, code);
                out.extend_from_slice(b",\"ei\":");
            }
        }
        json::number(out, u64::from(ei));
        out.push(b',');
        out.extend_from_slice(origin);
        self.seq += 1;
    }

    /// UUID version 7: milliseconds, then the line number's low bits, then a random base plus a count.
    fn uid(&mut self, out: &mut Vec<u8>, time_us: u64) {
        self.uid_low = self.uid_low.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let ms = time_us / 1000;
        let high = (ms << 16) | 0x7000 | (self.seq & 0xfff);
        let low = (self.uid_low >> 2) | (1 << 63);
        let uid = uuid::Uuid::from_u64_pair(high, low);
        out.extend_from_slice(uid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
    }

    /// Appends a line of the log's own.
    pub(crate) fn own(&mut self, out: &mut Vec<u8>, origin: &[u8], own: &Own<'_>) {
        self.envelope(out, &Naming::Given { event: own.event, code: own.code }, 0, own.time_us, origin);
        if !own.members.is_empty() {
            out.push(b',');
            out.extend_from_slice(own.members);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Appends the line of a record and what is joined to it. `None`, with `out` and the numbering as before, when the
    /// record cannot be read.
    pub(crate) fn record(
        &mut self,
        out: &mut Vec<u8>,
        origin: &[u8],
        sessions: &mut Sessions,
        head: &Head,
        body: &mut Cursor<'_>,
        joined: &Joined<'_>,
    ) -> Option<()> {
        let (from, seq) = (out.len(), self.seq);
        let done = self.try_record(out, origin, sessions, head, body, joined);
        if done.is_none() {
            out.truncate(from);
            self.seq = seq;
        }
        done
    }

    /// Appends a line for a result that no statement's line has.
    pub(crate) fn result(
        &mut self,
        out: &mut Vec<u8>,
        origin: &[u8],
        sessions: &mut Sessions,
        session: u32,
        outcome: &Outcome<'_>,
    ) {
        let session = sessions.get_mut(&session);
        let naming = fixed!("db.session.result", "TDB10I");
        self.envelope(out, &naming, outcome.ei, outcome.time_us, origin);
        facts(out, session.as_deref());
        let mut f = Fields { out, clock: &mut self.clock };
        f.number(key!("query_ei"), u64::from(outcome.first));
        if outcome.count != 1 {
            f.number(key!("query_count"), u64::from(outcome.count));
        }
        came_of(&mut f, outcome, outcome.first, session);
        out.extend_from_slice(b"}\n");
    }

    fn try_record(
        &mut self,
        out: &mut Vec<u8>,
        origin: &[u8],
        sessions: &mut Sessions,
        head: &Head,
        body: &mut Cursor<'_>,
        joined: &Joined<'_>,
    ) -> Option<()> {
        let mut session = sessions.get_mut(&head.session);
        let (naming, error) = naming(head.kind, body)?;
        self.envelope(out, &naming, head.ei, head.time_us, origin);
        facts(out, session.as_deref());
        let mut f = Fields { out, clock: &mut self.clock };
        match head.kind {
            kind::START => start(&mut f, error, body, session.as_deref())?,
            kind::END => {
                let numbers = [body.u64()?, body.u64()?, body.u64()?, body.u64()?];
                f.text(key!("reason"), body.bytes()?);
                f.time(key!("start_time"), numbers[0]);
                f.time(key!("end_time"), head.time_us);
                f.number(key!("statements"), numbers[1]);
                f.number(key!("bytes_in"), numbers[2]);
                f.number(key!("bytes_out"), numbers[3]);
            }
            kind::QUERY => {
                f.flag(key!("success"), error.is_empty());
                f.text_unless_empty(key!("error"), error);
                let st = Text::read(body)?;
                statement(&mut f, &st, key!("db_query"), Some(body), head.ei, session.as_deref_mut())?;
            }
            kind::COMMAND => command(&mut f, error, body)?,
            kind::MYSQL => mysql::fields(&mut f, body, head.ei, session.as_deref_mut())?,
            kind::PARSE => {
                f.text(key!("statement_name"), body.bytes()?);
                let st = Text::read(body)?;
                statement(&mut f, &st, key!("query"), None, head.ei, session.as_deref_mut())?;
            }
            kind::BIND => {
                f.text(key!("statement_name"), body.bytes()?);
                f.text(key!("portal_name"), body.bytes()?);
                f.parameters(key!("parameters"), body)?;
            }
            kind::EXECUTE => {
                if let Some(steps) = &joined.steps {
                    if let Some(ei) = steps.parse_ei {
                        f.number(key!("parse_ei"), u64::from(ei));
                    }
                    f.number(key!("bind_ei"), u64::from(steps.bind_ei));
                    f.text(key!("statement_name"), steps.name);
                }
                f.text(key!("portal_name"), body.bytes()?);
                let st = Text::read(body)?;
                statement(&mut f, &st, key!("db_query"), Some(body), head.ei, session.as_deref_mut())?;
            }
            kind::CLOSE => {
                let name = if body.flag()? { key!("portal_name") } else { key!("statement_name") };
                f.text(name, body.bytes()?);
            }
            kind::FUNCTION => {
                let oid = body.u32()?;
                let error = body.bytes()?;
                if !error.is_empty() {
                    f.flag(key!("success"), false);
                    f.text(key!("error"), error);
                }
                f.number(key!("function_oid"), u64::from(oid));
                f.parameters(key!("function_args"), body)?;
            }
            kind::MALFORMED => {
                f.text(key!("side"), body.bytes()?);
                f.text(key!("rule"), body.bytes()?);
                f.base64(key!("payload"), body.bytes()?);
            }
            kind::CANCEL => {
                f.flag(key!("matched"), body.flag()?);
                f.text(key!("canceller"), body.bytes()?);
            }
            kind::TERMINATED => {
                f.text(key!("actor"), body.bytes()?);
                f.text(key!("reason"), body.bytes()?);
            }
            kind::DISCONNECT => f.text(key!("reason"), body.bytes()?),
            kind::REJECTED => {
                f.number(key!("maximum"), body.u64()?);
                f.text(key!("reason"), body.bytes()?);
            }
            kind::AUTH => {
                f.text(key!("addr.remote"), body.bytes()?);
                f.text(key!("db_protocol"), body.bytes()?);
                f.flag(key!("success"), false);
                f.text(key!("error"), body.bytes()?);
            }
            kind::OTHER => {
                let members = std::str::from_utf8(body.bytes()?).ok()?;
                if !members.is_empty() {
                    f.out.push(b',');
                    // A line is one line: JSON needs no raw line break anywhere.
                    f.out.extend(members.bytes().map(|b| if b == b'\n' || b == b'\r' { b' ' } else { b }));
                }
            }
            _ => return None,
        }
        if let Some(outcome) = &joined.result {
            f.out.extend_from_slice(b",\"result\":{\"ei\":");
            json::number(f.out, u64::from(outcome.ei));
            if !outcome.follows(head.time_us) {
                f.time(key!("time"), outcome.time_us);
            }
            came_of(&mut f, outcome, head.ei, session);
            f.out.push(b'}');
        }
        out.extend_from_slice(b"}\n");
        Some(())
    }
}

fn facts(out: &mut Vec<u8>, session: Option<&Session>) {
    if let Some(session) = session {
        out.push(b',');
        out.extend_from_slice(&session.line);
    }
}

/// Event name and code, and the error text where the kind begins with one.
fn naming<'a>(kind: u8, body: &mut Cursor<'a>) -> Option<(Naming<'a>, &'a [u8])> {
    let naming = match kind {
        kind::START => {
            let error = body.bytes()?;
            let started = fixed!("db.session.start", "TDB00I");
            let refused = fixed!("db.session.start", "TDB00W");
            return Some((if error.is_empty() { started } else { refused }, error));
        }
        kind::QUERY | kind::COMMAND => match body.bytes()? {
            b"" => fixed!("db.session.query", "TDB02I"),
            error => return Some((fixed!("db.session.query.failed", "TDB02W"), error)),
        },
        kind::FUNCTION => {
            // The object id comes first; look ahead without consuming.
            let mut ahead = body.clone();
            ahead.u32()?;
            if ahead.bytes()?.is_empty() {
                fixed!("db.session.postgres.function", "TPG04I")
            } else {
                fixed!("db.session.query.failed", "TDB02W")
            }
        }
        kind::OTHER => {
            let event = std::str::from_utf8(body.bytes()?).ok()?;
            let code = std::str::from_utf8(body.bytes()?).ok()?;
            Naming::Given { event, code }
        }
        kind::MYSQL => mysql::naming(body.clone().u8()?)?,
        kind::END => fixed!("db.session.end", "TDB01I"),
        kind::PARSE => fixed!("db.session.postgres.statements.parse", "TPG00I"),
        kind::BIND => fixed!("db.session.postgres.statements.bind", "TPG01I"),
        kind::EXECUTE => fixed!("db.session.postgres.statements.execute", "TPG02I"),
        kind::CLOSE => fixed!("db.session.postgres.statements.close", "TPG03I"),
        kind::MALFORMED => fixed!("db.session.malformed_packet", "TDB06I"),
        kind::CANCEL => fixed!("db.session.cancel", "TDB20I"),
        kind::TERMINATED => fixed!("db.session.terminated", "TDB21I"),
        kind::DISCONNECT => fixed!("client.disconnect", "T3006I"),
        kind::REJECTED => fixed!("session.rejected", "T1006W"),
        kind::AUTH => fixed!("auth", "T3007W"),
        _ => return None,
    };
    Some((naming, b""))
}

fn start(f: &mut Fields<'_>, error: &[u8], body: &mut Cursor<'_>, session: Option<&Session>) -> Option<()> {
    f.flag(key!("success"), error.is_empty());
    f.text_unless_empty(key!("error"), error);
    f.text_unless_empty(key!("message"), body.bytes()?);
    f.text(key!("user_agent"), body.bytes()?);
    let pid = body.u32()?;
    if pid != 0 {
        let name = if session.is_none_or(|s| s.postgres) { key!("postgres_pid") } else { key!("backend_pid") };
        f.number(name, u64::from(pid));
    }
    if let Some(session) = session {
        f.out.push(b',');
        f.out.extend_from_slice(&session.start);
    }
    f.name(key!("startup_parameters"));
    f.out.push(b'{');
    for i in 0..body.u32()? {
        if i > 0 {
            f.out.push(b',');
        }
        json::bytes(f.out, body.bytes()?, "base64:");
        f.out.push(b':');
        json::bytes(f.out, body.bytes()?, "base64:");
    }
    f.out.push(b'}');
    Some(())
}

fn command(f: &mut Fields<'_>, error: &[u8], body: &mut Cursor<'_>) -> Option<()> {
    f.flag(key!("success"), error.is_empty());
    f.text_unless_empty(key!("error"), error);
    f.text(key!("db_query"), body.bytes()?);
    let (arguments, argument_bytes) = (body.u32()?, body.u64()?);
    f.parameters(key!("keys"), body)?;
    f.number(key!("arguments"), u64::from(arguments));
    f.number(key!("argument_bytes"), argument_bytes);
    if body.clone().u8()? != parameter::END {
        f.parameters(key!("db_query_parameters"), body)?;
    }
    Some(())
}

/// What came of the statement `query_ei`.
fn came_of(f: &mut Fields<'_>, outcome: &Outcome<'_>, query_ei: u32, session: Option<&mut Session>) {
    f.flag(key!("success"), outcome.success);
    if let Some(rows) = outcome.rows {
        f.number(key!("rows"), rows);
    }
    f.number(key!("duration_us"), outcome.duration_us);
    let masked = session.is_none_or(|s| s.take_masked(query_ei));
    f.text_unless_empty(key!("error_code"), outcome.code);
    if masked && quotes(outcome.error) {
        // A syntax error repeats the text near it, and that text was masked.
        f.text(key!("error"), b"***");
        f.flag(key!("masked"), true);
    } else {
        f.text_unless_empty(key!("error"), outcome.error);
    }
    if outcome.copy_bytes > 0 {
        f.number(key!("copy_bytes"), outcome.copy_bytes);
    }
    // A hash lets a short password be found by trying: masked texts have none.
    if let (Some(hash), false) = (outcome.hash, masked) {
        f.hex(key!("query_sha256"), hash);
    }
    if outcome.warnings > 0 {
        f.number(key!("warnings"), u64::from(outcome.warnings));
    }
    if outcome.skipped {
        f.flag(key!("skipped"), true);
    }
}

fn quotes(text: &[u8]) -> bool {
    memchr::memchr2(b'\'', b'"', text).is_some()
}

pub(crate) fn statement(
    f: &mut Fields<'_>,
    st: &Text<'_>,
    name: &'static str,
    parameters: Option<&mut Cursor<'_>>,
    ei: u32,
    session: Option<&mut Session>,
) -> Option<()> {
    let truncated = st.is_cut();
    let masked = mask::mask(st.shown());
    f.name(name);
    if !json::bytes(f.out, &masked, "") {
        f.out.extend_from_slice(b",\"encoding\":\"base64\"");
    }
    let was_masked = matches!(masked, std::borrow::Cow::Owned(_));
    if let Some(parameters) = parameters {
        f.parameters(key!("db_query_parameters"), parameters)?;
    }
    f.text_unless_empty(key!("query_type"), st.query_type);
    f.flag(key!("truncated"), truncated);
    if truncated {
        f.number(key!("query_bytes"), st.full);
        if let (Some(hash), false) = (st.hash, was_masked) {
            f.hex(key!("query_sha256"), hash);
        }
    }
    if was_masked {
        f.flag(key!("masked"), true);
        if let Some(session) = session {
            session.note_masked(ei);
        }
    }
    Some(())
}
