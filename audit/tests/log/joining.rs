//! Lines that join a statement with its steps and its result say what separate lines say.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use ringgate_audit::verify::Verdict;
use ringgate_audit::{Event, Mode, NoParameters, Parameter, Stamp, start};
use serde_json::Value;

use crate::support::{T0, apart, check, facts, lines, options, statement};

/// What a session does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Query,
    Secret,
    Refused,
    Function,
    /// Parse, Bind, Execute of the unnamed statement; with `true` the Execute says another text.
    Unnamed(bool),
    /// Bind and Execute; with `true` later, so that the two are not of one instant.
    Prepared(bool),
    Bind,
    /// So many commands.
    Commands(u8),
    /// The result of the oldest statement that has none, or of the latest.
    Result {
        oldest: bool,
        late: bool,
        failed: bool,
    },
    /// The results of the oldest ones, as many as follow one another.
    Results,
}

fn step() -> impl Strategy<Value = Step> {
    let result = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
    prop_oneof![
        2 => Just(Step::Query),
        1 => Just(Step::Secret),
        1 => Just(Step::Refused),
        1 => Just(Step::Function),
        2 => any::<bool>().prop_map(Step::Unnamed),
        3 => any::<bool>().prop_map(Step::Prepared),
        1 => Just(Step::Bind),
        2 => (1..6u8).prop_map(Step::Commands),
        8 => result.prop_map(|(oldest, late, failed)| Step::Result { oldest, late, failed }),
        3 => Just(Step::Results),
    ]
}

#[derive(Default)]
struct Session {
    ei: u32,
    open: Vec<(u32, u64)>,
}

/// Runs the script; `flush` says after which of the records the writer is made to look.
fn run(dir: &Path, script: &[(usize, Step)], flush: impl Fn(usize) -> bool) {
    let mut settings = options(dir, Mode::Strict);
    settings.flush_interval = Duration::from_secs(30);
    let (mut producers, _control, handle) = start(settings, 1, Vec::new()).unwrap();
    let producer = &mut producers[0];
    let slots: Vec<_> = (0..3)
        .map(|n| {
            let mut about = facts("alice");
            about.sid = uuid::Uuid::from_u128(n);
            producer.open_session(&about).unwrap()
        })
        .collect();
    let mut sessions: [Session; 3] = Default::default();
    let mut now = T0;
    let mut records = 0;
    for (which, step) in script {
        let session = &mut sessions[*which];
        now += 700;
        let mut put = |session: &mut Session, now: u64, event: &Event<'_>| {
            let ei = session.ei;
            producer.record(Stamp { session: Some(slots[*which]), ei, time_us: now }, event).unwrap();
            session.ei += 1;
            records += 1;
            if flush(records) {
                assert!(handle.flush());
            }
            ei
        };
        let values = [Parameter::Int(7), Parameter::Text(b"x\"y")];
        let values = &values[..];
        let text = format!("select {now}");
        let plain = statement(text.as_bytes());
        let none = &NoParameters;
        match *step {
            Step::Query => {
                let ei = put(session, now, &Event::Query { statement: plain, parameters: none, error: "" });
                session.open.push((ei, now));
            }
            Step::Secret => {
                let statement = statement(b"alter role a password 'hunter2'");
                let ei = put(session, now, &Event::Query { statement, parameters: none, error: "" });
                session.open.push((ei, now));
            }
            Step::Refused => {
                put(session, now, &Event::Query { statement: plain, parameters: none, error: "no" });
            }
            Step::Function => {
                let ei = put(session, now, &Event::FunctionCall { oid: 7, arguments: &values, error: "" });
                session.open.push((ei, now));
            }
            Step::Unnamed(other) => {
                put(session, now, &Event::Parse { name: b"", statement: plain });
                put(session, now, &Event::Bind { name: b"", portal: b"", parameters: &values });
                let says = if other { statement(b"select other") } else { plain };
                let ei = put(session, now, &Event::Execute { portal: b"", statement: says, parameters: &values });
                session.open.push((ei, now));
            }
            Step::Prepared(later) => {
                put(session, now, &Event::Bind { name: b"S_1", portal: b"c", parameters: &values });
                now += u64::from(later) * 2000;
                let ei = put(session, now, &Event::Execute { portal: b"c", statement: plain, parameters: &values });
                session.open.push((ei, now));
            }
            Step::Bind => {
                put(session, now, &Event::Bind { name: b"S_1", portal: b"", parameters: none });
            }
            Step::Commands(count) => {
                for _ in 0..count {
                    let (name, keys) = (&b"MGET"[..], &values);
                    let command =
                        Event::Command { name, keys, arguments: 2, argument_bytes: 9, values: none, error: "" };
                    let ei = put(session, now, &command);
                    session.open.push((ei, now));
                }
            }
            Step::Result { oldest, late, failed } => {
                if session.open.is_empty() {
                    continue;
                }
                let (query_ei, since) = session.open.remove(if oldest { 0 } else { session.open.len() - 1 });
                put(
                    session,
                    now + u64::from(late) * 5000,
                    &Event::Result {
                        query_ei,
                        success: !failed,
                        rows: (!failed).then_some(3),
                        duration_us: now - since,
                        code: if failed { b"42601" } else { b"" },
                        error: if failed { b"near \"hunter2\"" } else { b"" },
                        copy_bytes: u64::from(late),
                        query_sha256: Some([9; 32]).filter(|_| late),
                        skipped: failed && late,
                        warnings: 0,
                    },
                );
            }
            Step::Results => {
                let Some((first, since)) = session.open.first().copied() else { continue };
                let count = session.open.iter().zip(first..).take_while(|((ei, _), next)| ei == next).count();
                session.open.drain(..count);
                let results = Event::Results { first_ei: first, count: count as u32, duration_us: now - since };
                put(session, now, &results);
            }
        }
    }
    handle.shutdown();
    assert_eq!(check(dir).verdict, Verdict::Ok);
}

/// Milliseconds of the hour.
fn ms(time: &Value) -> i64 {
    let digits: String = time.as_str().unwrap()[14..23].chars().filter(char::is_ascii_digit).collect();
    let n: i64 = digits.parse().unwrap();
    n / 100_000 * 60_000 + n % 100_000
}

/// Every event by session, index and what it is the result of, without what is the line's own; and how many lines.
fn events(dir: &Path) -> (BTreeMap<(String, u64, u64), Value>, usize) {
    let mut all = BTreeMap::new();
    let mut count = 0;
    for line in lines(dir).iter().filter(|l| l.contains("\"sid\":")) {
        count += 1;
        let line: Value = serde_json::from_str(line).unwrap();
        let told = line["result"]["time"].is_string();
        let joined = line["result"].is_object();
        for mut event in apart(line) {
            let key = (
                event["sid"].as_str().unwrap().to_owned(),
                event["ei"].as_u64().unwrap(),
                event["query_ei"].as_u64().unwrap_or(0),
            );
            let mut at = ms(&event["time"]);
            if joined && !told && event["code"] == "TDB10I" {
                at += event["duration_us"].as_i64().unwrap() / 1000;
            }
            let members = event.as_object_mut().unwrap();
            members.retain(|name, _| !["seq", "uid", "time"].contains(&name.as_str()));
            members.insert("ms".to_owned(), at.into());
            assert!(all.insert(key.clone(), event).is_none(), "twice: {key:?}");
        }
    }
    (all, count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn joined_lines_say_what_separate_lines_say(
        script in prop::collection::vec((0..3usize, step()), 1..50),
        looks in prop::collection::vec(1..150usize, 0..4),
    ) {
        let (separate, joined) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(separate.path(), &script, |_| true);
        run(joined.path(), &script, |n| looks.contains(&n));
        let (mut want, records) = events(separate.path());
        let (have, lines) = events(joined.path());
        prop_assert!(lines <= records);
        for (key, event) in &have {
            let other = want.remove(key);
            prop_assert!(other.is_some(), "not recorded: {:?} {}", key, event);
            let mut other = other.unwrap();
            let apart = event["ms"].as_i64().unwrap() - other["ms"].as_i64().unwrap();
            prop_assert!(apart.abs() <= 2, "{} against {}", event, other);
            other["ms"] = event["ms"].clone();
            prop_assert_eq!(event, &other);
        }
        prop_assert!(want.is_empty(), "missing: {:?}", want);
    }
}

#[test]
fn a_prepared_statement_and_its_result_are_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let script: Vec<_> = std::iter::repeat_n([(0, Step::Prepared(false)), (0, Step::Results)], 50).flatten().collect();
    run(dir.path(), &script, |_| false);
    let lines: Vec<_> = lines(dir.path()).into_iter().filter(|l| l.contains("\"sid\":")).collect();
    assert_eq!(lines.len(), 50);
    for (n, line) in lines.iter().enumerate() {
        let n = 3 * n;
        let steps = format!("\"ei\":{},", n + 1);
        assert!(
            line.contains(&steps) && line.contains(&format!("\"bind_ei\":{n},\"statement_name\":\"S_1\"")),
            "{line}"
        );
        let result = format!(",\"result\":{{\"ei\":{},\"success\":true,\"duration_us\":700}}}}", n + 2);
        assert!(line.ends_with(&result), "{line}");
    }
}
