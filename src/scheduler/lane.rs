//! What the leader does for one store: which scans run, what each waits for, and what is asked next.
//!
//! Bounded: scans at once, one request in flight for each, ids remembered for each (see `seen`). Held back: while the
//! intake is behind, so that live callbacks are not buried under hints; while the token is not valid; while a page is
//! refused for now. A store in trouble holds up no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::cursor::Ask;
use super::page;
use super::plan::{Entry, StorePlan};
use super::ports::{Looked, Topics, Upkeep};
use super::read::{Read, published, vanished};
use super::scan::{Frame, Kind, Level, Mode, Scan};
use super::schedule::{Marks, Slot};
use super::seen::Ids;
use super::stage::{Deps, Done, What};
use super::state::{HookState, Ledger, Run, Saved, StoreState};
use crate::incoming::settings::EntitySettings;
use crate::model::request::Request;
use crate::runtime::ports::{Job, Settled, Store};

/// Polls, sweeps and repairs under way at once.
const MAX_SCANS: usize = 4;
/// Entities of snapshots at once: one that waits for its page leaves the other at work.
pub(super) const MAX_SNAPSHOTS: usize = 2;
/// The time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Monotonic.
    pub now: Instant,
    /// Unix milliseconds.
    pub wall_ms: i64,
}

/// A scan that runs.
#[derive(Debug)]
pub(super) struct Active {
    /// Its state.
    pub saved: Saved,
    /// A job of it is under way.
    pub is_busy: bool,
    /// Not to be asked before.
    pub not_before: Option<Instant>,
    /// Tries of the page that comes next.
    pub attempts: u32,
    /// The ids that it met, where they are compared.
    pub met: Ids,
    /// Under which page numbers these stand in the ledger.
    pub met_pages: Vec<u64>,
    /// The ids that were published when it began, where only others are hinted at.
    pub known: Option<Arc<Ids>>,
}

impl Active {
    pub(super) fn new(saved: Saved) -> Self {
        Self {
            saved,
            is_busy: false,
            not_before: None,
            attempts: 0,
            met: Ids::default(),
            met_pages: Vec::new(),
            known: None,
        }
    }

    pub(super) fn scan(&self) -> &Scan {
        &self.saved.scan
    }
}

/// The work of one store.
pub(super) struct Lane<S> {
    pub(super) plan: Arc<StorePlan<S>>,
    pub(super) ledger: Ledger,
    pub(super) notifications: Arc<str>,
    pub(super) marks: BTreeMap<String, Marks>,
    pub(super) scans: BTreeMap<String, Active>,
    pub(super) runs: BTreeMap<String, Run>,
    pub(super) backlog: Backlog,
    pub(super) closed_until: Option<Instant>,
    pub(super) refusals: u32,
    /// Entities that were met for the first time, to be written down.
    pub(super) is_anchored: bool,
    hooks: Option<HookState>,
    look_at: Option<Instant>,
    is_looking: bool,
    is_reading_notes: bool,
}

impl<S: Store> Lane<S> {
    /// Takes up the work where the ledger says that it was left.
    pub(super) fn new(plan: Arc<StorePlan<S>>, notifications: Arc<str>, state: StoreState) -> Self {
        let StoreState { marks, scans, runs, mut seen, hooks } = state;
        let active = |(id, saved): (String, Saved)| {
            let mut active = Active::new(saved);
            for (page, hashes) in seen.remove(&id).unwrap_or_default() {
                active.met.add(hashes);
                active.met_pages.push(page);
            }
            (id, active)
        };
        let scans = scans.into_iter().map(active).collect();
        Self {
            ledger: Ledger { store: plan.name.clone(), topic: plan.ledger.clone() },
            plan,
            notifications,
            marks,
            scans,
            runs,
            backlog: Backlog::default(),
            closed_until: None,
            refusals: 0,
            is_anchored: false,
            hooks,
            look_at: None,
            is_looking: false,
            is_reading_notes: false,
        }
    }

    /// The jobs that may start now.
    pub(super) fn start<K: Topics, U: Upkeep>(&mut self, at: Moment, deps: &Deps<K, U>) -> Vec<Job<Done>> {
        let mut jobs: Vec<Job<Done>> = Vec::new();
        let store = self.plan.name.clone();
        if !self.is_anchored {
            self.is_anchored = true;
            let done = Done { store: store.clone(), what: What::Anchor };
            jobs.push(Box::pin(std::future::ready(done)));
        }
        self.look(at, deps, &mut jobs);
        self.begin_due(at);
        self.begin_waiting(at);
        deps.meter.running(&store, self.scans.len());
        if self.closed_until.is_some_and(|until| until > at.now) {
            return jobs;
        }
        let ready = self.ready(at);
        if ready.is_empty() {
            return jobs;
        }
        self.ask_backlog(at, deps, &mut jobs);
        for id in ready {
            if self.has_place(&id) {
                jobs.extend(self.next_job(&id, at, deps));
            }
        }
        jobs
    }

    /// The scans that wait for nothing: polls first, then by age.
    fn ready(&self, at: Moment) -> Vec<String> {
        let mut ready: Vec<&Active> = self.scans.values().filter(|active| self.may_go(active, at)).collect();
        ready.sort_by_key(|active| (active.scan().kind, active.scan().started_ms));
        ready.into_iter().map(|active| active.scan().id.clone()).collect()
    }

    /// Whether one more of its kind may be under way.
    fn has_place(&self, id: &str) -> bool {
        let is_snapshot = |active: &Active| active.scan().kind == Kind::Snapshot;
        let Some(kind) = self.scans.get(id).map(is_snapshot) else { return false };
        let busy = self.scans.values().filter(|active| active.is_busy && is_snapshot(active) == kind).count();
        busy < if kind { MAX_SNAPSHOTS } else { MAX_SCANS }
    }

    fn may_go(&self, active: &Active, at: Moment) -> bool {
        !active.is_busy
            && active.not_before.is_none_or(|until| until <= at.now)
            && !self.rests(active)
            && self.plan.entries.get(&active.scan().entity).is_some_and(|entry| entry.levels.is_some())
    }

    /// What a scan does next, unless it has to wait.
    fn next_job<K: Topics, U: Upkeep>(
        &mut self,
        id: &str,
        at: Moment,
        deps: &Deps<K, U>,
    ) -> Option<Job<Done>> {
        let has_room = self.backlog.has_room(at.now);
        let plan = self.plan.clone();
        let active = self.scans.get_mut(id)?;
        let entry = plan.entries.get(&active.scan().entity)?;
        let (store, id) = (plan.name.clone(), id.to_owned());
        let topics = deps.topics.clone();
        let entity = active.scan().entity.clone();
        let mode = active.scan().mode;
        if mode == Mode::Ids && active.known.is_none() {
            // One at a time: it reads the whole ledger.
            if std::mem::replace(&mut self.is_reading_notes, true) {
                return None;
            }
            active.is_busy = true;
            return Some(Box::pin(async move {
                let what = What::Known(id, published(&*topics, &store, &entity).await);
                Done { store, what }
            }));
        }
        if !has_room {
            return None;
        }
        if active.scan().stack.is_empty() {
            if std::mem::replace(&mut self.is_reading_notes, true) {
                return None;
            }
            active.is_busy = true;
            // With fixed parents, the children of others were not looked for.
            let conclusive = !active.met.is_overflown() && entry.path.is_empty();
            let met = Arc::new(std::mem::take(&mut active.met));
            return Some(Box::pin(async move {
                let found = if conclusive {
                    vanished(&*topics, &store, &entity, met.clone()).await
                } else {
                    Ok(Vec::new())
                };
                Done { store, what: What::Compared(id, met, found) }
            }));
        }
        active.is_busy = true;
        let request = page_request(active.scan(), entry);
        let read = Read { clock: deps.clock.clone(), plan, id };
        Some(Box::pin(read.run(request, active.scan().clone())))
    }

    fn ask_backlog<K: Topics, U: Upkeep>(
        &mut self,
        at: Moment,
        deps: &Deps<K, U>,
        jobs: &mut Vec<Job<Done>>,
    ) {
        if !self.backlog.begin_look(at.now) {
            return;
        }
        let (topics, store) = (deps.topics.clone(), self.plan.name.clone());
        jobs.push(Box::pin(async move {
            let waiting = topics.backlog(&store).await;
            Done { store, what: What::Backlog(waiting) }
        }));
    }

    /// Takes a look at the backlog.
    pub(super) fn sampled(&mut self, waiting: Result<u64, String>, at: Moment) {
        if let Err(error) = &waiting {
            tracing::warn!(store = %self.plan.name, error, "scans wait: it is not known how far the incoming path is behind");
        }
        self.backlog.looked(waiting.ok(), at.now);
    }

    /// Takes what was published, for a scan that only hints at the rest.
    pub(super) fn knows(&mut self, id: &str, known: Result<Arc<Ids>, String>, at: Moment) {
        self.is_reading_notes = false;
        let Some(active) = self.scans.get_mut(id) else { return };
        active.is_busy = false;
        match known {
            Ok(known) => active.known = Some(known),
            Err(error) => self.later(id, Duration::from_secs(10), &error, at),
        }
    }

    /// A comparison has ended; what it borrowed is given back.
    pub(super) fn give_back(&mut self, id: &str, met: Arc<Ids>) -> bool {
        self.is_reading_notes = false;
        let Some(active) = self.scans.get_mut(id) else { return false };
        active.is_busy = false;
        active.met = Arc::unwrap_or_clone(met);
        true
    }

    /// Starts what is due, in the order of the slots.
    fn begin_due(&mut self, at: Moment) {
        let plan = self.plan.clone();
        let due = [Slot::Poll, Slot::Sweep, Slot::Ids].into_iter().flat_map(|slot| {
            plan.entries.iter().filter(|(_, entry)| entry.levels.is_some()).map(move |entry| (slot, entry))
        });
        for (slot, (entity, entry)) in due {
            if self.scheduled() >= MAX_SCANS {
                return;
            }
            let Some(marks) = self.marks.get(entity) else { continue };
            let is_due = entry.schedule.due(slot, marks).is_some_and(|due| due <= at.wall_ms);
            if is_due && !self.has(entity, slot) {
                self.begin_slot(entity, slot, None, at);
            }
        }
    }

    /// Starts a scan for a slot of an entity.
    pub(super) fn begin_slot(&mut self, entity: &str, slot: Slot, run: Option<&str>, at: Moment) {
        let Some(entry) = self.plan.entries.get(entity) else { return };
        let marks = self.marks.entry(entity.to_owned()).or_default();
        let mode = entry.schedule.mode(slot, marks, at.wall_ms);
        marks.of_mut(slot).begun_ms = Some(at.wall_ms);
        let (kind, name) = match slot {
            Slot::Poll => (Kind::Poll, "poll"),
            Slot::Sweep => (Kind::Sweep, "sweep"),
            Slot::Ids => (Kind::Sweep, "ids"),
        };
        // Two that are asked for in one moment are two scans.
        let name = run.map_or_else(|| name.to_owned(), |run| format!("{name}-{run}"));
        self.begin(entity, (kind, mode, Some(slot)), (&name, run), at);
    }

    /// Starts a scan, in memory: its first page writes it down.
    pub(super) fn begin(
        &mut self,
        entity: &str,
        (kind, mode, slot): (Kind, Mode, Option<Slot>),
        (name, run): (&str, Option<&str>),
        at: Moment,
    ) -> Option<&Saved> {
        let entry = self.plan.entries.get(entity)?;
        let levels = entry.levels.as_ref()?;
        let id = format!("{name}-{entity}-{}", at.wall_ms);
        let mut scan = Scan::new(id.clone(), kind, mode, levels, &entry.path);
        (scan.started_ms, scan.run) = (at.wall_ms, run.map(str::to_owned));
        tracing::debug!(store = %self.plan.name, entity.kind = entity, scan = id, "a scan begins");
        let active = self.scans.entry(id).or_insert(Active::new(Saved { scan, slot }));
        Some(&active.saved)
    }

    /// Scans that run on schedule.
    fn scheduled(&self) -> usize {
        self.scans.values().filter(|active| active.saved.slot.is_some()).count()
    }

    /// Whether the signal that asked for a scan has it rest.
    pub(super) fn rests(&self, active: &Active) -> bool {
        let run = active.scan().run.as_ref().and_then(|run| self.runs.get(run));
        run.is_some_and(|run| run.paused)
    }

    pub(super) fn has(&self, entity: &str, slot: Slot) -> bool {
        self.scans.values().any(|active| active.scan().entity == entity && active.saved.slot == Some(slot))
    }

    /// Looks at the subscriptions when it is time.
    fn look<K: Topics, U: Upkeep>(&mut self, at: Moment, deps: &Deps<K, U>, jobs: &mut Vec<Job<Done>>) {
        if self.is_looking || self.look_at.is_some_and(|due| due > at.now) {
            return;
        }
        self.is_looking = true;
        let (upkeep, store) = (deps.upkeep.clone(), self.plan.name.clone());
        let state = self.hooks.as_ref().map(|hooks| hooks.state.clone().into());
        jobs.push(Box::pin(async move {
            let looked = upkeep.look(store.clone(), state).await;
            Done { store, what: What::Looked(looked) }
        }));
    }

    /// Takes what a look found: the state to keep, and what is to be repaired.
    pub(super) fn looked(&mut self, looked: Looked, at: Moment) -> Settled {
        self.is_looking = false;
        self.look_at = Some(at.now + looked.next_look.max(Duration::from_secs(1)));
        let hooks =
            HookState { at_ms: at.wall_ms, state: String::from_utf8_lossy(&looked.state).into_owned() };
        let mut records = vec![self.ledger.hooks(&hooks)];
        self.hooks = Some(hooks);
        for gap in &looked.gaps {
            records.extend(self.repair(&gap.entities, gap.since_ms, at));
        }
        Settled { positions: Vec::new(), records }
    }

    /// When the lane should be looked at again, if nothing else happens.
    pub(super) fn wake(&self, at: Moment) -> Option<Instant> {
        let in_ms = |due_ms: i64| {
            at.now
                + Duration::from_millis(u64::try_from(due_ms - at.wall_ms).unwrap_or(0))
                    .max(Duration::from_millis(10))
        };
        let full = self.scheduled() >= MAX_SCANS;
        let slots = [Slot::Poll, Slot::Sweep, Slot::Ids].into_iter();
        let due = slots.filter(|_| !full).flat_map(|slot| {
            self.plan.entries.iter().filter_map(move |(entity, entry)| {
                entry.levels.as_ref()?;
                let due = entry.schedule.due(slot, self.marks.get(entity)?)?;
                (!self.has(entity, slot)).then_some(due)
            })
        });
        let due = due.min().map(in_ms);
        let look = self.look_at.filter(|_| !self.is_looking);
        // What rests waits for a signal, and what has no place for a reply: neither is a matter of time.
        let waits = self
            .scans
            .values()
            .filter(|active| !active.is_busy && !self.rests(active) && self.has_place(&active.scan().id));
        let open = self.closed_until.filter(|until| *until > at.now);
        let again = waits.map(|active| {
            let held = self.backlog.next_look(at.now);
            active
                .not_before
                .unwrap_or(held)
                .max(held)
                .max(open.unwrap_or(held))
                .max(at.now + Duration::from_millis(10))
        });
        [due, look, again.min()].into_iter().flatten().min()
    }
}

/// The page that a scan asks for next.
pub(super) fn asked<'a>(scan: &'a Scan, entry: &'a Entry) -> Option<(&'a Frame, &'a Level, Ask)> {
    let levels = entry.levels.as_deref()?;
    scan.next(levels, |at, level| page::most(level, own(entry, at), scan.mode))
}

/// The entity's settings, where this is its own list and not one of its parents'.
pub(super) fn own(entry: &Entry, level: usize) -> Option<&EntitySettings> {
    let last = entry.levels.as_ref().map_or(0, Vec::len);
    (level + 1 == last).then_some(&*entry.settings)
}

/// The request for that page.
fn page_request(scan: &Scan, entry: &Entry) -> Result<Request, String> {
    let (frame, level, ask) = asked(scan, entry).ok_or("there is no further page")?;
    page::request((frame, level, &ask), own(entry, frame.level), scan.mode, scan.kind)
}
