//! What the tests of the Kafka clients share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bcbridge::kafka::consume::GroupConsumer;
use bcbridge::kafka::read_back::{End, ReadBack, read_back};
use bcbridge::kafka::transact::{TransactLimits, TransactionalProducer};
use bcbridge::model::record::{Assignment, InRecord, OffsetCommit, OutRecord, Partition};
use bcbridge::runtime::ports::Consumed;

use crate::broker_lab::{Lab, unique};

/// Nothing in these tests takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn record(topic: &str, key: &str, value: &str) -> OutRecord {
    OutRecord {
        topic: topic.into(),
        partition: None,
        key: Some(key.to_owned().into()),
        value: Some(value.to_owned().into()),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

/// Everything committed in these partitions.
pub(crate) async fn read(lab: &Lab, topic: &str, partitions: &[i32]) -> Vec<InRecord> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let what = ReadBack {
        topic: topic.to_owned(),
        partitions: partitions.to_vec(),
        end: End::Stable,
        deadline: PATIENCE,
    };
    read_back(&lab.client, what, move |r| sink.lock().unwrap().push(r)).await.unwrap();
    let mut seen = seen.lock().unwrap();
    std::mem::take(&mut *seen)
}

pub(crate) fn values(records: &[InRecord]) -> Vec<String> {
    let text = |r: &InRecord| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap();
    records.iter().map(text).collect()
}

pub(crate) fn transactional(lab: &Lab) -> TransactionalProducer {
    TransactionalProducer::new(lab.client.clone(), unique("tx"), TransactLimits::default()).unwrap()
}

pub(crate) fn partition(topic: &str, number: i32) -> Partition {
    Partition { topic: topic.into(), number }
}

pub(crate) fn offset(topic: &str, next: i64, metadata: &str) -> OffsetCommit {
    OffsetCommit { partition: partition(topic, 0), next, metadata: metadata.to_owned() }
}

pub(crate) async fn next(member: &mut GroupConsumer) -> Consumed {
    tokio::time::timeout(PATIENCE, member.next()).await.expect("an event in time").unwrap()
}

pub(crate) async fn assigned(member: &mut GroupConsumer) -> Vec<Assignment> {
    match next(member).await {
        Consumed::Assigned(all) => all,
        other => panic!("expected an assignment, got {other:?}"),
    }
}

pub(crate) async fn next_record(member: &mut GroupConsumer) -> InRecord {
    match next(member).await {
        Consumed::Record(record) => record,
        other => panic!("expected a record, got {other:?}"),
    }
}
