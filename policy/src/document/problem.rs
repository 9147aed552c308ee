//! What can be wrong, or merely worth saying, about a document.

use std::fmt;

/// Something to tell the writer of a document that was nevertheless accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// `role/NAME`, `user/NAME` or `db/NAME`.
    pub document: String,
    /// One sentence, naming the fields it is about.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.document, self.message)
    }
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// `role/NAME` and the like, or `document N` (from 1) while the name is unknown; empty for the text as a whole.
    pub document: String,
    /// The field, such as `spec.allow.db_labels`; empty when the problem is not one field's.
    pub path: String,
    /// What is wrong, without the path.
    pub message: String,
    /// The nearest known name, for an unknown one.
    pub nearest: Option<&'static str>,
    /// Line and column from 1, where the text parser knows them.
    pub location: Option<(usize, usize)>,
}

impl DocumentError {
    pub(crate) fn text(message: String) -> Self {
        Self { document: String::new(), path: String::new(), message, nearest: None, location: None }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.location {
            write!(f, "line {line} column {column}: ")?;
        }
        if !self.document.is_empty() {
            write!(f, "{}: ", self.document)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DocumentError {}

/// Everything wrong with a text of documents; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentErrors(pub Vec<DocumentError>);

impl DocumentErrors {
    pub(crate) fn one(error: DocumentError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for DocumentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DocumentErrors {}
