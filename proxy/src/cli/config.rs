//! `config check` and `config show`.

use std::path::Path;

use super::failure::{Exit, Failure, file};
use super::output::{self, Format};
use crate::config::{Config, LoadError};

/// Prints every problem of a file on stdout; 1 when there is one.
pub(super) fn check(path: &Path) -> Result<i32, Failure> {
    match Config::load(path) {
        Ok(_) => {
            output::write(&format!("{}: ok\n", path.display()))?;
            Ok(0)
        }
        Err(LoadError::Invalid(problems)) => {
            output::write(&problems.render())?;
            Ok(Exit::Failed.code())
        }
        Err(LoadError::Unreadable { path, source }) => Err(file("read", &path, &source)),
    }
}

/// Prints the effective configuration.
pub(super) fn show(path: &Path, format: Format) -> Result<(), Failure> {
    let yaml = Config::load(path).map_err(|e| failure(e, Exit::Failed))?.to_yaml();
    if format != Format::Json {
        return output::write(&yaml);
    }
    let value =
        serde_yaml::from_str(&yaml).map_err(|e| Failure::new(Exit::Failed, "cannot print the result").why(e))?;
    output::value(format, String::new, &value)
}

/// A configuration that cannot be used, as a failure of another command.
pub(super) fn failure(error: LoadError, exit: Exit) -> Failure {
    match error {
        LoadError::Unreadable { path, source } => {
            let mut failure = file("read", &path, &source);
            failure.exit = exit;
            failure
        }
        LoadError::Invalid(problems) => Failure::new(exit, "the configuration is not valid").why(problems.render()),
    }
}
