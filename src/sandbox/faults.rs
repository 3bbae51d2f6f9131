//! What goes wrong on purpose, how often, and for which requests.
//!
//! Every knob is off by default. Draws come from one seeded generator, so a run can be repeated as far as the order of
//! requests can.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chance::{Chance, Delay, Target};
use super::reply::Reply;
use super::store::Lag;

/// How much later a late commit takes effect, unless told otherwise: longer than a hasty retry, shorter than a test.
const LATE_MS: u64 = 2_000;

/// The faults of a sandbox. Off by default, may be changed at run time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Reads show the state as it was this many milliseconds ago.
    pub read_lag_ms: u64,
    /// The same for lists, where they lag otherwise than single reads.
    pub list_lag_ms: Option<u64>,
    /// Lists show a created row only after this many milliseconds; reads by id and rules of uniqueness know it at once.
    pub created_lag_ms: u64,
    /// Answers 401, as for a token that was revoked.
    pub status_401: Chance,
    /// Answers 413 instead of doing anything, as for a body that is too large.
    pub status_413: Chance,
    /// Answers 500 instead of doing anything.
    pub status_500: Chance,
    /// Answers 502 with a page of HTML, as a gateway does, instead of doing anything.
    pub status_502: Chance,
    /// Answers 503 instead of doing anything.
    pub status_503: Chance,
    /// Answers 504 with a page of HTML, as a gateway does, instead of doing anything.
    pub status_504: Chance,
    /// Writes that the documentation lets answer 207 are done in part: the last item of a batch is left out and named,
    /// a single object is saved without the part that the answer names.
    pub status_207: Chance,
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
    /// Does the work, and lists what was written in the opposite order.
    pub reversed: Chance,
    /// Does the work, and leaves the last row out of the list of what was written.
    pub shortened: Chance,
    /// Does the work, and answers 200 with a page of HTML, as a gateway that was misled does.
    pub page_200: Chance,
    /// Drops the TCP connection at once and does the work `late_commit_ms` later.
    pub late_commit: Chance,
    /// How much later.
    pub late_commit_ms: u64,
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
            created_lag_ms: 0,
            status_401: Chance::default(),
            status_413: Chance::default(),
            status_500: Chance::default(),
            status_502: Chance::default(),
            status_503: Chance::default(),
            status_504: Chance::default(),
            status_207: Chance::default(),
            bare_429: Chance::default(),
            status_403: Chance::default(),
            cut_before: Chance::default(),
            cut_after: Chance::default(),
            truncated: Chance::default(),
            reversed: Chance::default(),
            shortened: Chance::default(),
            page_200: Chance::default(),
            late_commit: Chance::default(),
            late_commit_ms: LATE_MS,
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
    pub(crate) fn lags(&self) -> (Lag, Lag) {
        let single = Duration::from_millis(self.read_lag_ms);
        let past = self.list_lag_ms.map_or(single, Duration::from_millis);
        (Lag::of(single), Lag { past, born: Duration::from_millis(self.created_lag_ms) })
    }
}

/// What becomes of the answer to a write that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoiled {
    /// Its rows are in the opposite order.
    Reversed,
    /// Its last row is missing.
    Shortened,
    /// It is a page of HTML.
    Page,
}

impl Spoiled {
    /// Does to an answer's rows what it is about.
    pub(crate) fn spoil(self, mut reply: Reply) -> Reply {
        let body = reply.body.as_mut().map(|body| match body.get("data") {
            Some(_) => &mut body["data"],
            None => body,
        });
        match (self, body.and_then(Value::as_array_mut)) {
            (Self::Reversed, Some(rows)) => rows.reverse(),
            (Self::Shortened, Some(rows)) => _ = rows.pop(),
            (Self::Reversed | Self::Shortened, None) | (Self::Page, _) => {}
        }
        reply
    }
}

/// The faults that one request meets, drawn when it arrives.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fate {
    pub(crate) cut_before: bool,
    pub(crate) cut_after: bool,
    pub(crate) truncated: bool,
    /// Cut at once, done this much later.
    pub(crate) late: Option<Duration>,
    /// Done in part, where that is documented.
    pub(crate) partly: bool,
    /// How the answer to a write is spoiled after it was done.
    pub(crate) spoiled: Option<Spoiled>,
    /// 401, 403, 413, 429 (without headers), 500, 502, 503 or 504 in place of an answer.
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
    pub(crate) fn request(&mut self, target: Target<'_>) -> Fate {
        let (profile, rng) = (&mut self.profile, &mut self.rng);
        let mut strikes = |chance: &mut Chance| chance.strikes(rng, target);
        let status = [
            (&mut profile.status_401, 401),
            (&mut profile.status_403, 403),
            (&mut profile.status_413, 413),
            (&mut profile.bare_429, 429),
            (&mut profile.status_500, 500),
            (&mut profile.status_502, 502),
            (&mut profile.status_503, 503),
            (&mut profile.status_504, 504),
        ]
        .into_iter()
        .find_map(|(chance, status)| strikes(chance).then_some(status));
        let (cut_before, cut_after) = (strikes(&mut profile.cut_before), strikes(&mut profile.cut_after));
        let truncated = strikes(&mut profile.truncated);
        let partly = !target.is_read() && strikes(&mut profile.status_207);
        let spoiled = [
            (&mut profile.reversed, Spoiled::Reversed),
            (&mut profile.shortened, Spoiled::Shortened),
            (&mut profile.page_200, Spoiled::Page),
        ];
        let spoiled = match target.is_read() {
            true => None,
            false => spoiled.into_iter().find_map(|(chance, spoiled)| strikes(chance).then_some(spoiled)),
        };
        let late = !target.is_read() && strikes(&mut profile.late_commit);
        let late = late.then(|| Duration::from_millis(profile.late_commit_ms));
        let slow = profile.slow.clone();
        let wait = if slow.covers(target) { self.wait(&slow) } else { Duration::ZERO };
        Fate { cut_before, cut_after, truncated, late, partly, spoiled, status, wait }
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
    use super::super::chance::Only;
    use super::*;

    #[test]
    fn a_fault_for_writes_below_a_path_leaves_the_rest_alone() {
        let chance = Chance::of(1.0).only(Only::Writes).path("/v3/catalog");
        let mut dice = Dice::new(Profile { status_500: chance, ..Profile::default() }, 1);
        let mut ask = |method, path| dice.request(Target { method, path }).status;
        assert_eq!(ask("PUT", "/v3/catalog/products"), Some(500));
        assert_eq!(ask("GET", "/v3/catalog/products"), None);
        assert_eq!(ask("PUT", "/v2/orders"), None);
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
