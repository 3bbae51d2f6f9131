//! Consignments of V2 orders, where lines are cut, and the fixed list of order statuses.

use serde_json::{Value, json};

use super::orders::{STATUSES, not_found, order};
use super::{Answer, Call};
use crate::sandbox::reply::Reply;
use crate::sandbox::store::Key;
use crate::sandbox::view::Sight;

/// Lines that a consignment shows before it warns.
const CONSIGNMENT_LINES_MAX: usize = 50;

/// The consignments of an order: one shipping consignment per address, its lines capped.
pub(crate) fn consignments(sight: &Sight<'_>, id: u64, with_lines: bool) -> Value {
    let of = Value::from(id);
    let lines = sight.children("order_product", "order_id", &of);
    let shipping: Vec<Value> = sight
        .children("order_shipping_address", "order_id", &of)
        .into_iter()
        .map(|address| {
            let own: Vec<&Value> =
                lines.iter().filter(|line| line["order_address_id"] == address["id"]).collect();
            let mut out = json!({"id": address["id"]});
            let copied = [
                "first_name",
                "last_name",
                "company",
                "street_1",
                "street_2",
                "city",
                "zip",
                "country",
                "country_iso2",
                "state",
                "email",
                "phone",
                "form_fields",
                "items_total",
                "items_shipped",
                "shipping_method",
                "shipping_zone_id",
                "shipping_zone_name",
                "shipping_quotes",
            ];
            for name in copied {
                out[name] = address[name].clone();
            }
            for name in ["base_cost", "cost_ex_tax", "cost_inc_tax", "cost_tax", "cost_tax_class_id"] {
                out[name] = Value::from(0);
            }
            if with_lines {
                out["line_items"] =
                    own.iter().take(CONSIGNMENT_LINES_MAX).map(|line| (*line).clone()).collect();
                if own.len() > CONSIGNMENT_LINES_MAX {
                    out["__warning__"] = Value::from("line_items is cut: read the order's products instead");
                }
            } else {
                let path = format!("/orders/{id}/consignments/shipping/{}/line_items", address["id"]);
                out["line_items"] =
                    json!([{"url": format!("{}/v2{path}", sight.state.api_url), "resource": path}]);
            }
            out
        })
        .collect();
    json!({"pickups": [], "shipping": shipping, "downloads": [], "email": {"gift_certificates": []}})
}

pub(crate) fn get_consignments(call: &mut Call<'_>) -> Answer {
    let (id, _) = order(call, call.state.lag)?;
    let lines = call.query.lists("include", "consignments.line_items");
    Ok(Reply::bare(200, consignments(&Sight::new(call.state, call.query), id, lines)))
}

/// A status as the API shows it.
pub(crate) fn status(id: usize) -> Value {
    let name = STATUSES.get(id).copied().unwrap_or_default();
    json!({"id": id, "name": name, "system_label": name, "custom_label": name, "system_description": name})
}

pub(crate) fn list_statuses(_: &mut Call<'_>) -> Answer {
    Ok(Reply::bare(200, (0..STATUSES.len()).map(status).collect()))
}

pub(crate) fn get_status(call: &mut Call<'_>) -> Answer {
    match call.key(0) {
        Key::Int(id) if id < STATUSES.len() as u64 => {
            Ok(Reply::bare(200, status(usize::try_from(id).unwrap_or(0))))
        }
        _ => Err(not_found()),
    }
}
