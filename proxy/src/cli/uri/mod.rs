//! `--db NAME=URI` of `quickstart`: a PostgreSQL connection URI taken apart.

use std::fmt;

use secrecy::SecretString;

/// A database to register. `Debug` does not show the password.
#[derive(Debug)]
pub(crate) struct Target {
    /// `host:port` or `unix:///dir/.s.PGSQL.port`.
    pub(crate) address: String,
    /// User of the URI.
    pub(crate) user: Option<String>,
    /// Password of the URI.
    pub(crate) password: Option<SecretString>,
    /// Database of the URI; the server's default is the user's name.
    pub(crate) database: Option<String>,
    /// `verify-full`, `verify-ca`, `insecure` or `off`.
    pub(crate) tls: &'static str,
    /// Certificate file that the server is verified with.
    pub(crate) ca_file: Option<String>,
}

/// What is wrong with a URI; never shows it, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UriError {
    #[error("it does not start with postgres:// or postgresql://")]
    Scheme,
    #[error("it names no host")]
    NoHost,
    #[error("it names several hosts, and a registered database has one")]
    SeveralHosts,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("a % is not followed by two hexadecimal digits, or the text behind them is not UTF-8")]
    Percent,
    #[error("the user or password holds a character no password can have")]
    Control,
    #[error("sslmode is `{0}`, not one of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode(String),
    #[error("the parameter `{0}` is not understood")]
    Parameter(String),
}

impl Target {
    /// How the gateway logs in to the database (user-experience 4.1).
    pub(crate) fn auth_method(&self) -> &'static str {
        match (&self.password, self.tls) {
            (Some(_), _) => "password",
            (None, "off") => "none",
            (None, _) => "mtls",
        }
    }

    /// Reads a URI. `localhost`, loopback addresses and Unix sockets need no TLS unless the URI asks for it.
    pub(crate) fn parse(uri: &str) -> Result<Target, UriError> {
        let rest = uri.strip_prefix("postgres://").or_else(|| uri.strip_prefix("postgresql://"));
        let rest = rest.ok_or(UriError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an unescaped `@`; a host may not.
        let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(l, p)| (Some(l), p));
        let (user, password) = match login.map(|l| l.split_once(':').map_or((l, None), |(u, p)| (u, Some(p)))) {
            Some((user, password)) => (some(decode(user)?), password.map(decode).transpose()?),
            None => (None, None),
        };
        let mut parts =
            Parts { host: None, port: None, user, password, database: some(decode(path)?), mode: None, ca: None };
        place_of(place, &mut parts)?;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameter(&decode(key)?, decode(value)?, &mut parts)?;
        }
        parts.finish()
    }
}

struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    mode: Option<String>,
    ca: Option<String>,
}

impl Parts {
    fn finish(self) -> Result<Target, UriError> {
        let host = self.host.ok_or(UriError::NoHost)?;
        let port = self.port.unwrap_or(5432);
        if host.contains(',') {
            return Err(UriError::SeveralHosts);
        }
        let unix = host.starts_with('/');
        let near = unix
            || host.eq_ignore_ascii_case("localhost")
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = match self.mode.as_deref() {
            _ if unix => "off",
            None if near => "off",
            None | Some("verify-full") => "verify-full",
            Some("verify-ca") => "verify-ca",
            Some("require") if self.ca.is_some() => "verify-ca",
            Some("require") => "insecure",
            Some("disable") => "off",
            // The weaker modes fall back to plain text silently; we do not, except where plain is the default.
            Some("allow" | "prefer") if near => "off",
            Some("allow" | "prefer") => "verify-full",
            Some(other) => return Err(UriError::SslMode(other.to_owned())),
        };
        let control =
            |text: &Option<String>| text.as_ref().is_some_and(|t| t.chars().any(|c| matches!(c, '\0' | '\n' | '\r')));
        if control(&self.user) || control(&self.password) || control(&self.database) {
            return Err(UriError::Control);
        }
        let address = if unix {
            format!("unix://{}/.s.PGSQL.{port}", host.trim_end_matches('/'))
        } else if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let password = self.password.filter(|p| !p.is_empty()).map(SecretString::from);
        Ok(Target { address, user: self.user, password, database: self.database, tls, ca_file: self.ca })
    }
}

fn place_of(place: &str, parts: &mut Parts) -> Result<(), UriError> {
    if place.contains(',') {
        return Err(UriError::SeveralHosts);
    }
    // An IPv6 address stands in brackets, so that its colons are not taken for the port's.
    let (host, port) = if let Some(inner) = place.strip_prefix('[') {
        let (host, rest) = inner.split_once(']').ok_or(UriError::NoHost)?;
        (host, rest.strip_prefix(':'))
    } else {
        place.rsplit_once(':').map_or((place, None), |(h, p)| (h, Some(p)))
    };
    parts.host = some(decode(host)?);
    parts.port = port.filter(|p| !p.is_empty()).map(port_of).transpose()?;
    Ok(())
}

fn parameter(key: &str, value: String, parts: &mut Parts) -> Result<(), UriError> {
    match key {
        "host" | "hostaddr" => parts.host = some(value),
        "port" => parts.port = Some(port_of(&value)?),
        "user" => parts.user = some(value),
        "password" => parts.password = some(value),
        "dbname" => parts.database = some(value),
        "sslmode" => parts.mode = Some(value),
        "sslrootcert" if value != "system" => parts.ca = some(value),
        // These say how a client talks, which is the client's own business at every connection.
        "application_name"
        | "fallback_application_name"
        | "connect_timeout"
        | "client_encoding"
        | "options"
        | "target_session_attrs"
        | "gssencmode"
        | "channel_binding"
        | "keepalives" => {}
        _ => return Err(UriError::Parameter(key.chars().filter(|c| !c.is_control()).take(40).collect())),
    }
    Ok(())
}

fn port_of(text: &str) -> Result<u16, UriError> {
    text.parse().ok().filter(|port| *port > 0).ok_or(UriError::Port)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Decodes `%xx`; `+` stands for itself, as in libpq.
fn decode(text: &str) -> Result<String, UriError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(UriError::Percent);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| UriError::Percent)?);
    }
    String::from_utf8(bytes).map_err(|_| UriError::Percent)
}

/// Encodes what is not unreserved in a URI.
pub(crate) fn encode(text: &str) -> impl fmt::Display + '_ {
    struct Encoded<'a>(&'a str);
    impl fmt::Display for Encoded<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for byte in self.0.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                        write!(f, "{}", char::from(byte))?;
                    }
                    _ => write!(f, "%{byte:02X}")?,
                }
            }
            Ok(())
        }
    }
    Encoded(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn uris_are_taken_apart() {
        let table = [
            ("postgres://app:s@127.0.0.1:5433/orders", "127.0.0.1:5433 app s orders off password"),
            ("postgresql://db.example.com/x", "db.example.com:5432 - - x verify-full mtls"),
            ("postgres://u@localhost", "localhost:5432 u - - off none"),
            ("postgres://u:p%40%2F%25@db/x", "db:5432 u p@/% x verify-full password"),
            ("postgres://u:a@b@db:1/x", "db:1 u a@b x verify-full password"),
            ("postgres://u@[::1]:5/x", "[::1]:5 u - x off none"),
            ("postgres://u@[2001:db8::1]/x", "[2001:db8::1]:5432 u - x verify-full mtls"),
            (
                "postgres:///x?host=/var/run/postgresql&user=u",
                "unix:///var/run/postgresql/.s.PGSQL.5432 u - x off none",
            ),
            ("postgres://%2Ftmp/x", "unix:///tmp/.s.PGSQL.5432 - - x off none"),
            ("postgres://u@db/x?sslmode=disable", "db:5432 u - x off none"),
            ("postgres://u@db/x?sslmode=require", "db:5432 u - x insecure mtls"),
            ("postgres://u@db/x?sslmode=require&sslrootcert=/ca", "db:5432 u - x verify-ca mtls"),
            ("postgres://u@localhost/x?sslmode=verify-full", "localhost:5432 u - x verify-full mtls"),
            ("postgres://u@db/x?sslmode=prefer", "db:5432 u - x verify-full mtls"),
            ("postgres://db/x?user=u&password=p&port=9&dbname=y", "db:9 u p y verify-full password"),
            ("postgres://u:@db/x", "db:5432 u - x verify-full mtls"),
            ("postgres://u@db/my%20db?application_name=a", "db:5432 u - my db verify-full mtls"),
        ];
        for (uri, expected) in table {
            let t = Target::parse(uri).unwrap_or_else(|e| panic!("{uri}: {e}"));
            let shown = format!(
                "{} {} {} {} {} {}",
                t.address,
                t.user.as_deref().unwrap_or("-"),
                t.password.as_ref().map_or("-", |p| p.expose_secret()),
                t.database.as_deref().unwrap_or("-"),
                t.tls,
                t.auth_method()
            );
            assert_eq!(shown, expected, "{uri}");
        }
    }

    #[test]
    fn what_is_no_uri_of_a_database_is_refused_by_name() {
        let table = [
            ("mysql://h/x", UriError::Scheme),
            ("h:5432", UriError::Scheme),
            ("postgres:///x", UriError::NoHost),
            ("postgres://a,b/x", UriError::SeveralHosts),
            ("postgres://h:0/x", UriError::Port),
            ("postgres://h:70000/x", UriError::Port),
            ("postgres://h:x/x", UriError::Port),
            ("postgres://u:%zz@h/x", UriError::Percent),
            ("postgres://u:%f@h/x", UriError::Percent),
            ("postgres://u:%ff@h/x", UriError::Percent),
            ("postgres://u:a%0Ab@h/x", UriError::Control),
            ("postgres://h/x?sslmode=maybe", UriError::SslMode("maybe".into())),
            ("postgres://h/x?service=z", UriError::Parameter("service".into())),
            ("postgres://[::1/x", UriError::NoHost),
        ];
        for (uri, expected) in table {
            assert_eq!(Target::parse(uri).err(), Some(expected), "{uri}");
        }
    }

    #[test]
    fn a_password_is_not_in_debug_output() {
        let target = Target::parse("postgres://u:hunter2@h/x").unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}
