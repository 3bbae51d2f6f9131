//! What the catalogue answers when the settings ask for names.

use crate::catalog::Catalog;
use crate::config::EntityNames;

impl EntityNames for Catalog {
    fn resolve(&self, name: &str) -> Option<String> {
        self.entity(name).map(|entity| entity.name.clone())
    }

    fn all(&self) -> Vec<String> {
        self.entities().iter().map(|entity| entity.name.clone()).collect()
    }

    fn scopes(&self, entity: &str) -> Vec<String> {
        self.entity(entity).map(|e| e.scope.iter().map(|scope| scope.name.clone()).collect()).unwrap_or_default()
    }

    fn includes(&self, entity: &str) -> Vec<String> {
        self.entity(entity).map(|e| e.include.iter().map(|i| i.name.clone()).collect()).unwrap_or_default()
    }

    fn actions(&self, entity: &str) -> Vec<String> {
        self.entity(entity).map(|e| e.action.iter().map(|a| a.name.clone()).collect()).unwrap_or_default()
    }
}
