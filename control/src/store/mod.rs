//! The state store: one SQLite file, `state.db` (0600), written ahead and synced at every commit.
//!
//! One process at a time: the data directory is locked, because the snapshot that workers read is published by
//! whoever wrote the change. Authorities' keys are in the store, so that a copy of the file is a whole cluster.

mod migrations;

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use zeroize::Zeroizing;

use crate::{CaKind, ControlError};

/// How long a statement waits for another reader of the file, such as an online backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A stored resource. `document` is its JSON without the revision.
#[derive(Debug, Clone)]
pub(crate) struct StoredResource {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// The snapshot version of the change that wrote it: never reused, also not after a removal.
    pub(crate) revision: u64,
    pub(crate) document: String,
}

/// One write of a change.
#[derive(Debug)]
pub(crate) enum Write {
    Put { kind: &'static str, name: String, document: String },
    Remove { kind: &'static str, name: String },
}

/// A stored authority: its certificate and its key, PKCS#8 DER.
pub(crate) struct StoredAuthority {
    pub(crate) kind: CaKind,
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

pub(crate) struct Store {
    connection: Connection,
    /// Held for the life of the store; the kernel lets go of it however the process ends.
    _lock: OwnedFd,
}

impl Store {
    /// Opens or creates the store under `data_dir`, which is made (0700) when it is missing.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, ControlError> {
        if !data_dir.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(data_dir)
                .map_err(ControlError::io(format!("cannot create {}", data_dir.display())))?;
        }
        let lock = lock(data_dir)?;
        let path = data_dir.join("state.db");
        // SQLite gives its write-ahead files the mode of the database, so the mode is set before it opens.
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        file.map_err(ControlError::io(format!("cannot open {}", path.display())))?;
        refuse_readable_by_others(&path)?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        migrations::run(&mut connection)?;
        Ok(Self { connection, _lock: lock })
    }

    /// Name of the cluster; `None` before [`Self::found`].
    pub(crate) fn cluster_name(&self) -> Result<Option<String>, ControlError> {
        Ok(self.connection.query_row("SELECT name FROM cluster", [], |row| row.get(0)).optional()?)
    }

    /// Writes a new cluster at once: its name, its authorities and its first resources.
    pub(crate) fn found(
        &mut self,
        cluster: &str,
        authorities: &[StoredAuthority],
        resources: &[Write],
        time: &str,
    ) -> Result<(), ControlError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO cluster (id, name, created, version) VALUES (1, ?1, ?2, 1)", params![cluster, time])?;
        for a in authorities {
            tx.execute(
                "INSERT INTO authorities (kind, certificate, key, created) VALUES (?1, ?2, ?3, ?4)",
                params![a.kind.as_str(), a.certificate, *a.key, time],
            )?;
        }
        write_all(&tx, resources, 1, time)?;
        Ok(tx.commit()?)
    }

    /// All four authorities.
    pub(crate) fn authorities(&self) -> Result<Vec<StoredAuthority>, ControlError> {
        let mut statement = self.connection.prepare("SELECT kind, certificate, key FROM authorities")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, Zeroizing::new(row.get::<_, Vec<u8>>(2)?)))
        })?;
        rows.map(|row| {
            let (kind, certificate, key) = row?;
            let kind = CaKind::parse(&kind).ok_or_else(|| ControlError::DataDirectory {
                what: format!("state.db has an authority of unknown kind {kind:?}"),
            })?;
            Ok(StoredAuthority { kind, certificate, key })
        })
        .collect()
    }

    /// Version of the last change, from 1.
    pub(crate) fn version(&self) -> Result<u64, ControlError> {
        let version: i64 = self.connection.query_row("SELECT version FROM cluster", [], |row| row.get(0))?;
        Ok(version.unsigned_abs())
    }

    /// Every resource, by kind and name.
    pub(crate) fn resources(&self) -> Result<Vec<StoredResource>, ControlError> {
        let mut statement =
            self.connection.prepare("SELECT kind, name, revision, document FROM resources ORDER BY kind, name")?;
        let rows = statement.query_map([], |row| {
            Ok(StoredResource {
                kind: row.get(0)?,
                name: row.get(1)?,
                revision: row.get::<_, i64>(2)?.unsigned_abs(),
                document: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes one change, all of it or nothing, as version `version`, which must follow the stored one.
    pub(crate) fn commit(&mut self, writes: &[Write], version: u64, time: &str) -> Result<(), ControlError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let number = sql_version(version);
        let moved = tx
            .execute("UPDATE cluster SET version = ?1 WHERE version = ?2", params![number, number.saturating_sub(1)])?;
        if moved != 1 {
            return Err(ControlError::DataDirectory { what: "state.db was changed by another program".into() });
        }
        write_all(&tx, writes, version, time)?;
        Ok(tx.commit()?)
    }

    /// Whether a change could be written now; for readiness.
    pub(crate) fn check(&mut self) -> Result<(), ControlError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("UPDATE cluster SET version = version", [])?;
        Ok(tx.rollback()?)
    }
}

fn sql_version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

fn write_all(
    tx: &rusqlite::Transaction<'_>,
    writes: &[Write],
    revision: u64,
    time: &str,
) -> Result<(), rusqlite::Error> {
    for write in writes {
        match write {
            Write::Put { kind, name, document } => tx.execute(
                "INSERT INTO resources (kind, name, revision, document, created, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)
                 ON CONFLICT (kind, name) DO UPDATE SET revision = ?3, document = ?4, updated = ?5",
                params![kind, name, sql_version(revision), document, time],
            )?,
            Write::Remove { kind, name } => {
                tx.execute("DELETE FROM resources WHERE kind = ?1 AND name = ?2", params![kind, name])?
            }
        };
    }
    Ok(())
}

fn lock(data_dir: &Path) -> Result<OwnedFd, ControlError> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let fd = OwnedFd::from(file.map_err(ControlError::io(format!("cannot open {}", path.display())))?);
    match rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(ControlError::DataDirectory { what: format!("another server is running on {}", data_dir.display()) })
        }
        Err(e) => Err(ControlError::Io { what: format!("cannot lock {}", path.display()), source: e.into() }),
    }
}

/// The store holds the authorities' keys.
fn refuse_readable_by_others(path: &Path) -> Result<(), ControlError> {
    let mode = fs::metadata(path).map_err(ControlError::io(format!("cannot read {}", path.display())))?;
    let mode = mode.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(ControlError::DataDirectory {
        what: format!("{} has mode {mode:04o} and holds private keys: chmod 0600 it", path.display()),
    })
}
