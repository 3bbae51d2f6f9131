//! Commands that a person dropped: each gets an answer that is true, and nothing is sent.
//!
//! An id that ended before keeps its answer. One that may have been applied (its intent is durable and nothing tells how
//! it ended, or it ended so) is `unknown`: a person must look. The others end as `rejected`, with a dead letter.

use std::time::Instant;

use super::apply::Ending;
use super::known::State;
use super::{Item, LaneKey, Outgoing, What};
use crate::catalog::Class;
use crate::model::command::Outcome;
use crate::model::reason::Reason;
use crate::runtime::ports::{Append, Store};

impl<S: Store, A: Append> Outgoing<S, A> {
    /// Ends a lane's first command, which waited behind `by`; or lets it wait for what is known of its id.
    pub(super) fn drop_first(&mut self, line: usize, lane: &LaneKey, by: &str, now: Instant) {
        if !self.is_new(line, lane, now) {
            return;
        }
        let Some(item) = self.lines[line].lanes.head_mut(lane) else { return };
        // From here on no other lane begins it.
        let known = self.known.open(item.name());
        let ending = Box::new(dropped(item, before(item, known), by));
        self.push_job(line, std::future::ready(What::Ended(lane.clone(), ending)));
    }
}

/// How a command of this id ended before, if one did.
fn before<S>(item: &Item<S>, known: Option<State>) -> Option<Outcome> {
    match known {
        Some(State::Intent) => Some(Outcome::Unknown),
        Some(State::Done { outcome, .. }) => Some(outcome),
        Some(State::Open | State::Ended(_)) | None => item.anew.and_then(|anew| anew.before()),
    }
}

fn dropped<S>(item: &Item<S>, before: Option<Outcome>, by: &str) -> Ending {
    let detail = format!("a person dropped it; it waited behind {by:?}, which had failed");
    let (outcome, reason, detail) = match before {
        Some(Outcome::Unknown) => (
            Outcome::Unknown,
            Reason::InDoubt,
            format!("{detail}; whether it had been applied before, nobody knows"),
        ),
        // It was tried as often as it may be, which is not nothing.
        Some(Outcome::Dead) => (Outcome::Dead, Reason::Dropped, detail),
        Some(Outcome::Applied | Outcome::Partial | Outcome::Rejected | Outcome::DryRun) | None => {
            (Outcome::Rejected, Reason::Dropped, detail)
        }
    };
    Ending {
        outcome,
        reason: Some(reason),
        detail: Some(detail),
        last: None,
        found: None,
        found_id: None,
        attempts: 0,
        class: item.plan.as_ref().map_or(Class::C, |plan| plan.class),
    }
}
