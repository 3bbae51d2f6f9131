//! How far the incoming path is behind, and how many hints may wait for it. Pure.
//!
//! A callback stands behind the hints that scans made before it, so no more of them may wait than the path settles in
//! about half a second: with the pages on their way it is a second. How many that are nobody can know beforehand: it is learned from what became of those that waited.

use std::time::{Duration, Instant};

/// How old the last look may be.
pub(super) const AGE: Duration = Duration::from_secs(1);
/// Hints that may always wait: a page, and what a slow path settles in a second.
const LEAST: u64 = 300;
/// Hints that may wait at most: more would buy nothing, as lists bring fewer in a second.
const MOST: u64 = 1_500;

/// How much more room a path is given that kept up: a page.
const STEP: u64 = 250;

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    sample: Option<(Instant, u64)>,
    /// Hints that were made since the sample was asked for.
    since: u64,
    /// How many of these may be in the sample that is asked for now.
    before: u64,
    is_asking: bool,
    asked: Option<Instant>,
    /// How many may wait.
    room: u64,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { sample: None, since: 0, before: 0, is_asking: false, asked: None, room: LEAST }
    }
}

impl Backlog {
    /// Hints were made.
    pub(super) fn made(&mut self, hints: usize) {
        self.since += hints as u64;
    }

    /// Whether more may be made. Not where nobody knows how many wait.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let sample = self.sample.filter(|(taken, _)| now.duration_since(*taken) < AGE * 2);
        sample.is_some_and(|(_, waiting)| waiting + self.since < self.room)
    }

    /// Whether to look now; the answer is due with [`Self::looked`].
    pub(super) fn begin_look(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none_or(|asked| now.duration_since(asked) >= AGE);
        if self.is_asking || !due {
            return false;
        }
        (self.is_asking, self.asked, self.before) = (true, Some(now), self.since);
        true
    }

    /// When the next look is due.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        self.asked.map_or(now, |asked| asked + AGE)
    }

    /// A look ended: so many wait, or it is not known.
    pub(super) fn looked(&mut self, waiting: Option<u64>, now: Instant) {
        self.is_asking = false;
        let Some(waiting) = waiting else { return };
        if let Some((taken, earlier)) = self.sample {
            self.learn(earlier + self.before, waiting, now.duration_since(taken));
        }
        self.since -= self.before;
        self.sample = Some((now, waiting));
    }

    /// Of `given` hints, `left` wait after this time.
    fn learn(&mut self, given: u64, left: u64, passed: Duration) {
        let settled = given.saturating_sub(left) as f64;
        let in_half_a_second = (settled / passed.as_secs_f64().max(0.1) / 2.0) as u64;
        self.room = if left < self.room / 4 {
            // It kept up, so it may be able to do more. Without work nothing is learned.
            if given > 0 { self.room + STEP } else { self.room }
        } else {
            self.room.midpoint(in_half_a_second)
        };
        self.room = self.room.clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pages of 250 hints as fast as there is room, a path that settles `rate` a second: the most that ever waited,
    /// and how many were settled.
    fn run(rate: u64, seconds: u64) -> (u64, u64) {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        let (mut waiting, mut most, mut settled) = (0_u64, 0, 0);
        for tenth in 0..seconds * 10 {
            let now = start + Duration::from_millis(tenth * 100);
            if backlog.begin_look(now) {
                backlog.looked(Some(waiting), now);
            }
            if backlog.has_room(now) {
                backlog.made(250);
                waiting += 250;
            }
            most = most.max(waiting);
            let done = waiting.min(rate / 10);
            waiting -= done;
            settled += done;
        }
        (most, settled)
    }

    #[test]
    fn a_path_that_keeps_up_is_given_ever_more() {
        let (most, settled) = run(10_000, 60);
        assert!(most <= MOST + 250 && settled > 60 * 1_200, "{most} waited, {settled} settled");
    }

    #[test]
    fn nothing_is_made_while_nobody_knows() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(!backlog.has_room(now));
        assert!(backlog.begin_look(now) && !backlog.begin_look(now));
        backlog.looked(Some(0), now);
        assert!(backlog.has_room(now) && !backlog.has_room(now + AGE * 2));
        backlog.made(300);
        assert!(!backlog.has_room(now));
    }

    proptest! {
        /// Whatever the path can do, a callback stands behind little more than the work of a second, or of two
        /// pages where that is more; and the path is kept at work.
        #[test]
        fn a_callback_is_never_far_behind(rate in 100_u64..5_000) {
            let (most, settled) = run(rate, 120);
            prop_assert!(most <= rate.max(LEAST) + 750, "{} wait at {} a second", most, rate);
            prop_assert!(settled >= (rate * 100).min(120 * 1_000) * 6 / 10, "{} settled at {} a second", settled, rate);
        }
    }
}
