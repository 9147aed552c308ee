//! From a record to its line: the envelope of user-experience section 15.1, then the event's fields.
use crate::encode::{Cursor, Head, kind, parameter};
use crate::facts::{Session, Sessions};
use crate::json;
use crate::mask;

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

impl Lines {
    pub(crate) fn new(seq: u64) -> Self {
        let random = uuid::Uuid::new_v4().as_u128() as u64;
        Self { clock: json::Clock::new(), uid_low: random, seq }
    }

    pub(crate) fn time(&mut self, us: u64) -> &[u8; 24] {
        self.clock.format(us)
    }

    /// The envelope up to the origin, without the session's part. Takes the next number.
    fn envelope(&mut self, out: &mut Vec<u8>, event: &str, code: &str, ei: u32, time_us: u64, origin: &[u8]) {
        out.extend_from_slice(b"{\"v\":1,\"seq\":");
        json::number(out, self.seq);
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(self.clock.format(time_us));
        out.extend_from_slice(b"\",\"uid\":\"");
        self.uid(out, time_us);
        out.extend_from_slice(b"\",\"event\":");
        json::string(out, event);
        out.extend_from_slice(b",\"code\":");
        json::string(out, code);
        out.extend_from_slice(b",\"ei\":");
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
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        let mut text = uuid::Uuid::encode_buffer();
        out.extend_from_slice(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut text).as_bytes());
    }

    /// Appends a line of the log's own.
    pub(crate) fn own(&mut self, out: &mut Vec<u8>, origin: &[u8], own: &Own<'_>) {
        self.envelope(out, own.event, own.code, 0, own.time_us, origin);
        if !own.members.is_empty() {
            out.push(b',');
            out.extend_from_slice(own.members);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Appends the line of a record. `None`, with `out` and the numbering as before, when the record cannot be read.
    pub(crate) fn record(
        &mut self,
        out: &mut Vec<u8>,
        origin: &[u8],
        sessions: &mut Sessions,
        head: &Head,
        body: &mut Cursor<'_>,
    ) -> Option<()> {
        let (from, seq) = (out.len(), self.seq);
        let done = self.try_record(out, origin, sessions, head, body);
        if done.is_none() {
            out.truncate(from);
            self.seq = seq;
        }
        done
    }

    fn try_record(
        &mut self,
        out: &mut Vec<u8>,
        origin: &[u8],
        sessions: &mut Sessions,
        head: &Head,
        body: &mut Cursor<'_>,
    ) -> Option<()> {
        let mut session = sessions.get_mut(&head.session);
        let (event, code, error) = naming(head.kind, body)?;
        self.envelope(out, event, code, head.ei, head.time_us, origin);
        if let Some(session) = &session {
            out.push(b',');
            out.extend_from_slice(&session.line);
        }
        let mut f = Fields { out, clock: &mut self.clock };
        match head.kind {
            kind::START => start(&mut f, error, body, session.as_deref())?,
            kind::END => {
                let numbers = [body.u64()?, body.u64()?, body.u64()?, body.u64()?];
                f.text("reason", body.bytes()?);
                f.time("start_time", numbers[0]);
                f.time("end_time", head.time_us);
                f.number("statements", numbers[1]);
                f.number("bytes_in", numbers[2]);
                f.number("bytes_out", numbers[3]);
            }
            kind::QUERY => {
                f.flag("success", error.is_empty());
                f.text_unless_empty("error", error);
                let st = Text::read(body)?;
                statement(&mut f, &st, "db_query", Some(body), head.ei, session.as_deref_mut())?;
            }
            kind::PARSE => {
                f.text("statement_name", body.bytes()?);
                let st = Text::read(body)?;
                statement(&mut f, &st, "query", None, head.ei, session.as_deref_mut())?;
            }
            kind::BIND => {
                f.text("statement_name", body.bytes()?);
                f.text("portal_name", body.bytes()?);
                f.parameters("parameters", body)?;
            }
            kind::EXECUTE => {
                f.text("portal_name", body.bytes()?);
                let st = Text::read(body)?;
                statement(&mut f, &st, "db_query", Some(body), head.ei, session.as_deref_mut())?;
            }
            kind::CLOSE => {
                let name = if body.flag()? { "portal_name" } else { "statement_name" };
                f.text(name, body.bytes()?);
            }
            kind::FUNCTION => {
                let oid = body.u32()?;
                let error = body.bytes()?;
                if !error.is_empty() {
                    f.flag("success", false);
                    f.text("error", error);
                }
                f.number("function_oid", u64::from(oid));
                f.parameters("function_args", body)?;
            }
            kind::RESULT => result(&mut f, body, session)?,
            kind::MALFORMED => {
                f.text("side", body.bytes()?);
                f.text("rule", body.bytes()?);
                f.base64("payload", body.bytes()?);
            }
            kind::CANCEL => {
                f.flag("matched", body.flag()?);
                f.text("canceller", body.bytes()?);
            }
            kind::TERMINATED => {
                f.text("actor", body.bytes()?);
                f.text("reason", body.bytes()?);
            }
            kind::DISCONNECT => f.text("reason", body.bytes()?),
            kind::REJECTED => {
                f.number("maximum", body.u64()?);
                f.text("reason", body.bytes()?);
            }
            kind::AUTH => {
                f.text("addr.remote", body.bytes()?);
                f.text("db_protocol", body.bytes()?);
                f.flag("success", false);
                f.text("error", body.bytes()?);
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
        out.extend_from_slice(b"}\n");
        Some(())
    }
}

/// Event name, code, and the error text where the kind begins with one.
fn naming<'a>(kind: u8, body: &mut Cursor<'a>) -> Option<(&'a str, &'a str, &'a [u8])> {
    let plain = |event, code| Some((event, code, &b""[..]));
    match kind {
        kind::START => {
            let error = body.bytes()?;
            Some(("db.session.start", if error.is_empty() { "TDB00I" } else { "TDB00W" }, error))
        }
        kind::QUERY => match body.bytes()? {
            b"" => plain("db.session.query", "TDB02I"),
            error => Some(("db.session.query.failed", "TDB02W", error)),
        },
        kind::FUNCTION => {
            // The object id comes first; look ahead without consuming.
            let mut ahead = body.clone();
            ahead.u32()?;
            if ahead.bytes()?.is_empty() {
                plain("db.session.postgres.function", "TPG04I")
            } else {
                plain("db.session.query.failed", "TDB02W")
            }
        }
        kind::OTHER => {
            let event = std::str::from_utf8(body.bytes()?).ok()?;
            let code = std::str::from_utf8(body.bytes()?).ok()?;
            Some((event, code, &b""[..]))
        }
        kind::END => plain("db.session.end", "TDB01I"),
        kind::PARSE => plain("db.session.postgres.statements.parse", "TPG00I"),
        kind::BIND => plain("db.session.postgres.statements.bind", "TPG01I"),
        kind::EXECUTE => plain("db.session.postgres.statements.execute", "TPG02I"),
        kind::CLOSE => plain("db.session.postgres.statements.close", "TPG03I"),
        kind::RESULT => plain("db.session.result", "TDB10I"),
        kind::MALFORMED => plain("db.session.malformed_packet", "TDB06I"),
        kind::CANCEL => plain("db.session.cancel", "TDB20I"),
        kind::TERMINATED => plain("db.session.terminated", "TDB21I"),
        kind::DISCONNECT => plain("client.disconnect", "T3006I"),
        kind::REJECTED => plain("session.rejected", "T1006W"),
        kind::AUTH => plain("auth", "T3007W"),
        _ => None,
    }
}

fn start(f: &mut Fields<'_>, error: &[u8], body: &mut Cursor<'_>, session: Option<&Session>) -> Option<()> {
    f.flag("success", error.is_empty());
    f.text_unless_empty("error", error);
    f.text_unless_empty("message", body.bytes()?);
    f.text("user_agent", body.bytes()?);
    let pid = body.u32()?;
    if pid != 0 {
        let name = if session.is_none_or(|s| s.postgres) { "postgres_pid" } else { "backend_pid" };
        f.number(name, u64::from(pid));
    }
    if let Some(session) = session {
        f.out.push(b',');
        f.out.extend_from_slice(&session.start);
    }
    f.name("startup_parameters");
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

fn result(f: &mut Fields<'_>, body: &mut Cursor<'_>, session: Option<&mut Session>) -> Option<()> {
    let query_ei = body.u32()?;
    let (success, skipped, has_rows) = (body.flag()?, body.flag()?, body.flag()?);
    let (rows, duration, copied) = (body.u64()?, body.u64()?, body.u64()?);
    let (code, error, hash) = (body.bytes()?, body.bytes()?, body.hash()?);
    f.number("query_ei", u64::from(query_ei));
    f.flag("success", success);
    if has_rows {
        f.number("rows", rows);
    }
    f.number("duration_us", duration);
    let masked = session.is_none_or(|s| s.take_masked(query_ei));
    f.text_unless_empty("error_code", code);
    if masked && quotes(error) {
        // A syntax error repeats the text near it, and that text was masked.
        f.text("error", b"***");
        f.flag("masked", true);
    } else {
        f.text_unless_empty("error", error);
    }
    if copied > 0 {
        f.number("copy_bytes", copied);
    }
    // A hash lets a short password be found by trying: masked texts have none.
    if let (Some(hash), false) = (hash, masked) {
        f.hex("query_sha256", hash);
    }
    if skipped {
        f.flag("skipped", true);
    }
    Some(())
}

fn quotes(text: &[u8]) -> bool {
    memchr::memchr2(b'\'', b'"', text).is_some()
}

/// A statement's text as recorded.
struct Text<'a> {
    full: u64,
    hash: Option<&'a [u8]>,
    query_type: &'a [u8],
    text: &'a [u8],
}

impl<'a> Text<'a> {
    fn read(c: &mut Cursor<'a>) -> Option<Self> {
        Some(Self { full: c.u64()?, hash: c.hash()?, query_type: c.bytes()?, text: c.bytes()? })
    }
}

fn statement(
    f: &mut Fields<'_>,
    st: &Text<'_>,
    name: &str,
    parameters: Option<&mut Cursor<'_>>,
    ei: u32,
    session: Option<&mut Session>,
) -> Option<()> {
    let truncated = st.full > st.text.len() as u64;
    // A cut text may end inside a character; what is left of it is not a reason to call the whole text binary.
    let mut text = st.text;
    if truncated
        && let Err(e) = std::str::from_utf8(text)
        && e.error_len().is_none()
    {
        text = &text[..e.valid_up_to()];
    }
    let masked = mask::mask(text);
    f.name(name);
    if !json::bytes(f.out, &masked, "") {
        f.out.extend_from_slice(b",\"encoding\":\"base64\"");
    }
    let was_masked = matches!(masked, std::borrow::Cow::Owned(_));
    if let Some(parameters) = parameters {
        f.parameters("db_query_parameters", parameters)?;
    }
    f.text_unless_empty("query_type", st.query_type);
    f.flag("truncated", truncated);
    if truncated {
        f.number("query_bytes", st.full);
        if let (Some(hash), false) = (st.hash, was_masked) {
            f.hex("query_sha256", hash);
        }
    }
    if was_masked {
        f.flag("masked", true);
        if let Some(session) = session {
            session.note_masked(ei);
        }
    }
    Some(())
}

/// Appends members, each behind a comma.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    clock: &'a mut json::Clock,
}

impl Fields<'_> {
    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
    fn number(&mut self, name: &str, v: u64) {
        self.name(name);
        json::number(self.out, v);
    }
    fn flag(&mut self, name: &str, v: bool) {
        self.name(name);
        self.out.extend_from_slice(if v { b"true" } else { b"false" });
    }
    fn text(&mut self, name: &str, v: &[u8]) {
        self.name(name);
        json::bytes(self.out, v, "base64:");
    }
    fn text_unless_empty(&mut self, name: &str, v: &[u8]) {
        if !v.is_empty() {
            self.text(name, v);
        }
    }
    fn base64(&mut self, name: &str, v: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        json::base64(self.out, v);
        self.out.push(b'"');
    }
    fn hex(&mut self, name: &str, v: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        json::hex(self.out, v);
        self.out.push(b'"');
    }
    fn time(&mut self, name: &str, us: u64) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(self.clock.format(us));
        self.out.push(b'"');
    }

    fn parameters(&mut self, name: &str, c: &mut Cursor<'_>) -> Option<()> {
        self.name(name);
        self.out.push(b'[');
        let mut first = true;
        loop {
            let kind = c.u8()?;
            if kind == parameter::END {
                break;
            }
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match kind {
                parameter::NULL => self.out.extend_from_slice(b"null"),
                parameter::TEXT => {
                    json::bytes(self.out, c.bytes()?, "base64:");
                }
                parameter::BINARY => {
                    self.out.extend_from_slice(b"\"base64:");
                    json::base64(self.out, c.bytes()?);
                    self.out.push(b'"');
                }
                parameter::INT => {
                    let v = c.u64()? as i64;
                    if v < 0 {
                        self.out.push(b'-');
                    }
                    json::number(self.out, v.unsigned_abs());
                }
                parameter::FLOAT => float(self.out, f64::from_bits(c.u64()?)),
                parameter::BOOL => self.out.extend_from_slice(if c.flag()? { b"true" } else { b"false" }),
                parameter::TYPE => {
                    self.out.extend_from_slice(b"{\"type\":");
                    json::number(self.out, u64::from(c.u32()?));
                    self.out.push(b'}');
                }
                parameter::CUT => {
                    self.out.extend_from_slice(b"{\"cut_bytes\":");
                    json::number(self.out, c.u64()?);
                    self.out.push(b'}');
                }
                _ => return None,
            }
        }
        self.out.push(b']');
        Some(())
    }
}

/// A JSON number; what JSON has no number for is a string.
fn float(out: &mut Vec<u8>, v: f64) {
    use std::io::Write as _;
    let written = if v.is_finite() { write!(out, "{v:?}") } else { write!(out, "\"{v}\"") };
    debug_assert!(written.is_ok(), "a Vec takes every byte");
}
