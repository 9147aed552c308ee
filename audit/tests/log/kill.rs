//! A process killed at any moment loses no record that `record` returned for, and repeats none.
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringgate_audit::verify::Verdict;
use ringgate_audit::{Event, Mode, Options, start};
use uuid::Uuid;

use crate::support::{apart, check, facts, lines, options, query, result, stamp};

const CHILD: &str = "RINGGATE_AUDIT_KILL_CHILD";

fn settings(dir: &Path) -> Options {
    let mut options = options(dir, Mode::Strict);
    options.checkpoint_interval = Duration::from_millis(15);
    options.segment_bytes = 200 << 10;
    options.batch_bytes = 8 << 10;
    options
}

/// Records for ever; says on stdout how many `record` has returned for.
fn record_until_killed(dir: &str, round: &str) {
    let (mut producers, control, _handle) = start(settings(Path::new(dir)), 2, Vec::new()).unwrap();
    let mut out = std::io::stdout();
    let mut slots = Vec::new();
    for (i, p) in producers.iter_mut().enumerate() {
        let user = format!("user-{round}-{i}");
        let mut about = facts(&user);
        about.sid = Uuid::new_v4();
        slots.push(p.open_session(&about).unwrap());
    }
    for n in 0u32.. {
        let which = n as usize % 2;
        let text = format!("select '{round}:{n}' {}", "x".repeat(n as usize * 13 % 700));
        while producers[which].pressure() {
            std::thread::yield_now();
        }
        producers[which].record(stamp(slots[which], 2 * n), &query(text.as_bytes())).unwrap();
        producers[which].record(stamp(slots[which], 2 * n + 1), &result(2 * n, u64::from(n))).unwrap();
        if n % 50 == 49 {
            // Sessions come and go: what is drained later must still know whose it was.
            producers[which].close_session(slots[which]);
            let user = format!("user-{round}-{which}");
            let mut about = facts(&user);
            about.sid = Uuid::new_v4();
            slots[which] = producers[which].open_session(&about).unwrap();
            control.record(&Event::Other { event: "server.ready", code: "TSV02I", members: "" });
        }
        out.write_all(&n.to_le_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_no_record_and_repeats_none() {
    if let Ok(dir) = std::env::var(CHILD) {
        record_until_killed(&dir, &std::env::var("ROUND").unwrap());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut returned = Vec::new();
    for round in 0..14u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::a_killed_process_loses_no_record_and_repeats_none", "--nocapture", "--quiet"])
            .env(CHILD, dir.path())
            .env("ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut said = Vec::new();
        // The harness prints a little before the child's first number.
        let goal = 64 + 4 * [0, 1, 3, 900, 49, 50, 2000, 7, 5000, 150, 301, 99, 3333, 640][round as usize];
        let mut block = [0u8; 512];
        while said.len() < goal {
            let n = stdout.read(&mut block).unwrap();
            assert!(n > 0, "the child ended by itself: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&block[..n]);
        }
        child.kill().unwrap();
        stdout.read_to_end(&mut said).unwrap();
        child.wait().unwrap();
        let first = said.windows(8).position(|w| w == [0, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        returned.push(((said.len() - first) / 4) as u32);
        // Every other round the next child itself recovers, and may be killed while it does.
        if round % 2 == 1 {
            let (_p, _c, handle) = start(settings(dir.path()), 1, Vec::new()).unwrap();
            handle.shutdown();
            assert_eq!(check(dir.path()).verdict, Verdict::Ok);
        } else {
            let verdict = check(dir.path()).verdict;
            assert!(matches!(verdict, Verdict::Ok | Verdict::CleanCrashTail), "{verdict:?}");
        }
    }
    let mut seen: HashMap<(u32, u32), u32> = HashMap::new();
    let mut results: HashMap<(String, u64), u32> = HashMap::new();
    let (mut recovered, mut joined) = (0, 0);
    for line in lines(dir.path()) {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        recovered += u32::from(value["event"] == "audit.recover");
        for event in apart(value.clone()) {
            if let Some(rows) = event["rows"].as_u64() {
                assert_eq!(event["query_ei"], 2 * rows);
                *results.entry((event["user"].as_str().unwrap().to_owned(), rows)).or_default() += 1;
            }
        }
        joined += u32::from(value["result"].is_object());
        let Some(text) = value["db_query"].as_str() else { continue };
        let (round, n) = text.split('\'').nth(1).unwrap().split_once(':').unwrap();
        let key = (round.parse().unwrap(), n.parse::<u32>().unwrap());
        *seen.entry(key).or_default() += 1;
        assert_eq!(value["user"], format!("user-{round}-{}", key.1 % 2), "{line}");
        assert_eq!(value["ei"], 2 * key.1);
        assert_eq!(value["worker"], key.1 % 2);
        assert_eq!(value["db_name"], "mydb");
    }
    for (round, count) in returned.iter().enumerate() {
        for n in 0..*count {
            assert_eq!(seen.get(&(round as u32, n)), Some(&1), "round {round}, record {n} of {count}");
            let result = (format!("user-{round}-{}", n % 2), u64::from(n));
            assert_eq!(results.get(&result), Some(&1), "round {round}, result {n} of {count}");
        }
    }
    assert!(seen.values().all(|n| *n == 1) && results.values().all(|n| *n == 1));
    assert!(joined > 1000 && (joined as usize) < results.len(), "{joined} of {}", results.len());
    assert!(recovered >= 7, "{recovered}");
    assert_eq!(std::fs::read_dir(dir.path().join("rings")).unwrap().count(), 4, "former rings are removed");
}

#[test]
fn a_torn_tail_is_repaired_and_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    for (i, torn) in [&b"{\"v\":1,\"seq\":9"[..], &[0; 5000], b"{\"v\":1,\"seq\":2}\n{\"v\":1", b"\0\0\0\n{\"v\":1}\n"]
        .iter()
        .enumerate()
    {
        let (mut producers, _control, handle) = start(settings(dir.path()), 1, Vec::new()).unwrap();
        let slot = producers[0].open_session(&facts("alice")).unwrap();
        producers[0].record(stamp(slot, 0), &query(b"select 1")).unwrap();
        handle.shutdown();
        let last = crate::support::segments(dir.path()).pop().unwrap();
        let whole = std::fs::read(&last).unwrap();
        crate::support::unseal(&last);
        std::fs::write(&last, [&whole, *torn].concat()).unwrap();
        assert_eq!(check(dir.path()).verdict, Verdict::CleanCrashTail);
        let (_p, _control, handle) = start(settings(dir.path()), 1, Vec::new()).unwrap();
        handle.shutdown();
        assert_eq!(check(dir.path()).verdict, Verdict::Ok);
        assert_eq!(std::fs::read(&last).unwrap(), whole);
        let kept = dir.path().join("torn").read_dir().unwrap().map(|e| std::fs::read(e.unwrap().path()).unwrap());
        assert!(kept.into_iter().any(|k| k == **torn));
        let told =
            lines(dir.path()).iter().filter(|l| l.contains("\"event\":\"audit.recover\",\"code\":\"TAU03I\"")).count();
        assert_eq!(told, i + 1);
    }
}
