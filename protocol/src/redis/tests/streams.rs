//! Values longer than any buffer pass without being held.

use super::{machine, pipeline};
use crate::testing::{Driver, allow_all};
use crate::{Machine, Outbox, Resumed, Ruling, Side, Step, Ticket};

#[test]
fn a_huge_value_is_ruled_on_by_its_front() {
    let mut machine = machine();
    let front = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
    let mut out = Outbox::default();
    assert!(matches!(machine.handle(Side::Client, front, &mut out), Ok(Step::Note(crate::Note::Ready))));
    let asked = machine.handle(Side::Client, front, &mut out);
    let Ok(Step::Ask(operation)) = asked else { unreachable!("{asked:?}") };
    let command = super::command_of(&operation);
    assert_eq!((command.name(), command.arguments(), command.argument_bytes()), ("SET", 2, 536_870_913));
    assert!(command.is_cut());
    let keys: Vec<_> = command.keys().collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].map(|key| key.bytes), Ok(&b"k"[..]));
    let resumed = machine.resume(Ruling::Allow(Ticket::default()));
    assert_eq!(resumed, Resumed::Forward { len: front.len() as u64 + 536_870_912 + 2 });
    let passed = machine.handle(Side::Backend, b"$536870912\r\n", &mut out);
    assert!(matches!(passed, Ok(Step::Forward { len }) if len == 12 + 536_870_912), "{passed:?}");
    assert!(!machine.is_idle(), "the reply has not ended");
    assert!(matches!(machine.handle(Side::Backend, b"\r\n", &mut out), Ok(Step::Note(_))));
    assert!(matches!(machine.handle(Side::Backend, b"\r\n", &mut out), Ok(Step::Forward { len: 2 })));
}

#[test]
fn keys_beyond_what_is_looked_at_cannot_be_told() {
    let long = "x".repeat(100_000);
    let sent = pipeline(&[&format!("MSET a {long} b 1"), "GET a"]);
    let mut driver = Driver::new(machine(), |operation| super::command_of(operation).keys().all(|key| key.is_ok()));
    driver.feed(Side::Client, &sent);
    assert!(driver.transcript().to_client.starts_with(b"-NOPERM"));
    assert_eq!(driver.transcript().to_backend, pipeline(&["GET a"]));
}

#[test]
fn ten_thousand_commands_are_ten_thousand_outcomes() {
    let sent = pipeline(&["GET a"; 10_000]);
    let mut driver = Driver::new(machine(), allow_all);
    driver.feed(Side::Client, &sent);
    assert_eq!(driver.machine().outstanding(), 10_000);
    driver.feed(Side::Backend, &b"$1\r\nv\r\n".repeat(10_000));
    assert_eq!(driver.transcript().notes.len(), 10_001);
    assert!(driver.machine().is_idle());
}
