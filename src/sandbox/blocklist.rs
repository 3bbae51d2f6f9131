//! The rule that blocks a destination whose callbacks fail too often.
//!
//! Per destination (host and port), over a sliding window of two minutes, counted from the hundredth request on: below
//! 90 % success the destination is blocked for three minutes. Windows and blocks shrink with the time scale.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The window the success ratio is taken over.
pub(crate) const WINDOW: Duration = Duration::from_secs(120);
/// How long a block lasts.
pub(crate) const BLOCK: Duration = Duration::from_secs(180);
/// Requests in the window before the ratio counts.
pub(crate) const FROM: usize = 100;

#[derive(Debug, Default)]
struct Ledger {
    /// Within the window: when, and whether it succeeded.
    attempts: VecDeque<(Instant, bool)>,
    failed: usize,
    blocked_until: Option<Instant>,
    reasons: HashMap<String, (u64, u64)>,
}

/// A blocked destination, as `/v3/hooks/admin` shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocked {
    pub(crate) destination: String,
    pub(crate) time_left: Duration,
    /// Description, count, unix seconds of the last one.
    pub(crate) reasons: Vec<(String, u64, u64)>,
}

/// The success ratios of all destinations.
#[derive(Debug, Default)]
pub(crate) struct Blocklist {
    ledgers: HashMap<String, Ledger>,
    window: Duration,
    block: Duration,
    /// Blocks so far.
    pub(crate) blocks: u64,
}

impl Blocklist {
    /// The rule with its times divided by `time_scale`.
    pub(crate) fn new(time_scale: f64) -> Blocklist {
        Blocklist {
            window: WINDOW.div_f64(time_scale),
            block: BLOCK.div_f64(time_scale),
            ..Blocklist::default()
        }
    }

    /// Whether `destination` is blocked at `now`. A block that ended leaves an empty window behind.
    pub(crate) fn is_blocked(&mut self, destination: &str, now: Instant) -> bool {
        let Some(ledger) = self.ledgers.get_mut(destination) else { return false };
        match ledger.blocked_until {
            Some(until) if now < until => true,
            Some(_) => {
                *ledger = Ledger::default();
                false
            }
            None => false,
        }
    }

    /// Records an attempt; true when it made the destination blocked.
    pub(crate) fn record(
        &mut self,
        destination: &str,
        now: Instant,
        failure: Option<String>,
        unix_s: u64,
    ) -> bool {
        if !self.ledgers.contains_key(destination) {
            self.ledgers.insert(destination.to_owned(), Ledger::default());
        }
        let Some(ledger) = self.ledgers.get_mut(destination) else { return false };
        ledger.attempts.push_back((now, failure.is_none()));
        if let Some(text) = failure {
            ledger.failed += 1;
            let reason = ledger.reasons.entry(text).or_default();
            *reason = (reason.0 + 1, unix_s);
        }
        while let Some((when, good)) = ledger.attempts.front()
            && now.saturating_duration_since(*when) > self.window
        {
            ledger.failed -= usize::from(!good);
            ledger.attempts.pop_front();
        }
        let requests = ledger.attempts.len();
        if ledger.blocked_until.is_some()
            || requests < FROM
            || (requests - ledger.failed) * 10 >= requests * 9
        {
            return false;
        }
        ledger.blocked_until = Some(now + self.block);
        self.blocks += 1;
        true
    }

    /// The destinations blocked at `now`.
    pub(crate) fn blocked(&self, now: Instant) -> Vec<Blocked> {
        let rows = self.ledgers.iter().filter_map(|(destination, ledger)| {
            let until = ledger.blocked_until.filter(|until| now < *until)?;
            Some(Blocked {
                destination: destination.clone(),
                time_left: until - now,
                reasons: ledger
                    .reasons
                    .iter()
                    .map(|(text, (count, at))| (text.clone(), *count, *at))
                    .collect(),
            })
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundredth_request_below_ninety_percent_blocks_for_three_minutes() {
        let mut list = Blocklist::new(1.0);
        let start = Instant::now();
        for number in 0..99 {
            let failure = (number % 5 == 0).then(|| "500".to_owned());
            assert!(!list.record("a.example", start, failure, 0));
        }
        assert!(list.record("a.example", start, None, 0));
        assert!(list.is_blocked("a.example", start + Duration::from_secs(179)));
        assert!(!list.is_blocked("b.example", start));
        assert_eq!(list.blocked(start).len(), 1);
        assert!(!list.is_blocked("a.example", start + Duration::from_secs(180)));
    }

    #[test]
    fn old_failures_leave_the_window() {
        let mut list = Blocklist::new(1.0);
        let start = Instant::now();
        for _ in 0..90 {
            list.record("a.example", start, Some("500".to_owned()), 0);
        }
        let later = start + Duration::from_secs(121);
        for _ in 0..200 {
            assert!(!list.record("a.example", later, None, 0));
        }
    }
}
