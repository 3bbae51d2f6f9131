//! What people decide about keys and routes that stand still: let them go on, or drop what waits.
//!
//! Decisions come by the signals topic to every process, since any may own the partition in question. They are kept
//! as long as there is room and name the very command, or the route, that they are about.
//!
//! Whether one was made before or after something stood still is told by places on that topic, which all processes
//! count alike, and by no clock: what stands still notes which decision could be the next one ([`Decisions::next`]).
//! Until all that stood on the topic when the process began to read it was taken, nothing counts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Decisions kept at most: as many as keys may stand still in one process. The oldest go first.
pub(super) const MOST: usize = 10_000;

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
    /// Where it stands on the signals topic, which has one partition.
    pub place: i64,
    /// When it was sent, in milliseconds since the epoch, by its sender's clock.
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
    /// The place behind the last decision that was taken.
    taken: i64,
    /// Where the topic ended when it was begun to be read; none before that.
    end: Option<i64>,
    /// What stood there has not all been taken yet.
    is_behind: bool,
}

impl Decisions {
    /// The signals topic is read from its beginning, and ends here now.
    pub fn begin(&self, end: i64) {
        let mut kept = self.kept();
        // A topic that was made anew counts anew.
        kept.taken = 0;
        kept.end = Some(end);
        kept.is_behind = end > 0;
    }

    /// The record at this place of the signals topic was taken, or is of no interest here.
    pub fn reach(&self, place: i64) {
        let mut kept = self.kept();
        kept.taken = kept.taken.max(place + 1);
        kept.is_behind &= kept.end.is_some_and(|end| kept.taken < end);
    }

    /// Nothing more stood on the topic: its last places hold no records.
    pub fn caught_up(&self) {
        self.kept().is_behind = false;
    }

    /// Whether decisions of before the start are still missing.
    pub fn is_behind(&self) -> bool {
        self.kept().is_behind
    }

    /// The first place at which a decision can be that is yet to be made; none while that is not known.
    pub fn next(&self) -> Option<i64> {
        let kept = self.kept();
        kept.end.map(|end| end.max(kept.taken))
    }

    /// Takes note of a decision; a later one about the same replaces it.
    pub fn take(&self, store: &str, about: About, decision: Decision) {
        let mut kept = self.kept();
        kept.taken = kept.taken.max(decision.place + 1);
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

    /// What was decided about something that stands still since a moment, if anything: `next` is what [`Self::next`]
    /// said then, and `at_ms` the time by the clock of its owner, which tells only where `next` does not.
    pub fn since(&self, store: &str, about: &About, next: Option<i64>, at_ms: i64) -> Option<Decision> {
        let kept = self.kept();
        let decision = kept.decisions.get(&(store.to_owned(), about.clone())).copied()?;
        let end = kept.end.map_or(i64::MAX, |end| end.max(kept.taken));
        let is_later = match next {
            Some(next) if next <= end => decision.place >= next,
            // The topic ended further on then: it was made anew, and all that stands there came later.
            Some(_) => true,
            None => decision.at_ms >= at_ms,
        };
        (is_later && !kept.is_behind).then_some(decision)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(place: i64) -> Decision {
        Decision { place, at_ms: 0, drop_before: None }
    }

    fn about(number: usize) -> About {
        About::Command(format!("c-{number}"))
    }

    #[test]
    fn the_last_decision_counts_and_the_oldest_are_forgotten() {
        let decisions = Decisions::default();
        for number in 0..=MOST {
            decisions.take("main", about(number), decision(1));
        }
        let found = |store, about| decisions.since(store, &about, Some(0), 0);
        assert_eq!(found("main", about(0)), None);
        assert_eq!(found("other", about(1)), None);
        let second = Decision { drop_before: Some(7), ..decision(2) };
        decisions.take("main", about(1), second);
        assert_eq!(found("main", about(1)), Some(second));
        assert_eq!(found("main", About::Route("c-1".into())), None);
    }

    #[test]
    fn a_decision_counts_for_what_stood_still_when_it_was_made_whatever_clocks_say() {
        let decisions = Decisions::default();
        decisions.begin(0);
        let first = decisions.next();
        decisions.reach(0);
        decisions.take("main", about(1), Decision { at_ms: -1_000_000, ..decision(0) });
        assert!(decisions.since("main", &about(1), first, 5).is_some(), "the sender's clock is slow");
        let second = decisions.next();
        assert_eq!((first, second), (Some(0), Some(1)));
        assert_eq!(
            decisions.since("main", &about(1), second, -2_000_000),
            None,
            "it was about the first time"
        );
        assert_eq!(decisions.since("main", &about(1), None, 5), None, "only the clocks tell");
        assert!(decisions.since("main", &about(1), None, -1_000_000).is_some());
    }

    #[test]
    fn nothing_counts_before_all_was_read_that_had_been_decided() {
        let decisions = Decisions::default();
        decisions.begin(3);
        assert_eq!(decisions.next(), Some(3), "what stands there was decided before");
        decisions.reach(0);
        decisions.take("main", about(1), decision(0));
        assert_eq!(decisions.since("main", &about(1), Some(0), 0), None, "it may have been taken back");
        decisions.reach(2);
        assert!(decisions.since("main", &about(1), Some(0), 0).is_some());
        // The last places may hold nothing that can be read.
        decisions.begin(9);
        decisions.reach(2);
        assert!(decisions.is_behind());
        decisions.caught_up();
        assert!(decisions.since("main", &about(1), Some(0), 0).is_some());
    }

    #[test]
    fn what_is_decided_on_a_topic_that_was_made_anew_is_later_than_all_before() {
        let decisions = Decisions::default();
        decisions.begin(0);
        decisions.reach(0);
        decisions.take("main", about(1), decision(0));
        assert!(decisions.since("main", &about(1), Some(4_711), 0).is_some());
    }
}
