//! Pages as they are asked for, and as they are read.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::Catalog;
use crate::incoming::stage::testing::settings;
use crate::scheduler::scan::{Scan, levels};

fn shown(entity: &str, path: &[(&str, &str)], mode: Mode, change: impl Fn(&mut EntitySettings)) -> String {
    let mut entry = settings(entity);
    change(&mut entry);
    let levels = levels(&Catalog::embedded().unwrap(), &entry.row).unwrap();
    let path: BTreeMap<String, String> =
        path.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let scan = Scan::new("s".into(), Kind::Poll, mode, &levels, &path);
    let own = |at: usize| (at + 1 == levels.len()).then_some(&entry);
    let (frame, level, ask) = scan.next(&levels, |at, level| most(level, own(at), mode)).unwrap();
    let request = request((frame, level, &ask), own(frame.level), mode, Kind::Poll).unwrap();
    let query: Vec<String> = request.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
    format!("{}?{}", request.path.as_str(), query.join("&"))
}

#[test]
fn a_list_is_asked_for_what_is_read_along_and_since_when_it_changed() {
    let since = Mode::Changed(1_767_225_600_000);
    assert_eq!(
        shown("product", &[], since, |entry| entry.include = vec!["images".into()]),
        "/v3/catalog/products?include=images&date_modified:min=2026-01-01T00:00:00+00:00&limit=250&sort=id&id:min=1"
    );
    assert_eq!(
        shown("order", &[], since, |_| {}),
        "/v2/orders?min_date_modified=Thu, 01 Jan 2026 00:00:00 +0000&limit=250&sort=id&min_id=1"
    );
    assert_eq!(
        shown("product", &[], Mode::Ids, |entry| entry.include = vec!["options".into()]),
        "/v3/catalog/products?limit=250&sort=id&id:min=1",
        "of ids nothing else is read, so that pages are large"
    );
}

#[test]
fn configured_parameters_join_and_a_mapping_changes_all_but_pages() {
    let shown_with = |change: &dyn Fn(&mut EntitySettings)| shown("coupon", &[], Mode::Whole, change);
    let query = |entry: &mut EntitySettings| {
        entry.query =
            [("limit".to_owned(), "50".to_owned()), ("type".to_owned(), "shipping".to_owned())].into();
    };
    assert_eq!(shown_with(&query), "/v2/coupons?type=shipping&limit=50&min_id=1");
    let mapped = |entry: &mut EntitySettings| {
        entry.parameters = Some(std::sync::Arc::new(|value: &Value| {
            let mut value = value.clone();
            value["query"]["exclude_type"] = "free".into();
            Ok(value)
        }));
    };
    assert!(shown_with(&mapped).contains("exclude_type=free"), "{}", shown_with(&mapped));
    let smaller = |entry: &mut EntitySettings| {
        entry.parameters = Some(std::sync::Arc::new(|_: &Value| {
            Ok(serde_json::json!({ "query": { "limit": "2", "min_id": "9" } }))
        }));
    };
    assert_eq!(shown_with(&smaller), "/v2/coupons?limit=250&min_id=1", "pages are the scan's own");
}

#[test]
fn fixed_parents_stand_in_the_path() {
    let path = shown("order_shipment", &[("order_id", "250")], Mode::Whole, |_| {});
    assert_eq!(path, "/v2/orders/250/shipments?limit=250");
    assert!(shown("order_shipment", &[], Mode::Whole, |_| {}).starts_with("/v2/orders?"));
}

#[test]
fn replies_of_every_shape_are_read_and_what_is_no_list_is_refused() {
    let catalog = Catalog::embedded().unwrap();
    let level = |name: &str| levels(&catalog, catalog.entity(name).unwrap()).unwrap().pop().unwrap();
    let read = |name: &str, body: &'static str| {
        super::read(&level(name), &BTreeMap::new(), &Bytes::from_static(body.as_bytes()))
    };
    let page = read(
        "product",
        r#"{"data":[{"id":3,"price": 1.10},{"id":4}],"meta":{"pagination":
        {"total":9,"per_page":2,"current_page":2,"total_pages":5}}}"#,
    )
    .unwrap();
    assert_eq!(page.rows[0].json, r#"{"id":3,"price": 1.10}"#, "byte for byte");
    assert_eq!(page.rows[1].id.as_ref().unwrap().as_str(), "4");
    assert_eq!((page.seen.numbers.as_slice(), page.total), ([3, 4].as_slice(), Some(9)));
    assert_eq!(page.seen.numbered, Some(Numbered { page: 2, pages: 5, size: 2 }));
    assert_eq!(read("order", "").unwrap(), Page::default(), "204");
    assert_eq!(
        read("order", r#"[{"id":1},{"no":"id"}]"#).unwrap().rows.iter().filter(|r| r.id.is_some()).count(),
        1
    );
    let cursor =
        r#"{"data":[{"id":1}],"meta":{"cursor_pagination":{"end_cursor":"abc","links":{"next":"?x"}}}}"#;
    assert_eq!(read("customer", cursor).unwrap().seen.after, Some(Some("abc".to_owned())));
    for wrong in ["<html>", r#"{"data":null}"#, r#"{"title":"no"}"#, "7", "[1,"] {
        assert!(read("product", wrong).is_err(), "{wrong}");
    }
}
