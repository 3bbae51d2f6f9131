//! Carts: lines, amounts, the optimistic lock, and the end by emptying or conversion.

use serde_json::{Map, Value, json};

use super::generic::not_found;
use super::{Answer, Call};
use crate::sandbox::events::{self, Op};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs;
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Row, field, render};
use crate::sandbox::view::Sight;

/// A line as asked for: variant and quantity.
pub(crate) struct Wanted {
    pub(crate) variant: Key,
    pub(crate) quantity: i64,
}

fn read_lines(state: &State, body: &Value) -> Result<Vec<Wanted>, Reply> {
    let lines = body.get("line_items").and_then(Value::as_array).filter(|lines| !lines.is_empty());
    let lines = lines.ok_or_else(|| Reply::field(422, "line_items", "line_items is required"))?;
    let refuse = |text: &str| Reply::field(422, "line_items", text);
    lines
        .iter()
        .map(|line| {
            let quantity = line.get("quantity").and_then(Value::as_i64).filter(|quantity| *quantity > 0);
            let quantity = quantity.ok_or_else(|| refuse("quantity must be a positive integer"))?;
            let product = line
                .get("product_id")
                .and_then(Value::as_u64)
                .ok_or_else(|| refuse("product_id is required"))?;
            let variants = state.of("variant").find("product_id", &product.to_string());
            let asked = line.get("variant_id").and_then(Key::from_json);
            let variant = match asked {
                Some(key) => variants.contains(&key).then_some(key),
                None => variants.into_iter().next(),
            };
            Ok(Wanted { variant: variant.ok_or_else(|| refuse("the product does not exist"))?, quantity })
        })
        .collect()
}

/// One line as a cart shows it.
fn line(state: &mut State, wanted: &Wanted) -> Option<Value> {
    let id = state.uuid();
    let row = state.of("variant").get(&wanted.variant)?;
    let product = field(specs::known("variant"), &row, "product_id").clone();
    let owner = state.of("product").get(&Key::from_json(&product)?)?;
    let get = |name: &str| field(specs::known("product"), &owner, name).clone();
    let price = get("price").as_f64().unwrap_or(0.0);
    let (variant, name, url) = (wanted.variant.json(), get("name"), get("custom_url"));
    let path = url["url"].as_str().unwrap_or("/");
    Some(json!({"id": id, "variant_id": variant, "product_id": product,
        "sku": field(specs::known("variant"), &row, "sku"), "name": name, "url": format!("https://sandbox.example.com{path}"),
        "quantity": wanted.quantity, "taxable": true, "image_url": "https://sandbox.example.com/i.jpg", "discounts": [],
        "coupons": [], "discount_amount": 0, "coupon_amount": 0, "original_price": price, "list_price": price,
        "sale_price": price, "is_require_shipping": true, "is_mutable": true, "added_by_promotion": false}))
}

/// The physical lines of a cart.
pub(crate) fn lines(row: &Map<String, Value>) -> Vec<Value> {
    row.get("line_items")
        .and_then(|items| items.get("physical_items")?.as_array().cloned())
        .unwrap_or_default()
}

/// The fields of a cart that follow from its lines.
fn totals(mut lines: Vec<Value>, version: u64) -> Map<String, Value> {
    let mut sum = 0.0;
    for line in &mut lines {
        let amount = line["quantity"].as_f64().unwrap_or(0.0) * line["list_price"].as_f64().unwrap_or(0.0);
        let amount = (amount * 100.0).round() / 100.0;
        line["extended_list_price"] = Value::from(amount);
        line["extended_sale_price"] = Value::from(amount);
        sum += amount;
    }
    let sum = Value::from((sum * 100.0).round() / 100.0);
    let items =
        json!({"physical_items": lines, "digital_items": [], "gift_certificates": [], "custom_items": []});
    Map::from_iter([
        ("base_amount".to_owned(), sum.clone()),
        ("cart_amount".to_owned(), sum),
        ("line_items".to_owned(), items),
        ("version".to_owned(), Value::from(version)),
    ])
}

/// Makes a cart and fires its events. Returns its id.
pub(crate) fn insert(state: &mut State, customer: u64, wanted: &[Wanted]) -> Key {
    let made: Vec<Value> = wanted.iter().filter_map(|wanted| line(state, wanted)).collect();
    let ids: Vec<String> = made.iter().filter_map(|line| line["id"].as_str().map(str::to_owned)).collect();
    let mut row = totals(made, 1);
    row.insert("customer_id".to_owned(), Value::from(customer));
    let owner = state.of("customer").get(&Key::Int(customer));
    let email = owner.and_then(|owner| owner.get("email").cloned()).unwrap_or(Value::from(""));
    row.insert("email".to_owned(), email);
    let key = state.insert(specs::known("cart"), row);
    let id = key.to_string();
    state.outbox.extend(events::cart("created", &id, &[]));
    for line in &ids {
        state.outbox.extend(events::cart_line(Op::Created, line, &id));
    }
    state.outbox.extend(events::cart("updated", &id, &[]));
    key
}

/// Replaces a cart's lines; a cart without lines is gone. False when it is gone.
fn set_lines(state: &mut State, key: &Key, lines: Vec<Value>) -> bool {
    let id = key.to_string();
    let spec = specs::known("cart");
    state.outbox.extend(events::cart("updated", &id, &[]));
    if lines.is_empty() {
        state.delete(spec, key);
        state.outbox.extend(events::cart("deleted", &id, &[]));
        return false;
    }
    let version = state.table(spec).get(key).and_then(|row| row.get("version")?.as_u64()).unwrap_or(0) + 1;
    state.quiet_change(spec, key, totals(lines, version))
}

/// Adds lines to a cart. False when there is no such cart.
pub(crate) fn add(state: &mut State, key: &Key, wanted: &[Wanted]) -> bool {
    let Some(row) = state.of("cart").get(key) else { return false };
    let mut all = lines(&row);
    for wanted in wanted {
        let same = all.iter_mut().find(|line| line["variant_id"] == wanted.variant.json());
        let (op, id) = if let Some(old) = same {
            old["quantity"] = Value::from(old["quantity"].as_i64().unwrap_or(0) + wanted.quantity);
            (Op::Updated, old["id"].clone())
        } else {
            let Some(new) = line(state, wanted) else { continue };
            let id = new["id"].clone();
            all.push(new);
            (Op::Created, id)
        };
        state.outbox.extend(events::cart_line(op, id.as_str().unwrap_or_default(), &key.to_string()));
    }
    set_lines(state, key, all)
}

/// Takes a cart away because it became an order.
pub(crate) fn convert(state: &mut State, key: &Key, order: u64) {
    if state.delete(specs::known("cart"), key) {
        let more = [("orderId", Value::from(order))];
        state.outbox.extend(events::cart("converted", &key.to_string(), &more));
    }
}

fn show(call: &Call<'_>, key: &Key, status: u16) -> Reply {
    let row = call.state.of("cart").get(key);
    row.map_or_else(|| Reply::empty(204), |row| Reply::data(status, render(specs::known("cart"), &row)))
}

/// The cart, provided that the version a caller sent is the present one.
fn current(call: &Call<'_>) -> Result<(Key, Row), Reply> {
    let key = call.key(0);
    let row = call.state.of("cart").get(&key).ok_or_else(|| not_found("cart"))?;
    let version = field(specs::known("cart"), &row, "version");
    match call.body.get("version") {
        Some(sent) if sent != version => Err(Reply::plain(409, &format!("The cart has version {version}."))),
        _ => Ok((key, row)),
    }
}

pub(crate) fn create(call: &mut Call<'_>) -> Answer {
    let key = create_from(call.state, call.body)?;
    Ok(show(call, &key, 201))
}

/// Makes a cart from a request's body. Returns its id.
pub(crate) fn create_from(state: &mut State, body: &Value) -> Result<Key, Reply> {
    let wanted = read_lines(state, body)?;
    let customer = body.get("customer_id").and_then(Value::as_u64).unwrap_or(0);
    Ok(insert(state, customer, &wanted))
}

pub(crate) fn get(call: &mut Call<'_>) -> Answer {
    let row = call.state.of("cart").see(&call.key(0), call.state.lag).ok_or_else(|| not_found("cart"))?;
    Ok(Reply::data(200, Sight::new(call.state, call.query).show(specs::known("cart"), &row)))
}

/// `PUT /v3/carts/{id}`: only the customer can be changed; the answer is 201.
pub(crate) fn update(call: &mut Call<'_>) -> Answer {
    let (key, row) = current(call)?;
    let customer = call.body.get("customer_id").and_then(Value::as_u64);
    let customer = customer.ok_or_else(|| Reply::field(422, "customer_id", "customer_id is required"))?;
    let version = row.get("version").and_then(Value::as_u64).unwrap_or(0) + 1;
    let patch = Map::from_iter([
        ("customer_id".to_owned(), Value::from(customer)),
        ("version".to_owned(), Value::from(version)),
    ]);
    call.state.quiet_change(specs::known("cart"), &key, patch);
    call.state.outbox.extend(events::cart("updated", &key.to_string(), &[]));
    Ok(show(call, &key, 201))
}

pub(crate) fn delete(call: &mut Call<'_>) -> Answer {
    let key = call.key(0);
    if !call.state.delete(specs::known("cart"), &key) {
        return Err(not_found("cart"));
    }
    call.state.outbox.extend(events::cart("deleted", &key.to_string(), &[]));
    Ok(Reply::empty(204))
}

pub(crate) fn add_items(call: &mut Call<'_>) -> Answer {
    let (key, _) = current(call)?;
    let wanted = read_lines(call.state, call.body)?;
    add(call.state, &key, &wanted);
    Ok(show(call, &key, 201))
}

/// The cart's lines and the place of the one in the path.
fn item(call: &Call<'_>) -> Result<(Key, Vec<Value>, usize), Reply> {
    let (key, row) = current(call)?;
    let lines = lines(&row);
    let id = call.params.get(1).map_or("", String::as_str);
    let index = lines.iter().position(|line| line["id"] == id).ok_or_else(|| not_found("cart item"))?;
    Ok((key, lines, index))
}

pub(crate) fn update_item(call: &mut Call<'_>) -> Answer {
    let (key, mut lines, index) = item(call)?;
    let asked =
        call.body.get("line_item").ok_or_else(|| Reply::field(422, "line_item", "line_item is required"))?;
    let quantity = asked.get("quantity").map(|value| value.as_i64().filter(|quantity| *quantity > 0));
    match quantity {
        Some(Some(quantity)) => lines[index]["quantity"] = Value::from(quantity),
        Some(None) => return Err(Reply::field(422, "line_item.quantity", "must be a positive integer")),
        None => {}
    }
    if let Some(price) = asked.get("list_price").filter(|price| price.is_number()) {
        lines[index]["list_price"] = price.clone();
    }
    let id = lines[index]["id"].as_str().unwrap_or_default().to_owned();
    call.state.outbox.extend(events::cart_line(Op::Updated, &id, &key.to_string()));
    set_lines(call.state, &key, lines);
    Ok(show(call, &key, 200))
}

/// `DELETE` of a line; with the last line the cart goes, and the answer is 204.
pub(crate) fn delete_item(call: &mut Call<'_>) -> Answer {
    let (key, mut lines, index) = item(call)?;
    let gone = lines.remove(index);
    let id = gone["id"].as_str().unwrap_or_default().to_owned();
    call.state.outbox.extend(events::cart_line(Op::Deleted, &id, &key.to_string()));
    set_lines(call.state, &key, lines);
    Ok(show(call, &key, 200))
}
