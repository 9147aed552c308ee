//! What the tests of the log share.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringgate_audit::verify::{Report, verify};
use ringgate_audit::{Event, Mode, NoParameters, Options, SessionFacts, SessionSlot, Stamp, Statement};
use serde_json::{Map, Value};

pub(crate) const T0: u64 = 1_763_636_306_014_000;

pub(crate) fn options(dir: &Path, mode: Mode) -> Options {
    let mut options = Options::new(dir);
    options.mode = mode;
    options.ring_bytes = 256 << 10;
    options.cluster_name = "gw".to_owned();
    options.server_id = "gw-1".to_owned();
    options
}

pub(crate) fn facts(user: &str) -> SessionFacts<'_> {
    SessionFacts {
        sid: uuid::Uuid::from_u128(0x0192_f3e1_aa00_7000_8000_0000_0000_0001),
        user,
        user_kind: "human",
        cert_serial: "0a1b",
        addr_remote: "10.0.3.7:51402",
        db_service: "my-postgres",
        db_protocol: "postgres",
        db_uri: "postgres.internal:5432",
        db_user: "alice",
        db_name: "mydb",
        ..SessionFacts::default()
    }
}

pub(crate) fn stamp(session: SessionSlot, ei: u32) -> Stamp {
    Stamp { session: Some(session), ei, time_us: T0 }
}

pub(crate) fn statement(text: &[u8]) -> Statement<'_> {
    Statement { text, full_bytes: text.len() as u64, sha256: None, query_type: "SELECT" }
}

pub(crate) fn query(text: &[u8]) -> Event<'_> {
    Event::Query { statement: statement(text), parameters: &NoParameters, error: "" }
}

/// Segments in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    all.sort();
    all
}

/// Every event line, batch and header lines left out.
pub(crate) fn lines(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for path in segments(dir) {
        let text = std::fs::read_to_string(path).unwrap();
        all.extend(text.lines().filter(|l| l.starts_with("{\"v\":1,\"seq\":")).map(str::to_owned));
    }
    all
}

pub(crate) fn check(dir: &Path) -> Report {
    verify(dir, None, None, &mut |_| {}).unwrap()
}

/// Tries until it holds; a minute is for the slowest machine.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < limit, "never: {what}");
        std::thread::yield_now();
    }
}

/// Makes a sealed segment writable.
pub(crate) fn unseal(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn result(query_ei: u32, rows: u64) -> Event<'static> {
    Event::Result {
        query_ei,
        success: true,
        rows: Some(rows),
        duration_us: 5,
        code: b"",
        error: b"",
        copy_bytes: 0,
        query_sha256: None,
        skipped: false,
        warnings: 0,
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
pub(crate) fn apart(line: Value) -> Vec<Value> {
    let Value::Object(mut line) = line else { return Vec::new() };
    let shared: Map<String, Value> =
        line.iter().filter(|(name, _)| SHARED.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
    let with = |event: &str, code: &str, ei: Value, members: Vec<(&str, Value)>| {
        let mut all = shared.clone();
        all.insert("event".to_owned(), event.into());
        all.insert("code".to_owned(), code.into());
        all.insert("ei".to_owned(), ei);
        all.extend(members.into_iter().filter(|(_, v)| !v.is_null()).map(|(n, v)| (n.to_owned(), v)));
        Value::Object(all)
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
            Value::Object(line.clone())
        })),
        None => records.push(Value::Object(line)),
    }
    if let Some(Value::Object(mut result)) = result {
        let own = result.remove("ei").unwrap_or(Value::Null);
        let mut record = with("db.session.result", "TDB10I", own, vec![("query_ei", ei)]);
        if let Value::Object(members) = &mut record {
            members.extend(result);
        }
        records.push(record);
    }
    records
}
