//! What is noted of commands that have ended.

use super::*;
use crate::model::written::{Note, is_of_notes, notes_of};
use crate::outgoing::notes::{Intake, Noted, append};

/// Applies commands, and gives the records of what was noted of them.
fn noted(store: Arc<FakeStore>, commands: &[Value], published: &[&str]) -> Vec<OutRecord> {
    let mut bench = Bench::new(store);
    let published = published.iter().map(|name| (*name).to_owned()).collect();
    let (noted, waiting) = Noted::new("main".into(), published);
    bench.path.note("main".into(), noted);
    for (offset, value) in commands.iter().enumerate() {
        bench.accept(command(i64::try_from(offset).unwrap(), value));
    }
    bench.run();
    assert_eq!(bench.settled.len(), commands.len());
    drop(bench);
    let log = Arc::new(FakeLog::default());
    let intake = Intake { topic: "bigcommerce.main.webhooks".into(), partitions: 3 };
    futures::executor::block_on(append(waiting, intake, log.clone()));
    std::mem::take(&mut *log.records.lock().unwrap())
}

fn note_of(record: &OutRecord) -> Note {
    notes_of(record.value.as_ref().unwrap()).unwrap().remove(0)
}

fn text(bytes: Option<&Bytes>) -> &str {
    std::str::from_utf8(bytes.unwrap()).unwrap()
}

#[test]
fn an_update_is_noted_where_its_hints_are_kept_in_order() {
    let reply = r#"{"data":{"id":77,"name":"New","price":"10.00","date_modified":"2026-01-01T00:00:00Z"}}"#;
    let update = json!({ "id": "c-1", "entity": "product", "action": "update", "path": { "product_id": 77 }, "payload": { "name": "New" } });
    let records = noted(FakeStore::scripted(vec![done(reply)]), &[update], &["product"]);
    assert_eq!(records.len(), 1);
    assert_eq!((text(records[0].key.as_ref()), records[0].partition), ("product/77", None));
    let record = InRecord {
        position: Position { partition: Partition { topic: "i".into(), number: 0 }, offset: 0 },
        timestamp_ms: None,
        key: records[0].key.clone(),
        value: records[0].value.clone(),
        headers: records[0].headers.iter().map(|(n, v)| (n.to_string(), v.clone())).collect(),
    };
    assert!(is_of_notes(&record));
    let note = note_of(&records[0]);
    assert_eq!((note.command.as_str(), note.time_ms, note.version), ("c-1", 1_000, Some(1_767_225_600)));
    let read =
        |name: &str| json!({ "id": 77, "name": name, "price": 10, "date_modified": "later", "images": [] });
    assert!(note.fields.agrees(&read("New")) && !note.fields.agrees(&read("Newer")));
    let value = text(records[0].value.as_ref());
    assert!(!value.contains("New") && !value.contains("10.00"), "a note holds no content: {value}");
}

#[test]
fn what_failed_or_is_published_by_nobody_is_not_noted() {
    let update = json!({ "id": "c-1", "entity": "product", "action": "update", "path": { "product_id": 77 }, "payload": { "name": "New" } });
    let store = || FakeStore::scripted(vec![reply(Answer::Invalid, 422, "{}")]);
    assert!(noted(store(), std::slice::from_ref(&update), &["product"]).is_empty());
    let done = FakeStore::scripted(vec![done(r#"{"data":{"id":77}}"#)]);
    assert!(noted(done, &[update], &["customer"]).is_empty());
}

#[test]
fn a_delete_is_noted_by_its_path() {
    let delete =
        json!({ "id": "c-1", "entity": "product", "action": "delete", "path": { "product_id": 77 } });
    let records = noted(FakeStore::scripted(vec![reply(Answer::Done, 204, "")]), &[delete], &["product"]);
    let note = note_of(&records[0]);
    assert!(note.deleted && note.key.to_string() == "product/77");
}

#[test]
fn a_change_of_stock_is_noted_in_every_partition_by_what_names_it() {
    let items = json!([
        { "location_id": 1, "variant_id": 5, "quantity": 7 },
        { "location_id": 2, "variant_id": 5, "quantity": 8 },
        { "location_id": 1, "sku": "A B", "quantity": 9 },
    ]);
    let absolute = |id: &str| json!({ "id": id, "entity": "inventory_adjustment", "action": "absolute", "payload": { "reason": "erp", "items": items } });
    let store =
        FakeStore::scripted(vec![done(r#"{"transaction_id":"t"}"#), done(r#"{"transaction_id":"u"}"#)]);
    let records = noted(store, &[absolute("c-1"), absolute("c-2")], &["inventory_item"]);
    let partitions: Vec<Option<i32>> = records.iter().map(|record| record.partition).collect();
    assert_eq!(partitions, [Some(0), Some(1), Some(2)]);
    let notes = notes_of(records[0].value.as_ref().unwrap()).unwrap();
    let shown: Vec<(String, &str, &str)> =
        notes.iter().map(|n| (n.key.to_string(), n.at.as_deref().unwrap(), n.command.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("inventory_item/A%20B".into(), "identity.sku", "c-1"),
            ("inventory_item/5".into(), "identity.variant_id", "c-1"),
            ("inventory_item/A%20B".into(), "identity.sku", "c-2"),
            ("inventory_item/5".into(), "identity.variant_id", "c-2"),
        ]
    );
    let level = |first: u8, second: u8| {
        let place = |id: u8, level: u8| json!({ "location_id": id, "total_inventory_onhand": level });
        json!({ "locations": [place(1, first), place(2, second)] })
    };
    assert!(notes[1].fields.agrees(&level(7, 8)) && !notes[1].fields.agrees(&level(7, 9)));
}
