//! What waits outside the lanes, because its key or its route stands still: so it takes no lane from another one, and
//! nobody looks at it again and again.
//!
//! What had a lane when its route stopped, or when its turn came behind a command that failed, leaves it as it is, with
//! all that is behind it. What comes for a route that stands still is kept as it came: only when the route goes on is it
//! read, as its settings are then. Both keep their order. Bounded by what the runner lets be open of each partition.

use std::collections::{HashMap, VecDeque};

use super::{Item, LaneKey, Outgoing, What};
use crate::model::record::{InRecord, Partition};
use crate::runtime::ports::{Append, Settled, Store};

/// Records of a route that goes on which are read at once, at most, before others have their turn: a few milliseconds.
const AT_ONCE: usize = 200;

/// What waits; see the module.
pub(super) struct Waiting<S> {
    /// What came while a partition of a route stood still.
    records: HashMap<Partition, VecDeque<InRecord>>,
    /// What had a lane. A key that is here has none.
    aside: HashMap<LaneKey, VecDeque<Item<S>>>,
}

impl<S> Default for Waiting<S> {
    fn default() -> Self {
        Self { records: HashMap::new(), aside: HashMap::new() }
    }
}

impl<S> Waiting<S> {
    /// The first command of each lane that was set aside.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Item<S>> {
        self.aside.values().filter_map(VecDeque::front)
    }

    /// Forgets everything: the partitions are not ours any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The lanes that were set aside with a first command of this partition, in its order.
    fn aside_of(&self, partition: &Partition) -> Vec<LaneKey> {
        let place = |(lane, items): (&LaneKey, &VecDeque<Item<S>>)| {
            let position = &items.front()?.record.position;
            (position.partition == *partition).then(|| (position.offset, lane.clone()))
        };
        let mut lanes: Vec<(i64, LaneKey)> = self.aside.iter().filter_map(place).collect();
        lanes.sort_unstable_by_key(|(offset, _)| *offset);
        lanes.into_iter().map(|(_, lane)| lane).collect()
    }
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// Keeps a record of a partition that stands still, or of which earlier records are still kept; gives it back else.
    pub(super) fn keep(&mut self, record: InRecord) -> Option<InRecord> {
        let partition = &record.position.partition;
        if self.halts.is_stopped(partition) || self.waiting.records.contains_key(partition) {
            self.waiting.records.entry(partition.clone()).or_default().push_back(record);
            return None;
        }
        Some(record)
    }

    /// Lets a command wait for its turn, behind all earlier ones of its lane.
    pub(super) fn queue(&mut self, line: usize, lane: LaneKey, item: Item<S>) {
        match self.waiting.aside.get_mut(&lane) {
            Some(items) => items.push_back(item),
            None => self.lines[line].lanes.push(lane, item),
        }
    }

    /// Sets a running or parked lane aside.
    pub(super) fn set_aside(&mut self, line: usize, lane: &LaneKey) {
        let items = self.lines[line].lanes.close(lane);
        if !items.is_empty() {
            self.waiting.aside.entry(lane.clone()).or_default().extend(items);
        }
    }

    /// Gives what was set aside its lane again. It is looked at once more before it is begun.
    pub(super) fn take_up(&mut self, line: usize, lane: &LaneKey) {
        for item in self.waiting.aside.remove(lane).unwrap_or_default() {
            self.lines[line].lanes.push(lane.clone(), item);
        }
    }

    /// Gives all lanes of a partition that were set aside their place again, in order.
    pub(super) fn take_up_all(&mut self, line: usize, partition: &Partition) {
        for lane in self.waiting.aside_of(partition) {
            self.take_up(line, &lane);
        }
    }

    /// Takes what came for a partition of a route meanwhile, in order, as long as the route does not stop again.
    pub(super) fn admit(&mut self, line: usize, partition: Partition) -> Vec<Settled> {
        let mut settled = Vec::new();
        for _ in 0..AT_ONCE {
            if self.halts.is_stopped(&partition) {
                return settled;
            }
            let Some(records) = self.waiting.records.get_mut(&partition) else { return settled };
            let Some(record) = records.pop_front() else {
                self.waiting.records.remove(&partition);
                return settled;
            };
            settled.extend(self.take(record));
        }
        self.push_job(line, std::future::ready(What::Resumed(partition)));
        settled
    }
}
