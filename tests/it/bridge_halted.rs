//! A key stands still after a failure, on a real broker: over a restart of the store's path, until a person decides.

use std::time::Duration;

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::topics::{TopicSpec, Topics};
use bcbridge::model::record::OutRecord;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, json_of, until};
use crate::broker_lab::unique;

/// An update of a product; 999999 is none.
fn update(id: &str, product: u64) -> String {
    json!({
        "id": id, "entity": "product", "action": "update",
        "path": { "product_id": product }, "payload": { "description": id },
    })
    .to_string()
}

async fn lab(topic: &str) -> Lab {
    let outgoing = json!([{ "topic": topic, "store": "main", "on_failure": "halt-key" }]);
    let setup = Setup {
        not_ready: &["outgoing"],
        outgoing: Some(outgoing),
        incoming: vec![json!({ "entity": "category" })],
        ..Setup::default()
    };
    let lab = Lab::start(setup).await;
    let spec = TopicSpec { name: topic.into(), partitions: 1, replication_factor: 1, config: Vec::new() };
    Topics::new(&lab.client).unwrap().ensure(&[spec]).await.unwrap();
    lab
}

/// Puts a signal on its topic, as `bcbridge halted` does.
async fn signal(lab: &Lab, value: Value) {
    let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
    let record = OutRecord {
        topic: format!("{}.signals", lab.prefix).into(),
        partition: None,
        key: Some(Bytes::from_static(b"main")),
        value: Some(value.to_string().into()),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    producer.append(vec![record], Duration::from_secs(30)).await.unwrap();
}

/// The ledger's word on halted keys: the state of each, by the command that halted it.
async fn halts(lab: &Lab) -> Vec<(String, String)> {
    let of_a_halt = |record: &bcbridge::model::record::InRecord| {
        record.key.as_deref().is_some_and(|key| key.starts_with(b"halt/"))
    };
    let records = lab.records("ledger").await;
    let entries = records.iter().filter(|record| of_a_halt(record)).filter_map(json_of);
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    entries.map(|entry| (text(&entry, "command"), text(&entry, "state"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halted_key_waits_for_a_person_and_the_other_keys_do_not() {
    let topic = unique("halting");
    let lab = lab(&topic).await;
    for (key, id, product) in [("a", "a-1", 5), ("a", "a-2", 999_999), ("a", "a-3", 6), ("b", "b-1", 7)] {
        lab.send_to(&topic, key, update(id, product)).await;
    }
    let results = lab.results(3).await;
    assert_eq!(results["a-2"]["reason"], "missing", "{results:?}");
    assert_eq!(
        (&results["a-1"]["outcome"], &results["b-1"]["outcome"]),
        (&json!("applied"), &json!("applied"))
    );
    // What comes later of the key waits, what comes of others does not.
    lab.send_to(&topic, "a", update("a-4", 8)).await;
    lab.send_to(&topic, "b", update("b-2", 9)).await;
    let results = lab.results(4).await;
    assert_eq!(results.keys().collect::<Vec<_>>(), ["a-1", "a-2", "b-1", "b-2"]);
    assert_eq!(halts(&lab).await, [("a-2".to_owned(), "halted".to_owned())]);
    signal(&lab, json!({ "id": "s-1", "type": "halt.release", "store": "main", "command": "a-2" })).await;
    let results = lab.results(6).await;
    assert!(["a-3", "a-4"].iter().all(|id| results[*id]["outcome"] == "applied"), "{results:?}");
    until("the ledger knows that the key goes on", || async {
        (halts(&lab).await.last()?.1 == "released").then_some(())
    })
    .await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_failure_can_be_dropped_and_is_answered() {
    let topic = unique("halting");
    let lab = lab(&topic).await;
    for (id, product) in [("a-1", 999_999), ("a-2", 6), ("a-3", 7)] {
        lab.send_to(&topic, "a", update(id, product)).await;
    }
    lab.results(1).await;
    let drop = json!({ "id": "s-1", "type": "halt.drop", "store": "main", "command": "a-1", "before": 2 });
    signal(&lab, drop).await;
    let results = lab.results(3).await;
    assert_eq!(
        (&results["a-2"]["outcome"], &results["a-2"]["reason"]),
        (&json!("rejected"), &json!("dropped"))
    );
    assert_eq!(results["a-3"]["outcome"], "applied", "it came after what was meant");
    let letters = lab.records("dlq").await;
    let reasons: Vec<_> = letters.iter().map(|letter| letter.header("bc_dlq_reason").unwrap()).collect();
    assert_eq!(reasons, ["missing", "dropped"]);
    let is_written =
        |id: &str| lab.control.state("product").unwrap().values().any(|p| p["description"] == id);
    assert!(!is_written("a-2") && is_written("a-3"));
    lab.stop().await;
}
