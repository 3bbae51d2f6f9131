//! Wrong input to a running bridge: each gets its answer, the process stays up, and nothing is lost.

use std::time::Duration;

use bcbridge::receiver::verify::sign;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bridge_lab::{Lab, Setup, until};

/// Times that a callback is sent while the broker is too slow for it.
const AGAIN: usize = 20;

/// Sends bytes to the receiver and gives the status of the answer; 0 when the connection was closed without one.
async fn raw(lab: &Lab, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(lab.receiver).await.unwrap();
    // The answer may come, and the connection be closed, before everything was written.
    let _ = stream.write_all(request).await;
    let mut answer = vec![0; 64];
    let read =
        tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await.unwrap().unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The answer to an authentic callback. A broker that is busy for 300 ms is a 503, upon which the sender comes again with
/// the same id; so does this, and takes no other refusal for one.
async fn answered(lab: &Lab, id: &str, body: &[u8]) -> u16 {
    let request = signed(&lab.secret, "/webhooks/main", id, body);
    for _ in 0..AGAIN {
        match raw(lab, &request).await {
            503 => continue,
            status => return status,
        }
    }
    503
}

/// A request with this body, signed for `secret`.
fn signed(secret: &str, path: &str, id: &str, body: &[u8]) -> Vec<u8> {
    let now =
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
            .unwrap();
    let signature = sign(secret.as_bytes(), id, now, body);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bridge\r\ncontent-type: application/json\r\ncontent-length: {}\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn callback(scope: &str, data: Value) -> Vec<u8> {
    json!({ "scope": scope, "store_id": "1025646", "data": data, "hash": "x", "created_at": 1_767_225_600, "producer": "stores/sandbox1" })
        .to_string()
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gets_its_documented_answer_and_good_callbacks_still_flow() {
    let lab = Lab::start(Setup::default()).await;
    let good = callback("store/product/updated", json!({ "type": "product", "id": 7 }));
    let main = "/webhooks/main";
    assert_eq!(raw(&lab, &signed("wrong secret", main, "msg_1", &good)).await, 401, "bad signature");
    assert_eq!(
        raw(&lab, &signed(&lab.secret, "/webhooks/other", "msg_2", &good)).await,
        404,
        "unknown store"
    );
    let elsewhere = String::from_utf8(good.clone()).unwrap().replace("sandbox1", "another1").into_bytes();
    assert_eq!(
        raw(&lab, &signed(&lab.secret, main, "msg_3", &elsewhere)).await,
        401,
        "another store's callback"
    );
    assert_eq!(raw(&lab, &signed(&lab.secret, main, "msg_4", &vec![b'x'; 1 << 20])).await, 413, "1 MB body");
    assert_eq!(raw(&lab, b"GET /webhooks/main HTTP/1.1\r\nhost: x\r\n\r\n").await, 405, "wrong method");
    assert!(
        matches!(raw(&lab, b"POST /webhooks/main HTTP/1.1\r\nhost: x\r\ncontent-le").await, 0 | 408),
        "half a head"
    );
    for (id, body) in [
        ("msg_5", b"{\"bad\": json".to_vec()),
        ("msg_6", callback("store/unheard/of", json!({ "id": 1 }))),
        ("msg_7", callback("store/product/updated", json!({ "id": "" }))),
    ] {
        assert_eq!(answered(&lab, id, &body).await, 200, "{id} is authentic");
    }
    assert_eq!(answered(&lab, "msg_8", &good).await, 200, "a good one");
    let letters = until("three quarantined callbacks", || async {
        let letters = lab.records("dlq").await;
        (letters.len() == 3).then_some(letters)
    })
    .await;
    assert!(letters.iter().all(|letter| letter.header("bc_dlq_reason") == Some("quarantined")));
    let record = until("product 7", || async { lab.records("product").await.pop() }).await;
    assert_eq!(record.header("bc_events"), Some("msg_8"));
    assert_eq!(lab.records("webhooks").await.len(), 1, "nothing that was refused is stored");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_tells_health_readiness_and_metrics() {
    let lab = Lab::start(Setup::default()).await;
    lab.control.update("product", 7, json!({ "name": "Seven" })).unwrap();
    until("product 7", || async { lab.last("product").await.remove("7").flatten() }).await;
    lab.send_raw("k", "no command").await;
    lab.results(1).await;
    let get = |path: &'static str| async move {
        let mut stream = TcpStream::connect(lab.console).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for path in ["/healthz", "/readyz"] {
        assert!(get(path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    let metrics = get("/metrics").await;
    for wanted in [
        "bcbridge_hydrated_records_total{entity=\"product\",op=\"u\"} 1",
        "bcbridge_commands_total{outcome=\"rejected\"} 1",
        "bcbridge_dead_letters_total{reason=\"bad_json\"} 1",
        "bcbridge_receiver_requests_total",
        "bcbridge_transactions_total{result=\"committed\"}",
        "bcbridge_hooks{store=\"main\",state=\"active\"}",
        "bcbridge_api_requests_total{store=\"main\",status=\"2xx\"}",
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in\n{metrics}");
    }
    assert!(!metrics.contains(&lab.secret));
    lab.stop().await;
}

/// A proxy on the same machine is one address for all callbacks: it may open more connections than a stranger, and
/// silent ones do not keep good callbacks out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_silent_connections_do_not_keep_a_good_callback_out() {
    let lab = Lab::start(Setup::default()).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(lab.receiver).await.unwrap());
    }
    let good = callback("store/product/updated", json!({ "type": "product", "id": 7 }));
    assert_eq!(answered(&lab, "msg_1", &good).await, 200);
    drop(silent);
    lab.stop().await;
}
