//! What the bridge noted about the work of a partition, read back from a compacted topic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message as _};

use super::read_back::{End, ReadBack, ReadBackError, read_back, read_messages};
use super::settings::ClientSettings;
use crate::model::record::{InRecord, Partition};
use crate::runtime::ports::{Recall, Recalled, Trace, Want};

/// A ledger of some hundred thousand entities is read in seconds; what takes longer than this is a broken broker.
const DEADLINE: Duration = Duration::from_secs(60);

/// Traces of one partition at most, of 16 bytes: more than a path remembers of all of them. The newest stay.
const MAX_TRACES: usize = 1_000_000;
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
            end: End::Stable,
            deadline: DEADLINE,
        };
        read_back(&self.client, what, on_record).await.map(drop)
    }
}

impl Recall for Ledger {
    type Error = ReadBackError;

    async fn recall(&mut self, partition: &Partition) -> Result<Recalled, ReadBackError> {
        let reading = Arc::new(Mutex::new(Reading::default()));
        let what = ReadBack {
            topic: self.topic.to_string(),
            partitions: vec![partition.number % self.partitions],
            // Another owner's open transaction must not hide what was noted behind it: an intent that is missed is a
            // command that is sent twice.
            end: End::Written,
            deadline: DEADLINE,
        };
        let (taken, wanted) = (reading.clone(), self.wanted.clone());
        read_messages(&self.client, what, move |message| {
            let mut reading = taken.lock().unwrap_or_else(PoisonError::into_inner);
            reading.take(message.key().unwrap_or_default(), message.payload(), &*wanted);
        })
        .await?;
        let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Reading { values, traces, .. } = std::mem::take(&mut *reading);
        Ok(Recalled { values, traces: traces.into() })
    }
}

/// What was read of a partition so far, and is wanted.
#[derive(Default)]
struct Reading {
    values: BTreeMap<String, Bytes>,
    traces: VecDeque<Trace>,
    /// Keys without a value.
    keys: usize,
}

impl Reading {
    fn take(&mut self, key: &[u8], value: Option<&[u8]>, wanted: &dyn Fn(&str, &[u8]) -> Want) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        let wanted = value.map_or(Want::Nothing, |value| wanted(key, value));
        let value = match wanted {
            Want::Each => value.map(Bytes::copy_from_slice),
            Want::Key if self.keys < MAX_KEYS => {
                self.keys += 1;
                Some(Bytes::new())
            }
            Want::Trace(trace) => {
                if self.traces.len() >= MAX_TRACES {
                    self.traces.pop_front();
                }
                self.traces.push_back(trace);
                None
            }
            Want::Nothing | Want::Key => None,
        };
        match value {
            Some(value) => drop(self.values.insert(key.to_owned(), value)),
            // It may have been something else before.
            None => drop(self.values.remove(key)),
        }
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

    async fn recall(&mut self, _partition: &Partition) -> Result<Recalled, ReadBackError> {
        let values = Arc::new(Mutex::new(BTreeMap::new()));
        for topic in (self.topics)() {
            let (topic, partitions, end) = (topic.to_string(), vec![0], End::Written);
            let what = ReadBack { topic, partitions, end, deadline: DEADLINE };
            let (taken, prefixes) = (values.clone(), self.prefixes);
            read_messages(&self.client, what, move |message| {
                let key = message.key().unwrap_or_default();
                if prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes())) {
                    take(&mut taken.lock().unwrap_or_else(PoisonError::into_inner), message);
                }
            })
            .await?;
        }
        let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *values).into())
    }
}

/// Keeps the last value of each key; a tombstone removes it.
fn take(values: &mut BTreeMap<String, Bytes>, message: &BorrowedMessage<'_>) {
    let Some(key) = message.key().and_then(|key| std::str::from_utf8(key).ok()) else { return };
    match message.payload() {
        Some(value) => values.insert(key.to_owned(), Bytes::copy_from_slice(value)),
        None => values.remove(key),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the first letter of the key; a trace has the value's length as its time.
    fn wanted(key: &str, value: &[u8]) -> Want {
        match key.as_bytes()[0] {
            b'e' => Want::Each,
            b't' if value == b"other" => Want::Each,
            b't' => Want::Trace(Trace { hash: 7, at_ms: i64::try_from(value.len()).unwrap() }),
            b'k' => Want::Key,
            _ => Want::Nothing,
        }
    }

    #[test]
    fn what_must_be_known_is_kept_whole_and_of_the_rest_a_trace() {
        let mut reading = Reading::default();
        let records: [(&str, Option<&[u8]>); 10] = [
            ("each", Some(b"1")),
            ("each", Some(b"2")),
            ("else", Some(b"1")),
            ("else", None),
            ("key", Some(b"1")),
            ("other", Some(b"1")),
            ("t", Some(b"other")),
            ("t", Some(b"abc")),
            ("t2", Some(b"a")),
            ("t2", Some(b"other")),
        ];
        for (key, value) in records {
            reading.take(key.as_bytes(), value, &wanted);
        }
        reading.take(b"\xff", Some(b"1"), &wanted);
        let values: Vec<(&str, &[u8])> = reading.values.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(values, [("each", &b"2"[..]), ("key", b""), ("t2", b"other")]);
        let times: Vec<i64> = reading.traces.iter().map(|trace| trace.at_ms).collect();
        assert_eq!(times, [3, 1]);
    }

    #[test]
    fn of_very_many_traces_the_newest_stay() {
        let mut reading = Reading::default();
        let (short, long) = ([b'a'; 1], [b'a'; 2]);
        for _ in 0..10 {
            reading.take(b"t", Some(&short), &wanted);
        }
        for _ in 10..MAX_TRACES + 9 {
            reading.take(b"t", Some(&long), &wanted);
        }
        assert_eq!(reading.traces.len(), MAX_TRACES);
        assert_eq!(reading.traces.iter().filter(|trace| trace.at_ms == 1).count(), 1);
    }
}
