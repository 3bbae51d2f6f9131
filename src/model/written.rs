//! A note: "the bridge wrote this". The outgoing path leaves it on the intake topic after each write, so that the
//! incoming path knows the callback that follows for the bridge's own. Pure.
//!
//! It holds no content, only what content can be compared by: for each field a hash of its name and of its value.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::content::content_of;
use super::ids::EntityKey;
use super::record::InRecord;

/// The scope of a record of the intake that holds notes.
pub const SCOPE: &str = "bridge/written";

/// Fields of one note, at most: twice what BigCommerce's widest entity has. What lies beyond is not compared.
const MAX_FIELDS: usize = 256;
/// Objects within objects that are looked into, at most: stock lies at the third level.
const MAX_DEPTH: usize = 4;
/// Longest text that may be a number: BigCommerce writes amounts with up to 20 digits.
const MAX_NUMBER_BYTES: usize = 32;

/// One thing that one command wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The thing as it is published; with [`Note::at`], what stands at that place of it.
    #[serde(with = "key_as_text")]
    pub key: EntityKey,
    /// The place in the thing's JSON that holds the key's id, where that is not the id that it is published by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The command.
    pub command: String,
    /// When the store's reply was in hand, in unix milliseconds.
    pub time_ms: i64,
    /// It was deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// When it changed last, in unix seconds, where the reply says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What it held after the write, as far as that is known.
    #[serde(default, skip_serializing_if = "Fingerprint::is_empty")]
    pub fields: Fingerprint,
}

/// The value of a record of the intake that holds these notes.
pub fn value_of(notes: &[Note]) -> Bytes {
    Bytes::from(serde_json::to_vec(notes).expect("texts and numbers are JSON"))
}

/// Whether a record of the intake holds notes and no hint.
pub fn is_of_notes(record: &InRecord) -> bool {
    record.header(super::hint::header::SCOPE) == Some(SCOPE)
}

/// The notes of a value; none if it is not one that this version understands.
pub fn notes_of(value: &[u8]) -> Option<Vec<Note>> {
    serde_json::from_slice(value).ok()
}

/// What a thing holds, as far as it is known: hashes of 32 bits of the names and the values of fields. A name is the
/// path down to the field, its parts joined by dots; the elements of a list are told apart by their `location_id`.
///
/// Values are compared as the API means them: `"9.9900"`, `9.99` and `"9.99"` are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Vec<(u32, u32)>);

impl Fingerprint {
    /// Of a row as the API sent it: each of its fields as a whole, but those that change without a change.
    pub fn of_row(row: &Value, volatile: &[&str]) -> Self {
        let fields = row.as_object().into_iter().flatten();
        let kept = fields.filter(|(name, value)| !volatile.contains(&name.as_str()) && !is_link(value));
        Self::collect(kept.map(|(name, value)| (name.as_str(), value)))
    }

    /// Of a payload, which holds a part of the thing: each value that is no object.
    pub fn of_payload(payload: &Value) -> Self {
        let mut leaves = Vec::new();
        walk("", payload, 0, &mut |path, value| {
            if !value.is_object() && !path.is_empty() {
                leaves.push((hash_of_name(path), hash_of(value)));
            }
        });
        Self::sorted(leaves)
    }

    /// Of values at known paths.
    pub fn collect<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> Self {
        Self::sorted(fields.map(|(path, value)| (hash_of_name(path), hash_of(value))).collect())
    }

    fn sorted(mut fields: Vec<(u32, u32)>) -> Self {
        fields.sort_unstable();
        fields.dedup_by_key(|(name, _)| *name);
        fields.truncate(MAX_FIELDS);
        Self(fields)
    }

    /// Adds the fields of another one.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
        *self = Self::sorted(std::mem::take(&mut self.0));
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every field that both have is the same, and there is one.
    pub fn agrees(&self, row: &Value) -> bool {
        let (mut compared, mut differ) = (0_usize, false);
        walk("", row, 0, &mut |path, value| {
            let name = hash_of_name(path);
            if let Ok(at) = self.0.binary_search_by_key(&name, |(name, _)| *name) {
                compared += 1;
                differ |= self.0[at].1 != hash_of(value);
            }
        });
        compared > 0 && !differ
    }
}

/// Tells each field at any depth: its path, its value.
fn walk(path: &str, value: &Value, depth: usize, tell: &mut impl FnMut(&str, &Value)) {
    if !path.is_empty() {
        tell(path, value);
    }
    if depth == MAX_DEPTH {
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| walk(&below(name), value, depth + 1, tell));
        }
        Value::Array(items) => {
            for item in items {
                let Some(Value::Number(id)) = item.get("location_id") else { continue };
                walk(&below(&id.to_string()), item, depth + 1, tell);
            }
        }
        _ => {}
    }
}

/// The link that V2 shows in the place of a sub-resource, whose rows a read may bring along.
fn is_link(value: &Value) -> bool {
    value.get("url").is_some_and(Value::is_string) && value.get("resource").is_some_and(Value::is_string)
}

fn hash_of_name(path: &str) -> u32 {
    let digest = Sha256::digest(path.as_bytes());
    u32::from_be_bytes(digest[..4].try_into().expect("a digest has 32 bytes"))
}

/// Half of the hash of the content: a change of a field is overlooked once in four billion.
fn hash_of(value: &Value) -> u32 {
    u32::try_from(content_of(&canonical(value)) & u64::from(u32::MAX)).expect("it was cut to 32 bits")
}

/// The value with all numbers as texts, written in one way.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(number) => {
            let number = number.to_string();
            Value::String(decimal(&number).unwrap_or(number))
        }
        Value::String(text) => Value::String(decimal(text).unwrap_or_else(|| text.clone())),
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), canonical(value))).collect()
        }
    }
}

/// A plain decimal number without the zeros at its end; none for any other text, and for one that begins with a zero
/// that no number has, such as a post code.
fn decimal(text: &str) -> Option<String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let leads_with_zero = whole.len() > 1 && whole.starts_with('0');
    if text.len() > MAX_NUMBER_BYTES || !is_number(whole) || !is_number(part) || leads_with_zero {
        return None;
    }
    let (part, mut number) = (part.trim_end_matches('0'), whole.to_owned());
    if !part.is_empty() {
        number = format!("{number}.{part}");
    }
    let is_negative = digits.len() < text.len() && number != "0";
    Some(if is_negative { format!("-{number}") } else { number })
}

mod key_as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::model::ids::EntityKey;

    pub(super) fn serialize<S: Serializer>(key: &EntityKey, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EntityKey, D::Error> {
        EntityKey::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_the_same_however_they_are_written() {
        let of = |price: Value| Fingerprint::of_row(&json!({ "price": price }), &[]);
        for same in [json!(9.9), json!("9.9"), json!("9.9000"), json!("9.90")] {
            assert!(of(json!(9.9)).agrees(&json!({ "price": same })), "{same}");
        }
        for other in [json!("9.91"), json!("-9.9"), json!("09.9"), json!("9.9 "), json!([9.9]), json!(null)] {
            assert!(!of(json!(9.9)).agrees(&json!({ "price": other })), "{other}");
        }
        assert!(!of(json!("0123")).agrees(&json!({ "price": "123" })), "a post code is no amount");
        assert!(of(json!("-0.00")).agrees(&json!({ "price": 0 })));
    }

    #[test]
    fn what_only_one_side_has_is_not_compared_and_nothing_in_common_is_no_agreement() {
        let note =
            Fingerprint::of_row(&json!({ "id": 7, "name": "a", "date_modified": "x" }), &["date_modified"]);
        assert!(note.agrees(&json!({ "id": 7, "name": "a", "date_modified": "y", "images": [] })));
        assert!(!note.agrees(&json!({ "id": 7, "name": "b" })));
        assert!(!note.agrees(&json!({ "images": [] })));
        assert!(!Fingerprint::default().agrees(&json!({ "id": 7 })));
    }

    #[test]
    fn a_link_in_a_reply_says_nothing_about_the_rows_that_were_read_in_its_place() {
        let reply = json!({ "id": 7, "products": { "url": "https://x.example/v2/orders/7/products", "resource": "/orders/7/products" } });
        let read = json!({ "id": 7, "products": [{ "id": 1 }] });
        assert!(Fingerprint::of_row(&reply, &[]).agrees(&read));
    }

    #[test]
    fn a_payload_is_compared_by_its_leaves() {
        let note =
            Fingerprint::of_payload(&json!({ "name": "a", "address": { "city": "Ulm" }, "tags": [1, 2] }));
        let read = |city: &str| json!({ "id": 1, "name": "a", "address": { "city": city, "zip": "1" }, "tags": [1, 2] });
        assert!(note.agrees(&read("Ulm")) && !note.agrees(&read("Bonn")));
    }

    #[test]
    fn stock_is_told_apart_by_its_location() {
        let level = json!(5);
        let note = Fingerprint::collect([("locations.2.total_inventory_onhand", &level)].into_iter());
        let read = |first: u8, second: u8| {
            json!({ "locations": [
                { "location_id": 1, "total_inventory_onhand": first },
                { "location_id": 2, "total_inventory_onhand": second },
            ] })
        };
        assert!(note.agrees(&read(9, 5)) && note.agrees(&read(8, 5)) && !note.agrees(&read(5, 4)));
    }

    #[test]
    fn a_note_reads_as_it_is_written() {
        let note = Note {
            key: EntityKey::parse("inventory_item/A%20B").unwrap(),
            at: Some("identity.sku".into()),
            command: "c-1".into(),
            time_ms: 77,
            deleted: false,
            version: Some(9),
            fields: Fingerprint::of_row(&json!({ "a": 1, "b": "x" }), &[]),
        };
        assert_eq!(notes_of(&value_of(std::slice::from_ref(&note))), Some(vec![note]));
        assert_eq!(notes_of(b"{}"), None);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z0-9.]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-e]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_row() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-f]", any_value(), 1..5)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_row_agrees_with_itself_and_with_no_row_in_which_a_field_differs(row in any_row(), other in any_value()) {
            let note = Fingerprint::of_row(&row, &[]);
            prop_assert!(note.agrees(&row));
            for name in row.as_object().unwrap().keys() {
                let mut changed = row.clone();
                changed[name] = other.clone();
                let is_same = hash_of(&row[name]) == hash_of(&other);
                prop_assert_eq!(note.agrees(&changed), is_same, "{} {}", row, changed);
            }
        }

        #[test]
        fn a_number_is_the_same_with_zeros_at_its_end(whole in 0_u32.., part in "[0-9]{1,4}", zeros in "0{0,4}") {
            let text = format!("{whole}.{part}");
            prop_assert_eq!(decimal(&text), decimal(&format!("{text}{zeros}")));
            prop_assert!(decimal(&text).is_some());
        }
    }
}
