//! What a row must be to be believed.

use super::placeholders;
use super::row::{Action, Body, Class, Entity, Include, ManyStyle, ReadMany};
use crate::model::request::Method;

/// Finds the faults of one entity's rows.
pub(super) fn entity(entity: &Entity, faults: &mut Vec<String>) {
    let name = &entity.name;
    let mut fault = |text: String| faults.push(format!("entity {name:?}: {text}"));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        fault("its name must be lower case letters, digits and '_'".into());
    }
    if entity.ids.len() != entity.hint_key().len() {
        fault(format!(
            "it has {} ids and {} parts in its hint key",
            entity.ids.len(),
            entity.hint_key().len()
        ));
    }
    if entity.key.is_empty() && (entity.is_readable() || !entity.scope.is_empty()) {
        fault("it is read or hinted at, and has no key".into());
    }
    if !entity.is_readable() && entity.action.is_empty() {
        fault("nothing says how it is read or written".into());
    }
    if let Some(one) = &entity.read.one {
        template(one, &entity.ids, &mut fault);
    }
    if let Some(many) = &entity.read.many {
        read_many(many, entity, &mut fault);
    }
    for item in &entity.include {
        include(item, entity, &mut fault);
    }
    for scope in &entity.scope {
        if scope.id.len() != entity.ids.len() {
            fault(format!("scope {:?} gives {} ids of {}", scope.name, scope.id.len(), entity.ids.len()));
        }
        if !scope.name.starts_with("store/") || scope.name.contains("//") || scope.name.ends_with('/') {
            fault(format!("scope {:?} is not one", scope.name));
        }
    }
    for item in &entity.action {
        action(item, entity, &mut fault);
    }
}

fn template(path: &str, known: &[String], fault: &mut impl FnMut(String)) {
    if !(path.starts_with("/v2/") || path.starts_with("/v3/")) || path.contains("//") || path.ends_with('/') {
        fault(format!("the path {path:?} is not one"));
    }
    for id in placeholders(path).filter(|id| !known.iter().any(|k| k == id)) {
        fault(format!("the path {path:?} needs {id:?}, which is none of its ids {known:?}"));
    }
}

fn read_many(many: &ReadMany, entity: &Entity, fault: &mut impl FnMut(String)) {
    template(&many.path, &[], fault);
    if many.max == 0 || many.page_size == 0 {
        fault("its list takes no ids".into());
    }
    if many.part >= entity.ids.len() {
        fault(format!("its list is narrowed by part {} of an id of {}", many.part, entity.ids.len()));
    }
    match many.style {
        ManyStyle::IdIn if many.param.is_empty() => fault("its list names no parameter".into()),
        ManyStyle::Range if !many.param.is_empty() => fault("a range takes no parameter".into()),
        ManyStyle::IdIn | ManyStyle::Range | ManyStyle::All => {}
    }
}

fn include(include: &Include, entity: &Entity, fault: &mut impl FnMut(String)) {
    if let Some(path) = &include.path {
        template(path, &entity.ids, fault);
    }
}

fn action(action: &Action, entity: &Entity, fault: &mut impl FnMut(String)) {
    let name = &action.name;
    match (&action.method, &action.path) {
        (Some(Method::Get), _) => fault(format!("action {name:?} is a read")),
        (Some(method), Some(path)) => {
            if !(path.starts_with("/v2/") || path.starts_with("/v3/")) {
                fault(format!("action {name:?}: the path {path:?} is not one"));
            }
            let ends_in_id = path.rsplit('/').next().is_some_and(|last| last.starts_with('{'));
            if *method == Method::Delete && !ends_in_id && action.id_query.is_none() {
                fault(format!("action {name:?} deletes a collection"));
            }
        }
        (None, None) if name == "upsert" => {
            if entity.action("create").is_none() || entity.action("update").is_none() {
                fault("its upsert has no create or no update to rest on".into());
            }
        }
        _ => fault(format!("action {name:?} has a method without a path, or the reverse")),
    }
    if action.class == Class::B && action.natural_key.is_empty() {
        fault(format!("action {name:?} is of class B and has no natural key"));
    }
    if action.id_body.is_some() && action.body == Body::None {
        fault(format!("action {name:?} puts an id into a body that it does not have"));
    }
}
