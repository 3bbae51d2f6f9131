//! The sandbox as a receiver of callbacks meets it: signatures, payloads, retries, blocking, deactivation.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::time::{Duration, Instant};

use bcbridge::sandbox::{Delay, DeliveryState, Profile};
use serde_json::json;

use crate::sandbox_lab::{Lab, Receiver};

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_signed_so_that_the_public_library_accepts_it() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    lab.hook("store/product/updated", &receiver.url).await;
    assert!(lab.control.touch_product(5));
    let callback = receiver.wait_for(1).await.remove(0);
    let key = standardwebhooks::Webhook::from_bytes(lab.secret.as_bytes().to_vec()).unwrap();
    key.verify(&callback.raw, &callback.headers).unwrap();
    assert!(callback.headers["webhook-id"].to_str().unwrap().starts_with("msg_"));
    assert_eq!(callback.headers["x-secret"], "shared");
    assert_eq!(callback.body["scope"], "store/product/updated");
    assert_eq!(callback.body["data"], json!({"type": "product", "id": 5}));
    assert_eq!(callback.body["producer"], "stores/sandbox1");
    assert_eq!(callback.body["store_id"], "1025646");
    lab.control.quiesce().await;
    assert_eq!(lab.control.deliveries()[0].state, DeliveryState::Delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_change_fires_several_scopes_with_their_own_payloads() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    for scope in [
        "store/product/*",
        "store/sku/*",
        "store/shipment/*",
        "store/order/*",
        "store/cart/*",
        "store/channel/*/inventory/product/stock_changed",
        "store/channel/1/order/*",
        "store/customer/*",
    ] {
        lab.hook(scope, &receiver.url).await;
    }
    let mut seen = 0;
    let mut scopes = async |count: usize| {
        let all = receiver.wait_for(seen + count).await;
        lab.control.quiesce().await;
        assert_eq!(receiver.callbacks().len(), seen + count, "{:?}", &receiver.scopes()[seen..]);
        let mut scopes: Vec<String> =
            all[seen..].iter().map(|one| one.body["scope"].as_str().unwrap().to_owned()).collect();
        scopes.sort();
        seen += count;
        scopes
    };
    assert!(lab.control.set_stock(1, 77));
    assert_eq!(
        scopes(3).await,
        [
            "store/channel/*/inventory/product/stock_changed",
            "store/product/inventory/updated",
            "store/product/updated"
        ]
    );
    let cart = lab.control.new_cart(1, &[2]).unwrap();
    assert_eq!(scopes(3).await, ["store/cart/created", "store/cart/lineItem/created", "store/cart/updated"]);
    let order = lab.control.check_out(&cart).unwrap();
    let bought = scopes(6).await;
    assert!(bought.contains(&"store/cart/converted".to_owned()), "{bought:?}");
    assert!(bought.contains(&"store/channel/1/order/created".to_owned()), "{bought:?}");
    assert!(bought.contains(&"store/product/inventory/order/updated".to_owned()), "{bought:?}");
    let shipment = lab.control.ship_order(order).unwrap();
    let shipped = scopes(5).await;
    assert!(shipped.contains(&"store/order/statusUpdated".to_owned()), "{shipped:?}");
    let callbacks = receiver.callbacks();
    let of = |scope: &str| &callbacks.iter().find(|one| one.body["scope"] == scope).unwrap().body["data"];
    assert_eq!(of("store/shipment/created"), &json!({"type": "shipment", "id": shipment, "orderId": order}));
    let status = json!({"previous_status_id": 11, "new_status_id": 2});
    assert_eq!(of("store/order/statusUpdated"), &json!({"type": "order", "id": order, "status": status}));
    assert_eq!(of("store/channel/1/order/created"), &json!({"order_id": order}));
    assert_eq!(
        of("store/product/inventory/updated")["inventory"],
        json!({"product_id": 1, "method": "absolute", "value": 77})
    );
    assert_eq!(of("store/cart/converted")["orderId"], order);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_callback_is_retried_along_the_ladder_and_then_the_hook_is_deactivated() {
    let scale = 1_000_000.0;
    let lab = Lab::start(|config| config.time_scale = scale).await;
    let receiver = Receiver::start(500).await;
    let hook = lab.hook("store/product/updated", &receiver.url).await;
    let begin = Instant::now();
    lab.control.touch_product(1);
    lab.control.quiesce().await;
    let ladder: f64 = 173_040.0 / scale;
    assert!(begin.elapsed() >= Duration::from_secs_f64(ladder), "{:?}", begin.elapsed());
    let callbacks = receiver.callbacks();
    assert_eq!(callbacks.len(), 12);
    let mut ids: Vec<_> = callbacks.iter().map(|one| one.headers["webhook-id"].clone()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let delivery = &lab.control.deliveries()[0];
    assert_eq!((delivery.state, delivery.attempts, delivery.status), (DeliveryState::Failed, 12, Some(500)));
    let shown = lab.get(&format!("/v3/hooks/{hook}")).await;
    assert_eq!(shown.body["data"]["is_active"], false);
    let admin = lab.get("/v3/hooks/admin").await;
    assert_eq!(admin.body["data"]["hooks_list"][0]["status"], "deactivated");
    receiver.answer_with(200);
    let repaired = lab.send("PUT", &format!("/v3/hooks/{hook}"), Some(json!({"is_active": true}))).await;
    assert_eq!(repaired.status, 200);
    lab.control.touch_product(1);
    receiver.wait_for(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_fails_once_is_delivered_by_its_first_retry() {
    let lab = Lab::start(|config| config.time_scale = 100.0).await;
    let receiver = Receiver::start(503).await;
    lab.hook("store/product/updated", &receiver.url).await;
    let begin = Instant::now();
    lab.control.touch_product(1);
    receiver.wait_for(1).await;
    receiver.answer_with(204);
    lab.control.quiesce().await;
    assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
    let delivery = &lab.control.deliveries()[0];
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_below_ninety_percent_is_blocked_from_the_hundredth_request_on() {
    // Slow enough that no retry falls into the test.
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    lab.hook("store/product/updated", &receiver.url).await;
    lab.control.touch("product", 1, 40, 2).unwrap();
    receiver.wait_for(80).await;
    lab.control.quiesce().await;
    receiver.answer_with(500);
    lab.control.touch("product", 1, 20, 1).unwrap();
    receiver.wait_for(100).await;
    let blocked = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let admin = lab.get("/v3/hooks/admin").await;
            if let Some(row) = admin.body["data"]["blocked_domains"].get(0) {
                return row.clone();
            }
            tokio::task::yield_now().await;
        }
    });
    let blocked = blocked.await.expect("the destination is blocked");
    assert!(blocked["time_left"].as_u64().unwrap() > 170);
    receiver.answer_with(200);
    lab.control.touch("product", 1, 40, 1).unwrap();
    while lab.control.deliveries().iter().any(|one| one.state == DeliveryState::Pending && one.attempts == 0)
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(receiver.callbacks().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_lost_doubled_and_reordered_on_demand() {
    let lab = Lab::start(|config| config.profile.lost_callbacks = 1.0).await;
    let receiver = Receiver::start(200).await;
    lab.hook("store/product/updated", &receiver.url).await;
    lab.control.touch_product(1);
    lab.control.quiesce().await;
    assert!(receiver.callbacks().is_empty());
    assert_eq!(lab.control.deliveries()[0].state, DeliveryState::Lost);
    lab.control.faults(Profile { duplicate_callbacks: 1.0, ..Profile::default() });
    lab.control.touch_product(2);
    lab.control.quiesce().await;
    let twice = receiver.callbacks();
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0].headers["webhook-id"], twice[1].headers["webhook-id"]);
    lab.control.faults(Profile { callback_delay: Delay::between(0, 100), ..Profile::default() });
    lab.control.touch("product", 1, 40, 1).unwrap();
    lab.control.quiesce().await;
    let order: Vec<u64> =
        receiver.callbacks()[2..].iter().map(|one| one.body["data"]["id"].as_u64().unwrap()).collect();
    assert_eq!(order.len(), 40);
    assert!(!order.is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn shoppers_make_real_changes_at_about_the_pace_asked_for() {
    let lab = Lab::start(|_| ()).await;
    let receiver = Receiver::start(200).await;
    for scope in ["store/product/*", "store/order/*", "store/customer/*", "store/cart/*", "store/category/*"]
    {
        lab.hook(scope, &receiver.url).await;
    }
    lab.control.shoppers(200.0);
    receiver.wait_for(200).await;
    lab.control.shoppers(0.0);
    lab.control.quiesce().await;
    let mut families: Vec<String> =
        receiver.scopes().iter().map(|scope| scope.split('/').nth(1).unwrap().to_owned()).collect();
    families.sort();
    families.dedup();
    assert!(families.len() >= 4, "{families:?}");
}
