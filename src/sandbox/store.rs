//! Tables of rows in memory: current values, how they looked a moment ago, and exact-match indexes.
//!
//! A row keeps only what differs from its template, and a row nobody has changed since a bulk seeding stays packed as
//! text, so that a hundred thousand products fit; `render` shows the whole. Pages cost what they show, not what there is.
//! Fields that begin with an underscore are the simulator's own and are never shown. A table never blocks and never
//! fails; who may change it is decided above.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::clock;
use super::specs::Spec;

/// Former values kept per row while reads lag. More changes than this within the lag forget the oldest.
const PAST_MAX: usize = 32;

/// How far a read lags behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// It sees everything as it was this long ago.
    pub(crate) past: Duration,
    /// It does not see rows younger than this.
    pub(crate) born: Duration,
}

impl Lag {
    /// A read that sees everything as it is.
    pub(crate) const NONE: Lag = Lag { past: Duration::ZERO, born: Duration::ZERO };

    /// A read of the state of a moment ago.
    pub(crate) fn of(past: Duration) -> Lag {
        Lag { past, ..Lag::NONE }
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Lag::NONE
    }
}

/// An id: a number for most resources, a UUID for carts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Int(u64),
    Text(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(number) => write!(f, "{number}"),
            Key::Text(text) => f.write_str(text),
        }
    }
}

impl Key {
    /// Reads an id from a path or a query.
    pub(crate) fn parse(text: &str) -> Key {
        text.parse().map_or_else(|_| Key::Text(text.to_owned()), Key::Int)
    }

    /// The id as JSON.
    pub(crate) fn json(&self) -> Value {
        match self {
            Key::Int(number) => Value::from(*number),
            Key::Text(text) => Value::from(text.clone()),
        }
    }

    /// Reads an id from JSON.
    pub(crate) fn from_json(value: &Value) -> Option<Key> {
        match value {
            Value::Number(number) => number.as_u64().map(Key::Int),
            Value::String(text) if !text.is_empty() => Some(Key::parse(text)),
            _ => None,
        }
    }
}

/// A row: the fields that differ from the template.
pub(crate) type Row = Arc<Map<String, Value>>;

/// A value as it is kept.
#[derive(Debug, Clone)]
enum Stored {
    Open(Row),
    /// JSON text, opened for each read.
    Packed(Arc<str>),
}

impl Stored {
    fn open(&self) -> Row {
        match self {
            Stored::Open(row) => Arc::clone(row),
            Stored::Packed(text) => Arc::new(serde_json::from_str(text).unwrap_or_default()),
        }
    }
}

/// Former values, each with the moment it stopped being true.
type Past = VecDeque<(Instant, Option<Stored>)>;

#[derive(Debug, Default)]
struct Cell {
    now: Option<Stored>,
    version: u32,
    /// When the row was last modified, in Unix seconds, where its table knows such a field.
    modified: i64,
    /// Oldest first.
    past: Option<Box<Past>>,
}

impl Cell {
    fn seen(&self, lag: Lag) -> Option<Row> {
        if !lag.is_zero() {
            let now = Instant::now();
            // What stopped being true since then, oldest first.
            let since = |lag: Duration| {
                let horizon = now.checked_sub(lag);
                let past = self.past.iter().flat_map(|past| past.iter());
                past.filter(move |(until, _)| horizon.is_none_or(|horizon| *until > horizon))
            };
            if !lag.born.is_zero() && since(lag.born).any(|(_, old)| old.is_none()) {
                return None;
            }
            if !lag.past.is_zero()
                && let Some((_, old)) = since(lag.past).next()
            {
                return old.as_ref().map(Stored::open);
            }
        }
        self.now.as_ref().map(Stored::open)
    }
}

/// The rows that share a value of an indexed field; nearly always one.
#[derive(Debug)]
enum Group {
    One(Key),
    Many(BTreeSet<Key>),
}

impl Group {
    fn add(&mut self, key: &Key) {
        match self {
            Group::One(own) if own == key => {}
            Group::One(own) => *self = Group::Many(BTreeSet::from([own.clone(), key.clone()])),
            Group::Many(keys) => {
                keys.insert(key.clone());
            }
        }
    }

    /// Takes a row out; true when nothing is left.
    fn drop(&mut self, key: &Key) -> bool {
        match self {
            Group::One(own) => own == key,
            Group::Many(keys) => {
                keys.remove(key);
                keys.is_empty()
            }
        }
    }

    fn keys(&self) -> Vec<Key> {
        match self {
            Group::One(key) => vec![key.clone()],
            Group::Many(keys) => keys.iter().cloned().collect(),
        }
    }
}

/// All rows of one resource.
#[derive(Debug)]
pub(crate) struct Table {
    cells: BTreeMap<Key, Cell>,
    /// The ids of the rows that exist now, in order: pages are cut from it.
    ids: Vec<Key>,
    next: u64,
    /// Field, then text of the value (lower case), then ids.
    index: HashMap<&'static str, HashMap<String, Group>>,
    /// What the template says of indexed fields, as index text.
    defaults: HashMap<&'static str, String>,
    /// The field that says when a row changed.
    modified: Option<&'static str>,
    keep_past: bool,
}

impl Table {
    pub(crate) fn new(spec: &'static Spec) -> Table {
        let indexed =
            spec.indexes.iter().chain(spec.unique.iter().map(|rule| &rule.field)).chain(spec.natural.first());
        let index: HashMap<&str, _> = indexed.map(|field| (field.as_str(), HashMap::new())).collect();
        let default = |field: &&'static str| Some((*field, plain(spec.template.get(*field)?)?));
        let defaults = index.keys().filter_map(default).collect();
        let (next, modified) = (spec.first_id, spec.dates.modified());
        Table { cells: BTreeMap::new(), ids: Vec::new(), next, index, defaults, modified, keep_past: false }
    }

    /// Whether former values are kept, for reads that lag.
    pub(crate) fn keep_past(&mut self, keep: bool) {
        if self.keep_past && !keep {
            self.cells.retain(|_, cell| cell.now.is_some());
            self.cells.values_mut().for_each(|cell| cell.past = None);
        }
        self.keep_past = keep;
    }

    /// A number no row has had.
    pub(crate) fn fresh(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The current value.
    pub(crate) fn get(&self, key: &Key) -> Option<Row> {
        self.cells.get(key)?.now.as_ref().map(Stored::open)
    }

    /// Opens a packed row that is about to change, so that it is read from text once and not once for each look at it.
    pub(crate) fn unpack(&mut self, key: &Key) {
        if let Some(now) = self.cells.get_mut(key).and_then(|cell| cell.now.as_mut())
            && matches!(now, Stored::Packed(_))
        {
            *now = Stored::Open(now.open());
        }
    }

    /// Whether there is such a row now.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.cells.get(key).is_some_and(|cell| cell.now.is_some())
    }

    /// The value as a read that lags by `lag` sees it.
    pub(crate) fn see(&self, key: &Key, lag: Lag) -> Option<Row> {
        self.cells.get(key)?.seen(lag)
    }

    /// How often the row changed.
    pub(crate) fn version(&self, key: &Key) -> u32 {
        self.cells.get(key).map_or(0, |cell| cell.version)
    }

    /// Every row in order of id, as a read that lags by `lag` sees it.
    pub(crate) fn scan(&self, lag: Lag) -> impl Iterator<Item = (&Key, Row)> {
        self.cells.iter().filter_map(move |(key, cell)| Some((key, cell.seen(lag)?)))
    }

    /// The ids of the rows that exist now, in order.
    pub(crate) fn ids(&self) -> &[Key] {
        &self.ids
    }

    /// Those that are not below `least`.
    pub(crate) fn ids_from(&self, least: u64) -> &[Key] {
        &self.ids[self.ids.partition_point(|key| *key < Key::Int(least))..]
    }

    /// The ids of the rows modified between two moments (Unix seconds, both included); none where no field says when.
    pub(crate) fn modified_between(&self, from: i64, to: i64) -> Option<Vec<Key>> {
        self.modified?;
        let fits = |cell: &Cell| cell.now.is_some() && (from..=to).contains(&cell.modified);
        Some(self.cells.iter().filter(|(_, cell)| fits(cell)).map(|(key, _)| key.clone()).collect())
    }

    /// The first row at or after `from`.
    pub(crate) fn at_or_after(&self, from: u64) -> Option<(&Key, Row)> {
        self.ids_from(from).first().and_then(|key| Some((key, self.get(key)?)))
    }

    /// The largest number given out so far.
    pub(crate) fn last_id(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Ids of the rows whose indexed `field` equals `value`, without regard to case.
    pub(crate) fn find(&self, field: &str, value: &str) -> Vec<Key> {
        let Some(values) = self.index.get(field) else { return Vec::new() };
        values.get(&value.to_lowercase()).map(Group::keys).unwrap_or_default()
    }

    /// Whether `field` has an index.
    pub(crate) fn is_indexed(&self, field: &str) -> bool {
        self.index.contains_key(field)
    }

    /// Puts a row, new or changed.
    pub(crate) fn put(&mut self, key: Key, row: Map<String, Value>) {
        self.set(key, Some(Arc::new(row)));
    }

    /// Puts a new row as JSON text; `indexed` are its values in indexed fields. The row must hold what `indexed` says.
    pub(crate) fn put_packed(
        &mut self,
        key: Key,
        text: String,
        indexed: &[(&'static str, String)],
        modified: i64,
    ) {
        for (field, value) in indexed {
            if let Some(values) = self.index.get_mut(field) {
                join(values, value.to_lowercase(), &key);
            }
        }
        self.note(&key);
        let now = Some(Stored::Packed(Arc::from(text)));
        self.cells.insert(key, Cell { now, version: 1, modified, past: None });
    }

    /// Takes a row away; false when there was none.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        self.has(key) && {
            self.set(key.clone(), None);
            true
        }
    }

    /// Notes that there is a row of this id.
    fn note(&mut self, key: &Key) {
        if let Key::Int(number) = key {
            self.next = self.next.max(number + 1);
        }
        if self.ids.last().is_none_or(|last| last < key) {
            self.ids.push(key.clone());
        } else if let Err(place) = self.ids.binary_search(key) {
            self.ids.insert(place, key.clone());
        }
    }

    fn set(&mut self, key: Key, row: Option<Row>) {
        let old = self.cells.get(&key).and_then(|cell| cell.now.clone());
        self.reindex(&key, old.as_ref().map(Stored::open).as_ref(), row.as_ref());
        if row.is_some() {
            self.note(&key);
        } else if let Ok(place) = self.ids.binary_search(&key) {
            self.ids.remove(place);
        }
        if row.is_none() && !self.keep_past {
            self.cells.remove(&key);
            return;
        }
        let modified = row.as_ref().and_then(|row| clock::parse(row.get(self.modified?)?.as_str()?));
        let cell = self.cells.entry(key).or_default();
        cell.version += 1;
        cell.modified = modified.unwrap_or(0);
        if self.keep_past {
            let past = cell.past.get_or_insert_default();
            if past.len() == PAST_MAX {
                past.pop_front();
            }
            past.push_back((Instant::now(), old));
        }
        cell.now = row.map(Stored::Open);
    }

    fn reindex(&mut self, key: &Key, old: Option<&Row>, new: Option<&Row>) {
        for (field, values) in &mut self.index {
            // A field that the row does not hold shows the template's value, and is found by it.
            let default = self.defaults.get(field);
            let shown = |row: &Row| row.get(*field).map_or_else(|| default.cloned(), plain);
            let (before, after) = (old.and_then(shown), new.and_then(shown));
            if before == after {
                continue;
            }
            if let Some(text) = before
                && values.get_mut(&text).is_some_and(|group| group.drop(key))
            {
                values.remove(&text);
            }
            if let Some(text) = after {
                join(values, text, key);
            }
        }
    }
}

fn join(values: &mut HashMap<String, Group>, text: String, key: &Key) {
    match values.entry(text) {
        Entry::Occupied(mut group) => group.get_mut().add(key),
        Entry::Vacant(place) => {
            place.insert(Group::One(key.clone()));
        }
    }
}

/// A scalar as index text; empty text has no entry.
pub(crate) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.to_lowercase()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The field of a row, or its default.
pub(crate) fn field<'a>(spec: &'a Spec, row: &'a Map<String, Value>, name: &str) -> &'a Value {
    row.get(name).or_else(|| spec.template.get(name)).unwrap_or(&Value::Null)
}

/// The whole row as a read shows it: the template's fields in the template's order, then what the row has beyond them.
pub(crate) fn render(spec: &Spec, row: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::with_capacity(spec.template.len() + 4);
    for (name, default) in &spec.template {
        out.insert(name.clone(), row.get(name).unwrap_or(default).clone());
    }
    let hidden = spec.parent.as_ref().filter(|parent| parent.hidden).map(|parent| parent.field.as_str());
    for (name, value) in row.iter().filter(|_| spec.table.is_none()) {
        if !name.starts_with('_') && Some(name.as_str()) != hidden && !out.contains_key(name) {
            out.insert(name.clone(), value.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::specs;
    use serde_json::json;

    fn row(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn an_index_follows_changes_and_removals() {
        let mut table = Table::new(specs::known("product"));
        table.put(Key::Int(7), row(json!({"id": 7, "sku": "A-1"})));
        assert_eq!(table.find("sku", "a-1"), [Key::Int(7)]);
        table.put(Key::Int(7), row(json!({"id": 7, "sku": "A-2"})));
        assert!(table.find("sku", "a-1").is_empty());
        assert!(table.remove(&Key::Int(7)));
        assert!(!table.remove(&Key::Int(7)));
        assert!(table.find("sku", "a-2").is_empty());
        assert_eq!(table.scan(Lag::NONE).count(), 0);
        assert_eq!(table.fresh(), 8);
    }

    #[test]
    fn a_lagging_read_sees_what_was_true_then() {
        let mut table = Table::new(specs::known("product"));
        table.keep_past(true);
        table.put(Key::Int(1), row(json!({"id": 1, "name": "old"})));
        let minute = Lag::of(Duration::from_secs(60));
        assert!(table.see(&Key::Int(1), minute).is_none());
        assert!(table.see(&Key::Int(1), Lag::NONE).is_some());
        table.keep_past(false);
        table.keep_past(true);
        table.put(Key::Int(1), row(json!({"id": 1, "name": "new"})));
        assert_eq!(table.see(&Key::Int(1), minute).unwrap()["name"], "old");
        assert_eq!(table.see(&Key::Int(1), Lag::NONE).unwrap()["name"], "new");
        table.remove(&Key::Int(1));
        assert_eq!(table.see(&Key::Int(1), minute).unwrap()["name"], "old");
        assert_eq!(table.scan(minute).count(), 1);
        assert_eq!(table.scan(Lag::NONE).count(), 0);
    }

    #[test]
    fn a_list_that_lags_for_new_rows_shows_old_ones_as_they_are() {
        let mut table = Table::new(specs::known("product"));
        table.put(Key::Int(1), row(json!({"id": 1, "name": "old"})));
        table.keep_past(true);
        table.put(Key::Int(1), row(json!({"id": 1, "name": "new"})));
        table.put(Key::Int(2), row(json!({"id": 2, "name": "young"})));
        let lag = Lag { born: Duration::from_secs(60), ..Lag::NONE };
        assert_eq!(table.see(&Key::Int(1), lag).unwrap()["name"], "new");
        assert!(table.see(&Key::Int(2), lag).is_none());
        assert!(table.see(&Key::Int(2), Lag::NONE).is_some());
    }
}
