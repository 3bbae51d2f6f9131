//! Reads that find the ids of entities which a callback names by something else.
//!
//! One entity has one owner, the partition of its id: what is found is not published here but becomes a hint there,
//! in the transaction that settles the callback, with the callback's event and date.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Incoming;
use crate::catalog::row::{Entity, Read, Resolve};
use crate::incoming::coalesce::Gathering;
use crate::incoming::meter::Suppressed;
use crate::incoming::row::{Row, id_at};
use crate::incoming::settings::EntitySettings;
use crate::model::hint::{Hint, Trigger};
use crate::model::ids::{EntityId, EntityKey};
use crate::model::record::OutRecord;
use crate::runtime::ports::Store;

/// A resolving read looks like that of a group: what is hinted at is what the callback names, and its rows are the
/// ids that hints of the entity have.
pub(super) fn settings(of: &EntitySettings, found_by: &Resolve) -> EntitySettings {
    let row = Entity {
        name: format!("{}~{}", of.row.name, found_by.name),
        key: of.row.hint_key().to_vec(),
        hint_key: Some(found_by.key.clone()),
        ids: found_by.ids.clone(),
        version: None,
        read: Read { many: Some(found_by.many.clone()), ..Read::default() },
        list: None,
        resolve: Vec::new(),
        include: Vec::new(),
        scope: Vec::new(),
        action: Vec::new(),
        ..(*of.row).clone()
    };
    EntitySettings {
        row: row.into(),
        topic: of.topic.clone(),
        key: of.key.clone(),
        include: Vec::new(),
        query: BTreeMap::new(),
        parameters: None,
        filter: None,
        transform: None,
        ..*of
    }
}

impl<S: Store> Incoming<S> {
    /// The hints of the entity that the rows name: one for each of them and each event.
    pub(super) fn resolved(
        &self,
        entity: &str,
        (asked, settings): (&EntityId, &EntitySettings),
        gathering: &Gathering,
        rows: &[Row],
    ) -> Vec<OutRecord> {
        let Some(target) = self.settings.entities.get(entity) else { return Vec::new() };
        let found: BTreeSet<(EntityId, Option<EntityId>)> = rows
            .iter()
            .map(|row| (row.id.clone(), meant_row(&target.row, &settings.row, row, asked)))
            .collect();
        let hints = gathering.hints.len();
        let why = if found.is_empty() { Suppressed::Unresolved } else { Suppressed::Resolved };
        self.meter.suppressed(entity, why, hints);
        let mut records = Vec::with_capacity(found.len() * hints);
        for (id, row) in found {
            for gathered in &gathering.hints {
                let from = &gathered.hint;
                let key = EntityKey { entity: target.row.name.as_str().into(), id: id.clone() };
                let trigger =
                    Trigger { key, row: row.clone(), scope: from.trigger.scope.clone(), ..from.trigger };
                let hint = Hint { trigger, carried_ms: None, ..from.clone() };
                records.push(self.hint_record(&hint, None, gathered.record.value.clone()));
            }
        }
        records
    }
}

/// Of a group, the row that was found; it is the one that the callback meant.
fn meant_row(target: &Entity, resolving: &Entity, row: &Row, asked: &EntityId) -> Option<EntityId> {
    target.hint_key.as_ref()?;
    let value: Value = serde_json::from_slice(&row.json).ok()?;
    id_at(resolving, &target.key, &value, asked).ok()
}
