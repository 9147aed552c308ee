//! What a backend connection needs and a worker must not wait for: name resolution, secrets, certificates. One
//! thread makes them; the answer comes through the worker's inbox.

use std::collections::HashMap;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringgate_control::{CaKind, secret};
use ringgate_policy::{AuthMethod, Database, DatabaseProtocol, TlsMode};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use zeroize::Zeroizing;

use crate::net::stream::Address;
use crate::plane::{Command, Plane};
use crate::tls::config::{self, Check};

/// How long a backend client certificate is valid; it is renewed at half of that.
const CERTIFICATE_TTL: Duration = Duration::from_secs(3600);

/// What a worker asks for.
pub struct Job {
    /// Whom to answer.
    pub worker: usize,
    /// Which of its waiting sessions.
    pub ticket: u64,
    /// The database.
    pub database: Arc<Database>,
    /// As whom.
    pub db_user: String,
}

/// Everything a backend connection needs.
#[derive(Clone)]
pub struct Prepared {
    /// To be tried in order.
    pub addresses: Vec<Address>,
    /// TLS towards the database.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The secret, if one is used.
    pub secret: Option<Zeroizing<String>>,
    /// Only SCRAM may be used with it.
    pub scram_only: bool,
}

/// Why it could not be made. The text is for operators and the audit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrepareError {
    /// The address cannot be read or resolved.
    #[error("cannot resolve `{uri}`: {why}")]
    Address {
        /// As registered.
        uri: String,
        /// The resolver's words.
        why: String,
    },
    /// No secret for this user, or it cannot be read.
    #[error("secret for database user `{user}`: {why}")]
    Secret {
        /// Database user.
        user: String,
        /// What is wrong with it, never what it is.
        why: String,
    },
    /// Certificates or trust.
    #[error("TLS towards the database: {0}")]
    Tls(String),
    /// The process is ending.
    #[error("the gateway is shutting down")]
    Stopped,
}

struct Issued {
    config: Arc<ClientConfig>,
    until: Instant,
    database: Arc<Database>,
}

/// Serves jobs until the senders are gone.
pub fn run(plane: &Arc<Plane>, jobs: &mpsc::Receiver<Job>) {
    let mut issued: HashMap<(String, String), Issued> = HashMap::new();
    while let Ok(job) = jobs.recv() {
        let result = prepare(plane, &mut issued, &job);
        plane.gate(job.worker).tell(Command::Prepared { ticket: job.ticket, result });
    }
}

fn prepare(plane: &Plane, issued: &mut HashMap<(String, String), Issued>, job: &Job) -> Result<Prepared, PrepareError> {
    let Job { database, db_user, .. } = job;
    let (addresses, host) = resolve(&database.uri)?;
    let tls = match database.tls.mode {
        TlsMode::Off => None,
        _ => {
            let name = database.tls.server_name.clone().unwrap_or(host);
            let name = ServerName::try_from(name).map_err(|e| PrepareError::Tls(e.to_string()))?;
            Some((client_config(plane, issued, database, db_user)?, name))
        }
    };
    let method = database.auth.method;
    let secret = match method {
        // A certificate does not say to Redis who the user is: without a password everybody is `default`.
        AuthMethod::Mtls | AuthMethod::None if is_redis(database) && db_user != "default" => {
            Some(secret_for(database, db_user)?)
        }
        AuthMethod::Mtls if is_redis(database) && database.auth.secret(db_user).is_some() => {
            Some(secret_for(database, db_user)?)
        }
        AuthMethod::Password | AuthMethod::Scram => Some(secret_for(database, db_user)?),
        AuthMethod::Mtls | AuthMethod::Passthrough | AuthMethod::None => None,
    };
    Ok(Prepared { addresses, tls, secret, scram_only: method == AuthMethod::Scram })
}

fn is_redis(database: &Database) -> bool {
    database.protocol == DatabaseProtocol::Redis
}

fn secret_for(database: &Database, user: &str) -> Result<Zeroizing<String>, PrepareError> {
    let secrets = &database.auth.secrets;
    let failed = |why: String| PrepareError::Secret { user: user.to_owned(), why };
    let reference = secrets
        .get(user)
        .or_else(|| secrets.get("*"))
        .ok_or_else(|| failed("none is registered for it (spec.auth.secrets)".into()))?;
    secret::resolve(reference).map_err(|e| failed(e.to_string()))
}

/// The configuration for this database and user, with a fresh client certificate where one is used.
fn client_config(
    plane: &Plane,
    issued: &mut HashMap<(String, String), Issued>,
    database: &Arc<Database>,
    db_user: &str,
) -> Result<Arc<ClientConfig>, PrepareError> {
    let key = (database.name.clone(), db_user.to_owned());
    if let Some(found) = issued.get(&key)
        && found.until > Instant::now()
        && Arc::ptr_eq(&found.database, database)
    {
        return Ok(found.config.clone());
    }
    let failed = |e: &dyn std::fmt::Display| PrepareError::Tls(e.to_string());
    let identity = match database.auth.method {
        // A Redis that asks for certificates asks for them beside the password.
        method if method == AuthMethod::Mtls || is_redis(database) => {
            let made = plane.authority.backend_client_certificate(db_user, CERTIFICATE_TTL);
            Some(made.map_err(|e| failed(&e))?)
        }
        _ => None,
    };
    let check = match database.tls.mode {
        TlsMode::VerifyFull => Check::Full,
        TlsMode::VerifyCa => Check::Ca,
        TlsMode::Insecure | TlsMode::Off => Check::Nothing,
    };
    let trusted = trusted(plane, database)?;
    let config = Arc::new(config::client(check, &trusted, identity, None).map_err(|e| failed(&e))?);
    issued.retain(|_, i| i.until > Instant::now());
    let until = Instant::now() + CERTIFICATE_TTL / 2;
    issued.insert(key, Issued { config: config.clone(), until, database: database.clone() });
    Ok(config)
}

/// Whom to trust for this database: the given CA, else our own `db` CA; the system's in addition where asked.
fn trusted(plane: &Plane, database: &Database) -> Result<Vec<CertificateDer<'static>>, PrepareError> {
    let failed = |e: String| PrepareError::Tls(e);
    let pem = match (&database.tls.ca_cert, &database.tls.ca_cert_file) {
        (Some(pem), _) => Some(pem.clone().into_bytes()),
        (None, Some(path)) => {
            Some(std::fs::read(path).map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?)
        }
        (None, None) => None,
    };
    let mut roots = match pem {
        Some(pem) => {
            CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| failed(e.to_string()))?
        }
        None => plane.authority.trust(CaKind::Db),
    };
    if database.tls.trust_system_cert_pool {
        let path = std::env::var_os("SSL_CERT_FILE").map_or_else(|| PathBuf::from(SYSTEM_POOL), PathBuf::from);
        let pem = std::fs::read(&path).map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?;
        // A pool may hold certificates that webpki does not take; the others still count.
        roots.extend(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    }
    Ok(roots)
}

const SYSTEM_POOL: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The addresses of `host:port` or of a Unix socket path, and the host's name.
fn resolve(uri: &str) -> Result<(Vec<Address>, String), PrepareError> {
    if uri.starts_with('/') {
        return Ok((vec![Address::Unix(PathBuf::from(uri))], "localhost".to_owned()));
    }
    let failed = |why: String| PrepareError::Address { uri: uri.to_owned(), why };
    let host = uri.rsplit_once(':').map_or(uri, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let addresses: Vec<_> = uri.to_socket_addrs().map_err(|e| failed(e.to_string()))?.map(Address::Tcp).collect();
    if addresses.is_empty() {
        return Err(failed("no address".into()));
    }
    Ok((addresses, host))
}
