//! What follows from one judged outcome of a read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use super::Incoming;
use super::publication::Fresh;
use crate::incoming::coalesce::{Gathered, Gathering, Wait};
use crate::incoming::hydrate::{Failure, Outcome};
use crate::incoming::judge::{Rules, Verdict, judge};
use crate::incoming::line::{TROUBLE, Yields};
use crate::incoming::meter::Suppressed;
use crate::incoming::row::Row;
use crate::incoming::settings::EntitySettings;
use crate::model::ids::{EntityId, EntityKey};
use crate::model::reason::Reason;
use crate::model::record::OutRecord;
use crate::model::request::Reply;
use crate::runtime::ports::{Settled, Store};

/// Pause of a store whose token is not valid. A person must act; a read each half minute finds out when.
const UNAUTHORIZED: Duration = Duration::from_secs(30);
/// A hint that waited so long, while other entities of the store are read, is appended to the intake again, so
/// that the checkpoint's window does not fill up behind it.
const REAPPEND_AFTER: Duration = Duration::from_secs(300);
/// One that lies so far behind the newest record of its partition is appended again at once: a quarter of the
/// checkpoint's window.
const REAPPEND_BEHIND: i64 = 4_096;
/// Hints that leave a line at once, at most: a transaction's worth.
const MAX_LEAVING: usize = 2_000;

/// One entity as it was asked for.
struct Asked {
    settings: Arc<EntitySettings>,
    key: EntityKey,
    read_at_ms: i64,
    now: Instant,
}

impl<S: Store> Incoming<S> {
    /// Draws the consequence of one outcome.
    pub(super) fn conclude(
        &mut self,
        entity: &Arc<str>,
        read_at_ms: i64,
        (id, result): Outcome,
        now: Instant,
    ) -> Vec<Settled> {
        let Some(line) = self.lines.get_mut(entity) else { return Vec::new() };
        let Some(mut gathering) = line.reading.remove(&id) else { return Vec::new() };
        let asked = Asked {
            settings: line.settings.clone(),
            key: EntityKey { entity: entity.clone(), id: id.clone() },
            read_at_ms,
            now,
        };
        gathering.set_repeats_aside(|hint| self.memory.has(hint));
        if gathering.hints.is_empty() {
            line.coalescer.done(&id);
            self.meter.suppressed(entity, Suppressed::Duplicate, gathering.repeats.len());
            return vec![Settled { positions: gathering.positions(), records: Vec::new() }];
        }
        let verdict = match &line.yields {
            Yields::Records => {
                let rules = Rules {
                    is_group: asked.settings.row.hint_key.is_some(),
                    confirm_gone: asked.settings.confirm_gone,
                };
                judge(&mut gathering, &self.memory.get(&asked.key), result, rules, now)
            }
            Yields::Hints(_) => judge_resolving(&mut gathering, result, asked.settings.confirm_gone, now),
        };
        if !matches!(verdict, Verdict::Trouble { .. } | Verdict::Unauthorized | Verdict::Denied(_)) {
            line.is_well();
            self.last_success = Some(now);
        }
        self.follow(&asked, gathering, verdict)
    }

    fn follow(&mut self, asked: &Asked, gathering: Gathering, verdict: Verdict) -> Vec<Settled> {
        let (key, now) = (&asked.key, asked.now);
        match verdict {
            Verdict::Publish { rows, suspect } => vec![self.answer(asked, gathering, rows, suspect)],
            Verdict::Gone => vec![self.absent(asked, &gathering)],
            Verdict::Dead { reason, detail, reply } => {
                warn!(store = %self.settings.name, entity.kind = %key.entity, entity.id = %key.id, reason = reason.name(), detail, "a hint became a dead letter");
                self.done(key);
                vec![self.give_up(&gathering, reason, &detail, reply.as_deref())]
            }
            Verdict::Again(at) => {
                self.retry(key, gathering, Wait::AtLatest(at), now);
                Vec::new()
            }
            Verdict::Trouble { after, detail } => self.trouble(key, gathering, (after, &detail), now),
            Verdict::Denied(reply) => self.denied(asked, gathering, &reply),
            Verdict::Unauthorized => {
                if self.closed_until.is_none_or(|until| until <= now) {
                    error!(store = %self.settings.name, "the access token is not valid: reads wait until it is");
                }
                let at = now + UNAUTHORIZED;
                self.closed_until = Some(at);
                self.retry(key, gathering, Wait::NotBefore(at), now);
                Vec::new()
            }
        }
    }

    /// Rows were found.
    fn answer(&mut self, asked: &Asked, mut gathering: Gathering, rows: Vec<Row>, suspect: bool) -> Settled {
        let Asked { settings, key, read_at_ms, now } = asked;
        if let Some(entity) = self.target(key) {
            self.done(key);
            let records = self.resolved(&entity, (&key.id, settings), &gathering, &rows);
            return Settled { positions: gathering.positions(), records };
        }
        // A state that may be too old answers only those that waited long enough for a newer one.
        let young = if suspect { gathering.take_young() } else { Vec::new() };
        let read = Fresh { rows, read_at_ms: *read_at_ms, suspect, whole: true };
        let settled = self.publish(settings, key, &gathering, read);
        self.done(key);
        if let Some(line) = self.lines.get_mut(&key.entity) {
            young.into_iter().for_each(|gathered| line.coalescer.add(gathered, *now));
        }
        settled
    }

    /// Nothing was found, and that is certain.
    fn absent(&mut self, asked: &Asked, gathering: &Gathering) -> Settled {
        let Asked { settings, key, read_at_ms, .. } = asked;
        self.done(key);
        match self.target(key) {
            Some(entity) => {
                let records = self.resolved(&entity, (&key.id, settings), gathering, &[]);
                Settled { positions: gathering.positions(), records }
            }
            None => self.gone(settings, key, gathering, *read_at_ms),
        }
    }

    /// The entity whose ids a line finds; none if it reads entities.
    fn target(&self, key: &EntityKey) -> Option<Arc<str>> {
        match &self.lines.get(&key.entity)?.yields {
            Yields::Records => None,
            Yields::Hints(entity) => Some(entity.clone()),
        }
    }

    fn done(&mut self, key: &EntityKey) {
        if let Some(line) = self.lines.get_mut(&key.entity) {
            line.coalescer.done(&key.id);
        }
    }

    fn retry(&mut self, key: &EntityKey, gathering: Gathering, wait: Wait, now: Instant) {
        self.meter.retried(self.target(key).as_deref().unwrap_or(&key.entity));
        if let Some(line) = self.lines.get_mut(&key.entity) {
            line.coalescer.retry(&key.id, gathering, wait, now);
        }
    }

    /// Dead letters for all hints of a gathering.
    fn give_up(&self, gathering: &Gathering, reason: Reason, detail: &str, reply: Option<&Reply>) -> Settled {
        self.meter.dead_letter(reason, gathering.hints.len());
        let letter = |g: &Gathered| self.dead(&g.record, reason, detail.to_owned(), reply);
        Settled { records: gathering.hints.iter().map(letter).collect(), positions: gathering.positions() }
    }

    /// A read failed for no fault of the entity's: its whole line pauses.
    fn trouble(
        &mut self,
        key: &EntityKey,
        gathering: Gathering,
        (after, detail): (Duration, &str),
        now: Instant,
    ) -> Vec<Settled> {
        let others_flow = self.others_flow(now);
        let Some(line) = self.lines.get_mut(&key.entity) else { return Vec::new() };
        let paused = line.pause(after, now);
        if paused.is_first {
            let pause_ms = paused.until.duration_since(now).as_millis();
            warn!(store = %self.settings.name, entity.kind = %key.entity, detail, pause_ms, "reads of an entity pause");
        }
        let mut settled = Vec::new();
        if paused.failing_for > REAPPEND_AFTER && others_flow {
            self.done(key);
            debug!(entity.kind = %key.entity, entity.id = %key.id, "a hint that waits for long is appended again");
            settled.push(self.reappended(&gathering));
        } else {
            self.retry(key, gathering, Wait::NotBefore(paused.until), now);
        }
        if paused.is_first && others_flow {
            let behind = |g: &Gathered, newest: Option<i64>| {
                newest.is_some_and(|newest| newest - g.record.position.offset > REAPPEND_BEHIND)
            };
            let newest = self.newest.clone();
            let leaving = self.leaving(key, |gathering| {
                gathering.hints.iter().any(|g| behind(g, newest.get(&g.record.position.partition).copied()))
            });
            settled.extend(leaving.iter().map(|gathering| self.reappended(gathering)));
        }
        settled
    }

    /// The token lacks a scope: the line pauses, and when that has lasted, what waits becomes dead letters, which
    /// can be replayed once the scope is granted. One entity in each pause finds out whether it is.
    fn denied(&mut self, asked: &Asked, gathering: Gathering, reply: &Reply) -> Vec<Settled> {
        let (key, now) = (&asked.key, asked.now);
        let Some(line) = self.lines.get_mut(&key.entity) else { return Vec::new() };
        let paused = line.pause(Duration::ZERO, now);
        let is_line_denied = line.is_denied(now);
        let scope = asked.settings.row.oauth.clone();
        if paused.is_first {
            let pause_ms = paused.until.duration_since(now).as_millis();
            error!(store = %self.settings.name, entity.kind = %key.entity, scope, status = reply.status, pause_ms, "reads of an entity are refused: the token may lack the scope");
        }
        if !is_line_denied && !line.is_hopeless(&gathering, now) {
            self.retry(key, gathering, Wait::NotBefore(paused.until), now);
            return Vec::new();
        }
        let detail = format!("the store refuses the read: the token may lack the scope {scope}");
        self.done(key);
        let mut settled = vec![self.give_up(&gathering, Reason::Denied, &detail, Some(reply))];
        if is_line_denied {
            let leaving = self.leaving(key, |_| true);
            settled.extend(leaving.iter().map(|g| self.give_up(g, Reason::Denied, &detail, Some(reply))));
        }
        settled
    }

    /// Takes out gatherings of an entity's line that wait and shall wait no more.
    fn leaving(&mut self, key: &EntityKey, which: impl Fn(&Gathering) -> bool) -> Vec<Gathering> {
        let Some(line) = self.lines.get_mut(&key.entity) else { return Vec::new() };
        let waiting = line.coalescer.waiting().filter(|(_, gathering)| which(gathering));
        let ids: Vec<EntityId> = waiting.map(|(id, _)| id.clone()).take(MAX_LEAVING).collect();
        let take = |id: EntityId| {
            let taken = line.coalescer.take(&id);
            line.coalescer.done(&id);
            taken
        };
        ids.into_iter().filter_map(take).collect()
    }

    fn others_flow(&self, now: Instant) -> bool {
        self.last_success.is_some_and(|at| now.duration_since(at) < TROUBLE.1)
    }

    /// The hints of a gathering at the end of the intake.
    fn reappended(&self, gathering: &Gathering) -> Settled {
        let again = |g: &Gathered| OutRecord {
            timestamp_ms: g.record.timestamp_ms,
            ..self.hint_record(&g.hint, Some(g.record.position.partition.number), g.record.value.clone())
        };
        Settled { positions: gathering.positions(), records: gathering.hints.iter().map(again).collect() }
    }
}

/// Of a read that finds ids: whatever it finds is an answer, and what it does not find may only have come too early.
fn judge_resolving(
    gathering: &mut Gathering,
    outcome: Result<Vec<Row>, Failure>,
    confirm_gone: Duration,
    now: Instant,
) -> Verdict {
    match outcome {
        Ok(rows) if !rows.is_empty() => Verdict::Publish { rows, suspect: false },
        other => judge(gathering, &Default::default(), other, Rules { is_group: true, confirm_gone }, now),
    }
}
