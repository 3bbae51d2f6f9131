//! `bcbridge run`: the service.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::{ConfigArg, store};
use crate::app::{App, Loader, Options, Reloader, Role};
use crate::runtime::{spawn, stop_signal};

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
    // Heard from the start: unheard, the signal would kill without a drain.
    let hangup = signal(SignalKind::hangup())?;
    let config = args.config;
    let loader = Loader::new(move || store::load_again(&config));
    let options =
        Options { roles: args.roles.into_iter().collect(), loader: Some(loader), ..Options::default() };
    let app = App::start(Arc::new(settings), options).await?;
    let reloading = AbortOnDropHandle::new(spawn("reload", reload_on(hangup, app.reloader.clone())));
    let stop = async {
        // Not inside the macro: what is not logged is not awaited there.
        let signal = stop.await;
        tracing::info!(signal, "asked to stop");
    };
    app.run(stop).await?;
    drop(reloading);
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Reads the settings again at each signal; those that come meanwhile count as one.
async fn reload_on(mut hangup: Signal, reloader: Reloader) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: the settings are read again");
        // What comes of it is in the log.
        let _ = reloader.reload().await;
    }
}
