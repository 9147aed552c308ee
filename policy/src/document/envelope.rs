//! What every document has around its `spec`: kind, version, metadata.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::Fields;

const NAME_BYTES_MAX: usize = 255;
const METADATA: &[&str] = &["name", "description", "labels", "expires", "revision"];
const METADATA_KEPT: &[&str] = &["id", "namespace"];

/// The metadata of a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) expires: Option<jiff::Timestamp>,
    pub(crate) revision: Option<String>,
}

impl Metadata {
    pub(crate) fn read(root: &Fields<'_>) -> Self {
        root.allow_only(&["kind", "version", "metadata", "spec"], &["sub_kind"]);
        let fields = root.map("metadata");
        fields.allow_only(METADATA, METADATA_KEPT);
        let name = fields.text("name").unwrap_or_default().to_owned();
        if let Some(problem) = name_problem(&name) {
            fields.error("name", problem);
        }
        let revision = match fields.value("revision") {
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => fields.text("revision").map(str::to_owned),
        };
        let expires = fields.text("expires").and_then(|text| {
            let parsed = text.parse::<jiff::Timestamp>();
            if parsed.is_err() {
                fields.error("expires", "expected an RFC 3339 time");
            }
            parsed.ok()
        });
        Self {
            name,
            description: fields.text("description").unwrap_or_default().to_owned(),
            labels: plain_labels(&fields, "labels"),
            expires,
            revision,
        }
    }
}

/// A map of label names to label texts.
pub(crate) fn plain_labels(fields: &Fields<'_>, name: &str) -> BTreeMap<String, String> {
    let labels = fields.map(name);
    let mut map = BTreeMap::new();
    for (key, _) in labels.entries() {
        if let Some(text) = labels.text(key) {
            map.insert(key.clone(), text.to_owned());
        }
    }
    map
}

/// The version's number, when it is one of `accepted`; a stored document of a newer version is refused too.
pub(crate) fn version(root: &Fields<'_>, accepted: &[(&'static str, u8)]) -> Option<u8> {
    let Some(text) = root.text("version") else {
        if !root.is_present("version") {
            root.error("version", "missing");
        }
        return None;
    };
    let found = accepted.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words: Vec<&str> = accepted.iter().map(|(word, _)| *word).collect();
        root.error("version", format_args!("`{text}` is none of {}", words.join(", ")));
    }
    found.map(|(_, number)| *number)
}

fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("missing");
    }
    if name.len() > NAME_BYTES_MAX {
        return Some("longer than 255 bytes");
    }
    if name.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | ',' | '\\' | '"')) {
        return Some("a name has no space, control character, slash, comma or quote");
    }
    None
}
