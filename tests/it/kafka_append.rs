//! The intake producer: what it acknowledged is there, in time or with an error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bcbridge::kafka::append::{AppendError, IntakeProducer};

use crate::broker_lab::{Lab, client, on_both_brokers};
use crate::kafka_support::{read, record};

on_both_brokers!(
    every_record_that_was_acknowledged_is_there,
    many_callers_share_the_producer,
    a_record_that_is_too_large_is_refused,
    a_key_goes_where_javas_producer_sends_it,
);

async fn every_record_that_was_acknowledged_is_there(lab: Lab) {
    let topic = lab.topic("append", 3).await;
    let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
    let mut full = record(&topic, "key", "value");
    full.headers = vec![("ce_id".into(), "1".into()), ("ce_id".into(), "2".into())];
    full.timestamp_ms = Some(1_700_000_000_123);
    full.partition = Some(2);
    let mut tombstone = record(&topic, "gone", "");
    tombstone.value = None;
    tombstone.partition = Some(1);
    producer.append(vec![full, tombstone], Duration::from_secs(10)).await.unwrap();

    let seen = read(&lab, &topic, &[0, 1, 2]).await;
    assert_eq!(seen.len(), 2);
    let full = seen.iter().find(|r| r.position.partition.number == 2).unwrap();
    assert_eq!(full.key.as_deref(), Some(&b"key"[..]));
    assert_eq!(full.value.as_deref(), Some(&b"value"[..]));
    assert_eq!(full.timestamp_ms, Some(1_700_000_000_123));
    let headers: Vec<_> = full.headers.iter().map(|(n, v)| (n.as_str(), v.as_ref())).collect();
    assert_eq!(headers, [("ce_id", &b"1"[..]), ("ce_id", &b"2"[..])]);
    let tombstone = seen.iter().find(|r| r.position.partition.number == 1).unwrap();
    assert_eq!((tombstone.key.as_deref(), tombstone.value.as_deref()), (Some(&b"gone"[..]), None));
}

async fn many_callers_share_the_producer(lab: Lab) {
    const CALLERS: usize = 32;
    const EACH: usize = 100;
    let topic = lab.topic("append", 1).await;
    let producer = Arc::new(IntakeProducer::new(lab.client.clone(), Duration::from_secs(20)).unwrap());
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (producer, topic) = (producer.clone(), topic.clone());
            bcbridge::runtime::spawn("caller", async move {
                for n in 0..EACH {
                    let one = vec![record(&topic, "k", &format!("{caller}-{n}"))];
                    producer.append(one, Duration::from_secs(20)).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let rate = (CALLERS * EACH) as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} appends a second with {CALLERS} callers (apache: {})", lab.is_apache);
    let seen: BTreeSet<_> = read(&lab, &topic, &[0]).await.into_iter().map(|r| r.value.unwrap()).collect();
    assert_eq!(seen.len(), CALLERS * EACH);
}

async fn a_record_that_is_too_large_is_refused(lab: Lab) {
    let topic = lab.topic("append", 1).await;
    let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
    let large = "x".repeat(2_000_000);
    let error =
        producer.append(vec![record(&topic, "k", &large)], Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(error, AppendError::Refused(_)), "{error}");
    assert_eq!(read(&lab, &topic, &[0]).await.len(), 0);
}

/// murmur2 of these keys over 6 partitions, worked out from the hash's published definition.
async fn a_key_goes_where_javas_producer_sends_it(lab: Lab) {
    let topic = lab.topic("append", 6).await;
    let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
    let keys = ["order/250", "product/77", "21", "foobar", "a-little-bit-long-string"];
    let records = keys.iter().map(|key| record(&topic, key, "v")).collect();
    producer.append(records, Duration::from_secs(10)).await.unwrap();
    let seen = read(&lab, &topic, &[0, 1, 2, 3, 4, 5]).await;
    assert_eq!(seen.len(), keys.len());
    for r in seen {
        let expected = (murmur2(r.key.as_ref().unwrap()) & 0x7fff_ffff) % 6;
        assert_eq!(r.position.partition.number, expected as i32, "{:?}", r.key);
    }
}

/// MurmurHash2 with the seed that Kafka's Java client uses.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[test]
fn the_murmur2_of_this_test_is_kafkas() {
    // From Kafka's own UtilsTest.
    assert_eq!(murmur2(b"21") as i32, -973_932_308);
    assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
    assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_an_error_at_the_deadline() {
    // A port that was free a moment ago: nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let deadline = Duration::from_millis(300);
    let producer = IntakeProducer::new(client(&format!("127.0.0.1:{port}")), deadline).unwrap();
    let begun = Instant::now();
    let error = producer.append(vec![record("nowhere", "k", "v")], deadline).await.unwrap_err();
    assert!(matches!(error, AppendError::Deadline(_)), "{error}");
    assert!(begun.elapsed() < deadline * 4, "took {:?}", begun.elapsed());
}
