//! A seeded simulation: the real runner and the real incoming path against a broker, a store and a world that
//! fail in every way they can, on a clock that jumps. A run is repeated exactly by its seed, which every failure
//! prints.

mod broker;
mod cases;
mod check;
mod ledger;
mod lister;
mod load;
mod store;
mod visible;
mod world;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::broker::{Broker, Consumer, Producer};
use self::ledger::Recaller;
use self::lister::Lister;
use self::load::{Habits, Load};
use self::store::{Shop, Truth};
use self::world::World;
use crate::catalog::Catalog;
use crate::incoming::settings::{EntitySettings, StoreSettings};
use crate::incoming::stage::{Incoming, testing};
use crate::model::record::OutRecord;
use crate::runtime::runner::{Runner, RunnerError, Watch};

static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| Arc::new(Catalog::embedded().unwrap()));
static ENTITIES: LazyLock<BTreeMap<String, Arc<EntitySettings>>> = LazyLock::new(|| {
    let named = ["product", "order", "inventory_item"].into_iter();
    named.map(|name| (name.to_owned(), Arc::new(entity(name)))).collect()
});

/// Its lists show whole rows, and what has no date is read twice.
fn entity(name: &str) -> EntitySettings {
    let mut settings = testing::settings(name);
    let mut row = (*settings.row).clone();
    row.list =
        Some(toml::from_str("path = '/v3/all'\npages = 'page'\nwhole = true\ninclude = true").unwrap());
    settings.row = Arc::new(row);
    settings.second_read = Some(Duration::from_secs(60));
    settings
}

fn settings() -> StoreSettings {
    StoreSettings {
        name: "main".into(),
        hash: "abc123".into(),
        entities: ENTITIES.clone(),
        intake: broker::INTAKE.into(),
        dead_letters: "bigcommerce.main.dlq".into(),
        ledger: broker::LEDGER.into(),
        max_record_bytes: 1_000_000,
    }
}

struct Watcher(World);

impl Watch for Watcher {
    fn revoked(&mut self) {}
    fn assigned(&mut self, _: usize) {}
    fn open(&mut self, records: usize) {
        assert!(records <= 60_000);
    }
    fn transaction(&mut self, committed: bool, _: &[OutRecord], _: Duration) {
        self.0.saw(if committed { "committed" } else { "not committed" });
    }
}

/// A process of the bridge.
struct Process {
    member: u64,
    task: JoinHandle<Result<(), RunnerError>>,
    drain: Option<oneshot::Sender<()>>,
}

/// The processes, and what starts and ends them.
struct Fleet {
    world: World,
    broker: Broker,
    truth: Arc<Mutex<Truth>>,
    latency: std::ops::Range<u64>,
    processes: Vec<Process>,
    started: u64,
}

impl Fleet {
    fn start(&mut self) {
        self.started += 1;
        let (member, broker, world) = (self.started, self.broker.clone(), self.world.clone());
        let shop = Shop {
            world: world.clone(),
            broker: broker.clone(),
            truth: self.truth.clone(),
            member,
            latency: self.latency.clone(),
        };
        let clock = world.clone();
        let stage = Incoming::new(
            settings(),
            CATALOG.clone(),
            Arc::new(shop),
            Arc::new(()),
            Arc::new(move || clock.now_ms()),
        );
        let producer = Producer { broker: broker.clone(), owner: String::new(), epoch: 0 };
        let ends = (Consumer { broker: broker.clone(), member }, producer, Recaller(broker.clone()));
        let runner = Runner::new("incoming", ends, stage, Watcher(world));
        let (drain, drained) = oneshot::channel();
        let run = runner.run(async move { _ = drained.await }, Duration::from_secs(25));
        let task = crate::runtime::spawn("runner", run);
        broker.join(member);
        self.processes.push(Process { member, task, drain: Some(drain) });
    }

    /// Ends a process at once; the group learns of it when its session times out.
    fn kill(&mut self, at: usize) {
        let process = self.processes.remove(at);
        process.task.abort();
        self.world.saw("kill");
        let (broker, after) = (self.broker.clone(), self.world.draw(0..10_000));
        crate::runtime::spawn("session timeout", async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            broker.leave(process.member);
        });
    }

    /// Buries those that ended by themselves; a panic of theirs is ours.
    async fn bury(&mut self) {
        let (ended, alive) =
            std::mem::take(&mut self.processes).into_iter().partition(|p| p.task.is_finished());
        self.processes = alive;
        for process in Vec::<Process>::into_iter(ended) {
            self.broker.leave(process.member);
            match process.task.await {
                Ok(Ok(())) => self.world.saw("drained"),
                Ok(Err(_)) => self.world.saw("gave up"),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    /// Kills, starts, drains and rebalances, for so long.
    async fn torment(&mut self, lasts: Duration) {
        let end = tokio::time::Instant::now() + lasts;
        while tokio::time::Instant::now() < end {
            self.world.pause(200..8_000).await;
            self.bury().await;
            let chosen = self.world.draw(0..self.processes.len().max(1) as u64) as usize;
            match self.world.draw(0..10) {
                0..2 if !self.processes.is_empty() => self.kill(chosen),
                2 if !self.processes.is_empty() => {
                    _ = self.processes[chosen].drain.take().map(|drain| drain.send(()));
                }
                3..5 => self.broker.rebalance(),
                5 => {
                    let until = self.world.now_ms() + self.world.draw(0..20_000) as i64;
                    self.world.set_faults(|faults| faults.unauthorized_until = until);
                }
                _ if self.processes.len() < 3 => self.start(),
                _ => {}
            }
        }
    }

    /// Waits until everything is settled.
    ///
    /// # Panics
    /// That takes longer than a quarter of an hour.
    async fn rest(&mut self) {
        for _ in 0..900 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.bury().await;
            if self.processes.iter().all(|p| p.drain.is_none()) {
                self.start();
            }
            if self.broker.is_settled() {
                return;
            }
        }
        panic!("not settled after a quarter of an hour: {}", self.broker.describe());
    }
}

/// What a run was like.
struct Summary {
    seen: BTreeMap<&'static str, u64>,
    /// Of everything that readers saw, in order.
    trace: u64,
}

fn in_simulated_time<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(run)
}

/// One life of the bridge: faults chosen by the seed, then none, then rest, then the checks.
async fn life(seed: u64) -> Summary {
    let world = World::new(seed);
    let broker = Broker::new(&world, world.draw(1..5) as usize);
    let truth = Arc::new(Mutex::new(Truth::default()));
    let maybe = |most: f64| if world.chance(0.5) { most } else { 0.0 };
    let lag = maybe(0.3);
    world.set_faults(|faults| faults.lag = lag);
    let (abort, unknown, fence, busy) = (maybe(0.1), maybe(0.1), maybe(0.02), maybe(0.05));
    let (doubtful, garbled, slow) = (maybe(0.05), maybe(0.02), maybe(0.05));
    world.set_faults(|f| *f = world::Faults { abort, unknown, fence, busy, doubtful, garbled, slow, ..*f });
    let habits = Habits {
        // The memory of an entity's events is bounded: no more of them than that between two repeats.
        pause_ms: world.draw(100..400),
        late_ms: [1, 500, 8_000][world.draw(0..3) as usize],
        repeats: 0.15,
        rest_ms: if lag > 0.0 { 5_000 } else { 0 },
    };
    let emitted = Arc::new(Mutex::new(Vec::new()));
    let load = Load {
        world: world.clone(),
        broker: broker.clone(),
        truth: truth.clone(),
        catalog: CATALOG.clone(),
        emitted: emitted.clone(),
        habits,
    };
    load.stock_up();
    let mut fleet = Fleet {
        world: world.clone(),
        broker: broker.clone(),
        truth: truth.clone(),
        latency: 5..150,
        processes: Vec::new(),
        started: 0,
    };
    fleet.start();
    let lasts = Duration::from_secs(world.draw(20..120));
    let lister = Lister { load: load.clone(), pause_ms: world.draw(2_000..20_000) };
    tokio::join!(load.run(lasts), lister.run(lasts), fleet.torment(lasts));
    world.set_faults(|faults| *faults = world::Faults { lag: faults.lag, ..world::Faults::default() });
    fleet.rest().await;
    broker.with_out(|out| check::history(&world, out, &emitted.lock().unwrap(), &truth.lock().unwrap()));
    let mut trace = DefaultHasher::new();
    broker.with_out(|out| {
        for visible in out {
            (visible.at_ms, &visible.record.topic, &visible.record.key, &visible.record.value)
                .hash(&mut trace);
        }
    });
    Summary { seen: world.seen(), trace: trace.finish() }
}

/// Runs the seeds on two threads; a failure names its seed.
fn check(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let seen = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = std::panic::AssertUnwindSafe(|| in_simulated_time(life(seed)));
                    let summary = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                        eprintln!("the seed was {seed}: BCBRIDGE_SIM_SEEDS={seed}..{}", seed + 1);
                        std::panic::resume_unwind(panic)
                    });
                    for (what, times) in summary.seen {
                        *seen.lock().unwrap().entry(what).or_default() += times;
                    }
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

/// The seeds to run: 200, or what `BCBRIDGE_SIM_SEEDS=7..8` says.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("BCBRIDGE_SIM_SEEDS") else { return 0..200 };
    let (from, to) = text.split_once("..").expect("seeds are given as 7..8");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn every_event_ends_in_exactly_one_record_whatever_fails() {
    let seeds = seeds();
    let is_whole = seeds.end - seeds.start >= 200;
    let seen = check(seeds);
    println!("{seen:#?}");
    for what in [
        "aborted",
        "batch",
        "busy",
        "committed",
        "deleted",
        "doubtful",
        "drained",
        "empty assignment",
        "fenced generation",
        "fenced producer",
        "garbled",
        "kill",
        "lag",
        "listed",
        "listed late",
        "not configured",
        "raw",
        "rebalance",
        "refused",
        "repeat",
        "slow",
        "tombstone",
        "transaction timed out",
        "unauthorized",
        "unknown",
        "unstable offsets",
    ] {
        assert!(!is_whole || seen.contains_key(what), "no run met {what:?}: not a test of it");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2] {
        let runs = [0; 2].map(|_| in_simulated_time(life(seed)));
        assert_eq!(runs[0].trace, runs[1].trace);
        assert_eq!(runs[0].seen, runs[1].seen);
    }
}
