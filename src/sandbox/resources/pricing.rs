//! Price records in batches, for one list or across lists, and the upsert of an assignment.
//!
//! A batch keeps its good records and names the bad ones, each with what it asked for and the fields at fault. Unlike an
//! upsert, a create refuses records that exist.

use serde_json::{Map, Value, json};

use super::generic::{compose, not_found};
use super::writes::{array, keyed, object, shown};
use super::{Answer, Call};
use crate::sandbox::announce;
use crate::sandbox::reply::Reply;
use crate::sandbox::specs::{self, KEY, Spec};
use crate::sandbox::store::{Key, Row, field};

/// Records of one upsert.
const UPSERT_MAX: usize = 1_000;
/// Records of one create.
const CREATE_MAX: usize = 100;
/// The prices of a record and what goes with them.
const FIELDS: [&str; 5] = ["price", "sale_price", "retail_price", "map_price", "bulk_pricing_tiers"];

/// What is wrong with a record: field, text.
type Fault = (&'static str, String);

/// `PUT /v3/pricelists/{price_list_id}/records`.
pub(crate) fn upsert_records(call: &mut Call<'_>) -> Answer {
    in_list(call, UPSERT_MAX, false)
}

/// `POST /v3/pricelists/{price_list_id}/records`.
pub(crate) fn create_records(call: &mut Call<'_>) -> Answer {
    in_list(call, CREATE_MAX, true)
}

fn in_list(call: &mut Call<'_>, max: usize, only_new: bool) -> Answer {
    let list = call.key(0);
    if !call.state.of("price_list").has(&list) {
        return Err(not_found("price_list"));
    }
    let faults = write(call, max, Some(&list), only_new)?;
    if faults.is_empty() {
        return Ok(Reply::bare(200, json!({"data": {}, "meta": {}})));
    }
    Err(Reply::bare(422, json!({"batch_errors": faults})))
}

/// `PUT /v3/pricelists/records`.
pub(crate) fn upsert_across(call: &mut Call<'_>) -> Answer {
    across(call, UPSERT_MAX, false)
}

/// `POST /v3/pricelists/records`.
pub(crate) fn create_across(call: &mut Call<'_>) -> Answer {
    across(call, CREATE_MAX, true)
}

/// Across lists the answer names one bad record, however many there are.
fn across(call: &mut Call<'_>, max: usize, only_new: bool) -> Answer {
    let faults = write(call, max, None, only_new)?;
    match faults.into_iter().next() {
        None => Ok(Reply::bare(200, json!({"data": {}, "meta": {}}))),
        Some(fault) => Err(Reply::bare(422, fault)),
    }
}

/// Writes the good records; returns what is wrong with the others.
fn write(call: &mut Call<'_>, max: usize, list: Option<&Key>, only_new: bool) -> Result<Vec<Value>, Reply> {
    let spec = specs::known("price_list_record");
    let events = call.state.outbox.len();
    let mut faults = Vec::new();
    for item in array(call.body, max)? {
        let planned = plan(call, spec, item, list).and_then(|(key, row)| {
            if only_new && call.state.table(spec).has(&key) {
                return Err(("variant_id", "A record exists for this variant and currency.".to_owned()));
            }
            Ok((key, row))
        });
        match planned {
            Ok((key, mut row)) if call.state.table(spec).has(&key) => {
                row.remove(KEY);
                call.state.change(spec, &key, row);
            }
            Ok((_, row)) => {
                call.state.insert(spec, row);
            }
            Err((name, text)) => faults.push(fault(item, list, name, &text)),
        }
    }
    announce::gather_records(&mut call.state.outbox, events);
    Ok(faults)
}

fn plan(
    call: &Call<'_>,
    spec: &'static Spec,
    item: &Value,
    list: Option<&Key>,
) -> Result<(Key, Map<String, Value>), Fault> {
    let item = item.as_object().ok_or_else(|| ("body", "must be an object".to_owned()))?;
    let wrong = call.facts.map(|facts| facts.faults(item)).unwrap_or_default();
    if let Some(name) = FIELDS.iter().chain(&["sku", "currency"]).find(|name| wrong.contains_key(**name)) {
        return Err((name, wrong[*name].as_str().unwrap_or_default().to_owned()));
    }
    let list = list.cloned().or_else(|| item.get("price_list_id").and_then(Key::from_json));
    let list = list.filter(|key| call.state.of("price_list").has(key));
    let list = list.ok_or_else(|| ("price_list_id", "The price list does not exist.".to_owned()))?;
    let (variant, row) = variant(call, item)?;
    let currency = item.get("currency").and_then(Value::as_str).filter(|code| code.len() == 3);
    let currency =
        currency.ok_or_else(|| ("currency", "A currency code of three letters is required.".to_owned()))?;
    let negative = |name: &&&str| item.get(**name).and_then(Value::as_f64).is_some_and(|price| price < 0.0);
    if let Some(name) = FIELDS.iter().find(negative) {
        return Err((name, "must not be negative".to_owned()));
    }
    let own = specs::known("variant");
    let mut out: Map<String, Value> =
        FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), item.get(*name)?.clone()))).collect();
    let on_sale = item.get("sale_price").filter(|price| price.as_f64().is_some_and(|price| price > 0.0));
    out.extend(on_sale.or(item.get("price")).map(|price| ("calculated_price".to_owned(), price.clone())));
    out.insert("price_list_id".to_owned(), list.json());
    out.insert("variant_id".to_owned(), variant.json());
    out.insert("currency".to_owned(), Value::from(currency));
    out.insert("product_id".to_owned(), field(own, &row, "product_id").clone());
    out.insert("sku".to_owned(), field(own, &row, "sku").clone());
    let key = compose(spec, |name| Some(Key::from_json(out.get(name)?)?.to_string()));
    let row = keyed(spec, out).map_err(|_| ("variant_id", "is required".to_owned()))?;
    key.map(|key| (key, row)).ok_or_else(|| ("variant_id", "is required".to_owned()))
}

/// The variant that a record is for, by id or by SKU.
fn variant(call: &Call<'_>, item: &Map<String, Value>) -> Result<(Key, Row), Fault> {
    let table = call.state.of("variant");
    let (name, found) = match (item.get("variant_id"), item.get("sku").and_then(Value::as_str)) {
        (Some(id), _) if !id.is_null() => ("variant_id", Key::from_json(id)),
        (_, Some(sku)) => ("sku", table.find("sku", sku).into_iter().next()),
        _ => return Err(("variant_id", "variant_id or sku is required".to_owned())),
    };
    let row = found.and_then(|key| table.get(&key).map(|row| (key, row)));
    row.ok_or_else(|| (name, "The variant does not exist.".to_owned()))
}

fn fault(item: &Value, list: Option<&Key>, name: &str, text: &str) -> Value {
    let mut data = Map::new();
    data.extend(list.map(|list| ("price_list_id".to_owned(), list.json())));
    for name in ["price_list_id", "variant_id", "sku", "currency"] {
        data.extend(item.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    json!({"data": data, "field_errors": {name: text}})
}

/// `PUT /v3/pricelists/{price_list_id}/assignments`: one list for a group in a channel, whatever it was before.
pub(crate) fn assign(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("price_list_assignment");
    let list = call.key(0);
    let body = object(call.body)?;
    let mut row = Map::from_iter([("price_list_id".to_owned(), list.json())]);
    let owners = [("customer_group_id", "customer_group"), ("channel_id", "channel")];
    let known = call.state.of("price_list").has(&list);
    for (name, owner) in owners {
        let key = body.get(name).and_then(Key::from_json).filter(|key| call.state.of(owner).has(key));
        row.insert(name.to_owned(), key.ok_or_else(|| not_found(owner))?.json());
    }
    if !known {
        return Err(not_found("price_list"));
    }
    let same = |other: &Row| owners.iter().all(|(name, _)| field(spec, other, name) == &row[*name]);
    let table = call.state.table(spec);
    let own = table.ids().iter().find(|key| table.get(key).is_some_and(|row| same(&row))).cloned();
    let key = match own {
        Some(key) => {
            call.state.change(spec, &key, row);
            key
        }
        None => call.state.insert(spec, row),
    };
    Ok(shown(call, spec, &[key], 200, true))
}
