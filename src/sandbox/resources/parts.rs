//! What lives inside another row: the values of options and modifiers; and the few reads that are sums or always empty.

use serde_json::{Map, Value, json};

use super::generic::not_found;
use super::writes::object;
use super::{Answer, Call, orders};
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs::{self, Spec};
use crate::sandbox::store::{Key, Row};

/// Values of one option or modifier.
const LIMIT: usize = 250;
/// The field that holds them.
const VALUES: &str = "option_values";

/// The row that the path names, and the values in it.
fn owner(call: &Call<'_>) -> Result<(&'static Spec, Key, Vec<Value>), Reply> {
    let name = if call.pattern.contains("/options/") { "product_option" } else { "product_modifier" };
    let (spec, key) = (specs::known(name), call.key(1));
    let product = call.key(0).json();
    let is_below = |row: &Row| row.get("product_id") == Some(&product);
    let row = call.state.table(spec).see(&key, call.state.lag).filter(is_below);
    let row = row.ok_or_else(|| not_found(name))?;
    let values = row.get(VALUES).and_then(Value::as_array).cloned().unwrap_or_default();
    Ok((spec, key, values))
}

/// The place of the value that the path names.
fn place(call: &Call<'_>, values: &[Value]) -> Result<usize, Reply> {
    let id = call.key(2).json();
    values.iter().position(|value| value["id"] == id).ok_or_else(|| not_found("value"))
}

fn store(call: &mut Call<'_>, spec: &'static Spec, key: &Key, values: Vec<Value>) {
    call.state.change(spec, key, Map::from_iter([(VALUES.to_owned(), Value::Array(values))]));
}

pub(crate) fn list_values(call: &mut Call<'_>) -> Answer {
    let (_, _, values) = owner(call)?;
    let page = Page::of(call.query, LIMIT);
    let data: Vec<Value> = values.iter().skip(page.skip()).take(page.limit).cloned().collect();
    let meta = page.meta(values.len(), data.len(), call.query);
    Ok(Reply::bare(200, json!({"data": data, "meta": meta})))
}

pub(crate) fn get_value(call: &mut Call<'_>) -> Answer {
    let (_, _, values) = owner(call)?;
    Ok(Reply::data(200, values[place(call, &values)?].clone()))
}

pub(crate) fn create_value(call: &mut Call<'_>) -> Answer {
    let (spec, key, mut values) = owner(call)?;
    let mut value = object(call.body)?.clone();
    if value.get("label").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(Reply::field(422, "label", "label is required"));
    }
    value.shift_remove("id");
    values.push(Value::Object(value));
    store(call, spec, &key, values);
    let (_, _, values) = owner(call)?;
    Ok(Reply::data(200, values.last().cloned().unwrap_or_default()))
}

pub(crate) fn update_value(call: &mut Call<'_>) -> Answer {
    let (spec, key, mut values) = owner(call)?;
    let place = place(call, &values)?;
    let patch = object(call.body)?;
    for (name, value) in patch.iter().filter(|(name, _)| *name != "id") {
        values[place][name] = value.clone();
    }
    let shown = values[place].clone();
    store(call, spec, &key, values);
    Ok(Reply::data(200, shown))
}

/// Changes one of the adjusters of the value that the path names.
pub(crate) fn adjust_value(call: &mut Call<'_>, name: &str, to: &Value) -> Result<(), Reply> {
    let (spec, key, mut values) = owner(call)?;
    let place = place(call, &values)?;
    if !values[place]["adjusters"].is_object() {
        values[place]["adjusters"] = json!({});
    }
    values[place]["adjusters"][name] = to.clone();
    store(call, spec, &key, values);
    Ok(())
}

pub(crate) fn delete_value(call: &mut Call<'_>) -> Answer {
    let (spec, key, mut values) = owner(call)?;
    values.remove(place(call, &values)?);
    store(call, spec, &key, values);
    Ok(Reply::empty(204))
}

/// Parts of an order that no simulated order has: an order made outside the storefront has no quotes, and none has fees.
pub(crate) fn nothing_of_order(call: &mut Call<'_>) -> Answer {
    orders::order(call, call.state.lag)?;
    Ok(Reply::empty(204))
}

/// `GET /v3/catalog/summary`.
pub(crate) fn catalog_summary(call: &mut Call<'_>) -> Answer {
    let count = |name: &'static str| call.state.of(name).ids().len();
    Ok(Reply::data(
        200,
        json!({"inventory_count": 0, "variant_count": count("variant"), "inventory_value": 0,
            "highest_variant_price": 0, "average_variant_price": 0, "lowest_variant_price": "0",
            "oldest_variant_date": "2026-01-05T10:00:00+00:00", "newest_variant_date": "2026-01-05T10:00:00+00:00",
            "primary_category_id": 1, "primary_category_name": "Catalog"}),
    ))
}
