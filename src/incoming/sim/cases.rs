//! Chosen runs in simulated time: bursts and what they cost, and what chance meets too seldom.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::broker::Broker;
use super::load::product_updated;
use super::store::{Kind, State, Truth};
use super::visible::Visible;
use super::world::World;
use super::{CATALOG, Fleet, in_simulated_time};

/// Ids from here on; the store refuses none of them.
const FIRST: u64 = 100;

/// A shop with so many products.
fn fleet(seed: u64, partitions: usize, products: u64, latency: Range<u64>) -> Fleet {
    let world = World::new(seed);
    let broker = Broker::new(&world, partitions);
    let mut truth = Truth::default();
    (FIRST..FIRST + products).for_each(|id| {
        truth.change(Kind::Product, id, world.now_ms(), State::Here);
    });
    let truth = Arc::new(Mutex::new(truth));
    Fleet { world, broker, truth, latency, processes: Vec::new(), started: 0 }
}

fn hint(fleet: &Fleet, number: u64, products: u64) {
    let (id, now) = (FIRST + number % products, fleet.world.now_ms());
    fleet.broker.append(product_updated(&CATALOG, id, &format!("msg_{number}"), now));
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// So many hints about so many products, evenly spread: how many requests they cost, and when all was done.
async fn burst(hints: u32, products: u64, over: Duration) -> (u64, Duration) {
    let mut fleet = fleet(1, 4, products, 50..51);
    fleet.start();
    let start = Instant::now();
    for n in 0..hints {
        hint(&fleet, u64::from(n), products);
        tokio::time::sleep_until(start + over * n / hints).await;
    }
    fleet.rest().await;
    let records = fleet.broker.with_out(<[Visible]>::len);
    assert!(records as u64 >= products, "{records} records");
    let calls = fleet.truth.lock().unwrap().calls;
    (calls, start.elapsed())
}

#[test]
fn a_thousand_hints_about_fifty_products_cost_ten_calls_at_most() {
    let (calls, _) = in_simulated_time(burst(1_000, 50, Duration::from_secs(1)));
    assert!(calls <= 10, "{calls} calls");
}

#[test]
fn five_thousand_products_are_read_in_twenty_seconds_and_a_hundred_and_twenty_calls() {
    let (calls, took) = in_simulated_time(burst(5_000, 5_000, Duration::from_secs(10)));
    assert!(calls <= 120, "{calls} calls");
    assert!(took <= Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_full_window_that_meets_a_rebalance_flows_again() {
    in_simulated_time(async {
        let mut fleet = fleet(1, 1, 500, 5..20);
        let until = fleet.world.now_ms() + 60_000;
        fleet.world.set_faults(|faults| faults.unauthorized_until = until);
        fleet.start();
        for number in 0..20_000 {
            hint(&fleet, number, 500);
        }
        seconds(5).await;
        assert!(fleet.broker.is_paused(1), "the window is not full");
        fleet.broker.rebalance();
        fleet.rest().await;
    });
}

#[test]
fn a_fenced_process_that_nobody_assigns_anew_ends() {
    in_simulated_time(async {
        let mut fleet = fleet(1, 1, 1, 5..20);
        fleet.start();
        fleet.world.set_faults(|faults| faults.fence = 1.0);
        hint(&fleet, 0, 1);
        seconds(70).await;
        fleet.bury().await;
        assert_eq!(fleet.world.seen().get("gave up"), Some(&1));
    });
}

#[test]
fn a_fenced_process_that_is_assigned_nothing_lives_on() {
    for seed in 0..6 {
        in_simulated_time(async move {
            let mut fleet = fleet(seed, 1, 1, 5..20);
            fleet.start();
            fleet.world.set_faults(|faults| faults.fence = 1.0);
            hint(&fleet, 0, 1);
            seconds(5).await;
            fleet.world.set_faults(|faults| faults.fence = 0.0);
            // One after the other: a slow owner's identification could fence the next owner's producer.
            fleet.start();
            seconds(5).await;
            fleet.start();
            seconds(120).await;
            fleet.bury().await;
            assert_eq!(fleet.world.seen().get("gave up"), None, "seed {seed}");
            assert!(fleet.broker.is_settled());
        });
    }
}
