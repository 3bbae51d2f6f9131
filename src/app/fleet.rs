//! All stores of the process: started, changed by a reload, drained.
//!
//! A reload first does everything that can fail (read, check, make topics and clients, look at the receiver's table)
//! and then what cannot: so it happens as a whole or not at all. Doors open first and close first; the stores that
//! change are drained and started side by side; the others notice nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::changes::{self, Changes, same_secret};
use super::cluster;
use super::health::PartState;
use super::load::{InForce, Load};
use super::receiving::Doors;
use super::reload::{Loader, Order, Refusal, Report};
use super::stores;
use super::topics;
use super::unit::{Ground, Unit};
use crate::bigcommerce::StoreClient;
use crate::config::{Settings, StoreSettings};
use crate::kafka::topics::TopicSpec;
use crate::runtime::Drain;

type Clients = BTreeMap<String, Arc<StoreClient>>;

/// See the module.
pub(super) struct Fleet {
    pub(super) ground: Arc<Ground>,
    pub(super) in_force: watch::Sender<Arc<InForce>>,
    /// None where this process is not the receiver.
    pub(super) doors: Option<Doors>,
    /// None where there is nothing to read again.
    pub(super) loader: Option<Loader>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) fatals: mpsc::Receiver<anyhow::Error>,
    pub(super) units: BTreeMap<String, Unit>,
}

impl Fleet {
    /// Starts every store of what is in force.
    pub(super) fn start(&mut self) {
        let InForce { load, clients } = &*self.now();
        for (name, client) in clients {
            let unit = Unit::start(&self.ground, load, name, client, PartState::Waiting);
            self.units.insert(name.clone(), unit);
        }
    }

    /// Carries orders out until the drain, then drains all stores.
    ///
    /// # Errors
    /// A failure that is the process's, or a store that failed while draining.
    pub(super) async fn run(mut self, drain: Drain) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = drain.requested() => return self.stop(None).await,
                Some(fatal) = self.fatals.recv() => return self.stop(Some(fatal)).await,
                Some(order) = self.orders.recv() => {
                    let result = self.reload(&drain).await;
                    tell(&result);
                    // Whoever asked may have gone; the log has it.
                    let _ = order.send(result);
                }
                () = overlap(self.doors.as_ref()) => self.end_overlap(),
            }
        }
    }

    fn now(&self) -> Arc<InForce> {
        self.in_force.borrow().clone()
    }

    fn end_overlap(&mut self) {
        let load = self.now().load.clone();
        if let Some(Err(error)) = self.doors.as_mut().map(|doors| doors.end_overlap(&load)) {
            error!(error = format!("{error:#}"), "earlier webhook headers are still taken");
        }
    }

    async fn stop(mut self, fatal: Option<anyhow::Error>) -> Result<()> {
        self.orders.close();
        let ended = join_all(std::mem::take(&mut self.units).into_values().map(Unit::stop)).await;
        let drained: Result<()> = ended.into_iter().collect();
        match fatal {
            Some(fatal) => Err(fatal),
            None => drained,
        }
    }

    async fn reload(&mut self, drain: &Drain) -> Result<Report, Refusal> {
        let old = self.now();
        let prepared = tokio::select! {
            () = drain.requested() => return Err(Refusal::Stopping),
            prepared = self.prepare(&old) => prepared?,
        };
        let Prepared { load, clients, changes, degraded } = prepared;
        if let Some(doors) = &mut self.doors {
            doors.change(&old.load, &load).await.map_err(failed)?;
        }
        // Nothing fails from here on.
        let entities = load.catalog.entities().iter().map(|entity| entity.name.as_str());
        self.ground.metrics.know(entities, load.settings.stores.iter().map(|store| store.name.as_str()));
        exchange_tokens(&old, &load.settings, &clients);
        let in_force = Arc::new(InForce { load, clients });
        self.in_force.send_replace(in_force.clone());
        self.replace(&changes, &in_force).await;
        let Changes { added, removed, restarted, refreshed, unchanged } = changes;
        let mut warnings = in_force.load.settings.warnings.clone();
        warnings.extend(degraded.into_iter().map(|text| format!("a promise is degraded: {text}")));
        warnings.extend(removed.iter().map(|name| {
            format!("store {name:?} left, and its webhooks at BigCommerce did not: they are answered 404 until they are deleted there")
        }));
        Ok(Report { added, removed, restarted, refreshed, unchanged, warnings })
    }

    /// All that can fail, and changes nothing that is in force.
    async fn prepare(&self, old: &InForce) -> Result<Prepared, Refusal> {
        let loader = self
            .loader
            .as_ref()
            .ok_or_else(|| Refusal::Failed("this process was not started from a settings file".to_owned()))?;
        let settings = Arc::new(loader.load().await?);
        let fixed = changes::fixed(&old.load.settings, &settings);
        if !fixed.is_empty() {
            return Err(Refusal::Wrong(fixed));
        }
        let load = Load::new(settings).map_err(failed)?;
        let changes = Changes::between(&old.load, &load);
        let clients = self.clients(old, &load).map_err(failed)?;
        let mut degraded = Vec::new();
        if names_of(&topics::specs(&old.load.settings)) != names_of(&topics::specs(&load.settings)) {
            degraded = cluster::prepare(&self.ground.kafka, &load.settings).await.map_err(failed)?;
            self.ground.metrics.promise_degraded("P1", !degraded.is_empty());
        }
        Ok(Prepared { load, clients, changes, degraded })
    }

    /// The clients of the new settings: those that can go on do, with what they know of their store's quota.
    fn clients(&self, old: &InForce, load: &Load) -> Result<Clients> {
        let caps = load.catalog.caps();
        let same_caps = old.load.catalog.caps() == caps;
        let client = |store: &StoreSettings| {
            let before = old.load.settings.store(&store.name).zip(old.clients.get(&store.name));
            let client = match before {
                Some((before, client)) if same_caps && !changes::needs_another_client(before, store) => {
                    client.clone()
                }
                _ => Arc::new(stores::client(store, caps, Some(&self.ground.metrics))?),
            };
            Ok((store.name.clone(), client))
        };
        load.settings.stores.iter().map(client).collect()
    }

    /// Drains the stores that leave or change, and starts those that come or changed, each on its own.
    async fn replace(&mut self, changes: &Changes, in_force: &InForce) {
        let stopping = changes.removed.iter().chain(&changes.restarted);
        let stopping = stopping.filter_map(|name| Some((name.clone(), self.units.remove(name)?)));
        let starting = changes.added.iter().map(|name| (name.clone(), None));
        let all: Vec<(String, Option<Unit>)> =
            stopping.map(|(name, unit)| (name, Some(unit))).chain(starting).collect();
        let ground = &self.ground;
        let exchanged = all.into_iter().map(|(name, unit)| async move {
            if let Some(Err(error)) = futures::future::OptionFuture::from(unit.map(Unit::stop)).await {
                // What it had not committed is done again by the next owner of its partitions.
                warn!(store = name, error = format!("{error:#}"), "a store did not drain cleanly");
            }
            ground.health.forget(&name);
            let client = in_force.clients.get(&name)?;
            let unit = Unit::start(ground, &in_force.load, &name, client, PartState::Fresh);
            Some((name, unit))
        });
        let started = join_all(exchanged).await;
        self.units.extend(started.into_iter().flatten());
    }
}

/// What a reload has in hand before it changes anything.
struct Prepared {
    load: Load,
    clients: Clients,
    changes: Changes,
    degraded: Vec<String>,
}

/// A client that goes on gets its new token; the token of one that was made anew is in it already.
fn exchange_tokens(old: &InForce, settings: &Settings, clients: &Clients) {
    for store in &settings.stores {
        let (Some(before), Some(client)) = (old.load.settings.store(&store.name), clients.get(&store.name))
        else {
            continue;
        };
        if same_secret(&before.access_token, &store.access_token) {
            continue;
        }
        if let Err(error) = client.replace_token(&store.access_token) {
            error!(store = store.name, %error, "the new access token cannot be used");
        }
    }
}

fn names_of(specs: &[TopicSpec]) -> Vec<&str> {
    specs.iter().map(|spec| spec.name.as_str()).collect()
}

fn failed(error: anyhow::Error) -> Refusal {
    Refusal::Failed(format!("nothing was changed: {error:#}"))
}

async fn overlap(doors: Option<&Doors>) {
    match doors {
        Some(doors) => doors.overlap().await,
        None => std::future::pending().await,
    }
}

/// Says once, in the log, what came of a reload.
fn tell(result: &Result<Report, Refusal>) {
    match result {
        Ok(report) => {
            for warning in &report.warnings {
                warn!("settings: {warning}");
            }
            let Report { added, removed, restarted, refreshed, unchanged, .. } = report;
            let unchanged = unchanged.len();
            info!(?added, ?removed, ?restarted, ?refreshed, unchanged, "the settings were read again");
        }
        Err(Refusal::Wrong(mistakes)) => {
            for row in mistakes {
                let (file, line, column) = (&row.file, row.line, row.column);
                error!(
                    file,
                    line,
                    column,
                    allowed = row.allowed,
                    help = row.help,
                    "settings: {}",
                    row.message
                );
            }
            error!(
                mistakes = mistakes.len(),
                "the settings were read again and refused; nothing was changed"
            );
        }
        Err(refusal) => error!("the settings were read again and not taken: {refusal}"),
    }
}
