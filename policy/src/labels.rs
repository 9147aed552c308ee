//! The labels of a database, ready to be matched.

use std::collections::BTreeMap;

use crate::filter::Filter;
use crate::same::same;

/// Up to this many labels are looked at in turn.
const SCANNED_MAX: usize = 16;

/// Labels by name, none twice. They never change: what selectors are held against first is computed once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// Sorted by key.
    entries: Box<[(String, String)]>,
    filter: Filter,
}

impl Labels {
    /// The value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let entry = match self.entries.len() <= SCANNED_MAX {
            true => self.entries.iter().find(|(known, _)| same(known, key)),
            false => {
                let at = self.entries.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok();
                at.and_then(|at| self.entries.get(at))
            }
        };
        entry.map(|(_, value)| value.as_str())
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Holds every key, and every key with its value.
    pub(crate) fn filter(&self) -> Filter {
        self.filter
    }
}

impl FromIterator<(String, String)> for Labels {
    /// Of a key given twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        let entries: BTreeMap<String, String> = entries.into_iter().collect();
        let both = |(key, value): (&String, &String)| Filter::of(key).with(Filter::of_pair(key, value));
        let filter = entries.iter().map(both).fold(Filter::default(), Filter::with);
        Self { entries: entries.into_iter().collect(), filter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_few_and_many_labels_alike() {
        for count in [0, 1, SCANNED_MAX, SCANNED_MAX + 1, 100] {
            let labels: Labels = (0..count).rev().map(|at| (format!("key-{at}"), format!("value-{at}"))).collect();
            for at in 0..count {
                assert_eq!(labels.get(&format!("key-{at}")), Some(format!("value-{at}").as_str()));
            }
            assert_eq!(labels.get("none"), None);
            assert_eq!(labels.iter().count(), count);
            assert!(labels.iter().is_sorted());
        }
    }
}
