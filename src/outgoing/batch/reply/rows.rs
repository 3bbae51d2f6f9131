//! The rows of a reply, and whose they are.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::super::plan::{at, scalar};
use super::super::{Group, Key, Part};

/// The one field of a reply that matters here.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The array that a reply holds: its `data`, or itself. None where there is none.
pub(in super::super) fn rows(body: &[u8]) -> Option<Vec<&RawValue>> {
    if body.trim_ascii_start().starts_with(b"[") {
        return serde_json::from_slice(body).ok();
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    serde_json::from_str(envelope.data?.get()).ok()
}

/// For each part the rows of its items; none where one of them is missing. `by_position`: where rows cannot be told by
/// their fields (a store may change what it was sent), as many as there are items are the items' in their order, unless
/// one of the others stands in another's place.
pub(in super::super) fn of_parts<'a>(
    group: &Group,
    parts: &[Part],
    rows: &[&'a RawValue],
    by_position: bool,
) -> Vec<Option<Vec<&'a str>>> {
    let count = super::items(parts);
    let mut found: Vec<Option<&'a str>> = vec![None; count];
    let items = Items::new(group, parts);
    let mut is_in_order = rows.len() == count;
    for (place, row) in rows.iter().enumerate() {
        if let Ok(fields) = serde_json::from_str::<Map<String, Value>>(row.get())
            && let Some(item) = items.find(&fields)
        {
            found[item] = Some(row.get());
            is_in_order &= item == place;
        }
    }
    if by_position && is_in_order {
        found = rows.iter().map(|row| Some(row.get())).collect();
    }
    let mut found = found.into_iter();
    parts
        .iter()
        .map(|part| found.by_ref().take(part.count).collect::<Vec<_>>().into_iter().collect())
        .collect()
}

/// What stands in a result for a command's rows: the row itself, or a list of them, out of the reply's bytes.
pub(super) fn body(reply: &Bytes, rows: &[&str]) -> Bytes {
    match rows {
        [row] => reply.slice_ref(row.as_bytes()),
        rows => Bytes::from(format!("[{}]", rows.join(","))),
    }
}

/// The items of a request, to be found by what they are about.
pub(super) struct Items<'a> {
    fields: &'a [String],
    by_key: HashMap<&'a Key, usize>,
    /// Which fields are there in the keys.
    shapes: HashSet<Vec<bool>>,
}

impl<'a> Items<'a> {
    pub(super) fn new(group: &'a Group, parts: &'a [Part]) -> Self {
        let keys = || parts.iter().flat_map(|part| part.keys.iter());
        let by_key = keys().enumerate().map(|(at, key)| (key, at)).collect();
        let shapes = keys().map(|key| key.0.iter().map(Option::is_some).collect()).collect();
        Self { fields: &group.fields, by_key, shapes }
    }

    /// The item that something with these fields is about: it agrees in all that the item's key has.
    pub(super) fn find(&self, fields: &Map<String, Value>) -> Option<usize> {
        self.shapes.iter().find_map(|shape| {
            let mut shape = shape.iter();
            let held = |field: &str| {
                let is_there = shape.next().is_some_and(|is_there| *is_there);
                if is_there { at(fields, field).and_then(scalar) } else { None }
            };
            let key = Key::new(self.fields, held)?;
            self.by_key.get(&key).copied()
        })
    }

    /// The item whose key is this one value.
    pub(super) fn find_id(&self, id: &str) -> Option<usize> {
        let id: Box<str> = id.to_lowercase().into();
        let alone =
            self.shapes.iter().filter(|shape| shape.iter().filter(|is_there| **is_there).count() == 1);
        alone.into_iter().find_map(|shape| {
            let values = shape.iter().map(|is_there| is_there.then(|| id.clone()));
            self.by_key.get(&Key(values.collect())).copied()
        })
    }
}
