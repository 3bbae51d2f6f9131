//! The checked settings: what the rest of the program is built from. Every value here has been parsed,
//! defaulted and compared with its neighbours; nothing needs to be checked again. Plain types, no serde:
//! the file's own shape lives in `raw`. Secrets are `SecretString`s, so `Debug` prints none of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::template::Template;
use crate::transform::Mapping;

/// Everything the program was told, checked as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach Kafka, and what topics are called.
    pub kafka: KafkaSettings,
    /// The listener for callbacks.
    pub receiver: ReceiverSettings,
    /// The listener for people and scrapers.
    pub console: ConsoleSettings,
    /// At least one store; names and hashes are unique.
    pub stores: Vec<StoreSettings>,
    /// BigCommerce to Kafka: at most one entry per store and entity.
    pub incoming: Vec<IncomingSettings>,
    /// Kafka to BigCommerce: one entry per consumed topic.
    pub outgoing: Vec<OutgoingSettings>,
    /// Rows that the user adds to the catalogue, or puts in the place of its own; the rest was checked against the
    /// catalogue that has them.
    pub catalog: Vec<serde_json::Value>,
    /// What is allowed but deserves a look; whoever loads the settings shows them once, loudly.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The store called `name`, if there is one.
    #[must_use]
    pub fn store(&self, name: &str) -> Option<&StoreSettings> {
        self.stores.iter().find(|store| store.name == name)
    }

    /// The incoming entries that apply to `store`: its own, and those without a store unless it has
    /// its own entry for the entity.
    pub fn incoming_of<'a>(&'a self, store: &'a str) -> impl Iterator<Item = &'a IncomingSettings> {
        self.incoming.iter().filter(move |entry| match &entry.store {
            Some(own) => own == store,
            None => !self
                .incoming
                .iter()
                .any(|other| other.store.as_deref() == Some(store) && other.entity == entry.entity),
        })
    }
}

/// `kafka:`
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// The cluster, or the built-in broker.
    pub bootstrap: Bootstrap,
    /// librdkafka properties passed through as they are. Any of them may be a password.
    pub properties: BTreeMap<String, SecretString>,
    /// First part of every topic name, `{prefix}` in templates.
    pub prefix: String,
    /// What topics are called and how they are created.
    pub topics: TopicSettings,
}

/// Where the brokers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// Start the broker that is built in: for trying out and for tests.
    Embedded,
    /// `host:port[,host:port...]`, handed to librdkafka.
    Servers(String),
}

/// `kafka.topics:`
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// Create topics that are missing.
    pub create: bool,
    /// Partitions of a created topic, 1 or more. Never changed on an existing topic.
    pub partitions: u32,
    /// Copies of a created topic, 1 or more.
    pub replication_factor: u16,
    /// The name of each kind of topic.
    pub names: TopicNames,
    /// The key of entity records.
    pub key: Template,
}

/// `kafka.topics.names:` one template per kind of topic.
#[derive(Debug, Clone)]
pub struct TopicNames {
    /// Hints waiting to be read.
    pub webhooks: Template,
    /// The state of entities; `incoming[].topic` overrides it.
    pub entity: Template,
    /// What could not be processed.
    pub dlq: Template,
    /// What is known to be published.
    pub ledger: Template,
    /// Commands to the store.
    pub commands: Template,
    /// What became of each command.
    pub results: Template,
    /// Control of the bridge; has neither store nor entity.
    pub signals: Template,
    /// Progress of the bridge; has neither store nor entity.
    pub notifications: Template,
}

/// `receiver:`
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// Address of the callback listener.
    pub listen: SocketAddr,
    /// What BigCommerce calls; callbacks go to `<public_url>/webhooks/<store>`. Without it no hook can be made.
    pub public_url: Option<Url>,
    /// Oldest signed timestamp that is accepted.
    pub past_window: Duration,
    /// Open connections in all.
    pub max_connections: u32,
    /// Open connections from one address.
    pub max_connections_per_peer: u32,
    /// Proxies in front: not held to the limit per peer.
    pub trusted_proxies: Vec<Cidr>,
    /// Where callbacks wait when Kafka cannot take them.
    pub spool: SpoolSettings,
}

/// `receiver.spool:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Directory of the segments; made with mode 0700 when missing.
    pub dir: PathBuf,
    /// Bytes on disk at which callbacks are refused with 503.
    pub max_bytes: u64,
}

/// `console:`
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// Address of the console, the metrics and the API.
    pub listen: SocketAddr,
    /// Bearer token of everything but health. Absent only on a loopback address.
    pub token: Option<SecretString>,
}

/// `stores[]:`
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// `{store}` in topic names and in the callback's path; default: the store hash.
    pub name: String,
    /// The store's id in API paths.
    pub store_hash: String,
    /// `X-Auth-Token`.
    pub access_token: SecretString,
    /// Origin of the API, without path; https, or http on a loopback host.
    pub base_uri: Url,
    /// Keys that callbacks may be signed with; several while rotating.
    pub client_secrets: Vec<SecretString>,
    /// What happens to callbacks without a signature.
    pub signature: SignaturePolicy,
    /// Headers asked of every callback; names in lower case. Of the values, one or more, the first is set on hooks and
    /// any is taken: that is how a value is changed without refusing a callback. Empty ones were left out.
    pub webhook_headers: BTreeMap<String, Vec<SecretString>>,
    /// The share of the rate limit that is not used.
    pub budget: BudgetSettings,
}

/// What a callback must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// No valid signature, no entry. At least one client secret is configured.
    Required,
    /// A signature must be valid when there is one. At least one client secret is configured.
    IfPresent,
    /// Nothing is checked. Always with a warning.
    Off,
}

/// `stores[].budget:`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetSettings {
    /// Share of every rate-limit window left for the store's other apps, 0.0 to 0.95.
    pub reserve: f64,
}

/// `incoming[]:`
#[derive(Debug, Clone)]
pub struct IncomingSettings {
    /// The store this entry is for; `None`: every store that has no own entry for the entity.
    pub store: Option<String>,
    /// Name in the catalogue (aliases are resolved).
    pub entity: String,
    /// The scopes to subscribe, patterns resolved; empty for an entity that has no webhook.
    pub scopes: Vec<String>,
    /// Sub-resources read along.
    pub include: Vec<String>,
    /// Query parameters of the read.
    pub query: BTreeMap<String, String>,
    /// Path parameters of the read.
    pub path: BTreeMap<String, String>,
    /// Changes `{path, query}` before the read.
    pub parameters: Mapping,
    /// False: not published.
    pub filter: Option<Mapping>,
    /// Changes the entity before it is published.
    pub transform: Mapping,
    /// Scheduled reads.
    pub poll: Option<PollSettings>,
    /// Scheduled repairs of what callbacks missed.
    pub sweep: Option<SweepSettings>,
    /// How long hints about one entity are gathered.
    pub quiet: Duration,
    /// How long a hint waits at most while others keep coming.
    pub max_wait: Duration,
    /// How long after a first 404 the entity is read again before it counts as gone.
    pub confirm_gone: Duration,
    /// Callbacks that change nothing are settled without a record.
    pub suppress_unchanged: bool,
    /// Changes that the bridge itself made are settled without a record.
    pub suppress_echo: bool,
    /// How long after a callback an entity without a date of change is read once more; none: never.
    pub second_read: Option<Duration>,
    /// Shape of the published record.
    pub format: RecordFormat,
    /// Topic of the records; already the default where the entry has none.
    pub topic: Template,
    /// Key of the records; already the default where the entry has none.
    pub key: Template,
    /// Examples of filter and transform, run by `bcbridge test`.
    pub tests: Vec<MappingTest>,
}

/// `incoming[].poll:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSettings {
    /// Between two polls.
    pub every: Duration,
    /// The first one runs at the start; else after one interval.
    pub at_start: bool,
    /// Between two polls that read everything, of an entity that can be filtered by date of change.
    pub full: Duration,
}

/// `incoming[].sweep:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSettings {
    /// Between two sweeps.
    pub every: Duration,
    /// Between two comparisons of all ids, where that takes many calls.
    pub full: Duration,
}

/// The shape of an entity's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// CloudEvents 1.0 in Kafka's binary mode: the value is the entity.
    CloudEvents,
    /// CloudEvents 1.0 in structured mode: one JSON document.
    CloudEventsStructured,
    /// `{op, after, source, ts_ms}`, delete followed by a null.
    Envelope,
}

/// `outgoing[]:`
#[derive(Debug, Clone)]
pub struct OutgoingSettings {
    /// The consumed topic.
    pub topic: String,
    /// The store that is written to, always a name of [`Settings::stores`].
    pub store: String,
    /// What the records are.
    pub route: Route,
    /// False: the record is settled as skipped without a command.
    pub filter: Option<Mapping>,
    /// Turns a record into a command, or into the parts of one.
    pub transform: Mapping,
    /// Turns a record into single parts of a command (`path`, `query`, `payload`), instead of `transform`.
    pub parts: Vec<(&'static str, Mapping)>,
    /// What a dead-lettered record means for its key.
    pub on_failure: OnFailure,
    /// Percent of the last commands that may end as dead letters before the route stops; none never stops it.
    pub stop_at: Option<u8>,
    /// Check and plan, tell what would be sent, send nothing.
    pub dry_run: bool,
    /// Examples run by `bcbridge test`.
    pub tests: Vec<MappingTest>,
}

/// What an outgoing topic's records are after the transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Whole commands, naming entity and action themselves.
    Commands,
    /// `{path?, query?, payload?}` for this entity and action.
    Mapped {
        /// Name in the catalogue.
        entity: String,
        /// `create`, `update`, `upsert`, `delete` or a named action of the entity.
        action: String,
    },
}

/// What follows a record that ended as a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The key goes on with its next record.
    Skip,
    /// The key waits until someone acts.
    HaltKey,
}

/// One example of a mapping: this in, that out.
#[derive(Debug, Clone, PartialEq)]
pub struct MappingTest {
    /// Shown in the report.
    pub name: String,
    /// Where it stands, as in `outgoing[0].tests[1]`.
    pub at: String,
    /// The record's value; null is a tombstone.
    pub input: serde_json::Value,
    /// The record's key: a text as it is, anything else as its JSON.
    pub key: Option<serde_json::Value>,
    /// The record's headers.
    pub headers: Vec<(String, String)>,
    /// The record's time, in milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// What must come of it.
    pub expected: Expected,
}

/// What a test expects.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// The mapping makes this of it.
    Out(serde_json::Value),
    /// It is refused: the reason's name, or a part of its message.
    Error(String),
    /// The filter leaves it out.
    Filtered,
}

/// An address block, `10.0.0.0/8` or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Any address of the block.
    pub address: IpAddr,
    /// Leading bits that must agree: at most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

impl Cidr {
    /// Whether `peer` lies in the block. An IPv4 peer seen through an IPv6 socket counts as IPv4.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        match (self.address.to_canonical(), peer.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                same_prefix(u32::from(own).into(), u32::from(peer).into(), 32, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(peer)) => {
                same_prefix(u128::from(own), u128::from(peer), 128, self.bits)
            }
            _ => false,
        }
    }
}

/// Whether two numbers of `width` bits agree in their first `bits`.
fn same_prefix(a: u128, b: u128, width: u8, bits: u8) -> bool {
    bits == 0 || (a ^ b) >> (width - bits.min(width)) == 0
}
