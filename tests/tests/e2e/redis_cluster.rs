//! A Redis Cluster behind the gateway: three masters, one of them killed, and clients that know of it and that do not.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::{Gateway, Setup},
    on_both_drivers,
    redis::SERVICE,
    redis_cluster::RedisCluster,
    resp::{Session, Value},
    wait,
};

on_both_drivers!(
    a_simple_client_reaches_every_slot,
    commands_over_several_slots_are_split_and_merged,
    what_cannot_be_split_is_crossslot,
    whole_cluster_commands_reach_every_master,
    transactions_stay_in_one_slot,
    a_cluster_client_sees_only_the_gateway,
    redis_py_cluster_works,
    slots_that_move_are_followed,
    messages_reach_subscribers_of_any_node,
    policy_and_audit_hold_in_a_cluster,
    a_master_killed_under_load_is_an_error_for_its_slots_only,
);

fn clustered(driver: Driver) -> (RedisCluster, Gateway, DbConfig) {
    let cluster = RedisCluster::start();
    let gateway = Setup::redis(driver, &cluster.uri()).start();
    let db = gateway.redis_login(SERVICE, "");
    (cluster, gateway, db)
}

fn a_simple_client_reaches_every_slot(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let sets: Vec<String> = (0..1000).map(|n| format!("SET key:{n} {n}")).collect();
    let gets: Vec<String> = (0..1000).map(|n| format!("GET key:{n}")).collect();
    assert!(session.pipeline(&sets).iter().all(|a| *a == Value::ok()));
    for (n, answer) in session.pipeline(&gets).iter().enumerate() {
        assert_eq!(*answer, Value::from(n.to_string().as_str()));
    }
    let sizes: Vec<i64> = cluster.nodes.iter().map(|n| n.say("DBSIZE").text().parse().expect("a number")).collect();
    assert!(sizes.iter().all(|s| *s > 200) && sizes.iter().sum::<i64>() == 1000, "{sizes:?}");
    gateway.finish();
}

fn commands_over_several_slots_are_split_and_merged(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let k = cluster.one_key_for_each();
    let (a, b, c) = (&k[0], &k[1], &k[2]);
    assert_eq!(session.say(&format!("MSET {a} 1 {b} 2 {c} 3")), Value::ok());
    let values = session.say(&format!("MGET {c} none {a} {b}"));
    assert_eq!(values, Value::Array(vec!["3".into(), Value::Null, "1".into(), "2".into()]));
    assert_eq!(session.say(&format!("EXISTS {a} {b} {c} none")), Value::Integer(3));
    assert_eq!(session.say(&format!("TOUCH {a} {b}")), Value::Integer(2));
    assert_eq!(session.say(&format!("DEL {a} {b}")), Value::Integer(2));
    assert_eq!(session.say(&format!("UNLINK {c} none")), Value::Integer(1));
    assert_eq!(session.say("DBSIZE"), Value::Integer(0));
    gateway.finish();
}

fn what_cannot_be_split_is_crossslot(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let k = cluster.one_key_for_each();
    for line in [
        format!("RENAME {} {}", k[0], k[1]),
        format!("SUNIONSTORE {} {}", k[0], k[2]),
        format!("EVAL return\t1 2 {} {}", k[1], k[2]),
        format!("MSETNX {} 1 {} 2", k[0], k[1]),
    ] {
        assert!(session.say(&line).is_error("CROSSSLOT"), "{line}");
    }
    assert_eq!(session.pipeline(&["SET {tag}a 1", "RENAME {tag}a {tag}b", "GET {tag}b"])[2], "1".into());
    gateway.finish();
}

fn whole_cluster_commands_reach_every_master(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    for n in 0..300 {
        session.say(&format!("SET key:{n} x"));
    }
    assert_eq!(session.say("DBSIZE"), Value::Integer(300));
    assert_eq!(session.say("KEYS key:*").items().len(), 300);
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let answer = session.say(&format!("SCAN {cursor} COUNT 10"));
        found.extend(answer.items()[1].items().iter().map(Value::text));
        cursor = answer.items()[0].text();
        if cursor == "0" {
            break;
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 300);
    let sha = session.ask(&["SCRIPT", "LOAD", "return KEYS[1]"]).text();
    for key in cluster.one_key_for_each() {
        assert_eq!(session.say(&format!("EVALSHA {sha} 1 {key}")), Value::from(key.as_str()));
    }
    assert!(session.say("INFO server").text().contains("redis_version"));
    assert_eq!(session.say("FLUSHALL"), Value::ok());
    assert!(cluster.nodes.iter().all(|n| n.say("DBSIZE") == Value::Integer(0)));
    gateway.finish();
}

fn transactions_stay_in_one_slot(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    for key in cluster.one_key_for_each() {
        let answers = session.pipeline(&["MULTI", &format!("SET {key} 1"), &format!("INCR {key}"), "EXEC"]);
        assert_eq!(answers[3].items(), [Value::ok(), Value::Integer(2)], "{answers:?}");
    }
    let k = cluster.one_key_for_each();
    let (one, other) = (format!("SET {} 9", k[0]), format!("SET {} 9", k[1]));
    let answers = session.pipeline(&["MULTI", &one, &other, "EXEC"]);
    assert!(answers[2].is_error("CROSSSLOT") && answers[3].is_error("EXECABORT"), "{answers:?}");
    assert_eq!(session.say(&format!("GET {}", k[0])), "2".into());
    gateway.finish();
}

fn a_cluster_client_sees_only_the_gateway(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES", "CLUSTER INFO"]);
    for answer in &answers {
        let text = format!("{answer:?}");
        for node in &cluster.nodes {
            assert!(!text.contains(&node.port.to_string()), "port {} in {text}", node.port);
        }
    }
    let covered: i64 = answers[0]
        .items()
        .iter()
        .map(|range| match range.items() {
            [Value::Integer(from), Value::Integer(to), ..] => to - from + 1,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(covered, 16384);
    assert!(format!("{:?}", answers[0]).contains(&db.port.to_string()), "{:?}", answers[0]);
    assert_eq!(db.redis(&["-c", "SET", "by", "redis-cli"]).ok(), "OK");
    gateway.finish();
}

fn redis_py_cluster_works(driver: Driver) {
    let (_cluster, gateway, db) = clustered(driver);
    assert_eq!(db.redis_py(&["cluster", "2"]), "4950 5050 100 100");
    assert_eq!(db.redis_py(&["cluster", "3"]), "4950 5050 100 100");
    gateway.finish();
}

fn slots_that_move_are_followed(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    let key = cluster.one_key_for_each().remove(0);
    assert_eq!(session.say(&format!("SET {key} before")), Value::ok());
    let slot = cluster.nodes[0].say(&format!("CLUSTER KEYSLOT {key}")).text();
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (from_id, to_id) = (from.say("CLUSTER MYID").text(), to.say("CLUSTER MYID").text());
    to.say(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
    from.say(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    // On its way: the key is still here, its neighbor in the slot is answered by ASK.
    assert_eq!(session.say(&format!("GET {key}")), "before".into());
    let neighbor = format!("{{{key}}}:new");
    assert_eq!(session.say(&format!("SET {neighbor} asked")), Value::ok());
    assert_eq!(session.say(&format!("GET {neighbor}")), "asked".into());
    from.say(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
    for node in &cluster.nodes {
        node.say(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    }
    assert_eq!(session.say(&format!("GET {key}")), "before".into(), "MOVED is followed");
    assert_eq!(session.say(&format!("SET {key} after")), Value::ok());
    let mut later = Session::login(&db);
    assert_eq!(later.say(&format!("GET {key}")), "after".into());
    gateway.finish();
}

fn messages_reach_subscribers_of_any_node(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    let mut session = Session::login(&db);
    session.say("SUBSCRIBE news");
    for (n, node) in cluster.nodes.iter().enumerate() {
        node.say(&format!("PUBLISH news {n}"));
        assert_eq!(session.read().items()[2], Value::from(n.to_string().as_str()));
    }
    gateway.finish();
}

fn policy_and_audit_hold_in_a_cluster(driver: Driver) {
    let (cluster, gateway, db) = clustered(driver);
    gateway.deny("    db_commands: [FLUSHALL]\n");
    wait::until_true("the role to take effect", wait::SOON, || Session::login(&db).say("FLUSHALL").is_error("NOPERM"));
    let k = cluster.one_key_for_each();
    let mset = format!("MSET {} 1 {} 2", k[0], k[1]);
    let answers = Session::login(&db).pipeline(&[mset.as_str(), "FLUSHALL", "DBSIZE"]);
    assert!(answers[1].is_error("NOPERM"), "{answers:?}");
    assert_eq!(answers[2], Value::Integer(2));
    // What the client said is one record, however many nodes it went to.
    assert_eq!(gateway.command_record("MSET", |c| c.success == Some(true)).keys, [k[0].clone(), k[1].clone()]);
    let seen = gateway.audit().iter().filter(|r| r.text("code") == "TDB02I" && r.text("db_query") == "MSET").count();
    assert_eq!(seen, 1);
    gateway.finish();
}

fn a_master_killed_under_load_is_an_error_for_its_slots_only(driver: Driver) {
    let (mut cluster, gateway, db) = clustered(driver);
    let keys = cluster.one_key_for_each();
    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = keys.iter().map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for (key, count) in keys.iter().zip(&counts) {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut session = Session::login(db);
                while !stop.load(Ordering::Relaxed) {
                    if session.send(&ringgate_tests::resp::words(&format!("INCR {key}"))).is_err() {
                        session = Session::login(db);
                        continue;
                    }
                    match session.try_read() {
                        Ok(Some(Value::Integer(_))) => {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(Some(_)) => {}
                        _ => session = Session::login(db),
                    }
                }
            });
        }
        let advance = |what: &str, which: &[usize]| {
            let before: Vec<u64> = counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
            wait::until_true(what, wait::SOON, || {
                which.iter().all(|n| counts[*n].load(Ordering::Relaxed) > before[*n] + 200)
            });
        };
        advance("all three to count", &[0, 1, 2]);
        cluster.nodes[0].kill_9();
        advance("the others to go on", &[1, 2]);
        cluster.nodes[0].start_again();
        advance("all three to count again", &[0, 1, 2]);
        stop.store(true, Ordering::Relaxed);
    });
    gateway.finish();
}
