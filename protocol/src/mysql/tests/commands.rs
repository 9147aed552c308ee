//! What is asked about each command, and what is kept of prepared statements.

use super::*;
use crate::Machine;
use crate::testing::run;

fn asked(bytes: &[u8]) -> Vec<String> {
    run(machine(), allow_all, &[(Side::Client, bytes)], |len| len).questions
}

#[test]
fn every_command_is_asked_about_with_its_class() {
    let cases: [(&str, Vec<u8>, &str, &str); 18] = [
        ("query", query("x"), "Query", "Query"),
        ("init db", command(2, b"x"), "Mysql(InitDb)", "Query"),
        ("field list", command(4, b"t\0"), "Mysql(FieldList)", "Query"),
        ("create", command(5, b"x"), "Mysql(CreateDb)", "Admin"),
        ("drop", command(6, b"x"), "Mysql(DropDb)", "Admin"),
        ("refresh", command(7, &[4]), "Mysql(Refresh { what: 4 })", "Admin"),
        ("shutdown", command(8, b""), "Mysql(Shutdown)", "Admin"),
        ("statistics", command(9, b""), "Mysql(Statistics)", "Query"),
        ("processes", command(0x0a, b""), "Mysql(ProcessInfo)", "Query"),
        ("kill", command(0x0c, &[9, 0, 0, 0]), "Mysql(ProcessKill { process: 9 })", "Admin"),
        ("debug", command(0x0d, b""), "Mysql(Debug)", "Admin"),
        ("binlog", command(0x12, &[0; 10]), "Mysql(BinlogDump)", "Replication"),
        ("binlog gtid", command(0x1e, &[0; 22]), "Mysql(BinlogDump)", "Replication"),
        ("replica", command(0x15, &[0; 17]), "Mysql(RegisterReplica)", "Replication"),
        ("prepare", command(0x16, b"x"), "Mysql(Prepare)", "Prepared"),
        (
            "long data",
            command(0x18, &[1, 0, 0, 0, 2, 0, 7, 7, 7]),
            "Mysql(SendLongData { statement: 1, parameter: 2, bytes: 3 })",
            "Prepared",
        ),
        ("close", command(0x19, &[1, 0, 0, 0]), "Mysql(Close { statement: 1 })", "Prepared"),
        ("fetch", command(0x1c, &[1, 0, 0, 0, 5, 0, 0, 0]), "Mysql(Fetch { statement: 1, rows: 5 })", "Prepared"),
    ];
    for (what, bytes, verb, class) in cases {
        let questions = asked(&bytes);
        assert_eq!(questions.len(), 1, "{what}");
        assert!(questions[0].contains(&format!("verb: {verb}, class: {class}")), "{what}: {}", questions[0]);
    }
    for (what, bytes) in
        [("ping", command(0x0e, b"")), ("option", command(0x1b, &[0, 0])), ("reset", command(0x1f, b""))]
    {
        assert!(asked(&bytes).is_empty(), "{what}");
    }
}

#[test]
fn the_session_is_announced_with_the_databases_id_before_its_first_command() {
    let transcript = run(machine(), allow_all, &[(Side::Client, &query("x"))], |len| len);
    assert_eq!(transcript.notes, ["BackendKey { pid: 77, secret: [] }", "Ready"]);
}

#[test]
fn says_goodbye_once_and_takes_nothing_after_it() {
    let bytes = [command(1, b""), query("x")].concat();
    let transcript = run(machine(), allow_all, &[(Side::Client, &bytes)], |len| len);
    assert_eq!(transcript.notes.last().unwrap(), "Goodbye");
    assert_eq!(transcript.to_backend, command(1, b""));
    assert_eq!(transcript.fault.map(|fault| fault.kind), Some(crate::FaultKind::OutOfOrder));
}

#[test]
fn is_idle_only_between_transactions() {
    let mut driver = driver();
    driver.feed(Side::Client, &query("begin"));
    assert!(!driver.machine().is_idle());
    assert_eq!(driver.machine().outstanding(), 1);
    driver.feed(Side::Backend, &ok_with(1, 0, 3));
    assert!(!driver.machine().is_idle(), "in a transaction");
    assert_eq!(driver.machine().outstanding(), 0);
    driver.feed(Side::Client, &query("commit"));
    driver.feed(Side::Backend, &ok(1));
    assert!(driver.machine().is_idle());
}

#[test]
fn gives_back_what_was_never_answered() {
    let mut driver = driver();
    driver.feed(Side::Client, &query("x"));
    assert_eq!(driver.machine().take_unanswered().map(|ticket| ticket.ei), Some(1));
    assert_eq!(driver.machine().take_unanswered(), None);
    driver.feed(Side::Client, &command(0x19, &[1, 0, 0, 0]));
    assert_eq!(driver.machine().take_unanswered(), None);
}

fn prepared(id: u8, parameters: u8) -> Vec<u8> {
    let mut bytes = packet(1, &[0, id, 0, 0, 0, 0, 0, parameters, 0, 0, 0, 0]);
    for at in 0..parameters {
        bytes.extend(definition(2 + at));
    }
    bytes
}

fn execute(id: u8) -> Vec<u8> {
    command(0x17, &[id, 0, 0, 0, 0, 1, 0, 0, 0])
}

#[test]
fn an_id_stands_for_its_text_until_it_is_closed() {
    let mut driver = driver();
    let mut step = |command: &[u8], reply: &[u8]| {
        driver.feed(Side::Client, command);
        driver.feed(Side::Backend, reply);
        assert_eq!(driver.transcript().fault, None);
        driver.transcript().questions.last().unwrap().clone()
    };
    let head = |text: &[u8]| format!("head: {text:?}");
    step(&command(0x16, b"first"), &prepared(1, 0));
    step(&command(0x16, b"second"), &prepared(2, 0));
    assert!(step(&execute(1), &ok(1)).contains(&head(b"first")));
    assert!(step(&execute(2), &ok(1)).contains(&head(b"second")));
    step(&command(0x16, b"wrong"), &error(1, 1064, "syntax"));
    assert!(step(&execute(1), &ok(1)).contains(&head(b"first")));
    step(&command(0x19, &[1, 0, 0, 0]), b"");
    assert!(step(&execute(1), &error(1, 1243, "unknown")).contains(&head(b"")));
    step(&command(0x1f, b""), &ok(1));
    assert!(step(&execute(2), &error(1, 1243, "unknown")).contains(&head(b"")));
}

#[test]
fn keeps_a_bounded_amount_of_text_and_never_the_wrong_one() {
    let mut statements = super::super::prepared::Statements::default();
    for id in 0..5000_u32 {
        let text = vec![b'a' + u8::try_from(id % 26).unwrap(); 4000];
        let statement = statements.begin(&text, 4000);
        statements.insert(id, 3, statement);
        statements.set_types(id, &[1, 0, 1, 0, 1, 0]);
    }
    let kept: Vec<u32> = (0..5000).filter(|id| statements.get(*id).is_some()).collect();
    assert!((10..=70).contains(&kept.len()), "{}", kept.len());
    for id in kept {
        assert_eq!(statements.get(id).unwrap().head[0], b'a' + u8::try_from(id % 26).unwrap());
    }
    assert_eq!(statements.get(u32::MAX).unwrap().head[0], b'a' + u8::try_from(4999 % 26).unwrap());
}
