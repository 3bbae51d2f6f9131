//! What must hold of a run's history, once the faults are over and everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::load::Emitted;
use super::store::{Kind, POISON, State, Truth};
use super::visible::{Visible, text};
use super::world::World;
use crate::model::hint::header;
use crate::model::record::OutRecord;

const KINDS: [(Kind, &str); 3] = [
    (Kind::Product, "bigcommerce.main.product"),
    (Kind::Order, "bigcommerce.main.order"),
    (Kind::Stock, "bigcommerce.main.inventory_item"),
];

fn key(record: &OutRecord) -> u64 {
    std::str::from_utf8(record.key.as_deref().unwrap()).unwrap().parse().unwrap()
}

fn body(record: &OutRecord) -> Option<Value> {
    record.value.as_deref().map(|value| serde_json::from_slice(value).unwrap())
}

fn counter(record: &OutRecord) -> Option<u64> {
    body(record).map(|body| body["n"].as_u64().unwrap())
}

/// For a failure's message.
fn headers(record: &OutRecord) -> String {
    let shown = ["bc_op", "bc_read_at", "bc_version", "bc_suspect_stale", "bc_events"];
    shown.map(|name| format!("{name}={}", text(record, name).unwrap_or(""))).join(" ")
}

/// All checks.
pub(super) fn history(world: &World, out: &[Visible], emitted: &[Emitted], truth: &Truth) {
    for (kind, topic) in KINDS {
        let records: Vec<&OutRecord> = out.iter().map(|v| &v.record).filter(|r| &*r.topic == topic).collect();
        order(world, kind, &records);
        convergence(kind, &records, emitted, truth);
        once(kind, &records, out, emitted, truth);
    }
}

/// I3: for one key, what was published never becomes older.
fn order(world: &World, kind: Kind, records: &[&OutRecord]) {
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for record in records {
        let Some(n) = counter(record) else {
            world.saw("tombstone");
            continue;
        };
        let version = text(record, "bc_version").unwrap().split_once('.').unwrap().0.parse().unwrap();
        let (before, seconds) = last.insert(key(record), (n, version)).unwrap_or_default();
        let key = key(record);
        assert!(version >= seconds, "{kind:?} {key}: the version {version} follows {seconds}");
        assert!(n >= before, "{kind:?} {key}: the state {n} follows {before}");
        if text(record, "bc_suspect_stale").is_some() {
            world.saw("suspect");
        }
    }
}

/// I5: the last record of each key that was hinted at is the store's last state.
fn convergence(kind: Kind, records: &[&OutRecord], emitted: &[Emitted], truth: &Truth) {
    let last: BTreeMap<u64, &OutRecord> = records.iter().map(|record| (key(record), *record)).collect();
    let states = truth.all(kind);
    // What the store refuses to show ends in dead letters; a list may show it all the same.
    for id in changed(kind, emitted, truth).into_iter().filter(|id| kind != Kind::Product || *id != POISON) {
        let Some(record) = last.get(&id) else { continue };
        let state = states.get(&id).copied().unwrap_or(State::Gone);
        assert_eq!(counter(record), state.counter(), "{kind:?} {id} ended with {}", headers(record));
        if kind == Kind::Order {
            let body = body(record).unwrap();
            assert_eq!(body["products"][0]["n"].as_u64(), state.counter(), "a mixture: {body}");
            assert_eq!(body["is_deleted"], matches!(state, State::Archived(_)), "{body}");
        }
    }
}

/// The keys of the records that the callbacks were about.
fn changed(kind: Kind, emitted: &[Emitted], truth: &Truth) -> BTreeSet<u64> {
    emitted.iter().filter(|e| e.kind == kind).flat_map(|e| wanted(e, truth)).collect()
}

fn wanted(emitted: &Emitted, truth: &Truth) -> Vec<u64> {
    match (&emitted.rows, emitted.kind) {
        (Some(rows), _) => rows.clone(),
        (None, Kind::Stock) => truth.variants(emitted.id),
        (None, Kind::Product | Kind::Order) => vec![emitted.id],
    }
}

/// I1, I2 and I4: every event in exactly one record of each of its keys, or in a dead letter; and no record
/// that lists it holds a state from before it.
fn once(kind: Kind, records: &[&OutRecord], out: &[Visible], emitted: &[Emitted], truth: &Truth) {
    let mut listed: BTreeMap<(&str, u64), Vec<&OutRecord>> = BTreeMap::new();
    for record in records {
        let events: Vec<&str> = text(record, "bc_events").unwrap().split(',').collect();
        assert_eq!(text(record, "bc_events_count").unwrap(), events.len().to_string());
        events.iter().for_each(|event| listed.entry((*event, key(record))).or_default().push(record));
    }
    let letters = out.iter().map(|v| &v.record).filter(|r| &*r.topic == "bigcommerce.main.dlq");
    let dead: BTreeSet<&str> = letters.filter_map(|record| text(record, header::EVENT)).collect();
    for emitted in emitted.iter().filter(|e| e.kind == kind) {
        for key in wanted(emitted, truth) {
            let records = listed.remove(&(emitted.event.as_str(), key)).unwrap_or_default();
            let is_dead = dead.contains(emitted.event.as_str());
            let shown = || records.iter().map(|record| headers(record)).collect::<Vec<_>>().join("\n");
            assert!(records.len() <= 1, "{emitted:?} is in several records of {key}:\n{}", shown());
            assert!(records.len() == 1 || is_dead, "{emitted:?} is in no record of {key}");
            for record in records {
                let is_suspect = text(record, "bc_suspect_stale").is_some();
                let fresh = counter(record).is_none_or(|n| emitted.counter.is_none_or(|at| n >= at));
                assert!(fresh || is_suspect, "{emitted:?} is answered by an older state");
            }
        }
    }
    // What the bridge makes of its own accord is listed at most once as well.
    for ((event, key), records) in &listed {
        assert!(records.len() <= 1, "{event} is in several records of {key}");
    }
    let sent: BTreeSet<&str> = emitted.iter().map(|e| e.event.as_str()).collect();
    let is_own = |event: &str| event.starts_with("recheck-") || event.starts_with("listed-");
    listed.retain(|(event, _), _| !sent.contains(event) && !is_own(event));
    assert!(listed.is_empty(), "events nobody sent: {:?}", listed.keys());
}
