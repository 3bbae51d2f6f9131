//! `incoming:`: what is read from BigCommerce and published, one entry per entity.

use std::collections::BTreeMap;
use std::time::Duration;

use super::defaults;
use super::examples;
use super::kafka::{key_template, template};
use super::mistake::Mistake;
use super::section::{Reading, Section, closest, found, quoted, scalar};
use super::settings::{
    IncomingSettings, KafkaSettings, PollSettings, RecordFormat, StoreSettings, SweepSettings,
};
use super::template::Hole;
use super::tree::Value;
use super::values;
use crate::model::ids::check_part;
use crate::transform::Mapping;

pub(super) const KEYS: &[&str] = &[
    "entity",
    "store",
    "scopes",
    "include",
    "query",
    "path",
    "parameters",
    "filter",
    "transform",
    "poll",
    "sweep",
    "quiet",
    "max_wait",
    "confirm_gone",
    "suppress_unchanged",
    "suppress_echo",
    "second_read",
    "format",
    "topic",
    "key",
    "tests",
];
pub(super) const POLL_KEYS: &[&str] = &["every", "at_start", "full"];
pub(super) const SWEEP_KEYS: &[&str] = &["every", "full"];

const FORMATS: [(&str, RecordFormat); 3] = [
    ("cloudevents", RecordFormat::CloudEvents),
    ("cloudevents-structured", RecordFormat::CloudEventsStructured),
    ("envelope", RecordFormat::Envelope),
];

/// Polling faster than this would eat the quota; slower than a week is a forgotten unit.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

/// Sooner, it would find what the first read found; later, consumers would have acted on it.
const SECOND_READ: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);

pub(super) fn read(
    cx: &mut Reading<'_>,
    root: &Section<'_>,
    kafka: &KafkaSettings,
    stores: &[StoreSettings],
) -> Vec<IncomingSettings> {
    if root.get("incoming").is_none() {
        let names = cx.names.incoming_default();
        return names.into_iter().map(|entity| plain(cx, entity, kafka)).collect();
    }
    let mut entries: Vec<IncomingSettings> = Vec::new();
    for (at, node) in root.list(cx, "incoming").unwrap_or_default().iter().enumerate() {
        let section = Section::open(cx, node, &format!("incoming[{at}]"), KEYS);
        let Some(entry) = entry(cx, &section, kafka, stores) else { continue };
        let twice = entries.iter().any(|other| other.entity == entry.entity && other.store == entry.store);
        if twice {
            let place = section.get("entity").map_or(&section.at, |node| &node.at);
            let message = format!("entity `{}` is given twice", entry.entity);
            let mistake = Mistake::new(place, message, "one entry per entity and store");
            cx.wrong(mistake.help("merge the entries, or give each its `store`"));
        }
        entries.push(entry);
    }
    entries
}

/// The entry of an entity that nobody wrote one for.
fn plain(cx: &Reading<'_>, entity: String, kafka: &KafkaSettings) -> IncomingSettings {
    IncomingSettings {
        store: None,
        scopes: cx.names.scopes(&entity),
        include: cx.names.default_includes(&entity),
        entity,
        query: BTreeMap::new(),
        path: BTreeMap::new(),
        parameters: Mapping::identity(),
        filter: None,
        transform: Mapping::identity(),
        poll: None,
        sweep: None,
        quiet: defaults::QUIET,
        max_wait: defaults::MAX_WAIT,
        confirm_gone: defaults::CONFIRM_GONE,
        suppress_unchanged: false,
        suppress_echo: false,
        second_read: Some(defaults::SECOND_READ),
        format: RecordFormat::CloudEvents,
        topic: kafka.topics.names.entity.clone(),
        key: kafka.topics.key.clone(),
        tests: Vec::new(),
    }
}

fn entry(
    cx: &mut Reading<'_>,
    section: &Section<'_>,
    kafka: &KafkaSettings,
    stores: &[StoreSettings],
) -> Option<IncomingSettings> {
    if section.get("entity").is_none() {
        section.missing(cx, "entity", "the name of an entity of the catalogue");
    }
    let entity = readable(cx, section);
    // Without an entity the rest is still read: its mistakes belong into the same report.
    let known = entity.clone().unwrap_or_default();
    let base = plain(cx, known.clone(), kafka);
    let second = Duration::from_secs(1);
    let quiet = section.duration(cx, "quiet", Duration::ZERO..=second * 600).unwrap_or(base.quiet);
    let max_wait = section.duration(cx, "max_wait", Duration::ZERO..=second * 3600);
    let max_wait = max_wait.unwrap_or_else(|| base.max_wait.max(quiet));
    if max_wait < quiet {
        let place = section.get("max_wait").or(section.get("quiet")).map_or(&section.at, |node| &node.at);
        let message =
            format!("`max_wait` {} is shorter than `quiet` {}", values::show(max_wait), values::show(quiet));
        cx.wrong(Mistake::new(place, message, "max_wait at least as long as quiet").help("raise max_wait"));
    }
    let of_topic = [Hole::Prefix, Hole::Store, Hole::Entity];
    let settings = IncomingSettings {
        store: store(cx, section, stores),
        scopes: scopes(cx, section, &base),
        include: include(cx, section, &known),
        query: pairs(cx, section, "query"),
        path: path(cx, section, &known),
        parameters: section.mapping(cx, "parameters").unwrap_or(base.parameters),
        filter: section.mapping(cx, "filter").filter(|filter| !filter.is_identity()),
        transform: section.mapping(cx, "transform").unwrap_or(base.transform),
        poll: poll(cx, section),
        sweep: sweep(cx, section),
        quiet,
        max_wait,
        confirm_gone: section
            .duration(cx, "confirm_gone", Duration::ZERO..=second * 86_400)
            .unwrap_or(base.confirm_gone),
        suppress_unchanged: section.flag(cx, "suppress_unchanged").unwrap_or(base.suppress_unchanged),
        suppress_echo: section.flag(cx, "suppress_echo").unwrap_or(base.suppress_echo),
        second_read: second_read(cx, section).unwrap_or(base.second_read),
        format: section.choice(cx, "format", &FORMATS).unwrap_or(base.format),
        topic: template(cx, section, "topic", &of_topic).unwrap_or(base.topic),
        key: key_template(cx, section).unwrap_or(base.key),
        tests: examples::read(cx, section, examples::INCOMING_KEYS),
        entity: known,
    };
    entity.map(|_| settings)
}

/// The catalogue's name of an `entity:` that can be read.
fn readable(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<String> {
    let name = entity(cx, section)?;
    if cx.names.is_readable(&name) {
        return Some(name);
    }
    let node = section.get("entity")?;
    let message = format!("`{}` is `{name}`, of which nothing can be read", section.path_of("entity"));
    let mistake = Mistake::new(&node.at, message, "an entity that the management API reads");
    cx.wrong(mistake.help(format!("`bcbridge catalog show {name}` says what it is")));
    None
}

/// The catalogue's name of `entity:`, or a note with what was probably meant.
pub(super) fn entity(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<String> {
    let node = section.get("entity")?;
    let scalar = scalar(cx, node, &section.path_of("entity"), "the name of an entity")?;
    if let Some(name) = cx.names.resolve(&scalar.text) {
        return Some(name);
    }
    let all = cx.names.all();
    let help = match closest(&scalar.text, all.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "list them with `bcbridge catalog entities`".to_owned(),
    };
    let message = format!("`{}` is {}, which is no entity", section.path_of("entity"), found(scalar, false));
    cx.wrong(Mistake::new(&node.at, message, "an entity of the catalogue").help(help));
    None
}

/// The store that an entry names, which must exist.
pub(super) fn store(cx: &mut Reading<'_>, section: &Section<'_>, stores: &[StoreSettings]) -> Option<String> {
    let name = section.text(cx, "store")?;
    if stores.iter().any(|store| store.name == name) {
        return Some(name);
    }
    let node = section.get("store")?;
    let names: Vec<&str> =
        stores.iter().map(|store| store.name.as_str()).filter(|name| !name.is_empty()).collect();
    let help = closest(&name, names.iter().copied()).map(|name| format!("did you mean `{name}`?"));
    let message = format!("`{}` names no store", section.path_of("store"));
    cx.wrong(Mistake::new(&node.at, message, names.join(", ")).help(help.unwrap_or_default()));
    None
}

fn scopes(cx: &mut Reading<'_>, section: &Section<'_>, base: &IncomingSettings) -> Vec<String> {
    let Some(patterns) = section.texts(cx, "scopes") else {
        let is_scheduled = ["poll", "sweep"].iter().any(|key| section.get(key).is_some());
        if base.scopes.is_empty() && !base.entity.is_empty() && !is_scheduled {
            cx.warnings.push(format!(
                "entity {}: it has no webhook, and neither poll nor sweep: it is read by snapshot and sync only",
                base.entity
            ));
        }
        return base.scopes.clone();
    };
    let all = cx.names.all_scopes(&base.entity);
    let mut scopes: Vec<String> = Vec::new();
    for (pattern, node) in patterns {
        let hits: Vec<String> = all.iter().filter_map(|scope| values::scope_meant(&pattern, scope)).collect();
        if hits.is_empty() && !base.entity.is_empty() {
            let message = format!("{} is no scope of entity `{}`", quoted(node), base.entity);
            let allowed =
                if all.is_empty() { "nothing: it has no webhook".to_owned() } else { all.join(", ") };
            let help = closest(&pattern, all.iter().map(String::as_str));
            let help = help.map(|scope| format!("did you mean `{scope}`?")).unwrap_or_default();
            cx.wrong(Mistake::new(&node.at, message, allowed).help(help));
        }
        for scope in hits {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
    }
    scopes
}

fn include(cx: &mut Reading<'_>, section: &Section<'_>, entity: &str) -> Vec<String> {
    let known = cx.names.includes(entity);
    let mut includes = Vec::new();
    let Some(wanted) = section.texts(cx, "include") else { return cx.names.default_includes(entity) };
    for (name, node) in wanted {
        if !known.contains(&name) && !entity.is_empty() {
            let message = format!("{} cannot be read along with entity `{entity}`", quoted(node));
            let allowed = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            let help = closest(&name, known.iter().map(String::as_str));
            let help = help.map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            cx.wrong(Mistake::new(&node.at, message, allowed).help(help));
        }
        if !includes.contains(&name) {
            includes.push(name);
        }
    }
    includes
}

/// Texts by name; a list of texts is joined with commas, as the API expects lists.
fn pairs(cx: &mut Reading<'_>, section: &Section<'_>, key: &str) -> BTreeMap<String, String> {
    let Some(node) = section.get(key) else { return BTreeMap::new() };
    let map = Section::open_any(cx, node, &section.path_of(key));
    let mut pairs = BTreeMap::new();
    for (name, node) in map.entries() {
        let value = match &node.value {
            Value::List(_) => map
                .texts(cx, &name.name)
                .map(|items| items.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(",")),
            _ => scalar(cx, node, &map.path_of(&name.name), "a text or a list of texts")
                .map(|s| s.text.clone()),
        };
        if let Some(value) = value {
            pairs.insert(name.name.clone(), value);
        }
    }
    pairs
}

/// Ids that the entity's lists begin with, by the name that their paths give them.
fn path(cx: &mut Reading<'_>, section: &Section<'_>, entity: &str) -> BTreeMap<String, String> {
    let Some(node) = section.get("path") else { return BTreeMap::new() };
    let at = section.path_of("path");
    let pairs = pairs(cx, section, "path");
    let places = cx.names.places(entity);
    let Value::Map(entries) = &node.value else { return pairs };
    for (key, node) in entries {
        let name = &key.name;
        if !places.contains(name) && !entity.is_empty() {
            let message = format!("`{at}.{name}` is in no path that lists entity `{entity}`");
            let allowed = if places.is_empty() { "nothing".to_owned() } else { places.join(", ") };
            let help = closest(name, places.iter().map(String::as_str));
            let help = help.map(|place| format!("did you mean `{place}`?")).unwrap_or_default();
            cx.wrong(Mistake::new(&key.at, message, allowed).help(help));
        }
        if let Some(Err(bad)) = pairs.get(name).map(|value| check_part(value)) {
            let message = format!("`{at}.{name}` is no id: {bad}");
            cx.wrong(Mistake::new(&node.at, message, "an id of the store"));
        }
    }
    pairs
}

/// `poll: 15m` or `poll: { every: 15m, at_start: true, full: 24h }`.
fn poll(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<PollSettings> {
    let (every, inner) = every(cx, section, "poll", POLL_KEYS)?;
    let mut poll = PollSettings { every, at_start: true, full: defaults::FULL };
    if let Some(inner) = inner {
        poll.at_start = inner.flag(cx, "at_start").unwrap_or(poll.at_start);
        poll.full = inner.duration(cx, "full", EVERY).unwrap_or(poll.full);
    }
    Some(poll)
}

/// `second_read: 60s` or `second_read: off`; the inner none is off.
#[expect(clippy::option_option, reason = "not given, and off, are two things")]
fn second_read(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<Option<Duration>> {
    let allowed = "off, or a number with ms, s, m, h or d, from 10s to 10m";
    section.parsed(cx, "second_read", allowed, |text| match text {
        "off" => Some(None),
        text => values::duration(text).filter(|wait| SECOND_READ.contains(wait)).map(Some),
    })
}

/// `sweep: 1h` or `sweep: { every: 1h, full: 24h }`.
fn sweep(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<SweepSettings> {
    let (every, inner) = every(cx, section, "sweep", SWEEP_KEYS)?;
    let full = inner.and_then(|inner| inner.duration(cx, "full", EVERY)).unwrap_or(defaults::FULL);
    Some(SweepSettings { every, full })
}

/// An interval, alone or as the key `every` of a map.
fn every<'n>(
    cx: &mut Reading<'_>,
    section: &Section<'n>,
    key: &str,
    keys: &[&str],
) -> Option<(Duration, Option<Section<'n>>)> {
    let node = section.get(key)?;
    if !matches!(node.value, Value::Map(_)) {
        return section.duration(cx, key, EVERY).map(|every| (every, None));
    }
    let inner = Section::open(cx, node, &section.path_of(key), keys);
    if inner.get("every").is_none() {
        inner.missing(cx, "every", "a time such as 15m");
    }
    // Wrong or missing is a mistake already, and must not hide those beside it.
    let every = inner.duration(cx, "every", EVERY).unwrap_or(defaults::FULL);
    Some((every, Some(inner)))
}
