//! The budget against naive servers with fixed and with sliding windows.

mod saturation;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const WINDOW_MS: u64 = 3_000;

/// How the modelled store counts.
#[derive(Debug, Clone, Copy)]
enum Counting {
    /// Windows start at fixed moments, shifted by so many milliseconds.
    Fixed(u64),
    /// The last window's length counts at any moment; a reply says when the oldest request leaves.
    Sliding,
    /// As before, but a reply always names a whole window.
    SlidingVague,
    /// Fixed, and says nothing on its replies.
    Mute,
}

/// A store that counts requests by the plain definition of its window.
struct Server {
    counting: Counting,
    quota: u64,
    /// Arrivals of everybody's accepted requests.
    arrivals: Vec<u64>,
}

impl Server {
    fn used(&self, now: u64) -> u64 {
        let counts = |at: &&u64| match self.counting {
            Counting::Fixed(shift) => (**at + shift) / WINDOW_MS == (now + shift) / WINDOW_MS,
            Counting::Mute => **at / WINDOW_MS == now / WINDOW_MS,
            Counting::Sliding | Counting::SlidingVague => **at + WINDOW_MS > now,
        };
        self.arrivals.iter().filter(counts).count() as u64
    }

    fn arrive(&mut self, now: u64) -> (bool, Observation) {
        let taken = self.used(now) < self.quota;
        if taken {
            self.arrivals.push(now);
        }
        let reset = match self.counting {
            Counting::Fixed(shift) => WINDOW_MS - (now + shift) % WINDOW_MS,
            Counting::Mute => return (taken, Observation::default()),
            Counting::SlidingVague => WINDOW_MS,
            Counting::Sliding => {
                let oldest = self.arrivals.iter().find(|at| **at + WINDOW_MS > now);
                oldest.map_or(0, |at| at + WINDOW_MS - now)
            }
        };
        let seen = Observation {
            quota: Some(self.quota as u32),
            left: Some((self.quota - self.used(now)) as u32),
            window: Some(Duration::from_millis(WINDOW_MS)),
            reset_in: Some(Duration::from_millis(reset)),
            retry_after: None,
        };
        (taken, seen)
    }
}

/// What happened in a run.
#[derive(Debug, Default)]
struct History {
    refused: usize,
    /// When our requests arrived, and what for.
    arrivals: Vec<(u64, Purpose)>,
    unserved: usize,
    ended_ms: u64,
}

impl History {
    /// The most of our requests in any span of one window's length.
    fn busiest(&self) -> usize {
        let times: Vec<u64> = self.arrivals.iter().map(|(at, _)| *at).collect();
        times
            .iter()
            .map(|start| times.iter().filter(|at| **at >= *start && **at < start + WINDOW_MS).count())
            .max()
            .unwrap_or(0)
    }

    fn count(&self, purpose: Purpose, from: u64, to: u64) -> usize {
        self.arrivals.iter().filter(|(at, what)| *what == purpose && (from..to).contains(at)).count()
    }
}

enum Event {
    Ask(Purpose),
    Arrive(Ticket),
    Reply(Ticket, bool, Observation),
    Foreign,
}

/// Runs demands `(when, what for)` through a budget and a server; `latency(n)` is the way there and back.
fn run(
    budget: &mut Budget,
    server: &mut Server,
    demand: &[(u64, Purpose)],
    foreign: &[u64],
    latency: impl Fn(usize) -> (u64, u64),
) -> History {
    let base = Instant::now();
    let at = |ms: u64| base + Duration::from_millis(ms);
    let mut events: BTreeMap<(u64, usize), Event> = BTreeMap::new();
    let mut serial = 0;
    let mut push = |events: &mut BTreeMap<_, _>, ms: u64, event| {
        serial += 1;
        events.insert((ms, serial), event);
    };
    for (ms, purpose) in demand {
        push(&mut events, *ms, Event::Ask(*purpose));
    }
    for ms in foreign {
        push(&mut events, *ms, Event::Foreign);
    }
    let mut history = History { unserved: demand.len(), ..History::default() };
    let mut sent = 0;
    while let Some(((ms, _), event)) = events.pop_first() {
        match event {
            Event::Ask(purpose) => match budget.acquire(purpose, at(ms)) {
                Acquired::Grant(ticket) => {
                    sent += 1;
                    push(&mut events, ms + latency(sent).0, Event::Arrive(ticket));
                }
                Acquired::WaitUntil(until) => {
                    let wait = until.duration_since(at(ms));
                    assert!(!wait.is_zero() && wait <= budget.max_wait());
                    // The shell is woken by replies as well; a poll every 40 ms stands for that.
                    let wait = (wait.as_millis() as u64 + 1).min(40);
                    push(&mut events, ms + wait, Event::Ask(purpose));
                }
            },
            Event::Arrive(ticket) => {
                let (taken, seen) = server.arrive(ms);
                history.refused += usize::from(!taken);
                history.arrivals.push((ms, ticket.purpose));
                push(&mut events, ms + latency(history.arrivals.len()).1, Event::Reply(ticket, taken, seen));
            }
            Event::Reply(ticket, true, seen) => {
                budget.replied(ticket, seen, at(ms));
                history.unserved -= 1;
                history.ended_ms = ms;
            }
            Event::Reply(ticket, false, seen) => {
                let purpose = ticket.purpose;
                let until = budget.refused(ticket, seen, 0.5, at(ms));
                assert!(until <= at(ms) + budget.max_wait());
                push(&mut events, ms + 1, Event::Ask(purpose));
            }
            Event::Foreign => {
                let _ = server.arrive(ms);
            }
        }
        if ms > 3_600_000 {
            break;
        }
    }
    history
}

fn budget(reserve: f64, quota: u32) -> Budget {
    Budget::new(BudgetConfig {
        reserve,
        assumed_quota: quota,
        assumed_window: Duration::from_millis(WINDOW_MS),
        ..BudgetConfig::default()
    })
}

fn countings() -> impl Strategy<Value = Counting> {
    prop_oneof![
        (0..WINDOW_MS).prop_map(Counting::Fixed),
        Just(Counting::Sliding),
        Just(Counting::SlidingVague),
        Just(Counting::Mute)
    ]
}

fn purposes() -> impl Strategy<Value = Purpose> {
    prop::sample::select(&Purpose::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn alone_on_the_store_no_request_is_refused_and_the_reserve_is_never_touched(
        counting in countings(),
        quota in 5_u32..120,
        demand in prop::collection::vec((0_u64..12_000, purposes()), 1..300),
        ways in prop::collection::vec((1_u64..900, 1_u64..900), 8..40),
        reserve in 0.1_f64..0.5,
    ) {
        let mut budget = budget(reserve, quota);
        let mut server = Server { counting, quota: quota.into(), arrivals: Vec::new() };
        let history = run(&mut budget, &mut server, &demand, &[], |n| ways[n % ways.len()]);
        let allowed = (quota - (f64::from(quota) * reserve).ceil() as u32).max(1) as usize;
        prop_assert_eq!(history.refused, 0);
        prop_assert!(history.busiest() <= allowed, "{} of {allowed}", history.busiest());
        prop_assert_eq!(history.unserved, 0, "something was never sent");
        // Each window's worth takes a window, the longest way there and back, and a probe.
        let windows = demand.len().div_ceil(allowed) as u64 + 2;
        prop_assert!(history.ended_ms <= 12_000 + windows * (WINDOW_MS + 4_000), "{}", history.ended_ms);
    }

    #[test]
    fn with_another_app_on_the_store_the_quota_left_is_respected_and_everything_is_sent(
        shift in 0..WINDOW_MS,
        quota in 40_u32..150,
        foreign in prop::collection::vec(0_u64..15_000, 0..250),
        ways in prop::collection::vec((1_u64..120, 1_u64..120), 8..40),
    ) {
        let demand: Vec<_> = (0..250).map(|n| (n * 40, Purpose::Live)).collect();
        let mut budget = budget(0.2, quota);
        let mut server = Server { counting: Counting::Fixed(shift), quota: quota.into(), arrivals: Vec::new() };
        let history = run(&mut budget, &mut server, &demand, &foreign, |n| ways[n % ways.len()]);
        prop_assert_eq!(history.unserved, 0);
        // Another app may empty a window at any moment: a probe that meets it is refused, a burst is not.
        prop_assert!(history.refused <= 12, "{} refused", history.refused);
    }

    #[test]
    fn odd_replies_never_give_an_odd_wait(
        seen in prop::collection::vec(
            (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<bool>(), any::<f64>()),
            1..60,
        ),
    ) {
        let mut budget = budget(0.2, 150);
        let mut now = Instant::now();
        for (quota, left, window, reset_in, retry_after, refused, draw) in seen {
            let millis = |ms: Option<u64>| ms.map(Duration::from_millis);
            let seen = Observation {
                quota, left, window: millis(window), reset_in: millis(reset_in), retry_after: millis(retry_after),
            };
            match budget.acquire(Purpose::Live, now) {
                Acquired::WaitUntil(until) => {
                    prop_assert!(until > now && until <= now + budget.max_wait());
                    now = until;
                }
                Acquired::Grant(ticket) if refused => {
                    let until = budget.refused(ticket, seen, draw, now);
                    prop_assert!(until >= now && until <= now + budget.max_wait());
                }
                Acquired::Grant(ticket) => budget.replied(ticket, seen, now),
            }
        }
    }
}

fn granted(acquired: Acquired) -> Ticket {
    match acquired {
        Acquired::Grant(ticket) => ticket,
        Acquired::WaitUntil(_) => panic!("it should have been granted"),
    }
}

fn waiting(acquired: Acquired, now: Instant) -> Duration {
    match acquired {
        Acquired::Grant(_) => panic!("it should have been made to wait"),
        Acquired::WaitUntil(until) => until.duration_since(now),
    }
}

fn told(quota: u32, left: u32, reset_ms: u64) -> Observation {
    Observation {
        quota: Some(quota),
        left: Some(left),
        window: Some(Duration::from_secs(30)),
        reset_in: Some(Duration::from_millis(reset_ms)),
        retry_after: None,
    }
}

#[test]
fn an_unknown_window_starts_with_one_probe() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let probe = granted(budget.acquire(Purpose::Live, now));
    assert!(!waiting(budget.acquire(Purpose::Command, now), now).is_zero());
    budget.replied(probe, told(150, 149, 30_000), now);
    let _second = granted(budget.acquire(Purpose::Command, now));
    let _third = granted(budget.acquire(Purpose::Command, now));
}

#[test]
fn when_a_told_window_is_over_the_next_one_starts_with_one_probe_again() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let probe = granted(budget.acquire(Purpose::Live, now));
    budget.replied(probe, told(150, 149, 5_000), now);
    let later = now + Duration::from_millis(5_001);
    let probe = granted(budget.acquire(Purpose::Live, later));
    waiting(budget.acquire(Purpose::Live, later), later);
    budget.replied(probe, told(150, 100, 29_900), later);
    let _next = granted(budget.acquire(Purpose::Live, later));
}

#[test]
fn five_thousand_entities_in_twenty_reads_are_not_throttled() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let probe = granted(budget.acquire(Purpose::Live, now));
    budget.replied(probe, told(150, 149, 29_900), now);
    let tickets: Vec<_> = (0..20).map(|_| granted(budget.acquire(Purpose::Live, now))).collect();
    assert_eq!(tickets.len(), 20);
}

#[test]
fn of_two_waits_the_longer_one_counts() {
    for (reset, after, expected) in [(7_000, 3, 7), (2_000, 9, 9), (0, 4, 4)] {
        let now = Instant::now();
        let mut budget = Budget::new(BudgetConfig::default());
        let ticket = granted(budget.acquire(Purpose::Live, now));
        let seen = Observation { retry_after: Some(Duration::from_secs(after)), ..told(150, 0, reset) };
        let until = budget.refused(ticket, seen, 0.0, now);
        assert_eq!(until.duration_since(now), Duration::from_secs(expected));
        assert!(waiting(budget.acquire(Purpose::Live, now), now) >= Duration::from_secs(expected));
        // Then a probe, and nothing else until it is answered.
        let _probe = granted(budget.acquire(Purpose::Live, until));
        waiting(budget.acquire(Purpose::Live, until), until);
    }
}

#[test]
fn refusals_without_a_wait_back_off_exponentially_until_a_reply() {
    let mut now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let mut waits = Vec::new();
    for _ in 0..8 {
        let ticket = granted(budget.acquire(Purpose::Live, now));
        let until = budget.refused(ticket, Observation::default(), 1.0, now);
        waits.push(until.duration_since(now).as_secs());
        now = until;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let ticket = granted(budget.acquire(Purpose::Live, now));
    budget.replied(ticket, told(150, 140, 20_000), now);
    let ticket = granted(budget.acquire(Purpose::Live, now));
    assert_eq!(budget.refused(ticket, Observation::default(), 1.0, now).duration_since(now).as_secs(), 1);
}

#[test]
fn a_burst_of_refusals_is_one_step_of_the_back_off() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let probe = granted(budget.acquire(Purpose::Live, now));
    budget.replied(probe, told(150, 149, 30_000), now);
    let burst: Vec<_> = (0..16).map(|_| granted(budget.acquire(Purpose::Live, now))).collect();
    let mut until = now;
    for ticket in burst {
        until = budget.refused(ticket, Observation::default(), 1.0, now);
    }
    assert_eq!(until.duration_since(now), Duration::from_secs(1));
}

#[test]
fn a_store_whose_last_calls_are_the_reserve_is_left_alone_until_its_window_ends() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let probe = granted(budget.acquire(Purpose::Live, now));
    budget.replied(probe, told(150, 30, 12_000), now);
    assert_eq!(waiting(budget.acquire(Purpose::Live, now), now), Duration::from_secs(12));
}

#[test]
fn the_last_calls_of_a_window_are_spread_and_are_for_live_events() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default());
    let probe = granted(budget.acquire(Purpose::Live, now));
    budget.replied(probe, told(150, 33, 9_000), now);
    waiting(budget.acquire(Purpose::Command, now), now);
    assert_eq!(waiting(budget.acquire(Purpose::Live, now), now), Duration::from_secs(3));
    let _live = granted(budget.acquire(Purpose::Live, now + Duration::from_secs(3)));
}

/// Both purposes over `windows`, one with a backlog from the start, the other with an even demand.
fn contended(backlog: Purpose, other: Purpose, counting: Counting) -> (History, usize) {
    let mut demand: Vec<_> = (0..900).map(|_| (0, backlog)).collect();
    // A third of the quota, spread over each of six windows.
    let wanted = 45;
    demand.extend((0..wanted * 6).map(|n| (n * WINDOW_MS / wanted, other)));
    let mut budget = budget(0.2, 150);
    let mut server = Server { counting, quota: 150, arrivals: Vec::new() };
    let history = run(&mut budget, &mut server, &demand, &[], |n| (3 + n as u64 % 11, 2 + n as u64 % 7));
    assert_eq!((history.refused, history.unserved), (0, 0));
    let served = history.count(other, WINDOW_MS, 6 * WINDOW_MS);
    (history, served)
}

#[test]
fn commands_keep_three_tenths_of_the_quota_under_a_backlog_of_live_reads() {
    for counting in [Counting::Fixed(700), Counting::Sliding, Counting::Mute] {
        let (_, served) = contended(Purpose::Live, Purpose::Command, counting);
        assert!(served >= 5 * 45 - 10, "{counting:?}: {served} of {}", 5 * 45);
    }
}

#[test]
fn live_reads_keep_three_tenths_of_the_quota_under_a_flood_of_commands() {
    for counting in [Counting::Fixed(700), Counting::Sliding, Counting::Mute] {
        let (_, served) = contended(Purpose::Command, Purpose::Live, counting);
        assert!(served >= 5 * 45 - 10, "{counting:?}: {served} of {}", 5 * 45);
    }
}

#[test]
fn a_share_that_nobody_wants_is_lent() {
    let demand: Vec<_> = (0..600).map(|_| (0, Purpose::Live)).collect();
    let mut budget = budget(0.2, 150);
    let mut server = Server { counting: Counting::Fixed(0), quota: 150, arrivals: Vec::new() };
    let history = run(&mut budget, &mut server, &demand, &[], |_| (2, 3));
    assert_eq!((history.refused, history.unserved), (0, 0));
    // 120 of 150 are usable, so five windows at best; one in ten is lost to probes and rounding at most.
    assert!(history.ended_ms <= 5 * WINDOW_MS + WINDOW_MS / 2, "{} ms", history.ended_ms);
}
