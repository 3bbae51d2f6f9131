//! The path without a runner: records in, jobs by hand, settlements out, on a clock that is an argument.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::testing::store;
use super::*;
use crate::incoming::line::TROUBLE;
use crate::model::ids::EntityId;
use crate::model::record::Position;
use crate::model::request::{Answer, Request};

pub(super) type Answers = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A store that answers as it is told, and remembers what it was asked.
pub(super) struct Fake {
    answers: Mutex<Answers>,
    asked: Mutex<Vec<String>>,
}

impl Store for Fake {
    async fn send(&self, request: Request) -> Reply {
        let ids = request.query.iter().find(|(name, _)| name.ends_with("id:in"));
        let ids = ids.map_or_else(String::new, |(_, ids)| format!("?{ids}"));
        self.asked.lock().unwrap().push(format!("{}{ids}", request.path.as_str()));
        (self.answers.lock().unwrap())(&request)
    }
}

#[derive(Default)]
pub(super) struct Counts(Mutex<BTreeMap<String, usize>>);

impl Counts {
    fn add(&self, what: &str, hints: usize) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += hints;
    }

    pub(super) fn of(&self, what: &str) -> usize {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

impl Meter for Counts {
    fn repaired(&self, _: &str, _: &str, records: usize) {
        self.add("repaired", records);
    }
    fn published(&self, _: &str, _: Op, hints: usize, _: Option<Duration>) {
        self.add("published", hints);
    }
    fn suppressed(&self, _: &str, why: Suppressed, hints: usize) {
        self.add(why.name(), hints);
    }
    fn dead_letter(&self, reason: Reason, hints: usize) {
        self.add(reason.name(), hints);
    }
    fn retried(&self, _: &str) {
        self.add("retried", 1);
    }
}

pub(super) struct Bench {
    pub(super) stage: Incoming<Fake>,
    pub(super) fake: Arc<Fake>,
    pub(super) counts: Arc<Counts>,
    pub(super) now: Instant,
    offset: i64,
}

pub(super) fn bench(answers: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Bench {
    bench_with(store(), answers)
}

pub(super) fn bench_with(
    settings: StoreSettings,
    answers: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Bench {
    let fake = Arc::new(Fake { answers: Mutex::new(Box::new(answers)), asked: Mutex::default() });
    let counts = Arc::new(Counts::default());
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let clock: WallClock = Arc::new(|| 1_767_225_600_000);
    let stage = Incoming::new(settings, catalog, fake.clone(), counts.clone(), clock);
    Bench { stage, fake, counts, now: Instant::now(), offset: 0 }
}

impl Bench {
    /// Consumes a hint; its event is `msg_<offset>` unless given.
    pub(super) fn hint(&mut self, key: &str, op: Op, row: Option<&str>, event: Option<&str>) -> Vec<Settled> {
        let position = self.position();
        let event = event.map_or_else(|| format!("msg_{}", position.offset), str::to_owned);
        let hint = Hint {
            trigger: crate::model::hint::Trigger {
                key: EntityKey::parse(key).unwrap(),
                op,
                scope: "store/x/updated".into(),
                row: row.map(|row| EntityId::parse(row).unwrap()),
            },
            event,
            created_at: None,
            received_ms: 1_767_225_600_000,
            traceparent: None,
            carried_ms: None,
        };
        let headers = hint.headers().into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        let record =
            InRecord { position, timestamp_ms: None, key, value: Some(Bytes::from_static(b"{}")), headers };
        self.stage.accept(record, self.now)
    }

    pub(super) fn update(&mut self, key: &str) {
        assert!(self.hint(key, Op::Update, None, None).is_empty(), "{key} was settled at once");
    }

    fn foreign(&mut self, body: &str) -> Settled {
        let record = InRecord {
            position: self.position(),
            timestamp_ms: None,
            key: None,
            value: Some(Bytes::copy_from_slice(body.as_bytes())),
            headers: Vec::new(),
        };
        let mut settled = self.stage.accept(record, self.now);
        assert_eq!(settled.len(), 1);
        settled.remove(0)
    }

    pub(super) fn position(&mut self) -> Position {
        self.offset += 1;
        let partition = Partition { topic: "bigcommerce.main.webhooks".into(), number: 0 };
        Position { partition, offset: self.offset }
    }

    /// Does everything that is due until `lasts` is over.
    pub(super) fn pass(&mut self, lasts: Duration) -> Vec<Settled> {
        let end = self.now + lasts;
        let mut settled = Vec::new();
        loop {
            for job in self.stage.start(self.now) {
                let done = futures::executor::block_on(job);
                settled.extend(self.stage.finish(done, self.now));
            }
            match self.stage.wake_at().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
        }
        self.now = end;
        settled
    }

    pub(super) fn answer(&self, answers: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.fake.answers.lock().unwrap() = Box::new(answers);
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.asked.lock().unwrap())
    }
}

pub(super) const SECONDS: Duration = Duration::from_secs(3);

pub(super) fn reply(answer: Answer, status: u16, body: &Value) -> Reply {
    let body = Bytes::from(body.to_string());
    Reply { answer, status, body, request_id: None, detail: format!("status {status}") }
}

/// All products that are asked for are there, and nothing else is.
pub(super) fn healthy(request: &Request) -> Reply {
    let path = request.path.as_str();
    if !path.starts_with("/v3/catalog/products") {
        return reply(Answer::Done, 200, &json!({ "data": [] }));
    }
    let Some((_, ids)) = request.query.iter().find(|(name, _)| name == "id:in") else {
        let id: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        return reply(Answer::Done, 200, &json!({ "data": { "id": id } }));
    };
    let rows: Vec<Value> = ids.split(',').map(|id| json!({ "id": id.parse::<u64>().unwrap() })).collect();
    reply(Answer::Done, 200, &json!({ "data": rows }))
}

fn failing(answer: Answer, status: u16) -> impl Fn(&Request) -> Reply {
    move |_| reply(answer, status, &json!({ "title": "no" }))
}

/// Refuses every request that names one of these ids; what is left is healthy.
fn refusing(bad: &'static [&'static str]) -> impl Fn(&Request) -> Reply {
    move |request| {
        let listed = request.query.iter().any(|(_, ids)| ids.split(',').any(|id| bad.contains(&id)));
        if listed || request.path.as_str().rsplit('/').next().is_some_and(|id| bad.contains(&id)) {
            return reply(Answer::Invalid, 422, &json!({ "title": "bad id" }));
        }
        healthy(request)
    }
}

pub(super) fn header<'a>(record: &'a OutRecord, name: &str) -> &'a str {
    let found = record.headers.iter().rev().find(|(found, _)| found == name);
    found.map_or("", |(_, value)| std::str::from_utf8(value).unwrap())
}

/// `topic/key` of what is published, without the ledger; the bridge's own prefix is left out.
pub(super) fn published(settled: &[Settled]) -> Vec<String> {
    let records = settled.iter().flat_map(|settled| &settled.records);
    let key = |r: &OutRecord| String::from_utf8(r.key.clone().unwrap().to_vec()).unwrap();
    let name = |r: &OutRecord| format!("{}/{}", r.topic.strip_prefix("bigcommerce.main.").unwrap(), key(r));
    let mut names: Vec<String> =
        records.filter(|record| !record.topic.ends_with("ledger")).map(name).collect();
    names.sort();
    names
}

pub(super) fn offsets(settled: &[Settled]) -> Vec<i64> {
    let mut offsets: Vec<i64> = settled.iter().flat_map(|s| &s.positions).map(|p| p.offset).collect();
    offsets.sort_unstable();
    offsets
}

#[test]
fn an_entity_that_nobody_configured_is_settled_at_once_and_counted() {
    let mut bench = bench(healthy);
    let settled = bench.hint("category/5", Op::Update, None, None);
    assert_eq!(offsets(&settled), [1]);
    assert!(published(&settled).is_empty());
    assert_eq!(bench.counts.of("not_configured"), 1);
}

#[test]
fn a_raw_callback_is_sent_on_to_the_partition_of_its_entity() {
    let mut bench = bench(healthy);
    let settled = bench.foreign(r#"{"scope":"store/product/updated","created_at":7,"data":{"id":5}}"#);
    let [hint] = &settled.records[..] else { panic!("{} records", settled.records.len()) };
    assert_eq!((&*hint.topic, hint.partition), ("bigcommerce.main.webhooks", None));
    assert_eq!(hint.key.as_deref(), Some(&b"product/5"[..]));
    assert_eq!((header(hint, "bc_event"), header(hint, "bc_created_at")), ("0-1", "7"));
}

#[test]
fn a_batch_callback_becomes_a_hint_for_each_entity() {
    let mut bench = bench(healthy);
    let settled = bench.foreign(r#"{"scope":"store/product/updated","data":[{"id":5},{"id":6}]}"#);
    assert_eq!(published(&[settled]), ["webhooks/product/5", "webhooks/product/6"]);
}

#[test]
fn what_nobody_understands_is_put_aside_with_its_bytes() {
    let mut bench = bench(healthy);
    let settled = bench.foreign("{");
    assert_eq!(&*settled.records[0].topic, "bigcommerce.main.dlq");
    assert_eq!(settled.records[0].value.as_deref(), Some(&b"{"[..]));
    assert_eq!(header(&settled.records[0], "bc_dlq_reason"), "quarantined");
    assert_eq!(bench.counts.of("quarantined"), 1);
}

#[test]
fn what_is_forbidden_waits_for_minutes_and_is_a_dead_letter_then() {
    let mut bench = bench(failing(Answer::Forbidden, 403));
    (1..=600).for_each(|id| bench.update(&format!("product/{id}")));
    bench.update("product/1");
    assert!(bench.pass(Duration::from_secs(240)).is_empty(), "a scope may be granted any minute");
    let calls = bench.asked().len();
    assert!(calls <= 40, "{calls} calls: it is asked with patience");
    let settled = bench.pass(Duration::from_secs(120));
    assert_eq!(offsets(&settled), (1..=601).collect::<Vec<_>>());
    let letter = &settled[0].records[0];
    assert_eq!(header(letter, "bc_dlq_reason"), "denied");
    let message = header(letter, "__connect.errors.exception.message");
    assert!(message.contains("store_v2_products_read_only"), "{message}");
    assert_eq!(bench.counts.of("denied"), 601);
    bench.answer(healthy);
    bench.update("product/1");
    let settled = bench.pass(Duration::from_secs(61));
    assert_eq!(published(&settled), ["product/1"], "once it is granted, all is as before");
}

#[test]
fn one_entity_that_is_forbidden_holds_nobody_up() {
    let mut bench = bench(|request| {
        let is_bad = request.path.as_str().ends_with("/66");
        if is_bad { reply(Answer::Forbidden, 403, &json!({})) } else { healthy_variant(request) }
    });
    bench.update("product_variant/1:66");
    let mut all = bench.pass(SECONDS);
    for n in 1..=40 {
        bench.update(&format!("product_variant/1:{n}"));
        all.extend(bench.pass(Duration::from_secs(10)));
    }
    assert_eq!(published(&all).len(), 41);
    assert_eq!(bench.counts.of("denied"), 1);
}

fn healthy_variant(request: &Request) -> Reply {
    let id: u64 = request.path.as_str().rsplit('/').next().unwrap().parse().unwrap();
    reply(Answer::Done, 200, &json!({ "data": { "id": id, "product_id": 1 } }))
}

#[test]
fn one_id_that_is_refused_does_not_spoil_its_list() {
    let mut bench = bench(refusing(&["77", "200"]));
    (1..=250).for_each(|id| bench.update(&format!("product/{id}")));
    let settled = bench.pass(SECONDS);
    assert_eq!(offsets(&settled), (1..=250).collect::<Vec<_>>());
    let records = published(&settled);
    let dead: Vec<&String> = records.iter().filter(|name| name.starts_with("dlq")).collect();
    assert_eq!(dead, ["dlq/product/200", "dlq/product/77"]);
    assert_eq!(records.len(), 250);
    let calls = bench.asked().len();
    assert!(calls <= 33, "{calls} calls");
}

#[test]
fn a_list_that_is_refused_as_a_whole_ends_as_dead_letters_in_bounded_steps() {
    let mut bench = bench(failing(Answer::Invalid, 400));
    (1..=250).for_each(|id| bench.update(&format!("product/{id}")));
    let first = bench.stage.start(bench.now + SECONDS).remove(0);
    let done = futures::executor::block_on(first);
    assert!(bench.asked().len() <= 129);
    bench.stage.finish(done, bench.now + SECONDS);
    bench.now += SECONDS;
    bench.pass(Duration::from_secs(120));
    assert_eq!(bench.counts.of("refused"), 250);
}

#[test]
fn a_list_that_fails_half_way_is_not_tried_further() {
    let asked = Mutex::new(0);
    let mut bench = bench(move |_| {
        *asked.lock().unwrap() += 1;
        let is_first = *asked.lock().unwrap() == 1;
        let (answer, status) = if is_first { (Answer::Invalid, 413) } else { (Answer::Doubtful, 503) };
        reply(answer, status, &json!({}))
    });
    (1..=100).for_each(|id| bench.update(&format!("product/{id}")));
    let job = bench.stage.start(bench.now + SECONDS).remove(0);
    let Done::Read(read) = futures::executor::block_on(job) else { panic!("it reads") };
    assert_eq!(read.outcomes.len(), 100);
    assert_eq!(bench.asked().len(), 2);
}

#[test]
fn a_broken_row_spoils_nobody_who_has_a_row() {
    let mut bench = bench(|_| reply(Answer::Done, 200, &json!({ "data": [{ "id": 1 }, { "name": "?" }] })));
    bench.update("product/1");
    bench.update("product/2");
    let settled = bench.pass(Duration::from_millis(300));
    assert_eq!(published(&settled), ["product/1"]);
    let settled = bench.pass(Duration::from_secs(60));
    assert_eq!(published(&settled), ["dlq/product/2"]);
    assert_eq!(bench.counts.of("bad_reply"), 1);
}

#[test]
fn trouble_pauses_its_entity_only_and_a_failed_list_is_one_trouble() {
    let mut bench = bench(|request| {
        let is_product = request.path.as_str().contains("products");
        if is_product { reply(Answer::Doubtful, 503, &json!({})) } else { healthy(request) }
    });
    (1..=100).for_each(|id| bench.update(&format!("product/{id}")));
    bench.pass(Duration::from_millis(300));
    assert_eq!(bench.asked().len(), 1);
    let paused = bench.stage.lines["product"].paused_until.unwrap();
    assert!(paused <= bench.now + TROUBLE.0, "one failed list pauses for half a second");
    bench.answer(|_| reply(Answer::Done, 200, &json!({ "data": { "id": 2, "product_id": 1 } })));
    bench.update("product_variant/1:2");
    bench.pass(Duration::from_millis(260));
    assert_eq!(bench.asked(), ["/v3/catalog/products/1/variants/2"], "another entity is read meanwhile");
    bench.answer(healthy);
    assert_eq!(published(&bench.pass(SECONDS)).len(), 100);
}

#[test]
fn trouble_that_lasts_is_met_with_growing_patience() {
    let mut bench = bench(failing(Answer::Doubtful, 503));
    bench.update("product/1");
    bench.pass(Duration::from_secs(600));
    let calls = bench.asked().len();
    assert!((10..=20).contains(&calls), "{calls} calls in ten minutes");
}

#[test]
fn a_token_that_is_not_valid_pauses_the_whole_store() {
    let mut bench = bench(failing(Answer::Unauthorized, 401));
    bench.update("product/1");
    bench.pass(Duration::from_millis(300));
    bench.asked();
    bench.update("inventory_item/1");
    bench.update("product/2");
    bench.pass(Duration::from_secs(29));
    assert!(bench.asked().is_empty());
    bench.answer(healthy);
    assert_eq!(published(&bench.pass(SECONDS))[..2], ["product/1", "product/2"]);
}

#[test]
fn of_a_product_s_stock_only_the_named_variant_is_published() {
    let rows = json!({ "data": [
        { "identity": { "variant_id": 71, "product_id": 7 }, "n": 1 },
        { "identity": { "variant_id": 72, "product_id": 7 }, "n": 2 },
    ] });
    let mut bench = bench(move |_| reply(Answer::Done, 200, &rows));
    bench.hint("inventory_item/7", Op::Update, Some("72"), Some("msg_a"));
    assert_eq!(published(&bench.pass(SECONDS)), ["inventory_item/72"]);
    // The same event about another variant is another hint; the same again is not.
    bench.hint("inventory_item/7", Op::Update, Some("71"), Some("msg_a"));
    assert_eq!(published(&bench.pass(SECONDS)), ["inventory_item/71"]);
    assert_eq!(bench.hint("inventory_item/7", Op::Update, Some("72"), Some("msg_a")).len(), 1);
    bench.hint("inventory_item/7", Op::Update, None, None);
    assert_eq!(published(&bench.pass(SECONDS)), ["inventory_item/71", "inventory_item/72"]);
    bench.hint("inventory_item/7", Op::Update, Some("73"), None);
    assert!(published(&bench.pass(SECONDS)).is_empty());
    assert_eq!(bench.counts.of("no_row"), 1);
}

#[test]
fn an_event_that_comes_again_while_its_first_is_being_read_is_listed_once() {
    let mut bench = bench(healthy);
    bench.hint("product/1", Op::Update, None, Some("msg_a"));
    let reading = bench.stage.start(bench.now + SECONDS).remove(0);
    bench.now += SECONDS;
    bench.hint("product/1", Op::Update, None, Some("msg_a"));
    assert!(bench.stage.start(bench.now + SECONDS).is_empty(), "one read at a time");
    let done = futures::executor::block_on(reading);
    let first = bench.stage.finish(done, bench.now);
    assert_eq!(header(&first[0].records[0], "bc_events"), "msg_a");
    let second = bench.pass(SECONDS);
    assert_eq!((published(&second).len(), offsets(&second)), (0, vec![2]));
    let third = bench.hint("product/1", Op::Update, None, Some("msg_a"));
    assert_eq!((published(&third).len(), offsets(&third)), (0, vec![3]));
    assert_eq!(bench.counts.of("duplicate"), 2);
}

#[test]
fn what_a_list_lacks_is_gone_only_when_its_own_path_says_so() {
    let mut bench = bench(|request| match request.path.as_str() {
        "/v3/catalog/products" => reply(Answer::Done, 200, &json!({ "data": [] })),
        "/v3/catalog/products/2" => reply(Answer::Missing, 404, &json!({})),
        _ => healthy(request),
    });
    bench.update("product/1");
    bench.update("product/2");
    assert_eq!(published(&bench.pass(SECONDS)), ["product/1"]);
    let asked = bench.asked();
    assert_eq!(asked, ["/v3/catalog/products?1,2", "/v3/catalog/products/1", "/v3/catalog/products/2"]);
    assert!(bench.pass(Duration::from_secs(56)).is_empty());
    let settled = bench.pass(SECONDS);
    assert_eq!(published(&settled), ["product/2"]);
    assert_eq!(settled[0].records[0].value, None);
}

#[test]
fn a_deleted_entity_is_not_brought_back_by_a_replica_that_lags() {
    let mut bench = bench(failing(Answer::Missing, 404));
    let deleted = |bench: &mut Bench, op, created_at| {
        bench.hint("product/1", op, None, None);
        let waiting = bench.stage.lines.get_mut("product").unwrap();
        let id = EntityId::parse("1").unwrap();
        let mut gathering = waiting.coalescer.take(&id).unwrap();
        gathering.hints[0].hint.created_at = Some(created_at);
        let wait = crate::incoming::coalesce::Wait::AtLatest(bench.now);
        waiting.coalescer.retry(&id, gathering, wait, bench.now);
    };
    deleted(&mut bench, Op::Delete, 2_000_000_000);
    let settled = bench.pass(SECONDS);
    assert_eq!(settled[0].records[0].value, None);
    bench.answer(|_| {
        reply(Answer::Done, 200, &json!({ "data": { "id": 1, "date_modified": 1_999_999_990 } }))
    });
    deleted(&mut bench, Op::Update, 1_999_999_990);
    assert!(bench.pass(Duration::from_secs(30)).is_empty(), "older than its deletion: read again");
}

#[test]
fn a_hint_that_joins_a_wait_for_a_newer_state_waits_its_own_time() {
    let lagging = |version: i64| {
        move |request: &Request| {
            let row = json!({ "id": 1, "date_modified": version });
            let is_list = request.path.as_str() == "/v3/catalog/products";
            let body = if is_list { json!({ "data": [row] }) } else { json!({ "data": row }) };
            reply(Answer::Done, 200, &body)
        }
    };
    let mut bench = bench(lagging(100));
    bench.update("product/1");
    assert_eq!(published(&bench.pass(SECONDS)), ["product/1"]);
    bench.answer(lagging(90));
    bench.update("product/1");
    assert!(bench.pass(Duration::from_secs(20)).is_empty());
    bench.update("product/1");
    let settled = bench.pass(Duration::from_secs(18));
    assert_eq!(offsets(&settled[..1]), [2], "the second waited for 36 s, the third did not");
    assert_eq!(header(&settled[0].records[0], "bc_suspect_stale"), "1");
    assert_eq!(offsets(&settled[1..]), [3], "it has a read of its own");
}
