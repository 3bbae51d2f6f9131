//! The leader's work, from the settings to a running loop.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;

use super::incoming;
use super::topics::StoreTopics;
use crate::bigcommerce::StoreClient;
use crate::catalog::Catalog;
use crate::config::{Fill, Settings};
use crate::kafka::backlog::Backlog;
use crate::kafka::ledger::{LeaderLedger, Ledger};
use crate::kafka::settings::ClientSettings;
use crate::scheduler::plan::{Entry, Plan, StorePlan};
use crate::scheduler::ports::{Meter, Take, Topics, Upkeep};
use crate::scheduler::scan::Kind;
use crate::scheduler::schedule::{Poll, Sweep};
use crate::scheduler::stage::{Deps, Scheduler};
use crate::scheduler::state;
use crate::telemetry::{Clock, Metrics, SystemClock};

/// What the leader is built from.
pub(super) struct Parts<'a, U> {
    pub(super) settings: &'a Settings,
    pub(super) client: &'a ClientSettings,
    pub(super) metrics: &'a Metrics,
    pub(super) upkeep: Arc<U>,
}

/// The stage, and the recall that goes with it.
pub(super) fn stage<U: Upkeep>(
    parts: Parts<'_, U>,
    plan: Arc<Plan<StoreClient>>,
) -> Result<(Scheduler<StoreClient, StoreTopicsOnKafka, U>, LeaderLedger)> {
    let Parts { settings, client, metrics, upkeep } = parts;
    let topics = StoreTopicsOnKafka {
        client: client.clone(),
        prefix: settings.kafka.prefix.clone(),
        partitions: i32::try_from(settings.kafka.topics.partitions)?,
        plan: plan.clone(),
        backlogs: RwLock::default(),
    };
    let planned = plan.clone();
    let ledgers = move || planned.stores.values().map(|store| store.ledger.clone()).collect();
    let recall = LeaderLedger::new(client.clone(), Arc::new(ledgers), &[state::SCANS, state::HOOKS]);
    let deps = Deps {
        topics: Arc::new(topics),
        upkeep,
        meter: Arc::new(ScanMeter(metrics.clone())),
        clock: Arc::new(|| SystemClock.wall_ms()),
    };
    Ok((Scheduler::new(plan, deps), recall))
}

/// What the leader is to look after, of these settings.
pub(super) fn plan(
    settings: &Settings,
    catalog: &Catalog,
    clients: &BTreeMap<String, Arc<StoreClient>>,
) -> Plan<StoreClient> {
    let mut stores = BTreeMap::new();
    for store in &settings.stores {
        let Some(client) = clients.get(&store.name) else { continue };
        let topics = StoreTopics::of(settings, &store.name);
        let read = incoming::settings(settings, store, catalog, &topics);
        let mut entries = BTreeMap::new();
        for entry in settings.incoming_of(&store.name) {
            let Some(entity) = read.entities.get(&entry.entity) else { continue };
            let poll = entry.poll.map(|p| Poll { every: p.every, at_start: p.at_start, full: p.full });
            let sweep = entry.sweep.map(|s| Sweep { every: s.every, full: s.full });
            let made = Entry::new(catalog, entity.clone(), entry.path.clone(), (poll, sweep));
            if made.levels.is_none() && (poll.is_some() || sweep.is_some()) {
                tracing::warn!(
                    store = store.name,
                    entity.kind = entry.entity,
                    "the store lists it nowhere: poll and sweep have no effect"
                );
            }
            entries.insert(entry.entity.clone(), made);
        }
        let name: Arc<str> = store.name.as_str().into();
        let planned = StorePlan {
            name: name.clone(),
            client: client.clone(),
            intake: topics.intake,
            ledger: topics.ledger,
            entries,
        };
        stores.insert(name, Arc::new(planned));
    }
    Plan { stores, notifications: notifications(settings) }
}

/// The topic that signals come from; its owner leads.
pub(super) fn signals(settings: &Settings) -> Arc<str> {
    let fill = Fill { prefix: &settings.kafka.prefix, ..Fill::default() };
    settings.kafka.topics.names.signals.render(fill).into()
}

fn notifications(settings: &Settings) -> Arc<str> {
    let fill = Fill { prefix: &settings.kafka.prefix, ..Fill::default() };
    settings.kafka.topics.names.notifications.render(fill).into()
}

/// Asks Kafka about the topics of the stores.
pub(super) struct StoreTopicsOnKafka {
    client: ClientSettings,
    prefix: String,
    partitions: i32,
    plan: Arc<Plan<StoreClient>>,
    /// A bystander for each store, made when it is first asked for.
    backlogs: RwLock<BTreeMap<String, Backlog>>,
}

impl StoreTopicsOnKafka {
    fn store(&self, name: &str) -> Result<Arc<StorePlan<StoreClient>>, String> {
        self.plan.stores.get(name).cloned().ok_or_else(|| format!("there is no store {name:?} any more"))
    }

    fn watcher(&self, store: &str) -> Result<Backlog, String> {
        let known = self.backlogs.read().unwrap_or_else(PoisonError::into_inner).get(store).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let group = format!("{}.{store}.incoming", self.prefix);
        let made = Backlog::new(&self.client, &group, self.store(store)?.intake.clone(), self.partitions);
        let made = made.map_err(|error| error.to_string())?;
        let mut all = self.backlogs.write().unwrap_or_else(PoisonError::into_inner);
        Ok(all.entry(store.to_owned()).or_insert(made).clone())
    }
}

impl Topics for StoreTopicsOnKafka {
    async fn backlog(&self, store: &str) -> Result<u64, String> {
        let watcher = self.watcher(store)?;
        watcher.records().await.map_err(|error| error.to_string())
    }

    async fn notes(&self, store: &str, mut take: Take) -> Result<(), String> {
        let ledger = Ledger::new(self.client.clone(), self.store(store)?.ledger.clone(), self.partitions);
        let on_record = move |record: crate::model::record::InRecord| {
            if let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) {
                take(key, record.value.as_deref());
            }
        };
        ledger.read(on_record).await.map_err(|error| error.to_string())
    }
}

/// Feeds the scheduler's counts into the metrics.
struct ScanMeter(Metrics);

impl Meter for ScanMeter {
    fn page(&self, store: &str, entity: &str, kind: Kind, hints: usize) {
        self.0.scan_page(store, entity, kind.name(), hints);
    }

    fn done(&self, store: &str, entity: &str, kind: Kind, (from_ms, at_ms): (i64, i64)) {
        let took = Duration::from_millis(u64::try_from(at_ms - from_ms).unwrap_or(0));
        self.0.scan_done(store, entity, kind.name(), (at_ms, took));
    }

    fn failed(&self, store: &str, entity: &str, kind: Kind, is_final: bool) {
        self.0.scan_failed(store, entity, kind.name(), is_final);
    }

    fn running(&self, store: &str, scans: usize) {
        self.0.scans_running(store, scans);
    }

    fn signal(&self, accepted: bool) {
        self.0.signal(accepted);
    }
}
