//! Which records of a partition are settled, and how that is told to the broker.
//!
//! Keys finish out of order, and Kafka keeps one offset for a partition. So the committed offset is that of the
//! lowest open record, and the records above it that are settled already stand beside it as a bitmap, in the
//! metadata that the broker keeps with the offset. Both are written in the transaction that settles the
//! records: after a crash, what was settled is known exactly, however far the offset lags behind.
//!
//! Bounded: at most [`WINDOW`] offsets lie between the lowest open record and the highest, since the bitmap must
//! fit the 4,096 bytes that a broker allows (`offset.metadata.max.bytes`). When the window is full, the partition
//! waits for its oldest record.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Offsets between the committed one and the highest open one, at most: 16,384 bits are 2,048 bytes, 2,731
/// characters of base64.
pub const WINDOW: i64 = 16_384;

/// The metadata's format, for the day that it changes.
const PREFIX: &str = "b1:";

/// What became of an attempt to open a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It is to be worked on.
    New,
    /// It was settled in an earlier life; skip it.
    Settled,
    /// The window is full; offer it again when the checkpoint moved on.
    Full,
}

/// The state of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The lowest offset that is not settled; none until the first record of a partition without a commit.
    base: Option<i64>,
    /// One flag per offset from `base` on: settled or not. Never starts with a settled one.
    settled: VecDeque<bool>,
    /// The first offset that was not opened yet.
    high: i64,
}

impl Checkpoint {
    /// Takes up where a commit left off. Metadata that is not ours counts as empty.
    pub fn resume(committed: Option<i64>, metadata: &str) -> Self {
        let Some(base) = committed else { return Self::default() };
        let mut settled: VecDeque<bool> = metadata
            .strip_prefix(PREFIX)
            .and_then(|text| STANDARD_NO_PAD.decode(text).ok())
            .map(|bytes| bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect())
            .unwrap_or_default();
        settled.truncate(usize::try_from(WINDOW).expect("the window fits"));
        let mut checkpoint = Self { base: Some(base), settled, high: base };
        checkpoint.advance();
        checkpoint
    }

    /// Opens the next record of the partition. Offsets come in rising order; those left out (transaction
    /// markers, compacted records) count as settled.
    pub fn open(&mut self, offset: i64) -> Opened {
        let base = *self.base.get_or_insert(offset);
        if offset < base {
            return Opened::Settled;
        }
        // With nothing open, whatever lies before this record is done with, however far away it is.
        let base = if self.high <= base { self.jump(offset) } else { base };
        if offset - base >= WINDOW {
            return Opened::Full;
        }
        for skipped in self.high..offset {
            self.mark(skipped);
        }
        self.high = self.high.max(offset + 1);
        let settled = self.is_settled(offset);
        self.advance();
        if settled { Opened::Settled } else { Opened::New }
    }

    /// Settles an open record.
    pub fn settle(&mut self, offset: i64) {
        self.mark(offset);
        self.advance();
    }

    /// The offset to commit and the metadata beside it; none before the first record.
    pub fn commit(&self) -> Option<(i64, String)> {
        let base = self.base?;
        let Some(last) = self.settled.iter().rposition(|settled| *settled) else {
            return Some((base, String::new()));
        };
        let mut bytes = vec![0_u8; last / 8 + 1];
        for (index, _) in self.settled.iter().enumerate().filter(|(_, settled)| **settled) {
            bytes[index / 8] |= 1 << (index % 8);
        }
        Some((base, format!("{PREFIX}{}", STANDARD_NO_PAD.encode(bytes))))
    }

    /// Records opened and not settled.
    pub fn open_count(&self) -> usize {
        let Some(base) = self.base else { return 0 };
        let opened = usize::try_from(self.high - base).unwrap_or(0);
        opened - self.settled.iter().take(opened).filter(|settled| **settled).count()
    }

    /// Offsets from the lowest open record to the highest that was opened.
    pub fn width(&self) -> i64 {
        self.base.map_or(0, |base| (self.high - base).max(0))
    }

    /// Whether `offset` is settled by what was committed as `(next, metadata)`.
    pub fn covers(next: i64, metadata: &str, offset: i64) -> bool {
        Self::resume(Some(next), metadata).is_settled(offset)
    }

    /// Records that are not settled of those below `end`, by what was committed as `(next, metadata)`.
    pub fn unsettled(next: i64, metadata: &str, end: i64) -> u64 {
        let checkpoint = Self::resume(Some(next), metadata);
        let base = checkpoint.base.unwrap_or(next);
        let settled = checkpoint.settled.iter().filter(|settled| **settled).count();
        u64::try_from(end - base).unwrap_or(0).saturating_sub(settled as u64)
    }

    fn is_settled(&self, offset: i64) -> bool {
        let Some(base) = self.base else { return false };
        offset < base
            || usize::try_from(offset - base)
                .ok()
                .and_then(|index| self.settled.get(index))
                .copied()
                .unwrap_or(false)
    }

    /// Moves the base up to `offset`; there is nothing open below it.
    fn jump(&mut self, offset: i64) -> i64 {
        let base = self.base.unwrap_or(offset);
        let passed = usize::try_from(offset - base).unwrap_or(0).min(self.settled.len());
        self.settled.drain(..passed);
        (self.base, self.high) = (Some(offset), offset);
        offset
    }

    fn mark(&mut self, offset: i64) {
        let Some(base) = self.base else { return };
        let Ok(index) = usize::try_from(offset - base) else { return };
        if index >= self.settled.len() {
            self.settled.resize(index + 1, false);
        }
        self.settled[index] = true;
    }

    fn advance(&mut self) {
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            if let Some(base) = &mut self.base {
                *base += 1;
            }
        }
        self.high = self.high.max(self.base.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fullest_window_fits_what_a_broker_keeps() {
        let mut checkpoint = Checkpoint::default();
        for offset in 0..WINDOW {
            assert_eq!(checkpoint.open(offset), Opened::New);
        }
        assert_eq!(checkpoint.open(WINDOW), Opened::Full);
        for offset in 1..WINDOW {
            checkpoint.settle(offset);
        }
        let (next, metadata) = checkpoint.commit().unwrap();
        assert_eq!(next, 0);
        assert!(metadata.len() <= 4096, "{} bytes", metadata.len());
        checkpoint.settle(0);
        assert_eq!(checkpoint.commit(), Some((WINDOW, String::new())));
        assert_eq!(checkpoint.open(WINDOW), Opened::New);
    }

    #[test]
    fn a_gap_wider_than_the_window_is_passed_when_nothing_is_open() {
        let mut checkpoint = Checkpoint::resume(Some(7), "");
        assert_eq!(checkpoint.open(7 + 3 * WINDOW), Opened::New);
        let last = 7 + 5 * WINDOW;
        assert_eq!(checkpoint.open(last), Opened::Full, "the record before is open");
        checkpoint.settle(7 + 3 * WINDOW);
        assert_eq!(checkpoint.open(last), Opened::New);
        assert_eq!(checkpoint.commit(), Some((last, String::new())));
    }

    #[test]
    fn what_was_settled_above_a_gap_stays_settled() {
        let mut checkpoint = Checkpoint::default();
        assert!((0..10).all(|offset| checkpoint.open(offset) == Opened::New));
        [4, 5, 9].into_iter().for_each(|offset| checkpoint.settle(offset));
        let (next, metadata) = checkpoint.commit().unwrap();
        let mut checkpoint = Checkpoint::resume(Some(next), &metadata);
        assert_eq!(checkpoint.open(4), Opened::Settled, "0 to 3 were deleted meanwhile");
        assert_eq!(checkpoint.open(6), Opened::New);
        assert_eq!(checkpoint.open(9), Opened::Settled);
        assert_eq!(checkpoint.commit().unwrap().0, 6);
        assert_eq!(checkpoint.open_count(), 1);
    }

    #[test]
    fn metadata_of_others_counts_as_empty() {
        for text in ["", "b1:!", "hello", "b2:AAAA"] {
            assert_eq!(Checkpoint::resume(Some(7), text).commit(), Some((7, String::new())), "{text}");
        }
    }

    proptest! {
        /// Against a set of offsets: nothing open is ever covered by a commit, everything settled is, and a
        /// crash at any moment gives each record back exactly when it was not settled.
        #[test]
        fn a_commit_covers_what_is_settled_and_nothing_else(
            start in 0_i64..1000,
            steps in prop::collection::vec((1_i64..4, any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            let mut checkpoint = Checkpoint::default();
            let (mut opened, mut settled) = (Vec::new(), BTreeSet::new());
            let mut next = start;
            for (gap, pick, crash) in steps {
                prop_assert_eq!(checkpoint.open(next), Opened::New);
                opened.push(next);
                next += gap;
                let open: Vec<i64> = opened.iter().copied().filter(|o| !settled.contains(o)).collect();
                let chosen = open[pick.index(open.len())];
                checkpoint.settle(chosen);
                settled.insert(chosen);
                let (committed, metadata) = checkpoint.commit().unwrap();
                for offset in &opened {
                    prop_assert_eq!(Checkpoint::covers(committed, &metadata, *offset), settled.contains(offset));
                }
                prop_assert_eq!(checkpoint.open_count(), opened.len() - settled.len());
                if crash {
                    checkpoint = Checkpoint::resume(Some(committed), &metadata);
                    for offset in opened.iter().filter(|o| **o >= committed) {
                        let expected = if settled.contains(offset) { Opened::Settled } else { Opened::New };
                        prop_assert_eq!(checkpoint.open(*offset), expected);
                    }
                }
            }
        }
    }
}
