use proptest::prelude::*;

use super::*;
use crate::model::dead_letter::{DeadLetter, FailedAt};

const TOPIC: &str = "bigcommerce.main.commands";
const LETTERS: &str = "bigcommerce.main.dlq";

fn place(topic: &str, offset: i64) -> Position {
    Position { partition: Partition { topic: topic.into(), number: 0 }, offset }
}

/// A record of the origin topic.
fn command(offset: i64, key: Option<&str>) -> InRecord {
    InRecord {
        position: place(TOPIC, offset),
        timestamp_ms: Some(offset),
        key: key.map(|key| Bytes::from(key.to_owned())),
        value: Some(Bytes::from_static(br#"{"entity":"product","action":"update"}"#)),
        headers: vec![("x".to_owned(), Bytes::from_static(b"\xfe"))],
    }
}

/// What a topic holds of a record that was sent to it.
fn stood(record: OutRecord, offset: i64) -> InRecord {
    let headers = record.headers.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
    let position = place(&record.topic, offset);
    InRecord { position, timestamp_ms: Some(offset), key: record.key, value: record.value, headers }
}

fn dead(record: &InRecord, reason: Reason, offset: i64) -> InRecord {
    let letter = DeadLetter {
        reason,
        stage: FailedAt::Task,
        message: "no".into(),
        http_status: Some(404),
        response_body: None,
        request_id: None,
        attempts: 1,
        first_seen_ms: 7,
    };
    stood(letter.record(&LETTERS.into(), record), offset)
}

const RULES: Rules = Rules { max_replays: 3, force: false };

/// The verdicts of all letters, given what stands on the origin topic.
fn judged(rules: Rules, letters: &[InRecord], topic: &[InRecord], low: Option<i64>) -> Judge {
    let mut judge = Judge::new(rules);
    letters.iter().for_each(|letter| judge.letter(Letter::read(letter), true, true).unwrap());
    judge.reaches(&place(TOPIC, 0).partition, low);
    topic.iter().for_each(|record| judge.record(record));
    judge
}

fn check(rules: Rules, letters: &[InRecord], topic: &[InRecord], low: i64, expected: &[(Verdict, u64)]) {
    let counts: Vec<_> = judged(rules, letters, topic, Some(low)).counts().into_iter().collect();
    assert_eq!(counts, expected);
}

#[test]
fn a_letter_is_read_without_its_content_and_goes_back_byte_for_byte() {
    let failed = command(41, Some("product/7"));
    let record = dead(&failed, Reason::Missing, 3);
    let letter = Letter::read(&record);
    assert_eq!((letter.reason.as_str(), letter.status, letter.attempts), ("missing", Some(404), 1));
    assert_eq!((letter.entity.as_deref(), letter.action.as_deref()), (Some("product"), Some("update")));
    assert_eq!((&letter.origin, &letter.first), (&Some(place(TOPIC, 41)), &Some(place(TOPIC, 41))));
    let again = letter.again(&record).unwrap();
    assert_eq!((&*again.topic, again.partition), (TOPIC, Some(0)));
    assert_eq!((&again.key, &again.value), (&failed.key, &failed.value));
    let again = stood(again, 50);
    let names: Vec<_> = again.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x", "bc_dlq_replay_count", "bc_dlq_letter", "bc_dlq_origin", "bc_dlq_first_seen"]);
    assert_eq!(again.header("bc_dlq_replay_count"), Some("1"));
    assert_eq!(again.header("bc_dlq_letter"), Some("bigcommerce.main.dlq/0/3"));
    assert_eq!(dead_letter::first_position(&again), place(TOPIC, 41));
    // It fails again: it is still known where it stood first.
    let second = Letter::read(&dead(&again, Reason::Missing, 4));
    assert_eq!((second.origin, second.first), (Some(place(TOPIC, 50)), Some(place(TOPIC, 41))));
    assert_eq!((second.replays, second.first_seen_ms), (1, Some(7)));
}

#[test]
fn what_is_no_letter_is_shown_and_never_replayed() {
    let mut record = command(1, None);
    record.value = Some(Bytes::from_static(b"\xff"));
    let letter = Letter::read(&record);
    assert_eq!((letter.reason.as_str(), &letter.origin), ("", &None));
    assert_eq!(letter.again(&record), None);
    check(RULES, &[record], &[], 0, &[(Verdict::Lost, 1)]);
}

#[test]
fn a_newer_record_of_the_key_makes_a_letter_stale_unless_it_is_dead_as_well() {
    let (first, second) = (command(1, Some("a")), command(2, Some("a")));
    let (one, two) = (dead(&first, Reason::Missing, 0), dead(&second, Reason::Missing, 1));
    let topic = [first, second, command(3, Some("b"))];
    check(RULES, &[one.clone(), two], &topic, 0, &[(Verdict::Replay, 2)]);
    check(RULES, std::slice::from_ref(&one), &topic, 0, &[(Verdict::Stale, 1)]);
    let force = Rules { force: true, ..RULES };
    check(force, std::slice::from_ref(&one), &topic, 0, &[(Verdict::Replay, 1)]);
    // A dead one that may have been applied is newer state.
    let doubt = dead(&topic[1], Reason::InDoubt, 1);
    check(RULES, &[one, doubt], &topic, 0, &[(Verdict::InDoubt, 1), (Verdict::Stale, 1)]);
}

#[test]
fn where_records_were_deleted_nobody_can_tell() {
    let letter = dead(&command(5, Some("a")), Reason::Missing, 0);
    check(RULES, std::slice::from_ref(&letter), &[], 6, &[(Verdict::Replay, 1)]);
    check(RULES, std::slice::from_ref(&letter), &[], 7, &[(Verdict::Unsure, 1)]);
    let without_key = dead(&command(5, None), Reason::Missing, 0);
    check(RULES, &[without_key], &[], 7, &[(Verdict::Replay, 1)]);
    assert_eq!(judged(RULES, &[letter], &[], None).counts()[&Verdict::Lost], 1);
}

#[test]
fn a_letter_that_came_again_too_often_stays() {
    let mut record = command(5, Some("a"));
    record.headers.push((header::REPLAY_COUNT.to_owned(), Bytes::from_static(b"3")));
    let letter = dead(&record, Reason::Missing, 0);
    check(RULES, std::slice::from_ref(&letter), &[], 0, &[(Verdict::TooOften, 1)]);
    check(Rules { max_replays: 4, ..RULES }, &[letter], &[], 0, &[(Verdict::Replay, 1)]);
}

#[test]
fn a_callback_that_stood_nowhere_is_looked_for_since_it_was_put_aside() {
    let mut record = command(-1, Some("event-1"));
    record.position.partition.number = -1;
    let letter = dead(&record, Reason::Quarantined, 9);
    let mut judge = Judge::new(RULES);
    judge.letter(Letter::read(&letter), true, false).unwrap();
    assert_eq!(judge.stretches(), [Stretch::Since(TOPIC.into(), 9)]);
    let again = judge.order(9)[0].again(&letter).unwrap();
    assert_eq!(again.partition, None);
    judge.record(&stood(again, 70));
    assert_eq!(judge.counts()[&Verdict::Done], 1);
}

#[test]
fn a_filter_needs_all_its_conditions_and_one_item_of_each() {
    let letter = Letter::read(&dead(&command(5, Some("a")), Reason::Missing, 8));
    let text = |text: &str| vec![text.to_owned()];
    assert!(Filter::default().is_empty() && Filter::default().covers(&letter));
    for (filter, covers) in [
        (Filter { reasons: vec!["refused".into(), "missing".into()], ..Filter::default() }, true),
        (Filter { reasons: text("missing"), statuses: vec![409], ..Filter::default() }, false),
        (
            Filter { statuses: vec![404], entities: text("product"), keys: text("a"), ..Filter::default() },
            true,
        ),
        (Filter { keys: text("A"), ..Filter::default() }, false),
        (Filter { topics: text(TOPIC), ..Filter::default() }, true),
        (Filter { since_ms: Some(8), until_ms: Some(9), ..Filter::default() }, true),
        (Filter { until_ms: Some(8), ..Filter::default() }, false),
        (Filter { places: vec![(0, 8)], ..Filter::default() }, true),
        (Filter { places: vec![(1, 8)], ..Filter::default() }, false),
    ] {
        assert_eq!(filter.covers(&letter), covers, "{filter:?}");
    }
}

/// A store that applies commands or not, and a person who replays some letters from time to time.
#[derive(Default)]
struct World {
    topic: Vec<InRecord>,
    letters: Vec<InRecord>,
    /// Of each key, where what was applied stood first.
    applied: std::collections::BTreeMap<Bytes, Vec<i64>>,
    replayed: std::collections::BTreeSet<Position>,
}

impl World {
    fn take(&mut self, record: InRecord, works: bool) {
        let first = dead_letter::first_position(&record).offset;
        if works {
            self.applied.entry(record.key.clone().unwrap()).or_default().push(first);
        } else {
            self.letters.push(dead(&record, Reason::Missing, self.letters.len() as i64));
        }
        self.topic.push(record);
    }

    fn replay(&mut self, limit: usize, works: bool) {
        let judge = judged(Rules { max_replays: 9, force: false }, &self.letters, &self.topic, Some(0));
        for letter in judge.order(limit) {
            assert!(self.replayed.insert(letter.position.clone()), "{} went back twice", letter.position);
            let record = &self.letters[letter.position.offset as usize];
            let again = stood(letter.again(record).unwrap(), self.topic.len() as i64);
            self.take(again, works);
        }
    }
}

proptest! {
    #[test]
    fn nothing_goes_back_twice_or_over_newer_state(
        steps in prop::collection::vec((0..4_u8, 0..3_u8, any::<bool>(), 1..5_usize), 1..40),
    ) {
        let mut world = World::default();
        for (what, key, works, limit) in steps {
            match what {
                0 => world.replay(limit, works),
                _ => {
                    let key = format!("k{key}");
                    let record = command(world.topic.len() as i64, Some(&key));
                    world.take(record, works);
                }
            }
        }
        for applied in world.applied.values() {
            prop_assert!(applied.is_sorted_by(|a, b| a < b), "{applied:?}");
        }
        // What is left over was overtaken, and an end without more failures brings back all else.
        world.replay(usize::MAX, true);
        world.replay(usize::MAX, true);
        let rules = Rules { max_replays: 9, force: false };
        let judge = judged(rules, &world.letters, &world.topic, Some(0));
        prop_assert!(judge.order(1).is_empty());
    }
}
