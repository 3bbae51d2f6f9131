//! What the documentation says about the bodies of writes: outer shape, fields that must be there, types of fields.
//!
//! The table holds facts that were read off the API's description: one row for each write with a JSON body. Fields that
//! it does not name are let through, as the API does.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::sandbox::reply::Reply;

/// Method; path with `{}` for ids; shape; most items; fields that must be there; types of fields.
const TABLE: &str = include_str!("../data/bodies.tsv");

/// The outer shape of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Object,
    Array,
    Either,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Integer,
    Number,
    Text,
    Flag,
    Array,
    Object,
}

/// One write's body.
#[derive(Debug)]
pub(crate) struct Facts {
    form: Form,
    max: Option<usize>,
    required: Vec<&'static str>,
    types: HashMap<&'static str, Type>,
    /// V2 words its errors otherwise, and takes numbers and their texts alike.
    is_v2: bool,
    /// Items are judged one by one by their handler, because it keeps the good ones.
    by_item: bool,
}

/// Batches whose good items are kept, or whose errors have a shape of their own.
const BY_ITEM: [&str; 5] = [
    "/v3/catalog/variants",
    "/v3/pricelists/{}/records",
    "/v3/pricelists/records",
    "/v3/content/pages",
    "/metafields",
];

static FACTS: LazyLock<HashMap<(&'static str, &'static str), Facts>> =
    LazyLock::new(|| TABLE.lines().filter_map(read).collect());

fn read(line: &'static str) -> Option<((&'static str, &'static str), Facts)> {
    let mut cells = line.split('\t');
    let (method, path) = (cells.next()?, cells.next()?);
    let form = match cells.next()? {
        "a" => Form::Array,
        "e" => Form::Either,
        _ => Form::Object,
    };
    let max = cells.next()?.parse().ok();
    let required = cells.next()?.split(',').filter(|name| *name != "-").collect();
    let types = cells.next()?.split(' ').filter_map(|group| group.split_once(':'));
    let types =
        types.flat_map(|(kind, names)| names.split(',').filter_map(move |name| Some((name, of(kind)?))));
    let by_item = BY_ITEM.iter().any(|end| path.ends_with(end)) && form != Form::Object;
    let is_v2 = path.starts_with("/v2/");
    Some(((method, path), Facts { form, max, required, types: types.collect(), is_v2, by_item }))
}

fn of(kind: &str) -> Option<Type> {
    Some(match kind {
        "i" => Type::Integer,
        "n" => Type::Number,
        "s" => Type::Text,
        "b" => Type::Flag,
        "a" => Type::Array,
        "o" => Type::Object,
        _ => return None,
    })
}

/// What is known about the body of a write; `pattern` may call its ids what it likes.
pub(crate) fn find(method: &str, pattern: &str) -> Option<&'static Facts> {
    let plain: Vec<&str> =
        pattern.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment }).collect();
    let plain = plain.join("/");
    FACTS.iter().find(|((verb, path), _)| *verb == method && *path == plain).map(|(_, facts)| facts)
}

impl Facts {
    /// Refuses a body of the wrong shape, and one whose fields are missing or of the wrong type.
    pub(crate) fn check(&self, pattern: &str, body: &Value) -> Result<(), Reply> {
        if body.is_null() {
            return Ok(());
        }
        let shape = self.refuse(Map::from_iter([(
            "body".to_owned(),
            Value::from(if self.form == Form::Array { "must be an array" } else { "must be an object" }),
        )]));
        match (self.form, body) {
            (Form::Object | Form::Either, Value::Object(item)) => {
                let errors = self.faults(item);
                if errors.is_empty() || self.by_item { Ok(()) } else { Err(self.refuse(errors)) }
            }
            (Form::Array | Form::Either, Value::Array(items)) => {
                if let Some(max) = self.max.filter(|max| items.len() > *max) {
                    return Err(Reply::plain(
                        413,
                        &format!("At most {max} items are allowed in one request."),
                    ));
                }
                if self.by_item || pattern.ends_with("/metafields") {
                    return Ok(());
                }
                let mut errors = Map::new();
                for (index, item) in items.iter().enumerate() {
                    let Value::Object(item) = item else { continue };
                    let named = self.faults(item).into_iter();
                    errors.extend(named.map(|(name, text)| (format!("{index}.{name}"), text)));
                }
                if errors.is_empty() { Ok(()) } else { Err(self.refuse(errors)) }
            }
            _ => Err(shape),
        }
    }

    /// The answer to a body with these faults.
    pub(crate) fn refuse(&self, errors: Map<String, Value>) -> Reply {
        if !self.is_v2 {
            return Reply::invalid(422, "JSON data is missing or invalid", errors);
        }
        let texts: Vec<String> = errors
            .iter()
            .map(|(name, text)| format!("{name}: {}", text.as_str().unwrap_or_default()))
            .collect();
        Reply::v2(400, &texts.join("; "))
    }

    /// What is wrong with an item: field, text.
    pub(crate) fn faults(&self, item: &Map<String, Value>) -> Map<String, Value> {
        let mut errors = Map::new();
        for name in &self.required {
            if item.get(*name).is_none_or(Value::is_null) {
                errors.insert((*name).to_owned(), Value::from("error.path.missing"));
            }
        }
        for (name, value) in item {
            let Some(kind) = self.types.get(name.as_str()) else { continue };
            if let Some(text) = self.mistyped(*kind, value) {
                errors.insert(name.clone(), Value::from(text));
            }
        }
        errors
    }

    fn mistyped(&self, kind: Type, value: &Value) -> Option<&'static str> {
        let numeric = |value: &Value| value.as_str().is_some_and(|text| text.parse::<f64>().is_ok());
        let whole = |value: &Value| {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
        };
        let (right, text) = match kind {
            Type::Integer => (whole(value) || self.is_v2 && numeric(value), "error.expected.jsnumber"),
            Type::Number => (value.is_number() || self.is_v2 && numeric(value), "error.expected.jsnumber"),
            Type::Text => (value.is_string() || self.is_v2 && value.is_number(), "error.expected.jsstring"),
            Type::Flag => (value.is_boolean(), "error.expected.jsboolean"),
            Type::Array => (value.is_array(), "error.expected.jsarray"),
            Type::Object => (value.is_object(), "error.expected.jsobject"),
        };
        (!right && !value.is_null()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_of_the_table_is_read_and_belongs_to_a_route() {
        assert_eq!(FACTS.len(), TABLE.lines().count());
        let unserved: Vec<_> =
            FACTS.keys().filter(|(method, path)| !super::super::serves(method, path)).collect();
        assert!(unserved.is_empty(), "{unserved:?}");
    }

    #[test]
    fn missing_and_mistyped_fields_are_named_with_the_index_of_their_item() {
        let facts = find("POST", "/v3/customers").unwrap();
        let body = json!([{"email": "a@example.com", "first_name": "A", "last_name": "B"},
            {"email": 5, "first_name": "A"}]);
        let reply = facts.check("/v3/customers", &body).unwrap_err();
        let errors = reply.body.unwrap()["errors"].clone();
        assert_eq!(
            errors,
            json!({"1.last_name": "error.path.missing", "1.email": "error.expected.jsstring"})
        );
        assert_eq!(facts.check("/v3/customers", &json!({})).unwrap_err().status, 422);
        let old = find("POST", "/v2/coupons").unwrap();
        assert_eq!(old.check("/v2/coupons", &json!({"name": "C"})).unwrap_err().status, 400);
    }
}
