//! `audit tail|search|verify`: the log is read from its files, so that it can be judged without the server.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringgate_audit::search::{self, Filter};
use ringgate_audit::tail::Tail;
use ringgate_audit::verify::{self, Damage, Report, Verdict, VerifyError};
use serde_json::{Map, Value, json};

use super::arguments::{AuditCommand, AuditFilter, AuditPlace};
use super::context::Context;
use super::failure::{Exit, Failure, file};
use super::output::{self, Format, escape};
use crate::config::{Config, parse_duration};

/// How long one look for new records waits.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn run(context: &Context, command: AuditCommand) -> Result<i32, Failure> {
    match command {
        AuditCommand::Tail { place, filter, lines, no_follow } => {
            tail(&folder(context, place)?, &filter_of(filter)?, lines, no_follow).map(|()| 0)
        }
        AuditCommand::Search { place, filter, limit, format } => {
            find(&folder(context, place)?, &filter_of(filter)?, limit, format.format).map(|()| 0)
        }
        AuditCommand::Verify { place, key, since, format } => {
            let since = since.as_deref().map(instant_us).transpose()?;
            check(&folder(context, place)?, key.as_deref(), since, format.format)
        }
    }
}

/// `--dir`, else that of `-c`, else that of the profile.
fn folder(context: &Context, place: AuditPlace) -> Result<PathBuf, Failure> {
    if let Some(dir) = place.dir {
        return Ok(dir);
    }
    if let Some(path) = context.config_file() {
        let config = Config::load(path).map_err(|e| super::config::failure(e, Exit::Failed))?;
        return Ok(config.audit.dir);
    }
    context.profile()?.audit_dir.ok_or_else(|| {
        Failure::new(Exit::NotFound, "the audit log of this profile is not on this machine").attempt("add --dir DIR")
    })
}

fn filter_of(arguments: AuditFilter) -> Result<Filter, Failure> {
    let instant = |text: Option<String>| text.as_deref().map(instant_us).transpose();
    Ok(Filter {
        event: arguments.event,
        user: arguments.user,
        db: arguments.db,
        sid: arguments.sid,
        since_us: instant(arguments.since)?,
        until_us: instant(arguments.until)?,
        text: arguments.text,
    })
}

/// RFC 3339, a date, or a time back from now (`-24h`), as microseconds since 1970.
fn instant_us(text: &str) -> Result<u64, Failure> {
    let wrong = |why: String| {
        Failure::new(Exit::Usage, format!("`{text}` is not a time"))
            .why(why)
            .attempt("2026-11-20T10:00:00Z, 2026-11-20 or -24h")
    };
    let now = jiff::Timestamp::now();
    let instant = if let Some(back) = text.strip_prefix('-') {
        let back = parse_duration(back).map_err(wrong)?;
        now.checked_sub(back).map_err(|e| wrong(e.to_string()))?
    } else if let Ok(date) = text.parse::<jiff::civil::Date>() {
        date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|e| wrong(e.to_string()))?.timestamp()
    } else {
        text.parse().map_err(|e: jiff::Error| wrong(e.to_string()))?
    };
    u64::try_from(instant.as_microsecond()).map_err(|_| wrong("it is before 1970".to_owned()))
}

fn unreadable(dir: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |e| file("read the audit log in", dir, &e)
}

fn tail(dir: &Path, filter: &Filter, lines: usize, no_follow: bool) -> Result<(), Failure> {
    if !dir.is_dir() {
        return Err(unreadable(dir)(std::io::ErrorKind::NotFound.into()));
    }
    let mut tail = Tail::open(dir, false).map_err(unreadable(dir))?;
    let mut past = VecDeque::new();
    while let Some(line) = tail.next(Duration::ZERO).map_err(unreadable(dir))? {
        if lines > 0 && accepts(filter, &line) {
            if past.len() == lines {
                past.pop_front();
            }
            past.push_back(line);
        }
    }
    for line in past {
        output::write(&(line + "\n"))?;
    }
    if no_follow {
        return Ok(());
    }
    loop {
        if let Some(line) = tail.next(LOOK).map_err(unreadable(dir))?
            && accepts(filter, &line)
        {
            output::write(&(line + "\n"))?;
        }
    }
}

/// Whether one line satisfies the filter, as `search` understands it.
fn accepts(filter: &Filter, line: &str) -> bool {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else { return false };
    let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| text_of(&event, name) == w);
    let time = text_of(&event, "time").parse::<jiff::Timestamp>().ok();
    let time = time.and_then(|t| u64::try_from(t.as_microsecond()).ok()).unwrap_or(0);
    let text = |wanted: &String| line.to_ascii_lowercase().contains(&wanted.to_ascii_lowercase());
    filter.event.as_deref().is_none_or(|pattern| glob(pattern, text_of(&event, "event")))
        && is(&filter.user, "user")
        && is(&filter.db, "db_service")
        && is(&filter.sid, "sid")
        && filter.since_us.is_none_or(|since| time >= since)
        && filter.until_us.is_none_or(|until| time < until)
        && filter.text.as_ref().is_none_or(text)
}

fn text_of<'e>(event: &'e Map<String, Value>, name: &str) -> &'e str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    while let Some((middle, after)) = rest.split_once('*') {
        let Some(at) = text.find(middle) else { return false };
        text = &text[at + middle.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

fn find(dir: &Path, filter: &Filter, limit: usize, format: Format) -> Result<(), Failure> {
    let mut found = VecDeque::new();
    search::search(dir, filter, &mut |one| {
        if found.len() == limit {
            found.pop_front();
        }
        if limit > 0 {
            found.push_back(Value::Object(one.event));
        }
        true
    })
    .map_err(unreadable(dir))?;
    let found: Vec<Value> = found.into();
    if format != Format::Text {
        return output::list(format, &[], &found);
    }
    let rows: Vec<Value> = found.iter().filter_map(Value::as_object).map(row).collect();
    let columns = [
        ("Time", "time"),
        ("Event", "event"),
        ("User", "user"),
        ("Database", "db"),
        ("DB user", "db_user"),
        ("Session", "sid"),
        ("Outcome", "outcome"),
        ("Text", "text"),
    ];
    output::list(Format::Text, &columns, &rows)
}

/// One event as people read it: the statement, else what was done to what, else why not.
fn row(event: &Map<String, Value>) -> Value {
    let result = event.get("result").and_then(Value::as_object);
    let success = result.unwrap_or(event).get("success").and_then(Value::as_bool);
    let outcome = match (success, result.and_then(|r| r.get("rows")).and_then(Value::as_u64)) {
        (Some(false), _) => "failed".to_owned(),
        (Some(true), Some(rows)) => format!("{rows} rows"),
        (Some(true), None) => "ok".to_owned(),
        (None, _) => String::new(),
    };
    let text = ["db_query", "error", "reason", "name", "message"].iter().map(|name| text_of(event, name));
    json!({
        "time": text_of(event, "time"),
        "event": text_of(event, "event"),
        "user": text_of(event, "user"),
        "db": text_of(event, "db_service"),
        "db_user": text_of(event, "db_user"),
        "sid": text_of(event, "sid"),
        "outcome": outcome,
        "text": text.into_iter().find(|t| !t.is_empty()).unwrap_or_default().to_owned() + &keys_of(event),
    })
}

/// The keys of a command, each behind a space.
fn keys_of(event: &Map<String, Value>) -> String {
    let keys = event.get("keys").and_then(Value::as_array).into_iter().flatten();
    keys.filter_map(Value::as_str).flat_map(|key| [" ", key]).collect()
}

fn check(dir: &Path, key: Option<&Path>, since_us: Option<u64>, format: Format) -> Result<i32, Failure> {
    let report = verify::verify(dir, key, since_us, &mut |_| {}).map_err(|e| match e {
        VerifyError::Empty(_) => Failure::new(Exit::NotFound, e.to_string()),
        VerifyError::Key(_) if !holds_log(dir) => {
            Failure::new(Exit::NotFound, format!("{} holds no audit log", dir.display()))
        }
        VerifyError::Key(_) => Failure::new(Exit::Unverified, e.to_string()),
        VerifyError::Io { .. } => Failure::new(Exit::Failed, e.to_string()),
    })?;
    output::value(format, || sentence(&report), &structured(&report))?;
    Ok(match report.verdict {
        Verdict::Ok | Verdict::CleanCrashTail => 0,
        Verdict::Broken { .. } => Exit::Unverified.code(),
    })
}

/// Whether there is a segment, so that a missing key is a finding and not a wrong folder.
fn holds_log(dir: &Path) -> bool {
    let segment = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "jsonl");
    std::fs::read_dir(dir).is_ok_and(|entries| entries.filter_map(Result::ok).any(segment))
}

fn sentence(report: &Report) -> String {
    let counts =
        format!("{} events · {} segments · {} checkpoints", report.events, report.segments, report.checkpoints);
    match &report.verdict {
        Verdict::Ok => format!("verified  {counts} · chain OK · last seal {}\n", report.last_seal),
        Verdict::CleanCrashTail => format!(
            "verified  {counts} · chain OK · last seal {}\n          behind it stands what a crash cut short; the next \
             start repairs it\n",
            report.last_seal
        ),
        Verdict::Broken { kind, segment, batch, first_seq, last_seq, text } => format!(
            "BROKEN    {} · segment {segment} · batch {batch} · events {first_seq} to {last_seq}\n          {}\n          \
             whole before it: {counts}\n",
            damage(*kind),
            escape(text)
        ),
    }
}

fn damage(kind: Damage) -> &'static str {
    match kind {
        Damage::Modified => "modified",
        Damage::Missing => "missing",
        Damage::Reordered => "reordered",
        Damage::TruncatedTail => "truncated tail",
        Damage::BadSignature => "bad signature",
    }
}

fn structured(report: &Report) -> Value {
    let verdict = match &report.verdict {
        Verdict::Ok => json!({ "verdict": "ok" }),
        Verdict::CleanCrashTail => json!({ "verdict": "clean_crash_tail" }),
        Verdict::Broken { kind, segment, batch, first_seq, last_seq, text } => json!({
            "verdict": damage(*kind).replace(' ', "_"),
            "segment": segment,
            "batch": batch,
            "first_seq": first_seq,
            "last_seq": last_seq,
            "text": text,
        }),
    };
    let mut value = json!({
        "events": report.events,
        "segments": report.segments,
        "checkpoints": report.checkpoints,
        "last_seal": report.last_seal,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut value, verdict) {
        all.extend(more);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_back_from_now() {
        assert_eq!(instant_us("1970-01-01T00:00:01Z").unwrap(), 1_000_000);
        assert_eq!(instant_us("1970-01-02").unwrap(), 86_400_000_000);
        let now = instant_us("-0s").unwrap();
        let before = instant_us("-1h").unwrap();
        assert!((3_599_000_000..=3_600_000_000).contains(&(now - before)), "{now} {before}");
        for wrong in ["yesterday", "-1x", "1960-01-01", ""] {
            assert_eq!(instant_us(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_line_is_shown_when_all_that_is_asked_holds() {
        let line =
            r#"{"time":"2026-11-20T10:00:00Z","event":"db.session.query","user":"alice","db_query":"DROP table x"}"#;
        let with = |set: fn(&mut Filter)| {
            let mut filter = Filter::default();
            set(&mut filter);
            accepts(&filter, line)
        };
        assert!(with(|f| f.event = Some("db.session.*".into())));
        assert!(with(|f| f.event = Some("*.session.q*y".into())));
        assert!(!with(|f| f.event = Some("db.session".into())));
        assert!(with(|f| f.user = Some("alice".into())));
        assert!(!with(|f| f.user = Some("bob".into())));
        assert!(with(|f| f.text = Some("drop TABLE".into())));
        assert!(!with(|f| f.since_us = Some(instant_us("2027-01-01").unwrap())));
        assert!(!with(|f| f.until_us = Some(instant_us("2026-01-01").unwrap())));
    }
}
