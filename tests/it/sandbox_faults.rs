//! What goes wrong around writes: cut, late, slow, partial and refused ones, each told apart by what the store then holds.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::time::{Duration, Instant};

use bcbridge::sandbox::{Chance, Delay, Only, Profile};
use serde_json::{Value, json};

use crate::sandbox_lab::Lab;

fn product(name: &str) -> Value {
    json!({"name": name, "type": "physical", "weight": 1, "price": 9.5, "sku": name})
}

fn with_name<'a>(rows: impl IntoIterator<Item = &'a Value>, name: &str) -> usize {
    rows.into_iter().filter(|row| row["name"] == name).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_cuts_at_once_and_takes_effect_later() {
    let lab = Lab::start(|_| ()).await;
    let late = Chance::of(1.0).method("POST").path("/v3/catalog/products").times(1);
    lab.control.faults(Profile { late_commit: late, late_commit_ms: 300, ..Profile::default() });
    let begin = Instant::now();
    assert!(lab.try_send("POST", "/v3/catalog/products", Some(product("Late"))).await.is_err());
    if begin.elapsed() < Duration::from_millis(300) {
        let seen = lab.get("/v3/catalog/products?name=Late").await;
        if begin.elapsed() < Duration::from_millis(300) {
            assert_eq!(seen.body["data"], json!([]));
        }
    }
    lab.control.quiesce().await;
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(with_name(lab.control.state("product").unwrap().values(), "Late"), 1);
    let write = lab.control.history().pop().unwrap();
    assert!(write.late && write.answer_cut);
    assert_eq!(lab.control.stats().late_commits, 1);
    assert_eq!(lab.control.requests()[0].status, 0);
    let again = lab.send("POST", "/v3/catalog/products", Some(product("Late"))).await;
    assert_eq!(again.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eventual_list_shows_a_new_row_late_and_its_id_at_once() {
    let lab = Lab::start(|_| ()).await;
    lab.control.faults(Profile { created_lag_ms: 60_000, ..Profile::default() });
    let made = lab.send("POST", "/v3/catalog/products", Some(product("Young"))).await;
    let id = made.body["data"]["id"].clone();
    assert_eq!(lab.get("/v3/catalog/products?name=Young").await.body["data"], json!([]));
    assert_eq!(lab.get(&format!("/v3/catalog/products/{id}")).await.status, 200);
    assert_eq!(lab.send("POST", "/v3/catalog/products", Some(product("Young"))).await.status, 409);
    let changed = lab.send("PUT", "/v3/catalog/products/1", Some(json!({"name": "Renamed"}))).await;
    assert_eq!(changed.status, 200);
    assert_eq!(lab.get("/v3/catalog/products?name=Renamed").await.body["data"][0]["id"], 1);
    lab.control.faults(Profile::default());
    assert_eq!(lab.get("/v3/catalog/products?name=Young").await.body["data"][0]["id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_cut_in_the_middle_leaves_the_write_done_and_says_so() {
    let lab = Lab::start(|_| ()).await;
    let cut = Chance::of(1.0).only(Only::Writes).times(1);
    lab.control.faults(Profile { truncated: cut, ..Profile::default() });
    assert!(lab.try_send("POST", "/v3/catalog/products", Some(product("Half"))).await.is_err());
    assert_eq!(with_name(lab.control.state("product").unwrap().values(), "Half"), 1);
    assert!(lab.control.history()[0].answer_cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripted_fault_hits_the_requests_it_names_and_no_other() {
    let lab = Lab::start(|_| ()).await;
    for (status, profile) in [
        (500, Profile { status_500: script(), ..Profile::default() }),
        (502, Profile { status_502: script(), ..Profile::default() }),
        (503, Profile { status_503: script(), ..Profile::default() }),
        (504, Profile { status_504: script(), ..Profile::default() }),
        (429, Profile { bare_429: script(), ..Profile::default() }),
    ] {
        lab.control.faults(profile);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let url = format!("{}/v3/catalog/products/1", lab.api);
            let request = lab.client.put(url).header("x-auth-token", &lab.token);
            let answer = request.header("content-type", "application/json").body(r#"{"price":3}"#).send();
            let answer = answer.await.unwrap();
            let is_html = answer.headers().get("content-type").is_some_and(|kind| kind == "text/html");
            assert_eq!(is_html, matches!(answer.status().as_u16(), 502 | 504));
            assert_eq!(
                answer.headers().contains_key("x-rate-limit-requests-left"),
                !matches!(answer.status().as_u16(), 429 | 502 | 504)
            );
            seen.push(answer.status().as_u16());
        }
        assert_eq!(seen, [200, status, status, 200]);
        assert_eq!(lab.send("PUT", "/v3/catalog/brands/1", Some(json!({"name": "B"}))).await.status, 200);
    }
}

/// The second and the third PUT of one product.
fn script() -> Chance {
    Chance::of(1.0).method("PUT").pattern("/v3/catalog/products/{id}").after(1).times(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_207_leaves_a_part_undone_and_names_it() {
    let lab = Lab::start(|_| ()).await;
    lab.control.faults(Profile { status_207: Chance::of(1.0), ..Profile::default() });
    let batch = json!([{"id": 1, "price": 71}, {"id": 2, "price": 72}]);
    let answer = lab.send("PUT", "/v3/catalog/products", Some(batch)).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(answer.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(answer.body["errors"]["errors"], json!({"1.name": "could not be saved"}));
    let products = lab.control.state("product").unwrap();
    assert_eq!(products["1"]["price"], 71);
    assert_ne!(products["2"]["price"], 72);
    let level = products["1"]["inventory_level"].clone();
    let one = json!({"price": 5, "inventory_level": 999});
    let answer = lab.send("PUT", "/v3/catalog/products/1", Some(one)).await;
    assert_eq!((answer.status, &answer.body["data"]["price"]), (207, &json!(5)));
    assert_eq!(lab.control.state("product").unwrap()["1"]["inventory_level"], level);
    let whole = lab.send("PUT", "/v3/customers", Some(json!([{"id": 1, "notes": "n"}]))).await;
    assert_eq!(whole.status, 200, "the customers' endpoint is not documented with 207");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_replies_hold_their_places_at_a_capped_endpoint() {
    let lab = Lab::start(|_| ()).await;
    lab.control.faults(Profile { slow: Delay::between(400, 400), ..Profile::default() });
    let put = || {
        lab.send(
            "PUT",
            "/v3/pricelists/records",
            Some(json!([{"price_list_id": 1, "variant_id": 1,
        "currency": "USD", "price": 4}])),
        )
    };
    let (one, two) = tokio::join!(put(), put());
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
    assert_eq!(lab.control.stats().over_concurrency, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_set_over_http_as_well() {
    let lab = Lab::start(|_| ()).await;
    let url = format!("{}/_sandbox/faults", lab.sandbox.base_uri());
    let profile = json!({"cut_after": {"share": 1, "method": "POST", "pattern": "/v3/customers", "times": 1},
        "late_commit": {"share": 0.5, "after": 3}, "late_commit_ms": 100, "created_lag_ms": 50});
    let shown = lab.client.put(&url).body(profile.to_string()).send().await.unwrap();
    let shown: Value = serde_json::from_slice(&shown.bytes().await.unwrap()).unwrap();
    assert_eq!(shown["cut_after"]["pattern"], "/v3/customers");
    assert_eq!(shown["late_commit"]["after"], 3);
    let customer = json!([{"email": "cut@example.com", "first_name": "C", "last_name": "U"}]);
    assert!(lab.try_send("POST", "/v3/customers", Some(customer)).await.is_err());
    assert!(lab.control.state("customer").unwrap().values().any(|row| row["email"] == "cut@example.com"));
    let wrong = lab.client.put(&url).body(r#"{"cut": 1}"#).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
}
