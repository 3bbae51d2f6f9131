//! An id that comes again after a restart: answered out of the ledger with the stored result, and nothing is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

use crate::bridge_kill::spawn;
use crate::bridge_lab::{PATIENCE, RETRIES_FASTER, Setup, read_topic, settings, until};
use crate::broker_lab::{self, on_both_brokers, unique};
use crate::scale_snapshot::resident;

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

/// Commands that have ended; `BCBRIDGE_LEDGER` overrides it.
const LEDGER: u32 = 30_000;
/// Resident memory of the bridge at most, in bytes.
const MAX_RESIDENT: u64 = 256 << 20;

/// The ledger's entry of a command that ended at that moment, as an earlier life left it.
fn entry(topic: &str, n: u32, at_ms: i64) -> OutRecord {
    let result = json!({ "id": format!("m-{n}"), "entity": "product", "action": "update", "outcome": "applied", "status": 200,
        "body": { "data": { "id": n, "name": "x".repeat(200) } }, "attempts": 1, "class": "A" });
    OutRecord {
        topic: topic.into(),
        partition: i32::try_from(n % 3).ok(),
        key: Some(Bytes::from(format!("command/m-{n}"))),
        value: Some(format!(r#"{{"state":"done","at_ms":{at_ms},"result":{result}}}"#).into()),
        headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
        timestamp_ms: Some(at_ms),
    }
}

/// A bridge that comes up over the ledger of a great many commands answers the repeats of the oldest ones that it should
/// know, and stays small. It is a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_ledger_costs_little_memory_and_is_still_known() {
    let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set");
        return;
    };
    let commands: u32 = std::env::var("BCBRIDGE_LEDGER").map_or(LEDGER, |n| n.parse().unwrap());
    let setup = Setup { incoming: vec![json!({ "entity": "category" })], ..Setup::default() };
    let sandbox = Sandbox::start(setup.sandbox.clone()).await.unwrap();
    let prefix = unique("t");
    let settings = settings(&sandbox, &setup, &prefix, &servers);
    let topic = |name: &str| format!("{prefix}.main.{name}");
    let first = Bridge::start(&settings).await;
    let client = first.client.clone();
    first.stop().await;
    let producer = IntakeProducer::new(client.clone(), PATIENCE).unwrap();
    let now_ms = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let ledger = topic("ledger");
    let at_ms = |n: u32| now_ms - 3_600_000 + i64::from(n);
    for from in (0..commands).step_by(10_000) {
        let entries = (from..(from + 10_000).min(commands)).map(|n| entry(&ledger, n, at_ms(n)));
        producer.append(entries.collect(), PATIENCE).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bcbridge.yaml");
    std::fs::write(&file, settings.to_string()).unwrap();
    let begun = Instant::now();
    let mut bridge = spawn(&file);
    let newest = commands.saturating_sub(860_000);
    let again: Vec<u32> = (newest..commands).step_by(commands as usize / 100).chain([commands - 1]).collect();
    let command = |n: &u32| {
        OutRecord {
        topic: topic("commands").into(),
        partition: i32::try_from(n % 3).ok(),
        key: Some(Bytes::from(format!("k{n}"))),
        value: Some(
            json!({ "id": format!("m-{n}"), "entity": "product", "action": "update", "path": { "product_id": 1 }, "payload": { "name": "y" } })
                .to_string()
                .into(),
        ),
        headers: Vec::new(),
        timestamp_ms: None,
    }
    };
    producer.append(again.iter().map(command).collect(), PATIENCE).await.unwrap();
    // A debug build takes a while for a million.
    let patience = PATIENCE + Duration::from_millis(u64::from(commands) / 5);
    let results = loop {
        let results = read_topic(&client, &topic("results")).await;
        if results.len() == again.len() {
            break results;
        }
        assert!(begun.elapsed() < patience, "{} of {} answers in {patience:?}", results.len(), again.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let took = begun.elapsed();
    for (id, results) in by_id(&results) {
        assert!(results.iter().all(|(_, is_stored)| *is_stored), "{id}");
    }
    let (now, most) = resident(&bridge).unwrap();
    println!(
        "{} repeats over a ledger of {commands} commands answered {:.1} s after the start; {} MB resident, {} MB at most",
        again.len(),
        took.as_secs_f64(),
        now >> 20,
        most >> 20
    );
    assert!(most < MAX_RESIDENT, "{} MB", most >> 20);
    bridge.kill().await.unwrap();
    sandbox.stop().await;
}
