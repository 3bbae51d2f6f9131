//! The clock as an argument: wall time for what is written down, monotonic time for what is waited for.
//!
//! The two are never mixed: wall time can jump, so no deadline is computed from it. The machines of `engine` take the
//! readings as plain arguments; the shell takes them from a [`Clock`]. Tests use [`ManualClock`], or tokio's paused
//! time, which [`SystemClock`] follows.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC, as Kafka's timestamps count. It may jump, either way.
    fn wall_ms(&self) -> i64;

    /// A reading that never goes back, for durations and deadlines.
    fn now(&self) -> Instant;
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => millis(before.duration()).saturating_neg(),
        }
    }

    fn now(&self) -> Instant {
        // tokio's reading is the machine's own, unless a test has paused the time.
        tokio::time::Instant::now().into_std()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    wall_ms: AtomicI64,
    passed_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `wall_ms`.
    #[must_use]
    pub fn at(wall_ms: i64) -> Self {
        Self { start: Instant::now(), wall_ms: AtomicI64::new(wall_ms), passed_ms: AtomicU64::new(0) }
    }

    /// Lets time pass on both clocks, in whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by_ms = millis(by);
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.passed_ms.fetch_add(by_ms.unsigned_abs(), Ordering::SeqCst);
    }

    /// Sets the wall clock, as an administrator or a bad time server does; the monotonic one is not touched.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }
}

/// Whole milliseconds; longer than 292 million years counts as that.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_it_is_told_to() {
        let clock = ManualClock::at(1_700_000_000_000);
        let start = clock.now();
        assert_eq!((clock.now(), clock.wall_ms()), (start, 1_700_000_000_000));
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(clock.now() - start, Duration::from_millis(1_500));
        assert_eq!(clock.wall_ms(), 1_700_000_001_500);
    }

    #[test]
    fn a_jump_of_the_wall_clock_leaves_the_monotonic_one_alone() {
        let clock = ManualClock::at(1_700_000_000_000);
        let start = clock.now();
        clock.set_wall_ms(-5);
        assert_eq!((clock.now(), clock.wall_ms()), (start, -5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_system_clock_follows_paused_time() {
        let start = SystemClock.now();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(SystemClock.now() - start, Duration::from_secs(60));
    }

    #[test]
    fn the_wall_clock_counts_milliseconds_of_this_century() {
        let year_2020_ms = 1_577_836_800_000;
        let year_2100_ms = 4_102_444_800_000;
        assert!((year_2020_ms..year_2100_ms).contains(&SystemClock.wall_ms()));
    }
}
