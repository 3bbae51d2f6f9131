//! What a signal started: snapshots and sweeps of several entities, a few at a time, with what is told of them.
//!
//! Progress is told once a second at most, and at each change of state. Counts are totals since the run began.

use super::lane::{Lane, MAX_SNAPSHOTS, Moment};
use super::scan::{Kind as ScanKind, Mode, Scan};
use super::schedule::Slot;
use super::state::Run;
use crate::model::record::OutRecord;
use crate::model::signal::{Kind, Notification};
use crate::runtime::ports::Store;

use super::notify;

/// Between two tellings of progress, in milliseconds.
const TELL_EVERY_MS: i64 = 1_000;

/// What is done to runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Pause,
    Resume,
    Stop,
    Tell,
}

impl<S: Store> Lane<S> {
    /// Starts a run of these entities.
    pub(super) fn begin_run(
        &mut self,
        id: &str,
        is_sweep: bool,
        mut entities: Vec<String>,
        at: Moment,
    ) -> Vec<OutRecord> {
        // The next one is taken from the end.
        entities.reverse();
        let run = Run {
            id: id.to_owned(),
            is_sweep,
            started_ms: at.wall_ms,
            paused: false,
            waiting: entities,
            done: 0,
            failed: Vec::new(),
            hints: 0,
            pages: 0,
            total: Some(0),
            told_ms: at.wall_ms,
        };
        let record = self.ledger.run(&run);
        self.runs.insert(id.to_owned(), run);
        vec![record]
    }

    /// Starts scans for the entities that runs wait with, as far as there is room.
    pub(super) fn begin_waiting(&mut self, at: Moment) {
        let ids: Vec<String> = self.runs.keys().cloned().collect();
        for id in ids {
            while let Some(run) = self.runs.get(&id).filter(|run| !run.paused) {
                let of_run =
                    self.scans.values().filter(|active| active.scan().run.as_ref() == Some(&id)).count();
                let snapshots = self
                    .scans
                    .values()
                    .filter(|active| active.scan().kind == ScanKind::Snapshot && !self.rests(active))
                    .count();
                let is_full = if run.is_sweep { of_run >= MAX_SNAPSHOTS } else { snapshots >= MAX_SNAPSHOTS };
                let Some(entity) = run.waiting.last().filter(|_| !is_full).cloned() else { break };
                let is_sweep = run.is_sweep;
                if let Some(run) = self.runs.get_mut(&id) {
                    run.waiting.pop();
                }
                self.begin_entity(&entity, &id, is_sweep, at);
            }
        }
    }

    /// The scans that one entity of a run takes.
    fn begin_entity(&mut self, entity: &str, run: &str, is_sweep: bool, at: Moment) {
        if !is_sweep {
            let name = format!("snapshot-{run}");
            self.begin(entity, (ScanKind::Snapshot, Mode::Rows, None), (&name, Some(run)), at);
            return;
        }
        let Some(entry) = self.plan.entries.get(entity) else { return };
        let slots = if entry.schedule.has_since { vec![Slot::Sweep, Slot::Ids] } else { vec![Slot::Ids] };
        for slot in slots {
            self.begin_slot(entity, slot, Some(run), at);
        }
    }

    /// A run's progress, if it is time to tell, and its new state.
    pub(super) fn progress(&mut self, id: &str, at: Moment) -> Option<Vec<OutRecord>> {
        let run = self.runs.get_mut(id)?;
        let mut records = Vec::new();
        if at.wall_ms - run.told_ms >= TELL_EVERY_MS {
            run.told_ms = at.wall_ms;
            let kind = if run.is_sweep { Kind::SweepProgress } else { Kind::SnapshotProgress };
            records.push(self.told(id, kind, None, at)?);
        }
        records.extend(self.kept(id));
        Some(records)
    }

    /// The record that keeps a run. Entities whose scans are not written down yet count as waiting in it, so that the
    /// next leader begins them.
    fn kept(&self, id: &str) -> Option<OutRecord> {
        let mut run = self.runs.get(id)?.clone();
        let of_run = |scan: &&Scan| scan.run.as_deref() == Some(id) && scan.pages == 0;
        let begun = self.scans.values().map(|active| active.scan()).filter(of_run);
        run.waiting.extend(begun.map(|scan| scan.entity.clone()));
        Some(self.ledger.run(&run))
    }

    /// Ends runs of which nothing is left to do, because it is not configured any more.
    pub(super) fn end_empty_runs(&mut self, at: Moment) -> Vec<OutRecord> {
        let plan = self.plan.clone();
        let is_listed = |name: &String| plan.entries.get(name).is_some_and(|entry| entry.levels.is_some());
        self.runs.values_mut().for_each(|run| run.waiting.retain(is_listed));
        let has_scan = |id: &str| self.scans.values().any(|active| active.scan().run.as_deref() == Some(id));
        let empty = self.runs.values().filter(|run| run.waiting.is_empty() && !has_scan(&run.id));
        let empty: Vec<String> = empty.map(|run| run.id.clone()).collect();
        empty.into_iter().flat_map(|id| self.end_run(&id, at)).collect()
    }

    /// A notification about a whole run.
    pub(super) fn told(&self, id: &str, kind: Kind, detail: Option<String>, at: Moment) -> Option<OutRecord> {
        let run = self.runs.get(id)?;
        let scans =
            || self.scans.values().map(|active| active.scan()).filter(|scan| scan.run.as_deref() == Some(id));
        let mut told = Notification::new(id, kind, Some(&self.plan.name), notify::timestamp(at.wall_ms));
        told.rows = run.hints + scans().map(|scan| scan.hints).sum::<u64>();
        told.pages = run.pages + scans().map(|scan| scan.pages).sum::<u64>();
        told.calls = told.pages;
        let of_scans: Option<u64> = scans().map(|scan| scan.total).sum();
        told.total = of_scans.zip(run.total).map(|(a, b)| a + b).filter(|_| run.waiting.is_empty());
        told.started_at = Some(notify::timestamp(run.started_ms));
        told.detail = detail;
        Some(notify::record(&self.notifications, &told))
    }

    /// A scan has ended: what that means for its run, and what is told of it.
    pub(super) fn scan_ended(&mut self, scan: &Scan, failure: Option<String>, at: Moment) -> Vec<OutRecord> {
        let is_sweep = scan.kind != ScanKind::Snapshot;
        let kind = match (is_sweep, failure.is_some()) {
            (false, false) => Kind::SnapshotDone,
            (false, true) => Kind::SnapshotFailed,
            (true, false) => Kind::SweepDone,
            (true, true) => Kind::SweepFailed,
        };
        let id = scan.run.as_ref().unwrap_or(&scan.id);
        let mut told =
            Notification::new(id.as_str(), kind, Some(&self.plan.name), notify::timestamp(at.wall_ms));
        told.entity = Some(scan.entity.clone());
        (told.rows, told.pages, told.calls, told.total) = (scan.hints, scan.pages, scan.pages, scan.total);
        told.started_at = Some(notify::timestamp(scan.started_ms));
        told.detail.clone_from(&failure);
        let mut records = Vec::new();
        // What was asked for reports; what is scheduled only complains.
        if scan.run.is_some() || failure.is_some() {
            records.push(notify::record(&self.notifications, &told));
        }
        let Some(run) = scan.run.as_ref().and_then(|run| self.runs.get_mut(run)) else { return records };
        (run.hints, run.pages) = (run.hints + scan.hints, run.pages + scan.pages);
        run.total = run.total.zip(scan.total).map(|(a, b)| a + b);
        match failure {
            Some(_) => run.failed.push(scan.entity.clone()),
            None => run.done += 1,
        }
        let id = run.id.clone();
        let has_more = !run.waiting.is_empty()
            || self.scans.values().any(|active| active.scan().run.as_ref() == Some(&id));
        records.extend(if has_more {
            self.progress(&id, at).unwrap_or_default()
        } else {
            self.end_run(&id, at)
        });
        records
    }

    /// Ends a run whose entities are all done; the records that say so.
    fn end_run(&mut self, id: &str, at: Moment) -> Vec<OutRecord> {
        let Some(run) = self.runs.get(id) else { return Vec::new() };
        let detail = (!run.failed.is_empty()).then(|| format!("failed: {}", run.failed.join(", ")));
        let kind = match (run.is_sweep, run.failed.is_empty()) {
            (false, true) => Kind::SnapshotDone,
            (false, false) => Kind::SnapshotFailed,
            (true, true) => Kind::SweepDone,
            (true, false) => Kind::SweepFailed,
        };
        let told = self.told(id, kind, detail, at);
        self.runs.remove(id);
        told.into_iter().chain([self.ledger.forget_run(id)]).collect()
    }

    /// Pauses, resumes, stops or tells of a snapshot.
    pub(super) fn change(&mut self, id: &str, change: Change, at: Moment) -> Vec<OutRecord> {
        let Some(run) = self.runs.get_mut(id) else { return Vec::new() };
        run.told_ms = at.wall_ms;
        let kind = match change {
            Change::Pause => Kind::SnapshotPaused,
            Change::Resume => Kind::SnapshotProgress,
            Change::Tell if run.paused => Kind::SnapshotPaused,
            Change::Tell => Kind::SnapshotProgress,
            Change::Stop => Kind::SnapshotStopped,
        };
        match change {
            Change::Pause => run.paused = true,
            Change::Resume => run.paused = false,
            Change::Stop | Change::Tell => {}
        }
        let mut records: Vec<OutRecord> = self.told(id, kind, None, at).into_iter().collect();
        match (change, self.runs.get(id)) {
            (Change::Stop, _) => {
                let of_run = |active: &&String| {
                    self.scans.get(*active).is_some_and(|active| active.scan().run.as_deref() == Some(id))
                };
                let scans: Vec<String> = self.scans.keys().filter(of_run).cloned().collect();
                for scan in scans {
                    let active = self.scans.remove(&scan);
                    records
                        .extend(self.ledger.forget_scan(&scan, active.into_iter().flat_map(|a| a.met_pages)));
                }
                self.runs.remove(id);
                records.push(self.ledger.forget_run(id));
            }
            (_, Some(_)) => records.extend(self.kept(id)),
            (_, None) => {}
        }
        records
    }
}
