//! Marker secrets in Redis commands are planted and then looked for everywhere.

use std::{fs, path::PathBuf};

use ringgate_tests::{
    Driver,
    gateway::{Gateway, Setup},
    on_both_drivers, process,
    redis::{Options, Redis, SERVICE},
    resp::{self, Session, Value},
};

on_both_drivers!(
    the_password_of_the_redis_uri_is_in_its_secret_file_only,
    secrets_in_commands_are_masked,
    secrets_in_commands_are_masked_when_values_are_recorded,
    secrets_in_refused_and_in_malformed_commands_are_masked,
    an_error_that_quotes_a_value_is_recorded_without_it,
);

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

fn marker(driver: Driver, what: &str) -> String {
    format!("marker-{what}-{}-{}", driver.name().replace('_', "-"), std::process::id())
}

/// Files of the gateway that have `needle`; its log, output and metrics must not.
fn files_with(gateway: &Gateway, needle: &str) -> Vec<PathBuf> {
    assert!(!contains(gateway.log().as_bytes(), needle), "in the log: {}", gateway.log());
    assert!(!contains(gateway.said().as_bytes(), needle), "on standard output: {}", gateway.said());
    gateway.files().into_iter().filter(|f| fs::read(f).is_ok_and(|bytes| contains(&bytes, needle))).collect()
}

fn the_password_of_the_redis_uri_is_in_its_secret_file_only(driver: Driver) {
    let secret = marker(driver, "redis-uri");
    let server = Redis::start(Options::open().password(&secret));
    let gateway = Setup::redis(driver, &server.uri_with("", &secret)).start();
    let db = gateway.redis_login(SERVICE, "");
    let mut live = Session::login(&db);
    assert_eq!(live.say("SET k v"), Value::ok());
    for (pid, line) in process::command_lines() {
        // The harness itself gave the URI to quickstart.
        assert!(pid == gateway.pid() || !contains(&line, &secret), "in the arguments of process {pid}");
    }
    assert!(!contains(gateway.http("/metrics").1.as_bytes(), &secret), "in the metrics");
    let found = files_with(&gateway, &secret);
    assert_eq!(found.len(), 1, "{found:?}");
    let said = gateway.cli(&["get", "db", "--format", "yaml"]);
    assert!(!contains(said.stdout.as_bytes(), &secret), "{said:?}");
    gateway.finish();
}

/// Commands with the marker `M` in every place where a secret can stand.
const SECRETS: [&str; 21] = [
    "AUTH M",
    "AUTH default M",
    "auth somebody M",
    "HELLO 3 AUTH default M",
    "hello 2 SETNAME me AUTH default M",
    "HELLO 3 auth default M setname me",
    "ACL SETUSER eve on >M ~* +@all",
    "ACL SETUSER eve <M",
    "acl setuser eve reset #M",
    "ACL SETUSER eve !M",
    "ACL SETUSER eve on >M1 >M2",
    "CONFIG SET requirepass M",
    "CONFIG SET masterauth M",
    "config set maxmemory 0 RequirePass M",
    "CONFIG SET masteruser M",
    "CONFIG SET tls-key-file-pass M",
    "CONFIG SET tls-client-key-file-pass M",
    "MIGRATE 127.0.0.1 1 key 0 10 AUTH M",
    "MIGRATE 127.0.0.1 1 key 0 10 COPY auth M",
    "MIGRATE 127.0.0.1 1 key 0 10 AUTH2 user M",
    "MIGRATE 127.0.0.1 1 | 0 10 AUTH2 user M KEYS a b",
];

/// Runs all of [`SECRETS`] through a gateway whose role allows them, and wants the marker nowhere.
fn masked(driver: Driver, arguments: &str) {
    let secret = marker(driver, "command");
    let server = Redis::start(Options::open().own());
    let mut gateway = Setup::redis(driver, &server.uri()).config("AUDIT__REDIS_ARGUMENTS", arguments).start();
    let db = gateway.redis_login(SERVICE, "");
    gateway.permit("    db_commands: ['*', '@outbound']\n", "");
    for line in SECRETS {
        let mut session = Session::login(&db);
        let command: Vec<String> = line
            .split(' ')
            .map(|w| if w == "|" { String::new() } else { w.replace('M', secret_in(w, &secret)) })
            .collect();
        session.send(&resp::command(&command)).expect("send");
        assert!(session.try_read().is_ok(), "{line}");
        // The server must stay open for the next one.
        assert_eq!(server.session().ask(&["CONFIG", "SET", "requirepass", ""]), Value::ok());
    }
    gateway.audit_until("the commands", |records| {
        let names = ["AUTH", "HELLO", "ACL|SETUSER", "CONFIG|SET", "MIGRATE"];
        let has = |name: &&str| records.iter().any(|r| r.text("db_query") == *name);
        names.iter().all(has).then_some(())
    });
    gateway.verify_audit();
    assert_eq!(gateway.terminate(), 0);
    for record in gateway.audit() {
        assert!(!record.0.to_string().contains(&secret), "{}", record.0);
    }
    assert_eq!(files_with(&gateway, &secret), Vec::<PathBuf>::new(), "after a clean stop");
}

/// The capital `M` of a word is the marker only where the word has nothing else in capitals.
fn secret_in<'s>(word: &str, secret: &'s str) -> &'s str {
    let rest = word.replace(['M', '>', '<', '#', '!', '1', '2'], "");
    if rest.is_empty() { secret } else { "M" }
}

fn secrets_in_commands_are_masked(driver: Driver) {
    masked(driver, "keys");
}

fn secrets_in_commands_are_masked_when_values_are_recorded(driver: Driver) {
    masked(driver, "full");
}

fn secrets_in_refused_and_in_malformed_commands_are_masked(driver: Driver) {
    let secret = marker(driver, "refused");
    let (_server, mut gateway, db) = super::cached_with(driver, |s| s.config("AUDIT__REDIS_ARGUMENTS", "full"));
    gateway.deny("    db_commands: ['@dangerous', '@connection']\n");
    ringgate_tests::wait::until_true("the role to take effect", ringgate_tests::wait::SOON, || {
        Session::login(&db).say("CONFIG GET maxmemory").is_error("NOPERM")
    });
    let mut session = Session::login(&db);
    for line in
        [format!("CONFIG SET requirepass {secret}"), format!("ACL SETUSER eve >{secret}"), format!("AUTH {secret}")]
    {
        session.send(&resp::words(&line)).expect("send");
        assert!(matches!(session.try_read(), Ok(Some(Value::Error(_)))), "{line}");
    }
    // Behind a secret, bytes that are no command: what is recorded of them begins where they do.
    let mut malformed = Session::login(&db);
    malformed.send(format!("AUTH {secret}\r\n*1\r\n@oops\r\n").as_bytes()).expect("send");
    malformed.read_to_close();
    let mut unfinished = Session::login(&db);
    unfinished.send(format!("*3\r\n$4\r\nAUTH\r\n${}\r\n{secret}\r\n$bad\r\n", secret.len()).as_bytes()).expect("send");
    unfinished.read_to_close();
    gateway.record("TDB06I", |_| true);
    assert_eq!(gateway.terminate(), 0);
    assert_eq!(files_with(&gateway, &secret), Vec::<PathBuf>::new(), "after a clean stop");
}

fn an_error_that_quotes_a_value_is_recorded_without_it(driver: Driver) {
    let secret = marker(driver, "quoted");
    let (_server, mut gateway, db) = super::cached(driver);
    gateway.permit("    db_commands: ['*']\n", "");
    // A name mistyped: the server's answer repeats what stood behind it.
    ringgate_tests::wait::until_true("the role to take effect", ringgate_tests::wait::SOON, || {
        Session::login(&db).say(&format!("AUHT {secret}")).text().contains(&secret)
    });
    gateway.audit_until("the refusal", |records| {
        records.iter().any(|r| r.text("error").contains("unknown command")).then_some(())
    });
    assert_eq!(gateway.terminate(), 0);
    assert_eq!(files_with(&gateway, &secret), Vec::<PathBuf>::new(), "after a clean stop");
}
