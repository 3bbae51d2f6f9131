//! The outgoing path of a store, from its settings to a stage.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::Load;
use super::topics::StoreTopics;
use crate::bigcommerce::StoreClient;
use crate::config::{OutgoingSettings, Route as RouteKind, StoreSettings};
use crate::kafka::append::IntakeProducer;
use crate::model::record::InRecord;
use crate::outgoing::notes::{self, Intake, Noted};
use crate::outgoing::{Filter, Fixed, Limits, Mapping, OnFailure, Outgoing, OutgoingConfig, Route, Topics};
use crate::telemetry::{Clock, SystemClock};
use crate::transform;

/// What the outgoing path of a store is made of.
pub(super) struct Path {
    pub(super) stage: Outgoing<StoreClient, IntakeProducer>,
    /// The topics that it consumes.
    pub(super) consumed: Vec<String>,
    /// Appends notes of what it writes, until it is dropped.
    pub(super) notes: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The outgoing path of a store.
pub(super) fn path(
    load: &Load,
    store: &StoreSettings,
    client: &Arc<StoreClient>,
    topics: &StoreTopics,
    appender: Arc<IntakeProducer>,
) -> Result<Path> {
    let out = Topics {
        results: topics.results.clone(),
        dlq: topics.dead_letters.clone(),
        ledger: topics.ledger.clone(),
        ledger_partitions: i32::try_from(load.settings.kafka.topics.partitions)?,
    };
    let routes: Vec<Route<StoreClient>> = load
        .settings
        .outgoing
        .iter()
        .filter(|entry| entry.store == store.name)
        .map(|entry| Route {
            topic: entry.topic.as_str().into(),
            store: store.name.as_str().into(),
            client: client.clone(),
            topics: out.clone(),
            fixed: fixed(entry),
            filter: entry.filter.as_ref().map(filter),
            mapping: mapping(&entry.transform),
            on_failure: OnFailure::Skip,
            dry_run: entry.dry_run,
        })
        .collect();
    let consumed = routes.iter().map(|route| route.topic.to_string()).collect();
    let config = OutgoingConfig { routes, catalog: load.catalog.clone(), limits: Limits::default() };
    let mut stage = Outgoing::new(config, appender.clone(), Arc::new(|| SystemClock.wall_ms()));
    let published = load.settings.incoming_of(&store.name).map(|entry| entry.entity.clone()).collect();
    let (noted, waiting) = Noted::new(store.name.as_str().into(), published);
    stage.note(store.name.as_str().into(), noted);
    let intake = Intake { topic: topics.intake.clone(), partitions: out.ledger_partitions };
    Ok(Path { stage, consumed, notes: Box::pin(notes::append(waiting, intake, appender)) })
}

fn fixed(entry: &OutgoingSettings) -> Option<Fixed> {
    match &entry.route {
        RouteKind::Commands => None,
        RouteKind::Mapped { entity, action } => {
            Some(Fixed { entity: entity.clone(), action: action.clone() })
        }
    }
}

/// Which records are commands. One that is no JSON passes: decoding says what is wrong with it.
fn filter(filter: &transform::Mapping) -> Arc<Filter> {
    let filter = filter.clone();
    Arc::new(move |record: &InRecord| {
        let Ok(value) = serde_json::from_slice(record.value.as_deref().unwrap_or(b"null")) else {
            return Ok(true);
        };
        let answer = filter.run(&value).map_err(|e| format!("the filter failed: {e}"))?;
        Ok(!matches!(answer, Value::Null | Value::Bool(false)))
    })
}

/// The mapping of a record's value to a command; none where it changes nothing.
fn mapping(transform: &transform::Mapping) -> Option<Arc<Mapping>> {
    if transform.is_identity() {
        return None;
    }
    let transform = transform.clone();
    Some(Arc::new(move |record: &InRecord| {
        let value: Value = match record.value.as_deref() {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|e| format!("the value is not JSON: {e}"))?
            }
            None => json!(null),
        };
        transform.run(&value).map_err(|e| e.to_string())
    }))
}
