//! A store of raw sockets, for replies that no HTTP library would send.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bcbridge::bigcommerce::{ClientConfig, StoreClient};
use bcbridge::catalog::Catalog;
use bcbridge::model::request::{ApiPath, Method, Purpose, Request};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

pub(crate) const TOKEN: &str = "canary-token-9f8e7d";

/// What the store does once it has read a request.
pub(crate) enum Act {
    /// Writes these bytes and closes.
    Write(Vec<u8>),
    /// Waits, then writes and closes.
    Later(Duration, Vec<u8>),
    /// Writes byte by byte with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Never answers.
    Hang,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The store.
pub(crate) struct RawStore {
    pub(crate) base: Url,
    pub(crate) seen: Arc<Mutex<Vec<Arrived>>>,
    /// The most requests that were open at once.
    pub(crate) most_open: Arc<AtomicUsize>,
}

impl RawStore {
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let config = ClientConfig::new("abc123", SecretString::from(TOKEN), self.base.clone());
        ClientConfig { caps: Catalog::embedded().unwrap().caps().to_vec(), ..config }
    }

    pub(crate) fn client(&self) -> StoreClient {
        StoreClient::new(self.config()).unwrap()
    }
}

/// Starts a store that answers each request as the closure says.
pub(crate) async fn raw(act: impl Fn(&Arrived) -> Act + Send + Sync + 'static) -> RawStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let most_open = Arc::new(AtomicUsize::new(0));
    let store = RawStore { base, seen: Arc::clone(&seen), most_open: Arc::clone(&most_open) };
    let (act, open) = (Arc::new(act), Arc::new(AtomicUsize::new(0)));
    bcbridge::runtime::spawn("raw store", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (act, seen) = (Arc::clone(&act), Arc::clone(&seen));
            let (open, most_open) = (Arc::clone(&open), Arc::clone(&most_open));
            bcbridge::runtime::spawn("raw connection", async move {
                let mut stream = stream;
                let Some(arrived) = read(&mut stream).await else { return };
                most_open.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                seen.lock().unwrap().push(arrived.clone());
                let act = act(&arrived);
                answer(&mut stream, act, &open).await;
            });
        }
    });
    store
}

async fn answer(stream: &mut TcpStream, act: Act, open: &AtomicUsize) {
    let bytes = match act {
        Act::Write(bytes) => bytes,
        Act::Later(wait, bytes) => {
            tokio::time::sleep(wait).await;
            bytes
        }
        Act::Drip(bytes, pause) => {
            for byte in bytes {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            Vec::new()
        }
        // Until the client hangs up.
        Act::Hang => {
            let _ = stream.read(&mut [0; 64]).await;
            Vec::new()
        }
    };
    // The next request may follow at once, so this one must not count as open any more.
    open.fetch_sub(1, Ordering::SeqCst);
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Arrived> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse::<usize>().unwrap());
            if body.len() >= length {
                let mut words = head.split(' ');
                return Some(Arrived {
                    method: words.next()?.to_owned(),
                    path: words.next()?.to_owned(),
                    head: head.to_owned(),
                    body: body.to_owned(),
                });
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

/// A whole reply with JSON.
pub(crate) fn json(status: u16, headers: &str, body: &str) -> Vec<u8> {
    typed(status, &format!("content-type: application/json\r\n{headers}"), body)
}

/// A whole reply with the given header lines, each ended by CRLF.
pub(crate) fn typed(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

/// A request to a path without ids of the template's own.
pub(crate) fn request(method: Method, template: &str) -> Request {
    let body = matches!(method, Method::Post | Method::Put).then(|| r#"{"name":"x"}"#.into());
    Request {
        method,
        path: ApiPath::render(template, |_| Some("77")).unwrap(),
        query: Vec::new(),
        body,
        purpose: Purpose::Live,
    }
}

pub(crate) const PRODUCT: &str = "/v3/catalog/products/{product_id}";
