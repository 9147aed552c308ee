//! The audit of Redis: one record for each command, with its keys, its sizes and what came of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use ringgate_tests::{
    Driver,
    audit_log::{self, Command},
    gateway::Gateway,
    on_both_drivers, process,
    redis::SERVICE,
    resp::{self, Session, Value},
};

on_both_drivers!(
    a_command_has_its_record_and_its_outcome,
    ten_thousand_commands_of_one_pipeline_are_ten_thousand_records,
    what_redis_benchmark_counted_is_what_the_audit_has,
    outcomes_are_those_of_their_own_commands,
    a_transaction_is_recorded_command_by_command,
    values_are_recorded_only_when_asked_for,
    keys_that_are_no_text_are_recorded_as_they_are,
    search_and_tail_show_commands,
    a_session_begins_before_its_first_command,
    the_number_of_a_selected_database_is_recorded,
    commands_that_nobody_knows_are_recorded_without_values,
    a_command_is_answered_when_its_record_is_on_disk,
);

fn answered(gateway: &Gateway, name: &str, at_least: usize) -> Vec<Command> {
    gateway.audit_until(name, |records| {
        let commands: Vec<Command> =
            audit_log::commands(records).into_iter().filter(|c| c.name == name && c.success.is_some()).collect();
        (commands.len() >= at_least).then_some(commands)
    })
}

fn a_command_has_its_record_and_its_outcome(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.pipeline(&["SET user:1 twelve-bytes", "GET user:1", "incr user:1", "MSET a 1 b 2", "CONFIG GET maxmemory"]);
    drop(session);
    let set = gateway.record("TDB02I", |r| r.text("db_query") == "SET");
    for (key, value) in [
        ("event", "db.session.query"),
        ("db_service", SERVICE),
        ("db_protocol", "redis"),
        ("db_user", "default"),
        ("user", "admin"),
    ] {
        assert_eq!(set.text(key), value, "{key} of {}", set.0);
    }
    assert_eq!(set["keys"], serde_json::json!(["user:1"]));
    assert_eq!((set["arguments"].as_u64(), set["argument_bytes"].as_u64()), (Some(2), Some(18)));
    assert!(!set.0.to_string().contains("twelve-bytes"), "values are off by default: {}", set.0);
    assert_eq!(gateway.command_record("GET", |_| true).success, Some(true));
    let failed = gateway.command_record("INCR", |_| true);
    assert!(failed.success == Some(false) && failed.error.contains("not an integer"), "{failed:?}");
    assert_eq!(gateway.command_record("MSET", |_| true).keys, ["a", "b"]);
    assert_eq!(gateway.command_record("CONFIG|GET", |_| true).success, Some(true));
    let end = gateway.record("TDB01I", |r| r.text("sid") == set.text("sid"));
    assert_eq!(end["statements"], 5, "{}", end.0);
    gateway.finish();
}

fn ten_thousand_commands_of_one_pipeline_are_ten_thousand_records(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    let bytes: Vec<u8> = (0..10_000).flat_map(|n| resp::words(&format!("SET key:{n} {n}"))).collect();
    session.send(&bytes).expect("send");
    (0..10_000).for_each(|_| assert_eq!(session.read(), Value::ok()));
    let commands = answered(&gateway, "SET", 10_000);
    assert_eq!(commands.len(), 10_000);
    assert!(commands.iter().all(|c| c.success == Some(true)));
    let keys: HashSet<&str> = commands.iter().flat_map(|c| c.keys.iter().map(String::as_str)).collect();
    assert_eq!(keys.len(), 10_000);
    // The order of the log is the order in which they were sent.
    assert!(commands.iter().enumerate().all(|(n, c)| c.keys == [format!("key:{n}")]));
    gateway.finish();
}

fn what_redis_benchmark_counted_is_what_the_audit_has(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let arguments = ["-n", "5000", "-c", "10", "-P", "16", "-r", "1000", "-q", "INCR", "counter:__rand_int__"];
    process::run(&mut db.redis_benchmark(&arguments)).ok();
    let calls = server.calls("incr");
    assert!(calls >= 5000, "{calls}");
    assert_eq!(answered(&gateway, "INCR", calls as usize).len() as u64, calls);
    // Every event of a session is there; the outcome of a run of commands is one for them all.
    let mut indexes = HashMap::<String, BTreeSet<u64>>::new();
    for record in gateway.audit().iter().filter(|r| !r.text("sid").is_empty()) {
        indexes.entry(record.text("sid").to_owned()).or_default().insert(record["ei"].as_u64().expect("an index"));
    }
    for (sid, seen) in indexes {
        assert!(seen.iter().zip(0..).all(|(ei, expected)| *ei == expected), "session {sid}: {seen:?}");
    }
    gateway.finish();
}

fn outcomes_are_those_of_their_own_commands(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    session.say("SET text abc");
    let lines: Vec<String> =
        (0..500).map(|n| if n % 7 == 3 { "INCR text".to_owned() } else { format!("INCR n:{n}") }).collect();
    session.pipeline(&lines);
    for command in answered(&gateway, "INCR", 500) {
        assert_eq!(command.success, Some(command.keys != ["text"]), "{command:?}");
    }
    gateway.finish();
}

fn a_transaction_is_recorded_command_by_command(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    gateway.deny("    db_commands: [FLUSHALL]\n");
    super::in_force(&db, "FLUSHALL", |answer| answer.is_error("NOPERM"));
    let mut session = Session::login(&db);
    session.pipeline(&["MULTI", "SET done 1", "EXEC", "MULTI", "SET undone 1", "FLUSHALL", "EXEC"]);
    let aborted = gateway.command_record("EXEC", |c| c.success == Some(false));
    assert!(aborted.error.contains("discarded"), "{aborted:?}");
    let commands = gateway.audit_until("the session's seven commands", |records| {
        let found: Vec<Command> =
            audit_log::commands(records).into_iter().filter(|c| c.sid == aborted.sid && c.success.is_some()).collect();
        (found.len() == 7).then_some(found)
    });
    let names: Vec<&str> = commands.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["MULTI", "SET", "EXEC", "MULTI", "SET", "FLUSHALL", "EXEC"]);
    assert_eq!(commands.iter().map(|c| c.forwarded).filter(|f| !f).count(), 1 + usize::from(!commands[6].forwarded));
    assert!(!commands[5].forwarded, "{:?}", commands[5]);
    gateway.finish();
}

fn values_are_recorded_only_when_asked_for(driver: Driver) {
    let (_server, gateway, db) = super::cached_with(driver, |s| s.config("AUDIT__REDIS_ARGUMENTS", "full"));
    Session::login(&db).pipeline(&["SET k plainly-visible", "AUTH never-visible", "HSET h f v"]);
    let set = gateway.record("TDB02I", |r| r.text("db_query") == "SET");
    assert!(set["db_query_parameters"].to_string().contains("plainly-visible"), "{}", set.0);
    gateway.command_record("HSET", |c| c.success == Some(true));
    assert!(gateway.audit().iter().all(|r| !r.0.to_string().contains("never-visible")));
    gateway.finish();
}

fn keys_that_are_no_text_are_recorded_as_they_are(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    assert_eq!(session.ask(&[&b"SET"[..], &[0xff, 0, b'\n'], b"v"]), Value::ok());
    assert_eq!(session.ask(&[&b"SET"[..], "schlüssel \"quoted\"\r\n".as_bytes(), b"v"]), Value::ok());
    let commands = answered(&gateway, "SET", 2);
    assert!(commands[0].keys[0].contains("/wAK"), "base64: {:?}", commands[0]);
    assert_eq!(commands[1].keys, ["schlüssel \"quoted\"\r\n"]);
    gateway.finish();
}

fn search_and_tail_show_commands(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    Session::login(&db).pipeline(&["SET searched 1", "LPUSH searched x"]);
    gateway.command_record("LPUSH", |c| c.success == Some(false));
    let said = gateway.cli(&["audit", "search", "--db", SERVICE]).ok();
    for text in ["SET searched", "LPUSH searched", "failed"] {
        assert!(said.contains(text), "no {text} in {said}");
    }
    let tail = gateway.cli(&["audit", "tail", "--no-follow", "--lines", "10"]).ok();
    assert!(tail.contains("\"LPUSH\""), "{tail}");
    gateway.finish();
}

fn a_session_begins_before_its_first_command(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    for _ in 0..20 {
        Session::login(&db).say("PING");
    }
    let pings = answered(&gateway, "PING", 20);
    let records = gateway.audit();
    for ping in pings {
        let mut own = records.iter().filter(|r| r.text("sid") == ping.sid).map(|r| (r.text("code"), r.text("time")));
        let first = own.next().expect("a record");
        assert_eq!(first.0, "TDB00I");
        assert!(own.all(|(_, time)| time >= first.1), "{records:?}");
    }
    gateway.finish();
}

fn the_number_of_a_selected_database_is_recorded(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    assert_eq!(Session::login(&db).say("SELECT 7"), Value::ok());
    let select = gateway.record("TDB02I", |r| r.text("db_query") == "SELECT");
    assert_eq!(select["db_query_parameters"], serde_json::json!(["7"]), "{}", select.0);
    gateway.finish();
}

fn commands_that_nobody_knows_are_recorded_without_values(driver: Driver) {
    let (_server, gateway, db) = super::cached_with(driver, |s| s.config("AUDIT__REDIS_ARGUMENTS", "full"));
    gateway.permit("    db_commands: ['*']\n", "");
    super::in_force(&db, "NOBODY.KNOWS it", |answer| answer.is_error("ERR unknown command"));
    Session::login(&db).say("NOBODY.KNOWS hidden-in-it");
    let record = gateway.record("TDB02I", |r| r["argument_bytes"] == 12 && r.text("db_query") == "NOBODY.KNOWS");
    assert_eq!(record["arguments"], 1, "{}", record.0);
    assert!(
        gateway
            .audit()
            .iter()
            .filter(|r| r.text("code") != "TDB10I")
            .all(|r| !r.0.to_string().contains("hidden-in-it"))
    );
    gateway.finish();
}

fn a_command_is_answered_when_its_record_is_on_disk(driver: Driver) {
    let (_server, mut gateway, db) = super::cached_with(driver, |s| s.config("AUDIT__MODE", "durable"));
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["SET k 1", "INCR k", "MULTI", "GET k", "EXEC", "NOSUCH", "SELECT 1", "GET k"]);
    assert_eq!(answers[1], Value::Integer(2), "{answers:?}");
    assert_eq!(answers[7], Value::Null, "{answers:?}");
    gateway.kill_9();
    // Nothing was drained since: what was answered is in the files.
    let commands = audit_log::commands(&gateway.audit());
    assert!(["SET", "INCR", "EXEC", "SELECT"].iter().all(|name| commands.iter().any(|c| c.name == *name)));
}
