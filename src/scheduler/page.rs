//! One page of a list: how it is asked for, and what its reply says.
//!
//! Rows are slices of the reply, byte for byte. A row without an id is counted and left out: it could become no hint. A
//! reply that is no list is a failure of the page, never an empty list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::cursor::{Ask, Numbered, Seen};
use super::scan::{Frame, Level, Mode};
use super::seen::hash;
use crate::catalog::place::text_at;
use crate::catalog::{DEFAULT_PART, DateFormat, Pages, Since};
use crate::incoming::plan::adjusted;
use crate::incoming::settings::EntitySettings;
use crate::model::ids::EntityId;
use crate::model::request::{ApiPath, Method, Purpose, Request};

use super::scan::Kind;

/// What the calls of a scan are for.
pub const fn purpose(kind: Kind) -> Purpose {
    match kind {
        Kind::Poll => Purpose::Poll,
        Kind::Sweep => Purpose::Sweep,
        Kind::Snapshot => Purpose::Snapshot,
    }
}

/// Rows of a page of this level, at most.
pub fn most(level: &Level, entry: Option<&EntitySettings>, mode: Mode) -> u64 {
    let list = level.list();
    let mut most = list.max;
    if let Some(entry) = entry {
        if includes(level, entry, mode) {
            most = entry.query_includes().filter_map(|include| include.page_size).fold(most, usize::min);
        }
        let own = entry.query.get("limit").and_then(|limit| limit.parse().ok());
        most = own.map_or(most, |own: usize| own.clamp(1, most));
    }
    most.max(1) as u64
}

/// Whether the list is asked for the entity's includes.
fn includes(level: &Level, entry: &EntitySettings, mode: Mode) -> bool {
    level.list().include && mode != Mode::Ids && entry.query_includes().next().is_some()
}

/// Whether a row of the list is what a read of one would bring.
pub fn is_whole(level: &Level, entry: &EntitySettings, mode: Mode) -> bool {
    let list = level.list();
    let plain = entry.query_includes().next().is_none();
    let grouped = level.row.hint_key.is_some();
    list.whole
        && !grouped
        && mode != Mode::Ids
        && entry.path_includes().next().is_none()
        && (plain || list.include)
}

/// The request for a page. `entry` is none for the lists of parents.
///
/// # Errors
/// The path lacks an id, or the configured mapping fails; one clause for people.
pub fn request(
    (frame, level, ask): (&Frame, &Level, &Ask),
    entry: Option<&EntitySettings>,
    mode: Mode,
    kind: Kind,
) -> Result<Request, String> {
    let list = level.list();
    let path = ApiPath::render(&list.path, |name| frame.places.get(name).map(String::as_str));
    let path = path.map_err(|error| error.to_string())?;
    let mut query: Vec<(String, String)> = Vec::new();
    for (name, value) in &list.query {
        match value.strip_prefix('{').and_then(|value| value.strip_suffix('}')) {
            None => query.push((name.clone(), value.clone())),
            Some(part) => match frame.places.get(part) {
                Some(value) if value != DEFAULT_PART => query.push((name.clone(), value.clone())),
                Some(_) => {}
                None => return Err(format!("the list needs {part:?}, which is missing")),
            },
        }
    }
    if let Some(entry) = entry {
        if includes(level, entry, mode) {
            let names: Vec<&str> = entry.query_includes().map(|include| include.name.as_str()).collect();
            set(&mut query, "include", names.join(","));
        }
        if let (Mode::Changed(since_ms), Some(since)) = (mode, &list.since) {
            set(&mut query, &since.param, date(since, since_ms));
        }
        for (name, value) in entry.query.iter().filter(|(name, _)| *name != "limit" && *name != "page") {
            set(&mut query, name, value.clone());
        }
    }
    for (name, value) in &ask.query {
        set(&mut query, name, value.clone());
    }
    let request = Request { method: Method::Get, path, query, body: None, purpose: purpose(kind) };
    let Some(entry) = entry else { return Ok(request) };
    let mut request = adjusted(entry, request)?;
    // Whatever the mapping says of pages: a page of another size or place would pass rows over.
    for (name, value) in &ask.query {
        set(&mut request.query, name, value.clone());
    }
    Ok(request)
}

fn set(query: &mut Vec<(String, String)>, name: &str, value: String) {
    match query.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => query.push((name.to_owned(), value)),
    }
}

/// A moment as the list's filter wants it, in whole seconds, always with time and offset.
fn date(since: &Since, at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms.max(0)).unwrap_or_default();
    let format = match since.format {
        DateFormat::Rfc3339 => "%Y-%m-%dT%H:%M:%S+00:00",
        DateFormat::Rfc2822 => "%a, %d %b %Y %H:%M:%S +0000",
    };
    at.strftime(format).to_string()
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The hint's id; none where the row lacks it.
    pub id: Option<EntityId>,
    /// Its JSON.
    pub json: Bytes,
}

/// A page as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Its rows.
    pub rows: Vec<Row>,
    /// What the next page depends on.
    pub seen: Seen,
    /// Rows in all pages, where the store tells.
    pub total: Option<u64>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    meta: Option<Value>,
}

/// Reads a reply. An empty body (204) is an empty list.
///
/// # Errors
/// It is no list; one clause for people.
pub fn read(level: &Level, places: &BTreeMap<String, String>, body: &Bytes) -> Result<Page, String> {
    let first = body.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let not_a_list = |error: serde_json::Error| format!("the reply is no list: {error}");
    let (raw, meta): (Vec<&RawValue>, Option<Value>) = match first {
        None => (Vec::new(), None),
        Some(b'[') => (serde_json::from_slice(body).map_err(not_a_list)?, None),
        // Settings and the like are one thing, with an envelope or without.
        Some(b'{') if level.list().pages == Pages::None => single(body).map_err(not_a_list)?,
        Some(_) => {
            let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(not_a_list)?;
            (envelope.data, envelope.meta)
        }
    };
    let mut page = Page::default();
    for raw in raw {
        let value: Value = serde_json::from_str(raw.get()).map_err(not_a_list)?;
        let key = id_of(&value, &level.row.key, places);
        let id = match level.row.hint_key {
            Some(_) => id_of(&value, level.row.hint_key(), places),
            None => key.clone(),
        };
        let own = key.as_ref().and_then(|key| key.parts().last()).map(str::to_owned);
        page.seen.numbers.extend(own.as_ref().and_then(|own| own.parse::<u64>().ok()));
        page.seen.rows.push(hash(key.as_ref().map_or(raw.get(), EntityId::as_str)));
        page.seen.last = own.or(page.seen.last);
        page.rows.push(Row { id, json: body.slice_ref(raw.get().as_bytes()) });
    }
    if let Some(meta) = meta {
        let number = |name: &str| meta.pointer(name).and_then(Value::as_u64);
        if meta.get("pagination").is_some_and(Value::is_object) {
            page.total = number("/pagination/total");
            page.seen.numbered = Some(Numbered {
                page: number("/pagination/current_page").unwrap_or(0),
                // Some endpoints spell it in the singular.
                pages: number("/pagination/total_pages").or(number("/pagination/total_page")).unwrap_or(0),
                size: number("/pagination/per_page").unwrap_or(0),
            });
        }
        if let Some(cursor) = meta.get("cursor_pagination").filter(|cursor| cursor.is_object()) {
            let more = cursor.pointer("/links/next").is_some_and(|next| !next.is_null());
            let end = cursor.get("end_cursor").and_then(Value::as_str).filter(|_| more);
            page.seen.after = Some(end.map(str::to_owned));
        }
    }
    Ok(page)
}

type Raw<'a> = (Vec<&'a RawValue>, Option<Value>);

/// The rows of a reply without pages: the elements of `data`, or the one thing that there is.
fn single(body: &Bytes) -> Result<Raw<'_>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Enveloped<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let enveloped: Option<Enveloped<'_>> = serde_json::from_slice(body).ok();
    let Some(data) = enveloped.and_then(|enveloped| enveloped.data) else {
        return Ok((vec![serde_json::from_slice(body)?], None));
    };
    match serde_json::from_str(data.get()) {
        Ok(rows) => Ok((rows, None)),
        Err(_) => Ok((vec![data], None)),
    }
}

/// The id whose parts stand at these places of a row; `@name` is a part that the list's path was made with.
fn id_of<'a>(row: &'a Value, key: &'a [String], places: &'a BTreeMap<String, String>) -> Option<EntityId> {
    let part = |place: &'a String| match place.strip_prefix('@') {
        Some(name) => places.get(name).map(|part| Cow::Borrowed(part.as_str())),
        None => text_at(row, place),
    };
    let parts: Option<Vec<_>> = key.iter().map(part).collect();
    EntityId::of_row(&parts?).ok()
}

#[cfg(test)]
#[path = "page/tests.rs"]
mod tests;
