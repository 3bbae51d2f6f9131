//! `outgoing:`: which topics are read, and how their records become commands.

use serde_json::Value as Json;

use super::incoming::{entity, store};
use super::mistake::Mistake;
use super::section::{Reading, Section, closest, quoted};
use super::settings::{KafkaSettings, MappingTest, OnFailure, OutgoingSettings, Route, StoreSettings};
use super::template::Fill;
use super::tree::{Node, Scalar, ScalarKind, Value};
use super::values;
use crate::transform::Mapping;

pub(super) const KEYS: &[&str] =
    &["topic", "store", "entity", "action", "filter", "transform", "on_failure", "dry_run", "tests"];
pub(super) const TEST_KEYS: &[&str] = &["name", "in", "out"];

pub(super) fn read(
    cx: &mut Reading<'_>,
    root: &Section<'_>,
    kafka: &KafkaSettings,
    stores: &[StoreSettings],
) -> Vec<OutgoingSettings> {
    if root.get("outgoing").is_none() {
        return stores.iter().map(|store| commands(kafka, store)).collect();
    }
    let mut entries: Vec<OutgoingSettings> = Vec::new();
    for (at, node) in root.list(cx, "outgoing").unwrap_or_default().iter().enumerate() {
        let section = Section::open(cx, node, &format!("outgoing[{at}]"), KEYS);
        let Some(entry) = entry(cx, &section, kafka, stores) else { continue };
        if entries.iter().any(|other| other.topic == entry.topic) {
            let place = section.get("topic").map_or(&section.at, |node| &node.at);
            let message = format!("topic `{}` is read by two entries", entry.topic);
            let mistake = Mistake::new(place, message, "one entry per topic");
            cx.wrong(mistake.help("choose by a jq transform, or split the topic"));
        }
        entries.push(entry);
    }
    entries
}

/// The command topic of a store, which is read when the file says nothing about `outgoing`.
fn commands(kafka: &KafkaSettings, store: &StoreSettings) -> OutgoingSettings {
    OutgoingSettings {
        topic: command_topic(kafka, store),
        store: store.name.clone(),
        route: Route::Commands,
        filter: None,
        transform: Mapping::identity(),
        on_failure: OnFailure::Skip,
        dry_run: false,
        tests: Vec::new(),
    }
}

fn command_topic(kafka: &KafkaSettings, store: &StoreSettings) -> String {
    let fill = Fill { prefix: &kafka.prefix, store: &store.name, ..Fill::default() };
    kafka.topics.names.commands.render(fill)
}

fn entry(
    cx: &mut Reading<'_>,
    section: &Section<'_>,
    kafka: &KafkaSettings,
    stores: &[StoreSettings],
) -> Option<OutgoingSettings> {
    if section.get("topic").is_none() {
        section.missing(cx, "topic", "the name of a topic");
    }
    let topic = section.parsed(cx, "topic", "letters, digits, `.`, `_` and `-`, at most 249", |text| {
        values::topic(text).then(|| text.to_owned())
    });
    let store = target(cx, section, kafka, stores, topic.as_deref());
    let route = route(cx, section);
    let words = [("skip", OnFailure::Skip), ("halt-key", OnFailure::HaltKey)];
    let on_failure = section.choice(cx, "on_failure", &words).unwrap_or(OnFailure::Skip);
    if on_failure == OnFailure::HaltKey {
        let at = &section.path;
        let text = "accepted, not active in this release: a failed command does not hold up its key";
        cx.warnings.push(format!("{at}: on_failure: halt-key: {text}"));
    }
    let filter = section.mapping(cx, "filter").filter(|filter| !filter.is_identity());
    let transform = section.mapping(cx, "transform").unwrap_or_else(Mapping::identity);
    let dry_run = section.flag(cx, "dry_run").unwrap_or(false);
    let tests = tests(cx, section);
    if !tests.is_empty() {
        cx.warnings.push(format!("{}: tests: accepted, not run in this release", section.path));
    }
    Some(OutgoingSettings {
        topic: topic?,
        store: store?,
        route: route?,
        filter,
        transform,
        on_failure,
        dry_run,
        tests,
    })
}

/// The store an entry writes to: the one it names, the one whose command topic it reads, or the only one.
fn target(
    cx: &mut Reading<'_>,
    section: &Section<'_>,
    kafka: &KafkaSettings,
    stores: &[StoreSettings],
    topic: Option<&str>,
) -> Option<String> {
    if section.get("store").is_some() {
        return store(cx, section, stores);
    }
    if let Some(owner) = stores.iter().find(|store| Some(command_topic(kafka, store).as_str()) == topic) {
        return Some(owner.name.clone());
    }
    match stores {
        [only] => Some(only.name.clone()),
        [] => None,
        several => {
            let names: Vec<&str> = several.iter().map(|store| store.name.as_str()).collect();
            section.missing(cx, "store", &names.join(", "));
            None
        }
    }
}

fn route(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<Route> {
    match (section.get("entity"), section.get("action")) {
        (None, None) => Some(Route::Commands),
        (None, Some(_)) => {
            section.missing(cx, "entity", "entity and action together, or neither");
            None
        }
        (Some(_), None) => {
            let entity = entity(cx, section)?;
            section.missing(cx, "action", &cx.names.actions(&entity).join(", "));
            None
        }
        (Some(_), Some(node)) => {
            let action = section.text(cx, "action")?;
            let entity = entity(cx, section)?;
            let known = cx.names.actions(&entity);
            if known.contains(&action) {
                return Some(Route::Mapped { entity, action });
            }
            let message = format!("entity `{entity}` has no action {}", quoted(node));
            let allowed =
                if known.is_empty() { "nothing: it cannot be written".to_owned() } else { known.join(", ") };
            let help = closest(&action, known.iter().map(String::as_str));
            let help = help.map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            cx.wrong(Mistake::new(&node.at, message, allowed).help(help));
            None
        }
    }
}

fn tests(cx: &mut Reading<'_>, section: &Section<'_>) -> Vec<MappingTest> {
    let mut tests = Vec::new();
    let path = section.path_of("tests");
    for (at, node) in section.list(cx, "tests").unwrap_or_default().iter().enumerate() {
        let test = Section::open(cx, node, &format!("{path}[{at}]"), TEST_KEYS);
        for key in ["in", "out"] {
            if !test.has(key) {
                test.missing(cx, key, "any value");
            }
        }
        let name = test.text(cx, "name").unwrap_or_else(|| format!("test {}", at + 1));
        let value = |key| test.get(key).map_or(Json::Null, json);
        tests.push(MappingTest { name, input: value("in"), expected: value("out") });
    }
    tests
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
