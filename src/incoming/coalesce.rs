//! Gathers hints about one entity until it is time to read it. Pure.
//!
//! A key is due when no hint about it came for the quiet window, or when the first one has waited for the
//! longest wait. While it is being read, hints gather for the next read: a hint may only be answered by a read
//! that began after it was consumed.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::model::hint::{Hint, Op};
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
    /// Reads that brought something older than it should be.
    pub stale: u32,
    /// Hints that there were at the first of them; those that joined later were not waited for.
    pub waited_for: usize,
    /// Replies that could not be understood.
    pub garbled: u32,
}

impl Gathering {
    /// Whether a hint says that the entity was deleted.
    pub fn says_deleted(&self) -> bool {
        self.hints.iter().any(|g| g.hint.trigger.op == Op::Delete)
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
        let waited_for = if self.history.stale > 0 { self.history.waited_for } else { self.hints.len() };
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
    first: Instant,
    due: Instant,
    /// Not before this, since an earlier read failed.
    not_before: Option<Instant>,
}

/// The gatherings of one entity of one store.
#[derive(Debug)]
pub struct Coalescer {
    windows: Windows,
    slots: HashMap<EntityId, Slot>,
    due: BTreeSet<(Instant, EntityId)>,
}

impl Coalescer {
    /// Nothing gathered yet.
    pub fn new(windows: Windows) -> Self {
        Self { windows, slots: HashMap::new(), due: BTreeSet::new() }
    }

    /// Adds a hint.
    pub fn add(&mut self, gathered: Gathered, now: Instant) {
        let id = gathered.hint.trigger.key.id.clone();
        let deleted = gathered.hint.trigger.op == Op::Delete;
        let slot = self.slots.entry(id.clone()).or_default();
        match &mut slot.waiting {
            Some(waiting) => {
                waiting.gathering.hints.push(gathered);
                // The word that it is deleted is what a miss was waiting for.
                if deleted {
                    waiting.not_before = None;
                }
                let due = due(self.windows, waiting.first, now);
                let due = waiting.not_before.map_or(due, |at| at.max(due));
                if !slot.reading && self.due.remove(&(waiting.due, id.clone())) {
                    self.due.insert((due, id));
                }
                waiting.due = due;
            }
            None => {
                let due = due(self.windows, now, now);
                let gathering = Gathering { hints: vec![gathered], ..Gathering::default() };
                slot.waiting = Some(Waiting { gathering, first: now, due, not_before: None });
                if !slot.reading {
                    self.due.insert((due, id));
                }
            }
        }
    }

    /// The ids that are due, the longest waiting first.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = &EntityId> {
        self.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| id)
    }

    /// Whether an earlier read for what waits found no such entity, and nothing says that it was deleted.
    pub fn was_missing(&self, id: &EntityId) -> bool {
        let waiting = self.slots.get(id).and_then(|slot| slot.waiting.as_ref());
        waiting.is_some_and(|w| w.gathering.history.misses > 0 && !w.gathering.says_deleted())
    }

    /// When the next id is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what was gathered for a due id: its read begins. [`Self::done`] or [`Self::retry`] ends it.
    pub fn take(&mut self, id: &EntityId) -> Option<Gathering> {
        let slot = self.slots.get_mut(id)?;
        let waiting = slot.waiting.take()?;
        slot.reading = true;
        self.due.remove(&(waiting.due, id.clone()));
        Some(waiting.gathering)
    }

    /// The read of an id ended and its gathering was settled.
    pub fn done(&mut self, id: &EntityId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.reading = false;
        match &slot.waiting {
            Some(waiting) => {
                self.due.insert((waiting.due, id.clone()));
            }
            None => {
                self.slots.remove(id);
            }
        }
    }

    /// The read of an id ended without a result: the gathering waits until `at`, and later hints join it.
    pub fn retry(&mut self, id: &EntityId, mut gathering: Gathering, at: Instant, now: Instant) {
        let slot = self.slots.entry(id.clone()).or_default();
        slot.reading = false;
        let mut at = at;
        if let Some(later) = slot.waiting.take() {
            if later.gathering.says_deleted() && !gathering.says_deleted() {
                at = now;
            }
            gathering.absorb(later.gathering);
        }
        slot.waiting = Some(Waiting { gathering, first: now, due: at, not_before: Some(at) });
        self.due.insert((at, id.clone()));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.due.clear();
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::hint::Trigger;
    use crate::model::ids::EntityKey;
    use crate::model::record::Partition;

    const WINDOWS: Windows = Windows { quiet: Duration::from_millis(250), max_wait: Duration::from_secs(2) };

    fn hint(id: u32, offset: i64, op: Op) -> Gathered {
        let id = id + 1;
        let key = EntityKey { entity: "product".into(), id: EntityId::parse(&id.to_string()).unwrap() };
        let trigger = Trigger { key, op, scope: "store/product/updated".into(), row: None };
        let partition = Partition { topic: "intake".into(), number: 0 };
        let position = Position { partition, offset };
        Gathered {
            hint: Hint {
                trigger,
                event: offset.to_string(),
                created_at: None,
                received_ms: 0,
                traceparent: None,
                carried_ms: None,
            },
            record: InRecord { position, timestamp_ms: None, key: None, value: None, headers: Vec::new() },
        }
    }

    #[test]
    fn a_key_is_due_after_quiet_and_at_the_latest_after_the_longest_wait() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut coalescer = Coalescer::new(WINDOWS);
        for step in 0..20 {
            coalescer.add(hint(0, step, Op::Update), ms(u64::try_from(step).unwrap() * 200));
            if step < 10 {
                assert_eq!(coalescer.due(ms(u64::try_from(step).unwrap() * 200 + 199)).count(), 0, "{step}");
            }
        }
        assert_eq!(coalescer.next_due(), Some(ms(2000)));
        let id = EntityId::parse("1").unwrap();
        assert_eq!(coalescer.take(&id).unwrap().hints.len(), 20);
    }

    #[test]
    fn a_hint_that_comes_during_the_read_causes_another() {
        let start = Instant::now();
        let id = EntityId::parse("1").unwrap();
        let mut coalescer = Coalescer::new(WINDOWS);
        coalescer.add(hint(0, 0, Op::Update), start);
        assert_eq!(coalescer.take(&id).unwrap().hints.len(), 1);
        coalescer.add(hint(0, 1, Op::Update), start);
        let late = start + Duration::from_secs(60);
        assert_eq!(coalescer.due(late).count(), 0, "one read at a time");
        coalescer.done(&id);
        assert_eq!(coalescer.due(late).count(), 1);
        assert_eq!(coalescer.take(&id).unwrap().hints.len(), 1);
        coalescer.done(&id);
        assert!(coalescer.is_empty());
    }

    #[test]
    fn the_word_that_it_is_deleted_ends_the_wait_of_a_miss() {
        let start = Instant::now();
        let id = EntityId::parse("1").unwrap();
        let mut coalescer = Coalescer::new(WINDOWS);
        coalescer.add(hint(0, 0, Op::Update), start);
        let gathering = coalescer.take(&id).unwrap();
        coalescer.retry(&id, gathering, start + Duration::from_secs(60), start);
        coalescer.add(hint(0, 1, Op::Delete), start);
        assert!(coalescer.next_due().unwrap() <= start + WINDOWS.max_wait);
    }

    proptest! {
        /// Whatever the order of adds, takes, ends and retries: every hint is in exactly one gathering that
        /// ends, and no key is read twice at once.
        #[test]
        fn no_hint_is_lost_or_doubled(steps in prop::collection::vec((0_u32..4, 0_u8..5), 1..300)) {
            let start = Instant::now();
            let mut coalescer = Coalescer::new(WINDOWS);
            let mut reading: HashMap<EntityId, Gathering> = HashMap::new();
            let (mut added, mut ended) = (0_i64, Vec::new());
            for (step, (id, what)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_millis(100) * u32::try_from(step).unwrap();
                match what {
                    0..=2 => {
                        coalescer.add(hint(id, added, Op::Update), now);
                        added += 1;
                    }
                    _ => {
                        let due: Vec<EntityId> = coalescer.due(now).cloned().collect();
                        for id in due {
                            let gathering = coalescer.take(&id).unwrap();
                            prop_assert!(reading.insert(id, gathering).is_none());
                        }
                    }
                }
                if what == 4 {
                    for (id, gathering) in reading.drain() {
                        if step % 3 == 0 {
                            coalescer.retry(&id, gathering, now + Duration::from_secs(1), now);
                        } else {
                            ended.extend(gathering.hints.iter().map(|g| g.record.position.offset));
                            coalescer.done(&id);
                        }
                    }
                }
            }
            let late = start + Duration::from_secs(3600);
            for _ in 0..2 {
                for (id, gathering) in reading.drain() {
                    ended.extend(gathering.hints.iter().map(|g| g.record.position.offset));
                    coalescer.done(&id);
                }
                for id in coalescer.due(late).cloned().collect::<Vec<_>>() {
                    let gathering = coalescer.take(&id).unwrap();
                    reading.insert(id, gathering);
                }
            }
            for (id, gathering) in reading.drain() {
                ended.extend(gathering.hints.iter().map(|g| g.record.position.offset));
                coalescer.done(&id);
            }
            ended.sort_unstable();
            prop_assert_eq!(ended, (0..added).collect::<Vec<_>>());
            prop_assert!(coalescer.is_empty());
        }
    }
}
