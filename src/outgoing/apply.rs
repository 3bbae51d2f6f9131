//! The life of one command: what is sent, what is waited for, and when it is over.
//!
//! A pure state machine: it is told what happened and answers with one step. It never sends a thing of class C
//! twice, never sends one of class B again before two probes did not find it, and never sends either before its
//! intent is durable. Whatever the store answers, each command ends: budgets bound every way to go round.

mod guarded;
mod lost;
mod updated;

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::batch::{self, Part};
use super::plan::{Found, Plan};
use crate::catalog::Class;
use crate::model::command::Outcome;
use crate::model::reason::Reason;
use crate::model::request::{Answer, Method, Reply, Request};

/// How long and how often a command is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Doubtful replies, and
    pub attempts: u32,
    /// time since the first try, that must both be used up before a command is given up.
    pub for_doubt: Duration,
    /// How long a command may wait for a store that does not take it (429, 423, no connection), or for Kafka to
    /// take its intent.
    pub for_busy: Duration,
    /// How long a command may wait for a token that is valid.
    pub for_token: Duration,
    /// How long the whole store is left alone after it did not take the token.
    pub token_pause: Duration,
}

impl Default for Budget {
    /// 8 attempts and 5 minutes. 48 hours of a busy store: the longest outage that the bridge promises to sit out.
    /// One hour for a person to renew a token.
    fn default() -> Self {
        Self {
            attempts: 8,
            for_doubt: Duration::from_secs(300),
            for_busy: Duration::from_secs(48 * 3600),
            for_token: Duration::from_secs(3600),
            token_pause: Duration::from_secs(60),
        }
    }
}

/// The first wait after a failure; it doubles up to the last one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// How long a create is given to show up in a list: before the first probe, and before the second one. A request
/// that was cut may still be worked on.
const PROBE_WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// How often an upsert may find that the thing came or went between its probe and its write.
const MAX_TURNS: u32 = 3;

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send, once the intent is durable where [`Applying::needs_intent`]; where there is a part, perhaps in a request
    /// that holds other commands' writes as well.
    Send(Request, Option<Part>),
    /// Come back after a while.
    Wait(Duration),
    /// Come back after a while, and leave the whole store alone until then.
    Pause(Duration),
    /// It is over.
    End(Box<Ending>),
}

/// How a command ended, and all that is known about it.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
    pub(super) detail: Option<String>,
    pub(super) last: Option<Last>,
    /// The thing's JSON, where a probe found it.
    pub(super) found: Option<Value>,
    /// The id of the thing that an upsert updated.
    pub(super) found_id: Option<String>,
    pub(super) attempts: u32,
    pub(super) class: Class,
}

/// The last reply that said something.
#[derive(Debug, Clone)]
pub(super) struct Last {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) request_id: Option<String>,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Of a guarded command: the read before each write.
    Guard,
    Probe,
    Write,
    /// Of an upsert: the update of what the probe found.
    Update {
        id: String,
        request: Request,
    },
}

/// One command under way.
#[derive(Debug)]
pub(super) struct Applying {
    plan: Plan,
    budget: Budget,
    phase: Phase,
    /// The intent is durable, or none is needed.
    is_meant: bool,
    /// Since something came of it: until then it only waited for its turn.
    since: Option<Instant>,
    /// The reply was to a request that held other commands' writes as well.
    is_shared: bool,
    unauthorized_since: Option<Instant>,
    /// Writes that were sent.
    attempts: u32,
    /// Replies that left it open what happened, probes included.
    doubts: u32,
    /// Waits in a row that cost no attempt.
    patience: u32,
    /// A write may have been applied, and no probe has settled it yet.
    in_doubt: bool,
    /// Some write was in doubt at some time: a conflict may be with ourselves.
    ever_in_doubt: bool,
    /// Probes in a row that did not find it.
    misses: usize,
    turns: u32,
    /// A refusal that stands unless a probe finds the thing.
    refusal: Option<(Reason, Last, String)>,
    last: Option<Last>,
}

impl Applying {
    /// A command whose first step is asked for by [`Applying::step`]. `intent_found`: an earlier process made its
    /// intent durable, and nothing tells how it ended.
    pub(super) fn new(plan: Plan, budget: Budget, intent_found: bool) -> Self {
        let has_intent = plan.class != Class::A || plan.guard.is_some();
        let in_doubt = intent_found && has_intent;
        let phase = match plan.class {
            Class::B if in_doubt || plan.update.is_some() => Phase::Probe,
            Class::A | Class::B if plan.guard.is_some() => Phase::Guard,
            Class::C if plan.guard.is_some() && !in_doubt => Phase::Guard,
            Class::A | Class::B | Class::C => Phase::Write,
        };
        let is_meant = intent_found || !has_intent;
        Self {
            plan,
            budget,
            phase,
            is_meant,
            since: None,
            is_shared: false,
            unauthorized_since: None,
            attempts: 0,
            doubts: 0,
            patience: 0,
            in_doubt,
            ever_in_doubt: in_doubt,
            misses: 0,
            turns: 0,
            refusal: None,
            last: None,
        }
    }

    /// The class it is applied under.
    pub(super) fn class(&self) -> Class {
        self.plan.class
    }

    /// Whether its intent may be forgotten by whoever begins it anew: no write of it can have had an effect.
    pub(super) fn is_unsent(&self) -> bool {
        (self.plan.class != Class::A || self.plan.guard.is_some()) && !self.ever_in_doubt
    }

    /// What to do now: at the beginning and after each wait.
    pub(super) fn step(&mut self) -> Step {
        match &self.phase {
            Phase::Probe => match &self.plan.probe {
                Some(probe) => Step::Send(probe.request.clone(), None),
                None => self.end(Outcome::Unknown, Reason::InDoubt, "nothing tells how to find it again"),
            },
            Phase::Write if self.in_doubt && self.plan.class == Class::C => self.end(
                Outcome::Unknown,
                Reason::InDoubt,
                "a restart came between its intent and its outcome",
            ),
            Phase::Guard => self.send_guard(),
            Phase::Write => {
                self.attempts += 1;
                Step::Send(self.plan.write.clone(), self.plan.shared())
            }
            Phase::Update { request, .. } => {
                self.attempts += 1;
                Step::Send(request.clone(), None)
            }
        }
    }

    /// Whether its intent must be made durable before anything is sent.
    pub(super) fn needs_intent(&self) -> bool {
        !self.is_meant
    }

    /// Whether it may wait as well as one that was never begun: nothing of it can have had an effect.
    pub(super) fn is_fresh(&self) -> bool {
        !self.ever_in_doubt && self.doubts == 0
    }

    /// What the last step said was not sent.
    pub(super) fn withdraw(&mut self) {
        if matches!(self.phase, Phase::Write | Phase::Update { .. }) {
            self.attempts = self.attempts.saturating_sub(1);
        }
    }

    /// Nothing was sent, since Kafka did not take the intent.
    pub(super) fn on_no_intent(&mut self, now: Instant, draw: f64) -> Step {
        self.withdraw();
        self.be_patient(Duration::ZERO, "its intent could not be made durable", now, draw)
    }

    /// The store's reply to a request that held other commands' writes as well, as far as it is about this one. What
    /// is doubtful then does not use up the budget: it may be another's fault, and the next request holds fewer.
    pub(super) fn on_shared_reply(&mut self, reply: Reply, now: Instant, draw: f64) -> Step {
        self.is_shared = true;
        let step = self.on_reply(reply, now, draw);
        self.is_shared = false;
        step
    }

    /// The store's reply to what was sent. `draw` is a random number from 0 to 1.
    pub(super) fn on_reply(&mut self, reply: Reply, now: Instant, draw: f64) -> Step {
        self.since.get_or_insert(now);
        self.is_meant = true;
        if reply.status != 0 {
            let Reply { status, body, request_id, .. } = &reply;
            self.last = Some(Last { status: *status, body: body.clone(), request_id: request_id.clone() });
        }
        let phase = self.phase.clone();
        self.guard_again();
        match reply.answer {
            Answer::Busy { after } => return self.be_patient(after, &reply.detail, now, draw),
            Answer::Unauthorized => return self.await_token(&reply.detail, now),
            Answer::Done
            | Answer::Partial
            | Answer::Missing
            | Answer::Conflict
            | Answer::Invalid
            | Answer::Forbidden
            | Answer::Doubtful => {}
        }
        (self.patience, self.unauthorized_since) = (0, None);
        match phase {
            Phase::Guard => self.on_guarded(&reply, now, draw),
            Phase::Probe => self.on_probed(reply, now, draw),
            Phase::Write => self.on_written(reply, now, draw),
            Phase::Update { id, .. } => self.on_updated(id, reply, now, draw),
        }
    }

    fn on_written(&mut self, reply: Reply, now: Instant, draw: f64) -> Step {
        let reply = match &self.plan.part {
            Some(part) if !self.is_shared => batch::alone(part, reply),
            Some(_) | None => reply,
        };
        let findable = self.plan.update.is_some() || (self.plan.class == Class::B && self.ever_in_doubt);
        match reply.answer {
            Answer::Done => self.applied(None),
            Answer::Partial => self.partial(),
            Answer::Missing if self.is_repeated_delete() => self.applied(None),
            _ if is_already_so(&self.plan.already_so, &reply) => self.applied(None),
            // What stands in the way may be what an earlier try created, or what came since the probe.
            Answer::Conflict | Answer::Invalid if findable && self.turns < MAX_TURNS => {
                let reason =
                    if reply.answer == Answer::Conflict { Reason::Conflict } else { Reason::Refused };
                self.refusal = self.last.clone().map(|last| (reason, last, reply.detail.clone()));
                self.turns += 1;
                self.phase = Phase::Probe;
                self.step()
            }
            Answer::Doubtful => {
                self.doubts += 1;
                (self.in_doubt, self.ever_in_doubt) = (true, true);
                match self.plan.class {
                    Class::A => self.retry(&reply.detail, now, draw),
                    Class::B => {
                        self.misses = 0;
                        self.phase = Phase::Probe;
                        Step::Wait(jittered(PROBE_WAITS[0].max(self.backoff(self.doubts)), draw))
                    }
                    Class::C => self.end(Outcome::Unknown, Reason::InDoubt, &reply.detail),
                }
            }
            answer => self.refused(answer, &reply.detail),
        }
    }

    fn on_probed(&mut self, reply: Reply, now: Instant, draw: f64) -> Step {
        let found = match (reply.answer, &self.plan.probe) {
            (Answer::Done | Answer::Partial, Some(probe)) => probe.find(&reply.body),
            (Answer::Missing, _) => Found::Nothing,
            (Answer::Doubtful, _) => Found::Unreadable,
            (answer, _) if self.in_doubt => {
                let detail = format!("it was in doubt, and could not be looked for ({answer:?})");
                return self.end(Outcome::Unknown, Reason::InDoubt, &detail);
            }
            (answer, _) => return self.refused(answer, &reply.detail),
        };
        match (found, self.plan.update.is_some()) {
            (Found::Unreadable, _) => {
                self.doubts += 1;
                self.retry("the list that should hold it could not be read", now, draw)
            }
            (Found::Nothing, _) => self.not_found(now, draw),
            (Found::One { id, .. }, true) => self.update_found(id),
            (Found::Several { .. }, true) => self.end(
                Outcome::Rejected,
                Reason::Conflict,
                "several things have this key; none was changed",
            ),
            (Found::One { id, row } | Found::Several { id, row }, false) => self.found(id, row),
        }
    }

    /// A create that was in doubt is there.
    fn found(&mut self, id: String, row: Value) -> Step {
        let field = self.plan.probe.as_ref().map_or("its key", |probe| probe.field());
        let detail = format!("found by probe: the store holds a thing with this {field}");
        Step::End(Box::new(Ending {
            detail: Some(detail),
            found: Some(row),
            found_id: Some(id),
            ..self.ending(Outcome::Applied)
        }))
    }

    fn not_found(&mut self, now: Instant, draw: f64) -> Step {
        if let Some((reason, last, detail)) = self.refusal.take() {
            self.last = Some(last);
            return self.end(Outcome::Rejected, reason, &detail);
        }
        if self.in_doubt {
            self.misses += 1;
            if let Some(wait) = PROBE_WAITS.get(self.misses) {
                return Step::Wait(jittered(*wait, draw));
            }
            self.in_doubt = false;
            if self.is_exhausted(now) {
                return self.end(Outcome::Dead, Reason::Exhausted, "each try failed, and none left a trace");
            }
        }
        self.misses = 0;
        self.phase = Phase::Write;
        self.step()
    }

    /// Tries the same again later, unless the budget is used up.
    fn retry(&mut self, detail: &str, now: Instant, draw: f64) -> Step {
        if self.is_exhausted(now) {
            return self.give_up(Reason::Exhausted, detail);
        }
        Step::Wait(jittered(self.backoff(self.doubts), draw))
    }

    fn be_patient(&mut self, after: Duration, detail: &str, now: Instant, draw: f64) -> Step {
        if self.age(now) >= self.budget.for_busy {
            return self.give_up(Reason::Exhausted, detail);
        }
        self.patience += 1;
        Step::Wait(jittered(after.max(self.backoff(self.patience)), draw))
    }

    fn await_token(&mut self, detail: &str, now: Instant) -> Step {
        let since = *self.unauthorized_since.get_or_insert(now);
        if now.duration_since(since) >= self.budget.for_token {
            return self.give_up(Reason::Denied, detail);
        }
        Step::Pause(self.budget.token_pause)
    }

    fn give_up(&mut self, reason: Reason, detail: &str) -> Step {
        match self.in_doubt && self.plan.class != Class::A {
            true => self.end(Outcome::Unknown, Reason::InDoubt, detail),
            false => self.end(Outcome::Dead, reason, detail),
        }
    }

    fn is_exhausted(&mut self, now: Instant) -> bool {
        let age = self.age(now);
        !self.is_shared && self.doubts >= self.budget.attempts && age >= self.budget.for_doubt
    }

    /// The time since something came of it.
    fn age(&mut self, now: Instant) -> Duration {
        now.duration_since(*self.since.get_or_insert(now))
    }

    fn backoff(&self, times: u32) -> Duration {
        FIRST_WAIT.saturating_mul(1 << times.saturating_sub(1).min(16)).min(LAST_WAIT)
    }

    /// A delete that was in doubt and now finds nothing has been applied.
    fn is_repeated_delete(&self) -> bool {
        self.in_doubt && self.plan.write.method == Method::Delete
    }

    fn refused(&mut self, answer: Answer, detail: &str) -> Step {
        let reason = match answer {
            Answer::Missing => Reason::Missing,
            Answer::Conflict => Reason::Conflict,
            Answer::Forbidden | Answer::Unauthorized => Reason::Denied,
            Answer::Invalid => Reason::Refused,
            Answer::Done | Answer::Partial | Answer::Busy { .. } | Answer::Doubtful => Reason::BadReply,
        };
        self.end(Outcome::Rejected, reason, detail)
    }

    fn applied(&mut self, found_id: Option<String>) -> Step {
        Step::End(Box::new(Ending { found_id, ..self.ending(Outcome::Applied) }))
    }

    fn partial(&mut self) -> Step {
        let detail = "the store applied a part of it; the body says which".to_owned();
        Step::End(Box::new(Ending { detail: Some(detail), ..self.ending(Outcome::Partial) }))
    }

    fn end(&mut self, outcome: Outcome, reason: Reason, detail: &str) -> Step {
        let detail = Some(detail.to_owned());
        Step::End(Box::new(Ending { reason: Some(reason), detail, ..self.ending(outcome) }))
    }

    fn ending(&mut self, outcome: Outcome) -> Ending {
        Ending {
            outcome,
            reason: None,
            detail: None,
            last: self.last.take(),
            found: None,
            found_id: None,
            // What was applied was sent, be it by a process before this one.
            attempts: self.attempts.max(u32::from(outcome == Outcome::Applied)),
            class: self.plan.class,
        }
    }
}

/// Whether a refusal says that it is already so. One that the API itself did not make says nothing.
fn is_already_so(statuses: &[u16], reply: &Reply) -> bool {
    matches!(reply.answer, Answer::Missing | Answer::Conflict | Answer::Invalid)
        && statuses.contains(&reply.status)
}

/// A wait, up to a quarter longer, so that what failed together does not come back together.
fn jittered(wait: Duration, draw: f64) -> Duration {
    wait.mul_f64(1.0 + 0.25 * draw.clamp(0.0, 1.0))
}
