//! Text to tree, by the grammar of access-model 5.3. Names and types are the business of whoever reads the tree.

use super::{DEPTH_MAX, EXPRESSION_BYTES_MAX, ExpressionError};
use crate::template::quoted_string;

/// A node and the byte in the source where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) kind: NodeKind,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Text(String),
    Flag(bool),
    Number(i64),
    /// `a.b["c"]`: the dotted name and, where one follows, the key in brackets.
    Name(String, Option<String>),
    Call(String, Vec<Node>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Equal {
        left: Box<Node>,
        right: Box<Node>,
        negated: bool,
    },
}

/// Reads `source` whole.
pub(super) fn parse(source: &str) -> Result<Node, ExpressionError> {
    if source.len() > EXPRESSION_BYTES_MAX {
        return Err(ExpressionError::at(source, 0, format!("expression longer than {EXPRESSION_BYTES_MAX} bytes")));
    }
    let mut parser = Parser { source, at: 0, depth: 0 };
    let node = parser.or()?;
    parser.skip_space();
    match parser.rest().is_empty() {
        true => Ok(node),
        false => Err(parser.wrong("expected an operator or the end")),
    }
}

struct Parser<'s> {
    source: &'s str,
    at: usize,
    depth: usize,
}

type Parsed = Result<Node, ExpressionError>;

impl<'s> Parser<'s> {
    fn or(&mut self) -> Parsed {
        self.chain("||", NodeKind::Or, Self::and)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", NodeKind::And, Self::unary)
    }

    fn chain(&mut self, operator: &str, kind: fn(Vec<Node>) -> NodeKind, next: fn(&mut Self) -> Parsed) -> Parsed {
        let first = next(self)?;
        let at = first.at;
        let mut nodes = vec![first];
        while self.take(operator) {
            nodes.push(next(self)?);
        }
        match nodes.len() {
            1 => nodes.pop().ok_or_else(|| self.wrong("expected an expression")),
            _ => Ok(Node { at, kind: kind(nodes) }),
        }
    }

    fn unary(&mut self) -> Parsed {
        self.skip_space();
        let at = self.at;
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            let inner = self.deeper(Self::unary)?;
            return Ok(Node { at, kind: NodeKind::Not(Box::new(inner)) });
        }
        let left = self.value()?;
        let negated = match (self.take("=="), self.take("!=")) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => return Ok(left),
        };
        let right = self.value()?;
        Ok(Node { at, kind: NodeKind::Equal { left: Box::new(left), right: Box::new(right), negated } })
    }

    fn value(&mut self) -> Parsed {
        self.skip_space();
        let at = self.at;
        let Some(first) = self.rest().chars().next() else { return Err(self.wrong("expected a value")) };
        if first == '(' {
            self.at += 1;
            let inner = self.deeper(Self::or)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if matches!(first, '"' | '`') {
            let text = self.string()?;
            return Ok(Node { at, kind: NodeKind::Text(text) });
        }
        if first.is_ascii_digit() || first == '-' {
            let digits = &self.rest()[1..];
            let length = 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            let number = self.rest()[..length].parse().map_err(|_| self.wrong("not a whole number"))?;
            self.at += length;
            return Ok(Node { at, kind: NodeKind::Number(number) });
        }
        self.name_or_call(at)
    }

    fn name_or_call(&mut self, at: usize) -> Parsed {
        let mut name = self.word()?.to_owned();
        match name.as_str() {
            "true" => return Ok(Node { at, kind: NodeKind::Flag(true) }),
            "false" => return Ok(Node { at, kind: NodeKind::Flag(false) }),
            _ => {}
        }
        loop {
            if self.take(".") {
                self.skip_space();
                name.push('.');
                name.push_str(self.word()?);
            } else if self.take("[") {
                self.skip_space();
                let key = self.string()?;
                self.expect("]")?;
                if matches!(self.rest().chars().next(), Some('.' | '[')) {
                    return Err(self.wrong("nothing may follow a key in brackets"));
                }
                return Ok(Node { at, kind: NodeKind::Name(name, Some(key)) });
            } else if self.take("(") {
                let arguments = self.deeper(Self::arguments)?;
                return Ok(Node { at, kind: NodeKind::Call(name, arguments) });
            } else {
                return Ok(Node { at, kind: NodeKind::Name(name, None) });
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Node>, ExpressionError> {
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.or()?);
            if !self.take(",") {
                self.expect(")")?;
                return Ok(arguments);
            }
        }
    }

    fn deeper<T>(&mut self, inner: fn(&mut Self) -> Result<T, ExpressionError>) -> Result<T, ExpressionError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.wrong("expression nests too deeply"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn word(&mut self) -> Result<&'s str, ExpressionError> {
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if length == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.wrong("expected a name"));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn string(&mut self) -> Result<String, ExpressionError> {
        let (text, length) = quoted_string(self.rest()).ok_or_else(|| self.wrong("expected a quoted string"))?;
        self.at += length;
        Ok(text)
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ExpressionError> {
        match self.take(token) {
            true => Ok(()),
            false => Err(self.wrong(&format!("expected `{token}`"))),
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn wrong(&self, message: &str) -> ExpressionError {
        ExpressionError::at(self.source, self.at, message)
    }
}
