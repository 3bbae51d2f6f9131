//! What every row of the catalogue gets: its routes, and the reads that serve them, driven by the row alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::{Answer, Call, sets, writes};
use crate::sandbox::announce;
use crate::sandbox::query::{self, Filter, Query};
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs::{self, OddMeta, Paging, Shape, Spec};
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Lag, Row, Table, field};
use crate::sandbox::view::{Sight, Span};

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
    CreateSet,
    UpdateSet,
    DeleteSet,
}

/// The routes a row gives rise to.
pub(crate) fn verbs(spec: &'static Spec) -> Vec<(&'static str, &'static str, Verb)> {
    let mut out = Vec::new();
    let collection = spec.collection.as_deref();
    for path in collection.into_iter().chain(spec.lists.iter().map(String::as_str)) {
        out.push(("GET", path, Verb::List));
    }
    if let Some(path) = spec.create_path.as_deref().or(collection) {
        out.extend(spec.create.iter().map(|_| ("POST", path, Verb::Create)));
    }
    if let Some(path) = collection {
        out.extend(spec.batch_update.iter().map(|_| ("PUT", path, Verb::UpdateMany)));
        out.extend(spec.delete_by.iter().map(|_| ("DELETE", path, Verb::DeleteBy)));
    }
    if let Some(path) = spec.sets.as_deref() {
        out.extend([("POST", path, Verb::CreateSet), ("PUT", path, Verb::UpdateSet)]);
        out.push(("DELETE", path, Verb::DeleteSet));
    }
    if let Some(path) = spec.item.as_deref() {
        if !spec.hidden_item {
            out.push(("GET", path, Verb::Get));
        }
        out.extend(spec.update.iter().map(|_| ("PUT", path, Verb::Update)));
        out.extend(spec.delete.iter().map(|_| ("DELETE", path, Verb::Delete)));
    }
    out
}

/// What a path says about a row: fields it must have, and its key.
pub(crate) struct Place {
    /// Fields fixed by the path, outermost first.
    pub(crate) fixed: Vec<(&'static str, Key)>,
    /// The row's own key, on the path of an item.
    pub(crate) own: Option<Key>,
}

impl Place {
    /// Reads the path of `call`; the parent that it names must exist.
    fn of(spec: &'static Spec, call: &Call<'_>, verb: Verb) -> Result<Place, Reply> {
        let names = call.pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut fixed: Vec<(&'static str, Key)> = names
            .enumerate()
            .map(|(index, name)| (spec.params.get(name).map_or(name, String::as_str), call.key(index)))
            .collect();
        let on_item = matches!(verb, Verb::Get | Verb::Update | Verb::Delete);
        let own = if spec.singleton {
            let owner = fixed.last().map(|(_, key)| key.clone());
            Some(owner.unwrap_or_else(|| call.query.get("channel_id").map_or(Key::Int(0), Key::parse)))
        } else if !on_item {
            None
        } else if spec.compose.is_empty() {
            fixed.pop().map(|(_, key)| key)
        } else {
            compose(spec, |name| Some(fixed.iter().find(|(field, _)| *field == name)?.1.to_string()))
        };
        if let Some(parent) = spec.parent.as_ref().filter(|parent| !parent.in_body) {
            let key = fixed.iter().find(|(field, _)| *field == parent.field).map(|(_, key)| key);
            let owner = specs::find(&parent.entity).ok_or_else(|| not_found(&parent.entity))?;
            if key.is_some_and(|key| call.state.table(owner).see(key, call.state.lag).is_none()) {
                return Err(not_found(&parent.entity));
            }
        }
        Ok(Place { fixed, own })
    }

    /// The key, which the path of an item always has.
    pub(crate) fn own(&self, spec: &Spec) -> Result<&Key, Reply> {
        self.own.as_ref().ok_or_else(|| not_found(&spec.name))
    }

    /// Whether a row has the fields that the path fixes.
    pub(crate) fn holds(&self, spec: &Spec, row: &Row) -> bool {
        self.fixed.iter().all(|(name, key)| {
            let value = field(spec, row, name);
            Key::from_json(value).is_none_or(|own| own == *key)
        })
    }
}

/// A composite key of the texts that `part` gives for each of its fields.
pub(crate) fn compose(spec: &Spec, part: impl Fn(&str) -> Option<String>) -> Option<Key> {
    let parts: Option<Vec<String>> = spec.compose.iter().map(|name| part(name)).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| Key::parse(&parts.join("/")))
}

/// Runs `verb` on the resource.
pub(crate) fn run(verb: Verb, spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let place = Place::of(spec, call, verb)?;
    let events = call.state.outbox.len();
    let checked = call.facts.map_or(Ok(()), |facts| facts.check(call.pattern, call.body));
    let checked = checked.map_err(|reply| writes::with_choices(spec, call.body, reply));
    let answer = checked.and_then(|()| match verb {
        Verb::List => list(spec, call, &place),
        Verb::Get => get(spec, call, &place),
        Verb::Create => writes::create(spec, call, &place),
        Verb::Update => writes::update(spec, call, &place),
        Verb::UpdateMany => writes::update_many(spec, call, &place),
        Verb::Delete => writes::delete(spec, call, &place),
        Verb::DeleteBy => writes::delete_by(spec, call, &place),
        Verb::CreateSet => sets::create(spec, call),
        Verb::UpdateSet => sets::update(spec, call),
        Verb::DeleteSet => sets::delete(spec, call),
    });
    if spec.name == "price_list_record" && matches!(verb, Verb::Create | Verb::UpdateMany | Verb::DeleteBy) {
        announce::gather_records(&mut call.state.outbox, events);
    }
    let in_batch = spec.create.as_ref().is_some_and(|rules| rules.envelope.as_deref() == Some("batch"));
    let count = call.body.as_array().map_or(1, Vec::len);
    answer.map_err(|reply| if in_batch && reply.status == 422 { reply.in_batch(count) } else { reply })
}

/// A V3 404.
pub(crate) fn not_found(what: &str) -> Reply {
    Reply::plain(404, &format!("The requested {} was not found.", what.replace('_', " ")))
}

/// The ids of the rows that meet the filters, in order; all rows from some id on are not copied only to be counted.
pub(crate) enum Chosen<'a> {
    All(&'a [Key]),
    Some(Vec<Key>),
}

impl Chosen<'_> {
    pub(crate) fn keys(&self) -> &[Key] {
        match self {
            Chosen::All(keys) => keys,
            Chosen::Some(keys) => keys,
        }
    }
}

/// Chooses the rows that meet the filters. Uses the ids, an index or the date of change where a filter names them.
pub(crate) fn choose<'a>(state: &'a State, spec: &'static Spec, filters: &[Filter], lag: Lag) -> Chosen<'a> {
    let table = state.table(spec);
    if filters.is_empty() && lag.is_zero() {
        return Chosen::All(table.ids());
    }
    if let [filter] = filters
        && lag.is_zero()
        && let Some(least) = filter.least_id(spec)
    {
        return Chosen::All(table.ids_from(least));
    }
    let accepts = |row: &Row| filters.iter().all(|filter| filter.accepts(spec, row));
    if let Some(keys) = filters.iter().find_map(|filter| named(spec, table, filter)) {
        let fits = |key: &Key| table.see(key, lag).is_some_and(|row| accepts(&row));
        return Chosen::Some(keys.into_iter().filter(fits).collect());
    }
    if lag.is_zero()
        && let Some((from, to)) = query::span(spec, filters)
        && let Some(mut keys) = table.modified_between(from, to)
    {
        if filters.iter().any(|filter| !filter.is_span(spec)) {
            keys.retain(|key| table.get(key).is_some_and(|row| accepts(&row)));
        }
        return Chosen::Some(keys);
    }
    Chosen::Some(table.scan(lag).filter(|(_, row)| accepts(row)).map(|(key, _)| key.clone()).collect())
}

/// The ids that a filter names, by the id itself or by an index.
fn named(spec: &Spec, table: &Table, filter: &Filter) -> Option<Vec<Key>> {
    let (name, values) = filter.wanted()?;
    if name == spec.id || (name == "location_id" && spec.name == "location") {
        return Some(query::keys(values));
    }
    let exact = table.is_indexed(name) && !(name == "name" && spec.name.starts_with("customer"));
    exact.then(|| {
        let mut keys: Vec<Key> = values.iter().flat_map(|value| table.find(name, value)).collect();
        keys.sort();
        keys.dedup();
        keys
    })
}

/// The rows that meet the filters, in order of id.
pub(crate) fn select(state: &State, spec: &'static Spec, filters: &[Filter], lag: Lag) -> Vec<Row> {
    let table = state.table(spec);
    choose(state, spec, filters, lag).keys().iter().filter_map(|key| table.see(key, lag)).collect()
}

/// The rows of `keys` as a list shows them.
fn shown(spec: &'static Spec, state: &State, query: &Query, keys: &[Key]) -> Vec<Value> {
    let (table, sight) = (state.table(spec), Sight::new(state, query).span(Span::List));
    let rows = keys.iter().filter_map(|key| table.see(key, state.lag));
    rows.map(|row| Value::Object(query::project(query, &spec.id, sight.show(spec, &row)))).collect()
}

/// A page of the chosen rows, wrapped as the resource wraps its lists.
pub(crate) fn envelope(spec: &'static Spec, state: &State, query: &Query, keys: &[Key]) -> Reply {
    let heavy = query.lists("include", "options") || query.lists("include", "modifiers");
    let page = Page::of(query, if heavy { HEAVY_INCLUDE_LIMIT.min(spec.limit) } else { spec.limit });
    let whole = spec.paging == Paging::None;
    let first = if whole { 0 } else { page.skip().min(keys.len()) };
    let last = if whole { keys.len() } else { first.saturating_add(page.limit).min(keys.len()) };
    let data = shown(spec, state, query, &keys[first..last]);
    if data.is_empty() && spec.empty_is_204 && (keys.is_empty() || spec.shape == Shape::Bare) {
        return Reply::empty(204);
    }
    if spec.shape == Shape::Bare {
        return Reply::bare(200, Value::Array(data));
    }
    if spec.no_meta {
        return Reply::bare(200, json!({"data": data}));
    }
    if spec.paging != Paging::Pages {
        return Reply::data(200, data);
    }
    let mut meta = page.meta(keys.len(), data.len(), query);
    if let Some(odd) = spec.odd_meta {
        reword(odd, page, &mut meta["pagination"]);
    }
    if spec.cursor && query.get("page").is_none() {
        meta["cursor_pagination"] = cursor_meta(&keys[first..last], page.limit, last < keys.len());
    }
    Reply::wrapped(200, Value::Array(data), meta)
}

fn reword(odd: OddMeta, page: Page, meta: &mut Value) {
    let total = |name: &str| meta[name].clone();
    match odd {
        OddMeta::Offset => {
            *meta = json!({"offset": page.skip(), "limit": page.limit, "total_items": total("total")});
        }
        OddMeta::TotalPage => {
            let pages = total("total_pages");
            if let Some(map) = meta.as_object_mut() {
                map.shift_remove("total_pages");
                map.insert("total_page".to_owned(), pages);
            }
        }
    }
}

fn list(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    if let Some(name) = call.query.names().find(|name| spec.strict && !is_known(spec, name)) {
        return Err(Reply::field(400, name, format!("The parameter {name} is not known.")));
    }
    let mut filters = Filter::of(spec, call.query);
    for (name, key) in &place.fixed {
        filters.insert(0, Filter::new(name, &key.to_string()));
    }
    let chosen = choose(call.state, spec, &filters, call.state.lag);
    if spec.paging == Paging::AfterId {
        return Ok(after_id(spec, call, chosen.keys()));
    }
    if spec.cursor && (call.query.get("after").is_some() || call.query.get("before").is_some()) {
        return Ok(cursor_page(spec, call, chosen.keys()));
    }
    let sorted = sorted(spec, call, chosen.keys());
    let mut reply =
        envelope(spec, call.state, call.query, sorted.as_deref().unwrap_or_else(|| chosen.keys()));
    // Below one parent, metafields page by number only.
    if !spec.lists.is_empty()
        && !spec.lists.iter().any(|list| list == call.pattern)
        && let Some(meta) = reply.body.as_mut().and_then(|body| body.get_mut("meta")?.as_object_mut())
    {
        meta.shift_remove("cursor_pagination");
    }
    Ok(reply)
}

fn is_known(spec: &Spec, name: &str) -> bool {
    matches!(name, "page" | "limit" | "include" | "sort" | "direction")
        || spec.filters.iter().any(|filter| filter == name)
}

/// `sort=field[:asc|desc]` or `sort=field&direction=desc`; none where the list keeps the order of ids.
fn sorted(spec: &'static Spec, call: &Call<'_>, keys: &[Key]) -> Option<Vec<Key>> {
    let by = call.query.get("sort")?;
    let (name, way) = by.split_once(':').unwrap_or((by, call.query.get("direction").unwrap_or("asc")));
    // They are in the order of ids already.
    if !spec.template.contains_key(name) || name == spec.id && way != "desc" {
        return None;
    }
    let table = call.state.table(spec);
    let mut rows: Vec<(Value, &Key)> = keys
        .iter()
        .filter_map(|key| {
            let row = table.see(key, call.state.lag)?;
            Some((field(spec, &row, name).clone(), key))
        })
        .collect();
    rows.sort_by(|(left, _), (right, _)| match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        _ => left.as_str().cmp(&right.as_str()),
    });
    if way == "desc" {
        rows.reverse();
    }
    Some(rows.into_iter().map(|(_, key)| key.clone()).collect())
}

/// Rows after the id given, as channel listings page.
fn after_id(spec: &'static Spec, call: &Call<'_>, keys: &[Key]) -> Reply {
    let limit = Page::of(call.query, spec.limit).limit;
    let after = call.query.get("after").map_or(Key::Int(0), Key::parse);
    let first = keys.partition_point(|key| *key <= after);
    let last = first.saturating_add(limit).min(keys.len());
    let data = shown(spec, call.state, call.query, &keys[first..last]);
    Reply::data(200, data)
}

/// A page by cursor: the cursor names the last (or first) row in a form that nobody computes with.
fn cursor_page(spec: &'static Spec, call: &Call<'_>, keys: &[Key]) -> Reply {
    let limit = Page::of(call.query, spec.limit).limit;
    let read = |name| call.query.get(name).and_then(cursor_key);
    let (first, last) = match read("before") {
        Some(before) => {
            let last = keys.partition_point(|key| *key < before);
            (last.saturating_sub(limit), last)
        }
        None => {
            let first = read("after").map_or(0, |after| keys.partition_point(|key| *key <= after));
            (first, first.saturating_add(limit).min(keys.len()))
        }
    };
    let data = shown(spec, call.state, call.query, &keys[first..last]);
    let meta = cursor_meta(&keys[first..last], limit, last < keys.len());
    Reply::wrapped(200, Value::Array(data), json!({"cursor_pagination": meta}))
}

fn cursor_meta(keys: &[Key], limit: usize, more: bool) -> Value {
    let cursor = |key: Option<&Key>| key.map_or(String::new(), cursor_text);
    let (start, end) = (cursor(keys.first()), cursor(keys.last()));
    let mut links = Map::new();
    if more {
        links.insert("next".to_owned(), Value::from(format!("?after={end}&limit={limit}")));
    }
    json!({"count": keys.len(), "per_page": limit, "start_cursor": start, "end_cursor": end, "links": links})
}

/// Numbers in base 36, texts in base64 behind a dash.
fn cursor_text(key: &Key) -> String {
    match key {
        Key::Int(number) => base36(*number),
        Key::Text(text) => format!("-{}", URL_SAFE_NO_PAD.encode(text)),
    }
}

fn cursor_key(text: &str) -> Option<Key> {
    match text.strip_prefix('-') {
        Some(digits) => String::from_utf8(URL_SAFE_NO_PAD.decode(digits).ok()?).ok().map(Key::Text),
        None => u64::from_str_radix(text, 36).ok().map(Key::Int),
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(char::from_digit(u32::try_from(number % 36).unwrap_or(0), 36).unwrap_or('0'));
        number /= 36;
    }
    digits.iter().rev().collect()
}

fn get(spec: &'static Spec, call: &mut Call<'_>, place: &Place) -> Answer {
    let key = place.own(spec)?;
    let row = call.state.table(spec).see(key, call.state.lag).filter(|row| place.holds(spec, row));
    // A setting that nobody has changed shows its defaults.
    let row = if spec.singleton { Some(row.unwrap_or_default()) } else { row };
    let row = row.ok_or_else(|| not_found(&spec.name))?;
    let shown = Sight::new(call.state, call.query).span(Span::Alone).show(spec, &row);
    Ok(alone(spec, 200, query::project(call.query, &spec.id, shown).into()))
}

/// One row, wrapped as the resource wraps single rows.
pub(crate) fn alone(spec: &Spec, status: u16, row: Value) -> Reply {
    match spec.shape {
        Shape::Data if spec.no_meta => Reply::bare(status, json!({"data": row})),
        Shape::Data => Reply::data(status, row),
        Shape::Bare | Shape::BareOne => Reply::bare(status, row),
    }
}
