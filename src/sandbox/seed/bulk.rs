//! Many plain products at once: one variant each, kept as text until something changes them.

use std::fmt::Write as _;

use super::{COLOURS, THINGS};
use crate::sandbox::clock;
use crate::sandbox::specs;
use crate::sandbox::state::{MAIN_LOCATION, State};
use crate::sandbox::store::Key;

/// How far back, in seconds, the products of a bulk were made: a day, so that incremental reads need not see them.
const AGE_S: i64 = 86_400;

/// Adds `count` products, the same for the same ids. Returns the first and the last id; no event is fired.
pub(crate) fn products(state: &mut State, count: u32) -> (u64, u64) {
    let first = state.of("product").last_id() + 1;
    let variant = state.of("variant").last_id() + 1;
    let made = clock::unix_s() - AGE_S;
    let date = clock::iso(made);
    for number in 0..u64::from(count) {
        add(state, first + number, variant + number, (made, &date));
    }
    (first, (first + u64::from(count)).saturating_sub(1))
}

fn add(state: &mut State, id: u64, variant: u64, (made, date): (i64, &str)) {
    let pick =
        |from: &'static [&'static str], step: u64| from[usize::try_from(id / step).unwrap_or(0) % from.len()];
    let (colour, thing) = (pick(&COLOURS, 1), pick(&THINGS, 8));
    let (cents, level) = (100 + id * 37 % 20_000, id % 200);
    let (name, sku) = (format!("{colour} {thing} {id}"), format!("BULK-{id:07}"));
    let mut row = String::with_capacity(256);
    let _never_fails = write!(
        row,
        r#"{{"name":"{name}","sku":"{sku}","price":{}.{:02},"weight":1,"inventory_tracking":"product","inventory_level":{level},"custom_url":{{"url":"/{id}/","is_customized":false}},"id":{id},"date_created":"{date}","date_modified":"{date}","base_variant_id":{variant}}}"#,
        cents / 100,
        cents % 100,
    );
    let mut own = String::with_capacity(128);
    let _never_fails = write!(
        own,
        r#"{{"product_id":{id},"sku":"{sku}","_stock":{{"{MAIN_LOCATION}":{level}}},"inventory_level":{level},"id":{variant}}}"#,
    );
    let table = state.table_mut(specs::known("product"));
    table.put_packed(Key::Int(id), row, &[("name", name), ("sku", sku.clone())], made);
    let table = state.table_mut(specs::known("variant"));
    table.put_packed(Key::Int(variant), own, &[("product_id", id.to_string()), ("sku", sku)], 0);
}
