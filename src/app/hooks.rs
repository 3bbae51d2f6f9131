//! Keeps the webhook subscriptions of the stores as they should be: at the start, and every few minutes after.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::bigcommerce::hooks_plan::{Action, Wanted};
use crate::bigcommerce::{StoreClient, hooks};
use crate::runtime::Drain;
use crate::telemetry::{Metrics, ReadyFlag};

/// Between two looks. A deactivated hook loses callbacks from its next retry on (a minute at the least), and a
/// look costs one call of the quota.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// After a look that failed.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// One store and what it should be subscribed to.
pub(super) struct Target {
    pub(super) client: Arc<StoreClient>,
    pub(super) wanted: Wanted,
}

/// Reconciles until the drain.
pub(super) async fn keep(targets: Vec<Target>, metrics: Metrics, ready: ReadyFlag, drain: Drain) {
    loop {
        let mut well = true;
        for target in &targets {
            well &= reconcile(target, &metrics).await;
        }
        // A store that can't be reached must not keep callbacks of the others, or its own, from the receiver: what is
        // missing stands in the metrics and the log, and is tried again.
        ready.ready();
        let pause = if well { LOOK_EVERY } else { RETRY_AFTER };
        if tokio::time::timeout(pause, drain.requested()).await.is_ok() {
            return;
        }
    }
}

/// Makes one store's subscriptions what they should be; whether that worked.
async fn reconcile(target: &Target, metrics: &Metrics) -> bool {
    let store = target.wanted.store();
    let plan = match hooks::plan(&*target.client, &target.wanted).await {
        Ok(plan) => plan,
        Err(error) => {
            warn!(store, %error, "the webhook subscriptions could not be read");
            return false;
        }
    };
    let is =
        |wanted: fn(&Action) -> bool| plan.items.iter().filter(|item| wanted(&item.action)).count() as u64;
    metrics.hooks(store, "missing", is(|action| matches!(action, Action::Create)));
    metrics.hooks(store, "active", is(|action| matches!(action, Action::Keep { .. })));
    if !plan.has_changes() {
        return true;
    }
    let applied = hooks::apply(&*target.client, &target.wanted, plan).await;
    let failed = applied.iter().filter(|done| done.result.is_err()).count();
    for done in &applied {
        match &done.result {
            Ok(_) if !done.item.action.is_change() => {}
            Ok(_) => info!(
                store,
                scope = done.item.scope,
                action = done.item.action.name(),
                "a webhook was put right"
            ),
            Err(error) => warn!(store, scope = done.item.scope, %error, "a webhook could not be put right"),
        }
    }
    metrics.hooks(store, "missing", failed as u64);
    let ours = |done: &&hooks::Applied| {
        done.item.action.is_change() || matches!(done.item.action, Action::Keep { .. })
    };
    let active = applied.iter().filter(ours).filter(|done| done.result.is_ok()).count();
    metrics.hooks(store, "active", active as u64);
    failed == 0
}
