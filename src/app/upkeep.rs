//! Keeps the stores subscribed, as work of the leader: its looks are the watchdog's, its memory is the ledger's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;
use url::Url;

use super::load::InForce;
use super::{hooks, stores};
use crate::bigcommerce::hooks_watch::{self, Round, State};
use crate::catalog::Catalog;
use crate::config::StoreSettings;
use crate::scheduler::ports::{Gap, Looked, Upkeep};
use crate::telemetry::{Metrics, ReadyFlag};

/// Where there is nothing to look after, or nobody to ask, until the next reload or probe.
const IDLE: Duration = Duration::from_secs(600);

/// See the module.
pub(super) struct HookUpkeep {
    targets: BTreeMap<Arc<str>, hooks::Target>,
    catalog: Arc<Catalog>,
    metrics: Metrics,
    ready: ReadyFlag,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Stores that were not looked at yet.
    waiting: BTreeSet<Arc<str>>,
    /// Looks in a row that failed, by store.
    failures: BTreeMap<Arc<str>, u32>,
}

impl HookUpkeep {
    /// Looks after the stores that are in force; after none where nobody knows where callbacks should go.
    pub(super) fn new(
        in_force: &InForce,
        public_url: Option<&Url>,
        metrics: Metrics,
        ready: ReadyFlag,
    ) -> Self {
        let settings = &in_force.load.settings;
        if public_url.is_none() {
            warn!("receiver.public_url is not set: the webhook subscriptions are left as they are");
            ready.ready();
        }
        let target = |store: &StoreSettings| {
            let client = in_force.clients[&store.name].clone();
            let wanted = stores::wanted(settings, store, public_url?);
            Some((Arc::from(store.name.as_str()), hooks::Target { client, wanted }))
        };
        let targets: BTreeMap<Arc<str>, _> = settings.stores.iter().filter_map(target).collect();
        let waiting = targets.keys().cloned().collect();
        let progress = Mutex::new(Progress { waiting, failures: BTreeMap::new() });
        Self { targets, catalog: in_force.load.catalog.clone(), metrics, ready, progress }
    }

    /// A store was looked at. One that can't be reached must not keep callbacks of the others, or its own, from the
    /// receiver: what is missing stands in the metrics and the log, and is tried again.
    fn looked(&self, store: &Arc<str>, worked: bool) -> u32 {
        // Plain data; after a panic elsewhere it is still the best that is known.
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.waiting.remove(store);
        if progress.waiting.is_empty() {
            self.ready.ready();
        }
        let failures = progress.failures.entry(store.clone()).or_default();
        *failures = if worked { 0 } else { failures.saturating_add(1) };
        *failures
    }

    /// The entities that callbacks of these scopes are about.
    fn entities(&self, scopes: &BTreeSet<String>) -> Vec<String> {
        let of_scope = |scope: &String| {
            let (entity, row) = self.catalog.scope(scope)?;
            let also = row.also.iter().map(|target| target.entity.clone());
            Some(std::iter::once(entity.name.clone()).chain(also).collect::<Vec<_>>())
        };
        let entities: BTreeSet<String> = scopes.iter().filter_map(of_scope).flatten().collect();
        entities.into_iter().collect()
    }
}

impl Upkeep for HookUpkeep {
    async fn look(&self, store: Arc<str>, kept: Option<Bytes>) -> Looked {
        let kept = kept.unwrap_or_else(|| Bytes::from_static(b"{}"));
        let idle = |state| Looked { state, gaps: Vec::new(), next_look: IDLE };
        let Some(target) = self.targets.get(&store) else { return idle(kept) };
        if target.client.state().is_stopped() {
            self.looked(&store, true);
            return idle(kept);
        }
        // A state that cannot be read is from another version: nothing is known, and so no gap is told.
        let state: State = serde_json::from_slice(&kept).unwrap_or_default();
        let Some(Round { state, findings, next_look, .. }) =
            hooks::round(target, &state, &self.metrics).await
        else {
            let failures = self.looked(&store, false);
            return Looked { state: kept, gaps: Vec::new(), next_look: hooks_watch::retry_after(failures) };
        };
        self.looked(&store, true);
        let state = serde_json::to_vec(&state).expect("numbers and texts are JSON");
        let gap =
            |gap: hooks_watch::Gap| Gap { entities: self.entities(&gap.scopes), since_ms: gap.since_ms };
        // No entities would mean all of them.
        let gaps = findings.gap.map(gap).filter(|gap| !gap.entities.is_empty());
        Looked { state: state.into(), gaps: gaps.into_iter().collect(), next_look }
    }
}
