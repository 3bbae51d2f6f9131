//! A route that stopped stays so over a restart of the bridge, until a person lets it go on by the command line; and
//! however much of it waits, other routes go on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use bcbridge::app::{App, Options};
use bcbridge::catalog::Catalog;
use bcbridge::config;
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::topics::TopicSpec;
use bcbridge::model::record::OutRecord;
use bcbridge::runtime::{Drain, DrainTrigger, spawn};
use bcbridge::sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::bridge_lab::{PATIENCE, json_of, read_topic, until};
use crate::broker_lab::{Lab, unique};
use crate::stores_lab::ask;

const TOKEN: &str = "canary-0123456789abcdef0123456789";

/// One life of the bridge.
struct Life {
    console: SocketAddr,
    trigger: DrainTrigger,
    bridge: JoinHandle<anyhow::Result<()>>,
}

impl Life {
    async fn begin(text: &Value) -> Self {
        let catalog = Catalog::embedded().unwrap();
        let settings = config::load_str("lab", &text.to_string(), &|_| None, &catalog);
        let settings = settings.unwrap_or_else(|error| panic!("{error}"));
        let options = Options { callbacks_by_loopback: true, ..Options::default() };
        let app = App::start(Arc::new(settings), options).await.unwrap();
        let (console, (trigger, drain)) = (app.console.unwrap(), Drain::switch());
        let bridge = spawn("bridge", async move { app.run(async move { drain.requested().await }).await });
        Self { console, trigger, bridge }
    }

    /// What `GET /api/status` says of what stands still.
    async fn standing(&self) -> Value {
        let request = format!(
            "GET /api/status HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n",
            self.console
        );
        let status: Value = serde_json::from_str(&ask(self.console, request.as_bytes()).await.1).unwrap();
        status["standing"].clone()
    }

    async fn end(self) {
        self.trigger.request();
        self.bridge.await.unwrap().unwrap();
    }
}

/// What outlives the bridge.
struct Ground {
    broker: Lab,
    prefix: String,
    route: String,
    settings: Value,
    directory: tempfile::TempDir,
}

impl Ground {
    async fn prepare(sandbox: &Sandbox, store: &SandboxConfig) -> Self {
        let (broker, prefix, route) = (Lab::embedded().await, unique("p"), unique("stock"));
        let spec =
            TopicSpec { name: route.clone(), partitions: 2, replication_factor: 1, config: Vec::new() };
        broker.topics.ensure(&[spec]).await.unwrap();
        let settings = json!({
            "kafka": {
                "bootstrap_servers": broker.servers(), "prefix": prefix,
                "topics": { "partitions": 3, "replication_factor": 1 },
            },
            "receiver": { "listen": "127.0.0.1:0" },
            "console": { "listen": "127.0.0.1:0", "token": TOKEN },
            "stores": [{
                "name": "main", "store_hash": store.store_hash, "access_token": store.access_token,
                "client_secrets": [store.client_secret], "base_uri": sandbox.base_uri(),
            }],
            "incoming": [{ "entity": "category" }],
            "outgoing": [
                { "topic": route, "store": "main", "stop_at": "50%" },
                { "topic": format!("{prefix}.main.commands"), "store": "main" },
            ],
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bcbridge.yaml"), settings.to_string()).unwrap();
        Self { broker, prefix, route, settings, directory }
    }

    async fn send(&self, topic: &str, commands: impl Iterator<Item = (String, u64)>) {
        let record = |(id, product): (String, u64)| OutRecord {
            topic: topic.into(),
            partition: None,
            key: Some(id.clone().into()),
            value: Some(update(&id, product).into()),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        self.produce(commands.map(record).collect()).await;
    }

    async fn produce(&self, records: Vec<OutRecord>) {
        let producer = IntakeProducer::new(self.broker.client.clone(), PATIENCE).unwrap();
        producer.append(records, PATIENCE).await.unwrap();
    }

    /// All results, those of each key in their order.
    async fn results(&self) -> Vec<Value> {
        let records = read_topic(&self.broker.client, &format!("{}.main.results", self.prefix)).await;
        records.iter().filter_map(json_of).collect()
    }

    /// Outcomes by the id of the command; each has one.
    async fn outcomes(&self) -> BTreeMap<String, Value> {
        let results = self.results().await;
        let by_id: BTreeMap<_, _> = results
            .iter()
            .map(|result| (result["id"].as_str().unwrap().to_owned(), result["outcome"].clone()))
            .collect();
        assert_eq!(by_id.len(), results.len(), "a command has two results");
        by_id
    }

    async fn call(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcbridge"));
        let settings: &Path = &self.directory.path().join("bcbridge.yaml");
        command.arg("halted").args(args).arg("--config").arg(settings).env("RUST_LOG", "error");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// An update of a product; 999999 is none.
fn update(id: &str, product: u64) -> String {
    json!({
        "id": id, "entity": "product", "action": "update",
        "path": { "product_id": product }, "payload": { "description": id },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_route_waits_over_a_restart_until_a_person_lets_it_go_on() {
    let store = SandboxConfig { quota: 100_000, ..SandboxConfig::default() };
    let sandbox = Sandbox::start(store.clone()).await.unwrap();
    let ground = Ground::prepare(&sandbox, &store).await;
    let stands = json!({ "main": { "stopped_routes": [ground.route], "halted_keys": 0 } });
    let commands = format!("{}.main.commands", ground.prefix);

    let first = Life::begin(&ground.settings).await;
    ground.send(&ground.route, (0..150).map(|number| (format!("bad-{number}"), 999_999))).await;
    until("the route stops", || async { (first.standing().await == stands).then_some(()) }).await;
    ground.send(&ground.route, std::iter::once(("good".to_owned(), 5))).await;
    first.end().await;
    let before = ground.outcomes().await;
    assert!((100..150).contains(&before.len()), "{} commands ended before it stopped", before.len());

    let second = Life::begin(&ground.settings).await;
    ground.send(&commands, std::iter::once(("other".to_owned(), 6))).await;
    until("another route goes on", || async { ground.outcomes().await.contains_key("other").then_some(()) })
        .await;
    assert_eq!(second.standing().await, stands);
    assert_eq!(ground.outcomes().await.len(), before.len() + 1, "what waits is not answered");

    let listed: Vec<Value> = serde_json::from_str(&ground.call(&["list", "--output", "json"]).await).unwrap();
    let places: Vec<_> = listed.iter().map(|row| (&row["kind"], &row["topic"], &row["partition"])).collect();
    let (kind, topic) = (json!("route"), json!(ground.route));
    assert_eq!(places, [(&kind, &topic, &json!(0)), (&kind, &topic, &json!(1))]);
    let waiting: u64 = listed.iter().map(|row| row["waiting"].as_u64().unwrap()).sum();
    assert_eq!(waiting, 151 - before.len() as u64);
    let shown = ground.call(&["list"]).await;
    assert!(shown.contains(&ground.route) && shown.contains('*') && !shown.contains('|'), "{shown}");

    ground.call(&["release", "--route", &ground.route]).await;
    until("all is answered", || async { (ground.outcomes().await.len() == 152).then_some(()) }).await;
    assert_eq!(ground.outcomes().await["good"], "applied");
    until("nothing stands still", || async { (second.standing().await == json!({})).then_some(()) }).await;
    until("the ledger knows it", || async {
        (ground.call(&["list", "--output", "json"]).await.trim() == "[]").then_some(())
    })
    .await;
    second.end().await;
    sandbox.stop().await;
}

/// Commands of the backlog: 70 on each of two partitions, at half a megabyte more than all the room there is for what is
/// open (64 MiB).
const BACKLOG: usize = 140;
const KEYS: usize = 20;
const PADDING: usize = 512 * 1024;

/// A command of the backlog. One key is always on the same partition.
fn late(route: &str, number: usize) -> OutRecord {
    let key = number % KEYS;
    let command = update(&format!("late-{number}"), 5 + key as u64);
    OutRecord {
        topic: route.into(),
        partition: Some(i32::try_from(key % 2).unwrap()),
        key: Some(format!("late-{key}").into()),
        value: Some((command + &" ".repeat(PADDING)).into()),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_of_a_stopped_route_waits_another_route_of_the_store_goes_on() {
    let store = SandboxConfig { quota: 100_000, ..SandboxConfig::default() };
    let sandbox = Sandbox::start(store.clone()).await.unwrap();
    let ground = Ground::prepare(&sandbox, &store).await;
    let stands = json!({ "main": { "stopped_routes": [ground.route], "halted_keys": 0 } });
    let commands = format!("{}.main.commands", ground.prefix);

    let life = Life::begin(&ground.settings).await;
    ground.send(&ground.route, (0..110).map(|number| (format!("bad-{number}"), 999_999))).await;
    until("the route stops", || async { (life.standing().await == stands).then_some(()) }).await;
    for from in (0..BACKLOG).step_by(10) {
        ground.produce((from..from + 10).map(|number| late(&ground.route, number)).collect()).await;
    }
    // One after another, so that the backlog has time to be consumed as far as it is.
    for number in 0..10 {
        let id = format!("other-{number}");
        ground.send(&commands, std::iter::once((id.clone(), 6))).await;
        until("another route goes on", || async { ground.outcomes().await.contains_key(&id).then_some(()) })
            .await;
    }
    assert_eq!(life.standing().await, stands);
    let before = ground.outcomes().await;
    assert!(!before.keys().any(|id| id.starts_with("late")), "what waits is not answered");

    ground.call(&["release", "--route", &ground.route]).await;
    let all = 110 + 10 + BACKLOG;
    until("all is answered", || async { (ground.outcomes().await.len() == all).then_some(()) }).await;
    let results = ground.results().await;
    let id_of =
        |result: &Value| Some(result["id"].as_str()?.strip_prefix("late-")?.parse::<usize>().unwrap());
    let late: Vec<usize> = results.iter().filter_map(id_of).collect();
    for key in 0..KEYS {
        let of_key: Vec<usize> = late.iter().copied().filter(|number| number % KEYS == key).collect();
        assert_eq!(of_key, (key..BACKLOG).step_by(KEYS).collect::<Vec<_>>(), "those of a key are in order");
    }
    life.end().await;
    sandbox.stop().await;
}
