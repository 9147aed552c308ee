//! A client that was not let in is told so at each command, and is held to the bounds of one that nobody knows.

use super::super::{Redis, write_command};
use super::{LIMITS, machine, machine_of, pipeline};
use crate::testing::{allow_all, check_splits};
use crate::{Credential, Heard, Limits, Machine, Protocol, Refusal, RefusalKind, Side};

const TELEPORT: Limits = Limits { teleport_compat: true, ..LIMITS };
const REFUSED: &str = "-NOPERM not you\r\n";

/// What a client gets that was refused and sends `input` in pieces of `size` bytes; and whether it was let go.
fn told_in_pieces(input: &[u8], size: usize, limits: Limits) -> (String, bool) {
    let refusal = Refusal { kind: RefusalKind::NotAuthorized, message: "not you", detail: "", hint: "" };
    let mut afterword = Redis::afterword(&refusal, limits).expect("a refusal that is shown");
    let (mut out, mut from, mut to) = (Vec::new(), 0, 0);
    loop {
        match afterword.handle(&input[from..to], &mut out) {
            Heard::Need { need } => {
                assert!(need > to - from && need <= crate::NEED_BYTES_MAX);
                if to == input.len() {
                    return (String::from_utf8_lossy(&out).into_owned(), false);
                }
                to = (to + size).min(input.len());
            }
            Heard::Read { len } => from += len,
            Heard::Done => return (String::from_utf8_lossy(&out).into_owned(), true),
        }
    }
}

fn told(input: &[u8]) -> (String, bool) {
    let whole = told_in_pieces(input, input.len().max(1), LIMITS);
    for size in [1, 7] {
        assert_eq!(told_in_pieces(input, size, LIMITS), whole);
    }
    whole
}

#[test]
fn each_command_of_a_refused_client_is_answered_with_the_refusal() {
    let sent = pipeline(&["CLIENT SETINFO LIB-NAME redis-py", "CLIENT SETINFO LIB-VER 7", "GET k"]);
    assert_eq!(told(&sent), (REFUSED.repeat(3), false));
    assert_eq!(told(b"GET k\r\n\r\nPING\r\n"), (REFUSED.repeat(2), false));
}

#[test]
fn hello_and_quit_of_a_refused_client_are_answered_as_a_server_does() {
    let (said, ended) = told(&pipeline(&["HELLO 3", "GET k"]));
    assert!(said.starts_with("%7\r\n$6\r\nserver\r\n") && said.contains("proto\r\n:3\r\n"), "{said}");
    assert!(said.ends_with(&format!("*0\r\n{REFUSED}")) && !ended, "{said}");
    let (said, _) = told(&pipeline(&["HELLO 2 SETNAME me"]));
    assert!(said.starts_with("*14\r\n") && said.contains("proto\r\n:2\r\n"), "{said}");
    let (said, _) = told(&pipeline(&["HELLO 3 AUTH default secret"]));
    assert_eq!(said, REFUSED);
    assert_eq!(told(&pipeline(&["QUIT", "GET k"])), ("+OK\r\n".to_owned(), true));
}

#[test]
fn a_refused_client_is_let_go_after_some_commands() {
    let (said, ended) = told(&pipeline(&["GET k"; 40]));
    assert_eq!((said.matches("NOPERM").count(), ended), (16, true));
}

#[test]
fn a_refused_client_may_send_what_an_unknown_one_may() {
    let most = pipeline(&["MSET 1 2 3 4 5 6 7 8 9", &format!("GET {}", "k".repeat(16 * 1024))]);
    assert_eq!(told(&most), (REFUSED.repeat(2), false));
    let multibulk = "-ERR Protocol error: unauthenticated multibulk length\r\n".to_owned();
    assert_eq!(told(&pipeline(&["MSET 1 2 3 4 5 6 7 8 9 10"])), (multibulk, true));
    let bulk = "-ERR Protocol error: unauthenticated bulk length\r\n".to_owned();
    assert_eq!(told(b"*2\r\n$3\r\nGET\r\n$16385\r\n"), (bulk, true));
    for text in ["POST / HTTP/1.1\r\n", "*1\r\n$5\r\nHost:\r\n"] {
        assert_eq!(told(text.as_bytes()), (String::new(), true));
    }
}

#[test]
fn what_need_not_be_shown_is_said_once() {
    for kind in [RefusalKind::TooManyConnections, RefusalKind::CannotConnectNow, RefusalKind::ProtocolViolation] {
        let refusal = Refusal { kind, message: "no", detail: "", hint: "" };
        assert!(Redis::afterword(&refusal, LIMITS).is_none());
    }
}

#[test]
fn a_client_that_has_not_signed_in_is_held_to_the_bounds_of_the_server() {
    let fresh = || machine_of("app", Credential::Passthrough, LIMITS);
    let long = "k".repeat(16 * 1024 + 1);
    for (sent, text) in [
        (pipeline(&["MSET 1 2 3 4 5 6 7 8 9 10"]), "Protocol error: unauthenticated multibulk length"),
        (pipeline(&[&format!("AUTH app {long}")]), "Protocol error: unauthenticated bulk length"),
    ] {
        let transcript = check_splits(fresh, allow_all, &[(Side::Client, &sent)]);
        assert_eq!(transcript.fault.map(|fault| fault.what), Some(text));
        assert!(transcript.questions.is_empty() && transcript.to_backend.is_empty());
        // Who was let in, or has no secret of its own, may send what it likes.
        assert_eq!(check_splits(machine, allow_all, &[(Side::Client, &sent)]).fault, None);
    }
}

#[test]
fn a_client_that_has_signed_in_is_free_of_the_bounds_until_it_resets() {
    let fresh = || machine_of("app", Credential::Passthrough, LIMITS);
    let long = pipeline(&["MSET 1 2 3 4 5 6 7 8 9 10"]);
    let (auth, hello, reset) = (pipeline(&["AUTH app pw"]), pipeline(&["HELLO 3 AUTH app pw"]), pipeline(&["RESET"]));
    for (login, answer) in [(&auth, &b"+OK\r\n"[..]), (&hello, b"%1\r\n+proto\r\n:3\r\n")] {
        let signed_in = [(Side::Client, &login[..]), (Side::Backend, answer), (Side::Client, &long)];
        let transcript = check_splits(fresh, allow_all, &signed_in);
        assert_eq!(transcript.fault, None);
        assert!(transcript.to_backend.ends_with(&long));
        let refused = [(Side::Client, &login[..]), (Side::Backend, b"-WRONGPASS invalid\r\n"), (Side::Client, &long)];
        assert!(check_splits(fresh, allow_all, &refused).fault.is_some());
        let mut back = signed_in.to_vec();
        back.truncate(2);
        back.extend([(Side::Client, &reset[..]), (Side::Backend, b"+RESET\r\n"), (Side::Client, &long)]);
        assert!(check_splits(fresh, allow_all, &back).fault.is_some());
    }
}

#[test]
fn teleports_words_are_said_where_they_are_asked_for() {
    let fresh = || machine_of("default", Credential::None, TELEPORT);
    let transcript = check_splits(fresh, allow_all, &[(Side::Client, &pipeline(&["SYNC", "HELLO 3"]))]);
    let unknown = "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n";
    let expected = format!("-ERR Teleport: not supported by Teleport\r\n{unknown}");
    assert_eq!(String::from_utf8_lossy(&transcript.to_client), expected);
    assert!(transcript.to_backend.is_empty());
    let second = pipeline(&["HELLO 2"]);
    assert_eq!(check_splits(fresh, allow_all, &[(Side::Client, &second)]).to_backend, second);
    let (said, _) = told_in_pieces(&pipeline(&["HELLO 3", "GET k"]), 5, TELEPORT);
    assert_eq!(said, format!("{unknown}{REFUSED}"));
}

#[test]
fn an_error_behind_an_attribute_is_an_error() {
    let sent = pipeline(&["HELLO 3", "GET a", "GET b", "GET c", "GET d"]);
    let attribute = &b"|1\r\n+ttl\r\n*2\r\n:1\r\n$1\r\nx\r\n"[..];
    let mut replies = b"%1\r\n+proto\r\n:3\r\n".to_vec();
    for reply in [&b"-ERR one\r\n"[..], b"$1\r\nv\r\n", b"!5\r\nERR 2\r\n"] {
        replies.extend_from_slice(attribute);
        replies.extend_from_slice(reply);
    }
    replies.extend_from_slice(b"|0\r\n*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n");
    let transcript = check_splits(machine, allow_all, &[(Side::Client, &sent), (Side::Backend, &replies)]);
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.to_client, replies);
    let ended: Vec<bool> = transcript
        .notes
        .iter()
        .filter_map(|note| match note {
            note if note.contains(" failed") => Some(false),
            note if note.contains(" ok") => Some(true),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [true, false, true, false, true], "{:#?}", transcript.notes);
}

#[test]
fn a_subscriber_and_a_monitor_listen() {
    let mut driver = crate::testing::Driver::new(machine(), allow_all);
    assert!(!driver.machine().is_listening());
    driver.feed(Side::Client, &pipeline(&["SUBSCRIBE news"]));
    driver.feed(Side::Backend, b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert!(driver.machine().is_listening() && driver.machine().outstanding() == 0);
    driver.feed(Side::Client, &pipeline(&["UNSUBSCRIBE news"]));
    driver.feed(Side::Backend, b"*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n");
    assert!(!driver.machine().is_listening());
    driver.feed(Side::Client, &pipeline(&["MONITOR"]));
    driver.feed(Side::Backend, b"+OK\r\n");
    assert!(driver.machine().is_listening());
}

#[test]
fn who_has_not_signed_in_is_told_so_in_the_servers_words() {
    let mut machine = machine();
    let mut sent = Vec::new();
    write_command(&[b"GET", b"k"], &mut sent);
    let mut out = crate::Outbox::default();
    while !matches!(machine.handle(Side::Client, &sent, &mut out), Ok(crate::Step::Ask(_))) {}
    let refusal =
        Refusal { kind: RefusalKind::NotSignedIn, message: "Authentication required.", detail: "", hint: "ask" };
    let _ = machine.resume(crate::Ruling::Refuse(refusal));
    assert!(matches!(machine.handle(Side::Client, &sent, &mut out), Ok(crate::Step::Discard { .. })));
    assert_eq!(out.client, b"-NOAUTH Authentication required.\r\n");
}
