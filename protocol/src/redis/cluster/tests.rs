//! The parts against values of a real server, and against slower ways to say the same.

use proptest::prelude::*;

use super::handling::Handling;
use super::*;
use crate::redis::CommandTable;

fn told_by() -> Address {
    Address { host: "10.0.0.1".into(), port: 6379 }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn range(first: u16, last: u16, host: &str, port: u16) -> String {
    let replica = format!("*4\r\n{}:1\r\n{}*0\r\n", bulk("replica"), bulk("id"));
    format!("*4\r\n:{first}\r\n:{last}\r\n*4\r\n{}:{port}\r\n{}*0\r\n{replica}", bulk(host), bulk("id"))
}

#[test]
fn slots_are_those_that_a_server_names() {
    // As CLUSTER KEYSLOT of Redis 7.0.15 answered.
    for (key, slot) in [
        ("foo", 12182),
        ("{user}.x", 5474),
        ("a{}b", 13694),
        ("a{b", 13340),
        ("123456789", 12739),
        ("", 0),
        ("{}{x}", 3257),
        ("x{y}{z}", 12222),
    ] {
        assert_eq!(Slot::of(key.as_bytes()).number(), slot, "{key:?}");
    }
}

#[test]
fn a_number_beyond_the_last_slot_is_none() {
    assert_eq!(Slot::parse(b"16383").map(Slot::number), Some(16_383));
    assert_eq!(Slot::parse(b"16384"), None);
    assert_eq!(Slot::parse(b"-1"), None);
}

#[test]
fn the_topology_is_read_in_the_order_of_the_slots_and_replicas_are_left_out() {
    let reply = format!(
        "*3\r\n{}{}{}",
        range(8192, 16_383, "b.example", 2),
        range(0, 4095, "", 1),
        range(4096, 8191, "b.example", 2)
    );
    let topology = Topology::from_slots(reply.as_bytes(), &told_by()).unwrap();
    let masters: Vec<_> = topology.masters().iter().map(Address::to_string).collect();
    assert_eq!(masters, ["10.0.0.1:1", "b.example:2"]);
    assert_eq!(topology.owner(Slot::new(4095).unwrap()).unwrap().port, 1);
    assert_eq!(topology.owner(Slot::new(4096).unwrap()).unwrap().port, 2);
}

#[test]
fn a_slot_without_an_owner_has_none_and_a_moved_one_its_new_one() {
    let reply = format!("*1\r\n{}", range(0, 9, "a", 1));
    let mut topology = Topology::from_slots(reply.as_bytes(), &told_by()).unwrap();
    let slot = Slot::new(10).unwrap();
    assert_eq!(topology.owner(slot), None);
    topology.moved(slot, Address { host: "c".into(), port: 3 });
    assert_eq!(topology.owner(slot).unwrap().to_string(), "c:3");
    assert_eq!(topology.masters().len(), 2);
}

#[test]
fn an_answer_that_is_no_topology_is_an_error() {
    for reply in ["*0\r\n", "-ERR This instance has cluster support disabled\r\n", ":1\r\n", "*1\r\n*2\r\n:0\r\n"] {
        assert!(Topology::from_slots(reply.as_bytes(), &told_by()).is_err(), "{reply}");
    }
    let reply = format!("*1\r\n{}", range(0, 16_384, "a", 1));
    assert_eq!(Topology::from_slots(reply.as_bytes(), &told_by()), Err(TopologyError::OutOfBounds));
    assert!(Topology::from_slots(b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:70000\r\n", &told_by()).is_err());
}

#[test]
fn redirects_are_read_with_and_without_a_host() {
    let to = |text: &str| Address::parse(text).unwrap();
    let slot = Slot::new(3999).unwrap();
    assert_eq!(Redirect::parse(b"MOVED 3999 127.0.0.1:6381"), Some(Redirect::Moved { slot, to: to("127.0.0.1:6381") }));
    assert_eq!(Redirect::parse(b"ASK 3999 ::1:6381"), Some(Redirect::Ask { to: to("[::1]:6381") }));
    let Some(Redirect::Moved { to, .. }) = Redirect::parse(b"MOVED 3999 :6381") else { panic!("a redirect") };
    assert_eq!(to.seen_from(&told_by()).to_string(), "10.0.0.1:6381");
    assert_eq!(Redirect::parse(b"TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirect::TryAgain));
    assert_eq!(Redirect::parse(b"CLUSTERDOWN Hash slot not served"), Some(Redirect::Down));
    for other in ["ERR no", "MOVED", "MOVED 16384 a:1", "MOVED 1 a", "MOVED 1 a:0", "MOVED 1 a:x", "MOVED 1 a\u{1}:7"] {
        assert_eq!(Redirect::parse(other.as_bytes()), None, "{other:?}");
    }
}

#[test]
fn a_command_of_one_slot_stays_whole() {
    assert_eq!(Split::Values.pieces(&[b"MGET", b"{a}1", b"{a}2"]), None);
    assert_eq!(Split::Pairs.pieces(&[b"MSET", b"a", b"1", b"b"]), None);
    assert_eq!(Split::Count.pieces(&[b"DEL"]), None);
}

#[test]
fn values_are_cut_into_neighbours_and_the_rest_into_slots() {
    let arguments: [&[u8]; 5] = [b"MGET", b"{a}1", b"{a}2", b"b", b"{a}3"];
    let pieces = Split::Values.pieces(&arguments).unwrap();
    assert_eq!(pieces.iter().map(|p| p.keys).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(pieces[0].command, b"*3\r\n$4\r\nMGET\r\n$4\r\n{a}1\r\n$4\r\n{a}2\r\n");
    let pieces = Split::Count.pieces(&arguments).unwrap();
    assert_eq!(pieces.iter().map(|p| p.keys).collect::<Vec<_>>(), [3, 1]);
    let pieces = Split::Pairs.pieces(&[b"MSET", b"a", b"1", b"b", b"2", b"a", b"3"]).unwrap();
    assert_eq!(pieces[0].command, b"*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n3\r\n");
}

#[test]
fn cursors_go_from_node_to_node_and_end_with_zero() {
    let mut seen = Vec::new();
    let mut packed = 0u64;
    loop {
        let cursor = Cursor::parse(packed.to_string().as_bytes()).unwrap();
        seen.push((cursor.place, cursor.inner));
        // Each node has a second page, at 96.
        let inner = if cursor.inner == 0 { 96 } else { 0 };
        packed = Cursor::next(cursor.place, inner, 3).unwrap();
        if packed == 0 {
            break;
        }
    }
    assert_eq!(seen, [(0, 0), (0, 96), (1, 0), (1, 96), (2, 0), (2, 96)]);
    assert_eq!(Cursor::next(0, u64::MAX, 3), None);
    assert_eq!(Cursor::next(PLACES_MAX, 1, 3), None);
    assert_eq!(Cursor::parse(b"+1"), None);
    assert_eq!(Cursor::parse(b"18446744073709551616"), None);
}

const PLACES_MAX: usize = cursor::PLACES_MAX;

fn merged(merge: Merge, replies: &[&str]) -> String {
    let parts: Vec<_> =
        replies.iter().enumerate().map(|(place, reply)| Part { place, reply: reply.as_bytes() }).collect();
    let mut out = Vec::new();
    merge.apply(&parts, false, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn replies_are_put_together_by_kind() {
    assert_eq!(merged(Merge::Same, &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
    assert_eq!(merged(Merge::Sum, &[":2\r\n", ":40\r\n"]), ":42\r\n");
    assert_eq!(merged(Merge::Least, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"]), "*2\r\n:0\r\n:1\r\n");
    assert_eq!(
        merged(Merge::Concat, &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\nb\r\n"]),
        "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    );
    assert_eq!(
        merged(Merge::SumByName, &["*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\na\r\n:2\r\n"]),
        "*2\r\n$1\r\na\r\n:3\r\n"
    );
    assert_eq!(
        merged(Merge::Entries, &["*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n", "*2\r\n$1\r\na\r\n$1\r\n3\r\n"]),
        "*6\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n3\r\n$1\r\nb\r\n$1\r\n2\r\n"
    );
    assert_eq!(
        merged(Merge::Sections, &["$2\r\nx\n\r\n", "=6\r\ntxt:y\n\r\n"]),
        bulk("# Node 0\r\nx\n\r\n# Node 1\r\ny\n\r\n")
    );
    assert_eq!(merged(Merge::Lines, &["$2\r\nx\n\r\n", "$2\r\ny\n\r\n"]), bulk("x\ny\n"));
    assert_eq!(merged(Merge::Any, &["-NOTBUSY No\r\n", "+OK\r\n"]), "+OK\r\n");
    assert_eq!(merged(Merge::Any, &[":1\r\n", "-ERR x\r\n", ":2\r\n"]), ":3\r\n");
    assert_eq!(merged(Merge::Any, &["-NOTBUSY a\r\n", "-NOTBUSY b\r\n"]), "-NOTBUSY a\r\n");
    assert_eq!(merged(Merge::Any, &["-NOTBUSY a\r\n"]), "-NOTBUSY a\r\n");
}

#[test]
fn the_first_error_is_the_reply() {
    for merge in [Merge::Same, Merge::Sum, Merge::Concat, Merge::Sections] {
        assert_eq!(merged(merge, &["+OK\r\n", "-ERR a\r\n", "-ERR b\r\n"]), "-ERR a\r\n");
    }
}

#[test]
fn a_reply_of_another_kind_is_broken_and_writes_nothing() {
    let mut out = Vec::new();
    for merge in [Merge::Sum, Merge::Least, Merge::Concat, Merge::SumByName, Merge::Entries, Merge::Sections] {
        let reply = if merge == Merge::Sections { b"*0\r\n".as_slice() } else { b"+x\r\n" };
        assert!(merge.apply(&[Part { place: 0, reply }], false, &mut out).is_err(), "{merge:?}");
        assert!(out.is_empty());
    }
}

#[test]
fn the_gateway_is_the_one_node_and_owns_every_slot() {
    let gateway = Gateway { id: "a".repeat(40), host: "gw.example".into(), port: 6380, tls: true, resp3: false };
    let mut out = Vec::new();
    gateway.slots(&mut out);
    let topology = Topology::from_slots(&out, &told_by()).unwrap();
    for slot in [0, 8000, 16_383] {
        assert_eq!(topology.owner(Slot::new(slot).unwrap()).unwrap().to_string(), "gw.example:6380");
    }
    let whole = |resp3: bool, write: &dyn Fn(&Gateway, &mut Vec<u8>)| {
        let (gateway, mut out) = (Gateway { resp3, ..gateway.clone() }, Vec::new());
        write(&gateway, &mut out);
        let mut walk = Walk::over(1);
        assert_eq!(walk.advance(&out).unwrap(), out.len());
        assert!(walk.is_done());
        String::from_utf8(out).unwrap()
    };
    for resp3 in [false, true] {
        let shards = whole(resp3, &|gateway, out| gateway.shards(out));
        assert!(shards.contains("$8\r\ntls-port\r\n:6380\r\n"), "{shards}");
        let nodes = whole(resp3, &|gateway, out| gateway.nodes(out));
        assert!(nodes.contains(" gw.example:6380@6380 myself,master - 0 0 1 connected 0-16383\n"), "{nodes}");
        let info = whole(resp3, &|gateway, out| {
            gateway.info(b"cluster_state:fail\r\ncluster_known_nodes:6\r\ncluster_stats_messages_sent:9\r\n", out);
        });
        assert!(info.contains("cluster_state:fail\r\ncluster_known_nodes:1\r\n") && !info.contains("stats"), "{info}");
    }
}

#[test]
fn what_is_not_named_goes_to_the_owner_of_its_keys() {
    assert_eq!(Handling::of("GET"), Handling::Keyed);
    assert_eq!(Handling::of("SCRIPT|LOAD"), Handling::Everywhere(Merge::Same));
    assert_eq!(Handling::of("CLUSTER|MEET"), Handling::Refused);
    assert_eq!(Handling::of("CLUSTER"), Handling::Refused);
    assert_eq!(Handling::of("MODULE|LOAD"), Handling::Refused);
    assert_eq!(Handling::of("MODULE|LIST"), Handling::Keyed);
    assert!(!Handling::of("KEYS").fits_transaction());
}

#[test]
fn what_is_no_reply_is_broken() {
    for bytes in ["x\r\n", "$x\r\n", "$-2\r\n", "*?\r\n", "*4294967296\r\n", "$9999999999999\r\n", "+a\n", "$1\r\n"] {
        let whole = Values::new(bytes.as_bytes()).take();
        assert!(whole.is_err(), "{bytes:?}");
    }
    assert!(token(&[b'+'; reply::LINE_BYTES_MAX]).is_err());
    assert_eq!(token(&[b'+'; reply::LINE_BYTES_MAX - 1]), Ok(None));
    let mut walk = Walk::over(u64::MAX);
    assert!(walk.advance(b"*2\r\n*2\r\n").is_err());
}

fn written(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    split::write_head(&mut out, words.len());
    words.iter().for_each(|word| split::write_argument(&mut out, word));
    out
}

/// The slot that a command is sent to, `Err` where it cannot be told.
fn slot_of(line: &str) -> Result<Option<Slot>, crate::redis::Untold> {
    let bytes = written(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    let table = CommandTable::default();
    let mut scan = Scan::default();
    assert_eq!(scan.advance(&bytes), Ok(Some(bytes.len())));
    scan.request(&bytes, &table).expect("a command").slot()
}

#[test]
fn a_command_goes_where_its_first_key_belongs() {
    let foo = Ok(Some(Slot::of(b"foo")));
    for line in [
        "get foo",
        "SET foo bar",
        "EVAL return 2 foo bar",
        "XREAD COUNT 1 STREAMS foo 0",
        "ZUNION 2 foo bar",
        "SORT foo BY w_*",
        "SORT_RO foo",
        "BITOP AND foo bar",
        "OBJECT ENCODING foo",
        "MEMORY USAGE foo",
        "SPUBLISH foo message",
        "BLPOP foo bar 0",
        "MIGRATE host 1 foo 0 1",
    ] {
        assert_eq!(slot_of(line), foo, "{line}");
    }
    for line in ["PING", "EVAL return 0", "TIME", "PUBLISH foo message", "GET", "EVAL return x"] {
        assert_eq!(slot_of(line), Ok(None), "{line}");
    }
    assert!(slot_of("UNHEARD foo").is_err());
}

#[test]
fn the_front_of_a_long_command_is_enough_to_route_it() {
    let bytes = written(&[b"set", b"foo", &[b'x'; 1000]]);
    let table = CommandTable::default();
    let mut scan = Scan::default();
    assert_eq!(scan.advance(&bytes[..100]), Ok(None));
    let request = scan.request(&bytes[..100], &table).expect("its name is there");
    assert_eq!((request.name(), request.slot()), ("SET", Ok(Some(Slot::of(b"foo")))));
    assert!(request.writes() && !request.only_reads() && !request.blocks());
    // A script whose keys are still to come cannot be routed yet.
    let bytes = written(&[b"EVAL", &[b' '; 1000], b"1", b"foo"]);
    let mut scan = Scan::default();
    assert_eq!(scan.advance(&bytes[..100]), Ok(None));
    assert!(scan.request(&bytes[..100], &table).expect("its name is there").slot().is_err());
}

#[test]
fn what_is_no_command_is_broken() {
    for bytes in ["GET a\r\n", "*0\r\n", "*-1\r\n", "*1\r\n+GET\r\n", "*1\r\n$-1\r\n", "*99999999999\r\n"] {
        assert!(Scan::default().advance(bytes.as_bytes()).is_err(), "{bytes:?}");
    }
}

/// Any reply, by its bytes.
fn any_reply() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        "[a-z ]{0,9}".prop_map(|s| format!("+{s}\r\n").into_bytes()),
        "[A-Z]{1,9}".prop_map(|s| format!("-{s}\r\n").into_bytes()),
        any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
        Just(b"$-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|body| {
            let mut out = format!("${}\r\n", body.len()).into_bytes();
            out.extend_from_slice(&body);
            out.extend_from_slice(b"\r\n");
            out
        }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        (proptest::collection::vec(inner, 0..6), 0..5u8).prop_map(|(values, kind)| {
            let pairs = values.len() / 2;
            let (head, taken) = match kind {
                0 => (format!("%{pairs}\r\n"), pairs * 2),
                // An attribute of nothing but the value behind it.
                1 if pairs > 0 && values.len() % 2 == 1 => (format!("|{pairs}\r\n"), values.len()),
                2 => (format!("~{}\r\n", values.len()), values.len()),
                _ => (format!("*{}\r\n", values.len()), values.len()),
            };
            let mut out = head.into_bytes();
            values.into_iter().take(taken).for_each(|value| out.extend_from_slice(&value));
            out
        })
    })
}

proptest! {
    #[test]
    fn a_command_ends_where_it_ends_however_it_is_cut(
        words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6),
        cut in 1..9usize,
    ) {
        let bytes = written(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut stream = bytes.clone();
        stream.extend_from_slice(b"*1\r\n");
        let (mut scan, mut offered) = (Scan::default(), 0);
        let end = loop {
            offered = (offered + cut).min(stream.len());
            if let Some(end) = scan.advance(&stream[..offered]).unwrap() {
                break end;
            }
        };
        prop_assert_eq!(end, bytes.len());
        let table = CommandTable::default();
        let request = scan.request(&stream, &table).unwrap();
        prop_assert_eq!(request.count(), words.len());
        for (at, word) in words.iter().enumerate() {
            prop_assert_eq!(request.argument(at), Some(word.as_slice()));
        }
    }

    #[test]
    fn a_reply_ends_where_it_ends_however_it_is_cut(
        reply in any_reply(),
        behind in proptest::collection::vec(any::<u8>(), 0..8),
        cut in 1..9usize,
    ) {
        let mut stream = reply.clone();
        stream.extend_from_slice(&behind);
        let mut walk = Walk::over(1);
        let (mut at, mut offered) = (0, 0);
        while !walk.is_done() {
            offered = (offered + cut).min(reply.len());
            at += walk.advance(&stream[at..offered]).unwrap();
        }
        prop_assert_eq!(at, reply.len());
        let mut walk = Walk::over(1);
        prop_assert_eq!(walk.advance(&stream).unwrap(), reply.len());
    }

    #[test]
    fn any_bytes_at_all_are_walked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut walk = Walk::over(1);
        let _ = walk.advance(&bytes);
        let mut values = Values::new(&bytes);
        while values.take().is_ok() {}
        let _ = Topology::from_slots(&bytes, &told_by());
        let _ = Redirect::parse(&bytes);
        let _ = Cursor::parse(&bytes);
        let _ = Scan::default().advance(&bytes);
    }

    #[test]
    fn pieces_hold_every_argument_once_and_one_slot_each(
        keys in proptest::collection::vec("[a-d{}]{1,4}", 1..12),
        kind in 0..3usize,
    ) {
        let split = [Split::Values, Split::Pairs, Split::Count][kind];
        let mut arguments: Vec<&[u8]> = vec![b"X"];
        for key in &keys {
            arguments.push(key.as_bytes());
            if split == Split::Pairs {
                arguments.push(b"v");
            }
        }
        let slots: std::collections::BTreeSet<_> = keys.iter().map(|key| Slot::of(key.as_bytes())).collect();
        match split.pieces(&arguments) {
            None => prop_assert_eq!(slots.len(), 1),
            Some(pieces) => {
                prop_assert!(slots.len() > 1);
                prop_assert_eq!(pieces.iter().map(|p| p.keys).sum::<u64>(), keys.len() as u64);
                let mut found = Vec::new();
                for piece in &pieces {
                    let mut values = Values::new(&piece.command);
                    let count = values.aggregate().unwrap();
                    prop_assert_eq!(values.take().unwrap(), Value::Text(b"X"));
                    for at in 1..count {
                        let Value::Text(text) = values.take().unwrap() else { panic!("an argument") };
                        if split != Split::Pairs || at % 2 == 1 {
                            prop_assert_eq!(Slot::of(text), piece.slot);
                            found.push(String::from_utf8(text.to_vec()).unwrap());
                        }
                    }
                    prop_assert!(values.rest().is_empty());
                }
                let mut expected = keys.clone();
                if split != Split::Values {
                    expected.sort();
                    found.sort();
                }
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_packed(place in 0..1000usize, inner in 1..(1u64 << 53)) {
        let packed = Cursor::next(place, inner, 1000).unwrap();
        prop_assert_eq!(Cursor::parse(packed.to_string().as_bytes()), Some(Cursor { place, inner }));
    }
}
