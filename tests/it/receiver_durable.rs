//! What 200 means: appended, once, and not before.

use crate::receiver_support::*;
use bcbridge::receiver::Outcome;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn no_answer_comes_before_the_append_has_ended() {
    let rig = Rig::start().await;
    rig.intake.set(Mode::Hold);
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(&Callback::new().bytes()).await;
    rig.intake.entered.notified().await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), peer.reply()).await;
    assert!(early.is_err(), "an answer came before the append had ended");
    rig.intake.release.notify_one();
    assert_eq!(peer.reply().await.unwrap().status, 200);
    assert_eq!(rig.intake.deliveries().len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_callback_replayed_a_thousand_times_is_appended_once() {
    let rig = Rig::start().await;
    let bytes = Callback::new().bytes();
    let mut peer = Peer::connect(rig.addr).await;
    for _ in 0..500 {
        peer.write(&bytes).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
    let at_once = (0..50).map(|_| async {
        let mut peer = Peer::connect(rig.addr).await;
        for _ in 0..10 {
            peer.write(&bytes).await;
            assert_eq!(peer.reply().await.unwrap().status, 200);
        }
    });
    futures::future::join_all(at_once).await;
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 1);
    assert_eq!(rig.metrics.count(Outcome::Duplicate), 999);
    rig.end().await;
}

#[tokio::test]
async fn copies_that_arrive_during_the_append_wait_for_it() {
    let rig = Rig::start().await;
    rig.intake.set(Mode::Hold);
    let bytes = Callback::new().bytes();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = Peer::connect(rig.addr).await;
        peer.write(&bytes).await;
        peers.push(peer);
    }
    rig.intake.entered.notified().await;
    rig.intake.release.notify_one();
    for peer in &mut peers {
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
    assert_eq!(rig.intake.calls.load(Ordering::SeqCst), 1);
    rig.end().await;
}

#[tokio::test]
async fn different_events_with_one_hash_are_all_appended() {
    let rig = Rig::start().await;
    for n in 0..10 {
        assert_eq!(rig.status(&Callback::new().id(&format!("m{n}")).bytes()).await, 200);
    }
    assert_eq!(rig.intake.deliveries().len(), 10);
    rig.end().await;
}

#[tokio::test]
async fn what_could_not_be_made_durable_is_answered_503_and_taken_again_later() {
    let rig = Rig::start().await;
    rig.intake.set(Mode::Refuse);
    let mut peer = Peer::connect(rig.addr).await;
    for _ in 0..2 {
        peer.write(&Callback::new().bytes()).await;
        let reply = peer.reply().await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (503, 0));
    }
    rig.intake.set(Mode::Accept);
    peer.write(&Callback::new().bytes()).await;
    assert_eq!(peer.reply().await.unwrap().status, 200, "the connection was kept");
    assert_eq!(rig.intake.deliveries().len(), 1);
    assert_eq!(rig.metrics.count(Outcome::NotDurable), 2);
    rig.end().await;
}

#[tokio::test]
async fn a_panic_costs_its_own_request_only() {
    let rig = Rig::start().await;
    let mut bystander = Peer::connect(rig.addr).await;
    bystander.write(&Callback::new().id("before").bytes()).await;
    assert_eq!(bystander.reply().await.unwrap().status, 200);
    rig.intake.set(Mode::Panic);
    let reply = rig.send(&Callback::new().bytes()).await;
    assert_eq!((reply.status, reply.body.len()), (500, 0));
    assert_eq!(rig.metrics.count(Outcome::Panicked), 1);
    rig.intake.set(Mode::Accept);
    bystander.write(&Callback::new().id("after").bytes()).await;
    assert_eq!(bystander.reply().await.unwrap().status, 200);
    assert_eq!(rig.status(&Callback::new().bytes()).await, 200, "the id was not taken for durable");
    rig.end().await;
}

#[tokio::test]
async fn a_stop_lets_the_request_in_flight_end_and_takes_no_new_one() {
    let rig = Rig::start().await;
    rig.intake.set(Mode::Hold);
    let mut idle = Peer::connect(rig.addr).await;
    idle.write(b"POST /webhooks/main HTTP/1.1\r\n").await;
    let mut busy = Peer::connect(rig.addr).await;
    busy.write(&Callback::new().bytes()).await;
    rig.intake.entered.notified().await;
    rig.stop.cancel();
    idle.closed().await;
    assert!(!rig.served.is_finished());
    rig.intake.release.notify_one();
    let reply = busy.reply().await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("connection: close\r\n"), "{}", reply.head);
    busy.closed().await;
    let addr = rig.addr;
    rig.end().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_caller_who_came_before_the_stop_is_still_answered() {
    let rig = Rig::start().await;
    let mut peer = Peer::connect(rig.addr).await;
    while rig.metric("bcbridge_receiver_connections") == 0 {
        tokio::task::yield_now().await;
    }
    rig.stop.cancel();
    // Longer than it listens for late callers, shorter than it waits for the first request of one it has taken.
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    peer.write(&Callback::new().bytes()).await;
    let reply = peer.reply().await.expect("an answer");
    assert_eq!(reply.status, 200);
    rig.end().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_longer_than_its_deadline() {
    let rig = Rig::with(|config| config.deadlines.drain = std::time::Duration::from_millis(200)).await;
    rig.intake.set(Mode::Hold);
    let mut busy = Peer::connect(rig.addr).await;
    busy.write(&Callback::new().bytes()).await;
    rig.intake.entered.notified().await;
    rig.end().await;
    assert!(busy.reply().await.is_none());
}

#[tokio::test]
async fn a_sender_that_hangs_up_early_does_not_stop_the_append() {
    let rig = Rig::start().await;
    rig.intake.set(Mode::Hold);
    let mut peer = Peer::connect(rig.addr).await;
    peer.write(&Callback::new().bytes()).await;
    rig.intake.entered.notified().await;
    drop(peer);
    rig.intake.release.notify_one();
    rig.intake.set(Mode::Accept);
    // The repeat waits for the append that is under way, and finds it done.
    assert_eq!(rig.status(&Callback::new().bytes()).await, 200);
    assert_eq!(rig.intake.deliveries().len(), 1);
    rig.end().await;
}
