//! The harness itself: servers start as asked, and the tools see what they should.

use std::{io::Write, process::Command};

use ringgate_tests::{
    audit_log, certificates,
    chopper::Chopper,
    places,
    postgres::{self, Options, Postgres},
    process,
    redis::{self, Redis},
    redis_cluster::RedisCluster,
    resp::{Session, Value},
    wait,
    wire::{self, Message},
};

#[test]
fn a_trusting_server_lets_the_application_user_in() {
    let server = Postgres::start(Options::trust());
    let said = process::run(
        Command::new(places::postgres_client("psql")).args(["-XAtqc", "select current_user"]).arg(server.uri()),
    );
    assert_eq!(said.ok(), postgres::USER);
}

#[test]
fn a_server_with_scram_wants_the_password() {
    let server = Postgres::start(Options::hba(&["host all all all scram-sha-256"]).password("right", "scram-sha-256"));
    let psql = |password: &str| {
        process::run(
            Command::new(places::postgres_client("psql"))
                .args(["-XAtqwc", "select 1"])
                .arg(server.uri_with(password, "?sslmode=disable")),
        )
    };
    assert_eq!(psql("right").ok(), "1");
    psql("wrong").failed_with(2, &["password authentication failed"]);
}

#[test]
fn a_killed_server_comes_back_with_its_data() {
    let mut server = Postgres::start(Options::trust().own());
    server.sql("create table kept (n int); insert into kept values (42); checkpoint");
    server.kill_9();
    server.start_again();
    assert_eq!(server.sql("select n from kept"), "42");
}

#[test]
fn the_chopper_passes_every_byte_in_order() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let chopper = Chopper::start("127.0.0.1", listener.local_addr().expect("address").port());
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let writer = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", chopper.port)).expect("connect");
        stream.write_all(&sent).expect("write");
    });
    let (mut stream, _) = listener.accept().expect("accept");
    let mut received = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut received).expect("read");
    writer.join().expect("writer");
    assert!(received == expected, "{} of {} bytes, or wrong ones", received.len(), expected.len());
}

#[test]
fn messages_read_back_as_they_were_written() {
    let bytes = [wire::query("select 1"), wire::sync()].concat();
    let mut rest = bytes.as_slice();
    let first = Message::read(&mut rest).expect("read").expect("a message");
    assert_eq!((first.tag, first.body.as_slice()), (b'Q', b"select 1\0".as_slice()));
    assert_eq!(Message::read(&mut rest).expect("read").expect("a message").tag, b'S');
    assert_eq!(Message::read(&mut rest).expect("read"), None);
}

#[test]
fn the_audit_reader_sorts_and_passes_over_what_is_no_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let lines = "{\"seq\":2,\"event\":\"b\"}\n{\"event\":\"audit.batch\"}\n{\"seq\":1,\"event\":\"a\"}\n{\"seq\":3,";
    std::fs::write(directory.path().join("0.jsonl"), lines).expect("write");
    std::fs::write(directory.path().join("ring"), b"\0\0{\"seq\":9}").expect("write");
    let records = audit_log::read(directory.path());
    assert_eq!(records.iter().map(|r| r.event().to_owned()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_line_with_a_result_is_two_events_and_a_run_has_an_outcome_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let command = |ei: u32, result: &str| {
        format!(
            "{{\"seq\":{ei},\"code\":\"TDB02I\",\"sid\":\"s\",\"ei\":{ei},\"db_query\":\"GET\",\"keys\":[\"k\"],\
             \"arguments\":1{result}}}\n"
        )
    };
    let joined = command(1, ",\"result\":{\"ei\":4,\"success\":false,\"error\":\"no\"}");
    let run =
        "{\"seq\":5,\"code\":\"TDB10I\",\"sid\":\"s\",\"ei\":5,\"query_ei\":2,\"query_count\":2,\"success\":true}\n";
    std::fs::write(directory.path().join("0.jsonl"), joined + &command(2, "") + &command(3, "") + run).expect("write");
    let records = audit_log::read(directory.path());
    assert_eq!(records.len(), 6);
    let outcomes: Vec<_> = audit_log::commands(&records).into_iter().map(|c| (c.success, c.error)).collect();
    assert_eq!(outcomes, [(Some(false), "no".into()), (Some(true), "".into()), (Some(true), "".into())]);
}

#[test]
fn the_foreign_certificates_are_well_formed() {
    let pairs = certificates::foreign("admin", "user CA");
    assert_eq!(pairs.len(), 7);
    for pair in pairs {
        assert!(pair.certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{}", pair.why);
        assert!(pair.key.contains("PRIVATE KEY"), "{}", pair.why);
    }
}

#[test]
fn waiting_ends_when_the_condition_holds() {
    let mut turns = 0;
    let value = wait::until("three turns", wait::SOON, || {
        turns += 1;
        (turns == 3).then_some(turns)
    });
    assert_eq!(value, 3);
}

#[test]
fn a_redis_with_acl_users_lets_in_whom_it_should() {
    let options = redis::Options::open().user("default", "off").user("app", "on >right ~* &* +@all");
    let server = Redis::start(options.own());
    let cli = |user: &str, password: &str| {
        let place = ["-p".to_owned(), server.port.to_string(), "--no-auth-warning".into()];
        let login = ["--user", user, "--pass", password, "ACL", "WHOAMI"];
        process::run(Command::new(places::redis_tool("redis-cli")).args(place).args(login)).stdout
    };
    assert_eq!(cli("app", "right").trim(), "app");
    assert!(cli("app", "wrong").contains("WRONGPASS") || cli("app", "wrong").contains("NOAUTH"));
    assert_eq!(server.clients(), 0, "the watcher is not counted");
}

#[test]
fn a_redis_with_a_password_wants_it() {
    let server = Redis::start(redis::Options::open().password("right"));
    let mut session = Session::tcp(&server.host, server.port).expect("connect");
    assert!(session.say("GET k").is_error("NOAUTH"));
    assert_eq!(session.say("AUTH right"), Value::ok());
    server.say("SET k v");
    assert_eq!(session.say("GET k"), "v".into());
    assert_eq!(server.calls("get"), 1);
}

#[test]
fn a_killed_redis_comes_back_empty_on_its_port() {
    let mut server = Redis::start(redis::Options::open().own());
    server.say("SET k v");
    server.kill_9();
    server.start_again();
    assert_eq!(server.say("GET k"), Value::Null);
    assert!(server.log().contains("Ready to accept connections"));
}

#[test]
fn a_cluster_has_a_key_for_each_of_its_masters() {
    let cluster = RedisCluster::start();
    let keys = cluster.one_key_for_each();
    for (node, key) in cluster.nodes.iter().zip(&keys) {
        assert_eq!(node.say(&format!("SET {key} v")), Value::ok());
    }
    assert!(cluster.nodes[1].say(&format!("GET {}", keys[0])).is_error("MOVED"));
    assert_eq!(cluster.owner(&keys[2]).port, cluster.nodes[2].port);
}
