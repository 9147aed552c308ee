//! The front of a client connection: our greeting, `SSLRequest`, `HandshakeResponse41`.

use std::sync::Arc;

use crate::wire::Reader;
use crate::{Fault, FaultKind, Opened, Opening, Refusal, Side, Startup};

use super::capability::{self, Flags};
use super::client::OUR_IDS;
use super::error::{self, Dialect, fault, malformed};
use super::greeting::{self, MysqlServer, NONCE};
use super::head::{HEAD, head, lenenc, lenenc_bytes, u32_le};

/// The longest HandshakeResponse41, head included. Connect attributes are the most of it.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// Body of an SSLRequest: the front of a HandshakeResponse41 up to the user name.
const SSL_REQUEST_BODY: usize = 32;
/// The longest user name in characters: MySQL's, and MariaDB's (`USERNAME_CHAR_LENGTH`).
const USER_CHARS_MAX: (usize, usize) = (32, 128);
/// The longest database name in characters (`NAME_CHAR_LEN`).
pub(super) const DATABASE_CHARS_MAX: usize = 64;
/// The most connect attributes looked at.
const ATTRIBUTES_MAX: usize = 64;

/// Reads a client up to its HandshakeResponse41, after our greeting.
#[derive(Debug)]
pub struct MysqlOpening {
    server: MysqlServer,
    id: u32,
    nonce: [u8; NONCE],
    local_files: bool,
    /// TLS is not to be had here: the channel is trusted already.
    plain: bool,
    greeted: bool,
    asked_tls: bool,
    /// The sequence id of what is said or heard next.
    sequence: u8,
    asked: Asked,
    fault: Option<Fault>,
}

/// What the HandshakeResponse41 said, kept for the [`super::MysqlLogin`] and the [`super::MysqlMachine`].
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// It was read.
    pub(super) read: bool,
    /// What both sides of the session will have.
    pub(super) agreed: Flags,
    pub(super) collation: u8,
    pub(super) packet_bytes_max: u32,
    pub(super) user: String,
    /// Connect attributes as they came, without their length.
    pub(super) attributes: Vec<u8>,
    pub(super) dialect: Dialect,
    pub(super) proof: Proof,
}

/// What a client's authentication plugin must hear before it takes our OK: nothing is proved by it here,
/// the certificate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing: it has said all it wants to.
    #[default]
    Done,
    /// `01 03`: a caching_sha2_password client that sent a scramble takes a bare OK for an error.
    WantsFastOk,
    /// An exchange we do not lead: it is asked to change to a plugin that we do.
    WantsSwitch,
}

impl Proof {
    /// What the plugin `name` is left waiting for once it has sent `response`.
    pub(super) fn of(name: &[u8], response: &[u8]) -> Proof {
        match name {
            b"" | b"mysql_native_password" | b"mysql_clear_password" => Proof::Done,
            // Without a password it sends nothing, or a zero byte.
            b"caching_sha2_password" if matches!(response, b"" | b"\0") => Proof::Done,
            b"caching_sha2_password" => Proof::WantsFastOk,
            _ => Proof::WantsSwitch,
        }
    }
}

impl MysqlOpening {
    /// Greets with what all of `learned` can do. Connection id and nonce are made of `seed`.
    pub(super) fn new(learned: &[Arc<MysqlServer>], seed: &[u8; 32]) -> Self {
        let server = learned.split_first().map_or_else(MysqlServer::unknown, |(first, others)| {
            others.iter().fold(MysqlServer::clone(first), |all, other| all.and(other))
        });
        let [a, b, c, d] = *seed.last_chunk::<4>().unwrap_or(&[0; 4]);
        MysqlOpening {
            server,
            // From 2^31 up, so that it cannot be taken for one of the database's.
            id: OUR_IDS | u32::from_le_bytes([a, b, c, d]),
            nonce: greeting::nonce(seed),
            local_files: false,
            plain: false,
            greeted: false,
            asked_tls: false,
            sequence: 0,
            asked: Asked::default(),
            fault: None,
        }
    }

    /// The connection id that the greeting tells.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// What the HandshakeResponse41 said.
    pub(super) const fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The sequence id of what the client is told next.
    pub(super) const fn sequence(&self) -> u8 {
        self.sequence
    }

    pub(super) const fn nonce(&self) -> &[u8; NONCE] {
        &self.nonce
    }

    pub(super) fn plugin(&self) -> &'static str {
        self.server.plugin()
    }

    /// A refusal that the client understands where it stands.
    pub(super) fn refuse(&mut self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        let sequence = if self.greeted { self.sequence } else { 0 };
        // Here `Denied` is about the whole session, not about a statement.
        let code = match refusal.kind {
            crate::RefusalKind::Denied => error::ACCESS_DENIED,
            kind => error::code(kind, self.asked.dialect),
        };
        error::refusal(sequence, code, refusal, out);
    }

    fn offered(&self) -> Flags {
        capability::offered(self.server.capabilities(), !self.plain, self.local_files)
    }

    fn front<'a>(&mut self, input: &'a [u8], tls: bool) -> Result<Opened<'a>, Fault> {
        if self.asked.read {
            return Err(fault(Side::Client, FaultKind::OutOfOrder, "message before the sign-in was answered"));
        }
        let Some(front) = head(input) else { return Ok(Opened::Need { need: HEAD }) };
        if front.sequence != self.sequence {
            return Err(fault(Side::Client, FaultKind::OutOfOrder, "packet out of order"));
        }
        if front.packet() > RESPONSE_BYTES_MAX {
            return Err(fault(Side::Client, FaultKind::TooLarge, "handshake response too long"));
        }
        if front.body < SSL_REQUEST_BODY {
            return Err(malformed("handshake response too short"));
        }
        let len = front.packet();
        let Some(packet) = input.get(..len) else { return Ok(Opened::Need { need: len }) };
        let mut reader = Reader::new(&packet[HEAD..]);
        let flags = u32_le(&mut reader).ok_or(malformed("handshake response too short"))?;
        if Flags::from(flags) & capability::PROTOCOL_41 == 0 {
            return Err(fault(Side::Client, FaultKind::Unsupported, "client speaks a protocol from before 4.1"));
        }
        let wants_tls = Flags::from(flags) & capability::SSL != 0;
        if front.body == SSL_REQUEST_BODY && wants_tls && !tls {
            if self.plain || self.asked_tls {
                return Err(fault(Side::Client, FaultKind::OutOfOrder, "TLS asked for where it was not offered"));
            }
            self.asked_tls = true;
            self.sequence = self.sequence.wrapping_add(1);
            return Ok(Opened::StartTls { len });
        }
        if !tls && !self.plain {
            self.sequence = self.sequence.wrapping_add(1);
            return Err(fault(Side::Client, FaultKind::Denied, "TLS is required"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        let startup = self.response(flags, reader)?;
        Ok(Opened::Startup { len, startup })
    }

    /// Reads a HandshakeResponse41 behind its flags.
    ///
    /// Spec: "Protocol::HandshakeResponse41". Errors: `Malformed` where a part does not fit or bytes are
    /// left over; `Denied` for names that the server would cut.
    fn response<'a>(&mut self, flags: u32, mut reader: Reader<'a>) -> Result<Startup<'a>, Fault> {
        let short = malformed("handshake response ends early");
        let packet_bytes_max = u32_le(&mut reader).ok_or(short)?;
        let collation = reader.u8().ok_or(short)?;
        reader.take(19).ok_or(short)?;
        let upper = u32_le(&mut reader).ok_or(short)?;
        let mut chosen = Flags::from(flags);
        if chosen & capability::LONG_PASSWORD == 0 {
            chosen |= Flags::from(upper) << 32;
        }
        let has = |flag: Flags| chosen & flag != 0;

        let user = reader.cstr().ok_or(short)?;
        let response = if has(capability::PLUGIN_AUTH_LENENC) {
            lenenc_bytes(&mut reader).ok_or(short)?
        } else if has(capability::SECURE_CONNECTION) {
            let len = reader.u8().ok_or(short)?;
            reader.take(usize::from(len)).ok_or(short)?
        } else {
            reader.cstr().ok_or(short)?
        };
        let database = if has(capability::CONNECT_WITH_DB) { text_to_nul(&mut reader) } else { b"" };
        let plugin = if has(capability::PLUGIN_AUTH) { text_to_nul(&mut reader) } else { b"" };
        let attributes = if has(capability::CONNECT_ATTRS) && !reader.is_empty() {
            lenenc_bytes(&mut reader).ok_or(short)?
        } else {
            b""
        };
        // The level of a compression that was not offered.
        if has(capability::ZSTD) && !reader.is_empty() {
            reader.u8();
        }
        if !reader.is_empty() {
            return Err(malformed("bytes after the handshake response"));
        }

        let user = name(user, if self.server.is_mariadb() { USER_CHARS_MAX.1 } else { USER_CHARS_MAX.0 })?;
        let database = name(database, DATABASE_CHARS_MAX)?;
        if user.is_empty() {
            return Err(fault(Side::Client, FaultKind::Denied, "no user name in the handshake response"));
        }
        let parameters = pairs(attributes)?;
        let attribute = |wanted: &str| {
            parameters.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value).unwrap_or_default()
        };
        let user_agent = match attribute("program_name") {
            "" => attribute("_client_name"),
            name => name,
        };
        let dialect = Dialect { knows_timeout: knows_timeout(attribute("_client_name"), attribute("_client_version")) };
        self.asked = Asked {
            read: true,
            agreed: capability::agreed(chosen, self.offered()),
            collation,
            packet_bytes_max,
            user: user.to_owned(),
            attributes: attributes.to_vec(),
            dialect,
            proof: Proof::of(plugin, response),
        };
        Ok(Startup { user, database, user_agent, replication: false, parameters })
    }
}

impl Opening for MysqlOpening {
    fn start(&mut self, out: &mut Vec<u8>) {
        greeting::write(&self.server, self.offered(), self.id, &self.nonce, out);
        self.greeted = true;
        self.sequence = 1;
    }

    fn offer_no_tls(&mut self) {
        self.plain = true;
    }

    fn offer_local_files(&mut self) {
        self.local_files = true;
    }

    fn greet_as(&mut self, version: &str) {
        self.server = self.server.clone().with_version(version);
    }

    fn handle<'a>(&mut self, input: &'a [u8], tls: bool, _out: &mut Vec<u8>) -> Result<Opened<'a>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let opened = self.front(input, tls);
        self.fault = opened.as_ref().err().copied();
        opened
    }
}

/// A string up to its zero byte. Old drivers forget the last one of a packet.
fn text_to_nul<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    reader.cstr().unwrap_or_else(|| {
        let rest = reader.rest();
        *reader = Reader::new(&[]);
        rest
    })
}

/// A name that the server keeps whole.
pub(super) fn name(bytes: &[u8], chars_max: usize) -> Result<&str, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("name is not UTF-8"))?;
    if text.contains('\0') {
        return Err(malformed("zero byte inside a name"));
    }
    if text.chars().count() > chars_max {
        return Err(fault(Side::Client, FaultKind::Denied, "name longer than the server keeps"));
    }
    Ok(text)
}

/// Connect attributes as pairs, which must fill `attributes` exactly.
pub(super) fn pairs(attributes: &[u8]) -> Result<Vec<(&str, &str)>, Fault> {
    let bad = malformed("connect attributes cannot be read");
    let mut reader = Reader::new(attributes);
    let mut pairs = Vec::new();
    while !reader.is_empty() {
        let name = lenenc_bytes(&mut reader).ok_or(bad)?;
        let value = lenenc_bytes(&mut reader).ok_or(bad)?;
        if pairs.len() == ATTRIBUTES_MAX {
            return Err(fault(Side::Client, FaultKind::TooLarge, "too many connect attributes"));
        }
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) => pairs.push((name, value)),
            _ => return Err(malformed("connect attribute is not UTF-8")),
        }
    }
    Ok(pairs)
}

/// Whether a client is one of MySQL's own, from 8.0.24 on.
fn knows_timeout(client: &str, version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    (client == "libmysql" || client.starts_with("MySQL Connector")) && version >= [8, 0, 24]
}

/// Reads the body of a COM_CHANGE_USER behind its code.
pub(super) struct ChangeUser<'a> {
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) collation: Option<u16>,
    pub(super) proof: Proof,
}

/// Spec: "COM_CHANGE_USER". Every part is checked against the packet, and nothing may be left over.
pub(super) fn change_user(agreed: Flags, body: &[u8]) -> Result<ChangeUser<'_>, Fault> {
    let short = malformed("COM_CHANGE_USER ends early");
    let has = |flag: Flags| agreed & flag != 0;
    let mut reader = Reader::new(body);
    let user = reader.cstr().ok_or(short)?;
    let response = if has(capability::SECURE_CONNECTION) {
        let len = reader.u8().ok_or(short)?;
        reader.take(usize::from(len)).ok_or(short)?
    } else {
        reader.cstr().ok_or(short)?
    };
    let database = reader.cstr().ok_or(short)?;
    let collation = if reader.is_empty() { None } else { Some(super::head::u16_le(&mut reader).ok_or(short)?) };
    let plugin = if has(capability::PLUGIN_AUTH) { text_to_nul(&mut reader) } else { b"" };
    if has(capability::CONNECT_ATTRS) && !reader.is_empty() {
        let len = lenenc(&mut reader).ok_or(short)?;
        let attributes = usize::try_from(len).ok().and_then(|len| reader.take(len)).ok_or(short)?;
        pairs(attributes)?;
    }
    if !reader.is_empty() {
        return Err(malformed("bytes after COM_CHANGE_USER"));
    }
    Ok(ChangeUser {
        user: name(user, USER_CHARS_MAX.1)?,
        database: name(database, DATABASE_CHARS_MAX)?,
        collation,
        proof: Proof::of(plugin, response),
    })
}
