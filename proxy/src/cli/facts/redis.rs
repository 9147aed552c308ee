//! The forms of redis-cli and of the drivers.
//!
//! The database user is in none of them: the certificate says it, and redis-cli takes a lone word before the `@` of a
//! URI for a password.

use std::ffi::OsString;
use std::process::Command;

use super::{Facts, component, escaped, shown};
use crate::cli::output::shell_word;
use crate::cli::uri::encode;
use crate::config::Listen;

/// Names for scripts; redis-cli itself reads no address from its environment.
pub(super) fn variables(facts: &Facts) -> Vec<(&'static str, String)> {
    vec![
        ("REDIS_URL", uri(facts)),
        ("REDIS_HOST", facts.host.clone()),
        ("REDIS_PORT", facts.port.to_string()),
        ("REDIS_DB", number(facts).to_owned()),
        ("REDIS_CACERT", shown(&facts.ca)),
        ("REDIS_CERT", shown(&facts.cert)),
        ("REDIS_KEY", shown(&facts.key)),
    ]
}

/// With the parameter names of redis-py, which takes the URI as it is.
pub(super) fn uri(facts: &Facts) -> String {
    format!(
        "rediss://{}:{}/{}?ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        facts.host,
        facts.port,
        component(number(facts)),
        escaped(&facts.ca),
        escaped(&facts.cert),
        escaped(&facts.key)
    )
}

pub(super) fn command_line(facts: &Facts) -> String {
    let words: Vec<String> = arguments(facts).iter().map(|word| shell_word(word)).collect();
    format!("redis-cli {}", words.join(" "))
}

/// `redis-cli`. A password in its environment is one for another server, unless the user gives a name for it.
pub(super) fn client(facts: &Facts, rest: &[OsString]) -> Command {
    let mut command = Command::new("redis-cli");
    if !rest.iter().any(|argument| argument == "--user") {
        command.env_remove("REDISCLI_AUTH");
    }
    command.args(arguments(facts)).args(rest);
    command
}

fn arguments(facts: &Facts) -> Vec<String> {
    let mut words = vec!["-h".to_owned(), facts.host.clone(), "-p".to_owned(), facts.port.to_string()];
    words.push("--tls".to_owned());
    for (option, path) in [("--cacert", &facts.ca), ("--cert", &facts.cert), ("--key", &facts.key)] {
        words.extend([option.to_owned(), shown(path)]);
    }
    if number(facts) != "0" {
        words.extend(["-n".to_owned(), number(facts).to_owned()]);
    }
    words
}

pub(super) fn plain_uri(bound: &Listen, database: &str) -> String {
    let database = if database.is_empty() { "0" } else { database };
    match bound {
        Listen::Tcp(address) => format!("redis://{address}/{}", encode(database)),
        Listen::Unix(path) => format!("unix://{}?db={}", encode(&shown(path)), encode(database)),
    }
}

/// The number of the database; a route without one means the first.
fn number(facts: &Facts) -> &str {
    if facts.database.is_empty() { "0" } else { &facts.database }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::super::tests::facts;
    use super::*;

    fn redis(database: &str) -> Facts {
        Facts { database: database.into(), ..facts(Protocol::Redis) }
    }

    #[test]
    fn the_uri_names_the_certificate_files_and_no_user() {
        let expected =
            "rediss://localhost:6379/3?ssl_ca_certs=/h/ca.pem&ssl_certfile=/h/orders.crt&ssl_keyfile=/h/a%20b.key";
        assert_eq!(uri(&redis("3")), expected);
        assert!(uri(&redis("")).contains(":6379/0?"));
    }

    #[test]
    fn the_command_line_quotes_paths_and_asks_for_a_database_other_than_the_first() {
        let expected =
            "redis-cli -h localhost -p 6379 --tls --cacert /h/ca.pem --cert /h/orders.crt --key '/h/a b.key'";
        assert_eq!(command_line(&redis("0")), expected);
        assert_eq!(command_line(&redis("3")), format!("{expected} -n 3"));
    }

    #[test]
    fn a_password_in_the_environment_reaches_the_client_only_with_a_user_name() {
        let removed = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            client(&redis("0"), &arguments).get_envs().any(|(name, value)| name == "REDISCLI_AUTH" && value.is_none())
        };
        assert!(removed(&["ping"]));
        assert!(!removed(&["--user", "alice"]));
    }

    #[test]
    fn a_tunnel_is_reached_by_address_or_by_path() {
        let tcp = Listen::Tcp("127.0.0.1:7".parse().unwrap());
        assert_eq!(plain_uri(&tcp, "2"), "redis://127.0.0.1:7/2");
        assert_eq!(plain_uri(&Listen::Unix("/a b".into()), ""), "unix:///a%20b?db=0");
    }
}
