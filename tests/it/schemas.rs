//! The wire contracts: they compile, their examples keep them, and what is wrong is refused.

use bcbridge::cli::schema::{SCHEMAS, export};
use bcbridge::model::signal::Signal;
use serde_json::{Value, json};

fn schema(name: &str) -> Value {
    let file = format!("{name}.schema.json");
    let (_, text) =
        SCHEMAS.iter().find(|(known, _)| *known == file).unwrap_or_else(|| panic!("no schema {name}"));
    serde_json::from_str(text).unwrap()
}

fn validator(name: &str) -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails the test unless `value` keeps the contract called `name` (`command`, `result`, `event-headers`,
/// `dead-letter-headers`, `intake-headers`, `config`, `signal`, `notification`).
#[track_caller]
pub(crate) fn assert_valid(name: &str, value: &Value) {
    let errors: Vec<String> = validator(name)
        .iter_errors(value)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{value} breaks {name}: {}", errors.join("; "));
}

#[track_caller]
fn assert_refused(name: &str, value: &Value) {
    assert!(!validator(name).is_valid(value), "{name} takes {value}");
}

const NAMES: [&str; 8] = [
    "command",
    "result",
    "event-headers",
    "dead-letter-headers",
    "intake-headers",
    "config",
    "signal",
    "notification",
];

#[test]
fn every_schema_compiles_and_its_examples_keep_it() {
    for name in NAMES {
        let schema = schema(name);
        assert!(jsonschema::meta::is_valid(&schema), "{name} is no schema");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let examples = schema["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name} has no example");
        examples.iter().for_each(|example| assert_valid(name, example));
    }
}

/// `schema`'s first example with one field set, or removed where the value is `Null` and `drop` says so.
fn changed(name: &str, field: &str, value: Option<Value>) -> Value {
    let mut example = schema(name)["examples"][0].clone();
    match value {
        Some(value) => example[field] = value,
        None => {
            example.as_object_mut().unwrap().remove(field);
        }
    }
    example
}

#[test]
fn wrong_commands_are_refused() {
    for (field, value) in [
        ("entity", None),
        ("action", None),
        ("entity", Some(json!(""))),
        ("id", Some(json!(-1))),
        ("id", Some(json!(1.5))),
        ("path", Some(json!({"product_id": ""}))),
        ("path", Some(json!({"product_id": null}))),
        ("path", Some(json!({"product_id": [1]}))),
        ("payload", Some(json!("text"))),
        ("pahtload", Some(json!({}))),
    ] {
        assert_refused("command", &changed("command", field, value));
    }
    assert_refused("command", &json!([]));
}

#[test]
fn wrong_results_are_refused() {
    for (field, value) in [
        ("outcome", Some(json!("done"))),
        ("attempts", Some(json!(0))),
        ("attempts", Some(json!(-1))),
        ("class", Some(json!("D"))),
        ("status", Some(json!("200"))),
        ("outcome", None),
        ("extra", Some(json!(1))),
    ] {
        assert_refused("result", &changed("result", field, value));
    }
}

#[test]
fn the_schema_of_signals_refuses_what_the_bridge_refuses() {
    for (value, taken) in [
        (json!({"id": "a", "type": "snapshot.start", "store": "main"}), true),
        (json!({"id": "a", "type": "snapshot.status", "store": "main", "snapshot": "b"}), true),
        (json!({"id": "a", "type": "sync", "store": "main", "entity": "product", "ids": [77]}), true),
        (json!({"id": "a", "type": "snapshot.start"}), false),
        (json!({"id": "a", "type": "snapshot.pause"}), false),
        (json!({"id": "a", "type": "snapshot.pause", "store": "main", "entities": []}), false),
        (json!({"id": "a", "type": "sweep.start", "store": "main", "snapshot": "b"}), false),
        (json!({"id": "a", "type": "sync", "store": "main", "entity": "product", "ids": []}), false),
        (json!({"id": "a", "type": "sync", "store": "main", "entity": "product", "ids": ["a/b"]}), false),
        (json!({"id": "a", "type": "sync", "store": "main", "ids": [1]}), false),
        (json!({"id": "", "type": "snapshot.start", "store": "main"}), false),
        (json!({"id": "a", "type": "snapshot.begin", "store": "main"}), false),
        (json!({"id": "a", "type": "snapshot.start", "store": "main", "more": 1}), false),
    ] {
        assert_eq!(validator("signal").is_valid(&value), taken, "{value}");
        assert_eq!(Signal::parse(value.to_string().as_bytes()).is_ok(), taken, "{value}");
    }
}

#[test]
fn notifications_are_written_as_their_schema_says() {
    use bcbridge::model::signal::{Kind, Notification};
    let at: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    for kind in [Kind::Accepted, Kind::Rejected, Kind::SnapshotProgress, Kind::SweepDone, Kind::SyncFailed] {
        let bare = Notification::new("a-1", kind, None, at);
        assert_valid("notification", &serde_json::to_value(&bare).unwrap());
        let full =
            Notification { total: Some(9), entity: Some("product".into()), started_at: Some(at), ..bare };
        assert_valid("notification", &serde_json::to_value(&full).unwrap());
    }
}

#[test]
fn wrong_headers_are_refused() {
    for (name, field, value) in [
        ("event-headers", "ce_specversion", Some(json!("0.3"))),
        ("event-headers", "ce_source", Some(json!("abc123"))),
        ("event-headers", "ce_subject", Some(json!("order"))),
        ("event-headers", "bc_op", Some(json!("update"))),
        ("event-headers", "bc_origin", Some(json!("bridge:"))),
        ("event-headers", "traceparent", Some(json!("00-1-2-3"))),
        ("event-headers", "ce_time", Some(json!("yesterday"))),
        ("event-headers", "bc_events_count", Some(json!(2))),
        ("event-headers", "ce_id", None),
        ("dead-letter-headers", "bc_dlq_reason", None),
        ("dead-letter-headers", "bc_dlq_reason", Some(json!("Not A Name"))),
        ("dead-letter-headers", "__connect.errors.topic", None),
        ("intake-headers", "bc_op", Some(json!("guess"))),
        ("intake-headers", "bc_received_at", None),
    ] {
        assert_refused(name, &changed(name, field, value));
    }
}

#[test]
fn hints_are_written_as_their_schema_says_whatever_made_them() {
    use bcbridge::model::hint::{Cause, Hint, Op, Trigger};
    use bcbridge::model::ids::EntityKey;
    let headers = |hint: &Hint| -> Value {
        let texts = hint.headers().into_iter();
        Value::Object(texts.map(|(name, value)| (name.into(), text_of(&value).into())).collect())
    };
    let key = EntityKey::parse("product/77").unwrap();
    for cause in [Cause::Poll, Cause::Snapshot, Cause::Sweep, Cause::Sync, Cause::Recheck, Cause::Callback] {
        let scope = cause.scope().unwrap_or("store/product/updated").to_owned();
        let op = if cause == Cause::Callback { Op::Update } else { Op::Read };
        let bare = Hint {
            trigger: Trigger { key: key.clone(), op, scope, row: None },
            event: "e-1".to_owned(),
            created_at: None,
            received_ms: 1_767_607_200_123,
            traceparent: None,
            carried_ms: None,
        };
        assert_valid("intake-headers", &headers(&bare));
        let carried = Hint { carried_ms: Some(1_767_607_199_876), ..bare };
        match cause {
            // A callback tells of something and holds nothing.
            Cause::Callback => assert_refused("intake-headers", &headers(&carried)),
            _ => assert_valid("intake-headers", &headers(&carried)),
        }
    }
    let unknown = json!({
        "bc_event": "e-1", "bc_scope": "bridge/guess", "bc_op": "r", "bc_received_at": "1767607200123",
    });
    assert_refused("intake-headers", &unknown);
}

fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_topic_of_a_store_stands_in_the_topics_document() {
    use bcbridge::app::topics;
    let text = r#"{
        "stores": [{ "name": "main", "store_hash": "abc123", "access_token": "t", "client_secrets": ["s"] }],
        "incoming": [{ "entity": "product" }]
    }"#;
    let catalog = bcbridge::catalog::Catalog::embedded().unwrap();
    let settings = bcbridge::config::load_str("it", text, &|_| None, &catalog).unwrap();
    let mut wanted: Vec<String> = topics::specs(&settings).into_iter().map(|spec| spec.name).collect();
    let (_, text) = SCHEMAS.iter().find(|(name, _)| *name == "asyncapi.json").unwrap();
    let document: Value = serde_json::from_str(text).unwrap();
    let address = |channel: &Value| {
        let address = channel["address"].as_str().unwrap().replace("{prefix}", "bigcommerce");
        address.replace("{store}", "main").replace("{entity}", "product")
    };
    let mut found: Vec<String> = document["channels"].as_object().unwrap().values().map(address).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn wrong_settings_are_refused() {
    for (field, value) in [
        ("stores", None),
        ("stores", Some(json!([]))),
        ("stores", Some(json!([{"access_token": "x"}]))),
        ("kafak", Some(json!({}))),
        ("incoming", Some(json!([{"entity": "order", "quiet": "soon"}]))),
        ("outgoing", Some(json!([{"topic": "t", "on_failure": "retry"}]))),
    ] {
        assert_refused("config", &changed("config", field, value));
    }
}

#[test]
fn the_settings_schema_on_disk_is_the_one_generated() {
    let generated = format!("{}\n", serde_json::to_string_pretty(&bcbridge::config::schema()).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/config.schema.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let on_disk = std::fs::read_to_string(path).unwrap();
    assert_eq!(on_disk, generated, "run this test with BLESS=1 to write the file again");
}

#[test]
fn exported_schemas_are_the_files_of_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    let written = export(&dir.path().join("new")).unwrap();
    assert_eq!(written.len(), SCHEMAS.len());
    let source = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas"));
    assert_eq!(std::fs::read_dir(source).unwrap().count(), SCHEMAS.len(), "a schema is not embedded");
    for path in written {
        let original = source.join(path.file_name().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&original).unwrap());
    }
}

#[test]
fn the_topics_document_refers_to_what_exists() {
    let (_, text) = SCHEMAS.iter().find(|(name, _)| *name == "asyncapi.json").unwrap();
    let document: Value = serde_json::from_str(text).unwrap();
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| match value {
                Value::String(text) if key == "$ref" => out.push(text.clone()),
                other => references(other, out),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, out)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        match reference.strip_prefix('#') {
            Some(pointer) => assert!(document.pointer(pointer).is_some(), "{reference}"),
            None => assert!(SCHEMAS.iter().any(|(name, _)| reference == format!("./{name}")), "{reference}"),
        }
    }
}
