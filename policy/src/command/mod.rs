//! Commands and rights inside a session (access-model 5.8): what `db_commands` of the roles permits.

mod entry;
mod rules;
mod set;

pub(crate) use entry::{Entry, EntryError};
pub use rules::{Clause, CommandRules, Verdict};
pub use set::CommandSet;

/// One command, as its protocol describes it to the rules. Names and classes are compared without regard to ASCII
/// case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandFacts<'a> {
    /// Name without the sub-command: `CONFIG`. Empty where a protocol has only classes.
    pub name: &'a str,
    /// The sub-command of a container, `SET` of `CONFIG SET`. Whoever leaves it out for a container's command makes
    /// `deny` of that sub-command blind.
    pub sub: Option<&'a str>,
    /// Its classes, without `@`.
    pub classes: &'a [&'a str],
    /// Whether it is in the protocol's table or the server's own. An unknown command is permitted by `*` alone.
    pub known: bool,
    /// The right it needs, without `@`: nothing but its name permits it.
    pub right: Option<&'a str>,
}

impl<'a> CommandFacts<'a> {
    /// A known command without class or right, from its full name: `GET`, `CONFIG|SET`.
    pub fn named(full: &'a str) -> Self {
        let (name, sub) = match full.split_once('|') {
            Some((name, sub)) => (name, Some(sub)),
            None => (full, None),
        };
        Self { name, sub, classes: &[], known: true, right: None }
    }
}
