//! Every write of every entity: alone, together with others, guarded, in doubt, and as either half of an upsert.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bcbridge::catalog::row::NaturalKey;
use bcbridge::catalog::{Action, Body, Catalog, Class, Entity, nameless, placeholders};
use serde_json::{Value, json};

use super::samples::{Command, Sample, Wish};
use super::{Mock, SCANS, lab};
use crate::bridge_lab::{Lab, json_of};

/// How many commands are to share a request.
const TOGETHER: u64 = 3;

/// A date that nothing was changed after.
const LATER: &str = "2099-01-01T00:00:00Z";

/// What a refusal says of a guarded command that has no guard: by its kind, or because the example of the file does not
/// show what BigCommerce does (customers without a date, one of customer groups without an offset).
const NO_GUARD: &[&str] = &[
    "cannot have if_unmodified_since",
    "the store gave no version of it",
    "date_modified is 2023-07-25 01:15:19",
];

/// The list that finds subscribers cannot be read (see the exceptions of the reads).
const NOT_LISTED: &[&str] = &["subscriber/"];

/// Operations that the catalogue writes to and this test does not reach, and why.
const NOT_REACHED: &[(&str, &str)] = &[];

fn actions(catalog: &Catalog) -> impl Iterator<Item = (&Entity, &Action)> {
    catalog.entities().iter().flat_map(|entity| entity.action.iter().map(move |action| (&**entity, action)))
}

fn with_path(catalog: &Catalog) -> impl Iterator<Item = (&Entity, &Action)> {
    actions(catalog).filter(|(_, action)| action.path.is_some())
}

/// A path of a row as the mock's operations have it.
fn operation(method: &str, path: &str) -> String {
    let number =
        |segment: &str| if segment.parse::<u64>().is_ok() { "{}".into() } else { segment.to_owned() };
    let path = nameless(path).split('/').map(number).collect::<Vec<_>>().join("/");
    format!("{method} {path}")
}

/// The commands of an action, one after the other: each body that the files know.
async fn singles(mock: &Mock, entity: &Entity, action: &Action) -> Vec<Command> {
    let key = format!("{}/{}", entity.name, action.name);
    let sample = mock.sample(action, &Wish { n: 1, ..Wish::default() }).await;
    let mut commands = Vec::new();
    if matches!(action.body, Body::None | Body::ArrayOfId) {
        commands.push(sample.command(entity, action, None, 1));
    }
    for payload in sample.payloads(action) {
        commands.push(sample.command(entity, action, Some(payload), 1));
    }
    assert!(!commands.is_empty(), "{key}: no body: {}", sample.why());
    for place in action.id_query.iter().filter(|place| place.default) {
        let mut of_store = commands[0].clone();
        of_store["path"][&place.id] = json!("default");
        commands.push(of_store);
    }
    commands.into_iter().map(|command| (key.clone(), command)).collect()
}

/// Commands of several things that may travel together.
async fn together(mock: &Mock, entity: &Entity, action: &Action) -> Vec<Command> {
    let Some(batch) = &action.batch else { return Vec::new() };
    let vary = &batch.key;
    let wish = |n| Wish { n, vary, without: &action.appends };
    let first = mock.sample(action, &wish(1)).await;
    let shared: BTreeSet<&str> =
        placeholders(batch.path.as_ref().or(action.path.as_ref()).unwrap()).collect();
    let mut commands = Vec::new();
    for n in 1..=TOGETHER {
        let sample = mock.sample(action, &wish(n)).await;
        let payloads: Vec<Option<Value>> = match sample.payloads(action) {
            none if none.is_empty() => vec![None],
            some => some.into_iter().map(Some).collect(),
        };
        for payload in payloads {
            let mut command = sample.command(entity, action, payload, n);
            let ids = first.command(entity, action, None, 1)["path"].clone();
            for name in &shared {
                command["path"][*name] = ids[*name].clone();
            }
            commands.push((format!("{}/{}/{n}", entity.name, action.name), command));
        }
    }
    commands
}

/// Whether a payload holds a natural key.
fn holds(payload: &Value, key: &NaturalKey) -> bool {
    fields(key).all(|field| is_some(&payload[field]))
}

fn fields(key: &NaturalKey) -> impl Iterator<Item = &String> {
    std::iter::once(&key.field).chain(key.with.iter().map(|part| &part.field))
}

fn is_some(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty()) || value.is_number()
}

/// A thing that has a key of the payload's.
fn row(entity: &Entity, payload: &Value, key: &NaturalKey, id: Value) -> Value {
    let mut row = json!({});
    for field in fields(key) {
        row[field] = payload[field].clone();
    }
    // A part of the key may be the last part of the id as well.
    let last = entity.key.last().unwrap();
    if row[last].is_null() {
        row[last] = id;
    }
    row
}

/// A create of a thing by one of its keys, and the list that holds it.
struct Keyed {
    key: NaturalKey,
    list: String,
    sample: Sample,
    payload: Value,
}

/// For each natural key of an action a create that holds it and none before it.
async fn keyed(mock: &Mock, keys: &Action, create: &Action) -> Vec<Keyed> {
    let natural = if keys.natural_key.is_empty() { &create.natural_key } else { &keys.natural_key };
    let mut made = Vec::new();
    for (at, key) in natural.iter().enumerate() {
        let without: Vec<String> = natural[..at].iter().map(|key| key.field.clone()).collect();
        let sample = mock.sample(create, &Wish { n: 1, without: &without, ..Wish::default() }).await;
        let fits =
            |payload: &Value| holds(payload, key) && without.iter().all(|field| !is_some(&payload[field]));
        let Some(payload) = sample.payloads(create).into_iter().find(fits) else {
            println!("no {} of {} holds {} only", create.name, create.path.as_ref().unwrap(), key.fields());
            continue;
        };
        let list = nameless(key.list.as_ref().or(create.path.as_ref()).unwrap());
        made.push(Keyed { key: key.clone(), list, sample, payload });
    }
    made
}

/// The mock, the bridge at it, and what was found.
struct Trial {
    mock: Mock,
    lab: Lab,
    reached: BTreeSet<String>,
    faults: Vec<String>,
}

/// Sends commands through the topic and waits for all their results: those that were not applied.
async fn run(lab: &Lab, part: &str, commands: Vec<Command>) -> Vec<String> {
    let begun = Instant::now();
    let number = |(at, (key, mut command)): (usize, Command)| {
        command["id"] = json!(format!("{part}-{at}"));
        (key, command)
    };
    let commands: Vec<Command> = commands.into_iter().enumerate().map(number).collect();
    lab.send(&commands).await;
    let mine = |result: &Value| result["id"].as_str().unwrap().starts_with(&format!("{part}-"));
    let results = loop {
        let results: Vec<Value> =
            lab.records("results").await.iter().filter_map(json_of).filter(mine).collect();
        if results.len() >= commands.len() {
            break results;
        }
        let done: BTreeSet<&str> = results.iter().filter_map(|result| result["id"].as_str()).collect();
        let open = commands.iter().find(|(_, command)| !done.contains(command["id"].as_str().unwrap()));
        assert!(begun.elapsed() < SCANS, "{part}: {} of {}: {open:?}", results.len(), commands.len());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(results.len(), commands.len(), "each has one result");
    let (mut others, mut outcomes) = (Vec::new(), BTreeMap::<String, usize>::new());
    for result in results {
        let outcome = result["outcome"].as_str().unwrap().to_owned();
        if outcome != "applied" {
            let command = commands.iter().find(|(_, command)| command["id"] == result["id"]).unwrap();
            others.push(format!("{} {result} of {}", command.0, command.1));
        }
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{part}: {} commands after {:?}: {:?}", commands.len(), begun.elapsed(), outcomes);
    others
}

impl Trial {
    /// Commands that are all to be applied, but for those whose refusal says one of these.
    async fn apply(&mut self, part: &str, commands: Vec<Command>, but: &[&str]) {
        let others = run(&self.lab, part, commands).await;
        let is_excused = |other: &String| but.iter().any(|text| other.contains(text));
        self.faults.extend(others.into_iter().filter(|other| !is_excused(other)));
    }

    async fn judge(&mut self, part: &str) {
        let (operations, faults) = self.mock.judged(part).await;
        self.reached.extend(operations.iter().map(|label| operation_of(label)));
        self.faults.extend(faults);
    }
}

/// Rows by the list that is to hold them.
type Lists = BTreeMap<String, Vec<Value>>;

/// Emulated upserts of what is not there, and of what is.
async fn by_key(trial: &mut Trial, catalog: &Catalog) {
    let (mut absent, mut rounds) = (Round::default(), BTreeMap::<usize, Round>::new());
    for (entity, upsert) in actions(catalog).filter(|(_, action)| action.path.is_none()) {
        let (create, update) = (entity.action("create").unwrap(), entity.action("update").unwrap());
        for made in keyed(&trial.mock, upsert, create).await {
            let key = format!("{}/{}", entity.name, made.key.field);
            let mut command = made.sample.command(entity, create, Some(made.payload.clone()), 1);
            command["action"] = json!("upsert");
            absent.lists.insert(made.list.clone(), Vec::new());
            absent.commands.push((key.clone(), command.clone()));
            let sample = trial.mock.sample(update, &Wish { n: 1, ..Wish::default() }).await;
            for (at, payload) in sample.payloads(update).into_iter().enumerate() {
                let (payload, row) = updated(entity, update, &sample, payload, &made);
                command["payload"] = payload;
                let round = rounds.entry(at).or_default();
                round.lists.entry(made.list.clone()).or_default().push(row);
                round.commands.push((key.clone(), command.clone()));
            }
        }
    }
    trial.mock.behave(&json!({ "lists": absent.lists })).await;
    trial.apply("absent", absent.commands, NOT_LISTED).await;
    for (at, round) in rounds {
        trial.mock.behave(&json!({ "lists": round.lists })).await;
        trial.apply(&format!("present{at}"), round.commands, NOT_LISTED).await;
    }
}

/// Commands that are sent at once, and what the lists hold meanwhile.
#[derive(Default)]
struct Round {
    lists: Lists,
    commands: Vec<Command>,
}

/// Of an upsert of what is there: a payload that the update takes and that holds the key, and the thing.
fn updated(
    entity: &Entity,
    update: &Action,
    sample: &Sample,
    payload: Value,
    made: &Keyed,
) -> (Value, Value) {
    let given = placeholders(entity.action("create").unwrap().path.as_deref().unwrap());
    let given: BTreeSet<&str> = given.collect();
    let mut command = sample.command(entity, update, Some(payload), 1);
    let name = update.path_ids().into_iter().find(|name| !given.contains(name)).unwrap();
    let id = match command["path"][name].as_str().and_then(|id| id.parse::<u64>().ok()) {
        Some(number) => json!(number),
        None => command["path"][name].clone(),
    };
    let mut payload = command["payload"].take();
    for field in fields(&made.key) {
        payload[field] = made.payload[field].clone();
    }
    (payload, row(entity, &made.payload, &made.key, id))
}

/// Creates whose reply is lost: the bridge looks for the thing.
async fn in_doubt(trial: &mut Trial, catalog: &Catalog) {
    let mut round = Round::default();
    for (entity, create) in with_path(catalog).filter(|(_, action)| action.class == Class::B) {
        for made in keyed(&trial.mock, create, create).await {
            let row = row(entity, &made.payload, &made.key, json!(1));
            round.lists.entry(made.list.clone()).or_default().push(row);
            let key = format!("{}/{}/{}", entity.name, create.name, made.key.field);
            round.commands.push((key, made.sample.command(entity, create, Some(made.payload), 1)));
        }
    }
    trial.mock.behave(&json!({ "doubt": true, "lists": round.lists })).await;
    trial.apply("doubt", round.commands, NOT_LISTED).await;
}

/// What the catalogue writes to, method and path.
fn written(catalog: &Catalog) -> BTreeSet<String> {
    let of = |(_, action): (&Entity, &Action)| {
        let batch = action.batch.as_ref().and_then(|batch| batch.path.clone());
        let method = action.method.unwrap().as_str();
        let paths = action.path.clone().into_iter().chain(batch);
        paths.map(|path| operation(method, &path)).collect::<Vec<_>>()
    };
    with_path(catalog).flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_the_bridge_breaks_the_specification() {
    let Some(mock) = Mock::named() else { return };
    mock.reset().await;
    let catalog = Catalog::embedded().unwrap();
    let lab = lab(&mock, vec![json!({ "entity": "store_information", "scopes": [] })]).await;
    let (mut single, mut shared, mut guarded) = (Vec::new(), Vec::new(), Vec::new());
    for (entity, action) in with_path(&catalog) {
        single.extend(singles(&mock, entity, action).await);
        shared.extend(together(&mock, entity, action).await);
    }
    for (key, command) in &single {
        let entity = catalog.entity(command["entity"].as_str().unwrap()).unwrap();
        if entity.version.is_some() {
            let mut command = command.clone();
            command["if_unmodified_since"] = json!(LATER);
            guarded.push((key.clone(), command));
        }
    }
    let mut trial = Trial { mock, lab, reached: BTreeSet::new(), faults: Vec::new() };
    trial.apply("single", single, &[]).await;
    trial.judge("writes, one at a time").await;
    trial.apply("shared", shared, &[]).await;
    trial.judge("writes, several together").await;
    trial.apply("guarded", guarded, NO_GUARD).await;
    trial.judge("writes, guarded").await;
    by_key(&mut trial, &catalog).await;
    trial.judge("upserts").await;
    in_doubt(&mut trial, &catalog).await;
    trial.judge("creates in doubt").await;
    trial.lab.stop().await;

    let wanted = written(&catalog);
    let missing: Vec<&String> = wanted.difference(&trial.reached).collect();
    assert!(trial.faults.is_empty(), "{} faults:\n{}", trial.faults.len(), trial.faults.join("\n"));
    let excused: BTreeSet<&str> = NOT_REACHED.iter().map(|(operation, _)| *operation).collect();
    println!("{} of {} operations were written to", wanted.len() - missing.len(), wanted.len());
    missing.iter().for_each(|operation| println!("not reached: {operation}"));
    assert_eq!(missing.iter().map(|operation| operation.as_str()).collect::<BTreeSet<_>>(), excused);
}

fn operation_of(label: &str) -> String {
    let (method, path) = label.split_once(' ').unwrap();
    operation(method, path)
}
