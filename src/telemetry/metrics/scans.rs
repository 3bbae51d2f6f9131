//! What the leader counts: polls, snapshots, sweeps, and the signals that it was given.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Labels, Metrics, Word, Words, add, whole};
use crate::telemetry::names;

/// What the leader's scans and signals count.
#[derive(Debug)]
pub(super) struct Scans {
    running: Gauges<1>,
    pages: Counters<3>,
    hints: Counters<3>,
    failures: Counters<4>,
    last_success: Gauges<3>,
    duration: Gauges<3>,
    signals: Counters<1>,
}

impl Scans {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            running: add(r, names::SCANS_RUNNING, "Scans under way"),
            pages: add(r, names::SCAN_PAGES, "Pages that scans read"),
            hints: add(r, names::SCAN_HINTS, "Hints that scans made"),
            failures: add(r, names::SCAN_FAILURES, "Scans given up, and pages to be asked for again"),
            last_success: add(r, names::SCAN_LAST_SUCCESS, "When the last scan succeeded"),
            duration: add(r, names::SCAN_DURATION, "How long the last scan that succeeded took"),
            signals: add(r, names::SIGNALS, "Signals taken"),
        }
    }

    /// Drops the series of a store that left.
    pub(super) fn forget(&self, store: &Word, words: &Words) {
        let own = [("store", Arc::clone(store))];
        self.running.remove(&own);
        let [store] = own;
        for entity in words.entities.load().iter() {
            for kind in names::SCAN_KINDS {
                let labels = [store.clone(), ("entity", Arc::clone(entity)), ("kind", words.fixed(kind))];
                self.pages.remove(&labels);
                self.hints.remove(&labels);
                self.last_success.remove(&labels);
                self.duration.remove(&labels);
                let [store, entity, kind] = labels;
                for result in names::SCAN_FAILURE_RESULTS {
                    let result = ("result", words.fixed(result));
                    self.failures.remove(&[store.clone(), entity.clone(), kind.clone(), result]);
                }
            }
        }
    }
}

impl Metrics {
    /// A page of a scan was read, and so many hints were made of it.
    pub fn scan_page(&self, store: &str, entity: &str, kind: &str, hints: usize) {
        let labels = self.scan(store, entity, kind);
        self.inner.scans.pages.get_or_create(&labels).inc();
        self.inner.scans.hints.get_or_create(&labels).inc_by(hints as u64);
    }

    /// A scan succeeded at this time (unix milliseconds), after so long.
    pub fn scan_done(&self, store: &str, entity: &str, kind: &str, (at_ms, took): (i64, Duration)) {
        let labels = self.scan(store, entity, kind);
        self.inner.scans.last_success.get_or_create(&labels).set(at_ms / 1_000);
        self.inner.scans.duration.get_or_create(&labels).set(whole(took.as_secs()));
    }

    /// A page of a scan must be asked for again, or the scan was given up.
    pub fn scan_failed(&self, store: &str, entity: &str, kind: &str, given_up: bool) {
        let [store, entity, kind] = self.scan(store, entity, kind);
        let result = ("result", self.inner.words.fixed(if given_up { "given_up" } else { "retried" }));
        self.inner.scans.failures.get_or_create(&[store, entity, kind, result]).inc();
    }

    /// So many scans of a store are under way.
    pub fn scans_running(&self, store: &str, scans: usize) {
        self.inner.scans.running.get_or_create(&self.store(store)).set(whole(scans as u64));
    }

    /// A signal was carried out or refused.
    pub fn signal(&self, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "rejected" };
        self.inner.scans.signals.get_or_create(&self.fixed("outcome", outcome)).inc();
    }

    fn scan(&self, store: &str, entity: &str, kind: &str) -> Labels<3> {
        let words = &self.inner.words;
        let [store] = self.store(store);
        [store, ("entity", words.find(&words.entities.load(), entity)), ("kind", words.fixed(kind))]
    }
}
