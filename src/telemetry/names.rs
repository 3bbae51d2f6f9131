//! The names of all metrics and the closed sets of their labels: the one place that a dashboard relies on.
//!
//! Names are those that a scrape shows: `bcbridge_` first, then what is counted, then the base unit; a counter ends in
//! `_total`. A label's value is one of the words below, an entity of the catalogue or a store of the configuration,
//! never text from the network. The receiver keeps its own names beside its outcomes.

/// What every name begins with.
pub const PREFIX: &str = "bcbridge_";

/// Records taken in hand and not settled, per path. Gauge.
pub const OPEN_RECORDS: &str = "bcbridge_open_records";
/// Entities published, per entity and operation. Counter.
pub const HYDRATED: &str = "bcbridge_hydrated_records_total";
/// Time from the acceptance of a callback to the commit of the record it led to. Histogram.
pub const HYDRATION_LATENCY: &str = "bcbridge_hydration_latency_seconds";
/// Requests to the REST API, per store and class of the answer's status. Counter.
pub const API_REQUESTS: &str = "bcbridge_api_requests_total";
/// Time that requests to the REST API waited for the rate budget before they were sent, per store and purpose. Its
/// count is that of the requests. Histogram.
pub const API_WAIT: &str = "bcbridge_api_wait_seconds";
/// Requests that the API answered with 429, per store. Counter.
pub const API_THROTTLED: &str = "bcbridge_api_throttled_total";
/// Requests left in the API's current window, as its last answer said, per store. Gauge.
pub const API_QUOTA_LEFT: &str = "bcbridge_api_quota_left_requests";
/// Requests that the API grants in a window, as its last answer said, per store. Gauge.
pub const API_QUOTA: &str = "bcbridge_api_quota_requests";
/// Hints settled, per outcome: what became of every accepted callback. Counter.
pub const HINTS: &str = "bcbridge_hints_total";
/// Reads that must be repeated (too early, refused for now, unreadable), per entity. Counter.
pub const REREADS: &str = "bcbridge_rereads_total";
/// Records that a sweep found missing or wrong, per store and entity: what BigCommerce never announced. Counter.
pub const SWEEP_REPAIRED: &str = "bcbridge_sweep_repaired_total";
/// Commands settled, per outcome. Counter.
pub const COMMANDS: &str = "bcbridge_commands_total";
/// Records put on a dead-letter topic, per reason. Counter.
pub const DEAD_LETTERS: &str = "bcbridge_dead_letters_total";
/// Kafka transactions ended, per result. Counter.
pub const TRANSACTIONS: &str = "bcbridge_transactions_total";
/// 1 while a promise holds only in part (see the log for why), per promise. Gauge.
pub const PROMISE_DEGRADED: &str = "bcbridge_promise_degraded";
/// Webhook subscriptions, per store and state. Gauge.
pub const HOOKS: &str = "bcbridge_hooks";
/// 1 while a store is not called, because its token is not valid or its app was uninstalled, per store. Gauge.
pub const STORE_STOPPED: &str = "bcbridge_store_stopped";
/// Keys that stand still because a command of theirs failed (`on_failure: halt-key`), per store. Gauge.
pub const HALTED_KEYS: &str = "bcbridge_halted_keys";
/// Routes that stand still because too many of their commands failed (`stop_at`), per store. Gauge.
pub const ROUTES_STOPPED: &str = "bcbridge_routes_stopped";
/// Times that a path of a store failed and was started again, per store and path. Counter.
pub const PATH_RESTARTS: &str = "bcbridge_path_restarts_total";
/// Webhook subscriptions that were put right, per store and what was done. Counter.
pub const HOOKS_MENDED: &str = "bcbridge_hooks_mended_total";
/// Times in which callbacks may have been lost, as the watchdog of the hooks found them, per store. Counter.
pub const HOOKS_GAPS: &str = "bcbridge_hooks_gaps_total";
/// Scans under way, per store. Gauge.
pub const SCANS_RUNNING: &str = "bcbridge_scans_running";
/// Pages that scans read, per store, entity and kind. Counter.
pub const SCAN_PAGES: &str = "bcbridge_scan_pages_total";
/// Hints that scans made, per store, entity and kind. Counter.
pub const SCAN_HINTS: &str = "bcbridge_scan_hints_total";
/// Scans that failed and pages that must be asked for again, per store, entity, kind and result. Counter.
pub const SCAN_FAILURES: &str = "bcbridge_scan_failures_total";
/// When the last scan succeeded, in unix seconds, per store, entity and kind. Gauge.
pub const SCAN_LAST_SUCCESS: &str = "bcbridge_scan_last_success_timestamp_seconds";
/// How long the last scan that succeeded took, per store, entity and kind. Gauge.
pub const SCAN_DURATION: &str = "bcbridge_scan_duration_seconds";
/// Signals, per outcome. Counter.
pub const SIGNALS: &str = "bcbridge_signals_total";
/// Always 1; its label tells the version. Gauge.
pub const BUILD_INFO: &str = "bcbridge_build_info";

/// Every name above, for the test of the rules and for tools that print them.
pub const ALL: [&str; 30] = [
    OPEN_RECORDS,
    HYDRATED,
    HYDRATION_LATENCY,
    API_REQUESTS,
    API_WAIT,
    API_THROTTLED,
    API_QUOTA_LEFT,
    API_QUOTA,
    HINTS,
    REREADS,
    SWEEP_REPAIRED,
    COMMANDS,
    DEAD_LETTERS,
    TRANSACTIONS,
    PROMISE_DEGRADED,
    HOOKS,
    STORE_STOPPED,
    HALTED_KEYS,
    ROUTES_STOPPED,
    PATH_RESTARTS,
    HOOKS_MENDED,
    HOOKS_GAPS,
    SCANS_RUNNING,
    SCAN_PAGES,
    SCAN_HINTS,
    SCAN_FAILURES,
    SCAN_LAST_SUCCESS,
    SCAN_DURATION,
    SIGNALS,
    BUILD_INFO,
];

/// Label `path`: BigCommerce to Kafka, Kafka to BigCommerce, and the leader's signals.
pub const PATHS: [&str; 3] = ["incoming", "outgoing", "scheduler"];
/// Label `kind` of a scan.
pub const SCAN_KINDS: [&str; 3] = ["poll", "snapshot", "sweep"];
/// Label `result` of a scan's failure: the page is asked for again, or the scan is given up.
pub const SCAN_FAILURE_RESULTS: [&str; 2] = ["retried", "given_up"];
/// Label `outcome` of a signal.
pub const SIGNAL_OUTCOMES: [&str; 2] = ["accepted", "rejected"];
/// Label `op`: created, updated, deleted, read (a snapshot or a poll).
pub const OPS: [&str; 4] = ["c", "u", "d", "r"];
/// Label `status`: the class of an HTTP status, or `none` where no answer came.
pub const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// Label `purpose` of a request to the API, in the order in which the rate budget serves them.
pub const PURPOSES: [&str; 7] = ["live", "command", "upkeep", "sync", "poll", "sweep", "snapshot"];
/// Label `outcome` of a command.
pub const COMMAND_OUTCOMES: [&str; 6] = ["applied", "rejected", "partial", "unknown", "dead", "dry_run"];
/// Label `outcome` of a hint: listed by a record, or ended without one.
pub const HINT_OUTCOMES: [&str; 11] = [
    "published",
    "duplicate",
    "not_configured",
    "filtered",
    "no_row",
    "unchanged",
    "echo",
    "superseded",
    "resolved",
    "unresolved",
    "dead_letter",
];
/// Label `result` of a transaction.
pub const TRANSACTION_RESULTS: [&str; 2] = ["committed", "aborted"];
/// Label `state` of a hook: sends; was switched off by hand, or by BigCommerce; is wanted but absent; exists with other
/// settings; would send, but BigCommerce blocks its domain; is the bridge's and not wanted any more.
pub const HOOK_STATES: [&str; 7] =
    ["active", "inactive", "deactivated", "missing", "drifted", "blocked", "unwanted"];
/// Label `action` of a hook that was put right.
pub const HOOK_ACTIONS: [&str; 2] = ["create", "update"];
/// Label `promise`: the promises of the reliability contract.
pub const PROMISES: [&str; 16] =
    ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P15", "P16"];
/// Stands for a value outside of its set, so that a mistake costs one series and not one each.
pub const OTHER: &str = "other";

/// Upper bounds of the latency buckets, in seconds. From an answer out of a warm batch (tens of milliseconds), over the
/// default time of gathering (0.25 s to 2 s), to a backlog that waits for the API's quota.
pub const LATENCY_BUCKETS: [f64; 14] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0, 1800.0];

/// Upper bounds of the buckets of waits for the rate budget, in seconds: from at once to two windows of 30 s.
pub const WAIT_BUCKETS: [f64; 10] = [0.005, 0.05, 0.25, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_has_the_prefix_and_base_units_only() {
        for name in ALL {
            assert!(name.starts_with(PREFIX), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            for unit in ["_ms", "_millis", "_minutes", "_hours", "_kb", "_mb", "_percent"] {
                assert!(!name.contains(unit), "{name} is not in a base unit");
            }
        }
        assert_eq!(ALL.iter().collect::<BTreeSet<_>>().len(), ALL.len());
    }

    #[test]
    fn every_metric_stands_in_the_docs_and_no_other() {
        let docs = include_str!("../../docs/metrics.md");
        let listed = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        // Expressions to alert on begin with a name as well.
        let is_name = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let listed = listed.map(|(name, _)| name).filter(is_name).filter(|name| name.starts_with(PREFIX));
        let own: BTreeSet<&str> = listed.filter(|name| !name.starts_with("bcbridge_receiver_")).collect();
        assert_eq!(own, BTreeSet::from(ALL));
    }

    #[test]
    fn the_latency_buckets_rise() {
        assert!(LATENCY_BUCKETS.is_sorted_by(|a, b| a < b));
        assert!(WAIT_BUCKETS.is_sorted_by(|a, b| a < b));
    }
}
