//! What is wrong with a configuration, where, and what to write instead.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::tree::Mark;

/// One thing wrong.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) mark: Mark,
    /// Lower case, no full stop, never a secret.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) suggestion: Option<String>,
    /// The value holds a secret: its lines are not shown by any problem.
    secret: bool,
    /// Found before keys were known, so the line may hold a secret nobody recognised yet.
    syntax: bool,
}

impl Problem {
    pub(crate) fn new(mark: Mark, message: String) -> Problem {
        Problem { mark, message, suggestion: None, secret: false, syntax: false }
    }

    pub(crate) fn suggest(mut self, text: impl Into<String>) -> Problem {
        self.suggestion = Some(text.into());
        self
    }

    pub(crate) fn secret(mut self) -> Problem {
        self.secret = true;
        self
    }

    pub(crate) fn syntax(mut self) -> Problem {
        self.syntax = true;
        self
    }
}

/// Everything wrong with one file, in the order of the file.
pub(crate) struct Problems {
    file: String,
    lines: Vec<String>,
    list: Vec<Problem>,
}

// The lines of the file may hold secrets that were written there by mistake.
impl std::fmt::Debug for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} problem(s) in {}", self.list.len(), self.file)
    }
}

impl Problems {
    pub(crate) fn new(file: &str, text: &str, mut list: Vec<Problem>) -> Problems {
        list.sort_by_key(|p| (p.mark.variable.is_some(), p.mark.line, p.mark.column));
        Problems { file: file.to_owned(), lines: text.lines().map(str::to_owned).collect(), list }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// The text of `config check`: for each problem its place and message, the line, a suggestion.
    pub(crate) fn render(&self) -> String {
        let hidden: BTreeSet<usize> = self
            .list
            .iter()
            .filter(|p| p.secret && p.mark.variable.is_none())
            .flat_map(|p| p.mark.line..=p.mark.last_line)
            .collect();
        let mut out = String::new();
        for problem in &self.list {
            let Mark { line, column, variable, .. } = &problem.mark;
            // Writing to a String cannot fail.
            let _ = match variable {
                Some(name) => writeln!(out, "environment variable {name}: {}", problem.message),
                None => writeln!(out, "{}:{line}:{column}: {}", self.file, problem.message),
            };
            if variable.is_none() {
                let shown = self.lines.get(line - 1).map(|text| {
                    if hidden.contains(line) || (problem.syntax && may_hold_secret(text)) {
                        "(not shown, the line may hold a secret)".to_owned()
                    } else {
                        escape(text)
                    }
                });
                if let Some(text) = shown.filter(|t| !t.trim().is_empty()) {
                    let _ = writeln!(out, "  line: {text}");
                }
            }
            if let Some(suggestion) = &problem.suggestion {
                let _ = writeln!(out, "  try:  {suggestion}");
            }
        }
        out
    }
}

fn may_hold_secret(line: &str) -> bool {
    let lower = line.to_lowercase();
    ["secret", "password", "token", "key", "@"].iter().any(|word| lower.contains(word))
}

fn escape(line: &str) -> String {
    line.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_secret_is_hidden_from_every_problem_on_it() {
        let text = "auth: { method: foo, secrets: { app: hunter2 } }\n";
        let at = |column| Mark { line: 1, column, last_line: 1, variable: None };
        let list = vec![
            Problem::new(at(17), "unknown method `foo`".to_owned()),
            Problem::new(at(38), "literal secret".to_owned()).secret(),
        ];
        let shown = Problems::new("f.yaml", text, list).render();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("f.yaml:1:17: unknown method `foo`"), "{shown}");
    }

    #[test]
    fn a_syntax_error_on_a_line_that_may_hold_a_secret_does_not_show_it() {
        let list = vec![Problem::new(Mark::start(), "not valid YAML".to_owned()).syntax()];
        let shown = Problems::new("f", "password: [hunter2\n", list).render();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
