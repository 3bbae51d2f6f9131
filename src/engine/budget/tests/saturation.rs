//! The budget under load that never ends: who waits how long, and who gets how much.
//!
//! Unlike in `tests`, each purpose has one queue of which only the head asks, as in the shell.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;

const WINDOW_MS: u64 = 30_000;

/// Requests of one purpose: when each is wanted, and how many run at once.
#[derive(Clone)]
struct Load {
    purpose: Purpose,
    wanted: Vec<u64>,
    at_once: usize,
}

fn load(purpose: Purpose, wanted: impl IntoIterator<Item = u64>) -> Load {
    Load { purpose, wanted: wanted.into_iter().collect(), at_once: usize::MAX }
}

/// A backlog that is there from the start.
fn backlog(purpose: Purpose, requests: usize) -> Load {
    Load { at_once: 8, ..load(purpose, vec![0; requests]) }
}

/// One replica of the bridge.
struct Bridge {
    budget: Budget,
    queues: Vec<Queue>,
}

struct Queue {
    load: Load,
    next: usize,
    running: usize,
    /// When the head asks again, at the latest.
    asks_at: u64,
    /// For when its next asking is an event already.
    planned: u64,
}

impl Bridge {
    fn new(quota: u32, loads: Vec<Load>) -> Self {
        let config = BudgetConfig { assumed_quota: quota, ..BudgetConfig::default() };
        let queues = loads
            .into_iter()
            .map(|load| Queue { load, next: 0, running: 0, asks_at: 0, planned: 0 })
            .collect();
        Self { budget: Budget::new(config), queues }
    }
}

/// What happened.
#[derive(Default)]
struct Outcome {
    refused: usize,
    /// Purpose, when it was granted, and how long after it was wanted.
    granted: Vec<(Purpose, u64, u64)>,
}

impl Outcome {
    fn waits(&self, purpose: Purpose) -> Vec<u64> {
        let mut waits: Vec<u64> =
            self.granted.iter().filter(|(what, ..)| *what == purpose).map(|(_, _, wait)| *wait).collect();
        waits.sort_unstable();
        waits
    }

    fn p99(&self, purpose: Purpose) -> u64 {
        let waits = self.waits(purpose);
        waits[(waits.len() * 99).div_ceil(100) - 1]
    }

    fn count(&self, purpose: Purpose, from: u64, to: u64) -> usize {
        self.granted.iter().filter(|(what, at, _)| *what == purpose && (from..to).contains(at)).count()
    }

    fn last(&self, purpose: Purpose) -> u64 {
        self.granted.iter().filter(|(what, ..)| *what == purpose).map(|(_, at, _)| *at).max().unwrap_or(0)
    }
}

enum Event {
    Ask,
    Arrive(usize, usize, Ticket),
    Reply(usize, usize, Ticket, bool, Observation),
    Foreign,
}

/// One store with fixed windows of 30 s, and what is to happen next.
struct World<W> {
    base: Instant,
    quota: u64,
    window: u64,
    used: u64,
    events: BTreeMap<(u64, usize), Event>,
    serial: usize,
    /// How long the n-th request takes there and back.
    ways: W,
    outcome: Outcome,
}

impl<W: Fn(usize) -> (u64, u64)> World<W> {
    fn at(&self, ms: u64) -> Instant {
        self.base + Duration::from_millis(ms)
    }

    fn push(&mut self, ms: u64, event: Event) {
        self.serial += 1;
        self.events.insert((ms, self.serial), event);
    }

    /// A request of anybody reaches the store.
    fn arrive(&mut self, ms: u64) -> (bool, Observation) {
        if ms / WINDOW_MS != self.window {
            (self.window, self.used) = (ms / WINDOW_MS, 0);
        }
        let taken = self.used < self.quota;
        self.used += u64::from(taken);
        let seen = Observation {
            quota: Some(self.quota as u32),
            left: Some((self.quota - self.used) as u32),
            window: Some(Duration::from_millis(WINDOW_MS)),
            reset_in: Some(Duration::from_millis(WINDOW_MS - ms % WINDOW_MS)),
            retry_after: None,
        };
        (taken, seen)
    }

    /// The head of a queue asks until it must wait.
    fn ask(&mut self, who: usize, bridge: &mut Bridge, index: usize, ms: u64) {
        let Bridge { budget, queues } = bridge;
        let queue = &mut queues[index];
        while queue.running < queue.load.at_once {
            let Some(wanted) = queue.load.wanted.get(queue.next).copied() else { return };
            let due = wanted.max(queue.asks_at);
            if due > ms {
                if queue.planned <= ms || due < queue.planned {
                    queue.planned = due;
                    self.push(due, Event::Ask);
                }
                return;
            }
            match budget.acquire(queue.load.purpose, self.at(ms)) {
                Acquired::Grant(ticket) => {
                    self.outcome.granted.push((queue.load.purpose, ms, ms - wanted));
                    (queue.next, queue.running) = (queue.next + 1, queue.running + 1);
                    let there = (self.ways)(self.outcome.granted.len()).0;
                    self.push(ms + there, Event::Arrive(who, index, ticket));
                }
                Acquired::WaitUntil(until) => {
                    queue.asks_at = ms + (until.duration_since(self.at(ms)).as_millis() as u64).max(1);
                }
            }
        }
    }

    fn happen(&mut self, event: Event, bridges: &mut [Bridge], ms: u64) {
        match event {
            Event::Ask => {}
            Event::Foreign => drop(self.arrive(ms)),
            Event::Arrive(who, queue, ticket) => {
                let (taken, seen) = self.arrive(ms);
                self.outcome.refused += usize::from(!taken);
                let back = (self.ways)(self.outcome.granted.len()).1;
                self.push(ms + back, Event::Reply(who, queue, ticket, taken, seen));
            }
            Event::Reply(who, queue, ticket, taken, seen) => {
                let bridge = &mut bridges[who];
                match taken {
                    true => bridge.budget.replied(ticket, seen, self.at(ms)),
                    false => drop(bridge.budget.refused(ticket, seen, 0.5, self.at(ms))),
                }
                bridge.queues[queue].running -= 1;
                bridge.queues.iter_mut().for_each(|queue| queue.asks_at = ms);
            }
        }
    }
}

/// Runs bridges against one store, until `until` or until nothing is left to do.
fn simulate(
    bridges: &mut [Bridge],
    quota: u64,
    foreign: &[u64],
    until: u64,
    ways: impl Fn(usize) -> (u64, u64),
) -> Outcome {
    let mut world = World {
        base: Instant::now(),
        quota,
        window: 0,
        used: 0,
        events: BTreeMap::new(),
        serial: 0,
        ways,
        outcome: Outcome::default(),
    };
    world.push(0, Event::Ask);
    foreign.iter().for_each(|ms| world.push(*ms, Event::Foreign));
    while let Some(((ms, _), event)) = world.events.pop_first().filter(|((ms, _), _)| *ms <= until) {
        world.happen(event, bridges, ms);
        for (who, bridge) in bridges.iter_mut().enumerate() {
            // The lowest precedence asks first, which is the worst for the others.
            (0..bridge.queues.len()).rev().for_each(|index| world.ask(who, bridge, index, ms));
        }
    }
    world.outcome
}

/// Requests at uneven times, `a_second` on average, from `from` to `to`.
fn uneven(a_second: f64, from: u64, to: u64) -> Vec<u64> {
    let gap = 1_000.0 / a_second;
    let requests = ((to - from) as f64 / gap) as u64;
    // A fixed pattern of early and late that repeats after 97 requests.
    (0..requests).map(|n| from + (n as f64 * gap + (n * 53 % 97) as f64 / 97.0 * gap) as u64).collect()
}

fn ways(n: usize) -> (u64, u64) {
    (30 + (n as u64 * 37) % 90, 60 + (n as u64 * 71) % 240)
}

/// Two live reads a second while a hundred thousand products are listed in pages of 250, on the smallest plan.
#[test]
fn a_snapshot_of_a_hundred_thousand_products_meets_no_429_and_live_reads_hardly_wait() {
    for live_a_second in [0.5, 1.0, 1.5, 2.0] {
        let live = load(Purpose::Live, uneven(live_a_second, 0, 600_000));
        let mut bridges = [Bridge::new(150, vec![live, backlog(Purpose::Snapshot, 400)])];
        let outcome = simulate(&mut bridges, 150, &[], 600_000, ways);
        let done = outcome.last(Purpose::Snapshot);
        let calls = 400 + outcome.count(Purpose::Live, 0, done);
        let (p99, longest) = (outcome.p99(Purpose::Live), outcome.waits(Purpose::Live)[..].last().copied());
        println!(
            "{live_a_second} live/s: {calls} calls in {} s; live p99 {p99} ms, {longest:?}",
            done / 1_000
        );
        assert_eq!(outcome.refused, 0);
        assert_eq!(outcome.waits(Purpose::Snapshot).len(), 400);
        assert!(p99 < 2_000, "{p99} ms at {live_a_second} a second");
        assert!(calls <= 1_000, "{calls} calls at {live_a_second} a second");
    }
}

#[test]
fn a_snapshot_alone_takes_nearly_all_but_the_reserve() {
    let mut bridges = [Bridge::new(150, vec![backlog(Purpose::Snapshot, 5_000)])];
    let outcome = simulate(&mut bridges, 150, &[], 20 * WINDOW_MS, ways);
    let a_window = outcome.count(Purpose::Snapshot, 0, 20 * WINDOW_MS) / 20;
    assert!((100..=120).contains(&a_window), "{a_window} of 120");
    assert_eq!(outcome.refused, 0);
}

#[test]
fn when_all_want_more_than_there_is_each_gets_its_share_and_live_reads_the_rest() {
    let mut loads = Purpose::ALL.map(|purpose| backlog(purpose, 5_000)).to_vec();
    loads[0].at_once = usize::MAX;
    let mut bridges = [Bridge::new(150, loads)];
    let outcome = simulate(&mut bridges, 150, &[], 21 * WINDOW_MS, ways);
    let got = Purpose::ALL.map(|purpose| outcome.count(purpose, WINDOW_MS, 21 * WINDOW_MS) as f64 / 20.0);
    assert_eq!(outcome.refused, 0);
    let shares = [0.30, 0.30, 0.05, 0.04, 0.04, 0.02, 0.02].map(|share| share * 150.0);
    for (purpose, (got, share)) in Purpose::ALL.into_iter().zip(got.into_iter().zip(shares)) {
        assert!(got >= share * 0.85, "{purpose:?}: {got} of {share} a window");
    }
    assert!(got[0] > got[1] && got.iter().sum::<f64>() > 105.0, "{got:?}");
}

#[test]
fn events_that_come_while_a_snapshot_runs_at_full_blast_are_served_before_it() {
    // Nothing for five minutes, then a flash sale: more than the whole store allows, for one minute.
    let live = load(Purpose::Live, uneven(5.0, 300_000, 360_000));
    let mut bridges = [Bridge::new(150, vec![live, backlog(Purpose::Snapshot, 5_000)])];
    let outcome = simulate(&mut bridges, 150, &[], 600_000, ways);
    let live = outcome.count(Purpose::Live, 330_000, 390_000);
    let snapshot = outcome.count(Purpose::Snapshot, 330_000, 390_000);
    assert_eq!(outcome.refused, 0);
    assert!(live >= 185 && (4..=40).contains(&snapshot), "{live} live, {snapshot} snapshot");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn other_apps_that_take_a_changing_part_cause_no_429(
        rates in prop::collection::vec(0.0_f64..2.0, 12),
        bursts in prop::collection::vec((0_u64..12 * WINDOW_MS, 1_u64..12), 0..12),
        live_a_second in 0.2_f64..1.2,
    ) {
        let mut foreign = Vec::new();
        for (window, rate) in rates.iter().enumerate() {
            let from = window as u64 * WINDOW_MS;
            foreign.extend(uneven(*rate, from, from + WINDOW_MS));
        }
        foreign.extend(bursts.iter().flat_map(|(at, size)| (0..*size).map(move |n| at + n * 20)));
        let live = load(Purpose::Live, uneven(live_a_second, 0, 12 * WINDOW_MS));
        let mut bridges = [Bridge::new(150, vec![live, backlog(Purpose::Snapshot, 5_000)])];
        let outcome = simulate(&mut bridges, 150, &foreign, 12 * WINDOW_MS, ways);
        prop_assert_eq!(outcome.refused, 0);
        // Their reserve is 30 of 150; here they take up to twice that, and in bursts all there is: then even a live
        // read waits for the next window, and no longer.
        let longest = outcome.p99(Purpose::Live);
        prop_assert!(longest < WINDOW_MS + 2_000, "{longest} ms");
    }

    #[test]
    fn nobody_starves_however_small_the_quota(quota in 3_u32..60) {
        let loads = Purpose::ALL.map(|purpose| backlog(purpose, 5_000)).to_vec();
        let mut bridges = [Bridge::new(quota, loads)];
        let outcome = simulate(&mut bridges, quota.into(), &[], 40 * WINDOW_MS, ways);
        prop_assert_eq!(outcome.refused, 0);
        for purpose in Purpose::ALL {
            let got = outcome.count(purpose, 0, 40 * WINDOW_MS);
            prop_assert!(got >= 4, "{purpose:?}: {got} in 40 windows of {quota}");
        }
    }

    #[test]
    fn replicas_share_a_store_without_a_429(
        parts in prop::collection::vec(1_u32..6, 2..5),
        shift in 0_u64..5_000,
    ) {
        let (all, peers) = (f64::from(parts.iter().sum::<u32>()), parts.len() as u32);
        let mut bridges: Vec<Bridge> = parts.iter().map(|part| {
            let loads = vec![
                load(Purpose::Live, uneven(0.4, shift, 10 * WINDOW_MS)),
                backlog(Purpose::Command, 2_000),
                backlog(Purpose::Snapshot, 2_000),
            ];
            let mut bridge = Bridge::new(150, loads);
            bridge.budget.set_peers(f64::from(*part) / all, peers);
            bridge
        }).collect();
        let outcome = simulate(&mut bridges, 150, &[], 10 * WINDOW_MS, ways);
        prop_assert_eq!(outcome.refused, 0);
        let a_window = outcome.granted.len() / 10;
        prop_assert!((80..=126).contains(&a_window), "{a_window} of 120");
    }
}

#[test]
fn a_budget_that_is_shared_with_nobody_is_the_one_it_was() {
    let run = |set: bool| {
        let live = load(Purpose::Live, uneven(2.0, 0, 100_000));
        let mut bridges = [Bridge::new(150, vec![live, backlog(Purpose::Snapshot, 300)])];
        if set {
            bridges[0].budget.set_peers(1.0, 1);
        }
        simulate(&mut bridges, 150, &[], 200_000, ways).granted
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn odd_shares_are_clamped() {
    let now = Instant::now();
    for (share, peers) in [(f64::NAN, 0), (-1.0, u32::MAX), (f64::INFINITY, 1), (0.0, 3)] {
        let mut budget = Budget::new(BudgetConfig::default());
        budget.set_peers(share, peers);
        let Acquired::Grant(ticket) = budget.acquire(Purpose::Live, now) else {
            panic!("one is always possible")
        };
        budget.replied(ticket, Observation::default(), now);
        if let Acquired::WaitUntil(until) = budget.acquire(Purpose::Snapshot, now) {
            assert!(until <= now + Duration::from_secs(600));
        }
    }
}

#[test]
fn a_ticket_that_was_not_used_counts_for_nothing() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig { assumed_quota: 2, ..BudgetConfig::default() });
    for _ in 0..10 {
        let Acquired::Grant(ticket) = budget.acquire(Purpose::Live, now) else { panic!("it counted") };
        budget.withdrawn(ticket);
    }
    assert_eq!(budget.view().in_flight, 0);
}
