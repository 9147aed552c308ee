//! Peers that misbehave before they are logged in: plain bytes, TLS, certificates, startup messages.

use std::{fs, time::Duration};

use ringgate_tests::{
    Driver, certificates,
    db_config::DbConfig,
    gateway::{Gateway, SERVICE},
    on_both_drivers,
    postgres::{DATABASE, USER},
    raw::Raw,
    tls, wait,
    wire::{self, Message},
};

on_both_drivers!(
    bytes_stuffed_behind_the_ssl_request_close_the_connection,
    lengths_that_lie_before_tls_close_the_connection,
    lengths_that_lie_in_the_startup_message_close_the_connection,
    other_protocols_are_closed_without_a_word,
    a_plain_login_is_refused,
    encryption_is_asked_for_at_most_once,
    gss_is_declined_and_tls_goes_on,
    direct_tls_needs_the_protocol_name,
    certificates_of_others_are_refused,
    a_server_certificate_of_our_own_authority_is_refused,
    a_client_without_certificate_is_refused,
    an_expired_certificate_is_refused,
    a_certificate_of_the_future_is_refused,
    duplicate_startup_keys_are_refused,
    malformed_startup_messages_are_refused,
    names_longer_than_the_server_keeps_are_refused,
    unknown_versions_and_options_are_negotiated,
    a_second_startup_is_a_violation,
);

const LENGTHS: [u32; 7] = [0, 3, 4, 7, (1 << 31) - 1, 1 << 31, u32::MAX];

/// Records of something refused or malformed.
fn complaints(gateway: &Gateway) -> usize {
    gateway.audit().iter().filter(|r| matches!(r.text("code"), "TDB06I" | "T3007W" | "TDB00W")).count()
}

#[track_caller]
fn recorded(gateway: &Gateway, at_least: usize) {
    gateway.audit_until("records of what was refused", |records| {
        let found = records.iter().filter(|r| matches!(r.text("code"), "TDB06I" | "T3007W" | "TDB00W")).count();
        (found >= at_least).then_some(())
    });
}

/// At most one message, a FATAL error, and nothing after it.
#[track_caller]
fn is_refusal(messages: &[Message], what: &str) {
    assert!(messages.len() <= 1, "{what}: {messages:?}");
    if let Some(message) = messages.first() {
        assert_eq!(message.fields().severity(), "FATAL", "{what}: {message:?}");
    }
}

/// Sends a startup body inside TLS and wants a FATAL error with a code, then the end.
#[track_caller]
fn refused_in_tls(db: &DbConfig, bytes: &[u8], what: &str) -> String {
    let mut raw = Raw::tls(db).expect("TLS");
    raw.send(bytes).expect("send");
    let messages = raw.read_to_close();
    is_refusal(&messages, what);
    messages.first().unwrap_or_else(|| panic!("{what}: closed without an error")).fields().code().to_owned()
}

/// Neither the handshake nor the login succeeds.
#[track_caller]
fn is_shut_out(db: &DbConfig, what: &str) {
    let Ok(mut raw) = Raw::tls(db) else { return };
    // In TLS 1.3 the refusal arrives after the client's handshake is done.
    raw.send(&wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)])).ok();
    let messages = raw.read_to_close();
    assert!(messages.iter().all(|m| m.tag == b'E'), "{what}: {messages:?}");
}

fn bytes_stuffed_behind_the_ssl_request_close_the_connection(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let startup = wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)]);
    for surplus in [&b"\0"[..], &startup, &[0x16, 3, 1]] {
        let mut raw = Raw::tcp(&db);
        raw.send(&[&wire::untagged(wire::SSL_REQUEST, b""), surplus].concat()).expect("send");
        // The answer may have been on its way; the handshake must never start.
        let mut answer = Vec::new();
        while let Ok(Some(byte)) = raw.read_byte() {
            answer.push(byte);
        }
        assert!(answer.is_empty() || answer == b"S" || answer[0] == b'E', "{answer:?}");
    }
    assert_eq!(server.sql("select count(*) from pg_stat_activity where usename = 'app'"), "0");
    recorded(&gateway, 3);
    gateway.finish();
}

fn lengths_that_lie_before_tls_close_the_connection(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    for length in LENGTHS {
        for code in [wire::SSL_REQUEST, wire::GSS_REQUEST, wire::CANCEL_REQUEST, wire::VERSION_3_0, 0] {
            let mut raw = Raw::tcp(&db);
            raw.send(&[length.to_be_bytes(), code.to_be_bytes()].concat()).expect("send");
            is_refusal(&raw.read_to_close(), &format!("length {length}, code {code}"));
        }
    }
    recorded(&gateway, LENGTHS.len());
    assert_eq!(db.psql("select 1").ok(), "1");
    gateway.finish();
}

fn lengths_that_lie_in_the_startup_message_close_the_connection(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let before = complaints(&gateway);
    for length in LENGTHS.into_iter().chain([10_001]) {
        let mut bytes = wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)]);
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let mut raw = Raw::tls(&db).expect("TLS");
        raw.send(&bytes).expect("send");
        is_refusal(&raw.read_to_close(), &format!("length {length}"));
    }
    recorded(&gateway, before + LENGTHS.len() + 1);
    gateway.finish();
}

fn other_protocols_are_closed_without_a_word(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let hellos: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        &[0xff; 64],
    ];
    for hello in hellos {
        let mut raw = Raw::tcp(&db);
        raw.send(hello).expect("send");
        is_refusal(&raw.read_to_close(), &String::from_utf8_lossy(hello));
    }
    recorded(&gateway, hellos.len());
    gateway.finish();
}

fn a_plain_login_is_refused(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let mut raw = Raw::tcp(&db);
    raw.send(&wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)])).expect("send");
    let messages = raw.read_to_close();
    is_refusal(&messages, "startup without TLS");
    assert!(!String::from_utf8_lossy(&messages.concat_bodies()).contains(SERVICE), "no oracle: {messages:?}");
    assert_eq!(server.sql("select count(*) from pg_stat_activity where usename = 'app'"), "0");
    recorded(&gateway, 1);
    gateway.finish();
}

trait Bodies {
    fn concat_bodies(&self) -> Vec<u8>;
}

impl Bodies for Vec<Message> {
    fn concat_bodies(&self) -> Vec<u8> {
        self.iter().flat_map(|m| m.body.clone()).collect()
    }
}

fn encryption_is_asked_for_at_most_once(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let gss = wire::untagged(wire::GSS_REQUEST, b"");
    let mut raw = Raw::tcp(&db);
    raw.send(&gss).expect("send");
    assert_eq!(raw.read_byte().expect("read"), Some(b'N'));
    raw.send(&gss).expect("send");
    is_refusal(&raw.read_to_close(), "GSSENCRequest twice");
    let mut inside = Raw::tls(&db).expect("TLS");
    inside.send(&wire::untagged(wire::SSL_REQUEST, b"")).expect("send");
    is_refusal(&inside.read_to_close(), "SSLRequest inside TLS");
    gateway.finish();
}

fn gss_is_declined_and_tls_goes_on(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let mut raw = Raw::tcp(&db);
    raw.send(&wire::untagged(wire::GSS_REQUEST, b"")).expect("send");
    assert_eq!(raw.read_byte().expect("read"), Some(b'N'));
    raw.send(&wire::untagged(wire::SSL_REQUEST, b"")).expect("send");
    assert_eq!(raw.read_byte().expect("read"), Some(b'S'));
    let mut raw = raw.handshake(&db, true, &[]).expect("TLS");
    raw.send(&wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)])).expect("send");
    raw.read_to_ready();
    assert_eq!(raw.value("select 'after GSS'"), "after GSS");
    gateway.finish();
}

fn direct_tls_needs_the_protocol_name(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let startup = wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)]);
    let mut right = Raw::tcp(&db).handshake(&db, true, &[tls::ALPN_POSTGRESQL]).expect("direct TLS");
    right.send(&startup).expect("send");
    right.read_to_ready();
    assert_eq!(right.value("select 'direct'"), "direct");
    for wrong in [&[][..], &[&b"http/1.1"[..]][..], &[&b"h2"[..], b"redis"][..]] {
        let Ok(mut raw) = Raw::tcp(&db).handshake(&db, true, wrong) else { continue };
        raw.send(&startup).ok();
        let messages = raw.read_to_close();
        assert!(messages.iter().all(|m| m.tag == b'E'), "{wrong:?}: {messages:?}");
    }
    gateway.finish();
}

fn certificates_of_others_are_refused(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let before = complaints(&gateway);
    let pairs = certificates::foreign("admin", "user");
    let count = pairs.len();
    for pair in pairs {
        let impostor = db.with_certificate(&pair.certificate, &pair.key);
        is_shut_out(&impostor, pair.why);
        assert_ne!(impostor.psql("select 1").code, 0, "{}", pair.why);
    }
    // The right leaf behind a foreign chain does not help the chain.
    recorded(&gateway, before + count);
    assert_eq!(server.sql("select count(*) from pg_stat_activity where usename = 'app'"), "0");
    assert_eq!(db.psql("select 'mine still works'").ok(), "mine still works");
    gateway.finish();
}

fn a_server_certificate_of_our_own_authority_is_refused(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let prefix = gateway.base().join("server");
    let out = prefix.to_str().expect("a path in UTF-8");
    gateway.cli(&["ca", "sign", "--format=db", "--host", "admin", "--out", out, "--ttl", "24h"]).ok();
    let read = |suffix: &str| fs::read_to_string(prefix.with_extension(suffix)).expect("signed file");
    is_shut_out(&db.with_certificate(&read("crt"), &read("key")), "a database server's certificate");
    recorded(&gateway, 1);
    gateway.finish();
}

fn a_client_without_certificate_is_refused(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    if let Ok(mut raw) = Raw::tls_without_certificate(&db) {
        raw.send(&wire::startup(wire::VERSION_3_0, &[("user", USER), ("database", DATABASE)])).ok();
        let messages = raw.read_to_close();
        assert!(messages.iter().all(|m| m.tag == b'E'), "{messages:?}");
    }
    recorded(&gateway, 1);
    gateway.finish();
}

fn an_expired_certificate_is_refused(driver: Driver) {
    let (_server, mut gateway, db) = super::trusted(driver);
    assert_eq!(db.psql("select 1").ok(), "1");
    assert_eq!(gateway.terminate(), 0);
    // Route certificates last an hour.
    gateway.start_again_with_clock("+2h");
    is_shut_out(&db, "an expired certificate");
    gateway.record("T3007W", |r| r.text("error").to_lowercase().contains("expired"));
    gateway.terminate();
}

fn a_certificate_of_the_future_is_refused(driver: Driver) {
    let (_server, mut gateway, db) = super::trusted(driver);
    assert_eq!(gateway.terminate(), 0);
    gateway.start_again_with_clock("-2h");
    is_shut_out(&db, "a certificate that is not valid yet");
    gateway.record("T3007W", |r| r.text("error").to_lowercase().contains("valid yet"));
    gateway.terminate();
}

fn duplicate_startup_keys_are_refused(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let cases: [&[(&str, &str)]; 4] = [
        &[("user", USER), ("user", "postgres"), ("database", DATABASE)],
        &[("user", USER), ("database", DATABASE), ("database", "postgres")],
        &[("user", USER), ("database", DATABASE), ("user", USER)],
        &[("user", USER), ("database", DATABASE), ("application_name", "a"), ("application_name", "b")],
    ];
    for case in cases {
        assert_eq!(refused_in_tls(&db, &wire::startup(wire::VERSION_3_0, case), &format!("{case:?}")), "08P01");
    }
    recorded(&gateway, cases.len());
    gateway.finish();
}

fn malformed_startup_messages_are_refused(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let bodies: [&[u8]; 6] = [
        b"user\0app\0database\0orders",
        b"user\0app\0database\0orders\0",
        b"user\0app\0database\0orders\0\0trailing\0",
        b"user\0app\0database",
        b"",
        b"user",
    ];
    for body in bodies {
        let what = String::from_utf8_lossy(body).into_owned();
        assert_eq!(refused_in_tls(&db, &wire::untagged(wire::VERSION_3_0, body), &what), "08P01", "{what:?}");
    }
    for parameters in [&[("database", DATABASE)][..], &[("user", ""), ("database", DATABASE)]] {
        let code = refused_in_tls(&db, &wire::startup(wire::VERSION_3_0, parameters), "no user");
        assert!(matches!(code.as_str(), "28000" | "08P01"), "{code}");
    }
    gateway.finish();
}

fn names_longer_than_the_server_keeps_are_refused(driver: Driver) {
    let (server, gateway, _db) = super::trusted(driver);
    let kept = "v".repeat(63);
    server.sql(&format!("create role {kept} login"));
    let victim = gateway.db_config(SERVICE, &kept, DATABASE);
    assert_eq!(victim.psql("select current_user").ok(), kept);
    let padded = format!("{kept}padding");
    let login = gateway.cli(&["db", "login", SERVICE, "--db-user", &padded, "--db-name", DATABASE]);
    if login.code == 0 {
        gateway.db_config(SERVICE, &padded, DATABASE).psql("select 1").failed_with(2, &["FATAL"]);
    }
    victim.asking_for(&padded, DATABASE).psql("select 1").failed_with(2, &["FATAL"]);
    gateway.finish();
}

fn unknown_versions_and_options_are_negotiated(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let (mut raw, greeting) = Raw::login_with(&db, (3 << 16) | 9999, &[("_pq_.grease", "1"), ("_pq_.other", "x")]);
    let negotiated = greeting.iter().find(|m| m.tag == b'v').expect("NegotiateProtocolVersion");
    assert_eq!(negotiated.body[..8], [0, 3, 0, 2, 0, 0, 0, 2], "3.2, and two options are not known");
    assert!(negotiated.body.ends_with(b"_pq_.grease\0_pq_.other\0"), "{negotiated:?}");
    assert_eq!(raw.value("select 'negotiated'"), "negotiated");
    let (_, greeting) = Raw::login_with(&db, wire::VERSION_3_2, &[]);
    assert!(greeting.iter().all(|m| m.tag != b'v'));
    for version in [2 << 16, 4 << 16, 0, (3 << 16) + 0x1_0000] {
        let startup = wire::startup(version, &[("user", USER), ("database", DATABASE)]);
        refused_in_tls(&db, &startup, &format!("version {version:#x}"));
    }
    gateway.finish();
}

fn a_second_startup_is_a_violation(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let mut raw = Raw::login(&db);
    raw.send(&wire::startup(wire::VERSION_3_0, &[("user", "postgres"), ("database", DATABASE)])).expect("send");
    let messages = raw.read_to_close();
    let error = messages.last().expect("an error").fields();
    assert!(error.severity() == "FATAL" && matches!(error.code(), "08P01" | "0A000"), "{error:?}");
    gateway.record("TDB06I", |_| true);
    wait::until_true("the session to end", Duration::from_secs(10), || {
        gateway.metric("ringgate_sessions_active", &[]) == 0.0
    });
    gateway.finish();
}
