//! Notes of the bridge's own writes, on the path.

use serde_json::json;

use super::tests::{Bench, SECONDS, bench, bench_with, header, reply};
use super::*;
use crate::incoming::stage::testing::{settings, store};
use crate::model::ids::EntityKey;
use crate::model::request::{Answer, Request};
use crate::model::written::{Fingerprint, Note, SCOPE, value_of};

/// The bench's clock stands still.
const NOW_MS: i64 = 1_767_225_600_000;
const LEDGER: &str = "bigcommerce.main.ledger";

fn product(name: &'static str) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |_| reply(Answer::Done, 200, &json!({ "data": { "id": 7, "name": name, "images": [] } }))
}

fn note(command: &str, name: &str) -> Note {
    Note {
        key: EntityKey::parse("product/7").unwrap(),
        at: None,
        command: command.into(),
        time_ms: NOW_MS - 1,
        deleted: false,
        version: None,
        fields: Fingerprint::of_row(&json!({ "id": 7, "name": name }), &[]),
    }
}

/// Consumes a note.
fn written(bench: &mut Bench, note: Note) -> Settled {
    let trigger = Trigger { key: note.key.clone(), op: Op::Read, scope: SCOPE.into(), row: None };
    let event = note.command.clone();
    let hint =
        Hint { trigger, event, created_at: None, received_ms: NOW_MS, traceparent: None, carried_ms: None };
    let headers = hint.headers().into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
    let key = Some(Bytes::from(note.key.to_string()));
    let record = InRecord {
        position: bench.position(),
        timestamp_ms: None,
        key,
        value: Some(value_of(&[note])),
        headers,
    };
    let mut settled = bench.stage.accept(record, bench.now);
    assert_eq!(settled.len(), 1, "a note is settled at once");
    settled.remove(0)
}

/// The origins of what is published after one callback.
fn origins(bench: &mut Bench) -> Vec<String> {
    bench.update("product/7");
    let settled = bench.pass(SECONDS);
    let records = settled.iter().flat_map(|settled| &settled.records);
    records
        .filter(|r| &*r.topic == "bigcommerce.main.product")
        .map(|r| header(r, "bc_origin").into())
        .collect()
}

#[test]
fn a_read_that_shows_a_commands_write_says_so_and_costs_nothing_more() {
    let mut bench = bench(product("ours"));
    assert_eq!(origins(&mut bench), ["store"]);
    written(&mut bench, note("c-1", "ours"));
    bench.asked();
    assert_eq!(origins(&mut bench), ["bridge:c-1"]);
    assert_eq!(bench.asked().len(), 1);
    bench.answer(product("theirs"));
    assert_eq!(origins(&mut bench), ["store"]);
    bench.answer(product("ours"));
    assert_eq!(origins(&mut bench), ["store"], "somebody else restored it");
}

#[test]
fn the_last_of_several_commands_counts() {
    let mut bench = bench(product("ours"));
    for (command, name) in [("c-1", "ours"), ("c-2", "ours"), ("c-3", "something else")] {
        written(&mut bench, note(command, name));
    }
    assert_eq!(origins(&mut bench), ["bridge:c-2"]);
}

#[test]
fn the_next_owner_of_the_partition_knows_the_notes() {
    let mut first = bench(product("ours"));
    let settled = written(&mut first, note("c-1", "ours"));
    let ledger: BTreeMap<String, Bytes> = settled
        .records
        .iter()
        .filter(|record| &*record.topic == LEDGER)
        .map(|r| (String::from_utf8(r.key.clone().unwrap().to_vec()).unwrap(), r.value.clone().unwrap()))
        .collect();
    assert_eq!((ledger.len(), settled.records[0].partition), (1, Some(0)));
    let mut next = bench(product("ours"));
    let partition = next.position().partition;
    next.stage.restore(&partition, ledger.into());
    assert_eq!(origins(&mut next), ["bridge:c-1"]);
    next.stage.reset();
    assert_eq!(origins(&mut next), ["store"]);
}

#[test]
fn the_ledger_forgets_what_is_older_than_the_window() {
    let mut bench = bench(product("ours"));
    let old = Note { time_ms: NOW_MS - echo::WINDOW_MS - 1, ..note("c-1", "ours") };
    written(&mut bench, old);
    let settled = written(&mut bench, note("c-2", "another"));
    let tombstones: Vec<_> = settled.records.iter().filter(|record| record.value.is_none()).collect();
    assert_eq!(tombstones.len(), 1);
    assert_eq!(tombstones[0].key.as_deref(), Some(&b"written/1"[..]));
    assert_eq!(origins(&mut bench), ["store"]);
}

#[test]
fn an_echo_that_nobody_wants_ends_in_the_ledger_unless_it_is_asked_for() {
    let mut store = store();
    let settings = EntitySettings { suppress_echo: true, ..settings("product") };
    store.entities.insert("product".into(), Arc::new(settings));
    let mut bench = bench_with(store, product("ours"));
    written(&mut bench, note("c-1", "ours"));
    bench.update("product/7");
    let settled = bench.pass(SECONDS);
    let topics: Vec<&str> = settled.iter().flat_map(|s| &s.records).map(|r| &*r.topic).collect();
    assert_eq!((topics, bench.counts.of("echo"), bench.counts.of("published")), (vec![LEDGER], 1, 0));
    // The same event again is a duplicate, as if it had been published.
    let position = format!("msg_{}", 2);
    assert_eq!(bench.hint("product/7", Op::Update, None, Some(&position)).len(), 1);
    assert_eq!(bench.counts.of("duplicate"), 1);
    bench.answer(product("theirs"));
    assert_eq!(origins(&mut bench), ["store"]);
}

#[test]
fn a_deletion_is_the_bridges_only_while_the_thing_stays_gone() {
    let mut bench = bench(|_| reply(Answer::Missing, 404, &json!({})));
    written(&mut bench, Note { deleted: true, fields: Fingerprint::default(), ..note("c-1", "") });
    let tombstones = |bench: &mut Bench| -> Vec<String> {
        bench.hint("product/7", Op::Delete, None, None);
        let settled = bench.pass(SECONDS);
        let records = settled.iter().flat_map(|settled| &settled.records);
        let gone = records.filter(|r| &*r.topic == "bigcommerce.main.product" && r.value.is_none());
        gone.map(|record| header(record, "bc_origin").to_owned()).collect()
    };
    assert_eq!(tombstones(&mut bench), ["bridge:c-1"]);
    bench.answer(product("theirs"));
    assert_eq!(origins(&mut bench), ["store"]);
    bench.answer(|_| reply(Answer::Missing, 404, &json!({})));
    assert_eq!(tombstones(&mut bench), ["store"]);
}

#[test]
fn stock_is_known_by_whatever_names_it() {
    let item = |level: u8| {
        let place = json!({ "location_id": 1, "total_inventory_onhand": level });
        json!({ "identity": { "product_id": 3, "variant_id": 30, "sku": "S 30" }, "locations": [place] })
    };
    for (at, id) in [("identity.variant_id", "30"), ("identity.sku", "S%2030"), ("identity.product_id", "3")]
    {
        let mut bench = bench(move |_| reply(Answer::Done, 200, &json!({ "data": [item(5)] })));
        let level = json!(5);
        let key = EntityKey {
            entity: "inventory_item".into(),
            id: crate::model::ids::EntityId::parse(id).unwrap(),
        };
        let fields = Fingerprint::collect([("locations.1.total_inventory_onhand", &level)].into_iter());
        written(&mut bench, Note { key, at: Some(at.into()), fields, ..note("c-1", "") });
        let read = |bench: &mut Bench| {
            bench.update("inventory_item/3");
            let settled = bench.pass(SECONDS);
            let records = settled.iter().flat_map(|settled| &settled.records);
            let item = records.filter(|r| &*r.topic == "bigcommerce.main.inventory_item");
            item.map(|record| header(record, "bc_origin").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(read(&mut bench), ["bridge:c-1"], "{at}");
        bench.answer(move |_| reply(Answer::Done, 200, &json!({ "data": [item(4)] })));
        assert_eq!(read(&mut bench), ["store"], "{at}");
    }
}
