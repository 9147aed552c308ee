//! What the ids of prepared statements stand for, so that an execute is recorded with its text and values.
//!
//! This is memory for the audit alone: the database knows every id, we may forget one. Ids are the
//! database's own and one command is under way at a time, so a text is never put down to another statement.

use std::collections::HashMap;

/// The most bytes of text and types kept per session.
const BYTES_MAX: usize = 256 * 1024;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 128;
/// Buffers up to this size are kept for reuse.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Statements kept for reuse.
const POOL_MAX: usize = 4;
/// The most parameters of one statement whose long data is kept apart.
const LONG_MAX: usize = 1024;

/// A statement, as much of it as is kept.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) head: Vec<u8>,
    pub(super) full_bytes: u64,
    /// How many parameters it has.
    pub(super) parameters: u16,
    /// The types of its last execute, two bytes each.
    pub(super) types: Vec<u8>,
    /// Parameters sent ahead since its last execute, in ascending order.
    pub(super) long: Vec<u16>,
    used: u64,
}

impl Statement {
    fn charge(&self) -> usize {
        self.head.len() + self.types.len() + ENTRY_BYTES
    }

    /// Parameter `index` was sent ahead.
    pub(super) fn sent_ahead(&mut self, index: u16) {
        if self.long.len() < LONG_MAX
            && let Err(at) = self.long.binary_search(&index)
        {
            self.long.insert(at, index);
        }
    }
}

/// Prepared statements by id.
#[derive(Debug, Default)]
pub(super) struct Statements {
    by_id: HashMap<u32, Statement>,
    pool: Vec<Statement>,
    bytes: usize,
    clock: u64,
    /// The one prepared last, which MariaDB's clients may name by [`LAST`].
    last: Option<u32>,
}

/// The id of "the statement prepared last" (MariaDB).
const LAST: u32 = u32::MAX;

impl Statements {
    /// A statement that is being prepared: the caller keeps it until the database has answered.
    pub(super) fn begin(&mut self, head: &[u8], full_bytes: u64) -> Statement {
        let mut statement = self.pool.pop().unwrap_or_default();
        statement.head.clear();
        statement.head.extend_from_slice(head);
        statement.full_bytes = full_bytes;
        statement.types.clear();
        statement.long.clear();
        statement
    }

    /// The database has prepared it.
    pub(super) fn insert(&mut self, id: u32, parameters: u16, mut statement: Statement) {
        self.clock += 1;
        statement.parameters = parameters;
        statement.used = self.clock;
        self.remove(id);
        self.bytes += statement.charge();
        self.last = Some(id);
        self.by_id.insert(id, statement);
        if self.bytes > BYTES_MAX {
            self.evict(id);
        }
    }

    /// It was not prepared.
    pub(super) fn give_up(&mut self, statement: Statement) {
        self.last = None;
        self.recycle(statement);
    }

    pub(super) fn get(&self, id: u32) -> Option<&Statement> {
        self.by_id.get(&self.resolve(id)?)
    }

    /// For a command that uses it.
    pub(super) fn use_mut(&mut self, id: u32) -> Option<&mut Statement> {
        self.clock += 1;
        let clock = self.clock;
        let statement = self.by_id.get_mut(&self.resolve(id)?)?;
        statement.used = clock;
        Some(statement)
    }

    /// The types of an execute hold for the next one.
    pub(super) fn set_types(&mut self, id: u32, types: &[u8]) {
        let Some(statement) = self.resolve(id).and_then(|id| self.by_id.get_mut(&id)) else { return };
        let before = statement.charge();
        statement.types.clear();
        statement.types.extend_from_slice(types);
        self.bytes = self.bytes - before + statement.charge();
        if self.bytes > BYTES_MAX {
            self.evict(id);
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(id) = self.resolve(id) else { return };
        if self.last == Some(id) {
            self.last = None;
        }
        if let Some(statement) = self.by_id.remove(&id) {
            self.bytes -= statement.charge();
            self.recycle(statement);
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_id.clear();
        self.bytes = 0;
        self.last = None;
    }

    fn resolve(&self, id: u32) -> Option<u32> {
        if id == LAST { self.last } else { Some(id) }
    }

    fn recycle(&mut self, statement: Statement) {
        if self.pool.len() < POOL_MAX && statement.head.capacity() <= KEPT_BYTES_MAX {
            self.pool.push(statement);
        }
    }

    /// Forgets the half that was longest out of use, so that the cost per prepare is constant.
    fn evict(&mut self, spared: u32) {
        let mut by_use: Vec<(u64, u32)> =
            self.by_id.iter().filter(|(id, _)| **id != spared).map(|(id, statement)| (statement.used, *id)).collect();
        by_use.sort_unstable();
        for (_, id) in &by_use[..by_use.len().div_ceil(2)] {
            if let Some(statement) = self.by_id.remove(id) {
                self.bytes -= statement.charge();
            }
        }
    }
}
