//! Certificates, and the databases they are for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Caller, Problem, blocking};
use crate::actor::Actor;
use crate::serve::Shared;
use crate::{ControlError, IssuedCert, IssuedRoute, RouteRequest, ServerFiles};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/databases", get(databases))
        .route("/certificates/login", post(login))
        .route("/certificates/route", post(route))
        .route("/certificates/database-server", post(database_server))
}

/// Body of `POST /certificates/login`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginBody {
    pub(crate) user: String,
    /// PKCS#10, base64 of DER or PEM.
    pub(crate) csr: String,
    #[serde(default)]
    pub(crate) ttl_seconds: Option<u64>,
}

/// Body of `POST /certificates/route`. The login certificate is in the header.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteBody {
    pub(crate) service: String,
    /// PKCS#10, base64 of DER or PEM.
    pub(crate) csr: String,
    #[serde(default)]
    pub(crate) db_user: Option<String>,
    #[serde(default)]
    pub(crate) db_name: Option<String>,
    #[serde(default)]
    pub(crate) ttl_seconds: Option<u64>,
}

/// Body of `POST /certificates/database-server`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerBody {
    pub(crate) hosts: Vec<String>,
    pub(crate) ttl_seconds: u64,
    /// The server also dials its peers.
    #[serde(default)]
    pub(crate) peer: bool,
}

async fn databases(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let certificate = required(caller.certificate)?;
    let rows = blocking(&shared, move |a| a.list_databases(&certificate)).await?;
    Ok(Json(json!({"items": rows})))
}

async fn login(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Json(body): Json<LoginBody>,
) -> Result<Json<IssuedCert>, Problem> {
    let Actor::Operator { .. } = caller.actor else {
        let why = "only the operator of the server logs in without a password".into();
        return Err(ControlError::Denied { what: "login".into(), why }.into());
    };
    let csr = decode(&body.csr)?;
    let ttl = body.ttl_seconds.map(Duration::from_secs);
    Ok(Json(blocking(&shared, move |a| a.issue_login_for(&caller.actor, &body.user, &csr, ttl)).await?))
}

async fn route(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Json(body): Json<RouteBody>,
) -> Result<Json<IssuedRoute>, Problem> {
    let request = RouteRequest {
        login_cert_der: required(caller.certificate)?,
        csr_der: decode(&body.csr)?,
        service: body.service,
        db_user: body.db_user,
        db_name: body.db_name,
        ttl: body.ttl_seconds.map(Duration::from_secs),
    };
    Ok(Json(blocking(&shared, move |a| a.issue_route(request)).await?))
}

async fn database_server(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Json(body): Json<ServerBody>,
) -> Result<Json<ServerFiles>, Problem> {
    let ttl = Duration::from_secs(body.ttl_seconds);
    Ok(Json(blocking(&shared, move |a| a.sign_database_server(&caller.actor, &body.hosts, ttl, body.peer)).await?))
}

fn required(certificate: Option<Vec<u8>>) -> Result<Vec<u8>, Problem> {
    let missing = || ControlError::Identity { why: "this request needs a login certificate".into() };
    Ok(certificate.ok_or_else(missing)?)
}

fn decode(text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|_| Problem::bad_request("the certificate request is not base64"))
}
