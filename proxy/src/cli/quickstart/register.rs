//! `--db NAME=URI`: the resource document of a database and the file of its password.

use std::path::Path;

use secrecy::ExposeSecret as _;
use serde_json::{Map, json};
use zeroize::Zeroizing;

use crate::cli::failure::{Exit, Failure, file};
use crate::cli::uri::Target;
use crate::profile::replace;

/// A database to register.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) target: Target,
}

/// Reads every `--db`; names are unique.
pub(super) fn parse(arguments: &[String]) -> Result<Vec<Registration>, Failure> {
    let mut all: Vec<Registration> = Vec::new();
    for argument in arguments {
        // The argument may hold a password: messages name the database alone.
        let (name, uri) = argument.split_once('=').ok_or_else(|| {
            Failure::new(Exit::Usage, "a --db is wrong")
                .why("it is not NAME=URI")
                .attempt("--db orders=postgres://app@127.0.0.1:5433/orders, or --db orders=env:ORDERS_URI")
        })?;
        let edges = !name.starts_with('-') && !name.ends_with('-');
        let good = (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !good || !edges || name == "ca" {
            return Err(Failure::new(Exit::Usage, "the name of a --db is wrong")
                .why("a name has 1 to 63 letters, digits and inner hyphens, and is not `ca`"));
        }
        if all.iter().any(|r| r.name == name) {
            return Err(Failure::new(Exit::Usage, format!("--db {name} is given twice")));
        }
        let wrong = |why: String| Failure::new(Exit::Usage, format!("the URI of --db {name} is wrong")).why(why);
        let uri = fetch(uri).map_err(wrong)?;
        let target = Target::parse(uri.trim()).map_err(|e| wrong(e.to_string()))?;
        all.push(Registration { name: name.to_owned(), target });
    }
    Ok(all)
}

/// The URI itself, or what `env:NAME` or `file:///path` holds.
fn fetch(text: &str) -> Result<Zeroizing<String>, String> {
    if let Some(variable) = text.strip_prefix("env:") {
        let value = std::env::var(variable).map_err(|_| format!("the environment variable {variable} is not set"))?;
        return Ok(Zeroizing::new(value));
    }
    if let Some(path) = text.strip_prefix("file://") {
        return std::fs::read_to_string(path).map(Zeroizing::new).map_err(|e| format!("cannot read {path}: {e}"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// The `db` document; a password goes to `secrets/NAME.password` first.
pub(super) fn document(registration: &Registration, secrets: &Path) -> Result<String, Failure> {
    let Registration { name, target } = registration;
    let mut auth = Map::new();
    auth.insert("method".to_owned(), json!(target.auth_method()));
    if let Some(password) = &target.password {
        let path = secrets.join(format!("{name}.password"));
        replace(&path, password.expose_secret().as_bytes()).map_err(|e| file("write", &path, &e))?;
        // `AUTH` with a password alone is about the user `default`.
        let everybody = if target.protocol == "redis" { "default" } else { "*" };
        let user = target.user.as_deref().unwrap_or(everybody);
        auth.insert("secrets".to_owned(), json!({ user: format!("file://{}", path.display()) }));
    }
    let mut tls = Map::new();
    tls.insert("mode".to_owned(), json!(target.tls));
    if let Some(ca) = &target.ca_file {
        let path = std::path::absolute(ca).map_err(|e| file("find", Path::new(ca), &e))?;
        tls.insert("ca_cert_file".to_owned(), json!(path));
    }
    let mut spec = Map::new();
    spec.insert("protocol".to_owned(), json!(target.protocol));
    spec.insert("uri".to_owned(), json!(target.address));
    if target.is_cluster {
        spec.insert("mode".to_owned(), json!("cluster"));
    }
    spec.insert("tls".to_owned(), json!(tls));
    spec.insert("auth".to_owned(), json!(auth));
    let document = json!({ "kind": "db", "version": "v3", "metadata": { "name": name }, "spec": spec });
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn one(argument: &str) -> Result<Registration, Failure> {
        parse(&[argument.to_owned()]).map(|mut all| all.remove(0))
    }

    #[test]
    fn a_password_goes_to_a_private_file_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let registration = one("orders=postgres://app:hunter2@127.0.0.1:5433/orders").unwrap();
        let document = document(&registration, dir.path()).unwrap();
        assert!(!document.contains("hunter2"), "{document}");
        let path = dir.path().join("orders.password");
        assert!(document.contains(&format!("file://{}", path.display())), "{document}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(ringgate_policy::Document::parse_all(&document).is_ok());
    }

    #[test]
    fn a_redis_password_without_a_user_is_that_of_the_default_user() {
        let dir = tempfile::tempdir().unwrap();
        let registration = one("r=redis://:hunter2@127.0.0.1:6379?mode=cluster").unwrap();
        let document = document(&registration, dir.path()).unwrap();
        assert!(!document.contains("hunter2"), "{document}");
        assert!(document.contains(r#""secrets":{"default":"file://"#), "{document}");
        assert!(document.contains(r#""mode":"cluster""#), "{document}");
        assert_eq!(std::fs::read_to_string(dir.path().join("r.password")).unwrap(), "hunter2");
        assert!(ringgate_policy::Document::parse_all(&document).is_ok());
    }

    #[test]
    fn a_uri_may_come_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uri");
        std::fs::write(&path, "postgres://app:s@h/x\n").unwrap();
        let registration = one(&format!("a=file://{}", path.display())).unwrap();
        assert_eq!(registration.target.address, "h:5432");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_uri() {
        for argument in [
            "postgres://u:hunter2@h/x",
            "a b=postgres://u:hunter2@h",
            "a=oracle://u:hunter2@h",
            "a=mysql://u:hunter2@h?nosuch=1",
            "ca=postgres://u:hunter2@h",
            "r=redis://hunter2@h",
        ] {
            let failure = one(argument).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(!failure.render().contains("hunter2"), "{}", failure.render());
        }
        let twice = parse(&["a=postgres://h/x".to_owned(), "a=postgres://h/x".to_owned()]).unwrap_err();
        assert!(twice.render().contains("given twice"));
    }
}
