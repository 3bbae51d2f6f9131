//! What must be handed over is: opened with a note, ended before the partitions are given up, waited out where it was not.

use tokio::sync::mpsc;

use super::*;
use crate::engine::ownership;
use crate::runtime::lease::Lease;

/// All that happens, with the second in which it does.
struct World {
    begun: Instant,
    log: Mutex<Vec<String>>,
    ledger: Mutex<BTreeMap<String, Bytes>>,
    /// How often it was read back.
    recalls: Mutex<u32>,
    /// The membership is over, although nobody was told so.
    is_expelled: Mutex<bool>,
}

impl World {
    fn with(note: Option<Note>) -> Arc<Self> {
        let note = note.map(|note| (ownership::key(&partition()), Bytes::from(note.value("before", 1))));
        let ledger = Mutex::new(note.into_iter().collect());
        let (log, recalls, is_expelled) = Default::default();
        Arc::new(Self { begun: now(), log, ledger, recalls, is_expelled })
    }

    fn tell(&self, what: impl std::fmt::Display) {
        let second = (now() - self.begun).as_secs();
        self.log.lock().unwrap().push(format!("{second} {what}"));
    }

    fn note(&self) -> Option<Note> {
        self.ledger.lock().unwrap().get(&ownership::key(&partition())).map(|value| Note::read(value))
    }
}

fn partition() -> Partition {
    Partition { topic: "commands".into(), number: 0 }
}

fn assigned() -> Consumed {
    let assignment = Assignment { partition: partition(), committed: Some(7), metadata: String::new() };
    Consumed::Assigned(vec![assignment])
}

fn record(offset: i64) -> Consumed {
    let position = Position { partition: partition(), offset };
    Consumed::Record(InRecord { position, key: None, value: None, headers: Vec::new(), timestamp_ms: None })
}

struct Member {
    world: Arc<World>,
    events: mpsc::Receiver<Consumed>,
    was_revoked: bool,
}

impl Consume for Member {
    type Group = ();
    type Error = Never;

    async fn next(&mut self) -> Result<Consumed, Never> {
        if std::mem::take(&mut self.was_revoked) {
            self.world.tell("given up");
        }
        let Some(event) = self.events.recv().await else { return std::future::pending().await };
        self.was_revoked = matches!(event, Consumed::Revoked);
        Ok(event)
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
        let Consumed::Assigned(all) = assigned() else { unreachable!() };
        Ok(all)
    }
}

struct Ledger(Arc<World>);

impl Recall for Ledger {
    type Error = Never;

    async fn recall(&mut self, _: &Partition) -> Result<Recalled, Never> {
        *self.0.recalls.lock().unwrap() += 1;
        Ok(self.0.ledger.lock().unwrap().clone().into())
    }
}

impl Produce<()> for Ledger {
    async fn commit(
        &mut self,
        records: Vec<OutRecord>,
        offsets: Vec<OffsetCommit>,
        (): (),
    ) -> Result<(), NotCommitted> {
        if *self.0.is_expelled.lock().unwrap() {
            self.0.tell("fenced");
            return Err(NotCommitted::Fenced("another one has it".into()));
        }
        assert_eq!(offsets.len(), 1, "no transaction without a proof of membership");
        for record in records {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            self.0.ledger.lock().unwrap().insert(key, record.value.unwrap());
        }
        let (next, note) = (offsets[0].next, self.0.note());
        self.0.tell(format_args!("committed {next} {}", note.map_or("-", name)));
        Ok(())
    }

    async fn identify(&mut self, _: &Partition) -> Result<(), NotCommitted> {
        Ok(())
    }
}

fn name(note: Note) -> &'static str {
    match note {
        Note::Open => "open",
        Note::Clean => "clean",
        Note::Waits { .. } => "waits",
    }
}

/// Sends each record at once; a request takes as long as it is told to.
struct Sender {
    world: Arc<World>,
    takes: Duration,
    lease: Lease,
    todo: Vec<i64>,
    wake_at: Option<Instant>,
}

impl Stage for Sender {
    /// The offset, and whether it was sent.
    type Done = (i64, bool);

    fn restore(&mut self, _: &Partition, _: Recalled) {}

    fn accept(&mut self, record: InRecord, _: Instant) -> Vec<Settled> {
        self.todo.push(record.position.offset);
        Vec::new()
    }

    fn start(&mut self, now: Instant) -> Vec<Job<Self::Done>> {
        if self.wake_at.take_if(|at| *at > now).is_some() {
            return Vec::new();
        }
        let one = |offset: i64| -> Job<Self::Done> {
            let (world, lease, takes) = (self.world.clone(), self.lease.clone(), self.takes);
            Box::pin(async move {
                if lease.is_over(super::now()) {
                    world.tell(format_args!("kept {offset}"));
                    return (offset, false);
                }
                world.tell(format_args!("sent {offset}"));
                tokio::time::sleep(takes).await;
                (offset, true)
            })
        };
        std::mem::take(&mut self.todo).into_iter().map(one).collect()
    }

    fn finish(&mut self, (offset, was_sent): Self::Done, now: Instant) -> Vec<Settled> {
        if !was_sent {
            self.todo.push(offset);
            self.wake_at = Some(now + Duration::from_secs(1));
            return Vec::new();
        }
        let position = Position { partition: partition(), offset };
        vec![Settled { positions: vec![position], records: Vec::new() }]
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    fn reset(&mut self) {
        self.todo.clear();
    }

    fn owner_note(&self, partition: &Partition, note: Bytes) -> Option<OutRecord> {
        Some(OutRecord {
            topic: "ledger".into(),
            partition: Some(0),
            key: Some(ownership::key(partition).into()),
            value: Some(note),
            headers: Vec::new(),
            timestamp_ms: None,
        })
    }

    fn lease(&mut self, lease: Lease) {
        self.lease = lease;
    }
}

/// Each event in its second; then the process is told to stop in another one.
async fn run(world: &Arc<World>, takes: u64, events: Vec<(u64, Consumed)>, stop: u64) -> Vec<String> {
    let (tell, told) = mpsc::channel(events.len());
    let member = Member { world: world.clone(), events: told, was_revoked: false };
    let lease = Lease::unbounded();
    let takes = Duration::from_secs(takes);
    let stage = Sender { world: world.clone(), takes, lease, todo: Vec::new(), wake_at: None };
    let runner = Runner::new("test", (member, Ledger(world.clone()), Ledger(world.clone())), stage, Silent);
    let begun = world.begun;
    let at = move |second: u64| tokio::time::sleep_until((begun + Duration::from_secs(second)).into());
    let script = async move {
        for (second, event) in events {
            at(second).await;
            tell.send(event).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = runner.run(at(stop), Duration::from_secs(16)) => ended.unwrap(),
        () = script => {}
    }
    world.tell("ended");
    std::mem::take(&mut *world.log.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_opened_by_its_first_record_and_given_up_after_its_last_request() {
    let world = World::with(None);
    let events =
        vec![(0, assigned()), (3, record(7)), (5, record(8)), (6, Consumed::Revoked), (8, assigned())];
    let log = run(&world, 20, events, 40).await;
    let expected = [
        "3 committed 7 open",
        "3 sent 7",
        "5 sent 8",
        "23 committed 8 open",
        "25 committed 9 open",
        "25 committed 9 clean",
        "25 given up",
        "40 ended",
    ];
    assert_eq!(log, expected);
}

#[tokio::test(start_paused = true)]
async fn who_was_not_handed_a_partition_waits_and_says_until_when_at_once() {
    let world = World::with(Some(Note::Open));
    let log = run(&world, 1, vec![(0, assigned()), (1, record(7))], 50).await;
    let expected = [
        "0 committed 7 waits",
        "30 committed 7 open",
        "30 sent 7",
        "31 committed 8 open",
        "50 committed 8 clean",
        "50 ended",
    ];
    assert_eq!(log, expected);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_cut_off_and_leaves_no_clean_note() {
    let world = World::with(None);
    let log = run(&world, 100, vec![(0, assigned()), (0, record(7)), (5, Consumed::Revoked)], 60).await;
    assert_eq!(log, ["0 committed 7 open", "0 sent 7", "50 given up", "60 ended"]);
    let world = World::with(None);
    let log = run(&world, 100, vec![(0, assigned()), (0, record(7))], 10).await;
    assert_eq!(log, ["0 committed 7 open", "0 sent 7", "26 ended"]);
    assert_eq!(world.note(), Some(Note::Open));
}

#[tokio::test(start_paused = true)]
async fn who_is_stopping_takes_no_partition_on() {
    let world = World::with(None);
    let log = run(&world, 5, vec![(0, assigned()), (0, record(7)), (3, assigned())], 2).await;
    assert_eq!(log, ["0 committed 7 open", "0 sent 7", "3 ended"]);
    assert_eq!(*world.recalls.lock().unwrap(), 1, "its ledger is not read back");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_leaves_nothing_and_gives_up_at_once() {
    let world = World::with(None);
    let (expelled, at) = (world.clone(), world.begun + Duration::from_secs(4));
    let expel = async move {
        tokio::time::sleep_until(at.into()).await;
        *expelled.is_expelled.lock().unwrap() = true;
        std::future::pending::<Vec<String>>().await
    };
    let events = vec![(0, assigned()), (0, record(7)), (3, record(8)), (9, Consumed::Revoked)];
    let log = tokio::select! {
        log = run(&world, 10, events, 20) => log,
        never = expel => never,
    };
    let expected = ["0 committed 7 open", "0 sent 7", "3 sent 8", "10 fenced", "10 given up", "20 ended"];
    assert_eq!(log, expected);
    assert_eq!(world.note(), Some(Note::Open));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_frozen_sends_nothing_before_it_has_proved_that_it_is_a_member() {
    for is_expelled in [false, true] {
        let world = World::with(None);
        let frozen = world.clone();
        let freeze = async move {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            *frozen.is_expelled.lock().unwrap() = is_expelled;
            // All timers of the process at once, without a poll in between.
            tokio::time::advance(Duration::from_secs(10)).await;
            std::future::pending::<Vec<String>>().await
        };
        let events = vec![(0, assigned()), (0, record(7)), (5, record(8))];
        let log = tokio::select! {
            biased;
            never = freeze => never,
            log = run(&world, 1, events, 20) => log,
        };
        let proof = log.iter().position(|line| line == "12 committed 8 open" || line == "12 fenced");
        let proof = proof.expect("the membership is proved again");
        let sent = log.iter().position(|line| line.ends_with("sent 8"));
        assert_eq!(sent.is_none(), is_expelled, "{log:?}");
        assert!(sent.is_none_or(|sent| sent > proof), "{log:?}");
    }
}
