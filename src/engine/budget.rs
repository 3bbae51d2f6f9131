//! The rate budget of one store: who may send a request, and when.
//!
//! A store has one quota for all of its apps, and tells on every reply what is left of the current window. The
//! budget is fed with these replies and asked before every request. Two bounds hold at once:
//!
//! - *What is left*: never more requests than the lowest number left that was seen in this window, minus those
//!   in flight, minus a reserve for the store's other apps.
//! - *What we did*: in no span of one window's length do more of our own requests reach the store than the quota
//!   minus the reserve, wherever the store's windows start and whether they slide or not.
//!
//! A window of which nothing is known starts with one probe. Where a store tells nothing at all, the second
//! bound alone holds, with an assumed quota. A refusal (429) stops everything for the longer of the waits that it
//! names, or for an exponential back-off, and a probe follows.
//!
//! It reads no clock and draws no random number. It never fails: odd numbers are clamped, and the longest wait
//! it names is [`BudgetConfig::max_wait`].

mod recent;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

use self::recent::Recent;
use self::window::{Merged, Window};
use super::backoff::Backoff;
use crate::model::request::Purpose;

/// Refusals without a stated wait: the platform is under load, so start at a second and end at a minute.
const REFUSED: Backoff =
    Backoff { floor: Duration::from_millis(250), base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// A probe that was not answered within this time may be followed by another.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Nobody's windows are shorter or longer; it keeps arithmetic on odd headers harmless.
const SHORTEST_WINDOW: Duration = Duration::from_millis(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Quotas above this are as good as unlimited, and counts stay far from overflowing.
const LARGEST_QUOTA: u32 = 100_000_000;

const CLASSES: usize = 3;

/// The part of the quota that each purpose keeps while others have a backlog, in the order of [`class`].
const SHARES: [f64; CLASSES] = [0.30, 0.30, 0.05];

/// The part of an idle purpose's share that is not lent at the start of a window, so that it can start at once.
const IDLE_PART: f64 = 0.2;

/// How the budget is set up.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetConfig {
    /// The part of the quota left to the store's other apps, `0.0..=0.95`. Default 0.2.
    pub reserve: f64,
    /// Requests a window where the store tells none. Default 150, BigCommerce's smallest plan.
    pub assumed_quota: u32,
    /// The window's length where the store tells none. Default 30 s.
    pub assumed_window: Duration,
    /// No wait is longer, whatever a header says. Default 10 minutes.
    pub max_wait: Duration,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            reserve: 0.2,
            assumed_quota: 150,
            assumed_window: Duration::from_secs(30),
            max_wait: Duration::from_secs(600),
        }
    }
}

/// What a reply tells of the store's window; anything may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observation {
    /// Requests a window.
    pub quota: Option<u32>,
    /// Requests left in this window.
    pub left: Option<u32>,
    /// The window's length.
    pub window: Option<Duration>,
    /// How long this window lasts.
    pub reset_in: Option<Duration>,
    /// How long not to come back, on a refusal.
    pub retry_after: Option<Duration>,
}

/// The right to send one request; it is handed back with what became of it.
#[must_use = "a ticket that is not handed back counts as in flight for ever"]
#[derive(Debug)]
pub struct Ticket {
    granted: Instant,
    purpose: Purpose,
}

/// The answer to [`Budget::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// Send it.
    Grant(Ticket),
    /// Ask again then, or as soon as any request has ended.
    WaitUntil(Instant),
}

/// What the store last said, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaView {
    /// Requests a window: as told, else as assumed.
    pub quota: u32,
    /// Requests left in the current window, where known.
    pub left: Option<u32>,
    /// Our own requests in flight.
    pub in_flight: u32,
    /// When a refusal's wait ends.
    pub blocked_until: Option<Instant>,
}

/// One purpose's share of the traffic.
#[derive(Debug, Default)]
struct Lane {
    in_flight: u32,
    recent: Recent,
    /// Until when it counts as waiting: it asked and got nothing.
    hungry_until: Option<Instant>,
}

/// The rate budget of one store. See the module.
#[derive(Debug)]
pub struct Budget {
    config: BudgetConfig,
    quota: u32,
    length: Duration,
    /// None: nothing is known of the current window.
    window: Option<Window>,
    lanes: [Lane; CLASSES],
    last_grant: Option<Instant>,
    blocked_until: Option<Instant>,
    refusals: u32,
}

const fn class(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Live => 0,
        Purpose::Command => 1,
        Purpose::Upkeep => 2,
    }
}

impl Budget {
    /// A budget that knows nothing of its store yet. Settings out of range are clamped.
    pub fn new(config: BudgetConfig) -> Self {
        let reserve = if config.reserve.is_finite() { config.reserve.clamp(0.0, 0.95) } else { 0.2 };
        let quota = config.assumed_quota.clamp(1, LARGEST_QUOTA);
        let length = config.assumed_window.clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        let config = BudgetConfig { reserve, ..config };
        Self {
            config,
            quota,
            length,
            window: None,
            lanes: Default::default(),
            last_grant: None,
            blocked_until: None,
            refusals: 0,
        }
    }

    /// Asks for the right to send one request now.
    pub fn acquire(&mut self, purpose: Purpose, now: Instant) -> Acquired {
        let blocked = match self.when(purpose, now) {
            None => return Acquired::Grant(self.grant(purpose, now)),
            Some(until) => until,
        };
        self.lanes[class(purpose)].hungry_until = Some(now + self.length / 4);
        // A wait is at least a millisecond, so that a caller cannot spin.
        Acquired::WaitUntil(blocked.clamp(now + Duration::from_millis(1), now + self.max_wait()))
    }

    /// Takes back a ticket whose request was answered with anything but a refusal.
    pub fn replied(&mut self, ticket: Ticket, seen: Observation, now: Instant) {
        self.close(&ticket, now);
        if self.blocked_until.is_none_or(|until| ticket.granted >= until) {
            self.refusals = 0;
        }
        self.observe(&ticket, seen, now);
    }

    /// Takes back a ticket whose request was refused for its rate (429), and says until when everything waits.
    ///
    /// `draw` is a random number of `0.0..=1.0`; it is used when the refusal names no wait.
    pub fn refused(&mut self, ticket: Ticket, seen: Observation, draw: f64, now: Instant) -> Instant {
        self.close(&ticket, now);
        self.observe(&ticket, seen, now);
        let known = seen.reset_in.max(seen.retry_after).filter(|wait| !wait.is_zero());
        let already_waiting = self.blocked_until.is_some_and(|until| now < until);
        let wait = match known {
            Some(wait) => wait,
            // The other requests of one burst are no further attempts.
            None if already_waiting => Duration::ZERO,
            None => {
                let wait = REFUSED.delay(self.refusals, draw);
                self.refusals = self.refusals.saturating_add(1);
                wait
            }
        };
        let until = now + wait.min(self.max_wait());
        let until = self.blocked_until.map_or(until, |blocked| blocked.max(until));
        self.blocked_until = Some(until);
        until
    }

    /// Takes back a ticket whose request got no reply. The store may have counted it.
    pub fn failed(&mut self, ticket: Ticket, now: Instant) {
        self.close(&ticket, now);
        self.count_unreported();
    }

    /// What is known, for people.
    pub fn view(&self) -> QuotaView {
        QuotaView {
            quota: self.quota,
            left: self.window.and_then(|window| window.left),
            in_flight: self.in_flight(),
            blocked_until: self.blocked_until,
        }
    }

    /// The length of the store's windows: as told, else as assumed.
    pub fn window_length(&self) -> Duration {
        self.length
    }

    fn grant(&mut self, purpose: Purpose, now: Instant) -> Ticket {
        let lane = &mut self.lanes[class(purpose)];
        lane.in_flight += 1;
        lane.hungry_until = None;
        self.last_grant = Some(now);
        Ticket { granted: now, purpose }
    }

    fn close(&mut self, ticket: &Ticket, now: Instant) {
        let lane = &mut self.lanes[class(ticket.purpose)];
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.recent.ended(now, self.length);
    }

    fn observe(&mut self, ticket: &Ticket, seen: Observation, now: Instant) {
        if let Some(quota) = seen.quota {
            self.quota = quota.min(LARGEST_QUOTA);
        }
        if let Some(length) = seen.window {
            self.length = length.clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        }
        let Some(left) = seen.left else {
            self.count_unreported();
            if self.window.is_none() {
                self.window = Some(Window::assumed(now, self.length));
            }
            return;
        };
        let reset_in = seen.reset_in.unwrap_or(self.length).min(self.max_wait());
        let mut told = Window::seen(ticket.granted, now, reset_in, self.length);
        told.left = Some(left.min(LARGEST_QUOTA));
        match &mut self.window {
            // An assumed window has no end that could be compared with a told one.
            Some(window) if window.left.is_some() => match window.merge(told) {
                Merged::Same | Merged::Newer | Merged::Older => {}
            },
            _ => self.window = Some(told),
        }
    }

    /// A request ended without telling what is left: it is taken off what was last seen.
    fn count_unreported(&mut self) {
        if let Some(window) = &mut self.window {
            window.left = window.left.map(|left| left.saturating_sub(1));
        }
    }

    /// None: now. Else when to ask again.
    fn when(&mut self, purpose: Purpose, now: Instant) -> Option<Instant> {
        if let Some(until) = self.blocked_until {
            if now < until {
                return Some(until);
            }
            self.blocked_until = None;
            self.window = None;
        }
        self.roll(now);
        let used = self.used(now);
        let ours = self.usable().saturating_sub(used);
        if ours == 0 {
            return Some(self.next_release(now));
        }
        let Some(window) = self.window else {
            let probed = self.last_grant.filter(|_| self.in_flight() > 0)? + PROBE_PATIENCE;
            return (now < probed).then_some(probed);
        };
        let told = match window.left {
            None => ours,
            Some(left) => left.saturating_sub(self.in_flight()).saturating_sub(self.reserve()),
        };
        if told == 0 {
            return Some(window.ends);
        }
        if window.left.is_some()
            && let Some(wait) = self.pace(purpose, &window, told, now)
        {
            return Some(wait);
        }
        let room = ours.min(told);
        (room <= self.held(purpose, room, now)).then(|| (now + self.length / 50).min(window.ends))
    }

    /// Forgets a window that is over. What follows a told one must be told again; an assumed one just repeats.
    fn roll(&mut self, now: Instant) {
        let Some(window) = self.window.filter(|window| window.ends <= now) else { return };
        self.window = window.left.is_none().then(|| Window::assumed(now, self.length));
    }

    /// When little is left of a window it is spread over the rest of it, and the very last calls are for live
    /// events.
    fn pace(&self, purpose: Purpose, window: &Window, left: u32, now: Instant) -> Option<Instant> {
        if left <= self.quota / 50 && purpose != Purpose::Live {
            return Some(window.ends);
        }
        if left > self.usable() / 4 {
            return None;
        }
        let next = self.last_grant? + window.ends.saturating_duration_since(now) / left;
        (now < next).then_some(next)
    }

    /// How much of the room is kept for the other purposes.
    fn held(&mut self, purpose: Purpose, room: u32, now: Instant) -> u32 {
        let remaining = self.window.map_or(1.0, |window| window.remaining(now));
        let scale = f64::from(self.usable()).min(f64::from(self.quota) * SHARES.iter().sum::<f64>())
            / SHARES.iter().sum::<f64>();
        let mut kept = [0.0; CLASSES];
        for (lane, (kept, share)) in self.lanes.iter_mut().zip(kept.iter_mut().zip(SHARES)) {
            let share = share * scale;
            let used = f64::from(lane.in_flight + lane.recent.count(now, self.length));
            let hungry = lane.hungry_until.is_some_and(|until| now < until);
            // An idle purpose is expected to want half as much again as it used, and a little to start with.
            let wanted = if hungry { share } else { (used * 1.5 + share * IDLE_PART * remaining).min(share) };
            *kept = (wanted - used).max(0.0);
        }
        let all: f64 = kept.iter().sum();
        let others = all - kept[class(purpose)];
        // When there is less than all together may keep, each keeps its part of what there is.
        let part = if all > f64::from(room) { f64::from(room) / all } else { 1.0 };
        (others * part).floor() as u32
    }

    fn in_flight(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.in_flight).sum()
    }

    fn used(&mut self, now: Instant) -> u32 {
        let length = self.length;
        self.lanes.iter_mut().map(|lane| lane.in_flight + lane.recent.count(now, length)).sum()
    }

    /// The reserve for other apps, rounded up; at least one request a window remains for us.
    fn reserve(&self) -> u32 {
        let reserve = (f64::from(self.quota) * self.config.reserve).ceil() as u32;
        reserve.min(self.quota.saturating_sub(1))
    }

    fn usable(&self) -> u32 {
        (self.quota - self.reserve()).max(1)
    }

    fn max_wait(&self) -> Duration {
        self.config.max_wait.clamp(Duration::from_millis(1), LONGEST_WINDOW)
    }

    /// When something may have changed: a request of ours stops counting, or a fiftieth of a window passed.
    fn next_release(&self, now: Instant) -> Instant {
        let soon = now + self.length / 50;
        let released = self.lanes.iter().filter_map(|lane| lane.recent.next_release(self.length)).min();
        released.map_or(soon, |at| at.max(soon))
    }
}
