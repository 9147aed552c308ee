//! Clients that misbehave: the server's own words for what is malformed, and nothing for those it does not know.

use std::{thread, time::Duration};

use ringgate_tests::{
    Driver, certificates,
    db_config::DbConfig,
    gateway::Gateway,
    on_both_drivers,
    raw::Raw,
    redis::Redis,
    resp::{self, Session, Value},
    wait,
};

on_both_drivers!(
    malformed_bytes_are_answered_with_the_servers_text,
    malformed_bytes_behind_good_commands_are_answered_after_them,
    inline_commands_are_understood_as_the_server_does,
    whoever_is_refused_is_not_listened_to,
    other_protocols_on_the_redis_listener_are_closed,
    http_requests_are_closed,
    certificates_of_others_are_refused_by_the_redis_listener,
    a_redis_client_without_certificate_is_refused,
    a_protocol_name_that_is_not_ours_is_refused,
    a_command_that_never_ends_holds_little_memory,
    huge_counts_hold_no_memory,
);

/// Bytes that the server refuses, whatever stands before them.
const MALFORMED: [&[u8]; 31] = [
    b"*1\r\n@4\r\nPING\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\n:1\r\n",
    b"*2\r\n$4\r\nECHO\r\n*1\r\n$1\r\nx\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-2\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$2147483648\r\n",
    b"*1\r\n$4294967296\r\n",
    b"*1\r\n$9223372036854775807\r\n",
    b"*1\r\n$9223372036854775808\r\n",
    b"*1\r\n$18446744073709551616\r\n",
    b"*1\r\n$ 4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$4 \r\nPING\r\n",
    b"*1\r\n$0x4\r\nPING\r\n",
    b"*x\r\n",
    b"*\r\n",
    b"*1048577\r\n",
    b"*2147483647\r\n",
    b"*2147483648\r\n",
    b"*9223372036854775808\r\n",
    b"* 1\r\n",
    b"*+1\r\n",
    b"*01\r\n",
    b"\"unbalanced\r\n",
    b"GET 'k\r\n",
];

/// What the server itself answers, up to the close or to a PING behind it.
fn answer(mut session: Session, bytes: &[u8]) -> (Vec<u8>, bool) {
    session.socket().set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    session.send(bytes).ok();
    session.send(b"*2\r\n$4\r\nECHO\r\n$6\r\nbehind\r\n").ok();
    let mut seen = Vec::new();
    while !seen.ends_with(b"$6\r\nbehind\r\n") {
        match session.read_some(4096) {
            Ok(piece) if !piece.is_empty() => seen.extend_from_slice(&piece),
            Ok(_) => return (seen, true),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("silence after {:?}", String::from_utf8_lossy(&seen))
            }
            Err(_) => return (seen, true),
        }
    }
    (seen, false)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

#[track_caller]
fn same_answer(server: &Redis, db: &DbConfig, logged_in: bool, bytes: &[u8]) {
    let direct = answer(Session::tcp(&server.host, server.port).expect("connect"), bytes);
    let mut session = Session::login(db);
    if logged_in {
        assert_eq!(session.say("ECHO first"), "first".into());
    }
    let through = answer(session, bytes);
    assert_eq!((text(&through.0), through.1), (text(&direct.0), direct.1), "for {:?}", text(bytes));
}

fn malformed_bytes_are_answered_with_the_servers_text(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for bytes in MALFORMED {
        same_answer(&server, &db, true, bytes);
    }
    // What looks odd and is not malformed.
    for bytes in [&b"*0\r\n"[..], b"*-1\r\n", b"\r\n", b"\n", b"  \r\n", b"*-5\r\n"] {
        same_answer(&server, &db, true, bytes);
    }
    let record = gateway.record("TDB06I", |_| true);
    assert_eq!(record.text("db_protocol"), "redis", "{}", record.0);
    let malformed = gateway.audit().iter().filter(|r| r.text("code") == "TDB06I").count();
    assert!(malformed >= 20, "{malformed} records");
    gateway.finish();
}

fn malformed_bytes_behind_good_commands_are_answered_after_them(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let good = [resp::words("SET k v"), resp::words("GET k"), resp::words("INCR k")].concat();
    for bad in [MALFORMED[0], MALFORMED[5], MALFORMED[20]] {
        same_answer(&server, &db, true, &[&good[..], bad].concat());
    }
    gateway.finish();
}

fn inline_commands_are_understood_as_the_server_does(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for line in [
        "ECHO plain",
        "  ECHO   spaced  ",
        "ECHO \"quoted text\"",
        "ECHO 'single quoted'",
        "ECHO \"a\\nb\\x41\\\"\\t\\q\"",
        "ECHO 'it\\'s'",
        "ECHO \"\"",
        "ECHO ''",
        "ECHO a\tb",
        "ECHO \"tab\\tbed\"",
        "ECHO \"\\xff\\x00\"",
        "ECHO a\"b",
        "ECHO \"a\"b",
        "ECHO 'a'b",
        "ECHO a'b'",
        "SET \"k 1\" 'v 1'",
        "GET \"k 1\"",
        "ECHO \u{e4}",
        "PING",
        "ECHO",
    ] {
        for end in ["\r\n", "\n"] {
            same_answer(&server, &db, true, format!("{line}{end}").as_bytes());
        }
    }
    let long = format!("ECHO {}", "x".repeat(60_000));
    same_answer(&server, &db, true, format!("{long}\r\n").as_bytes());
    // 64 KiB without an end of line.
    let mut session = Session::login(&db);
    session.say("ECHO first");
    session.send(&[b'x'; 70_000]).ok();
    assert_eq!(text(&session.read_to_close()), "-ERR Protocol error: too big inline request\r\n");
    gateway.record("TDB02I", |r| r.text("db_query") == "SET" && r["keys"][0] == "k 1");
    gateway.finish();
}

fn whoever_is_refused_is_not_listened_to(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    // Who is let in may begin with anything.
    let mut first = Session::login(&db);
    let pairs: Vec<String> = (0..1000).flat_map(|n| [format!("key:{n}"), "v".into()]).collect();
    assert_eq!(first.ask(&[vec!["MSET".to_owned()], pairs].concat()), Value::ok());
    assert_eq!(Session::login(&db).ask(&[&b"SET"[..], b"large", &vec![b'x'; 1 << 20]]), Value::ok());
    drop(first);
    gateway.deny("    db_users: [default]\n");
    wait::until_true("the role to take effect", wait::SOON, || Session::login(&db).say("PING").is_error("NOPERM"));
    wait::until_true("the sessions to end", wait::SOON, || server.clients() == 0);
    let before = ringgate_tests::process::anonymous_bytes(gateway.pid());
    for bytes in [
        &b"*11\r\n"[..],
        b"*1000000\r\n$4\r\nMGET\r\n",
        b"*2\r\n$4\r\nECHO\r\n$16385\r\n",
        b"*1\r\n$536870912\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n",
    ] {
        let mut session = Session::login(&db);
        session.send(bytes).ok();
        // As much as one likes to send: it is answered once and closed.
        (0..64).try_for_each(|_| session.send(&[b'x'; 65536])).ok();
        let said = session.read_to_close();
        assert!(said.is_empty() || (said.starts_with(b"-") && said.ends_with(b"\r\n")), "{:?}", text(&said));
    }
    let after = ringgate_tests::process::anonymous_bytes(gateway.pid());
    assert!(after < before + (4 << 20), "from {before} to {after} bytes");
    assert_eq!(server.clients(), 0);
    gateway.finish();
}

fn other_protocols_on_the_redis_listener_are_closed(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"*1\r\n$4\r\nPING\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"\x16\x03\x01\xff\xff",
        b"\0",
    ] {
        let mut plain = Session::tcp(&db.host, db.port).expect("the listener is up");
        plain.send(bytes).ok();
        plain.shutdown_write();
        let said = plain.read_to_close();
        assert!(said.is_empty() || said[0] == 0x15 || said.starts_with(b"-"), "{:?} to {:?}", text(&said), text(bytes));
    }
    assert_eq!(server.clients(), 0);
    gateway.finish();
}

fn http_requests_are_closed(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\nSET k http\r\n",
        "post / HTTP/1.1\r\n\r\nSET k http\r\n",
        "Host: localhost\r\nSET k http\r\n",
        "HOST: localhost\r\nSET k http\r\n",
    ] {
        for logged_in in [false, true] {
            let mut session = Session::login(&db);
            if logged_in {
                session.say("ECHO first");
            }
            session.send(request.as_bytes()).expect("send");
            let said = session.read_to_close();
            assert!(!text(&said).contains("+OK"), "{}", text(&said));
        }
    }
    assert_eq!(server.say("EXISTS k"), Value::Integer(0));
    gateway.record("TDB06I", |_| true);
    gateway.finish();
}

/// Neither the handshake nor a command succeeds.
#[track_caller]
fn is_shut_out(session: std::io::Result<Session>, what: &str) {
    let Ok(mut session) = session else { return };
    // In TLS 1.3 the refusal arrives after the client's handshake is done.
    session.send(&resp::words("SET stolen 1")).ok();
    let said = session.read_to_close();
    assert!(said.is_empty() || said.starts_with(b"-"), "{what}: {}", text(&said));
}

fn certificates_of_others_are_refused_by_the_redis_listener(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for pair in certificates::foreign("admin", "ringgate user CA") {
        is_shut_out(Session::through(&db.with_certificate(&pair.certificate, &pair.key)), pair.why);
    }
    assert_eq!(server.say("EXISTS stolen"), Value::Integer(0));
    gateway.record("T3007W", |_| true);
    gateway.finish();
}

fn a_redis_client_without_certificate_is_refused(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    let mut raw = Raw::tcp(&db).handshake(&db, false, &[]);
    if let Ok(raw) = &mut raw {
        raw.send(&resp::words("SET stolen 1")).ok();
        let mut said = Vec::new();
        std::io::Read::read_to_end(raw, &mut said).ok();
        assert!(said.is_empty() || said.starts_with(b"-"), "{}", text(&said));
    }
    assert_eq!(server.say("EXISTS stolen"), Value::Integer(0));
    gateway.finish();
}

fn a_protocol_name_that_is_not_ours_is_refused(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    for names in [&[&b"postgresql"[..]][..], &[b"http/1.1", b"h2"], &[b"mysql"]] {
        if let Ok(mut raw) = Raw::tcp(&db).handshake(&db, true, names) {
            raw.send(&resp::words("ECHO let-in")).ok();
            let mut said = Vec::new();
            std::io::Read::read_to_end(&mut raw, &mut said).ok();
            assert!(!text(&said).contains("let-in"), "{names:?}: {}", text(&said));
        }
    }
    assert_eq!(db.redis(&["PING"]).ok(), "PONG");
    gateway.finish();
}

fn a_command_that_never_ends_holds_little_memory(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let mut bystander = Session::login(&db);
    bystander.say("ECHO here");
    let before = ringgate_tests::process::anonymous_bytes(gateway.pid());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut session = Session::login(&db);
                session.say("ECHO here");
                // 512 MB announced, 16 MB sent, and then nothing.
                session.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n").expect("send");
                for _ in 0..256 {
                    session.send(&[b'x'; 65536]).expect("the server takes it");
                }
            });
        }
    });
    let after = ringgate_tests::process::anonymous_bytes(gateway.pid());
    assert!(after < before + (16 << 20), "from {before} to {after} bytes");
    assert_eq!(bystander.say("EXISTS k"), Value::Integer(0));
    gateway.finish();
}

fn huge_counts_hold_no_memory(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    let before = ringgate_tests::process::anonymous_bytes(gateway.pid());
    let mut held: Vec<Session> = Vec::new();
    for _ in 0..100 {
        let mut session = Session::login(&db);
        session.say("ECHO here");
        session.send(b"*1048576\r\n$4\r\nMGET\r\n").expect("send");
        held.push(session);
    }
    assert_eq!(db.redis(&["PING"]).ok(), "PONG");
    let each = ringgate_tests::process::anonymous_bytes(gateway.pid()).saturating_sub(before) / 100;
    assert!(each < 256 * 1024, "{each} bytes for a session with a command under way");
    drop(held);
    full_count(&gateway, &db);
    gateway.finish();
}

/// A command of many arguments passes whole.
fn full_count(gateway: &Gateway, db: &DbConfig) {
    let mut session = Session::login(db);
    let mut arguments = vec!["DEL".to_owned()];
    arguments.extend((0..200_000).map(|n| format!("key:{n}")));
    assert_eq!(session.ask(&arguments), Value::Integer(0));
    gateway.command_record("DEL", |c| c.success == Some(true));
}
