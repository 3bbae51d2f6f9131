//! Command topics that have more or fewer partitions than the ledger: an id is known again, also after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bcbridge::app::{App, Options};
use bcbridge::catalog::Catalog;
use bcbridge::config;
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::topics::TopicSpec;
use bcbridge::model::record::OutRecord;
use bcbridge::runtime::Drain;
use bcbridge::sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};

use crate::bridge_batches::command;
use crate::bridge_lab::{Setup, json_of, read_topic, settings, until};
use crate::broker_lab::{Lab, unique};

const COMMANDS: usize = 40;

fn commands(life: usize) -> Vec<(String, Value)> {
    // The second half of each life's ids comes again in the next one.
    let create = |n: usize| {
        let payload = json!({ "name": format!("Made {n}"), "type": "physical", "weight": 1, "price": 5, "sku": format!("P-{n}") });
        command(&format!("c-{n}"), "product", "create", json!({}), payload)
    };
    (life * COMMANDS / 2..life * COMMANDS / 2 + COMMANDS).map(create).collect()
}

/// Three lives of a bridge whose ledger has three partitions.
async fn repeated_ids_are_known(partitions: i32) {
    let broker = Lab::embedded().await;
    let config = SandboxConfig { quota: 100_000, products: 3, orders: 0, ..SandboxConfig::default() };
    let sandbox = Sandbox::start(config.clone()).await.unwrap();
    let (prefix, topic) = (unique("p"), unique("commands"));
    let spec = TopicSpec { name: topic.clone(), partitions, replication_factor: 1, config: Vec::new() };
    broker.topics.ensure(&[spec]).await.unwrap();
    let setup = Setup {
        sandbox: config,
        incoming: vec![json!({ "entity": "category" })],
        outgoing: Some(json!([{ "topic": topic, "store": "main" }])),
        ..Setup::default()
    };
    let text = settings(&sandbox, &setup, &prefix, &broker.servers()).to_string();
    let settings = config::load_str("lab", &text, &|_| None, &Catalog::embedded().unwrap()).unwrap();
    let settings = Arc::new(settings);
    let producer = IntakeProducer::new(broker.client.clone(), Duration::from_secs(10)).unwrap();
    for life in 0..3 {
        let options = Options { callbacks_by_loopback: true, ..Options::default() };
        let app = App::start(settings.clone(), options).await.unwrap();
        let (trigger, drain) = Drain::switch();
        let bridge = bcbridge::runtime::spawn("bridge", async move {
            app.run(async move { drain.requested().await }).await
        });
        let record = |(key, value): (String, Value)| OutRecord {
            topic: topic.as_str().into(),
            partition: None,
            key: Some(key.into_bytes().into()),
            value: Some(value.to_string().into()),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        let records = commands(life).into_iter().map(record).collect();
        producer.append(records, Duration::from_secs(30)).await.unwrap();
        let wanted = (life + 1) * COMMANDS;
        let results = until(&format!("{wanted} results"), || async {
            let results = read_topic(&broker.client, &format!("{prefix}.main.results")).await;
            (results.len() >= wanted).then_some(results)
        })
        .await;
        assert_eq!(results.len(), wanted);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for result in &results {
            let value = json_of(result).unwrap();
            assert_eq!(value["outcome"], "applied", "{value}");
            *seen.entry(value["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let again = results.iter().filter(|result| result.header("bc_replayed") == Some("1")).count();
        assert_eq!(again, wanted - seen.len(), "what comes again is told what became of it");
        assert_eq!(again, life * COMMANDS / 2);
        let products = sandbox.control().state("product").unwrap();
        let made =
            products.values().filter(|row| row["name"].as_str().unwrap_or("").starts_with("Made")).count();
        assert_eq!(made, seen.len(), "each id made one product");
        trigger.request();
        bridge.await.unwrap().unwrap();
    }
    let ledger = broker.topics.partitions_of(&format!("{prefix}.main.ledger")).await.unwrap();
    assert_eq!(ledger, 3);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_more_partitions_than_the_ledger_knows_its_ids_again() {
    repeated_ids_are_known(7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_one_partition_knows_its_ids_again() {
    repeated_ids_are_known(1).await;
}
