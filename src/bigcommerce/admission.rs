//! The shell around the pure budget: waits until a request may be sent, and reports what became of it.
//!
//! Each purpose has a queue of its own, first come first served, and only the head of each queue asks the budget
//! and then for one of the store's places. So a backlog of one purpose never stands before another.
//! Nobody stands at the head of a queue while waiting for an endpoint's cap. Live requests, commands and the like
//! take the endpoint's place first and then queue; backfill, which may wait long for the budget, takes it last, so
//! that an idle place is never kept from the others. Backfill has half of the store's places at most.
//! A request that is dropped on the way, for whatever reason, counts as sent without a reply.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::engine::budget::{Acquired, Budget, BudgetConfig, Observation, QuotaView, Ticket};
use crate::model::request::Purpose;

/// The budget and who waits for it.
#[derive(Debug)]
pub(super) struct Admission {
    budget: Mutex<Budget>,
    /// A request has ended: the heads of the queues ask again.
    changed: Notify,
    /// Requests at once on the whole store.
    places: Arc<Semaphore>,
    /// Those of them that backfill may have.
    backfill: Arc<Semaphore>,
    /// One queue for each purpose, in the order of [`Purpose::ALL`].
    queues: [tokio::sync::Mutex<()>; Purpose::ALL.len()],
}

/// The right to send one request.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    admission: &'a Admission,
    ticket: Option<Ticket>,
    /// Held until the request has ended.
    places: Vec<OwnedSemaphorePermit>,
}

impl Admission {
    pub(super) fn new(config: BudgetConfig, at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            budget: Mutex::new(Budget::new(config)),
            changed: Notify::new(),
            places: Arc::new(Semaphore::new(at_once)),
            backfill: Arc::new(Semaphore::new((at_once / 2).max(1))),
            queues: Default::default(),
        }
    }

    /// Waits for a pass and for all the places that it needs, one of `endpoint` among them. At the head of its queue
    /// it waits for the budget no longer than `patience`; when that cannot be enough it returns at once with the
    /// time that it would take.
    pub(super) async fn enter(
        &self,
        purpose: Purpose,
        endpoint: Option<Arc<Semaphore>>,
        patience: Duration,
    ) -> Result<Pass<'_>, Duration> {
        if !purpose.is_backfill() {
            let endpoint = match endpoint {
                Some(endpoint) => Some(place(&endpoint).await),
                None => None,
            };
            let mut pass = self.queue(purpose, patience).await?;
            pass.places.extend(endpoint);
            return Ok(pass);
        }
        let backfill = place(&self.backfill).await;
        loop {
            let mut pass = self.queue(purpose, patience).await?;
            match &endpoint {
                None => {}
                Some(endpoint) => match Arc::clone(endpoint).try_acquire_owned() {
                    Ok(free) => pass.places.push(free),
                    Err(_) => {
                        pass.withdraw();
                        // Until one is free; somebody else may be quicker to take it.
                        drop(place(endpoint).await);
                        continue;
                    }
                },
            }
            pass.places.push(backfill);
            return Ok(pass);
        }
    }

    async fn queue(&self, purpose: Purpose, patience: Duration) -> Result<Pass<'_>, Duration> {
        let _turn = self.queues[purpose as usize].lock().await;
        let mut pass = self.pass(purpose, now() + patience).await?;
        pass.places.push(place(&self.places).await);
        Ok(pass)
    }

    async fn pass(&self, purpose: Purpose, give_up: Instant) -> Result<Pass<'_>, Duration> {
        loop {
            // Listen before asking, so that an end in between is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let acquired = self.budget().acquire(purpose, now());
            let until = match acquired {
                Acquired::Grant(ticket) => {
                    return Ok(Pass { admission: self, ticket: Some(ticket), places: Vec::new() });
                }
                Acquired::WaitUntil(until) => until,
            };
            if until > give_up {
                return Err(until.saturating_duration_since(now()));
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = changed => {}
            }
        }
    }

    pub(super) fn set_peers(&self, share: f64, peers: u32) {
        self.budget().set_peers(share, peers);
        self.changed.notify_waiters();
    }

    pub(super) fn view(&self) -> QuotaView {
        self.budget().view()
    }

    pub(super) fn window_length(&self) -> Duration {
        self.budget().window_length()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // The budget is plain counters; after a panic elsewhere they are still the best that is known.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The request was not sent.
    pub(super) fn withdraw(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.admission.budget().withdrawn(ticket);
            self.admission.changed.notify_waiters();
        }
    }

    /// The request was answered, but not refused for its rate. Its places are kept until the pass is dropped.
    pub(super) fn replied(&mut self, seen: Observation) {
        if let Some(ticket) = self.ticket.take() {
            self.admission.budget().replied(ticket, seen, now());
            self.admission.changed.notify_waiters();
        }
    }

    /// The request was refused for its rate; returns how long everything waits.
    pub(super) fn refused(&mut self, seen: Observation) -> Duration {
        let Some(ticket) = self.ticket.take() else { return Duration::ZERO };
        let now = now();
        let until = self.admission.budget().refused(ticket, seen, rand::random(), now);
        self.admission.changed.notify_waiters();
        until.saturating_duration_since(now)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.admission.budget().failed(ticket, now());
            self.admission.changed.notify_waiters();
        }
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed")
}

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(600);

    fn told() -> Observation {
        Observation {
            quota: Some(150),
            left: Some(149),
            window: Some(Duration::from_secs(30)),
            reset_in: Some(Duration::from_secs(30)),
            retry_after: None,
        }
    }

    /// Past its first probe.
    async fn open(at_once: usize) -> Admission {
        let admission = Admission::new(BudgetConfig::default(), at_once);
        admission.enter(Purpose::Live, None, PATIENCE).await.unwrap().replied(told());
        admission
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_endpoint_stands_in_nobodys_way() {
        let admission = open(16).await;
        let endpoint = Arc::new(Semaphore::new(1));
        for purpose in [Purpose::Command, Purpose::Snapshot] {
            let busy = Arc::clone(&endpoint).try_acquire_owned().unwrap();
            let mut waiting = pin!(admission.enter(purpose, Some(Arc::clone(&endpoint)), PATIENCE));
            assert!(waiting.as_mut().now_or_never().is_none());
            // The same purpose elsewhere, and others anywhere, go on.
            admission.enter(purpose, None, PATIENCE).await.unwrap().replied(told());
            admission.enter(Purpose::Live, None, PATIENCE).await.unwrap().replied(told());
            assert_eq!(admission.view().in_flight, 0, "{purpose:?} holds a ticket while it waits");
            drop(busy);
            waiting.await.unwrap().replied(told());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backfill_that_waits_for_the_budget_keeps_no_endpoint_from_live_reads() {
        let admission = open(16).await;
        let endpoint = Arc::new(Semaphore::new(1));
        // The budget spreads a burst of backfill, so that one of these must wait.
        let mut held = Vec::new();
        while let Some(pass) = admission.enter(Purpose::Snapshot, None, PATIENCE).now_or_never() {
            let mut pass = pass.unwrap();
            pass.replied(told());
            held.push(());
            assert!(held.len() < 100, "backfill is not spread");
        }
        let mut snapshot = pin!(admission.enter(Purpose::Snapshot, Some(Arc::clone(&endpoint)), PATIENCE));
        assert!(snapshot.as_mut().now_or_never().is_none());
        let live = admission.enter(Purpose::Live, Some(Arc::clone(&endpoint)), PATIENCE).now_or_never();
        live.expect("the endpoint is free").unwrap().replied(told());
        snapshot.await.unwrap().replied(told());
    }

    #[tokio::test(start_paused = true)]
    async fn backfill_has_half_of_the_places_at_most() {
        let admission = open(4).await;
        let first = admission.enter(Purpose::Snapshot, None, PATIENCE).await.unwrap();
        let second = admission.enter(Purpose::Sweep, None, PATIENCE).await.unwrap();
        let mut third = pin!(admission.enter(Purpose::Snapshot, None, PATIENCE));
        assert!(third.as_mut().now_or_never().is_none());
        let live = admission.enter(Purpose::Live, None, PATIENCE).now_or_never();
        live.expect("there is a place left").unwrap().replied(told());
        drop(first);
        third.await.unwrap().replied(told());
        drop(second);
    }
}
