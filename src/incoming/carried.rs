//! What to do with a row that came along with its hint: it is a read as well, made by whoever listed it. Pure.
//!
//! What must never happen is that such a row overwrites a newer one, though it was read by another process, on
//! another clock, from a list that may lag behind the single reads. So it is taken as a read only where nothing
//! contradicts it, and wherever there is doubt, the entity is read.

use std::cmp::Ordering;

use super::known::State;
use crate::model::hint::Cause;

/// How far the clocks of two replicas may differ, and a list may lag behind a single read, before a carried row is
/// taken for something that it is not. Replicas keep NTP time; BigCommerce's lag is seconds.
const MARGIN_MS: i64 = 10_000;

/// What to do with a carried row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is a read as good as any other: publish it.
    Publish,
    /// It is what was published.
    Unchanged,
    /// A read that is at least as new was published, and says the same.
    Superseded,
    /// Nobody can tell: read the entity.
    Read,
}

/// A row that came along with its hint.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// When it changed last, in unix seconds, where BigCommerce says so.
    pub version: Option<i64>,
    /// What it holds: see [`super::row::Row::content`].
    pub content: u64,
    /// When its read began, in unix milliseconds: but for the list's lag, what it holds is no older than that.
    pub began_ms: i64,
}

/// Decides, given what was published and what was carried.
pub fn decide(known: &State, carried: &Carried, cause: Cause) -> Decision {
    if cause == Cause::Callback {
        return Decision::Read;
    }
    let order = carried.version.zip(known.version).map(|(carried, known)| carried.cmp(&known));
    let says_the_same = known.holds(carried.content);
    let is_newer_read = known.seen_ms == 0 || carried.began_ms > known.seen_ms + MARGIN_MS;
    // A person who asked for a snapshot wants to see every entity in it.
    let wants_all = matches!(cause, Cause::Snapshot | Cause::Sync);
    match (is_newer_read, order) {
        (true, Some(Ordering::Less)) => Decision::Read,
        (true, _) if says_the_same && !wants_all => Decision::Unchanged,
        (true, _) | (false, Some(Ordering::Greater)) => Decision::Publish,
        (false, _) if says_the_same && wants_all => Decision::Superseded,
        (false, _) if says_the_same => Decision::Unchanged,
        (false, _) => Decision::Read,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(version: Option<i64>, seen_ms: i64, content: u64) -> State {
        State { version, seen_ms, content, gone: false }
    }

    fn row(version: Option<i64>, began_ms: i64, content: u64) -> Carried {
        Carried { version, content, began_ms }
    }

    #[test]
    fn each_case_has_its_answer() {
        let known = state(Some(100), 50_000, 7);
        for (carried, cause, expected) in [
            (row(Some(100), 70_000, 8), Cause::Sweep, Decision::Publish),
            (row(Some(101), 70_000, 8), Cause::Poll, Decision::Publish),
            (row(Some(99), 70_000, 8), Cause::Sweep, Decision::Read),
            (row(Some(100), 70_000, 7), Cause::Sweep, Decision::Unchanged),
            (row(Some(100), 70_000, 7), Cause::Snapshot, Decision::Publish),
            (row(Some(101), 40_000, 8), Cause::Sweep, Decision::Publish),
            (row(Some(100), 40_000, 7), Cause::Snapshot, Decision::Superseded),
            (row(Some(100), 40_000, 7), Cause::Sweep, Decision::Unchanged),
            (row(Some(100), 60_000, 8), Cause::Snapshot, Decision::Read),
            (row(None, 60_000, 8), Cause::Snapshot, Decision::Read),
            (row(Some(101), 70_000, 8), Cause::Callback, Decision::Read),
        ] {
            assert_eq!(decide(&known, &carried, cause), expected, "{carried:?} {cause:?}");
        }
        assert_eq!(
            decide(&State::default(), &row(Some(1), 5, 7), Cause::Snapshot),
            Decision::Publish,
            "never read"
        );
        let gone = State { gone: true, content: 7, ..known };
        assert_eq!(decide(&gone, &row(Some(100), 70_000, 7), Cause::Sweep), Decision::Publish, "it is back");
        assert_eq!(decide(&gone, &row(Some(100), 55_000, 7), Cause::Sweep), Decision::Read);
    }

    fn any_state() -> impl Strategy<Value = State> {
        let version = prop::option::of(0_i64..60);
        (version, 0_i64..60_000, 1_u64..4, any::<bool>())
            .prop_map(|(version, seen_ms, content, gone)| State { version, seen_ms, content, gone })
    }

    fn any_row() -> impl Strategy<Value = Carried> {
        (prop::option::of(0_i64..60), 0_i64..60_000, 1_u64..4)
            .prop_map(|(version, began_ms, content)| row(version, began_ms, content))
    }

    fn any_cause() -> impl Strategy<Value = Cause> {
        let causes = [Cause::Poll, Cause::Snapshot, Cause::Sweep, Cause::Sync, Cause::Recheck];
        prop::sample::select(causes.to_vec())
    }

    proptest! {
        #[test]
        fn nothing_older_is_ever_published(known in any_state(), carried in any_row(), cause in any_cause()) {
            let decision = decide(&known, &carried, cause);
            let older = carried.version.zip(known.version).is_some_and(|(new, old)| new < old);
            if decision == Decision::Publish {
                prop_assert!(!older);
                let later = known.seen_ms == 0 || carried.began_ms > known.seen_ms + MARGIN_MS;
                let newer = carried.version.zip(known.version).is_some_and(|(new, old)| new > old);
                prop_assert!(later || newer);
            }
            if matches!(decision, Decision::Unchanged | Decision::Superseded) {
                prop_assert!(known.content == carried.content && !known.gone);
            }
        }

        /// Whatever a lagging list shows of a history, dated or not, and in whatever order its rows come: once one
        /// state was read directly, what is published never goes back.
        #[test]
        fn rows_of_a_lagging_list_never_take_the_published_state_back(
            changes in prop::collection::vec(0_i64..20_000, 1..12),
            is_dated in any::<bool>(),
            reads in prop::collection::vec((0_i64..120_000, 0_i64..MARGIN_MS, 0_i64..30_000, any_cause()), 1..30),
        ) {
            // State n holds content n + 1 from times[n] on, dated in whole seconds.
            let times: Vec<i64> = changes.iter().scan(0, |at, step| { *at += step + 1_001; Some(*at) }).collect();
            let at = |ms: i64| times.iter().rposition(|since| *since <= ms);
            let date = |n: usize| is_dated.then(|| times[n] / 1000);
            let mut known = state(date(0), times[0], 1);
            let mut events: Vec<(i64, Carried, Cause)> = Vec::new();
            for (began_ms, lag, took, cause) in reads {
                let Some(n) = at(began_ms - lag) else { continue };
                events.push((began_ms + took, row(date(n), began_ms, n as u64 + 1), cause));
            }
            events.sort_by_key(|(in_hand, ..)| *in_hand);
            for (in_hand_ms, carried, cause) in events {
                match decide(&known, &carried, cause) {
                    Decision::Publish => {
                        prop_assert!(carried.content >= known.content, "{carried:?} follows {known:?}");
                        known = state(carried.version, known.seen_ms.max(in_hand_ms), carried.content);
                    }
                    // A read of the entity tells the truth as it is then.
                    Decision::Read => {
                        let n = at(in_hand_ms).unwrap_or(0);
                        known = state(date(n), known.seen_ms.max(in_hand_ms), n as u64 + 1);
                    }
                    Decision::Unchanged | Decision::Superseded => {
                        known.seen_ms = known.seen_ms.max(in_hand_ms);
                    }
                }
            }
        }
    }
}
