//! Reading the whole log against itself: hashes, links, numbers, signatures.
//!
//! Offline; needs the segments, `state` and the public key. The first thing wrong is named with its place; what kind it
//! is comes from the event numbers: a number that never shows up again is missing, one that shows up later was moved.
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chain::{self, Hash, Tree, sha256};
use crate::checkpoint::{Checkpoint, PublicKey, public_key_path};
use crate::json::Clock;
use crate::recover::Batch;
use crate::segment::{self, BATCH_START, HEADER_START};
use crate::state::State;

/// What a whole reading found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Event lines that bear out.
    pub events: u64,
    /// Segments read.
    pub segments: u64,
    /// Signed checkpoints that bear out, `state` among them.
    pub checkpoints: u64,
    /// Base64 hash of the last batch line that bears out: compare it with a note kept elsewhere.
    pub last_seal: String,
    /// The judgement.
    pub verdict: Verdict,
}

/// The judgement on a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whole.
    Ok,
    /// Whole up to bytes that a killed process or a power cut left behind the last batch. The next start repairs it.
    CleanCrashTail,
    /// Changed by something other than a crash.
    Broken {
        /// What was done.
        kind: Damage,
        /// Number of the segment, 0 when it is about `state`.
        segment: u64,
        /// Number of the batch in the whole log, from 0.
        batch: u64,
        /// First event number in question.
        first_seq: u64,
        /// Last event number in question.
        last_seq: u64,
        /// One sentence for people.
        text: String,
    },
}

/// What was done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Bytes changed.
    Modified,
    /// Lines, batches, segments or `state` removed.
    Missing,
    /// Lines, batches or segments in another order.
    Reordered,
    /// The end was cut off: a signed checkpoint speaks of more.
    TruncatedTail,
    /// A checkpoint does not bear the key's signature.
    BadSignature,
}

/// Why the log could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file could not be read.
    #[error("read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The public key is missing or is none.
    #[error("{0} holds no checkpoint key")]
    Key(PathBuf),
    /// There is no log.
    #[error("{0} holds no audit log")]
    Empty(PathBuf),
}

/// How far a reading is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Segments done.
    pub segments: u64,
    /// Segments in all.
    pub of: u64,
    /// Events so far.
    pub events: u64,
}

struct Reader<'a> {
    key: &'a PublicKey,
    state: Option<&'a State>,
    root_at_state: Option<Hash>,
    tree: Tree,
    prev: Hash,
    /// The number that must come next.
    next_seq: u64,
    events: u64,
    checkpoints: u64,
    /// Something stands behind the last batch.
    tail: bool,
}

/// A judgement, ready to return.
type Found = Box<Verdict>;

enum Stop {
    Broken(Found),
    Io(io::Error),
}
impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Stop::Io(e)
    }
}

/// Judges the log in `dir`. `key`: the public key, where it is not the one beside the log. `since_us`: of segments that
/// were finished before this instant (microseconds since 1970 UTC) only the links are checked, not every line.
/// `progress` is called after each segment.
pub fn verify(
    dir: &Path,
    key: Option<&Path>,
    since_us: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, VerifyError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| VerifyError::Io { path, source }
    };
    let key_path = key.map_or_else(|| public_key_path(dir), Path::to_path_buf);
    let key = std::fs::read_to_string(&key_path).ok().and_then(|t| PublicKey::parse(&t));
    let key = key.ok_or(VerifyError::Key(key_path))?;
    let segments = segment::list(dir).map_err(at(dir))?;
    let note = std::fs::read_to_string(dir.join("state")).ok();
    let state = note.as_deref().and_then(|n| State::parse(n, &key));
    if segments.is_empty() && note.is_none() {
        return Err(VerifyError::Empty(dir.to_path_buf()));
    }
    let mut reader = Reader {
        key: &key,
        state: state.as_ref(),
        root_at_state: None,
        tree: Tree::default(),
        prev: [0; 32],
        next_seq: 1,
        events: 0,
        checkpoints: 0,
        tail: false,
    };
    let mut verdict = None;
    let mut done = 0;
    let headers: Vec<Option<serde_json::Value>> = segments.iter().map(|(_, path)| header(path)).collect();
    for (i, (number, path)) in segments.iter().enumerate() {
        let next = headers.get(i + 1).and_then(Option::as_ref);
        let expected = if i == 0 { 1 } else { segments[i - 1].0 + 1 };
        if *number != expected {
            verdict = Some(reader.broken(Damage::Missing, expected, 0, "segment files are missing"));
            break;
        }
        let light = match (since_us, next.and_then(|h| h.get("time")?.as_str().map(str::to_owned))) {
            (Some(since), Some(ended)) => ended.as_bytes() < Clock::new().format(since).as_slice(),
            _ => false,
        };
        let last = i + 1 == segments.len();
        match reader.segment(*number, path, next, last, light, &segments[i..]) {
            Ok(()) => {}
            Err(Stop::Io(e)) => return Err(at(path)(e)),
            Err(Stop::Broken(found)) => {
                verdict = Some(found);
                break;
            }
        }
        done += 1;
        progress(Progress { segments: done, of: segments.len() as u64, events: reader.events });
    }
    let verdict = match verdict {
        Some(verdict) => *verdict,
        None => reader.against_state(note.is_some()),
    };
    let last_seal = STANDARD.encode(reader.prev);
    Ok(Report { events: reader.events, segments: done, checkpoints: reader.checkpoints, last_seal, verdict })
}

/// The first line of a segment, when it is a header.
fn header(path: &Path) -> Option<serde_json::Value> {
    let mut line = Vec::new();
    BufReader::new(File::open(path).ok()?.take(4096)).read_until(b'\n', &mut line).ok()?;
    if line.starts_with(HEADER_START) { serde_json::from_slice(&line).ok() } else { None }
}

/// The number of an event line.
fn seq_of(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(b"{\"v\":1,\"seq\":")?;
    let end = memchr::memchr(b',', digits)?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

fn hash_member(value: &serde_json::Value, name: &str) -> Option<Hash> {
    STANDARD.decode(value.get(name)?.as_str()?).ok()?.try_into().ok()
}

impl Reader<'_> {
    fn broken(&self, kind: Damage, segment: u64, last: u64, text: &str) -> Found {
        let first_seq = self.next_seq;
        Box::new(Verdict::Broken {
            kind,
            segment,
            batch: self.tree.size(),
            first_seq,
            last_seq: last.max(first_seq),
            text: text.to_owned(),
        })
    }

    fn stop<T>(&self, kind: Damage, segment: u64, last: u64, text: &str) -> Result<T, Stop> {
        Err(Stop::Broken(self.broken(kind, segment, last, text)))
    }

    /// Missing, unless the number shows up further on: then it was moved.
    fn gone_or_moved(&self, seq: u64, rest: &[(u64, PathBuf)]) -> Result<Damage, io::Error> {
        for (_, path) in rest {
            let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                if seq_of(&line) == Some(seq) {
                    return Ok(Damage::Reordered);
                }
                line.clear();
            }
        }
        Ok(Damage::Missing)
    }

    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        next: Option<&serde_json::Value>,
        last: bool,
        light: bool,
        rest: &[(u64, PathBuf)],
    ) -> Result<(), Stop> {
        let length = std::fs::metadata(path)?.len();
        // Only the segment after knows how much of this one counts. Bytes beyond are void after a failed sync; without
        // one they are read, and do not fit.
        let counts = next.and_then(|h| h.get("prev_bytes")?.as_u64());
        let void = next.and_then(|h| h.get("failed_sync")?.as_bool()).unwrap_or(false);
        if counts.is_some_and(|c| c > length) {
            return self.cut_segment(number, path, rest);
        }
        let limit = counts.filter(|_| void).unwrap_or(length);
        let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?.take(limit));
        let mut batch = Pending::default();
        let mut line = Vec::new();
        let mut at = 0;
        let mut acknowledged = 0;
        while reader.read_until(b'\n', &mut line)? > 0 {
            let start = at;
            at += line.len() as u64;
            let whole = line.ends_with(b"\n");
            if start == 0 && whole {
                self.header(number, &line, rest)?;
                batch.context.update(&line);
            } else if whole && line.starts_with(BATCH_START) {
                self.batch(number, &line, std::mem::take(&mut batch), light, rest)?;
                acknowledged = at;
            } else {
                batch.nul |= memchr::memchr(0, &line).is_some();
                if !light {
                    batch.context.update(&line);
                }
                match seq_of(&line).filter(|_| whole) {
                    Some(seq) => batch.seqs.push(seq),
                    None => batch.unreadable = true,
                }
                if whole && line_is_checkpoint(&line) {
                    batch.checkpoints.push(line.clone());
                }
            }
            line.clear();
        }
        if acknowledged < limit {
            if !last {
                let text = "bytes stand behind the last batch of a finished segment";
                return self.stop(Damage::Modified, number, self.next_seq, text);
            }
            self.tail = true;
        }
        Ok(())
    }

    fn cut_segment<T>(&mut self, number: u64, path: &Path, rest: &[(u64, PathBuf)]) -> Result<T, Stop> {
        // Read what is there to say from which number on it is gone, and whether something else is wrong before.
        self.segment(number, path, None, true, false, rest)?;
        let kind = self.gone_or_moved(self.next_seq, rest)?;
        self.stop(kind, number, self.next_seq, "a finished segment is shorter than the one after says")
    }

    fn header(&self, number: u64, line: &[u8], rest: &[(u64, PathBuf)]) -> Result<(), Stop> {
        let value = if line.starts_with(HEADER_START) { serde_json::from_slice(line).ok() } else { None };
        let value: serde_json::Value = match value {
            Some(value) => value,
            None => return self.stop(Damage::Modified, number, 0, "a segment does not begin with its header"),
        };
        if value.get("segment").and_then(serde_json::Value::as_u64) != Some(number) {
            return self.stop(Damage::Reordered, number, 0, "a segment bears another segment's number");
        }
        if hash_member(&value, "prev") != Some(self.prev) {
            let text = "a segment does not follow from the last batch before it";
            // Where the numbers go on, nothing is gone: the link itself was changed.
            let first = first_seq(rest)?;
            let kind = if first == Some(self.next_seq) { Damage::Modified } else { Damage::Missing };
            return self.stop(kind, number, first.unwrap_or(0).saturating_sub(1), text);
        }
        Ok(())
    }

    fn batch(
        &mut self,
        number: u64,
        line: &[u8],
        pending: Pending,
        light: bool,
        rest: &[(u64, PathBuf)],
    ) -> Result<(), Stop> {
        let Some(batch) = Batch::parse(line) else {
            return self.stop(Damage::Modified, number, 0, "a batch line cannot be read");
        };
        let hash = chain::finish(pending.context);
        let whole = light || hash == batch.sha256;
        let linked = batch.prev == self.prev;
        if whole && linked && batch.first == self.next_seq && batch.last + 1 == batch.first + batch.count {
            self.check_signed(number, &pending.checkpoints)?;
            self.events += batch.count;
            self.next_seq = batch.last + 1;
            self.prev = sha256(&[line]);
            self.tree.push(&self.prev);
            if self.state.is_some_and(|s| s.tree.size() == self.tree.size()) {
                self.root_at_state = Some(self.tree.root());
            }
            return Ok(());
        }
        if !whole && pending.nul && linked {
            // Pages of the last batch never reached the disk. Followed by anything, the next line will not link.
            self.tail = true;
            return Ok(());
        }
        let expected = self.next_seq;
        let mut sorted = pending.seqs.clone();
        sorted.sort_unstable();
        if !pending.seqs.contains(&expected) {
            let kind = self.gone_or_moved(expected, rest)?;
            let last = sorted.first().map_or(batch.last, |s| s.saturating_sub(1));
            return self.stop(kind, number, last, "events are not where they were written");
        }
        if let Some(hole) = (expected..=batch.last).find(|seq| sorted.binary_search(seq).is_err())
            && !pending.unreadable
        {
            let kind = self.gone_or_moved(hole, rest)?;
            return self.stop(kind, number, batch.last, "events of a batch are not where they were written");
        }
        if batch.first > expected {
            return self.stop(Damage::Missing, number, batch.last, "a batch line is missing");
        }
        if !pending.seqs.is_sorted() && !pending.unreadable {
            return self.stop(Damage::Reordered, number, batch.last, "events of a batch are in another order");
        }
        // A changed checkpoint is worth its own name: it tells that the signature was meant to be got round.
        self.check_signed(number, &pending.checkpoints)?;
        let text = if whole { "a batch does not link to the one before" } else { "a batch does not have its hash" };
        self.stop(Damage::Modified, number, batch.last, text)
    }

    fn check_signed(&mut self, number: u64, lines: &[Vec<u8>]) -> Result<(), Stop> {
        for line in lines {
            let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
            let note = value.as_ref().and_then(|v| v.get("checkpoint")?.as_str()).unwrap_or_default();
            if !self.key.verifies(note) {
                let text = "a checkpoint does not bear the key's signature";
                return self.stop(Damage::BadSignature, number, 0, text);
            }
            let Some(checkpoint) = Checkpoint::parse(note) else {
                return self.stop(Damage::BadSignature, number, 0, "a checkpoint cannot be read");
            };
            if checkpoint.size > self.tree.size() {
                return self.stop(Damage::Missing, number, 0, "a checkpoint counts more batches than there are");
            }
            if checkpoint.size == self.tree.size() && checkpoint.root != self.tree.root() {
                let text = "the batches before a checkpoint are not those it was signed for";
                return self.stop(Damage::Modified, number, 0, text);
            }
            self.checkpoints += 1;
        }
        Ok(())
    }

    fn against_state(&mut self, present: bool) -> Verdict {
        let Some(state) = self.state else {
            let (kind, text) = if present {
                (Damage::BadSignature, "state does not bear the key's signature")
            } else {
                (Damage::Missing, "the state file is gone")
            };
            return *self.broken(kind, 0, 0, text);
        };
        if state.tree.size() > self.tree.size() {
            return *self.broken(
                Damage::TruncatedTail,
                state.segment,
                state.seq,
                "the log ends before its signed state",
            );
        }
        if state.tree.size() > 0 && self.root_at_state != Some(state.tree.root()) {
            return *self.broken(Damage::Modified, state.segment, 0, "the log is not the one its state was signed for");
        }
        self.checkpoints += u64::from(state.tree.size() > 0);
        if self.tail { Verdict::CleanCrashTail } else { Verdict::Ok }
    }
}

/// The first event number of the first of these segments.
fn first_seq(rest: &[(u64, PathBuf)]) -> io::Result<Option<u64>> {
    let Some((_, path)) = rest.first() else { return Ok(None) };
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if let Some(seq) = seq_of(&line) {
            return Ok(Some(seq));
        }
        line.clear();
    }
    Ok(None)
}

fn line_is_checkpoint(line: &[u8]) -> bool {
    memchr::memmem::find(&line[..line.len().min(256)], b"\"event\":\"audit.checkpoint\"").is_some()
}

/// Lines since the last batch line.
struct Pending {
    context: digest::Context,
    seqs: Vec<u64>,
    checkpoints: Vec<Vec<u8>>,
    unreadable: bool,
    nul: bool,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            context: digest::Context::new(&digest::SHA256),
            seqs: Vec::new(),
            checkpoints: Vec::new(),
            unreadable: false,
            nul: false,
        }
    }
}
