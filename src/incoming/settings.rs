//! What the incoming path needs to know of one store and its entities.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::coalesce::Windows;
use crate::catalog::{Entity, Include, List};

/// A mapping of a JSON value, such as a compiled jq expression; the error is one clause for people.
pub type Mapping = Arc<dyn Fn(&Value) -> Result<Value, String> + Send + Sync>;

/// The shape of entity records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CloudEvents 1.0, Kafka binary mode: the value is the entity.
    CloudEvents,
    /// CloudEvents 1.0, structured mode: one JSON document.
    CloudEventsStructured,
    /// `{op, after, source, ts_ms}`; a delete is followed by a tombstone.
    Envelope,
}

/// How one entity of one store is read and published.
pub struct EntitySettings {
    /// The catalogue's row.
    pub row: Arc<Entity>,
    /// Where it is published.
    pub topic: Arc<str>,
    /// Makes the record's key of the entity's id.
    pub key: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Sub-resources read along, by name.
    pub include: Vec<String>,
    /// Further query parameters of the read.
    pub query: BTreeMap<String, String>,
    /// When a hint is due.
    pub windows: Windows,
    /// How long a missing entity is given before it counts as gone.
    pub confirm_gone: Duration,
    /// Live events that find the published content are settled without a record.
    pub suppress_unchanged: bool,
    /// Changes that the bridge itself made are settled without a record.
    pub suppress_echo: bool,
    /// When an entity without a date is read once more after a callback: its read may have come too early, and
    /// nothing would show it.
    pub second_read: Option<Duration>,
    /// The shape of its records.
    pub format: Format,
    /// Changes `{path, query}` before the read.
    pub parameters: Option<Mapping>,
    /// `false` and `null` keep the entity from being published, as jq has it.
    pub filter: Option<Mapping>,
    /// Changes the entity before it is published.
    pub transform: Option<Mapping>,
}

impl fmt::Debug for EntitySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntitySettings").field("entity", &self.row.name).field("topic", &self.topic).finish()
    }
}

impl EntitySettings {
    /// The chosen includes that are parameters of the read itself.
    pub fn query_includes(&self) -> impl Iterator<Item = &Include> {
        self.chosen().filter(|include| include.path.is_none())
    }

    /// The chosen includes that are reads of their own.
    pub fn path_includes(&self) -> impl Iterator<Item = &Include> {
        self.chosen().filter(|include| include.path.is_some())
    }

    /// Whether a row of the entity's list is what a read of one would bring, so that a hint may carry it.
    pub fn takes_carried_rows(&self) -> bool {
        let is_plain =
            self.query.is_empty() && self.parameters.is_none() && self.path_includes().next().is_none();
        let is_whole = |list: &List| list.whole && (list.include || self.query_includes().next().is_none());
        is_plain && self.row.list.as_ref().is_some_and(is_whole)
    }

    fn chosen(&self) -> impl Iterator<Item = &Include> {
        self.include.iter().filter_map(|name| self.row.find_include(name))
    }
}

/// One store.
#[derive(Debug)]
pub struct StoreSettings {
    /// Its name in topics.
    pub name: Arc<str>,
    /// Its hash, for `ce_source`.
    pub hash: Arc<str>,
    /// The entities that are published, by the catalogue's name.
    pub entities: BTreeMap<String, Arc<EntitySettings>>,
    /// The hints' topic, to which a hint that must wait for long is appended again.
    pub intake: Arc<str>,
    /// What cannot be published.
    pub dead_letters: Arc<str>,
    /// What is known to be published.
    pub ledger: Arc<str>,
    /// Largest value of a record that the brokers take, in bytes.
    pub max_record_bytes: usize,
}
