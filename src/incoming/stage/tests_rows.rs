//! The shapes of rows, rows that hints carry, groups, and second reads: records in, settlements out.

use serde_json::{Value, json};

use super::testing::store;
use super::tests::{Bench, SECONDS, bench_with, header, healthy, offsets, published, reply};
use super::*;
use crate::model::request::{Answer, Request};

/// Longer than a sweep waits for callbacks.
const ON_ITS_WAY: Duration = Duration::from_secs(11);
/// What the bench's clock says.
const NOW_MS: i64 = 1_767_225_600_000;

/// A store with one more entity, given as TOML.
fn with_row(toml: &str, change: impl Fn(&mut EntitySettings)) -> StoreSettings {
    let family: crate::catalog::row::Family = toml::from_str(toml).unwrap();
    let row = family.entity.into_iter().next().unwrap();
    let mut settings = store();
    let mut entity = EntitySettings {
        topic: format!("bigcommerce.main.{}", row.name).into(),
        include: Vec::new(),
        row: row.into(),
        ..super::testing::settings("product")
    };
    change(&mut entity);
    settings.entities.insert(entity.row.name.clone(), Arc::new(entity));
    settings
}

const BRAND: &str = r#"
    [[entity]]
    name = "brand"
    doc = "."
    spec = "."
    oauth = "."
    key = ["id"]
    ids = ["id"]
    read.one = "/v3/catalog/brands/{id}"
    list = { path = "/v3/catalog/brands", pages = "page", whole = true }
"#;

fn brand(n: u64) -> impl Fn(&Request) -> Reply {
    move |_| reply(Answer::Done, 200, &json!({ "data": { "n": n, "id": 1 } }))
}

impl Bench {
    /// Consumes a hint of the bridge's own; with a row if one is given with the time of its read.
    fn own(&mut self, key: &str, cause: Cause, row: Option<(&str, i64)>) -> Vec<Settled> {
        let position = self.position();
        let hint = Hint {
            trigger: Trigger {
                key: EntityKey::parse(key).unwrap(),
                op: Op::Read,
                scope: cause.scope().unwrap().to_owned(),
                row: None,
            },
            event: format!("own-{}", position.offset),
            created_at: None,
            received_ms: NOW_MS,
            traceparent: None,
            carried_ms: row.map(|(_, at)| at),
        };
        let headers = hint.headers().into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        let value = Some(Bytes::copy_from_slice(row.map_or("{}", |(row, _)| row).as_bytes()));
        self.stage.accept(InRecord { position, timestamp_ms: None, key, value, headers }, self.now)
    }
}

#[test]
fn a_carried_row_is_published_without_a_request_and_an_unchanged_one_not_again() {
    let mut bench = bench_with(with_row(BRAND, |_| {}), brand(1));
    let row = r#"{"id":1,"n":1}"#;
    let settled = bench.own("brand/1", Cause::Snapshot, Some((row, NOW_MS - 60_000)));
    assert_eq!((published(&settled), header(&settled[0].records[0], "bc_op")), (vec!["brand/1".into()], "r"));
    assert_eq!(header(&settled[0].records[0], "bc_read_at"), "2025-12-31T23:59:00.000Z");
    for (cause, outcome) in
        [(Cause::Sweep, "unchanged"), (Cause::Poll, "unchanged"), (Cause::Snapshot, "superseded")]
    {
        let before = bench.counts.of(outcome);
        let settled = bench.own("brand/1", cause, Some((row, NOW_MS)));
        assert!(settled[0].records.is_empty() && settled[0].positions.len() == 1, "{cause:?}");
        assert_eq!(bench.counts.of(outcome), before + 1, "{cause:?}");
    }
    assert!(bench.asked().is_empty());
}

#[test]
fn a_carried_row_of_doubtful_age_leads_to_a_read() {
    let mut bench = bench_with(with_row(BRAND, |_| {}), brand(7));
    bench.update("brand/1");
    assert!(bench.own("brand/1", Cause::Sweep, Some((r#"{"id":1,"n":6}"#, NOW_MS))).is_empty(), "it joins");
    assert_eq!(published(&bench.pass(SECONDS)), ["brand/1"]);
    assert_eq!(bench.asked().len(), 1);
    assert!(bench.own("brand/1", Cause::Sweep, Some((r#"{"id":1,"n":6}"#, NOW_MS))).is_empty());
    let settled = bench.pass(ON_ITS_WAY);
    assert_eq!((published(&settled).len(), bench.asked().len(), bench.counts.of("unchanged")), (0, 1, 1));
    assert!(
        bench.own("brand/1", Cause::Sweep, Some((r#"{"id":2,"n":6}"#, NOW_MS))).is_empty(),
        "another's row"
    );
    assert!(bench.own("brand/1", Cause::Sweep, Some(("<html>", NOW_MS))).is_empty());
}

#[test]
fn a_sweep_that_finds_a_change_is_a_repair_and_one_that_a_callback_joined_is_none() {
    let mut bench = bench_with(with_row(BRAND, |_| {}), brand(1));
    bench.update("brand/1");
    bench.pass(SECONDS);
    bench.own("brand/1", Cause::Sweep, None);
    assert!(published(&bench.pass(ON_ITS_WAY)).is_empty());
    bench.answer(brand(2));
    bench.own("brand/1", Cause::Sweep, None);
    assert!(bench.pass(SECONDS).is_empty(), "its callback may be on its way");
    assert_eq!(published(&bench.pass(ON_ITS_WAY)), ["brand/1"]);
    assert_eq!(bench.counts.of("repaired"), 1);
    bench.answer(brand(3));
    bench.own("brand/1", Cause::Sweep, None);
    bench.update("brand/1");
    assert_eq!(published(&bench.pass(SECONDS)), ["brand/1"], "the callback brings the read forward");
    assert_eq!(bench.counts.of("repaired"), 1);
}

#[test]
fn callbacks_that_change_nothing_are_published_unless_the_settings_say_otherwise() {
    for (suppress, records) in [(false, 2), (true, 1)] {
        let settings = with_row(BRAND, |entity| entity.suppress_unchanged = suppress);
        let mut bench = bench_with(settings, brand(1));
        bench.update("brand/1");
        let mut settled = bench.pass(SECONDS);
        bench.hint("brand/1", Op::Update, None, Some("msg_x"));
        settled.extend(bench.pass(SECONDS));
        assert_eq!(published(&settled).len(), records);
        assert_eq!(bench.hint("brand/1", Op::Update, None, Some("msg_x")).len(), 1, "it is remembered");
    }
}

#[test]
fn what_has_no_date_is_read_once_more_after_a_burst() {
    let settings = with_row(BRAND, |entity| entity.second_read = Some(Duration::from_secs(60)));
    let mut bench = bench_with(settings, brand(1));
    for _ in 0..5 {
        bench.update("brand/1");
        bench.pass(Duration::from_millis(100));
    }
    bench.pass(SECONDS);
    let key = EntityKey::parse("brand/1").unwrap();
    let planned = bench.stage.memory.get(&key).recheck.unwrap();
    assert_eq!(planned.at_s, NOW_MS / 1000 + 60);
    let due = bench.stage.memory.due(planned.at_s, 10);
    let settled = bench.stage.finish(Done::Due(due), bench.now);
    let hint = &settled[0].records[0];
    assert_eq!((&*hint.topic, header(hint, "bc_scope")), ("bigcommerce.main.webhooks", "bridge/recheck"));
    bench.answer(brand(2));
    bench.own("brand/1", Cause::Recheck, None);
    assert_eq!(published(&bench.pass(SECONDS)), ["brand/1"]);
    assert_eq!(bench.stage.memory.get(&key).recheck, None, "a second look leads to no third");
}

fn stock(variants: &'static [u64]) -> impl Fn(&Request) -> Reply {
    let row = |v: &u64| json!({ "identity": { "variant_id": v, "product_id": 7 }, "n": v });
    move |_| reply(Answer::Done, 200, &json!({ "data": variants.iter().map(row).collect::<Vec<Value>>() }))
}

#[test]
fn a_row_that_vanished_from_its_group_is_gone_when_a_second_read_says_so() {
    let clock = Arc::new(std::sync::atomic::AtomicI64::new(NOW_MS));
    let mut bench = bench_with(store(), stock(&[71, 72]));
    let at = clock.clone();
    bench.stage.clock = Arc::new(move || at.load(std::sync::atomic::Ordering::Relaxed));
    bench.update("inventory_item/7");
    assert_eq!(published(&bench.pass(SECONDS)), ["inventory_item/71", "inventory_item/72"]);
    bench.answer(stock(&[71]));
    bench.update("inventory_item/7");
    assert_eq!(published(&bench.pass(SECONDS)), ["inventory_item/71"], "one list is no proof");
    clock.fetch_add(61_000, std::sync::atomic::Ordering::Relaxed);
    // The second read was planned by the first: here is its time.
    let settled = bench.pass(SECONDS);
    assert_eq!(published(&settled), ["webhooks/inventory_item/7"]);
    bench.own("inventory_item/7", Cause::Recheck, None);
    let settled = bench.pass(SECONDS);
    assert_eq!(published(&settled), ["inventory_item/72"]);
    assert_eq!(settled[0].records[0].value, None);
    bench.update("inventory_item/7");
    assert_eq!(published(&bench.pass(SECONDS)), ["inventory_item/71"], "it is gone once");
}

#[test]
fn a_row_that_a_callback_calls_deleted_is_gone_at_once() {
    let mut bench = bench_with(store(), stock(&[71]));
    bench.hint("inventory_item/7", Op::Delete, Some("72"), None);
    let settled = bench.pass(SECONDS);
    assert_eq!(published(&settled), ["inventory_item/72"]);
    assert_eq!(settled[0].records[0].value, None);
}

#[test]
fn a_name_that_is_no_id_is_resolved_to_hints_of_its_owners() {
    let rows = BRAND.to_owned()
        + r#"
    resolve = [{ name = "slug", ids = ["slug"], key = ["slug"],
        many = { style = "id_in", path = "/v3/catalog/brands", param = "slug:in", max = 50, page_size = 250 } }]
    "#;
    let found = |request: &Request| {
        assert!(request.query.contains(&("slug:in".into(), "acme".into())), "{request:?}");
        reply(
            Answer::Done,
            200,
            &json!({ "data": [{ "id": 5, "slug": "acme" }, { "id": 6, "slug": "acme" }] }),
        )
    };
    let mut bench = bench_with(with_row(&rows, |_| {}), found);
    bench.hint("brand~slug/acme", Op::Delete, None, Some("msg_a"));
    let settled = bench.pass(SECONDS);
    assert_eq!(published(&settled), ["webhooks/brand/5", "webhooks/brand/6"]);
    let hint = &settled[0].records[0];
    assert_eq!((header(hint, "bc_event"), header(hint, "bc_op")), ("msg_a", "d"));
    assert_eq!((offsets(&settled), bench.counts.of("resolved")), (vec![1], 1));
    bench.answer(|_| reply(Answer::Done, 200, &json!({ "data": [] })));
    bench.hint("brand~slug/none", Op::Update, None, None);
    assert!(bench.pass(Duration::from_secs(50)).is_empty(), "it may only have come too early");
    let settled = bench.pass(Duration::from_secs(20));
    assert_eq!((published(&settled).len(), offsets(&settled)), (0, vec![2]));
    assert_eq!(bench.counts.of("unresolved"), 1);
}

#[test]
fn the_lines_of_a_cart_are_rows_of_one_read() {
    let rows = r#"
        [[entity]]
        name = "cart_item"
        doc = "."
        spec = "."
        oauth = "."
        key = ["@cart_id", "id"]
        hint_key = ["@cart_id"]
        ids = ["cart_id"]
        read.one = "/v3/carts/{cart_id}"
        read.rows = ["line_items.physical_items", "line_items.digital_items"]
    "#;
    let cart = json!({ "data": { "id": "c-1", "line_items": {
        "physical_items": [{ "id": "a" }, { "id": "b" }], "digital_items": [{ "id": "c" }] } } });
    let mut bench = bench_with(with_row(rows, |_| {}), move |_| reply(Answer::Done, 200, &cart));
    bench.hint("cart_item/c-1", Op::Update, None, None);
    let all = ["cart_item/c-1:a", "cart_item/c-1:b", "cart_item/c-1:c"];
    assert_eq!(published(&bench.pass(SECONDS)), all);
    bench.hint("cart_item/c-1", Op::Update, Some("c-1:b"), None);
    assert_eq!(published(&bench.pass(SECONDS)), ["cart_item/c-1:b"]);
    bench.answer(|_| reply(Answer::Missing, 404, &json!({})));
    bench.hint("cart_item/c-1", Op::Delete, None, None);
    assert_eq!(published(&bench.pass(SECONDS)), all, "the cart is gone, and so are its lines");
}

#[test]
fn what_waits_behind_a_failing_entity_leaves_before_the_window_is_full() {
    let mut bench = bench_with(with_row(BRAND, |_| {}), |request: &Request| {
        let is_brand = request.path.as_str().contains("brands");
        let answer = if is_brand { Answer::Doubtful } else { Answer::Done };
        reply(answer, if is_brand { 503 } else { 200 }, &json!({ "data": { "id": 2, "product_id": 1 } }))
    });
    (1..=20).for_each(|id| bench.update(&format!("brand/{id}")));
    bench.pass(SECONDS);
    (0..4_200).for_each(|_| bench.update("product_variant/1:2"));
    let settled = bench.pass(Duration::from_secs(70));
    let again: BTreeMap<String, usize> =
        published(&settled).into_iter().fold(BTreeMap::new(), |mut all, name| {
            *all.entry(name).or_default() += 1;
            all
        });
    assert!(again.keys().filter(|name| name.starts_with("webhooks/brand/")).count() >= 12, "{again:?}");
    assert!(again.contains_key("product_variant/1:2"));
}

#[test]
fn the_ledger_forgets_what_has_been_gone_for_a_week() {
    let mut bench = bench_with(with_row(BRAND, |_| {}), brand(1));
    let gone = Bytes::from(format!(r#"{{"t":{},"g":true,"e":[]}}"#, NOW_MS - 8 * 24 * 3_600_000));
    let partition = Partition { topic: "bigcommerce.main.webhooks".into(), number: 3 };
    let ledger: BTreeMap<String, Bytes> =
        (1..=150).map(|id| (format!("read/product/{id}"), gone.clone())).collect();
    bench.stage.restore(&partition, ledger.into());
    let mut forgotten = Vec::new();
    for _ in 0..3 {
        bench.update("brand/1");
        let records = bench.pass(SECONDS).into_iter().flat_map(|settled| settled.records);
        let of_ledger = records.filter(|r| r.topic.ends_with("ledger") && r.value.is_none());
        forgotten.push(of_ledger.inspect(|r| assert_eq!(r.partition, Some(3))).count());
    }
    assert_eq!(forgotten, [100, 50, 0]);
}

#[test]
fn what_the_filter_keeps_back_is_counted_as_that_and_nothing_else() {
    let mut settings = store();
    let mut product = super::testing::settings("product");
    product.filter = Some(Arc::new(|_| Ok(json!(false))));
    settings.entities.insert("product".into(), Arc::new(product));
    let mut bench = bench_with(settings, brand(1));
    bench.update("product/1");
    assert!(published(&bench.pass(SECONDS)).is_empty());
    assert_eq!((bench.counts.of("filtered"), bench.counts.of("published")), (1, 0));
}

#[test]
fn changes_that_trickle_in_share_reads_and_none_waits_for_long() {
    let mut bench = bench_with(store(), healthy);
    let mut settled = 0;
    for number in 1..=50 {
        bench.update(&format!("product/{number}"));
        settled += bench.pass(Duration::from_millis(200)).len();
        assert!(number - settled <= 10, "{settled} of {number} are read");
    }
    settled += bench.pass(SECONDS).len();
    let calls = bench.asked().len();
    assert!(settled == 50 && calls <= 11, "{calls} calls in ten seconds");
}
