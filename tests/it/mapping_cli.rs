//! `bcbridge test` and `bcbridge send`: exit codes and what is printed. For `send`, somebody answers as a bridge would.

use std::process::{Output, Stdio};

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::kafka::tail::Tail;
use bcbridge::kafka::topics::TopicSpec;
use bcbridge::model::record::OutRecord;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bridge_lab::{Lab as Bridge, Setup};
use crate::broker_lab::{Lab, unique};
use crate::kafka_support::PATIENCE;
use crate::schemas::assert_valid;

fn bcbridge(directory: &tempfile::TempDir, settings: &Value, args: &[&str]) -> Command {
    let file = directory.path().join("bcbridge.yaml");
    std::fs::write(&file, settings.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcbridge"));
    command.args(args).arg("--config").arg(file).env("RUST_LOG", "error");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn ended(mut call: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, call.output()).await.expect("it ends").unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn settings(servers: &str, prefix: &str) -> Value {
    json!({
        "kafka": { "bootstrap_servers": servers, "prefix": prefix, "topics": { "replication_factor": 1 } },
        "stores": [{ "name": "main", "store_hash": "abc123", "access_token": "not-used", "client_secrets": ["not-used"] }],
    })
}

fn with_tests(tests: Value) -> Value {
    let mut settings = settings("embedded", "p");
    settings["outgoing"] = json!([{
        "topic": "erp.prices", "store": "main", "entity": "product", "action": "update",
        "filter": ".net != null",
        "transform": "{id: $headers.id, path: {product_id: $key}, payload: {price: .net, at: ($timestamp / 1000 | todate)}}",
        "tests": tests,
    }]);
    settings["incoming"] = json!([{ "entity": "product", "filter": ".is_visible", "transform": "{id, name}",
        "tests": [{ "name": "two fields", "in": { "id": 1, "name": "a", "sku": "s", "is_visible": true }, "out": { "id": 1, "name": "a" } },
                  { "name": "hidden", "in": { "id": 1, "is_visible": false }, "filtered": true }] }]);
    settings
}

fn price(out: Value) -> Value {
    json!({ "name": "a price", "key": 77, "headers": { "id": "e-1" }, "timestamp": "2026-01-01T00:00:00Z",
        "in": { "net": 9.5 }, "out": out })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tests_of_the_settings_are_run_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let right = json!({ "id": "e-1", "path": { "product_id": 77 }, "payload": { "price": 9.5, "at": "2026-01-01T00:00:00Z" } });
    let good = with_tests(json!([
        price(right.clone()),
        { "name": "no price", "in": {}, "filtered": true },
        { "name": "no product", "headers": { "id": "e-1" }, "timestamp": 0, "in": { "net": 1 }, "error": "bad_id" },
        { "name": "no time", "key": 1, "in": { "net": 1 }, "error": "the transform failed" },
    ]));
    let (code, out, err) = ended(bcbridge(&directory, &good, &["test"])).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}{err}");
    assert!(out.contains("ok    erp.prices  a price  (outgoing[0].tests[0])"), "{out}");
    assert!(out.ends_with("6 passed, 0 failed\n"), "{out}");
    let (code, out, _) = ended(bcbridge(&directory, &good, &["test", "--output", "json"])).await;
    let ran: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(ran[0]["request"]["path"], "/v3/catalog/products/77");
    assert!(ran.iter().all(|test| test["passed"] == true), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_test_tells_each_difference_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = json!({ "id": "e-1", "path": { "product_id": 78 }, "payload": { "price": 9.5 } });
    let mut bad = with_tests(json!([
        price(wrong),
        { "name": "empty id", "key": "", "headers": { "id": "e-1" }, "timestamp": 0, "in": { "net": 1 },
          "out": { "id": "e-1", "path": { "product_id": "" }, "payload": { "price": 1, "at": "1970-01-01T00:00:00Z" } } },
        { "name": "left out", "in": { "net": 1 }, "filtered": true },
    ]));
    let (code, out, _) = ended(bcbridge(&directory, &bad, &["test"])).await;
    assert_eq!(code, 1, "{out}");
    for line in [
        "FAIL  erp.prices  a price",
        "      .path.product_id: expected 78, found 77",
        "      .payload.at: expected nothing, found \"2026-01-01T00:00:00Z\"",
        // What was made is as expected, and no command.
        "      refused: bad_id: path has a bad \"product_id\"",
        "2 passed, 3 failed",
    ] {
        assert!(out.contains(line), "{line} is not in\n{out}");
    }
    bad["outgoing"][0]["transform"] = json!("{path: {product_id: $ky}}");
    let (code, _, err) = ended(bcbridge(&directory, &bad, &["test"])).await;
    assert_eq!(code, 64);
    assert!(err.contains("undefined variable $ky (line 1, column 21"), "{err}");
}

/// What a bridge would answer.
fn answer(id: &str, outcome: &str) -> Value {
    let mut result = json!({ "id": id, "entity": "product", "action": "update", "outcome": outcome, "status": 200,
        "resource_id": "77", "body": null, "request_id": null, "attempts": 1, "class": "A" });
    match outcome {
        "applied" | "partial" => {}
        "dry_run" => {
            result["attempts"] = json!(0);
            result["status"] = Value::Null;
            result["request"] =
                json!({ "method": "PUT", "path": "/v3/catalog/products/77", "body": { "name": "New" } });
        }
        _ => {
            result["reason"] = json!("stale");
            result["detail"] = json!("it is newer");
        }
    }
    assert_valid("result", &result);
    result
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_waits_and_its_exit_code_tells_the_outcome() {
    let lab = Lab::embedded().await;
    let prefix = unique("p");
    let name = |what: &str| format!("{prefix}.main.{what}");
    let spec = |name| TopicSpec { name, partitions: 1, replication_factor: 1, config: Vec::new() };
    lab.topics.ensure(&[spec(name("commands")), spec(name("results"))]).await.unwrap();
    let producer = IntakeProducer::new(lab.client.clone(), PATIENCE).unwrap();
    let mut commands = Tail::from_start(&lab.client, vec![name("commands")]).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let payload = directory.path().join("payload.json");
    std::fs::write(&payload, r#"{"name":"New"}"#).unwrap();
    let settings = settings(&lab.servers(), &prefix);
    let base = ["send", "main", "update", "product", "--id", "77", "--payload", payload.to_str().unwrap()];
    let guarded = ["--if-unmodified-since", "2026-01-31T08:00:00Z", "--expected-version", "v", "--wait"];
    for (outcome, code, says) in [
        ("applied", 0, "applied  status 200  resource 77  attempts 1"),
        ("dry_run", 0, "would send {"),
        ("rejected", 1, "stale: it is newer"),
        ("partial", 1, "partial"),
        ("unknown", 1, "unknown"),
        ("dead", 1, "dead"),
    ] {
        let call = bcbridge(&directory, &settings, &[&base[..], &guarded[..]].concat());
        let answering = async {
            let record = tokio::time::timeout(PATIENCE, commands.next()).await.expect("a command").unwrap();
            let command: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            assert_valid("command", &command);
            assert_eq!(
                (&command["if_unmodified_since"], &command["expected_version"]),
                (&json!("2026-01-31T08:00:00Z"), &json!("v"))
            );
            for id in ["somebody-else", command["id"].as_str().unwrap()] {
                let value = answer(id, if id == "somebody-else" { "applied" } else { outcome });
                let record = OutRecord {
                    topic: name("results").into(),
                    partition: None,
                    key: None,
                    value: Some(value.to_string().into()),
                    headers: Vec::new(),
                    timestamp_ms: None,
                };
                producer.append(vec![record], PATIENCE).await.unwrap();
            }
        };
        let ((got, out, err), ()) = tokio::join!(ended(call), answering);
        assert_eq!(got, code, "{outcome}: {out}{err}");
        assert!(out.contains(says), "{outcome}: {out}");
    }
    let nobody = [&base[..], &["--wait", "--timeout", "2s"]].concat();
    let (code, _, err) = ended(bcbridge(&directory, &settings, &nobody)).await;
    assert_eq!(code, 1);
    assert!(err.contains("within 2 s; is the bridge running?") && err.contains("stays on"), "{err}");
}

/// The same against a bridge, so that both ends agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_changes_a_store_and_is_told_when_it_may_not() {
    let bridge =
        Bridge::start(Setup { incoming: vec![json!({ "entity": "category" })], ..Setup::default() }).await;
    let directory = tempfile::tempdir().unwrap();
    let payload = directory.path().join("payload.json");
    std::fs::write(&payload, r#"{"name":"Sent"}"#).unwrap();
    let settings = settings(bridge.client.bootstrap_servers(), &bridge.prefix);
    let send = |version: String| {
        let args = ["send", "main", "update", "product", "--id", "7", "--payload", payload.to_str().unwrap()];
        let guard = ["--expected-version", &version, "--wait", "--output", "json"];
        bcbridge(&directory, &settings, &[&args[..], &guard[..]].concat())
    };
    let version = bridge.control.state("product").unwrap()["7"]["date_modified"].as_str().unwrap().to_owned();
    for (code, outcome) in [(0, "applied"), (1, "rejected")] {
        let (got, out, err) = ended(send(version.clone())).await;
        assert_eq!(got, code, "{out}{err}");
        let result: Value = serde_json::from_str(&out).unwrap();
        assert_valid("result", &result);
        assert_eq!(result["outcome"], outcome);
    }
    assert_eq!(bridge.control.state("product").unwrap()["7"]["name"], "Sent");
    bridge.stop().await;
}
