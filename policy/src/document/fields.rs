//! Reading one map of a document: every field by name, every complaint with its path, all complaints at once.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{DocumentError, Warning};
use crate::duration::parse_duration;

/// How strictly a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Written by a person now: everything must be right.
    Write,
    /// From storage, perhaps of a newer version: unknown fields are kept, expressions that fail do so closed.
    Stored,
}

/// The complaints of one document.
pub(crate) struct Complaints {
    pub(crate) document: String,
    pub(crate) reading: Reading,
    errors: RefCell<Vec<DocumentError>>,
    warnings: RefCell<Vec<String>>,
    kept: RefCell<Vec<String>>,
}

impl Complaints {
    pub(crate) fn new(document: String, reading: Reading) -> Self {
        Self { document, reading, errors: RefCell::default(), warnings: RefCell::default(), kept: RefCell::default() }
    }

    pub(crate) fn error(&self, path: &str, message: impl Display) {
        self.unknown(path, message.to_string(), None);
    }

    /// An unknown name, with the known one that is nearest.
    pub(crate) fn unknown(&self, path: &str, message: String, nearest: Option<&'static str>) {
        let document = self.document.clone();
        let path = path.to_owned();
        self.errors.borrow_mut().push(DocumentError { document, path, message, nearest, location: None });
    }

    pub(crate) fn warn(&self, message: impl Display) {
        self.warnings.borrow_mut().push(message.to_string());
    }

    /// Ends reading: the value with its warnings, or all errors.
    pub(crate) fn settle<T>(self, value: Option<T>) -> Result<(T, Vec<Warning>), Vec<DocumentError>> {
        let document = self.document;
        let mut errors = self.errors.into_inner();
        let mut messages = self.warnings.into_inner();
        let kept = self.kept.into_inner();
        if !kept.is_empty() {
            messages.insert(0, format!("kept but not served by this gateway: {}", kept.join(", ")));
        }
        match value {
            Some(value) if errors.is_empty() => {
                let warnings = messages.into_iter().map(|message| Warning { document: document.clone(), message });
                Ok((value, warnings.collect()))
            }
            _ => {
                if errors.is_empty() {
                    errors.push(DocumentError { document, ..DocumentError::text("not usable".to_owned()) });
                }
                Err(errors)
            }
        }
    }
}

/// The fields of one map; absent and `null` are the same.
#[derive(Clone)]
pub(crate) struct Fields<'v> {
    pub(crate) path: String,
    map: Option<&'v Map<String, Value>>,
    pub(crate) complaints: &'v Complaints,
}

impl<'v> Fields<'v> {
    pub(crate) fn root(value: &'v Value, complaints: &'v Complaints) -> Self {
        Self::of(String::new(), Some(value), complaints)
    }

    pub(crate) fn of(path: String, value: Option<&'v Value>, complaints: &'v Complaints) -> Self {
        let map = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => {
                complaints.error(&path, format_args!("expected a map, found {}", kind_of(other)));
                None
            }
        };
        Self { path, map, complaints }
    }

    /// Complains about names that are neither `known` nor `kept`; notes the kept ones for the one warning.
    pub(crate) fn allow_only(&self, known: &'static [&'static str], kept: &'static [&'static str]) {
        for (name, value) in self.map.into_iter().flatten() {
            if known.contains(&name.as_str()) {
                continue;
            }
            if kept.contains(&name.as_str()) {
                if !value.is_null() {
                    let path = self.at(name);
                    let short = path.strip_prefix("spec.").unwrap_or(&path).to_owned();
                    self.complaints.kept.borrow_mut().push(short);
                }
            } else if self.complaints.reading == Reading::Write {
                let nearest = nearest(name, known.iter().chain(kept));
                self.complaints.unknown(&self.at(name), "unknown field".to_owned(), nearest);
            } else {
                self.complaints.warn(format_args!("{}: unknown field, kept", self.at(name)));
            }
        }
    }

    pub(crate) fn at(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        }
    }

    pub(crate) fn error(&self, name: &str, message: impl Display) {
        self.complaints.error(&self.at(name), message);
    }

    pub(crate) fn is_present(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'v Value> {
        self.map?.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'v String, &'v Value)> {
        self.map.into_iter().flatten()
    }

    pub(crate) fn map(&self, name: &str) -> Fields<'v> {
        Fields::of(self.at(name), self.value(name), self.complaints)
    }

    /// The elements of a list of maps.
    pub(crate) fn maps(&self, name: &str) -> Vec<Fields<'v>> {
        let path = self.at(name);
        match self.value(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(at, item)| Fields::of(format!("{path}[{at}]"), Some(item), self.complaints))
                .collect(),
            Some(other) => {
                self.error(name, format_args!("expected a list, found {}", kind_of(other)));
                Vec::new()
            }
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'v str> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            other => {
                self.error(name, expected_text(other));
                None
            }
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if matches!(text.as_str(), "true" | "yes") => Some(true),
            Value::String(text) if matches!(text.as_str(), "false" | "no") => Some(false),
            other => {
                self.error(name, format_args!("expected true or false, found {}", kind_of(other)));
                None
            }
        }
    }

    pub(crate) fn count(&self, name: &str) -> Option<u32> {
        let value = self.value(name)?;
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            self.error(name, format_args!("expected a whole number from 0 to {}", u32::MAX));
        }
        count
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        let duration = match self.value(name)? {
            Value::String(text) => parse_duration(text),
            Value::Number(number) if number.as_u64() == Some(0) => Some(Duration::ZERO),
            _ => None,
        };
        if duration.is_none() {
            self.error(name, "expected a duration such as 90s, 1h30m or 7d");
        }
        duration
    }

    /// One of the `words`; the nearest is named for any other.
    pub(crate) fn choice<T: Copy>(&self, name: &str, words: &'static [(&'static str, T)]) -> Option<T> {
        let text = match self.value(name)? {
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            _ => self.text(name)?,
        };
        if let Some((_, choice)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
        let nearest = nearest(text, names.iter());
        self.complaints.unknown(&self.at(name), format!("`{text}` is none of {}", names.join(", ")), nearest);
        None
    }

    /// A list of texts; a lone text is a list of one. Each with its path.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<(String, &'v str)>> {
        let path = self.at(name);
        Some(texts_of(&path, self.value(name)?, self.complaints))
    }
}

pub(crate) fn texts_of<'v>(path: &str, value: &'v Value, complaints: &Complaints) -> Vec<(String, &'v str)> {
    let one = |path: String, value: &'v Value| match value {
        Value::String(text) => Some((path, text.as_str())),
        other => {
            complaints.error(&path, expected_text(other));
            None
        }
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().filter_map(|(at, item)| one(format!("{path}[{at}]"), item)).collect()
        }
        other => one(path.to_owned(), other).into_iter().collect(),
    }
}

fn expected_text(found: &Value) -> String {
    match found {
        Value::Bool(_) | Value::Number(_) => format!("expected text, found {}; put it in quotes", kind_of(found)),
        other => format!("expected text, found {}", kind_of(other)),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// The known name that is most like `name`, where one is like it at all.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n &'static str>) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let scored = known.map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate));
    let (distance, candidate) = scored.min()?;
    (distance <= 1 + candidate.len() / 4).then_some(candidate)
}
