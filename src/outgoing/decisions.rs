//! What people decide about keys and routes that stand still: let them go on, or drop what waits.
//!
//! Decisions come by the signals topic to every process, since any may own the partition in question. They are kept
//! as long as there is room and name the very command, or the moment, that they are about, so that one that is seen
//! twice, or late, does no harm.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Decisions kept at most: as many as keys may stand still in one process. The oldest go first.
const MOST: usize = 10_000;

/// What a decision is about, within one store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// The key that the command of this id halted.
    Command(String),
    /// The route of this topic.
    Route(String),
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// When, in milliseconds since the epoch, by Kafka's clock.
    pub at_ms: i64,
    /// The key's waiting commands before this offset are dropped; none drops nothing.
    pub drop_before: Option<i64>,
}

/// All decisions that a process has heard of. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Decisions(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    decisions: HashMap<(String, About), Decision>,
    oldest: VecDeque<(String, About)>,
}

impl Decisions {
    /// Takes note of a decision; a later one about the same replaces it.
    pub fn take(&self, store: &str, about: About, decision: Decision) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (store.to_owned(), about);
        if kept.decisions.insert(name.clone(), decision).is_none() {
            kept.oldest.push_back(name);
        }
        if kept.oldest.len() > MOST
            && let Some(oldest) = kept.oldest.pop_front()
        {
            kept.decisions.remove(&oldest);
        }
    }

    /// What was decided, if anything.
    pub fn about(&self, store: &str, about: &About) -> Option<Decision> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.decisions.get(&(store.to_owned(), about.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_decision_counts_and_the_oldest_are_forgotten() {
        let decisions = Decisions::default();
        let about = |number: usize| About::Command(format!("c-{number}"));
        let first = Decision { at_ms: 1, drop_before: None };
        for number in 0..=MOST {
            decisions.take("main", about(number), first);
        }
        assert_eq!(decisions.about("main", &about(0)), None);
        assert_eq!(decisions.about("other", &about(1)), None);
        let second = Decision { at_ms: 2, drop_before: Some(7) };
        decisions.take("main", about(1), second);
        assert_eq!(decisions.about("main", &about(1)), Some(second));
        assert_eq!(decisions.about("main", &About::Route("c-1".into())), None);
    }
}
