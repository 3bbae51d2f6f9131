//! The hands and eyes of a test: changes to the store behind the API's back, and everything that was recorded.
//!
//! [`Control`] is for tests in the same process; `/_sandbox/...` offers the same over HTTP, in JSON, without a token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::control_bodies::{Bulk, Emit, Mutation, Shoppers, Touch};
use super::core::Core;
use super::deliver::{Delivery, DeliveryStats};
use super::events::{Event, Op};
use super::faults::Profile;
use super::history::{Request, Stats, Write};
use super::query::Query;
use super::reply::Reply;
use super::{history, mutate, resources, scopes, seed, specs};

/// Changes made under one lock, so that API calls are not held up by a long bulk change.
const CHUNK: u64 = 500;
/// How long `POST /_sandbox/quiesce` waits unless told otherwise.
const QUIESCE: Duration = Duration::from_secs(60);

/// Why the control API did not do something.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such kind of entity.
    #[error("there is no entity '{found}'; known are {allowed}")]
    UnknownEntity {
        /// What was asked for.
        found: String,
        /// What there is.
        allowed: String,
    },
    /// No callback carries such a scope.
    #[error("no callback carries the scope '{found}'; give a payload to fire it all the same")]
    UnknownScope {
        /// What was asked for.
        found: String,
    },
    /// There is no such row.
    #[error("there is no {entity} with id '{id}'")]
    NoSuchRow {
        /// The kind.
        entity: String,
        /// The id.
        id: String,
    },
    /// The store's own rules forbid it.
    #[error("the store refuses it: {answer}")]
    Refused {
        /// The API's answer to the same request.
        answer: String,
    },
}

/// Controls a sandbox from the same process. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    core: Arc<Core>,
}

impl Control {
    pub(crate) fn new(core: Arc<Core>) -> Control {
        Control { core }
    }

    /// Creates a row of any entity. Returns its id.
    ///
    /// # Errors
    /// When the entity is unknown or the store's rules refuse the row.
    pub fn create(&self, entity: &str, body: Value) -> Result<Value, ControlError> {
        self.core.with(|state| mutate::mutate(state, entity, Op::Created, None, object(body)))
    }

    /// Changes fields of a row.
    ///
    /// # Errors
    /// When the entity or the row is unknown, or the store's rules refuse the change.
    pub fn update(&self, entity: &str, id: impl ToString, body: Value) -> Result<Value, ControlError> {
        let id = id.to_string();
        self.core.with(|state| mutate::mutate(state, entity, Op::Updated, Some(&id), object(body)))
    }

    /// Deletes a row (archives it, if it is an order).
    ///
    /// # Errors
    /// When the entity or the row is unknown.
    pub fn delete(&self, entity: &str, id: impl ToString) -> Result<Value, ControlError> {
        let id = id.to_string();
        self.core.with(|state| mutate::mutate(state, entity, Op::Deleted, Some(&id), Map::new()))
    }

    /// Edits a product, as staff would. False when there is no such product.
    pub fn touch_product(&self, id: u64) -> bool {
        self.touch("product", id, id, 1).is_ok_and(|count| count == 1)
    }

    /// Edits every product of a range. Returns how many there were.
    pub fn touch_products(&self, ids: impl std::ops::RangeBounds<u64>) -> u64 {
        use std::ops::Bound;
        let from = match ids.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 1,
        };
        let to = match ids.end_bound() {
            Bound::Included(to) => *to,
            Bound::Excluded(to) => to.saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        self.touch("product", from, to, 1).unwrap_or(0)
    }

    /// Changes a visible field of every row `from..=to`, `times` times over. Returns how many changes that were.
    ///
    /// # Errors
    /// When the entity is unknown.
    pub fn touch(&self, entity: &str, from: u64, to: u64, times: u64) -> Result<u64, ControlError> {
        let to = to.min(self.core.with(|state| mutate::last_id(state, entity))?);
        let mut count = 0;
        for _ in 0..times {
            let mut next = from;
            while next <= to {
                let until = to.min(next.saturating_add(CHUNK - 1));
                count += self.core.with(|state| mutate::touch(state, entity, next, until))?;
                next = until + 1;
            }
        }
        Ok(count)
    }

    /// Sets the stock of a variant at the main location. False when there is no such variant.
    pub fn set_stock(&self, variant: u64, level: i64) -> bool {
        self.core.with(|state| mutate::set_stock(state, variant, level))
    }

    /// Places an order for one of each product. Returns its id; none when no product exists.
    pub fn place_order(&self, customer: u64, products: &[u64]) -> Option<u64> {
        self.core.with(|state| mutate::place_order(state, customer, products))
    }

    /// Ships what is left of an order. Returns the shipment's id; none when there is nothing to ship.
    pub fn ship_order(&self, order: u64) -> Option<u64> {
        self.core.with(|state| mutate::ship_order(state, order))
    }

    /// Puts products into a new cart. Returns its id; none when no product exists.
    pub fn new_cart(&self, customer: u64, products: &[u64]) -> Option<String> {
        self.core.with(|state| mutate::new_cart(state, customer, products))
    }

    /// Puts products into a cart. False when there is no such cart.
    pub fn add_to_cart(&self, cart: &str, products: &[u64]) -> bool {
        self.core.with(|state| mutate::add_to_cart(state, cart, products))
    }

    /// Turns a cart into an order. Returns the order's id; none when there is no such cart.
    pub fn check_out(&self, cart: &str) -> Option<u64> {
        self.core.with(|state| mutate::check_out(state, cart))
    }

    /// Fires a callback of any scope. `about` names the ids and other fields of its payload; what is missing is invented.
    /// With a `payload` in `about`, that is the data as it stands, and the scope may be any. Returns the data.
    ///
    /// # Errors
    /// When no callback carries the scope.
    pub fn emit(&self, scope: &str, about: Value) -> Result<Value, ControlError> {
        let about = object(about);
        let data = about.get("payload").cloned().or_else(|| scopes::payload(scope, &about));
        let data = data.ok_or_else(|| ControlError::UnknownScope { found: scope.to_owned() })?;
        self.core.with(|state| state.outbox.push(Event::new(scope, data.clone())));
        Ok(data)
    }

    /// Takes the app off the store: its callback is fired, then the token is refused and its hooks are gone.
    pub fn uninstall(&self) {
        self.core.uninstall();
    }

    /// Lets the app in again after `uninstall`, without hooks.
    pub fn reinstall(&self) {
        self.core.reinstall();
    }

    /// Switches a hook off as the platform does after its last retry. False when there is no such active hook.
    pub fn deactivate_hook(&self, id: u64) -> bool {
        self.core.with(|state| state.hooks.deactivate(id))
    }

    /// Deletes a hook behind its owner's back. False when there is none.
    pub fn delete_hook(&self, id: u64) -> bool {
        self.core.with(|state| state.hooks.remove(id).is_some())
    }

    /// Adds plain products in bulk, without callbacks. Returns the first and the last id.
    pub fn seed_products(&self, count: u32) -> (u64, u64) {
        self.core.with(|state| seed::bulk::products(state, count))
    }

    /// Calls so far: by pattern of the path, then by method and status.
    pub fn calls(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.core.log(|log| log.calls())
    }

    /// A page of the true rows of an entity, as `state` shows them: at most `limit` with ids above `after`.
    ///
    /// # Errors
    /// When the entity is unknown.
    pub fn state_page(
        &self,
        entity: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Value)>, ControlError> {
        self.core.with(|state| mutate::rows(state, entity, after, limit))
    }

    /// The true rows of an entity as a plain GET would show them, by id.
    ///
    /// # Errors
    /// When the entity is unknown.
    pub fn state(&self, entity: &str) -> Result<BTreeMap<String, Value>, ControlError> {
        self.core.with(|state| Ok(mutate::rows(state, entity, None, usize::MAX)?.into_iter().collect()))
    }

    /// Every accepted API write that is still kept, in order of effect. After millions of items, look through them with
    /// [`Control::each_write`] instead, which holds one body at a time.
    pub fn history(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        self.each_write(0, |write| writes.push(write));
        writes
    }

    /// At most `limit` accepted writes after number `seq`, in order of effect.
    pub fn history_page(&self, seq: u64, limit: usize) -> Vec<Write> {
        let (mut writes, mut seen) = (Vec::new(), seq);
        while writes.len() < limit {
            let some = self.core.log(|log| log.glance(seen));
            let Some((last, _)) = some.last() else { break };
            seen = *last;
            writes.extend(some.iter().take(limit - writes.len()).map(history::show));
        }
        writes
    }

    /// Shows every accepted write after number `seq` that is still kept, in order of effect.
    pub fn each_write(&self, seq: u64, mut look: impl FnMut(Write)) {
        let mut seen = seq;
        loop {
            let some = self.core.log(|log| log.glance(seen));
            let Some((last, _)) = some.last() else { return };
            seen = *last;
            some.iter().map(history::show).for_each(&mut look);
        }
    }

    /// The last API requests, in order of their answers.
    pub fn requests(&self) -> Vec<Request> {
        self.core.log(|log| log.requests())
    }

    /// Totals since the start.
    pub fn stats(&self) -> Stats {
        self.core.log(|log| log.stats.clone())
    }

    /// Every callback, in order of its event.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.core.deliverer.log()
    }

    /// Totals of the callbacks.
    pub fn delivery_stats(&self) -> DeliveryStats {
        self.core.deliverer.stats()
    }

    /// Puts other faults in force.
    pub fn faults(&self, profile: Profile) {
        self.core.set_profile(profile);
    }

    /// Changes the quota of requests per window.
    pub fn set_quota(&self, quota: u32) {
        self.core.window(|window| window.set_quota(quota));
    }

    /// Lets simulated shoppers and staff make about `rate` changes a second; 0 sends them home.
    pub fn shoppers(&self, rate: f64) {
        self.core.rate.send_replace(if rate.is_finite() { rate.max(0.0) } else { 0.0 });
    }

    /// Waits until every late commit was made and every callback was delivered, was given up, or is known to be lost.
    pub async fn quiesce(&self) {
        self.core.late.idle().await;
        self.core.deliverer.idle().await;
    }
}

fn object(body: Value) -> Map<String, Value> {
    match body {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Reply> {
    serde_json::from_slice(body)
        .map_err(|error| Reply::bare(400, json!({"error": format!("the body cannot be used: {error}")})))
}

fn refused(error: &ControlError) -> Reply {
    let status = match error {
        ControlError::UnknownEntity { .. }
        | ControlError::UnknownScope { .. }
        | ControlError::NoSuchRow { .. } => 404,
        ControlError::Refused { .. } => 422,
    };
    Reply::bare(status, json!({"error": error.to_string()}))
}

/// Answers `/_sandbox/...`.
pub(crate) async fn answer(core: &Arc<Core>, method: &str, path: &str, query: &str, body: &[u8]) -> Reply {
    let control = Control::new(Arc::clone(core));
    let path = path.trim_start_matches("/_sandbox").trim_matches('/');
    if (method, path) == ("POST", "quiesce") {
        let wait = Query::parse(query)
            .get("timeout_ms")
            .and_then(|text| text.parse().ok())
            .map_or(QUIESCE, Duration::from_millis);
        let begin = Instant::now();
        let quiet = tokio::time::timeout(wait, control.quiesce()).await.is_ok();
        let status = if quiet { 200 } else { 504 };
        return Reply::bare(
            status,
            json!({"quiet": quiet, "waited_ms": u64::try_from(begin.elapsed().as_millis()).unwrap_or(0)}),
        );
    }
    if method == "GET" {
        show(&control, path, &Query::parse(query))
    } else {
        act(&control, method, path, body)
    }
    .unwrap_or_else(|reply| reply)
}

fn show(control: &Control, path: &str, query: &Query) -> Result<Reply, Reply> {
    let json = |value: Result<Value, serde_json::Error>| {
        value
            .map(|value| Reply::bare(200, value))
            .map_err(|error| Reply::bare(500, json!({"error": error.to_string()})))
    };
    if let Some(entity) = path.strip_prefix("state/") {
        let limit = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        let rows = control.state_page(entity, query.get("after"), limit).map_err(|error| refused(&error))?;
        return Ok(Reply::bare(200, Value::Object(rows.into_iter().collect())));
    }
    match path {
        "history" => {
            let number = |name| query.get(name).and_then(|text| text.parse().ok());
            let limit = number("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            json(serde_json::to_value(control.history_page(number("after").unwrap_or(0), limit)))
        }
        "requests" => json(serde_json::to_value(control.requests())),
        "deliveries" => json(serde_json::to_value(control.deliveries())),
        "stats" => {
            let mut stats = serde_json::to_value(control.stats()).unwrap_or_default();
            stats["callbacks"] = serde_json::to_value(control.delivery_stats()).unwrap_or_default();
            Ok(Reply::bare(200, stats))
        }
        "calls" => json(serde_json::to_value(control.calls())),
        "entities" => Ok(Reply::bare(200, specs::all().iter().map(entity).collect())),
        "routes" => Ok(Reply::bare(200, resources::routes())),
        "scopes" => Ok(Reply::bare(200, scopes::all().into_iter().map(Value::from).collect())),
        "faults" => json(serde_json::to_value(&super::core::lock(&control.core.dice).profile)),
        _ => Err(unknown()),
    }
}

fn entity(spec: &specs::Spec) -> Value {
    {
        let item = spec.item.as_ref().filter(|_| !spec.hidden_item);
        json!({"name": spec.name, "list": spec.collection, "lists": spec.lists, "item": item, "id": spec.id})
    }
}

fn unknown() -> Reply {
    let known = "GET state/{entity}, entities, routes, scopes, history, requests, calls, deliveries, stats, faults; POST mutate, \
        touch, emit, seed, uninstall, reinstall, hooks/{id}/deactivate, shoppers, quiesce; PUT faults; DELETE hooks/{id}";
    Reply::bare(404, json!({"error": format!("there is no such control; known are {known}")}))
}

/// `POST hooks/{id}/deactivate` and `DELETE hooks/{id}`.
fn act_on_hook(control: &Control, method: &str, path: &str) -> Option<Reply> {
    let rest = path.strip_prefix("hooks/")?;
    let (id, word) = rest.split_once('/').unwrap_or((rest, ""));
    let id: u64 = id.parse().ok()?;
    let done = match (method, word) {
        ("POST", "deactivate") => control.deactivate_hook(id),
        ("DELETE", "") => control.delete_hook(id),
        _ => return None,
    };
    Some(Reply::empty(if done { 204 } else { 404 }))
}

fn act(control: &Control, method: &str, path: &str, body: &[u8]) -> Result<Reply, Reply> {
    match (method, path) {
        ("POST", "mutate") => {
            let mutation: Mutation = read(body)?;
            let id = mutation
                .id
                .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
                .unwrap_or_default();
            let body = Value::Object(mutation.body);
            let done = match mutation.op.as_str() {
                "create" => control.create(&mutation.entity, body),
                "update" => control.update(&mutation.entity, id, body),
                "delete" => control.delete(&mutation.entity, id),
                other => {
                    let text = format!("op is '{other}', but must be create, update or delete");
                    return Err(Reply::bare(400, json!({"error": text})));
                }
            };
            done.map(|id| Reply::bare(200, json!({"id": id}))).map_err(|error| refused(&error))
        }
        ("POST", "touch") => {
            let touch: Touch = read(body)?;
            let count = control
                .touch(&touch.entity, touch.from, touch.to, touch.times)
                .map_err(|error| refused(&error))?;
            Ok(Reply::bare(200, json!({"changes": count})))
        }
        ("POST", "shoppers") => {
            let shoppers: Shoppers = read(body)?;
            control.shoppers(shoppers.rate);
            Ok(Reply::bare(200, json!({"rate": shoppers.rate})))
        }
        ("POST", "emit") => {
            let emit: Emit = read(body)?;
            let data =
                control.emit(&emit.scope, Value::Object(emit.about)).map_err(|error| refused(&error))?;
            Ok(Reply::bare(200, json!({"scope": emit.scope, "data": data})))
        }
        ("POST", "seed") => {
            let bulk: Bulk = read(body)?;
            let (first, last) = control.seed_products(bulk.products);
            Ok(Reply::bare(200, json!({"first": first, "last": last})))
        }
        ("POST", "uninstall") => {
            control.uninstall();
            Ok(Reply::empty(204))
        }
        ("POST", "reinstall") => {
            control.reinstall();
            Ok(Reply::empty(204))
        }
        (_, path) if path.starts_with("hooks/") => act_on_hook(control, method, path).ok_or_else(unknown),
        ("PUT", "faults") => {
            control.faults(read(body)?);
            show(control, "faults", &Query::default())
        }
        _ => Err(unknown()),
    }
}
