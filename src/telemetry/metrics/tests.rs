//! What a scrape shows.

use super::*;

fn metrics() -> Metrics {
    Metrics::new(["order", "product"], ["main"], ["bad-json"])
}

#[track_caller]
fn check(act: impl FnOnce(&Metrics), line: &str) {
    let metrics = metrics();
    act(&metrics);
    let text = metrics.encode();
    assert!(text.lines().any(|found| found == line), "`{line}` is not in:\n{text}");
}

#[test]
fn each_thing_is_counted_under_its_name_and_labels() {
    check(|m| m.open_records("outgoing", 3), r#"bcbridge_open_records{path="outgoing"} 3"#);
    check(
        |m| {
            m.hydrated("order", "u");
            m.hydrated("order", "u");
        },
        r#"bcbridge_hydrated_records_total{entity="order",op="u"} 2"#,
    );
    check(|m| m.api_request("main", "2xx"), r#"bcbridge_api_requests_total{store="main",status="2xx"} 1"#);
    check(|m| m.api_request("main", "none"), r#"bcbridge_api_requests_total{store="main",status="none"} 1"#);
    check(
        |m| m.api_wait("main", "snapshot", Duration::from_secs(3)),
        r#"bcbridge_api_wait_seconds_bucket{le="5.0",store="main",purpose="snapshot"} 1"#,
    );
    check(|m| m.api_request("main", "429"), r#"bcbridge_api_throttled_total{store="main"} 1"#);
    check(|m| m.api_quota("main", 120, 150), r#"bcbridge_api_quota_left_requests{store="main"} 120"#);
    check(|m| m.api_quota("main", 120, 150), r#"bcbridge_api_quota_requests{store="main"} 150"#);
    check(|m| m.command("applied"), r#"bcbridge_commands_total{outcome="applied"} 1"#);
    check(|m| m.dead_letter("bad-json"), r#"bcbridge_dead_letters_total{reason="bad-json"} 1"#);
    check(Metrics::transaction_committed, r#"bcbridge_transactions_total{result="committed"} 1"#);
    check(Metrics::transaction_aborted, r#"bcbridge_transactions_total{result="aborted"} 1"#);
    check(|m| m.promise_degraded("P1", true), r#"bcbridge_promise_degraded{promise="P1"} 1"#);
    check(|m| m.hooks("main", "active", 9), r#"bcbridge_hooks{store="main",state="active"} 9"#);
    check(|m| m.store_stopped("main", true), r#"bcbridge_store_stopped{store="main"} 1"#);
    check(|m| m.standing("main", 1, 2), r#"bcbridge_routes_stopped{store="main"} 1"#);
    check(|m| m.standing("main", 1, 2), r#"bcbridge_halted_keys{store="main"} 2"#);
    check(
        |m| m.path_restarted("main", "outgoing"),
        r#"bcbridge_path_restarts_total{store="main",path="outgoing"} 1"#,
    );
    let mended = r#"bcbridge_hooks_mended_total{store="main",action="update"} 1"#;
    check(|m| m.hook_mended("main", "update"), mended);
    check(|m| m.hooks_gap("main"), r#"bcbridge_hooks_gaps_total{store="main"} 1"#);
}

#[test]
fn a_latency_falls_into_its_bucket_in_seconds() {
    let latency = |m: &Metrics| m.hydration_latency(Duration::from_millis(300));
    check(latency, r#"bcbridge_hydration_latency_seconds_bucket{le="0.25"} 0"#);
    check(latency, r#"bcbridge_hydration_latency_seconds_bucket{le="0.5"} 1"#);
    check(latency, "bcbridge_hydration_latency_seconds_sum 0.3");
}

#[test]
fn known_series_are_there_before_anything_happened() {
    for purpose in crate::telemetry::names::PURPOSES {
        check(|_| {}, &format!(r#"bcbridge_api_wait_seconds_count{{store="main",purpose="{purpose}"}} 0"#));
    }
    check(|_| {}, r#"bcbridge_api_requests_total{store="main",status="5xx"} 0"#);
    check(|_| {}, r#"bcbridge_commands_total{outcome="unknown"} 0"#);
    check(|_| {}, r#"bcbridge_dead_letters_total{reason="bad-json"} 0"#);
}

#[test]
fn the_series_of_a_store_end_with_it_and_those_of_a_new_one_start_at_zero() {
    let metrics = metrics();
    let series = |text: &str, store: &str| text.matches(&format!("store=\"{store}\"")).count();
    metrics.api_request("main", "5xx");
    metrics.api_quota("main", 1, 2);
    metrics.hooks("main", "drifted", 3);
    metrics.know(["order"], ["other", "second"]);
    metrics.api_request("main", "2xx");
    let text = metrics.encode();
    assert_eq!(series(&text, "main"), 0, "{text}");
    assert!(text.contains(r#"bcbridge_api_requests_total{store="second",status="2xx"} 0"#), "{text}");
    assert!(text.contains(r#"bcbridge_store_stopped{store="second"} 0"#), "{text}");
}

#[test]
fn words_from_the_network_make_no_new_series() {
    let metrics = metrics();
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let count_all = |word: &str| {
        metrics.open_records(word, 1);
        metrics.hydrated(word, word);
        metrics.api_request(word, "2xx");
        metrics.api_wait(word, word, Duration::ZERO);
        metrics.api_quota(word, 1, 1);
        metrics.command(word);
        metrics.sweep_repaired(word, word, 1);
        metrics.dead_letter(word);
        metrics.promise_degraded(word, true);
        metrics.hooks(word, word, 1);
        metrics.store_stopped(word, true);
        metrics.path_restarted(word, word);
        metrics.hook_mended(word, word);
        metrics.hooks_gap(word);
    };
    count_all("first stranger");
    let before = series(&metrics.encode());
    for number in 0..1_000 {
        count_all(&format!("stranger {number}"));
    }
    let text = metrics.encode();
    assert_eq!(series(&text), before);
    assert!(!text.contains("stranger"));
}

#[test]
fn every_name_appears_in_a_scrape_and_no_other() {
    let metrics = metrics();
    metrics.hydrated("order", "c");
    metrics.reread("order");
    metrics.sweep_repaired("main", "order", 1);
    metrics.api_quota("main", 0, 0);
    metrics.promise_degraded("P1", false);
    metrics.hooks("main", "active", 0);
    metrics.scan_page("main", "order", "poll", 1);
    metrics.scan_done("main", "order", "poll", (0, Duration::ZERO));
    metrics.scan_failed("main", "order", "poll", true);
    metrics.scans_running("main", 1);
    metrics.signal(true);
    let text = metrics.encode();
    let shown: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(shown.len(), names::ALL.len(), "{text}");
    for name in names::ALL {
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(shown.iter().any(|line| line.split(' ').next() == Some(family)), "{name} is missing");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_module_can_add_metrics_of_its_own() {
    let metrics = metrics();
    let counter: Counter =
        metrics.register(|registry| add(registry, "bcbridge_receiver_test_total", "A test"));
    counter.inc();
    assert!(metrics.clone().encode().contains("bcbridge_receiver_test_total 1"));
}
