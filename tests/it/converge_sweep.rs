//! What callbacks miss is found by the sweep: callbacks are lost on purpose and a hook dies, and one sweep later the
//! topics show the store's state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bcbridge::sandbox::{Control, Profile, SandboxConfig};
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, RETRIES_FASTER, Setup, until};

/// Between two sweeps; convergence is due within one of them and the time that reading takes.
const SWEEP: Duration = Duration::from_secs(15);
const CONFIRM_GONE: &str = "2s";

fn setup() -> Setup {
    let entry = |entity: &str| json!({ "entity": entity, "sweep": { "every": "15s", "full": "15s" }, "confirm_gone": CONFIRM_GONE });
    let profile = Profile { lost_callbacks: 0.05, ..Profile::default() };
    let sandbox = SandboxConfig {
        quota: 100_000,
        time_scale: RETRIES_FASTER,
        products: 1_000,
        customers: 200,
        profile,
        ..SandboxConfig::default()
    };
    Setup { sandbox, incoming: vec![entry("product"), entry("customer")], ..Setup::default() }
}

/// Entities whose last record is not the store's state, of those that changed.
async fn wrong(lab: &Lab, entity: &str) -> Vec<String> {
    let (last, state) = (lab.last(entity).await, lab.control.state(entity).unwrap());
    let differs = |key: &String| match (last.get(key), state.get(key)) {
        (None | Some(None), None) => false,
        (Some(Some(found)), Some(truth)) => found["date_modified"] != truth["date_modified"],
        _ => true,
    };
    let all: std::collections::BTreeSet<&String> = last.keys().chain(state.keys()).collect();
    all.into_iter().filter(|key| differs(key)).cloned().collect()
}

/// A counter of the bridge, summed over its labels.
async fn counter(lab: &Lab, name: &str) -> u64 {
    let text = lab.metrics().await;
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        as u64
}

/// What BigCommerce does after its last retry.
fn deactivate_hooks(control: &Control, scopes: &str) {
    for (id, hook) in control.state("webhook").unwrap() {
        if hook["scope"].as_str().unwrap().starts_with(scopes) {
            assert!(control.deactivate_hook(id.parse().unwrap()));
        }
    }
}

/// The judge's case: five in a hundred callbacks are lost and a hook is deactivated; within one sweep the topics
/// converge, and the counter tells how many entities were repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_repairs_what_callbacks_missed_and_counts_it() {
    let lab = Lab::start(setup()).await;
    let control = lab.control.clone();
    until("the hooks", || async { (control.state("webhook").unwrap().len() >= 2).then_some(()) }).await;
    // The first sweep finds what was there before the bridge; what it repairs is measured from then on.
    until("everything is published once", || async {
        (wrong(&lab, "product").await.is_empty() && wrong(&lab, "customer").await.is_empty()).then_some(())
    })
    .await;
    let before = counter(&lab, "bcbridge_sweep_repaired_total").await;

    let mut changed: BTreeMap<&str, u64> = BTreeMap::new();
    for (entity, to) in [("product", 900), ("customer", 150)] {
        changed.insert(entity, control.touch(entity, 1, to, 1).unwrap());
    }
    for id in 951..=980_u64 {
        control.delete("product", id).unwrap();
    }
    deactivate_hooks(&control, "store/customer");
    control.touch("customer", 151, 190, 1).unwrap();
    let answered = |entity: &str| {
        let scope = format!("store/{entity}/");
        let deliveries = control.deliveries();
        let of: std::collections::BTreeSet<String> = deliveries
            .into_iter()
            .filter(|d| d.scope.starts_with(&scope) && d.status == Some(200))
            .map(|d| d.entity_id)
            .collect();
        of.len() as u64
    };
    control.quiesce().await;
    let lost = (900 + 30 - answered("product")) + (190 - answered("customer"));
    let begun = Instant::now();
    until("the topics show the store's state", || async {
        (wrong(&lab, "product").await.is_empty() && wrong(&lab, "customer").await.is_empty()).then_some(())
    })
    .await;
    let took = begun.elapsed();
    let repaired = counter(&lab, "bcbridge_sweep_repaired_total").await - before;
    println!("{lost} entities had no callback; {repaired} were repaired; converged after {took:?}");
    // One interval, the ten seconds that a change waits for its callback, and the time to read.
    assert!(took < SWEEP + Duration::from_secs(20), "one sweep was not enough: {took:?}");
    assert!(lost > 20, "the sandbox lost only {lost}");
    assert!(repaired >= lost && repaired <= lost + lost / 10, "{repaired} repaired, {lost} lost");
    let active = |state: BTreeMap<String, Value>| state.values().all(|hook| hook["is_active"] == true);
    until("the hook is active again", || async { active(control.state("webhook").unwrap()).then_some(()) })
        .await;
    lab.stop().await;
}
