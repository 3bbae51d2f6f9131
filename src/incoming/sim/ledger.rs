//! The ledger of the simulated broker, as a partition's new owner reads it.

use super::broker::{Broker, Never};
use crate::model::record::Partition;
use crate::runtime::ports::{Recall, Recalled};

/// Reads the ledger back.
pub(super) struct Recaller(pub(super) Broker);

impl Recall for Recaller {
    type Error = Never;

    async fn recall(&mut self, partition: &Partition) -> Result<Recalled, Never> {
        Ok(self.0.recall(partition).await.into())
    }
}
