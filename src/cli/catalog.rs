//! `bcbridge catalog`: what can be subscribed and published, and how.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Output, say};
use crate::catalog::{Catalog, Entity};

/// What to show.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    /// All entities.
    Entities,
    /// All webhook scopes.
    Scopes,
    /// One entity.
    Show {
        /// Its name or an alias.
        entity: String,
    },
}

pub(super) fn run(command: &CatalogCommand, output: Output) -> Result<ExitCode> {
    let catalog = Catalog::embedded()?;
    match command {
        CatalogCommand::Entities => {
            print(catalog.entities().iter().map(|e| entity_row(e)).collect(), output)?;
        }
        CatalogCommand::Scopes => {
            let rows = catalog.entities().iter().flat_map(|entity| {
                entity.scope.iter().map(|scope| {
                    json!({ "scope": scope.name, "entity": entity.name, "op": scope.op.participle() })
                })
            });
            print(rows.collect(), output)?;
        }
        CatalogCommand::Show { entity } => {
            let known = || catalog.entities().iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ");
            let Some(found) = catalog.entity(entity) else {
                eprintln!("error: the entity {entity:?} is not in the catalogue; known are {}", known());
                return Ok(ExitCode::from(super::EXIT_USAGE));
            };
            say(format_args!("{:#}", details(found)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn entity_row(entity: &Entity) -> Value {
    json!({
        "entity": entity.name,
        "scope": entity.scope.iter().map(|scope| scope.name.as_str()).collect::<Vec<_>>(),
        "actions": entity.action.iter().map(|action| action.name.as_str()).collect::<Vec<_>>(),
        "paths": paths(entity),
    })
}

fn paths(entity: &Entity) -> Vec<String> {
    let one = entity.read.one.iter().map(|path| format!("GET {path}"));
    let many = entity.read.many.iter().map(|many| format!("GET {}", many.path));
    let writes = entity
        .action
        .iter()
        .filter_map(|action| Some(format!("{} {}", action.method?.as_str(), action.path.as_deref()?)));
    one.chain(many).chain(writes).collect()
}

fn details(entity: &Entity) -> Value {
    let actions: Vec<Value> = entity
        .action
        .iter()
        .map(|action| {
            json!({
                "action": action.name,
                "method": action.method.map(|method| method.as_str()),
                "path": action.path,
                "path_ids": action.path_ids(),
                "class": action.class.name(),
                "natural_key": action.natural_key.iter().map(|key| key.field.as_str()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let includes: Vec<Value> =
        entity.include.iter().map(|i| json!({ "name": i.name, "default": i.default })).collect();
    json!({
        "entity": entity.name,
        "aliases": entity.aliases,
        "doc": entity.doc,
        "scope": entity.scope.iter().map(|scope| scope.name.as_str()).collect::<Vec<_>>(),
        "actions": actions,
        "include": includes,
        "paths": paths(entity),
        "oauth": entity.oauth,
    })
}

fn print(rows: Vec<Value>, output: Output) -> Result<()> {
    if output == Output::Json {
        return say(format_args!("{:#}", Value::Array(rows)));
    }
    let mut table = comfy_table::Table::new();
    if let Some(Value::Object(first)) = rows.first() {
        table.set_header(first.keys());
    }
    for row in rows {
        if let Value::Object(row) = row {
            table.add_row(row.into_iter().map(|(_, value)| cell(&value)));
        }
    }
    say(format_args!("{table}"))
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}
