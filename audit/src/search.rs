//! Finding events: a stream over the segments. Statements that the writer could not join with their results are joined
//! here, so that a statement found has its outcome as the member `result` either way.
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use crate::json::Clock;
use crate::segment::{self, BATCH_START, HEADER_START};

/// Matches held back for their results; beyond, the oldest is shown without.
const WAITING_MAX: usize = 4096;

/// What to look for. All that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Event name with `*` for any text, as in `db.session.*`.
    pub event: Option<String>,
    /// Product user.
    pub user: Option<String>,
    /// Registered name of the database.
    pub db: Option<String>,
    /// Session id.
    pub sid: Option<String>,
    /// Not before, microseconds since 1970 UTC.
    pub since_us: Option<u64>,
    /// Before, microseconds since 1970 UTC.
    pub until_us: Option<u64>,
    /// Part of the line as stored, any case of ASCII letters.
    pub text: Option<String>,
}

/// One event found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its members in the order of the file; a statement has its result as the member `result`.
    pub event: Map<String, Value>,
}

impl Filter {
    /// Whether an event line's members satisfy all that is set but `text`, which is of the line.
    fn matches(&self, event: &Map<String, Value>, since: Option<&[u8]>, until: Option<&[u8]>) -> bool {
        let get = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let is = |want: &Option<String>, name: &str| want.as_deref().is_none_or(|w| w == get(name));
        let time = get("time").as_bytes();
        self.event.as_deref().is_none_or(|glob| matches_glob(glob.as_bytes(), get("event").as_bytes()))
            && is(&self.user, "user")
            && is(&self.db, "db_service")
            && is(&self.sid, "sid")
            && since.is_none_or(|s| time >= s)
            && until.is_none_or(|u| time < u)
    }
}

/// Calls `each` for every match, oldest first, until it answers `false`. Whole lines only; a torn tail is passed over.
pub fn search(dir: &Path, filter: &Filter, each: &mut dyn FnMut(Found) -> bool) -> io::Result<()> {
    let since = filter.since_us.map(|us| Clock::new().format(us).to_vec());
    let until = filter.until_us.map(|us| Clock::new().format(us).to_vec());
    let needle = filter.text.as_ref().map(|t| t.to_ascii_lowercase());
    let mut joiner = Joiner::default();
    for (_, path) in segment::list(dir)? {
        let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
                break;
            }
            if line.starts_with(BATCH_START) || line.starts_with(HEADER_START) {
                continue;
            }
            // A result may belong to a match though it does not match itself.
            let result = joiner.waits() && memchr::memmem::find(&line, b"\"event\":\"db.session.result\"").is_some();
            let text = needle.as_ref().is_none_or(|n| contains(&line, n.as_bytes()));
            if !text && !result {
                continue;
            }
            let Ok(Value::Object(event)) = serde_json::from_slice(&line) else { continue };
            let event = if result {
                match joiner.join(event) {
                    Some(event) => event,
                    None => {
                        if !joiner.emit(each, false) {
                            return Ok(());
                        }
                        continue;
                    }
                }
            } else {
                event
            };
            if text && filter.matches(&event, since.as_deref(), until.as_deref()) {
                joiner.push(event);
                if !joiner.emit(each, false) {
                    return Ok(());
                }
            }
        }
    }
    joiner.emit(each, true);
    Ok(())
}

/// Matches in order, held back while a statement's result may still come.
#[derive(Default)]
struct Joiner {
    queue: VecDeque<(Map<String, Value>, bool)>,
    /// Place in the queue, counted from the first ever pushed.
    waiting: HashMap<(String, u64), u64>,
    shown: u64,
}

impl Joiner {
    fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn push(&mut self, event: Map<String, Value>) {
        let get = |name: &str| event.get(name).and_then(Value::as_str);
        let statement = matches!(
            get("event"),
            Some(
                "db.session.query"
                    | "db.session.postgres.statements.execute"
                    | "db.session.postgres.function"
                    | "db.session.mysql.statements.execute"
            )
        );
        // What the writer joined waits for nothing.
        let waits = statement && !event.contains_key("result");
        let key = get("sid").zip(event.get("ei").and_then(Value::as_u64)).filter(|_| waits);
        let waits = key.is_some();
        if let Some((sid, ei)) = key {
            self.waiting.insert((sid.to_owned(), ei), self.shown + self.queue.len() as u64);
        }
        self.queue.push_back((event, waits));
    }

    /// Hangs a result on its statements; gives it back when none of them is waiting.
    fn join(&mut self, result: Map<String, Value>) -> Option<Map<String, Value>> {
        let number = |name: &str| result.get(name).and_then(Value::as_u64);
        let sid = result.get("sid").and_then(Value::as_str);
        let Some((sid, first)) = sid.zip(number("query_ei")) else { return Some(result) };
        let end = first.saturating_add(number("query_count").unwrap_or(1));
        let mut places = Vec::new();
        if end - first <= self.waiting.len() as u64 {
            places.extend((first..end).filter_map(|ei| self.waiting.remove(&(sid.to_owned(), ei))));
        } else {
            let of_result = |key: &(String, u64), _: &mut u64| key.0 == sid && (first..end).contains(&key.1);
            places.extend(self.waiting.extract_if(of_result).map(|(_, place)| place));
        }
        if places.is_empty() {
            return Some(result);
        }
        let own = [
            "seq",
            "time",
            "ei",
            "success",
            "rows",
            "duration_us",
            "error_code",
            "error",
            "copy_bytes",
            "query_sha256",
            "skipped",
            "masked",
        ];
        let kept = result.into_iter().filter(|(name, _)| own.contains(&name.as_str())).collect();
        let kept = Value::Object(kept);
        for place in places {
            let place = place.checked_sub(self.shown).and_then(|place| usize::try_from(place).ok());
            if let Some((statement, waits)) = place.and_then(|place| self.queue.get_mut(place)) {
                *waits = false;
                statement.insert("result".to_owned(), kept.clone());
            }
        }
        None
    }

    /// Shows from the front what waits no longer. `false`: enough was shown.
    fn emit(&mut self, each: &mut dyn FnMut(Found) -> bool, all: bool) -> bool {
        while let Some((_, waits)) = self.queue.front() {
            if *waits && !all && self.queue.len() <= WAITING_MAX {
                break;
            }
            let Some((event, waits)) = self.queue.pop_front() else { break };
            if waits {
                let place = self.shown;
                self.waiting.retain(|_, p| *p != place);
            }
            self.shown += 1;
            if !each(Found { event }) {
                return false;
            }
        }
        true
    }
}

/// `*` stands for any text, the rest for itself.
fn matches_glob(glob: &[u8], text: &[u8]) -> bool {
    match memchr::memchr(b'*', glob) {
        None => glob == text,
        Some(star) => {
            let Some(mut rest) = text.strip_prefix(&glob[..star]) else { return false };
            let after = &glob[star + 1..];
            loop {
                if matches_glob(after, rest) {
                    return true;
                }
                match rest.split_first() {
                    Some((_, shorter)) => rest = shorter,
                    None => return false,
                }
            }
        }
    }
}

/// Whether `lower` occurs in `line`, any case of ASCII letters.
fn contains(line: &[u8], lower: &[u8]) -> bool {
    let Some(first) = lower.first() else { return true };
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), line)
        .any(|i| line.get(i..i + lower.len()).is_some_and(|part| part.eq_ignore_ascii_case(lower)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (glob, text, want) in [
            ("db.session.*", "db.session.query", true),
            ("db.session.*", "db.session", false),
            ("*", "", true),
            ("*.query*", "db.session.query.failed", true),
            ("db.session.query", "db.session.query.failed", false),
            ("*query", "db.session.query.failed", false),
        ] {
            assert_eq!(matches_glob(glob.as_bytes(), text.as_bytes()), want, "{glob} {text}");
        }
    }
}
