//! The command line: one file a command.
//!
//! Exit codes are part of the contract: 0 done, 1 a failure while running, 2 a wrong call, 3 a plan that has
//! changes to make, 64 settings that are wrong.

mod catalog;
mod demo;
mod dlq;
mod ends;
mod follow;
mod halted;
pub mod hooks;
mod mapping_tests;
mod run;
mod sandbox;
pub mod schema;
mod send;
mod snapshot;
mod store;
mod sync;
pub mod validate;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use self::ends::{Complaints, Results, is_reader_gone};

use crate::telemetry::{self, LogFormat};

/// A failure while running.
pub const EXIT_FAILURE: u8 = 1;
/// The call itself is wrong, in a way that only the catalogue or the settings can tell.
pub const EXIT_USAGE: u8 = 2;
/// `hooks plan` has something to change, or `hooks prune`, `dlq replay` or `dlq purge` something left.
pub const EXIT_CHANGES: u8 = 3;
/// The settings are wrong.
pub const EXIT_CONFIG: u8 = 64;

/// The bridge between BigCommerce and Kafka.
#[derive(Debug, Parser)]
#[command(name = "bcbridge", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// How the log is written, to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogStyle::Auto)]
    log_format: LogStyle,
    /// More log: once for debug, twice for trace. RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one JSON document on standard output.
    Json,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogStyle {
    /// Text on a terminal, else JSON.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the settings are.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArg {
    /// The settings file. Default: $BCBRIDGE_CONFIG, ./bcbridge.yaml, /etc/bcbridge/bcbridge.yaml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process, with nothing installed: broker, sandbox store, shoppers, the bridge.
    Demo(demo::Args),
    /// Runs the bridge; SIGHUP reads the settings again.
    Run(run::Args),
    /// Reports every mistake in the settings at once; exit code 64 when there is one.
    Validate(validate::Args),
    /// Webhook subscriptions as code.
    #[command(subcommand)]
    Hooks(hooks::HooksCommand),
    /// Puts one command on the topic, and waits for its result if asked to.
    #[command(after_help = send::EXAMPLES)]
    Send(send::Args),
    /// What could not be processed: look at it, replay it, delete it.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Runs the tests of mappings that stand in the settings.
    Test(mapping_tests::Args),
    /// Has a running bridge publish all that a store holds, while callbacks go on.
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Has a running bridge read single entities again and publish them.
    #[command(after_help = sync::EXAMPLES)]
    Sync(sync::Args),
    /// Keys and routes that stand still after a failure: which they are, and how they go on.
    #[command(subcommand)]
    Halted(halted::HaltedCommand),
    /// The BigCommerce simulator alone, for anyone's integration tests.
    Sandbox(sandbox::Args),
    /// What can be read, subscribed, polled and written, and how.
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// The wire contracts.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Completion for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What to do with the wire contracts.
#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Writes every schema into a directory.
    Export {
        /// The directory; made when it is missing.
        dir: PathBuf,
    },
}

/// Prints a line of a result.
fn say(text: std::fmt::Arguments<'_>) -> Result<()> {
    writeln!(Results, "{text}").context("writing the result")
}

/// Prints a line of what is wrong.
fn complain(text: std::fmt::Arguments<'_>) {
    // There is nobody to tell that nobody listens.
    let _ = writeln!(Complaints, "{text}");
}

fn export(dir: &Path) -> Result<ExitCode> {
    let written = schema::export(dir).with_context(|| format!("writing the schemas to {}", dir.display()))?;
    say(format_args!("wrote {} files to {}", written.len(), dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Parses the arguments and carries the command out.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = match cli.log_format {
        LogStyle::Auto => LogFormat::Auto,
        LogStyle::Text => LogFormat::Text,
        LogStyle::Json => LogFormat::Json,
    };
    // The demo shows what happens by itself.
    let quiet = matches!(cli.command, Command::Demo(_)) && cli.verbose == 0;
    let verbosity = if quiet { -1 } else { i8::try_from(cli.verbose).unwrap_or(i8::MAX) };
    if let Err(error) = telemetry::init(format, verbosity) {
        complain(format_args!("error: {error}"));
        return ExitCode::from(EXIT_FAILURE);
    }
    crate::runtime::install_panic_hook();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("error: the runtime could not be started: {error}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let code = runtime.block_on(carry_out(cli));
    // What is still blocked in a native call must not hold the exit back.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code
}

async fn carry_out(cli: Cli) -> ExitCode {
    let output = cli.output;
    let result = match cli.command {
        Command::Demo(args) => demo::run(args, output).await,
        Command::Run(args) => run::run(args).await,
        Command::Validate(args) => store::validate(args, output).await,
        Command::Hooks(command) => hooks::run(command, output).await,
        Command::Send(args) => send::run(args, output).await,
        Command::Dlq(command) => dlq::run(command, output).await,
        Command::Test(args) => mapping_tests::run(&args, output),
        Command::Snapshot(command) => snapshot::run(command, output).await,
        Command::Sync(args) => sync::run(args, output).await,
        Command::Halted(command) => halted::run(command, output).await,
        Command::Sandbox(args) => sandbox::run(args).await,
        Command::Catalog(command) => catalog::run(&command, output),
        Command::Schema(SchemaCommand::Export { dir }) => export(&dir),
        Command::Completion { shell } => {
            // Into memory first: writing by itself, clap_complete panics when the reader went away.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bcbridge", &mut script);
            Results.write_all(&script).context("writing the result").map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        if is_reader_gone(&error) {
            return ExitCode::SUCCESS;
        }
        complain(format_args!("error: {error:#}"));
        ExitCode::from(EXIT_FAILURE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        found.extend(
            text.lines().map(str::trim).filter(|line| line.starts_with("bcbridge ")).map(str::to_owned),
        );
        command.get_subcommands().for_each(|command| examples(command, found));
    }

    #[test]
    fn every_example_of_the_help_is_a_call_that_is_understood() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut found = Vec::new();
        examples(&command, &mut found);
        assert!(found.len() >= 6, "{found:?}");
        for line in found {
            let words = line.split_whitespace();
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
