//! What is to be scheduled: the stores, and of each the entities with their schedules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scan::{Level, levels};
use super::schedule::{Poll, Schedule, Sweep};
use super::seen::hash;
use crate::catalog::Catalog;
use crate::incoming::settings::EntitySettings;

/// One entity of one store.
#[derive(Debug)]
pub struct Entry {
    /// How it is read and published.
    pub settings: Arc<EntitySettings>,
    /// The lists that lead to it, outermost first; none where it is listed nowhere.
    pub levels: Option<Vec<Level>>,
    /// Fixed placeholders of those lists.
    pub path: BTreeMap<String, String>,
    /// When it is read.
    pub schedule: Schedule,
}

impl Entry {
    /// An entity with its configured schedule.
    pub fn new(
        catalog: &Catalog,
        settings: Arc<EntitySettings>,
        path: BTreeMap<String, String>,
        (poll, sweep): (Option<Poll>, Option<Sweep>),
    ) -> Self {
        let levels = levels(catalog, &settings.row);
        let has_since = settings.row.list.as_ref().is_some_and(|list| list.since.is_some());
        let seed = hash(&settings.row.name);
        Self { settings, levels, path, schedule: Schedule { poll, sweep, has_since, seed } }
    }
}

/// One store.
pub struct StorePlan<S> {
    /// Its name.
    pub name: Arc<str>,
    /// How it is reached.
    pub client: Arc<S>,
    /// Where hints go.
    pub intake: Arc<str>,
    /// Where the state is kept.
    pub ledger: Arc<str>,
    /// The entities, by the catalogue's name.
    pub entries: BTreeMap<String, Entry>,
}

/// Everything that the leader looks after.
pub struct Plan<S> {
    /// The stores, by name.
    pub stores: BTreeMap<Arc<str>, Arc<StorePlan<S>>>,
    /// Where it is told what happens.
    pub notifications: Arc<str>,
}
