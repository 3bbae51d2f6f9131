//! Which callbacks a change fires, and their payloads.
//!
//! One change may fire several: a category has a store-wide scope, a channel scope and a tree scope. Nothing here is
//! sent; events are collected in the state's outbox and handed to the hooks once the write is done.

use serde_json::{Value, json};

/// One event before it is matched with hooks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) scope: String,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn new(scope: impl Into<String>, data: Value) -> Event {
        Event { scope: scope.into(), data }
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Created,
    Updated,
    Deleted,
}

impl Op {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Op::Created => "created",
            Op::Updated => "updated",
            Op::Deleted => "deleted",
        }
    }
}

/// The channel of the storefront that the simulator has.
pub(crate) const CHANNEL: u64 = 1;

/// `store/<scope>/<op>` with `{type, id}`.
pub(crate) fn simple(scope: &str, op: Op, id: &Value) -> Event {
    let kind = scope.rsplit('/').next().unwrap_or(scope);
    Event::new(format!("{scope}/{}", op.word()), json!({"type": kind, "id": id}))
}

/// A category: store-wide, channel and tree.
pub(crate) fn category(op: Op, id: &Value, tree: &Value) -> Vec<Event> {
    vec![
        simple("store/category", op, id),
        Event::new(
            format!("store/channel/{CHANNEL}/category/{}", op.word()),
            json!({"category_id": id, "tree_id": tree}),
        ),
        Event::new(format!("store/channel/{CHANNEL}/categoryTree/updated"), json!({"tree_id": tree})),
    ]
}

/// A customer's address: the type says customer, the id is the address.
pub(crate) fn address(op: Op, id: &Value, customer: &Value) -> Event {
    let data = json!({"type": "customer", "id": id, "address": {"customer_id": customer}});
    Event::new(format!("store/customer/address/{}", op.word()), data)
}

/// A SKU: `data.id` is the SKU's id, the variant's is inside.
pub(crate) fn sku(op: Op, sku: &Value, product: &Value, variant: &Value) -> Event {
    let data = json!({"type": "sku", "id": sku, "sku": {"product_id": product, "variant_id": variant}});
    Event::new(format!("store/sku/{}", op.word()), data)
}

/// A shipment of an order.
pub(crate) fn shipment(op: Op, id: &Value, order: &Value) -> Event {
    Event::new(
        format!("store/shipment/{}", op.word()),
        json!({"type": "shipment", "id": id, "orderId": order}),
    )
}

/// An order event by its last word, with its channel twin.
pub(crate) fn order(word: &str, id: u64) -> Vec<Event> {
    vec![
        Event::new(format!("store/order/{word}"), json!({"type": "order", "id": id})),
        Event::new(format!("store/channel/{CHANNEL}/order/{word}"), json!({"order_id": id})),
    ]
}

/// A change of an order's status, with the update that goes with it.
pub(crate) fn order_status(id: u64, from: i64, to: i64) -> Vec<Event> {
    let data =
        json!({"type": "order", "id": id, "status": {"previous_status_id": from, "new_status_id": to}});
    let mut events = vec![
        Event::new("store/order/statusUpdated", data),
        Event::new(format!("store/channel/{CHANNEL}/order/statusUpdated"), json!({"order_id": id})),
    ];
    events.extend(order("updated", id));
    events
}

/// A cart event by its last word, with its channel twin; `more` goes into the store-wide payload.
pub(crate) fn cart(word: &str, id: &str, more: &[(&str, Value)]) -> Vec<Event> {
    let mut data = json!({"type": "cart", "id": id});
    for (name, value) in more {
        data[*name] = value.clone();
    }
    vec![
        Event::new(format!("store/cart/{word}"), data),
        Event::new(format!("store/channel/{CHANNEL}/cart/{word}"), json!({"cart_id": id})),
    ]
}

/// A line of a cart.
pub(crate) fn cart_line(op: Op, line: &str, cart: &str) -> Vec<Event> {
    vec![
        Event::new(
            format!("store/cart/lineItem/{}", op.word()),
            json!({"type": "cart_line_item", "id": line, "cartId": cart}),
        ),
        Event::new(
            format!("store/channel/{CHANNEL}/cart/lineItem/{}", op.word()),
            json!({"cart_id": cart, "cart_item_id": line}),
        ),
    ]
}

/// What changed a stock level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StockCause {
    Absolute,
    Relative,
    Order,
}

/// A stock change of one variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StockChange {
    pub(crate) product: u64,
    pub(crate) variant: u64,
    /// The SKU's id where the product has options.
    pub(crate) sku: Option<u64>,
    pub(crate) location: u64,
    pub(crate) cause: StockCause,
    /// The new level, or the difference for a relative change.
    pub(crate) value: i64,
    pub(crate) before: i64,
    pub(crate) after: i64,
    pub(crate) warning: i64,
}

/// The events of a stock change: product, product or SKU inventory, and the location-aware ones.
pub(crate) fn stock(change: StockChange) -> Vec<Event> {
    let StockChange { product, variant, location, .. } = change;
    let method = if change.cause == StockCause::Absolute { "absolute" } else { "relative" };
    let tail =
        if change.cause == StockCause::Order { "inventory/order/updated" } else { "inventory/updated" };
    let mut events = vec![simple("store/product", Op::Updated, &Value::from(product))];
    let mut inventory = json!({"product_id": product, "method": method, "value": change.value});
    if let Some(sku) = change.sku {
        inventory["variant_id"] = Value::from(variant);
        events.push(Event::new(
            format!("store/sku/{tail}"),
            json!({"type": "sku", "id": sku, "inventory": inventory}),
        ));
    } else {
        let data = json!({"type": "product", "id": product, "inventory": inventory});
        events.push(Event::new(format!("store/product/{tail}"), data));
    }
    let place = if change.sku.is_some() {
        json!({"variant_id": variant, "product_id": product, "location_id": location})
    } else {
        json!({"product_id": product, "location_id": location})
    };
    let mut located = |word: &str| {
        events.push(Event::new(format!("store/channel/*/inventory/product/{word}"), place.clone()));
    };
    located("stock_changed");
    if change.after <= 0 && change.before > 0 {
        located("out_of_stock_reached");
    } else if change.after <= change.warning && change.before > change.warning {
        located("low_stock_reached");
    }
    events
}

/// Whether a hook on `pattern` receives an event of `scope`.
///
/// A wildcard covers everything below it, as its documentation words it, but metafield events only where it names
/// them, and `store/channel/*` only the events of channels themselves.
pub(crate) fn matches(pattern: &str, scope: &str) -> bool {
    if pattern == scope {
        return true;
    }
    let Some(prefix) = pattern.strip_suffix('*') else { return false };
    let Some(rest) = scope.strip_prefix(prefix) else { return false };
    if rest.contains("metafield/") {
        return false;
    }
    pattern != "store/channel/*" || !rest.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_is_below_them() {
        assert!(matches("store/product/*", "store/product/updated"));
        assert!(matches("store/product/*", "store/product/inventory/updated"));
        assert!(matches("store/cart/*", "store/cart/lineItem/created"));
        assert!(matches("store/channel/1/order/*", "store/channel/1/order/created"));
        assert!(!matches("store/channel/*", "store/channel/1/order/created"));
        assert!(!matches("store/product/*", "store/product/metafield/created"));
        assert!(matches("store/metafield/*", "store/metafield/created"));
        assert!(!matches("store/sku/created", "store/sku/updated"));
    }

    #[test]
    fn stock_that_runs_out_says_so() {
        let change = StockChange {
            product: 1,
            variant: 2,
            sku: Some(3),
            location: 1,
            cause: StockCause::Order,
            value: -2,
            before: 2,
            after: 0,
            warning: 5,
        };
        let scopes: Vec<String> = stock(change).into_iter().map(|event| event.scope).collect();
        assert_eq!(
            scopes,
            [
                "store/product/updated",
                "store/sku/inventory/order/updated",
                "store/channel/*/inventory/product/stock_changed",
                "store/channel/*/inventory/product/out_of_stock_reached"
            ]
        );
    }
}
