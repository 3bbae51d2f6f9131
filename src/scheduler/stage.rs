//! The leader's work as the runner drives it: signals are consumed, pages become hints, and every step is settled.
//!
//! Whoever owns the only partition of the signals topic leads. Its state is what the stores' ledgers hold: each step
//! writes the new state together with what it made, so that another leader goes on from there. When the assignment is
//! over everything in memory is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::lane::{Lane, Moment};
use super::page::Page;
use super::plan::Plan;
use super::ports::{Looked, Meter, Topics, Upkeep};
use super::read::Failure;
use super::schedule::Marks;
use super::seen::Ids;
use super::signals::{self, Lanes};
use super::state::StoreState;
use crate::incoming::stage::WallClock;
use crate::model::record::{InRecord, OutRecord, Partition};
use crate::runtime::ports::{Job, Recalled, Settled, Stage, Store};

/// What the leader works with.
pub struct Deps<K, U> {
    /// The topics.
    pub topics: Arc<K>,
    /// The subscriptions.
    pub upkeep: Arc<U>,
    /// Counts.
    pub meter: Arc<dyn Meter>,
    /// Unix milliseconds.
    pub clock: WallClock,
}

/// What a job brought back, for which store.
pub struct Done {
    pub(super) store: Arc<str>,
    pub(super) what: What,
}

/// What a job brought back.
pub(super) enum What {
    /// A lane has begun.
    Anchor,
    /// A page of a scan, and when its read began.
    Page(String, i64, Result<Page, Failure>),
    /// What is published of a scan's entity.
    Known(String, Result<Arc<Ids>, String>),
    /// What is published and was not met, with the ids that were.
    Compared(String, Arc<Ids>, Result<Vec<String>, String>),
    /// How far the incoming path is behind.
    Backlog(Result<u64, String>),
    /// The subscriptions.
    Looked(Looked),
}

/// The stage. See the module's text.
pub struct Scheduler<S, K, U> {
    plan: Arc<Plan<S>>,
    deps: Deps<K, U>,
    lanes: Lanes<S>,
    leads: bool,
    wake: Option<Instant>,
}

impl<S: Store, K: Topics, U: Upkeep> Scheduler<S, K, U> {
    /// A stage that does nothing until it leads.
    pub fn new(plan: Arc<Plan<S>>, deps: Deps<K, U>) -> Self {
        Self { plan, deps, lanes: BTreeMap::new(), leads: false, wake: None }
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment { now, wall_ms: (self.deps.clock)() }
    }

    fn settle(&mut self, done: Done, at: Moment) -> Option<Settled> {
        let lane = self.lanes.get_mut(&done.store)?;
        let meter = &*self.deps.meter;
        match done.what {
            What::Anchor => Some(lane.anchored(at)),
            What::Page(id, began_ms, page) => lane.turned(&id, (began_ms, page), at, meter),
            What::Known(id, known) => {
                lane.knows(&id, known, at);
                None
            }
            What::Compared(id, met, found) => {
                lane.give_back(&id, met).then(|| lane.compared(&id, found, at, meter)).flatten()
            }
            What::Backlog(waiting) => {
                lane.sampled(waiting, at);
                None
            }
            What::Looked(looked) => Some(lane.looked(looked, at)),
        }
    }
}

impl<S: Store> Lane<S> {
    /// Writes down since when each entity is scheduled, and forgets scans of what is not configured any more.
    fn anchored(&mut self, at: Moment) -> Settled {
        let mut records: Vec<OutRecord> = Vec::new();
        for entity in self.plan.entries.keys() {
            if !self.marks.contains_key(entity) {
                let marks = Marks { anchor_ms: at.wall_ms, at_ms: at.wall_ms, ..Marks::default() };
                records.push(self.ledger.marks(entity, &marks));
                self.marks.insert(entity.clone(), marks);
            }
        }
        let is_orphan =
            |entity: &String| self.plan.entries.get(entity).is_none_or(|entry| entry.levels.is_none());
        let orphans: Vec<String> = self
            .scans
            .iter()
            .filter(|(_, active)| is_orphan(&active.saved.scan.entity))
            .map(|(id, _)| id.clone())
            .collect();
        for id in orphans {
            let pages = self.scans.remove(&id).map(|active| active.met_pages);
            records.extend(self.ledger.forget_scan(&id, pages.unwrap_or_default()));
        }
        records.extend(self.end_empty_runs(at));
        Settled { positions: Vec::new(), records }
    }
}

fn state_of(store: &str, ledger: &BTreeMap<String, Bytes>) -> StoreState {
    let mut state = StoreState::default();
    for (key, value) in ledger {
        state.restore(store, key, value);
    }
    state
}

impl<S: Store, K: Topics, U: Upkeep> Stage for Scheduler<S, K, U> {
    type Done = Done;

    fn restore(&mut self, _partition: &Partition, ledger: Recalled) {
        self.leads = true;
        for (name, store) in &self.plan.stores {
            let lane =
                Lane::new(store.clone(), self.plan.notifications.clone(), state_of(name, &ledger.values));
            self.lanes.insert(name.clone(), lane);
        }
    }

    fn accept(&mut self, record: InRecord, now: Instant) -> Vec<Settled> {
        let at = self.moment(now);
        let (records, accepted) = signals::carry_out(&mut self.lanes, &self.plan.notifications, &record, at);
        self.deps.meter.signal(accepted);
        vec![Settled { positions: vec![record.position], records }]
    }

    fn start(&mut self, now: Instant) -> Vec<Job<Done>> {
        let mut jobs = Vec::new();
        if !self.leads {
            return jobs;
        }
        let at = self.moment(now);
        for lane in self.lanes.values_mut() {
            jobs.extend(lane.start(at, &self.deps));
        }
        self.wake = self.lanes.values().filter_map(|lane| lane.wake(at)).min();
        jobs
    }

    fn finish(&mut self, done: Done, now: Instant) -> Vec<Settled> {
        let at = self.moment(now);
        self.settle(done, at).into_iter().filter(|settled| !settled.records.is_empty()).collect()
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake
    }

    fn reset(&mut self) {
        self.lanes.clear();
        self.leads = false;
        self.wake = None;
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
