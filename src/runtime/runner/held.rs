//! What the loop holds of each assigned partition: the records that are open, how many bytes they are, and those that do
//! not fit yet. Pure.
//!
//! A partition whose next record does not fit keeps it, and what follows it, and its flow is stopped until half of its
//! room is free. The others go on: a backlog on one partition holds up no record of another.

use std::collections::{BTreeMap, VecDeque};

use super::waits::size_of;
use crate::engine::checkpoint::{Checkpoint, Opened};
use crate::model::record::{Assignment, InRecord, OffsetCommit, Partition, Position};

/// Records open at once. Hints are small and a thousand of them cost one read, so more buys nothing; with a
/// payload limit of 1 MiB the byte bound below holds first.
const MAX_OPEN: usize = 60_000;
/// Bytes of open records: an eighth of the memory that the bridge promises to stay below (512 MiB).
const MAX_OPEN_BYTES: usize = 64 << 20;
/// Bytes that one partition may have of these, so that it leaves some to the others.
const MAX_SHARE_BYTES: usize = MAX_OPEN_BYTES / 2;

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
    fn open(&mut self, record: &InRecord) -> Opened {
        if self.is_locked || self.bytes >= MAX_SHARE_BYTES {
            return Opened::Full;
        }
        let opened = self.checkpoint.open(record.position.offset);
        if opened == Opened::New {
            let size = size_of(record) + self.weight;
            self.bytes += size;
            self.open.insert(record.position.offset, size);
        }
        opened
    }

    /// Whether its flow should be stopped; once it is, until half of the room is free.
    fn is_full(&self) -> bool {
        let is_wide = || self.bytes > MAX_SHARE_BYTES / 2 || self.checkpoint.is_crowded();
        !self.waiting.is_empty() || self.is_stopped && is_wide()
    }
}

/// What is held of all assigned partitions.
#[derive(Default)]
pub(super) struct Held {
    shares: BTreeMap<Partition, Share>,
    records: usize,
    bytes: usize,
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
        let before = share.bytes;
        match share.open(&record) {
            Opened::Settled => None,
            Opened::Full => {
                share.waiting.push_back(record);
                None
            }
            Opened::New => {
                self.records += 1;
                self.bytes += share.bytes - before;
                Some(record)
            }
        }
    }

    /// A record that waited and fits by now.
    pub(super) fn next_waiting(&mut self) -> Option<InRecord> {
        for share in self.shares.values_mut() {
            while let Some(record) = share.waiting.pop_front() {
                let before = share.bytes;
                match share.open(&record) {
                    Opened::Settled => {}
                    Opened::Full => {
                        share.waiting.push_front(record);
                        break;
                    }
                    Opened::New => {
                        self.records += 1;
                        self.bytes += share.bytes - before;
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

    /// Whether all flow should be stopped; once it `is_stopped`, until a quarter of the room is free.
    pub(super) fn is_full(&self, is_stopped: bool) -> bool {
        let room = |most: usize| if is_stopped { most / 4 * 3 } else { most };
        self.records >= room(MAX_OPEN) || self.bytes >= room(MAX_OPEN_BYTES)
    }

    /// The partitions whose flow is to be stopped, or to go on.
    pub(super) fn flow(&mut self) -> Vec<(Partition, bool)> {
        let changed = self.shares.iter_mut().filter(|(_, share)| share.is_full() != share.is_stopped);
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
        share.bytes -= size;
        self.bytes -= size;
        self.records -= 1;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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

    fn record(number: i32, offset: i64, bytes: usize) -> InRecord {
        InRecord {
            position: Position { partition: partition(number), offset },
            key: None,
            value: Some(Bytes::from(vec![0; bytes])),
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
        assert!(held.offer(record(1, 0, 1)).is_some() && !held.is_full(false));
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

    #[test]
    fn one_partition_has_half_of_the_bytes_and_all_together_no_more_than_there_are() {
        let mut held = held(3);
        let size = 1 << 20;
        for (number, offset) in (0..2).flat_map(|number| (0..32).map(move |offset| (number, offset))) {
            assert!(!held.is_full(false), "{number} {offset}");
            assert!(held.offer(record(number, offset, size)).is_some());
        }
        assert!(held.offer(record(0, 32, size)).is_none());
        assert_eq!(held.flow(), [(partition(0), true)]);
        assert!(held.is_full(false));
        end(&mut held, 1, 0);
        assert!(!held.is_full(false) && held.is_full(true));
        (1..17).for_each(|offset| end(&mut held, 1, offset));
        assert!(!held.is_full(true), "a quarter is free");
        assert!(held.flow().is_empty());
        (0..17).for_each(|offset| end(&mut held, 0, offset));
        assert_eq!(held.next_waiting().unwrap().position.offset, 32);
        assert_eq!(held.flow(), [(partition(0), false)]);
    }

    #[test]
    fn what_a_stage_keeps_of_a_record_counts_with_it() {
        let mut held = Held::weighing((1 << 20) - 100);
        let assignment = Assignment { partition: partition(0), committed: Some(0), metadata: String::new() };
        held.assign(assignment, false);
        assert!((0..32).all(|offset| held.offer(record(0, offset, 100)).is_some()));
        assert!(held.offer(record(0, 32, 100)).is_none());
        end(&mut held, 0, 0);
        assert_eq!(held.next_waiting().unwrap().position.offset, 32);
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
