//! Hints that carry the row of a list: settled without a request where that is safe.

use std::time::{Duration, Instant};

use super::Incoming;
use crate::incoming::carried::{Carried, Decision, decide};
use crate::incoming::coalesce::{Gathered, Gathering, Wait};
use crate::incoming::known::State;
use crate::incoming::line::Yields;
use crate::incoming::meter::Suppressed;
use crate::incoming::row::{Row, row_of};
use crate::incoming::settings::EntitySettings;
use crate::model::hint::{Cause, Hint, Op};
use crate::model::record::InRecord;
use crate::runtime::ports::{Settled, Store};

/// A row cannot have been read in the future; a clock that is so far ahead is not believed.
const MAX_AHEAD_MS: i64 = 10_000;
/// How long a callback may be on its way, from the change to its arrival on the intake, before it counts as missed.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

impl<S: Store> Incoming<S> {
    /// Settles a hint by the row that it carries. The hint comes back where the entity must be read: it carries no
    /// row, or one that proves nothing.
    pub(super) fn carried(&mut self, gathered: Gathered) -> Result<Settled, Box<Gathered>> {
        let Some((row, began_ms)) = self.carried_row(&gathered) else { return Err(gathered.into()) };
        let key = gathered.hint.trigger.key.clone();
        let settings = self.lines[&key.entity].settings.clone();
        let is_group = settings.row.hint_key.is_some();
        let mut known = self.memory.get(&key);
        let state = if is_group { known.row(&row.id) } else { known.state };
        let carried = Carried { version: row.version, content: row.content, began_ms };
        let why = match decide(&state, &carried, gathered.hint.cause()) {
            Decision::Read => return Err(gathered.into()),
            Decision::Publish if self.may_be_on_its_way(&gathered.hint, &carried) => {
                return Err(gathered.into());
            }
            Decision::Publish => {
                let gathering = Gathering { hints: vec![gathered], ..Gathering::default() };
                let read = super::publication::Fresh {
                    rows: vec![row],
                    read_at_ms: began_ms,
                    suspect: false,
                    whole: false,
                };
                return Ok(self.publish(&settings, &key, &gathering, read));
            }
            Decision::Unchanged => Suppressed::Unchanged,
            Decision::Superseded => Suppressed::Superseded,
        };
        // Not worth a record of the ledger: after a crash the row is compared with an older read, which is safe.
        let seen = State { seen_ms: (self.clock)().max(state.seen_ms), ..state };
        match is_group {
            true => known.set_row(&row.id, seen),
            false => known.state = seen,
        }
        self.memory.keep(&key, &known);
        self.meter.suppressed(&key.entity, why, 1);
        Ok(self.settle(&gathered.record, Vec::new()))
    }

    /// Whether a sweep met a change so young that its callback may still come: then nothing was missed yet.
    fn may_be_on_its_way(&self, hint: &Hint, carried: &Carried) -> bool {
        let age_s = |changed_s: i64| carried.began_ms.div_euclid(1_000) - changed_s;
        hint.cause() == Cause::Sweep
            && carried.version.is_none_or(|at| age_s(at) < i64::try_from(ON_ITS_WAY.as_secs()).unwrap_or(0))
    }

    /// Lets a hint that is to be read wait for its turn. What a sweep found waits a little longer: a callback that
    /// comes meanwhile brings the read forward, and tells that there was nothing to repair.
    pub(super) fn queue(&mut self, gathered: Gathered, now: Instant) {
        let key = gathered.hint.trigger.key.clone();
        let Some(line) = self.lines.get_mut(&key.entity) else { return };
        if gathered.hint.cause() != Cause::Sweep || line.coalescer.is_busy(&key.id) {
            return line.coalescer.add(gathered, now);
        }
        let gathering = Gathering { hints: vec![gathered], ..Gathering::default() };
        line.coalescer.retry(&key.id, gathering, Wait::AtLatest(now + ON_ITS_WAY), now);
    }

    /// The row that a hint carries and when its read began, if it can be used at all.
    fn carried_row(&self, gathered: &Gathered) -> Option<(Row, i64)> {
        let Gathered { hint, record } = gathered;
        let read_at_ms = hint.carried_ms.filter(|at| *at > 0 && *at <= (self.clock)() + MAX_AHEAD_MS)?;
        let line = &self.lines[&hint.trigger.key.entity];
        let is_usable = line.yields == Yields::Records && line.settings.takes_carried_rows();
        // The read that is due, or the one after the read under way, answers this hint as well.
        if !is_usable || hint.trigger.op == Op::Delete || line.coalescer.is_busy(&hint.trigger.key.id) {
            return None;
        }
        Some((meant(&line.settings, hint, record)?, read_at_ms))
    }
}

/// The carried row, if it is about what the hint names.
fn meant(settings: &EntitySettings, hint: &Hint, record: &InRecord) -> Option<Row> {
    let asked = &hint.trigger.key.id;
    let (id, row) = row_of(settings, asked, record.value.as_ref()?).ok()?;
    let is_named = match &settings.row.hint_key {
        Some(_) => hint.trigger.row.as_ref() == Some(&row.id),
        None => hint.trigger.row.as_ref().is_none_or(|named| *named == row.id),
    };
    (id == *asked && is_named).then_some(row)
}
