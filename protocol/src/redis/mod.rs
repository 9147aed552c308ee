//! Redis: RESP2 and RESP3.
//!
//! ```text
//! client                      gateway                          server
//!   | ======== TLS, client certificate ========                   |
//!   | first command ------------> |  [opening: it is Redis]       |
//!   |                             | ============ TLS ============ |
//!   |                             | AUTH, SELECT, COMMAND ------> |
//!   |                             | <--- +OK, +OK, command table  |
//!   | the same command ---------> |  [machine: from here on]      |
//!   | GET, SET, HELLO 3, ... ---> | [a ruling each] ------------> |
//!   | <------------------------------------- replies in order, pushes |
//! ```
//!
//! Served: pipelines, inline commands (as arrays), RESP2 and RESP3 with HELLO, transactions, pub/sub in both
//! protocol versions, blocking commands, MONITOR, CLIENT REPLY and TRACKING, RESET, QUIT, commands of modules that
//! the server's own `COMMAND` names.
//!
//! ## What cannot work behind a gateway
//! | Command | Why | The client sees |
//! |---|---|---|
//! | SYNC, PSYNC, REPLCONF | the stream behind them is no RESP, and holds every key of every database | `ERR ringgate: command 'X' is not supported through the gateway` |
//! | CLIENT TRACKING with REDIRECT | it names another connection of the server, which may be somebody else's | the same |
//! | SCRIPT DEBUG | EVAL then speaks the debugger's protocol | the same |
//! | DEBUG PROTOCOL | replies that are pushes only cannot be told from pushes | the same |
//! | AUTH, HELLO, SUBSCRIBE and their like, CLIENT REPLY, CLIENT TRACKING, MONITOR between MULTI and EXEC | their replies would stand inside that of EXEC, or change how it is read | `ERR ringgate: command not supported inside a transaction`, and EXEC is aborted |
//! | SUBSCRIBE and its like while CLIENT REPLY is OFF or SKIP | which confirmations come depends on the server's version | `ERR ringgate: subscriptions need CLIENT REPLY ON` |
//!
//! ## How a refused command is answered in its place
//! Where nothing is owed to the client the refusal is said at once. Otherwise a command that no server knows is sent
//! in its place, and the error that comes back is replaced by the refusal. So its place in the pipeline is the
//! server's own, a transaction it was to be queued in is aborted by the server (EXECABORT), and CLIENT REPLY applies
//! to it as it would have.
//!
//! ## What is looked at
//! A command is ruled on by its first 64 KiB. A longer one streams: its name, and the keys that are in front, were
//! seen; where a key cannot have been seen, [`Command::keys`] says so. A last argument of more than 4 KiB that is no
//! key is not waited for.

mod afterword;
mod arguments;
mod categories;
mod client;
pub mod cluster;
mod command;
mod commands;
mod inline;
mod keys;
mod learn;
mod login;
mod machine;
mod opening;
mod queue;
mod refusal;
mod reply;
mod resp;
mod scan;
mod server;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use arguments::Arguments;
pub use categories::Categories;
pub use command::{Command, MASK, Values};
pub use keys::{Key, Keys, Untold};
pub use login::RedisLogin;
pub use machine::RedisMachine;
pub use opening::RedisOpening;
pub use resp::{integer, write_command};
pub use table::{CommandId, CommandTable, Known, builtin};

use crate::{Afterword, DirectTls, Limits, Protocol, Refusal, SessionKey, SignIn};

/// The Redis protocol.
#[derive(Clone, Copy, Debug)]
pub struct Redis;

impl Protocol for Redis {
    const NAME: &'static str = "redis";
    const PORT: u16 = 6379;
    const DIRECT_TLS: DirectTls = DirectTls::Plain;
    const TLS_REQUEST: &'static [u8] = b"";
    type Opening = RedisOpening;
    type Login = RedisLogin;
    type Machine = RedisMachine;
    type Learned = CommandTable;

    fn opening(_learned: &[Arc<CommandTable>], _seed: [u8; 32]) -> RedisOpening {
        RedisOpening::default()
    }

    fn login(_opening: &RedisOpening, sign_in: SignIn<'_, CommandTable>) -> RedisLogin {
        RedisLogin::new(sign_in)
    }

    fn learned(login: &RedisLogin) -> Option<Arc<CommandTable>> {
        login.table()
    }

    fn machine(opening: RedisOpening, login: RedisLogin, _key: SessionKey, limits: Limits) -> RedisMachine {
        let _: RedisOpening = opening;
        RedisMachine::new(login, limits)
    }

    fn refuse(_opening: &mut RedisOpening, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        refusal::ending(refusal, out);
    }

    fn afterword(refusal: &Refusal<'_>, limits: Limits) -> Option<Box<dyn Afterword>> {
        let refusing = afterword::Refusing::new(refusal, limits.teleport_compat)?;
        Some(Box::new(refusing))
    }

    /// Redis has no cancel requests: writes nothing.
    fn cancel(_pid: u32, _secret: &[u8], _out: &mut Vec<u8>) {}
}
