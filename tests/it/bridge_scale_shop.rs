//! The store and the commands of `bridge_scale_commands`: what each of them says, and what the store should hold after all.

use std::collections::BTreeMap;

use bcbridge::sandbox::{Control, SandboxConfig};
use bytes::Bytes;
use serde_json::{Value, json};

const PRODUCTS: u32 = 100;
const ORDERS: u32 = 50;

/// What is in the store, and what the last command of each key says.
pub(crate) struct Shop {
    pub(crate) commands: u32,
    pub(crate) variants: Vec<u64>,
    pub(crate) products: Vec<u64>,
    pub(crate) doomed: Vec<u64>,
    pub(crate) customers: Vec<u64>,
    pub(crate) orders: Vec<u64>,
}

/// What a command is about. The numbers are places in the lists of [`Shop`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum About {
    Stock(usize),
    Price(usize),
    Product(usize),
    Customer(usize),
    Order(usize),
    NewCustomer,
    NewCoupon,
    NewMetafield,
    Deleted(usize),
    Poison(u32),
}

/// Ids of a list of the sandbox, in order.
fn ids(control: &Control, entity: &str) -> Vec<u64> {
    let mut ids: Vec<u64> = control.state(entity).unwrap().keys().filter_map(|id| id.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

impl Shop {
    /// The bulk of the products: the first half is updated, of the second each is deleted once at most.
    pub(crate) fn of(control: &Control, commands: u32) -> Self {
        let mut products = ids(control, "product");
        let doomed = products.split_off(products.len() - Self::doomed(commands));
        let first_doomed = doomed[0];
        let owner = control.state("variant").unwrap();
        let variants = owner
            .iter()
            .filter(|(_, variant)| variant["product_id"].as_u64().is_some_and(|id| id < first_doomed))
            .filter_map(|(id, _)| id.parse().ok())
            .collect();
        let (customers, orders) = (ids(control, "customer"), ids(control, "order"));
        Self { commands, variants, products, doomed, customers, orders }
    }

    fn doomed(commands: u32) -> usize {
        (commands / 100).max(1) as usize
    }

    /// The store that so many commands need: a tenth of them have a key of their own.
    pub(crate) fn config(commands: u32) -> SandboxConfig {
        let keys = commands / 10;
        SandboxConfig {
            quota: 10_000_000,
            products: PRODUCTS,
            bulk_products: keys / 2 + Self::doomed(commands) as u32,
            customers: (commands / 100).max(50),
            orders: ORDERS,
            ..SandboxConfig::default()
        }
    }

    /// What command `n` is about: the hundred kinds follow each other, the things are spread.
    pub(crate) fn about(&self, n: u32) -> About {
        let pick = |of: usize| (n as usize / 100 * 7_919 + n as usize % 100) % of;
        match n % 100 {
            42 => About::Poison(n / 100),
            0..50 => About::Stock(pick(self.variants.len())),
            50..70 => About::Price(pick(self.variants.len())),
            70..81 => About::Product(pick(self.products.len())),
            81..87 => About::Customer(pick(self.customers.len())),
            87..90 => About::Order(pick(self.orders.len())),
            90..94 => About::NewCustomer,
            94..96 => About::NewCoupon,
            96..99 => About::NewMetafield,
            _ => About::Deleted(n as usize / 100),
        }
    }

    /// Entity, action, path and payload of command `n`.
    fn parts(&self, n: u32) -> (&'static str, &'static str, Value, Value) {
        let text = format!("step {n}");
        match self.about(n) {
            About::Stock(i) => {
                let item = json!({ "location_id": 1, "variant_id": self.variants[i], "quantity": n });
                ("inventory_adjustment", "absolute", json!({}), json!({ "reason": "count", "items": [item] }))
            }
            About::Price(i) => {
                let record = json!({ "variant_id": self.variants[i], "currency": "USD", "price": n + 1 });
                ("price_list_record", "upsert", json!({ "price_list_id": 1 }), record)
            }
            About::Product(i) => {
                let path = json!({ "product_id": self.products[i] });
                ("product", "update", path, json!({ "description": text }))
            }
            About::Customer(i) => (
                "customer",
                "update",
                json!({ "customer_id": self.customers[i] }),
                json!({ "company": text }),
            ),
            About::Order(i) => {
                ("order", "update", json!({ "order_id": self.orders[i] }), json!({ "staff_notes": text }))
            }
            About::NewCustomer => {
                let customer = json!({ "email": format!("m{n}@example.com"), "first_name": "Ada", "last_name": "Example" });
                ("customer", "create", json!({}), customer)
            }
            About::NewCoupon => {
                let coupon = json!({ "name": format!("Many {n}"), "code": format!("MANY{n}"), "type": "per_item_discount", "amount": "5", "applies_to": { "entity": "categories", "ids": [0] } });
                ("coupon", "create", json!({}), coupon)
            }
            About::NewMetafield => {
                let field = json!({ "namespace": "many", "key": format!("m{n}"), "value": text, "permission_set": "app_only" });
                (
                    "order_metafield",
                    "create",
                    json!({ "order_id": self.orders[n as usize % self.orders.len()] }),
                    field,
                )
            }
            About::Deleted(i) => ("product", "delete", json!({ "product_id": self.doomed[i] }), Value::Null),
            About::Poison(_) => unreachable!("poison has parts of its own"),
        }
    }

    /// The record's key: one for each thing that is changed, so that its commands stay in order.
    pub(crate) fn key(&self, n: u32) -> String {
        match self.about(n) {
            // On the lane of something that is well: what is refused must not hold it up.
            About::Poison(which) => format!("stock-{}", which as usize % self.variants.len()),
            About::Stock(i) => format!("stock-{i}"),
            About::Price(i) => format!("price-{i}"),
            About::Product(i) => format!("product-{i}"),
            About::Customer(i) => format!("customer-{i}"),
            About::Order(i) => format!("order-{i}"),
            About::NewCustomer | About::NewCoupon | About::NewMetafield | About::Deleted(_) => {
                format!("new-{n}")
            }
        }
    }

    /// The record's value, and the reason of its dead letter where it is poison.
    pub(crate) fn value(&self, n: u32) -> (Bytes, Option<&'static str>) {
        let id = format!("m-{n}");
        let About::Poison(which) = self.about(n) else {
            let (entity, action, path, payload) = self.parts(n);
            let mut command = json!({ "id": id, "entity": entity, "action": action, "path": path });
            if !payload.is_null() {
                command["payload"] = payload;
            }
            return (command.to_string().into(), None);
        };
        let update = |path: Value, payload: Value| json!({ "id": id, "entity": "product", "action": "update", "path": path, "payload": payload });
        let product = json!({ "product_id": self.products[which as usize % self.products.len()] });
        let (value, reason) = match which {
            // Few and large, or Kafka holds gigabytes of them.
            0 | 50.. if which % 100 == 50 || which == 0 => {
                (update(product, json!({ "name": 7, "description": "x".repeat(600_000) })), "refused")
            }
            _ => match which % 6 {
                0 => return (Bytes::from_static(b"{not json"), Some("bad_json")),
                1 => (json!({ "id": id, "entity": "unicorn", "action": "update" }), "unknown_entity"),
                2 => (update(json!({ "product_id": "1/../2" }), json!({ "name": "x" })), "bad_id"),
                3 => (update(product, json!({ "name": 7 })), "refused"),
                4 => (update(json!({ "product_id": 99_000_000 + n }), json!({ "name": "x" })), "missing"),
                _ => {
                    let long = "q".repeat(5_000);
                    let mut command = update(product, json!({ "name": "x" }));
                    command["query"] = json!({ "include_fields": long });
                    (command, "bad_field")
                }
            },
        };
        (value.to_string().into(), Some(reason))
    }

    /// How many letters of each reason are due.
    pub(crate) fn letters(&self) -> BTreeMap<String, u64> {
        let mut due = BTreeMap::new();
        for n in (42..self.commands).step_by(100) {
            let reason = self.value(n).1.expect("it is poison");
            *due.entry(reason.to_owned()).or_insert(0) += 1;
        }
        due
    }

    /// The last command about each thing.
    pub(crate) fn last(&self) -> BTreeMap<About, u32> {
        let mut last = BTreeMap::new();
        for n in 0..self.commands {
            if !matches!(self.about(n), About::Poison(_)) {
                last.insert(self.about(n), n);
            }
        }
        last
    }
}
