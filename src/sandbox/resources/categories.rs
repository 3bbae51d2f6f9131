//! Categories in their old shape: `id` and `custom_url` in place of `category_id` and `url`, in the first tree only.

use serde_json::{Map, Value, json};

use super::generic::{not_found, select};
use super::writes::{accept, check_unique, object};
use super::{Answer, Call};
use crate::sandbox::query::Filter;
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::specs;
use crate::sandbox::store::{Key, Lag, Row, render};

/// The old shape of a category.
fn legacy(row: &Row) -> Value {
    let mut shown = render(specs::known("category"), row);
    let id = shown.shift_remove("category_id").unwrap_or(Value::Null);
    let path = shown.shift_remove("url").and_then(|url| url.get("path").cloned()).unwrap_or(Value::from("/"));
    shown.shift_remove("category_uuid");
    shown.shift_remove("tree_id");
    let mut out = Map::from_iter([("id".to_owned(), id)]);
    out.extend(shown);
    out.insert("custom_url".to_owned(), json!({"url": path, "is_customized": false}));
    Value::Object(out)
}

/// The new shape of a body in the old one.
fn renewed(body: &Map<String, Value>) -> Map<String, Value> {
    let mut out = body.clone();
    if let Some(url) = out.shift_remove("custom_url") {
        let path = url.get("url").cloned().unwrap_or(Value::from("/"));
        let customized = url.get("is_customized").cloned().unwrap_or(Value::from(true));
        out.insert("url".to_owned(), json!({"path": path, "is_customized": customized}));
    }
    out
}

fn filters(call: &Call<'_>) -> Vec<Filter> {
    let names = [
        "id",
        "id:in",
        "id:not_in",
        "name",
        "name:like",
        "parent_id",
        "parent_id:in",
        "is_visible",
        "keyword",
    ];
    let named = |name: &&str| {
        Some(Filter::new(
            &name.replacen("id", "category_id", usize::from(name.starts_with("id"))),
            call.query.get(name)?,
        ))
    };
    names.iter().filter_map(named).collect()
}

/// `GET /v3/catalog/categories`.
pub(crate) fn list(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("category");
    let rows = select(call.state, spec, &filters(call), call.state.lag);
    let page = Page::of(call.query, 250);
    let data: Vec<Value> = rows.iter().skip(page.skip()).take(page.limit).map(legacy).collect();
    let meta = page.meta(rows.len(), data.len(), call.query);
    Ok(Reply::bare(200, json!({"data": data, "meta": meta})))
}

/// `GET /v3/catalog/categories/{category_id}`.
pub(crate) fn get(call: &mut Call<'_>) -> Answer {
    let row =
        call.state.of("category").see(&call.key(0), call.state.lag).ok_or_else(|| not_found("category"))?;
    Ok(Reply::data(200, legacy(&row)))
}

/// `POST /v3/catalog/categories`.
pub(crate) fn create(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("category");
    let body = renewed(object(call.body)?);
    if check_unique(call.state, spec, None, &body).is_err() {
        return Err(Reply::field(409, "name", "The category has the name of a sibling."));
    }
    let row = accept(call.state, spec, None, &body, &[])?;
    let key = call.state.insert(spec, row);
    written(call, &key)
}

fn written(call: &Call<'_>, key: &Key) -> Answer {
    let row = call.state.of("category").get(key).ok_or_else(|| not_found("category"))?;
    Ok(Reply::data(200, legacy(&row)))
}

/// `PUT /v3/catalog/categories/{category_id}`.
pub(crate) fn update(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("category");
    let key = call.key(0);
    let old = call.state.table(spec).get(&key).ok_or_else(|| not_found("category"))?;
    let body = renewed(object(call.body)?);
    if check_unique(call.state, spec, Some((&key, &old)), &body).is_err() {
        return Err(Reply::field(409, "name", "The category has the name of a sibling."));
    }
    let patch = accept(call.state, spec, Some((&key, &old)), &body, &[])?;
    call.state.change(spec, &key, patch);
    written(call, &key)
}

/// `DELETE /v3/catalog/categories/{category_id}`.
pub(crate) fn delete(call: &mut Call<'_>) -> Answer {
    if call.state.delete(specs::known("category"), &call.key(0)) {
        return Ok(Reply::empty(204));
    }
    Err(not_found("category"))
}

/// `DELETE /v3/catalog/categories`: everything, unless filtered.
pub(crate) fn delete_many(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("category");
    let filters = filters(call);
    call.forbidden = filters.is_empty();
    for row in select(call.state, spec, &filters, Lag::NONE) {
        if let Some(key) = row.get(&spec.id).and_then(Key::from_json) {
            call.state.delete(spec, &key);
        }
    }
    Ok(Reply::empty(204))
}
