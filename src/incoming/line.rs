//! One entity of one store: what is gathered and read of it, and how long it pauses. Pure.
//!
//! A line runs a bounded number of reads at once and spaces its lists, so that a burst fills few of them. After
//! trouble it pauses for longer and longer, whatever the other lines do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coalesce::{Coalescer, Gathering};
use super::plan::{self, Plan};
use super::settings::EntitySettings;
use crate::model::ids::EntityId;

/// Lists of one entity that are read at once. While two are under way, the next batch grows.
const MAX_LISTS: usize = 2;
/// Single entities of one kind that are read at once, where no list exists.
const MAX_SINGLES: usize = 8;
/// First and longest pause of an entity whose reads fail: BigCommerce asks for patience after a 5xx.
pub(super) const TROUBLE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What is gathered, read and waited for of one entity.
pub(super) struct Line {
    pub(super) settings: Arc<EntitySettings>,
    pub(super) coalescer: Coalescer,
    pub(super) reading: BTreeMap<EntityId, Gathering>,
    pub(super) running: usize,
    /// No list starts before this, so that it fills.
    open_at: Option<Instant>,
    /// No job starts before this, after trouble.
    pub(super) paused_until: Option<Instant>,
    /// Troubles in a row.
    troubles: u32,
    /// Since when every read failed.
    failing_since: Option<Instant>,
}

/// A pause after trouble.
pub(super) struct Paused {
    /// No read starts before this.
    pub(super) until: Instant,
    /// It was not paused before: one failed list is one trouble, however many entities it was about.
    pub(super) is_first: bool,
    /// How long every read has failed by now.
    pub(super) failing_for: Duration,
}

impl Line {
    /// Nothing gathered yet.
    pub(super) fn new(settings: Arc<EntitySettings>) -> Self {
        Self {
            coalescer: Coalescer::new(settings.windows),
            settings,
            reading: BTreeMap::new(),
            running: 0,
            open_at: None,
            paused_until: None,
            troubles: 0,
            failing_since: None,
        }
    }

    /// A read brought something: troubles are over.
    pub(super) fn is_well(&mut self) {
        self.troubles = 0;
        self.failing_since = None;
    }

    /// A read failed: pauses for longer each time, and at least as long as the reply asked.
    pub(super) fn pause(&mut self, asked: Duration, now: Instant) -> Paused {
        let since = *self.failing_since.get_or_insert(now);
        let paused = self.paused_until.filter(|until| *until > now);
        let grown = TROUBLE.0.saturating_mul(1 << self.troubles.min(7)).min(TROUBLE.1);
        let pause = if paused.is_some() { asked } else { grown.max(asked) };
        let until = paused.map_or(now + pause, |until| until.max(now + pause));
        self.paused_until = Some(until);
        self.troubles += u32::from(paused.is_none());
        Paused { until, is_first: paused.is_none(), failing_for: now.duration_since(since) }
    }

    /// Forgets what is gathered and read.
    pub(super) fn clear(&mut self) {
        self.coalescer.clear();
        self.reading.clear();
        self.running = 0;
    }

    fn most_running(&self) -> usize {
        if self.settings.row.read.many.is_some() { MAX_LISTS } else { MAX_SINGLES }
    }

    /// What one more job should read now; its gatherings move to `reading`.
    pub(super) fn next(&mut self, now: Instant) -> Option<Plan> {
        if self.running >= self.most_running() || self.opens_at().is_some_and(|at| at > now) {
            return None;
        }
        let was_missing = |id: &EntityId| self.coalescer.was_missing(id);
        let plan = plan::choose(&self.settings, self.coalescer.due(now), was_missing)?;
        for id in plan.ids() {
            let gathering = self.coalescer.take(id).expect("what is due can be taken");
            self.reading.insert(id.clone(), gathering);
        }
        self.running += 1;
        // Lists are spaced by the quiet window, so that a burst fills few of them; a full one needs no company.
        if let Plan::Many(ids) = &plan
            && ids.len() < plan::most_in_one(&self.settings)
        {
            self.open_at = Some(now + self.settings.windows.quiet);
        }
        Some(plan)
    }

    /// When `next` may have something, if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.running >= self.most_running() {
            return None;
        }
        let due = self.coalescer.next_due()?;
        Some(self.opens_at().map_or(due, |open| open.max(due)))
    }

    fn opens_at(&self) -> Option<Instant> {
        self.open_at.max(self.paused_until)
    }
}
