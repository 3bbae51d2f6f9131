//! What the bridge noted about the work of a partition, read back from a compacted topic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::read_back::{ReadBack, ReadBackError, read_back};
use super::settings::ClientSettings;
use crate::model::record::{InRecord, Partition};
use crate::runtime::ports::{Recall, Want};

/// A ledger of some hundred thousand entities is read in seconds; what takes longer than this is a broken broker.
const DEADLINE: Duration = Duration::from_secs(60);

/// Bytes of a partition's entries of which only the newest are wanted, with what each weighs: what is read on top of
/// what the path has already.
const MAX_NEWEST_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of an entry beside those of its key and value.
const ENTRY_BYTES: usize = 160;
/// Keys without a value at most, for each partition. The others are found when it is read back the next time.
const MAX_KEYS: usize = 50_000;

/// Says of a key and its value what a path wants of it.
pub type Wanted = Arc<dyn Fn(&str, &[u8]) -> Want + Send + Sync>;

/// A compacted topic whose partitions go with those of the topics that work is taken from.
#[derive(Clone)]
pub struct Ledger {
    client: ClientSettings,
    topic: Arc<str>,
    partitions: i32,
    wanted: Wanted,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Ledger {
    /// The ledger in `topic`, which has so many partitions.
    pub fn new(client: ClientSettings, topic: Arc<str>, partitions: i32) -> Self {
        Self { client, topic, partitions: partitions.max(1), wanted: Arc::new(|_, _| Want::Each) }
    }

    /// The same, of which only a part is recalled.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
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
        let values = Arc::new(Mutex::new(Recalled::default()));
        let what = ReadBack {
            topic: self.topic.to_string(),
            partitions: vec![partition.number % self.partitions],
            deadline: DEADLINE,
        };
        let (taken, wanted) = (values.clone(), self.wanted.clone());
        read_back(&self.client, what, move |record| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).take(record, &wanted);
        })
        .await?;
        let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *values).into_values())
    }
}

/// What was read of a partition so far, and is wanted.
#[derive(Default)]
struct Recalled {
    /// Values, each with the number of the record that it came with.
    values: BTreeMap<String, (u64, Bytes)>,
    /// Those of which only the newest are wanted, and what they weigh; some may have been replaced since.
    newest: VecDeque<(String, u64, usize)>,
    bytes: usize,
    keys: usize,
    number: u64,
}

impl Recalled {
    fn take(&mut self, record: InRecord, wanted: &Wanted) {
        let Some(key) = record.key.and_then(|key| String::from_utf8(key.to_vec()).ok()) else { return };
        self.number += 1;
        let Some(value) = record.value else {
            self.values.remove(&key);
            return;
        };
        match wanted(&key, &value) {
            // It may have been something else before.
            Want::Nothing => drop(self.values.remove(&key)),
            Want::Each => drop(self.values.insert(key, (self.number, value))),
            Want::Newest => self.newest(key, value),
            Want::Key if self.keys < MAX_KEYS => {
                self.keys += 1;
                self.values.insert(key, (self.number, Bytes::new()));
            }
            Want::Key => drop(self.values.remove(&key)),
        }
    }

    fn newest(&mut self, key: String, value: Bytes) {
        let size = 2 * key.len() + value.len() + ENTRY_BYTES;
        self.bytes += size;
        self.newest.push_back((key.clone(), self.number, size));
        self.values.insert(key, (self.number, value));
        while self.bytes > MAX_NEWEST_BYTES {
            let Some((key, number, size)) = self.newest.pop_front() else { break };
            self.bytes -= size;
            if self.values.get(&key).is_some_and(|(n, _)| *n == number) {
                self.values.remove(&key);
            }
        }
    }

    fn into_values(self) -> BTreeMap<String, Bytes> {
        self.values.into_iter().map(|(key, (_, value))| (key, value)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Position;

    fn record(key: &str, value: Option<Vec<u8>>) -> InRecord {
        let partition = Partition { topic: "ledger".into(), number: 0 };
        InRecord {
            position: Position { partition, offset: 0 },
            key: Some(Bytes::from(key.to_owned())),
            value: value.map(Bytes::from),
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// By the first letter of the key.
    fn wanted() -> Wanted {
        Arc::new(|key, _| match key.as_bytes()[0] {
            b'e' => Want::Each,
            b'n' => Want::Newest,
            b'k' => Want::Key,
            _ => Want::Nothing,
        })
    }

    #[test]
    fn the_newest_are_kept_within_bounds_and_what_must_be_known_is_never_dropped() {
        let (mut recalled, megabyte) = (Recalled::default(), || vec![7; 1 << 20]);
        recalled.take(record("each", Some(megabyte())), &wanted());
        recalled.take(record("other", Some(megabyte())), &wanted());
        recalled.take(record("key", Some(megabyte())), &wanted());
        for number in 0..100 {
            recalled.take(record(&format!("n{number}"), Some(megabyte())), &wanted());
            // One that is written again and again counts as new.
            recalled.take(record("n-often", Some(vec![1])), &wanted());
        }
        recalled.take(record("n98", None), &wanted());
        let values = recalled.into_values();
        assert_eq!((values["each"].len(), values["key"].len()), (1 << 20, 0));
        assert!(!values.contains_key("other") && !values.contains_key("n98"));
        assert!(values.contains_key("n99") && values.contains_key("n75") && values.contains_key("n-often"));
        assert!(!values.contains_key("n50"));
        assert!(values.len() < 36, "{} entries", values.len());
    }
}
