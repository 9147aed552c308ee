//! Recordings of a real server, through all three machines.

use super::super::Postgres;
use crate::testing::{Driver, Transcript, allow_all, capture, check_splits};
use crate::{
    BackendTls, Credential, Limits, Login, LoginStep, Machine, Opened, Opening, Protocol, SessionKey, Side, SignIn,
};

macro_rules! recordings {
    ($($name:literal),* $(,)?) => {
        pub(super) const RECORDINGS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../testdata/postgres/", $name, ".txt")))),*];
    };
}

recordings!(
    "copy_in",
    "copy_in_extended",
    "copy_in_interrupted",
    "copy_out",
    "discard",
    "extended",
    "function",
    "large_rows",
    "notify",
    "pipeline",
    "portal",
    "prepared",
    "replication",
    "simple",
);

const SMALL: Limits =
    Limits { frame_bytes_max: 1 << 20, text_bytes_max: 256, inline_commands: true, teleport_compat: false };

/// Reads the StartupMessage with the opening and AuthenticationOk with the login, and gives the machine.
pub(super) fn machine_after(script: &[(Side, Vec<u8>)], limits: Limits) -> super::PostgresMachine {
    let mut opening = Postgres::opening(&[], [0; 32]);
    opening.offer_no_tls();
    let mut out = Vec::new();
    match opening.handle(&script[0].1, false, &mut out) {
        Ok(Opened::Startup { len, startup }) => {
            assert_eq!((len, startup.user, startup.database), (script[0].1.len(), "alice", "postgres"));
        }
        other => panic!("{other:?}"),
    }
    let mut login = Postgres::login(
        &opening,
        SignIn {
            user: "alice",
            database: "postgres",
            tls: BackendTls::Off,
            credential: Credential::None,
            seed: [0; 32],
            learned: None,
        },
    );
    assert_eq!(login.handle(&script[1].1, &mut out).unwrap(), LoginStep::Ready { len: 9 });
    Postgres::machine(opening, login, SessionKey { pid: 4711, secret: [0xab; 32] }, limits)
}

/// The recording behind the sign-in.
pub(super) fn session(script: &[(Side, Vec<u8>)]) -> Vec<(Side, &[u8])> {
    let mut rest: Vec<(Side, &[u8])> = script[1..].iter().map(|(side, bytes)| (*side, &bytes[..])).collect();
    rest[0].1 = &rest[0].1[9..];
    rest
}

fn named(name: &str) -> Vec<(Side, Vec<u8>)> {
    capture(RECORDINGS.iter().find(|(recording, _)| *recording == name).unwrap().1)
}

fn replay(name: &str) -> Transcript {
    let script = named(name);
    crate::testing::run(machine_after(&script, Limits::default()), allow_all, &session(&script), |len| len)
}

#[test]
fn every_recording_gives_the_same_however_it_is_cut() {
    for (name, text) in RECORDINGS {
        println!("{name}");
        let script = capture(text);
        let transcript = check_splits(|| machine_after(&script, SMALL), allow_all, &session(&script));
        assert_eq!(transcript.fault, None, "{name}");
        assert_eq!(transcript.left, (0, 0), "{name}");
    }
}

#[test]
fn every_recording_passes_unchanged_but_for_the_cancel_key() {
    for (name, text) in RECORDINGS {
        let script = capture(text);
        let sent = |side| -> Vec<u8> {
            session(&script).iter().filter(|(from, _)| *from == side).flat_map(|(_, bytes)| bytes.to_vec()).collect()
        };
        let transcript = crate::testing::run(machine_after(&script, SMALL), allow_all, &session(&script), |len| len);
        assert!(transcript.to_backend == sent(Side::Client), "{name}");
        let mut theirs = b"R\0\0\0\x08\0\0\0\0".to_vec();
        theirs.extend(sent(Side::Backend));
        let key = theirs.windows(5).position(|window| window == b"K\0\0\0\x0c").unwrap();
        theirs[key + 5..key + 13].copy_from_slice(&[0, 0, 0x12, 0x67, 0xab, 0xab, 0xab, 0xab]);
        assert!(transcript.to_client == theirs, "{name}");
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
            // Ours: AuthenticationOk, and a BackendKeyData as long as theirs.
            assert!(transcript.to_client.len() <= fed[1] + 9, "{name} ends at {end}");
        }
    }
}

#[test]
fn every_question_of_a_recording_has_its_outcome() {
    for (name, _) in RECORDINGS {
        let script = named(name);
        let mut driver = Driver::new(machine_after(&script, Limits::default()), allow_all);
        for (side, bytes) in session(&script) {
            driver.feed(side, bytes);
        }
        let open = driver.machine().outstanding();
        let owed = driver.transcript().questions.iter().filter(|question| question.contains("has_outcome: true"));
        let owed = owed.count();
        let blamed = |note: &&String| note.starts_with(|first: char| first.is_ascii_digit());
        let outcomes = driver.transcript().notes.iter().filter(blamed).count();
        // Parse and Bind get an outcome too when they fail, and only then.
        let extra = match *name {
            "discard" | "portal" => 1,
            "prepared" | "pipeline" => 2,
            _ => 0,
        };
        let extra = extra - usize::from(*name == "portal");
        let unanswered = usize::from(*name == "copy_in_interrupted");
        assert_eq!(outcomes + unanswered, owed + extra, "{name}: {:#?}", driver.transcript().notes);
        assert_eq!(open, unanswered, "{name}");
        assert!(name.starts_with("copy_in_int") || driver.machine().is_idle(), "{name}");
    }
}

#[test]
fn sums_the_rows_of_a_text_with_several_statements() {
    let notes = replay("simple").notes;
    assert_eq!(
        notes[2..8],
        [
            r#"1 ok rows Some(1) code  tag SELECT 1 copied 0 """#,
            r#"2 ok rows Some(4) code  tag SELECT 2 copied 0 """#,
            r#"3 ok rows None code  tag  copied 0 """#,
            r#"4 failed rows None code 22012 tag  copied 0 "division by zero""#,
            r#"5 ok rows None code  tag BEGIN copied 0 """#,
            r#"6 failed rows None code 42601 tag  copied 0 "syntax error at or near \"selekt\"""#,
        ]
    );
}

#[test]
fn skips_what_stands_between_an_error_and_its_sync() {
    let notes = replay("pipeline").notes;
    assert_eq!(
        notes[4..],
        [
            r#"9 ok rows Some(1) code  tag SELECT 1 copied 0 """#,
            r#"11 failed rows None code 22012 tag  copied 0 "division by zero""#,
            r#"12 failed rows None code  tag  copied 0 "" skipped"#,
            r#"15 failed rows None code  tag  copied 0 "" skipped"#,
            r#"19 ok rows Some(1) code  tag SELECT 1 copied 0 """#,
            r#"20 failed rows None code 42601 tag  copied 0 "syntax error at or near \"selekt\"""#,
            r#"22 failed rows None code  tag  copied 0 "" skipped"#,
            r#"23 failed rows None code  tag  copied 0 "" skipped"#,
            "Goodbye",
        ]
    );
}

#[test]
fn counts_the_bytes_of_a_copy_in_both_directions() {
    assert!(replay("copy_in").notes.contains(&r#"2 ok rows Some(2) code  tag COPY 2 copied 8 """#.to_owned()));
    assert!(replay("copy_in").notes.iter().any(|note| note.starts_with("3 failed rows None code 57014")));
    let out = replay("copy_out").notes;
    assert!(out[2].starts_with("1 ok rows Some(20) code  tag COPY 20 copied 1"), "{out:?}");
}

#[test]
fn resolves_the_text_and_parameters_of_an_execute_from_earlier_messages() {
    let questions = replay("prepared").questions;
    let executes: Vec<&String> = questions.iter().filter(|question| question.contains("verb: Execute")).collect();
    let text = format!("{:?}", b"select $1::text || $2");
    assert_eq!(executes.iter().filter(|question| question.contains(&text)).count(), 3);
    assert!(executes[0].contains(&format!("body: {:?}", b"\0\0\0\x02\0\0\0\x01a\0\0\0\x01b")), "{}", executes[0]);
    // After Close the name stands for nothing.
    assert!(executes[3].contains("head: []"), "{}", executes[3]);
}

#[test]
fn forgets_names_that_were_changed_by_text() {
    let questions = replay("discard").questions;
    let executes: Vec<&String> = questions.iter().filter(|question| question.contains("verb: Execute")).collect();
    assert!(executes[0].contains(&format!("{:?}", b"select 1")));
    assert!(executes[1].contains("head: []"), "after DISCARD ALL");
    assert!(executes[2].contains("head: []"), "after PREPARE by text");
}

#[test]
fn reports_a_suspended_portal_with_the_rows_it_gave() {
    let notes = replay("portal").notes;
    assert!(notes.contains(&r#"4 ok rows Some(2) code  tag  copied 0 """#.to_owned()), "{notes:#?}");
}

#[test]
fn judges_everything_in_a_replication_session_as_replication() {
    let questions = replay("replication").questions;
    assert_eq!(questions.len(), 5);
    assert!(questions.iter().all(|question| question.contains("class: Replication")));
}
