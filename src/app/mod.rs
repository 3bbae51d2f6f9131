//! Builds the edges, starts the roles and drains them in order: the only module that knows everybody.
//!
//! The order of the start is the story of the process: metrics and console first, so that somebody can look; the
//! cluster and its topics; the two paths of each store; the receiver, which lets work in, last. It stops in the
//! reverse order. A part that cannot start is an error before any callback was accepted.

mod cluster;
mod hooks;
mod incoming;
mod intake;
mod meters;
mod names;
mod outgoing;
mod scheduler;
pub mod stores;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tracing::{info, warn};

pub use cluster::Cluster;
pub use incoming::mapping;

use crate::bigcommerce::StoreClient;
use crate::catalog::Catalog;
use crate::config::{Settings, SignaturePolicy, StoreSettings};
use crate::console::{Console, ConsoleConfig, ConsoleState};
use crate::incoming::decode::IntakeTopics;
use crate::incoming::stage::Incoming;
use crate::kafka::append::IntakeProducer;
use crate::kafka::consume::GroupConsumer;
use crate::kafka::ledger::Ledger;
use crate::kafka::transact::{TransactLimits, TransactionalProducer};
use crate::model::reason::Reason;
use crate::receiver::{self, Receiver, ReceiverConfig, ReceiverMetrics, StoreAuth};
use crate::runtime::runner::Runner;
use crate::runtime::{Drain, Lifecycle};
use crate::telemetry::{Clock, Metrics, Readiness, SystemClock};

/// A callback waits this long for its delivery report before it is answered 503.
const APPEND_DEADLINE: Duration = Duration::from_millis(300);
/// What a path may take to finish what it has begun when the process stops, of 25 s in all.
const PATH_GRACE: Duration = Duration::from_secs(8);

/// A part of the bridge that a process may take on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Takes callbacks.
    Receiver,
    /// BigCommerce to Kafka.
    Incoming,
    /// Kafka to BigCommerce.
    Outgoing,
    /// Keeps the webhook subscriptions.
    Scheduler,
    /// Health, metrics and the page for people.
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
}

impl Options {
    fn has(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
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
    lifecycle: Lifecycle,
}

impl App {
    /// Starts the roles.
    ///
    /// # Errors
    /// A port that is taken, a broker that does not answer, a topic that is missing.
    pub async fn start(settings: Arc<Settings>, options: Options) -> Result<Self> {
        let catalog = Arc::new(Catalog::embedded()?);
        let metrics = Metrics::new(
            catalog.entities().iter().map(|entity| entity.name.as_str()),
            settings.stores.iter().map(|store| store.name.as_str()),
            Reason::ALL.iter().map(|reason| reason.name()),
        );
        let readiness = Readiness::new();
        for warning in &settings.warnings {
            warn!("settings: {warning}");
        }
        let mut lifecycle = Lifecycle::new();
        let console = match options.has(Role::Console) {
            true => Some(start_console(&settings, &metrics, &readiness, &mut lifecycle).await?),
            false => None,
        };
        let starting = readiness.part("kafka");
        let cluster =
            Cluster::reach(&settings, options.embedded_listen, options.embedded_data.as_deref()).await?;
        for degraded in cluster.prepare(&settings).await? {
            warn!("a promise is degraded: {degraded}");
            metrics.promise_degraded("P1", true);
        }
        starting.ready();
        let clients = stores::clients(&settings, Some(&metrics))?;
        let parts = Parts { settings, catalog, metrics, readiness, cluster, clients };
        let receiver = match options.has(Role::Receiver) {
            true => Some(parts.bind_receiver().await?),
            false => None,
        };
        let address = receiver.as_ref().map(Receiver::local_addr);
        if options.has(Role::Outgoing) {
            parts.start_outgoing(&mut lifecycle)?;
        }
        if options.has(Role::Incoming) {
            parts.start_incoming(&mut lifecycle)?;
        }
        if options.has(Role::Scheduler) {
            let own = address.filter(|_| options.callbacks_by_loopback);
            parts.start_hooks(own, &mut lifecycle);
            parts.start_scheduler(&mut lifecycle)?;
        }
        if let Some(receiver) = receiver {
            start_receiver(receiver, &mut lifecycle);
        }
        let Parts { metrics, readiness, cluster, .. } = parts;
        Ok(Self { receiver: address, console, cluster, metrics, readiness, lifecycle })
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

/// What the roles are built from.
struct Parts {
    settings: Arc<Settings>,
    catalog: Arc<Catalog>,
    metrics: Metrics,
    readiness: Readiness,
    cluster: Cluster,
    clients: BTreeMap<String, Arc<StoreClient>>,
}

impl Parts {
    async fn bind_receiver(&self) -> Result<Receiver<intake::KafkaIntake<IntakeProducer>>> {
        let settings = &self.settings.receiver;
        let auth: Vec<StoreAuth> = self.settings.stores.iter().map(store_auth).collect::<Result<_>>()?;
        let mut config = ReceiverConfig::new(settings.listen, auth);
        config.max_behind = settings.past_window;
        config.limits.connections = settings.max_connections as usize;
        config.limits.connections_per_peer = settings.max_connections_per_peer as usize;
        // What connects from this machine is a proxy of ours, or a test: BigCommerce never does.
        let own = ["127.0.0.0/8", "::1/128"].map(str::to_owned);
        let configured = settings.trusted_proxies.iter().map(|net| format!("{}/{}", net.address, net.bits));
        config.trusted_proxies = own
            .into_iter()
            .chain(configured)
            .map(|net| net.parse().context("receiver.trusted_proxies"))
            .collect::<Result<_>>()?;
        let of_store = |store: &StoreSettings| {
            let topics = topics::StoreTopics::of(&self.settings, &store.name);
            let intake = IntakeTopics { intake: topics.intake, dead_letters: topics.dead_letters };
            (Arc::from(store.name.as_str()), intake)
        };
        let topics: BTreeMap<Arc<str>, IntakeTopics> = self.settings.stores.iter().map(of_store).collect();
        let appender = Arc::new(IntakeProducer::new(self.cluster.client.clone(), APPEND_DEADLINE)?);
        // The first callback has 300 ms, which finding the partitions would use up.
        appender.warm(topics.values().map(|topics| topics.intake.to_string()).collect()).await?;
        let intake = intake::KafkaIntake::new(self.catalog.clone(), topics, appender);
        let metrics = ReceiverMetrics::default();
        self.metrics.register(|registry| metrics.register(registry));
        let receiver = Receiver::bind(config, intake, metrics, Arc::new(|| SystemClock.wall_ms())).await?;
        info!(address = %receiver.local_addr(), "the receiver has its port");
        Ok(receiver)
    }

    fn start_incoming(&self, lifecycle: &mut Lifecycle) -> Result<()> {
        for store in &self.settings.stores {
            let topics = topics::StoreTopics::of(&self.settings, &store.name);
            let group = format!("{}.{}.incoming", self.settings.kafka.prefix, store.name);
            let settings = incoming::settings(&self.settings, store, &self.catalog, &topics);
            let stage = Incoming::new(
                settings,
                self.catalog.clone(),
                self.clients[&store.name].clone(),
                Arc::new(meters::IncomingMeter(self.metrics.clone())),
                Arc::new(|| SystemClock.wall_ms()),
            );
            let ends = self.ends(&group, &[&topics.intake], &topics.ledger)?;
            let runner = Runner::new("incoming", ends, stage, self.watch("incoming"));
            lifecycle.start("incoming", |drain| async move { runner.run(asked(drain), PATH_GRACE).await });
        }
        Ok(())
    }

    fn start_outgoing(&self, lifecycle: &mut Lifecycle) -> Result<()> {
        for store in &self.settings.stores {
            let topics = topics::StoreTopics::of(&self.settings, &store.name);
            let appender = Arc::new(IntakeProducer::new(self.cluster.client.clone(), APPEND_DEADLINE * 10)?);
            let (stage, consumed) = outgoing::stage(self, store, &topics, appender)?;
            let consumed: Vec<&str> = consumed.iter().map(String::as_str).collect();
            let group = format!("{}.{}.outgoing", self.settings.kafka.prefix, store.name);
            let ends = self.ends(&group, &consumed, &topics.ledger)?;
            let runner = Runner::new("outgoing", ends, stage, self.watch("outgoing"));
            lifecycle.start("outgoing", |drain| async move { runner.run(asked(drain), PATH_GRACE).await });
        }
        Ok(())
    }

    fn start_scheduler(&self, lifecycle: &mut Lifecycle) -> Result<()> {
        let plan = scheduler::plan(&self.settings, &self.catalog, &self.clients);
        let shared = Arc::new(std::sync::RwLock::new(Arc::new(plan)));
        let parts = scheduler::Parts {
            settings: &self.settings,
            client: &self.cluster.client,
            metrics: &self.metrics,
            upkeep: Arc::new(scheduler::NoUpkeep),
        };
        let (stage, recall) = scheduler::stage(parts, shared)?;
        let group = format!("{}.scheduler", self.settings.kafka.prefix);
        let client = &self.cluster.client;
        let consumer = GroupConsumer::join(client, &group, &[&scheduler::signals(&self.settings)])?;
        let producer = TransactionalProducer::new(client.clone(), &group, TransactLimits::default())?;
        let runner = Runner::new("scheduler", (consumer, producer, recall), stage, self.watch("scheduler"));
        lifecycle.start("scheduler", |drain| async move { runner.run(asked(drain), PATH_GRACE).await });
        Ok(())
    }

    /// The ends of a path on Kafka.
    fn ends(
        &self,
        group: &str,
        topics: &[&str],
        ledger: &Arc<str>,
    ) -> Result<(GroupConsumer, TransactionalProducer, Ledger)> {
        let client = &self.cluster.client;
        let consumer = GroupConsumer::join(client, group, topics)?;
        let producer = TransactionalProducer::new(client.clone(), group, TransactLimits::default())?;
        let partitions = i32::try_from(self.settings.kafka.topics.partitions)?;
        Ok((consumer, producer, Ledger::new(client.clone(), ledger.clone(), partitions)))
    }

    fn watch(&self, path: &'static str) -> meters::RunnerWatch {
        meters::RunnerWatch { metrics: self.metrics.clone(), path, ready: self.readiness.part(path) }
    }

    fn start_hooks(&self, own: Option<SocketAddr>, lifecycle: &mut Lifecycle) {
        let own = own.map(|address| format!("http://{address}").parse().expect("an address makes a URL"));
        let Some(public_url) = self.settings.receiver.public_url.clone().or(own) else {
            warn!("receiver.public_url is not set: the webhook subscriptions are left as they are");
            return;
        };
        let targets = self.settings.stores.iter().map(|store| hooks::Target {
            client: self.clients[&store.name].clone(),
            wanted: stores::wanted(&self.settings, store, &public_url),
        });
        let targets: Vec<hooks::Target> = targets.collect();
        let (metrics, ready) = (self.metrics.clone(), self.readiness.part("hooks"));
        lifecycle.start("hooks", |drain| async move {
            hooks::keep(targets, metrics, ready, drain).await;
            Ok::<(), std::convert::Infallible>(())
        });
    }
}

fn store_auth(store: &StoreSettings) -> Result<StoreAuth> {
    let headers = store
        .webhook_headers
        .iter()
        .map(|(name, value)| Ok((name.parse().context("a name in webhook_headers")?, value.clone())))
        .collect::<Result<_>>()?;
    Ok(StoreAuth {
        name: store.name.as_str().into(),
        store_hash: store.store_hash.clone(),
        store_id: None,
        secrets: store.client_secrets.clone(),
        policy: match store.signature {
            SignaturePolicy::Required => receiver::SignaturePolicy::Required,
            SignaturePolicy::IfPresent => receiver::SignaturePolicy::IfPresent,
            SignaturePolicy::Off => receiver::SignaturePolicy::Off,
        },
        headers,
    })
}

fn start_receiver(receiver: Receiver<intake::KafkaIntake<IntakeProducer>>, lifecycle: &mut Lifecycle) {
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

async fn start_console(
    settings: &Arc<Settings>,
    metrics: &Metrics,
    readiness: &Readiness,
    lifecycle: &mut Lifecycle,
) -> Result<SocketAddr> {
    let config = ConsoleConfig { listen: settings.console.listen, token: settings.console.token.clone() };
    let names: Vec<String> = settings.stores.iter().map(|store| store.name.clone()).collect();
    let waiting = readiness.clone();
    let status = move || json!({ "stores": names, "waiting_for": waiting.waiting_for(), "version": env!("CARGO_PKG_VERSION") });
    let state = ConsoleState {
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        status: Arc::new(status),
        actions: BTreeMap::new(),
    };
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

async fn asked(drain: Drain) {
    drain.requested().await;
}
