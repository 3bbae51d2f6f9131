//! Entries of the ledger that are outdated, and commands that come with their ids.

use super::*;

fn partition(number: i32) -> Partition {
    Partition { topic: COMMANDS.into(), number }
}

/// What is read back of a ledger that holds outdated entries of so many ids.
fn outdated(ids: i64) -> Recalled {
    let entry = |id| (format!("command/c-{id}"), Bytes::new());
    BTreeMap::from_iter((0..ids).map(entry)).into()
}

/// A shipment's create, under a key of its own: of class C, so that it has an intent.
fn of(id: i64) -> InRecord {
    let mut value = shipment();
    value["id"] = json!(format!("c-{id}"));
    record(id, Some(&id.to_string()), Some(value.to_string().as_bytes()))
}

/// Runs all jobs for some seconds. Returns what was settled, which is not committed.
fn for_a_while(bench: &mut Bench) -> Vec<Settled> {
    let until = bench.now + Duration::from_secs(3);
    let mut all = Vec::new();
    while bench.now < until {
        for job in bench.path.start(bench.now) {
            all.extend(bench.path.finish(block_on(job), bench.now));
        }
        bench.now += Duration::from_millis(100);
    }
    all
}

fn deletions(settled: &[Settled]) -> Vec<&OutRecord> {
    let records = settled.iter().flat_map(|settled| &settled.records);
    records.filter(|record| &*record.topic == LEDGER && record.value.is_none()).collect()
}

#[test]
fn a_deletion_never_takes_the_entry_of_a_new_command() {
    const IDS: i64 = 350;
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    bench.path.restore(&partition(3), outdated(IDS));
    (0..IDS).for_each(|id| bench.accept(of(id)));
    for _ in 0..IDS {
        for settled in for_a_while(&mut bench) {
            bench.path.committed(&settled.positions);
            bench.settled.push(settled);
        }
        if bench.settled.len() == usize::try_from(IDS).unwrap() {
            break;
        }
    }
    let left = ledger(bench.settled.iter().flat_map(|settled| &settled.records));
    assert_eq!((bench.settled.len(), left.len()), (350, 350), "each has an entry");
}

#[test]
fn a_command_waits_while_the_old_entry_of_its_id_is_being_deleted() {
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    bench.path.restore(&partition(3), outdated(2));
    bench.accept(of(7));
    let first = for_a_while(&mut bench);
    assert_eq!(deletions(&first).len(), 2);
    let intents = |bench: &Bench| bench.log.records.lock().unwrap().len();
    assert_eq!(intents(&bench), 1);
    bench.accept(of(1));
    assert!(for_a_while(&mut bench).is_empty());
    assert_eq!(intents(&bench), 1, "an intent would not be in the order of the transactions");
    bench.path.committed(&first[0].positions);
    let second = for_a_while(&mut bench);
    assert_eq!((second.len(), intents(&bench)), (1, 2));
    assert_eq!(result(&second[0])["outcome"], "applied");
}

#[test]
fn what_two_partitions_have_in_common_is_deleted_once() {
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    bench.path.restore(&partition(3), outdated(40));
    bench.path.restore(&partition(5), outdated(40));
    (1_000..1_004).for_each(|id| bench.accept(of(id)));
    let settled = for_a_while(&mut bench);
    assert_eq!((settled.len(), deletions(&settled).len()), (4, 40));
}
