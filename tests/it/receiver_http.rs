//! What is HTTP enough: the smuggling table, sizes, methods, encodings.

use crate::receiver_support::*;
use bcbridge::receiver::Outcome;
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt as _;

/// Request heads that two programs could read differently, each up to its empty line. Each must be answered 400, and
/// what follows on the connection must never be taken for a request.
const AMBIGUOUS: &[&str] = &[
    // Two ways to tell the length.
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n",
    // Lengths.
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 4.0\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    // Transfer codings.
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    // Lines.
    "POST /webhooks/main HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nX: a\r\n\tfolded\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\n Host: a\r\n\r\n",
    "\r\nPOST /webhooks/main HTTP/1.1\r\nHost: a\r\n\r\n",
    // Header names and values.
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length : 0\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nX\u{e9}: a\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "POST /webhooks/main HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    // Request lines.
    "POST  /webhooks/main HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /webhooks/main  HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST\t/webhooks/main\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /webhooks/main HTTP/1.1 \r\nHost: a\r\n\r\n",
    "POST /webhooks/main\r\nHost: a\r\n\r\n",
    "POST /webhooks/main HTTP/1.2\r\nHost: a\r\n\r\n",
    "POST /webhooks/main HTTP/2.0\r\nHost: a\r\n\r\n",
    "POST /webhooks/main http/1.1\r\nHost: a\r\n\r\n",
    "POST http://a/webhooks/main HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST webhooks/main HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /webhooks/ma in HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /webhooks/main#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "P\u{f6}ST /webhooks/main HTTP/1.1\r\nHost: a\r\n\r\n",
    // Other protocols.
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00",
    "SSH-2.0-OpenSSH_9.9\r\n\r\n",
];

#[tokio::test]
async fn an_ambiguous_request_is_answered_400_and_the_connection_ends() {
    let rig = Rig::start().await;
    for head in AMBIGUOUS {
        let mut peer = Peer::connect(rig.addr).await;
        let smuggled = Callback::new().id("smuggled").bytes();
        peer.write(&[head.as_bytes(), b"0\r\n\r\n", &smuggled].concat()).await;
        let reply = peer.reply().await.unwrap_or_else(|| panic!("no answer to {head:?}"));
        assert_eq!((reply.status, reply.body.len()), (400, 0), "{head:?}");
        assert!(reply.head.contains("connection: close\r\n"), "{head:?}: {}", reply.head);
        peer.stream.shutdown().await.ok();
        let (_, more) = peer.closed().await;
        assert!(more.is_empty(), "{head:?}: {}", String::from_utf8_lossy(&more));
    }
    assert_eq!(rig.metrics.count(Outcome::Malformed), AMBIGUOUS.len() as u64);
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    rig.assert_alive().await;
    rig.end().await;
}

#[tokio::test]
async fn a_head_that_can_not_become_good_is_refused_before_it_ends() {
    let rig = Rig::with(|config| config.deadlines.head = PATIENCE * 10).await;
    for start in ["POST / HTTP/1.1\nHost: a\n\n", "\r\n", "\x16\x03\x01", " POST /", "\0"] {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(start.as_bytes()).await;
        assert_eq!(peer.reply().await.map(|reply| reply.status), Some(400), "{start:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_refused_sender_may_finish_its_sentence() {
    let rig = Rig::start().await;
    let big = Callback::new().body("x".repeat(1024 * 1024)).bytes();
    let (first, rest) = big.split_at(100_000);
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(first).await;
    assert_eq!(peer.reply().await.unwrap().status, 413);
    for piece in rest.chunks(10_000) {
        tokio::task::yield_now().await;
        peer.stream.write_all(piece).await.expect("the rest is taken, so that no reset overtakes the answer");
    }
    rig.end().await;
}

#[tokio::test]
async fn an_ambiguous_request_behind_a_good_one_does_not_spoil_its_answer() {
    let rig = Rig::start().await;
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(&[Callback::new().bytes().as_slice(), AMBIGUOUS[0].as_bytes()].concat()).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    assert_eq!(peer.reply().await.unwrap().status, 400);
    assert_eq!(rig.intake.deliveries().len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn requests_of_one_connection_are_told_apart_however_they_are_cut() {
    let rig = Rig::start().await;
    let all: Vec<u8> = (0..3).flat_map(|n| Callback::new().id(&format!("m{n}")).bytes()).collect();
    for step in [1, 7, 100, 400, 10_000] {
        let before = rig.metrics.count(Outcome::Accepted) + rig.metrics.count(Outcome::Duplicate);
        let mut peer = Peer::connect(rig.addr).await;
        for piece in all.chunks(step) {
            peer.write(piece).await;
        }
        for _ in 0..3 {
            assert_eq!(peer.reply().await.unwrap().status, 200, "cut at {step}");
        }
        let after = rig.metrics.count(Outcome::Accepted) + rig.metrics.count(Outcome::Duplicate);
        assert_eq!(after - before, 3);
    }
    assert_eq!(rig.intake.deliveries().len(), 3);
    rig.end().await;
}

#[tokio::test]
async fn a_chunked_callback_is_taken_and_is_the_last_of_its_connection() {
    let rig = Rig::start().await;
    let (first, rest) = ORDER.split_at(10);
    let chunked = |callback: &Callback| {
        let body = format!("a\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len());
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\n\r\n",
            callback.path,
            callback.headers()
        );
        format!("{head}{body}").into_bytes()
    };
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(&[chunked(&Callback::new()), Callback::new().id("second").bytes()].concat()).await;
    let reply = peer.reply().await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("connection: close\r\n"), "{}", reply.head);
    peer.stream.shutdown().await.ok();
    assert!(peer.closed().await.1.is_empty());
    let bodies: Vec<_> = rig.intake.deliveries().into_iter().map(|d| d.body).collect();
    assert_eq!(bodies, [ORDER.as_bytes()]);
    for broken in ["zz\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "5\r\nabcdefgh\r\n"] {
        let head = "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(rig.status(format!("{head}{broken}").as_bytes()).await, 400, "{broken:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_body_is_bounded_by_what_is_read() {
    let rig = Rig::start().await;
    let json = |bytes: usize| {
        let frame = ORDER.replace("250}", "250,\"pad\":\"\"}");
        ORDER.replace("250}", &format!("250,\"pad\":\"{}\"}}", "x".repeat(bytes - frame.len())))
    };
    assert_eq!(rig.status(&Callback::new().id("fits").body(json(64 * 1024)).bytes()).await, 200);
    assert_eq!(rig.intake.deliveries()[0].body.len(), 64 * 1024);
    assert_eq!(rig.status(&Callback::new().body(json(64 * 1024 + 1)).bytes()).await, 413);
    assert_eq!(rig.status(&Callback::new().body(json(1024 * 1024)).bytes()).await, 413);
    let claims_much = "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n";
    assert_eq!(rig.status(claims_much.as_bytes()).await, 413);
    assert_eq!(rig.intake.deliveries().len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn an_endless_chunked_body_is_cut_at_the_bound() {
    let rig = Rig::start().await;
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(b"POST /webhooks/main HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut sent = 0;
    while sent < 64 << 20 && peer.stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    assert_eq!(rig.metrics.count(Outcome::TooLarge), 1);
    rig.assert_alive().await;
    rig.end().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_delivered() {
    let rig = Rig::start().await;
    let mut peer = Peer::connect(rig.addr).await;
    let bytes = Callback::new().bytes();
    peer.write(&bytes[..bytes.len() - 1]).await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(peer.reply().await.map(|r| r.status), Some(400));
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    rig.end().await;
}

#[tokio::test]
async fn any_content_encoding_is_answered_415() {
    let rig = Rig::start().await;
    for coding in ["gzip", "deflate", "br", "zstd", "identity", "", "gzip, gzip"] {
        let bytes = Callback::new().extra(&format!("Content-Encoding: {coding}\r\n")).bytes();
        assert_eq!(rig.status(&bytes).await, 415, "{coding}");
    }
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    rig.end().await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let rig = Rig::start().await;
    let many = |count: usize| Callback::new().id("h").extra(&"a: b\r\n".repeat(count)).bytes();
    // The callback itself brings five.
    assert_eq!(rig.status(&many(59)).await, 200);
    assert_eq!(rig.status(&many(60)).await, 431);
    let long = |bytes: usize| Callback::new().id("l").extra(&format!("a: {}\r\n", "b".repeat(bytes))).bytes();
    assert_eq!(rig.status(&long(15 * 1024)).await, 200);
    assert_eq!(rig.status(&long(17 * 1024)).await, 431);
    assert_eq!(rig.status(&long(1024 * 1024)).await, 431);
    let path = |bytes: usize| format!("/webhooks/{}", "x".repeat(bytes - "/webhooks/".len()));
    assert_eq!(rig.status(&Callback::new().path(&path(1024)).bytes()).await, 404);
    assert_eq!(rig.status(&Callback::new().path(&path(1025)).bytes()).await, 414);
    assert_eq!(rig.status(&Callback::new().path(&path(100_000)).bytes()).await, 414);
    rig.end().await;
}

#[tokio::test]
async fn only_post_is_served_and_nothing_is_reflected() {
    let rig = Rig::start().await;
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "CANARY"] {
        for (path, status) in
            [("/webhooks/main", 405), ("/webhooks/nobody", 405), ("/", 404), ("/canary", 404)]
        {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Canary: canary\r\n\r\n");
            let mut peer = Peer::connect(rig.addr).await;
            peer.write(request.as_bytes()).await;
            let (_, answer) = peer.closed().await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "an empty body: {answer}");
            assert!(!answer.to_lowercase().contains("canary"), "{answer}");
            assert_eq!(answer.contains("allow: POST\r\n"), status == 405);
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn a_sender_that_asks_first_is_told_to_go_on() {
    let rig = Rig::start().await;
    let bytes = Callback::new().extra("Expect: 100-continue\r\n").bytes();
    let (head, body) = bytes.split_at(bytes.len() - ORDER.len());
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(head).await;
    peer.write(body).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    rig.end().await;
}

#[tokio::test]
async fn http_1_0_is_taken_for_the_sake_of_proxies() {
    let rig = Rig::start().await;
    let text = String::from_utf8(Callback::new().bytes()).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(text.as_bytes()).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    peer.closed().await;
    rig.end().await;
}

#[test]
fn any_bytes_end_in_an_answer_or_a_close_and_leave_the_receiver_alive() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rig = runtime.block_on(Rig::start());
    let pieces = prop_oneof![
        Just(b"POST /webhooks/main HTTP/1.1\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Expect: 100-continue\r\n".to_vec()),
        Just(b"Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"3\r\nabc\r\n0\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    runner
        .run(&proptest::collection::vec(pieces, 0..12), |pieces| {
            runtime.block_on(async {
                let mut peer = Peer::connect(rig.addr).await;
                peer.write(&pieces.concat()).await;
                peer.stream.shutdown().await.ok();
                let (_, answer) = peer.closed().await;
                prop_assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "));
                prop_assert!(!answer.starts_with(b"HTTP/1.1 200"));
                Ok(())
            })
        })
        .unwrap();
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    assert_eq!(rig.metrics.count(Outcome::Panicked), 0);
    runtime.block_on(rig.assert_alive());
}
