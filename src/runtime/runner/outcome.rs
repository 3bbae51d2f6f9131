//! The end of a transaction: what it means for the records in it, for the membership, and for the next try.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Batch, COMMIT_PAUSE, MAX_COMMIT_TRIES, Runner, RunnerError, Watch, now};
use crate::engine::checkpoint::Checkpoint;
use crate::model::record::{Assignment, OutRecord, Partition};
use crate::runtime::ports::{Consume, NotCommitted, Produce, Recall, Recalled, Stage};

/// When it was begun, how long it took, and what came of it.
pub(super) type Ended = (Instant, Duration, Result<(), NotCommitted>);

pub(super) async fn commit<P: Produce<G>, G>(mut producer: P, batch: Batch, group: G) -> (P, Batch, Ended) {
    if batch.tries > 0 {
        tokio::time::sleep(COMMIT_PAUSE).await;
    }
    let begun = now();
    let result = producer.commit(batch.records.clone(), batch.offsets.clone(), group).await;
    (producer, batch, (begun, now() - begun, result))
}

impl<C, P, R, S, W> Runner<C, P, R, S, W>
where
    C: Consume,
    P: Produce<C::Group> + 'static,
    R: Recall,
    S: Stage,
    W: Watch,
{
    /// Draws the consequence of a transaction's end.
    pub(super) async fn ended(&mut self, mut batch: Batch, result: Ended) -> Result<(), RunnerError> {
        let (begun, took, result) = result;
        let error = match result {
            Ok(()) => {
                if !batch.offsets.is_empty() {
                    self.ownership.prove(begun);
                }
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
        self.stage.committed(&batch.positions);
        for (partition, note) in &batch.notes {
            if self.ownership.noted(partition, *note) {
                self.held.unlock(partition);
            }
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
            let ledger = self.read_ledger(&partition).await?.values;
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

    pub(super) async fn read_ledger(&mut self, partition: &Partition) -> Result<Recalled, RunnerError> {
        let read = self.recall.recall(partition).await;
        read.map_err(|e| RunnerError::Recall(self.name, Box::new(e)))
    }

    pub(super) async fn committed(&mut self) -> Result<Vec<Assignment>, RunnerError> {
        self.consumer.committed().await.map_err(|e| RunnerError::Consume(self.name, Box::new(e)))
    }
}
