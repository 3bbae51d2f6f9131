//! Simulated shoppers and staff: they browse, fill carts, buy, edit, restock and ship, at a given pace.
//!
//! What they do is drawn from the store's seeded generator. They act through the same functions as the control API,
//! so every change fires its real callbacks.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Map, Value, json};

use super::core::Core;
use super::events::Op;
use super::mutate;
use super::seed;
use super::state::State;
use super::store::Key;

/// How often the shoppers wake at high rates; changes due by then are made together.
const TICK: Duration = Duration::from_millis(10);
/// Changes made at one waking, so that a slow machine does not fall ever further behind.
const BURST_MAX: u32 = 1000;
/// Carts that shoppers have open; the oldest is checked out to make room.
const CARTS_MAX: usize = 50;

/// Shops for ever at the pace that `core.rate` says; rests at 0.
pub(crate) async fn run(core: Arc<Core>) {
    let mut rate = core.rate.subscribe();
    let mut carts: Vec<String> = Vec::new();
    let mut due = 0.0;
    loop {
        let pace = *rate.borrow_and_update();
        if pace <= 0.0 {
            due = 0.0;
            if rate.changed().await.is_err() {
                return;
            }
            continue;
        }
        let nap = TICK.max(Duration::from_secs_f64((1.0 / pace).min(1.0)));
        tokio::time::sleep(nap).await;
        due += pace * nap.as_secs_f64();
        for _ in 0..BURST_MAX {
            if due < 1.0 {
                break;
            }
            due -= 1.0;
            core.with(|state| act(state, &mut carts));
        }
        due = due.min(f64::from(BURST_MAX));
    }
}

fn act(state: &mut State, carts: &mut Vec<String>) {
    let product = pick(state, "product");
    let customer = pick(state, "customer");
    match state.rng.random_range(0..100_u32) {
        0..24 => edit_product(state, product),
        24..30 => edit_variant(state),
        30..45 => {
            let variant = pick(state, "variant");
            let level = state.rng.random_range(0..100);
            mutate::set_stock(state, variant, level);
        }
        45..60 => fill_cart(state, carts, customer, product),
        60..72 => {
            let bought = carts.pop().and_then(|cart| mutate::check_out(state, &cart));
            if bought.is_none() {
                mutate::place_order(state, customer, &[product]);
            }
        }
        72..82 => {
            let order = pick(state, "order");
            mutate::ship_order(state, order);
        }
        82..92 => {
            let phone = format!("555{:04}", state.rng.random_range(0..10_000));
            change(state, "customer", customer, json!({"phone": phone}));
        }
        92..95 => {
            let number = u32::try_from(state.of("customer").last_id() + 1).unwrap_or(u32::MAX);
            let row = seed::customer(state, number);
            let _id = mutate::mutate(state, "customer", Op::Created, None, row);
        }
        95..97 => {
            let category = pick(state, "category");
            let sort_order = state.rng.random_range(0..1000);
            change(state, "category", category, json!({"sort_order": sort_order}));
        }
        _ => {
            let order = pick(state, "order");
            change(state, "order", order, json!({"staff_notes": format!("looked at {order}")}));
        }
    }
}

fn edit_product(state: &mut State, product: u64) {
    let price = f64::from(state.rng.random_range(100..20_000)) / 100.0;
    change(state, "product", product, json!({"price": price}));
}

/// Changes the price of a variant that has a SKU of its own; most products have none.
fn edit_variant(state: &mut State) {
    let tries: Vec<u64> = (0..20).map(|_| pick(state, "variant")).collect();
    let with_sku = |id: &u64| {
        state
            .of("variant")
            .get(&Key::Int(*id))
            .is_some_and(|row| row.get("sku_id").is_some_and(Value::is_number))
    };
    let Some(variant) = tries.into_iter().find(with_sku) else { return };
    let price = f64::from(state.rng.random_range(100..20_000)) / 100.0;
    change(state, "variant", variant, json!({"price": price}));
}

fn fill_cart(state: &mut State, carts: &mut Vec<String>, customer: u64, product: u64) {
    if let Some(cart) = carts.last().cloned()
        && state.rng.random::<bool>()
        && mutate::add_to_cart(state, &cart, &[product])
    {
        return;
    }
    if carts.len() >= CARTS_MAX {
        mutate::check_out(state, &carts.remove(0));
    }
    carts.extend(mutate::new_cart(state, customer, &[product]));
}

fn change(state: &mut State, entity: &str, id: u64, patch: Value) {
    if let Value::Object(patch) = patch {
        let _gone_meanwhile =
            mutate::mutate(state, entity, Op::Updated, Some(&id.to_string()), Map::from_iter(patch));
    }
}

/// The id of some row, or 0 when there is none.
fn pick(state: &mut State, name: &'static str) -> u64 {
    let last = state.of(name).last_id();
    if last == 0 {
        return 0;
    }
    let from = state.rng.random_range(1..=last);
    let table = state.of(name);
    let found = table.at_or_after(from).or_else(|| table.at_or_after(0));
    found.and_then(|(key, _)| key.json().as_u64()).unwrap_or(0)
}
