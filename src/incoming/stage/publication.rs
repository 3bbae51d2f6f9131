//! From rows that were judged fit to the records of one settlement, and what is known from then on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Incoming;
use crate::incoming::coalesce::Gathering;
use crate::incoming::echo::{Echoes, Seen};
use crate::incoming::known::{Known, Recheck, State};
use crate::incoming::meter::Suppressed;
use crate::incoming::publish::{NotPublished, Publication};
use crate::incoming::row::Row;
use crate::incoming::settings::EntitySettings;
use crate::model::hint::{Cause, Op};
use crate::model::ids::{EntityId, EntityKey};
use crate::model::reason::Reason;
use crate::model::record::OutRecord;
use crate::runtime::ports::{Settled, Store};

/// A state that may be too old is looked at again, once it must have arrived.
const SUSPECT_RECHECK_S: i64 = 300;
/// Sooner, if it was not waited for as long as a replica may lag.
const HASTY_RECHECK_S: i64 = 30;
/// A confirmation comes a little after its time rather than before.
const SLACK_S: i64 = 1;

/// Rows that were just read.
pub(super) struct Fresh {
    pub(super) rows: Vec<Row>,
    /// When the read began, in unix milliseconds.
    pub(super) read_at_ms: i64,
    /// They are older than they should be.
    pub(super) suspect: bool,
    /// Of a group: these are all of its rows.
    pub(super) whole: bool,
}

/// What comes of one settlement.
#[derive(Default)]
struct Made {
    records: Vec<OutRecord>,
    /// Entities that were published, or are gone.
    published: usize,
    dead: usize,
    unchanged: usize,
    echoes: usize,
    filtered: usize,
}

impl<S: Store> Incoming<S> {
    /// Publishes what was read, as far as it is meant and not known yet, and settles the gathering.
    pub(super) fn publish(
        &mut self,
        settings: &EntitySettings,
        key: &EntityKey,
        gathering: &Gathering,
        read: Fresh,
    ) -> Settled {
        let (before, now_ms) = (self.memory.get(key), (self.clock)());
        self.outdated.extend(self.echoes.expired(now_ms));
        let mut known = before.clone();
        let is_group = settings.row.hint_key.is_some();
        let publication = Publication {
            store: &self.settings,
            settings,
            gathering,
            read_at_ms: read.read_at_ms,
            suspect: read.suspect,
            command: None,
        };
        let mut made = Made::default();
        let meant = gathering.rows();
        let skips = skips_unchanged(settings, gathering);
        for row in &read.rows {
            if meant.as_ref().is_some_and(|meant| !meant.contains(&row.id)) {
                continue;
            }
            let state = if is_group { before.row(&row.id) } else { before.state };
            let is_same = state.holds(row.content);
            if skips && is_same {
                made.unchanged += 1;
            } else {
                let command = self.echoes.of_row(row, publication.seen(state));
                match publication.caused_by(command.as_deref()) {
                    Some(publication) => self.row(&publication, row, &mut made),
                    None => made.echoes += 1,
                }
            }
            let seen = State {
                version: row.version.or(state.version),
                seen_ms: now_ms.max(state.seen_ms),
                content: row.content,
                gone: false,
            };
            match is_group {
                true => known.set_row(&row.id, seen),
                false => known.state = seen,
            }
        }
        let is_lost = is_group
            && read.whole
            && vanished(&publication, &mut self.echoes, &read.rows, (&mut known, &mut made, now_ms));
        known.recheck = self.recheck((settings, gathering), (&before, &known), &read, is_lost);
        if is_group && read.whole {
            known.state.seen_ms = now_ms.max(before.state.seen_ms);
        }
        self.count(settings, gathering, &made, gathering.op());
        self.close(key, gathering, (&before, known), made.records)
    }

    /// Publishes that an entity, or what is left of a group, is gone.
    pub(super) fn gone(
        &mut self,
        settings: &EntitySettings,
        key: &EntityKey,
        gathering: &Gathering,
        read_at_ms: i64,
    ) -> Settled {
        let (before, now_ms) = (self.memory.get(key), (self.clock)());
        self.outdated.extend(self.echoes.expired(now_ms));
        let mut known = before.clone();
        let (store, suspect, command) = (&self.settings, false, None);
        let publication = Publication { store, settings, gathering, read_at_ms, suspect, command };
        let mut made = Made::default();
        // A later state of it counts, an earlier one is a replica that lags.
        let gone = |state: State| State {
            version: state.version.max(gathering.created_at()),
            seen_ms: now_ms.max(state.seen_ms),
            content: 0,
            gone: true,
        };
        if settings.row.hint_key.is_some() {
            let named = gathering.rows().into_iter().flatten();
            let left = before.rows.iter().filter(|row| !row.state.gone).map(|row| &row.id);
            let rows: BTreeSet<&EntityId> = named.chain(left).collect();
            for row in rows {
                made.gone(&publication, &mut self.echoes, row, before.row(row));
                known.set_row(row, gone(before.row(row)));
            }
            known.state.seen_ms = now_ms.max(before.state.seen_ms);
        } else if before.state.gone && skips_unchanged(settings, gathering) {
            made.unchanged += 1;
        } else {
            made.gone(&publication, &mut self.echoes, &key.id, before.state);
            known.state = gone(before.state);
        }
        known.recheck = None;
        self.count(settings, gathering, &made, Op::Delete);
        self.close(key, gathering, (&before, known), made.records)
    }

    /// The record of one row; one that cannot be published becomes a dead letter.
    fn row(&self, publication: &Publication<'_>, row: &Row, made: &mut Made) {
        match publication.row(row) {
            Ok(Some(record)) => {
                made.records.push(record);
                made.published += 1;
            }
            Ok(None) => made.filtered += 1,
            Err(error) => {
                let reason = match error {
                    NotPublished::Mapping(..) => Reason::TransformFailed,
                    NotPublished::TooLarge(..) => Reason::BadPayload,
                };
                self.meter.dead_letter(reason, publication.gathering.hints.len());
                let first = &publication.gathering.hints[0].record;
                made.records.push(self.dead(first, reason, error.to_string(), None));
                made.dead += 1;
            }
        }
    }

    /// Whether and when what was just read should be read once more, though nobody asks for it.
    fn recheck(
        &self,
        (settings, gathering): (&EntitySettings, &Gathering),
        (before, after): (&Known, &Known),
        read: &Fresh,
        is_lost: bool,
    ) -> Option<Recheck> {
        let now_s = (self.clock)().div_euclid(1000);
        let after_s = |wait: Duration| now_s + i64::try_from(wait.as_secs()).unwrap_or(i64::MAX / 2);
        if is_lost {
            return Some(Recheck { at_s: after_s(settings.confirm_gone) + SLACK_S, again: false });
        }
        if read.suspect {
            // What is new was published in a hurry; see `judge`.
            let is_hasty = before.state.content != after.state.content || settings.row.hint_key.is_some();
            let wait_s = if is_hasty { HASTY_RECHECK_S } else { SUSPECT_RECHECK_S };
            return Some(Recheck { at_s: now_s + wait_s, again: is_hasty });
        }
        if gathering.has_callback() {
            let dated = read.rows.iter().any(|row| row.version.is_some());
            let wait = settings.second_read.filter(|_| !dated)?;
            return Some(Recheck { at_s: after_s(wait), again: false });
        }
        let planned = before.recheck?;
        if !gathering.has(Cause::Recheck) {
            return Some(planned);
        }
        planned.again.then_some(Recheck { at_s: now_s + SUSPECT_RECHECK_S, again: false })
    }

    /// Each hint counts once, however many rows it is about.
    fn count(&self, settings: &EntitySettings, gathering: &Gathering, made: &Made, op: Op) {
        let (entity, hints) = (settings.row.name.as_str(), gathering.hints.len());
        if made.published > 0 {
            let called = gathering.hints.iter().filter(|g| g.hint.cause() == Cause::Callback);
            let first = called.map(|g| g.hint.received_ms).min();
            let waited = first.map(|at| u64::try_from((self.clock)() - at).unwrap_or(0));
            self.meter.published(entity, op, hints, waited.map(Duration::from_millis));
            if gathering.hints.iter().all(|g| g.hint.cause() == Cause::Sweep) {
                self.meter.repaired(&self.settings.name, entity, made.published);
            }
        } else if made.dead == 0 {
            let why = match (made.unchanged, made.echoes, made.filtered) {
                (0, 0, 0) => Suppressed::NoRow,
                (_, 0, 0) => Suppressed::Unchanged,
                (_, _, 0) => Suppressed::Echo,
                (_, _, _) => Suppressed::Filtered,
            };
            self.meter.suppressed(entity, why, hints);
        }
    }

    /// Settles a gathering, and notes in the ledger what is known now; unless nothing is, but when it was read.
    fn close(
        &mut self,
        key: &EntityKey,
        gathering: &Gathering,
        (before, mut known): (&Known, Known),
        mut records: Vec<OutRecord>,
    ) -> Settled {
        let is_worth_it = !records.is_empty() || gathering.has_callback() || differs(before, &known);
        if is_worth_it {
            known.add(gathering.hints.iter().map(|g| &g.hint));
            let partition = &gathering.hints[0].record.position.partition;
            records.push(self.memory.note(key, &known, &self.settings.ledger, partition));
            records.extend(self.forgotten());
        } else {
            self.memory.keep(key, &known);
        }
        Settled { positions: gathering.positions(), records }
    }
}

impl Made {
    /// The records that say that one thing is gone, unless the bridge deleted it and its echo is not wanted.
    fn gone(&mut self, publication: &Publication<'_>, echoes: &mut Echoes, id: &EntityId, before: State) {
        let command = echoes.of_gone(id, publication.seen(before));
        match publication.caused_by(command.as_deref()) {
            Some(publication) => {
                self.records.extend(publication.gone(id));
                self.published += 1;
            }
            None => self.echoes += 1,
        }
    }
}

impl<'a> Publication<'a> {
    /// What the echoes of a thing are judged by.
    fn seen(&self, before: State) -> Seen<'a> {
        Seen { entity: &self.settings.row.name, read_at_ms: self.read_at_ms, before }
    }

    /// The publication of what a command of the bridge wrote; none where nobody wants to hear of that. Who asks for
    /// an entity gets it in any case.
    fn caused_by<'b>(&self, command: Option<&'b str>) -> Option<Publication<'b>>
    where
        'a: 'b,
    {
        let is_unwanted = command.is_some() && self.settings.suppress_echo && !is_asked_for(self.gathering);
        (!is_unwanted).then_some(Publication { command, ..*self })
    }
}

/// The rows of a group that were published and are there no more. One read without a row is no proof, unless a
/// callback said that it was deleted; whether another read must confirm it.
fn vanished(
    publication: &Publication<'_>,
    echoes: &mut Echoes,
    rows: &[Row],
    (known, made, now_ms): (&mut Known, &mut Made, i64),
) -> bool {
    let (gathering, at) = (publication.gathering, publication.read_at_ms);
    let there: BTreeSet<&EntityId> = rows.iter().map(|row| &row.id).collect();
    let confirm_ms = i64::try_from(publication.settings.confirm_gone.as_millis()).unwrap_or(i64::MAX);
    let mut is_lost = false;
    for row in known.rows.iter_mut().filter(|row| !row.state.gone) {
        if there.contains(&row.id) {
            row.missed_ms = 0;
            continue;
        }
        let is_confirmed = row.missed_ms != 0 && at - row.missed_ms >= confirm_ms;
        if !is_confirmed && !gathering.says_row_deleted(&row.id) {
            is_lost = true;
            if row.missed_ms == 0 {
                row.missed_ms = at;
            }
            continue;
        }
        made.gone(publication, echoes, &row.id, row.state);
        let version = row.state.version.max(gathering.created_at());
        row.state = State { version, seen_ms: now_ms.max(row.state.seen_ms), content: 0, gone: true };
    }
    // What was never published and is said to be deleted: readers may know it from before the ledger.
    let named: BTreeSet<EntityId> = gathering.rows().into_iter().flatten().cloned().collect();
    for row in named.iter().filter(|row| !there.contains(row) && gathering.says_row_deleted(row)) {
        if known.rows.iter().all(|known| known.id != *row) {
            made.gone(publication, echoes, row, State::default());
            let version = gathering.created_at();
            known.set_row(row, State { version, seen_ms: now_ms, content: 0, gone: true });
        }
    }
    is_lost
}

/// Whether content that is published already is published again: to those who asked for it, and after callbacks
/// unless the settings say otherwise.
fn skips_unchanged(settings: &EntitySettings, gathering: &Gathering) -> bool {
    !is_asked_for(gathering) && (settings.suppress_unchanged || !gathering.has_callback())
}

/// Whether a person wants to have the entity, however it is.
fn is_asked_for(gathering: &Gathering) -> bool {
    gathering.has(Cause::Sync) || gathering.has(Cause::Snapshot)
}

/// Whether two notes differ in more than the time of their reads.
fn differs(before: &Known, after: &Known) -> bool {
    let state = |state: &State| State { seen_ms: 0, ..*state };
    let rows = |known: &Known| -> Vec<_> {
        known.rows.iter().map(|row| (row.id.clone(), state(&row.state), row.missed_ms)).collect()
    };
    state(&before.state) != state(&after.state)
        || before.recheck != after.recheck
        || rows(before) != rows(after)
}
