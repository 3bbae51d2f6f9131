//! Bad items among those that share requests: what they cost in calls, and that each command is told its own reason.

use std::collections::BTreeMap;

use bcbridge::kafka::topics::{TopicSpec, Topics};
use bcbridge::sandbox::{Chance, Profile, SandboxConfig};
use serde_json::{Value, json};

use crate::bridge_batches::{command, results};
use crate::bridge_lab::{Lab, Setup};
use crate::broker_lab::unique;

/// What takes a place at an endpoint: half of the requests that a store may have under way.
const PLACES: usize = 16;

/// A bridge, a topic of its own for its commands, and how many were sent to it.
struct Bench {
    lab: Lab,
    topic: String,
    sent: usize,
}

impl Bench {
    /// A store with plain products, and a bridge that goes on however many commands fail. Their topic has more partitions
    /// than the ledger.
    async fn start(products: u32) -> Self {
        let (quota, orders, topic) = (100_000, 2, unique("of.bad.batches"));
        let sandbox = SandboxConfig {
            quota,
            bulk_products: products,
            products: 10,
            orders,
            ..SandboxConfig::default()
        };
        let incoming = vec![json!({ "entity": "category" })];
        let outgoing = Some(json!([{ "topic": topic, "store": "main", "stop_at": "off" }]));
        let not_ready: &[_] = &["outgoing"];
        let lab = Lab::start(Setup { sandbox, incoming, outgoing, not_ready, ..Setup::default() }).await;
        let spec =
            TopicSpec { name: topic.clone(), partitions: 7, replication_factor: 1, config: Vec::new() };
        Topics::new(&lab.client).unwrap().ensure(&[spec]).await.unwrap();
        Self { lab, topic, sent: 0 }
    }

    fn calls(&self) -> usize {
        self.lab.control.calls().values().flat_map(|of_path| of_path.values()).sum::<u64>() as usize
    }

    /// Sends commands and waits for their results; returns these and the calls that they cost.
    async fn apply(&mut self, commands: &[(String, Value)]) -> (BTreeMap<String, Value>, usize) {
        let before = self.calls();
        self.lab.send_all_to(&self.topic, commands).await;
        self.sent += commands.len();
        let mut all = results(&self.lab, self.sent).await;
        let spent = self.calls() - before;
        all.retain(|id, _| commands.iter().any(|(own, _)| own == id));
        (all, spent)
    }
}

/// Updates of products, of which some do not exist.
fn updates(what: &str, count: usize, is_bad: impl Fn(usize) -> bool) -> Vec<(String, Value)> {
    let update = |n: usize| {
        let product = if is_bad(n) { 9_000_000 + n } else { n + 11 };
        let (path, payload) = (json!({ "product_id": product }), json!({ "name": format!("{what} {n}") }));
        command(&format!("{what}-{n}"), "product", "update", path, payload)
    };
    (0..count).map(update).collect()
}

fn outcomes(results: &BTreeMap<String, Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for result in results.values() {
        let reason = result["reason"].as_str().unwrap_or("-");
        *counts.entry(format!("{} {reason}", result["outcome"].as_str().unwrap())).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_are_all_bad_cost_hardly_more_than_a_call_each() {
    let mut bench = Bench::start(1_000).await;
    let (results, spent) = bench.apply(&updates("bad", 300, |_| true)).await;
    println!("300 bad commands by {spent} calls");
    assert_eq!(outcomes(&results), [("rejected missing".to_owned(), 300)].into());
    assert!(spent <= 300 + 3 * PLACES, "{spent} calls");
    // What comes after them is good, and travels together again.
    let (results, spent) = bench.apply(&updates("good", 600, |_| false)).await;
    println!("600 good commands by {spent} calls");
    assert_eq!(outcomes(&results), [("applied -".to_owned(), 600)].into());
    assert!(spent <= 60 + 3 * PLACES, "{spent} calls");
    let (results, spent) = bench.apply(&updates("few", 600, |n| n % 100 == 42)).await;
    println!("600 commands with 6 bad ones by {spent} calls");
    assert_eq!(
        outcomes(&results),
        [("applied -".to_owned(), 594), ("rejected missing".to_owned(), 6)].into()
    );
    assert!(spent <= 60 + 6 * 13 + PLACES, "{spent} calls");
    bench.lab.stop().await;
}

/// Faults that leave everything applied in the end, with the calls that 60 commands may cost.
fn passing() -> Vec<(&'static str, Profile, usize)> {
    let strikes = |times| Chance::of(1.0).method("PUT").pattern("/v3/catalog/products").times(times);
    let none = Profile::default;
    vec![
        ("busy", Profile { bare_429: strikes(3), ..none() }, 20),
        ("failing", Profile { status_500: strikes(3), ..none() }, 20),
        ("cut after the commit", Profile { cut_after: strikes(2), ..none() }, 20),
        ("cut short", Profile { truncated: strikes(2), ..none() }, 20),
        ("in the opposite order", Profile { reversed: strikes(60), ..none() }, 20),
        ("one row too few", Profile { shortened: strikes(3), ..none() }, 20),
        ("a page with status 200", Profile { page_200: strikes(2), ..none() }, 20),
        // The last one: what was too large is not tried again for an hour.
        ("too large", Profile { status_413: strikes(1), ..none() }, 40),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_in_the_middle_of_a_batch_leave_each_command_one_result_and_the_store_right() {
    let mut bench = Bench::start(200).await;
    // A scope that is missing is missing for all: nothing is asked again.
    let missing = Chance::of(1.0).method("PUT").path("/v3/catalog/products");
    bench.lab.control.faults(Profile { status_403: missing, ..Profile::default() });
    let (results, spent) = bench.apply(&updates("denied", 60, |_| false)).await;
    assert_eq!(outcomes(&results), [("rejected denied".to_owned(), 60)].into());
    assert!(spent <= 10, "{spent} calls for a scope that is missing");
    for (what, profile, most) in passing() {
        bench.lab.control.faults(profile);
        let commands = updates(what, 60, |_| false);
        let (results, spent) = bench.apply(&commands).await;
        println!("{what}: {spent} calls");
        assert_eq!(outcomes(&results), [("applied -".to_owned(), 60)].into(), "{what}");
        assert!(spent <= most, "{what}: {spent} calls");
        let products = bench.lab.control.state("product").unwrap();
        for (n, (id, command)) in commands.iter().enumerate() {
            let product = (n + 11).to_string();
            assert_eq!(products[&product]["name"], command["payload"]["name"], "{what}");
            assert_eq!(results[id]["resource_id"], product, "{what}: each is told its own row");
        }
    }
    bench.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_in_the_middle_of_a_batch_loses_nothing() {
    let mut bench = Bench::start(200).await;
    let refused = Chance::of(1.0).method("PUT").pattern("/v3/catalog/products").after(1).times(1);
    bench.lab.control.faults(Profile { status_401: refused, ..Profile::default() });
    let (results, spent) = bench.apply(&updates("paused", 60, |_| false)).await;
    assert_eq!(outcomes(&results), [("applied -".to_owned(), 60)].into());
    assert!(spent <= 25, "{spent} calls");
    bench.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_that_are_cut_are_looked_for_and_what_adds_up_is_never_in_a_batch() {
    let mut bench = Bench::start(200).await;
    let cut = |path: &str| Chance::of(1.0).method("POST").pattern(path).times(1);
    bench.lab.control.faults(Profile { cut_after: cut("/v3/customers"), ..Profile::default() });
    let create = |n: usize| {
        let customer =
            json!({ "email": format!("b{n}@example.com"), "first_name": "Ada", "last_name": "Example" });
        command(&format!("customer-{n}"), "customer", "create", json!({}), customer)
    };
    let (results, spent) = bench.apply(&(0..30).map(create).collect::<Vec<_>>()).await;
    println!("30 creates, 10 of them cut: {spent} calls");
    assert_eq!(outcomes(&results), [("applied -".to_owned(), 30)].into());
    let customers = bench.lab.control.state("customer").unwrap();
    let made = |n: usize| customers.values().filter(|c| c["email"] == format!("b{n}@example.com")).count();
    assert!((0..30).all(|n| made(n) == 1), "each exists once");
    assert!(spent <= 3 + 10 * 2 + 3, "{spent} calls");

    let variants: Vec<u64> = bench
        .lab
        .control
        .state("variant")
        .unwrap()
        .keys()
        .filter_map(|id| id.parse().ok())
        .take(12)
        .collect();
    bench
        .lab
        .control
        .faults(Profile { cut_after: cut("/v3/inventory/adjustments/relative"), ..Profile::default() });
    let add = |(n, variant): (usize, &u64)| {
        let item = json!({ "location_id": 1, "variant_id": variant, "quantity": 3 });
        let payload = json!({ "reason": "found", "items": [item] });
        command(&format!("add-{n}"), "inventory_adjustment", "relative", json!({}), payload)
    };
    let commands: Vec<_> = variants.iter().enumerate().map(add).collect();
    let (results, spent) = bench.apply(&commands).await;
    assert_eq!(outcomes(&results), [("applied -".to_owned(), 11), ("unknown in_doubt".to_owned(), 1)].into());
    assert_eq!(spent, 12, "one call for each, and none twice");
    bench.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_does_not_exist_is_missing_alone_and_among_others() {
    let mut bench = Bench::start(10).await;
    let listings = bench.lab.control.state("channel_listing").unwrap();
    let (known, listing) = listings.iter().next().unwrap();
    let (channel, product) = (&listing["channel_id"], &listing["product_id"]);
    let update = |id: &str, listing: &str| {
        let path = json!({ "channel_id": channel, "listing_id": listing });
        let payload = json!({ "product_id": product, "state": "active", "variants": [], "name": format!("Named by {id}") });
        command(id, "channel_listing", "update", path, payload)
    };
    let (results, spent) = bench.apply(&[update("alone", "9000001")]).await;
    assert_eq!(
        (&results["alone"]["outcome"], &results["alone"]["reason"]),
        (&json!("rejected"), &json!("missing"))
    );
    assert_eq!((&results["alone"]["status"], spent), (&json!(200), 1), "{}", results["alone"]);
    let both = [update("bad", "9000002"), update("good", known)];
    let (results, spent) = bench.apply(&both).await;
    assert_eq!(results["bad"]["reason"], "missing");
    assert_eq!(results["good"]["outcome"], "applied", "{}", results["good"]);
    assert!(spent <= 2, "{spent}");
    assert_eq!(bench.lab.control.state("channel_listing").unwrap()[known]["name"], "Named by good");
    bench.lab.stop().await;
}
