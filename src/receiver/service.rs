//! One request: read, verify, append, answer, in that order.
//!
//! It never answers 200 for what is not durable, never says in an answer why it refused, and never lets the name of
//! a store be told from the time or the shape of a refusal: an unknown store's callback is read and verified too,
//! against a decoy. Every wait has a deadline. A panic ends the request, not the process.

use super::guard::ConnectionClock;
use super::intake::{Delivery, Intake};
use super::metrics::{Outcome, ReceiverMetrics};
use super::seen::{Arrival, Seen};
use super::settings::{Deadlines, Limits};
use super::store::Stores;
use super::verify::{EventId, Window};
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::header::{ALLOW, CONNECTION, CONTENT_ENCODING, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::{Instant, timeout_at};

/// The wall clock: milliseconds since 1970.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where callbacks arrive; the store's name follows.
pub const ROUTE_PREFIX: &str = "/webhooks/";

/// Shortest time between two log lines about the same kind of refusal, in milliseconds. A flood of bad requests is
/// told by the metrics; the log says that there is one.
const QUIET_MS: i64 = 10_000;

/// What all connections share.
pub(super) struct Shared<I> {
    pub(super) intake: I,
    pub(super) stores: Stores,
    pub(super) seen: Seen,
    pub(super) metrics: ReceiverMetrics,
    pub(super) now_ms: NowMs,
    pub(super) limits: Limits,
    pub(super) deadlines: Deadlines,
    pub(super) max_behind_s: i64,
    pub(super) logged_refusal: Quiet,
    pub(super) logged_failure: Quiet,
}

/// Lets a log line through once in [`QUIET_MS`].
#[derive(Debug)]
pub(super) struct Quiet(AtomicI64);

impl Default for Quiet {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Quiet {
    pub(super) fn may_speak(&self, now_ms: i64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(last) >= QUIET_MS;
        is_due && self.0.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Answers one request; counted and timed.
pub(super) async fn serve<I: Intake>(
    shared: Arc<Shared<I>>,
    clock: Arc<ConnectionClock>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let started = Instant::now();
    let until = clock.request_at() + shared.deadlines.total;
    // The end of a chunked request can't be judged beforehand, so nothing may follow it.
    let is_last = request.headers().contains_key(TRANSFER_ENCODING);
    let outcome = match AssertUnwindSafe(shared.outcome(request, until)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::error!("a callback's handler panicked; the callback was answered 500");
            Outcome::Panicked
        }
    };
    shared.metrics.answered(outcome, started.elapsed());
    Ok(response(outcome, is_last))
}

impl<I: Intake> Shared<I> {
    async fn outcome(&self, request: Request<Incoming>, until: Instant) -> Outcome {
        let (parts, body) = request.into_parts();
        let name = store_name(parts.uri.path());
        if parts.method != Method::POST {
            return if name.is_some() { Outcome::MethodNotAllowed } else { Outcome::UnknownStore };
        }
        if parts.headers.contains_key(CONTENT_ENCODING) {
            return Outcome::Encoded;
        }
        let body_until = until.min(Instant::now() + self.deadlines.body);
        let body = match timeout_at(body_until, collect(body, self.limits.body_bytes)).await {
            Ok(Ok(body)) => body,
            Ok(Err(outcome)) => return outcome,
            Err(_) => return Outcome::TimedOut,
        };
        match self.admit(&parts, name, body) {
            Ok((delivery, event_id)) => {
                // The head's buffer need not be held while Kafka is waited for.
                drop(parts);
                self.make_durable(delivery, event_id, until).await
            }
            Err(outcome) => outcome,
        }
    }

    /// Verifies the callback; synchronous, so that a reload can't fall into the middle.
    fn admit(
        &self,
        parts: &Parts,
        name: Option<&str>,
        body: Bytes,
    ) -> Result<(Delivery, Option<EventId>), Outcome> {
        let received_ms = (self.now_ms)();
        let window = Window { now_s: received_ms.div_euclid(1000), max_behind_s: self.max_behind_s };
        let table = self.stores.now();
        let Some(store) = name.and_then(|name| table.get(name)) else {
            // For its cost only: whatever the decoy says, there is no such store.
            let _ = std::hint::black_box(table.decoy().admit(&parts.headers, &body, window));
            return Err(Outcome::UnknownStore);
        };
        let verified = store.admit(&parts.headers, &body, window).map_err(|reason| {
            self.metrics.refused(reason);
            if self.logged_refusal.may_speak(received_ms) {
                tracing::warn!(store.name = %store.name, reason = reason.name(), "a callback was refused: {reason}");
            }
            Outcome::Unauthorized
        })?;
        let (event_id, timestamp) = verified.into_parts();
        let delivery = Delivery {
            store: store.name.clone(),
            event_id: event_id.as_ref().map(|id| id.as_str().to_owned()),
            timestamp,
            body,
            received_ms,
            traceparent: traceparent(&parts.headers),
        };
        Ok((delivery, event_id))
    }

    async fn make_durable(&self, delivery: Delivery, event_id: Option<EventId>, until: Instant) -> Outcome {
        let store = delivery.store.clone();
        let append = self.intake.append(delivery);
        let arrival = async {
            match &event_id {
                Some(id) => self.seen.once(&store, id, append).await,
                None => append.await.map(|()| Arrival::New),
            }
        };
        let why = match timeout_at(until, arrival).await {
            Ok(Ok(Arrival::New)) => return Outcome::Accepted,
            Ok(Ok(Arrival::Repeat)) => return Outcome::Duplicate,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the deadline of the request passed".to_owned(),
        };
        if self.logged_failure.may_speak((self.now_ms)()) {
            tracing::error!(store.name = %store, reason = why, "a callback was answered 503");
        }
        Outcome::NotDurable
    }
}

/// The name in `/webhooks/<name>`, exactly.
fn store_name(path: &str) -> Option<&str> {
    path.strip_prefix(ROUTE_PREFIX).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// Reads a body of at most `most` bytes. What the sender says of its length can only shorten the work.
async fn collect(mut body: Incoming, most: usize) -> Result<Bytes, Outcome> {
    if body.size_hint().lower() > most as u64 {
        return Err(Outcome::TooLarge);
    }
    // Copied out of the connection's read buffer, which is far bigger than a callback.
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut whole = BytesMut::with_capacity(expected);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Outcome::Malformed)?;
        // Trailers are read past; nothing in them is believed.
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > most {
            return Err(Outcome::TooLarge);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}

/// A well-formed `traceparent` of version 00, sent once.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let text = value.to_str().ok()?;
    let lower_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    match parts.as_slice() {
        ["00", trace, span, flags]
            if lower_hex(trace, 32)
                && lower_hex(span, 16)
                && lower_hex(flags, 2)
                && trace.bytes().any(|b| b != b'0')
                && span.bytes().any(|b| b != b'0') =>
        {
            Some(text.to_owned())
        }
        _ => None,
    }
}

/// An empty answer. Only a callback that was taken, or may be sent again at once, keeps its connection: nobody
/// whom we don't know holds one for longer than a request.
fn response(outcome: Outcome, is_last: bool) -> Response<Empty<Bytes>> {
    let (status, keeps) = match outcome {
        Outcome::Accepted | Outcome::Duplicate => (StatusCode::OK, true),
        Outcome::NotDurable => (StatusCode::SERVICE_UNAVAILABLE, true),
        Outcome::Unauthorized => (StatusCode::UNAUTHORIZED, false),
        Outcome::UnknownStore => (StatusCode::NOT_FOUND, false),
        Outcome::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, false),
        Outcome::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, false),
        Outcome::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, false),
        Outcome::TimedOut => (StatusCode::REQUEST_TIMEOUT, false),
        Outcome::Malformed => (StatusCode::BAD_REQUEST, false),
        Outcome::UriTooLong => (StatusCode::URI_TOO_LONG, false),
        Outcome::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, false),
        Outcome::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, false),
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    if !keeps || is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if outcome == Outcome::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_route_names_a_store() {
        assert_eq!(store_name("/webhooks/main"), Some("main"));
        for path in
            ["/webhooks/", "/webhooks", "/webhooks/a/b", "/webhooks/a/", "//webhooks/a", "/Webhooks/a", "/"]
        {
            assert_eq!(store_name(path), None, "{path}");
        }
    }

    #[test]
    fn a_log_line_comes_once_in_ten_seconds() {
        let quiet = Quiet::default();
        let spoken: Vec<bool> = [0, 1, 9_999, 10_000, 10_001].map(|now| quiet.may_speak(now)).to_vec();
        assert_eq!(spoken, [true, false, false, true, false]);
    }

    #[test]
    fn a_trace_context_is_passed_on_only_if_it_is_well_formed() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(value).unwrap());
            traceparent(&headers).is_some()
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(check(good));
        assert!(!check(&good.to_uppercase()));
        assert!(!check(&format!("{good}-x")));
        assert!(!check("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
        assert!(!check("x"));
    }
}
