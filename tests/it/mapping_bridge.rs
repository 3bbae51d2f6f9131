//! Topics of the user's own, dry runs and guards, from the record to the store and back.

use std::time::Duration;

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::topics::{TopicSpec, Topics};
use bcbridge::model::record::OutRecord;
use bcbridge::sandbox::{Chance, Only, Profile};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, headers, json_of, until};
use crate::broker_lab::unique;
use crate::schemas::assert_valid;

/// A lab whose bridge reads these topics, which exist.
async fn lab(outgoing: Value) -> Lab {
    let topics: Vec<String> = outgoing
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["topic"].as_str().unwrap().to_owned())
        .collect();
    let lab = Lab::start(Setup {
        not_ready: &["outgoing"],
        outgoing: Some(outgoing),
        incoming: vec![json!({ "entity": "category" })],
        ..Setup::default()
    })
    .await;
    let spec = |name| TopicSpec { name, partitions: 1, replication_factor: 1, config: Vec::new() };
    let specs: Vec<TopicSpec> = topics.into_iter().map(spec).collect();
    Topics::new(&lab.client).unwrap().ensure(&specs).await.unwrap();
    lab
}

fn record(topic: &str, key: &str, value: Option<Vec<u8>>) -> OutRecord {
    OutRecord {
        topic: topic.into(),
        partition: None,
        key: Some(Bytes::from(key.to_owned())),
        value: value.map(Bytes::from),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

async fn produce(lab: &Lab, records: Vec<OutRecord>) {
    let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
    producer.append(records, Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_sees_the_whole_record_and_what_is_not_json_is_told() {
    let topic = unique("erp.products");
    let lab = lab(json!([{
        "topic": topic, "store": "main", "entity": "product", "action": "update",
        "filter": "$headers.skip != \"1\"",
        "path": "{product_id: $key}",
        "payload": "if . == null then error(\"a tombstone\") else . end | {name: .title, description: \"\\($headers.by) \\($timestamp / 1000 | todate) \\($offset)\"}",
    }]))
    .await;
    let header =
        |name: &'static str, value: &'static str| (name.into(), Bytes::from_static(value.as_bytes()));
    let title = || Some(json!({ "title": "Mapped" }).to_string().into_bytes());
    let good = OutRecord {
        headers: vec![header("by", "erp")],
        timestamp_ms: Some(1_767_225_600_000),
        ..record(&topic, "7", title())
    };
    let skipped = OutRecord { headers: vec![header("skip", "1")], ..record(&topic, "8", title()) };
    let avro = record(&topic, "9", Some(b"\0\0\0\0\x07\x02\x0ahello".to_vec()));
    let avro_skipped = OutRecord { headers: vec![header("skip", "1")], ..avro.clone() };
    let text = record(&topic, "9", Some(b"title;Mapped".to_vec()));
    let tombstone = record(&topic, "9", None);
    let records = vec![good, skipped, avro.clone(), avro_skipped, text, tombstone];
    produce(&lab, records).await;
    let results = lab.results(5).await;
    results.values().for_each(|result| assert_valid("result", result));
    let product = &lab.control.state("product").unwrap()["7"];
    assert_eq!(
        (&product["name"], &product["description"]),
        (&json!("Mapped"), &json!("erp 2026-01-01T00:00:00Z 0"))
    );
    let details: Vec<&str> = results.values().filter_map(|result| result["detail"].as_str()).collect();
    let avro_told = details.iter().filter(|detail| detail.contains("(magic byte 0, schema id 7)")).count();
    assert_eq!(avro_told, 2, "{details:?}");
    let reasons: Vec<&str> = results.values().filter_map(|result| result["reason"].as_str()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "bad_json").count(), 3, "{results:?}");
    assert!(
        details.iter().any(|detail| detail.contains("the transform of payload failed: \"a tombstone\"")),
        "{details:?}"
    );
    assert_eq!(reasons.len(), 4, "{results:?}");
    let letters = until("four dead letters", || async {
        let letters = lab.records("dlq").await;
        (letters.len() == 4).then_some(letters)
    })
    .await;
    letters.iter().for_each(|letter| assert_valid("dead-letter-headers", &headers(letter)));
    assert_eq!(letters.iter().filter(|letter| letter.value == avro.value).count(), 2, "kept byte for byte");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_what_it_would_send_and_the_same_id_is_applied_later() {
    let (dry, real) = (unique("dry"), unique("real"));
    let lab = lab(json!([{ "topic": dry, "dry_run": true }, { "topic": real }])).await;
    let command = json!({ "id": "d-1", "entity": "product", "action": "update", "path": { "product_id": 7 },
        "query": { "include_fields": "name" }, "payload": { "name": "Dry" } });
    let upsert = json!({ "id": "d-2", "entity": "customer", "action": "upsert",
        "payload": { "email": "ada@example.com", "first_name": "Ada", "last_name": "Example" } });
    let wrong = json!({ "id": "d-3", "entity": "product", "action": "delete", "path": { "product_id": "" } });
    let of = |topic: &str, value: &Value| record(topic, "k", Some(value.to_string().into_bytes()));
    let before = lab.control.requests().iter().filter(|r| r.method != "GET").count();
    produce(&lab, vec![of(&dry, &command), of(&dry, &upsert), of(&dry, &wrong)]).await;
    let results = lab.results(3).await;
    results.values().for_each(|result| assert_valid("result", result));
    assert_eq!(
        results["d-1"]["request"],
        json!({ "method": "PUT", "path": "/v3/catalog/products/7", "query": { "include_fields": "name" }, "body": { "name": "Dry" },
            "batch": { "method": "PUT", "path": "/v3/catalog/products", "max": 10 } })
    );
    assert_eq!(results["d-2"]["request"]["update"]["method"], "PUT");
    assert_eq!(results["d-3"]["reason"], "bad_id");
    assert_eq!(
        lab.control.requests().iter().filter(|r| r.method != "GET").count(),
        before,
        "nothing was written"
    );
    assert!(
        lab.records("ledger").await.iter().all(|entry| {
            !String::from_utf8_lossy(entry.key.as_deref().unwrap_or_default()).contains("d-1")
        })
    );
    produce(&lab, vec![of(&real, &command)]).await;
    let results = until("the command is applied", || async {
        let all: Vec<Value> = lab.records("results").await.iter().filter_map(json_of).collect();
        (all.len() == 4).then_some(all)
    })
    .await;
    assert!(results.iter().any(|r| r["id"] == "d-1" && r["outcome"] == "applied"), "{results:?}");
    assert_eq!(lab.control.state("product").unwrap()["7"]["name"], "Dry");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_command_overwrites_no_change_and_does_not_stumble_over_its_own() {
    let lab = Lab::start(Setup { incoming: vec![json!({ "entity": "category" })], ..Setup::default() }).await;
    let order = lab.control.place_order(2, &[1]).unwrap();
    let modified = |entity: &str, id: &str| lab.control.state(entity).unwrap()[id]["date_modified"].clone();
    let update = |id: &str, product: u32, guard: Value| {
        let mut command = json!({ "id": id, "entity": "product", "action": "update",
            "path": { "product_id": product }, "payload": { "name": format!("By {id}") } });
        command.as_object_mut().unwrap().extend(guard.as_object().unwrap().clone());
        (id.to_owned(), command)
    };
    let first = modified("product", "7");
    lab.send(&[update("fresh", 7, json!({ "expected_version": first }))]).await;
    assert_eq!(lab.results(1).await["fresh"]["outcome"], "applied");
    assert_ne!(modified("product", "7"), first);
    let since = json!({ "entity": "order", "action": "update", "id": "order", "path": { "order_id": order },
        "payload": { "staff_notes": "guarded" }, "if_unmodified_since": modified("order", &order.to_string()) });
    lab.send(&[update("stale", 7, json!({ "expected_version": first })), ("order".to_owned(), since)]).await;
    let results = lab.results(3).await;
    assert_valid("result", &results["stale"]);
    assert_eq!(results["order"]["outcome"], "applied", "{}", results["order"]);
    assert_eq!(
        (&results["stale"]["outcome"], &results["stale"]["reason"]),
        (&json!("rejected"), &json!("stale"))
    );
    assert_eq!(lab.control.state("product").unwrap()["7"]["name"], "By fresh");
    // The store commits, and the answer is lost.
    let version = modified("product", "9");
    lab.control.faults(Profile { cut_after: Chance::of(1.0).only(Only::Writes), ..Profile::default() });
    lab.send(&[update("cut", 9, json!({ "expected_version": version }))]).await;
    let results = lab.results(4).await;
    assert_eq!((&results["cut"]["outcome"], &results["cut"]["attempts"]), (&json!("applied"), &json!(1)));
    let writes = lab.control.history().iter().filter(|write| write.path.ends_with("/products/9")).count();
    assert_eq!(writes, 1);
    assert_eq!(lab.control.state("product").unwrap()["9"]["name"], "By cut");
    lab.stop().await;
}
