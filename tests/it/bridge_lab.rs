//! The whole bridge against the sandbox, on the built-in broker or, where `KAFKA_BOOTSTRAP_SERVERS` names it, on
//! Apache Kafka. Dropping the lab without [`Lab::stop`] fails nothing; stopping it checks that the bridge drained.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bcbridge::app::{App, Options};
use bcbridge::catalog::Catalog;
use bcbridge::config;
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::read_back::{End, ReadBack, read_back};
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::kafka::topics::Topics;
use bcbridge::model::record::{InRecord, OutRecord};
use bcbridge::runtime::{Drain, DrainTrigger};
use bcbridge::sandbox::{Control, Sandbox, SandboxConfig};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long anything may take that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// On a machine that runs the whole suite at once a callback may miss its 300 ms, and is sent again: after 3 s
/// here, where BigCommerce waits for 60.
pub(crate) const RETRIES_FASTER: f64 = 20.0;

/// What a lab is like.
pub(crate) struct Setup {
    pub(crate) sandbox: SandboxConfig,
    /// Entities with their further settings; empty means all.
    pub(crate) incoming: Vec<Value>,
    pub(crate) outgoing: Option<Value>,
    pub(crate) store: Value,
    /// Parts that the start does not wait for.
    pub(crate) not_ready: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        let sandbox =
            SandboxConfig { quota: 100_000, time_scale: RETRIES_FASTER, ..SandboxConfig::default() };
        Self { sandbox, incoming: Vec::new(), outgoing: None, store: json!({}), not_ready: &[] }
    }
}

/// A running bridge and its surroundings.
pub(crate) struct Lab {
    pub(crate) control: Control,
    pub(crate) client: ClientSettings,
    pub(crate) receiver: std::net::SocketAddr,
    pub(crate) console: std::net::SocketAddr,
    pub(crate) prefix: String,
    pub(crate) secret: String,
    sandbox: Sandbox,
    trigger: DrainTrigger,
    bridge: JoinHandle<anyhow::Result<()>>,
}

/// The settings of a bridge to a sandbox, as a user would write them. JSON is YAML.
pub(crate) fn settings(sandbox: &Sandbox, setup: &Setup, prefix: &str, servers: &str) -> Value {
    let mut store = json!({
        "name": "main",
        "store_hash": setup.sandbox.store_hash,
        "access_token": setup.sandbox.access_token,
        "client_secrets": [setup.sandbox.client_secret],
        "base_uri": sandbox.base_uri(),
    });
    for (name, value) in setup.store.as_object().into_iter().flatten() {
        store[name] = value.clone();
    }
    let mut settings = json!({
        "kafka": {
            "bootstrap_servers": servers,
            "prefix": prefix,
            "topics": { "partitions": 3, "replication_factor": 1 },
        },
        "receiver": { "listen": "127.0.0.1:0" },
        "console": { "listen": "127.0.0.1:0" },
        "stores": [store],
    });
    if !setup.incoming.is_empty() {
        settings["incoming"] = json!(setup.incoming);
    }
    if let Some(outgoing) = &setup.outgoing {
        settings["outgoing"] = outgoing.clone();
    }
    settings
}

impl Lab {
    pub(crate) async fn start(setup: Setup) -> Self {
        let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| "embedded".into());
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let sandbox = Sandbox::start(setup.sandbox.clone()).await.unwrap();
        let text = settings(&sandbox, &setup, &prefix, &servers).to_string();
        let catalog = Catalog::embedded().unwrap();
        let settings = config::load_str("lab", &text, &|_| None, &catalog).unwrap_or_else(|e| panic!("{e}"));
        let options = Options { callbacks_by_loopback: true, ..Options::default() };
        let app = App::start(Arc::new(settings), options).await.unwrap();
        let (receiver, console) = (app.receiver.unwrap(), app.console.unwrap());
        let (client, readiness) = (app.cluster.client.clone(), app.readiness.clone());
        let (trigger, drain) = Drain::switch();
        let bridge = bcbridge::runtime::spawn("bridge", async move {
            app.run(async move { drain.requested().await }).await
        });
        let lab = Self {
            control: sandbox.control(),
            client,
            receiver,
            console,
            prefix,
            secret: setup.sandbox.client_secret,
            sandbox,
            trigger,
            bridge,
        };
        let is_ready = || readiness.waiting_for().iter().all(|part| setup.not_ready.contains(part));
        until("the bridge is ready", || async { is_ready().then_some(()) }).await;
        lab
    }

    /// Stops the bridge, which must drain, and the sandbox.
    pub(crate) async fn stop(self) {
        self.trigger.request();
        self.bridge.await.unwrap().unwrap();
        self.sandbox.stop().await;
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.main.{name}", self.prefix)
    }

    /// Every committed record of a topic of the store.
    pub(crate) async fn records(&self, name: &str) -> Vec<InRecord> {
        read_topic(&self.client, &self.topic(name)).await
    }

    /// The last value of each key of an entity's topic; none is a tombstone.
    pub(crate) async fn last(&self, entity: &str) -> BTreeMap<String, Option<Value>> {
        self.records(entity).await.iter().map(last_value).collect()
    }

    /// The metrics, as Prometheus reads them.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.console).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.console);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    /// Puts commands on the topic: key and value.
    pub(crate) async fn send(&self, commands: &[(String, Value)]) {
        let producer = IntakeProducer::new(self.client.clone(), Duration::from_secs(10)).unwrap();
        let records = commands.iter().map(|(key, value)| self.command(key, value.to_string())).collect();
        producer.append(records, Duration::from_secs(30)).await.unwrap();
    }

    /// Puts commands on a topic of the user's own.
    pub(crate) async fn send_all_to(&self, topic: &str, commands: &[(String, Value)]) {
        let producer = IntakeProducer::new(self.client.clone(), Duration::from_secs(10)).unwrap();
        let record = |(key, value): &(String, Value)| OutRecord {
            topic: topic.into(),
            ..self.command(key, value.to_string())
        };
        producer.append(commands.iter().map(record).collect(), Duration::from_secs(30)).await.unwrap();
    }

    /// Puts one record on any topic.
    pub(crate) async fn send_to(&self, topic: &str, key: &str, value: impl Into<Bytes>) {
        let producer = IntakeProducer::new(self.client.clone(), Duration::from_secs(10)).unwrap();
        let record = OutRecord { topic: topic.into(), ..self.command(key, value) };
        producer.append(vec![record], Duration::from_secs(30)).await.unwrap();
    }

    /// Puts one record of any content on the command topic.
    pub(crate) async fn send_raw(&self, key: &str, value: impl Into<Bytes>) {
        let producer = IntakeProducer::new(self.client.clone(), Duration::from_secs(10)).unwrap();
        producer.append(vec![self.command(key, value)], Duration::from_secs(30)).await.unwrap();
    }

    fn command(&self, key: &str, value: impl Into<Bytes>) -> OutRecord {
        OutRecord {
            topic: self.topic("commands").into(),
            partition: None,
            key: Some(Bytes::from(key.to_owned())),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// The results by command id, once there are so many.
    pub(crate) async fn results(&self, count: usize) -> BTreeMap<String, Value> {
        until(&format!("{count} results"), || async {
            let results: Vec<Value> = self.records("results").await.iter().filter_map(json_of).collect();
            let by_id: BTreeMap<String, Value> =
                results.iter().map(|r| (r["id"].as_str().unwrap().to_owned(), r.clone())).collect();
            assert_eq!(by_id.len(), results.len(), "a command has two results");
            (by_id.len() >= count).then_some(by_id)
        })
        .await
    }
}

pub(crate) fn json_of(record: &InRecord) -> Option<Value> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}

fn last_value(record: &InRecord) -> (String, Option<Value>) {
    let key = String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap();
    (key, json_of(record))
}

/// Every committed record of a topic, in order per partition.
pub(crate) async fn read_topic(client: &ClientSettings, topic: &str) -> Vec<InRecord> {
    let partitions = Topics::new(client).unwrap().partitions_of(topic).await.unwrap();
    let records = Arc::new(Mutex::new(Vec::new()));
    let taken = records.clone();
    let what = ReadBack {
        topic: topic.into(),
        partitions: (0..partitions).collect(),
        end: End::Stable,
        deadline: PATIENCE,
    };
    read_back(client, what, move |record| taken.lock().unwrap().push(record)).await.unwrap();
    std::mem::take(&mut *records.lock().unwrap())
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The headers of a record, as its schema describes them.
pub(crate) fn headers(record: &InRecord) -> Value {
    let texts =
        record.headers.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into()));
    Value::Object(texts.collect())
}

/// The events that a record lists.
pub(crate) fn events(record: &InRecord) -> Vec<&str> {
    record.header("bc_events").unwrap().split(',').collect()
}
