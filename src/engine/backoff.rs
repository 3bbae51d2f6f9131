//! Exponential back-off with full jitter and a cap, as a pure function of the attempt and a random draw.
//!
//! It never sleeps and never draws: the caller passes a number of `0.0..=1.0`. Any other number, or any
//! attempt, still gives a wait between the floor and the cap.

use std::time::Duration;

/// How waits grow from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait, so that a lucky draw does not hammer.
    pub floor: Duration,
    /// The upper bound of the first wait; it doubles with each attempt.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after the given number of failed attempts (the first failure is attempt 0).
    ///
    /// The wait is drawn evenly between the floor and `base * 2^attempt`: full jitter spreads the clients that
    /// failed together better than a fixed part plus noise does.
    pub fn delay(&self, attempt: u32, draw: f64) -> Duration {
        // 2^30 times any sensible base is beyond any sensible cap; more would only overflow.
        let factor = 1_u32 << attempt.min(30);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        let draw = if draw.is_finite() { draw.clamp(0.0, 1.0) } else { 1.0 };
        ceiling.mul_f64(draw).clamp(self.floor.min(self.cap), self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff {
        floor: Duration::from_millis(500),
        base: Duration::from_secs(1),
        cap: Duration::from_secs(60),
    };

    #[test]
    fn the_largest_draw_doubles_until_the_cap() {
        let waits: Vec<_> = (0..8).map(|n| BACKOFF.delay(n, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn the_smallest_draw_gives_the_floor() {
        assert_eq!(BACKOFF.delay(9, 0.0), Duration::from_millis(500));
    }

    proptest! {
        #[test]
        fn no_attempt_and_no_draw_leaves_the_bounds(attempt: u32, draw: f64) {
            let wait = BACKOFF.delay(attempt, draw);
            prop_assert!(BACKOFF.floor <= wait && wait <= BACKOFF.cap);
        }
    }
}
