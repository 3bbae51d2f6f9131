//! What stands still, and for how long: keys whose command failed where the route says so, and routes of which too many
//! commands failed.
//!
//! Commands of what stands still wait outside the lanes (`waiting`): none is answered, none is lost, and no other key or
//! route waits for them. A person ends it (`decisions`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{Applying, Ending};
use super::decisions::About;
use super::halts::{self, Entry, Moment, Verdict, Written};
use super::share::Share;
use super::{Item, LaneKey, Line, OnFailure, Outgoing, Route, StandingWatch, What};
use bytes::Bytes;

use crate::model::command::Outcome;
use crate::model::record::{OutRecord, Partition, Position};
use crate::runtime::ports::{Append, Settled, Store};

/// How long after a person's decision it is acted on, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Keys that one transaction lets go on, at most: a small part of it.
const MAX_RELEASED: usize = 100;

/// Who is told what stands still, and what was told last.
#[derive(Default)]
pub(super) struct Told {
    watch: Option<StandingWatch>,
    last: Standing,
}

/// What stands still, of the partitions that are ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The topics of the routes.
    pub routes: BTreeSet<Arc<str>>,
    /// How many keys.
    pub keys: usize,
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// Tells which routes and how many keys stand still, from now on.
    pub fn watch_standing(&mut self, watch: StandingWatch) {
        self.standing.watch = Some(watch);
    }

    /// Tells what stands still, if that changed.
    pub(super) fn tell_standing(&mut self) {
        let now = self.standing();
        if self.standing.last == now {
            return;
        }
        if let Some(watch) = &self.standing.watch {
            watch(&now);
        }
        self.standing.last = now;
    }

    /// Takes what the ledger holds of what stands still. Returns how many entries cannot be read.
    pub(super) fn restore_standing(
        &mut self,
        partition: &Partition,
        ledger: &BTreeMap<String, Bytes>,
        now_ms: i64,
    ) -> usize {
        let strange = self.halts.restore(partition, ledger, now_ms);
        if self.shares.get(&partition.topic).is_some_and(Share::is_off) {
            // The settings are a decision as well.
            let ended = self.halts.resume(|of, _| of == partition, now_ms);
            self.halts_over(ended.into_iter().map(|(of, (key, _))| (of, key)).collect());
        }
        let over = self.halts.over();
        self.halts_over(over);
        strange
    }

    /// Lets the ledger forget entries, with the next transactions.
    fn halts_over(&mut self, over: Vec<(Partition, String)>) {
        let forgotten = over.into_iter().filter_map(|(partition, key)| {
            let (_, route) = self.routes.get(&partition.topic)?;
            Some(route.topics.forgotten(&partition, key))
        });
        self.outdated.extend(forgotten);
    }

    /// Forgets what stands still: the partitions are not ours any more.
    pub(super) fn forget_standing(&mut self) {
        self.halts.clear();
        self.released.clear();
        self.waiting.clear();
        self.shares.values_mut().for_each(Share::leave);
        self.tell_standing();
    }

    /// Whether a lane's first command may be begun, or go on. If not, it is set aside with what is behind it, or it is
    /// about to end.
    pub(super) fn may_begin(&mut self, line: usize, lane: &LaneKey, now: Instant) -> bool {
        let Some(item) = self.lines[line].lanes.head_mut(lane) else { return false };
        if may_wait(item) && self.halts.is_stopped(&item.record.position.partition) {
            self.set_aside(line, lane);
            return false;
        }
        if item.applying.is_some() {
            return true;
        }
        match self.halts.judge(&item.record) {
            Verdict::Free => {
                let over = self.halts.over();
                self.halts_over(over);
                true
            }
            Verdict::Waits => {
                self.set_aside(line, lane);
                false
            }
            Verdict::Dropped(by) => {
                self.drop_first(line, lane, &by, now);
                false
            }
        }
    }

    /// Takes a request back, before it is sent, whose commands are all of routes that stopped since they were begun.
    pub(super) fn take_back(&mut self, line: usize, number: u64, now: Instant) -> bool {
        let Line { lanes, outbox, .. } = &mut self.lines[line];
        let halts = &self.halts;
        let stands = |item: &Item<S>| may_wait(item) && halts.is_stopped(&item.record.position.partition);
        let waits = |lane| lanes.head_mut(lane).is_some_and(|item| stands(item));
        if !outbox.lanes_of(number).all(waits) {
            return false;
        }
        for member in outbox.ended(number, super::batch::Came::Nothing, now) {
            let Line { lanes, .. } = &mut self.lines[line];
            if let Some(applying) = lanes.head_mut(&member.lane).and_then(|item| item.applying.as_mut()) {
                applying.withdraw();
            }
            self.set_aside(line, &member.lane);
        }
        true
    }

    /// What the end of a command means for its key and for its route; the records that say so.
    pub(super) fn stand(&mut self, item: &Item<S>, ending: &Ending, now_ms: i64) -> Vec<OutRecord> {
        // Whatever becomes of what a person dropped, it was decided about.
        let is_dropped = self.halts.is_dropped(&item.record);
        let has_failed = matches!(ending.outcome, Outcome::Rejected | Outcome::Dead);
        let (position, id) = (&item.record.position, &item.command.id);
        let mut records = self.count(&item.route, (position, id), has_failed && !is_dropped, now_ms);
        let is_halting = match item.route.on_failure {
            OnFailure::Skip => false,
            OnFailure::HaltKey => {
                !is_dropped && !matches!(ending.outcome, Outcome::Applied | Outcome::DryRun)
            }
        };
        if !is_halting {
            return records;
        }
        let reason = ending.reason.map_or("applied in part", |reason| reason.name());
        let why = format!("{}: {reason}", ending.outcome.name());
        let moment = self.moment(now_ms);
        let Some(written) = self.halts.halt(&item.record, id, why, moment) else {
            return records;
        };
        tracing::error!(
            store.name = &*item.route.store, kafka.topic = &*item.route.topic, command.id = %item.command.id, reason,
            "a command failed and its key stands still; `bcbridge halted` shows it and lets it go on"
        );
        records.push(self.stood(&item.route, &position.partition, written));
        let keys = self.halts.keys();
        if keys >= self.limits.halted_keys {
            let why = format!("{keys} keys stand still, as many as may");
            records.extend(self.stop(&item.route, (position, id), &why, now_ms));
        }
        records
    }

    /// The ledger's record of something that stands still now.
    fn stood(&mut self, route: &Route<S>, partition: &Partition, (key, value): Written) -> OutRecord {
        let record = OutRecord { value: Some(value), ..route.topics.forgotten(partition, key) };
        // The end of an earlier time that is not written yet would come after this one, and undo it.
        self.released.retain(|later| later.key != record.key);
        self.outdated.keep(&record);
        record
    }

    fn moment(&self, at_ms: i64) -> Moment {
        Moment { at_ms, decided_from: self.decisions.next() }
    }

    /// Counts the end of a command of a route, which may stop the route; the ledger's records of that.
    pub(super) fn count(
        &mut self,
        route: &Route<S>,
        (position, id): (&Position, &str),
        has_failed: bool,
        now_ms: i64,
    ) -> Vec<OutRecord> {
        let Some(share) = self.shares.get_mut(&route.topic) else { return Vec::new() };
        if !share.ended(has_failed) {
            return Vec::new();
        }
        let (last, failed) = share.counts();
        self.stop(route, (position, id), &format!("{failed} of the last {last} commands failed"), now_ms)
    }

    /// Stops a route, behind the command of this place and id; the ledger's records of that.
    fn stop(
        &mut self,
        route: &Route<S>,
        (position, id): (&Position, &str),
        why: &str,
        now_ms: i64,
    ) -> Vec<OutRecord> {
        let moment = self.moment(now_ms);
        let stopped = self.halts.stop(position, id, why, moment);
        if !stopped.is_empty() {
            tracing::error!(
                store.name = &*route.store,
                kafka.topic = &*route.topic,
                why,
                "a route stands still until `bcbridge halted release --route`"
            );
        }
        stopped.into_iter().map(|(partition, written)| self.stood(route, &partition, written)).collect()
    }

    /// Lets routes go on of which a person said so since they stopped.
    pub(super) fn resume(&mut self) {
        let is_decided = |partition: &Partition, entry: &Entry| {
            let Some((_, route)) = self.routes.get(&partition.topic) else { return false };
            let about = About::Route(partition.topic.to_string());
            self.decisions.since(&route.store, &about, entry.decided_from, entry.at_ms).is_some()
        };
        let resumed = self.halts.resume(is_decided, (self.clock)());
        for (partition, (key, value)) in resumed {
            let Some((line, route)) = self.routes.get(&partition.topic) else { continue };
            let (line, number) = (*line, partition.number);
            tracing::info!(
                store.name = &*route.store,
                kafka.topic = &*route.topic,
                number,
                "a route goes on"
            );
            self.released.push(OutRecord { value: Some(value), ..route.topics.forgotten(&partition, key) });
            self.shares.entry(partition.topic.clone()).and_modify(Share::go_on);
            self.take_up_all(line, &partition);
            self.push_job(line, std::future::ready(What::Resumed(partition)));
            self.push_job(line, std::future::ready(What::Released));
        }
    }

    /// Lets keys go on of which a person said so since they halted, whether or not commands of theirs wait.
    pub(super) fn release(&mut self, now: Instant) {
        if self.halts.keys() == 0 || self.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        self.looked = Some(now);
        let decided = |entry: &Entry| {
            let (_, route) = self.routes.get(entry.topic.as_str())?;
            let about = About::Command(entry.command.clone());
            self.decisions.since(&route.store, &about, entry.decided_from, entry.at_ms)
        };
        let released = self.halts.release(decided, (self.clock)());
        for (entry, (key, value)) in &released {
            let Some((line, route)) = self.routes.get(entry.topic.as_str()) else { continue };
            tracing::info!(store.name = &*route.store, kafka.topic = &*route.topic, command.id = %entry.command, "a key goes on");
            let partition = Partition { topic: route.topic.clone(), number: entry.partition };
            let record =
                OutRecord { value: Some(value.clone()), ..route.topics.forgotten(&partition, key.clone()) };
            self.released.push(record);
            if let Some(halts::About::Key(topic, of)) = halts::about(key) {
                self.take_up(*line, &LaneKey::Key(topic, of));
            }
        }
        if !released.is_empty() {
            self.push_job(0, std::future::ready(What::Released));
        }
    }

    /// The ledger's records of what goes on: no command waits for them to be written. What comes after them is written
    /// after them; so from then on the ledger may forget them, where they do not say what is dropped.
    pub(super) fn settle_released(&mut self) -> Vec<Settled> {
        let records = std::mem::take(&mut self.released);
        let is_over = |record: &&OutRecord| {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            key.is_some_and(|key| !self.halts.is_dropping(key))
        };
        let over = records.iter().filter(is_over).map(|record| OutRecord { value: None, ..record.clone() });
        self.outdated.extend(over);
        let settled = |records: &[OutRecord]| Settled { positions: Vec::new(), records: records.to_vec() };
        records.chunks(MAX_RELEASED).map(settled).collect()
    }

    /// When to look whether what stands still may go on.
    pub(super) fn looks_at(&self) -> Option<Instant> {
        self.now.filter(|_| !self.halts.is_empty()).map(|now| now + LOOK)
    }

    /// What stands still.
    pub fn standing(&self) -> Standing {
        Standing { routes: self.halts.stopped().cloned().collect(), keys: self.halts.keys() }
    }
}

/// Whether nothing of a command was sent that must be followed up.
fn may_wait<S>(item: &Item<S>) -> bool {
    item.applying.as_ref().is_none_or(Applying::is_fresh)
}
