//! Reading the audit files as anybody could: JSON lines, in the order of their sequence numbers.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read},
    ops::Deref,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Record(pub Value);

impl Deref for Record {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Record {
    /// Event name.
    pub fn event(&self) -> &str {
        self.text("event")
    }

    /// A text field, empty when it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or("")
    }

    /// Position in the log.
    pub fn sequence(&self) -> u64 {
        self.0["seq"].as_u64().unwrap_or(0)
    }

    /// Whether this is the record of a statement that was forwarded: simple, or execution of a prepared one.
    pub fn is_statement(&self) -> bool {
        matches!(self.text("code"), "TDB02I" | "TPG02I" | "TPG04I")
    }
}

/// A command as the audit has it: what was sent, and what came of it.
#[derive(Clone, Debug)]
pub struct Command {
    /// Session.
    pub sid: String,
    /// Index in the session.
    pub ei: u64,
    /// Canonical name, `GET` or `CONFIG|SET`.
    pub name: String,
    /// Its keys; those that are no text in their recorded form.
    pub keys: Vec<String>,
    /// Whether it was forwarded.
    pub forwarded: bool,
    /// Whether it succeeded; `None` when no outcome is recorded.
    pub success: Option<bool>,
    /// The rule that refused it, or the server's error.
    pub error: String,
}

/// The commands of all sessions in the order of the log, each with its outcome: its own, or that of a run of commands.
pub fn commands(records: &[Record]) -> Vec<Command> {
    let mut outcomes = HashMap::new();
    for result in records.iter().filter(|r| r.text("code") == "TDB10I") {
        let first = result["query_ei"].as_u64().unwrap_or(u64::MAX);
        for n in 0..result["query_count"].as_u64().unwrap_or(1) {
            outcomes.insert((result.text("sid"), first.saturating_add(n)), result);
        }
    }
    let is_command = |r: &&Record| matches!(r.text("code"), "TDB02I" | "TDB02W") && r["arguments"].is_u64();
    let join = |r: &Record| {
        let (sid, ei) = (r.text("sid"), r["ei"].as_u64().unwrap_or(u64::MAX));
        let forwarded = r.text("code") == "TDB02I";
        let (success, error) = match outcomes.get(&(sid, ei)) {
            Some(outcome) => (outcome["success"].as_bool(), outcome.text("error")),
            None => (None, r.text("error")),
        };
        let keys = r["keys"].as_array().into_iter().flatten();
        Command {
            sid: sid.to_owned(),
            ei,
            name: r.text("db_query").to_owned(),
            keys: keys.map(|k| k.as_str().map_or_else(|| k.to_string(), str::to_owned)).collect(),
            forwarded,
            success: if forwarded { success } else { Some(false) },
            error: error.to_owned(),
        }
    };
    records.iter().filter(is_command).map(join).collect()
}

/// The events of one line: a statement's line may hold the steps before it and its result too. What they have in common
/// they all have; a line's events share its sequence number.
fn events(line: Value) -> Vec<Record> {
    let mut events = Vec::new();
    let mut step = |code: &str, ei: &Value, more: &[(&str, &Value)]| {
        if ei.is_u64() {
            let mut event = line.clone();
            event["code"] = code.into();
            event["ei"] = ei.clone();
            more.iter().for_each(|(key, value)| event[*key] = (*value).clone());
            events.push(Record(event));
        }
    };
    step("TPG00I", &line["parse_ei"], &[("query", &line["db_query"])]);
    step("TPG01I", &line["bind_ei"], &[("parameters", &line["db_query_parameters"])]);
    let mut statement = line.clone();
    let result = statement.as_object_mut().and_then(|s| s.remove("result"));
    events.push(Record(statement));
    if let Some(Value::Object(result)) = result {
        let common = ["seq", "time", "sid", "user", "db_service", "db_user", "db_name"];
        let mut event: serde_json::Map<String, Value> =
            common.iter().filter_map(|key| Some(((*key).to_owned(), line.get(*key)?.clone()))).collect();
        event.extend([("code".into(), "TDB10I".into()), ("event".into(), "db.session.result".into())]);
        event.insert("query_ei".into(), line["ei"].clone());
        event.extend(result);
        events.push(Record(Value::Object(event)));
    }
    events
}

/// All events with a sequence number under `directory`, in order. Ring files and checkpoints are passed over; a torn
/// last line, as a running writer may leave it, too.
pub fn read(directory: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for path in files(directory) {
        let Ok(mut file) = fs::File::open(&path) else { continue };
        let mut first = [0];
        if !matches!(file.read(&mut first), Ok(1)) || first != *b"{" {
            continue;
        }
        let mut line = first.to_vec();
        let mut lines = BufReader::new(file);
        while matches!(lines.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            if let Ok(value) = serde_json::from_slice::<Value>(&line)
                && value["seq"].is_u64()
            {
                records.extend(events(value));
            }
            line.clear();
        }
    }
    records.sort_by_key(Record::sequence);
    records
}

/// All regular files under `directory`, sorted.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
