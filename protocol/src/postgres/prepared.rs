//! What prepared statements and portals stand for, so that Bind and Execute are recorded with their text.
//!
//! This is memory for the audit alone: the database knows every name, we may forget one. The invariant is
//! that a text is never put down to a statement that is not it; where that cannot be known, the text is
//! unknown.

use std::collections::HashMap;
use std::rc::Rc;

use super::startup::NAME_BYTES_MAX;

/// The most bytes of text, types and names kept per session.
const STATEMENT_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of parameters kept per session.
const PARAMETER_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of parameter types kept per statement.
const TYPES_BYTES_MAX: usize = 4096;
/// The most portals remembered by name.
const PORTALS_MAX: usize = 1024;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 160;
/// Buffers up to this size are kept for reuse.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Statements kept for reuse.
const POOL_MAX: usize = 4;
/// The slot of the unnamed statement and of the unnamed portal.
const UNNAMED: u32 = 0;

/// The text of a statement, as much of it as is kept.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) head: Vec<u8>,
    pub(super) full_bytes: u64,
    pub(super) types: Vec<u8>,
}

/// A change to a name that the database has not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    slot: u32,
    generation: u32,
}

/// The database's answer to a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Failed,
    Skipped,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Found<T> {
    /// The database must answer first: a change from an earlier cycle may have failed.
    Wait,
    /// Never seen, forgotten, or not to be known.
    Unknown,
    /// This.
    Known(T),
}

/// Text to remember under a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) head: &'a [u8],
    pub(super) full_bytes: u64,
    pub(super) types: &'a [u8],
}

#[derive(Debug, Default)]
struct Slot {
    name: Box<[u8]>,
    /// With every message sent so far.
    current: Option<Rc<Statement>>,
    /// With every message answered so far.
    committed: Option<Rc<Statement>>,
    generation: u32,
    pending: u32,
    cycle: u32,
    used: u64,
    charged: usize,
    vacant: bool,
}

/// Prepared statements by name.
#[derive(Debug)]
pub(super) struct Statements {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    names: HashMap<Box<[u8]>, u32>,
    pool: Vec<Rc<Statement>>,
    bytes: usize,
    clock: u64,
}

impl Statements {
    pub(super) fn new() -> Self {
        Statements {
            slots: vec![Slot::default()],
            vacant: Vec::new(),
            names: HashMap::new(),
            pool: Vec::new(),
            bytes: 0,
            clock: 0,
        }
    }

    /// The name stands for `text` from here on, or for nothing known, if the database agrees.
    pub(super) fn change(&mut self, name: &[u8], text: Option<Text<'_>>, cycle: u32) -> Change {
        let text = text.filter(|_| name.len() <= NAME_BYTES_MAX);
        let at = self.slot(kept(name));
        let statement = text.and_then(|text| self.remember(at, text));
        self.clock += 1;
        let slot = &mut self.slots[at as usize];
        let previous = std::mem::replace(&mut slot.current, statement);
        slot.generation = slot.generation.wrapping_add(1);
        slot.pending += 1;
        slot.cycle = cycle;
        slot.used = self.clock;
        let change = Change { slot: at, generation: slot.generation };
        self.recycle(previous);
        change
    }

    /// The database has answered.
    pub(super) fn settle(&mut self, change: Change, answer: Answer) {
        let slot = &mut self.slots[change.slot as usize];
        slot.pending = slot.pending.saturating_sub(1);
        let newest = slot.generation == change.generation;
        let given_up = match answer {
            Answer::Done if newest => std::mem::replace(&mut slot.committed, slot.current.clone()),
            Answer::Done => slot.committed.take(),
            // The server drops the unnamed statement before it reads the new text.
            Answer::Failed if change.slot == UNNAMED => {
                if newest {
                    slot.current = None;
                }
                slot.committed.take()
            }
            Answer::Failed | Answer::Skipped if newest => std::mem::replace(&mut slot.current, slot.committed.clone()),
            Answer::Failed | Answer::Skipped => None,
        };
        self.recycle(given_up);
        self.drop_if_empty(change.slot);
    }

    /// Marks `name` as used by a message of `cycle`. Says whether that message must wait: what the name
    /// stands for hangs on a change of an earlier cycle that may have failed.
    pub(super) fn must_wait(&mut self, name: &[u8], cycle: u32) -> bool {
        let at = match name.len() {
            0 => UNNAMED,
            1..=NAME_BYTES_MAX => self.names.get(name).copied().unwrap_or(u32::MAX),
            _ => return false,
        };
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(at as usize) else { return false };
        slot.used = self.clock;
        slot.current.is_some() && slot.pending > 0 && slot.cycle != cycle
    }

    /// What `name` stands for with every message sent so far.
    pub(super) fn peek(&self, name: &[u8]) -> Option<&Statement> {
        self.newest(name).map(Rc::as_ref)
    }

    /// As [`Statements::peek`], to be kept in a portal.
    pub(super) fn share(&self, name: &[u8]) -> Option<Rc<Statement>> {
        self.newest(name).cloned()
    }

    fn newest(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        let at = match name.len() {
            0 => UNNAMED,
            1..=NAME_BYTES_MAX => *self.names.get(name)?,
            _ => return None,
        };
        self.slots.get(at as usize)?.current.as_ref()
    }

    /// A Query drops the unnamed statement.
    pub(super) fn forget_unnamed(&mut self) {
        self.forget(UNNAMED);
    }

    /// Names have changed in ways that messages do not show.
    pub(super) fn forget_all(&mut self) {
        for at in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            if !self.slots[at as usize].vacant {
                self.forget(at);
                self.drop_if_empty(at);
            }
        }
    }

    /// The database has executed such a change: what it had answered before is void, what was sent after
    /// still holds.
    pub(super) fn forget_committed(&mut self) {
        for at in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            let slot = &mut self.slots[at as usize];
            if slot.vacant {
                continue;
            }
            let committed = slot.committed.take();
            let current = if slot.pending == 0 { slot.current.take() } else { None };
            self.recycle(committed);
            self.recycle(current);
            self.drop_if_empty(at);
        }
    }

    /// Takes back a statement that a portal has let go.
    pub(super) fn recycle(&mut self, statement: Option<Rc<Statement>>) {
        let Some(mut statement) = statement else { return };
        if self.pool.len() < POOL_MAX
            && let Some(inner) = Rc::get_mut(&mut statement)
            && inner.head.capacity() <= KEPT_BYTES_MAX
        {
            self.pool.push(statement);
        }
    }

    fn forget(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let (current, committed) = (slot.current.take(), slot.committed.take());
        self.recycle(current);
        self.recycle(committed);
    }

    /// The slot of `name`, made if there is none.
    fn slot(&mut self, name: &[u8]) -> u32 {
        if name.is_empty() {
            return UNNAMED;
        }
        if let Some(&at) = self.names.get(name) {
            return at;
        }
        let slot = Slot { name: name.into(), ..Slot::default() };
        let at = match self.vacant.pop() {
            Some(at) => {
                // A generation goes on where it was, so that an old change never meets a new one.
                let generation = self.slots[at as usize].generation;
                self.slots[at as usize] = Slot { generation, ..slot };
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.charge(at, 0);
        self.names.insert(name.into(), at);
        at
    }

    fn charge(&mut self, at: u32, bytes: usize) {
        let slot = &mut self.slots[at as usize];
        let charged = bytes + slot.name.len() * 2 + ENTRY_BYTES;
        self.bytes = self.bytes - slot.charged + charged;
        slot.charged = charged;
    }

    /// A statement with this text, within the bounds of the session. `None` when there is no room.
    fn remember(&mut self, at: u32, text: Text<'_>) -> Option<Rc<Statement>> {
        let types = &text.types[..text.types.len().min(TYPES_BYTES_MAX)];
        self.charge(at, text.head.len() + types.len());
        if self.bytes > STATEMENT_BYTES_MAX {
            self.evict(at);
        }
        if self.bytes > STATEMENT_BYTES_MAX {
            self.charge(at, 0);
            return None;
        }
        let mut statement = self.pool.pop().unwrap_or_default();
        if let Some(inner) = Rc::get_mut(&mut statement) {
            inner.head.clear();
            inner.head.extend_from_slice(text.head);
            inner.full_bytes = text.full_bytes;
            inner.types.clear();
            inner.types.extend_from_slice(types);
        }
        Some(statement)
    }

    /// Forgets the half of the names that was longest out of use, so that the cost per Parse is constant.
    fn evict(&mut self, spared: u32) {
        let mut idle: Vec<(u64, u32)> = (1..)
            .zip(self.slots.iter().skip(1))
            .filter(|(at, slot)| !slot.vacant && slot.pending == 0 && *at != spared)
            .map(|(at, slot)| (slot.used, at))
            .collect();
        idle.sort_unstable();
        for (_, at) in &idle[..idle.len().div_ceil(2)] {
            self.forget(*at);
            self.drop_if_empty(*at);
        }
    }

    fn drop_if_empty(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        if slot.pending > 0 || slot.current.is_some() || slot.committed.is_some() {
            return;
        }
        self.bytes -= slot.charged;
        slot.charged = 0;
        if at == UNNAMED {
            return;
        }
        slot.vacant = true;
        let name = std::mem::take(&mut slot.name);
        self.names.remove(&name);
        self.vacant.push(at);
    }
}

/// A statement with its parameters.
#[derive(Debug, Default)]
pub(super) struct Portal {
    name: Box<[u8]>,
    pub(super) statement: Option<Rc<Statement>>,
    /// The parameter part of Bind.
    pub(super) parameters: Vec<u8>,
    /// `parameters` ends before the last value.
    pub(super) cut: bool,
    known: bool,
    generation: u32,
    pending: u32,
    cycle: u32,
    vacant: bool,
}

/// Portals by name.
#[derive(Debug)]
pub(super) struct Portals {
    slots: Vec<Portal>,
    vacant: Vec<u32>,
    names: HashMap<Box<[u8]>, u32>,
    bytes: usize,
}

impl Portals {
    pub(super) fn new() -> Self {
        Portals { slots: vec![Portal::default()], vacant: Vec::new(), names: HashMap::new(), bytes: 0 }
    }

    /// The name stands for `statement` with `parameters` from here on, if the database agrees.
    pub(super) fn bind(
        &mut self,
        name: &[u8],
        statement: Option<Rc<Statement>>,
        parameters: &[u8],
        cut: bool,
        cycle: u32,
        statements: &mut Statements,
    ) -> Change {
        let is_known = name.len() <= NAME_BYTES_MAX;
        let change = self.close(name, cycle, statements);
        let Some(portal) = self.slots.get_mut(change.slot as usize) else {
            statements.recycle(statement);
            return change;
        };
        let room = PARAMETER_BYTES_MAX.saturating_sub(self.bytes);
        portal.cut = cut || parameters.len() > room;
        portal.parameters.extend_from_slice(&parameters[..parameters.len().min(room)]);
        self.bytes += portal.parameters.len();
        portal.statement = statement;
        portal.known = is_known;
        change
    }

    /// The name stands for nothing from here on, if the database agrees.
    pub(super) fn close(&mut self, name: &[u8], cycle: u32, statements: &mut Statements) -> Change {
        let Some(at) = self.slot(kept(name)) else { return Change { slot: u32::MAX, generation: 0 } };
        self.clear(at, statements);
        let portal = &mut self.slots[at as usize];
        portal.generation = portal.generation.wrapping_add(1);
        portal.pending += 1;
        portal.cycle = cycle;
        Change { slot: at, generation: portal.generation }
    }

    /// The database has answered.
    pub(super) fn settle(&mut self, change: Change, answer: Answer, statements: &mut Statements) {
        let Some(portal) = self.slots.get_mut(change.slot as usize) else { return };
        portal.pending = portal.pending.saturating_sub(1);
        if portal.generation == change.generation && answer != Answer::Done {
            self.clear(change.slot, statements);
        }
        self.drop_if_empty(change.slot);
    }

    /// What `name` stands for in a message of `cycle`.
    pub(super) fn find(&self, name: &[u8], cycle: u32) -> Found<&Portal> {
        if name.len() > NAME_BYTES_MAX {
            return Found::Unknown;
        }
        let at = if name.is_empty() { UNNAMED } else { self.names.get(name).copied().unwrap_or(u32::MAX) };
        match self.slots.get(at as usize) {
            Some(portal) if portal.known && portal.pending > 0 && portal.cycle != cycle => Found::Wait,
            Some(portal) if portal.known => Found::Known(portal),
            _ => Found::Unknown,
        }
    }

    /// A Query drops the unnamed portal.
    pub(super) fn forget_unnamed(&mut self, statements: &mut Statements) {
        self.clear(UNNAMED, statements);
    }

    /// The transaction has ended, or a cursor was declared or closed by text: what the database had
    /// answered before is void.
    pub(super) fn forget_answered(&mut self, statements: &mut Statements) {
        for at in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            let portal = &self.slots[at as usize];
            if !portal.vacant && portal.pending == 0 {
                self.clear(at, statements);
                self.drop_if_empty(at);
            }
        }
    }

    fn slot(&mut self, name: &[u8]) -> Option<u32> {
        if name.is_empty() {
            return Some(UNNAMED);
        }
        if let Some(&at) = self.names.get(name) {
            return Some(at);
        }
        let at = match self.vacant.pop() {
            Some(at) => at,
            None if self.slots.len() >= PORTALS_MAX => return None,
            None => {
                self.slots.push(Portal::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let portal = &mut self.slots[at as usize];
        portal.vacant = false;
        portal.name = name.into();
        self.names.insert(name.into(), at);
        Some(at)
    }

    fn clear(&mut self, at: u32, statements: &mut Statements) {
        let portal = &mut self.slots[at as usize];
        self.bytes -= portal.parameters.len();
        portal.parameters.clear();
        if portal.parameters.capacity() > KEPT_BYTES_MAX {
            portal.parameters = Vec::new();
        }
        portal.known = false;
        portal.cut = false;
        statements.recycle(portal.statement.take());
    }

    fn drop_if_empty(&mut self, at: u32) {
        let portal = &mut self.slots[at as usize];
        if at == UNNAMED || portal.pending > 0 || portal.known {
            return;
        }
        portal.vacant = true;
        let name = std::mem::take(&mut portal.name);
        self.names.remove(&name);
        self.vacant.push(at);
    }
}

/// The part of a name that the server keeps.
fn kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES_MAX)]
}
