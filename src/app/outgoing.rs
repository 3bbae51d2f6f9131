//! The outgoing path of a store, from its settings to a stage.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;

use super::load::Load;
use super::topics::StoreTopics;
use crate::bigcommerce::StoreClient;
use crate::config::{self, OutgoingSettings, Route as RouteKind, StoreSettings};
use crate::kafka::append::IntakeProducer;
use crate::kafka::look_up::LedgerEntries;
use crate::outgoing::notes::{self, Intake, Noted};
use crate::outgoing::{
    Decisions, Fixed, Limits, Mapping, OnFailure, Outgoing, OutgoingConfig, Route, To, Topics,
};
use crate::telemetry::{Clock, SystemClock};

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
    appender: Arc<IntakeProducer>,
    (decisions, ledger): (Decisions, LedgerEntries),
) -> Result<Path> {
    let topics = StoreTopics::of(&load.settings, &store.name);
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
            mapping: mapping(entry),
            on_failure: match entry.on_failure {
                config::OnFailure::Skip => OnFailure::Skip,
                config::OnFailure::HaltKey => OnFailure::HaltKey,
            },
            stop_at: entry.stop_at,
            dry_run: entry.dry_run,
        })
        .collect();
    let consumed = routes.iter().map(|route| route.topic.to_string()).collect();
    let (catalog, limits) = (load.catalog.clone(), Limits::default());
    let config = OutgoingConfig { routes, catalog, limits, decisions, ledger: Arc::new(ledger) };
    let mut stage = Outgoing::new(config, appender.clone(), Arc::new(|| SystemClock.wall_ms()));
    let published = load.settings.incoming_of(&store.name).map(|entry| entry.entity.clone()).collect();
    let (noted, waiting) = Noted::new(store.name.as_str().into(), published);
    stage.note(store.name.as_str().into(), noted);
    let intake = Intake { topic: topics.intake.clone(), partitions: out.ledger_partitions };
    let notes = async move {
        // A note races its callback: the first one should not wait until the brokers tell where partitions are.
        if let Err(error) = appender.warm(vec![intake.topic.to_string()]).await {
            tracing::debug!(%error, "the first note may be late");
        }
        notes::append(waiting, intake, appender).await;
    };
    Ok(Path { stage, consumed, notes: Box::pin(notes) })
}

/// What the records of a topic leave out.
pub(crate) fn fixed(entry: &OutgoingSettings) -> Option<Fixed> {
    match &entry.route {
        RouteKind::Commands => None,
        RouteKind::Mapped { entity, action } => {
            Some(Fixed { entity: entity.clone(), action: action.clone() })
        }
    }
}

/// How the records of a topic become commands.
pub(crate) fn mapping(entry: &OutgoingSettings) -> Mapping {
    let to = if !entry.parts.is_empty() {
        To::Parts(entry.parts.clone())
    } else if entry.transform.is_identity() {
        To::AsIs
    } else {
        To::Object(entry.transform.clone())
    };
    Mapping { filter: entry.filter.clone(), to }
}
