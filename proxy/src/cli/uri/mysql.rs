//! `mysql://` and `mariadb://`, as MySQL Shell, the connectors and the drivers write them.

use secrecy::SecretString;

use super::{Parts, Target, UriError, address, check_text, is_near, some, unknown};

/// Reads what stands behind `mysql://` or `mariadb://`.
pub(super) fn parse(rest: &str) -> Result<Target, UriError> {
    let mut parts = Parts::read(rest)?;
    let (mut mode, mut ca_file, mut socket) = (None, None, None);
    let database = parts.path.take();
    for (key, value) in std::mem::take(&mut parts.parameters) {
        match key.to_ascii_lowercase().as_str() {
            "ssl-mode" | "ssl_mode" | "sslmode" => mode = Some(mode_of(&value)?),
            "tls" => mode = Some(tls_of(&value)?),
            "ssl-ca" | "ssl_ca" => ca_file = some(value),
            "socket" | "unix_socket" => socket = some(value),
            // These say how a client talks, which is the client's own business at every connection.
            "charset" | "collation" | "connect_timeout" | "connect-timeout" | "connecttimeout" | "compression" => {}
            _ => return Err(unknown(&key)),
        }
    }
    let host = parts.host.filter(|_| socket.is_none());
    let place = match (&socket, &host) {
        (Some(path), _) if path.starts_with('/') => format!("unix://{path}"),
        (Some(_), _) => return Err(UriError::NoHost),
        (None, Some(path)) if path.starts_with('/') => format!("unix://{path}"),
        (None, Some(host)) => address(host, parts.port.unwrap_or(3306)),
        (None, None) => return Err(UriError::NoHost),
    };
    let near = place.starts_with("unix://") || host.as_deref().is_some_and(is_near);
    check_text([&parts.user, &parts.password, &database])?;
    Ok(Target {
        protocol: "mysql",
        address: place,
        user: parts.user,
        password: parts.password.map(SecretString::from),
        database,
        tls: match (mode, near) {
            (Some("preferred") | None, true) => "off",
            (Some("preferred") | None, false) => "verify-full",
            (Some(mode), _) => mode,
        },
        ca_file,
        is_cluster: false,
    })
}

/// The words of `--ssl-mode`. One that falls back to plain text silently is ours only where plain is the default.
fn mode_of(text: &str) -> Result<&'static str, UriError> {
    Ok(match text.to_ascii_uppercase().replace('-', "_").as_str() {
        "DISABLED" => "off",
        "PREFERRED" => "preferred",
        "REQUIRED" => "insecure",
        "VERIFY_CA" => "verify-ca",
        "VERIFY_IDENTITY" => "verify-full",
        _ => return Err(word("ssl-mode", text, "DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY")),
    })
}

fn tls_of(text: &str) -> Result<&'static str, UriError> {
    Ok(match text {
        "true" | "verify-full" => "verify-full",
        "verify-ca" => "verify-ca",
        "skip-verify" | "insecure" => "insecure",
        "preferred" => "preferred",
        "false" | "off" => "off",
        _ => return Err(word("tls", text, "verify-full, verify-ca, insecure, off")),
    })
}

fn word(key: &'static str, text: &str, known: &'static str) -> UriError {
    UriError::Word(key, text.chars().filter(|c| !c.is_control()).take(40).collect(), known)
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;

    #[test]
    fn uris_are_taken_apart() {
        let table = [
            ("mysql://root@127.0.0.1:3306/test", "127.0.0.1:3306 root - test off none"),
            ("mariadb://app:s%40@localhost/x", "localhost:3306 app s@ x off password"),
            ("mysql://db.example.com", "db.example.com:3306 - - - verify-full mtls"),
            ("mysql://u:p@db/x?ssl-mode=REQUIRED", "db:3306 u p x insecure password"),
            ("mysql://u@db/x?ssl-mode=verify_ca&ssl-ca=/ca", "db:3306 u - x verify-ca mtls"),
            ("mysql://u@db/x?ssl-mode=DISABLED", "db:3306 u - x off none"),
            ("mysql://u@localhost/x?tls=true", "localhost:3306 u - x verify-full mtls"),
            ("mysql://u@localhost/x?socket=/run/m.sock", "unix:///run/m.sock u - x off none"),
            ("mysql://u@%2Frun%2Fm.sock/x", "unix:///run/m.sock u - x off none"),
            ("mysql://u@[::1]:5/x?charset=utf8mb4", "[::1]:5 u - x off none"),
        ];
        for (uri, expected) in table {
            assert_eq!(shown(uri), expected, "{uri}");
        }
    }

    #[test]
    fn what_is_no_uri_of_a_database_is_refused_by_name() {
        let table = [
            ("mysql:///x", UriError::NoHost),
            ("mysql://a,b/x", UriError::SeveralHosts),
            ("mysql://h:0/x", UriError::Port),
            ("mysql://h/x?socket=rel", UriError::NoHost),
            ("mysql://u:%0a@h", UriError::Control),
            ("mysql://h/x?service=z", UriError::Parameter("service".into())),
        ];
        for (uri, expected) in table {
            assert_eq!(Target::parse(uri).err(), Some(expected), "{uri}");
        }
        assert!(matches!(Target::parse("mysql://h?ssl-mode=maybe"), Err(UriError::Word("ssl-mode", ..))));
    }
}
