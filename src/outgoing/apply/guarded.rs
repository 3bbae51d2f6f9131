//! A guarded command: its intent, then a read, then its write; and a read again before each further write.
//!
//! A write in doubt changes the version by itself, if it came through. So a command of class A has an intent as
//! well where it is guarded, and the read that follows a doubt asks for more than the version: a thing that changed
//! and holds all that the command writes counts as written; one that changed and does not is unknown, since nobody
//! can tell whether the write came through and was overwritten, or another one came first.

use std::time::Instant;

use super::{Applying, Ending, Phase, Step};
use crate::model::command::Outcome;
use crate::model::reason::Reason;
use crate::model::request::{Answer, Reply};
use crate::outgoing::guard::Seen;

impl Applying {
    pub(super) fn send_guard(&mut self) -> Step {
        match &self.plan.guard {
            Some(guard) => Step::Send(guard.request.clone(), None),
            None => self.end(Outcome::Rejected, Reason::Stale, "nothing tells how to read it"),
        }
    }

    /// Whatever a write was answered: before the next one, the thing is read again.
    pub(super) fn guard_again(&mut self) {
        if self.plan.guard.is_some() && matches!(self.phase, Phase::Write) {
            self.phase = Phase::Guard;
        }
    }

    /// The reply to the read.
    pub(super) fn on_guarded(&mut self, reply: &Reply, now: Instant, draw: f64) -> Step {
        let Some(guard) = &self.plan.guard else { return self.step() };
        let seen = match reply.answer {
            Answer::Done | Answer::Partial => guard.judge(&reply.body),
            Answer::Missing => Seen::Gone,
            Answer::Doubtful => {
                self.doubts += 1;
                return self.retry("the thing could not be read", now, draw);
            }
            answer if self.in_doubt => {
                let detail = format!("it was in doubt, and could not be read ({answer:?})");
                return self.end(Outcome::Unknown, Reason::InDoubt, &detail);
            }
            answer => return self.refused(answer, &reply.detail),
        };
        // The read is not the command's reply: its body is no result.
        let last = self.last.take().filter(|_| seen == Seen::Gone);
        match seen {
            Seen::AsWanted => {
                self.phase = Phase::Write;
                self.step()
            }
            Seen::Gone if self.is_repeated_delete() => self.applied(None),
            Seen::Gone => {
                self.last = last;
                self.end(Outcome::Rejected, Reason::Missing, "the thing is not there")
            }
            Seen::Changed { row, .. } if self.in_doubt && guard.is_written(&row) => {
                let detail = "its write was in doubt, and the thing holds all of it".to_owned();
                Step::End(Box::new(Ending {
                    detail: Some(detail),
                    found: Some(row),
                    ..self.ending(Outcome::Applied)
                }))
            }
            Seen::Changed { detail, .. } if self.in_doubt => {
                let detail = format!("its write was in doubt, and the thing changed since: {detail}");
                self.end(Outcome::Unknown, Reason::InDoubt, &detail)
            }
            Seen::Changed { detail, .. } => self.end(Outcome::Rejected, Reason::Stale, &detail),
            Seen::Unreadable { detail } if self.in_doubt => {
                let detail = format!("it was in doubt, and its version could not be read: {detail}");
                self.end(Outcome::Unknown, Reason::InDoubt, &detail)
            }
            Seen::Unreadable { detail } => self.end(Outcome::Rejected, Reason::BadReply, &detail),
        }
    }
}
