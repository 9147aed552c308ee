//! What the authority can refuse, and how a person learns why.

use thiserror::Error;

/// A refusal or failure of the authority. [`ControlError::code`] is the exit code of the command line
/// (user-experience 3.3) and the `code` of the problem document.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The documents are wrong; every problem is named.
    #[error("{what} is not valid")]
    Invalid {
        /// What was judged, e.g. `document 2`.
        what: String,
        /// Every problem, one sentence each.
        problems: Vec<String>,
    },
    /// A resource of this name exists and `force` was not given.
    #[error("{kind} \"{name}\" exists already")]
    Exists {
        /// Kind as in documents.
        kind: String,
        /// Name of the resource.
        name: String,
    },
    /// The document carries a revision that is not the stored one.
    #[error("{kind} \"{name}\" was changed by somebody else")]
    Conflict {
        /// Kind as in documents.
        kind: String,
        /// Name of the resource.
        name: String,
        /// The revision of the document.
        given: String,
        /// The stored revision; 0 when there is none.
        current: u64,
    },
    /// The resource comes from the configuration file and is changed there.
    #[error("{kind} \"{name}\" is defined by the configuration file")]
    Static {
        /// Kind as in documents.
        kind: String,
        /// Name of the resource.
        name: String,
    },
    /// No such resource, or none this identity may see.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// Kind as in documents.
        kind: String,
        /// Name asked for.
        name: String,
    },
    /// Policy says no. The text names the deciding clause and is for the identity that asked.
    #[error("{what} denied")]
    Denied {
        /// What was asked.
        what: String,
        /// The deciding role and clause.
        why: String,
    },
    /// The identity is missing, expired or not of this cluster.
    #[error("not logged in")]
    Identity {
        /// What is wrong with the certificate.
        why: String,
    },
    /// Something must be chosen and was not.
    #[error("{what} must be named")]
    Choose {
        /// The missing choice, e.g. `database user`.
        what: &'static str,
        /// What may be chosen; empty when anything or nothing is allowed.
        choices: Vec<String>,
    },
    /// The request itself is wrong.
    #[error("{what}")]
    Request {
        /// What is wrong.
        what: String,
    },
    /// The data directory cannot serve this server.
    #[error("cannot use the data directory: {what}")]
    DataDirectory {
        /// What is wrong with it.
        what: String,
    },
    /// The store failed.
    #[error("store failed: {0}")]
    Store(#[from] rusqlite::Error),
    /// Reading or writing a file or socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Making or reading a certificate failed.
    #[error("certificate failed: {0}")]
    Certificate(String),
}

impl ControlError {
    /// Exit code of the command line for this error (user-experience 3.3).
    pub fn code(&self) -> u8 {
        match self {
            Self::Choose { .. } => 2,
            Self::Identity { .. } => 3,
            Self::Denied { .. } => 4,
            Self::NotFound { .. } => 5,
            Self::Exists { .. } | Self::Conflict { .. } | Self::Static { .. } => 6,
            Self::DataDirectory { .. } => 78,
            Self::Invalid { .. } | Self::Request { .. } | Self::Store(_) | Self::Io { .. } | Self::Certificate(_) => 1,
        }
    }

    /// The second line of the three-part message: why it happened.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Invalid { problems, .. } => Some(problems.join("; ")),
            Self::Exists { .. } => Some("create without force never replaces a resource".into()),
            Self::Conflict { given, current: 0, .. } => {
                Some(format!("the document has revision {given}; the resource was removed"))
            }
            Self::Conflict { given, current, .. } => {
                Some(format!("the document has revision {given}, the stored resource {current}"))
            }
            Self::Static { .. } => Some("resources of the configuration file are read-only here".into()),
            Self::Denied { why, .. } | Self::Identity { why } => Some(why.clone()),
            Self::Choose { choices, .. } if choices.is_empty() => None,
            Self::Choose { choices, .. } => Some(format!("allowed are {}", choices.join(", "))),
            _ => None,
        }
    }

    /// The third line: the next command to type.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("ringgate create -f FILE".into()),
            Self::Conflict { kind, name, .. } => {
                Some(format!("ringgate get {kind}/{name} --format yaml, apply your change to it and create it again"))
            }
            Self::Static { .. } => Some("change the configuration file and reload the server".into()),
            Self::NotFound { kind, .. } if kind == "db" => Some("ringgate db ls".into()),
            Self::NotFound { kind, .. } => Some(format!("ringgate get {kind}")),
            Self::Identity { .. } => Some("ringgate login".into()),
            Self::Choose { what: "database user", .. } => Some("add --db-user USER".into()),
            Self::Choose { what: "database name", .. } => Some("add --db-name NAME".into()),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<rcgen::Error> for ControlError {
    fn from(e: rcgen::Error) -> Self {
        Self::Certificate(e.to_string())
    }
}
