//! `--db NAME=URI` of `quickstart`: the connection URI of a database taken apart. `postgres`, `redis` and `mysql`
//! know what the URIs of their clients may say; here is what all have in common.

mod mysql;
mod postgres;
mod redis;

use std::fmt;

use secrecy::SecretString;

/// A database to register. `Debug` does not show the password.
#[derive(Debug)]
pub(crate) struct Target {
    /// `postgres`, `redis` or `mysql`.
    pub(crate) protocol: &'static str,
    /// `host:port` or `unix:///path`.
    pub(crate) address: String,
    /// User of the URI.
    pub(crate) user: Option<String>,
    /// Password of the URI.
    pub(crate) password: Option<SecretString>,
    /// Database of the URI. PostgreSQL's default is the user's name, that of Redis is 0; MySQL needs none.
    pub(crate) database: Option<String>,
    /// `verify-full`, `verify-ca`, `insecure` or `off`.
    pub(crate) tls: &'static str,
    /// Certificate file that the server is verified with.
    pub(crate) ca_file: Option<String>,
    /// The address is that of a node of a Redis Cluster.
    pub(crate) is_cluster: bool,
}

/// What is wrong with a URI; never shows it, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UriError {
    #[error("it does not start with postgres://, postgresql://, mysql://, mariadb://, redis:// or rediss://")]
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
    #[error("{0} is `{1}`, not one of {2}")]
    Word(&'static str, String, &'static str),
    #[error("the database is not a number")]
    Number,
    #[error("one word before the @ may be a user or a password: write :PASSWORD@, USER:PASSWORD@ or USER:@")]
    UserOrPassword,
    #[error("rediss:// asks for TLS, and tls=off for none")]
    TlsTwice,
    #[error("the parameter `{0}` is not understood")]
    Parameter(String),
}

impl Target {
    /// Reads a URI. `localhost`, loopback addresses and Unix sockets need no TLS unless the URI asks for it.
    pub(crate) fn parse(uri: &str) -> Result<Target, UriError> {
        match uri.split_once("://") {
            Some(("postgres" | "postgresql", rest)) => postgres::parse(rest),
            Some(("mysql" | "mariadb", rest)) => mysql::parse(rest),
            Some(("redis", rest)) => redis::parse(rest, false),
            Some(("rediss", rest)) => redis::parse(rest, true),
            _ => Err(UriError::Scheme),
        }
    }

    /// How the gateway logs in to the database (user-experience 4.1).
    pub(crate) fn auth_method(&self) -> &'static str {
        match (&self.password, self.tls) {
            (Some(_), _) => "password",
            (None, "off") => "none",
            (None, _) => "mtls",
        }
    }
}

/// What stands in every URI: `[user[:password]@]host[:port][/path][?key=value&...]`.
struct Parts {
    user: Option<String>,
    password: Option<String>,
    /// The login part has a colon.
    has_password: bool,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Parts {
    fn read(rest: &str) -> Result<Parts, UriError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an unescaped `@`; a host may not.
        let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(l, p)| (Some(l), p));
        let login = login.map(|l| l.split_once(':').map_or((l, None), |(u, p)| (u, Some(p))));
        let (user, password) = login.unwrap_or_default();
        let (host, port) = place_of(place)?;
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(key)?, decode(value)?));
        }
        Ok(Parts {
            user: some(decode(user)?),
            password: password.map(decode).transpose()?.and_then(some),
            has_password: password.is_some(),
            host,
            port,
            path: some(decode(path)?),
            parameters,
        })
    }
}

/// Host and port of the part behind the `@`.
fn place_of(place: &str) -> Result<(Option<String>, Option<u16>), UriError> {
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
    Ok((some(decode(host)?), port.filter(|p| !p.is_empty()).map(port_of).transpose()?))
}

/// Whether `host` is this machine, where plain text is not seen by others.
fn is_near(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `host:port`, with an IPv6 address in brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Refuses what no user name and no password holds.
fn check_text(texts: [&Option<String>; 3]) -> Result<(), UriError> {
    let control = |text: &String| text.chars().any(|c| matches!(c, '\0' | '\n' | '\r'));
    if texts.into_iter().flatten().any(control) { Err(UriError::Control) } else { Ok(()) }
}

/// The name of a parameter as far as it may be shown.
fn unknown(key: &str) -> UriError {
    UriError::Parameter(key.chars().filter(|c| !c.is_control()).take(40).collect())
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
    use super::*;

    /// Address, user, password, database, TLS mode and login method, as one line.
    pub(super) fn shown(uri: &str) -> String {
        use secrecy::ExposeSecret as _;
        let t = Target::parse(uri).unwrap_or_else(|e| panic!("{uri}: {e}"));
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let password = t.password.as_ref().map_or("-", |p| p.expose_secret());
        let (user, database) = (or_dash(&t.user), or_dash(&t.database));
        format!("{} {user} {password} {database} {} {}", t.address, t.tls, t.auth_method())
    }

    #[test]
    fn what_is_no_uri_of_a_served_database_is_refused() {
        for uri in ["mongodb://h/x", "h:5432", "", "redis:h"] {
            assert_eq!(Target::parse(uri).err(), Some(UriError::Scheme), "{uri}");
        }
    }

    #[test]
    fn a_password_is_not_in_debug_output() {
        for uri in ["postgres://u:hunter2@h/x", "redis://:hunter2@h", "mysql://u:hunter2@h/x"] {
            let target = Target::parse(uri).unwrap();
            assert!(!format!("{target:?}").contains("hunter2"));
        }
    }
}
