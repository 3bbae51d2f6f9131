//! `bcbridge send`: one command onto the topic, and its result back.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{ConfigArg, Output, store};
use crate::app::Cluster;
use crate::app::topics::StoreTopics;
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::kafka::append::IntakeProducer;
use crate::kafka::tail::Tail;
use crate::model::command::{Command, CommandResult, Outcome};
use crate::model::record::OutRecord;
use crate::outgoing::needed_ids;

/// How long the topic may take to acknowledge.
const APPEND_DEADLINE: Duration = Duration::from_secs(10);

/// Shown below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  bcbridge send main update product --id 77 --payload product.json --wait
  bcbridge send main delete customer --id customer_id=42
  bcbridge send main update order --id 250 --payload - --expected-version 2026-01-31T08:00:00Z --wait --timeout 30s";

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// The store's name.
    store: String,
    /// create, update, upsert, delete or a named action of the entity.
    action: String,
    /// The entity's name.
    entity: String,
    /// An id of the path, as `name=value`, or the value alone where there is one id.
    #[arg(long)]
    id: Vec<String>,
    /// A query parameter, as `name=value`.
    #[arg(long)]
    query: Vec<String>,
    /// A file with the payload, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    payload: Option<String>,
    /// The command's id, by which a repeat is recognised. Default: a fresh one.
    #[arg(long)]
    command_id: Option<String>,
    /// The record's key: what has the same key is applied in order. Default: the entity and its ids.
    #[arg(long)]
    key: Option<String>,
    /// Applied only if the thing did not change after this date, as in 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "DATE")]
    if_unmodified_since: Option<String>,
    /// Applied only if the thing has this version: its date of change, or `bc_version` of its record.
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<String>,
    /// Waits for the result; exit code 0 if it was applied or is of a dry run, 1 if not.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::demo::time, requires = "wait")]
    timeout: Duration,
}

pub(super) async fn run(args: Args, output: Output) -> Result<ExitCode> {
    let settings = match store::load(&args.config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let command = match command(&args, &settings) {
        Ok(command) => command,
        Err(error) => {
            super::complain(format_args!("error: {error:#}"));
            return Ok(ExitCode::from(super::EXIT_USAGE));
        }
    };
    store::needs_a_cluster(&settings)?;
    let id = command.id.clone().unwrap_or_default();
    let key = args.key.clone().unwrap_or_else(|| key_of(&command));
    let topics = StoreTopics::of(&settings, &args.store);
    let cluster = Cluster::reach(&settings, None, None).await?;
    // The end of the results is noted before the command is sent, so that its result cannot be missed.
    let tail = match args.wait {
        true => Some(Tail::from_end(&cluster.client, &topics.results).await?),
        false => None,
    };
    let producer = IntakeProducer::new(cluster.client.clone(), APPEND_DEADLINE)?;
    let record = OutRecord {
        topic: topics.commands.clone(),
        partition: None,
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(serde_json::to_vec(&command)?)),
        headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
        timestamp_ms: None,
    };
    producer.append(vec![record], APPEND_DEADLINE).await?;
    let Some(mut tail) = tail else {
        super::say(format_args!("{id}"))?;
        return Ok(ExitCode::SUCCESS);
    };
    let found = tail.find(args.timeout, |record| {
        let result: CommandResult = serde_json::from_slice(record.value.as_deref()?).ok()?;
        (result.id == id).then_some(result)
    });
    let Some(result) = found.await? else {
        let seconds = args.timeout.as_secs();
        bail!(
            "no result of {id} within {seconds} s; is the bridge running? The command stays on {} until it is",
            topics.commands
        );
    };
    show(&result, output)?;
    let applied = matches!(result.outcome, Outcome::Applied | Outcome::DryRun);
    Ok(if applied { ExitCode::SUCCESS } else { ExitCode::from(super::EXIT_FAILURE) })
}

fn show(result: &CommandResult, output: Output) -> Result<()> {
    match output {
        Output::Json => super::say(format_args!("{}", serde_json::to_string_pretty(result)?))?,
        Output::Table => {
            let status = result.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let resource = result.resource_id.as_deref().unwrap_or("-");
            let (outcome, attempts) = (result.outcome.name(), result.attempts);
            super::say(format_args!("{outcome}  status {status}  resource {resource}  attempts {attempts}"))?;
            if let Some(reason) = &result.reason {
                super::say(format_args!("{reason}: {}", result.detail.as_deref().unwrap_or("-")))?;
            } else if let Some(detail) = &result.detail {
                super::say(format_args!("{detail}"))?;
            }
            if let Some(request) = &result.request {
                let request: Value = serde_json::from_str(request.get())?;
                super::say(format_args!("would send {}", serde_json::to_string_pretty(&request)?))?;
            }
        }
    }
    Ok(())
}

/// The command that the arguments ask for; what is wrong with them is found before anything is sent.
fn command(args: &Args, settings: &Settings) -> Result<Command> {
    let known = || settings.stores.iter().map(|store| store.name.as_str()).collect::<Vec<_>>().join(", ");
    if settings.store(&args.store).is_none() {
        bail!("the store {:?} is not configured; configured are {}", args.store, known());
    }
    let catalog = Catalog::embedded()?.with_rows(&settings.catalog)?;
    let entity = catalog
        .entity(&args.entity)
        .with_context(|| format!("the entity {:?} is not in the catalogue", args.entity))?;
    let names = || entity.action.iter().map(|action| action.name.as_str()).collect::<Vec<_>>().join(", ");
    let action = entity
        .action(&args.action)
        .with_context(|| format!("{:?} has no action {:?}; it has {}", entity.name, args.action, names()))?;
    let path_ids = needed_ids(entity, action);
    let mut path = Map::new();
    for id in &args.id {
        let (name, value) = match (id.split_once('='), path_ids.as_slice()) {
            (Some((name, value)), _) => (name, value),
            (None, [only]) => (*only, id.as_str()),
            (None, _) => bail!("--id {id:?} must be name=value; the names are {}", path_ids.join(", ")),
        };
        path.insert(name.to_owned(), Value::from(value));
    }
    if let Some(missing) = path_ids.iter().find(|name| !path.contains_key(**name)) {
        bail!("this action needs --id {missing}=...");
    }
    let mut query = Map::new();
    for parameter in &args.query {
        let Some((name, value)) = parameter.split_once('=') else {
            bail!("--query {parameter:?} must be name=value");
        };
        query.insert(name.to_owned(), Value::from(value));
    }
    let payload = args.payload.as_deref().map(payload).transpose()?;
    let id = args.command_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    Ok(Command {
        id: Some(id),
        entity: entity.name.clone(),
        action: action.name.clone(),
        path,
        query,
        payload,
        if_unmodified_since: args.if_unmodified_since.clone(),
        expected_version: args.expected_version.clone(),
    })
}

fn payload(file: &str) -> Result<Box<RawValue>> {
    let text = match file {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading the payload from standard input")?;
            text
        }
        path => std::fs::read_to_string(path).with_context(|| format!("reading the payload {path:?}"))?,
    };
    RawValue::from_string(text).context("the payload is not JSON")
}

fn key_of(command: &Command) -> String {
    let ids: Vec<String> = command
        .path
        .values()
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .collect();
    if ids.is_empty() {
        command.id.clone().unwrap_or_default()
    } else {
        format!("{}/{}", command.entity, ids.join(":"))
    }
}
