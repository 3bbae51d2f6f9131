//! Payments of orders: quotes for refunds, capture, void, and tokens for payments. Nothing here moves money, of course,
//! but an order remembers what was done, and does not let it be done twice.

use serde_json::{Map, Value, json};

use super::generic::not_found;
use super::{Answer, Call, orders};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs;
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Row, field};

fn order(call: &Call<'_>) -> Result<(u64, Row), Reply> {
    let key = call.key(0);
    let row = call.state.of("order").get(&key);
    match (key, row) {
        (Key::Int(id), Some(row)) => Ok((id, row)),
        _ => Err(not_found("order")),
    }
}

/// What the items of a refund come to.
pub(crate) fn total(state: &State, order: u64, items: Option<&Value>) -> Result<f64, Reply> {
    let items = items.and_then(Value::as_array);
    let items = items.ok_or_else(|| Reply::field(422, "items", "items is required"))?;
    let mut sum = 0.0;
    for (index, item) in items.iter().enumerate() {
        let refuse = |name: &str, text: &str| Reply::field(422, &format!("items.{index}.{name}"), text);
        if let Some(amount) = item.get("amount").and_then(Value::as_f64) {
            sum += amount;
            continue;
        }
        let line = item.get("item_id").and_then(Key::from_json);
        let (spec, table) = (specs::known("order_product"), state.of("order_product"));
        let line = line.and_then(|key| table.get(&key));
        let line = line.filter(|row| field(spec, row, "order_id").as_u64() == Some(order));
        let line = line.ok_or_else(|| refuse("item_id", "The order has no such item."))?;
        let quantity = item.get("quantity").and_then(Value::as_i64).unwrap_or(0);
        if quantity < 1 || quantity > field(spec, &line, "quantity").as_i64().unwrap_or(0) {
            return Err(refuse("quantity", "must be between 1 and what was ordered"));
        }
        let price = field(spec, &line, "price_inc_tax").as_str().and_then(|text| text.parse::<f64>().ok());
        sum += price.unwrap_or(0.0) * f64::from(i32::try_from(quantity).unwrap_or(i32::MAX));
    }
    Ok((sum * 100.0).round() / 100.0)
}

/// `POST /v3/orders/{order_id}/payment_actions/refund_quotes`.
pub(crate) fn quote(call: &mut Call<'_>) -> Answer {
    let (id, _) = order(call)?;
    let total = total(call.state, id, call.body.get("items"))?;
    let method = json!({"provider_id": "custom", "provider_description": "Custom", "amount": total, "offline": true,
        "offline_provider": true, "offline_reason": ""});
    Ok(Reply::data(
        201,
        json!({"order_id": id, "total_refund_amount": total, "total_refund_tax_amount": 0,
            "order_level_refund_amount": 0, "rounding": 0, "adjustment": 0, "tax_inclusive": true,
            "refund_methods": [[method]]}),
    ))
}

/// `POST /v3/orders/{order_id}/payment_actions/capture`.
pub(crate) fn capture(call: &mut Call<'_>) -> Answer {
    settle(call, "captured")
}

/// `POST /v3/orders/{order_id}/payment_actions/void`.
pub(crate) fn void(call: &mut Call<'_>) -> Answer {
    settle(call, "void")
}

fn settle(call: &mut Call<'_>, status: &str) -> Answer {
    let (id, row) = order(call)?;
    let now = field(specs::known("order"), &row, "payment_status");
    if now == "captured" || now == "void" {
        let text = format!("The payment of this order is {} already.", now.as_str().unwrap_or_default());
        return Err(Reply::field(422, "payment_status", text));
    }
    let patch = Map::from_iter([("payment_status".to_owned(), Value::from(status))]);
    orders::change(call.state, id, patch);
    Ok(Reply::bare(201, json!({})))
}

/// `POST /v3/payments/access_tokens`.
pub(crate) fn token(call: &mut Call<'_>) -> Answer {
    let id = call.body.get("order").and_then(|order| order.get("id")).and_then(Key::from_json);
    let id = id.ok_or_else(|| Reply::field(422, "order.id", "is required"))?;
    if !call.state.of("order").has(&id) {
        return Err(not_found("order"));
    }
    Ok(Reply::data(201, json!({"id": call.state.uuid()})))
}
