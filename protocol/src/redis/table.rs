//! The commands we know, and those that a server adds.

use std::collections::HashMap;
use std::ops::Range;

use super::categories::Categories;
use super::commands::BUILTIN;
use super::keys::{Spec, UNKNOWN};

/// The place of a command in [`builtin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u16);

/// A command of the built-in table.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// In upper case, with `|` before a sub-command.
    pub name: &'static str,
    /// Arguments with the name (and sub-command); negative: at least so many.
    pub arity: i16,
    /// Its ACL categories.
    pub categories: Categories,
    /// The right that has to be named for it.
    pub right: Option<&'static str>,
    pub(super) keys: &'static [Spec],
    pub(super) special: Special,
}

/// The built-in table, ordered by name: Redis 7.0 as the server itself tells it, and what 7.2, 7.4, 8.x and Valkey
/// added. [`CommandId`] is the index.
pub fn builtin() -> &'static [Known] {
    BUILTIN
}

/// What the session machine does about a command beyond forwarding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Special {
    #[default]
    None,
    Multi,
    Exec,
    Discard,
    Hello,
    Auth,
    Reset,
    Quit,
    Select,
    Monitor,
    Subscribe,
    Psubscribe,
    Ssubscribe,
    Unsubscribe,
    Punsubscribe,
    Sunsubscribe,
    ClientReply,
    ClientTracking,
    Debug,
    Sort,
    Migrate,
    AclSetuser,
    ConfigSet,
    SentinelSet,
    ModuleLoad,
    /// It cannot work behind a gateway.
    Unserved,
}

pub(super) const REPLICATION: &str = "replication";
pub(super) const MONITOR: &str = "monitor";
pub(super) const OUTBOUND: &str = "outbound";

pub(super) const fn known(name: &'static str, arity: i16, categories: u32, keys: &'static [Spec]) -> Known {
    let categories = Categories::of(categories);
    Known { name, arity, categories, right: None, keys, special: Special::None }
}

impl Known {
    pub(super) const fn served_as(mut self, special: Special) -> Known {
        self.special = special;
        self
    }

    pub(super) const fn needs(mut self, right: &'static str) -> Known {
        self.right = Some(right);
        self
    }
}

/// What a look-up gave.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) id: Option<CommandId>,
    pub(super) known: bool,
    pub(super) categories: Categories,
    pub(super) right: Option<&'static str>,
    pub(super) keys: &'a [Spec],
    pub(super) special: Special,
}

impl Found<'_> {
    /// Nobody knows it.
    pub(super) const UNKNOWN: Found<'static> = Found {
        id: None,
        known: false,
        categories: Categories::NONE,
        right: None,
        keys: UNKNOWN,
        special: Special::None,
    };

    fn builtin(index: u16, known: &'static Known) -> Found<'static> {
        Found {
            id: Some(CommandId(index)),
            known: true,
            categories: known.categories,
            right: known.right,
            keys: known.keys,
            special: known.special,
        }
    }
}

/// The commands of one server: the built-in ones, and what the server's own `COMMAND` adds to them.
#[derive(Debug, Default)]
pub struct CommandTable {
    /// By name in upper case.
    learned: HashMap<Box<str>, Learned>,
}

/// The longest name of a command or a sub-command that is looked up.
pub(super) const NAME_MAX: usize = 64;

impl CommandTable {
    /// How many commands the server added.
    pub fn len(&self) -> usize {
        self.learned.len()
    }

    /// Whether the server added none.
    pub fn is_empty(&self) -> bool {
        self.learned.is_empty()
    }

    /// Looks up a name in upper case, with `|` before a sub-command: its categories, if it is known.
    pub fn categories(&self, name: &str) -> Option<Categories> {
        let (name, sub) = name.split_once('|').map_or((name, None), |(name, sub)| (name, Some(sub.as_bytes())));
        let (found, ..) = self.find(name.as_bytes(), sub);
        found.known.then_some(found.categories)
    }

    /// Adds a command of the server, unless our own table has it.
    pub(super) fn learn(&mut self, name: &str, learned: Learned) {
        if self.categories(name).is_none() {
            self.learned.insert(name.into(), learned);
        }
    }

    /// Looks up a command by the words at its front, in any case. `sub` is the argument behind the name, if there is
    /// one. The flag says whether `sub` belongs to the name.
    #[inline]
    pub(super) fn find(&self, name: &[u8], sub: Option<&[u8]>) -> (Found<'_>, Option<&'static str>, bool) {
        if let Some(index) = index::find(name) {
            let known = &BUILTIN[usize::from(index)];
            let subs = index::subs(index);
            if subs.is_empty() {
                return (Found::builtin(index, known), Some(known.name), false);
            }
            return self.find_sub(index, subs, sub);
        }
        self.find_learned(name, sub)
    }

    fn find_sub(&self, index: u16, subs: Range<u16>, sub: Option<&[u8]>) -> (Found<'_>, Option<&'static str>, bool) {
        let container = &BUILTIN[usize::from(index)];
        let Some(sub) = sub else { return (Found::builtin(index, container), Some(container.name), false) };
        let prefix = container.name.len() + 1;
        for index in subs {
            let known = &BUILTIN[usize::from(index)];
            if known.name.as_bytes()[prefix..].eq_ignore_ascii_case(sub) {
                return (Found::builtin(index, known), Some(known.name), true);
            }
        }
        // COMMAND answers without a sub-command; whatever else stands there is one.
        let (found, ..) = self.find_learned(container.name.as_bytes(), Some(sub));
        (found, None, true)
    }

    /// Not in the built-in table.
    fn find_learned(&self, name: &[u8], sub: Option<&[u8]>) -> (Found<'_>, Option<&'static str>, bool) {
        if self.learned.is_empty() {
            return (Found::UNKNOWN, None, false);
        }
        let mut upper = [0; 2 * NAME_MAX + 1];
        if let Some(sub) = sub
            && let Some(learned) = self.learned_as(&mut upper, &[name, b"|", sub])
        {
            return (learned.found(), None, true);
        }
        match self.learned_as(&mut upper, &[name]) {
            Some(learned) if learned.is_container && sub.is_some() => (Found::UNKNOWN, None, true),
            Some(learned) => (learned.found(), None, false),
            None => (Found::UNKNOWN, None, false),
        }
    }

    fn learned_as(&self, upper: &mut [u8; 2 * NAME_MAX + 1], parts: &[&[u8]]) -> Option<&Learned> {
        let mut len = 0;
        for part in parts {
            let place = upper.get_mut(len..len + part.len())?;
            place.copy_from_slice(part);
            place.make_ascii_uppercase();
            len += part.len();
        }
        self.learned.get(std::str::from_utf8(upper.get(..len)?).ok()?)
    }
}

/// A command that only the server knows.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) categories: Categories,
    pub(super) keys: Box<[Spec]>,
    pub(super) is_container: bool,
}

impl Learned {
    fn found(&self) -> Found<'_> {
        Found { known: true, categories: self.categories, keys: &self.keys, ..Found::UNKNOWN }
    }
}

/// Finds a name in the built-in table: a hash table with open addressing, filled by the compiler.
mod index {
    use super::{BUILTIN, Range};

    const SLOTS: usize = 1024;
    const EMPTY: u16 = u16::MAX;

    /// By the hash of the name: index of a command that is no sub-command.
    static INDEX: [u16; SLOTS] = filled();
    /// By index of a command: the first behind its sub-commands.
    static SUBS_END: [u16; BUILTIN.len()] = ends();

    const fn byte(name: &[u8], at: usize) -> u64 {
        // Folds case; what else it makes equal is told apart by the comparison.
        (name[at] & 0xdf) as u64
    }

    /// Of a name's length and four of its letters.
    #[inline]
    const fn slot(name: &[u8]) -> usize {
        let len = name.len();
        if len == 0 {
            return 0;
        }
        let letters = byte(name, 0)
            | byte(name, len / 3) << 8
            | byte(name, len / 2) << 16
            | byte(name, len - 1) << 24
            | (len as u64) << 32
            | byte(name, len - 1 - (len - 1) / 3) << 40;
        (letters.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
    }

    const fn is_sub(name: &str) -> bool {
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] == b'|' {
                return true;
            }
            at += 1;
        }
        false
    }

    const fn filled() -> [u16; SLOTS] {
        let mut slots = [EMPTY; SLOTS];
        let mut index = 0;
        while index < BUILTIN.len() {
            if !is_sub(BUILTIN[index].name) {
                let mut at = slot(BUILTIN[index].name.as_bytes());
                while slots[at] != EMPTY {
                    at = (at + 1) % SLOTS;
                }
                slots[at] = index as u16;
            }
            index += 1;
        }
        slots
    }

    const fn ends() -> [u16; BUILTIN.len()] {
        let mut ends = [0; BUILTIN.len()];
        let mut index = 0;
        while index < BUILTIN.len() {
            let mut end = index + 1;
            while end < BUILTIN.len() && is_sub(BUILTIN[end].name) {
                end += 1;
            }
            ends[index] = end as u16;
            index += 1;
        }
        ends
    }

    #[inline]
    pub(super) fn find(name: &[u8]) -> Option<u16> {
        let mut at = slot(name);
        loop {
            let index = INDEX[at];
            if index == EMPTY {
                return None;
            }
            if BUILTIN[usize::from(index)].name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(index);
            }
            at = (at + 1) % SLOTS;
        }
    }

    /// The sub-commands of a command that is none itself.
    #[inline]
    pub(super) fn subs(index: u16) -> Range<u16> {
        index + 1..SUBS_END[usize::from(index)]
    }
}
