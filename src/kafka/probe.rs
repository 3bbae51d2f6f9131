//! Shows whether a broker keeps the promises that exactly-once rests on, by trying to break them.
//!
//! Six checks, on a topic and with groups and ids of its own: see [`PROMISES`]. Not every broker that speaks the
//! protocol keeps them (librdkafka's own mock keeps almost none), and a test of exactly-once on such a
//! broker shows nothing. `validate --online` runs it, and so do the tests of this project first of all.
//!
//! It creates a topic (unless one is given) and deletes it at the end. It fails only when the broker cannot be
//! reached at all; a promise that could not be tried counts as not kept, with the reason.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::settings::{ClientError, ClientSettings, Ear, create};
use super::topics::{TopicSpec, Topics};

/// One transactional call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a group may take to form.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reader looks for records, once nothing more comes.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest metadata that brokers take by default (`offset.metadata.max.bytes`).
const METADATA_BYTES: usize = 4096;

/// The six promises, in the order in which they are tried.
pub const PROMISES: [&str; 6] = [
    "a record of an aborted transaction is hidden",
    "a record of an open transaction is hidden",
    "an old producer is fenced by a new one with its transactional.id",
    "what the fenced producer wrote is gone",
    "a stale group generation is fenced when it sends offsets to a transaction",
    "the metadata of a committed offset (4,096 bytes) comes back",
];

/// One promise, tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// One of [`PROMISES`].
    pub promise: &'static str,
    /// Whether it was kept.
    pub kept: bool,
    /// What was seen.
    pub seen: String,
}

/// All promises, tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One for each of [`PROMISES`], in order.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether exactly-once can be had from this broker.
    pub fn all_kept(&self) -> bool {
        self.checks.iter().all(|check| check.kept)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for check in &self.checks {
            let kept = if check.kept { "kept" } else { "BROKEN" };
            writeln!(f, "{kept:6} {}: {}", check.promise, check.seen)?;
        }
        Ok(())
    }
}

/// Tries all promises on the broker. Takes some seconds. `topic` must have one partition and be empty; without
/// one, a topic `bcbridge-probe-…` is created and deleted again.
///
/// # Errors
/// When the topic cannot be created, or librdkafka refuses the settings.
pub async fn probe(client: &ClientSettings, topic: Option<&str>) -> Result<Report, ClientError> {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let (topic, own) = match topic {
        Some(topic) => (topic.to_owned(), None),
        None => {
            let name = format!("bcbridge-probe-{run}");
            let topics = Topics::new(client)?;
            let spec =
                TopicSpec { name: name.clone(), partitions: 1, replication_factor: -1, config: Vec::new() };
            topics.ensure(&[spec]).await?;
            (name, Some(topics))
        }
    };
    let probe = Probe { client: client.clone(), topic: topic.clone(), run };
    let report = tokio::task::spawn_blocking(move || probe.run()).await;
    if let Some(topics) = own {
        topics.delete(&[&topic]).await?;
    }
    report.map_err(|error| ClientError::said("probing the broker", error.to_string(), false))
}

struct Probe {
    client: ClientSettings,
    topic: String,
    /// Makes groups and ids unique, so that a probe of yesterday cannot answer for today's.
    run: String,
}

/// What was seen, or what went wrong while looking.
type Seen = Result<String, String>;

impl Probe {
    fn run(&self) -> Report {
        let (fenced, gone) = match self.fence() {
            Ok(both) => both,
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let seen = [self.aborted(), self.open(), fenced, gone, self.stale_generation(), self.metadata()];
        let checks = PROMISES.into_iter().zip(seen).map(|(promise, seen)| match seen {
            Ok(seen) => Check { promise, kept: true, seen },
            Err(seen) => Check { promise, kept: false, seen },
        });
        Report { checks: checks.collect() }
    }

    fn producer(&self, id: &str) -> Result<BaseProducer<Ear>, String> {
        let id = format!("bcbridge-probe-{}-{id}", self.run);
        let config = self.client.producer(
            "probe",
            &[
                ("transactional.id", &id),
                ("transaction.timeout.ms", "15000"),
                ("message.timeout.ms", "14000"),
            ],
        );
        let producer: BaseProducer<Ear> = create("the probe", &config, Ear::new("probe")).map_err(text)?;
        producer.init_transactions(CALL_TIMEOUT).map_err(text)?;
        Ok(producer)
    }

    /// Begins a transaction and writes one record in it, surely sent.
    fn write(&self, producer: &BaseProducer<Ear>, value: &str) -> Result<(), String> {
        producer.begin_transaction().map_err(text)?;
        let record = BaseRecord::<str, str>::to(&self.topic).partition(0).key("probe").payload(value);
        producer.send(record).map_err(|(error, _)| text(error))?;
        producer.flush(CALL_TIMEOUT).map_err(text)
    }

    fn commit_value(&self, id: &str, value: &str) -> Result<(), String> {
        let producer = self.producer(id)?;
        self.write(&producer, value)?;
        producer.commit_transaction(CALL_TIMEOUT).map_err(text)
    }

    /// The values that a read_committed reader sees, up to the end or up to `last`.
    fn read(&self, last: Option<&str>) -> Result<Vec<String>, String> {
        let group = format!("bcbridge-probe-{}-reader", self.run);
        let fixed = [("enable.partition.eof", "true"), ("fetch.wait.max.ms", "10")];
        let config = self.client.consumer("probe", &group, &fixed);
        let reader: BaseConsumer<Ear> = create("the probe", &config, Ear::new("probe")).map_err(text)?;
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(&self.topic, 0, Offset::Beginning).map_err(text)?;
        reader.assign(&start).map_err(text)?;
        let until = Instant::now() + READ_TIMEOUT;
        let mut seen = Vec::new();
        while Instant::now() < until {
            match reader.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                    let done = last == Some(&value);
                    seen.push(value);
                    if done {
                        return Ok(seen);
                    }
                }
                // Without a last value to wait for, the end of the partition is the end.
                Some(Err(KafkaError::PartitionEOF(_))) if last.is_none() => return Ok(seen),
                _ => {}
            }
        }
        if last.is_some() { Ok(seen) } else { Err("the reader reached no end".into()) }
    }

    fn aborted(&self) -> Seen {
        let producer = self.producer("aborted")?;
        self.write(&producer, "aborted")?;
        producer.abort_transaction(CALL_TIMEOUT).map_err(text)?;
        self.commit_value("after-aborted", "after-aborted")?;
        hidden(&self.read(Some("after-aborted"))?, "aborted", Some("after-aborted"))
    }

    fn open(&self) -> Seen {
        let producer = self.producer("open")?;
        self.write(&producer, "open")?;
        let seen = self.read(None)?;
        producer.abort_transaction(CALL_TIMEOUT).map_err(text)?;
        hidden(&seen, "open", None)
    }

    /// Whether the old producer is fenced, and whether its write is gone.
    fn fence(&self) -> Result<(Seen, Seen), String> {
        let old = self.producer("fence")?;
        self.write(&old, "zombie")?;
        let new = self.producer("fence")?;
        let fenced = match old.commit_transaction(CALL_TIMEOUT) {
            Ok(()) => Err("the old producer's commit was accepted".to_owned()),
            Err(error) => Ok(format!("the old producer's commit answered: {error}")),
        };
        self.write(&new, "heir")?;
        new.commit_transaction(CALL_TIMEOUT).map_err(text)?;
        let seen = self.read(Some("heir"))?;
        Ok((fenced, hidden(&seen, "zombie", Some("heir"))))
    }

    /// Joins a group and returns the member once it has its assignment.
    fn join(&self, group: &str) -> Result<BaseConsumer<Ear>, String> {
        let fixed = [("session.timeout.ms", "10000"), ("partition.assignment.strategy", "range")];
        let config = self.client.consumer("probe", group, &fixed);
        let member: BaseConsumer<Ear> = create("the probe", &config, Ear::new("probe")).map_err(text)?;
        member.subscribe(&[&self.topic]).map_err(text)?;
        let until = Instant::now() + JOIN_TIMEOUT;
        while Instant::now() < until {
            // What it polls, or complains about, is of no interest.
            drop(member.poll(Duration::from_millis(50)));
            if member.assignment().map_err(text)?.count() > 0 {
                return Ok(member);
            }
        }
        Err(format!("the group formed no assignment within {JOIN_TIMEOUT:?}"))
    }

    fn send_offsets(
        &self,
        producer: &BaseProducer<Ear>,
        group: &ConsumerGroupMetadata,
        metadata: &str,
    ) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&self.topic, 0);
        element.set_offset(Offset::Offset(1))?;
        element.set_metadata(metadata);
        producer.begin_transaction()?;
        producer.send_offsets_to_transaction(&offsets, group, CALL_TIMEOUT)
    }

    fn stale_generation(&self) -> Seen {
        let group = format!("bcbridge-probe-{}-stale", self.run);
        let first = self.join(&group)?;
        let stale = first.group_metadata().ok_or("no group metadata")?;
        // It leaves; the next member's generation is a later one.
        drop(first);
        let _second = self.join(&group)?;
        let producer = self.producer("stale")?;
        let outcome = self.send_offsets(&producer, &stale, "stale");
        // The outcome of the abort says nothing about the promise.
        let _ = producer.abort_transaction(CALL_TIMEOUT);
        match outcome {
            Ok(()) => Err("offsets of a member that had left were accepted".into()),
            Err(error) => Ok(format!("the broker answered: {error}")),
        }
    }

    fn metadata(&self) -> Seen {
        let group = format!("bcbridge-probe-{}-metadata", self.run);
        let member = self.join(&group)?;
        let proof = member.group_metadata().ok_or("no group metadata")?;
        let sent: String = "0123456789abcdef".chars().cycle().take(METADATA_BYTES).collect();
        let producer = self.producer("metadata")?;
        self.send_offsets(&producer, &proof, &sent).map_err(text)?;
        producer.commit_transaction(CALL_TIMEOUT).map_err(text)?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, 0);
        let answer = member.committed_offsets(asked, CALL_TIMEOUT).map_err(text)?;
        let elements = answer.elements();
        let element = elements.first().ok_or("no answer for the partition")?;
        match (element.offset(), element.metadata()) {
            (Offset::Offset(1), back) if back == sent => Ok(format!("all {METADATA_BYTES} bytes came back")),
            (offset, back) => {
                Err(format!("offset {offset:?} came back with {} bytes of metadata", back.len()))
            }
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `secret` must not be among what was seen; `witness` must, else the reader saw nothing at all.
fn hidden(seen: &[String], secret: &str, witness: Option<&str>) -> Seen {
    if seen.iter().any(|value| value == secret) {
        return Err(format!("a read_committed reader saw {seen:?}"));
    }
    match witness {
        Some(witness) if !seen.iter().any(|value| value == witness) => {
            Err(format!("the committed record {witness:?} was not seen, only {seen:?}"))
        }
        _ => Ok(format!("a read_committed reader saw {seen:?}")),
    }
}
