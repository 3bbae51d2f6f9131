//! Guarded commands: nothing is written over a change, and a command's own change does not stand in its way.

use proptest::prelude::*;

use super::*;

const BEFORE: &str = "2026-01-01T00:00:00+00:00";
const LATER: &str = "2026-01-01T00:00:09+00:00";
const READ: &str = "GET /v3/catalog/products/77";
const WRITE: &str = r#"PUT /v3/catalog/products/77 {"name":"New"}"#;

fn product(version: &str, name: &str) -> Reply {
    done(&json!({"data": {"id": 77, "name": name, "price": "9.50", "date_modified": version}}).to_string())
}

fn guarded() -> Value {
    let mut value = update();
    value["expected_version"] = json!(BEFORE);
    value
}

/// The result of a command for a store that gives these replies, and what was sent.
fn run(value: &Value, replies: Vec<Reply>) -> (Value, Vec<String>) {
    let mut bench = Bench::new(FakeStore::scripted(replies));
    let result = bench.apply(value);
    (result, bench.store.sent())
}

fn outcome(result: &Value) -> (&str, &str) {
    (result["outcome"].as_str().unwrap(), result["reason"].as_str().unwrap_or_default())
}

#[test]
fn an_unchanged_thing_is_read_and_then_written() {
    let mut since = update();
    since["if_unmodified_since"] = json!("Thu, 01 Jan 2026 00:00:00 +0000");
    for value in [guarded(), since] {
        let (result, sent) = run(&value, vec![product(BEFORE, "Old"), product(LATER, "New")]);
        assert_eq!(outcome(&result), ("applied", ""));
        assert_eq!((&result["attempts"], &result["resource_id"]), (&json!(1), &json!("77")));
        assert_eq!(sent, [READ, WRITE]);
    }
}

#[test]
fn a_changed_thing_is_left_alone_and_only_versions_are_told() {
    let mut since = update();
    since["if_unmodified_since"] = json!("2026-01-01T00:00:08Z");
    for (value, expected) in [(guarded(), BEFORE), (since, "nothing after 2026-01-01T00:00:08Z")] {
        // Even if it holds what would be written: somebody else did it, on grounds of their own.
        let (result, sent) = run(&value, vec![product(LATER, "New")]);
        assert_eq!(outcome(&result), ("rejected", "stale"));
        assert_eq!(result["detail"], format!("date_modified is {LATER}, and {expected} was expected"));
        assert_eq!(
            (&result["body"], &result["status"], &result["attempts"]),
            (&json!(null), &json!(null), &json!(0))
        );
        assert_eq!(sent, [READ]);
    }
}

#[test]
fn a_thing_that_is_gone_is_missing_and_one_without_a_version_is_not_written() {
    let gone = reply(Answer::Missing, 404, "{}");
    assert_eq!(outcome(&run(&guarded(), vec![gone]).0), ("rejected", "missing"));
    assert_eq!(outcome(&run(&guarded(), vec![done("{\"data\":{\"id\":77}}")]).0), ("rejected", "bad_reply"));
    let forbidden = reply(Answer::Forbidden, 403, "");
    assert_eq!(outcome(&run(&guarded(), vec![forbidden]).0), ("rejected", "denied"));
}

#[test]
fn what_cannot_be_guarded_is_refused() {
    for (mut value, says) in [
        (create(), "does not name one thing by its id"),
        (
            json!({"entity": "product", "action": "upsert", "payload": {"sku": "S", "name": "N"}}),
            "does not name one thing",
        ),
        (
            json!({"entity": "inventory_adjustment", "action": "absolute", "payload": {"items": [{}]}}),
            "no date of change",
        ),
    ] {
        value["expected_version"] = json!("v");
        let (result, sent) = run(&value, Vec::new());
        assert_eq!(outcome(&result), ("rejected", "bad_field"));
        assert!(result["detail"].as_str().unwrap().contains(says), "{result}");
        assert!(sent.is_empty());
    }
}

#[test]
fn a_thing_in_a_list_is_found_by_its_id() {
    let value = json!({"entity": "customer", "action": "update", "path": {"customer_id": 3}, "payload": {"company": "C"},
        "expected_version": BEFORE});
    let rows = json!({"data": [{"id": 4, "date_modified": LATER}, {"id": 3, "date_modified": BEFORE}]});
    let (result, sent) = run(&value, vec![done(&rows.to_string()), done("{\"data\":[{\"id\":3}]}")]);
    assert_eq!(outcome(&result), ("applied", ""));
    assert_eq!(sent[0], "GET /v3/customers?id:in=3");
    let nobody = run(&value, vec![done("{\"data\":[]}")]).0;
    assert_eq!(outcome(&nobody), ("rejected", "missing"));
}

#[test]
fn each_further_write_is_read_for_again() {
    // 429 did not write; the thing changed while the command waited.
    let (result, sent) = run(&guarded(), vec![product(BEFORE, "Old"), busy(), product(LATER, "Other")]);
    assert_eq!(outcome(&result), ("rejected", "stale"));
    assert_eq!(sent, [READ, WRITE, READ]);
    let replies = vec![product(BEFORE, "Old"), doubtful(), product(BEFORE, "Old"), product(LATER, "New")];
    let (result, sent) = run(&guarded(), replies);
    assert_eq!((outcome(&result), &result["attempts"]), (("applied", ""), &json!(2)));
    assert_eq!(sent, [READ, WRITE, READ, WRITE]);
}

#[test]
fn a_write_in_doubt_that_came_through_is_known_by_what_the_thing_holds() {
    let (result, sent) = run(&guarded(), vec![product(BEFORE, "Old"), doubtful(), product(LATER, "New")]);
    assert_eq!(outcome(&result), ("applied", ""));
    assert_eq!((&result["attempts"], &result["resource_id"]), (&json!(1), &json!("77")));
    assert_eq!(sent, [READ, WRITE, READ], "its own change is not written again");
}

#[test]
fn a_write_in_doubt_and_a_change_that_is_not_its_own_is_unknown() {
    let (result, _) = run(&guarded(), vec![product(BEFORE, "Old"), doubtful(), product(LATER, "Other")]);
    assert_eq!(outcome(&result), ("unknown", "in_doubt"));
}

#[test]
fn a_delete_in_doubt_that_came_through_is_applied() {
    let value = json!({"entity": "product", "action": "delete", "path": {"product_id": 77}, "expected_version": BEFORE});
    let gone = || reply(Answer::Missing, 404, "{}");
    let (result, sent) = run(&value, vec![product(BEFORE, "Old"), doubtful(), gone()]);
    assert_eq!(outcome(&result), ("applied", ""));
    assert_eq!(sent, [READ, "DELETE /v3/catalog/products/77", READ]);
}

/// A process that ends after the write and before its result leaves the intent: the next one reads, and does not
/// take the first one's change for another's.
#[test]
fn a_restart_after_the_write_does_not_run_into_its_own_change() {
    for (name, expected) in [("New", ("applied", "")), ("Other", ("unknown", "in_doubt"))] {
        let store = FakeStore::new(move |_, number| match number {
            1 => product(BEFORE, "Old"),
            2 => doubtful(),
            _ => product(LATER, name),
        });
        let mut bench = Bench::new(store);
        bench.accept(command(7, &guarded()));
        // Intent, read, write: then it ends.
        for _ in 0..3 {
            for job in bench.path.start(bench.now) {
                assert!(bench.path.finish(block_on(job), bench.now).is_empty());
            }
        }
        assert_eq!(bench.store.sent(), [READ, WRITE]);
        let mut next = bench.crash();
        let result = next.apply(&guarded());
        assert_eq!(outcome(&result), expected);
        assert_eq!(result["attempts"], u32::from(name == "New"), "what was applied was sent");
        assert_eq!(next.store.sent(), [READ, WRITE, READ]);
    }
}

#[test]
fn a_guarded_command_that_ended_is_answered_again_without_a_read() {
    let mut bench = Bench::new(FakeStore::scripted(vec![product(BEFORE, "Old"), product(LATER, "New")]));
    assert_eq!(outcome(&bench.apply(&guarded())).0, "applied");
    assert_eq!(outcome(&bench.apply(&guarded())).0, "applied");
    assert_eq!(bench.store.sent().len(), 2);
}

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    Busy,
    /// It is lost before the store sees it.
    CutBefore,
    /// The store commits, and the answer is lost.
    CutAfter,
    /// Somebody else changes the thing first. Never right before a write: nothing could be done about that.
    ChangeBefore,
}

#[derive(Debug, Default)]
struct World {
    version: u32,
    ours: bool,
    our_writes: u32,
    other_writes: u32,
    cuts: u32,
    overwritten: bool,
}

impl World {
    fn answer(&mut self, request: &Request, fate: Fate) -> Reply {
        let is_write = request.method.as_str() == "PUT";
        if fate == Fate::ChangeBefore && !is_write {
            (self.version, self.ours, self.other_writes) = (self.version + 1, false, self.other_writes + 1);
        }
        if matches!(fate, Fate::Busy) {
            return busy();
        }
        self.cuts += u32::from(matches!(fate, Fate::CutBefore | Fate::CutAfter));
        if fate == Fate::CutBefore {
            return doubtful();
        }
        if is_write {
            self.overwritten |= self.version > 0 && !self.ours;
            (self.version, self.ours, self.our_writes) = (self.version + 1, true, self.our_writes + 1);
        }
        if fate == Fate::CutAfter {
            return doubtful();
        }
        let name = if self.ours { "New" } else { "Other" };
        product(&format!("2026-01-01T00:00:{:02}+00:00", self.version), name)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever befalls its requests, a guarded command overwrites no change, and says no more than it knows.
    #[test]
    fn a_guarded_command_overwrites_no_change_and_tells_the_truth(
        fates in prop::collection::vec(
            prop_oneof![
                3 => Just(Fate::Fine), 1 => Just(Fate::Busy), 1 => Just(Fate::CutBefore), 2 => Just(Fate::CutAfter),
                1 => Just(Fate::ChangeBefore)
            ],
            0..10,
        )
    ) {
        let world = Arc::new(Mutex::new(World::default()));
        let (inside, fates_of) = (world.clone(), fates.clone());
        let store = FakeStore::new(move |request, number| {
            let fate = fates_of.get(number - 1).copied().unwrap_or(Fate::Fine);
            inside.lock().unwrap().answer(request, fate)
        });
        let result = Bench::new(store).apply(&guarded());
        let world = world.lock().unwrap();
        prop_assert!(!world.overwritten, "{fates:?}: {world:?}");
        match outcome(&result) {
            ("applied", _) => prop_assert!(world.our_writes > 0, "{fates:?}: {world:?}"),
            ("rejected", "stale") => {
                prop_assert!(world.our_writes == 0 && world.other_writes > 0, "{fates:?}: {world:?}");
            }
            ("unknown", "in_doubt") => {
                prop_assert!(world.cuts > 0 && world.other_writes > 0, "{fates:?}: {world:?}");
            }
            other => prop_assert!(false, "{other:?} after {fates:?}: {world:?}"),
        }
    }
}
