//! The loop that drives a stage: consume, start jobs, collect what they bring, commit.
//!
//! It holds the rules of exactly-once and knows nothing of what a record means:
//! - records and the offsets that they settle go into one transaction, with the group's proof of membership;
//! - one transaction at a time, in the order of settlement, and no network but Kafka inside it;
//! - after a transaction whose outcome is unknown, the committed offsets are asked, and only they are believed; where
//!   it settled no record, the ledger is asked instead;
//! - when partitions are taken away, everything in memory is dropped, and what is still running counts for nothing.
//!
//! Bounded: open records and their bytes, in all and of each partition, records in one transaction, retries of one
//! transaction. At a bound the consumer pauses, or one partition of it, and keeps its membership. It ends with an error when Kafka cannot be used at all.

mod held;
mod waits;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::held::Held;
use self::waits::{next_event, sleep_until};
use super::ports::{Consume, Consumed, NotCommitted, Produce, Recall, Settled, Stage};
use crate::engine::checkpoint::Checkpoint;
use crate::model::record::{Assignment, InRecord, OffsetCommit, OutRecord, Partition, Position};

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
#[derive(Clone)]
struct Batch {
    records: Vec<OutRecord>,
    positions: Vec<Position>,
    offsets: Vec<OffsetCommit>,
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
    /// A change of membership that was met among records.
    pending: Option<Consumed>,
    settled: VecDeque<Settled>,
    /// A transaction that must be tried again before any other.
    again: Option<Batch>,
    /// What the consumer was told last; it outlasts an assignment.
    paused: bool,
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
        Self {
            name,
            consumer,
            producer: Some(producer),
            recall,
            stage,
            watch,
            jobs: JoinSet::new(),
            held: Held::default(),
            pending: None,
            settled: VecDeque::new(),
            again: None,
            paused: false,
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
            self.step(stop_at.is_some(), &mut committing)?;
            if stop_at.is_some_and(|at| now() >= at || (committing.is_none() && self.is_quiet())) {
                return Ok(());
            }
            let work = self.stage.wake_at().filter(|_| stop_at.is_none());
            let wake = [work, stop_at, self.fenced_until()].into_iter().flatten().min();
            tokio::select! {
                // In this order, so that a run can be repeated exactly. None starves another: the ends of
                // transactions and jobs are bounded by those begun, and what is due is started before each round.
                biased;
                () = &mut drain, if stop_at.is_none() => {
                    info!(runner = self.name, open = self.held.open(), "draining: no more records are taken");
                    stop_at = Some(now() + grace);
                }
                (producer, batch, result) = wait(&mut committing) => {
                    committing = None;
                    self.producer = Some(producer);
                    self.ended(batch, result).await?;
                }
                Some(done) = self.jobs.join_next() => self.collect(done),
                event = next_event(&mut self.pending, &mut self.consumer) => match event {
                    Ok(Consumed::Record(record)) => self.take_records(record)?,
                    Ok(membership) => {
                        // The running transaction must have ended before anybody asks what is committed.
                        if let Some(running) = committing.take() {
                            self.producer = Some(running.await.0);
                        }
                        self.membership(membership).await?;
                    }
                    Err(error) => return Err(RunnerError::Consume(self.name, Box::new(error))),
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Everything that can be done without waiting.
    fn step(&mut self, draining: bool, committing: &mut Option<Committing<P>>) -> Result<(), RunnerError> {
        if draining {
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
            *committing = self.begin();
        }
        self.watch.open(self.held.open());
        if self.fenced_until().is_some_and(|until| now() >= until) {
            let why = NotCommitted::Fenced("no new assignment followed within a minute".into());
            return Err(RunnerError::Produce(self.name, why));
        }
        let pause = draining || self.held.is_full(self.paused);
        if pause != self.paused {
            debug!(runner = self.name, pause, open = self.held.open(), "the flow of records changes");
            self.consumer.pause(pause).map_err(|e| RunnerError::Consume(self.name, Box::new(e)))?;
            self.paused = pause;
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

    fn is_quiet(&self) -> bool {
        self.jobs.is_empty() && self.settled.is_empty() && self.again.is_none()
    }

    /// Takes a record and those that wait right behind it.
    fn take_records(&mut self, first: InRecord) -> Result<(), RunnerError> {
        let mut next = first;
        for _ in 1..MAX_TAKEN {
            self.take(next)?;
            if self.held.is_full(self.paused) {
                return Ok(());
            }
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

    /// Begins a transaction with what is settled, if the producer is free.
    fn begin(&mut self) -> Option<Committing<P>> {
        if self.again.is_none() && self.settled.is_empty() {
            return None;
        }
        let group = self.consumer.group()?;
        let producer = self.producer.take()?;
        let batch = self.again.take().unwrap_or_else(|| self.gather());
        Some(Box::pin(commit(producer, batch, group)))
    }

    fn gather(&mut self) -> Batch {
        let mut batch = Batch { records: Vec::new(), positions: Vec::new(), offsets: Vec::new(), tries: 0 };
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

    /// Draws the consequence of a transaction's end.
    async fn ended(&mut self, mut batch: Batch, result: Ended) -> Result<(), RunnerError> {
        let (took, result) = result;
        let error = match result {
            Ok(()) => {
                self.close(&batch, took);
                return Ok(());
            }
            Err(error) => error,
        };
        self.watch.transaction(false, &batch.records, took);
        warn!(runner = self.name, %error, records = batch.records.len(), "a transaction did not commit");
        match error {
            NotCommitted::Fatal(_) => return Err(RunnerError::Produce(self.name, error)),
            NotCommitted::Fenced(_) => {
                self.forget();
                self.fenced = Some(now());
                return Ok(());
            }
            NotCommitted::Unknown(_) if self.counts(&batch).await? => {
                self.close(&batch, took);
                return Ok(());
            }
            NotCommitted::Aborted(_) | NotCommitted::Refused(_) | NotCommitted::Unknown(_) => {}
        }
        batch.tries += 1;
        if batch.tries >= MAX_COMMIT_TRIES {
            return Err(RunnerError::Produce(self.name, error));
        }
        self.again = Some(batch);
        Ok(())
    }

    fn close(&mut self, batch: &Batch, took: Duration) {
        for position in &batch.positions {
            self.held.close(position);
        }
        self.watch.transaction(true, &batch.records, took);
    }

    /// Whether the broker says that a transaction counted: by the committed offsets; by what stands in the ledger
    /// where it settled no record.
    async fn counts(&mut self, batch: &Batch) -> Result<bool, RunnerError> {
        if batch.positions.is_empty() {
            return self.is_in_ledger(batch).await;
        }
        let committed = self.committed().await?;
        Ok(batch.positions.iter().all(|position| {
            committed.iter().any(|a| {
                a.partition == position.partition
                    && a.committed.is_some_and(|next| Checkpoint::covers(next, &a.metadata, position.offset))
            })
        }))
    }

    /// Whether a record of the batch is the last one of its key in the ledger of this assignment.
    async fn is_in_ledger(&mut self, batch: &Batch) -> Result<bool, RunnerError> {
        let partitions: Vec<Partition> = self.held.partitions().cloned().collect();
        for partition in partitions {
            let ledger = self.read_ledger(&partition).await?;
            let stands = |record: &OutRecord| {
                let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                record.value.is_some() && key.is_some_and(|key| ledger.get(key) == record.value.as_ref())
            };
            if batch.records.iter().any(stands) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn read_ledger(
        &mut self,
        partition: &Partition,
    ) -> Result<BTreeMap<String, bytes::Bytes>, RunnerError> {
        let read = self.recall.recall(partition).await;
        read.map_err(|e| RunnerError::Recall(self.name, Box::new(e)))
    }

    async fn committed(&mut self) -> Result<Vec<Assignment>, RunnerError> {
        self.consumer.committed().await.map_err(|e| RunnerError::Consume(self.name, Box::new(e)))
    }

    async fn membership(&mut self, event: Consumed) -> Result<(), RunnerError> {
        self.forget();
        self.watch.revoked();
        let Consumed::Assigned(partitions) = event else { return Ok(()) };
        self.fenced = None;
        let Some(owner) = partitions.iter().map(|a| &a.partition).min() else {
            self.watch.assigned(0);
            return Ok(());
        };
        self.identify(owner).await?;
        // Asked again: only now is it certain that no earlier transaction of this identity is still open.
        for assignment in self.committed().await? {
            let ledger = self.read_ledger(&assignment.partition).await?;
            self.stage.restore(&assignment.partition, ledger);
            self.held.assign(assignment);
        }
        info!(runner = self.name, partitions = self.held.partitions().len(), "partitions were assigned");
        self.watch.assigned(self.held.partitions().len());
        Ok(())
    }

    async fn identify(&mut self, owner: &Partition) -> Result<(), RunnerError> {
        let producer = self.producer.as_mut().expect("no transaction runs while the membership changes");
        let mut tries = 0;
        loop {
            match producer.identify(owner).await {
                Ok(()) => return Ok(()),
                Err(error) if tries >= MAX_COMMIT_TRIES || matches!(error, NotCommitted::Fatal(_)) => {
                    return Err(RunnerError::Produce(self.name, error));
                }
                Err(error) => warn!(runner = self.name, %error, "the producer is not ready yet"),
            }
            tries += 1;
            tokio::time::sleep(COMMIT_PAUSE).await;
        }
    }

    /// Drops everything of an assignment that is over, running jobs as well: a request that is cut off counts as
    /// one whose outcome is unknown, and the next owner of its record treats it so.
    fn forget(&mut self) {
        self.jobs = JoinSet::new();
        self.stage.reset();
        self.held = Held::default();
        self.settled.clear();
        self.again = None;
    }
}

/// The monotonic clock, which tests can hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

type Ended = (Duration, Result<(), NotCommitted>);

async fn commit<P: Produce<G>, G>(mut producer: P, batch: Batch, group: G) -> (P, Batch, Ended) {
    if batch.tries > 0 {
        tokio::time::sleep(COMMIT_PAUSE).await;
    }
    let begun = now();
    let result = producer.commit(batch.records.clone(), batch.offsets.clone(), group).await;
    (producer, batch, (now() - begun, result))
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
