//! The keys of one connection.

use std::fmt;
use std::sync::Arc;

use super::KeyGlob;

/// The globs of one connection's roles. A clone is a counter.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyRules(Arc<[KeyGlob]>);

impl KeyRules {
    /// Whether a command may name `key`. Allocates nothing. Work: at most bytes of the key times bytes of the globs.
    pub fn allows(&self, key: &[u8]) -> bool {
        self.0.iter().any(|glob| glob.matches(key))
    }

    /// The globs as the roles write them, sorted; where there is none, no key is allowed.
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(KeyGlob::as_str)
    }

    /// The union of what the matching roles list; absent where one of them does not restrict keys.
    pub(crate) fn merge<'r>(roles: impl Iterator<Item = Option<&'r [KeyGlob]>>) -> Option<Self> {
        let mut globs = Vec::new();
        for list in roles {
            globs.extend_from_slice(list?);
        }
        globs.sort_unstable();
        globs.dedup();
        Some(Self(globs.into()))
    }
}

impl fmt::Debug for KeyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.globs()).finish()
    }
}

impl fmt::Display for KeyRules {
    /// As a refusal names it: `db_keys user:*, session:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no db_keys");
        }
        f.write_str("db_keys ")?;
        for (at, glob) in self.globs().enumerate() {
            let between = if at > 0 { ", " } else { "" };
            write!(f, "{between}{glob}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(roles: &[Option<&[&str]>]) -> Option<KeyRules> {
        let lists: Vec<Option<Vec<KeyGlob>>> = roles
            .iter()
            .map(|list| list.map(|list| list.iter().map(|glob| KeyGlob::parse(glob).unwrap()).collect()))
            .collect();
        KeyRules::merge(lists.iter().map(Option::as_deref))
    }

    #[test]
    fn allows_what_one_glob_of_one_role_takes() {
        let both = rules(&[Some(&["user:*"]), Some(&["session:?", "user:*"])]).unwrap();
        assert!(both.allows(b"user:1") && both.allows(b"session:1") && !both.allows(b"session:10"));
        assert_eq!(both.to_string(), "db_keys session:?, user:*");
        assert_eq!(both, rules(&[Some(&["session:?"]), Some(&["user:*"])]).unwrap());
        assert_ne!(both, rules(&[Some(&["user:*"])]).unwrap());
    }

    #[test]
    fn allows_every_key_where_one_role_has_no_globs_and_none_where_all_are_empty() {
        assert!(rules(&[Some(&["user:*"]), None]).is_none());
        let none = rules(&[Some(&[])]).unwrap();
        assert!(!none.allows(b"") && !none.allows(b"a"));
        assert_eq!(none.to_string(), "no db_keys");
        assert!(rules(&[Some(&["*"])]).is_some_and(|every| every.allows(b"") && every.allows(b"a")));
    }
}
