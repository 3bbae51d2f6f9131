//! A member of a consumer group: assignments with what is committed for them, revocations and records, in order.
//!
//! What always holds:
//!
//! - No record is delivered before the `Assigned` that it belongs to, nor after the `Revoked` that ends it.
//! - Partitions are given up when [`GroupConsumer::next`] is called again after `Revoked`: until then the owner
//!   may finish what it has begun, at most for the group's rebalance timeout ([`MAX_POLL_INTERVAL`]).
//! - Reading starts where the group has committed, else at the beginning. An offset that the topic no longer
//!   has is an error, never a skip (K18).
//! - Offsets are never committed here, only in transactions (K3).
//!
//! Outages are not errors: librdkafka reconnects, and says so in the log. [`ConsumeError`] is for what a person
//! has to look at. While paused, `next` must still be called: it keeps the membership alive (K12).

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata, StreamConsumer,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::convert::{self, TopicNames};
use super::settings::{ClientError, ClientSettings, Ear, create};
use crate::model::record::{Assignment, Partition, Position};
use crate::runtime::ports::{Consume, Consumed};

/// A member whose owner does not call `next` for this long is expelled (`max.poll.interval.ms`); it also bounds
/// how long a revocation may be answered. Longer than the slowest request and its hand-over.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(120);
/// A member that dies is expelled after this (`session.timeout.ms`), and only then has its work a new owner: the least
/// that brokers allow (`group.min.session.timeout.ms`). A live member that is expelled is fenced, and joins again.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// Some round trips. A member that is gone without the broker's answer is expelled as a dead one is.
pub const LEAVE: Duration = Duration::from_secs(2);
/// One try at asking the broker for offsets or seeking.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of [`GroupConsumer::committed`]: outlasts an open transaction of a dead owner (10 s) and an election.
const QUERY_TRIES: u32 = 6;
/// Between tries.
const QUERY_PAUSE: Duration = Duration::from_millis(200);

/// Why the member cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumeError {
    /// The committed offset is no longer (or not yet) in the topic: it was deleted, recreated or cut by retention.
    #[error("a committed offset of group {group} lies outside its partition; decide from where to go on")]
    OffsetOutOfRange {
        /// The group.
        group: String,
    },
    /// A permission is missing, or the client met a fatal error.
    #[error("consuming as group {group} failed: {cause}")]
    Refused {
        /// The group.
        group: String,
        /// What librdkafka said.
        cause: String,
    },
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Proof of membership at one moment (KIP-447).
pub struct GroupHandle(ConsumerGroupMetadata);

impl GroupHandle {
    pub(super) fn metadata(&self) -> &ConsumerGroupMetadata {
        &self.0
    }
}

impl std::fmt::Debug for GroupHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupHandle(..)")
    }
}

/// A member of a consumer group. Dropping it leaves the group, which blocks for a moment: prefer
/// [`GroupConsumer::close`].
pub struct GroupConsumer {
    consumer: Arc<StreamConsumer<Rebalances>>,
    group: String,
    topics: TopicNames,
    paused: bool,
    /// Partitions whose flow is stopped on its own.
    held: BTreeSet<Partition>,
    phase: Phase,
}

/// What has been told to the owner, and what librdkafka still waits for.
enum Phase {
    /// Records flow, or nothing is assigned.
    Steady,
    /// An assignment has arrived; what is committed for it is being asked.
    Assigning(Vec<Partition>, Option<JoinHandle<Result<TopicPartitionList, KafkaError>>>),
    /// The owner was told; giving up the partitions is next.
    Revoking,
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group", &self.group)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

impl GroupConsumer {
    /// Joins `group` for `topics` in the background: the assignment is the first event of `next`.
    ///
    /// # Errors
    /// When librdkafka refuses the settings or the names.
    pub fn join(client: &ClientSettings, group: &str, topics: &[&str]) -> Result<Self, ClientError> {
        let (poll_ms, session_ms) =
            (MAX_POLL_INTERVAL.as_millis().to_string(), SESSION_TIMEOUT.as_millis().to_string());
        let config = client.consumer(
            "consume",
            group,
            &[
                ("max.poll.interval.ms", &poll_ms),
                ("session.timeout.ms", &session_ms),
                ("heartbeat.interval.ms", "1500"),
                ("partition.assignment.strategy", "range"),
                // Notice new partitions of a subscribed topic, and a topic that is created late.
                ("topic.metadata.refresh.interval.ms", "10000"),
                ("fetch.wait.max.ms", "100"),
            ],
        );
        let consumer: StreamConsumer<Rebalances> = create("consuming", &config, Rebalances::default())?;
        consumer
            .subscribe(topics)
            .map_err(|error| ClientError::new(format!("subscribing to {}", topics.join(", ")), &error))?;
        Ok(Self {
            consumer: Arc::new(consumer),
            group: group.to_owned(),
            topics: TopicNames::default(),
            paused: false,
            held: BTreeSet::new(),
            phase: Phase::Steady,
        })
    }

    /// The next event. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// See [`ConsumeError`]; the member can be asked again, but the same error is likely to return.
    pub async fn next(&mut self) -> Result<Consumed, ConsumeError> {
        loop {
            if let Some(event) = self.rebalance().await? {
                return Ok(event);
            }
            let happened = &self.consumer.context().happened;
            let received = tokio::select! {
                // A rebalance is told before anything that is received after it.
                biased;
                () = happened.notified() => None,
                received = self.consumer.recv() => Some(received.map(|m| convert::in_record(&m, &mut self.topics))),
            };
            match received {
                None => {}
                Some(Ok(record)) => return Ok(Consumed::Record(record)),
                Some(Err(error)) => self.judge(&error)?,
            }
        }
    }

    /// Brings a rebalance one step further; the event to be told, if there is one.
    async fn rebalance(&mut self) -> Result<Option<Consumed>, ConsumeError> {
        loop {
            match &mut self.phase {
                Phase::Assigning(..) => return self.assign().await.map(|all| Some(Consumed::Assigned(all))),
                Phase::Revoking => {
                    self.give_up()?;
                    self.phase = Phase::Steady;
                }
                Phase::Steady => match self.consumer.context().take(&mut self.topics) {
                    None => return Ok(None),
                    Some(Rebalance::Revoke) => {
                        self.phase = Phase::Revoking;
                        return Ok(Some(Consumed::Revoked));
                    }
                    Some(Rebalance::Assign(partitions)) => self.phase = Phase::Assigning(partitions, None),
                },
            }
        }
    }

    fn give_up(&mut self) -> Result<(), ConsumeError> {
        // librdkafka would remember that a partition was paused, and keep it so when it comes back.
        let assigned = self.assignment()?;
        self.call("resuming", |c| c.resume(&assigned))?;
        self.held.clear();
        self.call("giving up partitions", |c| c.unassign())
    }

    /// Asks what is committed until there is an answer, then lets librdkafka fetch from there.
    async fn assign(&mut self) -> Result<Vec<Assignment>, ConsumeError> {
        let committed = loop {
            let Phase::Assigning(partitions, query) = &mut self.phase else {
                unreachable!("assign is called in this phase only")
            };
            let list = convert::list_of(partitions.iter());
            let query = query.get_or_insert_with(|| query_committed(&self.consumer, list));
            let answer = query.await;
            // The answer is in; what follows up to the next await cannot be dropped in between.
            let asked = std::mem::take(partitions);
            self.phase = Phase::Assigning(asked, None);
            match read_committed(answer, &mut self.topics) {
                Ok(committed) => break committed,
                Err(error) => {
                    tracing::warn!(group = self.group, %error, "the committed offsets are not known yet");
                    tokio::time::sleep(QUERY_PAUSE).await;
                }
            }
        };
        let mut start = TopicPartitionList::with_capacity(committed.len());
        for assignment in &committed {
            let Partition { topic, number } = &assignment.partition;
            let from = assignment.committed.map_or(Offset::Beginning, Offset::Offset);
            start.add_partition_offset(topic, *number, from).map_err(|error| {
                ClientError::new(format!("starting at the committed offset of {topic}/{number}"), &error)
            })?;
        }
        self.call("taking on partitions", |c| c.assign(&start))?;
        self.phase = Phase::Steady;
        if self.paused {
            self.pause(true)?;
        }
        Ok(committed)
    }

    /// Stops the flow of records, of later assignments too. `next` must still be called.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn pause_all(&mut self) -> Result<(), ConsumeError> {
        self.pause(true)
    }

    /// Lets records flow again.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn resume_all(&mut self) -> Result<(), ConsumeError> {
        self.pause(false)
    }

    /// Stops or resumes the flow of one partition, until the assignment ends.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn hold(&mut self, partition: &Partition, held: bool) -> Result<(), ConsumeError> {
        let changed = if held { self.held.insert(partition.clone()) } else { self.held.remove(partition) };
        if !changed || self.paused {
            return Ok(());
        }
        let list = convert::list_of([partition]);
        if held {
            self.call("pausing a partition", |c| c.pause(&list))
        } else {
            self.call("resuming a partition", |c| c.resume(&list))
        }
    }

    fn pause(&mut self, paused: bool) -> Result<(), ConsumeError> {
        self.paused = paused;
        let assigned = self.assignment()?;
        if paused {
            return self.call("pausing", |c| c.pause(&assigned));
        }
        let assigned = convert::partitions(&assigned, &mut self.topics);
        let list = convert::list_of(assigned.iter().filter(|partition| !self.held.contains(partition)));
        self.call("resuming", |c| c.resume(&list))
    }

    /// Proof of membership, taken now; none before the first assignment of a group that was never joined.
    pub fn group(&self) -> Option<GroupHandle> {
        self.consumer.group_metadata().map(GroupHandle)
    }

    /// What is committed for the assigned partitions, asked of the broker now. Waits for open transactions.
    ///
    /// # Errors
    /// When there is no answer within about half a minute.
    pub async fn committed(&mut self) -> Result<Vec<Assignment>, ConsumeError> {
        let assigned = self.assignment()?;
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = query_committed(&self.consumer, assigned.clone()).await;
            match read_committed(answer, &mut self.topics) {
                Ok(committed) => return Ok(committed),
                Err(error) if tries >= QUERY_TRIES => return Err(error.into()),
                Err(_) => tokio::time::sleep(QUERY_PAUSE).await,
            }
        }
    }

    /// Goes on reading from `position`, of an assigned partition.
    ///
    /// # Errors
    /// When the partition is not assigned, or the broker does not answer.
    pub async fn seek(&mut self, position: &Position) -> Result<(), ConsumeError> {
        let Position { partition: Partition { topic, number }, offset } = position;
        let attempt = format!("seeking to offset {offset} of {topic}/{number}");
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, *number, Offset::Offset(*offset))
            .map_err(|error| ClientError::new(&attempt, &error))?;
        let consumer = self.consumer.clone();
        let sought = tokio::task::spawn_blocking(move || consumer.seek_partitions(list, QUERY_TIMEOUT)).await;
        let sought = flatten(sought).map_err(|error| ClientError::new(&attempt, &error))?;
        for element in sought.elements() {
            element.error().map_err(|error| ClientError::new(&attempt, &error))?;
        }
        Ok(())
    }

    /// Leaves the group, off the async threads, and waits for that no longer than [`LEAVE`]. While another member holds
    /// up a rebalance the broker does not read what this one says, and librdkafka waits 5 s for the answer.
    pub async fn close(self) {
        // A panic in there has been reported by the runtime; the group expels a member that is gone.
        let _ = tokio::time::timeout(LEAVE, tokio::task::spawn_blocking(move || drop(self))).await;
    }

    fn assignment(&self) -> Result<TopicPartitionList, ConsumeError> {
        let assigned = self.consumer.assignment();
        Ok(assigned.map_err(|error| ClientError::new("reading the assignment", &error))?)
    }

    fn call(
        &self,
        attempt: &str,
        call: impl FnOnce(&StreamConsumer<Rebalances>) -> Result<(), KafkaError>,
    ) -> Result<(), ConsumeError> {
        Ok(call(&self.consumer).map_err(|error| ClientError::new(attempt, &error))?)
    }

    /// Outages pass; what does not is for the owner.
    fn judge(&self, error: &KafkaError) -> Result<(), ConsumeError> {
        use RDKafkaErrorCode as C;
        let group = self.group.clone();
        match (error, error.rdkafka_error_code()) {
            (_, Some(C::AutoOffsetReset | C::OffsetOutOfRange)) => {
                Err(ConsumeError::OffsetOutOfRange { group })
            }
            (KafkaError::MessageConsumptionFatal(_), _)
            | (
                _,
                Some(
                    C::TopicAuthorizationFailed
                    | C::GroupAuthorizationFailed
                    | C::ClusterAuthorizationFailed
                    | C::InvalidSessionTimeout
                    | C::InconsistentGroupProtocol
                    | C::Fatal,
                ),
            ) => Err(ConsumeError::Refused { group, cause: error.to_string() }),
            _ => {
                tracing::warn!(group, %error, "consuming was disturbed; librdkafka goes on by itself");
                Ok(())
            }
        }
    }
}

impl Consume for GroupConsumer {
    type Group = GroupHandle;
    type Error = ConsumeError;

    async fn next(&mut self) -> Result<Consumed, ConsumeError> {
        GroupConsumer::next(self).await
    }

    fn pause(&mut self, paused: bool) -> Result<(), ConsumeError> {
        GroupConsumer::pause(self, paused)
    }

    fn hold(&mut self, partition: &Partition, held: bool) -> Result<(), ConsumeError> {
        GroupConsumer::hold(self, partition, held)
    }

    fn group(&self) -> Option<GroupHandle> {
        GroupConsumer::group(self)
    }

    async fn committed(&mut self) -> Result<Vec<Assignment>, ConsumeError> {
        GroupConsumer::committed(self).await
    }

    async fn leave(self) {
        self.close().await;
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        // Closing makes librdkafka revoke once more, and wait for the answer: see `rebalance` below.
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        if !matches!(self.phase, Phase::Steady) {
            // An error means that there is nothing left to give up.
            let _ = self.consumer.unassign();
        }
    }
}

type Answer = Result<Result<TopicPartitionList, KafkaError>, tokio::task::JoinError>;

fn query_committed(
    consumer: &Arc<StreamConsumer<Rebalances>>,
    list: TopicPartitionList,
) -> JoinHandle<Result<TopicPartitionList, KafkaError>> {
    let consumer = consumer.clone();
    tokio::task::spawn_blocking(move || {
        // librdkafka has no answer for no partitions.
        if list.count() == 0 { Ok(list) } else { consumer.committed_offsets(list, QUERY_TIMEOUT) }
    })
}

fn read_committed(answer: Answer, topics: &mut TopicNames) -> Result<Vec<Assignment>, ClientError> {
    let list = flatten(answer).map_err(|error| ClientError::new("reading the committed offsets", &error))?;
    convert::committed(&list, topics)
}

/// A blocking call that panicked (rdkafka does so on foreign metadata that is not UTF-8) has no answer.
fn flatten<T>(answer: Result<Result<T, KafkaError>, tokio::task::JoinError>) -> Result<T, KafkaError> {
    answer.unwrap_or(Err(KafkaError::Canceled))
}

/// What librdkafka's rebalance callback has told, in order.
enum Rebalance {
    Assign(Vec<Partition>),
    Revoke,
}

/// The consumer's context: takes rebalances down, so that the owner hears of them in order with the records.
struct Rebalances {
    ear: Ear,
    /// librdkafka waits for our answer to each, so that there is one at most, and one more at a close.
    told: Mutex<VecDeque<(bool, TopicPartitionList)>>,
    happened: Notify,
    closing: AtomicBool,
}

impl Default for Rebalances {
    fn default() -> Self {
        Self {
            ear: Ear::new("consume"),
            told: Mutex::default(),
            happened: Notify::new(),
            closing: AtomicBool::new(false),
        }
    }
}

impl Rebalances {
    fn take(&self, topics: &mut TopicNames) -> Option<Rebalance> {
        let (assign, list) = self.told.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        Some(if assign { Rebalance::Assign(convert::partitions(&list, topics)) } else { Rebalance::Revoke })
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.ear.hear(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.fail(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for Rebalances {
    /// Only takes it down (K11): `next` answers with assign or unassign, off this callback.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "leaving a group: nothing to give up");
            }
            return;
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push_back((assign, list.clone()));
        self.happened.notify_one();
    }
}
