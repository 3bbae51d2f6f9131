//! Gathers hints about one entity until it is time to read it. Pure.
//!
//! A key is due when no hint about it came for the quiet window, or when the first one has waited for the
//! longest wait. While it is being read, hints gather for the next read: a hint may only be answered by a read
//! that began after it was consumed. What shoppers cause is due before what the bridge makes of its own accord.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::model::hint::{Cause, Hint, Op};
use crate::model::ids::EntityId;
use crate::model::record::{InRecord, Position};

/// One hint of a gathering.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// What it said.
    pub hint: Hint,
    /// The record that it was, for a dead letter.
    pub record: InRecord,
}

/// All hints that one read will answer.
#[derive(Debug, Clone, Default)]
pub struct Gathering {
    /// The hints, in the order of consumption; never empty once taken.
    pub hints: Vec<Gathered>,
    /// Where hints stood that turned out to repeat an event.
    pub repeats: Vec<Position>,
    /// Failed reads so far, for the judge.
    pub history: History,
}

/// What earlier reads for a gathering brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct History {
    /// When the entity was first found missing.
    pub gone_since: Option<Instant>,
    /// Reads that found it missing.
    pub misses: u32,
    /// When a read first brought something older than it should be.
    pub stale_since: Option<Instant>,
    /// Hints that there were at that time; those that joined later were not waited for.
    pub waited_for: usize,
    /// Replies that could not be understood.
    pub garbled: u32,
    /// Since when the store refuses to show it.
    pub denied_since: Option<Instant>,
}

/// Who waits for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A shopper caused it, or a person.
    Live,
    /// The bridge made it of its own accord: polls, snapshots, sweeps, second looks.
    Patient,
}

impl Urgency {
    /// Both, the more urgent one first.
    pub const ALL: [Self; 2] = [Self::Live, Self::Patient];

    /// Of a hint that was made for this reason.
    pub const fn of(cause: Cause) -> Self {
        match cause {
            Cause::Callback | Cause::Sync => Self::Live,
            Cause::Poll | Cause::Snapshot | Cause::Sweep | Cause::Recheck => Self::Patient,
        }
    }
}

/// How a gathering waits for its next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until then, whatever happens: the store is in trouble.
    NotBefore(Instant),
    /// Until then, or until another hint is due, which may bring what was missing.
    AtLatest(Instant),
}

impl Gathering {
    /// Whether a hint says that the entity was deleted.
    pub fn says_deleted(&self) -> bool {
        self.hints.iter().any(|g| g.hint.trigger.op == Op::Delete)
    }

    /// Whether a callback is among its hints: a change that somebody waits for.
    pub fn has_callback(&self) -> bool {
        self.hints.iter().any(|g| g.hint.cause() == Cause::Callback)
    }

    /// Whether a hint was made for this reason.
    pub fn has(&self, cause: Cause) -> bool {
        self.hints.iter().any(|g| g.hint.cause() == cause)
    }

    /// Whether this row, or all of them, is said to be deleted.
    pub fn says_row_deleted(&self, row: &EntityId) -> bool {
        let about = |g: &Gathered| g.hint.trigger.row.as_ref().is_none_or(|named| named == row);
        self.hints.iter().any(|g| g.hint.trigger.op == Op::Delete && about(g))
    }

    /// How urgent the most urgent of its hints is.
    pub fn urgency(&self) -> Urgency {
        self.hints.iter().map(|g| Urgency::of(g.hint.cause())).min().unwrap_or(Urgency::Patient)
    }

    /// When the store says that the last of it happened, in unix seconds.
    pub fn created_at(&self) -> Option<i64> {
        self.hints.iter().filter_map(|g| g.hint.created_at).max()
    }

    /// What the record should say happened, if the entity is there.
    pub fn op(&self) -> Op {
        let any = |op| self.hints.iter().any(|g| g.hint.trigger.op == op);
        if any(Op::Create) {
            Op::Create
        } else if self.hints.iter().all(|g| g.hint.trigger.op == Op::Read) {
            Op::Read
        } else {
            Op::Update
        }
    }

    /// The rows that are meant, of a read that brings several; none means all of them.
    pub fn rows(&self) -> Option<BTreeSet<&EntityId>> {
        self.hints.iter().map(|g| g.hint.trigger.row.as_ref()).collect()
    }

    /// Takes out the hints that joined while the others waited for a newer state.
    pub fn take_young(&mut self) -> Vec<Gathered> {
        let waited_for = self.history.stale_since.map_or(self.hints.len(), |_| self.history.waited_for);
        self.hints.split_off(waited_for.clamp(1, self.hints.len()))
    }

    /// Sets aside the hints that an earlier record answered; the read answers the others.
    pub fn set_repeats_aside(&mut self, is_known: impl Fn(&Hint) -> bool) {
        let (repeats, hints) = std::mem::take(&mut self.hints).into_iter().partition(|g| is_known(&g.hint));
        self.hints = hints;
        self.repeats.extend(Vec::into_iter(repeats).map(|g: Gathered| g.record.position));
    }

    /// The positions of all hints, repeats as well.
    pub fn positions(&self) -> Vec<Position> {
        let hints = self.hints.iter().map(|g| &g.record.position);
        hints.chain(&self.repeats).cloned().collect()
    }

    /// Puts another gathering behind this one.
    fn absorb(&mut self, later: Self) {
        // A later word that it is deleted makes an earlier miss count as confirmed; the history stays.
        self.hints.extend(later.hints);
        self.repeats.extend(later.repeats);
    }
}

/// When a gathering is due.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// How long no hint must have come.
    pub quiet: Duration,
    /// How long the first hint waits at most.
    pub max_wait: Duration,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<Waiting>,
    reading: bool,
}

#[derive(Debug)]
struct Waiting {
    gathering: Gathering,
    /// The first hint that did not see a read; none while only a re-read is waited for.
    first: Option<Instant>,
    due: Instant,
    /// Of a gathering that waits for another read.
    wait: Option<Wait>,
    urgency: Urgency,
}

impl Waiting {
    /// A hint joined: when it is due now.
    fn joined(&mut self, windows: Windows, now: Instant) {
        let due = due(windows, *self.first.get_or_insert(now), now);
        self.due = match self.wait {
            None => due,
            Some(Wait::NotBefore(at)) => due.max(at),
            Some(Wait::AtLatest(at)) => due.min(at),
        };
    }
}

/// The gatherings of one entity of one store.
#[derive(Debug)]
pub struct Coalescer {
    windows: Windows,
    slots: HashMap<EntityId, Slot>,
    /// By urgency.
    due: [BTreeSet<(Instant, EntityId)>; 2],
}

impl Coalescer {
    /// Nothing gathered yet.
    pub fn new(windows: Windows) -> Self {
        Self { windows, slots: HashMap::new(), due: Default::default() }
    }

    /// Adds a hint.
    pub fn add(&mut self, gathered: Gathered, now: Instant) {
        let id = gathered.hint.trigger.key.id.clone();
        let urgency = Urgency::of(gathered.hint.cause());
        let slot = self.slots.entry(id.clone()).or_default();
        match &mut slot.waiting {
            Some(waiting) => {
                let was = self.due[waiting.urgency as usize].take(&(waiting.due, id));
                waiting.gathering.hints.push(gathered);
                waiting.urgency = waiting.urgency.min(urgency);
                waiting.joined(self.windows, now);
                if let Some((_, id)) = was {
                    self.due[waiting.urgency as usize].insert((waiting.due, id));
                }
            }
            None => {
                let due = due(self.windows, now, now);
                let gathering = Gathering { hints: vec![gathered], ..Gathering::default() };
                slot.waiting = Some(Waiting { gathering, first: Some(now), due, wait: None, urgency });
                if !slot.reading {
                    self.due[urgency as usize].insert((due, id));
                }
            }
        }
    }

    /// The ids that are due, the longest waiting first.
    pub fn due(&self, urgency: Urgency, now: Instant) -> impl Iterator<Item = &EntityId> {
        self.due[urgency as usize].iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| id)
    }

    /// What waits and is not being read, the longest waiting first.
    pub fn waiting(&self) -> impl Iterator<Item = (&EntityId, &Gathering)> {
        let ids = self.due.iter().flatten().map(|(_, id)| id);
        ids.filter_map(|id| Some((id, &self.slots.get(id)?.waiting.as_ref()?.gathering)))
    }

    /// Whether anything waits or is being read for an id.
    pub fn is_busy(&self, id: &EntityId) -> bool {
        self.slots.contains_key(id)
    }

    /// Whether an earlier read for what waits found no such entity, and nothing says that it was deleted.
    pub fn was_missing(&self, id: &EntityId) -> bool {
        let waiting = self.slots.get(id).and_then(|slot| slot.waiting.as_ref());
        waiting.is_some_and(|w| w.gathering.history.misses > 0 && !w.gathering.says_deleted())
    }

    /// When the next id is due.
    pub fn next_due(&self, urgency: Urgency) -> Option<Instant> {
        self.due[urgency as usize].first().map(|(at, _)| *at)
    }

    /// Takes what was gathered for a waiting id: its read begins. [`Self::done`] or [`Self::retry`] ends it.
    pub fn take(&mut self, id: &EntityId) -> Option<Gathering> {
        let slot = self.slots.get_mut(id)?;
        let waiting = slot.waiting.take()?;
        slot.reading = true;
        self.due[waiting.urgency as usize].remove(&(waiting.due, id.clone()));
        Some(waiting.gathering)
    }

    /// The read of an id ended and its gathering was settled.
    pub fn done(&mut self, id: &EntityId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.reading = false;
        match &slot.waiting {
            Some(waiting) => {
                self.due[waiting.urgency as usize].insert((waiting.due, id.clone()));
            }
            None => {
                self.slots.remove(id);
            }
        }
    }

    /// The read of an id ended without a result: the gathering waits, and later hints join it.
    pub fn retry(&mut self, id: &EntityId, mut gathering: Gathering, wait: Wait, now: Instant) {
        let slot = self.slots.entry(id.clone()).or_default();
        slot.reading = false;
        let (mut first, mut due) = match wait {
            Wait::NotBefore(at) | Wait::AtLatest(at) => (None, at),
        };
        if let Some(later) = slot.waiting.take() {
            first = later.first;
            if matches!(wait, Wait::AtLatest(_)) {
                // The word that it is deleted is what a miss was waiting for.
                let says_so = later.gathering.says_deleted() && !gathering.says_deleted();
                due = if says_so { now } else { due.min(later.due) };
            }
            gathering.absorb(later.gathering);
        }
        let urgency = gathering.urgency();
        slot.waiting = Some(Waiting { gathering, first, due, wait: Some(wait), urgency });
        self.due[urgency as usize].insert((due, id.clone()));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.due.iter_mut().for_each(BTreeSet::clear);
    }

    /// Ids that wait or are being read.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing waits and nothing is being read.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

fn due(windows: Windows, first: Instant, last: Instant) -> Instant {
    (last + windows.quiet).min(first + windows.max_wait)
}

#[cfg(test)]
mod tests;
