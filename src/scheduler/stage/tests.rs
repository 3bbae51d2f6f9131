//! The leader's work against a store and topics in memory, with leaders that are replaced at any moment.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::testing::{START_MS, World};
use crate::model::hint::Cause;
use crate::model::request::Answer;
use crate::runtime::ports::Stage;
use crate::scheduler::ports::Gap;
use crate::scheduler::schedule::{Poll, Sweep};

const MINUTE: Duration = Duration::from_secs(60);

fn poll() -> Poll {
    Poll { every: MINUTE * 15, at_start: true, full: MINUTE * 60 * 24 }
}

fn sweep() -> Sweep {
    Sweep { every: MINUTE * 60, full: MINUTE * 60 * 24 }
}

fn fill(world: &World, ids: impl IntoIterator<Item = u64>, changed_s: i64) {
    world.store.things.lock().unwrap().extend(ids.into_iter().map(|id| (id, changed_s)));
}

fn kinds(world: &World) -> Vec<(String, Option<String>)> {
    let text = |told: &Value, name: &str| told[name].as_str().map(str::to_owned);
    world.told().iter().map(|told| (text(told, "type").unwrap(), text(told, "entity"))).collect()
}

#[tokio::test]
async fn a_poll_reads_all_at_first_and_then_what_changed() {
    let mut world = World::new(Some(poll()), None);
    fill(&world, 1..=25, 1_000);
    world.pass(MINUTE * 2).await;
    assert_eq!(world.hinted(), (1..=25).collect());
    assert!(world.hints().iter().all(|hint| hint.cause() == Cause::Poll && hint.carried_ms.is_some()));
    world.publish();
    world.out.clear();
    fill(&world, [7, 30], START_MS / 1_000 + 300);
    world.pass(MINUTE * 15).await;
    assert_eq!(world.hinted(), BTreeSet::from([7, 30]));
    assert_eq!(world.kept("scan/main/scan/"), 0);
    let last = world.store.calls.lock().unwrap().last().cloned().unwrap();
    assert!(
        last.contains("date_modified:min=2025-12-31T23:50:"),
        "ten minutes before the first poll began: {last}"
    );
}

#[tokio::test]
async fn what_vanished_is_looked_at_again_by_its_id() {
    let mut world = World::new(Some(Poll { full: MINUTE * 30, ..poll() }), None);
    fill(&world, 1..=25, 1_000);
    world.pass(MINUTE * 2).await;
    world.publish();
    world.out.clear();
    world.store.things.lock().unwrap().remove(&13);
    world.pass(MINUTE * 40).await;
    let gone: Vec<_> = world.hints().into_iter().filter(|hint| hint.carried_ms.is_none()).collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].trigger.key.to_string(), "product/13");
    assert_eq!(world.kept("scan/main/seen/"), 0, "what was met is forgotten with the scan");
}

#[tokio::test]
async fn a_sweep_finds_what_callbacks_missed_and_no_more() {
    let mut world = World::new(None, Some(sweep()));
    fill(&world, 1..=40, 1_000);
    for id in 1..=40 {
        world.topics.ledger.lock().unwrap().insert(format!("read/product/{id}"), "{}".into());
    }
    world.pass(MINUTE).await;
    assert!(world.hints().is_empty(), "the first sweep comes after its interval");
    // Changed, created and deleted, without a callback.
    fill(&world, [5], START_MS / 1_000 + 100);
    fill(&world, [99], 1_000);
    world.store.things.lock().unwrap().remove(&8);
    world.pass(MINUTE * 62).await;
    assert_eq!(world.hinted(), BTreeSet::from([5, 8, 99]));
    assert!(world.hints().iter().all(|hint| hint.cause() == Cause::Sweep));
}

#[tokio::test]
async fn a_snapshot_goes_on_after_its_leader_died_at_any_page() {
    for rounds in 1..12 {
        let mut world = World::new(None, None);
        fill(&world, 1..=95, 1_000);
        world.signal(&json!({ "id": "s1", "type": "snapshot.start", "store": "main" }));
        for _ in 0..rounds {
            world.round().await;
        }
        world.replace_leader();
        world.pass(Duration::from_secs(30)).await;
        let hints = world.hints();
        assert_eq!(world.hinted(), (1..=95).collect(), "after {rounds} rounds");
        assert_eq!(hints.len(), 95, "a page counts once");
        let events: BTreeSet<&str> = hints.iter().map(|hint| hint.event.as_str()).collect();
        assert_eq!(events.len(), 95);
        let kinds = kinds(&world);
        assert_eq!(kinds.first().unwrap().0, "accepted");
        assert_eq!(kinds.last().unwrap(), &("snapshot.done".to_owned(), None));
        assert_eq!(world.told().last().unwrap()["rows"], 95);
        assert_eq!(world.kept("scan/main/scan/") + world.kept("scan/main/run/"), 0);
    }
}

#[tokio::test]
async fn a_snapshot_rests_goes_on_and_stops_as_told() {
    let mut world = World::new(None, None);
    fill(&world, 1..=95, 1_000);
    world.signal(&json!({ "id": "s1", "type": "snapshot.start", "store": "main", "entities": ["product"] }));
    while world.hints().is_empty() {
        world.round().await;
    }
    world.signal(&json!({ "id": "p1", "type": "snapshot.pause", "snapshot": "s1" }));
    world.replace_leader();
    world.pass(MINUTE).await;
    let wake = world.stage.wake_at().map(|at| at.saturating_duration_since(world.now));
    assert!(wake.is_none_or(|wake| wake > Duration::from_secs(1)), "it is looked at again in {wake:?}");
    let rested = world.hints().len();
    assert!(rested < 40, "{rested} hints while it rests");
    world.signal(&json!({ "id": "r1", "type": "snapshot.resume", "snapshot": "s1" }));
    world.round().await;
    world.signal(&json!({ "id": "x1", "type": "snapshot.stop", "store": "main" }));
    world.pass(MINUTE).await;
    assert!(world.hints().len() < 95);
    let told: Vec<String> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    for kind in ["snapshot.paused", "snapshot.progress", "snapshot.stopped"] {
        assert!(told.iter().any(|told| told == kind), "{kind} is not in {told:?}");
    }
    assert_eq!(world.kept("scan/main/scan/") + world.kept("scan/main/run/"), 0);
}

#[tokio::test]
async fn scans_wait_while_the_incoming_path_is_behind() {
    let mut world = World::new(Some(poll()), None);
    fill(&world, 1..=25, 1_000);
    *world.topics.backlog.lock().unwrap() = 10_000;
    world.pass(MINUTE * 2).await;
    assert!(world.hints().is_empty() && world.store.calls.lock().unwrap().is_empty());
    *world.topics.backlog.lock().unwrap() = 0;
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.hinted().len(), 25);
}

#[tokio::test]
async fn trouble_is_waited_out_and_a_refusal_ends_the_scan_until_its_next_time() {
    let mut world = World::new(None, Some(sweep()));
    fill(&world, 1..=25, START_MS / 1_000);
    world.pass(MINUTE).await;
    *world.store.troubles.lock().unwrap() = vec![Answer::Doubtful, Answer::Unauthorized, Answer::Doubtful];
    world.pass(MINUTE * 65).await;
    assert_eq!(world.hinted().len(), 25, "trouble passes");
    *world.store.troubles.lock().unwrap() = vec![Answer::Forbidden, Answer::Forbidden];
    world.pass(MINUTE * 60).await;
    let failed = world.told();
    assert_eq!(failed.len(), 2, "both scans were refused: {failed:?}");
    let detail = failed[0]["detail"].as_str().unwrap();
    assert!(detail.contains("403") && detail.contains("store_v2_products_read_only"), "{detail}");
    world.out.clear();
    fill(&world, [77], START_MS / 1_000 + 7_300);
    world.pass(MINUTE * 60).await;
    assert!(world.hinted().contains(&77), "the next one runs as if nothing had happened");
}

#[tokio::test]
async fn a_list_that_makes_no_sense_is_given_up_until_its_next_time() {
    let mut world = World::new(Some(poll()), None);
    fill(&world, 1..=5, 1_000);
    world.store.nameless.store(true, Ordering::Relaxed);
    world.pass(MINUTE * 14).await;
    assert_eq!(world.store.calls.lock().unwrap().len(), 5, "tries of one page");
    let told = world.told();
    assert!(told[0]["detail"].as_str().unwrap().contains("no row of the list has an id"), "{told:?}");
    world.store.nameless.store(false, Ordering::Relaxed);
    world.pass(MINUTE * 5).await;
    assert_eq!(world.hinted().len(), 5);
}

#[tokio::test]
async fn two_sweeps_that_are_asked_for_at_once_both_end() {
    let mut world = World::new(None, None);
    fill(&world, 1..=5, 1_000);
    for id in ["s1", "s2"] {
        world.signal(&json!({ "id": id, "type": "sweep.start", "store": "main" }));
    }
    world.pass(MINUTE).await;
    let is_end = |told: &Value| told["type"] == "sweep.done" && told["entity"].is_null();
    let ended: BTreeSet<String> =
        world.told().iter().filter(|told| is_end(told)).map(|told| told["id"].to_string()).collect();
    assert_eq!(ended.len(), 2, "{:?}", world.told());
    assert_eq!(world.kept("scan/main/run/"), 0);
}

#[tokio::test]
async fn a_gap_is_repaired_from_its_beginning() {
    let mut world = World::new(None, None);
    fill(&world, 1..=25, START_MS / 1_000 - 5_000);
    fill(&world, [3, 4], START_MS / 1_000 - 100);
    for id in 1..=25 {
        world.topics.ledger.lock().unwrap().insert(format!("read/product/{id}"), "{}".into());
    }
    world.pass(MINUTE).await;
    assert!(world.hints().is_empty());
    world.upkeep.0.lock().unwrap().push(Gap { entities: Vec::new(), since_ms: START_MS - 200_000 });
    world.pass(MINUTE * 6).await;
    assert_eq!(world.hinted(), BTreeSet::from([3, 4]));
    assert_eq!(world.kept("hooks/main"), 1);
}

#[tokio::test]
async fn signals_that_are_wrong_are_refused_and_hold_nothing_up() {
    let mut world = World::new(None, None);
    for wrong in [
        json!({ "id": "a" }),
        json!({ "id": "b", "type": "snapshot.start", "store": "other" }),
        json!({ "id": "c", "type": "sync", "store": "main", "entity": "order", "ids": [1] }),
        json!({ "id": "d", "type": "snapshot.stop", "snapshot": "nothing" }),
        json!("no signal"),
    ] {
        world.signal(&wrong);
    }
    assert!(kinds(&world).iter().all(|(kind, _)| kind == "rejected"), "{:?}", world.told());
    assert!(world.told()[1]["detail"].as_str().unwrap().contains("there are: main"));
    world
        .signal(&json!({ "id": "e", "type": "sync", "store": "main", "entity": "product", "ids": [4, "9"] }));
    assert_eq!(world.hinted(), BTreeSet::from([4, 9]));
    assert!(world.hints().iter().all(|hint| hint.cause() == Cause::Sync));
    assert_eq!(kinds(&world).last().unwrap().0, "sync.done");
}
