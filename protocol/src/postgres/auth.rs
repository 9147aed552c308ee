//! Signing in to the database: TLS request, startup, password or SCRAM exchange.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

use crate::wire::Reader;
use crate::{BackendTls, Credential, Fault, FaultKind, Login, LoginError, LoginStep, Side};

use super::PostgresOpening;
use super::error::{ErrorFields, fault, finish};
use super::head::HEAD;
use super::startup::{SSL_REQUEST, VERSION_3_0, VERSION_3_2};

/// The longest authentication message taken from a database.
const AUTH_BYTES_MAX: usize = 8 * 1024;
/// The longest error or notice taken from a database before it has signed us in.
const ERROR_BYTES_MAX: usize = 16 * 1024;
/// The most text of an error that goes into the audit.
const TEXT_MAX: usize = 1024;
/// The most messages a database may send before it has signed us in: a login that never ends is refused.
const MESSAGES_MAX: u32 = 32;
/// The longest SCRAM attribute taken: nonce, salt, verifier.
const SCRAM_ATTRIBUTE_MAX: usize = 512;
/// The most SCRAM rounds computed. 24 times PostgreSQL's default; more would stall the worker. The SCRAM
/// library has the same bound, checked here so that the refusal names it.
const SCRAM_ITERATIONS_MAX: u32 = 100_000;

/// Signs in to a PostgreSQL database.
pub struct PostgresLogin {
    startup_message: Vec<u8>,
    user: String,
    credential: Credential,
    tls: BackendTls,
    /// TLS is up, so what arrives comes from a database that proved who it is.
    tls_up: bool,
    messages: u32,
    state: State,
}

impl std::fmt::Debug for PostgresLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresLogin").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What is waited for.
enum State {
    WantsTlsAnswer,
    WantsTls,
    WantsRequest,
    WantsSaslContinue(Box<ScramSha256>),
    WantsSaslFinal(Box<ScramSha256>),
    WantsOk,
    SignedIn,
    Failed(LoginError),
}

impl PostgresLogin {
    pub(super) fn new(
        opening: &PostgresOpening,
        user: &str,
        database: &str,
        tls: BackendTls,
        credential: Credential,
    ) -> Self {
        let mut message = vec![0; 4];
        message.extend_from_slice(&VERSION_3_2.to_be_bytes());
        let own = [("user", user), ("database", database)];
        let theirs = opening.asked().parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.into_iter().chain(theirs) {
            // A NUL in a name of ours would end it early and turn its rest into parameters.
            for text in [name, value] {
                message.extend(text.bytes().take_while(|byte| *byte != 0));
                message.push(0);
            }
        }
        message.push(0);
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        message[..4].copy_from_slice(&length.to_be_bytes());
        let state = match tls {
            BackendTls::Off => State::WantsRequest,
            BackendTls::Required | BackendTls::Unverified => State::WantsTlsAnswer,
        };
        PostgresLogin {
            startup_message: message,
            user: user.to_owned(),
            credential,
            tls,
            tls_up: false,
            messages: 0,
            state,
        }
    }

    fn fail(&mut self, kind: FaultKind, what: &'static str) -> LoginError {
        self.fail_with(LoginError { fault: fault(Side::Backend, kind, what), frame: Vec::new(), text: what.to_owned() })
    }

    fn fail_with(&mut self, error: LoginError) -> LoginError {
        self.credential = Credential::None;
        self.state = State::Failed(error.clone());
        error
    }

    fn front(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::WantsTlsAnswer => return self.tls_answer(input),
            State::WantsTls | State::SignedIn => {
                return Err(self.fail(FaultKind::OutOfOrder, "database spoke out of turn during sign-in"));
            }
            _ => {}
        }
        let Some(&tag) = input.first() else { return Ok(LoginStep::Need { need: HEAD }) };
        let max = match tag {
            b'R' => AUTH_BYTES_MAX,
            b'E' | b'N' => ERROR_BYTES_MAX,
            b'v' => AUTH_BYTES_MAX,
            _ => return Err(self.fail(FaultKind::Unsupported, "unknown message type during sign-in")),
        };
        let Some(length) = Reader::new(&input[1..]).u32() else { return Ok(LoginStep::Need { need: HEAD }) };
        let length = length as usize;
        if length < 5 {
            return Err(self.fail(FaultKind::Malformed, "message shorter than its type allows"));
        }
        if length > max {
            return Err(self.fail(FaultKind::TooLarge, "message longer than its type allows"));
        }
        let len = length + 1;
        let Some(frame) = input.get(..len) else { return Ok(LoginStep::Need { need: len }) };
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(self.fail(FaultKind::OutOfOrder, "database never finishes the sign-in"));
        }
        let body = &frame[HEAD..];
        match tag {
            b'E' => Err(self.refused(frame)),
            b'N' => Ok(LoginStep::Consumed { len }),
            b'v' => {
                if !matches!(self.state, State::WantsRequest) {
                    return Err(self.fail(FaultKind::OutOfOrder, "version negotiated twice or too late"));
                }
                self.version(body)?;
                Ok(LoginStep::Consumed { len })
            }
            _ => self.authentication(body, len, out),
        }
    }

    /// Exactly one byte decides. `E` is an error from before TLS, whose text nobody vouches for: it is
    /// neither read nor shown (threat-model T2, T3).
    fn tls_answer(&mut self, input: &[u8]) -> Result<LoginStep, LoginError> {
        match input.first() {
            None => Ok(LoginStep::Need { need: 1 }),
            Some(b'S') => {
                self.state = State::WantsTls;
                Ok(LoginStep::StartTls { len: 1 })
            }
            Some(b'N') => Err(self.fail(FaultKind::Unavailable, "database does not offer TLS")),
            Some(b'E') => Err(self.fail(FaultKind::Unavailable, "database answered the TLS request with an error")),
            Some(_) => Err(self.fail(FaultKind::Malformed, "answer to the TLS request is not one of S and N")),
        }
    }

    fn refused(&mut self, frame: &[u8]) -> LoginError {
        let fields = ErrorFields::read(&frame[HEAD..]);
        let text = String::from_utf8_lossy(&fields.message[..fields.message.len().min(TEXT_MAX)]).into_owned();
        let vouched_for = self.tls_up || self.tls == BackendTls::Off;
        self.fail_with(LoginError {
            fault: fault(Side::Backend, FaultKind::Unavailable, "database refused the sign-in"),
            frame: if vouched_for { frame.to_vec() } else { Vec::new() },
            text,
        })
    }

    /// Spec: "Message Formats", NegotiateProtocolVersion. We asked for 3.2 without options, so the answer
    /// is an older version and no option.
    fn version(&mut self, body: &[u8]) -> Result<(), LoginError> {
        let mut reader = Reader::new(body);
        match (reader.u32(), reader.u32(), reader.is_empty()) {
            (Some(VERSION_3_0..=VERSION_3_2), Some(0), true) => Ok(()),
            (Some(_), Some(0), true) => {
                Err(self.fail(FaultKind::Unsupported, "database speaks another protocol version"))
            }
            _ => Err(self.fail(FaultKind::Malformed, "version negotiation cannot be read")),
        }
    }

    /// Spec: "Message Formats", Authentication*.
    fn authentication(&mut self, body: &[u8], len: usize, out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        let mut reader = Reader::new(body);
        let Some(request) = reader.u32() else {
            return Err(self.fail(FaultKind::Malformed, "authentication request cannot be read"));
        };
        let state = std::mem::replace(&mut self.state, State::WantsOk);
        match (request, state) {
            (0, State::WantsRequest) if matches!(self.credential, Credential::Scram(_)) => {
                Err(self.fail(FaultKind::Unavailable, "database let us in without SCRAM"))
            }
            (0, State::WantsRequest | State::WantsOk) => {
                if !reader.is_empty() {
                    return Err(self.fail(FaultKind::Malformed, "authentication request cannot be read"));
                }
                self.credential = Credential::None;
                self.state = State::SignedIn;
                Ok(LoginStep::Ready { len })
            }
            (3, State::WantsRequest) => {
                let Credential::Password(password) = &self.credential else {
                    return Err(self.fail(FaultKind::Unavailable, "database asks for a password"));
                };
                if !self.tls_up || self.tls == BackendTls::Unverified {
                    return Err(self
                        .fail(FaultKind::Unavailable, "database asks for a clear-text password outside verified TLS"));
                }
                password_message(password.as_bytes(), out);
                Ok(LoginStep::Consumed { len })
            }
            (5, State::WantsRequest) => {
                let Some(salt) = reader.rest().first_chunk::<4>().filter(|_| reader.rest().len() == 4) else {
                    return Err(self.fail(FaultKind::Malformed, "authentication request cannot be read"));
                };
                let Credential::Password(password) = &self.credential else {
                    return Err(self.fail(FaultKind::Unavailable, "database asks for an MD5 password"));
                };
                password_message(md5_hash(self.user.as_bytes(), password.as_bytes(), *salt).as_bytes(), out);
                Ok(LoginStep::Consumed { len })
            }
            (10, State::WantsRequest) => {
                let mut offered = false;
                while let Some(name) = reader.cstr().filter(|name| !name.is_empty()) {
                    offered |= name == SCRAM_SHA_256.as_bytes();
                }
                if !reader.is_empty() {
                    return Err(self.fail(FaultKind::Malformed, "authentication request cannot be read"));
                }
                let (Credential::Password(password) | Credential::Scram(password)) = &self.credential else {
                    return Err(self.fail(FaultKind::Unavailable, "database asks for a password"));
                };
                if !offered {
                    return Err(self.fail(FaultKind::Unavailable, "database offers no SASL mechanism that we have"));
                }
                let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                // Spec: SASLInitialResponse.
                let start = begin(out);
                out.extend_from_slice(SCRAM_SHA_256.as_bytes());
                out.push(0);
                out.extend_from_slice(&u32::try_from(scram.message().len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(scram.message());
                finish(out, start);
                self.state = State::WantsSaslContinue(Box::new(scram));
                Ok(LoginStep::Consumed { len })
            }
            (11, State::WantsSaslContinue(mut scram)) => {
                if !bounded_server_first(reader.rest()) || scram.update(reader.rest()).is_err() {
                    return Err(self.fail(FaultKind::Malformed, "SCRAM challenge cannot be taken"));
                }
                password_response(scram.message(), out);
                self.state = State::WantsSaslFinal(scram);
                Ok(LoginStep::Consumed { len })
            }
            (12, State::WantsSaslFinal(mut scram)) => {
                if reader.rest().len() > SCRAM_ATTRIBUTE_MAX || scram.finish(reader.rest()).is_err() {
                    return Err(self.fail(FaultKind::Unavailable, "database does not know our password"));
                }
                // What is left of the exchange is the Ok, which a SCRAM-only credential accepts now.
                self.state = State::WantsOk;
                Ok(LoginStep::Consumed { len })
            }
            (0 | 3 | 5 | 10 | 11 | 12, _) => {
                Err(self.fail(FaultKind::OutOfOrder, "authentication message out of order"))
            }
            _ => Err(self.fail(FaultKind::Unavailable, "database asks for an authentication method that we have not")),
        }
    }
}

impl Login for PostgresLogin {
    fn start(&mut self, out: &mut Vec<u8>) {
        match self.tls {
            BackendTls::Off => out.extend_from_slice(&self.startup_message),
            BackendTls::Required | BackendTls::Unverified => {
                out.extend_from_slice(&8_u32.to_be_bytes());
                out.extend_from_slice(&SSL_REQUEST.to_be_bytes());
            }
        }
    }

    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        self.front(input, out)
    }

    fn tls_started(&mut self, out: &mut Vec<u8>) {
        if matches!(self.state, State::WantsTls) {
            self.tls_up = true;
            self.state = State::WantsRequest;
            out.extend_from_slice(&self.startup_message);
        }
    }
}

/// Begins a `p` frame and says where.
fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(b"p\0\0\0\0");
    start
}

/// Spec: PasswordMessage. A password with a NUL cannot be sent whole, so the server will refuse it.
fn password_message(password: &[u8], out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend(password.iter().take_while(|byte| **byte != 0));
    out.push(0);
    finish(out, start);
}

/// Spec: SASLResponse.
fn password_response(data: &[u8], out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend_from_slice(data);
    finish(out, start);
}

/// Whether every attribute of a `server-first-message` is within its bound (threat-model P5). The SCRAM
/// library reads the rest strictly.
fn bounded_server_first(message: &[u8]) -> bool {
    message.split(|byte| *byte == b',').all(|attribute| {
        attribute.len() <= SCRAM_ATTRIBUTE_MAX
            && match attribute.strip_prefix(b"i=") {
                None => true,
                Some(count) => std::str::from_utf8(count)
                    .ok()
                    .and_then(|count| count.parse::<u32>().ok())
                    .is_some_and(|count| (1..=SCRAM_ITERATIONS_MAX).contains(&count)),
            }
    })
}

impl From<LoginError> for Fault {
    fn from(error: LoginError) -> Fault {
        error.fault
    }
}
