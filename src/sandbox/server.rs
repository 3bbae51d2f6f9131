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

use super::chance::Target;
use super::core::Core;
use super::faults::{Fate, Spoiled};
use super::limits::Standing;
use super::perform::{self, Asked, Kind, Way};
use super::reply::Reply;
use super::resources::{self, Found};
use super::{control, history, late};

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

async fn api(core: &Arc<Core>, head: &http::request::Parts, body: &Bytes) -> Result<Response<Body>, Cut> {
    let full = head.uri.path();
    let prefix = format!("/stores/{}", core.config.store_hash);
    let Some(path) =
        full.strip_prefix(&prefix).filter(|path| path.starts_with("/v2/") || path.starts_with("/v3/"))
    else {
        let text = "The path begins neither with /stores/{hash}/v2/ nor with /stores/{hash}/v3/.";
        return Ok(plain(&Reply::plain(404, text)));
    };
    let asked = Asked {
        method: head.method.as_str().to_owned(),
        path: path.to_owned(),
        query: head.uri.query().unwrap_or("").to_owned(),
        body: body.clone(),
        hash: history::hash(body),
        kind: Kind::of(head.headers.get("content-type").and_then(|value| value.to_str().ok())),
        number: core.number(),
    };
    let token = head.headers.get("x-auth-token").map(HeaderValue::as_bytes);
    if core.is_uninstalled() || token != Some(core.config.access_token.as_bytes()) {
        let reply = Reply::error(path, 401, "Unauthorized");
        note(core, &asked, reply.status, 0);
        return Ok(plain(&reply));
    }
    let standing = core.window(|window| window.count(Instant::now()));
    let fate = super::core::lock(&core.dice).request(Target { method: &asked.method, path });
    if fate.cut_before {
        note(core, &asked, 0, standing.left);
        return Err(Cut);
    }
    if let Some(wait) = fate.late.filter(|_| !standing.refused) {
        note(core, &asked, 0, standing.left);
        late::commit(core, asked, wait);
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

/// An answer and how it goes out.
struct Outcome {
    reply: Reply,
    dress: Dress,
}

/// Who seems to have answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dress {
    /// The API, with the quota's headers.
    Api,
    /// A platform under load: a 429 without the quota's headers.
    Bare,
    /// A gateway: a page of HTML without the quota's headers.
    Gateway,
}

impl Outcome {
    fn of(reply: Reply) -> Outcome {
        Outcome { reply, dress: Dress::Api }
    }
}

async fn handle(core: &Core, asked: &Asked, standing: Standing, fate: &Fate) -> Outcome {
    if standing.refused {
        core.log(|log| log.stats.over_quota += 1);
        return Outcome::of(Reply::error(&asked.path, 429, "Too many requests."));
    }
    if let Some(status) = fate.status {
        tokio::time::sleep(fate.wait).await;
        return instead(asked, status);
    }
    let (route, params) = match resources::find(&asked.method, &asked.path) {
        Found::Route(route, params) => (route, params),
        Found::WrongMethod => return Outcome::of(Reply::error(&asked.path, 405, "Method not allowed.")),
        Found::Nothing => return Outcome::of(Reply::error(&asked.path, 404, "Not found.")),
    };
    let Some(place) = core.in_flight.enter(&asked.method, route.pattern) else {
        core.log(|log| log.stats.over_concurrency += 1);
        return Outcome::of(Reply::error(&asked.path, 429, "Too many requests in flight on this endpoint."));
    };
    let way = Way { cut: fate.cut_after || fate.truncated, late: false, partly: fate.partly };
    let reply = perform::run(core, asked, (route, params), way);
    tokio::time::sleep(fate.wait).await;
    drop(place);
    match fate.spoiled.filter(|_| (200..300).contains(&reply.status)) {
        Some(Spoiled::Page) => Outcome { reply: Reply::plain(200, "Welcome"), dress: Dress::Gateway },
        Some(spoiled) => Outcome::of(spoiled.spoil(reply)),
        None => Outcome::of(reply),
    }
}

/// The answer that a fault gives in place of the work.
fn instead(asked: &Asked, status: u16) -> Outcome {
    let (text, dress) = match status {
        401 => ("Unauthorized", Dress::Api),
        403 => ("You don't have the required scope.", Dress::Api),
        413 => ("The request is too large.", Dress::Api),
        429 => ("Too many requests.", Dress::Bare),
        500 => ("Internal server error.", Dress::Api),
        502 => ("Bad Gateway", Dress::Gateway),
        504 => ("Gateway Time-out", Dress::Gateway),
        _ => ("Service unavailable.", Dress::Api),
    };
    Outcome { reply: Reply::error(&asked.path, status, text), dress }
}

fn note(core: &Core, asked: &Asked, status: u16, left: u32) {
    let pattern = resources::pattern(&asked.path);
    core.log(|log| {
        log.call(pattern, &asked.method, status);
        log.request(asked.entry(status), left);
    });
}

fn respond(asked: &Asked, outcome: &Outcome, standing: Standing, truncated: bool) -> Response<Body> {
    let mut response = match outcome.dress {
        Dress::Gateway => page(&outcome.reply),
        _ if truncated => half(&outcome.reply),
        _ => plain(&outcome.reply),
    };
    let headers = response.headers_mut();
    let ms = |time: Duration| HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    if outcome.dress == Dress::Api {
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
    if let Ok(id) = HeaderValue::from_str(&history::request_id(asked.number)) {
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

/// The answer as a gateway words it.
fn page(reply: &Reply) -> Response<Body> {
    let words =
        reply.body.as_ref().and_then(|body| body.get("title").or_else(|| body.get(0)?.get("message")));
    let title = words.and_then(Value::as_str).unwrap_or("Error");
    let text =
        format!("<html><head><title>{0} {title}</title></head><body>{title}</body></html>", reply.status);
    let mut response = plain(&Reply::empty(reply.status));
    *response.body_mut() = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed();
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
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
