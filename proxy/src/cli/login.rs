//! Credentials for databases: getting them, finding them again, removing exactly what was written.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use ringgate_control::client::AdminClient;
use ringgate_control::identity::CertIdentity;
use ringgate_control::{IssuedRoute, RouteRequest};
use zeroize::Zeroizing;

use super::arguments::RouteArguments;
use super::context::{Context, Login, certificate, refused, unix_now};
use super::facts::{Facts, Protocol};
use super::failure::{Exit, Failure, file};
use crate::profile::{Profile, private_dir, replace};

/// What `db login` writes beside `ca.pem`, the secret ones first so that a cut leaves no half of a pair behind.
const SUFFIXES: [&str; 4] = ["key", "pk8", "pem", "crt"];

/// A route certificate with the key that belongs to it.
pub(crate) struct Route {
    pub(crate) issued: IssuedRoute,
    pub(crate) key: KeyPair,
}

impl Route {
    /// The key as PEM PKCS#8.
    pub(crate) fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }
}

/// Asks for a certificate for one database, over the login's own key.
pub(crate) fn issue(login: &Login, name: &str, route: &RouteArguments) -> Result<Route, Failure> {
    let path = &login.profile.login_key;
    let pem = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| file("read", path, &e))?);
    let wrong = |e: rcgen::Error| Failure::new(Exit::NotLoggedIn, "the login key cannot be used").why(e);
    let key = KeyPair::from_pem(&pem).map_err(wrong)?;
    let request = RouteRequest {
        login_cert_der: login.cert_der.clone(),
        csr_der: request(&key).map_err(wrong)?,
        service: name.to_owned(),
        db_user: route.db_user.clone(),
        db_name: route.db_name.clone(),
        ttl: None,
    };
    let issued = AdminClient::new(&login.profile.admin_socket).issue_route(&request).map_err(refused)?;
    Ok(Route { issued, key })
}

/// A certificate request for `key`, DER. The authority takes nothing from it but the key.
pub(crate) fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).map(|csr| csr.der().to_vec())
}

/// Gets a certificate and writes its files, each replaced atomically.
pub(crate) fn login(context: &Context, login: &Login, name: &str, route: &RouteArguments) -> Result<Facts, Failure> {
    check_name(name)?;
    let route = issue(login, name, route)?;
    let folder = login.profile.keys_dir(&context.home);
    private_dir(&folder).map_err(|e| file("make", &folder, &e))?;
    let key_pem = route.key_pem();
    let both = Zeroizing::new(format!("{}{}", route.issued.cert_pem, key_pem.as_str()));
    let der = Zeroizing::new(route.key.serialize_der());
    let files: [(PathBuf, &[u8]); 5] = [
        (folder.join("ca.pem"), route.issued.ca_pem.as_bytes()),
        (folder.join(format!("{name}.key")), key_pem.as_bytes()),
        (folder.join(format!("{name}.pk8")), &der),
        (folder.join(format!("{name}.pem")), both.as_bytes()),
        (folder.join(format!("{name}.crt")), route.issued.cert_pem.as_bytes()),
    ];
    for (path, content) in files {
        replace(&path, content).map_err(|e| file("write", &path, &e))?;
    }
    stored(&login.profile, &context.home, name)
}

/// The stored login to a database, expired or not.
pub(crate) fn stored(profile: &Profile, home: &Path, name: &str) -> Result<Facts, Failure> {
    check_name(name)?;
    let folder = profile.keys_dir(home);
    let cert = folder.join(format!("{name}.crt"));
    let missing = || {
        Failure::new(Exit::NotLoggedIn, format!("not logged in to database \"{name}\""))
            .attempt(format!("ringgate db login {name} --db-user USER --db-name NAME"))
    };
    let der = certificate(&cert).ok_or_else(missing)?;
    let identity = CertIdentity::from_certificate(&der).map_err(|e| missing().why(e))?;
    let route = identity.route.ok_or_else(missing)?;
    let protocol = Protocol::named(&route.protocol)?;
    let gateway = profile.gateways.get(&route.protocol).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("the gateway has no listener for {}", route.protocol))
            .attempt("add the protocol to `listeners` of the server's configuration")
    })?;
    Ok(Facts {
        name: name.to_owned(),
        protocol,
        host: gateway.host.clone(),
        port: gateway.port,
        user: route.db_user,
        database: route.db_name,
        ca: folder.join("ca.pem"),
        key: folder.join(format!("{name}.key")),
        pk8: folder.join(format!("{name}.pk8")),
        cert,
        not_after_unix: identity.not_after_unix,
    })
}

/// The stored login when it is valid and for this user and database.
pub(crate) fn valid(profile: &Profile, home: &Path, name: &str, route: &RouteArguments) -> Option<Facts> {
    let facts = stored(profile, home, name).ok()?;
    let fits = |asked: &Option<String>, has: &str| asked.as_deref().is_none_or(|asked| asked == has);
    let good = facts.not_after_unix > unix_now()
        && fits(&route.db_user, &facts.user)
        && fits(&route.db_name, &facts.database)
        && facts.key.is_file();
    good.then_some(facts)
}

/// Names of the databases with a stored login, sorted.
pub(crate) fn names(profile: &Profile, home: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(profile.keys_dir(home)) else { return Vec::new() };
    let name = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".crt").map(str::to_owned)
    };
    let mut names: Vec<String> = entries.filter_map(Result::ok).filter_map(name).collect();
    names.sort();
    names
}

/// Removes what was written for `name`, and the CA file with the last login. True when there was something.
pub(crate) fn forget(profile: &Profile, home: &Path, name: &str) -> Result<bool, Failure> {
    check_name(name)?;
    let folder = profile.keys_dir(home);
    let mut found = false;
    for suffix in SUFFIXES {
        found |= remove(&folder.join(format!("{name}.{suffix}")))?;
    }
    if names(profile, home).is_empty() {
        remove(&folder.join("ca.pem"))?;
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<bool, Failure> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(file("remove", path, &e)),
    }
}

/// A database's name is part of file names here.
fn check_name(name: &str) -> Result<(), Failure> {
    let good = !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match name {
        // Its `.pem` would be the CA's file.
        "ca" => Err(Failure::new(Exit::Failed, "a database named \"ca\" has no place for its files")),
        _ if good => Ok(()),
        _ => Err(Failure::new(Exit::NotFound, format!("database \"{name}\" not found"))
            .why("a name has 1 to 63 letters, digits and hyphens")
            .attempt("ringgate db ls")),
    }
}
