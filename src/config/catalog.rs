//! `catalog:`: rows that a user adds to the catalogue, or puts in the place of its own.
//!
//! A row has the same fields as the rows that ship, in YAML. What a row must be is the catalogue's to say; this module
//! finds the line to blame.

use serde_json::{Map, Number};

use super::mistake::Mistake;
use super::names::{EntityNames, RowFault};
use super::section::{Reading, Section};
use super::tree::{Node, Place, Scalar, ScalarKind, Value};

pub(super) const KEYS: &[&str] = &["entities", "caps"];

/// The management API has some two hundred entities.
const MAX_ROWS: usize = 500;

/// The rows, and where they stand.
pub(super) struct Rows<'n> {
    section: &'n Node,
    entries: &'n [Node],
    caps: &'n [Node],
    /// As they are written.
    pub(super) values: Vec<serde_json::Value>,
}

/// Reads the section; none where the file has none.
pub(super) fn read<'n>(cx: &mut Reading<'_>, root: &'n Node) -> Option<Rows<'n>> {
    let Value::Map(sections) = &root.value else { return None };
    let (_, section) = sections.iter().find(|(key, _)| key.name == "catalog")?;
    let keys = Section::open(cx, section, "catalog", KEYS);
    let mut rows = |key: &str| {
        let all = keys.list(cx, key).unwrap_or_default();
        if let Some(one_too_many) = all.get(MAX_ROWS) {
            let message = format!("`catalog.{key}` has {} rows", all.len());
            cx.wrong(Mistake::new(&one_too_many.at, message, format!("at most {MAX_ROWS}")));
        }
        &all[..all.len().min(MAX_ROWS)]
    };
    let (entries, caps) = (rows("entities"), rows("caps"));
    for cap in caps.iter().filter(|cap| !has_key(cap, "at_once")) {
        let message = "a row of `catalog.caps` has no `at_once`";
        cx.wrong(Mistake::new(&cap.at, message, "how many requests run at once"));
    }
    let caps_read = caps.iter().filter(|cap| has_key(cap, "at_once"));
    let values = entries.iter().chain(caps_read).map(json).collect();
    Some(Rows { section, entries, caps, values })
}

/// The names of the catalogue with these rows; none, and a mistake for each fault, where they are refused.
pub(super) fn merge(cx: &mut Reading<'_>, rows: &Rows<'_>) -> Option<Box<dyn EntityNames>> {
    let faults = match cx.names.with_rows(&rows.values) {
        Ok(names) => return Some(names),
        Err(faults) => faults,
    };
    for RowFault { entity, what } in faults {
        let is_meant = |(at, entry): &(usize, &Node)| match name_of(entry) {
            Some(name) => name == entity,
            None => format!("row {}", at + 1) == entity,
        };
        let cap =
            entity.strip_prefix("cap ").and_then(|number| rows.caps.get(number.parse::<usize>().ok()? - 1));
        let entry = cap.or_else(|| rows.entries.iter().enumerate().rfind(is_meant).map(|(_, entry)| entry));
        let place = entry.map_or(&rows.section.at, |entry| blamed(entry, &what));
        let who =
            if cap.is_some() { format!("`catalog.caps`, {entity}") } else { format!("entity `{entity}`") };
        let mistake = Mistake::new(place, format!("{who}: {what}"), "a sound row of the catalogue");
        cx.wrong(mistake.help("docs/catalog.md says what the fields of a row mean"));
    }
    None
}

/// The key of the entry that a fault is about, where it names one; else the entry.
fn blamed<'n>(entry: &'n Node, what: &str) -> &'n Place {
    let name = what.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
    name.and_then(|(name, _)| key_in(entry, name)).unwrap_or(&entry.at)
}

fn key_in<'n>(node: &'n Node, name: &str) -> Option<&'n Place> {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find_map(|(key, value)| if key.name == name { Some(&key.at) } else { key_in(value, name) }),
        Value::List(items) => items.iter().find_map(|item| key_in(item, name)),
        Value::Null | Value::Scalar(_) => None,
    }
}

fn has_key(node: &Node, name: &str) -> bool {
    matches!(&node.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.name == name))
}

fn name_of(entry: &Node) -> Option<&str> {
    let Value::Map(entries) = &entry.value else { return None };
    entries.iter().find_map(|(key, value)| match &value.value {
        Value::Scalar(scalar) if key.name == "name" => Some(scalar.text.as_str()),
        _ => None,
    })
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Scalar(scalar) => scalar_json(scalar),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let fields = entries.iter().map(|(key, value)| (key.name.clone(), json(value)));
            serde_json::Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

fn scalar_json(scalar: &Scalar) -> serde_json::Value {
    match scalar.kind {
        ScalarKind::Bool => (scalar.text == "true").into(),
        ScalarKind::Number => {
            scalar.text.parse::<Number>().map_or_else(|_| scalar.text.clone().into(), Into::into)
        }
        ScalarKind::Text => scalar.text.clone().into(),
    }
}
