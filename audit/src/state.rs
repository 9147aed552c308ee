//! The `state` file: the latest checkpoint with where it was taken, signed as a whole.
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chain::{Hash, Tree};
use crate::checkpoint::{Checkpoint, PublicKey, SigningKey};

/// Where the chain stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) tree: Tree,
    /// Number of the last event, 0 before the first.
    pub(crate) seq: u64,
    /// Hash of the last batch line.
    pub(crate) prev: Hash,
    pub(crate) segment: u64,
    /// Bytes of that segment.
    pub(crate) bytes: u64,
    /// Ring ids and the positions consumed.
    pub(crate) rings: Vec<(u64, u64)>,
    /// Written by an orderly stop.
    pub(crate) clean: bool,
}

impl State {
    pub(crate) fn to_note(&self, key: &SigningKey) -> String {
        let rings: Vec<String> = self.rings.iter().map(|(id, at)| format!("{id}:{at}")).collect();
        let extensions = format!(
            "seq {}\nprev {}\nroots {}\nsegment {}\nbytes {}\nrings {}\nclean {}\n",
            self.seq,
            STANDARD.encode(self.prev),
            STANDARD.encode(self.tree.roots().concat()),
            self.segment,
            self.bytes,
            rings.join(","),
            u8::from(self.clean),
        );
        key.checkpoint(self.tree.size(), &self.tree.root(), &extensions)
    }

    /// Reads a note whose signature holds. `None` otherwise, or when its own parts do not fit together.
    pub(crate) fn parse(note: &str, key: &PublicKey) -> Option<Self> {
        if !key.verifies(note) {
            return None;
        }
        let checkpoint = Checkpoint::parse(note)?;
        let get = |name| checkpoint.extensions.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let roots = STANDARD.decode(get("roots")?).ok()?;
        let roots = roots.chunks(32).map(|c| c.try_into().ok()).collect::<Option<Vec<Hash>>>()?;
        let tree = Tree::restore(checkpoint.size, roots)?;
        let rings = get("rings")?
            .split(',')
            .filter(|r| !r.is_empty())
            .map(|r| r.split_once(':').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?))))
            .collect::<Option<_>>()?;
        (tree.root() == checkpoint.root).then_some(Self {
            tree,
            seq: get("seq")?.parse().ok()?,
            prev: STANDARD.decode(get("prev")?).ok()?.try_into().ok()?,
            segment: get("segment")?.parse().ok()?,
            bytes: get("bytes")?.parse().ok()?,
            rings,
            clean: get("clean")? == "1",
        })
    }

    /// Replaces the file in one step.
    pub(crate) fn write(&self, dir: &Path, key: &SigningKey) -> io::Result<()> {
        let fresh = dir.join("state.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(self.to_note(key).as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&fresh, dir.join("state"))
    }
}
