//! Predicate expressions: `db_labels_expression` in full (access-model 5.3), `where` and `filter` as far as syntax
//! and names go (7.2).

mod labels;
mod syntax;
mod words;

pub(crate) use labels::LabelExpression;
pub(crate) use words::check_predicate;

/// Longest source, in bytes.
pub(crate) const EXPRESSION_BYTES_MAX: usize = 4096;
/// Deepest nesting of parentheses, calls and negations.
const DEPTH_MAX: usize = 32;

/// An expression that does not read, with where in its source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} column {column}: {message}")]
pub(crate) struct ExpressionError {
    /// Line in the expression, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl ExpressionError {
    fn at(source: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { line, column, message: message.into() }
    }
}
