//! An id that comes again after a restart: answered out of the ledger with the stored result, and nothing is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bcbridge::app::{App, Options};
use bcbridge::catalog::Catalog;
use bcbridge::config;
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::model::record::{InRecord, OutRecord};
use bcbridge::runtime::{Drain, DrainTrigger};
use bcbridge::sandbox::{Sandbox, SandboxConfig};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::bridge_lab::{PATIENCE, RETRIES_FASTER, Setup, read_topic, settings, until};
use crate::broker_lab::{self, on_both_brokers, unique};

on_both_brokers!(an_old_id_gets_its_first_result_after_a_restart);

/// Commands of the first life, over so many products.
const COMMANDS: usize = 400;
const PRODUCTS: usize = 40;

/// A bridge that can be started again over the same Kafka.
struct Bridge {
    client: ClientSettings,
    trigger: DrainTrigger,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Bridge {
    async fn start(settings: &Value) -> Self {
        let catalog = Catalog::embedded().unwrap();
        let settings = config::load_str("lab", &settings.to_string(), &|_| None, &catalog).unwrap();
        let options = Options { callbacks_by_loopback: true, ..Options::default() };
        let app = App::start(Arc::new(settings), options).await.unwrap();
        let (client, readiness) = (app.cluster.client.clone(), app.readiness.clone());
        let (trigger, drain) = Drain::switch();
        let running = bcbridge::runtime::spawn("bridge", async move {
            app.run(async move { drain.requested().await }).await
        });
        until("the bridge is ready", || async { readiness.waiting_for().is_empty().then_some(()) }).await;
        Self { client, trigger, running }
    }

    async fn stop(self) {
        self.trigger.request();
        self.running.await.unwrap().unwrap();
    }
}

async fn send(client: &ClientSettings, topic: &str, commands: impl Iterator<Item = (String, Value)>) {
    let record = |(key, value): (String, Value)| OutRecord {
        topic: topic.into(),
        partition: None,
        key: Some(Bytes::from(key)),
        value: Some(value.to_string().into()),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    let producer = IntakeProducer::new(client.clone(), PATIENCE).unwrap();
    producer.append(commands.map(record).collect(), PATIENCE).await.unwrap();
}

/// The results of each id, in order: the value, and whether it was stored before.
fn by_id(records: &[InRecord]) -> BTreeMap<String, Vec<(Bytes, bool)>> {
    let mut results = BTreeMap::<String, Vec<_>>::new();
    for record in records {
        let id = record.header("bc_command").unwrap().to_owned();
        let result = (record.value.clone().unwrap(), record.header("bc_replayed") == Some("1"));
        results.entry(id).or_default().push(result);
    }
    results
}

async fn an_old_id_gets_its_first_result_after_a_restart(broker: broker_lab::Lab) {
    let config = SandboxConfig { quota: 100_000, time_scale: RETRIES_FASTER, ..SandboxConfig::default() };
    let setup = Setup {
        sandbox: config.clone(),
        incoming: vec![json!({ "entity": "category" })],
        ..Setup::default()
    };
    let sandbox = Sandbox::start(config).await.unwrap();
    let control = sandbox.control();
    let prefix = unique("t");
    let settings = settings(&sandbox, &setup, &prefix, &broker.servers());
    let topic = |name: &str| format!("{prefix}.main.{name}");
    let (commands, results) = (topic("commands"), topic("results"));
    let order = control.place_order(2, &[1]).unwrap();
    // All three classes, of which one is refused.
    let command = |n: usize| {
        let product = n % PRODUCTS + 1;
        let value = match n {
            0 => {
                json!({ "entity": "product", "action": "create", "payload": { "name": "New", "type": "physical", "weight": 1, "price": 1, "sku": "R-1" } })
            }
            1 => {
                json!({ "entity": "shipment", "action": "create", "path": { "order_id": order }, "payload": { "order_address_id": 1, "items": [] } })
            }
            2 => {
                json!({ "entity": "product", "action": "update", "path": { "product_id": 999_999 }, "payload": { "description": "x" } })
            }
            _ => {
                json!({ "entity": "product", "action": "update", "path": { "product_id": product }, "payload": { "description": format!("step {n}") } })
            }
        };
        let mut value = value;
        value["id"] = json!(format!("c-{n}"));
        (format!("product/{product}"), value)
    };
    let bridge = Bridge::start(&settings).await;
    send(&bridge.client, &commands, (0..COMMANDS).map(command)).await;
    until("all are answered", || async {
        (read_topic(&bridge.client, &results).await.len() == COMMANDS).then_some(())
    })
    .await;
    bridge.stop().await;
    // Hooks are written when a bridge starts.
    let writes = || control.history().into_iter().filter(|write| !write.path.contains("/hooks")).count();
    let (before, state) = (writes(), control.state("product").unwrap());

    let bridge = Bridge::start(&settings).await;
    let again: Vec<usize> = (0..COMMANDS).step_by(7).chain([0, 1, 2]).collect();
    send(&bridge.client, &commands, again.iter().map(|n| command(*n))).await;
    let all = until("all are answered again", || async {
        let all = read_topic(&bridge.client, &results).await;
        (all.len() == COMMANDS + again.len()).then_some(all)
    })
    .await;
    let all = by_id(&all);
    for n in again {
        let results = &all[&format!("c-{n}")];
        let is_stored = |(value, is_stored): &(Bytes, bool)| *is_stored && *value == results[0].0;
        assert!(!results[0].1 && results[1..].iter().all(is_stored), "c-{n}: {results:?}");
        assert!(results.len() > 1, "c-{n}: {results:?}");
    }
    assert_eq!(writes(), before, "nothing was sent");
    assert_eq!(control.state("product").unwrap(), state);
    bridge.stop().await;
    sandbox.stop().await;
}
