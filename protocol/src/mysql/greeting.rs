//! `Protocol::HandshakeV10`: what a server says first, read from the database and said to clients.

use crate::wire::Reader;

use super::capability::{self, Flags};
use super::head::{HEAD, begin, finish, u16_le, u32_le};

/// The version told to clients while nothing was learnt.
const VERSION_UNKNOWN: &str = "8.0.40-ringgate";
/// The longest version told or believed, in bytes.
const VERSION_BYTES_MAX: usize = 128;
/// Bytes of the random part of a greeting.
pub(super) const NONCE: usize = 20;

pub(super) const NATIVE: &str = "mysql_native_password";
pub(super) const CACHING_SHA2: &str = "caching_sha2_password";

/// What a server said of itself when it last let us in. Greetings to clients are made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlServer {
    version: String,
    capabilities: Flags,
    collation: u8,
}

impl MysqlServer {
    /// A server of which nothing is known: a recent version, and the capabilities that every server has.
    pub fn unknown() -> Self {
        MysqlServer { version: VERSION_UNKNOWN.to_owned(), capabilities: capability::KNOWN_TO_ALL, collation: 45 }
    }

    /// The version as the server spells it, `5.5.5-10.11.6-MariaDB` for one.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The same server under another version (`spec.mysql.server_version`). Control characters are left
    /// out, and of the rest at most 128 bytes are kept.
    #[must_use]
    pub fn with_version(mut self, version: &str) -> Self {
        self.version = printable(version);
        self
    }

    /// What stands for both where a listener does not know yet which of them a client will reach: the
    /// version of `self`, unless the other's is lower, and the capabilities that both have.
    #[must_use]
    pub fn and(mut self, other: &MysqlServer) -> Self {
        if numbers(&other.version) < numbers(&self.version) {
            self.version.clone_from(&other.version);
        }
        let both_mariadb = self.is_mariadb() && other.is_mariadb();
        self.capabilities &= other.capabilities;
        if !both_mariadb {
            self.capabilities |= capability::LONG_PASSWORD;
            self.capabilities &= 0xffff_ffff;
        }
        self
    }

    /// Whether it is MariaDB.
    pub fn is_mariadb(&self) -> bool {
        capability::is_mariadb(self.capabilities)
    }

    pub(super) const fn capabilities(&self) -> Flags {
        self.capabilities
    }

    /// The plugin that its clients are used to.
    pub(super) fn plugin(&self) -> &'static str {
        if self.is_mariadb() { NATIVE } else { CACHING_SHA2 }
    }
}

/// The numbers of a version, without the prefix that MariaDB hides behind.
fn numbers(version: &str) -> [u32; 3] {
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = version.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

fn printable(version: &str) -> String {
    let clean: String = version.chars().filter(|letter| !letter.is_control()).collect();
    clean[..clean.floor_char_boundary(clean.len().min(VERSION_BYTES_MAX))].to_owned()
}

/// Appends a greeting.
///
/// Spec: "Protocol::HandshakeV10"; MariaDB's upper capabilities stand at the end of the reserved bytes.
pub(super) fn write(server: &MysqlServer, offered: Flags, pid: u32, nonce: &[u8; NONCE], out: &mut Vec<u8>) {
    let start = begin(out, 0);
    let flags = offered.to_le_bytes();
    out.push(10);
    out.extend_from_slice(server.version.as_bytes());
    out.push(0);
    out.extend_from_slice(&pid.to_le_bytes());
    out.extend_from_slice(&nonce[..8]);
    out.push(0);
    out.extend_from_slice(&flags[..2]);
    out.push(server.collation);
    out.extend_from_slice(&super::backend::AUTOCOMMIT.to_le_bytes());
    out.extend_from_slice(&flags[2..4]);
    out.push(NONCE as u8 + 1);
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&flags[4..]);
    out.extend_from_slice(&nonce[8..]);
    out.push(0);
    out.extend_from_slice(server.plugin().as_bytes());
    out.push(0);
    finish(out, start);
}

/// A nonce of printable bytes, as servers make them: no zero, which would end it, and no `$`.
pub(super) fn nonce(seed: &[u8]) -> [u8; NONCE] {
    let mut nonce = [b'x'; NONCE];
    for (at, byte) in nonce.iter_mut().zip(seed) {
        *at = match byte & 0x7f {
            0..=0x20 | b'$' | 0x7f => (byte & 0x1f) | 0x40,
            other => other,
        };
    }
    nonce
}

/// A greeting read from a database.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub(super) server: MysqlServer,
    pub(super) connection: u32,
    pub(super) nonce: Vec<u8>,
    pub(super) plugin: Vec<u8>,
}

/// Reads a greeting. `None` when it is not one of protocol 10 with the parts that 4.1 brought.
pub(super) fn read(packet: &[u8]) -> Option<Greeting> {
    let mut reader = Reader::new(packet.get(HEAD..)?);
    if reader.u8()? != 10 {
        return None;
    }
    let version = std::str::from_utf8(reader.cstr()?).ok()?;
    let connection = u32_le(&mut reader)?;
    let mut nonce = reader.take(8)?.to_vec();
    reader.u8()?;
    let low = u16_le(&mut reader)?;
    let collation = reader.u8()?;
    u16_le(&mut reader)?;
    let high = u16_le(&mut reader)?;
    let nonce_len = usize::from(reader.u8()?);
    reader.take(6)?;
    let extended = u32_le(&mut reader)?;
    let mut capabilities = Flags::from(low) | Flags::from(high) << 16;
    if capability::is_mariadb(capabilities) {
        capabilities |= Flags::from(extended) << 32;
    }
    if capabilities & capability::PROTOCOL_41 == 0 || capabilities & capability::SECURE_CONNECTION == 0 {
        return None;
    }
    let second = reader.take(nonce_len.saturating_sub(8).max(13))?;
    nonce.extend_from_slice(second.strip_suffix(&[0]).unwrap_or(second));
    // The name's zero byte was forgotten by some versions.
    let plugin = if capabilities & capability::PLUGIN_AUTH == 0 {
        NATIVE.as_bytes()
    } else {
        reader.cstr().unwrap_or_else(|| reader.rest())
    };
    let server = MysqlServer { version: printable(version), capabilities, collation };
    Some(Greeting { server, connection, nonce, plugin: plugin.to_vec() })
}
