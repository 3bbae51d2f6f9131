//! How rows look in an answer: computed fields, links, and sub-resources asked for with `include`.

use serde_json::{Map, Value, json};

use super::clock;
use super::events::CHANNEL;
use super::query::Query;
use super::specs::{self, Dates, Spec};
use super::state::State;
use super::store::{Key, Lag, field, render};

/// The sub-resources of a product: name in `include`, resource.
const PRODUCT_PARTS: [(&str, &str); 6] = [
    ("bulk_pricing_rules", "product_bulk_pricing_rule"),
    ("custom_fields", "product_custom_field"),
    ("images", "product_image"),
    ("options", "product_option"),
    ("modifiers", "product_modifier"),
    ("videos", "product_video"),
];

/// What a row is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    List,
    Alone,
    /// Every field, wherever the API shows it.
    Whole,
}

/// A read: which include list, and how far it lags.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) state: &'a State,
    pub(crate) query: &'a Query,
    pub(crate) lag: Lag,
    span: Span,
}

impl<'a> Sight<'a> {
    pub(crate) fn new(state: &'a State, query: &'a Query) -> Sight<'a> {
        Sight { state, query, lag: state.lag, span: Span::Whole }
    }

    /// The same read without lag.
    pub(crate) fn now(self) -> Sight<'a> {
        Sight { lag: Lag::NONE, ..self }
    }

    /// The same read, shown in a list or alone.
    pub(crate) fn span(self, span: Span) -> Sight<'a> {
        Sight { span, ..self }
    }

    /// The row as an answer shows it.
    pub(crate) fn show(&self, spec: &Spec, row: &Map<String, Value>) -> Map<String, Value> {
        let mut out = render(spec, row);
        match self.span {
            Span::List => spec.only_alone.iter().for_each(|name| drop(out.shift_remove(name))),
            Span::Alone => spec.only_in_lists.iter().for_each(|name| drop(out.shift_remove(name))),
            Span::Whole => {}
        }
        if spec.table.is_some() && spec.dates == Dates::Rfc2822 {
            in_v2_dates(&mut out);
        }
        match spec.name.as_str() {
            "product" => self.product(row, &mut out),
            "variant" => self.variant(spec, row, &mut out),
            "customer" => self.customer(row, &mut out),
            "customer_address" if self.query.lists("include", "formfields") => {
                out.insert("form_fields".to_owned(), json!([]));
            }
            "order" => self.order(row, &mut out),
            "order_shipping_address" => {
                let path =
                    format!("/orders/{}/shipping_addresses/{}/shipping_quotes", out["order_id"], out["id"]);
                out.insert("shipping_quotes".to_owned(), self.link(&path));
            }
            _ => {}
        }
        out
    }

    /// The rows of `name` that belong to `parent`.
    pub(crate) fn children(&self, name: &'static str, parent: &str, of: &Value) -> Vec<Value> {
        let (spec, table) = (specs::known(name), self.state.of(name));
        let keys = table.find(parent, &of.to_string());
        keys.iter()
            .filter_map(|key| table.see(key, self.lag))
            .map(|row| Value::Object(self.show(spec, &row)))
            .collect()
    }

    fn product(&self, row: &Map<String, Value>, out: &mut Map<String, Value>) {
        let number = |name: &str| row.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let name = if number("sale_price") > 0.0 { "sale_price" } else { "price" };
        let calculated = row.get(name).cloned().unwrap_or(Value::from(0));
        out.insert("calculated_price".to_owned(), calculated);
        let id = out.get("id").cloned().unwrap_or(Value::Null);
        for (include, resource) in PRODUCT_PARTS {
            if self.query.lists("include", include) {
                out.insert(include.to_owned(), Value::Array(self.children(resource, "product_id", &id)));
            }
        }
        if self.query.lists("include", "variants") {
            out.insert("variants".to_owned(), Value::Array(self.children("variant", "product_id", &id)));
        }
        if self.query.lists("include", "primary_image") {
            let images = self.children("product_image", "product_id", &id);
            let first = images.iter().find(|image| image["is_thumbnail"] == true).or(images.first());
            if let Some(mut image) = first.and_then(Value::as_object).cloned() {
                // Here the API names the file and not the URL.
                if let Some(url) = image.shift_remove("image_url") {
                    image.insert("image_file".to_owned(), url);
                }
                out.insert("primary_image".to_owned(), Value::Object(image));
            }
        }
        if self.query.lists("include", "channels") {
            out.insert("channels".to_owned(), json!([CHANNEL]));
        }
        for include in ["parent_relations", "reviews"] {
            if self.query.lists("include", include) {
                out.insert(include.to_owned(), json!([]));
            }
        }
    }

    fn variant(&self, spec: &Spec, row: &Map<String, Value>, out: &mut Map<String, Value>) {
        let product = field(spec, row, "product_id").as_u64().map(Key::Int);
        let product = product.and_then(|key| self.state.of("product").see(&key, self.lag));
        let own = |name: &str| row.get(name).filter(|value| !value.is_null()).cloned();
        let theirs = |name: &str| product.as_ref()?.get(name).cloned();
        let price = own("sale_price").or_else(|| own("price")).or_else(|| theirs("price"));
        out.insert("calculated_price".to_owned(), price.unwrap_or(Value::from(0)));
        let weight = own("weight").or_else(|| theirs("weight"));
        out.insert("calculated_weight".to_owned(), weight.unwrap_or(Value::from(0)));
    }

    fn customer(&self, row: &Map<String, Value>, out: &mut Map<String, Value>) {
        let id = row.get("id").cloned().unwrap_or(Value::Null);
        let count = self.state.of("customer_address").find("customer_id", &id.to_string()).len();
        out.insert("address_count".to_owned(), Value::from(count));
        for hidden in ["store_credit_amounts", "form_fields", "attributes", "addresses"] {
            out.remove(hidden);
        }
        let asked = |name| self.query.lists("include", name);
        let own = |name: &str| row.get(name).cloned();
        if asked("addresses") {
            out.insert(
                "addresses".to_owned(),
                Value::Array(self.children("customer_address", "customer_id", &id)),
            );
        }
        if asked("storecredit") {
            let credit = own("store_credit_amounts").unwrap_or_else(|| json!([{"amount": 0}]));
            out.insert("store_credit_amounts".to_owned(), credit);
        }
        if asked("attributes") {
            out.insert("attributes".to_owned(), own("attributes").unwrap_or_else(|| json!([])));
        }
        if asked("formfields") {
            out.insert("form_fields".to_owned(), own("form_fields").unwrap_or_else(|| json!([])));
        }
    }

    fn order(&self, row: &Map<String, Value>, out: &mut Map<String, Value>) {
        let id = row.get("id").and_then(Value::as_u64).unwrap_or(0);
        for part in ["products", "shipping_addresses", "coupons"] {
            out.insert(part.to_owned(), self.link(&format!("/orders/{id}/{part}")));
        }
        let asked = |name| self.query.lists("include", name);
        let lines = asked("consignments.line_items");
        let consignments = if asked("consignments") || lines {
            super::resources::consignments::consignments(self, id, lines)
        } else {
            self.link(&format!("/orders/{id}/consignments"))
        };
        out.insert("consignments".to_owned(), consignments);
        let fees = if asked("fees") { json!([]) } else { self.link(&format!("/orders/{id}/fees")) };
        out.insert("fees".to_owned(), fees);
    }

    fn link(&self, path: &str) -> Value {
        json!({"url": format!("{}/v2{path}", self.state.api_url), "resource": path})
    }
}

/// Dates that V3 keeps, as V2 writes them.
fn in_v2_dates(out: &mut Map<String, Value>) {
    for name in ["date_created", "date_modified"] {
        if let Some(at) = out.get(name).and_then(|value| clock::parse(value.as_str()?)) {
            out.insert(name.to_owned(), Value::from(clock::rfc2822(at)));
        }
    }
}
