//! Recordings of a real server, through all three machines.

use super::*;
use crate::Machine;
use crate::testing::{Transcript, capture, check_splits, run};

macro_rules! recordings {
    ($($name:literal),* $(,)?) => {
        const RECORDINGS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../testdata/mysql/", $name, ".txt")))),*];
    };
}

recordings!(
    "bulk_mariadb",
    "commands_eof",
    "commands_mariadb",
    "commands_ok",
    "local_infile_eof",
    "prepared_eof",
    "prepared_mariadb",
    "prepared_ok",
    "replication_eof",
    "text_eof",
    "text_mariadb",
    "text_ok",
);

/// Reads the greeting and OK with the login, the response with the opening, and gives the machine.
fn machine_after(script: &[(Side, Vec<u8>)], limits: Limits) -> MysqlMachine {
    let server = super::super::greeting::read(&script[0].1).unwrap().server;
    assert!(server.version().contains("MariaDB") && server.is_mariadb());
    let mut opening = Mysql::opening(&[Arc::new(server)], [3; 32]);
    opening.offer_no_tls();
    opening.offer_local_files();
    let mut out = Vec::new();
    opening.start(&mut out);
    match opening.handle(&script[1].1, false, &mut out) {
        Ok(Opened::Startup { len, startup }) => {
            assert_eq!((len, startup.user, startup.database), (script[1].1.len(), "alice", "app"));
        }
        other => panic!("{other:?}"),
    }
    let mut login = Mysql::login(&opening, sign_in(Credential::None, BackendTls::Off));
    let mut sent = Vec::new();
    assert!(matches!(login.handle(&script[0].1, &mut sent), Ok(LoginStep::Consumed { .. })));
    // What the client asked for is what the database is asked for, bit by bit; attributes are only ever read.
    let attributes = |flags: &[u8]| [&[flags[0], flags[1], flags[2] & !0x10], &flags[3..]].concat();
    assert_eq!(attributes(&sent[4..36]), attributes(&script[1].1[4..36]));
    let answer = login.handle(&script[2].1, &mut sent).unwrap();
    assert_eq!(answer, LoginStep::Ready { len: script[2].1.len() });
    Mysql::machine(opening, login, KEY, limits)
}

/// The recording behind the sign-in.
fn session(script: &[(Side, Vec<u8>)]) -> Vec<(Side, &[u8])> {
    script[3..].iter().map(|(side, bytes)| (*side, &bytes[..])).collect()
}

fn named(name: &str) -> Vec<(Side, Vec<u8>)> {
    capture(RECORDINGS.iter().find(|(recording, _)| *recording == name).unwrap().1)
}

fn replay(name: &str) -> Transcript {
    let script = named(name);
    run(machine_after(&script, Limits::default()), allow_all, &session(&script), |len| len)
}

#[test]
fn every_recording_passes_unchanged() {
    for (name, text) in RECORDINGS {
        let script = capture(text);
        let sent = |side| -> Vec<u8> {
            session(&script).iter().filter(|(from, _)| *from == side).flat_map(|(_, bytes)| bytes.to_vec()).collect()
        };
        let transcript = run(machine_after(&script, SMALL), allow_all, &session(&script), |len| len);
        assert_eq!(transcript.fault, None, "{name}: {:#?}", transcript.notes);
        assert_eq!(transcript.left, (0, 0), "{name}");
        assert!(transcript.to_backend == sent(Side::Client), "{name}");
        assert!(transcript.to_client[WELCOME..] == sent(Side::Backend), "{name}");
    }
}

#[test]
fn every_recording_gives_the_same_however_it_is_cut() {
    for (name, text) in RECORDINGS {
        let script = capture(text);
        println!("{name}");
        let transcript = check_splits(|| machine_after(&script, SMALL), allow_all, &session(&script));
        assert_eq!(transcript.fault, None, "{name}");
        assert_eq!(transcript.left, (0, 0), "{name}");
    }
}

#[test]
fn every_truncation_of_every_recording_passes_no_more_than_it_was_given() {
    for (name, text) in RECORDINGS {
        let script = capture(text);
        let steps = session(&script);
        let total: usize = steps.iter().map(|(_, bytes)| bytes.len()).sum();
        for end in (0..total).step_by((total / 1000).max(1)) {
            let mut driver = Driver::new(machine_after(&script, SMALL), allow_all);
            let (mut left, mut fed) = (end, [0, 0]);
            for (side, bytes) in &steps {
                let bytes = &bytes[..bytes.len().min(left)];
                left -= bytes.len();
                driver.feed(*side, bytes);
                fed[usize::from(*side == Side::Backend)] += bytes.len();
            }
            let transcript = driver.transcript();
            assert_eq!(transcript.fault, None, "{name} ends at {end}");
            assert!(transcript.to_backend.len() <= fed[0], "{name} ends at {end}");
            assert!(transcript.to_client.len() <= fed[1] + WELCOME, "{name} ends at {end}");
        }
    }
}

#[test]
fn every_question_of_a_recording_has_its_outcome() {
    for (name, text) in RECORDINGS {
        let script = capture(text);
        let mut driver = Driver::new(machine_after(&script, Limits::default()), allow_all);
        for (side, bytes) in session(&script) {
            driver.feed(side, bytes);
        }
        assert_eq!(driver.machine().outstanding(), 0, "{name}");
        let transcript = driver.transcript();
        let mut answered: Vec<usize> =
            transcript.notes.iter().filter_map(|note| note.split_once(' ')?.0.parse().ok()).collect();
        let owed: Vec<usize> = (1..)
            .zip(&transcript.questions)
            .filter(|(_, question)| question.contains("has_outcome: true"))
            .map(|(number, _)| number)
            .collect();
        // What is owed none has one where it failed.
        answered.retain(|number| owed.contains(number));
        assert_eq!(answered, owed, "{name}");
    }
}

#[test]
fn sums_the_rows_of_several_results_and_names_the_error() {
    for name in ["text_eof", "text_ok", "text_mariadb"] {
        let notes = replay(name).notes;
        let has = |line: &str| assert!(notes.iter().any(|note| note == line), "{name} {line}: {notes:#?}");
        has(r#"3 ok rows Some(3) code  tag  copied 0 """#);
        has(r#"4 ok rows Some(3) code  tag  copied 0 """#);
        has(r#"5 ok rows Some(0) code  tag  copied 0 """#);
        assert!(notes.iter().any(|note| note.starts_with("6 failed rows None code 1064 tag  copied 0 \"You have an")));
        // One row, two rows, three changed, one row.
        has(r#"7 ok rows Some(7) code  tag  copied 0 """#);
        // The first of three succeeded, the second did not, the third was never looked at.
        assert!(notes.iter().any(|note| note.starts_with("8 failed rows Some(1) code 1064")), "{notes:#?}");
    }
}

#[test]
fn resolves_the_text_and_the_values_of_every_execute() {
    for name in ["prepared_eof", "prepared_ok", "prepared_mariadb"] {
        let script = named(name);
        let ruler = |operation: &crate::Operation<'_>| {
            if let crate::Parameters::Mysql(bound) = operation.parameters {
                let values: Vec<String> = bound.values().map(|value| value.to_string()).collect();
                SEEN.with_borrow_mut(|seen| {
                    seen.push((String::from_utf8_lossy(operation.text.head).into_owned(), values.join("|")));
                });
            }
            true
        };
        thread_local! {
            static SEEN: std::cell::RefCell<Vec<(String, String)>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        SEEN.take();
        let transcript = run(machine_after(&script, Limits::default()), ruler, &session(&script), |len| len);
        assert_eq!(transcript.fault, None);
        let seen = SEEN.take();
        let seen: Vec<(&str, &str)> = seen.iter().map(|(text, values)| (text.as_str(), values.as_str())).collect();
        let question = "select ?, ?, ?, ?";
        assert_eq!(
            seen[..4],
            [
                (question, "-7|hello|1.5|NULL"),
                (question, "8|abc|-2.25|"),
                (question, "9|(long data)|0|z"),
                ("insert into t (name) values (?)", "five"),
            ],
            "{name}"
        );
        let dates = seen.iter().find(|(text, _)| *text == "select ?,?,?").unwrap();
        assert_eq!(dates.1, "2024-05-06 07:08:09.123456|2023-01-02|-26:03:04");
        // After COM_RESET_CONNECTION an id stands for nothing, so only what was known is listed.
        assert_eq!(seen.len(), 10, "{name}: {seen:#?}");
    }
}

#[test]
fn resolves_a_statement_that_was_sent_ahead_of_its_id() {
    let transcript = replay("bulk_mariadb");
    let execute = transcript.questions.iter().find(|question| question.contains("statement: 4294967295")).unwrap();
    assert!(execute.contains(&format!("{:?}", b"select ?")), "{execute}");
}

#[test]
fn asks_about_a_file_and_counts_what_the_client_sends() {
    let transcript = replay("local_infile_eof");
    assert_eq!(transcript.questions.iter().filter(|question| question.contains("LocalInfile")).count(), 2);
    assert!(transcript.notes.iter().any(|note| note == r#"2 ok rows Some(3) code  tag  copied 20 """#));
}

#[test]
fn follows_a_replica_to_the_end_of_the_log() {
    let transcript = replay("replication_eof");
    assert!(transcript.questions.iter().any(|question| question.contains("BinlogDump")));
    assert!(transcript.questions.iter().any(|question| question.contains("class: Replication")));
    assert!(transcript.notes.iter().any(|note| note.starts_with("3 ok")), "{:#?}", transcript.notes);
}
