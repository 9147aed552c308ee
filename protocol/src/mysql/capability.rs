//! Capability flags: which are offered, agreed on, and asked of the database.
//!
//! A flag that shapes what goes over the wire must stand on both sides or on neither, because rows, ends
//! and parameters pass unchanged. So a client is offered only what the database had when it was last seen,
//! and a database that has lost such a flag since then ends the sign-in.

/// Flags of `Protocol::HandshakeV10` and `HandshakeResponse41`; MariaDB's own in the upper half.
pub(super) type Flags = u64;

/// MySQL: long passwords. MariaDB: `CLIENT_MYSQL`, and where it is clear the upper half is valid.
pub(super) const LONG_PASSWORD: Flags = 1;
pub(super) const FOUND_ROWS: Flags = 1 << 1;
pub(super) const LONG_FLAG: Flags = 1 << 2;
pub(super) const CONNECT_WITH_DB: Flags = 1 << 3;
pub(super) const NO_SCHEMA: Flags = 1 << 4;
pub(super) const ODBC: Flags = 1 << 6;
pub(super) const LOCAL_FILES: Flags = 1 << 7;
pub(super) const IGNORE_SPACE: Flags = 1 << 8;
pub(super) const PROTOCOL_41: Flags = 1 << 9;
pub(super) const INTERACTIVE: Flags = 1 << 10;
pub(super) const SSL: Flags = 1 << 11;
pub(super) const IGNORE_SIGPIPE: Flags = 1 << 12;
pub(super) const TRANSACTIONS: Flags = 1 << 13;
pub(super) const RESERVED: Flags = 1 << 14;
pub(super) const SECURE_CONNECTION: Flags = 1 << 15;
pub(super) const MULTI_STATEMENTS: Flags = 1 << 16;
pub(super) const MULTI_RESULTS: Flags = 1 << 17;
pub(super) const PS_MULTI_RESULTS: Flags = 1 << 18;
pub(super) const PLUGIN_AUTH: Flags = 1 << 19;
pub(super) const CONNECT_ATTRS: Flags = 1 << 20;
pub(super) const PLUGIN_AUTH_LENENC: Flags = 1 << 21;
pub(super) const EXPIRED_PASSWORDS: Flags = 1 << 22;
pub(super) const SESSION_TRACK: Flags = 1 << 23;
pub(super) const DEPRECATE_EOF: Flags = 1 << 24;
pub(super) const OPTIONAL_METADATA: Flags = 1 << 25;
pub(super) const ZSTD: Flags = 1 << 26;
pub(super) const QUERY_ATTRIBUTES: Flags = 1 << 27;
/// `MARIADB_CLIENT_PROGRESS`.
pub(super) const PROGRESS: Flags = 1 << 32;
/// `MARIADB_CLIENT_STMT_BULK_OPERATIONS`.
pub(super) const BULK: Flags = 1 << 34;
/// `MARIADB_CLIENT_EXTENDED_METADATA`.
pub(super) const EXTENDED_METADATA: Flags = 1 << 35;
/// `MARIADB_CLIENT_CACHE_METADATA`.
pub(super) const CACHE_METADATA: Flags = 1 << 36;
/// `MARIADB_CLIENT_BULK_UNIT_RESULTS`.
pub(super) const BULK_UNIT_RESULTS: Flags = 1 << 37;

/// What a client may use whatever the database has: it ends with us.
const OURS: Flags = LONG_PASSWORD
    | CONNECT_WITH_DB
    | IGNORE_SIGPIPE
    | PROTOCOL_41
    | SECURE_CONNECTION
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC;

/// What changes the bytes of a session: on both sides or on neither.
const SHAPES: Flags = LONG_FLAG
    | TRANSACTIONS
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | SESSION_TRACK
    | DEPRECATE_EOF
    | OPTIONAL_METADATA
    | QUERY_ATTRIBUTES
    | LOCAL_FILES
    | PROGRESS
    | BULK
    | EXTENDED_METADATA
    | CACHE_METADATA
    | BULK_UNIT_RESULTS;

/// What a session asks of the server's behaviour. A server without one ignores it.
const HABITS: Flags = FOUND_ROWS | NO_SCHEMA | ODBC | IGNORE_SPACE | INTERACTIVE | RESERVED | EXPIRED_PASSWORDS;

/// What every server since MySQL 5.6 and MariaDB 10.0 has: offered while nothing was learnt.
pub(super) const KNOWN_TO_ALL: Flags = OURS
    | LONG_FLAG
    | FOUND_ROWS
    | NO_SCHEMA
    | ODBC
    | IGNORE_SPACE
    | INTERACTIVE
    | TRANSACTIONS
    | RESERVED
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | EXPIRED_PASSWORDS;

/// What a client is offered where the database has `theirs`. Compression is never among it.
pub(super) const fn offered(theirs: Flags, tls: bool, local_files: bool) -> Flags {
    let mut flags = OURS | theirs & (SHAPES | HABITS);
    if !local_files {
        flags &= !LOCAL_FILES;
    }
    if is_mariadb(theirs) {
        flags &= !LONG_PASSWORD;
    }
    if tls { flags | SSL } else { flags }
}

/// What a session of both sides has: the client's choice out of what it was `offered`.
pub(super) const fn agreed(chosen: Flags, offered: Flags) -> Flags {
    // A client with `CLIENT_MYSQL` cannot have set the upper half.
    let chosen = if chosen & LONG_PASSWORD != 0 { chosen & 0xffff_ffff } else { chosen };
    chosen & (offered | LONG_PASSWORD)
}

/// What is asked of a database that has `theirs`, for a session with `agreed`. `None` when it lacks a flag
/// that the session's bytes depend on.
pub(super) const fn requested(agreed: Flags, theirs: Flags, tls: bool, with_database: bool) -> Option<Flags> {
    if agreed & SHAPES & !theirs != 0 {
        return None;
    }
    let mut flags = agreed & (SHAPES | LONG_PASSWORD);
    flags |= agreed & theirs & HABITS;
    flags |= PROTOCOL_41 | SECURE_CONNECTION;
    flags |= theirs & (PLUGIN_AUTH | PLUGIN_AUTH_LENENC | CONNECT_ATTRS);
    if with_database {
        flags |= CONNECT_WITH_DB;
    }
    if tls {
        flags |= SSL;
    }
    Some(flags)
}

/// MariaDB says who it is by leaving the lowest flag out.
pub(super) const fn is_mariadb(theirs: Flags) -> bool {
    theirs & LONG_PASSWORD == 0
}
