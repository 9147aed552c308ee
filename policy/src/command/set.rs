//! Command classes and rights of sessions that are judged by them (PostgreSQL, MySQL), one bit each.

use super::{CommandFacts, CommandRules};

/// The classes by bit: `@query`, `@function_call`, `@replication`, `@prepared`, `@admin`, `@local_infile`.
const CLASSES: [CommandFacts<'static>; 6] = [
    CommandFacts { name: "", sub: None, classes: &["query"], known: true, right: None },
    CommandFacts { name: "", sub: None, classes: &["function_call"], known: true, right: None },
    CommandFacts { name: "", sub: None, classes: &[], known: true, right: Some("replication") },
    CommandFacts { name: "", sub: None, classes: &["prepared"], known: true, right: None },
    CommandFacts { name: "", sub: None, classes: &["admin"], known: true, right: None },
    CommandFacts { name: "", sub: None, classes: &[], known: true, right: Some("local_infile") },
];

/// A set of command classes, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandSet(u32);

impl CommandSet {
    /// Bit of `@query`.
    pub const QUERY: u8 = 0;
    /// Bit of `@function_call`.
    pub const FUNCTION_CALL: u8 = 1;
    /// Bit of `@replication`, a right that has to be named.
    pub const REPLICATION: u8 = 2;
    /// Bit of `@prepared`.
    pub const PREPARED: u8 = 3;
    /// Bit of `@admin`.
    pub const ADMIN: u8 = 4;
    /// Bit of `@local_infile`, a right that has to be named.
    pub const LOCAL_INFILE: u8 = 5;

    /// What a role that names no commands grants: every known class, no right.
    pub const DEFAULT: Self = Self(0b01_1011);

    /// Whether the class of `bit` is permitted; an unknown bit is not.
    pub fn allows(self, bit: u8) -> bool {
        (bit as usize) < CLASSES.len() && self.0 & (1 << bit) != 0
    }

    /// The classes that the rules permit.
    pub(crate) fn permitted(rules: &CommandRules) -> Self {
        let bits = CLASSES.iter().enumerate().map(|(bit, class)| u32::from(rules.judge(class).allowed) << bit);
        Self(bits.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_bits_of_the_default_rules() {
        assert_eq!(CommandSet::permitted(&CommandRules::default()), CommandSet::DEFAULT);
        assert!(!CommandSet(u32::MAX).allows(6) && !CommandSet(u32::MAX).allows(255));
    }
}
