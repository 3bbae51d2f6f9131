//! Places: where a value stands in a JSON document, as the rows write it.
//!
//! `data.sku.variant_id` is a name inside a name; `data.currency|data.currency_code` is whichever is there first;
//! `=default` is that text itself. Texts and whole numbers can stand at a place, nothing else can.

use std::borrow::Cow;

use serde_json::Value;

/// The text or whole number at the first alternative of a place that holds one.
pub fn text_at<'a>(value: &'a Value, place: &'a str) -> Option<Cow<'a, str>> {
    alternatives(place).find_map(|one| match one.strip_prefix('=') {
        Some(text) => Some(Cow::Borrowed(text)),
        None => text_of(value_at(value, one)?),
    })
}

/// The alternatives of a place, in order.
pub fn alternatives(place: &str) -> impl Iterator<Item = &str> {
    place.split('|')
}

/// The value below these names; none where one of them is missing or holds null.
pub fn value_at<'a>(value: &'a Value, names: &str) -> Option<&'a Value> {
    names.split('.').try_fold(value, |value, name| value.get(name)).filter(|found| !found.is_null())
}

/// A text, or a whole number as text.
pub fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}
