//! Redis or the gateway dies, stops or fills up while work is going on.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use ringgate_tests::{
    Driver, audit_log,
    db_config::DbConfig,
    gateway::{Gateway, Setup},
    on_both_drivers, process,
    redis::{Options, Redis, SERVICE},
    resp::{self, Session, Value},
    wait,
};

on_both_drivers!(
    a_killed_redis_is_a_native_error_and_is_reached_again,
    a_redis_killed_under_a_pipeline_answers_what_it_had_answered,
    a_client_killed_by_the_server_ends_alone,
    a_killed_gateway_loses_no_record_of_what_redis_ran,
    a_drained_gateway_ends_a_thousand_blocked_clients_natively,
    a_drained_gateway_lets_a_transaction_finish,
    a_redis_that_is_full_of_clients_says_so,
    a_slow_redis_holds_no_memory,
);

fn a_killed_redis_is_a_native_error_and_is_reached_again(driver: Driver) {
    let mut server = Redis::start(Options::open().own());
    let gateway = Setup::redis(driver, &server.uri()).start();
    let db = gateway.redis_login(SERVICE, "");
    let (mut idle, mut blocked) = (Session::login(&db), Session::login(&db));
    assert_eq!(idle.say("SET k v"), Value::ok());
    blocked.send(&resp::words("BLPOP queue 0")).expect("send");
    wait::until_true("BLPOP to wait", wait::SOON, || server.say("INFO clients").text().contains("blocked_clients:1"));
    server.kill_9();
    let farewell = String::from_utf8_lossy(&blocked.read_to_close()).into_owned();
    assert!(farewell.starts_with("-ERR ringgate"), "{farewell:?}");
    let farewell = String::from_utf8_lossy(&idle.read_to_close()).into_owned();
    assert!(farewell.is_empty() || farewell.starts_with("-ERR ringgate"), "{farewell:?}");
    gateway.record("TDB01I", |r| r.text("reason") == "server");
    gateway.command_record("BLPOP", |c| c.success == Some(false));
    let said = db.redis(&["GET", "k"]);
    assert!((said.stdout.clone() + &said.stderr).contains("ERR ringgate"), "{said:?}");
    server.start_again();
    assert_eq!(db.redis(&["SET", "back", "1"]).ok(), "OK");
    gateway.finish();
}

fn a_redis_killed_under_a_pipeline_answers_what_it_had_answered(driver: Driver) {
    let mut server = Redis::start(Options::open().own());
    let gateway = Setup::redis(driver, &server.uri()).start();
    let mut session = Session::login(&gateway.redis_login(SERVICE, ""));
    let bytes: Vec<u8> = (0..1000).flat_map(|n| resp::words(&format!("ECHO {n}"))).collect();
    session.send(&[bytes, resp::words("BLPOP queue 0"), resp::words("SET never 1")].concat()).expect("send");
    for n in 0..1000 {
        assert_eq!(session.read(), Value::from(n.to_string().as_str()));
    }
    wait::until_true("BLPOP to wait", wait::SOON, || server.say("INFO clients").text().contains("blocked_clients:1"));
    server.kill_9();
    session.read_to_close();
    let commands = gateway.audit_until("every outcome", |records| {
        let commands = audit_log::commands(records);
        (commands.len() == 1002 && commands.iter().all(|c| c.success.is_some())).then_some(commands)
    });
    assert_eq!(commands.iter().filter(|c| c.name == "ECHO" && c.success == Some(true)).count(), 1000);
    assert!(commands.iter().any(|c| c.name == "BLPOP" && c.success == Some(false)));
    gateway.finish();
}

fn a_client_killed_by_the_server_ends_alone(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let (mut victim, mut other) = (Session::login(&db), Session::login(&db));
    let id = victim.say("CLIENT ID").text();
    assert_eq!(other.say("SET k v"), Value::ok());
    assert_eq!(server.say(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
    victim.read_to_close();
    assert_eq!(other.say("GET k"), "v".into());
    gateway.record("TDB01I", |r| r.text("reason") == "server");
    gateway.finish();
}

/// Counts up its own key in pipelines until it is cut off.
fn count_up(db: &DbConfig, key: &str, sent: &AtomicU64, stop: &AtomicBool) {
    let Ok(mut session) = Session::through(db) else { return };
    let pipeline = resp::words(&format!("INCR {key}")).repeat(16);
    while !stop.load(Ordering::Relaxed) {
        if session.send(&pipeline).is_err() {
            return;
        }
        sent.fetch_add(16, Ordering::Relaxed);
        for _ in 0..16 {
            if !matches!(session.try_read(), Ok(Some(Value::Integer(_)))) {
                return;
            }
        }
    }
}

fn recorded_increments(gateway: &Gateway) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for command in audit_log::commands(&gateway.audit()).into_iter().filter(|c| c.name == "INCR" && c.forwarded) {
        *counts.entry(command.keys[0].clone()).or_insert(0) += 1;
    }
    counts
}

fn a_killed_gateway_loses_no_record_of_what_redis_ran(driver: Driver) {
    let (server, mut gateway, db) = super::cached(driver);
    for round in 1..=3u64 {
        let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let keys: Vec<String> = (0..4).map(|n| format!("count:{round}:{n}")).collect();
        thread::scope(|scope| {
            for key in &keys {
                scope.spawn(|| count_up(&db, key, &sent, &stop));
            }
            wait::until_true("a good deal of work", wait::SOON, || sent.load(Ordering::Relaxed) > 4000 * round);
            gateway.kill_9();
            stop.store(true, Ordering::Relaxed);
        });
        // What was on its way into Redis when the gateway died still counts.
        wait::until_true("the sessions to end at the server", wait::SOON, || server.clients() == 0);
        gateway.start_again();
        let marker = format!("after-kill-{round}");
        assert_eq!(Session::login(&db).say(&format!("SET {marker} 1")), Value::ok());
        gateway.command_record("SET", |c| c.keys == [marker.as_str()]);
        let recorded = recorded_increments(&gateway);
        let mut ran = 0;
        for key in &keys {
            let executed: u64 = server.say(&format!("GET {key}")).text().parse().unwrap_or(0);
            let written = recorded.get(key).copied().unwrap_or(0);
            assert!(executed <= written, "{key}: Redis ran {executed}, the audit has {written}");
            ran += executed;
        }
        assert!(ran > 1000, "only {ran} commands");
        gateway.verify_audit();
    }
    gateway.finish();
}

fn a_drained_gateway_ends_a_thousand_blocked_clients_natively(driver: Driver) {
    const CLIENTS: usize = 1000;
    let server = Redis::start(Options::open().own());
    let grace = |s: Setup| s.config("RUNTIME__SHUTDOWN_GRACE", "5s");
    let mut gateway = grace(Setup::redis(driver, &server.uri())).start();
    let db = gateway.redis_login(SERVICE, "");
    let mut sessions: Vec<Session> = (0..CLIENTS)
        .map(|_| {
            let mut session = Session::login(&db);
            session.send(&resp::words("BLPOP queue 0")).expect("send");
            session
        })
        .collect();
    wait::until_true("all to wait", wait::SOON, || {
        server.say("INFO clients").text().contains(&format!("blocked_clients:{CLIENTS}"))
    });
    let begin = Instant::now();
    process::signal(gateway.pid(), rustix::process::Signal::TERM);
    for session in &mut sessions {
        let farewell = String::from_utf8_lossy(&session.read_to_close()).into_owned();
        assert!(farewell.starts_with("-ERR ringgate") && farewell.ends_with("\r\n"), "{farewell:?}");
    }
    assert_eq!(gateway.wait(), 0);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    wait::until_true("the server to be free", wait::SOON, || server.clients() == 0);
    let ends = gateway.audit().iter().filter(|r| r.text("code") == "TDB01I" && r.text("reason") == "drain").count();
    assert_eq!(ends, CLIENTS);
    gateway.start_again();
    gateway.finish();
}

fn a_drained_gateway_lets_a_transaction_finish(driver: Driver) {
    let (server, mut gateway, db) = super::cached(driver);
    let (mut idle, mut busy) = (Session::login(&db), Session::login(&db));
    assert_eq!(idle.say("ECHO idle"), "idle".into());
    assert_eq!(busy.pipeline(&["MULTI", "SET a 1"])[1], Value::queued());
    process::signal(gateway.pid(), rustix::process::Signal::TERM);
    let farewell = String::from_utf8_lossy(&idle.read_to_close()).into_owned();
    assert!(farewell.starts_with("-ERR ringgate"), "{farewell:?}");
    assert_eq!(busy.say("EXEC").items(), [Value::ok()]);
    busy.read_to_close();
    assert_eq!(gateway.wait(), 0);
    assert_eq!(server.say("GET a"), "1".into());
    gateway.start_again();
    gateway.finish();
}

fn a_redis_that_is_full_of_clients_says_so(driver: Driver) {
    let server = Redis::start(Options::open().setting(&["maxclients", "12"]));
    let gateway = Setup::redis(driver, &server.uri()).start();
    let db = gateway.redis_login(SERVICE, "");
    let mut held = Vec::new();
    let refusal = wait::until("the server to be full", wait::SOON, || {
        let mut session = Session::login(&db);
        let answer = session.say("ECHO in");
        if answer == "in".into() {
            held.push(session);
            return None;
        }
        Some(answer)
    });
    assert!(held.len() < 14 && refusal.is_error("ERR"), "{refusal:?} after {}", held.len());
    drop(held);
    wait::until_true("room again", wait::SOON, || Session::login(&db).say("ECHO in") == "in".into());
    gateway.finish();
}

fn a_slow_redis_holds_no_memory(driver: Driver) {
    let server = Redis::start(Options::open().own());
    let gateway = Setup::redis(driver, &server.uri()).start();
    let db = gateway.redis_login(SERVICE, "");
    let mut writer = Session::login(&db);
    assert_eq!(writer.say("ECHO in"), "in".into());
    let before = process::anonymous_bytes(gateway.pid());
    process::signal(server.pid(), rustix::process::Signal::STOP);
    writer.socket().set_write_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let command = resp::command(&[&b"SET"[..], b"k", &vec![b'y'; 60_000]]);
    let mut sent = 0u64;
    while sent < 512 << 20 && writer.send(&command).is_ok() {
        sent += command.len() as u64;
    }
    process::signal(server.pid(), rustix::process::Signal::CONT);
    assert!(sent < 512 << 20, "nothing held the client back");
    let after = process::anonymous_bytes(gateway.pid());
    assert!(after < before + (16 << 20), "from {before} to {after} bytes after {sent} sent");
    assert_eq!(Session::login(&db).say("ECHO well"), "well".into());
    gateway.finish();
}
