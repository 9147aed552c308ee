//! Command classes and rights inside a PostgreSQL session (access-model 5.8).

/// The classes by bit: `@query` 0, `@function_call` 1, `@replication` 2.
const CLASSES: [&str; 3] = ["@query", "@function_call", "@replication"];
/// What a role grants that does not name commands, and what `*` grants: everything but the rights.
const KNOWN: CommandSet = CommandSet(0b011);
const EVERYTHING: CommandSet = CommandSet(u32::MAX);

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

    /// Whether the class of `bit` is permitted; an unknown bit is not.
    pub fn allows(self, bit: u8) -> bool {
        (bit as usize) < CLASSES.len() && self.0 & (1 << bit) != 0
    }

    /// What a role that names no commands grants: every known class, no right.
    pub const DEFAULT: Self = KNOWN;

    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What an allow list grants. Absent is everything known, an empty list is nothing; names of other protocols
    /// grant nothing here, and `*` grants no right.
    pub(crate) fn granted(list: Option<&[String]>) -> Self {
        list.map_or(KNOWN, |names| Self::of(names, KNOWN))
    }

    /// What a deny list takes away; `*` takes the rights too.
    pub(crate) fn denied(list: Option<&[String]>) -> Self {
        list.map_or(Self::NONE, |names| Self::of(names, EVERYTHING))
    }

    fn of(names: &[String], wildcard: Self) -> Self {
        names.iter().fold(Self::NONE, |set, name| match name.as_str() {
            "*" => set.with(wildcard),
            name => set.with(Self(CLASSES.iter().position(|class| *class == name).map_or(0, |bit| 1 << bit))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn bits(set: CommandSet) -> [bool; 3] {
        [CommandSet::QUERY, CommandSet::FUNCTION_CALL, CommandSet::REPLICATION].map(|bit| set.allows(bit))
    }

    #[test]
    fn never_implies_a_right() {
        assert_eq!(bits(CommandSet::granted(None)), [true, true, false]);
        assert_eq!(bits(CommandSet::granted(Some(&names(&["*"])))), [true, true, false]);
        assert_eq!(bits(CommandSet::granted(Some(&names(&["*", "@replication"])))), [true; 3]);
        assert_eq!(bits(CommandSet::granted(Some(&names(&["@query", "GET"])))), [true, false, false]);
        assert_eq!(bits(CommandSet::granted(Some(&[]))), [false; 3]);
        assert!(!CommandSet(u32::MAX).allows(3) && !CommandSet(u32::MAX).allows(255));
    }

    #[test]
    fn takes_rights_away_by_name_and_by_wildcard() {
        let all = CommandSet::granted(Some(&names(&["*", "@replication"])));
        assert_eq!(bits(all.without(CommandSet::denied(Some(&names(&["@replication"]))))), [true, true, false]);
        assert_eq!(bits(all.without(CommandSet::denied(Some(&names(&["*"]))))), [false; 3]);
        assert_eq!(bits(all.without(CommandSet::denied(None))), [true; 3]);
    }
}
