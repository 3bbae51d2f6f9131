//! What the catalogue answers when the settings ask for names.

use std::sync::Arc;

use serde_json::Value;

use crate::catalog::{BadCatalog, Body, Catalog, Entity, Fault, Scope};
use crate::config::{CommandParts, EntityNames, RowFault};
use crate::outgoing::needed_ids;
use crate::scheduler::scan::{Level, levels};

impl EntityNames for Catalog {
    fn resolve(&self, name: &str) -> Option<String> {
        self.entity(name).map(|entity| entity.name.clone())
    }

    fn all(&self) -> Vec<String> {
        self.entities().iter().map(|entity| entity.name.clone()).collect()
    }

    /// Those of single channels only where the store has none: an order is announced once.
    fn scopes(&self, entity: &str) -> Vec<String> {
        let Some(row) = self.entity(entity) else { return Vec::new() };
        let readable = row.scope.iter().filter(|scope| scope.not_readable.is_none());
        let (of_channels, of_store): (Vec<&Scope>, Vec<&Scope>) =
            readable.partition(|scope| scope.is_of_channel());
        let wanted = if of_store.is_empty() { of_channels } else { of_store };
        wanted.into_iter().map(|scope| scope.name.clone()).collect()
    }

    fn all_scopes(&self, entity: &str) -> Vec<String> {
        let (own, beside) = self.scopes_of(entity);
        own.into_iter().chain(beside).map(str::to_owned).collect()
    }

    fn incoming_default(&self) -> Vec<String> {
        self.entities().iter().filter(|entity| entity.default).map(|entity| entity.name.clone()).collect()
    }

    fn includes(&self, entity: &str) -> Vec<String> {
        self.entity(entity).map(|e| e.include.iter().map(|i| i.name.clone()).collect()).unwrap_or_default()
    }

    fn default_includes(&self, entity: &str) -> Vec<String> {
        let default =
            |e: &Arc<Entity>| e.include.iter().filter(|i| i.default).map(|i| i.name.clone()).collect();
        self.entity(entity).map(default).unwrap_or_default()
    }

    fn places(&self, entity: &str) -> Vec<String> {
        let levels = self.entity(entity).and_then(|entity| levels(self, entity)).unwrap_or_default();
        levels.iter().flat_map(Level::names).collect()
    }

    fn actions(&self, entity: &str) -> Vec<String> {
        self.entity(entity).map(|e| e.action.iter().map(|a| a.name.clone()).collect()).unwrap_or_default()
    }

    fn command_parts(&self, entity: &str, action: &str) -> Option<CommandParts> {
        let entity = self.entity(entity)?;
        let action = entity.action(action)?;
        let ids = needed_ids(entity, action).into_iter().map(str::to_owned).collect();
        Some(CommandParts { ids, payload: !matches!(action.body, Body::None | Body::ArrayOfId) })
    }

    fn is_readable(&self, entity: &str) -> bool {
        self.entity(entity).is_some_and(|entity| entity.is_readable())
    }

    fn with_rows(&self, rows: &[Value]) -> Result<Box<dyn EntityNames>, Vec<RowFault>> {
        let fault = |fault: Fault| RowFault { entity: fault.entity, what: fault.what };
        match Catalog::with_rows(self, rows) {
            Ok(catalog) => Ok(Box::new(catalog)),
            Err(BadCatalog(faults)) => Err(faults.into_iter().map(fault).collect()),
        }
    }
}
