//! From a file to [`Settings`]: find it, parse it, put variables in, read every section, compare them with each
//! other. The only part of the module that touches the file system, besides secrets' own files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::defaults;
use super::expand::{Env, expand_tree};
use super::mistake::{ConfigErrors, Mistake, Mistakes, is_secret_key, secret_lines, secret_places};
use super::names::EntityNames;
use super::section::{Reading, Section};
use super::settings::Settings;
use super::template::{Fill, Hole, Template};
use super::tree::{self, Node, Place, Value};
use super::{catalog, incoming, kafka, outgoing, receiver, stores, values};

pub(super) const KEYS: &[&str] =
    &["kafka", "receiver", "console", "catalog", "stores", "incoming", "outgoing"];

/// A thousand stores with their mappings fit; a data file does not.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Where settings come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// No file: environment variables, by way of a built-in one.
    Environment,
}

/// Finds the settings: the file that `--config` names, else `$BCBRIDGE_CONFIG`, else `./bcbridge.yaml`, else
/// `/etc/bcbridge/bcbridge.yaml`. When none exists and BIGCOMMERCE_STORE_HASH and BIGCOMMERCE_ACCESS_TOKEN are
/// set, the environment is enough.
///
/// # Errors
/// [`ConfigErrors::Absent`] when there is nothing. A file that was named is not looked for here: reading it says
/// what is wrong.
pub fn find(explicit: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Source, ConfigErrors> {
    if let Some(path) = explicit {
        return Ok(Source::File(path.to_owned()));
    }
    if let Some(path) = env("BCBRIDGE_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(Source::File(PathBuf::from(path)));
    }
    let places = [Path::new("bcbridge.yaml"), Path::new("/etc/bcbridge/bcbridge.yaml")];
    if let Some(path) = places.iter().find(|path| path.exists()) {
        return Ok(Source::File((*path).to_owned()));
    }
    let given = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    if given("BIGCOMMERCE_STORE_HASH") && given("BIGCOMMERCE_ACCESS_TOKEN") {
        return Ok(Source::Environment);
    }
    let looked = places.map(|path| path.display().to_string()).join(", ");
    Err(ConfigErrors::Absent { looked })
}

/// Loads from wherever [`find`] found the settings.
///
/// # Errors
/// As [`load`].
pub fn load_source(source: &Source, env: Env<'_>, names: &dyn EntityNames) -> Result<Settings, ConfigErrors> {
    match source {
        Source::File(path) => load(path, env, names),
        Source::Environment => load_str("(environment)", defaults::NO_FILE, env, names),
    }
}

/// Loads a settings file. Secret files named in it are read relative to its directory.
///
/// # Errors
/// When the file cannot be read, or with every mistake in it.
pub fn load(path: &Path, env: Env<'_>, names: &dyn EntityNames) -> Result<Settings, ConfigErrors> {
    let unreadable = |source| ConfigErrors::Unreadable { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        return Err(ConfigErrors::TooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let dir = path.parent().map(Path::to_owned).unwrap_or_default();
    load_text(&path.display().to_string(), &text, dir, env, names)
}

/// Loads settings from a text; `name` stands for the file's name in mistakes.
///
/// # Errors
/// Every mistake in the text.
pub fn load_str(
    name: &str,
    text: &str,
    env: Env<'_>,
    names: &dyn EntityNames,
) -> Result<Settings, ConfigErrors> {
    load_text(name, text, PathBuf::new(), env, names)
}

fn load_text(
    name: &str,
    text: &str,
    dir: PathBuf,
    env: Env<'_>,
    names: &dyn EntityNames,
) -> Result<Settings, ConfigErrors> {
    // A byte order mark is no character of the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut root = tree::parse(text).map_err(|error| {
        let mistake = Mistake::new(&error.at, format!("not YAML: {}", error.message), "");
        let mistake = mistake.help("check indentation, quotes and brackets at and before this line");
        ConfigErrors::Mistakes(Mistakes::new(name, text, &secret_lines(text), vec![mistake]))
    })?;
    // Before variables are put in: a place is hidden for what it is, not for what became of it.
    let secrets = secret_places(&root);
    let merged;
    let mut cx = Reading { names, dir, mistakes: Vec::new(), warnings: Vec::new() };
    expand_tree(&mut root, env, &mut |at, unset| {
        cx.mistakes.push(Mistake::new(at, unset.message, unset.allowed).help(unset.help));
    });
    written_secrets(&root, &mut cx);
    let rows = catalog::read(&mut cx, &root);
    if let Some(rows) = &rows {
        merged = catalog::merge(&mut cx, rows);
        cx.names = merged.as_deref().unwrap_or(names);
    }
    let settings = read(&mut cx, &root);
    let settings = Settings { catalog: rows.map(|rows| rows.values).unwrap_or_default(), ..settings };
    if cx.mistakes.is_empty() {
        return Ok(Settings { warnings: cx.warnings, ..settings });
    }
    Err(ConfigErrors::Mistakes(Mistakes::new(name, text, &secrets, cx.mistakes)))
}

/// Warns of secrets that stand in the file itself, once per key.
fn written_secrets(root: &Node, cx: &mut Reading<'_>) {
    fn walk(node: &Node, key: Option<&str>, cx: &mut Reading<'_>) {
        match &node.value {
            Value::Null => {}
            Value::Scalar(scalar) => {
                if let (Some(key), true, true) = (key, scalar.variables.is_empty(), !scalar.text.is_empty()) {
                    let line = node.at.line;
                    cx.warnings.push(format!("line {line}: the secret of `{key}` is written in the file: use a variable or `{key}_file`"));
                }
            }
            Value::List(items) => items.iter().for_each(|item| walk(item, key, cx)),
            Value::Map(entries) => {
                for (inner, value) in entries {
                    let secret = is_secret_key(&inner.name).then_some(inner.name.as_str());
                    walk(value, key.or(secret), cx);
                }
            }
        }
    }
    walk(root, None, cx);
}

fn read(cx: &mut Reading<'_>, root: &Node) -> Settings {
    let section = Section::open(cx, root, "", KEYS);
    let kafka = kafka::read(cx, &section);
    let stores = stores::read(cx, &section);
    let settings = Settings {
        receiver: receiver::read(cx, &section),
        console: receiver::read_console(cx, &section),
        incoming: incoming::read(cx, &section, &kafka, &stores),
        outgoing: outgoing::read(cx, &section, &kafka, &stores),
        kafka,
        stores,
        catalog: Vec::new(),
        warnings: Vec::new(),
    };
    // Comparing halves of settings would only repeat the mistakes found so far.
    if cx.mistakes.is_empty() {
        distinct_topics(cx, &section, &settings);
        no_loops(cx, &section, &settings);
        same_port(cx, &section, &settings);
    }
    settings
}

/// Whose records a topic carries, and which setting says so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner<'s> {
    /// Path of the template's setting.
    from: String,
    store: &'s str,
    /// Empty for topics that are not about one entity.
    entity: &'s str,
    key: Option<&'s Template>,
}

/// Refuses topics that would mix what their keys cannot tell apart.
fn distinct_topics(cx: &mut Reading<'_>, root: &Section<'_>, settings: &Settings) {
    let mut topics: BTreeMap<String, Vec<Owner<'_>>> = BTreeMap::new();
    for (topic, owner) in owners(settings) {
        topics.entry(topic).or_default().push(owner);
    }
    for (topic, owners) in &topics {
        let place = place_of(root, &owners[owners.len() - 1].from);
        if !values::topic(topic) {
            let message = format!("the template makes `{topic}`, which is no name of a topic");
            cx.wrong(Mistake::new(&place, message, "letters, digits, `.`, `_` and `-`, at most 249"));
            continue;
        }
        let Some((first, second, missing)) = mixed(owners) else { continue };
        let message = format!("topic `{topic}` would hold {} and {}", describe(first), describe(second));
        let allowed =
            format!("a topic template with {missing}, or for entities a key template with {missing}");
        let help = format!("add {missing} to the topic's template, or to `key`");
        cx.wrong(Mistake::new(&place, message, allowed).help(help));
    }
}

fn describe(owner: &Owner<'_>) -> String {
    match (owner.store, owner.entity) {
        ("", _) => format!("`{}`", owner.from),
        (store, "") => format!("`{}` of store `{store}`", owner.from),
        (store, entity) => format!("entity `{entity}` of store `{store}`"),
    }
}

/// Two owners of one topic whose records could have the same key, and what would tell them apart. Comparing with
/// the first is enough: who differs from nobody else differs from it.
fn mixed<'o, 's>(owners: &'o [Owner<'s>]) -> Option<(&'o Owner<'s>, &'o Owner<'s>, &'static str)> {
    let (first, rest) = owners.split_first()?;
    let told = |hole| first.key.is_some_and(|key| key.has(hole));
    rest.iter().find_map(|second| {
        let missing = match (first.key, second.key) {
            (None, Some(_)) | (Some(_), None) => "a part of its own",
            (None, None) if first.from != second.from => "a part of its own",
            _ if first.entity != second.entity && !told(Hole::Entity) => "{entity}",
            _ if first.store != second.store && !told(Hole::Store) => "{store}",
            (one, other) if one != other => "the same `key`",
            _ => return None,
        };
        Some((first, second, missing))
    })
}

/// Every topic the settings lead to.
fn owners(settings: &Settings) -> Vec<(String, Owner<'_>)> {
    let names = &settings.kafka.topics.names;
    let prefix = settings.kafka.prefix.as_str();
    let mut all = Vec::new();
    for store in &settings.stores {
        let fill = Fill { prefix, store: &store.name, ..Fill::default() };
        let own = [
            ("webhooks", &names.webhooks),
            ("dlq", &names.dlq),
            ("ledger", &names.ledger),
            ("commands", &names.commands),
            ("results", &names.results),
        ];
        for (kind, template) in own {
            let from = format!("kafka.topics.names.{kind}");
            all.push((template.render(fill), Owner { from, store: &store.name, entity: "", key: None }));
        }
        for entry in settings.incoming_of(&store.name) {
            let at =
                settings.incoming.iter().position(|other| std::ptr::eq(other, entry)).unwrap_or_default();
            let from = format!("incoming[{at}].topic");
            let owner = Owner { from, store: &store.name, entity: &entry.entity, key: Some(&entry.key) };
            all.push((entry.topic.render(Fill { entity: &entry.entity, ..fill }), owner));
        }
    }
    for (kind, template) in [("signals", &names.signals), ("notifications", &names.notifications)] {
        let from = format!("kafka.topics.names.{kind}");
        let topic = template.render(Fill { prefix, ..Fill::default() });
        all.push((topic, Owner { from, store: "", entity: "", key: None }));
    }
    all
}

/// Refuses to read commands from a topic of the bridge's own: each result would become a command, and so a result.
fn no_loops(cx: &mut Reading<'_>, root: &Section<'_>, settings: &Settings) {
    let own = owners(settings);
    let written = |(_, owner): &&(String, Owner<'_>)| {
        owner.entity.is_empty() && owner.from != "kafka.topics.names.commands"
    };
    for (at, entry) in settings.outgoing.iter().enumerate() {
        let Some((topic, owner)) = own.iter().filter(written).find(|(topic, _)| *topic == entry.topic) else {
            continue;
        };
        let message = format!("topic `{topic}` is {}, which the bridge itself writes", describe(owner));
        let place = place_of(root, &format!("outgoing[{at}].topic"));
        cx.wrong(Mistake::new(&place, message, "a topic that only others write"));
    }
}

/// Where a setting stands; where it would stand, if it is a default.
fn place_of(root: &Section<'_>, path: &str) -> Place {
    let mut place = root.at.clone();
    let Some((first, _)) = root.entries().next() else { return place };
    place = first.at.clone();
    let dive = |path: &str| -> Option<Place> {
        let mut node = root.get(path.split(['.', '[']).next()?)?;
        let mut found = node.at.clone();
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()).skip(1) {
            let next = match &node.value {
                Value::Map(entries) => {
                    entries.iter().find(|(key, _)| key.name == step).map(|(_, value)| value)
                }
                Value::List(items) => step.parse::<usize>().ok().and_then(|at| items.get(at)),
                Value::Null | Value::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            node = next;
            found = node.at.clone();
        }
        Some(found)
    };
    // An entry without its own template has the common one.
    let common = path.starts_with("incoming[").then_some("kafka.topics.names.entity");
    common.and_then(dive).or_else(|| dive(path)).unwrap_or(place)
}

fn same_port(cx: &mut Reading<'_>, root: &Section<'_>, settings: &Settings) {
    let (a, b) = (settings.receiver.listen, settings.console.listen);
    if a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    {
        let message = format!("receiver and console both listen on port {}", a.port());
        let mistake = Mistake::new(&place_of(root, "console.listen"), message, "two ports");
        cx.wrong(
            mistake.help("callbacks come from the internet, the console must not: give it its own port"),
        );
    }
}
