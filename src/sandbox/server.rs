//! The listener: connections, the order in which a request meets token, quota, faults and handler, and the answer.
//!
//! A connection that a fault cuts is dropped by refusing to answer: hyper then closes the socket. Bodies and
//! connections are bounded. A broken request ends its own connection and nothing else.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::control;
use super::core::Core;
use super::faults::Fate;
use super::history;
use super::limits::Standing;
use super::query::Query;
use super::reply::Reply;
use super::resources::{self, Call, Found};

/// Largest request body.
const BODY_MAX: usize = 8 * 1024 * 1024;
/// Connections served at a time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// What `X-Retry-After` says at least.
const RETRY_AFTER_MIN_S: u64 = 1;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// The connection is to be dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
pub(crate) struct Cut;

/// Accepts connections until `stop`.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _unimportant = stream.set_nodelay(true);
        let (core, stop) = (Arc::clone(&core), stop.clone());
        crate::runtime::spawn("sandbox-connection", async move {
            let service = service_fn(move |request| answer(Arc::clone(&core), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let _cut_or_closed = stop.run_until_cancelled(connection).await;
            drop(slot);
        });
    }
}

async fn answer(core: Arc<Core>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(plain(&Reply::plain(413, "The body is too large or was cut off."))),
    };
    let path = head.uri.path();
    if path == "/_sandbox" || path.starts_with("/_sandbox/") {
        let reply =
            control::answer(&core, head.method.as_str(), path, head.uri.query().unwrap_or(""), &body).await;
        return Ok(plain(&reply));
    }
    api(&core, &head, &body).await
}

/// One API request as the log and the handlers see it.
struct Asked<'a> {
    method: &'a str,
    /// From `/v2` or `/v3` on.
    path: &'a str,
    query: &'a str,
    body: Bytes,
    has_json_type: bool,
    request_id: String,
}

async fn api(core: &Core, head: &http::request::Parts, body: &Bytes) -> Result<Response<Body>, Cut> {
    let full = head.uri.path();
    let prefix = format!("/stores/{}", core.config.store_hash);
    let Some(path) =
        full.strip_prefix(&prefix).filter(|path| path.starts_with("/v2/") || path.starts_with("/v3/"))
    else {
        let text = "The path begins neither with /stores/{hash}/v2/ nor with /stores/{hash}/v3/.";
        return Ok(plain(&Reply::plain(404, text)));
    };
    let kind = head.headers.get("content-type").and_then(|value| value.to_str().ok());
    let asked = Asked {
        method: head.method.as_str(),
        path,
        query: head.uri.query().unwrap_or(""),
        body: body.clone(),
        has_json_type: kind.is_none_or(|kind| kind.to_ascii_lowercase().contains("json")),
        request_id: core.request_id(),
    };
    let token = head.headers.get("x-auth-token").map(HeaderValue::as_bytes);
    if core.is_uninstalled() || token != Some(core.config.access_token.as_bytes()) {
        let reply = Reply::error(path, 401, "Unauthorized");
        note(core, &asked, reply.status, 0);
        return Ok(plain(&reply));
    }
    let standing = core.window(|window| window.count(Instant::now()));
    let fate = super::core::lock(&core.dice).request(matches!(asked.method, "GET" | "HEAD"), path);
    if fate.cut_before {
        note(core, &asked, 0, standing.left);
        return Err(Cut);
    }
    let outcome = handle(core, &asked, standing, &fate).await;
    let cut = fate.cut_after && (200..300).contains(&outcome.reply.status);
    note(core, &asked, if cut { 0 } else { outcome.reply.status }, standing.left);
    if cut {
        return Err(Cut);
    }
    Ok(respond(&asked, &outcome, standing, fate.truncated))
}

/// An answer and which headers go with it.
struct Outcome {
    reply: Reply,
    /// A 429 as a platform under load sends it: without the quota's headers.
    bare: bool,
}

impl Outcome {
    fn of(reply: Reply) -> Outcome {
        Outcome { reply, bare: false }
    }
}

async fn handle(core: &Core, asked: &Asked<'_>, standing: Standing, fate: &Fate) -> Outcome {
    if standing.refused {
        core.log(|log| log.stats.over_quota += 1);
        return Outcome::of(Reply::error(asked.path, 429, "Too many requests."));
    }
    if let Some(status) = fate.status {
        tokio::time::sleep(fate.wait).await;
        let text = match status {
            401 => "Unauthorized",
            403 => "You don't have the required scope.",
            429 => "Too many requests.",
            500 => "Internal server error.",
            _ => "Service unavailable.",
        };
        return Outcome { reply: Reply::error(asked.path, status, text), bare: status == 429 };
    }
    let (route, params) = match resources::find(asked.method, asked.path) {
        Found::Route(route, params) => (route, params),
        Found::WrongMethod => return Outcome::of(Reply::error(asked.path, 405, "Method not allowed.")),
        Found::Nothing => return Outcome::of(Reply::error(asked.path, 404, "Not found.")),
    };
    let Some(place) = core.in_flight.enter(asked.method, route.pattern) else {
        core.log(|log| log.stats.over_concurrency += 1);
        return Outcome::of(Reply::error(asked.path, 429, "Too many requests in flight on this endpoint."));
    };
    let body = match body(asked) {
        Ok(body) => body,
        Err(reply) => return Outcome::of(reply),
    };
    let blocked = core.deliverer.blocked();
    let query = Query::parse(asked.query);
    // The write is logged while the state is locked, so that the log has the order of the effects.
    let reply = core.with(|state| {
        state.look_at(route.pattern);
        let mut call = Call {
            state,
            pattern: route.pattern,
            query: &query,
            body: &body,
            params,
            blocked: &blocked,
            forbidden: false,
        };
        let reply = resources::run(route, &mut call);
        let forbidden = call.forbidden;
        let accepted = (200..300).contains(&reply.status) && !matches!(asked.method, "GET" | "HEAD");
        core.log(|log| {
            log.stats.forbidden_collection_deletes += u64::from(forbidden);
            if accepted {
                log.write(record(asked, &body, reply.status, fate.cut_after));
            }
        });
        reply
    });
    tokio::time::sleep(fate.wait).await;
    drop(place);
    Outcome::of(reply)
}

/// The JSON in a request's body; null when there is none.
fn body(asked: &Asked<'_>) -> Result<Value, Reply> {
    if asked.body.is_empty() || matches!(asked.method, "GET" | "HEAD") {
        let needs = matches!(asked.method, "POST" | "PUT");
        return if needs {
            Err(Reply::error(asked.path, 400, "The body is empty."))
        } else {
            Ok(Value::Null)
        };
    }
    if !asked.has_json_type {
        return Err(Reply::error(asked.path, 415, "The content type must be application/json."));
    }
    serde_json::from_slice(&asked.body)
        .map_err(|_| Reply::error(asked.path, 400, "The body is not valid JSON."))
}

fn record(asked: &Asked<'_>, body: &Value, status: u16, answer_cut: bool) -> history::Write {
    history::Write {
        seq: 0,
        unix_ms: clock::unix_ms(),
        method: asked.method.to_owned(),
        path: asked.path.to_owned(),
        query: asked.query.to_owned(),
        body: (!body.is_null()).then(|| body.clone()),
        status,
        request_id: asked.request_id.clone(),
        answer_cut,
    }
}

fn note(core: &Core, asked: &Asked<'_>, status: u16, left: u32) {
    core.log(|log| {
        let pattern = resources::pattern(asked.path);
        log.call(pattern, asked.method, status);
        log.request(history::Request {
            seq: 0,
            unix_ms: clock::unix_ms(),
            method: asked.method.to_owned(),
            path: asked.path.to_owned(),
            query: asked.query.to_owned(),
            status,
            left,
            request_id: asked.request_id.clone(),
        });
    });
}

fn respond(asked: &Asked<'_>, outcome: &Outcome, standing: Standing, truncated: bool) -> Response<Body> {
    let mut response = if truncated { half(&outcome.reply) } else { plain(&outcome.reply) };
    let headers = response.headers_mut();
    let ms = |time: Duration| HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    if !outcome.bare {
        headers.insert("x-rate-limit-requests-quota", HeaderValue::from(standing.quota));
        headers.insert("x-rate-limit-requests-left", HeaderValue::from(standing.left));
        headers.insert("x-rate-limit-time-window-ms", ms(standing.window));
        headers.insert("x-rate-limit-time-reset-ms", ms(standing.reset));
        if outcome.reply.status == 429 {
            let seconds = standing.reset.as_millis().div_ceil(1000);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).max(RETRY_AFTER_MIN_S);
            headers.insert("x-retry-after", HeaderValue::from(seconds));
        }
    }
    if let Ok(id) = HeaderValue::from_str(&asked.request_id) {
        headers.insert("x-request-id", id);
    }
    response
}

fn plain(reply: &Reply) -> Response<Body> {
    let bytes = reply.body.as_ref().map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let has_body = !bytes.is_empty();
    let mut response = Response::new(Full::new(bytes).map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if has_body {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    }
    response
}

/// Announces the whole body, sends half of it, and drops the connection.
fn half(reply: &Reply) -> Response<Body> {
    let Some(body) = &reply.body else { return plain(reply) };
    let bytes = Bytes::from(body.to_string());
    let length = bytes.len();
    let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the body is cut on purpose");
    let frames = [Ok(Frame::data(bytes.slice(..length / 2))), Err(error)];
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)).boxed());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response.headers_mut().insert("content-length", HeaderValue::from(length));
    response
}
