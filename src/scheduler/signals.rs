//! Carries out what people ask by signal.
//!
//! Every signal is settled by one transaction that holds what it started and its answer, so it is carried out once. One
//! that is wrong, or that cannot be carried out, is answered with the reason and holds nothing up.

use std::sync::Arc;

use super::hints::Maker;
use super::lane::{Lane, Moment};
use super::notify;
use super::runs::Change;
use crate::model::hint::Cause;
use crate::model::ids::EntityId;
use crate::model::record::{InRecord, OutRecord};
use crate::model::signal::{Ask, Kind, Notification, Signal, Snapshots};
use crate::runtime::ports::Store;

/// The lanes of all stores, by name.
pub(super) type Lanes<S> = std::collections::BTreeMap<Arc<str>, Lane<S>>;

/// Carries out one signal; what is written of it, and whether it was accepted.
pub(super) fn carry_out<S: Store>(
    lanes: &mut Lanes<S>,
    notifications: &Arc<str>,
    record: &InRecord,
    at: Moment,
) -> (Vec<OutRecord>, bool) {
    let value = record.value.as_deref().unwrap_or_default();
    let signal = match Signal::parse(value) {
        Ok(signal) => signal,
        Err(error) => {
            let id = Signal::id_of(value).unwrap_or_else(|| format!("offset-{}", record.position.offset));
            tracing::warn!(signal = id, %error, "a signal is refused");
            let mut told = Notification::new(id, Kind::Rejected, None, notify::timestamp(at.wall_ms));
            told.detail = Some(error.to_string());
            return (vec![notify::record(notifications, &told)], false);
        }
    };
    let mut told =
        Notification::new(signal.id.as_str(), Kind::Accepted, signal.store(), notify::timestamp(at.wall_ms));
    match carry(lanes, &signal, at) {
        Ok(mut records) => {
            tracing::info!(signal = signal.id, store = signal.store(), "a signal is carried out");
            // What is told of the present comes before the answer, so that the answer ends it.
            let is_last = matches!(signal.ask, Ask::TellSnapshot(_));
            let at = if is_last { records.len() } else { 0 };
            records.insert(at, notify::record(notifications, &told));
            (records, true)
        }
        Err(detail) => {
            tracing::warn!(signal = signal.id, store = signal.store(), detail, "a signal is refused");
            told.kind = Kind::Rejected;
            told.detail = Some(detail);
            (vec![notify::record(notifications, &told)], false)
        }
    }
}

fn carry<S: Store>(lanes: &mut Lanes<S>, signal: &Signal, at: Moment) -> Result<Vec<OutRecord>, String> {
    match &signal.ask {
        Ask::StartSnapshot { store, entities } => start(lanes, store, entities, (&signal.id, false), at),
        Ask::StartSweep { store, entities } => start(lanes, store, entities, (&signal.id, true), at),
        Ask::PauseSnapshot(which) => change(lanes, which, Change::Pause, at),
        Ask::ResumeSnapshot(which) => change(lanes, which, Change::Resume, at),
        Ask::StopSnapshot(which) => change(lanes, which, Change::Stop, at),
        Ask::TellSnapshot(which) => change(lanes, which, Change::Tell, at),
        Ask::Sync { store, entity, ids } => {
            let lane = lane(lanes, store)?;
            let name = configured(lane, entity)?;
            Ok(sync(lane, &name, ids, &signal.id, at))
        }
        // The owners of the partitions read it themselves; here it is only made sure that there is such a store.
        Ask::EndHalt { store, .. } => lane(lanes, store).map(|_| Vec::new()),
    }
}

fn lane<'a, S: Store>(lanes: &'a mut Lanes<S>, store: &str) -> Result<&'a mut Lane<S>, String> {
    let names: Vec<&str> = lanes.keys().map(|name| &**name).collect();
    let unknown = format!("there is no store {store:?}; there are: {}", names.join(", "));
    lanes.get_mut(store).ok_or(unknown)
}

/// The catalogue's name of an entity that is configured for the store.
fn configured<S: Store>(lane: &Lane<S>, name: &str) -> Result<String, String> {
    let fits = |entity: &&String| {
        let entry = &lane.plan.entries[*entity];
        *entity == name || entry.settings.row.aliases.iter().any(|alias| alias == name)
    };
    lane.plan
        .entries
        .keys()
        .find(fits)
        .cloned()
        .ok_or_else(|| format!("entity {name:?} is not configured for store {:?}", lane.plan.name))
}

fn start<S: Store>(
    lanes: &mut Lanes<S>,
    store: &str,
    entities: &[String],
    (id, is_sweep): (&str, bool),
    at: Moment,
) -> Result<Vec<OutRecord>, String> {
    let lane = lane(lanes, store)?;
    if lane.runs.contains_key(id) {
        return Err(format!("{id:?} is under way already"));
    }
    let is_listed = |name: &String| lane.plan.entries[name].levels.is_some();
    let names: Vec<String> = if entities.is_empty() {
        lane.plan.entries.keys().filter(|name| is_listed(name)).cloned().collect()
    } else {
        let mut names = Vec::new();
        for entity in entities {
            let name = configured(lane, entity)?;
            if !is_listed(&name) {
                return Err(format!("entity {name:?} is listed nowhere; it can only be synced by its ids"));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    };
    if names.is_empty() {
        return Err("no entity is configured that is listed anywhere".to_owned());
    }
    Ok(lane.begin_run(id, is_sweep, names, at))
}

fn change<S: Store>(
    lanes: &mut Lanes<S>,
    which: &Snapshots,
    change: Change,
    at: Moment,
) -> Result<Vec<OutRecord>, String> {
    if let Some(store) = &which.store {
        lane(lanes, store)?;
    }
    let mut records = Vec::new();
    let mut found = false;
    for (store, lane) in lanes {
        let meant = |run: &&super::state::Run| !run.is_sweep && which.covers(store, &run.id);
        let ids: Vec<String> = lane.runs.values().filter(meant).map(|run| run.id.clone()).collect();
        for id in ids {
            found = true;
            records.extend(lane.change(&id, change, at));
        }
    }
    // To be told of nothing is an answer as well; to stop nothing is a mistake in the id.
    if !found && (change != Change::Tell || which.snapshot.is_some()) {
        return Err("there is no such snapshot under way".to_owned());
    }
    Ok(records)
}

fn sync<S: Store>(
    lane: &Lane<S>,
    entity: &str,
    ids: &[EntityId],
    source: &str,
    at: Moment,
) -> Vec<OutRecord> {
    let maker = Maker { intake: &lane.plan.intake, entity, cause: Cause::Sync, source, at_ms: at.wall_ms };
    let hints = ids.iter().enumerate().map(|(number, id)| maker.hint(id, &number.to_string(), None));
    let mut records: Vec<OutRecord> = hints.collect();
    let mut told =
        Notification::new(source, Kind::SyncDone, Some(&lane.plan.name), notify::timestamp(at.wall_ms));
    (told.rows, told.total) = (ids.len() as u64, Some(ids.len() as u64));
    told.started_at = Some(told.at);
    records.push(notify::record(&lane.notifications, &told));
    records
}
