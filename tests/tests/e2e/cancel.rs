//! Cancel requests: clear text as psql sends them, encrypted as libpq 17 and later can.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    on_both_drivers,
    postgres::Postgres,
    process,
    raw::Raw,
    wait,
    wire::{self, Message},
};
use rustix::process::Signal;

on_both_drivers!(
    control_c_in_psql_stops_the_statement,
    the_right_key_in_clear_text_cancels,
    a_wrong_key_is_ignored_in_silence,
    the_key_of_the_database_never_reaches_the_client,
    a_key_of_protocol_3_2_is_long_and_cancels,
);

const LONG: &str = "select pg_sleep(120)";

fn running(server: &Postgres) {
    wait::until_true("the statement to run", wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where query = 'select pg_sleep(120)' and state = 'active'")
            == "1"
    });
}

fn key(messages: &[Message]) -> Vec<u8> {
    messages.iter().find(|m| m.tag == b'K').expect("BackendKeyData").body.clone()
}

fn cancel(db: &DbConfig, key: &[u8]) {
    let mut canceller = Raw::tcp(db);
    canceller.send(&wire::untagged(wire::CANCEL_REQUEST, key)).expect("send");
    assert_eq!(canceller.read_to_close(), [], "a cancel request is never answered");
}

fn control_c_in_psql_stops_the_statement(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let psql = db
        .client("psql")
        .args(["-XAtqc", LONG])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql");
    running(&server);
    let start = Instant::now();
    process::signal(psql.id(), Signal::INT);
    let said = process::Said::from(psql.wait_with_output().expect("psql ends"));
    assert!(start.elapsed() < Duration::from_secs(60), "the statement ran to its end");
    assert!(said.stderr.contains("canceling statement due to user request"), "{said:?}");
    gateway.record("TDB20I", |r| r["matched"] == true || r["success"] == true);
    gateway.finish();
}

fn the_right_key_in_clear_text_cancels(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let (mut session, greeting) = Raw::login_with(&db, wire::VERSION_3_0, &[]);
    session.send(&wire::query(LONG)).expect("send");
    running(&server);
    cancel(&db, &key(&greeting));
    let answer = session.read_to_ready();
    let error = answer.iter().find(|m| m.tag == b'E').expect("an error").fields();
    assert_eq!((error.severity(), error.code()), ("ERROR", "57014"));
    assert_eq!(session.value("select 'usable'"), "usable");
    gateway.finish();
}

fn a_wrong_key_is_ignored_in_silence(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let (mut session, greeting) = Raw::login_with(&db, wire::VERSION_3_0, &[]);
    session.send(&wire::query(LONG)).expect("send");
    running(&server);
    let right = key(&greeting);
    let mut wrong_secret = right.clone();
    wrong_secret[7] ^= 1;
    let mut wrong_pid = right.clone();
    wrong_pid[0] ^= 1;
    for wrong in [&wrong_secret[..], &wrong_pid[..], &[0; 8][..], &[7; 200][..]] {
        cancel(&db, wrong);
    }
    // No key at all, and one longer than the protocol knows: closed, at most with a violation.
    for malformed in [&right[..4], &[7; 300][..]] {
        let mut canceller = Raw::tcp(&db);
        canceller.send(&wire::untagged(wire::CANCEL_REQUEST, malformed)).expect("send");
        assert!(canceller.read_to_close().iter().all(|m| m.fields().code() == "08P01"));
    }
    running(&server);
    cancel(&db, &right);
    assert!(session.read_to_ready().iter().any(|m| m.tag == b'E'));
    gateway.finish();
}

fn the_key_of_the_database_never_reaches_the_client(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let (mut session, greeting) = Raw::login_with(&db, wire::VERSION_3_0, &[]);
    let pid: u32 = session.value("select pg_backend_pid()").parse().expect("a number");
    let key = key(&greeting);
    assert_eq!(key.len(), 8, "protocol 3.0: process id and four bytes");
    assert_ne!(key[..4], pid.to_be_bytes());
    let (_other, other) = Raw::login_with(&db, wire::VERSION_3_0, &[]);
    assert_ne!(other.iter().find(|m| m.tag == b'K').expect("BackendKeyData").body, key);
    gateway.finish();
}

fn a_key_of_protocol_3_2_is_long_and_cancels(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let (mut session, greeting) = Raw::login_with(&db, wire::VERSION_3_2, &[]);
    let key = key(&greeting);
    assert!((4 + 16..=4 + 256).contains(&key.len()), "{} bytes", key.len());
    session.send(&wire::query(LONG)).expect("send");
    running(&server);
    cancel(&db, &key[..8]);
    running(&server);
    cancel(&db, &key);
    assert!(session.read_to_ready().iter().any(|m| m.tag == b'E' && m.fields().code() == "57014"));
    gateway.finish();
}
