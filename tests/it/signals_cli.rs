//! `snapshot` and `sync` on the command line, against a broker and somebody who answers as a bridge would.

use std::process::{Output, Stdio};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::tail::Tail;
use bcbridge::model::signal::{Ask, Kind, Notification, Signal};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::process::Command;

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
