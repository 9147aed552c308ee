//! What a session machine keeps, holds and says.

use super::*;
use crate::testing::{Driver, allow_all, check_splits};
use crate::{Machine, Outbox, Step};

fn started() -> Driver<PostgresMachine> {
    let mut driver = Driver::new(machine(), allow_all);
    driver.feed(Side::Backend, &ready(b'I'));
    driver
}

#[test]
fn tells_a_newer_client_the_version_and_the_options_that_it_cannot_have() {
    let mut machine = machine_with(&[("_pq_.grease", "1")], Limits::default());
    let mut out = Outbox::default();
    machine.start(&mut out);
    assert_eq!(out.client, b"v\0\0\0\x18\0\x03\0\0\0\0\0\x01_pq_.grease\0R\0\0\0\x08\0\0\0\0");
    assert!(out.backend.is_empty());
}

#[test]
fn replaces_the_cancel_key_and_hands_out_the_real_one() {
    let bytes = [frame(b'K', b"\0\0\0\x07abcdefgh"), ready(b'I')].concat();
    let transcript = check_splits(machine, allow_all, &[(Side::Backend, &bytes)]);
    assert_eq!(transcript.notes[0], format!("BackendKey {{ pid: 7, secret: {:?} }}", b"abcdefgh"));
    assert_eq!(transcript.notes[1], "Ready");
    let expected = [b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67\xab\xab\xab\xab".to_vec(), ready(b'I')].concat();
    assert_eq!(transcript.to_client, expected);
    assert!(!transcript.to_client.windows(4).any(|window| window == b"abcd"));
}

#[test]
fn is_idle_only_between_transactions() {
    let mut driver = Driver::new(machine(), allow_all);
    assert!(!driver.machine().is_idle(), "before ready");
    driver.feed(Side::Backend, &ready(b'I'));
    assert!(driver.machine().is_idle());
    driver.feed(Side::Client, &query("begin"));
    assert!(!driver.machine().is_idle());
    assert_eq!(driver.machine().outstanding(), 1);
    driver.feed(Side::Backend, &[complete("BEGIN"), ready(b'T')].concat());
    assert!(!driver.machine().is_idle(), "in a transaction");
    assert_eq!(driver.machine().outstanding(), 0);
    driver.feed(Side::Client, &query("commit"));
    driver.feed(Side::Backend, &[complete("COMMIT"), ready(b'I')].concat());
    assert!(driver.machine().is_idle());
    driver.feed(Side::Client, &parse("", "x"));
    driver.feed(Side::Backend, &frame(b'1', b""));
    assert!(!driver.machine().is_idle(), "without Sync");
    driver.feed(Side::Client, &sync());
    driver.feed(Side::Backend, &ready(b'I'));
    assert!(driver.machine().is_idle());
}

#[test]
fn gives_back_what_was_never_answered_in_order() {
    let mut driver = started();
    driver.feed(Side::Client, &[parse("", "x"), bind("", ""), execute(""), execute(""), sync(), query("y")].concat());
    let mut tickets = Vec::new();
    while let Some(ticket) = driver.machine().take_unanswered() {
        tickets.push(ticket.ei);
    }
    assert_eq!(tickets, [3, 4, 5]);
    assert_eq!(driver.machine().outstanding(), 0);
}

#[test]
fn holds_the_client_back_when_too_much_is_owed_and_lets_it_go_on_after_answers() {
    let mut driver = started();
    let many = parse("", "x").repeat(5000);
    driver.feed(Side::Client, &many);
    let sent = driver.transcript().to_backend.len();
    assert_eq!(sent, many.len() / 5000 * 4096);
    driver.feed(Side::Backend, &frame(b'1', b"").repeat(1000));
    assert_eq!(driver.transcript().to_backend.len(), many.len());
}

#[test]
fn a_skipped_pipeline_of_any_length_does_not_hold_the_client_for_ever() {
    let mut driver = started();
    driver.feed(Side::Client, &parse("", "x"));
    driver.feed(Side::Backend, &error("ERROR", "42601", "no"));
    let many = [bind("", "").repeat(3000), execute("").repeat(3000), sync()].concat();
    driver.feed(Side::Client, &many);
    driver.feed(Side::Backend, &ready(b'I'));
    assert_eq!(driver.transcript().left, (0, 0));
    let skipped = driver.transcript().notes.iter().filter(|note| note.ends_with("skipped")).count();
    assert_eq!(skipped, 3000);
}

#[test]
fn shows_a_long_text_by_its_front_and_says_where_it_streams_from() {
    let up = ready(b'I');
    let limits = Limits { text_bytes_max: 2000, ..Limits::default() };
    for bytes in [query(&"q".repeat(5000)), parse("name", &"q".repeat(5000))] {
        let script = signed_in(&up, &[(Side::Client, &bytes)]);
        let transcript = check_splits(|| machine_with(&[], limits), allow_all, &script);
        let at = bytes.iter().position(|byte| *byte == b'q').unwrap();
        let question = &transcript.questions[0];
        assert!(question.contains(&format!("full_bytes: 5000, streams_from: Some({at})")), "{question}");
        assert!(transcript.to_backend == bytes);
    }
}

#[test]
fn a_short_cap_is_kept_even_where_the_whole_text_is_at_hand() {
    let up = ready(b'I');
    let limits = Limits { text_bytes_max: 4, ..Limits::default() };
    let bytes = query("select 1");
    let transcript = run(machine_with(&[], limits), allow_all, &signed_in(&up, &[(Side::Client, &bytes)]), |len| len);
    let head = format!("head: {:?}, full_bytes: 8, streams_from: Some(5)", b"sele");
    assert!(transcript.questions[0].contains(&head), "{}", transcript.questions[0]);
}

#[test]
fn never_asks_for_more_than_its_window_and_streams_a_huge_row() {
    let mut machine = machine();
    let mut out = Outbox::default();
    let mut huge = query("x");
    huge[1..5].copy_from_slice(&(1_u32 << 29).to_be_bytes());
    huge.truncate(6);
    match machine.handle(Side::Client, &huge, &mut out) {
        Ok(Step::Need { need }) => assert_eq!(need, 64 * 1024 + 5),
        other => panic!("{other:?}"),
    }
    let mut driver = started();
    driver.feed(Side::Client, &execute(""));
    let mut row = frame(b'D', b"\0\0");
    row[1..5].copy_from_slice(&(1_u32 << 29).to_be_bytes());
    driver.feed(Side::Backend, &row);
    assert_eq!(driver.transcript().left, (0, 0));
}

#[test]
fn a_failed_parse_does_not_change_what_a_name_stands_for() {
    let mut driver = started();
    driver.feed(Side::Client, &[parse("n", "first"), sync()].concat());
    driver.feed(Side::Backend, &[frame(b'1', b""), ready(b'I')].concat());
    // The second Parse fails: the Bind behind its Sync must not be taken for "second".
    driver.feed(Side::Client, &[parse("n", "second"), sync(), bind("", "n")].concat());
    assert_eq!(driver.transcript().questions.len(), 2, "the Bind waits for the answer");
    driver.feed(Side::Backend, &[error("ERROR", "42P05", "already exists"), ready(b'I')].concat());
    let last = driver.transcript().questions.last().unwrap();
    assert!(last.contains("verb: Bind") && last.contains(&format!("head: {:?}", b"first")), "{last}");
}

#[test]
fn a_pipelined_bind_sees_the_parse_before_it() {
    let mut driver = started();
    driver.feed(Side::Client, &[parse("n", "text"), bind("p", "n"), execute("p")].concat());
    for question in &driver.transcript().questions {
        assert!(question.contains(&format!("head: {:?}", b"text")), "{question}");
    }
}

#[test]
fn a_name_that_the_server_would_cut_stands_for_nothing_known() {
    let mut driver = started();
    let long = "n".repeat(64);
    driver.feed(Side::Client, &[parse(&long[..63], "first"), parse(&long, "second"), bind("", &long[..63])].concat());
    let last = driver.transcript().questions.last().unwrap();
    assert!(last.contains("verb: Bind") && last.contains("head: []"), "{last}");
}

#[test]
fn memory_for_texts_is_bounded() {
    let mut driver = started();
    for number in 0..400 {
        let text = format!("{number} {}", "x".repeat(8000));
        driver.feed(Side::Client, &[parse(&format!("s{number}"), &text), sync()].concat());
        driver.feed(Side::Backend, &[frame(b'1', b""), ready(b'I')].concat());
    }
    driver.feed(Side::Client, &[bind("", "s0"), bind("", "s399")].concat());
    let questions = &driver.transcript().questions;
    assert!(questions[400].contains("head: []"), "the oldest is forgotten");
    assert!(!questions[401].contains("head: []"), "the newest is not");
}

#[test]
fn portals_end_with_their_transaction() {
    let mut driver = started();
    driver.feed(Side::Client, &[parse("", "x"), bind("p", ""), sync(), execute("p")].concat());
    assert_eq!(driver.transcript().questions.len(), 2, "Execute waits for the Bind before the Sync");
    driver.feed(Side::Backend, &[frame(b'1', b""), frame(b'2', b""), ready(b'I')].concat());
    let last = driver.transcript().questions.last().unwrap();
    assert!(last.contains("verb: Execute") && last.contains("head: []"), "{last}");
}

#[test]
fn a_sync_that_a_failing_copy_may_have_swallowed_confuses_nothing() {
    let copy = [parse("", "copy"), bind("", ""), execute(""), sync()].concat();
    let into = [frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")].concat();
    let fails = error("ERROR", "22P02", "bad row");
    let tail = [query("next")].concat();
    let answer = [frame(b'T', b"\0\0"), complete("SELECT 0"), ready(b'I')].concat();
    // Swallowed: one ReadyForQuery for two Syncs. Not swallowed: two.
    for count in [1, 2] {
        let mut driver = started();
        driver.feed(Side::Client, &copy);
        driver.feed(Side::Backend, &[into.clone(), fails.clone()].concat());
        driver.feed(Side::Client, &[frame(b'c', b""), sync()].concat());
        driver.feed(Side::Backend, &ready(b'I').repeat(count));
        assert!(driver.machine().is_idle(), "{count}");
        driver.feed(Side::Client, &tail);
        driver.feed(Side::Backend, &answer);
        assert_eq!(driver.transcript().fault, None, "{count}");
        let last = driver.transcript().notes.last().unwrap();
        assert!(last.starts_with("4 ok rows Some(0)"), "{count}: {last}");
        assert!(driver.machine().is_idle(), "{count}");
    }
}

#[test]
fn says_goodbye_once_and_takes_nothing_after_it() {
    let mut driver = started();
    driver.feed(Side::Client, &[frame(b'X', b""), query("x")].concat());
    let transcript = driver.transcript();
    assert_eq!(transcript.notes.last().unwrap(), "Goodbye");
    assert_eq!(transcript.to_backend, frame(b'X', b""));
    assert_eq!(transcript.fault.map(|fault| fault.kind), Some(crate::FaultKind::OutOfOrder));
}

#[test]
fn passes_what_may_come_at_any_time() {
    let up = ready(b'I');
    let any = [frame(b'S', b"a\0b\0"), frame(b'A', b"\0\0\0\0a\0b\0"), notice()].concat();
    let client = query("x");
    let answer = [
        any.clone(),
        frame(b'T', b"\0\0"),
        any.clone(),
        frame(b'D', b"\0\0"),
        any.clone(),
        complete("SELECT 1"),
        any.clone(),
        ready(b'I'),
        any.clone(),
    ]
    .concat();
    let script = signed_in(&up, &[(Side::Backend, &any), (Side::Client, &client), (Side::Backend, &answer)]);
    let transcript = check_splits(machine, allow_all, &script);
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.notes.len(), 2);
}

#[test]
fn one_call_passes_a_whole_run_of_rows() {
    let mut machine = machine();
    let mut out = Outbox::default();
    let rows = [frame(b'T', b"\0\0"), frame(b'D', b"\0\x01\0\0\0\x01x").repeat(500)].concat();
    assert!(matches!(machine.handle(Side::Backend, &ready(b'I'), &mut out), Ok(Step::Note(_))));
    assert!(matches!(machine.handle(Side::Backend, &ready(b'I'), &mut out), Ok(Step::Forward { len: 6 })));
    assert!(matches!(machine.handle(Side::Client, &query("x"), &mut out), Ok(Step::Ask(_))));
    let _ = machine.resume(crate::Ruling::Allow(crate::Ticket::default()));
    assert!(matches!(machine.handle(Side::Client, &query("x"), &mut out), Ok(Step::Forward { len: 7 })));
    match machine.handle(Side::Backend, &rows, &mut out) {
        Ok(Step::Forward { len }) => assert_eq!(len, rows.len() as u64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_without_a_ruling_is_asked_again() {
    let mut machine = machine();
    let mut out = Outbox::default();
    assert!(matches!(machine.handle(Side::Backend, &ready(b'I'), &mut out), Ok(Step::Note(_))));
    assert!(matches!(machine.handle(Side::Backend, &ready(b'I'), &mut out), Ok(Step::Forward { len: 6 })));
    for _ in 0..3 {
        match machine.handle(Side::Client, &query("x"), &mut out) {
            Ok(Step::Ask(operation)) => assert_eq!(operation.text.head, b"x"),
            other => panic!("{other:?}"),
        }
    }
    let _ = machine.resume(crate::Ruling::Allow(crate::Ticket::default()));
    assert!(matches!(machine.handle(Side::Client, &query("x"), &mut out), Ok(Step::Forward { len: 7 })));
    assert!(out.client.is_empty() && out.backend.is_empty());
}
