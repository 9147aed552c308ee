//! Pipelines and transactions: every answer in its place, also where a command is refused.

use ringgate_tests::{
    Driver,
    chopper::Chopper,
    db_config::DbConfig,
    gateway::Gateway,
    on_both_drivers,
    redis::Redis,
    resp::{self, Session, Value},
    wait,
};

on_both_drivers!(
    ten_thousand_commands_in_one_piece_are_answered_in_order,
    a_pipeline_is_not_run_in_lock_step,
    a_refused_command_is_answered_in_its_place_wherever_it_stands,
    a_pipeline_of_refused_commands_alone_is_answered,
    transactions_work,
    watched_keys_abort_a_transaction,
    a_refused_command_aborts_its_transaction_wherever_it_stands,
    a_refused_command_before_multi_and_after_exec_leaves_the_transaction_whole,
    discard_forgets_a_refused_command,
    nested_multi_and_exec_without_multi_are_the_servers_errors,
    commands_cut_at_random_places_are_understood,
    a_client_that_does_not_read_holds_nothing_but_itself,
);

/// FLUSHALL is refused by the role from here on.
fn without_flushall(server: &Redis, gateway: &Gateway, db: &DbConfig) {
    gateway.deny("    db_commands: [FLUSHALL]\n");
    wait::until_true("the role to take effect", wait::SOON, || Session::login(db).say("FLUSHALL").is_error("NOPERM"));
    // The first tries ran.
    server.say("CONFIG RESETSTAT");
}

fn ten_thousand_commands_in_one_piece_are_answered_in_order(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    let bytes: Vec<u8> = (0..10_000).flat_map(|n| resp::words(&format!("ECHO {n}"))).collect();
    session.send(&bytes).expect("send");
    for n in 0..10_000 {
        assert_eq!(session.read(), Value::from(n.to_string().as_str()));
    }
    assert_eq!(server.calls("echo"), 10_000);
    gateway.finish();
}

fn a_pipeline_is_not_run_in_lock_step(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    // The first one waits until the test pushes; all others must be with the server by then.
    let lines = ["BLPOP gate 0", "SET passed 1", "INCR passed", "GET passed"];
    let bytes: Vec<u8> = lines.iter().flat_map(|l| resp::words(l)).collect();
    session.send(&bytes).expect("send");
    wait::until_true("the server to hold what follows", wait::SOON, || {
        let list = server.say("CLIENT LIST").text();
        let waiting = list.lines().find(|l| l.contains("cmd=blpop"));
        waiting.is_some_and(|l| !l.contains(" qbuf=0 "))
    });
    server.say("RPUSH gate go");
    assert_eq!(session.read(), Value::Array(vec!["gate".into(), "go".into()]));
    assert_eq!((session.read(), session.read(), session.read()), (Value::ok(), Value::Integer(2), "2".into()));
    gateway.finish();
}

fn a_refused_command_is_answered_in_its_place_wherever_it_stands(driver: Driver) {
    const LENGTH: usize = 12;
    let (server, gateway, db) = super::cached(driver);
    without_flushall(&server, &gateway, &db);
    let mut session = Session::login(&db);
    for position in 0..LENGTH {
        let lines: Vec<String> = (0..LENGTH)
            .map(|n| if n == position { "FLUSHALL".into() } else { format!("SET key-{position}-{n} {n}") })
            .collect();
        for (n, answer) in session.pipeline(&lines).into_iter().enumerate() {
            let is_right = if n == position { answer.is_error("NOPERM") } else { answer == Value::ok() };
            assert!(is_right, "{answer:?} at {n} of a pipeline with the refused one at {position}");
        }
    }
    assert_eq!(server.calls("flushall"), 0);
    assert_eq!(server.say("DBSIZE"), Value::Integer((LENGTH * (LENGTH - 1)) as i64));
    let refused = gateway.record("TDB02W", |r| r.text("db_query") == "FLUSHALL");
    assert!(refused.text("error").contains("FLUSHALL") || refused.text("error").contains("access"), "{}", refused.0);
    gateway.finish();
}

fn a_pipeline_of_refused_commands_alone_is_answered(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    without_flushall(&server, &gateway, &db);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["FLUSHALL"; 1000]);
    assert!(answers.iter().all(|a| a.is_error("NOPERM")), "{answers:?}");
    assert_eq!(session.say("ECHO usable"), "usable".into());
    assert_eq!(server.calls("flushall"), 0);
    gateway.finish();
}

fn transactions_work(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["MULTI", "SET a 1", "INCR a", "GET a", "EXEC", "GET a"]);
    let results = Value::Array(vec![Value::ok(), Value::Integer(2), "2".into()]);
    assert_eq!(answers[1..4], [Value::queued(), Value::queued(), Value::queued()]);
    assert_eq!(answers[4..], [results, "2".into()]);
    // An error at run time stands inside the results and aborts nothing.
    let answers = session.pipeline(&["MULTI", "LPUSH a x", "SET b 1", "EXEC", "GET b"]);
    assert!(answers[3].items()[0].is_error("WRONGTYPE"), "{answers:?}");
    assert_eq!(answers[4], "1".into());
    gateway.finish();
}

fn watched_keys_abort_a_transaction(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    assert_eq!(session.say("WATCH a"), Value::ok());
    server.say("SET a changed");
    assert_eq!(session.pipeline(&["MULTI", "SET a mine", "EXEC"])[2], Value::Null);
    assert_eq!(session.pipeline(&["WATCH a", "UNWATCH", "MULTI", "SET a mine", "EXEC"])[4].items(), [Value::ok()]);
    assert_eq!(server.say("GET a"), "mine".into());
    gateway.finish();
}

/// MULTI, `length` commands with the refused one at `position`, EXEC; `separate` sends each alone.
fn refused_transaction(server: &Redis, session: &mut Session, length: usize, position: usize, separate: bool) {
    let commands = (0..length).map(|n| if n == position { "FLUSHALL".into() } else { format!("SET key-{n} {n}") });
    let lines: Vec<String> = ["MULTI".into()].into_iter().chain(commands).chain(["EXEC".into()]).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answers = if separate { lines.iter().map(|l| session.say(l)).collect() } else { session.pipeline(&lines) };
    assert_eq!(answers[0], Value::ok());
    for (n, answer) in answers[1..=length].iter().enumerate() {
        let is_right = if n == position { answer.is_error("NOPERM") } else { *answer == Value::queued() };
        assert!(is_right, "{answer:?} at {n} of a transaction with the refused one at {position}");
    }
    assert!(answers[length + 1].is_error("EXECABORT"), "{answers:?}");
    assert_eq!(server.say("DBSIZE"), Value::Integer(0), "nothing ran");
    assert_eq!(session.pipeline(&["MULTI", "ECHO again", "EXEC"])[2].items(), ["again".into()]);
}

fn a_refused_command_aborts_its_transaction_wherever_it_stands(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    without_flushall(&server, &gateway, &db);
    let mut session = Session::login(&db);
    for length in [1, 6] {
        for position in 0..length {
            for separate in [false, true] {
                refused_transaction(&server, &mut session, length, position, separate);
            }
        }
    }
    assert_eq!((server.calls("flushall"), server.calls("set")), (0, 0));
    // Several refused ones in one transaction, in RESP3.
    assert!(matches!(session.say("HELLO 3"), Value::Map(_)));
    let answers = session.pipeline(&["MULTI", "FLUSHALL", "SET a 1", "FLUSHALL", "EXEC", "EXISTS a"]);
    assert!(answers[1].is_error("NOPERM") && answers[3].is_error("NOPERM"), "{answers:?}");
    assert!(answers[4].is_error("EXECABORT"), "{answers:?}");
    assert_eq!(answers[5], Value::Integer(0));
    gateway.finish();
}

fn a_refused_command_before_multi_and_after_exec_leaves_the_transaction_whole(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    without_flushall(&server, &gateway, &db);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["FLUSHALL", "MULTI", "SET a 1", "EXEC", "FLUSHALL", "GET a"]);
    assert!(answers[0].is_error("NOPERM") && answers[4].is_error("NOPERM"), "{answers:?}");
    assert_eq!((answers[3].items(), &answers[5]), (&[Value::ok()][..], &Value::from("1")));
    gateway.finish();
}

fn discard_forgets_a_refused_command(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    without_flushall(&server, &gateway, &db);
    let mut session = Session::login(&db);
    let answers = session.pipeline(&["MULTI", "FLUSHALL", "DISCARD", "MULTI", "SET a 1", "EXEC"]);
    assert!(answers[1].is_error("NOPERM"), "{answers:?}");
    assert_eq!((&answers[2], answers[5].items()), (&Value::ok(), &[Value::ok()][..]));
    gateway.finish();
}

fn nested_multi_and_exec_without_multi_are_the_servers_errors(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let lines = [
        "EXEC",
        "DISCARD",
        "MULTI",
        "MULTI",
        "SET a 1",
        "EXEC",
        "MULTI",
        "WATCH a",
        "SET a 2",
        "EXEC",
        "MULTI",
        "NO-SUCH-COMMAND-AT-ALL",
        "EXEC",
        "MULTI",
        "GET",
        "EXEC",
        "GET a",
    ];
    let through = Session::login(&db).pipeline(&lines);
    server.say("DEL a");
    let mut direct = server.session().pipeline(&lines);
    // What is not known never reaches the server: the error is ours, what comes of it is the server's.
    assert!(matches!(through[11], Value::Error(_)), "{through:?}");
    direct[11] = through[11].clone();
    assert_eq!(through, direct);
    gateway.finish();
}

fn commands_cut_at_random_places_are_understood(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let chopper = Chopper::start(&db.host, db.port);
    let mut session = Session::login(&db.through_port(chopper.port));
    let value = "x".repeat(5000);
    let answers = session.pipeline(&[
        "SET a 1",
        &format!("SET b {value}"),
        "GET b",
        "MULTI",
        "INCR a",
        "GET a",
        "EXEC",
        "HELLO 3",
        "HGETALL none",
    ]);
    assert_eq!(answers[2].text(), value);
    assert_eq!(answers[6].items(), [Value::Integer(2), "2".into()]);
    assert_eq!(answers[8], Value::Map(vec![]));
    gateway.finish();
}

fn a_client_that_does_not_read_holds_nothing_but_itself(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    server.say(&format!("SET large {}", "y".repeat(1 << 20)));
    let before = ringgate_tests::process::anonymous_bytes(gateway.pid());
    let mut deaf = Session::login(&db);
    deaf.socket().set_write_timeout(Some(std::time::Duration::from_secs(2))).expect("timeout");
    // Two hundred times a megabyte, none of it read.
    deaf.send(&resp::words("GET large").repeat(200)).ok();
    let mut other = Session::login(&db);
    assert_eq!(other.say("ECHO undisturbed"), "undisturbed".into());
    let after = ringgate_tests::process::anonymous_bytes(gateway.pid());
    assert!(after < before + (16 << 20), "from {before} to {after} bytes");
    for _ in 0..200 {
        assert_eq!(deaf.read().text().len(), 1 << 20);
    }
    gateway.finish();
}
