//! Counts of the paths, as metrics.

use std::sync::Arc;
use std::time::Duration;

use super::health::{Health, PartState};
use crate::bigcommerce::StoreClient;
use crate::incoming::meter::{Meter, Suppressed};
use crate::model::dead_letter;
use crate::model::hint::Op;
use crate::model::reason::Reason;
use crate::model::record::OutRecord;
use crate::outgoing;
use crate::runtime::runner::Watch;
use crate::telemetry::Metrics;

/// Feeds the incoming path's counts into the metrics.
pub(super) struct IncomingMeter(pub(super) Metrics);

impl Meter for IncomingMeter {
    fn published(&self, entity: &str, op: Op, hints: usize, latency: Option<Duration>) {
        self.0.hydrated(entity, op.code());
        self.0.hints("published", hints);
        if let Some(latency) = latency {
            self.0.hydration_latency(latency);
        }
    }

    fn repaired(&self, store: &str, entity: &str, records: usize) {
        self.0.sweep_repaired(store, entity, records);
    }

    fn suppressed(&self, _entity: &str, why: Suppressed, hints: usize) {
        self.0.hints(why.name(), hints);
    }

    fn dead_letter(&self, _reason: Reason, hints: usize) {
        self.0.hints("dead_letter", hints);
    }

    fn retried(&self, entity: &str) {
        self.0.reread(entity);
    }
}

/// Watches a runner: its metrics, and whether it is ready.
pub(super) struct RunnerWatch {
    /// Where counts go.
    metrics: Metrics,
    health: Health,
    store: Arc<str>,
    path: &'static str,
    /// Records in hand, as told last.
    open: i64,
    /// Whose budget goes by the part of the partitions that is ours, and how many there are.
    shared: Option<(Arc<StoreClient>, usize)>,
}

impl RunnerWatch {
    /// Watches the `path`, `incoming` or `outgoing`, of a store.
    pub(super) fn new(metrics: Metrics, health: Health, store: Arc<str>, path: &'static str) -> Self {
        Self { metrics, health, store, path, open: 0, shared: None }
    }

    /// Replicas share the store's quota as they share the `all` partitions of its intake.
    pub(super) fn sharing(mut self, client: Arc<StoreClient>, all: usize) -> Self {
        self.shared = Some((client, all));
        self
    }
}

impl Drop for RunnerWatch {
    fn drop(&mut self) {
        self.health.open(&self.metrics, self.path, self.open, 0);
    }
}

impl Watch for RunnerWatch {
    fn revoked(&mut self) {
        self.health.set(&self.store, self.path, PartState::Waiting);
    }

    fn assigned(&mut self, partitions: usize) {
        // Without partitions it stands by, which is as well as it can be.
        self.health.set(&self.store, self.path, PartState::Up);
        // Without a partition little is read here; what there is, such as commands, goes by an equal share.
        if let Some((client, all)) = &self.shared {
            let ours = partitions.max(1);
            let peers = u32::try_from(all.div_ceil(ours)).unwrap_or(u32::MAX);
            client.set_peers(ours as f64 / *all as f64, peers);
        }
    }

    fn open(&mut self, records: usize) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.health.open(&self.metrics, self.path, self.open, records);
        self.open = records;
    }

    fn transaction(&mut self, committed: bool, records: &[OutRecord], _took: Duration) {
        if !committed {
            self.metrics.transaction_aborted();
            return;
        }
        self.metrics.transaction_committed();
        // Counted when they are committed, and so once: what a result and a dead letter say of themselves.
        for record in records {
            if let Some(outcome) = header(record, outgoing::header::OUTCOME) {
                self.metrics.command(outcome);
            }
            if let Some(reason) = header(record, dead_letter::header::REASON) {
                self.metrics.dead_letter(reason);
            }
        }
    }
}

fn header<'a>(record: &'a OutRecord, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(found, _)| found == name)?;
    std::str::from_utf8(value).ok()
}
