//! What the receiver counts. Labels come from closed lists, so that no caller can make a series.

use super::verify::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// How one request ended. Every request has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Durable: 200.
    Accepted,
    /// Made durable before: 200.
    Duplicate,
    /// Not authentic, or another store's: 401.
    Unauthorized,
    /// No such store or path: 404.
    UnknownStore,
    /// Not a POST: 405.
    MethodNotAllowed,
    /// Body over its bound: 413.
    TooLarge,
    /// Content-Encoding: 415.
    Encoded,
    /// Head or body came too slowly: 408.
    TimedOut,
    /// Head or body is not plain HTTP/1, or broke off: 400.
    Malformed,
    /// Request target over its bound: 414.
    UriTooLong,
    /// Head over its bounds: 431.
    HeadTooLarge,
    /// Authentic, but not made durable: 503.
    NotDurable,
    /// A defect of ours: 500.
    Panicked,
}

impl Outcome {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 13] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Unauthorized,
        Self::UnknownStore,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::Encoded,
        Self::TimedOut,
        Self::Malformed,
        Self::UriTooLong,
        Self::HeadTooLarge,
        Self::NotDurable,
        Self::Panicked,
    ];

    /// The stable label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Unauthorized => "unauthorized",
            Self::UnknownStore => "unknown_store",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::Encoded => "encoded",
            Self::TimedOut => "timed_out",
            Self::Malformed => "malformed",
            Self::UriTooLong => "uri_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::NotDurable => "not_durable",
            Self::Panicked => "panicked",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The receiver's metrics. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct ReceiverMetrics {
    outcomes: Family<OutcomeLabel, Counter>,
    /// The counters of `outcomes` in the order of [`Outcome::ALL`], so that a request takes no lock to be counted.
    by_outcome: [Counter; Outcome::ALL.len()],
    refusals: Family<ReasonLabel, Counter>,
    answer_seconds: Histogram,
    pub(super) connections: Gauge,
    pub(super) connections_over_peer_limit: Counter,
    pub(super) connections_silent: Counter,
    pub(super) accept_errors: Counter,
}

impl Default for ReceiverMetrics {
    fn default() -> Self {
        let outcomes = Family::<OutcomeLabel, Counter>::default();
        let by_outcome = Outcome::ALL.map(|outcome| {
            let label = OutcomeLabel { outcome: outcome.name() };
            outcomes.get_or_create(&label).clone()
        });
        // From a produce on a quiet broker (1 ms) over the spool's fallback (300 ms) to the total deadline (15 s).
        let bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.15, 0.3, 0.5, 1.0, 2.5, 5.0, 15.0];
        Self {
            outcomes,
            by_outcome,
            refusals: Family::default(),
            answer_seconds: Histogram::new(bounds),
            connections: Gauge::default(),
            connections_over_peer_limit: Counter::default(),
            connections_silent: Counter::default(),
            accept_errors: Counter::default(),
        }
    }
}

impl ReceiverMetrics {
    /// Names the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("bcbridge_receiver");
        registry.register("requests", "Requests by how they ended", self.outcomes.clone());
        registry.register("unauthorized", "Callbacks refused with 401, by reason", self.refusals.clone());
        registry.register(
            "answer_seconds",
            "Seconds from the end of a request's head to its answer",
            self.answer_seconds.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_over_peer_limit",
            "Connections closed at once because their peer has too many",
            self.connections_over_peer_limit.clone(),
        );
        registry.register(
            "connections_silent",
            "Connections closed because nothing came before the deadline",
            self.connections_silent.clone(),
        );
        registry.register(
            "accept_errors",
            "Failures to take a connection, such as no file descriptor left",
            self.accept_errors.clone(),
        );
    }

    /// How many requests ended so, since the start.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.by_outcome[outcome as usize].get()
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        self.by_outcome[outcome as usize].inc();
    }

    pub(super) fn answered(&self, outcome: Outcome, after: Duration) {
        self.ended(outcome);
        self.answer_seconds.observe(after.as_secs_f64());
    }

    pub(super) fn refused(&self, reason: Refusal) {
        self.refusals.get_or_create(&ReasonLabel { reason: reason.name() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn counters_stand_in_the_order_of_the_outcomes() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn every_outcome_is_a_series_from_the_start() {
        let metrics = ReceiverMetrics::default();
        metrics.ended(Outcome::Encoded);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        assert!(page.contains("bcbridge_receiver_requests_total{outcome=\"encoded\"} 1\n"), "{page}");
        assert!(page.contains("bcbridge_receiver_requests_total{outcome=\"not_durable\"} 0\n"), "{page}");
    }

    #[test]
    fn every_metric_stands_in_the_docs_and_no_other() {
        let metrics = ReceiverMetrics::default();
        metrics.refused(Refusal::NoMatch);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let shown = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let shown: BTreeSet<String> = shown
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();
        let docs = include_str!("../../docs/metrics.md");
        let listed =
            docs.lines().filter_map(|line| line.strip_prefix("| `bcbridge_receiver_")?.split_once('`'));
        let listed: BTreeSet<String> = listed.map(|(name, _)| format!("bcbridge_receiver_{name}")).collect();
        assert_eq!(listed, shown);
    }
}
