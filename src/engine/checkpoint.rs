//! Which records of a partition are settled, and how that is told to the broker.
//!
//! Keys finish out of order, and Kafka keeps one offset for a partition. So the committed offset is that of the
//! lowest open record, and what is settled above it stands beside it, in the metadata that the broker keeps with the
//! offset. Both are written in the transaction that settles the records: after a crash, what was settled is known
//! exactly, however far the offset lags behind.
//!
//! Bounded, since the metadata must fit the 4,096 bytes that a broker allows (`offset.metadata.max.bytes`). Up to
//! [`WINDOW`] offsets between the lowest open record and the highest are told by a bitmap. Beyond that the open ones
//! are listed, of which there may be [`FEW`]: a key that is stuck leaves the partition's others that many turns at
//! once. Where neither fits, the partition waits for its oldest records.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Offsets between the committed one and the highest open one that a bitmap tells: 16,384 bits are 2,048 bytes, 2,731
/// characters of base64.
pub const WINDOW: i64 = 16_384;

/// Open records that a list tells: at most 4 bytes each, 2,800 bytes, 3,734 characters of base64.
pub const FEW: usize = 700;

/// Offsets between the committed one and the highest open one, at most: what 4 bytes of 7 bits tell, and hours of a
/// busy partition.
const FAR: i64 = 1 << 27;

/// How a bitmap begins: a bit for each offset, set where it is settled.
const BITMAP: &str = "b1:";
/// How a list begins: distances as LEB128, from the committed offset to the first open record, from each to the next,
/// and from the last to the end of what is known. All others in between are settled.
const LIST: &str = "l1:";

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
    /// Whether there is anything to commit: a record was opened, or an earlier life committed.
    is_begun: bool,
    /// What is not settled below `end`, whether this life or an earlier one opened it.
    open: BTreeSet<i64>,
    /// The first offset of which nothing is known; all below are settled unless they are open.
    end: i64,
    /// The first offset that this life has not opened yet.
    high: i64,
}

impl Checkpoint {
    /// Takes up where a commit left off. Metadata that is not ours counts as empty.
    pub fn resume(committed: Option<i64>, metadata: &str) -> Self {
        let Some(base) = committed else { return Self::default() };
        let text = |prefix| metadata.strip_prefix(prefix).and_then(|text| STANDARD_NO_PAD.decode(text).ok());
        let known = match (text(BITMAP), text(LIST)) {
            (Some(bytes), _) => Some(from_bitmap(base, &bytes)),
            (_, Some(bytes)) => from_list(base, &bytes),
            (None, None) => None,
        };
        let (open, end) = known.unwrap_or((BTreeSet::new(), base));
        Self { is_begun: true, open, end, high: base }
    }

    /// Opens the next record of the partition. Offsets come in rising order; those left out (transaction
    /// markers, compacted records) count as settled.
    pub fn open(&mut self, offset: i64) -> Opened {
        let base = self.base();
        if self.is_begun && offset < base {
            return Opened::Settled;
        }
        self.pass(offset);
        // With nothing open, whatever lies before this record is done with, however far away it is.
        let first = self.open.first().copied().unwrap_or(offset);
        if offset >= self.end && !self.fits(first, offset) {
            return Opened::Full;
        }
        (self.is_begun, self.high) = (true, offset + 1);
        if offset >= self.end {
            self.end = offset + 1;
            self.open.insert(offset);
        }
        if self.open.contains(&offset) { Opened::New } else { Opened::Settled }
    }

    /// What an earlier life opened and this one does not find any more is done with.
    fn pass(&mut self, offset: i64) {
        if self.high < offset && self.open.range(self.high..offset).next().is_some() {
            let mut later = self.open.split_off(&self.high);
            self.open.append(&mut later.split_off(&offset));
        }
    }

    /// Whether the metadata can tell of a further record.
    fn fits(&self, first: i64, offset: i64) -> bool {
        let width = offset - first;
        width < WINDOW || self.open.len() < FEW && width < FAR
    }

    /// Settles an open record.
    pub fn settle(&mut self, offset: i64) {
        self.open.remove(&offset);
    }

    /// The offset to commit and the metadata beside it; none before the first record.
    pub fn commit(&self) -> Option<(i64, String)> {
        if !self.is_begun {
            return None;
        }
        let base = self.base();
        let known = usize::try_from(self.end - base).unwrap_or(0);
        let metadata = match known {
            // Nothing above the base is settled.
            known if known == self.open.len() => String::new(),
            known if self.end - base <= WINDOW => {
                format!("{BITMAP}{}", STANDARD_NO_PAD.encode(self.bitmap(base, known)))
            }
            _ => format!("{LIST}{}", STANDARD_NO_PAD.encode(self.list(base))),
        };
        Some((base, metadata))
    }

    fn bitmap(&self, base: i64, known: usize) -> Vec<u8> {
        let mut bytes = vec![0_u8; known.div_ceil(8)];
        for index in 0..known {
            bytes[index / 8] |= 1 << (index % 8);
        }
        for index in self.open.iter().filter_map(|offset| usize::try_from(offset - base).ok()) {
            bytes[index / 8] &= !(1 << (index % 8));
        }
        // What lies behind the last settled one needs no telling.
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        bytes
    }

    fn list(&self, base: i64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.open.len() * 4 + 4);
        let mut last = base;
        for offset in self.open.iter().chain([&self.end]) {
            let mut distance = offset - last;
            while distance >= 0x80 {
                bytes.push(u8::try_from(distance & 0x7f).expect("seven bits fit") | 0x80);
                distance >>= 7;
            }
            bytes.push(u8::try_from(distance).expect("seven bits fit"));
            last = *offset;
        }
        bytes
    }

    /// Records opened and not settled.
    #[cfg(test)]
    fn open_count(&self) -> usize {
        self.open.range(..self.high).count()
    }

    /// Whether half of the room for open records is taken: a flow that was stopped should stay so. What an earlier life
    /// left open takes no room before it comes again: it comes by that flow.
    pub fn is_crowded(&self) -> bool {
        self.high - self.base() > WINDOW / 2 && self.open.range(..self.high).nth(FEW / 2).is_some()
    }

    /// Whether `offset` is settled by what was committed as `(next, metadata)`.
    pub fn covers(next: i64, metadata: &str, offset: i64) -> bool {
        Self::resume(Some(next), metadata).is_settled(offset)
    }

    /// Records that are not settled of those below `end`, by what was committed as `(next, metadata)`.
    pub fn unsettled(next: i64, metadata: &str, end: i64) -> u64 {
        let checkpoint = Self::resume(Some(next), metadata);
        let settled = checkpoint.end - next - i64::try_from(checkpoint.open.len()).unwrap_or(0);
        u64::try_from(end - next - settled).unwrap_or(0)
    }

    /// The lowest offset that is not settled.
    fn base(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.end)
    }

    fn is_settled(&self, offset: i64) -> bool {
        self.is_begun && offset < self.end && !self.open.contains(&offset)
    }
}

/// What a bitmap says is open, and where its knowledge ends.
fn from_bitmap(base: i64, bytes: &[u8]) -> (BTreeSet<i64>, i64) {
    let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    let bits: Vec<bool> = bits.take(usize::try_from(WINDOW).expect("the window fits")).collect();
    let known = bits.iter().rposition(|settled| *settled).map_or(0, |last| last + 1);
    let open = (base..).zip(&bits[..known]).filter(|(_, settled)| !**settled).map(|(offset, _)| offset);
    (open.collect(), base + i64::try_from(known).expect("the window fits"))
}

/// What a list says is open, and where its knowledge ends; none where it is damaged.
fn from_list(base: i64, bytes: &[u8]) -> Option<(BTreeSet<i64>, i64)> {
    let (mut offsets, mut distance, mut shift) = (Vec::new(), 0_i64, 0);
    let mut last = base;
    for byte in bytes {
        distance |= i64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            last = last.checked_add(distance)?;
            offsets.push(last);
            (distance, shift) = (0, 0);
        } else if shift > 28 {
            return None;
        }
    }
    let end = offsets.pop().filter(|_| shift == 0)?;
    Some((offsets.into_iter().collect(), end))
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
        assert!(checkpoint.is_crowded());
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
    fn a_record_that_stays_open_leaves_the_others_few_turns_however_far_they_get() {
        let mut checkpoint = Checkpoint::default();
        assert_eq!(checkpoint.open(0), Opened::New);
        let last = 20 * WINDOW;
        for offset in 1..last {
            assert_eq!(checkpoint.open(offset), Opened::New, "{offset}");
            checkpoint.settle(offset);
        }
        assert!(!checkpoint.is_crowded());
        let few = i64::try_from(FEW).unwrap();
        for offset in last..last + few - 1 {
            assert_eq!(checkpoint.open(offset), Opened::New, "{offset}");
        }
        assert_eq!(checkpoint.open(last + few - 1), Opened::Full);
        let (next, metadata) = checkpoint.commit().unwrap();
        assert_eq!(next, 0);
        assert!(metadata.len() <= 4096, "{} bytes", metadata.len());
        let mut resumed = Checkpoint::resume(Some(next), &metadata);
        assert_eq!(resumed.open(0), Opened::New);
        assert_eq!(resumed.open(last - 1), Opened::Settled);
        assert_eq!(resumed.open(last), Opened::New);
        assert_eq!(Checkpoint::unsettled(next, &metadata, last + few), FEW as u64 + 1);
    }

    #[test]
    fn what_an_earlier_life_left_open_does_not_crowd_this_one() {
        let mut checkpoint = Checkpoint::default();
        assert!((0..WINDOW).all(|offset| checkpoint.open(offset) == Opened::New));
        checkpoint.settle(WINDOW - 1);
        assert!(checkpoint.is_crowded());
        let (next, metadata) = checkpoint.commit().unwrap();
        let mut resumed = Checkpoint::resume(Some(next), &metadata);
        assert!(!resumed.is_crowded(), "else its flow would never begin");
        assert!((0..WINDOW - 1).all(|offset| resumed.open(offset) == Opened::New));
        assert!(resumed.is_crowded());
    }

    #[test]
    fn the_longest_list_fits_what_a_broker_keeps() {
        let mut checkpoint = Checkpoint::default();
        let apart = FAR / i64::try_from(FEW).unwrap();
        for number in 0..i64::try_from(FEW).unwrap() {
            assert_eq!(checkpoint.open(number * apart), Opened::New);
        }
        let (next, metadata) = checkpoint.commit().unwrap();
        assert!(metadata.len() <= 4096, "{} bytes", metadata.len());
        assert_eq!(Checkpoint::resume(Some(next), &metadata).open, checkpoint.open);
    }

    #[test]
    fn a_gap_wider_than_the_window_is_passed_when_nothing_is_open() {
        let mut checkpoint = Checkpoint::resume(Some(7), "");
        assert_eq!(checkpoint.open(7 + 3 * WINDOW), Opened::New);
        let last = 7 + 5 * WINDOW;
        assert_eq!(checkpoint.clone().open(last + FAR), Opened::Full, "the record before is open");
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
        for text in ["", "b1:!", "hello", "b2:AAAA", "l1:", "l1:gICAgICAgIA", "l1:gA"] {
            assert_eq!(Checkpoint::resume(Some(7), text).commit(), Some((7, String::new())), "{text}");
        }
    }

    proptest! {
        /// Against a set of offsets: nothing open is ever covered by a commit, everything settled is, and a
        /// crash at any moment gives each record back exactly when it was not settled.
        #[test]
        fn a_commit_covers_what_is_settled_and_nothing_else(
            start in 0_i64..1000,
            steps in prop::collection::vec((prop_oneof![9 => 1_i64..4, 1 => 1_i64..WINDOW], any::<prop::sample::Index>(), any::<bool>()), 1..200),
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
