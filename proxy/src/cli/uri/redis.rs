//! `redis://` and `rediss://`, as redis-cli and the drivers write them (IANA: provisional schemes `redis` and `rediss`).

use secrecy::SecretString;

use super::{Parts, Target, UriError, address, check_text, is_near, some, unknown};

/// Reads what stands behind `redis://` or, with `is_tls`, behind `rediss://`.
pub(super) fn parse(rest: &str, is_tls: bool) -> Result<Target, UriError> {
    let mut parts = Parts::read(rest)?;
    if parts.user.is_some() && !parts.has_password {
        // redis-cli takes it for a password, drivers for a user: a guess could print a secret.
        return Err(UriError::UserOrPassword);
    }
    let mut database = parts.path.take();
    let (mut tls, mut ca_file, mut is_cluster) = (is_tls.then_some("verify-full"), None, false);
    for (key, value) in std::mem::take(&mut parts.parameters) {
        match key.as_str() {
            "mode" => is_cluster = word("mode", &value, &[("standalone", false), ("cluster", true)])?,
            "db" => database = some(value),
            "tls" => {
                let modes = ["verify-full", "verify-ca", "insecure", "off"].map(|mode| (mode, mode));
                tls = Some(word("tls", &value, &modes)?);
            }
            "ssl_ca_certs" => ca_file = some(value),
            "ssl_cert_reqs" => {
                tls = Some(word("ssl_cert_reqs", &value, &[("required", "verify-full"), ("none", "insecure")])?);
            }
            // These say how a client talks, which is the client's own business at every connection.
            "protocol" | "client_name" | "decode_responses" | "socket_timeout" | "socket_connect_timeout" => {}
            _ => return Err(unknown(&key)),
        }
    }
    if is_tls && tls == Some("off") {
        return Err(UriError::TlsTwice);
    }
    let host = parts.host.ok_or(UriError::NoHost)?;
    if host.contains(',') || host.starts_with('/') {
        return Err(if host.starts_with('/') { UriError::NoHost } else { UriError::SeveralHosts });
    }
    // `0` and nothing at all are the same database.
    if database.as_deref().is_some_and(|text| text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit())) {
        return Err(UriError::Number);
    }
    check_text([&parts.user, &parts.password, &None])?;
    Ok(Target {
        protocol: "redis",
        address: address(&host, parts.port.unwrap_or(6379)),
        user: parts.user,
        password: parts.password.map(SecretString::from),
        database,
        tls: tls.unwrap_or(if is_near(&host) { "off" } else { "verify-full" }),
        ca_file,
        is_cluster,
    })
}

fn word<T: Copy>(key: &'static str, text: &str, words: &[(&'static str, T)]) -> Result<T, UriError> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let known = match key {
        "mode" => "standalone, cluster",
        "tls" => "verify-full, verify-ca, insecure, off",
        _ => "required, none",
    };
    found.ok_or_else(|| UriError::Word(key, text.chars().filter(|c| !c.is_control()).take(40).collect(), known))
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;

    #[test]
    fn uris_are_taken_apart() {
        let table = [
            ("redis://:secret@127.0.0.1:6379", "127.0.0.1:6379 - secret - off password"),
            ("redis://localhost", "localhost:6379 - - - off none"),
            ("redis://localhost/", "localhost:6379 - - - off none"),
            ("redis://alice:p%40ss@h:7000/3", "h:7000 alice p@ss 3 verify-full password"),
            ("redis://alice:@localhost/2", "localhost:6379 alice - 2 off none"),
            ("rediss://127.0.0.1:6380", "127.0.0.1:6380 - - - verify-full mtls"),
            ("rediss://alice:s@h/0?ssl_cert_reqs=none", "h:6379 alice s 0 insecure password"),
            ("redis://h?tls=off", "h:6379 - - - off none"),
            ("redis://h?db=4&tls=verify-ca", "h:6379 - - 4 verify-ca mtls"),
            ("redis://:a@b@[::1]:5", "[::1]:5 - a@b - off password"),
        ];
        for (uri, expected) in table {
            assert_eq!(shown(uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_cluster_is_asked_for_by_its_mode() {
        assert!(Target::parse("redis://h:7000?mode=cluster").unwrap().is_cluster);
        assert!(!Target::parse("redis://h:7000?mode=standalone").unwrap().is_cluster);
        let target = Target::parse("rediss://h?mode=cluster&ssl_ca_certs=/ca.pem").unwrap();
        assert_eq!(target.ca_file.as_deref(), Some("/ca.pem"));
    }

    #[test]
    fn what_is_no_uri_of_a_database_is_refused_by_name() {
        let table = [
            ("redis://", UriError::NoHost),
            ("redis://a,b", UriError::SeveralHosts),
            ("redis://hunter2@h", UriError::UserOrPassword),
            ("redis://h:0", UriError::Port),
            ("redis://h/one", UriError::Number),
            ("redis://h/-1", UriError::Number),
            ("redis://:%0a@h", UriError::Control),
            ("redis://h?mode=sentinel", UriError::Word("mode", "sentinel".into(), "standalone, cluster")),
            ("rediss://h?tls=off", UriError::TlsTwice),
            ("redis://h?sslmode=x", UriError::Parameter("sslmode".into())),
        ];
        for (uri, expected) in table {
            assert_eq!(Target::parse(uri).err(), Some(expected), "{uri}");
        }
    }
}
