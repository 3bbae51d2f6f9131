//! The sandbox's writes: shapes, rules of uniqueness, what a refused batch keeps, upserts, and deletes of collections.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sandbox_lab::Lab;

async fn routes(lab: &Lab) -> Vec<(String, String)> {
    let url = format!("{}/_sandbox/routes", lab.sandbox.base_uri());
    let bytes = lab.client.get(url).send().await.unwrap().bytes().await.unwrap();
    let routes: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    routes.iter().map(|route| (text(&route["method"]), text(&route["path"]))).collect()
}

fn filled(pattern: &str) -> String {
    let fill = |part: &str| if part.starts_with('{') { "1".to_owned() } else { part.to_owned() };
    pattern.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_refuses_a_body_that_is_neither_object_nor_array_and_changes_nothing() {
    let lab = Lab::start(|_| ()).await;
    let mut asked = 0;
    let mut faults = Vec::new();
    for (method, pattern) in routes(&lab).await {
        if !matches!(method.as_str(), "POST" | "PUT") {
            continue;
        }
        asked += 1;
        let answer = lab.send(&method, &filled(&pattern), Some(json!("text"))).await;
        let without_body = ["/capture", "/void", "/redirect_urls", "/orders", "/token"];
        if !(400..500).contains(&answer.status) && !without_body.iter().any(|end| pattern.ends_with(end)) {
            faults.push(format!("{method} {pattern}: {} {}", answer.status, answer.body));
        }
    }
    assert!(asked > 230, "{asked}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let kept: Vec<String> = lab.control.history().into_iter().map(|write| write.path).collect();
    assert!(kept.iter().all(|path| path.ends_with("/capture") || path.ends_with("/void")), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_wrong_methods_and_batches_that_are_too_long_are_told_apart() {
    let lab = Lab::start(|_| ()).await;
    let many = |count: usize, item: Value| Some(Value::Array(vec![item; count]));
    let customer = json!({"email": "a@example.com", "first_name": "A", "last_name": "B"});
    for (method, path, body, status) in [
        ("POST", "/v3/nowhere", many(1, json!({})), 404),
        ("POST", "/v3/inventory/items", many(1, json!({})), 405),
        ("PUT", "/v3/catalog/products", many(11, json!({"id": 1})), 413),
        ("PUT", "/v3/catalog/variants", many(51, json!({"id": 1})), 413),
        ("POST", "/v3/customers", many(11, customer), 413),
        (
            "PUT",
            "/v3/customers/attribute-values",
            many(11, json!({"attribute_id": 1, "value": "v", "customer_id": 1})),
            413,
        ),
        ("PUT", "/v3/pricelists/1/records", many(1001, json!({"variant_id": 1})), 413),
        ("POST", "/v3/pricelists/1/records", many(101, json!({"variant_id": 1})), 413),
        ("POST", "/v3/pricelists/assignments", many(26, json!({"price_list_id": 1})), 413),
        ("PUT", "/v3/catalog/trees", many(51, json!({"name": "T"})), 413),
        ("PUT", "/v3/catalog/products/1", Some(json!([])), 422),
        ("POST", "/v2/coupons", Some(json!({"name": "C"})), 400),
        ("PUT", "/v3/inventory/adjustments/absolute", Some(json!({"items": []})), 422),
        (
            "PUT",
            "/v3/inventory/adjustments/absolute",
            Some(json!({"items": vec![json!({"location_id": 1,
            "variant_id": 1, "quantity": 1}); 2001]})),
            422,
        ),
    ] {
        let answer = lab.send(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
    assert!(lab.control.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_must_be_unique_is_refused_the_second_time() {
    let lab = Lab::start(|_| ()).await;
    let cases = [
        ("/v3/catalog/brands", json!({"name": "Twice"}), 409),
        ("/v3/catalog/categories", json!({"name": "Twice", "parent_id": 0}), 409),
        ("/v3/catalog/trees/categories", json!([{"name": "Twin", "parent_id": 0, "tree_id": 1}]), 422),
        ("/v3/customers", json!([{"email": "twice@example.com", "first_name": "T", "last_name": "W"}]), 422),
        ("/v3/customers/subscribers", json!({"email": "twice@example.com"}), 409),
        ("/v3/customers/attributes", json!([{"name": "Twice", "type": "string"}]), 422),
        (
            "/v2/coupons",
            json!({"name": "C", "type": "per_item_discount", "amount": "5", "code": "TWICE",
            "applies_to": {"entity": "products", "ids": [1]}}),
            409,
        ),
        (
            "/v2/gift_certificates",
            json!({"amount": "5", "from_email": "a@example.com", "from_name": "A",
            "to_email": "b@example.com", "to_name": "B", "code": "GIFT"}),
            409,
        ),
        ("/v3/pricelists", json!({"name": "Twice"}), 409),
        ("/v3/segments", json!([{"name": "Twice"}]), 409),
        ("/v3/promotions/1/codes", json!({"code": "TWICE"}), 409),
        (
            "/v3/catalog/products/1/metafields",
            json!({"permission_set": "write", "namespace": "n", "key": "k",
            "value": "v"}),
            409,
        ),
        ("/v3/inventory/locations", json!([{"code": "TWICE", "label": "L", "type_id": "PHYSICAL"}]), 422),
        ("/v3/catalog/products", json!({"name": "Twice", "type": "physical", "weight": 1, "price": 1}), 409),
    ];
    for (path, body, status) in cases {
        let first = lab.send("POST", path, Some(body.clone())).await;
        assert!((200..300).contains(&first.status), "{path}: {first:?}");
        let again = lab.send("POST", path, Some(body)).await;
        assert_eq!(again.status, status, "{path}: {}", again.body);
    }
    let twins = json!([{"name": "Pair", "parent_id": 0, "tree_id": 1}, {"name": "pair", "parent_id": 0, "tree_id": 1}]);
    assert_eq!(lab.send("POST", "/v3/catalog/trees/categories", Some(twins)).await.status, 422);
    let other = json!({"permission_set": "write", "namespace": "other", "key": "k", "value": "v"});
    assert_eq!(lab.send("POST", "/v3/catalog/products/1/metafields", Some(other.clone())).await.status, 200);
    assert_eq!(lab.send("POST", "/v3/catalog/products/2/metafields", Some(other)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_metafields_keeps_its_good_items_and_names_the_others() {
    let lab = Lab::start(|_| ()).await;
    let path = "/v3/catalog/products/metafields";
    let item = |id: u64, key: &str| {
        json!({"permission_set": "write", "namespace": "set", "key": key, "value": "v",
        "resource_id": id})
    };
    let set = json!([item(1, "a"), item(99_999, "a"), item(2, "a"), {"key": "b", "resource_id": 1}]);
    let made = lab.send("POST", path, Some(set)).await;
    assert_eq!((made.status, &made.body["meta"]), (422, &json!({"total": 4, "success": 2, "failed": 2})));
    assert_eq!(made.body["data"][1]["resource_id"], 2);
    assert_eq!(made.body["errors"].as_array().unwrap().len(), 2);
    assert!(made.body["errors"][0]["errors"]["1.resource_id"].is_string(), "{}", made.body);
    assert_eq!(made.body["errors"][1]["errors"]["3.value"], "error.path.missing");
    let written = lab.control.history().pop().unwrap();
    assert_eq!((written.status, written.path.as_str()), (422, path));
    let ids: Vec<u64> = (0..2).map(|at| made.body["data"][at]["id"].as_u64().unwrap()).collect();
    let changed = json!([{"id": ids[0], "value": "new"}, {"id": 99_999, "value": "new"}]);
    let changed = lab.send("PUT", path, Some(changed)).await;
    assert_eq!((changed.status, &changed.body["data"][0]["value"]), (422, &json!("new")));
    assert_eq!(changed.body["errors"][0]["status"], 404);
    let gone = lab.send("DELETE", path, Some(json!(ids))).await;
    assert_eq!((gone.status, &gone.body["data"]), (200, &json!(ids)));
    assert_eq!(lab.send("DELETE", path, Some(json!(ids))).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn price_records_keep_the_good_ones_of_a_refused_batch() {
    let lab = Lab::start(|_| ()).await;
    let record = |variant: u64, price: f64| json!({"variant_id": variant, "currency": "EUR", "price": price});
    let path = "/v3/pricelists/1/records";
    let mixed = json!([record(1, 5.5), record(99_999, 5.5), {"sku": "SKU-000002", "currency": "EUR", "price": "x"},
        record(3, 7.0)]);
    let answer = lab.send("PUT", path, Some(mixed)).await;
    assert_eq!(answer.status, 422);
    let faults = answer.body["batch_errors"].as_array().unwrap();
    assert_eq!(faults.len(), 2);
    assert_eq!(faults[0]["data"], json!({"price_list_id": 1, "variant_id": 99_999, "currency": "EUR"}));
    assert!(faults[0]["field_errors"]["variant_id"].is_string());
    assert!(faults[1]["field_errors"]["price"].is_string());
    let read = |variant: u64| format!("/v3/pricelists/1/records/{variant}/EUR");
    assert_eq!(lab.get(&read(1)).await.body["data"]["price"], 5.5);
    assert_eq!(lab.get(&read(3)).await.body["data"]["price"], 7.0);
    let again = lab.send("POST", path, Some(json!([record(1, 9.0), record(4, 9.0)]))).await;
    assert_eq!((again.status, again.body["batch_errors"].as_array().unwrap().len()), (422, 1));
    assert_eq!(lab.get(&read(1)).await.body["data"]["price"], 5.5);
    assert_eq!(lab.get(&read(4)).await.body["data"]["price"], 9.0);
    let across = json!([{"price_list_id": 2, "variant_id": 1, "currency": "EUR", "price": 1},
        {"price_list_id": 99_999, "variant_id": 1, "currency": "EUR", "price": 1}]);
    let across = lab.send("PUT", "/v3/pricelists/records", Some(across)).await;
    assert_eq!((across.status, &across.body["data"]["price_list_id"]), (422, &json!(99_999)));
    assert!(across.body["field_errors"]["price_list_id"].is_string());
    assert_eq!(lab.get("/v3/pricelists/2/records/1/EUR").await.status, 200);
    assert_eq!(lab.send("PUT", &read(99_999), Some(json!({"price": 1}))).await.status, 422);
    let assigned = lab.send(
        "PUT",
        "/v3/pricelists/2/assignments",
        Some(json!({"customer_group_id": 2, "channel_id": 2})),
    );
    let assigned = assigned.await;
    let back = lab.send(
        "PUT",
        "/v3/pricelists/1/assignments",
        Some(json!({"customer_group_id": 2, "channel_id": 2})),
    );
    assert_eq!(back.await.body["data"]["id"], assigned.body["data"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_batch_refuses_or_keeps_as_documented() {
    let lab = Lab::start(|_| ()).await;
    let names = json!([{"name": "Good", "type": "page", "body": "b"}, {"name": 5, "type": "page"},
        {"name": "Better", "type": "page", "body": "b"}]);
    let pages = lab.send("POST", "/v3/content/pages", Some(names)).await;
    assert_eq!(pages.status, 422);
    assert!(pages.body["errors"]["1.name"].is_string(), "{}", pages.body);
    let kept = lab.control.state("page").unwrap();
    assert_eq!(kept.values().filter(|row| row["name"] == "Good" || row["name"] == "Better").count(), 2);
    let variants = json!([{"id": 1, "price": 3}, {"id": 99_999, "price": 3}]);
    let variants = lab.send("PUT", "/v3/catalog/variants", Some(variants)).await;
    assert_eq!((variants.status, variants.body["batch_errors"].as_array().unwrap().len()), (422, 1));
    assert_ne!(lab.control.state("variant").unwrap()["1"]["price"], 3);
    let customers =
        json!([{"email": "new@example.com", "first_name": "A", "last_name": "B"}, {"email": "x"}]);
    assert_eq!(lab.send("POST", "/v3/customers", Some(customers)).await.status, 422);
    assert!(!lab.control.state("customer").unwrap().values().any(|row| row["email"] == "new@example.com"));
    let products = json!([{"id": 1, "price": 3}, {"id": 99_999, "price": 3}]);
    let products = lab.send("PUT", "/v3/catalog/products", Some(products)).await;
    assert_eq!((products.status, products.body["data"].as_array().unwrap().len()), (207, 1));
    assert!(products.body["errors"]["errors"]["1.id"].is_string(), "{}", products.body);
    let stock = |items: Value| json!({"reason": "test", "items": items});
    let good = json!({"location_id": 1, "variant_id": 1, "quantity": 77});
    let bad = json!({"location_id": 1, "sku": "NO-SUCH-SKU", "quantity": 77});
    let path = "/v3/inventory/adjustments/absolute";
    let refused = lab.send("PUT", path, Some(stock(json!([good, bad])))).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_ne!(lab.control.state("variant").unwrap()["1"]["inventory_level"], 77);
    let done = lab.send("PUT", path, Some(stock(json!([good])))).await;
    assert_eq!(done.body.as_object().unwrap().keys().collect::<Vec<_>>(), ["transaction_id"]);
    let places =
        lab.send("POST", "/v3/inventory/locations", Some(json!([{"code": "NEW", "label": "New"}]))).await;
    assert!(places.body["transaction_id"].is_string() && places.body.get("data").is_none());
    assert_eq!(lab.send("DELETE", "/v3/inventory/locations?location_id:in=1", None).await.status, 422);
    let nobody = json!([{"product_id": 1, "channel_id": 99_999}]);
    let assigned = lab.send("PUT", "/v3/catalog/products/channel-assignments", Some(nobody)).await;
    assert_eq!(assigned.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn native_upserts_find_their_row_by_what_it_is() {
    let lab = Lab::start(|_| ()).await;
    let value = |text: &str| json!([{"customer_id": 1, "attribute_id": 1, "value": text}]);
    let path = "/v3/customers/attribute-values";
    let made = lab.send("PUT", path, Some(value("one"))).await;
    let again = lab.send("PUT", path, Some(value("two"))).await;
    assert_eq!(made.body["data"][0]["id"], again.body["data"][0]["id"], "{}", again.body);
    assert_eq!(again.body["data"][0]["attribute_value"], "two");
    let redirect = |to: &str| json!([{"from_path": "/old", "site_id": 1, "to": {"type": "url", "url": to}}]);
    let made = lab.send("PUT", "/v3/storefront/redirects", Some(redirect("https://example.com/a"))).await;
    let again = lab.send("PUT", "/v3/storefront/redirects", Some(redirect("https://example.com/b"))).await;
    assert_eq!((made.status, again.status), (201, 201));
    assert_eq!(made.body["data"][0]["id"], again.body["data"][0]["id"]);
    assert_eq!(again.body["data"][0]["to"]["url"], "https://example.com/b");
    let tree = lab.send("PUT", "/v3/catalog/trees", Some(json!([{"name": "Second", "channels": [2]}]))).await;
    let id = tree.body["data"][0]["id"].clone();
    let renamed = lab.send("PUT", "/v3/catalog/trees", Some(json!([{"id": id, "name": "Other"}]))).await;
    assert_eq!((&renamed.body["data"][0]["id"], &renamed.body["meta"]["success"]), (&id, &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_of_whole_collections_delete_them_and_stand_in_the_history() {
    let lab = Lab::start(|_| ()).await;
    for (entity, path) in [
        ("subscriber", "/v3/customers/subscribers"),
        ("price_list", "/v3/pricelists"),
        ("coupon", "/v2/coupons"),
        ("banner", "/v2/banners"),
        ("gift_certificate", "/v2/gift_certificates"),
        ("redirect_v2", "/v2/redirects"),
        ("blog_post", "/v2/blog/posts"),
        ("customer_address_v2", "/v2/customers/1/addresses"),
        ("customer", "/v2/customers"),
    ] {
        assert!(!lab.control.state(entity).unwrap().is_empty(), "{entity}");
        let answer = lab.send("DELETE", path, None).await;
        assert_eq!(answer.status, 204, "{path}");
        let left = lab.control.state(entity).unwrap();
        assert!(left.is_empty() || entity == "customer_address_v2", "{entity}: {left:?}");
        let write = lab.control.history().pop().unwrap();
        assert!(write.forbidden && write.path == path, "{write:?}");
    }
    assert_eq!(lab.control.stats().forbidden_collection_deletes, 9);
    for path in ["/v3/promotions", "/v3/promotions/1/codes", "/v3/content/pages", "/v3/inventory/locations"] {
        assert_eq!(lab.send("DELETE", path, None).await.status, 422, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_names_keys_and_hashes_in_order_and_counts_each_endpoint() {
    let lab = Lab::start(|_| ()).await;
    let made = lab.send("POST", "/v3/catalog/brands", Some(json!({"name": "Key"}))).await;
    let id = made.body["data"]["id"].to_string();
    lab.send("PUT", &format!("/v3/catalog/brands/{id}"), Some(json!({"name": "Key 2"}))).await;
    lab.send("DELETE", &format!("/v3/catalog/brands/{id}"), None).await;
    lab.send(
        "PUT",
        "/v3/inventory/adjustments/absolute",
        Some(json!({"items": [{"location_id": 1, "variant_id": 1,
        "quantity": 1}]})),
    )
    .await;
    let writes = lab.control.history();
    let keys: Vec<&str> = writes.iter().map(|write| write.key.as_str()).collect();
    assert_eq!(keys, [id.as_str(), &id, &id, ""]);
    assert_eq!(writes.iter().map(|write| write.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(writes[0].body_hash.len(), 64);
    assert_ne!(writes[0].body_hash, writes[1].body_hash);
    assert_eq!(writes[2].body_hash, "");
    assert_eq!(lab.control.requests()[0].body_hash, writes[0].body_hash);
    assert_eq!(lab.control.history_page(1, 2).iter().map(|write| write.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(lab.control.calls()["/v3/catalog/brands/{brand_id}"]["PUT 200"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batches_cost_little() {
    let lab = Lab::start(|config| config.bulk_products = 2_000).await;
    let items: Vec<Value> = lab
        .control
        .state_page("variant", None, 2_000)
        .unwrap()
        .into_iter()
        .map(|(id, _)| json!({"location_id": 1, "variant_id": id.parse::<u64>().unwrap(), "quantity": 5}))
        .collect();
    let records: Vec<Value> = items
        .iter()
        .take(1_000)
        .map(|item| json!({"variant_id": item["variant_id"], "currency": "USD", "price": 5}))
        .collect();
    let begin = Instant::now();
    let body = json!({"reason": "r", "items": items});
    assert_eq!(lab.send("PUT", "/v3/inventory/adjustments/absolute", Some(body)).await.status, 200);
    let stock = begin.elapsed();
    let begin = Instant::now();
    let answer = lab.send("PUT", "/v3/pricelists/1/records", Some(json!(records))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let prices = begin.elapsed();
    println!("2000 items {stock:?}, 1000 records {prices:?}");
    // Far above what they need even beside other tests: it finds a quadratic step, not a slow machine.
    assert!(stock + prices < Duration::from_secs(5), "{stock:?} {prices:?}");
}
