//! Notes of what was written, for the incoming path: so it knows the callbacks that follow for the bridge's own.
//!
//! A note is made of the store's reply, as soon as a command has ended, and goes to the store's intake, to the
//! partition that keeps its thing in order. It costs no read and nobody waits for it: one that Kafka does not take,
//! or that a crash swallows, is only a callback whose cause is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::apply::Ending;
use super::decode::Checked;
use super::plan::{at, scalar};
use super::settle::{resource_id, written_row};
use crate::catalog::change::Change;
use crate::model::command::Outcome;
use crate::model::content::seconds_at;
use crate::model::hint::{Hint, Op, Trigger};
use crate::model::ids::{EntityId, EntityKey};
use crate::model::record::OutRecord;
use crate::model::request::Method;
use crate::model::written::{Fingerprint, Note, SCOPE, value_of};
use crate::runtime::ports::Append;

/// Notes that may wait to be appended: some seconds of the fastest batches, 10 MB at the most.
const MAX_WAITING: usize = 10_000;
/// Notes that are appended at once, in one record at the most: it stays below 512 KiB with the longest ids.
const MAX_AT_ONCE: usize = 500;
/// Dates that move when nothing else does. They say nothing about who changed what.
const DATES: [&str; 2] = ["date_modified", "updated_at"];

/// Which notes reach whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub(super) note: Note,
    /// The key by which hints of the thing are kept in order; none where nobody knows it: then every partition is told.
    pub(super) order: Option<EntityKey>,
}

/// Where the writes of one store are noted.
#[derive(Clone)]
pub struct Noted {
    store: Arc<str>,
    published: Arc<BTreeSet<String>>,
    sender: mpsc::Sender<Written>,
}

impl Noted {
    /// Notes writes of what the store's `incoming` entries publish. What is noted comes out at the other end, for
    /// [`append`].
    pub fn new(store: Arc<str>, published: BTreeSet<String>) -> (Self, mpsc::Receiver<Written>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self { store, published: Arc::new(published), sender }, receiver)
    }

    /// Notes what a command wrote, if it did.
    pub(super) fn written(&self, command: &Checked, ending: &Ending, now_ms: i64) {
        let mut lost = 0;
        for written in notes(command, ending, &|entity| self.published.contains(entity), now_ms) {
            lost += usize::from(self.sender.try_send(written).is_err());
        }
        if lost > 0 {
            tracing::warn!(store.name = %self.store, notes = lost, "{UNKNOWN_ORIGIN}: too many wait");
        }
    }
}

/// What follows from a note that does not reach the intake.
const UNKNOWN_ORIGIN: &str =
    "writes could not be noted, and their callbacks will look like changes by others";

/// The intake of a store.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The topic.
    pub topic: Arc<str>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// Appends notes as they come, until nobody makes any more.
pub async fn append<A: Append>(mut notes: mpsc::Receiver<Written>, intake: Intake, appender: Arc<A>) {
    let mut taken = Vec::with_capacity(MAX_AT_ONCE);
    while notes.recv_many(&mut taken, MAX_AT_ONCE).await > 0 {
        let count = taken.len();
        if let Err(error) = appender.append(records(&intake, taken.drain(..))).await {
            tracing::warn!(%error, notes = count, "{UNKNOWN_ORIGIN}");
        }
    }
}

/// The records of notes: one for each thing, and one in each partition for those of which nobody knows where their
/// things belong.
fn records(intake: &Intake, written: impl Iterator<Item = Written>) -> Vec<OutRecord> {
    let (mut records, mut of_all) = (Vec::new(), Vec::new());
    for Written { note, order } in written {
        match order {
            Some(order) => records.push(record(intake, None, &order, &[note])),
            None => of_all.push(note),
        }
    }
    if let Some(first) = of_all.first() {
        let key = first.key.clone();
        records.extend((0..intake.partitions).map(|number| record(intake, Some(number), &key, &of_all)));
    }
    records
}

fn record(intake: &Intake, partition: Option<i32>, order: &EntityKey, notes: &[Note]) -> OutRecord {
    let (event, now_ms) = (notes[0].command.clone(), notes[0].time_ms);
    let trigger = Trigger { key: order.clone(), op: Op::Read, scope: SCOPE.to_owned(), row: None };
    let hint =
        Hint { trigger, event, created_at: None, received_ms: now_ms, traceparent: None, carried_ms: None };
    OutRecord {
        topic: intake.topic.clone(),
        partition,
        key: Some(Bytes::from(order.to_string())),
        value: Some(value_of(notes)),
        headers: hint.headers(),
        timestamp_ms: Some(now_ms),
    }
}

/// What is to be noted of a command that has ended.
fn notes(command: &Checked, ending: &Ending, published: &dyn Fn(&str) -> bool, now_ms: i64) -> Vec<Written> {
    if ending.outcome != Outcome::Applied {
        return Vec::new();
    }
    let payload: Value =
        command.payload.as_ref().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let mut notes: Vec<Written> = published(&command.entity.name)
        .then(|| own(command, ending, &payload, now_ms))
        .into_iter()
        .flatten()
        .collect();
    for change in command.action().changes.iter().filter(|change| published(&change.entity)) {
        let changed = changed(change, &payload).into_iter();
        notes.extend(changed.map(|((at, key), fields)| {
            let (command, time_ms) = (command.id.to_string(), now_ms);
            let note = Note { key, at: Some(at), command, time_ms, deleted: false, version: None, fields };
            Written { note, order: None }
        }));
    }
    notes
}

/// The thing that the command is about.
fn own(command: &Checked, ending: &Ending, payload: &Value, now_ms: i64) -> Option<Written> {
    let entity = &command.entity;
    let key = |id| EntityKey { entity: entity.name.as_str().into(), id };
    let id = EntityId::parse(&resource_id(command, ending)?).ok()?;
    let row = written_row(ending);
    let deleted = command.action().method == Some(Method::Delete);
    let volatile: Vec<&str> = entity.version.as_deref().into_iter().chain(DATES).collect();
    let fields = match &row {
        // What is archived stays, and says so.
        _ if deleted => Fingerprint::collect([("is_deleted", &Value::Bool(true))].into_iter()),
        Some(row) => Fingerprint::of_row(row, &volatile),
        None => Fingerprint::of_payload(payload),
    };
    let version = row.as_ref().and_then(|row| seconds_at(row, entity.version.as_deref()?));
    let order = match &entity.hint_key {
        None => Some(key(id.clone())),
        Some(places) => hint_id(command, places, row.as_ref()).map(key),
    };
    let (command, time_ms) = (command.id.to_string(), now_ms);
    Some(Written { note: Note { key: key(id), at: None, command, time_ms, deleted, version, fields }, order })
}

/// The id by which hints of a group are kept in order, as far as path and reply tell it.
fn hint_id(command: &Checked, places: &[String], row: Option<&Value>) -> Option<EntityId> {
    let part = |place: &String| {
        let name = place.strip_prefix('@').unwrap_or(place);
        let held = || at(row?.as_object()?, name).and_then(scalar);
        command.path_id(name).map(str::to_owned).or_else(held)
    };
    let parts: Option<Vec<String>> = places.iter().map(part).collect();
    EntityId::of_row(&parts?).ok()
}

/// The other things that the payload says it changes, each by the place and the text that name it.
fn changed(change: &Change, payload: &Value) -> BTreeMap<(String, EntityKey), Fingerprint> {
    let elements: &[Value] = match &change.each {
        Some(list) => payload.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice),
        None => std::slice::from_ref(payload),
    };
    let mut things: BTreeMap<(String, EntityKey), Fingerprint> = BTreeMap::new();
    for element in elements {
        let text = |field: &str| element.get(field).and_then(scalar);
        let named = change.by.iter().find_map(|by| Some((&by.at, text(&by.field)?)));
        let Some((place, Ok(id))) = named.map(|(at, text)| (at, EntityId::of_row(&[text]))) else { continue };
        let fields: Vec<(String, &Value)> = change
            .fields
            .iter()
            .filter_map(|(path, field)| Some((filled(path, &text)?, element.get(field)?)))
            .collect();
        let fields = Fingerprint::collect(fields.iter().map(|(path, value)| (path.as_str(), *value)));
        let key = EntityKey { entity: change.entity.as_str().into(), id };
        things.entry((place.clone(), key)).or_default().extend(fields);
    }
    things
}

/// A path with its `{parts}` filled; none where one is not there.
fn filled(path: &str, text: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let part = |name: &str| match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        Some(field) => text(field),
        None => Some(name.to_owned()),
    };
    path.split('.').map(part).collect::<Option<Vec<String>>>().map(|parts| parts.join("."))
}
