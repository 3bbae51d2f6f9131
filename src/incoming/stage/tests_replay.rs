//! Callbacks that come back from the dead letters: judged anew, and nothing of them is lost.

use super::tests::{Bench, bench, header as told, healthy, published};
use super::*;
use crate::model::dead_letter::header as letter;

/// Consumes a replayed callback, which was put aside before it stood on the intake.
fn replayed(bench: &mut Bench, body: &str) -> Settled {
    let text = |text: &str| Bytes::from(text.to_owned());
    let record = InRecord {
        position: bench.position(),
        timestamp_ms: None,
        key: Some(text("msg_7")),
        value: Some(text(body)),
        headers: vec![
            (header::EVENT.to_owned(), text("msg_7")),
            (letter::REPLAY_COUNT.to_owned(), text("1")),
            (letter::LETTER.to_owned(), text("bigcommerce.main.dlq/0/4")),
        ],
    };
    let mut settled = bench.stage.accept(record, bench.now);
    assert_eq!(settled.len(), 1);
    settled.remove(0)
}

#[test]
fn a_replayed_callback_keeps_its_event() {
    let settled = replayed(&mut bench(healthy), r#"{"scope":"store/product/updated","data":{"id":5}}"#);
    assert_eq!(told(&settled.records[0], "bc_event"), "msg_7");
}

#[test]
fn what_is_still_not_understood_of_a_batch_is_put_aside_again() {
    let mut bench = bench(healthy);
    let settled = replayed(&mut bench, r#"{"scope":"store/product/updated","data":[{"id":5},{"id":"?"}]}"#);
    let [hint, rest] = &settled.records[..] else { panic!("{} records", settled.records.len()) };
    assert_eq!(told(rest, letter::REPLAY_COUNT), "1");
    assert_eq!(told(rest, letter::REASON), "quarantined");
    assert_eq!(told(hint, "bc_event"), "msg_7");
    assert_eq!(published(&[settled]), ["dlq/msg_7", "webhooks/product/5"]);
    assert_eq!(bench.counts.of("quarantined"), 1);
}

#[test]
fn what_nothing_can_be_read_of_keeps_its_reason() {
    let mut bench = bench(healthy);
    let settled = replayed(&mut bench, r#"{"scope":"store/company/created","data":{"id":5}}"#);
    assert_eq!(told(&settled.records[0], letter::REASON), "not_readable");
    assert_eq!(bench.counts.of("not_readable"), 1);
}
