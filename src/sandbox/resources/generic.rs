//! The operations every catalogue row gets: list, get, create, update, delete, each driven by the row alone.

use serde_json::{Map, Value, json};

use super::{Answer, Call, products};
use crate::sandbox::query::{self, Filter, Query};
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs::{Spec, Style};
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Row, field};
use crate::sandbox::view::Sight;

/// Page size cap where `include` asks for options or modifiers.
const HEAVY_INCLUDE_LIMIT: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    List,
    Get,
    Create,
    Update,
    UpdateMany,
    Delete,
    DeleteBy,
}

/// The routes a row gives rise to.
pub(crate) fn verbs(spec: &'static Spec) -> Vec<(&'static str, &'static str, Verb)> {
    let mut out = Vec::new();
    if let Some(path) = spec.collection.as_deref() {
        out.push(("GET", path, Verb::List));
        out.extend(spec.create.iter().map(|_| ("POST", path, Verb::Create)));
        out.extend(spec.batch_update.iter().map(|_| ("PUT", path, Verb::UpdateMany)));
        out.extend(spec.delete_by.iter().map(|_| ("DELETE", path, Verb::DeleteBy)));
    }
    if let Some(path) = spec.item.as_deref() {
        out.push(("GET", path, Verb::Get));
        out.extend(spec.update.iter().map(|_| ("PUT", path, Verb::Update)));
        out.extend(spec.delete.iter().map(|_| ("DELETE", path, Verb::Delete)));
    }
    out
}

/// Runs `verb` on the resource.
pub(crate) fn run(verb: Verb, spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let parent = parent(spec, call)?;
    let answer = match verb {
        Verb::List => list(spec, call, parent.as_ref()),
        Verb::Get => get(spec, call, parent.as_ref()),
        Verb::Create => create(spec, call, parent.as_ref()),
        Verb::Update => update(spec, call, parent.as_ref()),
        Verb::UpdateMany => update_many(spec, call),
        Verb::Delete => delete(spec, call, parent.as_ref()),
        Verb::DeleteBy => delete_by(spec, call),
    };
    let in_batch = spec.create.as_ref().is_some_and(|rules| rules.envelope.as_deref() == Some("batch"));
    let count = call.body.as_array().map_or(1, Vec::len);
    answer.map_err(|reply| if in_batch && reply.status == 422 { reply.in_batch(count) } else { reply })
}

/// The parent named in the path, which must exist.
fn parent(spec: &'static Spec, call: &Call<'_>) -> Result<Option<(&'static str, Key)>, Reply> {
    let Some(parent) = spec.parent.as_ref().filter(|parent| !parent.in_body) else { return Ok(None) };
    let key = call.key(0);
    let owner = crate::sandbox::specs::find(&parent.entity).ok_or_else(|| not_found(&parent.entity))?;
    if call.state.table(owner).see(&key, call.state.lag).is_none() {
        return Err(not_found(&parent.entity));
    }
    Ok(Some((parent.field.as_str(), key)))
}

/// A V3 404.
pub(crate) fn not_found(what: &str) -> Reply {
    Reply::plain(404, &format!("The requested {} was not found.", what.replace('_', " ")))
}

/// The rows that meet the filters, in order of id. Uses the ids or an index where a filter names them.
pub(crate) fn select(
    state: &State,
    spec: &'static Spec,
    filters: &[Filter],
    lag: std::time::Duration,
) -> Vec<Row> {
    let table = state.table(spec);
    let narrow = filters.iter().find_map(|filter| {
        let (name, values) = filter.wanted()?;
        if name == spec.id || (name == "location_id" && spec.name == "location") {
            return Some(query::keys(values));
        }
        let exact = table.is_indexed(name)
            && spec.name != "customer_address"
            && !(spec.name == "customer" && name == "name");
        exact.then(|| {
            let mut keys: Vec<Key> = values.iter().flat_map(|value| table.find(name, value)).collect();
            keys.sort();
            keys.dedup();
            keys
        })
    });
    let accepts = |row: &&Row| filters.iter().all(|filter| filter.accepts(spec, row));
    match narrow {
        Some(keys) => keys.iter().filter_map(|key| table.see(key, lag)).filter(accepts).cloned().collect(),
        None => table.scan(lag).map(|(_, row)| row).filter(accepts).cloned().collect(),
    }
}

/// A page of rows in a V3 envelope.
pub(crate) fn envelope(spec: &'static Spec, state: &State, query: &Query, rows: &[Row]) -> Reply {
    let heavy = query.lists("include", "options") || query.lists("include", "modifiers");
    let page = Page::of(query, if heavy { HEAVY_INCLUDE_LIMIT.min(spec.limit) } else { spec.limit });
    let sight = Sight::new(state, query);
    let shown: Vec<Value> = rows
        .iter()
        .skip(page.skip())
        .take(page.limit)
        .map(|row| Value::Object(query::project(query, &spec.id, sight.show(spec, row))))
        .collect();
    if rows.is_empty() && spec.empty_is_204 {
        return Reply::empty(204);
    }
    let meta = page.meta(rows.len(), shown.len(), query);
    Reply::bare(200, json!({"data": shown, "meta": meta}))
}

fn list(spec: &'static Spec, call: &mut Call<'_>, parent: Option<&(&'static str, Key)>) -> Answer {
    let mut filters = Filter::of(spec, call.query);
    if spec.cursor && (call.query.get("after").is_some() || call.query.get("before").is_some()) {
        return Ok(cursor_page(spec, call, &filters));
    }
    if let Some((name, key)) = parent {
        filters.insert(0, Filter::new(name, &key.to_string()));
    }
    let mut rows = select(call.state, spec, &filters, call.state.lag);
    sort(spec, call.query, &mut rows);
    Ok(envelope(spec, call.state, call.query, &rows))
}

/// `sort=field[:asc|desc]` or `sort=field&direction=desc`.
fn sort(spec: &'static Spec, query: &Query, rows: &mut [Row]) {
    let Some(by) = query.get("sort") else { return };
    let (name, way) = by.split_once(':').unwrap_or((by, query.get("direction").unwrap_or("asc")));
    if !spec.template.contains_key(name) {
        return;
    }
    rows.sort_by(|left, right| {
        let (left, right) = (field(spec, left, name), field(spec, right, name));
        match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            _ => left.as_str().cmp(&right.as_str()),
        }
    });
    if way == "desc" {
        rows.reverse();
    }
}

/// A page by cursor: the cursor is the id of the last (or first) row, in base 36 so that nobody computes with it.
fn cursor_page(spec: &'static Spec, call: &Call<'_>, filters: &[Filter]) -> Reply {
    let rows = select(call.state, spec, filters, call.state.lag);
    let limit = Page::of(call.query, spec.limit).limit;
    let read = |name| call.query.get(name).and_then(|text| u64::from_str_radix(text, 36).ok());
    let id = |row: &Row| row.get(&spec.id).and_then(Value::as_u64).unwrap_or(0);
    let shown: Vec<&Row> = match (read("after"), read("before")) {
        (_, Some(before)) => {
            let all: Vec<&Row> = rows.iter().filter(|row| id(row) < before).collect();
            all[all.len().saturating_sub(limit)..].to_vec()
        }
        (after, None) => rows.iter().filter(|row| id(row) > after.unwrap_or(0)).take(limit).collect(),
    };
    let cursor = |row: Option<&&Row>| row.map_or(String::new(), |row| base36(id(row)));
    let (start, end) = (cursor(shown.first()), cursor(shown.last()));
    let mut links = Map::new();
    if shown.last().is_some_and(|last| rows.last().is_some_and(|row| id(row) > id(last))) {
        links.insert("next".to_owned(), Value::from(format!("?after={end}&limit={limit}")));
    }
    let sight = Sight::new(call.state, call.query);
    let data: Vec<Value> = shown.iter().map(|row| Value::Object(sight.show(spec, row))).collect();
    let meta = json!({"count": data.len(), "per_page": limit, "start_cursor": start, "end_cursor": end, "links": links});
    Reply::bare(200, json!({"data": data, "meta": {"cursor_pagination": meta}}))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(char::from_digit(u32::try_from(number % 36).unwrap_or(0), 36).unwrap_or('0'));
        number /= 36;
    }
    digits.iter().rev().collect()
}

/// The id in the path, after the parent's.
fn own_key(call: &Call<'_>, parent: Option<&(&'static str, Key)>) -> Key {
    call.key(usize::from(parent.is_some()))
}

fn belongs(spec: &Spec, row: &Row, parent: Option<&(&'static str, Key)>) -> bool {
    parent.is_none_or(|(name, key)| field(spec, row, name) == &key.json())
}

fn get(spec: &'static Spec, call: &mut Call<'_>, parent: Option<&(&'static str, Key)>) -> Answer {
    let key = own_key(call, parent);
    let row = call.state.table(spec).see(&key, call.state.lag).filter(|row| belongs(spec, row, parent));
    let row = row.ok_or_else(|| not_found(&spec.name))?;
    let shown = Sight::new(call.state, call.query).show(spec, row);
    Ok(Reply::data(200, query::project(call.query, &spec.id, shown)))
}

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

fn create(spec: &'static Spec, call: &mut Call<'_>, parent: Option<&(&'static str, Key)>) -> Answer {
    let rules = spec.create.as_ref().ok_or_else(|| Reply::plain(405, "Method not allowed."))?;
    if rules.style == Style::Single {
        let row = accept(call.state, spec, None, object(call.body)?, parent)?;
        let key = products::insert(call.state, spec, row)?;
        return Ok(shown(call, spec, &[key], rules.status, true));
    }
    let mut rows = Vec::new();
    for (index, item) in array(call.body, rules.max)?.iter().enumerate() {
        let item =
            item.as_object().ok_or_else(|| at(index, Reply::field(422, "body", "must be an object")))?;
        rows.push(accept(call.state, spec, None, item, None).map_err(|reply| at(index, reply))?);
    }
    let keys: Vec<Key> = rows.into_iter().map(|row| call.state.insert(spec, row)).collect();
    let mut reply = shown(call, spec, &keys, rules.status, false);
    if rules.envelope.as_deref() == Some("batch")
        && let Some(body) = &mut reply.body
    {
        body["meta"] = json!({"total": keys.len(), "success": keys.len(), "failed": 0});
    }
    Ok(reply)
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
    let sight = Sight { lag: std::time::Duration::ZERO, ..Sight::new(call.state, call.query) };
    let table = call.state.table(spec);
    let mut rows: Vec<Value> = keys
        .iter()
        .filter_map(|key| table.get(key))
        .map(|row| Value::Object(sight.show(spec, row)))
        .collect();
    if single {
        return Reply::data(status, rows.pop().unwrap_or(Value::Null));
    }
    Reply::data(status, rows)
}

fn update(spec: &'static Spec, call: &mut Call<'_>, parent: Option<&(&'static str, Key)>) -> Answer {
    let key = own_key(call, parent);
    let old = call.state.table(spec).get(&key).filter(|row| belongs(spec, row, parent)).cloned();
    let old = old.ok_or_else(|| not_found(&spec.name))?;
    let patch = accept(call.state, spec, Some((&key, &old)), object(call.body)?, parent)?;
    products::change(call.state, spec, &key, patch)?;
    let status = spec.update.as_ref().map_or(200, |rules| rules.status);
    Ok(shown(call, spec, &[key], status, true))
}

fn update_many(spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let rules = spec.batch_update.as_ref().ok_or_else(|| Reply::plain(405, "Method not allowed."))?;
    let mut patches = Vec::new();
    for (index, item) in array(call.body, rules.max)?.iter().enumerate() {
        let refuse = |name: &str, text: &str| at(index, Reply::field(422, name, text));
        let item = item.as_object().ok_or_else(|| refuse("body", "must be an object"))?;
        let key =
            item.get(&spec.id).and_then(Key::from_json).ok_or_else(|| refuse(&spec.id, "is required"))?;
        let old =
            call.state.table(spec).get(&key).cloned().ok_or_else(|| refuse(&spec.id, "does not exist"))?;
        let patch =
            accept(call.state, spec, Some((&key, &old)), item, None).map_err(|reply| at(index, reply))?;
        patches.push((key, patch));
    }
    let keys: Vec<Key> = patches.iter().map(|(key, _)| key.clone()).collect();
    for (key, patch) in patches {
        products::change(call.state, spec, &key, patch)?;
    }
    if rules.reply.as_deref() == Some("meta") {
        let meta = json!({"total": keys.len(), "success": keys.len(), "failed": 0});
        return Ok(Reply::bare(200, json!({"meta": meta})));
    }
    Ok(shown(call, spec, &keys, 200, false))
}

fn delete(spec: &'static Spec, call: &mut Call<'_>, parent: Option<&(&'static str, Key)>) -> Answer {
    let key = own_key(call, parent);
    if !call.state.table(spec).get(&key).is_some_and(|row| belongs(spec, row, parent)) {
        return Err(not_found(&spec.name));
    }
    products::check_delete(call.state, spec, &key)?;
    call.state.delete(spec, &key);
    Ok(Reply::empty(spec.delete.as_ref().map_or(204, |rules| rules.status)))
}

fn delete_by(spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let rules = spec.delete_by.as_ref().ok_or_else(|| Reply::plain(405, "Method not allowed."))?;
    let filters: Vec<Filter> = rules
        .keys
        .iter()
        .filter_map(|name| Some(Filter::new(name, call.query.get(name).filter(|text| !text.is_empty())?)))
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
    let rows = select(call.state, spec, &filters, std::time::Duration::ZERO);
    if rows.len() > rules.max && !filters.is_empty() {
        return Err(Reply::plain(413, &format!("At most {} rows can be deleted in one request.", rules.max)));
    }
    let keys: Vec<Key> = rows.iter().filter_map(|row| row.get(&spec.id).and_then(Key::from_json)).collect();
    let count = keys.iter().filter(|key| call.state.delete(spec, key)).count();
    if rules.status == 202 {
        return Ok(Reply::bare(202, json!({"meta": {"total": count, "success": count, "failed": 0}})));
    }
    Ok(Reply::empty(rules.status))
}

/// Checks a body against the row and returns the fields to store. `old` is the row an update changes.
pub(crate) fn accept(
    state: &State,
    spec: &'static Spec,
    old: Option<(&Key, &Row)>,
    body: &Map<String, Value>,
    parent: Option<&(&'static str, Key)>,
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
    if let Some((name, key)) = parent {
        out.insert((*name).to_owned(), key.json());
    }
    for rule in &spec.unique {
        let Some(text) = out.get(&rule.field).and_then(Value::as_str).filter(|text| !text.is_empty()) else {
            continue;
        };
        let taken = state.table(spec).find(&rule.field, text);
        if taken.iter().any(|key| old.is_none_or(|(own, _)| own != key)) {
            return Err(Reply::field(
                rule.status,
                &rule.field,
                format!("The {} is already in use.", rule.field),
            ));
        }
    }
    Ok(out)
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
