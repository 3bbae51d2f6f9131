//! `bcbridge sync STORE ENTITY ID...`: has a running bridge read single entities again and publish them.
//!
//! Store, entity and ids are checked before anything is sent. The exit code is 0 when the hints stand on the intake
//! topic, and 1 when they do not.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::follow::{Asking, Wait};
use super::{ConfigArg, Output};
use crate::model::ids::EntityId;
use crate::model::signal::{Ask, MOST_IDS};

/// Shown below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  bcbridge sync main product 77 78
  bcbridge sync main price_list_record 3:509:usd --no-follow";

/// Arguments of `sync`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// The store's name.
    store: String,
    /// The entity's name.
    entity: String,
    /// The ids; the parts of an id are joined with a colon, such as 206:509.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Sends the signal and ends at once.
    #[arg(long)]
    no_follow: bool,
}

pub(super) async fn run(args: Args, output: Output) -> Result<ExitCode> {
    let asking = match Asking::prepare(&args.config, |_| {
        if args.ids.len() > MOST_IDS {
            bail!(
                "{} ids are given; one sync takes at most {MOST_IDS}: split them, or start a snapshot",
                args.ids.len()
            );
        }
        let ids: Result<_, _> = args.ids.iter().map(|id| EntityId::parse(id)).collect();
        let ids = ids.context("nothing was sent")?;
        Ok(Ask::Sync { store: args.store.clone(), entity: args.entity.clone(), ids })
    }) {
        Ok(asking) => asking,
        Err(code) => return Ok(code),
    };
    asking.run(if args.no_follow { Wait::Not } else { Wait::ForTheEnd }, output).await
}
