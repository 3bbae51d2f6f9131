//! The sandbox as an API client meets it: envelopes, paging, filters, errors, limits, faults.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::time::{Duration, Instant};

use bcbridge::sandbox::{Chance, Delay, Only, Profile};
use serde_json::{Value, json};

use crate::sandbox_lab::Lab;

fn ids(body: &Value) -> Vec<u64> {
    body["data"].as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_the_token_is_refused_and_a_strange_path_is_unknown() {
    let lab = Lab::start(|_| ()).await;
    let bare = lab.client.get(format!("{}/v3/catalog/products", lab.api)).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    let other = format!("{}/stores/otherhash/v3/catalog/products", lab.sandbox.base_uri());
    assert_eq!(lab.client.get(other).header("x-auth-token", &lab.token).send().await.unwrap().status(), 404);
    assert_eq!(lab.get("/v3/nothing").await.status, 404);
    assert_eq!(lab.send("PATCH", "/v3/catalog/products", Some(json!({}))).await.status, 405);
    let url = format!("{}/v3/catalog/products", lab.api);
    let text = lab
        .client
        .post(&url)
        .header("x-auth-token", &lab.token)
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(text.send().await.unwrap().status(), 415);
    let broken =
        lab.client.post(&url).header("x-auth-token", &lab.token).header("content-type", "application/json");
    assert_eq!(broken.body("{").send().await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn products_are_listed_in_pages_and_found_by_ids_names_and_dates() {
    let lab = Lab::start(|_| ()).await;
    let first = lab.get("/v3/catalog/products?limit=15").await;
    assert_eq!(first.body["meta"]["pagination"]["total"], 40);
    assert_eq!(first.body["meta"]["pagination"]["total_pages"], 3);
    assert_eq!(first.body["meta"]["pagination"]["links"]["next"], "?page=2&limit=15");
    assert!(first.body["meta"]["pagination"]["links"].get("previous").is_none());
    let third = lab.get("/v3/catalog/products?limit=15&page=3").await;
    assert_eq!(third.body["data"].as_array().unwrap().len(), 10);
    assert!(third.body["meta"]["pagination"]["links"].get("next").is_none());
    assert_eq!(ids(&lab.get("/v3/catalog/products?id:in=7,3,999").await.body), [3, 7]);
    assert_eq!(ids(&lab.get("/v3/catalog/products?id%3Ain=7%2C3").await.body), [3, 7]);
    assert_eq!(ids(&lab.get("/v3/catalog/products?sku=sku-000005").await.body), [5]);
    assert!(
        ids(&lab.get("/v3/catalog/products?date_modified:min=2999-01-01T00:00:00Z").await.body).is_empty()
    );
    let heavy = lab.get("/v3/catalog/products?limit=250&include=options,variants,images").await;
    assert_eq!(heavy.body["data"].as_array().unwrap().len(), 10);
    assert_eq!(heavy.body["data"][9]["variants"].as_array().unwrap().len(), 3);
    let slim = lab.get("/v3/catalog/products?include_fields=name&limit=1").await;
    assert_eq!(slim.body["data"][0].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "name"]);
    assert_eq!(lab.get("/v3/catalog/products/1/images").await.status, 204);
    assert_eq!(lab.get("/v3/catalog/products/2/images").await.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_created_changed_and_deleted_and_bad_ones_are_refused() {
    let lab = Lab::start(|_| ()).await;
    let body = json!({"name": "New", "type": "physical", "weight": 1, "price": 9.5, "sku": "NEW-1", "inventory_level": 4});
    let made = lab.send("POST", "/v3/catalog/products", Some(body.clone())).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.body["data"]["id"].as_u64().unwrap();
    assert_eq!(made.body["data"]["calculated_price"], 9.5);
    let again = lab.send("POST", "/v3/catalog/products", Some(body)).await;
    assert_eq!(again.status, 409);
    let bad = lab
        .send("POST", "/v3/catalog/products", Some(json!({"name": 5, "type": "magic", "price": "9"})))
        .await;
    assert_eq!(bad.status, 422);
    let mut fields: Vec<&String> = bad.body["errors"].as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["name", "price", "type", "weight"]);
    let changed =
        lab.send("PUT", &format!("/v3/catalog/products/{id}"), Some(json!({"price": 8, "id": 77}))).await;
    assert_eq!(
        (changed.status, &changed.body["data"]["price"], &changed.body["data"]["id"]),
        (200, &json!(8), &json!(id))
    );
    assert_eq!(lab.send("DELETE", &format!("/v3/catalog/products/{id}"), None).await.status, 204);
    assert_eq!(lab.get(&format!("/v3/catalog/products/{id}")).await.status, 404);
    assert_eq!(
        lab.send("PUT", &format!("/v3/catalog/products/{id}"), Some(json!({"price": 8}))).await.status,
        404
    );
    let many: Vec<Value> = (1..=11).map(|id| json!({"id": id, "price": 1})).collect();
    assert_eq!(lab.send("PUT", "/v3/catalog/products", Some(json!(many))).await.status, 413);
    let two = json!([{"id": 1, "price": 1}, {"id": 2, "price": 2}]);
    assert_eq!(lab.send("PUT", "/v3/catalog/products", Some(two)).await.body["data"][1]["price"], 2);
    let methods: Vec<String> = lab.control.history().into_iter().map(|write| write.method).collect();
    assert_eq!(methods, ["POST", "PUT", "DELETE", "PUT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_deletes_do_what_the_api_does_and_are_counted() {
    let lab = Lab::start(|_| ()).await;
    assert_eq!(lab.send("DELETE", "/v3/catalog/products", None).await.status, 422);
    assert_eq!(lab.send("DELETE", "/v3/customers", None).await.status, 204);
    assert_eq!(lab.control.state("customer").unwrap().len(), 12);
    assert_eq!(lab.send("DELETE", "/v3/customers?id:in=1,2", None).await.status, 204);
    assert_eq!(lab.control.state("customer").unwrap().len(), 10);
    assert_eq!(lab.send("DELETE", "/v2/orders/", None).await.status, 204);
    assert!(lab.control.state("order").unwrap().values().all(|order| order["is_deleted"] == true));
    assert_eq!(lab.control.stats().forbidden_collection_deletes, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_order_needs_its_lines_read_page_by_page() {
    let lab = Lab::start(|_| ()).await;
    let big =
        lab.control.state("order").unwrap().into_values().find(|order| order["items_total"] == 60).unwrap();
    let id = big["id"].as_u64().unwrap();
    let path = format!("/v2/orders/{id}/products");
    assert_eq!(lab.get(&path).await.body.as_array().unwrap().len(), 50);
    assert_eq!(lab.get(&format!("{path}?limit=250")).await.body.as_array().unwrap().len(), 60);
    let mut seen = Vec::new();
    for page in 1.. {
        let answer = lab.get(&format!("{path}?limit=25&page={page}")).await;
        if answer.status == 204 {
            assert_eq!(page, 4);
            break;
        }
        seen.extend(answer.body.as_array().unwrap().iter().map(|line| line["id"].as_u64().unwrap()));
    }
    seen.dedup();
    assert_eq!(seen.len(), 60);
    let whole = lab
        .get(&format!("/v2/orders/{id}?include=consignments.line_items&consignment_structure=object"))
        .await;
    let shipping = &whole.body["consignments"]["shipping"][0];
    assert_eq!(shipping["line_items"].as_array().unwrap().len(), 50);
    assert!(shipping.get("__warning__").is_some());
    assert_eq!(whole.body["products"]["resource"], format!("/orders/{id}/products"));
    assert!(whole.body["total_inc_tax"].as_str().unwrap().split_once('.').unwrap().1.len() == 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_bare_filtered_by_id_and_archived_softly() {
    let lab = Lab::start(|_| ()).await;
    let some = lab.get("/v2/orders?min_id=103&max_id=105").await;
    assert_eq!(
        some.body.as_array().unwrap().iter().map(|row| row["id"].clone()).collect::<Vec<_>>(),
        [103, 104, 105]
    );
    assert_eq!(lab.get("/v2/orders?min_id=99999").await.status, 204);
    assert_eq!(lab.get("/v2/orders/99999").await.status, 404);
    assert!(lab.get("/v2/orders/99999").await.body[0]["message"].is_string());
    assert_eq!(
        lab.get("/v2/orders?min_date_modified=Thu,%2001%20Jan%202026%2000:00:00%20%2B0000&limit=3")
            .await
            .status,
        200
    );
    assert_eq!(lab.send("DELETE", "/v2/orders/104", None).await.status, 204);
    assert_eq!(lab.get("/v2/orders/104").await.body["is_deleted"], true);
    assert_eq!(lab.get("/v2/orders?min_id=103&max_id=105").await.body.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_is_told_on_every_answer_and_enforced_per_window() {
    let lab = Lab::start(|config| {
        config.quota = 3;
        config.window = Duration::from_millis(400);
    })
    .await;
    for left in ["2", "1", "0"] {
        assert_eq!(lab.get("/v2/time").await.headers["x-rate-limit-requests-left"], left);
    }
    let refused = lab.get("/v2/time").await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("x-retry-after"));
    let reset: u64 = refused.headers["x-rate-limit-time-reset-ms"].to_str().unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_millis(reset + 5)).await;
    assert_eq!(lab.get("/v2/time").await.status, 200);
    assert_eq!(lab.control.stats().over_quota, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_customer_update_in_flight_is_refused() {
    let profile = Profile { slow: Delay::between(300, 300), ..Profile::default() };
    let lab = Lab::start(|config| config.profile = profile).await;
    let put = |id: u64| lab.send("PUT", "/v3/customers", Some(json!([{"id": id, "notes": "x"}])));
    let (a, b, c, d) = tokio::join!(put(1), put(2), put(3), put(4));
    let mut statuses = [a.status, b.status, c.status, d.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_read_shows_the_old_state_and_then_the_new() {
    let lab = Lab::start(|config| config.profile.read_lag_ms = 400).await;
    let written = Instant::now();
    lab.control.update("product", 1, json!({"name": "Fresh"})).unwrap();
    let old = lab.get("/v3/catalog/products/1").await;
    if written.elapsed() < Duration::from_millis(400) {
        assert_ne!(old.body["data"]["name"], "Fresh");
    }
    assert_eq!(lab.control.state("product").unwrap()["1"]["name"], "Fresh");
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(lab.get("/v3/catalog/products/1").await.body["data"]["name"], "Fresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_leave_the_write_undone_or_done() {
    let lab = Lab::start(|_| ()).await;
    let rename = |name: &str| lab.try_send("PUT", "/v3/catalog/products/1", Some(json!({"name": name})));
    let name = || lab.control.state("product").unwrap()["1"]["name"].clone();
    let only_writes = Chance::of(1.0).only(Only::Writes);
    lab.control.faults(Profile { cut_before: only_writes.clone(), ..Profile::default() });
    assert!(rename("Before").await.is_err());
    assert_ne!(name(), "Before");
    lab.control.faults(Profile { cut_after: only_writes, ..Profile::default() });
    assert!(rename("After").await.is_err());
    assert_eq!(name(), "After");
    assert!(lab.control.history().last().unwrap().answer_cut);
    lab.control.faults(Profile { truncated: Chance::of(1.0), ..Profile::default() });
    assert!(lab.try_send("GET", "/v3/catalog/products", None).await.is_err());
    lab.control.faults(Profile { bare_429: Chance::of(1.0), ..Profile::default() });
    let bare = lab.get("/v2/time").await;
    assert_eq!(bare.status, 429);
    assert!(!bare.headers.contains_key("x-rate-limit-requests-left"));
    lab.control.faults(Profile::default());
    assert_eq!(lab.get("/v2/time").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_api_changes_the_store_and_shows_what_happened() {
    let lab = Lab::start(|_| ()).await;
    let base = format!("{}/_sandbox", lab.sandbox.base_uri());
    let post =
        |path: &str, body: Value| lab.client.post(format!("{base}/{path}")).body(body.to_string()).send();
    let made =
        post("mutate", json!({"entity": "category", "op": "create", "body": {"name": "Odd"}})).await.unwrap();
    let id = serde_json::from_slice::<Value>(&made.bytes().await.unwrap()).unwrap()["id"].as_u64().unwrap();
    let touched = post("touch", json!({"entity": "product", "from": 1, "to": 40, "times": 2})).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&touched.bytes().await.unwrap()).unwrap()["changes"], 80);
    assert_eq!(post("mutate", json!({"entity": "unicorn", "op": "create"})).await.unwrap().status(), 404);
    assert_eq!(
        post("mutate", json!({"entity": "product", "op": "update", "id": 999})).await.unwrap().status(),
        404
    );
    assert_eq!(post("mutate", json!({"entity": "product"})).await.unwrap().status(), 400);
    for path in ["state/category", "state/inventory", "history", "requests", "deliveries", "stats", "faults"]
    {
        let answer = lab.client.get(format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert_eq!(lab.control.state("category").unwrap()[&id.to_string()]["name"], "Odd");
    let listed = lab.get(&format!("/v3/catalog/trees/categories?category_id:in={id}")).await;
    assert_eq!(&listed.body["data"][0], &lab.control.state("category").unwrap()[&id.to_string()]);
}
