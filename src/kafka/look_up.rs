//! Looks up single entries of ledgers, by when they were written.
//!
//! Kafka finds a place in a partition by time; from there it is read on until the entry comes, for all that are sought near
//! it at once. What is not found there is sought before it as well, since clocks differ. It is on one client, made when it
//! is first needed. It joins no group and commits nothing; only committed records are seen.
//!
//! What it could not ask about, or not soon enough, has no answer and may be asked again. Never is anything called absent
//! of which the partition was not read from its beginning to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::settings::{ClientError, ClientSettings, Ear, create, is_transient};
use crate::model::record::Partition;
use crate::runtime::ports::{Job, LookUp, LookedUp, Sought};

/// One question about a partition.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may send nothing while there is more.
const SILENCE: Duration = Duration::from_secs(20);
/// After this long no further place is gone to: who has an answer should not wait for the others.
const ENOUGH: Duration = Duration::from_secs(5);
/// How much later an entry may have been written than another one, to be read on to from there.
const NEAR_MS: i64 = 2 * 60_000;
/// How much earlier than an entry it is begun to read: where the broker stamps the records, its clock may be behind.
const MARGIN_MS: i64 = 10_000;

/// Reads single entries of ledgers. Clones share a client.
#[derive(Clone)]
pub struct LedgerEntries(Arc<Shared>);

struct Shared {
    client: ClientSettings,
    reader: Mutex<Option<Arc<Reader>>>,
}

type Reader = StreamConsumer<Ear>;

impl std::fmt::Debug for LedgerEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerEntries")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.get_mut().take() {
            close(reader);
        }
    }
}

/// Closing takes a while; nobody has to wait for it.
fn close(reader: Arc<Reader>) {
    drop(std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(reader)));
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
        let mut reader = self.reader.lock().await;
        if let Err(error) = self.search(&mut reader, &mut search).await {
            tracing::warn!(%error, "the ledger could not be asked how commands ended; repeats of them wait");
            if let Some(reader) = reader.take() {
                close(reader);
            }
        }
        search.answers
    }

    async fn search(&self, slot: &mut Option<Arc<Reader>>, search: &mut Search) -> Result<(), ClientError> {
        let reader = match slot {
            Some(reader) => reader.clone(),
            None => slot.insert(Arc::new(open(&self.client).await?)).clone(),
        };
        let begun = Instant::now();
        for (partition, group) in search.groups() {
            if begun.elapsed() > ENOUGH {
                break;
            }
            let Some(earliest) = group.iter().map(|at| search.sought[*at].at_ms).min() else { continue };
            // Reading to an earlier place may have met them.
            if group.iter().all(|at| search.answers[*at].is_some()) {
                continue;
            }
            let scan = Scan { reader: &reader, partition: &partition, group: &group };
            let from = scan.place_of(earliest - MARGIN_MS).await?;
            scan.run(search, from, None).await?;
            if let Offset::Offset(before) = from {
                scan.run(search, Offset::Beginning, Some(before)).await?;
            }
            search.end(&group);
        }
        reader.unassign().map_err(|error| ClientError::new("looking up entries of the ledger", &error))
    }
}

async fn open(client: &ClientSettings) -> Result<Reader, ClientError> {
    let fixed = [("enable.partition.eof", "true"), ("fetch.wait.max.ms", "10")];
    // assign() wants a group; nothing is ever asked or told of it.
    let mut config = client.consumer("look-up", "bcbridge-look-up", &fixed);
    // Little ahead: most often the entry is among the first.
    config.set("queued.max.messages.kbytes", "1024").set("fetch.max.bytes", "1048576");
    let opened = tokio::task::spawn_blocking(move || create("looking up", &config, Ear::new("look-up")));
    opened.await.unwrap_or_else(|_| Err(ClientError::said("looking up", "interrupted", false)))
}

/// What is sought, and what is known of it so far.
struct Search {
    sought: Vec<Sought>,
    answers: Vec<Option<LookedUp>>,
    /// Where the last record under its key that was seen stands, and whether it took the entry out of the ledger.
    last: Vec<Option<(i64, bool)>>,
    keys: HashMap<(Partition, Vec<u8>), Vec<usize>>,
}

impl Search {
    fn new(sought: Vec<Sought>) -> Self {
        let mut keys = HashMap::<_, Vec<usize>>::new();
        for (at, one) in sought.iter().enumerate() {
            keys.entry((one.partition.clone(), one.key.clone().into_bytes())).or_default().push(at);
        }
        Self { answers: vec![None; sought.len()], last: vec![None; sought.len()], keys, sought }
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

    /// Takes a record of a partition.
    fn take(&mut self, keys: &[usize], offset: i64, value: Option<&[u8]>) {
        for at in keys {
            let Sought { at_ms, is_it, .. } = self.sought[*at];
            match value {
                Some(value) if self.answers[*at].is_none() && is_it(value, at_ms) => {
                    self.answers[*at] = Some(LookedUp::Found(Bytes::copy_from_slice(value)));
                }
                _ if self.last[*at].is_some_and(|(last, _)| last > offset) => {}
                value => self.last[*at] = Some((offset, value.is_none())),
            }
        }
    }

    /// All of the partition was read for these.
    fn end(&mut self, group: &[usize]) {
        for at in group {
            let is_gone = self.last[*at].is_some_and(|(_, is_gone)| is_gone);
            let nothing = if is_gone { LookedUp::Forgotten } else { LookedUp::Nothing };
            self.answers[*at].get_or_insert(nothing);
        }
    }
}

/// Reads a partition for a group of what is sought there.
struct Scan<'a> {
    reader: &'a Arc<Reader>,
    partition: &'a Partition,
    group: &'a [usize],
}

impl Scan<'_> {
    fn failed(&self, error: &KafkaError) -> ClientError {
        ClientError::new(format!("looking up entries of {}", self.partition.topic), error)
    }

    /// Before which nothing was written at `at_ms` or later.
    async fn place_of(&self, at_ms: i64) -> Result<Offset, ClientError> {
        let (reader, partition) = (self.reader.clone(), self.partition.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(at_ms.max(0)))?;
            let found = reader.offsets_for_times(list, QUESTION_TIMEOUT)?;
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

    /// Reads until there is an answer to all of the group, or to the end of the partition, or to an offset.
    async fn run(&self, search: &mut Search, from: Offset, until: Option<i64>) -> Result<(), ClientError> {
        let is_open = |search: &Search| self.group.iter().any(|at| search.answers[*at].is_none());
        if !is_open(search) {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.partition.topic, self.partition.number, from)
            .and_then(|()| self.reader.assign(&list))
            .map_err(|error| self.failed(&error))?;
        let mut name = (self.partition.clone(), Vec::new());
        let mut heard = Instant::now();
        loop {
            let received = timeout(SILENCE.saturating_sub(heard.elapsed()), self.reader.recv()).await;
            match received {
                Ok(Ok(message)) => {
                    heard = Instant::now();
                    if until.is_some_and(|until| message.offset() >= until) {
                        return Ok(());
                    }
                    name.1.clear();
                    name.1.extend_from_slice(message.key().unwrap_or_default());
                    let Some(keys) = search.keys.get(&name).cloned() else { continue };
                    search.take(&keys, message.offset(), message.payload());
                    if !is_open(search) {
                        return Ok(());
                    }
                }
                Ok(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Ok(Err(error)) if error.rdkafka_error_code().is_some_and(is_transient) => {}
                Ok(Err(error)) => return Err(self.failed(&error)),
                Err(_) => {
                    let cause = format!("the broker sent nothing for {SILENCE:?}");
                    let attempt = format!("looking up entries of {}", self.partition.topic);
                    return Err(ClientError::said(attempt, cause, true));
                }
            }
        }
    }
}
