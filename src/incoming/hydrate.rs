//! Makes the planned reads and takes the replies apart, byte for byte.
//!
//! The entity's JSON is passed through as BigCommerce sent it, except that the rows of a sub-resource take the
//! place of the link that stood there. Fails per entity: one broken order does not spoil the others of its batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::decode::text_at;
use super::plan::{self, Plan, SUB_RESOURCE_PAGE};
use super::settings::EntitySettings;
use crate::model::ids::EntityId;
use crate::model::reason::Reason;
use crate::model::request::{Answer, Reply, Request};
use crate::runtime::ports::Store;

/// Halvings of one list whose content is refused, at most: eight find one bad id among 250, so this finds some
/// dozens. What is not singled out by then waits, and those that were are out of its way.
const MAX_HALVINGS: usize = 64;

/// Pages of one list, at most: 100,000 rows of a read by id are not a reply but a fault.
const MAX_PAGES: usize = 400;

/// One row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entity's id, by which it is published.
    pub id: EntityId,
    /// Its JSON.
    pub json: Bytes,
    /// When it changed last, in unix seconds, where BigCommerce says so.
    pub version: Option<i64>,
}

/// Why an entity could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The store is busy or in trouble; worth another try.
    Later {
        /// Not before this.
        after: Duration,
        /// One clause for people.
        detail: String,
    },
    /// The token is not valid: the whole store must wait for a person.
    Unauthorized,
    /// The reply was not what was asked for.
    Garbled(String),
    /// The request is refused as often as it is sent.
    Refused {
        /// Why.
        reason: Reason,
        /// The last reply.
        reply: Box<Reply>,
    },
}

/// What a read brought for one hinted id: its rows (none: there is no such entity), or why not.
pub type Outcome = (EntityId, Result<Vec<Row>, Failure>);

/// Carries out a plan. Every id of the plan is in the result exactly once.
pub async fn read<S: Store>(store: Arc<S>, settings: Arc<EntitySettings>, plan: Plan) -> Vec<Outcome> {
    let mut outcomes = match &plan {
        Plan::One(id) => vec![(id.clone(), read_one(&*store, &settings, id).await)],
        Plan::Many(ids) => read_many(&*store, &settings, ids).await,
    };
    for include in settings.path_includes() {
        let path = include.path.as_deref().expect("a path include has a path");
        for (id, outcome) in &mut outcomes {
            let Ok(rows) = outcome else { continue };
            for row in rows {
                match read_sub(&*store, &settings, (path, &include.name), id, &row.json).await {
                    Ok(json) => row.json = json,
                    Err(failure) => {
                        *outcome = Err(failure);
                        break;
                    }
                }
            }
        }
    }
    outcomes
}

async fn read_one<S: Store>(
    store: &S,
    settings: &EntitySettings,
    id: &EntityId,
) -> Result<Vec<Row>, Failure> {
    let request = plan::one_request(settings, id).map_err(Failure::Garbled)?;
    let v2 = is_v2(&request);
    let reply = store.send(request).await;
    if reply.answer == Answer::Missing {
        return Ok(Vec::new());
    }
    let reply = done(reply)?;
    let raw: &RawValue = if v2 { parse(&reply.body)? } else { parse::<Single<'_>>(&reply.body)?.data };
    let (hint, row) = row_of(settings, &reply.body, raw)?;
    if hint != *id {
        return Err(Failure::Garbled(format!("asked for {id}, the reply is about {hint}")));
    }
    Ok(vec![row])
}

/// Reads by a list. One that is refused for its content is read again in halves, until what BigCommerce refuses
/// stands alone: one bad id does not spoil the others.
async fn read_many<S: Store>(store: &S, settings: &EntitySettings, ids: &[EntityId]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(ids.len());
    let mut parts = vec![ids];
    let mut halvings = 0;
    while let Some(part) = parts.pop() {
        match read_list(store, settings, part).await {
            Ok(read) => outcomes.extend(read),
            Err(Failure::Refused { reason: Reason::Refused, .. })
                if part.len() > 1 && halvings < MAX_HALVINGS =>
            {
                halvings += 1;
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            }
            Err(Failure::Refused { reason: Reason::Refused, reply }) if part.len() > 1 => {
                let detail = format!("many ids of a list are refused with status {}", reply.status);
                let failure = Failure::Later { after: Duration::ZERO, detail };
                outcomes.extend(failed(parts.drain(..).chain([part]).flatten(), &failure));
            }
            // In trouble: the other parts are not even tried.
            Err(failure @ (Failure::Later { .. } | Failure::Unauthorized)) => {
                outcomes.extend(failed(parts.drain(..).chain([part]).flatten(), &failure));
            }
            Err(failure @ (Failure::Refused { .. } | Failure::Garbled(_))) => {
                outcomes.extend(failed(part, &failure));
            }
        }
    }
    outcomes
}

fn failed<'a>(ids: impl IntoIterator<Item = &'a EntityId>, failure: &Failure) -> Vec<Outcome> {
    ids.into_iter().map(|id| (id.clone(), Err(failure.clone()))).collect()
}

/// Reads all pages of a list.
async fn read_list<S: Store>(
    store: &S,
    settings: &EntitySettings,
    ids: &[EntityId],
) -> Result<Vec<Outcome>, Failure> {
    let mut broken = None;
    let mut rows: HashMap<EntityId, Vec<Row>> = ids.iter().map(|id| (id.clone(), Vec::new())).collect();
    for page in 1..=MAX_PAGES {
        let (found, more) = read_page(store, settings, ids, page).await?;
        for found in found {
            match found {
                // A range and a list by parent bring more than was asked for.
                Ok((hint, row)) => rows.entry(hint).and_modify(|rows| rows.push(row)),
                Err(failure) => {
                    broken = Some(failure);
                    continue;
                }
            };
        }
        if !more {
            break;
        }
    }
    // A row that says not whose it is may be anybody's who has none; of a group, anybody's.
    let is_group = settings.row.hint_key.is_some();
    let outcome = |id: &EntityId| {
        let rows = rows.remove(id).unwrap_or_default();
        match &broken {
            Some(failure) if rows.is_empty() || is_group => (id.clone(), Err(failure.clone())),
            _ => (id.clone(), Ok(rows)),
        }
    };
    Ok(ids.iter().map(outcome).collect())
}

/// A row and the hinted id that it belongs to, or what is wrong with it.
type Found = Result<(EntityId, Row), Failure>;

/// The rows of one page, and whether another follows.
async fn read_page<S: Store>(
    store: &S,
    settings: &EntitySettings,
    ids: &[EntityId],
    page: usize,
) -> Result<(Vec<Found>, bool), Failure> {
    let request = plan::list_request(settings, ids, page).map_err(Failure::Garbled)?;
    let v2 = is_v2(&request);
    let reply = done(store.send(request).await)?;
    if v2 && reply.body.is_empty() {
        return Ok((Vec::new(), false));
    }
    let (raw, more) = if v2 {
        let rows: Vec<&RawValue> = parse(&reply.body)?;
        let full = settings.row.read.many.as_ref().is_some_and(|many| rows.len() >= many.page_size);
        (rows, full)
    } else {
        let list: List<'_> = parse(&reply.body)?;
        let more =
            list.meta.pagination.is_some_and(|p| p.current_page < p.total_pages) && !list.data.is_empty();
        (list.data, more)
    };
    Ok((raw.into_iter().map(|raw| row_of(settings, &reply.body, raw)).collect(), more))
}

/// Reads all rows of a sub-resource and puts them into the entity's JSON.
async fn read_sub<S: Store>(
    store: &S,
    settings: &EntitySettings,
    (path, field): (&str, &str),
    id: &EntityId,
    json: &Bytes,
) -> Result<Bytes, Failure> {
    let mut array = String::from("[");
    for page in 1..=MAX_PAGES {
        let request =
            plan::sub_request(settings, path, id, page).map_err(|e| Failure::Garbled(e.to_string()))?;
        let reply = store.send(request).await;
        // The entity vanished between the two reads; the next try finds that out.
        if reply.answer == Answer::Missing {
            let detail = format!("its {field} are gone");
            return Err(Failure::Later { after: Duration::from_secs(1), detail });
        }
        let reply = done(reply)?;
        let rows: Vec<&RawValue> = if reply.body.is_empty() { Vec::new() } else { parse(&reply.body)? };
        for row in &rows {
            if array.len() > 1 {
                array.push(',');
            }
            array.push_str(row.get());
        }
        if rows.len() < SUB_RESOURCE_PAGE {
            break;
        }
    }
    array.push(']');
    replace_field(json, field, &array).map_err(Failure::Garbled)
}

fn is_v2(request: &Request) -> bool {
    request.path.as_str().starts_with("/v2/")
}

/// A reply that holds what was asked for, or what to do instead.
fn done(reply: Reply) -> Result<Reply, Failure> {
    match reply.answer {
        Answer::Done => Ok(reply),
        Answer::Busy { after } => Err(Failure::Later { after, detail: reply.detail }),
        // A list that is not there is a wrong path or a gateway in trouble, never a missing entity.
        Answer::Doubtful | Answer::Partial | Answer::Missing | Answer::Conflict => {
            let detail = format!("status {}: {}", reply.status, reply.detail);
            Err(Failure::Later { after: Duration::ZERO, detail })
        }
        Answer::Unauthorized => Err(Failure::Unauthorized),
        Answer::Forbidden => Err(Failure::Refused { reason: Reason::Denied, reply: Box::new(reply) }),
        Answer::Invalid => Err(Failure::Refused { reason: Reason::Refused, reply: Box::new(reply) }),
    }
}

/// V3's envelope of one.
#[derive(Deserialize)]
struct Single<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// V3's envelope of a list.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default)]
    pagination: Option<Pagination>,
}

#[derive(Deserialize)]
struct Pagination {
    #[serde(default)]
    current_page: u64,
    // Some endpoints spell it in the singular.
    #[serde(default, alias = "total_page")]
    total_pages: u64,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::Garbled(format!("the reply is not as documented: {e}")))
}

/// The hinted id that a row belongs to, and the row.
fn row_of(settings: &EntitySettings, body: &Bytes, raw: &RawValue) -> Result<(EntityId, Row), Failure> {
    let value: Value = parse(raw.get().as_bytes())?;
    let id_of = |places: &[String]| {
        let parts: Option<Vec<_>> = places.iter().map(|place| text_at(&value, place)).collect();
        let parts = parts.ok_or_else(|| Failure::Garbled(format!("a row lacks {}", places.join(", "))))?;
        EntityId::from_parts(&parts).map_err(|e| Failure::Garbled(e.to_string()))
    };
    let hint = id_of(settings.row.hint_key())?;
    let id = if settings.row.hint_key.is_some() { id_of(&settings.row.key)? } else { hint.clone() };
    let version = settings.row.version.as_deref().and_then(|field| version_of(&value, field));
    Ok((hint, Row { id, json: body.slice_ref(raw.get().as_bytes()), version }))
}

/// A date as unix seconds: RFC 3339 (V3), RFC 2822 (V2), or a number.
fn version_of(entity: &Value, field: &str) -> Option<i64> {
    match field.split('.').try_fold(entity, |value, name| value.get(name))? {
        Value::Number(seconds) => seconds.as_i64(),
        Value::String(text) => text
            .parse::<jiff::Timestamp>()
            .ok()
            .or_else(|| jiff::fmt::rfc2822::parse(text).ok().map(|at| at.timestamp()))
            .map(jiff::Timestamp::as_second),
        _ => None,
    }
}

/// Replaces one field of a JSON object; all others stay byte for byte, in their order.
fn replace_field(json: &[u8], field: &str, with: &str) -> Result<Bytes, String> {
    let fields: Fields<'_> =
        serde_json::from_slice(json).map_err(|e| format!("the entity is no object: {e}"))?;
    let mut out = String::with_capacity(json.len() + with.len());
    out.push('{');
    let mut replaced = false;
    for (name, value) in &fields.0 {
        let value = if name == field { with } else { value.get() };
        replaced |= name == field;
        push_field(&mut out, name, value);
    }
    if !replaced {
        push_field(&mut out, field, with);
    }
    out.push('}');
    Ok(Bytes::from(out))
}

fn push_field(out: &mut String, name: &str, value: &str) {
    if out.len() > 1 {
        out.push(',');
    }
    out.push_str(&Value::from(name).to_string());
    out.push(':');
    out.push_str(value);
}

/// The fields of an object in their order, values untouched.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_replaced_and_the_rest_stays_byte_for_byte() {
        let json = br#"{"id": 1, "total":"69.8400","products":{"url":"x"},"n":1.10,"quo\"te":null}"#;
        let changed = replace_field(json, "products", "[1, 2]").unwrap();
        assert_eq!(&changed[..], br#"{"id":1,"total":"69.8400","products":[1, 2],"n":1.10,"quo\"te":null}"#);
        assert_eq!(&replace_field(b"{}", "a", "[]").unwrap()[..], br#"{"a":[]}"#);
        assert!(replace_field(b"[]", "a", "[]").is_err());
    }

    #[test]
    fn dates_of_both_versions_are_understood() {
        for (date, expected) in [
            (json!("2018-11-14T19:26:23+00:00"), Some(1_542_223_583)),
            (json!("2018-11-14T19:26:23Z"), Some(1_542_223_583)),
            (json!("Wed, 14 Nov 2018 19:26:23 +0000"), Some(1_542_223_583)),
            (json!(1_542_223_583), Some(1_542_223_583)),
            (json!("yesterday"), None),
            (json!(null), None),
        ] {
            assert_eq!(version_of(&json!({ "at": date }), "at"), expected, "{date}");
        }
    }
}
