//! Tests of the MySQL machines, by subject.

mod captures;
mod commands;
mod fuzz_seeds;
mod lengths;
mod login;
mod opening;
mod parameters;
mod refusals;
mod replies;

use std::sync::Arc;

use super::capability::{self, Flags};
use super::error::Dialect;
use super::{Mysql, MysqlMachine, MysqlOpening, MysqlServer};
use crate::testing::{Driver, allow_all};
use crate::{BackendTls, Credential, Limits, Login, LoginStep, Opened, Opening, Protocol, SessionKey, Side, SignIn};

/// Without CLIENT_DEPRECATE_EOF, as MySQL's clients of old.
const EOF: Flags = capability::KNOWN_TO_ALL;
/// As MySQL's own clients today.
const OK: Flags = EOF | capability::DEPRECATE_EOF | capability::SESSION_TRACK;
/// As MariaDB's own clients.
const MARIADB: Flags = (OK & !capability::LONG_PASSWORD)
    | capability::PROGRESS
    | capability::BULK
    | capability::EXTENDED_METADATA
    | capability::CACHE_METADATA;

const SMALL: Limits =
    Limits { frame_bytes_max: 1 << 20, text_bytes_max: 256, inline_commands: false, teleport_compat: false };
const KEY: SessionKey = SessionKey { pid: 7, secret: [0; 32] };

/// A packet.
fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes[3] = sequence;
    bytes.extend_from_slice(body);
    bytes
}

fn command(code: u8, body: &[u8]) -> Vec<u8> {
    packet(0, &[&[code], body].concat())
}

fn query(text: &str) -> Vec<u8> {
    command(3, text.as_bytes())
}

/// An OK packet that says nothing.
fn ok(sequence: u8) -> Vec<u8> {
    ok_with(sequence, 0, 2)
}

fn ok_with(sequence: u8, affected: u8, status: u8) -> Vec<u8> {
    packet(sequence, &[0, affected, 0, status, 0, 0, 0])
}

fn eof(sequence: u8, status: u8) -> Vec<u8> {
    packet(sequence, &[0xfe, 0, 0, status, 0])
}

/// The end of rows as an OK packet.
fn end(sequence: u8, status: u8) -> Vec<u8> {
    packet(sequence, &[0xfe, 0, 0, status, 0, 0, 0])
}

fn error(sequence: u8, code: u16, message: &str) -> Vec<u8> {
    let [low, high] = code.to_le_bytes();
    packet(sequence, &[&[0xff, low, high], &b"#42000"[..], message.as_bytes()].concat())
}

fn definition(sequence: u8) -> Vec<u8> {
    packet(sequence, b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\x08\x81\0\0\0\0")
}

/// A HandshakeResponse41 with `flags`.
fn response(sequence: u8, flags: Flags, user: &str, plugin: &str, proof: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let flags = flags.to_le_bytes();
    body.extend_from_slice(&flags[..4]);
    body.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    body.push(45);
    body.extend_from_slice(&[0; 19]);
    body.extend_from_slice(&flags[4..]);
    body.extend_from_slice(user.as_bytes());
    body.push(0);
    body.push(u8::try_from(proof.len()).unwrap());
    body.extend_from_slice(proof);
    body.extend_from_slice(b"app\0");
    body.extend_from_slice(plugin.as_bytes());
    body.push(0);
    let attributes = b"\x0c_client_name\x08libmysql\x0f_client_version\x068.0.40";
    body.push(u8::try_from(attributes.len()).unwrap());
    body.extend_from_slice(attributes);
    packet(sequence, &body)
}

/// A database's greeting with `flags`.
fn greeting(flags: Flags, plugin: &str, nonce: &[u8; 20]) -> Vec<u8> {
    let bytes = flags.to_le_bytes();
    let mut body = b"\x0a8.4.0-test\0".to_vec();
    body.extend_from_slice(&77_u32.to_le_bytes());
    body.extend_from_slice(&nonce[..8]);
    body.push(0);
    body.extend_from_slice(&bytes[..2]);
    body.extend_from_slice(&[45, 2, 0]);
    body.extend_from_slice(&bytes[2..4]);
    body.push(21);
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&bytes[4..]);
    body.extend_from_slice(&nonce[8..]);
    body.push(0);
    body.extend_from_slice(plugin.as_bytes());
    body.push(0);
    packet(0, &body)
}

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";

fn server(flags: Flags) -> MysqlServer {
    super::greeting::read(&greeting(flags, "mysql_native_password", NONCE)).unwrap().server
}

/// An opening that has read a plain response of a client with `flags`, before a server with as many.
fn opened_with(flags: Flags, plugin: &str, proof: &[u8]) -> MysqlOpening {
    let mut opening = Mysql::opening(&[Arc::new(server(flags))], [7; 32]);
    opening.offer_no_tls();
    if flags & capability::LOCAL_FILES != 0 {
        opening.offer_local_files();
    }
    opening.start(&mut Vec::new());
    let bytes = response(1, flags, "alice", plugin, proof);
    let opened = opening.handle(&bytes, false, &mut Vec::new());
    assert!(matches!(opened, Ok(Opened::Startup { .. })), "{opened:?}");
    opening
}

fn sign_in(credential: Credential, tls: BackendTls) -> SignIn<'static, MysqlServer> {
    SignIn { user: "alice", database: "app", tls, credential, seed: [0; 32], learned: None }
}

fn machine_for(opening: MysqlOpening, flags: Flags, limits: Limits) -> MysqlMachine {
    let mut login = Mysql::login(&opening, sign_in(Credential::None, BackendTls::Off));
    let mut out = Vec::new();
    let hello = greeting(flags, "mysql_native_password", NONCE);
    assert_eq!(login.handle(&hello, &mut out).unwrap(), LoginStep::Consumed { len: hello.len() });
    assert_eq!(login.handle(&ok(2), &mut out).unwrap(), LoginStep::Ready { len: 11 });
    Mysql::machine(opening, login, KEY, limits)
}

/// A session machine of a client and a server that both have `flags`.
fn machine_with(flags: Flags) -> MysqlMachine {
    machine_for(opened_with(flags, "mysql_native_password", b""), flags, SMALL)
}

fn machine() -> MysqlMachine {
    machine_with(OK)
}

fn driver_with(flags: Flags) -> Driver<MysqlMachine> {
    Driver::new(machine_with(flags), allow_all)
}

fn driver() -> Driver<MysqlMachine> {
    driver_with(OK)
}

/// What the client was told since the welcome.
fn told(driver: &mut Driver<MysqlMachine>) -> Vec<u8> {
    driver.transcript().to_client[WELCOME..].to_vec()
}

/// Bytes of the OK packet that welcomes a client.
const WELCOME: usize = 11;
