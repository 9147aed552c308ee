//! The admin API: HTTP and JSON under `/api/v1` on a unix socket.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /status` | cluster, authority pin and expiries, version of the server |
//! | `GET /version`, `GET /sessions` | what the data plane says |
//! | `POST /reload` | the configuration is read again; what changed |
//! | `POST /resources?force=BOOL` with YAML | `{"applied":[...]}` |
//! | `GET /resources/KIND`, `GET /resources/KIND/NAME` | `{"items":[...]}` |
//! | `DELETE /resources/KIND/NAME` | what was removed, and who still names it |
//! | `GET /resources/role/NAME/holders` | `{"holders":[...]}` |
//! | `POST /certificates/login` | a login certificate; for the operator only |
//! | `POST /certificates/route` | a certificate for one database |
//! | `POST /certificates/database-server` | key and certificate for a database |
//! | `GET /databases` | the databases the caller may see |
//! | `GET /authorities/KIND` | `{"pem":"..."}` |
//!
//! **Who asks.** Only processes of the server's own uid and of root are served, as the kernel names them. Such a
//! process is the local operator and may do everything: it could read the store as well. With the header
//! `x-ringgate-certificate` (a login certificate, base64 of DER) it acts as that user instead, with the rights of
//! the user's roles and under the user's name in the audit log.
//!
//! Errors are problem documents (RFC 9457) whose `code` is the exit code of the command line, with `why` and
//! `try` where known.

pub(crate) mod certificates;
mod problem;
mod resources;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::actor::{Actor, record};
use crate::listen::Peer;
use crate::serve::Shared;
use crate::{Authority, CaKind, ControlError};

pub(crate) use problem::Problem;

/// The header with the login certificate of the user to act as.
pub(crate) const CERTIFICATE_HEADER: &str = "x-ringgate-certificate";
/// Longest request body, bytes: as much as the largest set of documents.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The routes of the admin socket. The listener adds the [`Peer`].
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/version", get(|State(s): State<Arc<Shared>>| async move { Json(s.plane.version()) }))
        .route("/sessions", get(sessions))
        .route("/reload", post(reload))
        .route("/authorities/{kind}", get(authority))
        .merge(resources::routes())
        .merge(certificates::routes());
    Router::new()
        .nest("/api/v1", v1)
        .fallback(|| async { Problem::not_found("no such path") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(problem::of_every_error))
        .layer(middleware::from_fn_with_state(shared.clone(), check_peer))
        .with_state(shared)
}

/// Serves our own uid and root alone.
async fn check_peer(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if is_operator(peer.uid, rustix::process::geteuid().as_raw()) {
        return next.run(request).await;
    }
    let why = format!("uid {} is neither root nor the server's", peer.uid);
    let fields = json!({"success": false, "error": why, "uid": peer.uid});
    record(shared.authority.audit(), "auth", "T3007W", &Actor::System, fields);
    Problem::from(ControlError::Denied { what: "the admin socket".into(), why }).into_response()
}

fn is_operator(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == own_uid || peer_uid == 0
}

/// Who asks, as a handler's argument.
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    /// The certificate of the header, DER.
    pub(crate) certificate: Option<Vec<u8>>,
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let Some(header) = parts.headers.get(CERTIFICATE_HEADER) else {
            let uid = parts.extensions.get::<Peer>().map_or(u32::MAX, |peer| peer.uid);
            return Ok(Self { actor: Actor::Operator { uid }, certificate: None });
        };
        let der = STANDARD
            .decode(header)
            .map_err(|_| ControlError::Identity { why: "the certificate header is not base64".into() })?;
        let identity = shared.authority.verify_login(&der)?;
        Ok(Self { actor: Actor::User(Box::new(identity)), certificate: Some(der) })
    }
}

/// Runs store work off the control thread's event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Authority) -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Problem> {
    let authority = shared.authority.clone();
    match tokio::task::spawn_blocking(move || work(&authority)).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Problem::internal("the request failed inside the server")),
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let authority = &shared.authority;
    let expiries: Vec<Value> = authority
        .ca_expiries()
        .into_iter()
        .map(|(kind, unix)| json!({"kind": kind.as_str(), "not_after_unix": unix}))
        .collect();
    Json(json!({
        "cluster": authority.cluster_name(),
        "ca_pin": authority.ca_pin(),
        "authorities": expiries,
        "draining": shared.is_draining(),
        "version": shared.plane.version(),
    }))
}

async fn sessions(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, Problem> {
    shared.authority.permit(&caller.actor, "session", "list")?;
    Ok(Json(shared.plane.sessions()))
}

async fn reload(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, Problem> {
    shared.authority.permit(&caller.actor, "cluster_config", "update")?;
    let outcome = tokio::task::spawn_blocking(move || shared.reload(&caller.actor)).await;
    match outcome {
        Ok(Ok(changes)) => Ok(Json(changes)),
        Ok(Err(why)) => Err(Problem::refused("the configuration was not reloaded", &why)),
        Err(_) => Err(Problem::internal("the configuration was not reloaded")),
    }
}

async fn authority(
    State(shared): State<Arc<Shared>>,
    axum::extract::Path(kind): axum::extract::Path<String>,
) -> Result<Json<Value>, Problem> {
    let kind =
        CaKind::parse(&kind).ok_or_else(|| Problem::not_found("the authorities are user, host, db, db_client"))?;
    Ok(Json(json!({"kind": kind.as_str(), "pem": shared.authority.trust_pem(kind)})))
}

#[cfg(test)]
mod tests {
    use super::is_operator;

    #[test]
    fn only_root_and_the_servers_own_uid_are_operators() {
        for (peer, own, served) in
            [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1001, 1000, false), (1000, 0, false)]
        {
            assert_eq!(is_operator(peer, own), served, "peer {peer}, server {own}");
        }
        assert!(!is_operator(u32::MAX, 1000));
    }
}
