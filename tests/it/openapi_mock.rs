//! What the bridge asks of BigCommerce, judged by BigCommerce's OpenAPI files: `BCBRIDGE_OPENAPI_MOCK` names a mock
//! that `scripts/openapi-mock` started (tests/openapi-mock); without it these tests pass and say that they did nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bcbridge::catalog::{Catalog, Entity};
use bcbridge::model::hint::Op;
use bcbridge::receiver::verify::sign;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bridge_lab::{Lab, Setup, json_of, read_topic};
use crate::payloads::{Payload, payloads};

mod samples;
mod writes;

/// How many things each event happens to: enough for reads of many at once.
const THINGS: u64 = 5;

/// From so many ids on a row asks for a comma list where the schema has a single id, as the text says it may. Events
/// of such entities come one at a time here.
const LIST_OF_ONE: usize = 10;

/// How long all polls, a snapshot or a sweep of all entities may take: thousands of requests, each checked.
const SCANS: Duration = Duration::from_secs(1200);

/// As far apart as the ids of two things are; above the ids of the fixture.
const STEP: u64 = 20_000;

/// Posted side by side, as BigCommerce does.
const AT_ONCE: usize = 32;

/// Where a file contradicts its own text: operation, what the fault holds, and why it is let through.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "GET /v3/customers/subscribers",
        "must have required property 'id'",
        "the text calls `id` a filter, the schema demands it: no list could be read otherwise",
    ),
    ("DELETE /v3/inventory/locations", "location_id:in must be integer", LIST),
    ("DELETE /v3/orders/pickups", "id:in must be integer", LIST),
    ("DELETE /v3/pickup/methods", "id:in must be integer", LIST),
];

const LIST: &str = "the text calls it a comma list, the schema a single number";

/// The mock that the environment names.
struct Mock {
    url: String,
    client: reqwest::Client,
}

impl Mock {
    /// None, with a word why, where no mock is named.
    fn named() -> Option<Mock> {
        let Ok(url) = std::env::var("BCBRIDGE_OPENAPI_MOCK") else {
            eprintln!(
                "skipped: BCBRIDGE_OPENAPI_MOCK names no mock; `scripts/openapi-mock start` starts one"
            );
            return None;
        };
        Some(Mock { url, client: reqwest::Client::builder().no_proxy().build().unwrap() })
    }

    async fn reset(&self) {
        let reply = self.client.post(format!("{}/_mock/reset", self.url)).send().await;
        let reply = reply.unwrap_or_else(|error| panic!("no mock answers at {}: {error}", self.url));
        assert!(reply.status().is_success(), "{reply:?}");
    }

    async fn stats(&self) -> Value {
        let reply = self.client.get(format!("{}/_mock/stats", self.url)).send().await.unwrap();
        serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
    }

    /// Fails unless something was asked, and all of it fits the files. The next part is counted anew.
    async fn assert_clean(&self, part: &str) {
        let (operations, faults) = self.judged(part).await;
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        assert!(!operations.is_empty(), "the bridge asked for nothing");
    }

    /// The operations that were asked for, and what does not fit the files. The next part is counted anew.
    async fn judged(&self, part: &str) -> (BTreeSet<String>, Vec<String>) {
        let stats = self.stats().await;
        let (excused, faults): (Vec<String>, Vec<String>) = [
            grouped(&stats["rejections"], "rejected", "why"),
            grouped(&stats["undeclared_list"], "undeclared", "names"),
            grouped(&stats["unanswered_list"], "not answered by the mock", "why"),
        ]
        .concat()
        .into_iter()
        .partition(|fault| {
            let fits = |(operation, text, _): &(&str, &str, &str)| {
                fault.contains(&format!("{operation:?}")) && fault.contains(text)
            };
            EXCEPTIONS.iter().any(fits)
        });
        excused.iter().for_each(|fault| println!("{part}: let through: {fault}"));
        let operations = stats["operations"].as_object().unwrap();
        for (operation, count) in operations {
            println!("{count:>6} {operation}");
        }
        println!(
            "{part}: {} requests to {} operations accepted, {} rejected, {} undeclared, {} unanswered",
            stats["accepted"],
            operations.len(),
            stats["rejected"],
            stats["undeclared"],
            stats["unanswered"]
        );
        self.reset().await;
        (operations.keys().cloned().collect(), faults)
    }
}

/// One line for all requests of an operation with the same fault: how many, and one of them.
fn grouped(list: &Value, what: &str, why: &str) -> Vec<String> {
    let mut groups: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    for entry in list.as_array().unwrap() {
        let group = (entry["operation"].to_string(), entry[why].to_string());
        groups.entry(group).or_insert_with(|| (0, entry["request"].to_string())).0 += 1;
    }
    let line = |((operation, why), (count, example)): ((String, String), (usize, String))| {
        format!("{what} {count}x {operation}: {why}, as in {example}")
    };
    groups.into_iter().map(line).collect()
}

/// Tries of one callback.
const AGAIN: usize = 10;

/// Posts signed callbacks until all are taken; their event ids, in order.
pub(crate) async fn post(lab: &Lab, client: &reqwest::Client, wanted: Vec<Payload>) -> Vec<String> {
    let mut posted = JoinSet::new();
    let mut events = Vec::with_capacity(wanted.len());
    for (number, payload) in wanted.into_iter().enumerate() {
        if posted.len() == AT_ONCE {
            posted.join_next().await.unwrap().unwrap();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (id, body) = (
            format!("msg_{number}_{}", uuid::Uuid::new_v4().simple()),
            payload.body(&Setup::default().sandbox.store_hash),
        );
        events.push(id.clone());
        let signature = sign(lab.secret.as_bytes(), &id, i64::try_from(now).unwrap(), &body);
        let request = client
            .post(format!("http://{}/webhooks/main", lab.receiver))
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body);
        posted.spawn(async move {
            // A broker that is busy for 300 ms is a 503; BigCommerce comes again with the same id, and so does this.
            for again in 0..AGAIN {
                let status = request.try_clone().unwrap().send().await.unwrap().status();
                if status != 503 {
                    assert_eq!(status, 200);
                    return;
                }
                println!("a callback was answered 503, try {again}");
            }
            panic!("a callback was answered 503 {AGAIN} times");
        });
    }
    while let Some(done) = posted.join_next().await {
        done.unwrap();
    }
    events
}

/// Asks until there is an answer, for as long as a scan may take.
async fn patiently<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < SCANS, "waited {SCANS:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the bridge has settled everything in the intake.
pub(crate) async fn intake_is_settled(lab: &Lab) {
    let topic = lab.topic("webhooks");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", lab.client.bootstrap_servers())
        .set("group.id", format!("{}.main.incoming", lab.prefix))
        .create()
        .unwrap();
    let consumer = std::sync::Arc::new(consumer);
    patiently("the intake is settled", || async {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for record in lab.records("webhooks").await {
            let end = ends.entry(record.position.partition.number).or_default();
            *end = (*end).max(record.position.offset + 1);
        }
        let mut asked = TopicPartitionList::new();
        for partition in ends.keys() {
            asked.add_partition(&topic, *partition);
        }
        let consumer = consumer.clone();
        let committed = tokio::task::spawn_blocking(move || {
            consumer.committed_offsets(asked, Duration::from_secs(10)).unwrap()
        });
        let committed = committed.await.unwrap();
        let committed =
            |partition| match committed.find_partition(&topic, partition).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => 0,
            };
        ends.iter().all(|(partition, end)| committed(*partition) >= *end).then_some(())
    })
    .await;
}

/// For each entity one payload that makes the bridge read a single thing.
fn one_of_each_entity(payloads: &[Payload]) -> Vec<Payload> {
    let catalog = Catalog::embedded().unwrap();
    let mut seen = BTreeSet::new();
    let is_first = |payload: &&Payload| match catalog.scope(&payload.scope) {
        Some((entity, scope)) => scope.op != Op::Delete && seen.insert(entity.name.clone()),
        None => false,
    };
    payloads.iter().filter(is_first).cloned().collect()
}

/// Whether the event's entity is read by a list that the schema has for a single id.
fn is_list_of_one(payload: &Payload) -> bool {
    let catalog = Catalog::embedded().unwrap();
    let many = catalog.scope(&payload.scope).and_then(|(entity, _)| entity.read.many.clone());
    many.is_some_and(|many| many.from >= LIST_OF_ONE)
}

/// One event for each entity, then every event of the fixture, of several things each; the end of the store comes
/// last.
async fn callbacks(lab: &Lab, client: &reqwest::Client) {
    let (ends, others): (Vec<Payload>, Vec<Payload>) =
        payloads().into_iter().partition(|payload| payload.scope == "store/app/uninstalled");
    post(lab, client, one_of_each_entity(&others)).await;
    intake_is_settled(lab).await;
    let (single, others): (Vec<Payload>, Vec<Payload>) = others.into_iter().partition(is_list_of_one);
    let things = (1..=THINGS).flat_map(|n| others.iter().map(move |payload| payload.of_another(n * STEP)));
    post(lab, client, things.collect()).await;
    intake_is_settled(lab).await;
    for few in single.chunks(LIST_OF_ONE - 1) {
        post(lab, client, few.to_vec()).await;
        intake_is_settled(lab).await;
    }
    post(lab, client, ends).await;
    intake_is_settled(lab).await;
}

/// Callbacks that became dead letters although the catalogue knows a read for them: reason and scope, how many.
async fn dead_letters(lab: &Lab) -> BTreeMap<(String, String), usize> {
    let catalog = Catalog::embedded().unwrap();
    let mut found = BTreeMap::new();
    for letter in lab.records("dlq").await {
        let reason = letter.header("bc_dlq_reason").unwrap_or_default().to_owned();
        let scope =
            json_of(&letter).and_then(|body| Some(body["scope"].as_str()?.to_owned())).unwrap_or_default();
        let known = catalog.scope(&scope).map(|(_, scope)| scope.not_readable.is_some());
        let is_right =
            matches!((reason.as_str(), known), ("quarantined", None) | ("not_readable", Some(true)));
        if !is_right {
            *found.entry((reason, scope)).or_default() += 1;
        }
    }
    found
}

/// The settings of every entity that can be read.
pub(crate) fn entries(settings: Value, wanted: impl Fn(&Entity) -> bool) -> Vec<Value> {
    let catalog = Catalog::embedded().unwrap();
    let readable = catalog.entities().iter().filter(|entity| entity.is_readable() && wanted(entity));
    let entry = |entity: &Arc<Entity>| {
        let mut entry = settings.clone();
        entry["entity"] = json!(entity.name);
        entry
    };
    readable.map(entry).collect()
}

async fn lab(mock: &Mock, incoming: Vec<Value>) -> Lab {
    Lab::start(Setup { store: json!({ "base_uri": mock.url }), incoming, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_of_the_bridge_breaks_the_specification() {
    let Some(mock) = Mock::named() else { return };
    mock.reset().await;
    let all = lab(&mock, entries(json!({ "confirm_gone": "5s" }), |_| true)).await;
    callbacks(&all, &mock.client).await;
    let letters = dead_letters(&all).await;
    all.stop().await;
    mock.assert_clean("callbacks").await;
    assert!(letters.is_empty(), "not read: {letters:#?}");

    let poll = json!({ "scopes": [], "confirm_gone": "5s", "poll": { "every": "3m", "at_start": true } });
    let lists = lab(&mock, entries(poll, |entity| entity.list.is_some())).await;
    polls_are_done(&lists).await;
    intake_is_settled(&lists).await;
    lists.stop().await;
    mock.assert_clean("polls").await;

    let all = lab(&mock, entries(json!({ "scopes": [], "confirm_gone": "5s" }), |_| true)).await;
    for kind in ["snapshot", "sweep"] {
        signal(&all, json!({ "id": kind, "type": format!("{kind}.start"), "store": "main" })).await;
        ended(&all, kind).await;
        intake_is_settled(&all).await;
        mock.assert_clean(kind).await;
    }
    let ids = one_id_each(&all).await;
    for (entity, id) in &ids {
        let sync = json!({ "id": format!("sync-{entity}"), "type": "sync", "store": "main", "entity": entity, "ids": [id] });
        signal(&all, sync).await;
    }
    for entity in ids.keys() {
        ended(&all, &format!("sync-{entity}")).await;
    }
    intake_is_settled(&all).await;
    all.stop().await;
    mock.assert_clean(&format!("sync of {} entities", ids.len())).await;
}

async fn signal(lab: &Lab, signal: Value) {
    lab.send_to(&format!("{}.signals", lab.prefix), "main", signal.to_string()).await;
}

/// Waits for the last notification of a signal, and says what failed.
async fn ended(lab: &Lab, id: &str) {
    let begun = Instant::now();
    loop {
        let told = read_topic(&lab.client, &format!("{}.notifications", lab.prefix)).await;
        let told: Vec<Value> = told.iter().filter_map(json_of).filter(|told| told["id"] == id).collect();
        let is = |told: &Value, ends: &[&str]| {
            ends.iter().any(|end| told["type"].as_str().unwrap().ends_with(end))
        };
        let end =
            told.iter().find(|told| told["entity"].is_null() && is(told, &[".done", ".failed", "rejected"]));
        let end = end
            .or_else(|| told.iter().find(|told| id.starts_with("sync") && is(told, &[".done", ".failed"])));
        if let Some(end) = end {
            for told in told.iter().filter(|told| is(told, &[".failed", "rejected"])) {
                println!("{id}: {} {}: {}", told["type"], told["entity"], told["detail"]);
                let is_excused = told["entity"].is_null() || told["entity"] == "subscriber";
                assert!(is_excused, "{} of {} failed: {}", told["type"], told["entity"], told["detail"]);
            }
            println!(
                "{id}: {} after {:?}: {} rows, {} calls",
                end["type"],
                begun.elapsed(),
                end["rows"],
                end["calls"]
            );
            return;
        }
        assert!(begun.elapsed() < SCANS, "{id} did not end: {:?}", told.last());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until every entity that has a list was polled.
async fn polls_are_done(lab: &Lab) {
    let catalog = Catalog::embedded().unwrap();
    let polled = |entity: &&Arc<Entity>| entity.list.is_some();
    let wanted: Vec<String> =
        catalog.entities().iter().filter(polled).map(|entity| entity.name.clone()).collect();
    let begun = Instant::now();
    loop {
        let metrics = lab.metrics().await;
        let ended = |entity: &&String| {
            let label = format!("entity=\"{entity}\"");
            let tells = |line: &str| {
                line.contains(&label)
                    && (line.starts_with("bcbridge_scan_last_success") || line.contains("given_up"))
            };
            metrics.lines().any(tells)
        };
        let missing: Vec<&String> = wanted.iter().filter(|entity| !ended(entity)).collect();
        if missing.is_empty() {
            let given_up = metrics.lines().filter(|line| line.contains("given_up"));
            given_up.for_each(|line| println!("{line}"));
            println!("{} entities polled after {:?}", wanted.len(), begun.elapsed());
            return;
        }
        assert!(begun.elapsed() < SCANS, "not polled: {missing:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// An id of every entity of which something was published, or callbacks name something.
async fn one_id_each(lab: &Lab) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for record in lab.records("webhooks").await {
        let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
        let Some((entity, id)) = key.split_once('/') else { continue };
        if !entity.contains('~') {
            found.entry(entity.to_owned()).or_insert_with(|| id.to_owned());
        }
    }
    found
}
