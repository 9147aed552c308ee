//! Roles, users and databases.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use ringgate_policy::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Caller, Problem, blocking};
use crate::Removed;
use crate::serve::Shared;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/resources", post(apply))
        .route("/resources/{kind}", get(list))
        .route("/resources/{kind}/{name}", get(read).delete(remove))
        .route("/resources/role/{name}/holders", get(holders))
}

#[derive(Deserialize)]
struct ApplyQuery {
    #[serde(default)]
    force: bool,
}

async fn apply(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ApplyQuery>,
    caller: Caller,
    yaml: String,
) -> Result<Json<Value>, Problem> {
    let applied = blocking(&shared, move |a| a.apply(&caller.actor, &yaml, query.force)).await?;
    Ok(Json(json!({"applied": applied})))
}

async fn list(
    State(shared): State<Arc<Shared>>,
    Path(kind): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let kind = parse_kind(&kind)?;
    let items = blocking(&shared, move |a| {
        a.permit(&caller.actor, kind.as_str(), "list")?;
        a.permit(&caller.actor, kind.as_str(), "read")?;
        a.get(kind, None)
    })
    .await?;
    Ok(Json(json!({"items": items})))
}

async fn read(
    State(shared): State<Arc<Shared>>,
    Path((kind, name)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let kind = parse_kind(&kind)?;
    let items = blocking(&shared, move |a| {
        a.permit(&caller.actor, kind.as_str(), "read")?;
        a.get(kind, Some(&name))
    })
    .await?;
    Ok(Json(json!({"items": items})))
}

async fn remove(
    State(shared): State<Arc<Shared>>,
    Path((kind, name)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<Removed>, Problem> {
    let kind = parse_kind(&kind)?;
    Ok(Json(blocking(&shared, move |a| a.remove(&caller.actor, kind, &name)).await?))
}

async fn holders(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let holders = blocking(&shared, move |a| {
        a.permit(&caller.actor, Kind::User.as_str(), "list")?;
        Ok(a.holders(&name))
    })
    .await?;
    Ok(Json(json!({"holders": holders})))
}

fn parse_kind(word: &str) -> Result<Kind, Problem> {
    word.parse::<Kind>().map_err(|e| Problem::bad_request(&e.to_string()))
}
