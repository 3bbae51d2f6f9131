//! The watchdog of a store's webhooks: finds what is wrong with them, puts it right, and says what may have been missed.
//!
//! A round ([`round`]) reads, decides, and does what is to be done; its [`State`] is to be kept for the next one. What was
//! lost must be known before it is mended: a process that dies right after it woke a hook must still know that the hook
//! had slept. So a round mends only what the state that it was *given* knows of; one that finds something new mends
//! nothing and asks to be called again at once, with its state kept. A gap is reported by the first round that sees
//! callbacks delivered again, with the time from which on some may have been lost; keep the state that came with it
//! together with the order to repair, or after it, and at worst the repair is done twice.
//!
//! Scopes are what is watched, not hooks: a scope is delivered if any hook of ours that is sure to bring it fires, at
//! the right place, with headers that the receiver takes. So a wildcard in place of single hooks, or a secret header in
//! the middle of a rotation, is no gap. Half an hour in which nobody looked is one: nobody can say that all was well. A scope that was never seen delivered has none either: what came before the
//! first subscription is a snapshot's to bring.
//!
//! It fails by an error where the hooks could not be read: such a look says nothing about anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hooks::{self, Admin, Applied, BlockedDomain, HookError};
use super::hooks_plan::{self, Action, Change, Hook, Plan, Wanted};
use super::hooks_scopes::{self, Subscription};
use crate::runtime::ports::Store;

/// Between two looks. BigCommerce blocks a failing domain for three minutes, so that a look each two sees every block.
pub const LOOK_EVERY: Duration = Duration::from_secs(120);

/// From a round that found something new to the next one, which may mend it.
pub const LOOK_ONCE_KEPT: Duration = Duration::from_secs(1);

/// From a round that failed to the next one; twice as long after each further one, up to [`LOOK_EVERY`].
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// From a look that changed something to the next one. Up to a minute passes before a new hook fires: only then can it
/// be said until when callbacks were missed.
pub const LOOK_AFTER_CHANGE: Duration = Duration::from_secs(90);

/// How far before the last healthy look a gap begins: a hook may have been switched off right after that look, and
/// callbacks of minutes before may have failed by then, to be tried again.
const OVERLAP_MS: i64 = 10 * 60 * 1000;

/// How old a callback may be that BigCommerce gives up with when it deactivates a hook: all retries take 48 h 4 min.
/// Those of an hour more cost the repair little.
const RETRIES_MS: i64 = 49 * 3600 * 1000;

/// How long a hook may stay untouched. BigCommerce deactivates a hook after 90 days without activity; at a third of it
/// there is time for many more attempts.
const UNTOUCHED_MS: i64 = 30 * DAY_MS;

/// Between two attempts to keep a hook awake, for a store that does not tell when a hook was changed.
const ATTEMPT_EVERY_MS: i64 = DAY_MS;

/// Hooks kept awake in one look: a request each, in the budget of a store that has other things to do.
const KEPT_AWAKE_A_LOOK: usize = 10;

/// After how long without a healthy look it can't be said any more that all was well: blocks of the domain come and go
/// within minutes, and a process that was away may have been the reason for some.
const UNWATCHED_MS: i64 = 30 * 60 * 1000;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// What a look must know of the looks before. Starts empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// When each scope was last seen to be delivered, in milliseconds since 1970.
    healthy_ms: BTreeMap<String, i64>,
    /// Scopes that are not delivered, and since when callbacks about them may be lost.
    lost_since_ms: BTreeMap<String, i64>,
    /// Whether our domain was blocked when that could last be told.
    is_blocked: bool,
    /// When each hook was last kept awake, by id.
    kept_awake_ms: BTreeMap<u64, i64>,
    /// Rounds in a row that could not mend all.
    failures: u32,
}

impl State {
    /// Whether everything that is lost now was known to be lost before.
    fn is_known_to(&self, before: &Self) -> bool {
        self.lost_since_ms.keys().all(|scope| before.lost_since_ms.contains_key(scope))
    }
}

/// A time in which callbacks may have been lost. It ends with the look that reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The scopes, as they were wanted: `{channel_id}` stands for every channel.
    pub scopes: BTreeSet<String>,
    /// Its beginning, in milliseconds since 1970; the earliest of all of its scopes.
    pub since_ms: i64,
}

/// How many of the hooks to have are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// As they should be.
    pub active: u64,
    /// Switched off, by hand.
    pub inactive: u64,
    /// Switched off, by BigCommerce.
    pub deactivated: u64,
    /// Not there.
    pub missing: u64,
    /// At another place or with other headers.
    pub drifted: u64,
    /// As they should be, but on a domain that BigCommerce does not deliver to.
    pub blocked: u64,
    /// Ours, and not wanted any more: what they bring may come twice. They are pruned by hand alone.
    pub unwanted: u64,
}

/// What a look found.
#[derive(Debug)]
pub struct Findings {
    /// What may have been missed, now that callbacks come again.
    pub gap: Option<Gap>,
    /// The wanted hooks, counted as they were found.
    pub tally: Tally,
    /// Why our domain is blocked, if it is.
    pub blocked: Vec<BlockedDomain>,
    /// Why nothing could be told of blocked domains. The rest of the findings stands.
    pub admin_error: Option<HookError>,
    /// Why the store's channels are not known. Nothing was judged or planned for scopes of single channels then.
    pub channels_error: Option<HookError>,
    /// What is to be done.
    pub plan: Plan,
}

impl Findings {
    /// Whether every wanted scope is delivered, as far as can be told.
    pub fn is_healthy(&self) -> bool {
        let Tally { active: _, inactive, deactivated, missing, drifted, blocked, unwanted: _ } = self.tally;
        [inactive, deactivated, missing, drifted, blocked].iter().all(|count| *count == 0)
    }

    /// The count once everything that can be done was done.
    pub fn tally_once_mended(&self) -> Tally {
        let full = self.plan.items.iter().filter(|item| item.action == Action::Full).count() as u64;
        let Tally { active, inactive, deactivated, missing, drifted, blocked, unwanted } = self.tally;
        let active = active + inactive + deactivated + drifted + missing - full;
        Tally { active, missing: full, blocked, unwanted, ..Tally::default() }
    }
}

/// What the store said at one moment.
struct Sight<'a> {
    now_ms: i64,
    subscriptions: &'a [Subscription],
    hooks: &'a [Hook],
    /// None where it could not be read.
    admin: Option<&'a Admin>,
    /// Whether the channels are known, and so all subscriptions.
    is_whole: bool,
}

/// Looks at a store's hooks: two requests, and one for the channels where they matter.
///
/// # Errors
/// The hooks could not be read; the state stays as it was.
pub async fn look(
    store: &impl Store,
    wanted: &Wanted,
    state: &State,
    now_ms: i64,
) -> Result<(State, Findings), HookError> {
    // A token that may not read channels must not cost the store its other hooks.
    let (subscriptions, channels_error) = match hooks::subscriptions(store, wanted).await {
        Ok(subscriptions) => (subscriptions, None),
        Err(error) => (wanted.subscriptions(&[]), Some(error)),
    };
    let hooks = hooks::list(store).await?;
    let admin = hooks::admin(store).await;
    let sight = Sight {
        now_ms,
        subscriptions: &subscriptions,
        hooks: &hooks,
        admin: admin.as_ref().ok(),
        is_whole: channels_error.is_none(),
    };
    let (state, mut findings) = judge(wanted, state, &sight);
    (findings.admin_error, findings.channels_error) = (admin.err(), channels_error);
    Ok((state, findings))
}

/// What a round did.
#[derive(Debug)]
pub struct Round {
    /// To be kept, and given to the next round.
    pub state: State,
    /// What was found.
    pub findings: Findings,
    /// What became of each item of the plan, in order; empty where nothing was tried.
    pub applied: Vec<Applied>,
    /// How long to wait for the next round.
    pub next_look: Duration,
}

/// Looks, and mends what `state` knows to be lost.
///
/// # Errors
/// See [`look`]; wait for [`retry_after`].
pub async fn round(
    store: &impl Store,
    wanted: &Wanted,
    state: &State,
    now_ms: i64,
) -> Result<Round, HookError> {
    let (mut next, findings) = look(store, wanted, state, now_ms).await?;
    if !next.is_known_to(state) {
        return Ok(Round { state: next, findings, applied: Vec::new(), next_look: LOOK_ONCE_KEPT });
    }
    let applied = hooks::apply(store, wanted, findings.plan.clone()).await;
    let mut tried = applied.iter().filter(|done| done.item.action.is_change()).peekable();
    let is_calm = tried.peek().is_none() && findings.is_healthy();
    let has_failed = tried.any(|done| done.result.is_err());
    next.failures = if has_failed { state.failures.saturating_add(1) } else { 0 };
    let next_look = match (has_failed, is_calm) {
        (true, _) => retry_after(next.failures),
        (false, true) => LOOK_EVERY,
        (false, false) => LOOK_AFTER_CHANGE,
    };
    Ok(Round { state: next, findings, applied, next_look })
}

/// How long to wait after so many rounds in a row that failed.
pub fn retry_after(failures: u32) -> Duration {
    // Four doublings reach the limit.
    (RETRY_AFTER * 2_u32.pow(failures.saturating_sub(1).min(4))).min(LOOK_EVERY)
}

/// The step of the state machine.
fn judge(wanted: &Wanted, state: &State, sight: &Sight<'_>) -> (State, Findings) {
    let blocked: Vec<BlockedDomain> = sight.admin.map_or_else(Vec::new, |admin| {
        admin.blocked.iter().filter(|domain| wanted.is_our_domain(&domain.destination)).cloned().collect()
    });
    let is_blocked = sight.admin.map_or(state.is_blocked, |_| !blocked.is_empty());
    // Of a scope that was not looked at, what was known stays known.
    let mut next = if sight.is_whole { State::default() } else { state.clone() };
    next.is_blocked = is_blocked;
    let mut gap: Option<Gap> = None;
    for (concrete, asked) in sight.subscriptions.iter().flat_map(|hook| &hook.serves) {
        let healthy = state.healthy_ms.get(concrete).copied();
        let unwatched = healthy.filter(|at| sight.now_ms.saturating_sub(*at) > UNWATCHED_MS);
        let lost_since = state.lost_since_ms.get(concrete).copied();
        let lost_since = lost_since.or(unwatched.map(|at| at.saturating_sub(OVERLAP_MS)));
        if !is_blocked && is_delivered(wanted, sight.hooks, concrete) {
            next.healthy_ms.insert(concrete.clone(), sight.now_ms);
            next.lost_since_ms.remove(concrete);
            if let Some(since_ms) = lost_since {
                let gap = gap.get_or_insert_with(|| Gap { scopes: BTreeSet::new(), since_ms });
                gap.scopes.insert(asked.clone());
                gap.since_ms = gap.since_ms.min(since_ms);
            }
            continue;
        }
        // Never seen delivered: nothing that could have been missed.
        let Some(healthy) = healthy else { continue };
        next.healthy_ms.insert(concrete.clone(), healthy);
        let given_up = if is_deactivated(wanted, sight, concrete) { RETRIES_MS } else { 0 };
        // A clock that was set back must not make the gap shorter.
        let since = healthy.min(sight.now_ms).saturating_sub(OVERLAP_MS + given_up);
        next.lost_since_ms.insert(concrete.clone(), lost_since.map_or(since, |earlier| earlier.min(since)));
    }
    let mut plan = hooks_plan::plan(wanted, sight.subscriptions, sight.hooks);
    let tally = count(&plan, sight.admin, is_blocked);
    next.kept_awake_ms = keep_awake(&mut plan, &state.kept_awake_ms, sight);
    (next, Findings { gap, tally, blocked, admin_error: None, channels_error: None, plan })
}

fn is_delivered(wanted: &Wanted, hooks: &[Hook], concrete: &str) -> bool {
    hooks.iter().any(|hook| wanted.is_delivered(hook) && brings(hook, concrete))
}

fn is_deactivated(wanted: &Wanted, sight: &Sight<'_>, concrete: &str) -> bool {
    let Some(admin) = sight.admin else { return false };
    let mut ours = sight.hooks.iter().filter(|hook| wanted.is_ours(hook) && brings(hook, concrete));
    ours.any(|hook| admin.is_deactivated(hook.id))
}

fn brings(hook: &Hook, concrete: &str) -> bool {
    hooks_scopes::brings(hooks_plan::tidy(&hook.scope), concrete)
}

fn count(plan: &Plan, admin: Option<&Admin>, is_blocked: bool) -> Tally {
    let mut tally = Tally::default();
    for item in &plan.items {
        let place = match &item.action {
            Action::Keep { .. } if is_blocked => &mut tally.blocked,
            Action::Keep { .. } => &mut tally.active,
            Action::Create | Action::Full => &mut tally.missing,
            Action::Update { id, .. } if admin.is_some_and(|admin| admin.is_deactivated(*id)) => {
                &mut tally.deactivated
            }
            Action::Update { changes, .. } if changes.contains(&Change::Reactivate) => &mut tally.inactive,
            Action::Update { .. } => &mut tally.drifted,
            Action::Unwanted { .. } => &mut tally.unwanted,
            Action::Foreign { .. } => continue,
        };
        *place += 1;
    }
    tally
}

/// Turns keeping into touching for hooks that nobody touched for long, the longest first. Returns when each hook was
/// last touched for that reason.
fn keep_awake(plan: &mut Plan, before: &BTreeMap<u64, i64>, sight: &Sight<'_>) -> BTreeMap<u64, i64> {
    let mut kept: BTreeMap<u64, i64> = before
        .iter()
        .filter(|(id, _)| sight.hooks.iter().any(|hook| hook.id == **id))
        .map(|(i, t)| (*i, *t))
        .collect();
    let touched_ms = |id: u64| {
        let hook = sight.hooks.iter().find(|hook| hook.id == id);
        hook.map_or(sight.now_ms, |hook| hook.touched_s.saturating_mul(1000))
    };
    let is_due = |id: u64| {
        let attempt = kept.get(&id).is_none_or(|at| sight.now_ms.saturating_sub(*at) >= ATTEMPT_EVERY_MS);
        attempt && sight.now_ms.saturating_sub(touched_ms(id)) >= UNTOUCHED_MS
    };
    let mut due: Vec<(i64, u64)> = plan
        .items
        .iter()
        .filter_map(|item| match item.action {
            Action::Keep { id } if is_due(id) => Some((touched_ms(id), id)),
            _ => None,
        })
        .collect();
    due.sort_unstable();
    due.truncate(KEPT_AWAKE_A_LOOK);
    for (_, id) in due {
        kept.insert(id, sight.now_ms);
        for item in plan.items.iter_mut().filter(|item| item.action == Action::Keep { id }) {
            item.action = Action::Update { id, changes: vec![Change::KeepAwake] };
        }
    }
    kept
}

#[cfg(test)]
mod tests;
