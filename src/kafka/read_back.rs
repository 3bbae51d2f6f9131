//! Reads whole partitions up to their present end, to restore what a ledger holds when a partition is assigned.
//!
//! It joins no group and commits nothing. Only committed records are seen; transaction markers at the end of a
//! partition count as its end. It ends at its deadline with an error, never with half of the records as success.
//!
//! Who reads committed records sees none behind the first transaction that is still open, whoever wrote them (KIP-98,
//! "last stable offset"). So there are two ends, and a ledger is restored up to the further one ([`End`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::convert::{self, TopicNames};
use super::settings::{ClientError, ClientSettings, Ear, create, is_transient};
use crate::model::record::InRecord;

/// What to read.
#[derive(Debug, Clone)]
pub struct ReadBack {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<i32>,
    /// Where they end.
    pub end: End,
    /// How long it may take altogether.
    pub deadline: Duration,
}

/// Where a partition ends, while transactions are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Before the first record of an open transaction. What others committed behind it is missed: enough for who only
    /// shows what is there.
    Stable,
    /// Behind all that is written now: transactions that are open are waited for, which takes no longer than their
    /// timeout and the broker's next look at it (`transaction.abort.timed.out.transaction.cleanup.interval.ms`).
    Written,
}

/// Why not everything could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// Too much to read, an open transaction, or a slow broker.
    #[error("reading {topic} back took longer than {deadline:?}; {left} of its partitions had more to come")]
    Deadline {
        /// The topic.
        topic: String,
        /// What was allowed.
        deadline: Duration,
        /// How many partitions were not at their end.
        left: usize,
    },
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The blocking task was stopped by the runtime, or `on_record` panicked.
    #[error("reading {0} back was interrupted")]
    Interrupted(String),
}

/// Calls `on_record` for every committed record of the partitions, in order per partition, from their beginning
/// to the end they had when it was called (or a little further). Returns the number of records.
///
/// # Errors
/// See [`ReadBackError`]; `on_record` may have been called for some of the records.
pub async fn read_back(
    client: &ClientSettings,
    what: ReadBack,
    mut on_record: impl FnMut(InRecord) + Send + 'static,
) -> Result<u64, ReadBackError> {
    let mut topics = TopicNames::default();
    read_messages(client, what, move |message| on_record(convert::in_record(message, &mut topics))).await
}

/// The same for who needs few of very many records: these are lent, and only what is needed of them is copied.
pub(super) async fn read_messages(
    client: &ClientSettings,
    what: ReadBack,
    on_message: impl FnMut(&BorrowedMessage<'_>) + Send + 'static,
) -> Result<u64, ReadBackError> {
    let client = client.clone();
    let topic = what.topic.clone();
    let task = tokio::task::spawn_blocking(move || {
        let reader = Reader::new(&client, what)?;
        let count = reader.run(on_message);
        // Closing takes longer than reading little; nobody has to wait for it.
        drop(std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(reader)));
        count
    });
    task.await.unwrap_or(Err(ReadBackError::Interrupted(topic)))
}

struct Reader {
    consumer: BaseConsumer<Ear>,
    /// Reads nothing, and is told where all that is written ends; only where that is waited for.
    written: Option<BaseConsumer<Ear>>,
    what: ReadBack,
    until: Instant,
}

impl Reader {
    fn new(client: &ClientSettings, what: ReadBack) -> Result<Self, ReadBackError> {
        let mut config = client.consumer(
            "read-back",
            // assign() wants a group; nothing is ever asked or told of it.
            "bcbridge-read-back",
            &[
                ("enable.partition.eof", "true"),
                // At the end of a partition the broker would otherwise wait for more.
                ("fetch.wait.max.ms", "10"),
                ("session.timeout.ms", "10000"),
            ],
        );
        // Little ahead: several are read back at once, when a process has just begun.
        config.set("queued.max.messages.kbytes", "2048").set("fetch.max.bytes", "2097152");
        // With so little ahead it is soon full, and by itself would ask for more only after a second.
        config.set("fetch.queue.backoff.ms", "5");
        let until = Instant::now() + what.deadline;
        let consumer = create("reading back", &config, Ear::new("read-back"))?;
        let written = match what.end {
            End::Stable => None,
            End::Written => {
                config.set("isolation.level", "read_uncommitted");
                Some(create("reading back", &config, Ear::new("read-back"))?)
            }
        };
        Ok(Self { consumer, written, what, until })
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn late(&self, left: usize) -> ReadBackError {
        ReadBackError::Deadline { topic: self.what.topic.clone(), deadline: self.what.deadline, left }
    }

    fn failed(&self, error: &KafkaError) -> ReadBackError {
        ClientError::new(format!("reading {} back", self.what.topic), error).into()
    }

    fn run(&self, mut on_message: impl FnMut(&BorrowedMessage<'_>)) -> Result<u64, ReadBackError> {
        let mut ends = self.ends()?;
        let mut start = TopicPartitionList::with_capacity(ends.len());
        for partition in ends.keys() {
            start
                .add_partition_offset(&self.what.topic, *partition, Offset::Beginning)
                .map_err(|error| self.failed(&error))?;
        }
        if ends.is_empty() {
            return Ok(0);
        }
        self.consumer.assign(&start).map_err(|error| self.failed(&error))?;
        let mut count = 0;
        while !ends.is_empty() {
            if self.left().is_zero() {
                return Err(self.late(ends.len()));
            }
            match self.consumer.poll(self.left()) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    on_message(&message);
                    count += 1;
                    if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                        ends.remove(&partition);
                    }
                }
                // Markers and aborted records are passed over, so that the last offset may never be seen.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ends.remove(&partition);
                }
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_transient) => {}
                Some(Err(error)) => return Err(self.failed(&error)),
                None => {}
            }
        }
        Ok(count)
    }

    /// The partitions that are not empty, and where they end now: behind the last record or marker that may be read.
    fn ends(&self) -> Result<BTreeMap<i32, i64>, ReadBackError> {
        let written = match &self.written {
            Some(written) => self.ends_seen_by(written)?,
            None => BTreeMap::new(),
        };
        loop {
            let ends = self.ends_seen_by(&self.consumer)?;
            let is_short =
                |(partition, end): &(&i32, &i64)| ends.get(partition).is_none_or(|seen| seen < end);
            match written.iter().filter(is_short).count() {
                0 => return Ok(ends),
                left if self.left().is_zero() => return Err(self.late(left)),
                _ => std::thread::sleep(MIN_WAIT),
            }
        }
    }

    fn ends_seen_by(&self, consumer: &BaseConsumer<Ear>) -> Result<BTreeMap<i32, i64>, ReadBackError> {
        let mut ends = BTreeMap::new();
        for partition in &self.what.partitions {
            let (low, high) = loop {
                match consumer.fetch_watermarks(&self.what.topic, *partition, self.left().max(MIN_WAIT)) {
                    Ok(watermarks) => break watermarks,
                    Err(error) if self.left().is_zero() && passes(&error) => {
                        return Err(self.late(self.what.partitions.len()));
                    }
                    Err(error) if passes(&error) => std::thread::sleep(MIN_WAIT),
                    Err(error) => return Err(self.failed(&error)),
                }
            };
            if low < high {
                ends.insert(*partition, high);
            }
        }
        Ok(ends)
    }
}

/// Between tries; also the least time that one try gets.
const MIN_WAIT: Duration = Duration::from_millis(10);

fn passes(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        is_transient(code)
            || matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::InProgress)
    })
}
