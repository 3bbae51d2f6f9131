//! One load of the settings, with what follows from it: the unit in which settings come into force.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use super::topics::StoreTopics;
use crate::bigcommerce::StoreClient;
use crate::catalog::Catalog;
use crate::config::{Settings, StoreSettings};
use crate::incoming::decode::IntakeTopics;

/// Settings and the catalogue that goes with them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Load {
    /// Checked as a whole.
    pub settings: Arc<Settings>,
    /// What can be read and written.
    pub catalog: Arc<Catalog>,
}

impl Load {
    /// Completes settings.
    ///
    /// # Errors
    /// The catalogue cannot be built.
    pub fn new(settings: Arc<Settings>) -> Result<Self> {
        let catalog = Arc::new(catalog_of(&settings)?);
        Ok(Self { settings, catalog })
    }

    /// Where callbacks go, by the store's name.
    pub(super) fn intakes(&self) -> BTreeMap<Arc<str>, IntakeTopics> {
        let of_store = |store: &StoreSettings| {
            let topics = StoreTopics::of(&self.settings, &store.name);
            let intake = IntakeTopics { intake: topics.intake, dead_letters: topics.dead_letters };
            (Arc::from(store.name.as_str()), intake)
        };
        self.settings.stores.iter().map(of_store).collect()
    }
}

/// The catalogue that belongs to settings: the one place that decides it.
fn catalog_of(settings: &Settings) -> Result<Catalog> {
    Ok(Catalog::embedded()?.with_rows(&settings.catalog)?)
}

/// What is in force now, for work that is not one store's: the scheduler's, the console's. A reload replaces it as a
/// whole; whoever follows it drains and begins anew (see `follow`).
#[derive(Debug, Clone)]
pub struct InForce {
    /// Settings and catalogue.
    pub load: Load,
    /// The client of each store, by name. A store that a reload does not touch keeps its client.
    pub clients: BTreeMap<String, Arc<StoreClient>>,
}
