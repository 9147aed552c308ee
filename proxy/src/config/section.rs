//! A cursor over one mapping: reads what is known, notes what is wrong, and names what nobody asked for.

use std::cell::RefCell;

use super::problem::Problem;
use super::tree::{Entry, Kind, Mark, Node};

/// Farthest a misspelt key may be from the one suggested, as Jaro-Winkler similarity.
const SIMILARITY_MIN: f64 = 0.75;

/// One mapping of the file. [`Section::finish`] must be called last: it reports unknown keys.
pub(crate) struct Section<'a> {
    /// Dotted path from the root, empty for the root.
    path: String,
    mark: Mark,
    entries: &'a [Entry],
    known: RefCell<Vec<&'static str>>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(path: &str, node: &'a Node, problems: &'a RefCell<Vec<Problem>>) -> Section<'a> {
        let entries: &[Entry] = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            _ => {
                let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
                problems.borrow_mut().push(Problem::new(
                    node.mark.clone(),
                    format!("{what} must be a mapping, not {}", node.describe()),
                ));
                &[]
            }
        };
        Section { path: path.to_owned(), mark: node.mark.clone(), entries, known: RefCell::default(), problems }
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The dotted path of a key of this section.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn problem(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The value of a key; null counts as absent.
    pub(crate) fn get(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        let entry = self.entries.iter().find(|e| e.key == key)?;
        (!matches!(entry.value.kind, Kind::Null)).then_some(&entry.value)
    }

    /// A section below this one; an absent one is empty.
    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.get(key).map(|node| Section::new(&self.name(key), node, self.problems))
    }

    /// A list; one that is not a list is reported.
    pub(crate) fn list(&self, key: &'static str) -> Option<&'a [Node]> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::List(items) => Some(items),
            _ => {
                self.problem(
                    Problem::new(
                        node.mark.clone(),
                        format!("`{}` must be a list, not {}", self.name(key), node.describe()),
                    )
                    .suggest(format!("{key}: [ ... ]")),
                );
                None
            }
        }
    }

    /// Reads a single value with `parse`; what it refuses is reported at the value.
    pub(crate) fn read<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.get(key)?;
        self.scalar(key, node).and_then(|text| match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(Problem::new(node.mark.clone(), format!("`{}`: {why}", self.name(key))));
                None
            }
        })
    }

    /// Text as it stands.
    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        self.read(key, |text| Ok(text.to_owned()))
    }

    /// One of a closed set of words; another word is reported with the nearest of them.
    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let node = self.get(key)?;
        let text = self.scalar(key, node)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let mut problem = Problem::new(
            node.mark.clone(),
            format!("`{}`: `{text}` is not one of {}", self.name(key), words.join(", ")),
        );
        if let Some(near) = nearest(text, &words) {
            problem = problem.suggest(format!("{key}: {near}"));
        }
        self.problem(problem);
        None
    }

    /// The text of a node that must be a single value.
    pub(crate) fn scalar(&self, key: &str, node: &'a Node) -> Option<&'a str> {
        match &node.kind {
            Kind::Scalar(text) => Some(text),
            _ => {
                self.problem(Problem::new(
                    node.mark.clone(),
                    format!("`{}` must be a single value, not {}", self.name(key), node.describe()),
                ));
                None
            }
        }
    }

    /// Keys and values of the section, for maps with free keys.
    pub(crate) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Keys of the reference that this version does not act on: silence would be a promise, so they are refused.
    pub(crate) fn not_served(&self, keys: &[&'static str]) {
        for key in keys {
            self.known.borrow_mut().push(key);
            if let Some(entry) = self.entries.iter().find(|e| e.key == *key) {
                self.problem(
                    Problem::new(entry.key_mark.clone(), format!("`{}` is not served by this version", self.name(key)))
                        .suggest("remove the key"),
                );
            }
        }
    }

    /// Reports a key that must be there.
    pub(crate) fn missing(&self, key: &str, example: &str) {
        let what = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
        self.problem(Problem::new(self.mark.clone(), format!("`{key}` is missing{what}")).suggest(example));
    }

    /// Reports every key nobody asked for, with the nearest known one.
    pub(crate) fn finish(self) {
        let known = self.known.borrow();
        for entry in self.entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
            let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let mut problem = Problem::new(entry.key_mark.clone(), format!("unknown key `{}`{place}", entry.key));
            problem = match nearest(&entry.key, &known) {
                Some(near) => problem.suggest(format!("`{near}`")),
                None => problem.suggest(format!("one of {}", known.join(", "))),
            };
            self.problems.borrow_mut().push(problem);
        }
    }
}

/// The word of `words` most like `text`, if any is like it at all.
pub(crate) fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .map(|word| (strsim::jaro_winkler(text, word), *word))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
