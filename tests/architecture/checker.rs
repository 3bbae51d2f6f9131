//! The checker must be able to fail, and must not fail on what is right.

use super::source::betrayals;
use super::{betrayed, check, size};

#[track_caller]
fn bad(name: &str, text: &str, expected: &str) {
    let faults = check(name, text);
    assert!(faults.iter().any(|fault| fault.contains(expected)), "`{expected}` is not among {faults:?}");
}

#[track_caller]
fn good(name: &str, text: &str) {
    assert_eq!(check(name, text), Vec::<String>::new());
}

#[test]
fn it_finds_what_a_pure_file_must_not_name_with_file_line_and_reason() {
    let expected = "src/engine/budget.rs:2: a pure file names Instant::now (the time is an argument)";
    bad("src/engine/budget.rs", "fn f() {\n    let t = std::time::Instant::now();\n}", expected);
    bad("src/model/id.rs", "use tokio::sync::Mutex;", "names tokio");
    bad("src/catalog/row.rs", "let x: u8 = rand::random();", "names rand");
    bad("src/receiver/verify.rs", "use std::time::SystemTime;", "names SystemTime");
    good(
        "src/engine/budget.rs",
        "use std::time::{Duration, Instant};\nfn f(now: Instant, brand: u8, rand: f64) {}",
    );
    good("src/receiver/server.rs", "let t = tokio::time::Instant::now();");
}

#[test]
fn it_finds_a_library_outside_of_its_owner() {
    bad("src/incoming/publish.rs", "use rdkafka::producer::FutureProducer;", "incoming names rdkafka");
    bad("src/sandbox/orders.rs", "let client = reqwest::Client::new();", "sandbox names reqwest");
    bad("src/app.rs", "use axum::Router;", "app names axum");
    bad("src/app.rs", "use hyper_util::rt::TokioIo;", "app names hyper");
    bad("src/kafka/mod.rs", "//! A. B. \nuse axum::Router;", "kafka names axum");
    good("src/kafka/mod.rs", "//! A. B. \nuse rdkafka::ClientConfig;");
    good("src/sandbox/deliver.rs", "let client = reqwest::Client::new();");
    good("src/kafka/producer.rs", "use rdkafka::producer::FutureProducer;");
}

#[test]
fn it_finds_a_dependency_that_points_the_wrong_way() {
    bad("src/incoming/plan.rs", "use crate::outgoing::Plan;", "incoming names outgoing");
    bad("src/sandbox/mod.rs", "//! A. B. \nuse crate::{model::Id, telemetry};", "sandbox names model");
    bad(
        "src/sandbox/a.rs",
        "use crate::{\n    runtime::spawn,\n    catalog::Row,\n};",
        "src/sandbox/a.rs:1: sandbox names catalog",
    );
    bad("src/outgoing/apply.rs", "use crate::bigcommerce::Client;", "outgoing names bigcommerce");
    bad("src/receiver/mod.rs", "//! A. B. \nuse crate::kafka::Writer;", "receiver names kafka");
    bad("src/model/id.rs", "fn f(_: crate::engine::Lane) {}", "model names engine");
    bad("src/telemetry/names.rs", "use crate::model::Outcome;", "telemetry names model");
    good("src/incoming/hydrate.rs", "use crate::{catalog::Row, engine::{Lane, Batch}, runtime::spawn};");
    good("src/outgoing/apply.rs", "use crate::outgoing::plan::Plan;\nuse crate::runtime::Store;");
    good("src/engine/lane.rs", "use crate::model::Id;");
}

#[test]
fn it_finds_what_is_banned_everywhere() {
    bad(
        "src/incoming/a.rs",
        "let (a, b) = tokio::sync::mpsc::unbounded_channel();",
        "`unbounded_channel` is banned",
    );
    bad("src/incoming/a.rs", "tokio::spawn(async {});", "use runtime::spawn");
    bad("src/incoming/a.rs", "tokio::task::spawn(async {});", "use runtime::spawn");
    good("src/runtime/task.rs", "tokio::spawn(fut)");
    good("src/incoming/a.rs", "spawn(\"x\", async {}); runtime::spawn(\"y\", fut);");
}

#[test]
fn it_finds_long_files_and_modules_without_an_opening() {
    assert_eq!(size("src/a.rs", &"\n".repeat(500)).len(), 0);
    assert_eq!(size("src/a.rs", &"\n".repeat(501)).len(), 1);
    bad("src/kafka/mod.rs", "//! kafka.\n", "src/kafka/mod.rs:1: a module opens");
    bad("src/kafka/mod.rs", "use x;\n", "a module opens");
    good("src/kafka/mod.rs", "//! Speaks to the broker. It never decides,\n//! and fails by returning.\n");
}

#[test]
fn it_does_not_read_comments_literals_or_tests() {
    good(
        "src/model/a.rs",
        "// use tokio::x;\n/* tokio::y /* tokio::z */ tokio::a */\n/// See `tokio::b`.\nfn f() {}",
    );
    good("src/model/a.rs", "const A: &str = \"tokio::x \\\" tokio::y\"; const B: &str = r#\"tokio::\"z\"#;");
    good("src/model/a.rs", "#[cfg(test)]\nmod tests {\n    use tokio::x;\n    fn f() { if a { b } }\n}");
    good("src/engine/budget/tests.rs", "use std::time::Instant; fn f() { Instant::now(); }");
    bad("src/engine/budget/contests.rs", "fn f() { Instant::now(); }", "names Instant::now");
    let after = "const Q: char = '\"'; fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests {\n}\nuse tokio::x;";
    bad("src/model/a.rs", after, "src/model/a.rs:5: a pure file names tokio");
}

#[test]
fn it_finds_a_machine_path() {
    let text = format!("fine\nCOPY {}x .", betrayals()[0]);
    assert!(betrayed("Dockerfile", &text)[0].starts_with("Dockerfile:2: names"));
    assert!(betrayed("Dockerfile", "COPY src ./src").is_empty());
}
