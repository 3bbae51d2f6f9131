//! The rate budget on real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bcbridge::bigcommerce::StoreClient;
use bcbridge::model::request::{Answer, Method};
use bcbridge::runtime::ports::Store;
use futures::future::join_all;

use crate::client_lab::{Act, PRODUCT, json, raw, request};

/// A store's fixed windows; answers 429 above the quota.
struct Windows {
    started: Instant,
    length: Duration,
    quota: u32,
    current: u128,
    used: u32,
}

impl Windows {
    fn arrive(&mut self) -> Act {
        let elapsed = self.started.elapsed();
        let index = elapsed.as_millis() / self.length.as_millis();
        if index != self.current {
            (self.current, self.used) = (index, 0);
        }
        let status = if self.used < self.quota { 200 } else { 429 };
        self.used += u32::from(status == 200);
        let reset = self.length.as_millis() - elapsed.as_millis() % self.length.as_millis();
        let headers = format!(
            "X-Rate-Limit-Requests-Quota: {}\r\nX-Rate-Limit-Requests-Left: {}\r\n\
             X-Rate-Limit-Time-Window-Ms: {}\r\nX-Rate-Limit-Time-Reset-Ms: {reset}\r\n",
            self.quota,
            self.quota - self.used,
            self.length.as_millis(),
        );
        Act::Write(json(status, &headers, "{}"))
    }
}

#[tokio::test]
async fn a_thousand_requests_alone_on_the_store_meet_no_429() {
    let windows = Mutex::new(Windows {
        started: Instant::now(),
        length: Duration::from_millis(600),
        quota: 150,
        current: 0,
        used: 0,
    });
    let store = raw(move |_| windows.lock().unwrap().arrive()).await;
    let mut config = store.config();
    config.timeouts.rate_wait = Some(Duration::from_secs(60));
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    config.on_reply = Some(Arc::new(move |seen| {
        counter.fetch_add(usize::from(seen.class == "429"), Ordering::SeqCst);
    }));
    let client = StoreClient::new(config).unwrap();
    let started = Instant::now();
    let replies = join_all((0..1_000).map(|_| client.send(request(Method::Get, PRODUCT)))).await;
    assert!(replies.iter().all(|reply| reply.answer == Answer::Done));
    assert_eq!((store.count(), refused.load(Ordering::SeqCst)), (1_000, 0));
    assert!(store.most_open.load(Ordering::SeqCst) <= 16);
    // 120 of 150 are ours, so nine windows at best; a loaded machine may double that.
    assert!(started.elapsed() < Duration::from_millis(600 * 20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_429_is_waited_out_and_the_request_sent_again() {
    let calls = AtomicUsize::new(0);
    let store = raw(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Act::Write(json(429, "x-rate-limit-time-reset-ms: 400\r\nx-retry-after: 0\r\n", "{}")),
        1 => Act::Write(json(429, "x-rate-limit-time-reset-ms: 10\r\nX-Retry-After: 1\r\n", "{}")),
        _ => Act::Write(json(200, "", "{}")),
    })
    .await;
    let started = Instant::now();
    let reply = store.client().send(request(Method::Post, "/v2/orders")).await;
    assert_eq!((reply.answer, store.count()), (Answer::Done, 3));
    assert!(started.elapsed() >= Duration::from_millis(1_400), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_store_that_keeps_refusing_is_reported_as_busy() {
    let store = raw(|_| Act::Write(json(429, "", "{}"))).await;
    let mut config = store.config();
    config.timeouts.rate_wait = Some(Duration::from_millis(700));
    let client = StoreClient::new(config).unwrap();
    let started = Instant::now();
    let reply = client.send(request(Method::Post, "/v2/orders")).await;
    assert!(matches!(reply.answer, Answer::Busy { after } if !after.is_zero()), "{reply:?}");
    assert_eq!(reply.status, 429);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(store.count() <= 4, "{} requests", store.count());
}

#[tokio::test]
async fn a_long_wait_is_told_at_once_instead_of_waited() {
    let store = raw(|_| Act::Write(json(429, "X-Retry-After: 300\r\n", "{}"))).await;
    let client = store.client();
    for _ in 0..3 {
        let reply = client.send(request(Method::Get, PRODUCT)).await;
        let Answer::Busy { after } = reply.answer else { panic!("{reply:?}") };
        assert!(after > Duration::from_secs(290) && after <= Duration::from_secs(300));
    }
    assert_eq!(store.count(), 1);
}

#[tokio::test]
async fn an_endpoint_with_a_documented_cap_is_never_called_more_often_at_once() {
    let quota = "x-rate-limit-requests-quota: 10000\r\nx-rate-limit-requests-left: 9999\r\n";
    let store = raw(move |_| Act::Later(Duration::from_millis(15), json(200, quota, "{}"))).await;
    let client = store.client();
    let writes = join_all((0..30).map(|_| client.send(request(Method::Put, "/v3/customers")))).await;
    assert!(writes.iter().all(|reply| reply.answer == Answer::Done));
    assert_eq!(store.most_open.load(Ordering::SeqCst), 3);
    join_all((0..60).map(|_| client.send(request(Method::Get, PRODUCT)))).await;
    let most = store.most_open.load(Ordering::SeqCst);
    assert!((4..=16).contains(&most), "{most} at once");
}

#[tokio::test]
async fn a_request_that_is_dropped_on_the_way_gives_its_place_back() {
    let store = raw(|_| Act::Hang).await;
    let client = store.client();
    for _ in 0..20 {
        let send = client.send(request(Method::Get, PRODUCT));
        let count = store.count();
        tokio::select! {
            reply = send => panic!("{reply:?}"),
            () = async { while store.count() == count { tokio::task::yield_now().await } } => {}
        }
        assert_eq!(client.quota().in_flight, 0);
    }
}

#[tokio::test]
async fn a_command_does_not_stand_behind_a_backlog_of_reads() {
    let quota = "x-rate-limit-requests-quota: 10000\r\nx-rate-limit-requests-left: 9999\r\n";
    let store = raw(move |_| Act::Later(Duration::from_millis(10), json(200, quota, "{}"))).await;
    let mut config = store.config();
    config.at_once = 4;
    let client = StoreClient::new(config).unwrap();
    let backlog = join_all((0..200).map(|_| client.send(request(Method::Get, PRODUCT))));
    let mut command = request(Method::Put, PRODUCT);
    command.purpose = bcbridge::model::request::Purpose::Command;
    let command = async {
        while store.count() < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.send(command).await
    };
    let (_, reply) = futures::join!(backlog, command);
    assert_eq!(reply.answer, Answer::Done);
    let place = store.seen.lock().unwrap().iter().position(|seen| seen.method == "PUT").unwrap();
    assert!(place < 40, "it came as number {place} of 201");
}
