//! What a command says when it fails (user-experience 3.4) and the exit code that goes with it (3.3).

use std::fmt;
use std::fmt::Write as _;

use super::output::escape;

/// Exit codes, a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// No more specific code.
    Failed = 1,
    /// Bad flag, missing argument, or a needed answer under `--no-input`.
    Usage = 2,
    /// Not logged in, or the certificate has expired.
    NotLoggedIn = 3,
    /// Denied by policy.
    Denied = 4,
    /// No such thing.
    NotFound = 5,
    /// Exists already, stale revision, name taken.
    Conflict = 6,
    /// Gateway, authority or database does not answer.
    Unreachable = 8,
    /// Took longer than allowed.
    TimedOut = 9,
    /// Audit chain broken, signature wrong.
    Unverified = 10,
    /// At least one of several items failed.
    Partly = 11,
    /// The server needs a person to change configuration or host.
    Refused = 78,
}

impl Exit {
    /// The number the process ends with.
    pub(crate) fn code(self) -> i32 {
        self as i32
    }
}

/// A failed command: what happened, why, and what to type next. Holds no secret.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    error: String,
    why: Option<String>,
    attempt: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<String>) -> Failure {
        Failure { exit, error: error.into(), why: None, attempt: None }
    }

    pub(crate) fn why(mut self, why: impl fmt::Display) -> Failure {
        self.why = Some(why.to_string());
        self
    }

    /// The next command to type.
    pub(crate) fn attempt(mut self, command: impl Into<String>) -> Failure {
        self.attempt = Some(command.into());
        self
    }

    /// The lines for stderr.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", escape(&self.error));
        for (label, value) in [("why", &self.why), ("try", &self.attempt)] {
            for (i, line) in value.iter().flat_map(|v| v.lines()).enumerate() {
                let label = if i == 0 { format!("{label}:") } else { String::new() };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "  {label:<4} {}", escape(line));
            }
        }
        text
    }
}

/// What went wrong with a file of ours.
pub(crate) fn file(doing: &str, path: &std::path::Path, source: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {doing} {}", path.display())).why(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_stand_on_lines_of_their_own_and_cannot_drive_a_terminal() {
        let failure = Failure::new(Exit::Denied, "access to database \"a\u{1b}[2J\" denied")
            .why("role says no\nand so does another")
            .attempt("ringgate db ls");
        assert_eq!(
            failure.render(),
            "error: access to database \"a\\u{1b}[2J\" denied\n  why: role says no\n       and so does another\n  \
             try: ringgate db ls\n"
        );
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let table = [
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::NotLoggedIn, 3),
            (Exit::Denied, 4),
            (Exit::NotFound, 5),
            (Exit::Conflict, 6),
            (Exit::Unreachable, 8),
            (Exit::TimedOut, 9),
            (Exit::Unverified, 10),
            (Exit::Partly, 11),
            (Exit::Refused, 78),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}
