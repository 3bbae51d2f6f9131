//! Gatherings over time, by hand and by chance.

use proptest::prelude::*;

use super::*;
use crate::model::hint::Trigger;
use crate::model::ids::EntityKey;
use crate::model::record::Partition;

const WINDOWS: Windows = Windows { quiet: Duration::from_millis(250), max_wait: Duration::from_secs(2) };

fn hint(id: u32, offset: i64, op: Op) -> Gathered {
    let id = id + 1;
    let key = EntityKey { entity: "product".into(), id: EntityId::parse(&id.to_string()).unwrap() };
    let trigger = Trigger { key, op, scope: "store/product/updated".into(), row: None };
    let partition = Partition { topic: "intake".into(), number: 0 };
    let position = Position { partition, offset };
    Gathered {
        hint: Hint {
            trigger,
            event: offset.to_string(),
            created_at: None,
            received_ms: 0,
            traceparent: None,
            carried_ms: None,
        },
        record: InRecord { position, timestamp_ms: None, key: None, value: None, headers: Vec::new() },
    }
}

#[test]
fn a_key_is_due_after_quiet_and_at_the_latest_after_the_longest_wait() {
    let start = Instant::now();
    let ms = |ms| start + Duration::from_millis(ms);
    let mut coalescer = Coalescer::new(WINDOWS);
    for step in 0..20 {
        coalescer.add(hint(0, step, Op::Update), ms(u64::try_from(step).unwrap() * 200));
        if step < 10 {
            assert_eq!(
                coalescer.due(Urgency::Live, ms(u64::try_from(step).unwrap() * 200 + 199)).count(),
                0,
                "{step}"
            );
        }
    }
    assert_eq!(coalescer.next_due(Urgency::Live), Some(ms(2000)));
    let id = EntityId::parse("1").unwrap();
    assert_eq!(coalescer.take(&id).unwrap().hints.len(), 20);
}

#[test]
fn a_hint_that_comes_during_the_read_causes_another() {
    let start = Instant::now();
    let id = EntityId::parse("1").unwrap();
    let mut coalescer = Coalescer::new(WINDOWS);
    coalescer.add(hint(0, 0, Op::Update), start);
    assert_eq!(coalescer.take(&id).unwrap().hints.len(), 1);
    coalescer.add(hint(0, 1, Op::Update), start);
    let late = start + Duration::from_secs(60);
    assert_eq!(coalescer.due(Urgency::Live, late).count(), 0, "one read at a time");
    coalescer.done(&id);
    assert_eq!(coalescer.due(Urgency::Live, late).count(), 1);
    assert_eq!(coalescer.take(&id).unwrap().hints.len(), 1);
    coalescer.done(&id);
    assert!(coalescer.is_empty());
}

#[test]
fn the_word_that_it_is_deleted_ends_the_wait_of_a_miss() {
    let start = Instant::now();
    let id = EntityId::parse("1").unwrap();
    let mut coalescer = Coalescer::new(WINDOWS);
    coalescer.add(hint(0, 0, Op::Update), start);
    let gathering = coalescer.take(&id).unwrap();
    coalescer.retry(&id, gathering, Wait::AtLatest(start + Duration::from_secs(60)), start);
    coalescer.add(hint(0, 1, Op::Delete), start);
    assert!(coalescer.next_due(Urgency::Live).unwrap() <= start + WINDOWS.max_wait);
}

#[test]
fn a_hint_that_joins_a_wait_for_a_newer_state_is_read_in_its_own_time() {
    let start = Instant::now();
    let id = EntityId::parse("1").unwrap();
    for (wait, due) in [
        (Wait::AtLatest(start + Duration::from_secs(30)), start + WINDOWS.quiet),
        (Wait::NotBefore(start + Duration::from_secs(30)), start + Duration::from_secs(30)),
    ] {
        let mut coalescer = Coalescer::new(WINDOWS);
        coalescer.add(hint(0, 0, Op::Update), start);
        let gathering = coalescer.take(&id).unwrap();
        coalescer.retry(&id, gathering, wait, start);
        coalescer.add(hint(0, 1, Op::Update), start);
        assert_eq!(coalescer.next_due(Urgency::Live), Some(due), "{wait:?}");
    }
}

#[test]
fn a_callback_makes_what_waits_patiently_urgent() {
    let start = Instant::now();
    let mut coalescer = Coalescer::new(WINDOWS);
    let mut swept = hint(0, 0, Op::Read);
    swept.hint.trigger.scope = Cause::Sweep.scope().unwrap().to_owned();
    coalescer.add(swept, start);
    let late = start + Duration::from_secs(9);
    assert_eq!(
        (coalescer.due(Urgency::Live, late).count(), coalescer.due(Urgency::Patient, late).count()),
        (0, 1)
    );
    coalescer.add(hint(0, 1, Op::Update), start);
    assert_eq!(
        (coalescer.due(Urgency::Live, late).count(), coalescer.due(Urgency::Patient, late).count()),
        (1, 0)
    );
    assert_eq!(coalescer.waiting().count(), 1);
}

proptest! {
    /// Whatever the order of adds, takes, ends and retries: every hint is in exactly one gathering that
    /// ends, and no key is read twice at once.
    #[test]
    fn no_hint_is_lost_or_doubled(steps in prop::collection::vec((0_u32..4, 0_u8..5), 1..300)) {
        let start = Instant::now();
        let mut coalescer = Coalescer::new(WINDOWS);
        let mut reading: HashMap<EntityId, Gathering> = HashMap::new();
        let (mut added, mut ended) = (0_i64, Vec::new());
        for (step, (id, what)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_millis(100) * u32::try_from(step).unwrap();
            match what {
                0..=2 => {
                    coalescer.add(hint(id, added, Op::Update), now);
                    added += 1;
                }
                _ => {
                    let due: Vec<EntityId> = coalescer.due(Urgency::Live, now).cloned().collect();
                    for id in due {
                        let gathering = coalescer.take(&id).unwrap();
                        prop_assert!(reading.insert(id, gathering).is_none());
                    }
                }
            }
            if what == 4 {
                for (id, gathering) in reading.drain() {
                    if step % 3 == 0 {
                        let later = now + Duration::from_secs(1);
                        let wait = if step % 2 == 0 { Wait::NotBefore(later) } else { Wait::AtLatest(later) };
                        coalescer.retry(&id, gathering, wait, now);
                    } else {
                        ended.extend(gathering.hints.iter().map(|g| g.record.position.offset));
                        coalescer.done(&id);
                    }
                }
            }
        }
        let late = start + Duration::from_secs(3600);
        for _ in 0..2 {
            for (id, gathering) in reading.drain() {
                ended.extend(gathering.hints.iter().map(|g| g.record.position.offset));
                coalescer.done(&id);
            }
            for id in coalescer.due(Urgency::Live, late).cloned().collect::<Vec<_>>() {
                let gathering = coalescer.take(&id).unwrap();
                reading.insert(id, gathering);
            }
        }
        for (id, gathering) in reading.drain() {
            ended.extend(gathering.hints.iter().map(|g| g.record.position.offset));
            coalescer.done(&id);
        }
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..added).collect::<Vec<_>>());
        prop_assert!(coalescer.is_empty());
    }
}
