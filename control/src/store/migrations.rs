//! The steps that bring a store to the present schema. A step never changes once released.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::ControlError;

/// Step `n` is at index `n - 1`.
const STEPS: &[&str] = &["
    CREATE TABLE cluster (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        name TEXT NOT NULL,
        created TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE authorities (
        kind TEXT PRIMARY KEY,
        certificate BLOB NOT NULL,
        key BLOB NOT NULL,
        created TEXT NOT NULL
    ) STRICT;
    CREATE TABLE resources (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        revision INTEGER NOT NULL,
        document TEXT NOT NULL,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
"];

/// Applies what is missing, each step in a transaction of its own. A store of a later version is refused.
pub(super) fn run(connection: &mut Connection) -> Result<(), ControlError> {
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (step INTEGER PRIMARY KEY, applied TEXT NOT NULL) STRICT",
        [],
    )?;
    let done: i64 =
        connection.query_row("SELECT coalesce(max(step), 0) FROM schema_migrations", [], |row| row.get(0))?;
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(ControlError::DataDirectory {
            what: format!("state.db has schema {done}, this program knows up to {}: start a newer one", STEPS.len()),
        });
    }
    for (step, sql) in STEPS.iter().enumerate().skip(done) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        let number = i64::try_from(step + 1).unwrap_or(i64::MAX);
        tx.execute(
            "INSERT INTO schema_migrations (step, applied) VALUES (?1, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
            params![number],
        )?;
        tx.commit()?;
    }
    Ok(())
}
