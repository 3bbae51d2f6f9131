//! Which entities a write changes besides the one that it is an action of.

use std::collections::BTreeMap;

use serde::Deserialize;

/// An entity that an action changes, named by what the payload says of it.
///
/// With it the bridge knows the callback that follows for its own (see [`crate::model::written`]).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Its name.
    pub entity: String,
    /// The payload's list whose elements change one thing each; the payload itself where none is given.
    #[serde(default)]
    pub each: Option<String>,
    /// What names the thing; the first whose field the element has counts.
    pub by: Vec<NamedBy>,
    /// Where the thing's JSON holds what the write sets, and the field of the element that says it. A part such as
    /// `{location_id}` of a place is the element's field of that name.
    pub fields: BTreeMap<String, String>,
}

/// A value that both the thing and the element of a payload hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedBy {
    /// The element's field.
    pub field: String,
    /// Where the thing's JSON holds it.
    pub at: String,
}
