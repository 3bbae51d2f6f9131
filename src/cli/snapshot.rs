//! `bcbridge snapshot start|status|pause|resume|stop`: asks a running bridge for snapshots, and shows how they go.
//!
//! All go by the signals topic, so that any machine that reaches Kafka can ask. The exit code is 0 when what was
//! asked for is done, and 1 when it is not.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::follow::{Asking, Wait};
use super::{ConfigArg, Output};
use crate::app::signals;
use crate::model::signal::{Ask, Snapshots};

/// Shown below the help of `start`.
const EXAMPLES: &str = "\
Examples:
  bcbridge snapshot start
  bcbridge snapshot start --store main --entity product --entity order --no-follow";

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Starts one and follows it to its end.
    #[command(after_help = EXAMPLES)]
    Start(StartArgs),
    /// Shows how far snapshots are, as their last notifications say.
    Status(WhichArgs),
    /// Lets snapshots rest where they are.
    Pause(WhichArgs),
    /// Lets resting snapshots go on.
    Resume(WhichArgs),
    /// Ends snapshots for good.
    Stop(WhichArgs),
}

/// Arguments of `snapshot start`.
#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The store's name; not needed where there is one.
    #[arg(long)]
    store: Option<String>,
    /// An entity to read; may be given more than once. Default: all that are configured.
    #[arg(long = "entity", value_name = "ENTITY")]
    entities: Vec<String>,
    /// Shows the progress until the end; the default.
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Prints the snapshot's id and ends at once.
    #[arg(long)]
    no_follow: bool,
}

/// Which snapshots are meant.
#[derive(Debug, clap::Args)]
pub(super) struct WhichArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The snapshot's id. Default: all of the store.
    snapshot: Option<String>,
    /// The store's name; not needed where there is one, or with an id.
    #[arg(long)]
    store: Option<String>,
}

pub(super) async fn run(command: SnapshotCommand, output: Output) -> Result<ExitCode> {
    let (args, ask): (_, fn(Snapshots) -> Ask) = match command {
        SnapshotCommand::Start(args) => return start(args, output).await,
        SnapshotCommand::Status(args) => (args, Ask::TellSnapshot),
        SnapshotCommand::Pause(args) => (args, Ask::PauseSnapshot),
        SnapshotCommand::Resume(args) => (args, Ask::ResumeSnapshot),
        SnapshotCommand::Stop(args) => (args, Ask::StopSnapshot),
    };
    let asking = match Asking::prepare(&args.config, |settings| {
        let store = match (&args.store, &args.snapshot) {
            (None, Some(_)) => None,
            (named, _) => Some(signals::store(settings, named.as_deref())?),
        };
        Ok(ask(Snapshots { store, snapshot: args.snapshot.clone() }))
    }) {
        Ok(asking) => asking,
        Err(code) => return Ok(code),
    };
    asking.run(Wait::ForAnAnswer, output).await
}

async fn start(args: StartArgs, output: Output) -> Result<ExitCode> {
    let asking = match Asking::prepare(&args.config, |settings| {
        let store = signals::store(settings, args.store.as_deref())?;
        Ok(Ask::StartSnapshot { store, entities: args.entities.clone() })
    }) {
        Ok(asking) => asking,
        Err(code) => return Ok(code),
    };
    let follow = args.follow || !args.no_follow;
    asking.run(if follow { Wait::ForTheEnd } else { Wait::Not }, output).await
}
