//! What the bridge noted about the work of a partition, read back from a compacted topic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::read_back::{ReadBack, ReadBackError, read_back};
use super::settings::ClientSettings;
use crate::model::record::{InRecord, Partition};
use crate::runtime::ports::Recall;

/// A ledger of some hundred thousand entities is read in seconds; what takes longer than this is a broken broker.
const DEADLINE: Duration = Duration::from_secs(60);

/// A compacted topic whose partitions go with those of the topics that work is taken from.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: ClientSettings,
    topic: Arc<str>,
    partitions: i32,
}

impl Ledger {
    /// The ledger in `topic`, which has so many partitions.
    pub fn new(client: ClientSettings, topic: Arc<str>, partitions: i32) -> Self {
        Self { client, topic, partitions: partitions.max(1) }
    }
}

impl Recall for Ledger {
    type Error = ReadBackError;

    async fn recall(&mut self, partition: &Partition) -> Result<BTreeMap<String, Bytes>, ReadBackError> {
        let values = Arc::new(Mutex::new(BTreeMap::new()));
        let what = ReadBack {
            topic: self.topic.to_string(),
            partitions: vec![partition.number % self.partitions],
            deadline: DEADLINE,
        };
        let taken = values.clone();
        read_back(&self.client, what, move |record| {
            take(&mut taken.lock().unwrap_or_else(PoisonError::into_inner), record);
        })
        .await?;
        let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *values))
    }
}

/// Keeps the last value of each key; a tombstone removes it.
fn take(values: &mut BTreeMap<String, Bytes>, record: InRecord) {
    let Some(key) = record.key.and_then(|key| String::from_utf8(key.to_vec()).ok()) else { return };
    match record.value {
        Some(value) => values.insert(key, value),
        None => values.remove(&key),
    };
}
