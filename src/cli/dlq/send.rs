//! Sends letters back to their topics, slowly, in the order in which they came first.
//!
//! Every few seconds the origin topics are read on: what senders wrote meanwhile may be newer than a letter that still
//! waits. It stops at once when it is told to, and when Kafka does not acknowledge: which of the records arrived is
//! seen on their topics the next time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{MissedTickBehavior, interval};

use super::desk::{APPEND_DEADLINE, Desk, Store};
use crate::kafka::append::IntakeProducer;
use crate::kafka::settings::ClientSettings;
use crate::kafka::span::{self, Range, Span};
use crate::model::letter::{Judge, Letter, Stretch};
use crate::model::record::{InRecord, Partition};
use crate::runtime::stop_signal;

/// Between two looks at the origin topics.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Letters in memory between two looks, at most.
const MOST_LETTERS: usize = 1_000;
/// Bytes of letters in memory, at most, unless a single one is larger.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// How far the clocks of the bridge and of the broker may differ.
const CLOCKS_MS: i64 = 5 * 60_000;

/// How a replay ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing is left to send.
    All,
    /// Somebody stopped it.
    Stopped,
    /// It could not go on.
    Failed(String),
}

impl End {
    pub(super) fn told(&self) -> String {
        match self {
            Self::All => "to the end".to_owned(),
            Self::Stopped => "stopped".to_owned(),
            Self::Failed(error) => format!("failed: {error}"),
        }
    }
}

/// How far the origin topics were read.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<Partition, i64>);

impl Origins {
    /// Shows the judge what it must know of the origin topics and has not seen yet.
    pub(super) async fn catch_up(&mut self, client: &ClientSettings, judge: &mut Judge) -> Result<()> {
        let mut extents: BTreeMap<Arc<str>, BTreeMap<i32, Range>> = BTreeMap::new();
        let mut ranges: BTreeMap<Arc<str>, BTreeMap<i32, Range>> = BTreeMap::new();
        for stretch in judge.stretches() {
            let topic = match &stretch {
                Stretch::From(position) => position.partition.topic.clone(),
                Stretch::Since(topic, _) => topic.clone(),
            };
            if !extents.contains_key(&topic) {
                extents.insert(topic.clone(), span::extent(client, &topic).await?);
            }
            let extent = &extents[&topic];
            let wanted = match stretch {
                Stretch::From(first) => {
                    let range = extent.get(&first.partition.number);
                    // What was read before cannot be missed any more, whatever is deleted of it.
                    if !self.0.contains_key(&first.partition) {
                        judge.reaches(&first.partition, range.map(|range| range.from));
                    }
                    let from = |range: &Range| Range { from: first.offset.max(range.from), to: range.to };
                    range.map(|range| (first.partition.number, from(range))).into_iter().collect()
                }
                Stretch::Since(_, at_ms) => {
                    span::since(client, &topic, extent.clone(), at_ms.saturating_sub(CLOCKS_MS)).await?
                }
            };
            let merged = ranges.entry(topic).or_default();
            for (number, range) in wanted {
                let known = merged.entry(number).or_insert(range);
                known.from = known.from.min(range.from);
            }
        }
        for (topic, ranges) in ranges {
            self.read(client, &topic, ranges, judge).await?;
        }
        Ok(())
    }

    async fn read(
        &mut self,
        client: &ClientSettings,
        topic: &Arc<str>,
        mut ranges: BTreeMap<i32, Range>,
        judge: &mut Judge,
    ) -> Result<()> {
        let partition = |number: i32| Partition { topic: topic.clone(), number };
        for (number, range) in &mut ranges {
            range.from = self.0.get(&partition(*number)).map_or(range.from, |seen| range.from.max(*seen));
        }
        let mut span = Span::open(client, topic, &ranges).await?;
        while let Some(record) = span.next().await? {
            judge.record(&record);
        }
        self.0.extend(ranges.into_iter().map(|(number, range)| (partition(number), range.to)));
        Ok(())
    }
}

/// A replay that was agreed to.
pub(super) struct Sending<'a> {
    pub(super) desk: &'a Desk,
    pub(super) store: &'a Store,
    /// Records a second, at most.
    pub(super) rate: u32,
    /// Records altogether, at most.
    pub(super) limit: usize,
}

impl Sending<'_> {
    /// Sends what the judge lets go; gives how many went back, and how it ended.
    pub(super) async fn run(&self, judge: &mut Judge, origins: &mut Origins) -> (u64, End) {
        let mut sent = 0;
        let end = self.send_all(judge, origins, &mut sent).await;
        (sent, end.unwrap_or_else(|error| End::Failed(format!("{error:#}"))))
    }

    async fn send_all(&self, judge: &mut Judge, origins: &mut Origins, sent: &mut u64) -> Result<End> {
        let producer = IntakeProducer::new(self.desk.client.clone(), APPEND_DEADLINE)?;
        let mut pace = interval(Duration::from_secs(1) / self.rate);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = stop_signal().context("listening for signals")?;
        tokio::pin!(stop);
        loop {
            let left = self.limit.saturating_sub(usize::try_from(*sent).unwrap_or(usize::MAX));
            let chunk = self.chunk(judge.order(left));
            if chunk.is_empty() {
                return Ok(End::All);
            }
            let mut records = self.fetch(&chunk).await?;
            for letter in chunk {
                tokio::select! {
                    biased;
                    _ = &mut stop => return Ok(End::Stopped),
                    _ = pace.tick() => {}
                }
                send(&producer, &letter, records.remove(&letter.position.offset)).await?;
                judge.went_back(&letter);
                *sent += 1;
            }
            origins.catch_up(&self.desk.client, judge).await?;
        }
    }

    /// The first letters: of one partition, and as many as are sent until the next look.
    fn chunk(&self, letters: Vec<&Letter>) -> Vec<Letter> {
        let until_then = LOOK_EVERY.as_secs().saturating_mul(u64::from(self.rate));
        let most = usize::try_from(until_then).unwrap_or(usize::MAX).min(MOST_LETTERS);
        let mut bytes = 0_usize;
        let mut chunk: Vec<Letter> = Vec::new();
        for letter in letters.into_iter().take(most) {
            let is_elsewhere =
                chunk.first().is_some_and(|first| first.position.partition != letter.position.partition);
            bytes = bytes.saturating_add(letter.bytes);
            if is_elsewhere || (bytes > MOST_BYTES && !chunk.is_empty()) {
                break;
            }
            chunk.push(letter.clone());
        }
        chunk
    }

    /// The records of a chunk, by offset.
    async fn fetch(&self, chunk: &[Letter]) -> Result<HashMap<i64, InRecord>> {
        let offsets = || chunk.iter().map(|letter| letter.position.offset);
        let (Some(first), Some(last)) = (offsets().min(), offsets().max()) else { return Ok(HashMap::new()) };
        let number = chunk[0].position.partition.number;
        let wanted: HashSet<i64> = offsets().collect();
        let range = BTreeMap::from([(number, Range { from: first, to: last + 1 })]);
        let mut span = Span::open(&self.desk.client, &self.store.topics.dead_letters, &range).await?;
        let mut records = HashMap::with_capacity(chunk.len());
        while let Some(record) = span.next().await? {
            if wanted.contains(&record.position.offset) {
                records.insert(record.position.offset, record);
            }
        }
        Ok(records)
    }
}

async fn send(producer: &IntakeProducer, letter: &Letter, record: Option<InRecord>) -> Result<()> {
    let Some(again) = record.and_then(|record| letter.again(&record)) else {
        bail!("the letter {} was deleted meanwhile", letter.position);
    };
    let appended = producer.append(vec![again], APPEND_DEADLINE).await;
    appended.with_context(|| format!("putting the letter {} back", letter.position))
}
