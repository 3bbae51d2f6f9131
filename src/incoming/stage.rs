//! The incoming path of one store as the runner drives it.
//!
//! A line per entity: its coalescer, its running reads, and its pause after trouble. One entity's trouble pauses
//! that entity; a token that is not valid pauses the store. A callback that names an entity by something else than
//! its id has a line of its own, whose reads find the ids and yield hints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;

use super::coalesce::{Gathered, Urgency};
use super::decode::NotUnderstood;
use super::echo::{self, Echoes};
use super::hydrate::{self, Outcome};
use super::line::{Line, Yields};
use super::memory::{self, Memory, Restored};
use super::meter::{Meter, Suppressed};
use super::settings::{EntitySettings, StoreSettings};
use crate::catalog::Catalog;
use crate::model::dead_letter::{DeadLetter, FailedAt, first_position};
use crate::model::hint::{Cause, Hint, Op, Trigger, header};
use crate::model::ids::EntityKey;
use crate::model::reason::Reason;
use crate::model::record::{InRecord, OutRecord, Partition};
use crate::model::request::{Purpose, Reply};
use crate::model::written::{is_of_notes, notes_of};
use crate::runtime::ports::{Job, Recalled, Settled, Stage, Store};

mod carried;
mod conclude;
mod publication;
mod resolve;

/// Planned reads that become hints at once, at most: a list's worth.
const MAX_RECHECKS: usize = 250;
/// Entries that the ledger forgets in one transaction, at most: a small part of it.
const MAX_FORGOTTEN: usize = 100;

/// Wall clock in unix milliseconds, as an argument.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a job brings back.
pub enum Done {
    /// What was read.
    Read(Read),
    /// Planned reads that are due: they become hints.
    Due(Vec<(i64, EntityKey)>),
}

/// What a job read.
pub struct Read {
    line: Arc<str>,
    urgency: Urgency,
    read_at_ms: i64,
    outcomes: Vec<Outcome>,
}

/// The path. See the module's text.
pub struct Incoming<S> {
    settings: StoreSettings,
    catalog: Arc<Catalog>,
    store: Arc<S>,
    meter: Arc<dyn Meter>,
    clock: WallClock,
    lines: BTreeMap<Arc<str>, Line>,
    memory: Memory,
    echoes: Echoes,
    /// Keys that the ledger may forget, with the partitions whose ledger holds them.
    outdated: Vec<(String, Partition)>,
    /// The highest offset that was taken of each partition.
    newest: BTreeMap<Partition, i64>,
    /// The whole store waits until then.
    closed_until: Option<Instant>,
    last_success: Option<Instant>,
    /// The same moment on both clocks.
    anchor: Option<(Instant, i64)>,
}

impl<S: Store> Incoming<S> {
    /// The path of one store.
    pub fn new(
        settings: StoreSettings,
        catalog: Arc<Catalog>,
        store: Arc<S>,
        meter: Arc<dyn Meter>,
        clock: WallClock,
    ) -> Self {
        let entities = settings.entities.values();
        let lines = entities.flat_map(lines_of).map(|line| (line.name.clone(), line)).collect();
        Self {
            settings,
            store,
            meter,
            clock,
            lines,
            memory: Memory::default(),
            echoes: Echoes::new(&catalog),
            catalog,
            outdated: Vec::new(),
            newest: BTreeMap::new(),
            closed_until: None,
            last_success: None,
            anchor: None,
        }
    }

    fn settle(&self, record: &InRecord, records: Vec<OutRecord>) -> Settled {
        Settled { positions: vec![record.position.clone()], records }
    }

    /// A record of the intake that the bridge did not write, or a replayed callback, taken as a callback's bytes: its
    /// hints, and what of it names nothing to read.
    fn foreign(&self, record: &InRecord) -> Result<(Vec<Hint>, Option<NotUnderstood>), NotUnderstood> {
        let nothing = "a record without a value and without a hint's headers";
        let body =
            record.value.as_deref().ok_or_else(|| NotUnderstood(nothing.into(), Reason::Quarantined))?;
        let callback = super::decode::callback(&self.catalog, body)?;
        let position = first_position(record);
        let own = format!("{}-{}", position.partition.number, position.offset);
        let event = record.header(header::EVENT).filter(|event| !event.is_empty()).unwrap_or(&own);
        let hint = |trigger| Hint {
            trigger,
            event: event.to_owned(),
            created_at: callback.created_at,
            received_ms: record.timestamp_ms.unwrap_or_else(|| (self.clock)()),
            traceparent: None,
            carried_ms: None,
        };
        Ok((callback.triggers.into_iter().map(hint).collect(), callback.rest))
    }

    fn dead(&self, hint: &InRecord, reason: Reason, message: String, reply: Option<&Reply>) -> OutRecord {
        let letter = DeadLetter {
            reason,
            stage: if reason == Reason::TransformFailed { FailedAt::Transform } else { FailedAt::Task },
            message,
            http_status: reply.map(|reply| reply.status),
            response_body: reply.map(|reply| reply.body.clone()),
            request_id: reply.and_then(|reply| reply.request_id.clone()),
            attempts: u32::from(reply.is_some()),
            first_seen_ms: (self.clock)(),
        };
        letter.record(&self.settings.dead_letters, hint)
    }

    fn not_understood(&self, record: &InRecord, NotUnderstood(why, reason): NotUnderstood) -> OutRecord {
        self.meter.dead_letter(reason, 1);
        self.dead(record, reason, why, None)
    }

    /// Takes a hint into its line, or settles it at once.
    fn take(&mut self, hint: Hint, record: InRecord, now: Instant) -> Option<Settled> {
        let entity = hint.trigger.key.entity.clone();
        if self.memory.has(&hint) {
            self.meter.suppressed(&entity, Suppressed::Duplicate, 1);
            return Some(self.settle(&record, Vec::new()));
        }
        if !self.lines.contains_key(&entity) {
            self.meter.suppressed(&entity, Suppressed::NotConfigured, 1);
            return Some(self.settle(&record, Vec::new()));
        }
        let gathered = match self.carried(Gathered { hint, record }) {
            Ok(settled) => return Some(settled),
            Err(gathered) => *gathered,
        };
        self.queue(gathered, now);
        None
    }

    /// Takes notes of what the bridge wrote. The ledger keeps them for the next owner of the partition.
    fn noted(&mut self, record: &InRecord) -> Settled {
        let now_ms = (self.clock)();
        self.outdated.extend(self.echoes.expired(now_ms));
        let mut records: Vec<OutRecord> = self.forgotten().collect();
        let Some((value, notes)) = record.value.as_ref().and_then(|value| Some((value, notes_of(value)?)))
        else {
            debug!(offset = record.position.offset, "notes of what was written cannot be read");
            return self.settle(record, records);
        };
        let (intake, key) = (&record.position.partition, echo::ledger_key(record.position.offset));
        self.echoes.take(notes, (intake, &key), now_ms);
        records.push(memory::record(key, Some(value.clone()), &self.settings.ledger, intake));
        self.settle(record, records)
    }

    /// The hints that planned reads become.
    fn rechecks(&self, due: Vec<(i64, EntityKey)>) -> Settled {
        let configured = due.into_iter().filter(|(_, key)| self.lines.contains_key(&key.entity));
        let records = configured.map(|(at_s, key)| {
            let scope = Cause::Recheck.scope().expect("it is the bridge's own").to_owned();
            let hint = Hint {
                // The same after a crash: it is answered once.
                event: format!("recheck-{at_s}"),
                trigger: Trigger { key, op: Op::Read, scope, row: None },
                created_at: None,
                received_ms: (self.clock)(),
                traceparent: None,
                carried_ms: None,
            };
            self.hint_record(&hint, None, Some(Bytes::from_static(b"{}")))
        });
        Settled { positions: Vec::new(), records: records.collect() }
    }

    /// The intake record of a hint; without a partition, it goes where its entity is kept in order.
    fn hint_record(&self, hint: &Hint, partition: Option<i32>, value: Option<Bytes>) -> OutRecord {
        OutRecord {
            topic: self.settings.intake.clone(),
            partition,
            key: Some(Bytes::from(hint.trigger.key.to_string())),
            value,
            headers: hint.headers(),
            timestamp_ms: Some(hint.received_ms),
        }
    }

    /// What the ledger may forget, a little at a time.
    fn forgotten(&mut self) -> impl Iterator<Item = OutRecord> {
        let kept = self.outdated.len().saturating_sub(MAX_FORGOTTEN);
        let ledger = self.settings.ledger.clone();
        self.outdated.split_off(kept).into_iter().map(move |(key, at)| memory::forgotten(&key, &ledger, &at))
    }
}

/// The line of an entity's own hints, and those of the reads that find its ids.
fn lines_of(settings: &Arc<EntitySettings>) -> Vec<Line> {
    let row = &settings.row;
    let mut lines = vec![Line::new(&row.name, settings.clone(), Yields::Records)];
    for found_by in &row.resolve {
        let resolving = Arc::new(resolve::settings(settings, found_by));
        let name = resolving.row.name.clone();
        lines.push(Line::new(&name, resolving, Yields::Hints(row.name.as_str().into())));
    }
    lines
}

/// What a read is for, so that the store's quota goes to the most urgent first.
const fn purpose(cause: Cause) -> Purpose {
    match cause {
        Cause::Callback => Purpose::Live,
        Cause::Sync => Purpose::Sync,
        Cause::Recheck | Cause::Poll => Purpose::Poll,
        Cause::Sweep => Purpose::Sweep,
        Cause::Snapshot => Purpose::Snapshot,
    }
}

impl<S: Store> Stage for Incoming<S> {
    type Done = Done;

    fn restore(&mut self, partition: &Partition, ledger: Recalled) {
        let now_ms = (self.clock)();
        for (key, value) in ledger.values {
            self.echoes.restore(&key, &value, partition, now_ms);
            if self.memory.restore(&key, &value, now_ms) == Restored::Outdated {
                self.outdated.push((key, partition.clone()));
            }
        }
    }

    fn accept(&mut self, record: InRecord, now: Instant) -> Vec<Settled> {
        let newest = self.newest.entry(record.position.partition.clone()).or_default();
        *newest = record.position.offset.max(*newest);
        if is_of_notes(&record) {
            return vec![self.noted(&record)];
        }
        if let Some(hint) = Hint::from_record(&record) {
            return self.take(hint, record, now).into_iter().collect();
        }
        match self.foreign(&record) {
            // To the partition of each entity, where its order is kept.
            Ok((hints, rest)) => {
                let again = hints.iter().map(|hint| self.hint_record(hint, None, record.value.clone()));
                let rest = rest.map(|why| self.not_understood(&record, why));
                vec![self.settle(&record, again.chain(rest).collect())]
            }
            Err(why) => vec![self.settle(&record, vec![self.not_understood(&record, why)])],
        }
    }

    fn start(&mut self, now: Instant) -> Vec<Job<Done>> {
        let mut jobs: Vec<Job<Done>> = Vec::new();
        let now_ms = (self.clock)();
        self.anchor = Some((now, now_ms));
        let due = self.memory.due(now_ms.div_euclid(1000), MAX_RECHECKS);
        if !due.is_empty() {
            jobs.push(Box::pin(async move { Done::Due(due) }));
        }
        if self.closed_until.is_some_and(|until| until > now) {
            return jobs;
        }
        for line in self.lines.values_mut() {
            while let Some(start) = line.next(now) {
                let (store, settings, line) = (self.store.clone(), line.settings.clone(), line.name.clone());
                let (clock, purpose, urgency) = (self.clock.clone(), purpose(start.cause), start.urgency);
                jobs.push(Box::pin(async move {
                    let read_at_ms = clock();
                    let outcomes = hydrate::read(store, settings, start.plan, purpose).await;
                    Done::Read(Read { line, urgency, read_at_ms, outcomes })
                }));
            }
        }
        jobs
    }

    fn finish(&mut self, done: Done, now: Instant) -> Vec<Settled> {
        let Read { line, urgency, read_at_ms, outcomes } = match done {
            Done::Read(read) => read,
            Done::Due(due) => return vec![self.rechecks(due)],
        };
        if let Some(line) = self.lines.get_mut(&line) {
            line.running[urgency as usize] -= 1;
        }
        let concluded =
            outcomes.into_iter().flat_map(|outcome| self.conclude(&line, read_at_ms, outcome, now));
        concluded.collect()
    }

    fn wake_at(&self) -> Option<Instant> {
        let wake = self.lines.values().filter_map(Line::wake_at).min();
        let wake = wake.map(|wake| self.closed_until.map_or(wake, |until| until.max(wake)));
        let recheck = self.anchor.zip(self.memory.next_due()).map(|((at, at_ms), due_s)| {
            let ahead_ms = due_s.saturating_mul(1000).saturating_sub(at_ms);
            at + Duration::from_millis(u64::try_from(ahead_ms).unwrap_or(0))
        });
        wake.into_iter().chain(recheck).min()
    }

    fn reset(&mut self) {
        for line in self.lines.values_mut() {
            line.clear();
        }
        self.memory.clear();
        self.echoes.clear();
        self.outdated.clear();
        self.newest.clear();
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_echo;
#[cfg(test)]
mod tests_replay;
#[cfg(test)]
mod tests_rows;
