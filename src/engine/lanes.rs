//! Lanes: work in order for each key, in parallel across keys, with bounds on both.
//!
//! A lane is the queue of one key. Its first item is the only one that may run; the next one starts when the
//! first one was completed. A lane whose first item waits, for a moment to come or for something that counts by other
//! bounds, gives its slot to another lane and keeps its place in order. Lanes take turns: one that has just completed an item goes to the end of the queue.
//! At most `max_parallel` lanes run, at most `max_open` exist; what is pushed beyond stays in its order of arrival
//! until a lane closes. Nothing is dropped here, so whoever pushes must bound how much it pushes; and what cannot go on for
//! long should be taken out, so that its lane is another's.
//!
//! Pure: the time is an argument. It cannot fail; misuse (completing a lane that does not run) changes nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Instant;

/// The bounds of [`Lanes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lanes that run at the same time; parked ones do not count.
    pub max_parallel: usize,
    /// Lanes that are open at the same time, whether they run, are ready, are parked or sleep.
    pub max_open: usize,
}

/// Queues by key; see the module.
#[derive(Debug)]
pub struct Lanes<K, T> {
    limits: Limits,
    lanes: HashMap<K, Lane<T>>,
    ready: VecDeque<K>,
    asleep: BTreeMap<(Instant, u64), K>,
    /// Told apart by a counter, since two lanes may wake at one moment.
    sleeps: u64,
    running: usize,
    /// By their order of arrival.
    overflow: BTreeMap<u64, (K, T)>,
    arrivals: u64,
    /// Which items of a key are in the overflow, in order: a later one must not overtake them.
    overflowing: HashMap<K, VecDeque<u64>>,
}

#[derive(Debug)]
struct Lane<T> {
    state: State,
    items: VecDeque<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Running,
    /// Its first item waits for somebody to say how it goes on.
    Parked,
    Asleep,
}

impl<K: Clone + Eq + Hash, T> Lanes<K, T> {
    /// No lanes yet. Bounds of zero count as one.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { max_parallel: limits.max_parallel.max(1), max_open: limits.max_open.max(1) };
        Self {
            limits,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            asleep: BTreeMap::new(),
            sleeps: 0,
            running: 0,
            overflow: BTreeMap::new(),
            arrivals: 0,
            overflowing: HashMap::new(),
        }
    }

    /// Adds an item behind all earlier ones of its key.
    pub fn push(&mut self, key: K, item: T) {
        let behind = self.overflowing.contains_key(&key);
        let may_open = self.overflow.is_empty() && self.lanes.len() < self.limits.max_open;
        if !behind && (may_open || self.lanes.contains_key(&key)) {
            self.queue(key, item);
        } else {
            self.arrivals += 1;
            self.overflowing.entry(key.clone()).or_default().push_back(self.arrivals);
            self.overflow.insert(self.arrivals, (key, item));
        }
    }

    fn queue(&mut self, key: K, item: T) {
        match self.lanes.get_mut(&key) {
            Some(lane) => lane.items.push_back(item),
            None => {
                self.lanes.insert(key.clone(), Lane { state: State::Ready, items: VecDeque::from([item]) });
                self.ready.push_back(key);
            }
        }
    }

    /// The next lane whose first item may run now; it takes a slot until it is completed, parked or put to sleep.
    pub fn start(&mut self, now: Instant) -> Option<K> {
        while let Some(entry) = self.asleep.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.state = State::Ready;
                self.ready.push_back(key);
            }
        }
        if self.running >= self.limits.max_parallel {
            return None;
        }
        let key = self.ready.pop_front()?;
        self.lanes.get_mut(&key)?.state = State::Running;
        self.running += 1;
        Some(key)
    }

    /// The first item of a lane.
    pub fn head_mut(&mut self, key: &K) -> Option<&mut T> {
        self.lanes.get_mut(key)?.items.front_mut()
    }

    /// The first item of each open lane.
    pub fn heads(&self) -> impl Iterator<Item = &T> {
        self.lanes.values().filter_map(|lane| lane.items.front())
    }

    /// Gives a running lane's slot away until the lane is put to sleep or completed; its first item stays first.
    pub fn park(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.state == State::Running) else { return };
        lane.state = State::Parked;
        self.running -= 1;
    }

    /// Gives a running lane's slot away until a moment; its first item stays first. So for one that is parked.
    pub fn sleep(&mut self, key: &K, until: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match lane.state {
            State::Running => self.running -= 1,
            State::Parked => {}
            State::Ready | State::Asleep => return,
        }
        lane.state = State::Asleep;
        self.sleeps += 1;
        self.asleep.insert((until, self.sleeps), key.clone());
    }

    /// Takes the first item of a running or parked lane out: it is done with. The lane's next item waits for its turn.
    pub fn complete(&mut self, key: &K) -> Option<T> {
        let lane = self.lanes.get_mut(key)?;
        match lane.state {
            State::Running => self.running -= 1,
            State::Parked => {}
            State::Ready | State::Asleep => return None,
        }
        let item = lane.items.pop_front();
        if lane.items.is_empty() {
            self.lanes.remove(key);
            self.admit();
        } else {
            lane.state = State::Ready;
            self.ready.push_back(key.clone());
        }
        item
    }

    /// Closes a running or parked lane: all items of its key, in order, those that no lane had room for as well.
    pub fn close(&mut self, key: &K) -> VecDeque<T> {
        let is_running = match self.lanes.get(key).map(|lane| lane.state) {
            Some(State::Running) => true,
            Some(State::Parked) => false,
            Some(State::Ready | State::Asleep) | None => return VecDeque::new(),
        };
        self.running -= usize::from(is_running);
        let mut items = self.lanes.remove(key).map_or_else(VecDeque::new, |lane| lane.items);
        let arrivals = self.overflowing.remove(key).unwrap_or_default();
        let later = arrivals.into_iter().filter_map(|arrival| self.overflow.remove(&arrival));
        items.extend(later.map(|(_, item)| item));
        self.admit();
        items
    }

    /// Moves items out of the overflow, in order, as long as their lanes may be opened.
    fn admit(&mut self) {
        while let Some(first) = self.overflow.first_entry() {
            let key = &first.get().0;
            if self.lanes.len() >= self.limits.max_open && !self.lanes.contains_key(key) {
                return;
            }
            let (key, item) = first.remove();
            if let Some(arrivals) = self.overflowing.get_mut(&key) {
                arrivals.pop_front();
                if arrivals.is_empty() {
                    self.overflowing.remove(&key);
                }
            }
            self.queue(key, item);
        }
    }

    /// The earliest moment at which a sleeping lane wakes.
    pub fn wake_at(&self) -> Option<Instant> {
        self.asleep.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lanes that run now.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Lanes that exist now.
    pub fn open(&self) -> usize {
        self.lanes.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.overflow.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Start,
        Complete(usize),
        Sleep(usize, u64),
        Park(usize),
        Close(usize),
        Wake(usize, Option<u64>),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..6).prop_map(Step::Push),
            4 => Just(Step::Start),
            3 => (0usize..8).prop_map(Step::Complete),
            2 => ((0usize..8), 1u64..20).prop_map(|(at, ms)| Step::Sleep(at, ms)),
            2 => (0usize..8).prop_map(Step::Park),
            2 => (0usize..8).prop_map(Step::Close),
            2 => ((0usize..8), proptest::option::of(1u64..20)).prop_map(|(at, ms)| Step::Wake(at, ms)),
            2 => (1u64..10).prop_map(Step::Pass),
        ]
    }

    /// The obvious way: all items in one list, and the rules asked of it.
    #[derive(Default)]
    struct Model {
        items: Vec<(u8, u32)>,
        running: Vec<u8>,
        parked: Vec<u8>,
        asleep: Vec<(u8, Instant)>,
    }

    impl Model {
        fn first(&self, key: u8) -> Option<u32> {
            self.items.iter().find(|(k, _)| *k == key).map(|(_, item)| *item)
        }

        /// Keys that could run, were there a slot and no bound on lanes.
        fn startable(&self, now: Instant) -> Vec<u8> {
            (0..6u8)
                .filter(|key| self.first(*key).is_some())
                .filter(|key| !self.running.contains(key) && !self.parked.contains(key))
                .filter(|key| !self.asleep.iter().any(|(k, until)| k == key && *until > now))
                .collect()
        }
    }

    fn complete(lanes: &mut Lanes<u8, u32>, model: &mut Model, key: u8) -> (u8, u32) {
        let item = lanes.complete(&key).unwrap();
        assert_eq!(Some(item), model.first(key));
        model.items.retain(|(_, i)| *i != item);
        (key, item)
    }

    fn close(lanes: &mut Lanes<u8, u32>, model: &mut Model, at: usize) -> Vec<(u8, u32)> {
        let running = model.running.len();
        let key = match at % (running + model.parked.len()) {
            at if at < running => model.running.remove(at),
            at => model.parked.remove(at - running),
        };
        let (of_key, others): (Vec<_>, Vec<_>) = model.items.iter().partition(|(k, _)| *k == key);
        model.items = others;
        let closed: Vec<(u8, u32)> = lanes.close(&key).into_iter().map(|item| (key, item)).collect();
        assert_eq!(closed, of_key, "all of the key, in order");
        assert!(lanes.close(&key).is_empty(), "it is not open any more");
        closed
    }

    fn sleep(lanes: &mut Lanes<u8, u32>, model: &mut Model, key: u8, until: Instant) {
        lanes.sleep(&key, until);
        model.asleep.push((key, until));
    }

    fn check(steps: &[Step], limits: Limits) {
        let (mut lanes, mut model, mut now) = (Lanes::new(limits), Model::default(), Instant::now());
        let (mut next, mut done) = (0u32, Vec::new());
        for step in steps {
            match step {
                Step::Push(key) => {
                    lanes.push(*key, next);
                    model.items.push((*key, next));
                    next += 1;
                }
                Step::Start => match lanes.start(now) {
                    Some(key) => {
                        assert!(model.startable(now).contains(&key), "{key} was not to start");
                        assert_eq!(lanes.head_mut(&key).copied(), model.first(key), "the first one runs");
                        model.asleep.retain(|(k, _)| *k != key);
                        model.running.push(key);
                    }
                    None => {
                        let bounded =
                            model.running.len() == limits.max_parallel || lanes.open() == limits.max_open;
                        assert!(bounded || model.startable(now).is_empty(), "a lane was left waiting");
                    }
                },
                Step::Complete(at) if !model.running.is_empty() => {
                    let key = model.running.remove(at % model.running.len());
                    done.push(complete(&mut lanes, &mut model, key));
                }
                Step::Sleep(at, ms) if !model.running.is_empty() => {
                    let key = model.running.remove(at % model.running.len());
                    sleep(&mut lanes, &mut model, key, now + Duration::from_millis(*ms));
                }
                Step::Park(at) if !model.running.is_empty() => {
                    let key = model.running.remove(at % model.running.len());
                    lanes.park(&key);
                    model.parked.push(key);
                }
                Step::Wake(at, ms) if !model.parked.is_empty() => {
                    let key = model.parked.remove(at % model.parked.len());
                    match ms {
                        Some(ms) => sleep(&mut lanes, &mut model, key, now + Duration::from_millis(*ms)),
                        None => done.push(complete(&mut lanes, &mut model, key)),
                    }
                }
                Step::Close(at) if !model.running.is_empty() || !model.parked.is_empty() => {
                    done.extend(close(&mut lanes, &mut model, *at));
                }
                Step::Complete(_) | Step::Sleep(..) | Step::Park(_) | Step::Wake(..) | Step::Close(_) => {}
                Step::Pass(ms) => now += Duration::from_millis(*ms),
            }
            assert!(lanes.running() <= limits.max_parallel && lanes.running() == model.running.len());
            assert!(lanes.open() <= limits.max_open);
            assert_eq!(lanes.wake_at().is_some(), lanes.asleep.values().next().is_some());
        }
        // Left alone, everything comes to its end.
        for key in model.running.iter().chain(&model.parked).copied() {
            done.push((key, lanes.complete(&key).unwrap()));
        }
        while !lanes.is_empty() {
            now += Duration::from_millis(20);
            let key = lanes.start(now).expect("something can always start");
            done.push((key, lanes.complete(&key).unwrap()));
        }
        let mut all: Vec<u32> = done.iter().map(|(_, item)| *item).collect();
        all.sort_unstable();
        assert_eq!(all, (0..next).collect::<Vec<_>>(), "each item once");
        for key in 0..6u8 {
            let of_key: Vec<u32> = done.iter().filter(|(k, _)| *k == key).map(|(_, i)| *i).collect();
            assert!(of_key.is_sorted(), "key {key} ran out of order: {of_key:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn lanes_keep_the_order_of_each_key_and_lose_nothing(
            steps in proptest::collection::vec(step(), 0..120),
            max_parallel in 1usize..4,
            max_open in 1usize..6,
        ) {
            check(&steps, Limits { max_parallel, max_open });
        }
    }

    #[test]
    fn a_busy_lane_does_not_keep_another_from_its_turn() {
        let mut lanes = Lanes::new(Limits { max_parallel: 1, max_open: 10 });
        for item in 0..100 {
            lanes.push("busy", item);
        }
        lanes.push("quiet", 1_000);
        let now = Instant::now();
        assert_eq!(lanes.start(now), Some("busy"));
        assert_eq!(lanes.start(now), None);
        lanes.complete(&"busy");
        assert_eq!(lanes.start(now), Some("quiet"));
    }

    #[test]
    fn a_sleeping_lane_gives_its_slot_away_and_keeps_its_order() {
        let mut lanes = Lanes::new(Limits { max_parallel: 1, max_open: 10 });
        lanes.push("a", 1);
        lanes.push("a", 2);
        lanes.push("b", 3);
        let now = Instant::now();
        assert_eq!(lanes.start(now), Some("a"));
        lanes.sleep(&"a", now + Duration::from_secs(1));
        assert_eq!(lanes.wake_at(), Some(now + Duration::from_secs(1)));
        assert_eq!(lanes.start(now), Some("b"));
        assert_eq!(lanes.complete(&"b"), Some(3));
        assert_eq!(lanes.start(now), None);
        let later = now + Duration::from_secs(1);
        assert_eq!(lanes.start(later), Some("a"));
        assert_eq!(lanes.complete(&"a"), Some(1));
        assert_eq!(lanes.start(later), Some("a"));
        assert_eq!(lanes.complete(&"a"), Some(2));
        assert!(lanes.is_empty());
    }
}
