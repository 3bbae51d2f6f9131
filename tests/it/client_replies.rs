//! Replies that are cut, slow, huge, deep or of somebody else.

use std::time::{Duration, Instant};

use bcbridge::bigcommerce::StoreClient;
use bcbridge::model::request::{Answer, Method};
use bcbridge::runtime::ports::Store;

use crate::client_lab::{Act, PRODUCT, RawStore, json, raw, request, typed};

/// What a reply means when only its first bytes come.
async fn meaning(method: Method, reply: Vec<u8>) -> Answer {
    let store = raw(move |_| Act::Write(reply.clone())).await;
    store.client().send(request(method, PRODUCT)).await.answer
}

#[tokio::test]
async fn a_success_that_is_cut_at_any_byte_is_doubtful() {
    let chunked = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
        9\r\n{\"data\":{\r\n2\r\n}}\r\n0\r\n\r\n";
    for whole in [json(200, "", r#"{"data":{"id":77}}"#), chunked.to_vec()] {
        for cut in 0..whole.len() {
            let answer = meaning(Method::Post, whole[..cut].to_vec()).await;
            assert_eq!(answer, Answer::Doubtful, "cut after {cut} of {} bytes", whole.len());
        }
        assert_eq!(meaning(Method::Post, whole).await, Answer::Done);
    }
}

#[tokio::test]
async fn an_absence_that_is_cut_at_any_byte_is_no_absence() {
    let whole = json(404, "", r#"{"status":404,"title":"x"}"#);
    for cut in 0..whole.len() {
        assert_eq!(meaning(Method::Get, whole[..cut].to_vec()).await, Answer::Doubtful, "cut after {cut}");
    }
    assert_eq!(meaning(Method::Get, whole).await, Answer::Missing);
}

#[tokio::test]
async fn what_is_not_http_is_doubtful() {
    for reply in
        ["", "garbage\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"]
    {
        assert_eq!(meaning(Method::Post, reply.into()).await, Answer::Doubtful, "{reply:?}");
    }
    let two_lengths = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 9\r\n\r\n{}";
    assert_eq!(meaning(Method::Post, two_lengths.to_vec()).await, Answer::Doubtful);
}

#[tokio::test]
async fn pages_of_gateways_are_doubtful() {
    for status in [200, 404, 410, 502] {
        let page = typed(status, "content-type: text/html\r\n", "<html>down for maintenance</html>");
        assert_eq!(meaning(Method::Get, page).await, Answer::Doubtful, "{status}");
    }
    let lying = json(200, "", "<html></html>");
    assert_eq!(meaning(Method::Get, lying).await, Answer::Doubtful);
    assert_eq!(meaning(Method::Get, json(200, "", "")).await, Answer::Doubtful);
    assert_eq!(meaning(Method::Get, typed(204, "", "")).await, Answer::Done);
}

fn hurried(store: &RawStore, request_ms: u64) -> StoreClient {
    let mut config = store.config();
    config.timeouts.request = Duration::from_millis(request_ms);
    StoreClient::new(config).unwrap()
}

#[tokio::test]
async fn slow_bytes_meet_the_deadline_in_the_head_and_in_the_body() {
    let slow_head = json(200, "", r#"{"data":{"id":77}}"#);
    let body_start = slow_head.iter().position(|byte| *byte == b'{').unwrap();
    for pause in [5, 25] {
        let bytes = slow_head.clone();
        let store = raw(move |_| Act::Drip(bytes.clone(), Duration::from_millis(pause))).await;
        let started = Instant::now();
        // 5 ms a byte brings the head in time but not the body; 25 ms not even the head.
        let deadline = 5 * body_start as u64 + 30;
        let reply = hurried(&store, deadline).send(request(Method::Post, PRODUCT)).await;
        assert_eq!(reply.answer, Answer::Doubtful);
        assert!(started.elapsed() < Duration::from_millis(deadline + 1_500));
    }
    let store = raw(|_| Act::Hang).await;
    let client = hurried(&store, 100);
    assert_eq!(client.send(request(Method::Post, PRODUCT)).await.answer, Answer::Doubtful);
    assert_eq!(client.quota().in_flight, 0);
}

/// `zeros` zero bytes as a gzip file: fixed Huffman codes, one literal and then copies of 258 bytes.
fn gzip_of_zeros(zeros: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = vec![true, true, false];
    let code = |bits: &mut Vec<bool>, value: u32, width: u32| {
        bits.extend((0..width).rev().map(|at| value >> at & 1 == 1));
    };
    code(&mut bits, 0b0011_0000, 8);
    for _ in 0..zeros / 258 {
        code(&mut bits, 0b1100_0101, 8);
        code(&mut bits, 0, 5);
    }
    code(&mut bits, 0, 7);
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    file.extend(
        bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| u8::from(*bit) << at).sum::<u8>()),
    );
    let length = zeros / 258 * 258 + 1;
    file.extend(crc32fast::hash(&vec![0; length]).to_le_bytes());
    file.extend((length as u32).to_le_bytes());
    file
}

async fn gzipped(zeros: usize) -> bcbridge::model::request::Reply {
    let body = gzip_of_zeros(zeros);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let reply = [head.into_bytes(), body].concat();
    let store = raw(move |_| Act::Write(reply.clone())).await;
    store.client().send(request(Method::Get, PRODUCT)).await
}

#[tokio::test]
async fn a_small_reply_that_unpacks_to_a_huge_one_is_stopped() {
    let bomb = gzipped(200 << 20).await;
    assert_eq!((bomb.answer, bomb.body.len()), (Answer::Doubtful, 0));
    assert!(bomb.detail.contains("larger than 16 MiB"), "{}", bomb.detail);
    // The same made small is unpacked, and found not to be JSON.
    let small = gzipped(1 << 20).await;
    assert_eq!((small.answer, small.body.len()), (Answer::Doubtful, (1 << 20) / 258 * 258 + 1));
    assert!(small.detail.contains("not JSON"), "{}", small.detail);
}

#[tokio::test]
async fn a_declared_length_above_the_bound_is_not_even_read() {
    let reply =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 209715200\r\n\r\n{".to_vec();
    let store = raw(move |_| Act::Write(reply.clone())).await;
    let reply = store.client().send(request(Method::Get, PRODUCT)).await;
    assert!(reply.detail.contains("larger than 16 MiB"), "{}", reply.detail);
}

#[tokio::test]
async fn json_nested_a_hundred_thousand_deep_is_harmless() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let store = raw(move |_| Act::Write(json(200, "", &deep))).await;
    let reply = store.client().send(request(Method::Get, PRODUCT)).await;
    assert_eq!(reply.answer, Answer::Doubtful);
    assert!(reply.detail.contains("128 levels"), "{}", reply.detail);
}

#[tokio::test]
async fn metrics_are_told_of_each_reply_and_of_none() {
    let store = raw(|arrived| match arrived.method.as_str() {
        "GET" => Act::Write(json(200, "x-rate-limit-requests-left: 99\r\n", "{}")),
        _ => Act::Write(Vec::new()),
    })
    .await;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut config = store.config();
    let sink = std::sync::Arc::clone(&seen);
    config.on_reply = Some(std::sync::Arc::new(move |one| sink.lock().unwrap().push(one.clone())));
    let client = StoreClient::new(config).unwrap();
    client.send(request(Method::Get, PRODUCT)).await;
    client.send(request(Method::Put, PRODUCT)).await;
    let seen = seen.lock().unwrap();
    let classes: Vec<_> = seen.iter().map(|one| (one.method, one.class, &*one.template)).collect();
    assert_eq!(classes, [("GET", "2xx", PRODUCT), ("PUT", "none", PRODUCT)]);
    assert_eq!(seen[0].left, Some(99));
}
