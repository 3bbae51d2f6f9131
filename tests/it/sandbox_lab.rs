//! What the sandbox's tests share: a client with the token, and a receiver of callbacks whose answer can be set.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bcbridge::sandbox::{Control, Sandbox, SandboxConfig};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A sandbox with a client that knows its token.
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    pub(crate) control: Control,
    pub(crate) client: reqwest::Client,
    pub(crate) token: String,
    pub(crate) secret: String,
    pub(crate) api: String,
}

/// An answer with its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Lab {
    /// A small store with room for any number of requests, changed by `with`.
    pub(crate) async fn start(with: impl FnOnce(&mut SandboxConfig)) -> Lab {
        let mut config = SandboxConfig {
            products: 40,
            categories: 8,
            customers: 12,
            orders: 26,
            quota: 1_000_000,
            ..SandboxConfig::default()
        };
        with(&mut config);
        let (token, secret) = (config.access_token.clone(), config.client_secret.clone());
        let hash = config.store_hash.clone();
        let sandbox = Sandbox::start(config).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let api = format!("{}/stores/{hash}", sandbox.base_uri());
        Lab { control: sandbox.control(), sandbox, client, token, secret, api }
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request =
            self.client.request(method, format!("{}{path}", self.api)).header("x-auth-token", &self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Ok(Answer { status, headers, body })
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_send(method, path, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// Registers a hook and expects it to be accepted.
    pub(crate) async fn hook(&self, scope: &str, destination: &str) -> u64 {
        let body = json!({"scope": scope, "destination": destination, "is_active": true, "headers": {"x-secret": "shared"}});
        let answer = self.send("POST", "/v3/hooks", Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["data"]["id"].as_u64().unwrap()
    }
}

/// A callback as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Callback {
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Inbox {
    callbacks: Mutex<Vec<Callback>>,
    answer: AtomicU16,
    arrived: Notify,
}

/// A listener that takes callbacks.
#[derive(Clone)]
pub(crate) struct Receiver {
    inbox: Arc<Inbox>,
    pub(crate) url: String,
}

impl Receiver {
    pub(crate) async fn start(status: u16) -> Receiver {
        let inbox = Arc::new(Inbox::default());
        inbox.answer.store(status, Ordering::SeqCst);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(take).with_state(Arc::clone(&inbox));
        bcbridge::runtime::spawn("test-receiver", async move { axum::serve(listener, app).await.unwrap() });
        Receiver { inbox, url }
    }

    pub(crate) fn answer_with(&self, status: u16) {
        self.inbox.answer.store(status, Ordering::SeqCst);
    }

    pub(crate) fn callbacks(&self) -> Vec<Callback> {
        self.inbox.callbacks.lock().unwrap().clone()
    }

    pub(crate) fn scopes(&self) -> Vec<String> {
        self.callbacks().iter().map(|callback| callback.body["scope"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until `count` callbacks have arrived.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Callback> {
        let waiting = async {
            loop {
                let arrived = self.inbox.arrived.notified();
                let callbacks = self.callbacks();
                if callbacks.len() >= count {
                    return callbacks;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("callbacks arrive")
    }
}

async fn take(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, raw: Bytes) -> StatusCode {
    let body = serde_json::from_slice(&raw).unwrap();
    inbox.callbacks.lock().unwrap().push(Callback { headers, raw, body });
    inbox.arrived.notify_waiters();
    StatusCode::from_u16(inbox.answer.load(Ordering::SeqCst)).unwrap()
}
