//! Malformed input is answered in the server's words, and ends the session.

use super::{machine, pipeline};
use crate::testing::{Driver, allow_all, capture, check_splits};
use crate::{FaultKind, Machine, Outbox, Refusal, RefusalKind, Side};

/// What the client is told of a fault.
fn last_words(driver: &mut Driver<super::RedisMachine>) -> String {
    let fault = driver.transcript().fault.expect("a fault");
    let refusal = Refusal { kind: RefusalKind::ProtocolViolation, message: fault.what, detail: "", hint: "" };
    let mut out = Outbox::default();
    driver.machine().refuse(&refusal, &mut out);
    String::from_utf8_lossy(&out.client).into_owned()
}

#[test]
fn the_servers_own_texts_are_given() {
    let script = capture(include_str!("../../../testdata/redis/broken.txt"));
    let mut compared = 0;
    for pair in script.chunks(2) {
        let [(Side::Client, sent), (Side::Backend, expected)] = pair else { unreachable!("pairs") };
        if expected.is_empty() {
            // A NUL instead of `$`: the server waits for ever. We do not.
            continue;
        }
        check_splits(machine, allow_all, &[(Side::Client, sent)]);
        let mut driver = Driver::new(machine(), allow_all);
        driver.feed(Side::Client, sent);
        assert_eq!(last_words(&mut driver), String::from_utf8_lossy(expected), "{}", String::from_utf8_lossy(sent));
        assert!(driver.transcript().to_backend.is_empty());
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn heads_and_lines_without_an_end_are_bounded() {
    for (front, filler, expected) in [
        ("*", b'1', "-ERR Protocol error: too big mbulk count string\r\n"),
        ("*1\r\n$", b'1', "-ERR Protocol error: too big bulk count string\r\n"),
        ("*1\r\n", b'z', "-ERR Protocol error: too big bulk count string\r\n"),
        ("", b'z', "-ERR Protocol error: too big inline request\r\n"),
    ] {
        let mut driver = Driver::new(machine(), allow_all);
        driver.feed(Side::Client, front.as_bytes());
        for _ in 0..70 {
            driver.feed(Side::Client, &[filler; 1000]);
        }
        assert_eq!(last_words(&mut driver), expected);
    }
}

#[test]
fn what_came_before_the_mistake_is_answered_first() {
    let mut sent = pipeline(&["GET a"]);
    sent.extend_from_slice(b"*x\r\n");
    let script: [(Side, &[u8]); 2] = [(Side::Client, &sent), (Side::Backend, b"$1\r\nv\r\n")];
    let transcript = check_splits(machine, allow_all, &script);
    assert_eq!(transcript.to_client, b"$1\r\nv\r\n");
    assert_eq!(transcript.fault.map(|fault| fault.kind), Some(FaultKind::Malformed));
}

#[test]
fn a_reply_that_is_none_ends_the_session() {
    for reply in [
        "x\r\n",
        "$?\r\n",
        "*?\r\n",
        ":1\rx",
        "$-2\r\n",
        "$01\r\n",
        "%-1\r\n",
        "+a\rb\r\n",
        "*99999999999999999999\r\n",
    ] {
        let script = [(Side::Client, &pipeline(&["GET a"])[..]), (Side::Backend, reply.as_bytes())];
        let transcript = check_splits(machine, allow_all, &script);
        assert!(transcript.fault.is_some_and(|fault| fault.side == Side::Backend), "{reply:?}");
    }
    let unasked = check_splits(machine, allow_all, &[(Side::Backend, b"+OK\r\n")]);
    assert!(unasked.fault.is_some() && unasked.to_client.is_empty());
}

#[test]
fn nesting_is_counted_and_never_recursed() {
    let deep = "*1\r\n".repeat(1_000_000) + ":1\r\n";
    let mut driver = Driver::new(machine(), allow_all);
    driver.feed(Side::Client, &pipeline(&["GET a"]));
    driver.feed(Side::Backend, deep.as_bytes());
    assert_eq!(driver.transcript().fault, None);
    assert!(driver.machine().is_idle());
}

#[test]
fn every_truncation_of_a_command_waits() {
    let sent = pipeline(&["SET key value"]);
    for end in 0..sent.len() {
        let mut driver = Driver::new(machine(), allow_all);
        if end > 0 {
            driver.feed(Side::Client, &sent[..end]);
        }
        let transcript = driver.transcript();
        assert!(transcript.questions.is_empty() && transcript.to_backend.is_empty() && transcript.fault.is_none());
    }
}
