//! Topics of the user's own: what their expressions see and make, what is refused, and what a dry run tells.

use super::*;
use crate::transform::{Mapping as Jq, RECORD_VARIABLES};

fn jq(text: &str) -> Jq {
    Jq::compile_with(text, &RECORD_VARIABLES).unwrap()
}

fn made(text: &str) -> Mapping {
    Mapping { filter: None, to: To::Object(jq(text)) }
}

fn only(text: &str) -> Mapping {
    Mapping { filter: Some(jq(text)), to: To::AsIs }
}

/// Refuses to be used.
fn silent() -> Arc<FakeStore> {
    FakeStore::scripted(Vec::new())
}

fn for_product(action: &str, mapping: Mapping) -> Route<FakeStore> {
    let fixed = Fixed { entity: "product".into(), action: action.into() };
    Route { fixed: Some(fixed), mapping, ..route(&silent()) }
}

/// What a route makes of one record, which it settles at once.
fn settled_by(route: Route<FakeStore>, record: InRecord) -> Settled {
    let mut bench = Bench::new(silent());
    bench.path = outgoing(vec![route], &bench.log);
    bench.accept(record);
    assert_eq!(bench.settled.len(), 1, "it is settled at once");
    bench.settled.remove(0)
}

/// What a route sends for one record.
fn sent_by(route: Route<FakeStore>, record: InRecord) -> Vec<String> {
    let store = FakeStore::scripted(vec![done("{}")]);
    let mut bench = Bench::new(store.clone());
    bench.path = outgoing(vec![Route { client: store.clone(), ..route }], &bench.log);
    bench.accept(record);
    bench.run();
    assert_eq!(result(&bench.settled[0])["outcome"], "applied");
    store.sent()
}

#[test]
fn one_expression_makes_the_command_of_value_key_headers_and_time() {
    let text = r#"{id: "\($topic)-\($offset)", path: {product_id: $key}, query: {include_fields: $headers.fields},
        payload: {name: .title, description: ($timestamp / 1000 | todate)}}"#;
    let record = InRecord {
        timestamp_ms: Some(1_767_225_600_000),
        headers: vec![("fields".into(), Bytes::from_static(b"name"))],
        ..record(5, Some("77"), Some(br#"{"title":"New"}"#))
    };
    assert_eq!(
        sent_by(for_product("update", made(text)), record),
        [
            r#"PUT /v3/catalog/products/77?include_fields=name {"name":"New","description":"2026-01-01T00:00:00Z"}"#
        ]
    );
}

#[test]
fn expressions_of_single_parts_make_a_request_and_null_leaves_a_part_out() {
    let parts = vec![("path", jq("{product_id: .id}")), ("query", jq(".query")), ("payload", jq("{name}"))];
    let mapping = Mapping { filter: None, to: To::Parts(parts) };
    let value = br#"{"id":7,"name":"N","more":1}"#;
    assert_eq!(
        sent_by(for_product("update", mapping), record(1, None, Some(value))),
        [r#"PUT /v3/catalog/products/7 {"name":"N"}"#]
    );
}

#[test]
fn a_tombstone_is_null_to_the_expressions() {
    let store = FakeStore::scripted(vec![done("")]);
    let mut bench = Bench::new(store.clone());
    let mapping = Mapping { filter: Some(jq(". == null")), to: To::Object(jq("{path: {product_id: $key}}")) };
    let route = Route { client: store.clone(), ..for_product("delete", mapping) };
    bench.path = outgoing(vec![route], &bench.log);
    bench.accept(record(1, Some("9"), None));
    bench.run();
    assert_eq!(store.sent(), ["DELETE /v3/catalog/products/9"]);
    let settled = settled_by(for_product("update", Mapping::default()), record(1, Some("9"), None));
    assert_eq!(result(&settled)["reason"], "bad_json");
}

#[test]
fn what_the_filter_leaves_out_is_settled_without_a_result() {
    let left_out = Route { mapping: only(".wanted"), ..route(&silent()) };
    assert!(settled_by(left_out, command(1, &update())).records.is_empty());
    let empty = Route { mapping: only("empty"), ..route(&silent()) };
    assert!(settled_by(empty, command(1, &update())).records.is_empty(), "as jq's select");
    let failing = Route { mapping: only("error(\"no\")"), ..route(&silent()) };
    assert_eq!(result(&settled_by(failing, command(1, &update())))["reason"], "transform_failed");
    let passing = Route { mapping: only(".entity == \"product\""), ..route(&silent()) };
    assert_eq!(sent_by(passing, command(1, &update())).len(), 1);
}

#[test]
fn an_expression_that_makes_no_command_is_a_dead_letter_that_says_why() {
    for (text, reason, detail) in [
        ("error(\"it failed\")", "transform_failed", "the transform failed: \"it failed\""),
        ("empty", "transform_failed", "the transform failed: mapping has no output"),
        ("null", "transform_failed", "the transform made null, and not an object"),
        ("[.]", "transform_failed", "the transform made an array"),
        ("{entity: \"order\"}", "bad_field", "entity is \"order\", and this topic is for \"product\" only"),
        ("{path: {}}", "bad_id", "path has no \"product_id\""),
        ("{path: {product_id: \"\"}}", "bad_id", "it is empty"),
        ("{path: {product_id: 1}, payload: .nothing}", "bad_payload", "needs a payload"),
        ("{path: {product_id: 1, x: 2}}", "bad_field", "path has \"x\""),
        ("{path: {product_id: 1}, pay: 1}", "bad_field", "unknown field `pay`"),
    ] {
        let settled = settled_by(for_product("update", made(text)), record(1, Some("k"), Some(b"{}")));
        let got = result(&settled);
        assert_eq!((&got["outcome"], &got["reason"]), (&json!("rejected"), &json!(reason)), "{text}: {got}");
        assert!(got["detail"].as_str().unwrap().contains(detail), "{text}: {got}");
        let letter = of_topic(&settled, DLQ)[0];
        assert_eq!(header_of(letter, "__connect.errors.stage").unwrap(), "TRANSFORMATION");
        assert_eq!(letter.value.as_deref(), Some(&b"{}"[..]));
    }
}

/// Not even a filter that takes nothing, or a transform that ignores its input, hides a record that is not JSON.
#[test]
fn what_is_not_json_is_a_dead_letter_that_says_what_it_looks_like_on_every_route() {
    let values: [(&[u8], &str); 8] = [
        (b"\0\0\0\0\x07\x02a", "Avro in Confluent wire format (magic byte 0, schema id 7)"),
        (b"\0\0\0\x01\x00{\"a\":1}", "JSON in Confluent wire format (magic byte 0, schema id 256)"),
        (b"sku-1;5", "the value is not JSON: expected value at line 1 column 1"),
        (b"{\"a\":", "the value is not JSON: EOF"),
        (b"{\"a\":\"\xff\"}", "it is not UTF-8 from byte 6 on"),
        (b"\x1f\x8b\x08\x00", "it looks like gzip"),
        (b"", "the value is empty"),
        (b" \n", "the value is empty"),
    ];
    for (value, says) in values {
        for mapping in [Mapping::default(), only("false"), made("{path: {product_id: 1}, payload: {}}")] {
            let settled = settled_by(for_product("update", mapping), record(1, Some("k"), Some(value)));
            let got = result(&settled);
            assert_eq!((&got["outcome"], &got["reason"]), (&json!("rejected"), &json!("bad_json")), "{got}");
            assert!(got["detail"].as_str().unwrap().contains(says), "{says}: {got}");
            let letter = of_topic(&settled, DLQ)[0];
            assert_eq!(header_of(letter, "__connect.errors.stage").unwrap(), "VALUE_CONVERTER");
            assert_eq!(letter.value.as_deref(), Some(value), "byte for byte");
        }
    }
}

/// The result of one command on a route that sends nothing; no record but the result is made.
fn dry(value: &Value) -> Value {
    let settled = settled_by(Route { dry_run: true, ..route(&silent()) }, command(1, value));
    let got = result(&settled);
    if got["outcome"] == "dry_run" {
        assert_eq!(settled.records.len(), 1, "no entry of the ledger and no dead letter");
        assert_eq!(header_of(&settled.records[0], "bc_outcome").unwrap(), "dry_run");
        assert_eq!((&got["attempts"], &got["status"]), (&json!(0), &json!(null)));
    }
    got
}

#[test]
fn a_dry_run_tells_the_request_and_refuses_what_is_wrong() {
    let got = dry(&update());
    assert_eq!(got["class"], "A");
    assert_eq!(
        got["request"],
        json!({"method": "PUT", "path": "/v3/catalog/products/77", "body": {"name": "New"},
            "batch": {"method": "PUT", "path": "/v3/catalog/products", "max": 10}})
    );
    let wrong = json!({"entity": "product", "action": "delete", "path": {"product_id": ""}});
    assert_eq!((&dry(&wrong)["outcome"], &dry(&wrong)["reason"]), (&json!("rejected"), &json!("bad_id")));
}

#[test]
fn a_dry_run_of_an_upsert_tells_its_probe_and_both_writes() {
    let value = json!({"entity": "customer", "action": "upsert", "payload": {"email": "ada@example.com", "first_name": "Ada"}});
    let request = &dry(&value)["request"];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["body"], json!([{"email": "ada@example.com", "first_name": "Ada"}]));
    assert_eq!(
        (&request["probe"]["method"], &request["probe"]["path"]),
        (&json!("GET"), &json!("/v3/customers"))
    );
    assert_eq!(request["probe"]["query"]["email:in"], "ada@example.com");
    assert_eq!(request["update"]["method"], "PUT");
    assert_eq!(
        request["update"]["body"],
        json!([{"id": "{customer_id}", "email": "ada@example.com", "first_name": "Ada"}])
    );
    let value = json!({"entity": "product", "action": "upsert", "payload": {"sku": "S", "name": "N"}});
    assert_eq!(dry(&value)["request"]["update"]["path"], "/v3/catalog/products/{product_id}");
}

#[test]
fn a_dry_run_tells_the_request_of_many_that_a_command_could_join_and_the_read_of_a_guard() {
    let value = json!({"entity": "product", "action": "update", "path": {"product_id": 7}, "payload": {},
        "expected_version": "2026-01-01T00:00:00Z"});
    let request = &dry(&value)["request"];
    assert_eq!(request["guard"], json!({"method": "GET", "path": "/v3/catalog/products/7"}));
    assert_eq!(request.get("batch"), None, "a guarded command is written alone");
    let catalog = Catalog::embedded().unwrap();
    let batch = catalog.entity("customer").and_then(|row| row.action("update")?.batch.clone());
    let value = json!({"entity": "customer", "action": "update", "path": {"customer_id": 7}, "payload": {}});
    let joined = batch.map(|batch| json!({"method": "PUT", "path": "/v3/customers", "max": batch.max}));
    assert_eq!(dry(&value)["request"].get("batch"), joined.as_ref());
}

#[test]
fn a_command_whose_dry_run_went_before_is_applied() {
    let store = FakeStore::scripted(vec![done("{\"data\":{\"id\":77}}")]);
    let mut bench = Bench::new(store.clone());
    let dry_topic: Arc<str> = "dry".into();
    let dry = Route { topic: dry_topic.clone(), dry_run: true, ..route(&store) };
    bench.path = outgoing(vec![dry, route(&store)], &bench.log);
    let mut first = command(1, &update());
    first.position.partition.topic = dry_topic;
    bench.accept(first.clone());
    assert_eq!(result(&bench.settled[0])["outcome"], "dry_run");
    assert_eq!(bench.apply(&update())["outcome"], "applied");
    bench.accept(first);
    let again = result(&bench.settled[2]);
    assert_eq!(again["outcome"], "dry_run");
    assert!(again["detail"].as_str().unwrap().contains("an earlier command has this id"), "{again}");
    assert_eq!(store.sent().len(), 1);
}
