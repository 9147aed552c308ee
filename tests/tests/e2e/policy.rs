//! Roles, users and databases that change while sessions are live.

use std::time::{Duration, Instant};

use ringgate_tests::{
    Driver,
    gateway::{Gateway, SERVICE, Setup},
    on_both_drivers,
    postgres::{DATABASE, Options, Postgres, USER},
    raw::Raw,
    wait, wire,
};

on_both_drivers!(
    a_role_takes_effect_within_a_second_on_every_worker,
    live_sessions_go_on_when_access_is_lost,
    live_sessions_end_when_the_cluster_says_so,
    a_deleted_role_fails_closed,
    a_database_can_be_added_and_removed_while_serving,
    a_denied_statement_is_answered_natively_and_the_session_goes_on,
    replication_is_refused_unless_named,
);

fn a_role_takes_effect_within_a_second_on_every_worker(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    gateway.deny("    db_users: [app]\n");
    let created = Instant::now();
    wait::until_true("the denial", wait::SOON, || db.psql("select 1").code != 0);
    assert!(created.elapsed() < Duration::from_secs(1), "took {:?}", created.elapsed());
    // More connections than workers, so that each has been asked.
    for _ in 0..8 {
        db.psql("select 1").failed_with(2, &["FATAL"]);
    }
    gateway.deny("");
    let restored = Instant::now();
    wait::until_true("the permission", wait::SOON, || db.psql("select 1").code == 0);
    assert!(restored.elapsed() < Duration::from_secs(1), "took {:?}", restored.elapsed());
    for _ in 0..8 {
        assert_eq!(db.psql("select 1").ok(), "1");
    }
    gateway.finish();
}

fn live_sessions_go_on_when_access_is_lost(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let mut live = Raw::login(&db);
    assert_eq!(live.value("select 1"), "1");
    gateway.deny("    db_users: [app]\n");
    wait::until_true("the denial", wait::SOON, || db.psql("select 1").code != 0);
    assert_eq!(live.value("select 2"), "2");
    gateway.finish();
}

fn live_sessions_end_when_the_cluster_says_so(driver: Driver) {
    let server = Postgres::start(Options::trust());
    let gateway = Setup::new(driver, &server.uri()).config("AUTH__ON_ACCESS_CHANGE", "end").start();
    let db = gateway.login();
    let mut live = Raw::login(&db);
    live.ask(&wire::query("begin; create table lost (n int)"));
    gateway.deny("    db_users: [app]\n");
    let created = Instant::now();
    let messages = live.read_to_close();
    assert!(created.elapsed() < Duration::from_secs(1), "took {:?}", created.elapsed());
    let last = messages.last().expect("an error before the close").fields();
    assert_eq!((last.severity(), last.code()), ("FATAL", "57P01"));
    gateway.record("TDB01I", |r| r.text("reason") == "access");
    gateway.record("T3006I", |r| r.text("reason") == "access");
    wait::until_true("the database to roll back", wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where usename = 'app'") == "0"
    });
    assert_eq!(server.sql("select to_regclass('lost') is null"), "t");
    gateway.finish();
}

fn a_deleted_role_fails_closed(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    gateway.cli(&["rm", "role/access", "--yes"]).ok();
    wait::until_true("the denial", Duration::from_secs(1), || db.psql("select 1").code != 0);
    db.psql("select 1").failed_with(2, &["FATAL"]);
    gateway.finish();
}

fn a_database_can_be_added_and_removed_while_serving(driver: Driver) {
    let (server, gateway, _db) = super::trusted(driver);
    gateway.apply(&format!(
        "kind: db\nversion: v3\nmetadata:\n  name: second\n  labels: {{env: test}}\nspec:\n  protocol: postgres\n  \
         uri: {}:{}\n  auth: {{method: none}}\n  tls: {{mode: 'off'}}\n",
        server.host, server.port
    ));
    let second = wait::until("the new database", wait::SOON, || {
        let login = gateway.cli(&["db", "login", "second", "--db-user", USER, "--db-name", DATABASE]);
        (login.code == 0).then(|| gateway.db_config("second", USER, DATABASE))
    });
    assert_eq!(second.psql("select 'second'").ok(), "second");
    gateway.cli(&["rm", "db/second", "--yes"]).ok();
    wait::until_true("the database to be gone", Duration::from_secs(1), || second.psql("select 1").code != 0);
    second.psql("select 1").failed_with(2, &["FATAL"]);
    gateway.record("TDB03I", |r| r.0.to_string().contains("second"));
    gateway.record("TDB05I", |r| r.0.to_string().contains("second"));
    assert_eq!(gateway.login().psql("select 'first'").ok(), "first", "{SERVICE} is not touched");
    gateway.finish();
}

fn a_denied_statement_is_answered_natively_and_the_session_goes_on(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    gateway.deny("    db_commands: ['@function_call']\n");
    let function = server.sql("select 'pg_catalog.pg_backend_pid'::regproc::oid").parse().expect("an oid");
    let mut session = wait::until("the role to take effect", wait::SOON, || {
        let mut session = Raw::login(&db);
        let answer = session.ask(&wire::function_call(function));
        (answer[0].tag == b'E').then_some(session)
    });
    // Simple cycle: error, then ready at once.
    let answer = session.ask(&wire::function_call(function));
    assert_eq!(answer.iter().map(|m| m.tag).collect::<Vec<_>>(), [b'E', b'Z']);
    let error = answer[0].fields();
    assert_eq!((error.severity(), error.code()), ("ERROR", "42501"));
    // Inside a pipeline, order is kept and what follows still runs.
    let pipeline =
        [wire::query("select 'first'"), wire::function_call(function), wire::query("select 'last'")].concat();
    session.send(&pipeline).expect("send");
    assert!(session.read_to_ready().iter().any(|m| m.tag == b'D' && m.first_column() == "first"));
    assert_eq!(session.read_to_ready()[0].fields().code(), "42501");
    assert!(session.read_to_ready().iter().any(|m| m.tag == b'D' && m.first_column() == "last"));
    let refused = gateway.record("TDB02W", |_| true);
    assert!(refused.text("error").contains("function_call"), "the record names the rule: {}", refused.0);
    gateway.finish();
}

fn replication_is_refused_unless_named(driver: Driver) {
    let server = Postgres::start(Options::trust());
    server.sql(&format!("alter role {USER} replication"));
    let gateway = Gateway::start(driver, &server.uri());
    let db = gateway.login();
    for value in ["true", "on", "1", "database"] {
        let mut raw = Raw::tls(&db).expect("TLS");
        let startup = [("user", USER), ("database", DATABASE), ("replication", value)];
        raw.send(&wire::startup(wire::VERSION_3_0, &startup)).expect("send");
        let messages = raw.read_to_close();
        let error = messages.last().expect("an error").fields();
        assert_eq!(error.severity(), "FATAL", "replication={value}");
        assert!(matches!(error.code(), "28000" | "42501"), "replication={value}: {error:?}");
    }
    gateway.record("TDB00W", |r| r.0.to_string().contains("replication"));
    gateway.finish();
}
