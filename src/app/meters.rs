//! Counts of the paths, as metrics.

use std::time::Duration;

use crate::incoming::meter::{Meter, Suppressed};
use crate::model::hint::Op;
use crate::model::reason::Reason;
use crate::runtime::runner::Watch;
use crate::telemetry::{Metrics, ReadyFlag};

/// Feeds the incoming path's counts into the metrics.
pub struct IncomingMeter(pub Metrics);

impl Meter for IncomingMeter {
    fn published(&self, entity: &str, op: Op, hints: usize, latency: Duration) {
        self.0.hydrated(entity, op.code());
        self.0.hints("published", hints);
        self.0.hydration_latency(latency);
    }

    fn suppressed(&self, _entity: &str, why: Suppressed, hints: usize) {
        self.0.hints(why.name(), hints);
    }

    fn dead_letter(&self, reason: Reason, hints: usize) {
        self.0.hints("dead_letter", hints);
        for _ in 0..hints {
            self.0.dead_letter(reason.name());
        }
    }

    fn retried(&self, entity: &str) {
        self.0.reread(entity);
    }
}

/// Watches a runner: its metrics, and whether it is ready.
pub struct RunnerWatch {
    /// Where counts go.
    pub metrics: Metrics,
    /// The path, `incoming` or `outgoing`.
    pub path: &'static str,
    /// Ready while partitions are assigned.
    pub ready: ReadyFlag,
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

    fn transaction(&mut self, committed: bool, _records: usize, _took: Duration) {
        if committed {
            self.metrics.transaction_committed();
        } else {
            self.metrics.transaction_aborted();
        }
    }
}
