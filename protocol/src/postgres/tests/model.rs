//! Random pipelines with refused statements in them, against a model of the server: the client must see
//! what a server would have said that refuses them itself.

use proptest::prelude::*;

use super::*;
use crate::Operation;
use crate::testing::{Driver, REFUSAL};

/// A server reduced to what pairs answers with messages.
#[derive(Default)]
struct Model {
    skipping: bool,
}

impl Model {
    /// Answers whole frames as PostgreSQL's main loop does, refusing by itself what `no_bad` refuses.
    fn answer(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(length) = bytes.get(1..5) {
            let len = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let (one, rest) = bytes.split_at(len);
            bytes = rest;
            if one[0] == b'S' {
                self.skipping = false;
                out.extend(ready(b'I'));
            } else if !self.skipping {
                self.one(one[0], &one[5..], &mut out);
            }
        }
        assert!(bytes.is_empty(), "a frame was cut");
        out
    }

    fn one(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        let mentions = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
        let fails = if mentions(b"ringgate") {
            Some(error("ERROR", "42601", "a stand-in"))
        } else if mentions(b"bad") {
            let mut ours = Vec::new();
            super::super::error::error(&REFUSAL, &mut ours);
            Some(ours)
        } else if mentions(b"fail") {
            Some(error("ERROR", "22012", "their own"))
        } else {
            None
        };
        let is_simple = matches!(tag, b'Q' | b'F');
        match (fails, tag) {
            (_, b'H') => {}
            (Some(error), _) => {
                out.extend(error);
                self.skipping = !is_simple;
            }
            (None, b'Q') => out.extend([frame(b'T', b"\0\0"), complete("SELECT 1")].concat()),
            (None, b'F') => out.extend(frame(b'V', &[0xff; 4])),
            (None, b'P') => out.extend(frame(b'1', b"")),
            (None, b'B') => out.extend(frame(b'2', b"")),
            (None, b'D') if body[0] == b'S' => out.extend([frame(b't', b"\0\0"), frame(b'n', b"")].concat()),
            (None, b'D') => out.extend(frame(b'n', b"")),
            (None, b'E') => out.extend([frame(b'D', b"\0\0"), complete("SELECT 1")].concat()),
            (None, b'C') => out.extend(frame(b'3', b"")),
            (None, other) => panic!("the model was sent {:?}", char::from(other)),
        }
        if is_simple {
            out.extend(ready(b'I'));
        }
    }
}

fn no_bad(operation: &Operation<'_>) -> bool {
    let bad = |bytes: &[u8]| bytes.windows(3).any(|window| window == b"bad");
    // Bind and Execute resolve texts that were not refused, so only their own names can be bad.
    let own = matches!(operation.verb, crate::Verb::Query | crate::Verb::Parse) && bad(operation.text.head);
    !own && !bad(operation.statement) && !bad(operation.portal)
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![4 => Just("good"), 1 => Just("bad"), 1 => Just("fail")];
    (0..12, word).prop_map(|(kind, word)| match kind {
        0 => query(word),
        1 | 2 => parse("", word),
        3 => parse(word, "text"),
        4 => bind("", ""),
        5 => bind("p", word),
        6 | 7 => execute(if word == "good" { "" } else { word }),
        8 => describe("P"),
        9 => close(&format!("S{word}")),
        10 => frame(b'H', b""),
        _ => sync(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_cannot_tell_our_refusals_from_the_servers_own(
        messages in prop::collection::vec(message(), 1..40),
        batch in 1_usize..40,
    ) {
        let mut messages = messages;
        messages.push(sync());
        let expected = Model::default().answer(&messages.concat());

        let mut driver = Driver::new(machine(), no_bad);
        driver.feed(Side::Backend, &ready(b'I'));
        let before = driver.transcript().to_client.len();
        let mut server = Model::default();
        let mut read = 0;
        for some in messages.chunks(batch) {
            driver.feed(Side::Client, &some.concat());
            // Answers may let go of messages that were held back, which are then answered too.
            loop {
                let sent = driver.transcript().to_backend[read..].to_vec();
                if sent.is_empty() {
                    break;
                }
                read += sent.len();
                driver.feed(Side::Backend, &server.answer(&sent));
            }
        }
        let allowed = driver.transcript().questions.clone();
        let transcript = driver.transcript();
        prop_assert_eq!(transcript.fault, None);
        prop_assert_eq!(transcript.left, (0, 0));
        prop_assert!(transcript.to_client[before..] == expected,
            "{}\nexpected {}", transcript.to_client[before..].escape_ascii(), expected.escape_ascii());

        // Every statement that was allowed and owes an outcome has exactly one.
        let mut owed = Vec::new();
        for (number, question) in (1..).zip(&allowed) {
            let refused = question.contains("[98, 97, 100]");
            if question.contains("has_outcome: true") && !refused {
                owed.push(number);
            }
        }
        let mut answered: Vec<i32> = transcript.notes.iter()
            .filter_map(|note| note.split_once(' ')?.0.parse().ok())
            .collect();
        answered.retain(|number| allowed[usize::try_from(*number).unwrap() - 1].contains("has_outcome: true"));
        prop_assert_eq!(answered, owed);
        prop_assert_eq!(driver.machine().outstanding(), 0);
        prop_assert!(driver.machine().is_idle());
    }
}

use crate::Machine as _;
