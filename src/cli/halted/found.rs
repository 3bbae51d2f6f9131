//! What the ledgers say stands still, and how many commands wait behind it. Nothing is changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::app::topics::StoreTopics;
use crate::config::Settings;
use crate::kafka::backlog::Backlog;
use crate::kafka::ledger::Ledger;
use crate::kafka::settings::{ClientError, ClientSettings};
use crate::kafka::span::{self, Range, Span};
use crate::outgoing::halts::{self, About, Entry, EntryState};

/// How long all counting may take: a person waits for the list, and the count is the least of it.
const COUNTING: Duration = Duration::from_secs(10);

/// Something that stands still.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) store: String,
    pub(super) place: Place,
    pub(super) entry: Entry,
    /// Commands that wait behind it; none while that is not known.
    pub(super) waiting: Option<u64>,
}

/// What of a partition stands still.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A key.
    Key(Bytes),
    /// All of it: the route stopped.
    Route,
}

impl Found {
    /// What it is, in one word.
    pub(super) fn kind(&self) -> &'static str {
        match self.place {
            Place::Key(_) => "key",
            Place::Route => "route",
        }
    }

    /// The key as text.
    pub(super) fn key(&self) -> Option<String> {
        match &self.place {
            Place::Key(key) => Some(String::from_utf8_lossy(key).into_owned()),
            Place::Route => None,
        }
    }
}

/// What the ledgers say stands still: of one store, or of all.
pub(super) async fn found(
    settings: &Settings,
    client: &ClientSettings,
    store: Option<&str>,
) -> Result<Vec<Found>> {
    let partitions = i32::try_from(settings.kafka.topics.partitions)?;
    let mut all = Vec::new();
    let names = settings.stores.iter().map(|store| &store.name);
    for name in names.filter(|name| store.is_none_or(|wanted| wanted == *name)) {
        let ledger = Ledger::new(client.clone(), StoreTopics::of(settings, name).ledger, partitions);
        let entries: Arc<Mutex<BTreeMap<String, Bytes>>> = Arc::default();
        let taken = entries.clone();
        let read = ledger.read(move |record| {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            let Some(key) = key.filter(|key| key.starts_with(halts::KEY_PREFIX)) else { return };
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            match record.value {
                Some(value) => taken.insert(key.to_owned(), value),
                None => taken.remove(key),
            };
        });
        read.await.with_context(|| format!("reading the ledger of {name}"))?;
        let entries = std::mem::take(&mut *entries.lock().unwrap_or_else(PoisonError::into_inner));
        all.extend(entries.iter().filter_map(|(key, value)| standing(name, key, value)));
    }
    Ok(all)
}

/// What stands still by an entry of a store's ledger.
fn standing(store: &str, key: &str, value: &[u8]) -> Option<Found> {
    let entry: Entry = serde_json::from_slice(value).ok()?;
    let place = match halts::about(key)? {
        About::Key(_, key) => Place::Key(key),
        About::Route(_) => Place::Route,
    };
    let store = store.to_owned();
    (entry.state == EntryState::Halted).then_some(Found { store, place, entry, waiting: None })
}

/// Counts what waits, as far as the topics tell in time: of a key its records behind the failed one, of a route what
/// is not settled of its partition.
pub(super) async fn count_waiting(settings: &Settings, client: &ClientSettings, all: &mut [Found]) {
    let until = Instant::now() + COUNTING;
    for found in all.iter_mut().filter(|found| found.place == Place::Route) {
        let group = format!("{}.{}.outgoing", settings.kafka.prefix, found.store);
        let topic = found.entry.topic.as_str().into();
        let Ok(backlog) = Backlog::new(client, &group, topic, 0) else { continue };
        let counted = timeout_at(until, backlog.records_of(found.entry.partition)).await;
        found.waiting = counted.ok().and_then(Result::ok);
    }
    let mut keys: BTreeMap<String, Vec<&mut Found>> = BTreeMap::new();
    for found in all.iter_mut().filter(|found| found.place != Place::Route) {
        keys.entry(found.entry.topic.clone()).or_default().push(found);
    }
    for (topic, mut keys) in keys {
        // What was not read to the end is not known.
        if let Ok(Ok(counts)) = timeout_at(until, counts(client, &topic, &keys)).await {
            keys.iter_mut().zip(counts).for_each(|(found, count)| found.waiting = Some(count));
        }
    }
}

/// For each key, its records behind the failed one.
async fn counts(client: &ClientSettings, topic: &str, keys: &[&mut Found]) -> Result<Vec<u64>, ClientError> {
    let mut ranges: BTreeMap<i32, Range> = BTreeMap::new();
    for (partition, extent) in span::extent(client, topic).await? {
        let of_it = keys.iter().filter(|found| found.entry.partition == partition);
        if let Some(first) = of_it.map(|found| found.entry.offset + 1).min() {
            ranges.insert(partition, Range { from: first.max(extent.from), to: extent.to });
        }
    }
    let mut places: BTreeMap<(i32, &[u8]), (usize, i64)> = BTreeMap::new();
    for (index, found) in keys.iter().enumerate() {
        if let Place::Key(key) = &found.place {
            places.insert((found.entry.partition, key), (index, found.entry.offset));
        }
    }
    let mut counts = vec![0; keys.len()];
    let mut span = Span::open(client, topic, &ranges).await?;
    while let Some(record) = span.next().await? {
        let key = (record.position.partition.number, record.key.as_deref().unwrap_or_default());
        if let Some((index, failed)) = places.get(&key) {
            counts[*index] += u64::from(record.position.offset > *failed);
        }
    }
    Ok(counts)
}
