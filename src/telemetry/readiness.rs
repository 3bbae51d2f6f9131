//! Readiness: which named parts of the process cannot do their work yet.
//!
//! Each part holds a flag and sets it; whoever answers a readiness check asks for the list. A part is not ready until
//! it says so, and a process without parts is ready. Names are fixed words, never ids of stores or customers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Parts = BTreeMap<&'static str, bool>;

/// The list of parts; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<Parts>>,
}

/// One part's flag; clones share it.
#[derive(Clone, Debug)]
pub struct ReadyFlag {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// No part yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part that is not ready yet. The same name again gives the same flag, and resets it.
    #[must_use]
    pub fn part(&self, name: &'static str) -> ReadyFlag {
        self.with(|parts| parts.insert(name, false));
        ReadyFlag { name, readiness: self.clone() }
    }

    /// The parts that are not ready, sorted by name; empty when all are.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.with(|parts| parts.iter().filter(|(_, ready)| !**ready).map(|(name, _)| *name).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Parts) -> T) -> T {
        // A map of flags is whole after any panic.
        act(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ReadyFlag {
    /// The part can do its work.
    pub fn ready(&self) {
        self.readiness.with(|parts| parts.insert(self.name, true));
    }

    /// The part cannot do its work (any more).
    pub fn not_ready(&self) {
        self.readiness.with(|parts| parts.insert(self.name, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_each_of_its_parts_has_said_so() {
        let readiness = Readiness::new();
        assert!(readiness.waiting_for().is_empty());
        let (kafka, hooks) = (readiness.part("kafka"), readiness.part("hooks"));
        assert_eq!(readiness.waiting_for(), ["hooks", "kafka"]);
        kafka.clone().ready();
        hooks.ready();
        assert!(readiness.waiting_for().is_empty());
        kafka.not_ready();
        assert_eq!(readiness.clone().waiting_for(), ["kafka"]);
    }
}
