//! What is answered: the routes of the console and their bodies.
//!
//! Every answer is built from the state at that moment; nothing is kept between requests and nothing of a request is
//! repeated in its answer. Refusals and faults have constant bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use super::guard::{Entry, Guard};
use super::page::Page;
use super::{ActionError, ConsoleState};
use crate::telemetry::metrics::CONTENT_TYPE;

/// The largest body of an action: its parameters are a few names and filters.
const BODY_BYTES: usize = 64 * 1024;

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Everything a handler needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: ConsoleState,
    pub(super) guard: Guard,
    pub(super) page: Page,
}

/// All routes, behind the guard.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(async || json_reply(StatusCode::OK, &json!({"alive": true}))))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/{action}", post(act).get(list))
        .route("/api/{action}/{id}/{verb}", post(act_on_one))
        .fallback(async || refusal(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || refusal(StatusCode::METHOD_NOT_ALLOWED))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), enter))
        .with_state(shared)
}

/// A reply that tells the status and nothing else.
pub(super) fn refusal(status: StatusCode) -> Response {
    let text = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
    json_reply(status, &json!({ "error": text }))
}

async fn enter(
    State(shared): State<Arc<Shared>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let entry = shared.guard.judge(peer.ip(), request.uri(), request.headers(), Instant::now());
    let mut response = match entry {
        Entry::Granted => next.run(request).await,
        Entry::Refused(StatusCode::UNAUTHORIZED)
            if shared.guard.has_token() && is_a_person_at_the_door(&request) =>
        {
            (StatusCode::UNAUTHORIZED, shared.page.reply()).into_response()
        }
        Entry::Refused(status) => refusal(status),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    harden(response.headers_mut());
    response
}

/// A browser cannot send a token with its first request. It gets the page, which holds no data and asks for the token.
fn is_a_person_at_the_door(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    request.method() == Method::GET
        && request.uri().path() == "/"
        && !request.headers().contains_key(header::AUTHORIZATION)
        && accepts.starts_with(b"text/html")
}

fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

async fn page(State(shared): State<Arc<Shared>>) -> Response {
    shared.page.reply()
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let waiting_for = shared.state.readiness.waiting_for();
    let status = if waiting_for.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_reply(status, &json!({"ready": waiting_for.is_empty(), "waiting_for": waiting_for}))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.state.metrics.encode()).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    json_reply(StatusCode::OK, &(shared.state.status)())
}

async fn act(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    carry_out(&shared, &name, None, &headers, &body).await
}

async fn act_on_one(
    State(shared): State<Arc<Shared>>,
    Path((name, id, verb)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    carry_out(&shared, &format!("{name}/{verb}"), Some(id), &headers, &body).await
}

async fn list(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match shared.state.actions.get(format!("{name}/list").as_str()) {
        Some(action) => answer((action.run)(Value::Null).await),
        None if shared.state.actions.contains_key(name.as_str()) => refusal(StatusCode::METHOD_NOT_ALLOWED),
        None => refusal(StatusCode::NOT_FOUND),
    }
}

/// Runs an action with the body; an id of the path goes into it.
async fn carry_out(
    shared: &Shared,
    name: &str,
    id: Option<String>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Response {
    let Some(action) = shared.state.actions.get(name) else {
        return refusal(StatusCode::NOT_FOUND);
    };
    if !is_json(headers) {
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let Ok(mut body) = serde_json::from_slice::<Value>(body) else {
        return json_reply(StatusCode::BAD_REQUEST, &json!({"error": "the body is not JSON"}));
    };
    match (&mut body, id) {
        (_, None) => {}
        (Value::Object(fields), Some(id)) => drop(fields.insert("id".to_owned(), Value::from(id))),
        (_, Some(_)) => {
            let error = json!({"error": "the body is not a JSON object; {} will do"});
            return json_reply(StatusCode::BAD_REQUEST, &error);
        }
    }
    answer((action.run)(body).await)
}

fn answer(result: Result<Value, ActionError>) -> Response {
    match result {
        Ok(reply) => json_reply(StatusCode::OK, &reply),
        Err(ActionError::Refused(why)) => {
            json_reply(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": why }))
        }
        Err(ActionError::Wrong(why)) => json_reply(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Err(ActionError::Failed(why)) => {
            json_reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": why }))
        }
    }
}

/// A form cannot send this type, so a page of another site cannot send an action without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn json_reply(status: StatusCode, body: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], format!("{body}\n")).into_response()
}
