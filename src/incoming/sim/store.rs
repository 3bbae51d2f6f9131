//! A store that knows the whole history of each entity, with a hidden counter in every state, and answers reads
//! as BigCommerce does, with its envelopes, its lag and its faults. It also watches its callers: no entity is
//! read twice at once by one owner, and reads under way are bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::broker::Broker;
use super::world::World;
use crate::model::request::{Answer, Reply, Request};
use crate::runtime::ports::Store;

/// A product that BigCommerce refuses to hear of: every request that names it is refused.
pub(super) const POISON: u64 = 13;

/// Reads of one kind that one owner may have under way: four lists, or ten of one.
const MAX_READS: usize = 10;

/// A kind of entity in the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Product,
    Order,
    /// Of a variant; the parent is its product.
    Stock,
}

/// One state of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Here(u64),
    /// An order that left the lists and can still be read.
    Archived(u64),
    Gone,
}

impl State {
    /// The hidden counter; none if it is gone.
    pub(super) const fn counter(self) -> Option<u64> {
        match self {
            Self::Here(n) | Self::Archived(n) => Some(n),
            Self::Gone => None,
        }
    }
}

struct Entity {
    parent: u64,
    /// When each state began, in unix milliseconds.
    history: Vec<(i64, State)>,
}

/// The truth.
#[derive(Default)]
pub(super) struct Truth {
    entities: BTreeMap<(Kind, u64), Entity>,
    counter: u64,
    /// Requests so far.
    pub(super) calls: u64,
    /// What is being read: owner, generation, thing.
    reading: BTreeSet<(u64, u64, String)>,
    /// Requests under way: owner, generation, path template.
    running: BTreeMap<(u64, u64, Arc<str>), usize>,
    /// The generation under which each job began.
    jobs: HashMap<tokio::task::Id, Option<u64>>,
}

impl Truth {
    /// Changes an entity; the new state.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        id: u64,
        now_ms: i64,
        state: impl FnOnce(u64) -> State,
    ) -> State {
        self.counter += 1;
        let state = state(self.counter);
        let entity = self.entities.entry((kind, id)).or_insert(Entity { parent: 0, history: Vec::new() });
        entity.history.push((now_ms, state));
        state
    }

    /// A variant with its stock.
    pub(super) fn add_stock(&mut self, product: u64, variant: u64, now_ms: i64) {
        self.change(Kind::Stock, variant, now_ms, State::Here);
        self.entities.get_mut(&(Kind::Stock, variant)).unwrap().parent = product;
    }

    /// Its last state, and since when.
    pub(super) fn last(&self, kind: Kind, id: u64) -> Option<(i64, State)> {
        self.entities.get(&(kind, id))?.history.last().copied()
    }

    /// Every entity's id with its last state.
    pub(super) fn all(&self, kind: Kind) -> BTreeMap<u64, State> {
        let of_kind = self.entities.iter().filter(|((k, _), _)| *k == kind);
        of_kind.map(|((_, id), entity)| (*id, entity.history.last().unwrap().1)).collect()
    }

    /// The variants of a product.
    pub(super) fn variants(&self, product: u64) -> Vec<u64> {
        let stock = self.entities.iter().filter(|((k, _), e)| *k == Kind::Stock && e.parent == product);
        stock.map(|((_, id), _)| *id).collect()
    }

    /// The row of a list that shows the store as it was then; none if there was no such thing.
    pub(super) fn listed(&self, kind: Kind, id: u64, at_ms: i64) -> Option<Value> {
        match kind {
            Kind::Product => product(self, id, at_ms),
            Kind::Order => order(self, id, at_ms),
            Kind::Stock => {
                let (_, state) = self.at(kind, id, at_ms);
                let product = self.entities.get(&(kind, id))?.parent;
                Some(stock_row(id, product, state.counter()?))
            }
        }
    }

    /// The product of a variant.
    pub(super) fn parent(&self, variant: u64) -> u64 {
        self.entities[&(Kind::Stock, variant)].parent
    }

    fn at(&self, kind: Kind, id: u64, at_ms: i64) -> (i64, State) {
        let Some(entity) = self.entities.get(&(kind, id)) else { return (at_ms, State::Gone) };
        let seen = entity.history.iter().rev().find(|(since, _)| *since <= at_ms);
        seen.copied().unwrap_or((at_ms, State::Gone))
    }
}

/// The store as one process of the bridge sees it.
pub(super) struct Shop {
    pub(super) world: World,
    pub(super) broker: Broker,
    pub(super) truth: Arc<Mutex<Truth>>,
    pub(super) member: u64,
    /// How long a reply takes, in milliseconds.
    pub(super) latency: std::ops::Range<u64>,
}

/// A read under way; it ends when this is dropped, as when its process is killed.
struct UnderWay {
    truth: Arc<Mutex<Truth>>,
    running: (u64, u64, Arc<str>),
    things: Vec<String>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Ok(mut truth) = self.truth.lock() else { return };
        let (member, generation, _) = self.running;
        for thing in std::mem::take(&mut self.things) {
            truth.reading.remove(&(member, generation, thing));
        }
        *truth.running.get_mut(&self.running).unwrap() -= 1;
    }
}

impl Shop {
    fn begin(&self, request: &Request) -> UnderWay {
        let now = self.broker.generation(self.member);
        let mut truth = self.truth.lock().unwrap();
        // A job belongs to the assignment that it began under; what runs on after that does not count.
        let began = *truth.jobs.entry(tokio::task::id()).or_insert(now);
        let generation = began.unwrap_or(0);
        let running = (self.member, generation, request.path.template().clone());
        let things = if began.is_some() { things(request) } else { Vec::new() };
        truth.calls += 1;
        for thing in &things {
            let is_new = truth.reading.insert((self.member, generation, thing.clone()));
            assert!(is_new, "{thing} is read twice at once");
        }
        let count = truth.running.entry(running.clone()).or_default();
        *count += 1;
        assert!(*count <= MAX_READS, "{count} reads of {} at once", running.2);
        drop(truth);
        UnderWay { truth: self.truth.clone(), running, things }
    }

    fn answer(&self, request: &Request) -> Reply {
        let faults = self.world.faults();
        if faults.unauthorized_until > self.world.now_ms() {
            self.world.saw("unauthorized");
            return reply(Answer::Unauthorized, 401, "{}");
        }
        if self.world.chance(faults.busy) {
            self.world.saw("busy");
            let after = Duration::from_millis(self.world.draw(100..5_000));
            return reply(Answer::Busy { after }, 429, "");
        }
        if self.world.chance(faults.doubtful) {
            self.world.saw("doubtful");
            return reply(Answer::Doubtful, 503, "<html>");
        }
        if self.world.chance(faults.garbled) {
            self.world.saw("garbled");
            let bodies = [r#"{"data":[{"name":"?"}]}"#, r#"{"data":"#, "[]]", r#"{"status":500}"#];
            return reply(Answer::Done, 200, bodies[self.world.draw(0..4) as usize]);
        }
        let lags = self.world.chance(faults.lag);
        let lag = if lags { self.world.draw(200..4_000) as i64 } else { 0 };
        if lags {
            self.world.saw("lag");
        }
        self.truthful(request, self.world.now_ms() - lag)
    }

    fn truthful(&self, request: &Request, at_ms: i64) -> Reply {
        let truth = self.truth.lock().unwrap();
        let path: Vec<&str> = request.path.as_str().split('/').skip(1).collect();
        let id = |at: usize| path[at].parse::<u64>().unwrap();
        let numbers = |name: &str| -> Vec<u64> {
            query(request, name).unwrap().split(',').map(|id| id.parse().unwrap()).collect()
        };
        match (path[0], path[1], path.len()) {
            ("v3", "catalog", 3) => {
                let ids = numbers("id:in");
                if ids.contains(&POISON) {
                    self.world.saw("refused");
                    return reply(Answer::Invalid, 422, r#"{"title":"bad id"}"#);
                }
                v3_list(ids.into_iter().filter_map(|id| product(&truth, id, at_ms)).collect(), request)
            }
            ("v3", "catalog", 4) if id(3) == POISON => reply(Answer::Invalid, 422, r#"{"title":"bad id"}"#),
            ("v3", "catalog", 4) => one(product(&truth, id(3), at_ms).map(|row| json!({ "data": row }))),
            ("v3", "inventory", 3) => {
                let rows = numbers("product_id:in").into_iter().flat_map(|product| stock(&truth, product));
                v3_list(rows.collect(), request)
            }
            ("v2", "orders", 2) => {
                let (min, max) = (numbers("min_id")[0], numbers("max_id")[0]);
                let here = |id: &u64| matches!(truth.at(Kind::Order, *id, at_ms).1, State::Here(_));
                let rows: Vec<Value> =
                    (min..=max).filter(here).filter_map(|id| order(&truth, id, at_ms)).collect();
                let body = if rows.is_empty() { String::new() } else { Value::from(rows).to_string() };
                reply(Answer::Done, 200, &body)
            }
            ("v2", "orders", 3) => one(order(&truth, id(2), at_ms)),
            // The rows below an order never lag: nothing in them could show it.
            ("v2", "orders", 4) => {
                let counter = truth.at(Kind::Order, id(2), self.world.now_ms()).1.counter();
                one(counter.map(|n| json!([{ "id": 1, "n": n }])))
            }
            other => panic!("nobody should ask for {other:?}"),
        }
    }
}

impl Store for Shop {
    async fn send(&self, request: Request) -> Reply {
        let _under_way = self.begin(&request);
        let slow = self.world.chance(self.world.faults().slow);
        if slow {
            self.world.saw("slow");
        }
        self.world.pause(self.latency.clone()).await;
        let reply = self.answer(&request);
        self.world.pause(if slow { 1_000..15_000 } else { self.latency.clone() }).await;
        reply
    }
}

/// The things that a request reads; none for a range, which brings more than was asked for.
fn things(request: &Request) -> Vec<String> {
    if let Some(ids) = query(request, "id:in").or_else(|| query(request, "product_id:in")) {
        return ids.split(',').map(|id| format!("{}/{id}", request.path.as_str())).collect();
    }
    if query(request, "min_id").is_some() { Vec::new() } else { vec![request.path.as_str().to_owned()] }
}

fn query<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn product(truth: &Truth, id: u64, at_ms: i64) -> Option<Value> {
    let (since, state) = truth.at(Kind::Product, id, at_ms);
    let at = jiff::Timestamp::from_second(since / 1000).unwrap().to_string();
    Some(json!({ "id": id, "name": format!("product {id}"), "date_modified": at, "n": state.counter()? }))
}

fn order(truth: &Truth, id: u64, at_ms: i64) -> Option<Value> {
    let (since, state) = truth.at(Kind::Order, id, at_ms);
    let at = jiff::Timestamp::from_second(since / 1000).unwrap();
    let at = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_string(&at).unwrap();
    let link = json!({ "url": "https://api.example.com/x" });
    Some(
        json!({ "id": id, "n": state.counter()?, "date_modified": at, "is_deleted": matches!(state, State::Archived(_)),
        "products": link, "shipping_addresses": link }),
    )
}

fn stock(truth: &Truth, product: u64) -> Vec<Value> {
    let row = |variant| Some(stock_row(variant, product, truth.last(Kind::Stock, variant)?.1.counter()?));
    truth.variants(product).into_iter().filter_map(row).collect()
}

fn stock_row(variant: u64, product: u64, n: u64) -> Value {
    json!({ "identity": { "variant_id": variant, "product_id": product }, "n": n })
}

fn v3_list(rows: Vec<Value>, request: &Request) -> Reply {
    let number = |name: &str| query(request, name).map_or(1, |text| text.parse::<usize>().unwrap());
    let (limit, page) = (number("limit"), number("page"));
    let pages = rows.len().div_ceil(limit).max(1);
    let rows: Vec<Value> = rows.into_iter().skip((page - 1) * limit).take(limit).collect();
    let pagination = json!({ "current_page": page, "total_pages": pages });
    reply(Answer::Done, 200, &json!({ "data": rows, "meta": { "pagination": pagination } }).to_string())
}

fn one(body: Option<Value>) -> Reply {
    match body {
        Some(body) => reply(Answer::Done, 200, &body.to_string()),
        None => reply(Answer::Missing, 404, r#"{"status":404}"#),
    }
}

/// A reply.
pub(super) fn reply(answer: Answer, status: u16, body: &str) -> Reply {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Reply { answer, status, body, request_id: None, detail: format!("status {status}") }
}
