//! The catalogue: what BigCommerce's management API offers, as rows of data.
//!
//! Rows are TOML files beside this one, a file for each family, embedded in the binary, parsed and checked once.
//! Nothing in the code names an entity, a scope or an endpoint: adding one is adding a row. A row that contradicts
//! itself, or another, is refused when the catalogue is loaded, and a test compares every row with the OpenAPI file of
//! BigCommerce's that it names.

mod check;
pub mod place;
pub mod row;

use std::collections::HashMap;
use std::sync::Arc;

pub use row::{
    Action, Body, Class, DEFAULT_PART, DateFormat, Entity, Include, List, ManyStyle, Pages, ReadMany,
    Resolve, Scope, Since, Target, When,
};

use crate::model::request::{ApiPath, BadPath, Method, Request};

/// The families that ship with the bridge.
const FAMILIES: [(&str, &str); 7] = [
    ("products.toml", include_str!("products.toml")),
    ("categories.toml", include_str!("categories.toml")),
    ("customers.toml", include_str!("customers.toml")),
    ("orders.toml", include_str!("orders.toml")),
    ("carts.toml", include_str!("carts.toml")),
    ("inventory.toml", include_str!("inventory.toml")),
    ("marketing.toml", include_str!("marketing.toml")),
];

/// All entities, with their indexes.
#[derive(Debug)]
pub struct Catalog {
    entities: Vec<Arc<Entity>>,
    by_name: HashMap<String, usize>,
    by_scope: HashMap<String, (usize, usize)>,
}

/// Why the catalogue was refused: every fault of every row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue has faults: {}", .0.join("; "))]
pub struct BadCatalog(pub Vec<String>);

impl Catalog {
    /// The rows that ship with the bridge.
    ///
    /// # Errors
    /// Never for the embedded rows, which a test loads; the type is that of rows a user may add.
    pub fn embedded() -> Result<Self, BadCatalog> {
        Self::from_families(&FAMILIES)
    }

    /// Parses and checks rows given as `(file name, TOML)`.
    ///
    /// # Errors
    /// All faults found, each naming its row.
    pub fn from_families(families: &[(&str, &str)]) -> Result<Self, BadCatalog> {
        let mut faults = Vec::new();
        let mut entities: Vec<Arc<Entity>> = Vec::new();
        for (name, text) in families {
            match toml::from_str::<row::Family>(text) {
                Ok(family) => entities.extend(family.entity.into_iter().map(Arc::new)),
                Err(error) => faults.push(format!("{name}: {error}")),
            }
        }
        let (mut by_name, mut by_scope) = (HashMap::new(), HashMap::new());
        for (index, entity) in entities.iter().enumerate() {
            check::entity(entity, &mut faults);
            for name in std::iter::once(&entity.name).chain(&entity.aliases) {
                if by_name.insert(name.clone(), index).is_some() {
                    faults.push(format!("the name {name:?} is given to two entities"));
                }
            }
            for (row, scope) in entity.scope.iter().enumerate() {
                if by_scope.insert(scope.name.clone(), (index, row)).is_some() {
                    faults.push(format!("the scope {:?} is claimed twice", scope.name));
                }
            }
        }
        if faults.is_empty() { Ok(Self { entities, by_name, by_scope }) } else { Err(BadCatalog(faults)) }
    }

    /// All entities, in the order of the files.
    pub fn entities(&self) -> &[Arc<Entity>] {
        &self.entities
    }

    /// The entity of this name or alias.
    pub fn entity(&self, name: &str) -> Option<&Arc<Entity>> {
        self.by_name.get(name).map(|index| &self.entities[*index])
    }

    /// The row that claims a delivered scope, in any of the spellings seen in the wild.
    pub fn scope(&self, delivered: &str) -> Option<(&Arc<Entity>, &Scope)> {
        let found = self.by_scope.get(delivered).or_else(|| self.by_scope.get(&normalise_scope(delivered)));
        let (entity, scope) = found?;
        let entity = &self.entities[*entity];
        Some((entity, &entity.scope[*scope]))
    }
}

/// A delivered scope as the catalogue spells it: no trailing slash, `lineItem` in the singular, and the star of a
/// wildcard, which BigCommerce may deliver as it was subscribed, as "updated".
fn normalise_scope(delivered: &str) -> String {
    let name = delivered.trim_end_matches('/').replace("/lineItems/", "/lineItem/");
    match name.strip_suffix("/*") {
        Some(family) => format!("{family}/updated"),
        None => name,
    }
}

impl Entity {
    /// Where the parts of a hint's id stand in the entity's JSON.
    pub fn hint_key(&self) -> &[String] {
        self.hint_key.as_deref().unwrap_or(&self.key)
    }

    /// Whether it can be read, and so have a topic.
    pub fn is_readable(&self) -> bool {
        self.read.one.is_some() || self.read.many.is_some()
    }

    /// The action of this name.
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.action.iter().find(|action| action.name == name)
    }

    /// The include of this name.
    pub fn find_include(&self, name: &str) -> Option<&Include> {
        self.include.iter().find(|include| include.name == name)
    }
}

impl Action {
    /// The names of the ids that a command's `path` must give, in the path's order.
    pub fn path_ids(&self) -> Vec<&str> {
        let in_path = self.path.iter().flat_map(|path| placeholders(path));
        let elsewhere = self.id_query.iter().chain(&self.id_body).map(|place| place.id.as_str());
        in_path.chain(elsewhere).collect()
    }
}

/// The names of the `{name}` segments of a path template.
pub fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// A read of a list or of a thing without ids in its path.
///
/// # Errors
/// The template is no API path, or needs an id.
pub fn plain_get(
    path: &str,
    query: Vec<(String, String)>,
    purpose: crate::model::request::Purpose,
) -> Result<Request, BadPath> {
    let path = ApiPath::render(path, |_| None)?;
    Ok(Request { method: Method::Get, path, query, body: None, purpose })
}

#[cfg(test)]
mod tests;
