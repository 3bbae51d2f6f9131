//! A partition that is full is stopped on its own, and nothing of it is lost.

use std::collections::BTreeSet;

use super::*;

/// More than a partition's window.
const BACKLOG: i64 = 20_000;

fn partition(number: i32) -> Partition {
    Partition { topic: "intake".into(), number }
}

/// Two partitions: a backlog on the first, and one record on the second, which comes to light last.
#[derive(Default)]
struct Log {
    next: [i64; 2],
    held: BTreeSet<i32>,
    paused: bool,
    is_assigned: bool,
    /// Records that came although their partition was held.
    stray: Option<i64>,
}

struct Member(Arc<Mutex<Log>>, Arc<Notify>);

impl Member {
    fn poll(&self) -> Option<Consumed> {
        let mut log = self.0.lock().unwrap();
        if !std::mem::replace(&mut log.is_assigned, true) {
            let assignment = |number| Assignment {
                partition: partition(number),
                committed: Some(0),
                metadata: String::new(),
            };
            return Some(Consumed::Assigned((0..2).map(assignment).collect()));
        }
        if let Some(offset) = log.stray.take() {
            return Some(record(0, offset));
        }
        let flows = |log: &Log, number: i32| !log.paused && !log.held.contains(&number);
        if flows(&log, 0) && log.next[0] < BACKLOG {
            log.next[0] += 1;
            return Some(record(0, log.next[0] - 1));
        }
        if flows(&log, 1) && log.next[1] < 1 {
            log.next[1] += 1;
            return Some(record(1, 0));
        }
        None
    }
}

fn record(number: i32, offset: i64) -> Consumed {
    let position = Position { partition: partition(number), offset };
    Consumed::Record(InRecord { position, key: None, value: None, headers: Vec::new(), timestamp_ms: None })
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
            log.stray = Some(log.next[0]).filter(|next| *next < BACKLOG);
            log.next[0] += i64::from(log.stray.is_some());
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
        let assignment =
            |number| Assignment { partition: partition(number), committed: Some(0), metadata: String::new() };
        Ok((0..2).map(assignment).collect())
    }
}

/// Settles nothing of the first partition before the record of the second came.
#[derive(Default)]
struct Patient {
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
        self.is_free |= record.position.partition.number == 1;
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
        if self.accepted.lock().unwrap().len() as i64 == BACKLOG + 1 && self.waiting.is_empty() {
            self.done.notify_one();
        }
        vec![Settled { positions, records: Vec::new() }]
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn reset(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_hints_of_one_partition_do_not_hold_up_one_of_another() {
    let (log, stage) = (Arc::new(Mutex::new(Log::default())), Patient::default());
    let (accepted, done, broker) = (stage.accepted.clone(), stage.done.clone(), Arc::new(Broker::default()));
    let member = Member(log.clone(), Arc::new(Notify::new()));
    let runner = Runner::new("test", (member, Producer(broker.clone()), Reader(broker)), stage, Silent);
    let ran = runner.run(async move { done.notified().await }, Duration::from_secs(60));
    tokio::time::timeout(Duration::from_secs(600), ran).await.expect("the other partition is stuck").unwrap();
    let accepted = accepted.lock().unwrap();
    let other = accepted.iter().position(|position| position.partition.number == 1).unwrap();
    assert_eq!(other as i64, crate::engine::checkpoint::WINDOW, "as soon as the first partition was full");
    let offsets: Vec<i64> =
        accepted.iter().filter(|position| position.partition.number == 0).map(|p| p.offset).collect();
    assert_eq!(offsets, (0..BACKLOG).collect::<Vec<_>>(), "each once, in order");
    assert!(log.lock().unwrap().held.is_empty(), "all flow at the end");
}
