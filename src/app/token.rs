//! Watches whether a store is called, and finds out when one that is left alone may be called again.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use crate::bigcommerce::{FIRST_PROBE, LAST_PROBE, StoreState};
use crate::runtime::Drain;
use crate::telemetry::Metrics;

/// Tells by log and metric when a store stops and starts, and probes it in between, until the drain.
pub(super) async fn keep<P, F>(
    store: &str,
    mut states: watch::Receiver<StoreState>,
    probe: P,
    metrics: Metrics,
    drain: Drain,
) where
    P: Fn() -> F,
    F: Future<Output = StoreState>,
{
    loop {
        let stopped = tokio::select! {
            () = drain.requested() => return,
            state = states.wait_for(StoreState::is_stopped) => state.map(|state| *state),
        };
        let Ok(StoreState::Stopped { reason, .. }) = stopped else { return };
        metrics.store_stopped(store, true);
        error!(store, reason = reason.name(), "store {store:?} is not called any more: {}", reason.advice());
        let started = tokio::select! {
            () = drain.requested() => return,
            started = states.wait_for(|state| !state.is_stopped()) => started.map(drop),
            () = probe_until_it_works(&probe) => Ok(()),
        };
        if started.is_err() {
            return;
        }
        metrics.store_stopped(store, false);
        info!(store, "store {store:?} is called again");
    }
}

async fn probe_until_it_works<P, F>(probe: &P)
where
    P: Fn() -> F,
    F: Future<Output = StoreState>,
{
    let mut wait: Duration = FIRST_PROBE;
    loop {
        tokio::time::sleep(wait).await;
        if !probe().await.is_stopped() {
            return;
        }
        wait = (wait * 2).min(LAST_PROBE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigcommerce::StopReason;
    use crate::runtime::spawn;
    use std::sync::{Arc, Mutex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_stopped_store_is_probed_more_and_more_rarely_until_its_token_works() {
        let begun = Instant::now();
        let stopped = StoreState::Stopped { reason: StopReason::Unauthorized, since: begun };
        let (state, states) = watch::channel(stopped);
        let (metrics, probes) = (Metrics::new([], ["main"], []), Arc::new(Mutex::new(Vec::new())));
        let (trigger, drain) = Drain::switch();
        let task = {
            let (metrics, probes) = (metrics.clone(), probes.clone());
            spawn("token", async move {
                let probe = || async {
                    let mut probes = probes.lock().unwrap();
                    probes.push(begun.elapsed().as_secs());
                    if probes.len() == 7 {
                        state.send_replace(StoreState::Running);
                    }
                    *state.borrow()
                };
                keep("main", states, probe, metrics, drain).await;
            })
        };
        let shown = |value: u8| {
            metrics.encode().contains(&format!("bcbridge_store_stopped{{store=\"main\"}} {value}"))
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(shown(1));
        tokio::time::sleep(Duration::from_secs(7200)).await;
        assert!(shown(0));
        assert_eq!(*probes.lock().unwrap(), [30, 90, 210, 450, 930, 1530, 2130]);
        trigger.request();
        task.await.unwrap();
    }
}
