//! Ids that come again: answered with the stored result, out of memory or out of the ledger, and never sent again.

use std::sync::atomic::{AtomicI64, Ordering};

use futures::FutureExt as _;

use super::ended::{Ended, hash};
use super::*;
use crate::model::dead_letter::header as letter;

const PARTITION: i32 = 3;

fn partition() -> Partition {
    Partition { topic: COMMANDS.into(), number: PARTITION }
}

/// Ten minutes later than what the benches wrote.
const LATER_MS: i64 = 601_000;

/// A bench after a restart, some time after all that had ended; nothing of that is in its memory.
fn restarted(before: Bench) -> Bench {
    let mut bench = before.crash();
    bench.path.clock = Arc::new(|| LATER_MS);
    bench
}

/// The command again, as `bcbridge dlq replay` sends it.
fn replayed(offset: i64, value: &Value) -> InRecord {
    let mut record = command(offset, value);
    record.headers.push((letter::REPLAY_COUNT.to_owned(), Bytes::from_static(b"1")));
    record
}

fn last_is_a_repeat(bench: &Bench) -> bool {
    let settled = bench.settled.last().unwrap();
    let records = of_topic(settled, RESULTS);
    settled.records.len() == 1 && header_of(records[0], "bc_replayed").as_deref() == Some("1")
}

#[test]
fn a_repeat_gets_the_stored_result_out_of_the_ledger_byte_for_byte() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done(r#"{"data":{"id":77, "price": 1.50}}"#)]));
    let first = bench.apply(&update());
    let bytes = of_topic(&bench.settled[0], RESULTS)[0].value.clone();
    let mut bench = restarted(bench);
    assert_eq!(bench.apply(&update()), first);
    assert!(last_is_a_repeat(&bench));
    assert_eq!(of_topic(&bench.settled[0], RESULTS)[0].value, bytes);
    assert_eq!(*bench.log.looked_up.lock().unwrap(), [["command/c-1"]]);
    // Each time anew: it costs no memory.
    assert_eq!(bench.apply(&update()), first);
    assert_eq!(bench.log.looked_up.lock().unwrap().len(), 2);
}

#[test]
fn a_repeat_soon_after_needs_no_ledger() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    let first = bench.apply(&update());
    assert_eq!(bench.apply(&update()), first);
    assert!(last_is_a_repeat(&bench) && bench.log.looked_up.lock().unwrap().is_empty());
}

#[test]
fn many_repeats_are_looked_up_at_once_and_other_commands_do_not_wait_for_them() {
    let orders = 100..140;
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    let of = |order: i64, offset: i64| {
        let mut value = note(order);
        value["id"] = json!(format!("c-{order}"));
        record(offset, Some(&order.to_string()), Some(value.to_string().as_bytes()))
    };
    orders.clone().for_each(|order| bench.accept(of(order, order)));
    bench.run();
    let mut bench = restarted(bench);
    let sent = bench.store.sent().len();
    orders.clone().for_each(|order| bench.accept(of(order, order + 1_000)));
    bench.accept(of(7, 2_000));
    // More lanes than have a slot; none of them keeps it.
    let jobs = bench.path.start(bench.now);
    assert_eq!(jobs.len(), 2, "one look-up and one request");
    for job in jobs {
        let settled = bench.path.finish(block_on(job), bench.now);
        bench.settled.extend(settled);
    }
    bench.run();
    assert_eq!(bench.log.looked_up.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [40]);
    assert_eq!((bench.settled.len(), bench.store.sent().len()), (41, sent + 1));
}

#[test]
fn without_kafka_a_repeat_waits_and_is_asked_for_again() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    let first = bench.apply(&update());
    let mut bench = restarted(bench);
    *bench.log.failures.lock().unwrap() = 1;
    bench.accept(command(7, &update()));
    let took = bench.run();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_eq!(result(&bench.settled[0]), first);
    assert_eq!(bench.log.looked_up.lock().unwrap().len(), 2);
}

#[test]
fn a_look_up_that_never_answers_ends_with_the_lease() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    bench.apply(&update());
    let mut bench = restarted(bench);
    *bench.log.is_silent.lock().unwrap() = true;
    let lease = Lease::new(bench.now);
    lease.prove(bench.now);
    bench.path.lease(lease.clone());
    bench.accept(command(7, &update()));
    let mut job = bench.path.start(bench.now).remove(0);
    assert!((&mut job).now_or_never().is_none());
    lease.end();
    let brought = job.now_or_never().expect("nobody waits for it when the partition is handed over");
    assert!(bench.path.finish(brought, bench.now).is_empty(), "its next owner asks again");
}

#[test]
fn what_readers_may_not_see_yet_is_not_taken_for_lost() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    let first = bench.apply(&update());
    let mut bench = restarted(bench);
    let held = std::mem::take(&mut *bench.log.held.lock().unwrap());
    bench.path.clock = Arc::new(|| 2_000);
    bench.accept(command(7, &update()));
    for _ in 0..50 {
        for job in bench.path.start(bench.now) {
            assert!(bench.path.finish(block_on(job), bench.now).is_empty());
        }
        bench.now += Duration::from_millis(100);
    }
    assert!(bench.log.looked_up.lock().unwrap().len() > 3, "it is asked again and again");
    *bench.log.held.lock().unwrap() = held;
    bench.run();
    assert_eq!(result(&bench.settled[0]), first);
}

#[test]
fn an_id_that_the_ledger_lost_counts_as_one_in_doubt() {
    let found = || done(r#"{"data":[{"id":9,"sku":"S-1"}]}"#);
    let cases: [(Value, Vec<Reply>, &str, usize); 4] = [
        (update(), vec![done("{}")], "applied", 1),
        (create(), vec![found()], "applied", 1),
        (create(), vec![nothing(), nothing(), done(r#"{"data":{"id":9}}"#)], "applied", 3),
        (shipment(), vec![], "unknown", 0),
    ];
    for (value, replies, outcome, requests) in cases {
        let mut bench = Bench::new(FakeStore::scripted(replies));
        bench.path.clock = Arc::new(|| LATER_MS);
        let trace = crate::runtime::ports::Trace { hash: hash(LEDGER, "c-1"), at_ms: 1_000 };
        bench.path.restore(&partition(), Recalled { traces: vec![trace], ..Recalled::default() });
        let got = bench.apply(&value);
        assert_eq!(got["outcome"], outcome, "{got}");
        assert_eq!(bench.store.sent().len(), requests, "{got}");
        let intents = bench.log.records.lock().unwrap().len();
        let is_written = bench.store.sent().iter().any(|sent| sent.starts_with("POST"));
        assert!(!is_written || intents == 1, "its intent is durable before it is written: {got}");
        if outcome == "unknown" {
            assert_eq!(got["reason"], "in_doubt");
            assert!(got["detail"].as_str().unwrap().contains("the ledger does not tell how"), "{got}");
        }
        // It has ended now, and that counts.
        assert_eq!(bench.apply(&value), got);
    }
}

#[test]
fn another_commands_result_is_never_given() {
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    bench.apply(&update());
    let mut bench = restarted(bench);
    // As if both ids had one hash.
    bench.path.known = Known::default();
    let trace = crate::runtime::ports::Trace { hash: hash(LEDGER, "c-2"), at_ms: 1_000 };
    bench.path.restore(&partition(), Recalled { traces: vec![trace], ..Recalled::default() });
    let mut other = update();
    other["id"] = json!("c-2");
    assert_eq!(bench.apply(&other)["id"], "c-2");
    assert!(!last_is_a_repeat(&bench));
}

#[test]
fn what_failed_is_applied_when_it_is_replayed_and_only_then() {
    for value in [update(), create(), shipment()] {
        let refusal = || reply(Answer::Invalid, 422, "{}");
        let mut bench = Bench::new(FakeStore::scripted(vec![refusal(), done(r#"{"data":{"id":1}}"#)]));
        let first = bench.apply(&value);
        assert_eq!(first["outcome"], "rejected");
        let mut bench = restarted(bench);
        assert_eq!(bench.apply(&value), first);
        bench.accept(replayed(8, &value));
        bench.run();
        let second = result(&bench.settled[1]);
        assert_eq!(second["outcome"], "applied", "{second}");
        let mut bench = restarted(bench);
        bench.accept(replayed(9, &value));
        bench.run();
        assert_eq!(result(&bench.settled[0]), second, "it was applied");
    }
}

#[test]
fn an_entry_that_was_taken_back_is_none() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    bench.path.clock = Arc::new(|| LATER_MS);
    let trace = crate::runtime::ports::Trace { hash: hash(LEDGER, "c-1"), at_ms: 1_000 };
    bench.path.restore(&partition(), Recalled { traces: vec![trace], ..Recalled::default() });
    bench.log.held.lock().unwrap().insert("command/c-1".into(), None);
    assert_eq!(bench.apply(&shipment())["outcome"], "applied");
}

#[test]
fn after_eight_days_an_id_is_free() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}"), done("{}")]));
    bench.apply(&update());
    let mut bench = restarted(bench);
    bench.path.clock = Arc::new(|| 1_001 + 8 * 24 * 3_600_000);
    bench.apply(&update());
    assert!(!last_is_a_repeat(&bench) && bench.log.looked_up.lock().unwrap().is_empty());
}

/// Lives with few ids that come again and again, restarts, a memory of next to nothing, and a Kafka that comes and goes.
#[test]
fn each_id_has_one_effect_and_one_answer_however_often_it_comes() {
    const IDS: i64 = 12;
    for seed in 0..30 {
        println!("seed {seed}");
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
        let mut draw = |below: i64| rand::Rng::random_range(&mut rng, 0..below);
        let clock = Arc::new(AtomicI64::new(1_000));
        let store = FakeStore::new(|_, number| done(&json!({"data": {"id": number}}).to_string()));
        let (mut committed, mut answers) = (Vec::<Settled>::new(), BTreeMap::<String, Value>::new());
        let mut offset = 0;
        for _life in 0..5 {
            let mut bench = Bench::new(store.clone());
            let of_clock = clock.clone();
            bench.path.clock = Arc::new(move || of_clock.fetch_add(1, Ordering::Relaxed));
            bench.path.known = Known::with_limits(0, Ended::default());
            let entries = ledger(committed.iter().flat_map(|settled| &settled.records));
            bench.path.restore(&partition(), recalled(&bench.log, entries));
            for _round in 0..8 {
                for _ in 0..draw(6) {
                    let id = draw(IDS);
                    let mut value = if id % 2 == 0 { shipment() } else { note(id) };
                    value["id"] = json!(format!("c-{id}"));
                    offset += 1;
                    let key = format!("k{}", draw(4));
                    bench.accept(record(offset, Some(&key), Some(value.to_string().as_bytes())));
                }
                *bench.log.failures.lock().unwrap() = u32::from(draw(3) == 0);
                clock.fetch_add(60_000 * draw(10), Ordering::Relaxed);
                bench.run();
                for settled in std::mem::take(&mut bench.settled) {
                    let got = result(&settled);
                    let id = got["id"].as_str().unwrap().to_owned();
                    assert_eq!(answers.entry(id).or_insert_with(|| got.clone()), &got);
                    for (key, value) in ledger(settled.records.iter()) {
                        bench.log.held.lock().unwrap().insert(key, Some(value));
                    }
                    bench.path.committed(&settled.positions);
                    committed.push(settled);
                }
            }
        }
        assert_eq!(committed.len(), usize::try_from(offset).unwrap(), "each has one result");
        assert_eq!(store.sent().len(), answers.len(), "each id has one effect");
    }
}
