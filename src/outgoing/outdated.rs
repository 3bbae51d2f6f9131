//! Entries of ledgers that are needed no longer, to be deleted a few at a time.
//!
//! They are found when a ledger is read back, and deleted with later transactions. Meanwhile a new command may come with
//! the id of such an entry: its own entry must not be deleted, so the old one is left out then; and while the deletion is
//! on its way, the new command waits, since an intent is written apart from transactions and might come before it.
//!
//! Nothing else: it neither knows what is outdated nor writes. What there is no room for stays in the ledger, and is found
//! again when that is read back the next time.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::record::{OutRecord, Position};

/// Entries that are kept in mind, at most: some 15 MB. A thousand transactions delete them, which is soon; more are only
/// found where nothing was deleted for a long time.
const MAX: usize = 100_000;
/// Entries that are deleted in one transaction, at most: a small part of it.
const MAX_AT_ONCE: usize = 100;

/// A ledger, its partition, and the key of an entry.
type Name = (Arc<str>, Option<i32>, Bytes);

/// See the module.
#[derive(Debug)]
pub(super) struct Outdated {
    found: BTreeSet<Name>,
    /// What is being deleted, until that is committed.
    on_their_way: HashSet<Name>,
    /// The same, by the end of the command that it is committed with, in the order of these ends.
    with: VecDeque<(Position, Vec<Name>)>,
    max: usize,
}

impl Default for Outdated {
    fn default() -> Self {
        Self::with_limit(MAX)
    }
}

impl Outdated {
    fn with_limit(max: usize) -> Self {
        Self { found: BTreeSet::new(), on_their_way: HashSet::new(), with: VecDeque::new(), max }
    }

    /// Takes records that delete entries, each entry once, as long as there is room.
    pub(super) fn extend(&mut self, deletions: impl IntoIterator<Item = OutRecord>) {
        for name in deletions.into_iter().filter_map(|record| name(&record)) {
            if self.found.len() < self.max {
                self.found.insert(name);
            }
        }
    }

    /// An entry with the key of this record is written now, in the order of transactions: it stays.
    pub(super) fn keep(&mut self, record: &OutRecord) {
        if let Some(name) = name(record) {
            self.found.remove(&name);
        }
    }

    /// The same for an entry that is written apart from transactions. False while an earlier deletion might still come
    /// after it.
    pub(super) fn may_write(&mut self, record: &OutRecord) -> bool {
        let Some(name) = name(record) else { return true };
        self.found.remove(&name);
        !self.on_their_way.contains(&name)
    }

    /// Some of the records, to be committed together with the end of the command at `position`.
    pub(super) fn take(&mut self, position: &Position) -> Vec<OutRecord> {
        let names: Vec<Name> = std::iter::from_fn(|| self.found.pop_first()).take(MAX_AT_ONCE).collect();
        let records = names.iter().cloned().map(deletion).collect();
        if !names.is_empty() {
            self.on_their_way.extend(names.iter().cloned());
            self.with.push_back((position.clone(), names));
        }
        records
    }

    /// What stood there is committed: the next ones of those that ended, in order.
    pub(super) fn committed(&mut self, positions: &[Position]) {
        for position in positions {
            // Between them are some with which nothing was deleted.
            if self.with.front().is_none_or(|(next, _)| next != position) {
                continue;
            }
            for name in self.with.pop_front().into_iter().flat_map(|(_, names)| names) {
                self.on_their_way.remove(&name);
            }
        }
    }

    /// Forgets everything: the partitions are not ours any more.
    pub(super) fn clear(&mut self) {
        *self = Self::with_limit(self.max);
    }
}

fn name(record: &OutRecord) -> Option<Name> {
    Some((record.topic.clone(), record.partition, record.key.clone()?))
}

fn deletion((topic, partition, key): Name) -> OutRecord {
    OutRecord { topic, partition, key: Some(key), value: None, headers: Vec::new(), timestamp_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Partition;

    fn of(ledger: &str, number: usize) -> OutRecord {
        deletion((ledger.into(), Some(1), format!("command/{number:06}").into()))
    }

    fn position(offset: i64) -> Position {
        Position { partition: Partition { topic: "commands".into(), number: 3 }, offset }
    }

    #[test]
    fn each_entry_is_deleted_once_and_a_few_at_a_time() {
        let mut outdated = Outdated::default();
        outdated.extend((0..150).chain(50..250).map(|number| of("a", number)));
        outdated.extend([of("b", 0)]);
        let taken: Vec<_> = (0..4).map(|offset| outdated.take(&position(offset))).collect();
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 51, 0]);
        let all: Vec<_> = taken.concat();
        let expected: Vec<_> = (0..250).map(|number| of("a", number)).chain([of("b", 0)]).collect();
        assert_eq!(all, expected);
        outdated.committed(&[position(0), position(1), position(2)]);
        assert!(outdated.on_their_way.is_empty() && outdated.with.is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_is_left_where_it_is() {
        let mut outdated = Outdated::with_limit(3);
        outdated.extend((0..9).map(|number| of("a", number)));
        assert_eq!(outdated.take(&position(1)), [of("a", 0), of("a", 1), of("a", 2)]);
        outdated.clear();
        outdated.extend((3..9).map(|number| of("a", number)));
        assert_eq!(outdated.take(&position(1)).len(), 3, "it is found again");
    }

    #[test]
    fn an_entry_that_is_written_again_is_not_deleted() {
        let mut outdated = Outdated::default();
        outdated.extend([of("a", 1), of("b", 1), of("a", 2), of("a", 3)]);
        assert!(outdated.may_write(&of("a", 1)));
        outdated.keep(&of("a", 2));
        assert_eq!(outdated.take(&position(1)), [of("a", 3), of("b", 1)]);
    }

    #[test]
    fn while_a_deletion_is_on_its_way_nothing_is_written_that_it_might_undo() {
        let mut outdated = Outdated::default();
        outdated.extend((0..101).map(|number| of("a", number)));
        outdated.take(&position(1));
        outdated.take(&position(3));
        assert!(!outdated.may_write(&of("a", 0)) && !outdated.may_write(&of("a", 100)));
        assert!(outdated.may_write(&of("b", 0)), "it is another ledger's");
        outdated.committed(&[position(0), position(1), position(2)]);
        assert!(outdated.may_write(&of("a", 0)) && !outdated.may_write(&of("a", 100)));
        outdated.committed(&[position(3)]);
        assert!(outdated.may_write(&of("a", 100)));
    }
}
