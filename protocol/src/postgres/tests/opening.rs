//! The front of a client connection.

use super::super::Postgres;
use crate::{FaultKind, Opened, Opening, Protocol, Refusal, RefusalKind};

fn message(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn startup(body: &[u8]) -> Vec<u8> {
    message(196_608, body)
}

/// The kind of fault that `bytes` in TLS end in.
fn refused(bytes: &[u8]) -> Option<FaultKind> {
    match Postgres::opening(&[], [0; 32]).handle(bytes, true, &mut Vec::new()) {
        Err(fault) => Some(fault.kind),
        Ok(_) => None,
    }
}

#[test]
fn answers_gss_with_no_and_tls_with_yes_and_reads_the_startup_inside() {
    let mut opening = Postgres::opening(&[], [0; 32]);
    let mut out = Vec::new();
    let gss = message(80_877_104, b"");
    assert!(matches!(opening.handle(&gss, false, &mut out), Ok(Opened::Answered { len: 8 })));
    // Whatever stands behind the request is not looked at: that it is an attack is for the caller to see.
    let mut tls = message(80_877_103, b"");
    tls.extend(startup(b"user\0mallory\0\0"));
    assert!(matches!(opening.handle(&tls, false, &mut out), Ok(Opened::StartTls { len: 8 })));
    assert_eq!(out, b"NS");
    let bytes = startup(b"user\0alice\0application_name\0psql\0search_path\0x\0\0");
    let Ok(Opened::Startup { len, startup }) = opening.handle(&bytes, true, &mut out) else { panic!() };
    assert_eq!((len, startup.user, startup.database), (bytes.len(), "alice", "alice"));
    assert_eq!((startup.user_agent, startup.replication), ("psql", false));
    assert_eq!(startup.parameters, [("application_name", "psql"), ("search_path", "x")]);
    let again = opening.handle(&bytes, true, &mut out).unwrap_err();
    assert_eq!(again.kind, FaultKind::OutOfOrder);
}

#[test]
fn refuses_to_be_asked_for_encryption_twice_or_inside_tls() {
    for code in [80_877_103, 80_877_104] {
        assert_eq!(refused(&message(code, b"")), Some(FaultKind::OutOfOrder));
        assert_eq!(refused(&message(code, b"x")), Some(FaultKind::Malformed));
        let mut opening = Postgres::opening(&[], [0; 32]);
        opening.offer_no_tls();
        let mut out = Vec::new();
        assert!(matches!(opening.handle(&message(code, b""), false, &mut out), Ok(Opened::Answered { len: 8 })));
        assert_eq!(out, b"N");
        let second = opening.handle(&message(code, b""), false, &mut out).unwrap_err();
        assert_eq!(second.kind, FaultKind::OutOfOrder);
    }
}

#[test]
fn wants_tls_unless_the_channel_is_trusted() {
    let bytes = startup(b"user\0alice\0\0");
    let mut opening = Postgres::opening(&[], [0; 32]);
    let fault = opening.handle(&bytes, false, &mut Vec::new()).unwrap_err();
    assert_eq!((fault.kind, fault.what), (FaultKind::Denied, "TLS is required"));
    let mut out = Vec::new();
    let refusal = Refusal { kind: RefusalKind::NotAuthorized, message: fault.what, detail: "", hint: "use\0TLS" };
    Postgres::refuse(&mut opening, &refusal, &mut out);
    assert_eq!(out, b"E\0\0\0\x34SFATAL\0VFATAL\0C28000\0MTLS is required\0Huse TLS\0\0");
    let mut opening = Postgres::opening(&[], [0; 32]);
    opening.offer_no_tls();
    assert!(matches!(opening.handle(&bytes, false, &mut Vec::new()), Ok(Opened::Startup { .. })));
}

#[test]
fn recognises_tls_at_once_only_in_the_clear() {
    assert!(matches!(Postgres::opening(&[], [0; 32]).handle(b"\x16", false, &mut Vec::new()), Ok(Opened::DirectTls)));
    assert_eq!(refused(b"\x16"), Some(FaultKind::Malformed));
}

#[test]
fn recognises_other_protocols_by_their_first_byte() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-", b"*1\r\n$4\r\nPING", b"\x80\x2e"] {
        assert_eq!(refused(&bytes[..1]), Some(FaultKind::Malformed));
    }
}

#[test]
fn bounds_the_startup_message() {
    for length in [0_u32, 3, 4, 7, 10_001, 0xff_ffff] {
        let kind = refused(&length.to_be_bytes());
        let expected = if length < 8 { FaultKind::Malformed } else { FaultKind::TooLarge };
        assert_eq!(kind, Some(expected), "{length}");
    }
    let mut longest = b"user\0alice\0a\0".to_vec();
    longest.resize(10_000 - 8 - 2, b'x');
    longest.extend_from_slice(b"\0\0");
    assert_eq!(refused(&startup(&longest)), None);
    for end in 0..40 {
        let bytes = startup(b"user\0alice\0database\0app\0\0");
        let end = end.min(bytes.len() - 1);
        match Postgres::opening(&[], [0; 32]).handle(&bytes[..end], true, &mut Vec::new()) {
            Ok(Opened::Need { need }) => assert!(need > end && need <= bytes.len()),
            other => panic!("{end}: {other:?}"),
        }
    }
}

#[test]
fn refuses_startup_parameters_that_two_readers_could_read_differently() {
    let long = format!("user\0{}\0\0", "u".repeat(64));
    let long_database = format!("user\0u\0database\0{}\0\0", "d".repeat(64));
    let cases: [(&[u8], FaultKind); 14] = [
        (b"", FaultKind::Malformed),
        (b"user\0alice\0", FaultKind::Malformed),
        (b"user\0alice", FaultKind::Malformed),
        (b"user\0alice\0\0\0", FaultKind::Malformed),
        (b"user\0alice\0\0x", FaultKind::Malformed),
        (b"user\0alice\0user\0bob\0\0", FaultKind::Malformed),
        (b"user\0alice\0search_path\0a\0Search_Path\0b\0\0", FaultKind::Malformed),
        (b"user\0al\xffice\0\0", FaultKind::Malformed),
        (b"user\0a\0database\0\xc3\0\0", FaultKind::Malformed),
        (b"user\0\0\0", FaultKind::Denied),
        (b"database\0app\0\0", FaultKind::Denied),
        (b"user\0a\0replication\0maybe\0\0", FaultKind::Malformed),
        (long.as_bytes(), FaultKind::Denied),
        (long_database.as_bytes(), FaultKind::Denied),
    ];
    for (body, kind) in cases {
        assert_eq!(refused(&startup(body)), Some(kind), "{}", body.escape_ascii());
    }
}

#[test]
fn reads_replication_as_the_server_does() {
    let cases = [
        ("true", true),
        ("T", true),
        ("on", true),
        ("yes", true),
        ("1", true),
        ("database", true),
        ("false", false),
        ("f", false),
        ("off", false),
        ("of", false),
        ("no", false),
        ("0", false),
    ];
    for (value, expected) in cases {
        let bytes = startup(format!("user\0a\0replication\0{value}\0\0").as_bytes());
        let mut opening = Postgres::opening(&[], [0; 32]);
        let Ok(Opened::Startup { startup, .. }) = opening.handle(&bytes, true, &mut Vec::new()) else {
            panic!("{value}")
        };
        assert_eq!(startup.replication, expected, "{value}");
    }
    for value in ["o", "", "2", "Database", "truee"] {
        let bytes = startup(format!("user\0a\0replication\0{value}\0\0").as_bytes());
        let wrong = refused(&bytes) == Some(FaultKind::Malformed);
        // The empty word is a prefix of every word, yet no word.
        assert!(wrong, "{value:?}");
    }
}

#[test]
fn reads_cancel_requests_of_both_versions_and_no_others() {
    for (secret, good) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
        let mut body = 7_u32.to_be_bytes().to_vec();
        body.resize(4 + secret, 9);
        let bytes = message(80_877_102, &body);
        match Postgres::opening(&[], [0; 32]).handle(&bytes, false, &mut Vec::new()) {
            Ok(Opened::Cancel { len, pid: 7, secret: read }) => {
                assert!(good && len == bytes.len() && read.len() == secret);
            }
            other => assert!(!good && other.is_err(), "{secret}"),
        }
    }
}

#[test]
fn refuses_versions_other_than_three() {
    for code in [131_072, 4 << 16, 80_877_105, 0] {
        assert_eq!(refused(&message(code, b"user\0a\0\0")), Some(FaultKind::Unsupported));
    }
    assert_eq!(refused(&message(196_608 + 9999, b"user\0a\0\0")), None);
}
