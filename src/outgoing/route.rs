//! What the outgoing path is made of: its topics, the stores that they are for, and its bounds.

use std::sync::Arc;

use super::apply::Budget;
use super::decisions::{self, Decisions};
use super::decode::Fixed;
use super::settle::Topics;
use super::transform::Mapping;
use crate::catalog::Catalog;
use crate::engine::lanes;
use crate::runtime::ports::LookUp;

/// What becomes of a key whose command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The next command of the key is applied.
    #[default]
    Skip,
    /// The key's later commands wait until a person lets them go on, or drops them.
    HaltKey,
}

/// One topic of commands, and the store that they are for.
pub struct Route<S> {
    /// The topic.
    pub topic: Arc<str>,
    /// The store's name. Routes of one name share lanes' bounds, and must share the client and the topics.
    pub store: Arc<str>,
    /// The store.
    pub client: Arc<S>,
    /// Where results, dead letters and the ledger go.
    pub topics: Topics,
    /// What the topic's records are for, where they do not say it.
    pub fixed: Option<Fixed>,
    /// Which of the topic's records are commands, and how they become command objects.
    pub mapping: Mapping,
    /// What becomes of a key whose command failed.
    pub on_failure: OnFailure,
    /// Of its last 200 commands so many percent may end as dead letters before it stops; none never stops it.
    pub stop_at: Option<u8>,
    /// Commands are checked and planned, and never sent.
    pub dry_run: bool,
}

impl<S> Route<S> {
    /// Whether its records are whole commands, as they stand.
    pub(super) fn is_of_commands(&self) -> bool {
        self.fixed.is_none() && self.mapping.is_as_is()
    }
}

/// Bounds of the outgoing path.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of each store: keys that are open at the same time, and those of them whose commands are looked at before they
    /// are sent, or end without that.
    pub lanes: lanes::Limits,
    /// Of each store: requests under way at the same time, however many commands they hold.
    pub requests: usize,
    /// How long and how often a command is tried.
    pub budget: Budget,
    /// Keys that may stand still; with the last of them its route stops as a whole. What is under way then may halt more.
    pub halted_keys: usize,
}

impl Default for Limits {
    /// 32 requests, of which one endpoint has half: at a third of a second a call, 16 are the quota of the largest plan
    /// with fixed figures (450 in 30 s), three times over. 10,000 keys: five of the largest batches.
    fn default() -> Self {
        let lanes = lanes::Limits { max_parallel: 16, max_open: 10_000 };
        Self { lanes, requests: 32, budget: Budget::default(), halted_keys: decisions::MOST }
    }
}

/// What the outgoing path is made of.
pub struct OutgoingConfig<S> {
    /// The topics; each at most once.
    pub routes: Vec<Route<S>>,
    /// What can be written.
    pub catalog: Arc<Catalog>,
    /// The bounds.
    pub limits: Limits,
    /// What people decide about what stands still.
    pub decisions: Decisions,
    /// Reads single entries of the stores' ledgers.
    pub ledger: Arc<dyn LookUp>,
}
