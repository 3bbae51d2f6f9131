//! A broker with the semantics that exactly-once rests on: transactions of records and offsets that are visible
//! together or never, fencing by group generation and by producer epoch, offsets that cannot be read while a
//! transaction on them is open, transaction markers and aborted records as gaps of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::visible::{Visible, text};
use super::world::World;
use crate::engine::checkpoint::Checkpoint;
use crate::model::hint::header;
use crate::model::record::{Assignment, InRecord, OffsetCommit, OutRecord, Partition, Position};
use crate::runtime::ports::{Consume, Consumed};

mod producer;

pub(super) use producer::Producer;

pub(super) const INTAKE: &str = "bigcommerce.main.webhooks";
pub(super) const LEDGER: &str = "bigcommerce.main.ledger";

/// `transaction.timeout.ms`.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the fake failed: never, but the port wants a type.
#[derive(Debug, thiserror::Error)]
#[error("never")]
pub(super) struct Never;

enum Told {
    Revoked,
    Assigned(u64, Vec<i32>),
}

#[derive(Default)]
struct Member {
    pending: VecDeque<Told>,
    generation: Option<u64>,
    /// Where it reads on, by partition.
    assigned: BTreeMap<i32, usize>,
    paused: bool,
    /// Partitions that are stopped on their own, of this assignment.
    held: BTreeSet<i32>,
    /// When each record was handed to it, of this assignment.
    delivered: HashMap<(i32, i64), i64>,
}

struct Open {
    number: u64,
    owner: String,
    records: Vec<OutRecord>,
    offsets: Vec<OffsetCommit>,
}

#[derive(Default)]
struct State {
    intake: Vec<Vec<Option<InRecord>>>,
    committed: Vec<(Option<i64>, String)>,
    ledger: Vec<BTreeMap<String, Bytes>>,
    out: Vec<Visible>,
    generation: u64,
    members: BTreeMap<u64, Member>,
    epochs: BTreeMap<String, u64>,
    open: Vec<Open>,
    transactions: u64,
    /// Where each event stands on the intake.
    places: HashMap<String, Vec<(i32, i64)>>,
}

/// See the module's text.
#[derive(Clone)]
pub(super) struct Broker {
    world: World,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Broker {
    /// What a new owner of an intake partition reads of the ledger.
    pub(super) async fn recall(&self, partition: &Partition) -> BTreeMap<String, Bytes> {
        self.world.pause(1..100).await;
        self.lock().ledger[partition.number as usize].clone()
    }

    pub(super) fn new(world: &World, partitions: usize) -> Self {
        let state = State {
            intake: vec![Vec::new(); partitions],
            committed: vec![(None, String::new()); partitions],
            ledger: vec![BTreeMap::new(); partitions],
            ..State::default()
        };
        let (state, changed) = (Arc::new(Mutex::new(state)), Arc::new(Notify::new()));
        Self { world: world.clone(), state, changed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Appends to the intake from outside of any transaction; the position's name for events without one.
    pub(super) fn append(&self, record: OutRecord) -> String {
        let mut state = self.lock();
        if self.world.chance(0.05) {
            let (partition, gaps) =
                (self.world.draw(0..state.intake.len() as u64), self.world.draw(1..6) as usize);
            state.intake[partition as usize].extend(std::iter::repeat_n(None, gaps));
        }
        let (partition, offset) = state.append(record, self.world.now_ms());
        self.changed.notify_waiters();
        format!("{partition}-{offset}")
    }

    pub(super) fn join(&self, member: u64) {
        self.lock().members.insert(member, Member::default());
        self.rebalance();
    }

    pub(super) fn leave(&self, member: u64) {
        if self.lock().members.remove(&member).is_some() {
            self.rebalance();
        }
    }

    /// Deals the partitions anew.
    pub(super) fn rebalance(&self) {
        self.world.saw("rebalance");
        let mut state = self.lock();
        state.generation += 1;
        let (generation, partitions) = (state.generation, state.intake.len());
        let ids: Vec<u64> = state.members.keys().copied().collect();
        let first = self.world.draw(0..1000) as usize;
        for (place, id) in ids.iter().enumerate() {
            let dealt = (0..partitions).filter(|p| (p + first) % ids.len() == place).map(|p| p as i32);
            let member = state.members.get_mut(id).unwrap();
            let dealt: Vec<i32> = dealt.collect();
            if dealt.is_empty() {
                self.world.saw("empty assignment");
            }
            member.pending.extend([Told::Revoked, Told::Assigned(generation, dealt)]);
        }
        self.changed.notify_waiters();
    }

    /// The group generation that a member works under.
    pub(super) fn generation(&self, member: u64) -> Option<u64> {
        self.lock().members.get(&member)?.generation
    }

    /// Whether a member takes no records of some partition.
    pub(super) fn is_paused(&self, member: u64) -> bool {
        let member = &self.lock().members[&member];
        member.paused || !member.held.is_empty()
    }

    /// Whether every record of the intake is covered by what is committed.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.intake.iter().zip(&state.committed).all(|(log, (next, metadata))| {
            let offsets = log.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(at, _)| at as i64);
            let Some(next) = next else { return log.iter().all(Option::is_none) };
            offsets.into_iter().all(|at| Checkpoint::covers(*next, metadata, at))
        })
    }

    /// The records that readers see, in order, by topic and key only where both are the same.
    pub(super) fn with_out<T>(&self, look: impl FnOnce(&[Visible]) -> T) -> T {
        look(&self.lock().out)
    }

    /// Something to print when a run does not end.
    pub(super) fn describe(&self) -> String {
        let state = self.lock();
        let logs: Vec<usize> = state.intake.iter().map(Vec::len).collect();
        let members: Vec<_> =
            state.members.iter().map(|(id, m)| (id, m.generation, &m.assigned, m.paused)).collect();
        format!("logs {logs:?}, committed {:?}, members {members:?}", state.committed)
    }

    fn stage(&self, open: Open) {
        let (number, broker) = (open.number, self.clone());
        self.lock().open.push(open);
        crate::runtime::spawn("transaction timeout", async move {
            tokio::time::sleep(TRANSACTION_TIMEOUT).await;
            if broker.abort_open(|open| open.number == number) {
                broker.world.saw("transaction timed out");
            }
        });
    }

    /// Ends a transaction, if nobody else ended it: everything of it becomes visible at once.
    fn end(&self, number: u64) -> bool {
        let mut state = self.lock();
        let Some(at) = state.open.iter().position(|open| open.number == number) else { return false };
        let open = state.open.remove(at);
        state.apply(open, self.world.now_ms());
        self.changed.notify_waiters();
        true
    }

    fn abort_open(&self, which: impl Fn(&Open) -> bool) -> bool {
        let mut state = self.lock();
        let (aborted, open): (Vec<_>, Vec<_>) = std::mem::take(&mut state.open).into_iter().partition(which);
        state.open = open;
        for open in &aborted {
            state.leave_gaps(&open.records);
        }
        self.changed.notify_waiters();
        !aborted.is_empty()
    }

    /// A new producer under an id: whatever the last one left open is aborted, and it can do no more.
    fn fence(&self, owner: &str) -> u64 {
        self.abort_open(|open| open.owner == owner);
        let mut state = self.lock();
        let epoch = state.epochs.entry(owner.to_owned()).or_default();
        *epoch += 1;
        *epoch
    }
}

impl State {
    fn partition_of(&self, record: &OutRecord) -> i32 {
        let key = record.key.as_deref().unwrap_or_default();
        let sum = key.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        record.partition.unwrap_or((sum % self.intake.len() as u64) as i32)
    }

    fn append(&mut self, record: OutRecord, now_ms: i64) -> (i32, i64) {
        let number = self.partition_of(&record);
        let log = &mut self.intake[number as usize];
        let offset = log.len() as i64;
        let headers = record.headers.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        let record = InRecord {
            position: Position { partition: Partition { topic: INTAKE.into(), number }, offset },
            timestamp_ms: Some(record.timestamp_ms.unwrap_or(now_ms)),
            key: record.key,
            value: record.value,
            headers,
        };
        let event = record.header(header::EVENT).filter(|event| !event.is_empty());
        let event = event.map_or_else(|| format!("{number}-{offset}"), str::to_owned);
        self.places.entry(event).or_default().push((number, offset));
        log.push(Some(record));
        (number, offset)
    }

    fn apply(&mut self, open: Open, at_ms: i64) {
        for record in open.records {
            match &*record.topic {
                INTAKE => {
                    let (partition, _) = self.append(record, at_ms);
                    self.intake[partition as usize].push(None);
                }
                LEDGER => {
                    let partition = record.partition.expect("the ledger's records name their partition");
                    let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                    match record.value {
                        Some(value) => self.ledger[partition as usize].insert(key, value),
                        None => self.ledger[partition as usize].remove(&key),
                    };
                }
                _ => self.out.push(Visible { record, at_ms }),
            }
        }
        for OffsetCommit { partition, next, metadata } in open.offsets {
            let committed = &mut self.committed[partition.number as usize];
            assert!(committed.0.is_none_or(|before| before <= next), "the committed offset went back");
            assert!(next <= self.intake[partition.number as usize].len() as i64, "beyond the log's end");
            assert!(metadata.len() <= 4096, "metadata of {} bytes", metadata.len());
            *committed = (Some(next), metadata);
        }
    }

    /// An aborted transaction's records stay in the log, and nobody sees them.
    fn leave_gaps(&mut self, records: &[OutRecord]) {
        for record in records.iter().filter(|record| &*record.topic == INTAKE) {
            let partition = self.partition_of(record);
            self.intake[partition as usize].extend([None, None]);
        }
    }

    /// Nothing may be published that was read before its hint was consumed, but what came along with it.
    fn check_read_after_consumed(&self, record: &OutRecord, member: u64) {
        let Some(read_at) = text(record, "bc_read_at") else { return };
        let read_at = read_at.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let member = &self.members[&member];
        for event in text(record, "bc_events").unwrap().split(',') {
            let places = self.places.get(event).unwrap_or_else(|| panic!("{event} was never sent"));
            let carried = |(partition, offset): &(i32, i64)| {
                let hint = self.intake[*partition as usize][*offset as usize].as_ref().unwrap();
                hint.header(header::CARRIED_AT).is_some_and(|at| at == read_at.to_string())
            };
            if places.iter().any(carried) {
                continue;
            }
            let first = places.iter().filter_map(|place| member.delivered.get(place)).min();
            assert!(
                first.is_some_and(|at| *at <= read_at),
                "{event} was consumed at {first:?}, read at {read_at}"
            );
        }
    }
}

/// A member of the group.
pub(super) struct Consumer {
    pub(super) broker: Broker,
    pub(super) member: u64,
}

impl Consumer {
    fn poll(&self) -> Option<Consumed> {
        let mut state = self.broker.lock();
        let State { members, intake, committed, open, .. } = &mut *state;
        let member = members.get_mut(&self.member)?;
        match member.pending.pop_front() {
            Some(Told::Revoked) => {
                member.generation = None;
                member.assigned.clear();
                member.held.clear();
                member.delivered.clear();
                return Some(Consumed::Revoked);
            }
            // Offsets with a transaction open on them are not stable: they cannot be read yet.
            Some(Told::Assigned(generation, partitions)) if is_open(open, &partitions) => {
                member.pending.push_front(Told::Assigned(generation, partitions));
                self.broker.world.saw("unstable offsets");
                return None;
            }
            Some(Told::Assigned(generation, partitions)) => {
                member.generation = Some(generation);
                let start = |p: &i32| (*p, committed[*p as usize].0.unwrap_or(0) as usize);
                member.assigned = partitions.iter().map(start).collect();
                return Some(Consumed::Assigned(assignments(committed, partitions)));
            }
            None if member.paused => return None,
            None => {}
        }
        let flows = |partition: &i32| !member.held.contains(partition);
        for (partition, at) in member.assigned.iter_mut().filter(|(partition, _)| flows(partition)) {
            let log = &intake[*partition as usize];
            while log.get(*at).is_some_and(Option::is_none) {
                *at += 1;
            }
            if let Some(Some(record)) = log.get(*at) {
                let offset = *at as i64;
                *at += 1;
                member.delivered.insert((*partition, offset), self.broker.world.now_ms());
                return Some(Consumed::Record(record.clone()));
            }
        }
        None
    }
}

fn is_open(open: &[Open], partitions: &[i32]) -> bool {
    open.iter().flat_map(|open| &open.offsets).any(|offset| partitions.contains(&offset.partition.number))
}

fn assignments(
    committed: &[(Option<i64>, String)],
    partitions: impl IntoIterator<Item = i32>,
) -> Vec<Assignment> {
    let assignment = |number: i32| Assignment {
        partition: Partition { topic: INTAKE.into(), number },
        committed: committed[number as usize].0,
        metadata: committed[number as usize].1.clone(),
    };
    partitions.into_iter().map(assignment).collect()
}

impl Consume for Consumer {
    type Group = (u64, u64);
    type Error = Never;

    async fn next(&mut self) -> Result<Consumed, Never> {
        loop {
            let changed = self.broker.changed.notified();
            if let Some(event) = self.poll() {
                return Ok(event);
            }
            changed.await;
        }
    }

    fn pause(&mut self, paused: bool) -> Result<(), Never> {
        if let Some(member) = self.broker.lock().members.get_mut(&self.member) {
            member.paused = paused;
        }
        self.broker.changed.notify_waiters();
        Ok(())
    }

    fn hold(&mut self, partition: &Partition, held: bool) -> Result<(), Never> {
        if let Some(member) = self.broker.lock().members.get_mut(&self.member) {
            match held {
                true => member.held.insert(partition.number),
                false => member.held.remove(&partition.number),
            };
        }
        self.broker.changed.notify_waiters();
        Ok(())
    }

    fn group(&self) -> Option<(u64, u64)> {
        Some((self.member, self.broker.generation(self.member)?))
    }

    async fn committed(&mut self) -> Result<Vec<Assignment>, Never> {
        loop {
            let changed = self.broker.changed.notified();
            {
                let state = self.broker.lock();
                let assigned = state.members.get(&self.member).map(|m| m.assigned.keys().copied().collect());
                let assigned: Vec<i32> = assigned.unwrap_or_default();
                if !is_open(&state.open, &assigned) {
                    return Ok(assignments(&state.committed, assigned));
                }
            }
            self.broker.world.saw("unstable offsets");
            changed.await;
        }
    }
}
