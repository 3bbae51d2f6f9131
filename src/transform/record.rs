//! What an expression sees of a Kafka record beside its value.

use serde_json::{Map, Value};

use crate::model::record::InRecord;

/// The variables of a record's mapping, in the order of [`variables`].
pub const RECORD_VARIABLES: [&str; 6] = ["$key", "$headers", "$timestamp", "$topic", "$partition", "$offset"];

/// The values of [`RECORD_VARIABLES`].
///
/// `$key` is the key's JSON where it is JSON, else its text; null without a key. `$headers` is an object of texts, the
/// last of each name. `$timestamp` is in milliseconds since the epoch, as Kafka keeps it; null where it is unknown.
/// Bytes that are no UTF-8 become U+FFFD.
#[must_use]
pub fn variables(record: &InRecord) -> Vec<Value> {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let key = record.key.as_deref().map_or(Value::Null, |key| exactly(key).unwrap_or_else(|| text(key)));
    let headers: Map<String, Value> =
        record.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let partition = &record.position.partition;
    vec![
        key,
        Value::Object(headers),
        record.timestamp_ms.map_or(Value::Null, Value::from),
        Value::from(&*partition.topic),
        Value::from(partition.number),
        Value::from(record.position.offset),
    ]
}

/// The JSON of a key. A number that would lose digits is a text: it is an id.
fn exactly(key: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(key).ok()?;
    match &value {
        Value::Number(number) if number.to_string().as_bytes() != key.trim_ascii() => None,
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::model::record::{Partition, Position};
    use crate::transform::Mapping;

    fn record(key: Option<&[u8]>) -> InRecord {
        InRecord {
            position: Position { partition: Partition { topic: "erp".into(), number: 2 }, offset: 9 },
            timestamp_ms: Some(1_767_225_600_000),
            key: key.map(Bytes::copy_from_slice),
            value: None,
            headers: vec![
                ("a".into(), Bytes::from_static(b"1")),
                ("a".into(), Bytes::from_static(b"2")),
                ("b".into(), Bytes::from_static(b"\xff")),
            ],
        }
    }

    fn seen(text: &str, key: Option<&[u8]>) -> Value {
        let mapping = Mapping::compile_with(text, &RECORD_VARIABLES).unwrap();
        mapping.run_with(&json!({"v": 1}), &variables(&record(key))).unwrap()
    }

    #[test]
    fn an_expression_sees_the_record_around_its_value() {
        assert_eq!(
            seen("[.v, $key, $headers, $timestamp, $topic, $partition, $offset]", Some(b"k")),
            json!([1, "k", {"a": "2", "b": "\u{fffd}"}, 1_767_225_600_000_i64, "erp", 2, 9])
        );
        assert_eq!(seen("$timestamp / 1000 | todate", None), json!("2026-01-01T00:00:00Z"));
        assert_eq!(
            seen("def f: $offset; [f, (1 as $x | $x + $partition), {$topic}]", None),
            json!([9, 3, {"topic": "erp"}])
        );
    }

    #[test]
    fn a_key_is_its_json_or_else_its_text_and_loses_no_digit() {
        for (key, value) in [
            (&b"{\"id\": 7}"[..], json!({"id": 7})),
            (b"77", json!(77)),
            (b"007", json!("007")),
            (b"12345678901234567890123", json!("12345678901234567890123")),
            (b"1.50", json!("1.50")),
            (b"sku-1", json!("sku-1")),
            (b"", json!("")),
        ] {
            assert_eq!(seen("$key", Some(key)), value);
        }
        assert_eq!(seen("$key", None), json!(null));
    }

    #[test]
    fn a_mapping_without_variables_has_none() {
        let error = Mapping::compile("$key").unwrap_err();
        assert_eq!((error.line, error.column, error.message.as_str()), (1, 1, "undefined variable $key"));
    }
}
