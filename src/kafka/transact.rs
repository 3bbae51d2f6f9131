//! The transactional producer: records and consumer offsets are committed together, or neither.
//!
//! All of its calls block, so one thread owns it and does one transaction at a time (K10). What always holds:
//!
//! - A transaction is begun only on a producer none of whose earlier calls had an indefinite result. After a
//!   timeout, or when a connection broke under an EndTxn, the producer is destroyed and a new one initialised
//!   (K8): a delayed EndTxn could otherwise end the *next* transaction (librdkafka speaks the protocol from
//!   before KIP-890).
//! - [`NotCommitted::Unknown`] is returned only once the new producer is initialised: from then on the group's
//!   committed offsets tell the outcome, for good. Where that cannot be done in time, the next call does it
//!   first, and answers `Unknown` instead of beginning anything.
//! - An abort takes in the delivery reports of what is on its way, since librdkafka waits for them; after it, the
//!   producer is replaced.
//! - Errors are judged in librdkafka's order: fatal, requires abort, retriable (the same call again, within the
//!   deadline), else fatal (K7).
//!
//! There is no HTTP in here, nor anything else that is slow: the deadline stays below the transaction's timeout,
//! which is how long a crash can hold up readers (K5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::{mpsc, oneshot};

use super::consume::GroupHandle;
use super::convert;
use super::deliveries::{Deliveries, is_consequence};
use super::settings::{ClientError, ClientSettings, create};
use super::trouble::{Trouble, retry, undeliverable};
use crate::model::record::{OffsetCommit, OutRecord, Partition};
use crate::runtime::ports::{NotCommitted, Produce};

/// The cluster id of a broker that tells readers of aborted transactions for ever, so that librdkafka takes what
/// the same producer id commits later for aborted as well: the built-in one. After an abort this module goes on
/// under a new id there, which gives up fencing by id; the built-in broker has one owner of everything anyway.
pub const FORGETS_NO_ABORT: &str = "bcbridge-embedded";

/// How long the steps of a transaction may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactLimits {
    /// The broker aborts a transaction that is open for longer (`transaction.timeout.ms`).
    pub transaction: Duration,
    /// How long one `commit` may take before its outcome is unknown. Below `transaction`.
    pub commit: Duration,
    /// How long initialising may take; it waits for whatever the last owner of the id left open.
    pub recovery: Duration,
}

impl Default for TransactLimits {
    /// 10 s, 8 s, 30 s: readers wait 10 s at most for a crashed owner; recovery outlasts that three times.
    fn default() -> Self {
        Self {
            transaction: Duration::from_secs(10),
            commit: Duration::from_secs(8),
            recovery: Duration::from_secs(30),
        }
    }
}

/// A transactional producer with a `transactional.id` per assignment. Dropping it ends its thread after what
/// that is doing; a transaction that is under way then is aborted by the next owner of the id.
#[derive(Debug)]
pub struct TransactionalProducer {
    orders: mpsc::Sender<Order>,
    prefix: String,
    producers_made: Arc<AtomicU64>,
}

enum Order {
    Open { id: String, reply: Reply },
    Commit { work: Work, reply: Reply },
}

type Reply = oneshot::Sender<Result<(), NotCommitted>>;

struct Work {
    records: Vec<OutRecord>,
    offsets: Vec<OffsetCommit>,
    group: GroupHandle,
}

impl TransactionalProducer {
    /// `prefix` begins every `transactional.id`, which continues with the topic and the partition that it
    /// belongs to (K4). Nothing is sent before [`TransactionalProducer::reopen`] or `identify`.
    ///
    /// # Errors
    /// When librdkafka refuses the settings, or the thread cannot be started.
    pub fn new(
        client: ClientSettings,
        prefix: impl Into<String>,
        limits: TransactLimits,
    ) -> Result<Self, ClientError> {
        assert!(limits.commit < limits.transaction, "the broker would abort what is being committed");
        let producers_made = Arc::new(AtomicU64::new(0));
        let mut owner = Owner {
            client,
            limits,
            id: String::new(),
            aborts: BTreeMap::new(),
            state: State::Closed,
            producers_made,
        };
        let producers_made = owner.producers_made.clone();
        // One order at a time: `commit` and `reopen` take `&mut self`.
        let (orders, mut inbox) = mpsc::channel::<Order>(1);
        std::thread::Builder::new()
            .name("kafka-transact".into())
            .spawn(move || {
                while let Some(order) = inbox.blocking_recv() {
                    // A caller that is gone wants no answer.
                    let _ = match order {
                        Order::Open { id, reply } => reply.send(owner.reopen(id)),
                        Order::Commit { work, reply } => reply.send(owner.commit(&work)),
                    };
                }
            })
            .map_err(|error| ClientError::said("starting the producer's thread", error.to_string(), false))?;
        Ok(Self { orders, prefix: prefix.into(), producers_made })
    }

    /// Takes on another `transactional.id`: fences and finishes whatever an earlier owner of it left open.
    ///
    /// # Errors
    /// `Aborted` when the broker could not be reached in time (try again), `Unknown` when that is so for the
    /// transaction under way on the last id, `Fatal` when the id may not be used.
    pub async fn reopen(&mut self, transactional_id: &str) -> Result<(), NotCommitted> {
        let id = transactional_id.to_owned();
        self.order(|reply| Order::Open { id, reply }).await
    }

    /// Commits `records` and `offsets` in one transaction, under the membership that `group` proves.
    /// When the future is dropped half-way the outcome is as for `Unknown`.
    ///
    /// # Errors
    /// See [`NotCommitted`].
    pub async fn commit(
        &mut self,
        records: Vec<OutRecord>,
        offsets: Vec<OffsetCommit>,
        group: GroupHandle,
    ) -> Result<(), NotCommitted> {
        let work = Work { records, offsets, group };
        self.order(|reply| Order::Commit { work, reply }).await
    }

    /// How many producers were initialised so far: one more after every indefinite result.
    pub fn producers_made(&self) -> u64 {
        self.producers_made.load(Ordering::Relaxed)
    }

    async fn order(&mut self, order: impl FnOnce(Reply) -> Order) -> Result<(), NotCommitted> {
        let gone = || NotCommitted::Fatal("the producer's thread is gone".into());
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Produce<GroupHandle> for TransactionalProducer {
    async fn commit(
        &mut self,
        records: Vec<OutRecord>,
        offsets: Vec<OffsetCommit>,
        group: GroupHandle,
    ) -> Result<(), NotCommitted> {
        TransactionalProducer::commit(self, records, offsets, group).await
    }

    async fn identify(&mut self, owner: &Partition) -> Result<(), NotCommitted> {
        let id = format!("{}-{}-{}", self.prefix, owner.topic, owner.number);
        self.reopen(&id).await
    }
}

/// Where the thread's producer stands.
enum State {
    /// None; the next use makes one. Nothing of ours is open under the id.
    Closed,
    /// Initialised, and nothing open.
    Ready(BaseProducer<Deliveries>),
    /// None, and the last transaction may or may not count: initialise before anything else.
    Unsettled,
    /// Another process has taken over the id.
    Fenced,
}

struct Owner {
    client: ClientSettings,
    limits: TransactLimits,
    id: String,
    /// How many aborts each id has seen, on a broker that [`FORGETS_NO_ABORT`]; one entry a partition.
    aborts: BTreeMap<String, u32>,
    state: State,
    producers_made: Arc<AtomicU64>,
}

impl Owner {
    fn reopen(&mut self, id: String) -> Result<(), NotCommitted> {
        // Initialising under the old id is what settles its transaction.
        if matches!(self.state, State::Unsettled) {
            self.open().map_err(|error| NotCommitted::Unknown(error.to_string()))?;
        }
        self.state = State::Closed;
        self.id = id;
        self.open()
    }

    fn commit(&mut self, work: &Work) -> Result<(), NotCommitted> {
        match &self.state {
            State::Ready(_) => {}
            State::Closed => self.open()?,
            State::Fenced => {
                return Err(NotCommitted::Fenced(format!(
                    "another process uses the transactional.id {}",
                    self.id
                )));
            }
            State::Unsettled => {
                self.open().map_err(|error| NotCommitted::Unknown(error.to_string()))?;
                self.has_aborted();
                return Err(NotCommitted::Unknown(
                    "the transaction before this one was settled only now".into(),
                ));
            }
        }
        let State::Ready(producer) = &self.state else { unreachable!("open leaves the state Ready") };
        let troubles = producer.context().ear.troubles();
        let deadline = Instant::now() + self.limits.commit;
        match transact(producer, work, deadline) {
            Ok(()) => {
                // Hear what happened to the connections meanwhile.
                producer.poll(Duration::ZERO);
                if producer.context().ear.troubles() != troubles {
                    tracing::debug!(
                        id = self.id,
                        "a connection broke under a commit: the producer is replaced"
                    );
                    self.state = State::Closed;
                }
                Ok(())
            }
            Err(trouble) => Err(self.recover(trouble, deadline)),
        }
    }

    /// Brings the producer back to a state that a transaction can begin on, and says what became of this one.
    fn recover(&mut self, trouble: Trouble, deadline: Instant) -> NotCommitted {
        match trouble {
            Trouble::Abort(outcome) => {
                let State::Ready(producer) = &self.state else { return outcome };
                let amid = producer.context().outstanding.load(Ordering::Relaxed) > 0;
                match abort(producer, deadline) {
                    Ok(()) => {
                        self.has_aborted();
                        if amid {
                            // librdkafka's sequence numbers can be off after records were purged from its queues,
                            // and late reports would count for the next transaction.
                            self.state = State::Closed;
                        }
                        outcome
                    }
                    Err(Trouble::Fenced(cause)) => self.recover(Trouble::Fenced(cause), deadline),
                    // No commit was asked for, so that initialising the next producer aborts it as well.
                    Err(Trouble::Abort(_) | Trouble::Indefinite(_) | Trouble::Fatal(_)) => {
                        tracing::warn!(
                            id = self.id,
                            "aborting a transaction failed: the producer is replaced"
                        );
                        self.settle();
                        outcome
                    }
                }
            }
            Trouble::Indefinite(cause) => {
                self.settle();
                NotCommitted::Unknown(cause)
            }
            Trouble::Fenced(cause) => {
                self.state = State::Fenced;
                NotCommitted::Fenced(cause)
            }
            Trouble::Fatal(cause) => {
                self.state = State::Unsettled;
                NotCommitted::Fatal(cause)
            }
        }
    }

    /// Initialises the id again, which ends its transaction; until that succeeds nothing else is begun under it.
    fn settle(&mut self) {
        self.state = State::Unsettled;
        match self.open() {
            Ok(()) => self.has_aborted(),
            Err(error) => {
                tracing::warn!(id = self.id, %error, "the outcome of a transaction cannot be settled yet");
            }
        }
    }

    /// See [`FORGETS_NO_ABORT`]; elsewhere the producer goes on.
    fn has_aborted(&mut self) {
        let State::Ready(producer) = &self.state else { return };
        // Known since the first answer of the broker; no request is made.
        if producer.client().fetch_cluster_id(Duration::from_millis(1)).as_deref() == Some(FORGETS_NO_ABORT) {
            *self.aborts.entry(self.id.clone()).or_default() += 1;
            self.state = State::Closed;
        }
    }

    /// Makes a producer and initialises it. On failure the state stays what it was.
    fn open(&mut self) -> Result<(), NotCommitted> {
        if self.id.is_empty() {
            return Err(NotCommitted::Fatal(
                "the producer has no transactional.id yet: identify it first".into(),
            ));
        }
        let id = match self.aborts.get(&self.id) {
            None => self.id.clone(),
            Some(aborts) => format!("{}~{aborts}", self.id),
        };
        let transaction_ms = self.limits.transaction.as_millis().to_string();
        let message_ms = self.limits.commit.as_millis().to_string();
        let config = self.client.producer(
            "transact",
            &[
                ("transactional.id", id.as_str()),
                ("transaction.timeout.ms", &transaction_ms),
                ("message.timeout.ms", &message_ms),
            ],
        );
        let producer: BaseProducer<Deliveries> = create("transactions", &config, Deliveries::default())
            .map_err(|error| NotCommitted::Fatal(error.to_string()))?;
        let deadline = Instant::now() + self.limits.recovery;
        retry(deadline, |left| producer.init_transactions(left)).map_err(|trouble| match trouble {
            Trouble::Abort(outcome) => outcome,
            Trouble::Indefinite(cause) => NotCommitted::Aborted(cause),
            Trouble::Fenced(cause) => NotCommitted::Fenced(cause),
            Trouble::Fatal(cause) => NotCommitted::Fatal(cause),
        })?;
        self.producers_made.fetch_add(1, Ordering::Relaxed);
        self.state = State::Ready(producer);
        Ok(())
    }
}

/// One transaction, up to the answer to its EndTxn.
fn transact(producer: &BaseProducer<Deliveries>, work: &Work, deadline: Instant) -> Result<(), Trouble> {
    let offsets = convert::offset_list(&work.offsets).map_err(|error| Trouble::Fatal(error.to_string()))?;
    producer.context().start_counting();
    retry(deadline, |_| producer.begin_transaction())?;
    for record in &work.records {
        send(producer, record, deadline)?;
    }
    await_deliveries(producer, deadline)?;
    if offsets.count() > 0 {
        let group: &ConsumerGroupMetadata = work.group.metadata();
        retry(deadline, |left| producer.send_offsets_to_transaction(&offsets, group, left))?;
    }
    // rdkafka flushes first, in steps of 100 ms unless nothing is outstanding: hence the wait above.
    retry(deadline, |left| producer.commit_transaction(left))
}

fn abort(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), Trouble> {
    /// librdkafka waits in there for delivery reports that nobody takes in meanwhile; the call after it resumes it.
    const SLICE: Duration = Duration::from_millis(50);
    // Aborting is quick or fails; it gets a second even where the commit has used up its time.
    let deadline = deadline.max(Instant::now() + Duration::from_secs(1));
    retry(deadline, |left| {
        producer.poll(Duration::ZERO);
        producer.abort_transaction(left.min(SLICE))
    })
}

fn send(producer: &BaseProducer<Deliveries>, record: &OutRecord, deadline: Instant) -> Result<(), Trouble> {
    loop {
        let entry: BaseRecord<'_, [u8], [u8]> = BaseRecord {
            topic: &record.topic,
            partition: record.partition,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: record.timestamp_ms,
            headers: convert::headers(record),
            delivery_opaque: (),
        };
        match producer.send(entry) {
            Ok(()) => {
                producer.context().outstanding.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                if Instant::now() < deadline =>
            {
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(lost(producer, record.topic.to_string(), error)),
        }
    }
}

/// A record is lost and its transaction with it; where that is but a consequence, the cause's report is on its way.
fn lost(producer: &BaseProducer<Deliveries>, mut topic: String, mut error: KafkaError) -> Trouble {
    /// The report follows at once. Without it the transaction is tried again, as after any loss.
    const PATIENCE: Duration = Duration::from_millis(500);
    let deadline = Instant::now() + PATIENCE;
    while is_consequence(&error) && producer.client().fatal_error().is_none() && Instant::now() < deadline {
        producer.poll(Duration::from_millis(1));
        if let Some(failure) = producer.context().first_failure() {
            (topic, error) = failure;
        }
    }
    undeliverable(producer, &error, &topic)
}

/// Polls until every record has its delivery report.
fn await_deliveries(producer: &BaseProducer<Deliveries>, deadline: Instant) -> Result<(), Trouble> {
    let context = producer.context();
    producer.poll(Duration::ZERO);
    loop {
        if let Some((topic, error)) = context.first_failure() {
            return Err(lost(producer, topic, error));
        }
        if context.outstanding.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Trouble::Abort(NotCommitted::Aborted(
                "not all records were acknowledged in time".into(),
            )));
        }
        // rdkafka's poll always takes its whole timeout; librdkafka counts in milliseconds.
        producer.poll(Duration::from_millis(1));
    }
}
