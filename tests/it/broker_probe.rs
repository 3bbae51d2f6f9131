//! Which of the promises that exactly-once rests on each broker keeps.

use std::time::Duration;

use bcbridge::kafka::probe::probe;
use rdkafka::mocking::MockCluster;

use crate::broker_lab::{Lab, client};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_broker_keeps_all_promises_but_generation_fencing() {
    let lab = Lab::embedded().await;
    let report = probe(&lab.client, None).await.unwrap();
    let kept: Vec<bool> = report.checks.iter().map(|check| check.kept).collect();
    // The fifth is a documented limit of the built-in broker: see `bcbridge::embedded`.
    assert_eq!(kept, [true, true, true, true, false, true], "\n{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apache_kafka_keeps_all_promises() {
    let Some(lab) = Lab::apache() else {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set");
        return;
    };
    let report = probe(&lab.client, None).await.unwrap();
    assert!(report.all_kept(), "\n{report}");
}

/// A probe that cannot fail shows nothing: librdkafka's mock pretends transactions.
#[tokio::test]
async fn a_broker_that_only_pretends_is_found_out() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("probe", 1, 1).unwrap();
    mock.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    let report = probe(&client(&mock.bootstrap_servers()), Some("probe")).await.unwrap();
    let kept: Vec<bool> = report.checks.iter().map(|check| check.kept).collect();
    assert_eq!(kept[..5], [false; 5], "\n{report}");
}
