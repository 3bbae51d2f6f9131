//! What the bridge asks of BigCommerce, judged by BigCommerce's OpenAPI files: `BCBRIDGE_OPENAPI_MOCK` names a mock
//! that `scripts/openapi-mock` started (tests/openapi-mock); without it these tests pass and say that they did nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bcbridge::catalog::Catalog;
use bcbridge::model::hint::Op;
use bcbridge::receiver::verify::sign;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bridge_lab::{Lab, Setup, json_of, until};
use crate::payloads::{Payload, payloads};

/// How many things each event happens to: enough for reads of many at once.
const THINGS: u64 = 5;

/// As far apart as the ids of two things are; above the ids of the fixture.
const STEP: u64 = 20_000;

/// Posted side by side, as BigCommerce does.
const AT_ONCE: usize = 32;

/// Where a file contradicts its own text: operation, what the fault holds, and why it is let through.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "GET /v3/customers/subscribers",
    "must have required property 'id'",
    "the text calls `id` a filter, the schema demands it: no list could be read otherwise",
)];

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

    /// Fails unless something was asked, and all of it fits the files.
    async fn assert_clean(&self) {
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
        excused.iter().for_each(|fault| println!("let through: {fault}"));
        let operations = stats["operations"].as_object().unwrap();
        for (operation, count) in operations {
            println!("{count:>6} {operation}");
        }
        println!("{} requests to {} operations accepted", stats["accepted"], operations.len());
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        assert!(!operations.is_empty(), "the bridge asked for nothing");
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

/// Posts signed callbacks until all are taken.
async fn post(lab: &Lab, client: &reqwest::Client, wanted: Vec<Payload>) {
    let mut posted = JoinSet::new();
    for (number, payload) in wanted.into_iter().enumerate() {
        if posted.len() == AT_ONCE {
            posted.join_next().await.unwrap().unwrap();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (id, body) = (format!("msg_{number}_{now}"), payload.body(&Setup::default().sandbox.store_hash));
        let signature = sign(lab.secret.as_bytes(), &id, i64::try_from(now).unwrap(), &body);
        let request = client
            .post(format!("http://{}/webhooks/main", lab.receiver))
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body);
        posted.spawn(async move {
            let status = request.send().await.unwrap().status();
            assert_eq!(status, 200, "{payload:?}");
        });
    }
    while let Some(done) = posted.join_next().await {
        done.unwrap();
    }
}

/// Waits until the bridge has settled everything in the intake.
async fn intake_is_settled(lab: &Lab) {
    let topic = lab.topic("webhooks");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", lab.client.bootstrap_servers())
        .set("group.id", format!("{}.main.incoming", lab.prefix))
        .create()
        .unwrap();
    let consumer = std::sync::Arc::new(consumer);
    until("the intake is settled", || async {
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
        let is_settled = |(partition, end): (&i32, &i64)| {
            committed.find_partition(&topic, *partition).map(|found| found.offset())
                == Some(Offset::Offset(*end))
        };
        ends.iter().all(is_settled).then_some(())
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

/// One event for each entity, then every event of the fixture, of several things each; the end of the store comes
/// last.
async fn callbacks(lab: &Lab, client: &reqwest::Client) {
    let (ends, others): (Vec<Payload>, Vec<Payload>) =
        payloads().into_iter().partition(|payload| payload.scope == "store/app/uninstalled");
    post(lab, client, one_of_each_entity(&others)).await;
    intake_is_settled(lab).await;
    let things = (1..=THINGS).flat_map(|n| others.iter().map(move |payload| payload.of_another(n * STEP)));
    post(lab, client, things.collect()).await;
    intake_is_settled(lab).await;
    post(lab, client, ends).await;
    intake_is_settled(lab).await;
}

/// Callbacks that became dead letters although the catalogue knows their scope: reason and scope, how many.
async fn dead_letters(lab: &Lab) -> BTreeMap<(String, String), usize> {
    let catalog = Catalog::embedded().unwrap();
    let mut found = BTreeMap::new();
    for letter in lab.records("dlq").await {
        let reason = letter.header("bc_dlq_reason").unwrap_or_default().to_owned();
        let scope =
            json_of(&letter).and_then(|body| Some(body["scope"].as_str()?.to_owned())).unwrap_or_default();
        if reason != "quarantined" || catalog.scope(&scope).is_some() {
            *found.entry((reason, scope)).or_default() += 1;
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_of_the_bridge_breaks_the_specification() {
    let Some(mock) = Mock::named() else { return };
    mock.reset().await;
    let lab = Lab::start(Setup { store: json!({ "base_uri": mock.url }), ..Setup::default() }).await;
    callbacks(&lab, &mock.client).await;
    let letters = dead_letters(&lab).await;
    lab.stop().await;
    mock.assert_clean().await;
    assert!(letters.is_empty(), "not read: {letters:#?}");
}
