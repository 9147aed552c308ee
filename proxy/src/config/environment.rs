//! `RINGGATE__SECTION__KEY` over the file: the variable's value stands in the key's place.

use std::ffi::OsString;

use super::problem::Problem;
use super::tree::{Entry, Kind, Mark, Node, parse};

const PREFIX: &str = "RINGGATE__";
/// The one key that has a short name too (user-experience section 7).
const SHORT_DRIVER: &str = "RINGGATE_RUNTIME_DRIVER";
const LONG_DRIVER: &str = "RINGGATE__RUNTIME__DRIVER";

/// Lays every matching variable over the tree. Values are read as YAML, so `[a, b]` and `{a: 1}` work.
pub(super) fn overlay(
    mut root: Node,
    variables: impl Iterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> Node {
    let mut found: Vec<(String, OsString)> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .map(|(name, value)| (if name == SHORT_DRIVER { LONG_DRIVER.to_owned() } else { name }, value))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    found.sort();
    for (name, value) in found {
        let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        let mark = Mark { variable: Some(name.clone()), ..Mark::start() };
        let Ok(value) = value.into_string() else {
            problems.push(Problem::new(mark, "the value is not UTF-8".to_owned()));
            continue;
        };
        if path.iter().any(String::is_empty) {
            problems.push(
                Problem::new(mark, "the name does not spell a key".to_owned())
                    .suggest("RINGGATE__SECTION__KEY, for example RINGGATE__RUNTIME__WORKERS=2"),
            );
            continue;
        }
        let node = value_of(&value, &mark);
        if !place(&mut root, &path, node, &mark) {
            problems.push(Problem::new(mark, "a part of the name is a single value or a list in the file".to_owned()));
        }
    }
    root
}

fn value_of(value: &str, mark: &Mark) -> Node {
    let mut ignored = Vec::new();
    let structured = value.starts_with('[') || value.starts_with('{');
    let parsed = if structured { parse(value, &mut ignored).filter(|_| ignored.is_empty()) } else { None };
    let mut node = parsed.unwrap_or_else(|| Node { mark: mark.clone(), kind: Kind::Scalar(value.to_owned()) });
    remark(&mut node, mark);
    node
}

fn remark(node: &mut Node, mark: &Mark) {
    node.mark = mark.clone();
    match &mut node.kind {
        Kind::List(items) => items.iter_mut().for_each(|n| remark(n, mark)),
        Kind::Map(entries) => entries.iter_mut().for_each(|e| {
            e.key_mark = mark.clone();
            remark(&mut e.value, mark);
        }),
        Kind::Null | Kind::Scalar(_) => {}
    }
}

fn place(node: &mut Node, path: &[String], value: Node, mark: &Mark) -> bool {
    let [key, rest @ ..] = path else {
        *node = value;
        return true;
    };
    if matches!(node.kind, Kind::Null) {
        node.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(entries) = &mut node.kind else { return false };
    let index = entries.iter().position(|e| e.key == *key).unwrap_or_else(|| {
        let value = Node { mark: mark.clone(), kind: Kind::Null };
        entries.push(Entry { key: key.clone(), key_mark: mark.clone(), value });
        entries.len() - 1
    });
    place(&mut entries[index].value, rest, value, mark)
}
