//! Templates `prefix{{ expr }}suffix` over an identity's traits (access-model 6).

use std::collections::BTreeMap;

use regex::Regex;

use crate::pattern::compile_regex;

/// Longest template text and longest expanded value, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Deepest nesting of calls.
const DEPTH_MAX: usize = 16;
/// Most values that one template may expand to.
const VALUES_MAX: usize = 4096;

/// The trait names that exist in the `internal` namespace (access-model 6.2).
pub(crate) const INTERNAL_TRAITS: [&str; 10] = [
    "logins",
    "windows_logins",
    "kubernetes_groups",
    "kubernetes_users",
    "db_names",
    "db_users",
    "db_roles",
    "aws_role_arns",
    "azure_identities",
    "gcp_service_accounts",
];

/// A template text that does not parse; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(String);

/// A template whose functions refuse the identity's values (a malformed address, an output out of bounds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ExpandError(&'static str);

impl ExpandError {
    /// The expanded text is no usable pattern.
    pub(crate) const PATTERN: Self = Self("expanded pattern does not compile");
}

/// What templates are expanded with.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) user: &'a str,
    pub(crate) traits: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn values(&self, name: &str) -> &'a [String] {
        self.traits.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A parsed string: a literal, or one expression between two literals.
#[derive(Debug, Clone)]
pub(crate) enum Template {
    Literal(String),
    Variable { prefix: String, term: Term, suffix: String },
}

/// What stands between the braces.
#[derive(Debug, Clone)]
pub(crate) enum Term {
    Trait(String),
    UserName,
    EmailLocal(Box<Term>),
    Replace { of: Box<Term>, pattern: Regex, with: String },
    Upper(Box<Term>),
    Lower(Box<Term>),
}

impl Template {
    /// Parses `text`; a text without double braces is a literal.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TemplateError(format!("template longer than {TEXT_BYTES_MAX} bytes")));
        }
        let Some((prefix, rest)) = text.split_once("{{") else {
            return match text.contains("}}") {
                true => Err(TemplateError(format!("`}}}}` without `{{{{` in `{text}`"))),
                false => Ok(Self::Literal(text.to_owned())),
            };
        };
        let mut scanner = Scanner { rest, text };
        let term = scanner.term(0)?;
        scanner.skip_space();
        scanner.expect("}}")?;
        let suffix = scanner.rest;
        if [prefix, suffix].iter().any(|part| part.contains(['{', '}'])) {
            return Err(TemplateError(format!("only one `{{{{…}}}}`, and no other braces, may stand in `{text}`")));
        }
        Ok(Self::Variable { prefix: prefix.trim_start().to_owned(), term, suffix: suffix.trim_end().to_owned() })
    }

    /// The literal text, where no variable stands in it.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Variable { .. } => None,
        }
    }

    /// All values, in order of first appearance; empty ones are dropped, a missing trait gives none.
    pub(crate) fn expand(&self, facts: Facts<'_>) -> Result<Vec<String>, ExpandError> {
        self.expand_quoted(facts, str::to_owned)
    }

    /// As [`Self::expand`], with `quote` applied to what comes from the identity and not to prefix and suffix.
    pub(crate) fn expand_quoted(
        &self,
        facts: Facts<'_>,
        quote: impl Fn(&str) -> String,
    ) -> Result<Vec<String>, ExpandError> {
        let Self::Variable { prefix, term, suffix } = self else {
            return Ok(self.literal().map(str::to_owned).into_iter().collect());
        };
        let mut seen = std::collections::HashSet::new();
        let mut values = Vec::new();
        for value in term.evaluate(facts)? {
            if value.is_empty() {
                continue;
            }
            let whole = format!("{prefix}{}{suffix}", quote(&value));
            if whole.len() > 2 * TEXT_BYTES_MAX {
                return Err(ExpandError("expanded value is too long"));
            }
            if seen.insert(whole.clone()) {
                values.push(whole);
            }
        }
        Ok(values)
    }
}

impl Term {
    fn evaluate(&self, facts: Facts<'_>) -> Result<Vec<String>, ExpandError> {
        let values = match self {
            Self::Trait(name) => facts.values(name).to_vec(),
            Self::UserName => vec![facts.user.to_owned()],
            Self::EmailLocal(of) => {
                of.evaluate(facts)?.iter().map(|v| email_local(v).map(str::to_owned)).collect::<Result<_, _>>()?
            }
            Self::Replace { of, pattern, with } => replace(pattern, with, of.evaluate(facts)?.iter())?,
            Self::Upper(of) => of.evaluate(facts)?.iter().map(|v| v.to_uppercase()).collect(),
            Self::Lower(of) => of.evaluate(facts)?.iter().map(|v| v.to_lowercase()).collect(),
        };
        match values.len() > VALUES_MAX {
            true => Err(ExpandError("expansion has too many values")),
            false => Ok(values),
        }
    }
}

/// The text before the last `@` of a valid address.
pub(crate) fn email_local(address: &str) -> Result<&str, ExpandError> {
    const MALFORMED: ExpandError = ExpandError("email.local was given a malformed address");
    let (local, domain) = address.rsplit_once('@').ok_or(MALFORMED)?;
    let unquoted_at = local.contains('@') && !(local.starts_with('"') && local.ends_with('"') && local.len() > 2);
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | ';');
    if local.is_empty() || domain.is_empty() || unquoted_at || address.contains(odd) {
        return Err(MALFORMED);
    }
    Ok(local)
}

/// Rewrites every match in each value; values without a match are dropped.
pub(crate) fn replace<'v>(
    pattern: &Regex,
    with: &str,
    values: impl Iterator<Item = &'v String>,
) -> Result<Vec<String>, ExpandError> {
    let mut out = Vec::new();
    for value in values {
        if value.len() > TEXT_BYTES_MAX {
            return Err(ExpandError("regexp.replace was given a value that is too long"));
        }
        let mut rewritten = String::new();
        let mut end = 0;
        let mut found = false;
        for captures in pattern.captures_iter(value) {
            let Some(whole) = captures.get(0) else { continue };
            found = true;
            rewritten.push_str(&value[end..whole.start()]);
            captures.expand(with, &mut rewritten);
            end = whole.end();
            if rewritten.len() > TEXT_BYTES_MAX {
                return Err(ExpandError("regexp.replace gave a value that is too long"));
            }
        }
        if found {
            rewritten.push_str(&value[end..]);
            out.push(rewritten);
        }
    }
    Ok(out)
}

struct Scanner<'t> {
    rest: &'t str,
    text: &'t str,
}

impl<'t> Scanner<'t> {
    fn term(&mut self, depth: usize) -> Result<Term, TemplateError> {
        if depth >= DEPTH_MAX {
            return Err(self.wrong("calls nest too deeply"));
        }
        self.skip_space();
        let mut name = self.word().to_owned();
        while self.rest.starts_with('.') {
            self.rest = &self.rest[1..];
            name.push('.');
            name.push_str(self.word());
        }
        self.skip_space();
        match name.as_str() {
            "user.metadata.name" => Ok(Term::UserName),
            "internal" | "external" if self.rest.starts_with('[') => {
                self.expect("[")?;
                let key = self.string()?;
                self.expect("]")?;
                self.trait_of(&name, key)
            }
            "email.local" => Ok(Term::EmailLocal(Box::new(self.only_argument(depth)?))),
            "strings.upper" => Ok(Term::Upper(Box::new(self.only_argument(depth)?))),
            "strings.lower" => Ok(Term::Lower(Box::new(self.only_argument(depth)?))),
            "regexp.replace" => {
                self.expect("(")?;
                let of = Box::new(self.term(depth + 1)?);
                self.expect(",")?;
                let pattern = self.string()?;
                self.expect(",")?;
                let with = self.string()?;
                self.expect(")")?;
                let pattern = compile_regex(&pattern).map_err(|error| TemplateError(error.to_string()))?;
                Ok(Term::Replace { of, pattern, with })
            }
            _ => match name.split_once('.') {
                Some((space @ ("internal" | "external"), key)) if !key.is_empty() && !key.contains('.') => {
                    self.trait_of(space, key.to_owned())
                }
                _ => Err(self.wrong(&format!("unknown variable or function `{name}`"))),
            },
        }
    }

    fn trait_of(&self, space: &str, key: String) -> Result<Term, TemplateError> {
        if space == "internal" && !INTERNAL_TRAITS.contains(&key.as_str()) {
            return Err(self.wrong(&format!("`internal.{key}` does not exist")));
        }
        Ok(Term::Trait(key))
    }

    fn only_argument(&mut self, depth: usize) -> Result<Term, TemplateError> {
        self.expect("(")?;
        let argument = self.term(depth + 1)?;
        self.expect(")")?;
        Ok(argument)
    }

    fn word(&mut self) -> &'t str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn string(&mut self) -> Result<String, TemplateError> {
        self.skip_space();
        let (value, length) = quoted_string(self.rest).ok_or_else(|| self.wrong("expected a quoted string"))?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    fn expect(&mut self, token: &str) -> Result<(), TemplateError> {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.wrong(&format!("expected `{token}`"))),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn wrong(&self, what: &str) -> TemplateError {
        let column = self.text.len() - self.rest.len() + 1;
        TemplateError(format!("{what} at byte {column} of template `{}`", self.text))
    }
}

/// Reads a `"…"` or `` `…` `` string at the start of `text`: its value and its length in bytes.
pub(crate) fn quoted_string(text: &str) -> Option<(String, usize)> {
    let mut letters = text.char_indices();
    match letters.next()? {
        (_, '`') => {
            let end = text[1..].find('`')?;
            Some((text[1..=end].to_owned(), end + 2))
        }
        (_, '"') => {
            let mut value = String::new();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => return Some((value, at + 1)),
                    '\\' => match letters.next()?.1 {
                        'n' => value.push('\n'),
                        't' => value.push('\t'),
                        'r' => value.push('\r'),
                        same @ ('"' | '\\') => value.push(same),
                        // Patterns are written with one backslash too: `"^\d+$"`.
                        other => {
                            value.push('\\');
                            value.push(other);
                        }
                    },
                    _ => value.push(letter),
                }
            }
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a [&'a str])];

    fn traits(pairs: Pairs) -> BTreeMap<String, Vec<String>> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())).collect()
    }

    fn expand(text: &str, pairs: Pairs) -> Result<Vec<String>, ExpandError> {
        let traits = traits(pairs);
        Template::parse(text).unwrap().expand(Facts { user: "alice", traits: &traits })
    }

    #[test]
    fn expands_the_conformance_vectors() {
        let regroup = r#"{{regexp.replace(external.groups, "^dev-(.*)$", "$1")}}"#;
        let table: [(&str, &str, Pairs, &[&str]); 11] = [
            ("T1", "{{internal.db_users}}", &[("db_users", &["a", "b"])], &["a", "b"]),
            ("T2", "ro-{{external.team}}", &[("team", &["x", "y"])], &["ro-x", "ro-y"]),
            ("T3", "{{email.local(external.email)}}", &[("email", &["alice@example.com"])], &["alice"]),
            ("T4", regroup, &[("groups", &["dev-a", "ops"])], &["a"]),
            ("T5", r#"{{external["http://x/y"]}}"#, &[("http://x/y", &["v"])], &["v"]),
            ("T7", "{{external.none}}", &[], &[]),
            ("T9", "{{user.metadata.name}}", &[], &["alice"]),
            ("nested", "{{strings.upper(email.local(external.e))}}", &[("e", &["a@x", "b@x"])], &["A", "B"]),
            ("trim", "  a-{{ external.t }}-b  ", &[("t", &["1"])], &["a-1-b"]),
            ("dedup", "{{external.t}}", &[("t", &["1", "", "1", "2"])], &["1", "2"]),
            ("braces in a string", r#"{{regexp.replace(external.t, "^x{2}$", "y")}}"#, &[("t", &["xx"])], &["y"]),
        ];
        for (vector, text, pairs, expected) in table {
            assert_eq!(expand(text, pairs).unwrap(), expected, "{vector}");
        }
    }

    #[test]
    fn refuses_templates_that_do_not_parse() {
        for bad in [
            "{{internal.missing_name}}",
            "a{{b",
            "a}}b",
            "{{external.a}}{{external.b}}",
            "{{external.a}}}",
            "{x{{external.a}}",
            "{{}}",
            "{{external}}",
            "{{unknown(external.a)}}",
            r#"{{regexp.replace(external.a, "(", "")}}"#,
            r#"{{external["a]}}"#,
            "{{external.a.b}}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        let nested = format!("{{{{{}external.a{}}}}}", "email.local(".repeat(40), ")".repeat(40));
        assert!(Template::parse(&nested).is_err());
    }

    #[test]
    fn keeps_single_braces_of_a_literal() {
        assert_eq!(Template::parse("^a{2}$").unwrap().literal(), Some("^a{2}$"));
    }

    #[test]
    fn fails_where_an_address_is_malformed() {
        for bad in ["", "nobody", "@x", "a@", "a b@x", "a@b@c", "x <a@b>"] {
            assert!(expand("{{email.local(external.e)}}", &[("e", &[bad])]).is_err(), "{bad}");
        }
    }
}
