//! The shell around the pure budget: waits until a request may be sent, and reports what became of it.
//!
//! Each purpose has a queue of its own, first come first served, and only the head of each queue asks the budget
//! and then for one of the store's places. So a backlog of one purpose never stands before another.
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
    live: tokio::sync::Mutex<()>,
    command: tokio::sync::Mutex<()>,
    upkeep: tokio::sync::Mutex<()>,
}

/// The right to send one request.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    admission: &'a Admission,
    ticket: Option<Ticket>,
}

impl Admission {
    pub(super) fn new(config: BudgetConfig, at_once: usize) -> Self {
        Self {
            budget: Mutex::new(Budget::new(config)),
            changed: Notify::new(),
            places: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))),
            live: tokio::sync::Mutex::new(()),
            command: tokio::sync::Mutex::new(()),
            upkeep: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for a pass and a place. At the head of its queue it waits for the budget no longer than `patience`;
    /// when that cannot be enough it returns at once with the time that it would take.
    pub(super) async fn enter(
        &self,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<(Pass<'_>, OwnedSemaphorePermit), Duration> {
        let queue = match purpose {
            Purpose::Live => &self.live,
            Purpose::Command => &self.command,
            Purpose::Upkeep => &self.upkeep,
        };
        let _turn = queue.lock().await;
        let pass = self.pass(purpose, now() + patience).await?;
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        Ok((pass, place))
    }

    async fn pass(&self, purpose: Purpose, give_up: Instant) -> Result<Pass<'_>, Duration> {
        loop {
            // Listen before asking, so that an end in between is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let acquired = self.budget().acquire(purpose, now());
            let until = match acquired {
                Acquired::Grant(ticket) => return Ok(Pass { admission: self, ticket: Some(ticket) }),
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
    /// The request was answered, but not refused for its rate.
    pub(super) fn replied(mut self, seen: Observation) {
        if let Some(ticket) = self.ticket.take() {
            self.admission.budget().replied(ticket, seen, now());
            self.admission.changed.notify_waiters();
        }
    }

    /// The request was refused for its rate; returns how long everything waits.
    pub(super) fn refused(mut self, seen: Observation) -> Duration {
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

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
