//! How many of our own requests may have reached the store within the last window.
//!
//! A request counts from the moment it is granted until one window after it ended: whenever in between the
//! store received it, every window of the store's that holds it lies within that time. So the count is right for
//! fixed and for sliding windows, wherever they start. Memory is bounded: ends are gathered in slots.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Slots a window. Gathering makes a request count longer by one slot at most, here 3 % of a window.
const SLOTS: u32 = 32;

/// The count.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// End of the slot, and how many requests ended in it; oldest first.
    ended: VecDeque<(Instant, u32)>,
    total: u32,
}

impl Recent {
    /// Notes that a request ended.
    pub(super) fn ended(&mut self, at: Instant, window: Duration) {
        self.total = self.total.saturating_add(1);
        match self.ended.back_mut() {
            Some((end, count)) if at <= *end => *count = count.saturating_add(1),
            _ => self.ended.push_back((at + window / SLOTS, 1)),
        }
    }

    /// The number of requests that still count.
    pub(super) fn count(&mut self, now: Instant, window: Duration) -> u32 {
        while let Some((end, count)) = self.ended.front().copied() {
            if end + window > now {
                break;
            }
            self.total -= count;
            self.ended.pop_front();
        }
        self.total
    }

    /// When the next ones stop counting.
    pub(super) fn next_release(&self, window: Duration) -> Option<Instant> {
        self.ended.front().map(|(end, _)| *end + window)
    }
}
