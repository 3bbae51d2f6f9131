//! What every part of a simulated run shares: the dice, the clock, the faults that are switched on, and counts of
//! what really happened, so that a run that never met a fault cannot pass for a test of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

/// The wall clock when a run begins: 2026-01-01T00:00:00Z.
pub(super) const BASE_MS: i64 = 1_767_225_600_000;

/// How likely each fault is, from 0 to 1; each seed switches some of them on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// A transaction is aborted.
    pub(super) abort: f64,
    /// A transaction's outcome is unknown.
    pub(super) unknown: f64,
    /// A producer is taken to be fenced.
    pub(super) fence: f64,
    /// A 429.
    pub(super) busy: f64,
    /// A 503.
    pub(super) doubtful: f64,
    /// A body that is not what was asked for.
    pub(super) garbled: f64,
    /// A reply that takes seconds.
    pub(super) slow: f64,
    /// A read sees the past.
    pub(super) lag: f64,
    /// The token is not valid until then (unix milliseconds).
    pub(super) unauthorized_until: i64,
}

struct Inner {
    rng: StdRng,
    faults: Faults,
    seen: BTreeMap<&'static str, u64>,
}

/// See the module's text.
#[derive(Clone)]
pub(super) struct World {
    inner: Arc<Mutex<Inner>>,
    start: Instant,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let inner =
            Inner { rng: StdRng::seed_from_u64(seed), faults: Faults::default(), seen: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)), start: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn chance(&self, of: f64) -> bool {
        of > 0.0 && self.lock().rng.random_bool(of)
    }

    pub(super) fn draw(&self, range: Range<u64>) -> u64 {
        self.lock().rng.random_range(range)
    }

    /// Waits for so many milliseconds.
    pub(super) async fn pause(&self, ms: Range<u64>) {
        let ms = self.draw(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    pub(super) fn faults(&self) -> Faults {
        self.lock().faults
    }

    pub(super) fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// Counts that something happened.
    pub(super) fn saw(&self, what: &'static str) {
        *self.lock().seen.entry(what).or_default() += 1;
    }

    pub(super) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.lock().seen.clone()
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        BASE_MS + i64::try_from(self.start.elapsed().as_millis()).unwrap()
    }
}
