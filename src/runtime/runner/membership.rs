//! Changes of membership, and how work is handed over from one owner of a partition to the next.
//!
//! Where a stage's work may be repeated at any time, partitions are taken on and given up at once. Where it may not
//! (`Stage::owner_note`), an owner that loses its partitions begins nothing more, lets its requests end, commits what
//! they settled, and then leaves a clean note in a transaction that proves that it is still a member; only then are
//! the partitions given up. What is cut off instead leaves none, and the next owner waits it out: see
//! [`crate::engine::ownership`].

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::held::Held;
use super::ownership::Ownership;
use super::{Batch, COMMIT_PAUSE, Committing, MAX_COMMIT_TRIES, Runner, RunnerError, Watch, now};
use crate::engine::ownership::{self, Note};
use crate::model::record::{OutRecord, Partition};
use crate::runtime::ports::{Consume, Consumed, NotCommitted, Produce, Recall, Stage};
use crate::telemetry::{Clock as _, SystemClock};

/// How long partitions that were taken away may be kept: a request's 25 s and two transactions of 8 s, and well below
/// the two minutes after which the broker gives them to somebody else.
const HAND_OVER: Duration = Duration::from_secs(45);

impl<C, P, R, S, W> Runner<C, P, R, S, W>
where
    C: Consume,
    P: Produce<C::Group> + 'static,
    R: Recall,
    S: Stage,
    W: Watch,
{
    /// Partitions were taken away: begins to hand them over.
    pub(super) fn leave(&mut self) {
        let running = self.jobs.len();
        info!(runner = self.name, running, "partitions are taken away; what is on its way may end");
        self.ownership.stop();
        self.leaving = Some(now() + HAND_OVER);
    }

    /// Ends the hand-over, and whatever is still running.
    pub(super) async fn give_up(&mut self, committing: &mut Option<Committing<P>>) {
        if let Some(running) = committing.take() {
            self.producer = Some(running.await.0);
        }
        let left = self.ownership.farewells().len();
        if left > 0 {
            warn!(
                runner = self.name,
                partitions = left,
                "partitions could not be handed over; their next owner waits"
            );
        }
        self.leaving = None;
        self.forget();
        self.watch.revoked();
    }

    /// A transaction with the notes that are due: before work begins, and when all of it has ended.
    pub(super) fn notes(&mut self, is_leaving: bool) -> Option<Batch> {
        let mut notes = match is_leaving {
            true if self.is_quiet() => self.ownership.farewells(),
            true => Vec::new(),
            false => self.ownership.due(|partition| self.held.is_waiting(partition), now()),
        };
        // Without an offset a transaction would not prove the membership. Where there is none nothing was ever read.
        notes.retain(|(partition, _)| self.held.commit(partition).is_some());
        if notes.is_empty() {
            return None;
        }
        let offsets = notes.iter().filter_map(|(partition, _)| self.held.commit(partition)).collect();
        let record = |(partition, note): &(Partition, Note)| -> Option<OutRecord> {
            self.stage.owner_note(partition, self.ownership.value(*note))
        };
        let mut records: Vec<OutRecord> = notes.iter().filter_map(record).collect();
        if is_leaving {
            records.extend(self.stage.hand_over());
        }
        Some(Batch { records, offsets, notes, ..Batch::default() })
    }

    /// Draws the consequence of a change of membership.
    pub(super) async fn membership(&mut self, event: Consumed) -> Result<(), RunnerError> {
        let began = now();
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
            let partition = &assignment.partition;
            let ledger = self.read_ledger(partition).await?;
            let is_owned = self.stage.owner_note(partition, Bytes::new()).is_some();
            if is_owned {
                let found = ledger.values.get(&ownership::key(partition)).map(|value| Note::read(value));
                self.ownership.assign(partition.clone(), found, began, SystemClock.wall_ms());
            }
            self.stage.restore(partition, ledger);
            self.held.assign(assignment, is_owned);
        }
        self.stage.lease(self.ownership.lease());
        info!(runner = self.name, partitions = self.held.partitions().len(), "partitions were assigned");
        self.watch.assigned(self.held.partitions().len());
        Ok(())
    }

    /// Ends amid a change of membership: what was held before is over, and of what comes nothing is begun. Reading its
    /// ledger may take longer than there is time to stop.
    pub(super) fn abandon(&mut self) {
        info!(runner = self.name, "draining: partitions that are being assigned are not taken on");
        self.forget();
        self.watch.revoked();
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
    pub(super) fn forget(&mut self) {
        self.ownership.stop();
        self.ownership = Ownership::new(now());
        self.jobs = JoinSet::new();
        self.stage.reset();
        self.held = Held::weighing(self.stage.weight());
        self.settled.clear();
        self.again = None;
    }
}
