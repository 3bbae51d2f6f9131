//! Of the last commands of a route, how many ended as dead letters. Pure.
//!
//! A route whose mapping or token is wrong would move its whole topic into the dead letters, one by one. So it stops
//! when too many of the last commands failed, and waits for a person (`halts`).

use std::collections::VecDeque;

/// Commands that are looked back on: enough to smooth a bad batch, few enough to stop early.
const RECENT: usize = 200;
/// Commands that must have ended before the share means anything.
const LEAST: usize = 100;

/// The last commands of one route.
#[derive(Debug)]
pub(super) struct Share {
    /// Whether each of the last commands failed.
    recent: VecDeque<bool>,
    failed: usize,
    /// The share, in percent, from which on it stops; none never does.
    limit: Option<u8>,
}

impl Share {
    /// Nothing ended yet.
    pub(super) fn new(limit: Option<u8>) -> Self {
        Self { recent: VecDeque::new(), failed: 0, limit }
    }

    /// A command ended; whether too many of the last ones failed.
    pub(super) fn ended(&mut self, failed: bool) -> bool {
        self.recent.push_back(failed);
        self.failed += usize::from(failed);
        if self.recent.len() > RECENT && self.recent.pop_front() == Some(true) {
            self.failed -= 1;
        }
        self.is_reached()
    }

    /// Whether too many of the last commands failed.
    fn is_reached(&self) -> bool {
        self.recent.len() >= LEAST
            && self.limit.is_some_and(|limit| self.failed * 100 >= self.recent.len() * usize::from(limit))
    }

    /// Whether the route never stops.
    pub(super) fn is_off(&self) -> bool {
        self.limit.is_none()
    }

    /// Of how many of the last commands how many failed.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.recent.len(), self.failed)
    }

    /// Begins to count anew.
    pub(super) fn go_on(&mut self) {
        *self = Self::new(self.limit);
    }

    /// The partitions that were counted are not ours any more: what stopped them must not stop the next ones.
    pub(super) fn leave(&mut self) {
        if self.is_reached() {
            self.go_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many commands it stops, of which every `nth` fails.
    fn stops_after(nth: usize, limit: Option<u8>) -> Option<usize> {
        let mut share = Share::new(limit);
        (1..=10_000).find(|number| share.ended(number % nth == 0))
    }

    #[test]
    fn it_stops_where_the_share_is_reached_and_never_below() {
        assert_eq!(stops_after(1, Some(50)), Some(LEAST));
        assert_eq!(stops_after(2, Some(50)), Some(LEAST));
        assert_eq!(stops_after(3, Some(50)), None);
        assert_eq!(stops_after(100, Some(1)), Some(LEAST));
        assert_eq!(stops_after(1, None), None);
    }

    #[test]
    fn a_route_that_was_well_for_long_stops_when_its_last_commands_fail() {
        let mut share = Share::new(Some(50));
        assert!((0..100_000).all(|_| !share.ended(false)));
        let until = (1..=RECENT).find(|_| share.ended(true));
        assert_eq!(until, Some(RECENT / 2));
        share.go_on();
        assert!(!share.ended(true));
    }

    #[test]
    fn what_stopped_a_route_is_not_held_against_the_next_partitions() {
        let mut share = Share::new(Some(50));
        assert!((1..LEAST).all(|_| !share.ended(true)));
        share.leave();
        assert!(share.ended(true), "it had not stopped");
        share.leave();
        assert!(!share.ended(true));
    }
}
