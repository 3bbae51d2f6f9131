//! Named actions that fit no row: each changes one thing, and says so in a shape of its own.

use serde_json::{Map, Value, json};

use super::generic::not_found;
use super::writes::{array, object, shown};
use super::{Answer, Call, orders};
use crate::sandbox::query::Filter;
use crate::sandbox::reply::Reply;
use crate::sandbox::specs;
use crate::sandbox::store::{Key, Lag, field, render};

/// Codes that one request may ask for.
const CODES_MAX: u64 = 250;
/// Letters of a generated code, beside its prefix and suffix.
const CODE_LENGTH: usize = 16;
/// Channels of one batch; not documented.
const CHANNELS_MAX: usize = 50;

/// `PUT /v2/orders/{order_id}/shipping_addresses/{id}`.
pub(crate) fn update_order_address(call: &mut Call<'_>) -> Answer {
    let (order, _) = orders::order(call, Lag::NONE)?;
    let (spec, key) = (specs::known("order_shipping_address"), call.key(1));
    let row = call.state.table(spec).get(&key);
    let own = row.is_some_and(|row| field(spec, &row, "order_id").as_u64() == Some(order));
    if !own {
        return Err(orders::not_found());
    }
    let kept = ["id", "order_id", "shipping_quotes"];
    let body = object(call.body)?;
    let patch =
        body.iter().filter(|(name, _)| spec.template.contains_key(*name) && !kept.contains(&name.as_str()));
    let patch: Map<String, Value> = patch.map(|(name, value)| (name.clone(), value.clone())).collect();
    call.state.change(spec, &key, patch);
    orders::change(call.state, order, Map::new());
    let row = call.state.table(spec).get(&key).unwrap_or_default();
    Ok(Reply::bare(200, Value::Object(render(spec, &row))))
}

/// The items of a wishlist.
fn wishes(call: &Call<'_>) -> Result<Vec<Value>, Reply> {
    let row = call.state.of("wishlist").get(&call.key(0)).ok_or_else(|| not_found("wishlist"))?;
    Ok(row.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
}

fn set_wishes(call: &mut Call<'_>, items: Vec<Value>, status: u16) -> Reply {
    let (spec, key) = (specs::known("wishlist"), call.key(0));
    call.state.change(spec, &key, Map::from_iter([("items".to_owned(), Value::Array(items))]));
    shown(call, spec, &[key], status, true)
}

/// `POST /v3/wishlists/{wishlist_id}/items`.
pub(crate) fn add_wishes(call: &mut Call<'_>) -> Answer {
    let mut items = wishes(call)?;
    let more = call.body.get("items").and_then(Value::as_array).cloned();
    for mut item in more.ok_or_else(|| Reply::field(422, "items", "items is required"))? {
        if item.get("product_id").and_then(Value::as_u64).is_none() {
            return Err(Reply::field(422, "items.product_id", "product_id is required"));
        }
        let last = items.iter().filter_map(|item| item["id"].as_u64()).max().unwrap_or(0);
        item["id"] = Value::from(last + 1);
        items.push(item);
    }
    Ok(set_wishes(call, items, 201))
}

/// `DELETE /v3/wishlists/{wishlist_id}/items/{item_id}`.
pub(crate) fn delete_wish(call: &mut Call<'_>) -> Answer {
    let mut items = wishes(call)?;
    let id = call.key(1).json();
    let place = items.iter().position(|item| item["id"] == id).ok_or_else(|| not_found("wishlist_item"))?;
    items.remove(place);
    Ok(set_wishes(call, items, 200))
}

/// `POST /v3/carts/{cart_id}/redirect_urls`.
pub(crate) fn cart_urls(call: &mut Call<'_>) -> Answer {
    let key = call.key(0);
    if !call.state.of("cart").has(&key) {
        return Err(not_found("cart"));
    }
    let token = call.state.uuid();
    let url = |path: &str| format!("https://store.example.com/{path}?cart={key}&token={token}");
    let urls = json!({"cart_url": url("cart.php"), "checkout_url": url("checkout"),
        "embedded_checkout_url": url("embedded-checkout")});
    Ok(Reply::data(201, urls))
}

/// `PUT` and `DELETE /v3/channels/{channel_id}/site/checkout-url`.
pub(crate) fn checkout_url(call: &mut Call<'_>) -> Answer {
    let (spec, key) = (specs::known("channel_site"), call.key(0));
    if !call.state.of("channel").has(&key) {
        return Err(not_found("channel"));
    }
    let url = match call.body {
        Value::Null => None,
        body => {
            let url = body.get("url").and_then(Value::as_str).filter(|url| url.starts_with("https://"));
            Some(url.ok_or_else(|| Reply::field(422, "url", "An https address is required."))?.to_owned())
        }
    };
    let urls = url.iter().map(|url| json!({"url": url, "type": "checkout"})).collect::<Vec<_>>();
    let patch = Map::from_iter([
        ("urls".to_owned(), Value::Array(urls)),
        ("is_checkout_url_customized".to_owned(), Value::from(url.is_some())),
    ]);
    call.state.put_single(spec, &key, patch);
    if url.is_none() {
        return Ok(Reply::empty(200));
    }
    let row = call.state.table(spec).get(&key).unwrap_or_default();
    Ok(Reply::bare(200, Value::Object(render(spec, &row))))
}

/// `PUT /v3/sites/{site_id}/certificate`.
pub(crate) fn set_certificate(call: &mut Call<'_>) -> Answer {
    let (spec, site) = (specs::known("site_certificate"), call.key(0));
    if !call.state.of("site").has(&site) {
        return Err(not_found("site"));
    }
    let text = call.body.get("certificate").and_then(|part| part.get("certificate")).and_then(Value::as_str);
    let text = text.ok_or_else(|| Reply::field(422, "certificate.certificate", "is required"))?;
    let installed = json!({"common_name": "", "subject_alternative_names": [], "validity_not_before": "",
        "validity_not_after": "", "signing_algorithm": "", "issuer": "", "certificate": text,
        "intermediate_certificates": ""});
    let patch = Map::from_iter([
        ("status".to_owned(), Value::from("dedicated")),
        ("installed_certificate".to_owned(), installed),
    ]);
    call.state.put_single(spec, &site, patch);
    Ok(Reply::bare(200, json!({"data": {}, "meta": {}})))
}

/// `POST /v3/channels/currency-assignments`.
pub(crate) fn assign_currencies(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("channel_currency_assignment");
    let mut keys = Vec::new();
    for item in array(call.body, CHANNELS_MAX)?.iter().filter_map(Value::as_object) {
        let key = item.get("channel_id").and_then(Key::from_json);
        let key = key.ok_or_else(|| Reply::field(422, "channel_id", "is required"))?;
        if call.state.table(spec).has(&key) {
            call.state.change(spec, &key, item.clone());
        } else {
            call.state.insert(spec, item.clone());
        }
        keys.push(key);
    }
    Ok(shown(call, spec, &keys, 200, false))
}

/// `POST /v3/promotions/{promotion_id}/codegen`: every call makes further codes.
pub(crate) fn generate_codes(call: &mut Call<'_>) -> Answer {
    let promotion = call.key(0);
    if !call.state.of("promotion").has(&promotion) {
        return Err(not_found("promotion"));
    }
    let size = call.body.get("batch_size").and_then(Value::as_u64);
    let size = size.filter(|size| (1..=CODES_MAX).contains(size));
    let refuse =
        || json!({"errors": [{"status": 422, "title": format!("batch_size must be 1 to {CODES_MAX}")}]});
    let size = size.ok_or_else(|| Reply::bare(422, refuse()))?;
    let text = |name: &str| call.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |name: &str| call.body.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (max, each) = (number("max_uses"), number("max_uses_per_customer"));
    let (prefix, delimiter, suffix) = (text("prefix"), text("delimiter"), text("suffix"));
    let spec = specs::known("promotion_code");
    let mut codes = Vec::new();
    for _ in 0..size {
        let middle = call.state.uuid().replace('-', "").to_uppercase();
        let parts = [prefix.as_str(), &middle[..CODE_LENGTH], suffix.as_str()];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let code = parts.join(&delimiter);
        let row = Map::from_iter([
            ("promotion_id".to_owned(), promotion.json()),
            ("code".to_owned(), Value::from(code.clone())),
            ("max_uses".to_owned(), Value::from(max)),
            ("max_uses_per_customer".to_owned(), Value::from(each)),
        ]);
        call.state.insert(spec, row);
        codes.push(json!({"code": code}));
    }
    let created = crate::sandbox::clock::iso(crate::sandbox::clock::unix_s());
    Ok(Reply::data(
        201,
        json!({"created": created, "max_uses": max, "max_uses_per_customer": each, "batch_size": size,
            "codes": codes}),
    ))
}

/// `DELETE /v3/promotions/codes?code=`.
pub(crate) fn delete_code(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("promotion_code");
    let code = call.query.get("code").filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| Reply::field(422, "code", "code is required"))?;
    for key in call.state.table(spec).find("code", code) {
        call.state.delete(spec, &key);
    }
    Ok(Reply::empty(204))
}

/// `POST /v3/storefront/redirects/imex/import`: the file is counted as a job and not read.
pub(crate) fn import_redirects(call: &mut Call<'_>) -> Answer {
    if call.body.as_object().is_none_or(Map::is_empty) {
        return Err(Reply::plain(400, "The form holds no file."));
    }
    let row = Map::from_iter([("type".to_owned(), Value::from("import"))]);
    let key = call.state.insert(specs::known("redirect_job"), row);
    Ok(Reply::bare(201, json!({"id": key.json()})))
}

/// `POST /v3/content/page-widgets`.
pub(crate) fn set_page_widgets(call: &mut Call<'_>) -> Answer {
    let regions = call.body.get("regions").cloned().unwrap_or_else(|| json!([]));
    let patch = Map::from_iter([("regions".to_owned(), regions)]);
    call.state.put_single(specs::known("page_widget"), &Key::Int(0), patch);
    Ok(Reply::empty(204))
}

/// `POST`, `PUT` and `DELETE /v2/shipping/carrier/connection`.
pub(crate) fn connect_carrier(call: &mut Call<'_>) -> Answer {
    let (spec, key) = carrier(call)?;
    let connection = call.body.get("connection").filter(|part| part.is_object()).cloned();
    let connection = connection.ok_or_else(|| Reply::v2(400, "The field 'connection' is required."))?;
    // What a carrier is connected with is secret, and nobody can read it back.
    let fields: Vec<Value> =
        connection.as_object().into_iter().flat_map(Map::keys).cloned().map(Value::from).collect();
    let mut row = Map::from_iter([("fields".to_owned(), Value::Array(fields))]);
    if call.state.table(spec).has(&key) {
        call.state.change(spec, &key, row);
    } else {
        row.insert("carrier_id".to_owned(), key.json());
        call.state.insert(spec, row);
    }
    Ok(Reply::empty(204))
}

pub(crate) fn disconnect_carrier(call: &mut Call<'_>) -> Answer {
    let (spec, key) = carrier(call)?;
    call.state.delete(spec, &key);
    Ok(Reply::empty(204))
}

fn carrier(call: &Call<'_>) -> Result<(&'static specs::Spec, Key), Reply> {
    let id = call.body.get("carrier_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Reply::v2(400, "The field 'carrier_id' is required."))?;
    Ok((specs::known("shipping_carrier_connection"), Key::Text(id.to_owned())))
}

/// `POST /v3/pickup/options`: every method could hand out everything.
pub(crate) fn pickup_options(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("pickup_method");
    let items = call.body.get("items").cloned().unwrap_or_else(|| json!([]));
    let shown =
        ["id", "location_id", "display_name", "collection_instructions", "collection_time_description"];
    let options: Vec<Value> = call
        .state
        .table(spec)
        .scan(Lag::NONE)
        .map(|(_, row)| {
            let whole = render(spec, &row);
            let method: Map<String, Value> = shown
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), whole.get(*name)?.clone())))
                .collect();
            json!({"pickup_method": method, "available_items": items})
        })
        .collect();
    Ok(Reply::bare(200, json!({"results": [{"pickup_options": options}]})))
}

/// `PUT /v3/tax/providers/{provider_id}/connection`; the password is not kept.
pub(crate) fn connect_tax(call: &mut Call<'_>) -> Answer {
    let body = object(call.body)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut patch = Map::from_iter([("configured".to_owned(), Value::from(true))]);
    for name in ["username", "password"] {
        text(name).ok_or_else(|| Reply::field(422, name, format!("{name} is required")))?;
    }
    for name in ["username", "profile"] {
        patch.extend(text(name).map(|text| (name.to_owned(), Value::from(text))));
    }
    let (spec, key) = (specs::known("tax_provider_connection"), call.key(0));
    call.state.put_single(spec, &key, patch);
    Ok(shown(call, spec, &[key], 200, true))
}

/// `POST /v3/tax/zonecheck`: the zones that would tax a shopper; no zone of the simulator leaves anybody out.
pub(crate) fn check_zones(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("tax_zone");
    let zones: Vec<Value> =
        call.state.table(spec).scan(Lag::NONE).map(|(_, row)| Value::Object(render(spec, &row))).collect();
    Ok(Reply::bare(200, json!({"data": zones})))
}

/// `DELETE /v2/currencies`: all but the default.
pub(crate) fn delete_currencies(call: &mut Call<'_>) -> Answer {
    call.forbidden = true;
    let spec = specs::known("currency");
    let default = Filter::new("is_default", "true");
    let rows: Vec<_> = call.state.table(spec).scan(Lag::NONE).map(|(key, row)| (key.clone(), row)).collect();
    for (key, _) in rows.iter().filter(|(_, row)| !default.accepts(spec, row)) {
        call.state.delete(spec, key);
    }
    Ok(Reply::empty(204))
}

/// `DELETE /v3/marketing/email-templates/{template_name}`: the template is the theme's again.
pub(crate) fn reset_email_template(call: &mut Call<'_>) -> Answer {
    let (spec, key) = (specs::known("email_template"), call.key(0));
    let row = call.state.table(spec).get(&key).ok_or_else(|| not_found("email_template"))?;
    let nothing = row.keys().filter(|name| **name != spec.id).map(|name| (name.clone(), Value::Null));
    call.state.change(spec, &key, nothing.collect());
    Ok(Reply::empty(200))
}
