//! The store's request quota per window and the caps on requests in flight per endpoint.
//!
//! The window is fixed, not sliding: it begins with the first request after the last one ended. The caps are those the
//! documentation states; everything else is uncapped.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Method, path pattern, most requests in flight.
static CONCURRENCY: LazyLock<Vec<(&'static str, &'static str, usize)>> = LazyLock::new(|| {
    include_str!("data/concurrency.tsv")
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('\t');
            Some((cells.next()?, cells.next()?, cells.next()?.parse().ok()?))
        })
        .collect()
});

/// What the headers of an answer say about the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) quota: u32,
    pub(crate) left: u32,
    pub(crate) window: Duration,
    pub(crate) reset: Duration,
    /// The request is over the quota.
    pub(crate) refused: bool,
}

/// A fixed window of requests.
#[derive(Debug)]
pub(crate) struct Window {
    quota: u32,
    window: Duration,
    began: Option<Instant>,
    used: u32,
}

impl Window {
    pub(crate) fn new(quota: u32, window: Duration) -> Window {
        Window { quota, window, began: None, used: 0 }
    }

    /// Changes the quota from now on.
    pub(crate) fn set_quota(&mut self, quota: u32) {
        self.quota = quota;
    }

    /// Counts one request at `now`.
    pub(crate) fn count(&mut self, now: Instant) -> Standing {
        let began = match self.began {
            Some(began) if now.saturating_duration_since(began) < self.window => began,
            _ => {
                self.used = 0;
                *self.began.insert(now)
            }
        };
        let refused = self.used >= self.quota;
        self.used = self.used.saturating_add(u32::from(!refused));
        Standing {
            quota: self.quota,
            left: self.quota.saturating_sub(self.used),
            window: self.window,
            reset: self.window.saturating_sub(now.saturating_duration_since(began)),
            refused,
        }
    }
}

/// Requests in flight per capped endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<usize, usize>>>);

/// One request in flight; leaves on drop.
#[derive(Debug)]
pub(crate) struct Place(InFlight, Option<usize>);

impl InFlight {
    /// Takes a place at the endpoint, or none when its cap is reached.
    pub(crate) fn enter(&self, method: &str, pattern: &str) -> Option<Place> {
        let Some(row) = CONCURRENCY.iter().position(|(verb, path, _)| *verb == method && *path == pattern)
        else {
            return Some(Place(self.clone(), None));
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(row).or_default();
        if *count >= CONCURRENCY[row].2 {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), Some(row)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(row) = self.1 else { return };
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&row) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_refuses_above_its_quota_and_begins_anew() {
        let mut window = Window::new(2, Duration::from_secs(30));
        let start = Instant::now();
        assert_eq!(window.count(start).left, 1);
        assert_eq!(window.count(start).left, 0);
        let third = window.count(start + Duration::from_secs(10));
        assert!(third.refused);
        assert_eq!(third.reset, Duration::from_secs(20));
        assert!(!window.count(start + Duration::from_secs(30)).refused);
    }

    #[test]
    fn every_cap_is_read_and_names_a_route() {
        let lines = include_str!("data/concurrency.tsv").lines().count();
        assert_eq!(CONCURRENCY.len(), lines);
        for (method, pattern, cap) in CONCURRENCY.iter() {
            assert!(*cap > 0, "{method} {pattern}");
            assert!(crate::sandbox::resources::serves(method, pattern), "{method} {pattern}");
        }
    }

    #[test]
    fn a_capped_endpoint_has_only_so_many_places() {
        let flight = InFlight::default();
        let places: Vec<_> = (0..3).map(|_| flight.enter("PUT", "/v3/customers").unwrap()).collect();
        assert!(flight.enter("PUT", "/v3/customers").is_none());
        assert!(flight.enter("GET", "/v3/customers").is_some());
        drop(places);
        assert!(flight.enter("PUT", "/v3/customers").is_some());
    }
}
