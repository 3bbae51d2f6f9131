//! How many requests may run at once on single endpoints of one store.
//!
//! Which endpoints have a cap, and why, is data of the catalogue. All endpoints of a row share its places. Endpoints
//! without a row are bounded by the store's total only.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::catalog::caps::{Cap, Endpoint};
use crate::catalog::nameless;
use crate::model::request::Request;

/// The semaphores of one store.
#[derive(Debug)]
pub(super) struct Caps {
    endpoints: HashMap<Endpoint, Arc<Semaphore>>,
}

impl Caps {
    /// All free.
    pub(super) fn new(caps: &[Cap]) -> Self {
        let of = |cap: &Cap| {
            let permits = Arc::new(Semaphore::new(cap.at_once));
            cap.endpoints().map(|endpoint| (endpoint, Arc::clone(&permits))).collect::<Vec<_>>()
        };
        Self { endpoints: caps.iter().flat_map(of).collect() }
    }

    /// The places of the request's endpoint, if that has a cap.
    pub(super) fn of(&self, request: &Request) -> Option<Arc<Semaphore>> {
        self.endpoints.get(&(request.method, nameless(request.path.template()))).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::model::request::Method::{self, Delete, Get, Post, Put};
    use crate::model::request::{ApiPath, Purpose};

    fn request(method: Method, template: &str) -> Request {
        let path = ApiPath::render(template, |_| Some("7")).unwrap();
        Request { method, path, query: Vec::new(), body: None, purpose: Purpose::Live }
    }

    #[test]
    fn caps_are_found_whatever_the_ids_are_called() {
        let caps = Caps::new(Catalog::embedded().unwrap().caps());
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
            let found = caps.of(&request(method, template)).map(|permits| permits.available_permits());
            assert_eq!(found, at_once, "{method:?} {template}");
        }
    }

    #[test]
    fn the_endpoints_of_a_row_share_its_places() {
        let caps = Caps::new(Catalog::embedded().unwrap().caps());
        let of = |method, template| caps.of(&request(method, template)).unwrap();
        let held = of(Put, "/v3/pricelists/{id}/records").try_acquire_owned().unwrap();
        assert_eq!(of(Put, "/v3/pricelists/records").available_permits(), 0);
        assert_eq!(of(Post, "/v3/pricelists/records").available_permits(), 10);
        drop(held);
        assert_eq!(of(Put, "/v3/pricelists/records").available_permits(), 1);
    }
}
