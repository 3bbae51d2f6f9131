//! A runner in a few lines: it drives the path as the real one does, with time that is passed in. It fails the test
//! that drives it when a record is settled twice or never.

mod guarded;
mod mapped;
mod notes;
mod outdated;
mod refusals;
mod repeats;
mod simulation;
mod standing;
mod table;
mod waiting;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use serde_json::{Value, json};

use super::*;
use crate::model::record::OutRecord;
use crate::model::request::{Answer, Reply, Request};
use crate::runtime::ports::{LookUp, LookedUp, NotDurable, Recalled, Sought, Want};

const COMMANDS: &str = "bigcommerce.main.commands";
const RESULTS: &str = "bigcommerce.main.results";
const DLQ: &str = "bigcommerce.main.dlq";
const LEDGER: &str = "bigcommerce.main.ledger";

/// Read once: tests over all actions make a path for each.
static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| Arc::new(Catalog::embedded().unwrap()));

/// What a store says to a request, and the how-manieth it is.
type Answers = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// A store that answers by a function and keeps what it was sent.
struct FakeStore {
    sent: Mutex<Vec<Request>>,
    answer: Box<Answers>,
}

impl FakeStore {
    fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { sent: Mutex::default(), answer: Box::new(answer) })
    }

    /// Gives these replies, one after another; a request beyond them fails the test.
    fn scripted(replies: Vec<Reply>) -> Arc<Self> {
        let replies = Mutex::new(VecDeque::from(replies));
        Self::new(move |request, _| {
            replies.lock().unwrap().pop_front().unwrap_or_else(|| panic!("one request too many: {request:?}"))
        })
    }

    fn sent(&self) -> Vec<String> {
        let line = |r: &Request| {
            let query: Vec<String> = r.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
            let body =
                r.body.as_ref().map(|b| format!(" {}", String::from_utf8_lossy(b))).unwrap_or_default();
            format!("{} {}{query}{body}", r.method.as_str(), r.path.as_str())
        };
        self.sent.lock().unwrap().iter().map(line).collect()
    }
}

impl Store for FakeStore {
    async fn send(&self, request: Request) -> Reply {
        let number = {
            let mut sent = self.sent.lock().unwrap();
            sent.push(request.clone());
            sent.len()
        };
        (self.answer)(&request, number)
    }
}

/// A log that takes what it is given, unless it was told to fail. What a ledger is said to hold can be looked up in it.
#[derive(Default)]
struct FakeLog {
    records: Mutex<Vec<OutRecord>>,
    failures: Mutex<u32>,
    held: Mutex<BTreeMap<String, Option<Bytes>>>,
    /// What was looked up, all at once in each.
    looked_up: Mutex<Vec<Vec<String>>>,
    /// It never answers what is looked up.
    is_silent: Mutex<bool>,
}

impl LookUp for FakeLog {
    fn look_up(&self, sought: Vec<Sought>) -> Job<Vec<Option<LookedUp>>> {
        let is_away = std::mem::take(&mut *self.failures.lock().unwrap()) > 0;
        let held = self.held.lock().unwrap();
        let answer = |sought: &Sought| {
            assert_eq!((&*sought.partition.topic, sought.partition.number), (LEDGER, 1));
            Some(match held.get(&sought.key) {
                Some(Some(value)) if (sought.is_it)(value, sought.at_ms) => LookedUp::Found(value.clone()),
                Some(None) => LookedUp::Forgotten,
                _ => LookedUp::Nothing,
            })
        };
        let answers = sought.iter().map(|sought| answer(sought).filter(|_| !is_away)).collect();
        self.looked_up.lock().unwrap().push(sought.into_iter().map(|sought| sought.key).collect());
        if *self.is_silent.lock().unwrap() {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(answers))
    }
}

impl Append for FakeLog {
    async fn append(&self, records: Vec<OutRecord>) -> Result<(), NotDurable> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(NotDurable("no broker".into()));
        }
        self.records.lock().unwrap().extend(records);
        Ok(())
    }
}

fn reply(answer: Answer, status: u16, body: &str) -> Reply {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Reply { answer, status, body, request_id: Some(format!("r-{status}")), detail: format!("said {status}") }
}

fn done(body: &str) -> Reply {
    reply(Answer::Done, 200, body)
}

fn doubtful() -> Reply {
    reply(Answer::Doubtful, 503, "<html>busy</html>")
}

fn nothing() -> Reply {
    done(r#"{"data":[],"meta":{}}"#)
}

fn busy() -> Reply {
    reply(Answer::Busy { after: Duration::from_secs(2) }, 429, "")
}

fn topics() -> Topics {
    Topics { results: RESULTS.into(), dlq: DLQ.into(), ledger: LEDGER.into(), ledger_partitions: 2 }
}

fn route(store: &Arc<FakeStore>) -> Route<FakeStore> {
    Route {
        topic: COMMANDS.into(),
        store: "main".into(),
        client: store.clone(),
        topics: topics(),
        fixed: None,
        mapping: Mapping::default(),
        on_failure: OnFailure::Skip,
        stop_at: None,
        dry_run: false,
    }
}

fn outgoing(routes: Vec<Route<FakeStore>>, log: &Arc<FakeLog>) -> Outgoing<FakeStore, FakeLog> {
    let (catalog, limits) = (Arc::clone(&CATALOG), Limits::default());
    let config =
        OutgoingConfig { routes, catalog, limits, decisions: Decisions::default(), ledger: log.clone() };
    Outgoing::new(config, log.clone(), Arc::new(|| 1_000))
}

fn record(offset: i64, key: Option<&str>, value: Option<&[u8]>) -> InRecord {
    InRecord {
        position: Position { partition: Partition { topic: COMMANDS.into(), number: 3 }, offset },
        timestamp_ms: None,
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: value.map(Bytes::copy_from_slice),
        headers: Vec::new(),
    }
}

fn command(offset: i64, value: &Value) -> InRecord {
    record(offset, Some("k"), Some(value.to_string().as_bytes()))
}

/// Everything around one instance of the path.
struct Bench {
    path: Outgoing<FakeStore, FakeLog>,
    store: Arc<FakeStore>,
    log: Arc<FakeLog>,
    settled: Vec<Settled>,
    now: Instant,
}

impl Bench {
    fn new(store: Arc<FakeStore>) -> Self {
        let log = Arc::new(FakeLog::default());
        let path = outgoing(vec![route(&store)], &log);
        Self { path, store, log, settled: Vec::new(), now: Instant::now() }
    }

    fn accept(&mut self, record: InRecord) {
        let settled = self.path.accept(record, self.now);
        self.settled.extend(settled);
    }

    /// Runs all jobs, and lets time pass, until nothing is left to do. Returns how long it took.
    fn run(&mut self) -> Duration {
        let began = self.now;
        for _ in 0..100_000 {
            let jobs = self.path.start(self.now);
            if jobs.is_empty() {
                let Some(at) = self.path.wake_at() else { return self.now - began };
                self.now = self.now.max(at);
            }
            for job in jobs {
                let brought = block_on(job);
                let settled = self.path.finish(brought, self.now);
                self.settled.extend(settled);
            }
        }
        panic!("it goes round and round");
    }

    /// One command, from its record to its only result.
    fn apply(&mut self, value: &Value) -> Value {
        let before = self.settled.len();
        self.accept(command(7, value));
        self.run();
        assert_eq!(self.settled.len(), before + 1, "a command has one result");
        result(&self.settled[before])
    }

    fn crash(self) -> Self {
        let mut next = Self::new(self.store);
        let committed = self.settled.iter().flat_map(|settled| &settled.records);
        let ledger = ledger(self.log.records.lock().unwrap().iter().chain(committed));
        next.path.restore(&Partition { topic: COMMANDS.into(), number: 3 }, recalled(&next.log, ledger));
        next
    }
}

/// What is read back of a ledger. The rest can be looked up in it.
fn recalled(log: &FakeLog, ledger: BTreeMap<String, Bytes>) -> Recalled {
    let mut recalled = Recalled::default();
    for (key, value) in &ledger {
        match wanted(LEDGER, key, value, 1_000) {
            Want::Each => drop(recalled.values.insert(key.clone(), value.clone())),
            Want::Trace(trace) => recalled.traces.push(trace),
            other => panic!("{other:?} of {key}"),
        }
    }
    *log.held.lock().unwrap() = ledger.into_iter().map(|(key, value)| (key, Some(value))).collect();
    recalled
}

/// The last value of each key of the ledger.
fn ledger<'a>(records: impl Iterator<Item = &'a OutRecord>) -> BTreeMap<String, Bytes> {
    let mut values = BTreeMap::new();
    for record in records.filter(|record| &*record.topic == LEDGER) {
        assert_eq!(record.partition, Some(1), "partition 3 of the commands, of 2 of the ledger");
        let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
        match &record.value {
            Some(value) => values.insert(key, value.clone()),
            None => values.remove(&key),
        };
    }
    values
}

fn of_topic<'a>(settled: &'a Settled, topic: &str) -> Vec<&'a OutRecord> {
    settled.records.iter().filter(|record| &*record.topic == topic).collect()
}

/// The one result of a settlement.
fn result(settled: &Settled) -> Value {
    assert_eq!(settled.positions.len(), 1);
    let results = of_topic(settled, RESULTS);
    assert_eq!(results.len(), 1, "one result for one command");
    serde_json::from_slice(results[0].value.as_ref().unwrap()).unwrap()
}

fn header_of(record: &OutRecord, name: &str) -> Option<String> {
    record.headers.iter().find(|(n, _)| n == name).map(|(_, v)| String::from_utf8(v.to_vec()).unwrap())
}

fn update() -> Value {
    json!({"id": "c-1", "entity": "product", "action": "update", "path": {"product_id": 77}, "payload": {"name": "New"}})
}

/// Of class A as well, and always a request of its own.
fn note(order: i64) -> Value {
    json!({"id": "c-1", "entity": "order", "action": "update", "path": {"order_id": order}, "payload": {"staff_notes": "x"}})
}

fn create() -> Value {
    json!({"id": "c-1", "entity": "product", "action": "create", "payload": {"name": "New", "sku": "S-1"}})
}

fn shipment() -> Value {
    json!({"id": "c-1", "entity": "shipment", "action": "create", "path": {"order_id": 251}, "payload": {"items": []}})
}
