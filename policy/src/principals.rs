//! Lists of database users and names: equal, `*` alone, or an explicit `glob:`/`regex:` (access-model 5.4).

use crate::filter::Filter;
use crate::pattern::{Pattern, PatternError};
use crate::same::same;
use crate::template::{ExpandError, Facts, Template, TemplateError};

/// Up to this many names, looking at each is faster than a binary search.
const SCANNED_MAX: usize = 16;

/// One entry of a `db_users` or `db_names` list, as written.
#[derive(Debug, Clone)]
pub(crate) struct NameEntry {
    form: Form,
    template: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    Glob,
    Regex,
}

/// An entry that does not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameEntryError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl NameEntry {
    /// Reads one entry. The prefixes count only where the document writes them: a trait cannot bring a pattern in.
    pub(crate) fn parse(text: &str) -> Result<Self, NameEntryError> {
        let (form, rest) = match (text.strip_prefix("glob:"), text.strip_prefix("regex:")) {
            (Some(rest), _) => (Form::Glob, rest),
            (_, Some(rest)) => (Form::Regex, rest),
            _ => (Form::Exact, text),
        };
        let entry = Self { form, template: Template::parse(rest)? };
        if let Some(literal) = entry.template.literal() {
            entry.pattern(literal)?;
        }
        Ok(entry)
    }

    /// Whether it is the same for every identity.
    pub(crate) fn is_fixed(&self) -> bool {
        self.template.literal().is_some()
    }

    fn pattern(&self, text: &str) -> Result<Option<Pattern>, PatternError> {
        match self.form {
            Form::Exact => Ok(None),
            Form::Glob => Pattern::glob(text).map(Some),
            Form::Regex => Pattern::whole_regex(text).map(Some),
        }
    }
}

/// A list expanded for one identity.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameList {
    any: bool,
    /// Sorted.
    exact: Vec<String>,
    patterns: Vec<(String, Pattern)>,
}

/// What an entry that fails to expand stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// In `allow`: nothing.
    Allow,
    /// In `deny`: everything.
    Deny,
}

impl NameList {
    pub(crate) fn expand(entries: &[NameEntry], facts: Facts<'_>, effect: Effect) -> Self {
        let mut list = Self::default();
        for entry in entries {
            if list.add(entry, facts).is_err() {
                list.any |= effect == Effect::Deny;
            }
        }
        list.exact.sort_unstable();
        list.exact.dedup();
        list
    }

    fn add(&mut self, entry: &NameEntry, facts: Facts<'_>) -> Result<(), ExpandError> {
        const BAD_PATTERN: fn(PatternError) -> ExpandError = |_| ExpandError::PATTERN;
        let values = match entry.form {
            Form::Exact => entry.template.expand(facts)?,
            Form::Glob => {
                // A star that comes from the identity cannot be told from a written one inside a glob.
                let values = entry.template.expand_quoted(facts, |value| value.replace('*', "\0"))?;
                if values.iter().any(|value| value.contains('\0')) {
                    return Err(ExpandError::PATTERN);
                }
                values
            }
            Form::Regex => entry.template.expand_quoted(facts, regex::escape)?,
        };
        for value in values {
            match entry.pattern(&value).map_err(BAD_PATTERN)? {
                Some(pattern) => {
                    let prefix = if entry.form == Form::Glob { "glob" } else { "regex" };
                    self.patterns.push((format!("{prefix}:{value}"), pattern));
                }
                None if value == "*" => self.any = true,
                None => self.exact.push(value),
            }
        }
        Ok(())
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.any || self.lists(name) || self.patterns.iter().any(|(_, pattern)| pattern.matches(name))
    }

    fn lists(&self, name: &str) -> bool {
        match self.exact.len() <= SCANNED_MAX {
            true => self.exact.iter().any(|known| same(known, name)),
            false => self.exact.binary_search_by(|known| known.as_str().cmp(name)).is_ok(),
        }
    }

    pub(crate) fn matches_everything(&self) -> bool {
        self.any
    }

    /// Holds every name that the list may match.
    pub(crate) fn filter(&self) -> Filter {
        match self.any || !self.patterns.is_empty() {
            true => Filter::FULL,
            false => self.exact.iter().map(|name| Filter::of(name)).fold(Filter::default(), Filter::with),
        }
    }

    /// The entries as people read them.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let wildcard = self.any.then_some("*");
        wildcard
            .into_iter()
            .chain(self.exact.iter().map(String::as_str))
            .chain(self.patterns.iter().map(|(text, _)| text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn list(entries: &[&str], values: &[&str], effect: Effect) -> NameList {
        let entries: Vec<_> = entries.iter().map(|entry| NameEntry::parse(entry).unwrap()).collect();
        let traits = BTreeMap::from([("db_users".to_owned(), values.iter().map(|v| (*v).to_owned()).collect())]);
        NameList::expand(&entries, Facts { user: "alice", traits: &traits }, effect)
    }

    #[test]
    fn matches_equal_names_the_wildcard_and_explicit_patterns() {
        assert!(list(&["alice"], &[], Effect::Allow).matches("alice"));
        assert!(!list(&["alice"], &[], Effect::Allow).matches("Alice"));
        assert!(!list(&["ali*"], &[], Effect::Allow).matches("alice"));
        assert!(!list(&["^a.*$"], &[], Effect::Allow).matches("alice"));
        assert!(list(&["*"], &[], Effect::Allow).matches("anybody"));
        assert!(list(&["glob:ali*"], &[], Effect::Allow).matches("alice"));
        assert!(list(&["regex:a|b"], &[], Effect::Allow).matches("b"));
        assert!(!list(&["regex:a|b"], &[], Effect::Allow).matches("xb"));
    }

    #[test]
    fn takes_the_wildcard_but_no_pattern_from_a_trait() {
        assert!(list(&["{{internal.db_users}}"], &["*"], Effect::Allow).matches("anybody"));
        assert!(!list(&["{{internal.db_users}}"], &["glob:*", "regex:.*"], Effect::Allow).matches("anybody"));
        assert!(!list(&["glob:{{internal.db_users}}"], &["*"], Effect::Allow).matches("anybody"));
        assert!(list(&["glob:{{internal.db_users}}_*"], &["a"], Effect::Allow).matches("a_ro"));
        assert!(!list(&["regex:{{internal.db_users}}"], &[".*"], Effect::Allow).matches("anybody"));
    }

    #[test]
    fn fails_closed_when_an_entry_does_not_expand() {
        let entries = ["{{email.local(internal.db_users)}}", "bob"];
        let allow = list(&entries, &["nobody"], Effect::Allow);
        assert!(allow.matches("bob") && !allow.matches("carol"));
        assert!(list(&entries, &["nobody"], Effect::Deny).matches("carol"));
        assert!(!list(&["{{internal.db_users}}"], &[], Effect::Deny).matches("carol"));
    }
}
