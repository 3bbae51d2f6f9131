//! How many requests may run at once on single endpoints.
//!
//! BigCommerce documents caps for some endpoints, beyond which it answers 429. Each row is one cap; all paths of
//! a row share it. Endpoints without a row are bounded by the store's total only.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::guard::plain;
use crate::model::request::{Method, Request};

/// What a row covers.
struct Row {
    at_once: usize,
    methods: &'static [Method],
    templates: &'static [&'static str],
}

const fn row(at_once: usize, methods: &'static [Method], templates: &'static [&'static str]) -> Row {
    Row { at_once, methods, templates }
}

use Method::{Delete, Get, Post, Put};

const ANY: &[Method] = &[Get, Post, Put, Delete];

/// The documented caps (BigCommerce's API reference, as its OpenAPI files word them), and, at 1, what its guides
/// say must not run in parallel.
const ROWS: &[Row] = &[
    row(3, &[Put], &["/v3/customers"]),
    row(10, &[Post], &["/v3/customers/addresses"]),
    row(3, &[Put], &["/v3/customers/addresses"]),
    row(3, ANY, &["/v3/customers/attributes"]),
    row(3, ANY, &["/v3/customers/attribute-values"]),
    row(10, ANY, &["/v3/customers/form-field-values"]),
    row(40, ANY, &["/v2/customer_groups", "/v2/customer_groups/{}"]),
    row(40, ANY, &["/v3/catalog/categories", "/v3/catalog/categories/{}"]),
    row(1, &[Get], &["/v3/catalog/trees/{}/categories"]),
    row(40, ANY, &["/v3/promotions", "/v3/promotions/{}"]),
    row(10, &[Get], &["/v3/promotions/{}/codes"]),
    row(40, &[Post, Delete], &["/v3/promotions/{}/codes", "/v3/promotions/{}/codes/{}"]),
    row(10, &[Post], &["/v3/promotions/{}/codegen"]),
    row(40, ANY, &["/v3/promotions/codes"]),
    row(
        10,
        ANY,
        &["/v3/segments", "/v3/segments/{}", "/v3/segments/{}/shopper-profiles", "/v3/shopper-profiles"],
    ),
    row(50, ANY, &["/v3/inventory/locations"]),
    row(10, &[Get], &["/v3/pricelists/{}/records"]),
    row(40, &[Get], &["/v3/pricelists/{}/records/{}"]),
    row(50, &[Get], &["/v3/pricelists/{}/records/{}/{}"]),
    row(40, &[Put], &["/v3/pricelists/{}/records/{}/{}"]),
    row(25, &[Delete], &["/v3/pricelists/{}/records/{}/{}"]),
    row(10, &[Post], &["/v3/pricelists/{}/records", "/v3/pricelists/records"]),
    // The reference says 2 a list and the overview 1: the careful figure, over all lists.
    row(1, &[Put], &["/v3/pricelists/{}/records", "/v3/pricelists/records"]),
    row(1, &[Delete], &["/v3/pricelists", "/v3/pricelists/{}"]),
    row(25, &[Put], &["/v3/pricelists/{}/assignments"]),
    row(
        1,
        &[Put, Delete],
        &["/v3/catalog/products/channel-assignments", "/v3/catalog/products/category-assignments"],
    ),
    row(1, &[Post, Put], &["/v3/inventory/adjustments/absolute", "/v3/inventory/adjustments/relative"]),
    row(
        1,
        &[Post],
        &["/v3/orders/{}/payment_actions/refunds", "/v3/orders/{}/payment_actions/refund_quotes"],
    ),
];

/// The semaphores of one store.
#[derive(Debug)]
pub(super) struct Caps {
    endpoints: HashMap<(Method, &'static str), Arc<Semaphore>>,
}

impl Caps {
    /// All free.
    pub(super) fn new() -> Self {
        let mut endpoints = HashMap::new();
        for row in ROWS {
            let permits = Arc::new(Semaphore::new(row.at_once));
            for (method, template) in
                row.methods.iter().flat_map(|m| row.templates.iter().map(move |t| (*m, *t)))
            {
                endpoints.insert((method, template), Arc::clone(&permits));
            }
        }
        Self { endpoints }
    }

    /// The places of the request's endpoint, if that has a cap.
    pub(super) fn of(&self, request: &Request) -> Option<Arc<Semaphore>> {
        let plain = plain(request.path.template());
        self.endpoints.get(&(request.method, plain.as_str())).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::{ApiPath, Purpose};

    #[test]
    fn no_endpoint_has_two_caps() {
        let rows: usize = ROWS.iter().map(|row| row.methods.len() * row.templates.len()).sum();
        assert_eq!(Caps::new().endpoints.len(), rows);
    }

    #[test]
    fn caps_are_found_whatever_the_ids_are_called() {
        for (method, template, at_once) in [
            (Put, "/v3/customers", Some(3)),
            (Get, "/v3/customers", None),
            (Get, "/v3/catalog/trees/{tree_id}/categories", Some(1)),
            (Get, "/v3/pricelists/{price_list_id}/records", Some(10)),
            (Post, "/v3/pricelists/{id}/records", Some(10)),
            (Delete, "/v3/promotions/{promotion_id}/codes/{code_id}", Some(40)),
            (Post, "/v3/promotions/{promotion_id}/codegen", Some(10)),
            (Post, "/v3/orders/{order_id}/payment_actions/refund_quotes", Some(1)),
            (Get, "/v3/catalog/products/{product_id}", None),
        ] {
            let path = ApiPath::render(template, |_| Some("7")).unwrap();
            let request = Request { method, path, query: Vec::new(), body: None, purpose: Purpose::Live };
            let found = Caps::new().of(&request).map(|permits| permits.available_permits());
            assert_eq!(found, at_once, "{method:?} {template}");
        }
    }
}
