//! A store, its topics and a ledger in memory, and a loop that drives the stage as the runner does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::catalog::{Catalog, Keyset, List, Pages, Since};
use crate::incoming::stage::testing::settings;
use crate::model::record::Position;
use crate::model::request::{Answer, Reply, Request};
use crate::scheduler::plan::{Entry, StorePlan};
use crate::scheduler::ports::Take;
use crate::scheduler::scan::Kind;
use crate::scheduler::schedule::{Poll, Sweep};

/// A store of things with rising ids, each with the second in which it changed.
#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) things: Mutex<BTreeMap<u64, i64>>,
    pub(crate) calls: Mutex<Vec<String>>,
    /// What the next calls are answered instead.
    pub(crate) troubles: Mutex<Vec<Answer>>,
    /// Rows come without their ids.
    pub(crate) nameless: AtomicBool,
}

impl Store for FakeStore {
    async fn send(&self, request: Request) -> Reply {
        let get = |name: &str| request.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let query: Vec<String> = request.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.calls.lock().unwrap().push(format!("{}?{}", request.path.as_str(), query.join("&")));
        let reply = |answer, status, body: String| Reply {
            answer,
            status,
            body: body.into(),
            request_id: None,
            detail: "as told".into(),
        };
        if let Some(answer) = self.troubles.lock().unwrap().pop() {
            return reply(answer, 403, String::new());
        }
        let limit: usize = get("limit").unwrap().parse().unwrap();
        let from: u64 = get("id:min").unwrap().parse().unwrap();
        let since = get("date_modified:min").map(|at| at.parse::<jiff::Timestamp>().unwrap().as_second());
        let things = self.things.lock().unwrap();
        let fits = |changed: i64| since.is_none_or(|since| changed >= since);
        let rows = things.range(from..).filter(|(_, changed)| fits(**changed));
        let total = rows.clone().count();
        let name = if self.nameless.load(Ordering::Relaxed) { "number" } else { "id" };
        let rows: Vec<Value> =
            rows.take(limit).map(|(id, at)| json!({ name: id, "name": "x", "at": at })).collect();
        let pages = total.div_ceil(limit).max(1);
        let pagination =
            json!({ "total": total, "per_page": limit, "current_page": 1, "total_pages": pages });
        reply(Answer::Done, 200, json!({ "data": rows, "meta": { "pagination": pagination } }).to_string())
    }
}

/// The topics: what was committed, and a backlog that tests set.
#[derive(Default)]
pub(crate) struct FakeTopics {
    pub(crate) backlog: Mutex<u64>,
    pub(crate) ledger: Mutex<BTreeMap<String, Bytes>>,
}

impl Topics for FakeTopics {
    async fn backlog(&self, _store: &str) -> Result<u64, String> {
        Ok(*self.backlog.lock().unwrap())
    }

    async fn notes(&self, _store: &str, mut take: Take) -> Result<(), String> {
        for (key, value) in &*self.ledger.lock().unwrap() {
            take(key, Some(value));
        }
        Ok(())
    }
}

/// Tells of a gap, once.
#[derive(Default)]
pub(crate) struct FakeUpkeep(pub(crate) Mutex<Vec<crate::scheduler::ports::Gap>>);

impl Upkeep for FakeUpkeep {
    async fn look(&self, _store: Arc<str>, state: Option<Bytes>) -> Looked {
        let looks = state.map_or(0, |state| serde_json::from_slice::<u64>(&state).unwrap());
        let gaps = std::mem::take(&mut *self.0.lock().unwrap());
        Looked { state: (looks + 1).to_string().into(), gaps, next_look: Duration::from_secs(300) }
    }
}

struct NoMeter;

impl Meter for NoMeter {
    fn page(&self, _: &str, _: &str, _: Kind, _: usize) {}
    fn done(&self, _: &str, _: &str, _: Kind, _: (i64, i64)) {}
    fn failed(&self, _: &str, _: &str, _: Kind, _: bool) {}
    fn running(&self, _: &str, _: usize) {}
    fn signal(&self, _: bool) {}
}

type Stage0 = Scheduler<FakeStore, FakeTopics, FakeUpkeep>;

/// The world around one leader after another.
pub(crate) struct World {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) topics: Arc<FakeTopics>,
    pub(crate) upkeep: Arc<FakeUpkeep>,
    /// Everything that was committed besides the ledger.
    pub(crate) out: Vec<OutRecord>,
    wall_ms: Arc<Mutex<i64>>,
    pub(crate) now: Instant,
    schedule: (Option<Poll>, Option<Sweep>),
    pub(crate) stage: Stage0,
    offset: i64,
}

pub(crate) const START_MS: i64 = 1_767_225_600_000;

impl World {
    pub(crate) fn new(poll: Option<Poll>, sweep: Option<Sweep>) -> Self {
        let (store, topics, upkeep) = <(Arc<FakeStore>, Arc<FakeTopics>, Arc<FakeUpkeep>)>::default();
        let wall_ms = Arc::new(Mutex::new(START_MS));
        let stage = make((&store, &topics, &upkeep), &wall_ms, (poll, sweep));
        let mut world = Self {
            store,
            topics,
            upkeep,
            out: Vec::new(),
            wall_ms,
            now: Instant::now(),
            schedule: (poll, sweep),
            stage,
            offset: 0,
        };
        world.lead();
        world
    }

    fn lead(&mut self) {
        let ledger = self.topics.ledger.lock().unwrap().clone();
        let ours = |(key, _): &(String, Bytes)| key.starts_with("scan/") || key.starts_with("hooks/");
        let partition = Partition { topic: "signals".into(), number: 0 };
        let ledger: BTreeMap<String, Bytes> = ledger.into_iter().filter(ours).collect();
        self.stage.restore(&partition, ledger.into());
    }

    /// The leader dies; another one takes over.
    pub(crate) fn replace_leader(&mut self) {
        self.stage = make((&self.store, &self.topics, &self.upkeep), &self.wall_ms, self.schedule);
        self.lead();
    }

    /// One round: what may start runs to its end, and is committed. Whether anything ran.
    pub(crate) async fn round(&mut self) -> bool {
        let jobs = self.stage.start(self.now);
        let ran = !jobs.is_empty();
        for job in jobs {
            let done = job.await;
            for settled in self.stage.finish(done, self.now) {
                assert_is_told_apart(&settled, &self.topics.ledger.lock().unwrap());
                self.commit(settled);
            }
        }
        ran
    }

    /// Rounds, until there is nothing to do now.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..5_000 {
            if !self.round().await {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets time pass, second by second, with all that is due.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            self.settle().await;
            let wake = self.stage.wake_at().map_or(left, |at| at.saturating_duration_since(self.now));
            let step = wake.clamp(Duration::from_millis(10), left);
            self.now += step;
            *self.wall_ms.lock().unwrap() += i64::try_from(step.as_millis()).unwrap().max(1);
            left -= step;
        }
        self.settle().await;
    }

    pub(crate) fn signal(&mut self, value: &Value) {
        let position =
            Position { partition: Partition { topic: "signals".into(), number: 0 }, offset: self.offset };
        self.offset += 1;
        let value = Some(Bytes::from(value.to_string()));
        let record = InRecord { position, timestamp_ms: None, key: None, value, headers: Vec::new() };
        for settled in self.stage.accept(record, self.now) {
            self.commit(settled);
        }
    }

    fn commit(&mut self, settled: Settled) {
        let mut ledger = self.topics.ledger.lock().unwrap();
        for record in settled.records {
            if &*record.topic != "ledger" {
                self.out.push(record);
                continue;
            }
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            match record.value {
                Some(value) => ledger.insert(key, value),
                None => ledger.remove(&key),
            };
        }
    }

    /// What the incoming path does with the hints so far: everything is published.
    pub(crate) fn publish(&mut self) {
        let mut ledger = self.topics.ledger.lock().unwrap();
        for id in self.hinted() {
            ledger.insert(format!("read/product/{id}"), Bytes::from_static(b"{}"));
        }
    }

    pub(crate) fn hints(&self) -> Vec<crate::model::hint::Hint> {
        let is_hint = |record: &&OutRecord| &*record.topic == "intake";
        self.out.iter().filter(is_hint).map(hint_of).collect()
    }

    pub(crate) fn hinted(&self) -> BTreeSet<u64> {
        self.hints().iter().map(|hint| hint.trigger.key.id.as_str().parse().unwrap()).collect()
    }

    /// What was told: kind and id, with the entity where it is about one.
    pub(crate) fn told(&self) -> Vec<Value> {
        let told = self.out.iter().filter(|record| &*record.topic == "notifications");
        told.map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
    }

    pub(crate) fn kept(&self, prefix: &str) -> usize {
        self.topics.ledger.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).count()
    }
}

/// A settlement without positions must be told apart from all before by what it leaves in the ledger.
fn assert_is_told_apart(settled: &Settled, ledger: &BTreeMap<String, Bytes>) {
    let is_new = |record: &OutRecord| {
        let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
        &*record.topic == "ledger" && record.value.is_some() && ledger.get(&key) != record.value.as_ref()
    };
    assert!(settled.records.iter().any(is_new), "after an unknown outcome nobody could tell: {settled:?}");
}

fn make(
    (store, topics, upkeep): (&Arc<FakeStore>, &Arc<FakeTopics>, &Arc<FakeUpkeep>),
    wall_ms: &Arc<Mutex<i64>>,
    schedule: (Option<Poll>, Option<Sweep>),
) -> Stage0 {
    let mut product = settings("product");
    let mut row = (*product.row).clone();
    row.list = Some(List {
        path: "/v3/catalog/products".into(),
        over: None,
        query: BTreeMap::new(),
        default: false,
        pages: Pages::Page,
        max: 10,
        since: Some(Since {
            param: "date_modified:min".into(),
            until: None,
            format: crate::catalog::DateFormat::Rfc3339,
        }),
        whole: true,
        include: true,
        keyset: Some(Keyset { param: "id:min".into(), sort: None }),
    });
    product.row = Arc::new(row);
    let catalog = Catalog::embedded().unwrap();
    let entry = Entry::new(&catalog, Arc::new(product), BTreeMap::new(), schedule);
    let name: Arc<str> = "main".into();
    let plan = StorePlan {
        name: name.clone(),
        client: store.clone(),
        intake: "intake".into(),
        ledger: "ledger".into(),
        entries: [("product".to_owned(), entry)].into(),
    };
    let plan = Plan { stores: [(name, Arc::new(plan))].into(), notifications: "notifications".into() };
    let wall_ms = wall_ms.clone();
    let deps = Deps {
        topics: topics.clone(),
        upkeep: upkeep.clone(),
        meter: Arc::new(NoMeter),
        clock: Arc::new(move || *wall_ms.lock().unwrap()),
    };
    Scheduler::new(Arc::new(plan), deps)
}

fn hint_of(record: &OutRecord) -> crate::model::hint::Hint {
    let headers = record.headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let partition = Partition { topic: record.topic.clone(), number: 0 };
    let record = InRecord {
        position: Position { partition, offset: 0 },
        timestamp_ms: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    };
    crate::model::hint::Hint::from_record(&record).unwrap()
}
