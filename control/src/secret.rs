//! Fetching a secret from where its reference points.
//!
//! The value is wiped when dropped, never logged, never part of an error.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringgate_policy::SecretRef;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest secret, bytes.
pub const SECRET_BYTES_MAX: usize = 4096;
/// How long a `command:` may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a secret cannot be had. Names the reference, never the value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The environment variable is not set, or is not UTF-8.
    #[error("the environment variable {0} of a secret is not set")]
    Env(String),
    /// There is no credentials directory.
    #[error("the service manager passed no credentials: CREDENTIALS_DIRECTORY is not set")]
    NoCredentials,
    /// The program cannot be run or failed.
    #[error("the secret command {program} {what}")]
    Command {
        /// The program.
        program: String,
        /// What went wrong.
        what: String,
    },
    /// The value is empty, too long, not UTF-8 or contains NUL.
    #[error("the secret at {0} is empty, longer than 4 KiB or not text")]
    Unusable(String),
}

/// Fetches the secret: the file's content without its last line end, the variable's value, the command's first
/// line within [`COMMAND_TIMEOUT`], or the service manager's credential. A file that others may read is used
/// with a warning. Blocks: call it where waiting is allowed.
pub fn resolve(reference: &SecretRef) -> Result<Zeroizing<String>, SecretError> {
    let bytes = match reference {
        SecretRef::File(path) => read_file(path)?,
        SecretRef::Env(name) => {
            let value = std::env::var(name).map_err(|_| SecretError::Env(name.clone()))?;
            Zeroizing::new(value.into_bytes())
        }
        SecretRef::Command(words) => first_line_of(words, COMMAND_TIMEOUT)?,
        SecretRef::SystemdCredential(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(SecretError::NoCredentials)?;
            read_file(&Path::new(&directory).join(name))?
        }
    };
    let unusable = || SecretError::Unusable(reference.to_string());
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable())?;
    let text = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
    if text.is_empty() || text.len() > SECRET_BYTES_MAX || text.contains('\0') {
        return Err(unusable());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let fail = |source| SecretError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format_args!("{mode:04o}"), "others may read this secret file");
    }
    read_bounded(file).map_err(fail)
}

/// One byte more than allowed tells a too long secret from one that fits. The buffer never grows, so no copy of
/// the secret stays behind in freed memory.
fn read_bounded(source: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let limit = SECRET_BYTES_MAX + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    source.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn first_line_of(words: &[String], timeout: Duration) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let program = words.first().cloned().unwrap_or_default();
    let fail = |what: String| SecretError::Command { program: program.clone(), what };
    let mut command = Command::new(&program);
    command.args(words.iter().skip(1)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| fail(format!("cannot be started: {e}")))?;
    let deadline = Instant::now() + timeout;
    let line = read_line(&mut child, deadline);
    let status = wait(&mut child, deadline).map_err(|e| fail(format!("cannot be waited for: {e}")))?;
    match (line, status) {
        (_, None) => Err(fail(format!("took longer than {timeout:?}"))),
        (_, Some(status)) if !status.success() => Err(fail(format!("failed: {status}"))),
        (Some(line), _) => Ok(line),
        (None, _) => Err(fail("printed nothing".into())),
    }
}

/// The first line, read on a thread of its own: a pipe has no read timeout. The thread ends with the pipe.
fn read_line(child: &mut Child, deadline: Instant) -> Option<Zeroizing<Vec<u8>>> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stdout = stdout;
        let line = first_line(&mut stdout);
        // Nobody listens any more once the deadline has passed.
        let _ = sender.send(line.ok().filter(|l| !l.is_empty()));
        // What follows is read and dropped, so that the program is not ended by a closed pipe.
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok().flatten()
}

/// Reads up to the first line end, which is left out; or up to the bound, or the end.
fn first_line(source: &mut impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; SECRET_BYTES_MAX + 1]);
    let mut length = 0;
    while length < bytes.len() {
        let n = source.read(&mut bytes[length..])?;
        if let Some(end) = bytes[length..length + n].iter().position(|b| *b == b'\n') {
            length += end;
            break;
        }
        length += n;
        if n == 0 {
            break;
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Waits until the deadline, then kills. `None`: it was killed.
fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<std::process::ExitStatus>> {
    let pause = Duration::from_millis(5);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests;
