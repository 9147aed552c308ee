//! Signed checkpoints: the transparency-log form (c2sp.org/tlog-checkpoint) in a signed note (c2sp.org/signed-note).
//!
//! ```text
//! ringgate/gw/gw-1          origin, also the key's name
//! 42                        batches
//! base64                    root of the tree over the batch lines
//! seq 184468                extension lines: see `state`
//!
//! — ringgate/gw/gw-1 base64(4 bytes of key id, Ed25519 signature of the lines above)
//! ```
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chain::{Hash, sha256};
use crate::options::StartError;

const ED25519_ALGORITHM: u8 = 1;

/// Where a log's public key is: one line in the note's verifier-key form, `name+id+key`.
pub fn public_key_path(dir: impl AsRef<Path>) -> PathBuf {
    dir.as_ref().join("keys").join("checkpoint.pub")
}

/// A verifier's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    pub(crate) name: String,
    key: [u8; 32],
}

impl PublicKey {
    pub(crate) fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_ALGORITHM], &self.key]);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    pub(crate) fn id_text(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id()))
    }

    pub(crate) fn to_text(&self) -> String {
        let mut key = vec![ED25519_ALGORITHM];
        key.extend_from_slice(&self.key);
        format!("{}+{}+{}", self.name, self.id_text(), STANDARD.encode(key))
    }

    /// Reads `name+id+key`. `None` when it is no Ed25519 verifier key or its id does not fit.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = STANDARD.decode(key).ok()?;
        let (algorithm, key) = key.split_first()?;
        let key = Self { name: name.to_owned(), key: key.try_into().ok()? };
        (*algorithm == ED25519_ALGORITHM && key.id_text() == id).then_some(key)
    }

    /// Whether `note` bears a good signature of this key.
    pub(crate) fn verifies(&self, note: &str) -> bool {
        let Some((body, signatures)) = note.rsplit_once("\n\n") else { return false };
        let body = format!("{body}\n");
        signatures.lines().any(|line| {
            let Some((name, signature)) = line.strip_prefix("— ").and_then(|l| l.split_once(' ')) else {
                return false;
            };
            let Ok(signature) = STANDARD.decode(signature) else { return false };
            name == self.name
                && signature.len() == 68
                && signature[..4] == self.id()
                && UnparsedPublicKey::new(&ED25519, self.key).verify(body.as_bytes(), &signature[4..]).is_ok()
        })
    }
}

/// The log's signing key. Never printed.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    pub(crate) public: PublicKey,
}

impl SigningKey {
    /// Reads the key in `dir`, or makes one there (`keys/checkpoint.key`, 0600) named after the origin.
    pub(crate) fn load_or_create(dir: &Path, origin: &str) -> Result<Self, StartError> {
        let path = dir.join("keys").join("checkpoint.key");
        let public_path = public_key_path(dir);
        let unusable = || StartError::Key(path.clone());
        let pair = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let der = STANDARD.decode(text.trim()).map_err(|_| unusable())?;
                Ed25519KeyPair::from_pkcs8(&der).map_err(|_| unusable())?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let pair = Ed25519KeyPair::generate().map_err(|_| unusable())?;
                let der = pair.to_pkcs8().map_err(|_| unusable())?;
                let text = STANDARD.encode(der.as_ref());
                write_new(&path, text.as_bytes(), 0o600).map_err(StartError::io("write", &path))?;
                // A public key without its private one belongs to another log.
                let _ = std::fs::remove_file(&public_path);
                pair
            }
            Err(e) => return Err(StartError::io("read", &path)(e)),
        };
        let keys = dir.join("keys");
        crate::segment::sync_dir(&keys).map_err(StartError::io("sync", &keys))?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| unusable())?;
        let stored = std::fs::read_to_string(&public_path).ok().and_then(|t| PublicKey::parse(&t));
        let public = match stored {
            Some(public) if public.key == key => public,
            _ => {
                let public = PublicKey { name: clean_name(origin), key };
                let text = format!("{}\n", public.to_text());
                let _ = std::fs::remove_file(&public_path);
                write_new(&public_path, text.as_bytes(), 0o644).map_err(StartError::io("write", &public_path))?;
                public
            }
        };
        Ok(Self { pair, public })
    }

    /// A signed checkpoint; `extensions` are whole lines.
    pub(crate) fn checkpoint(&self, size: u64, root: &Hash, extensions: &str) -> String {
        let name = &self.public.name;
        let body = format!("{name}\n{size}\n{}\n{extensions}", STANDARD.encode(root));
        let mut signature = self.public.id().to_vec();
        signature.extend_from_slice(self.pair.sign(body.as_bytes()).as_ref());
        format!("{body}\n— {name} {}\n", STANDARD.encode(signature))
    }
}

/// A checkpoint's own lines, unverified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint<'a> {
    pub(crate) origin: &'a str,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) extensions: Vec<(&'a str, &'a str)>,
}

impl<'a> Checkpoint<'a> {
    pub(crate) fn parse(note: &'a str) -> Option<Self> {
        let (body, _) = note.rsplit_once("\n\n")?;
        let mut lines = body.lines();
        let origin = lines.next()?;
        let size = lines.next()?.parse().ok()?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let extensions = lines.filter_map(|l| l.split_once(' ')).collect();
        Some(Self { origin, size, root, extensions })
    }
}

/// A note's key name has no spaces and no plus.
fn clean_name(origin: &str) -> String {
    origin.chars().map(|c| if c.is_ascii_alphanumeric() || "./-_".contains(c) { c } else { '_' }).collect()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_its_checkpoints_verify_only_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        let key = SigningKey::load_or_create(dir.path(), "ringgate/my gw/one").unwrap();
        let again = SigningKey::load_or_create(dir.path(), "renamed").unwrap();
        assert_eq!(key.public, again.public);
        assert_eq!(key.public.name, "ringgate/my_gw/one");
        let mode = std::fs::metadata(dir.path().join("keys/checkpoint.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let public = PublicKey::parse(&std::fs::read_to_string(public_key_path(dir.path())).unwrap()).unwrap();
        let note = key.checkpoint(7, &[9; 32], "seq 12\n");
        assert!(public.verifies(&note));
        assert_eq!(
            Checkpoint::parse(&note).unwrap(),
            Checkpoint { origin: "ringgate/my_gw/one", size: 7, root: [9; 32], extensions: vec![("seq", "12")] }
        );
        for i in 0..note.len() {
            let mut changed = note.clone().into_bytes();
            changed[i] ^= 1;
            if let Ok(changed) = String::from_utf8(changed) {
                assert!(!public.verifies(&changed), "byte {i}");
            }
        }
    }
}
