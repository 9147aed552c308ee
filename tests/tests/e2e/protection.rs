//! Memory, time and sockets that a peer may take, and that others keep theirs.

use std::{
    io::Read,
    net::TcpStream,
    time::{Duration, Instant},
};

use ringgate_tests::{
    Driver,
    gateway::Setup,
    on_both_drivers,
    postgres::{Options, Postgres},
    process,
    raw::Raw,
    wait, wire,
};

on_both_drivers!(
    a_slow_reader_of_a_huge_result_holds_no_memory,
    a_slow_database_holds_no_memory,
    peers_that_say_nothing_are_closed_in_time,
    half_open_handshakes_do_not_keep_others_out,
    logins_above_the_rate_are_turned_away_and_later_ones_let_in,
    a_statement_larger_than_the_audit_keeps_is_forwarded_whole,
    idle_sessions_hold_little_memory,
);

const MIB: u64 = 1 << 20;

fn a_slow_reader_of_a_huge_result_holds_no_memory(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let mut bystander = Raw::login(&db);
    assert_eq!(bystander.value("select 1"), "1");
    let before = process::anonymous_bytes(gateway.pid());
    let mut slow = Raw::login(&db);
    // 20 GB, far more than the machine could hold for all its sessions.
    slow.send(&wire::query("select repeat('x', 10000) from generate_series(1, 2000000)")).expect("send");
    wait::until_true("the database to wait for its client", wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where wait_event = 'ClientWrite' and usename = 'app'") == "1"
    });
    let mut most = process::anonymous_bytes(gateway.pid());
    let mut piece = [0; 4096];
    for _ in 0..400 {
        slow.read_exact(&mut piece).expect("rows");
        most = most.max(process::anonymous_bytes(gateway.pid()));
    }
    assert!(most < before + 16 * MIB, "from {before} to {most} bytes");
    let start = Instant::now();
    assert_eq!(bystander.value("select 2"), "2");
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(slow);
    wait::until_true("the session to end at the database", wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where query like 'select repeat%' and state = 'active' and usename = 'app'") == "0"
    });
    gateway.finish();
}

fn a_slow_database_holds_no_memory(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    server.sql("create table wide (t text); grant all on wide to app");
    let mut holder = Raw::login(&db);
    holder.ask(&wire::query("begin; lock table wide"));
    let before = process::anonymous_bytes(gateway.pid());
    let mut writer = Raw::login(&db);
    // COPY waits for the lock, so nobody at the database reads; the client sends until the sockets are full.
    writer.send(&wire::query("copy wide from stdin")).expect("send");
    writer.socket().set_write_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let row = wire::message(b'd', &[vec![b'y'; 60_000], vec![b'\n']].concat());
    let mut sent = 0u64;
    while sent < 512 * MIB && writer.send(&row).is_ok() {
        sent += row.len() as u64;
    }
    assert!(sent < 512 * MIB, "nothing held the client back");
    let after = process::anonymous_bytes(gateway.pid());
    assert!(after < before + 16 * MIB, "from {before} to {after} bytes after {sent} sent");
    holder.ask(&wire::query("rollback"));
    gateway.finish();
}

fn peers_that_say_nothing_are_closed_in_time(driver: Driver) {
    let server = Postgres::start(Options::trust());
    let gateway = Setup::new(driver, &server.uri()).config("LIMITS__HANDSHAKE_TIMEOUT", "1s").start();
    let db = gateway.login();
    let closed_in_time = |mut raw: Raw, what: &str| {
        let start = Instant::now();
        raw.read_to_close();
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
    };
    closed_in_time(Raw::tcp(&db), "after connect");
    let mut half = Raw::tcp(&db);
    half.send(&[0, 0, 0]).expect("send");
    closed_in_time(half, "in the middle of the first head");
    let mut upgrading = Raw::tcp(&db);
    upgrading.send(&wire::untagged(wire::SSL_REQUEST, b"")).expect("send");
    closed_in_time(upgrading, "before the TLS hello");
    closed_in_time(Raw::tls(&db).expect("TLS"), "after TLS, before startup");
    // A login in time is not touched by the deadline afterwards.
    let mut slow = Raw::login(&db);
    let start = Instant::now();
    wait::until_true("two seconds", wait::SOON, || start.elapsed() > Duration::from_secs(2));
    assert_eq!(slow.value("select 'still here'"), "still here");
    gateway.finish();
}

fn half_open_handshakes_do_not_keep_others_out(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect((db.host.as_str(), db.port)).expect("connect")).collect();
    let start = Instant::now();
    assert_eq!(db.psql("select 'let in'").ok(), "let in");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(silent);
    gateway.finish();
}

fn logins_above_the_rate_are_turned_away_and_later_ones_let_in(driver: Driver) {
    let server = Postgres::start(Options::trust());
    let gateway = Setup::new(driver, &server.uri())
        .config("LIMITS__LOGIN_RATE__PER_IP", "2/s")
        .config("LIMITS__LOGIN_RATE__BURST", "5")
        .start();
    let db = gateway.login();
    let answers = (0..40).map(|_| {
        let mut raw = Raw::tcp(&db);
        raw.send(&wire::untagged(wire::SSL_REQUEST, b"")).ok();
        raw.read_byte().ok().flatten()
    });
    let let_in = answers.filter(|a| *a == Some(b'S')).count();
    assert!((1..40).contains(&let_in), "{let_in} of 40 were let in");
    wait::until_true("the counter", wait::SOON, || {
        gateway.metric("ringgate_connections_rejected_total", &["reason=\"rate\""]) > 0.0
    });
    wait::until_true("a later login", wait::SOON, || db.psql("select 1").code == 0);
    gateway.finish();
}

fn a_statement_larger_than_the_audit_keeps_is_forwarded_whole(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let mut raw = Raw::login(&db);
    let long = "z".repeat(5_000_000);
    assert_eq!(raw.value(&format!("select length('{long}')")), "5000000");
    let record = gateway.record("TDB02I", |r| r["truncated"] == true);
    assert_eq!(record["query_bytes"], 5_000_000 + "select length('')".len() as u64);
    assert!(record.text("db_query").len() <= 64 * 1024, "{} bytes kept", record.text("db_query").len());
    assert!(record.text("db_query").starts_with("select length('zzz"));
    gateway.finish();
}

fn idle_sessions_hold_little_memory(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let warm: Vec<Raw> = (0..20).map(|_| Raw::login(&db)).collect();
    drop(warm);
    wait::until_true("the sessions to end", wait::SOON, || gateway.metric("ringgate_sessions_active", &[]) == 0.0);
    let before = process::anonymous_bytes(gateway.pid());
    let held: Vec<Raw> = (0..200).map(|_| Raw::login(&db)).collect();
    let each = (process::anonymous_bytes(gateway.pid()).saturating_sub(before)) / held.len() as u64;
    // The bound is for a leak of buffers; loadtest measures the figure.
    assert!(each < 128 * 1024, "{each} bytes for an idle session");
    gateway.finish();
}
