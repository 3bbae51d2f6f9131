//! The rows at the start of every resource that a row of the catalogue describes: a handful each, so that any list,
//! poll or snapshot finds something.

use serde_json::{Map, Value};

use crate::sandbox::mutate;
use crate::sandbox::resources::writes;
use crate::sandbox::specs::{self, KEY, Spec};
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, field};

/// The parents that get rows below them.
const PARENTS: usize = 2;
/// Fields whose text tells the rows of one resource apart.
const TELLING: [&str; 10] =
    ["name", "code", "key", "title", "display_name", "path", "from_path", "subject", "summary", "state"];

/// Fills every resource that asks for rows, parents first.
pub(crate) fn fill(state: &mut State) {
    for customer in [1, 2] {
        mutate::new_cart(state, customer, &[1, 2]);
    }
    for depth in 0..=DEPTH_MAX {
        specs::all().iter().filter(|spec| spec.seed > 0 && depth_of(spec) == depth).for_each(|spec| {
            for parent in owners(state, spec) {
                for number in 1..=spec.seed {
                    add(state, spec, parent.as_ref(), number);
                }
            }
        });
    }
}

/// Parents above a resource; more than this many do not occur.
const DEPTH_MAX: usize = 4;

fn depth_of(spec: &Spec) -> usize {
    let owner = |spec: &Spec| specs::find(&spec.parent.as_ref()?.entity);
    std::iter::successors(owner(spec), |spec| owner(spec)).take(DEPTH_MAX).count()
}

/// The parents that get rows; one that is none for a resource without a parent.
fn owners(state: &State, spec: &Spec) -> Vec<Option<(&'static Spec, Key)>> {
    let Some(owner) = spec.parent.as_ref().and_then(|parent| specs::find(&parent.entity)) else {
        return vec![None];
    };
    state.table(owner).ids().iter().take(PARENTS).map(|key| Some((owner, key.clone()))).collect()
}

fn add(state: &mut State, spec: &'static Spec, parent: Option<&(&'static Spec, Key)>, number: u64) {
    let mut row = Map::new();
    for (name, value) in &spec.template {
        let tells = TELLING.contains(&name.as_str()) && (name != "state" || spec.name == "state");
        if let (true, Some(text)) = (tells, value.as_str())
            && !text.is_empty()
        {
            row.insert(name.clone(), Value::from(told_apart(text, number)));
        }
    }
    for name in spec.required.iter().filter(|name| spec.template.get(*name) == Some(&Value::from(""))) {
        let text = if name == "email" {
            format!("{}.{number}@example.com", spec.name)
        } else {
            format!("Sample {} {number}", spec.name)
        };
        row.insert(name.clone(), Value::from(text));
    }
    if let (Some(text), Some(name)) = (spec.seed_ids.get(index(number)), Some(&spec.id)) {
        row.insert(name.clone(), Value::from(text.clone()));
    }
    if let (Some((owner, key)), Some(place)) = (parent, spec.parent.as_ref()) {
        row.insert(place.field.clone(), writes::owner_id(spec, &place.field, key));
        let owner_row = state.table(owner).get(key).unwrap_or_default();
        for name in spec.params.values().filter(|name| name.starts_with('_')) {
            if row.contains_key(name) {
                continue;
            }
            row.insert(name.clone(), field(owner, &owner_row, name.trim_start_matches('_')).clone());
        }
    }
    if let Some(last) = spec.compose.iter().find(|name| !row.contains_key(*name)) {
        let value = spec.template.get(last);
        row.insert(
            last.clone(),
            value.filter(|value| value.is_string()).cloned().unwrap_or(Value::from(number)),
        );
        let rest: Vec<(String, Value)> = spec
            .compose
            .iter()
            .filter(|name| !row.contains_key(*name))
            .filter_map(|name| Some((name.clone(), spec.template.get(name)?.clone())))
            .collect();
        row.extend(rest);
    }
    if spec.singleton {
        row.insert(KEY.to_owned(), parent.map_or(Value::from(0), |(_, key)| key.json()));
    }
    if let Ok(row) = writes::keyed(spec, row) {
        state.insert(spec, row);
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1)
}

/// The text with a number, before the last slash of a path.
fn told_apart(text: &str, number: u64) -> String {
    match text.strip_suffix('/') {
        Some(path) => format!("{path}-{number}/"),
        None if text.contains(' ') || text.starts_with(char::is_uppercase) && text.len() > 4 => {
            format!("{text} {number}")
        }
        None => format!("{text}{number}"),
    }
}
