//! Requests that wait to be sent, and the batches that gather in between.
//!
//! A command that needs a request of its own waits for its turn. One that may share gathers with others of its group:
//! a full batch goes at once; one that is not full goes when nothing more came for a moment ([`QUIET`], [`LINGER`]),
//! and not while another of its group is under way: what comes meanwhile travels with the next. So batches grow as the
//! store slows down or its quota gets short. Groups and single commands take turns, and no endpoint has more than half
//! of the places, so that one that is slow, or takes one request at a time, leaves room for the others. How many items a
//! request holds follows what became of the last ones (`sizes`).
//!
//! Pure: the time is an argument. It drops nothing: whatever was put in comes out of [`Outbox::next`] once, and once
//! more of [`Outbox::ended`]. Who puts in bounds how much.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sizes::{Came, Sizes};
use super::{Group, Key, Part};
use crate::model::request::{Method, Request};

/// A batch that is not full goes when nothing was added for so long: commands of one cause come faster, and nobody
/// notices it beside the call itself.
const QUIET: Duration = Duration::from_millis(50);
/// It goes after so long at the latest: the price of five calls under the smallest quota.
const LINGER: Duration = Duration::from_secs(1);

/// The bounds of an [`Outbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Requests under way at the same time.
    pub(crate) requests: usize,
}

/// A command that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Member<L> {
    /// Whose it is.
    pub(crate) lane: L,
    /// The request that is its own.
    pub(crate) request: Request,
    /// What it brings to a request that it shares.
    pub(crate) part: Option<Part>,
    /// Items in the request that it shares, at most, because of what became of an earlier one. It waits for nothing
    /// more then.
    pub(crate) most: Option<usize>,
}

impl<L> Member<L> {
    /// Items that it brings to a request that it shares.
    pub(crate) fn items(&self) -> Option<usize> {
        Some(self.part.as_ref()?.count)
    }

    /// Items and bytes that it adds to a batch.
    fn weight(&self) -> (usize, usize) {
        self.part.as_ref().map_or((1, 0), |part| (part.count, part.items.len() + 1))
    }
}

/// A request that is to be sent now.
#[derive(Debug)]
pub(crate) struct Joint {
    /// Its number, for [`Outbox::ended`].
    pub(crate) number: u64,
    pub(crate) request: Request,
    /// What each of its commands brought; empty where it is a command's own.
    pub(crate) parts: Vec<Part>,
    /// What bounded their number, if an earlier reply did.
    pub(crate) most: Option<usize>,
}

/// A method and a path's template: one of as many as the catalogue has.
pub(super) type Endpoint = (Method, Arc<str>);

/// Those that wait in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// Commands with requests of their own.
    Singles(Endpoint),
    /// Commands that may share, with the bound on their number.
    Group(Arc<Group>, Option<usize>),
}

/// Commands that leave together.
#[derive(Debug)]
struct Batch<L> {
    members: VecDeque<Member<L>>,
    items: usize,
    bytes: usize,
    is_full: bool,
    first: Instant,
    last: Instant,
}

/// What a queue is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// More commands, or the end of a request.
    Idle,
    /// The moment at which its first batch was to go when it was looked at last; it may have moved since.
    Lingers((Instant, u64)),
    /// Its turn.
    Turn,
    /// A place at its endpoint.
    Place,
}

/// When the first batch of a queue goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Not before something else happens.
    Open,
    Now,
    At(Instant),
}

#[derive(Debug)]
struct Queue<L> {
    batches: VecDeque<Batch<L>>,
    /// The number of the first batch, counted from the queue's beginning.
    front: u64,
    /// The last waiting batch in which a key is.
    placed: HashMap<Key, u64>,
    under_way: usize,
    waits: Waits,
}

/// A request that did not end yet.
#[derive(Debug)]
struct UnderWay<L> {
    source: Source,
    /// Of a group's: the round of its size.
    round: u64,
    members: Vec<Member<L>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox<L> {
    limits: Limits,
    queues: HashMap<Source, Queue<L>>,
    turns: VecDeque<Source>,
    lingering: BTreeMap<(Instant, u64), Source>,
    blocked: HashMap<Endpoint, VecDeque<Source>>,
    under_way: HashMap<u64, UnderWay<L>>,
    /// Requests under way of each endpoint.
    busy: HashMap<Endpoint, usize>,
    sizes: Sizes,
    /// Counts requests and lingerings.
    numbers: u64,
}

impl<L> Outbox<L> {
    /// Nothing waits.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits: Limits { requests: limits.requests.max(1) },
            queues: HashMap::new(),
            turns: VecDeque::new(),
            lingering: BTreeMap::new(),
            blocked: HashMap::new(),
            under_way: HashMap::new(),
            busy: HashMap::new(),
            sizes: Sizes::default(),
            numbers: 0,
        }
    }

    /// Puts a command in.
    pub(crate) fn offer(&mut self, member: Member<L>, now: Instant) {
        let source = match (&member.part, member.most) {
            (None, _) | (_, Some(1)) => Source::Singles(endpoint_of(&member.request)),
            (Some(part), most) => Source::Group(part.group.clone(), most),
        };
        let max = self.max(&source, now);
        let queue = self.queues.entry(source.clone()).or_insert_with(Queue::new);
        queue.add(member, max, now);
        self.look_at(source, now);
    }

    /// Items in one request of a queue, whatever became of others.
    fn max(&mut self, source: &Source, now: Instant) -> usize {
        let Source::Group(group, most) = source else { return 1 };
        let taken = self.sizes.taken(&source.endpoint(), now);
        most.unwrap_or(group.max).min(group.max).min(taken).max(1)
    }

    /// Items that its next request holds at most.
    fn size(&mut self, source: &Source, now: Instant) -> usize {
        let Source::Group(group, _) = source else { return 1 };
        self.sizes.of(group).min(self.sizes.taken(&source.endpoint(), now))
    }

    /// The next request, if one is to go now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Joint> {
        self.wake(now);
        if self.under_way.len() >= self.limits.requests {
            return None;
        }
        let most_of_one = self.limits.requests.div_ceil(2);
        while let Some(source) = self.turns.pop_front() {
            let (endpoint, size) = (source.endpoint(), self.size(&source, now));
            let Some(queue) = self.queues.get_mut(&source) else { continue };
            if self.busy.get(&endpoint).is_some_and(|busy| *busy >= most_of_one) {
                queue.waits = Waits::Place;
                self.blocked.entry(endpoint).or_default().push_back(source);
                continue;
            }
            queue.waits = Waits::Idle;
            let Some(batch) = queue.take(size) else { continue };
            queue.under_way += 1;
            *self.busy.entry(endpoint).or_default() += 1;
            self.numbers += 1;
            let joint = joint(self.numbers, &source, &batch);
            let round = if let Source::Group(group, _) = &source { self.sizes.round(group) } else { 0 };
            let under_way = UnderWay { source: source.clone(), round, members: batch.members.into() };
            self.under_way.insert(self.numbers, under_way);
            self.look_at(source, now);
            return Some(joint);
        }
        None
    }

    /// A request has ended: those that it was sent for, in the order of its parts.
    pub(crate) fn ended(&mut self, number: u64, came: Came, now: Instant) -> Vec<Member<L>> {
        let Some(UnderWay { source, round, members }) = self.under_way.remove(&number) else {
            return Vec::new();
        };
        let endpoint = source.endpoint();
        if let Source::Group(group, _) = &source {
            let items = members.iter().filter_map(Member::items).sum();
            self.sizes.learn((group, endpoint.clone()), (items, round), came, now);
        }
        if let Some(busy) = self.busy.get_mut(&endpoint) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&endpoint);
            }
        }
        if let Some(blocked) = self.blocked.get_mut(&endpoint) {
            if let Some(first) = blocked.pop_front() {
                if let Some(queue) = self.queues.get_mut(&first) {
                    queue.waits = Waits::Turn;
                }
                self.turns.push_back(first);
            }
            if blocked.is_empty() {
                self.blocked.remove(&endpoint);
            }
        }
        if let Some(queue) = self.queues.get_mut(&source) {
            queue.under_way -= 1;
            if queue.under_way == 0 && queue.batches.is_empty() {
                self.queues.remove(&source);
            } else {
                self.look_at(source, now);
            }
        }
        members
    }

    /// Those that a request is under way for.
    pub(crate) fn lanes_of(&self, number: u64) -> impl Iterator<Item = &L> {
        self.under_way
            .get(&number)
            .into_iter()
            .flat_map(|request| &request.members)
            .map(|member| &member.lane)
    }

    /// Queues whose moment has come get their turn.
    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.lingering.first_entry().filter(|entry| entry.key().0 <= now) {
            let source = entry.remove();
            if let Some(queue) = self.queues.get_mut(&source) {
                queue.waits = Waits::Idle;
            }
            self.look_at(source, now);
        }
    }

    /// Lets a queue wait for what it has to wait for.
    fn look_at(&mut self, source: Source, now: Instant) {
        let size = self.size(&source, now);
        let Some(queue) = self.queues.get_mut(&source) else { return };
        let lingers = match queue.waits {
            Waits::Idle => None,
            Waits::Lingers(entry) => Some(entry),
            Waits::Turn | Waits::Place => return,
        };
        match (queue.due(&source, size, now), lingers) {
            (Due::Now, lingers) => {
                if let Some(entry) = lingers {
                    self.lingering.remove(&entry);
                }
                queue.waits = Waits::Turn;
                self.turns.push_back(source);
            }
            (Due::At(at), None) => {
                self.numbers += 1;
                queue.waits = Waits::Lingers((at, self.numbers));
                self.lingering.insert((at, self.numbers), source);
            }
            // It is looked at again when the earlier moment comes.
            (Due::At(_), Some(_)) | (Due::Open, _) => {}
        }
    }

    /// When [`Outbox::next`] should be asked again, if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.lingering.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether a request could go now but for its place.
    pub(crate) fn is_ready(&self) -> bool {
        !self.turns.is_empty() && self.under_way.len() < self.limits.requests
    }

    /// Commands under way.
    pub(crate) fn commands_under_way(&self) -> usize {
        self.under_way.values().map(|request| request.members.len()).sum()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }
}

impl Source {
    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Singles(endpoint) => endpoint.clone(),
            Self::Group(group, _) => (group.method, group.path.template().clone()),
        }
    }
}

impl<L> Queue<L> {
    fn new() -> Self {
        let (batches, placed) = (VecDeque::new(), HashMap::new());
        Self { batches, front: 0, placed, under_way: 0, waits: Waits::Idle }
    }

    /// Adds a command to the first batch that takes it: after all with one of its keys.
    fn add(&mut self, member: Member<L>, max: usize, now: Instant) {
        let (count, bytes) = member.weight();
        let max_bytes = member.part.as_ref().map_or(0, |part| part.group.max_bytes());
        let keys = member.part.as_ref().map(|part| part.keys.clone()).unwrap_or_default();
        let behind = keys.iter().filter_map(|key| self.placed.get(key)).max().map_or(self.front, |n| n + 1);
        let mut at = usize::try_from(behind - self.front).unwrap_or(usize::MAX).min(self.batches.len());
        // Those that are full stand in front, but for a few that shared keys kept open.
        at = at.max(self.batches.partition_point(|batch| batch.is_full).min(self.batches.len()));
        while let Some(batch) = self.batches.get_mut(at) {
            let fits = batch.items + count <= max && batch.bytes + bytes <= max_bytes;
            if !batch.is_full && fits {
                break;
            }
            batch.is_full = true;
            at += 1;
        }
        if at >= self.batches.len() {
            at = self.batches.len();
            let (members, items, bytes) = (VecDeque::new(), 0, 0);
            self.batches.push_back(Batch { members, items, bytes, is_full: false, first: now, last: now });
        }
        let batch = &mut self.batches[at];
        batch.members.push_back(member);
        batch.items += count;
        batch.bytes += bytes;
        batch.last = now;
        batch.is_full |= batch.items >= max;
        let number = self.front + at as u64;
        self.placed.extend(keys.iter().map(|key| (key.clone(), number)));
    }

    /// When its first batch goes, or as much of it as a request should hold.
    fn due(&self, source: &Source, size: usize, now: Instant) -> Due {
        let Some(first) = self.batches.front() else { return Due::Open };
        let waits_for_more = matches!(source, Source::Group(_, None)) && !first.is_full && first.items < size;
        let at = (first.last + QUIET).min(first.first + LINGER);
        match (waits_for_more, self.under_way) {
            (false, _) => Due::Now,
            (true, 0) if at <= now => Due::Now,
            (true, 0) => Due::At(at),
            (true, _) => Due::Open,
        }
    }

    /// The first batch, or as much of it as a request should hold.
    fn take(&mut self, size: usize) -> Option<Batch<L>> {
        let number = self.front;
        let first = self.batches.front_mut()?;
        let batch = match first.cut(size) {
            Some(cut) => cut,
            None => {
                self.front += 1;
                self.batches.pop_front()?
            }
        };
        for key in
            batch.members.iter().filter_map(|member| member.part.as_ref()).flat_map(|part| part.keys.iter())
        {
            if self.placed.get(key) == Some(&number) {
                self.placed.remove(key);
            }
        }
        Some(batch)
    }
}

impl<L> Batch<L> {
    /// As many of its first commands as have `size` items, and one at least; none where that is all of it. The rest
    /// has waited as long as they did, and waits for nothing more.
    fn cut(&mut self, size: usize) -> Option<Self> {
        if self.items <= size || self.members.len() < 2 {
            return None;
        }
        let (mut members, mut items, mut bytes) = (VecDeque::new(), 0, 0);
        while let Some(member) = self.members.pop_front() {
            let (count, length) = member.weight();
            if items > 0 && items + count > size || self.members.is_empty() {
                self.members.push_front(member);
                break;
            }
            (items, bytes) = (items + count, bytes + length);
            members.push_back(member);
        }
        (self.items, self.bytes, self.is_full) = (self.items - items, self.bytes - bytes, true);
        Some(Self { members, items, bytes, is_full: true, first: self.first, last: self.last })
    }
}

fn joint<L>(number: u64, source: &Source, batch: &Batch<L>) -> Joint {
    let members = &batch.members;
    let most = match source {
        Source::Group(_, most) => *most,
        Source::Singles(_) => None,
    };
    let own = |member: &Member<L>| Joint { number, request: member.request.clone(), parts: Vec::new(), most };
    match (source, members.front()) {
        (Source::Group(group, _), Some(_)) if members.len() > 1 => {
            let parts: Vec<Part> = members.iter().filter_map(|member| member.part.clone()).collect();
            Joint { number, request: group.request(parts.iter()), parts, most }
        }
        (_, Some(member)) => own(member),
        (_, None) => unreachable!("a batch is made for its first member"),
    }
}

fn endpoint_of(request: &Request) -> Endpoint {
    (request.method, request.path.template().clone())
}

#[cfg(test)]
mod tests;
