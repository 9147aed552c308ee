//! Tests of the Redis protocol.

mod broken;
mod captures;
mod commands;
mod differential;
mod fuzz_seeds;
mod login;
mod refusals;
mod refused_session;
mod streams;

use super::{CommandTable, Redis, RedisMachine, write_command};
use crate::{BackendTls, Credential, Limits, Opened, Opening, Operation, Protocol, SessionKey, SignIn};

/// A session of `user` with `credential`, over a server whose table is our own.
fn machine_of(user: &str, credential: Credential, limits: Limits) -> RedisMachine {
    let mut opening = Redis::opening(&[], [0; 32]);
    opening.offer_no_tls();
    assert!(matches!(
        opening.handle(b"*1\r\n$4\r\nPING\r\n", false, &mut Vec::new()),
        Ok(Opened::Startup { len: 0, .. })
    ));
    let learned = Some(std::sync::Arc::new(CommandTable::default()));
    let sign_in = SignIn { user, database: "", tls: BackendTls::Off, credential, seed: [0; 32], learned };
    let login = Redis::login(&opening, sign_in);
    Redis::machine(opening, login, SessionKey { pid: 7, secret: [1; 32] }, limits)
}

fn machine() -> RedisMachine {
    machine_of("default", Credential::None, LIMITS)
}

const LIMITS: Limits =
    Limits { frame_bytes_max: 512 << 20, text_bytes_max: 1024, inline_commands: true, teleport_compat: false };

/// A pipeline of commands, their words separated by blanks.
fn pipeline(commands: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        write_command(&words, &mut out);
    }
    out
}

fn command_of<'a>(operation: &Operation<'a>) -> super::Command<'a> {
    match operation.command {
        crate::Command::Redis(command) => command,
        crate::Command::None => unreachable!("every operation of Redis is a command"),
    }
}

/// Refuses what is called NOSUCH or has a key `no`.
fn ruler(operation: &Operation<'_>) -> bool {
    let command = command_of(operation);
    command.name() != "FLUSHALL" && !command.keys().any(|key| key.is_ok_and(|key| key.bytes == b"no"))
}
