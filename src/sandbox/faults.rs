//! What goes wrong on purpose, how often, and for which requests.
//!
//! Every knob is off by default. Draws come from one seeded generator, so a run can be repeated as far as the order of
//! requests can.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
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

/// How often a fault strikes, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chance {
    /// From 0 (never) to 1 (always).
    pub share: f64,
    /// Reads or writes only; both when absent.
    pub only: Option<Only>,
    /// Only paths (from `/v2` or `/v3` on) that begin with this.
    pub path: Option<String>,
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

    /// The same, for paths that begin with `path` only.
    #[must_use]
    pub fn path(mut self, path: &str) -> Chance {
        self.path = Some(path.to_owned());
        self
    }

    /// The same, a number of times only.
    #[must_use]
    pub fn times(mut self, times: u64) -> Chance {
        self.times = Some(times);
        self
    }

    /// Draws for one request, and counts the strike.
    fn strikes(&mut self, rng: &mut StdRng, is_read: bool, path: &str) -> bool {
        let hit = self.times != Some(0) && self.covers(is_read, path) && rng.random::<f64>() < self.share;
        if let (true, Some(times)) = (hit, &mut self.times) {
            *times -= 1;
        }
        hit
    }

    fn covers(&self, is_read: bool, path: &str) -> bool {
        self.share > 0.0
            && self.only.is_none_or(|only| (only == Only::Reads) == is_read)
            && self.path.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_str()))
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
}

/// The faults of a sandbox. Off by default, may be changed at run time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Reads show the state as it was this many milliseconds ago.
    pub read_lag_ms: u64,
    /// The same for lists, where they lag otherwise than single reads.
    pub list_lag_ms: Option<u64>,
    /// Answers 401, as for a token that was revoked.
    pub status_401: Chance,
    /// Answers 500 instead of doing anything.
    pub status_500: Chance,
    /// Answers 503 instead of doing anything.
    pub status_503: Chance,
    /// Answers 429 without any rate-limit header, as a platform under load does.
    #[serde(alias = "429_without_headers")]
    pub bare_429: Chance,
    /// Answers 403, as for a token without the OAuth scope.
    pub status_403: Chance,
    /// Drops the TCP connection before anything is done.
    pub cut_before: Chance,
    /// Drops the TCP connection after the work is done, without an answer.
    pub cut_after: Chance,
    /// Sends half of the body, then drops the connection.
    pub truncated: Chance,
    /// Answers late.
    pub slow: Delay,
    /// Share of callbacks that are never sent.
    pub lost_callbacks: f64,
    /// Share of callbacks that are sent twice, with one webhook-id.
    pub duplicate_callbacks: f64,
    /// Sends callbacks late, which reorders them.
    pub callback_delay: Delay,
    /// Share of callbacks lost while their destination is blocked (the documentation contradicts itself on these).
    pub lost_while_blocked: f64,
    /// Whether a retry is signed with a fresh timestamp (not documented).
    pub resign_retries: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            read_lag_ms: 0,
            list_lag_ms: None,
            status_401: Chance::default(),
            status_500: Chance::default(),
            status_503: Chance::default(),
            bare_429: Chance::default(),
            status_403: Chance::default(),
            cut_before: Chance::default(),
            cut_after: Chance::default(),
            truncated: Chance::default(),
            slow: Delay::default(),
            lost_callbacks: 0.0,
            duplicate_callbacks: 0.0,
            callback_delay: Delay::default(),
            lost_while_blocked: 0.0,
            resign_retries: true,
        }
    }
}

impl Profile {
    /// How far single reads and lists lag.
    pub(crate) fn lags(&self) -> (Duration, Duration) {
        let single = Duration::from_millis(self.read_lag_ms);
        (single, self.list_lag_ms.map_or(single, Duration::from_millis))
    }
}

/// The faults that one request meets, drawn when it arrives.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fate {
    pub(crate) cut_before: bool,
    pub(crate) cut_after: bool,
    pub(crate) truncated: bool,
    /// 401, 403, 429 (without headers), 500 or 503 in place of an answer.
    pub(crate) status: Option<u16>,
    pub(crate) wait: Duration,
}

/// What happens to one callback, drawn when its event occurs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct CallbackFate {
    pub(crate) lost: bool,
    pub(crate) twice: bool,
    pub(crate) wait: Duration,
}

/// The profile in force and its generator.
#[derive(Debug)]
pub(crate) struct Dice {
    pub(crate) profile: Profile,
    rng: StdRng,
}

impl Dice {
    pub(crate) fn new(profile: Profile, seed: u64) -> Dice {
        Dice { profile, rng: StdRng::seed_from_u64(seed) }
    }

    fn hit(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random::<f64>() < share
    }

    fn wait(&mut self, delay: &Delay) -> Duration {
        if delay.max_ms == 0 || !self.hit(delay.share) {
            return Duration::ZERO;
        }
        Duration::from_millis(self.rng.random_range(delay.min_ms.min(delay.max_ms)..=delay.max_ms))
    }

    /// Draws for a request.
    pub(crate) fn request(&mut self, is_read: bool, path: &str) -> Fate {
        let (profile, rng) = (&mut self.profile, &mut self.rng);
        let mut strikes = |chance: &mut Chance| chance.strikes(rng, is_read, path);
        let status = [
            (&mut profile.status_401, 401),
            (&mut profile.status_403, 403),
            (&mut profile.bare_429, 429),
            (&mut profile.status_500, 500),
            (&mut profile.status_503, 503),
        ]
        .into_iter()
        .find_map(|(chance, status)| strikes(chance).then_some(status));
        let (cut_before, cut_after) = (strikes(&mut profile.cut_before), strikes(&mut profile.cut_after));
        let truncated = strikes(&mut profile.truncated);
        let slow = profile.slow.clone();
        let place = Chance { share: 1.0, only: slow.only, path: slow.path.clone(), times: None };
        let wait = if place.covers(is_read, path) { self.wait(&slow) } else { Duration::ZERO };
        Fate { cut_before, cut_after, truncated, status, wait }
    }

    /// Draws for a callback.
    pub(crate) fn callback(&mut self) -> CallbackFate {
        let (lost, twice) = (self.profile.lost_callbacks, self.profile.duplicate_callbacks);
        let delay = self.profile.callback_delay.clone();
        CallbackFate { lost: self.hit(lost), twice: self.hit(twice), wait: self.wait(&delay) }
    }

    /// Whether a callback to a blocked destination is lost rather than retried.
    pub(crate) fn lost_while_blocked(&mut self) -> bool {
        self.hit(self.profile.lost_while_blocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_writes_below_a_path_leaves_the_rest_alone() {
        let chance = Chance::of(1.0).only(Only::Writes).path("/v3/catalog");
        let mut dice = Dice::new(Profile { status_500: chance, ..Profile::default() }, 1);
        assert_eq!(dice.request(false, "/v3/catalog/products").status, Some(500));
        assert_eq!(dice.request(true, "/v3/catalog/products").status, None);
        assert_eq!(dice.request(false, "/v2/orders").status, None);
    }

    #[test]
    fn a_profile_reads_from_json_with_everything_off_by_default() {
        let profile: Profile = serde_json::from_str(
            r#"{"429_without_headers": {"share": 0.1}, "slow": {"min_ms": 1, "max_ms": 2, "only": "reads"}}"#,
        )
        .unwrap();
        assert_eq!(profile.bare_429.share, 0.1);
        assert_eq!(profile.slow.only, Some(Only::Reads));
        assert!(profile.resign_retries);
        assert!(serde_json::from_str::<Profile>(r#"{"lost_callback": 1}"#).is_err());
    }
}
