//! Following a log as it grows, across segments.
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::segment::{self, BATCH_START, HEADER_START};

/// Between looks at the end of the file.
const POLL: Duration = Duration::from_millis(50);

/// A place in a growing log. Gives event lines only, without their newline.
pub struct Tail {
    dir: PathBuf,
    segment: u64,
    reader: Option<BufReader<File>>,
    /// The line being read; whole once its newline came.
    line: Vec<u8>,
}

impl Tail {
    /// From the first event, or with `only_new` from the end as it is now. The log need not exist yet.
    pub fn open(dir: &Path, only_new: bool) -> io::Result<Self> {
        let mut tail = Self { dir: dir.to_path_buf(), segment: 0, reader: None, line: Vec::new() };
        if only_new && let Some((number, path)) = segment::list(dir)?.pop() {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::End(0))?;
            tail.segment = number;
            tail.reader = Some(BufReader::new(file));
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
            // Looked for before the read: when it is there, this segment was finished before.
            let next = self.following()?;
            while let Some(reader) = &mut self.reader {
                if reader.read_until(b'\n', &mut self.line)? == 0 || !self.line.ends_with(b"\n") {
                    break;
                }
                let line = std::mem::take(&mut self.line);
                if line.starts_with(BATCH_START) || line.starts_with(HEADER_START) {
                    continue;
                }
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                return Ok(Some(String::from_utf8_lossy(line).into_owned()));
            }
            let Some((number, path)) = next else { return Ok(None) };
            // What a torn segment ended with is no line.
            self.line.clear();
            self.reader = Some(BufReader::new(File::open(path)?));
            self.segment = number;
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
