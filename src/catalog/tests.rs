use super::*;

#[test]
fn the_embedded_rows_are_sound() {
    let catalog = Catalog::embedded().unwrap();
    assert!(catalog.entities().len() >= 180);
    assert_eq!(catalog.entity("shipment").unwrap().name, "order_shipment");
}

#[test]
fn a_scope_is_found_in_every_spelling() {
    let catalog = Catalog::embedded().unwrap();
    for (delivered, entity) in [
        ("store/product/updated", "product"),
        ("store/product/updated/", "product"),
        ("store/product/*", "product"),
        ("store/cart/lineItems/created", "cart_item"),
        ("store/sku/inventory/order/updated", "inventory_item"),
    ] {
        assert_eq!(catalog.scope(delivered).map(|(e, _)| e.name.as_str()), Some(entity), "{delivered}");
    }
    assert!(catalog.scope("store/unheard/of").is_none());
}

#[test]
fn a_row_that_deletes_a_collection_is_refused() {
    let row = r#"
        [[entity]]
        name = "thing"
        doc = "x"
        spec = "x"
        oauth = "x"
        key = ["id"]
        ids = ["thing_id"]
        read.one = "/v3/things/{thing_id}"
        action = [{ name = "delete", method = "DELETE", path = "/v3/things", class = "A" }]
    "#;
    let BadCatalog(faults) = Catalog::from_families(&[("x.toml", row)]).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].to_string(), "entity \"thing\": action \"delete\" deletes a collection");
}

#[test]
fn a_scope_claimed_twice_is_refused() {
    let row = r#"
        [[entity]]
        name = "thing"
        doc = "x"
        spec = "x"
        oauth = "x"
        key = ["id"]
        ids = ["thing_id"]
        read.one = "/v3/things/{thing_id}"
        scope = [
            { name = "store/thing/updated", op = "updated", id = ["data.id"] },
            { name = "store/thing/updated", op = "created", id = ["data.id"] },
        ]
    "#;
    assert!(Catalog::from_families(&[("x.toml", row)]).unwrap_err().0[0].what.contains("claimed twice"));
}

/// Every concrete scope that BigCommerce delivers, and every wildcard that it takes.
const SCOPES: &str = include_str!("../sandbox/data/scopes.tsv");

fn listed() -> impl Iterator<Item = &'static str> {
    SCOPES.lines().filter_map(|line| line.split('\t').next())
}

#[test]
fn every_scope_is_claimed_once_and_every_wildcard_known() {
    let catalog = Catalog::embedded().unwrap();
    let is_wildcard = |name: &&str| name.ends_with("/*");
    let mut claimed: Vec<&str> =
        catalog.entities().iter().flat_map(|e| &e.scope).map(|scope| scope.name.as_str()).collect();
    let mut concrete: Vec<&str> = listed().filter(|name| !is_wildcard(name)).collect();
    claimed.sort_unstable();
    concrete.sort_unstable();
    assert_eq!(claimed, concrete);
    let mut wildcards: Vec<&str> = catalog.wildcards().iter().map(|w| w.name.as_str()).collect();
    let mut listed: Vec<&str> = self::listed().filter(is_wildcard).collect();
    wildcards.sort_unstable();
    listed.sort_unstable();
    assert_eq!(wildcards, listed);
}

#[test]
fn a_wildcard_brings_what_it_surely_brings() {
    let catalog = Catalog::embedded().unwrap();
    let brings = |name: &str| catalog.wildcards().iter().find(|w| w.name == name).unwrap().brings.clone();
    let orders =
        ["archived", "created", "statusUpdated", "updated"].map(|event| format!("store/order/{event}"));
    assert_eq!(brings("store/order/*"), orders);
    assert_eq!(brings("store/channel/*"), ["store/channel/created", "store/channel/updated"]);
    assert_eq!(brings("store/cart/*").len(), 9, "with the lines, without the metafields");
    assert_eq!(brings("store/channel/{channel_id}/settings/*").len(), 24);
    assert!(catalog.wildcards().iter().all(|wildcard| wildcard.brings.len() >= 2));
}

#[test]
fn without_settings_the_same_entities_are_bridged_as_ever() {
    let catalog = Catalog::embedded().unwrap();
    let default: Vec<&str> =
        catalog.entities().iter().filter(|e| e.default).map(|e| e.name.as_str()).collect();
    assert_eq!(
        default,
        [
            "product",
            "product_variant",
            "category",
            "inventory_item",
            "customer",
            "order",
            "order_shipment",
            "cart"
        ]
    );
}

/// A sound row, to be spoiled.
fn thing() -> serde_json::Value {
    serde_json::json!({
        "name": "thing", "doc": "A thing.", "key": ["id"], "ids": ["thing_id"],
        "read": {
            "one": "/v3/things/{thing_id}",
            "many": { "style": "id_in", "path": "/v3/things", "param": "id:in", "max": 250 }
        },
        "list": { "path": "/v3/things", "pages": "page" },
        "include": [{ "name": "parts" }],
        "resolve": [{
            "name": "code", "ids": ["code"], "key": ["code"],
            "many": { "style": "id_in", "path": "/v3/things", "param": "code:in", "max": 1 }
        }],
        "scope": [{ "name": "store/thing/updated", "op": "updated", "id": ["data.id"] }]
    })
}

fn faults(row: serde_json::Value) -> Vec<String> {
    match Catalog::embedded().unwrap().with_rows(&[row]) {
        Ok(_) => Vec::new(),
        Err(BadCatalog(faults)) => faults.into_iter().map(|fault| fault.what).collect(),
    }
}

/// The actions of a row: one delete.
fn delete(fields: &str) -> String {
    format!(r#"[{{"name":"x","method":"DELETE","class":"A",{fields}}}]"#)
}

/// The actions of a row: one update.
fn put(fields: &str) -> String {
    format!(r#"[{{"name":"x","method":"PUT","path":"/v3/things","class":"A",{fields}}}]"#)
}

#[test]
fn every_fault_of_a_row_is_named() {
    assert_eq!(faults(thing()), Vec::<String>::new());
    for (place, value, fault) in [
        ("/name", r#""Thing""#, "lower case"),
        ("/doc", r#"" ""#, "says nothing"),
        ("/ids", r#"["thing_id", "b"]"#, "2 ids and 1 parts"),
        ("/key", "[]", "has no key"),
        ("/key", r#"["@other"]"#, "none of its ids"),
        ("/key", r#"["a b"]"#, "no place in its JSON"),
        ("/read/one", r#""/v3/things/{thing_id}/""#, "is not one"),
        ("/read/one", r#""https://example.com/{thing_id}""#, "is not one"),
        ("/read/one", r#""/v3/things/x{thing_id}""#, "is not one"),
        ("/read/one", r#""/v3/../{thing_id}""#, "is not one"),
        ("/read/one", r#""/v3/things/{thing_id}?all=1""#, "is not one"),
        ("/read/one", r#""/v3/things/{id}""#, "needs \"id\""),
        ("/read/query", r#"{"limit":"1"}"#, "the bridge's own"),
        ("/read/query", r#"{"a":"{b}"}"#, "needs \"b\""),
        ("/read/rows", r#"["lines"]"#, "several rows"),
        ("/read/many/max", "0", "takes no ids"),
        ("/read/many/param", r#""""#, "names no parameter"),
        ("/read/many/part", "1", "narrowed by part 1"),
        ("/read/many/style", r#""range""#, "takes no parameter"),
        ("/list/path", r#""/v3/{a}/things""#, "`over` does not say"),
        ("/list/over", r#""product""#, "no place for the parent's id"),
        ("/list/over", r#""nobody""#, "no entity"),
        ("/list/over", r#""cart""#, "listed nowhere"),
        ("/list/over", r#""inventory_item""#, "no ids that a path takes"),
        ("/list/over", r#""thing""#, "parents of each other"),
        ("/list/default", "true", "for no parents"),
        ("/list/since", r#"{"param":""}"#, "no parameter of its own"),
        ("/list/include", "true", ""),
        ("/include/0/name", r#""""#, "name of its own"),
        ("/include/0/page_size", "0", "no row on a page"),
        ("/include/0/path", r#""/v3/parts/{x}""#, "needs \"x\""),
        ("/resolve/0/key", "[]", "1 ids and 0 parts"),
        ("/scope/0/name", r#""store/thing/*""#, "is not one"),
        ("/scope/0/name", r#""store/product/updated""#, "claimed twice"),
        ("/scope/0/id", r#"["data.id","data.b"]"#, "gives 2 ids of 1"),
        ("/scope/0/id", r#"["id"]"#, "none of a callback"),
        ("/scope/0/id", r#"["data.id|data..b"]"#, "none of a callback"),
        ("/scope/0/id", r#"["=.."]"#, "none of a callback"),
        ("/scope/0/id", r#"["scope.channel_id"]"#, "none of a callback"),
        ("/scope/0/row", r#"["data.row"]"#, "about one thing"),
        ("/scope/0/resolve", r#""nothing""#, "has not"),
        ("/scope/0/when", r#"{"at":"data.type","is":["x"]}"#, "none in the others"),
        ("/scope/0/not_readable", r#""so it is""#, "says of what"),
        ("/scope/0/also", r#"[{"entity":"nobody","op":"updated","id":["data.id"]}]"#, "no entity"),
        (
            "/scope/0/also",
            r#"[{"entity":"order_refund_quote","op":"updated","id":["data.id"]}]"#,
            "how to read",
        ),
        (
            "/action",
            r#"[{"name":"x","method":"DELETE","path":"/v3/things","class":"A"}]"#,
            "deletes a collection",
        ),
        ("/action", r#"[{"name":"x","method":"PUT","path":"/v3/a{b}","class":"A"}]"#, "is not one"),
        ("/action", r#"[{"name":"x","method":"GET","path":"/v3/things","class":"A"}]"#, "is a read"),
        ("/action", &delete(r#""path":"/v3/things","only_one":true"#), "deletes a collection"),
        ("/action", &delete(r#""path":"/v3/things/{a}/parts","only_one":true"#), ""),
        ("/action", &delete(r#""path":"/v3/things/{a}/parts""#), "deletes a collection"),
        (
            "/action",
            &delete(r#""path":"/v3/things","id_query":[{"name":"id:in","id":"a","default":true}]"#),
            "leaves an id out",
        ),
        ("/action", &delete(r#""path":"/v3/things/{a}","body":"object""#), "a proxy may drop"),
        ("/action", &put(r#""body":"array_of_id""#), "no place for it"),
        ("/action", &put(r#""body":"array","id_body":[{"name":"id","id":"a"}]"#), "no place for it"),
        (
            "/action",
            &put(r#""body":"object","id_body":[{"name":"id","id":"a","default":true}]"#),
            "out of the body",
        ),
        (
            "/action",
            &put(r#""body":"object","natural_key":[{"field":"a b","param":"a"}]"#),
            "no place in its JSON",
        ),
        (
            "/action",
            &put(r#""body":"object","natural_key":[{"field":"a","param":"limit"}]"#),
            "no parameter of its own",
        ),
        (
            "/action",
            &put(r#""body":"array_of_one","batch":{"max":2,"without":["b"]}"#),
            "which it does not have",
        ),
        (
            "/action",
            &put(
                r#""body":"array_of_one","id_body":[{"name":"id","id":"a"}],"batch":{"max":2,"without":["a"]}"#,
            ),
            "does without all ids",
        ),
        ("/colour", r#""red""#, "unknown field `colour`"),
    ] {
        let mut row = thing();
        let (parent, field) = place.rsplit_once('/').unwrap();
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        row.pointer_mut(parent).unwrap()[field] = value.clone();
        let found = faults(row);
        match fault {
            "" => assert_eq!(found, Vec::<String>::new(), "{place} = {value}"),
            fault => assert!(found.iter().any(|f| f.contains(fault)), "{place} = {value}: {found:?}"),
        }
    }
}

#[test]
fn a_users_row_takes_the_place_of_ours_wholly() {
    let catalog = Catalog::embedded().unwrap();
    let mut row = thing();
    row["name"] = "brand".into();
    let merged = catalog.with_rows(&[row]).unwrap();
    assert_eq!(merged.entities().len(), catalog.entities().len());
    assert_eq!(merged.entity("brand").unwrap().doc, "A thing.");
    assert!(merged.is_own("brand") && !merged.is_own("product") && !catalog.is_own("brand"));
    assert!(merged.scope("store/thing/updated").is_some());
    // Whoever takes the order's place must still be found by its cart.
    let mut order = thing();
    order["name"] = "order".into();
    let BadCatalog(faults) = catalog.with_rows(&[order]).unwrap_err();
    assert!(
        faults.iter().any(|fault| fault.entity == "cart" && fault.what.contains("resolve \"cart\"")),
        "{faults:?}"
    );
    let BadCatalog(faults) = catalog.with_rows(&[thing(), thing()]).unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.what.as_str()).collect::<Vec<_>>(), ["it is given twice"]);
}
