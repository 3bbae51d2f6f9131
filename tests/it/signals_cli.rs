//! `snapshot` and `sync` on the command line and over the console, against a broker and somebody who answers as a
//! bridge would.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::Arc;

use bcbridge::app::signals::Signals;
use bcbridge::app::{InForce, Load};
use bcbridge::catalog::Catalog;
use bcbridge::console::{Console, ConsoleConfig, ConsoleState};
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::tail::Tail;
use bcbridge::model::signal::{Ask, Kind, Notification, Signal};
use bcbridge::runtime::Lifecycle;
use bcbridge::telemetry::{Metrics, Readiness};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bridge_lab::until;
use crate::broker_lab::{Lab, unique};
use crate::kafka_support::PATIENCE;

struct Desk {
    lab: Lab,
    prefix: String,
    directory: tempfile::TempDir,
    producer: IntakeProducer,
    signals: Tail,
}

impl Desk {
    async fn open() -> Self {
        let lab = Lab::embedded().await;
        let prefix = unique("p");
        let spec = |what: &str| bcbridge::kafka::topics::TopicSpec {
            name: format!("{prefix}.{what}"),
            partitions: 1,
            replication_factor: 1,
            config: Vec::new(),
        };
        lab.topics.ensure(&[spec("signals"), spec("notifications")]).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let settings = json!({
            "kafka": { "bootstrap_servers": lab.servers(), "prefix": prefix, "topics": { "replication_factor": 1 } },
            "stores": [{
                "name": "main", "store_hash": "abc123", "access_token": "not-used", "client_secrets": ["not-used"],
            }],
            "incoming": [{ "entity": "product" }, { "entity": "order" }],
        });
        std::fs::write(directory.path().join("bcbridge.yaml"), settings.to_string()).unwrap();
        let producer = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
        let signals = Tail::from_start(&lab.client, vec![format!("{prefix}.signals")]).await.unwrap();
        Self { lab, prefix, directory, producer, signals }
    }

    fn call(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcbridge"));
        command
            .args(args)
            .arg("--config")
            .arg(self.directory.path().join("bcbridge.yaml"))
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn signal(&mut self) -> Signal {
        let record = tokio::time::timeout(PATIENCE, self.signals.next()).await.expect("a signal").unwrap();
        let signal = Signal::parse(record.value.as_deref().unwrap()).unwrap();
        assert_eq!(record.key.as_deref(), Some(signal.key().as_bytes()));
        signal
    }

    async fn tell(&self, told: Notification) {
        let record = bcbridge::model::record::OutRecord {
            topic: format!("{}.notifications", self.prefix).into(),
            partition: None,
            key: Some(told.key().into()),
            value: Some(serde_json::to_vec(&told).unwrap().into()),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        self.producer.append(vec![record], PATIENCE).await.unwrap();
    }
}

fn told(id: &str, kind: Kind, rows: u64) -> Notification {
    let at = |second| Timestamp::from_second(second).unwrap();
    Notification {
        rows,
        calls: 1,
        started_at: Some(at(10)),
        ..Notification::new(id, kind, Some("main"), at(12))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn ended(call: &mut Command) -> Output {
    tokio::time::timeout(PATIENCE, call.output()).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_asked_for_followed_and_done() {
    let mut desk = Desk::open().await;
    let mut call = desk.call(&["snapshot", "start", "--entity", "product", "--output", "json"]);
    let running = call.spawn().unwrap();
    let signal = desk.signal().await;
    let wanted = Ask::StartSnapshot { store: "main".to_owned(), entities: vec!["product".to_owned()] };
    assert_eq!(signal.ask, wanted);
    let product =
        |kind, rows| Notification { entity: Some("product".into()), ..told(&signal.id, kind, rows) };
    desk.tell(told("somebody-else", Kind::SnapshotFailed, 0)).await;
    desk.tell(told(&signal.id, Kind::Accepted, 0)).await;
    desk.tell(product(Kind::SnapshotProgress, 250)).await;
    desk.tell(product(Kind::SnapshotDone, 300)).await;
    desk.tell(told(&signal.id, Kind::SnapshotDone, 300)).await;
    let output = tokio::time::timeout(PATIENCE, running.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["accepted", "snapshot.progress", "snapshot.done", "snapshot.done"]);
    lines.iter().for_each(|line| crate::schemas::assert_valid("notification", line));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_and_a_refusal_are_told_and_are_exit_code_1() {
    let mut desk = Desk::open().await;
    for (args, kind) in [
        (&["snapshot", "start"][..], Kind::SnapshotFailed),
        (&["sync", "main", "product", "77", "206:509"], Kind::SyncFailed),
        (&["snapshot", "pause", "s-9"], Kind::Rejected),
    ] {
        let running = desk.call(args).spawn().unwrap();
        let id = desk.signal().await.id;
        let detail = Some("for a reason".to_owned());
        desk.tell(Notification { detail, ..told(&id, kind, 0) }).await;
        let output = tokio::time::timeout(PATIENCE, running.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let shown = text(&output.stdout);
        assert!(shown.contains(kind.name()) && shown.contains("for a reason"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_the_snapshots_that_are_meant() {
    let mut desk = Desk::open().await;
    let running = desk.call(&["snapshot", "status"]).spawn().unwrap();
    let id = desk.signal().await.id;
    desk.tell(told("s-1", Kind::SnapshotProgress, 40)).await;
    desk.tell(Notification { store: Some("other".into()), ..told("s-2", Kind::SnapshotProgress, 50) }).await;
    desk.tell(told(&id, Kind::Accepted, 0)).await;
    let output = tokio::time::timeout(PATIENCE, running.wait_with_output()).await.unwrap().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("snapshot.progress  s-1  40 rows, 1 calls, 20 rows/s"), "{shown}");
    assert!(!shown.contains("s-2"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_found_before_anything_is_sent() {
    let mut desk = Desk::open().await;
    for (args, expected) in [
        (&["sync", "main", "prodcut", "77"][..], "did you mean \"product\"?"),
        (&["sync", "main", "product", "7/7"], "\"7/7\" is not an id"),
        (&["sync", "mian", "product", "77"], "did you mean \"main\"?"),
        (&["sync", "main", "customer", "77"], "add it to incoming"),
        (&["snapshot", "start", "--entity", "orders?"], "is not in the catalogue"),
        (&["snapshot", "stop", "../x"], "is not an id"),
    ] {
        let output = ended(&mut desk.call(args)).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    // The first signal on the topic is the one that was right.
    let output = ended(&mut desk.call(&["snapshot", "start", "--no-follow"])).await;
    assert_eq!(text(&output.stdout).trim(), desk.signal().await.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_does_not_answer_is_said_so_and_the_signal_stays() {
    let mut desk = Desk::open().await;
    let output = ended(&mut desk.call(&["sync", "main", "order", "251"])).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no answer within 15 s; is the bridge running?"), "{said}");
    assert!(matches!(desk.signal().await.ask, Ask::Sync { .. }));
    assert!(!desk.lab.is_apache);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_asks_for_snapshots_and_remembers_what_is_told_of_them() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let mut desk = Desk::open().await;
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let file = desk.directory.path().join("bcbridge.yaml");
    let settings = Arc::new(bcbridge::config::load(&file, &|_| None, &*catalog).unwrap());
    let in_force = InForce { load: Load { settings, catalog }, clients: BTreeMap::new() };
    let signals = Signals::new(tokio::sync::watch::Sender::new(Arc::new(in_force)).subscribe());
    let state = ConsoleState {
        readiness: Readiness::new(),
        metrics: Metrics::new([], [], []),
        status: Arc::new(|| json!({})),
        actions: signals.actions().into_iter().collect(),
    };
    let config = ConsoleConfig { listen: "127.0.0.1:0".parse().unwrap(), token: Some(TOKEN.into()) };
    let console = Console::start(config, state).await.unwrap();
    let headers = [&format!("authorization: Bearer {TOKEN}"), "content-type: application/json"];
    let ask = async |line: &str, body: &str| {
        let reply = crate::console_http::ask(console.addr(), line, &headers, body).await;
        (reply.status, serde_json::from_str::<Value>(&reply.body).unwrap())
    };
    let early = ask("POST /api/snapshots", "{}").await;
    assert_eq!(early, (500, json!({"error": "Kafka is not reached yet; try again"})));
    let mut lifecycle = Lifecycle::new();
    signals.start(&desk.lab.client, &mut lifecycle).unwrap();

    let (status, body) = ask("POST /api/snapshots", r#"{"entities":["product"]}"#).await;
    let signal = desk.signal().await;
    assert_eq!((status, body), (200, json!({ "id": signal.id })));
    desk.tell(told(&signal.id, Kind::SnapshotProgress, 250)).await;
    let seen = until("the progress", || async {
        let (_, list) = ask("GET /api/snapshots", "").await;
        list["snapshots"].get(0).cloned()
    });
    let seen = seen.await;
    assert_eq!((&seen["id"], &seen["state"]), (&json!(signal.id), &json!("snapshot.progress")));
    assert_eq!(seen["parts"][0]["rows"], 250);

    for verb in ["pause", "resume", "stop"] {
        let (status, _) = ask(&format!("POST /api/snapshots/{}/{verb}", signal.id), "{}").await;
        let asked = serde_json::to_value(desk.signal().await).unwrap();
        assert_eq!((status, &asked["type"]), (200, &json!(format!("snapshot.{verb}"))));
        assert_eq!(asked["snapshot"], json!(signal.id));
    }
    let (status, _) = ask("POST /api/sync", r#"{"entity":"order","ids":[251,"252"]}"#).await;
    let asked = serde_json::to_value(desk.signal().await).unwrap();
    assert_eq!((status, &asked["ids"]), (200, &json!(["251", "252"])));

    for (line, body, expected) in [
        ("POST /api/sync", r#"{"entity":"prodcut","ids":["1"]}"#, "did you mean \"product\"?"),
        ("POST /api/sync", r#"{"entity":"product","ids":["-1"]}"#, "must be positive"),
        ("POST /api/sync", r#"{"entity":"product","ids":[]}"#, "at least one id"),
        ("POST /api/snapshots", r#"{"entites":["product"]}"#, "unknown field `entites`"),
        ("POST /api/snapshots", r#"{"store":"mian"}"#, "did you mean \"main\"?"),
        ("POST /api/snapshots/..%2Fx/stop", "{}", "is not an id"),
    ] {
        let (status, reply) = ask(line, body).await;
        let error = reply["error"].as_str().unwrap();
        assert!(status == 422 && error.contains(expected), "{line} {body}: {status} {error}");
    }
}
