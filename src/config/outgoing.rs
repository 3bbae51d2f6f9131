//! `outgoing:`: which topics are read, and how their records become commands.

use super::defaults;
use super::incoming::{entity, store};
use super::mistake::Mistake;
use super::section::{Reading, Section, closest, quoted};
use super::settings::{KafkaSettings, OnFailure, OutgoingSettings, Route, StoreSettings};
use super::template::Fill;
use super::{examples, shape, values};
use crate::transform::Mapping;

pub(super) const KEYS: &[&str] = &[
    "topic",
    "store",
    "entity",
    "action",
    "filter",
    "transform",
    "path",
    "query",
    "payload",
    "on_failure",
    "stop_at",
    "dry_run",
    "tests",
];
/// The parts of a request that may have an expression of their own.
const PARTS: [&str; 3] = ["path", "query", "payload"];

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
        parts: Vec::new(),
        on_failure: OnFailure::Skip,
        stop_at: Some(defaults::STOP_AT_PERCENT),
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
    let stop_at = section.parsed(cx, "stop_at", "a share from 1% to 100%, or off", |text| match text {
        "off" => Some(None),
        share => values::percent(share)
            .filter(|share| (0.01..=1.0).contains(share))
            .map(|share| Some((share * 100.0) as u8)),
    });
    let stop_at = stop_at.unwrap_or(Some(defaults::STOP_AT_PERCENT));
    let filter = section.record_mapping(cx, "filter");
    let transform = section.record_mapping(cx, "transform").unwrap_or_else(Mapping::identity);
    let parts = parts(cx, section);
    if let Some(route) = &route {
        shape::check(cx, section, route, (&transform, &parts));
    }
    let dry_run = section.flag(cx, "dry_run").unwrap_or(false);
    let tests = examples::read(cx, section, examples::KEYS);
    Some(OutgoingSettings {
        topic: topic?,
        store: store?,
        route: route?,
        filter,
        transform,
        parts,
        on_failure,
        stop_at,
        dry_run,
        tests,
    })
}

/// The expressions of single parts.
fn parts(cx: &mut Reading<'_>, section: &Section<'_>) -> Vec<(&'static str, Mapping)> {
    let given: Vec<&str> = PARTS.into_iter().filter(|part| section.get(part).is_some()).collect();
    if let (Some(first), Some(node)) = (given.first(), section.get("transform")) {
        let message = format!("both `transform` and `{first}` are given in `{}`", section.path);
        let mistake = Mistake::new(&node.at, message, "`transform`, or an expression for each part");
        cx.wrong(mistake.help("let `transform` make all parts, or remove it"));
    }
    if let (Some(first), None) = (given.first(), section.get("entity")) {
        section.missing(cx, "entity", &format!("entity and action beside `{first}`, which makes neither"));
    }
    let read = |part| Some((part, section.record_mapping(cx, part)?));
    PARTS.into_iter().filter_map(read).collect()
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
