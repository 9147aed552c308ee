//! Glob-or-regex strings (access-model 5.2) and the regular expression dialect behind them.
//!
//! The documents are written for RE2. The `regex` crate differs in three ways that change who gets in, so a
//! pattern is translated first: `\d \w \s \b` are ASCII in RE2, `\Q…\E` quotes, and a `[` inside a class is a letter.

use regex::{Regex, RegexBuilder};

use crate::same::{after, before, same};

/// Longest pattern text, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 4096;
/// Largest compiled program of one pattern, in bytes (access-model 5.2).
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of groups and repetitions.
const NESTING_MAX: u32 = 64;

/// A pattern text that cannot be used; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PatternError(String);

/// One matcher over a whole string: a literal, a glob or a regular expression.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// Equal byte for byte.
    Literal(Box<str>),
    /// Literal pieces with `*` between them; at least two pieces.
    Glob(Box<[Box<str>]>),
    /// A search, exactly as written.
    Regex(Regex),
}

impl Pattern {
    /// Reads `text` by the glob-or-regex rule: `^…$` is a regular expression, anything else a glob.
    pub(crate) fn glob_or_regex(text: &str) -> Result<Self, PatternError> {
        if text.starts_with('^') && text.ends_with('$') {
            return Ok(Self::Regex(compile_regex(text)?));
        }
        Self::glob(text)
    }

    /// Reads `text` as a glob: `*` is any run of characters but a newline, everything else is itself.
    pub(crate) fn glob(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(too_long());
        }
        Ok(match text.contains('*') {
            false => Self::Literal(text.into()),
            true => Self::Glob(text.split('*').map(Into::into).collect()),
        })
    }

    /// Reads `text` as a regular expression that must match the whole string.
    pub(crate) fn whole_regex(text: &str) -> Result<Self, PatternError> {
        // Compiled alone first: `a)(b` must not become valid by being wrapped.
        compile_regex(text)?;
        Ok(Self::Regex(compile_regex(&format!("^(?:{text})$"))?))
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Literal(literal) => same(literal, value),
            Self::Glob(pieces) => glob_matches(pieces, value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Glob(pieces) => f.write_str(&pieces.join("*")),
            Self::Regex(regex) => f.write_str(regex.as_str()),
        }
    }
}

fn glob_matches(pieces: &[Box<str>], value: &str) -> bool {
    let [first, middle @ .., last] = pieces else { return false };
    let Some(rest) = after(value, first) else { return false };
    let Some(mut rest) = before(rest, last) else { return false };
    // The leftmost fit of each piece leaves most room for those after it, so no backtracking is needed,
    // newlines included: a later fit would only put more characters under the star.
    for piece in middle {
        let Some(at) = rest.find(&**piece) else { return false };
        if rest[..at].contains('\n') {
            return false;
        }
        rest = &rest[at + piece.len()..];
    }
    !rest.contains('\n')
}

/// Compiles an RE2 pattern with search semantics, within the size limits.
pub(crate) fn compile_regex(text: &str) -> Result<Regex, PatternError> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(too_long());
    }
    let translated = translate(text)?;
    RegexBuilder::new(&translated)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| PatternError(explain(&error)))
}

fn too_long() -> PatternError {
    PatternError(format!("pattern longer than {PATTERN_BYTES_MAX} bytes"))
}

fn explain(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("regular expression needs more than {limit} bytes compiled"),
        regex::Error::Syntax(text) => {
            // The crate draws a picture over several lines; its last line is the sentence.
            let last = text.lines().last().unwrap_or("syntax error");
            format!("regular expression does not compile: {}", last.trim_start_matches("error: "))
        }
        _ => "regular expression does not compile".to_owned(),
    }
}

fn translate(text: &str) -> Result<String, PatternError> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '\\' {
            rest = translate_escape(rest, &mut out, false)?;
        } else if first == '[' {
            rest = translate_class(rest, &mut out)?;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(out)
}

fn translate_escape<'t>(text: &'t str, out: &mut String, in_class: bool) -> Result<&'t str, PatternError> {
    let after = &text[1..];
    let Some(letter) = after.chars().next() else {
        return Err(PatternError("regular expression ends in a backslash".to_owned()));
    };
    let rest = &after[letter.len_utf8()..];
    match letter {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' => return Err(PatternError(r"regular expression uses \B, which is not supported".to_owned())),
        'Q' if !in_class => {
            let (quoted, rest) = rest.split_once(r"\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            return Ok(rest);
        }
        'E' if !in_class => {}
        _ => {
            out.push('\\');
            out.push(letter);
        }
    }
    Ok(rest)
}

fn translate_class<'t>(text: &'t str, out: &mut String) -> Result<&'t str, PatternError> {
    out.push('[');
    let mut rest = &text[1..];
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str(r"\]");
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        match first {
            ']' => {
                out.push(']');
                return Ok(&rest[1..]);
            }
            '\\' => rest = translate_escape(rest, out, true)?,
            '[' => {
                let named = rest.strip_prefix("[:").and_then(|inner| inner.find(":]")).map(|end| end + 4);
                if let Some(length) = named {
                    out.push_str(&rest[..length]);
                    rest = &rest[length..];
                } else {
                    out.push_str(r"\[");
                    rest = &rest[1..];
                }
            }
            '&' | '~' => {
                out.push('\\');
                out.push(first);
                rest = &rest[1..];
            }
            '-' if rest.starts_with("--") => {
                return Err(PatternError("regular expression has `--` inside a class".to_owned()));
            }
            _ => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    Err(PatternError("regular expression has an unclosed class".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, value: &str, expected: bool) {
        let compiled = Pattern::glob_or_regex(pattern).unwrap();
        assert_eq!(compiled.matches(value), expected, "{pattern:?} on {value:?}");
    }

    #[test]
    fn matches_globs_and_regexes_by_the_written_rule() {
        check("prod", "prod", true);
        check("prod", "Prod", false);
        check("prod-*", "prod-eu", true);
        check("prod-*", "prod-\n", false);
        check("prod?", "prod1", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*a", "a", false);
        check("*", "", true);
        check("^prod-(eu|us)$", "prod-eu", true);
        check("^a|b$", "xb", true);
        check("^a|b$", "bx", false);
        check("^a.c$", "a\nc", false);
        check(r"^\d+$", "٣", false);
        check(r"^\w+$", "é", false);
        check(r"^[\w-]+$", "a-b", true);
        check(r"^[[a]+$", "[a", true);
        check(r"^[a&&b]+$", "&", true);
        check(r"^\Qa.b\E$", "a.b", true);
        check(r"^\Qa.b\E$", "axb", false);
        check("^[[:alpha:]]+$", "abc", true);
    }

    #[test]
    fn refuses_patterns_outside_the_dialect_or_the_bounds() {
        for bad in [r"^(a)\1$", "^(?=a)$", r"^\B$", "^[a$", "^(a{1000}){1000}$", "^(?<!a)b$"] {
            assert!(Pattern::glob_or_regex(bad).is_err(), "{bad}");
        }
        assert!(Pattern::glob(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert!(Pattern::whole_regex("a)(b").is_err());
        assert!(Pattern::whole_regex("a|b").unwrap().matches("a"));
        assert!(!Pattern::whole_regex("a|b").unwrap().matches("ab"));
    }
}
