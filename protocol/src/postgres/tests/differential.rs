//! Our reading of a database's stream against that of `postgres-protocol`.

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use proptest::prelude::*;

use super::*;
use crate::testing::{Driver, allow_all};

/// The frames of `bytes` as the other decoder sees them: lengths, and what it makes of tags.
fn reference(bytes: &[u8]) -> (Vec<usize>, Vec<String>) {
    let mut buffer = BytesMut::from(bytes);
    let (mut lengths, mut tags) = (Vec::new(), Vec::new());
    loop {
        let before = buffer.len();
        match Message::parse(&mut buffer).unwrap() {
            None => return (lengths, tags),
            Some(Message::CommandComplete(body)) => tags.push(body.tag().unwrap().to_owned()),
            Some(_) => {}
        }
        lengths.push(before - buffer.len());
    }
}

/// One answer to one Query: columns, rows, tag.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let rows = prop::collection::vec(value, 0..8);
    (rows, 0_u32..1000, 0..4).prop_map(|(rows, count, kind)| match kind {
        0 => [frame(b'I', b""), ready(b'I')].concat(),
        1 => [error("ERROR", "22012", "division by zero"), ready(b'I')].concat(),
        2 => [complete(&format!("UPDATE {count}")), ready(b'I')].concat(),
        _ => {
            let mut bytes = frame(b'T', b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
            for row in &rows {
                let mut body = vec![0, 1];
                body.extend_from_slice(&u32::try_from(row.len()).unwrap().to_be_bytes());
                body.extend_from_slice(row);
                bytes.extend(frame(b'D', &body));
            }
            bytes.extend(complete(&format!("SELECT {count}")));
            bytes.extend(ready(b'I'));
            bytes
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_has_the_same_borders_and_tags_for_both(answers in prop::collection::vec(answer(), 1..8)) {
        let (lengths, tags) = reference(&answers.concat());
        let mut driver = Driver::new(machine(), allow_all);
        driver.feed(Side::Backend, &ready(b'I'));
        let before = driver.transcript().to_client.len();
        driver.feed(Side::Client, &query("x").repeat(answers.len()));
        driver.feed(Side::Backend, &answers.concat());
        let transcript = driver.transcript();
        prop_assert_eq!(transcript.fault, None);
        prop_assert_eq!(transcript.to_client.len() - before, lengths.iter().sum::<usize>());
        let ours: Vec<&str> = transcript.notes.iter()
            .filter_map(|note| Some(note.split_once(" tag ")?.1.split_once(" copied")?.0))
            .filter(|tag| !tag.is_empty())
            .collect();
        prop_assert_eq!(ours, tags.iter().map(String::as_str).collect::<Vec<_>>());
        for (tag, note) in tags.iter().zip(transcript.notes.iter().filter(|note| note.contains("rows Some"))) {
            let rows = format!("rows Some({})", tag.rsplit_once(' ').unwrap().1);
            prop_assert!(note.contains(&rows), "{} {}", note, rows);
        }
    }

    #[test]
    fn every_cut_of_a_message_is_incomplete_for_both(answer in answer(), cut in any::<prop::sample::Index>()) {
        let end = cut.index(answer.len());
        let (lengths, _) = reference(&answer[..end]);
        let mut driver = Driver::new(machine(), allow_all);
        driver.feed(Side::Backend, &ready(b'I'));
        driver.feed(Side::Client, &query("x"));
        let before = driver.transcript().to_client.len();
        driver.feed(Side::Backend, &answer[..end]);
        // We pass rows as they arrive; never less than the whole messages, never more than there was.
        let grown = driver.transcript().to_client.len() - before;
        prop_assert!(grown >= lengths.iter().sum::<usize>() && grown <= end);
    }
}
