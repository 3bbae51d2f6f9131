//! Commands of many keys share requests: as few calls as the store's maxima allow, one result each, and one that the
//! store refuses harms none that stands beside it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bcbridge::sandbox::SandboxConfig;
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, json_of};

/// Levels of stock and price records; `BCBRIDGE_SCALE` (the levels, of which a fifth are records) overrides them. What
/// is asked for is 100,000 and 20,000.
const LEVELS: usize = 5_000;
const RECORDS: usize = 1_000;
/// Items that the store takes in one request.
const LEVELS_MAX: usize = 2_000;
const RECORDS_MAX: usize = 1_000;
/// Commands appended at once.
const CHUNK: usize = 5_000;

fn scale() -> Option<usize> {
    std::env::var("BCBRIDGE_SCALE").ok()?.parse().ok()
}

/// A store with plain products, in a bridge that reads next to nothing.
async fn lab(products: usize, quota: u32) -> Lab {
    let bulk_products = u32::try_from(products).unwrap();
    let (products, orders) = (10, 0);
    let sandbox = SandboxConfig { quota, bulk_products, products, orders, ..SandboxConfig::default() };
    let incoming = vec![json!({ "entity": "category" })];
    Lab::start(Setup { sandbox, incoming, ..Setup::default() }).await
}

pub(crate) fn command(id: &str, entity: &str, action: &str, path: Value, payload: Value) -> (String, Value) {
    let command = json!({ "id": id, "entity": entity, "action": action, "path": path, "payload": payload });
    (id.to_owned(), command)
}

fn level(id: &str, variant: u64, quantity: u64) -> (String, Value) {
    let item = json!({ "location_id": 1, "variant_id": variant, "quantity": quantity });
    command(id, "inventory_adjustment", "absolute", json!({}), json!({ "reason": "count", "items": [item] }))
}

fn record(id: &str, variant: u64, price: Value) -> (String, Value) {
    let payload = json!({ "variant_id": variant, "currency": "USD", "price": price });
    command(id, "price_list_record", "upsert", json!({ "price_list_id": 1 }), payload)
}

/// The results by id, each of which came once.
pub(crate) async fn results(lab: &Lab, count: usize) -> BTreeMap<String, Value> {
    let begun = Instant::now();
    let patience = Duration::from_secs(120 + count as u64 / 100);
    loop {
        let results: Vec<Value> = lab.records("results").await.iter().filter_map(json_of).collect();
        if results.len() >= count {
            let by_id: BTreeMap<String, Value> = results
                .into_iter()
                .map(|result| (result["id"].as_str().unwrap().to_owned(), result))
                .collect();
            assert_eq!(by_id.len(), count, "a command has two results");
            return by_id;
        }
        assert!(begun.elapsed() < patience, "{} of {count} results after {patience:?}", results.len());
        tokio::time::sleep(Duration::from_millis(500 + count as u64 / 20)).await;
    }
}

/// Calls to a path so far, whatever came of them.
fn calls(lab: &Lab, path: &str) -> usize {
    lab.control.calls().get(path).into_iter().flat_map(|of_path| of_path.values()).sum::<u64>() as usize
}

/// At most 1.3 times what the maxima require. Of few calls that is none too many, so the first and the last, which
/// wait for nothing more to come, may be two further ones.
fn allowed(commands: usize, max: usize) -> usize {
    let least = commands.div_ceil(max);
    (least * 13 / 10).max(least + 2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_levels_and_prices_need_hardly_more_calls_than_their_maxima_require() {
    let (levels, records) = scale().map_or((LEVELS, RECORDS), |levels| (levels, levels / 5));
    let lab = lab(levels, 150).await;
    let variants: Vec<u64> =
        lab.control.state("variant").unwrap().keys().rev().filter_map(|id| id.parse().ok()).collect();
    let mut commands: Vec<_> =
        (0..levels).map(|n| level(&format!("l-{n}"), variants[n], n as u64 % 500)).collect();
    commands.extend((0..records).map(|n| record(&format!("r-{n}"), variants[n], json!(n % 90 + 1))));
    let begun = Instant::now();
    for chunk in commands.chunks(CHUNK) {
        lab.send(chunk).await;
    }
    let results = results(&lab, levels + records).await;
    let took = begun.elapsed();
    let (of_levels, of_records) = (
        calls(&lab, "/v3/inventory/adjustments/absolute"),
        calls(&lab, "/v3/pricelists/{price_list_id}/records"),
    );
    println!("{levels} levels by {of_levels} calls, {records} records by {of_records} calls, in {took:?}");
    for (id, result) in &results {
        assert_eq!(
            (&result["outcome"], &result["attempts"]),
            (&json!("applied"), &json!(1)),
            "{id}: {result}"
        );
    }
    assert_eq!(lab.control.stats().status_429, 0);
    assert!(of_levels <= allowed(levels, LEVELS_MAX), "{of_levels} calls for {levels} levels");
    assert!(of_records <= allowed(records, RECORDS_MAX), "{of_records} calls for {records} records");
    let items = lab.control.state("inventory_item").unwrap();
    for (n, variant) in variants.iter().take(levels).enumerate() {
        let onhand = &items[&variant.to_string()]["locations"][0]["total_inventory_onhand"];
        assert_eq!(onhand, n % 500, "variant {variant}");
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_a_hundred_is_refused_for_its_own_reason_and_none_beside_it() {
    let lab = lab(1_000, 100_000).await;
    let variants: Vec<u64> =
        lab.control.state("variant").unwrap().keys().filter_map(|id| id.parse().ok()).collect();
    let is_bad = |n: usize| n % 100 == 42;
    let mut commands = Vec::new();
    for (n, variant) in variants.iter().copied().enumerate().take(600) {
        let bad = is_bad(n);
        commands.push(level(&format!("level-{n}"), if bad { 9_000_000 + n as u64 } else { variant }, 5));
        commands.push(record(
            &format!("record-{n}"),
            variant,
            if bad { json!(["no price"]) } else { json!(n + 1) },
        ));
        let path = json!({ "product_id": n + 11 });
        let name = if bad { json!(7) } else { json!(format!("Renamed {n}")) };
        commands.push(command(&format!("product-{n}"), "product", "update", path, json!({ "name": name })));
        let email = if bad { json!(7) } else { json!(format!("c{n}@example.com")) };
        let customer = json!({ "email": email, "first_name": "Ada", "last_name": "Example" });
        if n < 300 {
            commands.push(command(&format!("customer-{n}"), "customer", "create", json!({}), customer));
        }
    }
    lab.send(&commands).await;
    let results = results(&lab, commands.len()).await;
    for (id, result) in &results {
        let (kind, n) = id.split_once('-').unwrap();
        if !is_bad(n.parse().unwrap()) {
            assert_eq!(result["outcome"], "applied", "{id}: {result}");
            continue;
        }
        assert_eq!(
            (&result["outcome"], &result["status"]),
            (&json!("rejected"), &json!(422)),
            "{id}: {result}"
        );
        let body = &result["body"];
        let reason = match kind {
            "level" => &body["errors"]["items.0.identity"],
            "record" => &body["batch_errors"][0]["field_errors"]["price"],
            "product" => &body["errors"]["name"],
            _ => &body["errors"]["0.email"],
        };
        assert!(reason.is_string(), "{id}: {result}");
    }
    let customers = lab.control.state("customer").unwrap();
    let made =
        customers.values().filter(|c| c["email"].as_str().unwrap_or_default().ends_with("@example.com"));
    let mut emails: Vec<&str> =
        made.filter_map(|c| c["email"].as_str()).filter(|e| e.starts_with('c')).collect();
    emails.sort_unstable();
    emails.dedup();
    println!("{} commands by {} calls", results.len(), lab.control.stats().calls);
    assert!(emails.len() >= 297, "{} customers", emails.len());
    assert!(lab.control.stats().calls < commands.len() as u64 / 2, "{} calls", lab.control.stats().calls);
    lab.stop().await;
}
