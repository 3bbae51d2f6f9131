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
mod batch;
mod decisions;
mod decode;
mod dropped;
mod dry;
mod ended;
mod guard;
pub mod halts;
mod known;
pub mod notes;
mod outdated;
mod plan;
mod repeat;
mod route;
mod send;
mod settle;
mod share;
mod stand;
#[cfg(test)]
mod tests;
mod transform;
mod trial;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

pub use apply::Budget;
pub use decisions::{About, Decision, Decisions};
pub use decode::{Fixed, needed_ids};
pub use known::{is_ours, wanted};
pub use route::{Limits, OnFailure, OutgoingConfig, Route};
pub use settle::{Topics, header};
pub use stand::Standing;
pub use transform::{Mapping, To};
pub use trial::{Trial, trial};

use apply::{Applying, Ending, Step};
use batch::Outbox;
use decode::{Checked, Refusal};
use ended::Place;
use halts::Halts;
use known::{Known, State};
use notes::Noted;
use outdated::Outdated;
use plan::Plan;
use share::Share;

use crate::catalog::Catalog;
use crate::engine::lanes::Lanes;
use crate::model::command::Outcome;
use crate::model::dead_letter::FailedAt;
use crate::model::record::{InRecord, OutRecord, Partition, Position};
use crate::runtime::lease::Lease;
use crate::runtime::ports::{Append, Job, Recalled, Settled, Stage, Store};

/// Bytes that a command weighs beside its record, about: a cautious estimate of what is decoded and planned, not a measurement.
const WEIGHT: usize = 4 * 1024;

/// The wall clock, in milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Is told what stands still, whenever that changes.
pub type StandingWatch = Box<dyn Fn(&Standing) + Send + Sync>;

/// The outgoing path; see the module.
pub struct Outgoing<S, A> {
    routes: HashMap<Arc<str>, (usize, Arc<Route<S>>)>,
    lines: Vec<Line<S>>,
    known: Known,
    repeats: repeat::Repeats,
    outdated: Outdated,
    catalog: Arc<Catalog>,
    limits: Limits,
    /// By topic: how its last commands ended.
    shares: HashMap<Arc<str>, Share>,
    halts: Halts,
    decisions: Decisions,
    waiting: waiting::Waiting<S>,
    standing: stand::Told,
    /// The ledger's records of what goes on, until a job that was pushed for them ends.
    released: Vec<OutRecord>,
    /// When it was last looked whether keys may go on.
    looked: Option<Instant>,
    appender: Arc<A>,
    /// Where stores' writes are noted, by the store.
    noted: HashMap<Arc<str>, Noted>,
    clock: Clock,
    /// Counts assignments: what a job of an earlier one brings is nobody's.
    generation: u64,
    /// Under which requests are sent.
    lease: Lease,
    /// Made by `finish` and by `start`, handed out by `start`.
    jobs: Vec<Job<Brought>>,
    now: Option<Instant>,
}

/// One store's lanes.
struct Line<S> {
    store: Arc<str>,
    client: Arc<S>,
    /// What its lanes have to send.
    outbox: Outbox<LaneKey>,
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
    /// Why it may be, though its id came before.
    anew: Option<repeat::Anew>,
    /// What earlier requests that it shared came to.
    shared: send::Shared,
    first_seen_ms: i64,
}

/// What a job brings back.
#[derive(Debug)]
pub struct Brought {
    generation: u64,
    line: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A request has ended.
    Sent(send::Sent),
    /// A lane's first command has.
    Ended(LaneKey, Box<Ending>),
    /// A partition of a route goes on that stood still.
    Resumed(Partition),
    /// Something goes on, which the ledger must know.
    Released,
    /// The ledger told of ids that had ended before.
    LookedUp(repeat::Answers),
    /// A lane's first command had ended before.
    Repeated { lane: LaneKey, outcome: Outcome, result: Bytes },
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// The path, without any partition yet.
    pub fn new(config: OutgoingConfig<S>, appender: Arc<A>, clock: Clock) -> Self {
        let (mut routes, mut lines) = (HashMap::new(), Vec::<Line<S>>::new());
        let share = |route: &Route<S>| (route.topic.clone(), Share::new(route.stop_at));
        let shares = config.routes.iter().map(share).collect();
        for route in config.routes {
            let line = lines.iter().position(|line| line.store == route.store).unwrap_or_else(|| {
                let lanes = Lanes::new(config.limits.lanes);
                let outbox = Outbox::new(batch::Limits { requests: config.limits.requests });
                let (store, client) = (route.store.clone(), route.client.clone());
                lines.push(Line { store, client, outbox, lanes, paused_until: None });
                lines.len() - 1
            });
            routes.insert(route.topic.clone(), (line, Arc::new(route)));
        }
        Self {
            routes,
            lines,
            known: Known::default(),
            repeats: repeat::Repeats::new(config.ledger),
            outdated: Outdated::default(),
            catalog: config.catalog,
            limits: config.limits,
            shares,
            halts: Halts::default(),
            decisions: config.decisions,
            waiting: waiting::Waiting::default(),
            standing: stand::Told::default(),
            released: Vec::new(),
            looked: None,
            appender,
            noted: HashMap::new(),
            clock,
            generation: 0,
            lease: Lease::unbounded(),
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
        let applied = |line: &Line<S>| line.lanes.running() + line.outbox.commands_under_way();
        self.lines.iter().map(move |line| (&line.store, line.lanes.open(), applied(line)))
    }

    /// The command of a record, and how to apply it; none where there is nothing to apply.
    fn read(&self, route: &Route<S>, record: &InRecord) -> Result<Option<(Checked, Plan)>, Box<Refusal>> {
        let decoded = decode::decode(record, &self.catalog, route.fixed.as_ref(), &route.mapping)?;
        let Some(command) = decoded else { return Ok(None) };
        match plan::plan(&command) {
            Ok(plan) => Ok(Some((command, plan))),
            Err((reason, detail)) => Err(Box::new(Refusal {
                id: command.id.clone(),
                entity: Some(command.entity.name.clone()),
                action: Some(command.action().name.clone()),
                class: Some(command.action().class),
                reason,
                stage: FailedAt::Value,
                detail,
            })),
        }
    }

    /// Takes a record of a route that does not stand still.
    fn take(&mut self, record: InRecord) -> Vec<Settled> {
        let Some((line, route)) = self.routes.get(&record.position.partition.topic) else {
            // Not settled, so that its offset is not committed: nothing is dropped silently.
            tracing::error!(kafka.topic = %record.position.partition.topic, "a record of a topic without a route");
            return Vec::new();
        };
        let (line, route, now_ms) = (*line, route.clone(), (self.clock)());
        match self.read(&route, &record) {
            Err(refusal) => {
                // On a topic of whole commands each is one sender's mistake; on a mapped one it is the settings' or all's.
                let mut settled = settle::refused(&route.topics, &record, &refusal, now_ms);
                if !route.is_of_commands() {
                    let of = (&record.position, &*refusal.id);
                    settled.records.extend(self.count(&route, of, true, now_ms));
                }
                vec![settled]
            }
            Ok(None) => vec![Settled { positions: vec![record.position], records: Vec::new() }],
            Ok(Some((command, plan))) if route.dry_run => {
                let name = (route.topics.ledger.clone(), command.id.clone());
                let is_known = self.known.get(&name, now_ms).is_some();
                vec![dry::settled(&route.topics, &record, &command, &plan, is_known)]
            }
            Ok(Some((command, plan))) => {
                let lane = match &record.key {
                    Some(key) => LaneKey::Key(route.topic.clone(), key.clone()),
                    None => LaneKey::Alone(record.position.clone()),
                };
                let plan = Some(plan);
                let (applying, anew, shared) = (None, None, send::Shared::default());
                let item =
                    Item { route, record, command, plan, applying, anew, shared, first_seen_ms: now_ms };
                self.queue(line, lane, item);
                Vec::new()
            }
        }
    }

    /// The first step of a lane's first command, or the next one after a wait.
    fn begin(&mut self, line: usize, lane: LaneKey, now: Instant) {
        if !self.may_begin(line, &lane, now) {
            return;
        }
        let Some(item) = self.lines[line].lanes.head_mut(&lane) else { return };
        if let Some(applying) = &mut item.applying {
            let step = applying.step();
            return self.perform(line, lane, step, now);
        }
        if !self.is_new(line, &lane, now) {
            return;
        }
        let Some(item) = self.lines[line].lanes.head_mut(&lane) else { return };
        let intent_found = self.known.open(item.name()) == Some(State::Intent);
        let Some(applying) = item.applying(self.limits.budget, intent_found) else { return };
        let step = applying.step();
        self.perform(line, lane, step, now);
    }

    fn perform(&mut self, line: usize, lane: LaneKey, step: Step, now: Instant) {
        match step {
            Step::Send(request, part) => self.offer(line, lane, (request, part), now),
            Step::Wait(wait) => self.lines[line].lanes.sleep(&lane, now + wait),
            Step::Pause(wait) => {
                let line = &mut self.lines[line];
                if line.paused_until.is_none_or(|until| until <= now) {
                    tracing::error!(store.name = %line.store, "the store does not take the access token; its commands wait");
                }
                line.paused_until = Some(now + wait);
                line.lanes.sleep(&lane, now + wait);
            }
            Step::End(ending) => self.push_job(line, std::future::ready(What::Ended(lane, ending))),
        }
    }

    fn push_job(&mut self, line: usize, what: impl Future<Output = What> + Send + 'static) {
        let generation = self.generation;
        self.jobs.push(Box::pin(async move { Brought { generation, line, what: what.await } }));
    }

    /// Draws the consequence of what became of a lane's first command.
    fn proceed(&mut self, line: usize, lane: LaneKey, step: Step, now: Instant) -> Vec<Settled> {
        match step {
            Step::End(ending) => self.settle(line, &lane, &ending),
            step => {
                self.perform(line, lane, step, now);
                Vec::new()
            }
        }
    }

    /// Ends a lane's first command.
    fn settle(&mut self, line: usize, lane: &LaneKey, ending: &Ending) -> Vec<Settled> {
        let Some(item) = self.lines[line].lanes.complete(lane) else { return Vec::new() };
        let (topics, command) = (&item.route.topics, &item.command);
        let times = (item.first_seen_ms, (self.clock)());
        let (mut settled, result) = settle::ended(topics, &item.record, command, ending, times);
        if let Some(noted) = self.noted.get(&item.route.store) {
            noted.written(command, ending, times.1);
        }
        report(&item, ending);
        settled.records.extend(self.stand(&item, ending, times.1));
        let topics = &item.route.topics;
        let position = item.record.position.clone();
        let place = Place::new(topics.ledger_partition(&position.partition), times.1);
        settled.records.extend(self.outdated.take(&position));
        self.known.done(item.name(), place, position, (ending.outcome, result));
        vec![settled]
    }
}

impl<S: Store, A: Append> Stage for Outgoing<S, A> {
    type Done = Brought;

    fn weight(&self) -> usize {
        WEIGHT
    }

    fn restore(&mut self, partition: &Partition, mut ledger: Recalled) {
        let Some((_, route)) = self.routes.get(&partition.topic) else { return };
        let now_ms = (self.clock)();
        let (outdated, values): (BTreeMap<_, _>, BTreeMap<_, _>) = ledger
            .values
            .into_iter()
            .partition(|(key, value)| value.is_empty() || known::is_outdated(key, value, now_ms));
        ledger.values = values;
        let forgotten = outdated.into_keys().map(|key| route.topics.forgotten(partition, key));
        self.outdated.extend(forgotten);
        let number = route.topics.ledger_partition(partition);
        let (route, known) = (route.clone(), self.known.restore(&route.topics.ledger, number, &mut ledger));
        let strange = known + self.restore_standing(partition, &ledger.values, now_ms);
        if strange > 0 {
            tracing::warn!(
                kafka.topic = %route.topics.ledger, entries = strange,
                "the ledger holds entries that this version cannot read; they are left alone"
            );
        }
    }

    fn accept(&mut self, record: InRecord, now: Instant) -> Vec<Settled> {
        self.now = Some(now);
        self.keep(record).map_or_else(Vec::new, |record| self.take(record))
    }

    fn start(&mut self, now: Instant) -> Vec<Job<Brought>> {
        self.now = Some(now);
        self.resume();
        self.release(now);
        self.tell_standing();
        for line in 0..self.lines.len() {
            while let Some(lane) = self.lines[line].lanes.start(now) {
                match self.lines[line].paused_until.filter(|until| *until > now) {
                    Some(until) => self.lines[line].lanes.sleep(&lane, until),
                    None => self.begin(line, lane, now),
                }
            }
            self.dispatch(line, now);
        }
        self.look_up();
        std::mem::take(&mut self.jobs)
    }

    fn finish(&mut self, done: Brought, now: Instant) -> Vec<Settled> {
        self.now = Some(now);
        let Brought { generation, line, what } = done;
        if generation != self.generation {
            return Vec::new();
        }
        match what {
            What::Sent(sent) => self.on_sent(line, sent, now),
            What::Ended(lane, ending) => self.settle(line, &lane, &ending),
            What::Resumed(partition) => self.admit(line, partition),
            What::Released => self.settle_released(),
            What::LookedUp(answers) => self.on_looked_up(answers, now),
            What::Repeated { lane, outcome, result } => {
                let Some(item) = self.lines[line].lanes.complete(&lane) else { return Vec::new() };
                let (topics, id) = (&item.route.topics, &item.command.id);
                vec![settle::repeated(topics, &item.record, id, outcome, result)]
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let ready = self.now.filter(|_| !self.jobs.is_empty());
        let of_line =
            |line: &Line<S>| [line.lanes.wake_at(), line.sends_at(self.now)].into_iter().flatten().min();
        ready.or_else(|| self.lines.iter().filter_map(of_line).chain(self.looks_at()).min())
    }

    fn committed(&mut self, positions: &[Position]) {
        self.known.committed(positions);
        self.outdated.committed(positions);
    }

    fn reset(&mut self) {
        self.generation += 1;
        self.jobs.clear();
        self.known = Known::default();
        self.repeats.clear();
        self.outdated.clear();
        self.forget_standing();
        for line in &mut self.lines {
            line.lanes.clear();
            line.outbox.clear();
            line.paused_until = None;
        }
    }

    fn owner_note(&self, partition: &Partition, note: Bytes) -> Option<OutRecord> {
        let (_, route) = self.routes.get(&partition.topic)?;
        Some(route.topics.owner_note(partition, note))
    }

    fn lease(&mut self, lease: Lease) {
        self.lease = lease;
    }

    /// Intents of what was not sent after all: the next owner would take them for doubts.
    fn hand_over(&mut self) -> Vec<OutRecord> {
        let begun = self.lines.iter().flat_map(|line| line.lanes.heads()).chain(self.waiting.heads());
        let unsent = begun.filter(|item| item.applying.as_ref().is_some_and(Applying::is_unsent));
        unsent.map(Item::forgotten).collect()
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
        Outcome::Applied | Outcome::Rejected | Outcome::Partial | Outcome::DryRun => tracing::debug!(
            store.name = store, entity.kind = entity, action, outcome, reason, attempts, command.id = %command.id,
            "a command ended"
        ),
    }
}
