//! Refused commands are answered in their place, and nothing of them reaches the server.

use super::super::machine::STAND_IN;
use super::{LIMITS, machine, machine_of, pipeline, ruler};
use crate::testing::{Driver, Transcript, allow_all, check_splits};
use crate::{Credential, Machine, Side, Verb};

const REFUSED: &[u8] = b"-NOPERM refused by the test\r\n";
const UNKNOWN: &[u8] = b"-ERR unknown command 'ringgate:refused', with args beginning with: \r\n";

fn check(script: &[(Side, &[u8])]) -> Transcript {
    let transcript = check_splits(machine, ruler, script);
    assert_eq!(transcript.fault, None);
    transcript
}

#[test]
fn a_lone_refusal_is_said_at_once() {
    let transcript = check(&[(Side::Client, &pipeline(&["GET no"]))]);
    assert_eq!(transcript.to_client, REFUSED);
    assert_eq!(transcript.to_backend, b"");
}

#[test]
fn a_refusal_keeps_its_place_in_a_pipeline() {
    for place in 0..4 {
        let mut commands = vec!["GET a", "GET b", "GET c"];
        commands.insert(place, "SET no x");
        let sent = pipeline(&commands);
        // The first of a pipeline is answered at once: nothing is owed before it.
        let (mut replies, mut expected, mut forwarded) = (Vec::new(), Vec::new(), Vec::new());
        for (index, command) in commands.iter().enumerate() {
            if *command == "SET no x" {
                expected.extend_from_slice(REFUSED);
                if index > 0 {
                    replies.extend_from_slice(UNKNOWN);
                    forwarded.extend_from_slice(STAND_IN);
                }
            } else {
                replies.extend_from_slice(b"$1\r\nv\r\n");
                expected.extend_from_slice(b"$1\r\nv\r\n");
                forwarded.extend_from_slice(&pipeline(&[command]));
            }
        }
        let transcript = check(&[(Side::Client, &sent), (Side::Backend, &replies)]);
        assert_eq!(String::from_utf8_lossy(&transcript.to_client), String::from_utf8_lossy(&expected));
        assert_eq!(transcript.to_backend, forwarded);
        assert_eq!(transcript.notes.iter().filter(|note| note.ends_with(" ok")).count(), 3);
    }
}

#[test]
fn a_refusal_inside_a_transaction_makes_the_server_abort_it() {
    let sent = pipeline(&["MULTI", "SET a 1", "SET no 2", "EXEC", "GET a"]);
    let mut replies = b"+OK\r\n+QUEUED\r\n".to_vec();
    replies.extend_from_slice(UNKNOWN);
    replies.extend_from_slice(b"-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n");
    let transcript = check(&[(Side::Client, &sent), (Side::Backend, &replies)]);
    let mut expected = b"+OK\r\n+QUEUED\r\n".to_vec();
    expected.extend_from_slice(REFUSED);
    expected.extend_from_slice(b"-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n");
    assert_eq!(transcript.to_client, expected);
    assert!(!transcript.to_backend.windows(2).any(|window| window == b"no"));
}

#[test]
fn a_lone_refusal_inside_a_transaction_reaches_the_server_as_a_failure() {
    let transcript = check(&[
        (Side::Client, &pipeline(&["MULTI"])),
        (Side::Backend, b"+OK\r\n"),
        (Side::Client, &pipeline(&["SET no 2"])),
        (Side::Backend, UNKNOWN),
    ]);
    assert_eq!(transcript.to_client, [b"+OK\r\n", REFUSED].concat());
    assert!(transcript.to_backend.ends_with(STAND_IN));
}

#[test]
fn a_refusal_takes_the_skip_of_client_reply_with_it() {
    let sent = pipeline(&["CLIENT REPLY SKIP", "SET no 1", "GET a"]);
    let transcript = check(&[(Side::Client, &sent), (Side::Backend, b"$1\r\nv\r\n")]);
    assert_eq!(transcript.to_client, b"$1\r\nv\r\n");
    assert!(transcript.to_backend.windows(STAND_IN.len()).any(|window| window == STAND_IN));
}

#[test]
fn a_long_refused_command_is_dropped_to_its_end() {
    let long = "x".repeat(200_000);
    let sent = pipeline(&[&format!("SET no {long}"), &format!("MSET a {long} b {long}"), "GET a"]);
    let transcript = check(&[(Side::Client, &sent), (Side::Backend, b"+OK\r\n$1\r\nv\r\n")]);
    assert_eq!(transcript.to_client, [REFUSED, b"+OK\r\n$1\r\nv\r\n"].concat());
    assert_eq!(transcript.to_backend, pipeline(&[&format!("MSET a {long} b {long}"), "GET a"]));
}

#[test]
fn what_cannot_work_is_said_in_its_place_and_recorded() {
    for (command, name) in [
        ("SYNC", "SYNC"),
        ("psync ? -1", "psync"),
        ("REPLCONF x y", "REPLCONF"),
        ("CLIENT TRACKING ON REDIRECT 7", "CLIENT TRACKING REDIRECT"),
        ("DEBUG PROTOCOL push", "DEBUG PROTOCOL"),
    ] {
        let transcript = check_splits(machine, allow_all, &[(Side::Client, &pipeline(&[command]))]);
        let expected = format!("-ERR ringgate: command '{name}' is not supported through the gateway\r\n");
        assert_eq!(String::from_utf8_lossy(&transcript.to_client), expected);
        assert_eq!(transcript.to_backend, b"");
        assert_eq!(transcript.notes.iter().filter(|note| note.contains("failed")).count(), 1);
    }
}

#[test]
fn an_own_auth_is_answered_and_never_forwarded() {
    let fresh = || machine_of("app", Credential::Password("secret".into()), LIMITS);
    let sent = pipeline(&["AUTH app theirs", "AUTH other x", "AUTH theirs", "AUTH", "AUTH a b c"]);
    let transcript = check_splits(fresh, allow_all, &[(Side::Client, &sent)]);
    let text = String::from_utf8_lossy(&transcript.to_client).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "+OK");
    assert!(lines[1].starts_with("-WRONGPASS "));
    assert!(lines[2].starts_with("-ERR ringgate: this session has a user name"));
    assert_eq!(lines[3], "-ERR wrong number of arguments for 'auth' command");
    assert_eq!(lines[4], "-ERR syntax error");
    assert_eq!(transcript.to_backend, b"");
}

#[test]
fn hello_goes_on_without_its_auth() {
    let fresh = || machine_of("app", Credential::Password("secret".into()), LIMITS);
    let sent = pipeline(&["HELLO 3 AUTH app theirs SETNAME me"]);
    let transcript =
        check_splits(fresh, allow_all, &[(Side::Client, &sent), (Side::Backend, b"%1\r\n+proto\r\n:3\r\n")]);
    assert_eq!(transcript.to_backend, pipeline(&["HELLO 3 SETNAME me"]));
    assert_eq!(transcript.to_client, b"%1\r\n+proto\r\n:3\r\n");
    let twice = check_splits(fresh, allow_all, &[(Side::Client, &pipeline(&["HELLO 3 AUTH app x AUTH other y"]))]);
    assert!(twice.to_client.starts_with(b"-ERR ") && twice.to_backend.is_empty());
}

#[test]
fn a_passed_on_auth_is_asked_about_with_its_user() {
    let fresh = || machine_of("app", Credential::Passthrough, LIMITS);
    let only_bob: crate::testing::Ruler = |operation| operation.verb != Verb::Authenticate || operation.user == b"bob";
    let sent = pipeline(&["AUTH bob pw", "AUTH eve pw", "HELLO 2 AUTH eve pw"]);
    let wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    let script =
        [(Side::Client, &sent[..]), (Side::Backend, b"+OK\r\n"), (Side::Backend, UNKNOWN), (Side::Backend, UNKNOWN)];
    let transcript = check_splits(fresh, only_bob, &script);
    assert_eq!(transcript.to_client, [&b"+OK\r\n"[..], wrong, wrong].concat());
    assert!(!transcript.to_backend.windows(3).any(|window| window == b"eve"));
}

#[test]
fn a_browser_is_cut_off() {
    for text in ["POST / HTTP/1.1\r\nHost: x\r\n", "Host: x\r\n", "*2\r\n$4\r\npost\r\n$1\r\n/\r\n"] {
        let transcript = check_splits(machine, allow_all, &[(Side::Client, text.as_bytes())]);
        assert!(transcript.fault.is_some(), "{text}");
        assert!(transcript.questions.is_empty() && transcript.to_backend.is_empty());
    }
}

#[test]
fn idle_means_that_nothing_is_owed_or_open() {
    let mut driver = Driver::new(machine(), ruler);
    assert!(driver.machine().is_idle());
    driver.feed(Side::Client, &pipeline(&["BLPOP k 0"]));
    assert!(!driver.machine().is_idle());
    assert_eq!(driver.machine().outstanding(), 1);
    driver.feed(Side::Backend, b"*-1\r\n");
    assert!(driver.machine().is_idle());
    driver.feed(Side::Client, &pipeline(&["MULTI"]));
    driver.feed(Side::Backend, b"+OK\r\n");
    assert!(!driver.machine().is_idle());
    driver.feed(Side::Client, &pipeline(&["DISCARD"]));
    driver.feed(Side::Backend, b"+OK\r\n");
    assert!(driver.machine().is_idle());
    driver.feed(Side::Client, &pipeline(&["GET a", "GET b", "SUBSCRIBE c"]));
    let mut lost = Vec::new();
    while let Some(ticket) = driver.machine().take_unanswered() {
        lost.push(ticket.ei);
    }
    assert_eq!(lost, [4, 5, 6]);
}
