//! The store's content at the start: products with variants and parts, categories, customers, orders, two locations.
//!
//! Everybody in it is invented and every address is at example.com. The same seed gives the same store, but for dates
//! and what the numbers in the configuration change.

pub(crate) mod bulk;
mod rows;

use rand::Rng as _;
use serde_json::{Map, Value, json};

use super::SandboxConfig;
use super::resources::{orders, products};
use super::specs;
use super::state::State;
use super::store::Key;

const COLOURS: [&str; 8] = ["Blue", "Red", "Green", "Black", "White", "Amber", "Olive", "Slate"];
const THINGS: [&str; 10] =
    ["Cup", "Plate", "Bowl", "Lamp", "Chair", "Basket", "Towel", "Vase", "Clock", "Blanket"];
const FIRST: [&str; 10] = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gwen", "Hugo", "Ida", "Jon"];
const LAST: [&str; 8] = ["Archer", "Baker", "Cooper", "Dyer", "Fisher", "Glover", "Mason", "Weaver"];
/// Every tenth product has options.
const WITH_VARIANTS: u32 = 10;
/// Every twenty-fifth order has more lines than a consignment shows.
const BIG_ORDER: u32 = 25;
/// Lines of a big order.
const BIG_ORDER_LINES: usize = 60;

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Fills an empty store.
pub(crate) fn fill(state: &mut State, config: &SandboxConfig) {
    for (code, label) in [("MAIN", "Main warehouse"), ("SHOP", "Shop")] {
        state.insert(specs::known("location"), map(json!({"code": code, "label": label})));
    }
    for number in 1..=config.categories {
        state.insert(specs::known("category"), category(number));
    }
    for number in 1..=config.products {
        let row = product(state, number, config.categories);
        products::insert_product(state, row);
    }
    bulk::products(state, config.bulk_products);
    for number in 1..=config.customers {
        let row = customer(state, number);
        let key = state.insert(specs::known("customer"), row);
        let address = address(state, &key);
        state.insert(specs::known("customer_address"), address);
    }
    for number in 1..=config.orders {
        order(state, number, config);
    }
    state.seeding = true;
    rows::fill(state);
    state.seeding = false;
    state.drain();
}

fn category(number: u32) -> Map<String, Value> {
    let parent = if number > 5 { (number - 1) % 5 + 1 } else { 0 };
    let name = format!("{} things {number}", COLOURS[number as usize % COLOURS.len()]);
    map(
        json!({"name": name, "parent_id": parent, "sort_order": number, "url": {"path": format!("/category-{number}/"), "is_customized": false}}),
    )
}

/// A product's row with its parts inside, as a creation carries them.
pub(crate) fn product(state: &mut State, number: u32, categories: u32) -> Map<String, Value> {
    let colour = COLOURS[state.rng.random_range(0..COLOURS.len())];
    let thing = THINGS[state.rng.random_range(0..THINGS.len())];
    let price = f64::from(state.rng.random_range(100..20_000)) / 100.0;
    let mut row = map(
        json!({"name": format!("{colour} {thing} {number}"), "sku": format!("SKU-{number:06}"),
        "price": price, "weight": f64::from(state.rng.random_range(1..500)) / 10.0,
        "description": format!("<p>A {} made for everyday use.</p>", thing.to_lowercase()),
        "inventory_tracking": "product", "inventory_level": state.rng.random_range(0..200), "inventory_warning_level": 5}),
    );
    if categories > 0 {
        row.insert("categories".to_owned(), json!([state.rng.random_range(1..=categories)]));
    }
    if number.is_multiple_of(3) {
        row.insert("custom_fields".to_owned(), json!([{"name": "Material", "value": "Oak"}]));
    }
    if number.is_multiple_of(2) {
        let url = format!("https://cdn.example.com/{number}.jpg");
        row.insert(
            "images".to_owned(),
            json!([{"is_thumbnail": true, "image_url": url, "url_zoom": url, "url_standard": url,
            "url_thumbnail": url, "url_tiny": url}]),
        );
    }
    if number.is_multiple_of(7) {
        row.insert(
            "bulk_pricing_rules".to_owned(),
            json!([{"quantity_min": 10, "quantity_max": 0, "type": "percent", "amount": 5}]),
        );
        row.insert(
            "videos".to_owned(),
            json!([{"title": "A look at it", "video_id": format!("video{number}")}]),
        );
    }
    if number.is_multiple_of(WITH_VARIANTS) {
        add_variants(&mut row, number);
    }
    row
}

fn add_variants(row: &mut Map<String, Value>, number: u32) {
    let first = u64::from(number) * 10;
    let sizes = ["Small", "Medium", "Large"];
    let values: Vec<Value> = (first + 1..)
        .zip(sizes)
        .map(|(id, label)| json!({"id": id, "label": label, "sort_order": id - first, "is_default": false, "value_data": null}))
        .collect();
    let option = json!({"id": first, "name": format!("Size{first}"), "display_name": "Size", "type": "dropdown", "option_values": values});
    row.insert("options".to_owned(), json!([option]));
    row.insert("modifiers".to_owned(), json!([{"name": format!("Engraving{first}"), "display_name": "Engraving", "type": "text", "required": false}]));
    let variants: Vec<Value> = (first + 1..)
        .zip(sizes)
        .map(|(id, label)| {
            json!({"sku": format!("SKU-{number:06}-{}", &label[..1]), "inventory_level": 20,
                "option_values": [{"option_display_name": "Size", "label": label, "id": id, "option_id": first}]})
        })
        .collect();
    row.insert("variants".to_owned(), Value::Array(variants));
    row.insert("inventory_tracking".to_owned(), Value::from("variant"));
    row.insert("inventory_level".to_owned(), Value::from(60));
}

/// A customer's row; `number` makes the e-mail unique.
pub(crate) fn customer(state: &mut State, number: u32) -> Map<String, Value> {
    let first = FIRST[state.rng.random_range(0..FIRST.len())];
    let last = LAST[state.rng.random_range(0..LAST.len())];
    let email = format!("{}.{}.{number}@example.com", first.to_lowercase(), last.to_lowercase());
    map(json!({"email": email, "first_name": first, "last_name": last, "company": "", "phone": "5550100"}))
}

fn address(state: &State, customer: &Key) -> Map<String, Value> {
    let (first, last, _) = person(state, customer);
    map(
        json!({"customer_id": customer.json(), "first_name": first, "last_name": last, "address1": format!("{customer} Example Street"),
        "city": "Austin", "state_or_province": "Texas", "postal_code": "73301"}),
    )
}

/// First name, last name and e-mail of a customer.
fn person(state: &State, customer: &Key) -> (String, String, String) {
    let row = state.of("customer").get(customer);
    let text =
        |name: &str| row.as_ref().and_then(|row| row.get(name)?.as_str()).unwrap_or_default().to_owned();
    (text("first_name"), text("last_name"), text("email"))
}

/// A customer's address as an order carries it.
pub(crate) fn order_address(state: &State, customer: &Key) -> Value {
    let (first, last, email) = person(state, customer);
    json!({"first_name": first, "last_name": last, "company": "", "street_1": format!("{customer} Example Street"), "street_2": "",
        "city": "Austin", "state": "Texas", "zip": "73301", "country": "United States", "country_iso2": "US", "phone": "5550100",
        "email": email})
}

fn order(state: &mut State, number: u32, config: &SandboxConfig) {
    if config.products == 0 {
        return;
    }
    let customer =
        if config.customers == 0 { 0 } else { state.rng.random_range(1..=u64::from(config.customers)) };
    let count =
        if number.is_multiple_of(BIG_ORDER) { BIG_ORDER_LINES } else { state.rng.random_range(1..=3) };
    let last = state.of("variant").last_id();
    let lines: Vec<orders::Line> = (0..count)
        .filter_map(|_| {
            let variant = Key::Int(state.rng.random_range(1..=last));
            orders::line_of(state, &variant, 1)
        })
        .collect();
    place(state, customer, &lines, 11);
}

/// Places an order for a customer. Returns its id.
pub(crate) fn place(state: &mut State, customer: u64, lines: &[orders::Line], status: i64) -> u64 {
    let address = order_address(state, &Key::Int(customer));
    let row = map(
        json!({"customer_id": customer, "status_id": status, "billing_address": address, "payment_method": "Cash",
        "ip_address": "192.0.2.1", "geoip_country": "United States", "geoip_country_iso2": "US"}),
    );
    orders::insert(state, row, lines, &[address])
}
