//! Reading the audit files as anybody could: JSON lines, in the order of their sequence numbers.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read},
    ops::Deref,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// One event of the audit log.
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

/// Members that a statement's line and those of its steps and result have in common.
const SHARED: [&str; 17] = [
    "v",
    "seq",
    "time",
    "uid",
    "cluster_name",
    "server_id",
    "worker",
    "sid",
    "user",
    "user_kind",
    "access_requests",
    "db_service",
    "db_protocol",
    "db_uri",
    "db_user",
    "db_name",
    "addr.remote",
];

/// One record for each event: a line that joins a statement with its steps and its result is taken apart again. What was
/// joined has the sequence number of its line.
fn apart(line: Value) -> Vec<Record> {
    let Value::Object(mut line) = line else { return Vec::new() };
    let shared: Map<String, Value> =
        line.iter().filter(|(name, _)| SHARED.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
    let with = |event: &str, code: &str, ei: Value, members: Vec<(&str, Value)>| {
        let mut all = shared.clone();
        all.insert("event".to_owned(), event.into());
        all.insert("code".to_owned(), code.into());
        all.insert("ei".to_owned(), ei);
        all.extend(members.into_iter().filter(|(_, v)| !v.is_null()).map(|(n, v)| (n.to_owned(), v)));
        Record(Value::Object(all))
    };
    let mut records = Vec::new();
    let get = |line: &Map<String, Value>, name: &str| line.get(name).cloned().unwrap_or(Value::Null);
    if let Some(ei) = line.remove("parse_ei") {
        let mut members = vec![("statement_name", get(&line, "statement_name")), ("query", get(&line, "db_query"))];
        members.extend(
            ["encoding", "query_type", "truncated", "query_bytes", "query_sha256", "masked"]
                .map(|n| (n, get(&line, n))),
        );
        records.push(with("db.session.postgres.statements.parse", "TPG00I", ei, members));
    }
    if let Some(ei) = line.remove("bind_ei") {
        let members = vec![
            ("statement_name", line.remove("statement_name").unwrap_or(Value::Null)),
            ("portal_name", get(&line, "portal_name")),
            ("parameters", get(&line, "db_query_parameters")),
        ];
        records.push(with("db.session.postgres.statements.bind", "TPG01I", ei, members));
    }
    let result = line.remove("result");
    let ei = get(&line, "ei");
    let first = line.get("query_ei").and_then(Value::as_u64);
    match line.remove("query_count").and_then(|count| Some(first?..first? + count.as_u64()?)) {
        Some(statements) => records.extend(statements.map(|ei| {
            line.insert("query_ei".to_owned(), ei.into());
            Record(Value::Object(line.clone()))
        })),
        None => records.push(Record(Value::Object(line))),
    }
    if let Some(Value::Object(mut result)) = result {
        let own = result.remove("ei").unwrap_or(Value::Null);
        let mut record = with("db.session.result", "TDB10I", own, vec![("query_ei", ei)]);
        if let Value::Object(members) = &mut record.0 {
            members.extend(result);
        }
        records.push(record);
    }
    records
}

/// All records with a sequence number under `directory`, in order. Ring files and checkpoints are passed over; a torn
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
                records.extend(apart(value));
            }
            line.clear();
        }
    }
    records.sort_by_key(Record::sequence);
    in_order_of_their_index(records)
}

/// Puts the events of each session, in the places that they have together, in the order of their `ei`: of two statements
/// sent at once, the second comes before the result that the first one's line holds.
fn in_order_of_their_index(records: Vec<Record>) -> Vec<Record> {
    let mut sessions: HashMap<String, Vec<Record>> = HashMap::new();
    let places: Vec<String> = records.iter().map(|record| record.text("sid").to_owned()).collect();
    for record in records {
        sessions.entry(record.text("sid").to_owned()).or_default().push(record);
    }
    for (sid, events) in &mut sessions {
        if !sid.is_empty() {
            events.sort_by_key(|event| event["ei"].as_u64());
        }
        events.reverse();
    }
    places.iter().filter_map(|sid| sessions.get_mut(sid)?.pop()).collect()
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
