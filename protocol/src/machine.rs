//! The contract every protocol keeps.
//!
//! Each line is a property test that runs for every protocol:
//!
//! 1. The same bytes give the same questions, notes and output however they were cut.
//! 2. Work per call is bounded by the bytes offered; nothing is scanned twice; nothing is copied to be parsed.
//! 3. A length is checked against its limit before anything is reserved.
//! 4. Nesting is a counter with a limit, not recursion.
//! 5. Unknown is not malformed: it is refused by a written rule, in the peer's own words, never forwarded.
//! 6. No clock, socket, log line with payload, or allocation per frame.
//! 7. After an error: no more output than a refusal, and the same error for ever.
//!
//! ## Order of bytes
//! What a call appends to the outbox for the side that `handle` was **not** reading from (the natural
//! direction) goes out after every byte decided earlier in that direction and before the bytes its own
//! [`Step`] forwards. What it appends for the side it **was** reading from (an answer) goes out as soon
//! as no frame is half sent in that direction.

use std::sync::Arc;

use crate::{Fault, Refusal};

/// One of the two peers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that connected to us.
    Client,
    /// The database.
    Backend,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }
}

/// Two caller-owned buffers a machine appends to. See the module text for their order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Bytes for the client.
    pub client: Vec<u8>,
    /// Bytes for the database.
    pub backend: Vec<u8>,
}

/// One protocol: the three machines of a session, and how one becomes the next.
pub trait Protocol: 'static {
    /// Metric label and config word.
    const NAME: &'static str;
    /// The port clients expect when none is given.
    const PORT: u16;
    /// Reads the client until it is known who wants what.
    type Opening: Opening;
    /// Signs in to the database.
    type Login: Login;
    /// Rules the frames of the session.
    type Machine: Machine;
    /// What a login finds out about a server and later sessions need not ask again (Redis: its command table;
    /// MySQL: version and capabilities, which the next greeting shows). `()` where there is nothing.
    type Learned: Send + Sync + 'static;

    /// A machine for a fresh client connection. `learned` is what is known of the databases that this connection
    /// may turn out to be for, in no order; a protocol whose server speaks first greets with what all of them can
    /// do. `seed` is fresh random bytes for a challenge.
    fn opening(learned: &[Arc<Self::Learned>], seed: [u8; 32]) -> Self::Opening;
    /// A machine that signs in to a fresh database connection for the client that `opening` has read.
    fn login(opening: &Self::Opening, sign_in: SignIn<'_, Self::Learned>) -> Self::Login;
    /// What a login that is ready has found out, or was given. The caller keeps it per database and hands it to
    /// the logins that follow, until the database's address changes or it has become old.
    fn learned(login: &Self::Login) -> Option<Arc<Self::Learned>>;
    /// The session machine. It begins by telling the client that it is signed in; `key` is ours.
    fn machine(opening: Self::Opening, login: Self::Login, key: SessionKey, limits: Limits) -> Self::Machine;
    /// The connection id that a greeting has told the client, in place of the `pid` of [`SessionKey`]; ids like
    /// it come back in [`Verb::Mysql`]'s kills. `None` where a client is told none before it is signed in.
    fn told_id(_opening: &Self::Opening) -> Option<u32> {
        None
    }
    /// A refusal for a client whose session never came to be, written whole to `out`.
    fn refuse(opening: &mut Self::Opening, refusal: &Refusal<'_>, out: &mut Vec<u8>);
    /// What goes on telling a client that it was refused, in the place of [`Protocol::refuse`]: for protocols whose
    /// clients do not show the error of their first commands. `None`: one refusal is enough.
    fn afterword(_refusal: &Refusal<'_>, _limits: Limits) -> Option<Box<dyn Afterword>> {
        None
    }
    /// A cancel request for the database process `pid`, written whole to `out`.
    fn cancel(pid: u32, secret: &[u8], out: &mut Vec<u8>);
    /// A client that asks for TLS does not wait for an answer (MySQL): its ClientHello may stand behind it.
    const TLS_FOLLOWS_AT_ONCE: bool = false;
    /// What asks a database for TLS on a connection that serves a cancel request only.
    const TLS_REQUEST: &'static [u8];
    /// Whether a client may start TLS at once.
    const DIRECT_TLS: DirectTls;
}

/// Answers a client whose session was refused, command by command, until it has heard of it. Lives on the cold path.
pub trait Afterword {
    /// `input` starts at the first byte not yet consumed, and may be empty. Answers go to `out`.
    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Heard;
}

/// What an [`Afterword`] has heard.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Undecided until `need` bytes are buffered.
    Need {
        /// Total bytes wanted, more than were offered and at most [`NEED_BYTES_MAX`].
        need: usize,
    },
    /// Read, and answered where an answer was due.
    Read {
        /// Bytes consumed.
        len: usize,
    },
    /// Enough was said: the connection ends.
    Done,
}

/// The rule for a client that starts TLS without asking for it in the protocol's own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectTls {
    /// Only with this ALPN name agreed on.
    WithAlpn(&'static [u8]),
    /// Always: the protocol has no other way, and its clients offer no ALPN name. One that is not ours is never
    /// agreed on. So do its databases: TLS is up before [`Login::start`].
    Plain,
    /// Never: the server speaks first, in the clear.
    Never,
}

/// What a [`Login`] is made of.
#[derive(Clone, Debug)]
pub struct SignIn<'a, L> {
    /// The database user of the route.
    pub user: &'a str,
    /// The database of the route, or empty.
    pub database: &'a str,
    /// How TLS stands.
    pub tls: BackendTls,
    /// What the gateway may present.
    pub credential: Credential,
    /// Fresh random bytes for nonces.
    pub seed: [u8; 32],
    /// What an earlier login to the same database found out. A login that has it does not ask again.
    pub learned: Option<Arc<L>>,
}

/// Bounds that configuration sets for a session machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest frame forwarded, in bytes (`limits.max_frame`). At most what the protocol can express.
    pub frame_bytes_max: u64,
    /// How much of a statement's text is shown to the caller, in bytes (`audit.query_text_max`). At most 64 KiB.
    pub text_bytes_max: usize,
    /// Commands written as a line of text are served, by protocols that know them (RESP's inline commands).
    pub inline_commands: bool,
    /// What is not supported is said in Teleport's words, and RESP3 is not offered (`listeners.redis.compat: teleport`).
    pub teleport_compat: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { frame_bytes_max: 1 << 30, text_bytes_max: 64 * 1024, inline_commands: true, teleport_compat: false }
    }
}

/// How TLS stands towards the database when a [`Login`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendTls {
    /// No TLS at all (`tls.mode: off`).
    Off,
    /// TLS is required, and proves who the database is: the login asks for it in the protocol's own way.
    Required,
    /// TLS is required, and proves nothing (`tls.mode: insecure`): no password is shown inside it.
    Unverified,
}

/// What the gateway may present to the database. Debug shows no secret.
#[derive(Clone)]
pub enum Credential {
    /// Nothing: the database trusts us, or the TLS client certificate is the proof.
    None,
    /// A password, for whatever the server asks for. Clear text only inside TLS.
    Password(std::rc::Rc<str>),
    /// A password, for SCRAM only: a server that asks for anything weaker is refused.
    Scram(std::rc::Rc<str>),
    /// Nothing of ours: the client brings its own in the session (`auth: passthrough`), and each attempt is a
    /// [`Verb::Authenticate`] that the caller rules on.
    Passthrough,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::None => "None",
            Credential::Password(_) => "Password(..)",
            Credential::Scram(_) => "Scram(..)",
            Credential::Passthrough => "Passthrough",
        })
    }
}

/// The cancel key we hand to the client in place of the database's own (protocol-notes 1.4). Debug shows
/// no secret.
#[derive(Clone, Copy)]
pub struct SessionKey {
    /// Process id as shown to the client. Positive.
    pub pid: u32,
    /// Secret bytes. Clients of the old protocol get the first 4, others all.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Reads a client until it is known who wants what. Lives on the cold path: it may allocate.
pub trait Opening {
    /// For protocols whose server speaks first. Others write nothing.
    fn start(&mut self, out: &mut Vec<u8>);
    /// Called before the first byte on a channel that is trusted as it is (a loopback tunnel,
    /// `danger_plain`): TLS is neither offered nor required there. Otherwise a session asked for without
    /// TLS is a `Denied` fault.
    fn offer_no_tls(&mut self);
    /// Called before `start` where some role lets a database ask clients for files (MySQL LOAD DATA LOCAL).
    /// Others need nothing.
    fn offer_local_files(&mut self) {}
    /// Called before `start` where configuration says which version clients are told. Others tell none.
    fn greet_as(&mut self, _version: &str) {}
    /// `input` starts at the first byte not yet consumed; `tls` says whether it came through TLS.
    fn handle<'a>(&mut self, input: &'a [u8], tls: bool, out: &mut Vec<u8>) -> Result<Opened<'a>, Fault>;
}

/// What the front of a connection turned out to be. `len` bytes of the input are consumed.
#[must_use]
#[derive(Debug)]
pub enum Opened<'a> {
    /// Undecided until `need` bytes are buffered.
    Need {
        /// Total bytes wanted, more than were offered.
        need: usize,
    },
    /// Something was asked and answered in `out`; go on.
    Answered {
        /// Bytes consumed.
        len: usize,
    },
    /// The client asked for TLS; `out` holds the answer, to be sent in the clear. Bytes after `len` are
    /// an attack (threat-model T1) and end the connection, unless [`Protocol::TLS_FOLLOWS_AT_ONCE`]: then
    /// they are the beginning of TLS and are given to it.
    StartTls {
        /// Bytes consumed.
        len: usize,
    },
    /// A TLS ClientHello stands at the front: start TLS now and hold it to [`Protocol::DIRECT_TLS`].
    DirectTls,
    /// Who wants what is known.
    Startup {
        /// Bytes consumed.
        len: usize,
        /// The request.
        startup: Startup<'a>,
    },
    /// A cancel request: a connection of its own, never answered.
    Cancel {
        /// Bytes consumed.
        len: usize,
        /// Process id as we handed it out.
        pid: u32,
        /// Secret as we handed it out.
        secret: &'a [u8],
    },
}

/// A session asked for. Names are UTF-8 within the server's own length limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// Database user, or empty where the protocol has none at this point.
    pub user: &'a str,
    /// Database name; defaults of the protocol already applied (PostgreSQL: the user).
    pub database: &'a str,
    /// What the client calls itself (PostgreSQL `application_name`), or empty.
    pub user_agent: &'a str,
    /// A replication session is asked for: needs the right `@replication`.
    pub replication: bool,
    /// Every other parameter, for the audit.
    pub parameters: Vec<(&'a str, &'a str)>,
}

/// Signs in to a database. Lives on the cold path: it may allocate.
pub trait Login {
    /// First bytes to send.
    fn start(&mut self, out: &mut Vec<u8>);
    /// `input` starts at the first byte not yet consumed.
    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError>;
    /// TLS is up; what was offered before is void. Says what to send inside it.
    fn tls_started(&mut self, out: &mut Vec<u8>);
}

/// Why a login failed.
#[derive(Clone, Debug)]
pub struct LoginError {
    /// The class.
    pub fault: Fault,
    /// The database's own error frame, to be mirrored to the client. Empty when there is none, and always
    /// when it arrived before the database was authenticated (threat-model T3).
    pub frame: Vec<u8>,
    /// The database's message in plain text for the audit; capped, control characters left as they are.
    pub text: String,
}

/// What to do next in a login. `len` bytes of the input are consumed.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// Undecided until `need` bytes are buffered.
    Need {
        /// Total bytes wanted, more than were offered.
        need: usize,
    },
    /// Consumed; send what is in `out`.
    Consumed {
        /// Bytes consumed.
        len: usize,
    },
    /// The database agreed to TLS: send what is in `out` in the clear, then start it. Bytes after `len` are
    /// an attack and end the connection.
    StartTls {
        /// Bytes consumed.
        len: usize,
    },
    /// Signed in. What follows belongs to the session machine.
    Ready {
        /// Bytes consumed.
        len: usize,
    },
}

/// Rules the frames of a session. The result of `handle` borrows only `input` and the machine.
pub trait Machine {
    /// Bytes the machine says before any frame moves (PostgreSQL: AuthenticationOk to the client).
    fn start(&mut self, out: &mut Outbox);
    /// Decides about the front of one direction. `input` starts at the first byte of `from` that is not
    /// yet decided, and is never empty.
    fn handle<'a>(&'a mut self, from: Side, input: &'a [u8], out: &mut Outbox) -> Result<Step<'a>, Fault>;
    /// Answers the last [`Step::Ask`], and says how to go on.
    fn resume(&mut self, ruling: Ruling<'_>) -> Resumed;
    /// Ends the session in this protocol's own words, to the client only. The caller then closes.
    fn refuse(&mut self, refusal: &Refusal<'_>, out: &mut Outbox);
    /// No statement is running and no transaction is open: a drain may close here.
    fn is_idle(&self) -> bool;
    /// Bytes of the cancel secret as this client was given it: the front of [`SessionKey::secret`].
    fn secret_len(&self) -> usize;
    /// The client has asked for what the database says by itself, whenever it does (Redis SUBSCRIBE, MONITOR): such a
    /// session is not idle, however long nothing happens.
    fn is_listening(&self) -> bool {
        false
    }
    /// The database has announced itself that the connection ends: nothing of ours is said after that.
    fn has_parted(&self) -> bool;
    /// Statements forwarded whose outcome has not been seen.
    fn outstanding(&self) -> usize;
    /// The oldest statements without an outcome, when the connection is lost: called until `None`.
    fn take_unanswered(&mut self) -> Option<Ticket>;
}

/// The most a machine may want to see at once ([`Step::Need`]): text of 64 KiB behind a frame head. A caller ends the
/// session of a machine that asks for more, before it reserves anything.
pub const NEED_BYTES_MAX: usize = 64 * 1024 + 32;

/// How the direction that asked goes on.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// `handle` is called again with the same bytes.
    Again,
    /// As [`Step::Forward`], without another call: the common case of an allowed command.
    Forward {
        /// Bytes to pass.
        len: u64,
    },
}

/// One decision about the bytes at the front of one direction.
#[must_use]
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a question is read in place by the caller and never moved or kept")]
pub enum Step<'a> {
    /// Undecided until `need` bytes are buffered. `need` is more than was offered, and at most 64 KiB
    /// plus a frame head: whatever is longer is ruled on by its prefix.
    Need {
        /// Total bytes wanted.
        need: usize,
    },
    /// Pass the next `len` bytes unchanged. `len` may exceed what is buffered: the pump streams the rest
    /// without asking again, so a huge row costs no memory and no second look.
    Forward {
        /// Bytes to pass.
        len: u64,
    },
    /// Take the next `len` bytes and send nothing on. May exceed what is buffered, as `Forward`.
    Discard {
        /// Bytes to drop.
        len: u64,
    },
    /// Nothing from this side moves until the other side has moved: too much is outstanding.
    Hold,
    /// Worth recording, nothing to decide. Call `handle` again with the same bytes. Either side's bytes may
    /// bring an outcome to light: that of a statement the database skips, when its place is needed.
    Note(Note<'a>),
    /// Nothing here moves before the caller has ruled. Then `resume`. Another `handle` without it asks the same again: a
    /// caller may have to wait before it can rule.
    Ask(Operation<'a>),
}

/// Something that happened.
#[derive(Debug)]
pub enum Note<'a> {
    /// A statement ended.
    Outcome(Outcome<'a>),
    /// A run of statements ended, each a success with nothing more to say about it. Their tickets have the same
    /// `at_us`, and their `ei` counts up from the first one's by one (or all are [`Ticket::UNRECORDED`]).
    Successes {
        /// The first ticket of the run.
        first: Ticket,
        /// How many, at least 1.
        count: u32,
    },
    /// The database's own cancel key, to be kept and never shown.
    BackendKey {
        /// Process id at the database.
        pid: u32,
        /// Secret at the database, 4 to 256 bytes.
        secret: &'a [u8],
    },
    /// The session is ready for its first statement.
    Ready,
    /// The client said goodbye.
    Goodbye,
}

/// The caller's own mark on a statement, handed back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ticket {
    /// Index of the statement's audit record in its session.
    pub ei: u32,
    /// Monotonic microseconds when it was ruled on, from an origin of the caller's choice.
    pub at_us: u64,
}

impl Ticket {
    /// The `ei` of a statement that has no audit record.
    pub const UNRECORDED: u32 = u32::MAX;
}

/// Something that policy and audit want to see.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What it is.
    pub verb: Verb,
    /// The command class policy judges by (access-model 5.8).
    pub class: Class,
    /// Statement text: of the frame itself, or resolved from an earlier one (an Execute).
    pub text: Text<'a>,
    /// Prepared statement name, or empty.
    pub statement: &'a [u8],
    /// Portal name, or empty.
    pub portal: &'a [u8],
    /// Bound parameters, or none.
    pub parameters: Parameters<'a>,
    /// FunctionCall: the function's object id. Otherwise 0.
    pub function_oid: u32,
    /// The command, of protocols whose requests are commands ([`Verb::Command`], [`Verb::Authenticate`]).
    pub command: Command<'a>,
    /// The database user whom the client wants to be ([`Verb::Authenticate`]); otherwise empty.
    pub user: &'a [u8],
    /// The database that the session moves to (Redis SELECT, MySQL COM_INIT_DB), as the client wrote it; otherwise
    /// empty. Judged only where names are enforced.
    pub database: &'a [u8],
    /// Exactly one outcome will follow with the ticket that `Ruling::Allow` carries. Where this is false an
    /// outcome follows only if the database answers the frame itself with an error.
    pub has_outcome: bool,
    /// Bytes of the whole frame on the wire.
    pub frame_bytes: u64,
}

/// A command as its own protocol knows it.
#[derive(Clone, Copy, Debug, Default)]
pub enum Command<'a> {
    /// A statement, or a message of a protocol without commands.
    #[default]
    None,
    /// A Redis command.
    Redis(crate::redis::Command<'a>),
}

/// Statement text as far as it is at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text<'a> {
    /// The first bytes, at most `Limits::text_bytes_max`.
    pub head: &'a [u8],
    /// Bytes of the whole text. More than `head` when it was cut. 0 with an empty `head` where an earlier
    /// frame's text is not known.
    pub full_bytes: u64,
    /// Where the text begins in the frame, when it is longer than `head` and its rest is still to come:
    /// the pump hashes `full_bytes` from there as they pass. Otherwise `None`.
    pub streams_from: Option<usize>,
    /// SHA-256 of the whole text where the machine knows it (a long text prepared earlier).
    pub sha256: Option<[u8; 32]>,
}

/// Bound parameters in the protocol's own encoding.
#[derive(Clone, Copy, Debug, Default)]
pub enum Parameters<'a> {
    /// Not a statement with parameters.
    #[default]
    None,
    /// PostgreSQL Bind: the parameter part of its body, and the types named by Parse.
    Postgres {
        /// From the format-code count to the last value, as much as is at hand.
        body: &'a [u8],
        /// The parameter type OIDs of Parse, big-endian, 4 bytes each; may be shorter than the values.
        types: &'a [u8],
        /// `body` ends before the last value.
        cut: bool,
    },
    /// Of a MySQL execute: walked by [`crate::mysql::Bound::values`].
    Mysql(crate::mysql::Bound<'a>),
}

/// What a frame asks for, over all protocols: chooses the audit event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// A statement in text form.
    Query,
    /// PostgreSQL Parse.
    Parse,
    /// PostgreSQL Bind.
    Bind,
    /// PostgreSQL Execute.
    Execute,
    /// PostgreSQL Close of a prepared statement.
    CloseStatement,
    /// PostgreSQL Close of a portal.
    ClosePortal,
    /// PostgreSQL FunctionCall.
    FunctionCall,
    /// A MySQL command other than COM_QUERY, which is [`Verb::Query`].
    Mysql(crate::mysql::MysqlVerb),
    /// A command: judged by [`Operation::command`], not by [`Operation::class`].
    Command,
    /// The client says who it is within a session (Redis AUTH and HELLO AUTH, MySQL COM_CHANGE_USER). Allowed only
    /// if [`Operation::user`] is the user of the session, or with [`Credential::Passthrough`] one that the client's
    /// roles hold; then the session goes on as that user. It is a command as well, and judged as one too.
    Authenticate,
}

/// Command classes over all protocols (access-model 5.8 rule 4). Order is the bit order in policy sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// `@query`. Also of commands, which have classes of their own.
    Query = 0,
    /// `@function_call`.
    FunctionCall = 1,
    /// `@replication`.
    Replication = 2,
    /// `@prepared`.
    Prepared = 3,
    /// `@admin`.
    Admin = 4,
    /// `@local_infile`.
    LocalInfile = 5,
}

impl Class {
    /// The word roles use.
    pub const fn word(self) -> &'static str {
        match self {
            Class::Query => "@query",
            Class::FunctionCall => "@function_call",
            Class::Replication => "@replication",
            Class::Prepared => "@prepared",
            Class::Admin => "@admin",
            Class::LocalInfile => "@local_infile",
        }
    }
}

/// What came of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The statement's ticket.
    pub ticket: Ticket,
    /// Rows returned or affected, as the server's tag says.
    pub rows: Option<u64>,
    /// Whether it succeeded.
    pub success: bool,
    /// SQLSTATE or the protocol's own error code; empty on success.
    pub code: &'a [u8],
    /// The server's message; empty on success. At most 8 KiB.
    pub message: &'a [u8],
    /// The server's command tag, or empty.
    pub tag: &'a [u8],
    /// Bytes of COPY data in either direction.
    pub copy_bytes: u64,
    /// The statement was never run: an earlier one failed, or we refused it.
    pub skipped: bool,
    /// Warnings the server counted; 0 where the protocol does not say.
    pub warnings: u16,
}

/// The caller's answer to [`Step::Ask`].
#[derive(Debug)]
pub enum Ruling<'a> {
    /// Forward it.
    Allow(Ticket),
    /// Forward a MySQL KILL that names one of our connection ids, with this id of the database's in its place.
    AllowKill(Ticket, u32),
    /// Refuse it in the protocol's own words; the session stays usable.
    Refuse(Refusal<'a>),
}
