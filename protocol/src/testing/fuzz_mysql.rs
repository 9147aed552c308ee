//! The bodies of MySQL's fuzz targets. Each takes any bytes and must not panic.

use std::sync::Arc;

use super::{Driver, Random, Ruler, allow_all, check_cut};
use crate::mysql::{Mysql, MysqlMachine, MysqlOpening, MysqlServer};
use crate::{
    BackendTls, Credential, Limits, Login, LoginStep, Machine, Opened, Opening, Protocol, SessionKey, Side, SignIn,
    Verb,
};

/// The front of a client connection; the first byte chooses the channel.
pub fn opening(data: &[u8]) {
    let Some((&mode, input)) = data.split_first() else { return };
    let mut opening = Mysql::opening(&[], [mode; 32]);
    if mode & 1 != 0 {
        opening.offer_no_tls();
    }
    let mut out = Vec::new();
    opening.start(&mut out);
    let (mut at, mut tls) = (0, mode & 2 != 0);
    loop {
        let rest = &input[at..];
        match opening.handle(rest, tls, &mut out) {
            Err(fault) => {
                assert_eq!(opening.handle(rest, tls, &mut out).err(), Some(fault), "another error the second time");
                return;
            }
            Ok(Opened::Need { need }) => {
                assert!(need > rest.len() && need <= 16 * 1024, "asked for {need} bytes");
                return;
            }
            Ok(Opened::StartTls { len }) => {
                assert!(!tls, "TLS in TLS");
                at += len;
                tls = true;
            }
            Ok(Opened::Startup { len, startup }) => {
                assert!(len <= rest.len() && !startup.user.is_empty());
                assert!(tls || mode & 1 != 0, "a session without TLS");
                return;
            }
            Ok(other) => unreachable!("{other:?}"),
        }
    }
}

/// A packet.
pub fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap_or(0).to_le_bytes().to_vec();
    bytes[3] = sequence;
    bytes.extend_from_slice(body);
    bytes
}

/// The flags of MySQL's clients today, and with `mode` files, attributes and optional metadata, or MariaDB's own.
fn flags(mode: u8) -> u64 {
    const OK: u64 = 0x01ff_b75f;
    match mode % 4 {
        0 => OK & !(1 << 24),
        1 => OK,
        2 => OK | 1 << 7 | 1 << 25 | 1 << 27,
        _ => OK & !1 | 0x1d << 32,
    }
}

/// A database's greeting.
fn greeting(flags: u64) -> Vec<u8> {
    let bytes = (flags | 1 << 11).to_le_bytes();
    let mut body = b"\x0a8.4.0\0\x07\0\0\0abcdefgh\0".to_vec();
    body.extend_from_slice(&bytes[..2]);
    body.extend_from_slice(&[45, 2, 0]);
    body.extend_from_slice(&bytes[2..4]);
    body.extend_from_slice(&[21, 0, 0, 0, 0, 0, 0]);
    body.extend_from_slice(&bytes[4..]);
    body.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
    packet(0, &body)
}

const OK_PACKET: &[u8] = &[7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0];

/// An opening that has read a plain response of a client with `flags`, before a database with as many.
fn opened(flags: u64) -> MysqlOpening {
    let mut probe = Mysql::login(&Mysql::opening(&[], [0; 32]), sign_in(Credential::None, BackendTls::Off));
    let read = probe.handle(&greeting(flags), &mut Vec::new());
    assert!(read.is_ok(), "the greeting above is well-formed");
    let learned: Vec<Arc<MysqlServer>> = Mysql::learned(&probe).into_iter().collect();
    let mut opening = Mysql::opening(&learned, [0; 32]);
    opening.offer_no_tls();
    opening.offer_local_files();
    opening.start(&mut Vec::new());
    let bytes = flags.to_le_bytes();
    let mut body = bytes[..4].to_vec();
    body.extend_from_slice(&[0, 0, 0, 1, 45]);
    body.extend_from_slice(&[0; 19]);
    body.extend_from_slice(&bytes[4..]);
    body.extend_from_slice(b"alice\0\0app\0mysql_native_password\0\0");
    let response = packet(1, &body);
    let opened = opening.handle(&response, false, &mut Vec::new());
    assert!(matches!(opened, Ok(Opened::Startup { .. })), "the response above is well-formed");
    drop(opened);
    opening
}

fn sign_in(credential: Credential, tls: BackendTls) -> SignIn<'static, MysqlServer> {
    SignIn { user: "alice", database: "app", tls, credential, seed: [0; 32], learned: None }
}

/// A login; the first byte chooses credential and TLS, the second whether a good greeting goes before.
pub fn login(data: &[u8]) {
    let Some((&[mode, greeted], input)) = data.split_first_chunk::<2>() else { return };
    let credential = match mode % 3 {
        0 => Credential::None,
        1 => Credential::Password("secret".into()),
        _ => Credential::Scram("secret".into()),
    };
    let tls = [BackendTls::Off, BackendTls::Required, BackendTls::Unverified][usize::from(mode / 3 % 3)];
    let mut login = Mysql::login(&opened(flags(1)), sign_in(credential, tls));
    let hello = if greeted & 1 == 0 { Vec::new() } else { greeting(flags(1)) };
    let input = [&hello, input].concat();
    let (mut at, mut tls_up) = (0, false);
    let mut out = Vec::new();
    login.start(&mut out);
    loop {
        let rest = &input[at..];
        match login.handle(rest, &mut out) {
            Err(error) => {
                assert!(tls_up || tls == BackendTls::Off || error.frame.is_empty(), "relayed from before TLS");
                assert_eq!(login.handle(rest, &mut out).err().map(|again| again.fault), Some(error.fault));
                break;
            }
            Ok(LoginStep::Need { need }) => {
                assert!(need > rest.len() && need <= 8 * 1024, "asked for {need} bytes");
                break;
            }
            Ok(LoginStep::Consumed { len }) => at += len,
            Ok(LoginStep::StartTls { len }) => {
                at += len;
                tls_up = true;
                login.tls_started(&mut out);
            }
            Ok(LoginStep::Ready { len }) => {
                assert!(len <= rest.len() && tls_up == (tls != BackendTls::Off));
                break;
            }
        }
    }
    let shown = out.windows(6).any(|window| window == b"secret");
    assert!(!shown || (tls_up && tls == BackendTls::Required), "a password outside verified TLS");
}

/// A session machine with a small window, so that cut-through is reached by short inputs.
fn machine(mode: u8) -> MysqlMachine {
    let flags = flags(mode);
    let opening = opened(flags);
    let mut login = Mysql::login(&opening, sign_in(Credential::None, BackendTls::Off));
    for bytes in [greeting(flags), OK_PACKET.to_vec()] {
        assert!(login.handle(&bytes, &mut Vec::new()).is_ok(), "the database above is well-behaved");
    }
    let limits =
        Limits { frame_bytes_max: 1 << 20, text_bytes_max: 64, inline_commands: false, teleport_compat: false };
    Mysql::machine(opening, login, SessionKey { pid: 4711, secret: [0xab; 32] }, limits)
}

const NO_DROPS: Ruler = |operation| !(operation.verb == Verb::Query && operation.text.head.starts_with(b"drop"));

/// Any bytes from a client, whole and cut.
pub fn session_client(data: &[u8]) {
    let Some((&mode, input)) = data.split_first() else { return };
    check_cut(|| machine(mode), NO_DROPS, &[(Side::Client, input)]);
}

/// Any bytes from a database behind a command, whole and cut.
pub fn session_backend(data: &[u8]) {
    let Some((&[mode, command], input)) = data.split_first_chunk::<2>() else { return };
    let commands: [&[u8]; 8] = [
        b"\x03load data local infile",
        b"\x03\0\x01load data local infile",
        b"\x16select ?",
        b"\x17\x01\0\0\0\0\x01\0\0\0",
        b"\x1c\x01\0\0\0\x05\0\0\0",
        b"\x04t\0",
        b"\x11alice\0\0other\0\x2d\0mysql_native_password\0",
        b"\x0d",
    ];
    let sent = packet(0, commands[usize::from(command) % commands.len()]);
    let script: [(Side, &[u8]); 2] = [(Side::Client, &sent), (Side::Backend, input)];
    check_cut(|| machine(mode), allow_all, &script);
    let mut driver = Driver::new(machine(mode), |operation| !matches!(operation.verb, Verb::Mysql(_)));
    driver.feed(Side::Client, &sent);
    driver.feed(Side::Backend, input);
    while driver.machine().take_unanswered().is_some() {}
}

/// A few hundred bytes that look like packets with the given first bytes, numbered from `sequence` on.
pub fn packets(random: &mut Random, mut sequence: u8, renumber: bool, marks: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(12) {
        let mut body = random.bytes(24);
        for byte in &mut body {
            if random.below(2) == 0 {
                *byte = 0;
            }
        }
        body.insert(0, marks[random.below(marks.len())]);
        let mut one = packet(sequence, &body);
        if random.below(20) == 0 {
            one[0] = one[0].wrapping_add(1);
        }
        bytes.extend(one);
        if renumber {
            sequence = sequence.wrapping_add(1);
        }
    }
    bytes
}
