//! Shipments of V2 orders, and the order's status that follows from them.

use serde_json::{Map, Value, json};

use super::orders::{self, bare, not_found, order, parts, pick};
use super::{Answer, Call};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs;
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Lag, field, render};

/// Status ids that shipments lead to.
const SHIPPED: i64 = 2;
const PARTIALLY_SHIPPED: i64 = 3;

pub(crate) fn list(call: &mut Call<'_>) -> Answer {
    Ok(bare(call, &parts(call, "order_shipment")?))
}

pub(crate) fn count(call: &mut Call<'_>) -> Answer {
    Ok(Reply::bare(200, json!({"count": parts(call, "order_shipment")?.len()})))
}

pub(crate) fn get(call: &mut Call<'_>) -> Answer {
    let rows = parts(call, "order_shipment")?;
    pick(call, rows)
}

/// What an order still has to ship: line id and quantity.
pub(crate) fn open_lines(state: &State, order: u64) -> Vec<(u64, i64)> {
    let (spec, table) = (specs::known("order_product"), state.of("order_product"));
    let number = |row: &Map<String, Value>, name: &str| field(spec, row, name).as_i64().unwrap_or(0);
    let rows = table.find("order_id", &order.to_string()).into_iter().filter_map(|key| {
        let row = table.get(&key)?;
        let left = number(&row, "quantity") - number(&row, "quantity_shipped");
        if let Key::Int(id) = key { Some((id, left)) } else { None }
    });
    rows.filter(|(_, left)| *left > 0).collect()
}

/// Ships lines of an order and moves its status along. Returns the shipment's id.
pub(crate) fn insert(
    state: &mut State,
    order: u64,
    mut row: Map<String, Value>,
    items: &[(u64, i64)],
) -> Key {
    let lines = specs::known("order_product");
    let mut shown = Vec::new();
    for (id, quantity) in items {
        let key = Key::Int(*id);
        let Some(line) = state.table(lines).get(&key) else { continue };
        let shipped = field(lines, &line, "quantity_shipped").as_i64().unwrap_or(0) + quantity;
        state.quiet_change(
            lines,
            &key,
            Map::from_iter([("quantity_shipped".to_owned(), Value::from(shipped))]),
        );
        shown.push(json!({"order_product_id": id, "product_id": field(lines, &line, "product_id"), "quantity": quantity}));
    }
    let parent = specs::known("order");
    let owner = state.table(parent).get(&Key::Int(order)).unwrap_or_default();
    row.insert("order_id".to_owned(), Value::from(order));
    row.insert("customer_id".to_owned(), field(parent, &owner, "customer_id").clone());
    row.insert("billing_address".to_owned(), field(parent, &owner, "billing_address").clone());
    row.insert("items".to_owned(), Value::Array(shown));
    let (spec, table) = (specs::known("order_shipping_address"), state.of("order_shipping_address"));
    let address = row.get("order_address_id").and_then(Key::from_json).and_then(|key| table.get(&key));
    if let Some(address) = address {
        let names = [
            "first_name",
            "last_name",
            "company",
            "street_1",
            "street_2",
            "city",
            "state",
            "zip",
            "country",
            "country_iso2",
            "phone",
            "email",
        ];
        let shown = render(spec, &address);
        let copied = names.iter().map(|name| ((*name).to_owned(), shown[*name].clone())).collect();
        row.insert("shipping_address".to_owned(), Value::Object(copied));
    }
    let key = state.insert(specs::known("order_shipment"), row);
    let shipped: i64 = field(parent, &owner, "items_shipped").as_i64().unwrap_or(0)
        + items.iter().map(|item| item.1).sum::<i64>();
    let status = if open_lines(state, order).is_empty() { SHIPPED } else { PARTIALLY_SHIPPED };
    let patch = Map::from_iter([
        ("items_shipped".to_owned(), Value::from(shipped)),
        ("status_id".to_owned(), Value::from(status)),
        (
            "date_shipped".to_owned(),
            Value::from(crate::sandbox::clock::rfc2822(crate::sandbox::clock::unix_s())),
        ),
    ]);
    orders::change(state, order, patch);
    key
}

pub(crate) fn create(call: &mut Call<'_>) -> Answer {
    let (id, _) = order(call, Lag::NONE)?;
    let refuse = |text: &str| Reply::v2(400, text);
    let body = call.body.as_object().ok_or_else(|| refuse("The body must be an object."))?;
    let address = body.get("order_address_id").and_then(Key::from_json);
    let addresses = call.state.of("order_shipping_address").find("order_id", &id.to_string());
    if !address.is_some_and(|key| addresses.contains(&key)) {
        return Err(refuse("The field 'order_address_id' is invalid."));
    }
    let items = body.get("items").and_then(Value::as_array).filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| refuse("The required field 'items' was not supplied."))?;
    let mut open = open_lines(call.state, id);
    let mut wanted = Vec::new();
    for item in items {
        let number = |name: &str| item.get(name).and_then(Value::as_i64);
        let (line, quantity) = number("order_product_id")
            .zip(number("quantity"))
            .ok_or_else(|| refuse("An item is invalid."))?;
        let left = open.iter_mut().find(|(id, _)| i64::try_from(*id) == Ok(line));
        let left = left.ok_or_else(|| refuse("The field 'order_product_id' is invalid."))?;
        if quantity < 1 || quantity > left.1 {
            return Err(refuse("The field 'quantity' is invalid."));
        }
        left.1 -= quantity;
        wanted.push((left.0, quantity));
    }
    let key = insert(call.state, id, fields(body), &wanted);
    let row = call.state.of("order_shipment").get(&key).ok_or_else(not_found)?;
    Ok(Reply::bare(201, Value::Object(render(specs::known("order_shipment"), &row))))
}

fn fields(body: &Map<String, Value>) -> Map<String, Value> {
    let names = [
        "order_address_id",
        "tracking_number",
        "tracking_link",
        "merchant_shipping_cost",
        "shipping_method",
        "shipping_provider",
        "tracking_carrier",
        "comments",
    ];
    names.iter().filter_map(|name| Some(((*name).to_owned(), body.get(*name)?.clone()))).collect()
}

/// The shipment in the path, which must belong to the order in the path.
fn own(call: &Call<'_>) -> Result<Key, Reply> {
    let (id, _) = order(call, Lag::NONE)?;
    let key = call.key(1);
    let of = call.state.of("order_shipment").find("order_id", &id.to_string());
    if of.contains(&key) { Ok(key) } else { Err(not_found()) }
}

pub(crate) fn update(call: &mut Call<'_>) -> Answer {
    let key = own(call)?;
    let body = call.body.as_object().ok_or_else(|| Reply::v2(400, "The body must be an object."))?;
    call.state.change(specs::known("order_shipment"), &key, fields(body));
    let row = call.state.of("order_shipment").get(&key).ok_or_else(not_found)?;
    Ok(Reply::bare(200, Value::Object(render(specs::known("order_shipment"), &row))))
}

/// `DELETE` of one shipment. The order keeps its status.
pub(crate) fn delete(call: &mut Call<'_>) -> Answer {
    let key = own(call)?;
    call.state.delete(specs::known("order_shipment"), &key);
    Ok(Reply::empty(204))
}

/// `DELETE /v2/orders/{id}/shipments`: every shipment of the order.
pub(crate) fn delete_all(call: &mut Call<'_>) -> Answer {
    let (id, _) = order(call, Lag::NONE)?;
    call.forbidden = true;
    for key in call.state.of("order_shipment").find("order_id", &id.to_string()) {
        call.state.delete(specs::known("order_shipment"), &key);
    }
    Ok(Reply::empty(204))
}
