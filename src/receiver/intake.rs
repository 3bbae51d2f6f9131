//! The port through which callbacks leave the receiver. The receiver owns it; whoever makes callbacks durable
//! (Kafka, or the spool when Kafka is away) implements it.

use bytes::Bytes;
use std::sync::Arc;

/// One authentic callback, on its way to the intake topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The store's name, as in the route.
    pub store: Arc<str>,
    /// `webhook-id`, where the callback was signed.
    pub event_id: Option<String>,
    /// `webhook-timestamp` in seconds since 1970, where the callback was signed.
    pub timestamp: Option<i64>,
    /// The body, byte for byte. It may be anything: authentic is not the same as intelligible.
    pub body: Bytes,
    /// When the body was complete, in milliseconds since 1970.
    pub received_ms: i64,
    /// The caller's W3C trace context, well-formed but not authenticated.
    pub traceparent: Option<String>,
}

/// The callback could not be made durable; the sender is told 503 and comes again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the callback could not be made durable: {why}")]
pub struct NotDurable {
    /// What stood in the way, for the log.
    pub why: String,
}

/// Makes callbacks durable.
///
/// `Ok` is a promise: the delivery survives the death of this process and of this machine's power. The future may be
/// dropped at any point (the sender hung up, the deadline passed); then the delivery may or may not become
/// durable, and the sender comes again. The implementation bounds its own time; the receiver only cuts it off at
/// the deadline of the whole request.
pub trait Intake: Send + Sync + 'static {
    /// Makes `delivery` durable.
    ///
    /// # Errors
    /// [`NotDurable`], for whatever reason.
    fn append(&self, delivery: Delivery) -> impl Future<Output = Result<(), NotDurable>> + Send;
}
