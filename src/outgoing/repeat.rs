//! Commands whose id came before: one that is under way is waited for, one that ended is answered with its stored result.
//!
//! What ended last is remembered whole; of the rest only that it ended, and the ledger is asked for the result, for many
//! commands at once. No lane has a slot meanwhile, and none goes on without an answer. Where the ledger has none, though
//! the id ended (somebody deleted it, or another id has the same hash), the command counts as one in doubt: what is
//! idempotent is sent, what has a natural key is looked for first, and what has none ends as `unknown`.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::apply::{Applying, Ending};
use super::ended::Place;
use super::known::{KEY_PREFIX, Name, State, is_ending, stored};
use super::{Item, LaneKey, Outgoing, What, settle};
use crate::catalog::Class;
use crate::model::command::Outcome;
use crate::model::dead_letter::replay_count;
use crate::model::reason::Reason;
use crate::model::record::{InRecord, OutRecord, Partition};
use crate::runtime::ports::{Append, LookUp, LookedUp, Settled, Sought, Store};

/// How long a command waits for another one of the same id, in another lane, to end before it looks again; or for the
/// ledger to be asked again.
const WAIT: Duration = Duration::from_secs(1);
/// What is looked up at once, at most: few enough that the first of them does not wait long for the last.
const MAX_AT_ONCE: usize = 500;
/// How long after a command ended its absence from the ledger proves nothing: readers see no further than to the oldest
/// open transaction, of whoever writes there. Twice the longest that one may be open.
const SETTLING_MS: i64 = 2 * 60_000;

/// What is looked up in the ledger.
pub(super) struct Repeats {
    ledger: Arc<dyn LookUp>,
    /// Bounded by the lanes that may be open.
    waiting: VecDeque<(Asking, Sought)>,
    is_asked: bool,
}

/// A lane whose first command waits for what the ledger says of its id.
#[derive(Debug)]
pub(super) struct Asking {
    line: usize,
    lane: LaneKey,
    place: Place,
}

/// Who asked, and what the ledger said.
pub(super) type Answers = Vec<(Asking, Option<LookedUp>)>;

/// Why a command is begun though one of its id ended at that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anew {
    /// It failed there, in this way, and was replayed; or that was taken back.
    Meant(Place, Option<Outcome>),
    /// The ledger does not tell how.
    Lost(Place),
}

impl Anew {
    /// How it ended before, as far as that counts.
    pub(super) fn before(self) -> Option<Outcome> {
        match self {
            Self::Meant(_, before) => before,
            Self::Lost(_) => Some(Outcome::Unknown),
        }
    }
}

impl Repeats {
    pub(super) fn new(ledger: Arc<dyn LookUp>) -> Self {
        Self { ledger, waiting: VecDeque::new(), is_asked: false }
    }

    /// Nobody asks any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.is_asked = false;
    }
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// Whether a lane's first command may be begun, as far as its id tells. If not, the lane waits, or the command is about
    /// to end.
    pub(super) fn is_new(&mut self, line: usize, lane: &LaneKey, now: Instant) -> bool {
        let now_ms = (self.clock)();
        let Some(item) = self.lines[line].lanes.head_mut(lane) else { return false };
        let place = match self.known.get(&item.name(), now_ms) {
            None | Some(State::Intent) => {
                let may_write = self.outdated.may_write(&item.forgotten());
                if !may_write {
                    self.lines[line].lanes.sleep(lane, now + WAIT);
                }
                return may_write;
            }
            Some(State::Open) => {
                self.lines[line].lanes.sleep(lane, now + WAIT);
                return false;
            }
            Some(State::Done { outcome, .. }) if is_worth_a_replay(&item.record, outcome) => return true,
            Some(State::Done { outcome, result, .. }) => {
                let what = What::Repeated { lane: lane.clone(), outcome, result };
                self.push_job(line, std::future::ready(what));
                return false;
            }
            Some(State::Ended(place)) => place,
        };
        match item.anew {
            Some(Anew::Meant(at, _)) if at == place => return true,
            Some(Anew::Lost(at)) if at == place => {
                let class = item.plan.as_ref().map_or(Class::C, |plan| plan.class);
                if class != Class::C {
                    return true;
                }
                self.push_job(line, std::future::ready(What::Ended(lane.clone(), Box::new(lost(class)))));
                return false;
            }
            _ => {}
        }
        let sought = Sought {
            partition: Partition { topic: item.route.topics.ledger.clone(), number: place.partition() },
            key: format!("{KEY_PREFIX}{}", item.command.id),
            at_ms: place.at_ms(),
            is_it: is_ending,
        };
        self.lines[line].lanes.park(lane);
        self.repeats.waiting.push_back((Asking { line, lane: lane.clone(), place }, sought));
        false
    }

    /// Asks the ledger for what is to be looked up, once it has answered what it was asked before.
    pub(super) fn look_up(&mut self) {
        let Repeats { ledger, waiting, is_asked } = &mut self.repeats;
        if *is_asked || waiting.is_empty() {
            return;
        }
        *is_asked = true;
        let (asking, sought): (Vec<_>, Vec<_>) = waiting.drain(..waiting.len().min(MAX_AT_ONCE)).unzip();
        let (answers, lease) = (ledger.look_up(sought), self.lease.clone());
        self.push_job(0, async move {
            // At the end of the lease nobody waits any more: the next owner asks again.
            let answers = match select(answers, pin!(lease.ended())).await {
                Either::Left((answers, _)) => answers,
                Either::Right(_) => vec![None; asking.len()],
            };
            What::LookedUp(asking.into_iter().zip(answers).collect())
        });
    }

    /// Takes what the ledger said.
    pub(super) fn on_looked_up(&mut self, answers: Answers, now: Instant) -> Vec<Settled> {
        self.repeats.is_asked = false;
        answers.into_iter().filter_map(|(asking, answer)| self.on_answer(asking, answer, now)).collect()
    }

    fn on_answer(&mut self, asking: Asking, answer: Option<LookedUp>, now: Instant) -> Option<Settled> {
        let Asking { line, lane, place } = asking;
        let is_settled = (self.clock)() - place.at_ms() > SETTLING_MS;
        let item = self.lines[line].lanes.head_mut(&lane)?;
        let ending = match &answer {
            Some(LookedUp::Found(value)) => stored(value),
            Some(LookedUp::Forgotten | LookedUp::Nothing) | None => None,
        };
        let wait = match (answer, ending) {
            (_, Some((outcome, result))) if !is_worth_a_replay(&item.record, outcome) => {
                let item = self.lines[line].lanes.complete(&lane)?;
                let (topics, id) = (&item.route.topics, &item.command.id);
                return Some(settle::repeated(topics, &item.record, id, outcome, result));
            }
            (Some(LookedUp::Forgotten), before) | (_, before @ Some(_)) => {
                item.anew = Some(Anew::Meant(place, before.map(|(outcome, _)| outcome)));
                Duration::ZERO
            }
            (None, _) => WAIT,
            (Some(LookedUp::Nothing), _) if !is_settled => WAIT,
            (Some(LookedUp::Nothing | LookedUp::Found(_)), None) => {
                tracing::warn!(
                    store.name = &*item.route.store, kafka.topic = &*item.route.topics.ledger, command.id = %item.command.id,
                    "a command of this id ended before, and the ledger does not tell how; it counts as one in doubt"
                );
                item.anew = Some(Anew::Lost(place));
                Duration::ZERO
            }
        };
        self.lines[line].lanes.sleep(&lane, now + wait);
        None
    }
}

impl<S> Item<S> {
    /// Its id within its ledger.
    pub(super) fn name(&self) -> Name {
        (self.route.topics.ledger.clone(), self.command.id.clone())
    }

    /// The record that lets its ledger forget it.
    pub(super) fn forgotten(&self) -> OutRecord {
        let key = format!("{KEY_PREFIX}{}", self.command.id);
        self.route.topics.forgotten(&self.record.position.partition, key)
    }

    /// It is begun; `intent_found` as for [`Applying::new`].
    pub(super) fn applying(&mut self, budget: super::Budget, intent_found: bool) -> Option<&mut Applying> {
        let plan = self.plan.take()?;
        let applying = match self.anew {
            Some(Anew::Lost(_)) if !intent_found => Applying::lost(plan, budget),
            _ => Applying::new(plan, budget, intent_found),
        };
        Some(self.applying.insert(applying))
    }
}

/// Whether a record was replayed on purpose from a dead-letter topic, and failed before: then it is tried again.
fn is_worth_a_replay(record: &InRecord, before: Outcome) -> bool {
    match before {
        Outcome::Applied | Outcome::Partial => false,
        Outcome::Rejected | Outcome::Dead | Outcome::Unknown | Outcome::DryRun => replay_count(record) > 0,
    }
}

fn lost(class: Class) -> Ending {
    Ending {
        outcome: Outcome::Unknown,
        reason: Some(Reason::InDoubt),
        detail: Some("a command of this id ended before, and the ledger does not tell how".into()),
        last: None,
        found: None,
        found_id: None,
        attempts: 0,
        class,
    }
}
