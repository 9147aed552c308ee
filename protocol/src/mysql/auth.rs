//! Signing in to the database: greeting, TLS, HandshakeResponse41, whatever plugin the account has.

use crate::{BackendTls, Credential, FaultKind, Login, LoginError, LoginStep, Side};

use super::backend::{self, Done};
use super::capability::{self, Flags};
use super::error::{ErrorParts, fault};
use super::greeting::{self, CACHING_SHA2, Greeting, MysqlServer, NATIVE, NONCE};
use super::head::{HEAD, Head, begin, finish, head, put_lenenc_bytes};
use super::scramble::{self, ED25519_NONCE};
use super::startup::{Asked, MysqlOpening};

/// The longest packet taken from a database before it has signed us in.
const PACKET_BYTES_MAX: usize = 8 * 1024;
/// The most packets it may send before that: a login that never ends is refused.
const PACKETS_MAX: u32 = 16;
/// The most text of an error that goes into the audit.
const TEXT_MAX: usize = 1024;

const ED25519: &str = "client_ed25519";
const SHA256: &str = "sha256_password";
const CLEAR: &str = "mysql_clear_password";

/// Signs in to a MySQL or MariaDB database.
pub struct MysqlLogin {
    asked: Asked,
    user: String,
    database: String,
    credential: Credential,
    tls: BackendTls,
    tls_up: bool,
    packets: u32,
    /// The sequence id of what is said or heard next.
    sequence: u8,
    /// The sequence id with which the client hears of a failure.
    client_sequence: u8,
    state: State,
    greeting: Option<Greeting>,
    requested: Flags,
    plugin: Plugin,
    done: Option<Done>,
}

impl std::fmt::Debug for MysqlLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MysqlLogin").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What is waited for.
enum State {
    WantsGreeting,
    WantsTls,
    WantsAnswer,
    SignedIn,
    Failed(LoginError),
}

/// The plugins that we take part in. Any other is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
    Ed25519,
    Sha256,
    Clear,
}

impl Plugin {
    fn named(name: &[u8]) -> Option<Plugin> {
        [
            (NATIVE, Plugin::Native),
            (CACHING_SHA2, Plugin::CachingSha2),
            (ED25519, Plugin::Ed25519),
            (SHA256, Plugin::Sha256),
            (CLEAR, Plugin::Clear),
        ]
        .into_iter()
        .find_map(|(word, plugin)| (word.as_bytes() == name).then_some(plugin))
    }

    const fn name(self) -> &'static str {
        match self {
            Plugin::Native => NATIVE,
            Plugin::CachingSha2 => CACHING_SHA2,
            Plugin::Ed25519 => ED25519,
            Plugin::Sha256 => SHA256,
            Plugin::Clear => CLEAR,
        }
    }
}

impl MysqlLogin {
    pub(super) fn new(
        opening: &MysqlOpening,
        user: &str,
        database: &str,
        tls: BackendTls,
        credential: Credential,
    ) -> Self {
        MysqlLogin {
            asked: opening.asked().clone(),
            user: user.to_owned(),
            database: database.to_owned(),
            credential,
            tls,
            tls_up: false,
            packets: 0,
            sequence: 0,
            client_sequence: opening.sequence(),
            state: State::WantsGreeting,
            greeting: None,
            requested: 0,
            plugin: Plugin::Native,
            done: None,
        }
    }

    /// What the database said of itself. `None` before its greeting was read.
    pub fn server(&self) -> Option<&MysqlServer> {
        self.greeting.as_ref().map(|greeting| &greeting.server)
    }

    /// The database's id of the connection. 0 before its greeting was read.
    pub(super) fn connection(&self) -> u32 {
        self.greeting.as_ref().map_or(0, |greeting| greeting.connection)
    }

    /// The status flags with which the session begins.
    pub(super) fn status(&self) -> u16 {
        self.done.map_or(backend::AUTOCOMMIT, |done| done.status)
    }

    /// What both sides of the session have: exactly what the client was told it has.
    pub(super) const fn agreed(&self) -> Flags {
        self.asked.agreed
    }

    fn fail(&mut self, kind: FaultKind, what: &'static str) -> LoginError {
        self.fail_with(LoginError { fault: fault(Side::Backend, kind, what), frame: Vec::new(), text: what.to_owned() })
    }

    fn fail_with(&mut self, error: LoginError) -> LoginError {
        self.credential = Credential::None;
        self.state = State::Failed(error.clone());
        error
    }

    /// What arrives is from whom we think: a database that has proved itself, or one reached in plain.
    fn is_vouched_for(&self) -> bool {
        self.tls_up || self.tls == BackendTls::Off
    }

    fn front(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::WantsTls | State::SignedIn => {
                return Err(self.fail(FaultKind::OutOfOrder, "database spoke out of turn during sign-in"));
            }
            State::WantsGreeting | State::WantsAnswer => {}
        }
        let Some(front) = head(input) else { return Ok(LoginStep::Need { need: HEAD }) };
        if front.sequence != self.sequence {
            return Err(self.fail(FaultKind::OutOfOrder, "packet out of order during sign-in"));
        }
        if front.packet() > PACKET_BYTES_MAX {
            return Err(self.fail(FaultKind::TooLarge, "packet too long during sign-in"));
        }
        let len = front.packet();
        let Some(packet) = input.get(..len) else { return Ok(LoginStep::Need { need: len }) };
        self.packets += 1;
        if self.packets > PACKETS_MAX {
            return Err(self.fail(FaultKind::OutOfOrder, "database never finishes the sign-in"));
        }
        self.sequence = front.sequence.wrapping_add(1);
        let Some(&mark) = packet.get(HEAD) else {
            return Err(self.fail(FaultKind::Malformed, "empty packet during sign-in"));
        };
        if mark == 0xff {
            return Err(self.refused(packet));
        }
        if matches!(self.state, State::WantsGreeting) {
            return self.greeted(packet, out);
        }
        match mark {
            0x00 => self.accepted(front, packet),
            0x01 => self.more(&packet[HEAD + 1..], len, out),
            0xfe => self.switched(&packet[HEAD + 1..], len, out),
            _ => Err(self.fail(FaultKind::Malformed, "unknown packet during sign-in")),
        }
    }

    fn greeted(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        let Some(greeting) = greeting::read(packet) else {
            return Err(self.fail(FaultKind::Malformed, "greeting cannot be read"));
        };
        let theirs = greeting.server.capabilities();
        let wants_tls = self.tls != BackendTls::Off;
        if wants_tls && theirs & capability::SSL == 0 {
            return Err(self.fail(FaultKind::Unavailable, "database does not offer TLS"));
        }
        let with_database = !self.database.is_empty();
        let Some(flags) = capability::requested(self.asked.agreed, theirs, wants_tls, with_database) else {
            // Nothing is lost but this one connection: what is learnt now is offered to the next.
            self.greeting = Some(greeting);
            return Err(self.fail(FaultKind::Unavailable, "database lacks a capability that the client was offered"));
        };
        self.requested = flags;
        self.plugin = Plugin::named(&greeting.plugin).unwrap_or(Plugin::Native);
        self.greeting = Some(greeting);
        if wants_tls {
            let start = begin(out, self.sequence);
            self.response_front(out);
            finish(out, start);
            self.sequence = self.sequence.wrapping_add(1);
            self.state = State::WantsTls;
            return Ok(LoginStep::StartTls { len: packet.len() });
        }
        self.respond(out);
        Ok(LoginStep::Consumed { len: packet.len() })
    }

    /// The front that SSLRequest and HandshakeResponse41 share.
    fn response_front(&self, out: &mut Vec<u8>) {
        let flags = self.requested.to_le_bytes();
        out.extend_from_slice(&flags[..4]);
        out.extend_from_slice(&self.asked.packet_bytes_max.to_le_bytes());
        out.push(self.asked.collation);
        out.extend_from_slice(&[0; 19]);
        // MySQL wants these zero; only a client without CLIENT_MYSQL has any of them set.
        out.extend_from_slice(&flags[4..]);
    }

    /// Spec: "Protocol::HandshakeResponse41".
    fn respond(&mut self, out: &mut Vec<u8>) {
        self.state = State::WantsAnswer;
        let nonce = self.greeting.as_ref().map(|greeting| greeting.nonce.clone()).unwrap_or_default();
        let proof = match self.plugin {
            // What is not a proof by nonce of twenty bytes is only begun when the database asks for it.
            Plugin::Native | Plugin::CachingSha2 => self.proof(self.plugin, &nonce).unwrap_or_default(),
            Plugin::Ed25519 | Plugin::Sha256 | Plugin::Clear => Vec::new(),
        };
        let start = begin(out, self.sequence);
        self.response_front(out);
        // A zero byte in a name of ours would end it early and turn its rest into other fields.
        out.extend(self.user.bytes().take_while(|byte| *byte != 0));
        out.push(0);
        out.push(u8::try_from(proof.len()).unwrap_or(0));
        out.extend_from_slice(&proof);
        if self.requested & capability::CONNECT_WITH_DB != 0 {
            out.extend(self.database.bytes().take_while(|byte| *byte != 0));
            out.push(0);
        }
        if self.requested & capability::PLUGIN_AUTH != 0 {
            out.extend_from_slice(self.plugin.name().as_bytes());
            out.push(0);
        }
        if self.requested & capability::CONNECT_ATTRS != 0 {
            put_lenenc_bytes(out, &self.asked.attributes);
        }
        finish(out, start);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn password(&self) -> Option<std::rc::Rc<str>> {
        match &self.credential {
            Credential::None | Credential::Passthrough => None,
            Credential::Password(password) | Credential::Scram(password) => Some(password.clone()),
        }
    }

    /// The proof that `plugin` wants for a nonce. `None` when the nonce is too short or the configuration
    /// rules the plugin out.
    fn proof(&self, plugin: Plugin, nonce: &[u8]) -> Option<Vec<u8>> {
        let Some(password) = self.password() else { return Some(Vec::new()) };
        let password = password.as_bytes();
        match plugin {
            // "scram" in the configuration is for proofs that a thief of the server's table cannot replay.
            Plugin::Native if matches!(self.credential, Credential::Scram(_)) => None,
            Plugin::Native => Some(scramble::native(password, nonce.first_chunk::<NONCE>()?)),
            Plugin::CachingSha2 => Some(scramble::caching_sha2(password, nonce.first_chunk::<NONCE>()?)),
            Plugin::Ed25519 => Some(scramble::ed25519(password, nonce.first_chunk::<ED25519_NONCE>()?)),
            Plugin::Sha256 | Plugin::Clear => None,
        }
    }

    /// A password may be shown to a database only where TLS has proved who it is.
    fn may_show_password(&self) -> bool {
        self.tls_up && self.tls == BackendTls::Required && !matches!(self.credential, Credential::Scram(_))
    }

    fn say(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let start = begin(out, self.sequence);
        out.extend_from_slice(body);
        finish(out, start);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn show_password(&mut self, out: &mut Vec<u8>) {
        let password = self.password().unwrap_or_else(|| "".into());
        let start = begin(out, self.sequence);
        out.extend_from_slice(password.as_bytes());
        out.push(0);
        finish(out, start);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Spec: "Protocol::AuthSwitchRequest".
    fn switched(&mut self, body: &[u8], len: usize, out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        let Some(end) = memchr::memchr(0, body) else {
            return Err(self.fail(FaultKind::Denied, "database asks for the password form from before 4.1"));
        };
        let Some(plugin) = Plugin::named(&body[..end]) else {
            return Err(
                self.fail(FaultKind::Unsupported, "database asks for an authentication plugin that is not served")
            );
        };
        self.plugin = plugin;
        let nonce = &body[end + 1..];
        match plugin {
            Plugin::Native | Plugin::CachingSha2 | Plugin::Ed25519 => {
                let Some(proof) = self.proof(plugin, nonce) else {
                    return Err(self.fail(FaultKind::Denied, "database asks for a weaker proof than configured"));
                };
                self.say(&proof, out);
            }
            Plugin::Sha256 | Plugin::Clear if matches!(self.credential, Credential::None) => self.say(&[0], out),
            Plugin::Sha256 | Plugin::Clear if self.may_show_password() => self.show_password(out),
            Plugin::Sha256 | Plugin::Clear => {
                return Err(self.fail(FaultKind::Denied, "database asks for the password outside verified TLS"));
            }
        }
        Ok(LoginStep::Consumed { len })
    }

    /// Spec: "Protocol::AuthMoreData", of caching_sha2_password: 3 it knows us, 4 it wants to see the
    /// password. The way by its RSA key is not taken: whoever stands in the middle has a key too.
    fn more(&mut self, body: &[u8], len: usize, out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        match (self.plugin, body) {
            (Plugin::CachingSha2, [3]) => Ok(LoginStep::Consumed { len }),
            (Plugin::CachingSha2, [4]) if self.tls_up && self.tls == BackendTls::Required => {
                self.show_password(out);
                Ok(LoginStep::Consumed { len })
            }
            (Plugin::CachingSha2, [4]) => Err(self.fail(
                FaultKind::Denied,
                "database has not cached the password of this account and asks for it outside verified TLS",
            )),
            _ => Err(self.fail(FaultKind::Malformed, "unknown authentication data")),
        }
    }

    fn accepted(&mut self, front: Head, packet: &[u8]) -> Result<LoginStep, LoginError> {
        let Some(done) = backend::ok(packet) else {
            return Err(self.fail(FaultKind::Malformed, "answer to the sign-in cannot be read"));
        };
        self.done = Some(done);
        self.credential = Credential::None;
        self.state = State::SignedIn;
        Ok(LoginStep::Ready { len: front.packet() })
    }

    /// The database's ERR under its own code, numbered as the client counts.
    fn refused(&mut self, packet: &[u8]) -> LoginError {
        let parts = ErrorParts::read(packet).unwrap_or_default();
        let message = &parts.message[..parts.message.len().min(TEXT_MAX)];
        let mut frame = Vec::new();
        if self.is_vouched_for() {
            let start = begin(&mut frame, self.client_sequence);
            frame.push(0xff);
            frame.extend_from_slice(&parts.code.to_le_bytes());
            frame.push(b'#');
            frame.extend_from_slice(if parts.state.is_empty() { b"HY000" } else { parts.state });
            frame.extend_from_slice(message);
            finish(&mut frame, start);
        }
        let text = format!("{} {}", parts.code, String::from_utf8_lossy(message));
        self.fail_with(LoginError {
            fault: fault(Side::Backend, FaultKind::Unavailable, "database refused the sign-in"),
            frame,
            text,
        })
    }
}

impl Login for MysqlLogin {
    fn start(&mut self, _out: &mut Vec<u8>) {}

    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        self.front(input, out)
    }

    fn tls_started(&mut self, out: &mut Vec<u8>) {
        if matches!(self.state, State::WantsTls) {
            self.tls_up = true;
            self.respond(out);
        }
    }
}
