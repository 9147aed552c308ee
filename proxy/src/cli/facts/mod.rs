//! What a client needs to connect, in every form `db config` offers (user-experience 9).

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::arguments::ConnectionFormat;
use super::context::time;
use super::failure::{Exit, Failure};
use super::output::{self, Format, escape, shell_word};
use super::uri::encode;

/// One stored login to a database.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// The key as DER PKCS#8, which the Java driver wants.
    pub(crate) pk8: PathBuf,
    pub(crate) not_after_unix: i64,
}

impl Facts {
    /// libpq's variables, in the order of its manual.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |p: &PathBuf| p.display().to_string();
        vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", path(&self.ca)),
            ("PGSSLCERT", path(&self.cert)),
            ("PGSSLKEY", path(&self.key)),
        ]
    }

    pub(crate) fn uri(&self) -> String {
        let path = |p: &PathBuf| encode(&p.display().to_string()).to_string();
        format!(
            "postgresql://{}@{}:{}/{}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            component(&self.user),
            self.host,
            self.port,
            component(&self.database),
            path(&self.ca),
            path(&self.cert),
            path(&self.key)
        )
    }

    fn jdbc(&self) -> String {
        let path = |p: &PathBuf| encode(&p.display().to_string()).to_string();
        format!(
            "jdbc:postgresql://{}:{}/{}?user={}&sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            self.host,
            self.port,
            component(&self.database),
            component(&self.user),
            path(&self.ca),
            path(&self.cert),
            path(&self.pk8)
        )
    }

    fn command(&self) -> String {
        let path = |p: &PathBuf| quoted(&p.display().to_string());
        let conninfo = format!(
            "host={} port={} user={} dbname={} sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
            quoted(&self.host),
            self.port,
            quoted(&self.user),
            quoted(&self.database),
            path(&self.ca),
            path(&self.cert),
            path(&self.key)
        );
        format!("psql {}", shell_word(&conninfo))
    }

    fn service(&self) -> String {
        let mut section = format!("[{}]\n", self.name);
        for (variable, value) in self.variables() {
            let key = match variable {
                "PGDATABASE" => "dbname".to_owned(),
                other => other.trim_start_matches("PG").to_lowercase(),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(section, "{key}={}", value.replace(['\n', '\r'], " "));
        }
        section
    }

    pub(crate) fn exports(&self) -> String {
        self.variables().iter().map(|(k, v)| format!("export {k}={}\n", shell_word(v))).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "protocol": self.protocol,
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "database": self.database,
            "ca": self.ca,
            "cert": self.cert,
            "key": self.key,
            "pk8": self.pk8,
            "expires": time(self.not_after_unix),
            "uri": self.uri(),
        })
    }

    fn text(&self) -> String {
        let path = |p: &PathBuf| p.display().to_string();
        [
            ("host", self.host.clone()),
            ("port", self.port.to_string()),
            ("user", self.user.clone()),
            ("database", self.database.clone()),
            ("ca", path(&self.ca)),
            ("cert", path(&self.cert)),
            ("key", path(&self.key)),
            ("expires", time(self.not_after_unix)),
        ]
        .iter()
        .map(|(label, value)| format!("{label:<9} {}\n", escape(value)))
        .collect()
    }

    pub(crate) fn print(&self, format: ConnectionFormat) -> Result<(), Failure> {
        if self.protocol != "postgres" {
            return Err(Failure::new(
                Exit::Failed,
                format!("protocol {} is not served by this version", self.protocol),
            ));
        }
        match format {
            ConnectionFormat::Text => output::write(&self.text()),
            ConnectionFormat::Cmd => output::write(&(self.command() + "\n")),
            ConnectionFormat::Uri => output::write(&(self.uri() + "\n")),
            ConnectionFormat::Env => output::write(&self.exports()),
            ConnectionFormat::Pgservice => output::write(&self.service()),
            ConnectionFormat::Jdbc => output::write(&(self.jdbc() + "\n")),
            ConnectionFormat::Json => output::value(Format::Json, String::new, &self.json()),
            ConnectionFormat::Yaml => output::value(Format::Yaml, String::new, &self.json()),
        }
    }
}

/// A part of a URI where `/` must not stand for itself.
fn component(text: &str) -> String {
    encode(text).to_string().replace('/', "%2F")
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
    use super::*;

    fn facts() -> Facts {
        Facts {
            name: "orders".into(),
            protocol: "postgres".into(),
            host: "localhost".into(),
            port: 5432,
            user: "o'neil@x".into(),
            database: "my db/1".into(),
            ca: "/h/ca.pem".into(),
            cert: "/h/orders.crt".into(),
            key: "/h/a b.key".into(),
            pk8: "/h/orders.pk8".into(),
            not_after_unix: 0,
        }
    }

    #[test]
    fn names_with_odd_characters_survive_every_form() {
        let facts = facts();
        assert_eq!(
            facts.uri(),
            "postgresql://o%27neil%40x@localhost:5432/my%20db%2F1?sslmode=verify-full&sslrootcert=/h/ca.pem\
             &sslcert=/h/orders.crt&sslkey=/h/a%20b.key"
        );
        assert_eq!(
            facts.command(),
            "psql 'host=localhost port=5432 user='\\''o\\'\\''neil@x'\\'' dbname='\\''my db/1'\\'' sslmode=verify-full \
             sslrootcert=/h/ca.pem sslcert=/h/orders.crt sslkey='\\''/h/a b.key'\\'''"
        );
        assert!(facts.exports().contains("export PGUSER='o'\\''neil@x'\n"));
        assert!(facts.service().starts_with("[orders]\nhost=localhost\nport=5432\n"));
        assert!(facts.jdbc().contains("sslkey=/h/orders.pk8"));
    }

    #[test]
    fn json_has_the_fields_scripts_rely_on() {
        let json = facts().json();
        for field in ["protocol", "host", "port", "user", "database", "ca", "cert", "key", "expires", "uri"] {
            assert!(!json[field].is_null(), "{field}");
        }
        assert_eq!(json["expires"], "1970-01-01T00:00:00Z");
    }
}
