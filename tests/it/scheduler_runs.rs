//! Polls, snapshots and sweeps of the whole bridge against the sandbox. No entity has a webhook here: whatever is
//! published was found by reading lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bcbridge::app::{App, Options};
use bcbridge::catalog::Catalog;
use bcbridge::config;
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::model::record::InRecord;
use bcbridge::runtime::{Drain, DrainTrigger};
use bcbridge::sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::bridge_lab::{Lab, Setup, headers, json_of, read_topic, settings, until};
use crate::schemas::assert_valid;

fn lab(incoming: Value) -> Setup {
    let sandbox = SandboxConfig { quota: 100_000, ..SandboxConfig::default() };
    Setup { sandbox, incoming: vec![incoming], ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_publishes_what_is_there_what_changes_and_what_goes() {
    let customer = json!({
        "entity": "customer",
        "scopes": [],
        "poll": { "every": "1s", "full": "2s" },
        "confirm_gone": "1s",
    });
    let lab = Lab::start(lab(customer)).await;
    let there = lab.control.state("customer").unwrap();
    let found = until("every customer is published", || async {
        let last = lab.last("customer").await;
        (last.len() >= there.len()).then_some(last)
    })
    .await;
    assert!(found.keys().eq(there.keys()));
    let (changed, gone) = (there.keys().next().unwrap(), there.keys().next_back().unwrap());
    lab.control.update("customer", changed, json!({ "company": "Example Ltd" })).unwrap();
    lab.control.delete("customer", gone).unwrap();
    until("the change and the delete are published", || async {
        let last = lab.last("customer").await;
        let is_changed = last[changed].as_ref().is_some_and(|row| row["company"] == "Example Ltd");
        (is_changed && last[gone].is_none()).then_some(())
    })
    .await;
    keeps_its_contracts(&lab, "customer", "bridge/poll").await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_repairs_what_callbacks_missed() {
    let product = json!({
        "entity": "product",
        "scopes": [],
        "include": [],
        "sweep": "2s",
        "confirm_gone": "1s",
    });
    let lab = Lab::start(lab(product)).await;
    let there = lab.control.state("product").unwrap();
    until("the first sweep publishes what nobody told of", || async {
        (lab.last("product").await.len() >= there.len()).then_some(())
    })
    .await;
    lab.control.update("product", 3, json!({ "name": "Three" })).unwrap();
    lab.control.delete("product", 4).unwrap();
    until("the topic is as the store", || async {
        let last = lab.last("product").await;
        (last["3"].as_ref().is_some_and(|row| row["name"] == "Three") && last["4"].is_none()).then_some(())
    })
    .await;
    keeps_its_contracts(&lab, "product", "bridge/sweep").await;
    lab.stop().await;
}

/// That every hint and every record is written as its schema says, and that the hints have this scope.
async fn keeps_its_contracts(lab: &Lab, entity: &str, scope: &str) {
    let hints = lab.records("webhooks").await;
    assert!(hints.iter().any(|hint| hint.header("bc_scope") == Some(scope)));
    hints.iter().for_each(|hint| assert_valid("intake-headers", &headers(hint)));
    lab.records(entity).await.iter().for_each(|record| assert_valid("event-headers", &headers(record)));
}

/// One life of a bridge on a cluster that outlives it.
struct Life {
    trigger: DrainTrigger,
    bridge: JoinHandle<anyhow::Result<()>>,
}

impl Life {
    async fn begin(text: &str) -> Self {
        let catalog = Catalog::embedded().unwrap();
        let settings = config::load_str("lab", text, &|_| None, &catalog).unwrap_or_else(|e| panic!("{e}"));
        let app = App::start(Arc::new(settings), Options::default()).await.unwrap();
        let (trigger, drain) = Drain::switch();
        let bridge = bcbridge::runtime::spawn("bridge", async move {
            app.run(async move { drain.requested().await }).await
        });
        Self { trigger, bridge }
    }

    /// Dropped where it stands, without a drain.
    async fn kill(self) {
        self.bridge.abort();
        let _ = self.bridge.await;
    }

    async fn stop(self) {
        self.trigger.request();
        self.bridge.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_killed_goes_on_and_misses_nothing() {
    let broker = bcbridge::embedded::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| broker.bootstrap_servers());
    // Pages take their time, so that the kills come in between.
    let config = SandboxConfig { quota: 20, products: 3_000, ..SandboxConfig::default() };
    let sandbox = Sandbox::start(config.clone()).await.unwrap();
    let control = sandbox.control();
    let product = json!({ "entity": "product", "scopes": [], "include": [] });
    let setup = Setup { sandbox: config, incoming: vec![product], ..Setup::default() };
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let text = settings(&sandbox, &setup, &prefix, &servers).to_string();
    let client = ClientSettings::new(servers, BTreeMap::new()).unwrap();
    let hints = || async { read_topic(&client, &format!("{prefix}.main.webhooks")).await };

    let mut life = Life::begin(&text).await;
    send(
        &client,
        &format!("{prefix}.signals"),
        json!({ "id": "s1", "type": "snapshot.start", "store": "main" }),
    )
    .await;
    for wanted in [500, 1_500] {
        until("pages of the snapshot", || async { (hints().await.len() >= wanted).then_some(()) }).await;
        life.kill().await;
        control.set_quota(20 + u32::try_from(wanted).unwrap());
        life = Life::begin(&text).await;
    }
    control.set_quota(100_000);
    let told = until("the end of the snapshot", || async {
        let told: Vec<Value> = read_topic(&client, &format!("{prefix}.notifications"))
            .await
            .iter()
            .filter_map(json_of)
            .collect();
        told.iter().any(|told| told["type"] == "snapshot.done" && told["entity"].is_null()).then_some(told)
    })
    .await;
    told.iter().for_each(|told| assert_valid("notification", told));
    assert_eq!(told[0]["type"], "accepted");
    assert_eq!(told.last().unwrap()["rows"], 3_000);
    let hints = hints().await;
    hints.iter().for_each(|hint| assert_valid("intake-headers", &headers(hint)));
    assert_eq!(hints.len(), 3_000, "every page counts once");
    let keys: std::collections::BTreeSet<_> = hints.iter().map(|hint| hint.key.clone()).collect();
    assert_eq!(keys.len(), 3_000);
    assert!(hints.iter().all(|hint: &InRecord| hint.header("bc_carried_at").is_some()));
    life.stop().await;
    sandbox.stop().await;
    broker.stop().await;
}

async fn send(client: &ClientSettings, topic: &str, value: Value) {
    let producer =
        bcbridge::kafka::append::IntakeProducer::new(client.clone(), Duration::from_secs(10)).unwrap();
    let record = bcbridge::model::record::OutRecord {
        topic: topic.into(),
        partition: None,
        key: None,
        value: Some(value.to_string().into()),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    producer.append(vec![record], Duration::from_secs(30)).await.unwrap();
}
