//! Reaches a database, verifies it and signs in.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringgate_policy::{AuthMethod, Database, DatabaseMode, Permit, TlsMode};
use ringgate_protocol::{
    BackendTls, Credential, DirectTls, Login, LoginError, LoginStep, Protocol, RefusalKind, SignIn,
};

use super::cluster::{self, ClusterError};
use super::prepare::{PrepareError, Prepared};
use crate::net::stream::Stream;
use crate::net::within;
use crate::session::cancel::Route;
use crate::session::link::{Link, LinkError};
use crate::tls::Tls;
use crate::worker::Core;

/// Why the database was not reached. The text is for operators and the audit; [`ConnectError::for_client`] is
/// what a client may read.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// What the connection needs could not be made.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// No address answered.
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// The last one tried.
        address: String,
        /// The socket's words.
        why: String,
    },
    /// TLS or the connection failed during the login.
    #[error("login to the database: {0}")]
    Link(#[from] LinkError),
    /// The database refused us, or is not what it should be.
    #[error("login to the database: {}: {}", .0.fault.what, .0.text)]
    Login(LoginError),
    /// A cluster's router could not be started.
    #[error("cluster: {0}")]
    Cluster(#[from] ClusterError),
    /// The database sent bytes behind its answer to the TLS request.
    #[error("the database sent bytes before TLS")]
    Stuffed,
}

impl ConnectError {
    /// The class of the refusal.
    pub fn kind(&self) -> RefusalKind {
        match self {
            ConnectError::Prepare(PrepareError::Stopped) => RefusalKind::CannotConnectNow,
            _ => RefusalKind::Unreachable,
        }
    }

    /// What the client is told: never the inner address.
    pub fn for_client(&self, database: &str) -> String {
        let why = match self {
            ConnectError::Prepare(PrepareError::Address { .. }) => "its address cannot be resolved",
            ConnectError::Prepare(PrepareError::Secret { .. }) => {
                "the gateway has no usable secret for this database user"
            }
            ConnectError::Prepare(PrepareError::Tls(_)) | ConnectError::Link(LinkError::Tls(_)) => {
                "TLS towards it cannot be established"
            }
            ConnectError::Prepare(PrepareError::Stopped) => "the gateway is shutting down",
            ConnectError::Unreachable { .. } | ConnectError::Link(_) => "it cannot be reached",
            ConnectError::Login(_) => "it refused the gateway's login",
            ConnectError::Cluster(_) => "it is registered as a cluster and does not answer as one",
            ConnectError::Stuffed => "it broke the protocol",
        };
        format!("database \"{database}\" is not available: {why}")
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            ConnectError::Prepare(PrepareError::Secret { .. }) => "the operator registers one under spec.auth.secrets",
            ConnectError::Login(_) => "the operator finds the database's answer in the audit log",
            _ => "try again later; the operator finds the cause in the audit log",
        }
    }

    /// The database's own error, to be mirrored.
    pub fn into_frame(self) -> Option<Vec<u8>> {
        match self {
            ConnectError::Login(error) => Some(error.frame).filter(|frame| !frame.is_empty()),
            _ => None,
        }
    }
}

/// Where the client reached us: what a cluster of one node calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The port it came to.
    pub port: u16,
    /// It came with TLS.
    pub tls: bool,
}

/// What is connected to, and as whom.
#[derive(Clone)]
pub(super) struct Target {
    /// The database.
    pub(super) database: Arc<Database>,
    /// Database user.
    pub(super) db_user: Rc<str>,
    /// Database name.
    pub(super) db_name: Rc<str>,
}

/// A connection that is signed in.
pub(super) type Reached<P> = (<P as Protocol>::Login, Link, Route);

/// A backend connection for `permit`, signed in, with what the login learned and the way for cancels. For a cluster
/// it leads to a router over the nodes.
pub async fn connect<P: Protocol>(
    core: &Rc<Core>,
    opening: &P::Opening,
    permit: &Permit,
    endpoint: Endpoint,
) -> Result<(P::Login, Link, Route), ConnectError> {
    let target = Target {
        database: permit.database().clone(),
        db_user: permit.db_user().into(),
        db_name: permit.db_name().into(),
    };
    match permit.database().mode {
        DatabaseMode::Standalone => reach::<P>(core, opening, &target, None).await,
        DatabaseMode::Cluster => cluster::connect::<P>(core, opening, target, endpoint).await,
    }
}

/// Connects to the database, or to `node` (`host:port`) of it, and signs in.
pub(super) async fn reach<P: Protocol>(
    core: &Rc<Core>,
    opening: &P::Opening,
    target: &Target,
    node: Option<String>,
) -> Result<Reached<P>, ConnectError> {
    let database = &target.database;
    let deadline = Instant::now() + database.limits.connect_timeout;
    // Names and secrets may come from servers that do not answer: the limit covers them too.
    let prepare = core.prepare(database.clone(), &target.db_user, node);
    let prepared = within(database.limits.connect_timeout, prepare).await.ok_or(LinkError::TimedOut)??;
    let mut failure = ConnectError::Unreachable { address: database.uri.clone(), why: "no address".into() };
    for address in &prepared.addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        match Stream::connect(address, left).await {
            Ok(stream) => {
                let route = Route {
                    address: address.clone(),
                    tls: prepared.tls.clone(),
                    write: P::cancel,
                    tls_request: P::TLS_REQUEST,
                };
                let mut link = Link::new(stream, &core.pool, deadline);
                let login =
                    sign_in::<P>(core, &mut link, opening, target, &prepared).await.map_err(|error| match error {
                        // A peer whose certificate was not checked may be anybody: its words are not passed on.
                        ConnectError::Login(mut login) if database.tls.mode == TlsMode::Insecure => {
                            login.frame.clear();
                            ConnectError::Login(login)
                        }
                        error => error,
                    })?;
                return Ok((login, link, route));
            }
            Err(error) => {
                failure = ConnectError::Unreachable { address: address.to_string(), why: error.to_string() };
            }
        }
    }
    Err(failure)
}

async fn sign_in<P: Protocol>(
    core: &Core,
    link: &mut Link,
    opening: &P::Opening,
    target: &Target,
    prepared: &Prepared,
) -> Result<P::Login, ConnectError> {
    let credential = match &prepared.secret {
        None if target.database.auth.method == AuthMethod::Passthrough => Credential::Passthrough,
        None => Credential::None,
        Some(secret) if prepared.scram_only => Credential::Scram(Rc::from(secret.as_str())),
        Some(secret) => Credential::Password(Rc::from(secret.as_str())),
    };
    let tls = match (&prepared.tls, target.database.tls.mode) {
        (None, _) => BackendTls::Off,
        (Some(_), TlsMode::Insecure) => BackendTls::Unverified,
        (Some(_), _) => BackendTls::Required,
    };
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| PrepareError::Tls("no randomness".into()))?;
    let (user, database) = (&*target.db_user, &*target.db_name);
    if let (Some((config, name)), DirectTls::Plain) = (&prepared.tls, P::DIRECT_TLS) {
        // The protocol has no word for TLS: the server speaks nothing else on its port.
        let tls = Tls::client(config.clone(), name.clone()).map_err(LinkError::Tls)?;
        link.start_tls(tls, None).await?;
    }
    let known = core.plane.learned.of::<P>(&target.database);
    let before = known.clone();
    let mut login = P::login(opening, SignIn { user, database, tls, credential, seed, learned: known });
    let mut out = Vec::new();
    login.start(&mut out);
    loop {
        if !out.is_empty() {
            link.send(&out).await?;
            out.clear();
        }
        let step = if link.plain.is_empty() {
            LoginStep::Need { need: 1 }
        } else {
            login.handle(link.plain.filled(), &mut out).map_err(|error| {
                keep::<P>(core, target, &login, before.as_ref());
                ConnectError::Login(error)
            })?
        };
        match step {
            LoginStep::Need { need } => link.fill(need).await?,
            LoginStep::Consumed { len } => link.plain.consume(len),
            LoginStep::Ready { len } => {
                link.plain.consume(len);
                if !out.is_empty() {
                    link.send(&out).await?;
                }
                keep::<P>(core, target, &login, before.as_ref());
                return Ok(login);
            }
            LoginStep::StartTls { len } => {
                if link.plain.len() > len {
                    return Err(ConnectError::Stuffed);
                }
                link.plain.consume(len);
                if !out.is_empty() {
                    link.send(&out).await?;
                    out.clear();
                }
                let Some((config, name)) = &prepared.tls else { return Err(ConnectError::Stuffed) };
                let tls = Tls::client(config.clone(), name.clone()).map_err(LinkError::Tls)?;
                link.start_tls(tls, None).await?;
                login.tls_started(&mut out);
            }
        }
    }
}

/// Keeps what the login has found out, also when it then failed: a greeting made of it asks for less.
fn keep<P: Protocol>(core: &Core, target: &Target, login: &P::Login, before: Option<&Arc<P::Learned>>) {
    if let Some(learned) = P::learned(login)
        && !before.is_some_and(|before| Arc::ptr_eq(before, &learned))
    {
        core.plane.learned.keep::<P>(&target.database, learned);
    }
}
