//! Builds the edges, starts the roles and drains them in order: the only module that knows everybody.
//!
//! The order of the start is the story of the process: metrics and console first, so that somebody can look; the
//! cluster and its topics; the stores, each with its two paths; the work that is done once for all of them; the
//! receiver, which lets callbacks in, last. It stops in the reverse order. A part that cannot start is an error before
//! any callback was accepted.
//!
//! Stores are a fleet: each is started, supervised and drained on its own (`unit`, `supervise`), and a reload changes
//! those that differ and no others (`changes`, `fleet`). What is in force is one value in one place ([`InForce`]),
//! which process-wide work follows (`follow`).

mod changes;
mod cluster;
mod decisions;
mod fleet;
mod follow;
mod health;
mod hooks;
mod incoming;
mod intake;
mod leader;
mod load;
mod meters;
mod names;
pub(crate) mod outgoing;
mod receiving;
mod reload;
mod scheduler;
pub mod signals;
pub mod stores;
mod supervise;
mod token;
pub mod topics;
mod unit;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

pub use cluster::Cluster;
pub use incoming::mapping;
pub use load::{InForce, Load};
pub use reload::{Loader, Refusal, Reloader, Report};

use crate::bigcommerce::StoreState;
use crate::config::Settings;
use crate::console::{Console, ConsoleConfig, ConsoleState};
use crate::model::reason::Reason;
use crate::outgoing::Decisions;
use crate::receiver::Receiver;
use crate::runtime::Lifecycle;
use crate::telemetry::{Metrics, Readiness};

use fleet::Fleet;
use health::Health;
use unit::{Ground, INCOMING, OUTGOING};

/// A part of the bridge that a process may take on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Takes callbacks.
    Receiver,
    /// BigCommerce to Kafka.
    Incoming,
    /// Kafka to BigCommerce.
    Outgoing,
    /// Stands for election, and leads when elected: polls, snapshots, sweeps, syncs, webhook subscriptions.
    Scheduler,
    /// Health, metrics, the page for people, and its API.
    Console,
}

/// What a start is told besides the settings.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The roles to take on; empty means all.
    pub roles: BTreeSet<Role>,
    /// Where the built-in broker listens; none picks a free port.
    pub embedded_listen: Option<SocketAddr>,
    /// Where the built-in broker keeps its data; none keeps it in memory.
    pub embedded_data: Option<PathBuf>,
    /// Callbacks go to the receiver's own address over plain HTTP: for a sandbox on the same machine.
    pub callbacks_by_loopback: bool,
    /// Reads the settings again when asked to; none takes no reload.
    pub loader: Option<Loader>,
}

impl Options {
    fn has(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }

    /// The paths that the roles stand for.
    fn paths(&self) -> Vec<&'static str> {
        let paths = [(Role::Incoming, INCOMING), (Role::Outgoing, OUTGOING)];
        paths.into_iter().filter(|(role, _)| self.has(*role)).map(|(_, path)| path).collect()
    }
}

/// A started bridge.
pub struct App {
    /// Where the receiver listens.
    pub receiver: Option<SocketAddr>,
    /// Where the console listens.
    pub console: Option<SocketAddr>,
    /// How Kafka is reached.
    pub cluster: Cluster,
    /// What is counted.
    pub metrics: Metrics,
    /// Which parts are not ready yet.
    pub readiness: Readiness,
    /// Asks for the settings to be read again.
    pub reloader: Reloader,
    lifecycle: Lifecycle,
}

impl App {
    /// Starts the roles.
    ///
    /// # Errors
    /// A port that is taken, a broker that does not answer, a topic that is missing.
    pub async fn start(settings: Arc<Settings>, options: Options) -> Result<Self> {
        let load = Load::new(settings.clone())?;
        let metrics = Metrics::new(
            load.catalog.entities().iter().map(|entity| entity.name.as_str()),
            settings.stores.iter().map(|store| store.name.as_str()),
            Reason::ALL.iter().map(|reason| reason.name()),
        );
        let readiness = Readiness::new();
        for warning in &settings.warnings {
            warn!("settings: {warning}");
        }
        let clients = stores::clients(&load, Some(&metrics))?;
        let in_force = watch::Sender::new(Arc::new(InForce { load, clients }));
        let (reloader, orders) = Reloader::channel();
        let (mut lifecycle, paths) = (Lifecycle::new(), options.paths());
        let health = Health::new(&readiness, &paths);
        let signals = signals::Signals::new(in_force.subscribe());
        let console = match options.has(Role::Console) {
            true => {
                let told = (&metrics, &readiness, &health);
                let state = console_state(told, &in_force, &options, (&reloader, &signals));
                Some(start_console(&settings, state, &mut lifecycle).await?)
            }
            false => None,
        };
        let starting = readiness.part("kafka");
        let cluster = reach(&settings, &options, &metrics).await?;
        starting.ready();
        if console.is_some() {
            signals.start(&cluster.client, &mut lifecycle)?;
        }
        let (receiver, doors) = match options.has(Role::Receiver) {
            true => {
                let (receiver, doors) =
                    receiving::bind(in_force.subscribe(), &cluster.client, &metrics).await?;
                (Some(receiver), Some(doors))
            }
            false => (None, None),
        };
        let address = receiver.as_ref().map(Receiver::local_addr);
        // One failure is enough to end the process.
        let (fatal, fatals) = mpsc::channel(1);
        let decisions = match paths.contains(&unit::OUTGOING) {
            true => decisions::start(&cluster.client, signals::signals_topic(&settings), &mut lifecycle),
            false => Decisions::default(),
        };
        let (kafka, metrics_of) = (cluster.client.clone(), metrics.clone());
        let ground = Ground { kafka, metrics: metrics_of, health, paths, decisions, fatal };
        let stores = in_force.subscribe();
        let mut fleet = Fleet {
            ground: Arc::new(ground),
            in_force,
            doors,
            loader: options.loader.clone(),
            orders,
            fatals,
            units: BTreeMap::new(),
        };
        fleet.start();
        lifecycle.start("stores", |drain| fleet.run(drain));
        if options.has(Role::Scheduler) {
            let own = address.filter(|_| options.callbacks_by_loopback);
            let (kafka, ready) = (cluster.client.clone(), readiness.part("hooks"));
            let ground = leader::Ground { kafka, metrics: metrics.clone(), ready, own };
            leader::start(ground, stores, &mut lifecycle);
        }
        if let Some(receiver) = receiver {
            start_receiver(receiver, &mut lifecycle);
        }
        Ok(Self { receiver: address, console, cluster, metrics, readiness, reloader, lifecycle })
    }

    /// Runs until `stop` ends or a part fails, then drains.
    ///
    /// # Errors
    /// A part ended uninvited, or did not drain in time.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let result = self.lifecycle.run(stop).await;
        self.cluster.stop().await;
        Ok(result?)
    }
}

fn start_receiver(receiver: Receiver<receiving::Intake>, lifecycle: &mut Lifecycle) {
    lifecycle.start("receiver", |drain| async move {
        let stop = tokio_util::sync::CancellationToken::new();
        let serving = receiver.serve(stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = drain.requested() => {
                stop.cancel();
                serving.await;
            }
        }
        Ok::<(), std::convert::Infallible>(())
    });
}

/// Reaches Kafka, or starts the built-in broker, and sees to the topics.
async fn reach(settings: &Settings, options: &Options, metrics: &Metrics) -> Result<Cluster> {
    let cluster = Cluster::reach(settings, options.embedded_listen, options.embedded_data.as_deref()).await?;
    for degraded in cluster::prepare(&cluster.client, settings).await? {
        warn!("a promise is degraded: {degraded}");
        metrics.promise_degraded("P1", true);
    }
    Ok(cluster)
}

/// What the console shows and can do.
fn console_state(
    (metrics, readiness, health): (&Metrics, &Readiness, &Health),
    in_force: &watch::Sender<Arc<InForce>>,
    options: &Options,
    (reloader, signals): (&Reloader, &signals::Signals),
) -> ConsoleState {
    let (stores, waiting, health) = (in_force.subscribe(), readiness.clone(), health.clone());
    let status = move || status(&stores.borrow(), &waiting, &health);
    let mut actions: BTreeMap<_, _> = signals.actions().into_iter().collect();
    if options.loader.is_some() {
        actions.insert("reload", reloader.clone().action());
    }
    ConsoleState { readiness: readiness.clone(), metrics: metrics.clone(), status: Arc::new(status), actions }
}

/// The names of stores and topics, states, and counts: a key may be a customer's.
fn status(in_force: &InForce, readiness: &Readiness, health: &Health) -> Value {
    let settings = &in_force.load.settings;
    let names: Vec<&str> = settings.stores.iter().map(|store| store.name.as_str()).collect();
    let stopped = in_force.clients.iter().filter_map(|(name, client)| match client.state() {
        StoreState::Running => None,
        StoreState::Stopped { reason, since } => {
            let for_s = since.elapsed().as_secs();
            Some((
                name.clone(),
                json!({ "reason": reason.name(), "for_s": for_s, "advice": reason.advice() }),
            ))
        }
    });
    let stopped: BTreeMap<String, Value> = stopped.collect();
    let standing = health.standing().into_iter().map(|(store, now)| {
        let routes: Vec<&str> = now.routes.iter().map(|topic| &**topic).collect();
        (store.to_string(), json!({ "stopped_routes": routes, "halted_keys": now.keys }))
    });
    let standing: BTreeMap<String, Value> = standing.collect();
    json!({
        "stores": names,
        "stopped": stopped,
        "standing": standing,
        "waiting_for": readiness.waiting_for(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

async fn start_console(
    settings: &Settings,
    state: ConsoleState,
    lifecycle: &mut Lifecycle,
) -> Result<SocketAddr> {
    let config = ConsoleConfig { listen: settings.console.listen, token: settings.console.token.clone() };
    let mut console = Console::start(config, state).await?;
    let address = console.addr();
    info!(%address, "the console listens");
    lifecycle.start("console", |drain| async move {
        tokio::select! {
            () = console.ended() => {}
            () = drain.requested() => console.stop().await,
        }
        Ok::<(), std::convert::Infallible>(())
    });
    Ok(address)
}
