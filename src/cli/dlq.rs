//! `bcbridge dlq list|show|stats|replay|purge`: what could not be processed, looked at and brought back.
//!
//! Everything is read from Kafka and kept there; no running bridge is needed. Only `show` prints what a letter holds, for
//! it is customers' data. What changes something says first how many letters are meant, asks or needs `--yes`, and
//! leaves a notification. Exit code 0: done; 1: failed or interrupted; 2: a wrong call; 3: letters are left that were
//! meant.

mod args;
mod desk;
mod list;
mod purge;
mod replay;
mod send;
mod show;
mod stats;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use comfy_table::{Table, presets};

use super::ends::Complaints;
use super::{EXIT_USAGE, Output};

/// Shown below the help of `list`.
const LIST_EXAMPLES: &str = "\
Examples:
  bcbridge dlq list main --since 2h
  bcbridge dlq list --reason missing --reason conflict --entity product --oldest --limit 20
  bcbridge dlq list main --where .value.payload.price==9.5";

/// Shown below the help of `replay`.
const REPLAY_EXAMPLES: &str = "\
Examples:
  bcbridge dlq replay main --offset 2/17
  bcbridge dlq replay main --reason missing --since 1d --dry-run
  bcbridge dlq replay main --all --rate 50 --yes";

/// Shown below the help of `purge`.
const PURGE_EXAMPLES: &str = "\
Examples:
  bcbridge dlq purge main --before 7d --dry-run
  bcbridge dlq purge main --all --yes";

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// Lists them, the newest unless told otherwise, without what they hold.
    #[command(after_help = LIST_EXAMPLES)]
    List(args::ListArgs),
    /// Shows one with all that it holds. That is customers' data.
    Show(args::ShowArgs),
    /// Counts them by reason, status, topic and age.
    Stats(args::StatsArgs),
    /// Puts records back on the topic that they came from. What was replayed already is left alone, so that an
    /// interrupted replay goes on when it is called again.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(args::ReplayArgs),
    /// Deletes the oldest, for good.
    #[command(after_help = PURGE_EXAMPLES)]
    Purge(args::PurgeArgs),
}

pub(super) async fn run(command: DlqCommand, output: Output) -> Result<ExitCode> {
    match command {
        DlqCommand::List(args) => list::run(args, output).await,
        DlqCommand::Show(args) => show::run(args, output).await,
        DlqCommand::Stats(args) => stats::run(args, output).await,
        DlqCommand::Replay(args) => replay::run(args, output).await,
        DlqCommand::Purge(args) => purge::run(args, output).await,
    }
}

/// Says what is wrong with the call.
fn wrong(error: &anyhow::Error) -> ExitCode {
    super::complain(format_args!("error: {error:#}"));
    ExitCode::from(EXIT_USAGE)
}

/// So many letters, in words.
fn letters(count: u64) -> String {
    if count == 1 { "1 letter".to_owned() } else { format!("{count} letters") }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// Asks the person at the terminal; where there is none, the answer is no.
fn consents(question: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut err = Complaints;
    write!(err, "{question} [y/N] ").and_then(|()| err.flush()).context("asking")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
