//! Batches in which every item stands for itself: the good ones are written, the others named, and the answer counts both.
//!
//! Metafields are written this way. A set with one bad item answers 422 although the rest of it was done.

use serde_json::{Map, Value, json};

use super::writes::{accept, array};
use super::{Answer, Call};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs::{self, Spec};
use crate::sandbox::store::Key;
use crate::sandbox::view::Sight;

/// Items of one set; not documented.
const ITEMS_MAX: usize = 250;

/// What became of a set.
#[derive(Default)]
struct Outcome {
    done: Vec<Value>,
    errors: Vec<Value>,
}

impl Outcome {
    fn add(&mut self, index: usize, done: Result<Value, Reply>) {
        match done {
            Ok(value) => self.done.push(value),
            Err(reply) => {
                let mut error = reply.body.unwrap_or(Value::Null);
                if let Some(fields) = error.get_mut("errors")
                    && let Some(map) = fields.as_object()
                {
                    *fields =
                        map.iter().map(|(name, text)| (format!("{index}.{name}"), text.clone())).collect();
                }
                self.errors.push(error);
            }
        }
    }

    fn reply(self) -> Reply {
        let (success, failed) = (self.done.len(), self.errors.len());
        let status = if failed == 0 { 200 } else { 422 };
        let meta = json!({"total": success + failed, "success": success, "failed": failed});
        Reply::bare(status, json!({"data": self.done, "errors": self.errors, "meta": meta}))
    }
}

fn object(item: &Value) -> Result<&Map<String, Value>, Reply> {
    item.as_object().ok_or_else(|| Reply::field(422, "body", "must be an object"))
}

fn shown(call: &Call<'_>, spec: &'static Spec, key: &Key) -> Value {
    let row = call.state.table(spec).get(key).unwrap_or_default();
    Value::Object(Sight::new(call.state, call.query).now().show(spec, &row))
}

/// Creates each item that can be created.
pub(crate) fn create(spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let mut outcome = Outcome::default();
    for (index, item) in array(call.body, ITEMS_MAX)?.iter().enumerate() {
        let made = create_one(spec, call, item);
        outcome.add(index, made);
    }
    Ok(outcome.reply())
}

fn create_one(spec: &'static Spec, call: &mut Call<'_>, item: &Value) -> Result<Value, Reply> {
    let item = object(item)?;
    call.faults_of(item)?;
    let mut fixed = Vec::new();
    if let Some(parent) = &spec.parent {
        let owner = item.get(&parent.field).and_then(Key::from_json);
        let known = specs::find(&parent.entity).map(|spec| call.state.table(spec));
        let owner = owner.filter(|key| known.is_some_and(|table| table.has(key)));
        let missing = || Reply::field(422, &parent.field, format!("The {} does not exist.", parent.entity));
        fixed.push((parent.field.as_str(), owner.ok_or_else(missing)?));
    }
    let row = accept(call.state, spec, None, item, &fixed)?;
    let key = call.state.insert(spec, row);
    Ok(shown(call, spec, &key))
}

/// Changes each item that there is.
pub(crate) fn update(spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let mut outcome = Outcome::default();
    for (index, item) in array(call.body, ITEMS_MAX)?.iter().enumerate() {
        let changed = update_one(spec, call, item);
        outcome.add(index, changed);
    }
    Ok(outcome.reply())
}

fn update_one(spec: &'static Spec, call: &mut Call<'_>, item: &Value) -> Result<Value, Reply> {
    let item = object(item)?;
    call.faults_of(item)?;
    let key = item.get(&spec.id).and_then(Key::from_json);
    let key = key.ok_or_else(|| Reply::field(422, &spec.id, "is required"))?;
    let old = call.state.table(spec).get(&key).ok_or_else(|| missing(spec, &key))?;
    let patch = accept(call.state, spec, Some((&key, &old)), item, &[])?;
    call.state.change(spec, &key, patch);
    Ok(shown(call, spec, &key))
}

/// Deletes each row that the body names.
pub(crate) fn delete(spec: &'static Spec, call: &mut Call<'_>) -> Answer {
    let mut outcome = Outcome::default();
    for (index, item) in array(call.body, ITEMS_MAX)?.iter().enumerate() {
        let key = Key::from_json(item).ok_or_else(|| Reply::field(422, &spec.id, "must be an id"));
        let deleted = key.and_then(|key| {
            if call.state.delete(spec, &key) { Ok(key.json()) } else { Err(missing(spec, &key)) }
        });
        outcome.add(index, deleted);
    }
    Ok(outcome.reply())
}

fn missing(spec: &Spec, key: &Key) -> Reply {
    Reply::field(404, &spec.id, format!("{key} does not exist"))
}
