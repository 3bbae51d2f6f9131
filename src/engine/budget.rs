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
//! What there is goes to live events first and to snapshots last, each with a share. Several replicas that share one
//! store bound what they do to their part of the quota, and assume of each other what they do themselves.
//!
//! A window of which nothing is known starts with one probe. Where a store tells nothing at all, the second
//! bound alone holds, with an assumed quota. A refusal (429) stops everything for the longer of the waits that it
//! names, or for an exponential back-off, and a probe follows.
//!
//! It reads no clock and draws no random number. It never fails: odd numbers are clamped, and the longest wait
//! it names is [`BudgetConfig::max_wait`].

mod classes;
mod recent;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

use self::classes::{Classes, Pace, Supply};
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

/// Replicas beyond this are a mistake, and counts stay far from overflowing.
const MOST_PEERS: u32 = 1_000;

/// Less than this of a store is as good as none; it keeps one request a window possible.
const LEAST_SHARE: f64 = 0.001;

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

/// The rate budget of one store. See the module.
#[derive(Debug)]
pub struct Budget {
    config: BudgetConfig,
    quota: u32,
    length: Duration,
    /// None: nothing is known of the current window.
    window: Option<Window>,
    classes: Classes,
    pace: Pace,
    others: Others,
    /// Our part of the store's quota, and how many replicas share it, this one included.
    share: f64,
    peers: u32,
    last_grant: Option<Instant>,
    blocked_until: Option<Instant>,
    refusals: u32,
}

/// What the store's other apps use.
#[derive(Debug, Default, Clone, Copy)]
struct Others {
    /// Their requests in this window: what is gone, less all that may have been ours, so rather too few.
    so_far: u32,
    /// Their requests in the window before.
    before: u32,
}

impl Others {
    /// Their requests in a window of which this part is still to come: as many as in the one before, or as they go on.
    fn in_a_window(&self, remaining: f64) -> f64 {
        // The first quarter is too little to judge by: a burst in it is not their pace.
        let pace = f64::from(self.so_far) / (1.0 - remaining).max(0.25);
        pace.max(f64::from(self.before))
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
            classes: Classes::default(),
            pace: Pace::default(),
            others: Others::default(),
            share: 1.0,
            peers: 1,
            last_grant: None,
            blocked_until: None,
            refusals: 0,
        }
    }

    /// Shares the store with other replicas: `share` is this one's part, `0.0..=1.0` (that of the partitions that
    /// it owns), and `peers` how many there are, this one included. A new budget has the store for itself.
    pub fn set_peers(&mut self, share: f64, peers: u32) {
        self.share = if share.is_finite() { share.clamp(LEAST_SHARE, 1.0) } else { 1.0 };
        self.peers = peers.clamp(1, MOST_PEERS);
    }

    /// Asks for the right to send one request now.
    pub fn acquire(&mut self, purpose: Purpose, now: Instant) -> Acquired {
        let blocked = match self.when(purpose, now) {
            None => return Acquired::Grant(self.grant(purpose, now)),
            Some(until) => until,
        };
        // A wait is at least a millisecond, so that a caller cannot spin.
        let until = blocked.clamp(now + Duration::from_millis(1), now + self.max_wait());
        self.classes.denied(purpose, until, now, self.length);
        Acquired::WaitUntil(until)
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

    /// Takes back a ticket whose request was never sent.
    pub fn withdrawn(&mut self, ticket: Ticket) {
        self.classes.withdrawn(ticket.purpose);
    }

    /// What is known, for people.
    pub fn view(&self) -> QuotaView {
        QuotaView {
            quota: self.quota,
            left: self.window.and_then(|window| window.left),
            in_flight: self.classes.in_flight(),
            blocked_until: self.blocked_until,
        }
    }

    /// The length of the store's windows: as told, else as assumed.
    pub fn window_length(&self) -> Duration {
        self.length
    }

    fn grant(&mut self, purpose: Purpose, now: Instant) -> Ticket {
        if purpose.is_backfill() {
            let supply = self.supply(now);
            let a_window = self.classes.left_for_backfill(&supply, now);
            self.pace.granted(now, self.length, a_window);
        }
        self.classes.granted(purpose);
        self.last_grant = Some(now);
        Ticket { granted: now, purpose }
    }

    fn close(&mut self, ticket: &Ticket, now: Instant) {
        self.classes.ended(ticket.purpose, now, self.length);
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
                Merged::Newer => self.look_back(),
                Merged::Same | Merged::Older => {}
            },
            _ => self.window = Some(told),
        }
        let left = self.window.and_then(|window| window.left).unwrap_or(self.quota);
        let gone = self.quota.saturating_sub(left);
        let theirs = gone.saturating_sub(self.classes.used(now, self.length));
        self.others.so_far = self.others.so_far.max(theirs);
    }

    /// A window is over.
    fn look_back(&mut self) {
        self.others = Others { so_far: 0, before: self.others.so_far };
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
        let supply = self.supply(now);
        if supply.ours == 0 {
            return Some(self.next_release(now));
        }
        let Some(window) = self.window else {
            let probed = self.last_grant.filter(|_| self.classes.in_flight() > 0)? + PROBE_PATIENCE;
            return (now < probed).then_some(probed);
        };
        if supply.told == 0 {
            return Some(window.ends);
        }
        if window.left.is_some()
            && let Some(wait) = self.spread(purpose, &window, supply.told, now)
        {
            return Some(wait);
        }
        if purpose.is_backfill()
            && let Some(wait) = self.pace.wait(now, self.length)
        {
            return Some(wait);
        }
        let kept = self.classes.is_kept_from(purpose, &supply, now);
        kept.then(|| (now + self.length / 50).min(window.ends))
    }

    /// What there is to share now.
    fn supply(&mut self, now: Instant) -> Supply {
        let usable = self.usable();
        let ours = usable.saturating_sub(self.classes.used(now, self.length));
        let told = match self.window.and_then(|window| window.left) {
            None => ours,
            Some(left) => self.told(left),
        };
        let remaining = self.window.map_or(1.0, |window| window.remaining(now));
        // The reserve is theirs, and what peers may take; what they take beyond is missing from what we may.
        let theirs = f64::from(self.reserve() + (self.quota - self.reserve()).saturating_sub(usable));
        let beyond = |taken: f64| (taken - theirs).max(0.0) * self.share;
        Supply {
            window: self.length,
            remaining,
            usable: (f64::from(usable) - beyond(self.others.in_a_window(remaining))).max(1.0),
            quota: f64::from(self.quota) * self.share,
            ours,
            told,
            theirs: beyond(self.others.in_a_window(remaining) * remaining),
        }
    }

    /// Our part of what the store said is left: each peer may have as many in flight as we, and may be about to
    /// send one more, as we are.
    fn told(&self, left: u32) -> u32 {
        let in_flight = self.classes.in_flight().saturating_mul(self.peers).saturating_add(self.peers - 1);
        let left = left.saturating_sub(in_flight).saturating_sub(self.reserve());
        (f64::from(left) * self.share) as u32
    }

    /// Forgets a window that is over. What follows a told one must be told again; an assumed one just repeats.
    fn roll(&mut self, now: Instant) {
        let Some(window) = self.window.filter(|window| window.ends <= now) else { return };
        self.look_back();
        self.window = window.left.is_none().then(|| Window::assumed(now, self.length));
    }

    /// When little is left of a window it is spread over the rest of it, and the very last calls are for live
    /// events.
    fn spread(&self, purpose: Purpose, window: &Window, left: u32, now: Instant) -> Option<Instant> {
        if left <= self.ours(self.quota) / 50 && purpose != Purpose::Live {
            return Some(window.ends);
        }
        if left > self.usable() / 4 {
            return None;
        }
        let next = self.last_grant? + window.ends.saturating_duration_since(now) / left;
        (now < next).then_some(next)
    }

    /// The reserve for other apps, rounded up; at least one request a window remains for us.
    fn reserve(&self) -> u32 {
        let reserve = (f64::from(self.quota) * self.config.reserve).ceil() as u32;
        reserve.min(self.quota.saturating_sub(1))
    }

    /// Requests that we may send in a window; at least one.
    fn usable(&self) -> u32 {
        self.ours(self.quota - self.reserve()).max(1)
    }

    /// Our part of what the store has.
    fn ours(&self, all: u32) -> u32 {
        (f64::from(all) * self.share) as u32
    }

    fn max_wait(&self) -> Duration {
        self.config.max_wait.clamp(Duration::from_millis(1), LONGEST_WINDOW)
    }

    /// When something may have changed: a request of ours stops counting, or a fiftieth of a window passed.
    fn next_release(&self, now: Instant) -> Instant {
        let soon = now + self.length / 50;
        self.classes.next_release(self.length).map_or(soon, |at| at.max(soon))
    }
}
