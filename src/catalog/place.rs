//! Places: where a value stands in a JSON document, as the rows write it.
//!
//! `data.sku.variant_id` is a name inside a name; `data.currency|data.currency_code` is whichever is there first;
//! `=default` is that text itself. Texts and whole numbers can stand at a place, nothing else can.

use std::borrow::Cow;

use serde_json::Value;

use crate::model::ids::check_part;

/// The channel in the scope of a callback.
pub const SCOPE_CHANNEL: &str = "scope.channel_id";

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

/// Whether these are names with dots between them.
pub(super) fn is_names(names: &str) -> bool {
    names
        .split('.')
        .all(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// Whether an alternative of a place can stand in a callback, `channel` telling whether its scope holds a channel.
pub(super) fn is_callback_place(place: &str, channel: bool) -> bool {
    if let Some(text) = place.strip_prefix('=') {
        return check_part(text).is_ok();
    }
    if place == SCOPE_CHANNEL {
        return channel;
    }
    let Some(names) = place.strip_prefix("data.") else { return false };
    match names.split_once("[]") {
        None => is_names(names),
        Some((list, "")) => is_names(list),
        Some((list, rest)) => is_names(list) && rest.strip_prefix('.').is_some_and(is_names),
    }
}

/// A text, or a whole number as text.
pub fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}
