//! From a checked command to the requests that it may need, and the class under which it is applied.
//!
//! Pure. Every request is made here, before the first one is sent, out of the catalogue's templates and checked
//! ids: there is no other way to a path. A payload is passed on byte for byte; where an id must go into it, it is
//! spliced in and the rest stays as it is.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

use super::batch::{self, Part};
use super::decode::{Checked, Fault, is_number};
use super::guard::{Guard, guard};
use crate::catalog::row::{IdPlace, NaturalKey};
use crate::catalog::{Action, Body, Class, DEFAULT_PART, Pages};
use crate::model::reason::Reason;
use crate::model::request::{ApiPath, Method, Purpose, Request};

/// Rows asked for in a probe: a unique field finds one; BigCommerce's largest page, should it find more.
const PROBE_PAGE: &str = "250";

/// What a command comes to.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) class: Class,
    /// The write; of an upsert, the create.
    pub(super) write: Request,
    /// What the write would be in a request that holds others, and how its row is told in a reply.
    pub(super) part: Option<Part>,
    /// Statuses of a refusal that means it is already so.
    pub(super) already_so: Vec<u16>,
    /// How the thing can be found again. Always there for class B.
    pub(super) probe: Option<Probe>,
    /// Of an upsert: what is sent when the thing was found.
    pub(super) update: Option<Update>,
    /// What is read before the write. Never of an upsert or of class B; a guarded command is written alone.
    pub(super) guard: Option<Guard>,
}

/// A read that finds a thing by its natural key.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) request: Request,
    /// What the thing holds: field names down to a field, and its value. The first one names the key.
    holds: Vec<(String, String)>,
    /// Where the thing's own id stands in its JSON.
    id_at: String,
}

/// The update of an upsert, but for the id that the probe finds.
#[derive(Debug, Clone)]
pub(super) struct Update {
    pub(super) command: Checked,
    pub(super) action: usize,
    /// The name of the id that the probe finds.
    pub(super) id: String,
    /// A or C.
    pub(super) class: Class,
    pub(super) already_so: Vec<u16>,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    One {
        id: String,
        row: Value,
    },
    /// Several things hold the same value, so it is not a key; the newest of them.
    Several {
        id: String,
        row: Value,
    },
    /// The reply is not a list of things.
    Unreadable,
}

/// Plans a command.
pub(super) fn plan(command: &Checked) -> Result<Plan, Fault> {
    let action = command.action();
    let body = fields(command, action)?;
    check_items(action, &body)?;
    if action.path.is_none() {
        return upsert(command, &body);
    }
    let probe = match action.class {
        Class::B => probe(command, action, &body)?,
        Class::A | Class::C => None,
    };
    let class = match action.class {
        // Nothing to find it by: then nobody could tell whether it was applied.
        Class::B if probe.is_none() => Class::C,
        _ if appends(action, &body) => Class::C,
        class => class,
    };
    let write = request(command, action, &body, |name| command.path_id(name))?;
    let guard = guard(command, class)?;
    let part = batch::part(command, action, &body, (class, &write));
    Ok(Plan { class, part, write, already_so: action.already_so.clone(), probe, update: None, guard })
}

impl Plan {
    /// The write's part where others may share its request: what was probed or read right before the write holds for
    /// this write alone, and of one that may not be repeated nothing must be unclear.
    pub(super) fn shared(&self) -> Option<Part> {
        let is_alone = self.guard.is_some() || self.update.is_some() || self.class == Class::C;
        self.part.clone().filter(|_| !is_alone)
    }
}

fn upsert(command: &Checked, body: &Map<String, Value>) -> Result<Plan, Fault> {
    let entity = &command.entity;
    let index = |name: &str| entity.action.iter().position(|action| action.name == name);
    let (Some(create), Some(update)) = (index("create"), index("update")) else {
        return Err((Reason::UnknownAction, format!("{} has no create or no update", entity.name)));
    };
    let (creating, updating) = (&entity.action[create], &entity.action[update]);
    check_items(creating, body)?;
    // The upsert's own row says by which fields; the create's where no list is given.
    let keys = if command.action().natural_key.is_empty() { creating } else { command.action() };
    let Some(probe) = probe_by(command, keys, creating, body)? else {
        let fields: Vec<String> = keys.natural_key.iter().map(NaturalKey::fields).collect();
        let detail =
            format!("an upsert needs one of {} in the payload, to find the thing by", fields.join(", "));
        return Err((Reason::BadPayload, detail));
    };
    let mut found = updating.path_ids().into_iter().filter(|name| command.path_id(name).is_none());
    let (Some(id), None) = (found.next(), found.next()) else {
        let detail =
            format!("the update of {} does not take one id, so an upsert cannot use it", entity.name);
        return Err((Reason::UnknownAction, detail));
    };
    // Refused here, if there is one: an upsert does not know the thing.
    let guard = guard(command, Class::B)?;
    let class = if updating.class == Class::A && !appends(updating, body) { Class::A } else { Class::C };
    let write = request(command, creating, body, |name| command.path_id(name))?;
    Ok(Plan {
        class: Class::B,
        part: batch::part(command, creating, body, (Class::B, &write)),
        write,
        already_so: Vec::new(),
        probe: Some(probe),
        update: Some(Update {
            command: command.clone(),
            action: update,
            id: id.to_owned(),
            class,
            already_so: updating.already_so.clone(),
        }),
        guard,
    })
}

impl Update {
    /// The update of the thing that was found.
    pub(super) fn request(&self, found: &str) -> Result<Request, Fault> {
        let action = &self.command.entity.action[self.action];
        let body = self.command.payload.as_ref().map(|bytes| object(bytes)).transpose()?.unwrap_or_default();
        request(&self.command, action, &body, |name| {
            if name == self.id { Some(found) } else { self.command.path_id(name) }
        })
    }
}

fn request<'a>(
    command: &Checked,
    action: &Action,
    body: &Map<String, Value>,
    id: impl Fn(&str) -> Option<&'a str>,
) -> Result<Request, Fault> {
    let (Some(method), Some(template)) = (action.method, &action.path) else {
        return Err((Reason::UnknownAction, format!("action {:?} sends nothing", action.name)));
    };
    let bad_id = |what: String| (Reason::BadId, what);
    // The catalogue refuses such a row when it is loaded. It would cost a shop all its orders: asked once more.
    let names_one = template.ends_with('}') || !action.id_query.is_empty() || action.only_one;
    if method == Method::Delete && !names_one {
        return Err(bad_id(format!("action {:?} would delete a whole collection", action.name)));
    }
    let path = ApiPath::render(template, &id).map_err(|bad| bad_id(bad.to_string()))?;
    let given =
        |place: &IdPlace| id(&place.id).ok_or_else(|| bad_id(format!("the id {:?} is missing", place.id)));
    let mut query = Vec::with_capacity(command.query.len() + action.id_query.len());
    for place in &action.id_query {
        let id = given(place)?;
        if !(place.default && id == DEFAULT_PART) {
            query.push((place.name.clone(), id.to_owned()));
        }
    }
    query.extend(command.query.iter().cloned());
    let mut payload = command.payload.clone();
    let mut rest = body.len();
    for place in &action.id_body {
        if let Some(whole) = &payload {
            payload = Some(with_id(whole, body, rest, (place, given(place)?))?);
            rest += 1;
        }
    }
    let body = match (action.body, payload) {
        (Body::ArrayOfId, _) => {
            let ids = action.id_body.iter().map(given).collect::<Result<Vec<_>, _>>()?;
            Some(Value::from(ids).to_string().into())
        }
        (Body::None, _) | (_, None) => None,
        (Body::Object | Body::Array, Some(payload)) => Some(payload),
        (Body::ArrayOfOne, Some(payload)) => {
            let mut array = BytesMut::with_capacity(payload.len() + 2);
            array.put_u8(b'[');
            array.put_slice(&payload);
            array.put_u8(b']');
            Some(array.freeze())
        }
    };
    Ok(Request { method, path, query, body, purpose: Purpose::Command })
}

/// The payload with an id in front, unless it holds the same one already.
/// `rest` is how many fields it has by now.
pub(super) fn with_id(
    payload: &Bytes,
    body: &Map<String, Value>,
    rest: usize,
    (place, id): (&IdPlace, &str),
) -> Result<Bytes, Fault> {
    let field = place.name.as_str();
    if let Some(held) = body.get(field) {
        if scalar(held).as_deref() == Some(id) {
            return Ok(payload.clone());
        }
        return Err((Reason::BadId, format!("the payload's {field:?} is not the path's id")));
    }
    let mut spliced = BytesMut::with_capacity(payload.len() + field.len() + id.len() + 8);
    spliced.put_slice(b"{");
    spliced.put_slice(Value::from(field).to_string().as_bytes());
    spliced.put_u8(b':');
    match is_number(id) && !place.text {
        true => spliced.put_slice(id.trim_start_matches('0').as_bytes()),
        false => spliced.put_slice(Value::from(id).to_string().as_bytes()),
    }
    if rest > 0 {
        spliced.put_u8(b',');
    }
    // The payload starts with its brace: `decode` made sure.
    spliced.put_slice(&payload[1..]);
    Ok(spliced.freeze())
}

/// The fields of the payload; none where it is an array.
fn fields(command: &Checked, action: &Action) -> Result<Map<String, Value>, Fault> {
    match &command.payload {
        Some(payload) if action.body != Body::Array => object(payload),
        Some(_) | None => Ok(Map::new()),
    }
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, Fault> {
    serde_json::from_slice(payload)
        .map_err(|error| (Reason::BadPayload, format!("the payload could not be read: {error}")))
}

fn check_items(action: &Action, body: &Map<String, Value>) -> Result<(), Fault> {
    let Some(items) = &action.items else { return Ok(()) };
    let (field, max) = (&items.field, items.max);
    match body.get(field).map(Value::as_array) {
        Some(Some(list)) if (1..=max).contains(&list.len()) => Ok(()),
        Some(Some(list)) => {
            let detail = format!("the payload's {field:?} has {} items; 1 to {max} are taken", list.len());
            Err((Reason::BadPayload, detail))
        }
        Some(None) => Err((Reason::BadPayload, format!("the payload's {field:?} is not an array"))),
        None => Err((Reason::BadPayload, format!("the payload has no {field:?}"))),
    }
}

/// Whether the payload adds elements each time that it is applied.
fn appends(action: &Action, body: &Map<String, Value>) -> bool {
    let has_id = |element: &Value| {
        element.get("id").and_then(scalar).is_some_and(|id| !id.is_empty() && id.bytes().any(|b| b != b'0'))
    };
    action.appends.iter().filter_map(|field| body.get(field)).any(|value| match value {
        Value::Null => false,
        Value::Array(elements) => !elements.iter().all(has_id),
        // Whatever the store makes of it, it is not known to be safe.
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => true,
    })
}

fn probe(command: &Checked, action: &Action, body: &Map<String, Value>) -> Result<Option<Probe>, Fault> {
    probe_by(command, action, action, body)
}

/// A probe by the best natural key that the payload holds. The collection that is posted to is the one that is read,
/// unless the key has a list of its own.
fn probe_by(
    command: &Checked,
    keys: &Action,
    create: &Action,
    body: &Map<String, Value>,
) -> Result<Option<Probe>, Fault> {
    let Some(id_at) = command.entity.key.last() else { return Ok(None) };
    for key in &keys.natural_key {
        let Some((holds, mut query)) = held(key, body) else { continue };
        let Some(list) = key.list.as_ref().or(create.path.as_ref()) else { return Ok(None) };
        let path = ApiPath::render(list, |name| command.path_id(name))
            .map_err(|bad| (Reason::BadId, bad.to_string()))?;
        // What is not listed in pages takes no limit.
        if command.entity.list.as_ref().is_none_or(|list| list.pages != Pages::None) {
            query.push(("limit".to_owned(), PROBE_PAGE.to_owned()));
        }
        let request = Request { method: Method::Get, path, query, body: None, purpose: Purpose::Command };
        return Ok(Some(Probe { request, holds, id_at: id_at.clone() }));
    }
    Ok(None)
}

/// The fields of a key with their values, and the query that narrows a list to them; none where the payload lacks one.
#[expect(clippy::type_complexity, reason = "two lists of pairs, taken apart at once")]
fn held(
    key: &NaturalKey,
    body: &Map<String, Value>,
) -> Option<(Vec<(String, String)>, Vec<(String, String)>)> {
    let first = std::iter::once((&key.field, Some(&key.param)));
    let parts = first.chain(key.with.iter().map(|part| (&part.field, part.param.as_ref())));
    let (mut holds, mut query) = (Vec::with_capacity(1 + key.with.len()), Vec::new());
    for (field, param) in parts {
        let value = at(body, field).and_then(scalar).filter(|value| !value.trim().is_empty())?;
        query.extend(param.map(|param| (param.clone(), value.clone())));
        holds.push((field.clone(), value));
    }
    let fits = key.max_chars.is_none_or(|max| holds.iter().all(|(_, value)| value.chars().count() <= max));
    fits.then_some((holds, query))
}

impl Probe {
    /// Looks through the list that the store gave. An exact match only: a filter may be looser than the key.
    pub(super) fn find(&self, reply: &[u8]) -> Found {
        if reply.trim_ascii().is_empty() {
            return Found::Nothing;
        }
        let rows = match serde_json::from_slice::<Value>(reply) {
            Ok(Value::Array(rows)) => rows,
            Ok(Value::Object(mut envelope)) => match envelope.remove("data") {
                Some(Value::Array(rows)) => rows,
                _ => return Found::Unreadable,
            },
            _ => return Found::Unreadable,
        };
        let mut matches: Vec<(String, Value)> = Vec::new();
        for row in rows.into_iter().filter(|row| self.is_it(row)) {
            match row.as_object().and_then(|row| at(row, &self.id_at)).and_then(scalar) {
                Some(id) => matches.push((id, row)),
                None => return Found::Unreadable,
            }
        }
        let several = matches.len() > 1;
        let newest = matches.into_iter().max_by_key(|(id, _)| id.parse::<u64>().unwrap_or(0));
        match newest {
            None => Found::Nothing,
            Some((id, row)) if several => Found::Several { id, row },
            Some((id, row)) => Found::One { id, row },
        }
    }

    fn is_it(&self, row: &Value) -> bool {
        let Some(row) = row.as_object() else { return false };
        self.holds.iter().all(|(field, value)| {
            let Some(held) = at(row, field).and_then(scalar) else { return false };
            // BigCommerce keeps one customer for an address, however it is written.
            let fold = field.rsplit('.').next() == Some("email");
            if fold { held.to_lowercase() == value.to_lowercase() } else { held == *value }
        })
    }

    /// The unique field, for a message.
    pub(super) fn field(&self) -> &str {
        self.holds.first().map_or("key", |(field, _)| field)
    }
}

/// The value at a path of names with dots between them.
pub(super) fn at<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let first = object.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// A text or a number as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::Catalog;
    use crate::catalog::row::Family;

    #[test]
    fn a_delete_of_a_collection_cannot_be_planned_even_from_a_row_that_was_never_checked() {
        let rows = r#"
            [[entity]]
            name = "thing"
            doc = "x"
            spec = "x"
            oauth = "x"
            key = ["id"]
            ids = ["thing_id"]
            action = [
                { name = "all", method = "DELETE", path = "/v3/things", class = "A" },
                { name = "of_one", method = "DELETE", path = "/v3/things/{thing_id}/parts", class = "A" },
                { name = "one", method = "DELETE", path = "/v3/things/{thing_id}", class = "A" },
            ]
        "#;
        let entity = Arc::new(toml::from_str::<Family>(rows).unwrap().entity.remove(0));
        let path = vec![("thing_id".to_owned(), "7".to_owned())];
        let planned =
            [0, 1, 2].map(|action| plan(&Checked::new("c", entity.clone(), action, path.clone())).is_ok());
        assert_eq!(planned, [false, false, true]);
    }

    /// A command to an action of a row that ships.
    fn command(entity: &str, action: &str, path: &[(&str, &str)], payload: &str) -> Checked {
        let entity = Catalog::embedded().unwrap().entity(entity).unwrap().clone();
        let at = entity.action.iter().position(|known| known.name == action).unwrap();
        let path = path.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect();
        let payload = (!payload.is_empty()).then(|| Bytes::copy_from_slice(payload.as_bytes()));
        let mut checked = Checked::new("c", entity, at, path);
        checked.payload = payload;
        checked
    }

    #[test]
    fn a_key_of_several_fields_is_asked_for_and_compared_as_a_whole() {
        let payload = r#"{"namespace":"erp","key":"color","value":"red"}"#;
        let plan = plan(&command("product_metafield", "create", &[("product_id", "7")], payload)).unwrap();
        assert_eq!(plan.class, Class::B);
        let probe = plan.probe.unwrap();
        assert_eq!(probe.request.path.as_str(), "/v3/catalog/products/7/metafields");
        let query: Vec<(&str, &str)> =
            probe.request.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(query, [("namespace", "erp"), ("key", "color"), ("limit", "250")]);
        let rows =
            r#"{"data":[{"id":1,"namespace":"erp","key":"size"},{"id":2,"namespace":"crm","key":"color"}]}"#;
        assert_eq!(probe.find(rows.as_bytes()), Found::Nothing);
        let rows =
            r#"{"data":[{"id":1,"namespace":"erp","key":"size"},{"id":3,"namespace":"erp","key":"color"}]}"#;
        assert!(matches!(probe.find(rows.as_bytes()), Found::One { id, .. } if id == "3"));
    }

    #[test]
    fn half_a_key_finds_nothing_so_nobody_could_tell() {
        let half = command("product_metafield", "create", &[("product_id", "7")], r#"{"namespace":"erp"}"#);
        assert_eq!(plan(&half).unwrap().class, Class::C);
        // What the store would cut is no key either.
        let class = |code: &str| {
            let payload = format!(r#"{{"code":"{code}","amount":"5"}}"#);
            plan(&command("gift_certificate", "create", &[], &payload)).unwrap().class
        };
        assert_eq!([class(&"x".repeat(20)), class(&"x".repeat(21))], [Class::B, Class::C]);
    }

    #[test]
    fn a_list_without_pages_is_not_asked_for_a_page() {
        let payload = r#"{"type":"PRODUCT","code":"A1","display_name":"x"}"#;
        let probe = plan(&command("tax_property", "create", &[], payload)).unwrap().probe.unwrap();
        assert_eq!(probe.request.query, [("type:in".to_owned(), "PRODUCT".to_owned())]);
    }

    #[test]
    fn settings_are_those_of_a_channel_or_of_the_store() {
        let query = |channel: &str| {
            let wanted = command("settings_catalog", "update", &[("channel_id", channel)], "{}");
            plan(&wanted).unwrap().write.query
        };
        assert_eq!(query("5"), [("channel_id".to_owned(), "5".to_owned())]);
        assert_eq!(query(DEFAULT_PART), []);
    }

    #[test]
    fn an_id_can_be_the_body() {
        let path = [("segment_id", "s1"), ("shopper_profile_id", "p1")];
        let write = plan(&command("segment_shopper_profile", "create", &path, "")).unwrap().write;
        assert_eq!(write.path.as_str(), "/v3/segments/s1/shopper-profiles");
        assert_eq!(write.body.unwrap(), &br#"["p1"]"#[..]);
    }

    #[test]
    fn the_only_one_of_its_kind_is_deleted_by_its_owner() {
        let write = plan(&command("channel_site", "delete", &[("channel_id", "5")], "")).unwrap().write;
        assert_eq!((write.method, write.path.as_str()), (Method::Delete, "/v3/channels/5/site"));
    }
}
