//! V2 orders: bare arrays, 204 for an empty list, money as decimal text, soft deletion, links in place of rows.

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::sandbox::clock;
use crate::sandbox::events::{self, StockCause};
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs;
use crate::sandbox::state::{MAIN_LOCATION, State};
use crate::sandbox::store::{Key, Lag, Row, field};
use crate::sandbox::view::Sight;

/// Rows of a page.
const LIMIT: usize = 250;
/// The statuses, by id.
pub(crate) const STATUSES: [&str; 15] = [
    "Incomplete",
    "Pending",
    "Shipped",
    "Partially Shipped",
    "Refunded",
    "Cancelled",
    "Declined",
    "Awaiting Payment",
    "Awaiting Pickup",
    "Awaiting Shipment",
    "Completed",
    "Awaiting Fulfillment",
    "Manual Verification Required",
    "Disputed",
    "Partially Refunded",
];

/// The status that a refund brings about.
pub(crate) const PARTIALLY_REFUNDED: i64 = 14;

/// The name of a status.
pub(crate) fn status_name(id: i64) -> Option<&'static str> {
    STATUSES.get(usize::try_from(id).ok()?).copied()
}

/// A V2 404.
pub(crate) fn not_found() -> Reply {
    Reply::v2(404, "The requested resource was not found.")
}

/// The id and the row of the order in the path.
pub(crate) fn order(call: &Call<'_>, lag: Lag) -> Result<(u64, Row), Reply> {
    let key = call.key(0);
    let row = call.state.of("order").see(&key, lag).ok_or_else(not_found)?;
    match key {
        Key::Int(id) => Ok((id, row)),
        Key::Text(_) => Err(not_found()),
    }
}

/// A page of a V2 list: a bare array, or 204 when it is empty.
pub(crate) fn bare(call: &Call<'_>, rows: &[Value]) -> Reply {
    let page = Page::of(call.query, LIMIT);
    let shown: Vec<Value> = rows.iter().skip(page.skip()).take(page.limit).cloned().collect();
    if shown.is_empty() { Reply::empty(204) } else { Reply::bare(200, Value::Array(shown)) }
}

/// The rows that belong to the order in the path.
pub(crate) fn parts(call: &Call<'_>, resource: &'static str) -> Result<Vec<Value>, Reply> {
    let (id, _) = order(call, call.state.lag)?;
    Ok(Sight::new(call.state, call.query).children(resource, "order_id", &Value::from(id)))
}

fn meets(call: &Call<'_>, row: &Row) -> bool {
    let spec = specs::known("order");
    let get = |name: &str| field(spec, row, name);
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let bound = |asked: &str, name: &str, low: bool| {
        let Some(limit) = call.query.get(asked).and_then(|text| text.parse::<f64>().ok()) else {
            return true;
        };
        number(get(name)).is_some_and(|value| if low { value >= limit } else { value <= limit })
    };
    let date = |asked: &str, name: &str, low: bool| {
        let Some(limit) = call.query.get(asked).and_then(clock::parse) else { return true };
        get(name)
            .as_str()
            .and_then(clock::parse)
            .is_some_and(|at| if low { at >= limit } else { at <= limit })
    };
    let is = |name: &str| {
        call.query.get(name).is_none_or(|text| match get(name) {
            Value::String(own) => own == text,
            other => text.parse::<Value>().is_ok_and(|asked| asked == *other),
        })
    };
    let email = call.query.get("email").is_none_or(|text| get("billing_address")["email"] == text);
    let deleted = call.query.get("is_deleted").is_some_and(|text| text == "true");
    bound("min_id", "id", true)
        && bound("max_id", "id", false)
        && bound("min_total", "total_inc_tax", true)
        && bound("max_total", "total_inc_tax", false)
        && date("min_date_created", "date_created", true)
        && date("max_date_created", "date_created", false)
        && date("min_date_modified", "date_modified", true)
        && date("max_date_modified", "date_modified", false)
        && ["customer_id", "status_id", "cart_id", "payment_method", "channel_id", "external_order_id"]
            .iter()
            .all(|name| is(name))
        && email
        && (get("is_deleted") == &Value::from(deleted))
}

fn selected(call: &Call<'_>) -> Vec<Row> {
    let table = call.state.of("order");
    let mut rows: Vec<Row> =
        table.scan(call.state.lag).map(|(_, row)| row).filter(|row| meets(call, row)).collect();
    if let Some((name, way)) =
        call.query.get("sort").map(|text| text.split_once(':').unwrap_or((text, "asc")))
    {
        let spec = specs::known("order");
        rows.sort_by_key(|row| match field(spec, row, name) {
            Value::Number(number) => number.as_i64().unwrap_or(0),
            Value::String(text) => clock::parse(text).unwrap_or(0),
            _ => 0,
        });
        if way == "desc" {
            rows.reverse();
        }
    }
    rows
}

pub(crate) fn list(call: &mut Call<'_>) -> Answer {
    let page = Page::of(call.query, LIMIT);
    let (spec, sight) = (specs::known("order"), Sight::new(call.state, call.query));
    let rows = selected(call);
    let shown: Vec<Value> = rows
        .iter()
        .skip(page.skip())
        .take(page.limit)
        .map(|row| Value::Object(sight.show(spec, row)))
        .collect();
    Ok(if shown.is_empty() { Reply::empty(204) } else { Reply::bare(200, Value::Array(shown)) })
}

pub(crate) fn count(call: &mut Call<'_>) -> Answer {
    let rows = selected(call);
    let spec = specs::known("order");
    let of = |id: usize| rows.iter().filter(|row| field(spec, row, "status_id") == &Value::from(id)).count();
    let statuses: Vec<Value> = (0..STATUSES.len())
        .map(|id| {
            let mut row = super::consignments::status(id);
            row["count"] = Value::from(of(id));
            row["sort_order"] = Value::from(id);
            row
        })
        .collect();
    Ok(Reply::bare(200, json!({"statuses": statuses, "count": rows.len()})))
}

pub(crate) fn get(call: &mut Call<'_>) -> Answer {
    let (_, row) = order(call, call.state.lag)?;
    Ok(Reply::bare(200, Value::Object(Sight::new(call.state, call.query).show(specs::known("order"), &row))))
}

fn written(call: &Call<'_>, id: u64, status: u16) -> Reply {
    let sight = Sight::new(call.state, call.query).now();
    let row = call.state.of("order").get(&Key::Int(id));
    let shown = row.map(|row| Value::Object(sight.show(specs::known("order"), &row)));
    Reply::bare(status, shown.unwrap_or(Value::Null))
}

/// A line of a new order.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The variant, unless it is a custom line.
    pub(crate) variant: Option<Key>,
    pub(crate) name: String,
    /// In ten-thousandths of the currency's unit.
    pub(crate) price: i64,
    pub(crate) quantity: i64,
}

/// Money as the V2 API writes it.
pub(crate) fn money(ten_thousandths: i64) -> Value {
    Value::from(format!("{}.{:04}", ten_thousandths / 10_000, (ten_thousandths % 10_000).abs()))
}

/// Ten-thousandths from a JSON number or decimal text.
pub(crate) fn amount(value: &Value) -> Option<i64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    #[expect(clippy::cast_possible_truncation, reason = "prices are far below 2^63 ten-thousandths")]
    Some((number * 10_000.0).round() as i64)
}

/// The line that `quantity` of a variant makes.
pub(crate) fn line_of(state: &State, variant: &Key, quantity: i64) -> Option<Line> {
    let row = state.of("variant").get(variant)?;
    let product = state.of("product").get(&Key::from_json(row.get("product_id")?)?)?;
    let name = product.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let price =
        row.get("price").filter(|price| !price.is_null()).or_else(|| product.get("price")).and_then(amount);
    Some(Line { variant: Some(variant.clone()), name, price: price.unwrap_or(0), quantity })
}

/// Makes an order with its lines and address, takes the stock, and fires the events. Returns its id.
pub(crate) fn insert(
    state: &mut State,
    mut row: Map<String, Value>,
    lines: &[Line],
    addresses: &[Value],
) -> u64 {
    let sum: i64 = lines.iter().map(|line| line.price * line.quantity).sum();
    let items: i64 = lines.iter().map(|line| line.quantity).sum();
    for name in ["subtotal_ex_tax", "subtotal_inc_tax", "total_ex_tax", "total_inc_tax"] {
        row.entry(name).or_insert_with(|| money(sum));
    }
    row.insert("items_total".to_owned(), Value::from(items));
    let status =
        row.get("status_id").and_then(Value::as_i64).filter(|id| status_name(*id).is_some()).unwrap_or(1);
    row.insert("status_id".to_owned(), Value::from(status));
    row.insert("status".to_owned(), Value::from(status_name(status).unwrap_or("Pending")));
    row.insert("shipping_address_count".to_owned(), Value::from(addresses.len()));
    let Key::Int(id) = state.insert(specs::known("order"), row) else { return 0 };
    let mut place = 0;
    for address in addresses {
        let mut address = address.as_object().cloned().unwrap_or_default();
        address.insert("order_id".to_owned(), Value::from(id));
        address.insert("items_total".to_owned(), Value::from(items));
        if let Key::Int(number) = state.insert(specs::known("order_shipping_address"), address) {
            place = number;
        }
    }
    for line in lines {
        let row = line_row(state, id, place, line);
        state.insert(specs::known("order_product"), row);
    }
    state.outbox.extend(events::order("created", id));
    for line in lines {
        if let Some(variant) = &line.variant {
            let left = state.stock(variant, MAIN_LOCATION) - line.quantity;
            state.set_stock(variant, MAIN_LOCATION, left.max(0), StockCause::Order);
        }
    }
    id
}

fn line_row(state: &State, order: u64, address: u64, line: &Line) -> Map<String, Value> {
    let mut row = Map::from_iter([
        ("order_id".to_owned(), Value::from(order)),
        ("order_address_id".to_owned(), Value::from(address)),
        ("quantity".to_owned(), Value::from(line.quantity)),
    ]);
    for name in ["name", "name_customer", "name_merchant"] {
        row.insert(name.to_owned(), Value::from(line.name.clone()));
    }
    for name in ["base_price", "price_ex_tax", "price_inc_tax"] {
        row.insert(name.to_owned(), money(line.price));
    }
    for name in ["base_total", "total_ex_tax", "total_inc_tax", "discounted_total_inc_tax"] {
        row.insert(name.to_owned(), money(line.price * line.quantity));
    }
    if let Some(variant) = line.variant.as_ref().and_then(|key| state.of("variant").get(key)) {
        for (own, name) in [("product_id", "product_id"), ("variant_id", "id"), ("sku", "sku")] {
            row.insert(own.to_owned(), field(specs::known("variant"), &variant, name).clone());
        }
    }
    row
}

fn read_lines(state: &State, body: &Value) -> Result<Vec<Line>, Reply> {
    let refuse = |text: &str| Reply::v2(400, text);
    let lines = body.get("products").and_then(Value::as_array).filter(|lines| !lines.is_empty());
    let lines = lines.ok_or_else(|| refuse("The required field 'products' was not supplied."))?;
    lines
        .iter()
        .map(|line| {
            let quantity = line.get("quantity").and_then(Value::as_i64).filter(|quantity| *quantity > 0);
            let quantity = quantity.ok_or_else(|| refuse("The field 'quantity' is invalid."))?;
            let price = line.get("price_inc_tax").or_else(|| line.get("price_ex_tax")).and_then(amount);
            if let Some(product) = line.get("product_id").and_then(Value::as_u64) {
                let variants = state.of("variant").find("product_id", &product.to_string());
                let asked = line.get("variant_id").and_then(Key::from_json);
                let variant =
                    asked.filter(|key| variants.contains(key)).or_else(|| variants.first().cloned());
                let found = variant.and_then(|key| line_of(state, &key, quantity));
                let found = found.ok_or_else(|| refuse("The field 'product_id' is invalid."))?;
                return Ok(Line { price: price.unwrap_or(found.price), ..found });
            }
            let name = line
                .get("name")
                .and_then(Value::as_str)
                .ok_or_else(|| refuse("The field 'name' is invalid."))?;
            let price = price.ok_or_else(|| refuse("The field 'price_inc_tax' is invalid."))?;
            Ok(Line { variant: None, name: name.to_owned(), price, quantity })
        })
        .collect()
}

pub(crate) fn create(call: &mut Call<'_>) -> Answer {
    let id = create_from(call.state, call.body)?;
    Ok(written(call, id, 200))
}

/// Makes an order from a request's body. Returns its id.
pub(crate) fn create_from(state: &mut State, body: &Value) -> Result<u64, Reply> {
    let fields_of = body.as_object().ok_or_else(|| Reply::v2(400, "The body must be an object."))?;
    let billing = fields_of.get("billing_address").filter(|address| address.is_object());
    let billing =
        billing.ok_or_else(|| Reply::v2(400, "The required field 'billing_address' was not supplied."))?;
    let lines = read_lines(state, body)?;
    let mut address = billing.clone();
    address["zip"] = address.get("zip").cloned().unwrap_or(Value::from(""));
    let addresses = fields_of.get("shipping_addresses").and_then(Value::as_array).cloned();
    let mut row = fields(fields_of)?;
    row.insert("billing_address".to_owned(), address.clone());
    row.insert("order_source".to_owned(), Value::from("external"));
    Ok(insert(state, row, &lines, &addresses.unwrap_or_else(|| vec![address])))
}

/// The plain fields of a body that an order stores, without what the platform keeps itself.
fn fields(body: &Map<String, Value>) -> Result<Map<String, Value>, Reply> {
    let kept = [
        "id",
        "date_modified",
        "status",
        "is_deleted",
        "products",
        "shipping_addresses",
        "coupons",
        "consignments",
        "fees",
    ];
    if let Some(status) = body.get("status_id")
        && status.as_i64().and_then(status_name).is_none()
    {
        return Err(Reply::v2(400, "The field 'status_id' is invalid."));
    }
    let template = &specs::known("order").template;
    let known =
        body.iter().filter(|(name, _)| template.contains_key(*name) && !kept.contains(&name.as_str()));
    Ok(known.map(|(name, value)| (name.clone(), value.clone())).collect())
}

pub(crate) fn update(call: &mut Call<'_>) -> Answer {
    let (id, _) = order(call, Lag::NONE)?;
    let body = call.body.as_object().ok_or_else(|| Reply::v2(400, "The body must be an object."))?;
    let patch = fields(body)?;
    change(call.state, id, patch);
    Ok(written(call, id, 200))
}

/// Changes an order's fields and fires what goes with them. False when there is no such order.
pub(crate) fn change(state: &mut State, id: u64, mut patch: Map<String, Value>) -> bool {
    let (spec, key) = (specs::known("order"), Key::Int(id));
    let Some(row) = state.table(spec).get(&key) else { return false };
    let before = field(spec, &row, "status_id").as_i64().unwrap_or(0);
    let after = patch.get("status_id").and_then(Value::as_i64).unwrap_or(before);
    if let Some(name) = status_name(after) {
        patch.insert("status".to_owned(), Value::from(name));
    }
    state.quiet_change(spec, &key, patch);
    let events =
        if after == before { events::order("updated", id) } else { events::order_status(id, before, after) };
    state.outbox.extend(events);
    true
}

/// Archives an order: it stays readable with `is_deleted`. False when there is no such order.
pub(crate) fn put_away(state: &mut State, id: u64) -> bool {
    let patch = Map::from_iter([("is_deleted".to_owned(), Value::from(true))]);
    let done = state.quiet_change(specs::known("order"), &Key::Int(id), patch);
    if done {
        state.outbox.extend(events::order("archived", id));
    }
    done
}

pub(crate) fn archive(call: &mut Call<'_>) -> Answer {
    let (id, _) = order(call, Lag::NONE)?;
    put_away(call.state, id);
    Ok(Reply::empty(204))
}

/// `DELETE /v2/orders`: archives every order of the store.
pub(crate) fn archive_all(call: &mut Call<'_>) -> Answer {
    call.forbidden = true;
    let ids: Vec<u64> = call
        .state
        .of("order")
        .scan(Lag::NONE)
        .filter_map(|(key, _)| if let Key::Int(id) = key { Some(*id) } else { None })
        .collect();
    for id in ids {
        put_away(call.state, id);
    }
    Ok(Reply::empty(204))
}

pub(crate) fn list_products(call: &mut Call<'_>) -> Answer {
    Ok(bare(call, &parts(call, "order_product")?))
}

pub(crate) fn list_addresses(call: &mut Call<'_>) -> Answer {
    Ok(bare(call, &parts(call, "order_shipping_address")?))
}

/// The one of `rows` whose id is the second path parameter.
pub(crate) fn pick(call: &Call<'_>, rows: Vec<Value>) -> Answer {
    let id = call.key(1).json();
    rows.into_iter().find(|row| row["id"] == id).map(|row| Reply::bare(200, row)).ok_or_else(not_found)
}

pub(crate) fn get_product(call: &mut Call<'_>) -> Answer {
    let rows = parts(call, "order_product")?;
    pick(call, rows)
}

pub(crate) fn get_address(call: &mut Call<'_>) -> Answer {
    let rows = parts(call, "order_shipping_address")?;
    pick(call, rows)
}

pub(crate) fn list_coupons(call: &mut Call<'_>) -> Answer {
    order(call, call.state.lag)?;
    Ok(Reply::empty(204))
}
