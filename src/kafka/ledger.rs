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

impl Ledger {
    /// Hands every committed record of all partitions to `on_record`, in order within each.
    ///
    /// # Errors
    /// Not all could be read.
    pub async fn read(&self, on_record: impl FnMut(InRecord) + Send + 'static) -> Result<(), ReadBackError> {
        let what = ReadBack {
            topic: self.topic.to_string(),
            partitions: (0..self.partitions).collect(),
            deadline: DEADLINE,
        };
        read_back(&self.client, what, on_record).await.map(drop)
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

/// The ledgers of several stores, of which the leader's part is read: what it noted stands in the first partition of
/// each, under keys of its own.
pub struct LeaderLedger {
    client: ClientSettings,
    topics: Topics,
    prefixes: &'static [&'static str],
}

/// Tells which topics are the stores' ledgers now.
type Topics = Arc<dyn Fn() -> Vec<Arc<str>> + Send + Sync>;

impl LeaderLedger {
    /// The keys with these prefixes, of the topics that `topics` names when it is asked.
    pub fn new(client: ClientSettings, topics: Topics, prefixes: &'static [&'static str]) -> Self {
        Self { client, topics, prefixes }
    }
}

impl std::fmt::Debug for LeaderLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderLedger").field("prefixes", &self.prefixes).finish_non_exhaustive()
    }
}

impl Recall for LeaderLedger {
    type Error = ReadBackError;

    async fn recall(&mut self, _partition: &Partition) -> Result<BTreeMap<String, Bytes>, ReadBackError> {
        let values = Arc::new(Mutex::new(BTreeMap::new()));
        for topic in (self.topics)() {
            let what = ReadBack { topic: topic.to_string(), partitions: vec![0], deadline: DEADLINE };
            let (taken, prefixes) = (values.clone(), self.prefixes);
            read_back(&self.client, what, move |record| {
                let key = record.key.as_deref().unwrap_or_default();
                if prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes())) {
                    take(&mut taken.lock().unwrap_or_else(PoisonError::into_inner), record);
                }
            })
            .await?;
        }
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
