//! Lengths and types, for every message in every state.

use super::*;
use crate::testing::{Driver, allow_all};
use crate::{FaultKind, Machine};

const LENGTHS: [u32; 7] = [0, 3, 4, 5, i32::MAX as u32, 1 << 31, u32::MAX];

/// A state of the session: how it is reached.
type Reached = (&'static str, Vec<(Side, Vec<u8>)>);

fn states() -> Vec<Reached> {
    let up = (Side::Backend, ready(b'I'));
    let copy = |tag, columns: &[u8]| (Side::Backend, frame(tag, columns));
    vec![
        ("before ready", vec![]),
        ("idle", vec![up.clone()]),
        ("query running", vec![up.clone(), (Side::Client, query("x"))]),
        ("rows", vec![up.clone(), (Side::Client, query("x")), (Side::Backend, frame(b'T', b"\0\0"))]),
        ("copy in", vec![up.clone(), (Side::Client, query("x")), copy(b'G', b"\0\0\0")]),
        ("copy out", vec![up.clone(), (Side::Client, query("x")), copy(b'H', b"\0\0\0")]),
        ("parse sent", vec![up.clone(), (Side::Client, parse("", "x"))]),
        ("bind sent", vec![up.clone(), (Side::Client, bind("", ""))]),
        ("describe sent", vec![up.clone(), (Side::Client, describe("S"))]),
        ("execute sent", vec![up.clone(), (Side::Client, execute(""))]),
        ("close sent", vec![up.clone(), (Side::Client, close("S"))]),
        ("sync sent", vec![up.clone(), (Side::Client, sync())]),
        ("skipping", vec![up.clone(), (Side::Client, parse("", "x")), (Side::Backend, error("ERROR", "42601", "no"))]),
        ("query failed", vec![up, (Side::Client, query("x")), (Side::Backend, error("ERROR", "42601", "no"))]),
    ]
}

fn driver(state: &Reached) -> Driver<PostgresMachine> {
    let mut driver = Driver::new(machine(), allow_all);
    for (side, bytes) in &state.1 {
        driver.feed(*side, bytes);
    }
    assert_eq!(driver.transcript().fault, None, "{}", state.0);
    driver
}

/// Least and greatest length field a type allows, by the specification and our bounds.
fn client_rule(tag: u8) -> Option<(u64, u64)> {
    let large = (1 << 30) - 1;
    Some(match tag {
        b'Q' => (5, large),
        b'P' => (8, large),
        b'B' => (12, large),
        b'F' => (14, large),
        b'd' => (4, large),
        b'E' => (9, 65_536),
        b'C' | b'D' => (6, 65_536),
        b'f' => (5, 65_536),
        b'S' | b'H' | b'c' | b'X' => (4, 4),
        _ => return None,
    })
}

#[test]
fn every_length_of_every_client_message_in_every_state_keeps_to_its_rule() {
    for state in states() {
        for tag in 0..=u8::MAX {
            for length in LENGTHS {
                let mut driver = driver(&state);
                let before = driver.transcript().to_backend.len();
                let mut bytes = vec![tag];
                bytes.extend_from_slice(&length.to_be_bytes());
                driver.feed(Side::Client, &bytes);
                let transcript = driver.transcript();
                let what = format!("{} {:?} {length}", state.0, char::from(tag));
                let kind = transcript.fault.map(|fault| fault.kind);
                match client_rule(tag) {
                    None if tag == b'p' => assert_eq!(kind, Some(FaultKind::OutOfOrder), "{what}"),
                    None => assert_eq!(kind, Some(FaultKind::Unsupported), "{what}"),
                    Some((min, _)) if u64::from(length) < min => {
                        assert_eq!(kind, Some(FaultKind::Malformed), "{what}");
                    }
                    Some((_, max)) if u64::from(length) > max => {
                        assert_eq!(kind, Some(FaultKind::TooLarge), "{what}");
                    }
                    Some(_) => assert_eq!(kind, None, "{what}"),
                }
                if kind.is_some() {
                    assert_eq!(transcript.to_backend.len(), before, "{what}: a bad frame was sent on");
                }
            }
        }
    }
}

/// What a database may send in a state, beside what it may always send.
fn backend_rule(state: &str) -> &'static [u8] {
    match state {
        "before ready" => b"KZE",
        "query running" => b"TCIGHZE",
        "rows" => b"TDCE",
        "copy in" => b"CE",
        "copy out" => b"dcE",
        "parse sent" => b"1E",
        "bind sent" => b"2E",
        "describe sent" => b"tE",
        "execute sent" => b"DCIsGHE",
        "close sent" => b"3E",
        "sync sent" | "query failed" => b"ZE",
        _ => b"E",
    }
}

/// A whole message of that type.
fn sample(tag: u8) -> Vec<u8> {
    match tag {
        b'K' => frame(tag, &[1; 8]),
        b'Z' => ready(b'I'),
        b'C' => complete("SELECT 1"),
        b'E' => error("FATAL", "57P01", "going"),
        b'N' => notice(),
        b'T' | b'D' | b't' => frame(tag, b"\0\0"),
        b'G' | b'H' | b'W' => frame(tag, b"\0\0\0"),
        b'V' => frame(tag, &[0xff; 4]),
        b'S' | b'A' => frame(tag, b"a\0b\0"),
        b'd' => frame(tag, b"row"),
        _ => frame(tag, b""),
    }
}

#[test]
fn every_database_message_in_every_state_is_passed_or_refused_by_rule() {
    for state in states() {
        for tag in 0..=u8::MAX {
            let mut driver = driver(&state);
            let before = driver.transcript().to_client.len();
            driver.feed(Side::Backend, &sample(tag));
            let transcript = driver.transcript();
            let allowed = b"NAS".contains(&tag) || backend_rule(state.0).contains(&tag);
            let what = format!("{} {:?}: {:?}", state.0, char::from(tag), transcript.fault);
            assert_eq!(transcript.fault.is_none(), allowed, "{what}");
            let grown = transcript.to_client.len() - before;
            assert_eq!(grown, if allowed { sample(tag).len() } else { 0 }, "{what}");
        }
    }
}

#[test]
fn every_length_of_every_database_message_is_checked() {
    for state in states() {
        for tag in 0..=u8::MAX {
            for length in LENGTHS {
                let mut driver = driver(&state);
                let before = driver.transcript().to_client.len();
                let mut bytes = vec![tag];
                bytes.extend_from_slice(&length.to_be_bytes());
                driver.feed(Side::Backend, &bytes);
                let fault = driver.transcript().fault;
                let what = format!("{} {:?} {length}", state.0, char::from(tag));
                if !(4..1 << 30).contains(&length) {
                    let fault = fault.unwrap_or_else(|| panic!("{what}: no fault"));
                    assert_eq!(fault.side, Side::Backend, "{what}");
                    assert_eq!(driver.transcript().to_client.len(), before, "{what}: a bad frame was sent on");
                }
            }
        }
    }
}

#[test]
fn says_the_same_error_for_ever_and_nothing_else() {
    let mut machine = machine();
    let mut out = crate::Outbox::default();
    let first = machine.handle(Side::Client, b"p\0\0\0\x05\0", &mut out).unwrap_err();
    for (side, bytes) in [(Side::Client, query("x")), (Side::Backend, ready(b'I')), (Side::Client, sync())] {
        assert_eq!(machine.handle(side, &bytes, &mut out).unwrap_err(), first);
    }
    assert!(out.client.is_empty() && out.backend.is_empty());
}

#[test]
fn refuses_bytes_behind_the_end_and_inner_lengths_beyond_it() {
    let bad: [(&str, Vec<u8>); 17] = [
        ("text without end", frame(b'Q', b"select")),
        ("zero byte inside text", frame(b'Q', b"sel\0ect\0")),
        ("parse without text", frame(b'P', b"abcd")),
        ("parse with fewer types", frame(b'P', b"\0x\0\0\x01")),
        ("parse with more types", frame(b'P', b"\0x\0\0\0\0\0\0\0")),
        ("bind value beyond", frame(b'B', b"\0\0\0\0\0\x01\0\0\0\x09ab\0\0")),
        ("bind value of length -2", frame(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0")),
        ("bind formats beyond", frame(b'B', b"\0\0\0\x09\0\0\0\0")),
        ("bind trailing", frame(b'B', b"\0\0\0\0\0\0\0\0!")),
        ("bind result formats beyond", frame(b'B', b"\0\0\0\0\0\0\0\x02")),
        ("execute trailing", frame(b'E', b"\0\0\0\0\0\0")),
        ("execute short", frame(b'E', b"p\0\0\0\0")),
        ("describe of nothing known", frame(b'D', b"X\0")),
        ("describe trailing", frame(b'D', b"S\0\0")),
        ("close without end", frame(b'C', b"Sab")),
        ("function call trailing", frame(b'F', b"\0\0\0\x01\0\0\0\0\0\0\0")),
        ("copy fail with two strings", frame(b'f', b"a\0b\0")),
    ];
    for (what, bytes) in bad {
        let transcript = run(machine(), allow_all, &[(Side::Client, &bytes)], |len| len);
        assert_eq!(transcript.fault.map(|fault| fault.kind), Some(FaultKind::Malformed), "{what}");
        assert!(transcript.to_backend.is_empty() && transcript.questions.is_empty(), "{what}");
    }
}

#[test]
fn refuses_inner_lengths_beyond_a_frame_that_is_not_visible_to_its_end() {
    // The frame says 100,000 bytes, its only value says more.
    let mut bytes = vec![b'B'];
    bytes.extend_from_slice(&100_000_u32.to_be_bytes());
    bytes.extend_from_slice(b"\0\0\0\0\0\x01");
    bytes.extend_from_slice(&200_000_u32.to_be_bytes());
    bytes.resize(70_000, b'x');
    let transcript = run(machine(), allow_all, &[(Side::Client, &bytes)], |len| len);
    assert_eq!(transcript.fault.map(|fault| fault.kind), Some(FaultKind::Malformed));
    assert!(transcript.to_backend.is_empty());
}
