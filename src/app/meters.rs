//! Counts of the paths, as metrics.

use std::time::Duration;

use crate::incoming::meter::{Meter, Suppressed};
use crate::model::dead_letter;
use crate::model::hint::Op;
use crate::model::reason::Reason;
use crate::model::record::OutRecord;
use crate::outgoing;
use crate::runtime::runner::Watch;
use crate::telemetry::{Metrics, ReadyFlag};

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
    pub(super) metrics: Metrics,
    /// The path, `incoming` or `outgoing`.
    pub(super) path: &'static str,
    /// Ready while partitions are assigned.
    pub(super) ready: ReadyFlag,
}

impl Watch for RunnerWatch {
    fn assigned(&mut self, partitions: usize) {
        if partitions > 0 {
            self.ready.ready();
        } else {
            self.ready.not_ready();
        }
    }

    fn open(&mut self, records: usize) {
        self.metrics.open_records(self.path, records as u64);
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
