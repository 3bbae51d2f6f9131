//! Checkouts: addresses, consignments, coupons, discounts and fees on the way to an order.
//!
//! Every write that names a version is refused with 409 when the checkout has moved on; every write moves it on. Each
//! call that completes a checkout makes another order, as the documentation warns.

use serde_json::{Map, Value, json};

use super::generic::not_found;
use super::writes::{object, shown};
use super::{Answer, Call, orders};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs::{self, Spec};
use crate::sandbox::store::{Key, field, render};

struct Open {
    spec: &'static Spec,
    key: Key,
    row: Map<String, Value>,
}

/// The checkout that the path names, if the body does not speak of another version of it.
fn open(call: &Call<'_>) -> Result<Open, Reply> {
    let (spec, key) = (specs::known("checkout"), call.key(0));
    let row = call.state.table(spec).get(&key).ok_or_else(|| not_found("checkout"))?;
    let version = field(spec, &row, "version").as_u64();
    let body = call.body.get(0).unwrap_or(call.body);
    let asked = body.get("version").or_else(|| body.get("cart")?.get("version"));
    if asked.is_some_and(|asked| asked.as_u64() != version) {
        return Err(Reply::plain(409, "The checkout has changed; read it again."));
    }
    Ok(Open { spec, row: render(spec, &row), key })
}

impl Open {
    fn list(&self, name: &str) -> Vec<Value> {
        self.row.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Sets a field and shows the checkout.
    fn set(self, call: &mut Call<'_>, name: &str, value: impl Into<Value>) -> Answer {
        let next = self.row.get("version").and_then(Value::as_u64).unwrap_or(0) + 1;
        let patch =
            Map::from_iter([(name.to_owned(), value.into()), ("version".to_owned(), Value::from(next))]);
        call.state.change(self.spec, &self.key, patch);
        Ok(shown(call, self.spec, &[self.key], 200, true))
    }
}

/// A body without what is not the thing itself, with an id.
fn thing(body: &Map<String, Value>, id: &str) -> Value {
    let mut out = body.clone();
    out.shift_remove("version");
    out.insert("id".to_owned(), Value::from(id));
    Value::Object(out)
}

fn place(list: &[Value], name: &str, wanted: &Key) -> Option<usize> {
    list.iter().position(|one| Key::from_json(&one[name]).as_ref() == Some(wanted))
}

/// `POST /v3/checkouts/{checkout_id}/billing-address` and `PUT .../{address_id}`.
pub(crate) fn set_billing(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let id = match call.params.get(1) {
        Some(id) => id.clone(),
        None => call.state.uuid(),
    };
    let address = thing(object(call.body)?, &id);
    open.set(call, "billing_address", address)
}

/// `POST /v3/checkouts/{checkout_id}/consignments`.
pub(crate) fn add_consignments(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let mut all = open.list("consignments");
    for item in call.body.as_array().into_iter().flatten().filter_map(Value::as_object) {
        if !item.get("line_items").is_some_and(Value::is_array) {
            return Err(Reply::field(422, "line_items", "line_items is required"));
        }
        let id = call.state.uuid();
        all.push(thing(item, &id));
    }
    open.set(call, "consignments", all)
}

/// `PUT /v3/checkouts/{checkout_id}/consignments/{consignment_id}`.
pub(crate) fn update_consignment(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let mut all = open.list("consignments");
    let place = place(&all, "id", &call.key(1)).ok_or_else(|| not_found("consignment"))?;
    for (name, value) in object(call.body)?.iter().filter(|(name, _)| *name != "version" && *name != "id") {
        all[place][name] = value.clone();
    }
    open.set(call, "consignments", all)
}

/// `DELETE /v3/checkouts/{checkout_id}/consignments/{consignment_id}`.
pub(crate) fn delete_consignment(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let mut all = open.list("consignments");
    let place = place(&all, "id", &call.key(1)).ok_or_else(|| not_found("consignment"))?;
    all.remove(place);
    open.set(call, "consignments", all)
}

/// `POST /v3/checkouts/{checkout_id}/coupons`.
pub(crate) fn add_coupon(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let code = call.body.get("coupon_code").and_then(Value::as_str).filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| Reply::field(422, "coupon_code", "coupon_code is required"))?;
    let mut all = open.list("coupons");
    if place(&all, "code", &Key::parse(code)).is_none() {
        all.push(json!({"code": code, "id": all.len() + 1, "coupon_type": 0, "discounted_amount": 0,
            "display_name": code}));
    }
    open.set(call, "coupons", all)
}

/// `DELETE /v3/checkouts/{checkout_id}/coupons/{coupon_code}`.
pub(crate) fn delete_coupon(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let mut all = open.list("coupons");
    let place = place(&all, "code", &call.key(1)).ok_or_else(|| not_found("coupon"))?;
    all.remove(place);
    open.set(call, "coupons", all)
}

/// `POST /v3/checkouts/{checkout_id}/discounts`.
pub(crate) fn set_discounts(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let asked = call.body.get("cart").and_then(|cart| cart.get("discounts")).and_then(Value::as_array);
    let asked = asked.ok_or_else(|| Reply::field(422, "cart.discounts", "cart.discounts is required"))?;
    let mut cart = open.row.get("cart").cloned().unwrap_or_else(|| json!({}));
    let mut discounts = Vec::new();
    for one in asked.iter().filter_map(Value::as_object) {
        let id = call.state.uuid();
        discounts.push(thing(one, &id));
    }
    let sum: f64 = discounts.iter().filter_map(|one| one["discounted_amount"].as_f64()).sum();
    cart["discounts"] = Value::Array(discounts);
    cart["discount_amount"] = Value::from(sum);
    open.set(call, "cart", cart)
}

fn asked_fees(call: &Call<'_>) -> Result<Vec<Map<String, Value>>, Reply> {
    let fees = call.body.get("fees").and_then(Value::as_array);
    let fees = fees.ok_or_else(|| Reply::field(422, "fees", "fees is required"))?;
    Ok(fees.iter().filter_map(Value::as_object).cloned().collect())
}

/// `POST /v3/checkouts/{checkout_id}/fees`.
pub(crate) fn add_fees(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let mut all = open.list("fees");
    for fee in asked_fees(call)? {
        let id = call.state.uuid();
        all.push(thing(&fee, &id));
    }
    open.set(call, "fees", all)
}

/// `PUT /v3/checkouts/{checkout_id}/fees`.
pub(crate) fn update_fees(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let mut all = open.list("fees");
    for fee in asked_fees(call)? {
        let id = fee.get("id").and_then(Key::from_json);
        let at = id.as_ref().and_then(|id| place(&all, "id", id)).ok_or_else(|| not_found("fee"))?;
        for (name, value) in fee {
            all[at][name] = value;
        }
    }
    open.set(call, "fees", all)
}

/// `DELETE /v3/checkouts/{checkout_id}/fees`: the fees that the body names.
pub(crate) fn delete_fees(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let ids = call.body.get("ids").and_then(Value::as_array).filter(|ids| !ids.is_empty());
    let ids = ids.ok_or_else(|| Reply::field(422, "ids", "ids is required"))?;
    let left: Vec<Value> = open.list("fees").into_iter().filter(|fee| !ids.contains(&fee["id"])).collect();
    open.set(call, "fees", left)
}

/// `POST /v3/checkouts/{checkout_id}/orders`: an order for what is in the cart of the same id, or for one product.
pub(crate) fn complete(call: &mut Call<'_>) -> Answer {
    let open = open(call)?;
    let address = |name: &str| open.row.get("billing_address").and_then(|address| address.get(name)).cloned();
    let billing = json!({"first_name": address("first_name"), "last_name": address("last_name"),
        "street_1": address("address1"), "city": address("city"), "zip": address("postal_code"),
        "email": address("email"), "country_iso2": address("country_code")});
    let cart = call.state.of("cart").get(&open.key);
    let lines = cart.map(|row| super::carts::lines(&render(specs::known("cart"), &row))).unwrap_or_default();
    let first = call.state.of("product").ids().first().map(Key::json);
    let mut products: Vec<Value> = lines
        .iter()
        .map(|line| json!({"product_id": line["product_id"], "quantity": line["quantity"]}))
        .collect();
    if products.is_empty() {
        products.push(json!({"product_id": first, "quantity": 1}));
    }
    let id = orders::create_from(call.state, &json!({"billing_address": billing, "products": products}))?;
    let _shown = open.set(call, "order_id", id.to_string())?;
    Ok(Reply::data(200, json!({"id": id})))
}

/// `POST /v3/checkouts/{checkout_id}/token`.
pub(crate) fn token(call: &mut Call<'_>) -> Answer {
    open(call)?;
    let token = call.state.uuid();
    Ok(Reply::bare(200, json!({"checkoutToken": token, "meta": {}})))
}
