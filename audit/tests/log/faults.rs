//! Disks that are full, rings that are full, and what the modes promise then.
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringgate_audit::verify::Verdict;
use ringgate_audit::{Event, Mode, NoParameters, Refused, StartError, Statement, start};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{check, facts, lines, options, query, stamp, until};

const CHILD: &str = "RINGGATE_AUDIT_FULL_CHILD";

/// Runs this test again in a process whose files cannot grow above 700 blocks of 512 bytes, as on a full disk.
fn on_a_full_disk(test: &str, dir: &Path) {
    let output = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -S -f 700; exec \"$0\" --exact \"$1\" --nocapture")
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(CHILD, dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn make_room() {
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

#[test]
fn a_full_disk_refuses_statements_and_heals_without_restart() {
    let Ok(dir) = std::env::var(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        return on_a_full_disk("faults::a_full_disk_refuses_statements_and_heals_without_restart", dir.path());
    };
    let dir = Path::new(&dir);
    let woken = Arc::new(AtomicU32::new(0));
    let bell = woken.clone();
    let wake: Box<dyn Fn() + Send> = Box::new(move || {
        bell.fetch_add(1, Ordering::SeqCst);
    });
    let (mut producers, _c, handle) = start(options(dir, Mode::Strict), 1, vec![wake]).unwrap();
    let p = &mut producers[0];
    let slot = p.open_session(&facts("alice")).unwrap();
    let mut kept = 0u32;
    let mut last = Instant::now();
    until("refused", || {
        let text = format!("select {kept} {}", "x".repeat(500));
        match p.record(stamp(slot, kept), &query(text.as_bytes())) {
            Ok(_) => {
                kept += 1;
                last = Instant::now();
                false
            }
            Err(Refused::Full) => false,
            Err(refused) => {
                assert_eq!(refused, Refused::SinkBroken);
                true
            }
        }
    });
    assert!(last.elapsed() < Duration::from_secs(1));
    assert!(kept > 100 && !p.sink_ok() && !handle.stats().last_failure.is_empty());
    let refusal = Event::Query { statement: Statement::default(), parameters: &NoParameters, error: "audit log" };
    p.record(stamp(slot, kept), &refusal).unwrap();
    assert!(!handle.flush());
    let before = woken.load(Ordering::SeqCst);
    make_room();
    until("healed", || p.sink_ok());
    until("woken", || woken.load(Ordering::SeqCst) > before);
    p.record(stamp(slot, kept + 1), &query(b"select after")).unwrap();
    assert!(handle.flush());
    handle.shutdown();
    assert_eq!(check(dir).verdict, Verdict::Ok);
    let all = lines(dir);
    for n in 0..kept {
        assert_eq!(all.iter().filter(|l| l.contains(&format!("\"select {n} x"))).count(), 1, "{n}");
    }
    assert!(all.iter().any(|l| l.contains("select after")) && all.iter().any(|l| l.contains("TDB02W")));
}

#[test]
fn best_effort_goes_on_over_a_full_disk_and_says_how_many_it_lost() {
    let Ok(dir) = std::env::var(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        return on_a_full_disk("faults::best_effort_goes_on_over_a_full_disk_and_says_how_many_it_lost", dir.path());
    };
    let dir = Path::new(&dir);
    let (mut producers, _c, handle) = start(options(dir, Mode::BestEffort), 1, Vec::new()).unwrap();
    let p = &mut producers[0];
    let slot = p.open_session(&facts("alice")).unwrap();
    let mut sent = 0u32;
    let text = format!("select {}", "x".repeat(500));
    until("losses", || {
        p.record(stamp(slot, sent), &query(text.as_bytes())).unwrap();
        sent += 1;
        !p.sink_ok() && handle.stats().dropped > 50
    });
    make_room();
    until("healed", || p.sink_ok());
    p.record(stamp(slot, sent), &query(b"select after")).unwrap();
    handle.shutdown();
    assert_eq!(check(dir).verdict, Verdict::Ok);
    let all = lines(dir);
    let kept = all.iter().filter(|l| l.contains("\"db_query\":\"select x")).count() as u64;
    let lost: u64 = all
        .iter()
        .filter(|l| l.contains("\"event\":\"audit.gap\",\"code\":\"TAU02W\""))
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["lost"].as_u64().unwrap())
        .sum();
    assert_eq!(kept + lost, u64::from(sent));
    assert!(all.iter().any(|l| l.contains("select after")));
}

#[test]
fn what_a_full_disk_did_not_take_is_written_by_the_next_start() {
    let Ok(dir) = std::env::var(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        return on_a_full_disk("faults::what_a_full_disk_did_not_take_is_written_by_the_next_start", dir.path());
    };
    let dir = Path::new(&dir);
    let (mut producers, _c, handle) = start(options(dir, Mode::Strict), 1, Vec::new()).unwrap();
    let slot = producers[0].open_session(&facts("alice")).unwrap();
    let mut kept = 0;
    until("refused", || {
        let text = format!("select {kept} {}", "x".repeat(500));
        let answer = producers[0].record(stamp(slot, kept), &query(text.as_bytes()));
        kept += u32::from(answer.is_ok());
        answer == Err(Refused::SinkBroken)
    });
    handle.shutdown();
    let before = lines(dir).len();
    assert!(before < kept as usize);
    make_room();
    let (_p, _c, handle) = start(options(dir, Mode::Strict), 1, Vec::new()).unwrap();
    handle.shutdown();
    assert_eq!(check(dir).verdict, Verdict::Ok);
    let all = lines(dir);
    for n in 0..kept {
        let mine = all.iter().filter(|l| l.contains(&format!("\"select {n} x"))).collect::<Vec<_>>();
        assert_eq!(mine.len(), 1, "{n}");
        assert!(mine[0].contains("\"user\":\"alice\""));
    }
}

#[test]
fn durable_says_when_a_record_is_on_disk_and_wakes_its_worker() {
    let dir = tempfile::tempdir().unwrap();
    let (bell, heard) = std::sync::mpsc::channel();
    let wake: Box<dyn Fn() + Send> = Box::new(move || {
        // The test may have ended.
        let _ = bell.send(());
    });
    let (mut producers, _c, handle) = start(options(dir.path(), Mode::Durable), 1, vec![wake]).unwrap();
    let p = &mut producers[0];
    let slot = p.open_session(&facts("alice")).unwrap();
    for ei in 0..50 {
        let text = format!("select {ei} durable");
        let position = p.record(stamp(slot, ei), &query(text.as_bytes())).unwrap();
        while !p.is_durable(position) {
            heard.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        let last = lines(dir.path()).pop().unwrap();
        assert!(last.contains(&text), "{last}");
    }
    assert!(handle.stats().batches >= 50);
    handle.shutdown();
    assert_eq!(check(dir.path()).verdict, Verdict::Ok);
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_p, _c, handle) = start(options(dir.path(), Mode::Strict), 1, Vec::new()).unwrap();
    assert!(matches!(start(options(dir.path(), Mode::Strict), 1, Vec::new()), Err(StartError::Locked(_))));
    handle.shutdown();
    assert!(start(options(dir.path(), Mode::Strict), 1, Vec::new()).is_ok());
}

#[test]
fn a_log_whose_holder_is_just_ending_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_producers, _control, handle) = start(options(dir.path(), Mode::Strict), 1, Vec::new()).unwrap();
    let next = std::thread::spawn({
        let dir = dir.path().to_owned();
        move || start(options(&dir, Mode::Strict), 1, Vec::new()).map(|(_, _, handle)| handle.shutdown())
    });
    // Long enough for the thread to have met the lock; the wait itself is ten times that.
    assert!(!next.is_finished());
    std::thread::park_timeout(Duration::from_millis(50));
    assert!(!next.is_finished(), "it neither got the log nor gave up");
    handle.shutdown();
    next.join().unwrap().unwrap();
}
