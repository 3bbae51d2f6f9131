//! Every read of the catalogue against BigCommerce's own OpenAPI files: its paths and parameters exist, no page is larger
//! than allowed, nothing that must be asked with is left out. Of writes, see `catalog_writes`.

use std::collections::BTreeMap;

use bcbridge::catalog::{Catalog, Entity, Pages, ReadMany};

use crate::openapi::Judge;

/// Where the files are known to be wrong about the API: (path, parameter, what is so).
const FILES_ARE_WRONG: [(&str, &str, &str); 3] = [
    ("/v2/customers", "page", "the list is paged like all of V2, and the file has no word of it"),
    ("/v2/customers", "limit", "the list is paged like all of V2, and the file has no word of it"),
    ("/v3/customers/subscribers", "id", "a filter, marked as required"),
];

/// A read that a row leads to.
struct Call<'a> {
    what: String,
    path: &'a str,
    /// Parameters that it sends, with the value where that is a number.
    query: BTreeMap<&'a str, Option<u64>>,
}

impl<'a> Call<'a> {
    fn new(what: impl Into<String>, path: &'a str) -> Self {
        Self { what: what.into(), path, query: BTreeMap::new() }
    }

    fn with(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.query.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (name, None)));
        self
    }

    fn paged(mut self, pages: Pages, limit: usize) -> Self {
        let next = match pages {
            Pages::None => return self,
            Pages::V2 | Pages::Page => "page",
            Pages::Cursor | Pages::AfterId => "after",
        };
        self.query.insert(next, None);
        if limit > 0 {
            self.query.insert("limit", Some(limit as u64));
        }
        self
    }
}

fn read_many<'a>(what: String, many: &'a ReadMany, entity: &'a Entity) -> Call<'a> {
    let pages = many.pages.unwrap_or(if many.path.starts_with("/v2/") { Pages::V2 } else { Pages::Page });
    let range =
        if many.style == bcbridge::catalog::ManyStyle::Range { ["min_id", "max_id"] } else { ["", ""] };
    let call = Call::new(what, &many.path).with([many.param.as_str()]).with(range);
    call.with(many.query.keys().map(String::as_str)).with(include(entity)).paged(pages, many.page_size)
}

fn include(entity: &Entity) -> [&'static str; 1] {
    [if entity.include.iter().any(|include| include.path.is_none()) { "include" } else { "" }]
}

/// All reads of an entity.
fn calls(entity: &Entity) -> Vec<Call<'_>> {
    let mut all = Vec::new();
    if let Some(one) = &entity.read.one {
        let call = Call::new("read one", one).with(entity.read.query.keys().map(String::as_str));
        all.push(call.with(include(entity)));
    }
    all.extend(entity.read.many.iter().map(|many| read_many("read many".into(), many, entity)));
    all.extend(entity.resolve.iter().map(|r| read_many(format!("resolve {}", r.name), &r.many, entity)));
    for include in &entity.include {
        if let Some(path) = &include.path {
            all.push(Call::new(format!("include {}", include.name), path).paged(Pages::V2, 250));
        }
    }
    if let Some(list) = &entity.list {
        let since =
            list.since.iter().flat_map(|s| [s.param.as_str(), s.until.as_deref().unwrap_or_default()]);
        let call = Call::new("list", &list.path).with(list.query.keys().map(String::as_str)).with(since);
        let call = if list.include { call.with(include(entity)) } else { call };
        all.push(call.paged(list.pages, list.max));
    }
    all
}

/// The path as the files have it: without the version, which they leave to the server's address, and with a place where
/// the row has a number that stands for any.
fn in_file(path: &str) -> String {
    let below = path.trim_start_matches("/v2").trim_start_matches("/v3");
    let place = |segment: &str| match segment.parse::<u64>() {
        Ok(_) => "{any}".to_owned(),
        Err(_) => segment.to_owned(),
    };
    below.split('/').map(place).collect::<Vec<_>>().join("/")
}

fn check(judge: &mut Judge, file: &str, call: &Call<'_>) -> Vec<String> {
    let path = in_file(call.path);
    let known = judge.query(file, "get", &path).or_else(|| judge.query(file, "get", call.path));
    let Some(known) = known else { return vec![format!("GET {} is not there", call.path)] };
    let excused =
        |name: &str| FILES_ARE_WRONG.iter().any(|(path, wrong, _)| *path == call.path && *wrong == name);
    let mut faults = Vec::new();
    for (name, value) in call.query.iter().filter(|(name, _)| !excused(name)) {
        match (known.get(*name), value) {
            (None, _) => faults.push(format!("GET {} knows no parameter {name:?}", call.path)),
            (Some(parameter), Some(value)) if parameter.maximum.is_some_and(|most| most < *value) => {
                faults.push(format!("GET {} takes no {name}={value}: {parameter:?}", call.path));
            }
            _ => {}
        }
    }
    let needed = known.iter().filter(|(name, parameter)| parameter.required && !excused(name));
    for (name, _) in needed.filter(|(name, _)| !call.query.contains_key(name.as_str())) {
        faults.push(format!("GET {} must be asked with {name:?}", call.path));
    }
    faults
}

#[test]
fn every_read_is_known_to_the_api() {
    let Some(mut judge) = Judge::find() else {
        println!("SKIPPED: BigCommerce's OpenAPI files are not at hand (BCBRIDGE_OPENAPI_DIR)");
        return;
    };
    let mut faults = Vec::new();
    for entity in Catalog::embedded().unwrap().entities() {
        let file = entity.spec.trim_end_matches(".yml");
        for call in calls(entity) {
            let found = check(&mut judge, file, &call);
            faults.extend(found.into_iter().map(|f| format!("{}: {}: {f} ({file})", entity.name, call.what)));
        }
        // Some files list what `include` takes, others only mention it.
        let of_query = entity.include.iter().filter(|include| include.path.is_none());
        for include in of_query.filter(|include| !judge.text(file).contains(&include.name)) {
            faults.push(format!("{}: {file} does not mention {:?}", entity.name, include.name));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
