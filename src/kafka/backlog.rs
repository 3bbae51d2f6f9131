//! How far a consumer group is behind, asked as a bystander: it joins nothing and commits nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::convert::{self, TopicNames};
use super::settings::{ClientError, ClientSettings, Ear, create};
use crate::engine::checkpoint::Checkpoint;

/// One question to the broker. An answer that takes longer is of no use: it is asked again a second later.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The offset behind the last record of a partition.
///
/// # Errors
/// The broker does not answer, or does not know the partition.
pub async fn end_of(client: &ClientSettings, topic: &str, partition: i32) -> Result<i64, ClientError> {
    let attempt = format!("asking where {topic}/{partition} ends");
    let config = client.consumer("backlog", "bcbridge-end", &[]);
    let (topic, asked) = (topic.to_owned(), attempt.clone());
    let answer = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer<Ear> = create("asking for an end", &config, Ear::new("backlog"))?;
        let (_, end) = consumer
            .fetch_watermarks(&topic, partition, TIMEOUT)
            .map_err(|error| ClientError::new(asked, &error))?;
        Ok(end)
    });
    answer.await.unwrap_or_else(|error| Err(ClientError::said(&attempt, error.to_string(), false)))
}

/// A bystander of one group and one topic.
#[derive(Clone)]
pub struct Backlog {
    consumer: Arc<BaseConsumer<Ear>>,
    topic: Arc<str>,
    partitions: i32,
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Backlog {
    /// A bystander of `group`, which works on the partitions of `topic`.
    ///
    /// # Errors
    /// librdkafka refuses the settings.
    pub fn new(
        client: &ClientSettings,
        group: &str,
        topic: Arc<str>,
        partitions: i32,
    ) -> Result<Self, ClientError> {
        let config = client.consumer("backlog", group, &[]);
        let consumer = create("watching a group", &config, Ear::new("backlog"))?;
        Ok(Self { consumer: Arc::new(consumer), topic, partitions })
    }

    /// Records of the topic that the group has not settled.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn records(&self) -> Result<u64, ClientError> {
        self.ask(0..self.partitions).await
    }

    /// The same of one partition.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn records_of(&self, partition: i32) -> Result<u64, ClientError> {
        self.ask(partition..partition + 1).await
    }

    async fn ask(&self, partitions: Range<i32>) -> Result<u64, ClientError> {
        let this = self.clone();
        let counted = tokio::task::spawn_blocking(move || this.count(partitions)).await;
        counted.unwrap_or_else(|error| Err(ClientError::said("watching a group", error.to_string(), false)))
    }

    fn count(&self, partitions: Range<i32>) -> Result<u64, ClientError> {
        let failed = |error| ClientError::new(format!("asking how far {} is worked off", self.topic), &error);
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition(&self.topic, partition);
        }
        let answer = self.consumer.committed_offsets(asked, TIMEOUT).map_err(failed)?;
        let mut records = 0;
        for assignment in convert::committed(&answer, &mut TopicNames::default())? {
            let number = assignment.partition.number;
            let (low, high) = self.consumer.fetch_watermarks(&self.topic, number, TIMEOUT).map_err(failed)?;
            records += match assignment.committed {
                Some(next) => Checkpoint::unsettled(next.max(low), &assignment.metadata, high),
                None => u64::try_from(high - low).unwrap_or(0),
            };
        }
        Ok(records)
    }
}
