//! Changes that "other people" make to the store: what the control API and the simulated shoppers do.
//!
//! They obey the store's rules less strictly than the API (a test may want odd rows) but fire the same events.

use serde_json::{Map, Value};

use super::control::ControlError;
use super::events::{self, Op, StockCause};
use super::resources::{carts, inventory, orders, products, shipments};
use super::specs::{self, Spec};
use super::state::{MAIN_LOCATION, State};
use super::store::{Key, render};
use super::view::Sight;
use super::{query, seed};

fn spec(entity: &str) -> Result<&'static Spec, ControlError> {
    let found = specs::find(entity).or_else(|| specs::find(alias(entity)));
    found.ok_or_else(|| ControlError::UnknownEntity {
        found: entity.to_owned(),
        allowed: specs::all().iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// Other names for the same resource.
fn alias(entity: &str) -> &str {
    match entity {
        "product_variant" => "variant",
        "shipment" => "order_shipment",
        "address" => "customer_address",
        other => other,
    }
}

/// Creates, updates or deletes any row. Returns its id.
pub(crate) fn mutate(
    state: &mut State,
    entity: &str,
    op: Op,
    id: Option<&str>,
    body: Map<String, Value>,
) -> Result<Value, ControlError> {
    let spec = spec(entity)?;
    let key = id.map(Key::parse);
    let missing =
        || ControlError::NoSuchRow { entity: entity.to_owned(), id: id.unwrap_or_default().to_owned() };
    if op == Op::Created {
        let made = match spec.name.as_str() {
            "order" => orders::create_from(state, &Value::Object(body)).map(Value::from),
            "cart" => carts::create_from(state, &Value::Object(body)).map(|key| key.json()),
            _ => products::insert(state, spec, body).map(|key| key.json()),
        };
        return made.map_err(|reply| ControlError::Refused {
            answer: reply.body.map(|body| body.to_string()).unwrap_or_default(),
        });
    }
    let key = key.ok_or_else(missing)?;
    if state.table(spec).get(&key).is_none() {
        return Err(missing());
    }
    match (op, spec.name.as_str(), &key) {
        (Op::Deleted, "order", Key::Int(number)) => {
            orders::put_away(state, *number);
        }
        (Op::Deleted, "cart", _) => {
            state.delete(spec, &key);
            state.outbox.extend(events::cart("deleted", &key.to_string(), &[]));
        }
        (Op::Deleted, _, _) => {
            state.delete(spec, &key);
        }
        (_, "order", Key::Int(number)) => {
            orders::change(state, *number, body);
        }
        (_, "cart", _) => {
            state.quiet_change(spec, &key, body);
            state.outbox.extend(events::cart("updated", &key.to_string(), &[]));
        }
        _ => products::change(state, spec, &key, body).map_err(|reply| ControlError::Refused {
            answer: reply.body.map(|body| body.to_string()).unwrap_or_default(),
        })?,
    }
    Ok(key.json())
}

/// Changes a visible field of every row `from..=to` that exists, so that its content differs each time. Returns how many.
pub(crate) fn touch(state: &mut State, entity: &str, from: u64, to: u64) -> Result<u64, ControlError> {
    let spec = spec(entity)?;
    let mut count = 0;
    for id in from..=to.min(state.table(spec).last_id()) {
        let key = Key::Int(id);
        if state.table(spec).get(&key).is_none() {
            continue;
        }
        let version = state.table(spec).version(&key) + 1;
        let name = match spec.name.as_str() {
            "product" | "category" | "order_shipment" | "product_image" => "description",
            "customer" => "notes",
            "order" => "staff_notes",
            "variant" => "mpn",
            "customer_address" => "address2",
            _ => spec.required.first().map_or("description", String::as_str),
        };
        let name = if spec.template.contains_key(name) { name } else { spec.id.as_str() };
        let patch = Map::from_iter([(name.to_owned(), Value::from(format!("change {version} of {id}")))]);
        if spec.name == "order" {
            orders::change(state, id, patch);
        } else {
            state.change(spec, &key, patch);
        }
        count += 1;
    }
    Ok(count)
}

/// The current rows of a resource as a plain GET shows them, by id.
///
/// At most `limit` of them, with ids above `after`.
pub(crate) fn rows(
    state: &State,
    entity: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Value)>, ControlError> {
    let page = |keys: &[Key]| -> Vec<Key> {
        let first = after.map_or(0, |after| keys.partition_point(|key| *key <= Key::parse(after)));
        keys.iter().skip(first).take(limit).cloned().collect()
    };
    if matches!(entity, "inventory" | "inventory_item") {
        let places = inventory::locations(state);
        let table = state.of("variant");
        let show = |key: &Key| Some((key.to_string(), inventory::item(state, &table.get(key)?, &places)));
        return Ok(page(table.ids()).iter().filter_map(show).collect());
    }
    if matches!(entity, "webhook" | "hook") {
        return Ok(state
            .hooks
            .iter()
            .map(|hook| (hook.id.to_string(), Value::Object(state.hooks.show(hook))))
            .collect());
    }
    let spec = spec(entity)?;
    let query = query::Query::default();
    let sight = Sight::new(state, &query).now();
    let table = state.table(spec);
    let show = |key: &Key| Some((key.to_string(), Value::Object(sight.show(spec, &*table.get(key)?))));
    Ok(page(table.ids()).iter().filter_map(show).collect())
}

/// Sets a variant's stock at the main location. False when there is no such variant.
pub(crate) fn set_stock(state: &mut State, variant: u64, level: i64) -> bool {
    state.set_stock(&Key::Int(variant), MAIN_LOCATION, level, StockCause::Absolute)
}

/// Puts products into a new cart of a customer. Returns the cart's id, or none when no product exists.
pub(crate) fn new_cart(state: &mut State, customer: u64, products: &[u64]) -> Option<String> {
    let wanted = wanted(state, products);
    (!wanted.is_empty()).then(|| carts::insert(state, customer, &wanted).to_string())
}

/// Puts products into an existing cart. False when there is no such cart.
pub(crate) fn add_to_cart(state: &mut State, cart: &str, products: &[u64]) -> bool {
    let wanted = wanted(state, products);
    carts::add(state, &Key::parse(cart), &wanted)
}

fn first_variant(state: &State, product: u64) -> Option<Key> {
    state.of("variant").find("product_id", &product.to_string()).into_iter().next()
}

fn wanted(state: &State, products: &[u64]) -> Vec<carts::Wanted> {
    let variants = products.iter().filter_map(|product| first_variant(state, *product));
    variants.map(|variant| carts::Wanted { variant, quantity: 1 }).collect()
}

/// Places an order for one of each product. Returns its id, or none when no product exists.
pub(crate) fn place_order(state: &mut State, customer: u64, products: &[u64]) -> Option<u64> {
    let variants: Vec<Key> = products.iter().filter_map(|product| first_variant(state, *product)).collect();
    let lines: Vec<orders::Line> =
        variants.iter().filter_map(|variant| orders::line_of(state, variant, 1)).collect();
    (!lines.is_empty()).then(|| seed::place(state, customer, &lines, 11))
}

/// Turns a cart into an order. Returns the order's id.
pub(crate) fn check_out(state: &mut State, cart: &str) -> Option<u64> {
    let key = Key::parse(cart);
    let row = state.of("cart").get(&key)?;
    let customer = row.get("customer_id").and_then(Value::as_u64).unwrap_or(0);
    let shown = render(specs::known("cart"), &row);
    let lines: Vec<orders::Line> = carts::lines(&shown)
        .iter()
        .filter_map(|line| {
            orders::line_of(
                state,
                &Key::from_json(&line["variant_id"])?,
                line["quantity"].as_i64().unwrap_or(1),
            )
        })
        .collect();
    let order = (!lines.is_empty()).then(|| seed::place(state, customer, &lines, 11))?;
    carts::convert(state, &key, order);
    Some(order)
}

/// Ships what is left of an order. Returns the shipment's id; none when there is nothing to ship.
pub(crate) fn ship_order(state: &mut State, order: u64) -> Option<u64> {
    let open = shipments::open_lines(state, order);
    if open.is_empty() {
        return None;
    }
    let place = state.of("order_shipping_address").find("order_id", &order.to_string()).into_iter().next();
    let mut row = Map::from_iter([("tracking_number".to_owned(), Value::from(format!("TRACK-{order}")))]);
    if let Some(place) = place {
        row.insert("order_address_id".to_owned(), place.json());
    }
    match shipments::insert(state, order, row, &open) {
        Key::Int(id) => Some(id),
        Key::Text(_) => None,
    }
}

/// The largest id of an entity so far.
pub(crate) fn last_id(state: &State, entity: &str) -> Result<u64, ControlError> {
    Ok(state.table(spec(entity)?).last_id())
}
