//! The built-in broker: several at once, stopped, and started again with what it had.

use std::net::TcpStream;
use std::time::Duration;

use bcbridge::embedded::{self, EmbeddedError};
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::read_back::{End, ReadBack, read_back};
use bcbridge::kafka::topics::{TopicSpec, Topics};

use crate::broker_lab::{Lab, client};
use crate::kafka_support::{PATIENCE, read, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_stop_is_there_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = embedded::start("127.0.0.1:0".parse().unwrap(), Some(dir.path())).await.unwrap();
    let address = broker.address();
    let settings = client(&broker.bootstrap_servers());
    let topics = Topics::new(&settings).unwrap();
    let spec = TopicSpec { name: "kept".into(), partitions: 2, replication_factor: 1, config: Vec::new() };
    topics.ensure(std::slice::from_ref(&spec)).await.unwrap();
    let producer = IntakeProducer::new(settings, PATIENCE).unwrap();
    let mut one = record("kept", "k", "v");
    one.partition = Some(1);
    producer.append(vec![one], PATIENCE).await.unwrap();
    broker.stop().await;
    assert!(TcpStream::connect(address).is_err(), "the port is closed");

    // Another port this time: nothing in the data may name the old one.
    let broker = embedded::start("127.0.0.1:0".parse().unwrap(), Some(dir.path())).await.unwrap();
    let settings = client(&broker.bootstrap_servers());
    let states = Topics::new(&settings).unwrap().ensure(&[spec]).await.unwrap();
    assert_eq!((states[0].partitions, states[0].created), (2, false));
    let what =
        ReadBack { topic: "kept".into(), partitions: vec![0, 1], end: End::Stable, deadline: PATIENCE };
    assert_eq!(read_back(&settings, what, |_| {}).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_in_one_process_know_nothing_of_each_other() {
    let (one, other) = (Lab::embedded().await, Lab::embedded().await);
    let topic = one.topic("mine", 1).await;
    let producer = IntakeProducer::new(one.client.clone(), Duration::from_secs(10)).unwrap();
    producer.append(vec![record(&topic, "k", "v")], Duration::from_secs(10)).await.unwrap();
    assert_eq!(read(&one, &topic, &[0]).await.len(), 1);
    assert_eq!(other.topics.describe(&[&topic]).await.unwrap(), []);
    let described = one.topics.describe(&[&topic]).await.unwrap();
    assert_eq!((described.len(), described[0].partitions), (1, 1));
    assert!(described[0].number("retention.ms").is_some(), "{described:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_and_data_that_is_none_are_clear_errors() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = embedded::start(taken.local_addr().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("choose a free port"));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("embedded-broker.json"), "{}").unwrap();
    let error = embedded::start("127.0.0.1:0".parse().unwrap(), Some(dir.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Format { .. }), "{error}");
    assert!(error.to_string().contains("move it away to start empty"));
}
