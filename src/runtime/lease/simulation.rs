//! Seeded lives of a partition with five replicas that are killed, stopped, frozen and woken up every few seconds.
//!
//! A group coordinator in a few lines, owners as [`Tenure`] and [`Lease`] make them, and a store to which requests are
//! on their way for up to their deadline. Asked at each request: none of another owner's is on its way. Asked at the
//! end: there was progress all the time.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::engine::ownership::{Note, REQUEST_DEADLINE, Tenure};

const OWNERS: usize = 5;
/// Simulated minutes of each life.
const MINUTES: u64 = 20;
/// About four seconds of a debug build.
const LIVES: u64 = 40;
/// One step.
const TICK: u64 = 100;
const HEARTBEAT: u64 = 1_500;
const SESSION: u64 = 6_000;
/// What an owner may take to hand over: told by the coordinator, or told to stop.
const HAND_OVER: u64 = 45_000;
const GRACE: u64 = 16_000;
/// Longest time without a request that a life may see. A dead owner is noticed after 6 s and waited out for 32; a
/// rebalance takes as long as a request; and it may all happen to the next owner as well.
const PATIENCE: u64 = 150_000;

/// The coordinator, and the part of the broker that commits transactions.
#[derive(Default)]
struct Group {
    generation: u64,
    /// Members, and when each was heard of last.
    members: BTreeMap<usize, u64>,
    /// Those that have joined the next generation.
    joined: BTreeSet<usize>,
    is_rebalancing: bool,
    owner: Option<usize>,
    ledger: Option<Note>,
}

impl Group {
    fn join(&mut self, owner: usize, now: u64) {
        self.members.insert(owner, now);
        self.joined.insert(owner);
        self.is_rebalancing = true;
    }

    fn leave(&mut self, owner: usize) {
        self.joined.remove(&owner);
        self.is_rebalancing |= self.members.remove(&owner).is_some();
    }

    fn step(&mut self, rng: &mut StdRng, now: u64) {
        for owner in self.joined.iter().filter(|_| self.is_rebalancing) {
            self.members.insert(*owner, now);
        }
        let dead: Vec<usize> = self
            .members
            .iter()
            .filter(|(_, heard)| now - **heard > SESSION)
            .map(|(owner, _)| *owner)
            .collect();
        dead.into_iter().for_each(|owner| self.leave(owner));
        if self.is_rebalancing && self.members.keys().all(|owner| self.joined.contains(owner)) {
            self.generation += 1;
            (self.is_rebalancing, self.joined) = (false, BTreeSet::new());
            let members: Vec<usize> = self.members.keys().copied().collect();
            self.owner = (!members.is_empty()).then(|| members[rng.random_range(0..members.len())]);
        }
    }

    /// A transaction with a note and an offset: refused unless it comes from a member of this generation.
    fn commit(&mut self, owner: usize, generation: u64, note: Note) -> bool {
        let is_member = self.members.contains_key(&owner) && generation == self.generation;
        if is_member {
            self.ledger = Some(note);
        }
        is_member
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Runs,
    Frozen(u64),
    Dead(u64),
}

/// One replica.
struct Owner {
    state: State,
    /// By how much its wall clock is wrong, in milliseconds.
    skew_ms: i64,
    generation: u64,
    heartbeat_at: u64,
    /// Its assignment: which one, what it may do, and the ends of its requests.
    tenure: Option<(u64, Tenure)>,
    lease: Lease,
    requests: Vec<u64>,
    /// It hands over, until then at most.
    leaves_by: Option<u64>,
    is_stopping: bool,
}

struct World {
    rng: StdRng,
    origin: Instant,
    now: u64,
    group: Group,
    owners: Vec<Owner>,
    tenures: u64,
    /// Requests that may be on their way: of which tenure, and until when.
    on_the_wire: Vec<(u64, u64)>,
    last_sent: u64,
    longest_gap: u64,
    sent: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut rng, origin) = (StdRng::seed_from_u64(seed), Instant::now());
        let mut group = Group::default();
        let owners = (0..OWNERS).map(|owner| {
            group.join(owner, 0);
            Owner {
                state: State::Runs,
                skew_ms: rng.random_range(-900..900),
                generation: 0,
                heartbeat_at: 0,
                tenure: None,
                lease: Lease::new(origin),
                requests: Vec::new(),
                leaves_by: None,
                is_stopping: false,
            }
        });
        let owners = owners.collect();
        Self {
            rng,
            origin,
            now: 0,
            group,
            owners,
            tenures: 0,
            on_the_wire: Vec::new(),
            last_sent: 0,
            longest_gap: 0,
            sent: 0,
        }
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    /// Something happens to one of those that run, as long as two others do.
    fn churn(&mut self) {
        let at = self.rng.random_range(0..OWNERS);
        let running = self.owners.iter().filter(|owner| owner.state == State::Runs).count();
        // More often than not it hits the one that has the partition.
        let at = self.group.owner.filter(|_| self.rng.random_bool(0.5)).unwrap_or(at);
        if running <= 2 || self.owners[at].state != State::Runs {
            return;
        }
        match self.rng.random_range(0..3) {
            0 => self.die(at),
            1 => {
                let owner = &mut self.owners[at];
                owner.lease.end();
                (owner.is_stopping, owner.leaves_by) = (true, Some(self.now + GRACE));
            }
            _ => self.owners[at].state = State::Frozen(self.now + self.rng.random_range(500..90_000)),
        }
    }

    fn die(&mut self, at: usize) {
        let back = self.now + self.rng.random_range(1_000..30_000);
        let owner = &mut self.owners[at];
        owner.lease.end();
        owner.requests.clear();
        (owner.state, owner.tenure, owner.leaves_by, owner.is_stopping) =
            (State::Dead(back), None, None, false);
    }

    fn step(&mut self) {
        self.now += TICK;
        let (first, now) = (self.rng.random_range(0..OWNERS), self.now);
        for at in (0..OWNERS).map(|at| (first + at) % OWNERS) {
            match self.owners[at].state {
                State::Runs => self.run(at),
                State::Frozen(until) if now >= until => self.owners[at].state = State::Runs,
                State::Dead(until) if now >= until => {
                    self.owners[at].state = State::Runs;
                    self.group.leave(at);
                    self.group.join(at, now);
                }
                State::Frozen(_) | State::Dead(_) => {}
            }
        }
        self.group.step(&mut self.rng, now);
        self.on_the_wire.retain(|(_, until)| *until > now);
        self.longest_gap = self.longest_gap.max(now - self.last_sent);
    }

    /// The threads of a replica, in any order: a worker may be the first one to run after a freeze.
    fn run(&mut self, at: usize) {
        let mut threads = [Self::work, Self::poll, Self::heartbeat];
        threads.swap(0, self.rng.random_range(0..3));
        threads.swap(1, self.rng.random_range(1..3));
        for thread in threads {
            if self.owners[at].state == State::Runs {
                thread(self, at);
            }
        }
    }

    fn work(&mut self, at: usize) {
        let now = self.instant();
        let owner = &mut self.owners[at];
        let Some((tenure, _)) = owner.tenure.as_ref().filter(|(_, tenure)| tenure.is_open()) else { return };
        if owner.lease.is_over(now) || owner.requests.len() >= 2 || !self.rng.random_bool(0.3) {
            return;
        }
        let mine = *tenure;
        let longest = u64::try_from(REQUEST_DEADLINE.as_millis()).unwrap();
        let until = self.now + self.rng.random_range(0..=longest);
        owner.requests.push(until);
        let other = self.on_the_wire.iter().find(|(tenure, until)| *tenure != mine && *until > self.now);
        assert!(other.is_none(), "at {} ms owner {at} sends while {other:?} is on its way", self.now);
        self.on_the_wire.push((mine, until));
        (self.last_sent, self.sent) = (self.now, self.sent + 1);
    }

    /// The runner's loop.
    fn poll(&mut self, at: usize) {
        let (now, now_ms) = (self.instant(), self.now);
        let owner = &mut self.owners[at];
        owner.requests.retain(|until| *until > now_ms);
        if let Some(by) = owner.leaves_by {
            if owner.requests.is_empty() || now_ms >= by {
                self.give_up(at);
            }
            return;
        }
        owner.lease.renew(now);
        let Some((_, tenure)) = &mut owner.tenure else { return };
        let proof = (tenure.is_open() && owner.lease.is_over(now)).then_some(Note::Open);
        let Some(note) = tenure.due(true, now).or(proof) else { return };
        if self.group.commit(at, owner.generation, note) {
            tenure.noted(note);
            owner.lease.prove(now);
        } else {
            self.drop_tenure(at);
        }
    }

    fn give_up(&mut self, at: usize) {
        let owner = &mut self.owners[at];
        let farewell = owner.tenure.as_ref().and_then(|(_, tenure)| tenure.farewell());
        if let Some(note) = farewell.filter(|_| owner.requests.is_empty()) {
            self.group.commit(at, owner.generation, note);
        }
        let is_stopping = owner.is_stopping;
        self.drop_tenure(at);
        if is_stopping {
            self.group.leave(at);
            self.die(at);
        } else {
            self.group.join(at, self.now);
        }
    }

    fn drop_tenure(&mut self, at: usize) {
        let owner = &mut self.owners[at];
        owner.lease.end();
        owner.requests.clear();
        (owner.tenure, owner.leaves_by) = (None, None);
    }

    fn heartbeat(&mut self, at: usize) {
        let (now, now_ms) = (self.instant(), self.now);
        let owner = &mut self.owners[at];
        if now_ms < owner.heartbeat_at {
            return;
        }
        owner.heartbeat_at = now_ms + HEARTBEAT;
        if !self.group.members.contains_key(&at) {
            self.drop_tenure(at);
            return self.group.join(at, now_ms);
        }
        self.group.members.insert(at, now_ms);
        if self.group.is_rebalancing {
            if !self.group.joined.contains(&at) && owner.leaves_by.is_none() {
                owner.lease.end();
                owner.leaves_by = Some(now_ms + HAND_OVER);
            }
            return;
        }
        if owner.generation == self.group.generation || owner.is_stopping {
            return;
        }
        owner.generation = self.group.generation;
        (owner.tenure, owner.leaves_by, owner.lease) = (None, None, Lease::new(now));
        if self.group.owner == Some(at) {
            self.tenures += 1;
            let wall_ms = i64::try_from(now_ms).unwrap() + owner.skew_ms;
            owner.tenure = Some((self.tenures, Tenure::begin(self.group.ledger, now, wall_ms)));
        }
    }
}

#[test]
fn no_two_owners_have_requests_on_their_way_and_somebody_always_gets_to_send() {
    let (mut longest, mut sent, mut tenures) = (0, 0, 0);
    for seed in 0..LIVES {
        println!("seed {seed}");
        let mut world = World::new(seed);
        let mut churn_at = 0;
        while world.now < MINUTES * 60_000 {
            if world.now >= churn_at {
                world.churn();
                churn_at =
                    world.now + if seed % 2 == 0 { 10_000 } else { world.rng.random_range(500..20_000) };
            }
            world.step();
        }
        assert!(world.longest_gap < PATIENCE, "nothing was sent for {} ms", world.longest_gap);
        longest = longest.max(world.longest_gap);
        (sent, tenures) = (sent + world.sent, tenures + world.tenures);
    }
    println!("{sent} requests in {tenures} assignments; {longest} ms without one at most");
}
