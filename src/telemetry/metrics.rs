//! The metrics of the process: one registry, a method for each thing that can be counted, and the text of a scrape.
//!
//! Callers pass plain words; each is looked up in its closed set, and a word outside of it counts as
//! [`names::OTHER`], so that the number of series depends on the configuration and never on what the network sends.
//! Counting never fails, never waits for the network, and never sees an id.

mod scans;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use self::scans::Scans;
use super::names;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Word = Arc<str>;
type Labels<const N: usize> = [(&'static str, Word); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// The metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Mutex<Registry>,
    words: Words,
    open_records: Gauges<1>,
    hydrated: Counters<2>,
    hydration_latency: Histogram,
    api_requests: Counters<2>,
    api_wait: Histograms<2>,
    api_throttled: Counters<1>,
    api_quota_left: Gauges<1>,
    api_quota: Gauges<1>,
    hints: Counters<1>,
    rereads: Counters<1>,
    sweep_repaired: Counters<2>,
    commands: Counters<1>,
    dead_letters: Counters<1>,
    transactions: Counters<1>,
    promise_degraded: Gauges<1>,
    hooks: Gauges<2>,
    store_stopped: Gauges<1>,
    halted_keys: Gauges<1>,
    routes_stopped: Gauges<1>,
    path_restarts: Counters<2>,
    hooks_mended: Counters<2>,
    hooks_gaps: Counters<1>,
    scans: Scans,
}

/// The closed sets that are known only at run time (a reload may replace them), and the fixed ones, as shared words.
#[derive(Debug)]
struct Words {
    entities: ArcSwap<HashSet<Word>>,
    stores: ArcSwap<HashSet<Word>>,
    reasons: HashSet<Word>,
    fixed: HashSet<Word>,
    other: Word,
}

impl Metrics {
    /// Metrics whose labels are these entities (of the catalogue), stores (names of the configuration) and reasons (the
    /// stable names of why a record is rejected). Series of known stores and outcomes exist from the start, at zero.
    #[must_use]
    pub fn new<'a>(
        entities: impl IntoIterator<Item = &'a str>,
        stores: impl IntoIterator<Item = &'a str>,
        reasons: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let build: Gauges<1> = add(r, names::BUILD_INFO, "Always 1; the label tells the version");
        build.get_or_create(&[("version", Word::from(env!("CARGO_PKG_VERSION")))]).set(1);
        let inner = Inner {
            open_records: add(r, names::OPEN_RECORDS, "Records taken in hand and not settled"),
            hydrated: add(r, names::HYDRATED, "Entities published"),
            hydration_latency: latency(r),
            api_requests: add(r, names::API_REQUESTS, "Requests to the REST API by class of status"),
            api_wait: waits(r),
            api_throttled: add(r, names::API_THROTTLED, "Requests that the REST API answered with 429"),
            api_quota_left: add(r, names::API_QUOTA_LEFT, "Requests left in the API's current window"),
            api_quota: add(r, names::API_QUOTA, "Requests that the API grants in a window"),
            hints: add(r, names::HINTS, "Hints that were settled"),
            rereads: add(r, names::REREADS, "Reads that must be repeated"),
            sweep_repaired: add(r, names::SWEEP_REPAIRED, "Records that a sweep found missing or wrong"),
            commands: add(r, names::COMMANDS, "Commands settled"),
            dead_letters: add(r, names::DEAD_LETTERS, "Records put on a dead-letter topic"),
            transactions: add(r, names::TRANSACTIONS, "Kafka transactions ended"),
            promise_degraded: add(r, names::PROMISE_DEGRADED, "1 while a promise holds only in part"),
            hooks: add(r, names::HOOKS, "Webhook subscriptions by state"),
            store_stopped: add(r, names::STORE_STOPPED, "1 while a store is not called"),
            halted_keys: add(r, names::HALTED_KEYS, "Keys that stand still after a failed command"),
            routes_stopped: add(
                r,
                names::ROUTES_STOPPED,
                "Routes that stand still after many failed commands",
            ),
            path_restarts: add(r, names::PATH_RESTARTS, "Times that a path of a store was started again"),
            hooks_mended: add(r, names::HOOKS_MENDED, "Webhook subscriptions that were put right"),
            hooks_gaps: add(r, names::HOOKS_GAPS, "Times in which callbacks may have been lost"),
            scans: Scans::new(r),
            registry: Mutex::new(registry),
            words: Words::new(entities, stores, reasons),
        };
        inner.start_at_zero();
        Self { inner: Arc::new(inner) }
    }

    /// The entities and stores from now on. Series of new stores start at zero, those of stores that left end.
    pub fn know<'a>(
        &self,
        entities: impl IntoIterator<Item = &'a str>,
        stores: impl IntoIterator<Item = &'a str>,
    ) {
        let words = &self.inner.words;
        words.entities.store(Arc::new(entities.into_iter().map(Word::from).collect()));
        let stores: HashSet<Word> = stores.into_iter().map(Word::from).collect();
        let before = words.stores.swap(Arc::new(stores));
        let now = words.stores.load();
        before.difference(&now).for_each(|gone| self.inner.forget(gone));
        self.inner.start_at_zero();
    }

    /// Lets a module add metrics of its own (the receiver does, for its outcomes).
    pub fn register<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        act(&mut self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The text of a scrape, of type [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.register(|registry| encode(&mut text, registry)).expect("writing to a string cannot fail");
        text
    }

    /// How many records of a path (see [`names::PATHS`]) are in hand.
    pub fn open_records(&self, path: &str, records: u64) {
        self.inner.open_records.get_or_create(&self.fixed("path", path)).set(whole(records));
    }

    /// An entity was published with an operation of [`names::OPS`].
    pub fn hydrated(&self, entity: &str, op: &str) {
        let words = &self.inner.words;
        let labels = [("entity", words.find(&words.entities.load(), entity)), ("op", words.fixed(op))];
        self.inner.hydrated.get_or_create(&labels).inc();
    }

    /// The time from the acceptance of a callback to the commit of the record it led to.
    pub fn hydration_latency(&self, latency: Duration) {
        self.inner.hydration_latency.observe(latency.as_secs_f64());
    }

    /// A request to the API was answered with a status of this class (`429` is one of its own), or not at all
    /// (`none`).
    pub fn api_request(&self, store: &str, class: &str) {
        let labels = self.store(store);
        let throttled = class == "429";
        if throttled {
            self.inner.api_throttled.get_or_create(&labels).inc();
        }
        let [store] = labels;
        let class = if throttled { "4xx" } else { class };
        self.inner.api_requests.get_or_create(&[store, ("status", self.inner.words.fixed(class))]).inc();
    }

    /// A request to the API waited for the rate budget, and was sent for a purpose of [`names::PURPOSES`].
    pub fn api_wait(&self, store: &str, purpose: &str, waited: Duration) {
        let [store] = self.store(store);
        let labels = [store, ("purpose", self.inner.words.fixed(purpose))];
        self.inner.api_wait.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// Hints of an entity's callbacks ended, in one of [`names::HINT_OUTCOMES`].
    pub fn hints(&self, outcome: &str, hints: usize) {
        self.inner.hints.get_or_create(&self.fixed("outcome", outcome)).inc_by(hints as u64);
    }

    /// A read of an entity must be repeated.
    pub fn reread(&self, entity: &str) {
        let words = &self.inner.words;
        self.inner.rereads.get_or_create(&[("entity", words.find(&words.entities.load(), entity))]).inc();
    }

    /// A sweep found records of an entity missing or wrong that no callback had announced.
    pub fn sweep_repaired(&self, store: &str, entity: &str, records: usize) {
        let [store] = self.store(store);
        let entity = self.inner.words.find(&self.inner.words.entities.load(), entity);
        self.inner.sweep_repaired.get_or_create(&[store, ("entity", entity)]).inc_by(records as u64);
    }

    /// What the API's last answer said of its window: the requests left, and those it grants in all.
    pub fn api_quota(&self, store: &str, left: u64, granted: u64) {
        let labels = self.store(store);
        self.inner.api_quota_left.get_or_create(&labels).set(whole(left));
        self.inner.api_quota.get_or_create(&labels).set(whole(granted));
    }

    /// A command was settled with an outcome of [`names::COMMAND_OUTCOMES`].
    pub fn command(&self, outcome: &str) {
        self.inner.commands.get_or_create(&self.fixed("outcome", outcome)).inc();
    }

    /// A record was put on a dead-letter topic for a reason.
    pub fn dead_letter(&self, reason: &str) {
        let words = &self.inner.words;
        self.inner.dead_letters.get_or_create(&[("reason", words.find(&words.reasons, reason))]).inc();
    }

    /// A Kafka transaction was committed.
    pub fn transaction_committed(&self) {
        self.inner.transactions.get_or_create(&self.fixed("result", "committed")).inc();
    }

    /// A Kafka transaction was aborted.
    pub fn transaction_aborted(&self) {
        self.inner.transactions.get_or_create(&self.fixed("result", "aborted")).inc();
    }

    /// Whether a promise of [`names::PROMISES`] holds only in part now.
    pub fn promise_degraded(&self, promise: &str, degraded: bool) {
        self.inner.promise_degraded.get_or_create(&self.fixed("promise", promise)).set(degraded.into());
    }

    /// How many hooks of a store are in a state of [`names::HOOK_STATES`].
    pub fn hooks(&self, store: &str, state: &str, hooks: u64) {
        let [store] = self.store(store);
        self.inner.hooks.get_or_create(&[store, ("state", self.inner.words.fixed(state))]).set(whole(hooks));
    }

    /// Whether a store is left alone until its token works.
    pub fn store_stopped(&self, store: &str, stopped: bool) {
        self.inner.store_stopped.get_or_create(&self.store(store)).set(stopped.into());
    }

    /// How many routes and keys of a store stand still until a person lets them go on.
    pub fn standing(&self, store: &str, routes: u64, keys: u64) {
        self.inner.routes_stopped.get_or_create(&self.store(store)).set(whole(routes));
        self.inner.halted_keys.get_or_create(&self.store(store)).set(whole(keys));
    }

    /// A path (see [`names::PATHS`]) of a store failed and is started again.
    pub fn path_restarted(&self, store: &str, path: &str) {
        let [store] = self.store(store);
        self.inner.path_restarts.get_or_create(&[store, ("path", self.inner.words.fixed(path))]).inc();
    }

    /// A hook of a store was put right by an action of [`names::HOOK_ACTIONS`].
    pub fn hook_mended(&self, store: &str, action: &str) {
        let [store] = self.store(store);
        self.inner.hooks_mended.get_or_create(&[store, ("action", self.inner.words.fixed(action))]).inc();
    }

    /// Callbacks of a store may have been lost for some time.
    pub fn hooks_gap(&self, store: &str) {
        self.inner.hooks_gaps.get_or_create(&self.store(store)).inc();
    }

    fn store(&self, name: &str) -> Labels<1> {
        [("store", self.inner.words.find(&self.inner.words.stores.load(), name))]
    }

    fn fixed(&self, label: &'static str, value: &str) -> Labels<1> {
        [(label, self.inner.words.fixed(value))]
    }
}

impl Inner {
    /// A counter that appears with its first event hides that event from `rate()`; so known series start at zero.
    fn start_at_zero(&self) {
        let fixed = |word| self.words.fixed(word);
        for store in self.words.stores.load().iter() {
            let labels = [("store", Arc::clone(store))];
            drop(self.api_throttled.get_or_create_owned(&labels));
            for gauge in [&self.store_stopped, &self.halted_keys, &self.routes_stopped] {
                drop(gauge.get_or_create_owned(&labels));
            }
            drop(self.hooks_gaps.get_or_create_owned(&labels));
            let [store] = labels;
            for action in names::HOOK_ACTIONS {
                drop(self.hooks_mended.get_or_create_owned(&[store.clone(), ("action", fixed(action))]));
            }
            for class in ["2xx", "4xx", "5xx", "none"] {
                drop(self.api_requests.get_or_create_owned(&[store.clone(), ("status", fixed(class))]));
            }
            for purpose in names::PURPOSES {
                drop(self.api_wait.get_or_create_owned(&[store.clone(), ("purpose", fixed(purpose))]));
            }
            for path in names::PATHS {
                drop(self.path_restarts.get_or_create_owned(&[store.clone(), ("path", fixed(path))]));
            }
        }
        for outcome in names::COMMAND_OUTCOMES {
            drop(self.commands.get_or_create_owned(&[("outcome", fixed(outcome))]));
        }
        for outcome in names::HINT_OUTCOMES {
            drop(self.hints.get_or_create_owned(&[("outcome", fixed(outcome))]));
        }
        for reason in &self.words.reasons {
            drop(self.dead_letters.get_or_create_owned(&[("reason", Arc::clone(reason))]));
        }
        for result in names::TRANSACTION_RESULTS {
            drop(self.transactions.get_or_create_owned(&[("result", fixed(result))]));
        }
        for path in names::PATHS {
            drop(self.open_records.get_or_create_owned(&[("path", fixed(path))]));
        }
    }
}

impl Inner {
    /// Ends the series of a store that is configured no more.
    fn forget(&self, store: &Word) {
        let store = ("store", Arc::clone(store));
        let own = [store.clone()];
        self.api_throttled.remove(&own);
        for entity in self.words.entities.load().iter() {
            self.sweep_repaired.remove(&[own[0].clone(), ("entity", Arc::clone(entity))]);
        }
        for gauge in [&self.api_quota_left, &self.api_quota, &self.store_stopped] {
            gauge.remove(&own);
        }
        for gauge in [&self.halted_keys, &self.routes_stopped] {
            gauge.remove(&own);
        }
        for class in names::STATUS_CLASSES {
            self.api_requests.remove(&[store.clone(), ("status", self.words.fixed(class))]);
        }
        for purpose in names::PURPOSES {
            self.api_wait.remove(&[store.clone(), ("purpose", self.words.fixed(purpose))]);
        }
        for action in names::HOOK_ACTIONS {
            self.hooks_mended.remove(&[store.clone(), ("action", self.words.fixed(action))]);
        }
        self.hooks_gaps.remove(&own);
        self.scans.forget(&own[0].1, &self.words);
        for state in names::HOOK_STATES {
            self.hooks.remove(&[store.clone(), ("state", self.words.fixed(state))]);
        }
        for path in names::PATHS {
            self.path_restarts.remove(&[store.clone(), ("path", self.words.fixed(path))]);
        }
    }
}

impl Words {
    fn new<'a>(
        entities: impl IntoIterator<Item = &'a str>,
        stores: impl IntoIterator<Item = &'a str>,
        reasons: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let fixed = names::PATHS
            .iter()
            .chain(&names::OPS)
            .chain(&names::STATUS_CLASSES)
            .chain(&names::PURPOSES)
            .chain(&names::COMMAND_OUTCOMES)
            .chain(&names::HINT_OUTCOMES)
            .chain(&names::TRANSACTION_RESULTS)
            .chain(&names::HOOK_STATES)
            .chain(&names::HOOK_ACTIONS)
            .chain(&names::SCAN_KINDS)
            .chain(&names::SCAN_FAILURE_RESULTS)
            .chain(&names::SIGNAL_OUTCOMES)
            .chain(&names::PROMISES);
        Self {
            entities: ArcSwap::from_pointee(entities.into_iter().map(Word::from).collect()),
            stores: ArcSwap::from_pointee(stores.into_iter().map(Word::from).collect()),
            reasons: reasons.into_iter().map(Word::from).collect(),
            fixed: fixed.copied().map(Word::from).collect(),
            other: Word::from(names::OTHER),
        }
    }

    fn find(&self, set: &HashSet<Word>, word: &str) -> Word {
        Arc::clone(set.get(word).unwrap_or(&self.other))
    }

    fn fixed(&self, word: &str) -> Word {
        self.find(&self.fixed, word)
    }
}

/// Registers a metric under the name that a scrape shows; the encoder adds `_total` to counters by itself.
fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name.strip_suffix("_total").unwrap_or(name), help, metric.clone());
    metric
}

fn latency(registry: &mut Registry) -> Histogram {
    let histogram = Histogram::new(names::LATENCY_BUCKETS);
    registry.register(
        names::HYDRATION_LATENCY,
        "Time from the acceptance of a callback to the commit of its record",
        histogram.clone(),
    );
    histogram
}

fn waits(registry: &mut Registry) -> Histograms<2> {
    let family: Histograms<2> = Family::new_with_constructor(|| Histogram::new(names::WAIT_BUCKETS));
    registry.register(
        names::API_WAIT,
        "Time that requests to the REST API waited for the rate budget",
        family.clone(),
    );
    family
}

/// A gauge holds an `i64`; more than that counts as the most.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
