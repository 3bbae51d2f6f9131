//! `bcbridge catalog`: what can be subscribed, polled and written, and how.
//!
//! Where there are settings, their own rows of the catalogue are among those shown. Settings that are unsound are no
//! reason to show nothing, unless they were named.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{ConfigArg, EXIT_CONFIG, EXIT_USAGE, Output, complain, say};
use crate::catalog::row::NaturalKey;
use crate::catalog::{Action, Catalog, Entity, List, Scope};
use crate::config::{self, ConfigErrors};

/// What to show.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    /// All entities.
    Entities(ConfigArg),
    /// All webhook scopes, and the wildcards that can be subscribed to.
    Scopes(ConfigArg),
    /// One entity.
    Show {
        /// Its name or an alias.
        entity: String,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub(super) fn run(command: &CatalogCommand, output: Output) -> Result<ExitCode> {
    let (CatalogCommand::Entities(config)
    | CatalogCommand::Scopes(config)
    | CatalogCommand::Show { config, .. }) = command;
    let catalog = match merged(config)? {
        Ok(catalog) => catalog,
        Err(code) => return Ok(code),
    };
    match (command, output) {
        (CatalogCommand::Entities(_), Output::Json) => {
            say_all(catalog.entities().iter().map(|entity| entity_json(&catalog, entity)))
        }
        (CatalogCommand::Entities(_), Output::Table) => say(format_args!("{}", entity_table(&catalog))),
        (CatalogCommand::Scopes(_), Output::Json) => say_all(scopes_json(&catalog)),
        (CatalogCommand::Scopes(_), Output::Table) => say(format_args!("{}", scope_table(&catalog))),
        (CatalogCommand::Show { entity, .. }, _) => {
            let Some(found) = catalog.entity(entity) else {
                complain(format_args!(
                    "error: the entity {entity:?} is not in the catalogue; `bcbridge catalog entities` lists all"
                ));
                return Ok(ExitCode::from(EXIT_USAGE));
            };
            say(format_args!("{:#}", details(&catalog, found)))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The built-in catalogue with the rows of the settings, where there are any.
fn merged(config: &ConfigArg) -> Result<Result<Catalog, ExitCode>> {
    let catalog = Catalog::embedded()?;
    let env = |name: &str| std::env::var(name).ok();
    let found = config::find(config.config.as_deref(), &env);
    match found.and_then(|source| config::load_source(&source, &env, &catalog)) {
        Ok(settings) => Ok(Ok(catalog.with_rows(&settings.catalog)?)),
        Err(ConfigErrors::Absent { .. }) => Ok(Ok(catalog)),
        Err(errors) if config.config.is_some() => {
            complain(format_args!("{errors}"));
            Ok(Err(ExitCode::from(EXIT_CONFIG)))
        }
        Err(_) => {
            complain(format_args!(
                "warning: the settings have mistakes (see `bcbridge validate`): these are the built-in rows"
            ));
            Ok(Ok(catalog))
        }
    }
}

fn say_all(rows: impl Iterator<Item = Value>) -> Result<()> {
    say(format_args!("{:#}", rows.collect::<Value>()))
}

fn names(scopes: &[Scope]) -> Vec<&str> {
    scopes.iter().map(|scope| scope.name.as_str()).collect()
}

fn entity_json(catalog: &Catalog, entity: &Entity) -> Value {
    json!({
        "entity": entity.name,
        "doc": entity.doc,
        "scope": names(&entity.scope),
        "actions": entity.action.iter().map(|action| action.name.as_str()).collect::<Vec<_>>(),
        "paths": paths(entity),
        "webhook": has_webhook(catalog, entity),
        "poll": entity.list.as_ref().map(poll),
        "own": catalog.is_own(&entity.name),
    })
}

/// Whether any callback leads to a read of it.
fn has_webhook(catalog: &Catalog, entity: &Entity) -> bool {
    let (_, beside) = catalog.scopes_of(&entity.name);
    entity.scope.iter().any(|scope| scope.not_readable.is_none()) || !beside.is_empty()
}

fn poll(list: &List) -> Value {
    json!({
        "path": list.path,
        "over": list.over,
        "by": list.since.as_ref().map(|since| since.param.as_str()),
    })
}

fn paths(entity: &Entity) -> Vec<String> {
    let one = entity.read.one.as_deref();
    let many = entity.read.many.as_ref().map(|many| many.path.as_str());
    let list = entity.list.as_ref().map(|list| list.path.as_str());
    let included = entity.include.iter().filter_map(|include| include.path.as_deref());
    let found = entity.resolve.iter().map(|resolve| resolve.many.path.as_str());
    let reads = one.into_iter().chain(many).chain(list).chain(included).chain(found);
    let writes = entity
        .action
        .iter()
        .filter_map(|action| Some(format!("{} {}", action.method?.as_str(), action.path.as_deref()?)));
    let mut all: Vec<String> = Vec::new();
    for path in reads.map(|path| format!("GET {path}")).chain(writes) {
        if !all.contains(&path) {
            all.push(path);
        }
    }
    all
}

fn entity_table(catalog: &Catalog) -> comfy_table::Table {
    let mut table = table(["entity", "webhook", "polled", "actions", "what"]);
    for entity in catalog.entities() {
        let polled = match &entity.list {
            Some(List { since: Some(_), .. }) => "by date",
            Some(List { over: Some(_), .. }) => "in full, by parent",
            Some(_) => "in full",
            None => "",
        };
        let own = if catalog.is_own(&entity.name) { " (own)" } else { "" };
        let actions = entity.action.iter().map(|action| action.name.as_str()).collect::<Vec<_>>().join(", ");
        table.add_row([
            format!("{}{own}", entity.name),
            if has_webhook(catalog, entity) { "yes".into() } else { String::new() },
            polled.to_owned(),
            actions,
            entity.doc.clone(),
        ]);
    }
    table
}

fn scopes_json(catalog: &Catalog) -> impl Iterator<Item = Value> {
    let scopes = catalog.entities().iter().flat_map(|entity| {
        entity.scope.iter().map(|scope| {
            let also: Vec<&str> = scope.also.iter().map(|target| target.entity.as_str()).collect();
            let paths = if scope.not_readable.is_none() { paths(entity) } else { Vec::new() };
            json!({
                "scope": scope.name,
                "entity": entity.name,
                "op": scope.op.participle(),
                "also": also,
                "actions": entity.action.iter().map(|action| action.name.as_str()).collect::<Vec<_>>(),
                "paths": paths,
                "not_readable": scope.not_readable,
                "wildcard": false,
            })
        })
    });
    let wildcards = catalog
        .wildcards()
        .iter()
        .map(|wildcard| json!({ "scope": wildcard.name, "wildcard": true, "brings": wildcard.brings }));
    scopes.chain(wildcards)
}

fn scope_table(catalog: &Catalog) -> comfy_table::Table {
    let mut table = table(["scope", "entity", "op", "note"]);
    for (entity, scope) in catalog.entities().iter().flat_map(|e| e.scope.iter().map(move |scope| (e, scope)))
    {
        let also = scope.also.iter().map(|target| target.entity.as_str()).collect::<Vec<_>>().join(", ");
        let note = match &scope.not_readable {
            Some(why) => format!("nothing to read: {why}"),
            None if also.is_empty() => String::new(),
            None => format!("also about {also}"),
        };
        table.add_row([scope.name.as_str(), &entity.name, scope.op.participle(), &note]);
    }
    for wildcard in catalog.wildcards() {
        let note = format!("wildcard for {} of these", wildcard.brings.len());
        table.add_row([wildcard.name.as_str(), "", "", &note]);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header(header);
    table
}

fn details(catalog: &Catalog, entity: &Entity) -> Value {
    let mut row = entity_json(catalog, entity);
    let actions: Vec<Value> = entity.action.iter().map(|action| action_json(catalog, action)).collect();
    let includes: Vec<Value> = entity
        .include
        .iter()
        .map(|include| json!({ "name": include.name, "default": include.default, "path": include.path }))
        .collect();
    let unread = entity.scope.iter().filter_map(|s| Some((s.name.clone(), json!(s.not_readable.as_ref()?))));
    let (_, beside) = catalog.scopes_of(&entity.name);
    row["aliases"] = json!(entity.aliases);
    row["actions"] = actions.into();
    row["include"] = includes.into();
    row["beside"] = json!(beside);
    row["not_readable"] = Value::Object(unread.collect());
    row["key"] = json!(entity.key);
    row["ids"] = json!(entity.ids);
    row["version"] = json!(entity.version);
    row["default"] = json!(entity.default);
    row["oauth"] = json!(entity.oauth);
    row
}

fn action_json(catalog: &Catalog, action: &Action) -> Value {
    let cap = |path: Option<&str>| Some(catalog.cap(action.method?, path?)?.at_once);
    let batch = action.batch.as_ref().map(|batch| {
        let path = batch.path.as_deref().or(action.path.as_deref());
        json!({ "path": path, "max": batch.max, "at_once": cap(path) })
    });
    json!({
        "action": action.name,
        "method": action.method.map(|method| method.as_str()),
        "path": action.path,
        "path_ids": action.path_ids(),
        "class": action.class.name(),
        "body": action.body.name(),
        "items": action.items.as_ref().map(|items| json!({ "field": items.field, "max": items.max })),
        "natural_key": action.natural_key.iter().map(NaturalKey::fields).collect::<Vec<_>>(),
        "already_so": action.already_so,
        "appends": action.appends,
        "at_once": cap(action.path.as_deref()),
        "batch": batch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_shows_how_it_is_written() {
        let catalog = Catalog::embedded().unwrap();
        let shown = details(&catalog, catalog.entity("customer").unwrap());
        let action = |name: &str| {
            shown["actions"].as_array().unwrap().iter().find(|a| a["action"] == name).unwrap().clone()
        };
        let create = action("create");
        assert_eq!((&create["class"], &create["body"]), (&json!("B"), &json!("array_of_one")));
        assert_eq!(create["natural_key"], json!(["email"]));
        assert_eq!(create["batch"], json!({ "path": "/v3/customers", "max": 10, "at_once": null }));
        assert_eq!(action("update")["at_once"], 3);
        assert_eq!(action("delete")["already_so"], json!([404]));
        let metafield = details(&catalog, catalog.entity("customer_metafield").unwrap());
        assert_eq!(metafield["actions"][0]["natural_key"], json!(["namespace and key"]));
    }
}
