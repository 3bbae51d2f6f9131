//! One entity of one store: what is gathered and read of it, and how long it pauses. Pure.
//!
//! A line runs a bounded number of reads at once and spaces its lists, so that a burst fills few of them. What the
//! bridge reads of its own accord has places of its own, so that a callback never waits behind it. After trouble the
//! line pauses for longer and longer, whatever the other lines do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coalesce::{Coalescer, Gathering, Urgency};
use super::plan::{self, Plan};
use super::settings::EntitySettings;
use crate::model::hint::Cause;
use crate::model::ids::EntityId;

/// Lists of one entity and urgency that are read at once. While two are under way, the next batch grows.
const MAX_LISTS: usize = 2;
/// Quiet windows between two reads of one entity by a list that takes all that is due: with the default one read a second,
/// a fifth of the requests that the smallest plan allows.
const COMPANY: u32 = 4;
/// Single entities of one kind that are read at once, where no list exists: for callbacks, and for the rest.
const MAX_SINGLES: [usize; 2] = [8, 2];
/// First and longest pause of an entity whose reads fail: BigCommerce asks for patience after a 5xx.
pub(super) const TROUBLE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How long the store must have refused to show an entity, to every single read, before its hints are given up.
const DENIED_FOR: Duration = Duration::from_secs(300);

/// What comes of a line's reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yields {
    /// Records of the entity.
    Records,
    /// Hints of the entity of this name, whose ids its reads find.
    Hints(Arc<str>),
}

/// What is gathered, read and waited for of one entity.
pub(super) struct Line {
    /// Its name in hints.
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<EntitySettings>,
    pub(super) yields: Yields,
    pub(super) coalescer: Coalescer,
    pub(super) reading: BTreeMap<EntityId, Gathering>,
    /// Jobs under way, by urgency.
    pub(super) running: [usize; 2],
    /// No list starts before this, so that it fills.
    open_at: [Option<Instant>; 2],
    /// No job starts before this, after trouble.
    pub(super) paused_until: Option<Instant>,
    /// Troubles in a row.
    troubles: u32,
    /// Since when every read failed.
    failing_since: Option<Instant>,
    /// Since when every read was refused to the token.
    denied_since: Option<Instant>,
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

/// A job that may start.
pub(super) struct Start {
    /// What it reads.
    pub(super) plan: Plan,
    /// Whose place it takes.
    pub(super) urgency: Urgency,
    /// The most urgent reason for it.
    pub(super) cause: Cause,
}

impl Line {
    /// Nothing gathered yet.
    pub(super) fn new(name: &str, settings: Arc<EntitySettings>, yields: Yields) -> Self {
        Self {
            name: name.into(),
            coalescer: Coalescer::new(settings.windows),
            settings,
            yields,
            reading: BTreeMap::new(),
            running: [0; 2],
            open_at: [None; 2],
            paused_until: None,
            troubles: 0,
            failing_since: None,
            denied_since: None,
        }
    }

    /// A read brought something: troubles are over.
    pub(super) fn is_well(&mut self) {
        self.troubles = 0;
        self.failing_since = None;
        self.denied_since = None;
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

    /// A read was refused to the token: whether this has been so for long enough to give up what waits.
    pub(super) fn is_denied(&mut self, now: Instant) -> bool {
        now.duration_since(*self.denied_since.get_or_insert(now)) >= DENIED_FOR
    }

    /// Whether one entity was refused for long enough to give it up, though others are not.
    pub(super) fn is_hopeless(&self, gathering: &Gathering, now: Instant) -> bool {
        gathering.history.denied_since.is_some_and(|since| now.duration_since(since) >= DENIED_FOR)
    }

    /// Forgets what is gathered and read.
    pub(super) fn clear(&mut self) {
        self.coalescer.clear();
        self.reading.clear();
        self.running = [0; 2];
    }

    fn has_room(&self, urgency: Urgency) -> bool {
        let most =
            if self.settings.row.read.many.is_some() { MAX_LISTS } else { MAX_SINGLES[urgency as usize] };
        self.running[urgency as usize] < most
    }

    /// What one more job should read now; its gatherings move to `reading`.
    pub(super) fn next(&mut self, now: Instant) -> Option<Start> {
        Urgency::ALL.into_iter().find_map(|urgency| self.next_of(urgency, now))
    }

    fn next_of(&mut self, urgency: Urgency, now: Instant) -> Option<Start> {
        if !self.has_room(urgency) || self.opens_at(urgency).is_some_and(|at| at > now) {
            return None;
        }
        let was_missing = |id: &EntityId| self.coalescer.was_missing(id);
        let plan = plan::choose(&self.settings, self.coalescer.due(urgency, now), was_missing)?;
        let mut cause = None;
        for id in plan.ids() {
            let gathering = self.coalescer.take(id).expect("what is due can be taken");
            cause =
                gathering.hints.iter().map(|g| g.hint.cause()).chain(cause).min_by_key(|cause| rank(*cause));
            self.reading.insert(id.clone(), gathering);
        }
        self.running[urgency as usize] += 1;
        self.space(&plan, urgency, now);
        Some(Start { plan, urgency, cause: cause.expect("a gathering is never empty") })
    }

    /// Spaces the reads of what a list can bring, so that few of them are full rather than many empty. A full one needs
    /// no company, nor does what no list brings.
    fn space(&mut self, plan: &Plan, urgency: Urgency, now: Instant) {
        let is_full = plan.ids().len() >= plan::most_in_one(&self.settings);
        if self.settings.row.read.many.is_none() || is_full {
            return;
        }
        let quiet = self.settings.windows.quiet;
        if self.coalescer.due(urgency, now).next().is_none() {
            self.open_at[urgency as usize] = Some(now + quiet * COMPANY);
        } else if matches!(plan, Plan::Many(_)) {
            self.open_at[urgency as usize] = Some(now + quiet);
        }
    }

    /// When `next` may have something, if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let wake = |urgency| {
            let due = self.coalescer.next_due(urgency).filter(|_| self.has_room(urgency))?;
            Some(self.opens_at(urgency).map_or(due, |open| open.max(due)))
        };
        Urgency::ALL.into_iter().filter_map(wake).min()
    }

    fn opens_at(&self, urgency: Urgency) -> Option<Instant> {
        self.open_at[urgency as usize].max(self.paused_until)
    }
}

/// The order in which reasons for a read are served; the first is the most urgent.
const fn rank(cause: Cause) -> u8 {
    match cause {
        Cause::Callback => 0,
        Cause::Sync => 1,
        Cause::Recheck => 2,
        Cause::Poll => 3,
        Cause::Sweep => 4,
        Cause::Snapshot => 5,
    }
}
