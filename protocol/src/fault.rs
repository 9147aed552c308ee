//! One classification of what went wrong, shared by metrics, audit and refusals.

use crate::Side;

/// What went wrong, in words every protocol shares. Carries nothing a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The side whose bytes or silence caused it.
    pub side: Side,
    /// The class, for metrics and audit.
    pub kind: FaultKind,
    /// A short constant phrase, safe to show to either side.
    pub what: &'static str,
}

/// The classes of [`Fault`]. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The bytes cannot be decoded.
    Malformed,
    /// Decodable, but not allowed in this state.
    OutOfOrder,
    /// A length beyond the bound of its message.
    TooLarge,
    /// Allowed by the specification, not served by the gateway.
    Unsupported,
    /// Refused by policy.
    Denied,
    /// The database cannot be reached or refused our login.
    Unavailable,
    /// A deadline passed.
    TimedOut,
    /// The peer went away in the middle.
    Gone,
    /// Our own mistake.
    Internal,
}

/// A refusal in the words a client may read. Each protocol maps `kind` to its own error code.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// Why, as a class that each protocol maps to its own code.
    pub kind: RefusalKind,
    /// What happened: one line, no trailing full stop.
    pub message: &'a str,
    /// Why it happened, or empty.
    pub detail: &'a str,
    /// What to type next, or empty.
    pub hint: &'a str,
}

/// The cases of protocol-notes 1.5, 2.6, 3.6 and 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Not authorised before the session was ready (PostgreSQL 28000).
    NotAuthorized,
    /// A statement or command refused by policy (42501).
    Denied,
    /// The client has still to say who it is within the session (28000; Redis NOAUTH).
    NotSignedIn,
    /// A connection limit is reached (53300).
    TooManyConnections,
    /// The database is not known to the gateway (3D000).
    UnknownDatabase,
    /// The database cannot be reached (08001).
    Unreachable,
    /// The database is starting up or draining (57P03).
    CannotConnectNow,
    /// Cut by a lock, an expiry, an administrator or a drain (57P01).
    Terminated,
    /// Cut because nothing happened for too long (57P05).
    Idle,
    /// The peer broke the protocol (08P01).
    ProtocolViolation,
    /// Allowed by the protocol, not served (0A000).
    Unsupported,
    /// A frame beyond its bound (08P01).
    TooLarge,
    /// The audit log cannot take the record (58030).
    AuditUnavailable,
    /// A mistake of the gateway (XX000).
    Internal,
}
