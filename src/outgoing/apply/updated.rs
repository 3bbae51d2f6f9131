//! The second half of an upsert: the update of the thing that the probe found.

use std::time::Instant;

use super::{Applying, MAX_TURNS, Phase, Step, is_already_so};
use crate::catalog::{BatchReply, Class};
use crate::model::command::Outcome;
use crate::model::reason::Reason;
use crate::model::request::{Answer, Reply};
use crate::outgoing::batch;
use crate::outgoing::plan::Update;

impl Applying {
    pub(super) fn update_found(&mut self, id: String) -> Step {
        let Some(update) = &self.plan.update else { return self.step() };
        match update.request(&id) {
            Ok(request) => {
                // The update says all that the create would have said: whether the create came through is settled.
                (self.in_doubt, self.misses, self.refusal) = (false, 0, None);
                self.phase = Phase::Update { id, request };
                self.step()
            }
            Err((reason, detail)) => self.end(Outcome::Rejected, reason, &detail),
        }
    }

    pub(super) fn on_updated(&mut self, id: String, reply: Reply, now: Instant, draw: f64) -> Step {
        let Some(update) = &self.plan.update else { return self.step() };
        let (class, is_so) = (update.class, is_already_so(&update.already_so, &reply));
        // Some endpoints answer 200 to a thing that they do not know, and list nothing.
        let answer = match reply.answer {
            Answer::Done if is_listed(update) && batch::lists_nothing(&reply.body) => Answer::Missing,
            answer => answer,
        };
        match answer {
            Answer::Done => self.applied(Some(id)),
            Answer::Partial => self.partial(),
            _ if is_so => self.applied(Some(id)),
            // It went since the probe: look again.
            Answer::Missing if self.turns < MAX_TURNS => {
                self.turns += 1;
                self.phase = Phase::Probe;
                self.step()
            }
            Answer::Doubtful if class == Class::A => {
                self.doubts += 1;
                self.retry(&reply.detail, now, draw)
            }
            Answer::Doubtful => self.end(Outcome::Unknown, Reason::InDoubt, &reply.detail),
            answer => self.refused(answer, &reply.detail),
        }
    }
}

/// Whether a success lists what was written.
fn is_listed(update: &Update) -> bool {
    let batch = update.command.entity.action[update.action].batch.as_ref();
    batch.is_some_and(|batch| batch.reply == BatchReply::Rows)
}
