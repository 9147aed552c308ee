//! One entry of a `db_commands` list.

use std::fmt;
use std::sync::Arc;

use super::CommandFacts;

/// Longest entry, in bytes; the longest command of any server we know has 30.
const ENTRY_BYTES_MAX: usize = 128;

/// Every class and right of access-model 5.8, whatever its protocol; Redis's are the server's ACL categories, those
/// of the modules that come with it included.
const CLASSES: [&str; 38] = [
    "admin",
    "bitmap",
    "blocking",
    "bloom",
    "cms",
    "connection",
    "cuckoo",
    "dangerous",
    "diagnostic",
    "fast",
    "function_call",
    "geo",
    "hash",
    "hyperloglog",
    "json",
    "keyspace",
    "list",
    "local_infile",
    "monitor",
    "outbound",
    "prepared",
    "pubsub",
    "query",
    "read",
    "replication",
    "scripting",
    "search",
    "set",
    "slow",
    "sortedset",
    "stream",
    "string",
    "tdigest",
    "timeseries",
    "topk",
    "transaction",
    "user_admin",
    "write",
];

/// `*`, `@class`, `NAME` or `NAME|SUB`, as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry(Arc<str>);

/// Why a text is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("expected a command, NAME|SUB, @class or `*`")]
    Shape,
    #[error("no protocol has this class")]
    UnknownClass,
}

impl Entry {
    /// Takes `text` as it is: one that has no shape matches nothing.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Checks the shape, and that some protocol has the class. Names are not known to this crate.
    pub(crate) fn check(text: &str) -> Result<(), EntryError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let word = |word: &str| !word.is_empty() && word.chars().all(plain);
        let well_formed = match (text, text.strip_prefix('@'), text.split_once('|')) {
            ("*", ..) => true,
            (_, Some(class), _) => word(class),
            (_, _, Some((name, sub))) => word(name) && word(sub),
            _ => word(text),
        };
        if !well_formed || text.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::Shape);
        }
        match text.strip_prefix('@') {
            Some(class) if !CLASSES.iter().any(|known| known.eq_ignore_ascii_case(class)) => {
                Err(EntryError::UnknownClass)
            }
            _ => Ok(()),
        }
    }

    /// The classes that [`Self::check`] knows, without `@`.
    pub(crate) fn classes() -> &'static [&'static str] {
        &CLASSES
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether it permits a known command. A right needs the right or the very command to be named: neither `*` nor
    /// a class nor the container of a sub-command implies it.
    pub(crate) fn grants(&self, command: &CommandFacts<'_>) -> bool {
        if let (Some(right), Some(class)) = (command.right, self.0.strip_prefix('@')) {
            return class.eq_ignore_ascii_case(right);
        }
        let named_itself = self.0.contains('|') || (!self.is_wildcard() && command.sub.is_none());
        self.covers(command) && (command.right.is_none() || named_itself)
    }

    /// Whether the command is what it names, or belongs to it.
    pub(crate) fn covers(&self, command: &CommandFacts<'_>) -> bool {
        if self.is_wildcard() {
            return true;
        }
        if let Some(class) = self.0.strip_prefix('@') {
            return command.classes.iter().copied().chain(command.right).any(|own| own.eq_ignore_ascii_case(class));
        }
        match self.0.split_once('|') {
            None => self.0.eq_ignore_ascii_case(command.name),
            Some((name, sub)) => {
                name.eq_ignore_ascii_case(command.name) && command.sub.is_some_and(|own| own.eq_ignore_ascii_case(sub))
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_the_shape_and_the_class_of_an_entry() {
        for good in ["*", "GET", "get", "CONFIG|SET", "JSON.GET", "CLIENT|NO-EVICT", "@read", "@READ", "@user_admin"] {
            assert_eq!(Entry::check(good), Ok(()), "{good}");
        }
        let long = "A".repeat(129);
        for bad in ["", "@", "|", "A|", "|B", "A|B|C", "G*", "**", "drop table", "@re ad", "@a|b", "é", "A\nB", &long]
        {
            assert_eq!(Entry::check(bad), Err(EntryError::Shape), "{bad:?}");
        }
        for unknown in ["@reed", "@all", "@nosuch"] {
            assert_eq!(Entry::check(unknown), Err(EntryError::UnknownClass), "{unknown}");
        }
    }

    #[test]
    fn keeps_the_classes_sorted_and_none_twice() {
        assert!(CLASSES.is_sorted_by(|one, other| one < other));
    }
}
