//! What must never reach a shop: sixty ids that are none, in every place of every action, and every way to a delete of
//! a whole collection. Through the topic, the running bridge and a real socket; the sandbox's log is the witness.

use std::collections::BTreeMap;
use std::time::Duration;

use bcbridge::catalog::row::Body;
use bcbridge::catalog::{Action, Catalog, Entity};
use bcbridge::kafka::append::IntakeProducer;
use bcbridge::model::record::OutRecord;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, json_of, until};

/// What a delete without an id would empty (BigCommerce's OpenAPI files: no filter is required there).
const COLLECTIONS: [&str; 28] = [
    "/v2/orders",
    "/v2/customers",
    "/v2/customers/{}/addresses",
    "/v2/orders/{}/shipments",
    "/v2/coupons",
    "/v2/banners",
    "/v2/gift_certificates",
    "/v2/redirects",
    "/v2/currencies",
    "/v2/blog/posts",
    "/v3/pricelists",
    "/v3/pricelists/{}/records",
    "/v3/pricelists/assignments",
    "/v3/catalog/categories",
    "/v3/catalog/trees",
    "/v3/catalog/trees/categories",
    "/v3/catalog/products",
    "/v3/catalog/products/channel-assignments",
    "/v3/catalog/products/category-assignments",
    "/v3/storefront/custom-template-associations",
    "/v3/customers/subscribers",
    "/v3/customers/metafields",
    "/v3/segments",
    "/v3/segments/{}/shopper-profiles",
    "/v3/shopper-profiles",
    "/v3/tax/customers",
    "/v3/tax/zones",
    "/v3/tax/rates",
];

/// Sixty values that are no id of anything.
fn no_ids() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "  1",
        "1 ",
        "/",
        "//",
        "/1",
        "1/",
        ".",
        "..",
        "../1",
        "../../v2/orders",
        "1/2",
        "1/../2",
        "1/..",
        "%2e%2e",
        "%2E%2E%2F",
        "%252e%252e",
        "%2f",
        "%252f",
        "%00",
        "1%00",
        "..%c0%af",
        "..\\",
        "\\",
        "1;2",
        ";",
        "1?x=1",
        "?",
        "1#",
        "#",
        "1&id:in=2",
        "&",
        "1,2",
        ",",
        "0",
        "00",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "18446744073709551616",
        "null",
        "undefined",
        "NaN",
        "é",
        "\u{ff0e}\u{ff0e}",
        "1\n",
        "\t",
        "\0",
        "{product_id}",
        "*",
    ];
    let values = [json!(0), json!(-1), json!(1.5), json!(null), json!(true), json!([1]), json!({ "id": 1 })];
    texts.iter().map(|text| json!(text)).chain(values).chain([json!("9".repeat(129))]).collect()
}

/// A sound command but for its ids.
fn sound(entity: &Entity, action: &Action) -> Value {
    let mut payload = serde_json::Map::new();
    for key in entity.action.iter().flat_map(|action| &action.natural_key) {
        payload.insert(key.field.clone(), json!("x@example.com"));
    }
    if let Some(items) = &action.items {
        payload.insert(items.field.clone(), json!([{}]));
    }
    let mut command = json!({ "entity": entity.name, "action": action.name });
    match action.body {
        Body::Object | Body::ArrayOfOne => command["payload"] = Value::Object(payload),
        Body::Array => command["payload"] = json!([payload]),
        _ if action.path.is_none() => command["payload"] = Value::Object(payload),
        _ => {}
    }
    command
}

/// Every action with each value in each place of an id.
fn in_every_place(catalog: &Catalog, wanted: &mut Vec<Value>) {
    for entity in catalog.entities() {
        for action in &entity.action {
            let ids = action.path_ids();
            for (place, value) in
                ids.iter().flat_map(|place| no_ids().into_iter().map(move |value| (place, value)))
            {
                let mut command = sound(entity, action);
                command["path"] = ids.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
                command["path"][*place] = value;
                wanted.push(command);
            }
        }
    }
}

/// For each collection, each delete that has to do with it, without the id that would narrow it.
fn at_every_collection(catalog: &Catalog, wanted: &mut Vec<Value>) -> BTreeMap<&'static str, usize> {
    let mut tried: BTreeMap<&str, usize> = COLLECTIONS.iter().map(|collection| (*collection, 0)).collect();
    let plain = |path: &str| {
        let part = |part| if str::starts_with(part, '{') { "{}" } else { part };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    };
    for entity in catalog.entities() {
        for action in
            entity.action.iter().filter(|action| action.method.is_some_and(|m| m.as_str() == "DELETE"))
        {
            let path = plain(action.path.as_deref().unwrap_or_default());
            let Some(collection) =
                COLLECTIONS.iter().find(|c| path == **c || path.strip_prefix(**c) == Some("/{}"))
            else {
                continue;
            };
            let ids = action.path_ids();
            let all_but_last: Value = ids[..ids.len().saturating_sub(1)]
                .iter()
                .map(|name| ((*name).to_owned(), json!(1)))
                .collect();
            for query in
                [json!({}), json!({ "limit": 250 }), json!({ "id:in": "" }), json!({ "id:in": "1,2" })]
            {
                for path in [json!(null), json!({}), all_but_last.clone()] {
                    let mut command = json!({ "entity": entity.name, "action": action.name, "query": query });
                    if !path.is_null() {
                        command["path"] = path;
                    }
                    wanted.push(command);
                    *tried.get_mut(collection).unwrap() += 1;
                }
            }
        }
    }
    tried
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_id_that_is_none_and_no_delete_of_a_collection_is_ever_sent() {
    let setup = Setup { incoming: vec![json!({ "entity": "store_information" })], ..Setup::default() };
    let lab = Lab::start(setup).await;
    let catalog = Catalog::embedded().unwrap();
    assert_eq!(no_ids().len(), 60);
    let mut wanted = Vec::new();
    in_every_place(&catalog, &mut wanted);
    let tried = at_every_collection(&catalog, &mut wanted);
    // A collection that no row deletes from has no way to be reached at all: an unknown action or a stray path.
    for (collection, _) in tried.iter().filter(|(_, tried)| **tried == 0) {
        println!("no action of the catalogue deletes from {collection}");
        wanted.push(json!({ "entity": "order", "action": format!("DELETE {collection}") }));
        wanted.push(json!({ "entity": "order", "action": "delete", "path": { "order_id": collection } }));
    }
    let producer = IntakeProducer::new(lab.client.clone(), Duration::from_secs(10)).unwrap();
    for (part, commands) in wanted.chunks(1_000).enumerate() {
        let record = |(number, command): (usize, &Value)| {
            let mut command = command.clone();
            command["id"] = json!(format!("c-{}", part * 1_000 + number));
            OutRecord {
                topic: lab.topic("commands").into(),
                partition: None,
                key: Some(Bytes::from(format!("k-{}", number % 100))),
                value: Some(command.to_string().into()),
                headers: Vec::new(),
                timestamp_ms: None,
            }
        };
        let records = commands.iter().enumerate().map(record).collect();
        producer.append(records, Duration::from_secs(30)).await.unwrap();
    }
    let results = until("all results", || async {
        let results: Vec<Value> = lab.records("results").await.iter().filter_map(json_of).collect();
        (results.len() >= wanted.len()).then_some(results)
    })
    .await;
    assert_eq!(results.len(), wanted.len(), "each has one result");
    for result in &results {
        let number: usize = result["id"].as_str().unwrap().strip_prefix("c-").unwrap().parse().unwrap();
        let command = &wanted[number];
        assert_eq!(result["outcome"], "rejected", "{command}: {result}");
        assert!(result["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{command}: {result}");
        assert!(result["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{command}: {result}");
        assert_eq!(result["attempts"], 0, "{command}: {result}");
    }
    let writes: Vec<String> = lab
        .control
        .requests()
        .iter()
        .filter(|request| request.method != "GET" && !request.path.starts_with("/v3/hooks"))
        .map(|request| format!("{} {}?{}", request.method, request.path, request.query))
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(lab.control.stats().forbidden_collection_deletes, 0);
    println!("{} commands, each rejected; collections: {tried:?}", wanted.len());
    lab.stop().await;
}
