//! From a checked command to its part of a request that it may share.
//!
//! Pure. Bytes of the payload stay as they came; an id that the path of one thing holds, and the path of many does
//! not, is spliced into the item. What cannot be told apart from its neighbours in a reply is not written together.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::decode::{Checked, is_number};
use super::super::plan::{at, scalar, with_id};
use super::{Frame, Group, Key, Part};
use crate::catalog::row::IdPlace;
use crate::catalog::{Action, Body, Class};
use crate::model::request::{ApiPath, Method, Request};

/// The part of a command; none where nobody could tell its row among others. `class` is that under which it is applied,
/// and `write` the request of its own.
pub(crate) fn part(
    command: &Checked,
    action: &Action,
    body: &Map<String, Value>,
    (class, write): (Class, &Request),
) -> Option<Part> {
    let batch = action.batch.as_ref().filter(|batch| batch.max > 1)?;
    let template = batch.path.as_ref().or(action.path.as_ref())?;
    let path = ApiPath::render(template, |name| command.path_id(name)).ok()?;
    let list = batch.id_query.as_ref();
    let is_the_list = |name: &str| list.is_some_and(|list| list.name == name);
    let query = write.query.iter().filter(|(name, _)| !is_the_list(name)).cloned().collect();
    let Items { frame, items, keys } = match list {
        Some(list) if write.method == Method::Delete => id(command, list)?,
        Some(_) => return None,
        None => match (&action.items, action.body) {
            (Some(items), Body::Object) => field(command, &items.field, &batch.key)?,
            (_, Body::Array) => array(command, &batch.key)?,
            (_, Body::Object | Body::ArrayOfOne) => one(command, action, body)?,
            (_, Body::None | Body::ArrayOfId) => return None,
        },
    };
    let count = keys.len();
    let keys: Vec<Key> = match batch.key.is_empty() && list.is_none() {
        true => Vec::new(),
        // Of one that has no key nobody could tell its row, and two of a key are better told apart by the store.
        false => keys.into_iter().collect::<Option<_>>()?,
    };
    let is_distinct = keys.iter().collect::<HashSet<_>>().len() == keys.len();
    if !is_distinct || count == 0 || count > batch.max {
        return None;
    }
    let (max, reply, fields) = (batch.max, batch.reply, batch.key.clone());
    let group = Group { method: write.method, path, query, frame, max, reply, fields, class };
    Some(Part { group: Arc::new(group), items, count, keys: keys.into() })
}

/// Items, what stands around them, and what each is about.
struct Items {
    frame: Frame,
    items: Bytes,
    keys: Vec<Option<Key>>,
}

fn in_array(items: Bytes, keys: Vec<Option<Key>>) -> Items {
    let frame = Frame::Body { before: Bytes::from_static(b"["), after: Bytes::from_static(b"]") };
    Items { frame, items, keys }
}

/// Of a delete: its id.
fn id(command: &Checked, place: &IdPlace) -> Option<Items> {
    let id = command.path_id(&place.id)?;
    let key = Key(Box::new([Some(id.to_lowercase().into_boxed_str())]));
    let items = Bytes::copy_from_slice(id.as_bytes());
    Some(Items { frame: Frame::Query(place.name.clone()), items, keys: vec![Some(key)] })
}

/// The payload as the one item.
fn one(command: &Checked, action: &Action, body: &Map<String, Value>) -> Option<Items> {
    let batch = action.batch.as_ref()?;
    let mut item = command.payload.clone()?;
    let mut rest = body.len();
    let mut places: Vec<&IdPlace> = action.id_body.iter().collect();
    places.extend(batch.id_body.iter().filter(|place| action.id_body.iter().all(|p| p.name != place.name)));
    for place in &places {
        let before = item.len();
        item = with_id(&item, body, rest, (place, command.path_id(&place.id)?)).ok()?;
        rest += usize::from(item.len() > before);
    }
    let find = |field: &str| {
        let spliced = places.iter().find(|place| place.name == field);
        match spliced.and_then(|place| command.path_id(&place.id)) {
            Some(id) if is_number(id) => Some(id.trim_start_matches('0').to_owned()),
            Some(id) => Some(id.to_owned()),
            None => at(body, field).and_then(scalar),
        }
    };
    Some(in_array(item, vec![Key::new(&batch.key, find)]))
}

/// The elements of a payload that is an array.
fn array(command: &Checked, fields: &[String]) -> Option<Items> {
    let payload = command.payload.as_ref()?;
    Some(in_array(inside(payload), keys(payload, fields)?))
}

/// The elements of one field of the payload; the rest stands around them, field by field as it came.
fn field(command: &Checked, name: &str, fields: &[String]) -> Option<Items> {
    let payload = command.payload.as_ref()?;
    let mut rest: BTreeMap<String, &RawValue> = serde_json::from_slice(payload).ok()?;
    let list = payload.slice_ref(rest.remove(name)?.get().as_bytes());
    let quoted = |name: &str| Value::from(name).to_string();
    let mut before = String::from("{");
    for (name, value) in &rest {
        before.push_str(&format!("{}:{},", quoted(name), value.get()));
    }
    before.push_str(&format!("{}:[", quoted(name)));
    let frame = Frame::Body { before: before.into(), after: Bytes::from_static(b"]}") };
    Some(Items { frame, items: inside(&list), keys: keys(&list, fields)? })
}

/// An array without its brackets.
fn inside(array: &Bytes) -> Bytes {
    let whole = array.trim_ascii();
    let inside = whole.get(1..whole.len().saturating_sub(1)).unwrap_or_default();
    array.slice_ref(inside.trim_ascii())
}

fn keys(array: &[u8], fields: &[String]) -> Option<Vec<Option<Key>>> {
    let items: Vec<Value> = serde_json::from_slice(array).ok()?;
    let key = |item: &Value| {
        Key::new(fields, |field| item.as_object().and_then(|item| at(item, field)).and_then(scalar))
    };
    Some(items.iter().map(key).collect())
}
