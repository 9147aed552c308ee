//! Tests of the PostgreSQL machines, by subject.

mod captures;
mod differential;
mod fuzz_seeds;
mod lengths;
mod login;
mod model;
mod opening;
mod refusals;
mod session;

use super::{Postgres, PostgresMachine};
use crate::testing::{fuzz, run};
use crate::{BackendTls, Credential, Limits, Protocol, SessionKey, Side, SignIn};

/// A frame of type `tag`.
fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn query(text: &str) -> Vec<u8> {
    frame(b'Q', format!("{text}\0").as_bytes())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    frame(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str) -> Vec<u8> {
    frame(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

fn describe(target: &str) -> Vec<u8> {
    frame(b'D', format!("{target}\0").as_bytes())
}

fn close(target: &str) -> Vec<u8> {
    frame(b'C', format!("{target}\0").as_bytes())
}

fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

fn complete(tag: &str) -> Vec<u8> {
    frame(b'C', format!("{tag}\0").as_bytes())
}

fn ready(state: u8) -> Vec<u8> {
    frame(b'Z', &[state])
}

fn error(severity: &str, code: &str, message: &str) -> Vec<u8> {
    frame(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{message}\0\0").as_bytes())
}

fn notice() -> Vec<u8> {
    frame(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0")
}

/// A session machine for a client that sent `extra` at startup.
fn machine_with(extra: &[(&str, &str)], limits: Limits) -> PostgresMachine {
    let opening = fuzz::opened(extra);
    let login = Postgres::login(
        &opening,
        SignIn {
            user: "alice",
            database: "app",
            tls: BackendTls::Off,
            credential: Credential::None,
            seed: [0; 32],
            learned: None,
        },
    );
    Postgres::machine(opening, login, SessionKey { pid: 4711, secret: [0xab; 32] }, limits)
}

fn machine() -> PostgresMachine {
    machine_with(&[], Limits::default())
}

/// The script with the sign-in before it.
fn signed_in<'a>(ready: &'a [u8], script: &[(Side, &'a [u8])]) -> Vec<(Side, &'a [u8])> {
    let mut whole = vec![(Side::Backend, ready)];
    whole.extend_from_slice(script);
    whole
}
