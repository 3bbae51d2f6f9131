//! The writes of every row of the catalogue: create, change, delete, one by one and in batches, checked by the row.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::generic::{Place, alone, compose, not_found, select};
use super::{Answer, Call, products};
use crate::sandbox::query::Filter;
use crate::sandbox::reply::Reply;
use crate::sandbox::specs::{self, Create, KEY, Shape, Spec, Style, Tells, Unique};
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Lag, Row, field, plain};
use crate::sandbox::view::{Sight, Span};

/// The object a body holds.
pub(crate) fn object(body: &Value) -> Result<&Map<String, Value>, Reply> {
    body.as_object().ok_or_else(|| Reply::field(422, "body", "The body must be a JSON object."))
}

/// The array a body holds, at most `max` long.
pub(crate) fn array(body: &Value, max: usize) -> Result<&Vec<Value>, Reply> {
    let items = body.as_array().ok_or_else(|| Reply::field(422, "body", "The body must be a JSON array."))?;
    if items.len() > max {
        return Err(Reply::plain(413, &format!("At most {max} items are allowed in one request.")));
    }
    if items.is_empty() {
        return Err(Reply::field(422, "body", "The array is empty."));
    }
    Ok(items)
}

pub(crate) fn create(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    let rules = spec.create.as_ref().ok_or_else(|| Reply::plain(405, "Method not allowed."))?;
    if spec.singleton {
        return put_single(spec, call, place, rules.status);
    }
    if rules.style == Style::Single || rules.style == Style::Either && call.body.is_object() {
        let item = object(call.body)?;
        call.faults_of(item)?;
        let row = accept(call.state, spec, None, item, &place.fixed)?;
        let key = products::insert(call.state, spec, keyed(spec, row)?)?;
        return Ok(shown(call, spec, &[key], rules.status, true));
    }
    create_many(spec, call, place, rules)
}

fn create_many(spec: &'static Spec, call: &mut Call<'_>, place: &Place, rules: &Create) -> Answer {
    let (mut rows, mut refused, mut seen) = (Vec::new(), Vec::new(), Seen::default());
    for (index, item) in array(call.body, rules.max)?.iter().enumerate() {
        match new_row(spec, call, place, item).and_then(|row| seen.join(spec, row)) {
            Ok(row) => rows.push(row),
            Err(reply) if rules.keeps_good => refused.push(at(index, reply)),
            Err(reply) => return Err(at(index, reply)),
        }
    }
    let keys: Vec<Key> = rows.into_iter().map(|row| call.state.insert(spec, row)).collect();
    if let Some(first) = gathered(refused) {
        return Err(first);
    }
    let mut reply = told(call, spec, &keys, (rules.status, rules.tells));
    if rules.envelope.as_deref() == Some("batch")
        && let Some(body) = &mut reply.body
    {
        body["meta"] = counts(keys.len());
    }
    Ok(reply)
}

fn new_row(
    spec: &'static Spec,
    call: &Call<'_>,
    place: &Place,
    item: &Value,
) -> Result<Map<String, Value>, Reply> {
    let item = item.as_object().ok_or_else(|| Reply::field(422, "body", "must be an object"))?;
    call.faults_of(item)?;
    accept(call.state, spec, None, item, &place.fixed).and_then(|row| keyed(spec, row))
}

/// One answer that names the faults of all; none where there are none.
fn gathered(refused: Vec<Reply>) -> Option<Reply> {
    let mut all = refused.into_iter();
    let mut first = all.next()?;
    for other in all {
        let more = other.body.and_then(|mut body| body.get_mut("errors").map(Value::take));
        if let (Some(Value::Object(more)), Some(body)) = (more, first.body.as_mut())
            && let Some(errors) = body.get_mut("errors").and_then(Value::as_object_mut)
        {
            errors.extend(more);
        }
    }
    Some(first)
}

fn counts(done: usize) -> Value {
    json!({"total": done, "success": done, "failed": 0})
}

/// The answer to a batch that was written.
pub(crate) fn told(
    call: &mut Call<'_>,
    spec: &'static Spec,
    keys: &[Key],
    (status, tells): (u16, Tells),
) -> Reply {
    match tells {
        Tells::Rows => shown(call, spec, keys, status, false),
        Tells::Counted => {
            let mut reply = shown(call, spec, keys, status, false);
            if let Some(body) = &mut reply.body {
                body["meta"] = counts(keys.len());
            }
            reply
        }
        Tells::Counts => Reply::bare(status, json!({"meta": counts(keys.len())})),
        Tells::Hollow => Reply::bare(status, json!({"data": {}, "meta": {}})),
        Tells::Transaction => Reply::bare(status, json!({"transaction_id": call.state.uuid()})),
        Tells::Nothing => Reply::empty(status),
    }
}

/// The unique values that the items of one batch bring along.
#[derive(Default)]
struct Seen(HashSet<(usize, Vec<String>)>);

impl Seen {
    /// Lets a row join the batch unless it clashes with an earlier one.
    fn join(&mut self, spec: &'static Spec, row: Map<String, Value>) -> Result<Map<String, Value>, Reply> {
        for (place, rule) in spec.unique.iter().enumerate() {
            let Some(values) = unique_values(spec, rule, &row) else { continue };
            if !self.0.insert((place, values)) {
                return Err(taken(rule));
            }
        }
        Ok(row)
    }
}

/// Adds the key of a row whose key is made of its fields.
pub(crate) fn keyed(spec: &Spec, mut row: Map<String, Value>) -> Result<Map<String, Value>, Reply> {
    if spec.compose.is_empty() {
        return Ok(row);
    }
    let key = compose(spec, |name| Some(Key::from_json(row.get(name)?)?.to_string()));
    let key = key.ok_or_else(|| {
        Reply::field(422, &spec.compose[0], format!("{} are required", spec.compose.join(", ")))
    })?;
    row.insert(KEY.to_owned(), key.json());
    Ok(row)
}

/// Puts the index of the item before the names of its faulty fields, as the API's batch errors do.
pub(crate) fn at(index: usize, mut reply: Reply) -> Reply {
    if let Some(errors) = reply.body.as_mut().and_then(|body| body.get_mut("errors"))
        && let Some(map) = errors.as_object()
    {
        *errors = map.iter().map(|(name, text)| (format!("{index}.{name}"), text.clone())).collect();
    }
    reply
}

/// The answer that shows rows just written.
pub(crate) fn shown(call: &Call<'_>, spec: &'static Spec, keys: &[Key], status: u16, single: bool) -> Reply {
    let span = if single { Span::Alone } else { Span::List };
    let sight = Sight::new(call.state, call.query).span(span).now();
    let table = call.state.table(spec);
    let rows = keys.iter().filter_map(|key| table.get(key));
    let mut rows: Vec<Value> = rows.map(|row| Value::Object(sight.show(spec, &row))).collect();
    if single {
        return alone(spec, status, rows.pop().unwrap_or(Value::Null));
    }
    if spec.shape == Shape::Bare {
        return Reply::bare(status, Value::Array(rows));
    }
    Reply::data(status, rows)
}

pub(crate) fn update(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    let status = spec.update.as_ref().map_or(200, |rules| rules.status);
    if spec.singleton {
        return put_single(spec, call, place, status);
    }
    let key = place.own(spec)?.clone();
    let old = call.state.table(spec).get(&key).filter(|row| place.holds(spec, row));
    let Some(old) = old else {
        if spec.compose.is_empty() {
            return Err(not_found(&spec.name));
        }
        let row = accept(call.state, spec, None, object(call.body)?, &place.fixed)?;
        let key = products::insert(call.state, spec, keyed(spec, row)?)?;
        return Ok(shown(call, spec, &[key], status, true));
    };
    let patch = accept(call.state, spec, Some((&key, &old)), object(call.body)?, &place.fixed)?;
    products::change(call.state, spec, &key, patch)?;
    Ok(shown(call, spec, &[key], status, true))
}

/// Changes the one object of a singleton, which always exists.
fn put_single(spec: &'static Spec, call: &mut Call<'_>, place: &Place, status: u16) -> Answer {
    let key = place.own(spec)?.clone();
    let old = call.state.table(spec).get(&key).unwrap_or_default();
    let patch = accept(call.state, spec, Some((&key, &old)), object(call.body)?, &place.fixed)?;
    call.state.put_single(spec, &key, patch);
    if status == 204 {
        return Ok(Reply::empty(204));
    }
    Ok(shown(call, spec, &[key], status, true))
}

pub(crate) fn update_many(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    let rules = spec.batch_update.as_ref().ok_or_else(|| Reply::plain(405, "Method not allowed."))?;
    let mut plans = Vec::new();
    for (index, item) in array(call.body, rules.max)?.iter().enumerate() {
        let item =
            item.as_object().ok_or_else(|| at(index, Reply::field(422, "body", "must be an object")))?;
        if rules.skips_unknown && is_unknown(spec, call, item) {
            continue;
        }
        plans.push(plan(spec, call, place, item).map_err(|reply| at(index, reply))?);
    }
    let mut keys = Vec::new();
    for (key, row) in plans {
        // An earlier item of the same batch may have made the row.
        let key = key.or_else(|| by_nature(call.state, spec, &row));
        keys.push(match key {
            Some(key) => {
                products::change(call.state, spec, &key, row)?;
                key
            }
            None => products::insert(call.state, spec, row)?,
        });
    }
    Ok(told(call, spec, &keys, (rules.status, rules.tells)))
}

/// Whether an item names a row that does not exist.
fn is_unknown(spec: &'static Spec, call: &Call<'_>, item: &Map<String, Value>) -> bool {
    let key = item.get(&spec.id).and_then(Key::from_json);
    key.is_some_and(|key| !call.state.table(spec).has(&key))
}

/// The row that an upsert means without naming its id.
pub(crate) fn by_nature(state: &State, spec: &'static Spec, item: &Map<String, Value>) -> Option<Key> {
    let (first, rest) = spec.natural.split_first()?;
    let value = item.get(first).and_then(plain)?;
    let table = state.table(spec);
    let same = |row: &Row| {
        rest.iter().all(|name| item.get(name).is_some_and(|value| field(spec, row, name) == value))
    };
    table.find(first, &value).into_iter().find(|key| table.get(key).is_some_and(|row| same(&row)))
}

/// What one item of a batch asks for: a change of a row, or a new row.
type Plan = (Option<Key>, Map<String, Value>);

fn plan(
    spec: &'static Spec,
    call: &Call<'_>,
    place: &Place,
    item: &Map<String, Value>,
) -> Result<Plan, Reply> {
    let upsert = spec.batch_update.as_ref().is_some_and(|rules| rules.upsert);
    let mut whole = item.clone();
    for (name, key) in &place.fixed {
        whole.insert((*name).to_owned(), key.json());
    }
    let key = if spec.compose.is_empty() {
        item.get(&spec.id).and_then(Key::from_json).or_else(|| by_nature(call.state, spec, &whole))
    } else {
        compose(spec, |name| Some(Key::from_json(whole.get(name)?)?.to_string()))
    };
    let refuse = |text: &str| Reply::field(422, &spec.id, text);
    let old = key.as_ref().and_then(|key| call.state.table(spec).get(key));
    match (key, old) {
        (Some(key), Some(old)) => {
            let patch = accept(call.state, spec, Some((&key, &old)), item, &place.fixed)?;
            Ok((Some(key), patch))
        }
        (key, None) if upsert => {
            let mut row = accept(call.state, spec, None, item, &place.fixed)?;
            if let Some(key) = key.filter(|_| spec.compose.is_empty()) {
                row.insert(spec.id.clone(), key.json());
            }
            Ok((None, keyed(spec, row)?))
        }
        (Some(_), None) => Err(refuse("does not exist")),
        (None, _) => Err(refuse("is required")),
    }
}

pub(crate) fn delete(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    let key = place.own(spec)?.clone();
    let holds = call.state.table(spec).get(&key).is_some_and(|row| place.holds(spec, &row));
    if !holds && !spec.singleton {
        return Err(not_found(&spec.name));
    }
    products::check_delete(call.state, spec, &key)?;
    call.state.delete(spec, &key);
    Ok(Reply::empty(spec.delete.as_ref().map_or(204, |rules| rules.status)))
}

pub(crate) fn delete_by(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    let rules = spec.delete_by.as_ref().ok_or_else(|| Reply::plain(405, "Method not allowed."))?;
    let mut filters: Vec<Filter> = rules
        .keys
        .iter()
        .filter_map(|name| {
            Some(Filter::renamed(spec, name, call.query.get(name).filter(|text| !text.is_empty())?))
        })
        .collect();
    if filters.is_empty() {
        call.forbidden = true;
        if !rules.collection {
            return match rules.without_filter {
                204 => Ok(Reply::empty(204)),
                status => Err(Reply::field(status, "filter", "At least one filter must be given.")),
            };
        }
    }
    let unfiltered = filters.is_empty();
    for (name, key) in &place.fixed {
        filters.insert(0, Filter::new(name, &key.to_string()));
    }
    let rows = select(call.state, spec, &filters, Lag::NONE);
    if rows.len() > rules.max && !unfiltered {
        return Err(Reply::plain(413, &format!("At most {} rows can be deleted in one request.", rules.max)));
    }
    let keys: Vec<Key> = rows.iter().filter_map(|row| row.get(&spec.id).and_then(Key::from_json)).collect();
    for key in &keys {
        products::check_delete(call.state, spec, key)?;
    }
    let count = keys.iter().filter(|key| call.state.delete(spec, key)).count();
    if rules.status == 202 {
        return Ok(Reply::bare(202, json!({"meta": counts(count)})));
    }
    match rules.tells {
        Tells::Transaction => Ok(told(call, spec, &[], (rules.status, rules.tells))),
        _ => Ok(Reply::empty(rules.status)),
    }
}

/// Checks a body against the row and returns the fields to store. `old` is the row an update changes.
pub(crate) fn accept(
    state: &State,
    spec: &'static Spec,
    old: Option<(&Key, &Row)>,
    body: &Map<String, Value>,
    fixed: &[(&'static str, Key)],
) -> Result<Map<String, Value>, Reply> {
    let mut errors = Map::new();
    if old.is_none() {
        for name in &spec.required {
            if body.get(name).is_none_or(|value| value.is_null() || value == "") {
                errors.insert(name.clone(), Value::from(format!("{name} is required")));
            }
        }
    }
    let mut out = Map::new();
    for (name, value) in body {
        let name = spec.aliases.get(name).unwrap_or(name);
        if spec.readonly.contains(name) || name.starts_with('_') || *name == spec.id {
            continue;
        }
        if let Some(text) = fault(spec, name, value) {
            errors.insert(name.clone(), Value::from(text));
        }
        out.insert(name.clone(), value.clone());
    }
    if !errors.is_empty() {
        return Err(Reply::invalid(422, "JSON data is missing or invalid", errors));
    }
    if old.is_none() {
        out.retain(|_, value| !value.is_null());
    }
    for (name, key) in fixed {
        out.insert((*name).to_owned(), owner_id(spec, name, key));
    }
    check_refs(state, spec, &out)?;
    check_unique(state, spec, old, &out)?;
    Ok(out)
}

/// Refuses fields that name rows that do not exist.
fn check_refs(state: &State, spec: &'static Spec, out: &Map<String, Value>) -> Result<(), Reply> {
    for (name, owner) in &spec.refs {
        let Some(value) = out.get(name).filter(|value| !value.is_null()) else { continue };
        let owner = specs::find(owner).unwrap_or(spec);
        if Key::from_json(value).is_none_or(|key| !state.table(owner).has(&key)) {
            return Err(Reply::field(422, name, format!("The {} {value} does not exist.", owner.name)));
        }
    }
    Ok(())
}

/// Refuses values that another row has.
pub(crate) fn check_unique(
    state: &State,
    spec: &'static Spec,
    old: Option<(&Key, &Row)>,
    out: &Map<String, Value>,
) -> Result<(), Reply> {
    let table = state.table(spec);
    for rule in &spec.unique {
        let names = || std::iter::once(&rule.field).chain(&rule.with);
        if !names().any(|name| out.contains_key(name)) {
            continue;
        }
        let mut whole = old.map(|(_, row)| Map::clone(row)).unwrap_or_default();
        whole.extend(names().filter_map(|name| Some((name.clone(), out.get(name)?.clone()))));
        let Some(wanted) = unique_values(spec, rule, &whole) else { continue };
        let same = |key: &Key| {
            table.get(key).and_then(|row| unique_values(spec, rule, &row)).as_ref() == Some(&wanted)
        };
        let clash = |key: &Key| old.is_none_or(|(own, _)| own != key) && same(key);
        if table.find(&rule.field, &wanted[0]).iter().any(clash) {
            return Err(taken(rule));
        }
    }
    Ok(())
}

fn taken(rule: &Unique) -> Reply {
    Reply::field(rule.status, &rule.field, format!("The {} is already in use.", rule.field))
}

/// The values that no two rows may share; none where the first is empty.
fn unique_values(spec: &Spec, rule: &Unique, row: &Map<String, Value>) -> Option<Vec<String>> {
    let rest = rule.with.iter().map(|name| plain(field(spec, row, name)).unwrap_or_default());
    let first = plain(row.get(&rule.field)?)?;
    Some(std::iter::once(first).chain(rest).collect())
}

/// The id of a parent in the type that the resource shows it in.
pub(crate) fn owner_id(spec: &Spec, name: &str, key: &Key) -> Value {
    match spec.template.get(name) {
        Some(Value::String(_)) => Value::from(key.to_string()),
        _ => key.json(),
    }
}

/// The refusal of an object, with the fields that are none of their row's choices.
pub(crate) fn with_choices(spec: &Spec, body: &Value, mut reply: Reply) -> Reply {
    let errors = reply.body.as_mut().and_then(|body| body.get_mut("errors")?.as_object_mut());
    if let (Some(errors), Some(item)) = (errors, body.as_object()) {
        for choice in &spec.enums {
            let text = item.get(&choice.field).and_then(|value| fault(spec, &choice.field, value));
            errors.extend(text.map(|text| (choice.field.clone(), Value::from(text))));
        }
    }
    reply
}

/// What is wrong with a field's value, judged by the type of its default and by the row's choices.
fn fault(spec: &Spec, name: &str, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    if let Some(choice) = spec.enums.iter().find(|choice| choice.field == name)
        && !value.as_str().is_some_and(|text| choice.values.iter().any(|one| one == text))
    {
        return Some(format!("{name} must be one of {}", choice.values.join(", ")));
    }
    let right = match spec.template.get(name)? {
        Value::Null => true,
        Value::Bool(_) => value.is_boolean(),
        Value::Number(_) => value.is_number(),
        Value::String(_) => value.is_string(),
        Value::Array(_) => value.is_array(),
        Value::Object(_) => value.is_object(),
    };
    (!right).then(|| format!("{name} has the wrong type"))
}
