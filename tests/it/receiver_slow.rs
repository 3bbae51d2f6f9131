//! Who keeps us waiting, and who comes in crowds.

use crate::receiver_support::*;
use bcbridge::receiver::{Outcome, ReceiverConfig};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// The deadlines of these tests: one short, the others out of its way.
fn only(config: &mut ReceiverConfig, change: impl FnOnce(&mut bcbridge::receiver::Deadlines)) {
    let far = Duration::from_secs(60);
    config.deadlines = bcbridge::receiver::Deadlines {
        first_byte: far,
        head: far,
        body: far,
        idle: far,
        total: far,
        drain: Duration::from_secs(5),
    };
    change(&mut config.deadlines);
}

const SHORT: Duration = Duration::from_millis(200);

/// Enough above the deadline for a busy machine, far below any other deadline.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let rig = Rig::with(|config| only(config, |d| d.first_byte = SHORT)).await;
    let (after, bytes) = Peer::connect(rig.addr).await.closed().await;
    assert!(bytes.is_empty());
    assert!((SHORT / 2..SOON).contains(&after), "{after:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_head_that_stops_half_way_is_answered_408_and_closed() {
    let rig = Rig::with(|config| only(config, |d| d.head = SHORT)).await;
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(b"POST /webhooks/main HTTP/1.1\r\nHost: a\r\nX-Half").await;
    let started = std::time::Instant::now();
    assert_eq!(peer.reply().await.unwrap().status, 408);
    peer.stream.shutdown().await.ok();
    peer.closed().await;
    assert!(started.elapsed() < SOON);
    assert_eq!(rig.metrics.count(Outcome::TimedOut), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_head_that_drips_does_not_win_time() {
    let rig = Rig::with(|config| only(config, |d| d.head = SHORT)).await;
    let mut peer = Peer::connect(rig.addr).await;
    let started = std::time::Instant::now();
    peer.write(b"POST /webhooks/main HTTP/1.1\r\nHost: a\r\n").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let reply = loop {
        tokio::select! {
            reply = peer.reply() => break reply,
            _ = ticks.tick() => {}
        }
        peer.write(b"x: y\r\n").await;
        assert!(started.elapsed() < PATIENCE, "the head never ended");
    };
    assert_eq!(reply.map(|r| r.status), Some(408));
    assert!((SHORT / 2..SOON).contains(&started.elapsed()), "{:?}", started.elapsed());
    rig.end().await;
}

#[tokio::test]
async fn a_body_that_stops_half_way_is_answered_408_and_closed() {
    let rig = Rig::with(|config| only(config, |d| d.body = SHORT)).await;
    let bytes = Callback::new().bytes();
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(&bytes[..bytes.len() - 1]).await;
    assert_eq!(peer.reply().await.unwrap().status, 408);
    peer.write(&bytes[bytes.len() - 1..]).await;
    peer.stream.shutdown().await.ok();
    assert!(peer.closed().await.1.is_empty());
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 0);
    rig.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let rig = Rig::with(|config| only(config, |d| d.idle = SHORT)).await;
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(&Callback::new().bytes()).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    let (after, bytes) = peer.closed().await;
    assert!(bytes.is_empty() && after < SOON, "{after:?}");
    rig.end().await;
}

#[tokio::test]
async fn an_intake_that_hangs_is_answered_503_at_the_total_deadline() {
    let rig = Rig::with(|config| only(config, |d| d.total = SHORT)).await;
    rig.intake.set(Mode::Hold);
    assert_eq!(rig.status(&Callback::new().bytes()).await, 503);
    assert_eq!(rig.metrics.count(Outcome::NotDurable), 1);
    rig.intake.set(Mode::Accept);
    assert_eq!(rig.status(&Callback::new().bytes()).await, 200, "the id was not taken for durable");
    rig.end().await;
}

#[tokio::test]
async fn a_crowd_of_slow_peers_does_not_keep_a_good_callback_waiting() {
    let rig = Rig::with(|config| {
        only(config, |_| {});
        config.limits.connections_per_peer = 1000;
    })
    .await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(b"POST /webhooks/main HTTP/1.1\r\nHo").await;
        crowd.push(peer);
    }
    let started = std::time::Instant::now();
    for n in 0..20 {
        assert_eq!(rig.status(&Callback::new().id(&n.to_string()).bytes()).await, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    rig.end().await;
}

#[tokio::test]
async fn one_peer_has_a_share_of_the_connections_and_no_more() {
    let rig = Rig::with(|config| {
        only(config, |_| {});
        config.limits.connections_per_peer = 3;
    })
    .await;
    let mut held = Vec::new();
    for n in 0..3 {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(&Callback::new().id(&n.to_string()).bytes()).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
        held.push(peer);
    }
    let mut fourth = Peer::connect(rig.addr).await;
    fourth.write(&Callback::new().extra("X-Forwarded-For: 203.0.113.9\r\n").bytes()).await;
    assert!(fourth.reply().await.is_none(), "a forwarded address buys no connection");
    let mut first = held.swap_remove(0);
    first.stream.shutdown().await.unwrap();
    first.closed().await;
    // The place is given back when the receiver has seen the end, which the close above does not order.
    let mut again = None;
    for _ in 0..100 {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(&Callback::new().id("again").bytes()).await;
        again = peer.reply().await;
        if again.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(again.map(|reply| reply.status), Some(200));
    rig.end().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_open_as_many_as_there_are() {
    let rig = Rig::with(|config| {
        config.limits.connections_per_peer = 1;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let mut held = Vec::new();
    for n in 0..20 {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(&Callback::new().id(&n.to_string()).bytes()).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
        held.push(peer);
    }
    rig.end().await;
}

#[tokio::test]
async fn over_the_total_a_caller_waits_for_a_place() {
    let rig = Rig::with(|config| {
        only(config, |_| {});
        config.limits.connections = 2;
    })
    .await;
    let mut held = Vec::new();
    for n in 0..2 {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(&Callback::new().id(&n.to_string()).bytes()).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
        held.push(peer);
    }
    let mut third = Peer::connect(rig.addr).await;
    third.write(&Callback::new().id("third").bytes()).await;
    assert!(tokio::time::timeout(SHORT, third.reply()).await.is_err(), "no place yet");
    drop(held);
    assert_eq!(third.reply().await.unwrap().status, 200);
    rig.end().await;
}

/// Runs this very test in a child process that may open few files, and does there what the name says.
#[test]
fn without_file_descriptors_it_waits_and_recovers() {
    const CHILD: &str = "BCBRIDGE_TEST_FEW_FILES";
    if std::env::var_os(CHILD).is_none() {
        let name = "receiver_slow::without_file_descriptors_it_waits_and_recovers";
        let status = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\" --nocapture --test-threads=1"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::with(|config| only(config, |_| {})).await;
        let mut crowd = Vec::new();
        while let Ok(stream) = tokio::net::TcpStream::connect(rig.addr).await {
            crowd.push(stream);
        }
        // One connection stands in the system's queue and can't be taken: the loop must pause, not spin.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let errors = rig.metric("bcbridge_receiver_accept_errors_total");
        assert!((1..=12).contains(&errors), "{errors} failed accepts in half a second");
        drop(crowd);
        rig.assert_alive().await;
    });
}
