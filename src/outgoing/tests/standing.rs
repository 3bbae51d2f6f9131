//! Keys and routes that stand still, and how they go on.

mod dropped;

use super::*;

/// A bench whose route halts keys and stops at a share, and what people decide about it.
fn bench(store: Arc<FakeStore>, stop_at: Option<u8>) -> (Bench, Decisions) {
    let decisions = Decisions::default();
    let routes = vec![Route { on_failure: OnFailure::HaltKey, stop_at, ..route(&store) }];
    let log = Arc::new(FakeLog::default());
    let (catalog, ledger) = (Arc::clone(&CATALOG), log.clone());
    let config =
        OutgoingConfig { routes, catalog, limits: Limits::default(), decisions: decisions.clone(), ledger };
    let path = Outgoing::new(config, log.clone(), Arc::new(|| 1_000));
    (Bench { path, store, log, settled: Vec::new(), now: Instant::now() }, decisions)
}

/// A store that refuses the orders of these numbers.
pub(super) fn refusing(bad: &'static [u64]) -> Arc<FakeStore> {
    FakeStore::new(move |request, _| {
        let is_bad = bad.iter().any(|number| request.path.as_str().ends_with(&format!("/{number}")));
        if is_bad { reply(Answer::Invalid, 422, "{}") } else { done("{}") }
    })
}

pub(super) fn order(offset: i64, key: &str, number: i64) -> InRecord {
    let mut value = note(number);
    value["id"] = json!(format!("c-{offset}"));
    record(offset, Some(key), Some(value.to_string().as_bytes()))
}

impl Bench {
    /// Lets ten seconds pass.
    pub(super) fn for_a_while(&mut self) {
        let until = self.now + Duration::from_secs(10);
        while self.now < until {
            let jobs = self.path.start(self.now);
            if jobs.is_empty() {
                self.now = self.path.wake_at().unwrap_or(until).max(self.now + Duration::from_millis(1));
            }
            for job in jobs {
                let settled = self.path.finish(block_on(job), self.now);
                self.settled.extend(settled);
            }
        }
    }

    /// How commands ended, in the order of their ends: id, outcome, reason.
    pub(super) fn ends(&self) -> Vec<(String, String, String)> {
        let end = |settled: &Settled| {
            let result = result(settled);
            let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
            (text("id"), text("outcome"), text("reason"))
        };
        self.ended().map(end).collect()
    }

    /// What ended, without the ledger's notes of keys that go on.
    pub(super) fn ended(&self) -> impl Iterator<Item = &Settled> {
        self.settled.iter().filter(|settled| !settled.positions.is_empty())
    }
}

impl Standing {
    /// Routes, and keys.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.routes.len(), self.keys)
    }
}

fn end(id: &str, outcome: &str, reason: &str) -> (String, String, String) {
    (id.into(), outcome.into(), reason.into())
}

pub(super) fn release(decisions: &Decisions, command: &str, drop_before: Option<i64>) {
    decisions.take("main", About::Command(command.into()), Decision { place: 0, at_ms: 2_000, drop_before });
}

#[test]
fn a_key_whose_command_failed_waits_and_the_others_do_not() {
    let (mut bench, decisions) = bench(refusing(&[7]), None);
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let teller = told.clone();
    bench.path.watch_standing(Box::new(move |now| teller.lock().unwrap().push((now.routes.len(), now.keys))));
    for record in [order(1, "a", 7), order(2, "a", 8), order(3, "b", 9), order(4, "a", 10)] {
        bench.accept(record);
    }
    bench.for_a_while();
    assert_eq!(bench.ends(), [end("c-1", "rejected", "refused"), end("c-3", "applied", "")]);
    release(&decisions, "c-3", None);
    bench.for_a_while();
    assert_eq!(bench.ends().len(), 2, "that was about another command");
    release(&decisions, "c-1", None);
    bench.for_a_while();
    assert_eq!(bench.ends()[2..], [end("c-2", "applied", ""), end("c-4", "applied", "")]);
    assert_eq!(bench.path.standing().counts(), (0, 0));
    assert_eq!(*told.lock().unwrap(), [(0, 1), (0, 0)], "each change is told once");
}

#[test]
fn what_waited_is_dropped_and_what_comes_later_is_not() {
    let (mut bench, decisions) = bench(refusing(&[7]), None);
    for record in [order(1, "a", 7), order(2, "a", 8), order(3, "a", 9)] {
        bench.accept(record);
    }
    bench.for_a_while();
    release(&decisions, "c-1", Some(4));
    bench.accept(order(4, "a", 10));
    bench.for_a_while();
    let expected =
        [end("c-2", "rejected", "dropped"), end("c-3", "rejected", "dropped"), end("c-4", "applied", "")];
    assert_eq!(bench.ends()[1..], expected);
    let dropped = bench.ended().nth(1).expect("c-2 ended");
    assert_eq!(of_topic(dropped, DLQ).len(), 1, "what is dropped is a dead letter");
}

#[test]
fn a_halt_outlives_its_process_and_its_release_does_too() {
    let (mut first, _) = bench(refusing(&[7]), None);
    first.accept(order(1, "a", 7));
    first.for_a_while();
    let of_first = |bench: &Bench| ledger(bench.settled.iter().flat_map(|settled| &settled.records));
    let partition = Partition { topic: COMMANDS.into(), number: 3 };
    let (mut second, decisions) = bench(first.store.clone(), None);
    second.path.restore(&partition, recalled(&second.log, of_first(&first)));
    second.accept(order(2, "a", 8));
    second.for_a_while();
    assert!(second.settled.is_empty());
    release(&decisions, "c-1", None);
    second.for_a_while();
    assert_eq!(second.ends(), [end("c-2", "applied", "")]);
    let (mut third, _) = bench(first.store.clone(), None);
    let records = first.settled.iter().chain(&second.settled).flat_map(|settled| &settled.records);
    third.path.restore(&partition, recalled(&third.log, ledger(records)));
    assert_eq!(third.path.standing().counts(), (0, 0), "it was released");
    third.accept(order(3, "a", 9));
    third.for_a_while();
    assert_eq!(third.ends(), [end("c-3", "applied", "")]);
}

#[test]
fn a_key_of_which_nothing_waits_goes_on_in_the_ledger_as_well() {
    let (mut first, decisions) = bench(refusing(&[7]), None);
    first.accept(order(1, "a", 7));
    first.accept(order(2, "a", 8));
    first.for_a_while();
    release(&decisions, "c-1", Some(3));
    first.for_a_while();
    assert_eq!(first.ends()[1..], [end("c-2", "rejected", "dropped")]);
    assert_eq!(first.path.standing().counts(), (0, 0));
    let (mut second, _) = bench(first.store.clone(), None);
    let written = ledger(first.settled.iter().flat_map(|settled| &settled.records));
    let partition = Partition { topic: COMMANDS.into(), number: 3 };
    second.path.restore(&partition, recalled(&second.log, written));
    second.accept(order(3, "a", 9));
    second.for_a_while();
    assert_eq!(second.ends(), [end("c-3", "applied", "")]);
}

#[test]
fn a_key_that_halts_right_after_its_release_is_halted_in_the_ledger() {
    let (mut first, decisions) = bench(refusing(&[7]), None);
    first.accept(order(1, "a", 7));
    first.accept(order(2, "a", 7));
    first.for_a_while();
    release(&decisions, "c-1", None);
    first.for_a_while();
    assert_eq!(first.ends(), [end("c-1", "rejected", "refused"), end("c-2", "rejected", "refused")]);
    let (mut second, _) = bench(first.store.clone(), None);
    let written = ledger(first.settled.iter().flat_map(|settled| &settled.records));
    let partition = Partition { topic: COMMANDS.into(), number: 3 };
    second.path.restore(&partition, recalled(&second.log, written));
    assert_eq!(second.path.standing().counts(), (0, 1), "c-2 halted it, and nobody let it go on since");
    second.accept(order(3, "a", 9));
    second.for_a_while();
    assert!(second.settled.is_empty());
}

#[test]
fn a_route_of_which_too_many_commands_fail_stops_and_keeps_the_rest() {
    let store = FakeStore::new(|_, _| reply(Answer::Forbidden, 403, "{}"));
    let (mut bench, decisions) = bench(store, Some(50));
    for offset in 0..300 {
        bench.accept(order(offset, &format!("k-{offset}"), 1 + offset));
    }
    bench.for_a_while();
    let ended = bench.ended().count();
    assert!((100..150).contains(&ended), "{ended} commands ended before it stopped");
    assert_eq!(bench.path.standing().counts().0, 1);
    bench.accept(record(300, Some("k"), Some(b"not JSON")));
    bench.for_a_while();
    assert_eq!(bench.ended().count(), ended, "what comes later waits as well");
    decisions.take(
        "main",
        About::Route(COMMANDS.into()),
        Decision { place: 0, at_ms: 999, drop_before: None },
    );
    bench.for_a_while();
    assert_eq!(bench.ended().count(), ended, "it was decided before it stopped");
    decisions.take(
        "main",
        About::Route(COMMANDS.into()),
        Decision { place: 0, at_ms: 1_000, drop_before: None },
    );
    bench.for_a_while();
    assert_eq!(bench.ended().count(), 301, "each has one result");
}

#[test]
fn what_was_released_is_forgotten_with_a_later_transaction_and_not_before_it_was_noted() {
    let (mut bench, decisions) = bench(refusing(&[7]), None);
    bench.accept(order(1, "a", 7));
    bench.accept(order(2, "b", 7));
    bench.accept(order(3, "b", 8));
    bench.for_a_while();
    release(&decisions, "c-1", None);
    release(&decisions, "c-2", Some(4));
    bench.for_a_while();
    let noted = bench.settled.iter().position(|settled| settled.positions.is_empty()).unwrap();
    assert!(bench.settled[noted].records.iter().all(|record| record.value.is_some()));
    assert_eq!(halts(&written(&bench)).len(), 1, "what is to be dropped must be known to the end");
    bench.accept(order(4, "b", 8));
    bench.for_a_while();
    bench.accept(order(5, "c", 8));
    bench.for_a_while();
    assert!(halts(&written(&bench)).is_empty());
    assert_eq!(bench.ends().len(), 5);
}

#[test]
fn a_key_that_halts_again_is_not_forgotten_with_its_first_halt() {
    let (mut bench, decisions) = bench(refusing(&[7]), None);
    bench.accept(order(1, "a", 7));
    bench.for_a_while();
    release(&decisions, "c-1", None);
    bench.for_a_while();
    bench.accept(order(2, "a", 7));
    bench.accept(order(3, "b", 8));
    bench.for_a_while();
    let left = halts(&written(&bench));
    assert_eq!(left.len(), 1);
    assert_eq!((left[0]["state"].as_str(), left[0]["command"].as_str()), (Some("halted"), Some("c-2")));
}

/// What stands in the ledger about what stands still.
fn halts(ledger: &BTreeMap<String, Bytes>) -> Vec<Value> {
    let of_halts = ledger.iter().filter(|(key, _)| key.starts_with("halt/"));
    of_halts.map(|(_, value)| serde_json::from_slice(value).unwrap()).collect()
}

/// What a bench left in the ledger.
fn written(bench: &Bench) -> BTreeMap<String, Bytes> {
    ledger(bench.settled.iter().flat_map(|settled| &settled.records))
}

/// A bench that took the partition on with what another one left in the ledger.
fn next(store: &Arc<FakeStore>, stop_at: Option<u8>, ledger: BTreeMap<String, Bytes>) -> (Bench, Decisions) {
    let (mut next, decisions) = bench(store.clone(), stop_at);
    let partition = Partition { topic: COMMANDS.into(), number: 3 };
    next.path.restore(&partition, recalled(&next.log, ledger));
    (next, decisions)
}

#[test]
fn a_route_that_stopped_stays_so_over_a_restart_until_it_is_let_go_on() {
    let (mut first, _) = bench(refusing(&[7]), Some(50));
    (0..100).for_each(|offset| first.accept(order(offset, &format!("k-{offset}"), 7)));
    first.for_a_while();
    let stopped = written(&first);
    assert_eq!(first.path.standing().routes.len(), 1);
    let of_route = |ledger: &BTreeMap<String, Bytes>| {
        ledger
            .get(&format!("halt/{COMMANDS}/*3"))
            .map(|value| serde_json::from_slice::<Value>(value).unwrap())
    };
    let entry = of_route(&stopped).unwrap();
    assert_eq!(
        (entry["state"].as_str(), entry["why"].as_str()),
        (Some("halted"), Some("100 of the last 100 commands failed"))
    );
    let with_stop = first.settled.iter().find(|settled| {
        settled.records.iter().any(|record| record.key.as_deref().is_some_and(|key| key.ends_with(b"/*3")))
    });
    assert_eq!(with_stop.unwrap().positions.len(), 1, "it is written with the command that was one too many");

    let (mut second, decisions) = next(&first.store, Some(50), stopped.clone());
    second.accept(order(200, "late", 8));
    second.accept(record(201, None, Some(b"not JSON")));
    second.for_a_while();
    assert_eq!((second.settled.len(), second.path.standing().routes.len()), (0, 1));
    decisions.take(
        "main",
        About::Route(COMMANDS.into()),
        Decision { place: 0, at_ms: 1_000, drop_before: None },
    );
    second.for_a_while();
    assert_eq!(second.ends().len(), 2);
    second.accept(order(202, "later", 8));
    second.for_a_while();
    assert!(of_route(&written(&second)).is_none(), "it is noted, and then forgotten");

    // Settings that say that it never stops are a decision as well.
    let (mut third, _) = next(&first.store, None, stopped);
    third.accept(order(300, "last", 8));
    third.for_a_while();
    assert_eq!((third.ends().len(), third.path.standing().routes.len()), (1, 0));
    let forgets = |record: &OutRecord| {
        record.value.is_none() && record.key.as_deref().is_some_and(|key| key.ends_with(b"/*3"))
    };
    assert!(third.settled.iter().flat_map(|settled| &settled.records).any(forgets));
}

#[test]
fn a_stop_that_moved_on_with_its_partition_is_not_held_against_the_next_one() {
    let (mut bench, _) = bench(refusing(&[7]), Some(50));
    (0..100).for_each(|offset| bench.accept(order(offset, &format!("k-{offset}"), 7)));
    bench.for_a_while();
    bench.path.reset();
    assert_eq!(bench.path.standing(), Standing::default());
    let before = bench.settled.len();
    let mut other = order(7, "other", 8);
    other.position.partition.number = 5;
    bench.accept(other);
    bench.for_a_while();
    assert_eq!((bench.settled.len() - before, bench.path.standing().routes.len()), (1, 0));
}

#[test]
fn what_comes_while_a_route_goes_on_does_not_overtake_what_waited() {
    let (mut bench, decisions) = bench(refusing(&[7]), Some(50));
    for offset in 0..200 {
        bench.accept(order(offset, &format!("k-{offset}"), 7));
    }
    bench.for_a_while();
    assert_eq!(bench.path.standing().counts().0, 1);
    let before = bench.settled.len();
    bench.accept(order(200, "late", 8));
    decisions.take(
        "main",
        About::Route(COMMANDS.into()),
        Decision { place: 0, at_ms: 1_000, drop_before: None },
    );
    // It is let go on, and what waited has not been taken up yet.
    let jobs = bench.path.start(bench.now);
    bench.accept(order(201, "late", 9));
    for job in jobs {
        let settled = bench.path.finish(block_on(job), bench.now);
        bench.settled.extend(settled);
    }
    bench.for_a_while();
    let late = bench.ends().split_off(before).into_iter().map(|(id, _, _)| id);
    let late: Vec<String> = late.filter(|id| id == "c-200" || id == "c-201").collect();
    assert_eq!(late, ["c-200", "c-201"]);
}

#[test]
fn what_is_no_command_stops_a_mapped_route_and_not_one_of_commands() {
    for (fixed, stops) in
        [(None, false), (Some(Fixed { entity: "order".into(), action: "update".into() }), true)]
    {
        let store = FakeStore::new(|_, _| done("{}"));
        let (catalog, limits) = (Arc::clone(&CATALOG), Limits::default());
        let routes = vec![Route { fixed, stop_at: Some(50), ..route(&store) }];
        let log = Arc::new(FakeLog::default());
        let (decisions, ledger) = (Decisions::default(), log.clone());
        let config = OutgoingConfig { routes, catalog, limits, decisions, ledger };
        let mut path = Outgoing::new(config, log, Arc::new(|| 1_000));
        let ended: usize =
            (0..300).map(|offset| path.accept(record(offset, None, Some(b"{}")), Instant::now()).len()).sum();
        assert_eq!((ended, path.standing().counts().0), if stops { (100, 1) } else { (300, 0) });
    }
}
