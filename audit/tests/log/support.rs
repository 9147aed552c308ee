//! What the tests of the log share.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringgate_audit::verify::{Report, verify};
use ringgate_audit::{Event, Mode, NoParameters, Options, SessionFacts, SessionSlot, Stamp, Statement};

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
