//! What a Redis Cluster behind the gateway owes a pipelining client: every reply, in order, whatever moves, and memory
//! that does not grow with values.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::{Gateway, Setup},
    on_both_drivers,
    redis::{Redis, SERVICE},
    redis_cluster::RedisCluster,
    resp::{Session, Value},
    wait,
};

on_both_drivers!(
    ten_thousand_commands_over_all_slots_are_answered_in_order,
    slots_that_move_under_load_change_no_order,
    a_blocked_client_that_leaves_is_forgotten_by_its_node,
    watched_keys_guard_a_transaction,
    transactions_may_begin_without_a_key,
    shard_channels_work_beside_others,
);

fn clustered(driver: Driver) -> (RedisCluster, Gateway, DbConfig) {
    let cluster = RedisCluster::start();
    let gateway = Setup::redis(driver, &cluster.uri()).start();
    let db = gateway.redis_login(SERVICE, "");
    (cluster, gateway, db)
}

fn ten_thousand_commands_over_all_slots_are_answered_in_order(driver: Driver) {
    let (_cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let lines: Vec<String> = (0..5_000).flat_map(|n| [format!("SET o:{n} {n}"), format!("GET o:{n}")]).collect();
    let answers = session.pipeline(&lines);
    assert_eq!(answers.len(), 10_000);
    for (n, pair) in answers.chunks(2).enumerate() {
        assert_eq!(pair, [Value::ok(), Value::from(n.to_string().as_str())], "{n}");
    }
    gateway.finish();
}

fn slots_that_move_under_load_change_no_order(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let key = cluster.one_key_for_each().remove(0);
    let slot = cluster.nodes[0].say(&format!("CLUSTER KEYSLOT {key}")).text();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut session = Session::login(&db);
            let lines: Vec<String> = (0..50).map(|_| format!("INCR {key}")).collect();
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                for answer in session.pipeline(&lines) {
                    count += 1;
                    assert_eq!(answer, Value::Integer(count), "each INCR is run once, in its place");
                }
            }
            count
        });
        // There and back, several times.
        for round in 0..2 {
            let (from, to) = (&cluster.nodes[round % 2], &cluster.nodes[(round + 1) % 2]);
            let (from_id, to_id) = (from.say("CLUSTER MYID").text(), to.say("CLUSTER MYID").text());
            let before = from.say(&format!("GET {key}")).text();
            wait::until_true("the load to go on", wait::SOON, || from.say(&format!("GET {key}")).text() != before);
            let done = |node: &Redis, line: String| assert_eq!(node.say(&line), Value::ok(), "{line}");
            done(to, format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
            done(from, format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
            done(from, format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
            for node in [to, from, &cluster.nodes[2]] {
                done(node, format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
            }
            // The next round begins when the nodes agree.
            let moved = format!("MOVED {slot} 127.0.0.1:{}", to.port);
            wait::until_true("the nodes to agree", wait::SOON, || {
                let agrees = |node: &Redis| node.port == to.port || node.say(&format!("GET {key}")).is_error(&moved);
                cluster.nodes.iter().all(agrees)
            });
        }
        stop.store(true, Ordering::Relaxed);
        assert!(load.join().expect("the load ends well") > 0);
    });
    gateway.finish();
}

fn a_blocked_client_that_leaves_is_forgotten_by_its_node(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let blocked = || {
        let counts = cluster.nodes.iter().map(|n| n.say("INFO clients").text());
        counts.filter(|text| text.contains("blocked_clients:1")).count()
    };
    let mut session = Session::login(&db);
    session.send(&ringgate_tests::resp::words("BLPOP nothing 0")).expect("sent");
    wait::until_true("the client to be blocked", wait::SOON, || blocked() == 1);
    drop(session);
    wait::until_true("the client to be forgotten", wait::SOON, || blocked() == 0);
    gateway.finish();
}

fn watched_keys_guard_a_transaction(driver: Driver) {
    let (_cluster, gateway, db) = clustered(driver);
    let (mut session, mut other) = (Session::login(&db), Session::login(&db));
    assert_eq!(session.pipeline(&["WATCH {w}1", "GET {w}1"])[0], Value::ok());
    assert_eq!(other.say("SET {w}1 theirs"), Value::ok());
    let answers = session.pipeline(&["MULTI", "SET {w}1 ours", "EXEC"]);
    assert_eq!(answers[2], Value::Null, "{answers:?}");
    assert_eq!(session.say("GET {w}1"), "theirs".into());
    let answers = session.pipeline(&["WATCH {w}1", "MULTI", "SET {w}1 ours", "EXEC", "GET {w}1"]);
    assert_eq!(answers[4], "ours".into(), "{answers:?}");
    gateway.finish();
}

fn transactions_may_begin_without_a_key(driver: Driver) {
    let (_cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["MULTI", "PING", "SET a 1", "PING", "EXEC", "MULTI", "PING", "EXEC"]);
    assert_eq!(answers[4].items().len(), 3, "{answers:?}");
    assert_eq!(answers[7].items().len(), 1, "{answers:?}");
    let answers = session.pipeline(&["MULTI", "SET a 2", "DBSIZE", "EXEC", "GET a"]);
    assert!(answers[2].is_error("ERR ringgate") && answers[3].is_error("EXECABORT"), "{answers:?}");
    assert_eq!(answers[4], "1".into());
    gateway.finish();
}

fn shard_channels_work_beside_others(driver: Driver) {
    let (_cluster, gateway, db) = clustered(driver);
    let (mut session, mut other) = (Session::login(&db), Session::login(&db));
    for channel in ["one", "two", "three"] {
        session.say(&format!("SSUBSCRIBE {channel}"));
        assert_eq!(other.say(&format!("SPUBLISH {channel} {channel}")), Value::Integer(1));
        assert_eq!(session.read().items()[2], Value::from(channel));
    }
    assert!(other.say("SSUBSCRIBE one two three four five").is_error("CROSSSLOT"));
    gateway.finish();
}
