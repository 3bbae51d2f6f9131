//! One rate window of the store, as far as its replies tell.
//!
//! A reply says how long its window still lasts, but not when it said so: somewhere between our sending and our
//! receiving. So the end of a window is an interval. Replies whose intervals overlap speak of one window, and
//! the lowest number left that any of them named is the one to believe, since replies overtake each other.

use std::time::{Duration, Instant};

/// What is known of the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// The earliest moment at which it may end.
    earliest_end: Instant,
    /// The latest: from here on its number left says nothing.
    pub(super) ends: Instant,
    /// How long windows are.
    pub(super) length: Duration,
    /// The lowest number left that was seen in it; none if the store does not say.
    pub(super) left: Option<u32>,
}

/// What a reply's window is to the one that we know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// The same; it was refined.
    Same,
    /// A later one took its place.
    Newer,
    /// It is over: the reply says nothing about now.
    Older,
}

impl Window {
    /// A window as one reply tells it.
    pub(super) fn seen(sent: Instant, received: Instant, reset_in: Duration, length: Duration) -> Self {
        Self { earliest_end: sent + reset_in, ends: received.max(sent) + reset_in, length, left: None }
    }

    /// A window that is only assumed, because the store tells nothing.
    pub(super) fn assumed(now: Instant, length: Duration) -> Self {
        Self { earliest_end: now + length, ends: now + length, length, left: None }
    }

    /// Takes in what another reply tells.
    pub(super) fn merge(&mut self, seen: Self) -> Merged {
        // Stores round to the millisecond or to the second, and clocks drift: a twentieth is 1.5 s of 30 s.
        let slack = self.length / 20;
        if seen.earliest_end > self.ends + slack {
            *self = seen;
            return Merged::Newer;
        }
        if seen.ends + slack < self.earliest_end {
            return Merged::Older;
        }
        self.earliest_end = self.earliest_end.max(seen.earliest_end).min(self.ends);
        self.ends = self.ends.min(seen.ends).max(self.earliest_end);
        self.length = seen.length;
        self.left = match (self.left, seen.left) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Merged::Same
    }

    /// The part of the window that is still to come, `0.0..=1.0`.
    pub(super) fn remaining(&self, now: Instant) -> f64 {
        let left = self.ends.saturating_duration_since(now).as_secs_f64();
        (left / self.length.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn seen(base: Instant, sent_ms: u64, received_ms: u64, reset_ms: u64, left: u32) -> Window {
        let at = |ms| base + Duration::from_millis(ms);
        let mut window = Window::seen(at(sent_ms), at(received_ms), Duration::from_millis(reset_ms), LENGTH);
        window.left = Some(left);
        window
    }

    #[test]
    fn overtaking_replies_of_one_window_keep_the_lowest_number_left() {
        let base = Instant::now();
        let mut window = seen(base, 0, 200, 10_000, 90);
        assert_eq!(window.merge(seen(base, 50, 250, 9_950, 97)), Merged::Same);
        assert_eq!(window.left, Some(90));
        assert_eq!(window.merge(seen(base, 300, 400, 9_650, 80)), Merged::Same);
        assert_eq!(window.left, Some(80));
    }

    #[test]
    fn a_late_reply_of_the_window_before_is_ignored() {
        let base = Instant::now();
        let mut window = seen(base, 10_000, 10_100, 30_000, 150);
        assert_eq!(window.merge(seen(base, 9_000, 10_200, 900, 3)), Merged::Older);
        assert_eq!(window.left, Some(150));
    }

    #[test]
    fn a_reply_of_the_next_window_replaces_what_was_known() {
        let base = Instant::now();
        let mut window = seen(base, 0, 100, 5_000, 3);
        assert_eq!(window.merge(seen(base, 5_200, 5_300, 29_900, 149)), Merged::Newer);
        assert_eq!(window.left, Some(149));
    }
}
