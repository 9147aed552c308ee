//! Finding the end of the chain at start, and cutting off what a killed process or a power cut left half-written.
//!
//! A torn tail is bytes behind the last whole batch, or a last batch with NUL bytes in it (pages that never reached the
//! disk; JSON lines hold none). It is moved to `torn/`, never just deleted. Anything else that does not fit was not done
//! by a crash: it stays as it is, for `verify` to name, and the log goes on in a new segment.
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chain::{self, Hash, sha256};
use crate::segment::{self, BATCH_START};
use crate::state::State;

/// Where the chain ends.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The end, in the same terms as a checkpoint.
    pub(crate) end: State,
    /// There was a log, and it was not stopped in order.
    pub(crate) crashed: bool,
    pub(crate) cut_bytes: u64,
    /// What no crash does.
    pub(crate) damage: Option<&'static str>,
}

/// A batch line's members.
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: u64,
    pub(crate) sha256: Hash,
    pub(crate) prev: Hash,
    pub(crate) rings: Vec<(u64, u64)>,
}

impl Batch {
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(line).ok()?;
        let hash = |name: &str| -> Option<Hash> { STANDARD.decode(value.get(name)?.as_str()?).ok()?.try_into().ok() };
        let rings = value.get("rings")?.as_array()?;
        Some(Self {
            first: value.get("first")?.as_u64()?,
            last: value.get("last")?.as_u64()?,
            count: value.get("count")?.as_u64()?,
            sha256: hash("sha256")?,
            prev: hash("prev")?,
            rings: rings.iter().map(|r| Some((r.get(0)?.as_u64()?, r.get(1)?.as_u64()?))).collect::<Option<_>>()?,
        })
    }
}

/// Finds the end, starting from the signed `state` where there is one, and repairs a torn tail.
pub(crate) fn recover(dir: &Path, state: Option<State>, state_broken: bool) -> io::Result<Recovered> {
    let segments = segment::list(dir)?;
    let mut found = Recovered::default();
    if state_broken {
        found.damage = Some("state does not bear the key's signature");
    }
    let known = state.as_ref().filter(|s| s.tree.size() > 0);
    let on_disk = |s: &State| std::fs::metadata(segment::path(dir, s.segment)).is_ok_and(|m| m.len() >= s.bytes);
    match known {
        Some(s) if on_disk(s) => found.end = s.clone(),
        Some(_) => found.damage = Some("the log is shorter than its signed state"),
        None => {}
    }
    found.end.clean = false;
    let from = found.end.segment.max(1);
    let last = segments.last().map_or(0, |(n, _)| *n);
    for (number, path) in segments.iter().filter(|(n, _)| *n >= from) {
        let start = if *number == found.end.segment { found.end.bytes } else { 0 };
        let before = (found.end.segment, found.end.bytes);
        if *number != found.end.segment {
            (found.end.segment, found.end.bytes) = (*number, 0);
        }
        scan(path, start, &mut found)?;
        if *number != last {
            continue;
        }
        let length = std::fs::metadata(path)?.len();
        if length > found.end.bytes {
            found.cut_bytes = length - found.end.bytes;
            cut(dir, *number, path, found.end.bytes)?;
        }
        if found.end.bytes == 0 {
            std::fs::remove_file(path)?;
            (found.end.segment, found.end.bytes) = before;
        } else {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400))?;
        }
    }
    if let Some(s) = known {
        // Numbers are never used twice, so that a log put back shows a hole.
        found.end.seq = found.end.seq.max(s.seq);
        found.crashed = !(s.clean && found.end.tree == s.tree);
    } else {
        found.crashed = found.end.tree.size() > 0 || found.cut_bytes > 0;
    }
    Ok(found)
}

/// Follows the batches of one segment from `start`; leaves `found.end` behind the last that counts.
fn scan(path: &Path, start: u64, found: &mut Recovered) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut at = start;
    let mut line = Vec::new();
    let mut context = digest::Context::new(&digest::SHA256);
    let mut nul = false;
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line)?;
        if n == 0 || !line.ends_with(b"\n") {
            return Ok(());
        }
        at += n as u64;
        nul |= memchr::memchr(0, &line).is_some();
        let batch = if line.starts_with(BATCH_START) { Batch::parse(&line) } else { None };
        let Some(batch) = batch else {
            context.update(&line);
            continue;
        };
        let hash = chain::finish(std::mem::replace(&mut context, digest::Context::new(&digest::SHA256)));
        if hash != batch.sha256 && nul {
            return Ok(());
        }
        if hash != batch.sha256 || batch.prev != found.end.prev {
            found.damage.get_or_insert("a batch does not have its hash");
        }
        let leaf = sha256(&[&line]);
        found.end.tree.push(&leaf);
        found.end.prev = leaf;
        found.end.seq = found.end.seq.max(batch.last);
        found.end.bytes = at;
        found.end.rings = batch.rings;
        nul = false;
    }
}

/// Moves the bytes from `good` on to `torn/`.
fn cut(dir: &Path, number: u64, path: &Path, good: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(good))?;
    let kept = dir.join("torn").join(format!("{number:08}-{good}"));
    // Evidence is good to have; a disk without room for it must not keep the log from starting.
    if let Ok(mut out) = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(kept) {
        let _ = io::copy(&mut (&mut file).take(16 << 20), &mut out);
    }
    file.set_len(good)?;
    file.sync_all()
}
