//! How the paths of all stores fare: what readiness tells, what stands still, and when one store's failure is
//! everybody's.
//!
//! One flag stands for a path of all stores. A store that a reload added or began anew does not take the flag down
//! before it has once been up: the process would be taken out of service, and the callbacks of all others with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::outgoing::Standing;
use crate::telemetry::{Metrics, Readiness, ReadyFlag, names};

/// How a path of a store fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartState {
    /// It has no partitions yet, or lost them.
    Waiting,
    /// As `Waiting`, of a store that came or changed by a reload: nobody waits for it.
    Fresh,
    /// It has partitions.
    Up,
    /// It ended with an error and is to be started again.
    Failed,
}

type Parts = BTreeMap<(Arc<str>, &'static str), PartState>;

/// See the module. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Health {
    parts: Arc<Mutex<Parts>>,
    flags: BTreeMap<&'static str, ReadyFlag>,
    /// By store: what stands still on the way to it. Stores of which nothing does are left out.
    standing: Arc<Mutex<BTreeMap<Arc<str>, Standing>>>,
    /// Open records of each path, of all stores together.
    open: BTreeMap<&'static str, Arc<AtomicI64>>,
}

impl Health {
    /// A flag for each of `paths`, which is not ready before a store's path is.
    pub(super) fn new(readiness: &Readiness, paths: &[&'static str]) -> Self {
        Self {
            parts: Arc::default(),
            standing: Arc::default(),
            flags: paths.iter().map(|path| (*path, readiness.part(path))).collect(),
            open: names::PATHS.iter().map(|path| (*path, Arc::default())).collect(),
        }
    }

    /// A path of a store fares so from now on.
    pub(super) fn set(&self, store: &Arc<str>, path: &'static str, state: PartState) {
        let mut parts = self.parts();
        let now = parts.entry((store.clone(), path)).or_insert(state);
        // To be without partitions is no news of a path that nobody waits for, and no cure of one that failed.
        if state != PartState::Waiting || *now == PartState::Up {
            *now = state;
        }
        self.tell(&parts);
    }

    /// A path of a store failed. Whether there is a store of which that cannot be said.
    pub(super) fn failed(&self, store: &Arc<str>, path: &'static str) -> bool {
        self.set(store, path, PartState::Failed);
        let parts = self.parts();
        let has_failed =
            |name: &Arc<str>| parts.iter().any(|((of, _), state)| of == name && *state == PartState::Failed);
        parts.keys().any(|(name, _)| !has_failed(name))
    }

    /// This stands still on the way to a store, from now on.
    pub(super) fn stands(&self, store: &Arc<str>, now: &Standing) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == Standing::default() {
            standing.remove(store);
        } else {
            standing.insert(store.clone(), now.clone());
        }
    }

    /// What stands still in this process, by store.
    pub(super) fn standing(&self) -> BTreeMap<Arc<str>, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A store is gone.
    pub(super) fn forget(&self, store: &str) {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).remove(store);
        let mut parts = self.parts();
        parts.retain(|(name, _), _| &**name != store);
        self.tell(&parts);
    }

    /// Counts the open records of one runner, which had `before` of them.
    pub(super) fn open(&self, metrics: &Metrics, path: &'static str, before: i64, now: i64) {
        let Some(all) = self.open.get(path).filter(|_| before != now) else { return };
        let sum = all.fetch_add(now - before, Ordering::Relaxed) + now - before;
        metrics.open_records(path, u64::try_from(sum).unwrap_or(0));
    }

    fn tell(&self, parts: &Parts) {
        for (path, flag) in &self.flags {
            let mut of_path = parts.iter().filter(|((_, of), _)| of == path);
            if of_path.all(|(_, state)| matches!(state, PartState::Up | PartState::Fresh)) {
                flag.ready();
            } else {
                flag.not_ready();
            }
        }
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        // A map of states is whole after any panic.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Readiness, Health, Arc<str>, Arc<str>) {
        let readiness = Readiness::new();
        let health = Health::new(&readiness, &["incoming", "outgoing"]);
        (readiness, health, "a".into(), "b".into())
    }

    #[test]
    fn a_path_is_ready_when_it_is_up_for_every_store_that_was_there_from_the_start() {
        let (readiness, health, a, b) = health();
        assert_eq!(readiness.waiting_for(), ["incoming", "outgoing"]);
        for store in [&a, &b] {
            health.set(store, "incoming", PartState::Waiting);
            health.set(store, "outgoing", PartState::Up);
        }
        health.set(&a, "incoming", PartState::Up);
        assert_eq!(readiness.waiting_for(), ["incoming"]);
        health.set(&b, "incoming", PartState::Up);
        assert!(readiness.waiting_for().is_empty());
        health.set(&b, "incoming", PartState::Waiting);
        assert_eq!(readiness.waiting_for(), ["incoming"]);
        health.forget("b");
        assert!(readiness.waiting_for().is_empty());
    }

    #[test]
    fn nobody_waits_for_a_store_that_came_by_a_reload_until_it_fails() {
        let (readiness, health, a, b) = health();
        for path in ["incoming", "outgoing"] {
            health.set(&a, path, PartState::Up);
            health.set(&b, path, PartState::Fresh);
            health.set(&b, path, PartState::Waiting);
        }
        assert!(readiness.waiting_for().is_empty());
        assert!(health.failed(&b, "incoming"), "the other store is well");
        assert_eq!(readiness.waiting_for(), ["incoming"]);
    }

    #[test]
    fn what_stands_still_is_told_until_it_goes_on_or_its_store_is_gone() {
        let (_, health, a, b) = health();
        let now = Standing { routes: ["commands".into()].into(), keys: 2 };
        health.stands(&a, &now);
        health.stands(&b, &now);
        assert_eq!(health.standing().len(), 2);
        health.stands(&a, &Standing::default());
        assert_eq!(health.standing(), BTreeMap::from([(b, now)]));
        health.forget("b");
        assert!(health.standing().is_empty());
    }

    #[test]
    fn a_failure_is_everybodys_when_no_store_is_without_one() {
        let (_, health, a, b) = health();
        for store in [&a, &b] {
            health.set(store, "incoming", PartState::Up);
            health.set(store, "outgoing", PartState::Up);
        }
        assert!(health.failed(&a, "incoming"));
        assert!(health.failed(&a, "outgoing"), "one store fails as a whole");
        assert!(!health.failed(&b, "outgoing"));
        health.set(&a, "incoming", PartState::Up);
        health.set(&a, "outgoing", PartState::Up);
        assert!(health.failed(&b, "incoming"));
    }
}
