//! What a row must be to be believed, as far as it can be told from the row alone; see also `links`.

use super::place::{alternatives, is_names};
use super::row::{
    Action, Batch, Body, Class, DEFAULT_PART, Entity, Include, List, ManyStyle, NaturalKey, Pages, ReadMany,
    Resolve,
};
use super::{Fault, placeholders};
use crate::model::ids::check_part;
use crate::model::request::Method;

/// Collects the faults of one entity.
struct Faults<'a> {
    entity: &'a Entity,
    found: &'a mut Vec<Fault>,
}

impl Faults<'_> {
    fn add(&mut self, what: impl Into<String>) {
        self.found.push(Fault { entity: self.entity.name.clone(), what: what.into() });
    }
}

/// Finds the faults of one entity's rows.
pub(super) fn entity(entity: &Entity, found: &mut Vec<Fault>) {
    let mut faults = Faults { entity, found };
    names(entity, &mut faults);
    ids(entity, &mut faults);
    reads(entity, &mut faults);
    if let Some(of_all) = &entity.list {
        list(of_all, entity, &mut faults);
    }
    for (at, item) in entity.include.iter().enumerate() {
        let twice = entity.include[..at].iter().any(|other| other.name == item.name);
        include(item, twice, entity, &mut faults);
    }
    for (at, item) in entity.resolve.iter().enumerate() {
        if entity.resolve[..at].iter().any(|other| other.name == item.name) {
            faults.add(format!("resolve {:?} is given twice", item.name));
        }
        resolve(item, &mut faults);
    }
    for item in &entity.action {
        action(item, entity, &mut faults);
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn names(entity: &Entity, faults: &mut Faults<'_>) {
    for name in std::iter::once(&entity.name).chain(&entity.aliases) {
        if !is_name(name) {
            faults.add(format!("the name {name:?} must be of lower case letters, digits and '_'"));
        }
    }
    for resolve in entity.resolve.iter().filter(|resolve| !is_name(&resolve.name)) {
        faults.add(format!("the name {:?} must be of lower case letters, digits and '_'", resolve.name));
    }
    if entity.doc.trim().is_empty() {
        faults.add("its doc says nothing");
    }
}

fn ids(entity: &Entity, faults: &mut Faults<'_>) {
    let (ids, hinted) = (entity.ids.len(), entity.hint_key().len());
    if ids != hinted {
        faults.add(format!("it has {ids} ids and {hinted} parts in its hint key"));
    }
    for (at, id) in entity.ids.iter().enumerate() {
        if !is_name(id) || entity.ids[..at].contains(id) {
            faults.add(format!("the id {id:?} must be a name of its own"));
        }
    }
    let is_read = entity.is_readable() || entity.list.is_some() || !entity.resolve.is_empty();
    if entity.key.is_empty() && is_read {
        faults.add("it is read, and has no key");
    }
    if !entity.is_readable() && (entity.list.is_some() || !entity.resolve.is_empty()) {
        faults.add("it is listed, and nothing says how one is read: give it `read.one` or `read.many`");
    }
    for place in entity.key.iter().chain(entity.hint_key.iter().flatten()) {
        row_place(place, &entity.ids, faults);
    }
    if let Some(version) = entity.version.as_deref().filter(|version| !is_names(version)) {
        faults.add(format!("its version {version:?} is no place in its JSON"));
    }
}

/// A place in a row: names, alternatives, a fixed text, or a part of the id that was read.
fn row_place(place: &str, ids: &[String], faults: &mut Faults<'_>) {
    if let Some(part) = place.strip_prefix('@') {
        if !ids.iter().any(|id| id == part) {
            faults.add(format!("the key {place:?} is none of its ids {ids:?}"));
        }
        return;
    }
    for one in alternatives(place) {
        let good = one.strip_prefix('=').map_or_else(|| is_names(one), |text| check_part(text).is_ok());
        if !good {
            faults.add(format!("the key {place:?} is no place in its JSON"));
        }
    }
}

fn reads(entity: &Entity, faults: &mut Faults<'_>) {
    let read = &entity.read;
    if let Some(one) = &read.one {
        template(one, &entity.ids, faults);
        query(&read.query, &entity.ids, faults);
    } else if !read.query.is_empty() || !read.rows.is_empty() {
        faults.add("`read.query` and `read.rows` belong to `read.one`, which it has not");
    }
    for place in read.rows.iter().filter(|place| !is_names(place)) {
        faults.add(format!("{place:?} is no place of rows"));
    }
    if !read.rows.is_empty() && entity.hint_key.is_none() {
        faults.add("a read of it brings several rows: its `hint_key` must say what they share");
    }
    if let Some(many) = &read.many {
        read_many(many, &entity.ids, faults);
    }
}

/// A path whose segments are plain or a whole `{id}`.
fn template(path: &str, known: &[String], faults: &mut Faults<'_>) {
    if !is_template(path) {
        faults.add(format!("the path {path:?} is not one: /v2/ or /v3/, then names and whole {{ids}}"));
    }
    for id in placeholders(path).filter(|id| !known.iter().any(|k| k == id)) {
        faults.add(format!("the path {path:?} needs {id:?}, which is none of its ids {known:?}"));
    }
}

/// Whether a text is a path of the API whose segments are plain or a whole `{id}`.
pub(super) fn is_template(path: &str) -> bool {
    let versioned = path.starts_with("/v2/") || path.starts_with("/v3/");
    let good = |segment: &str| check_part(segment).is_ok() || placeholder(segment).is_some_and(is_name);
    versioned && path.split('/').skip(1).all(good)
}

fn placeholder(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn query<'a>(
    query: impl IntoIterator<Item = (&'a String, &'a String)>,
    known: &[String],
    faults: &mut Faults<'_>,
) {
    for (name, value) in query {
        if name.is_empty() || ["limit", "page", "after", "include"].contains(&name.as_str()) {
            faults.add(format!("the query parameter {name:?} is the bridge's own to set"));
        }
        if let Some(id) = placeholder(value).filter(|id| !known.iter().any(|k| k == id)) {
            faults.add(format!(
                "the query parameter {name:?} needs {id:?}, which is none of its ids {known:?}"
            ));
        }
    }
}

fn read_many(many: &ReadMany, ids: &[String], faults: &mut Faults<'_>) {
    template(&many.path, ids, faults);
    query(&many.query, ids, faults);
    if many.max == 0 {
        faults.add("its list takes no ids");
    }
    match many.style {
        ManyStyle::IdIn => {
            if many.param.is_empty() {
                faults.add("its list names no parameter");
            }
            if many.part >= ids.len() {
                faults.add(format!("its list is narrowed by part {} of an id of {}", many.part, ids.len()));
            }
        }
        ManyStyle::Range => {
            if !many.param.is_empty() {
                faults.add("a range takes no parameter");
            }
            if ids.len() != 1 {
                faults.add("a range is of ids with one part");
            }
        }
        ManyStyle::All if !many.param.is_empty() => faults.add("a list of all takes no parameter"),
        ManyStyle::All => {}
    }
}

fn list(list: &List, entity: &Entity, faults: &mut Faults<'_>) {
    let places: Vec<&str> = placeholders(&list.path).collect();
    let known: Vec<String> = places.iter().map(|place| (*place).to_owned()).collect();
    template(&list.path, &known, faults);
    let in_query = list.query.values().filter_map(|value| placeholder(value)).count();
    if list.over.is_none() && places.len() + in_query > 0 {
        faults.add("its list has places, and `over` does not say whose ids fill them");
    }
    if list.over.is_some() && places.len() + in_query == 0 {
        faults.add("its list is made for each parent, and has no place for the parent's id");
    }
    if list.default && list.over.is_none() {
        faults.add("its list is made for no parents, so `default` means nothing");
    }
    if list.default && !places.is_empty() {
        faults.add(format!("{DEFAULT_PART:?} is no parent: a path cannot hold it"));
    }
    if list.max == 0 && list.pages == Pages::Cursor {
        faults.add("pages by cursor need a limit");
    }
    if let Some(since) = &list.since {
        let taken = |name: &str| name.is_empty() || list.query.contains_key(name);
        if taken(&since.param) || since.until.as_deref().is_some_and(taken) {
            faults.add("its filter by date has no parameter of its own");
        }
    }
    if list.include && !entity.include.iter().any(|include| include.path.is_none()) {
        faults.add("its list takes includes, of which it has none");
    }
}

fn include(include: &Include, twice: bool, entity: &Entity, faults: &mut Faults<'_>) {
    let name = &include.name;
    if twice || name.is_empty() {
        faults.add(format!("include {name:?} must have a name of its own"));
    }
    if include.page_size == Some(0) {
        faults.add(format!("include {name:?} leaves no row on a page"));
    }
    if let Some(path) = &include.path {
        template(path, &entity.ids, faults);
        if include.page_size.is_some() {
            faults.add(format!("include {name:?} is a read of its own: it shrinks no page"));
        }
    }
}

fn resolve(resolve: &Resolve, faults: &mut Faults<'_>) {
    read_many(&resolve.many, &resolve.ids, faults);
    if resolve.ids.is_empty() || resolve.key.len() != resolve.ids.len() {
        faults.add(format!(
            "resolve {:?} has {} ids and {} parts in its key",
            resolve.name,
            resolve.ids.len(),
            resolve.key.len()
        ));
    }
    for place in &resolve.key {
        row_place(place, &resolve.ids, faults);
    }
}

fn action(action: &Action, entity: &Entity, faults: &mut Faults<'_>) {
    let name = &action.name;
    match (&action.method, &action.path) {
        (Some(Method::Get), _) => faults.add(format!("action {name:?} is a read")),
        (Some(method), Some(path)) => {
            // The ids of an action are the names of its places.
            let known: Vec<String> = placeholders(path).map(str::to_owned).collect();
            template(path, &known, faults);
            let ends_in_id = path.rsplit('/').next().is_some_and(|last| last.starts_with('{'));
            let names_one = ends_in_id || !action.id_query.is_empty() || is_only_one(action, path);
            if *method == Method::Delete && !names_one {
                faults.add(format!("action {name:?} deletes a collection"));
            }
            if *method == Method::Delete && action.id_query.iter().any(|place| place.default) {
                faults.add(format!("action {name:?} deletes, and leaves an id out"));
            }
        }
        (None, None) if name == "upsert" => {
            if entity.action("create").is_none() || entity.action("update").is_none() {
                faults.add("its upsert has no create or no update to rest on");
            }
        }
        _ => faults.add(format!("action {name:?} has a method without a path, or the reverse")),
    }
    if action.class == Class::B && action.natural_key.is_empty() {
        faults.add(format!("action {name:?} is of class B and has no natural key"));
    }
    let has_place = match action.body {
        Body::Object | Body::ArrayOfOne => true,
        Body::None | Body::Array => action.id_body.is_empty(),
        Body::ArrayOfId => action.id_body.len() == 1,
    };
    if !has_place {
        faults.add(format!("action {name:?} puts an id into a body that has no place for it"));
    }
    if action.body != Body::None && action.method == Some(Method::Delete) {
        faults.add(format!("action {name:?} deletes by a body, which a proxy may drop"));
    }
    for place in action.id_body.iter().filter(|place| place.default) {
        faults.add(format!("action {name:?} leaves the id {:?} out of the body", place.id));
    }
    for key in &action.natural_key {
        natural_key(key, action, faults);
    }
    if let Some(status) = action.already_so.iter().find(|status| !(400..500).contains(*status)) {
        faults
            .add(format!("action {name:?} takes {status} for \"it is already so\"; a refusal is 400 to 499"));
    }
    if let Some(batch) = &action.batch {
        self::batch(batch, action, entity, faults);
    }
}

/// Whether the last name of a path is that of a thing which the id before it has only one of.
fn is_only_one(action: &Action, path: &str) -> bool {
    action.only_one && placeholders(path).next().is_some()
}

fn natural_key(key: &NaturalKey, of: &Action, faults: &mut Faults<'_>) {
    let action = &of.name;
    if let Some(list) = &key.list {
        template(list, &of.path_ids().into_iter().map(str::to_owned).collect::<Vec<_>>(), faults);
    }
    let fields = std::iter::once(&key.field).chain(key.with.iter().map(|part| &part.field));
    for field in fields.filter(|field| !is_names(field)) {
        faults.add(format!("the natural key {field:?} of action {action:?} is no place in its JSON"));
    }
    let mut params =
        std::iter::once(&key.param).chain(key.with.iter().filter_map(|part| part.param.as_ref()));
    if params.any(|param| param.is_empty() || ["limit", "page", "after"].contains(&param.as_str())) {
        faults
            .add(format!("the natural key {:?} of action {action:?} has no parameter of its own", key.field));
    }
    if key.max_chars == Some(0) {
        faults.add(format!("the natural key {:?} of action {action:?} holds nothing", key.field));
    }
}

fn batch(batch: &Batch, action: &Action, entity: &Entity, faults: &mut Faults<'_>) {
    let name = &action.name;
    if batch.max < 2 {
        faults.add(format!("action {name:?} is written together with nothing"));
    }
    if action.class == Class::C {
        // One doubt would park all of them.
        faults.add(format!("action {name:?} is of class C, which is never written together"));
    }
    if let Some(path) = &batch.path {
        template(path, &action.path_ids().into_iter().map(str::to_owned).collect::<Vec<_>>(), faults);
    }
    let is_delete = action.method == Some(Method::Delete);
    if is_delete != batch.id_query.is_some() || is_delete && !batch.id_body.is_empty() {
        faults.add(format!(
            "action {name:?}: a delete of many takes its ids in the query, and nothing else does"
        ));
    }
    if action.body == Body::Object && action.items.is_none() && batch.path.is_none() {
        faults
            .add(format!("action {name:?} has one thing in its body, and its batch no endpoint of its own"));
    }
    if action.body == Body::ArrayOfId {
        faults.add(format!("action {name:?} has an id for a body, which is never written together"));
    }
    for id in batch.without.iter().filter(|id| !action.path_ids().contains(&id.as_str())) {
        faults.add(format!("the batch of action {name:?} does without {id:?}, which it does not have"));
    }
    if batch.without.len() >= action.path_ids().len() && !batch.without.is_empty() {
        faults.add(format!("the batch of action {name:?} does without all ids"));
    }
    let in_path = batch.path.as_ref().or(action.path.as_ref());
    let places =
        || batch.id_body.iter().chain(&batch.id_query).chain(&action.id_query).chain(&action.id_body);
    for id in action.path_ids() {
        let is_in_path = in_path.is_some_and(|path| placeholders(path).any(|place| place == id));
        let is_without = batch.without.iter().any(|name| name == id);
        if !is_in_path && !is_without && !places().any(|place| place.id == id) {
            faults.add(format!("the batch of action {name:?} of {} loses the id {id:?}", entity.name));
        }
    }
}
