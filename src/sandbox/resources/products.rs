//! Products, variants and categories where a row of the catalogue does not say enough.

use serde_json::{Map, Value, json};

use super::generic::{choose, envelope};
use super::writes::{accept, array, at, shown};
use super::{Answer, Call, orders, payments};
use crate::sandbox::events::StockCause;
use crate::sandbox::query::{self, Filter};
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs::{self, Spec};
use crate::sandbox::state::{MAIN_LOCATION, State};
use crate::sandbox::store::{Key, Row, field};

/// Products of one batch.
const PRODUCTS_MAX: usize = 10;
/// Rows of one variants batch.
const VARIANTS_MAX: usize = 50;
/// SKUs a product may have.
const SKUS_MAX: usize = 600;

/// The sub-resources a product may carry when it is created: field, resource.
const PARTS: [(&str, &str); 6] = [
    ("images", "product_image"),
    ("custom_fields", "product_custom_field"),
    ("bulk_pricing_rules", "product_bulk_pricing_rule"),
    ("videos", "product_video"),
    ("options", "product_option"),
    ("modifiers", "product_modifier"),
];

/// Inserts a row; a product brings its base variant and sub-resources along, a variant its stock.
pub(crate) fn insert(
    state: &mut State,
    spec: &'static Spec,
    mut row: Map<String, Value>,
) -> Result<Key, Reply> {
    match spec.name.as_str() {
        "product" => {
            check_product(state, &row)?;
            Ok(insert_product(state, row))
        }
        "variant" => {
            let product = row.get("product_id").and_then(Value::as_u64).unwrap_or(0);
            if state.of("variant").find("product_id", &product.to_string()).len() >= SKUS_MAX {
                return Err(Reply::field(422, "variants", format!("A product has at most {SKUS_MAX} SKUs.")));
            }
            row.insert("sku_id".to_owned(), Value::from(state.of("variant").last_id() + 100_001));
            let level = row.remove("inventory_level").and_then(|value| value.as_i64()).unwrap_or(0);
            set_initial_stock(&mut row, level);
            let key = state.insert(spec, row);
            state.refresh_level(product);
            Ok(key)
        }
        "order_refund" => {
            let order = row.get("order_id").and_then(Value::as_u64).unwrap_or(0);
            let total = payments::total(state, order, row.get("items"))?;
            row.insert("total_amount".to_owned(), Value::from(total));
            let key = state.insert(spec, row);
            // A refund is a change of the order's status, too.
            let status = Map::from_iter([("status_id".to_owned(), Value::from(orders::PARTIALLY_REFUNDED))]);
            orders::change(state, order, status);
            Ok(key)
        }
        _ => Ok(state.insert(spec, row)),
    }
}

fn set_initial_stock(row: &mut Map<String, Value>, level: i64) {
    row.insert("_stock".to_owned(), json!({MAIN_LOCATION.to_string(): level}));
    row.insert("inventory_level".to_owned(), Value::from(level));
}

fn check_product(state: &State, row: &Map<String, Value>) -> Result<(), Reply> {
    let categories = row.get("categories").and_then(Value::as_array);
    let known = state.of("category");
    for id in categories.into_iter().flatten() {
        if Key::from_json(id).is_none_or(|key| known.get(&key).is_none()) {
            return Err(Reply::field(409, "categories", format!("The category {id} does not exist.")));
        }
    }
    Ok(())
}

/// Inserts a product with its base variant (or the variants it carries) and its other parts.
pub(crate) fn insert_product(state: &mut State, mut row: Map<String, Value>) -> Key {
    let product = specs::known("product");
    let parts: Vec<(&'static str, Value)> =
        PARTS.iter().filter_map(|(name, resource)| Some((*resource, row.remove(*name)?))).collect();
    let variants = row.remove("variants");
    let level = row.get("inventory_level").and_then(Value::as_i64).unwrap_or(0);
    let text = |row: &Map<String, Value>, name: &str| {
        row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if !row.contains_key("custom_url") {
        let slug =
            text(&row, "name").to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        row.insert("custom_url".to_owned(), json!({"url": format!("/{slug}/"), "is_customized": false}));
    }
    let sku = text(&row, "sku");
    let key = state.insert(product, row);
    let events = state.outbox.len();
    let mut base =
        Map::from_iter([("product_id".to_owned(), key.json()), ("sku".to_owned(), Value::from(sku))]);
    set_initial_stock(&mut base, level);
    let carried: Vec<Value> = match variants {
        Some(Value::Array(items)) if !items.is_empty() => items,
        _ => vec![Value::Object(base)],
    };
    let mut first = None;
    for item in carried {
        let Value::Object(mut item) = item else { continue };
        item.insert("product_id".to_owned(), key.json());
        if item.get("option_values").is_some() && !item.contains_key("_stock") {
            item.insert("sku_id".to_owned(), Value::from(state.of("variant").last_id() + 100_001));
            let level = item.get("inventory_level").and_then(Value::as_i64).unwrap_or(0);
            set_initial_stock(&mut item, level);
        }
        let id = state.insert(specs::known("variant"), item);
        first.get_or_insert(id);
    }
    for (resource, items) in parts {
        for item in items.as_array().into_iter().flatten().filter_map(Value::as_object) {
            let mut item = item.clone();
            item.insert("product_id".to_owned(), key.json());
            state.insert(specs::known(resource), item);
        }
    }
    // The parts are the product's creation, not updates of it.
    let mut index = 0;
    state.outbox.retain(|event| {
        index += 1;
        index <= events || event.scope != "store/product/updated"
    });
    if let Some(id) = first {
        state.quiet_change(product, &key, Map::from_iter([("base_variant_id".to_owned(), id.json())]));
    }
    key
}

/// Changes a row; levels go through the stock, so that the stock's events fire.
pub(crate) fn change(
    state: &mut State,
    spec: &'static Spec,
    key: &Key,
    mut patch: Map<String, Value>,
) -> Result<(), Reply> {
    let level =
        |patch: &mut Map<String, Value>| patch.remove("inventory_level").and_then(|value| value.as_i64());
    match spec.name.as_str() {
        "product" => {
            check_product(state, &patch)?;
            let level = level(&mut patch);
            let sku = patch.get("sku").cloned();
            for (name, _) in PARTS {
                patch.remove(name);
            }
            patch.remove("variants");
            state.change(spec, key, patch);
            let variants = state.of("variant").find("product_id", &key.to_string());
            if let [only] = variants.as_slice() {
                if let Some(sku) = sku {
                    state.quiet_change(
                        specs::known("variant"),
                        only,
                        Map::from_iter([("sku".to_owned(), sku)]),
                    );
                }
                if let Some(level) = level {
                    state.set_stock(only, MAIN_LOCATION, level, StockCause::Absolute);
                }
            }
        }
        "variant" => {
            let level = level(&mut patch);
            if !patch.is_empty() || level.is_none() {
                state.change(spec, key, patch);
            }
            if let Some(level) = level {
                state.set_stock(key, MAIN_LOCATION, level, StockCause::Absolute);
            }
        }
        _ => {
            state.change(spec, key, patch);
        }
    }
    Ok(())
}

/// Refuses to delete what must stay.
pub(crate) fn check_delete(state: &State, spec: &'static Spec, key: &Key) -> Result<(), Reply> {
    if spec.name == "variant"
        && let Some(row) = state.table(spec).get(key)
        && field(spec, &row, "sku_id").is_null()
    {
        return Err(Reply::field(422, "variant_id", "The base variant of a product cannot be deleted."));
    }
    if spec.name == "location" && *key == Key::Int(MAIN_LOCATION) {
        return Err(Reply::field(422, "location_id", "The default location cannot be deleted."));
    }
    Ok(())
}

/// `GET /v3/catalog/variants`: every variant of the store.
pub(crate) fn list_variants(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("variant");
    let chosen = choose(call.state, spec, &Filter::of(spec, call.query), call.state.lag);
    Ok(envelope(spec, call.state, call.query, chosen.keys()))
}

/// `PUT /v3/catalog/products`: the good items are changed, the others named; whole refusals are for the body's shape.
pub(crate) fn update_batch(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("product");
    let items = array(call.body, PRODUCTS_MAX)?;
    let (mut keys, mut refused) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        match update_one(call.state, spec, item) {
            Ok(key) => keys.push(key),
            Err(reply) => refused.push(at(index, reply)),
        }
    }
    let Some(first) = refused.first().cloned() else { return Ok(shown(call, spec, &keys, 200, false)) };
    if keys.is_empty() {
        return Err(first);
    }
    let mut reply = shown(call, spec, &keys, 207, false);
    if let Some(body) = &mut reply.body {
        let fields = |reply: &Reply| reply.body.as_ref()?.get("errors")?.as_object().cloned();
        let errors: Map<String, Value> = refused.iter().filter_map(fields).flatten().collect();
        let title = "Some of the products could not be changed.";
        let refusal = Reply::invalid(first.status, title, errors);
        body["errors"] = refusal.body.unwrap_or(Value::Null);
    }
    Ok(reply)
}

fn update_one(state: &mut State, spec: &'static Spec, item: &Value) -> Result<Key, Reply> {
    let item = item.as_object().ok_or_else(|| Reply::field(422, "body", "must be an object"))?;
    let key =
        item.get("id").and_then(Key::from_json).ok_or_else(|| Reply::field(422, "id", "is required"))?;
    let missing = || Reply::field(404, "id", format!("The product {key} does not exist."));
    let old = state.table(spec).get(&key).ok_or_else(missing)?;
    let patch = accept(state, spec, Some((&key, &old)), item, &[])?;
    change(state, spec, &key, patch)?;
    Ok(key)
}

/// `PUT /v3/catalog/variants`: updates rows with an id, creates those without. All or nothing.
pub(crate) fn upsert_variants(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("variant");
    let (mut plans, mut faults) = (Vec::new(), Vec::new());
    for item in array(call.body, VARIANTS_MAX)? {
        match plan_variant(call, spec, item) {
            Ok(plan) => plans.push(plan),
            Err(reply) => faults.push(reply.body.unwrap_or(Value::Null)),
        }
    }
    if !faults.is_empty() {
        return Err(Reply::bare(422, json!({"batch_errors": faults})));
    }
    let mut keys = Vec::new();
    for (key, row) in plans {
        keys.push(match key {
            Some(key) => {
                change(call.state, spec, &key, row)?;
                key
            }
            None => insert(call.state, spec, row)?,
        });
    }
    let mut reply = shown(call, spec, &keys, 200, false);
    if let Some(body) = &mut reply.body {
        let page = Page { number: 1, limit: VARIANTS_MAX };
        body["meta"] = page.meta(keys.len(), keys.len(), &query::Query::default());
    }
    Ok(reply)
}

type Plan = (Option<Key>, Map<String, Value>);

fn plan_variant(call: &Call<'_>, spec: &'static Spec, item: &Value) -> Result<Plan, Reply> {
    let state: &State = call.state;
    let item = item.as_object().ok_or_else(|| Reply::field(422, "body", "must be an object"))?;
    call.faults_of(item)?;
    if let Some(key) = item.get("id").and_then(Key::from_json) {
        let old: Row = state
            .table(spec)
            .get(&key)
            .ok_or_else(|| Reply::field(422, "id", format!("The variant {key} does not exist.")))?;
        let mut patch = accept(state, spec, Some((&key, &old)), item, &[])?;
        patch.remove("product_id");
        return Ok((Some(key), patch));
    }
    let product = item.get("product_id").and_then(Key::from_json);
    let product = product.filter(|key| state.of("product").get(key).is_some());
    let product =
        product.ok_or_else(|| Reply::field(422, "product_id", "An existing product_id is required."))?;
    Ok((None, accept(state, spec, None, item, &[("product_id", product)])?))
}
