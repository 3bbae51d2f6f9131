//! What the incoming path counts. Labels come from closed sets: the catalogue's entities, the reasons.

use std::time::Duration;

use crate::model::hint::Op;
use crate::model::reason::Reason;

/// Takes the counts of the path; one implementation feeds the metrics, tests use `()`.
pub trait Meter: Send + Sync {
    /// A record was settled for publication; `latency` runs from the reception of the first callback, if there is
    /// one among the hints.
    fn published(&self, entity: &str, op: Op, hints: usize, latency: Option<Duration>);
    /// Hints ended without a record.
    fn suppressed(&self, entity: &str, why: Suppressed, hints: usize);
    /// Hints ended as a dead letter.
    fn dead_letter(&self, reason: Reason, hints: usize);
    /// A sweep found so many records missing or wrong that no callback had announced.
    fn repaired(&self, store: &str, entity: &str, records: usize);
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
    /// What was read is what was published.
    Unchanged,
    /// The bridge wrote it, and the entity's settings leave that out.
    Echo,
    /// A read that is at least as new was published.
    Superseded,
    /// The ids of its entities were found: it became hints of theirs.
    Resolved,
    /// No entity was found that it could be about.
    Unresolved,
}

impl Suppressed {
    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::NotConfigured => "not_configured",
            Self::Filtered => "filtered",
            Self::NoRow => "no_row",
            Self::Unchanged => "unchanged",
            Self::Echo => "echo",
            Self::Superseded => "superseded",
            Self::Resolved => "resolved",
            Self::Unresolved => "unresolved",
        }
    }
}

impl Meter for () {
    fn published(&self, _: &str, _: Op, _: usize, _: Option<Duration>) {}
    fn repaired(&self, _: &str, _: &str, _: usize) {}
    fn suppressed(&self, _: &str, _: Suppressed, _: usize) {}
    fn dead_letter(&self, _: Reason, _: usize) {}
    fn retried(&self, _: &str) {}
}
