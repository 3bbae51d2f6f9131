//! The scopes of callbacks and the payloads their documentation shows, read once from `data/scopes.tsv`.
//!
//! A line is a scope and its payload, where `<int>`, `<text>`, `<uuid>`, `<ints>` and `<texts>` stand for the value that
//! has the field's own name, and a `?` marks what may be missing. A wildcard has no payload. An array repeats its one
//! element.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// The part of a pattern that stands for a channel's number.
const CHANNEL: &str = "{channel_id}";
/// What stands for an id that nobody named.
const SOME_UUID: &str = "11111111-2222-4333-8444-555555555555";

/// Scope, then payload; wildcards have none.
static SCOPES: LazyLock<HashMap<&'static str, Option<Value>>> = LazyLock::new(|| {
    let lines = include_str!("data/scopes.tsv").lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (scope, payload) = line.split_once('\t').unwrap_or((line, ""));
            (scope, serde_json::from_str(payload).ok())
        })
        .collect()
});

/// Every scope as the documentation writes it, in order; a channel's number is `{channel_id}`.
pub(crate) fn all() -> Vec<&'static str> {
    let mut all: Vec<&'static str> = SCOPES.keys().copied().collect();
    all.sort_unstable();
    all
}

/// Whether a hook may be registered for `scope`.
pub(crate) fn is_known(scope: &str) -> bool {
    SCOPES.contains_key(pattern(scope).as_str())
}

/// The data of a callback of `scope` about the fields in `about`; none for a scope that no callback carries.
pub(crate) fn payload(scope: &str, about: &Map<String, Value>) -> Option<Value> {
    let template = SCOPES.get(pattern(scope).as_str())?.as_ref()?;
    Some(fill(template, about).unwrap_or_else(|| Value::Object(Map::new())))
}

/// The scope with `{channel_id}` in place of a channel's number.
fn pattern(scope: &str) -> String {
    let numbered = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts: Vec<&str> = scope.split('/').collect();
    if parts.get(1) == Some(&"channel")
        && let Some(part) = parts.get_mut(2)
        && numbered(part)
    {
        *part = CHANNEL;
    }
    parts.join("/")
}

fn fill(template: &Value, about: &Map<String, Value>) -> Option<Value> {
    match template {
        Value::Object(fields) => {
            let filled: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, inner)| {
                    let value = match inner.as_str().and_then(|text| text.strip_prefix('<')) {
                        Some(kind) => wanted(kind.trim_end_matches('>'), name, about.get(name))?,
                        // What is grouped below a name may be given grouped, too.
                        None => fill(inner, about.get(name).and_then(Value::as_object).unwrap_or(about))?,
                    };
                    Some((name.clone(), value))
                })
                .collect();
            (!filled.is_empty() || fields.is_empty()).then_some(Value::Object(filled))
        }
        Value::Array(items) => {
            let item = items.first()?;
            let rows = about.get("items").and_then(Value::as_array);
            let each = |row: &Value| fill(item, row.as_object()?);
            Some(match rows {
                Some(rows) => rows.iter().filter_map(each).collect(),
                None => Value::Array(vec![fill(item, about)?]),
            })
        }
        literal => Some(literal.clone()),
    }
}

/// The value for a field of a kind: the one given in the type the payload has, or an invented one.
fn wanted(kind: &str, name: &str, given: Option<&Value>) -> Option<Value> {
    let (kind, optional) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
    let Some(given) = given else {
        return (!optional).then(|| match (kind, name) {
            ("int", _) => Value::from(1),
            ("ints", _) => Value::from(vec![1]),
            ("texts", _) => Value::Array(Vec::new()),
            ("uuid", _) => Value::from(SOME_UUID),
            (_, "method") => Value::from("absolute"),
            (_, "currency") => Value::from("USD"),
            (_, name) if name.ends_with("_id") || name == "id" => Value::from("1"),
            _ => Value::from(""),
        });
    };
    Some(match (kind, given) {
        ("int", Value::String(text)) => text.parse::<i64>().map_or_else(|_| given.clone(), Value::from),
        ("text" | "uuid", Value::Number(number)) => Value::from(number.to_string()),
        ("ints", Value::Number(_)) => Value::Array(vec![given.clone()]),
        _ => given.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn about(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn every_scope_but_the_wildcards_has_a_payload() {
        assert_eq!(all().len(), 200);
        for scope in all() {
            assert_eq!(payload(scope, &Map::new()).is_none(), scope.ends_with("/*"), "{scope}");
        }
    }

    #[test]
    fn payloads_carry_ids_in_the_type_and_place_that_are_documented() {
        let check = |scope: &str, given: Value, data: Value| {
            assert_eq!(payload(scope, &about(given)), Some(data), "{scope}");
        };
        check(
            "store/sku/updated",
            json!({"id": 5, "product_id": 6, "variant_id": 7}),
            json!({"type": "sku", "id": 5, "sku": {"product_id": 6, "variant_id": 7}}),
        );
        check(
            "store/product/metafield/created",
            json!({"metafield_id": 3, "resource_id": 9}),
            json!({"metafield_id": 3, "resource_id": "9"}),
        );
        check(
            "store/priceList/records/updated",
            json!({"items": [{"price_list_id": 1, "variant_id": 2, "currency": "EUR"}, {"variant_id": 3}]}),
            json!([{"price_list_id": 1, "variant_id": 2, "currency": "EUR"},
                {"price_list_id": 1, "variant_id": 3, "currency": "USD"}]),
        );
        check("store/channel/7/page/created", json!({"page_id": 4}), json!({"page_id": 4}));
        check("store/product/updated", json!({"id": 1}), json!({"type": "product", "id": 1}));
        check("store/channel/2/socialMediaLinks/updated", json!({}), json!({}));
        assert!(is_known("store/channel/12/order/*"));
        assert!(!is_known("store/channel/x/order/*"));
        assert!(!is_known("store/nothing"));
    }
}
