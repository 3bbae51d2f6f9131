//! Every write of the catalogue against facts about BigCommerce's API, which are two tables of our own:
//! `operations.tsv`, drawn from its OpenAPI files (`BLESS=1` draws it anew where the files are at hand), and
//! `writes.tsv`, the writes that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bcbridge::catalog::row::Batch;
use bcbridge::catalog::{Action, Body, Catalog, Entity, Pages, nameless};
use bcbridge::model::request::Method;

use crate::openapi::{Asked, Judge};

const OPERATIONS: &str = "tests/fixtures/operations.tsv";
const WRITES: &str = include_str!("../fixtures/writes.tsv");

/// Writes without a row, and why: (method, path, reason).
const NOT_WRITTEN: &[(&str, &str, &str)] = &[
    // A delete that loses its filter or its body deletes everything.
    ("DELETE", "/v2/banners", ALL),
    ("DELETE", "/v2/blog/posts", ALL),
    ("DELETE", "/v2/currencies", ALL),
    ("DELETE", "/v2/customers", ALL),
    ("DELETE", "/v2/customers/{}/addresses", ALL),
    ("DELETE", "/v2/gift_certificates", ALL),
    ("DELETE", "/v2/orders", ALL),
    ("DELETE", "/v2/orders/{}/shipments", ALL),
    ("DELETE", "/v2/redirects", ALL),
    ("DELETE", "/v3/catalog/brands", ALL),
    ("DELETE", "/v3/customers/subscribers", ALL),
    ("DELETE", "/v3/pricelists", ALL),
    ("DELETE", "/v2/shipping/carrier/connection", BODY),
    ("DELETE", "/v3/carts/metafields", BODY),
    ("DELETE", "/v3/catalog/brands/metafields", BODY),
    ("DELETE", "/v3/catalog/categories/metafields", BODY),
    ("DELETE", "/v3/catalog/products/metafields", BODY),
    ("DELETE", "/v3/catalog/variants/metafields", BODY),
    ("DELETE", "/v3/channels/metafields", BODY),
    ("DELETE", "/v3/checkouts/{}/fees", BODY),
    ("DELETE", "/v3/customers/metafields", BODY),
    ("DELETE", "/v3/inventory/locations/metafields", BODY),
    ("DELETE", "/v3/orders/metafields", BODY),
    ("DELETE", "/v3/store/metafields", BODY),
    ("PUT", "/v3/carts/metafields", OWNER),
    ("PUT", "/v3/catalog/brands/metafields", OWNER),
    ("PUT", "/v3/catalog/categories/metafields", OWNER),
    ("PUT", "/v3/catalog/products/metafields", OWNER),
    ("PUT", "/v3/catalog/variants/metafields", OWNER),
    ("PUT", "/v3/channels/metafields", OWNER),
    ("PUT", "/v3/customers/metafields", OWNER),
    ("PUT", "/v3/inventory/locations/metafields", OWNER),
    ("PUT", "/v3/orders/metafields", OWNER),
    ("DELETE", "/v3/promotions/codes", "a code is deleted by its id"),
    ("POST", "/v2/customers", OLD),
    ("PUT", "/v2/customers/{}", OLD),
    ("DELETE", "/v2/customers/{}", OLD),
    ("POST", "/v2/customers/{}/addresses", OLD),
    ("PUT", "/v2/customers/{}/addresses/{}", OLD),
    ("DELETE", "/v2/customers/{}/addresses/{}", OLD),
    ("POST", "/v2/pages", OLD),
    ("PUT", "/v2/pages/{}", OLD),
    ("DELETE", "/v2/pages/{}", OLD),
    ("POST", "/v2/redirects", OLD),
    ("PUT", "/v2/redirects/{}", OLD),
    ("DELETE", "/v2/redirects/{}", OLD),
    ("PUT", "/v3/customers/form-field-values", OLD),
    ("POST", "/v3/catalog/brands/{}/image", FILE),
    ("POST", "/v3/catalog/categories/{}/image", FILE),
    ("POST", "/v3/catalog/products/{}/modifiers/{}/values/{}/image", FILE),
    ("POST", "/v3/settings/favicon/image", FILE),
    ("POST", "/v3/settings/logo/image", FILE),
    ("POST", "/v3/storefront/redirects/imex/import", FILE),
    ("POST", "/v3/themes", FILE),
    ("POST", "/v3/payments/access_tokens", "its reply is a secret, and would stand in the topic of results"),
];

const ALL: &str = "it deletes the whole collection";
const BODY: &str = "it deletes by ids in its body, which a proxy may drop";
const OWNER: &str = "it goes by the metafield's id alone, whoever's it is: they are updated one by one";
const OLD: &str = "it is deprecated, and another entity has it";
const FILE: &str = "it takes a file only";

/// Where the files are known to be wrong, or say less than their text: (method, path, what is so).
const FILES_ARE_WRONG: &[(&str, &str, &str)] =
    &[("GET", "/v3/customers/subscribers", "its `id` is a filter, marked as required")];

type Operations = BTreeMap<(String, String), Asked>;

/// One line: path, method, body, its arrays, query.
fn line(((path, method), asked): (&(String, String), &Asked)) -> String {
    let bounded = |name: &str, most: &Option<u64>| most.map_or(name.to_owned(), |m| format!("{name}<={m}"));
    let body: Vec<String> = asked
        .body
        .iter()
        .map(|kind| bounded(kind, if *kind == "array" { &asked.most } else { &None }))
        .collect();
    let arrays: Vec<String> = asked.arrays.iter().map(|(name, most)| bounded(name, most)).collect();
    let query =
        asked.query.iter().map(|(name, required)| format!("{name}{}", if *required { "!" } else { "" }));
    [path.clone(), method.clone(), body.join(" "), arrays.join(" "), query.collect::<Vec<_>>().join(" ")]
        .join("\t")
}

fn parse(table: &str) -> Operations {
    let bound = |text: &str| match text.split_once("<=") {
        Some((name, most)) => (name.to_owned(), Some(most.parse().unwrap())),
        None => (text.to_owned(), None),
    };
    let operation = |line: &str| {
        let [path, method, body, arrays, query] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let mut asked = Asked::default();
        for (kind, most) in body.split_whitespace().map(bound) {
            asked.body.extend(["object", "array", "file"].into_iter().filter(|known| *known == kind));
            asked.most = asked.most.or(most);
        }
        asked.arrays.extend(arrays.split_whitespace().map(bound));
        asked.query.extend(
            query.split_whitespace().map(|name| (name.trim_end_matches('!').to_owned(), name.ends_with('!'))),
        );
        ((path.to_owned(), method.to_owned()), asked)
    };
    table.lines().map(operation).collect()
}

fn operations() -> Operations {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(OPERATIONS);
    parse(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn the_table_of_operations_is_what_the_files_say() {
    let Some(mut judge) = Judge::find() else {
        println!("SKIPPED: BigCommerce's OpenAPI files are not at hand (BCBRIDGE_OPENAPI_DIR)");
        return;
    };
    let said = judge.operations();
    if std::env::var_os("BLESS").is_some() {
        let table: String = said.iter().map(|operation| line(operation) + "\n").collect();
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(OPERATIONS), table).unwrap();
    }
    let known = operations();
    for (operation, asked) in &said {
        assert_eq!(known.get(operation), Some(asked), "{operation:?}: run with BLESS=1 if the files changed");
    }
    assert_eq!(known.len(), said.len());
}

/// The judge of one action.
struct Write<'a> {
    entity: &'a Entity,
    action: &'a Action,
    operations: &'a Operations,
    faults: Vec<String>,
}

/// An API path as the table has it: rows have a number where any would do.
fn in_table(path: &str) -> String {
    let place = |segment: &str| match segment.parse::<u64>() {
        Ok(_) => "{}".to_owned(),
        Err(_) => segment.to_owned(),
    };
    nameless(path).split('/').map(place).collect::<Vec<_>>().join("/")
}

impl Write<'_> {
    fn fault(&mut self, what: impl std::fmt::Display) {
        self.faults.push(format!("{}: {}: {what}", self.entity.name, self.action.name));
    }

    fn asked(&mut self, method: &str, path: &str) -> Asked {
        match self.operations.get(&(in_table(path), method.to_owned())) {
            Some(asked) => asked.clone(),
            None => {
                self.fault(format!("{method} {path} is not in the files"));
                Asked::default()
            }
        }
    }

    fn judge(&mut self) {
        let action = self.action;
        let Some((method, path)) = action.method.zip(action.path.as_deref()) else {
            return self.natural_keys(None);
        };
        let asked = self.asked(method.as_str(), path);
        self.body(&asked);
        let sent: BTreeSet<&str> = action.id_query.iter().map(|place| place.name.as_str()).collect();
        self.query(&asked, &sent);
        if let Some(batch) = &action.batch {
            self.batch(batch, method, path);
        }
        self.natural_keys(Some(path));
    }

    fn body(&mut self, asked: &Asked) {
        let wanted = match self.action.body {
            Body::None => {
                // A file may carry a body where the text says that it is without meaning.
                if !asked.body.is_empty() && self.action.method != Some(Method::Delete) {
                    self.fault(format!("it sends nothing, and {:?} is taken", asked.body));
                }
                return;
            }
            Body::Object => "object",
            Body::Array | Body::ArrayOfOne | Body::ArrayOfId => "array",
        };
        if !asked.body.contains(wanted) {
            self.fault(format!("its body is an {wanted}, and {:?} is taken", asked.body));
        }
        if let Some(items) = &self.action.items {
            match asked.arrays.get(&items.field) {
                None => self.fault(format!("the body has no array {:?}", items.field)),
                Some(Some(most)) if *most < items.max as u64 => {
                    self.fault(format!("{:?} takes {most} items", items.field));
                }
                Some(_) => {}
            }
        }
    }

    fn query(&mut self, asked: &Asked, sent: &BTreeSet<&str>) {
        for name in sent.iter().filter(|name| !asked.query.contains_key(**name)) {
            self.fault(format!("there is no parameter {name:?}"));
        }
        for (name, _) in asked.query.iter().filter(|(name, needed)| **needed && !sent.contains(name.as_str()))
        {
            self.fault(format!("it must be asked with {name:?}"));
        }
    }

    fn batch(&mut self, batch: &Batch, method: Method, path: &str) {
        let asked = self.asked(method.as_str(), batch.path.as_deref().unwrap_or(path));
        if let Some(place) = &batch.id_query {
            return self.query(&asked, &BTreeSet::from([place.name.as_str()]));
        }
        let most = match &self.action.items {
            Some(items) => match asked.arrays.get(&items.field) {
                Some(most) => *most,
                None => return self.fault(format!("a batch has no array {:?}", items.field)),
            },
            None if asked.body.contains("array") => asked.most,
            None => return self.fault(format!("a batch is an array, and {:?} is taken", asked.body)),
        };
        if most.is_some_and(|most| most < batch.max as u64) {
            self.fault(format!("a batch holds {most:?}, not {}", batch.max));
        }
    }

    /// What finds the thing again is a filter of the key's list, or of the one at the path that creates it.
    fn natural_keys(&mut self, own: Option<&str>) {
        let create = self.entity.action("create").and_then(|create| create.path.as_deref());
        for key in &self.action.natural_key {
            let Some(path) = key.list.as_deref().or(own).or(create) else {
                self.fault(format!("nothing lists {:?}", key.field));
                continue;
            };
            let asked = self.asked("GET", path);
            let further = key.with.iter().filter_map(|part| part.param.as_deref());
            let mut sent: BTreeSet<&str> = further.chain([key.param.as_str()]).collect();
            if self.entity.list.as_ref().is_none_or(|list| list.pages != Pages::None) {
                sent.insert("limit");
            }
            if FILES_ARE_WRONG.iter().any(|(m, p, _)| *m == "GET" && *p == in_table(path)) {
                sent.extend(asked.query.iter().filter(|(_, needed)| **needed).map(|(name, _)| name.as_str()));
            }
            self.query(&asked, &sent);
        }
    }
}

#[test]
fn every_write_is_known_to_the_api() {
    let operations = operations();
    let catalog = Catalog::embedded().unwrap();
    let mut faults = Vec::new();
    for entity in catalog.entities() {
        for action in &entity.action {
            let mut write = Write { entity, action, operations: &operations, faults: Vec::new() };
            write.judge();
            faults.append(&mut write.faults);
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_write_of_the_api_has_a_row_or_a_reason() {
    let catalog = Catalog::embedded().unwrap();
    let of = |action: &Action| {
        let batch = action.batch.as_ref().and_then(|batch| batch.path.as_deref());
        let paths = action.path.as_deref().into_iter().chain(batch);
        let method = action.method.map(Method::as_str);
        paths.filter_map(|path| Some((method?.to_owned(), in_table(path)))).collect::<Vec<_>>()
    };
    let written: BTreeSet<(String, String)> =
        catalog.entities().iter().flat_map(|entity| &entity.action).flat_map(of).collect();
    let mut left: BTreeSet<(&str, &str)> = NOT_WRITTEN.iter().map(|(m, p, _)| (*m, *p)).collect();
    assert_eq!(left.len(), NOT_WRITTEN.len(), "a reason is given twice");
    let mut missing = Vec::new();
    for line in WRITES.lines() {
        let [entity, method, path] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(catalog.entity(entity).is_some(), "{entity} is no entity");
        let has_row = written.contains(&(method.to_owned(), path.to_owned()));
        let has_reason = NOT_WRITTEN.iter().any(|(m, p, _)| (*m, *p) == (method, path));
        assert!(!(has_row && has_reason), "{method} {path} has a row, and a reason to have none");
        if !has_row && !has_reason {
            missing.push(line);
        }
        left.remove(&(method, path));
    }
    assert!(missing.is_empty(), "{} writes have no row:\n{}", missing.len(), missing.join("\n"));
    assert!(left.is_empty(), "no such writes: {left:?}");
}

#[test]
fn no_row_deletes_what_the_bridge_never_deletes() {
    let catalog = Catalog::embedded().unwrap();
    let never: BTreeSet<&str> = NOT_WRITTEN
        .iter()
        .filter(|(_, _, why)| [ALL, BODY].contains(why))
        .map(|(_, path, _)| *path)
        .collect();
    for action in catalog.entities().iter().flat_map(|entity| &entity.action) {
        if action.method == Some(Method::Delete) {
            let path = in_table(action.path.as_deref().unwrap_or_default());
            assert!(!never.contains(path.as_str()), "{} {path}", action.name);
            assert!(!action.path_ids().is_empty(), "{} {path} names nothing", action.name);
        }
    }
}
