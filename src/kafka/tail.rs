//! Reads topics as a person would: without a group, committed records only, from their beginning or their end.
//!
//! For `send --wait`, the demo's display and tests. Nothing is committed; a reader that is dropped leaves nothing
//! behind.

use std::time::Duration;

use futures::FutureExt;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout_at};

use super::convert::{self, TopicNames};
use super::settings::{ClientError, ClientSettings, Ear, create, is_transient};
use crate::model::record::InRecord;

/// One question about a topic's partitions.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader of some topics.
pub struct Tail {
    consumer: StreamConsumer<Ear>,
    topics: TopicNames,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tail")
    }
}

impl Tail {
    /// Reads one topic from where it ends now.
    ///
    /// # Errors
    /// The broker does not answer, or does not know the topic.
    pub async fn from_end(client: &ClientSettings, topic: &str) -> Result<Self, ClientError> {
        Self::open(client, vec![topic.to_owned()], true).await
    }

    /// Reads topics from their beginning.
    ///
    /// # Errors
    /// The broker does not answer, or does not know a topic.
    pub async fn from_start(client: &ClientSettings, topics: Vec<String>) -> Result<Self, ClientError> {
        Self::open(client, topics, false).await
    }

    async fn open(client: &ClientSettings, topics: Vec<String>, at_end: bool) -> Result<Self, ClientError> {
        // assign() wants a group; nothing is ever asked or told of it.
        let config = client.consumer("tail", "bcbridge-tail", &[("fetch.wait.max.ms", "50")]);
        let opened = tokio::task::spawn_blocking(move || -> Result<_, ClientError> {
            let consumer: StreamConsumer<Ear> = create("reading", &config, Ear::new("tail"))?;
            let list = positions(&consumer, &topics, at_end)
                .map_err(|error| ClientError::new(format!("reading {}", topics.join(", ")), &error))?;
            consumer.assign(&list).map_err(|error| ClientError::new("reading", &error))?;
            Ok(consumer)
        });
        let interrupted = |_| Err(ClientError::said("reading", "interrupted".to_owned(), false));
        let consumer = opened.await.unwrap_or_else(interrupted)?;
        Ok(Self { consumer, topics: TopicNames::default() })
    }

    /// The next record. May be dropped and called again.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn next(&mut self) -> Result<InRecord, ClientError> {
        loop {
            match self.consumer.recv().await {
                Ok(message) => return Ok(convert::in_record(&message, &mut self.topics)),
                Err(error) if error.rdkafka_error_code().is_some_and(is_transient) => {}
                Err(error) => return Err(ClientError::new("reading", &error)),
            }
        }
    }

    /// The next record if one is here already.
    ///
    /// # Errors
    /// See [`Self::next`].
    pub fn try_next(&mut self) -> Result<Option<InRecord>, ClientError> {
        self.next().now_or_never().transpose()
    }

    /// The first record of which `wanted` makes something; none if there is none within `patience`.
    ///
    /// # Errors
    /// See [`Self::next`].
    pub async fn find<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&InRecord) -> Option<T>,
    ) -> Result<Option<T>, ClientError> {
        let until = Instant::now() + patience;
        while let Ok(record) = timeout_at(until, self.next()).await {
            if let Some(found) = wanted(&record?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Every partition of the topics, at its beginning or its end.
fn positions(consumer: &StreamConsumer<Ear>, topics: &[String], at_end: bool) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
        let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
        for partition in partitions {
            let offset = match at_end {
                true => Offset::Offset(consumer.fetch_watermarks(topic, partition.id(), METADATA_TIMEOUT)?.1),
                false => Offset::Beginning,
            };
            list.add_partition_offset(topic, partition.id(), offset)?;
        }
    }
    Ok(list)
}
