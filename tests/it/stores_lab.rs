//! A bridge with several stores, each a sandbox of its own, whose settings can be changed while it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bcbridge::app::{App, Loader, Options, Reloader};
use bcbridge::catalog::Catalog;
use bcbridge::config::{self, Settings};
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::model::record::InRecord;
use bcbridge::receiver::verify::sign;
use bcbridge::runtime::{Drain, DrainTrigger, spawn};
use bcbridge::sandbox::{Control, Sandbox, SandboxConfig};
use bcbridge::telemetry::{Metrics, Readiness};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::bridge_lab::{RETRIES_FASTER, json_of, read_topic, until};

/// Times that a callback is sent while the broker is too slow for it.
const AGAIN: usize = 20;
const CONSOLE_TOKEN: &str = "canary-0123456789abcdef0123456789";

/// A store of its own.
pub(crate) struct Shop {
    pub(crate) name: &'static str,
    pub(crate) control: Control,
    pub(crate) config: SandboxConfig,
    sandbox: Sandbox,
}

impl Shop {
    pub(crate) async fn open(name: &'static str) -> Self {
        let config = SandboxConfig {
            store_hash: format!("hash{name}"),
            client_secret: format!("secret-of-{name}-0123456789abcdef0123456789"),
            access_token: format!("token-of-{name}"),
            quota: 100_000,
            time_scale: RETRIES_FASTER,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::start(config.clone()).await.unwrap();
        Self { name, control: sandbox.control(), config, sandbox }
    }

    /// Its entry under `stores`.
    pub(crate) fn entry(&self) -> Value {
        json!({
            "name": self.name,
            "store_hash": self.config.store_hash,
            "access_token": self.config.access_token,
            "client_secrets": [self.config.client_secret],
            "base_uri": self.sandbox.base_uri(),
        })
    }

    pub(crate) async fn close(self) {
        self.sandbox.stop().await;
    }

    /// A signed callback about a product, as this store would send it.
    pub(crate) fn callback(&self, event: &str, product: u64) -> Vec<u8> {
        self.signed(event, "store/product/updated", &json!({ "type": "product", "id": product }))
    }

    /// A signed callback of any scope.
    pub(crate) fn signed(&self, event: &str, scope: &str, data: &Value) -> Vec<u8> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let body = json!({
            "scope": scope, "store_id": self.config.store_id, "hash": "x", "created_at": now,
            "producer": format!("stores/{}", self.config.store_hash), "data": data,
        })
        .to_string();
        let signature = sign(self.config.client_secret.as_bytes(), event, now, body.as_bytes());
        format!(
            "POST /webhooks/{} HTTP/1.1\r\nhost: bridge\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\nwebhook-id: {event}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
            self.name,
            body.len()
        )
        .into_bytes()
    }
}

/// The bridge.
pub(crate) struct Bridge {
    /// The settings file.
    pub(crate) text: Arc<Mutex<Value>>,
    pub(crate) client: ClientSettings,
    pub(crate) receiver: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) reloader: Reloader,
    console: SocketAddr,
    prefix: String,
    trigger: DrainTrigger,
    bridge: JoinHandle<anyhow::Result<()>>,
}

fn load(text: &Value) -> Result<Settings, Vec<config::MistakeRow>> {
    let catalog = Catalog::embedded().unwrap();
    config::load_str("bcbridge.yaml", &text.to_string(), &|_| None, &catalog).map_err(|e| e.rows())
}

impl Bridge {
    /// Starts with these stores and waits until it is ready.
    pub(crate) async fn start(stores: &[Value]) -> Self {
        Self::start_with(stores, |_| {}).await
    }

    /// The same, with other settings.
    pub(crate) async fn start_with(stores: &[Value], change: impl FnOnce(&mut Value)) -> Self {
        let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| "embedded".into());
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let mut text = json!({
            "kafka": {
                "bootstrap_servers": servers, "prefix": prefix,
                "topics": { "partitions": 2, "replication_factor": 1 },
            },
            "receiver": { "listen": "127.0.0.1:0" },
            "console": { "listen": "127.0.0.1:0", "token": CONSOLE_TOKEN },
            "stores": stores,
            "incoming": [{ "entity": "product" }],
        });
        change(&mut text);
        let settings = load(&text).unwrap();
        let text = Arc::new(Mutex::new(text));
        let again = text.clone();
        let loader = Loader::new(move || load(&again.lock().unwrap()));
        let options = Options { callbacks_by_loopback: true, loader: Some(loader), ..Options::default() };
        let app = App::start(Arc::new(settings), options).await.unwrap();
        let (trigger, drain) = Drain::switch();
        let lab = Self {
            text,
            client: app.cluster.client.clone(),
            receiver: app.receiver.unwrap(),
            metrics: app.metrics.clone(),
            readiness: app.readiness.clone(),
            reloader: app.reloader.clone(),
            console: app.console.unwrap(),
            prefix,
            trigger,
            bridge: spawn("bridge", async move { app.run(async move { drain.requested().await }).await }),
        };
        until("the bridge is ready", || async { lab.readiness.waiting_for().is_empty().then_some(()) }).await;
        lab
    }

    /// Stops it; it must drain.
    pub(crate) async fn stop(self) {
        self.trigger.request();
        self.bridge.await.unwrap().unwrap();
    }

    /// Writes these stores into the settings file and asks the console to read it.
    pub(crate) async fn reload(&self, stores: &[Value]) -> (u16, Value) {
        self.text.lock().unwrap()["stores"] = json!(stores);
        self.post_reload().await
    }

    pub(crate) async fn post_reload(&self) -> (u16, Value) {
        let request = format!(
            "POST /api/reload HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {CONSOLE_TOKEN}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}",
            self.console
        );
        let (status, body) = ask(self.console, request.as_bytes()).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// What `GET /api/status` shows.
    pub(crate) async fn status(&self) -> Value {
        let request = format!(
            "GET /api/status HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {CONSOLE_TOKEN}\r\nconnection: close\r\n\r\n",
            self.console
        );
        serde_json::from_str(&ask(self.console, request.as_bytes()).await.1).unwrap()
    }

    /// Posts a callback to the receiver; the status of the answer. A broker that is busy for 300 ms is a 503, upon which
    /// the sender comes again with the same id, and so does this, some times.
    pub(crate) async fn post(&self, request: &[u8]) -> u16 {
        for _ in 0..AGAIN {
            let status = ask(self.receiver, request).await.0;
            if status != 503 {
                return status;
            }
        }
        503
    }

    /// The value of a metric's line.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics.encode();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    pub(crate) fn topic(&self, store: &str, name: &str) -> String {
        format!("{}.{store}.{name}", self.prefix)
    }

    /// The last value of each product on the store's topic.
    pub(crate) async fn products(&self, store: &str) -> BTreeMap<String, Value> {
        let records = read_topic(&self.client, &self.topic(store, "product")).await;
        let value = |record: &InRecord| {
            let key = String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap();
            Some((key, json_of(record)?))
        };
        records.iter().filter_map(value).collect()
    }

    /// Waits until a product of the store is on its topic as the store has it.
    pub(crate) async fn arrived(&self, shop: &Shop, product: u64) {
        let key = product.to_string();
        until(&format!("product {product} of {}", shop.name), || async {
            let found = self.products(shop.name).await.remove(&key)?;
            let state = shop.control.state("product").unwrap().remove(&key)?;
            (found["date_modified"] == state["date_modified"] && found["name"] == state["name"]).then_some(())
        })
        .await;
    }
}

/// Sends one request and gives status and body of the answer.
pub(crate) async fn ask(to: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
