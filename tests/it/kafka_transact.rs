//! Transactions: what is committed is seen with its offsets, what is not is never seen, and no transaction begins
//! on a producer with an indefinite past.

use std::time::{Duration, Instant};

use bcbridge::kafka::consume::GroupConsumer;
use bcbridge::kafka::topics::TopicSpec;
use bcbridge::kafka::transact::{TransactLimits, TransactionalProducer};
use bcbridge::runtime::ports::{Consumed, NotCommitted, Produce};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::broker_lab::{Lab, client, on_both_brokers, unique};
use crate::kafka_support::{
    assigned, next, next_record, offset, partition, read, record, transactional, values,
};

on_both_brokers!(
    records_and_offsets_are_committed_together,
    a_refused_record_takes_its_whole_transaction_along,
    a_reader_that_follows_sees_what_is_committed_after_an_abort,
    a_refusal_amid_records_on_their_way_is_over_at_once,
    the_next_owner_of_an_id_fences_the_last_one,
    a_dangling_transaction_is_finished_by_the_next_owner,
    a_commit_takes_milliseconds,
);

async fn records_and_offsets_are_committed_together(lab: Lab) {
    let (input, output) = (lab.topic("in", 1).await, lab.topic("out", 1).await);
    let group = unique("group");
    let mut member = GroupConsumer::join(&lab.client, &group, &[&input]).unwrap();
    let all = assigned(&mut member).await;
    assert_eq!((all[0].committed, all[0].metadata.as_str()), (None, ""));
    let mut producer = transactional(&lab);
    producer.identify(&partition(&input, 0)).await.unwrap();

    let metadata = "m".repeat(4096);
    let records = vec![record(&output, "a", "1"), record(&output, "b", "2")];
    producer.commit(records, vec![offset(&input, 7, &metadata)], member.group().unwrap()).await.unwrap();

    let committed = member.committed().await.unwrap();
    assert_eq!((committed[0].committed, committed[0].metadata.as_str()), (Some(7), metadata.as_str()));
    assert_eq!(values(&read(&lab, &output, &[0]).await), ["1", "2"]);
    assert_eq!(producer.producers_made(), 1);
}

async fn a_refused_record_takes_its_whole_transaction_along(lab: Lab) {
    let (input, output) = (lab.topic("in", 1).await, lab.topic("out", 1).await);
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let mut producer = transactional(&lab);
    producer.identify(&partition(&input, 0)).await.unwrap();

    let large = "x".repeat(2_000_000);
    let records = vec![record(&output, "a", "small"), record(&output, "b", &large)];
    let outcome = producer.commit(records, vec![offset(&input, 1, "")], member.group().unwrap()).await;
    assert!(matches!(outcome, Err(NotCommitted::Refused(_))), "{outcome:?}");
    assert_eq!(member.committed().await.unwrap()[0].committed, None);

    // The same producer goes on.
    let records = vec![record(&output, "a", "after")];
    producer.commit(records, vec![offset(&input, 1, "")], member.group().unwrap()).await.unwrap();
    assert_eq!(values(&read(&lab, &output, &[0]).await), ["after"]);
    assert_eq!(member.committed().await.unwrap()[0].committed, Some(1));
}

/// A broker tells readers which transactions were aborted; it must not tell too much.
async fn a_reader_that_follows_sees_what_is_committed_after_an_abort(lab: Lab) {
    let (input, output) = (lab.topic("in", 1).await, lab.topic("out", 1).await);
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let narrow = narrow_topic(&lab).await;
    let mut reader = GroupConsumer::join(&lab.client, &unique("group"), &[&output]).unwrap();
    assigned(&mut reader).await;
    let mut producer = transactional(&lab);
    producer.identify(&partition(&input, 0)).await.unwrap();
    for round in 0..3 {
        // The broker itself refuses the last one, by when it has the others.
        let mut doomed: Vec<_> = (0..200).map(|n| record(&output, "a", &format!("doomed {n}"))).collect();
        doomed.push(record(&narrow, "b", &"x".repeat(50_000)));
        let outcome = producer.commit(doomed, vec![offset(&input, 9, "")], member.group().unwrap()).await;
        assert!(matches!(outcome, Err(NotCommitted::Refused(_))), "{outcome:?}");
        let good = vec![record(&output, "a", &format!("good {round}"))];
        producer.commit(good, vec![offset(&input, 1, "")], member.group().unwrap()).await.unwrap();
        let seen = next_record(&mut reader).await;
        assert_eq!(values(&[seen]), [format!("good {round}")]);
    }
}

/// Aborting waits for the delivery reports of what is on its way, and only we can take those in.
async fn a_refusal_amid_records_on_their_way_is_over_at_once(lab: Lab) {
    let (input, output, narrow) =
        (lab.topic("in", 1).await, lab.topic("out", 1).await, narrow_topic(&lab).await);
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let mut producer = transactional(&lab);
    producer.identify(&partition(&input, 0)).await.unwrap();
    // Warm: its connections are open, and it knows both topics.
    let first = vec![record(&output, "a", "first"), record(&narrow, "a", "first")];
    producer.commit(first, Vec::new(), member.group().unwrap()).await.unwrap();

    // The refusal comes first, and some 50 requests with 45 MB are behind it.
    let mut doomed = vec![record(&narrow, "b", &"x".repeat(50_000))];
    let large = "y".repeat(900_000);
    doomed.extend((0..50).map(|_| record(&output, "a", &large)));
    let begun = Instant::now();
    let outcome = producer.commit(doomed, Vec::new(), member.group().unwrap()).await;
    let took = begun.elapsed();
    assert!(matches!(outcome, Err(NotCommitted::Refused(_))), "{outcome:?}");
    // Waiting for reports that nobody takes in lasts as long as a commit may take.
    assert!(took < TransactLimits::default().commit / 2, "{took:?}");

    producer.commit(vec![record(&output, "a", "good")], Vec::new(), member.group().unwrap()).await.unwrap();
    assert_eq!(values(&read(&lab, &output, &[0]).await), ["first", "good"]);
    // librdkafka's sequence numbers are not to be trusted after that.
    assert_eq!(producer.producers_made(), 2);
}

/// A topic whose records the broker itself refuses above 10 kB.
async fn narrow_topic(lab: &Lab) -> String {
    let name = unique("narrow");
    let spec = TopicSpec {
        name: name.clone(),
        partitions: 1,
        replication_factor: 1,
        config: vec![("max.message.bytes".into(), "10000".into())],
    };
    lab.topics.ensure(&[spec]).await.unwrap();
    name
}

async fn the_next_owner_of_an_id_fences_the_last_one(lab: Lab) {
    let (input, output) = (lab.topic("in", 1).await, lab.topic("out", 1).await);
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let id = unique("id");
    let (mut first, mut second) = (transactional(&lab), transactional(&lab));
    first.reopen(&id).await.unwrap();
    first.commit(vec![record(&output, "a", "1")], Vec::new(), member.group().unwrap()).await.unwrap();
    second.reopen(&id).await.unwrap();
    for _ in 0..2 {
        let outcome =
            first.commit(vec![record(&output, "a", "zombie")], Vec::new(), member.group().unwrap()).await;
        assert!(matches!(outcome, Err(NotCommitted::Fenced(_))), "{outcome:?}");
    }
    second.commit(vec![record(&output, "a", "2")], Vec::new(), member.group().unwrap()).await.unwrap();
    assert_eq!(values(&read(&lab, &output, &[0]).await), ["1", "2"]);
}

/// What a kill -9 inside a transaction leaves: no reader passes it until the id is initialised again.
async fn a_dangling_transaction_is_finished_by_the_next_owner(lab: Lab) {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let (input, output) = (lab.topic("in", 1).await, lab.topic("out", 1).await);
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let id = unique("id");
    let dead: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.client.bootstrap_servers())
        .set("transactional.id", &id)
        .create()
        .unwrap();
    dead.init_transactions(Duration::from_secs(20)).unwrap();
    dead.begin_transaction().unwrap();
    dead.send(BaseRecord::<str, str>::to(&output).key("a").payload("dangling")).unwrap();
    dead.flush(Duration::from_secs(20)).unwrap();

    let mut heir = transactional(&lab);
    heir.reopen(&id).await.unwrap();
    heir.commit(vec![record(&output, "a", "heir")], vec![offset(&input, 3, "")], member.group().unwrap())
        .await
        .unwrap();
    assert_eq!(values(&read(&lab, &output, &[0]).await), ["heir"]);
    drop(dead);
}

async fn a_commit_takes_milliseconds(lab: Lab) {
    const COMMITS: u32 = 100;
    let (input, output) = (lab.topic("in", 1).await, lab.topic("out", 6).await);
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let mut producer = transactional(&lab);
    producer.identify(&partition(&input, 0)).await.unwrap();
    let mut times = Vec::new();
    for n in 0..COMMITS {
        let records = (0..20).map(|k| record(&output, &format!("{k}"), "v")).collect();
        let offsets = vec![offset(&input, i64::from(n), "")];
        let begun = Instant::now();
        producer.commit(records, offsets, member.group().unwrap()).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() - 2]);
    eprintln!("commit of 20 records: p50 {p50:?}, p99 {p99:?} (apache: {})", lab.is_apache);
    // rdkafka's own flush would make it 100 ms at least; the margin is for a busy machine.
    assert!(p50 < Duration::from_millis(80), "{p50:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_an_earlier_generation_are_fenced_by_apache_kafka() {
    let Some(lab) = Lab::apache() else {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set");
        return;
    };
    let (input, output) = (lab.topic("in", 2).await, lab.topic("out", 1).await);
    let group = unique("group");
    let mut first = GroupConsumer::join(&lab.client, &group, &[&input]).unwrap();
    assigned(&mut first).await;
    let stale = first.group().unwrap();
    let mut producer = transactional(&lab);
    producer.identify(&partition(&input, 0)).await.unwrap();

    let mut second = GroupConsumer::join(&lab.client, &group, &[&input]).unwrap();
    let joining = bcbridge::runtime::spawn("second", async move {
        assigned(&mut second).await;
        second
    });
    assert!(matches!(next(&mut first).await, Consumed::Revoked));
    assert_eq!(assigned(&mut first).await.len(), 1);
    let second = joining.await.unwrap();

    let outcome =
        producer.commit(vec![record(&output, "a", "zombie")], vec![offset(&input, 5, "")], stale).await;
    assert!(matches!(outcome, Err(NotCommitted::Fenced(_))), "{outcome:?}");
    let fresh = first.group().unwrap();
    producer.commit(vec![record(&output, "a", "owner")], vec![offset(&input, 6, "")], fresh).await.unwrap();
    assert_eq!(values(&read(&lab, &output, &[0]).await), ["owner"]);
    second.close().await;
}

/// RELIABILITY K8: a commit without an answer, then the next transaction begins on another producer. The mock is good
/// for errors on demand, and for nothing else here. Its handle cannot leave its thread.
#[tokio::test]
async fn after_a_commit_without_an_answer_the_next_transaction_has_another_producer() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("in", 1, 1).unwrap();
    mock.create_topic("out", 1, 1).unwrap();
    let settings = client(&mock.bootstrap_servers());
    let mut member = GroupConsumer::join(&settings, "group", &["in"]).unwrap();
    assigned(&mut member).await;
    let limits = TransactLimits {
        transaction: Duration::from_secs(3),
        commit: Duration::from_secs(1),
        recovery: Duration::from_secs(10),
    };
    let mut producer = TransactionalProducer::new(settings, "tx", limits).unwrap();
    producer.identify(&partition("in", 0)).await.unwrap();
    let one = |value: &str| vec![record("out", "a", value)];
    producer.commit(one("1"), vec![offset("in", 1, "")], member.group().unwrap()).await.unwrap();
    assert_eq!(producer.producers_made(), 1, "a definite commit keeps its producer");

    // More errors than fit into the deadline, one try every 100 ms or so.
    let never = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 1000];
    mock.request_errors(RDKafkaApiKey::EndTxn, &never);
    let outcome = producer.commit(one("2"), vec![offset("in", 2, "")], member.group().unwrap()).await;
    assert!(matches!(outcome, Err(NotCommitted::Unknown(_))), "{outcome:?}");
    assert_eq!(
        producer.producers_made(),
        2,
        "the new producer is initialised before anybody looks at offsets"
    );

    mock.clear_request_errors(RDKafkaApiKey::EndTxn);
    producer.commit(one("3"), vec![offset("in", 3, "")], member.group().unwrap()).await.unwrap();
    assert_eq!(producer.producers_made(), 2);
}

/// While the outcome cannot be settled, no call begins anything: each answers `Unknown`.
#[tokio::test]
async fn nothing_is_begun_while_an_outcome_is_not_settled() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("in", 1, 1).unwrap();
    mock.create_topic("out", 1, 1).unwrap();
    let settings = client(&mock.bootstrap_servers());
    let mut member = GroupConsumer::join(&settings, "group", &["in"]).unwrap();
    assigned(&mut member).await;
    let limits = TransactLimits {
        transaction: Duration::from_secs(3),
        commit: Duration::from_secs(1),
        recovery: Duration::from_secs(1),
    };
    let mut producer = TransactionalProducer::new(settings, "tx", limits).unwrap();
    producer.identify(&partition("in", 0)).await.unwrap();
    let never = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 1000];
    mock.request_errors(RDKafkaApiKey::EndTxn, &never);
    mock.request_errors(RDKafkaApiKey::InitProducerId, &never);
    for _ in 0..2 {
        let one = vec![record("out", "a", "1")];
        let outcome = producer.commit(one, vec![offset("in", 1, "")], member.group().unwrap()).await;
        assert!(matches!(outcome, Err(NotCommitted::Unknown(_))), "{outcome:?}");
        assert_eq!(producer.producers_made(), 1);
    }
    mock.clear_request_errors(RDKafkaApiKey::EndTxn);
    mock.clear_request_errors(RDKafkaApiKey::InitProducerId);
    // Settled now, which the owner has to be told once more before it goes on.
    let one = || vec![record("out", "a", "1")];
    let outcome = producer.commit(one(), vec![offset("in", 1, "")], member.group().unwrap()).await;
    assert!(matches!(outcome, Err(NotCommitted::Unknown(_))), "{outcome:?}");
    assert_eq!(producer.producers_made(), 2);
    producer.commit(one(), vec![offset("in", 1, "")], member.group().unwrap()).await.unwrap();
    assert_eq!(producer.producers_made(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_without_an_identity_refuses_to_begin() {
    let lab = Lab::embedded().await;
    let input = lab.topic("in", 1).await;
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&input]).unwrap();
    assigned(&mut member).await;
    let mut producer = transactional(&lab);
    let outcome = producer.commit(Vec::new(), vec![offset(&input, 1, "")], member.group().unwrap()).await;
    assert!(matches!(&outcome, Err(NotCommitted::Fatal(text)) if text.contains("identify")), "{outcome:?}");
    // It is usable afterwards.
    producer.identify(&partition(&input, 0)).await.unwrap();
    producer.commit(Vec::new(), vec![offset(&input, 1, "")], member.group().unwrap()).await.unwrap();
    assert_eq!(member.committed().await.unwrap()[0].committed, Some(1));
}
