//! What a callback is about, as the catalogue's row of its scope has it. Pure.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value;

use super::{MAX_TRIGGERS, NotUnderstood, quarantine};
use crate::catalog::place::{SCOPE_CHANNEL, alternatives, text_of, value_at};
use crate::catalog::{Catalog, Entity, Scope, Target, When, channel_of};
use crate::model::hint::{Op, Trigger};
use crate::model::ids::{BadId, EntityId, EntityKey};

/// The hints found so far, none twice.
#[derive(Default)]
pub(super) struct Hints {
    pub(super) triggers: Vec<Trigger>,
    seen: HashSet<(EntityKey, Op, Option<EntityId>)>,
    /// How often anything was named, repeats included.
    named: usize,
    /// Why the first element that was not understood was not.
    pub(super) first_fault: Option<BadId>,
}

impl Hints {
    fn add(&mut self, trigger: Trigger) -> Result<(), NotUnderstood> {
        self.named += 1;
        if !self.seen.insert((trigger.key.clone(), trigger.op, trigger.row.clone())) {
            return Ok(());
        }
        if self.triggers.len() == MAX_TRIGGERS {
            return Err(quarantine(format!("the data names more than {MAX_TRIGGERS} things")));
        }
        self.triggers.push(trigger);
        Ok(())
    }
}

/// Whether a callback names an entity; if not, why.
type Named = Result<(), BadId>;

/// The row that claims the scope of a callback.
pub(super) struct Rule<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) entity: &'a Entity,
    pub(super) scope: &'a Scope,
    /// The scope, as delivered.
    pub(super) delivered: &'a str,
}

impl Rule<'_> {
    /// Adds the hints that the data of a callback, or one element of it, stands for. Entities that it is about
    /// besides are taken where their ids are there; the one that the scope is of must be.
    ///
    /// # Errors
    /// It names more than any callback does.
    pub(super) fn apply(&self, data: &Value, hints: &mut Hints) -> Result<(), NotUnderstood> {
        let callback = Source { data, channel: channel_of(self.delivered) };
        let before = hints.named;
        let mut fault = None;
        if self.scope.when.as_ref().is_none_or(|when| callback.meets(when)) {
            fault = self.main(&callback, hints)?.err();
        }
        for target in &self.scope.also {
            // What is not there is what this callback is not about.
            let _not_there = self.target(target, &callback, hints)?;
        }
        let nothing = hints.seen.len() == before && hints.triggers.is_empty();
        let unmet = || self.scope.when.as_ref().map(|when| callback.unmet(when));
        hints.first_fault =
            hints.first_fault.take().or(fault).or_else(|| if nothing { unmet() } else { None });
        Ok(())
    }

    /// The entity that the scope is of.
    fn main(&self, callback: &Source<'_>, hints: &mut Hints) -> Result<Named, NotUnderstood> {
        let Scope { op, id, row, resolve, .. } = self.scope;
        let about =
            About { entity: self.entity, op: *op, id, row: row.as_deref(), resolve: resolve.as_deref() };
        let found = self.add(&about, callback, hints)?;
        match (&found, &self.scope.otherwise) {
            (Err(_), Some(otherwise)) => self.target(otherwise, callback, hints),
            _ => Ok(found),
        }
    }

    fn target(
        &self,
        target: &Target,
        callback: &Source<'_>,
        hints: &mut Hints,
    ) -> Result<Named, NotUnderstood> {
        let Target { op, id, row, resolve, .. } = target;
        let met = target.when.as_ref().is_none_or(|when| callback.meets(when));
        let Some(entity) = self.catalog.entity(&target.entity).filter(|_| met) else { return Ok(Ok(())) };
        let about = About { entity, op: *op, id, row: row.as_deref(), resolve: resolve.as_deref() };
        self.add(&about, callback, hints)
    }

    fn add(
        &self,
        about: &About<'_>,
        callback: &Source<'_>,
        hints: &mut Hints,
    ) -> Result<Named, NotUnderstood> {
        let ids = match callback.ids(about.id) {
            Ok(ids) => ids,
            Err(fault) => return Ok(Err(fault)),
        };
        let name = match about.resolve {
            Some(resolve) => about.entity.resolve_name(resolve),
            None => about.entity.name.clone(),
        };
        let row = about.row.and_then(|places| callback.row(places));
        for id in ids {
            let key = EntityKey { entity: name.as_str().into(), id };
            let scope = self.delivered.to_owned();
            hints.add(Trigger { key, op: about.op, scope, row: row.clone() })?;
        }
        Ok(Ok(()))
    }
}

/// One entity that a callback is about.
struct About<'a> {
    entity: &'a Entity,
    op: Op,
    id: &'a [String],
    row: Option<&'a [String]>,
    resolve: Option<&'a str>,
}

/// Where ids are looked for.
struct Source<'a> {
    /// The callback's data, or one element of it.
    data: &'a Value,
    /// The channel in its scope.
    channel: Option<&'a str>,
}

impl<'a> Source<'a> {
    /// The ids whose parts stand at these places: one, or one for each element of a list.
    fn ids(&self, places: &'a [String]) -> Result<Vec<EntityId>, BadId> {
        let columns: Vec<Vec<Cow<'_, str>>> = places.iter().map(|place| self.texts(place)).collect();
        let count = columns.iter().map(Vec::len).max().unwrap_or(0);
        let part = |column: &'_ [Cow<'a, str>], at: usize| {
            column.get(at).or_else(|| column.first()).cloned().unwrap_or_default()
        };
        // A part that is missing is an empty part, which no id has.
        (0..count.max(1))
            .map(|at| {
                let parts: Vec<Cow<'_, str>> = columns.iter().map(|column| part(column, at)).collect();
                EntityId::from_parts(&parts)
            })
            .collect()
    }

    /// The key of the meant row; none where a part of it is not there.
    fn row(&self, places: &'a [String]) -> Option<EntityId> {
        let parts: Option<Vec<Cow<'_, str>>> = places.iter().map(|place| self.texts(place).pop()).collect();
        EntityId::of_row(&parts?).ok()
    }

    fn meets(&self, when: &'a When) -> bool {
        self.texts(&when.at).iter().any(|text| when.is.iter().any(|one| one.eq_ignore_ascii_case(text)))
    }

    /// Why a condition that holds of nothing in the row makes a callback meaningless.
    fn unmet(&self, when: &'a When) -> BadId {
        let found = self.texts(&when.at).pop().unwrap_or_default();
        BadId { found: found.chars().take(64).collect(), rule: "nothing of that kind is in the catalogue" }
    }

    /// What stands at the first alternative of a place that holds anything.
    fn texts(&self, place: &'a str) -> Vec<Cow<'a, str>> {
        alternatives(place).map(|one| self.texts_at(one)).find(|texts| !texts.is_empty()).unwrap_or_default()
    }

    fn texts_at(&self, place: &'a str) -> Vec<Cow<'a, str>> {
        if let Some(text) = place.strip_prefix('=') {
            return vec![Cow::Borrowed(text)];
        }
        if place == SCOPE_CHANNEL {
            return self.channel.map(Cow::Borrowed).into_iter().collect();
        }
        let names = place.strip_prefix("data.").unwrap_or(place);
        let Some((list, below)) = names.split_once("[]") else {
            return value_at(self.data, names).and_then(text_of).into_iter().collect();
        };
        let elements = value_at(self.data, list).and_then(Value::as_array).into_iter().flatten();
        let text = |element: &'a Value| match below.strip_prefix('.') {
            Some(names) => value_at(element, names).and_then(text_of),
            None => text_of(element),
        };
        elements.map(|element| text(element).unwrap_or_default()).collect()
    }
}
