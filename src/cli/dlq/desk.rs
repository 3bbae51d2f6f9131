//! What all commands about dead letters need: the settings, the stores that are meant, and their topics read.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::args::{Chosen, FilterArgs};
use crate::app::topics::StoreTopics;
use crate::app::{Cluster, signals};
use crate::catalog::Catalog;
use crate::cli::{ConfigArg, store};
use crate::config::{Route, Settings};
use crate::kafka::append::IntakeProducer;
use crate::kafka::settings::ClientSettings;
use crate::kafka::span::{self, Range, Span};
use crate::model::letter::Letter;
use crate::model::record::{InRecord, OutRecord};
use crate::model::signal::{Kind, Notification};

/// How long a topic may take to acknowledge.
pub(super) const APPEND_DEADLINE: Duration = Duration::from_secs(10);

/// The settings, and the cluster that they name.
pub(super) struct Desk {
    pub(super) client: ClientSettings,
    pub(super) catalog: Catalog,
    settings: Settings,
    /// Keeps the cluster's clients together.
    _cluster: Cluster,
}

/// A store that is meant.
pub(super) struct Store {
    pub(super) name: String,
    pub(super) topics: StoreTopics,
}

impl Desk {
    /// Loads the settings; mistakes are printed and become the exit code.
    pub(super) async fn open(config: &ConfigArg) -> Result<Result<Self, ExitCode>> {
        let settings = match store::load(config) {
            Ok(settings) => settings,
            Err(code) => return Ok(Err(code)),
        };
        store::needs_a_cluster(&settings)?;
        let catalog = Catalog::embedded()?.with_rows(&settings.catalog)?;
        let cluster = Cluster::reach(&settings, None, None).await?;
        Ok(Ok(Self { client: cluster.client.clone(), catalog, settings, _cluster: cluster }))
    }

    /// The stores that are meant: the one named, else all.
    pub(super) fn stores(&self, named: Option<&str>) -> Result<Vec<Store>> {
        let names = match named {
            Some(name) => vec![signals::store(&self.settings, Some(name))?],
            None => self.settings.stores.iter().map(|store| store.name.clone()).collect(),
        };
        let store = |name: String| Store { topics: StoreTopics::of(&self.settings, &name), name };
        Ok(names.into_iter().map(store).collect())
    }

    /// What is known of a letter, with the settings' word for what its topic is about.
    pub(super) fn letter(&self, record: &InRecord) -> Letter {
        let mut letter = Letter::read(record);
        let topic = letter.origin_topic.as_deref();
        let entry = self.settings.outgoing.iter().find(|entry| Some(entry.topic.as_str()) == topic);
        if let Some(Route::Mapped { entity, action }) = entry.map(|entry| &entry.route) {
            (letter.entity, letter.action) = (Some(entity.clone()), Some(action.clone()));
        }
        if let Some(known) = letter.entity.as_deref().and_then(|entity| self.catalog.entity(entity)) {
            letter.entity = Some(known.name.clone());
        }
        letter
    }

    /// Where the store's letters are.
    pub(super) async fn extent(&self, store: &Store) -> Result<BTreeMap<i32, Range>> {
        let topic = &store.topics.dead_letters;
        let extent = span::extent(&self.client, topic).await?;
        if extent.is_empty() {
            bail!(
                "there is no topic {topic}; a bridge makes it when it starts: are kafka.prefix and the store right?"
            );
        }
        Ok(extent)
    }

    /// Shows each letter in these ranges that is meant to `each`, with its record.
    pub(super) async fn read(
        &self,
        store: &Store,
        ranges: &BTreeMap<i32, Range>,
        mut each: impl FnMut(Letter, InRecord) -> Result<()>,
    ) -> Result<()> {
        let mut span = Span::open(&self.client, &store.topics.dead_letters, ranges).await?;
        while let Some(record) = span.next().await? {
            each(self.letter(&record), record)?;
        }
        Ok(())
    }

    /// Shows each letter of the store that is meant to `each`.
    pub(super) async fn read_chosen(
        &self,
        store: &Store,
        chosen: &Chosen,
        mut each: impl FnMut(Letter) -> Result<()>,
    ) -> Result<()> {
        let extent = chosen.narrowed(self.extent(store).await?);
        self.read(store, &extent, |letter, record| {
            if chosen.covers(&store.name, &letter, &record)? { each(letter) } else { Ok(()) }
        })
        .await
    }

    /// Leaves a note of what is done, for whoever audits it.
    pub(super) async fn note(&self, store: &Store, note: Note) -> Result<()> {
        let Note { id, kind, rows, total, detail } = note;
        let bare = Notification::new(id, kind, Some(&store.name), Timestamp::now());
        let told = Notification { rows, total: Some(total), detail: Some(detail), ..bare };
        let topic = signals::notifications_topic(&self.settings);
        let record = OutRecord {
            topic: Arc::clone(&topic),
            partition: None,
            key: Some(Bytes::from(told.key())),
            value: Some(Bytes::from(serde_json::to_vec(&told)?)),
            headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
            timestamp_ms: None,
        };
        let producer = IntakeProducer::new(self.client.clone(), APPEND_DEADLINE)?;
        let written = producer.append(vec![record], APPEND_DEADLINE).await;
        written.with_context(|| format!("leaving a note of it on {topic}"))
    }
}

/// What is noted of an act.
pub(super) struct Note {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) rows: u64,
    pub(super) total: u64,
    pub(super) detail: String,
}

impl Chosen {
    /// The ranges without what no letter that is meant can stand in.
    pub(super) fn narrowed(&self, mut ranges: BTreeMap<i32, Range>) -> BTreeMap<i32, Range> {
        let places = &self.filter.places;
        if !places.is_empty() {
            ranges.retain(|partition, range| {
                let offsets = || places.iter().filter(|(p, _)| p == partition).map(|(_, offset)| *offset);
                range.from = offsets().min().unwrap_or(i64::MAX).max(range.from);
                range.to = offsets().max().map_or(i64::MIN, |last| last.saturating_add(1)).min(range.to);
                range.from < range.to
            });
        }
        ranges
    }

    /// Whether a letter is meant.
    pub(super) fn covers(&self, store: &str, letter: &Letter, record: &InRecord) -> Result<bool> {
        let Some(condition) = self.condition.as_ref() else { return Ok(self.filter.covers(letter)) };
        if !self.filter.covers(letter) {
            return Ok(false);
        }
        let mut whole = described(store, letter);
        let value = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        whole["value"] = value.unwrap_or(Value::Null);
        let headers = record.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into()));
        whole["headers"] = Value::Object(headers.collect::<Map<_, _>>());
        let (partition, offset) = (letter.position.partition.number, letter.position.offset);
        condition.test(&whole).with_context(|| format!("--where fails on the letter {partition}/{offset}"))
    }
}

/// What the conditions are, for a note: without values that may be customers' data.
pub(super) fn conditions(args: &FilterArgs, chosen: &Chosen) -> String {
    let filter = &chosen.filter;
    let mut words = Vec::new();
    let mut list = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            words.push(format!("{name} {}", items.join(" ")));
        }
    };
    list("--reason", filter.reasons.clone());
    list("--status", filter.statuses.iter().map(ToString::to_string).collect());
    list("--entity", filter.entities.clone());
    list("--topic", filter.topics.clone());
    list("--since", filter.since_ms.map(time).into_iter().collect());
    list("--until", filter.until_ms.map(time).into_iter().collect());
    let places = filter.places.iter().take(20).map(|(partition, offset)| format!("{partition}/{offset}"));
    list("--offset", places.collect());
    for name in args.given().into_iter().filter(|name| ["--key", "--where"].contains(name)) {
        words.push(format!("{name} ***"));
    }
    if words.is_empty() { "--all".to_owned() } else { words.join(" ") }
}

/// A moment as RFC 3339, to the second.
pub(super) fn time(at_ms: i64) -> String {
    Timestamp::from_second(at_ms.div_euclid(1000)).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

/// A key as text, or in hexadecimal where it is none.
pub(super) fn key(letter: &Letter) -> Option<String> {
    let key = letter.key.as_deref()?;
    Some(match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("0x{}", hex(key)),
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A letter for programs.
pub(super) fn described(store: &str, letter: &Letter) -> Value {
    let origin = letter.origin.as_ref();
    json!({
        "store": store,
        "partition": letter.position.partition.number,
        "offset": letter.position.offset,
        "at": time(letter.at_ms),
        "reason": letter.reason,
        "status": letter.status,
        "entity": letter.entity,
        "action": letter.action,
        "scope": letter.scope,
        "key": key(letter),
        "origin": {
            "topic": letter.origin_topic,
            "partition": origin.map(|origin| origin.partition.number),
            "offset": origin.map(|origin| origin.offset),
        },
        "attempts": letter.attempts,
        "replays": letter.replays,
        "first_seen": letter.first_seen_ms.map(time),
        "request_id": letter.request_id,
        "bytes": letter.bytes,
    })
}
