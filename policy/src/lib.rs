//! Who may do what. This crate knows no wire format and does no IO.
//!
//! ```text
//! Document (role, db) --compile--> Snapshot --principal(Identity)--> Principal --authorize(Request)--> Permit
//!                                     |                                              \-------------> Denied
//!                                 Publisher --adopt--> SnapshotReader, one per worker
//! ```
//!
//! Two laws: nothing is allowed unless some role allows it, and a deny beats every allow. Labels, database user and
//! database name must come together in one role. What cannot be evaluated is no match in `allow` and a match in `deny`.
#![forbid(unsafe_code)]

mod command;
mod database;
mod decision;
mod document;
mod duration;
mod expression;
mod filter;
mod key;
mod labels;
#[cfg(test)]
mod naive;
mod options;
mod pattern;
mod permit;
mod principal;
mod principals;
mod publish;
mod role;
mod same;
mod secret;
mod snapshot;
mod template;
#[cfg(test)]
mod tests;

pub use command::{Clause, CommandFacts, CommandRules, CommandSet, Verdict};
pub use database::{
    AdminUser, AuthMethod, Database, DatabaseAuth, DatabaseLimits, DatabaseMode, DatabaseProtocol, DatabaseTls, TlsMode,
};
pub use decision::{Because, Decision, Denied, Effect, Request};
pub use document::{
    DOCUMENT_BYTES_MAX, DatabaseDocument, Document, DocumentError, DocumentErrors, Kind, RoleDocument, UnknownKind,
    UserDocument, Warning, preset_roles,
};
pub use duration::parse_duration;
pub use key::KeyRules;
pub use labels::Labels;
pub use options::{
    AuditedParameters, AuditedStatements, ClusterSettings, CreateDbUserMode, DeviceTrust, LockMode, OnAccessChange,
    SESSION_TTL_MAX, SessionMfa, SessionOptions, SessionRecording, StatementAudit,
};
pub use permit::Permit;
pub use principal::Principal;
pub use publish::{Publisher, SnapshotReader};
pub use secret::{SecretRef, SecretRefError};
pub use snapshot::{CompileError, CompileErrors, Identity, Snapshot, Source, UnknownRole};
