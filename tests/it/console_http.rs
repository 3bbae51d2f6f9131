//! The console over real sockets: who gets what, and that nobody can hold it up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bcbridge::console::{Action, ActionError, Console, ConsoleConfig, ConsoleState};
use bcbridge::telemetry::{Metrics, Readiness};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const TOKEN: &str = "canary-0123456789abcdef0123456789";

/// What came back, as far as a test asks for it.
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

struct Harness {
    console: Console,
    metrics: Metrics,
    readiness: Readiness,
    /// Lets the action `slow` go on.
    go: Arc<Notify>,
}

impl Harness {
    async fn start(token: Option<&str>) -> Self {
        let (metrics, readiness, go) =
            (Metrics::new(["order"], ["main"], []), Readiness::new(), Arc::new(Notify::new()));
        let wait = Arc::clone(&go);
        let actions = BTreeMap::from([
            ("echo", Action::new(|body| async move { Ok(json!({ "got": body })) })),
            ("refuse", Action::new(|_| async { Err(ActionError::Refused("found 0; allowed is 1".into())) })),
            ("things", Action::new(|body| async move { Ok(json!({ "started": body })) })),
            ("things/list", Action::new(|_| async { Ok(json!(["a", "b"])) })),
            ("things/pause", Action::new(|body| async move { Ok(json!({ "paused": body["id"] })) })),
            ("panic", Action::new(|_| async { panic!("on purpose") })),
            (
                "slow",
                Action::new(move |_| {
                    let wait = Arc::clone(&wait);
                    async move {
                        wait.notified().await;
                        Ok(json!("done"))
                    }
                }),
            ),
        ]);
        let state = ConsoleState {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            status: Arc::new(|| json!({"stores": [{"name": "main"}]})),
            actions,
        };
        let token = token.map(|token| SecretString::from(token.to_owned()));
        let config = ConsoleConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), token };
        let console = Console::start(config, state).await.expect("a free port");
        Self { console, metrics, readiness, go }
    }

    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        ask(self.console.addr(), line, headers, body).await
    }

    async fn get(&self, path: &str, headers: &[&str]) -> Reply {
        self.ask(&format!("GET {path}"), headers, "").await
    }
}

pub(crate) async fn ask(addr: SocketAddr, line: &str, headers: &[&str], body: &str) -> Reply {
    let mut request = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|header| header.starts_with("host:")) {
        request.push_str(&format!("host: {addr}\r\n"));
    }
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(body);
    let mut stream = TcpStream::connect(addr).await.expect("the console listens");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("the console answers in UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn bearer() -> String {
    format!("authorization: Bearer {TOKEN}")
}

fn parsed(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap_or_else(|error| panic!("{error}: {}", reply.body))
}

#[tokio::test]
async fn health_tells_that_the_process_lives_and_readiness_names_what_is_missing() {
    let console = Harness::start(Some(TOKEN)).await;
    let (kafka, hooks) = (console.readiness.part("kafka"), console.readiness.part("hooks"));
    assert_eq!(console.get("/healthz", &[]).await.status, 200);
    hooks.ready();
    let reply = console.get("/readyz", &[]).await;
    assert_eq!(reply.status, 503);
    assert_eq!(parsed(&reply), json!({"ready": false, "waiting_for": ["kafka"]}));
    kafka.ready();
    let reply = console.get("/readyz", &[]).await;
    assert_eq!((reply.status, parsed(&reply)), (200, json!({"ready": true, "waiting_for": []})));
    assert_eq!(console.ask("HEAD /healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn metrics_are_the_text_that_prometheus_reads() {
    let console = Harness::start(None).await;
    console.metrics.hydrated("order", "u");
    let reply = console.get("/metrics", &[]).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        reply.head
    );
    assert!(
        reply.body.contains("bcbridge_hydrated_records_total{entity=\"order\",op=\"u\"} 1\n"),
        "{}",
        reply.body
    );
    assert!(reply.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn with_a_token_every_route_but_health_refuses_the_stranger_in_the_same_words() {
    let mut answers = Vec::new();
    for header in
        ["x-none: 1", "authorization: Bearer wrong", "authorization: Bearer ", "authorization: Basic eDp5"]
    {
        for line in [
            "GET /",
            "GET /metrics",
            "GET /api/status",
            "POST /api/echo",
            "GET /api/nothing",
            "DELETE /nowhere",
        ] {
            // A fresh console for each, since five failures within a second would make it answer 429.
            let console = Harness::start(Some(TOKEN)).await;
            let reply = console.ask(line, &[header], "").await;
            assert_eq!(reply.status, 401, "{line} {header}");
            answers.push(reply.body);
        }
    }
    assert!(answers.iter().all(|body| *body == answers[0]), "{answers:?}");
    assert!(!answers[0].contains("canary"));
}

#[tokio::test]
async fn with_the_token_each_route_gives_its_own() {
    let console = Harness::start(Some(TOKEN)).await;
    let token = bearer();
    let status = console.get("/api/status", &[&token]).await;
    assert_eq!((status.status, parsed(&status)), (200, json!({"stores": [{"name": "main"}]})));
    assert_eq!(console.get("/metrics", &[&token]).await.status, 200);
    assert_eq!(console.get("/", &[&token]).await.status, 200);
    assert_eq!(console.get("/nowhere", &[&token]).await.status, 404);
    assert_eq!(console.ask("POST /metrics", &[&token], "").await.status, 405);
    assert_eq!(console.ask("OPTIONS /api/status", &[&token], "").await.status, 405);
    for path in ["/", "/metrics", "/api/status", "/nowhere"] {
        let head = console.get(path, &[&token]).await.head;
        assert!(
            head.contains("cache-control: no-store") && head.contains("x-content-type-options: nosniff"),
            "{head}"
        );
        assert!(
            !head.contains("access-control") && !head.contains("server:") && !head.contains("set-cookie"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn without_a_token_metrics_and_page_are_open_on_loopback_and_the_api_is_off() {
    for token in [None, Some("")] {
        let console = Harness::start(token).await;
        for (path, status) in [("/metrics", 200), ("/", 200), ("/api/status", 401), ("/nowhere", 401)] {
            assert_eq!(console.get(path, &[]).await.status, status, "{path}");
        }
        assert_eq!(console.get("/api/status", &["authorization: Bearer "]).await.status, 401);
    }
}

#[tokio::test]
async fn a_browser_at_the_door_gets_the_page_without_data_and_nothing_else() {
    let console = Harness::start(Some(TOKEN)).await;
    let html = "accept: text/html,application/xhtml+xml";
    let door = console.get("/", &[html]).await;
    assert_eq!(door.status, 401);
    assert!(
        door.body.contains("id=\"door\"")
            && door.head.contains("content-security-policy: default-src 'none'")
    );
    assert_eq!(door.body, console.get("/", &[&bearer()]).await.body, "the page is the same for everyone");
    assert!(console.get("/api/status", &[html]).await.body.contains("unauthorized"));
}

#[tokio::test]
async fn foreign_hosts_and_foreign_sites_are_refused_with_the_token_too() {
    let console = Harness::start(Some(TOKEN)).await;
    let token = bearer();
    for header in [
        "host: evil.example.com",
        "host: 127.0.0.1.example.com",
        "origin: https://evil.example.com",
        "origin: null",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ] {
        let reply = console.get("/api/status", &[&token, header]).await;
        assert_eq!((reply.status, reply.body.as_str()), (403, "{\"error\":\"forbidden\"}\n"), "{header}");
    }
    let origin = format!("origin: http://{}", console.console.addr());
    assert_eq!(
        console.get("/api/status", &[&token, &origin, "sec-fetch-site: same-origin"]).await.status,
        200
    );
}

#[tokio::test]
async fn the_sixth_guess_within_a_second_is_told_to_wait() {
    let console = Harness::start(Some(TOKEN)).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(console.get("/metrics", &["authorization: Bearer guess"]).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    assert_eq!(console.get("/healthz", &[]).await.status, 200, "a prober does not suffer from it");
}

#[tokio::test]
async fn an_action_takes_json_only_and_its_refusal_is_told() {
    let console = Harness::start(Some(TOKEN)).await;
    let (token, json) = (bearer(), "content-type: application/json; charset=utf-8");
    let reply = console.ask("POST /api/echo", &[&token, json], r#"{"a":1}"#).await;
    assert_eq!((reply.status, parsed(&reply)), (200, json!({"got": {"a": 1}})));
    assert_eq!(console.ask("POST /api/echo", &[&token, "content-type: text/plain"], "{}").await.status, 415);
    assert_eq!(console.ask("POST /api/echo", &[&token], "{}").await.status, 415);
    assert_eq!(console.ask("POST /api/echo", &[&token, json], "{").await.status, 400);
    assert_eq!(console.ask("POST /api/unknown", &[&token, json], "{}").await.status, 404);
    assert_eq!(console.get("/api/echo", &[&token]).await.status, 405);
    assert_eq!(parsed(&console.get("/api/things", &[&token]).await), json!(["a", "b"]));
    assert_eq!(console.get("/api/things", &[]).await.status, 401);
    let headers = [token.as_str(), json];
    let one = |line, body| console.ask(line, &headers, body);
    assert_eq!(parsed(&one("POST /api/things/s-1/pause", "{}").await), json!({"paused": "s-1"}));
    assert_eq!(
        parsed(&one("POST /api/things/s-1/pause", r#"{"id":"other"}"#).await),
        json!({"paused": "s-1"})
    );
    assert_eq!(one("POST /api/things/s-1/pause", "[]").await.status, 400);
    assert_eq!(one("POST /api/things/s-1/burn", "{}").await.status, 404);
    assert_eq!(console.ask("POST /api/things/s-1/pause", &[&token], "{}").await.status, 415);
    assert_eq!(console.ask("POST /api/things/s-1/pause", &[json], "{}").await.status, 401);
    assert_eq!(console.get("/api/things/s-1/pause", &[&token]).await.status, 405);
    let refused = console.ask("POST /api/refuse", &[&token, json], "{}").await;
    assert_eq!((refused.status, parsed(&refused)), (422, json!({"error": "found 0; allowed is 1"})));
    let large = format!("\"{}\"", "x".repeat(64 * 1024));
    assert_eq!(console.ask("POST /api/echo", &[&token, json], &large).await.status, 413);
}

#[tokio::test]
async fn a_panic_costs_one_request_only() {
    let console = Harness::start(Some(TOKEN)).await;
    let (token, json) = (bearer(), "content-type: application/json");
    let reply = console.ask("POST /api/panic", &[&token, json], "{}").await;
    assert_eq!((reply.status, reply.body.as_str()), (500, "{\"error\":\"internal server error\"}\n"));
    assert_eq!(console.get("/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn a_peer_that_sends_no_whole_head_is_cut_off() {
    let console = Harness::start(None).await;
    let mut slow = TcpStream::connect(console.console.addr()).await.expect("the console listens");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: local").await.expect("half a head is sent");
    let cut =
        tokio::time::timeout(Duration::from_secs(10), read(&mut slow)).await.expect("the connection ends");
    assert!(matches!(cut.status, 0 | 408), "{}", cut.status);
    assert_eq!(console.get("/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn too_long_or_too_many_headers_are_refused() {
    let console = Harness::start(None).await;
    let long = format!("x-long: {}", "x".repeat(32 * 1024));
    assert!(matches!(console.get("/healthz", &[&long]).await.status, 0 | 400 | 431));
    let many: Vec<String> = (0..100).map(|number| format!("x-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(console.get("/healthz", &many).await.status, 431);
}

#[tokio::test]
async fn stopping_finishes_the_running_request_and_closes_the_port() {
    let harness = Harness::start(Some(TOKEN)).await;
    let (addr, go) = (harness.console.addr(), Arc::clone(&harness.go));
    let token = bearer();
    let mut running = TcpStream::connect(addr).await.expect("the console listens");
    let request = format!(
        "POST /api/slow HTTP/1.1\r\nhost: {addr}\r\n{token}\r\ncontent-type: application/json\r\n\
         content-length: 2\r\nexpect: 100-continue\r\n\r\n"
    );
    running.write_all(request.as_bytes()).await.expect("the head is sent");
    let mut told = [0; 25];
    // The console asks for the body when the handler runs, so the request is known to be under way.
    running.read_exact(&mut told).await.expect("the console asks for the body");
    assert!(told.starts_with(b"HTTP/1.1 100"));
    let stopping = harness.console.stop();
    let finishing = async {
        running.write_all(b"{}").await.expect("the body is sent");
        go.notify_one();
        read(&mut running).await
    };
    let ((), reply) = tokio::join!(stopping, finishing);
    assert_eq!((reply.status, reply.body.as_str()), (200, "\"done\"\n"));
    assert!(TcpStream::connect(addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let first = Harness::start(None).await;
    let state = ConsoleState {
        readiness: Readiness::new(),
        metrics: Metrics::new([], [], []),
        status: Arc::new(|| Value::Null),
        actions: BTreeMap::new(),
    };
    let config = ConsoleConfig { listen: first.console.addr(), token: None };
    let error = Console::start(config, state).await.expect_err("the address is taken");
    assert_eq!(error.to_string(), format!("could not listen on {}", first.console.addr()));
}
