//! `bcbridge halted list|release|drop`: keys whose command failed under `on_failure: halt-key`, and routes that
//! stopped because too many of their commands failed.
//!
//! The ledgers say what stands still (`found`), so `list` needs no running bridge. `release` and `drop` are signals: the
//! owner of the key's partition acts on them, whichever process that is. The exit code is 0 when the signal was
//! taken, and 1 when there is nothing of this name or nobody answered.

mod found;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use self::found::{Found, Place, found};
use super::follow::{Asking, Wait};
use super::{ConfigArg, Output, say, store};
use crate::app::{Cluster, signals};
use crate::config::Settings;
use crate::kafka::backlog::end_of;
use crate::model::signal::{Ask, Halted};
use crate::outgoing::halts::Entry;

/// Shown below the help.
const EXAMPLES: &str = "\
Examples:
  bcbridge halted list
  bcbridge halted release sku-77
  bcbridge halted release --route erp.stock
  bcbridge halted drop sku-77 --store main --topic erp.stock";

/// What to do with keys and routes that stand still.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum HaltedCommand {
    /// Shows the keys and routes that stand still, since when and why, and how many commands wait.
    List(ListArgs),
    /// Lets a key go on with its next command, or a route.
    Release(ReleaseArgs),
    /// Drops what waits behind the failed command by now, each with a result and a dead letter, and lets the key go on.
    Drop(KeyArgs),
}

/// Arguments of `halted list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Only this store's.
    #[arg(long)]
    store: Option<String>,
}

/// Arguments of `halted release`.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The key, as text.
    #[arg(required_unless_present = "route", conflicts_with = "route")]
    key: Option<String>,
    /// The topic of a route that stopped.
    #[arg(long, value_name = "TOPIC")]
    route: Option<String>,
    /// The store's name; not needed where there is one.
    #[arg(long)]
    store: Option<String>,
    /// The key's topic; not needed where the key is halted on one.
    #[arg(long, conflicts_with = "route")]
    topic: Option<String>,
}

/// Arguments of `halted drop`.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The key, as text.
    key: String,
    /// The store's name; not needed where there is one.
    #[arg(long)]
    store: Option<String>,
    /// The key's topic; not needed where the key is halted on one.
    #[arg(long)]
    topic: Option<String>,
}

pub(super) async fn run(command: HaltedCommand, output: Output) -> Result<ExitCode> {
    match command {
        HaltedCommand::List(args) => list(&args, output).await,
        HaltedCommand::Release(args) => release(args, output).await,
        HaltedCommand::Drop(args) => drop_key(args, output).await,
    }
}

async fn list(args: &ListArgs, output: Output) -> Result<ExitCode> {
    let settings = match store::load(&args.config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let named = args.store.as_deref().map(|name| signals::store(&settings, Some(name))).transpose()?;
    store::needs_a_cluster(&settings)?;
    let cluster = Cluster::reach(&settings, None, None).await?;
    let mut all = found(&settings, &cluster.client, named.as_deref()).await?;
    found::count_waiting(&settings, &cluster.client, &mut all).await;
    if output == Output::Json {
        let rows: Vec<Value> = all.iter().map(row).collect();
        say(format_args!("{:#}", Value::Array(rows)))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("{}", table(&all)))?;
    Ok(ExitCode::SUCCESS)
}

fn table(all: &[Found]) -> Table {
    let mut table = Table::new();
    let header = ["store", "kind", "topic", "partition", "key", "since", "why", "command", "waiting"];
    table.load_style(presets::NOTHING).set_header(header);
    for found in all {
        let Found { store, entry, .. } = found;
        let waiting = found.waiting.map_or_else(|| "?".to_owned(), |count| count.to_string());
        table.add_row([
            store,
            found.kind(),
            &entry.topic,
            &entry.partition.to_string(),
            &found.key().unwrap_or_else(|| "*".to_owned()),
            &since(entry),
            &entry.why,
            &entry.command,
            &waiting,
        ]);
    }
    table
}

fn row(found: &Found) -> Value {
    let Found { store, entry, waiting, .. } = found;
    json!({
        "store": store,
        "kind": found.kind(),
        "topic": entry.topic,
        "partition": entry.partition,
        "key": found.key(),
        "since": since(entry),
        "why": entry.why,
        "command": entry.command,
        "offset": entry.offset,
        "waiting": waiting,
    })
}

fn since(entry: &Entry) -> String {
    jiff::Timestamp::from_millisecond(entry.at_ms)
        .map_or_else(|_| entry.at_ms.to_string(), |at| at.to_string())
}

async fn release(args: ReleaseArgs, output: Output) -> Result<ExitCode> {
    if let Some(topic) = args.route {
        let asking = Asking::prepare(&args.config, |settings| {
            let store = signals::store(settings, args.store.as_deref())?;
            if settings.outgoing.iter().all(|entry| entry.topic != topic || entry.store != store) {
                bail!("the store {store:?} has no route of the topic {topic:?}");
            }
            Ok(Ask::EndHalt { store, halted: Halted::Route { topic }, drop_before: None })
        });
        return ask(asking, output).await;
    }
    let key = args.key.unwrap_or_default();
    let settings = match store::load(&args.config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let found = find(&settings, &key, args.store.as_deref(), args.topic.as_deref()).await?;
    let halted = Halted::Key { command: found.entry.command };
    ask(
        Asking::prepare(&args.config, |_| Ok(Ask::EndHalt { store: found.store, halted, drop_before: None })),
        output,
    )
    .await
}

async fn drop_key(args: KeyArgs, output: Output) -> Result<ExitCode> {
    let settings = match store::load(&args.config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let Found { store, entry, .. } =
        find(&settings, &args.key, args.store.as_deref(), args.topic.as_deref()).await?;
    // What comes later was not meant.
    let cluster = Cluster::reach(&settings, None, None).await?;
    let end = end_of(&cluster.client, &entry.topic, entry.partition).await?;
    let halted = Halted::Key { command: entry.command };
    ask(Asking::prepare(&args.config, |_| Ok(Ask::EndHalt { store, halted, drop_before: Some(end) })), output)
        .await
}

async fn ask(asking: Result<Asking, ExitCode>, output: Output) -> Result<ExitCode> {
    match asking {
        Ok(asking) => asking.run(Wait::ForAnAnswer, output).await,
        Err(code) => Ok(code),
    }
}

/// The one halted key that is meant.
async fn find(settings: &Settings, key: &str, store: Option<&str>, topic: Option<&str>) -> Result<Found> {
    let store = store.map(|name| signals::store(settings, Some(name))).transpose()?;
    store::needs_a_cluster(settings)?;
    let cluster = Cluster::reach(settings, None, None).await?;
    let mut keys = found(settings, &cluster.client, store.as_deref()).await?;
    keys.retain(|found| {
        let is_meant = matches!(&found.place, Place::Key(found) if **found == *key.as_bytes());
        is_meant && topic.is_none_or(|topic| topic == found.entry.topic)
    });
    if keys.len() > 1 {
        let places: Vec<String> =
            keys.iter().map(|found| format!("{} of {}", found.entry.topic, found.store)).collect();
        bail!("the key {key:?} is halted on {}; choose by --store and --topic", places.join(", "));
    }
    keys.pop().with_context(|| format!("no key {key:?} is halted; `bcbridge halted list` shows which are"))
}
