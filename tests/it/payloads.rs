//! A callback of every scope, as BigCommerce sends it: `tests/fixtures/callbacks.json`, a line each, more than one
//! where a payload has several shapes. The ids are invented; `store/app/uninstalled` comes last, it ends the store.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bcbridge::catalog::Catalog;
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

/// Numbers that say something else than which thing is meant, or that name what a store has few of.
const NO_IDS: &[&str] = &[
    "channel_id",
    "channel_ids",
    "customer_group_id",
    "error_code",
    "location_id",
    "new_status_id",
    "origin_channel_id",
    "previous_status_id",
    "site_id",
    "value",
];

/// What a callback says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Payload {
    pub(crate) scope: String,
    pub(crate) data: Value,
}

/// Every payload of the fixture.
pub(crate) fn payloads() -> Vec<Payload> {
    serde_json::from_str(include_str!("../fixtures/callbacks.json")).unwrap()
}

impl Payload {
    /// The same event of another thing: every id moved on by `step`.
    pub(crate) fn of_another(&self, step: u64) -> Payload {
        let mut data = self.data.clone();
        move_ids(&mut data, step);
        Payload { scope: self.scope.clone(), data }
    }

    /// The body of the callback, of now.
    pub(crate) fn body(&self, store_hash: &str) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let hash: String =
            Sha1::digest(self.data.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
        let producer = format!("stores/{store_hash}");
        json!({
            "scope": self.scope, "store_id": "1025646", "data": self.data, "hash": hash, "created_at": now,
            "producer": producer,
        })
        .to_string()
        .into_bytes()
    }
}

fn move_ids(node: &mut Value, step: u64) {
    match node {
        Value::Object(fields) => {
            let ids = fields.iter_mut().filter(|(name, _)| !NO_IDS.contains(&name.as_str()));
            ids.for_each(|(_, value)| move_ids(value, step));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_ids(item, step)),
        Value::Number(id) => *node = json!(id.as_u64().unwrap() + step),
        Value::String(text) => {
            if let Some(moved) = moved(text, step) {
                *text = moved;
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// A number or a UUID in a text, moved on; none for any other text.
fn moved(text: &str, step: u64) -> Option<String> {
    if let Ok(id) = text.parse::<u64>() {
        return Some((id + step).to_string());
    }
    let (head, tail) = text.rsplit_once('-').filter(|_| text.len() == 36)?;
    Some(format!("{head}-{:012}", tail.parse::<u64>().ok()? + step))
}

#[test]
fn every_scope_of_the_catalogue_has_a_payload() {
    let catalog = Catalog::embedded().unwrap();
    let found: BTreeSet<String> =
        payloads().iter().filter_map(|payload| Some(catalog.scope(&payload.scope)?.1.name.clone())).collect();
    let wanted = catalog.entities().iter().flat_map(|entity| &entity.scope).map(|scope| scope.name.clone());
    let missing: Vec<String> = wanted.filter(|name| !found.contains(name)).collect();
    assert!(missing.is_empty(), "no payload for {missing:?}");
}

#[test]
fn another_thing_has_other_ids_in_the_same_places() {
    let first = Payload {
        scope: "s".into(),
        data: json!({
            "id": 5, "resource_id": "7", "channel_id": 1, "currency": "usd",
            "cart_id": "5e1f0c2a-7b34-4d0e-9a61-000000000300", "more": [{ "variant_id": 8 }],
        }),
    };
    let expected = json!({
        "id": 1005, "resource_id": "1007", "channel_id": 1, "currency": "usd",
        "cart_id": "5e1f0c2a-7b34-4d0e-9a61-000000001300", "more": [{ "variant_id": 1008 }],
    });
    assert_eq!(first.of_another(1000).data, expected);
}
