//! Reading partitions back: all that is committed, none of what is not, and quickly where there is nothing.

use std::time::{Duration, Instant};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::read_back::{ReadBack, ReadBackError, read_back};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker_lab::{Lab, on_both_brokers, unique};
use crate::kafka_support::{PATIENCE, read, record, values};

on_both_brokers!(
    an_empty_partition_takes_no_time,
    aborted_records_and_markers_at_the_end_are_passed_over,
    several_partitions_are_read_at_once,
    an_open_transaction_is_not_waited_for,
    a_topic_that_does_not_exist_is_an_error_at_the_deadline,
);

async fn an_empty_partition_takes_no_time(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    // The first client of a process pays for what others then share.
    assert_eq!(read(&lab, &topic, &[0]).await.len(), 0);
    let begun = Instant::now();
    assert_eq!(read(&lab, &topic, &[0]).await.len(), 0);
    let took = begun.elapsed();
    eprintln!("an empty partition read back in {took:?} (apache: {})", lab.is_apache);
    assert!(took < Duration::from_millis(100), "{took:?}");
}

fn producer(lab: &Lab) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.client.bootstrap_servers())
        .set("transactional.id", unique("id"))
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn write(producer: &BaseProducer, topic: &str, value: &str) {
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<str, str>::to(topic).partition(0).key("k").payload(value)).unwrap();
    producer.flush(PATIENCE).unwrap();
}

async fn aborted_records_and_markers_at_the_end_are_passed_over(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    for (value, commit) in [("1", true), ("2", false), ("3", true), ("4", false), ("5", false)] {
        let producer = producer(&lab);
        write(&producer, &topic, value);
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
    let begun = Instant::now();
    assert_eq!(values(&read(&lab, &topic, &[0]).await), ["1", "3"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

async fn several_partitions_are_read_at_once(lab: Lab) {
    let topic = lab.topic("ledger", 3).await;
    let intake = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
    let records = (0..300)
        .map(|n| {
            let mut one = record(&topic, "k", &n.to_string());
            one.partition = Some(if n % 3 == 0 { 0 } else { 2 });
            one
        })
        .collect();
    intake.append(records, PATIENCE).await.unwrap();
    let seen = read(&lab, &topic, &[0, 1, 2]).await;
    assert_eq!(seen.len(), 300);
    for number in [0, 2] {
        let offsets =
            seen.iter().filter(|r| r.position.partition.number == number).map(|r| r.position.offset);
        assert!(offsets.clone().eq(0..offsets.count() as i64), "in order, each once");
    }
}

async fn an_open_transaction_is_not_waited_for(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    let first = producer(&lab);
    write(&first, &topic, "committed");
    first.commit_transaction(PATIENCE).unwrap();
    let open = producer(&lab);
    write(&open, &topic, "open");
    assert_eq!(values(&read(&lab, &topic, &[0]).await), ["committed"]);
    open.abort_transaction(PATIENCE).unwrap();
}

async fn a_topic_that_does_not_exist_is_an_error_at_the_deadline(lab: Lab) {
    let what = ReadBack { topic: unique("none"), partitions: vec![0], deadline: Duration::from_millis(500) };
    let outcome = read_back(&lab.client, what, |_| {}).await;
    assert!(matches!(outcome, Err(ReadBackError::Deadline { .. } | ReadBackError::Client(_))), "{outcome:?}");
}
