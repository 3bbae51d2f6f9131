//! From a callback's bytes to the hints that it stands for. Pure.
//!
//! Nothing authentic is refused: what cannot be understood goes to the dead letters as `quarantined`, with its
//! bytes. BigCommerce's payloads differ in where they put ids and whether these are numbers or texts; the
//! catalogue says where, and texts are taken as well as numbers.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

pub use crate::catalog::place::text_at;
use crate::catalog::{Catalog, Scope};
use crate::model::dead_letter::{DeadLetter, FailedAt};
use crate::model::hint::{Hint, Trigger, header};
use crate::model::ids::{BadId, EntityId, EntityKey};
use crate::model::reason::Reason;
use crate::model::record::{InRecord, OutRecord, Partition, Position};

/// A callback may stand for this many hints (batch scopes carry lists): a body of 64 KiB holds no more ids.
const MAX_TRIGGERS: usize = 8_192;

/// What a callback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// The entities to look at; never empty.
    pub triggers: Vec<Trigger>,
    /// When the store says that it happened, in unix seconds.
    pub created_at: Option<i64>,
}

/// Why a callback was not understood, in one clause without its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(pub String);

/// Understands a callback with the help of the catalogue.
///
/// # Errors
/// It is no JSON object, its scope is unknown, or an id is missing or malformed.
pub fn callback(catalog: &Catalog, body: &[u8]) -> Result<Callback, NotUnderstood> {
    let Body { scope: delivered, data, created_at } = parse(body)?;
    let Some((entity, scope)) = catalog.scope(&delivered) else {
        let shown: String = delivered.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(NotUnderstood(format!("the scope {shown:?} is not in the catalogue")));
    };
    let items: Vec<&Value> = match &data {
        Value::Array(items) => items.iter().take(MAX_TRIGGERS).collect(),
        one => vec![one],
    };
    let triggers = items
        .into_iter()
        .map(|item| trigger(&entity.name, scope, &delivered, item))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| NotUnderstood(format!("the data of {delivered:?} names no {}: {e}", entity.name)))?;
    if triggers.is_empty() {
        return Err(NotUnderstood(format!("the data of {delivered:?} is an empty list")));
    }
    Ok(Callback { triggers, created_at: created_at.as_i64() })
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
        Err(error) => NotUnderstood(format!("the body is not JSON: {error}")),
        Ok(value) if !value.get("scope").is_some_and(Value::is_string) => {
            NotUnderstood("the body has no scope".into())
        }
        Ok(_) => NotUnderstood(format!("the body is not a callback: {why}")),
    })
}

fn trigger(entity: &str, scope: &Scope, delivered: &str, data: &Value) -> Result<Trigger, BadId> {
    Ok(Trigger {
        key: EntityKey { entity: entity.into(), id: id_at(data, &scope.id)? },
        op: scope.op,
        scope: delivered.to_owned(),
        row: scope.row.as_ref().map(|row| id_at(data, row)).transpose()?,
    })
}

/// The id whose parts stand at these places of a callback. `data` is the callback's data, or one element of it.
fn id_at(data: &Value, places: &[String]) -> Result<EntityId, BadId> {
    let parts: Vec<Cow<'_, str>> = places
        .iter()
        .map(|place| text_at(data, place.strip_prefix("data.").unwrap_or(place)).unwrap_or_default())
        .collect();
    EntityId::from_parts(&parts)
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

/// The records that make a callback durable: a hint for each entity that it names, or one quarantined letter.
pub fn intake_records(catalog: &Catalog, topics: &IntakeTopics, received: &Received) -> Vec<OutRecord> {
    let callback = match callback(catalog, &received.body) {
        Ok(callback) => callback,
        Err(why) => return vec![quarantined(topics, received, &why)],
    };
    let event = received.event_id.clone().unwrap_or_default();
    callback
        .triggers
        .into_iter()
        .map(|trigger| {
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
        })
        .collect()
}

/// A callback that was not understood never stood on the intake: its letter says partition -1, offset -1.
fn quarantined(topics: &IntakeTopics, received: &Received, why: &NotUnderstood) -> OutRecord {
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
        reason: Reason::Quarantined,
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
mod tests {
    use super::*;
    use crate::model::hint::Op;

    fn check(body: &str) -> Result<Vec<(String, Op, Option<String>)>, String> {
        callback(&Catalog::embedded().unwrap(), body.as_bytes())
            .map(|c| {
                let row = |t: &Trigger| t.row.as_ref().map(ToString::to_string);
                c.triggers.iter().map(|t| (t.key.to_string(), t.op, row(t))).collect()
            })
            .map_err(|e| e.0)
    }

    fn key(text: &str, op: Op) -> Vec<(String, Op, Option<String>)> {
        vec![(text.to_owned(), op, None)]
    }

    #[test]
    fn ids_are_found_where_each_scope_has_them() {
        let body = r#"{"scope":"store/sku/created","data":{"type":"sku","id":461,"sku":{"product_id":206,"variant_id":509}}}"#;
        assert_eq!(check(body).unwrap(), key("product_variant/206:509", Op::Create));
        let body = r#"{"scope":"store/shipment/deleted","data":{"type":"shipment","id":"12","orderId":251}}"#;
        assert_eq!(check(body).unwrap(), key("order_shipment/251:12", Op::Delete));
        let body = r#"{"scope":"store/sku/inventory/updated","data":{"id":461,"inventory":{"product_id":206,"variant_id":509}}}"#;
        let row = Some("509".to_owned());
        assert_eq!(check(body).unwrap(), vec![("inventory_item/206".to_owned(), Op::Update, row)]);
    }

    #[test]
    fn an_odd_date_is_no_reason_to_lose_a_callback() {
        for date in ["\"1767225600\"", "1.5", "null", "{}"] {
            let body =
                format!(r#"{{"scope":"store/product/updated","data":{{"id":1}},"created_at":{date}}}"#);
            assert_eq!(check(&body).unwrap(), key("product/1", Op::Update), "{date}");
        }
    }

    #[test]
    fn a_list_of_data_is_a_hint_for_each_element() {
        let body = r#"{"scope":"store/product/updated","data":[{"id":1},{"id":"2"}]}"#;
        let keys: Vec<_> = check(body).unwrap().into_iter().map(|t| t.0).collect();
        assert_eq!(keys, ["product/1", "product/2"]);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        for (body, why) in [
            ("{", "not JSON"),
            ("[]", "has no scope"),
            (r#"{"scope":7}"#, "has no scope"),
            (r#"{"scope":"store/product/updated","scope":"store/product/deleted"}"#, "duplicate field"),
            (r#"{"scope":"store/unheard/of","data":{"id":1}}"#, "not in the catalogue"),
            (r#"{"scope":"store/product/updated"}"#, "names no product"),
            (r#"{"scope":"store/product/updated","data":{"id":0}}"#, "must be positive"),
            (r#"{"scope":"store/product/updated","data":{"id":""}}"#, "it is empty"),
            (r#"{"scope":"store/product/updated","data":{"id":1.5}}"#, "it is empty"),
            (r#"{"scope":"store/product/updated","data":{"id":"../1"}}"#, "only letters"),
            (r#"{"scope":"store/product/updated","data":[]}"#, "empty list"),
        ] {
            let found = check(body).unwrap_err();
            assert!(found.contains(why), "{body}: {found}");
        }
    }

    #[test]
    fn a_quarantined_callback_keeps_its_bytes() {
        let topics = IntakeTopics { intake: "i".into(), dead_letters: "d".into() };
        let received = Received {
            event_id: Some("msg_1".into()),
            body: Bytes::from_static(b"\xff\x00{"),
            received_ms: 5,
            traceparent: None,
        };
        let records = intake_records(&Catalog::embedded().unwrap(), &topics, &received);
        assert_eq!(records.len(), 1);
        assert_eq!(&*records[0].topic, "d");
        assert_eq!(records[0].value.as_deref(), Some(&b"\xff\x00{"[..]));
    }
}
