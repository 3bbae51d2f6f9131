//! Callbacks of every scope, the events that changes of entities fire, and what a test can do to a store from outside.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bcbridge::sandbox::{Chance, Profile};
use serde_json::{Value, json};

use crate::sandbox_lab::{Lab, Receiver};

/// Scope and data of what has arrived, sorted.
fn told(receiver: &Receiver) -> Vec<(String, Value)> {
    let mut told: Vec<(String, Value)> = receiver
        .callbacks()
        .iter()
        .map(|callback| (callback.body["scope"].as_str().unwrap().to_owned(), callback.body["data"].clone()))
        .collect();
    told.sort_by(|left, right| left.0.cmp(&right.0));
    told
}

/// The body of a control call.
async fn control(lab: &Lab, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = lab.client.request(method, format!("{}/_sandbox/{path}", lab.sandbox.base_uri()));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let (status, bytes) = (answer.status().as_u16(), answer.bytes().await.unwrap());
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_of_every_scope_can_be_fired_and_reaches_the_hook_for_it() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    let (_, scopes) = control(&lab, "GET", "scopes", None).await;
    let concrete: BTreeSet<String> = scopes
        .as_array()
        .unwrap()
        .iter()
        .map(|scope| scope.as_str().unwrap().replace("{channel_id}", "5"))
        .filter(|scope| !scope.ends_with("/*"))
        .collect();
    assert_eq!(concrete.len(), 179);
    for scope in &concrete {
        lab.hook(scope, &receiver.url).await;
    }
    for scope in &concrete {
        let (status, told) = control(&lab, "POST", "emit", Some(json!({"scope": scope, "id": 7}))).await;
        assert_eq!(status, 200, "{scope}: {told}");
    }
    let callbacks = receiver.wait_for(concrete.len()).await;
    let arrived: BTreeMap<&str, &Value> =
        callbacks.iter().map(|one| (one.body["scope"].as_str().unwrap(), &one.body["data"])).collect();
    assert_eq!(arrived.len(), concrete.len());
    assert_eq!(arrived["store/order/created"], &json!({"type": "order", "id": 7}));
    assert_eq!(arrived["store/channel/5/cart/created"]["cart_id"], "11111111-2222-4333-8444-555555555555");
    assert!(arrived["store/priceList/records/updated"].is_array());
    let (status, _) = control(&lab, "POST", "emit", Some(json!({"scope": "store/unheard/of"}))).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_and_channel_hooks_receive_what_is_below_them_only() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    lab.hook("store/channel/5/order/*", &receiver.url).await;
    lab.hook("store/priceList/created", &receiver.url).await;
    for scope in
        ["store/channel/6/order/created", "store/channel/5/cart/created", "store/channel/5/order/created"]
    {
        lab.control.emit(scope, json!({"order_id": 9})).unwrap();
    }
    receiver.wait_for(1).await;
    lab.control.quiesce().await;
    assert_eq!(told(&receiver), [("store/channel/5/order/created".to_owned(), json!({"order_id": 9}))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_entities_fire_the_scopes_that_are_documented_for_them() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    for scope in [
        "store/product/metafield/created",
        "store/metafield/created",
        "store/channel/1/page/created",
        "store/priceList/created",
        "store/priceList/activated",
        "store/priceList/record/updated",
        "store/priceList/records/created",
        "store/channel/1/settings/profile/updated",
        "store/channel/2/settings/SEO/updated",
        "store/order/message/created",
        "store/channel/created",
    ] {
        lab.hook(scope, &receiver.url).await;
    }
    let body = json!({"namespace": "n", "key": "k", "value": "v", "permission_set": "read"});
    let made = lab.send("POST", "/v3/catalog/products/5/metafields", Some(body)).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.body["data"]["id"].clone();
    assert_eq!(made.body["data"]["resource_id"], 5);
    let page = json!({"name": "New", "type": "page", "channel_id": 1});
    assert_eq!(lab.send("POST", "/v3/content/pages", Some(page)).await.status, 201);
    let list = lab.send("POST", "/v3/pricelists", Some(json!({"name": "New", "active": true}))).await;
    let list = list.body["data"]["id"].clone();
    let records = json!([{"variant_id": 2, "currency": "EUR", "price": 5}, {"variant_id": 3, "currency": "EUR", "price": 6}]);
    let path = format!("/v3/pricelists/{list}/records");
    assert_eq!(lab.send("PUT", &path, Some(records)).await.status, 200);
    let one = lab.send("PUT", &format!("{path}/2/EUR"), Some(json!({"price": 7}))).await;
    assert_eq!(one.body["data"]["price"], 7, "{one:?}");
    let profile = json!({"store_name": "New"});
    assert_eq!(lab.send("PUT", "/v3/settings/store/profile", Some(profile)).await.status, 200);
    let seo = json!({"page_title": "New"});
    assert_eq!(lab.send("PUT", "/v3/settings/storefront/seo?channel_id=2", Some(seo)).await.status, 200);
    lab.control.create("order_message", json!({"order_id": 101, "message": "hello"})).unwrap();
    lab.control.create("channel", json!({"name": "New"})).unwrap();
    receiver.wait_for(11).await;
    lab.control.quiesce().await;
    let told: BTreeMap<String, Value> = told(&receiver).into_iter().collect();
    assert_eq!(told.len(), 11, "{told:?}");
    assert_eq!(
        told["store/product/metafield/created"],
        json!({"metafield_id": id, "resource_id": "5", "namespace": "n"})
    );
    assert_eq!(told["store/metafield/created"]["resource_type"], "product");
    assert_eq!(
        told["store/priceList/records/created"],
        json!([{"price_list_id": list, "variant_id": 2, "currency": "EUR"}, {"price_list_id": list, "variant_id": 3, "currency": "EUR"}])
    );
    assert_eq!(told["store/order/message/created"]["id"], 101);
    assert!(told["store/order/message/created"]["message"]["order_message_id"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_changes_the_order_and_settings_of_stock_are_told() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    let scopes = [
        "store/channel/*/inventory/product/settings_changed",
        "store/channel/1/order/refund/created",
        "store/order/refund/created",
        "store/order/statusUpdated",
        "store/order/updated",
    ];
    for scope in scopes {
        lab.hook(scope, &receiver.url).await;
    }
    let refund = json!({"items": [], "payments": []});
    let made = lab.send("POST", "/v3/orders/101/payment_actions/refunds", Some(refund)).await;
    assert_eq!(made.body["data"]["order_id"], 101, "{made:?}");
    assert_eq!(lab.get("/v2/orders/101").await.body["status"], "Partially Refunded");
    let settings = json!({"settings": [{"identity": {"variant_id": 2}, "safety_stock": 3}]});
    assert_eq!(lab.send("PUT", "/v3/inventory/locations/1/items", Some(settings)).await.status, 200);
    receiver.wait_for(scopes.len()).await;
    lab.control.quiesce().await;
    let told = told(&receiver);
    assert_eq!(told.iter().map(|(scope, _)| scope.as_str()).collect::<Vec<_>>(), scopes);
    assert_eq!(told[0].1["variant_id"], 2);
    assert_eq!(told[2].1["refund"]["refund_id"], made.body["data"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstalled_app_is_told_and_then_refused() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    lab.hook("store/app/uninstalled", &receiver.url).await;
    assert_eq!(control(&lab, "POST", "uninstall", None).await.0, 204);
    receiver.wait_for(1).await;
    assert_eq!(told(&receiver)[0].1, json!({"type": "store"}));
    assert_eq!(lab.get("/v2/time").await.status, 401);
    lab.control.reinstall();
    assert_eq!(lab.get("/v3/hooks").await.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_can_be_switched_off_and_deleted_behind_its_owners_back() {
    let lab = Lab::start(|_| ()).await;
    let id = lab.hook("store/order/created", "http://127.0.0.1:9/a").await;
    assert_eq!(control(&lab, "POST", &format!("hooks/{id}/deactivate"), None).await.0, 204);
    let admin = lab.get("/v3/hooks/admin").await.body;
    assert_eq!(admin["data"]["hooks_list"][0]["status"], "deactivated");
    assert_eq!(control(&lab, "DELETE", &format!("hooks/{id}"), None).await.0, 204);
    assert_eq!(lab.get(&format!("/v3/hooks/{id}")).await.status, 404);
    assert_eq!(control(&lab, "DELETE", &format!("hooks/{id}"), None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_strike_a_path_a_number_of_times() {
    let lab = Lab::start(|_| ()).await;
    lab.control
        .faults(Profile { status_401: Chance::of(1.0).path("/v3/customers").times(2), ..Profile::default() });
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(lab.get("/v3/customers").await.status);
        assert_eq!(lab.get("/v2/time").await.status, 200);
    }
    assert_eq!(statuses, [401, 401, 200]);
    let calls = lab.control.calls();
    assert_eq!(
        calls["/v3/customers"],
        BTreeMap::from([("GET 200".to_owned(), 1), ("GET 401".to_owned(), 2)])
    );
    assert_eq!(calls["/v2/time"]["GET 200"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_may_lag_where_single_reads_do_not() {
    let lab = Lab::start(|_| ()).await;
    lab.control.faults(Profile { list_lag_ms: Some(60_000), ..Profile::default() });
    lab.control.update("product", 3, json!({"name": "Renamed"})).unwrap();
    assert_eq!(lab.get("/v3/catalog/products/3").await.body["data"]["name"], "Renamed");
    let list = lab.get("/v3/catalog/products?id:in=3").await;
    assert_ne!(list.body["data"][0]["name"], "Renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn metafields_are_read_by_cursor_from_the_first_page_to_the_last() {
    let lab = Lab::start(|_| ()).await;
    for product in 1..=7 {
        lab.control
            .create("product_metafield", json!({"resource_id": product, "namespace": "walk", "key": "k"}))
            .unwrap();
    }
    let (mut seen, mut path) =
        (Vec::new(), "/v3/catalog/products/metafields?limit=3&namespace=walk".to_owned());
    loop {
        let body = lab.get(&path).await.body;
        seen.extend(body["data"].as_array().unwrap().iter().map(|row| row["resource_id"].as_u64().unwrap()));
        let meta = &body["meta"]["cursor_pagination"];
        if meta["links"]["next"].is_null() {
            break;
        }
        let after = meta["end_cursor"].as_str().unwrap();
        path = format!("/v3/catalog/products/metafields?limit=3&namespace=walk&after={after}");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    let later = lab.get("/v3/catalog/products/metafields?date_modified:min=2100-01-01T00:00:00Z").await;
    assert_eq!(later.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_hundred_thousand_products_is_made_and_paged_quickly() {
    let begin = Instant::now();
    let lab =
        Lab::start(|config| (config.products, config.bulk_products, config.orders) = (0, 100_000, 0)).await;
    println!("made in {:?}", begin.elapsed());
    let first = lab.get("/v3/catalog/products?limit=250").await;
    assert_eq!(first.body["meta"]["pagination"]["total"], 100_000);
    for page in [1, 200, 400] {
        let begin = Instant::now();
        let path = format!("{}/v3/catalog/products?limit=250&page={page}", lab.api);
        let answer = lab.client.get(path).header("x-auth-token", &lab.token).send().await.unwrap();
        let bytes = answer.bytes().await.unwrap();
        println!("page {page} in {:?}", begin.elapsed());
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(list["data"][0]["id"], (page - 1) * 250 + 1);
        assert_eq!(list["data"].as_array().unwrap().len(), 250);
    }
    let begin = Instant::now();
    let found = lab.get("/v3/catalog/products?sku=BULK-0050000&include=variants").await;
    assert_eq!(found.body["data"][0]["id"], 50_000);
    assert_eq!(found.body["data"][0]["variants"][0]["product_id"], 50_000);
    lab.control.touch_products(70_000..=70_003);
    let since = an_hour_ago();
    let changed = lab.get(&format!("/v3/catalog/products?date_modified:min={since}")).await;
    assert_eq!(changed.body["data"].as_array().unwrap().len(), 4);
    let (_, rows) = control(&lab, "GET", "state/product?after=99997&limit=10", None).await;
    assert_eq!(rows.as_object().unwrap().keys().collect::<Vec<_>>(), ["99998", "99999", "100000"]);
    println!("found and changed in {:?}", begin.elapsed());
}

/// An hour ago, in Unix seconds, which the filters of dates take.
fn an_hour_ago() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 3600
}
