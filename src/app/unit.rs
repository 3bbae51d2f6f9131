//! One store: its two paths and the watch over its token, from the start to the end of the last of them.
//!
//! A unit stops on its own, drained and out of its consumer groups, while the others flow. It shares with them the
//! process and nothing else: clients, budget, groups and transactions are its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::error;

use super::health::{Health, PartState};
use super::load::Load;
use super::meters::{IncomingMeter, RunnerWatch};
use super::supervise::{Part, Running, supervise};
use super::topics::StoreTopics;
use super::{incoming, outgoing, token};
use crate::bigcommerce::StoreClient;
use crate::config::StoreSettings;
use crate::incoming::stage::Incoming;
use crate::kafka::append::IntakeProducer;
use crate::kafka::consume::GroupConsumer;
use crate::kafka::ledger::{Ledger, Wanted};
use crate::kafka::look_up::LedgerEntries;
use crate::kafka::settings::ClientSettings;
use crate::kafka::transact::{TransactLimits, TransactionalProducer};
use crate::outgoing::{Decisions, is_ours, wanted};
use crate::runtime::ports::{Stage, Want};
use crate::runtime::runner::Runner;
use crate::runtime::{Drain, DrainTrigger, spawn};
use crate::telemetry::{Clock, Metrics, SystemClock};

/// What the incoming path may take to finish what it has begun when it stops, of 25 s that the process has in all.
const INCOMING_GRACE: Duration = Duration::from_secs(8);
/// And the outgoing path: as long as can be, since a request that it cuts off makes the next owner of its partition
/// wait for half a minute.
const OUTGOING_GRACE: Duration = Duration::from_secs(16);
/// What both have in all, to leave their groups after that; then they are cut off. It leaves some seconds to the parts
/// that stop before and after the stores.
const STOP_WITHIN: Duration = Duration::from_secs(19);
/// What an outgoing command waits for its intent to be durable.
const INTENT_DEADLINE: Duration = Duration::from_secs(3);

/// What all stores' parts are built from.
pub(super) struct Ground {
    pub(super) kafka: ClientSettings,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    /// The paths that this process takes on.
    pub(super) paths: Vec<&'static str>,
    /// What people decide about commands that stand still.
    pub(super) decisions: Decisions,
    /// Told of a failure that is the process's.
    pub(super) fatal: mpsc::Sender<anyhow::Error>,
}

/// The running parts of one store.
pub(super) struct Unit {
    store: Arc<str>,
    trigger: DrainTrigger,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Unit {
    /// Starts the parts of the store called `name`. They fare as `state` says before they have partitions.
    pub(super) fn start(
        ground: &Arc<Ground>,
        load: &Load,
        name: &str,
        client: &Arc<StoreClient>,
        state: PartState,
    ) -> Self {
        let (trigger, drain) = Drain::switch();
        let store: Arc<str> = name.into();
        let plan =
            Plan { ground: ground.clone(), load: load.clone(), store: store.clone(), client: client.clone() };
        let mut tasks = vec![plan.token(drain.clone())];
        for path in &ground.paths {
            if *path == OUTGOING && load.settings.outgoing.iter().all(|entry| entry.store != name) {
                continue;
            }
            ground.health.set(&store, path, state);
            tasks.push(spawn("store", supervise(plan.part(path), drain.clone())));
        }
        Self { store, trigger, tasks }
    }

    /// Drains all parts at once.
    ///
    /// # Errors
    /// The first part that failed while draining, or was cut off.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.trigger.request();
        let ended = tokio::time::timeout(STOP_WITHIN, join_all(&mut self.tasks)).await;
        let Ok(ended) = ended else {
            self.tasks.iter().for_each(JoinHandle::abort);
            error!(store = %self.store, "a store was cut off while draining");
            return Err(anyhow!("store {:?} did not drain within {} s", self.store, STOP_WITHIN.as_secs()));
        };
        let results = ended.into_iter().map(|joined| joined.map_err(anyhow::Error::from).flatten());
        results.collect()
    }
}

pub(super) const INCOMING: &str = "incoming";
pub(super) const OUTGOING: &str = "outgoing";

/// How the parts of one store are built, again and again.
#[derive(Clone)]
struct Plan {
    ground: Arc<Ground>,
    load: Load,
    store: Arc<str>,
    client: Arc<StoreClient>,
}

impl Plan {
    fn token(&self, drain: Drain) -> JoinHandle<Result<()>> {
        let plan = self.clone();
        spawn("token", async move {
            let (states, metrics) = (plan.client.states(), plan.ground.metrics.clone());
            token::keep(&plan.store, states, || plan.client.probe(), metrics, drain).await;
            Ok(())
        })
    }

    fn part(&self, path: &'static str) -> Part {
        let plan = self.clone();
        Part {
            store: self.store.clone(),
            path,
            build: Box::new(move |drain| match path {
                INCOMING => plan.incoming(drain),
                _ => plan.outgoing(drain),
            }),
            health: self.ground.health.clone(),
            metrics: self.ground.metrics.clone(),
            fatal: self.ground.fatal.clone(),
        }
    }

    fn settings(&self) -> &StoreSettings {
        self.load.settings.store(&self.store).expect("a unit is made of a store of its load")
    }

    fn incoming(&self, drain: Drain) -> Result<Running> {
        let Load { settings, catalog } = &self.load;
        let topics = StoreTopics::of(settings, &self.store);
        let stage = Incoming::new(
            incoming::settings(settings, self.settings(), catalog, &topics),
            catalog.clone(),
            self.client.clone(),
            Arc::new(IncomingMeter(self.ground.metrics.clone())),
            Arc::new(|| SystemClock.wall_ms()),
        );
        self.run(INCOMING, &[&topics.intake], stage, drain)
    }

    fn outgoing(&self, drain: Drain) -> Result<Running> {
        let appender = Arc::new(IntakeProducer::new(self.ground.kafka.clone(), INTENT_DEADLINE)?);
        let mut path = outgoing::path(
            &self.load,
            self.settings(),
            &self.client,
            appender,
            (self.ground.decisions.clone(), LedgerEntries::new(self.ground.kafka.clone())),
        )?;
        let (metrics, health, store) =
            (self.ground.metrics.clone(), self.ground.health.clone(), self.store.clone());
        path.stage.watch_standing(Box::new(move |now| {
            metrics.standing(&store, now.routes.len() as u64, now.keys as u64);
            health.stands(&store, now);
        }));
        let consumed: Vec<&str> = path.consumed.iter().map(String::as_str).collect();
        let running = self.run(OUTGOING, &consumed, path.stage, drain)?;
        // Notes end when the path has been dropped, and the last of them is appended.
        Ok(Box::pin(async move { tokio::join!(running, path.notes).0 }))
    }

    /// A runner between the ends of a path on Kafka.
    fn run<S>(&self, path: &'static str, consumed: &[&str], stage: S, drain: Drain) -> Result<Running>
    where
        S: Stage + 'static,
    {
        let kafka = &self.ground.kafka;
        let settings = &self.load.settings.kafka;
        let group = format!("{}.{}.{path}", settings.prefix, self.store);
        let ledger = StoreTopics::of(&self.load.settings, &self.store).ledger;
        let ends = (
            GroupConsumer::join(kafka, &group, consumed)?,
            TransactionalProducer::new(kafka.clone(), group, TransactLimits::default())?,
            Ledger::new(kafka.clone(), ledger.clone(), i32::try_from(settings.topics.partitions)?)
                .wanting(wanted_by(path, ledger)),
        );
        let Ground { metrics, health, .. } = &*self.ground;
        let watch = RunnerWatch::new(metrics.clone(), health.clone(), self.store.clone(), path);
        let watch = match path {
            INCOMING => watch.sharing(self.client.clone(), usize::try_from(settings.topics.partitions)?),
            _ => watch,
        };
        let grace = if path == INCOMING { INCOMING_GRACE } else { OUTGOING_GRACE };
        let runner = Runner::new(path, ends, stage, watch);
        Ok(Box::pin(async move {
            let asked = async move { drain.requested().await };
            runner.run(asked, grace).await.map_err(anyhow::Error::from)
        }))
    }
}

/// What a path wants of the ledger that both share.
fn wanted_by(path: &str, ledger: Arc<str>) -> Wanted {
    match path {
        OUTGOING => Arc::new(move |key, value| wanted(&ledger, key, value, SystemClock.wall_ms())),
        _ => Arc::new(|key, _| if is_ours(key) { Want::Nothing } else { Want::Each }),
    }
}
