use super::*;

#[test]
fn the_embedded_rows_are_sound() {
    let catalog = Catalog::embedded().unwrap();
    assert!(catalog.entities().len() >= 8);
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
