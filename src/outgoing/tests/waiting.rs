//! However much stands still, other routes and other keys of the same store go on; and nothing of what waits is lost,
//! answered twice, or overtaken.

use proptest::prelude::*;

use super::standing::{order, refusing, release};
use super::*;
use crate::engine::lanes;

const OTHERS: &str = "others";
/// Lanes that are open at once on these benches.
const LANES: usize = 50;

/// A bench with a route as it is given, and one of another topic of the same store.
fn bench(store: &Arc<FakeStore>, first: Route<FakeStore>) -> (Bench, Decisions) {
    bench_with(store, first, Limits::default())
}

fn bench_with(store: &Arc<FakeStore>, first: Route<FakeStore>, limits: Limits) -> (Bench, Decisions) {
    let (decisions, log) = (Decisions::default(), Arc::new(FakeLog::default()));
    decisions.begin(0);
    let lanes = lanes::Limits { max_parallel: 4, max_open: LANES };
    let config = OutgoingConfig {
        routes: vec![first, Route { topic: OTHERS.into(), ..route(store) }],
        catalog: Arc::clone(&CATALOG),
        limits: Limits { lanes, ..limits },
        decisions: decisions.clone(),
        ledger: log.clone(),
    };
    let path = Outgoing::new(config, log.clone(), Arc::new(|| 1_000));
    (Bench { path, store: store.clone(), log, settled: Vec::new(), now: Instant::now() }, decisions)
}

/// A command of the other route. Partition 5 goes with the same one of the ledger as partition 3.
fn other(offset: i64, key: &str) -> InRecord {
    let mut record = order(1_000_000 + offset, key, 8);
    record.position = Position { partition: Partition { topic: OTHERS.into(), number: 5 }, offset };
    record
}

fn go_on(decisions: &Decisions, place: i64) {
    let decision = Decision { place, at_ms: 1_000, drop_before: None };
    decisions.take("main", About::Route(COMMANDS.into()), decision);
}

impl Bench {
    /// The offsets of what ended of a topic, in the order of their ends.
    fn offsets(&self, topic: &str) -> Vec<i64> {
        let positions = self.settled.iter().flat_map(|settled| &settled.positions);
        positions.filter(|position| &*position.partition.topic == topic).map(|at| at.offset).collect()
    }

    /// Fails the test unless these many commands ended, each once, and those of each key in order.
    fn has_all(&self, commands: i64, key_of: impl Fn(i64) -> i64) {
        let ended = self.offsets(COMMANDS);
        let mut sorted = ended.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..commands).collect::<Vec<_>>(), "each has one result");
        let mut last = HashMap::new();
        for offset in ended {
            let before = last.insert(key_of(offset), offset);
            assert!(before < Some(offset), "{offset} ended after {before:?}");
        }
    }
}

#[test]
fn a_route_that_stopped_leaves_the_lanes_to_the_others_and_goes_on_in_order() {
    let store = refusing(&[7]);
    let (mut bench, decisions) = bench(&store, Route { stop_at: Some(50), ..route(&store) });
    for offset in 0..400 {
        bench.accept(order(offset, &format!("k-{}", offset % 150), 7));
    }
    bench.for_a_while();
    assert_eq!(bench.path.standing().counts().0, 1);
    let before = bench.offsets(COMMANDS).len();
    for offset in 400..500 {
        bench.accept(order(offset, &format!("k-{}", offset % 150), 8));
    }
    (0..100).for_each(|offset| bench.accept(other(offset, &format!("o-{offset}"))));
    bench.for_a_while();
    assert_eq!(bench.offsets(OTHERS).len(), 100, "the other route goes on");
    assert_eq!(bench.offsets(COMMANDS).len(), before, "and the stopped one does not");
    for place in 0..5 {
        go_on(&decisions, place);
        bench.for_a_while();
    }
    bench.has_all(500, |offset| offset % 150);
    assert_eq!(bench.path.standing().counts(), (0, 0));
}

#[test]
fn more_halted_keys_than_there_are_lanes_hold_up_no_other_key() {
    let keys = 3 * i64::try_from(LANES).unwrap();
    let store = refusing(&[7]);
    let (mut bench, decisions) = bench(&store, Route { on_failure: OnFailure::HaltKey, ..route(&store) });
    for offset in 0..3 * keys {
        bench.accept(order(offset, &format!("k-{}", offset % keys), if offset < keys { 7 } else { 8 }));
    }
    bench.for_a_while();
    assert_eq!(bench.path.standing().counts().1 as i64, keys);
    bench.accept(order(3 * keys, "well", 8));
    bench.accept(other(0, "o"));
    bench.for_a_while();
    assert_eq!(bench.offsets(OTHERS).len(), 1, "another route goes on");
    assert_eq!(bench.offsets(COMMANDS).len() as i64, keys + 1, "and another key");
    for offset in 0..keys {
        let dropped = (offset % 2 == 0).then_some(2 * keys);
        release(&decisions, &format!("c-{offset}"), dropped);
    }
    bench.for_a_while();
    bench.has_all(3 * keys + 1, |offset| if offset == 3 * keys { -1 } else { offset % keys });
    let dropped = bench.ends().iter().filter(|(_, _, reason)| reason == "dropped").count();
    assert_eq!(dropped as i64, keys / 2, "what was to be dropped is, and nothing else");
}

#[test]
fn a_route_whose_keys_halt_without_end_stops_as_a_whole() {
    let store = refusing(&[7]);
    let halting = Route { on_failure: OnFailure::HaltKey, stop_at: None, ..route(&store) };
    let limits = Limits { halted_keys: 20, ..Limits::default() };
    let (mut bench, decisions) = bench_with(&store, halting, limits);
    (0..60).for_each(|offset| bench.accept(order(offset, &format!("k-{offset}"), 7)));
    bench.accept(other(0, "o"));
    bench.for_a_while();
    let (routes, keys) = bench.path.standing().counts();
    let under_way = Limits::default().requests;
    assert!(routes == 1 && (20..20 + under_way).contains(&keys), "{keys}, with what was under way");
    assert_eq!(bench.offsets(OTHERS), [0]);
    // A person lets all keys go on, and the route, until nothing stands still any more.
    let mut places = 0..;
    while bench.path.standing().counts() != (0, 0) {
        let place = places.next().filter(|place| *place < 60).expect("it comes to an end");
        for offset in 0..60 {
            let decision = Decision { place, at_ms: 2_000, drop_before: None };
            decisions.take("main", About::Command(format!("c-{offset}")), decision);
        }
        go_on(&decisions, place);
        bench.for_a_while();
    }
    bench.has_all(60, |offset| offset);
}

#[test]
fn a_route_that_is_let_go_on_too_early_keeps_the_rest() {
    let store = FakeStore::new(|_, _| done("{}"));
    let fixed = Some(Fixed { entity: "order".into(), action: "update".into() });
    let (mut bench, decisions) = bench(&store, Route { fixed, stop_at: Some(50), ..route(&store) });
    (0..450).for_each(|offset| bench.accept(record(offset, Some("k"), Some(b"{}"))));
    bench.for_a_while();
    for place in 0..3 {
        let ended = 100 * (place + 1);
        assert_eq!(
            bench.offsets(COMMANDS),
            (0..ended).collect::<Vec<_>>(),
            "those before it stopped, in order"
        );
        assert_eq!(bench.path.standing().counts().0, 1);
        go_on(&decisions, place);
        bench.for_a_while();
    }
    go_on(&decisions, 3);
    bench.for_a_while();
    assert_eq!(bench.offsets(COMMANDS), (0..450).collect::<Vec<_>>());
    bench.accept(record(450, Some("k"), Some(b"{}")));
    assert_eq!(bench.offsets(COMMANDS).last(), Some(&450), "nothing waits before it any more");
}

#[derive(Debug, Clone)]
enum Event {
    /// A command of a key comes, which the store takes or not.
    Comes(i64, bool),
    /// Time passes.
    Passes,
    /// A person lets the route go on, and all keys.
    GoesOn,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => (0_i64..120, prop::bool::weighted(0.3)).prop_map(|(key, is_well)| Event::Comes(key, is_well)),
        2 => Just(Event::Passes),
        1 => Just(Event::GoesOn),
    ]
}

fn check(events: &[Event], on_failure: OnFailure) {
    let store = refusing(&[7]);
    let first = Route { on_failure, stop_at: Some(60), ..route(&store) };
    let (mut bench, decisions) = bench(&store, first);
    let (mut keys, mut place) = (Vec::new(), 0);
    let mut go_on_all = |bench: &Bench| {
        go_on(&decisions, place);
        for (id, ..) in bench.ends() {
            decisions.take("main", About::Command(id), Decision { place, at_ms: 1_000, drop_before: None });
        }
        place += 1;
    };
    for event in events {
        match event {
            Event::Comes(key, is_well) => {
                let offset = keys.len() as i64;
                bench.accept(order(offset, &format!("k-{key}"), if *is_well { 8 } else { 7 }));
                keys.push(*key);
            }
            Event::Passes => bench.for_a_while(),
            Event::GoesOn => go_on_all(&bench),
        }
    }
    bench.accept(other(0, "o"));
    bench.for_a_while();
    assert_eq!(bench.offsets(OTHERS).len(), 1, "the other route goes on, whatever stands still");
    for _ in 0..keys.len() {
        if bench.path.standing().counts() == (0, 0) {
            break;
        }
        go_on_all(&bench);
        bench.for_a_while();
    }
    bench.has_all(keys.len() as i64, |offset| keys[usize::try_from(offset).unwrap()]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_stands_still_and_goes_on_each_command_ends_once_and_in_order(
        events in prop::collection::vec(event(), 0..500),
        halts in any::<bool>(),
    ) {
        check(&events, if halts { OnFailure::HaltKey } else { OnFailure::Skip });
    }
}
