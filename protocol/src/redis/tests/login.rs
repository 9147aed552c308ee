//! The front of a client, and the way into a server.

use super::super::{CommandTable, Redis, RedisLogin};
use crate::{
    BackendTls, Credential, FaultKind, Login, LoginStep, Opened, Opening, Protocol, Refusal, RefusalKind, SignIn,
};

fn login(user: &str, database: &str, credential: Credential) -> RedisLogin {
    let opening = Redis::opening(&[], [0; 32]);
    Redis::login(&opening, SignIn { user, database, tls: BackendTls::Off, credential, seed: [0; 32], learned: None })
}

/// Feeds `replies` in pieces of `size` bytes. Gives what was sent and whether it became ready.
fn drive(login: &mut RedisLogin, replies: &[u8], size: usize) -> Result<(Vec<u8>, bool), crate::LoginError> {
    let mut out = Vec::new();
    login.start(&mut out);
    let (mut from, mut to) = (0, 0);
    while to < replies.len() {
        to = (to + size).min(replies.len());
        loop {
            match login.handle(&replies[from..to], &mut out)? {
                LoginStep::Need { need } => {
                    assert!(need > to - from && need <= 64 * 1024);
                    break;
                }
                LoginStep::Consumed { len } => from += len,
                LoginStep::Ready { .. } => return Ok((out, true)),
                LoginStep::StartTls { .. } => unreachable!("TLS is up before the login"),
            }
            if from == to {
                break;
            }
        }
    }
    Ok((out, false))
}

/// One command of a module, as Redis 7 describes it; and a container of one.
const TABLE: &[u8] = b"*3\r\n\
*10\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@read\r\n*0\r\n*0\r\n*0\r\n\
*10\r\n$8\r\njson.set\r\n:-4\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*2\r\n+@write\r\n+@slow\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*1\r\n+RW\r\n\
$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n\
$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n\
*10\r\n$3\r\nfoo\r\n:-2\r\n*0\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n*0\r\n*1\r\n\
*10\r\n$7\r\nfoo|bar\r\n:-2\r\n*1\r\n+movablekeys\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@admin\r\n*0\r\n*0\r\n*0\r\n";

#[test]
fn a_login_learns_what_only_the_server_knows() {
    for size in [1, 7, 4096] {
        let mut login = login("app", "3", Credential::Password("secret".into()));
        let (sent, ready) = drive(&mut login, &[b"+OK\r\n+OK\r\n", TABLE].concat(), size).expect("a login");
        assert!(ready);
        let expected = b"*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$7\r\nCOMMAND\r\n";
        assert_eq!(sent, expected);
        let table = Redis::learned(&login).expect("a table");
        assert_eq!(table.len(), 3);
        let words = |name| table.categories(name).map(|categories| categories.words().collect::<Vec<_>>());
        assert_eq!(words("JSON.SET"), Some(vec!["write", "slow"]));
        assert_eq!(words("FOO|BAR"), Some(vec!["admin"]));
        assert_eq!(words("FOO|BAZ"), None);
        assert_eq!(words("GET").map(|words| words.contains(&"read")), Some(true));
    }
}

#[test]
fn a_login_with_a_table_asks_for_none() {
    let opening = Redis::opening(&[], [0; 32]);
    let learned = Some(std::sync::Arc::new(CommandTable::default()));
    let credential = Credential::Password("secret".into());
    let sign_in = SignIn { user: "default", database: "", tls: BackendTls::Off, credential, seed: [0; 32], learned };
    let mut login = Redis::login(&opening, sign_in);
    let (sent, ready) = drive(&mut login, b"+OK\r\n", 1).expect("a login");
    assert!(ready);
    assert_eq!(sent, b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n");
}

#[test]
fn a_refused_login_shows_the_client_nothing() {
    let mut login = login("app", "", Credential::Password("secret".into()));
    let error = drive(&mut login, b"-WRONGPASS invalid\r\n", 3).expect_err("refused");
    assert_eq!(error.fault.kind, FaultKind::Unavailable);
    assert!(error.frame.is_empty());
    assert_eq!(error.text, "WRONGPASS invalid");
}

#[test]
fn a_server_that_wants_a_password_is_not_signed_in_to_without_one() {
    let noauth = b"-NOAUTH Authentication required.\r\n";
    assert!(drive(&mut login("app", "", Credential::None), noauth, 100).is_err());
    assert!(drive(&mut login("app", "", Credential::Passthrough), noauth, 100).is_ok_and(|(_, ready)| ready));
}

#[test]
fn an_opening_waits_for_the_first_name_and_consumes_nothing() {
    let whole = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
    for end in 1..=whole.len() {
        let mut opening = Redis::opening(&[], [0; 32]);
        opening.offer_no_tls();
        match opening.handle(&whole[..end], false, &mut Vec::new()) {
            Ok(Opened::Need { need }) => assert!(need > end && end < 13),
            Ok(Opened::Startup { len: 0, .. }) => assert!(end >= 13),
            other => unreachable!("{other:?}"),
        }
    }
}

#[test]
fn an_opening_refuses_what_is_not_redis() {
    for (bytes, kind) in [
        (&b"POST / HTTP/1.1\r\n"[..], FaultKind::Malformed),
        (b"*x\r\n", FaultKind::Malformed),
        (b"*1\r\n:1\r\n", FaultKind::Malformed),
        (b"*1\r\n$16385\r\n", FaultKind::TooLarge),
    ] {
        let mut opening = Redis::opening(&[], [0; 32]);
        opening.offer_no_tls();
        let first = opening.handle(bytes, false, &mut Vec::new()).err();
        assert_eq!(first.map(|fault| fault.kind), Some(kind));
        assert_eq!(opening.handle(bytes, false, &mut Vec::new()).err(), first);
    }
    let mut plain = Redis::opening(&[], [0; 32]);
    let fault = plain.handle(b"PING\r\n", false, &mut Vec::new()).err();
    assert_eq!(fault.map(|fault| fault.kind), Some(FaultKind::Denied));
    let mut tls = Redis::opening(&[], [0; 32]);
    assert!(matches!(tls.handle(b"\x16\x03", false, &mut Vec::new()), Ok(Opened::DirectTls)));
}

#[test]
fn refusals_stay_on_one_line() {
    let mut out = Vec::new();
    let refusal = Refusal { kind: RefusalKind::NotAuthorized, message: "no\r\nway", detail: "", hint: "ask" };
    Redis::refuse(&mut Redis::opening(&[], [0; 32]), &refusal, &mut out);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(text.lines().all(|line| line == "-NOPERM no  way (ask)"), "{text}");
}
