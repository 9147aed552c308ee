//! The forms of the mysql and mariadb clients, of the connectors and of the JVM driver.
//!
//! The two clients take the same options but for the one that has the server's name checked, which each spells its own
//! way and refuses the other's; the option group marks both as `loose-`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use super::{Facts, component, escaped, shown};
use crate::cli::output::shell_word;
use crate::cli::uri::encode;
use crate::config::Listen;

/// The client that is here; `mariadb` where none is.
pub(super) fn program() -> &'static str {
    ["mariadb", "mysql"].into_iter().find(|name| found(name).is_some()).unwrap_or("mariadb")
}

fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether the program takes the options of MariaDB: its own, and a `mysql` that is a link to it.
fn is_mariadb(name: &str) -> bool {
    let target = found(name).and_then(|file| file.canonicalize().ok());
    let end = target.as_deref().and_then(|file| file.file_name()).and_then(|name| name.to_str()).unwrap_or(name);
    end.contains("mariadb")
}

/// Names for scripts; of these the clients themselves read `MYSQL_HOST` and `MYSQL_TCP_PORT`.
pub(super) fn variables(facts: &Facts) -> Vec<(&'static str, String)> {
    vec![
        ("MYSQL_HOST", facts.host.clone()),
        ("MYSQL_TCP_PORT", facts.port.to_string()),
        ("MYSQL_USER", facts.user.clone()),
        ("MYSQL_DATABASE", facts.database.clone()),
        ("MYSQL_SSL_CA", shown(&facts.ca)),
        ("MYSQL_SSL_CERT", shown(&facts.cert)),
        ("MYSQL_SSL_KEY", shown(&facts.key)),
    ]
}

/// With the parameter names of MySQL Shell and the connectors.
pub(super) fn uri(facts: &Facts) -> String {
    format!(
        "mysql://{}@{}:{}/{}?ssl-mode=VERIFY_IDENTITY&ssl-ca={}&ssl-cert={}&ssl-key={}",
        component(&facts.user),
        facts.host,
        facts.port,
        component(&facts.database),
        escaped(&facts.ca),
        escaped(&facts.cert),
        escaped(&facts.key)
    )
}

/// For MariaDB Connector/J, which reads PEM files.
pub(super) fn jdbc(facts: &Facts) -> String {
    format!(
        "jdbc:mariadb://{}:{}/{}?user={}&sslMode=verify-full&serverSslCert={}&clientCertificatePath={}&clientKeyPath={}",
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
    let program = program();
    let words: Vec<String> = arguments(facts, is_mariadb(program)).iter().map(|word| shell_word(word)).collect();
    format!("{program} {}", words.join(" "))
}

/// The client. Option files are not read: they could hold another server's password or switch TLS off.
pub(super) fn client(facts: &Facts, rest: &[OsString]) -> Command {
    let program = program();
    let mut command = Command::new(program);
    for variable in ["MYSQL_HOST", "MYSQL_PWD", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT"] {
        command.env_remove(variable);
    }
    command.arg("--no-defaults").args(arguments(facts, is_mariadb(program))).args(rest);
    command
}

fn arguments(facts: &Facts, mariadb: bool) -> Vec<String> {
    let mut words = vec![
        format!("--host={}", facts.host),
        format!("--port={}", facts.port),
        "--protocol=tcp".to_owned(),
        format!("--user={}", facts.user),
        format!("--ssl-ca={}", shown(&facts.ca)),
        format!("--ssl-cert={}", shown(&facts.cert)),
        format!("--ssl-key={}", shown(&facts.key)),
        if mariadb { "--ssl-verify-server-cert" } else { "--ssl-mode=VERIFY_IDENTITY" }.to_owned(),
    ];
    if !facts.database.is_empty() {
        words.push(format!("--database={}", facts.database));
    }
    words
}

/// The group of an option file for `--defaults-group-suffix=-NAME`.
pub(super) fn option_group(facts: &Facts) -> String {
    let mut lines = vec![
        format!("[client-{}]", facts.name),
        format!("host={}", quoted(&facts.host)),
        format!("port={}", facts.port),
        "protocol=tcp".to_owned(),
        format!("user={}", quoted(&facts.user)),
        format!("ssl-ca={}", quoted(&shown(&facts.ca))),
        format!("ssl-cert={}", quoted(&shown(&facts.cert))),
        format!("ssl-key={}", quoted(&shown(&facts.key))),
        "loose-ssl-mode=VERIFY_IDENTITY".to_owned(),
        "loose-ssl-verify-server-cert".to_owned(),
    ];
    if !facts.database.is_empty() {
        lines.push(format!("loose-database={}", quoted(&facts.database)));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A value of an option file: in quotes, with the escapes that the readers know.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{escaped}\"")
}

pub(super) fn plain_uri(bound: &Listen, user: &str, database: &str) -> String {
    let (user, database) = (encode(user), encode(database));
    match bound {
        Listen::Tcp(address) => format!("mysql://{user}@{address}/{database}?ssl-mode=DISABLED"),
        Listen::Unix(path) => {
            format!("mysql://{user}@localhost/{database}?socket={}", encode(&path.display().to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn names_with_odd_characters_survive_every_form() {
        let facts = facts(Protocol::Mysql);
        assert_eq!(
            facts.uri(),
            "mysql://o%27neil%40x@localhost:3306/my%20db%2F1?ssl-mode=VERIFY_IDENTITY&ssl-ca=/h/ca.pem\
             &ssl-cert=/h/orders.crt&ssl-key=/h/a%20b.key"
        );
        assert!(command_line(&facts).contains("'--user=o'\\''neil@x'"), "{}", command_line(&facts));
        assert!(option_group(&facts).starts_with("[client-orders]\nhost=localhost\nport=3306\nprotocol=tcp\n"));
        assert!(option_group(&facts).contains("ssl-key=\"/h/a b.key\"\n"));
        assert!(jdbc(&facts).contains("clientKeyPath=/h/orders.pk8"));
    }

    #[test]
    fn a_session_without_a_database_is_asked_for_without_one() {
        let facts = Facts { database: String::new(), ..facts(Protocol::Mysql) };
        assert!(!arguments(&facts, true).iter().any(|word| word.starts_with("--database")));
        assert!(!option_group(&facts).contains("database"));
    }

    #[test]
    fn each_client_gets_its_own_word_for_checking_the_server() {
        let facts = facts(Protocol::Mysql);
        assert!(arguments(&facts, true).contains(&"--ssl-verify-server-cert".to_owned()));
        assert!(arguments(&facts, false).contains(&"--ssl-mode=VERIFY_IDENTITY".to_owned()));
    }
}
