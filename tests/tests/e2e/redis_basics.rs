//! redis-cli, redis-benchmark and the command line with a Redis.

use std::process::Command;

use ringgate_tests::{
    Driver,
    gateway::Setup,
    on_both_drivers, places,
    postgres::{Options as PostgresOptions, Postgres},
    process,
    redis::{Options, Redis, SERVICE},
    resp::{Session, Value},
    wait,
};
use serde_json::Value as Json;

on_both_drivers!(
    redis_cli_works_through_the_gateway,
    redis_benchmark_runs_with_and_without_a_pipeline,
    db_connect_runs_redis_cli_and_gives_its_exit_status,
    the_json_of_db_config_has_every_promised_key_for_redis,
    plain_clients_of_redis_use_the_tunnel,
    both_protocols_are_served_side_by_side,
    a_second_start_goes_on_with_redis,
    a_refused_connection_is_visible_in_redis_cli,
    a_refused_user_is_told_so_by_the_command_line,
    a_plain_client_is_refused,
    a_refused_connection_is_told_so_at_each_command,
    teleports_words_are_said_where_they_are_asked_for,
    a_reload_keeps_redis_sessions,
);

fn redis_cli_works_through_the_gateway(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    assert_eq!(db.redis(&["PING"]).ok(), "PONG");
    assert_eq!(db.redis(&["SET", "greeting", "hello world"]).ok(), "OK");
    assert_eq!(db.redis(&["GET", "greeting"]).ok(), "hello world");
    assert_eq!(server.say("GET greeting").text(), "hello world");
    assert_eq!(db.redis(&["-3", "HGETALL", "nothing"]).ok(), "");
    let script = b"MULTI\nINCR a\nINCR a\nEXEC\nSUBSCRIBE_IS_NOT_A_COMMAND\nGET a\n";
    let said = process::run_with_input(&mut db.redis_cli(&[]), script, wait::SOON).ok();
    let lines: Vec<&str> = said.lines().filter(|l| !l.is_empty()).collect();
    assert_eq!(lines[..5], ["OK", "QUEUED", "QUEUED", "1", "2"], "{said}");
    assert!(
        lines[5].contains("SUBSCRIBE_IS_NOT_A_COMMAND") || said.contains("ERR") || said.contains("NOPERM"),
        "{said}"
    );
    assert_eq!(lines.last(), Some(&"2"), "{said}");
    gateway.finish();
}

fn redis_benchmark_runs_with_and_without_a_pipeline(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for pipeline in ["1", "16"] {
        let arguments = ["-n", "2000", "-c", "20", "-P", pipeline, "-t", "set,get,incr,lpush,mset", "-q"];
        let said = process::run(&mut db.redis_benchmark(&arguments)).ok();
        assert_eq!(said.matches("requests per second").count(), 5, "{said}");
    }
    // Two runs of 2,000, and what the server counted itself.
    assert_eq!(server.calls("incr"), 4000);
    assert_eq!(server.calls("get"), 4000);
    gateway.finish();
}

fn db_connect_runs_redis_cli_and_gives_its_exit_status(driver: Driver) {
    let (_server, gateway, _db) = super::cached(driver);
    let connect = |arguments: &[&str]| gateway.cli(&[&["db", "connect", SERVICE, "--"], arguments].concat());
    assert_eq!(connect(&["PING"]).ok(), "PONG");
    // redis-cli's -e: an error reply is exit status 1.
    assert_eq!(connect(&["-e", "INCR", "a", "b"]).code, 1);
    assert_eq!(gateway.cli(&["db", "connect", "no-such-database"]).code, 5);
    gateway.finish();
}

fn the_json_of_db_config_has_every_promised_key_for_redis(driver: Driver) {
    let (_server, gateway, _db) = super::cached(driver);
    let text = gateway.cli(&["db", "config", SERVICE, "--format", "json"]).ok();
    let json: Json = serde_json::from_str(&text).expect("JSON");
    for key in ["protocol", "host", "port", "user", "ca", "cert", "key", "expires", "uri"] {
        assert!(!json[key].is_null(), "no {key} in {text}");
    }
    assert_eq!((json["protocol"].as_str(), json["user"].as_str()), (Some("redis"), Some("default")));
    let uri = gateway.cli(&["db", "config", SERVICE, "--format", "uri"]).ok();
    assert!(uri.starts_with("rediss://") && uri.contains(&gateway.redis_port.to_string()), "{uri}");
    let list: Json = serde_json::from_str(&gateway.cli(&["db", "ls", "--format", "json"]).ok()).expect("JSON");
    assert_eq!((list[0]["name"].as_str(), list[0]["protocol"].as_str()), (Some(SERVICE), Some("redis")), "{list}");
    gateway.finish();
}

fn plain_clients_of_redis_use_the_tunnel(driver: Driver) {
    let (server, gateway, _db) = super::cached(driver);
    let port = places::free_port();
    let address = format!("127.0.0.1:{port}");
    let mut tunnel = gateway.command(&["proxy", "db", "--tunnel", "--listen", &address, SERVICE]);
    let mut tunnel = tunnel.spawn().expect("the tunnel starts");
    let cli = |arguments: &[&str]| {
        process::run(Command::new(places::redis_tool("redis-cli")).args(["-p", &port.to_string()]).args(arguments))
    };
    wait::until_true("the tunnel", wait::SOON, || cli(&["PING"]).stdout.trim() == "PONG");
    assert_eq!(cli(&["SET", "by", "tunnel"]).ok(), "OK");
    assert_eq!(server.say("GET by").text(), "tunnel");
    tunnel.kill().expect("kill");
    tunnel.wait().expect("wait");
    gateway.command_record("SET", |c| c.keys == ["by"]);
    gateway.finish();
}

fn both_protocols_are_served_side_by_side(driver: Driver) {
    let (cache, orders) = (Redis::start(Options::open()), Postgres::start(PostgresOptions::trust()));
    let gateway = Setup::redis(driver, &cache.uri()).database("orders-db", &orders.uri()).start();
    let (redis, postgres) = (gateway.redis_login(SERVICE, ""), gateway.login());
    assert_eq!(redis.redis(&["SET", "k", "v"]).ok(), "OK");
    assert_eq!(postgres.psql("select 40 + 2").ok(), "42");
    // A certificate is good for its own database alone, on whichever listener it is shown.
    let crossed = redis.with_certificate(&postgres.pem(&postgres.cert), &postgres.pem(&postgres.key));
    let said = crossed.redis(&["GET", "k"]);
    assert!(!said.stdout.contains('v'), "{said:?}");
    gateway.finish();
}

fn a_second_start_goes_on_with_redis(driver: Driver) {
    let (_server, mut gateway, db) = super::cached(driver);
    assert_eq!(db.redis(&["SET", "before", "1"]).ok(), "OK");
    assert_eq!(gateway.terminate(), 0);
    gateway.start_again();
    assert_eq!(db.redis(&["GET", "before"]).ok(), "1");
    assert_eq!(gateway.terminate(), 0);
    gateway.start_again_from_file();
    assert_eq!(db.redis(&["GET", "before"]).ok(), "1");
    gateway.command_record("SET", |c| c.keys == ["before"] && c.success == Some(true));
    gateway.finish();
}

fn a_refused_connection_is_visible_in_redis_cli(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.deny("    db_users: [default]\n");
    super::in_force(&db, "PING", |answer| answer.is_error("NOPERM"));
    for arguments in [&["GET", "k"][..], &["-3", "GET", "k"]] {
        let said = db.redis(arguments);
        assert!(said.stdout.contains("NOPERM") || said.stderr.contains("NOPERM"), "{said:?}");
    }
    for protocol in ["2", "3"] {
        let said = db.redis_py(&["refused", protocol]);
        assert!(said.contains("NoPermissionError") || said.contains("NOPERM"), "RESP{protocol}: {said}");
    }
    let record = gateway.record("TDB00W", |_| true);
    assert!(record.text("error").contains("access"), "the record names the role: {}", record.0);
    assert_eq!(server.clients(), 0);
    gateway.finish();
}

fn a_refused_user_is_told_so_by_the_command_line(driver: Driver) {
    let (_server, gateway, _db) = super::cached(driver);
    gateway.deny("    db_users: [stranger]\n");
    let connect = || gateway.cli(&["db", "connect", SERVICE, "--db-user", "stranger", "--", "PING"]);
    wait::until_true("the role to take effect", wait::SOON, || connect().stderr.contains("denied"));
    assert!(connect().code != 0, "{:?}", connect());
    gateway.finish();
}

fn a_plain_client_is_refused(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut plain = Session::tcp(&db.host, db.port).expect("the listener is up");
    plain.send(b"SET leaked 1\r\n").expect("send");
    let answer = String::from_utf8_lossy(&plain.read_to_close()).into_owned();
    assert!(!answer.contains("+OK"), "{answer}");
    assert_eq!(server.say("EXISTS leaked").text(), "0");
    gateway.finish();
}

fn a_refused_connection_is_told_so_at_each_command(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.deny("    db_users: [default]\n");
    super::in_force(&db, "PING", |answer| answer.is_error("NOPERM"));
    let mut session = Session::login(&db);
    assert!(matches!(session.say("HELLO 3"), Value::Map(_)));
    for line in ["CLIENT SETINFO LIB-NAME x", "CLIENT SETINFO LIB-VER 1", "GET k"] {
        assert!(session.say(line).is_error("NOPERM"), "{line}");
    }
    assert!(session.read_to_close().is_empty(), "it ends by itself");
    let mut session = Session::login(&db);
    let said = session.pipeline(&["GET k"; 16]);
    assert!(said.iter().all(|answer| answer.is_error("NOPERM")), "{said:?}");
    assert!(session.read_to_close().is_empty());
    let mut session = Session::login(&db);
    assert!(session.say("DEL 1 2 3 4 5 6 7 8 9 10").is_error("ERR Protocol error: unauthenticated multibulk length"));
    assert_eq!(server.clients(), 0);
    gateway.finish();
}

fn teleports_words_are_said_where_they_are_asked_for(driver: Driver) {
    let (_server, gateway, db) = super::cached_with(driver, |setup| {
        setup.config("LISTENERS__REDIS__ADDR", "127.0.0.1:0").config("LISTENERS__REDIS__COMPAT", "teleport")
    });
    gateway.permit("    db_commands: ['*', '@replication']\n", "");
    super::in_force(&db, "SYNC", |answer| answer.is_error("ERR Teleport: not supported by Teleport"));
    let mut session = Session::login(&db);
    assert!(session.say("HELLO 3").is_error("ERR unknown command 'HELLO'"));
    assert!(!session.say("HELLO 2").is_error(""));
    assert_eq!(db.redis_py(&["basics", "2"]).split(' ').next(), Some("value"));
    gateway.finish();
}

fn a_reload_keeps_redis_sessions(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    assert_eq!(session.say("SET k v"), Value::ok());
    process::run(Command::new("kill").args(["-HUP", &gateway.pid().to_string()])).ok();
    gateway.record("TSV00I", |_| true);
    assert_eq!(session.say("GET k"), "v".into());
    assert_eq!(db.redis(&["GET", "k"]).ok(), "v");
    assert_eq!(gateway.redis_login(SERVICE, "").redis(&["GET", "k"]).ok(), "v");
    gateway.finish();
}
