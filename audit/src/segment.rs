//! Segment files: `00000001.jsonl` and so on, appended to by one writer.
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::chain::Hash;
use crate::json;

/// Blocks are reserved in steps, so that a full disk is met here and not in the middle of a batch.
const STEP_BYTES: u64 = 1 << 20;
/// Kept free behind every batch, for the last one before a stop.
const RESERVE_BYTES: u64 = 64 << 10;

/// How a batch line begins.
pub(crate) const BATCH_START: &[u8] = b"{\"v\":1,\"event\":\"audit.batch\",";
/// How a segment's first line begins.
pub(crate) const HEADER_START: &[u8] = b"{\"v\":1,\"event\":\"audit.segment\",";

/// The segments of a directory in order.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jsonl"));
        if let Some(number) = name.filter(|n| n.len() >= 8).and_then(|n| n.parse().ok()) {
            all.push((number, path));
        }
    }
    all.sort();
    Ok(all)
}

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.jsonl"))
}

/// What a segment's first line says.
pub(crate) struct Header<'a> {
    pub(crate) number: u64,
    pub(crate) key_id: &'a str,
    /// Hash of the last batch line before, zeros for the first segment.
    pub(crate) prev: &'a Hash,
    /// Bytes of the segment before that count.
    pub(crate) prev_bytes: u64,
    /// The segment before ended with a failed sync: bytes behind `prev_bytes` are void.
    pub(crate) failed_sync: bool,
    pub(crate) time: &'a [u8],
}

impl Header<'_> {
    pub(crate) fn line(&self) -> Vec<u8> {
        let mut out = HEADER_START.to_vec();
        out.extend_from_slice(b"\"format\":1,\"segment\":");
        json::number(&mut out, self.number);
        out.extend_from_slice(
            format!(",\"key\":\"{}\",\"prev\":\"{}\"", self.key_id, STANDARD.encode(self.prev)).as_bytes(),
        );
        out.extend_from_slice(b",\"prev_bytes\":");
        json::number(&mut out, self.prev_bytes);
        if self.failed_sync {
            out.extend_from_slice(b",\"failed_sync\":true");
        }
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(self.time);
        out.extend_from_slice(b"\"}\n");
        out
    }
}

/// The segment being written.
///
/// INVARIANT: bytes before `bytes` are whole batches on disk; bytes behind are not acknowledged.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    path: PathBuf,
    file: File,
    allocated: u64,
    can_allocate: bool,
}

/// An append did not reach the disk.
pub(crate) struct Failed {
    pub(crate) error: io::Error,
    /// What the file holds behind its good bytes is not known: go on in a new segment.
    pub(crate) void: bool,
}

impl Segment {
    pub(crate) fn create(dir: &Path, number: u64) -> io::Result<Self> {
        let path = path(dir, number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let segment = Self { number, bytes: 0, path, file, allocated: 0, can_allocate: true };
        if let Err(e) = sync_dir(dir) {
            segment.remove();
            return Err(e);
        }
        Ok(segment)
    }

    /// Writes `parts` behind the good bytes and syncs. `last_resort` may use the reserve.
    pub(crate) fn append(&mut self, parts: &[&[u8]], last_resort: bool) -> Result<(), Failed> {
        let length: u64 = parts.iter().map(|p| p.len() as u64).sum();
        let end = self.bytes + length;
        self.reserve(end, last_resort).map_err(|error| Failed { error, void: false })?;
        let mut at = self.bytes;
        for part in parts {
            if let Err(error) = self.file.write_all_at(part, at) {
                let void = self.cut().is_err();
                return Err(Failed { error, void });
            }
            at += part.len() as u64;
        }
        // After a failed sync the pages may be gone though a second sync would succeed.
        self.file.sync_data().map_err(|error| Failed { error, void: true })?;
        self.bytes = end;
        Ok(())
    }

    fn reserve(&mut self, end: u64, last_resort: bool) -> io::Result<()> {
        if !self.can_allocate || end + RESERVE_BYTES <= self.allocated || (last_resort && end <= self.allocated) {
            return Ok(());
        }
        for goal in [(end + RESERVE_BYTES).next_multiple_of(STEP_BYTES), end + RESERVE_BYTES] {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.bytes, goal - self.bytes) {
                Ok(()) => {
                    self.allocated = goal;
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.can_allocate = false;
                    return Ok(());
                }
                Err(Errno::NOSPC | Errno::FBIG | Errno::DQUOT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Errno::NOSPC.into())
    }

    /// Removes what stands behind the good bytes.
    pub(crate) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.bytes)
    }

    /// Cuts the reserve off and makes the file read-only.
    pub(crate) fn seal(self) -> io::Result<()> {
        self.cut()?;
        self.file.set_permissions(Permissions::from_mode(0o400))?;
        self.file.sync_all()
    }

    pub(crate) fn remove(self) {
        // A file that cannot be removed stays empty, and a later start removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
