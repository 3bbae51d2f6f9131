//! `bcbridge run`: the service.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::{ConfigArg, store};
use crate::app::{App, Options, Role};
use crate::runtime::stop_signal;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// The roles that this process takes on; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Vec<Role>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let settings = match store::load(&args.config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let stop = stop_signal()?;
    let options = Options { roles: args.roles.into_iter().collect(), ..Options::default() };
    let app = App::start(Arc::new(settings), options).await?;
    // Settings are read at the start only, so far; unheard, the signal would kill without a drain.
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let stopped = async {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                signal = &mut stop => return tracing::info!(signal, "asked to stop"),
                _ = hangup.recv() => tracing::warn!("SIGHUP changes nothing in this release: restart to read the settings again"),
            }
        }
    };
    app.run(stopped).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
