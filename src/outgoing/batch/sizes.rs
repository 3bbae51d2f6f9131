//! How many items the next request of a group may hold.
//!
//! An endpoint that says that a request is too large takes half as many from then on. A request that is refused for
//! its items halves the size of its group's next ones, down to one, and one that is done doubles it again. So where
//! all are bad a command costs hardly more than the call that tells it its own reason, and where few are, large
//! requests come back within as many calls as the size has doublings. Of the requests that are under way at the same
//! time only the first to end counts: the others were sent on the same belief.
//!
//! What it costs, for `n` items of which `k` are bad, requests of `m` at most, `l = log2(m)` rounded up plus one, and
//! `p` of them under way at once: a bad item is in at most `l` requests that are refused, and each of those makes at
//! most two further ones and takes back one doubling. So there are at most `n/m + k * (3l + 1)` calls, and `p * l` for
//! what was under way meanwhile. However many are bad, a refusal halves and only something done doubles, so that there
//! are at most `2n + p * l`, and `n + p * l` where nothing is done at all. Batches that went before they were full
//! come on top.
//!
//! Pure. What it forgets costs calls and nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Group;
use super::outbox::Endpoint;

/// How long a size that was too large for an endpoint is not tried again: its items may have been larger than usual.
const TOO_LARGE: Duration = Duration::from_secs(3600);
/// Groups with smaller requests that are remembered at most: a store has fewer endpoints that take many, so more are
/// those of endpoints with an id in their path.
const MAX_GROUPS: usize = 1024;
/// A group that nothing was sent of for so long is forgotten where there are too many.
const OLD: Duration = Duration::from_secs(600);

/// What the end of a request says of the size of the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// Most of its items were written.
    Done,
    /// Most of them were not, for what was sent.
    Refused,
    /// It was larger than the endpoint takes.
    TooLarge,
    /// It says nothing of its size.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Items that each endpoint takes in one request, where it said that more were too large, and when it said so.
    too_large: HashMap<Endpoint, (usize, Instant)>,
    smaller: HashMap<Arc<Group>, Smaller>,
    /// Counts changes.
    rounds: u64,
}

/// A group whose requests are smaller than they could be.
#[derive(Debug)]
struct Smaller {
    size: usize,
    /// Requests that were sent in another round say nothing.
    round: u64,
    changed: Instant,
}

impl Sizes {
    /// Items that a request to an endpoint may hold.
    pub(super) fn taken(&mut self, endpoint: &Endpoint, now: Instant) -> usize {
        if self.too_large.get(endpoint).is_some_and(|(_, at)| now.duration_since(*at) >= TOO_LARGE) {
            self.too_large.remove(endpoint);
        }
        self.too_large.get(endpoint).map_or(usize::MAX, |(items, _)| *items)
    }

    /// Items that a group's next request should hold at most.
    pub(super) fn of(&self, group: &Group) -> usize {
        self.smaller.get(group).map_or(usize::MAX, |smaller| smaller.size)
    }

    /// The round in which a group's request is sent.
    pub(super) fn round(&self, group: &Group) -> u64 {
        self.smaller.get(group).map_or(0, |smaller| smaller.round)
    }

    /// A request of a group has ended: how many items it held, and the round in which it was sent.
    pub(super) fn learn(
        &mut self,
        (group, endpoint): (&Arc<Group>, Endpoint),
        (items, round): (usize, u64),
        came: Came,
        now: Instant,
    ) {
        match came {
            Came::TooLarge if items > 1 => {
                let entry = self.too_large.entry(endpoint).or_insert((items / 2, now));
                *entry = (entry.0.min(items / 2), now);
            }
            Came::Refused if items > 1 && round == self.round(group) => {
                self.set(group, self.of(group).min(items) / 2, now);
            }
            Came::Done if round == self.round(group) && self.smaller.contains_key(group) => {
                self.set(group, self.of(group).saturating_mul(2), now);
            }
            Came::Done | Came::Refused | Came::TooLarge | Came::Nothing => {}
        }
    }

    fn set(&mut self, group: &Arc<Group>, size: usize, now: Instant) {
        if size >= group.max {
            self.smaller.remove(group);
            return;
        }
        if self.smaller.len() >= MAX_GROUPS && !self.smaller.contains_key(group) {
            self.smaller.retain(|_, smaller| now.duration_since(smaller.changed) < OLD);
            if self.smaller.len() >= MAX_GROUPS {
                return;
            }
        }
        self.rounds += 1;
        self.smaller.insert(group.clone(), Smaller { size: size.max(1), round: self.rounds, changed: now });
    }
}
