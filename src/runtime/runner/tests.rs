//! Transactions of unknown outcome that settle no record: the ledger tells what became of them. And, in `backlog`, what
//! a partition that is far behind means for the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::*;
use crate::model::record::Assignment;
use crate::runtime::ports::{Job, Recalled};

/// What the broker holds, and what it answers to the next commits.
#[derive(Default)]
struct Broker {
    ledger: Mutex<BTreeMap<String, Bytes>>,
    commits: Mutex<u32>,
    /// For each commit in turn: whether it counts although its outcome is unknown.
    doubtful: Mutex<VecDeque<bool>>,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

struct Member(VecDeque<Consumed>);

impl Consume for Member {
    type Group = ();
    type Error = Never;

    async fn next(&mut self) -> Result<Consumed, Never> {
        match self.0.pop_front() {
            Some(event) => Ok(event),
            None => std::future::pending().await,
        }
    }

    fn pause(&mut self, _: bool) -> Result<(), Never> {
        Ok(())
    }

    fn hold(&mut self, _: &Partition, _: bool) -> Result<(), Never> {
        Ok(())
    }

    fn group(&self) -> Option<()> {
        Some(())
    }

    async fn committed(&mut self) -> Result<Vec<Assignment>, Never> {
        Ok(vec![assignment()])
    }
}

fn assignment() -> Assignment {
    let partition = Partition { topic: "signals".into(), number: 0 };
    Assignment { partition, committed: None, metadata: String::new() }
}

struct Producer(Arc<Broker>);

impl Produce<()> for Producer {
    async fn commit(
        &mut self,
        records: Vec<OutRecord>,
        _: Vec<OffsetCommit>,
        _: (),
    ) -> Result<(), NotCommitted> {
        let counts = self.0.doubtful.lock().unwrap().pop_front();
        if counts.unwrap_or(true) {
            *self.0.commits.lock().unwrap() += 1;
            let mut ledger = self.0.ledger.lock().unwrap();
            for record in records {
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                ledger.insert(key, record.value.unwrap());
            }
        }
        match counts {
            None => Ok(()),
            Some(_) => Err(NotCommitted::Unknown("no answer".into())),
        }
    }

    async fn identify(&mut self, _: &Partition) -> Result<(), NotCommitted> {
        Ok(())
    }
}

struct Reader(Arc<Broker>);

impl Recall for Reader {
    type Error = Never;

    async fn recall(&mut self, _: &Partition) -> Result<Recalled, Never> {
        Ok(self.0.ledger.lock().unwrap().clone().into())
    }
}

struct Silent;

impl Watch for Silent {
    fn revoked(&mut self) {}
    fn assigned(&mut self, _: usize) {}
    fn open(&mut self, _: usize) {}
    fn transaction(&mut self, _: bool, _: &[OutRecord], _: Duration) {}
}

/// Counts by itself up to a number, each step noted in the ledger.
struct Counter {
    next: Option<u32>,
    until: u32,
    is_busy: bool,
    done: Arc<Notify>,
}

impl Stage for Counter {
    type Done = u32;

    fn restore(&mut self, _: &Partition, ledger: Recalled) {
        assert!(ledger.values.is_empty());
        self.next = Some(1);
    }

    fn accept(&mut self, _: InRecord, _: Instant) -> Vec<Settled> {
        Vec::new()
    }

    fn start(&mut self, _: Instant) -> Vec<Job<u32>> {
        let Some(next) = self.next.filter(|_| !self.is_busy) else { return Vec::new() };
        if next > self.until {
            self.done.notify_one();
            return Vec::new();
        }
        self.is_busy = true;
        vec![Box::pin(std::future::ready(next))]
    }

    fn finish(&mut self, done: u32, _: Instant) -> Vec<Settled> {
        (self.is_busy, self.next) = (false, Some(done + 1));
        let record = |key: String| OutRecord {
            topic: "ledger".into(),
            partition: Some(0),
            key: Some(key.into()),
            value: Some(done.to_string().into()),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        vec![Settled {
            positions: Vec::new(),
            records: vec![record("state".into()), record(format!("page/{done}"))],
        }]
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn reset(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn a_transaction_without_offsets_is_tried_again_only_if_it_did_not_count() {
    for doubtful in [vec![false], vec![true], vec![false, false, true], vec![true, false, true, false]] {
        let broker = Arc::new(Broker::default());
        *broker.doubtful.lock().unwrap() = doubtful.clone().into();
        let done = Arc::new(Notify::new());
        let stage = Counter { next: None, until: 9, is_busy: false, done: done.clone() };
        let member = Member([Consumed::Assigned(vec![assignment()])].into());
        let ends = (member, Producer(broker.clone()), Reader(broker.clone()));
        let runner = Runner::new("test", ends, stage, Silent);
        runner.run(async move { done.notified().await }, Duration::from_secs(60)).await.unwrap();
        let pages =
            (1..=9).filter(|page| broker.ledger.lock().unwrap().contains_key(&format!("page/{page}")));
        assert_eq!(pages.count(), 9, "{doubtful:?}: nothing is lost");
        assert_eq!(broker.ledger.lock().unwrap()["state"], "9");
        assert!(*broker.commits.lock().unwrap() <= 9, "{doubtful:?}: nothing counts twice");
    }
}

/// A broker that does not answer.
struct Stuck(Arc<Notify>);

impl Recall for Stuck {
    type Error = Never;

    async fn recall(&mut self, _: &Partition) -> Result<Recalled, Never> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_to_stop_while_a_ledger_is_read_back_stops_at_once() {
    let (broker, asked) = (Arc::new(Broker::default()), Arc::new(Notify::new()));
    let stage = Counter { next: None, until: 9, is_busy: false, done: Arc::default() };
    let member = Member([Consumed::Assigned(vec![assignment()])].into());
    let runner = Runner::new("test", (member, Producer(broker), Stuck(asked.clone())), stage, Silent);
    let begun = now();
    let grace = Duration::from_secs(16);
    tokio::time::timeout(grace, runner.run(async move { asked.notified().await }, grace))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now(), begun, "nothing is waited for");
}

mod backlog;
mod hand_over;
