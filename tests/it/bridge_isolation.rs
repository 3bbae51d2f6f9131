//! What is in trouble holds up nobody else: while one key's requests fail for ever, another key stands still and one
//! record in a hundred is poison, the other keys' results take at most twice as long as before, at their 99th
//! percentile. Both are measured in one run, since machines differ and are shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::tail::Tail;
use bcbridge::kafka::topics::{TopicSpec, Topics};
use bcbridge::model::record::OutRecord;
use bcbridge::sandbox::{Chance, Delay, Profile};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::bridge_lab::{Lab, Setup, until};
use crate::broker_lab::unique;

/// Healthy keys.
const KEYS: usize = 20;
/// Commands of healthy keys in a phase, and the pause between two: 12 seconds.
const COMMANDS: usize = 300;
const PACE: Duration = Duration::from_millis(40);
/// Milliseconds that the store takes for a reply, as over a real network.
const REPLY_MS: (u64, u64) = (80, 160);
/// A pause of the machine hits one phase and not the other: the best of so many tries counts.
const TRIES: usize = 3;

/// When each result came, by the command's id.
type Came = Arc<Mutex<HashMap<String, Instant>>>;

struct Bench {
    lab: Lab,
    producer: IntakeProducer,
    came: Came,
    reader: JoinHandle<()>,
    /// Topics of commands: one that goes on after a failure, and one that halts the key.
    topics: [String; 2],
    orders: Vec<u64>,
    dead: u64,
}

impl Bench {
    async fn start() -> Self {
        let topics = [unique("isolated"), unique("halting")];
        let outgoing = json!([
            { "topic": topics[0], "store": "main" },
            { "topic": topics[1], "store": "main", "on_failure": "halt-key" },
        ]);
        let setup = Setup {
            not_ready: &["outgoing"],
            outgoing: Some(outgoing),
            incoming: vec![json!({ "entity": "category" })],
            ..Setup::default()
        };
        let lab = Lab::start(setup).await;
        let spec = |name: &String| TopicSpec {
            name: name.clone(),
            partitions: 3,
            replication_factor: 1,
            config: Vec::new(),
        };
        Topics::new(&lab.client).unwrap().ensure(&topics.each_ref().map(spec)).await.unwrap();
        let order = |_| lab.control.place_order(2, &[1]).unwrap();
        let orders: Vec<u64> = (0..KEYS).map(order).collect();
        let dead = order(0);
        let path = format!("/v2/orders/{dead}");
        let status_500 = Chance::of(1.0).method("PUT").pattern(&path);
        let slow = Delay::between(REPLY_MS.0, REPLY_MS.1);
        lab.control.faults(Profile { slow, status_500, ..Profile::default() });
        let came = Came::default();
        let mut tail = Tail::from_start(&lab.client, vec![lab.topic("results")]).await.unwrap();
        let seen = came.clone();
        let reader = bcbridge::runtime::spawn("results", async move {
            while let Ok(record) = tail.next().await {
                let id = record.header("bc_command").unwrap_or_default().to_owned();
                seen.lock().unwrap().insert(id, Instant::now());
            }
        });
        let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
        Self { lab, producer, came, reader, topics, orders, dead }
    }

    async fn send(&self, topic: &str, key: &str, value: String) {
        let record = OutRecord {
            topic: topic.into(),
            partition: None,
            key: Some(Bytes::from(key.to_owned())),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        self.producer.append(vec![record], Duration::from_secs(30)).await.unwrap();
    }

    /// The 99th percentile of what healthy keys' commands took, from their acknowledgement to their result.
    async fn phase(&self, name: &str, has_trouble: bool) -> Duration {
        let mut sent = Vec::with_capacity(COMMANDS);
        let mut tick = tokio::time::interval(PACE);
        for number in 0..COMMANDS {
            tick.tick().await;
            if has_trouble {
                self.trouble(name, number).await;
            }
            let (id, key) = (format!("{name}-{number}"), number % KEYS);
            self.send(&self.topics[0], &format!("healthy-{key}"), note(&id, self.orders[key])).await;
            sent.push((id, Instant::now()));
        }
        let mut took: Vec<Duration> = until("all healthy results", || async {
            let came = self.came.lock().unwrap();
            let took = |(id, at): &(String, Instant)| Some(came.get(id)?.saturating_duration_since(*at));
            sent.iter().map(took).collect::<Option<Vec<_>>>()
        })
        .await;
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    /// A command of the key that is dead, and of the one that stands still, and poison.
    async fn trouble(&self, name: &str, number: usize) {
        let id = format!("{name}-trouble-{number}");
        if number.is_multiple_of(10) {
            self.send(&self.topics[0], "dead", note(&id, self.dead)).await;
        }
        if number % 10 == 5 {
            // The first is refused, since there is no such order, and halts the key.
            self.send(&self.topics[1], "halted", note(&id, 999_999)).await;
        }
        if number % 100 == 50 {
            self.send(&self.topics[0], "poison", "{poison".to_owned()).await;
        }
    }
}

/// An update of an order, which always is a request of its own.
fn note(id: &str, order: u64) -> String {
    let path = json!({ "order_id": order });
    let payload = json!({ "staff_notes": id });
    json!({ "id": id, "entity": "order", "action": "update", "path": path, "payload": payload }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_key_a_halted_one_and_poison_leave_the_others_within_twice_their_normal_time() {
    let bench = Bench::start().await;
    bench.phase("warm", false).await;
    let mut best = f64::INFINITY;
    for attempt in 0..TRIES {
        let normal = bench.phase(&format!("normal{attempt}"), false).await;
        let troubled = bench.phase(&format!("troubled{attempt}"), true).await;
        let ratio = troubled.as_secs_f64() / normal.as_secs_f64();
        println!("p99 {normal:?} without trouble, {troubled:?} with it: {ratio:.2}");
        best = best.min(ratio);
        if best <= 2.0 {
            break;
        }
    }
    assert!(best <= 2.0, "the others took {best:.2} times as long");
    // The trouble was there: nothing of the dead key ended well, the halted one waits, and poison is answered.
    let came = bench.came.lock().unwrap().keys().filter(|id| id.contains("-trouble-")).count();
    let metrics = bench.lab.metrics().await;
    assert_eq!(came, 1, "only the command that halted its key ended");
    assert!(metrics.contains("bcbridge_halted_keys{store=\"main\"} 1"), "{metrics}");
    let failed = bench.lab.control.requests().into_iter().filter(|request| request.status == 500).count();
    assert!(failed >= 3, "the dead key was tried {failed} times");
    let letters: Vec<Value> = bench.lab.records("dlq").await.iter().map(reason).collect();
    assert!(letters.contains(&json!("bad_json")), "{letters:?}");
    bench.reader.abort();
    bench.lab.stop().await;
}

fn reason(letter: &bcbridge::model::record::InRecord) -> Value {
    json!(letter.header("bc_dlq_reason"))
}
