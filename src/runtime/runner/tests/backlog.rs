//! A partition that is full is stopped on its own, and nothing of it is lost.

use std::collections::BTreeSet;

use super::*;

/// More than a partition's window.
const BACKLOG: i64 = 20_000;

fn partition(number: i32) -> Partition {
    Partition { topic: "intake".into(), number }
}

/// Partitions with a backlog on each but the last, which has one record that comes to light last.
struct Log {
    backlogs: Vec<i64>,
    /// Of each record.
    value: Option<Bytes>,
    next: Vec<i64>,
    held: BTreeSet<i32>,
    paused: bool,
    is_assigned: bool,
    /// A record that comes although its partition is held.
    stray: Option<Consumed>,
}

impl Log {
    fn new(backlogs: &[i64], bytes: Option<usize>) -> Self {
        let value = bytes.map(|bytes| Bytes::from(vec![0; bytes]));
        let (backlogs, next) = ([backlogs, &[1]].concat(), vec![0; backlogs.len() + 1]);
        let (held, paused, is_assigned, stray) = (BTreeSet::new(), false, false, None);
        Self { backlogs, value, next, held, paused, is_assigned, stray }
    }

    /// The next record of a partition, if one is left.
    fn take(&mut self, number: usize) -> Option<Consumed> {
        let offset = Some(self.next[number]).filter(|next| *next < self.backlogs[number])?;
        self.next[number] += 1;
        let position = Position { partition: partition(i32::try_from(number).unwrap()), offset };
        let (key, value, headers, timestamp_ms) = (None, self.value.clone(), Vec::new(), None);
        Some(Consumed::Record(InRecord { position, key, value, headers, timestamp_ms }))
    }

    fn assignments(&self) -> Vec<Assignment> {
        let assignment = |number| {
            let partition = partition(i32::try_from(number).unwrap());
            Assignment { partition, committed: Some(0), metadata: String::new() }
        };
        (0..self.backlogs.len()).map(assignment).collect()
    }
}

struct Member(Arc<Mutex<Log>>, Arc<Notify>);

impl Member {
    fn poll(&self) -> Option<Consumed> {
        let mut log = self.0.lock().unwrap();
        if !std::mem::replace(&mut log.is_assigned, true) {
            return Some(Consumed::Assigned(log.assignments()));
        }
        if let Some(stray) = log.stray.take() {
            return Some(stray);
        }
        let flows: Vec<usize> = (0..log.next.len())
            .filter(|number| !log.paused && !log.held.contains(&i32::try_from(*number).unwrap()))
            .collect();
        flows.into_iter().find_map(|number| log.take(number))
    }
}

impl Consume for Member {
    type Group = ();
    type Error = Never;

    async fn next(&mut self) -> Result<Consumed, Never> {
        loop {
            if let Some(event) = self.poll() {
                return Ok(event);
            }
            self.1.notified().await;
        }
    }

    fn pause(&mut self, paused: bool) -> Result<(), Never> {
        self.0.lock().unwrap().paused = paused;
        self.1.notify_one();
        Ok(())
    }

    fn hold(&mut self, partition: &Partition, held: bool) -> Result<(), Never> {
        let mut log = self.0.lock().unwrap();
        if held {
            assert!(log.held.insert(partition.number), "told twice");
            // As the real one does: one more was on its way.
            log.stray = log.take(usize::try_from(partition.number).unwrap());
        } else {
            assert!(log.held.remove(&partition.number), "told twice");
        }
        self.1.notify_one();
        Ok(())
    }

    fn group(&self) -> Option<()> {
        Some(())
    }

    async fn committed(&mut self) -> Result<Vec<Assignment>, Never> {
        Ok(self.0.lock().unwrap().assignments())
    }
}

/// Settles nothing of the others before the record of the last partition came.
struct Patient {
    last: i32,
    /// Records that come in all.
    all: i64,
    waiting: VecDeque<Position>,
    is_free: bool,
    accepted: Arc<Mutex<Vec<Position>>>,
    done: Arc<Notify>,
}

impl Stage for Patient {
    type Done = ();

    fn restore(&mut self, _: &Partition, _: Recalled) {}

    fn accept(&mut self, record: InRecord, _: Instant) -> Vec<Settled> {
        self.accepted.lock().unwrap().push(record.position.clone());
        self.is_free |= record.position.partition.number == self.last;
        self.waiting.push_back(record.position);
        Vec::new()
    }

    fn start(&mut self, _: Instant) -> Vec<Job<()>> {
        if self.is_free && !self.waiting.is_empty() {
            return vec![Box::pin(std::future::ready(()))];
        }
        Vec::new()
    }

    fn finish(&mut self, (): (), _: Instant) -> Vec<Settled> {
        let positions: Vec<Position> = self.waiting.drain(..self.waiting.len().min(700)).collect();
        if self.accepted.lock().unwrap().len() as i64 == self.all && self.waiting.is_empty() {
            self.done.notify_one();
        }
        vec![Settled { positions, records: Vec::new() }]
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn reset(&mut self) {}
}

/// Runs until all is settled: the positions in the order in which they were accepted.
async fn accepted(backlogs: &[i64], bytes: Option<usize>) -> Vec<Position> {
    let log = Arc::new(Mutex::new(Log::new(backlogs, bytes)));
    let stage = Patient {
        last: i32::try_from(backlogs.len()).unwrap(),
        all: backlogs.iter().sum::<i64>() + 1,
        waiting: VecDeque::new(),
        is_free: false,
        accepted: Arc::default(),
        done: Arc::default(),
    };
    let (accepted, done, broker) = (stage.accepted.clone(), stage.done.clone(), Arc::new(Broker::default()));
    let member = Member(log.clone(), Arc::new(Notify::new()));
    let runner = Runner::new("test", (member, Producer(broker.clone()), Reader(broker)), stage, Silent);
    let ran = runner.run(async move { done.notified().await }, Duration::from_secs(60));
    tokio::time::timeout(Duration::from_secs(600), ran).await.expect("the last partition is stuck").unwrap();
    assert!(log.lock().unwrap().held.is_empty(), "all flow at the end");
    let accepted = accepted.lock().unwrap().clone();
    for (number, backlog) in backlogs.iter().enumerate() {
        let number = i32::try_from(number).unwrap();
        let of_partition = accepted.iter().filter(|position| position.partition.number == number);
        let offsets: Vec<i64> = of_partition.map(|position| position.offset).collect();
        assert_eq!(offsets, (0..*backlog).collect::<Vec<_>>(), "each once, in order");
    }
    accepted
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_hints_of_one_partition_do_not_hold_up_one_of_another() {
    let accepted = accepted(&[BACKLOG], None).await;
    let other = accepted.iter().position(|position| position.partition.number == 1).unwrap();
    assert_eq!(other as i64, crate::engine::checkpoint::WINDOW, "as soon as the first partition was full");
}

#[tokio::test(start_paused = true)]
async fn however_many_partitions_stand_still_another_one_flows() {
    for (backlogs, bytes) in [([100; 2].as_slice(), 1 << 20), (&[20; 11], 1 << 20), (&[2; 79], 1 << 20)] {
        accepted(backlogs, Some(bytes)).await;
    }
    accepted(&[BACKLOG; 4], None).await;
}
