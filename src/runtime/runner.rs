//! The loop that drives a stage: consume, start jobs, collect what they bring, commit.
//!
//! It holds the rules of exactly-once and knows nothing of what a record means:
//! - records and the offsets that they settle go into one transaction, with the group's proof of membership;
//! - one transaction at a time, in the order of settlement, and no network but Kafka inside it;
//! - after a transaction whose outcome is unknown, the committed offsets are asked, and only they are believed; where
//!   it settled no record, the ledger is asked instead;
//! - when partitions are taken away, everything in memory is dropped, and what is still running counts for nothing;
//!   but where the stage's work must be handed over, its requests end first (`membership`).
//!
//! Bounded: open records and their bytes, in all and of each partition, records in one transaction, retries of one
//! transaction. At a bound a partition pauses, and the membership is kept. It ends with an error when Kafka cannot be
//! used at all.

mod held;
mod membership;
mod outcome;
mod ownership;
mod waits;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::held::Held;
use self::outcome::Ended;
use self::ownership::Ownership;
use self::waits::{next_event, sleep_until};
use super::ports::{Consume, Consumed, NotCommitted, Produce, Recall, Settled, Stage};
use crate::engine::ownership::Note;
use crate::model::record::{InRecord, OffsetCommit, OutRecord, Partition, Position};

/// Records of one transaction: enough to make its two round trips cheap, few enough to finish far inside the
/// transaction timeout.
const MAX_TRANSACTION_RECORDS: usize = 2_000;
/// Records taken from the consumer between two looks at the jobs.
const MAX_TAKEN: usize = 1_000;
/// Tries of one transaction before the process gives up and lets its supervisor start it anew.
const MAX_COMMIT_TRIES: u32 = 20;
/// How long a fenced member waits to be assigned anew: several session timeouts.
const MAX_FENCED: Duration = Duration::from_secs(60);
/// Pause between two tries of a transaction.
const COMMIT_PAUSE: Duration = Duration::from_millis(250);

/// Why the loop ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The consumer cannot go on.
    #[error("the consumer of {0} failed")]
    Consume(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The producer cannot go on.
    #[error("the producer of {0} failed")]
    Produce(&'static str, #[source] NotCommitted),
    /// The ledger could not be read.
    #[error("the ledger of {0} could not be read")]
    Recall(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the loop tells the outside, for metrics and readiness.
pub trait Watch: Send {
    /// What was assigned is not ours any more.
    fn revoked(&mut self);
    /// Partitions were assigned, so many; none means that others have them all.
    fn assigned(&mut self, partitions: usize);
    /// Records are open.
    fn open(&mut self, records: usize);
    /// A transaction ended with these records in it.
    fn transaction(&mut self, committed: bool, records: &[OutRecord], took: Duration);
}

/// A transaction on its way, together with the producer that it occupies.
type Committing<P> = Pin<Box<dyn Future<Output = (P, Batch, Ended)> + Send>>;

/// What one transaction holds.
#[derive(Clone, Default)]
struct Batch {
    records: Vec<OutRecord>,
    positions: Vec<Position>,
    offsets: Vec<OffsetCommit>,
    /// What its records say about the ownership of partitions.
    notes: Vec<(Partition, Note)>,
    tries: u32,
}

/// The loop. See the module's text.
pub struct Runner<C: Consume, P, R, S: Stage, W> {
    name: &'static str,
    consumer: C,
    /// None while a transaction occupies it.
    producer: Option<P>,
    recall: R,
    stage: S,
    watch: W,
    jobs: JoinSet<S::Done>,
    /// What is assigned, and what is open of it.
    held: Held,
    ownership: Ownership,
    /// Partitions were taken away and are being handed over, until this moment at the latest.
    leaving: Option<Instant>,
    /// A change of membership that was met among records.
    pending: Option<Consumed>,
    settled: VecDeque<Settled>,
    /// A transaction that must be tried again before any other.
    again: Option<Batch>,
    /// What the consumer was told last; it outlasts an assignment.
    is_paused: bool,
    /// Since when the membership is known to be over without a new one.
    fenced: Option<Instant>,
}

impl<C, P, R, S, W> Runner<C, P, R, S, W>
where
    C: Consume,
    P: Produce<C::Group> + 'static,
    R: Recall,
    S: Stage,
    W: Watch,
{
    /// A loop over the given parts. `name` stands in logs and errors.
    pub fn new(name: &'static str, ends: (C, P, R), stage: S, watch: W) -> Self {
        let (consumer, producer, recall) = ends;
        let held = Held::weighing(stage.weight());
        Self {
            name,
            consumer,
            producer: Some(producer),
            recall,
            stage,
            watch,
            jobs: JoinSet::new(),
            held,
            ownership: Ownership::new(now()),
            leaving: None,
            pending: None,
            settled: VecDeque::new(),
            again: None,
            is_paused: false,
            fenced: None,
        }
    }

    /// Runs until `drain` is done; then takes no more, waits up to `grace` for what is running, commits it, and
    /// returns.
    ///
    /// # Errors
    /// Kafka cannot be used at all; the caller should let the process end.
    pub async fn run(
        mut self,
        drain: impl Future<Output = ()> + Send,
        grace: Duration,
    ) -> Result<(), RunnerError> {
        let ended = self.drive(drain, grace).await;
        // What still runs counts for nothing, and the next owner should not wait for it.
        self.jobs.abort_all();
        self.consumer.leave().await;
        ended
    }

    async fn drive(
        &mut self,
        drain: impl Future<Output = ()> + Send,
        grace: Duration,
    ) -> Result<(), RunnerError> {
        let mut drain = Box::pin(drain.fuse());
        let mut committing: Option<Committing<P>> = None;
        let mut stop_at: Option<Instant> = None;
        loop {
            let stops = stop_at.is_some();
            self.step(stops, &mut committing)?;
            let is_over = committing.is_none() && self.is_quiet();
            if stop_at.is_some_and(|at| now() >= at || is_over) {
                return Ok(());
            }
            if self.leaving.is_some_and(|at| now() >= at || is_over) {
                self.give_up(&mut committing).await;
            }
            let wake = self.wake_at(stop_at);
            tokio::select! {
                // In this order, so that a run can be repeated exactly. None starves another: the ends of
                // transactions and jobs are bounded by those begun, and what is due is started before each round.
                biased;
                () = &mut drain, if !stops => {
                    info!(runner = self.name, open = self.held.open(), "draining: no more records are taken");
                    self.ownership.stop();
                    stop_at = Some(now() + grace);
                }
                (producer, batch, result) = wait(&mut committing) => {
                    committing = None;
                    self.producer = Some(producer);
                    self.ended(batch, result).await?;
                }
                Some(done) = self.jobs.join_next() => self.collect(done),
                // Asking again is what gives the partitions up.
                event = next_event(&mut self.pending, &mut self.consumer), if self.leaving.is_none() => match event {
                    Ok(Consumed::Record(record)) => {
                        self.ownership.renew(now());
                        self.take_records(record)?;
                    }
                    Ok(Consumed::Revoked) if !self.ownership.is_none() => self.leave(),
                    Ok(membership) => {
                        // The running transaction must have ended before anybody asks what is committed.
                        if let Some(running) = committing.take() {
                            self.producer = Some(running.await.0);
                        }
                        let ends = stops
                            || tokio::select! {
                                biased;
                                changed = self.membership(membership) => changed.map(|()| false)?,
                                () = &mut drain => true,
                            };
                        if ends {
                            self.abandon();
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(RunnerError::Consume(self.name, Box::new(error))),
                },
                // The consumer was asked just now, and had nothing to tell.
                () = sleep_until(wake), if self.leaving.is_none() => self.ownership.renew(now()),
                () = sleep_until(wake), if self.leaving.is_some() => {}
            }
        }
    }

    /// When there is something to do, if nothing happens.
    fn wake_at(&self, stop_at: Option<Instant>) -> Option<Instant> {
        let is_working = stop_at.is_none() && self.leaving.is_none();
        let work = self.stage.wake_at().filter(|_| is_working);
        let owned = self.ownership.wake_at(now()).filter(|_| is_working);
        [work, owned, stop_at, self.leaving, self.fenced_until()].into_iter().flatten().min()
    }

    /// Everything that can be done without waiting.
    fn step(&mut self, draining: bool, committing: &mut Option<Committing<P>>) -> Result<(), RunnerError> {
        let is_leaving = draining || self.leaving.is_some();
        if is_leaving {
            self.held.drop_waiting();
        } else {
            while let Some(record) = self.held.next_waiting() {
                self.accept(record);
            }
            for job in self.stage.start(now()) {
                self.jobs.spawn(job);
            }
        }
        if committing.is_none() {
            *committing = self.begin(is_leaving);
        }
        self.watch.open(self.held.open());
        if self.fenced_until().is_some_and(|until| now() >= until) {
            let why = NotCommitted::Fenced("no new assignment followed within a minute".into());
            return Err(RunnerError::Produce(self.name, why));
        }
        if draining != self.is_paused {
            self.consumer.pause(draining).map_err(|e| RunnerError::Consume(self.name, Box::new(e)))?;
            self.is_paused = draining;
        }
        self.regulate()
    }

    /// Stops the flow of partitions that are full, and lets it go on where there is room again.
    fn regulate(&mut self) -> Result<(), RunnerError> {
        for (partition, stop) in self.held.flow() {
            debug!(runner = self.name, partition = partition.number, stop, "the flow of a partition changes");
            let stopped = self.consumer.hold(&partition, stop);
            stopped.map_err(|e| RunnerError::Consume(self.name, Box::new(e)))?;
        }
        Ok(())
    }

    /// When a fenced member has waited long enough.
    fn fenced_until(&self) -> Option<Instant> {
        self.fenced.map(|since| since + MAX_FENCED)
    }

    /// Whether nothing is left of what was begun; then it has also been handed over, as soon as it could be.
    fn is_quiet(&self) -> bool {
        self.jobs.is_empty() && self.settled.is_empty() && self.again.is_none()
    }

    /// Takes a record and those that wait right behind it.
    fn take_records(&mut self, first: InRecord) -> Result<(), RunnerError> {
        let mut next = first;
        for _ in 1..MAX_TAKEN {
            self.take(next)?;
            match self.consumer.next().now_or_never() {
                None => return Ok(()),
                Some(Ok(Consumed::Record(record))) => next = record,
                Some(Ok(membership)) => {
                    self.pending = Some(membership);
                    return Ok(());
                }
                Some(Err(error)) => return Err(RunnerError::Consume(self.name, Box::new(error))),
            }
        }
        self.take(next)
    }

    fn take(&mut self, record: InRecord) -> Result<(), RunnerError> {
        match self.held.offer(record) {
            Some(record) => {
                self.accept(record);
                Ok(())
            }
            // At once, so that few records are kept that do not fit.
            None => self.regulate(),
        }
    }

    fn accept(&mut self, record: InRecord) {
        let settled = self.stage.accept(record, now());
        self.settled.extend(settled);
    }

    fn collect(&mut self, done: Result<S::Done, tokio::task::JoinError>) {
        match done {
            Ok(done) => self.settled.extend(self.stage.finish(done, now())),
            // The records of a lost job would stay open for ever: let the process end instead.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => warn!(runner = self.name, %error, "a job was cancelled"),
            },
        }
    }

    /// Begins a transaction with what is settled, or with what is to be noted, if the producer is free.
    fn begin(&mut self, is_leaving: bool) -> Option<Committing<P>> {
        self.producer.as_ref()?;
        let batch = self.again.take().or_else(|| self.notes(is_leaving));
        let batch = batch.or_else(|| (!self.settled.is_empty()).then(|| self.gather()))?;
        let Some(group) = self.consumer.group() else {
            self.again = Some(batch);
            return None;
        };
        let producer = self.producer.take()?;
        Some(Box::pin(outcome::commit(producer, batch, group)))
    }

    fn gather(&mut self) -> Batch {
        let mut batch = Batch::default();
        while let Some(settled) = self.settled.pop_front() {
            batch.records.extend(settled.records);
            batch.positions.extend(settled.positions);
            if batch.records.len() >= MAX_TRANSACTION_RECORDS {
                break;
            }
        }
        let mut touched: Vec<&Partition> = batch.positions.iter().map(|p| &p.partition).collect();
        touched.sort_unstable();
        touched.dedup();
        for position in &batch.positions {
            self.held.settle(position);
        }
        batch.offsets = touched.into_iter().filter_map(|partition| self.held.commit(partition)).collect();
        batch
    }
}

/// The monotonic clock, which tests can hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The end of the running transaction; never, if there is none.
async fn wait<P>(committing: &mut Option<Committing<P>>) -> (P, Batch, Ended) {
    match committing {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
