//! Which requests are never sent, whoever asks. Pure.
//!
//! The most dangerous request of BigCommerce's API is a delete whose id got lost on the way: on a collection it
//! deletes everything. So a delete must name one thing by the last part of its path, or name explicit ids in a
//! filter that this very endpoint is documented to know: an unknown filter may be ignored by the store, which
//! again deletes everything. A body of ids does not count, since proxies may drop the body of a delete.

use crate::catalog::nameless;
use crate::model::ids::check_part;
use crate::model::request::{Method, Request};

/// Why a request is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the path is not one that the template {0:?} gives")]
    Path(String),
    #[error("a delete of the collection {0:?} is never sent without a filter of explicit ids")]
    Collection(String),
    #[error("the filter {0:?} of a delete must hold 1 to {MAX_IDS} ids, each once and well-formed")]
    Filter(String),
    #[error("a delete carries no body")]
    DeleteBody,
    #[error("a read carries no body")]
    GetBody,
}

/// Ids in one delete: the most that BigCommerce documents for any (products, promotion codes).
const MAX_IDS: usize = 250;

/// Collections that can be deleted from by explicit ids, with the filters that their documentation names, the
/// first of which must be given (BigCommerce's OpenAPI files). `{}` stands for any placeholder.
const BY_IDS: [(&str, &[&str]); 31] = [
    ("/v2/coupons", &["id:in"]),
    ("/v3/catalog/categories", &["id:in"]),
    ("/v3/catalog/products", &["id:in"]),
    ("/v3/catalog/products/category-assignments", &["product_id:in", "category_id:in"]),
    ("/v3/catalog/products/channel-assignments", &["product_id:in", "channel_id:in"]),
    ("/v3/catalog/trees", &["id:in"]),
    ("/v3/catalog/trees/categories", &["category_id:in"]),
    ("/v3/content/pages", &["id:in"]),
    ("/v3/customers", &["id:in"]),
    ("/v3/customers/addresses", &["id:in"]),
    ("/v3/customers/attribute-values", &["id:in"]),
    ("/v3/customers/attributes", &["id:in"]),
    ("/v3/inventory/locations", &["location_id:in"]),
    ("/v3/orders/pickups", &["id:in"]),
    ("/v3/pickup/methods", &["id:in"]),
    ("/v3/pricelists", &["id:in"]),
    ("/v3/pricelists/{}/records", &["variant_id:in", "currency"]),
    ("/v3/promotions", &["id:in"]),
    ("/v3/promotions/{}/codes", &["id:in"]),
    ("/v3/segments", &["id:in"]),
    ("/v3/segments/{}/shopper-profiles", &["id:in"]),
    ("/v3/shipping/products/customs-information", &["product_id:in"]),
    ("/v3/shopper-profiles", &["id:in"]),
    ("/v3/storefront/redirects", &["id:in"]),
    ("/v3/tax/products/properties", &["product_id:in"]),
    ("/v3/tax/properties", &["id:in"]),
    ("/v3/tax/rates", &["id:in"]),
    ("/v3/pricelists/assignments", &["id"]),
    ("/v3/storefront/custom-template-associations", &["id:in"]),
    ("/v3/tax/customers", &["customer_id:in"]),
    ("/v3/tax/zones", &["id:in"]),
];

/// Things of which their owner has one only, so that the owner's id in the path names them.
const ONE_OF_ITS_KIND: [&str; 7] = [
    "/v3/catalog/brands/{}/image",
    "/v3/catalog/categories/{}/image",
    "/v3/channels/{}/channel-menus",
    "/v3/channels/{}/currency-assignments",
    "/v3/channels/{}/site",
    "/v3/channels/{}/site/checkout-url",
    "/v3/tax/providers/{}/connection",
];

/// Says whether a request may be sent.
pub(super) fn check(request: &Request) -> Result<(), Refused> {
    check_path(request)?;
    match request.method {
        Method::Get if request.body.is_some() => Err(Refused::GetBody),
        Method::Delete => check_delete(request),
        Method::Get | Method::Post | Method::Put => Ok(()),
    }
}

/// The path has the template's segments, one by one, and ids where it has placeholders.
fn check_path(request: &Request) -> Result<(), Refused> {
    let (template, path) = (request.path.template(), request.path.as_str());
    let wrong = || Refused::Path(template.to_string());
    if !(template.starts_with("/v2/") || template.starts_with("/v3/")) {
        return Err(wrong());
    }
    let mut wanted = template.split('/').skip(1);
    let mut found = path.split('/').skip(1);
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Ok(()),
            (Some(wanted), Some(found)) => {
                check_part(found).map_err(|_| wrong())?;
                if !is_placeholder(wanted) && wanted != found {
                    return Err(wrong());
                }
            }
            _ => return Err(wrong()),
        }
    }
}

fn is_placeholder(segment: &str) -> bool {
    segment.len() > 2 && segment.starts_with('{') && segment.ends_with('}')
}

fn check_delete(request: &Request) -> Result<(), Refused> {
    if request.body.is_some() {
        return Err(Refused::DeleteBody);
    }
    let plain = nameless(request.path.template());
    if plain.ends_with("/{}") || ONE_OF_ITS_KIND.contains(&plain.as_str()) {
        return Ok(());
    }
    let row = BY_IDS.iter().find(|(template, _)| *template == plain);
    let Some((_, filters)) = row else { return Err(Refused::Collection(plain)) };
    let required = filters.first().copied().unwrap_or_default();
    if !request.query.iter().any(|(name, _)| name == required) {
        return Err(Refused::Collection(plain));
    }
    for (index, (name, value)) in request.query.iter().enumerate() {
        let twice = request.query[..index].iter().any(|(earlier, _)| earlier == name);
        // Whatever else is in the query could widen what is deleted.
        if twice || !filters.contains(&name.as_str()) || !is_id_list(value) {
            return Err(Refused::Filter(name.clone()));
        }
    }
    Ok(())
}

fn is_id_list(value: &str) -> bool {
    value.split(',').count() <= MAX_IDS && value.split(',').all(|id| check_part(id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::{ApiPath, Purpose};
    use proptest::prelude::*;

    fn delete(template: &str, query: &[(&str, &str)]) -> Request {
        Request {
            method: Method::Delete,
            path: ApiPath::render(template, |_| Some("7")).unwrap(),
            query: query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            body: None,
            purpose: Purpose::Command,
        }
    }

    /// The collections whose delete needs no filter by BigCommerce's OpenAPI files.
    const COLLECTIONS: [&str; 28] = [
        "/v2/orders",
        "/v2/customers",
        "/v2/customers/{id}/addresses",
        "/v2/orders/{id}/shipments",
        "/v2/coupons",
        "/v2/banners",
        "/v2/gift_certificates",
        "/v2/redirects",
        "/v2/currencies",
        "/v2/blog/posts",
        "/v3/pricelists",
        "/v3/pricelists/{id}/records",
        "/v3/pricelists/assignments",
        "/v3/catalog/categories",
        "/v3/catalog/trees",
        "/v3/catalog/trees/categories",
        "/v3/catalog/products",
        "/v3/catalog/products/channel-assignments",
        "/v3/catalog/products/category-assignments",
        "/v3/storefront/custom-template-associations",
        "/v3/customers/subscribers",
        "/v3/customers/metafields",
        "/v3/segments",
        "/v3/segments/{id}/shopper-profiles",
        "/v3/shopper-profiles",
        "/v3/tax/customers",
        "/v3/tax/zones",
        "/v3/tax/rates",
    ];

    #[test]
    fn none_of_the_collections_can_be_deleted_without_ids() {
        for template in COLLECTIONS {
            assert!(check(&delete(template, &[])).is_err(), "{template}");
            for name in ["id:in", "id", "product_id:in", "category_id:in", "customer_id:in", "variant_id:in"]
            {
                for value in ["", " ", ",", "/", "1,", ",1", "0", "-1", "*", "1&x", "1 ,2", "..", "%31"] {
                    assert!(
                        check(&delete(template, &[(name, value)])).is_err(),
                        "{template} {name}={value:?}"
                    );
                }
            }
            for other in [("limit", "1"), ("page", "1"), ("ID:IN", "1"), ("id%3Ain", "1"), ("id:in ", "1")] {
                assert!(check(&delete(template, &[other])).is_err(), "{template} {other:?}");
            }
        }
    }

    #[test]
    fn a_collection_that_does_not_document_an_id_filter_cannot_be_deleted_from_at_all() {
        for template in [
            "/v2/orders",
            "/v2/customers",
            "/v3/customers/subscribers",
            "/v3/customers/metafields",
            "/v3/hooks",
        ] {
            assert!(check(&delete(template, &[("id:in", "7")])).is_err(), "{template}");
        }
    }

    #[test]
    fn explicit_ids_pass_up_to_the_limit() {
        let products = "/v3/catalog/products";
        assert_eq!(check(&delete(products, &[("id:in", "7,8")])), Ok(()));
        let ids = |n: usize| (1..=n).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(check(&delete(products, &[("id:in", &ids(250))])), Ok(()));
        assert!(check(&delete(products, &[("id:in", &ids(251))])).is_err());
        assert!(check(&delete(products, &[("id:in", "7"), ("id:in", "8")])).is_err());
        assert!(check(&delete(products, &[("id:in", "7"), ("name", "x")])).is_err());
        let assignments = "/v3/catalog/products/category-assignments";
        assert_eq!(check(&delete(assignments, &[("product_id:in", "7"), ("category_id:in", "8")])), Ok(()));
        assert!(check(&delete(assignments, &[("category_id:in", "8")])).is_err());
    }

    #[test]
    fn one_thing_can_be_deleted_by_its_path() {
        for template in
            ["/v2/orders/{order_id}", "/v3/hooks/{webhook_id}", "/v3/catalog/brands/{brand_id}/image"]
        {
            assert_eq!(check(&delete(template, &[])), Ok(()), "{template}");
        }
    }

    #[test]
    fn a_delete_and_a_read_carry_no_body() {
        let mut request = delete("/v2/orders/{id}", &[]);
        request.body = Some("[1]".into());
        assert_eq!(check(&request), Err(Refused::DeleteBody));
        request.method = Method::Get;
        assert_eq!(check(&request), Err(Refused::GetBody));
    }

    #[test]
    fn templates_that_could_lead_elsewhere_are_refused() {
        for template in [
            "/v3/../v2/orders",
            "/v3//orders",
            "/v3/orders/",
            "/v3/./x",
            "/v3/%2e%2e/x",
            "/v3/a?b",
            "/v3/a#b",
            "/v3/a\\b",
            "/v3/a;b",
            "/v3/a b",
        ] {
            let mut request = delete(template, &[]);
            request.method = Method::Get;
            assert!(check(&request).is_err(), "{template}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_template_a_request_that_passes_has_plain_segments(template in "/v[23]/[a-z{}/._%?#-]{0,30}") {
            if let Ok(path) = ApiPath::render(&template, |_| Some("7")) {
                let mut request = delete("/v2/orders/{id}", &[]);
                request.path = path;
                request.method = Method::Get;
                if check(&request).is_ok() {
                    let plain = |s: &str| !s.is_empty() && s != "." && s != ".."
                        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
                    prop_assert!(request.path.as_str().split('/').skip(1).all(plain));
                }
            }
        }
    }
}
