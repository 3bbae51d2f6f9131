//! Looking up single entries of a ledger by when they were written: found wherever they stand, and never guessed.

use std::time::{Duration, Instant};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::look_up::LedgerEntries;
use bcbridge::model::record::OutRecord;
use bcbridge::runtime::ports::{LookUp as _, LookedUp, Sought};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker_lab::{Lab, client, on_both_brokers, unique};
use crate::kafka_support::{PATIENCE, partition, record};

on_both_brokers!(
    entries_are_found_by_their_time_and_absent_ones_are_not,
    an_entry_that_the_broker_stamped_too_early_is_found,
    the_last_entry_of_a_key_is_meant,
    what_is_not_committed_is_not_there,
    a_question_that_is_given_up_does_not_disturb_the_next,
    a_thousand_questions_take_one_reading,
    an_empty_ledger_and_one_that_is_not_there,
);

/// The first moment, in milliseconds since the epoch.
const BEGIN: i64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;

/// A value is the moment when it was written.
fn is_it(value: &[u8], at_ms: i64) -> bool {
    std::str::from_utf8(value).unwrap().parse::<i64>().unwrap() >= at_ms
}

fn sought(topic: &str, number: i32, key: &str, at_ms: i64) -> Sought {
    Sought { partition: partition(topic, number), key: key.into(), at_ms, is_it }
}

fn entry(topic: &str, number: i32, key: &str, at_ms: i64) -> OutRecord {
    let entry = record(topic, key, &at_ms.to_string());
    OutRecord { partition: Some(number), timestamp_ms: Some(at_ms), ..entry }
}

fn found(at_ms: i64) -> Option<LookedUp> {
    Some(LookedUp::Found(at_ms.to_string().into()))
}

async fn append(lab: &Lab, records: Vec<OutRecord>) {
    let intake = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
    intake.append(records, PATIENCE).await.unwrap();
}

async fn entries_are_found_by_their_time_and_absent_ones_are_not(lab: Lab) {
    let topic = lab.topic("ledger", 2).await;
    // Eight days, several at each hour, in both partitions.
    let of = |n: i64| (i32::try_from(n % 2).unwrap(), format!("k{n}"), BEGIN + n / 8 * HOUR);
    let mut records: Vec<OutRecord> =
        (0..8 * 190).map(of).map(|(p, key, at)| entry(&topic, p, &key, at)).collect();
    records.push(OutRecord { value: None, ..entry(&topic, 0, "k80", BEGIN + 190 * HOUR) });
    append(&lab, records).await;
    let entries = LedgerEntries::new(lab.client.clone());
    let numbers = [1_519, 0, 777, 3, 4, 1_000, 1];
    let mut questions: Vec<Sought> =
        numbers.iter().map(|n| of(*n)).map(|(p, key, at)| sought(&topic, p, &key, at)).collect();
    questions.push(sought(&topic, 1, "k0", BEGIN));
    questions.push(sought(&topic, 0, "none", BEGIN + 100 * HOUR));
    questions.push(sought(&topic, 0, "k80", BEGIN + 10 * HOUR + 1));
    let answers = entries.look_up(questions).await;
    let mut expected: Vec<_> = numbers.iter().map(|n| found(of(*n).2)).collect();
    expected.extend([Some(LookedUp::Nothing), Some(LookedUp::Nothing), Some(LookedUp::Forgotten)]);
    assert_eq!(answers, expected);
}

async fn an_entry_that_the_broker_stamped_too_early_is_found(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    let late = OutRecord { timestamp_ms: Some(BEGIN), ..entry(&topic, 0, "late", BEGIN + HOUR) };
    append(&lab, vec![late, entry(&topic, 0, "other", BEGIN + 2 * HOUR)]).await;
    let entries = LedgerEntries::new(lab.client.clone());
    assert_eq!(entries.look_up(vec![sought(&topic, 0, "late", BEGIN + HOUR)]).await, [found(BEGIN + HOUR)]);
    // And where no record is as young as that.
    let last =
        vec![sought(&topic, 0, "other", BEGIN + 2 * HOUR), sought(&topic, 0, "later", BEGIN + 9 * HOUR)];
    assert_eq!(entries.look_up(last).await, [found(BEGIN + 2 * HOUR), Some(LookedUp::Nothing)]);
}

async fn the_last_entry_of_a_key_is_meant(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    append(&lab, vec![entry(&topic, 0, "k", BEGIN), entry(&topic, 0, "k", BEGIN + 5)]).await;
    let entries = LedgerEntries::new(lab.client.clone());
    let both = vec![sought(&topic, 0, "k", BEGIN + 5), sought(&topic, 0, "k", BEGIN)];
    assert_eq!(entries.look_up(both).await, [found(BEGIN + 5), found(BEGIN)]);
}

async fn what_is_not_committed_is_not_there(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    for (key, commit) in [("aborted", false), ("committed", true), ("aborted-2", false)] {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", lab.client.bootstrap_servers())
            .set("transactional.id", unique("id"))
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let value = BEGIN.to_string();
        producer.send(BaseRecord::to(&topic).partition(0).key(key).payload(&value).timestamp(BEGIN)).unwrap();
        producer.flush(PATIENCE).unwrap();
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        }
    }
    let entries = LedgerEntries::new(lab.client.clone());
    let keys = ["aborted", "committed", "aborted-2"];
    let answers = entries.look_up(keys.iter().map(|key| sought(&topic, 0, key, BEGIN)).collect()).await;
    assert_eq!(answers, [Some(LookedUp::Nothing), found(BEGIN), Some(LookedUp::Nothing)]);
}

async fn a_question_that_is_given_up_does_not_disturb_the_next(lab: Lab) {
    let topic = lab.topic("ledger", 2).await;
    let records =
        (0..5_000).map(|n| entry(&topic, i32::from(n % 2 == 0), &format!("k{n}"), BEGIN + n)).collect();
    append(&lab, records).await;
    let entries = LedgerEntries::new(lab.client.clone());
    for wait in [0, 1, 5, 20, 50, 100] {
        let question = entries.look_up(vec![sought(&topic, 0, "none", BEGIN)]);
        drop(tokio::time::timeout(Duration::from_millis(wait), question).await);
        let next = vec![sought(&topic, 1, "k4000", BEGIN + 4_000), sought(&topic, 0, "k1", BEGIN + 1)];
        let mut answers = entries.look_up(next.clone()).await;
        // On a busy machine it may take more than one look, as for a command that waits.
        while answers.contains(&None) {
            answers = entries.look_up(next.clone()).await;
        }
        assert_eq!(answers, [found(BEGIN + 4_000), found(BEGIN + 1)], "after {wait} ms");
    }
}

async fn a_thousand_questions_take_one_reading(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    append(&lab, (0..5_000).map(|n| entry(&topic, 0, &format!("k{n}"), BEGIN + n)).collect()).await;
    let entries = LedgerEntries::new(lab.client.clone());
    assert_eq!(entries.look_up(vec![sought(&topic, 0, "k0", BEGIN)]).await, [found(BEGIN)]);
    let begun = Instant::now();
    let numbers = (0..5_000).step_by(5);
    let answers = entries
        .look_up(numbers.clone().map(|n| sought(&topic, 0, &format!("k{n}"), BEGIN + n)).collect())
        .await;
    let took = begun.elapsed();
    assert_eq!(answers, numbers.map(|n| found(BEGIN + n)).collect::<Vec<_>>());
    eprintln!("1,000 entries among 5,000 in {took:?} (apache: {})", lab.is_apache);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

async fn an_empty_ledger_and_one_that_is_not_there(lab: Lab) {
    let topic = lab.topic("ledger", 1).await;
    let entries = LedgerEntries::new(lab.client.clone());
    assert_eq!(entries.look_up(vec![sought(&topic, 0, "k", BEGIN)]).await, [Some(LookedUp::Nothing)]);
    assert_eq!(entries.look_up(Vec::new()).await, []);
    let none = unique("none");
    assert_eq!(entries.look_up(vec![sought(&none, 0, "k", BEGIN)]).await, [None]);
    assert_eq!(entries.look_up(vec![sought(&topic, 0, "k", BEGIN)]).await, [Some(LookedUp::Nothing)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_there_is_no_answer() {
    let entries = LedgerEntries::new(client("127.0.0.1:1"));
    let begun = Instant::now();
    assert_eq!(entries.look_up(vec![sought("ledger", 0, "k", BEGIN)]).await, [None]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
