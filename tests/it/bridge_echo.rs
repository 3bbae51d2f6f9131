//! The bridge knows its own writes again: in the records of one store, and between two stores that mirror each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::model::record::{InRecord, OutRecord};
use bcbridge::sandbox::{Delay, Profile};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, read_topic, until};
use crate::stores_lab::{Bridge, Shop};

fn command(id: &str, entity: &str, action: &str, parts: Value) -> (String, Value) {
    let mut command = json!({ "id": id, "entity": entity, "action": action });
    for (name, value) in parts.as_object().unwrap() {
        command[name] = value.clone();
    }
    (format!("{entity}-{id}"), command)
}

fn key(record: &InRecord) -> &str {
    std::str::from_utf8(record.key.as_deref().unwrap()).unwrap()
}

fn origin(record: &InRecord) -> &str {
    record.header("bc_origin").unwrap()
}

/// The origins of one thing's records, in order, once there are as many as wanted and all callbacks are answered.
async fn origins(lab: &Lab, entity: &str, id: &str, wanted: usize) -> Vec<String> {
    lab.control.quiesce().await;
    until(&format!("{wanted} records of {entity} {id}"), || async {
        let records = lab.records(entity).await;
        let of_it = records.iter().filter(|record| key(record) == id);
        let origins: Vec<String> = of_it.map(|record| origin(record).to_owned()).collect();
        (origins.len() >= wanted).then_some(origins)
    })
    .await
}

/// One change may have several callbacks, and so several records: all of them say the same.
fn assert_all(origins: &[String], wanted: &str) {
    assert!(origins.iter().all(|origin| origin == wanted), "{origins:?}, not {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_changes_is_the_bridges_and_what_others_change_is_the_stores() {
    let lab = Lab::start(Setup::default()).await;
    let order = lab.control.place_order(2, &[1]).unwrap();
    let placed = origins(&lab, "order", &order.to_string(), 1).await;
    assert_all(&placed, "store");
    let product = json!({ "name": "Made", "type": "physical", "weight": 1, "price": 9.5, "sku": "ECHO-1" });
    let customer = json!({ "email": "ada@example.com", "first_name": "Ada", "last_name": "Example" });
    let items = json!([{ "location_id": 1, "variant_id": 5, "quantity": 77 }]);
    lab.send(&[
        command("create", "product", "create", json!({ "payload": product })),
        command(
            "update",
            "product",
            "update",
            json!({ "path": { "product_id": 7 }, "payload": { "name": "Ours" } }),
        ),
        command("delete", "product", "delete", json!({ "path": { "product_id": 8 } })),
        command("customer", "customer", "create", json!({ "payload": customer })),
        command(
            "order",
            "order",
            "update",
            json!({ "path": { "order_id": order }, "payload": { "staff_notes": "ours" } }),
        ),
        command(
            "stock",
            "inventory_adjustment",
            "absolute",
            json!({ "payload": { "reason": "erp", "items": items } }),
        ),
    ])
    .await;
    lab.control.update("product", 17, json!({ "name": "Theirs" })).unwrap();
    lab.control.delete("product", 18).unwrap();
    let results = lab.results(6).await;
    let id = |command: &str| results[command]["resource_id"].as_str().unwrap().to_owned();
    assert_all(&origins(&lab, "product", &id("create"), 1).await, "bridge:create");
    assert_all(&origins(&lab, "product", "7", 1).await, "bridge:update");
    assert_all(&origins(&lab, "product", "8", 1).await, "bridge:delete");
    assert_all(&origins(&lab, "customer", &id("customer"), 1).await, "bridge:customer");
    assert_all(
        &origins(&lab, "order", &order.to_string(), placed.len() + 1).await[placed.len()..],
        "bridge:order",
    );
    assert_all(&origins(&lab, "inventory_item", "5", 1).await, "bridge:stock");
    assert_all(&origins(&lab, "product", "17", 1).await, "store");
    assert_all(&origins(&lab, "product", "18", 1).await, "store");

    // Somebody else, a moment later: of what the bridge wrote, and of what its reply did not even show.
    let before = origins(&lab, "product", "7", 1).await.len();
    lab.control.update("product", 7, json!({ "price": 77.5 })).unwrap();
    assert_all(&origins(&lab, "product", "7", before + 1).await[before..], "store");
    // The bridge again, and then a deletion by somebody else.
    let before = origins(&lab, "product", "7", 1).await.len();
    lab.send(&[command(
        "again",
        "product",
        "update",
        json!({ "path": { "product_id": 7 }, "payload": { "name": "Ours again" } }),
    )])
    .await;
    lab.results(7).await;
    assert_all(&origins(&lab, "product", "7", before + 1).await[before..], "bridge:again");
    let before = origins(&lab, "product", "7", 1).await.len();
    lab.control.delete("product", 7).unwrap();
    assert_all(&origins(&lab, "product", "7", before + 1).await[before..], "store");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_shows_the_bridges_write_and_anothers_change_is_the_stores() {
    let slow = json!({ "entity": "product", "quiet": "2s", "max_wait": "10s" });
    let lab = Lab::start(Setup { incoming: vec![slow], ..Setup::default() }).await;
    lab.send(&[command(
        "ours",
        "product",
        "update",
        json!({ "path": { "product_id": 7 }, "payload": { "name": "Ours" } }),
    )])
    .await;
    lab.results(1).await;
    lab.control.update("product", 7, json!({ "price": 77.5 })).unwrap();
    assert_all(&origins(&lab, "product", "7", 1).await, "store");
    let record = lab.last("product").await.remove("7").flatten().unwrap();
    assert_eq!((&record["name"], &record["price"]), (&json!("Ours"), &json!(77.5)));
    lab.stop().await;
}

/// 200 writes, as fast as they go; their callbacks come after half a second, sooner than BigCommerce's do. Without that
/// half second a note that is late on a busy machine loses the race once in 200 writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_callback_overtakes_its_note() {
    const WRITES: u64 = 200;
    let lab = Lab::start(Setup { incoming: vec![json!({ "entity": "product" })], ..Setup::default() }).await;
    lab.control.faults(Profile { callback_delay: Delay::between(500, 1_000), ..Profile::default() });
    lab.control.seed_products(200);
    let write = |n: u64| {
        let parts =
            json!({ "path": { "product_id": n }, "payload": { "description": format!("by command {n}") } });
        command(&format!("c-{n}"), "product", "update", parts)
    };
    lab.send(&(1..=WRITES).map(write).collect::<Vec<_>>()).await;
    let results = lab.results(usize::try_from(WRITES).unwrap()).await;
    assert!(results.values().all(|result| result["outcome"] == "applied"));
    lab.control.quiesce().await;
    let records = until("all are published", || async {
        let records = lab.records("product").await;
        let keys: BTreeSet<&str> = records.iter().map(key).collect();
        (keys.len() == results.len()).then_some(records)
    })
    .await;
    let missed: Vec<&str> =
        records.iter().filter(|r| origin(r) != format!("bridge:c-{}", key(r))).map(key).collect();
    println!("{} records of {WRITES} writes, {} not known for the bridge's", records.len(), missed.len());
    assert!(missed.is_empty(), "{missed:?}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echoes_that_nobody_wants_leave_no_record_and_are_accounted_for() {
    let entity = json!({ "entity": "product", "suppress_echo": true });
    let lab = Lab::start(Setup { incoming: vec![entity], ..Setup::default() }).await;
    let update = |id: &str, product: u64| {
        let parts = json!({ "path": { "product_id": product }, "payload": { "name": format!("Ours {id}") } });
        command(id, "product", "update", parts)
    };
    lab.send(&[
        update("a", 7),
        update("b", 8),
        command("c", "product", "delete", json!({ "path": { "product_id": 9 } })),
    ])
    .await;
    lab.results(3).await;
    lab.control.quiesce().await;
    until("the echoes are counted", || async {
        let metrics = lab.metrics().await;
        let echoes = metrics
            .lines()
            .find_map(|l| l.strip_prefix("bcbridge_hints_total{outcome=\"echo\"}"))
            .map(|l| l.trim().parse::<f64>().unwrap());
        (echoes.unwrap_or(0.0) >= 3.0).then_some(())
    })
    .await;
    lab.control.update("product", 7, json!({ "price": 77.5 })).unwrap();
    assert_all(&origins(&lab, "product", "7", 1).await, "store");
    let keys: Vec<String> = lab.records("product").await.iter().map(|r| key(r).to_owned()).collect();
    assert!(keys.iter().all(|key| key == "7"), "{keys:?}");
    lab.stop().await;
}

/// The store's paths are stopped and started between a write and its callbacks, and again before one comes a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_a_write_and_its_callback_forgets_nothing() {
    let shop = Shop::open("east").await;
    let bridge = Bridge::start(&[shop.entry()]).await;
    shop.control.faults(Profile { callback_delay: Delay::between(8_000, 8_000), ..Profile::default() });
    let (key, value) = command(
        "ours",
        "product",
        "update",
        json!({ "path": { "product_id": 7 }, "payload": { "name": "Ours" } }),
    );
    let producer = IntakeProducer::new(bridge.client.clone(), Duration::from_secs(10)).unwrap();
    let record = OutRecord {
        topic: bridge.topic("east", "commands").into(),
        partition: None,
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    producer.append(vec![record], Duration::from_secs(30)).await.unwrap();
    until("the command's result", || async {
        let results = read_topic(&bridge.client, &bridge.topic("east", "results")).await;
        (results.len() == 1).then_some(())
    })
    .await;
    let topic = bridge.topic("east", "product");
    for (restart, wanted) in [(1, 1), (2, 2)] {
        assert!(
            read_topic(&bridge.client, &topic).await.len() < wanted,
            "the callback came before the restart"
        );
        let mut entry = shop.entry();
        entry["budget"] = json!({ "reserve": format!("{restart}%") });
        assert_eq!(bridge.reload(&[entry]).await.0, 200);
        until("the store is back", || async { bridge.readiness.waiting_for().is_empty().then_some(()) })
            .await;
        if restart == 2 {
            assert_eq!(bridge.post(&shop.callback("msg_late", 7)).await, 200);
        }
        let records = until("the record", || async {
            let records = read_topic(&bridge.client, &topic).await;
            (records.len() >= wanted).then_some(records)
        })
        .await;
        assert!(records.iter().all(|record| origin(record) == "bridge:ours"));
    }
    bridge.stop().await;
    shop.close().await;
}

/// Two stores whose products are written into each other.
struct Mirror {
    bridge: Bridge,
    shops: [Shop; 2],
}

/// Products that each side changes.
const EACH: u64 = 15;

impl Mirror {
    async fn start(change: impl FnOnce(&mut Value)) -> Self {
        let shops = [Shop::open("east").await, Shop::open("west").await];
        let bridge = Bridge::start_with(&[shops[0].entry(), shops[1].entry()], change).await;
        Self { bridge, shops }
    }

    /// Products that the bridge wrote to the store; one request may hold several.
    fn writes(&self, shop: usize) -> usize {
        let history = self.shops[shop].control.history();
        let of_products = history.iter().filter(|write| write.path.starts_with("/v3/catalog/products"));
        of_products.map(|write| write.body.as_ref().and_then(Value::as_array).map_or(1, Vec::len)).sum()
    }

    /// Each store's staff changes `EACH` products of its own, one after the other, and then the other's.
    async fn change_and_settle(&self) {
        for round in 0..2_u64 {
            for n in 1..=EACH {
                for (at, shop) in self.shops.iter().enumerate() {
                    let product = if (u64::try_from(at).unwrap() + round) % 2 == 0 { n } else { EACH + n };
                    let name = format!("{} {round} {n}", shop.name);
                    shop.control
                        .update(
                            "product",
                            product,
                            json!({ "name": name, "price": 10.0 + 0.25 * (round * EACH + n) as f64 }),
                        )
                        .unwrap();
                }
            }
            let wanted = usize::try_from(EACH * (round + 1)).unwrap();
            until("both stores hold the other's changes", || async {
                (self.writes(0) >= wanted && self.writes(1) >= wanted && self.is_same()).then_some(())
            })
            .await;
        }
        // A loop would go on: as long as several of its turns take, nothing more is written.
        for shop in &self.shops {
            shop.control.quiesce().await;
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let changes = usize::try_from(2 * EACH).unwrap();
        assert_eq!((self.writes(0), self.writes(1)), (changes, changes), "each change is written once");
        assert!(self.is_same());
    }

    fn is_same(&self) -> bool {
        let products = |shop: &Shop| -> BTreeMap<String, (Value, Value)> {
            let state = shop.control.state("product").unwrap();
            state.into_iter().map(|(id, row)| (id, (row["name"].clone(), row["price"].clone()))).collect()
        };
        products(&self.shops[0]) == products(&self.shops[1])
    }

    async fn stop(self) {
        self.bridge.stop().await;
        for shop in self.shops {
            shop.close().await;
        }
    }
}

/// Settings of a mirror: each store's products are commands to the other one, as far as `filter` lets them.
fn mirrored(text: &mut Value, incoming: Value, filter: &str) {
    let prefix = text["kafka"]["prefix"].as_str().unwrap().to_owned();
    let route = |from: &str, to: &str| {
        json!({
            "topic": format!("{prefix}.{from}.product"), "store": to, "entity": "product", "action": "update",
            "filter": filter, "transform": "{path: {product_id: .id}, payload: {name: .name, price: .price}}",
        })
    };
    text["incoming"] = json!([incoming]);
    text["outgoing"] = json!([route("east", "west"), route("west", "east")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_that_drop_their_echoes_mirror_each_other_without_a_loop() {
    let entity = json!({ "entity": "product", "suppress_echo": true });
    let mirror = Mirror::start(|text| mirrored(text, entity, "true")).await;
    mirror.change_and_settle().await;
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_whose_echoes_are_left_out_by_their_origin_mirror_each_other_without_a_loop() {
    let is_of_others = "$headers.bc_origin | startswith(\"bridge:\") | not";
    let mirror = Mirror::start(|text| mirrored(text, json!({ "entity": "product" }), is_of_others)).await;
    mirror.change_and_settle().await;
    for shop in &mirror.shops {
        let records = read_topic(&mirror.bridge.client, &mirror.bridge.topic(shop.name, "product")).await;
        let own = records.iter().filter(|record| origin(record).starts_with("bridge:")).count();
        assert!(own > 0, "the echoes are on the topic");
    }
    mirror.stop().await;
}
