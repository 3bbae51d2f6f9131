//! What a scan's replies lead to: hints, the scan's new state, and its end. Everything that one reply leads to is one
//! settlement, and so one transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use super::hints::Maker;
use super::lane::{Active, Lane, Moment, asked};
use super::page::{self, Page};
use super::ports::Meter;
use super::read::Failure;
use super::scan::Mode;
use super::schedule::{Marks, Slot};
use super::seen::hash;
use crate::engine::backoff::Backoff;
use crate::model::ids::EntityId;
use crate::model::record::OutRecord;
use crate::runtime::ports::{Settled, Store};

/// Between tries of a page that is refused for now. Unlimited in number: the scan has nothing else to do.
const AGAIN: Backoff =
    Backoff { floor: Duration::from_millis(250), base: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// Tries of a page whose reply cannot be read, before the scan is given up.
const MAX_GARBLED: u32 = 5;
/// The first pause of a store whose token is not valid; it doubles up to the last.
const CLOSED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// How a scan ended.
enum End {
    Done,
    Failed(String),
}

impl<S: Store> Lane<S> {
    /// Takes a page, or the reason why there is none.
    pub(super) fn turned(
        &mut self,
        id: &str,
        (began_ms, page): (i64, Result<Page, Failure>),
        at: Moment,
        meter: &dyn Meter,
    ) -> Option<Settled> {
        let active = self.scans.get_mut(id)?;
        active.is_busy = false;
        let failure = match page {
            Ok(page) => {
                (self.closed_until, self.refusals) = (None, 0);
                match self.turn(id, (began_ms, page), at, meter) {
                    Ok(settled) => return settled,
                    Err(detail) => Failure::Garbled(detail),
                }
            }
            Err(failure) => failure,
        };
        let (entity, kind) = (active_entity(self.scans.get(id)?), self.scans.get(id)?.scan().kind);
        let is_final = self.fails(id, &failure, at);
        meter.failed(&self.plan.name, &entity, kind, is_final);
        if !is_final {
            return None;
        }
        let active = self.scans.get_mut(id)?;
        if matches!(failure, Failure::Missing(_)) && active.scan().is_below_a_parent() {
            // The parent vanished between the two reads, and its children with it.
            let levels = self.plan.entries.get(&entity)?.levels.as_deref()?;
            active.saved.scan.skip(levels);
            active.saved.scan.pages += 1;
            return Some(self.written(id, Vec::new(), at, meter));
        }
        let oauth = self.plan.entries.get(&entity).map(|entry| entry.settings.row.oauth.clone());
        let detail = match failure {
            Failure::Missing(status) => format!("status {status}: the store has no such list"),
            Failure::Refused(_, detail) => {
                format!("{detail}; it needs the OAuth scope {}", oauth.unwrap_or_default())
            }
            Failure::Garbled(detail) => detail,
            Failure::Later(..) | Failure::Unauthorized => return None,
        };
        let records = self.end(id, End::Failed(detail), at, meter);
        Some(Settled { positions: Vec::new(), records })
    }

    /// Draws the consequence of a page that was not read; whether trying again is pointless.
    fn fails(&mut self, id: &str, failure: &Failure, at: Moment) -> bool {
        match failure {
            Failure::Later(after, detail) => {
                self.later(id, *after, detail, at);
                false
            }
            Failure::Unauthorized => {
                let pause = CLOSED.0.saturating_mul(1 << self.refusals.min(8)).min(CLOSED.1);
                if self.closed_until.is_none_or(|until| until <= at.now) {
                    tracing::error!(store = %self.plan.name, pause_ms = pause.as_millis(), "the access token is not valid: scans wait until it is");
                    self.refusals += 1;
                    self.closed_until = Some(at.now + pause);
                }
                false
            }
            Failure::Garbled(detail) => {
                let is_final = self.scans.get(id).is_some_and(|active| active.attempts + 1 >= MAX_GARBLED);
                if !is_final {
                    self.later(id, Duration::ZERO, detail, at);
                }
                is_final
            }
            Failure::Missing(_) | Failure::Refused(..) => true,
        }
    }

    /// The page is asked for again, later.
    pub(super) fn later(&mut self, id: &str, after: Duration, detail: &str, at: Moment) {
        let Some(active) = self.scans.get_mut(id) else { return };
        // Spread by the scan's own name: there is no draw of lots in here.
        let draw = f64::from(u32::try_from(hash(id) >> 40 & 0xff).unwrap_or(0)) / 255.0;
        let pause = AGAIN.delay(active.attempts, 0.5 + draw / 2.0).max(after);
        active.not_before = Some(at.now + pause);
        if active.attempts.is_multiple_of(10) {
            tracing::warn!(store = %self.plan.name, scan = id, detail, attempt = active.attempts, pause_ms = pause.as_millis(), "a page of a scan is asked for again");
        }
        active.attempts = active.attempts.saturating_add(1);
    }

    /// Turns a page into hints.
    fn turn(
        &mut self,
        id: &str,
        (began_ms, page): (i64, Page),
        at: Moment,
        meter: &dyn Meter,
    ) -> Result<Option<Settled>, String> {
        let plan = self.plan.clone();
        let Some(active) = self.scans.get_mut(id) else { return Ok(None) };
        let Some(entry) = plan.entries.get(&active.scan().entity) else { return Ok(None) };
        let levels = entry.levels.as_deref().unwrap_or_default();
        let Some((frame, level, ask)) = asked(active.scan(), entry) else { return Ok(None) };
        let lost = page.rows.iter().filter(|row| row.id.is_none()).count();
        if lost > 0 {
            if lost == page.rows.len() {
                return Err(format!("no row of the list has an id at {}", level.row.key.join(", ")));
            }
            tracing::warn!(store = %plan.name, entity.kind = level.row.name, rows = lost, "rows of a list have no id and are left out");
        }
        let mode = active.scan().mode;
        let is_whole = page::is_whole(level, &entry.settings, mode);
        let is_first = frame.level + 1 == levels.len() && active.scan().total.is_none();
        let total = page.total.filter(|_| is_first && !active.scan().is_below_a_parent());
        let ids: Vec<Option<EntityId>> = page.rows.iter().map(|row| row.id.clone()).collect();
        let number = active.scan().pages;
        let turned =
            active.saved.scan.turn(levels, &ask, &page.seen, &ids).map_err(|error| error.to_string())?;
        // Only now: a page that makes no sense counts as a failure, however soundly it came.
        active.attempts = 0;
        if total.is_some() {
            active.saved.scan.total = total;
        }
        let mut records = Vec::new();
        let kind = active.scan().kind;
        let maker = Maker {
            intake: &plan.intake,
            entity: &entry.settings.row.name,
            cause: kind.cause(),
            source: id,
            at_ms: at.wall_ms,
        };
        let (mut met, mut twice) = (Vec::new(), BTreeSet::new());
        for (row_number, (row, _)) in
            page.rows.into_iter().zip(&turned.fresh).enumerate().filter(|(_, (_, fresh))| **fresh)
        {
            let Some(row_id) = row.id else { continue };
            if !twice.insert(row_id.clone()) {
                continue;
            }
            let row_hash = hash(row_id.as_str());
            met.push(row_hash);
            if active.known.as_ref().is_some_and(|known| known.has(row_hash)) {
                continue;
            }
            let carried = is_whole.then_some((row.json, began_ms));
            records.push(maker.hint(&row_id, &format!("{number}-{row_number}"), carried));
        }
        let hints = records.len();
        active.saved.scan.hints += hints as u64;
        self.backlog.made(hints);
        if mode.compares() && !met.is_empty() {
            records.push(self.ledger.seen(id, number, &met));
            active.met_pages.push(number);
            active.met.add(met);
        }
        meter.page(&plan.name, &entry.settings.row.name, kind, hints);
        Ok(Some(self.written(id, records, at, meter)))
    }

    /// The records of a page, with the scan's new state or its end.
    fn written(&mut self, id: &str, mut records: Vec<OutRecord>, at: Moment, meter: &dyn Meter) -> Settled {
        let Some(active) = self.scans.get(id) else { return Settled { positions: Vec::new(), records } };
        if active.scan().stack.is_empty() && !active.scan().mode.compares() {
            records.extend(self.end(id, End::Done, at, meter));
        } else {
            records.push(self.ledger.scan(&active.saved));
            // So that the next leader knows that it was begun.
            if let (1, Some(marks)) = (active.scan().pages, self.marks.get_mut(&active.saved.scan.entity)) {
                marks.at_ms = at.wall_ms.max(marks.at_ms + 1);
                records.push(self.ledger.marks(&active.saved.scan.entity, marks));
            }
            let run = active.scan().run.clone();
            records.extend(run.and_then(|run| self.progress(&run, at)).into_iter().flatten());
        }
        Settled { positions: Vec::new(), records }
    }

    /// Ends a scan that compared: each id that is published and was not met is looked at again.
    pub(super) fn compared(
        &mut self,
        id: &str,
        found: Result<Vec<String>, String>,
        at: Moment,
        meter: &dyn Meter,
    ) -> Option<Settled> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.later(id, Duration::from_secs(10), &error, at);
                return None;
            }
        };
        let active = self.scans.get_mut(id)?;
        if active.met.is_overflown() {
            tracing::warn!(store = %self.plan.name, scan = id, "too many ids to say which of the published are gone");
        }
        let maker = Maker {
            intake: &self.plan.intake,
            entity: &active.saved.scan.entity,
            cause: active.saved.scan.kind.cause(),
            source: id,
            at_ms: at.wall_ms,
        };
        let ids = found.iter().filter_map(|found| EntityId::parse(found).ok());
        let mut records: Vec<OutRecord> =
            ids.enumerate().map(|(number, id)| maker.hint(&id, &format!("gone-{number}"), None)).collect();
        let hints = records.len();
        if hints > 0 {
            tracing::info!(store = %self.plan.name, scan = id, hints, "published entities were not listed and are looked at again");
        }
        active.saved.scan.hints += hints as u64;
        self.backlog.made(hints);
        let (entity, kind) = (active_entity(active), active.scan().kind);
        meter.page(&self.plan.name, &entity, kind, hints);
        records.extend(self.end(id, End::Done, at, meter));
        Some(Settled { positions: Vec::new(), records })
    }

    /// Ends a scan; the records that say so.
    fn end(&mut self, id: &str, end: End, at: Moment, meter: &dyn Meter) -> Vec<OutRecord> {
        let Some(active) = self.scans.remove(id) else { return Vec::new() };
        let Active { saved, met_pages, .. } = active;
        let scan = &saved.scan;
        let mut records = self.ledger.forget_scan(id, met_pages);
        let marks = self
            .marks
            .entry(scan.entity.clone())
            .or_insert(Marks { anchor_ms: at.wall_ms, ..Marks::default() });
        // Never twice the same: after a transaction of unknown outcome this value tells what became of it.
        marks.at_ms = at.wall_ms.max(marks.at_ms + 1);
        let failure = match end {
            End::Done => {
                if let Some(slot) = saved.slot {
                    marks.succeeded(slot, scan.mode, scan.started_ms, scan.pages);
                }
                let took_ms = at.wall_ms - scan.started_ms;
                meter.done(&self.plan.name, &scan.entity, scan.kind, (scan.started_ms, at.wall_ms));
                tracing::info!(store = %self.plan.name, scan = id, pages = scan.pages, hints = scan.hints, took_ms, "a scan is done");
                None
            }
            End::Failed(detail) => {
                tracing::warn!(store = %self.plan.name, scan = id, entity.kind = scan.entity, detail, "a scan failed; its next time is not changed by that");
                Some(detail)
            }
        };
        records.push(self.ledger.marks(&scan.entity, marks));
        records.extend(self.scan_ended(scan, failure, at));
        records
    }

    /// Starts repairs of what callbacks have missed since then; the records that keep them.
    pub(super) fn repair(&mut self, entities: &[String], since_ms: i64, at: Moment) -> Vec<OutRecord> {
        let wanted = |name: &&String| entities.is_empty() || entities.contains(name);
        let names: Vec<String> = self.plan.entries.keys().filter(wanted).cloned().collect();
        let mut records = Vec::new();
        for entity in names {
            let Some(entry) = self.plan.entries.get(&entity).filter(|entry| entry.levels.is_some()) else {
                continue;
            };
            let since_ms = since_ms - super::schedule::OVERLAP_MS;
            let modes = if entry.schedule.has_since {
                vec![(Mode::Changed(since_ms), "repair"), (Mode::Ids, "repair-ids")]
            } else {
                vec![(Mode::Whole, "repair")]
            };
            for (mode, name) in modes {
                let covers = |active: &Active| {
                    active.scan().entity == entity
                        && active.saved.slot.is_none()
                        && active.scan().pages == 0
                        && covers(active.scan().mode, mode)
                };
                if self.scans.values().any(covers) {
                    continue;
                }
                let what = (super::scan::Kind::Sweep, mode, None::<Slot>);
                if let Some(saved) = self.begin(&entity, what, (name, None), at).cloned() {
                    records.push(self.ledger.scan(&saved));
                }
            }
        }
        records
    }
}

/// Whether a scan that has not begun will bring what another would.
fn covers(has: Mode, wanted: Mode) -> bool {
    match (has, wanted) {
        (Mode::Changed(has), Mode::Changed(wanted)) => has <= wanted,
        (has, wanted) => has == wanted,
    }
}

fn active_entity(active: &Active) -> String {
    active.scan().entity.clone()
}
