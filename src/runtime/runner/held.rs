//! What the loop holds of each assigned partition: the records that are open, how many bytes they are, and those that do
//! not fit yet. Pure.
//!
//! A partition whose next record does not fit keeps it, and what follows it, and its flow is stopped until half of its
//! room is free. The others go on: a backlog on one partition holds up no record of another, even if nothing of it ends
//! for days. For half of all room is divided evenly, and stays with each partition whatever the others hold. Of the other
//! half a partition may take as much as it leaves: alone it has three quarters of all room, and two have two thirds of
//! that half between them.

use std::collections::{BTreeMap, VecDeque};

use super::waits::size_of;
use crate::engine::checkpoint::{Checkpoint, Opened};
use crate::model::record::{Assignment, InRecord, OffsetCommit, Partition, Position};

/// Records open at once. Hints are small and a thousand of them cost one read, so more buys nothing; with a
/// payload limit of 1 MiB the byte bound below holds first.
const MAX_OPEN: usize = 60_000;
/// Bytes of open records: an eighth of the memory that the bridge promises to stay below (512 MiB). Where a partition has
/// room for less than one record, it has that one beyond it.
const MAX_OPEN_BYTES: usize = 64 << 20;
/// What a record counts as at least, so that both bounds are one.
const LEAST_BYTES: usize = MAX_OPEN_BYTES.div_ceil(MAX_OPEN);
/// What is divided evenly.
const OWN_BYTES: usize = MAX_OPEN_BYTES / 2;
/// What is there for those that need more.
const COMMON_BYTES: usize = MAX_OPEN_BYTES - OWN_BYTES;

/// How the bytes of open records are divided among partitions.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    /// What each partition has for itself.
    own: usize,
    /// What all have taken together beyond that.
    common: usize,
}

impl Room {
    /// How far any partition may fill now. Whoever takes some of the common half leaves at least as much, so that it is
    /// never all taken.
    fn of_each(self) -> usize {
        self.own + COMMON_BYTES.saturating_sub(self.common)
    }

    /// A partition holds so many bytes, of what were so many.
    fn change(&mut self, before: usize, after: usize) {
        let beyond = |bytes: usize| bytes.saturating_sub(self.own);
        self.common = self.common + beyond(after) - beyond(before);
    }
}

/// What is held of one partition.
#[derive(Default)]
struct Share {
    checkpoint: Checkpoint,
    /// Open records by their offset, and the size of each in bytes.
    open: BTreeMap<i64, usize>,
    bytes: usize,
    /// Records that were consumed and do not fit yet, in order.
    waiting: VecDeque<InRecord>,
    /// The consumer was told to stop its flow.
    is_stopped: bool,
    /// All of its records wait: an earlier owner may still be at them.
    is_locked: bool,
    /// See [`Held::weighing`].
    weight: usize,
}

impl Share {
    /// Takes a record that nothing waits before: whether it is to be worked on now, or comes back.
    fn open(&mut self, record: &InRecord, room: &mut Room) -> Opened {
        let size = (size_of(record) + self.weight).max(LEAST_BYTES);
        // Of a partition of which nothing is open, any record is taken: nothing of its own would ever make room for it.
        let fits = self.open.is_empty() || self.bytes + size <= room.of_each();
        if self.is_locked || !fits {
            return Opened::Full;
        }
        let opened = self.checkpoint.open(record.position.offset);
        if opened == Opened::New {
            room.change(self.bytes, self.bytes + size);
            self.bytes += size;
            self.open.insert(record.position.offset, size);
        }
        opened
    }

    /// Whether its flow should be stopped; once it is, until half of the room is free.
    fn is_full(&self, room: Room) -> bool {
        let is_wide = || self.bytes > room.of_each() / 2 || self.checkpoint.is_crowded();
        !self.waiting.is_empty() || self.is_stopped && is_wide()
    }
}

/// What is held of all assigned partitions.
#[derive(Default)]
pub(super) struct Held {
    shares: BTreeMap<Partition, Share>,
    room: Room,
    records: usize,
    weight: usize,
}

impl Held {
    /// Nothing yet. Each record counts as so many bytes more than it has.
    pub(super) fn weighing(weight: usize) -> Self {
        Self { weight, ..Self::default() }
    }

    /// A partition was assigned; where it `is_locked`, its records wait for [`Held::unlock`].
    pub(super) fn assign(&mut self, assignment: Assignment, is_locked: bool) {
        let checkpoint = Checkpoint::resume(assignment.committed, &assignment.metadata);
        let share = Share { checkpoint, is_locked, weight: self.weight, ..Share::default() };
        self.shares.insert(assignment.partition, share);
        self.room = Room { own: OWN_BYTES / self.shares.len(), common: 0 };
        self.shares.values().for_each(|share| self.room.change(0, share.bytes));
    }

    /// The records of a partition may be worked on from now on.
    pub(super) fn unlock(&mut self, partition: &Partition) {
        if let Some(share) = self.shares.get_mut(partition) {
            share.is_locked = false;
        }
    }

    /// Whether a record of the partition waits.
    pub(super) fn is_waiting(&self, partition: &Partition) -> bool {
        self.shares.get(partition).is_some_and(|share| !share.waiting.is_empty())
    }

    /// The assigned partitions.
    pub(super) fn partitions(&self) -> impl ExactSizeIterator<Item = &Partition> {
        self.shares.keys()
    }

    /// Records that are open.
    pub(super) fn open(&self) -> usize {
        self.records
    }

    /// Takes a record that was consumed; it comes back if it is to be worked on now.
    pub(super) fn offer(&mut self, record: InRecord) -> Option<InRecord> {
        // Without a share it is of an assignment that is over.
        let share = self.shares.get_mut(&record.position.partition)?;
        if !share.waiting.is_empty() {
            share.waiting.push_back(record);
            return None;
        }
        match share.open(&record, &mut self.room) {
            Opened::Settled => None,
            Opened::Full => {
                share.waiting.push_back(record);
                None
            }
            Opened::New => {
                self.records += 1;
                Some(record)
            }
        }
    }

    /// A record that waited and fits by now.
    pub(super) fn next_waiting(&mut self) -> Option<InRecord> {
        for share in self.shares.values_mut() {
            while let Some(record) = share.waiting.pop_front() {
                match share.open(&record, &mut self.room) {
                    Opened::Settled => {}
                    Opened::Full => {
                        share.waiting.push_front(record);
                        break;
                    }
                    Opened::New => {
                        self.records += 1;
                        return Some(record);
                    }
                }
            }
        }
        None
    }

    /// Forgets what waits: it will be consumed again by the next owner.
    pub(super) fn drop_waiting(&mut self) {
        self.shares.values_mut().for_each(|share| share.waiting.clear());
    }

    /// The partitions whose flow is to be stopped, or to go on.
    pub(super) fn flow(&mut self) -> Vec<(Partition, bool)> {
        let room = self.room;
        let changed = self.shares.iter_mut().filter(|(_, share)| share.is_full(room) != share.is_stopped);
        let changed = changed.map(|(partition, share)| {
            share.is_stopped = !share.is_stopped;
            (partition.clone(), share.is_stopped)
        });
        changed.collect()
    }

    /// Marks a record as settled, for the offsets that are committed next.
    pub(super) fn settle(&mut self, position: &Position) {
        if let Some(share) = self.shares.get_mut(&position.partition) {
            share.checkpoint.settle(position.offset);
        }
    }

    /// What is to be committed for a partition.
    pub(super) fn commit(&self, partition: &Partition) -> Option<OffsetCommit> {
        let share = self.shares.get(partition)?;
        // Of a partition without a commit nothing before its first record is left.
        let first = || share.waiting.front().map(|record| (record.position.offset, String::new()));
        let (next, metadata) = share.checkpoint.commit().or_else(first)?;
        Some(OffsetCommit { partition: partition.clone(), next, metadata })
    }

    /// A record's settlement is committed.
    pub(super) fn close(&mut self, position: &Position) {
        let Some(share) = self.shares.get_mut(&position.partition) else { return };
        let Some(size) = share.open.remove(&position.offset) else { return };
        self.room.change(share.bytes, share.bytes - size);
        share.bytes -= size;
        self.records -= 1;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::checkpoint::WINDOW;

    fn partition(number: i32) -> Partition {
        Partition { topic: "intake".into(), number }
    }

    fn held(partitions: i32) -> Held {
        let mut held = Held::default();
        for number in 0..partitions {
            let assignment =
                Assignment { partition: partition(number), committed: Some(0), metadata: String::new() };
            held.assign(assignment, false);
        }
        held
    }

    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

    fn record(number: i32, offset: i64, bytes: usize) -> InRecord {
        InRecord {
            position: Position { partition: partition(number), offset },
            key: None,
            value: Some(Bytes::from_static(&ZEROS[..bytes])),
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// Settles and commits a record.
    fn end(held: &mut Held, number: i32, offset: i64) {
        let position = Position { partition: partition(number), offset };
        held.settle(&position);
        held.close(&position);
    }

    #[test]
    fn a_full_partition_is_stopped_until_half_of_its_window_is_free_and_the_others_flow() {
        let mut held = held(2);
        for offset in 0..WINDOW {
            assert!(held.offer(record(0, offset, 1)).is_some());
        }
        assert!(held.flow().is_empty(), "it is full, but nothing waits");
        assert!(held.offer(record(0, WINDOW, 1)).is_none());
        assert!(held.offer(record(0, WINDOW + 1, 1)).is_none());
        assert_eq!(held.flow(), [(partition(0), true)]);
        assert!(held.offer(record(1, 0, 1)).is_some());
        end(&mut held, 0, 0);
        assert_eq!(held.next_waiting().unwrap().position.offset, WINDOW);
        assert!(held.next_waiting().is_none());
        for offset in 1..=WINDOW / 2 {
            end(&mut held, 0, offset);
        }
        assert_eq!(held.next_waiting().unwrap().position.offset, WINDOW + 1);
        assert!(held.flow().is_empty(), "not yet half");
        end(&mut held, 0, WINDOW / 2 + 1);
        assert_eq!(held.flow(), [(partition(0), false)]);
        assert_eq!(held.open() as i64, WINDOW / 2 + 1, "and the one of the other partition");
    }

    #[test]
    fn a_partition_that_an_earlier_owner_left_full_flows_once_it_is_unlocked() {
        let mut first = held(1);
        for offset in 0..WINDOW {
            first.offer(record(0, offset, 1));
        }
        end(&mut first, 0, WINDOW - 1);
        let OffsetCommit { partition, next, metadata } = first.commit(&partition(0)).unwrap();
        let mut held = Held::default();
        held.assign(Assignment { partition: partition.clone(), committed: Some(next), metadata }, true);
        assert!(held.offer(record(0, 0, 1)).is_none());
        assert_eq!(held.flow(), [(partition.clone(), true)]);
        held.unlock(&partition);
        assert_eq!(held.next_waiting().unwrap().position.offset, 0);
        assert_eq!(held.flow(), [(partition, false)]);
    }

    /// How many records of so many bytes a partition takes, from an offset on.
    fn fill(held: &mut Held, number: i32, from: i64, bytes: usize) -> i64 {
        (from..).take_while(|offset| held.offer(record(number, *offset, bytes)).is_some()).count() as i64
    }

    #[test]
    fn one_partition_has_most_of_the_room_and_what_the_others_need_stays_theirs() {
        const MIB: usize = 1 << 20;
        let mut held = held(4);
        assert_eq!(fill(&mut held, 0, 0, MIB), 8 + 16, "its own, and half of what is common");
        assert_eq!(held.flow(), [(partition(0), true)]);
        assert_eq!(fill(&mut held, 1, 0, MIB), 8 + 8);
        assert_eq!(fill(&mut held, 2, 0, MIB), 8 + 4);
        assert_eq!(fill(&mut held, 3, 0, MIB), 8 + 2);
        assert_eq!(held.flow().len(), 3);
        end(&mut held, 3, 0);
        assert_eq!(held.next_waiting().unwrap().position, record(3, 10, 0).position);
        for offset in 0..18 {
            end(&mut held, 0, offset);
        }
        assert_eq!(held.next_waiting().unwrap().position, record(0, 24, 0).position);
        assert!(!held.flow().contains(&(partition(1), false)), "it waits for its own");
        assert!(fill(&mut held, 0, 25, MIB) > 0);
    }

    #[test]
    fn one_partition_alone_has_three_quarters_of_the_room() {
        let mut held = held(1);
        assert_eq!(fill(&mut held, 0, 0, 1 << 20), 48);
    }

    #[test]
    fn twelve_partitions_with_a_backlog_have_nearly_all_records_between_them() {
        let mut held = held(12);
        for offset in 0..WINDOW {
            (0..12).for_each(|number| drop(held.offer(record(number, offset, 200))));
        }
        assert!((MAX_OPEN * 9 / 10..=MAX_OPEN).contains(&held.open()), "{}", held.open());
        let mut alone = super::tests::held(12);
        assert_eq!(fill(&mut alone, 7, 0, 200), WINDOW, "one alone is bounded by its window only");
    }

    /// What happens to partitions, some of which stand still.
    fn check(partitions: i32, steps: &[(usize, usize, bool)], stopped: &[bool]) {
        let mut held = held(partitions);
        let is_stopped =
            |number: i32| stopped[usize::try_from(number).unwrap() % stopped.len()] && number > 0;
        let (mut next, mut open) = (BTreeMap::<i32, i64>::new(), BTreeMap::<i32, VecDeque<i64>>::new());
        let largest = steps.iter().map(|(_, bytes, _)| *bytes).max().unwrap_or(0).max(LEAST_BYTES);
        for (place, bytes, ends) in steps {
            let number = i32::try_from(*place).unwrap() % partitions;
            let opened = open.entry(number).or_default();
            if *ends && !is_stopped(number) {
                if let Some(offset) = opened.pop_front() {
                    end(&mut held, number, offset);
                }
            } else if !held.is_waiting(&partition(number)) {
                let next = next.entry(number).or_default();
                if held.offer(record(number, *next, *bytes)).is_some() {
                    opened.push_back(*next);
                }
                *next += 1;
            }
            while let Some(record) = held.next_waiting() {
                let Position { partition, offset } = record.position;
                open.entry(partition.number).or_default().push_back(offset);
            }
            let _ = held.flow();
            let bytes: usize = held.shares.values().map(|share| share.bytes).sum();
            let beyond: usize =
                held.shares.values().map(|share| share.bytes.saturating_sub(held.room.own)).sum();
            assert_eq!(held.room.common, beyond, "what is taken in common is counted");
            let room = MAX_OPEN_BYTES + usize::try_from(partitions).unwrap() * largest;
            assert!(bytes <= room, "{bytes} of {room}");
            assert!(held.open() <= MAX_OPEN);
        }
        for offset in open.remove(&0).unwrap_or_default() {
            end(&mut held, 0, offset);
        }
        if held.is_waiting(&partition(0)) {
            let waited = held.next_waiting().expect("what waited is taken").position;
            end(&mut held, waited.partition.number, waited.offset);
        }
        assert!(!held.shares[&partition(0)].is_full(held.room), "its flow goes on");
        let next = next.get(&0).copied().unwrap_or(0);
        assert!(held.offer(record(0, next, 1 << 20)).is_some(), "what stands still leaves no room");
    }

    proptest! {
        #[test]
        fn whatever_stands_still_any_record_of_another_partition_is_taken(
            partitions in 1..100_i32,
            steps in prop::collection::vec((0_usize..100, 0_usize..1 << 20, any::<bool>()), 0..400),
            stopped in prop::collection::vec(prop::bool::weighted(0.8), 1..100),
        ) {
            check(partitions, &steps, &stopped);
        }
    }

    #[test]
    fn what_a_stage_keeps_of_a_record_counts_with_it() {
        let mut held = Held::weighing((1 << 20) - 100);
        let assignment = Assignment { partition: partition(0), committed: Some(0), metadata: String::new() };
        held.assign(assignment, false);
        assert_eq!(fill(&mut held, 0, 0, 100), 48);
        end(&mut held, 0, 0);
        assert_eq!(held.next_waiting().unwrap().position.offset, 48);
    }

    #[test]
    fn a_locked_partition_keeps_its_records_in_order_and_tells_where_its_first_one_stands() {
        let mut held = held(2);
        let fresh = Assignment { partition: partition(2), committed: None, metadata: String::new() };
        held.assign(fresh, true);
        assert_eq!((held.is_waiting(&partition(2)), held.commit(&partition(2))), (false, None));
        assert!((7..9).all(|offset| held.offer(record(2, offset, 1)).is_none()));
        assert!(held.offer(record(1, 0, 1)).is_some() && held.next_waiting().is_none());
        assert_eq!(held.flow(), [(partition(2), true)]);
        assert_eq!((held.is_waiting(&partition(2)), held.open()), (true, 1));
        assert_eq!(held.commit(&partition(2)).unwrap().next, 7);
        held.unlock(&partition(2));
        let offsets: Vec<i64> =
            std::iter::from_fn(|| held.next_waiting()).map(|record| record.position.offset).collect();
        assert_eq!(offsets, [7, 8]);
        assert_eq!(held.flow(), [(partition(2), false)]);
        assert_eq!(held.commit(&partition(2)).unwrap().next, 7, "neither is settled");
    }

    #[test]
    fn what_was_settled_in_an_earlier_life_is_passed_over_while_it_waits_as_well() {
        let mut held = Held::default();
        let mut before = Checkpoint::resume(Some(0), "");
        (0..3).for_each(|offset| assert_eq!(before.open(offset), Opened::New));
        before.settle(1);
        let (next, metadata) = before.commit().unwrap();
        held.assign(Assignment { partition: partition(0), committed: Some(next), metadata }, false);
        let opened: Vec<bool> = (0..3).map(|offset| held.offer(record(0, offset, 1)).is_some()).collect();
        assert_eq!(opened, [true, false, true]);
        assert!(held.offer(record(9, 0, 1)).is_none(), "of no assigned partition");
        assert_eq!(held.open(), 2);
    }
}
