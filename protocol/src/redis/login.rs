//! Signs in to a Redis server and asks for its command table.

use std::rc::Rc;
use std::sync::Arc;

use crate::{Credential, Fault, FaultKind, Login, LoginError, LoginStep, Side, SignIn};

use super::learn::{self, Learning};
use super::reply::{self, Element};
use super::resp::{integer, write_command};
use super::table::CommandTable;

/// How much of an error is kept.
const ERROR_MAX: usize = 1024;

/// AUTH, SELECT, COMMAND, all sent at once: nothing of it depends on an answer.
pub struct RedisLogin {
    pub(super) identity: Identity,
    table: Option<Arc<CommandTable>>,
    state: State,
    failed: Option<LoginError>,
}

/// Who the session is at the server. It is needed again after RESET.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) user: Rc<str>,
    pub(super) credential: Credential,
    /// The number of the database, or empty for the first.
    pub(super) database: Rc<str>,
}

impl Identity {
    /// The client signs in itself.
    pub(super) fn is_passthrough(&self) -> bool {
        matches!(self.credential, Credential::Passthrough)
    }

    /// Appends what makes a fresh connection this identity's. Gives the number of commands.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> u32 {
        let mut commands = 0;
        if let Credential::Password(password) = &self.credential {
            // A password set by `requirepass` belongs to the user `default`.
            if self.user.is_empty() || &*self.user == "default" {
                write_command(&[b"AUTH", password.as_bytes()], out);
            } else {
                write_command(&[b"AUTH", self.user.as_bytes(), password.as_bytes()], out);
            }
            commands += 1;
        }
        if !self.database.is_empty() && &*self.database != "0" {
            write_command(&[b"SELECT", self.database.as_bytes()], out);
            commands += 1;
        }
        commands
    }
}

impl std::fmt::Debug for RedisLogin {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLogin").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    /// So many commands of the identity are unanswered.
    Identifying(u32),
    /// COMMAND was sent.
    Learning(Learning),
    Ready,
}

impl RedisLogin {
    pub(super) fn new(sign_in: SignIn<'_, CommandTable>) -> Self {
        // A name that is no number names no database of Redis: it is the route's own word.
        let is_number = integer(sign_in.database.as_bytes()).is_some_and(|number| number >= 0);
        let identity = Identity {
            user: sign_in.user.into(),
            credential: sign_in.credential,
            database: if is_number { sign_in.database.into() } else { "".into() },
        };
        RedisLogin { identity, table: sign_in.learned, state: State::Ready, failed: None }
    }

    pub(super) fn table(&self) -> Option<Arc<CommandTable>> {
        self.table.clone()
    }

    fn fail(&mut self, kind: FaultKind, what: &'static str, text: &[u8]) -> LoginError {
        let text = String::from_utf8_lossy(text.get(..text.len().min(ERROR_MAX)).unwrap_or_default()).into_owned();
        let fault = Fault { side: Side::Backend, kind, what };
        // The error is about our credential, not the client's: it is not shown to it.
        let error = LoginError { fault, frame: Vec::new(), text };
        self.failed = Some(error.clone());
        error
    }

    /// The answers to AUTH and SELECT.
    fn identify(&mut self, left: u32, input: &[u8]) -> Result<LoginStep, LoginError> {
        let len = match reply::element(input, &mut 0) {
            Ok(Element::Whole { len, inner: 0 }) if len <= input.len() as u64 => len as usize,
            Ok(Element::Partial) => return Ok(LoginStep::Need { need: input.len() + 1 }),
            _ => return Err(self.fail(FaultKind::Malformed, "an answer to the login that is none", b"")),
        };
        let line = input.get(1..len - 2).unwrap_or_default();
        match input.first() {
            Some(b'+') => {}
            // The client has still to sign in.
            Some(b'-') if self.identity.is_passthrough() && line.starts_with(b"NOAUTH") => {}
            Some(b'-') => return Err(self.fail(FaultKind::Unavailable, "the database refused the login", line)),
            _ => return Err(self.fail(FaultKind::Malformed, "an answer to the login that is none", b"")),
        }
        self.state = match left {
            1 if self.table.is_none() => State::Learning(Learning::default()),
            1 => State::Ready,
            _ => State::Identifying(left - 1),
        };
        Ok(if matches!(self.state, State::Ready) { LoginStep::Ready { len } } else { LoginStep::Consumed { len } })
    }

    fn learn(&mut self, input: &[u8]) -> Result<LoginStep, LoginError> {
        let State::Learning(learning) = &mut self.state else { return Ok(LoginStep::Ready { len: 0 }) };
        match learning.handle(input) {
            Ok(learn::Step::Need(need)) => Ok(LoginStep::Need { need }),
            Ok(learn::Step::Consumed(len)) => Ok(LoginStep::Consumed { len }),
            Ok(learn::Step::Done(len, table)) => {
                self.table = Some(Arc::new(table));
                self.state = State::Ready;
                Ok(LoginStep::Ready { len })
            }
            // What it knows is not to be had before the client has signed in, or never: our own table does.
            Ok(learn::Step::Refused(_)) if input.starts_with(b"-NOAUTH") && !self.identity.is_passthrough() => {
                Err(self.fail(FaultKind::Unavailable, "the database wants a password", b""))
            }
            Ok(learn::Step::Refused(len)) => {
                self.state = State::Ready;
                Ok(LoginStep::Ready { len })
            }
            Err(what) => Err(self.fail(FaultKind::Malformed, what, b"")),
        }
    }
}

impl Login for RedisLogin {
    /// Called inside TLS where there is any: a Redis server speaks nothing else on such a port.
    fn start(&mut self, out: &mut Vec<u8>) {
        let commands = self.identity.write(out);
        // Asked for even where the answer is known if nothing else is: a server that is not ready says so.
        if self.table.is_none() {
            write_command(&[b"COMMAND"], out);
        } else if commands == 0 {
            write_command(&[b"PING"], out);
        }
        self.state = match commands {
            0 if self.table.is_none() => State::Learning(Learning::default()),
            0 => State::Identifying(1),
            _ => State::Identifying(commands),
        };
    }

    fn handle(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.state {
            State::Identifying(left) => self.identify(left, input),
            State::Learning(_) => self.learn(input),
            State::Ready => Ok(LoginStep::Ready { len: 0 }),
        }
    }

    fn tls_started(&mut self, _out: &mut Vec<u8>) {}
}
