//! What the API's JSON holds, whatever the order of its fields: hashes to compare it by, and dates. Pure.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The date at these names of a row as unix seconds: RFC 3339 (V3), RFC 2822 (V2), or a number.
pub fn seconds_at(row: &Value, field: &str) -> Option<i64> {
    match field.split('.').try_fold(row, |value, name| value.get(name))? {
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
            assert_eq!(seconds_at(&json!({ "at": date }), "at"), expected, "{date}");
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
