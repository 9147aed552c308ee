//! How data leaves the program (user-experience 3.2): text, JSON or YAML on stdout, and nothing else there.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::{Exit, Failure};

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// `-f/--format` of commands that print data.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FormatArgument {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text", env = "RINGGATE_FORMAT")]
    pub(crate) format: Format,
}

/// Prints a list: a table of `columns` (title, key) or the whole values.
pub(crate) fn list(format: Format, columns: &[(&str, &str)], rows: &[Value]) -> Result<(), Failure> {
    match format {
        Format::Text => {
            let cells = rows.iter().map(|row| columns.iter().map(|(_, key)| cell(&row[*key])).collect()).collect();
            write(&table(&columns.iter().map(|(title, _)| *title).collect::<Vec<_>>(), cells))
        }
        Format::Json | Format::Yaml => structured(format, &Value::Array(rows.to_vec())),
    }
}

/// Prints one value: `text` for people, or the value.
pub(crate) fn value(format: Format, text: impl FnOnce() -> String, value: &Value) -> Result<(), Failure> {
    match format {
        Format::Text => write(&text()),
        Format::Json | Format::Yaml => structured(format, value),
    }
}

fn structured(format: Format, value: &Value) -> Result<(), Failure> {
    let text = match format {
        Format::Yaml => serde_yaml::to_string(value).map_err(|e| e.to_string()),
        Format::Json | Format::Text => serde_json::to_string_pretty(value).map(|t| t + "\n").map_err(|e| e.to_string()),
    };
    write(&text.map_err(|e| Failure::new(Exit::Failed, "cannot print the result").why(e))?)
}

/// Writes data to stdout. A reader that went away ends the program quietly, as it ends every filter.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::new(Exit::Failed, "cannot write to stdout").why(e)),
    }
}

/// Tells people something, on stderr, unless `quiet`. A closed stderr is nobody to tell.
pub(crate) fn note(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// An aligned table with a header; without a terminal no cell is wrapped or cut.
fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(titles.to_vec());
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            map.iter().map(|(k, v)| format!("{}={}", escape(k), cell(v))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Text of unknown origin with control characters, and marks that turn the writing direction, made visible.
pub(crate) fn escape(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// `text` as one word of a POSIX shell.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '=' | '@' | ',' | '+');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_box_and_no_trailing_blanks() {
        let text =
            table(&["Name", "Labels"], vec![vec!["a".into(), "x=1".into()], vec!["longer".into(), String::new()]]);
        assert_eq!(text, "Name    Labels\na       x=1\nlonger\n");
    }

    #[test]
    fn control_characters_and_direction_marks_are_visible() {
        assert_eq!(escape("a\u{1b}[31m\nb\u{202e}é"), "a\\u{1b}[31m\\nb\\u{202e}é");
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell_word("a/b.c"), "a/b.c");
        assert_eq!(shell_word("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }
}
