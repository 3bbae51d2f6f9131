//! Of the last commands of a route, how many ended as dead letters. Pure.
//!
//! A route whose mapping or token is wrong would move its whole topic into the dead letters, one by one. So it stops
//! when too many of the last commands failed, and waits for a person.

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
    stopped_ms: Option<i64>,
}

impl Share {
    /// Nothing ended yet.
    pub(super) fn new(limit: Option<u8>) -> Self {
        Self { recent: VecDeque::new(), failed: 0, limit, stopped_ms: None }
    }

    /// A command ended; whether the route stops now.
    pub(super) fn ended(&mut self, failed: bool, at_ms: i64) -> bool {
        self.recent.push_back(failed);
        self.failed += usize::from(failed);
        if self.recent.len() > RECENT && self.recent.pop_front() == Some(true) {
            self.failed -= 1;
        }
        let stops = self.stopped_ms.is_none()
            && self.recent.len() >= LEAST
            && self.limit.is_some_and(|limit| self.failed * 100 >= self.recent.len() * usize::from(limit));
        if stops {
            self.stopped_ms = Some(at_ms);
        }
        stops
    }

    /// Since when it stands still, in milliseconds since the epoch.
    pub(super) fn stopped_ms(&self) -> Option<i64> {
        self.stopped_ms
    }

    /// Begins to count anew.
    pub(super) fn go_on(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many commands it stops, of which every `nth` fails.
    fn stops_after(nth: usize, limit: Option<u8>) -> Option<usize> {
        let mut share = Share::new(limit);
        (1..=10_000).find(|number| share.ended(number % nth == 0, 7))
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
        assert!((0..100_000).all(|_| !share.ended(false, 7)));
        let until = (1..=RECENT).find(|_| share.ended(true, 8));
        assert_eq!((until, share.stopped_ms()), (Some(RECENT / 2), Some(8)));
        assert!(!share.ended(true, 9), "it stops once");
        share.go_on();
        assert_eq!(share.stopped_ms(), None);
        assert!(!share.ended(true, 10));
    }
}
