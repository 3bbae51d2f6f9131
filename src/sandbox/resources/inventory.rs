//! Stock levels: reads by item and by location, absolute and relative adjustments.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::generic::{not_found, select};
use super::{Answer, Call};
use crate::sandbox::events::{Event, StockCause};
use crate::sandbox::query::Filter;
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs;
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Lag, Row, field};

/// Rows of a page.
const LIMIT: usize = 1000;
/// Items of one adjustment.
const ITEMS_MAX: usize = 2000;

fn variants(call: &Call<'_>) -> Vec<Row> {
    let names = [("variant_id:in", "id:in"), ("product_id:in", "product_id:in"), ("sku:in", "sku:in")];
    let filters: Vec<Filter> =
        names.iter().filter_map(|(asked, own)| Some(Filter::new(own, call.query.get(asked)?))).collect();
    select(call.state, specs::known("variant"), &filters, call.state.lag)
}

fn level(row: &Row, location: u64) -> i64 {
    row.get("_stock").and_then(|stock| stock.get(location.to_string())?.as_i64()).unwrap_or(0)
}

fn identity(row: &Row) -> Value {
    let get = |name: &str| field(specs::known("variant"), row, name).clone();
    let sku_id = get("sku_id").as_u64().unwrap_or(0);
    json!({"sku": get("sku"), "variant_id": get("id"), "product_id": get("product_id"), "sku_id": sku_id})
}

fn settings(row: &Row, level: i64) -> Value {
    let warning = row.get("inventory_warning_level").and_then(Value::as_i64).unwrap_or(0);
    json!({"safety_stock": 0, "is_in_stock": level > 0, "warning_level": warning, "bin_picking_number": ""})
}

/// `inventory item` as the API shows it, over the locations given.
pub(crate) fn item(state: &State, row: &Row, locations: &[u64]) -> Value {
    let places: Vec<Value> = locations
        .iter()
        .filter_map(|location| {
            let (spec, place) = (specs::known("location"), state.of("location").get(&Key::Int(*location))?);
            let level = level(row, *location);
            Some(json!({"location_id": location, "location_code": field(spec, &place, "code"),
                "location_name": field(spec, &place, "label"), "available_to_sell": level.max(0),
                "total_inventory_onhand": level, "location_enabled": field(spec, &place, "enabled"),
                "settings": settings(row, level)}))
        })
        .collect();
    json!({"identity": identity(row), "locations": places})
}

/// Every location's id.
pub(crate) fn locations(state: &State) -> Vec<u64> {
    let rows = state.of("location").scan(Lag::NONE);
    rows.filter_map(|(key, _)| if let Key::Int(number) = key { Some(*number) } else { None }).collect()
}

/// `GET /v3/inventory/items`.
pub(crate) fn list(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("location");
    let filters: Vec<Filter> = ["location_id:in", "location_code:in"]
        .iter()
        .filter_map(|name| Some(Filter::new(name, call.query.get(name)?)))
        .collect();
    let places: Vec<u64> = locations(call.state)
        .into_iter()
        .filter(|id| {
            call.state
                .of("location")
                .get(&Key::Int(*id))
                .is_some_and(|row| filters.iter().all(|f| f.accepts(spec, &row)))
        })
        .collect();
    let rows = variants(call);
    let page = Page::of(call.query, LIMIT);
    let data: Vec<Value> =
        rows.iter().skip(page.skip()).take(page.limit).map(|row| item(call.state, row, &places)).collect();
    let meta = page.meta(rows.len(), data.len(), call.query);
    Ok(Reply::wrapped(200, Value::Array(data), meta))
}

/// `GET /v3/inventory/locations/{location_id}/items`.
pub(crate) fn list_at(call: &mut Call<'_>) -> Answer {
    let Key::Int(place) = call.key(0) else { return Err(not_found("location")) };
    if call.state.of("location").get(&Key::Int(place)).is_none() {
        return Err(not_found("location"));
    }
    let rows = variants(call);
    let page = Page::of(call.query, LIMIT);
    let show = |row: &Row| {
        let level = level(row, place);
        let mut identity = identity(row);
        if let Some(fields) = identity.as_object_mut() {
            fields.shift_remove("sku_id");
        }
        json!({"identity": identity, "available_to_sell": level.max(0), "total_inventory_onhand": level,
            "settings": settings(row, level)})
    };
    let data: Vec<Value> = rows.iter().skip(page.skip()).take(page.limit).map(show).collect();
    let meta = page.meta(rows.len(), data.len(), call.query);
    Ok(Reply::wrapped(200, Value::Array(data), meta))
}

pub(crate) fn adjust_absolute(call: &mut Call<'_>) -> Answer {
    adjust(call, StockCause::Absolute)
}

pub(crate) fn adjust_relative(call: &mut Call<'_>) -> Answer {
    adjust(call, StockCause::Relative)
}

/// `PUT /v3/inventory/locations/{location_id}/items`: the settings of items, kept only as the event that they changed.
pub(crate) fn set_settings(call: &mut Call<'_>) -> Answer {
    let Key::Int(place) = call.key(0) else { return Err(not_found("location")) };
    if !call.state.of("location").has(&Key::Int(place)) {
        return Err(not_found("location"));
    }
    let items = call.body.get("settings").and_then(Value::as_array);
    let items = items.ok_or_else(|| Reply::field(422, "settings", "settings is required"))?;
    let mut changed = Vec::new();
    for (index, item) in items.iter().take(ITEMS_MAX).enumerate() {
        let identity = item.get("identity").unwrap_or(item);
        let variant = variant(call.state, identity)
            .map_err(|text| Reply::field(422, &format!("settings.{index}.identity"), text))?;
        let row = call.state.of("variant").get(&variant).unwrap_or_default();
        let product = field(specs::known("variant"), &row, "product_id").clone();
        changed.push(json!({"variant_id": variant.json(), "product_id": product, "location_id": place}));
    }
    let scope = "store/channel/*/inventory/product/settings_changed";
    call.state.outbox.extend(changed.into_iter().map(|data| Event::new(scope, data)));
    Ok(Reply::bare(200, json!({"transaction_id": call.state.uuid()})))
}

/// Checks every item, then applies them all: one bad item refuses the lot.
fn adjust(call: &mut Call<'_>, cause: StockCause) -> Answer {
    let items = call.body.get("items").and_then(Value::as_array);
    let items = items.ok_or_else(|| Reply::field(422, "items", "items is required"))?;
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(Reply::field(422, "items", format!("between 1 and {ITEMS_MAX} items are allowed")));
    }
    let (mut plans, mut levels) = (Vec::with_capacity(items.len()), HashMap::new());
    for (index, item) in items.iter().enumerate() {
        let refuse = |name: &str, text: &str| Reply::field(422, &format!("items.{index}.{name}"), text);
        let place = item.get("location_id").and_then(Value::as_u64);
        let place = place.filter(|id| call.state.of("location").get(&Key::Int(*id)).is_some());
        let place = place.ok_or_else(|| refuse("location_id", "an existing location is required"))?;
        let quantity =
            item.get("quantity").and_then(Value::as_i64).ok_or_else(|| refuse("quantity", "is required"))?;
        let variant = variant(call.state, item).map_err(|text| refuse("identity", text))?;
        let at = (variant.clone(), place);
        let now = levels.get(&at).copied().unwrap_or_else(|| call.state.stock(&variant, place));
        let level = if cause == StockCause::Absolute { quantity } else { now + quantity };
        if level < 0 {
            return Err(refuse("quantity", "there is not enough stock"));
        }
        levels.insert(at, level);
        plans.push((variant, place, level));
    }
    for (variant, place, level) in plans {
        call.state.set_stock(&variant, place, level, cause);
    }
    Ok(Reply::bare(200, json!({"transaction_id": call.state.uuid()})))
}

fn variant(state: &State, item: &Value) -> Result<Key, &'static str> {
    let table = state.of("variant");
    if let Some(key) = item.get("variant_id").and_then(Key::from_json) {
        return table.has(&key).then_some(key).ok_or("the variant does not exist");
    }
    if let Some(sku) = item.get("sku").and_then(Value::as_str) {
        return table.find("sku", sku).into_iter().next().ok_or("the sku does not exist");
    }
    let product =
        item.get("product_id").and_then(Value::as_u64).ok_or("variant_id, product_id or sku is required")?;
    match table.find("product_id", &product.to_string()).as_slice() {
        [only] => Ok(only.clone()),
        [] => Err("the product does not exist"),
        _ => Err("the product has variants: name one"),
    }
}
