//! Kafka to BigCommerce: commands from topics, applied to the store.
//!
//! A record is decoded and planned at once: what is no command is refused then and there, and blocks nobody.
//! A command waits in the lane of its key until all earlier ones of the key have ended, is applied under its class
//! (`apply`), and is settled with exactly one result (`settle`). Each store has lanes of its own, so that one store
//! in trouble does not take another's turns.
//!
//! It never sends what it could not make sure of, never sends a command of class C twice, never logs a payload.
//! It fails only one command at a time; what may come of a command that is in doubt is told by its result.

mod apply;
mod decisions;
mod decode;
pub mod halts;
mod known;
pub mod notes;
mod plan;
mod settle;
mod share;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use apply::Budget;
pub use decisions::{About, Decision, Decisions};
pub use decode::{Filter, Fixed, Mapping};
pub use settle::{Topics, header};

use apply::{Applying, Ending, Step};
use decode::{Checked, Refusal};
use known::{Known, State};
use notes::Noted;
use plan::Plan;

use crate::catalog::Catalog;
use crate::engine::lanes::{self, Lanes};
use crate::model::command::Outcome;
use crate::model::dead_letter::{FailedAt, replay_count};
use crate::model::record::{InRecord, OutRecord, Partition, Position};
use crate::model::request::Reply;
use crate::runtime::ports::{Append, Job, Settled, Stage, Store};

/// How long a command waits for another one of the same id, in another lane, to end before it looks again.
const TWIN_WAIT: Duration = Duration::from_secs(1);
/// Entries that the ledger forgets in one transaction, at most: a small part of it.
const MAX_FORGOTTEN: usize = 100;

/// What becomes of a key whose command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The next command of the key is applied.
    #[default]
    Skip,
}

/// One topic of commands, and the store that they are for.
pub struct Route<S> {
    /// The topic.
    pub topic: Arc<str>,
    /// The store's name. Routes of one name share lanes' bounds, and must share the client and the topics.
    pub store: Arc<str>,
    /// The store.
    pub client: Arc<S>,
    /// Where results, dead letters and the ledger go.
    pub topics: Topics,
    /// What the topic's records are for, where they do not say it.
    pub fixed: Option<Fixed>,
    /// Which of the topic's records are commands; none takes all.
    pub filter: Option<Arc<Filter>>,
    /// How the topic's records become command objects; none takes them as they are.
    pub mapping: Option<Arc<Mapping>>,
    /// What becomes of a key whose command failed.
    pub on_failure: OnFailure,
    /// Commands are checked and planned, and never sent.
    pub dry_run: bool,
}

/// Bounds of the outgoing path.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of each store: commands applied at the same time, and keys that are open at the same time.
    pub lanes: lanes::Limits,
    /// How long and how often a command is tried.
    pub budget: Budget,
}

impl Default for Limits {
    /// 16 at the same time: at a third of a second a call that is the quota of the largest plan with fixed figures
    /// (450 in 30 s), three times over. 10,000 keys.
    fn default() -> Self {
        Self { lanes: lanes::Limits { max_parallel: 16, max_open: 10_000 }, budget: Budget::default() }
    }
}

/// What the outgoing path is made of.
pub struct OutgoingConfig<S> {
    /// The topics; each at most once.
    pub routes: Vec<Route<S>>,
    /// What can be written.
    pub catalog: Arc<Catalog>,
    /// The bounds.
    pub limits: Limits,
}

/// The wall clock, in milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The outgoing path; see the module.
pub struct Outgoing<S, A> {
    routes: HashMap<Arc<str>, (usize, Arc<Route<S>>)>,
    lines: Vec<Line<S>>,
    known: Known,
    /// Records that let the ledger forget what is outdated, a few with each transaction.
    outdated: Vec<OutRecord>,
    catalog: Arc<Catalog>,
    limits: Limits,
    appender: Arc<A>,
    /// Where stores' writes are noted, by the store.
    noted: HashMap<Arc<str>, Noted>,
    clock: Clock,
    /// Counts assignments: what a job of an earlier one brings is nobody's.
    generation: u64,
    /// Made by `finish` and by `start`, handed out by `start`.
    jobs: Vec<Job<Brought>>,
    now: Option<Instant>,
}

/// One store's lanes.
struct Line<S> {
    store: Arc<str>,
    lanes: Lanes<LaneKey, Item<S>>,
    /// The store does not take the token; nothing new is sent before this moment.
    paused_until: Option<Instant>,
}

/// What is kept in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LaneKey {
    /// Records of one topic with the same key.
    Key(Arc<str>, Bytes),
    /// A record without a key, alone.
    Alone(Position),
}

/// A command in its lane.
struct Item<S> {
    route: Arc<Route<S>>,
    record: InRecord,
    command: Checked,
    /// Until it is begun.
    plan: Option<Plan>,
    /// Once it is begun.
    applying: Option<Applying>,
    first_seen_ms: i64,
}

/// What a job brings back.
#[derive(Debug)]
pub struct Brought {
    generation: u64,
    line: usize,
    lane: LaneKey,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Whether the intent is durable.
    Intent(bool),
    Reply(Reply),
    Ended(Box<Ending>),
    Repeated {
        outcome: Outcome,
        result: Bytes,
    },
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// The path, without any partition yet.
    pub fn new(config: OutgoingConfig<S>, appender: Arc<A>, clock: Clock) -> Self {
        let (mut routes, mut lines) = (HashMap::new(), Vec::<Line<S>>::new());
        for route in config.routes {
            let line = lines.iter().position(|line| line.store == route.store).unwrap_or_else(|| {
                let lanes = Lanes::new(config.limits.lanes);
                lines.push(Line { store: route.store.clone(), lanes, paused_until: None });
                lines.len() - 1
            });
            routes.insert(route.topic.clone(), (line, Arc::new(route)));
        }
        Self {
            routes,
            lines,
            known: Known::default(),
            outdated: Vec::new(),
            catalog: config.catalog,
            limits: config.limits,
            appender,
            noted: HashMap::new(),
            clock,
            generation: 0,
            jobs: Vec::new(),
            now: None,
        }
    }

    /// Notes what is written to a store from now on.
    pub fn note(&mut self, store: Arc<str>, noted: Noted) {
        self.noted.insert(store, noted);
    }

    /// The topics that it takes records of.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.routes.keys().cloned().collect()
    }

    /// For each store: its name, the keys that are open, and the commands that are being applied now.
    pub fn lanes(&self) -> impl Iterator<Item = (&Arc<str>, usize, usize)> {
        self.lines.iter().map(|line| (&line.store, line.lanes.open(), line.lanes.running()))
    }

    /// The command of a record, and how to apply it; none where there is nothing to apply.
    fn read(&self, route: &Route<S>, record: &InRecord) -> Result<Option<(Checked, Plan)>, Box<Refusal>> {
        if !decode::is_wanted(record, route.fixed.as_ref(), route.filter.as_deref())? {
            return Ok(None);
        }
        let command = decode::decode(record, &self.catalog, route.fixed.as_ref(), route.mapping.as_deref())?;
        match plan::plan(&command) {
            Ok(_) if route.dry_run => {
                let (entity, action) = (&*command.entity.name, &*command.action().name);
                tracing::info!(
                    store.name = &*route.store, entity.kind = entity, action, command.id = %command.id,
                    "a dry run: a command was planned and not sent"
                );
                Ok(None)
            }
            Ok(plan) => Ok(Some((command, plan))),
            Err((reason, detail)) => Err(Box::new(Refusal {
                id: command.id.clone(),
                entity: Some(command.entity.name.clone()),
                action: Some(command.action().name.clone()),
                reason,
                stage: FailedAt::Value,
                detail,
            })),
        }
    }

    /// The first step of a lane's first command, or the next one after a wait.
    fn begin(&mut self, line: usize, lane: LaneKey, now: Instant) {
        let Some(item) = self.lines[line].lanes.head_mut(&lane) else { return };
        if let Some(applying) = &mut item.applying {
            let step = applying.step();
            return self.perform(line, lane, step, now);
        }
        let name = (item.route.topics.ledger.clone(), item.command.id.clone());
        match self.known.get(&name) {
            Some(State::Open) => return self.lines[line].lanes.sleep(&lane, now + TWIN_WAIT),
            Some(State::Done { outcome, result, .. }) if !is_worth_a_replay(&item.record, *outcome) => {
                let what = What::Repeated { outcome: *outcome, result: result.clone() };
                return self.push_job(line, lane, std::future::ready(what));
            }
            Some(State::Done { .. } | State::Intent) | None => {}
        }
        let Some(plan) = item.plan.take() else { return };
        let intent_found = self.known.open(name) == Some(State::Intent);
        let mut applying = Applying::new(plan, self.limits.budget, intent_found, now);
        let step = applying.step();
        item.applying = Some(applying);
        self.perform(line, lane, step, now);
    }

    fn perform(&mut self, line: usize, lane: LaneKey, step: Step, now: Instant) {
        match step {
            Step::Intent => self.append_intent(line, lane),
            Step::Send(request) => {
                let Some(item) = self.lines[line].lanes.head_mut(&lane) else { return };
                let client = item.route.client.clone();
                self.push_job(line, lane, async move { What::Reply(client.send(request).await) });
            }
            Step::Wait(wait) => self.lines[line].lanes.sleep(&lane, now + wait),
            Step::Pause(wait) => {
                let line = &mut self.lines[line];
                if line.paused_until.is_none_or(|until| until <= now) {
                    tracing::error!(store.name = %line.store, "the store does not take the access token; its commands wait");
                }
                line.paused_until = Some(now + wait);
                line.lanes.sleep(&lane, now + wait);
            }
            Step::End(ending) => self.push_job(line, lane, std::future::ready(What::Ended(ending))),
        }
    }

    fn append_intent(&mut self, line: usize, lane: LaneKey) {
        let now_ms = (self.clock)();
        let Some(item) = self.lines[line].lanes.head_mut(&lane) else { return };
        let class = item.applying.as_ref().map_or("C", |applying| applying.class().name());
        let intent = item.route.topics.intent(&item.record, &item.command.id, class, now_ms);
        let appender = self.appender.clone();
        self.push_job(line, lane, async move {
            let appended = appender.append(vec![intent]).await;
            if let Err(error) = &appended {
                tracing::warn!(%error, "an intent could not be made durable; its command waits");
            }
            What::Intent(appended.is_ok())
        });
    }

    fn push_job(&mut self, line: usize, lane: LaneKey, what: impl Future<Output = What> + Send + 'static) {
        let generation = self.generation;
        self.jobs.push(Box::pin(async move { Brought { generation, line, lane, what: what.await } }));
    }

    /// Ends a lane's first command.
    fn settle(&mut self, line: usize, lane: &LaneKey, ending: &Ending) -> Vec<Settled> {
        let Some(item) = self.lines[line].lanes.complete(lane) else { return Vec::new() };
        match item.route.on_failure {
            // A policy that halts the key would keep the lane's later commands from starting here.
            OnFailure::Skip => {}
        }
        let (topics, command) = (&item.route.topics, &item.command);
        let times = (item.first_seen_ms, (self.clock)());
        let (mut settled, result) = settle::ended(topics, &item.record, command, ending, times);
        if let Some(noted) = self.noted.get(&item.route.store) {
            noted.written(command, ending, times.1);
        }
        report(&item, ending);
        let name = (topics.ledger.clone(), command.id.clone());
        self.known.done(name, ending.outcome, result);
        settled.records.extend(self.outdated.drain(self.outdated.len().saturating_sub(MAX_FORGOTTEN)..));
        vec![settled]
    }
}

impl<S: Store, A: Append> Stage for Outgoing<S, A> {
    type Done = Brought;

    fn restore(&mut self, partition: &Partition, ledger: BTreeMap<String, Bytes>) {
        let Some((_, route)) = self.routes.get(&partition.topic) else { return };
        let now_ms = (self.clock)();
        let (outdated, ledger): (BTreeMap<_, _>, BTreeMap<_, _>) =
            ledger.into_iter().partition(|(key, value)| known::is_outdated(key, value, now_ms));
        let forgotten = outdated.into_keys().map(|key| route.topics.forgotten(partition, key));
        self.outdated.extend(forgotten);
        let entries = ledger.iter().map(|(key, value)| (key.as_str(), value));
        let strange = self.known.restore(&route.topics.ledger, entries);
        if strange > 0 {
            tracing::warn!(
                kafka.topic = %route.topics.ledger, entries = strange,
                "the ledger holds entries that this version cannot read; they are left alone"
            );
        }
    }

    fn accept(&mut self, record: InRecord, now: Instant) -> Vec<Settled> {
        self.now = Some(now);
        let Some((line, route)) = self.routes.get(&record.position.partition.topic) else {
            // Not settled, so that its offset is not committed: nothing is dropped silently.
            tracing::error!(kafka.topic = %record.position.partition.topic, "a record of a topic without a route");
            return Vec::new();
        };
        let (line, route, now_ms) = (*line, route.clone(), (self.clock)());
        match self.read(&route, &record) {
            Err(refusal) => vec![settle::refused(&route.topics, &record, &refusal, now_ms)],
            Ok(None) => vec![Settled { positions: vec![record.position], records: Vec::new() }],
            Ok(Some((command, plan))) => {
                let lane = match &record.key {
                    Some(key) => LaneKey::Key(route.topic.clone(), key.clone()),
                    None => LaneKey::Alone(record.position.clone()),
                };
                let plan = Some(plan);
                let item = Item { route, record, command, plan, applying: None, first_seen_ms: now_ms };
                self.lines[line].lanes.push(lane, item);
                Vec::new()
            }
        }
    }

    fn start(&mut self, now: Instant) -> Vec<Job<Brought>> {
        self.now = Some(now);
        for line in 0..self.lines.len() {
            while let Some(lane) = self.lines[line].lanes.start(now) {
                match self.lines[line].paused_until.filter(|until| *until > now) {
                    Some(until) => self.lines[line].lanes.sleep(&lane, until),
                    None => self.begin(line, lane, now),
                }
            }
        }
        std::mem::take(&mut self.jobs)
    }

    fn finish(&mut self, done: Brought, now: Instant) -> Vec<Settled> {
        self.now = Some(now);
        let Brought { generation, line, lane, what } = done;
        if generation != self.generation {
            return Vec::new();
        }
        let draw = rand::random();
        let applying = self.lines[line].lanes.head_mut(&lane).and_then(|item| item.applying.as_mut());
        let step = match (what, applying) {
            (What::Repeated { outcome, result }, _) => {
                let Some(item) = self.lines[line].lanes.complete(&lane) else { return Vec::new() };
                let (topics, id) = (&item.route.topics, &item.command.id);
                return vec![settle::repeated(topics, &item.record, id, outcome, result)];
            }
            (What::Ended(ending), _) => Step::End(ending),
            (What::Intent(durable), Some(applying)) => applying.on_intent(durable, now, draw),
            (What::Reply(reply), Some(applying)) => applying.on_reply(reply, now, draw),
            (What::Intent(_) | What::Reply(_), None) => return Vec::new(),
        };
        match step {
            Step::End(ending) => self.settle(line, &lane, &ending),
            step => {
                self.perform(line, lane, step, now);
                Vec::new()
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let ready = self.now.filter(|_| !self.jobs.is_empty());
        ready.or_else(|| self.lines.iter().filter_map(|line| line.lanes.wake_at()).min())
    }

    fn reset(&mut self) {
        self.generation += 1;
        self.jobs.clear();
        self.known = Known::default();
        self.outdated.clear();
        for line in &mut self.lines {
            line.lanes.clear();
            line.paused_until = None;
        }
    }
}

/// Whether a record was replayed on purpose from a dead-letter topic, and failed before: then it is tried again.
fn is_worth_a_replay(record: &InRecord, before: Outcome) -> bool {
    match before {
        Outcome::Applied | Outcome::Partial => false,
        Outcome::Rejected | Outcome::Dead | Outcome::Unknown => replay_count(record) > 0,
    }
}

/// Tells the log how a command ended; never what it holds.
fn report<S>(item: &Item<S>, ending: &Ending) {
    let Item { route, command, .. } = item;
    let reason = ending.reason.map_or("", |reason| reason.name());
    let (store, entity, action) = (&*route.store, &*command.entity.name, &*command.action().name);
    let (outcome, attempts) = (ending.outcome.name(), ending.attempts);
    match ending.outcome {
        Outcome::Unknown => tracing::error!(
            store.name = store, entity.kind = entity, action, outcome, reason, attempts, command.id = %command.id,
            "nobody knows whether a command was applied; a person must look"
        ),
        Outcome::Dead => tracing::warn!(
            store.name = store, entity.kind = entity, action, outcome, reason, attempts, command.id = %command.id,
            "a command was given up"
        ),
        Outcome::Applied | Outcome::Rejected | Outcome::Partial => tracing::debug!(
            store.name = store, entity.kind = entity, action, outcome, reason, attempts, command.id = %command.id,
            "a command ended"
        ),
    }
}
