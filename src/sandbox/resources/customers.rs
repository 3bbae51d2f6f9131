//! Customers: creation with addresses, and the duplicate address that is silently left out.

use serde_json::{Map, Value};

use super::writes::{accept, array, at, shown};
use super::{Answer, Call};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs;
use crate::sandbox::state::State;
use crate::sandbox::store::{Key, Lag, field};

/// Customers of one request.
const CUSTOMERS_MAX: usize = 10;
/// Addresses of one request; not documented.
const ADDRESSES_MAX: usize = 50;

/// The fields that make two addresses the same.
const ADDRESS_FIELDS: [&str; 8] = [
    "first_name",
    "last_name",
    "company",
    "address1",
    "address2",
    "city",
    "state_or_province",
    "postal_code",
];

/// `POST /v3/customers`.
pub(crate) fn create(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("customer");
    let mut rows: Vec<(Map<String, Value>, Vec<Value>)> = Vec::new();
    for (index, item) in array(call.body, CUSTOMERS_MAX)?.iter().enumerate() {
        let item =
            item.as_object().ok_or_else(|| at(index, Reply::field(422, "body", "must be an object")))?;
        let mut row = accept(call.state, spec, None, item, &[]).map_err(|reply| at(index, reply))?;
        let email =
            |row: &Map<String, Value>| row.get("email").and_then(Value::as_str).map(str::to_lowercase);
        if rows.iter().any(|(other, _)| email(other) == email(&row)) {
            return Err(at(index, Reply::field(422, "email", "The email is already in use.")));
        }
        row.remove("trigger_account_created_notification");
        row.remove("authentication");
        let addresses =
            row.remove("addresses").and_then(|value| value.as_array().cloned()).unwrap_or_default();
        rows.push((row, addresses));
    }
    let mut keys = Vec::new();
    for (row, addresses) in rows {
        let key = call.state.insert(spec, row);
        for address in addresses.iter().filter_map(Value::as_object) {
            let mut address = address.clone();
            address.insert("customer_id".to_owned(), key.json());
            call.state.insert(specs::known("customer_address"), address);
        }
        keys.push(key);
    }
    Ok(shown(call, spec, &keys, 200, false))
}

/// `POST /v3/customers/addresses`: an exact duplicate is left out of the answer without a word.
pub(crate) fn create_addresses(call: &mut Call<'_>) -> Answer {
    let spec = specs::known("customer_address");
    let mut rows = Vec::new();
    for (index, item) in array(call.body, ADDRESSES_MAX)?.iter().enumerate() {
        let item =
            item.as_object().ok_or_else(|| at(index, Reply::field(422, "body", "must be an object")))?;
        let row = accept(call.state, spec, None, item, &[]).map_err(|reply| at(index, reply))?;
        let customer = row.get("customer_id").and_then(Key::from_json);
        if customer.is_none_or(|key| call.state.of("customer").get(&key).is_none()) {
            return Err(at(index, Reply::field(422, "customer_id", "The customer does not exist.")));
        }
        rows.push(row);
    }
    let mut keys = Vec::new();
    for row in rows {
        if !is_known(call.state, &row) {
            keys.push(call.state.insert(spec, row));
        }
    }
    Ok(shown(call, spec, &keys, 200, false))
}

fn is_known(state: &State, row: &Map<String, Value>) -> bool {
    let (spec, table) = (specs::known("customer_address"), state.of("customer_address"));
    let customer = row.get("customer_id").unwrap_or(&Value::Null).to_string();
    table
        .find("customer_id", &customer)
        .iter()
        .filter_map(|key| table.get(key))
        .any(|other| ADDRESS_FIELDS.iter().all(|name| field(spec, &other, name) == field(spec, row, name)))
}

/// `DELETE /v2/customers`: every customer of the store.
pub(crate) fn delete_all(call: &mut Call<'_>) -> Answer {
    call.forbidden = true;
    let spec = specs::known("customer");
    let keys: Vec<Key> = call.state.table(spec).scan(Lag::NONE).map(|(key, _)| key.clone()).collect();
    for key in keys {
        call.state.delete(spec, &key);
    }
    Ok(Reply::empty(204))
}
