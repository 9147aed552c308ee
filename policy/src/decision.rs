//! The answer to a request, and why.

use std::fmt;
use std::sync::Arc;

use crate::database::Database;

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// One connection to decide on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The database.
    pub database: &'a Arc<Database>,
    /// The database user asked for.
    pub db_user: &'a str,
    /// The database name asked for; empty stands for the user's name on PostgreSQL, for `0` on Redis.
    pub db_name: &'a str,
    /// Whether a second factor was verified for this session.
    pub mfa_verified: bool,
    /// Whether the client's device is enrolled, or the client is a bot that needs none.
    pub device_trusted: bool,
}

/// An answer with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Yes or no.
    pub effect: Effect,
    /// Why.
    pub because: Because,
    /// Version of the snapshot that was asked.
    pub version: u64,
}

/// Why a decision is what it is: the role and its clause, as the audit keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Because {
    /// Labels, user and name came together in this role.
    Allowed {
        /// The role.
        role: Arc<str>,
        /// Its selector.
        clause: Arc<str>,
    },
    /// A deny list of this role matched.
    DeniedBy {
        /// The role.
        role: Arc<str>,
        /// The list and what matched.
        clause: String,
    },
    /// The role that came nearest, and what was missing.
    NotAllowed {
        /// The role.
        role: Arc<str>,
        /// What it allows.
        clause: String,
        /// What the request has instead.
        found: String,
    },
    /// No role of the principal allows any database.
    NothingAllowed,
    /// A second factor is demanded, by this role or by everybody's rules.
    MfaRequired {
        /// The role; absent when the cluster or every role demands it.
        role: Option<Arc<str>>,
    },
    /// An enrolled device is demanded.
    DeviceRequired {
        /// The role.
        role: Arc<str>,
    },
    /// The server would cut the name to another principal.
    NameTooLong {
        /// `user` or `name`.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The server's limit.
        bytes_max: usize,
    },
    /// The identity is limited to other databases.
    NotInRequestedResources,
}

impl Because {
    /// The role that decided, where one did.
    pub fn role(&self) -> Option<&str> {
        match self {
            Self::Allowed { role, .. }
            | Self::DeniedBy { role, .. }
            | Self::NotAllowed { role, .. }
            | Self::DeviceRequired { role } => Some(role),
            Self::MfaRequired { role } => role.as_deref(),
            Self::NothingAllowed | Self::NameTooLong { .. } | Self::NotInRequestedResources => None,
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed { role, clause } => write!(f, "role {role:?} allows {clause}"),
            Self::DeniedBy { role, clause } => write!(f, "role {role:?} denies {clause}"),
            Self::NotAllowed { role, clause, found } => write!(f, "role {role:?} allows {clause}; {found}"),
            Self::NothingAllowed => f.write_str("no role allows any database"),
            Self::MfaRequired { role: Some(role) } => write!(f, "role {role:?} requires session MFA"),
            Self::MfaRequired { role: None } => f.write_str("session MFA is required of every session"),
            Self::DeviceRequired { role } => write!(f, "role {role:?} requires a trusted device"),
            Self::NameTooLong { what, bytes, bytes_max } => {
                write!(f, "the database {what} has {bytes} bytes, more than the {bytes_max} that the server keeps")
            }
            Self::NotInRequestedResources => f.write_str("the access request in use is for other databases"),
        }
    }
}

/// A refusal. Its own text is for the client and does not say which rule refused; `because` is for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Why, for the audit.
    pub because: Because,
    /// Name of the database.
    pub database: String,
    /// Version of the snapshot that was asked.
    pub version: u64,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access to database {:?} denied: ", self.database)?;
        f.write_str(match self.because {
            Because::MfaRequired { .. } => "session MFA is required",
            Because::DeviceRequired { .. } => "a trusted device is required",
            _ => "check the database user and the database name",
        })
    }
}

impl std::error::Error for Denied {}
