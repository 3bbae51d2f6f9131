//! What rows say of each other, and of callbacks: parents of lists, scopes and what they are about.

use std::collections::BTreeMap;

use super::change::Change;
use super::place::{alternatives, is_callback_place, is_names};
use super::row::{Entity, List, Resolve, Scope, Target, When};
use super::{Fault, placeholders, scopes};

/// The rows by their names.
type Rows<'a> = BTreeMap<&'a str, &'a Entity>;

/// Parents of parents that a list may have: options of products have values.
const MAX_PARENTS: usize = 4;

/// Finds the faults of one entity's lists and scopes.
pub(super) fn entity(entity: &Entity, rows: &Rows<'_>, found: &mut Vec<Fault>) {
    let mut add = |what: String| found.push(Fault { entity: entity.name.clone(), what });
    if let Some(list) = &entity.list {
        parents(entity, list, rows, &mut add);
    }
    for item in &entity.scope {
        if let Err(why) = scope(entity, item, rows) {
            add(format!("scope {:?} {why}", item.name));
        }
    }
    for action in &entity.action {
        for item in &action.changes {
            if let Err(why) = change(item, rows) {
                add(format!("action {:?} {why}", action.name));
            }
        }
    }
}

fn change(change: &Change, rows: &Rows<'_>) -> Result<(), String> {
    let Some(changed) = rows.get(change.entity.as_str()) else {
        return Err(format!("changes {:?}, which is no entity", change.entity));
    };
    if !changed.is_readable() {
        return Err(format!("changes {:?}, which nothing says how to read", change.entity));
    }
    if change.by.is_empty() || change.fields.is_empty() {
        return Err(format!("changes {:?}, and does not say which one, or what of it", change.entity));
    }
    match change.by.iter().find(|by| !is_names(&by.at) || !is_names(&by.field)) {
        Some(by) => Err(format!("changes what {:?} names at {:?}, which are no places", by.field, by.at)),
        None => Ok(()),
    }
}

fn parents(entity: &Entity, list: &List, rows: &Rows<'_>, add: &mut impl FnMut(String)) {
    let mut parent = list.over.as_deref();
    for depth in 0..=MAX_PARENTS {
        let Some(name) = parent else { break };
        let Some(row) = rows.get(name) else {
            return add(format!("its list is over {name:?}, which is no entity"));
        };
        let Some(above) = &row.list else {
            return add(format!("its list is over {name:?}, which is listed nowhere"));
        };
        if depth == MAX_PARENTS {
            return add("the parents of its list are parents of each other, or too many".into());
        }
        if row.hint_key.is_some() {
            return add(format!("its list is over {name:?}, whose rows have no ids that a path takes"));
        }
        parent = above.over.as_deref();
    }
    let ids: &[String] = list.over.as_deref().and_then(|name| rows.get(name)).map_or(&[], |row| &row.ids);
    let in_query = list.query.values().filter_map(|value| value.strip_prefix('{')?.strip_suffix('}'));
    for place in placeholders(&list.path).chain(in_query).filter(|place| !ids.iter().any(|id| id == place)) {
        add(format!("its list needs {place:?}, which is none of its parent's ids {ids:?}"));
    }
    // What a row does not repeat is known from the parent that it was listed for.
    for part in entity.key.iter().filter_map(|place| place.strip_prefix('@')) {
        if !ids.iter().any(|id| id == part) {
            add(format!("its key needs {part:?}, which a list does not tell: the parent's ids are {ids:?}"));
        }
    }
}

fn scope(entity: &Entity, scope: &Scope, rows: &Rows<'_>) -> Result<(), String> {
    if !scopes::is_name(&scope.name) {
        return Err("is not one".into());
    }
    if scope.not_readable.is_some() {
        let plain = scope.id.is_empty() && scope.row.is_none() && scope.resolve.is_none();
        let alone = scope.also.is_empty() && scope.otherwise.is_none() && scope.when.is_none();
        return if plain && alone { Ok(()) } else { Err("is not readable, and says of what".into()) };
    }
    let channel = scopes::has_channel(&scope.name);
    let about = About { id: &scope.id, row: scope.row.as_deref(), resolve: scope.resolve.as_deref() };
    about.check(entity, channel)?;
    if let Some(when) = &scope.when {
        condition(when, channel)?;
        if scope.also.is_empty() {
            return Err("is about this entity in some cases, and about none in the others".into());
        }
    }
    for target in scope.otherwise.iter().chain(&scope.also) {
        self::target(target, rows, channel)?;
    }
    Ok(())
}

fn target(target: &Target, rows: &Rows<'_>, channel: bool) -> Result<(), String> {
    let Some(entity) = rows.get(target.entity.as_str()) else {
        return Err(format!("is also about {:?}, which is no entity", target.entity));
    };
    let about = About { id: &target.id, row: target.row.as_deref(), resolve: target.resolve.as_deref() };
    about.check(entity, channel)?;
    target.when.as_ref().map_or(Ok(()), |when| condition(when, channel))
}

fn condition(when: &When, channel: bool) -> Result<(), String> {
    if when.is.is_empty() {
        return Err("has a condition that nothing meets".into());
    }
    callback_place(&when.at, channel)
}

/// What a scope or a target says of one entity.
struct About<'a> {
    id: &'a [String],
    row: Option<&'a [String]>,
    resolve: Option<&'a str>,
}

impl About<'_> {
    fn check(&self, entity: &Entity, channel: bool) -> Result<(), String> {
        let name = &entity.name;
        if !entity.is_readable() {
            return Err(format!("is about {name:?}, which nothing says how to read"));
        }
        let ids = match self.resolve {
            None => &entity.ids,
            Some(wanted) => match entity.find_resolve(wanted) {
                Some(Resolve { ids, .. }) => ids,
                None => return Err(format!("needs resolve {wanted:?}, which {name:?} has not")),
            },
        };
        if self.id.len() != ids.len() {
            return Err(format!("gives {} ids of {}", self.id.len(), ids.len()));
        }
        if self.id.iter().filter(|place| place.contains("[]")).count() > 1 {
            return Err("has more than one list in its id".into());
        }
        if let Some(row) = self.row {
            if entity.hint_key.is_none() || self.resolve.is_some() {
                return Err("names a row of a hint that is about one thing".into());
            }
            if row.len() != entity.key.len() {
                return Err(format!("names a row by {} parts of {}", row.len(), entity.key.len()));
            }
        }
        self.id
            .iter()
            .chain(self.row.into_iter().flatten())
            .try_for_each(|place| callback_place(place, channel))
    }
}

fn callback_place(place: &str, channel: bool) -> Result<(), String> {
    match alternatives(place).find(|one| !is_callback_place(one, channel)) {
        Some(one) => Err(format!("has the place {one:?}, which is none of a callback")),
        None => Ok(()),
    }
}
