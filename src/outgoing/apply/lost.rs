//! A command whose id came before and ended, though nothing tells how any more: its ledger was deleted, or another id has
//! the same hash.
//!
//! Pure. It may have been applied, so it counts as one in doubt: what is idempotent is sent, what has a natural key is
//! looked for first. What has none must not be begun at all.

use super::{Applying, Budget};
use crate::outgoing::plan::Plan;

impl Applying {
    /// One in doubt, whose intent is not durable: it must be, before anything is sent.
    pub(in crate::outgoing) fn lost(plan: Plan, budget: Budget) -> Self {
        let is_meant = Self::new(plan.clone(), budget, false).is_meant;
        Self { is_meant, ..Self::new(plan, budget, true) }
    }
}
