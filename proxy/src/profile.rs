//! A signed-in place: which cluster, as whom, where it answers, and where the credentials are.
//!
//! `HOME/profile.json` names everything; `HOME/keys/CLUSTER/USER/` holds what `db login` wrote. Folders are
//! 0700, files 0600, and every file is replaced atomically.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a protocol is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gateway {
    /// Name the server certificate is checked against.
    pub host: String,
    /// Address to connect to.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

/// The content of `profile.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Name of the cluster.
    pub cluster: String,
    /// Product user.
    pub(crate) user: String,
    /// Unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Folder of the audit log, where it is on this machine.
    pub audit_dir: Option<PathBuf>,
    /// Gateway address per protocol name.
    pub gateways: BTreeMap<String, Gateway>,
    /// Certificates the gateway is verified with.
    pub ca_file: PathBuf,
    /// Login certificate, PEM.
    pub login_cert: PathBuf,
    /// Its key, PEM PKCS#8.
    pub login_key: PathBuf,
}

impl Profile {
    /// Reads `home/profile.json`. `NotFound` means that nobody has signed in.
    pub(crate) fn load(home: &Path) -> io::Result<Profile> {
        let text = fs::read(home.join("profile.json"))?;
        serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Writes `home/profile.json`.
    pub(crate) fn store(&self, home: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        private_dir(home)?;
        replace(&home.join("profile.json"), &text)
    }

    /// Where `db login` keeps the credentials of this profile.
    pub(crate) fn keys_dir(&self, home: &Path) -> PathBuf {
        home.join("keys").join(&self.cluster).join(&self.user)
    }
}

/// Makes a folder and those above it, 0700 where they are new.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a 0600 file so that a reader sees the old content or the new, never a part.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    let written = write_new(&draft, content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft may hold a key; the first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_back_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/home");
        let profile = Profile {
            cluster: "c".into(),
            user: "u".into(),
            admin_socket: "/s".into(),
            audit_dir: None,
            gateways: BTreeMap::from([(
                "postgres".to_owned(),
                Gateway { host: "localhost".into(), address: "127.0.0.1:1".into(), port: 1 },
            )]),
            ca_file: "/ca".into(),
            login_cert: "/c".into(),
            login_key: "/k".into(),
        };
        profile.store(&home).unwrap();
        assert_eq!(Profile::load(&home).unwrap(), profile);
        assert_eq!(fs::metadata(home.join("profile.json")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn replacing_leaves_no_draft_and_narrows_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
