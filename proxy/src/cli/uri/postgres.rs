//! The connection URIs of libpq.

use secrecy::SecretString;

use super::{Parts, Target, UriError, address, check_text, is_near, port_of, some, unknown};

/// Reads what stands behind `postgres://`.
pub(super) fn parse(rest: &str) -> Result<Target, UriError> {
    let mut parts = Parts::read(rest)?;
    let (mut mode, mut ca_file) = (None, None);
    let mut database = parts.path.take();
    for (key, value) in std::mem::take(&mut parts.parameters) {
        match key.as_str() {
            "host" | "hostaddr" => parts.host = some(value),
            "port" => parts.port = Some(port_of(&value)?),
            "user" => parts.user = some(value),
            "password" => parts.password = some(value),
            "dbname" => database = some(value),
            "sslmode" => mode = Some(value),
            "sslrootcert" if value != "system" => ca_file = some(value),
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
            _ => return Err(unknown(&key)),
        }
    }
    let host = parts.host.ok_or(UriError::NoHost)?;
    if host.contains(',') {
        return Err(UriError::SeveralHosts);
    }
    let port = parts.port.unwrap_or(5432);
    let unix = host.starts_with('/');
    let tls = tls_mode(mode, unix, unix || is_near(&host), ca_file.is_some())?;
    check_text([&parts.user, &parts.password, &database])?;
    let address =
        if unix { format!("unix://{}/.s.PGSQL.{port}", host.trim_end_matches('/')) } else { address(&host, port) };
    Ok(Target {
        protocol: "postgres",
        address,
        user: parts.user,
        password: parts.password.map(SecretString::from),
        database,
        tls,
        ca_file,
        is_cluster: false,
    })
}

fn tls_mode(mode: Option<String>, unix: bool, near: bool, has_ca: bool) -> Result<&'static str, UriError> {
    Ok(match mode.as_deref() {
        _ if unix => "off",
        None if near => "off",
        None | Some("verify-full") => "verify-full",
        Some("verify-ca") => "verify-ca",
        Some("require") if has_ca => "verify-ca",
        Some("require") => "insecure",
        Some("disable") => "off",
        // The weaker modes fall back to plain text silently; we do not, except where plain is the default.
        Some("allow" | "prefer") if near => "off",
        Some("allow" | "prefer") => "verify-full",
        Some(other) => return Err(UriError::SslMode(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
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
            assert_eq!(shown(uri), expected, "{uri}");
        }
    }

    #[test]
    fn what_is_no_uri_of_a_database_is_refused_by_name() {
        let table = [
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
}
