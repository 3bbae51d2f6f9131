//! From a record to a checked command, or a refusal that says why.
//!
//! Pure. What leaves here has ids that are ids, an action that exists and a payload of the right outer shape; it
//! is not checked again. A refusal is final: nothing of such a record is ever sent. Refusals name fields and ids
//! and never repeat a payload.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::guard::{self, Wanted};
use super::transform::{Made, Mapping, not_json};
use crate::catalog::{Action, Body, Catalog, Class, Entity};
use crate::model::dead_letter::{FailedAt, first_position};
use crate::model::ids::check_part;
use crate::model::reason::Reason;
use crate::model::record::InRecord;
use crate::model::request::Method;

/// Largest payload: BigCommerce's largest documented batches stay below it, and so does a Kafka record by default.
const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Longest id of a command: it is a header, and a key of the ledger.
const MAX_ID_BYTES: usize = 256;
/// Most query parameters, and the longest name and value: together they stay below the 8 KiB that gateways take.
const MAX_QUERY: usize = 32;
const MAX_QUERY_NAME_BYTES: usize = 128;
const MAX_QUERY_VALUE_BYTES: usize = 4 * 1024;

/// Longest explanation of a refusal: it may quote a name that the sender chose.
const MAX_DETAIL_CHARS: usize = 1024;

/// What a command may have.
const FIELDS: &str = "id, entity, action, path, query, payload, if_unmodified_since and expected_version";

/// What a topic's records leave out because the topic says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The entity's name or alias.
    pub entity: String,
    /// The action.
    pub action: String,
}

/// A command that may be planned.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    /// The idempotency key.
    pub(super) id: Arc<str>,
    pub(super) entity: Arc<Entity>,
    /// Where the action stands among the entity's.
    action: usize,
    /// The path's ids by name: exactly those that the action needs.
    pub(super) path: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    /// An object, as it came.
    pub(super) payload: Option<Bytes>,
    /// What must hold of the thing before it is written.
    pub(super) guard: Option<Wanted>,
}

impl Checked {
    #[cfg(test)]
    pub(super) fn new(id: &str, entity: Arc<Entity>, action: usize, path: Vec<(String, String)>) -> Self {
        Self { id: id.into(), entity, action, path, query: Vec::new(), payload: None, guard: None }
    }

    pub(super) fn action(&self) -> &Action {
        &self.entity.action[self.action]
    }

    pub(super) fn path_id(&self, name: &str) -> Option<&str> {
        self.path.iter().find(|(n, _)| n == name).map(|(_, id)| id.as_str())
    }
}

/// A record that is no command, with as much of it as could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) id: Arc<str>,
    pub(super) entity: Option<String>,
    pub(super) action: Option<String>,
    /// Of the action, once it is known.
    pub(super) class: Option<Class>,
    pub(super) reason: Reason,
    pub(super) stage: FailedAt,
    pub(super) detail: String,
}

/// Why, before it is known of whom.
pub(super) type Fault = (Reason, String);

/// The value of a command record, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    entity: Option<String>,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    path: Option<Map<String, Value>>,
    #[serde(default)]
    query: Option<Map<String, Value>>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    if_unmodified_since: Option<Value>,
    #[serde(default)]
    expected_version: Option<Value>,
}

/// The names in a record that is no command for another reason.
#[derive(Deserialize)]
struct Loose {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    entity: Option<Value>,
    #[serde(default)]
    action: Option<Value>,
}

/// The id of a command that names none: where it stands, and of a replayed one, where it stood first.
pub(super) fn default_id(record: &InRecord) -> Arc<str> {
    first_position(record).to_string().into()
}

/// Reads and checks one record; none where the topic's filter leaves it out.
pub(super) fn decode(
    record: &InRecord,
    catalog: &Catalog,
    fixed: Option<&Fixed>,
    mapping: &Mapping,
) -> Result<Option<Checked>, Box<Refusal>> {
    let mut refusal = Refusal {
        id: default_id(record),
        entity: fixed.map(|fixed| fixed.entity.clone()),
        action: fixed.map(|fixed| fixed.action.clone()),
        class: None,
        reason: Reason::BadJson,
        stage: FailedAt::Value,
        detail: String::new(),
    };
    let checked = mapping.apply(record, &mut refusal.stage).and_then(|made| {
        let Some(text) = text(record, made)? else { return Ok(None) };
        let wire = wire(&text).inspect_err(|_| name_it(&text, &mut refusal))?;
        check(&text, wire, catalog, fixed, &mut refusal).map(Some)
    });
    checked.map_err(|(reason, detail)| {
        // The names are the sender's: one of a megabyte must not make the result too large for the broker.
        let detail = detail.chars().take(MAX_DETAIL_CHARS).collect();
        let (entity, action) = (refusal.entity.as_deref().map(shown), refusal.action.as_deref().map(shown));
        Box::new(Refusal { reason, detail, entity, action, ..refusal })
    })
}

/// The command object as UTF-8; none where the filter left the record out.
fn text(record: &InRecord, made: Made) -> Result<Option<Bytes>, Fault> {
    match (made, &record.value) {
        (Made::Nothing, _) => Ok(None),
        (Made::Object(object), _) => Ok(Some(Bytes::from(object.to_string()))),
        (Made::AsIs, Some(value)) => Ok(Some(value.clone())),
        (Made::AsIs, None) => {
            Err((Reason::BadJson, "the record has no value: a command is a JSON object".into()))
        }
    }
}

fn wire(text: &Bytes) -> Result<Wire<'_>, Fault> {
    if let Err(error) = serde_json::from_slice::<&RawValue>(text) {
        return Err(not_json(text, &error));
    }
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err((Reason::BadJson, "the value is JSON and not an object".into()));
    }
    serde_json::from_slice(text)
        .map_err(|error| (Reason::BadField, format!("{error}; a command has {FIELDS}")))
}

/// What can be told of a command that is none: who waits for its result looks for its id.
fn name_it(text: &Bytes, refusal: &mut Refusal) {
    // An array's items would be taken for the fields, in their order.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    let Some(loose) = serde_json::from_slice::<Loose>(text).ok().filter(|_| is_object) else { return };
    let given = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
    if let Some(id) = loose.id.as_ref().and_then(|id| command_id(id).ok()) {
        refusal.id = id;
    }
    refusal.entity = refusal.entity.take().or_else(|| given(&loose.entity));
    refusal.action = refusal.action.take().or_else(|| given(&loose.action));
}

fn check(
    text: &Bytes,
    wire: Wire<'_>,
    catalog: &Catalog,
    fixed: Option<&Fixed>,
    refusal: &mut Refusal,
) -> Result<Checked, Fault> {
    // An alias and the name are the same entity.
    let full =
        |name: &String| catalog.entity(name).map_or_else(|| name.clone(), |entity| entity.name.clone());
    let entity = wire.entity.as_ref().map(full);
    refusal.entity = name("entity", entity, fixed.map(|fixed| full(&fixed.entity)))?;
    refusal.action = name("action", wire.action, fixed.map(|fixed| fixed.action.clone()))?;
    if let Some(id) = wire.id {
        refusal.id = command_id(&id)?;
    }
    let (Some(entity), Some(action)) = (&refusal.entity, &refusal.action) else {
        return Err((Reason::BadField, "a command names its entity and its action".into()));
    };
    let entity = catalog
        .entity(entity)
        .ok_or_else(|| (Reason::UnknownEntity, format!("the catalogue has no entity {:?}", shown(entity))))?;
    let Some(index) = entity.action.iter().position(|known| known.name == *action) else {
        let known: Vec<&str> = entity.action.iter().map(|a| a.name.as_str()).collect();
        let detail =
            format!("{} has no action {:?}; it has {}", entity.name, shown(action), known.join(", "));
        return Err((Reason::UnknownAction, detail));
    };
    refusal.entity = Some(entity.name.clone());
    let action = &entity.action[index];
    refusal.class = Some(action.class);
    Ok(Checked {
        id: refusal.id.clone(),
        entity: entity.clone(),
        action: index,
        path: path(entity, action, &wire.path.unwrap_or_default())?,
        query: query(action, &wire.query.unwrap_or_default())?,
        payload: payload(action, wire.payload)?.map(|raw| text.slice_ref(raw.as_bytes())),
        guard: guard::wanted(wire.if_unmodified_since.as_ref(), wire.expected_version.as_ref())?,
    })
}

fn name(field: &str, given: Option<String>, fixed: Option<String>) -> Result<Option<String>, Fault> {
    match (given, fixed) {
        (Some(given), Some(fixed)) if given != fixed => {
            let detail = format!("{field} is {:?}, and this topic is for {fixed:?} only", shown(&given));
            Err((Reason::BadField, detail))
        }
        (given, fixed) => Ok(given.or(fixed)),
    }
}

/// A number is as good an id as its digits.
fn command_id(id: &Value) -> Result<Arc<str>, Fault> {
    let text = match id {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return Err((Reason::BadField, "id must be a text or a whole number".into())),
    };
    let id = text.as_str();
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let detail = format!("id must be 1 to {MAX_ID_BYTES} visible ASCII characters");
        return Err((Reason::BadField, detail));
    }
    Ok(id.into())
}

/// The ids that the action's path, query and body need.
pub fn needed_ids<'a>(entity: &'a Entity, action: &'a Action) -> Vec<&'a str> {
    match action.path {
        Some(_) => action.path_ids(),
        // An emulated upsert finds the thing by its natural key; it needs the ids of the things around it.
        None => entity.action("create").map(Action::path_ids).unwrap_or_default(),
    }
}

fn path(
    entity: &Entity,
    action: &Action,
    given: &Map<String, Value>,
) -> Result<Vec<(String, String)>, Fault> {
    let needed = needed_ids(entity, action);
    if let Some(name) = given.keys().find(|name| !needed.contains(&name.as_str())) {
        let detail = match needed.is_empty() {
            true => format!("path has {:?}, and this action takes no ids", shown(name)),
            false => format!("path has {:?}; this action takes {}", shown(name), needed.join(", ")),
        };
        return Err((Reason::BadField, detail));
    }
    let mut ids = Vec::with_capacity(needed.len());
    for name in needed {
        let Some(value) = given.get(name) else {
            return Err((Reason::BadId, format!("path has no {name:?}, which this action needs")));
        };
        let id = path_id(value).map_err(|why| (Reason::BadId, format!("path has a bad {name:?}: {why}")))?;
        if is_filter(action, name) && !is_number(&id) && uuid::Uuid::try_parse(&id).is_err() {
            // A filter that the store cannot read may be a filter that it ignores: the request would then mean all.
            let detail = format!("path has a bad {name:?}: a number or a UUID is needed here");
            return Err((Reason::BadId, detail));
        }
        ids.push((name.to_owned(), id));
    }
    Ok(ids)
}

/// Whether an id narrows what a request is about, in a request of its own or in one with others.
fn is_filter(action: &Action, id: &str) -> bool {
    let deletes = action.method == Some(Method::Delete);
    let alone = action.id_query.iter().filter(|place| deletes || place.name.ends_with(":in"));
    let together = action.batch.iter().filter_map(|batch| batch.id_query.as_ref());
    alone.chain(together).any(|place| place.id == id)
}

fn path_id(value: &Value) -> Result<String, String> {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(id) if id > 0 => Ok(id.to_string()),
            _ => Err("a number must be a positive integer that fits 64 bits".into()),
        },
        Value::String(id) => {
            check_part(id).map_err(|bad| bad.to_string())?;
            if looks_like_a_mistake(id) {
                return Err(format!("{:?} is what a broken template leaves behind", shown(id)));
            }
            Ok(id.clone())
        }
        Value::Null => Err("it is null".into()),
        Value::Bool(_) => Err("it is a boolean".into()),
        Value::Array(_) => Err("it is an array; one command is about one thing".into()),
        Value::Object(_) => Err("it is an object".into()),
    }
}

/// Texts that no id has: fractions, exponents, and what templates print for nothing.
fn looks_like_a_mistake(id: &str) -> bool {
    let words = ["null", "undefined", "nan", "none", "nil", "true", "false", "inf", "infinity"];
    (!is_number(id) && id.parse::<f64>().is_ok()) || words.iter().any(|word| id.eq_ignore_ascii_case(word))
}

pub(super) fn is_number(id: &str) -> bool {
    id.bytes().all(|b| b.is_ascii_digit())
}

fn query(action: &Action, given: &Map<String, Value>) -> Result<Vec<(String, String)>, Fault> {
    let bad = |detail: String| Err((Reason::BadField, detail));
    if given.len() > MAX_QUERY {
        return bad(format!("query has {} parameters; at most {MAX_QUERY} are taken", given.len()));
    }
    let mut query = Vec::with_capacity(given.len());
    for (name, value) in given {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'[' | b']');
        if name.is_empty() || name.len() > MAX_QUERY_NAME_BYTES || !name.bytes().all(plain) {
            return bad(format!("query has a parameter {:?}, which is no name of one", shown(name)));
        }
        if let Some(why) = forbidden(action, name) {
            return bad(format!("query must not have {:?}: {why}", shown(name)));
        }
        let text = match value {
            Value::Array(items) if !items.is_empty() => items.iter().map(item).collect::<Option<Vec<_>>>(),
            one => scalar(one).map(|text| vec![text]),
        };
        let Some(text) = text.map(|items| items.join(",")) else {
            let allowed = "a text, a number, a boolean, or a list of those, which is joined with commas";
            return bad(format!("query's {name:?} must be {allowed}; no item may be empty or have a comma"));
        };
        if text.len() > MAX_QUERY_VALUE_BYTES {
            return bad(format!("query's {name:?} is longer than {MAX_QUERY_VALUE_BYTES} bytes"));
        }
        query.push((name.clone(), text));
    }
    Ok(query)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An item of a list: one that is empty or has a comma would be read as another list.
fn item(value: &Value) -> Option<String> {
    scalar(value).filter(|text| !text.is_empty() && !text.contains(','))
}

/// Why a command must not set a parameter: it could widen what is deleted, or name a second thing.
fn forbidden(action: &Action, name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let base = name.trim_end_matches("[]");
    if action.id_query.iter().any(|place| place.name.eq_ignore_ascii_case(base)) {
        return Some("the path's id goes there");
    }
    if action.method != Some(Method::Delete) {
        return None;
    }
    if !action.id_query.is_empty() {
        return Some("a delete that is narrowed by a parameter takes no other one");
    }
    let field = base.split([':', '[']).next().unwrap_or(base);
    let filters = base.contains(':')
        || field == "id"
        || field == "ids"
        || field.ends_with("_id")
        || field.ends_with("_ids");
    filters.then_some("a delete is about the path's id and nothing else")
}

fn payload<'a>(action: &Action, given: Option<&'a RawValue>) -> Result<Option<&'a str>, Fault> {
    let bad = |detail: &str| Err((Reason::BadPayload, detail.to_owned()));
    match (action.body, given.map(RawValue::get)) {
        (Body::None | Body::ArrayOfId, None) => Ok(None),
        (Body::None | Body::ArrayOfId, Some(_)) => bad("this action takes no payload"),
        (Body::Object | Body::ArrayOfOne | Body::Array, None) => bad("this action needs a payload"),
        (_, Some(text)) if text.len() > MAX_PAYLOAD_BYTES => bad("the payload is larger than 1 MiB"),
        (Body::Array, Some(text)) if !text.starts_with('[') || text[1..].trim_start().starts_with(']') => {
            bad("the payload is not an array, or an empty one")
        }
        (Body::Array, Some(text)) => Ok(Some(text)),
        (Body::Object | Body::ArrayOfOne, Some(text)) if !text.starts_with('{') => {
            bad("the payload is not an object")
        }
        (Body::Object | Body::ArrayOfOne, Some(text)) => Ok(Some(text)),
    }
}

/// A text of the sender's, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
