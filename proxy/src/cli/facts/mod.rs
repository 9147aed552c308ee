//! What a client needs to connect, in every form `db config` offers (user-experience 9). `postgres`, `redis` and
//! `mysql` know the forms of their clients.

mod mysql;
mod postgres;
mod redis;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::arguments::ConnectionFormat;
use super::context::time;
use super::failure::{Exit, Failure};
use super::output::{self, Format, escape, shell_word};
use super::uri::encode;
use crate::config::Listen;

/// One stored login to a database.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
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

/// The protocols whose clients we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Postgres,
    Redis,
    Mysql,
}

impl Protocol {
    const ALL: [Protocol; 3] = [Protocol::Postgres, Protocol::Redis, Protocol::Mysql];

    /// The protocol of a route.
    pub(crate) fn named(word: &str) -> Result<Protocol, Failure> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.word() == word)
            .ok_or_else(|| Failure::new(Exit::Failed, format!("protocol {word} is not served by this version")))
    }

    /// Its word in configurations and routes.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Protocol::Postgres => "postgres",
            Protocol::Redis => "redis",
            Protocol::Mysql => "mysql",
        }
    }

    /// The port its clients take when none is given.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Protocol::Postgres => 5432,
            Protocol::Redis => 6379,
            Protocol::Mysql => 3306,
        }
    }

    /// The native client, and the package that has it.
    pub(crate) fn client(self) -> (&'static str, &'static str) {
        match self {
            Protocol::Postgres => ("psql", "postgresql-client"),
            Protocol::Redis => ("redis-cli", "redis-tools"),
            Protocol::Mysql => (mysql::program(), "mariadb-client"),
        }
    }

    /// The URI of a plain listener of the tunnel.
    pub(crate) fn plain_uri(self, bound: &Listen, user: &str, database: &str) -> String {
        match self {
            Protocol::Postgres => postgres::plain_uri(bound, user, database),
            Protocol::Redis => redis::plain_uri(bound, database),
            Protocol::Mysql => mysql::plain_uri(bound, user, database),
        }
    }
}

impl Facts {
    /// The variables of the native client, in the order of its manual.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        match self.protocol {
            Protocol::Postgres => postgres::variables(self),
            Protocol::Redis => redis::variables(self),
            Protocol::Mysql => mysql::variables(self),
        }
    }

    pub(crate) fn uri(&self) -> String {
        match self.protocol {
            Protocol::Postgres => postgres::uri(self),
            Protocol::Redis => redis::uri(self),
            Protocol::Mysql => mysql::uri(self),
        }
    }

    fn command_line(&self) -> String {
        match self.protocol {
            Protocol::Postgres => postgres::command_line(self),
            Protocol::Redis => redis::command_line(self),
            Protocol::Mysql => mysql::command_line(self),
        }
    }

    /// The native client, ready to be started with `arguments` of the user's behind ours.
    pub(crate) fn client(&self, arguments: &[OsString]) -> Command {
        match self.protocol {
            Protocol::Postgres => postgres::client(self, arguments),
            Protocol::Redis => redis::client(self, arguments),
            Protocol::Mysql => mysql::client(self, arguments),
        }
    }

    pub(crate) fn exports(&self) -> String {
        self.variables().iter().map(|(k, v)| format!("export {k}={}\n", shell_word(v))).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "protocol": self.protocol.word(),
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
        [
            ("host", self.host.clone()),
            ("port", self.port.to_string()),
            ("user", self.user.clone()),
            ("database", self.database.clone()),
            ("ca", shown(&self.ca)),
            ("cert", shown(&self.cert)),
            ("key", shown(&self.key)),
            ("expires", time(self.not_after_unix)),
        ]
        .iter()
        .map(|(label, value)| format!("{label:<9} {}\n", escape(value)))
        .collect()
    }

    pub(crate) fn print(&self, format: ConnectionFormat) -> Result<(), Failure> {
        let is_for = |word: &str, protocols: &[Protocol]| match protocols.contains(&self.protocol) {
            true => Ok(()),
            false => {
                let words: Vec<&str> = protocols.iter().map(|protocol| protocol.word()).collect();
                Err(Failure::new(Exit::Usage, format!("the format {word} is one of {}", words.join(", ")))
                    .why(format!("{} is a database of protocol {}", self.name, self.protocol.word()))
                    .attempt(format!("ringgate db config {} --format uri", self.name)))
            }
        };
        match format {
            ConnectionFormat::Text => output::write(&self.text()),
            ConnectionFormat::Cmd => output::write(&(self.command_line() + "\n")),
            ConnectionFormat::Uri => output::write(&(self.uri() + "\n")),
            ConnectionFormat::Env => output::write(&self.exports()),
            ConnectionFormat::Pgservice => {
                is_for("pgservice", &[Protocol::Postgres])?;
                output::write(&postgres::service(self))
            }
            ConnectionFormat::Jdbc => {
                is_for("jdbc", &[Protocol::Postgres, Protocol::Mysql])?;
                let url = if self.protocol == Protocol::Mysql { mysql::jdbc(self) } else { postgres::jdbc(self) };
                output::write(&(url + "\n"))
            }
            ConnectionFormat::Mycnf => {
                is_for("mycnf", &[Protocol::Mysql])?;
                output::write(&mysql::option_group(self))
            }
            ConnectionFormat::Json => output::value(Format::Json, String::new, &self.json()),
            ConnectionFormat::Yaml => output::value(Format::Yaml, String::new, &self.json()),
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A path as a value in a URI.
fn escaped(path: &Path) -> String {
    encode(&shown(path)).to_string()
}

/// A part of a URI where `/` must not stand for itself.
fn component(text: &str) -> String {
    encode(text).to_string().replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login whose names hold what is awkward to quote.
    pub(super) fn facts(protocol: Protocol) -> Facts {
        Facts {
            name: "orders".into(),
            protocol,
            host: "localhost".into(),
            port: protocol.port(),
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
    fn json_has_the_fields_scripts_rely_on() {
        for protocol in Protocol::ALL {
            let json = facts(protocol).json();
            for field in ["protocol", "host", "port", "user", "database", "ca", "cert", "key", "expires", "uri"] {
                assert!(!json[field].is_null(), "{field}");
            }
            assert_eq!(json["expires"], "1970-01-01T00:00:00Z");
        }
    }

    #[test]
    fn a_format_of_another_protocol_is_a_wrong_use() {
        let failure = facts(Protocol::Redis).print(ConnectionFormat::Jdbc).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_protocol_that_is_not_served_is_named() {
        assert_eq!(Protocol::named("redis").unwrap(), Protocol::Redis);
        assert!(Protocol::named("oracle").unwrap_err().render().contains("oracle"));
    }
}
