//! The work that is done once for all stores, however many replicas there are: polls, snapshots, sweeps, re-syncs, and
//! keeping the webhook subscriptions.
//!
//! The leader is the owner of the only partition of the signals topic; when it dies, the group names another. The work
//! is built anew after a reload and after a failure; what it had begun stands in the ledgers. A failure here stops no
//! path of any store.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tracing::error;
use url::Url;

use super::follow::follow;
use super::load::InForce;
use super::scheduler;
use super::upkeep::HookUpkeep;
use crate::engine::backoff::Backoff;
use crate::kafka::consume::GroupConsumer;
use crate::kafka::settings::ClientSettings;
use crate::kafka::transact::{TransactLimits, TransactionalProducer};
use crate::model::record::OutRecord;
use crate::runtime::runner::{Runner, Watch};
use crate::runtime::{Drain, Lifecycle};
use crate::telemetry::{Metrics, ReadyFlag};

/// What the leader may take to finish what it has begun.
const GRACE: Duration = Duration::from_secs(8);
/// Between a failure and the next try. It is Kafka that fails here, and the stores' paths say so as well.
const AGAIN: Backoff =
    Backoff { floor: Duration::from_millis(500), base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// A loop that ran so long was no failure in a row.
const WELL: Duration = Duration::from_secs(300);

/// What the leader's work is built from.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) kafka: ClientSettings,
    pub(super) metrics: Metrics,
    /// Set once the subscriptions of all stores were looked at, here or by the replica that leads.
    pub(super) ready: ReadyFlag,
    /// The receiver's own address, where callbacks may come without a public URL.
    pub(super) own: Option<SocketAddr>,
}

/// Takes part in the election until the drain, and leads when elected.
pub(super) fn start(ground: Ground, stores: watch::Receiver<Arc<InForce>>, lifecycle: &mut Lifecycle) {
    lifecycle.start("leader", |drain| async move {
        follow(stores, drain, |in_force, drain| lead(ground.clone(), in_force, drain)).await;
        Ok::<(), Infallible>(())
    });
}

/// Runs the loop, and again after it failed.
async fn lead(ground: Ground, in_force: Arc<InForce>, drain: Drain) {
    let mut failures = 0_u32;
    loop {
        let began = Instant::now();
        let Err(error) = run(&ground, &in_force, drain.clone()).await else { return };
        // What held for a while was well in between.
        failures = if began.elapsed() > WELL { 0 } else { failures.saturating_add(1) };
        let pause = AGAIN.delay(failures, rand::random());
        error!(
            error = format!("{error:#}"),
            pause_ms = pause.as_millis(),
            "the scheduler failed and starts again"
        );
        if tokio::time::timeout(pause, drain.requested()).await.is_ok() {
            return;
        }
    }
}

async fn run(ground: &Ground, in_force: &InForce, drain: Drain) -> Result<()> {
    let Ground { kafka, metrics, ready, own } = ground;
    let (settings, catalog) = (&in_force.load.settings, &in_force.load.catalog);
    let own: Option<Url> = own.map(|own| format!("http://{own}").parse().expect("an address makes a URL"));
    let public_url = settings.receiver.public_url.clone().or(own);
    let upkeep = HookUpkeep::new(in_force, public_url.as_ref(), metrics.clone(), ready.clone());
    let plan = scheduler::plan(settings, catalog, &in_force.clients);
    let parts = scheduler::Parts { settings, client: kafka, metrics, upkeep: Arc::new(upkeep) };
    let (stage, recall) = scheduler::stage(parts, Arc::new(plan))?;
    let group = format!("{}.scheduler", settings.kafka.prefix);
    let consumer = GroupConsumer::join(kafka, &group, &[&scheduler::signals(settings)])?;
    let producer = TransactionalProducer::new(kafka.clone(), &group, TransactLimits::default())?;
    let watch = LeaderWatch { metrics: metrics.clone(), ready: ready.clone() };
    let runner = Runner::new("scheduler", (consumer, producer, recall), stage, watch);
    Ok(runner.run(async move { drain.requested().await }, GRACE).await?)
}

/// Counts transactions, and knows when another replica leads.
struct LeaderWatch {
    metrics: Metrics,
    ready: ReadyFlag,
}

impl Watch for LeaderWatch {
    fn revoked(&mut self) {}

    fn assigned(&mut self, partitions: usize) {
        if partitions == 0 {
            self.ready.ready();
        }
    }

    fn open(&mut self, _records: usize) {}

    fn transaction(&mut self, committed: bool, _records: &[OutRecord], _took: Duration) {
        match committed {
            true => self.metrics.transaction_committed(),
            false => self.metrics.transaction_aborted(),
        }
    }
}
