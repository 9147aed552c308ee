//! `create`, `get` and `rm`.

use std::io::Read as _;
use std::path::Path;

use ringgate_control::Action;
use serde_json::{Value, json};

use super::arguments::{Create, Get, Remove};
use super::context::{Context, refused};
use super::failure::{Exit, Failure, file};
use super::output::{self, Format, escape};

/// Longest text of documents that is read.
const TEXT_BYTES_MAX: u64 = 4 << 20;

pub(super) fn create(context: &Context, create: &Create) -> Result<(), Failure> {
    let yaml = match create.file.as_deref() {
        Some(path) if path != Path::new("-") => {
            let opened = std::fs::File::open(path).map_err(|e| file("read", path, &e))?;
            bounded(opened, &path.display().to_string())?
        }
        _ => bounded(std::io::stdin().lock(), "stdin")?,
    };
    let applied = context.admin()?.apply(&yaml, create.force).map_err(refused)?;
    for done in &applied {
        for warning in &done.warnings {
            context.note(&format!("warning: {} \"{}\": {}", done.kind, escape(&done.name), escape(warning)));
        }
    }
    let rows: Vec<Value> = applied
        .iter()
        .map(|done| {
            json!({"kind": done.kind, "name": done.name, "action": word(done.action), "revision": done.revision,
                   "warnings": done.warnings})
        })
        .collect();
    let text = || {
        let line = |done: &ringgate_control::Applied| {
            format!("{:<8} {} \"{}\" (revision {})\n", word(done.action), done.kind, escape(&done.name), done.revision)
        };
        applied.iter().map(line).collect()
    };
    output::value(create.format, text, &Value::Array(rows))
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Updated => "updated",
        Action::Unchanged => "unchanged",
    }
}

fn bounded(from: impl std::io::Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|e| Failure::new(Exit::Failed, format!("cannot read {name}")).why(e))?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::new(Exit::Failed, format!("{name} is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

pub(super) fn get(context: &Context, get: &Get) -> Result<(), Failure> {
    let (kind, name) = match get.what.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (get.what.as_str(), None),
    };
    let found = context.admin()?.get(kind, name).map_err(refused)?;
    match get.format.format {
        // What `create` accepts: a stream of documents.
        Format::Yaml => {
            let mut text = String::new();
            for document in &found {
                let yaml = serde_yaml::to_string(document);
                text.push_str("---\n");
                text.push_str(&yaml.map_err(|e| Failure::new(Exit::Failed, "cannot print the result").why(e))?);
            }
            output::write(&text)
        }
        Format::Json => output::list(Format::Json, &[], &found),
        Format::Text => {
            let rows: Vec<Value> = found
                .iter()
                .map(|d| {
                    json!({"kind": d["kind"], "name": d["metadata"]["name"], "description": d["metadata"]["description"],
                           "labels": d["metadata"]["labels"], "revision": d["metadata"]["revision"]})
                })
                .collect();
            let columns = [
                ("Kind", "kind"),
                ("Name", "name"),
                ("Description", "description"),
                ("Labels", "labels"),
                ("Revision", "revision"),
            ];
            output::list(Format::Text, &columns, &rows)
        }
    }
}

pub(super) fn remove(context: &Context, remove: &Remove) -> Result<(), Failure> {
    let (kind, name) = remove.what.split_once('/').ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{}` names no resource", remove.what)).attempt("ringgate rm role/NAME")
    })?;
    let admin = context.admin()?;
    let holders = if matches!(kind, "role" | "roles") { admin.holders(name).unwrap_or_default() } else { Vec::new() };
    let mut question = format!("remove {kind} \"{name}\"?");
    if !holders.is_empty() {
        question = format!("{question} held by {}", holders.join(", "));
    }
    context.confirm(&question)?;
    let removed = admin.remove(kind, name).map_err(refused)?;
    context.note(&format!("removed  {} \"{}\"", removed.kind, escape(&removed.name)));
    if !removed.still_held_by.is_empty() {
        let holders = removed.still_held_by.join(", ");
        context.note(&format!("warning: still held by {holders}; their next connections are refused"));
    }
    Ok(())
}
