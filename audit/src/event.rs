//! The events of the catalogue (access-model section 11, user-experience section 15.2), as borrowed values.
//!
//! A producer copies an event once, into its ring, in a binary form of this crate's own. The writer turns
//! that form into the JSON line. Names and codes are the catalogue's.

use uuid::Uuid;

/// What is known of a session for its whole life. Written once to the ring; every line of the session repeats it.
#[derive(Clone, Debug, Default)]
pub struct SessionFacts<'a> {
    /// Session id, shared by all events of a connection.
    pub sid: Uuid,
    /// Product user; empty while unknown.
    pub user: &'a str,
    /// `human` or `bot`.
    pub user_kind: &'a str,
    /// Role names of the certificate.
    pub roles: &'a [String],
    /// Active access-request ids.
    pub access_requests: &'a [String],
    /// Serial of the client certificate, lower-case hex; empty while unknown.
    pub cert_serial: &'a str,
    /// Client address, `ip:port` or `unix`.
    pub addr_remote: &'a str,
    /// Registered name of the database.
    pub db_service: &'a str,
    /// `postgres`, `mysql`, `redis`, `mongodb`.
    pub db_protocol: &'a str,
    /// Address of the database, without credentials.
    pub db_uri: &'a str,
    /// Database user.
    pub db_user: &'a str,
    /// Database name.
    pub db_name: &'a str,
}

/// Where and when an event belongs.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The session, as [`crate::Producer::open_session`] named it; `None` for events of no session.
    pub session: Option<SessionSlot>,
    /// Index inside the session, from 0, gap-free per session.
    pub ei: u32,
    /// Wall clock, microseconds since 1970 UTC.
    pub time_us: u64,
}

/// A session as one producer numbers it. Valid until `close_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSlot(pub u32);

/// Text of a statement as recorded: capped, with the length and hash of the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statement<'a> {
    /// The first bytes. What is not UTF-8 is recorded as base64 with `"encoding":"base64"`.
    pub text: &'a [u8],
    /// Bytes of the whole text. More than `text` when cut: then the line has `truncated`, `query_bytes`
    /// and, where known, `query_sha256`.
    pub full_bytes: u64,
    /// SHA-256 of the whole text, when it is known already and `text` is cut.
    pub sha256: Option<[u8; 32]>,
    /// The first keyword, upper case (`SELECT`, `INSERT`, `DDL` ...), or empty when not known with certainty.
    pub query_type: &'a str,
}

/// One value bound to a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parameter<'a> {
    /// SQL NULL: JSON `null`.
    Null,
    /// Text, recorded as is (base64 when not UTF-8).
    Text(&'a [u8]),
    /// Binary of a type that is not decoded: recorded as base64 behind `\\x`-free marker `"base64:..."`.
    Binary(&'a [u8]),
    /// A decoded integer.
    Int(i64),
    /// A decoded floating-point number.
    Float(f64),
    /// A decoded boolean.
    Bool(bool),
    /// Only the type is recorded (`audit.parameters: types`): the PostgreSQL type OID.
    TypeOnly(u32),
    /// Cut for size: the number of bytes the value had.
    Cut(u64),
}

/// Parameters are handed over as a walk, so that nothing is collected before the ring.
pub trait Parameters {
    /// Calls `each` for every value in order.
    fn walk(&self, each: &mut dyn FnMut(Parameter<'_>));
}

/// No parameters.
#[derive(Clone, Copy, Debug)]
pub struct NoParameters;

impl Parameters for NoParameters {
    fn walk(&self, _: &mut dyn FnMut(Parameter<'_>)) {}
}

impl Parameters for &[Parameter<'_>] {
    fn walk(&self, each: &mut dyn FnMut(Parameter<'_>)) {
        self.iter().for_each(|p| each(*p));
    }
}

/// A command of MySQL that has an event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MysqlCommand {
    /// `statements.prepare`, TMY00I; the text as `query`.
    Prepare,
    /// `statements.execute`, TMY01I; the text as `db_query`, the values as `db_query_parameters`.
    Execute {
        /// Statement id.
        statement: u32,
    },
    /// `statements.send_long_data`, TMY02I.
    SendLongData {
        /// Statement id.
        statement: u32,
        /// Parameter, from 0.
        parameter: u16,
        /// Bytes of data.
        bytes: u64,
    },
    /// `statements.close`, TMY03I.
    Close {
        /// Statement id.
        statement: u32,
    },
    /// `statements.reset`, TMY04I.
    Reset {
        /// Statement id.
        statement: u32,
    },
    /// `statements.fetch`, TMY05I.
    Fetch {
        /// Statement id.
        statement: u32,
        /// Rows asked for.
        rows: u32,
    },
    /// `statements.bulk_execute`, TMY06I; as [`MysqlCommand::Execute`].
    BulkExecute {
        /// Statement id.
        statement: u32,
    },
    /// `init_db`, TMY07I; the name as `schema_name`.
    InitDb,
    /// `create_db`, TMY08I; the name as `schema_name`.
    CreateDb,
    /// `drop_db`, TMY09I; the name as `schema_name`.
    DropDb,
    /// `shut_down`, TMY10I.
    ShutDown,
    /// `process_kill`, TMY11I.
    ProcessKill {
        /// Connection id as the client named it.
        process: u32,
    },
    /// `debug`, TMY12I.
    Debug,
    /// `refresh`, TMY13I.
    Refresh {
        /// What is to be refreshed, a set of bits.
        what: u8,
    },
    /// `change_user`, TMY14I; the name of the database as `schema_name`.
    ChangeUser,
    /// `replication`, TMY20I.
    Replication,
    /// `local_infile`, TMY21I; the name of the file as `file_name`.
    LocalInfile,
}

/// An event. The variant chooses name and code; `error` non-empty means the failed form where there is one.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// `db.session.start`, TDB00I, or TDB00W when `error` is not empty.
    SessionStart {
        /// Empty on success; else why it was refused (for people with audit rights: the deciding role and clause).
        error: &'a str,
        /// What the client was told.
        message: &'a str,
        /// What the client calls itself.
        user_agent: &'a str,
        /// Process id at the database, 0 when not known.
        backend_pid: u32,
        /// Other startup parameters.
        parameters: &'a [(&'a str, &'a str)],
    },
    /// `db.session.end`, TDB01I.
    SessionEnd {
        /// client, server, idle, expired, lock, access, admin, drain, error, protocol.
        reason: &'a str,
        /// Microseconds since 1970 UTC.
        start_us: u64,
        /// Statements forwarded.
        statements: u64,
        /// Bytes received from the client.
        bytes_in: u64,
        /// Bytes sent to the client.
        bytes_out: u64,
    },
    /// `db.session.query`, TDB02I; with `error`, `db.session.query.failed`, TDB02W: refused, never forwarded.
    Query {
        /// The text.
        statement: Statement<'a>,
        /// Parameters, for protocols that carry them along.
        parameters: &'a dyn Parameters,
        /// Empty, or the rule that refused it.
        error: &'a str,
    },
    /// `db.session.postgres.statements.parse`, TPG00I.
    Parse {
        /// Prepared statement name, empty for the unnamed one.
        name: &'a [u8],
        /// The text.
        statement: Statement<'a>,
    },
    /// `db.session.postgres.statements.bind`, TPG01I.
    Bind {
        /// Prepared statement name.
        name: &'a [u8],
        /// Portal name.
        portal: &'a [u8],
        /// Values.
        parameters: &'a dyn Parameters,
    },
    /// `db.session.postgres.statements.execute`, TPG02I, with text and parameters resolved.
    Execute {
        /// Portal name.
        portal: &'a [u8],
        /// The text, from Parse.
        statement: Statement<'a>,
        /// Values, from Bind.
        parameters: &'a dyn Parameters,
    },
    /// `db.session.postgres.statements.close`, TPG03I.
    Close {
        /// `true`: a portal, else a prepared statement.
        is_portal: bool,
        /// Its name.
        name: &'a [u8],
    },
    /// `db.session.postgres.function`, TPG04I; with `error`, `db.session.query.failed`, TDB02W.
    FunctionCall {
        /// Object id of the function.
        oid: u32,
        /// Arguments.
        arguments: &'a dyn Parameters,
        /// Empty, or the rule that refused it.
        error: &'a str,
    },
    /// One command of a protocol whose statements are commands (Redis): `db.session.query`, TDB02I; with `error`,
    /// `db.session.query.failed`, TDB02W: refused, never forwarded.
    ///
    /// Whoever records it has replaced secrets among keys and values already.
    Command {
        /// Canonical name, upper case, as `db_query`: `GET`, `CONFIG|SET`.
        name: &'a [u8],
        /// Its keys as `keys`, [`Parameter::Text`] each. [`Parameter::Null`]: which arguments are keys cannot be told.
        keys: &'a dyn Parameters,
        /// Arguments behind the name.
        arguments: u32,
        /// Bytes of them together.
        argument_bytes: u64,
        /// Arguments as `db_query_parameters`; [`NoParameters`] where values are not recorded.
        values: &'a dyn Parameters,
        /// Empty, or the rule that refused it.
        error: &'a str,
    },
    /// The success of a run of [`Event::Command`]s: `db.session.result`, TDB10I, for each of the session's events
    /// `first_ei` to `first_ei + count - 1`, all of which must be commands that were forwarded.
    Results {
        /// `ei` of the first.
        first_ei: u32,
        /// How many; at least 1.
        count: u32,
        /// From forwarding to the end of the reply, of each of them, microseconds.
        duration_us: u64,
    },
    /// A command of MySQL other than a text: `db.session.mysql.*`, TMY00I to TMY21I.
    Mysql {
        /// Which.
        command: MysqlCommand,
        /// The text or the name that belongs to it; empty where it has none.
        statement: Statement<'a>,
        /// Values of an execute; [`NoParameters`] of others.
        parameters: &'a dyn Parameters,
    },
    /// `db.session.result`, TDB10I.
    Result {
        /// `ei` of the statement.
        query_ei: u32,
        /// Whether it succeeded.
        success: bool,
        /// Rows returned or affected.
        rows: Option<u64>,
        /// From forwarding to the end of the reply, microseconds.
        duration_us: u64,
        /// Server's error code and message, empty on success.
        code: &'a [u8],
        /// Server's message, empty on success.
        error: &'a [u8],
        /// Bytes of COPY data, 0 when none.
        copy_bytes: u64,
        /// Hash of the whole text, when it was not known at `Query`.
        query_sha256: Option<[u8; 32]>,
        /// Never run: an earlier statement failed, the connection was lost, or we refused it.
        skipped: bool,
        /// Warnings that the server counted.
        warnings: u16,
    },
    /// `db.session.malformed_packet`, TDB06I.
    Malformed {
        /// `client` or `server`.
        side: &'a str,
        /// The rule broken.
        rule: &'a str,
        /// The first 64 bytes at most.
        payload: &'a [u8],
    },
    /// `db.session.cancel`, TDB20I. `sid` of the stamp's session; `matched` says whether a key was found.
    Cancel {
        /// Address of the canceller.
        addr: &'a str,
        /// Whether a live session had that key.
        matched: bool,
    },
    /// `db.session.terminated`, TDB21I.
    Terminated {
        /// Who or what ended it.
        actor: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// `client.disconnect`, T3006I.
    ClientDisconnect {
        /// idle, expired, lock, access.
        reason: &'a str,
    },
    /// `session.rejected`, T1006W.
    SessionRejected {
        /// The limit's name and value.
        reason: &'a str,
        /// The maximum.
        maximum: u64,
    },
    /// `auth`, T3007W: a failed attempt before anything was known.
    AuthFailed {
        /// Address of the peer.
        addr: &'a str,
        /// Listener's protocol.
        protocol: &'a str,
        /// Why.
        error: &'a str,
    },
    /// Any other event of the catalogue (control plane): name, code, and fields already rendered as JSON members
    /// without the outer braces (`"a":1,"b":"x"`). Never on a worker's hot path.
    Other {
        /// Event name.
        event: &'a str,
        /// Code.
        code: &'a str,
        /// JSON members, comma separated, no braces; may be empty.
        members: &'a str,
    },
}
