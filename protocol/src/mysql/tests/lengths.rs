//! Every command at every length, in every state; any bytes at all.

use super::*;
use crate::testing::{Random, run};
use crate::{FaultKind, Machine};

/// Least and greatest body a command allows, by the specification and our bounds. `None` for unknown ones.
fn rule(code: u8) -> Option<(usize, usize)> {
    Some(match code {
        0x01 | 0x09 | 0x0a | 0x0d | 0x0e | 0x1f => (1, 1),
        0x07 => (2, 2),
        0x08 => (1, 2),
        0x1b => (3, 3),
        0x0c | 0x19 | 0x1a => (5, 5),
        0x1c => (9, 9),
        0x02 | 0x05 | 0x06 => (1, 4096),
        0x04 => (2, 4096),
        0x12 | 0x15 | 0x1e => (11, 65_536),
        0x03 | 0x16 => (1, 1 << 20),
        0x17 => (10, 1 << 20),
        0x18 => (7, 1 << 20),
        _ => return None,
    })
}

/// A command of `body` bytes that is well-formed as far as its length lets it.
fn sample(code: u8, body: usize) -> Vec<u8> {
    let mut bytes = vec![if matches!(code, 0x02 | 0x05 | 0x06) { b'x' } else { 0 }; body];
    bytes[0] = code;
    if code == 0x17 && body > 6 {
        bytes[6] = 1;
    }
    packet(0, &bytes)
}

#[test]
fn every_length_of_every_command_keeps_to_its_rule() {
    for code in 0..=u8::MAX {
        if code == 0x11 {
            continue; // COM_CHANGE_USER has tests of its own.
        }
        for body in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 100, 4096, 4097, 65_536, 65_537, 1 << 20] {
            let transcript = run(machine(), allow_all, &[(Side::Client, &sample(code, body))], |len| len);
            let kind = transcript.fault.map(|fault| fault.kind);
            let what = format!("{code:#x} of {body}");
            match rule(code) {
                None if body == 1 << 20 => assert_eq!(kind, Some(FaultKind::TooLarge), "{what}"),
                None => assert_eq!((kind, transcript.to_backend.len()), (None, 0), "{what}"),
                Some(_) if body == 1 << 20 => assert!(kind.is_some(), "{what}"),
                Some((least, most)) if (least..=most).contains(&body) => {
                    assert_eq!((kind, transcript.to_backend.len()), (None, body + 4), "{what}");
                }
                Some(_) => {
                    assert!(matches!(kind, Some(FaultKind::Malformed | FaultKind::TooLarge)), "{what}: {kind:?}");
                    assert!(transcript.to_backend.is_empty() && transcript.questions.is_empty(), "{what}");
                }
            }
        }
    }
}

/// A state, by name, and how it is reached.
type Reached = (&'static str, Vec<(Side, Vec<u8>)>);

#[test]
fn every_command_in_every_state_waits_or_passes_but_for_a_wrong_sequence() {
    let states: [Reached; 4] = [
        ("idle", vec![]),
        ("asked", vec![(Side::Client, query("x"))]),
        ("columns", vec![(Side::Client, query("x")), (Side::Backend, packet(1, &[2]))]),
        ("rows", vec![(Side::Client, query("x")), (Side::Backend, [packet(1, &[1]), definition(2)].concat())]),
    ];
    for (state, script) in &states {
        for code in 0..=u8::MAX {
            for sequence in [0, 1, 255] {
                let mut driver = driver();
                for (side, bytes) in script {
                    driver.feed(*side, bytes);
                }
                let before = driver.transcript().to_backend.len();
                let mut bytes = sample(code, rule(code).map_or(1, |(least, _)| least));
                bytes[3] = sequence;
                driver.feed(Side::Client, &bytes);
                let transcript = driver.transcript();
                let grown = transcript.to_backend.len() - before;
                let what = format!("{state} {code:#x} {sequence}");
                if *state != "idle" {
                    assert_eq!((transcript.fault, grown), (None, 0), "{what}: one command at a time");
                } else if sequence != 0 {
                    assert_eq!(transcript.fault.map(|fault| fault.kind), Some(FaultKind::OutOfOrder), "{what}");
                    assert_eq!(grown, 0, "{what}");
                } else if rule(code).is_some() {
                    assert_eq!((transcript.fault, grown), (None, bytes.len()), "{what}");
                }
            }
        }
    }
}

#[test]
fn says_the_same_error_for_ever_and_nothing_else() {
    let mut machine = machine();
    machine.start(&mut crate::Outbox::default());
    let mut out = crate::Outbox::default();
    let first = machine_fault(&mut machine);
    for (side, bytes) in [(Side::Client, query("x")), (Side::Backend, ok(1)), (Side::Client, command(1, b""))] {
        assert_eq!(machine.handle(side, &bytes, &mut out).unwrap_err(), first);
    }
    assert!(out.client.is_empty() && out.backend.is_empty());
}

fn machine_fault(machine: &mut MysqlMachine) -> crate::Fault {
    let mut out = crate::Outbox::default();
    loop {
        match machine.handle(Side::Client, &packet(7, b"\x03x"), &mut out) {
            Err(fault) => return fault,
            Ok(step) => assert!(matches!(step, crate::Step::Note(_))),
        }
    }
}

#[test]
fn any_bytes_from_either_side_are_bounded_and_never_panic() {
    for seed in 0..3000 {
        let mut random = Random(seed);
        let flags = [EOF, OK, MARIADB, OK | capability::QUERY_ATTRIBUTES | capability::LOCAL_FILES][random.below(4)];
        let mut driver = driver_with(flags);
        let mut sequence = 0;
        for _ in 0..random.below(12) {
            let mut body = random.bytes(40);
            let side = if random.below(2) == 0 { Side::Client } else { Side::Backend };
            if side == Side::Client {
                sequence = 0;
                body.insert(0, [3, 3, 3, 0x16, 0x17, 0x18, 0x1c, 0x11, 4, 2, 0xfa][random.below(11)]);
            } else {
                sequence += 1;
                body.insert(0, [0, 0, 0xfe, 0xff, 0xfb, 1, 2][random.below(7)]);
            }
            let mut bytes = packet(sequence, &body);
            if random.below(10) == 0 {
                let at = random.below(bytes.len());
                bytes[at] = bytes[at].wrapping_add(1);
            }
            driver.feed(side, &bytes);
        }
        while driver.machine().take_unanswered().is_some() {}
    }
}
