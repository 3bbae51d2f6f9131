//! What the incoming path counts. Labels come from closed sets: the catalogue's entities, the reasons.

use std::time::Duration;

use crate::model::hint::Op;
use crate::model::reason::Reason;

/// Takes the counts of the path; one implementation feeds the metrics, tests use `()`.
pub trait Meter: Send + Sync {
    /// A record was settled for publication; `latency` runs from the first hint's reception.
    fn published(&self, entity: &str, op: Op, hints: usize, latency: Duration);
    /// Hints ended without a record.
    fn suppressed(&self, entity: &str, why: Suppressed, hints: usize);
    /// Hints ended as a dead letter.
    fn dead_letter(&self, reason: Reason, hints: usize);
    /// A read must be tried again.
    fn retried(&self, entity: &str);
}

/// Why a hint ended without a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suppressed {
    /// Its event is in a committed record already.
    Duplicate,
    /// The entity is not configured.
    NotConfigured,
    /// The filter said no.
    Filtered,
    /// A read of a group brought no row that was meant.
    NoRow,
}

impl Suppressed {
    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::NotConfigured => "not_configured",
            Self::Filtered => "filtered",
            Self::NoRow => "no_row",
        }
    }
}

impl Meter for () {
    fn published(&self, _: &str, _: Op, _: usize, _: Duration) {}
    fn suppressed(&self, _: &str, _: Suppressed, _: usize) {}
    fn dead_letter(&self, _: Reason, _: usize) {}
    fn retried(&self, _: &str) {}
}
