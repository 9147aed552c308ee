//! The front of a client connection: TLS request, cancel request, StartupMessage.

use std::collections::HashSet;

use crate::wire::Reader;
use crate::{Fault, FaultKind, Opened, Opening, Side, Startup};

use super::error::{fault, malformed};

/// The longest StartupMessage, as in the server (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_BYTES_MAX: u32 = 10_000;
/// PostgreSQL keeps this much of a name (`NAMEDATALEN` less one).
pub(super) const NAME_BYTES_MAX: usize = 63;

const CANCEL_REQUEST: u32 = 80_877_102;
pub(super) const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// Protocol 3.0 as a version code.
pub(super) const VERSION_3_0: u32 = 3 << 16;
/// Protocol 3.2 as a version code: the newest we speak.
pub(super) const VERSION_3_2: u32 = VERSION_3_0 | 2;

/// First byte of a TLS record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Reads a client up to its StartupMessage.
#[derive(Debug, Default)]
pub struct PostgresOpening {
    /// TLS is not to be had here: the channel is trusted already.
    plain: bool,
    asked_tls: bool,
    asked_gss: bool,
    asked: Asked,
    fault: Option<Fault>,
}

/// What the StartupMessage said, kept for the [`super::PostgresLogin`] and the [`super::PostgresMachine`].
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The version code asked for. 0 before the StartupMessage.
    pub(super) version: u32,
    /// Protocol options (`_pq_.*`), which we do not know.
    pub(super) options: Vec<String>,
    /// Parameters to hand on, without `user`, `database` and the options.
    pub(super) parameters: Vec<(String, String)>,
    /// A replication session.
    pub(super) replication: bool,
}

impl PostgresOpening {
    /// What the StartupMessage said.
    pub(super) const fn asked(&self) -> &Asked {
        &self.asked
    }

    fn front<'a>(&mut self, input: &'a [u8], tls: bool, out: &mut Vec<u8>) -> Result<Opened<'a>, Fault> {
        if self.asked.version != 0 {
            return Err(fault(Side::Client, FaultKind::OutOfOrder, "second startup message"));
        }
        let Some(&first) = input.first() else { return Ok(Opened::Need { need: 1 }) };
        if first == TLS_HANDSHAKE && !tls && !self.plain && !self.asked_tls {
            return Ok(Opened::DirectTls);
        }
        // Every length allowed begins with a zero byte: another protocol is recognised at once.
        if first != 0 {
            return Err(malformed("not a PostgreSQL startup message"));
        }
        let mut reader = Reader::new(input);
        let Some(length) = reader.u32() else { return Ok(Opened::Need { need: 8 }) };
        if length < 8 {
            return Err(malformed("startup message too short"));
        }
        if length > STARTUP_BYTES_MAX {
            return Err(fault(Side::Client, FaultKind::TooLarge, "startup message too long"));
        }
        let Some(code) = reader.u32() else { return Ok(Opened::Need { need: 8 }) };
        let len = length as usize;
        match code {
            SSL_REQUEST | GSSENC_REQUEST => self.encryption(code, len, tls, out),
            CANCEL_REQUEST => cancel(input, len),
            _ if code >> 16 != 3 => {
                Err(fault(Side::Client, FaultKind::Unsupported, "unsupported frontend protocol version"))
            }
            _ if !tls && !self.plain => Err(fault(Side::Client, FaultKind::Denied, "TLS is required")),
            _ => {
                let Some(frame) = input.get(..len) else { return Ok(Opened::Need { need: len }) };
                let startup = self.startup(code, &frame[8..])?;
                Ok(Opened::Startup { len, startup })
            }
        }
    }

    fn encryption<'a>(&mut self, code: u32, len: usize, tls: bool, out: &mut Vec<u8>) -> Result<Opened<'a>, Fault> {
        if len != 8 {
            return Err(malformed("encryption request of wrong length"));
        }
        let asked = if code == SSL_REQUEST { &mut self.asked_tls } else { &mut self.asked_gss };
        if tls || *asked {
            return Err(fault(Side::Client, FaultKind::OutOfOrder, "encryption asked for twice"));
        }
        *asked = true;
        if code == SSL_REQUEST && !self.plain {
            out.push(b'S');
            return Ok(Opened::StartTls { len });
        }
        out.push(b'N');
        Ok(Opened::Answered { len })
    }

    /// Reads the parameters of a StartupMessage.
    ///
    /// Spec: "Message Formats", StartupMessage. Bounds: at most [`STARTUP_BYTES_MAX`], checked before.
    /// Errors: `Malformed` unless the pairs fill `body` exactly, are UTF-8, and no name comes twice in any
    /// case of letters, because the two ends might choose differently; `Denied` for names that the server
    /// would cut.
    fn startup<'a>(&mut self, version: u32, body: &'a [u8]) -> Result<Startup<'a>, Fault> {
        let mut asked = Asked { version, ..Asked::default() };
        let mut startup =
            Startup { user: "", database: "", user_agent: "", replication: false, parameters: Vec::new() };
        let mut seen = HashSet::new();
        let mut reader = Reader::new(body);
        loop {
            let name = reader.cstr().ok_or(malformed("startup parameter without end"))?;
            if name.is_empty() {
                break;
            }
            let value = reader.cstr().ok_or(malformed("startup parameter without end"))?;
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(malformed("startup parameter given twice"));
            }
            let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
                return Err(malformed("startup parameter is not UTF-8"));
            };
            match name {
                "user" => startup.user = value,
                "database" => startup.database = value,
                _ => {
                    startup.parameters.push((name, value));
                    if name == "replication" {
                        startup.replication = replication(value)?;
                        // Switched off is the same as never mentioned.
                        if !startup.replication {
                            continue;
                        }
                    }
                    if name == "application_name" {
                        startup.user_agent = value;
                    }
                    if name.starts_with("_pq_.") {
                        asked.options.push(name.to_owned());
                    } else {
                        asked.parameters.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        if !reader.is_empty() {
            return Err(malformed("bytes after the last startup parameter"));
        }
        if startup.user.is_empty() {
            return Err(fault(Side::Client, FaultKind::Denied, "no user name in the startup message"));
        }
        if startup.database.is_empty() {
            startup.database = startup.user;
        }
        if startup.user.len() > NAME_BYTES_MAX || startup.database.len() > NAME_BYTES_MAX {
            return Err(fault(Side::Client, FaultKind::Denied, "user or database name longer than 63 bytes"));
        }
        asked.replication = startup.replication;
        self.asked = asked;
        Ok(startup)
    }
}

impl Opening for PostgresOpening {
    fn start(&mut self, _out: &mut Vec<u8>) {}

    fn offer_no_tls(&mut self) {
        self.plain = true;
    }

    fn handle<'a>(&mut self, input: &'a [u8], tls: bool, out: &mut Vec<u8>) -> Result<Opened<'a>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let opened = self.front(input, tls, out);
        self.fault = opened.as_ref().err().copied();
        opened
    }
}

/// Spec: "Message Formats", CancelRequest; 3.2 allows secrets of up to 256 bytes.
fn cancel(input: &[u8], len: usize) -> Result<Opened<'_>, Fault> {
    if !(16..=268).contains(&len) {
        return Err(malformed("cancel request of wrong length"));
    }
    let Some(frame) = input.get(..len) else { return Ok(Opened::Need { need: len }) };
    let mut reader = Reader::new(&frame[8..]);
    let pid = reader.u32().ok_or(malformed("cancel request of wrong length"))?;
    Ok(Opened::Cancel { len, pid, secret: reader.rest() })
}

/// Reads the value as the server does: `database`, or the prefixes its `parse_bool` takes.
fn replication(value: &str) -> Result<bool, Fault> {
    if value == "database" {
        return Ok(true);
    }
    let value = value.to_ascii_lowercase();
    let short_for = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if short_for("true", 1) || short_for("yes", 1) || value == "on" || value == "1" {
        Ok(true)
    } else if short_for("false", 1) || short_for("no", 1) || short_for("off", 2) || value == "0" {
        Ok(false)
    } else {
        Err(malformed("replication is neither a switch nor `database`"))
    }
}
