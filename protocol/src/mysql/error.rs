//! ERR packets: written for the client, read from the database.

use crate::wire::Reader;
use crate::{Fault, FaultKind, Refusal, RefusalKind, Side};

use super::head::{HEAD, begin, finish};

/// The longest message of an ERR packet, as in the server (`MYSQL_ERRMSG_SIZE`).
const MESSAGE_MAX: usize = 512;

/// Which codes a client knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// It knows 4031, `ER_CLIENT_INTERACTION_TIMEOUT` (8.0.24).
    pub(super) knows_timeout: bool,
}

/// Code and SQLSTATE of each case (protocol-notes 2.6).
pub(super) const fn code(kind: RefusalKind, dialect: Dialect) -> (u16, &'static str) {
    match kind {
        RefusalKind::NotAuthorized | RefusalKind::NotSignedIn => (1045, "28000"),
        RefusalKind::Denied => DENIED,
        RefusalKind::TooManyConnections => (1040, "08004"),
        RefusalKind::UnknownDatabase => (1049, "42000"),
        RefusalKind::Unreachable | RefusalKind::AuditUnavailable | RefusalKind::Internal => (1105, "HY000"),
        RefusalKind::Terminated | RefusalKind::Idle if dialect.knows_timeout => (4031, "HY000"),
        RefusalKind::CannotConnectNow | RefusalKind::Terminated | RefusalKind::Idle => (1053, "08S01"),
        RefusalKind::ProtocolViolation => (1835, "HY000"),
        RefusalKind::Unsupported => (1235, "42000"),
        RefusalKind::TooLarge => (1153, "08S01"),
    }
}

/// `ER_UNKNOWN_COM_ERROR`: the code of a command that is not served.
pub(super) const UNKNOWN_COMMAND: (u16, &str) = (1047, "08S01");
/// `ER_ACCESS_DENIED_ERROR`.
pub(super) const ACCESS_DENIED: (u16, &str) = (1045, "28000");
/// `ER_DBACCESS_DENIED_ERROR`.
pub(super) const DATABASE_DENIED: (u16, &str) = (1044, "42000");

/// `ER_TABLEACCESS_DENIED_ERROR`: the code of a statement refused by policy.
pub(super) const DENIED: (u16, &str) = (1142, "42000");
/// `ER_SPECIFIC_ACCESS_DENIED_ERROR`: the code of an administrative command refused by policy.
pub(super) const PRIVILEGE_MISSING: (u16, &str) = (1227, "42000");

/// Appends a whole ERR packet.
///
/// Spec: "ERR_Packet", with CLIENT_PROTOCOL_41.
pub(super) fn packet(sequence: u8, (code, state): (u16, &str), text: &[&str], out: &mut Vec<u8>) {
    let start = begin(out, sequence);
    out.push(0xff);
    out.extend_from_slice(&code.to_le_bytes());
    out.push(b'#');
    out.extend_from_slice(state.as_bytes());
    let mut room = MESSAGE_MAX;
    for text in text {
        let text = &text[..text.floor_char_boundary(text.len().min(room))];
        room -= text.len();
        out.extend(text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
    }
    finish(out, start);
}

/// Appends a refusal as an ERR packet: its message, then why, then what to do.
pub(super) fn refusal(sequence: u8, code: (u16, &str), refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    let message = if refusal.message.is_empty() { "refused" } else { refusal.message };
    let detail = if refusal.detail.is_empty() { "" } else { ": " };
    let hint = if refusal.hint.is_empty() { "" } else { "; " };
    packet(sequence, code, &[message, detail, refusal.detail, hint, refusal.hint], out);
}

/// What a database's ERR packet says. A missing part is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorParts<'a> {
    pub(super) code: u16,
    /// Five bytes, or none where the server did not know yet that the client understands them.
    pub(super) state: &'a [u8],
    pub(super) message: &'a [u8],
}

impl<'a> ErrorParts<'a> {
    /// Reads the packet, or its front. `None` when it is not even long enough for a code.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(packet.get(HEAD + 1..)?);
        let code = super::head::u16_le(&mut reader)?;
        let rest = reader.rest();
        if rest.first() == Some(&b'#')
            && let Some((state, message)) = rest[1..].split_at_checked(5)
        {
            return Some(ErrorParts { code, state, message });
        }
        Some(ErrorParts { code, state: &[], message: rest })
    }
}

/// A client that sent what cannot be decoded.
pub(super) const fn malformed(what: &'static str) -> Fault {
    Fault { side: Side::Client, kind: FaultKind::Malformed, what }
}

/// A fault of any other kind.
pub(super) const fn fault(side: Side, kind: FaultKind, what: &'static str) -> Fault {
    Fault { side, kind, what }
}
