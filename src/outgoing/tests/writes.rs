//! What single rows of the catalogue come to on the wire, where that is not plain: ids at two places, bodies in arrays,
//! lists that find things again.

use super::*;

/// What the store is sent for a command, where lists are empty and writes are done without a word.
fn sent(entity: &str, action: &str, path: Value, payload: Option<Value>) -> Vec<String> {
    let mut command = json!({"entity": entity, "action": action, "path": path});
    if let Some(payload) = payload {
        command["payload"] = payload;
    }
    let mut bench =
        Bench::new(FakeStore::new(
            |request, _| {
                if request.method.as_str() == "GET" { nothing() } else { done("{}") }
            },
        ));
    let result = bench.apply(&command);
    assert_eq!(result["outcome"], "applied", "{result}");
    bench.store.sent()
}

#[test]
fn ids_stand_where_the_endpoint_wants_them() {
    let one = |entity, action, path, payload| match &sent(entity, action, path, payload)[..] {
        [line] => line.clone(),
        lines => panic!("{entity} {action}: {lines:?}"),
    };
    let some = |value: Value| Some(value);
    for (line, wanted) in [
        (
            one("order_pickup", "update", json!({"order_pickup_id": 7}), some(json!({"ready_at": "x"}))),
            r#"PUT /v3/orders/pickups [{"pickup_id":7,"id":7,"ready_at":"x"}]"#,
        ),
        (
            one(
                "product_bulk_pricing_rule",
                "update",
                json!({"product_id": 1, "bulk_pricing_rule_id": 2}),
                some(json!({"amount": 5})),
            ),
            r#"PUT /v3/catalog/products/1/bulk-pricing-rules/2 {"id":2,"amount":5}"#,
        ),
        (
            one(
                "price_list_record",
                "update",
                json!({"price_list_id": 1, "variant_id": 2, "currency_code": "usd"}),
                some(json!({"price": 9})),
            ),
            r#"PUT /v3/pricelists/1/records/2/usd {"price":9}"#,
        ),
        (
            one(
                "price_list_record",
                "upsert",
                json!({"price_list_id": 1}),
                some(json!({"variant_id": 2, "currency": "usd", "price": 9})),
            ),
            r#"PUT /v3/pricelists/1/records [{"variant_id":2,"currency":"usd","price":9}]"#,
        ),
        (
            one("price_list_record", "clear", json!({"price_list_id": 1, "variant_id": 2}), None),
            "DELETE /v3/pricelists/1/records?variant_id:in=2",
        ),
        (
            one(
                "category_product_sort_order",
                "update",
                json!({"category_id": 3, "product_id": 4}),
                some(json!({"sort_order": 1})),
            ),
            r#"PUT /v3/catalog/categories/3/products/sort-order [{"product_id":4,"sort_order":1}]"#,
        ),
        (
            one("product_category_assignment", "delete", json!({"product_id": 4, "category_id": 3}), None),
            "DELETE /v3/catalog/products/category-assignments?product_id:in=4&category_id:in=3",
        ),
        (one("brand_image", "delete", json!({"brand_id": 3}), None), "DELETE /v3/catalog/brands/3/image"),
        (
            one("order_payment_void", "void", json!({"order_id": 3}), None),
            "POST /v3/orders/3/payment_actions/void",
        ),
    ] {
        assert_eq!(line, wanted);
    }
}

#[test]
fn an_upsert_looks_where_the_thing_is_listed() {
    let probe = |entity, path, payload| sent(entity, "upsert", path, Some(payload)).swap_remove(0);
    assert_eq!(
        probe("category", json!({}), json!({"name": "Tea", "parent_id": 0, "tree_id": 1})),
        "GET /v3/catalog/trees/categories?name=Tea&parent_id:in=0&tree_id:in=1&limit=250"
    );
    assert_eq!(
        probe("location", json!({}), json!({"code": "L-1"})),
        "GET /v3/inventory/locations?location_code:in=L-1&limit=250"
    );
    assert_eq!(
        probe("order", json!({}), json!({"external_order_id": "E-1"})),
        "GET /v2/orders?external_order_id=E-1&limit=250"
    );
}

#[test]
fn a_variant_is_made_below_its_product_and_found_among_all() {
    let create = json!({"entity": "product_variant", "action": "create", "path": {"product_id": 1}, "payload": {"sku": "A-1"}});
    let found = done(r#"{"data":[{"id":12,"product_id":1,"sku":"A-1"}]}"#);
    let mut bench = Bench::new(FakeStore::scripted(vec![doubtful(), found]));
    assert_eq!(bench.apply(&create)["resource_id"], "1:12");
    assert_eq!(
        bench.store.sent(),
        [
            r#"POST /v3/catalog/products/1/variants {"sku":"A-1"}"#,
            "GET /v3/catalog/variants?sku=A-1&limit=250"
        ]
    );
}

#[test]
fn an_update_that_adds_pictures_is_class_c() {
    let update = |images: Value| json!({"entity": "product", "action": "update", "path": {"product_id": 1}, "payload": {"images": images}});
    for (images, class) in [(json!([{"id": 3, "sort_order": 1}]), "A"), (json!([{"image_url": "x"}]), "C")] {
        let store = FakeStore::new(|_, _| done("{}"));
        assert_eq!(Bench::new(store).apply(&update(images))["class"], class);
    }
}
