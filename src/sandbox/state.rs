//! The store's true state and the only ways to change it.
//!
//! Every change, whether it comes by the API, by the control API or from a simulated shopper, goes through `insert`,
//! `change`, `delete` or `set_stock`: these number rows, stamp dates, keep dependent rows in step and put events into
//! the outbox. Nothing here knows HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value};

use super::events::{self, Event, Op, StockCause, StockChange};
use super::hooks::Hooks;
use super::specs::{self, Dates, Spec};
use super::store::{Key, Lag, Row, Table, field};
use super::{announce, clock};

/// The location that every store has.
pub(crate) const MAIN_LOCATION: u64 = 1;

/// The store: its rows, its hooks, and the events not yet handed to the hooks.
pub(crate) struct State {
    tables: HashMap<&'static str, Table>,
    pub(crate) hooks: Hooks,
    pub(crate) outbox: Vec<Event>,
    pub(crate) rng: StdRng,
    /// `http://host:port/stores/{hash}`, for links in answers.
    pub(crate) api_url: String,
    pub(crate) store_hash: String,
    /// How far the present read lags behind.
    pub(crate) lag: Lag,
    /// How far single reads and lists lag behind.
    lags: (Lag, Lag),
    /// How often anything changed.
    pub(crate) changes: u64,
    /// Rows are put without events and without a trace at their parents.
    pub(crate) seeding: bool,
}

impl State {
    pub(crate) fn new(seed: u64, hooks: Hooks, api_url: String, store_hash: String) -> State {
        let tables = specs::all().iter().map(|spec| (spec.name.as_str(), Table::new(spec))).collect();
        let rng = StdRng::seed_from_u64(seed);
        State {
            tables,
            hooks,
            outbox: Vec::new(),
            rng,
            api_url,
            store_hash,
            lag: Lag::NONE,
            lags: (Lag::NONE, Lag::NONE),
            changes: 0,
            seeding: false,
        }
    }

    /// The rows of `spec`.
    pub(crate) fn table(&self, spec: &Spec) -> &Table {
        self.tables
            .get(spec.table.as_deref().unwrap_or(&spec.name))
            .expect("every row of the catalogue has a table")
    }

    /// The rows of `spec`, to be filled at the start.
    pub(crate) fn table_mut(&mut self, spec: &Spec) -> &mut Table {
        self.changes += 1;
        let name = spec.table.as_deref().unwrap_or(&spec.name);
        self.tables.get_mut(name).expect("every row of the catalogue has a table")
    }

    /// The rows of the resource called `name`.
    pub(crate) fn of(&self, name: &'static str) -> &Table {
        self.table(specs::known(name))
    }

    /// How far single reads and lists lag from now on.
    pub(crate) fn set_lag(&mut self, single: Lag, list: Lag) {
        (self.lag, self.lags) = (single, (single, list));
        let keep = !single.is_zero() || !list.is_zero();
        self.tables.values_mut().for_each(|table| table.keep_past(keep));
    }

    /// The request that follows is of this path: one that ends in an id is a single read, and a write never lags.
    pub(crate) fn look_at(&mut self, is_read: bool, pattern: &str) {
        self.lag = match (is_read, pattern.ends_with('}')) {
            (false, _) => Lag::NONE,
            (true, true) => self.lags.0,
            (true, false) => self.lags.1,
        };
    }

    /// A random UUID, repeatable by the seed.
    pub(crate) fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid().to_string()
    }

    /// Adds a row and fires what its creation fires. Returns its id.
    pub(crate) fn insert(&mut self, spec: &'static Spec, mut row: Map<String, Value>) -> Key {
        let spec = spec.root();
        let key = match row.get(&spec.id).and_then(Key::from_json) {
            Some(key) => key,
            None if spec.text_id => Key::Text(self.uuid()),
            None => Key::Int(self.table_mut(spec).fresh()),
        };
        let id = if spec.text_id { Value::from(key.to_string()) } else { key.json() };
        row.insert(spec.id.clone(), id);
        if let Some(name) = &spec.uuid {
            row.insert(name.clone(), Value::from(self.uuid()));
        }
        self.number_children(spec, &mut row);
        stamp(spec, &mut row, true);
        let active = row.get("active") == Some(&Value::Bool(true));
        self.table_mut(spec).put(key.clone(), row);
        self.announce(spec, Op::Created, &key);
        if spec.name == "price_list" {
            self.outbox.extend(announce::price_list_switched(false, active, &key));
        }
        key
    }

    /// Merges `patch` into a row and fires what its change fires. False when there is no such row.
    pub(crate) fn change(&mut self, spec: &'static Spec, key: &Key, patch: Map<String, Value>) -> bool {
        let spec = spec.root();
        let is_active =
            |row: Option<Row>| row.is_some_and(|row| row.get("active") == Some(&Value::Bool(true)));
        let before = is_active(self.table(spec).get(key));
        if !self.quiet_change(spec, key, patch) {
            return false;
        }
        self.announce(spec, Op::Updated, key);
        if spec.name == "price_list" {
            let after = is_active(self.table(spec).get(key));
            self.outbox.extend(announce::price_list_switched(before, after, key));
        }
        true
    }

    /// Merges `patch` into a row and stamps it, without an event.
    pub(crate) fn quiet_change(&mut self, spec: &'static Spec, key: &Key, patch: Map<String, Value>) -> bool {
        self.table_mut(spec).unpack(key);
        let Some(old) = self.table(spec).get(key) else { return false };
        let mut row = Arc::unwrap_or_clone(old);
        for (name, value) in patch {
            if name == spec.id {
                continue;
            }
            if value.is_null() {
                row.remove(&name);
            } else {
                row.insert(name, value);
            }
        }
        self.number_children(spec, &mut row);
        stamp(spec, &mut row, false);
        self.table_mut(spec).put(key.clone(), row);
        true
    }

    /// Changes the one object of a singleton, which need not have been changed before.
    pub(crate) fn put_single(&mut self, spec: &'static Spec, key: &Key, patch: Map<String, Value>) {
        if !self.table(spec).has(key) {
            let row = Map::from_iter([(spec.id.clone(), field_or(spec, key))]);
            self.table_mut(spec).put(key.clone(), row);
        }
        self.change(spec, key, patch);
    }

    /// Deletes a row with everything below it. False when there is no such row.
    pub(crate) fn delete(&mut self, spec: &'static Spec, key: &Key) -> bool {
        let spec = spec.root();
        if !self.table(spec).has(key) {
            return false;
        }
        self.delete_below(spec, key);
        self.announce(spec, Op::Deleted, key);
        self.table_mut(spec).remove(key)
    }

    fn delete_below(&mut self, spec: &'static Spec, key: &Key) {
        for child in specs::children(&spec.name) {
            let field = child.parent.as_ref().map_or("", |parent| parent.field.as_str());
            for id in self.table(child).find(field, &key.to_string()) {
                self.delete_below(child, &id);
                self.tell(child, Op::Deleted, &id);
                self.table_mut(child).remove(&id);
            }
        }
    }

    fn number_children(&mut self, spec: &'static Spec, row: &mut Map<String, Value>) {
        let Some(name) = &spec.numbers_children else { return };
        let Some(Value::Array(children)) = row.get_mut(name) else { return };
        let count = children.len();
        for child in children.iter_mut().filter(|child| child.get("id").is_none()) {
            child["id"] =
                Value::from(self.tables.get_mut(spec.name.as_str()).map_or(count as u64, Table::fresh));
        }
    }

    /// Puts the events of a change into the outbox, and stamps the parent where the change counts as one of it.
    fn announce(&mut self, spec: &'static Spec, op: Op, key: &Key) {
        if self.seeding {
            return;
        }
        self.tell(spec, op, key);
        if let Some(row) = self.table(spec).get(key) {
            self.touch_parent(spec, &row);
        }
    }

    fn tell(&mut self, spec: &'static Spec, op: Op, key: &Key) {
        if let Some(row) = self.table(spec).get(key) {
            self.outbox.extend(announce::events_of(spec, op, key, &row));
        }
    }

    fn touch_parent(&mut self, spec: &'static Spec, row: &Row) {
        let Some(parent) =
            spec.parent.as_ref().filter(|parent| spec.touches_parent && parent.entity == "product")
        else {
            return;
        };
        let product = specs::known("product");
        if let Some(key) = row.get(&parent.field).and_then(Key::from_json)
            && self.quiet_change(product, &key, Map::new())
        {
            self.outbox.push(events::simple("store/product", Op::Updated, &key.json()));
        }
    }

    /// The stock of a variant at a location.
    pub(crate) fn stock(&self, variant: &Key, location: u64) -> i64 {
        let row = self.of("variant").get(variant);
        row.and_then(|row| row.get("_stock")?.get(location.to_string())?.as_i64()).unwrap_or(0)
    }

    /// Sets a variant's stock at a location and fires the events. False when there is no such variant.
    pub(crate) fn set_stock(&mut self, variant: &Key, location: u64, level: i64, cause: StockCause) -> bool {
        let spec = specs::known("variant");
        self.table_mut(spec).unpack(variant);
        let Some(row) = self.table(spec).get(variant) else { return false };
        let before = self.stock(variant, location);
        let mut stock = row.get("_stock").and_then(Value::as_object).cloned().unwrap_or_default();
        stock.insert(location.to_string(), Value::from(level));
        let total: i64 = stock.values().filter_map(Value::as_i64).sum();
        let patch = Map::from_iter([
            ("_stock".to_owned(), Value::Object(stock)),
            ("inventory_level".to_owned(), Value::from(total)),
        ]);
        self.quiet_change(spec, variant, patch);
        let product = field(spec, &row, "product_id").as_u64().unwrap_or(0);
        let warning = self.refresh_level(product);
        let Key::Int(number) = *variant else { return false };
        // A store without hooks tells nobody, and a batch of thousands is not to build its events for that.
        if self.hooks.iter().next().is_none() {
            return true;
        }
        self.outbox.extend(events::stock(StockChange {
            product,
            variant: number,
            sku: field(spec, &row, "sku_id").as_u64(),
            location,
            cause,
            value: if cause == StockCause::Absolute { level } else { level - before },
            before,
            after: level,
            warning,
        }));
        true
    }

    /// Recomputes a product's level from its variants; returns its warning level.
    pub(crate) fn refresh_level(&mut self, product: u64) -> i64 {
        let (spec, key) = (specs::known("product"), Key::Int(product));
        self.table_mut(spec).unpack(&key);
        let variants = self.of("variant");
        let total: i64 = variants
            .find("product_id", &product.to_string())
            .iter()
            .filter_map(|key| variants.get(key)?.get("inventory_level")?.as_i64())
            .sum();
        let warning = self.table(spec).get(&key).and_then(|row| row.get("inventory_warning_level")?.as_i64());
        self.quiet_change(spec, &key, Map::from_iter([("inventory_level".to_owned(), Value::from(total))]));
        warning.unwrap_or(0)
    }

    /// Takes the events that await delivery.
    pub(crate) fn drain(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.outbox)
    }
}

/// The id of a singleton's object: its key, unless the object shows an id of its own.
fn field_or(spec: &Spec, key: &Key) -> Value {
    spec.template.get(&spec.id).cloned().unwrap_or_else(|| key.json())
}

fn stamp(spec: &Spec, row: &mut Map<String, Value>, new: bool) {
    let now = clock::unix_s();
    let (created, modified, text) = match spec.dates {
        Dates::None => return,
        Dates::Iso => (Some("date_created"), Some("date_modified"), clock::iso(now)),
        Dates::IsoModified => (None, Some("date_modified"), clock::iso(now)),
        Dates::IsoAt => (Some("created_at"), Some("updated_at"), clock::iso(now)),
        Dates::Cart => (Some("created_time"), Some("updated_time"), clock::iso(now)),
        Dates::Rfc2822 => (Some("date_created"), Some("date_modified"), clock::rfc2822(now)),
        Dates::Rfc2822Created => (Some("date_created"), None, clock::rfc2822(now)),
    };
    if let Some(name) = created.filter(|name| new && !row.contains_key(*name)) {
        row.insert(name.to_owned(), Value::from(text.clone()));
    }
    if let Some(name) = modified {
        row.insert(name.to_owned(), Value::from(text));
    }
}
