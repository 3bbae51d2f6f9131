//! From a callback's bytes to the hints that it stands for. Pure.
//!
//! Nothing authentic is refused: what cannot be understood goes to the dead letters as `quarantined`, with its
//! bytes, and what nothing can be read of as `not_readable`. BigCommerce's payloads differ in where they put ids and
//! whether these are numbers or texts; the catalogue says where, and texts are taken as well as numbers.

mod about;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use about::{Hints, Rule};

use crate::catalog::Catalog;
pub use crate::catalog::place::text_at;
use crate::model::dead_letter::{DeadLetter, FailedAt};
use crate::model::hint::{Hint, Trigger, header};
use crate::model::reason::Reason;
use crate::model::record::{InRecord, OutRecord, Partition, Position};

/// A callback may stand for this many hints (batch scopes carry lists): a body of 64 KiB has room for 10,000 ids, and
/// BigCommerce's batches end at 1,000.
const MAX_TRIGGERS: usize = 8_192;

/// What a callback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// The entities to look at; never empty.
    pub triggers: Vec<Trigger>,
    /// When the store says that it happened, in unix seconds.
    pub created_at: Option<i64>,
    /// Elements of a batch that were not understood, beside those that were.
    pub rest: Option<NotUnderstood>,
}

/// Why a callback gives nothing to read: one clause without its content, and what the dead letter is filed under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(pub String, pub Reason);

fn quarantine(why: impl Into<String>) -> NotUnderstood {
    NotUnderstood(why.into(), Reason::Quarantined)
}

/// Understands a callback with the help of the catalogue.
///
/// # Errors
/// It is no JSON object, its scope is unknown or about nothing that can be read, or an id is missing or malformed.
pub fn callback(catalog: &Catalog, body: &[u8]) -> Result<Callback, NotUnderstood> {
    let Body { scope: delivered, data, created_at } = parse(body)?;
    let Some((entity, scope)) = catalog.scope(&delivered) else {
        let shown: String = delivered.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(quarantine(format!("the scope {shown:?} is not in the catalogue")));
    };
    if let Some(why) = &scope.not_readable {
        return Err(NotUnderstood(
            format!("nothing is read after {:?}: {why}", scope.name),
            Reason::NotReadable,
        ));
    }
    let rule = Rule { catalog, entity, scope, delivered: &delivered };
    let mut hints = Hints::default();
    let items: &[Value] = match &data {
        Value::Array(items) if !items.is_empty() => items,
        one => std::slice::from_ref(one),
    };
    for item in items {
        rule.apply(item, &mut hints)?;
    }
    let rest = hints
        .first_fault
        .map(|fault| quarantine(format!("the data of {delivered:?} names no {}: {fault}", entity.name)));
    match rest {
        Some(fault) if hints.triggers.is_empty() => Err(fault),
        rest => Ok(Callback { triggers: hints.triggers, created_at: created_at.as_i64(), rest }),
    }
}

/// The fields of a callback that matter here; the others are passed over.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    scope: Cow<'a, str>,
    #[serde(default)]
    data: Value,
    /// A number wherever it was seen; anything else is no reason to lose the callback.
    #[serde(default)]
    created_at: Value,
}

fn parse(body: &[u8]) -> Result<Body<'_>, NotUnderstood> {
    serde_json::from_slice(body).map_err(|why| match serde_json::from_slice::<Value>(body) {
        Err(error) => quarantine(format!("the body is not JSON: {error}")),
        Ok(value) if !value.get("scope").is_some_and(Value::is_string) => quarantine("the body has no scope"),
        Ok(_) => quarantine(format!("the body is not a callback: {why}")),
    })
}

/// The topics that callbacks of one store go to.
#[derive(Debug, Clone)]
pub struct IntakeTopics {
    /// For hints.
    pub intake: Arc<str>,
    /// For what was not understood.
    pub dead_letters: Arc<str>,
}

/// A verified callback as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// `webhook-id`, where the callback was signed.
    pub event_id: Option<String>,
    /// The raw bytes.
    pub body: Bytes,
    /// Unix milliseconds.
    pub received_ms: i64,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// The records that make a callback durable: a hint for each entity that it names, and a dead letter for what names
/// none.
pub fn intake_records(catalog: &Catalog, topics: &IntakeTopics, received: &Received) -> Vec<OutRecord> {
    let callback = match callback(catalog, &received.body) {
        Ok(callback) => callback,
        Err(why) => return vec![put_aside(topics, received, &why)],
    };
    let event = received.event_id.clone().unwrap_or_default();
    let hint = |trigger: Trigger| {
        let key = Bytes::from(trigger.key.to_string());
        let hint = Hint {
            trigger,
            event: event.clone(),
            created_at: callback.created_at,
            received_ms: received.received_ms,
            traceparent: received.traceparent.clone(),
            carried_ms: None,
        };
        OutRecord {
            topic: topics.intake.clone(),
            partition: None,
            key: Some(key),
            value: Some(received.body.clone()),
            headers: hint.headers(),
            timestamp_ms: Some(received.received_ms),
        }
    };
    let rest = callback.rest.map(|why| put_aside(topics, received, &why));
    callback.triggers.into_iter().map(hint).chain(rest).collect()
}

/// A callback that gives nothing to read never stood on the intake: its letter says partition -1, offset -1.
fn put_aside(topics: &IntakeTopics, received: &Received, why: &NotUnderstood) -> OutRecord {
    let event = received.event_id.as_ref().map(|event| Bytes::copy_from_slice(event.as_bytes()));
    let partition = Partition { topic: topics.intake.clone(), number: -1 };
    let record = InRecord {
        position: Position { partition, offset: -1 },
        timestamp_ms: Some(received.received_ms),
        headers: event.iter().map(|event| (header::EVENT.to_owned(), event.clone())).collect(),
        key: event,
        value: Some(received.body.clone()),
    };
    let letter = DeadLetter {
        reason: why.1,
        stage: FailedAt::Value,
        message: why.0.clone(),
        http_status: None,
        response_body: None,
        request_id: None,
        attempts: 0,
        first_seen_ms: received.received_ms,
    };
    letter.record(&topics.dead_letters, &record)
}

#[cfg(test)]
mod tests;
