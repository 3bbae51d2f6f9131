//! A receiver on a real socket, a clock that is set by hand, an intake that does as it is told, and a caller that
//! writes bytes. Shared by the `receiver_*` tests.

use bcbridge::receiver::{
    Delivery, Intake, NotDurable, Receiver, ReceiverConfig, ReceiverMetrics, SignaturePolicy, StoreAuth,
    Stores, verify,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "bc_client_secret_0123456789abcdef0123456789abcdef0123456789abcdef";
pub(crate) const NOW_S: i64 = 1_767_225_700;
pub(crate) const ORDER: &str = r#"{"producer":"stores/abc123","hash":"dd70c0976e06b67aaf671e73f49dcb79230ebf9d","created_at":1767225600,"store_id":"1025646","scope":"store/order/created","data":{"type":"order","id":250}}"#;

/// Longest wait for something that should come at once; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Recorder {
    deliveries: Mutex<Vec<Delivery>>,
    pub(crate) calls: AtomicUsize,
    mode: AtomicU8,
    pub(crate) entered: Notify,
    pub(crate) release: Notify,
}

/// What the intake does from now on.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Accept = 0,
    Refuse = 1,
    Panic = 2,
    /// Says that it was entered, and waits to be released.
    Hold = 3,
}

impl Recorder {
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }
}

impl Intake for Recorder {
    async fn append(&self, delivery: Delivery) -> Result<(), NotDurable> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.mode.load(Ordering::SeqCst) {
            1 => return Err(NotDurable { why: "the test says no".to_owned() }),
            2 => panic!("the test says panic"),
            3 => {
                self.entered.notify_one();
                self.release.notified().await;
            }
            _ => {}
        }
        self.deliveries.lock().unwrap().push(delivery);
        Ok(())
    }
}

pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    pub(crate) intake: Arc<Recorder>,
    pub(crate) metrics: ReceiverMetrics,
    pub(crate) stores: Stores,
    pub(crate) now_s: Arc<AtomicI64>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<()>,
}

pub(crate) fn store(name: &str, hash: &str) -> StoreAuth {
    StoreAuth {
        name: name.into(),
        store_hash: hash.to_owned(),
        store_id: None,
        secrets: vec![SECRET.into()],
        policy: SignaturePolicy::Required,
        headers: vec![],
        earlier_headers: Vec::new(),
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ReceiverConfig)) -> Self {
        let mut config = ReceiverConfig::new("127.0.0.1:0".parse().unwrap(), vec![store("main", "abc123")]);
        change(&mut config);
        let (intake, metrics) = (Arc::new(Recorder::default()), ReceiverMetrics::default());
        let now_s = Arc::new(AtomicI64::new(NOW_S));
        let now = now_s.clone();
        let now_ms = Arc::new(move || now.load(Ordering::SeqCst) * 1000);
        let receiver = Receiver::bind(config, intake.clone(), metrics.clone(), now_ms).await.unwrap();
        let (addr, stores) = (receiver.local_addr(), receiver.stores());
        let stop = CancellationToken::new();
        let served = bcbridge::runtime::spawn("receiver under test", receiver.serve(stop.clone()));
        Self { addr, intake, metrics, stores, now_s, stop, served }
    }

    pub(crate) async fn send(&self, request: &[u8]) -> Reply {
        let mut peer = Peer::connect(self.addr).await;
        peer.write(request).await;
        peer.reply().await.expect("an answer")
    }

    pub(crate) async fn status(&self, request: &[u8]) -> u16 {
        self.send(request).await.status
    }

    /// The receiver still takes a good callback.
    pub(crate) async fn assert_alive(&self) {
        self.intake.set(Mode::Accept);
        let id = format!("alive_{}", self.intake.calls.load(Ordering::SeqCst));
        assert_eq!(self.status(&Callback::new().id(&id).bytes()).await, 200);
    }

    /// The value of a metric without labels, as Prometheus would read it.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (mut page, mut registry) = (String::new(), prometheus_client::registry::Registry::default());
        self.metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the receiver stops").unwrap();
    }
}

/// A signed callback, to be bent out of shape.
#[derive(Clone)]
pub(crate) struct Callback {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) timestamp: i64,
    pub(crate) secret: String,
    pub(crate) body: Vec<u8>,
    pub(crate) extra: String,
}

impl Callback {
    pub(crate) fn new() -> Self {
        Self {
            path: "/webhooks/main".to_owned(),
            id: "msg_1".to_owned(),
            timestamp: NOW_S,
            secret: SECRET.to_owned(),
            body: ORDER.into(),
            extra: String::new(),
        }
    }

    pub(crate) fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.to_owned();
        self
    }

    /// Header lines, each with its CRLF.
    pub(crate) fn extra(mut self, lines: &str) -> Self {
        self.extra = lines.to_owned();
        self
    }

    pub(crate) fn signature(&self) -> String {
        verify::sign(self.secret.as_bytes(), &self.id, self.timestamp, &self.body)
    }

    pub(crate) fn headers(&self) -> String {
        format!(
            "webhook-id: {}\r\nwebhook-timestamp: {}\r\nwebhook-signature: {}\r\n",
            self.id,
            self.timestamp,
            self.signature()
        )
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        post(&self.path, &format!("{}{}", self.headers(), self.extra), &self.body)
    }
}

/// A POST with a content length; `lines` are header lines with their CRLF.
pub(crate) fn post(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: bridge.example.com\r\n{lines}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Writes; that the receiver hung up meanwhile is for the reader to find.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next final answer, or none if the connection ends first.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.take_reply() {
                if reply.status != 100 {
                    return Some(reply);
                }
                continue;
            }
            let mut chunk = [0; 4096];
            match tokio::time::timeout(PATIENCE, self.stream.read(&mut chunk))
                .await
                .expect("an answer in time")
            {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
            }
        }
    }

    fn take_reply(&mut self) -> Option<Reply> {
        let end = self.read.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let status: u16 = head[9..12].parse().unwrap();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse().unwrap());
        let body_end = end + length.unwrap_or(0);
        if self.read.len() < body_end {
            return None;
        }
        let body = self.read[end..body_end].to_vec();
        self.read.drain(..body_end);
        Some(Reply { status, head, body })
    }

    /// Waits for the receiver to hang up; says how long that took, and what else came.
    pub(crate) async fn closed(&mut self) -> (Duration, Vec<u8>) {
        let started = std::time::Instant::now();
        let mut chunk = [0; 4096];
        loop {
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut chunk));
            match read.await.expect("the receiver hangs up") {
                Ok(0) | Err(_) => return (started.elapsed(), std::mem::take(&mut self.read)),
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
            }
        }
    }
}
