//! The incoming path of a store, from its settings to a running loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::topics::{StoreTopics, entity_topic};
use crate::catalog::Catalog;
use crate::config::{Fill, IncomingSettings, RecordFormat, Settings, StoreSettings};
use crate::incoming::coalesce::Windows;
use crate::incoming::settings::{EntitySettings, Format, Mapping, StoreSettings as IncomingStore};
use crate::transform;

/// Room for key and headers below a broker's default of 1,048,588 bytes for a batch.
const MAX_RECORD_BYTES: usize = 1_000_000;

/// What the incoming path of a store needs to know.
pub(super) fn settings(
    settings: &Settings,
    store: &StoreSettings,
    catalog: &Catalog,
    topics: &StoreTopics,
) -> IncomingStore {
    let entities: BTreeMap<String, Arc<EntitySettings>> = settings
        .incoming_of(&store.name)
        .filter_map(|entry| Some((entry.entity.clone(), Arc::new(entity(settings, store, entry, catalog)?))))
        .collect();
    let max_record_bytes = settings
        .kafka
        .properties
        .get("message.max.bytes")
        .and_then(|value| secrecy::ExposeSecret::expose_secret(value).parse::<usize>().ok())
        .map_or(MAX_RECORD_BYTES, |bytes| bytes.saturating_sub(32 << 10));
    IncomingStore {
        name: store.name.as_str().into(),
        hash: store.store_hash.as_str().into(),
        entities,
        intake: topics.intake.clone(),
        dead_letters: topics.dead_letters.clone(),
        ledger: topics.ledger.clone(),
        max_record_bytes,
    }
}

/// None for what cannot be read, and so not be published.
fn entity(
    settings: &Settings,
    store: &StoreSettings,
    entry: &IncomingSettings,
    catalog: &Catalog,
) -> Option<EntitySettings> {
    let row = catalog.entity(&entry.entity).filter(|row| row.is_readable())?.clone();
    let (template, prefix, name) = (entry.key.clone(), settings.kafka.prefix.clone(), store.name.clone());
    let entity = entry.entity.clone();
    let key = move |id: &str| template.render(Fill { prefix: &prefix, store: &name, entity: &entity, id });
    Some(EntitySettings {
        topic: entity_topic(settings, &store.name, &entry.entity, &entry.topic),
        key: Arc::new(key),
        include: entry.include.clone(),
        query: entry.query.clone(),
        windows: Windows { quiet: entry.quiet, max_wait: entry.max_wait },
        confirm_gone: entry.confirm_gone,
        suppress_unchanged: entry.suppress_unchanged,
        suppress_echo: entry.suppress_echo,
        second_read: entry.second_read,
        format: match entry.format {
            RecordFormat::CloudEvents => Format::CloudEvents,
            RecordFormat::CloudEventsStructured => Format::CloudEventsStructured,
            RecordFormat::Envelope => Format::Envelope,
        },
        parameters: mapping(Some(&entry.parameters)),
        filter: mapping(entry.filter.as_ref()),
        transform: mapping(Some(&entry.transform)),
        row,
    })
}

/// A jq expression as the path takes it; none where it changes nothing.
pub fn mapping(mapping: Option<&transform::Mapping>) -> Option<Mapping> {
    let mapping = mapping.filter(|mapping| !mapping.is_identity())?.clone();
    Some(Arc::new(move |value: &Value| mapping.run(value).map_err(|e| e.to_string())))
}
