//! Reading the audit files as anybody could: JSON lines, in the order of their sequence numbers.

use std::{
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
                records.push(Record(value));
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
