//! How often a fault strikes and which requests it may hit.
//!
//! Draws come from one seeded generator that the caller brings; a request that a fault does not cover costs no draw, so
//! that one fault's requests do not shift another's luck.

use rand::Rng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// Which requests a fault may hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// GET and HEAD.
    Reads,
    /// Everything else.
    Writes,
}

/// A request as faults see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) method: &'a str,
    /// From `/v2` or `/v3` on.
    pub(crate) path: &'a str,
}

impl Target<'_> {
    pub(crate) fn is_read(self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }
}

/// How often a fault strikes, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chance {
    /// From 0 (never) to 1 (always).
    pub share: f64,
    /// Reads or writes only; both when absent.
    pub only: Option<Only>,
    /// One HTTP method only.
    pub method: Option<String>,
    /// Only paths (from `/v2` or `/v3` on) that begin with this.
    pub path: Option<String>,
    /// Only paths of this pattern, segment by segment; `*` and `{anything}` stand for one segment.
    pub pattern: Option<String>,
    /// Requests that it covers and spares before it begins.
    pub after: u64,
    /// How often it strikes before it stops; without end when absent.
    pub times: Option<u64>,
}

impl Chance {
    /// A fault that hits any request with probability `share`.
    pub fn of(share: f64) -> Chance {
        Chance { share, ..Chance::default() }
    }

    /// The same, for reads or for writes only.
    #[must_use]
    pub fn only(mut self, only: Only) -> Chance {
        self.only = Some(only);
        self
    }

    /// The same, for one HTTP method only.
    #[must_use]
    pub fn method(mut self, method: &str) -> Chance {
        self.method = Some(method.to_owned());
        self
    }

    /// The same, for paths that begin with `path` only.
    #[must_use]
    pub fn path(mut self, path: &str) -> Chance {
        self.path = Some(path.to_owned());
        self
    }

    /// The same, for paths of a pattern such as `/v3/customers/*/metafields` only.
    #[must_use]
    pub fn pattern(mut self, pattern: &str) -> Chance {
        self.pattern = Some(pattern.to_owned());
        self
    }

    /// The same, but the first `count` requests that it covers are spared.
    #[must_use]
    pub fn after(mut self, count: u64) -> Chance {
        self.after = count;
        self
    }

    /// The same, a number of times only.
    #[must_use]
    pub fn times(mut self, times: u64) -> Chance {
        self.times = Some(times);
        self
    }

    /// Draws for one request, and counts the strike.
    pub(crate) fn strikes(&mut self, rng: &mut StdRng, target: Target<'_>) -> bool {
        if self.share <= 0.0 || self.times == Some(0) || !self.covers(target) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        let hit = rng.random::<f64>() < self.share;
        if let (true, Some(times)) = (hit, &mut self.times) {
            *times -= 1;
        }
        hit
    }

    fn covers(&self, target: Target<'_>) -> bool {
        is_meant(self.only, target)
            && self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(target.method))
            && self.path.as_ref().is_none_or(|prefix| target.path.starts_with(prefix.as_str()))
            && self.pattern.as_ref().is_none_or(|pattern| fits(pattern, target.path))
    }
}

/// A waiting time drawn evenly from `min_ms..=max_ms`, for a share of the cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delay {
    /// From 0 (never) to 1 (always); 1 when absent.
    pub share: f64,
    /// Reads or writes only; both when absent.
    pub only: Option<Only>,
    /// Only paths that begin with this.
    pub path: Option<String>,
    /// Shortest wait, milliseconds.
    pub min_ms: u64,
    /// Longest wait, milliseconds; 0 means no wait.
    pub max_ms: u64,
}

impl Default for Delay {
    fn default() -> Self {
        Delay { share: 1.0, only: None, path: None, min_ms: 0, max_ms: 0 }
    }
}

impl Delay {
    /// Waits between `min_ms` and `max_ms`, every time.
    pub fn between(min_ms: u64, max_ms: u64) -> Delay {
        Delay { min_ms, max_ms, ..Delay::default() }
    }

    pub(crate) fn covers(&self, target: Target<'_>) -> bool {
        is_meant(self.only, target)
            && self.path.as_ref().is_none_or(|prefix| target.path.starts_with(prefix.as_str()))
    }
}

fn is_meant(only: Option<Only>, target: Target<'_>) -> bool {
    only.is_none_or(|only| (only == Only::Reads) == target.is_read())
}

/// Whether a path has the segments of a pattern.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (pattern.trim_matches('/').split('/'), path.trim_matches('/').split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(segment), Some(part)) if segment == "*" || segment.starts_with('{') || segment == part => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn a_pattern_fits_segment_by_segment() {
        assert!(fits("/v3/customers/*/metafields", "/v3/customers/7/metafields"));
        assert!(fits("/v2/orders/{order_id}", "/v2/orders/7/"));
        assert!(!fits("/v2/orders/{order_id}", "/v2/orders"));
        assert!(!fits("/v2/orders", "/v2/orders/7"));
    }

    #[test]
    fn a_scripted_fault_spares_the_first_and_stops_after_its_count() {
        let mut chance = Chance::of(1.0).method("put").pattern("/v2/orders/*").after(2).times(1);
        let mut rng = StdRng::seed_from_u64(1);
        let mut ask = |method, path| chance.strikes(&mut rng, Target { method, path });
        assert!(!ask("POST", "/v2/orders"));
        let struck: Vec<bool> = (0..5).map(|_| ask("PUT", "/v2/orders/1")).collect();
        assert_eq!(struck, [false, false, true, false, false]);
    }
}
