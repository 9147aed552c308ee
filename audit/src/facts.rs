//! Facts of live sessions, rendered once, and their file beside the ring.
//!
//! A session's facts leave the ring long before its last record. After a kill the next start must still know whose
//! records it drains, so each committed opening is appended to the ring's `.facts` file: length (u32), slot, length of
//! the line part, length of the start part, flags, then both parts.
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::encode::Cursor;
use crate::json;

/// Eis of masked statements kept per session until their results came.
const MASKED_MAX: usize = 64;

/// One session as the writer knows it.
pub(crate) struct Session {
    /// `"sid":…` to `"addr.remote":…`, as every line repeats it.
    pub(crate) line: Vec<u8>,
    /// `"roles":…,"cert_serial":…`, for the start line.
    pub(crate) start: Vec<u8>,
    pub(crate) postgres: bool,
    /// Known from the file of a former process: what was masked then is not known.
    pub(crate) restored: bool,
    masked: Vec<u32>,
    masked_over: bool,
}

impl Session {
    /// Renders an opening record's body.
    pub(crate) fn read(c: &mut Cursor<'_>) -> Option<Self> {
        let sid = uuid::Uuid::from_slice(c.raw(16)?).ok()?;
        let mut texts = [""; 9];
        for text in &mut texts {
            *text = std::str::from_utf8(c.bytes()?).ok()?;
        }
        let [user, kind, serial, addr, service, protocol, uri, db_user, db_name] = texts;
        let mut roles = Vec::new();
        list(&mut roles, c)?;
        let mut line = Vec::with_capacity(400);
        line.extend_from_slice(b"\"sid\":\"");
        line.extend_from_slice(sid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
        line.push(b'"');
        member(&mut line, "user", user);
        member(&mut line, "user_kind", kind);
        line.extend_from_slice(b",\"access_requests\":");
        list(&mut line, c)?;
        for (name, value) in [
            ("db_service", service),
            ("db_protocol", protocol),
            ("db_uri", uri),
            ("db_user", db_user),
            ("db_name", db_name),
            ("addr.remote", addr),
        ] {
            member(&mut line, name, value);
        }
        let mut start = b"\"roles\":".to_vec();
        start.extend_from_slice(&roles);
        member(&mut start, "cert_serial", serial);
        Some(Self {
            line,
            start,
            postgres: protocol == "postgres",
            restored: false,
            masked: Vec::new(),
            masked_over: false,
        })
    }

    /// Remembers that the statement `ei` was masked.
    pub(crate) fn note_masked(&mut self, ei: u32) {
        if self.masked.len() < MASKED_MAX { self.masked.push(ei) } else { self.masked_over = true }
    }

    /// Whether the statement `ei` was masked, or may have been.
    pub(crate) fn take_masked(&mut self, ei: u32) -> bool {
        if let Some(at) = self.masked.iter().position(|m| *m == ei) {
            self.masked.swap_remove(at);
            return true;
        }
        self.masked_over || self.restored
    }
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    json::string(out, value);
}

fn list(out: &mut Vec<u8>, c: &mut Cursor<'_>) -> Option<()> {
    out.push(b'[');
    for i in 0..c.u32()? {
        if i > 0 {
            out.push(b',');
        }
        json::string(out, std::str::from_utf8(c.bytes()?).ok()?);
    }
    out.push(b']');
    Some(())
}

/// Slots are counted up by our own producer: one multiplication spreads them.
#[derive(Default)]
pub(crate) struct SlotHasher(u64);
impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u32(u32::from(*b));
        }
    }
    fn write_u32(&mut self, v: u32) {
        self.0 = (self.0 ^ u64::from(v)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Live sessions of one ring.
pub(crate) type Sessions = HashMap<u32, Session, BuildHasherDefault<SlotHasher>>;

/// The file. Written before the batch that consumed the openings, so it knows at least what the chain knows.
pub(crate) struct FactsFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    pending: Vec<u8>,
}

impl FactsFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_path_buf(), file, bytes: 0, pending: Vec::new() })
    }

    /// The file of a former process, to be continued behind its first `bytes`: its ring may hold openings that this
    /// process consumes before it is killed in turn.
    pub(crate) fn continue_at(path: &Path, bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.set_len(bytes)?;
        Ok(Self { path: path.to_path_buf(), file, bytes, pending: Vec::new() })
    }

    pub(crate) fn add(&mut self, slot: u32, session: &Session) {
        entry(&mut self.pending, slot, session);
    }

    /// Appends what was added. On error nothing is forgotten and the next call writes it again in the same place.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all_at(&self.pending, self.bytes)?;
            self.bytes += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    /// Rewrites the file when it is mostly of closed sessions. Only right after a commit: then `live` is what the chain
    /// consumed.
    pub(crate) fn compact(&mut self, live: &Sessions) {
        const WORTH_IT: u64 = 1 << 20;
        if self.bytes < WORTH_IT || !self.pending.is_empty() {
            return;
        }
        let live_bytes: u64 = live.values().map(|s| 20 + (s.line.len() + s.start.len()) as u64).sum();
        if self.bytes < live_bytes.saturating_mul(4) {
            return;
        }
        let mut all = Vec::new();
        live.iter().for_each(|(slot, session)| entry(&mut all, *slot, session));
        let fresh = self.path.with_extension("facts.new");
        let replaced = || -> io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all_at(&all, 0)?;
            std::fs::rename(&fresh, &self.path)?;
            Ok(file)
        };
        // Without room for a second file the first simply goes on growing until there is.
        if let Ok(file) = replaced() {
            self.file = file;
            self.bytes = all.len() as u64;
        }
    }
}

fn entry(out: &mut Vec<u8>, slot: u32, session: &Session) {
    let bytes = 16 + session.line.len() + session.start.len();
    for n in [bytes as u32, slot, session.line.len() as u32, session.start.len() as u32, u32::from(session.postgres)] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&session.line);
    out.extend_from_slice(&session.start);
}

/// Reads the sessions a former process knew, and how many bytes of the file they fill. A last entry that was being
/// written when it died is left out: the batch that consumed it was not committed either, so its opening is still in the
/// ring.
pub(crate) fn restore(path: &Path) -> (Sessions, u64) {
    let mut sessions = Sessions::default();
    let data = std::fs::read(path).unwrap_or_default();
    let mut c = Cursor::new(&data);
    let mut bytes = 0;
    while let Some(entry) = c.bytes() {
        let Some((slot, session)) = restore_entry(entry) else { break };
        sessions.insert(slot, session);
        bytes += 4 + entry.len() as u64;
    }
    (sessions, bytes)
}

fn restore_entry(entry: &[u8]) -> Option<(u32, Session)> {
    let mut c = Cursor::new(entry);
    let slot = c.u32()?;
    let (line, start) = (c.u32()? as usize, c.u32()? as usize);
    let postgres = c.u32()? == 1;
    let (line, start) = (c.raw(line)?.to_vec(), c.raw(start)?.to_vec());
    Some((slot, Session { line, start, postgres, restored: true, masked: Vec::new(), masked_over: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::event::SessionFacts;

    fn session(user: &str) -> Session {
        let facts = SessionFacts { user, db_protocol: "postgres", ..SessionFacts::default() };
        let mut record = vec![0; encode::open_size(&facts)];
        encode::write_open(1, &facts, &mut record);
        Session::read(&mut encode::read(&record).unwrap().1).unwrap()
    }

    #[test]
    fn what_was_written_whole_is_restored_and_closed_sessions_are_dropped_when_they_are_most() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.facts");
        let mut file = FactsFile::create(&path).unwrap();
        let mut live = Sessions::default();
        for slot in 0..6000 {
            file.add(slot, &session(&format!("user-{slot}")));
            file.write().unwrap();
        }
        for slot in [7, 5000] {
            live.insert(slot, session(&format!("user-{slot}")));
        }
        let (all, bytes) = restore(&path);
        assert_eq!((all.len(), bytes), (6000, std::fs::metadata(&path).unwrap().len()));
        file.compact(&live);
        file.add(6001, &session("late"));
        file.write().unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .map(|mut f| io::Write::write_all(&mut f, b"\x60\0\0\0torn"))
            .unwrap()
            .unwrap();
        let (kept, bytes) = restore(&path);
        let mut slots: Vec<_> = kept.keys().copied().collect();
        slots.sort_unstable();
        assert_eq!(slots, [7, 5000, 6001]);
        assert!(kept[&7].restored && kept[&7].line == session("user-7").line && kept[&7].postgres);
        drop(FactsFile::continue_at(&path, bytes).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    }
}
