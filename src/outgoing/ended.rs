//! The ids of commands that ended, in little memory: when each did, and in which partition the ledger tells how.
//!
//! Pure. Of an id only a hash is kept, so an id that never came may look like one that ended, once in many millions of
//! years: whoever asks must look at the ledger's key. Ids that ended last stay. Those before them are forgotten many at
//! once, a whole table of them: a hash table out of which things are taken one by one grows without need.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher};

use crate::runtime::ports::Trace;

/// Tables of ids. The oldest of them is forgotten as a whole.
const TABLES: usize = 16;
/// Ids in one table: what 2^16 places hold (7/8 of them) before their number doubles. With 17 bytes a place, all tables
/// together are 18 MB, of 860,000 to 917,504 ids.
const IDS_OF_A_TABLE: usize = 57_344;

/// A hash of a command's id within one ledger.
pub(super) fn hash(ledger: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (ledger, id).hash(&mut hasher);
    hasher.finish()
}

/// Where and when the end of a command was written down. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// Bits of a place that tell the partition: more than any topic has.
const PARTITION_BITS: u32 = 16;

impl Place {
    /// `partition` is the ledger's, `at_ms` counts from the epoch. Both are cut to what fits, which no real one is.
    pub(super) fn new(partition: i32, at_ms: i64) -> Self {
        let at_ms = u64::try_from(at_ms).unwrap_or(0).min(u64::MAX >> PARTITION_BITS);
        Self(at_ms << PARTITION_BITS | u64::from(u16::try_from(partition).unwrap_or(u16::MAX)))
    }

    /// The partition of the ledger.
    pub(super) fn partition(self) -> i32 {
        i32::try_from(self.0 & ((1 << PARTITION_BITS) - 1)).expect("16 bits fit")
    }

    /// Milliseconds since the epoch.
    pub(super) fn at_ms(self) -> i64 {
        i64::try_from(self.0 >> PARTITION_BITS).expect("48 bits fit")
    }
}

/// What is a hash already is not hashed again.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.hash(&mut DefaultHasher::new());
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Table = HashMap<u64, Place, BuildHasherDefault<Same>>;

/// The ids that ended last; see the module.
#[derive(Debug)]
pub(super) struct Ended {
    /// The newest is the last one. An id that ended again may be in an earlier one as well, which does not count then.
    tables: VecDeque<Table>,
    max_tables: usize,
    of_a_table: usize,
    /// What was restored and is not in a table yet: partitions come one after another, and tables go by time.
    restored: Vec<(Place, u64)>,
}

impl Default for Ended {
    fn default() -> Self {
        Self::with_limits(TABLES, IDS_OF_A_TABLE)
    }
}

impl Ended {
    pub(super) fn with_limits(max_tables: usize, of_a_table: usize) -> Self {
        let (tables, restored) = (VecDeque::new(), Vec::new());
        Self { tables, max_tables: max_tables.max(1), of_a_table: of_a_table.max(1), restored }
    }

    /// Takes what a partition of the ledger holds. To be called before anything ends.
    pub(super) fn restore(&mut self, partition: i32, traces: Vec<Trace>) {
        let restored = traces.into_iter().map(|trace| (Place::new(partition, trace.at_ms), trace.hash));
        self.restored.extend(restored);
        if self.restored.len() > self.max() {
            self.keep_newest();
        }
    }

    /// A command has ended.
    pub(super) fn insert(&mut self, hash: u64, place: Place) {
        self.settle_in();
        self.put(hash, place);
    }

    /// Where and when a command with this hash ended last, if one did after `since_ms`.
    pub(super) fn get(&mut self, hash: u64, since_ms: i64) -> Option<Place> {
        self.settle_in();
        let found = self.tables.iter().rev().find_map(|table| table.get(&hash));
        found.copied().filter(|place| place.at_ms() >= since_ms)
    }

    fn max(&self) -> usize {
        self.max_tables * self.of_a_table
    }

    fn keep_newest(&mut self) {
        // The same partition comes once for each topic of commands that goes with it.
        self.restored.sort_unstable();
        self.restored.dedup();
        let too_many = self.restored.len().saturating_sub(self.max());
        self.restored.drain(..too_many);
    }

    /// Moves what was restored into tables, by its time.
    fn settle_in(&mut self) {
        if self.restored.is_empty() {
            return;
        }
        self.keep_newest();
        for (place, hash) in std::mem::take(&mut self.restored) {
            self.put(hash, place);
        }
    }

    fn put(&mut self, hash: u64, place: Place) {
        if self.tables.back().is_none_or(|table| table.len() >= self.of_a_table && !table.contains_key(&hash))
        {
            if self.tables.len() >= self.max_tables {
                self.tables.pop_front();
            }
            self.tables.push_back(Table::default());
        }
        if let Some(table) = self.tables.back_mut() {
            table.insert(hash, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_tells_partition_and_time() {
        for (partition, at_ms) in [(0, 0), (9_999, 1_795_475_000_123), (65_535, (1 << 48) - 1)] {
            let place = Place::new(partition, at_ms);
            assert_eq!((place.partition(), place.at_ms()), (partition, at_ms));
        }
        assert!(Place::new(9, 1) < Place::new(0, 2));
    }

    #[test]
    fn ids_of_different_ledgers_are_different() {
        assert_ne!(hash("a", "1"), hash("b", "1"));
        assert_eq!(hash("a", "1"), hash("a", "1"));
    }

    #[test]
    fn a_full_index_keeps_its_size() {
        let mut ended = Ended::default();
        for number in 0..1_000_000_u64 {
            ended.insert(
                hash("ledger", &number.to_string()),
                Place::new(1, 1_000 + i64::try_from(number).unwrap()),
            );
        }
        let places: usize = ended.tables.iter().map(|table| table.capacity() * 8 / 7).sum();
        assert!(places <= 1 << 20, "{places} places");
        let mut knows = |number: u64| ended.get(hash("ledger", &number.to_string()), 0).is_some();
        assert!((1_000_000 - 860_000..1_000_000).all(&mut knows));
        assert!(!knows(0) && !knows(1_000_000));
    }

    #[test]
    fn what_several_partitions_held_is_sorted_in_by_its_time() {
        let mut ended = Ended::with_limits(2, 4);
        let traces = |times: std::ops::Range<i64>, step| {
            times.map(|at_ms| Trace { hash: u64::try_from(at_ms).unwrap() * 10 + step, at_ms }).collect()
        };
        ended.restore(1, traces(0..20, 1));
        ended.restore(2, traces(0..20, 2));
        ended.restore(2, traces(0..20, 2));
        for at_ms in 16..20 {
            assert_eq!(ended.get(u64::try_from(at_ms).unwrap() * 10 + 1, 0), Some(Place::new(1, at_ms)));
            assert_eq!(ended.get(u64::try_from(at_ms).unwrap() * 10 + 2, 0), Some(Place::new(2, at_ms)));
        }
        assert_eq!(ended.get(151, 0), None);
        assert_eq!(ended.get(191, 20), None, "it is too old to count");
    }

    proptest! {
        #[test]
        fn those_that_ended_last_are_known_and_never_more_than_there_is_room_for(
            restored in proptest::collection::vec((0u64..60, 0i64..50), 0..40),
            ended_since in proptest::collection::vec(0u64..60, 0..120),
            (tables, of_a_table) in (1usize..5, 1usize..7),
        ) {
            let mut ended = Ended::with_limits(tables, of_a_table);
            let (mut last, mut order) = (HashMap::new(), Vec::new());
            let mut sorted = restored.clone();
            sorted.sort_by_key(|(hash, at_ms)| (*at_ms, *hash));
            ended.restore(0, restored.iter().map(|(hash, at_ms)| Trace { hash: *hash, at_ms: *at_ms }).collect());
            let since = ended_since.iter().enumerate().map(|(n, hash)| (*hash, 100 + i64::try_from(n).unwrap()));
            for (hash, at_ms) in sorted.into_iter().chain(since) {
                if at_ms >= 100 {
                    ended.insert(hash, Place::new(0, at_ms));
                }
                last.insert(hash, at_ms);
                order.retain(|known| *known != hash);
                order.push(hash);
            }
            ended.settle_in();
            prop_assert!(ended.tables.len() <= tables);
            prop_assert!(ended.tables.iter().all(|table| table.len() <= of_a_table));
            // One table is full, beside the one that fills; ids that ended again may be in all of them.
            let sure = if tables == 1 { 1 } else { of_a_table };
            for hash in order.iter().rev().take(sure).copied() {
                prop_assert_eq!(ended.get(hash, 0), Some(Place::new(0, last[&hash])), "{} was forgotten", hash);
            }
            for hash in 0..60 {
                let got = ended.get(hash, 0).map(Place::at_ms);
                prop_assert!(got.is_none() || got == last.get(&hash).copied(), "{} of another time", hash);
            }
        }
    }
}
