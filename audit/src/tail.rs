//! Following a log as it grows, across segments.
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::segment::{self, BATCH_START, HEADER_START};

/// Between looks at the end of the file.
const POLL: Duration = Duration::from_millis(50);

/// A place in a growing log. Gives event lines only, without their newline, once their batch is sealed: what a failed
/// write left behind is never shown.
pub struct Tail {
    dir: PathBuf,
    segment: u64,
    reader: Option<BufReader<File>>,
    /// Bytes of this segment that were followed, up to a batch line.
    sealed: u64,
    ready: VecDeque<String>,
}

impl Tail {
    /// From the first event, or with `only_new` from the end as it is now. The log need not exist yet.
    pub fn open(dir: &Path, only_new: bool) -> io::Result<Self> {
        let mut tail = Self { dir: dir.to_path_buf(), segment: 0, reader: None, sealed: 0, ready: VecDeque::new() };
        if only_new && let Some((number, path)) = segment::list(dir)?.pop() {
            tail.segment = number;
            tail.reader = Some(BufReader::new(File::open(path)?));
            while tail.batch()? {
                tail.ready.clear();
            }
        }
        Ok(tail)
    }

    /// The next event line, waiting for it up to `wait`. `None` when none came.
    pub fn next(&mut self, wait: Duration) -> io::Result<Option<String>> {
        let until = Instant::now() + wait;
        loop {
            if let Some(line) = self.read()? {
                return Ok(Some(line));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    fn read(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            // Looked for before the read: when it is there, this segment was finished before.
            let next = self.following()?;
            if self.batch()? {
                continue;
            }
            let Some((number, path)) = next else { return Ok(None) };
            self.reader = Some(BufReader::new(File::open(path)?));
            (self.segment, self.sealed) = (number, 0);
        }
    }

    /// Takes in one sealed batch. `false`: there is none yet.
    fn batch(&mut self) -> io::Result<bool> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let mut lines = Vec::new();
        let mut at = self.sealed;
        loop {
            let mut line = Vec::new();
            at += reader.read_until(b'\n', &mut line)? as u64;
            if !line.ends_with(b"\n") {
                reader.seek(SeekFrom::Start(self.sealed))?;
                return Ok(false);
            }
            if line.starts_with(BATCH_START) {
                self.sealed = at;
                self.ready.extend(lines);
                return Ok(true);
            }
            if !line.starts_with(HEADER_START) {
                line.pop();
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }

    fn following(&self) -> io::Result<Option<(u64, PathBuf)>> {
        let path = segment::path(&self.dir, self.segment + 1);
        if path.exists() {
            return Ok(Some((self.segment + 1, path)));
        }
        // The first segments may have been taken away.
        if self.reader.is_none() && self.dir.exists() {
            return Ok(segment::list(&self.dir)?.into_iter().next());
        }
        Ok(None)
    }
}
