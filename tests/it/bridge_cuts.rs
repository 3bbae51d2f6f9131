//! Creates whose connection is cut: what has a natural key has one effect, what has none has at most one, and a person is
//! told of it.

use std::collections::BTreeMap;

use bcbridge::sandbox::{Chance, Only, Profile, SandboxConfig};
use serde_json::{Value, json};

use crate::bridge_batches::{command, results};
use crate::bridge_lab::{Lab, Setup};

/// Creates, one half with a natural key; `BCBRIDGE_CREATES` overrides it. What the line asks for is 2,000.
const CREATES: usize = 64;
/// Kinds of creates of each class.
const KINDS: usize = 4;
/// Stock of every variant that is changed by an amount.
const LEVEL: i64 = 500;

fn scale() -> usize {
    std::env::var("BCBRIDGE_CREATES").ok().and_then(|n| n.parse().ok()).unwrap_or(CREATES)
}

/// A store with an order to ship, and a variant to count, for each command.
async fn lab(each: usize) -> Lab {
    let bulk_products = u32::try_from(each).unwrap();
    let sandbox = SandboxConfig { quota: 1_000_000, bulk_products, orders: 5, ..SandboxConfig::default() };
    let incoming = vec![json!({ "entity": "category" })];
    Lab::start(Setup { sandbox, incoming, ..Setup::default() }).await
}

/// A create that has a natural key.
fn keyed(n: usize) -> (String, Value) {
    let name = format!("cut-{n}");
    let (entity, path, payload) = match n % KINDS {
        0 => (
            "product",
            json!({}),
            json!({ "name": name, "sku": name, "type": "physical", "weight": 1, "price": 1 }),
        ),
        1 => (
            "customer",
            json!({}),
            json!({ "email": format!("{name}@example.com"), "first_name": "Ada", "last_name": "Example" }),
        ),
        2 => (
            "coupon",
            json!({}),
            json!({ "name": name, "code": name, "type": "per_item_discount", "amount": "5", "applies_to": { "entity": "categories", "ids": [0] } }),
        ),
        _ => (
            "product_metafield",
            json!({ "product_id": n % 50 + 1 }),
            json!({ "namespace": "cut", "key": name, "value": "1", "permission_set": "app_only" }),
        ),
    };
    command(&format!("b-{n}"), entity, "create", path, payload)
}

/// What the creates without a natural key are about.
struct Unkeyed {
    /// Orders, each with its address and its line.
    orders: Vec<(u64, Value, Value)>,
    variants: Vec<u64>,
}

impl Unkeyed {
    fn of(lab: &Lab, each: usize) -> Self {
        let made: Vec<u64> =
            (0..each).map(|n| lab.control.place_order(n as u64 % 50 + 1, &[1]).unwrap()).collect();
        let by_order = |entity: &str| -> BTreeMap<u64, Value> {
            let rows = lab.control.state(entity).unwrap().into_values();
            rows.map(|row| (row["order_id"].as_u64().unwrap(), row["id"].clone())).collect()
        };
        let (lines, addresses) = (by_order("order_product"), by_order("order_shipping_address"));
        let orders = made.into_iter().map(|id| (id, addresses[&id].clone(), lines[&id].clone())).collect();
        let ids = lab.control.state("variant").unwrap();
        let mut variants: Vec<u64> = ids.keys().filter_map(|id| id.parse().ok()).collect();
        variants.sort_unstable();
        let variants = variants.split_off(variants.len() - each);
        for variant in &variants {
            assert!(lab.control.set_stock(*variant, LEVEL));
        }
        Self { orders, variants }
    }

    fn command(&self, n: usize) -> (String, Value) {
        let (id, place) = (format!("c-{n}"), n / 3);
        match n % 3 {
            0 => {
                let (order, address, line) = &self.orders[place];
                let items = json!([{ "order_product_id": line, "quantity": 1 }]);
                let payload = json!({ "order_address_id": address, "items": items });
                command(&id, "shipment", "create", json!({ "order_id": order }), payload)
            }
            1 => {
                let address = json!({ "first_name": "Ada", "last_name": "Example", "street_1": "1 Example Street", "city": "Austin", "state": "Texas", "zip": "78701", "country": "United States", "country_iso2": "US", "email": "ada@example.com" });
                let payload = json!({ "customer_message": id, "billing_address": address, "products": [{ "product_id": 1, "quantity": 1 }] });
                command(&id, "order", "create", json!({}), payload)
            }
            _ => {
                let item = json!({ "location_id": 1, "variant_id": self.variants[place], "quantity": 1 });
                let payload = json!({ "reason": "delivery", "items": [item] });
                command(&id, "inventory_adjustment", "relative", json!({}), payload)
            }
        }
    }

    /// How often each command had its effect.
    fn effects(&self, lab: &Lab, count: usize) -> Vec<i64> {
        let state = |entity: &str| lab.control.state(entity).unwrap();
        let (shipments, orders, stock) = (state("order_shipment"), state("order"), state("inventory_item"));
        let times = |rows: &BTreeMap<String, Value>, field: &str, wanted: Value| {
            rows.values().filter(|row| row[field] == wanted).count() as i64
        };
        let of = |n: usize| match n % 3 {
            0 => times(&shipments, "order_id", json!(self.orders[n / 3].0)),
            1 => times(&orders, "customer_message", json!(format!("c-{n}"))),
            _ => {
                let row = &stock[&self.variants[n / 3].to_string()];
                row["locations"][0]["total_inventory_onhand"].as_i64().unwrap() - LEVEL
            }
        };
        (0..count).map(of).collect()
    }
}

/// How often each thing with a natural key is there.
fn made(lab: &Lab, count: usize) -> BTreeMap<String, usize> {
    let mut made: BTreeMap<String, usize> = (0..count).map(|n| (format!("cut-{n}"), 0)).collect();
    let kinds = [("product", "sku"), ("customer", "email"), ("coupon", "code"), ("product_metafield", "key")];
    for (entity, field) in kinds {
        for row in lab.control.state(entity).unwrap().into_values() {
            let name = row[field].as_str().unwrap_or_default();
            if let Some(times) = made.get_mut(name.trim_end_matches("@example.com")) {
                *times += 1;
            }
        }
    }
    made
}

/// Sends both halves under a profile, and checks how often each had its effect.
async fn cut(profile: Profile) {
    let half = scale() / 2;
    let lab = lab(half / 3 + 1).await;
    let unkeyed = Unkeyed::of(&lab, half / 3 + 1);
    lab.control.faults(profile);
    let commands: Vec<_> = (0..half).flat_map(|n| [keyed(n), unkeyed.command(n)]).collect();
    let begun = std::time::Instant::now();
    lab.send(&commands).await;
    let results = results(&lab, 2 * half).await;
    let took = begun.elapsed();
    // Late ones take effect at last, whatever was answered.
    lab.control.quiesce().await;
    for n in 0..half {
        let result = &results[&format!("b-{n}")];
        assert_eq!((&result["outcome"], &result["class"]), (&json!("applied"), &json!("B")), "{result}");
        assert!(result["resource_id"].is_string(), "{result}");
        let result = &results[&format!("c-{n}")];
        assert_eq!((&result["outcome"], &result["class"]), (&json!("unknown"), &json!("C")), "{result}");
        assert_eq!(result["reason"], "in_doubt", "{result}");
    }
    let not_once: Vec<_> = made(&lab, half).into_iter().filter(|(_, times)| *times != 1).collect();
    assert!(not_once.is_empty(), "of class B, not there once: {not_once:?}");
    let effects = unkeyed.effects(&lab, half);
    let repeated: Vec<_> =
        effects.iter().enumerate().filter(|(_, times)| !(0..=1).contains(*times)).collect();
    assert!(repeated.is_empty(), "of class C, repeated: {repeated:?}");
    let stats = lab.control.stats();
    println!(
        "{half} creates of class B, each applied once; {half} of class C, all parked, {} with an effect; {} calls, {} cut, \
         {} late commits, in {took:.1?}",
        effects.iter().sum::<i64>(),
        stats.calls,
        stats.cut,
        stats.late_commits,
    );
    assert!(stats.cut > 0);
    assert_eq!(lab.records("dlq").await.len(), half, "those of class C, for a person");
    lab.stop().await;
}

/// The judge's case: the store committed what the bridge never got an answer to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_whose_connection_is_cut_after_the_commit_happen_once() {
    cut(Profile { cut_after: Chance::of(1.0).only(Only::Writes), ..Profile::default() }).await;
}

/// Worse: a third is committed only after the first look, and lists show what was created late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_that_are_committed_late_or_show_up_late_happen_once() {
    let writes = |share: f64| Chance::of(share).only(Only::Writes);
    cut(Profile {
        late_commit: writes(0.3),
        cut_after: writes(1.0),
        created_lag_ms: 1_500,
        ..Profile::default()
    })
    .await;
}
