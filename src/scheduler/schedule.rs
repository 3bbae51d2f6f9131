//! When polls and sweeps are due, and how much they read. Pure.
//!
//! All times are unix milliseconds of the wall clock, kept in the ledger: what was missed while nobody ran is due at
//! once, and only once, however long that was. A run that is late shifts those after it; they never pile up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scan::Mode;

/// How far back a filter by date reaches behind the last watermark: for clocks that differ, and for lists that lag
/// behind what they list.
pub const OVERLAP_MS: i64 = 10 * 60 * 1_000;
/// Ids are compared at every sweep where that takes no more pages than this; else once a day.
const CHEAP_PAGES: u64 = 8;
/// Starts are spread over a tenth of the interval, and over no more than this.
const MAX_SPREAD: Duration = Duration::from_secs(60);

/// How an entity is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// Between two polls.
    pub every: Duration,
    /// The first one runs at the start; else after one interval.
    pub at_start: bool,
    /// Between two that read everything, of an entity that can be filtered by date.
    pub full: Duration,
}

/// How an entity is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Between two sweeps.
    pub every: Duration,
    /// Between two comparisons of all ids, where that takes many pages.
    pub full: Duration,
}

/// What is scheduled of one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The poll.
    Poll,
    /// The sweep by date of change.
    Sweep,
    /// The comparison of all ids.
    Ids,
}

/// What is known of earlier runs in one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When the last one began, however it ended.
    #[serde(default)]
    pub begun_ms: Option<i64>,
    /// When the last one began that read all it should.
    #[serde(default)]
    pub low_ms: Option<i64>,
    /// When the last one began that read everything.
    #[serde(default)]
    pub full_ms: Option<i64>,
    /// Pages that the last one took that read everything.
    #[serde(default)]
    pub pages: Option<u64>,
}

/// What is known of earlier runs for one entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// When the entity was first scheduled.
    pub anchor_ms: i64,
    /// When this was written last.
    #[serde(default)]
    pub at_ms: i64,
    /// Of polls.
    #[serde(default)]
    pub poll: Mark,
    /// Of sweeps.
    #[serde(default)]
    pub sweep: Mark,
    /// Of comparisons.
    #[serde(default)]
    pub ids: Mark,
}

impl Marks {
    /// The mark of a slot.
    pub fn of(&self, slot: Slot) -> &Mark {
        match slot {
            Slot::Poll => &self.poll,
            Slot::Sweep => &self.sweep,
            Slot::Ids => &self.ids,
        }
    }

    /// The mark of a slot, to be changed.
    pub fn of_mut(&mut self, slot: Slot) -> &mut Mark {
        match slot {
            Slot::Poll => &mut self.poll,
            Slot::Sweep => &mut self.sweep,
            Slot::Ids => &mut self.ids,
        }
    }

    /// Notes that a scan read all that it should.
    pub fn succeeded(&mut self, slot: Slot, mode: Mode, began_ms: i64, pages: u64) {
        let mark = self.of_mut(slot);
        mark.low_ms = Some(began_ms);
        if !matches!(mode, Mode::Changed(_)) {
            (mark.full_ms, mark.pages) = (Some(began_ms), Some(pages));
        }
    }
}

/// The schedule of one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Polls.
    pub poll: Option<Poll>,
    /// Sweeps.
    pub sweep: Option<Sweep>,
    /// The list can be filtered by date of change.
    pub has_since: bool,
    /// A number of the entity's own, which spreads the starts.
    pub seed: u64,
}

impl Schedule {
    /// When a slot is due; none if it never is.
    pub fn due(&self, slot: Slot, marks: &Marks) -> Option<i64> {
        let (poll, sweep) = (self.poll, self.sweep);
        let mark = marks.of(slot);
        let first = |every: Duration| marks.anchor_ms + millis(every) + millis(self.spread(every));
        match slot {
            Slot::Poll => poll.map(|poll| match mark.begun_ms {
                Some(begun) => begun + millis(poll.every),
                None if poll.at_start => marks.anchor_ms + millis(self.spread(poll.every)),
                None => first(poll.every),
            }),
            Slot::Sweep if !self.has_since => None,
            Slot::Sweep => sweep.map(|sweep| match mark.begun_ms {
                Some(begun) => begun + millis(sweep.every),
                None => first(sweep.every),
            }),
            Slot::Ids => sweep.map(|sweep| {
                let cheap = mark.pages.is_some_and(|pages| pages <= CHEAP_PAGES);
                let every = if cheap { sweep.every } else { sweep.full.max(sweep.every) };
                match (mark.begun_ms, mark.full_ms) {
                    (None, _) => first(sweep.every),
                    (Some(begun), Some(full)) if full == begun => begun + millis(every),
                    // The last one did not come to its end.
                    (Some(begun), _) => begun + millis(sweep.every),
                }
            }),
        }
    }

    /// What a slot that is due now reads.
    pub fn mode(&self, slot: Slot, marks: &Marks, now_ms: i64) -> Mode {
        let mark = marks.of(slot);
        match slot {
            Slot::Poll => {
                let full = self.poll.map_or(Duration::ZERO, |poll| poll.full);
                let is_fresh = mark.full_ms.is_some_and(|at| now_ms < at + millis(full));
                match mark.low_ms {
                    Some(low) if self.has_since && is_fresh => Mode::Changed(low - OVERLAP_MS),
                    _ => Mode::Whole,
                }
            }
            Slot::Sweep => Mode::Changed(mark.low_ms.unwrap_or(marks.anchor_ms) - OVERLAP_MS),
            Slot::Ids if self.has_since => Mode::Ids,
            Slot::Ids => Mode::Whole,
        }
    }

    fn spread(&self, every: Duration) -> Duration {
        let most = millis(every / 10).min(millis(MAX_SPREAD)).unsigned_abs();
        Duration::from_millis(if most == 0 { 0 } else { self.seed % most })
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn schedule(has_since: bool) -> Schedule {
        let (quarter, hour, day) =
            (Duration::from_secs(900), Duration::from_secs(3_600), Duration::from_secs(86_400));
        Schedule {
            poll: Some(Poll { every: quarter, at_start: true, full: day }),
            sweep: Some(Sweep { every: hour, full: day }),
            has_since,
            seed: 7_000,
        }
    }

    #[test]
    fn the_first_poll_runs_at_the_start_a_little_spread() {
        let marks = Marks { anchor_ms: 1_000, ..Marks::default() };
        assert_eq!(schedule(true).due(Slot::Poll, &marks), Some(8_000));
        assert_eq!(schedule(true).mode(Slot::Poll, &marks, 8_000), Mode::Whole);
    }

    #[test]
    fn what_was_missed_is_due_once() {
        let mut marks = Marks::default();
        marks.poll.begun_ms = Some(0);
        let long_after = 1_000 * MINUTE;
        assert!(schedule(true).due(Slot::Poll, &marks).is_some_and(|due| due < long_after));
        marks.poll.begun_ms = Some(long_after);
        assert_eq!(schedule(true).due(Slot::Poll, &marks), Some(long_after + 15 * MINUTE));
    }

    #[test]
    fn a_poll_reads_what_changed_since_the_last_that_succeeded() {
        let mut marks = Marks::default();
        marks.poll.begun_ms = Some(100 * MINUTE);
        marks.succeeded(Slot::Poll, Mode::Whole, 100 * MINUTE, 40);
        // One that failed moves nothing.
        marks.poll.begun_ms = Some(115 * MINUTE);
        assert_eq!(schedule(true).mode(Slot::Poll, &marks, 130 * MINUTE), Mode::Changed(90 * MINUTE));
        assert_eq!(schedule(false).mode(Slot::Poll, &marks, 130 * MINUTE), Mode::Whole);
        let a_day_later = 100 * MINUTE + 24 * 60 * MINUTE;
        assert_eq!(schedule(true).mode(Slot::Poll, &marks, a_day_later), Mode::Whole);
    }

    #[test]
    fn ids_are_compared_with_every_sweep_where_that_is_cheap() {
        let mut marks = Marks::default();
        assert_eq!(schedule(true).due(Slot::Ids, &marks), Some(60 * MINUTE + 7_000));
        marks.ids.begun_ms = Some(60 * MINUTE);
        assert_eq!(schedule(true).due(Slot::Ids, &marks), Some(120 * MINUTE), "it did not end");
        marks.succeeded(Slot::Ids, Mode::Ids, 60 * MINUTE, 3);
        assert_eq!(schedule(true).due(Slot::Ids, &marks), Some(120 * MINUTE));
        marks.ids.pages = Some(400);
        assert_eq!(schedule(true).due(Slot::Ids, &marks), Some(60 * MINUTE + 24 * 60 * MINUTE));
        assert_eq!(schedule(false).due(Slot::Sweep, &marks), None);
        assert_eq!(schedule(false).mode(Slot::Ids, &marks, 0), Mode::Whole);
    }
}
