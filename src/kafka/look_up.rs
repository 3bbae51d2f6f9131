//! Looks up single entries of ledgers, by when they were written.
//!
//! Kafka finds a place in a partition by time; from there it is read on until the entry comes, for all that are sought near
//! it at once, by one client that is made when it is first needed. It joins no group and commits nothing; only committed
//! records are seen.
//!
//! Nothing is called absent before the whole partition was read by a client made for that alone: clocks differ, and an end
//! of the partition that was reported for an earlier place must not be taken for that of this one. What could not be asked
//! about, or not soon enough, has no answer and may be asked again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::timeout;

use super::read_back::{End, ReadBack, ReadBackError, read_messages};
use super::settings::{ClientError, ClientSettings, Ear, create, is_transient};
use crate::model::record::Partition;
use crate::runtime::ports::{Job, LookUp, LookedUp, Sought};

/// One question about a partition.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may send nothing while there is more.
const SILENCE: Duration = Duration::from_secs(20);
/// After this long no further place is gone to: who has an answer should not wait for the others.
const ENOUGH: Duration = Duration::from_secs(5);
/// What reading a whole partition may take, as for a ledger that is read back.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much later an entry may have been written than another one, to be read on to from there.
const NEAR_MS: i64 = 2 * 60_000;
/// How much earlier than an entry it is begun to read: where the broker stamps the records, its clock may be behind.
const MARGIN_MS: i64 = 10_000;

/// Reads single entries of ledgers. Clones share a client.
#[derive(Clone)]
pub struct LedgerEntries(Arc<Shared>);

struct Shared {
    client: ClientSettings,
    /// None before the first question, and while one is being asked.
    reader: Mutex<Option<Reader>>,
}

/// A client for reading. It is closed by a thread of its own: that takes a while, and nobody has to wait for it.
struct Reader(Option<Arc<StreamConsumer<Ear>>>);

impl Drop for Reader {
    fn drop(&mut self) {
        let consumer = self.0.take();
        drop(std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(consumer)));
    }
}

impl std::fmt::Debug for LedgerEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerEntries")
    }
}

impl LedgerEntries {
    /// A client is made when something is looked up.
    pub fn new(client: ClientSettings) -> Self {
        Self(Arc::new(Shared { client, reader: Mutex::new(None) }))
    }
}

impl LookUp for LedgerEntries {
    fn look_up(&self, sought: Vec<Sought>) -> Job<Vec<Option<LookedUp>>> {
        let shared = self.0.clone();
        Box::pin(async move { shared.look_up(sought).await })
    }
}

impl Shared {
    async fn look_up(&self, sought: Vec<Sought>) -> Vec<Option<LookedUp>> {
        let mut search = Search::new(sought);
        if let Err(error) = self.search(&mut search).await {
            tracing::warn!(%error, "the ledger could not be asked how commands ended; repeats of them wait");
        }
        search.answers
    }

    async fn search(&self, search: &mut Search) -> Result<(), ClientError> {
        let idle = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One whose question is given up or fails is not used again.
        let reader = match idle {
            Some(reader) => reader,
            None => open(&self.client).await?,
        };
        let Some(consumer) = &reader.0 else { return Ok(()) };
        let begun = Instant::now();
        for (partition, group) in search.groups() {
            if begun.elapsed() > ENOUGH {
                break;
            }
            let Some(earliest) = group.iter().map(|at| search.sought[*at].at_ms).min() else { continue };
            let scan = Scan { consumer, partition: &partition, group: &group };
            // On the way to an earlier place they may have been met.
            if scan.is_open(search) {
                let from = scan.place_of(earliest - MARGIN_MS).await?;
                scan.run(search, from).await?;
            }
            if scan.is_open(search) {
                self.read_whole(search, &partition, &group).await?;
            }
        }
        consumer.unassign().map_err(|error| ClientError::new("looking up entries of a ledger", &error))?;
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        Ok(())
    }

    /// Reads a partition from its beginning to its end: what is not there, is nowhere.
    async fn read_whole(
        &self,
        search: &mut Search,
        partition: &Partition,
        group: &[usize],
    ) -> Result<(), ClientError> {
        let open: Vec<usize> = group.iter().copied().filter(|at| search.answers[*at].is_none()).collect();
        let of_group = Search::new(open.iter().map(|at| search.sought[*at].clone()).collect());
        let found = Arc::new(Mutex::new(of_group));
        let (topic, partitions) = (partition.topic.to_string(), vec![partition.number]);
        let (taken, mut name) = (found.clone(), (partition.clone(), Vec::new()));
        let what = ReadBack { topic, partitions, end: End::Stable, deadline: DEADLINE };
        let read = read_messages(&self.client, what, move |message| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).take(&mut name, message);
        });
        let failed = |error: ReadBackError| ClientError::said("looking up entries", error.to_string(), true);
        read.await.map_err(failed)?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.end();
        for (at, answer) in open.into_iter().zip(found.answers.drain(..)) {
            search.answers[at] = answer;
        }
        Ok(())
    }
}

async fn open(client: &ClientSettings) -> Result<Reader, ClientError> {
    let fixed = [("enable.partition.eof", "true"), ("fetch.wait.max.ms", "10")];
    // assign() wants a group; nothing is ever asked or told of it.
    let mut config = client.consumer("look-up", "bcbridge-look-up", &fixed);
    // Little ahead: most often the entry is among the first.
    config.set("queued.max.messages.kbytes", "1024").set("fetch.max.bytes", "1048576");
    // When that is full, more would be asked for only after a second.
    config.set("fetch.queue.backoff.ms", "5");
    let opened = tokio::task::spawn_blocking(move || create("looking up", &config, Ear::new("look-up")));
    let consumer =
        opened.await.unwrap_or_else(|_| Err(ClientError::said("looking up", "interrupted", false)))?;
    Ok(Reader(Some(Arc::new(consumer))))
}

/// A partition of the ledger, and a key in it.
type Name = (Partition, Vec<u8>);

/// What is sought, and what is known of it so far.
struct Search {
    sought: Vec<Sought>,
    answers: Vec<Option<LookedUp>>,
    /// The last record under its key took it out of the ledger.
    is_gone: Vec<bool>,
    keys: HashMap<Name, Vec<usize>>,
}

impl Search {
    fn new(sought: Vec<Sought>) -> Self {
        let mut keys = HashMap::<_, Vec<usize>>::new();
        for (at, one) in sought.iter().enumerate() {
            keys.entry((one.partition.clone(), one.key.clone().into_bytes())).or_default().push(at);
        }
        Self { answers: vec![None; sought.len()], is_gone: vec![false; sought.len()], keys, sought }
    }

    /// Those that are near each other, in the order of their places.
    fn groups(&self) -> Vec<(Partition, Vec<usize>)> {
        let mut places = BTreeMap::<(&Partition, i64, usize), usize>::new();
        places.extend(self.sought.iter().enumerate().map(|(at, one)| ((&one.partition, one.at_ms, at), at)));
        let mut groups: Vec<(Partition, i64, Vec<usize>)> = Vec::new();
        for ((partition, at_ms, _), at) in places {
            match groups.last_mut() {
                Some((of, from, group)) if of == partition && at_ms - *from <= NEAR_MS => group.push(at),
                _ => groups.push((partition.clone(), at_ms, vec![at])),
            }
        }
        groups.into_iter().map(|(partition, _, group)| (partition, group)).collect()
    }

    /// Takes a record of the partition that `name` tells; the rest of `name` is only used again and again.
    fn take(&mut self, name: &mut Name, message: &BorrowedMessage<'_>) {
        name.1.clear();
        name.1.extend_from_slice(message.key().unwrap_or_default());
        let Some(keys) = self.keys.get(name) else { return };
        for at in keys {
            let Sought { at_ms, is_it, .. } = self.sought[*at];
            match message.payload() {
                Some(value) if self.answers[*at].is_none() && is_it(value, at_ms) => {
                    self.answers[*at] = Some(LookedUp::Found(Bytes::copy_from_slice(value)));
                }
                value => self.is_gone[*at] = value.is_none(),
            }
        }
    }

    /// Everything was read.
    fn end(&mut self) {
        for (answer, is_gone) in self.answers.iter_mut().zip(&self.is_gone) {
            answer.get_or_insert(if *is_gone { LookedUp::Forgotten } else { LookedUp::Nothing });
        }
    }
}

/// Reads a partition for a group of what is sought there.
struct Scan<'a> {
    consumer: &'a Arc<StreamConsumer<Ear>>,
    partition: &'a Partition,
    group: &'a [usize],
}

impl Scan<'_> {
    fn is_open(&self, search: &Search) -> bool {
        self.group.iter().any(|at| search.answers[*at].is_none())
    }

    fn failed(&self, error: &KafkaError) -> ClientError {
        ClientError::new(format!("looking up entries of {}", self.partition.topic), error)
    }

    /// Before which nothing was written at `at_ms` or later.
    async fn place_of(&self, at_ms: i64) -> Result<Offset, ClientError> {
        let (consumer, partition) = (self.consumer.clone(), self.partition.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(at_ms.max(0)))?;
            let found = consumer.offsets_for_times(list, QUESTION_TIMEOUT)?;
            found
                .elements()
                .first()
                .map_or(Ok(Offset::Beginning), |element| element.error().map(|()| element.offset()))
        });
        match asked.await {
            Ok(Ok(offset @ Offset::Offset(_))) => Ok(offset),
            // Nothing is as young as that, says the broker: it is not there, or the clocks differ.
            Ok(Ok(_)) => Ok(Offset::Beginning),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(ClientError::said("looking up", "interrupted", false)),
        }
    }

    /// Reads until there is an answer to all of the group, or to the end of the partition.
    async fn run(&self, search: &mut Search, from: Offset) -> Result<(), ClientError> {
        let Partition { topic, number } = self.partition;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, *number, from)
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| self.failed(&error))?;
        let mut name = (self.partition.clone(), Vec::new());
        let mut heard = Instant::now();
        while self.is_open(search) {
            match timeout(SILENCE.saturating_sub(heard.elapsed()), self.consumer.recv()).await {
                Ok(Ok(message)) => {
                    heard = Instant::now();
                    if message.partition() == *number && message.topic() == &**topic {
                        search.take(&mut name, &message);
                    }
                }
                Ok(Err(KafkaError::PartitionEOF(_))) => break,
                Ok(Err(error)) if error.rdkafka_error_code().is_some_and(is_transient) => {}
                Ok(Err(error)) => return Err(self.failed(&error)),
                Err(_) => {
                    let cause = format!("the broker sent nothing for {SILENCE:?}");
                    return Err(ClientError::said(format!("looking up entries of {topic}"), cause, true));
                }
            }
        }
        Ok(())
    }
}
