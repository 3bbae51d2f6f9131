//! The documentation, as far as a program can tell whether it is true: settings that it shows load, files that it
//! links exist. Reasons and metrics are compared beside their names.

use std::path::{Path, PathBuf};

use bcbridge::catalog::{Catalog, Entity};
use bcbridge::config::{self, Settings};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn env(name: &str) -> Option<String> {
    let value = match name {
        "KAFKA_BOOTSTRAP_SERVERS" => "kafka:9092",
        "BIGCOMMERCE_STORE_HASH" => "abc123",
        "BIGCOMMERCE_ACCESS_TOKEN" | "BIGCOMMERCE_CLIENT_SECRET" => "not-used",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load(name: &str, text: &str) -> Settings {
    let catalog = Catalog::embedded().unwrap();
    config::load_str(name, text, &env, &catalog).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// README.md, CONTRIBUTING.md and everything of docs/, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let own = ["README.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    let pages = docs.chain(own).filter(|path| path.extension().is_some_and(|end| end == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a language, without their indentation.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix(&format!("```{language}")) else { continue };
        let inside = lines.by_ref().take_while(|line| line.trim() != "```");
        found.push(
            inside.map(|line| line.strip_prefix(indent).unwrap_or(line)).collect::<Vec<_>>().join("\n"),
        );
    }
    found
}

#[test]
fn the_example_loads_without_a_warning() {
    let path = root().join("docs/examples/bcbridge.yaml");
    let settings = load("bcbridge.yaml", &std::fs::read_to_string(path).unwrap());
    assert_eq!(settings.warnings, Vec::<String>::new());
    let of = |name: &str| settings.incoming.iter().find(|entry| entry.entity == name).unwrap();
    assert!(of("customer").scopes.is_empty() && of("customer").poll.is_some());
    assert!(of("gadget").poll.is_some() && of("order").sweep.is_some() && of("product").suppress_unchanged);
}

#[test]
fn settings_that_the_documentation_shows_load() {
    let mut found = 0;
    for (path, text) in pages() {
        for mut block in blocks(&text, "yaml") {
            if !block.contains("stores:") {
                let store = "store_hash: abc123, access_token: t, client_secrets: [s]";
                block.push_str(&format!("\nstores: [{{ {store} }}]\n"));
            }
            load(&path.display().to_string(), &block);
            found += 1;
        }
    }
    assert!(found >= 2, "{found}");
}

#[test]
fn the_readme_counts_what_the_catalogue_holds() {
    let catalog = Catalog::embedded().unwrap();
    let entities = || catalog.entities().iter();
    let readable = entities().filter(|entity| entity.is_readable()).count();
    let listed = entities().filter(|entity| entity.is_readable() && entity.list.is_some()).count();
    let scopes = |entity: &Entity| entity.scope.iter().filter(|scope| scope.not_readable.is_none()).count();
    let own = entities().map(|entity| scopes(entity)).sum::<usize>();
    let is_told_of = |entity: &Entity| scopes(entity) > 0 || !catalog.scopes_of(&entity.name).1.is_empty();
    let with_webhook = entities().filter(|entity| entity.is_readable() && is_told_of(entity)).count();
    let nothing = entities().count() - readable;
    let actions = entities().map(|entity| entity.action.len()).sum::<usize>();
    let written = entities().filter(|entity| !entity.action.is_empty()).count();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for sentence in [
        format!(
            "{readable} entities can be read, {listed} of them listed; {with_webhook} have webhooks, with {own} scopes."
        ),
        format!("Of {nothing} rows nothing can be read at all"),
        format!("What can be written: {actions} actions of {written} entities"),
    ] {
        assert!(readme.contains(&sentence), "README.md does not say: {sentence}");
    }
}

#[test]
fn what_the_documentation_links_exists() {
    for (path, text) in pages() {
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                let there = path.parent().unwrap().join(target);
                assert!(there.exists(), "{} links {target}", path.display());
            }
        }
    }
}
