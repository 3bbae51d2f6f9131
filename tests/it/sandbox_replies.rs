//! The answers to writes, judged by BigCommerce's own OpenAPI files.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use serde_json::{Value, json};

use crate::sandbox_openapi::{exam, pass};

/// Writes whose answers are judged: method, path as the sandbox spells it, its ids, body, status.
fn judged_writes() -> Vec<(&'static str, &'static str, &'static [&'static str], Value, u16)> {
    let metafield = json!({"permission_set": "write", "namespace": "judge", "key": "k", "value": "v", "description": "d",
        "resource_id": 1});
    let refused = json!({"permission_set": "write", "namespace": "judge", "key": "x", "value": "v", "resource_id": 99_999});
    let record = json!({"variant_id": 1, "currency": "EUR", "price": 5});
    let elsewhere = json!({"price_list_id": 1, "variant_id": 2, "currency": "EUR", "price": 5});
    let nobody = json!({"variant_id": 99_999, "currency": "EUR", "price": 5});
    let category = json!({"name": "Judged", "parent_id": 0});
    vec![
        ("POST", "/v3/catalog/products/metafields", &[], json!([metafield]), 200),
        ("POST", "/v3/catalog/products/metafields", &[], json!([refused]), 422),
        ("DELETE", "/v3/catalog/products/metafields", &[], json!([99_999]), 422),
        ("POST", "/v3/customers/metafields", &[], json!([metafield]), 200),
        ("POST", "/v3/catalog/brands/metafields", &[], json!([metafield, refused]), 422),
        ("PUT", "/v3/pricelists/{price_list_id}/records", &["1"], json!([record]), 200),
        ("PUT", "/v3/pricelists/{price_list_id}/records", &["1"], json!([nobody]), 422),
        ("PUT", "/v3/pricelists/records", &[], json!([elsewhere]), 200),
        ("POST", "/v3/pricelists/records", &[], json!([elsewhere]), 422),
        (
            "PUT",
            "/v3/pricelists/{price_list_id}/records/{variant_id}/{currency_code}",
            &["1", "1", "EUR"],
            json!({"price": 6}),
            200,
        ),
        ("POST", "/v3/pricelists", &[], json!({"name": "Judged"}), 200),
        ("POST", "/v3/pricelists", &[], json!({"name": "Judged"}), 409),
        (
            "PUT",
            "/v3/pricelists/{price_list_id}/assignments",
            &["1"],
            json!({"customer_group_id": 1, "channel_id": 1}),
            200,
        ),
        ("POST", "/v3/catalog/categories", &[], category.clone(), 200),
        ("POST", "/v3/catalog/categories", &[], category.clone(), 409),
        ("PUT", "/v3/catalog/trees", &[], json!([{"name": "Judged", "channels": [2]}]), 200),
        ("PUT", "/v3/catalog/products", &[], json!([{"id": 1, "price": 3}, {"id": 99_999, "price": 3}]), 207),
        (
            "PUT",
            "/v3/catalog/products/channel-assignments",
            &[],
            json!([{"product_id": 1, "channel_id": 1}]),
            204,
        ),
        (
            "PUT",
            "/v3/catalog/products/category-assignments",
            &[],
            json!([{"product_id": 1, "category_id": 99_999}]),
            422,
        ),
        ("POST", "/v3/inventory/locations", &[], json!([{"code": "JUDGED", "label": "J"}]), 200),
        ("PUT", "/v3/inventory/locations", &[], json!([{"id": 2, "label": "J"}]), 200),
        ("PUT", "/v3/storefront/redirects", &[], json!([{"from_path": "/judged", "site_id": 1}]), 201),
        (
            "PUT",
            "/v3/customers/attribute-values",
            &[],
            json!([{"customer_id": 1, "attribute_id": 1, "value": "v"}]),
            200,
        ),
        ("PUT", "/v3/customers/attribute-values", &[], json!([{"customer_id": 1}]), 422),
        (
            "POST",
            "/v3/orders/{order_id}/payment_actions/refund_quotes",
            &["101"],
            json!({"items": [{"item_type": "ORDER", "item_id": 101, "amount": 1}]}),
            201,
        ),
        ("POST", "/v3/orders/{order_id}/payment_actions/capture", &["101"], Value::Null, 201),
        ("POST", "/v3/payments/access_tokens", &[], json!({"order": {"id": 101}}), 201),
        ("POST", "/v3/promotions/{promotion_id}/codegen", &["1"], json!({"batch_size": 3}), 201),
        (
            "POST",
            "/v3/wishlists/{wishlist_id}/items",
            &["1"],
            json!({"items": [{"product_id": 1, "variant_id": 1}]}),
            201,
        ),
        (
            "POST",
            "/v3/channels/currency-assignments",
            &[],
            json!([{"channel_id": 1, "enabled_currencies": ["USD"], "default_currency": "USD"}]),
            200,
        ),
        (
            "POST",
            "/v3/pickup/options",
            &[],
            json!({"search_area": {"radius": {"value": 1, "unit": "KM"}, "coordinates": {"latitude": 1, "longitude": 1}}, "items": [{"variant_id": 1, "quantity": 1}]}),
            200,
        ),
        ("POST", "/v3/tax/zonecheck", &[], json!([{"country_code": "US"}]), 200),
        (
            "PUT",
            "/v3/tax/providers/{provider_id}/connection",
            &["basic"],
            json!({"username": "u", "password": "p"}),
            200,
        ),
        ("POST", "/v3/content/page-widgets", &[], json!({"regions": []}), 204),
        ("POST", "/v2/shipping/carrier/connection", &[], json!({"carrier_id": "c", "connection": {}}), 204),
        (
            "POST",
            "/v2/coupons",
            &[],
            json!({"name": "J", "type": "per_item_discount", "amount": "5", "code": "JUDGED",
            "applies_to": {"entity": "products", "ids": [1]}}),
            201,
        ),
        (
            "POST",
            "/v3/catalog/products/{product_id}/variants/{variant_id}/image",
            &["1", "1"],
            json!({"image_url": "https://example.com/a.png"}),
            200,
        ),
        ("DELETE", "/v3/pricelists/{price_list_id}/records", &["1"], Value::Null, 204),
        ("DELETE", "/v2/currencies", &[], Value::Null, 204),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_answer_as_their_openapi_says() {
    let Some(mut exam) = exam().await else { return };
    for (method, pattern, ids, body, status) in judged_writes() {
        let mut ids = ids.iter();
        let fill = |part: &'static str| if part.starts_with('{') { *ids.next().unwrap() } else { part };
        let path = pattern.split('/').map(fill).collect::<Vec<_>>().join("/");
        let verb = method.to_lowercase();
        let Some((file, template)) = exam.judge.operation(&verb, pattern) else {
            panic!("no file knows {method} {pattern}");
        };
        let body = (!body.is_null()).then_some(body);
        exam.ask((&file, &verb, &template), &path, body, status).await;
    }
    pass(&exam);
}
