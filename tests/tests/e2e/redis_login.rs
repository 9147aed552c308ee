//! How Ringgate logs in to Redis: by client certificate, by password, or with what the client says itself.

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::{Gateway, Setup},
    on_both_drivers, places,
    redis::{Options, Redis, SERVICE},
    resp::{self, Session, Value},
    wait,
};

on_both_drivers!(
    by_client_certificate_to_redis,
    by_the_password_of_the_default_user,
    by_the_password_of_an_acl_user,
    a_wrong_redis_password_is_our_error_and_names_no_secret,
    an_unreachable_redis_is_a_native_error,
    a_redis_with_a_foreign_certificate_is_refused,
    what_an_acl_user_may_not_is_the_servers_error,
    clients_bring_their_own_password_where_they_are_to,
    passthrough_lets_in_only_users_of_the_role,
    a_client_may_repeat_the_login_it_does_not_need,
);

const PASSWORD: &str = "correct-horse-7Q";

/// A gateway first, because it signs the certificates of the server that comes then.
fn with_certificates(driver: Driver, options: Options) -> (Redis, Gateway) {
    let port = places::free_port();
    let gateway = Setup::redis(driver, &format!("rediss://localhost:{port}")).start();
    let prefix = gateway.base().join("server");
    let out = prefix.to_str().expect("a path in UTF-8");
    let said =
        gateway.cli(&["ca", "sign", "--format=redis", "--host", "localhost,127.0.0.1", "--out", out, "--ttl", "2190h"]);
    let shown = said.stdout.clone() + &said.stderr;
    for line in ["tls-port", "tls-cert-file", "tls-key-file", "tls-ca-cert-file", "server.cas"] {
        assert!(shown.contains(line), "no {line} in the setup text: {shown}");
    }
    said.ok();
    (Redis::start(options.certificates(&prefix).port(port)), gateway)
}

fn by_client_certificate_to_redis(driver: Driver) {
    let (server, gateway) = with_certificates(driver, Options::open());
    let db = gateway.redis_login(SERVICE, "");
    assert_eq!(db.redis(&["SET", "over", "tls"]).ok(), "OK");
    assert_eq!(server.say("GET over"), "tls".into());
    assert!(Session::tcp(&server.host, server.port).is_ok_and(|mut s| {
        s.send(b"PING\r\n").ok();
        !String::from_utf8_lossy(&s.read_to_close()).contains("PONG")
    }));
    let mut session = Session::login(&db);
    let answers = session.pipeline(&vec!["INCR n"; 5000]);
    assert_eq!(answers.last(), Some(&Value::Integer(5000)));
    // A value of some megabytes, encrypted on both sides.
    let value = vec![b'v'; 8 << 20];
    assert_eq!(session.ask(&[&b"SET"[..], b"large", &value]), Value::ok());
    assert!(session.say("GET large") == Value::Bulk(value), "the value came back changed");
    gateway.finish();
}

fn by_the_password_of_the_default_user(driver: Driver) {
    let server = Redis::start(Options::open().password(PASSWORD));
    let gateway = Setup::redis(driver, &server.uri_with("", PASSWORD)).start();
    let db = gateway.redis_login(SERVICE, "");
    assert_eq!(db.redis(&["ACL", "WHOAMI"]).ok(), "default");
    assert_eq!(db.redis(&["-3", "ACL", "WHOAMI"]).ok(), "default");
    gateway.finish();
}

fn by_the_password_of_an_acl_user(driver: Driver) {
    let server =
        Redis::start(Options::open().user("default", "off").user("app", &format!("on >{PASSWORD} ~* &* +@all")));
    let gateway = Setup::redis(driver, &server.uri_with("app", PASSWORD)).start();
    let db = gateway.redis_login(SERVICE, "app");
    assert_eq!(db.user, "app");
    assert_eq!(db.redis(&["ACL", "WHOAMI"]).ok(), "app");
    let mut session = Session::login(&db);
    assert_eq!(session.pipeline(&["RESET", "ACL WHOAMI"])[1], "app".into(), "RESET stays logged in");
    gateway.record("TDB00I", |r| r.text("db_user") == "app");
    gateway.finish();
}

/// Everything a client is told when the login to the server does not work.
fn refusal(db: &DbConfig) -> String {
    let said = db.redis(&["GET", "k"]);
    let text = said.stdout + &said.stderr;
    assert!(text.contains("ERR") || text.contains("NOPERM"), "{text}");
    text
}

fn a_wrong_redis_password_is_our_error_and_names_no_secret(driver: Driver) {
    let server = Redis::start(Options::open().password(PASSWORD));
    let gateway = Setup::redis(driver, &server.uri_with("", "not-the-password-9Z")).start();
    let said = refusal(&gateway.redis_login(SERVICE, ""));
    assert!(!said.contains("not-the-password-9Z") && !said.contains("WRONGPASS"), "{said}");
    let record = gateway.record("TDB00W", |_| true);
    assert!(!record.0.to_string().contains("not-the-password-9Z"), "{}", record.0);
    gateway.finish();
}

fn an_unreachable_redis_is_a_native_error(driver: Driver) {
    let port = places::free_port();
    let gateway = Setup::redis(driver, &format!("redis://127.0.0.1:{port}")).start();
    let said = refusal(&gateway.redis_login(SERVICE, ""));
    assert!(!said.contains(&port.to_string()), "the inner address is nobody's business: {said}");
    gateway.record("TDB00W", |_| true);
    gateway.finish();
}

fn a_redis_with_a_foreign_certificate_is_refused(driver: Driver) {
    let port = places::free_port();
    let uri = format!("rediss://localhost:{port}");
    let (gateway, other) = (Setup::redis(driver, &uri).start(), Setup::redis(driver, &uri).start());
    let prefix = other.base().join("server");
    let out = prefix.to_str().expect("a path in UTF-8");
    other.cli(&["ca", "sign", "--format=redis", "--host", "localhost", "--out", out, "--ttl", "24h"]).ok();
    let server = Redis::start(Options::open().certificates(&prefix).port(port));
    refusal(&gateway.redis_login(SERVICE, ""));
    let record = gateway.record("TDB00W", |_| true);
    assert!(record.text("error").to_lowercase().contains("certificate"), "{}", record.0);
    assert_eq!(other.redis_login(SERVICE, "").redis(&["SET", "its", "own"]).ok(), "OK");
    assert_eq!(server.say("GET its"), "own".into());
    gateway.finish();
}

fn what_an_acl_user_may_not_is_the_servers_error(driver: Driver) {
    let server =
        Redis::start(Options::open().user("reader", &format!("on >{PASSWORD} ~app:* +@read +@connection +command")));
    let gateway = Setup::redis(driver, &server.uri_with("reader", PASSWORD)).start();
    let db = gateway.redis_login(SERVICE, "reader");
    let mut session = Session::login(&db);
    assert_eq!(session.say("GET app:1"), Value::Null);
    for line in ["SET app:1 v", "GET other"] {
        let answer = session.say(line);
        assert!(answer.is_error("NOPERM") && !answer.text().contains("ringgate"), "{line}: {answer:?}");
    }
    let failed = gateway.command_record("SET", |_| true);
    assert!(failed.forwarded && failed.success == Some(false), "{failed:?}");
    gateway.finish();
}

/// A server whose users have passwords of their own, registered so that clients bring them.
fn passthrough(driver: Driver) -> (Redis, Gateway, DbConfig) {
    let rules = format!("on >{PASSWORD} ~* &* +@all");
    let options =
        Options::open().user("default", "off").user("alice", &rules).user("bob", &rules).user("carol", &rules);
    let server = Redis::start(options);
    let gateway = Setup::redis(driver, "redis://127.0.0.1:1").start();
    gateway.apply(&format!(
        "kind: db\nversion: v3\nmetadata:\n  name: people\n  labels: {{env: test}}\nspec:\n  protocol: redis\n  \
         uri: {}:{}\n  auth: {{method: passthrough}}\n  tls: {{mode: 'off'}}\n",
        server.host, server.port
    ));
    gateway.apply(
        "kind: role\nversion: v8\nmetadata:\n  name: access\nspec:\n  allow:\n    db_labels: {'*': '*'}\n    \
         db_users: [default, alice, bob]\n    db_names: ['*']\n",
    );
    let db = wait::until("the new database", wait::SOON, || {
        let login = gateway.cli(&["db", "login", "people"]);
        (login.code == 0).then(|| gateway.redis_login("people", ""))
    });
    (server, gateway, db)
}

fn clients_bring_their_own_password_where_they_are_to(driver: Driver) {
    let (_server, mut gateway, db) = passthrough(driver);
    let mut session = Session::login(&db);
    let answer = session.say("GET k");
    assert!(answer.is_error("NOAUTH") && !answer.text().contains("ringgate"), "the server's own words: {answer:?}");
    assert!(session.say("AUTH alice wrong").is_error("WRONGPASS"));
    assert_eq!(session.say(&format!("AUTH alice {PASSWORD}")), Value::ok());
    assert_eq!(session.say("ACL WHOAMI"), "alice".into());
    assert_eq!(session.say(&format!("AUTH bob {PASSWORD}")), Value::ok(), "the user may change");
    assert_eq!(session.say("ACL WHOAMI"), "bob".into());
    let mut third = Session::login(&db);
    assert!(matches!(third.say(&format!("HELLO 3 AUTH alice {PASSWORD}")), Value::Map(_)));
    assert_eq!(third.say("ACL WHOAMI"), "alice".into());
    for protocol in ["2", "3"] {
        assert_eq!(db.redis_py(&["login", protocol, "alice", PASSWORD]), "alice");
    }
    let cli = ["--user", "bob", "--pass", PASSWORD, "--no-auth-warning", "ACL", "WHOAMI"];
    assert_eq!(db.redis(&cli).ok(), "bob");
    gateway.command_record("AUTH", |c| c.success == Some(true));
    assert_eq!(gateway.terminate(), 0);
    let holds = |file: &std::path::PathBuf| {
        std::fs::read(file).is_ok_and(|bytes| bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()))
    };
    assert_eq!(gateway.files().into_iter().filter(holds).count(), 0, "the password is on no disk");
}

fn passthrough_lets_in_only_users_of_the_role(driver: Driver) {
    let (server, gateway, db) = passthrough(driver);
    let mut session = Session::login(&db);
    for line in [
        format!("AUTH carol {PASSWORD}"),
        format!("auth CAROL {PASSWORD}"),
        format!("HELLO 3 AUTH carol {PASSWORD}"),
        format!("hello 2 setname x auth carol {PASSWORD}"),
    ] {
        let answer = session.say(&line);
        assert!(matches!(answer, Value::Error(_)), "{line}: {answer:?}");
    }
    assert!(session.say("GET k").is_error("NOAUTH"), "nobody is logged in");
    assert_eq!(session.say(&format!("AUTH alice {PASSWORD}")), Value::ok());
    let answers = session.pipeline(&["MULTI", &format!("AUTH carol {PASSWORD}"), "EXEC", "ACL WHOAMI"]);
    assert_eq!(answers[3], "alice".into(), "{answers:?}");
    assert!(!server.say("ACL LOG").text().contains("carol"), "carol's name never reached the server");
    gateway.record("TDB02W", |r| r.text("db_query") == "AUTH");
    gateway.finish();
}

fn a_client_may_repeat_the_login_it_does_not_need(driver: Driver) {
    let server = Redis::start(Options::open().password(PASSWORD));
    let gateway = Setup::redis(driver, &server.uri_with("", PASSWORD)).start();
    let db = gateway.redis_login(SERVICE, "");
    let mut session = Session::login(&db);
    // Whatever the client believes the password to be: it is logged in already, and the text goes nowhere.
    let answer = session.say("AUTH default anything");
    assert!(answer == Value::ok() || answer.is_error("ERR") || answer.is_error("WRONGPASS"), "{answer:?}");
    assert!(matches!(session.say("HELLO 3"), Value::Map(_)));
    assert_eq!(session.say("ACL WHOAMI"), "default".into());
    assert!(session.ask(&["AUTH"]).is_error("ERR wrong number of arguments for 'auth' command"));
    let answer = session.say("AUTH a b c");
    assert!(answer.is_error("ERR syntax error"), "{answer:?}");
    session.send(&resp::words("ECHO usable")).expect("send");
    assert_eq!(session.read(), "usable".into());
    gateway.finish();
}
