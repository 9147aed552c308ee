//! The diagnostic listener: health, readiness, metrics, version. Read-only and without credentials.
//!
//! A request must name its host by address or as `localhost`: a page in a browser that rebinds its own name to
//! this address is refused.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Authority;
use crate::serve::Shared;

/// The routes of the diagnostic listener.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(|State(shared): State<Arc<Shared>>| async move { Json(shared.plane.version()) }))
        .with_state(shared)
        .layer(middleware::from_fn(check_host))
}

async fn check_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if is_own_host(host) {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, "name this host by its address or as localhost\n").into_response()
    }
}

/// `localhost` or an address, each with or without a port.
fn is_own_host(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => return v6.parse::<IpAddr>().is_ok(),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.plane.healthy() {
        Ok(()) => Json(json!({"status": "ok"})).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "failed", "why": why}))).into_response(),
    }
}

#[derive(Deserialize)]
struct ReadyQuery {
    verbose: Option<String>,
    exclude: Option<String>,
}

async fn readyz(State(shared): State<Arc<Shared>>, Query(query): Query<ReadyQuery>) -> Response {
    let mut checks = shared.plane.ready();
    let authority = shared.authority.clone();
    let store = tokio::task::spawn_blocking(move || authority.check_store()).await;
    checks.push(("store", store.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()))));
    checks.push(("draining", if shared.is_draining() { Err("the server is shutting down".into()) } else { Ok(()) }));
    let excluded: Vec<&str> = query.exclude.as_deref().unwrap_or_default().split(',').collect();
    checks.retain(|(name, _)| !excluded.contains(name));

    let ready = checks.iter().all(|(_, outcome)| outcome.is_ok());
    let verbose = query.verbose.is_some();
    let shown: Map<String, Value> = checks
        .into_iter()
        .filter(|(_, outcome)| verbose || outcome.is_err())
        .map(|(name, outcome)| (name.into(), outcome.map_or_else(Value::from, |()| "ok".into())))
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ready { "ok" } else { "not ready" };
    let body = if shown.is_empty() { json!({"status": word}) } else { json!({"status": word, "checks": shown}) };
    (status, Json(body)).into_response()
}

/// The data plane's page behind the control plane's own lines. A page that ends with the OpenMetrics mark is
/// OpenMetrics.
async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let plane = shared.plane.metrics();
    let kind = if plane.trim_end().ends_with("# EOF") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(header::CONTENT_TYPE, kind)], expiry_lines(&shared.authority) + &plane).into_response()
}

fn expiry_lines(authority: &Authority) -> String {
    let mut lines = String::from(
        "# HELP ringgate_ca_expiry_timestamp_seconds When the certificate of an authority ends.\n\
         # TYPE ringgate_ca_expiry_timestamp_seconds gauge\n",
    );
    for (kind, unix) in authority.ca_expiries() {
        lines.push_str(&format!("ringgate_ca_expiry_timestamp_seconds{{ca=\"{kind}\"}} {unix}\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::is_own_host;

    #[test]
    fn refuses_hosts_that_are_names() {
        for host in ["localhost", "LOCALHOST:3000", "127.0.0.1", "127.0.0.1:3000", "[::1]:3000", "10.0.0.7:3000"] {
            assert!(is_own_host(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:3000", "127.0.0.1.evil.example", "[evil]", "::1"] {
            assert!(!is_own_host(host), "{host}");
        }
    }
}
