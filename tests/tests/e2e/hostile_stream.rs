//! Peers that are logged in and send what no client sends. A bystander's session never notices.

use ringgate_tests::{Driver, db_config::DbConfig, gateway::Gateway, on_both_drivers, raw::Raw, wire};

on_both_drivers!(
    lengths_that_lie_end_the_session,
    unknown_types_end_the_session_in_every_state,
    messages_of_the_server_are_refused_from_the_client,
    broken_bodies_end_the_session_or_the_statement,
    a_password_after_login_is_a_violation,
    a_stream_of_single_bytes_is_the_same_stream,
    a_lost_client_ends_its_session_at_the_database,
    an_error_skips_to_sync_as_the_server_does,
);

const TYPES: &[u8] = b"QPBDECHSFdcfXp";

/// Sends after login and wants: FATAL 08P01 as the last message, the end, and one more record TDB06I.
#[track_caller]
fn violates(gateway: &Gateway, db: &DbConfig, first: &[&[u8]], bytes: &[u8], what: &str) {
    ends_with(gateway, db, first, bytes, what, &["08P01"]);
}

/// The same for a type nobody knows: unsupported is as good an answer as a violation.
#[track_caller]
fn is_unknown(gateway: &Gateway, db: &DbConfig, first: &[&[u8]], bytes: &[u8], what: &str) {
    ends_with(gateway, db, first, bytes, what, &["08P01", "0A000"]);
}

#[track_caller]
fn ends_with(gateway: &Gateway, db: &DbConfig, first: &[&[u8]], bytes: &[u8], what: &str, codes: &[&str]) {
    let before = gateway.audit().iter().filter(|r| r.text("code") == "TDB06I").count();
    let mut raw = Raw::login(db);
    for part in first {
        raw.send(part).expect("send");
    }
    raw.send(bytes).expect("send");
    let messages = raw.read_to_close();
    let error = messages.last().unwrap_or_else(|| panic!("{what}: closed without an error")).fields();
    assert!(error.severity() == "FATAL" && codes.contains(&error.code()), "{what}: {error:?}");
    gateway.audit_until(&format!("record of {what}"), |records| {
        (records.iter().filter(|r| r.text("code") == "TDB06I").count() > before).then_some(())
    });
}

fn lengths_that_lie_end_the_session(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let mut bystander = Raw::login(&db);
    for &tag in TYPES {
        for length in [0, 3, (1 << 31) - 1, 1 << 31, u32::MAX] {
            let what = format!("type {:?} with length {length}", tag as char);
            violates(&gateway, &db, &[], &wire::head_and(tag, length, b""), &what);
        }
        // These need a body.
        if b"QPBDECFfp".contains(&tag) {
            violates(
                &gateway,
                &db,
                &[],
                &wire::head_and(tag, 4, b""),
                &format!("type {:?} with length 4", tag as char),
            );
        }
    }
    assert_eq!(bystander.value("select 'undisturbed'"), "undisturbed");
    gateway.finish();
}

fn unknown_types_end_the_session_in_every_state(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    server.sql("create table into_here (n int); grant all on into_here to app");
    let copy = wire::query("copy into_here from stdin");
    let pipeline = [wire::parse("", "select 1"), wire::bind("", "", &[])].concat();
    let states: [(&str, &[u8]); 3] = [("ready", b""), ("pipeline", &pipeline), ("copy", &copy)];
    for (state, first) in states {
        for tag in [0, 1, b'\n', b' ', b'a', b'b', b'q', b'Y', b'*', b'$', 0x7f, 0x80, 0xff] {
            is_unknown(&gateway, &db, &[first], &wire::message(tag, b"\0\0\0\0"), &format!("type {tag:#x} in {state}"));
        }
    }
    assert_eq!(server.sql("select count(*) from into_here"), "0");
    gateway.finish();
}

fn messages_of_the_server_are_refused_from_the_client(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    for tag in *b"RKZTANGWVnst123IvO" {
        is_unknown(
            &gateway,
            &db,
            &[],
            &wire::message(tag, b"\0\0\0\0"),
            &format!("type {:?} from a client", tag as char),
        );
    }
    gateway.finish();
}

fn broken_bodies_end_the_session_or_the_statement(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let many = [&b"\0\0"[..], &[0xff, 0xff]].concat();
    let beyond = [&b"\0\0\0\0\0\x01"[..], &0x7fff_ffffu32.to_be_bytes(), b"x"].concat();
    let negative = [&b"\0\0\0\0\0\x01"[..], &(-2i32).to_be_bytes()].concat();
    let cases: [(&str, u8, &[u8]); 11] = [
        ("Query without its end", b'Q', b"select 1"),
        ("Query with a NUL inside", b'Q', b"select 1\0; drop table t\0"),
        ("Query and bytes behind it", b'Q', b"select 1\0x"),
        ("Parse without its end", b'P', b"name\0select 1"),
        ("Parse with more types than bytes", b'P', b"\0select 1\0\xff\xff"),
        ("Bind with more formats than bytes", b'B', &many),
        ("Bind with a value beyond the message", b'B', &beyond),
        ("Bind with a negative length that is not NULL", b'B', &negative),
        ("Execute without its row limit", b'E', b"portal\0\0\0"),
        ("Describe of neither statement nor portal", b'D', b"Xname\0"),
        ("Close without its name", b'C', b"S"),
    ];
    for (what, tag, body) in cases {
        violates(&gateway, &db, &[], &wire::message(tag, body), what);
    }
    gateway.finish();
}

fn a_password_after_login_is_a_violation(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    violates(&gateway, &db, &[], &wire::message(b'p', b"md5-whatever\0"), "a password after login");
    gateway.finish();
}

fn a_stream_of_single_bytes_is_the_same_stream(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let mut raw = Raw::login(&db);
    let script = [
        wire::query("select 'simple'"),
        wire::parse("named", "select $1::text"),
        wire::bind("", "named", &[Some("bound")]),
        wire::execute(""),
        wire::sync(),
    ]
    .concat();
    for byte in &script {
        raw.send(std::slice::from_ref(byte)).expect("send");
    }
    let tags = |messages: &[wire::Message]| messages.iter().map(|m| m.tag as char).collect::<String>();
    assert_eq!(tags(&raw.read_to_ready()), "TDCZ");
    let extended = raw.read_to_ready();
    assert_eq!(tags(&extended), "12DCZ");
    assert_eq!(extended[2].first_column(), "bound");
    gateway.record("TPG02I", |r| r["db_query_parameters"] == serde_json::json!(["bound"]));
    gateway.finish();
}

fn a_lost_client_ends_its_session_at_the_database(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    let mut raw = Raw::login(&db);
    raw.ask(&wire::query("begin; create table never (n int)"));
    drop(raw);
    ringgate_tests::wait::until_true("the database session to end", ringgate_tests::wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where usename = 'app'") == "0"
    });
    gateway.record("TDB01I", |r| r.text("reason") == "client");
    assert_eq!(server.sql("select to_regclass('never') is null"), "t");
    gateway.finish();
}

fn an_error_skips_to_sync_as_the_server_does(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    server.sql("create table kept (n int); grant all on kept to app");
    let mut raw = Raw::login(&db);
    let pipeline = [
        wire::parse("", "select 1/0"),
        wire::bind("", "", &[]),
        wire::execute(""),
        wire::parse("", "insert into kept values (1)"),
        wire::bind("", "", &[]),
        wire::execute(""),
        wire::sync(),
        wire::parse("", "insert into kept values (2)"),
        wire::bind("", "", &[]),
        wire::execute(""),
        wire::sync(),
    ]
    .concat();
    raw.send(&pipeline).expect("send");
    assert!(raw.read_to_ready().iter().any(|m| m.tag == b'E' && m.fields().code() == "22012"));
    assert!(raw.read_to_ready().iter().any(|m| m.tag == b'C'));
    assert_eq!(server.sql("select n from kept"), "2");
    let result = |query: &str| {
        let executed = gateway.record("TPG02I", |r| r.text("db_query") == query);
        gateway.record("TDB10I", |r| r["query_ei"] == executed["ei"] && r.text("sid") == executed.text("sid"))
    };
    assert_eq!(result("select 1/0")["success"], false);
    let skipped = result("insert into kept values (1)");
    assert_eq!((&skipped["success"], &skipped["skipped"]), (&false.into(), &true.into()), "{}", skipped.0);
    assert_eq!(result("insert into kept values (2)")["success"], true);
    gateway.finish();
}
