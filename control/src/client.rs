//! The command line's side of the admin API: blocking calls over the unix socket.
//!
//! Each call opens a connection of its own and waits at most [`CALL_TIMEOUT`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::UnixStream;

use crate::api::certificates::{LoginBody, RouteBody, ServerBody};
use crate::api::{CERTIFICATE_HEADER, Problem};
use crate::{Applied, CaKind, DatabaseRow, IssuedCert, IssuedRoute, Removed, RouteRequest, ServerFiles};

/// How long a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a call failed, in the three parts the command line prints.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct ClientError {
    /// Exit code of the command line (user-experience 3.3); 8 when the server cannot be reached.
    pub code: u8,
    /// What failed.
    pub what: String,
    /// Why, where known.
    pub why: Option<String>,
    /// The next command to type, where known.
    pub hint: Option<String>,
    /// Every problem of a set of documents.
    pub problems: Vec<String>,
}

/// A client of one admin socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
    certificate: Option<String>,
}

impl AdminClient {
    /// A client that speaks as the local operator. Nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), certificate: None }
    }

    /// The same, acting as the user of a login certificate (DER).
    pub fn with_login(mut self, login_cert_der: &[u8]) -> Self {
        self.certificate = Some(STANDARD.encode(login_cert_der));
        self
    }

    /// Cluster, authority pin and expiries, version: the object of `cluster status`.
    pub fn status(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "status", Body::None)
    }

    /// What the server's data plane says of its version.
    pub fn version(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "version", Body::None)
    }

    /// The live sessions, an array.
    pub fn sessions(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "sessions", Body::None)
    }

    /// Makes the server read its configuration again; what changed.
    pub fn reload(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "reload", Body::None)
    }

    /// Creates the documents of a YAML stream; with `force` updates those that exist.
    pub fn apply(&self, yaml: &str, force: bool) -> Result<Vec<Applied>, ClientError> {
        let answer: Value = self.call(Method::POST, &format!("resources?force={force}"), Body::Text(yaml))?;
        member(answer, "applied")
    }

    /// The documents of a kind (any word the server knows for it), or the one named.
    pub fn get(&self, kind: &str, name: Option<&str>) -> Result<Vec<Value>, ClientError> {
        let path = match name {
            Some(name) => format!("resources/{}/{}", escape(kind), escape(name)),
            None => format!("resources/{}", escape(kind)),
        };
        member(self.call(Method::GET, &path, Body::None)?, "items")
    }

    /// Removes a resource.
    pub fn remove(&self, kind: &str, name: &str) -> Result<Removed, ClientError> {
        self.call(Method::DELETE, &format!("resources/{}/{}", escape(kind), escape(name)), Body::None)
    }

    /// The users whose documents name a role: ask before removing it.
    pub fn holders(&self, role: &str) -> Result<Vec<String>, ClientError> {
        member(self.call(Method::GET, &format!("resources/role/{}/holders", escape(role)), Body::None)?, "holders")
    }

    /// A login certificate for a stored user, for the local operator. `csr` is PKCS#10, DER or PEM.
    pub fn login_self(&self, user: &str, csr: &[u8], ttl: Option<Duration>) -> Result<IssuedCert, ClientError> {
        let body =
            LoginBody { user: user.to_owned(), csr: STANDARD.encode(csr), ttl_seconds: ttl.map(|t| t.as_secs()) };
        let operator = Self { socket: self.socket.clone(), certificate: None };
        operator.call(Method::POST, "certificates/login", Body::Json(json_of(&body)?))
    }

    /// A certificate for one database. The request names the login certificate; this client's own is not used.
    pub fn issue_route(&self, request: &RouteRequest) -> Result<IssuedRoute, ClientError> {
        let body = RouteBody {
            service: request.service.clone(),
            csr: STANDARD.encode(&request.csr_der),
            db_user: request.db_user.clone(),
            db_name: request.db_name.clone(),
            ttl_seconds: request.ttl.map(|t| t.as_secs()),
        };
        let user = self.clone().with_login(&request.login_cert_der);
        user.call(Method::POST, "certificates/route", Body::Json(json_of(&body)?))
    }

    /// The databases the holder of a login certificate (DER) may see.
    pub fn list_databases(&self, login_cert_der: &[u8]) -> Result<Vec<DatabaseRow>, ClientError> {
        let user = self.clone().with_login(login_cert_der);
        member(user.call(Method::GET, "databases", Body::None)?, "items")
    }

    /// Key, certificate and client authority for a self-hosted database; with `peer` for one that also dials others of
    /// its kind over TLS.
    pub fn sign_database_server(
        &self,
        hosts: &[String],
        ttl: Duration,
        peer: bool,
    ) -> Result<ServerFiles, ClientError> {
        let body = ServerBody { hosts: hosts.to_vec(), ttl_seconds: ttl.as_secs(), peer };
        self.call(Method::POST, "certificates/database-server", Body::Json(json_of(&body)?))
    }

    /// The certificates of one authority, PEM.
    pub fn trust_pem(&self, ca: CaKind) -> Result<String, ClientError> {
        member(self.call(Method::GET, &format!("authorities/{ca}"), Body::None)?, "pem")
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body<'_>) -> Result<T, ClientError> {
        let (kind, bytes) = match body {
            Body::None => (None, Bytes::new()),
            Body::Text(text) => (Some("application/yaml"), Bytes::copy_from_slice(text.as_bytes())),
            Body::Json(json) => (Some("application/json"), Bytes::from(json)),
        };
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1/{path}")).header(header::HOST, "localhost");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(certificate) = &self.certificate {
            request = request.header(CERTIFICATE_HEADER, certificate);
        }
        let request = request.body(Full::new(bytes)).map_err(|e| failed("the request cannot be made", e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed("the client cannot start", e))?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(CALL_TIMEOUT, self.exchange(request)).await.unwrap_or_else(|_| Err(self.too_slow()))
        });
        let (status, bytes) = answer?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| failed("the server's answer cannot be read", e));
        }
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(p) => ClientError { code: p.code, what: p.title, why: p.why, hint: p.hint, problems: p.problems },
            Err(_) => ClientError {
                code: if status.is_client_error() { 2 } else { 1 },
                what: format!("the server refused the request: {status}"),
                why: Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|why| !why.is_empty()),
                hint: None,
                problems: Vec::new(),
            },
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed("the server cannot be spoken to", e))?;
        // It ends with the sender; what went wrong on it comes out of the request below.
        tokio::spawn(async move { drop(connection.await) });
        let answer = sender.send_request(request).await.map_err(|e| failed("the server closed the connection", e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|e| failed("the server's answer was cut", e))?;
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, e: &std::io::Error) -> ClientError {
        let denied = e.kind() == std::io::ErrorKind::PermissionDenied;
        let hint = if denied { "run this as the user that runs the server, or as root" } else { "ringgate server" };
        ClientError {
            code: 8,
            what: "cannot reach the server".into(),
            why: Some(format!("{}: {e}", self.socket.display())),
            hint: Some(hint.into()),
            problems: Vec::new(),
        }
    }

    fn too_slow(&self) -> ClientError {
        ClientError {
            code: 9,
            what: "the server did not answer".into(),
            why: Some(format!("no answer on {} within {} s", self.socket.display(), CALL_TIMEOUT.as_secs())),
            hint: None,
            problems: Vec::new(),
        }
    }
}

enum Body<'a> {
    None,
    Text(&'a str),
    Json(Vec<u8>),
}

fn failed(what: &str, why: impl std::fmt::Display) -> ClientError {
    ClientError { code: 8, what: what.into(), why: Some(why.to_string()), hint: None, problems: Vec::new() }
}

fn json_of(body: &impl serde::Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|e| failed("the request cannot be made", e))
}

fn member<T: DeserializeOwned>(mut answer: Value, name: &str) -> Result<T, ClientError> {
    serde_json::from_value(answer.get_mut(name).map_or(json!(null), Value::take))
        .map_err(|e| failed("the server's answer cannot be read", e))
}

/// Percent-escapes one path segment.
fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            crate::hex::push(&mut escaped, &[byte]);
        }
    }
    escaped
}
