//! The producer's end of the broker.

use std::time::Duration;

use super::{Broker, Open};
use crate::model::record::{OffsetCommit, OutRecord, Partition};
use crate::runtime::ports::{NotCommitted, Produce};

/// A transactional producer.
pub(in crate::incoming::sim) struct Producer {
    pub(in crate::incoming::sim) broker: Broker,
    pub(in crate::incoming::sim) owner: String,
    pub(in crate::incoming::sim) epoch: u64,
}

impl Producer {
    /// Sends the records and the offsets; the number of the open transaction.
    fn send(
        &self,
        records: Vec<OutRecord>,
        offsets: Vec<OffsetCommit>,
        (member, generation): (u64, u64),
    ) -> Result<u64, NotCommitted> {
        let (world, faults) = (&self.broker.world, self.broker.world.faults());
        let mut state = self.broker.lock();
        if state.epochs.get(&self.owner) != Some(&self.epoch) || world.chance(faults.fence) {
            world.saw("fenced producer");
            state.leave_gaps(&records);
            return Err(NotCommitted::Fenced("a newer producer has the id".into()));
        }
        if world.chance(faults.abort) {
            world.saw("aborted");
            state.leave_gaps(&records);
            return Err(NotCommitted::Aborted("as the dice have it".into()));
        }
        if !state.members.contains_key(&member) || state.generation != generation {
            world.saw("fenced generation");
            state.leave_gaps(&records);
            return Err(NotCommitted::Fenced("the generation is over".into()));
        }
        records.iter().for_each(|record| state.check_read_after_consumed(record, member));
        state.transactions += 1;
        let number = state.transactions;
        drop(state);
        self.broker.stage(Open { number, owner: self.owner.clone(), records, offsets });
        Ok(number)
    }
}

impl Produce<(u64, u64)> for Producer {
    async fn commit(
        &mut self,
        records: Vec<OutRecord>,
        offsets: Vec<OffsetCommit>,
        group: (u64, u64),
    ) -> Result<(), NotCommitted> {
        let world = self.broker.world.clone();
        world.pause(1..20).await;
        let number = self.send(records, offsets, group)?;
        let (landing, broker) = (Duration::from_millis(world.draw(1..60)), self.broker.clone());
        let is_unknown = world.chance(world.faults().unknown);
        let ended = if world.chance(0.5) {
            // The request is on its way: it lands even if its sender is dead by then.
            let flight = crate::runtime::spawn("end of a transaction", async move {
                tokio::time::sleep(landing).await;
                broker.end(number)
            });
            let heard = if is_unknown { world.draw(1..60) } else { 1_000 };
            let heard = tokio::time::timeout(Duration::from_millis(heard), flight).await;
            heard.is_ok_and(Result::unwrap)
        } else {
            tokio::time::sleep(landing).await;
            (!is_unknown || world.chance(0.5)) && broker.end(number)
        };
        if is_unknown {
            world.saw("unknown");
            // As the real one does: a new producer settles it, before anybody is told.
            self.epoch = self.broker.fence(&self.owner);
            return Err(NotCommitted::Unknown("no answer in time".into()));
        }
        world.pause(1..20).await;
        if ended { Ok(()) } else { Err(NotCommitted::Fenced("ended by another".into())) }
    }

    async fn identify(&mut self, owner: &Partition) -> Result<(), NotCommitted> {
        let world = self.broker.world.clone();
        world.pause(1..50).await;
        if world.chance(world.faults().abort) {
            return Err(NotCommitted::Aborted("not reached in time".into()));
        }
        self.owner = format!("bridge-{}", owner.number);
        self.epoch = self.broker.fence(&self.owner);
        Ok(())
    }
}
