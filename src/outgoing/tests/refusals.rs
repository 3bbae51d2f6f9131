//! What is no command, or an unsafe one, is refused at once: one result, one dead letter, and nothing is sent.

use super::*;
use crate::catalog::{Action, Entity};

/// Refuses to be used.
fn silent() -> Arc<FakeStore> {
    FakeStore::scripted(Vec::new())
}

#[track_caller]
fn check(record: InRecord, reason: &str) {
    let mut bench = Bench::new(silent());
    bench.accept(record.clone());
    assert_eq!(bench.settled.len(), 1, "it is settled at once");
    assert!(bench.path.start(bench.now).is_empty());
    let got = result(&bench.settled[0]);
    assert_eq!((&got["outcome"], &got["attempts"]), (&json!("rejected"), &json!(0)));
    assert_eq!(got["reason"], reason, "{got}");
    let letters = of_topic(&bench.settled[0], DLQ);
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].key, &letters[0].value), (&record.key, &record.value));
    assert_eq!(header_of(letters[0], "bc_dlq_reason").unwrap(), reason);
    assert!(!header_of(letters[0], "__connect.errors.exception.message").unwrap().is_empty());
    assert!(bench.store.sent().is_empty());
}

#[test]
fn what_stands_in_an_array_is_no_name_of_a_command() {
    let mut bench = Bench::new(silent());
    bench.accept(record(1, Some("k"), Some(br#"["c-1", "product", "update"]"#)));
    let got = result(&bench.settled[0]);
    assert_ne!(got["id"], "c-1", "another command may have this id");
    assert_eq!(got["entity"], Value::Null);
}

#[test]
fn poison_is_refused_with_its_reason() {
    check(record(1, Some("k"), None), "bad_json");
    for (value, reason) in [
        (&b""[..], "bad_json"),
        (b"{", "bad_json"),
        (b"\xff{}", "bad_json"),
        (b"\"\xff\"", "bad_json"),
        (b"[]", "bad_json"),
        (b"null", "bad_json"),
        (b"{} {}", "bad_json"),
        (b"{}", "bad_field"),
        (br#"{"entity":"product"}"#, "bad_field"),
        (br#"{"entity":7,"action":"update"}"#, "bad_field"),
        (br#"{"entity":"product","entity":"order","action":"update"}"#, "bad_field"),
        (br#"{"entity":"product","action":"update","url":"https://example.com"}"#, "bad_field"),
        (br#"{"entity":"prodct","action":"update"}"#, "unknown_entity"),
        (br#"{"entity":"product","action":"explode"}"#, "unknown_action"),
        (br#"{"entity":"product","action":"update","path":{},"payload":{}}"#, "bad_id"),
        (br#"{"entity":"product","action":"update","payload":{}}"#, "bad_id"),
        (
            br#"{"entity":"product","action":"update","path":{"product_id":1,"x":1},"payload":{}}"#,
            "bad_field",
        ),
        (br#"{"entity":"product","action":"create","path":{"product_id":1},"payload":{}}"#, "bad_field"),
        (br#"{"entity":"product","action":"update","path":{"product_id":1}}"#, "bad_payload"),
        (br#"{"entity":"product","action":"update","path":{"product_id":1},"payload":[]}"#, "bad_payload"),
        (br#"{"entity":"product","action":"update","path":{"product_id":1},"payload":"{}"}"#, "bad_payload"),
        (br#"{"entity":"product","action":"delete","path":{"product_id":1},"payload":{}}"#, "bad_payload"),
        (br#"{"entity":"product","action":"upsert","payload":{"price":1}}"#, "bad_payload"),
        (br#"{"entity":"customer","action":"update","path":{"customer_id":1},"payload":{"id":2}}"#, "bad_id"),
        (br#"{"entity":"inventory_adjustment","action":"absolute","payload":{}}"#, "bad_payload"),
        (br#"{"entity":"inventory_adjustment","action":"absolute","payload":{"items":[]}}"#, "bad_payload"),
        (br#"{"entity":"inventory_adjustment","action":"absolute","payload":{"items":{}}}"#, "bad_payload"),
        (br#"{"id":"","entity":"product","action":"create","payload":{}}"#, "bad_field"),
        (br#"{"id":"a\nb","entity":"product","action":"create","payload":{}}"#, "bad_field"),
    ] {
        check(record(1, Some("k"), Some(value)), reason);
    }
}

#[test]
fn too_large_a_payload_or_too_many_items_are_refused() {
    let payload = json!({"name": "a".repeat(1024 * 1024)});
    let path = json!({"product_id": 1});
    check(
        command(1, &json!({"entity": "product", "action": "update", "path": path, "payload": payload})),
        "bad_payload",
    );
    let payload = json!({"items": vec![json!({}); 2001]});
    check(
        command(1, &json!({"entity": "inventory_adjustment", "action": "absolute", "payload": payload})),
        "bad_payload",
    );
}

#[test]
fn a_query_takes_scalars_and_nothing_that_widens_a_delete() {
    let with = |entity: &str, id: &str, query: &Value| {
        command(1, &json!({"entity": entity, "action": "delete", "path": {id: 1}, "query": query}))
    };
    for query in [
        json!({"id:in": 2}),
        json!({"ID:IN": "2"}),
        json!({"id:in[]": "2"}),
        json!({"date_modified:min": "x"}),
        json!({"id": 2}),
        json!({"id[]": 2}),
        json!({"a&id:in": 1}),
        json!({"": 1}),
        json!({"a": null}),
        json!({"a": []}),
        json!({"a": [[1]]}),
        json!({"a": [1, null]}),
        json!({"a": ["x", ""]}),
        json!({"a": ["x,y", "z"]}),
        json!({"a": {}}),
        json!({"a": "x".repeat(5000)}),
    ] {
        check(with("customer", "customer_id", &query), "bad_field");
        check(with("product", "product_id", &query), "bad_field");
    }
    check(with("customer", "customer_id", &json!({"limit": 1})), "bad_field");
}

#[test]
fn a_list_in_a_query_is_joined_with_commas() {
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    let query = json!({"include_fields": ["name", "sku"], "x": [1, true, "a b"], "y": ["one"]});
    let got = bench.apply(&json!({
        "entity": "product", "action": "update", "path": {"product_id": 1}, "query": query, "payload": {"name": "New"},
    }));
    assert_eq!(got["outcome"], "applied", "{got}");
    let sent = bench.store.sent.lock().unwrap();
    let found = |name: &str| sent[0].query.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    assert_eq!(
        ["include_fields", "x", "y"].map(|name| found(name).unwrap()),
        ["name,sku", "1,true,a b", "one"].map(str::to_owned)
    );
}

#[test]
fn a_refused_command_tells_its_class_once_its_action_is_known() {
    for (value, class) in [
        (json!({"entity": "product", "action": "delete", "path": {}}), json!("A")),
        (json!({"entity": "product", "action": "update", "path": {"product_id": 1}}), json!("A")),
        (
            json!({"entity": "shipment", "action": "create", "path": {"order_id": 0}, "payload": {}}),
            json!("C"),
        ),
        (
            json!({"entity": "customer", "action": "update", "path": {"customer_id": 1}, "payload": {"id": 2}}),
            json!("A"),
        ),
        (json!({"entity": "product", "action": "explode"}), Value::Null),
        (json!({"entity": "product"}), Value::Null),
    ] {
        let mut bench = Bench::new(silent());
        bench.accept(command(1, &value));
        let got = result(&bench.settled[0]);
        assert_eq!((&got["outcome"], &got["class"]), (&json!("rejected"), &class), "{got}");
    }
}

/// Sound samples of what an action needs, but for the ids.
fn payload_for(entity: &Entity, action: &Action) -> Option<Value> {
    use crate::catalog::Body;
    let takes_none = matches!(action.body, Body::None | Body::ArrayOfId) && action.path.is_some();
    if takes_none {
        return None;
    }
    if action.body == Body::Array {
        return Some(json!([{}]));
    }
    let mut payload = serde_json::Map::new();
    for key in entity.action.iter().flat_map(|action| &action.natural_key) {
        for field in std::iter::once(&key.field).chain(key.with.iter().map(|part| &part.field)) {
            payload.insert(field.clone(), json!("x@example.com"));
        }
    }
    if let Some(items) = &action.items {
        payload.insert(items.field.clone(), json!([{}]));
    }
    Some(Value::Object(payload))
}

fn nasty_ids() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "  1",
        "1 ",
        "/",
        "//",
        ".",
        "..",
        "../1",
        "1/2",
        "1/../2",
        "%2e%2e",
        "%252f",
        "1;2",
        "1?x=1",
        "1#",
        "1&id:in=2",
        "1,2",
        "1:2",
        "0",
        "00",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "18446744073709551616",
        "null",
        "undefined",
        "NaN",
        "é",
        "\u{ff0e}\u{ff0e}",
        "1\n",
        "\0",
        "{product_id}",
        "*",
    ];
    let values = [
        json!(0),
        json!(-1),
        json!(1.0),
        json!(1.5),
        json!(1e30),
        json!(null),
        json!(true),
        json!([1]),
        json!([]),
        json!({}),
        json!({"id": 1}),
    ];
    texts.iter().map(|text| json!(text)).chain(values).chain([json!("9".repeat(129))]).collect()
}

#[test]
fn no_nasty_id_is_sent_by_any_action() {
    let catalog = &CATALOG;
    let mut tried = 0;
    for entity in catalog.entities() {
        for action in &entity.action {
            let needed = decode::needed_ids(entity, action);
            for name in &needed {
                for id in nasty_ids() {
                    let mut path: serde_json::Map<String, Value> =
                        needed.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
                    path.insert((*name).to_owned(), id.clone());
                    let mut value = json!({"entity": entity.name, "action": action.name, "path": path});
                    if let Some(payload) = payload_for(entity, action) {
                        value["payload"] = payload;
                    }
                    check(command(1, &value), "bad_id");
                    tried += 1;
                    // With a good id the same command is taken: it was the id that was refused.
                    value["path"][*name] = json!(1);
                    let mut bench = Bench::new(silent());
                    bench.accept(command(1, &value));
                    assert!(bench.settled.is_empty(), "{value} was refused: {}", result(&bench.settled[0]));
                }
            }
        }
    }
    assert!(tried >= 28 * 6, "{tried}");
}

#[test]
fn no_request_of_any_action_deletes_a_collection() {
    let catalog = &CATALOG;
    for entity in catalog.entities() {
        for action in &entity.action {
            let path: serde_json::Map<String, Value> = decode::needed_ids(entity, action)
                .iter()
                .map(|name| ((*name).to_owned(), json!(41)))
                .collect();
            let mut value = json!({"entity": entity.name, "action": action.name, "path": path});
            if let Some(payload) = payload_for(entity, action) {
                value["payload"] = payload;
            }
            let mut bench = Bench::new(FakeStore::new(|request, _| {
                if request.method.as_str() == "GET" { nothing() } else { done("") }
            }));
            assert_eq!(bench.apply(&value)["outcome"], "applied", "{value}");
            for line in bench.store.sent().iter().filter(|line| line.starts_with("DELETE")) {
                let (path, query) = line.split_once('?').unwrap_or((line, ""));
                let by_query = !query.is_empty() && query.split('&').all(|filter| filter.ends_with("=41"));
                let only_one = action.only_one && path.contains("/41/");
                assert!(path.ends_with("/41") || by_query || only_one, "{line}");
            }
        }
    }
}

#[test]
fn a_customer_is_deleted_by_an_id_that_the_store_can_read() {
    let delete = |id: &str| {
        command(1, &json!({"entity": "customer", "action": "delete", "path": {"customer_id": id}}))
    };
    check(delete("abc"), "bad_id");
    let mut bench = Bench::new(FakeStore::scripted(vec![done("")]));
    bench.accept(delete("17"));
    bench.run();
    assert_eq!(bench.store.sent(), ["DELETE /v3/customers?id:in=17"]);
}

#[test]
fn an_id_that_goes_into_the_filter_of_a_delete_is_one_that_the_store_can_read() {
    // A filter of another kind; and a path which becomes a filter when deletes share a request.
    for (entity, id) in [("price_list_assignment", "assignment_id"), ("product", "product_id")] {
        check(command(1, &json!({"entity": entity, "action": "delete", "path": {id: "abc"}})), "bad_id");
    }
}

#[test]
fn poison_does_not_wait_for_its_key() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    bench.accept(command(1, &update()));
    bench.accept(record(2, Some("k"), Some(b"poison")));
    assert_eq!(bench.settled[0].positions[0].offset, 2);
    bench.run();
    assert_eq!(bench.settled[1].positions[0].offset, 1);
}

#[test]
fn a_number_is_as_good_an_id_as_its_digits() {
    let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
    let mut value = update();
    value["id"] = json!(5);
    assert_eq!(bench.apply(&value)["id"], "5");
    value["path"] = json!({});
    assert_eq!(bench.apply(&value)["id"], "5", "a refusal names it as well");
    for wrong in [json!(-5), json!(1.5), json!(true), json!(["c"]), json!("")] {
        value["id"] = wrong;
        check(command(1, &value), "bad_field");
    }
}

#[test]
fn a_refusal_of_an_unknown_field_still_tells_which_command_it_was() {
    let value =
        json!({"id": "c-16", "entity": "product", "action": "update", "path": {"product_id": 5}, "extra": 1});
    let mut bench = Bench::new(silent());
    bench.accept(command(1, &value));
    let got = result(&bench.settled[0]);
    assert_eq!(
        (&got["id"], &got["entity"], &got["action"]),
        (&json!("c-16"), &json!("product"), &json!("update"))
    );
    assert_eq!(got["reason"], "bad_field");
}

#[test]
fn a_topic_for_an_alias_takes_records_that_give_the_name() {
    let store = FakeStore::scripted(vec![done("{\"id\":8}")]);
    let fixed = Fixed { entity: "shipment".into(), action: "create".into() };
    let mut bench = Bench::new(store.clone());
    bench.path = outgoing(vec![Route { fixed: Some(fixed), ..route(&store) }], &bench.log);
    let value = json!({"entity": "order_shipment", "path": {"order_id": 251}, "payload": {}});
    assert_eq!(bench.apply(&value)["resource_id"], "251:8");
}

#[test]
fn a_huge_name_does_not_make_a_huge_result() {
    let huge = "x".repeat(1_000_000);
    for value in [
        json!({"entity": "product", "action": "update", huge.clone(): 1}),
        json!({"entity": huge, "action": "update"}),
        json!({"entity": "product", "action": huge}),
        json!({"entity": "product", "action": "update", "path": {huge.clone(): 1}}),
    ] {
        let mut bench = Bench::new(silent());
        bench.accept(command(1, &value));
        let answer = of_topic(&bench.settled[0], RESULTS)[0];
        assert!(answer.value.as_ref().unwrap().len() < 8 * 1024);
    }
}
