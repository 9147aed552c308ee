//! ErrorResponse: written for the client, read from the database.

use crate::wire::Reader;
use crate::{Fault, FaultKind, Refusal, RefusalKind, Side};

/// The longest refusal that is kept or sent, in bytes of text over all its fields.
const REFUSAL_TEXT_MAX: usize = 1024;

/// Whether the session survives an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error,
    Fatal,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// The SQLSTATE of each case (protocol-notes 1.5).
pub(super) const fn sqlstate(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::NotAuthorized | RefusalKind::NotSignedIn => "28000",
        RefusalKind::Denied => "42501",
        RefusalKind::TooManyConnections => "53300",
        RefusalKind::UnknownDatabase => "3D000",
        RefusalKind::Unreachable => "08001",
        RefusalKind::CannotConnectNow => "57P03",
        RefusalKind::Terminated => "57P01",
        RefusalKind::Idle => "57P05",
        RefusalKind::ProtocolViolation => "08P01",
        RefusalKind::Unsupported => "0A000",
        RefusalKind::TooLarge => "08P01",
        RefusalKind::AuditUnavailable => "58030",
        RefusalKind::Internal => "XX000",
    }
}

/// Writes an ErrorResponse that ends the session.
pub(super) fn fatal(refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    error_response(Severity::Fatal, refusal, out);
}

/// Writes an ErrorResponse that fails one statement.
pub(super) fn error(refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    error_response(Severity::Error, refusal, out);
}

/// Spec: "Message Formats", ErrorResponse; "Error and Notice Message Fields" S, V, C, M, D, H.
fn error_response(severity: Severity, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"E\0\0\0\0");
    let mut room = REFUSAL_TEXT_MAX;
    field(out, b'S', severity.word(), &mut room);
    field(out, b'V', severity.word(), &mut room);
    field(out, b'C', sqlstate(refusal.kind), &mut room);
    field(out, b'M', if refusal.message.is_empty() { "refused" } else { refusal.message }, &mut room);
    for (code, text) in [(b'D', refusal.detail), (b'H', refusal.hint)] {
        if !text.is_empty() {
            field(out, code, text, &mut room);
        }
    }
    out.push(0);
    finish(out, start);
}

/// Writes the length of the frame that began at `start` with a tag and four zero bytes.
pub(super) fn finish(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

/// A NUL would end the string early and shift every field behind it, so none gets through.
fn field(out: &mut Vec<u8>, code: u8, text: &str, room: &mut usize) {
    let text = &text[..text.floor_char_boundary(text.len().min(*room))];
    *room -= text.len();
    out.push(code);
    out.extend(text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
    out.push(0);
}

/// The fields of a database's ErrorResponse that we look at. Missing ones are empty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorFields<'a> {
    /// `V`, or `S` where the server is too old to send `V`.
    pub(super) severity: &'a [u8],
    /// `C`.
    pub(super) code: &'a [u8],
    /// `M`.
    pub(super) message: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads as many fields of `body` as are whole. Never fails: every field is optional to us, and the
    /// frame may be cut.
    pub(super) fn read(body: &'a [u8]) -> Self {
        let mut fields = ErrorFields::default();
        let mut reader = Reader::new(body);
        while let Some(code) = reader.u8() {
            if code == 0 {
                break;
            }
            let text = match reader.cstr() {
                Some(text) => text,
                // The frame was cut within this field: what is there is still worth recording.
                None if code == b'M' => reader.rest(),
                None => break,
            };
            match code {
                b'V' => fields.severity = text,
                b'S' if fields.severity.is_empty() => fields.severity = text,
                b'C' => fields.code = text,
                b'M' => fields.message = text,
                _ => {}
            }
        }
        fields
    }

    /// Whether the server ends the connection after it.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
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
