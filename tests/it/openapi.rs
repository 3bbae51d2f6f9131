//! BigCommerce's own OpenAPI files as a judge: is this status listed, does this body fit the schema, is every field known?
//!
//! The files are read from `BCBRIDGE_OPENAPI_DIR`, or from `../shared/bigcommerce/openapi` beside the project. OpenAPI
//! 2.0 and 3.0 schemas become JSON Schema by resolving references and turning `nullable` into a type; judging is the
//! `jsonschema` crate's work.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// Deeper than this a schema refers to itself; what lies below is not judged.
const DEPTH_MAX: usize = 24;

/// The OpenAPI files, parsed as they are needed.
pub(crate) struct Judge {
    directory: PathBuf,
    files: HashMap<String, Value>,
}

/// What a file says of a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryParameter {
    /// It must be there.
    pub(crate) required: bool,
    /// Its largest value.
    pub(crate) maximum: Option<u64>,
}

/// What the files say of an operation's request. Where two files have the operation, all that either says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `object`, `array`, `file`; none where it takes no body.
    pub(crate) body: BTreeSet<&'static str>,
    /// Elements of the body at most, where the schema says so.
    pub(crate) most: Option<u64>,
    /// The arrays in the body, with their elements at most.
    pub(crate) arrays: BTreeMap<String, Option<u64>>,
    /// The query's parameters, and whether they must be there.
    pub(crate) query: BTreeMap<String, bool>,
}

/// One operation: file, method in lower case, path as the file spells it.
pub(crate) type Operation<'a> = (&'a str, &'a str, &'a str);

impl Judge {
    /// The judge, or none where the files are not at hand.
    pub(crate) fn find() -> Option<Judge> {
        let directory = std::env::var_os("BCBRIDGE_OPENAPI_DIR").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/bigcommerce/openapi"),
            PathBuf::from,
        );
        directory.is_dir().then(|| Judge { directory, files: HashMap::new() })
    }

    fn file(&mut self, name: &str) -> &Value {
        let path = self.directory.join(format!("{name}.yml"));
        self.files.entry(name.to_owned()).or_insert_with(|| {
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut options = serde_saphyr::Options::default();
            options.budget = None;
            serde_saphyr::from_str_with_options(&text, options)
                .unwrap_or_else(|error| panic!("{name}: {error}"))
        })
    }

    /// All operations of all files, by method and path; ids of paths are `{}`.
    pub(crate) fn operations(&mut self) -> BTreeMap<(String, String), Asked> {
        let mut all: BTreeMap<(String, String), Asked> = BTreeMap::new();
        for name in self.names() {
            let version = if name.split('.').any(|part| part == "v2") { "/v2/" } else { "/v3/" };
            let document = self.file(&name);
            let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
            for (path, shared) in paths {
                let path = format!("{version}{}", plain(path).join("/"));
                for (method, operation) in shared.as_object().into_iter().flatten() {
                    if ["get", "post", "put", "delete"].contains(&method.as_str()) {
                        let asked = all.entry((path.clone(), method.to_uppercase())).or_default();
                        ask(document, shared, operation, asked);
                    }
                }
            }
        }
        all
    }

    /// The files, without their ending, in order.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.ok()?.file_name().to_str()?.strip_suffix(".yml").map(str::to_owned)
        };
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        names
    }

    /// The file and the path, as it spells it, of an operation on a path that begins with `/v2` or `/v3`.
    pub(crate) fn operation(&mut self, method: &str, path: &str) -> Option<(String, String)> {
        let (version, rest) = path.trim_start_matches('/').split_once('/')?;
        let mut names = self.names();
        names.retain(|name| name.split('.').any(|part| part == version));
        let plain = |path: &str| -> Vec<String> {
            let of =
                |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
            path.split('/').filter(|segment| !segment.is_empty()).map(of).collect()
        };
        let wanted = plain(rest);
        names.into_iter().find_map(|name| {
            let paths = self.file(&name).get("paths").and_then(Value::as_object).into_iter().flatten();
            let mut found = paths
                .filter(|(known, operations)| plain(known) == wanted && operations.get(method).is_some());
            let path = found.next()?.0.clone();
            Some((name, path))
        })
    }

    /// The text of a file.
    pub(crate) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.join(format!("{file}.yml"))).unwrap()
    }

    /// The query parameters of an operation, whatever it calls the ids of the path; none where the file lacks it.
    pub(crate) fn query(
        &mut self,
        file: &str,
        method: &str,
        path: &str,
    ) -> Option<BTreeMap<String, QueryParameter>> {
        let wanted = plain(path);
        let document = self.file(file);
        let (_, shared) = document
            .get("paths")?
            .as_object()?
            .iter()
            .find(|(known, operations)| plain(known) == wanted && operations.get(method).is_some())?;
        let all = [shared, shared.get(method)?].into_iter();
        let nodes = all.filter_map(|node| node.get("parameters")?.as_array()).flatten();
        let of = |node: &Value| {
            let node = resolve(document, node);
            let schema = resolve(document, node.get("schema").unwrap_or(node));
            let parameter = QueryParameter {
                required: node.get("required") == Some(&Value::Bool(true)),
                maximum: schema.get("maximum").and_then(Value::as_u64),
            };
            let name = node.get("name").and_then(Value::as_str)?;
            (node.get("in").and_then(Value::as_str) == Some("query")).then(|| (name.to_owned(), parameter))
        };
        Some(nodes.filter_map(of).collect())
    }

    /// What is wrong with an answer to an operation; empty when nothing is.
    pub(crate) fn faults(
        &mut self,
        (file, method, path): Operation<'_>,
        status: u16,
        body: &Value,
    ) -> Vec<String> {
        let document = self.file(file);
        let operation = document.get("paths").and_then(|paths| paths.get(path)?.get(method));
        let Some(operation) = operation else { return vec![format!("{file} has no {method} {path}")] };
        let response = operation.get("responses").and_then(|responses| responses.get(status.to_string()));
        let Some(response) = response.map(|node| resolve(document, node)) else {
            return vec![format!("status {status} is not listed")];
        };
        let content =
            response.get("content").and_then(Value::as_object).and_then(|kinds| kinds.values().next());
        let Some(schema) = response.get("schema").or_else(|| content?.get("schema")) else {
            let odd = !body.is_null() && status < 300;
            return if odd {
                vec![format!("status {status} has no schema, but there is a body")]
            } else {
                Vec::new()
            };
        };
        let schema = translate(document, schema, 0);
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft7)
            .should_validate_formats(true)
            .build(&schema)
            .unwrap_or_else(|error| panic!("{file} {method} {path} {status}: {error}"));
        let mut faults: Vec<String> =
            validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        strangers(&schema, body, "", &mut faults);
        faults
    }
}

/// Adds what one file says of an operation.
fn ask(document: &Value, shared: &Value, operation: &Value, asked: &mut Asked) {
    let parameters = [shared, operation].into_iter().filter_map(|node| node.get("parameters")?.as_array());
    for parameter in parameters.flatten().map(|node| resolve(document, node)) {
        let required = parameter.get("required") == Some(&Value::Bool(true));
        match (parameter.get("in").and_then(Value::as_str), parameter.get("name").and_then(Value::as_str)) {
            (Some("query"), Some(name)) => *asked.query.entry(name.to_owned()).or_default() |= required,
            (Some("body"), _) => body(document, &parameter["schema"], 0, asked),
            _ => {}
        }
    }
    let Some(request) = operation.get("requestBody").map(|node| resolve(document, node)) else { return };
    for (kind, content) in request.get("content").and_then(Value::as_object).into_iter().flatten() {
        match kind.as_str() {
            "application/json" => body(document, &content["schema"], 0, asked),
            "multipart/form-data" => drop(asked.body.insert("file")),
            _ => {}
        }
    }
}

/// Adds what one schema of a body says.
fn body(document: &Value, schema: &Value, depth: usize, asked: &mut Asked) {
    let schema = resolve(document, schema);
    if depth > DEPTH_MAX {
        return;
    }
    if schema.get("type").and_then(Value::as_str) == Some("array") || schema.get("items").is_some() {
        asked.body.insert("array");
        asked.most = asked.most.max(schema.get("maxItems").and_then(Value::as_u64));
    } else if schema.get("type").is_some() || schema.get("properties").is_some() {
        asked.body.insert("object");
    }
    for (name, node) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let node = resolve(document, node);
        if node.get("type").and_then(Value::as_str) == Some("array") {
            asked.arrays.insert(name.clone(), node.get("maxItems").and_then(Value::as_u64));
        }
    }
    let branches = ["allOf", "oneOf", "anyOf"].into_iter().filter_map(|word| schema.get(word)?.as_array());
    branches.flatten().for_each(|branch| body(document, branch, depth + 1, asked));
}

/// A path with the names of its ids left out.
fn plain(path: &str) -> Vec<String> {
    let of = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').filter(|segment| !segment.is_empty()).map(of).collect()
}

fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    let mut node = node;
    for _ in 0..DEPTH_MAX {
        let Some(pointer) = node.get("$ref").and_then(Value::as_str) else { return node };
        node =
            pointer.strip_prefix('#').and_then(|pointer| document.pointer(pointer)).unwrap_or(&Value::Null);
    }
    node
}

/// The schema without references and OpenAPI's own words.
fn translate(document: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolve(document, schema);
    let Some(schema) = schema.as_object().filter(|_| depth < DEPTH_MAX) else { return json!({}) };
    let deeper = |node: &Value| translate(document, node, depth + 1);
    let mut out = Map::new();
    for (word, value) in schema {
        match word.as_str() {
            "properties" | "patternProperties" => {
                let inner = value.as_object().into_iter().flatten();
                out.insert(word.clone(), inner.map(|(name, node)| (name.clone(), deeper(node))).collect());
            }
            "allOf" | "oneOf" | "anyOf" => {
                let inner = value.as_array().into_iter().flatten().map(deeper).collect();
                // Several alternatives often fit at once, because nothing in them is required.
                let word = if word == "oneOf" { "anyOf" } else { word };
                out.insert(word.to_owned(), Value::Array(inner));
            }
            "items" | "not" => {
                out.insert(word.clone(), deeper(value));
            }
            "required" if value.is_array() => {
                out.insert(word.clone(), value.clone());
            }
            "type" if value.is_string() => {
                out.insert(word.clone(), value.clone());
            }
            // Some files hold patterns that no engine takes.
            "pattern" if jsonschema::validator_for(&json!({"pattern": value})).is_err() => {}
            "enum" | "minLength" | "maxLength" | "pattern" | "minItems" | "maxItems" => {
                out.insert(word.clone(), value.clone());
            }
            "format" if matches!(value.as_str(), Some("date-time" | "uuid" | "email" | "date")) => {
                out.insert(word.clone(), value.clone());
            }
            "additionalProperties" if value == &Value::Bool(false) => {
                out.insert(word.clone(), value.clone());
            }
            _ => {}
        }
    }
    let nullable =
        ["nullable", "x-nullable"].iter().any(|word| schema.get(*word) == Some(&Value::Bool(true)));
    if nullable { json!({"anyOf": [{"type": "null"}, out]}) } else { Value::Object(out) }
}

/// Adds a fault for every field that no branch of the schema names.
fn strangers(schema: &Value, body: &Value, at: &str, faults: &mut Vec<String>) {
    match body {
        Value::Object(map) => {
            let mut known = HashMap::new();
            collect(schema, &mut known);
            if known.is_empty() {
                return;
            }
            for (name, value) in map {
                let path = format!("{at}/{name}");
                match known.get(name.as_str()) {
                    Some(branches) => {
                        let schema = json!({"anyOf": branches});
                        strangers(&schema, value, &path, faults);
                    }
                    None => faults.push(format!("{path}: the schema knows no such field")),
                }
            }
        }
        Value::Array(items) => {
            let mut inner = Vec::new();
            elements(schema, &mut inner);
            let schema = json!({"anyOf": inner});
            for (index, item) in items.iter().enumerate() {
                strangers(&schema, item, &format!("{at}/{index}"), faults);
            }
        }
        _ => {}
    }
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    ["allOf", "anyOf"].iter().filter_map(|word| schema.get(*word)?.as_array()).flatten()
}

fn collect<'a>(schema: &'a Value, known: &mut HashMap<&'a str, Vec<&'a Value>>) {
    for (name, node) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        known.entry(name).or_default().push(node);
    }
    branches(schema).for_each(|branch| collect(branch, known));
}

fn elements<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
    found.extend(schema.get("items"));
    branches(schema).for_each(|branch| elements(branch, found));
}
