//! The settings as commands load them, and `validate`, which looks at the stores as well.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::ends::{Complaints, Results};
use super::{ConfigArg, EXIT_CONFIG, Output, complain, validate};
use crate::app::stores;
use crate::catalog::Catalog;
use crate::config::{self, Bootstrap, ConfigErrors, MistakeRow, Settings};

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Loads the settings; mistakes are printed, all of them, and become the exit code.
pub(super) fn load(arg: &ConfigArg) -> Result<Settings, ExitCode> {
    let catalog = Catalog::embedded().map_err(|error| {
        complain(format_args!("error: {error}"));
        ExitCode::from(super::EXIT_FAILURE)
    })?;
    let settings = read(arg, &catalog).map_err(|errors| {
        complain(format_args!("{errors}"));
        ExitCode::from(EXIT_CONFIG)
    })?;
    let refused = validate::refused_properties(&settings);
    if refused.is_empty() {
        return Ok(settings);
    }
    let _ = validate::write_rows(&refused, &mut Complaints);
    Err(ExitCode::from(EXIT_CONFIG))
}

/// That what is sent reaches a running bridge.
///
/// # Errors
/// The broker lives inside of another process.
pub(super) fn needs_a_cluster(settings: &Settings) -> Result<()> {
    if settings.kafka.bootstrap == Bootstrap::Embedded {
        bail!(
            "kafka.bootstrap_servers is \"embedded\": the broker lives inside another process; name its address"
        );
    }
    Ok(())
}

/// Loads the settings again while the bridge runs: every mistake as a row.
pub(super) fn load_again(arg: &ConfigArg) -> Result<Settings, Vec<MistakeRow>> {
    let catalog =
        Catalog::embedded().map_err(|error| vec![row(error.to_string(), "this build is broken")])?;
    let settings = read(arg, &catalog).map_err(|errors| errors.rows())?;
    let refused = validate::refused_properties(&settings);
    if refused.is_empty() { Ok(settings) } else { Err(refused) }
}

fn read(arg: &ConfigArg, catalog: &Catalog) -> Result<Settings, ConfigErrors> {
    config::find(arg.config.as_deref(), &env).and_then(|source| config::load_source(&source, &env, catalog))
}

pub(super) async fn validate(args: validate::Args, output: Output) -> Result<ExitCode> {
    let catalog = Catalog::embedded()?;
    let online = |settings: &Settings| {
        // The report is written by plain code; only these questions need the network.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(look(settings)))
    };
    let around =
        validate::Surroundings { env: &env, names: &catalog, online: &online, json: output == Output::Json };
    let code = validate::run(&args, &around, &mut Results, &mut Complaints)?;
    Ok(ExitCode::from(code))
}

/// Asks every store and the cluster: what is wrong with them, in rows of the report.
async fn look(settings: &Settings) -> Vec<MistakeRow> {
    let mut found = Vec::new();
    for store in &settings.stores {
        if let Err(error) = ask(settings, &store.name).await {
            found.push(row(
                format!("store {:?}: {error:#}", store.name),
                "check its access_token and base_uri",
            ));
        }
    }
    match cluster(settings).await {
        // A weaker promise is the owner's choice, and no mistake.
        Ok(degraded) => {
            degraded.iter().for_each(|text| complain(format_args!("warning: a promise is degraded: {text}")))
        }
        Err(error) => {
            found.push(row(format!("kafka: {error:#}"), "check kafka.bootstrap_servers and its properties"))
        }
    }
    found
}

async fn cluster(settings: &Settings) -> Result<Vec<String>> {
    let cluster = crate::app::Cluster::reach(settings, None, None).await?;
    let degraded = cluster.inspect(settings).await;
    cluster.stop().await;
    degraded
}

fn row(message: String, help: &str) -> MistakeRow {
    MistakeRow {
        message,
        help: help.to_owned(),
        file: String::new(),
        line: 0,
        column: 0,
        allowed: String::new(),
    }
}

/// Asks a store for its time: token, address and reachability in one call; then for its hooks.
async fn ask(settings: &Settings, name: &str) -> Result<()> {
    use crate::model::request::{Answer, Purpose};
    use crate::runtime::ports::Store as _;
    let store = settings.store(name).context("it is not configured")?;
    let client = stores::client(store, &[], None)?;
    let request = crate::catalog::plain_get("/v2/time", Vec::new(), Purpose::Upkeep)?;
    let reply = client.send(request).await;
    if reply.answer != Answer::Done {
        bail!("GET /v2/time was answered with status {}: {}", reply.status, reply.detail);
    }
    crate::bigcommerce::hooks::status(&client).await?;
    Ok(())
}
