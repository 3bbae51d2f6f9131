//! The world outside: shoppers who change the store, and callbacks about it that come late, twice, or in the
//! wrong order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::broker::{Broker, INTAKE};
use super::store::{Kind, POISON, State, Truth};
use super::world::World;
use crate::catalog::Catalog;
use crate::incoming::decode::{IntakeTopics, Received, intake_records};
use crate::model::record::OutRecord;

const PRODUCTS: u64 = 24;
const ORDERS: u64 = 16;

/// What a callback was about.
#[derive(Debug, Clone)]
pub(super) struct Emitted {
    /// Its id.
    pub(super) event: String,
    /// What changed.
    pub(super) kind: Kind,
    /// The thing that the callback names: for stock, the product.
    pub(super) id: u64,
    /// For stock, the named variants; none for all.
    pub(super) rows: Option<Vec<u64>>,
    /// The hidden counter at that time.
    pub(super) counter: Option<u64>,
}

impl Emitted {
    const fn new(kind: Kind, id: u64, rows: Option<Vec<u64>>, state: State) -> Self {
        Self { event: String::new(), kind, id, rows, counter: state.counter() }
    }
}

/// How a run's shoppers behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// Between two changes, in milliseconds.
    pub(super) pause_ms: u64,
    /// Callbacks come at most so late, in milliseconds.
    pub(super) late_ms: u64,
    /// How likely a callback comes again.
    pub(super) repeats: f64,
    /// An entity is left alone for so long after a change: what changes twice in a second of its date cannot be
    /// told apart by a replica's reader.
    pub(super) rest_ms: i64,
}

/// See the module's text.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) world: World,
    pub(super) broker: Broker,
    pub(super) truth: Arc<Mutex<Truth>>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) emitted: Arc<Mutex<Vec<Emitted>>>,
    pub(super) habits: Habits,
}

impl Load {
    /// Opens the shop.
    pub(super) fn stock_up(&self) {
        let (mut truth, now) = (self.truth.lock().unwrap(), self.world.now_ms() - 3_600_000);
        for id in 1..=PRODUCTS {
            truth.change(Kind::Product, id, now, State::Here);
            for variant in 1..=2 {
                truth.add_stock(id, id * 10 + variant, now);
            }
        }
        for id in 1..=ORDERS {
            truth.change(Kind::Order, id * 3, now, State::Here);
        }
    }

    /// Changes and callbacks, for so long.
    pub(super) async fn run(&self, lasts: Duration) {
        let end = tokio::time::Instant::now() + lasts;
        while tokio::time::Instant::now() < end {
            self.world.pause(0..self.habits.pause_ms * 2).await;
            match self.world.draw(0..20) {
                0..10 => self.product(),
                10..14 => self.order(),
                14..18 => self.stock(),
                18 => self.raw(),
                _ => self.unheard_of(),
            }
        }
        // The last callbacks are still on their way.
        tokio::time::sleep(Duration::from_millis(self.habits.late_ms * 4 + 1)).await;
    }

    /// Its last state, unless it rests.
    fn ready(&self, kind: Kind, id: u64) -> Option<State> {
        let (since, state) = self.truth.lock().unwrap().last(kind, id)?;
        (self.world.now_ms() - since >= self.habits.rest_ms).then_some(state)
    }

    fn product(&self) {
        let fresh = self.world.chance(0.1);
        let id = if fresh { PRODUCTS + self.world.draw(1..30) } else { self.world.draw(1..PRODUCTS + 1) };
        let state = self.ready(Kind::Product, id);
        let (word, next): (_, fn(u64) -> State) = match state {
            // An id is never used again.
            Some(State::Gone) => return,
            None if fresh && self.truth.lock().unwrap().last(Kind::Product, id).is_none() => {
                ("created", State::Here)
            }
            None => return,
            Some(_) if id != POISON && self.world.chance(0.08) => ("deleted", |_| State::Gone),
            Some(_) => ("updated", State::Here),
        };
        let now = self.world.now_ms();
        let state = self.truth.lock().unwrap().change(Kind::Product, id, now, next);
        let body = json!({ "scope": format!("store/product/{word}"), "created_at": now / 1000,
            "data": { "type": "product", "id": id } });
        self.send(Emitted::new(Kind::Product, id, None, state), &body);
        self.world.saw(if word == "deleted" { "deleted" } else { "changed" });
    }

    fn order(&self) {
        let id = self.world.draw(1..ORDERS + 1) * 3;
        let Some(state) = self.ready(Kind::Order, id) else { return };
        let (word, next): (_, fn(u64) -> State) = match state {
            State::Archived(_) => ("updated", State::Archived),
            _ if self.world.chance(0.1) => ("archived", State::Archived),
            _ => ("statusUpdated", State::Here),
        };
        let now = self.world.now_ms();
        let state = self.truth.lock().unwrap().change(Kind::Order, id, now, next);
        let body = json!({ "scope": format!("store/order/{word}"), "created_at": now / 1000,
            "data": { "type": "order", "id": id } });
        self.send(Emitted::new(Kind::Order, id, None, state), &body);
    }

    fn stock(&self) {
        let product = self.world.draw(1..PRODUCTS + 1);
        let variants = self.truth.lock().unwrap().variants(product);
        let now = self.world.now_ms();
        let named = self.world.draw(0..3) as usize;
        let change =
            |variant: &u64| self.truth.lock().unwrap().change(Kind::Stock, *variant, now, State::Here);
        let changed = if named == 0 { &variants[..] } else { &variants[..named] };
        // The lowest counter of those that changed.
        let state = changed.iter().map(change).collect::<Vec<_>>()[0];
        // By product, by variant, or a batch of variants under one event.
        let data = |variant: Option<&u64>| json!({ "type": "sku", "inventory": { "product_id": product, "variant_id": variant } });
        let (scope, data) = match named {
            0 => ("store/product/inventory/updated", data(None)),
            1 => ("store/sku/inventory/updated", data(variants.first())),
            _ => {
                self.world.saw("batch");
                ("store/sku/inventory/updated", variants.iter().map(|v| data(Some(v))).collect())
            }
        };
        let body = json!({ "scope": scope, "created_at": now / 1000, "data": data });
        let rows = (named > 0).then(|| variants[..named].to_vec());
        self.send(Emitted::new(Kind::Stock, product, rows, state), &body);
    }

    /// A callback that somebody put on the intake as it came, without the bridge's headers.
    fn raw(&self) {
        let id = self.world.draw(1..PRODUCTS + 1);
        let Some(state) = self.ready(Kind::Product, id) else { return };
        let body = json!({ "scope": "store/product/updated", "data": { "id": id } }).to_string();
        let record = OutRecord {
            topic: INTAKE.into(),
            partition: None,
            key: None,
            value: Some(Bytes::from(body)),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        let event = self.broker.append(record);
        self.world.saw("raw");
        self.note(Emitted { event, ..Emitted::new(Kind::Product, id, None, state) });
    }

    /// An entity that nobody configured.
    fn unheard_of(&self) {
        self.world.saw("not configured");
        let event = format!("other_{}", self.world.draw(0..1_000_000));
        let body = json!({ "scope": "store/category/updated", "data": { "id": 5 } });
        for record in self.records(&event, &body) {
            self.broker.append(record);
        }
    }

    fn note(&self, emitted: Emitted) {
        self.emitted.lock().unwrap().push(emitted);
    }

    /// Gives the callback an event and delivers it, sometimes twice.
    fn send(&self, mut about: Emitted, body: &Value) {
        about.event = format!("msg_{}", self.emitted.lock().unwrap().len());
        let records = self.records(&about.event, body);
        self.note(about);
        self.deliver(records.clone(), 1);
        if self.world.chance(self.habits.repeats) {
            self.world.saw("repeat");
            self.deliver(records, 4);
        }
    }

    /// Appends after a while, up to `times` as late as usual.
    fn deliver(&self, records: Vec<OutRecord>, times: u64) {
        let (late, broker) = (self.world.draw(0..self.habits.late_ms * times), self.broker.clone());
        crate::runtime::spawn("callback", async move {
            tokio::time::sleep(Duration::from_millis(late)).await;
            for record in records {
                broker.append(record);
            }
        });
    }

    fn records(&self, event: &str, body: &Value) -> Vec<OutRecord> {
        records(&self.catalog, event, body, self.world.now_ms())
    }
}

fn records(catalog: &Catalog, event: &str, body: &Value, received_ms: i64) -> Vec<OutRecord> {
    let topics = IntakeTopics { intake: INTAKE.into(), dead_letters: "bigcommerce.main.dlq".into() };
    let received = Received {
        event_id: Some(event.to_owned()),
        body: Bytes::from(body.to_string()),
        received_ms,
        traceparent: None,
    };
    intake_records(catalog, &topics, &received)
}

/// A callback about one product, without a date.
pub(super) fn product_updated(catalog: &Catalog, id: u64, event: &str, received_ms: i64) -> OutRecord {
    let body = json!({ "scope": "store/product/updated", "data": { "type": "product", "id": id } });
    records(catalog, event, &body, received_ms).remove(0)
}
