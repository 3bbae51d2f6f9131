//! `hooks verify`: captured requests, each with one thing wrong.

use bcbridge::cli::hooks::{self, Captured, Output};
use bcbridge::config::{self, Settings};
use bcbridge::receiver::verify::sign;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::config_load::{Names, env};

const NOW_S: i64 = 1_767_225_600;
const BODY: &str = r#"{"producer":"stores/abc123","scope":"store/order/created","data":{"id":250}}"#;

const STORES: &str = "stores:
  - { name: main, store_hash: abc123, access_token: t, client_secrets: [canary-one, canary-two], webhook_headers: { x-key: [canary-new, canary-old] } }
  - { name: other, store_hash: zzz999, access_token: t, client_secrets: [canary-other] }
";

fn settings() -> Settings {
    config::load_str("bcbridge.yaml", STORES, &env, &Names).unwrap()
}

/// A request as it should be.
fn good(secret: &str) -> Captured {
    let mut headers = HeaderMap::new();
    let signature = sign(secret.as_bytes(), "msg_1", NOW_S, BODY.as_bytes());
    let timestamp = NOW_S.to_string();
    let lines = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", &timestamp),
        ("webhook-signature", &signature),
        ("x-key", "canary-old"),
    ];
    for (name, value) in lines {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    Captured { headers, body: BODY.as_bytes().to_vec(), at_s: NOW_S + 5 }
}

/// The exit code, and each part with its result and why.
fn check(captured: &Captured) -> (u8, Vec<(String, String, String)>) {
    let settings = settings();
    let mut out = Vec::new();
    let store = settings.store("main").unwrap();
    let code = hooks::verify(&settings, store, captured, Output::Json, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    (code, rows.iter().map(|row| (text(row, "part"), text(row, "result"), text(row, "why"))).collect())
}

/// That one part is wrong, for this reason.
fn only(captured: &Captured, part: &str, reason: &str) {
    let (code, rows) = check(captured);
    let wrong: Vec<_> = rows.iter().filter(|(_, result, _)| result == "wrong").collect();
    assert!(code == 1 && wrong.len() == 1 && wrong[0].0 == part && wrong[0].2.contains(reason), "{rows:?}");
}

#[test]
fn a_good_request_is_right_in_every_part_with_either_secret() {
    for secret in ["canary-one", "canary-two"] {
        let (code, rows) = check(&good(secret));
        assert!(code == 0 && rows.len() == 5, "{rows:?}");
        assert!(rows.iter().all(|(_, result, _)| result == "right"), "{rows:?}");
    }
}

#[test]
fn a_wrong_signature_is_told_with_what_may_have_happened() {
    only(&good("canary-stranger"), "signature", "no client secret of the store (2 tried)");
    only(&good("canary-other"), "signature", "a client secret of store \"other\"");
    let mut edited = good("canary-one");
    edited.body.push(b'\n');
    only(&edited, "signature", "line break at the end");
    let mut missing = good("canary-one");
    missing.headers.remove("webhook-id");
    only(&missing, "signature", "missing: webhook-id");
}

#[test]
fn a_timestamp_outside_of_the_window_is_no_wrong_signature() {
    let mut late = good("canary-one");
    late.at_s = NOW_S + 4 * 24 * 3600;
    only(&late, "timestamp", "345600 s old");
    let mut early = good("canary-one");
    early.at_s = NOW_S - 600;
    only(&early, "timestamp", "600 s ahead");
    let mut odd = good("canary-one");
    odd.headers.insert("webhook-timestamp", HeaderValue::from_static("soon"));
    only(&odd, "timestamp", "malformed");
}

#[test]
fn a_wrong_header_another_store_and_a_body_that_is_too_large_are_told_apart() {
    let mut header = good("canary-one");
    header.headers.insert("x-key", HeaderValue::from_static("canary-else"));
    only(&header, "header x-key", "another value");
    header.headers.remove("x-key");
    only(&header, "header x-key", "was not sent");
    let resigned = |body: String| {
        let mut captured = good("canary-one");
        let signature = sign(b"canary-one", "msg_1", NOW_S, body.as_bytes());
        captured.headers.insert("webhook-signature", HeaderValue::from_str(&signature).unwrap());
        captured.body = body.into_bytes();
        captured
    };
    only(&resigned(BODY.replace("abc123", "zzz999")), "store", "called \"other\" here");
    only(&resigned(BODY.replace("abc123", "nobody")), "store", "another store than store_hash");
    only(&resigned(BODY.replace("250", &"9".repeat(70_000))), "size", "at most 65536");
}
