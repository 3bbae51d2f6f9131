//! Reading partitions back: all that is committed, none of what is not, and quickly where there is nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::ledger::Ledger;
use bcbridge::kafka::read_back::{End, ReadBack, ReadBackError, read_back};
use bcbridge::runtime::ports::Recall as _;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker_lab::{Lab, on_both_brokers, unique};
use crate::kafka_support::{PATIENCE, partition, read, record, values};

on_both_brokers!(
    an_empty_partition_takes_no_time,
    aborted_records_and_markers_at_the_end_are_passed_over,
    several_partitions_are_read_at_once,
    an_open_transaction_hides_what_is_behind_it_or_is_waited_for,
    a_ledger_is_recalled_with_what_stands_behind_an_open_transaction,
    a_transaction_that_stays_open_is_an_error_at_the_deadline,
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

/// What a partition holds, read up to there.
async fn read_to(lab: &Lab, topic: &str, end: End, deadline: Duration) -> Result<Vec<String>, ReadBackError> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let what = ReadBack { topic: topic.to_owned(), partitions: vec![0], end, deadline };
    read_back(&lab.client, what, move |record| sink.lock().unwrap().push(record)).await?;
    Ok(values(&seen.lock().unwrap()))
}

/// A committed record, one of a transaction that is open, and a committed one behind it.
async fn with_an_open_transaction(lab: &Lab) -> (String, BaseProducer) {
    let topic = lab.topic("ledger", 1).await;
    let first = producer(lab);
    write(&first, &topic, "before");
    first.commit_transaction(PATIENCE).unwrap();
    let open = producer(lab);
    write(&open, &topic, "open");
    let other = producer(lab);
    write(&other, &topic, "behind");
    other.commit_transaction(PATIENCE).unwrap();
    (topic, open)
}

async fn an_open_transaction_hides_what_is_behind_it_or_is_waited_for(lab: Lab) {
    for commit in [true, false] {
        let (topic, open) = with_an_open_transaction(&lab).await;
        assert_eq!(read_to(&lab, &topic, End::Stable, PATIENCE).await.unwrap(), ["before"]);
        let mut reading = Box::pin(read_to(&lab, &topic, End::Written, PATIENCE));
        let early = tokio::time::timeout(Duration::from_secs(1), &mut reading).await;
        assert!(early.is_err(), "it ended before the transaction did: {early:?}");
        if commit {
            open.commit_transaction(PATIENCE).unwrap();
            assert_eq!(reading.await.unwrap(), ["before", "open", "behind"]);
        } else {
            open.abort_transaction(PATIENCE).unwrap();
            assert_eq!(reading.await.unwrap(), ["before", "behind"]);
        }
    }
}

/// An intent that is missed is a command that is sent twice.
async fn a_ledger_is_recalled_with_what_stands_behind_an_open_transaction(lab: Lab) {
    let (topic, open) = with_an_open_transaction(&lab).await;
    let mut ledger = Ledger::new(lab.client.clone(), topic.as_str().into(), 1);
    let partition = partition("commands", 0);
    let (recalled, ()) = tokio::join!(ledger.recall(&partition), async {
        // The recall is under way: it is polled first, and reads in a thread of its own.
        tokio::time::sleep(Duration::from_millis(300)).await;
        open.abort_transaction(PATIENCE).unwrap();
    });
    assert_eq!(recalled.unwrap().values["k"], "behind");
}

async fn a_transaction_that_stays_open_is_an_error_at_the_deadline(lab: Lab) {
    let (topic, open) = with_an_open_transaction(&lab).await;
    let outcome = read_to(&lab, &topic, End::Written, Duration::from_millis(500)).await;
    assert!(matches!(outcome, Err(ReadBackError::Deadline { left: 1, .. })), "{outcome:?}");
    open.abort_transaction(PATIENCE).unwrap();
}

async fn a_topic_that_does_not_exist_is_an_error_at_the_deadline(lab: Lab) {
    let what = ReadBack {
        topic: unique("none"),
        partitions: vec![0],
        end: End::Stable,
        deadline: Duration::from_millis(500),
    };
    let outcome = read_back(&lab.client, what, |_| {}).await;
    assert!(matches!(outcome, Err(ReadBackError::Deadline { .. } | ReadBackError::Client(_))), "{outcome:?}");
}
