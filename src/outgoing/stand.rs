//! What stands still, and for how long: keys whose command failed where the route says so, and routes of which too many
//! commands failed.
//!
//! A key that stands still keeps its commands in their lane, a route that does so those that come as well; none is
//! answered, none is lost, and no other key or route waits for them. A person ends it (`decisions`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{Applying, Ending};
use super::decisions::About;
use super::halts::{Entry, Verdict, Written};
use super::share::Share;
use super::{Item, LaneKey, Line, OnFailure, Outgoing, Route, StandingWatch, What};
use crate::catalog::Class;
use crate::model::command::Outcome;
use crate::model::reason::Reason;
use crate::model::record::{InRecord, OutRecord, Partition};
use crate::runtime::ports::{Append, Settled, Store};

/// How long after a person's decision it is acted on, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Keys that one transaction lets go on, at most: a small part of it.
const MAX_RELEASED: usize = 100;

/// What came for a route while it stood still. Bounded by what the runner lets be open of its partitions.
pub(super) type Waiting = VecDeque<InRecord>;

/// Who is told what stands still, and what was told last.
#[derive(Default)]
pub(super) struct Told {
    watch: Option<StandingWatch>,
    last: (usize, usize),
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// Tells how many routes and keys stand still, from now on.
    pub fn watch_standing(&mut self, watch: StandingWatch) {
        self.standing.watch = Some(watch);
    }

    /// Tells what stands still, if that changed.
    pub(super) fn tell_standing(&mut self) {
        let now = self.standing();
        if std::mem::replace(&mut self.standing.last, now) != now
            && let Some(watch) = &self.standing.watch
        {
            watch(now.0, now.1);
        }
    }

    /// Whether a lane's first command may be begun, or go on. If not, the lane sleeps, or the command is about to end.
    pub(super) fn may_begin(&mut self, line: usize, lane: &LaneKey, now: Instant) -> bool {
        let Some(item) = self.lines[line].lanes.head_mut(lane) else { return false };
        if may_wait(item) && stands(&self.shares, item) {
            self.lines[line].lanes.sleep(lane, now + LOOK);
            return false;
        }
        if item.applying.is_some() {
            return true;
        }
        match self.halts.judge(&item.record) {
            Verdict::Free => true,
            Verdict::Waits => {
                self.lines[line].lanes.sleep(lane, now + LOOK);
                false
            }
            Verdict::Dropped(by) => {
                let class = item.plan.as_ref().map_or(Class::C, |plan| plan.class);
                let ending = Box::new(dropped(&by, class));
                self.push_job(line, std::future::ready(What::Ended(lane.clone(), ending)));
                false
            }
        }
    }

    /// Takes a request back, before it is sent, whose commands are all of routes that stopped since they were begun.
    pub(super) fn take_back(&mut self, line: usize, number: u64, now: Instant) -> bool {
        let Line { lanes, outbox, .. } = &mut self.lines[line];
        let waits =
            |lane| lanes.head_mut(lane).is_some_and(|item| may_wait(item) && stands(&self.shares, item));
        if !outbox.lanes_of(number).all(waits) {
            return false;
        }
        for member in outbox.ended(number, super::batch::Came::Nothing, now) {
            if let Some(applying) = lanes.head_mut(&member.lane).and_then(|item| item.applying.as_mut()) {
                applying.withdraw();
            }
            lanes.sleep(&member.lane, now + LOOK);
        }
        true
    }

    /// What the end of a command means for its key and for its route; the records that say so.
    pub(super) fn stand(&mut self, item: &Item<S>, ending: &Ending, now_ms: i64) -> Vec<OutRecord> {
        let is_dropped = ending.reason == Some(Reason::Dropped);
        let has_failed = matches!(ending.outcome, Outcome::Rejected | Outcome::Dead);
        self.count(&item.route, has_failed && !is_dropped, now_ms);
        let is_halting = match item.route.on_failure {
            OnFailure::Skip => false,
            OnFailure::HaltKey => {
                !is_dropped && !matches!(ending.outcome, Outcome::Applied | Outcome::DryRun)
            }
        };
        if !is_halting {
            return Vec::new();
        }
        let reason = ending.reason.map_or("applied in part", |reason| reason.name());
        let why = format!("{}: {reason}", ending.outcome.name());
        let Some(written) = self.halts.halt(&item.record, &item.command.id, why, now_ms) else {
            return Vec::new();
        };
        tracing::error!(
            store.name = &*item.route.store, kafka.topic = &*item.route.topic, command.id = %item.command.id, reason,
            "a command failed and its key stands still; `bcbridge halted` shows it and lets it go on"
        );
        let record = ledger_record(item, written);
        // A release of the key that is not written yet would come after this halt, and undo it.
        self.released.retain(|later| later.key != record.key);
        vec![record]
    }

    /// Counts the end of a command of a route, which may stop the route.
    pub(super) fn count(&mut self, route: &Route<S>, has_failed: bool, now_ms: i64) {
        let Some(share) = self.shares.get_mut(&route.topic) else { return };
        if share.ended(has_failed, now_ms) {
            tracing::error!(
                store.name = &*route.store,
                kafka.topic = &*route.topic,
                "too many of the last commands ended as dead letters: the route stands still until \
                 `bcbridge halted release --route`, or a restart"
            );
        }
    }

    /// Keeps a record of a route that stands still, or of which earlier records are still kept; gives it back else.
    pub(super) fn keep(&mut self, record: InRecord) -> Option<InRecord> {
        let topic = &record.position.partition.topic;
        let stands = self.shares.get(topic).is_some_and(|share| share.stopped_ms().is_some());
        if stands || self.waiting.contains_key(topic) {
            self.waiting.entry(topic.clone()).or_default().push_back(record);
            return None;
        }
        Some(record)
    }

    /// Lets routes go on of which a person said so since they stopped.
    pub(super) fn resume(&mut self) {
        let mut resumed = Vec::new();
        for (topic, share) in &mut self.shares {
            let (Some(since), Some((line, route))) = (share.stopped_ms(), self.routes.get(topic)) else {
                continue;
            };
            let decision = self.decisions.about(&route.store, &About::Route(topic.to_string()));
            if decision.is_some_and(|decision| decision.at_ms >= since) {
                tracing::info!(store.name = &*route.store, kafka.topic = &**topic, "a route goes on");
                share.go_on();
                resumed.push((*line, topic.clone()));
            }
        }
        for (line, topic) in resumed {
            self.push_job(line, std::future::ready(What::Resumed(topic)));
        }
    }

    /// Lets keys go on of which a person said so since they halted, whether or not commands of theirs wait.
    pub(super) fn release(&mut self, now: Instant) {
        if self.halts.len() == 0 || self.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        self.looked = Some(now);
        let decided = |entry: &Entry| {
            let (_, route) = self.routes.get(entry.topic.as_str())?;
            self.decisions.about(&route.store, &About::Command(entry.command.clone()))
        };
        let released = self.halts.release(decided, (self.clock)());
        for (entry, (key, value)) in &released {
            let Some((_, route)) = self.routes.get(entry.topic.as_str()) else { continue };
            tracing::info!(store.name = &*route.store, kafka.topic = &*route.topic, command.id = %entry.command, "a key goes on");
            let partition = Partition { topic: route.topic.clone(), number: entry.partition };
            let record =
                OutRecord { value: Some(value.clone()), ..route.topics.forgotten(&partition, key.clone()) };
            self.released.push(record);
        }
        if !released.is_empty() {
            self.push_job(0, std::future::ready(What::Released));
        }
    }

    /// The ledger's records of keys that go on: no command waits for them to be written.
    pub(super) fn settle_released(&mut self) -> Vec<Settled> {
        let records = std::mem::take(&mut self.released);
        let settled = |records: &[OutRecord]| Settled { positions: Vec::new(), records: records.to_vec() };
        records.chunks(MAX_RELEASED).map(settled).collect()
    }

    /// Takes what waited for a route, in order.
    pub(super) fn admit(&mut self, topic: &Arc<str>) -> Vec<Settled> {
        let waiting = self.waiting.remove(topic).unwrap_or_default();
        waiting.into_iter().flat_map(|record| self.take(record)).collect()
    }

    /// When to look whether what stands still may go on.
    pub(super) fn looks_at(&self) -> Option<Instant> {
        self.now.filter(|_| self.standing() != (0, 0)).map(|now| now + LOOK)
    }

    /// What stands still: routes, and keys.
    pub fn standing(&self) -> (usize, usize) {
        let routes = self.shares.values().filter(|share| share.stopped_ms().is_some()).count();
        (routes, self.halts.len())
    }
}

/// Whether nothing of a command was sent that must be followed up.
fn may_wait<S>(item: &Item<S>) -> bool {
    item.applying.as_ref().is_none_or(Applying::is_fresh)
}

fn stands<S>(shares: &HashMap<Arc<str>, Share>, item: &Item<S>) -> bool {
    shares.get(&item.route.topic).is_some_and(|share| share.stopped_ms().is_some())
}

fn ledger_record<S>(item: &Item<S>, (key, value): Written) -> OutRecord {
    let topics = &item.route.topics;
    OutRecord { value: Some(value), ..topics.forgotten(&item.record.position.partition, key) }
}

fn dropped(by: &str, class: Class) -> Ending {
    Ending {
        outcome: Outcome::Rejected,
        reason: Some(Reason::Dropped),
        detail: Some(format!("a person dropped it; it waited behind {by:?}, which had failed")),
        last: None,
        found: None,
        found_id: None,
        attempts: 0,
        class,
    }
}
