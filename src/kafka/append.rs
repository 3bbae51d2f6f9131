//! The producer without transactions, for the receiver: verified callbacks go to the intake topic, and only
//! then are they answered.
//!
//! [`IntakeProducer::append`] succeeds when every record is on all in-sync replicas. When it fails, some records
//! may be durable, and others may still become so until [`MESSAGE_TIMEOUT`] has passed: the caller writes them
//! elsewhere, which makes a duplicate, never a loss. It never waits longer than its deadline, and its queue is
//! librdkafka's, bounded by `queue.buffering.max.messages` and `queue.buffering.max.kbytes`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::convert;
use super::settings::{ClientError, ClientSettings, Ear, create, is_transient};
use crate::model::record::OutRecord;
use crate::runtime::ports::{Append, NotDurable};

/// How long librdkafka keeps trying. Long enough for a leader election; callers give up earlier and spool, so
/// that more would only make more duplicates.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the brokers may take to tell where a topic's partitions are.
const WARM_TIMEOUT: Duration = Duration::from_secs(10);

/// Why records are not known to be durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No answer in time; any of the records may be durable by now, or soon.
    #[error("kafka did not acknowledge within {0:?}")]
    Deadline(Duration),
    /// An outage; the same may be tried again.
    #[error("kafka could not take the records: {0}")]
    Unavailable(String),
    /// The broker refuses the record itself, or the client its permission; trying again does not help.
    #[error("kafka refused a record: {0}")]
    Refused(String),
}

/// A producer with acks=all and idempotence, shared by all request handlers.
pub struct IntakeProducer {
    settings: ClientSettings,
    /// Replaced after a fatal error, which ends a producer for good.
    current: ArcSwap<FutureProducer<Ear>>,
    deadline: Duration,
}

impl std::fmt::Debug for IntakeProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntakeProducer").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl IntakeProducer {
    /// `deadline` is what [`Append::append`] waits at most. Connects in the background: a broker that is down
    /// shows at the first append.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: ClientSettings, deadline: Duration) -> Result<Self, ClientError> {
        let current = ArcSwap::from_pointee(connect(&settings)?);
        Ok(Self { settings, current, deadline })
    }

    /// Appends all records and waits until each is acknowledged by all in-sync replicas, at most `deadline`.
    /// When dropped half-way the records may be durable all the same.
    ///
    /// # Errors
    /// The first failure; see [`AppendError`] for what is then known of the records.
    pub async fn append(&self, records: Vec<OutRecord>, deadline: Duration) -> Result<(), AppendError> {
        let producer = self.current.load_full();
        let all = async {
            let mut reports = Vec::with_capacity(records.len());
            for record in &records {
                reports.push(enqueue(&producer, record).await?);
            }
            for report in reports {
                match report.await {
                    Ok(Ok(_)) => {}
                    Ok(Err((error, _))) => return Err(error),
                    Err(_) => return Err(KafkaError::Canceled),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(deadline, all).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.explain(&producer, &error)),
            Err(_) => Err(AppendError::Deadline(deadline)),
        }
    }

    /// Learns where the topics' partitions are, so that the first record does not wait for it.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn warm(&self, topics: Vec<String>) -> Result<(), ClientError> {
        let producer = self.current.load_full();
        let asked = tokio::task::spawn_blocking(move || {
            topics
                .iter()
                .try_for_each(|topic| producer.client().fetch_metadata(Some(topic), WARM_TIMEOUT).map(drop))
        });
        let answer = asked.await.unwrap_or(Err(KafkaError::Canceled));
        answer.map_err(|error| ClientError::new("asking where the intake's partitions are", &error))
    }

    fn explain(&self, failed: &Arc<FutureProducer<Ear>>, error: &KafkaError) -> AppendError {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced | RDKafkaErrorCode::UnknownProducerId,
            ) => {
                self.replace(failed);
                AppendError::Unavailable(error.to_string())
            }
            Some(code) if !is_transient(code) && is_refusal(code) => AppendError::Refused(error.to_string()),
            _ => AppendError::Unavailable(error.to_string()),
        }
    }

    /// A fatal error ends a producer; the first caller to see it makes the next one.
    fn replace(&self, failed: &Arc<FutureProducer<Ear>>) {
        match connect(&self.settings) {
            Ok(next) => {
                let before = self.current.compare_and_swap(failed, Arc::new(next));
                if Arc::ptr_eq(&before, failed) {
                    tracing::warn!("the intake producer met a fatal error and was replaced");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the intake producer met a fatal error and cannot be replaced")
            }
        }
    }
}

impl Append for IntakeProducer {
    async fn append(&self, records: Vec<OutRecord>) -> Result<(), NotDurable> {
        IntakeProducer::append(self, records, self.deadline)
            .await
            .map_err(|error| NotDurable(error.to_string()))
    }
}

fn connect(settings: &ClientSettings) -> Result<FutureProducer<Ear>, ClientError> {
    let timeout = MESSAGE_TIMEOUT.as_millis().to_string();
    let config = settings.producer("intake", &[("message.timeout.ms", &timeout)]);
    create("the intake", &config, Ear::new("intake"))
}

/// Waits while librdkafka's queue is full; the caller's deadline ends that.
async fn enqueue(producer: &FutureProducer<Ear>, record: &OutRecord) -> Result<DeliveryFuture, KafkaError> {
    /// The queue empties at some 30 records a millisecond.
    const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);
    loop {
        let entry = FutureRecord {
            topic: &record.topic,
            partition: record.partition,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: record.timestamp_ms,
            headers: convert::headers(record),
        };
        match producer.send_result(entry) {
            Ok(report) => return Ok(report),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                tokio::time::sleep(FULL_QUEUE_PAUSE).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Errors that say something about the record or our permission, not about the broker's state.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::MessageSizeTooLarge
            | C::MessageBatchTooLarge
            | C::InvalidRecord
            | C::InvalidMessage
            | C::InvalidTimestamp
            | C::PolicyViolation
            | C::TopicAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::InvalidTopic
            | C::UnknownPartition
    )
}
