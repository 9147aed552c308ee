//! Command classes and rights of a PostgreSQL session, one bit each.

use super::{CommandFacts, CommandRules};

/// The classes by bit: `@query` 0, `@function_call` 1, `@replication` 2.
const CLASSES: [CommandFacts<'static>; 3] = [
    CommandFacts { name: "", sub: None, classes: &["query"], known: true, right: None },
    CommandFacts { name: "", sub: None, classes: &["function_call"], known: true, right: None },
    CommandFacts { name: "", sub: None, classes: &[], known: true, right: Some("replication") },
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

    /// What a role that names no commands grants: every known class, no right.
    pub const DEFAULT: Self = Self(0b011);

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
        assert!(!CommandSet(u32::MAX).allows(3) && !CommandSet(u32::MAX).allows(255));
    }
}
