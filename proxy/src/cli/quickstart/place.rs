//! The data directory of a quickstart: a new one, or its own earlier one, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::{DIAG, MYSQL, POSTGRES, REDIS};
use crate::cli::failure::{Exit, Failure, file};
use crate::config::SOCKET_PATH_BYTES_MAX;
use crate::profile::{private_dir, replace};

/// First line of a configuration that quickstart wrote: by it the directory is known as its own.
const MARK: &str = "# Made by `ringgate quickstart`.";

/// A directory to serve from.
pub(super) struct Place {
    /// Absolute, without links.
    pub(super) dir: PathBuf,
    pub(super) config: PathBuf,
    /// Made just now.
    pub(super) fresh: bool,
}

/// Makes the directory with its configuration, which then holds the addresses `asked` for, or takes up its own
/// earlier one.
pub(super) fn open(path: &Path, asked: &BTreeMap<String, SocketAddr>) -> Result<Place, Failure> {
    private_dir(path).map_err(|e| file("make", path, &e))?;
    let dir = path.canonicalize().map_err(|e| file("open", path, &e))?;
    let config = dir.join("ringgate.yaml");
    let fresh = match fs::read_to_string(&config) {
        Ok(text) if text.starts_with(MARK) => false,
        Ok(_) => return Err(not_ours(&dir, "its ringgate.yaml was not made by quickstart")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(file("read", &config, &e)),
    };
    if fresh {
        let mut entries = fs::read_dir(&dir).map_err(|e| file("read", &dir, &e))?;
        if entries.next().is_some() {
            return Err(not_ours(&dir, "it is not empty and holds no ringgate.yaml"));
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(|e| file("protect", &dir, &e))?;
        let text = config_text(&dir, &socket_for(&dir)?, asked);
        replace(&config, text.as_bytes()).map_err(|e| file("write", &config, &e))?;
    } else {
        // The folder of a short socket path may be gone after a restart of the machine.
        socket_for(&dir)?;
    }
    private_dir(&dir.join("secrets")).map_err(|e| file("make", &dir.join("secrets"), &e))?;
    Ok(Place { dir, config, fresh })
}

fn not_ours(dir: &Path, why: &str) -> Failure {
    Failure::new(Exit::Conflict, format!("{} is not a directory of quickstart", dir.display()))
        .why(why)
        .attempt("choose a directory that is empty or not there, or use: ringgate server -c FILE")
}

fn config_text(dir: &Path, socket: &Path, asked: &BTreeMap<String, SocketAddr>) -> String {
    let addr =
        |(name, port): (&str, u16)| asked.get(name).copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (postgres, redis, mysql, diag) = (addr(POSTGRES), addr(REDIS), addr(MYSQL), addr(DIAG));
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let cluster: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    let cluster = if cluster.trim_matches('-').is_empty() { "ringgate".to_owned() } else { cluster };
    // JSON is YAML, and quotes whatever a path may hold.
    let socket = serde_json::Value::from(socket.display().to_string());
    let cluster = serde_json::Value::from(cluster);
    format!(
        "{MARK} Yours to edit; see `ringgate config check` and `ringgate config show`.\n\
         version: v1\n\
         node:\n\
         \x20 data_dir: .                   # the folder of this file\n\
         \x20 cluster_name: {cluster}\n\
         runtime: {{ max_connections: 8192 }}  # two descriptors each, more than many machines allow by default\n\
         limits: {{ login_rate: {{ per_ip: 1000/s, burst: 2000 }} }}  # for clients of this machine; lower it on a network\n\
         listeners:\n\
         \x20 postgres: {{ addr: \"{postgres}\", cleartext_cancel: true }}\n\
         \x20 redis:    {{ addr: \"{redis}\" }}\n\
         \x20 mysql:    {{ addr: \"{mysql}\" }}\n\
         \x20 diag:     {{ addr: \"{diag}\" }}\n\
         \x20 admin:    {{ unix: {socket} }}\n\
         log: {{ format: text, level: warn }}\n"
    )
}

/// `D/admin.sock`, or where that is too long for the kernel a socket in a private folder with a short name.
fn socket_for(dir: &Path) -> Result<PathBuf, Failure> {
    let near = dir.join("admin.sock");
    if near.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(near);
    }
    let hash = digest::digest(&digest::SHA256, dir.as_os_str().as_encoded_bytes());
    let short: String = hash.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let uid = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|d| d.is_absolute() && d.as_os_str().len() <= 40 && d.is_dir());
    let folder = runtime.unwrap_or_else(|| PathBuf::from("/tmp")).join(format!("ringgate-{uid}-{short}"));
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    if let Err(e) = made
        && e.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(file("make", &folder, &e));
    }
    // /tmp is everybody's: a folder somebody else put there is not used.
    let found = fs::symlink_metadata(&folder).map_err(|e| file("read", &folder, &e))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(Failure::new(Exit::Refused, format!("{} is not a private folder of this user", folder.display()))
            .why("the admin socket would be open to others")
            .attempt("use a --data-dir with a shorter path"));
    }
    Ok(folder.join("admin.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_empty_directory_is_made_a_place_and_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g w");
        assert!(open(&path, &BTreeMap::new()).unwrap().fresh);
        assert_eq!(fs::metadata(path.join("ringgate.yaml")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.join("secrets")).unwrap().mode() & 0o777, 0o700);
        let again = open(&path, &BTreeMap::new()).unwrap();
        assert!(!again.fresh);
        let config = Config::load(&again.config).unwrap();
        assert_eq!(config.node.cluster_name, "gw");
        assert_eq!(config.node.data_dir.canonicalize().unwrap(), path.canonicalize().unwrap());
    }

    #[test]
    fn a_directory_with_anything_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert_eq!(open(dir.path(), &BTreeMap::new()).err().unwrap().exit, Exit::Conflict);
        fs::write(dir.path().join("ringgate.yaml"), "node: {}\n").unwrap();
        assert_eq!(open(dir.path(), &BTreeMap::new()).err().unwrap().exit, Exit::Conflict);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_long_path_gets_a_short_socket_that_the_configuration_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d".repeat(120));
        let place = open(&path, &BTreeMap::new()).unwrap();
        let socket = Config::load(&place.config).unwrap().listeners.admin_socket;
        assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", socket.display());
        assert_eq!(fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir(socket.parent().unwrap()).unwrap();
    }
}
