//! One row as it was read: whose it is, how old it is, and what it holds. Pure.
//!
//! The JSON passes through byte for byte. What is compared is its content: the order of fields and the space between
//! them differ between a list and a read of one, and mean nothing.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::settings::EntitySettings;
use crate::catalog::Entity;
use crate::catalog::place::text_at;
use crate::model::content::{content_of, seconds_at};
use crate::model::ids::EntityId;

/// One row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entity's id, by which it is published.
    pub id: EntityId,
    /// Its JSON.
    pub json: Bytes,
    /// When it changed last, in unix seconds, where BigCommerce says so.
    pub version: Option<i64>,
    /// What it holds, as a hash of 53 bits.
    pub content: u64,
}

/// The hinted id that a row belongs to, and the row. `asked` is the id that the read was made for (of a list, any
/// of them: they agree in the parts that its path needs); it lends the parts that the row does not repeat.
///
/// # Errors
/// One clause for people: the row is no JSON, or lacks a part of its id.
pub fn row_of(settings: &EntitySettings, asked: &EntityId, json: &Bytes) -> Result<(EntityId, Row), String> {
    let value: Value =
        serde_json::from_slice(json).map_err(|e| format!("the reply is not as documented: {e}"))?;
    let entity = &settings.row;
    let hint = id_at(entity, entity.hint_key(), &value, asked)?;
    let id = match entity.hint_key {
        Some(_) => id_at(entity, &entity.key, &value, asked)?,
        None => hint.clone(),
    };
    let version = entity.version.as_deref().and_then(|field| seconds_at(&value, field));
    Ok((hint, Row { id, json: json.clone(), version, content: content_of(&value) }))
}

/// The id whose parts stand at these places of a row; `@name` is that part of the id that was asked for.
///
/// # Errors
/// A part is not there, or is not one.
pub fn id_at<'a>(
    entity: &Entity,
    places: &'a [String],
    row: &'a Value,
    asked: &'a EntityId,
) -> Result<EntityId, String> {
    let part = |place: &'a String| match place.strip_prefix('@') {
        Some(name) => part_of(entity, asked, name).map(Cow::Borrowed),
        None => text_at(row, place),
    };
    let parts: Option<Vec<_>> = places.iter().map(part).collect();
    let parts = parts.ok_or_else(|| format!("a row lacks {}", places.join(", ")))?;
    EntityId::of_row(&parts).map_err(|e| e.to_string())
}

/// The part of a hint's id that the entity calls by this name.
pub fn part_of<'a>(entity: &Entity, id: &'a EntityId, name: &str) -> Option<&'a str> {
    id.parts().nth(entity.ids.iter().position(|known| known == name)?)
}
