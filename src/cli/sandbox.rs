//! `bcbridge sandbox`: the BigCommerce simulator alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::runtime::stop_signal;
use crate::sandbox::{Profile, Sandbox, SandboxConfig};

/// Arguments of `sandbox`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults to begin with, a YAML or JSON file; PUT /_sandbox/faults changes them later.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Calls that a window grants. Default: 150.
    #[arg(long)]
    quota: Option<u32>,
    /// Length of a window in seconds. Default: 30.
    #[arg(long)]
    window_seconds: Option<f64>,
    /// Products of the sample catalogue. Default: 300.
    #[arg(long)]
    products: Option<u32>,
    /// Plain products on top, made quickly and kept small: for stores of any size.
    #[arg(long)]
    bulk_products: Option<u32>,
    /// How many times faster than BigCommerce's the retry ladder and the block rule run. Default: 1.
    #[arg(long)]
    time_scale: Option<f64>,
    /// The store's hash. Default: sandbox1.
    #[arg(long, env = "BIGCOMMERCE_STORE_HASH")]
    store_hash: Option<String>,
    /// The token that requests must carry. Default: sandbox-access-token.
    #[arg(long, env = "BIGCOMMERCE_ACCESS_TOKEN", hide_env_values = true)]
    access_token: Option<String>,
    /// The secret that callbacks are signed with.
    #[arg(long, env = "BIGCOMMERCE_CLIENT_SECRET", hide_env_values = true)]
    client_secret: Option<String>,
    /// Changes a second by simulated shoppers and staff.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Appends every accepted write to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    history_file: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let mut config = SandboxConfig { listen: args.listen, seed: args.seed, ..SandboxConfig::default() };
    if let Some(path) = &args.profile {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        config.profile = serde_saphyr::from_str::<Profile>(&text)
            .with_context(|| format!("the profile {}", path.display()))?;
    }
    config.quota = args.quota.unwrap_or(config.quota);
    config.window = args.window_seconds.map_or(config.window, Duration::from_secs_f64);
    config.products = args.products.unwrap_or(config.products);
    config.bulk_products = args.bulk_products.unwrap_or(config.bulk_products);
    config.time_scale = args.time_scale.unwrap_or(config.time_scale);
    config.store_hash = args.store_hash.unwrap_or(config.store_hash);
    config.access_token = args.access_token.unwrap_or(config.access_token);
    config.client_secret = args.client_secret.unwrap_or(config.client_secret);
    config.history_file = args.history_file;
    let hash = config.store_hash.clone();
    let stop = stop_signal()?;
    let sandbox = Sandbox::start(config).await?;
    sandbox.control().shoppers(args.rate);
    let at = sandbox.base_uri();
    super::say(format_args!("BigCommerce sandbox: {at}/stores/{hash}/v3, control: {at}/_sandbox/"))?;
    stop.await;
    sandbox.stop().await;
    Ok(ExitCode::SUCCESS)
}
