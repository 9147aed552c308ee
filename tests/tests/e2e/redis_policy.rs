//! `db_commands` and `db_keys` of roles, judged on Redis commands as clients can write them.

use std::time::{Duration, Instant};

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::Gateway,
    on_both_drivers,
    resp::{Session, Value},
    wait,
};

on_both_drivers!(
    a_denied_name_is_denied_however_it_is_written,
    a_denied_container_takes_its_sub_commands_and_a_denied_sub_command_only_itself,
    unknown_commands_are_refused_unless_the_role_says_all,
    every_name_of_the_server_is_known_in_any_case,
    a_role_for_reading_cannot_write_or_run_scripts,
    classes_are_those_of_the_server,
    deny_beats_allow,
    keys_are_held_to_the_globs_of_the_role,
    every_key_of_a_command_has_to_match,
    a_command_whose_keys_cannot_be_told_is_refused_where_keys_are_limited,
    a_redis_role_takes_effect_within_a_second,
    live_redis_sessions_end_when_the_cluster_says_so,
);

/// Waits until a new session answers `line` as `is_right` wants.
fn in_force(db: &DbConfig, line: &str, is_right: impl Fn(&Value) -> bool) {
    wait::until_true("the role to take effect", wait::SOON, || is_right(&Session::login(db).say(line)));
}

fn is_noperm(value: &Value) -> bool {
    value.is_error("NOPERM")
}

#[track_caller]
fn table(db: &DbConfig, allowed: &[&str], denied: &[&str]) {
    let mut session = Session::login(db);
    for line in allowed {
        let answer = session.say(line);
        assert!(!is_noperm(&answer) && !answer.is_error("ERR ringgate"), "{line}: {answer:?}");
    }
    for line in denied {
        let answer = session.say(line);
        assert!(is_noperm(&answer), "{line}: {answer:?}");
    }
}

fn a_denied_name_is_denied_however_it_is_written(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.deny("    db_commands: [flushall, Get]\n");
    in_force(&db, "FLUSHALL", is_noperm);
    // The first tries ran.
    server.say("CONFIG RESETSTAT");
    table(
        &db,
        &["GETRANGE k 0 1", "getex k", "MGET k", "FLUSHDB"],
        &["FLUSHALL", "flushall", "FlushAll", "fLUSHALL ASYNC", "get k", "GET k", "gEt k"],
    );
    // Inline, and names with bytes that a careless comparison would drop.
    let mut session = Session::login(&db);
    for inline in [
        "flushall\r\n",
        "  FLUSHALL  \r\n",
        "\"FLUSHALL\"\r\n",
        "'flush'\"all\"\r\n",
        "\"\\x46LUSHALL\"\r\n",
        "FLUSHALL\n",
    ] {
        session.send(inline.as_bytes()).expect("send");
        let answer = session.try_read();
        match answer {
            Ok(Some(value)) => assert!(matches!(value, Value::Error(_)), "{inline:?}: {value:?}"),
            // Unbalanced quotes end the connection, as the server does.
            _ => session = Session::login(&db),
        }
    }
    for name in [&b"FLUSHALL\0"[..], b"\0FLUSHALL", b"FLUSHALL ", "FLUSHALL\u{200b}".as_bytes(), b"FLUSHALL\r\n", b""] {
        assert!(matches!(session.ask(&[name]), Value::Error(_)), "{name:?}");
    }
    assert_eq!((server.calls("flushall"), server.calls("get")), (0, 0));
    gateway.finish();
}

fn a_denied_container_takes_its_sub_commands_and_a_denied_sub_command_only_itself(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    gateway.deny("    db_commands: ['CONFIG|SET', CLIENT, 'acl|setuser']\n");
    in_force(&db, "CONFIG SET maxmemory 0", is_noperm);
    table(
        &db,
        &["CONFIG GET maxmemory", "config get maxmemory", "ACL WHOAMI", "acl list", "CLUSTER KEYSLOT k"],
        &[
            "config set maxmemory 0",
            "Config Set maxmemory 0",
            "CLIENT GETNAME",
            "client list",
            "CLIENT ID",
            "ACL SETUSER eve on",
            "acl SetUser eve on",
        ],
    );
    gateway.finish();
}

fn unknown_commands_are_refused_unless_the_role_says_all(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut session = Session::login(&db);
    for line in ["NO.SUCH command", "JSON.GET k", "CONFIG NO-SUCH-SUB", "GETT k"] {
        let answer = session.say(line);
        assert!(matches!(answer, Value::Error(_)) && !answer.is_error("ERR unknown"), "{line}: {answer:?}");
    }
    gateway.permit("    db_commands: ['*']\n", "");
    // Now it is the server that does not know them.
    in_force(&db, "NO.SUCH command", |a| a.is_error("ERR unknown command"));
    assert!(Session::login(&db).say("CONFIG NO-SUCH-SUB").is_error("ERR unknown subcommand"));
    assert!(server.say("INFO stats").text().contains("unexpected_error_replies:0"));
    gateway.record("TDB02W", |r| r.text("db_query").starts_with("NO.SUCH"));
    gateway.finish();
}

/// Full names of the server's commands and sub-commands, in capitals.
fn names(server: &mut Session) -> Vec<String> {
    let list = server.say("COMMAND LIST");
    let mut names: Vec<String> = list.items().iter().map(|n| n.text().to_uppercase()).collect();
    names.sort();
    names
}

fn every_name_of_the_server_is_known_in_any_case(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    // Everything is denied by name: what is known is refused by that rule and never runs, whatever it would do.
    let all = names(&mut server.session());
    assert!(all.len() > 200, "{}", all.len());
    gateway.deny("    db_commands: ['*']\n");
    in_force(&db, "GET k", is_noperm);
    let before = server.say("INFO commandstats").text();
    let mut session = Session::login(&db);
    for (n, name) in all.iter().enumerate() {
        let mixed: String =
            name.chars().enumerate().map(|(i, c)| if (i + n) % 2 == 0 { c.to_ascii_lowercase() } else { c }).collect();
        for form in [name.clone(), name.to_lowercase(), mixed] {
            let answer = session.say(&form.replace('|', " "));
            let is_connection = matches!(name.as_str(), "QUIT" | "RESET" | "HELLO" | "AUTH");
            assert!(is_noperm(&answer) || is_connection, "{form}: {answer:?}");
            if name == "QUIT" {
                session = Session::login(&db);
            }
        }
    }
    let calls = |text: &str| {
        let mut names: Vec<String> = text.lines().filter_map(|l| Some(l.split_once(':')?.0.to_owned())).collect();
        names.retain(|n| !["info", "auth", "ping", "hello", "reset", "quit", "command"].iter().any(|c| n.contains(c)));
        names
    };
    assert_eq!(calls(&server.say("INFO commandstats").text()), calls(&before), "nothing else reached the server");
    gateway.finish();
}

fn a_role_for_reading_cannot_write_or_run_scripts(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    server.say("SET k v");
    let sha = server.session().ask(&["SCRIPT", "LOAD", "return redis.call('SET', 'k', 'changed')"]).text();
    let library =
        "#!lua name=lib\nredis.register_function('change', function() return redis.call('SET', 'k', 'x') end)";
    server.session().ask(&["FUNCTION", "LOAD", library]);
    gateway.permit("    db_commands: ['@read', '@connection']\n", "");
    in_force(&db, "SET probe w", is_noperm);
    let evalsha = format!("EVALSHA {sha} 0");
    let evalsha_ro = format!("EVALSHA_RO {sha} 0");
    table(
        &db,
        &["GET k", "MGET a b", "STRLEN k", "TTL k", "EXISTS k", "SCAN 0", "PING", "HGETALL h", "TYPE k"],
        &[
            "SET k w",
            "DEL k",
            "APPEND k x",
            "FLUSHALL",
            "FLUSHDB",
            "CONFIG GET *",
            "EVAL return\t1 0",
            &evalsha,
            "EVAL_RO return\t1 0",
            &evalsha_ro,
            "FCALL change 0",
            "FCALL_RO change 0",
            "FUNCTION LIST",
            "SCRIPT LIST",
            "SCRIPT LOAD return\t1",
            "SCRIPT FLUSH",
            "FUNCTION FLUSH",
            "SORT k STORE other",
            "SUBSCRIBE c",
            "PUBLISH c x",
            "MONITOR",
            "SYNC",
            "REPLICAOF NO ONE",
            "MIGRATE h 1 k 0 1",
            "DEBUG SLEEP 0",
            "SHUTDOWN NOSAVE",
            "ACL SETUSER eve on",
            "MODULE LIST",
            "BLPOP q 0",
            "GETSET k x",
            "GETDEL k",
            "RESTORE k 0 x",
            "SWAPDB 0 1",
        ],
    );
    assert_eq!(server.say("GET k"), "v".into());
    let scripts: u64 = ["eval", "evalsha", "eval_ro", "fcall"].iter().map(|c| server.calls(c)).sum();
    assert_eq!(scripts, 0);
    gateway.finish();
}

fn classes_are_those_of_the_server(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    // A few classes, each member of each by the server's own ACL CAT; those that end a session or stream are left out.
    for class in ["string", "sortedset", "geo", "hyperloglog", "scripting", "dangerous"] {
        gateway.permit("", &format!("    db_commands: ['@{class}']\n"));
        let members = server.say(&format!("ACL CAT {class}"));
        let first = members.items()[0].text().replace('|', " ");
        in_force(&db, &first, is_noperm);
        let mut session = Session::login(&db);
        for member in members.items() {
            let line = member.text().replace('|', " ");
            let answer = session.say(&line);
            assert!(is_noperm(&answer), "{line} of @{class}: {answer:?}");
        }
        assert_eq!(session.say("LLEN list"), Value::Integer(0), "@{class} has no LLEN");
    }
    gateway.finish();
}

fn deny_beats_allow(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    gateway.permit("    db_commands: ['*', GET]\n", "    db_commands: ['@write', GET]\n");
    in_force(&db, "GET k", is_noperm);
    table(&db, &["STRLEN k", "PING", "TTL k"], &["GET k", "SET k v", "DEL k"]);
    gateway.finish();
}

fn keys_are_held_to_the_globs_of_the_role(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.permit("    db_keys: ['app:*', 'shared:[a-c]?', 'odd\\*key', exact]\n", "");
    in_force(&db, "GET elsewhere", is_noperm);
    table(
        &db,
        &["SET app:1 v", "GET app:", "SET shared:b7 v", "GET exact", "SET odd*key v", "PING", "DBSIZE", "ECHO other"],
        &[
            "SET other v",
            "GET shared:d1",
            "GET shared:a",
            "GET shared:a12",
            "GET oddkey",
            "GET APP:1",
            "GET exact2",
            "GET xapp:1",
            "SET odd+key v",
        ],
    );
    let mut session = Session::login(&db);
    assert!(is_noperm(&session.ask(&[&b"GET"[..], b""])), "an empty key");
    assert!(is_noperm(&session.ask(&[&b"GET"[..], b"\0app:1"])));
    assert_eq!(session.ask(&[&b"SET"[..], b"app:\xff\0\n", b"v"]), Value::ok());
    assert_eq!(server.say("EXISTS other"), Value::Integer(0));
    gateway.record("TDB02W", |r| r.text("db_query") == "SET" && r.text("error").contains("db_keys"));
    gateway.finish();
}

fn every_key_of_a_command_has_to_match(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.permit("    db_keys: ['app:*']\n", "");
    in_force(&db, "GET elsewhere", is_noperm);
    table(
        &db,
        &[
            "MSET app:1 a app:2 b",
            "MGET app:1 app:2",
            "RENAME app:1 app:3",
            "SUNIONSTORE app:d app:e app:f",
            "ZUNIONSTORE app:d 2 app:e app:f WEIGHTS 1 2",
            "EVAL return\t1 1 app:1 other-argument",
            "XREAD COUNT 1 STREAMS app:s app:t 0 0",
            "BLPOP app:q 0.01",
            "LMPOP 1 app:q LEFT",
            "OBJECT ENCODING app:2",
            "COPY app:2 app:4",
            "BITOP AND app:d app:e app:f",
            "SORT app:l STORE app:m",
            "GEORADIUS app:g 1 1 1 m STORE app:h",
        ],
        &[
            "MSET app:1 a other b",
            "MGET app:1 other",
            "RENAME app:2 other",
            "RENAME other app:2",
            "SUNIONSTORE other app:e",
            "SUNIONSTORE app:d app:e other",
            "ZUNIONSTORE app:d 2 app:e other",
            "EVAL return\t1 1 other app:1",
            "EVAL return\t1 2 app:1 other",
            "XREAD STREAMS app:s other 0 0",
            "BLPOP app:q other 0.01",
            "LMPOP 2 app:q other LEFT",
            "OBJECT ENCODING other",
            "COPY app:2 other",
            "BITOP AND app:d app:e other",
            "MIGRATE h 1 other 0 1",
            "DEL app:2 other",
            "SORT app:l STORE other",
            "GEORADIUS app:g 1 1 1 m STORE other",
        ],
    );
    assert_eq!(server.say("KEYS other*").items(), []);
    gateway.finish();
}

fn a_command_whose_keys_cannot_be_told_is_refused_where_keys_are_limited(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    gateway.permit("    db_commands: ['*']\n    db_keys: ['app:*']\n", "");
    in_force(&db, "GET elsewhere", is_noperm);
    // BY and GET of SORT reach keys by pattern; a number of keys that is none, or more than there are arguments, tells
    // nothing; what nobody knows, nobody can judge.
    table(
        &db,
        &["SORT app:l", "PING"],
        &["NO.SUCH app:1", "SORT app:l BY other:*", "SORT app:l GET other:*", "EVAL return\t1 x app:1"],
    );
    gateway.finish();
}

fn a_redis_role_takes_effect_within_a_second(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut live = Session::login(&db);
    // Policy is asked with the first command.
    assert_eq!(live.say("ECHO in"), "in".into());
    gateway.deny("    db_commands: [GET]\n");
    let created = Instant::now();
    in_force(&db, "GET k", is_noperm);
    assert!(created.elapsed() < Duration::from_secs(1), "took {:?}", created.elapsed());
    assert_eq!(live.say("GET k"), Value::Null, "live sessions go on");
    gateway.deny("");
    in_force(&db, "GET k", |a| *a == Value::Null);
    gateway.finish();
}

fn live_redis_sessions_end_when_the_cluster_says_so(driver: Driver) {
    let (server, gateway, db) = super::cached_with(driver, |s| s.config("AUTH__ON_ACCESS_CHANGE", "end"));
    let mut live = Session::login(&db);
    assert_eq!(live.say("SET k v"), Value::ok());
    gateway.deny("    db_users: [default]\n");
    let created = Instant::now();
    let farewell = String::from_utf8_lossy(&live.read_to_close()).into_owned();
    assert!(created.elapsed() < Duration::from_secs(1), "took {:?}", created.elapsed());
    assert!(farewell.starts_with("-ERR ringgate"), "{farewell:?}");
    gateway.record("TDB01I", |r| r.text("reason") == "access");
    ended(&gateway);
    assert_eq!(server.clients(), 0);
    gateway.finish();
}

fn ended(gateway: &Gateway) {
    gateway.record("T3006I", |r| r.text("reason") == "access");
}
