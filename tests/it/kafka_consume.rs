//! A member of a group: what it is told, and in which order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::consume::{ConsumeError, GroupConsumer};
use bcbridge::model::record::{OutRecord, Position};
use bcbridge::runtime::ports::{Consumed, Produce};

use crate::broker_lab::{Lab, on_both_brokers, unique};
use crate::kafka_support::{
    PATIENCE, assigned, next, next_record, offset, partition, record, transactional, values,
};

on_both_brokers!(
    a_new_group_starts_at_the_beginning_and_a_known_one_where_it_has_committed,
    nothing_is_lost_when_next_is_dropped_half_way,
    a_paused_member_is_given_nothing_until_it_resumes,
    a_held_partition_gives_nothing_while_the_other_flows_and_a_new_assignment_frees_it,
    a_seek_goes_back,
    a_member_that_closes_hands_over_to_the_next,
    an_offset_that_is_gone_is_an_error,
);

async fn fill(lab: &Lab, topic: &str, values: std::ops::Range<u32>) {
    let producer = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
    let records = values.map(|n| record(topic, "k", &n.to_string())).collect();
    producer.append(records, PATIENCE).await.unwrap();
}

async fn a_new_group_starts_at_the_beginning_and_a_known_one_where_it_has_committed(lab: Lab) {
    let topic = lab.topic("in", 1).await;
    fill(&lab, &topic, 0..5).await;
    let group = unique("group");
    let mut member = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    let first = assigned(&mut member).await;
    assert_eq!((first.len(), first[0].committed), (1, None));
    assert_eq!(values(&[next_record(&mut member).await]), ["0"]);
    let mut producer = transactional(&lab);
    producer.identify(&partition(&topic, 0)).await.unwrap();
    producer
        .commit(Vec::new(), vec![offset(&topic, 3, "4 is settled as well")], member.group().unwrap())
        .await
        .unwrap();
    member.close().await;

    let mut member = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    let again = assigned(&mut member).await;
    assert_eq!((again[0].committed, again[0].metadata.as_str()), (Some(3), "4 is settled as well"));
    let record = next_record(&mut member).await;
    assert_eq!((record.position.offset, values(&[record])), (3, vec!["3".to_owned()]));
}

async fn nothing_is_lost_when_next_is_dropped_half_way(lab: Lab) {
    const RECORDS: u32 = 200;
    let topic = lab.topic("in", 1).await;
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&topic]).unwrap();
    fill(&lab, &topic, 0..RECORDS).await;
    let mut seen = Vec::new();
    let mut told = 0;
    let all = async {
        while seen.len() < RECORDS as usize {
            tokio::select! {
                biased;
                event = member.next() => match event.unwrap() {
                    Consumed::Assigned(_) => told += 1,
                    Consumed::Record(record) => seen.push(record),
                    Consumed::Revoked => panic!("revoked"),
                },
                // Drops the future again and again, also while committed offsets are being asked for.
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert_eq!(told, 1);
    assert_eq!(values(&seen), (0..RECORDS).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn a_paused_member_is_given_nothing_until_it_resumes(lab: Lab) {
    let topic = lab.topic("in", 1).await;
    fill(&lab, &topic, 0..3).await;
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&topic]).unwrap();
    assigned(&mut member).await;
    assert_eq!(values(&[next_record(&mut member).await]), ["0"]);
    member.pause_all().unwrap();
    // Longer than a fetch takes; nothing arrives that could be waited for.
    let quiet = tokio::time::timeout(Duration::from_millis(700), member.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    member.resume_all().unwrap();
    assert_eq!(values(&[next_record(&mut member).await, next_record(&mut member).await]), ["1", "2"]);
}

async fn a_held_partition_gives_nothing_while_the_other_flows_and_a_new_assignment_frees_it(lab: Lab) {
    let topic = lab.topic("in", 2).await;
    let to = |number: i32, values: std::ops::Range<u32>| {
        let record = |n: u32| OutRecord { partition: Some(number), ..record(&topic, "k", &n.to_string()) };
        values.map(record).collect::<Vec<_>>()
    };
    let producer = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
    producer.append(to(0, 0..50), PATIENCE).await.unwrap();
    let group = unique("group");
    let mut member = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    assigned(&mut member).await;
    assert_eq!(values(&[next_record(&mut member).await]), ["0"]);
    // The rest of the partition may have been fetched by now.
    member.hold(&partition(&topic, 0), true).unwrap();
    producer.append(to(1, 100..103), PATIENCE).await.unwrap();
    for expected in ["100", "101", "102"] {
        assert_eq!(values(&[next_record(&mut member).await]), [expected]);
    }
    // What is paused in all and resumed leaves it as it is.
    member.pause_all().unwrap();
    member.resume_all().unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(700), member.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    member.hold(&partition(&topic, 0), false).unwrap();
    assert_eq!(values(&[next_record(&mut member).await, next_record(&mut member).await]), ["1", "2"]);

    member.hold(&partition(&topic, 0), true).unwrap();
    let second = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    let second = bcbridge::runtime::spawn("the second member", async move {
        let mut second = second;
        assigned(&mut second).await;
        second.close().await;
    });
    // Whatever was committed for it, which is nothing: it flows from its beginning.
    let freed = async {
        loop {
            match member.next().await.unwrap() {
                Consumed::Record(record) if record.position.partition.number == 0 => return record,
                _ => {}
            }
        }
    };
    let record = tokio::time::timeout(PATIENCE, freed).await.unwrap();
    assert_eq!(values(&[record]), ["0"]);
    second.await.unwrap();
}

async fn a_seek_goes_back(lab: Lab) {
    let topic = lab.topic("in", 1).await;
    fill(&lab, &topic, 0..3).await;
    let mut member = GroupConsumer::join(&lab.client, &unique("group"), &[&topic]).unwrap();
    assigned(&mut member).await;
    for expected in ["0", "1", "2"] {
        assert_eq!(values(&[next_record(&mut member).await]), [expected]);
    }
    member.seek(&Position { partition: partition(&topic, 0), offset: 1 }).await.unwrap();
    assert_eq!(values(&[next_record(&mut member).await, next_record(&mut member).await]), ["1", "2"]);
}

async fn a_member_that_closes_hands_over_to_the_next(lab: Lab) {
    let topic = lab.topic("in", 2).await;
    let group = unique("group");
    let mut first = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    assert_eq!(assigned(&mut first).await.len(), 2);
    let mut second = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    let joining = bcbridge::runtime::spawn("second", async move {
        let all = assigned(&mut second).await;
        (second, all)
    });
    assert!(matches!(next(&mut first).await, Consumed::Revoked));
    let kept = assigned(&mut first).await;
    let (mut second, got) = joining.await.unwrap();
    let both: BTreeSet<_> = kept.iter().chain(&got).map(|a| a.partition.clone()).collect();
    assert_eq!((kept.len(), got.len(), both.len()), (1, 1, 2));

    first.close().await;
    assert!(matches!(next(&mut second).await, Consumed::Revoked));
    assert_eq!(assigned(&mut second).await.len(), 2);
}

async fn an_offset_that_is_gone_is_an_error(lab: Lab) {
    let topic = lab.topic("in", 1).await;
    fill(&lab, &topic, 0..2).await;
    let group = unique("group");
    let mut member = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    assigned(&mut member).await;
    let mut producer = transactional(&lab);
    producer.identify(&partition(&topic, 0)).await.unwrap();
    producer.commit(Vec::new(), vec![offset(&topic, 1000, "")], member.group().unwrap()).await.unwrap();
    member.close().await;
    let mut member = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    assert_eq!(assigned(&mut member).await[0].committed, Some(1000));
    let outcome = tokio::time::timeout(PATIENCE, member.next()).await.expect("an answer in time");
    assert!(matches!(outcome, Err(ConsumeError::OffsetOutOfRange { .. })), "{outcome:?}");
}

/// One member has not answered a revocation yet, and the broker keeps whoever joins again waiting for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_a_group_waits_for_no_other_member_on_apache_kafka() {
    let Some(lab) = Lab::apache() else {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set");
        return;
    };
    for has_given_up in [false, true] {
        let (topic, group) = (lab.topic("in", 3).await, unique("group"));
        let join = || GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
        let (mut leaving, mut busy) = (join(), join());
        let mut has = [0, 0];
        while has.contains(&0) || has.iter().sum::<usize>() != 3 {
            let (at, event) = tokio::select! {
                event = next(&mut leaving) => (0, event),
                event = next(&mut busy) => (1, event),
            };
            has[at] = if let Consumed::Assigned(all) = event { all.len() } else { 0 };
        }
        let _third = join();
        for member in [&mut leaving, &mut busy] {
            assert!(matches!(next(member).await, Consumed::Revoked));
        }
        if has_given_up {
            let early = tokio::time::timeout(Duration::from_millis(500), leaving.next()).await;
            assert!(early.is_err(), "the other one has not given up yet: {early:?}");
        }
        let begun = Instant::now();
        leaving.close().await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{has_given_up}: {:?}", begun.elapsed());
    }
}

/// Two members under load: every record is given to the owner of its partition, in order, and none after the
/// revocation that ends its assignment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_under_load_keeps_assignments_and_records_apart_on_apache_kafka() {
    let Some(lab) = Lab::apache() else {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set");
        return;
    };
    const RECORDS: i64 = 20_000;
    let topic = lab.topic("in", 4).await;
    let producer = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
    for chunk in 0..20 {
        let records: Vec<OutRecord> = (0..RECORDS / 20)
            .map(|n| OutRecord {
                partition: Some((n % 4) as i32),
                ..record(&topic, "k", &format!("{chunk}-{n}"))
            })
            .collect();
        producer.append(records, PATIENCE).await.unwrap();
    }
    let group = unique("group");
    let mut first = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
    let mut owned: BTreeSet<_> = assigned(&mut first).await.into_iter().map(|a| a.partition).collect();
    assert_eq!(owned.len(), 4);
    let (mut seen, mut joining, mut rebalances) = (0, None, 0);
    let mut expected = std::collections::BTreeMap::new();
    while rebalances < 1 {
        match next(&mut first).await {
            Consumed::Record(r) => {
                assert!(owned.contains(&r.position.partition), "a record of a partition that is not ours");
                let at = expected.entry(r.position.partition.clone()).or_insert(0);
                assert_eq!(r.position.offset, *at);
                *at += 1;
                seen += 1;
                if seen == 500 {
                    let mut second = GroupConsumer::join(&lab.client, &group, &[&topic]).unwrap();
                    joining = Some(bcbridge::runtime::spawn("second", async move {
                        let all = assigned(&mut second).await;
                        let first = next_record(&mut second).await;
                        assert!(all.iter().any(|a| a.partition == first.position.partition));
                        second.close().await;
                        all
                    }));
                }
            }
            Consumed::Revoked => owned.clear(),
            Consumed::Assigned(all) => {
                assert!(owned.is_empty(), "assigned without a revocation");
                assert_eq!(all.len(), 2);
                owned = all.into_iter().map(|a| a.partition).collect();
                expected.clear();
                rebalances += 1;
            }
        }
    }
    // Nothing was committed: what is ours starts from the beginning.
    let restarted = next_record(&mut first).await;
    assert!(owned.contains(&restarted.position.partition));
    assert_eq!(restarted.position.offset, 0);
    let others = joining.unwrap().await.unwrap();
    assert!(others.iter().all(|a| !owned.contains(&a.partition)));
}
