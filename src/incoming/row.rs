//! One row as it was read: whose it is, how old it is, and what it holds. Pure.
//!
//! The JSON passes through byte for byte. What is compared is its content: the order of fields and the space between
//! them differ between a list and a read of one, and mean nothing.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::settings::EntitySettings;
use crate::catalog::Entity;
use crate::catalog::place::text_at;
use crate::model::ids::EntityId;

/// One row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entity's id, by which it is published.
    pub id: EntityId,
    /// Its JSON.
    pub json: Bytes,
    /// When it changed last, in unix seconds, where BigCommerce says so.
    pub version: Option<i64>,
    /// What it holds, as a hash of 53 bits.
    pub content: u64,
}

/// The hinted id that a row belongs to, and the row. `asked` is the id that the read was made for (of a list, any
/// of them: they agree in the parts that its path needs); it lends the parts that the row does not repeat.
///
/// # Errors
/// One clause for people: the row is no JSON, or lacks a part of its id.
pub fn row_of(settings: &EntitySettings, asked: &EntityId, json: &Bytes) -> Result<(EntityId, Row), String> {
    let value: Value =
        serde_json::from_slice(json).map_err(|e| format!("the reply is not as documented: {e}"))?;
    let entity = &settings.row;
    let hint = id_at(entity, entity.hint_key(), &value, asked)?;
    let id = match entity.hint_key {
        Some(_) => id_at(entity, &entity.key, &value, asked)?,
        None => hint.clone(),
    };
    let version = entity.version.as_deref().and_then(|field| version_of(&value, field));
    Ok((hint, Row { id, json: json.clone(), version, content: content_of(&value) }))
}

/// The id whose parts stand at these places of a row; `@name` is that part of the id that was asked for.
///
/// # Errors
/// A part is not there, or is not one.
pub fn id_at<'a>(
    entity: &Entity,
    places: &'a [String],
    row: &'a Value,
    asked: &'a EntityId,
) -> Result<EntityId, String> {
    let part = |place: &'a String| match place.strip_prefix('@') {
        Some(name) => part_of(entity, asked, name).map(Cow::Borrowed),
        None => text_at(row, place),
    };
    let parts: Option<Vec<_>> = places.iter().map(part).collect();
    let parts = parts.ok_or_else(|| format!("a row lacks {}", places.join(", ")))?;
    EntityId::of_row(&parts).map_err(|e| e.to_string())
}

/// The part of a hint's id that the entity calls by this name.
pub fn part_of<'a>(entity: &Entity, id: &'a EntityId, name: &str) -> Option<&'a str> {
    id.parts().nth(entity.ids.iter().position(|known| known == name)?)
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

/// The hash of what a JSON value holds, whatever the order of its fields. 53 bits of a SHA-256, so that any reader
/// of JSON keeps them: a change is overlooked once in 10^16.
pub fn content_of(value: &Value) -> u64 {
    let mut hasher = Sha256::new();
    feed(&mut hasher, value);
    let digest = hasher.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes")) >> 11
}

/// Each value is told from its neighbours by a letter and its length.
fn feed(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(is) => hasher.update([b'b', u8::from(*is)]),
        Value::Number(number) => feed_text(hasher, b'#', &number.to_string()),
        Value::String(text) => feed_text(hasher, b's', text),
        Value::Array(items) => {
            hasher.update(b"[");
            hasher.update(items.len().to_be_bytes());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Object(fields) => {
            hasher.update(b"{");
            hasher.update(fields.len().to_be_bytes());
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                feed_text(hasher, b'k', name);
                feed(hasher, value);
            }
        }
    }
}

fn feed_text(hasher: &mut Sha256, kind: u8, text: &str) {
    hasher.update([kind]);
    hasher.update(text.len().to_be_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_of_both_versions_are_understood() {
        for (date, expected) in [
            (json!("2018-11-14T19:26:23+00:00"), Some(1_542_223_583)),
            (json!("Wed, 14 Nov 2018 19:26:23 +0000"), Some(1_542_223_583)),
            (json!("2018-11-14T19:26:23Z"), Some(1_542_223_583)),
            (json!(1_542_223_583), Some(1_542_223_583)),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(version_of(&json!({ "at": date }), "at"), expected, "{date}");
        }
    }

    #[test]
    fn the_order_of_fields_means_nothing_and_everything_else_does() {
        let content = |text: &str| content_of(&serde_json::from_str(text).unwrap());
        assert_eq!(content(r#"{"a":1,"b":[true,null]}"#), content(r#"{ "b" : [true, null], "a" : 1 }"#));
        let all = [
            "1",
            "\"1\"",
            "[1]",
            "[\"1\"]",
            "{\"1\":null}",
            "[[1],[]]",
            "[[],[1]]",
            "{\"a\":{},\"b\":1}",
            "{\"a\":{\"b\":1}}",
            "\"ab\"",
            "[\"a\",\"b\"]",
            "[\"ab\"]",
            "true",
            "false",
            "null",
            "\"9.90\"",
            "\"9.9\"",
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                assert_ne!(content(one), content(other), "{one} {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn content_fits_a_json_number(text in ".*") {
            prop_assert!(content_of(&json!(text)) < 1 << 53);
        }
    }
}
