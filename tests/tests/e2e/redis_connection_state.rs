//! Commands that change the connection itself, and rights that no role gives by leaving `db_commands` out.

use std::time::{Duration, Instant};

use ringgate_tests::{
    Driver,
    gateway::access_role,
    on_both_drivers,
    resp::{self, Session, Value},
    wait,
};

on_both_drivers!(
    hello_switches_the_protocol_and_back,
    hello_with_a_wrong_version_is_the_servers_error,
    select_switches_the_database_and_is_not_shared,
    reset_starts_over_and_stays_logged_in,
    quit_is_answered_and_closes,
    client_names_and_facts_pass,
    client_reply_off_and_skip_keep_answers_in_step,
    monitor_is_refused_unless_named,
    monitor_streams_for_whom_it_is_named,
    replication_of_redis_is_refused_with_and_without_the_right,
    commands_that_make_the_server_dial_are_refused_unless_named,
    what_cannot_work_through_a_gateway_says_so,
    an_idle_session_is_ended_and_a_blocking_one_is_not,
);

fn hello_switches_the_protocol_and_back(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("HSET h f v");
    let greeting = session.say("HELLO 3");
    let field = |name: &str| {
        let pairs = greeting.items();
        pairs.chunks(2).find(|p| p[0].text() == name).map(|p| p[1].clone()).unwrap_or(Value::Null)
    };
    assert!(matches!(greeting, Value::Map(_)), "{greeting:?}");
    assert_eq!((field("server").text(), field("proto")), ("redis".into(), Value::Integer(3)));
    assert_eq!(session.say("HGETALL h"), Value::Map(vec!["f".into(), "v".into()]));
    assert!(matches!(session.say("HELLO 2"), Value::Array(_)));
    assert_eq!(session.say("HGETALL h"), Value::Array(vec!["f".into(), "v".into()]));
    // In the middle of a pipeline: what stands before answers in the old version, what stands behind in the new one.
    let answers = session.pipeline(&["HGETALL h", "HELLO 3 SETNAME piped", "HGETALL h", "CLIENT GETNAME"]);
    assert!(matches!((&answers[0], &answers[2]), (Value::Array(_), Value::Map(_))), "{answers:?}");
    assert_eq!(answers[3], "piped".into());
    gateway.finish();
}

fn hello_with_a_wrong_version_is_the_servers_error(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let (mut session, mut direct) = (Session::login(&db), server.session());
    for line in ["HELLO 4", "HELLO 1", "HELLO x"] {
        assert_eq!(session.say(line), direct.say(line), "{line}");
    }
    for line in ["HELLO 3 NONSENSE", "HELLO 3 SETNAME"] {
        assert!(session.say(line).is_error("ERR Syntax error in HELLO") && matches!(direct.say(line), Value::Error(_)));
    }
    assert!(matches!(session.say("HELLO"), Value::Array(_)), "the version is unchanged");
    gateway.finish();
}

fn select_switches_the_database_and_is_not_shared(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let (mut one, mut other) = (Session::login(&db), Session::login(&db));
    assert_eq!(one.pipeline(&["SELECT 5", "SET only here"]), [Value::ok(), Value::ok()]);
    assert_eq!(other.say("GET only"), Value::Null);
    assert_eq!(server.session().pipeline(&["SELECT 5", "GET only"])[1], "here".into());
    assert!(one.say("SELECT 99").is_error("ERR DB index is out of range"));
    assert_eq!(one.say("GET only"), "here".into());
    assert_eq!(db.redis(&["-n", "5", "GET", "only"]).ok(), "here");
    gateway.finish();
}

fn reset_starts_over_and_stays_logged_in(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("SET zero 0");
    session.pipeline(&["HELLO 3", "SELECT 5", "CLIENT SETNAME x", "MULTI", "SET a 1"]);
    assert_eq!(session.say("RESET"), Value::Simple("RESET".into()));
    assert!(session.say("EXEC").is_error("ERR EXEC without MULTI"));
    assert_eq!(session.say("GET zero"), "0".into(), "database 0 again, and logged in");
    assert!(matches!(session.say("HGETALL none"), Value::Array(_)), "RESP2 again");
    assert_eq!(session.say("SUBSCRIBE news").items()[0], "subscribe".into());
    assert_eq!(session.pipeline(&["RESET", "ECHO back"])[1], "back".into());
    gateway.finish();
}

fn quit_is_answered_and_closes(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.send(&[resp::words("SET a 1"), resp::words("QUIT"), resp::words("SET a 2")].concat()).expect("send");
    assert_eq!(session.read_to_close(), b"+OK\r\n+OK\r\n");
    assert_eq!(server.say("GET a"), "1".into(), "what stands behind QUIT does not run");
    gateway.record("TDB01I", |r| r.text("reason") == "client");
    gateway.finish();
}

fn client_names_and_facts_pass(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    assert_eq!(session.pipeline(&["CLIENT SETNAME app-7", "CLIENT GETNAME"]), [Value::ok(), "app-7".into()]);
    assert!(matches!(session.say("CLIENT ID"), Value::Integer(_)));
    assert!(session.say("CLIENT INFO").text().contains("name=app-7"));
    assert!(server.say("CLIENT LIST").text().contains("name=app-7"));
    assert!(session.say("COMMAND COUNT").text().parse::<u32>().expect("a number") > 200);
    assert_eq!(session.say("ACL WHOAMI"), "default".into());
    gateway.finish();
}

fn client_reply_off_and_skip_keep_answers_in_step(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    let mode =
        |session: &mut Session, mode: &str| session.send(&resp::words(&format!("CLIENT REPLY {mode}"))).expect("send");
    mode(&mut session, "SKIP");
    session.send(&[resp::words("ECHO skipped"), resp::words("ECHO heard")].concat()).expect("send");
    let first = session.read();
    if first.is_error("ERR ringgate") {
        // Refused is right as well, if nothing is ever out of step after it.
        assert_eq!((session.read(), session.read()), ("skipped".into(), "heard".into()));
        mode(&mut session, "OFF");
        assert!(session.read().is_error("ERR ringgate"));
        assert_eq!(session.say("ECHO last"), "last".into());
    } else {
        assert_eq!(first, "heard".into());
        mode(&mut session, "OFF");
        for n in 0..100 {
            session.send(&resp::words(&format!("SET silent {n}"))).expect("send");
        }
        mode(&mut session, "ON");
        assert_eq!(session.read(), Value::ok());
        assert_eq!(session.say("GET silent"), "99".into());
        gateway.command_record("GET", |c| c.keys == ["silent"] && c.success == Some(true));
    }
    gateway.finish();
}

fn monitor_is_refused_unless_named(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    for role in ["", "    db_commands: ['*']\n"] {
        gateway.permit(role, "");
        let mut later = Session::login(&db);
        assert!(session.say("MONITOR").is_error("NOPERM") && later.say("monitor").is_error("NOPERM"));
        assert_eq!(session.say("ECHO usable"), "usable".into());
    }
    assert_eq!(server.calls("monitor"), 0);
    let refused = gateway.record("TDB02W", |r| r.text("db_query") == "MONITOR");
    assert!(refused.text("error").contains("monitor"), "the record names the right: {}", refused.0);
    gateway.finish();
}

fn monitor_streams_for_whom_it_is_named(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.permit("    db_commands: ['*', '@monitor']\n", "");
    let mut session = wait::until("the role to take effect", wait::SOON, || {
        let mut session = Session::login(&db);
        (session.say("MONITOR") == Value::ok()).then_some(session)
    });
    for n in 0..100 {
        server.say(&format!("SET watched {n}"));
    }
    let mut seen = 0;
    while seen < 100 {
        let line = session.read();
        assert!(matches!(line, Value::Simple(_)), "{line:?}");
        seen += usize::from(line.text().contains(&format!("\"SET\" \"watched\" \"{seen}\"")));
    }
    gateway.finish();
}

fn replication_of_redis_is_refused_with_and_without_the_right(driver: Driver) {
    const LINES: [&str; 5] = ["SYNC", "PSYNC ? -1", "psync ? -1", "REPLCONF listening-port 1", "REPLCONF ACK 0"];
    let (server, gateway, db) = super::cached(driver);
    gateway.permit("    db_commands: ['*']\n", "");
    let mut session = Session::login(&db);
    for line in LINES {
        let answer = session.say(line);
        assert!(answer.is_error("NOPERM") || answer.is_error("ERR ringgate"), "{line}: {answer:?}");
    }
    assert_eq!(session.say("ECHO usable"), "usable".into());
    gateway.record("TDB02W", |r| r.text("db_query") == "PSYNC");
    // What stands behind the snapshot is no RESP: the right alone does not carry it through a gateway.
    gateway.permit("    db_commands: ['*', '@replication', '@monitor']\n", "");
    let mut session = wait::until("the role to take effect", wait::SOON, || {
        (Session::login(&db).say("MONITOR") == Value::ok()).then(|| Session::login(&db))
    });
    for line in LINES {
        let answer = session.say(line);
        assert!(answer.is_error("ERR ringgate: command") && answer.text().contains("not supported"), "{answer:?}");
    }
    assert_eq!((server.calls("psync"), server.calls("sync"), server.calls("replconf")), (0, 0, 0));
    gateway.finish();
}

fn commands_that_make_the_server_dial_are_refused_unless_named(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.permit("    db_commands: ['*']\n", "");
    let mut session = Session::login(&db);
    for line in [
        "REPLICAOF 127.0.0.1 1",
        "SLAVEOF 127.0.0.1 1",
        "REPLICAOF NO ONE",
        "FAILOVER",
        "MIGRATE 127.0.0.1 1 key 0 100",
    ] {
        assert!(session.say(line).is_error("NOPERM"), "{line}");
    }
    assert!(server.say("INFO replication").text().contains("role:master"));
    let calls: u64 = ["replicaof", "slaveof", "failover", "migrate"].iter().map(|c| server.calls(c)).sum();
    assert_eq!(calls, 0);
    gateway.finish();
}

fn what_cannot_work_through_a_gateway_says_so(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    // A second authentication inside the session, for a database where the gateway holds the secret.
    let answer = session.say("AUTH somebody else");
    assert!(answer.is_error("WRONGPASS") || answer.is_error("ERR ringgate"), "{answer:?}");
    assert_eq!(session.say("ACL WHOAMI"), "default".into());
    let answer = session.say("HELLO 3 AUTH somebody else");
    assert!(answer.is_error("WRONGPASS") || answer.is_error("ERR ringgate"), "{answer:?}");
    assert_eq!(session.say("ACL WHOAMI"), "default".into());
    gateway.record("TDB02W", |r| r.text("db_query") == "AUTH");
    gateway.finish();
}

fn an_idle_session_is_ended_and_a_blocking_one_is_not(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.apply(&(access_role("    db_commands: [FLUSHALL]\n") + "  options:\n    client_idle_timeout: 2s\n"));
    super::in_force(&db, "FLUSHALL", |answer| answer.is_error("NOPERM"));
    let begin = Instant::now();
    let (mut idle, mut blocked) = (Session::login(&db), Session::login(&db));
    let mut subscribed = Session::login(&db);
    assert_eq!(subscribed.say("SUBSCRIBE news").items()[2], Value::Integer(1));
    assert_eq!(idle.say("ECHO once"), "once".into());
    blocked.send(&resp::words("BLPOP queue 0")).expect("send");
    let farewell = String::from_utf8_lossy(&idle.read_to_close()).into_owned();
    assert!(begin.elapsed() >= Duration::from_secs(2), "after {:?}", begin.elapsed());
    assert!(farewell.is_empty() || farewell.starts_with("-ERR ringgate"), "{farewell}");
    gateway.record("T3006I", |r| r.text("reason").contains("idle"));
    wait::until_true("three times the limit", wait::SOON, || begin.elapsed() > Duration::from_secs(6));
    server.say("PUBLISH news late");
    assert_eq!(subscribed.read().items()[2], "late".into(), "a subscriber is not idle");
    server.say("RPUSH queue job");
    assert_eq!(blocked.read().items()[1], "job".into(), "a session that waits for the server is not idle");
    gateway.finish();
}
