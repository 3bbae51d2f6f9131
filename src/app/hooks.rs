//! Keeps the webhook subscriptions of the stores as they should be: at the start, and every two minutes after.
//!
//! [`round`] is one round of one store's watchdog, logged and counted; whoever calls it keeps its state. [`keep`] calls
//! it for all stores and keeps their states in memory alone, so a gap is told only if one process saw both of its ends.
//! It never fails: a store that can't be reached is tried again, less and less often, and holds up no other.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tracing::{info, warn};

use crate::bigcommerce::StoreClient;
use crate::bigcommerce::hooks::Applied;
use crate::bigcommerce::hooks_plan::Wanted;
use crate::bigcommerce::hooks_watch::{self, Findings, Round, State, Tally};
use crate::runtime::Drain;
use crate::telemetry::{Clock, Metrics, ReadyFlag, SystemClock};

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

/// Watches all stores until the drain, each by itself.
pub(super) async fn keep(targets: Vec<Target>, metrics: Metrics, ready: ReadyFlag, drain: Drain) {
    let mut watches: Vec<Watch> =
        targets.into_iter().map(|target| Watch { target, state: State::default(), failures: 0 }).collect();
    let first = join_all(watches.iter_mut().map(|watch| watch.round(&metrics))).await;
    // A store that can't be reached must not keep callbacks of the others, or its own, from the receiver: what is
    // missing stands in the metrics and the log, and is tried again.
    ready.ready();
    let each = watches.iter_mut().zip(first).map(|(watch, mut pause)| {
        let (metrics, drain) = (&metrics, &drain);
        async move {
            while tokio::time::timeout(pause, drain.requested()).await.is_err() {
                pause = watch.round(metrics).await;
            }
        }
    });
    join_all(each).await;
}

/// The watchdog of one store, from one round to the next.
struct Watch {
    target: Target,
    state: State,
    /// Rounds in a row in which the store could not be asked.
    failures: u32,
}

impl Watch {
    /// One round; how long to wait for the next.
    async fn round(&mut self, metrics: &Metrics) -> Duration {
        match round(&self.target, &self.state, metrics).await {
            Some(round) => {
                self.failures = 0;
                self.state = round.state;
                round.next_look
            }
            None => {
                self.failures = self.failures.saturating_add(1);
                hooks_watch::retry_after(self.failures)
            }
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
