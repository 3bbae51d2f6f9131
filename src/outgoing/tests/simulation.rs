//! Seeded lives of the path: a store that fails in every way, crashes at any step, commits that lag behind.
//!
//! Each life prints its seed, which is shown when it fails. Asked at the end: one committed result for each
//! command, writes of a key in order, and at most one effect of what must not be done twice.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::*;

const KEYS: i64 = 5;
const COMMANDS_OF_A_LIFE: i64 = 40;
/// About three seconds of a debug build.
const LIVES: u64 = 60;

/// The offsets of commands that the store refuses whatever they stand among.
fn is_bad(offset: i64) -> bool {
    offset % 7 == 3
}

/// What the simulated store holds, and all that was done to it.
struct Shop {
    rng: StdRng,
    /// Offsets of the commands, in the order in which they took effect, with the life's number of crashes then.
    effects: Vec<(u32, i64)>,
    /// Requests that held several commands.
    shared: usize,
    crashes: u32,
    /// Products by sku: their id, and probes that do not see them yet.
    products: HashMap<String, (u64, u32)>,
}

impl Shop {
    fn answer(&mut self, request: &Request) -> Reply {
        match self.rng.random_range(0..100) {
            0..12 => return doubtful(),
            12..22 => return busy(),
            22..25 => return reply(Answer::Unauthorized, 401, ""),
            25..28 if request.method.as_str() != "GET" => return reply(Answer::Forbidden, 403, "{}"),
            _ => {}
        }
        let cut = self.rng.random_bool(0.12);
        let reply = match request.method.as_str() {
            "GET" => self.probed(request),
            _ => self.written(request, cut),
        };
        if cut { doubtful() } else { reply }
    }

    fn probed(&mut self, request: &Request) -> Reply {
        let sku = &request.query[0].1;
        match self.products.get_mut(sku) {
            Some((id, 0)) => done(&json!({"data": [{"id": *id, "sku": sku}]}).to_string()),
            Some((_, unseen)) => {
                *unseen -= 1;
                nothing()
            }
            None => nothing(),
        }
    }

    fn written(&mut self, request: &Request, cut: bool) -> Reply {
        let body: Value = serde_json::from_slice(request.body.as_ref().unwrap()).unwrap();
        if let Value::Array(items) = &body {
            return self.together(items);
        }
        if request.path.as_str().starts_with("/v3/catalog/products/")
            && body["offset"].as_i64().is_some_and(is_bad)
            && body["sku"].is_null()
        {
            return reply(Answer::Invalid, 422, "{}");
        }
        let is_create = request.path.as_str() == "/v3/catalog/products";
        if is_create {
            let (sku, id) = (body["sku"].as_str().unwrap().to_owned(), self.products.len() as u64 + 1);
            if self.products.contains_key(&sku) {
                return reply(Answer::Conflict, 409, "{}");
            }
            // What was cut may show up late.
            let unseen = u32::from(cut && self.rng.random_bool(0.5));
            self.products.insert(sku, (id, unseen));
        }
        self.effects.push((self.crashes, body["offset"].as_i64().unwrap()));
        done(r#"{"data":{"id":1}}"#)
    }

    /// Updates of several products: a bad one refuses the lot, or itself, and says so in one way or another. Now and
    /// then a good one is left out without a word.
    fn together(&mut self, items: &[Value]) -> Reply {
        let offset = |item: &Value| item["offset"].as_i64().unwrap();
        let mut ids: Vec<&Value> = items.iter().map(|item| &item["id"]).collect();
        ids.sort_by_key(|id| id.as_i64());
        assert!(ids.windows(2).all(|two| two[0] != two[1]), "a product twice: {items:?}");
        self.shared += usize::from(items.len() > 1);
        let bad = items.iter().position(|item| is_bad(offset(item)));
        let shape = self.rng.random_range(0..6);
        match (bad, shape) {
            (Some(at), 0) => {
                return reply(
                    Answer::Invalid,
                    422,
                    &json!({"errors": {format!("{at}.name"): "x"}}).to_string(),
                );
            }
            (Some(_), 1) => return reply(Answer::Invalid, 422, "<html>no</html>"),
            (Some(_), 2) => return reply(Answer::Invalid, 413, ""),
            (Some(_), 3) => return doubtful(),
            (Some(_) | None, _) => {}
        }
        let left_out = self.rng.random_range(0..20);
        let good = items.iter().enumerate().filter(|(at, item)| *at != left_out && !is_bad(offset(item)));
        let good: Vec<&Value> = good.map(|(_, item)| item).collect();
        self.effects.extend(good.iter().map(|item| (self.crashes, offset(item))));
        let rows: Vec<Value> =
            good.iter().map(|item| json!({"id": item["id"], "offset": item["offset"]})).collect();
        let errors: Vec<Value> =
            bad.iter().map(|at| json!({"status": 422, "id": items[*at]["id"]})).collect();
        let body = json!({"data": rows, "errors": errors}).to_string();
        match (bad, shape) {
            (None, _) => done(&body),
            (Some(_), 4) => reply(Answer::Partial, 207, &body),
            (Some(_), _) => reply(Answer::Invalid, 422, &body),
        }
    }
}

/// Commands of all classes, the kind and the key drawn for each.
fn commands(rng: &mut StdRng) -> Vec<(InRecord, &'static str)> {
    let one = |offset: i64| {
        let key = rng.random_range(0..KEYS);
        let (sku, class) = (format!("S-{offset}"), ["A", "B", "C", "upsert"][rng.random_range(0..4)]);
        let mut value = match class {
            "A" => {
                json!({"entity": "product", "action": "update", "path": {"product_id": key + 1}, "payload": {}})
            }
            "B" => json!({"entity": "product", "action": "create", "payload": {"sku": sku}}),
            "C" => {
                json!({"entity": "shipment", "action": "create", "path": {"order_id": key + 1}, "payload": {}})
            }
            _ => json!({"entity": "product", "action": "upsert", "payload": {"sku": format!("U-{key}")}}),
        };
        value["payload"]["offset"] = json!(offset);
        if rng.random_bool(0.5) {
            value["id"] = json!(format!("c-{offset}"));
        }
        (record(offset, Some(&key.to_string()), Some(value.to_string().as_bytes())), class)
    };
    (0..COMMANDS_OF_A_LIFE).map(one).collect()
}

struct Life {
    rng: StdRng,
    shop: Arc<Mutex<Shop>>,
    store: Arc<FakeStore>,
    log: Arc<FakeLog>,
    path: Outgoing<FakeStore, FakeLog>,
    commands: Vec<(InRecord, &'static str)>,
    /// The next one to be read.
    next: usize,
    jobs: Vec<Job<Brought>>,
    brought: Vec<Brought>,
    pending: VecDeque<Settled>,
    committed: Vec<Settled>,
    now: Instant,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shop = Shop {
            rng: StdRng::seed_from_u64(seed + 1),
            effects: Vec::new(),
            shared: 0,
            crashes: 0,
            products: HashMap::new(),
        };
        let shop = Arc::new(Mutex::new(shop));
        let of_store = shop.clone();
        let store = FakeStore::new(move |request, _| of_store.lock().unwrap().answer(request));
        let log = Arc::new(FakeLog::default());
        let commands = commands(&mut rng);
        let path = Self::path(&store, &log);
        let (jobs, brought, pending, committed) = (Vec::new(), Vec::new(), VecDeque::new(), Vec::new());
        Self {
            rng,
            shop,
            store,
            log,
            path,
            commands,
            next: 0,
            jobs,
            brought,
            pending,
            committed,
            now: Instant::now(),
        }
    }

    fn path(store: &Arc<FakeStore>, log: &Arc<FakeLog>) -> Outgoing<FakeStore, FakeLog> {
        let lanes = crate::engine::lanes::Limits { max_parallel: 3, max_open: 4 };
        let config = OutgoingConfig {
            routes: vec![route(store)],
            catalog: CATALOG.clone(),
            limits: Limits { lanes, requests: 3, ..Limits::default() },
            decisions: Decisions::default(),
            ledger: log.clone(),
        };
        let mut path = Outgoing::new(config, log.clone(), Arc::new(|| 1_000));
        path.known = Known::with_limits(0, ended::Ended::default());
        path
    }

    fn is_over(&self) -> bool {
        let settled: usize = self.committed.iter().map(|settled| settled.positions.len()).sum();
        settled == self.commands.len()
    }

    /// One thing that may happen next.
    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 if self.next < self.commands.len() => {
                let record = self.commands[self.next].0.clone();
                self.next += 1;
                self.pending.extend(self.path.accept(record, self.now));
            }
            20..45 => {
                let jobs = self.path.start(self.now);
                self.jobs.extend(jobs);
                self.jobs.shuffle(&mut self.rng);
                assert!(self.jobs.len() + self.brought.len() <= 6, "more runs at once than may");
            }
            45..65 => {
                let job = self.jobs.pop();
                self.brought.extend(job.map(block_on));
            }
            65..85 => {
                self.brought.shuffle(&mut self.rng);
                if let Some(brought) = self.brought.pop() {
                    self.pending.extend(self.path.finish(brought, self.now));
                }
            }
            85..93 => {
                let Some(settled) = self.pending.pop_front() else { return };
                self.path.committed(&settled.positions);
                self.committed.push(settled);
            }
            93..98 => self.now = self.path.wake_at().map_or(self.now, |at| at.max(self.now)),
            98 => *self.log.failures.lock().unwrap() = 1,
            99 if self.rng.random_bool(0.15) => self.crash(),
            _ => {}
        }
    }

    /// All that was not committed is gone; what is not committed is read again.
    fn crash(&mut self) {
        self.shop.lock().unwrap().crashes += 1;
        self.jobs.clear();
        self.brought.clear();
        self.pending.clear();
        self.path = Self::path(&self.store, &self.log);
        let committed = self.committed.iter().flat_map(|settled| &settled.records);
        let entries = ledger(self.log.records.lock().unwrap().iter().chain(committed));
        self.path.restore(&Partition { topic: COMMANDS.into(), number: 3 }, recalled(&self.log, entries));
        let settled: HashSet<i64> = self
            .committed
            .iter()
            .flat_map(|settled| &settled.positions)
            .map(|position| position.offset)
            .collect();
        let again: Vec<InRecord> = self.commands[..self.next]
            .iter()
            .map(|(record, _)| record.clone())
            .filter(|record| !settled.contains(&record.position.offset))
            .collect();
        for record in again {
            self.pending.extend(self.path.accept(record, self.now));
        }
    }

    fn check(&self) {
        let shop = self.shop.lock().unwrap();
        let mut effects: HashMap<i64, usize> = HashMap::new();
        let mut furthest: HashMap<(u32, Bytes), i64> = HashMap::new();
        for (life, offset) in &shop.effects {
            *effects.entry(*offset).or_default() += 1;
            let key = self.commands[usize::try_from(*offset).unwrap()].0.key.clone().unwrap();
            let before = furthest.insert((*life, key), *offset).unwrap_or(-1);
            assert!(before <= *offset, "{offset} was written after {before}");
        }
        let mut results: Vec<(i64, Value)> =
            self.committed.iter().map(|settled| (settled.positions[0].offset, result(settled))).collect();
        results.sort_by_key(|(offset, _)| *offset);
        let offsets: Vec<i64> = results.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..COMMANDS_OF_A_LIFE).collect::<Vec<_>>(), "one result for each command");
        for (offset, got) in &results {
            let (effects, class) = (
                effects.get(offset).copied().unwrap_or(0),
                self.commands[usize::try_from(*offset).unwrap()].1,
            );
            let outcome = got["outcome"].as_str().unwrap();
            if class == "A" {
                let is_sound = outcome == "applied" || is_bad(*offset) && effects == 0;
                assert!(is_sound || got["reason"] == "denied", "{offset} {effects}: {got}");
            }
            match class {
                "B" | "C" => assert!(effects <= 1, "{class} {offset} took effect {effects} times: {got}"),
                _ => {}
            }
            match outcome {
                "applied" => assert!(effects >= 1, "{class} {offset} was never done: {got}"),
                "unknown" => assert!(matches!(class, "B" | "C" | "upsert"), "{got}"),
                _ if class == "B" || class == "C" => {
                    assert_eq!(effects, 0, "{class} {offset} was done: {got}")
                }
                _ => {}
            }
        }
    }
}

#[test]
fn every_command_ends_once_and_in_order_whatever_the_store_does() {
    let mut shared = 0;
    for seed in 0..LIVES {
        println!("seed {seed}");
        let mut life = Life::new(seed);
        let mut steps = 0;
        while !life.is_over() {
            life.step();
            steps += 1;
            assert!(steps < 1_000_000, "it does not come to an end");
        }
        life.check();
        shared += life.shop.lock().unwrap().shared;
    }
    assert!(shared > usize::try_from(LIVES).unwrap(), "hardly any command shared a request: {shared}");
}
