//! What was done to a log is named.
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringgate_audit::verify::{Damage, Verdict, VerifyError, verify};
use ringgate_audit::{Mode, public_key_path, start};

use crate::support::{check, facts, lines, options, query, result, segments, stamp, unseal};
use crate::{independent, support};

/// Three segments, a dozen batches, checkpoints in between, stopped in order.
fn build(dir: &Path) {
    let mut settings = options(dir, Mode::Strict);
    settings.segment_bytes = 12_000;
    settings.checkpoint_interval = std::time::Duration::ZERO;
    settings.flush_interval = std::time::Duration::from_secs(30);
    let (mut producers, _control, handle) = start(settings, 1, Vec::new()).unwrap();
    let slot = producers[0].open_session(&facts("alice")).unwrap();
    let mut ei = 0;
    support::until("three segments", || {
        for _ in 0..4 {
            producers[0].record(stamp(slot, ei), &query(format!("select {ei} as original").as_bytes())).unwrap();
            ei += 1;
            if ei % 3 == 0 {
                producers[0].record(stamp(slot, ei), &result(ei - 1, 7)).unwrap();
                ei += 1;
            }
        }
        assert!(handle.flush());
        segments(dir).len() >= 3
    });
    producers[0].record(stamp(slot, ei), &query(b"select last")).unwrap();
    handle.shutdown();
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    unseal(path);
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(path, lines.concat()).unwrap();
}

fn is_event(line: &str) -> bool {
    line.contains("\"db_query\":\"select")
}
fn is_batch(line: &str) -> bool {
    line.contains("\"event\":\"audit.batch\"")
}
/// Index ranges of the batches, batch lines included.
fn batches(lines: &[String]) -> Vec<std::ops::Range<usize>> {
    let mut from = 1;
    let mut all = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if is_batch(line) {
            all.push(from..i + 1);
            from = i + 1;
        }
    }
    all
}

/// Gives every batch of a segment the hashes its lines have now, as someone without the key could.
fn relink(lines: &mut [String]) {
    let hash = |t: &str| STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, t.as_bytes()));
    let set = |line: &mut String, name: &str, value: &str| {
        let from = line.find(&format!("\"{name}\":\"")).unwrap() + name.len() + 4;
        line.replace_range(from..from + 44, value);
    };
    let mut covered = String::new();
    let mut prev: Option<String> = None;
    for line in lines {
        if is_batch(line) {
            set(line, "sha256", &hash(&covered));
            if let Some(prev) = &prev {
                set(line, "prev", prev);
            }
            prev = Some(hash(line));
            covered.clear();
        } else {
            covered.push_str(line);
        }
    }
}

type Change = fn(&Path, &[PathBuf]);

#[test]
fn each_change_is_named_right() {
    let original = tempfile::tempdir().unwrap();
    build(original.path());
    let whole = check(original.path());
    assert_eq!(whole.verdict, Verdict::Ok);
    assert_eq!(whole.events, lines(original.path()).len() as u64);
    assert!(whole.checkpoints > 3 && independent::whole(original.path()));
    let changes: &[(&str, Damage, Change)] = &[
        ("a bit of a statement", Damage::Modified, |_, s| {
            edit(&s[1], |l| {
                let line = l.iter_mut().find(|l| is_event(l)).unwrap();
                *line = line.replace("original", "oriGinal");
            })
        }),
        ("what came of a statement", Damage::Modified, |_, s| {
            edit(&s[1], |l| {
                let line = l.iter_mut().find(|l| l.contains("\"rows\":7")).unwrap();
                *line = line.replace("\"rows\":7", "\"rows\":1");
            })
        }),
        ("a number of a line", Damage::Missing, |_, s| {
            edit(&s[0], |l| {
                let line = l.iter_mut().find(|l| is_event(l)).unwrap();
                *line = line.replace("\"seq\":1,", "\"seq\":9000,");
            })
        }),
        ("a line turned into something else", Damage::Modified, |_, s| edit(&s[0], |l| l[2] = "nonsense\n".to_owned())),
        ("a header", Damage::Modified, |_, s| edit(&s[1], |l| l[0] = l[0].replace("\"time\":\"2", "\"time\":\"3"))),
        ("a batch line", Damage::Modified, |_, s| {
            edit(&s[0], |l| {
                let line = l.iter_mut().find(|l| is_batch(l)).unwrap();
                *line = line.replace("\"time\":\"2", "\"time\":\"3");
            })
        }),
        ("a line taken out", Damage::Missing, |_, s| edit(&s[1], |l| drop(l.remove(2)))),
        ("the first line taken out", Damage::Missing, |_, s| edit(&s[0], |l| drop(l.remove(1)))),
        ("a batch taken out", Damage::Missing, |_, s| {
            edit(&s[1], |l| {
                let range = batches(l)[1].clone();
                l.drain(range);
            })
        }),
        ("a batch line taken out", Damage::Missing, |_, s| {
            edit(&s[1], |l| {
                let at = l.iter().position(|l| is_batch(l)).unwrap();
                l.remove(at);
            })
        }),
        ("the end of a finished segment", Damage::Missing, |_, s| {
            edit(&s[0], |l| {
                let range = batches(l).pop().unwrap();
                l.drain(range);
            })
        }),
        ("a segment taken out", Damage::Missing, |_, s| std::fs::remove_file(&s[1]).unwrap()),
        ("the first segment taken out", Damage::Missing, |_, s| std::fs::remove_file(&s[0]).unwrap()),
        ("two lines exchanged", Damage::Reordered, |_, s| edit(&s[1], |l| l.swap(1, 2))),
        ("two batches exchanged", Damage::Reordered, |_, s| {
            edit(&s[1], |l| {
                let all = batches(l);
                let (a, b) = (all[0].clone(), all[1].clone());
                let moved: Vec<String> = l[b.clone()].iter().chain(&l[a.clone()]).cloned().collect();
                l.splice(a.start..b.end, moved);
            })
        }),
        ("lines of two batches exchanged", Damage::Reordered, |_, s| {
            edit(&s[1], |l| {
                let all = batches(l);
                l.swap(all[0].start, all[1].start);
            })
        }),
        ("two segments exchanged", Damage::Reordered, |dir, s| {
            let aside = dir.join("aside");
            std::fs::rename(&s[0], &aside).unwrap();
            std::fs::rename(&s[1], &s[0]).unwrap();
            std::fs::rename(&aside, &s[1]).unwrap();
        }),
        ("the tail cut at a batch", Damage::TruncatedTail, |_, s| {
            edit(s.last().unwrap(), |l| {
                let range = batches(l).pop().unwrap();
                l.drain(range);
            })
        }),
        ("the tail cut in a line", Damage::TruncatedTail, |_, s| {
            edit(s.last().unwrap(), |l| {
                let range = batches(l).pop().unwrap();
                l.truncate(range.start + 1);
                let half = l[range.start].len() / 2;
                l[range.start].truncate(half);
            })
        }),
        ("the last segment taken out", Damage::TruncatedTail, |_, s| std::fs::remove_file(s.last().unwrap()).unwrap()),
        ("a checkpoint edited", Damage::BadSignature, |_, s| {
            edit(&s[0], |l| {
                let line = l.iter_mut().find(|l| l.contains("\"checkpoint\":")).unwrap();
                *line = line.replace("ringgate/gw/gw-1\\n1\\n", "ringgate/gw/gw-1\\n2\\n");
            })
        }),
        ("another key", Damage::BadSignature, |dir, _| {
            let other = tempfile::tempdir().unwrap();
            build(other.path());
            std::fs::copy(public_key_path(other.path()), public_key_path(dir)).unwrap();
        }),
        ("the state edited", Damage::BadSignature, |dir, _| {
            let text = std::fs::read_to_string(dir.join("state")).unwrap();
            std::fs::write(dir.join("state"), text.replace("clean 1", "clean 0")).unwrap();
        }),
        ("the state taken out", Damage::Missing, |dir, _| std::fs::remove_file(dir.join("state")).unwrap()),
        ("everything from a statement on written anew with its hashes", Damage::Modified, |_, s| {
            edit(s.last().unwrap(), |l| {
                let line = l.iter_mut().find(|l| is_event(l)).unwrap();
                *line = line.replace("select", "delete");
                relink(l);
            })
        }),
    ];
    for (name, want, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        change(dir.path(), &segments(dir.path()));
        let found = check(dir.path()).verdict;
        match &found {
            Verdict::Broken { kind, first_seq, last_seq, .. } => {
                assert_eq!(kind, want, "{name}: {found:?}");
                assert!(first_seq <= last_seq, "{name}");
            }
            _ => panic!("{name}: {found:?}"),
        }
        assert!(!independent::whole(dir.path()), "{name}: the second verifier differs");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("keys")).unwrap();
    std::fs::copy(public_key_path(from), public_key_path(to)).unwrap();
    std::fs::copy(from.join("state"), to.join("state")).unwrap();
    for path in segments(from) {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_key_kept_elsewhere_is_used_and_a_missing_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let kept = dir.path().join("kept.pub");
    std::fs::rename(public_key_path(dir.path()), &kept).unwrap();
    assert!(matches!(verify(dir.path(), None, None, &mut |_| {}), Err(VerifyError::Key(_))));
    let mut seen = 0;
    let report = verify(dir.path(), Some(&kept), Some(u64::MAX), &mut |p| seen = p.segments).unwrap();
    assert_eq!((report.verdict, report.segments), (Verdict::Ok, seen));
}

#[test]
fn a_log_put_back_or_cut_before_a_start_is_still_told() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let last = segments(dir.path()).pop().unwrap();
    std::fs::remove_file(last).unwrap();
    let (_p, _c, handle) = start(options(dir.path(), Mode::Strict), 1, Vec::new()).unwrap();
    handle.shutdown();
    let Verdict::Broken { kind, .. } = check(dir.path()).verdict else { panic!("not told") };
    assert_eq!(kind, Damage::Missing);
    assert!(lines(dir.path()).iter().any(|l| l.contains("\"event\":\"audit.verify\",\"code\":\"TAU05W\"")));
}
