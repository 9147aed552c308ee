//! The reply scanner against another implementation, and any bytes at all.

use proptest::prelude::*;

use super::super::reply::{Garbled, Progress};
use super::{machine, pipeline, ruler};
use crate::Side;
use crate::testing::{Random, check_splits};

/// A well-formed RESP3 reply without streamed types.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        "[a-zA-Z ]{0,12}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        "[A-Z]{1,6} [a-z]{0,8}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| {
            let mut out = format!("${}\r\n", body.len()).into_bytes();
            out.extend_from_slice(&body);
            out.extend_from_slice(b"\r\n");
            out
        }),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        Just(b",1.5\r\n".to_vec()),
        Just(b"(123456789012345678901234567890\r\n".to_vec()),
        Just(b"=7\r\ntxt:abc\r\n".to_vec()),
        Just(b"!5\r\nERR x\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| aggregate('*', items.len(), &items)),
            prop::collection::vec(inner, 0..3).prop_map(|items| {
                // Keys that are told apart.
                let pairs: Vec<Vec<u8>> = items
                    .iter()
                    .enumerate()
                    .map(|(n, item)| [format!("+k{n}\r\n").as_bytes(), item].concat())
                    .collect();
                aggregate('%', items.len(), &pairs)
            }),
        ]
    })
}

fn aggregate(kind: char, count: usize, items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("{kind}{count}\r\n").into_bytes();
    out.extend(items.iter().flatten());
    out
}

/// The length of the reply at the front, by our scanner.
fn ours(input: &[u8]) -> Result<Option<u64>, Garbled> {
    let mut progress = Progress { left: 1, ..Progress::default() };
    let len = progress.read_on(input)?;
    Ok((progress.left == 0 && len <= input.len() as u64).then_some(len))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn replies_end_where_another_decoder_ends_them(reply in reply(), tail in prop::collection::vec(any::<u8>(), 0..8)) {
        let input = [&reply[..], &tail].concat();
        let theirs = redis_protocol::resp3::decode::complete::decode(&input);
        let (_, len) = theirs.expect("well-formed").expect("whole");
        prop_assert_eq!(ours(&input), Ok(Some(len as u64)));
        for end in 0..reply.len() {
            prop_assert_eq!(ours(&input[..end]), Ok(None));
        }
    }

    #[test]
    fn any_bytes_of_either_side_are_the_same_however_cut(seed in any::<u64>()) {
        let mut random = Random(seed);
        let sent = pipeline(&["GET a", "SET no 1", "SUBSCRIBE a b", "MULTI", "GET b", "EXEC", "HELLO 3", "MONITOR"]);
        let pieces: [&[u8]; 14] = [
            b"+OK\r\n", b"-ERR x\r\n", b"$1\r\nv\r\n", b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", b">2\r\n+x\r\n:1\r\n",
            b"*-1\r\n", b"%1\r\n+a\r\n:1\r\n", b"+QUEUED\r\n", b"$-1\r\n", b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n", b"_\r\n", b"\r\n",
            b"+1700000000.1 [0 x]\r\n", b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
        ];
        let replies: Vec<u8> = (0..12).flat_map(|_| pieces[random.below(pieces.len())].iter().copied()).collect();
        check_splits(machine, ruler, &[(Side::Client, &sent), (Side::Backend, &replies)]);
        let heads: [&[u8]; 10] = [b"*1\r\n", b"*2\r\n", b"$3\r\nGET\r\n", b"$1\r\nk\r\n", b"\r\n", b"PING\r\n", b"$2\r\nno\r\n", b"*0\r\n", b"x 'y' \"z\\x41\"\r\n", b"*"];
        let commands: Vec<u8> = (0..10).flat_map(|_| heads[random.below(heads.len())].iter().copied()).collect();
        check_splits(machine, ruler, &[(Side::Client, &commands)]);
    }
}
