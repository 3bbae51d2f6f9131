//! `bcbridge demo`: everything in one process, with nothing installed.
//!
//! A broker, a sandbox store with a sample catalogue, simulated shoppers and staff who cause real callbacks over
//! real HTTP, a simulated ERP that sends commands, and the bridge in between, as `run` would start it. It shows
//! what flows, and in the end compares what the sandbox sent and holds with what the topics hold.

mod observe;
mod reconcile;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use self::observe::Observer;
use super::{Output, say};
use crate::app::{App, Options};
use crate::catalog::{Catalog, Entity};
use crate::config::{self, Settings};
use crate::kafka::settings::ClientSettings;
use crate::runtime::{Drain, stop_signal};
use crate::sandbox::{Control, Sandbox, SandboxConfig};

/// The store's name in topics and routes.
pub(super) const STORE: &str = "demo";
/// Calls in 30 s, as on a Pro plan.
const QUOTA: u32 = 450;
/// Between two lines of the display.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// Between two commands of the simulated ERP.
const COMMAND_EVERY: Duration = Duration::from_millis(700);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ends by itself after this time, for example 30s or 2m; compares and sums up.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Changes a second that shoppers and staff make.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Keeps the broker's data in this directory. Default: in memory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Reads a time with its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write for example 30s, 2m or 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match &text[digits.len()..] {
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(wrong()),
    }
}

pub(super) async fn run(args: Args, output: Output) -> Result<ExitCode> {
    let begun = Instant::now();
    let stop = stop_signal()?;
    let sandbox =
        Sandbox::start(SandboxConfig { seed: args.seed, quota: QUOTA, ..SandboxConfig::default() }).await?;
    let app = start_bridge(&sandbox, &args).await?;
    let client = app.cluster.client.clone();
    announce(&sandbox, &app, output)?;
    let readiness = app.readiness.clone();
    let (trigger, drain) = Drain::switch();
    let bridge =
        crate::runtime::spawn("bridge", async move { app.run(async move { drain.requested().await }).await });
    while !readiness.waiting_for().is_empty() && !bridge.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let control = sandbox.control();
    control.shoppers(args.rate);
    let mut show = Show {
        observer: Observer::open(&client, STORE).await?,
        control: control.clone(),
        begun,
        output,
        first: None,
    };
    tokio::select! {
        result = show.flow(&client) => result?,
        () = ended(args.duration) => {}
        _ = stop => {}
    }
    control.shoppers(0.0);
    if output == Output::Table {
        say(format_args!(
            "\nthe shoppers went home; comparing what the store holds with what the topics hold ..."
        ))?;
    }
    let report = reconcile::run(&client, &control, begun.elapsed()).await?;
    trigger.request();
    bridge.await.context("the bridge panicked")??;
    sandbox.stop().await;
    report.print(output, show.first)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(super::EXIT_FAILURE) })
}

async fn ended(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn start_bridge(sandbox: &Sandbox, args: &Args) -> Result<App> {
    let options = Options {
        embedded_listen: Some(free(9092)),
        embedded_data: args.data.clone(),
        callbacks_by_loopback: true,
        ..Options::default()
    };
    App::start(Arc::new(settings(&sandbox.base_uri())?), options).await
}

/// What the demo publishes: what a bridge publishes whose settings name no entities. Hooks for all that callbacks can
/// tell of would cost most of the first window's quota.
fn published(catalog: &Catalog) -> impl Iterator<Item = &Arc<Entity>> {
    catalog.entities().iter().filter(|entity| entity.default)
}

/// The settings that a user would write for the sandbox.
fn settings(base_uri: &str) -> Result<Settings> {
    let catalog = Catalog::embedded()?;
    let store = SandboxConfig::default();
    let entities: Vec<_> =
        published(&catalog).map(|entity| json!({ "entity": entity.name, "confirm_gone": "2s" })).collect();
    // JSON is YAML.
    let text = json!({
        "kafka": { "bootstrap_servers": "embedded", "topics": { "partitions": 3 } },
        "receiver": { "listen": "127.0.0.1:0" },
        "console": { "listen": free(8081).to_string() },
        "stores": [{
            "name": STORE,
            "store_hash": store.store_hash,
            "access_token": store.access_token,
            "client_secrets": [store.client_secret],
            "base_uri": base_uri,
        }],
        "incoming": entities,
    });
    config::load_str("the demo's settings", &text.to_string(), &|_| None, &catalog)
        .map_err(|mistakes| anyhow::anyhow!("{mistakes}"))
}

/// The loopback address with this port, or with any port where it is taken.
fn free(port: u16) -> SocketAddr {
    let wished = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(wished) {
        Ok(_) => wished,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

fn announce(sandbox: &Sandbox, app: &App, output: Output) -> Result<()> {
    if output == Output::Json {
        return Ok(());
    }
    let show =
        |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let kafka = app.cluster.client.bootstrap_servers();
    say(format_args!("bcbridge demo: a store, a broker and the bridge in one process\n"))?;
    say(format_args!(
        "  store (sandbox)  {}/stores/{}",
        sandbox.base_uri(),
        SandboxConfig::default().store_hash
    ))?;
    say(format_args!("  Kafka (built in) {kafka}"))?;
    say(format_args!("  receiver         http://{}/webhooks/{STORE}", show(app.receiver)))?;
    say(format_args!("  console          http://{}/  (/metrics, /readyz)", show(app.console)))?;
    say(format_args!("\nwatch a topic:     kcat -b {kafka} -C -t bigcommerce.{STORE}.product\n"))
}

/// The live display.
struct Show {
    observer: Observer,
    control: Control,
    begun: Instant,
    output: Output,
    /// From the start of the process to the first entity on a topic.
    first: Option<Duration>,
}

impl Show {
    /// Shows what flows, and sends a command now and then, until it is dropped.
    async fn flow(&mut self, client: &ClientSettings) -> Result<()> {
        let mut erp = observe::Erp::new(client, STORE)?;
        let mut line = tokio::time::interval(SHOW_EVERY);
        let mut command = tokio::time::interval(COMMAND_EVERY);
        loop {
            tokio::select! {
                seen = self.observer.next() => {
                    let seen = seen?;
                    if self.first.is_none() && seen.is_entity {
                        self.first = Some(self.begun.elapsed());
                    }
                }
                _ = line.tick() => self.line()?,
                _ = command.tick() => erp.send().await?,
            }
        }
    }

    fn line(&self) -> Result<()> {
        if self.output == Output::Json {
            return Ok(());
        }
        let api = self.control.stats();
        let callbacks = self.control.delivery_stats();
        let counts = &self.observer.counts;
        say(format_args!(
            "{:>5.1}s  callbacks {:>5}  entities {:>5}  commands {:>4}  results {:>4}  API calls {:>4} (429: {})   {}",
            self.begun.elapsed().as_secs_f64(),
            callbacks.succeeded,
            counts.entities,
            counts.commands,
            counts.results,
            api.calls,
            api.status_429,
            self.observer.last,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_demo_are_sound_whatever_the_catalogue_holds() {
        let settings = settings("http://127.0.0.1:1").unwrap();
        let entities: Vec<&str> = settings.incoming.iter().map(|entry| entry.entity.as_str()).collect();
        assert!(["product", "order", "cart"].iter().all(|name| entities.contains(name)), "{entities:?}");
    }
}
