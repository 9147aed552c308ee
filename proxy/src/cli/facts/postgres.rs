//! The forms of libpq and of PostgreSQL's JDBC driver.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::{Facts, component, escaped, shown};
use crate::cli::output::shell_word;
use crate::cli::uri::encode;
use crate::config::Listen;

/// Variables of libpq that would change where a client of ours connects or how it proves itself.
const INTERFERING: [&str; 8] = [
    "PGHOSTADDR",
    "PGSERVICE",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGREQUIRESSL",
    "PGSSLCRL",
    "PGCHANNELBINDING",
    "PGREQUIREAUTH",
];

pub(super) fn variables(facts: &Facts) -> Vec<(&'static str, String)> {
    vec![
        ("PGHOST", facts.host.clone()),
        ("PGPORT", facts.port.to_string()),
        ("PGUSER", facts.user.clone()),
        ("PGDATABASE", facts.database.clone()),
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGSSLROOTCERT", shown(&facts.ca)),
        ("PGSSLCERT", shown(&facts.cert)),
        ("PGSSLKEY", shown(&facts.key)),
    ]
}

pub(super) fn uri(facts: &Facts) -> String {
    format!(
        "postgresql://{}@{}:{}/{}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        component(&facts.user),
        facts.host,
        facts.port,
        component(&facts.database),
        escaped(&facts.ca),
        escaped(&facts.cert),
        escaped(&facts.key)
    )
}

pub(super) fn jdbc(facts: &Facts) -> String {
    format!(
        "jdbc:postgresql://{}:{}/{}?user={}&sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        facts.host,
        facts.port,
        component(&facts.database),
        component(&facts.user),
        escaped(&facts.ca),
        escaped(&facts.cert),
        escaped(&facts.pk8)
    )
}

pub(super) fn command_line(facts: &Facts) -> String {
    let path = |p: &Path| quoted(&shown(p));
    let conninfo = format!(
        "host={} port={} user={} dbname={} sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
        quoted(&facts.host),
        facts.port,
        quoted(&facts.user),
        quoted(&facts.database),
        path(&facts.ca),
        path(&facts.cert),
        path(&facts.key)
    );
    format!("psql {}", shell_word(&conninfo))
}

/// `psql`, told where to go by libpq's variables.
pub(super) fn client(facts: &Facts, arguments: &[OsString]) -> Command {
    let mut command = Command::new("psql");
    for variable in INTERFERING {
        command.env_remove(variable);
    }
    command.envs(variables(facts)).env("PGGSSENCMODE", "disable").args(arguments);
    command
}

pub(super) fn service(facts: &Facts) -> String {
    let mut section = format!("[{}]\n", facts.name);
    for (variable, value) in variables(facts) {
        let key = match variable {
            "PGDATABASE" => "dbname".to_owned(),
            other => other.trim_start_matches("PG").to_lowercase(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(section, "{key}={}", value.replace(['\n', '\r'], " "));
    }
    section
}

pub(super) fn plain_uri(bound: &Listen, user: &str, database: &str) -> String {
    let (user, database) = (encode(user), encode(database));
    match bound {
        Listen::Tcp(address) => format!("postgresql://{user}@{address}/{database}?sslmode=disable"),
        Listen::Unix(path) => {
            let folder = path.parent().map(|p| p.display().to_string()).unwrap_or_default();
            format!("postgresql:///{database}?user={user}&host={}", encode(&folder))
        }
    }
}

/// A value of a libpq connection string.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn names_with_odd_characters_survive_every_form() {
        let facts = facts(Protocol::Postgres);
        assert_eq!(
            facts.uri(),
            "postgresql://o%27neil%40x@localhost:5432/my%20db%2F1?sslmode=verify-full&sslrootcert=/h/ca.pem\
             &sslcert=/h/orders.crt&sslkey=/h/a%20b.key"
        );
        assert_eq!(
            command_line(&facts),
            "psql 'host=localhost port=5432 user='\\''o\\'\\''neil@x'\\'' dbname='\\''my db/1'\\'' sslmode=verify-full \
             sslrootcert=/h/ca.pem sslcert=/h/orders.crt sslkey='\\''/h/a b.key'\\'''"
        );
        assert!(facts.exports().contains("export PGUSER='o'\\''neil@x'\n"));
        assert!(service(&facts).starts_with("[orders]\nhost=localhost\nport=5432\n"));
        assert!(jdbc(&facts).contains("sslkey=/h/orders.pk8"));
    }
}
