//! Which items the errors of a reply name: by their place in the request, or by what they are about.
//!
//! An error may be named in many ways, so each is tried. To name an item that is not meant costs one request; not to
//! name one that is costs a few, since halves find it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::super::plan::scalar;
use super::super::{Group, Part};
use super::rows::Items;

/// Where a reply lists its errors.
const LISTS: [&str; 3] = ["errors", "batch_errors", "field_errors"];
/// Where an error holds what it is about.
const SUBJECTS: [&str; 3] = ["data", "item", "identity"];

/// For each part, whether the reply names one of its items.
pub(super) fn of_parts(group: &Group, parts: &[Part], body: &[u8]) -> Vec<bool> {
    let (items, count) = (Items::new(group, parts), super::items(parts));
    let mut names = Names { items, count, named: BTreeSet::new() };
    match serde_json::from_slice(body) {
        Ok(Value::Object(reply)) => names.of_reply(&reply),
        Ok(Value::Array(errors)) => names.of_list(&errors),
        _ => {}
    }
    let mut first = 0;
    let of_part = |part: &Part| {
        let range = first..first + part.count;
        first = range.end;
        names.named.range(range).next().is_some()
    };
    parts.iter().map(of_part).collect()
}

/// Whether a reply lists any error.
pub(super) fn has_errors(body: &[u8]) -> bool {
    let Ok(Value::Object(reply)) = serde_json::from_slice(body) else { return false };
    let is_some = |list: &Value| match list {
        Value::Array(errors) => !errors.is_empty(),
        Value::Object(errors) => !errors.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    LISTS.iter().filter_map(|name| reply.get(*name)).any(is_some)
}

struct Names<'a> {
    items: Items<'a>,
    count: usize,
    named: BTreeSet<usize>,
}

impl Names<'_> {
    fn of_reply(&mut self, reply: &Map<String, Value>) {
        for list in LISTS.iter().filter_map(|name| reply.get(*name)) {
            match list {
                Value::Array(errors) => self.of_list(errors),
                Value::Object(errors) => self.of_fields(errors),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        // `{data, field_errors}`: one error, about what `data` holds.
        if reply.contains_key("field_errors") {
            self.of_subject(reply);
        }
    }

    /// A list of errors. One that names nothing may still be one of as many as there are items.
    fn of_list(&mut self, errors: &[Value]) {
        let before = self.named.len();
        for error in errors.iter().filter_map(Value::as_object) {
            self.of_error(error);
        }
        if self.named.len() == before && errors.len() == self.count {
            self.named.extend(0..self.count);
        }
    }

    fn of_error(&mut self, error: &Map<String, Value>) {
        let index = error.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        self.named.extend(index.filter(|index| *index < self.count));
        for fields in LISTS.iter().filter_map(|name| error.get(*name)?.as_object()) {
            self.of_fields(fields);
        }
        self.of_subject(error);
    }

    /// An error, or what it is about, that holds an item's key.
    fn of_subject(&mut self, error: &Map<String, Value>) {
        let subjects = SUBJECTS.iter().filter_map(|name| error.get(*name)?.as_object());
        for subject in subjects.chain([error]) {
            self.named.extend(self.items.find(subject));
        }
    }

    /// Errors by field: `3.price`, `items[3].quantity`, or an id; and lists of ids.
    fn of_fields(&mut self, fields: &Map<String, Value>) {
        for list in fields.iter().filter(|(name, _)| name.ends_with("id") || name.ends_with("ids")) {
            let ids = list.1.as_array().into_iter().flatten().filter_map(scalar);
            self.named.extend(ids.filter_map(|id| self.items.find_id(&id)));
        }
        for name in fields.keys() {
            let mut words = name.split(['.', '[', ']', '/']).filter(|word| !word.is_empty());
            let Some(number) = words.find(|word| word.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            self.named.extend(number.parse().ok().filter(|index: &usize| *index < self.count));
            self.named.extend(self.items.find_id(number));
        }
    }
}
