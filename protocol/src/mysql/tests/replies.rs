//! Where replies end: by hand-made servers, long packets, and against another decoder.

use mysql_common::constants::{CapabilityFlags, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{CommonOkPacket, ErrPacket, OkPacketDeserializer};
use proptest::prelude::*;

use super::*;
use crate::testing::{check_splits, run};
use crate::{FaultKind, Machine};

fn count(sequence: u8, columns: &[u8]) -> Vec<u8> {
    packet(sequence, columns)
}

fn row(sequence: u8, text: &[u8]) -> Vec<u8> {
    packet(sequence, &[&[u8::try_from(text.len()).unwrap()], text].concat())
}

/// One command, its reply, and the next command: which passes only if the reply was seen to end.
fn passes(flags: Flags, command: &[u8], reply: &[u8]) {
    let next = command_after();
    let script = [(Side::Client, command), (Side::Backend, reply), (Side::Client, &next[..])];
    let transcript = check_splits(|| machine_with(flags), allow_all, &script);
    assert_eq!(transcript.fault, None, "{}", reply.escape_ascii());
    assert_eq!(transcript.left, (0, 0), "{}", reply.escape_ascii());
    assert!(transcript.to_backend == [command, &next].concat());
    assert!(transcript.to_client[WELCOME..] == *reply);
}

fn command_after() -> Vec<u8> {
    command(0x0e, b"")
}

fn breaks(flags: Flags, command: &[u8], reply: &[u8]) -> FaultKind {
    let transcript = run(machine_with(flags), allow_all, &[(Side::Client, command), (Side::Backend, reply)], |len| len);
    transcript.fault.unwrap_or_else(|| panic!("no fault: {}", reply.escape_ascii())).kind
}

#[test]
fn leaves_out_definitions_where_the_server_says_so() {
    let optional = OK | capability::OPTIONAL_METADATA;
    passes(optional, &query("x"), &[count(1, &[1, 0]), row(2, b"a"), end(3, 2)].concat());
    passes(optional, &query("x"), &[count(1, &[1, 1]), definition(2), row(3, b"a"), end(4, 2)].concat());
    let prepared = |described: u8| packet(1, &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, described]);
    passes(optional, &command(0x16, b"x"), &prepared(0));
    passes(optional, &command(0x16, b"x"), &[prepared(1), definition(2), definition(3)].concat());
    let old = EOF | capability::OPTIONAL_METADATA;
    passes(old, &query("x"), &[count(1, &[1, 0]), eof(2, 2), row(3, b"a"), eof(4, 2)].concat());
    assert_eq!(breaks(optional, &query("x"), &count(1, &[1])), FaultKind::Malformed);
    assert_eq!(breaks(OK, &query("x"), &count(1, &[1, 1])), FaultKind::Malformed);
}

#[test]
fn passes_reports_of_progress_at_any_time() {
    let progress = |sequence| packet(sequence, b"\xff\xff\xff\x01\x02\x10\0\0\x05stage");
    let reply = [progress(1), progress(2), count(3, &[1]), definition(4), progress(5), end(6, 2)].concat();
    let cached = MARIADB & !capability::CACHE_METADATA;
    passes(cached, &query("alter"), &reply);
    assert_eq!(breaks(OK, &query("alter"), &progress(1)), FaultKind::OutOfOrder);
}

#[test]
fn ends_a_result_whose_rows_wait_in_a_cursor() {
    let execute = command(0x17, &[1, 0, 0, 0, 1, 1, 0, 0, 0]);
    let execute = packet(0, &[&execute[4..], &[][..]].concat());
    let reply = [count(1, &[1]), definition(2), eof(3, 0x42)].concat();
    passes(EOF, &padded(&execute), &reply);
    let reply = [count(1, &[1]), definition(2), end(3, 0x42)].concat();
    passes(OK, &padded(&execute), &reply);
    let fetch = command(0x1c, &[1, 0, 0, 0, 9, 0, 0, 0]);
    passes(EOF, &fetch, &[packet(1, b"\0\0\x01a"), eof(2, 0x82)].concat());
    passes(OK, &fetch, &[packet(1, b"\0\0\x01a"), end(2, 0x82)].concat());
    passes(OK, &fetch, &error(1, 1243, "unknown statement"));
}

/// A COM_STMT_EXECUTE is ten bytes: code, id, flags, count.
fn padded(execute: &[u8]) -> Vec<u8> {
    let mut body = execute[4..].to_vec();
    body.resize(10, 0);
    body[6..10].copy_from_slice(&[1, 0, 0, 0]);
    packet(0, &body)
}

#[test]
fn a_long_row_that_begins_like_an_end_is_a_row() {
    // The first value is 16 MiB long, so its length takes the mark of an end.
    let mut reply = [count(1, &[1]), definition(2)].concat();
    let mut head = vec![0xff, 0xff, 0xff, 3, 0xfe];
    head.extend_from_slice(&0xff_ffff_u64.to_le_bytes());
    reply.extend_from_slice(&head);
    let limits = Limits { frame_bytes_max: 1 << 30, ..SMALL };
    let mut driver = Driver::new(machine_for(opened_with(OK, "", b""), OK, limits), allow_all);
    driver.feed(Side::Client, &query("x"));
    driver.feed(Side::Backend, &reply);
    driver.feed(Side::Backend, &vec![b'x'; 0xff_ffff - 9]);
    // What it goes on in begins like an error, which it is not.
    driver.feed(Side::Backend, &[packet(4, &[0xff; 9]), row(5, b"next"), end(6, 2)].concat());
    assert_eq!(driver.transcript().fault, None);
    assert_eq!(driver.transcript().notes.last().unwrap(), r#"1 ok rows Some(2) code  tag  copied 0 """#);
    assert!(driver.machine().is_idle());
}

#[test]
fn a_long_command_passes_and_is_not_taken_for_several() {
    let limits = Limits { frame_bytes_max: 1 << 30, ..SMALL };
    let mut driver = Driver::new(machine_for(opened_with(OK, "", b""), OK, limits), allow_all);
    let mut first = vec![0xff, 0xff, 0xff, 0, 3];
    first.extend_from_slice(&vec![b' '; 0xff_ffff - 1]);
    driver.feed(Side::Client, &first);
    // It goes on with what would be COM_SHUTDOWN, then ends with an empty packet.
    driver.feed(Side::Client, &{
        let mut more = vec![0xff, 0xff, 0xff, 1, 8];
        more.extend_from_slice(&vec![b' '; 0xff_ffff - 1]);
        more
    });
    assert!(!driver.machine().is_idle());
    driver.feed(Side::Client, &packet(2, b""));
    driver.feed(Side::Backend, &ok(3));
    let transcript = driver.transcript();
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.questions.len(), 1);
    assert_eq!(transcript.to_backend.len(), 2 * (0xff_ffff + 4) + 4);
    assert!(driver.machine().is_idle());
}

#[test]
fn a_command_beyond_the_bound_ends_the_session_however_it_is_split() {
    let mut driver = Driver::new(machine(), allow_all);
    driver.feed(Side::Client, &[0, 0, 0x20, 0, 3]);
    assert_eq!(driver.transcript().fault.unwrap().kind, FaultKind::TooLarge);
    let limits = Limits { frame_bytes_max: (1 << 24) + 100, ..SMALL };
    let mut driver = Driver::new(machine_for(opened_with(OK, "", b""), OK, limits), allow_all);
    let mut first = vec![0xff, 0xff, 0xff, 0, 3];
    first.extend_from_slice(&vec![b' '; 0xff_ffff - 1]);
    driver.feed(Side::Client, &first);
    assert_eq!(driver.transcript().fault, None);
    driver.feed(Side::Client, &packet(1, &[b' '; 200]));
    assert_eq!(driver.transcript().fault.unwrap().kind, FaultKind::TooLarge);
}

#[test]
fn refuses_what_is_out_of_order_or_does_not_fit() {
    let prepare = command(0x16, b"x");
    let cases: [(&str, Flags, &[u8], Vec<u8>); 16] = [
        ("sequence", OK, &query("x"), ok(2)),
        ("empty packet", OK, &query("x"), packet(1, b"")),
        ("cut OK", OK, &query("x"), packet(1, &[0, 0, 0, 2, 0])),
        ("cut error", OK, &query("x"), packet(1, &[0xff, 1])),
        ("too many columns", OK, &query("x"), packet(1, &[0xfd, 0, 0, 1])),
        ("a long column count", OK, &query("x"), packet(1, &[1; 30])),
        ("an end in place of a result", OK, &query("x"), end(1, 2)),
        ("an end among definitions", OK, &query("x"), [count(1, &[2]), definition(2), end(3, 2)].concat()),
        (
            "a row before the end of definitions",
            EOF,
            &query("x"),
            [count(1, &[1]), definition(2), row(3, b"a")].concat(),
        ),
        ("an OK for an EOF", EOF, &query("x"), [count(1, &[1]), definition(2), end(3, 2)].concat()),
        (
            "a text row in binary rows",
            OK,
            &padded(&command(0x17, &[1, 0, 0, 0])),
            [count(1, &[1]), definition(2), row(3, b"a")].concat(),
        ),
        ("a file in answer to an execute", OK, &padded(&command(0x17, &[1, 0, 0, 0])), packet(1, b"\xfb/etc/passwd")),
        ("a prepare that is short", OK, &prepare, packet(1, &[0, 1, 0, 0, 0, 1, 0])),
        ("a prepare that is long", OK, &prepare, packet(1, &[0; 20])),
        ("a result to a ping", OK, &command(0x0e, b""), count(1, &[1])),
        ("two answers", OK, &command(0x0e, b""), [ok(1), ok(2)].concat()),
    ];
    for (what, flags, command, reply) in cases {
        let kind = breaks(flags, command, &reply);
        assert!(matches!(kind, FaultKind::Malformed | FaultKind::OutOfOrder), "{what}: {kind:?}");
    }
}

#[test]
fn nothing_of_a_database_that_was_not_asked_reaches_the_client_but_its_goodbye() {
    for bytes in [ok(0), ok(1), eof(1, 2), count(1, &[1]), packet(0, b"\xfb/etc/passwd")] {
        let mut driver = driver();
        driver.feed(Side::Backend, &bytes);
        assert_eq!(driver.transcript().fault.unwrap().kind, FaultKind::OutOfOrder);
        assert!(told(&mut driver).is_empty());
    }
    let mut driver = driver();
    let goodbye = error(1, 1927, "Connection was killed");
    driver.feed(Side::Backend, &goodbye);
    assert_eq!(driver.transcript().fault, None);
    assert_eq!(told(&mut driver), goodbye);
    assert!(driver.machine().has_parted());
}

#[test]
fn a_server_that_asks_for_files_is_refused() {
    // Not negotiated.
    let text = query("load data local infile 'a' into table t");
    assert_eq!(breaks(OK, &text, &packet(1, b"\xfb/etc/passwd")), FaultKind::Denied);
    // Negotiated, and not asked for by the client.
    let files = OK | capability::LOCAL_FILES;
    for text in ["select 1", "load data infile 'a'", "update local set a=1"] {
        assert_eq!(breaks(files, &query(text), &packet(1, b"\xfb/etc/passwd")), FaultKind::Denied, "{text}");
    }
}

/// The reply to one query: results, each with rows or with affected rows.
fn reply(ok_for_eof: bool) -> impl Strategy<Value = (Vec<u8>, u64)> {
    let value = prop::collection::vec(any::<u8>(), 0..200);
    let result = (1..4_usize, prop::collection::vec(value, 0..6), any::<bool>(), 0..200_u8);
    (prop::collection::vec(result, 1..4), any::<bool>()).prop_map(move |(results, fails)| {
        let (mut out, mut sequence, mut rows) = (Vec::new(), 0_u8, 0);
        let last = results.len() - 1;
        let mut add = |sequence: &mut u8, body: &[u8]| {
            *sequence = sequence.wrapping_add(1);
            out.extend(packet(*sequence, body));
        };
        for (at, (columns, values, is_ok, affected)) in results.iter().enumerate() {
            let status = if at == last && !fails { 2 } else { 2 | 8 };
            if *is_ok {
                add(&mut sequence, &[0, *affected, 0, status, 0, 0, 0]);
                rows += u64::from(*affected);
                continue;
            }
            add(&mut sequence, &[u8::try_from(*columns).unwrap()]);
            for _ in 0..*columns {
                add(&mut sequence, &definition(0)[4..]);
            }
            if !ok_for_eof {
                add(&mut sequence, &[0xfe, 0, 0, status, 0]);
            }
            for value in values {
                let mut body = vec![u8::try_from(value.len()).unwrap()];
                body.extend_from_slice(value);
                body.resize(body.len() + columns - 1, 0xfb);
                add(&mut sequence, &body);
                rows += 1;
            }
            if ok_for_eof {
                add(&mut sequence, &[0xfe, 0, 0, status, 0, 0, 0]);
            } else {
                add(&mut sequence, &[0xfe, 0, 0, status, 0]);
            }
        }
        if fails {
            add(&mut sequence, b"\xff\x28\x04#42000no");
        }
        (out, rows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_results_end_where_they_end(
        (bytes, rows) in reply(true),
        (old, old_rows) in reply(false),
        cut in any::<prop::sample::Index>(),
    ) {
        for (flags, bytes, rows) in [(OK, &bytes, rows), (EOF, &old, old_rows)] {
            let mut driver = driver_with(flags);
            driver.feed(Side::Client, &query("x"));
            let (front, back) = bytes.split_at(cut.index(bytes.len()));
            driver.feed(Side::Backend, front);
            prop_assert!(!driver.machine().is_idle());
            driver.feed(Side::Backend, back);
            prop_assert_eq!(driver.transcript().fault, None);
            prop_assert_eq!(told(&mut driver), bytes.clone());
            prop_assert!(driver.machine().outstanding() == 0);
            let note = driver.transcript().notes.last().unwrap().clone();
            prop_assert!(note.contains(&format!("rows Some({rows})")) || note.contains("rows None"), "{} {}", note, rows);
        }
    }

    #[test]
    fn ends_and_errors_say_the_same_to_another_decoder(
        affected in any::<u64>(), status in any::<u16>(), warnings in any::<u16>(), code in 1..0xffff_u16,
        message in "[ -~]{0,60}",
    ) {
        let status = StatusFlags::from_bits_truncate(status).bits();
        let mut body = vec![0];
        super::super::head::put_lenenc(&mut body, affected);
        body.push(0);
        body.extend_from_slice(&status.to_le_bytes());
        body.extend_from_slice(&warnings.to_le_bytes());
        let flags = CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_DEPRECATE_EOF;
        let theirs = ParseBuf(&body).parse::<OkPacketDeserializer<'_, CommonOkPacket>>(flags).unwrap().into_inner();
        let bytes = packet(0, &body);
        let ours = super::super::backend::ok(&bytes).unwrap();
        prop_assert_eq!(ours.affected, theirs.affected_rows());
        prop_assert_eq!(ours.warnings, theirs.warnings());
        prop_assert_eq!(ours.status, theirs.status_flags().bits());

        let bytes = error(0, code, &message);
        let ours = super::super::error::ErrorParts::read(&bytes).unwrap();
        let theirs = ParseBuf(&bytes[4..]).parse::<ErrPacket<'_>>(flags).unwrap();
        let theirs = theirs.server_error();
        prop_assert_eq!(ours.code, theirs.error_code());
        prop_assert_eq!(ours.message, theirs.message_ref());
    }
}
