//! Who comes first among the bridge's own requests: live events, then commands, upkeep, syncs, polls, sweeps and
//! snapshots.
//!
//! Each purpose keeps a share of the quota for itself while it wants it. What nobody wants is lent, to the one of
//! the highest precedence that asks. Nobody waits for ever: a purpose that got nothing for [`STARVED`] windows is
//! next. Backfill leaves room for the events that are to be expected, and is spread over the window by [`Pace`].

use std::time::{Duration, Instant};

use super::recent::Recent;
use crate::model::request::Purpose;

const CLASSES: usize = Purpose::ALL.len();

/// The part of the quota that each purpose keeps while it wants it, in the order of [`Purpose::ALL`]. Together
/// they are less than what the default reserve leaves.
const SHARES: [f64; CLASSES] = [0.30, 0.30, 0.05, 0.04, 0.04, 0.02, 0.02];

/// The part of an evenly used window that backfill leaves to the others, when other apps used up the rest.
const LAST_PART: f64 = 0.25;

/// The part of an idle purpose's share that is not lent at the start of a window, so that it can start at once.
const IDLE_PART: f64 = 0.2;

/// What a purpose is expected to want, against what it used in the last window.
const GROWTH: f64 = 1.5;

/// The same where backfill asks: events come before it the moment they are there, so little room is needed.
const BACKFILL_GROWTH: f64 = 1.1;
/// And the part of an idle purpose's share that backfill leaves alone, at any time of the window.
const BACKFILL_IDLE_PART: f64 = 0.1;

/// Windows without a single request after which a waiting purpose is next.
const STARVED: u32 = 2;

/// One purpose's traffic.
#[derive(Debug, Default)]
struct Class {
    in_flight: u32,
    recent: Recent,
    /// Since when it asked and got nothing.
    hungry_since: Option<Instant>,
    /// Until when it counts as waiting: whoever waits asks again before.
    hungry_until: Option<Instant>,
}

impl Class {
    fn is_hungry(&self, now: Instant) -> bool {
        self.hungry_until.is_some_and(|until| now < until)
    }

    fn is_starved(&self, now: Instant, window: Duration) -> bool {
        self.is_hungry(now) && self.hungry_since.is_some_and(|since| since + window * STARVED <= now)
    }
}

/// How much there is to share at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supply {
    /// The length of a window.
    pub(super) window: Duration,
    /// The part of the store's window that is still to come, `0.0..=1.0`.
    pub(super) remaining: f64,
    /// Requests that may be sent in a window, all purposes together.
    pub(super) usable: f64,
    /// The quota, of which the shares are parts.
    pub(super) quota: f64,
    /// What is left of [`Self::usable`] by our own count of the last window's length.
    pub(super) ours: u32,
    /// What is left for us of the store's window, as it told.
    pub(super) told: u32,
    /// The part of [`Self::told`] that other apps are expected to take.
    pub(super) theirs: f64,
}

/// The traffic of all purposes.
#[derive(Debug, Default)]
pub(super) struct Classes {
    classes: [Class; CLASSES],
}

impl Classes {
    pub(super) fn granted(&mut self, purpose: Purpose) {
        let class = &mut self.classes[purpose as usize];
        class.in_flight += 1;
        (class.hungry_since, class.hungry_until) = (None, None);
    }

    /// Nothing for this purpose before `until`, when whoever waits asks again.
    pub(super) fn denied(&mut self, purpose: Purpose, until: Instant, now: Instant, window: Duration) {
        let class = &mut self.classes[purpose as usize];
        if !class.is_hungry(now) {
            class.hungry_since = Some(now);
        }
        class.hungry_until = Some(until.min(now + window) + window / 4);
    }

    /// A request of this purpose ended.
    pub(super) fn ended(&mut self, purpose: Purpose, now: Instant, window: Duration) {
        let class = &mut self.classes[purpose as usize];
        class.in_flight = class.in_flight.saturating_sub(1);
        class.recent.ended(now, window);
    }

    /// A request of this purpose was granted and never sent.
    pub(super) fn withdrawn(&mut self, purpose: Purpose) {
        let class = &mut self.classes[purpose as usize];
        class.in_flight = class.in_flight.saturating_sub(1);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.classes.iter().map(|class| class.in_flight).sum()
    }

    /// Requests of all purposes that count within the last window's length.
    pub(super) fn used(&mut self, now: Instant, window: Duration) -> u32 {
        self.classes.iter_mut().map(|class| class.in_flight + class.recent.count(now, window)).sum()
    }

    /// When the next of our requests stops counting.
    pub(super) fn next_release(&self, window: Duration) -> Option<Instant> {
        self.classes.iter().filter_map(|class| class.recent.next_release(window)).min()
    }

    /// Whether what there is, is for others than `purpose`.
    pub(super) fn is_kept_from(&mut self, purpose: Purpose, supply: &Supply, now: Instant) -> bool {
        let mine = purpose as usize;
        let room = supply.ours.min(supply.told);
        let starved = |class: &Class| class.is_starved(now, supply.window);
        if starved(&self.classes[mine]) {
            let longer = |class: &&Class| class.hungry_since < self.classes[mine].hungry_since;
            let before_me = self.classes.iter().filter(|class| starved(class)).filter(longer).count();
            return room as usize <= before_me;
        }
        let starving = self.classes.iter().filter(|class| starved(class)).count() as u32;
        let Some(room) = room.checked_sub(starving).filter(|room| *room > 0) else { return true };
        let (shares, used) = (shares(supply), self.counts(now, supply.window));
        let wants = |at: usize| self.classes[at].is_hungry(now);
        if used[mine] >= shares[mine] && (0..mine).any(wants) {
            return true;
        }
        let kept: [f64; CLASSES] = std::array::from_fn(|at| {
            // An idle purpose is expected to want half as much again as it used, and a little to start with.
            let idle = shares[at] * IDLE_PART * supply.remaining;
            let wanted = if wants(at) { shares[at] } else { (used[at] * GROWTH + idle).min(shares[at]) };
            (wanted - used[at]).max(0.0)
        });
        let all: f64 = kept.iter().sum();
        // When there is less than all together may keep, each keeps its part of what there is.
        let part = if all > f64::from(room) { f64::from(room) / all } else { 1.0 };
        let others = ((all - kept[mine]) * part).floor() as u32;
        if room <= others {
            return true;
        }
        purpose.is_backfill() && used[mine] >= shares[mine] && self.is_expected(supply, now)
    }

    /// Whether what there is, is no more than what the purposes before backfill may be expected to want of it.
    fn is_expected(&mut self, supply: &Supply, now: Instant) -> bool {
        let (shares, used) = (shares(supply), self.counts(now, supply.window));
        let (mut by_count, mut by_window) = (0.0, 0.0);
        for at in before_backfill() {
            // By our own count, what is used comes back at the pace at which it was used: only growth needs room.
            by_count += expected(used[at], shares[at]) - used[at];
            by_window += expected(used[at], shares[at]) * supply.remaining;
        }
        let by_window = (by_window + supply.theirs).max(supply.usable * LAST_PART * supply.remaining);
        f64::from(supply.ours) <= by_count || f64::from(supply.told) <= by_window
    }

    /// Requests a window that backfill may have besides what the others are expected to want; at least its shares.
    pub(super) fn left_for_backfill(&mut self, supply: &Supply, now: Instant) -> f64 {
        let (shares, used) = (shares(supply), self.counts(now, supply.window));
        let expected: f64 = before_backfill().map(|at| expected(used[at], shares[at])).sum();
        let least: f64 = shares.iter().sum::<f64>() - before_backfill().map(|at| shares[at]).sum::<f64>();
        (supply.usable - expected).max(least)
    }

    fn counts(&mut self, now: Instant, window: Duration) -> [f64; CLASSES] {
        self.classes.each_mut().map(|class| f64::from(class.in_flight + class.recent.count(now, window)))
    }
}

fn before_backfill() -> impl Iterator<Item = usize> {
    Purpose::ALL.into_iter().filter(|purpose| !purpose.is_backfill()).map(|purpose| purpose as usize)
}

/// What a purpose may be expected to want in a window, before backfill gets something.
fn expected(used: f64, share: f64) -> f64 {
    (used * BACKFILL_GROWTH).max(used + share * BACKFILL_IDLE_PART)
}

/// What each purpose keeps, in requests a window.
fn shares(supply: &Supply) -> [f64; CLASSES] {
    let all: f64 = SHARES.iter().sum();
    let scale = supply.usable.min(supply.quota * all) / all;
    SHARES.map(|share| share * scale)
}

/// Spreads backfill evenly: a burst of it would leave a gap one window later, in which live events wait.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the next request is due.
    due: Option<Instant>,
}

impl Pace {
    /// The part of a window's requests that may be sent at once.
    const BURST: u32 = 16;

    /// When the next request may go, if not now.
    pub(super) fn wait(&self, now: Instant, window: Duration) -> Option<Instant> {
        let due = self.due?;
        // Written without subtracting from an instant, which may not reach back that far.
        (now + window / Self::BURST < due).then(|| now + (due - (now + window / Self::BURST)))
    }

    /// A request goes, of so many that may in a window.
    pub(super) fn granted(&mut self, now: Instant, window: Duration, a_window: f64) {
        let gap = window.as_secs_f64() / a_window.max(f64::MIN_POSITIVE);
        let gap = Duration::from_secs_f64(gap.min(window.as_secs_f64()));
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + gap);
    }
}
