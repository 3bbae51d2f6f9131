use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn refused(value: &Value) -> String {
    Signal::parse(value.to_string().as_bytes()).expect_err("it was taken").to_string()
}

#[test]
fn a_signal_reads_as_it_is_written() {
    for value in [
        json!({"id": "s-1", "type": "snapshot.start", "store": "main", "entities": ["product", "order"]}),
        json!({"id": "s-1", "type": "snapshot.start", "store": "main"}),
        json!({"id": "s-2", "type": "snapshot.pause", "store": "main"}),
        json!({"id": "s-3", "type": "snapshot.resume", "snapshot": "s-1"}),
        json!({"id": "s-4", "type": "snapshot.stop", "store": "main", "snapshot": "s-1"}),
        json!({"id": "s-5", "type": "snapshot.status", "store": "main"}),
        json!({"id": "s-6", "type": "sweep.start", "store": "main", "entities": ["order"]}),
        json!({"id": "s-7", "type": "sync", "store": "main", "entity": "order_shipment", "ids": ["77", "206:509"]}),
        json!({"id": "s-8", "type": "halt.release", "store": "main", "command": "commands/3/17"}),
        json!({"id": "s-9", "type": "halt.release", "store": "main", "topic": "erp.stock"}),
        json!({"id": "s-10", "type": "halt.drop", "store": "main", "command": "c-1", "before": 0}),
    ] {
        let signal = Signal::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&signal).unwrap(), value);
    }
}

#[test]
fn ids_may_be_numbers_and_no_entities_are_all() {
    let sync =
        json!({"id": "a", "type": "sync", "store": "main", "entity": "product", "ids": [77, "206:509"]});
    let Ask::Sync { ids, .. } = Signal::parse(sync.to_string().as_bytes()).unwrap().ask else { panic!() };
    assert_eq!(ids.iter().map(EntityId::as_str).collect::<Vec<_>>(), ["77", "206:509"]);
    let all = json!({"id": "a", "type": "snapshot.start", "store": "main", "entities": []});
    let Ask::StartSnapshot { entities, .. } = Signal::parse(all.to_string().as_bytes()).unwrap().ask else {
        panic!()
    };
    assert!(entities.is_empty());
}

#[test]
fn a_wrong_signal_is_refused_with_what_was_found_and_what_is_allowed() {
    let many: Vec<u64> = (1..=1_001).collect();
    for (value, expected) in [
        (json!([]), "the value is not a signal"),
        (json!({"type": "sync"}), "missing field `id`"),
        (
            json!({"id": "a", "type": "snapshot.begin", "store": "m"}),
            "expected one of `snapshot.start`, `snapshot.pause`",
        ),
        (
            json!({"id": "a", "type": "snapshot.start", "store": "m", "entites": []}),
            "unknown field `entites`, expected one of",
        ),
        (json!({"id": "a", "type": "snapshot.start"}), "\"snapshot.start\" needs store"),
        (
            json!({"id": "a", "type": "snapshot.start", "store": "m", "ids": [1]}),
            "\"snapshot.start\" takes no field \"ids\"",
        ),
        (json!({"id": "a", "type": "snapshot.stop"}), "needs store or snapshot"),
        (json!({"id": "a", "type": "sync", "store": "m", "ids": ["1"]}), "\"sync\" needs entity"),
        (json!({"id": "a", "type": "sync", "store": "m", "entity": "product"}), "at least one id"),
        (json!({"id": "a", "type": "sync", "store": "m", "entity": "product", "ids": []}), "at least one id"),
        (
            json!({"id": "a", "type": "sync", "store": "m", "entity": "product", "ids": ["-1"]}),
            "must be positive",
        ),
        (
            json!({"id": "a", "type": "sync", "store": "m", "entity": "product", "ids": ["../9"]}),
            "\"../9\" is not an id",
        ),
        (
            json!({"id": "a", "type": "sync", "store": "m", "entity": "product", "ids": many}),
            "1001 items; one signal takes at most 1000",
        ),
        (json!({"id": "a", "type": "halt.release", "store": "m"}), "either command or topic"),
        (
            json!({"id": "a", "type": "halt.release", "store": "m", "command": "c", "topic": "t"}),
            "either command or topic",
        ),
        (json!({"id": "a", "type": "halt.release", "store": "m", "command": ""}), "0 bytes; 1 to 256"),
        (json!({"id": "a", "type": "halt.drop", "store": "m", "command": "c"}), "an offset in before"),
        (
            json!({"id": "a", "type": "halt.drop", "store": "m", "command": "c", "before": -1}),
            "an offset in before",
        ),
        (
            json!({"id": "a", "type": "halt.drop", "store": "m", "topic": "t", "before": 1}),
            "\"halt.drop\" takes no field \"topic\"",
        ),
        (
            json!({"id": "a", "type": "sync", "store": "m", "entity": "product", "ids": [1], "command": "c"}),
            "\"sync\" takes no field \"command\"",
        ),
        (json!({"id": "a/b", "type": "snapshot.stop", "store": "m"}), "the field \"id\" is wrong"),
        (json!({"id": "", "type": "snapshot.stop", "store": "m"}), "it is empty"),
        (json!({"id": "a", "type": "snapshot.stop", "store": ""}), "the field \"store\" is wrong"),
    ] {
        let found = refused(&value);
        assert!(found.contains(expected), "{value}: {found}");
    }
}

#[test]
fn a_refused_signal_can_be_answered_where_it_has_an_id() {
    assert_eq!(Signal::id_of(br#"{"id": "a-1", "type": "nonsense"}"#).as_deref(), Some("a-1"));
    for value in [&b"{"[..], b"[]", br#"{"id": 1}"#, br#"{"id": "a/b"}"#] {
        assert_eq!(Signal::id_of(value), None);
    }
}

#[test]
fn the_snapshots_meant_are_those_that_fit_store_and_id() {
    let which = |store: Option<&str>, snapshot: Option<&str>| Snapshots {
        store: store.map(str::to_owned),
        snapshot: snapshot.map(str::to_owned),
    };
    assert!(which(Some("main"), None).covers("main", "s-1"));
    assert!(!which(Some("main"), None).covers("other", "s-1"));
    assert!(which(None, Some("s-1")).covers("main", "s-1"));
    assert!(!which(Some("main"), Some("s-1")).covers("main", "s-2"));
}

#[test]
fn a_notification_reads_as_it_is_written_and_a_newer_bridge_may_say_more() {
    let value = json!({
        "id": "s-1", "type": "snapshot.progress", "store": "main", "entity": "product", "rows": 500,
        "total": 100_000, "pages": 2, "calls": 2, "started_at": "2026-01-02T03:04:05Z",
        "at": "2026-01-02T03:04:06.25Z", "detail": null,
    });
    let read: Notification = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
    assert_eq!(read.key(), "main/s-1");
    let more = json!({"id": "s", "type": "rejected", "store": null, "at": "2026-01-02T03:04:06Z", "news": 1});
    let read: Notification = serde_json::from_value(more).unwrap();
    assert_eq!((read.key().as_str(), read.kind.name(), read.is_end()), ("-/s", "rejected", true));
}

#[test]
fn a_snapshot_ends_with_the_notification_that_names_no_entity() {
    let mut done = Notification::new("s", Kind::SnapshotDone, Some("main"), Timestamp::UNIX_EPOCH);
    assert!(done.is_end());
    done.entity = Some("product".to_owned());
    assert!(!done.is_end());
}
