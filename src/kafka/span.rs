//! Reads a part of a topic once, as a stream: from given offsets to where the partitions ended when it was asked.
//!
//! It joins no group and commits nothing. Only committed records are seen. It holds no more than what librdkafka
//! fetches ahead (16 MiB), however long the topic is. A broker that falls silent is an error, never an early end.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::timeout;

use super::convert::{self, TopicNames};
use super::settings::{ClientError, ClientSettings, Ear, create, is_transient};
use crate::model::record::InRecord;

/// One question about a topic.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may send nothing while there is more: enough for the election of a new leader.
const SILENCE: Duration = Duration::from_secs(30);

/// What there is to read of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first offset.
    pub from: i64,
    /// The offset behind the last.
    pub to: i64,
}

/// All that the partitions of a topic hold now: each with the offset of its first record and the one behind its last.
/// Empty where there is no such topic.
///
/// # Errors
/// The broker does not answer.
pub async fn extent(client: &ClientSettings, topic: &str) -> Result<BTreeMap<i32, Range>, ClientError> {
    ask(client, topic, |consumer, topic| {
        let metadata = consumer.fetch_metadata(Some(topic), QUESTION_TIMEOUT)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let range = |number| {
            let (from, to) = consumer.fetch_watermarks(topic, number, QUESTION_TIMEOUT)?;
            Ok((number, Range { from, to }))
        };
        partitions.map(|partition| range(partition.id())).collect()
    })
    .await
}

/// The part of `extent` that came at `at_ms` (milliseconds since the epoch) or later.
///
/// # Errors
/// The broker does not answer.
pub async fn since(
    client: &ClientSettings,
    topic: &str,
    extent: BTreeMap<i32, Range>,
    at_ms: i64,
) -> Result<BTreeMap<i32, Range>, ClientError> {
    ask(client, topic, move |consumer, topic| {
        let mut asked = TopicPartitionList::new();
        for number in extent.keys() {
            asked.add_partition_offset(topic, *number, Offset::Offset(at_ms))?;
        }
        let found = consumer.offsets_for_times(asked, QUESTION_TIMEOUT)?;
        let mut ranges = extent;
        for element in found.elements() {
            let Some(range) = ranges.get_mut(&element.partition()) else { continue };
            range.from = match element.offset() {
                Offset::Offset(offset) => offset.max(range.from),
                // Nothing is as young as that.
                _ => range.to,
            };
        }
        Ok(ranges)
    })
    .await
}

async fn ask<T: Send + 'static>(
    client: &ClientSettings,
    topic: &str,
    question: impl FnOnce(&BaseConsumer<Ear>, &str) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, ClientError> {
    let config = client.consumer("span", "bcbridge-tail", &[]);
    let topic = topic.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer<Ear> = create("reading", &config, Ear::new("span"))?;
        let answer = question(&consumer, &topic);
        answer.map_err(|error| ClientError::new(format!("asking what {topic} holds"), &error))
    });
    asked.await.unwrap_or_else(|_| Err(interrupted()))
}

fn interrupted() -> ClientError {
    ClientError::said("reading", "interrupted".to_owned(), false)
}

/// A part of a topic, being read.
pub struct Span {
    consumer: StreamConsumer<Ear>,
    topic: String,
    /// Where each partition that is not at its end will be.
    left: BTreeMap<i32, i64>,
    topics: TopicNames,
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Span").field("topic", &self.topic).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Span {
    /// Begins to read the given ranges of a topic's partitions.
    ///
    /// # Errors
    /// librdkafka refuses the settings.
    pub async fn open(
        client: &ClientSettings,
        topic: &str,
        ranges: &BTreeMap<i32, Range>,
    ) -> Result<Self, ClientError> {
        let fixed = [("enable.partition.eof", "true"), ("fetch.wait.max.ms", "10")];
        // assign() wants a group; nothing is ever asked or told of it.
        let config = client.consumer("span", "bcbridge-tail", &fixed);
        let topic = topic.to_owned();
        let ranges: BTreeMap<i32, Range> =
            ranges.iter().filter(|(_, range)| range.from < range.to).map(|(n, range)| (*n, *range)).collect();
        let opened = tokio::task::spawn_blocking(move || {
            let failed = |error: KafkaError| ClientError::new(format!("reading {topic}"), &error);
            let consumer: StreamConsumer<Ear> = create("reading", &config, Ear::new("span"))?;
            let mut list = TopicPartitionList::new();
            for (number, range) in &ranges {
                list.add_partition_offset(&topic, *number, Offset::Offset(range.from)).map_err(failed)?;
            }
            if !ranges.is_empty() {
                consumer.assign(&list).map_err(failed)?;
            }
            let left = ranges.into_iter().map(|(number, range)| (number, range.to)).collect();
            Ok(Self { consumer, topic, left, topics: TopicNames::default() })
        });
        opened.await.unwrap_or_else(|_| Err(interrupted()))
    }

    /// The next record, in order per partition; none when all is read.
    ///
    /// # Errors
    /// The broker refuses, or falls silent.
    pub async fn next(&mut self) -> Result<Option<InRecord>, ClientError> {
        while !self.left.is_empty() {
            let Ok(received) = timeout(SILENCE, self.consumer.recv()).await else {
                let cause = format!("the broker sent nothing for {SILENCE:?}");
                return Err(ClientError::said(format!("reading {}", self.topic), cause, true));
            };
            match received {
                Ok(message) => {
                    let (number, offset) = {
                        use rdkafka::Message as _;
                        (message.partition(), message.offset())
                    };
                    let Some(end) = self.left.get(&number).copied() else { continue };
                    let record = (offset < end).then(|| convert::in_record(&message, &mut self.topics));
                    if offset + 1 >= end {
                        self.left.remove(&number);
                    }
                    if record.is_some() {
                        return Ok(record);
                    }
                }
                // Markers and aborted records are passed over, so that the last offset may never be seen.
                Err(KafkaError::PartitionEOF(number)) => drop(self.left.remove(&number)),
                Err(error) if error.rdkafka_error_code().is_some_and(is_transient) => {}
                Err(error) => return Err(ClientError::new(format!("reading {}", self.topic), &error)),
            }
        }
        Ok(None)
    }
}
