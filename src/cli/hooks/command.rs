//! The arguments of `bcbridge hooks`, and the way from them to the stores.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::verify::{self, VerifyArgs};
use super::{Target, apply, plan, prune, status};
use crate::app::stores;
use crate::bigcommerce::StoreClient;
use crate::cli::ends::{Complaints, Results};
use crate::cli::store::load;
use crate::cli::{ConfigArg, Output};
use crate::config::Settings;

/// Shown below the help of `verify`.
const EXAMPLES: &str = "\
Examples:
  bcbridge hooks verify --store main --headers headers.txt --body body.json --at 1767225600";

/// What to do with the subscriptions.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum HooksCommand {
    /// Shows what `apply` would do; exit code 3 when there is something.
    Plan(ConfigArg),
    /// Creates, re-activates and corrects. Foreign hooks are left alone.
    Apply(ConfigArg),
    /// Shows every hook that the token sees, blocked domains, and how many people are told of failures.
    Status(ConfigArg),
    /// Deletes hooks of this bridge that are no longer wanted; exit code 3 when some are left.
    Prune(PruneArgs),
    /// Checks a captured request as the receiver would, and says which part is wrong; exit code 1 when one is.
    #[command(after_help = EXAMPLES)]
    Verify(VerifyArgs),
}

/// How to prune.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Deletes without asking. Without it, and without a terminal, nothing is deleted.
    #[arg(long)]
    yes: bool,
}

/// Carries a command out.
pub(in crate::cli) async fn run(command: HooksCommand, output: Output) -> Result<ExitCode> {
    let config = match &command {
        HooksCommand::Plan(config) | HooksCommand::Apply(config) | HooksCommand::Status(config) => config,
        HooksCommand::Prune(args) => &args.config,
        HooksCommand::Verify(args) => &args.config,
    };
    let settings = match load(config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let out = &mut Results;
    let code = match command {
        HooksCommand::Plan(_) => plan(&targets(&settings)?, output, out).await?,
        HooksCommand::Apply(_) => apply(&targets(&settings)?, output, out).await?,
        HooksCommand::Status(_) => status(&targets(&settings)?, output, out).await?,
        HooksCommand::Prune(args) => {
            let consent = |shown: &str| if args.yes { Ok(true) } else { ask(shown) };
            prune(&targets(&settings)?, consent, output, out).await?
        }
        HooksCommand::Verify(args) => verify::run(&args, &settings, output, out)?,
    };
    Ok(ExitCode::from(code))
}

fn targets(settings: &Settings) -> Result<Vec<Target<StoreClient>>> {
    let Some(public_url) = &settings.receiver.public_url else {
        bail!("receiver.public_url is not set; it says where BigCommerce is to deliver callbacks");
    };
    let target = |store| {
        let wanted = stores::wanted(settings, store, public_url);
        Ok(Target { store: stores::client(store, &[], None)?, wanted })
    };
    settings.stores.iter().map(target).collect()
}

/// Asks the person at the terminal; where there is none, the answer is no.
fn ask(shown: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut err = Complaints;
    write!(err, "{shown}\n\nDelete these? [y/N] ").and_then(|()| err.flush()).context("asking")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
