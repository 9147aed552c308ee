//! Values of executes.

use proptest::prelude::*;

use super::super::parameters::{self, Bound, Value};
use super::*;

fn bound<'a>(types: &'a [u8], nulls: &'a [u8], values: &'a [u8]) -> Bound<'a> {
    let count = u16::try_from(types.len() / 2).unwrap();
    Bound { count, types, nulls, values, ..Bound::default() }
}

fn words(bound: &Bound<'_>) -> Vec<String> {
    bound.values().map(|value| value.to_string()).collect()
}

#[test]
fn every_type_is_read_in_its_own_encoding() {
    let cases: [(u8, u8, &[u8], &str); 24] = [
        (1, 0, &[0xff], "-1"),
        (1, 0x80, &[0xff], "255"),
        (2, 0, &[0, 0x80], "-32768"),
        (13, 0x80, &[0xe8, 7], "2024"),
        (3, 0, &[0xff, 0xff, 0xff, 0xff], "-1"),
        (9, 0, &[5, 0, 0, 0], "5"),
        (8, 0, &[0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808"),
        (8, 0x80, &[0xff; 8], "18446744073709551615"),
        (4, 0, &[0, 0, 0xc0, 0x3f], "1.5"),
        (5, 0, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], "1.5"),
        (6, 0, b"", "NULL"),
        (10, 0, &[4, 0xe8, 7, 2, 29], "2024-02-29"),
        (12, 0, &[7, 0xe8, 7, 2, 29, 1, 2, 3], "2024-02-29 01:02:03"),
        (7, 0, &[11, 0xe8, 7, 2, 29, 1, 2, 3, 1, 0, 0, 0], "2024-02-29 01:02:03.000001"),
        (12, 0, &[0], "0000-00-00"),
        (11, 0, &[0], "00:00:00"),
        (11, 0, &[8, 1, 2, 0, 0, 0, 3, 4, 5], "-51:04:05"),
        (11, 0, &[12, 0, 0, 0, 0, 0, 3, 4, 5, 64, 66, 15, 0], "03:04:05.1000000"),
        (0xfd, 0, b"\x03abc", "abc"),
        (0xf6, 0, b"\x041.50", "1.50"),
        (0xf5, 0, b"\x02{}", "{}"),
        (0xfc, 0, b"\x01x", "x"),
        (0xfe, 0, b"\xfc\x02\0hi", "hi"),
        (16, 0, b"\x01\x05", "\u{5}"),
    ];
    for (kind, sign, value, expected) in cases {
        // Two in a row, so that a wrong length shows.
        let types = [kind, sign, 1, 0];
        let values = [value, &[42]].concat();
        assert_eq!(words(&bound(&types, &[0], &values)), [expected, "42"], "type {kind:#x}");
        // And every cut of it is no value at all, and no panic.
        for len in 0..value.len() {
            assert!(words(&bound(&types, &[0], &value[..len])).len() < 2, "type {kind:#x} cut at {len}");
        }
    }
}

#[test]
fn null_and_long_values_take_no_bytes() {
    let types = [1, 0, 0xfd, 0, 0xfd, 0, 1, 0];
    let all = Bound { long: &[1], ..bound(&types, &[0b0100], &[7, 8]) };
    let values: Vec<Value<'_>> = all.values().collect();
    assert_eq!(values, [Value::Int(7), Value::Long, Value::Null, Value::Int(8)]);
}

#[test]
fn a_bulk_is_read_row_by_row_with_its_indicators() {
    let types = [1, 0, 0xfd, 0];
    let values = b"\0\x01\0\x01a\0\x02\x01\0\x03\x02\0\x04\x03";
    let bulk = Bound { bulk: true, ..bound(&types, &[], values) };
    assert_eq!(words(&bulk), ["1", "a", "2", "NULL", "3", "DEFAULT", "4", "IGNORE"]);
}

#[test]
fn attributes_of_a_query_stand_before_its_text() {
    let flags = OK | capability::QUERY_ATTRIBUTES;
    let attributes = [&b"\x02\x01\x02\x01\xfd\0\x04name\x03\0\0"[..], b"\x05value"].concat();
    let with = [&attributes[..], b"select 1"].concat();
    let script = [(Side::Client, &command(3, &with)[..])];
    let transcript = crate::testing::check_splits(|| machine_with(flags), allow_all, &script);
    assert!(transcript.questions[0].contains(&format!("head: {:?}", b"select 1")), "{}", transcript.questions[0]);
    let without =
        crate::testing::run(machine_with(flags), allow_all, &[(Side::Client, &command(3, b"\0\x01select 2"))], |len| {
            len
        });
    assert!(without.questions[0].contains(&format!("head: {:?}", b"select 2")));
    for bad in [&b"\x01\x02select"[..], b"\x01\x01\0\x00select", b"\xfbselect", b"\x01\x01\0\x01\xfd\0\x40", b""] {
        let transcript =
            crate::testing::run(machine_with(flags), allow_all, &[(Side::Client, &command(3, bad))], |len| len);
        assert_eq!(transcript.fault.map(|fault| fault.kind), Some(crate::FaultKind::Malformed), "{bad:?}");
        assert!(transcript.questions.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_values_or_none(
        types in prop::collection::vec(any::<u8>(), 0..20), nulls in prop::collection::vec(any::<u8>(), 0..3),
        values in prop::collection::vec(any::<u8>(), 0..80), bulk in any::<bool>(), flags in any::<u16>(),
        count in 0..40_u16,
    ) {
        let all = Bound { bulk, count, ..bound(&types, &nulls, &values) };
        prop_assert!(all.values().count() <= values.len() + usize::from(count));
        for attributes in [true, false] {
            if let Some(parts) = parameters::execute(&values, flags, count, attributes) {
                prop_assert!(parts.values.len() <= values.len());
            }
        }
        let _ = parameters::bulk(&values, flags, count);
    }
}
