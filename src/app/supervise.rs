//! Runs one path of one store, and starts it again when it fails.
//!
//! One store's failure is not the others': its path is started again, later and later, and told by log, metric and
//! readiness. Where no store is without a failure there is nobody to spare, and it is the process's: the supervisor
//! of the process decides then, as with any broken part.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use super::health::Health;
use crate::engine::backoff::Backoff;
use crate::runtime::{Drain, spawn};
use crate::telemetry::Metrics;

/// From a second, which outlasts an election of a leader, to a minute, which is how long a person may wait for the
/// effect of what they put right.
const RESTART: Backoff =
    Backoff { floor: Duration::from_millis(500), base: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// A path that ran for so long had recovered.
const STEADY: Duration = Duration::from_secs(300);

/// A path that runs until its drain is requested, or fails.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One path of one store.
pub(super) struct Part {
    pub(super) store: Arc<str>,
    /// `incoming` or `outgoing`.
    pub(super) path: &'static str,
    /// Builds it anew.
    pub(super) build: Box<dyn Fn(Drain) -> Result<Running> + Send + Sync>,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    /// Told of the failure that is the process's.
    pub(super) fatal: mpsc::Sender<anyhow::Error>,
}

/// Runs the part until the drain.
///
/// # Errors
/// It failed while draining.
pub(super) async fn supervise(part: Part, drain: Drain) -> Result<()> {
    let Part { store, path, health, .. } = &part;
    let mut attempt = 0;
    loop {
        let begun = Instant::now();
        let ended = run(&part, &drain).await;
        if drain.is_requested() {
            return ended.map_err(|error| error.context(describe(store, path)));
        }
        let error = ended.err().unwrap_or_else(|| anyhow!("it ended without being asked to"));
        part.metrics.path_restarted(store, path);
        if !health.failed(store, path) {
            // The receiver has room for one; a second cause adds nothing.
            let _ = part.fatal.try_send(error.context(describe(store, path)));
            drain.requested().await;
            return Ok(());
        }
        if begun.elapsed() >= STEADY {
            attempt = 0;
        }
        let wait = RESTART.delay(attempt, rand::random());
        attempt = attempt.saturating_add(1);
        let wait_ms = wait.as_millis();
        error!(store = %store, path, error = format!("{error:#}"), attempt, wait_ms, "a path of a store failed and is started again; the other stores go on");
        if tokio::time::timeout(wait, drain.requested()).await.is_ok() {
            return Ok(());
        }
    }
}

fn describe(store: &str, path: &str) -> String {
    format!("the {path} path of store {store:?} failed")
}

/// One life of the part, in a task of its own, so that its panic is its own.
async fn run(part: &Part, drain: &Drain) -> Result<()> {
    let running = (part.build)(drain.clone())?;
    match AbortOnDropHandle::new(spawn(part.path, running)).await {
        Ok(ended) => ended,
        // The task has logged what it said.
        Err(error) if error.is_panic() => Err(anyhow!("it panicked")),
        Err(_) => Err(anyhow!("it was cancelled")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::health::PartState;
    use crate::telemetry::Readiness;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn part(health: &Health, fatal: &mpsc::Sender<anyhow::Error>, lives: &Arc<AtomicU32>) -> Part {
        let lives = lives.clone();
        Part {
            store: "main".into(),
            path: "incoming",
            build: Box::new(move |drain| {
                let life = lives.fetch_add(1, Ordering::Relaxed);
                Ok(Box::pin(async move {
                    match life {
                        0 => anyhow::bail!("the first one fails"),
                        1 => panic!("the second one panics"),
                        2 => Ok(()),
                        _ => {
                            drain.requested().await;
                            Ok(())
                        }
                    }
                }))
            }),
            health: health.clone(),
            metrics: Metrics::new([], ["main"], []),
            fatal: fatal.clone(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_fails_in_any_way_is_started_again_while_another_store_is_well() {
        let health = Health::new(&Readiness::new(), &["incoming"]);
        health.set(&"other".into(), "incoming", PartState::Up);
        let (fatal, mut fatals) = mpsc::channel(1);
        let lives = Arc::new(AtomicU32::new(0));
        let part = part(&health, &fatal, &lives);
        let metrics = part.metrics.clone();
        let (trigger, drain) = Drain::switch();
        let running = spawn("supervise", supervise(part, drain));
        while lives.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        trigger.request();
        running.await.unwrap().unwrap();
        assert!(fatals.try_recv().is_err());
        let counted = r#"bcbridge_path_restarts_total{store="main",path="incoming"} 3"#;
        assert!(metrics.encode().contains(counted), "{}", metrics.encode());
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_of_the_only_store_is_the_processs_at_once() {
        let health = Health::new(&Readiness::new(), &["incoming"]);
        let (fatal, mut fatals) = mpsc::channel(1);
        let (lives, (trigger, drain)) = (Arc::new(AtomicU32::new(0)), Drain::switch());
        let running = spawn("supervise", supervise(part(&health, &fatal, &lives), drain));
        let error = fatals.recv().await.unwrap();
        assert_eq!(format!("{error:#}"), "the incoming path of store \"main\" failed: the first one fails");
        assert_eq!(lives.load(Ordering::Relaxed), 1);
        trigger.request();
        running.await.unwrap().unwrap();
    }
}
