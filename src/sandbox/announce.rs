//! Which callbacks the change of a row fires: what its row in the catalogue says, and the few rules that no row can say.
//!
//! A row names scopes without their last word (`store/channel/{channel_id}/page`); the word is the operation, and what
//! the documentation does not know is not fired. Operations before the scope (`created,updated scope/word`) name the
//! whole scope for those.

use serde_json::{Map, Value};

use super::events::{self, CHANNEL, Event, Op};
use super::scopes;
use super::specs::Spec;
use super::store::{Key, Row, field, render};

/// The events that a change of `row` fires.
pub(crate) fn events_of(spec: &Spec, op: Op, key: &Key, row: &Row) -> Vec<Event> {
    let id = key.json();
    let get = |name: &str| field(spec, row, name).clone();
    match spec.name.as_str() {
        "category" => events::category(op, &id, &get("tree_id")),
        "customer_address" => vec![events::address(op, &id, &get("customer_id"))],
        "order_shipment" => vec![events::shipment(op, &id, &get("order_id"))],
        "variant" => match get("sku_id") {
            Value::Null => Vec::new(),
            sku => vec![events::sku(op, &sku, &get("product_id"), &id)],
        },
        _ => {
            let mut events: Vec<Event> =
                spec.scope.iter().map(|scope| events::simple(scope, op, &id)).collect();
            if !spec.fires.is_empty() {
                let about = about(spec, key, row);
                events.extend(spec.fires.iter().filter_map(|entry| fired(entry, op, &about)));
            }
            events
        }
    }
}

/// The event that an entry of a row's `fires` means for an operation.
fn fired(entry: &str, op: Op, about: &Map<String, Value>) -> Option<Event> {
    let scope = match entry.split_once(' ') {
        Some((ops, scope)) => ops.split(',').any(|one| one == op.word()).then(|| scope.to_owned())?,
        None => format!("{entry}/{}", op.word()),
    };
    let channel = about.get("channel_id").map_or_else(|| CHANNEL.to_string(), Value::to_string);
    let scope = scope.replace("{channel_id}", channel.trim_matches('"'));
    let data = scopes::payload(&scope, about)?;
    Some(Event { scope, data })
}

/// What the payloads of a row's callbacks may carry: its fields, its id under the names that payloads use.
fn about(spec: &Spec, key: &Key, row: &Row) -> Map<String, Value> {
    let mut about = render(spec, row);
    for (name, value) in row.iter() {
        about.insert(name.trim_start_matches('_').to_owned(), value.clone());
    }
    let kind = if spec.name.ends_with("_metafield") { "metafield" } else { spec.name.as_str() };
    about.insert("id".to_owned(), key.json());
    about.insert(format!("{kind}_id"), key.json());
    if let (true, Key::Int(owner)) = (spec.singleton, key) {
        let channel = if *owner == 0 { CHANNEL } else { *owner };
        about.insert("channel_id".to_owned(), Value::from(channel));
    }
    if let Some(product) = about.get("product_id").cloned() {
        about.insert("affected_product_ids".to_owned(), Value::Array(vec![product]));
    }
    let renamed: Vec<(String, Value)> = spec
        .about
        .iter()
        .filter_map(|(name, own)| {
            Some((name.clone(), if own == "id" { key.json() } else { about.get(own)?.clone() }))
        })
        .collect();
    about.extend(renamed);
    about
}

/// Turns the single-record events of a batch, from `first` on, into the one event per operation that batches fire.
pub(crate) fn gather_records(outbox: &mut Vec<Event>, first: usize) {
    let events = outbox.split_off(first);
    for op in [Op::Created, Op::Updated, Op::Deleted] {
        let scope = format!("store/priceList/record/{}", op.word());
        let records: Vec<Value> =
            events.iter().filter(|event| event.scope == scope).map(|event| event.data.clone()).collect();
        if !records.is_empty() {
            outbox.push(Event::new(format!("store/priceList/records/{}", op.word()), Value::Array(records)));
        }
    }
    outbox.extend(events.into_iter().filter(|event| !event.scope.starts_with("store/priceList/record/")));
}

/// A price list that was switched on or off, beside its other events.
pub(crate) fn price_list_switched(before: bool, after: bool, key: &Key) -> Option<Event> {
    let word = match (before, after) {
        (false, true) => "activated",
        (true, false) => "deactivated",
        _ => return None,
    };
    let about = Map::from_iter([("price_list_id".to_owned(), key.json())]);
    let scope = format!("store/priceList/{word}");
    let data = scopes::payload(&scope, &about)?;
    Some(Event { scope, data })
}
