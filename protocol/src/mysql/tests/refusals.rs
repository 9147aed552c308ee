//! Refusals in sequence, commands sent ahead, COM_CHANGE_USER, KILL.

use super::*;
use crate::testing::{REFUSAL, check_splits, run};
use crate::{FaultKind, Machine, Operation, Outbox, Refusal, RefusalKind, Ruling, Step, Ticket, Verb};

use super::super::MysqlVerb;

fn no_bad(operation: &Operation<'_>) -> bool {
    !operation.text.head.starts_with(b"bad")
        && !matches!(operation.verb, Verb::Mysql(MysqlVerb::SendLongData { parameter: 9, .. } | MysqlVerb::LocalInfile))
}

fn denied(sequence: u8, code: u16, state: &str) -> Vec<u8> {
    let [low, high] = code.to_le_bytes();
    let text = format!("#{state}{}: {}; {}", REFUSAL.message, REFUSAL.detail, REFUSAL.hint);
    packet(sequence, &[&[0xff, low, high], text.as_bytes()].concat())
}

#[test]
fn a_refused_command_is_answered_in_its_place_and_the_session_goes_on() {
    let ahead = [query("good"), query("bad"), command(2, b"bad"), command(0x0d, b""), query("good")].concat();
    let replies = [ok(1), ok(1), ok(1)];
    let script = [
        (Side::Client, &ahead[..]),
        (Side::Backend, &replies[0][..]),
        (Side::Backend, &replies[1][..]),
        (Side::Backend, &replies[2][..]),
    ];
    let transcript = check_splits(machine, no_bad, &script);
    assert_eq!(transcript.fault, None);
    let told = [ok(1), denied(1, 1142, "42000"), denied(1, 1044, "42000"), ok(1), ok(1)].concat();
    assert_eq!(transcript.to_client[WELCOME..].escape_ascii().to_string(), told.escape_ascii().to_string());
    assert_eq!(transcript.to_backend, [query("good"), command(0x0d, b""), query("good")].concat());
}

#[test]
fn asks_the_same_again_until_it_is_ruled_on() {
    let mut machine = machine();
    machine.start(&mut Outbox::default());
    let mut questions = Vec::new();
    let sent = query("x");
    while questions.len() < 3 {
        match machine.handle(Side::Client, &sent, &mut Outbox::default()).unwrap() {
            Step::Note(_) => {}
            Step::Ask(operation) => questions.push(format!("{operation:?}")),
            step => panic!("{step:?}"),
        }
    }
    assert!(questions.iter().all(|question| *question == questions[0]));
    let resumed = machine.resume(Ruling::Allow(Ticket::default()));
    assert_eq!(resumed, crate::Resumed::Forward { len: sent.len() as u64 });
}

#[test]
fn what_is_sent_ahead_waits_until_the_one_before_is_answered() {
    let mut driver = driver();
    driver.feed(Side::Client, &[query("one"), query("two"), command(0x19, &[1, 0, 0, 0]), query("three")].concat());
    assert_eq!(driver.transcript().to_backend, query("one"));
    driver.feed(Side::Backend, &ok(1));
    assert_eq!(driver.transcript().to_backend, [query("one"), query("two")].concat());
    driver.feed(Side::Backend, &ok(1));
    assert!(driver.transcript().to_backend.ends_with(&query("three")));
}

#[test]
fn an_unknown_command_is_asked_about_and_refused_whatever_the_ruling() {
    for code in [0x00, 0x0b, 0x0f, 0x10, 0x13, 0x14, 0x1d, 0x20, 0x21, 0x7f, 0xfa, 0xfe, 0xff] {
        for ruler in [allow_all as crate::testing::Ruler, |_| false] {
            let bytes = [command(code, b"whatever"), command(0x0e, b"")].concat();
            let transcript = run(machine(), ruler, &[(Side::Client, &bytes)], |len| len);
            assert_eq!(transcript.fault, None, "{code:#x}");
            assert!(transcript.questions[0].contains(&format!("Unknown {{ code: {code} }}")));
            assert_eq!(transcript.to_client[WELCOME..][3..7], [1, 0xff, 0x17, 0x04], "{code:#x}");
            assert_eq!(transcript.to_backend, command(0x0e, b""), "{code:#x}");
        }
    }
}

#[test]
fn a_refused_long_command_is_dropped_to_its_end() {
    let limits = Limits { frame_bytes_max: 1 << 30, ..SMALL };
    let mut driver = Driver::new(machine_for(opened_with(OK, "", b""), OK, limits), no_bad);
    let mut first = vec![0xff, 0xff, 0xff, 0, 3];
    first.extend_from_slice(b"bad");
    first.extend_from_slice(&vec![b' '; 0xff_ffff - 4]);
    driver.feed(Side::Client, &first);
    assert!(told(&mut driver).is_empty());
    driver.feed(Side::Client, &packet(1, &query("sneaky")));
    assert_eq!(told(&mut driver), denied(2, 1142, "42000"));
    assert!(driver.transcript().to_backend.is_empty());
    assert!(driver.machine().is_idle());
}

#[test]
fn an_execute_whose_long_data_was_refused_does_not_run_without_it() {
    let long = |parameter: u8| command(0x18, &[5, 0, 0, 0, parameter, 0, b'x']);
    let execute = command(0x17, &[5, 0, 0, 0, 0, 1, 0, 0, 0]);
    let reset = command(0x1a, &[5, 0, 0, 0]);
    let mut driver = Driver::new(machine(), no_bad);
    driver.feed(Side::Client, &[long(0), long(9), execute.clone()].concat());
    assert_eq!(driver.transcript().to_backend, long(0));
    assert_eq!(told(&mut driver)[3..7], [1, 0xff, 0x76, 0x04]);
    driver.feed(Side::Client, &reset);
    driver.feed(Side::Backend, &ok(1));
    driver.feed(Side::Client, &execute);
    assert!(driver.transcript().to_backend.ends_with(&execute));
}

#[test]
fn a_refused_file_ends_as_an_error_of_its_statement() {
    let files = OK | capability::LOCAL_FILES;
    let statement = query("load data local infile 'a' into table t");
    let asks = packet(1, b"\xfb/etc/passwd");
    let done = ok_with(3, 0, 2);
    let script = [(Side::Client, &statement[..]), (Side::Backend, &asks), (Side::Backend, &done)];
    let transcript = check_splits(|| machine_with(files), no_bad, &script);
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.to_client[WELCOME..], denied(1, 1142, "42000"));
    assert_eq!(transcript.to_backend, [statement, packet(2, b"")].concat());
    assert!(transcript.questions[1].contains(&format!("{:?}", b"/etc/passwd")));
    assert!(transcript.notes.last().unwrap().starts_with("1 failed rows None code 1142"), "{:?}", transcript.notes);
}

#[test]
fn a_client_changes_to_no_one_else() {
    let change = |user: &str| command(0x11, format!("{user}\0\0other\0\x2d\0mysql_native_password\0\0").as_bytes());
    let bytes = [change("mallory"), command(0x0e, b"")].concat();
    let transcript = run(machine(), allow_all, &[(Side::Client, &bytes)], |len| len);
    assert_eq!(transcript.to_client[WELCOME..][3..7], [1, 0xff, 0x15, 0x04]);
    assert_eq!(transcript.to_backend, command(0x0e, b""));
    let refused = run(machine(), |_| false, &[(Side::Client, &change("alice"))], |len| len);
    assert_eq!(refused.to_client[WELCOME..], denied(1, 1045, "28000"));
    assert!(refused.to_backend.is_empty());
    assert!(refused.questions[0].contains("verb: Authenticate"), "{}", refused.questions[0]);
    assert!(refused.questions[0].contains(&format!("user: {:?}, database: {:?}", b"alice", b"other")));
}

#[test]
fn a_change_to_oneself_resets_the_session_at_the_database() {
    let change = command(0x11, b"alice\0\x20aaaaaaaabbbbbbbbccccccccddddddddother\0\x2d\0caching_sha2_password\0\0");
    let reset = command(0x1f, b"");
    let collation = query("SET character_set_client=45,character_set_results=45,collation_connection=45");
    let answers = [ok(1), ok(1), ok_with(1, 0, 2)];
    let script = [
        (Side::Client, &change[..]),
        (Side::Backend, &answers[0]),
        (Side::Backend, &answers[1]),
        (Side::Backend, &answers[2]),
    ];
    let transcript = check_splits(machine, allow_all, &script);
    assert_eq!(transcript.fault, None);
    assert_eq!(transcript.to_backend, [reset.clone(), collation, command(2, b"other")].concat());
    assert_eq!(transcript.to_client[WELCOME..], [packet(1, &[1, 3]), ok(2)].concat());
    assert!(transcript.notes.last().unwrap().starts_with("1 ok"));
    // A database that refuses a step is mirrored.
    let no = error(1, 1049, "Unknown database");
    let script =
        [(Side::Client, &change[..]), (Side::Backend, &answers[0]), (Side::Backend, &answers[1]), (Side::Backend, &no)];
    let transcript = check_splits(machine, allow_all, &script);
    assert_eq!(transcript.to_client[WELCOME..], no);
    assert!(transcript.notes.last().unwrap().starts_with("1 failed rows None code 1049"));
}

#[test]
fn every_truncation_of_a_change_of_user_is_refused_or_means_the_same() {
    let whole = b"alice\0\x04aaaaother\0\x2d\0mysql_native_password\0\x04\x01a\x01b".to_vec();
    for len in 3..whole.len() {
        let bytes = command(0x11, &whole[..len]);
        let transcript = run(machine(), allow_all, &[(Side::Client, &bytes)], |len| len);
        match transcript.fault {
            Some(fault) => assert_eq!(fault.kind, FaultKind::Malformed, "{len}"),
            None => assert_eq!(transcript.to_backend, command(0x1f, b""), "{len}"),
        }
    }
}

#[test]
fn a_client_with_a_plugin_of_its_own_is_asked_to_change_it() {
    for (flags, plugin, proof, expected) in [
        (OK, "sha256_password", &[1][..], "caching_sha2_password"),
        (MARIADB, "client_ed25519", b"", "mysql_native_password"),
    ] {
        let mut driver = Driver::new(machine_for(opened_with(flags, plugin, proof), flags, SMALL), allow_all);
        let asked = driver.transcript().to_client.clone();
        assert_eq!(asked[3..5], [2, 0xfe]);
        assert!(asked[5..].starts_with(expected.as_bytes()));
        driver.feed(Side::Client, &packet(3, &[9; 32]));
        let rest = driver.transcript().to_client[asked.len()..].to_vec();
        let welcome = if expected.starts_with("caching") { [packet(4, &[1, 3]), ok(5)].concat() } else { ok(4) };
        assert_eq!(rest, welcome);
        assert!(driver.machine().is_idle());
    }
    // A plugin that has said all it wants to is told OK at once; one that waits for a word gets it.
    let mut fast = Driver::new(machine_for(opened_with(OK, "caching_sha2_password", &[1; 32]), OK, SMALL), allow_all);
    assert_eq!(fast.transcript().to_client, [packet(2, &[1, 3]), ok(3)].concat());
    for (plugin, proof) in [("caching_sha2_password", &b"\0"[..]), ("mysql_clear_password", b"pw\0"), ("", b"")] {
        let mut plain = Driver::new(machine_for(opened_with(OK, plugin, proof), OK, SMALL), allow_all);
        assert_eq!(plain.transcript().to_client, ok(2), "{plugin}");
    }
}

#[test]
fn a_kill_of_ours_names_the_databases_own_id() {
    let ours = 0x8000_0005_u32;
    let cases = [
        (query(&format!("KILL QUERY {ours}")), query("KILL QUERY 42")),
        (query(&format!("  kill {ours} ;")), query("  kill 42 ;")),
        (query(&format!("kill connection\t{ours};")), query("kill connection\t42;")),
        (command(0x0c, &ours.to_le_bytes()), command(0x0c, &42_u32.to_le_bytes())),
    ];
    for (sent, expected) in cases {
        let mut out = Outbox::default();
        let len = sent.len() as u64;
        let mut machine = machine();
        machine.start(&mut Outbox::default());
        let mut asked = 0;
        loop {
            match machine.handle(Side::Client, &sent, &mut out).unwrap() {
                Step::Note(_) => {}
                Step::Ask(operation) => {
                    asked += 1;
                    let Verb::Mysql(MysqlVerb::KillText { process } | MysqlVerb::ProcessKill { process }) =
                        operation.verb
                    else {
                        panic!("{operation:?}")
                    };
                    assert_eq!(process, ours);
                    let _ = machine.resume(Ruling::AllowKill(Ticket::default(), 42));
                }
                Step::Discard { len: dropped } => {
                    assert_eq!(dropped, len);
                    break;
                }
                step => panic!("{step:?}"),
            }
        }
        assert_eq!((asked, out.backend), (1, expected));
        assert!(matches!(machine.handle(Side::Backend, &ok(1), &mut Outbox::default()), Ok(Step::Note(_))));
    }
    // Any other id, and any other text, passes as it is.
    for text in ["kill 17", "kill query 17", "kill 2147483653 or 1", "select 2147483653", "kill 99999999999"] {
        let transcript = run(machine(), allow_all, &[(Side::Client, &query(text))], |len| len);
        assert!(transcript.questions[0].contains("verb: Query"), "{text}");
        assert_eq!(transcript.to_backend, query(text));
    }
}

#[test]
fn ends_a_session_in_words_the_client_reads_where_it_stands() {
    let refusal = Refusal { kind: RefusalKind::Terminated, message: "bye", detail: "", hint: "" };
    let mut out = Outbox::default();
    let mut idle = machine();
    idle.start(&mut Outbox::default());
    idle.refuse(&refusal, &mut out);
    assert_eq!(out.client, packet(1, b"\xff\xbf\x0f#HY000bye"), "4031 for a client that knows it");
    let mut driver = driver();
    driver.feed(Side::Client, &query("x"));
    driver.feed(Side::Backend, &[packet(1, &[1]), definition(2)].concat());
    let mut out = Outbox::default();
    driver.machine().refuse(&refusal, &mut out);
    assert_eq!(out.client[3], 3);
}

#[test]
fn every_case_has_the_code_of_the_notes() {
    let old = Dialect::default();
    let code = |kind| super::super::error::code(kind, old);
    assert_eq!(code(RefusalKind::NotAuthorized), (1045, "28000"));
    assert_eq!(code(RefusalKind::Denied), (1142, "42000"));
    assert_eq!(code(RefusalKind::TooManyConnections), (1040, "08004"));
    assert_eq!(code(RefusalKind::Terminated), (1053, "08S01"));
    assert_eq!(code(RefusalKind::Idle), (1053, "08S01"));
    assert_eq!(code(RefusalKind::ProtocolViolation), (1835, "HY000"));
    assert_eq!(code(RefusalKind::TooLarge), (1153, "08S01"));
    assert_eq!(code(RefusalKind::Unreachable), (1105, "HY000"));
}
