//! What becomes of an id that came before, when a command of it is dropped.

use super::*;
use crate::model::dead_letter::header as letter;
use crate::outgoing::known::Entry;

/// An order's update with an id of its own, under the key `a`.
fn again(offset: i64, id: &str, number: i64) -> InRecord {
    let mut value = note(number);
    value["id"] = json!(id);
    record(offset, Some("a"), Some(value.to_string().as_bytes()))
}

/// As `bcbridge dlq replay` sends it.
fn replayed(mut record: InRecord) -> InRecord {
    record.headers.push((letter::REPLAY_COUNT.to_owned(), Bytes::from_static(b"1")));
    record
}

/// A shipment's create, which nothing tells how to find again.
fn unsafe_create(offset: i64, id: &str) -> InRecord {
    let mut value = shipment();
    value["id"] = json!(id);
    record(offset, Some("a"), Some(value.to_string().as_bytes()))
}

fn partition() -> Partition {
    Partition { topic: COMMANDS.into(), number: 3 }
}

/// Halts the key `a` by the command `x`, lets these wait behind it, and drops them.
fn dropped(bench: &mut Bench, decisions: &Decisions, waiting: Vec<InRecord>) {
    bench.accept(again(50, "x", 7));
    waiting.into_iter().for_each(|record| bench.accept(record));
    bench.for_a_while();
    assert_eq!(bench.path.standing().counts(), (0, 1));
    release(decisions, "x", Some(100));
    bench.for_a_while();
    assert_eq!(bench.path.standing().counts(), (0, 0), "what is dropped halts nothing");
}

/// The outcome that the ledger holds of a command.
fn stored(ledger: &BTreeMap<String, Bytes>, id: &str) -> String {
    let entry: Value = serde_json::from_slice(&ledger[&format!("command/{id}")]).unwrap();
    entry["result"]["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn a_repeat_of_what_was_applied_keeps_its_answer_and_is_never_sent_again() {
    let (mut bench, decisions) = bench(refusing(&[7]), None);
    bench.accept(again(1, "y", 8));
    bench.for_a_while();
    let first = written(&bench)["command/y"].clone();
    dropped(&mut bench, &decisions, vec![again(51, "y", 8), again(52, "z", 9)]);
    let expected = [
        end("y", "applied", ""),
        end("x", "rejected", "refused"),
        end("y", "applied", ""),
        end("z", "rejected", "dropped"),
    ];
    assert_eq!(bench.ends(), expected);
    assert_eq!(written(&bench)["command/y"], first);
    let answer = bench.ended().nth(2).unwrap();
    assert_eq!(answer.records.len(), 1, "no dead letter, nothing for the ledger");
    assert_eq!(header_of(&answer.records[0], "bc_replayed").as_deref(), Some("1"));
    bench.accept(replayed(again(101, "y", 8)));
    bench.for_a_while();
    assert_eq!(bench.ends().last(), Some(&end("y", "applied", "")));
    assert_eq!(bench.store.sent().len(), 2, "y once, x once");
}

#[test]
fn a_repeat_of_what_was_applied_before_a_restart_is_answered_out_of_the_ledger() {
    let (mut first, _) = bench(refusing(&[7]), None);
    first.accept(again(1, "y", 8));
    first.for_a_while();
    let (mut second, decisions) = next(&first.store, None, written(&first));
    dropped(&mut second, &decisions, vec![again(51, "y", 8), again(52, "z", 9)]);
    let expected =
        [end("x", "rejected", "refused"), end("y", "applied", ""), end("z", "rejected", "dropped")];
    assert_eq!(second.ends(), expected);
    assert_eq!(*second.log.looked_up.lock().unwrap(), [["command/y"]]);
    assert!(!written(&second).contains_key("command/y"), "its entry stays as it is");
    assert_eq!(second.store.sent().len(), 2);
}

#[test]
fn what_may_have_been_applied_is_not_said_to_have_been_left_undone() {
    let position = |offset| Position { partition: partition(), offset };
    for of in [unsafe_create as fn(i64, &str) -> InRecord, |offset, id| {
        let mut value = create();
        value["id"] = json!(id);
        record(offset, Some("a"), Some(value.to_string().as_bytes()))
    }] {
        // It was about to be sent, and nothing tells what came of it.
        let intent = serde_json::to_vec(&Entry::intent("C", &position(51), 1_000)).unwrap();
        let ledger = BTreeMap::from([("command/y".to_owned(), Bytes::from(intent))]);
        let (mut bench, decisions) = next(&refusing(&[7]), None, ledger);
        dropped(&mut bench, &decisions, vec![of(51, "y"), again(52, "z", 9)]);
        let expected = [
            end("x", "rejected", "refused"),
            end("y", "unknown", "in_doubt"),
            end("z", "rejected", "dropped"),
        ];
        assert_eq!(bench.ends(), expected);
        assert_eq!(stored(&written(&bench), "y"), "unknown");
        assert_eq!(of_topic(bench.ended().nth(1).unwrap(), DLQ).len(), 1, "a person finds it there");
        assert_eq!(bench.store.sent().len(), 1, "it was not sent again");
    }
}

#[test]
fn a_replay_that_is_dropped_is_a_dead_letter_and_says_what_was_known_before() {
    for is_restarted in [false, true] {
        // The shipment is in doubt, the order 8 was refused.
        let store = FakeStore::new(|request, _| match request.path.as_str() {
            path if path.ends_with("/shipments") => doubtful(),
            _ => reply(Answer::Invalid, 422, "{}"),
        });
        let (mut before, decisions_before) = bench(store.clone(), None);
        before.accept(unsafe_create(1, "doubt"));
        before.for_a_while();
        release(&decisions_before, "doubt", None);
        before.for_a_while();
        before.accept(again(2, "no", 8));
        before.for_a_while();
        assert_eq!(before.ends(), [end("doubt", "unknown", "in_doubt"), end("no", "rejected", "refused")]);
        let sent = store.sent().len();
        release(&decisions_before, "no", None);
        before.for_a_while();
        let (mut bench, decisions) = match is_restarted {
            true => next(&store, None, written(&before)),
            false => {
                before.settled.clear();
                (before, decisions_before)
            }
        };
        let waiting = vec![replayed(unsafe_create(51, "doubt")), replayed(again(52, "no", 8))];
        dropped(&mut bench, &decisions, waiting);
        let expected = [
            end("x", "rejected", "refused"),
            end("doubt", "unknown", "in_doubt"),
            end("no", "rejected", "dropped"),
        ];
        assert_eq!(bench.ends(), expected, "{is_restarted}");
        assert!(bench.ended().all(|settled| of_topic(settled, DLQ).len() == 1));
        assert_eq!(stored(&written(&bench), "doubt"), "unknown");
        assert_eq!(store.sent().len(), sent + 1, "only x was sent");
    }
}

#[test]
fn what_the_ledger_does_not_tell_is_in_doubt_when_it_is_dropped() {
    for of in [unsafe_create as fn(i64, &str) -> InRecord, |offset, id| again(offset, id, 8)] {
        let (mut bench, decisions) = bench(refusing(&[7]), None);
        bench.path.clock = Arc::new(|| 601_000);
        let hash = crate::outgoing::ended::hash(LEDGER, "y");
        let trace = crate::runtime::ports::Trace { hash, at_ms: 1_000 };
        bench.path.restore(&partition(), Recalled { traces: vec![trace], ..Recalled::default() });
        bench.accept(again(50, "x", 7));
        bench.accept(of(51, "y"));
        bench.for_a_while();
        let decision = Decision { place: 0, at_ms: 700_000, drop_before: Some(100) };
        decisions.take("main", About::Command("x".into()), decision);
        bench.for_a_while();
        assert_eq!(bench.ends(), [end("x", "rejected", "refused"), end("y", "unknown", "in_doubt")]);
        assert_eq!((bench.store.sent().len(), bench.path.standing().counts()), (1, (0, 0)));
    }
}

#[test]
fn of_an_id_that_another_key_is_at_the_end_is_awaited() {
    let answers = Arc::new(Mutex::new(false));
    let may_end = answers.clone();
    let store = FakeStore::new(move |request, _| match request.path.as_str() {
        path if path.ends_with("/7") => reply(Answer::Invalid, 422, "{}"),
        _ if *may_end.lock().unwrap() => done("{}"),
        _ => busy(),
    });
    let (mut bench, decisions) = bench(store, None);
    let mut other = again(1, "y", 8);
    other.key = Some(Bytes::from_static(b"other"));
    bench.accept(other);
    dropped(&mut bench, &decisions, vec![again(51, "y", 8)]);
    assert_eq!(bench.ends(), [end("x", "rejected", "refused")]);
    *answers.lock().unwrap() = true;
    bench.for_a_while();
    bench.for_a_while();
    assert_eq!(bench.ends()[1..], [end("y", "applied", ""), end("y", "applied", "")]);
}

#[test]
fn an_id_that_is_being_dropped_is_not_begun_in_another_lane() {
    let (mut bench, decisions) = bench(refusing(&[7]), None);
    bench.accept(again(50, "x", 7));
    bench.accept(again(51, "y", 8));
    bench.for_a_while();
    release(&decisions, "x", Some(100));
    bench.now += Duration::from_secs(2);
    let mut jobs = bench.path.start(bench.now);
    let mut other = again(101, "y", 8);
    other.key = Some(Bytes::from_static(b"other"));
    bench.accept(other);
    jobs.extend(bench.path.start(bench.now));
    for job in jobs {
        let settled = bench.path.finish(block_on(job), bench.now);
        bench.settled.extend(settled);
    }
    bench.for_a_while();
    assert_eq!(bench.ends()[1..], [end("y", "rejected", "dropped"), end("y", "rejected", "dropped")]);
    assert_eq!(bench.store.sent().len(), 1);
}

#[test]
fn how_a_replay_ended_before_decides_what_its_drop_is_called() {
    let cases = [
        ("applied", ("applied", "")),
        ("partial", ("partial", "")),
        ("rejected", ("rejected", "dropped")),
        ("dead", ("dead", "dropped")),
        ("unknown", ("unknown", "in_doubt")),
    ];
    for (before, (outcome, reason)) in cases {
        let result = json!({"id": "y", "outcome": before}).to_string();
        let result = serde_json::value::RawValue::from_string(result).unwrap();
        let entry = serde_json::to_vec(&Entry::done(&result, 1_000)).unwrap();
        let ledger = BTreeMap::from([("command/y".to_owned(), Bytes::from(entry))]);
        let (mut bench, decisions) = next(&refusing(&[7]), None, ledger);
        dropped(&mut bench, &decisions, vec![replayed(again(51, "y", 8))]);
        assert_eq!(bench.ends()[1..], [end("y", outcome, reason)], "{before}");
        assert_eq!(bench.store.sent().len(), 1, "{before}: only x was sent");
    }
}
