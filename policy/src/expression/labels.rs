//! Label expressions: typed when read, evaluated against one database and one identity (access-model 5.3).

use std::borrow::Cow;

use regex::Regex;

use super::ExpressionError;
use super::syntax::{Node, NodeKind, parse};
use crate::labels::Labels;
use crate::pattern::{Pattern, compile_regex};
use crate::template::{ExpandError, Facts, email_local, replace};

/// A label expression that type-checks.
#[derive(Debug)]
pub(crate) struct LabelExpression {
    source: String,
    root: Bool,
}

#[derive(Debug)]
enum Bool {
    Literal(bool),
    Not(Box<Bool>),
    And(Vec<Bool>),
    Or(Vec<Bool>),
    Same { left: Box<Bool>, right: Box<Bool>, negated: bool },
    SameText { left: Text, right: Text, negated: bool },
    SameNumber { same: bool },
    Contains(List, Text),
    ContainsAny(List, List),
    ContainsAll(List, List),
    Match(List, Pattern),
}

#[derive(Debug)]
enum Text {
    Literal(String),
    Label(String),
    UserName,
}

#[derive(Debug)]
enum List {
    One(Text),
    Trait(String),
    Replace(Box<List>, Regex, String),
    EmailLocal(Box<List>),
    Upper(Box<List>),
    Lower(Box<List>),
    LabelsMatching(Pattern),
}

/// Any typed node.
enum Typed {
    Bool(Bool),
    Text(Text),
    List(List),
    Number(i64),
}

impl Typed {
    fn name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Number(_) => "a number",
        }
    }
}

impl LabelExpression {
    /// Reads and type-checks `source`.
    pub(crate) fn parse(source: &str) -> Result<Self, ExpressionError> {
        let root = Typer { source }.bool(parse(source)?)?;
        Ok(Self { source: source.to_owned(), root })
    }

    /// The text it was read from.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The value for a database's labels and an identity.
    pub(crate) fn evaluate(&self, labels: &Labels, facts: Facts<'_>) -> Result<bool, ExpandError> {
        Scene { labels, facts }.bool(&self.root)
    }

    /// Whether it tests a label for membership, where a missing label is the empty string and may be a member.
    pub(crate) fn tests_membership_of_a_label(&self) -> bool {
        self.root.any(&|node| matches!(node, Bool::Contains(_, Text::Label(_))))
    }
}

impl Bool {
    fn any(&self, found: &impl Fn(&Self) -> bool) -> bool {
        found(self)
            || match self {
                Self::Not(inner) => inner.any(found),
                Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(|node| node.any(found)),
                Self::Same { left, right, .. } => left.any(found) || right.any(found),
                _ => false,
            }
    }
}

struct Typer<'s> {
    source: &'s str,
}

impl Typer<'_> {
    fn bool(&self, node: Node) -> Result<Bool, ExpressionError> {
        let at = node.at;
        match self.typed(node)? {
            Typed::Bool(node) => Ok(node),
            other => Err(self.wrong(at, format!("expected true or false, found {}", other.name()))),
        }
    }

    fn text(&self, node: Node) -> Result<Text, ExpressionError> {
        let at = node.at;
        match self.typed(node)? {
            Typed::Text(node) => Ok(node),
            other => Err(self.wrong(at, format!("expected a string, found {}", other.name()))),
        }
    }

    fn list(&self, node: Node) -> Result<List, ExpressionError> {
        let at = node.at;
        match self.typed(node)? {
            Typed::List(node) => Ok(node),
            Typed::Text(text) => Ok(List::One(text)),
            other => Err(self.wrong(at, format!("expected a list, found {}", other.name()))),
        }
    }

    fn literal(&self, node: Node) -> Result<(usize, String), ExpressionError> {
        match node.kind {
            NodeKind::Text(text) => Ok((node.at, text)),
            _ => Err(self.wrong(node.at, "expected a string in quotes, so that it can be checked now")),
        }
    }

    fn pattern(&self, node: Node) -> Result<Pattern, ExpressionError> {
        let (at, text) = self.literal(node)?;
        Pattern::glob_or_regex(&text).map_err(|error| self.wrong(at, error.to_string()))
    }

    fn typed(&self, node: Node) -> Result<Typed, ExpressionError> {
        let at = node.at;
        Ok(match node.kind {
            NodeKind::Text(text) => Typed::Text(Text::Literal(text)),
            NodeKind::Flag(flag) => Typed::Bool(Bool::Literal(flag)),
            NodeKind::Number(number) => Typed::Number(number),
            NodeKind::Name(name, key) => self.name(at, &name, key)?,
            NodeKind::Call(name, arguments) => self.call(at, &name, arguments)?,
            NodeKind::Not(inner) => Typed::Bool(Bool::Not(Box::new(self.bool(*inner)?))),
            NodeKind::And(nodes) => Typed::Bool(Bool::And(self.bools(nodes)?)),
            NodeKind::Or(nodes) => Typed::Bool(Bool::Or(self.bools(nodes)?)),
            NodeKind::Equal { left, right, negated } => Typed::Bool(match (self.typed(*left)?, self.typed(*right)?) {
                (Typed::Text(left), Typed::Text(right)) => Bool::SameText { left, right, negated },
                (Typed::Bool(left), Typed::Bool(right)) => {
                    Bool::Same { left: Box::new(left), right: Box::new(right), negated }
                }
                (Typed::Number(left), Typed::Number(right)) => Bool::SameNumber { same: (left == right) != negated },
                (left, right) => {
                    let message = format!("{} is never equal to {}", left.name(), right.name());
                    return Err(self.wrong(at, message));
                }
            }),
        })
    }

    fn bools(&self, nodes: Vec<Node>) -> Result<Vec<Bool>, ExpressionError> {
        nodes.into_iter().map(|node| self.bool(node)).collect()
    }

    fn name(&self, at: usize, name: &str, key: Option<String>) -> Result<Typed, ExpressionError> {
        if name == "user.metadata.name" && key.is_none() {
            return Ok(Typed::Text(Text::UserName));
        }
        let keyed = |space: &str| match (&key, name.strip_prefix(space)) {
            (Some(key), Some("")) => Some(key.clone()),
            (None, Some(rest)) => rest.strip_prefix('.').filter(|key| !key.contains('.')).map(str::to_owned),
            _ => None,
        };
        if let Some(key) = keyed("labels") {
            return Ok(Typed::Text(Text::Label(key)));
        }
        if let Some(key) = keyed("user.spec.traits") {
            return Ok(Typed::List(List::Trait(key)));
        }
        Err(self.wrong(at, format!("unknown name `{name}`")))
    }

    fn call(&self, at: usize, name: &str, arguments: Vec<Node>) -> Result<Typed, ExpressionError> {
        let given = arguments.len();
        let wanted = match name {
            "contains" | "contains_any" | "contains_all" | "regexp.match" => 2,
            "regexp.replace" => 3,
            "email.local" | "strings.upper" | "strings.lower" | "labels_matching" => 1,
            _ => return Err(self.wrong(at, format!("unknown function `{name}`"))),
        };
        let mut arguments = arguments.into_iter();
        let mut next = || {
            let message = || self.wrong(at, format!("`{name}` takes {wanted} arguments, not {given}"));
            if given == wanted { arguments.next().ok_or_else(message) } else { Err(message()) }
        };
        let boxed = |node| self.list(node).map(Box::new);
        Ok(match name {
            "contains" => Typed::Bool(Bool::Contains(self.list(next()?)?, self.text(next()?)?)),
            "contains_any" => Typed::Bool(Bool::ContainsAny(self.list(next()?)?, self.list(next()?)?)),
            "contains_all" => Typed::Bool(Bool::ContainsAll(self.list(next()?)?, self.list(next()?)?)),
            "regexp.match" => Typed::Bool(Bool::Match(self.list(next()?)?, self.pattern(next()?)?)),
            "regexp.replace" => {
                let of = boxed(next()?)?;
                let (place, pattern) = self.literal(next()?)?;
                let pattern = compile_regex(&pattern).map_err(|error| self.wrong(place, error.to_string()))?;
                Typed::List(List::Replace(of, pattern, self.literal(next()?)?.1))
            }
            "email.local" => Typed::List(List::EmailLocal(boxed(next()?)?)),
            "strings.upper" => Typed::List(List::Upper(boxed(next()?)?)),
            "strings.lower" => Typed::List(List::Lower(boxed(next()?)?)),
            _ => Typed::List(List::LabelsMatching(self.pattern(next()?)?)),
        })
    }

    fn wrong(&self, at: usize, message: impl Into<String>) -> ExpressionError {
        ExpressionError::at(self.source, at, message)
    }
}

#[derive(Clone, Copy)]
struct Scene<'a> {
    labels: &'a Labels,
    facts: Facts<'a>,
}

impl<'a> Scene<'a> {
    fn bool(self, node: &Bool) -> Result<bool, ExpandError> {
        Ok(match node {
            Bool::Literal(flag) => *flag,
            Bool::SameNumber { same } => *same,
            Bool::Not(inner) => !self.bool(inner)?,
            Bool::And(nodes) => {
                for node in nodes {
                    if !self.bool(node)? {
                        return Ok(false);
                    }
                }
                true
            }
            Bool::Or(nodes) => {
                for node in nodes {
                    if self.bool(node)? {
                        return Ok(true);
                    }
                }
                false
            }
            Bool::Same { left, right, negated } => (self.bool(left)? == self.bool(right)?) != *negated,
            Bool::SameText { left, right, negated } => (self.text(left) == self.text(right)) != *negated,
            Bool::Contains(list, item) => {
                let item = self.text(item);
                self.list(list)?.iter().any(|member| **member == *item)
            }
            Bool::ContainsAny(list, items) => {
                let (list, items) = (self.list(list)?, self.list(items)?);
                items.iter().any(|item| list.contains(item))
            }
            Bool::ContainsAll(list, items) => {
                let (list, items) = (self.list(list)?, self.list(items)?);
                !items.is_empty() && items.iter().all(|item| list.contains(item))
            }
            Bool::Match(list, pattern) => self.list(list)?.iter().any(|member| pattern.matches(member)),
        })
    }

    fn text<'e: 'v, 'v>(self, node: &'e Text) -> &'v str
    where
        'a: 'v,
    {
        match node {
            Text::Literal(text) => text,
            Text::Label(key) => self.labels.get(key).unwrap_or(""),
            Text::UserName => self.facts.user,
        }
    }

    fn list<'e: 'v, 'v>(self, node: &'e List) -> Result<Vec<Cow<'v, str>>, ExpandError>
    where
        'a: 'v,
    {
        let owned = |node: &'e List| -> Result<Vec<String>, ExpandError> {
            Ok(self.list(node)?.into_iter().map(Cow::into_owned).collect())
        };
        Ok(match node {
            List::One(text) => vec![Cow::Borrowed(self.text(text))],
            List::Trait(name) => self.facts.values(name).iter().map(|value| Cow::Borrowed(value.as_str())).collect(),
            List::Replace(of, pattern, with) => {
                replace(pattern, with, owned(of)?.iter())?.into_iter().map(Cow::Owned).collect()
            }
            List::EmailLocal(of) => owned(of)?
                .iter()
                .map(|value| email_local(value).map(|local| Cow::Owned(local.to_owned())))
                .collect::<Result<_, _>>()?,
            List::Upper(of) => owned(of)?.iter().map(|value| Cow::Owned(value.to_uppercase())).collect(),
            List::Lower(of) => owned(of)?.iter().map(|value| Cow::Owned(value.to_lowercase())).collect(),
            List::LabelsMatching(pattern) => self
                .labels
                .iter()
                .filter(|(key, _)| pattern.matches(key))
                .map(|(_, value)| Cow::Borrowed(value))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn evaluate(source: &str, labels: &[(&str, &str)], teams: &[&str]) -> Result<bool, ExpandError> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let traits = BTreeMap::from([("teams".to_owned(), teams.iter().map(|t| (*t).to_owned()).collect())]);
        LabelExpression::parse(source).unwrap().evaluate(&labels, Facts { user: "alice", traits: &traits })
    }

    #[test]
    fn evaluates_the_seed_expression() {
        let source =
            "labels[\"env\"] == \"production\" ||\n  contains(user.spec.traits[\"teams\"], labels[\"team\"])\n";
        assert!(evaluate(source, &[("env", "production")], &[]).unwrap());
        assert!(evaluate(source, &[("team", "x")], &["x", "y"]).unwrap());
        assert!(!evaluate(source, &[("team", "z")], &["x", "y"]).unwrap());
        assert!(evaluate(source, &[], &[""]).unwrap());
        assert!(!evaluate(source, &[], &["x"]).unwrap());
        assert!(LabelExpression::parse(source).unwrap().tests_membership_of_a_label());
    }

    #[test]
    fn evaluates_every_function_and_operator() {
        let labels = [("env", "prod"), ("team-a", "x"), ("team-b", "y")];
        for (source, expected) in [
            ("labels.env == \"prod\"", true),
            ("labels.env != `prod`", false),
            ("!(labels.none == \"\")", false),
            ("true && !false || false", true),
            ("(labels.env == \"prod\") == true", true),
            ("1 == 1", true),
            ("1 != 1", false),
            ("contains(\"x\", labels[\"team-a\"])", true),
            ("contains_any(user.spec.traits.teams, labels_matching(\"team-*\"))", true),
            ("contains_all(user.spec.traits.teams, labels_matching(\"team-*\"))", true),
            ("contains_all(user.spec.traits.teams, labels_matching(\"zzz\"))", false),
            ("contains_any(user.spec.traits.teams, user.spec.traits.none)", false),
            ("regexp.match(user.spec.traits.teams, \"^x|q$\")", true),
            ("regexp.match(labels.env, \"p*\")", true),
            ("contains(regexp.replace(user.spec.traits.teams, \"^(x)$\", \"<$1>\"), \"<x>\")", true),
            ("contains(regexp.replace(user.spec.traits.teams, \"^x$\", \"z\"), \"y\")", false),
            ("contains(strings.upper(user.spec.traits.teams), \"X\")", true),
            ("contains(strings.lower(\"ABC\"), \"abc\")", true),
            ("contains(email.local(\"al@x.org\"), \"al\")", true),
            ("user.metadata.name == \"alice\"", true),
        ] {
            assert_eq!(evaluate(source, &labels, &["x", "y"]).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn reports_an_evaluation_error_unless_it_is_short_circuited() {
        assert!(evaluate("contains(email.local(user.spec.traits.teams), \"a\")", &[], &["nobody"]).is_err());
        assert!(evaluate("true || contains(email.local(\"x\"), \"a\")", &[], &[]).unwrap());
    }

    #[test]
    fn refuses_wrong_names_types_and_shapes_with_the_place() {
        for (bad, column) in [
            ("labels", 1),
            ("labels.a.b == \"x\"", 1),
            ("user.spec.traits.t == \"x\"", 1),
            ("labels.env", 1),
            ("contains(labels.env)", 1),
            ("true && frob(labels.env)", 9),
            ("regexp.match(labels.env, labels.x)", 26),
            ("regexp.match(labels.env, \"^($\")", 26),
            ("labels.env == ", 15),
            ("true true", 6),
            ("labels[\"a\"].b == \"x\"", 12),
            ("contains_any(user.spec.traits.t, 1)", 34),
        ] {
            let error = LabelExpression::parse(bad).unwrap_err();
            assert_eq!((error.line, error.column), (1, column), "{bad}: {error}");
        }
        assert!(LabelExpression::parse(&format!("{}true{}", "(".repeat(40), ")".repeat(40))).is_err());
        assert!(LabelExpression::parse(&format!("{}true{}", "(".repeat(30), ")".repeat(30))).is_ok());
        assert!(LabelExpression::parse(&"!".repeat(5000)).is_err());
    }
}
