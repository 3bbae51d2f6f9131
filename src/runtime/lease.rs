//! A lease: what a worker looks at immediately before it sends, to know that its partition is still its own.
//!
//! It runs by the monotonic clock, which goes on while the process is frozen. Whoever holds the membership renews it
//! with each poll, as long as it has not run out. Once it has, a poll proves nothing: the poll may be the first thing
//! that a process does after hours of sleep, before it hears that it was replaced. Then only a transaction proves the
//! membership, by the time at which it was begun. At the end of the assignment the lease is ended for good.
//!
//! It is looked at without a lock. Between the look and the first byte on the wire a process may still freeze: what
//! that may do is what the next owner's wait leaves a margin for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::model::request::{Answer, Reply};

/// How long a lease lasts. A broker expels a member 6 s after its last heartbeat, which is up to 1.5 s older than the
/// last poll: half a second less than what is left of it.
pub const LEASE: Duration = Duration::from_secs(4);
/// How often a lease is renewed at least: three polls may be late before it runs out.
pub const RENEWAL: Duration = Duration::from_secs(1);
/// How long a command waits that was not sent: about as long as a transaction takes to prove the membership.
const NOT_SENT: Duration = Duration::from_secs(1);

/// The right to send, for a while. Clones are one lease.
#[derive(Debug, Clone)]
pub struct Lease(Option<Arc<Term>>);

#[derive(Debug)]
struct Term {
    origin: Instant,
    /// Milliseconds after `origin`; 0 before anything was proved.
    until_ms: AtomicU64,
    ended: CancellationToken,
}

impl Lease {
    /// A lease that is not valid before the membership is proved for the first time.
    pub fn new(now: Instant) -> Self {
        let term = Term { origin: now, until_ms: AtomicU64::new(0), ended: CancellationToken::new() };
        Self(Some(Arc::new(term)))
    }

    /// A lease that never ends, for what two owners may do at once.
    pub const fn unbounded() -> Self {
        Self(None)
    }

    /// Whether nothing may be sent.
    pub fn is_over(&self, now: Instant) -> bool {
        let Some(term) = &self.0 else { return false };
        term.ended.is_cancelled() || term.at(now) >= term.until_ms.load(Ordering::Acquire)
    }

    /// The holder polled at `now` and heard nothing to the contrary.
    pub fn renew(&self, now: Instant) {
        if !self.is_over(now) {
            self.prove(now);
        }
    }

    /// The holder was a member at this moment, or later.
    pub fn prove(&self, at: Instant) {
        let Some(term) = &self.0 else { return };
        term.until_ms.fetch_max(term.at(at + LEASE), Ordering::AcqRel);
    }

    /// Nothing more may be sent, whatever is proved.
    pub fn end(&self) {
        if let Some(term) = &self.0 {
            term.ended.cancel();
        }
    }

    /// Waits for [`Lease::end`]; not for its running out, which may be mended.
    pub async fn ended(&self) {
        match &self.0 {
            Some(term) => term.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// What becomes of a request that was not sent because of its lease.
    pub fn not_sent() -> Reply {
        Reply {
            answer: Answer::Busy { after: NOT_SENT },
            status: 0,
            body: Bytes::new(),
            request_id: None,
            detail: "not sent: the partition may be another owner's by now".to_owned(),
        }
    }
}

impl Term {
    fn at(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_renewed_by_polls_only_while_it_holds() {
        let now = Instant::now();
        let lease = Lease::new(now);
        lease.renew(now);
        assert!(lease.is_over(now), "a poll proves nothing by itself");
        lease.prove(now);
        assert!(!lease.is_over(now + 3 * SECOND));
        lease.renew(now + 3 * SECOND);
        assert!(!lease.is_over(now + 6 * SECOND) && lease.is_over(now + 7 * SECOND));
        lease.renew(now + 9 * SECOND);
        assert!(lease.is_over(now + 9 * SECOND), "the process may have been frozen for hours");
        lease.prove(now + 9 * SECOND);
        lease.prove(now + 2 * SECOND);
        assert!(!lease.is_over(now + 12 * SECOND), "an older proof takes nothing away");
    }

    #[test]
    fn a_lease_that_was_ended_stays_so_and_wakes_who_waits_in_a_queue() {
        let now = Instant::now();
        let lease = Lease::new(now);
        lease.prove(now);
        assert!(lease.clone().ended().now_or_never().is_none());
        lease.clone().end();
        lease.prove(now + SECOND);
        assert!(lease.is_over(now + SECOND));
        assert!(lease.ended().now_or_never().is_some());
        let unbounded = Lease::unbounded();
        unbounded.end();
        assert!(!unbounded.is_over(now) && unbounded.ended().now_or_never().is_none());
    }
}
