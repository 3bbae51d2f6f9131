//! The catalogue: what BigCommerce's management API offers, as rows of data.
//!
//! Rows are TOML files beside this one, a file for each family, embedded in the binary, parsed and checked once.
//! Nothing in the code names an entity, a scope or an endpoint: adding one is adding a row. A row that contradicts
//! itself, or another, is refused when the catalogue is loaded, and a test compares every row with the OpenAPI file of
//! BigCommerce's that it names.

pub mod caps;
pub mod change;
mod check;
mod links;
pub mod place;
pub mod row;
mod scopes;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize as _;

pub use row::{
    Action, BatchReply, Body, Class, DEFAULT_PART, DateFormat, Entity, Include, Keyset, List, ManyStyle,
    Pages, ReadMany, Resolve, Scope, Since, Target, When,
};
pub use scopes::{Wildcard, channel_of};

use crate::model::request::{ApiPath, BadPath, Method, Request};

/// The families that ship with the bridge.
const FAMILIES: [(&str, &str); 19] = [
    ("products.toml", include_str!("products.toml")),
    ("options.toml", include_str!("options.toml")),
    ("categories.toml", include_str!("categories.toml")),
    ("prices.toml", include_str!("prices.toml")),
    ("inventory.toml", include_str!("inventory.toml")),
    ("customers.toml", include_str!("customers.toml")),
    ("orders.toml", include_str!("orders.toml")),
    ("payments.toml", include_str!("payments.toml")),
    ("carts.toml", include_str!("carts.toml")),
    ("checkouts.toml", include_str!("checkouts.toml")),
    ("metafields.toml", include_str!("metafields.toml")),
    ("marketing.toml", include_str!("marketing.toml")),
    ("content.toml", include_str!("content.toml")),
    ("channels.toml", include_str!("channels.toml")),
    ("shipping.toml", include_str!("shipping.toml")),
    ("tax.toml", include_str!("tax.toml")),
    ("store.toml", include_str!("store.toml")),
    ("settings.toml", include_str!("settings.toml")),
    ("b2b.toml", include_str!("b2b.toml")),
];

/// The wildcards that can be subscribed to.
const WILDCARDS: &str = include_str!("wildcards.toml");

/// All entities, with their indexes.
#[derive(Debug)]
pub struct Catalog {
    entities: Vec<Arc<Entity>>,
    by_name: HashMap<String, usize>,
    by_scope: HashMap<String, (usize, usize)>,
    wildcards: Vec<Wildcard>,
    caps: Vec<caps::Cap>,
    /// The entities whose rows are the user's.
    own: Vec<String>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The entity's name; of a family that is no TOML, the file's.
    pub entity: String,
    /// One clause.
    pub what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entity {:?}: {}", self.entity, self.what)
    }
}

/// Why the catalogue was refused: every fault of every row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue has faults: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct BadCatalog(pub Vec<Fault>);

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
        let mut entities: Vec<Arc<Entity>> = Vec::new();
        for (name, text) in families {
            let family: row::Family = toml::from_str(text).map_err(|error| {
                BadCatalog(vec![Fault { entity: (*name).to_owned(), what: error.to_string() }])
            })?;
            entities.extend(family.entity.into_iter().map(Arc::new));
        }
        let caps = caps::embedded().map_err(|fault| BadCatalog(vec![fault]))?;
        Self::of(entities, Vec::new(), caps)
    }

    /// This catalogue with rows of the user's: a row of a known name takes that one's place, wholly; a cap takes its
    /// endpoints away from those that ship.
    ///
    /// # Errors
    /// All faults found; the user's rows are held to the same rules as those that ship.
    pub fn with(&self, rows: Vec<Entity>, caps: &[caps::Cap]) -> Result<Self, BadCatalog> {
        let mut entities = self.entities.clone();
        let mut own = Vec::new();
        let mut faults = Vec::new();
        for row in rows {
            if own.contains(&row.name) {
                faults.push(Fault { entity: row.name, what: "it is given twice".into() });
                continue;
            }
            own.push(row.name.clone());
            match entities.iter_mut().find(|known| known.name == row.name) {
                Some(known) => *known = Arc::new(row),
                None => entities.push(Arc::new(row)),
            }
        }
        // Counted as the user wrote them, so before they are among ours.
        caps::faults(caps, &mut faults);
        match Self::of(entities, own, caps::with(&self.caps, caps)) {
            Ok(catalog) if faults.is_empty() => Ok(catalog),
            Ok(_) => Err(BadCatalog(faults)),
            Err(BadCatalog(more)) => Err(BadCatalog(faults.into_iter().chain(more).collect())),
        }
    }

    /// As [`Catalog::with`], of rows as a config has them: entities, and caps, which have `at_once` and no name.
    ///
    /// # Errors
    /// All faults found; of an entity without a name, it is `row N`, and of a cap `cap N`, counted from 1.
    pub fn with_rows(&self, rows: &[serde_json::Value]) -> Result<Self, BadCatalog> {
        let (mut entities, mut caps) = (Vec::with_capacity(rows.len()), Vec::new());
        let mut faults = Vec::new();
        let (limits, rows): (Vec<_>, Vec<_>) = rows.iter().partition(|row| is_cap(row));
        for (at, row) in rows.into_iter().enumerate() {
            let name = row.get("name").and_then(serde_json::Value::as_str).map(str::to_owned);
            match Entity::deserialize(row) {
                Ok(entity) => entities.push(entity),
                Err(error) => faults.push(Fault {
                    entity: name.unwrap_or_else(|| format!("row {}", at + 1)),
                    what: error.to_string(),
                }),
            }
        }
        for (at, row) in limits.into_iter().enumerate() {
            match caps::Cap::deserialize(row) {
                Ok(cap) => caps.push(cap),
                Err(error) => faults.push(Fault { entity: caps::cap_name(at), what: error.to_string() }),
            }
        }
        // Rows that refer to one that could not be read would be blamed for it.
        if faults.is_empty() { self.with(entities, &caps) } else { Err(BadCatalog(faults)) }
    }

    fn of(entities: Vec<Arc<Entity>>, own: Vec<String>, caps: Vec<caps::Cap>) -> Result<Self, BadCatalog> {
        let mut faults = Vec::new();
        let (mut by_name, mut by_scope) = (HashMap::new(), HashMap::new());
        for (index, entity) in entities.iter().enumerate() {
            check::entity(entity, &mut faults);
            let mut fault = |what| faults.push(Fault { entity: entity.name.clone(), what });
            for name in std::iter::once(&entity.name).chain(&entity.aliases) {
                if by_name.insert(name.clone(), index).is_some() {
                    fault(format!("the name {name:?} is given to two entities"));
                }
            }
            for (row, scope) in entity.scope.iter().enumerate() {
                if by_scope.insert(scope.name.clone(), (index, row)).is_some() {
                    fault(format!("the scope {:?} is claimed twice", scope.name));
                }
            }
        }
        let by_own_name: BTreeMap<&str, &Entity> =
            entities.iter().map(|entity| (entity.name.as_str(), &**entity)).collect();
        for entity in &entities {
            links::entity(entity, &by_own_name, &mut faults);
        }
        if !faults.is_empty() {
            return Err(BadCatalog(faults));
        }
        let wildcards = scopes::wildcards(WILDCARDS, by_scope.keys());
        Ok(Self { entities, by_name, by_scope, wildcards, caps, own })
    }

    /// All entities, in the order of the files; those that a user added come last.
    pub fn entities(&self) -> &[Arc<Entity>] {
        &self.entities
    }

    /// The entity of this name or alias.
    pub fn entity(&self, name: &str) -> Option<&Arc<Entity>> {
        self.by_name.get(name).map(|index| &self.entities[*index])
    }

    /// Whether the row of this entity is the user's.
    pub fn is_own(&self, entity: &str) -> bool {
        self.own.iter().any(|name| name == entity)
    }

    /// The wildcards that can be subscribed to, with the scopes that they surely bring.
    pub fn wildcards(&self) -> &[Wildcard] {
        &self.wildcards
    }

    /// How many requests run at once on single endpoints.
    pub fn caps(&self) -> &[caps::Cap] {
        &self.caps
    }

    /// The cap of an endpoint, whatever the path calls its ids.
    pub fn cap(&self, method: Method, path: &str) -> Option<&caps::Cap> {
        caps::of(&self.caps, method, path)
    }

    /// The scopes that are about an entity: its own, and those that are about it beside another.
    pub fn scopes_of(&self, entity: &str) -> (Vec<&str>, Vec<&str>) {
        let own = |found: &&Arc<Entity>| found.name == entity;
        let mine = self.entities.iter().filter(own).flat_map(|e| &e.scope);
        let others = self.entities.iter().filter(|e| !own(e)).flat_map(|e| &e.scope);
        let about = |scope: &&Scope| scope.also.iter().any(|target| target.entity == entity);
        (mine.map(|s| s.name.as_str()).collect(), others.filter(about).map(|s| s.name.as_str()).collect())
    }

    /// The row that claims a delivered scope, in any of the spellings seen in the wild.
    pub fn scope(&self, delivered: &str) -> Option<(&Arc<Entity>, &Scope)> {
        let claim = |name: &str| self.by_scope.get(name);
        let (entity, scope) =
            claim(delivered).or_else(|| scopes::spellings(delivered).iter().find_map(|name| claim(name)))?;
        let entity = &self.entities[*entity];
        Some((entity, &entity.scope[*scope]))
    }
}

impl Entity {
    /// Where the parts of a hint's id stand in the entity's JSON.
    pub fn hint_key(&self) -> &[String] {
        self.hint_key.as_deref().unwrap_or(&self.key)
    }

    /// The name in intake keys of ids that a [`Resolve`] takes: `<entity>~<resolve>`.
    pub fn resolve_name(&self, resolve: &str) -> String {
        format!("{}~{resolve}", self.name)
    }

    /// The way of this name to find it by something other than its id.
    pub fn find_resolve(&self, name: &str) -> Option<&Resolve> {
        self.resolve.iter().find(|resolve| resolve.name == name)
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

impl Scope {
    /// Whether it is of one channel, and so subscribed for each channel that is wanted.
    pub fn is_of_channel(&self) -> bool {
        scopes::has_channel(&self.name)
    }
}

impl Action {
    /// The names of the ids that a command's `path` must give, in the path's order.
    pub fn path_ids(&self) -> Vec<&str> {
        let in_path = self.path.iter().flat_map(|path| placeholders(path));
        let elsewhere = self.id_query.iter().chain(&self.id_body).map(|place| place.id.as_str());
        let mut ids = Vec::new();
        for id in in_path.chain(elsewhere) {
            // BigCommerce wants some ids at two places.
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}

/// A row of the settings that is a cap: an entity would have a name.
fn is_cap(row: &serde_json::Value) -> bool {
    row.get("name").is_none() && row.get("at_once").is_some()
}

/// A path template without the names of its ids, since rows name them differently: `/v2/orders/{}`.
pub fn nameless(template: &str) -> String {
    let is_place = |segment: &str| segment.len() > 2 && segment.starts_with('{') && segment.ends_with('}');
    let plain = |segment| if is_place(segment) { "{}" } else { segment };
    template.split('/').map(plain).collect::<Vec<_>>().join("/")
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
