//! Every entity of the sandbox: each list and each single read has rows, and answers as BigCommerce's OpenAPI files say.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use serde_json::Value;

use crate::openapi::Judge;
use crate::sandbox_lab::Lab;

/// What a parameter of a path is the id of, where its name does not say so.
const OWNERS: &[(&str, &str)] = &[("zone_id", "shipping_zone"), ("version_uuid", "theme")];

/// Where the files contradict themselves, the prose or what is known of the live API: path, what the fault's text
/// holds, and why it is let through.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("/metafields", "/owner_client_id: the schema knows", "the store-wide lists and other parents have it"),
    ("/metafields", "/meta/pagination: the schema knows", "the variants' file forgot it in one of two lists"),
    (
        "/v3/channels/{channel_id}/metafields",
        "the schema knows",
        "the file forgot data and meta for channels",
    ),
    ("/v3/carts/{cart_id}/metafields", "/data: [", "the file shows one metafield where it lists them"),
    ("/v3/carts/{cart_id}/metafields", "/meta: the schema", "the file forgot meta for carts"),
    ("", "/meta/pagination/links: the schema knows", "some files forgot the links that others have"),
    (
        "/v2/blog/tags",
        "is not of type \"array\"",
        "the file makes an array of arrays of what its example lists",
    ),
    ("/bulk-pricing-rules", "is not of type \"object\"", "the file shows one rule where it lists them"),
];

/// Products that have different parts.
const PRODUCTS: [&str; 3] = ["1", "14", "30"];

struct Tour {
    lab: Lab,
    judge: Option<Judge>,
    faults: Vec<String>,
    asked: usize,
    product: &'static str,
}

impl Tour {
    /// The first id of an entity.
    fn first(&self, entity: &str) -> Option<String> {
        Some(self.lab.control.state_page(entity, None, 1).ok()?.first()?.0.clone())
    }

    /// The path with every parameter filled in: the parents' first rows, then the fields of `row`.
    fn fill(&self, path: &str, own: Option<(&str, &Value)>) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let last = parts.iter().rposition(|part| part.starts_with('{'));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let filled: Option<Vec<String>> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
                    return Some((*part).to_owned());
                };
                if let Some((id, row)) = own {
                    let name = if name == "currency_code" { "currency" } else { name };
                    if Some(index) == last && id != "_key" {
                        return Some(text(&row[id]));
                    }
                    if let (true, Some(key)) = (Some(index) == last, row.get("_key")) {
                        return Some(text(key));
                    }
                    if let Some(value) = row.get(name).filter(|value| !value.is_null()) {
                        return Some(text(value));
                    }
                }
                let owner = OWNERS.iter().find(|(param, _)| *param == name).map(|(_, owner)| *owner);
                match name {
                    "product_id" => Some(self.product.to_owned()),
                    "provider_id" => Some("basic".to_owned()),
                    "uuid" => self.first("theme"),
                    _ => self.first(owner.unwrap_or_else(|| name.trim_end_matches("_id"))),
                }
            })
            .collect();
        Some(filled?.join("/"))
    }

    /// A product that has rows of a part.
    async fn product_with(&mut self, list: &str) -> &'static str {
        for product in PRODUCTS {
            self.product = product;
            let path = self.fill(list, None).unwrap();
            if self.lab.get(&path).await.body["data"].get(0).is_some() {
                return product;
            }
        }
        "1"
    }

    /// Reads a path and judges the answer; the body, when there is one.
    async fn ask(&mut self, pattern: &str, path: &str) -> Value {
        let answer = self.lab.get(path).await;
        self.asked += 1;
        if answer.status != 200 {
            self.faults.push(format!("{pattern} ({path}): {} {}", answer.status, answer.body));
            return Value::Null;
        }
        let Some(judge) = &mut self.judge else { return answer.body };
        let Some((file, template)) = judge.operation("get", pattern) else {
            self.faults.push(format!("{pattern}: no file knows it"));
            return answer.body;
        };
        for fault in judge.faults((&file, "get", &template), answer.status, &answer.body) {
            let excused =
                EXCEPTIONS.iter().any(|(path, text, _)| pattern.contains(path) && fault.contains(text));
            if !excused {
                self.faults.push(format!("{file} {pattern}: {fault}"));
            }
        }
        answer.body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entity_has_rows_and_answers_as_its_openapi_says() {
    let judge = Judge::find();
    if judge.is_none() {
        println!("NOT JUDGED: BigCommerce's OpenAPI files are not here; set BCBRIDGE_OPENAPI_DIR");
    }
    let mut tour = Tour { lab: Lab::start(|_| ()).await, judge, faults: Vec::new(), asked: 0, product: "1" };
    let url = format!("{}/_sandbox/entities", tour.lab.sandbox.base_uri());
    let entities: Value =
        serde_json::from_str(&tour.lab.client.get(url).send().await.unwrap().text().await.unwrap()).unwrap();
    for entity in entities.as_array().unwrap() {
        let (name, id) = (entity["name"].as_str().unwrap(), entity["id"].as_str().unwrap());
        let mut row = Value::Null;
        if entity["item"].as_str().is_some_and(|path| path.contains("/products/{product_id}/")) {
            tour.product = tour.product_with(entity["list"].as_str().unwrap()).await;
        }
        let lists = entity["lists"].as_array().unwrap().iter().chain([&entity["list"]]);
        for pattern in lists.filter_map(Value::as_str) {
            let Some(path) = tour.fill(pattern, None) else {
                tour.faults.push(format!("{name}: nothing to fill {pattern} with"));
                continue;
            };
            let body = tour.ask(pattern, &path).await;
            let rows = body.get("data").unwrap_or(&body);
            match rows.get(0) {
                Some(first) => row = first.clone(),
                None => tour.faults.push(format!("{name}: {path} is empty")),
            }
        }
        if let Some(pattern) = entity["item"].as_str() {
            if row.is_null()
                && let Some(first) = tour.first(name)
            {
                row = serde_json::json!({"_key": first, id: first});
            }
            let own = (!row.is_null() && (id != "_key" || entity["compose"] != serde_json::json!([])))
                .then_some((id, &row));
            match tour.fill(pattern, own) {
                Some(path) => drop(tour.ask(pattern, &path).await),
                None => tour.faults.push(format!("{name}: nothing to fill {pattern} with")),
            }
        }
    }
    println!("{} reads", tour.asked);
    assert!(tour.faults.is_empty(), "{} faults:\n{}", tour.faults.len(), tour.faults.join("\n"));
}
