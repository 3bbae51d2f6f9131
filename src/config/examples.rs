//! `tests:` the examples beside a mapping, which `bcbridge test` runs.

use serde_json::Value as Json;

use super::mistake::Mistake;
use super::section::{Reading, Section};
use super::settings::{Expected, MappingTest};
use super::tree::{Node, Scalar, ScalarKind, Value};

/// Of an outgoing entry.
pub(super) const KEYS: &[&str] = &["name", "in", "key", "headers", "timestamp", "out", "error", "filtered"];

/// Of an incoming entry, whose expressions see an entity and no record.
pub(super) const INCOMING_KEYS: &[&str] = &["name", "in", "out", "error", "filtered"];

/// Reads the examples of an entry; each may have the keys of `known`.
pub(super) fn read(cx: &mut Reading<'_>, section: &Section<'_>, known: &[&str]) -> Vec<MappingTest> {
    let path = section.path_of("tests");
    let nodes = section.list(cx, "tests").unwrap_or_default().iter().enumerate();
    nodes.filter_map(|(at, node)| one(cx, (node, known), &format!("{path}[{at}]"), at)).collect()
}

fn one(cx: &mut Reading<'_>, (node, known): (&Node, &[&str]), path: &str, at: usize) -> Option<MappingTest> {
    let test = Section::open(cx, node, path, known);
    if !test.has("in") {
        test.missing(cx, "in", "any value");
    }
    let expected = expected(cx, &test);
    let timestamp = test.parsed(
        cx,
        "timestamp",
        "milliseconds since the epoch, or a date as in 2026-01-31T08:00:00Z",
        |text| {
            let date = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
            text.parse().ok().or_else(date)
        },
    );
    Some(MappingTest {
        name: test.text(cx, "name").unwrap_or_else(|| format!("test {}", at + 1)),
        at: path.to_owned(),
        input: test.get("in").map_or(Json::Null, json),
        key: test.get("key").map(json),
        headers: test
            .pairs(cx, "headers")
            .into_iter()
            .map(|(name, text, _)| (name.name.clone(), text))
            .collect(),
        timestamp_ms: timestamp,
        expected: expected?,
    })
}

fn expected(cx: &mut Reading<'_>, test: &Section<'_>) -> Option<Expected> {
    let given: Vec<&str> = ["out", "error", "filtered"].into_iter().filter(|key| test.has(key)).collect();
    match given.as_slice() {
        ["out"] => Some(Expected::Out(test.get("out").map_or(Json::Null, json))),
        ["error"] => test.text(cx, "error").map(Expected::Error),
        ["filtered"] => match test.flag(cx, "filtered") {
            Some(true) => Some(Expected::Filtered),
            Some(false) => {
                test.missing(cx, "out", "out, error, or filtered: true");
                None
            }
            None => None,
        },
        [] => {
            test.missing(
                cx,
                "out",
                "out (any value), error (a reason or a part of its message), or filtered: true",
            );
            None
        }
        several => {
            let message = format!("`{}` expects {}", test.path, several.join(" and "));
            cx.wrong(Mistake::new(&test.at, message, "one of out, error, filtered"));
            None
        }
    }
}

/// A value of the file as JSON; of repeated keys the first.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(Scalar { text, kind: ScalarKind::Bool, .. }) => Json::Bool(text == "true"),
        Value::Scalar(Scalar { text, kind: ScalarKind::Number, .. }) => {
            serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone()))
        }
        Value::Scalar(Scalar { text, kind: ScalarKind::Text, .. }) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(entries) => {
            let mut object = serde_json::Map::new();
            for (key, value) in entries {
                object.entry(key.name.clone()).or_insert_with(|| json(value));
            }
            Json::Object(object)
        }
    }
}
