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

use super::pages::{self, At};
use super::plan::{self, Plan, SUB_RESOURCE_PAGE};
use super::row::{self, Row};
use super::settings::EntitySettings;
use crate::catalog::{Pages, placeholders};
use crate::model::content::content_of;
use crate::model::envelope::{self, Page};
use crate::model::ids::EntityId;
use crate::model::reason::Reason;
use crate::model::request::{Answer, Purpose, Reply, Request};
use crate::runtime::ports::Store;

/// Halvings of one list whose content is refused, at most: eight find one bad id among 250, so this finds some
/// dozens. What is not singled out by then waits, and those that were are out of its way.
const MAX_HALVINGS: usize = 64;

/// Pages of one list, at most: 100,000 rows of a read by id are not a reply but a fault.
const MAX_PAGES: usize = 400;

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
    /// The token lacks a scope, or the plan a feature: the entity must wait for a person.
    Denied(Box<Reply>),
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

/// What all reads of one job share.
struct Reader<S> {
    store: Arc<S>,
    settings: Arc<EntitySettings>,
    purpose: Purpose,
}

/// Carries out a plan. Every id of the plan is in the result exactly once.
pub async fn read<S: Store>(
    store: Arc<S>,
    settings: Arc<EntitySettings>,
    plan: Plan,
    purpose: Purpose,
) -> Vec<Outcome> {
    let reader = Reader { store, settings, purpose };
    let mut outcomes = match &plan {
        Plan::One(id) => vec![(id.clone(), reader.one(id).await)],
        Plan::Many(ids) => reader.many(ids).await,
    };
    for include in reader.settings.path_includes() {
        let path = include.path.as_deref().expect("a path include has a path");
        for (id, outcome) in &mut outcomes {
            let Ok(rows) = outcome else { continue };
            for row in rows {
                match reader.sub(path, &include.name, id, &row.json).await {
                    Ok(json) => row.json = json,
                    Err(failure) => {
                        *outcome = Err(failure);
                        break;
                    }
                }
            }
        }
    }
    if reader.settings.path_includes().next().is_some() {
        for row in outcomes.iter_mut().filter_map(|(_, outcome)| outcome.as_mut().ok()).flatten() {
            let value: Value = serde_json::from_slice(&row.json).expect("it was put together of JSON");
            row.content = content_of(&value);
        }
    }
    outcomes
}

impl<S: Store> Reader<S> {
    async fn one(&self, id: &EntityId) -> Result<Vec<Row>, Failure> {
        let request = plan::one_request(&self.settings, id, self.purpose).map_err(Failure::Garbled)?;
        let v2 = is_v2(&request);
        let reply = self.store.send(request).await;
        if reply.answer == Answer::Missing {
            return Ok(Vec::new());
        }
        let reply = done(reply)?;
        let rows = rows_of_one(&self.settings, &reply.body, v2).map_err(Failure::Garbled)?;
        let within = !self.settings.row.read.rows.is_empty();
        let mut found = Vec::with_capacity(rows.len());
        for json in &rows {
            let (hint, row) = row::row_of(&self.settings, id, json).map_err(Failure::Garbled)?;
            if hint == *id {
                found.push(row);
            } else if !within {
                return Err(Failure::Garbled(format!("asked for {id}, the reply is about {hint}")));
            }
        }
        Ok(found)
    }

    /// Reads by a list. One that is refused for its content is read again in halves, until what BigCommerce refuses
    /// stands alone: one bad id does not spoil the others.
    async fn many(&self, ids: &[EntityId]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(ids.len());
        let mut parts = vec![ids];
        let mut halvings = 0;
        while let Some(part) = parts.pop() {
            match self.list(part).await {
                Ok(read) => outcomes.extend(read),
                Err(Failure::Refused { .. }) if part.len() > 1 && halvings < MAX_HALVINGS => {
                    halvings += 1;
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Err(Failure::Refused { reply, .. }) if part.len() > 1 => {
                    let detail = format!("many ids of a list are refused with status {}", reply.status);
                    let failure = Failure::Later { after: Duration::ZERO, detail };
                    outcomes.extend(failed(parts.drain(..).chain([part]).flatten(), &failure));
                }
                // In trouble: the other parts are not even tried.
                Err(failure @ (Failure::Later { .. } | Failure::Unauthorized | Failure::Denied(_))) => {
                    outcomes.extend(failed(parts.drain(..).chain([part]).flatten(), &failure));
                }
                Err(failure @ (Failure::Refused { .. } | Failure::Garbled(_))) => {
                    outcomes.extend(failed(part, &failure));
                }
            }
        }
        outcomes
    }

    /// Reads all pages of a list.
    async fn list(&self, ids: &[EntityId]) -> Result<Vec<Outcome>, Failure> {
        let mut broken = None;
        let mut rows: HashMap<EntityId, Vec<Row>> = ids.iter().map(|id| (id.clone(), Vec::new())).collect();
        let mut next = Some(At::First);
        for _ in 0..MAX_PAGES {
            let Some(at) = next.take() else { break };
            let Some((page, limit)) = self.page(ids, &at).await? else { break };
            let mut last = None;
            for json in &page.rows {
                match row::row_of(&self.settings, &ids[0], json) {
                    // A range and a list below a parent bring more than was asked for.
                    Ok((hint, row)) => {
                        last = row.id.parts().last().map(str::to_owned);
                        rows.entry(hint).and_modify(|rows| rows.push(row));
                    }
                    Err(detail) => broken = Some(Failure::Garbled(detail)),
                }
            }
            next = pages::next(self.style(), &page, &at, limit, last.as_deref());
        }
        if next.is_some() {
            return Err(Failure::Garbled(format!("a list has more than {MAX_PAGES} pages")));
        }
        // A row that says not whose it is may be anybody's who has none; of a group, anybody's.
        let is_group = self.settings.row.hint_key.is_some();
        let outcome = |id: &EntityId| {
            let rows = rows.remove(id).unwrap_or_default();
            match &broken {
                Some(failure) if rows.is_empty() || is_group => (id.clone(), Err(failure.clone())),
                _ => (id.clone(), Ok(rows)),
            }
        };
        Ok(ids.iter().map(outcome).collect())
    }

    fn style(&self) -> Pages {
        let many = self.settings.row.read.many.as_ref().expect("a list is only read where there is one");
        pages::style(many.pages, &many.path)
    }

    /// One page, and how many rows it may hold; none where the list's parent does not exist.
    async fn page(&self, ids: &[EntityId], at: &At) -> Result<Option<(Page, usize)>, Failure> {
        let request = plan::list_request(&self.settings, ids, at, self.purpose).map_err(Failure::Garbled)?;
        let limit = request.query.iter().find(|(name, _)| name == "limit");
        let limit = limit.and_then(|(_, value)| value.parse().ok()).unwrap_or(1);
        let below_parent = placeholders(request.path.template()).next().is_some();
        let v2 = is_v2(&request);
        let reply = self.store.send(request).await;
        if reply.answer == Answer::Missing && below_parent {
            return Ok(None);
        }
        Ok(Some((list(&done(reply)?.body, v2)?, limit)))
    }

    /// Reads all rows of a sub-resource and puts them into the entity's JSON.
    async fn sub(&self, path: &str, field: &str, id: &EntityId, json: &Bytes) -> Result<Bytes, Failure> {
        let mut array = String::from("[");
        let (style, mut next) = (pages::style(None, path), Some(At::First));
        for _ in 0..MAX_PAGES {
            let Some(at) = next.take() else { break };
            let request =
                plan::sub_request(&self.settings, path, id, &at, self.purpose).map_err(Failure::Garbled)?;
            let v2 = is_v2(&request);
            let reply = self.store.send(request).await;
            // The entity vanished between the two reads; the next try finds that out.
            if reply.answer == Answer::Missing {
                let detail = format!("its {field} are gone");
                return Err(Failure::Later { after: Duration::from_secs(1), detail });
            }
            let page = list(&done(reply)?.body, v2)?;
            for row in &page.rows {
                if array.len() > 1 {
                    array.push(',');
                }
                array.push_str(std::str::from_utf8(row).expect("JSON that was parsed is UTF-8"));
            }
            next = pages::next(style, &page, &at, SUB_RESOURCE_PAGE, None);
        }
        if next.is_some() {
            return Err(Failure::Garbled(format!("its {field} have more than {MAX_PAGES} pages")));
        }
        array.push(']');
        replace_field(json, field, &array).map_err(Failure::Garbled)
    }
}

fn failed<'a>(ids: impl IntoIterator<Item = &'a EntityId>, failure: &Failure) -> Vec<Outcome> {
    ids.into_iter().map(|id| (id.clone(), Err(failure.clone()))).collect()
}

/// The rows of a reply to a read of one: the thing itself, or the elements of its arrays that the row names.
fn rows_of_one(settings: &EntitySettings, body: &Bytes, v2: bool) -> Result<Vec<Bytes>, String> {
    let whole = if v2 { body.clone() } else { envelope::single(body).map_err(|e| e.to_string())? };
    let places = &settings.row.read.rows;
    if places.is_empty() {
        let raw: &RawValue =
            serde_json::from_slice(&whole).map_err(|e| format!("the reply is no JSON: {e}"))?;
        return Ok(vec![whole.slice_ref(raw.get().as_bytes())]);
    }
    let mut rows = Vec::new();
    let mut is_bare = true;
    for place in places {
        let found = elements_at(&whole, place)?;
        is_bare &= found.is_none();
        rows.extend(found.into_iter().flatten());
    }
    // Without any of its arrays, the reply itself is the row.
    if is_bare { Ok(vec![whole]) } else { Ok(rows) }
}

/// The elements of the array at a place such as `line_items.physical_items`, if there is such a place.
fn elements_at(whole: &Bytes, place: &str) -> Result<Option<Vec<Bytes>>, String> {
    let mut at: &[u8] = whole;
    for name in place.split('.') {
        let fields: HashMap<String, &RawValue> =
            serde_json::from_slice(at).map_err(|e| format!("the reply has no {place}: {e}"))?;
        match fields.get(name).map(|value| value.get()) {
            Some(value) if value != "null" => at = value.as_bytes(),
            _ => return Ok(None),
        }
    }
    let rows: Vec<&RawValue> = serde_json::from_slice(at).map_err(|e| format!("{place} is no array: {e}"))?;
    Ok(Some(rows.into_iter().map(|row| whole.slice_ref(row.get().as_bytes())).collect()))
}

fn list(body: &Bytes, v2: bool) -> Result<Page, Failure> {
    let page = if v2 { envelope::bare_list(body) } else { envelope::list(body) };
    page.map_err(|e| Failure::Garbled(e.to_string()))
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
        Answer::Forbidden => Err(Failure::Denied(Box::new(reply))),
        Answer::Invalid => Err(Failure::Refused { reason: Reason::Refused, reply: Box::new(reply) }),
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
    use super::*;

    #[test]
    fn a_field_is_replaced_and_the_rest_stays_byte_for_byte() {
        let json = br#"{"id": 1, "total":"69.8400","products":{"url":"x"},"n":1.10,"quo\"te":null}"#;
        let changed = replace_field(json, "products", "[1, 2]").unwrap();
        assert_eq!(&changed[..], br#"{"id":1,"total":"69.8400","products":[1, 2],"n":1.10,"quo\"te":null}"#);
        assert_eq!(&replace_field(b"{}", "a", "[]").unwrap()[..], br#"{"a":[]}"#);
        assert!(replace_field(b"[]", "a", "[]").is_err());
    }
}
