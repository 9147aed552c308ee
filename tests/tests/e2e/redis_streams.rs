//! What is no simple question and answer: subscriptions, blocking commands, and values larger than any buffer.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::Gateway,
    on_both_drivers, process,
    resp::{self, Session, Value},
    wait,
};

on_both_drivers!(
    a_subscriber_in_resp2_hears_and_may_say_little,
    a_subscriber_in_resp3_hears_between_its_own_answers,
    shard_channels_are_heard,
    pushes_never_stand_for_an_answer,
    a_flood_of_messages_arrives_whole,
    blocking_commands_wait_and_wake,
    a_client_that_leaves_while_it_blocks_frees_the_server,
    a_large_value_passes_and_memory_stays_flat,
    a_value_above_the_servers_limit_is_the_servers_error,
);

const MIB: usize = 1 << 20;

fn kind(value: &Value) -> (String, String) {
    (value.items()[0].text(), value.items()[1].text())
}

fn a_subscriber_in_resp2_hears_and_may_say_little(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["SUBSCRIBE news", "PSUBSCRIBE n*"]);
    assert_eq!(answers[0], Value::Array(vec!["subscribe".into(), "news".into(), Value::Integer(1)]));
    // One command, one answer for each channel.
    session.send(&resp::words("SUBSCRIBE a b c")).expect("send");
    assert_eq!((0..3).map(|_| kind(&session.read()).1).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(server.say("PUBLISH news hello"), Value::Integer(2));
    assert_eq!(session.read(), Value::Array(vec!["message".into(), "news".into(), "hello".into()]));
    assert_eq!(kind(&session.read()), ("pmessage".into(), "n*".into()));
    assert_eq!(session.say("PING"), Value::Array(vec!["pong".into(), "".into()]));
    let refused = session.say("GET k");
    assert!(refused.is_error("ERR Can't execute 'get'"), "{refused:?}");
    // No channel named: one answer for each that is left.
    session.send(&[resp::words("UNSUBSCRIBE"), resp::words("PUNSUBSCRIBE")].concat()).expect("send");
    let left: Vec<_> = (0..5).map(|_| kind(&session.read()).0).collect();
    assert_eq!(left, ["unsubscribe", "unsubscribe", "unsubscribe", "unsubscribe", "punsubscribe"]);
    assert_eq!(session.say("ECHO ordinary"), "ordinary".into());
    // Nothing subscribed: one answer all the same.
    assert_eq!(session.pipeline(&["UNSUBSCRIBE", "ECHO on"])[1], "on".into());
    gateway.command_record("SUBSCRIBE", |c| c.success == Some(true));
    gateway.finish();
}

fn a_subscriber_in_resp3_hears_between_its_own_answers(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("HELLO 3");
    assert!(matches!(session.say("SUBSCRIBE news"), Value::Push(_)));
    server.say("PUBLISH news one");
    assert_eq!(session.read(), Value::Push(vec!["message".into(), "news".into(), "one".into()]));
    assert_eq!(session.say("SET k v"), Value::ok(), "ordinary commands go on in RESP3");
    let answers = session.pipeline(&["GET k", "UNSUBSCRIBE news", "GET k"]);
    assert_eq!((&answers[0], &answers[2]), (&"v".into(), &"v".into()));
    assert!(matches!(answers[1], Value::Push(_)));
    gateway.finish();
}

fn shard_channels_are_heard(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    assert_eq!(kind(&session.say("SSUBSCRIBE shard")), ("ssubscribe".into(), "shard".into()));
    server.say("SPUBLISH shard piece");
    assert_eq!(session.read().items()[2], "piece".into());
    assert_eq!(kind(&session.say("SUNSUBSCRIBE shard")).0, "sunsubscribe");
    assert_eq!(session.say("ECHO ordinary"), "ordinary".into());
    gateway.finish();
}

fn pushes_never_stand_for_an_answer(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("HELLO 3");
    session.say("SUBSCRIBE noise");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = server.session();
            while !done.load(Ordering::Relaxed) {
                publisher.say("PUBLISH noise x");
            }
        });
        let bytes: Vec<u8> = (0..2000).flat_map(|n| resp::words(&format!("ECHO {n}"))).collect();
        session.send(&bytes).expect("send");
        let (mut next, mut pushes) = (0, 0);
        while next < 2000 {
            match session.read() {
                Value::Push(_) => pushes += 1,
                answer => {
                    assert_eq!(answer.text(), next.to_string());
                    next += 1;
                }
            }
        }
        while pushes < 100 {
            pushes += usize::from(matches!(session.read(), Value::Push(_)));
        }
        done.store(true, Ordering::Relaxed);
    });
    // Each ECHO has its own outcome, whatever stood between them.
    gateway.audit_until("all outcomes", |records| {
        let commands = ringgate_tests::audit_log::commands(records);
        let answered = commands.iter().filter(|c| c.name == "ECHO" && c.success == Some(true)).count();
        (answered == 2000).then_some(())
    });
    gateway.finish();
}

fn a_flood_of_messages_arrives_whole(driver: Driver) {
    const MESSAGES: u64 = 20_000;
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("SUBSCRIBE flood");
    let sum = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MESSAGES {
                sum.fetch_add(session.read().items()[2].text().parse::<u64>().expect("a number"), Ordering::Relaxed);
            }
        });
        let mut publisher = server.session();
        let bytes: Vec<u8> = (0..MESSAGES).flat_map(|n| resp::words(&format!("PUBLISH flood {n}"))).collect();
        publisher.send(&bytes).expect("send");
        (0..MESSAGES).for_each(|_| assert_eq!(publisher.read(), Value::Integer(1)));
    });
    assert_eq!(sum.load(Ordering::Relaxed), MESSAGES * (MESSAGES - 1) / 2);
    gateway.finish();
}

fn blocking_commands_wait_and_wake(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("XGROUP CREATE grouped group $ MKSTREAM");
    for (waiting, waker) in [
        ("BLPOP queue 0", "RPUSH queue 1"),
        ("BRPOP queue 0", "RPUSH queue 1"),
        ("BLMOVE queue other LEFT RIGHT 0", "RPUSH queue 1"),
        ("BZPOPMIN scores 0", "ZADD scores 1 member"),
        ("BLMPOP 0 2 one two LEFT", "RPUSH two 1"),
        ("XREAD BLOCK 0 STREAMS stream $", "XADD stream * f v"),
        ("XREADGROUP GROUP group me BLOCK 0 STREAMS grouped >", "XADD grouped * f v"),
    ] {
        session.send(&resp::words(waiting)).expect("send");
        wait::until_true(waiting, wait::SOON, || server.say("INFO clients").text().contains("blocked_clients:1"));
        assert!(!matches!(server.say(waker), Value::Error(_)), "{waker}");
        let answer = session.read();
        assert!(!matches!(answer, Value::Error(_) | Value::Null), "{waiting}: {answer:?}");
    }
    assert_eq!(session.say("BLPOP nothing 0.05"), Value::Null);
    assert_eq!(session.say("WAIT 0 10"), Value::Integer(0));
    gateway.command_record("BLPOP", |c| c.keys == ["nothing"] && c.success == Some(true));
    gateway.finish();
}

fn a_client_that_leaves_while_it_blocks_frees_the_server(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.send(&resp::words("BLPOP queue 0")).expect("send");
    wait::until_true("BLPOP to wait", wait::SOON, || server.say("INFO clients").text().contains("blocked_clients:1"));
    drop(session);
    wait::until_true("the server to be free", wait::SOON, || server.clients() == 0);
    server.say("RPUSH queue job");
    assert_eq!(server.say("LLEN queue"), Value::Integer(1), "nobody took what came after the client had left");
    gateway.finish();
}

/// Highest anonymous memory of the gateway while `run` runs, above what it was before.
fn growth(gateway: &Gateway, run: impl FnOnce()) -> u64 {
    let (pid, before) = (gateway.pid(), process::anonymous_bytes(gateway.pid()));
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(before));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(process::anonymous_bytes(pid), Ordering::Relaxed);
                thread::yield_now();
            }
        });
        run();
        done.store(true, Ordering::Relaxed);
    });
    most.load(Ordering::Relaxed) - before
}

fn set_and_get_large(db: &DbConfig, size: usize) {
    let mut session = Session::login(db);
    let mut value = vec![0; size];
    value.iter_mut().enumerate().for_each(|(n, byte)| *byte = (n % 251) as u8);
    assert_eq!(session.ask(&[&b"SET"[..], b"large", &value]), Value::ok());
    let Value::Bulk(back) = session.say("GET large") else { panic!("no value") };
    assert!(back == value, "{} of {size} bytes, or wrong ones", back.len());
}

fn a_large_value_passes_and_memory_stays_flat(driver: Driver) {
    const SIZE: usize = 64 * MIB;
    let (server, gateway, db) = super::cached(driver);
    set_and_get_large(&db, 4 * MIB);
    let grown = growth(&gateway, || set_and_get_large(&db, SIZE));
    assert!(grown < 4 << 20, "grew by {grown} bytes");
    assert_eq!(server.say("STRLEN large"), Value::Integer(SIZE as i64));
    gateway.command_record("SET", |c| c.keys == ["large"] && c.success == Some(true));
    gateway.finish();
}

fn a_value_above_the_servers_limit_is_the_servers_error(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 512 * MIB + 1).as_bytes()).expect("send");
    session.socket().flush().expect("flush");
    assert_eq!(session.read_to_close(), b"-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(server.say("EXISTS k"), Value::Integer(0));
    gateway.record("TDB06I", |_| true);
    gateway.finish();
}
