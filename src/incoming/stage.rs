//! The incoming path of one store as the runner drives it.
//!
//! A line per entity: its coalescer, its running reads, and its pause after trouble. One entity's trouble pauses
//! that entity; a token that is not valid pauses the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, error, warn};

use super::coalesce::{Gathered, Gathering};
use super::hydrate::{self, Outcome};
use super::judge::{Verdict, judge};
use super::line::{Line, TROUBLE};
use super::memory::Memory;
use super::meter::{Meter, Suppressed};
use super::publish::{NotPublished, Publication};
use super::settings::{EntitySettings, StoreSettings};
use crate::catalog::Catalog;
use crate::model::dead_letter::{DeadLetter, FailedAt};
use crate::model::hint::{Hint, Op};
use crate::model::ids::{EntityId, EntityKey};
use crate::model::reason::Reason;
use crate::model::record::{InRecord, OutRecord, Partition};
use crate::model::request::Reply;
use crate::runtime::ports::{Job, Settled, Stage, Store};

/// Pause of a store whose token is not valid. A person must act; a read each half minute finds out when.
const UNAUTHORIZED: Duration = Duration::from_secs(30);
/// A hint that waited so long, while other entities of the store are read, is appended to the intake again, so
/// that the checkpoint's window does not fill up behind it.
const REAPPEND_AFTER: Duration = Duration::from_secs(300);

/// Wall clock in unix milliseconds, as an argument.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a job brings back.
pub struct Done {
    entity: String,
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
    lines: BTreeMap<String, Line>,
    memory: Memory,
    /// The whole store waits until then.
    closed_until: Option<Instant>,
    last_success: Option<Instant>,
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
        let lines = settings
            .entities
            .iter()
            .map(|(name, entity)| (name.clone(), Line::new(entity.clone())))
            .collect();
        Self {
            settings,
            catalog,
            store,
            meter,
            clock,
            lines,
            memory: Memory::default(),
            closed_until: None,
            last_success: None,
        }
    }

    fn settle(&self, record: &InRecord, records: Vec<OutRecord>) -> Settled {
        Settled { positions: vec![record.position.clone()], records }
    }

    /// A record of the intake that the bridge did not write, taken as a callback's bytes.
    fn foreign(&self, record: &InRecord) -> Result<Vec<Hint>, String> {
        let body = record.value.as_deref().ok_or("a record without a value and without a hint's headers")?;
        let callback = super::decode::callback(&self.catalog, body).map_err(|e| e.0)?;
        let position = &record.position;
        let hint = |trigger| Hint {
            trigger,
            event: format!("{}-{}", position.partition.number, position.offset),
            created_at: callback.created_at,
            received_ms: record.timestamp_ms.unwrap_or_else(|| (self.clock)()),
            traceparent: None,
            carried_ms: None,
        };
        Ok(callback.triggers.into_iter().map(hint).collect())
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

    /// Takes a hint into its line, or settles it at once.
    fn take(&mut self, hint: Hint, record: InRecord, now: Instant) -> Option<Settled> {
        let key = &hint.trigger.key;
        if self.memory.has(&hint) {
            self.meter.suppressed(&key.entity, Suppressed::Duplicate, 1);
            return Some(self.settle(&record, Vec::new()));
        }
        let Some(line) = self.lines.get_mut(key.entity.as_ref()) else {
            self.meter.suppressed(&key.entity, Suppressed::NotConfigured, 1);
            return Some(self.settle(&record, Vec::new()));
        };
        line.coalescer.add(Gathered { hint, record }, now);
        None
    }

    /// Draws the consequence of one judged outcome.
    fn conclude(&mut self, entity: &str, read_at_ms: i64, outcome: Outcome, now: Instant) -> Option<Settled> {
        let (id, result) = outcome;
        let line = self.lines.get_mut(entity)?;
        let mut gathering = line.reading.remove(&id)?;
        let settings = line.settings.clone();
        let key = EntityKey { entity: settings.row.name.as_str().into(), id: id.clone() };
        gathering.set_repeats_aside(|hint| self.memory.has(hint));
        if gathering.hints.is_empty() {
            line.coalescer.done(&id);
            self.meter.suppressed(entity, Suppressed::Duplicate, gathering.repeats.len());
            return Some(Settled { positions: gathering.positions(), records: Vec::new() });
        }
        let known = self.memory.get(&key);
        let verdict = judge(&mut gathering, &known, result, settings.confirm_gone, now);
        if !matches!(verdict, Verdict::Trouble { .. } | Verdict::Unauthorized) {
            line.is_well();
            self.last_success = Some(now);
        }
        match verdict {
            Verdict::Publish { rows, suspect } => {
                // A state that may be too old answers only those that waited long enough for a newer one.
                let young = if suspect { gathering.take_young() } else { Vec::new() };
                let publication = Publication {
                    store: &self.settings,
                    settings: &settings,
                    gathering: &gathering,
                    read_at_ms,
                    suspect,
                };
                let version = rows.iter().filter_map(|row| row.version).max().or(known.version);
                let records = self.published(&publication, &rows);
                let settled = self.close(&key, gathering, version, records);
                let line = self.lines.get_mut(entity)?;
                young.into_iter().for_each(|gathered| line.coalescer.add(gathered, now));
                Some(settled)
            }
            Verdict::Gone => {
                let records = self.gone(&settings, &id, &gathering, read_at_ms);
                // So that a replica that lags cannot bring it back.
                let version = known.version.max(gathering.created_at());
                Some(self.close(&key, gathering, version, records))
            }
            Verdict::Dead { reason, detail, reply } => {
                let hints = &gathering.hints;
                let letters =
                    hints.iter().map(|g| self.dead(&g.record, reason, detail.clone(), reply.as_deref()));
                let settled = Settled { records: letters.collect(), positions: gathering.positions() };
                self.meter.dead_letter(reason, gathering.hints.len());
                warn!(store = %self.settings.name, entity.kind = %key.entity, entity.id = %id, reason = reason.name(), detail, "a hint became a dead letter");
                self.lines.get_mut(entity)?.coalescer.done(&id);
                Some(settled)
            }
            Verdict::Again(at) => {
                self.retry(&key, gathering, at, now);
                None
            }
            Verdict::Trouble { after, detail } => self.trouble(&key, gathering, (after, &detail), now),
            Verdict::Unauthorized => {
                if self.closed_until.is_none_or(|until| until <= now) {
                    error!(store = %self.settings.name, "the access token is not valid: reads wait until it is");
                }
                let at = now + UNAUTHORIZED;
                self.closed_until = Some(at);
                self.retry(&key, gathering, at, now);
                None
            }
        }
    }

    fn retry(&mut self, key: &EntityKey, gathering: Gathering, at: Instant, now: Instant) {
        self.meter.retried(&key.entity);
        if let Some(line) = self.lines.get_mut(key.entity.as_ref()) {
            line.coalescer.retry(&key.id, gathering, at, now);
        }
    }

    /// A read failed for no fault of the entity's: its whole line pauses.
    fn trouble(
        &mut self,
        key: &EntityKey,
        gathering: Gathering,
        (after, detail): (Duration, &str),
        now: Instant,
    ) -> Option<Settled> {
        let others_flow = self.last_success.is_some_and(|at| now.duration_since(at) < TROUBLE.1);
        let line = self.lines.get_mut(key.entity.as_ref())?;
        let paused = line.pause(after, now);
        if paused.is_first {
            let pause_ms = paused.until.duration_since(now).as_millis();
            warn!(store = %self.settings.name, entity.kind = %key.entity, detail, pause_ms, "reads of an entity pause");
        }
        if paused.failing_for > REAPPEND_AFTER && others_flow {
            line.coalescer.done(&key.id);
            debug!(entity.kind = %key.entity, entity.id = %key.id, "a hint that waits for long is appended again");
            let records = gathering.hints.iter().map(|g| again(&self.settings.intake, g)).collect();
            return Some(Settled { positions: gathering.positions(), records });
        }
        self.retry(key, gathering, paused.until, now);
        None
    }

    /// The records of the rows that were meant; a row that cannot be published becomes a dead letter.
    fn published(
        &self,
        publication: &Publication<'_>,
        rows: &[crate::incoming::hydrate::Row],
    ) -> Vec<OutRecord> {
        let wanted = publication.gathering.rows();
        let entity = publication.settings.row.name.as_str();
        let hints = publication.gathering.hints.len();
        let mut records = Vec::new();
        let (mut meant, mut published) = (0, false);
        for row in rows.iter().filter(|row| wanted.as_ref().is_none_or(|wanted| wanted.contains(&row.id))) {
            meant += 1;
            match publication.row(row) {
                Ok(Some(record)) => {
                    records.push(record);
                    published = true;
                }
                Ok(None) => {}
                Err(error) => {
                    let reason = match error {
                        NotPublished::Mapping(..) => Reason::TransformFailed,
                        NotPublished::TooLarge(..) => Reason::BadPayload,
                    };
                    self.meter.dead_letter(reason, hints);
                    let first = &publication.gathering.hints[0].record;
                    records.push(self.dead(first, reason, error.to_string(), None));
                }
            }
        }
        // Each hint counts once, however many rows it is about.
        if published {
            self.count(publication.settings, publication.gathering, publication.gathering.op());
        } else if records.is_empty() {
            let why = if meant == 0 { Suppressed::NoRow } else { Suppressed::Filtered };
            self.meter.suppressed(entity, why, hints);
        }
        records
    }

    fn gone(
        &self,
        settings: &Arc<EntitySettings>,
        id: &EntityId,
        gathering: &Gathering,
        read_at_ms: i64,
    ) -> Vec<OutRecord> {
        let publication =
            Publication { store: &self.settings, settings, gathering, read_at_ms, suspect: false };
        self.count(settings, gathering, Op::Delete);
        // Of a group, only the rows that were named are known to be gone.
        match gathering.rows() {
            Some(rows) => rows.into_iter().flat_map(|row| publication.gone(row)).collect(),
            None if settings.row.hint_key.is_some() => Vec::new(),
            None => publication.gone(id),
        }
    }

    fn count(&self, settings: &EntitySettings, gathering: &Gathering, op: Op) {
        let first = gathering.hints.iter().map(|g| g.hint.received_ms).min().unwrap_or(0);
        let waited = u64::try_from((self.clock)() - first).unwrap_or(0);
        self.meter.published(&settings.row.name, op, gathering.hints.len(), Duration::from_millis(waited));
    }

    fn close(
        &mut self,
        key: &EntityKey,
        gathering: Gathering,
        version: Option<i64>,
        mut records: Vec<OutRecord>,
    ) -> Settled {
        let mut known = self.memory.get(key);
        known.add(gathering.hints.iter().map(|g| &g.hint));
        known.version = version;
        let partition = &gathering.hints[0].record.position.partition;
        records.push(self.memory.note(key, known, &self.settings.ledger, partition));
        if let Some(line) = self.lines.get_mut(key.entity.as_ref()) {
            line.coalescer.done(&key.id);
        }
        Settled { positions: gathering.positions(), records }
    }
}

fn again(intake: &Arc<str>, gathered: &Gathered) -> OutRecord {
    let record = &gathered.record;
    OutRecord {
        topic: intake.clone(),
        partition: Some(record.position.partition.number),
        key: Some(Bytes::from(gathered.hint.trigger.key.to_string())),
        value: record.value.clone(),
        headers: gathered.hint.headers(),
        timestamp_ms: record.timestamp_ms,
    }
}

impl<S: Store> Stage for Incoming<S> {
    type Done = Done;

    fn restore(&mut self, _partition: &Partition, ledger: BTreeMap<String, Bytes>) {
        for (key, value) in &ledger {
            self.memory.restore(key, value);
        }
    }

    fn accept(&mut self, record: InRecord, now: Instant) -> Vec<Settled> {
        if let Some(hint) = Hint::from_record(&record) {
            return self.take(hint, record, now).into_iter().collect();
        }
        match self.foreign(&record) {
            // To the partition of each entity, where its order is kept.
            Ok(hints) => {
                let again = hints.iter().map(|hint| OutRecord {
                    topic: self.settings.intake.clone(),
                    partition: None,
                    key: Some(Bytes::from(hint.trigger.key.to_string())),
                    value: record.value.clone(),
                    headers: hint.headers(),
                    timestamp_ms: record.timestamp_ms,
                });
                vec![self.settle(&record, again.collect())]
            }
            Err(message) => {
                self.meter.dead_letter(Reason::Quarantined, 1);
                let letter = self.dead(&record, Reason::Quarantined, message, None);
                vec![self.settle(&record, vec![letter])]
            }
        }
    }

    fn start(&mut self, now: Instant) -> Vec<Job<Done>> {
        let mut jobs: Vec<Job<Done>> = Vec::new();
        if self.closed_until.is_some_and(|until| until > now) {
            return jobs;
        }
        for (entity, line) in &mut self.lines {
            while let Some(plan) = line.next(now) {
                let (store, settings, entity) = (self.store.clone(), line.settings.clone(), entity.clone());
                let clock = self.clock.clone();
                jobs.push(Box::pin(async move {
                    let read_at_ms = clock();
                    let outcomes = hydrate::read(store, settings, plan).await;
                    Done { entity, read_at_ms, outcomes }
                }));
            }
        }
        jobs
    }

    fn finish(&mut self, done: Done, now: Instant) -> Vec<Settled> {
        if let Some(line) = self.lines.get_mut(&done.entity) {
            line.running -= 1;
        }
        let Done { entity, read_at_ms, outcomes } = done;
        outcomes.into_iter().filter_map(|outcome| self.conclude(&entity, read_at_ms, outcome, now)).collect()
    }

    fn wake_at(&self) -> Option<Instant> {
        let wake = self.lines.values().filter_map(Line::wake_at).min()?;
        Some(self.closed_until.map_or(wake, |until| until.max(wake)))
    }

    fn reset(&mut self) {
        for line in self.lines.values_mut() {
            line.clear();
        }
        self.memory.clear();
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
