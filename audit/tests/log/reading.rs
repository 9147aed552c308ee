//! Search and tail.
use std::time::Duration;

use ringgate_audit::search::{Filter, search};
use ringgate_audit::tail::Tail;
use ringgate_audit::{Event, Mode, NoParameters, start};

use crate::support::{T0, facts, options, query, result, stamp};

#[test]
fn search_joins_results_and_keeps_to_its_filters() {
    search_with(false);
}

#[test]
fn search_finds_the_same_where_the_writer_has_joined() {
    search_with(true);
}

fn search_with(joined: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path(), Mode::Strict);
    settings.flush_interval = Duration::from_secs(30);
    let (mut producers, _c, handle) = start(settings, 1, Vec::new()).unwrap();
    let p = &mut producers[0];
    let alice = p.open_session(&facts("alice")).unwrap();
    let mut other = facts("bob");
    other.sid = uuid::Uuid::from_u128(2);
    let bob = p.open_session(&other).unwrap();
    p.record(stamp(alice, 0), &query(b"select one")).unwrap();
    p.record(stamp(alice, 1), &query(b"select Two")).unwrap();
    p.record(stamp(bob, 0), &query(b"select two")).unwrap();
    if !joined {
        assert!(handle.flush());
    }
    p.record(stamp(alice, 2), &result(0, 0)).unwrap();
    if !joined {
        assert!(handle.flush());
    }
    p.record(stamp(alice, 3), &result(1, 1)).unwrap();
    let end = Event::SessionEnd { reason: "client", start_us: T0, statements: 2, bytes_in: 0, bytes_out: 0 };
    p.record(stamp(alice, 4), &end).unwrap();
    handle.shutdown();
    let find = |filter: Filter| {
        let mut all = Vec::new();
        search(dir.path(), &filter, &mut |f| {
            let event = f.event;
            let what = event.get("db_query").or(event.get("event")).unwrap().as_str().unwrap().to_owned();
            all.push((what, event.get("result").map(|r| r["rows"].as_u64().unwrap())));
            true
        })
        .unwrap();
        all
    };
    let found = |list: &[(&str, Option<u64>)]| list.iter().map(|(t, r)| ((*t).to_owned(), *r)).collect::<Vec<_>>();
    let user = || Filter { user: Some("alice".into()), ..Filter::default() };
    assert_eq!(find(user()), found(&[("select one", Some(0)), ("select Two", Some(1)), ("db.session.end", None)]));
    let text = Filter { text: Some("TWO".into()), ..Filter::default() };
    assert_eq!(find(text), found(&[("select Two", Some(1)), ("select two", None)]));
    let raw = Filter { event: Some("*.result".into()), ..Filter::default() };
    let lines: &[(&str, Option<u64>)] = &[("db.session.result", None), ("db.session.result", None)];
    assert_eq!(find(raw), found(if joined { &[] } else { lines }));
    assert_eq!(find(Filter { since_us: Some(T0 + 1000), ..user() }), []);
    assert_eq!(find(Filter { until_us: Some(T0), ..user() }), []);
    assert_eq!(find(Filter { since_us: Some(T0), until_us: Some(T0 + 1000), ..user() }).len(), 3);
    let sid = Filter { sid: Some(uuid::Uuid::from_u128(2).to_string()), ..Filter::default() };
    assert_eq!(find(sid), found(&[("select two", None)]));
    let mut first = 0;
    search(dir.path(), &user(), &mut |_| {
        first += 1;
        false
    })
    .unwrap();
    assert_eq!(first, 1);
}

#[test]
fn a_run_of_results_is_found_with_each_of_its_commands() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path(), Mode::Strict);
    settings.flush_interval = Duration::from_secs(30);
    let (mut producers, _c, handle) = start(settings, 1, Vec::new()).unwrap();
    let p = &mut producers[0];
    let slot = p.open_session(&facts("alice")).unwrap();
    let get = Event::Command {
        name: b"GET",
        keys: &NoParameters,
        arguments: 0,
        argument_bytes: 0,
        values: &NoParameters,
        error: "",
    };
    for ei in 0..100 {
        p.record(stamp(slot, ei), &get).unwrap();
        if ei == 60 {
            assert!(handle.flush());
        }
    }
    p.record(stamp(slot, 100), &Event::Results { first_ei: 0, count: 99, duration_us: 12 }).unwrap();
    handle.shutdown();
    let mut found = Vec::new();
    search(dir.path(), &Filter { user: Some("alice".into()), ..Filter::default() }, &mut |f| {
        assert_eq!(f.event["event"], "db.session.query");
        found.push((f.event["ei"].as_u64().unwrap(), f.event.get("result").map(|r| r["duration_us"].clone())));
        true
    })
    .unwrap();
    let all: Vec<_> = (0..100).map(|ei| (ei, (ei < 99).then(|| 12.into()))).collect();
    assert_eq!(found, all);
    // The first 61 were on disk when their results came: one line for all of them.
    let runs =
        crate::support::lines(dir.path()).iter().filter(|l| l.contains("\"query_ei\":0,\"query_count\":61,")).count();
    assert_eq!(runs, 1);
}

#[test]
fn tail_follows_new_events_across_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path(), Mode::Strict);
    settings.segment_bytes = 4096;
    let mut from_start = Tail::open(dir.path(), false).unwrap();
    assert!(from_start.next(Duration::ZERO).unwrap().is_none());
    let mut count = 0;
    for round in 0..2 {
        let (mut producers, _c, handle) = start(settings.clone(), 1, Vec::new()).unwrap();
        let slot = producers[0].open_session(&facts("alice")).unwrap();
        for ei in 0..30 {
            let text = format!("select {round} {ei}");
            producers[0].record(stamp(slot, ei), &query(text.as_bytes())).unwrap();
            assert!(handle.flush());
            let line = from_start.next(Duration::from_secs(30)).unwrap().unwrap();
            assert!(line.contains(&text), "{line}");
            count += 1;
        }
        handle.shutdown();
        assert!(from_start.next(Duration::from_secs(30)).unwrap().unwrap().contains("audit.checkpoint"));
    }
    assert_eq!(count, 60);
    let mut only_new = Tail::open(dir.path(), true).unwrap();
    assert!(only_new.next(Duration::ZERO).unwrap().is_none());
}
