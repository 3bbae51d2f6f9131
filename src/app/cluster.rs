//! The Kafka cluster that the settings name: reached, with its topics in place.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret;
use tracing::{info, warn};

use super::topics;
use crate::config::{Bootstrap, Settings};
use crate::kafka::settings::ClientSettings;
use crate::kafka::topics::Topics;

/// How long the brokers may be away at the start before the process gives up and lets its supervisor decide.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// A cluster; the built-in broker lives as long as this does.
#[derive(Debug)]
pub struct Cluster {
    /// How clients reach it.
    pub client: ClientSettings,
    #[cfg(feature = "embedded")]
    embedded: Option<crate::embedded::EmbeddedBroker>,
}

impl Cluster {
    /// Reaches the cluster, or starts the built-in broker on `listen` with its data in `data`.
    ///
    /// # Errors
    /// A property that is refused, or a broker that does not start.
    pub async fn reach(settings: &Settings, listen: Option<SocketAddr>, data: Option<&Path>) -> Result<Self> {
        let properties: BTreeMap<String, String> = settings
            .kafka
            .properties
            .iter()
            .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
            .collect();
        match &settings.kafka.bootstrap {
            Bootstrap::Servers(servers) => Ok(Self {
                client: client(servers, properties)?,
                #[cfg(feature = "embedded")]
                embedded: None,
            }),
            #[cfg(feature = "embedded")]
            Bootstrap::Embedded => {
                let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                let broker =
                    crate::embedded::start(listen, data).await.context("starting the built-in broker")?;
                let servers = broker.bootstrap_servers();
                match data {
                    Some(_) => info!(kafka.servers = %servers, "the built-in broker listens"),
                    None => warn!(
                        kafka.servers = %servers,
                        "the built-in broker listens, and keeps everything in memory: for trying, not for callbacks that count"
                    ),
                }
                let client = client(&servers, properties)?;
                Ok(Self { client, embedded: Some(broker) })
            }
            #[cfg(not(feature = "embedded"))]
            Bootstrap::Embedded => {
                let _ = (listen, data, Ipv4Addr::LOCALHOST);
                bail!(
                    "kafka.bootstrap_servers is \"embedded\", and this build has no built-in broker; name a cluster"
                )
            }
        }
    }

    /// Looks without changing anything: which promises the topics cannot keep.
    ///
    /// # Errors
    /// The brokers do not answer, or a topic is missing that the bridge may not create.
    pub async fn inspect(&self, settings: &Settings) -> Result<Vec<String>> {
        if settings.kafka.bootstrap == Bootstrap::Embedded {
            return Ok(Vec::new());
        }
        let topics = Topics::new(&self.client)?;
        look_for_inputs(&topics, settings).await;
        check(&topics, settings).await
    }

    /// Stops the built-in broker, if it is one.
    pub async fn stop(self) {
        #[cfg(feature = "embedded")]
        if let Some(broker) = self.embedded {
            broker.stop().await;
        }
    }
}

fn client(servers: &str, properties: BTreeMap<String, String>) -> Result<ClientSettings> {
    ClientSettings::new(servers, properties).map_err(|errors| {
        anyhow::anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })
}

/// Creates the missing topics, waiting for brokers that are not up yet, and says which promises the
/// existing ones cannot keep.
///
/// # Errors
/// The brokers refuse, or do not answer for a minute.
pub(super) async fn prepare(client: &ClientSettings, settings: &Settings) -> Result<Vec<String>> {
    let topics = Topics::new(client)?;
    let specs = topics::specs(settings);
    if settings.kafka.topics.create {
        let until = Instant::now() + PATIENCE;
        let states = loop {
            match topics.ensure(&specs).await {
                Ok(states) => break states,
                Err(error) if error.is_transient() && Instant::now() < until => {
                    warn!(%error, "kafka is not ready yet");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error).context("preparing the topics"),
            }
        };
        let created = states.iter().filter(|state| state.created).count();
        info!(topics = states.len(), created, "the topics are in place");
    }
    look_for_inputs(&topics, settings).await;
    check(&topics, settings).await
}

async fn check(topics: &Topics, settings: &Settings) -> Result<Vec<String>> {
    // The built-in broker is one machine's, and says so when it starts.
    if settings.kafka.bootstrap == Bootstrap::Embedded {
        return Ok(Vec::new());
    }
    let specs = topics::specs(settings);
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let described = topics.describe(&names).await.context("reading the topics' settings")?;
    let missing: Vec<&str> =
        names.iter().copied().filter(|name| described.iter().all(|d| d.name != *name)).collect();
    if !missing.is_empty() {
        bail!(
            "these topics do not exist: {}; create them, or set kafka.topics.create to true",
            missing.join(", ")
        );
    }
    let count = settings.kafka.topics.partitions;
    let ledgers = settings.stores.iter().map(|store| topics::StoreTopics::of(settings, &store.name).ledger);
    for ledger in ledgers {
        let found = described.iter().find(|found| found.name == *ledger).map_or(0, |found| found.partitions);
        if i64::from(found) != i64::from(count) {
            // With another number, what was published and applied would be looked up in the wrong place.
            bail!(
                "topic {ledger} has {found} partitions and kafka.topics.partitions is {count}; set it to {found}"
            );
        }
    }
    let mut weaknesses: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (found, spec) in
        described.iter().filter_map(|found| Some((found, specs.iter().find(|s| s.name == found.name)?)))
    {
        for weakness in found.degraded(spec) {
            weaknesses.entry(weakness).or_default().push(&found.name);
        }
    }
    Ok(weaknesses.iter().map(|(weakness, topics)| format!("{weakness} ({})", topics.join(", "))).collect())
}

/// Warns of topics that commands are to be read from, and that nobody made: they are others' to make, now or later.
async fn look_for_inputs(topics: &Topics, settings: &Settings) {
    for entry in &settings.outgoing {
        match topics.partitions_of(&entry.topic).await {
            Ok(0) => warn!(
                kafka.topic = %entry.topic,
                "outgoing: this topic does not exist; its commands are read once somebody creates it"
            ),
            Ok(_) => {}
            Err(error) => {
                warn!(kafka.topic = %entry.topic, %error, "outgoing: this topic could not be looked up")
            }
        }
    }
}
