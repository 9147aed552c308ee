//! Where a secret is found. The secret itself never enters this crate.

use std::fmt;
use std::path::PathBuf;

/// A reference to a secret that is resolved elsewhere (user-experience 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `file:///path`: the content of a file.
    File(PathBuf),
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `command:/path args`: the first line that a program prints; the words after the program are its arguments.
    Command(Vec<String>),
    /// `systemd-credential:NAME`: a credential that the service manager passed in.
    SystemdCredential(String),
}

/// A text that is no secret reference. It never holds the text, which may be the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    /// None of the known forms: most likely the secret itself.
    #[error(
        "a secret is written as a reference: file:///path, env:NAME, command:/path args or systemd-credential:NAME"
    )]
    Literal,
    /// The form is known, what follows it is not usable.
    #[error("the secret reference `{0}` needs {1}")]
    Incomplete(&'static str, &'static str),
}

impl SecretRef {
    /// Reads a reference. Errors: [`SecretRefError`], which never shows the text.
    pub fn parse(text: &str) -> Result<Self, SecretRefError> {
        if let Some(path) = text.strip_prefix("file://") {
            return match path.starts_with('/') && path.len() > 1 && !path.contains('\0') {
                true => Ok(Self::File(PathBuf::from(path))),
                false => Err(SecretRefError::Incomplete("file://", "an absolute path")),
            };
        }
        if let Some(name) = text.strip_prefix("env:") {
            return match is_name(name) {
                true => Ok(Self::Env(name.to_owned())),
                false => Err(SecretRefError::Incomplete("env:", "the name of a variable")),
            };
        }
        if let Some(line) = text.strip_prefix("command:") {
            let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            return match words.first().is_some_and(|program| program.starts_with('/')) {
                true => Ok(Self::Command(words)),
                false => Err(SecretRefError::Incomplete("command:", "an absolute path to a program")),
            };
        }
        if let Some(name) = text.strip_prefix("systemd-credential:") {
            return match is_name(name) {
                true => Ok(Self::SystemdCredential(name.to_owned())),
                false => Err(SecretRefError::Incomplete("systemd-credential:", "the name of a credential")),
            };
        }
        Err(SecretRefError::Literal)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
            Self::SystemdCredential(name) => write!(f, "systemd-credential:{name}"),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_prints_it_back() {
        for text in ["file:///etc/pw", "env:PGPASSWORD", "command:/usr/bin/get pw", "systemd-credential:pg.pw"] {
            assert_eq!(SecretRef::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_a_literal_without_showing_it() {
        for text in ["hunter2", "file:hunter2", "env:hunter2 x", "command:hunter2", "systemd-credential:", "file://"] {
            let error = SecretRef::parse(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
        }
    }
}
