//! The receiver as the app builds it, and how a reload changes whose callbacks it takes.
//!
//! Doors open before anybody sends to them and close before the store behind them goes: a store's topics are known
//! before its callbacks are let in, and stay known for those that were let in while it left. A callback in flight is
//! judged once, by one table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::HeaderName;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::changes::same_headers;
use super::intake::KafkaIntake;
use super::load::{InForce, Load};
use super::stores;
use crate::config::{Settings, StoreSettings};
use crate::kafka::append::IntakeProducer;
use crate::kafka::settings::ClientSettings;
use crate::receiver::{Receiver, ReceiverConfig, ReceiverMetrics, StoreAuth, Stores};
use crate::telemetry::{Clock, Metrics, SystemClock};

/// A callback waits this long for its delivery report before it is answered 503.
const APPEND_DEADLINE: Duration = Duration::from_millis(300);
/// How long the headers of before a reload are still good: hooks get the new ones one by one, within minutes where
/// the store answers, and a callback may be on its way meanwhile.
const HEADER_OVERLAP: Duration = Duration::from_secs(3600);
/// Sets of earlier headers of one store that are good at the same time.
const EARLIER_SETS: usize = 3;

/// The intake on Kafka.
pub(super) type Intake = Arc<KafkaIntake<IntakeProducer>>;
type Headers = Vec<(HeaderName, Vec<SecretString>)>;

/// The receiver's table of stores, and where their callbacks go.
pub(super) struct Doors {
    stores: Stores,
    intake: Intake,
    appender: Arc<IntakeProducer>,
    /// Sets of headers that are still good, by store.
    earlier: BTreeMap<String, Vec<Headers>>,
    /// When they are not any more.
    overlap_ends: Option<Instant>,
}

/// Takes the port; nothing is served yet.
pub(super) async fn bind(
    stores: watch::Receiver<Arc<InForce>>,
    kafka: &ClientSettings,
    metrics: &Metrics,
) -> Result<(Receiver<Intake>, Doors)> {
    let load = stores.borrow().load.clone();
    let settings = &load.settings.receiver;
    let mut config = ReceiverConfig::new(settings.listen, auths(&load.settings, &BTreeMap::new())?);
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
    let topics = load.intakes();
    let appender = Arc::new(IntakeProducer::new(kafka.clone(), APPEND_DEADLINE)?);
    // The first callback has 300 ms, which finding the partitions would use up.
    appender.warm(topics.values().map(|topics| topics.intake.to_string()).collect()).await?;
    let intake = Arc::new(KafkaIntake::new(load.catalog.clone(), topics, appender.clone(), stores));
    let counts = ReceiverMetrics::default();
    metrics.register(|registry| counts.register(registry));
    let clock = Arc::new(|| SystemClock.wall_ms());
    let receiver = Receiver::bind(config, intake.clone(), counts, clock).await?;
    info!(address = %receiver.local_addr(), "the receiver has its port");
    let stores = receiver.stores();
    let doors = Doors { stores, intake, appender, earlier: BTreeMap::new(), overlap_ends: None };
    Ok((receiver, doors))
}

impl Doors {
    /// Puts the stores of `new` in place of those of `old`. On an error all is as before.
    ///
    /// # Errors
    /// A store that would let everybody in; Kafka does not tell where a new store's partitions are.
    pub(super) async fn change(&mut self, old: &Load, new: &Load) -> Result<()> {
        let topics = new.intakes();
        let added = topics.iter().filter(|(name, _)| old.settings.store(name).is_none());
        self.appender.warm(added.map(|(_, topics)| topics.intake.to_string()).collect()).await?;
        let (earlier, has_changed) = self.still_good(&old.settings, &new.settings)?;
        let auths = auths(&new.settings, &earlier)?;
        // The stores that leave stay known to the intake, for the callbacks that were let in already.
        self.intake.learn(new.catalog.clone(), topics);
        self.stores.replace(auths)?;
        self.earlier = earlier;
        if has_changed {
            self.overlap_ends = Some(Instant::now() + HEADER_OVERLAP);
        }
        Ok(())
    }

    /// The sets of headers that are good besides those of the new settings, and whether one was added.
    fn still_good(&self, old: &Settings, new: &Settings) -> Result<(BTreeMap<String, Vec<Headers>>, bool)> {
        let (mut earlier, mut has_changed) = (self.earlier.clone(), false);
        earlier.retain(|name, _| new.store(name).is_some());
        for store in &new.stores {
            let Some(before) = old.store(&store.name) else { continue };
            if same_headers(&before.webhook_headers, &store.webhook_headers) {
                continue;
            }
            has_changed = true;
            let sets = earlier.entry(store.name.clone()).or_default();
            sets.insert(0, stores::auth(before)?.headers);
            sets.truncate(EARLIER_SETS);
        }
        Ok((earlier, has_changed))
    }

    /// When [`Doors::end_overlap`] is due; never, if no headers changed lately.
    pub(super) async fn overlap(&self) {
        match self.overlap_ends {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// From now on only the headers of the settings are good.
    pub(super) fn end_overlap(&mut self, load: &Load) -> Result<()> {
        self.overlap_ends = None;
        self.earlier.clear();
        self.stores.replace(auths(&load.settings, &self.earlier)?)?;
        info!("webhook headers of before the last reloads are no longer taken");
        Ok(())
    }
}

fn auths(settings: &Settings, earlier: &BTreeMap<String, Vec<Headers>>) -> Result<Vec<StoreAuth>> {
    let auth = |store: &StoreSettings| {
        let earlier_headers = earlier.get(&store.name).cloned().unwrap_or_default();
        Ok(StoreAuth { earlier_headers, ..stores::auth(store)? })
    };
    settings.stores.iter().map(auth).collect()
}
