//! Who is believed: signatures, windows, rotation, second factor, store binding.

use crate::receiver_support::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcbridge::receiver::verify::{Claim, EventId, Field, Keys, Refusal, Verified, Window, sign, verify};
use bcbridge::receiver::{Outcome, SignaturePolicy, StoreFault, Stores};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

const WINDOW: Window = Window { now_s: NOW_S, max_behind_s: 72 * 3600 };

fn check(key: &[u8], signed: [&str; 3], body: &[u8], now_s: i64) -> Result<Verified, Refusal> {
    let [id, timestamp, signature] = signed.map(|text| Field::Once(text.as_bytes()));
    let claim = Claim { id, timestamp, signature };
    verify(&Keys::new([key]), SignaturePolicy::Required, &claim, body, Window { now_s, ..WINDOW })
}

#[test]
fn the_public_vectors_of_the_scheme_verify() {
    let vectors = [
        (
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ];
    for (secret, id, timestamp, body, signature) in vectors {
        let key = STANDARD.decode(secret).unwrap();
        let verified =
            check(&key, [id, &timestamp.to_string(), signature], body.as_bytes(), timestamp + 10).unwrap();
        assert_eq!(verified.event_id().map(EventId::as_str), Some(id));
        assert_eq!(verified.timestamp(), Some(timestamp));
        assert_eq!(sign(&key, id, timestamp, body.as_bytes()), signature);
    }
}

#[test]
fn a_client_secret_is_used_as_it_is_written() {
    let signature = "v1,Rrox0l361jCP8NWOwX8R4t3N3IgPk3oDpRRukFZY/gY=";
    let verdict = |secret: &[u8]| {
        check(secret, ["msg_2f6c0b9d0f1e4d0a", "1767225600", signature], ORDER.as_bytes(), 1_767_225_600)
            .map(|_| ())
    };
    assert_eq!(verdict(SECRET.as_bytes()), Ok(()));
    assert_eq!(verdict(&STANDARD.decode(STANDARD.encode(SECRET)).unwrap()), Ok(()));
    assert_eq!(verdict(STANDARD.encode(SECRET).as_bytes()), Err(Refusal::NoMatch));
}

#[test]
fn a_body_changed_by_anything_is_refused() {
    let key = SECRET.as_bytes();
    let signature = sign(key, "m", NOW_S, ORDER.as_bytes());
    let ts = NOW_S.to_string();
    let mut changed = vec![
        format!("{ORDER}\n"),
        format!(" {ORDER}"),
        ORDER.replace("store/", "store\\/"),
        ORDER.replace(":", ": "),
        String::new(),
    ];
    changed.extend((0..ORDER.len()).map(|at| {
        let mut bytes = ORDER.as_bytes().to_vec();
        bytes[at] ^= 1;
        String::from_utf8(bytes).unwrap()
    }));
    assert!(check(key, ["m", &ts, &signature], ORDER.as_bytes(), NOW_S).is_ok());
    for body in changed {
        let verdict = check(key, ["m", &ts, &signature], body.as_bytes(), NOW_S);
        assert_eq!(verdict, Err(Refusal::NoMatch), "{body}");
    }
}

#[test]
fn malformed_ids_and_timestamps_are_refused_before_any_key() {
    let key = b"k";
    let id_verdict = |id: &str| check(key, [id, "1767225700", "v1,x"], b"", NOW_S).unwrap_err();
    for id in ["", "a b", "a.b", "msg_1.T", "é", "a\n", &"x".repeat(129)] {
        assert_eq!(id_verdict(id), Refusal::BadId, "{id:?}");
    }
    assert_eq!(id_verdict(&"x".repeat(128)), Refusal::NoMatch);
    let ts_verdict = |ts: &str| check(key, ["m", ts, "v1,x"], b"", NOW_S).unwrap_err();
    let odd = [
        "",
        "-9223372036854775808",
        "9223372036854775807",
        "+1767225700",
        "0001767225700",
        "01767225700",
        "0",
        "-1",
        "1767225700.0",
        "1.7e9",
        " 1767225700",
        "1767225700 ",
        "176722570000",
        "١٧٦٧",
        "0x6955",
    ];
    for ts in odd {
        assert_eq!(ts_verdict(ts), Refusal::BadTimestamp, "{ts:?}");
    }
    assert_eq!(ts_verdict("99999999999"), Refusal::NoMatch);
}

#[test]
fn the_border_between_id_timestamp_and_body_can_not_be_moved() {
    let (key, t) = (b"k".as_slice(), NOW_S.to_string());
    let signature = sign(key, "msg_1", NOW_S, format!("{t}.{{}}").as_bytes());
    assert!(check(key, ["msg_1", &t, &signature], format!("{t}.{{}}").as_bytes(), NOW_S).is_ok());
    assert_eq!(check(key, [&format!("msg_1.{t}"), &t, &signature], b"{}", NOW_S), Err(Refusal::BadId));
}

#[test]
fn the_window_is_72_hours_back_and_5_minutes_ahead() {
    let verdict = |behind_s: i64| {
        let ts = NOW_S - behind_s;
        check(b"k", ["m", &ts.to_string(), &sign(b"k", "m", ts, b"{}")], b"{}", NOW_S).map(|_| ())
    };
    assert_eq!(verdict(72 * 3600), Ok(()));
    assert_eq!(verdict(72 * 3600 + 1), Err(Refusal::TooOld));
    assert_eq!(verdict(-300), Ok(()));
    assert_eq!(verdict(-301), Err(Refusal::InFuture));
    let far = check(b"k", ["m", "99999999999", &sign(b"k", "m", 99_999_999_999, b"{}")], b"{}", i64::MIN);
    assert_eq!(far, Err(Refusal::InFuture));
}

#[test]
fn signatures_are_a_list_of_which_one_v1_must_match() {
    let good = sign(b"k", "m", NOW_S, b"{}");
    let bad = sign(b"other", "m", NOW_S, b"{}");
    let raw = good.strip_prefix("v1,").unwrap();
    let verdict = |list: &str| check(b"k", ["m", &NOW_S.to_string(), list], b"{}", NOW_S).map(|_| ());
    let seven = [bad.as_str(); 7].join(" ");
    let fits: Vec<String> = vec![
        good.clone(),
        format!("{bad} {good}"),
        format!("{good} {bad}"),
        format!("v1a,AAAA {good}"),
        format!("v1,!!! {good}"),
        format!("{seven} {good}"),
        format!("{good} "),
        format!("{good}  {bad}"),
    ];
    for list in fits {
        assert_eq!(verdict(&list), Ok(()), "{list}");
    }
    let refused: Vec<String> = vec![
        String::new(),
        bad.clone(),
        format!("v2,{raw}"),
        format!("v1a,{raw}"),
        format!("V1,{raw}"),
        raw.to_owned(),
        good.trim_end_matches('=').to_owned(),
        format!("{good}="),
        format!("v1, {raw}"),
        format!("{good},{good}"),
        format!("v1,{}", raw.replace('+', "-").replace('/', "_")).replace("v1,", "v1;"),
        "v1,".to_owned(),
        format!("v1,{raw}{raw}"),
        format!("{good}\t{bad}"),
    ];
    for list in refused {
        assert_eq!(verdict(&list), Err(Refusal::NoMatch), "{list}");
    }
    assert_eq!(verdict(&format!("{seven} {bad} {good}")), Err(Refusal::TooManySignatures));
}

#[test]
fn base64_has_one_spelling() {
    // The last character before the padding carries two bits that no byte uses; setting them must not verify.
    let good = sign(b"k", "m", NOW_S, b"{}");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = good.clone().into_bytes();
    let last = bytes.len() - 2;
    let value = alphabet.iter().position(|b| *b == bytes[last]).unwrap();
    bytes[last] = alphabet[value | 1];
    let verdict = check(b"k", ["m", &NOW_S.to_string(), std::str::from_utf8(&bytes).unwrap()], b"{}", NOW_S);
    assert_eq!(verdict, Err(Refusal::NoMatch));
}

#[test]
fn a_policy_says_what_unsigned_callbacks_are_worth() {
    let absent = Claim { id: Field::Missing, timestamp: Field::Missing, signature: Field::Missing };
    let half = Claim { id: Field::Once(b"m"), ..absent };
    let verdict = |policy, claim: &Claim<'_>| {
        verify(&Keys::new([b"k".as_slice()]), policy, claim, b"{}", WINDOW).map(|v| v.event_id().is_some())
    };
    assert_eq!(verdict(SignaturePolicy::Required, &absent), Err(Refusal::MissingHeader));
    assert_eq!(verdict(SignaturePolicy::IfPresent, &absent), Ok(false));
    assert_eq!(verdict(SignaturePolicy::IfPresent, &half), Err(Refusal::MissingHeader));
    assert_eq!(verdict(SignaturePolicy::Off, &half), Ok(false));
    let twice = Claim { id: Field::Repeated, ..absent };
    assert_eq!(verdict(SignaturePolicy::IfPresent, &twice), Err(Refusal::RepeatedHeader));
}

proptest! {
    #[test]
    fn our_verdict_is_that_of_the_reference_library(
        id in "[A-Za-z0-9_-]{1,40}", body in "\\PC{0,200}", key in proptest::collection::vec(any::<u8>(), 1..80),
        other_key in any::<bool>(), flip in proptest::option::of(0_usize..300), skew in -400_i64..400,
        prefix in prop_oneof![Just(""), Just("v1,AAAA "), Just("v2,x "), Just("v1a,x v1,x ")],
    ) {
        // The library reads the clock itself, so both are asked about now, away from the edges of its window.
        prop_assume!(!(290..=310).contains(&skew.abs()));
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
        let ts = now + skew;
        let reference = standardwebhooks::Webhook::from_bytes(key.clone()).unwrap();
        let signer = if other_key { b"another key".to_vec() } else { key.clone() };
        let signature = format!("{prefix}{}", sign(&signer, &id, ts, body.as_bytes()));
        let mut sent = body.clone().into_bytes();
        if let Some(at) = flip.filter(|at| *at < sent.len()) {
            sent[at] ^= 1;
        }
        prop_assume!(std::str::from_utf8(&sent).is_ok());
        let mut headers = http::HeaderMap::new();
        for (name, value) in [("webhook-id", &id), ("webhook-timestamp", &ts.to_string()), ("webhook-signature", &signature)] {
            headers.insert(name, http::HeaderValue::from_str(value).unwrap());
        }
        let theirs = reference.verify(&sent, &headers).is_ok();
        let claim = Claim {
            id: Field::Once(id.as_bytes()),
            timestamp: Field::Once(headers["webhook-timestamp"].as_bytes()),
            signature: Field::Once(signature.as_bytes()),
        };
        let narrow = Window { now_s: now, max_behind_s: 300 };
        let keys = Keys::new([key.as_slice()]);
        prop_assert_eq!(verify(&keys, SignaturePolicy::Required, &claim, &sent, narrow).is_ok(), theirs);
        let wide = verify(&keys, SignaturePolicy::Required, &claim, &sent, Window { now_s: now, ..WINDOW }).is_ok();
        prop_assert!(wide || !theirs, "what the library takes, we take");
    }

    #[test]
    fn any_headers_are_judged_without_a_panic(
        id in proptest::collection::vec(any::<u8>(), 0..200), ts in proptest::collection::vec(any::<u8>(), 0..30),
        signature in proptest::collection::vec(any::<u8>(), 0..600), now_s in any::<i64>(), max_behind_s in any::<i64>(),
    ) {
        let claim = Claim { id: Field::Once(&id), timestamp: Field::Once(&ts), signature: Field::Once(&signature) };
        let verdict = verify(
            &Keys::new([b"k".as_slice(), b"l"]), SignaturePolicy::Required, &claim, b"{}", Window { now_s, max_behind_s },
        );
        prop_assert!(verdict.is_err());
    }

    #[test]
    fn any_signed_time_is_judged_without_a_panic(ts in 1_i64..99_999_999_999, now_s in any::<i64>(), max_behind_s in any::<i64>()) {
        let signature = sign(b"k", "m", ts, b"{}");
        let claim = Claim {
            id: Field::Once(b"m"), timestamp: Field::Once(ts.to_string().leak().as_bytes()),
            signature: Field::Once(signature.as_bytes()),
        };
        let window = Window { now_s, max_behind_s };
        let verdict = verify(&Keys::new([b"k".as_slice()]), SignaturePolicy::Required, &claim, b"{}", window);
        prop_assert!(matches!(verdict, Ok(_) | Err(Refusal::TooOld | Refusal::InFuture)));
    }
}

#[tokio::test]
async fn a_good_callback_is_delivered_whole_and_answered_with_nothing() {
    let rig = Rig::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = rig.send(&Callback::new().extra(&format!("traceparent: {trace}\r\n")).bytes()).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert!(!reply.head.to_lowercase().contains("server:"), "{}", reply.head);
    let delivery = rig.intake.deliveries().pop().unwrap();
    assert_eq!(&*delivery.store, "main");
    assert_eq!(delivery.event_id.as_deref(), Some("msg_1"));
    assert_eq!(delivery.timestamp, Some(NOW_S));
    assert_eq!(delivery.body, ORDER.as_bytes());
    assert_eq!(delivery.received_ms, NOW_S * 1000);
    assert_eq!(delivery.traceparent.as_deref(), Some(trace));
    rig.end().await;
}

#[tokio::test]
async fn what_is_not_authentic_is_answered_401_and_stored_nowhere() {
    let rig = Rig::start().await;
    let good = Callback::new();
    let without = |name: &str| -> String {
        good.headers().split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect()
    };
    let requests = [
        post("/webhooks/main", "", ORDER.as_bytes()),
        post("/webhooks/main", &without("webhook-id"), ORDER.as_bytes()),
        post("/webhooks/main", &without("webhook-timestamp"), ORDER.as_bytes()),
        post("/webhooks/main", &without("webhook-signature"), ORDER.as_bytes()),
        good.clone().extra("webhook-id: msg_1\r\n").bytes(),
        good.clone().extra(&format!("webhook-timestamp: {NOW_S}\r\n")).bytes(),
        good.clone().extra(&format!("webhook-signature: {}\r\n", good.signature())).bytes(),
        good.clone().secret("wrong").bytes(),
        good.clone().at(NOW_S + 301).bytes(),
        good.clone().at(NOW_S - 72 * 3600 - 1).bytes(),
        good.clone().at(i64::MIN).bytes(),
        post("/webhooks/main", &good.headers(), format!("{ORDER} ").as_bytes()),
    ];
    let count = requests.len() as u64;
    for request in requests {
        let reply = rig.send(&request).await;
        assert_eq!((reply.status, reply.body.len()), (401, 0), "{}", String::from_utf8_lossy(&request));
    }
    assert_eq!(rig.metrics.count(Outcome::Unauthorized), count);
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    let oldest = good.at(NOW_S - 72 * 3600).bytes();
    assert_eq!(rig.status(&oldest).await, 200);
    rig.now_s.fetch_add(1, Ordering::SeqCst);
    assert_eq!(rig.status(&oldest).await, 401, "a repeat is verified like any other");
    rig.end().await;
}

#[tokio::test]
async fn secrets_rotate_without_a_restart_and_without_a_gap() {
    let rig = Rig::start().await;
    let with = |secrets: &[&str]| {
        let mut main = store("main", "abc123");
        main.secrets = secrets.iter().map(|s| (*s).into()).collect();
        rig.stores.replace(vec![main])
    };
    let (old, new) = (Callback::new(), Callback::new().secret("the new secret"));
    assert_eq!(rig.status(&new.clone().id("1").bytes()).await, 401);
    with(&["the new secret", SECRET]).unwrap();
    assert_eq!(rig.status(&new.clone().id("2").bytes()).await, 200);
    assert_eq!(rig.status(&old.clone().id("3").bytes()).await, 200);
    with(&["the new secret"]).unwrap();
    assert_eq!(rig.status(&new.clone().id("4").bytes()).await, 200);
    assert_eq!(rig.status(&old.id("5").bytes()).await, 401);
    assert_eq!(with(&[]), Err(StoreFault::NoSecret("main".into())));
    assert_eq!(rig.status(&new.id("6").bytes()).await, 200);
    rig.end().await;
}

#[tokio::test]
async fn any_one_whole_set_of_earlier_headers_is_good_and_parts_of_two_are_not() {
    let header = |name, value: &str| (http::HeaderName::from_static(name), vec![value.into()]);
    let rig = Rig::with(|config| {
        config.stores[0].headers = vec![header("x-one", "new"), header("x-two", "new")];
        config.stores[0].earlier_headers = vec![vec![header("x-one", "old"), header("x-two", "old")]];
    })
    .await;
    for (lines, expected) in [
        ("x-one: new\r\nx-two: new\r\n", 200),
        ("x-one: old\r\nx-two: old\r\n", 200),
        ("x-one: old\r\nx-two: new\r\n", 401),
        ("x-one: new\r\n", 401),
        ("", 401),
    ] {
        let callback = Callback::new().id(&format!("{}", lines.len() + expected)).extra(lines);
        assert_eq!(usize::from(rig.status(&callback.bytes()).await), expected, "{lines:?}");
    }
    let mut store = store("main", "abc123");
    store.headers = vec![header("x-one", "new")];
    rig.stores.replace(vec![store]).unwrap();
    assert_eq!(rig.status(&Callback::new().id("z").extra("x-one: old\r\n").bytes()).await, 401);
    rig.end().await;
}

#[tokio::test]
async fn a_second_factor_must_be_there_once_and_right() {
    let rig = Rig::with(|config| {
        let name = http::HeaderName::from_static("x-bridge-key");
        config.stores[0].headers = vec![(name, vec!["hush".into()])];
    })
    .await;
    let check = |lines: &'static str| rig.send(Callback::new().extra(lines).bytes().leak());
    for lines in [
        "",
        "x-bridge-key: Hush\r\n",
        "x-bridge-key: hush2\r\n",
        "x-bridge-key:\r\n",
        "x-bridge-key: hush\r\nx-bridge-key: hush\r\n",
    ] {
        assert_eq!(check(lines).await.status, 401, "{lines:?}");
    }
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    assert_eq!(check("X-Bridge-Key: hush\r\n").await.status, 200);
    // While it is rotated, hooks that have the new value and retries that have the old one come side by side.
    let mut rotating = store("main", "abc123");
    let key = http::HeaderName::from_static("x-bridge-key");
    rotating.headers = vec![(key, vec!["fresh".into(), "hush".into()])];
    rig.stores.replace(vec![rotating]).unwrap();
    for (line, status) in [("fresh", 200), ("hush", 200), ("fres", 401), ("", 401)] {
        let callback =
            Callback::new().id(&format!("rotated{line}")).extra(&format!("x-bridge-key: {line}\r\n"));
        assert_eq!(rig.status(&callback.bytes()).await, status, "{line:?}");
    }
    assert_eq!(rig.status(&Callback::new().secret("x").extra("x-bridge-key: hush\r\n").bytes()).await, 401);
    rig.end().await;
}

#[tokio::test]
async fn one_app_secret_does_not_carry_a_callback_to_another_store() {
    let rig = Rig::with(|config| {
        let mut other = store("other", "zzz999");
        other.store_id = Some("42".to_owned());
        config.stores.push(other);
    })
    .await;
    let send = |path: &str, body: &str, id: &str| {
        let bytes = Callback::new().path(path).body(body).id(id).bytes();
        let rig = &rig;
        async move { rig.status(&bytes).await }
    };
    assert_eq!(send("/webhooks/other", ORDER, "1").await, 401);
    assert_eq!(send("/webhooks/main", &ORDER.replace("abc123", "zzz999"), "2").await, 401);
    assert_eq!(send("/webhooks/main", &ORDER.replace("abc123", "abc1234"), "3").await, 401);
    assert_eq!(send("/webhooks/main", &ORDER.replace("abc123", "{store_hash}"), "4").await, 401);
    assert_eq!(
        send("/webhooks/other", &ORDER.replace("abc123", "zzz999"), "5").await,
        401,
        "another store_id"
    );
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    let fits = ORDER.replace("abc123", "zzz999").replace("\"1025646\"", "42");
    assert_eq!(send("/webhooks/other", &fits, "6").await, 200);
    assert_eq!(send("/webhooks/main", ORDER, "7").await, 200);
    rig.end().await;
}

#[tokio::test]
async fn unknown_stores_and_paths_look_like_each_other() {
    let rig = Rig::start().await;
    let mut shapes = std::collections::BTreeSet::new();
    for path in [
        "/webhooks/nobody",
        "/webhooks/",
        "/webhooks",
        "/",
        "/webhooks/main/",
        "/webhooks/%6dain",
        "/metrics",
    ] {
        let reply = rig.send(&Callback::new().path(path).bytes()).await;
        assert_eq!(reply.status, 404, "{path}");
        shapes.insert(reply.head.lines().filter(|l| !l.starts_with("date")).collect::<Vec<_>>().join("|"));
    }
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    let refused = rig.send(&Callback::new().secret("x").bytes()).await;
    let refused = refused.head.lines().filter(|l| !l.starts_with("date")).collect::<Vec<_>>().join("|");
    assert_eq!(shapes.pop_first().unwrap().replace("404 Not Found", "401 Unauthorized"), refused);
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    rig.end().await;
}

#[tokio::test]
async fn unsigned_callbacks_pass_only_where_the_store_says_so() {
    let rig = Rig::with(|config| {
        let mut lax = store("lax", "abc123");
        lax.policy = SignaturePolicy::IfPresent;
        let mut off = store("off", "abc123");
        (off.policy, off.secrets) = (SignaturePolicy::Off, vec![]);
        config.stores.extend([lax, off]);
    })
    .await;
    let unsigned = |path: &str| post(path, "", ORDER.as_bytes());
    assert_eq!(rig.status(&unsigned("/webhooks/main")).await, 401);
    assert_eq!(rig.status(&unsigned("/webhooks/lax")).await, 200);
    assert_eq!(rig.status(&Callback::new().path("/webhooks/lax").secret("x").bytes()).await, 401);
    assert_eq!(rig.status(&Callback::new().path("/webhooks/lax").bytes()).await, 200);
    assert_eq!(rig.status(&unsigned("/webhooks/off")).await, 200);
    assert_eq!(rig.status(&Callback::new().path("/webhooks/off").secret("x").bytes()).await, 200);
    assert_eq!(rig.status(&unsigned("/webhooks/off")).await, 200);
    let ids: Vec<_> = rig.intake.deliveries().into_iter().map(|d| d.event_id).collect();
    assert_eq!(ids, [None, Some("msg_1".to_owned()), None, None, None]);
    rig.end().await;
}

#[test]
fn settings_that_would_let_everybody_in_are_refused() {
    let check = |change: fn(&mut bcbridge::receiver::StoreAuth)| {
        let mut main = store("main", "abc123");
        change(&mut main);
        Stores::new(vec![main]).map(|_| ()).unwrap_err().to_string()
    };
    assert!(check(|s| s.secrets.clear()).contains("no client secret"));
    assert!(check(|s| s.secrets = vec!["".into()]).contains("empty client secret"));
    for values in [vec![], vec!["".into()], vec!["x".into(), "".into()]] {
        let mut main = store("main", "abc123");
        main.headers = vec![(http::header::ACCEPT, values)];
        assert!(matches!(Stores::new(vec![main]).unwrap_err(), StoreFault::EmptySecret(_)));
    }
    assert!(
        check(|s| s.headers = vec![(http::header::ACCEPT, vec!["x".into(); 9])]).contains("values of one")
    );
    assert!(check(|s| s.store_hash.clear()).contains("no store_hash"));
    assert!(check(|s| s.name = "a/b".into()).contains("\"a/b\""));
    assert!(check(|s| s.secrets = vec!["x".into(); 9]).contains("more than 8"));
    let twice = Stores::new(vec![store("a", "1"), store("a", "2")]).unwrap_err();
    assert_eq!(twice, StoreFault::Twice("a".into()));
    let printed = format!("{:?} {:?}", store("a", "1"), Stores::new(vec![store("a", "1")]).unwrap());
    assert!(!printed.contains(SECRET), "{printed}");
}
