//! Sessions recorded from a real server pass unchanged, however they are cut.

use super::{LIMITS, machine, machine_of};
use crate::testing::{Transcript, allow_all, capture, check_splits};
use crate::{Credential, Side};

fn bytes(script: &[(Side, Vec<u8>)], side: Side) -> Vec<u8> {
    script.iter().filter(|(from, _)| *from == side).flat_map(|(_, bytes)| bytes.iter().copied()).collect()
}

/// Runs a capture in all cuts. Nothing in it is rewritten unless `inline`.
fn check(text: &str, inline: bool) -> Transcript {
    let script = capture(text);
    let parts: Vec<(Side, &[u8])> = script.iter().map(|(side, bytes)| (*side, &bytes[..])).collect();
    let transcript = check_splits(machine, allow_all, &parts);
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.left, (0, 0));
    assert!(transcript.to_client == bytes(&script, Side::Backend), "replies pass unchanged");
    if !inline {
        assert!(transcript.to_backend == bytes(&script, Side::Client), "commands pass unchanged");
    }
    let ended = transcript.notes.iter().filter(|note| note.contains(" ok") || note.contains(" failed")).count();
    assert_eq!(ended, transcript.questions.len(), "one outcome for each command: {:#?}", transcript.notes);
    transcript
}

fn failures(transcript: &Transcript) -> usize {
    transcript.notes.iter().filter(|note| note.contains(" failed")).count()
}

#[test]
fn pipelines_with_errors_nulls_and_nested_arrays_pass() {
    let transcript = check(include_str!("../../../testdata/redis/resp2_pipeline.txt"), true);
    assert_eq!(failures(&transcript), 4, "{:#?}", transcript.notes);
    assert!(
        transcript.to_backend.windows(10).any(|window| window == b"$3\r\na b\r\n$"),
        "inline words are sent as an array"
    );
}

#[test]
fn transactions_pass() {
    let transcript = check(include_str!("../../../testdata/redis/resp2_transaction.txt"), false);
    assert!(transcript.notes.iter().any(|note| note.contains("EXECABORT")));
}

#[test]
fn subscriptions_of_every_kind_pass_in_resp2() {
    let transcript = check(include_str!("../../../testdata/redis/resp2_pubsub.txt"), false);
    assert_eq!(failures(&transcript), 1, "{:#?}", transcript.notes);
}

#[test]
fn pushes_never_settle_a_reply_in_resp3() {
    let transcript = check(include_str!("../../../testdata/redis/resp3_pubsub.txt"), false);
    assert_eq!(failures(&transcript), 1, "{:#?}", transcript.notes);
}

#[test]
fn client_reply_is_followed_exactly() {
    let transcript = check(include_str!("../../../testdata/redis/client_reply.txt"), false);
    assert_eq!(failures(&transcript), 2, "{:#?}", transcript.notes);
}

#[test]
fn lines_of_monitor_settle_nothing() {
    let transcript = check(include_str!("../../../testdata/redis/monitor.txt"), false);
    assert!(transcript.notes.iter().any(|note| note == "Goodbye"));
}

#[test]
fn a_reset_signs_in_again() {
    let script = [
        (Side::Client, &b"*1\r\n$5\r\nRESET\r\n*1\r\n$4\r\nPING\r\n"[..]),
        (Side::Backend, b"+RESET\r\n+OK\r\n+PONG\r\n"),
    ];
    let fresh = || machine_of("app", Credential::Password("secret".into()), LIMITS);
    let transcript = check_splits(fresh, allow_all, &script);
    assert_eq!(
        transcript.to_backend,
        b"*1\r\n$5\r\nRESET\r\n*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$6\r\nsecret\r\n*1\r\n$4\r\nPING\r\n"
    );
    assert_eq!(transcript.to_client, b"+RESET\r\n+PONG\r\n");
    assert_eq!(transcript.fault, None);
}
