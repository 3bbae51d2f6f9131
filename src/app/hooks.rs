//! One round of one store's watchdog over its webhook subscriptions, logged and counted. Whoever calls it keeps its state.

use std::sync::Arc;

use tracing::{info, warn};

use crate::bigcommerce::StoreClient;
use crate::bigcommerce::hooks::Applied;
use crate::bigcommerce::hooks_plan::Wanted;
use crate::bigcommerce::hooks_watch::{self, Findings, Round, State, Tally};
use crate::telemetry::{Clock, Metrics, SystemClock};

/// One store and what it should be subscribed to.
pub(super) struct Target {
    pub(super) client: Arc<StoreClient>,
    pub(super) wanted: Wanted,
}

/// One look at a store's hooks, and what follows from it. None where the store could not be asked, which says nothing:
/// the state that was given is the one to give again.
pub(super) async fn round(target: &Target, state: &State, metrics: &Metrics) -> Option<Round> {
    let store = target.wanted.store();
    let now_ms = SystemClock.wall_ms();
    match hooks_watch::round(&*target.client, &target.wanted, state, now_ms).await {
        Ok(round) => {
            report(store, &round, metrics);
            Some(round)
        }
        Err(error) => {
            warn!(store, %error, "the webhook subscriptions could not be read");
            None
        }
    }
}

fn report(store: &str, round: &Round, metrics: &Metrics) {
    let Findings { gap, tally, blocked, admin_error, channels_error, plan: _ } = &round.findings;
    if let Some(error) = admin_error {
        warn!(store, %error, "whether BigCommerce blocks the callbacks' domain could not be read");
    }
    if let Some(error) = channels_error {
        warn!(store, %error, "the webhooks of single channels are left as they are");
    }
    for domain in blocked {
        let (left_s, reasons) = (domain.time_left_s, domain.reasons.join(", "));
        warn!(store, left_s, reasons, "BigCommerce blocks the callbacks' domain: too many deliveries failed");
    }
    if let Some(gap) = gap {
        let (scopes, since_ms) = (gap.scopes.len(), gap.since_ms);
        warn!(store, scopes, since_ms, "callbacks come again after a time in which some may have been lost");
        metrics.hooks_gap(store);
    }
    let mended = round.applied.iter().filter(|done| is_mended(store, done, metrics)).count();
    let tried = round.applied.iter().filter(|done| done.item.action.is_change()).count();
    let left = if mended > 0 && mended == tried { round.findings.tally_once_mended() } else { *tally };
    show(store, left, metrics);
}

/// Logs and counts what became of one item; whether it was put right.
fn is_mended(store: &str, done: &Applied, metrics: &Metrics) -> bool {
    let scope = &done.item.scope;
    match &done.result {
        Ok(_) if !done.item.action.is_change() => false,
        Ok(_) => {
            let action = done.item.action.name();
            info!(store, scope, action, "a webhook was put right");
            metrics.hook_mended(store, action);
            true
        }
        Err(error) => {
            warn!(store, scope, %error, "a webhook could not be put right");
            false
        }
    }
}

fn show(store: &str, tally: Tally, metrics: &Metrics) {
    let Tally { active, inactive, deactivated, missing, drifted, blocked, unwanted } = tally;
    let states = [
        ("active", active),
        ("inactive", inactive),
        ("deactivated", deactivated),
        ("missing", missing),
        ("drifted", drifted),
        ("blocked", blocked),
        ("unwanted", unwanted),
    ];
    for (state, hooks) in states {
        metrics.hooks(store, state, hooks);
    }
}
