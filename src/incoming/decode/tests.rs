use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::model::hint::Op;
use crate::model::ids::EntityKey;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());

fn check(body: &str) -> Result<Vec<(String, Op, Option<String>)>, String> {
    callback(&Catalog::embedded().unwrap(), body.as_bytes())
        .map(|c| {
            let row = |t: &Trigger| t.row.as_ref().map(ToString::to_string);
            c.triggers.iter().map(|t| (t.key.to_string(), t.op, row(t))).collect()
        })
        .map_err(|e| e.0)
}

fn key(text: &str, op: Op) -> Vec<(String, Op, Option<String>)> {
    vec![(text.to_owned(), op, None)]
}

#[test]
fn ids_are_found_where_each_scope_has_them() {
    let body = r#"{"scope":"store/sku/created","data":{"type":"sku","id":461,"sku":{"product_id":206,"variant_id":509}}}"#;
    assert_eq!(check(body).unwrap(), key("product_variant/206:509", Op::Create));
    let body = r#"{"scope":"store/shipment/deleted","data":{"type":"shipment","id":"12","orderId":251}}"#;
    assert_eq!(check(body).unwrap(), key("order_shipment/251:12", Op::Delete));
    let body = r#"{"scope":"store/sku/inventory/updated","data":{"id":461,"inventory":{"product_id":206,"variant_id":509}}}"#;
    let row = Some("509".to_owned());
    assert_eq!(check(body).unwrap(), vec![("inventory_item/206".to_owned(), Op::Update, row)]);
}

#[test]
fn an_odd_date_is_no_reason_to_lose_a_callback() {
    for date in ["\"1767225600\"", "1.5", "null", "{}"] {
        let body = format!(r#"{{"scope":"store/product/updated","data":{{"id":1}},"created_at":{date}}}"#);
        assert_eq!(check(&body).unwrap(), key("product/1", Op::Update), "{date}");
    }
}

#[test]
fn a_list_of_data_is_a_hint_for_each_element() {
    let body = r#"{"scope":"store/product/updated","data":[{"id":1},{"id":"2"}]}"#;
    let keys: Vec<_> = check(body).unwrap().into_iter().map(|t| t.0).collect();
    assert_eq!(keys, ["product/1", "product/2"]);
}

#[test]
fn what_cannot_be_understood_says_why() {
    for (body, why) in [
        ("{", "not JSON"),
        ("[]", "has no scope"),
        (r#"{"scope":7}"#, "has no scope"),
        (r#"{"scope":"store/product/updated","scope":"store/product/deleted"}"#, "duplicate field"),
        (r#"{"scope":"store/unheard/of","data":{"id":1}}"#, "not in the catalogue"),
        (r#"{"scope":"store/product/updated"}"#, "names no product"),
        (r#"{"scope":"store/product/updated","data":{"id":0}}"#, "must be positive"),
        (r#"{"scope":"store/product/updated","data":{"id":""}}"#, "it is empty"),
        (r#"{"scope":"store/product/updated","data":{"id":1.5}}"#, "it is empty"),
        (r#"{"scope":"store/product/updated","data":{"id":"../1"}}"#, "only letters"),
        (r#"{"scope":"store/product/updated","data":[]}"#, "it is empty"),
    ] {
        let found = check(body).unwrap_err();
        assert!(found.contains(why), "{body}: {found}");
    }
}

#[test]
fn a_quarantined_callback_keeps_its_bytes() {
    let topics = IntakeTopics { intake: "i".into(), dead_letters: "d".into() };
    let received = Received {
        event_id: Some("msg_1".into()),
        body: Bytes::from_static(b"\xff\x00{"),
        received_ms: 5,
        traceparent: None,
    };
    let records = intake_records(&Catalog::embedded().unwrap(), &topics, &received);
    assert_eq!(records.len(), 1);
    assert_eq!(&*records[0].topic, "d");
    assert_eq!(records[0].value.as_deref(), Some(&b"\xff\x00{"[..]));
}

/// One callback for each scope: the scope as delivered, its data, and the hints that it stands for.
const CALLBACKS: &str = include_str!("callbacks.tsv");

/// What a callback stands for, on one line: the code of what happened, the key, and the meant row after `#`.
fn meaning(catalog: &Catalog, scope: &str, data: &str) -> String {
    let body = format!(
        r#"{{"producer":"stores/abc123","hash":"dd70","created_at":1767225600,"store_id":"1","scope":"{scope}","data":{data}}}"#
    );
    match callback(catalog, body.as_bytes()) {
        Ok(Callback { triggers, rest: None, .. }) => {
            triggers.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
        Ok(Callback { rest: Some(why), .. }) => format!("partly: {why}"),
        Err(why) => why.1.name().to_owned(),
    }
}

fn shown(trigger: &Trigger) -> String {
    let row = trigger.row.as_ref().map(|row| format!("#{row}")).unwrap_or_default();
    format!("{} {}{row}", trigger.op.code(), trigger.key)
}

#[test]
fn each_scope_has_a_callback_that_stands_for_its_hints() {
    let catalog = Catalog::embedded().unwrap();
    let mut wrong = Vec::new();
    let mut claimed = std::collections::BTreeSet::new();
    for line in CALLBACKS.lines() {
        let [scope, data, hints] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        claimed.insert(catalog.scope(scope).map(|(_, row)| row.name.clone()));
        let found = meaning(&catalog, scope, data);
        if found != hints {
            wrong.push(format!("{scope}\t{data}\t{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all =
        catalog.entities().iter().flat_map(|entity| &entity.scope).map(|scope| Some(scope.name.clone()));
    assert_eq!(all.collect::<std::collections::BTreeSet<_>>(), claimed, "every scope once");
    assert_eq!(claimed.len(), 179);
}

#[test]
fn shapes_that_differ_from_the_usual_are_understood() {
    let catalog = Catalog::embedded().unwrap();
    for (scope, data, hints) in [
        // As subscribed, with the star; the payload of a line or an address below it.
        ("store/cart/*", r#"{"type":"cart_line_item","id":"b","cartId":"a"}"#, "u cart/a"),
        ("store/customer/*", r#"{"id":173,"address":{"customer_id":31}}"#, "u customer/31"),
        (
            "store/sku/*",
            r#"{"id":1,"inventory":{"product_id":206,"variant_id":509}}"#,
            "u product_variant/206:509",
        ),
        ("store/order/*", r#"{"order_id":"250","transaction_id":"7"}"#, "u order/250"),
        ("store/channel/*/order/created", r#"{"order_id":250}"#, "c order/250"),
        ("store/channel/7/order/*/", r#"{"order_id":250}"#, "u order/250"),
        // BigCommerce's own star, with a channel in its place, and with fewer ids.
        (
            "store/channel/3/inventory/product/stock_changed",
            r#"{"variant_id":509,"location_id":2}"#,
            "u inventory_item~variant/509",
        ),
        (
            "store/channel/*/inventory/product/stock_changed",
            r#"{"product_id":206,"location_id":2}"#,
            "u inventory_item/206",
        ),
        // Settings: of a channel, of the store, with nothing in the data.
        ("store/channel/3/settings/SEO/updated", "[]", "u settings_storefront_seo/3"),
        ("store/channel/3/settings/SEO/updated", "null", "u settings_storefront_seo/3"),
        ("store/channel/*/settings/SEO/updated", "{}", "u settings_storefront_seo/default"),
        ("store/channel/*/settings/checkout/updated", "{}", "quarantined"),
        ("store/information/updated", "{}", "u store_information/default"),
        (
            "store/priceList/assignment/updated",
            r#"{"price_list_id":4,"channel_id":null}"#,
            "u price_list_assignment/4:default:default",
        ),
        ("store/priceLists/deleted/", r#"{"price_list_ids":["4",5,4]}"#, "d price_list/4, d price_list/5"),
        ("store/priceLists/deleted", r#"{"price_list_ids":[]}"#, "quarantined"),
        // All metafields by one scope.
        (
            "store/metafield/created",
            r#"{"resource_type":"Variant","resource_id":"509","metafield_id":9}"#,
            "c variant_metafield/509:9",
        ),
        (
            "store/metafield/deleted",
            r#"{"resource_type":"store","resource_id":"1","metafield_id":9}"#,
            "d store_metafield/9",
        ),
        (
            "store/metafield/created",
            r#"{"resource_type":"shipper","resource_id":"1","metafield_id":9}"#,
            "quarantined",
        ),
        // An order that a callback does not name is looked for by its cart.
        ("store/cart/converted", r#"{"id":"a"}"#, "d cart/a"),
        ("store/option/updated", r#"{"id":55,"link":"https://example.com"}"#, "quarantined"),
    ] {
        assert_eq!(meaning(&catalog, scope, data), hints, "{scope} {data}");
    }
}

#[test]
fn of_a_batch_what_is_understood_is_kept_and_the_rest_put_aside() {
    let body = br#"{"scope":"store/product/updated","data":[{"id":1},{"id":"../2"},{"id":3}]}"#;
    let catalog = Catalog::embedded().unwrap();
    let topics = IntakeTopics { intake: "i".into(), dead_letters: "d".into() };
    let received =
        Received { event_id: None, body: Bytes::from_static(body), received_ms: 5, traceparent: None };
    let records = intake_records(&catalog, &topics, &received);
    let topics: Vec<&str> = records.iter().map(|record| &*record.topic).collect();
    assert_eq!(topics, ["i", "i", "d"]);
    assert!(records.iter().all(|record| record.value.as_deref() == Some(&body[..])));
}

#[test]
fn a_callback_that_names_too_much_is_put_aside_whole() {
    let ids = (1..=MAX_TRIGGERS + 1).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let catalog = Catalog::embedded().unwrap();
    let data = format!(r#"{{"price_list_ids":[{ids}]}}"#);
    assert_eq!(meaning(&catalog, "store/priceLists/deleted", &data), "quarantined");
}

#[test]
fn an_uninstalled_app_stops_its_store_and_nothing_else_does() {
    let catalog = Catalog::embedded().unwrap();
    let stopping =
        catalog.entities().iter().flat_map(|entity| &entity.scope).filter(|scope| scope.stops_store);
    assert_eq!(stopping.map(|scope| scope.name.as_str()).collect::<Vec<_>>(), ["store/app/uninstalled"]);
}

/// Any JSON, not too deep.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9/.%:~|*-]{0,8}".prop_map(Value::from),
    ];
    // The names that rows look for, so that odd values stand where ids are expected.
    let name = prop::sample::select(vec![
        "id",
        "data",
        "sku",
        "product_id",
        "variant_id",
        "cartId",
        "cart_id",
        "orderId",
        "order_id",
        "inventory",
        "resource_id",
        "resource_type",
        "metafield_id",
        "affected_product_ids",
        "price_list_ids",
        "message",
        "address",
        "customer_id",
        "template_kind",
        "location_id",
    ]);
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(name.clone(), inner, 0..6).prop_map(|map| map
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _whatever = callback(&CATALOG, &body);
    }

    #[test]
    fn no_data_panics_or_vanishes(at in any::<prop::sample::Index>(), data in json()) {
        let scopes: Vec<&str> = CALLBACKS.lines().filter_map(|line| line.split('\t').next()).collect();
        let body = serde_json::json!({ "scope": scopes[at.index(scopes.len())], "data": data }).to_string();
        let topics = IntakeTopics { intake: "i".into(), dead_letters: "d".into() };
        let received =
            Received { event_id: None, body: Bytes::from(body.clone()), received_ms: 5, traceparent: None };
        let records = intake_records(&CATALOG, &topics, &received);
        prop_assert!(!records.is_empty());
        for record in records.iter().filter(|record| &*record.topic == "i") {
            let key = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
            prop_assert!(EntityKey::parse(key).is_ok(), "{key}");
        }
        if let Ok(found) = callback(&CATALOG, body.as_bytes()) {
            prop_assert!(!found.triggers.is_empty() && found.triggers.len() <= MAX_TRIGGERS);
        }
    }
}
