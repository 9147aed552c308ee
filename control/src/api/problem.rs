//! Errors as problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::ControlError;

const PROBLEM_TYPE: &str = "application/problem+json";
/// Longest text taken over from the framework, bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// A problem document (RFC 9457) with the members the command line prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) title: String,
    pub(crate) status: u16,
    /// Exit code of the command line.
    pub(crate) code: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    #[serde(default, rename = "try", skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// Every problem of a set of documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
}

impl Problem {
    fn new(status: StatusCode, code: u8, title: &str) -> Self {
        let (why, hint) = (None, None);
        Self { title: title.into(), status: status.as_u16(), code, why, hint, problems: Vec::new() }
    }

    pub(crate) fn not_found(title: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, 5, title)
    }

    pub(crate) fn internal(title: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 1, title)
    }

    pub(crate) fn bad_request(title: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 2, title)
    }

    pub(crate) fn refused(title: &str, why: &str) -> Self {
        Self { why: Some(why.into()), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, 1, title) }
    }
}

impl From<ControlError> for Problem {
    fn from(e: ControlError) -> Self {
        let status = match (&e, e.code()) {
            (ControlError::Invalid { .. }, _) => StatusCode::UNPROCESSABLE_ENTITY,
            (ControlError::Request { .. }, _) | (_, 2) => StatusCode::BAD_REQUEST,
            (_, 3) => StatusCode::UNAUTHORIZED,
            (_, 4) => StatusCode::FORBIDDEN,
            (_, 5) => StatusCode::NOT_FOUND,
            (_, 6) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(err = %e, "admin request failed");
        }
        let mut problem = Self::new(status, e.code(), &e.to_string());
        problem.why = e.why();
        problem.hint = e.hint();
        if let ControlError::Invalid { problems, .. } = e {
            problem.problems = problems;
        }
        problem
    }
}

/// Gives the framework's own refusals (a body that cannot be read, a wrong method) the form of a problem.
pub(super) async fn of_every_error(response: Response) -> Response {
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == PROBLEM_TYPE);
    if is_problem || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let code = if status.is_client_error() { 2 } else { 1 };
    let mut problem = Problem::new(status, code, status.canonical_reason().unwrap_or("the request failed"));
    problem.why = Some(text).filter(|t| !t.is_empty());
    problem.into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        response
    }
}
