//! Refused statements: the client must see what an error of the database's own would have shown.

use super::*;
use crate::Operation;
use crate::testing::{REFUSAL, Ruler, allow_all, check_splits};

const STAND_IN_QUERY: &[u8] = b"Q\0\0\0\x16ringgate: refused\0";
const STAND_IN_PARSE: &[u8] = b"P\0\0\0\x29ringgate refused\0ringgate: refused\0\0\0";

fn no_bad(operation: &Operation<'_>) -> bool {
    !operation.text.head.starts_with(b"bad") && !operation.statement.starts_with(b"bad") && operation.function_oid == 0
}

const RULER: Ruler = no_bad;

fn ours() -> Vec<u8> {
    let mut out = Vec::new();
    super::super::error::error(&REFUSAL, &mut out);
    out
}

/// Their answer to a stand-in.
fn syntax_error() -> Vec<u8> {
    error("ERROR", "42601", "syntax error at or near \":\"")
}

/// Runs a client's and a database's bytes, cut in every way; what each got after the sign-in.
fn exchange(client: &[Vec<u8>], backend: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, Vec<String>) {
    let (up, client, backend) = (ready(b'I'), client.concat(), backend.concat());
    let script = signed_in(&up, &[(Side::Client, &client), (Side::Backend, &backend)]);
    let transcript = check_splits(machine, RULER, &script);
    assert_eq!(transcript.fault, None);
    let mut notes = transcript.notes;
    notes.remove(0);
    (transcript.to_backend, transcript.to_client[9 + up.len()..].to_vec(), notes)
}

#[test]
fn a_refused_query_becomes_an_error_and_ready() {
    let (sent, got, notes) = exchange(&[query("bad")], &[syntax_error(), ready(b'I')]);
    assert_eq!(sent, STAND_IN_QUERY);
    assert_eq!(got, [ours(), ready(b'I')].concat());
    assert!(notes.is_empty());
    let text = String::from_utf8(ours()).unwrap();
    assert!(text.contains("SERROR\0VERROR\0C42501\0Mrefused by the test\0Dits rule says so\0Hask for less\0\0"));
}

#[test]
fn a_refused_query_aborts_the_transaction_as_the_database_says() {
    let begin = [complete("BEGIN"), ready(b'T')].concat();
    let (_, got, notes) = exchange(
        &[query("begin"), query("bad"), query("select")],
        &[begin.clone(), syntax_error(), ready(b'E'), error("ERROR", "25P02", "aborted"), ready(b'E')],
    );
    assert_eq!(got, [begin, ours(), ready(b'E'), error("ERROR", "25P02", "aborted"), ready(b'E')].concat());
    assert_eq!(notes.len(), 2);
    assert!(notes[1].contains("25P02"));
}

#[test]
fn order_is_kept_when_the_first_of_two_is_refused() {
    let answer = [frame(b'T', b"\0\0"), complete("SELECT 0"), ready(b'I')].concat();
    let (sent, got, _) = exchange(&[query("bad"), query("good")], &[syntax_error(), ready(b'I'), answer.clone()]);
    assert_eq!(sent, [STAND_IN_QUERY, &query("good")].concat());
    assert_eq!(got, [ours(), ready(b'I'), answer].concat());
}

#[test]
fn after_a_refused_parse_everything_up_to_sync_is_dropped_unasked() {
    let good = [parse("", "good"), bind("", ""), execute(""), sync()].concat();
    let answer = [frame(b'1', b""), frame(b'2', b""), frame(b'D', b"\0\0"), complete("SELECT 1"), ready(b'I')].concat();
    let (sent, got, notes) = exchange(
        &[
            parse("", "bad"),
            bind("", ""),
            describe("P"),
            execute(""),
            frame(b'H', b""),
            query("x"),
            close("Sx"),
            frame(b'd', b"row"),
            sync(),
            good.clone(),
        ],
        &[syntax_error(), ready(b'I'), answer.clone()],
    );
    assert_eq!(sent, [STAND_IN_PARSE, &sync(), &good].concat());
    assert_eq!(got, [ours(), ready(b'I'), answer].concat());
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn statements_before_a_refused_one_keep_their_answers() {
    let first = [parse("", "good"), bind("", ""), execute("")].concat();
    let answer = [frame(b'1', b""), frame(b'2', b""), complete("INSERT 0 3")].concat();
    let (sent, got, notes) = exchange(
        &[first.clone(), parse("", "bad"), bind("", ""), execute(""), sync()],
        &[answer.clone(), syntax_error(), ready(b'I')],
    );
    assert_eq!(sent, [&first, STAND_IN_PARSE, &sync()].concat());
    assert_eq!(got, [answer, ours(), ready(b'I')].concat());
    assert_eq!(notes, [r#"3 ok rows Some(3) code  tag INSERT 0 3 copied 0 """#]);
}

#[test]
fn an_earlier_error_swallows_the_refusal() {
    let first = [parse("", "wrong"), bind("", ""), execute("")].concat();
    let theirs = error("ERROR", "42601", "their own");
    let (sent, got, notes) = exchange(
        &[first.clone(), parse("", "bad"), execute(""), sync(), query("bad")],
        &[theirs.clone(), ready(b'I'), syntax_error(), ready(b'I')],
    );
    assert_eq!(sent, [&first, STAND_IN_PARSE, &sync(), STAND_IN_QUERY].concat());
    assert_eq!(got, [theirs, ready(b'I'), ours(), ready(b'I')].concat());
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("1 failed") && notes[1].ends_with("skipped"));
}

#[test]
fn a_refused_query_in_a_skipped_pipeline_is_skipped_with_it() {
    let theirs = error("ERROR", "42601", "their own");
    let (sent, got, _) = exchange(&[parse("", "wrong"), query("bad"), sync()], &[theirs.clone(), ready(b'I')]);
    assert_eq!(sent, [&parse("", "wrong"), STAND_IN_QUERY, &sync()].concat());
    assert_eq!(got, [theirs, ready(b'I')].concat());
}

#[test]
fn a_refused_function_call_is_answered_like_a_query() {
    let call = frame(b'F', b"\0\0\0\x01\0\0\0\0\0\0");
    let (sent, got, _) = exchange(&[call], &[syntax_error(), ready(b'I')]);
    assert_eq!(sent, STAND_IN_QUERY);
    assert_eq!(got, [ours(), ready(b'I')].concat());
}

#[test]
fn a_connection_that_ends_instead_says_so_itself() {
    let going = error("FATAL", "57P01", "terminating connection");
    let (_, got, _) = exchange(&[query("bad")], std::slice::from_ref(&going));
    assert_eq!(got, going);
}

#[test]
fn a_stand_in_that_does_not_fail_ends_the_session() {
    for (client, answer) in [(query("bad"), complete("SELECT 1")), (parse("", "bad"), frame(b'1', b""))] {
        let up = ready(b'I');
        let transcript =
            run(machine(), RULER, &signed_in(&up, &[(Side::Client, &client), (Side::Backend, &answer)]), |len| len);
        assert!(transcript.fault.is_some());
    }
}

#[test]
fn a_long_refused_frame_is_dropped_as_it_arrives() {
    let up = ready(b'I');
    let long = query(&format!("bad{}", "x".repeat(200_000)));
    let script = signed_in(&up, &[(Side::Client, &long)]);
    let transcript = run(machine(), RULER, &script, |len| len.min(8192));
    assert_eq!(transcript.to_backend, STAND_IN_QUERY);
    assert_eq!(transcript.left, (0, 0));
}

#[test]
fn a_refusal_is_bounded_whatever_it_says() {
    let long = "ä".repeat(5000);
    let refusal = crate::Refusal { message: &long, ..REFUSAL };
    let mut out = Vec::new();
    super::super::error::fatal(&refusal, &mut out);
    assert!(out.len() < 1100 && out.starts_with(b"E\0\0\x04"));
}

#[test]
fn every_refusal_has_five_characters_of_code() {
    use crate::RefusalKind::*;
    for kind in [
        NotAuthorized,
        Denied,
        TooManyConnections,
        UnknownDatabase,
        Unreachable,
        CannotConnectNow,
        Terminated,
        Idle,
        ProtocolViolation,
        Unsupported,
        TooLarge,
        AuditUnavailable,
        Internal,
    ] {
        assert_eq!(super::super::error::sqlstate(kind).len(), 5);
    }
    let up = ready(b'I');
    run(machine(), allow_all, &signed_in(&up, &[]), |len| len);
}

#[test]
fn a_real_server_fails_every_stand_in_and_goes_on_as_after_its_own_error() {
    let script = crate::testing::capture(include_str!("../../../testdata/postgres/stand_in.txt"));
    let recorded: Vec<u8> =
        script[1..].iter().filter(|(side, _)| *side == Side::Client).flat_map(|(_, bytes)| bytes.clone()).collect();
    // What the client would have sent for the database to be sent what was recorded.
    let refused: Vec<(Side, Vec<u8>)> = script
        .iter()
        .map(|(side, bytes)| {
            let bytes = replace(bytes, STAND_IN_QUERY, &query("bad"));
            (*side, replace(&bytes, STAND_IN_PARSE, &parse("", "bad")))
        })
        .collect();
    let steps = super::captures::session(&refused);
    let fresh = || super::captures::machine_after(&refused, Limits::default());
    let transcript = check_splits(fresh, RULER, &steps);
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.left, (0, 0));
    assert!(transcript.to_backend == recorded);
    let seen = String::from_utf8_lossy(&transcript.to_client).into_owned();
    assert!(!seen.contains("ringgate"), "the stand-in's own error was shown");
    assert_eq!(seen.matches("refused by the test").count(), 8);
    assert_eq!(seen.matches("selekt").count(), 2);
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}
