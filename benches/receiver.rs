//! How much of a bare handler's throughput the receiver keeps.
//!
//! Two servers in one process take the same signed callbacks and produce them to the same topic with equal settings:
//! the receiver, with the bridge's own producer, and an axum handler that only checks the signature and produces. Rounds alternate, so
//! that a slow minute of the machine hits both; what counts is the ratio of neighbouring rounds.
//!
//! The broker is the one named by `KAFKA_BOOTSTRAP_SERVERS`, else the built-in one. Run with `cargo bench --bench
//! receiver`; options after `--`: `--check` fails below a ratio of 0.8, `--seconds N` and `--rounds N` set the
//! length, `--connections N` the load, `--null` leaves Kafka out to show the HTTP side alone.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use bcbridge::catalog::Catalog;
use bcbridge::incoming::decode::{IntakeTopics, Received, intake_records};
use bcbridge::kafka::append::{IntakeProducer, MESSAGE_TIMEOUT};
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::receiver::{
    Delivery, Intake, NotDurable, Receiver, ReceiverConfig, ReceiverMetrics, SignaturePolicy, StoreAuth,
    verify,
};
use bcbridge::runtime::spawn;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const SECRET: &str = "bc_client_secret_of_the_bench_0123456789abcdef";
const BODY: &str = r#"{"producer":"stores/abc123","hash":"dd70c0976e06b67aaf671e73f49dcb79230ebf9d","created_at":1767225600,"store_id":"1025646","scope":"store/order/created","data":{"type":"order","id":250}}"#;
const TOPIC: &str = "bench-intake";
const KEY: &str = "order/250";

/// How long either server waits for the broker. Generous: an error here ends the bench.
const PATIENCE: Duration = Duration::from_secs(2);

/// Below this share of the bare handler's throughput, `--check` fails.
const LEAST_RATIO: f64 = 0.8;

struct Options {
    check: bool,
    null: bool,
    seconds: f64,
    rounds: usize,
    connections: usize,
}

/// Where the receiver puts a callback, as the bridge does: understood by the catalogue, with all headers, by the
/// bridge's own producer; or nowhere.
struct Ours {
    catalog: Catalog,
    topics: IntakeTopics,
    producer: Option<IntakeProducer>,
}

impl Ours {
    fn new(producer: Option<IntakeProducer>) -> Self {
        let catalog = Catalog::embedded().expect("the shipped rows are sound");
        Self { catalog, topics: IntakeTopics { intake: TOPIC.into(), dead_letters: TOPIC.into() }, producer }
    }
}

impl Intake for Ours {
    async fn append(&self, delivery: Delivery) -> Result<(), NotDurable> {
        let Some(producer) = &self.producer else { return Ok(()) };
        let received = Received {
            event_id: delivery.event_id,
            body: delivery.body,
            received_ms: delivery.received_ms,
            traceparent: delivery.traceparent,
        };
        let records = intake_records(&self.catalog, &self.topics, &received);
        let appended = producer.append(records, PATIENCE).await;
        appended.map_err(|error| NotDurable { why: error.to_string() })
    }
}

/// Where the bare handler puts a callback: a producer with the same settings, used plainly, or nowhere.
#[derive(Clone)]
struct Plain(Option<FutureProducer>);

impl Plain {
    async fn put(&self, body: &[u8]) -> Result<(), String> {
        let Some(producer) = &self.0 else { return Ok(()) };
        let record = FutureRecord::<str, [u8]>::to(TOPIC).key(KEY).payload(body);
        match producer.send(record, PATIENCE).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.to_string()),
        }
    }
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ratio = runtime.block_on(run(&options));
    println!("median ratio {ratio:.3} (receiver / bare handler)");
    if options.check && ratio < LEAST_RATIO {
        eprintln!("the receiver keeps less than {LEAST_RATIO} of the bare handler's throughput");
        std::process::exit(1);
    }
}

fn options() -> Options {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let number = |name: &str, default: f64| {
        let value = args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
        value.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    Options {
        check: has("--check"),
        null: has("--null"),
        seconds: number("--seconds", 4.0),
        rounds: number("--rounds", 5.0) as usize,
        connections: number("--connections", 32.0) as usize,
    }
}

async fn run(options: &Options) -> f64 {
    let broker = Broker::start(options.null).await;
    broker.make_topic().await;
    let stop = CancellationToken::new();
    let bare = start_bare(broker.plain(), &stop).await;
    let receiver = start_receiver(broker.ours(), &stop).await;
    // Both warm up: connections to the broker, topic metadata, caches.
    let mut serial = 0;
    for addr in [receiver, bare] {
        round(addr, options.connections, Duration::from_secs(1), &mut serial).await;
    }
    let length = Duration::from_secs_f64(options.seconds);
    let mut ratios = Vec::new();
    for number in 1..=options.rounds {
        // The order turns about, so that neither always goes first.
        let addrs = if number % 2 == 0 { [receiver, bare] } else { [bare, receiver] };
        let first = round(addrs[0], options.connections, length, &mut serial).await;
        let second = round(addrs[1], options.connections, length, &mut serial).await;
        let (ours, theirs) = if number % 2 == 0 { (first, second) } else { (second, first) };
        let ratio = ours.per_second / theirs.per_second;
        println!("round {number}: receiver {ours}, bare handler {theirs}, ratio {ratio:.3}");
        ratios.push(ratio);
    }
    stop.cancel();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The broker, if there is one, and how to reach it.
struct Broker {
    #[cfg(feature = "embedded")]
    _embedded: Option<bcbridge::embedded::EmbeddedBroker>,
    servers: Option<String>,
}

impl Broker {
    #[cfg(feature = "embedded")]
    async fn start(null: bool) -> Self {
        let named = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|servers| !servers.is_empty());
        if null || named.is_some() {
            println!("broker: {}", if null { "none" } else { "the one named by KAFKA_BOOTSTRAP_SERVERS" });
            return Self { _embedded: None, servers: named.filter(|_| !null) };
        }
        let local = "127.0.0.1:0".parse().expect("an address");
        let embedded = bcbridge::embedded::start(local, None).await.expect("the built-in broker starts");
        println!("broker: built in");
        let servers = Some(embedded.bootstrap_servers());
        Self { _embedded: Some(embedded), servers }
    }

    #[cfg(not(feature = "embedded"))]
    async fn start(null: bool) -> Self {
        let named = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|_| !null);
        assert!(null || named.is_some(), "without the built-in broker, set KAFKA_BOOTSTRAP_SERVERS");
        Self { servers: named }
    }

    /// Makes the topic, six partitions as the bridge's own; one that is there already will do.
    async fn make_topic(&self) {
        let Some(servers) = &self.servers else { return };
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", servers).create().expect("a client");
        let topic = NewTopic::new(TOPIC, 6, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("the broker answers");
        println!("topic: {made:?}");
    }

    fn ours(&self) -> Ours {
        Ours::new(self.servers.as_ref().map(|servers| {
            let settings = ClientSettings::new(servers, BTreeMap::new()).expect("good settings");
            IntakeProducer::new(settings, PATIENCE).expect("a producer")
        }))
    }

    /// The settings are those of [`IntakeProducer`].
    fn plain(&self) -> Plain {
        let Some(servers) = &self.servers else { return Plain(None) };
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string())
            .create()
            .expect("a producer");
        Plain(Some(producer))
    }
}

async fn start_receiver(sink: Ours, stop: &CancellationToken) -> SocketAddr {
    let store = StoreAuth {
        name: "main".into(),
        store_hash: "abc123".to_owned(),
        store_id: None,
        secrets: vec![SECRET.into()],
        policy: SignaturePolicy::Required,
        headers: vec![],
        earlier_headers: Vec::new(),
    };
    let mut config = ReceiverConfig::new("127.0.0.1:0".parse().expect("an address"), vec![store]);
    // All load comes from one address.
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address block")];
    let now_ms = Arc::new(|| now_s() * 1000);
    let receiver = Receiver::bind(config, sink, ReceiverMetrics::default(), now_ms).await.expect("a port");
    let addr = receiver.local_addr();
    spawn("receiver", receiver.serve(stop.clone()));
    addr
}

/// The least that a correct handler does: one header each, HMAC, constant-time compare, produce, answer.
async fn start_bare(sink: Plain, stop: &CancellationToken) -> SocketAddr {
    let key = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    let app = Router::new().route("/webhooks/main", post(bare)).with_state((key, sink));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let stop = stop.clone();
    let serve = axum::serve(axum::serve::ListenerExt::tap_io(listener, |io| drop(io.set_nodelay(true))), app);
    spawn("bare handler", async move { serve.with_graceful_shutdown(stop.cancelled_owned()).await });
    addr
}

async fn bare(
    State((key, sink)): State<(Hmac<Sha256>, Plain)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers.get(name).map_or(b"".as_slice(), |value| value.as_bytes());
    let mut mac = key;
    for part in [header("webhook-id"), b".", header("webhook-timestamp"), b".", &body] {
        mac.update(part);
    }
    let signature = header("webhook-signature").strip_prefix(b"v1,").unwrap_or_default();
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap_or_default();
    if mac.verify_slice(&signature).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    match sink.put(&body).await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// What one round measured. The processor time is that of the whole process, load and built-in broker included: it
/// is the same for both servers, and unlike the throughput it does not suffer from a busy machine.
struct Measured {
    per_second: f64,
    cpu_us_each: f64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:7.0}/s {:5.1} us cpu", self.per_second, self.cpu_us_each)
    }
}

/// User and system time of this process so far, in seconds; zero where there is no /proc.
fn cpu_seconds() -> f64 {
    // Fields 14 and 15, counted from the state that follows the name in brackets; ticks are hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Callbacks answered 200, over `connections` kept alive. Requests are signed before the clock starts.
async fn round(addr: SocketAddr, connections: usize, length: Duration, serial: &mut u64) -> Measured {
    // More than can be answered: 60,000 a second in all.
    let share = (60_000.0 * length.as_secs_f64()) as u64 / connections as u64 + 1;
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let requests: Vec<Vec<u8>> = (*serial..*serial + share).map(signed).collect();
        *serial += share;
        tasks.push((TcpStream::connect(addr).await.expect("a connection"), requests));
    }
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let until = started + length;
    let running: Vec<_> =
        tasks.into_iter().map(|(stream, requests)| spawn("load", load(stream, requests, until))).collect();
    let mut answered = 0;
    for task in running {
        answered += task.await.expect("the load runs");
    }
    Measured {
        per_second: answered as f64 / started.elapsed().as_secs_f64(),
        cpu_us_each: (cpu_seconds() - cpu) * 1e6 / answered as f64,
    }
}

async fn load(mut stream: TcpStream, requests: Vec<Vec<u8>>, until: Instant) -> u64 {
    stream.set_nodelay(true).expect("a socket option");
    let mut answered = 0;
    let mut answer = [0; 1024];
    for request in requests {
        if Instant::now() >= until {
            break;
        }
        stream.write_all(&request).await.expect("the request goes out");
        let mut read = 0;
        while !answer[..read].ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut answer[read..]).await.expect("the answer comes in");
            assert!(n > 0, "the server hung up after {:?}", String::from_utf8_lossy(&answer[..read]));
            read += n;
        }
        // A refused callback is cheap; a round with one would measure nothing.
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..read]));
        answered += 1;
    }
    answered
}

fn signed(serial: u64) -> Vec<u8> {
    let (id, now) = (format!("msg_{serial:012}"), now_s());
    let signature = verify::sign(SECRET.as_bytes(), &id, now, BODY.as_bytes());
    format!(
        "POST /webhooks/main HTTP/1.1\r\nhost: bridge.example.com\r\naccept: */*\r\ncontent-type: application/json\r\n\
         user-agent: bench\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\
         content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

fn now_s() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    i64::try_from(since.as_secs()).expect("a year before 292 billion")
}
