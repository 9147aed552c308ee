//! Refusals as error replies.

use crate::{Refusal, RefusalKind};

use super::resp::write_line;

/// Appends `-<code> <text>\r\n`.
pub(super) fn error(code: &str, text: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'-');
    out.extend_from_slice(code.as_bytes());
    out.push(b' ');
    for part in text {
        write_line(part, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The refusal of one command.
pub(super) fn command(refusal: &Refusal<'_>, is_authentication: bool, out: &mut Vec<u8>) {
    let message = refusal.message.as_bytes();
    match refusal.kind {
        RefusalKind::Denied | RefusalKind::NotAuthorized if is_authentication => {
            error("WRONGPASS", &[b"invalid username-password pair or user is disabled."], out);
        }
        _ => session(refusal.kind, message, b"", out),
    }
}

/// The last words of a session.
pub(super) fn ending(refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    session(refusal.kind, refusal.message.as_bytes(), refusal.hint.as_bytes(), out);
}

/// What a server that knows no HELLO says to `HELLO 3`: client libraries then go on with RESP2.
pub(super) fn unknown_hello(out: &mut Vec<u8>) {
    error("ERR", &[UNKNOWN_HELLO.as_bytes()], out);
}

/// See [`unknown_hello`].
pub(super) const UNKNOWN_HELLO: &str = "unknown command 'HELLO', with args beginning with: '3' ";

fn session(kind: RefusalKind, message: &[u8], hint: &[u8], out: &mut Vec<u8>) {
    let (open, close): (&[u8], &[u8]) = if hint.is_empty() { (b"", b"") } else { (b" (", b")") };
    match kind {
        RefusalKind::Denied | RefusalKind::NotAuthorized => error("NOPERM", &[message, open, hint, close], out),
        RefusalKind::NotSignedIn => error("NOAUTH", &[message], out),
        RefusalKind::TooManyConnections => error("ERR", &[b"max number of clients reached"], out),
        // The server's own words, which clients compare.
        RefusalKind::ProtocolViolation if message.starts_with(b"Protocol error") => error("ERR", &[message], out),
        RefusalKind::Unreachable => {
            error("ERR", &[b"ringgate: backend unavailable: ", message, open, hint, close], out);
        }
        _ => error("ERR", &[b"ringgate: ", message, open, hint, close], out),
    }
}
