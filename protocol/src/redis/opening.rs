//! The front of a client connection: TLS, and enough of the first command to know that it is Redis.

use crate::{Fault, FaultKind, Opened, Opening, Side, Startup};

use super::resp::integer;
use super::scan::{Broken, LINE_MAX};

/// The most bytes of an argument before a client is signed in, as the server has it.
pub(super) const BULK_MAX: i64 = 16 * 1024;
/// The first byte of a TLS record that holds a ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;

/// Reads a client up to the name of its first command, and consumes nothing: the session machine sees every byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisOpening {
    may_be_plain: bool,
    fault: Option<Fault>,
}

const fn fault(kind: FaultKind, what: &'static str) -> Fault {
    Fault { side: Side::Client, kind, what }
}

const fn broken(broken: Broken) -> Fault {
    fault(FaultKind::Malformed, broken.text())
}

/// Whether a word that browsers begin a request with stands where a command should.
pub(super) fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"HOST:")
}

/// The fault of a browser.
pub(super) const HTTP: Fault = fault(FaultKind::Malformed, "an HTTP request instead of a Redis command");

impl Opening for RedisOpening {
    fn start(&mut self, _out: &mut Vec<u8>) {}

    fn offer_no_tls(&mut self) {
        self.may_be_plain = true;
    }

    fn handle<'a>(&mut self, input: &'a [u8], tls: bool, _out: &mut Vec<u8>) -> Result<Opened<'a>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let looked = match input.first() {
            None => Ok(Look::Need(1)),
            Some(&TLS_HANDSHAKE) if !tls => return Ok(Opened::DirectTls),
            Some(_) if !tls && !self.may_be_plain => Err(fault(FaultKind::Denied, "TLS is required")),
            Some(b'*') => array(input),
            Some(_) => line(input),
        };
        match looked {
            Ok(Look::Need(need)) => Ok(Opened::Need { need }),
            Ok(Look::Enough) => Ok(Opened::Startup {
                len: 0,
                startup: Startup { user: "", database: "", user_agent: "", replication: false, parameters: Vec::new() },
            }),
            Err(fault) => {
                self.fault = Some(fault);
                Err(fault)
            }
        }
    }
}

enum Look {
    Need(usize),
    Enough,
}

/// The name of a command in an array.
fn array(input: &[u8]) -> Result<Look, Fault> {
    let (count, next) = match number(input, 0) {
        Some((text, next)) => (integer(text), next),
        None if input.len() > 64 => return Err(broken(Broken::MultibulkLength)),
        None => return Ok(Look::Need(input.len() + 1)),
    };
    match count {
        Some(count) if count <= 0 => return Ok(Look::Enough),
        Some(count) if i32::try_from(count).is_ok() => {}
        _ => return Err(broken(Broken::MultibulkLength)),
    }
    let Some((text, body)) = number(input, next) else {
        return if input.len() > next + 64 { Err(broken(Broken::BulkLength)) } else { Ok(Look::Need(input.len() + 1)) };
    };
    if input.get(next) != Some(&b'$') {
        return Err(broken(Broken::ExpectedDollar(0)));
    }
    let len = match integer(text) {
        Some(len) if len > BULK_MAX => {
            return Err(fault(FaultKind::TooLarge, "Protocol error: unauthenticated bulk length"));
        }
        len => len.and_then(|len| usize::try_from(len).ok()).ok_or(broken(Broken::BulkLength))?,
    };
    match input.get(body..body + len) {
        None => Ok(Look::Need(body + len)),
        Some(name) if is_http(name) => Err(HTTP),
        Some(_) => Ok(Look::Enough),
    }
}

/// The text of the head at `at`, and what follows the head.
pub(super) fn number(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(at..)?;
    let end = memchr::memchr(b'\r', rest)?;
    (end + 2 <= rest.len()).then(|| (rest.get(1..end).unwrap_or_default(), at + end + 2))
}

/// An inline command.
fn line(input: &[u8]) -> Result<Look, Fault> {
    let end = memchr::memchr(b'\n', input);
    let words = input.get(..end.unwrap_or(input.len())).unwrap_or_default();
    let name = words.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    match end {
        // A browser's first word is enough.
        _ if is_http(name) && name.len() < words.len() => Err(HTTP),
        Some(_) => Ok(Look::Enough),
        None if input.len() > LINE_MAX => Err(broken(Broken::BigInline)),
        None => Ok(Look::Need(input.len() + 1)),
    }
}
